"""Watching a training step of JAX: a wrapper around the step function (`watcher`), and a bad step run again (`rerun`)."""
