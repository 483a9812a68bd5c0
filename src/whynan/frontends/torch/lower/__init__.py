"""Translation of aten calls into the graph's canonical operations; importing the package fills the spelling table."""

from whynan.frontends.torch.lower import (
    arithmetic,
    cast,
    create,
    exponential,
    indexing,
    linalg,
    loss,
    normalisation,
    reduction,
    select,
    sequence,
    shape,
    window,
)
from whynan.frontends.torch.lower._table import SPELLINGS, Aten, Ref, lower

FAMILIES = (arithmetic, cast, create, exponential, indexing, linalg, loss, normalisation, reduction, select, sequence, shape, window)

__all__ = ["FAMILIES", "SPELLINGS", "Aten", "Ref", "lower"]
