"""What the search for fixes knows inside a helper: the ranges of what it is called with."""

from types import SimpleNamespace

from whynan.fixing.candidates import _ranges_in
from whynan.patches.read import contexts
from whynan.patches.source import Source

TEXT = """import torch
import torch.nn.functional as F


def nll(mu, var, t):
    return (torch.log(var) + (t - mu) ** 2 / var).mean()


def loss(mu, s, t):
    return nll(mu, F.softplus(s), t)


def other(a, b, t):
    return nll(a, b, t=t)
"""
KNOWN = {"mu": (-1.0, 1.0), "s": (-9.0, 9.0), "t": (0.0, 1.0), "var": (-7.0, -5.0), "F.softplus(s)": (0.0, 9.1), "b": (20.0, 30.0)}


def ranges(line: int, text: str) -> dict[str, tuple[float, float]]:
    known = SimpleNamespace(ranges=KNOWN, job=SimpleNamespace(expression="loss"), function="loss")
    start = TEXT.splitlines()[line - 1].index(text)
    context = contexts(Source(TEXT), "torch", (line, start), (line, start + len(text)))[0]
    return _ranges_in(context, known)


def test_a_helpers_arguments_have_the_ranges_of_all_calls() -> None:
    inside = ranges(6, "(t - mu) ** 2 / var")
    assert inside["var"] == (0.0, 30.0) and inside["mu"] == (-1.0, 1.0) and inside["t"] == (0.0, 1.0)


def test_the_losss_own_arguments_are_its_inputs() -> None:
    assert ranges(10, "F.softplus(s)") == KNOWN
