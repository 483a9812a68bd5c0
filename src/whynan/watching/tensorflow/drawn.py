"""What a step draws from iterators over data sets that it has not made itself, rather than being given it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import tensorflow as tf
from tensorflow.python.data.ops.iterator_ops import OwnedIterator

from whynan.errors import TargetError

MOST = 8  # draws that are kept of one step
_OWN = "_whynan_made_inside"

Draw = Callable[[Any], Any]


@contextmanager
def noting() -> Iterator[list[Any]]:
    """What is drawn inside, in order. More than `MOST` draws are let go: then the list is empty."""
    found: list[Any] = []
    count = 0

    def noted(iterator: Any, draw: Draw) -> Any:
        nonlocal count
        drawn = draw(iterator)
        count += 1
        if count <= MOST:
            found.append(drawn)
        else:
            found.clear()
        return drawn

    with _instead(noted):
        yield found


@contextmanager
def giving(drawn: Sequence[Any]) -> Iterator[None]:
    """Inside, iterators stay where they are and give these in their place. One draw more raises TargetError."""
    rest = iter(drawn)

    def given(_iterator: Any, _draw: Draw) -> Any:
        for value in rest:
            return value
        raise TargetError(
            f"the step draws batches where they cannot be kept: in a loop, in a function that it calls, or more than {MOST} of them.",
            "Draw the batch outside of the step and pass it as an argument.",
        )

    with _instead(given):
        yield


@contextmanager
def _instead(drawing: Callable[[Any, Draw], Any]) -> Iterator[None]:
    def made(draw: Draw) -> Draw:
        return lambda iterator: draw(iterator) if hasattr(iterator, _OWN) else drawing(iterator, draw)

    create = OwnedIterator.__init__

    def created(iterator: Any, dataset: Any = None, *args: Any, **kwargs: Any) -> None:
        create(iterator, dataset, *args, **kwargs)
        if dataset is not None:  # not the same iterator as an argument of a graph
            setattr(iterator, _OWN, True)

    with ExitStack() as stack:
        for name in ("__next__", "get_next"):
            stack.enter_context(patch.object(OwnedIterator, name, made(getattr(OwnedIterator, name))))
        stack.enter_context(patch.object(OwnedIterator, "__init__", created))
        yield


def together(drawn: Sequence[Any]) -> dict[str, Any]:
    """What was drawn, by the name under which it is told of."""
    return {"batch": drawn[0] if len(drawn) == 1 else list(drawn)} if drawn else {}


def here(drawn: Sequence[Any]) -> list[Any]:
    """What was drawn, where the running code can read all of it: what was drawn in a loop of a graph it cannot."""
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    leaves = (t for t in tf.nest.flatten(list(drawn), expand_composites=True) if isinstance(t, tf.Tensor))
    return list(drawn) if all(getattr(t, "graph", None) is graph for t in leaves) else []
