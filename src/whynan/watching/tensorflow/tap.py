"""Loss and gradients looked at inside a step, before the update.

The update of a step whose loss or gradients are not finite does not happen: in a graph it stands in a branch that is not taken.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import tensorflow as tf

from whynan.frontends.tensorflow.tensors import floating
from whynan.watching.keras.tap import BAD, FINE, LEFT_OUT, Apply, Patch, Tap, Update

_FUNCTION = type(tf.function(lambda: None))
NOTHING = [FINE, 0.0, 0.0, float("nan"), float("nan")]  # the report of a step without an update


def differentiating(tap: Tap, taped: Callable[..., Any] | None = None) -> list[Patch]:
    """The tape's function that differentiates. `taped` calls it, if that is to have a frame of its own on the stack."""

    def made(original: Apply) -> Apply:
        def gradient(tape: Any, target: Any, sources: Any, *args: Any, **kwargs: Any) -> Any:
            flat = tf.nest.flatten(sources)
            (tap.losses if any(hasattr(v, "assign") for v in flat) else tap.inner).append(target)
            given = (tape, target, sources, *args)
            found = original(*given, **kwargs) if taped is None else taped(original, *given, **kwargs)
            tap.differentiated.append(Update(None, [target], tf.nest.flatten(found), flat))
            return found

        return gradient

    return [(tf.GradientTape, "gradient", made)]


def compiling(clones: dict[Any, Any]) -> list[Patch]:
    """A `tf.function` that the step calls: in its place a clone is traced, which the watch keeps, and which others never call."""

    def made(original: Apply) -> Apply:
        def call(function: Any, *args: Any, **kwargs: Any) -> Any:
            if function not in clones:
                clones[function] = function._clone(None)
            return original(clones[function], *args, **kwargs)

        return call

    return [(_FUNCTION, "__call__", made)]


def by_hand(tap: Tap) -> list[Update]:
    """The gradients by variables in a step that has called no optimizer of Keras': it updates the variables itself."""
    here = (replace(u, gradients=[g for g in u.gradients if g is not None and _is_here(g)]) for u in tap.differentiated)
    return [u for u in here if u.gradients and all(hasattr(v, "assign") for v in u.variables)]


def losses_of(found: Update) -> list[Any]:
    """The losses behind an update that the running code can read: those of an inner graph it cannot."""
    return [t for t in floating(found.losses) if _is_here(t)]


def _is_here(tensor: Any) -> bool:
    return getattr(tensor, "graph", None) is (None if tf.executing_eagerly() else tf.compat.v1.get_default_graph())


@dataclass(slots=True, eq=False)
class Inside:
    """What updates inside of a loop, of a branch or of a compiled function report, whose tensors only the graph there can read."""

    variable: Any = None  # the first bad report of the step, else the last one; there after the first of them was traced

    def note(self, told: Any) -> None:
        """Keep a report."""
        if self.variable is None:
            with tf.init_scope():
                self.variable = tf.Variable(NOTHING, trainable=False)
        self.variable.assign(tf.where(tf.equal(self.variable[0], BAD), self.variable, told))

    def taken(self) -> list[Any]:
        """What was kept in this step, if anything can be."""
        if self.variable is None:
            return []
        told = self.variable.read_value()
        self.variable.assign(NOTHING)
        return [told]


# FINE, BAD or LEFT_OUT, the loss, half of the gradients' squared norm, the learning rate, the loss scale
Seen = tuple[Any, Any, Any, Any, Any]


