"""What each tool finds in PyTorch: training runs that go bad (tests/watch/torch_scenarios.py), and what is said of each.

    python -m benchmarks.watch.locate

A tool has the line if its message, its warnings or the innermost frame of its traceback in the run's file name the failing line: where the
failing expression stands in a library, the line that calls it. It has the sample if the message names its index as the sample. Nothing is
read into a message: a tool that prints the whole training step's stack has no line by that, the innermost frame of the user's counts.
torchlens is run after the fact, on the bad batch and the parameters of before the step; if it finds nothing in the forward pass, on the
backward pass, too. Where data are bad, the line is that of the first operation that takes them: torchlens says instead that an input of the
model is bad, which is no less true, but has no line.
"""

import contextlib
import io
import os
import warnings
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")

from typing import Any

import torch
from benchmarks.timing import table
from benchmarks.watch.measure import HEAD, Place, Said, read, scored
from benchmarks.watch.peers import FINDER, PEERS, Around, found_by_torchlens
from tests.watch import torch_scenarios
from tests.watch.marked import marked
from tests.watch.torch_scenarios import BAD_STEP, Scenario
from torch.utils._python_dispatch import _disable_current_modes

HERE = os.path.abspath(__file__)
FILES = (os.path.abspath(torch_scenarios.__file__), HERE)


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
    return read(error, text, same, FILES)


def said_later(scenario: Scenario) -> Said:
    """What torchlens says of the bad batch, given the parameters of before the bad step: it does not hold the update back itself."""
    torch.manual_seed(0)
    model, loss, batch = scenario.make()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(BAD_STEP):
        _train(scenario, model, loss, batch(step), optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read(None, found_by_torchlens(model, loss, batch(BAD_STEP), scenario.autocast, backward=True), False, FILES)


def _train(scenario: Scenario, model: torch.nn.Module, loss: Any, given: tuple[Any, Any], optimizer: torch.optim.Optimizer) -> None:
    x, targets = given
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=scenario.autocast) if scenario.autocast else contextlib.nullcontext():
        made = model(*(x if isinstance(x, tuple) else (x,)))
        value = loss(made, *(targets if isinstance(targets, tuple) else (targets,)))  # at nan_target
    value.backward()
    optimizer.step()


def expected(scenario: Scenario) -> Place | None:
    """File and line of the failing expression, or, where it stands in a library, of the call; None if no line is marked."""
    return next(((file, marked(file)[scenario.name]) for file in FILES if scenario.name in marked(file)), None)


def rows() -> Iterator[list[str]]:
    """A row of the table for each tool."""
    scenarios = [s for s in torch_scenarios.FOUND if expected(s)]
    lines = {s.name: place for s in scenarios if (place := expected(s))}
    samples = {s.name: s.samples[0] for s in scenarios if s.samples}
    for tool, around in (*PEERS.items(), (FINDER, None)):
        try:
            yield scored(tool, {s.name: said(around, s) if around else said_later(s) for s in scenarios}, lines, samples)
        except ImportError:
            print(f"{tool} is not installed: left out")


def main() -> None:
    """Print the table."""
    table("PyTorch: runs that go bad", HEAD, list(rows()))


if __name__ == "__main__":
    main()
