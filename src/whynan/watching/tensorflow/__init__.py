"""Watching TensorFlow training steps: loss and gradients are looked at inside the step (`tap`), a bad step is run again (`rerun`)."""

from whynan.watching.tensorflow.step import WatchedStep

__all__ = ["WatchedStep"]
