"""An incident in words: goldens, and what must hold for any text and any width."""

import io
import math
import re
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console
from tests.watch.incidents import GOLDEN, GOLDENS, HERE, INCIDENTS, finding, incident, shown

from whynan.analysis.finding import Step
from whynan.ir.where import Site
from whynan.watching.record import Element, Moment, Stored, Suspects
from whynan.watching.words import bytes_text, sample_text, sparkline, stored_text, summary, told

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(autouse=True)
def in_this_folder(monkeypatch):
    monkeypatch.chdir(HERE)


@pytest.mark.parametrize("file", GOLDEN)
def test_golden(file):
    """`python -m tests.watch.incidents` writes what is shown now as what is expected."""
    assert shown(*GOLDEN[file]) + "\n" == (GOLDENS / file).read_text(encoding="utf-8")


def hostile():
    text = "f('[bold]</pre>\x1b[31m\u202e\u00e9\u6f22', [/red])"
    site = Site("[link=x]\x1b]0;owned\x07.py", 7, 7, 4, 9, text, "<lambda>[/]")
    found = replace(
        finding(), message="[red]\x1b[2J\x00 & [/x]", site=site, chain=(Step("<i>", site, "backward", ("[b]", "\x9b1m"), "</p>"),)
    )
    return incident(
        finding=found,
        framework="\x1b[1m",
        framework_version="[/]",
        layer="a\x07[bold]",
        parameters=("\u202ename\n",),
        suspects=Suspects((1,), (), (Element("[x]\x1b[0m", (), math.nan),), 3),
        advice=("[blink]\x1b[5m",),
        notes=("\x00" * 3,),
        moments=(Moment(1203, 0.5, outcome="\x1b[2Jgone"), Moment(1204, 0.5, outcome="[/red]\n\x07")),
        stored=(Stored("batch\x1b/[x]", "float32", (3,), 12), Stored("y", "", (), left_out="\x1b[3m")),
        when="\x1b2026\x07",
        action="\x07",
    )


CASES = {**INCIDENTS, "hostile": hostile, "long": lambda: incident(layer="block." * 80, parameters=tuple(f"p{i}" * 30 for i in range(500)))}


@pytest.mark.parametrize("width", [30, 40, 59, 60, 80, 120])
@pytest.mark.parametrize("name", CASES)
def test_no_line_is_wider_than_the_page(name, width):
    assert [line for line in told(CASES[name](), width=width, color=False).split("\n") if cell_len(line) > width] == []


@pytest.mark.parametrize("name", CASES)
def test_no_control_character_reaches_the_terminal(name):
    plain = ESCAPE.sub("", told(CASES[name](), width=100, color=True))
    assert [c for c in plain if not c.isprintable() and c != "\n"] == []


@pytest.mark.parametrize("name", CASES)
def test_colour_changes_nothing_but_colour(name):
    assert ESCAPE.sub("", told(CASES[name](), width=70, color=True)) == told(CASES[name](), width=70, color=False)


def test_text_that_the_encoding_lacks_is_escaped():
    latin = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    text = told(hostile(), console=Console(file=latin, width=100), color=None)
    assert text.isascii() and "\\u6f22" in text


def test_markup_is_shown_not_read():
    text = told(hostile(), width=120, color=False)
    assert "[link=x]" in text and "[blink]" in text and "[/x]" in text


def test_a_console_in_colour():
    console = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "xterm-256color"})
    assert "\x1b[1;31m" in told(incident(), console, color=None)
    assert "\x1b" not in str(incident())


# ---------------------------------------------------------------- phrases


@pytest.mark.parametrize(
    ("suspects", "text"),
    [
        (Suspects(), ""),
        (Suspects(batch=8), ""),
        (Suspects((3,), (3,), batch=8), "3 of the batch of 8 samples (counted from 0); without the rest of the batch it fails as well"),
        (Suspects((3, 7), (3,), batch=8), "3, 7 of the batch of 8 samples (counted from 0); 3 alone fails as well"),
        (Suspects((), (2, 3), batch=8, call=1), "2, 3 alone fail together of micro-batch 1 of 8 samples (counted from 0)"),
        (Suspects((0, 1), (0, 1), batch=2), "0, 1 of the batch of 2 samples (counted from 0)"),
        (Suspects(tuple(range(20)), batch=40), "0, 1, 2, 3, 4, 5, 6, 7, ... (20 in all) of the batch of 40 samples (counted from 0)"),
    ],
)
def test_samples(suspects, text):
    assert sample_text(suspects) == text


