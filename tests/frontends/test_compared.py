"""A number that is read and only compared: which expressions are seen as such, and that the comparison is exact."""

import inspect
import linecache
from itertools import count

import numpy as np
import pytest
import torch

import whynan
from whynan.frontends.compared import Comparison, comparison
from whynan.ir.dtype import FLOAT32, FLOAT64, INT64, flushed
from whynan.ir.graph import Builder
from whynan.ir.where import Site

_NAMES = count()


def site_in(source: str, text: str) -> Site:
    """The site of a text in a source file made up for it."""
    name = f"<compared {next(_NAMES)}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    line = next(n for n, row in enumerate(source.splitlines(), 1) if text in row)
    column = source.splitlines()[line - 1].index(text)
    return Site(name, line, line, column, column + len(text), text, "f")


SEEN = {
    "if x.item() > 1:\n    pass\n": ("x.item()", Comparison("gt", 1.0, False)),
    "y = a.sum().item() == 0 and b\n": ("a.sum().item()", Comparison("eq", 0.0, False)),
    "while -1e-3 < float(x):\n    pass\n": ("float(x)", Comparison("lt", -1e-3, True)),
    "z = 1 if float(x) != 2 else 3\n": ("float(x)", Comparison("ne", 2.0, False)),
}


@pytest.mark.parametrize("source", SEEN)
def test_a_comparison_with_a_constant_is_seen(source: str) -> None:
    text, expected = SEEN[source]
    assert comparison(site_in(source, text)) == expected


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("y = x.item()\n", "x.item()"),
        ("y = x.item() * 2 > 1\n", "x.item()"),
        ("if 0 < x.item() < y:\n    pass\n", "x.item()"),
        ("if x.item() > limit:\n    pass\n", "x.item()"),
        ("if x.item() in (1, 2):\n    pass\n", "x.item()"),
        ("if (y := x.item()) > 1:\n    pass\n", "x.item()"),
        ("if x.item(0) > 1:\n    pass\n", "x.item(0)"),
        ("if int(x) > 1:\n    pass\n", "int(x)"),
        ("if x.item() > 1e999:\n    pass\n", "x.item()"),
        ("if x.item() > 'a':\n    pass\n", "x.item()"),
        ("if x.item() > True:\n    pass\n", "x.item()"),
        ("if x.item() > 1\n", "x.item()"),
    ],
)
def test_what_may_use_all_of_the_number_is_not(source: str, text: str) -> None:
    assert comparison(site_in(source, text)) is None


def test_a_look_below_a_library_call_is_not_the_users_comparison() -> None:
    site = site_in("if float(x) > 1:\n    pass\n", "float(x)")
    assert comparison(Site(site.file, site.line, site.line, site.column, site.end_column, site.text, "f", "lib.py:3 in g")) is None


def test_the_comparison_is_made_without_rounding() -> None:
    b = Builder()
    single, whole = b.add("input", (), (), FLOAT32, name="x"), b.add("input", (), (), INT64, name="n")
    node = Comparison("lt", 0.1, False).node(b, single)
    assert node is not None and all(b.format(i).name == FLOAT64.name for i in b.nodes[node].inputs)
    node = Comparison("lt", 3.0, False).node(b, whole)
    assert node is not None and all(b.format(i).name == INT64.name for i in b.nodes[node].inputs)
    assert Comparison("lt", 0.5, False).node(b, whole) is None


def test_a_number_near_zero_is_not_compared_where_subnormals_are_flushed() -> None:
    b = Builder()
    x = b.add("input", (), (), flushed(FLOAT32), name="x")
    assert Comparison("gt", 0.0, False).node(b, x) is None and Comparison("gt", 1.0, False).node(b, x) is not None


@pytest.mark.parametrize("number", [0.0, 1.0, np.nan, np.inf, -2.5])
def test_the_outcome_is_pythons(number: float) -> None:
    assert Comparison("gt", 1.0, False).holds(number) == (number > 1.0)
    assert Comparison("ne", 1.0, True).holds(number) == (number != 1.0)
    assert Comparison("le", 1.0, True).holds(number) == (number >= 1.0)


def test_the_boundary_in_a_wider_format_is_pythons() -> None:
    def loss(x):
        if x.max().item() > 0.1:  # float32's nearest to 0.1 is above it
            return x.sum()
        return torch.log(x.max() - 0.10000000149011612).sum()

    assert inspect.getsource(loss)
    edge = float(np.float32(0.1))
    report = whynan.check(loss, x=whynan.real(2, low=edge, high=1))
    assert report.verdict == "safe", [o.reason for o in report.undecided]


def test_a_number_that_is_compared_and_used_is_not_covered() -> None:
    def loss(x):
        if x.max().item() > 0.5:
            return x.sum() / x.max().item()
        return x.sum()

    assert whynan.check(loss, x=whynan.real(2, low=-1, high=1)).verdict == "undecided"
