"""Between NumPy arrays and torch tensors: element types, copies in both directions, and the floating tensors of a result."""

from typing import Any

import ml_dtypes
import numpy as np
import torch

from whynan.frontends.trace import flattened
from whynan.ir.dtype import BFLOAT16, BOOL, FLOAT16, FLOAT32, FLOAT64, INT8, INT16, INT32, INT64, UINT8, Array, Format

FORMATS: dict[torch.dtype, Format] = {
    torch.float64: FLOAT64,
    torch.float32: FLOAT32,
    torch.float16: FLOAT16,
    torch.bfloat16: BFLOAT16,
    torch.int64: INT64,
    torch.int32: INT32,
    torch.int16: INT16,
    torch.int8: INT8,
    torch.uint8: UINT8,
    torch.bool: BOOL,
}
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def to_tensor(array: Array) -> torch.Tensor:
    """A new tensor with the array's values and element type; TypeError if torch has no such type."""
    copy = np.array(array, order="C")
    if copy.dtype == _BFLOAT16:
        return torch.from_numpy(copy.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(copy)


def to_array(tensor: torch.Tensor) -> Array | None:
    """A copy of the tensor's values; None where NumPy cannot hold them (sparse, quantized, float8, without data)."""
    try:
        if tensor.dtype is torch.bfloat16:
            values: Array = tensor.detach().view(torch.int16).numpy(force=True).view(_BFLOAT16)
        else:
            values = tensor.numpy(force=True)
        return values.copy()
    except (TypeError, RuntimeError, NotImplementedError):
        return None


def floating(result: Any) -> list[torch.Tensor]:
    """All floating tensors in what a loss returned."""
    return [leaf for leaf in flattened(result) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]
