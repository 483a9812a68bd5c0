"""Loss and gradients looked at inside a step, before the update.

The update of a step whose loss or gradients are not finite does not happen: in a graph it stands in a branch that is not taken.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import tensorflow as tf

from whynan.frontends.tensorflow.tensors import floating
from whynan.watching.keras.tap import Apply, Patch, Tap, Update

FINE, BAD, LEFT_OUT = 0.0, 1.0, 2.0  # left out: by a loss scale that was too large, as happens now and then


def differentiating(tap: Tap, taped: Callable[..., Any] | None = None) -> list[Patch]:
    """The tape's function that differentiates. `taped` calls it, if that is to have a frame of its own on the stack."""

    def made(original: Apply) -> Apply:
        def gradient(tape: Any, target: Any, sources: Any, *args: Any, **kwargs: Any) -> Any:
            tap.losses.append(target)
            given = (tape, target, sources, *args)
            found = original(*given, **kwargs) if taped is None else taped(original, *given, **kwargs)
            tap.differentiated.append(Update(None, [target], tf.nest.flatten(found), tf.nest.flatten(sources)))
            return found

        return gradient

    return [(tf.GradientTape, "gradient", made)]


def by_hand(tap: Tap) -> list[Update]:
    """The gradients by variables in a step that has called no optimizer of Keras': it updates the variables itself."""
    here = (replace(u, gradients=[g for g in u.gradients if g is not None and _is_here(g)]) for u in tap.differentiated)
    return [u for u in here if u.gradients and all(hasattr(v, "assign") for v in u.variables)]


def losses_of(found: Update) -> list[Any]:
    """The losses behind an update that the running code can read: those of an inner graph it cannot."""
    return [t for t in floating(found.losses) if _is_here(t)]


def _is_here(tensor: Any) -> bool:
    return tf.executing_eagerly() or getattr(tensor, "graph", None) is tf.compat.v1.get_default_graph()


@dataclass(slots=True, eq=False)
class Guard:
    """Makes updates only where loss and gradients are finite, and says in `report` what it saw."""

    seen: list[tuple[Any, Any, Any, Any, Any]] = field(default_factory=list)  # per update: as in `report`

    def update(self, found: Update, make: Callable[[], Any]) -> None:
        """Make the update if it is sound."""
        losses = losses_of(found)
        gradients = [g.values if isinstance(g, tf.IndexedSlices) else g for g in found.gradients if g is not None]
        loss, squared = _sum(losses), _squared(gradients)
        sound = _either(tf.math.is_finite(loss + squared), lambda: _finite([*losses, *gradients]))
        wanted, scale = sound, tf.constant(float("nan"))
        if found.scaled:
            scale = tf.convert_to_tensor(found.optimizer.dynamic_scale)
            # a scaler meets overflow by a smaller scale, which is no failure as long as there is a scale to blame
            wanted = _either(sound, lambda: tf.logical_and(_finite(losses), scale > 1.0))
        if tf.executing_eagerly():
            if wanted:
                make()
        else:
            tf.cond(wanted, lambda: (make(), tf.constant(True))[1], lambda: tf.constant(False))
        rate = tf.cast(getattr(found.optimizer, "learning_rate", float("nan")), tf.float32)
        state = tf.where(sound, FINE, tf.where(wanted, LEFT_OUT, BAD))
        self.seen.append((state, loss, squared, rate, scale))

    def report(self) -> Any:
        """Five numbers: FINE, BAD or LEFT_OUT, the loss, half of the gradients' squared norm, the learning rate, the loss scale."""
        if not self.seen:
            return tf.constant([0.0] + [float("nan")] * 4)
        if len(self.seen) == 1:
            return tf.stack(self.seen[0])
        states, loss, squared, rate, scale = zip(*self.seen, strict=True)
        refused = tf.reduce_any(tf.equal(tf.stack(states), BAD))
        return tf.stack([tf.where(refused, BAD, tf.reduce_max(tf.stack(states))), tf.add_n(loss), tf.add_n(squared), rate[0], scale[0]])


def _sum(tensors: Sequence[Any]) -> Any:
    parts = [tf.cast(t if t.shape.rank == 0 else tf.reduce_sum(t), tf.float32) for t in tensors]
    return parts[0] if len(parts) == 1 else tf.add_n(parts) if parts else tf.constant(0.0)


def _squared(gradients: Sequence[Any]) -> Any:
    """Half of the sum of all squares; not finite if an element is not, or if it overflows."""
    parts = [tf.cast(tf.nn.l2_loss(g), tf.float32) for g in gradients]
    return tf.add_n(parts) if parts else tf.constant(0.0)


def _either(quick: Any, slow: Callable[[], Any]) -> Any:
    if tf.executing_eagerly():
        return quick if quick else slow()
    return tf.cond(quick, lambda: tf.constant(True), slow)


def _finite(tensors: Sequence[Any]) -> Any:
    return tf.reduce_all(tf.stack([tf.reduce_all(tf.math.is_finite(t)) for t in tensors])) if tensors else tf.constant(True)
