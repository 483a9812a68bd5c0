"""Telling a person who waits what is being done."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

AFTER = 2.0  # seconds


@contextmanager
def telling(what: str, after: float = AFTER) -> Iterator[None]:
    """A moving line on a terminal's stderr while this takes longer than so many seconds; nothing where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console  # only now: most runs never wait so long

    status = Console(stderr=True).status(f"{what} …")
    timer = threading.Timer(after, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # a start that is under way ends before the stop
        status.stop()
