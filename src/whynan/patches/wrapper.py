"""Functions around a loss whose source cannot be changed: they change what goes in, and are tried like any other fix."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from whynan.domain.spec import Domain

_CAST = {"torch": "{0}.to(torch.{1})", "tensorflow": "tf.cast({0}, tf.{1})", "jax": "{0}.astype(jnp.{1})"}
_FINFO = {
    "torch": "torch.finfo({0}.dtype).{1}",
    "tensorflow": "tf.experimental.numpy.finfo({0}.dtype.as_numpy_dtype).{1}",
    "jax": "jnp.finfo({0}.dtype).{1}",
}
_FLOOR = {"torch": "torch.clamp({0}, min={1})", "tensorflow": "tf.maximum({0}, {1})", "jax": "jnp.maximum({0}, {1})"}
_BETWEEN = {
    "torch": "torch.clamp({0}, {1}, 1 - {1})",
    "tensorflow": "tf.clip_by_value({0}, {1}, 1 - {1})",
    "jax": "jnp.clip({0}, {1}, 1 - {1})",
}
_IMPORTS = {"torch": "import torch", "tensorflow": "import tensorflow as tf", "jax": "import jax.numpy as jnp"}
_WIDER = {"float16": "float32", "bfloat16": "float32", "float32": "float64"}
_FROM_ZERO = ("positive", "nonnegative", "simplex")


@dataclass(frozen=True, slots=True)
class Wrapper:
    """A function `name` around one called `inner`: its text, which stands alone but for `inner`, and what it does in plain words."""

    name: str
    inner: str
    text: str
    title: str


def wrappers(framework: str, inner: str, domains: Mapping[str, Domain]) -> Iterator[Wrapper]:
    """The wrappers worth a try: inputs kept off the ends of their domains; inputs in a wider format."""
    inner = inner if inner.isidentifier() else "loss"
    kept = {n: _inside(framework, n, d) for n, d in domains.items()}
    if any(kept.values()):
        yield _made(framework, inner, kept, "keep its inputs off the ends of their domains")
    wide = {n: _wider(framework, n, d) for n, d in domains.items()}
    if any(wide.values()):
        yield _made(framework, inner, wide, "compute it in a wider format")


def _made(framework: str, inner: str, changed: Mapping[str, str], title: str) -> Wrapper:
    name = f"safe_{inner}"
    given = ", ".join(f"{n}={changed[n] or n}" for n in changed)
    text = f"{_IMPORTS[framework]}\n\n\ndef {name}({', '.join(changed)}):\n    return {inner}({given})\n"
    return Wrapper(name, inner, text, f"call it through a function of your own: {title}")


def _inside(framework: str, name: str, domain: Domain) -> str:
    if not domain.format.is_float or domain.value is not None:
        return ""
    if domain.kind == "prob":
        return _BETWEEN[framework].format(name, _FINFO[framework].format(name, "eps"))
    return _FLOOR[framework].format(name, _FINFO[framework].format(name, "tiny")) if domain.kind in _FROM_ZERO else ""


def _wider(framework: str, name: str, domain: Domain) -> str:
    dtype = _WIDER.get(domain.dtype, "") if domain.format.is_float else ""
    if not dtype or (framework == "jax" and dtype == "float64"):  # JAX has no float64 unless it is switched on
        return ""
    return _CAST[framework].format(name, dtype)
