"""Which layer was running when an operation was recorded."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import keras

from whynan.ir.graph import Node


class Layers:
    """Notes, while open, from which call of the framework on a layer ran. `calls` gives the number that the next framework call has.

    `models` are no layers of their own: paths begin below them.
    """

    def __init__(self, calls: Callable[[], int], models: Sequence[Any] = ()) -> None:
        self._calls = calls
        self._models = models
        self._running = [""]
        self._starts: list[int] = []
        self._paths: list[str] = []

    @contextmanager
    def open(self) -> Iterator["Layers"]:
        """Watch the calls of all layers inside."""
        with patch.object(keras.Layer, "__call__", self._called(keras.Layer.__call__)):
            yield self

    def of(self, node: Node) -> str:
        """The path of the layer whose call the node, or the forward call that it derives, stands in; empty if none's."""
        number = node.derives if node.derives >= 0 else node.source
        i = bisect_right(self._starts, number) - 1
        return self._paths[i] if number >= 0 and i >= 0 else ""

    def _called(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def layer_call(layer: Any, *args: Any, **kwargs: Any) -> Any:
            above, own = self._running[-1], "" if any(layer is m for m in self._models) else str(layer.name)
            self._enter(f"{above}/{own}" if above and own else above or own)
            try:
                return original(layer, *args, **kwargs)
            finally:
                self._running.pop()
                self._note()

        return layer_call

    def _enter(self, path: str) -> None:
        self._running.append(path)
        self._note()

    def _note(self) -> None:
        self._starts.append(self._calls())
        self._paths.append(self._running[-1])