def test_the_sample_to_look_at_is_one_that_failed_first():
    assert incident(suspects=Suspects((3,), (2, 3))).sample == 3
    assert incident(suspects=Suspects((3,), (2,))).sample == 2
    assert incident(suspects=Suspects()).sample is None


def test_what_is_in_the_bundle():
    lines = stored_text(
        [
            Stored("batch/x", "float32", (8, 2), 24, (1, 2, 5)),
            Stored("batch/y", "int64", (8,), 24, (1, 2, 5)),
            Stored("parameters/w", "float32", (9,), 36),
            Stored("parameters/v", "", (), left_out="why"),
        ]
    )
    assert lines == [
        "batch: 2 tensors, 48 B; only samples 1, 2, 5",
        "parameters: 1 tensor, 36 B",
        "parameters: 1 tensor; left out: why",
    ]


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0 B"), (1023, "1.02e+03 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (5 * 2**20, "5 MiB"), (2**40, "1.02e+03 GiB")]
)
def test_sizes(n, text):
    assert bytes_text(n) == text


# ---------------------------------------------------------------- the last steps


def test_a_sparkline_has_the_lowest_and_the_highest_level_at_the_ends():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 50) == ("_.:-=+*#", "")


def test_a_sparkline_of_steep_growth_shows_logarithms():
    assert sparkline([10.0**k for k in range(8)], 50) == ("_.:-=+*#", " (log)")
    assert sparkline([0.0, 1e9], 50)[1] == ""


def test_a_curve_leaves_out_steps_where_nothing_was_measured():
    steps = [Moment(k, 1.0, update_ratio=math.nan if k % 2 else 1.0 + k) for k in range(20)]
    line = next(t for t in told(incident(step=20, moments=(*steps,))).splitlines() if "update ratio   " in t)
    assert line.split()[2] == "__.:-=+*##!", "one for each number, and the failing step"


def test_a_sparkline_keeps_spikes_and_what_is_not_finite():
    line, _ = sparkline([1.0] * 500 + [9.0] + [1.0] * 498 + [math.nan], 50)
    assert len(line) == 50 and line.count("#") == 1 and line.endswith("!")


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, math.nan], [2.0], [2.0, 2.0], [-1e308, 1e308], [5e-324, 1.0]])
def test_a_sparkline_of_anything(values):
    line, _ = sparkline(values, 10)
    assert len(line) == len(values)


def test_columns_that_were_not_measured_are_left_out():
    text = told(incident(moments=(Moment(1, 0.5), Moment(2, 0.4), Moment(3, 0.3))))
    assert "  step  loss\n" in text and "  1204   inf  not applied\n" in text


def test_the_bad_step_is_shown_once():
    own = Moment(1204, math.nan, (math.inf,), outcome="skipped")
    rows = [line for line in told(incident(moments=(Moment(1203, 0.5), own))).split("\n") if line.startswith("  1204")]
    assert len(rows) == 1 and rows[0].endswith("skipped")


def test_a_function_of_an_installed_library_is_not_proposed_for_a_check():
    found = finding()
    site = replace(found.site, file="/env/lib/python3/site-packages/keras/losses.py", function="mean_squared_error")
    inside = incident(layer="", finding=replace(found, site=site))
    assert "whynan check" in str(incident(layer="")) and "whynan check" not in str(inside)


def test_a_failing_derivative_is_told_with_its_own_operation():
    found = finding()
    step = replace(found.chain[0], op="div", inputs=("0.5", "0"))
    backward = replace(found, op="sqrt", phase="backward", chain=(step, *found.chain[1:]))
    assert "div(0.5, 0) in the derivative of sqrt, " in summary(incident(failed="gradient", finding=backward))
