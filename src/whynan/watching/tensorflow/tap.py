"""Where a step differentiates and where it updates, seen while its Python code runs: traced once, or eagerly each time.

A `Tap` takes the place of the tape's `gradient` and of Keras optimizers' `apply`. The update of a step whose loss or gradients are not
finite does not happen: in a graph it stands in a branch that is not taken.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import tensorflow as tf
from keras.src.optimizers.base_optimizer import BaseOptimizer
from keras.src.optimizers.loss_scale_optimizer import LossScaleOptimizer

from whynan.frontends.tensorflow.tensors import floating

Apply = Callable[..., Any]


@dataclass(slots=True, eq=False)
class Update:
    """One call of an optimizer: the losses that were differentiated for it and the gradients that it is given, with their variables."""

    optimizer: Any
    losses: Sequence[Any]
    gradients: Sequence[Any]
    variables: Sequence[Any]

    @property
    def values(self) -> list[Any]:
        """The gradients that there are; of one by rows only these."""
        return [g.values if isinstance(g, tf.IndexedSlices) else g for g in self.gradients if g is not None]


@dataclass(slots=True, eq=False)
class Tap:
    """While `open`, `update` is called for each call of an optimizer, with a function that makes the update."""

    update: Callable[[Update, Callable[[], Any]], None]
    taped: Callable[..., Any] | None = None  # calls the tape, if that is to have a frame of its own on the stack
    losses: list[Any] = field(default_factory=list)  # differentiated since the last update
    unscaled: list[Any] = field(default_factory=list)  # the same before a scale came on them
    _inside: bool = False

    @contextmanager
    def open(self) -> Iterator["Tap"]:
        """Watch what runs inside."""
        with (
            patch.object(tf.GradientTape, "gradient", self._gradient(tf.GradientTape.gradient)),
            patch.object(BaseOptimizer, "apply", self._apply(BaseOptimizer.apply)),
            patch.object(LossScaleOptimizer, "apply", self._apply(LossScaleOptimizer.apply)),
            patch.object(BaseOptimizer, "scale_loss", self._scale(BaseOptimizer.scale_loss)),
            patch.object(LossScaleOptimizer, "scale_loss", self._scale(LossScaleOptimizer.scale_loss)),
        ):
            yield self

    def _gradient(self, original: Apply) -> Apply:
        def gradient(tape: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
            self.losses += [t for t in floating(target) if _is_here(t)]
            if self.taped is not None:
                return self.taped(original, tape, target, *args, **kwargs)
            return original(tape, target, *args, **kwargs)

        return gradient

    def _scale(self, original: Apply) -> Apply:
        def scale_loss(optimizer: Any, loss: Any) -> Any:
            self.unscaled += [t for t in floating(loss) if _is_here(t)]
            return original(optimizer, loss)

        return scale_loss

    def _apply(self, original: Apply) -> Apply:
        def apply(optimizer: Any, grads: Any, trainable_variables: Any = None) -> None:
            grads = list(grads)
            variables = list(optimizer._trainable_variables if trainable_variables is None else trainable_variables)
            if self._inside or not grads:
                original(optimizer, grads, trainable_variables)
                return
            if not optimizer.built:
                optimizer.build(variables)
            found = Update(optimizer, self.unscaled or self.losses, grads, variables)
            self.losses, self.unscaled = [], []
            self._inside = True
            try:
                self.update(found, lambda: original(optimizer, grads, trainable_variables))
            finally:
                self._inside = False

        return apply


def _is_here(tensor: Any) -> bool:
    """Whether a tensor belongs to what runs at present: the graph under construction, or no graph."""
    return getattr(tensor, "graph", None) is tf.compat.v1.get_default_graph() if not tf.executing_eagerly() else True


@dataclass(slots=True, eq=False)
class Guard:
    """Makes updates only where loss and gradients are finite, and says in `report` what it saw."""

    seen: list[tuple[Any, Any, Any, Any, Any]] = field(default_factory=list)  # per update: bad, loss, squared norm, learning rate, scale

    def update(self, found: Update, make: Callable[[], Any]) -> None:
        """Make the update if it is sound."""
        loss, squared = _sum(found.losses), _squared(found.values)
        sound = _either(tf.math.is_finite(loss + squared), lambda: _finite([*found.losses, *found.values]))
        wanted, scale = sound, tf.constant(float("nan"))
        if isinstance(found.optimizer, LossScaleOptimizer):
            scale = tf.convert_to_tensor(found.optimizer.dynamic_scale)
            # a scaler meets overflow by a smaller scale, which is no failure as long as there is a scale to blame
            wanted = _either(sound, lambda: tf.logical_and(_finite(found.losses), scale > 1.0))
        if tf.executing_eagerly():
            if wanted:
                make()
        else:
            tf.cond(wanted, lambda: (make(), tf.constant(True))[1], lambda: tf.constant(False))
        rate = tf.cast(found.optimizer.learning_rate, tf.float32)
        self.seen.append((tf.cast(tf.logical_not(wanted), tf.float32), loss, squared, rate, scale))

    def report(self) -> Any:
        """Five numbers: whether an update was refused, the loss, half of the gradients' squared norm, the learning rate, the loss scale."""
        if not self.seen:
            return tf.constant([0.0] + [float("nan")] * 4)
        if len(self.seen) == 1:
            return tf.stack(self.seen[0])
        bad, loss, squared, rate, scale = zip(*self.seen, strict=True)
        return tf.stack([tf.reduce_max(tf.stack(bad)), tf.add_n(loss), tf.add_n(squared), rate[0], scale[0]])


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
