"""Watching a training run: almost free while it is healthy, and when a step goes bad it is run again and explained.

`overseer` counts steps, keeps the flight record (`flight`) and decides what a bad step leads to (`policy`). What a step needs to be run
again, and running it, is each framework's: `torch`, `tensorflow`, `jax`. What came out is an `Incident` (`record`).
"""