@dataclass(slots=True, eq=False)
class Guard:
    """Makes updates only where loss and gradients are finite, and says in `report` what it saw."""

    inside: Inside
    seen: list[Any] = field(default_factory=list)  # per update: as in `report`
    optimizers: list[Any] = field(default_factory=list)
    variables: list[Any] = field(default_factory=list)  # that they update
    _graph: Any = field(default_factory=tf.compat.v1.get_default_graph)

    @property
    def alone(self) -> bool:
        """Whether one update was all, so that nothing has changed where it was not made."""
        return len(self.seen) == 1 and self.inside.variable is None

    def update(self, found: Update, make: Callable[[], Any]) -> None:
        """Make the update if it is sound."""
        losses = losses_of(found)
        gradients = [g.values if isinstance(g, tf.IndexedSlices) else g for g in found.gradients if g is not None]
        told = (_now if tf.executing_eagerly() else _traced)(found, make, losses, gradients)
        self.optimizers.append(found.optimizer)
        self.variables += found.variables
        if tf.compat.v1.get_default_graph() is self._graph:
            self.seen.append(told)
        else:
            self.inside.note(tf.stack(told))

    def report(self) -> Any:
        """What was seen of all updates together: in a graph a tensor, else five numbers."""
        told = [*self.seen, *self.inside.taken()]
        if tf.executing_eagerly():
            numbers = [t if isinstance(t, tuple) else t.numpy().tolist() for t in told] or [NOTHING]
            states, loss, squared, rate, scale = zip(*numbers, strict=True)
            return BAD if BAD in states else max(states), sum(loss), sum(squared), rate[-1], scale[0]
        if len(told) < 2:
            return tf.stack(told[0] if told else NOTHING)
        states, loss, squared, rate, scale = tf.unstack(tf.stack([tf.stack(t) for t in told], axis=1))
        refused = tf.reduce_any(tf.equal(states, BAD))
        parts = (tf.where(refused, BAD, tf.reduce_max(states)), tf.reduce_sum(loss), tf.reduce_sum(squared), rate[-1], scale[0])
        return tf.stack(parts)


def _now(found: Update, make: Callable[[], Any], losses: Sequence[Any], gradients: Sequence[Any]) -> Seen:
    """Look at values and make the update, eagerly: an operation of TensorFlow's takes longer than Python does over a few numbers."""
    loss, squared = float(_sum(losses)), float(_squared(gradients))
    sound = math.isfinite(loss + squared) or bool(_finite([*losses, *gradients]))
    scale = float(found.optimizer.dynamic_scale) if found.scaled else math.nan
    left_out = not sound and scale > 1.0 and bool(_finite(losses))  # see `_traced`
    if sound or left_out:
        make()
    rate = getattr(found.optimizer, "learning_rate", math.nan)
    return FINE if sound else LEFT_OUT if left_out else BAD, loss, squared, float(tf.cast(rate, tf.float32)), scale


def _traced(found: Update, make: Callable[[], Any], losses: Sequence[Any], gradients: Sequence[Any]) -> Seen:
    """The look and the update in a branch, as parts of a graph."""
    loss, squared = _sum(losses), _squared(gradients)
    quick = tf.math.is_finite(loss + squared)
    sound = tf.cond(quick, lambda: tf.constant(True), lambda: _finite([*losses, *gradients]))
    wanted, scale = sound, tf.constant(math.nan)
    if found.scaled:
        scale = tf.convert_to_tensor(found.optimizer.dynamic_scale)
        # a scaler meets overflow by a smaller scale, which is no failure as long as there is a scale to blame
        wanted = tf.cond(sound, lambda: tf.constant(True), lambda: tf.logical_and(_finite(losses), scale > 1.0))

    def made() -> Any:
        make()
        return tf.where(sound, FINE, LEFT_OUT) if found.scaled else tf.constant(FINE)

    state = tf.cond(wanted, made, lambda: tf.constant(BAD))
    rate = tf.cast(getattr(found.optimizer, "learning_rate", math.nan), tf.float32)
    return state, loss, squared, rate, scale


def _sum(tensors: Sequence[Any]) -> Any:
    parts = [tf.cast(t if t.shape.rank == 0 else tf.reduce_sum(t), tf.float32) for t in tensors]
    return parts[0] if len(parts) == 1 else tf.add_n(parts) if parts else tf.constant(0.0)


def _squared(gradients: Sequence[Any]) -> Any:
    """Half of the sum of all squares; not finite if an element is not, or if it overflows."""
    parts = [tf.cast(tf.nn.l2_loss(g), tf.float32) for g in gradients]
    return tf.add_n(parts) if parts else tf.constant(0.0)


def _finite(tensors: Sequence[Any]) -> Any:
    return tf.reduce_all(tf.stack([tf.reduce_all(tf.math.is_finite(t)) for t in tensors])) if tensors else tf.constant(True)
