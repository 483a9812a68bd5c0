"""Watching a training step of JAX: a wrapper around the step function (`watcher`), and a bad step run again (`rerun`)."""

from collections.abc import Callable
from typing import Any

from whynan.watch.jax.watcher import JaxWatch
from whynan.watch.policy import Options

__all__ = ["JaxWatch", "watch"]


def watch(step: Callable[..., Any], *, loss: int | str | None = None, **options: Any) -> JaxWatch:
    """The step function, watched: `options` are those of `Options`. Raises WhynanError for an unknown policy."""
    return JaxWatch(step, Options(**options), loss)
