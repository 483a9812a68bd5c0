"""Between NumPy arrays and TensorFlow tensors: element types, conversions, and the floating tensors of a result."""

from typing import Any

import numpy as np
import tensorflow as tf

from whynan.frontends.trace import flattened
from whynan.ir.dtype import BFLOAT16, BOOL, FLOAT16, FLOAT32, FLOAT64, INT8, INT16, INT32, INT64, UINT8, Array, Format, flushed

# TensorFlow's CPU kernels take subnormal numbers for zero, as operands and as results
FORMATS: dict[tf.DType, Format] = {
    tf.float64: flushed(FLOAT64),
    tf.float32: flushed(FLOAT32),
    tf.float16: FLOAT16,
    tf.bfloat16: flushed(BFLOAT16),
    tf.int64: INT64,
    tf.int32: INT32,
    tf.int16: INT16,
    tf.int8: INT8,
    tf.uint8: UINT8,
    tf.bool: BOOL,
}


def to_tensor(array: Array) -> tf.Tensor:
    """A new tensor with the array's values and element type; TypeError if TensorFlow has no such type."""
    return tf.constant(array)


def format_of(tensor: Any) -> Format | None:
    """The format of a tensor's elements; None where whynan has none (strings, resources, variants, complex numbers)."""
    return FORMATS.get(tensor.dtype)


def to_array(tensor: Any) -> Array | None:
    """The values of a tensor that TensorFlow has computed; None where whynan has no format for them."""
    return np.asarray(tensor._numpy()) if tensor.dtype in FORMATS else None


def floating(result: Any) -> list[Any]:
    """All floating tensors in what a loss returned, variables read."""
    found = []
    for leaf in flattened(result):
        if isinstance(leaf, tf.IndexedSlices) or isinstance(getattr(leaf, "value", None), tf.Variable):
            leaf = tf.convert_to_tensor(leaf)
        if isinstance(leaf, (tf.Tensor, tf.Variable)) and leaf.dtype.is_floating:
            found.append(leaf if isinstance(leaf, tf.Tensor) else leaf.read_value())
    return found


def dense(gradient: Any) -> Any:
    """A gradient as a tensor: one by the rows that were gathered is spread out and its repeated rows are added."""
    return tf.convert_to_tensor(gradient) if isinstance(gradient, tf.IndexedSlices) else gradient
