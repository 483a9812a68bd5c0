"""Attacks on proofs: real evaluations aimed at losses that a check calls safe, and a collection of losses to attack."""
