"""Translation of raw TensorFlow ops into the graph's canonical operations; importing the package fills the spelling table."""

from whynan.frontends.tensorflow.lower import arithmetic, create, exponential, fused, indexing, linalg, reduction, select, shape, window
from whynan.frontends.tensorflow.lower._table import SPELLINGS, STRUCTURAL, TfOp, lower, unknown

FAMILIES = (arithmetic, create, exponential, fused, indexing, linalg, reduction, select, shape, window)

__all__ = ["FAMILIES", "SPELLINGS", "STRUCTURAL", "TfOp", "lower", "unknown"]
