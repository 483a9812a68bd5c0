"""Where a step calls a Keras optimizer, seen while its Python code runs: traced once, or eagerly each time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from keras.src.optimizers.base_optimizer import BaseOptimizer
from keras.src.optimizers.loss_scale_optimizer import LossScaleOptimizer

Apply = Callable[..., Any]
Patch = tuple[Any, str, Callable[[Apply], Apply]]  # an object, the name of its function, and what makes another function of that

FINE, BAD, LEFT_OUT = 0.0, 1.0, 2.0  # a step's verdict; left out: by a loss scale that was too large, as happens now and then


@dataclass(slots=True, eq=False)
class Update:
    """One call of an optimizer: the losses that were differentiated for it and the gradients that it is given, with their variables.

    `optimizer` is None where a step updates its variables itself.
    """

    optimizer: Any
    losses: Sequence[Any]
    gradients: Sequence[Any]
    variables: Sequence[Any]

    @property
    def scaled(self) -> bool:
        """Whether the optimizer leaves out steps that overflow, and scales the loss less after them."""
        return isinstance(self.optimizer, LossScaleOptimizer)


@dataclass(slots=True, eq=False)
class Tap:
    """While open, `update` is called for each call of an optimizer, with a function that makes the update."""

    update: Callable[[Update, Callable[[], Any]], None]
    losses: list[Any] = field(default_factory=list)  # differentiated since the last update
    inner: list[Any] = field(default_factory=list)  # the same by tensors: parts of a loss, as in a gradient penalty, if there is another
    unscaled: list[Any] = field(default_factory=list)  # the same before a scale came on them
    differentiated: list[Update] = field(default_factory=list)  # what differentiated gave, for steps that call no optimizer
    _inside: bool = False

    @contextmanager
    def open(self, differentiating: Sequence[Patch]) -> Iterator["Tap"]:
        """Watch what runs inside; `differentiating` are the framework's functions that differentiate, which note `losses`."""
        owners = (BaseOptimizer, LossScaleOptimizer)
        own: list[Patch] = [(o, "apply", self._apply) for o in owners] + [(o, "scale_loss", self._scale) for o in owners]
        patches = (*own, *differentiating)
        before = [vars(owner)[name] for owner, name, _ in patches]
        try:
            for owner, name, made in patches:
                setattr(owner, name, made(getattr(owner, name)))
            yield self
        finally:
            for (owner, name, _), function in zip(reversed(patches), reversed(before), strict=True):
                setattr(owner, name, function)

    def _scale(self, original: Apply) -> Apply:
        def scale_loss(optimizer: Any, loss: Any) -> Any:
            self.unscaled.append(loss)
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
            found = Update(optimizer, self.unscaled or self.losses or self.inner, grads, variables)
            self.losses, self.unscaled, self.inner = [], [], []
            self._inside = True
            try:
                self.update(found, lambda: original(optimizer, grads, trainable_variables))
            finally:
                self._inside = False

        return apply
