"""What the benchmarks of watching share, whatever the framework: ratios of times taken in turns, and what was said of a bad run."""

import os
import random
import re
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from benchmarks.timing import table

from whynan import NonFiniteError

Step = Callable[[], object]
Around = Callable[[], AbstractContextManager[object]]
Place = tuple[str, int]

SECONDS = 0.03  # of one timing
WARM = 12  # steps before those that are timed: a watch looks closer at the first ones
RARELY = 10  # a tool whose step takes that many times as long, or longer, takes part in one round of so many
PLAIN, AGAIN = "", "(nothing, again)"  # the unwatched step; a second one like it, to see how much chance there is in the ratios
HEAD = ("tool", "noticed", "right line", "right sample", "parameters as before")


def ratios(
    steps: Mapping[str, Step], rounds: int, inside: Mapping[str, Around] | None = None, seconds: float = SECONDS
) -> tuple[float, dict[str, float]]:
    """Milliseconds of the step `PLAIN`, and for each other one the median over the rounds of its time divided by that one's.

    Times are processor seconds, of timings that take about `seconds`. Each round times the tools in another order, so that a change of the
    machine's speed, and what a tool leaves in the caches, meet all alike. A tool that is in `inside` is there only while its own step is
    timed: what it has changed for the whole process, such as functions of the framework, must not slow the unwatched step down.
    """
    once = {tool: _timed(step, 2, 2, tool, inside) for tool, step in steps.items()}  # the first ones compile
    counts = {tool: max(1, round(seconds / each)) for tool, each in once.items()}
    rests = {tool: min(RARELY, max(1, round(each / seconds))) for tool, each in once.items()}
    plain: list[float] = []
    found: dict[str, list[float]] = {tool: [] for tool in steps}
    for turn in range(rounds):
        taking_part = [tool for tool in steps if not turn % rests[tool] or tool == PLAIN]
        random.shuffle(taking_part)
        times = {}
        for tool in taking_part:
            times[tool] = _timed(steps[tool], WARM if counts[tool] > 1 else 1, counts[tool], tool, inside)
        plain.append(times[PLAIN])
        for tool, each in times.items():
            found[tool].append(each / times[PLAIN])
    del found[PLAIN]
    return statistics.median(plain) * 1e3, {tool: statistics.median(values) for tool, values in found.items()}


def _timed(step: Step, warm: int, count: int, tool: str, inside: Mapping[str, Around] | None) -> float:
    with (inside or {}).get(tool, nullcontext)():
        for _ in range(warm):
            step()
        start = time.process_time()
        for _ in range(count):
            step()
        return (time.process_time() - start) / count


def cost_table(title: str, found: Mapping[str, tuple[float, Mapping[str, float]]]) -> None:
    """Print the ratios by model (a column) and tool (a row), whynan's first."""
    tools = {tool: None for _, r in found.values() for tool in r if tool != AGAIN}
    rows = [[tool, *(f"{r[tool]:.3f}" if tool in r else "-" for _, r in found.values())] for tool in (*tools, AGAIN)]
    table(title, ["tool", *(f"{name} ({ms:.2f} ms)" for name, (ms, _) in found.items())], rows)


@dataclass(frozen=True)
class Said:
    """What a tool said of a run: that something is wrong, the user's line that it names, the sample; whether parameters are untouched."""

    noticed: bool = False
    line: Place | None = None
    sample: int | None = None
    untouched: bool = False


def read(error: BaseException | None, text: str, untouched: bool, files: Sequence[str]) -> Said:
    """What an error that ended a run, or else a text that a tool printed, says of it. `files` are the run's own."""
    if error is None:
        return Said(bool(text.strip()), line_in(text, files), None, untouched)
    if isinstance(error, NonFiniteError):
        incident = error.incident
        site = incident.finding.site if incident.finding else None
        return Said(True, (os.path.abspath(site.file), site.line) if site else None, incident.sample, untouched)
    # a stack that the message or a warning quotes says more than the place where the error was raised
    line = line_in(f"{text}\n{error}", files) or next(_innermost(error, files), None)
    found = re.search(r"\bsample (\d+)", str(error))
    return Said(True, line, int(found[1]) if found else None, untouched)


STACK = re.compile(r'File "([^"\n]+)", line (\d+)|(\S+\.py) \(L(\d+)\)|(/\S+\.py):(\d+)')


def line_in(text: str, files: Sequence[str]) -> Place | None:
    """The innermost line of the run's own files in a stack that a message quotes."""
    places = [[part for part in match if part] for match in STACK.findall(text)]
    own = [(os.path.abspath(file), int(line)) for file, line in places if os.path.abspath(file) in files]
    return own[-1] if own else None


def _innermost(error: BaseException | None, files: Sequence[str]) -> Iterator[Place]:
    """The innermost frame in the run's own files of the error and of those that caused it, the first cause first."""
    if error is None:
        return
    yield from _innermost(error.__cause__, files)
    own = [f for f in traceback.extract_tb(error.__traceback__) if os.path.abspath(f.filename) in files]
    if own:
        yield os.path.abspath(own[-1].filename), own[-1].lineno or 0


def scored(tool: str, found: Mapping[str, Said], lines: Mapping[str, Place], samples: Mapping[str, int]) -> list[str]:
    """A row of the table: how many of the runs in `lines` a tool noticed, how often it had the line, and the sample where there is one."""
    noticed = sum(found[name].noticed for name in lines)
    right = sum(found[name].line == line for name, line in lines.items())
    named = sum(found[name].sample == sample for name, sample in samples.items())
    untouched = sum(found[name].untouched for name in lines)
    return [tool, *(f"{n}/{len(lines)}" for n in (noticed, right)), f"{named}/{len(samples)}", f"{untouched}/{len(lines)}"]
