"""TensorFlow and Keras: losses run and recorded eagerly, as the graph that Grappler leaves of a `tf.function`, and as XLA's program."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported: its C++ part reads it once

from whynan.frontends.tensorflow.program import MODES, TensorflowProgram, load

__all__ = ["MODES", "TensorflowProgram", "load"]
