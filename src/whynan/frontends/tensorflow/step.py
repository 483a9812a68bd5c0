"""One training step: the loss of a target and its gradients, as a user would write it with a GradientTape."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from tensorflow.python.autograph.core import ag_ctx
from tensorflow.python.autograph.impl import api as autograph

from whynan.frontends.tensorflow.tensors import dense, floating


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What came out of a step: the loss's parts, the gradients of their sum by name, and what the target returned."""

    parts: Sequence[Any]
    gradients: Mapping[str, Any]
    result: Any


def step(
    target: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], leaves: Mapping[str, Any], convert: bool = False
) -> Step:
    """Run the target under a tape and differentiate the sum of its floating results by the leaves (tensors and variables).

    With `convert` AutoGraph rewrites the target, as it does for what a `tf.function` calls.
    """
    with tf.GradientTape() as tape:
        tape.watch([t for t in leaves.values() if not isinstance(t, tf.Variable)])
        result = call(converted(target) if convert else target, args, kwargs)
        parts = floating(result)
    return Step(parts, differentiate(tape, parts, leaves), result)


def call(target: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The one place from which a target is called: what lies above it on the stack is no part of the loss."""
    return target(*args, **kwargs)


def differentiate(tape: tf.GradientTape, parts: Sequence[Any], leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The gradients by each leaf that is connected to the parts, as dense tensors."""
    if not parts or not leaves:
        return {}
    found = tape.gradient(parts[0] if len(parts) == 1 else list(parts), list(leaves.values()))
    return {name: dense(g) for name, g in zip(leaves, found, strict=True) if g is not None}


def converted(target: Callable[..., Any]) -> Callable[..., Any]:
    """The target as AutoGraph rewrites it for a `tf.function`."""

    def run(*args: Any, **kwargs: Any) -> Any:
        with ag_ctx.ControlStatusCtx(status=ag_ctx.Status.ENABLED, options=None):
            return autograph.tf_convert(target, ag_ctx.control_status_ctx())(*args, **kwargs)

    return run


def no_loss(result: Any) -> str:
    """What to say of a result that holds no floating tensor."""
    what = f"a tensor of {result.dtype.name}" if isinstance(result, (tf.Tensor, tf.Variable)) else f"a {type(result).__name__}"
    return f"the loss returned {what}, in which there is no floating tensor"
