"""Changes of format, and copies that change nothing."""

from whynan.frontends.kit import Value
from whynan.frontends.torch.lower._kernel import Kernel, kernel


@kernel(
    "_to_copy",
    "to.dtype",
    "to.dtype_layout",
    "to.device",
    "to.other",
    "alias",
    "detach",
    "clone",
    "contiguous",
    "lift",
    "lift_fresh",
    "lift_fresh_copy",
    "alias_copy",
    "detach_copy",
    "positive",
    "resolve_conj",
    "resolve_neg",
    "_neg_view",
)
def _same(k: Kernel) -> Value:
    """The value itself; the result's own format says whether there is a cast."""
    x: Value = k.tensor("self")
    return -x if k.aten.name.startswith("_neg_view") else x


@kernel("copy")
def _copy(k: Kernel) -> Value:
    source: Value = k.tensor("src")
    return source
