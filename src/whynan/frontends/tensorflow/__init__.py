"""TensorFlow and Keras: losses run and recorded eagerly, as the graph that Grappler leaves of a `tf.function`, and as XLA's program."""

from whynan.frontends.tensorflow.program import MODES, TensorflowProgram, load

__all__ = ["MODES", "TensorflowProgram", "load"]
