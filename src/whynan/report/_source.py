"""Source lines with the guilty expression marked, for every format that shows them."""

import linecache
import os
from dataclasses import dataclass
from pathlib import PurePath

from whynan.ir.where import Site, source_text

_TAB = 4
_MOST_LINES = 6


@dataclass(frozen=True, slots=True)
class Line:
    """One source line and the part [start, end) of it, in characters, that belongs to the site. A line without a number is a gap."""

    number: int | None
    text: str
    start: int
    end: int


def excerpt(site: Site) -> tuple[Line, ...]:
    """The lines of a site, long spans with their middle left out; the site's own text where the file has gone or has changed."""
    if source_text(site.file, site.line, site.end_line, site.column, site.end_column) != site.text or not site.text:
        return _shortened(_from_text(site))
    return _shortened([_line(site, n) for n in range(site.line, site.end_line + 1)])


def columns(site: Site) -> tuple[int, int]:
    """Start and end of the site in characters of its first and last line (a site counts bytes of UTF-8)."""
    return _characters(_raw(site, site.line), site.column), _characters(_raw(site, site.end_line), site.end_column)


def shown_path(file: str) -> str:
    """The file as a person calls it: relative to the working directory if it lies below it."""
    try:
        below = PurePath(file).relative_to(PurePath(os.getcwd()))
    except ValueError:
        return file
    return str(below)


def short_path(file: str) -> str:
    """The same for a place in passing: of an installed package's file, only what stands below the folder of packages."""
    parts = PurePath(file).parts
    folder = max((i for i, part in enumerate(parts) if part in ("site-packages", "dist-packages")), default=-1)
    return "/".join(parts[folder + 1 :]) if folder >= 0 else shown_path(file)


def _raw(site: Site, n: int) -> str:
    return linecache.getline(site.file, n).rstrip("\r\n")


def _characters(line: str, column: int) -> int:
    encoded = line.encode(errors="surrogatepass")
    return len(encoded[:column].decode(errors="replace")) if column <= len(encoded) else column


def _line(site: Site, n: int) -> Line:
    raw = _raw(site, n)
    start = _characters(raw, site.column) if n == site.line else len(raw) - len(raw.lstrip())
    end = _characters(raw, site.end_column) if n == site.end_line else len(raw.rstrip())
    widened = [len(raw[:i].expandtabs(_TAB)) for i in (start, end)]
    return Line(n, raw.expandtabs(_TAB).rstrip(), widened[0], max(widened))


def _from_text(site: Site) -> list[Line]:
    return [Line(site.line + i, t, len(t) - len(t.lstrip()), len(t.rstrip())) for i, t in enumerate(site.text.expandtabs(_TAB).split("\n"))]


def _shortened(lines: list[Line]) -> tuple[Line, ...]:
    if len(lines) <= _MOST_LINES:
        return tuple(lines)
    return (*lines[: _MOST_LINES - 3], Line(None, "...", 0, 0), *lines[-2:])
