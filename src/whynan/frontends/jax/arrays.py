"""Between NumPy arrays and JAX arrays: formats, the dtypes that JAX computes in, and the floating arrays of a result."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from whynan.frontends.trace import flattened
from whynan.ir.dtype import FORMATS, Array, Format, flushed


class NoLoss(TypeError):
    """A loss returned nothing that could be one."""


def is_array(value: Any) -> bool:
    """Whether an argument is data; anything else (text, None, a Python number or function) is part of the program."""
    return isinstance(value, (np.ndarray, np.generic, jax.Array))


def plain_array(value: Any) -> Any:
    """The array itself; of random keys the numbers that they are made of, as the compiled program has them."""
    extended = hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(value) if extended else value


def on_one_device(value: Any) -> Any:
    """An array that is spread over devices, whole on one of them: what is compiled for several has the shapes of pieces."""
    return jax.device_put(value, min(value.devices(), key=lambda d: d.id)) if _is_spread(value) else value


def lying_like(value: Any, other: Any) -> Any:
    """An array on the devices of another one that is spread, in the same pieces if its shape is the same."""
    return jax.device_put(value, other.sharding) if _is_spread(other) and value.shape == other.shape else value


def _is_spread(value: Any) -> bool:
    return isinstance(value, jax.Array) and len(value.sharding.device_set) > 1


def is_floating(value: Any) -> bool:
    """Whether an array or tracer has a real floating element type."""
    return hasattr(value, "dtype") and bool(jnp.issubdtype(value.dtype, jnp.floating))


def needs_x64(values: Iterable[Any]) -> bool:
    """Whether JAX keeps the dtypes of these values only with 64-bit types enabled: one of the arrays is float64."""
    return any(is_array(v) and v.dtype == np.float64 for v in values)


def x64_enabled() -> bool:
    """Whether JAX keeps 64-bit types at present."""
    return bool(jax.dtypes.canonicalize_dtype(np.dtype(np.float64)) == np.float64)


def canonical(value: Any) -> Array:
    """The array in the dtype that JAX computes it in: without 64-bit types int64 becomes int32."""
    array = np.asarray(value)
    return array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)


def format_of(dtype: Any) -> Format | None:
    """The format of values of a dtype in XLA's programs for the CPU, which flush subnormals; None if whynan has none."""
    found = FORMATS.get(np.dtype(dtype).name)
    return None if found is None else flushed(found)


def floating(result: Any) -> list[Any]:
    """All floating arrays in what a loss returned; its Python floats if it returned no array.

    Raises NoLoss if there is neither.
    """
    leaves = [leaf for top in jax.tree.leaves(result) for leaf in flattened(top)]
    found = [leaf for leaf in leaves if is_floating(leaf)] or [leaf for leaf in leaves if isinstance(leaf, float)]
    if not found:
        raise NoLoss(f"the loss returned {_described(result)}, in which there is no floating array")
    return [jnp.asarray(leaf) for leaf in found]


def _described(result: Any) -> str:
    return f"an array of {result.dtype}" if hasattr(result, "dtype") else f"a {type(result).__name__}"


def frozen(values: Mapping[str, Any]) -> tuple[Any, ...]:
    """Python objects by name as a key: by value where they can be hashed, else by identity."""
    return tuple((name, type(value), _key(value)) for name, value in values.items())


def _key(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        return id(value)
    return value
