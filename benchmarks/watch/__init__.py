"""Benchmarks of watching: what it costs while a run is healthy, and what is found when it is not, whynan's and others'."""
