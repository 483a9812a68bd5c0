"""What each tool finds: training runs that go bad (tests/watch/torch_scenarios.py), and what is said of each.

    python -m benchmarks.watch.locate

A tool has the line if its message, its warnings or the innermost frame of its traceback in the run's file name the failing line: where the
failing expression stands in a library, the line that calls it. It has the sample if the message names its index as the sample. Nothing is
read into a message: a tool that prints the whole training step's stack has no line by that, the innermost frame of the user's counts.
"""

import contextlib
import io
import os
import re
import traceback
import warnings
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")

from dataclasses import dataclass
from typing import Any

import torch
from benchmarks.timing import table
from benchmarks.watch.peers import PEERS, Around
from tests.watch import torch_scenarios
from tests.watch.torch_scenarios import BAD_STEP, Scenario
from torch.utils._python_dispatch import _disable_current_modes

from whynan import NonFiniteError

HERE = os.path.abspath(__file__)
FILES = (os.path.abspath(torch_scenarios.__file__), HERE)


@dataclass(frozen=True)
class Said:
    """What a tool said of a run: that something is wrong, the user's line that it names, the sample; whether parameters are untouched."""

    noticed: bool = False
    line: tuple[str, int] | None = None
    sample: int | None = None
    untouched: bool = False


def said(around: Around, scenario: Scenario) -> Said:
    """Run the scenario to its bad step inside a tool."""
    torch.manual_seed(0)
    model, loss, batch = scenario.make()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    before: list[torch.Tensor] = []
    out = io.StringIO()
    error: BaseException | None = None
    with warnings.catch_warnings(record=True) as warned, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        warnings.simplefilter("always")
        try:
            with around(model, loss, optimizer):
                for step in range(BAD_STEP + 1):
                    with _disable_current_modes():
                        before = [p.detach().clone() for p in model.parameters()]
                    _train(scenario, model, loss, batch(step), optimizer)
        except ImportError:
            raise
        except Exception as raised:
            error = raised
    text = "\n".join([out.getvalue(), *(said for w in warned if "Error detected" in (said := str(w.message)))])
    same = all(torch.equal(torch.nan_to_num(p), torch.nan_to_num(q)) for p, q in zip(model.parameters(), before, strict=True))
    return _read(error, text, same)


def _train(scenario: Scenario, model: torch.nn.Module, loss: Any, given: tuple[Any, Any], optimizer: torch.optim.Optimizer) -> None:
    x, targets = given
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=scenario.autocast) if scenario.autocast else contextlib.nullcontext():
        made = model(*(x if isinstance(x, tuple) else (x,)))
        value = loss(made, *(targets if isinstance(targets, tuple) else (targets,)))  # at nan_target
    value.backward()
    optimizer.step()


def _read(error: BaseException | None, text: str, same: bool) -> Said:
    if error is None:
        return Said(bool(text.strip()), _line_in(text), None, same)
    if isinstance(error, NonFiniteError):
        incident = error.incident
        site = incident.finding.site if incident.finding else None
        return Said(True, (os.path.abspath(site.file), site.line) if site else None, incident.sample, same)
    inner = [f for f in traceback.extract_tb(error.__traceback__) if os.path.abspath(f.filename) in FILES]
    # a stack that the message or a warning quotes says more than the place where the error was raised
    line = _line_in(text) or ((os.path.abspath(inner[-1].filename), inner[-1].lineno or 0) if inner else None)
    found = re.search(r"\bsample (\d+)", str(error))
    return Said(True, line, int(found[1]) if found else None, same)


def _line_in(text: str) -> tuple[str, int] | None:
    """The innermost line of the run's own files in a stack that a message quotes."""
    places = [(os.path.abspath(f), int(n)) for f, n in re.findall(r'File "([^"]+)", line (\d+)', text)]
    own = [p for p in places if p[0] in FILES]
    return own[-1] if own else None


def expected(scenario: Scenario) -> tuple[str, int] | None:
    """File and line of the failing expression; None where it stands in a library and the call is the loop's."""
    for file in FILES:
        line = torch_scenarios.marked(file).get(scenario.name)
        if line is not None:
            return file, line
    return None


def rows() -> Iterator[list[str]]:
    """A row of the table for each tool."""
    scenarios = [s for s in torch_scenarios.FOUND if expected(s)]
    with_sample = [s for s in scenarios if s.samples]
    for tool, around in PEERS.items():
        try:
            found = {s.name: said(around, s) for s in scenarios}
        except ImportError:
            print(f"{tool} is not installed: left out")
            continue
        noticed = sum(found[s.name].noticed for s in scenarios)
        lines = sum(found[s.name].line == expected(s) for s in scenarios)
        samples = sum(found[s.name].sample == s.samples[0] for s in with_sample)
        untouched = sum(found[s.name].untouched for s in scenarios)
        yield [tool, *(f"{n}/{len(scenarios)}" for n in (noticed, lines)), f"{samples}/{len(with_sample)}", f"{untouched}/{len(scenarios)}"]


def main() -> None:
    """Print the table."""
    table("Runs that go bad", ["tool", "noticed", "right line", "right sample", "parameters as before"], list(rows()))


if __name__ == "__main__":
    main()
