"""Telling a person who waits what is being done."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

AFTER = 2.0  # seconds


@contextmanager
def telling(what: str) -> Iterator[None]:
    """While this takes longer than two seconds, say on the terminal what is done; nothing where stderr is none."""
    if not sys.stderr.isatty():
        yield
        return
    status = Console(stderr=True).status(what)
    timer = threading.Timer(AFTER, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # a start that is under way ends before the stop
        status.stop()
