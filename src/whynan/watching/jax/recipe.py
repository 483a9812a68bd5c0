"""What a bundle keeps of a step of JAX: its arrays by argument, and the call as Python text for `replay.py`."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from whynan.watching.jax.wiring import Key, arguments, is_array
from whynan.watching.recipe import Writer, piece
from whynan.watching.record import Recipe


def bundled(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], state: Collection[Key]
) -> tuple[Recipe, dict[str, Any]]:
    """How the step is called again, and the arrays for it. `state` are the arguments that the step replaces: parameters, not data."""
    writer = Writer(is_array)
    leaves = [leaf for leaf in jax.tree.leaves((list(args), dict(kwargs))) if is_array(leaf)]
    keys = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)]
    for i, key in enumerate(keys):
        writer.known.append((key, f"jax.random.wrap_key_data(given['rng/{i}'], impl={str(jax.random.key_impl(key))!r})"))
        writer.tensors[f"rng/{i}"] = jax.random.key_data(key)
    parts = []
    for key, name in arguments(function, args, kwargs).items():
        value = args[key] if isinstance(key, int) else kwargs[key]
        text = writer.text(value, f"{'parameters' if key in state else 'batch'}/{name}")
        parts.append(text if isinstance(key, int) else f"{key}={text}")
    before = ("jax.config.update('jax_enable_x64', True)",) if jax.dtypes.canonicalize_dtype("float64") == "float64" else ()
    return Recipe((piece("step", function),), (f"yield step({', '.join(parts)})",), before=before), writer.tensors
