"""From a place without an end, as tracebacks give it, to the exact expression."""

import linecache
import textwrap

import pytest

from whynan.frontends.source import expression_at, plain_name

TEXT = textwrap.dedent(
    """\
    import torch

    class Loss:
        def forward(self, p, t):
            total = (
                torch.log(p * p + 1e-3)
                .mean()
            )
            total += a + b + c
            ü = (1 - p).sqrt() if p[0] < t.T else -t
            return self.inner(p)(t).sum() ** 2

    def outer():
        def inner(x):
            return x
        return lambda x: torch.exp(x)
    """
)


@pytest.fixture
def file():
    """The name of a source file that only `linecache` knows."""
    name = "<a loss for tests of source>"
    linecache.cache[name] = (len(TEXT), None, TEXT.splitlines(keepends=True), name)
    yield name
    del linecache.cache[name]


def site(file, line, begin, *names, occurrence=0):
    """The site on a line where `begin` begins (None: no column is known)."""
    column = None if begin is None else linecache.getline(file, line).encode().index(begin.encode())
    return expression_at(file, line, column, names, "forward", occurrence=occurrence)


@pytest.mark.parametrize(
    ("line", "begin", "name", "text"),
    [
        (6, "torch", "log", "torch.log(p * p + 1e-3)"),
        (6, "p * p", "mul", "p * p"),
        (6, "p * p", "add", "p * p + 1e-3"),
        (6, "p * p", "AddV2", "p * p + 1e-3"),
        (7, "mean", "mean", "torch.log(p * p + 1e-3)\n            .mean()"),
        (9, "total", "iadd", "total += a + b + c"),
        (10, "(1", "sqrt", "(1 - p).sqrt()"),
        (10, "1 -", "rsub", "1 - p"),
        (10, "p[", "getitem", "p[0]"),
        (10, "p[", "lt", "p[0] < t.T"),
        (10, "-t", "Neg", "-t"),
        (11, "self", "pow", "self.inner(p)(t).sum() ** 2"),
        (11, "self", "forward", "self.inner(p)"),
        (11, "self", "sum", "self.inner(p)(t).sum()"),
    ],
)
def test_the_name_decides_among_the_expressions_that_begin_at_a_place(file, line, begin, name, text):
    found = site(file, line, begin, name)
    assert found.text == text
    assert found.function == "Loss.forward"


def test_equal_operators_at_one_place_are_counted_from_within(file):
    assert [site(file, 9, "a +", "add", occurrence=i).text for i in (0, 1, 2)] == ["a + b", "a + b + c", "a + b"]


def test_without_a_column_the_line_is_searched(file):
    assert site(file, 6, None, "log").text == "torch.log(p * p + 1e-3)"
    assert site(file, 10, None, "sqrt").text == "(1 - p).sqrt()"


def test_if_nothing_fits_the_line_is_the_expression(file):
    found = site(file, 1, None, "log")
    assert (found.text, found.column, found.line) == ("import torch", 0, 1)


def test_functions_get_their_qualified_names(file):
    assert expression_at(file, 15, None, [], "inner").function == "outer.<locals>.inner"
    assert expression_at(file, 16, None, ["exp"], "<lambda>").function == "outer.<locals>.<lambda>"


def test_a_file_that_cannot_be_read_gives_a_place_without_text():
    found = expression_at("/no/such/file.py", 3, None, ["log"], "loss")
    assert (found.line, found.text, found.function) == (3, "", "loss")


def test_names_lose_what_frameworks_put_around_them():
    assert [plain_name(n) for n in ("__radd__", "AddV2", "iadd", "truediv", "RealDiv", "log_1", "aten.log")] == ["add"] * 3 + [
        "div"
    ] * 2 + ["log"] * 2
