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


@kernel("clone", "contiguous")
def _copied(k: Kernel) -> Value:
    """The same numbers, perhaps laid out otherwise in memory.

    Kernels take the ends of rows, and strided values, by other code than what lies together, which errs otherwise; sums add in another
    order. So f(x) and f(x.contiguous()) are not one value: a copy is a node of its own, if one that changes nothing.
    """
    x = k.tensor("self")
    return x.add("cast", fmt=x.format)


@kernel("copy")
def _copy(k: Kernel) -> Value:
    source: Value = k.tensor("src")
    return source
