"""What is alike in `fit` on all backends: the train function that is replaced for a while, and the logs of a step that does not count."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras.callbacks import ProgbarLogger
from keras.src.callbacks.callback_list import CallbackList
from keras.src.utils import is_default

from whynan.watching.judge import Judge


def replaced(model: Any, function: Callable[..., Any]) -> Callable[[], None]:
    """Let the function be the model's train function; returns what gives the old one back, which happens too if it raises."""
    before = model.train_function

    def train_function(*args: Any) -> Any:
        try:
            return function(*args)
        except StopIteration:
            raise
        except BaseException:
            end()
            raise

    def end() -> None:
        if model.train_function is train_function:
            model.train_function = before

    model.train_function = train_function
    return end


def optimizers_of(model: Any) -> list[Any]:
    """The model's optimizer, and others that it has as attributes."""
    found = {id(o): o for o in (model.optimizer, *vars(model).values()) if isinstance(o, keras.Optimizer)}
    return list(found.values())


@dataclass(slots=True, eq=False)
class Logs:
    """What `fit` is told of each step. `metrics` gives the metrics' results as they are."""

    model: Any
    judge: Judge
    metrics: Callable[[], Any]
    _last: Any = None
    _bad: int = 0

    def of(self, found: Any) -> Any:
        """The logs of the step that has just been judged: where it did not count, the metrics without it, else what was told last."""
        if self.judge.stopped:
            self.model.stop_training = True
        if self.judge.overseer.bad_steps == self._bad:
            self._last = found
            return found
        self._bad = self.judge.overseer.bad_steps
        metrics = self.metrics()
        return metrics if isinstance(found, Mapping) and set(found) == set(metrics) else self._last or found


def followed() -> bool:
    """Whether a callback of the `fit` that has just begun looks on after single batches; true as well where that cannot be told."""
    frame: Any = sys._getframe()
    while frame is not None and not isinstance(frame.f_locals.get("self"), CallbackList):
        frame = frame.f_back
    hooks = [f"on_{kind}_{when}" for kind in ("batch", "train_batch") for when in ("begin", "end")]
    callbacks = [] if frame is None else frame.f_locals["self"].callbacks
    quiet = [c for c in callbacks if isinstance(c, ProgbarLogger) and c.verbose != 1]  # it prints a line after each epoch
    return frame is None or any(not is_default(getattr(c, hook)) for c in callbacks if c not in quiet for hook in hooks)
