"""The callback that watches `model.fit` of Keras 3, on TensorFlow, PyTorch and JAX."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import keras

from whynan.errors import WhynanError
from whynan.watching.doors import options_of
from whynan.watching.handle import Watched
from whynan.watching.overseer import Overseer
from whynan.watching.policy import RAISE

BACKENDS = ("tensorflow", "torch", "jax")


class Watch(Watched, keras.callbacks.Callback):
    """`model.fit(..., callbacks=[whynan.keras.Watch()])`: a step whose loss or gradients are not finite does not update, and is explained.

    The arguments are those of `whynan.watch`; "stop" ends `fit` in good order after the step. Raises NonFiniteError out of `fit` where the
    policy says so.
    """

    def __init__(self, *, policy: str = RAISE, folder: str | Path | None = "whynan-incidents", **options: Any) -> None:
        super().__init__()
        self.overseer = Overseer(options_of({"policy": policy, "folder": folder, **options}))
        self._end: Callable[[], None] | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Take the place of the model's train function. Raises WhynanError if Keras runs on a backend that cannot be watched."""
        backend = keras.backend.backend()
        if backend not in BACKENDS:
            raise WhynanError(f"whynan.keras.Watch does not know Keras' backend {backend!r}.", f"It knows {', '.join(BACKENDS)}.")
        self.close()
        self._end = import_module(f"whynan.watching.keras.{backend}").begin(self.model, self.overseer)

    def on_train_end(self, logs: Any = None) -> None:
        """Give the model its train function back."""
        self.close()

    def close(self) -> None:
        """Stop watching."""
        self.note()
        if self._end is not None:
            self._end()
            self._end = None
