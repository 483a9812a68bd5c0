"""What the terminal shows: goldens, and the properties that must hold for any text and any width."""

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from whynan.analysis.finding import Step, Witness
from whynan.domain.spec import const, real
from whynan.ir.where import Site
from whynan.report.terminal import render, render_findings

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def test_plain(name, example, matches_golden):
    matches_golden(f"terminal/{name}-100.txt", render(example, width=100, color=False))


def test_narrow(name, example, matches_golden):
    matches_golden(f"terminal/{name}-40.txt", render(example, width=40, color=False))


def test_colour(name, example, matches_golden):
    matches_golden(f"terminal/{name}-colour.txt", render(example, width=100, color=True))


@pytest.mark.parametrize("width", [30, 33, 40, 59, 60, 80, 120])
def test_no_line_is_wider_than_the_page(name, example, width):
    assert [line for line in render(example, width=width, color=False).split("\n") if cell_len(line) > width] == []


def test_colour_changes_nothing_but_colour(name, example):
    assert ESCAPE.sub("", render(example, width=70, color=True)) == render(example, width=70, color=False)


def test_no_control_character_reaches_the_terminal(name, example):
    shown = ESCAPE.sub("", render(example, width=100, color=True))
    assert [c for c in shown if not c.isprintable() and c != "\n"] == []


def test_furniture_is_ascii(examples):
    assert render(examples["epsilon-rounds-away"](), width=100, color=False).isascii()


def test_a_console_that_is_no_terminal_gets_plain_text(examples):
    shown = render(examples["where-trap"](), console=Console(file=io.StringIO(), width=77))
    assert "\x1b" not in shown
    assert max(map(len, shown.split("\n"))) <= 77


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colour_where_the_user_wants_none(examples, environment):
    console = Console(file=io.StringIO(), force_terminal=True, _environ=environment)
    assert "\x1b" not in render(examples["where-trap"](), console=console)


def test_colour_on_a_terminal(examples):
    console = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "xterm-256color"})
    assert "\x1b[1;31m" in render(examples["where-trap"](), console=console)


def test_text_that_the_encoding_lacks_is_escaped(examples):
    latin = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    shown = render(examples["hostile"](), console=Console(file=latin, width=100))
    assert "\\xe9\\u6f22" in shown
    assert shown.isascii()


def carets(shown: str) -> list[str]:
    """The source text above each line of carets."""
    lines = shown.split("\n")
    pairs = [(lines[i - 1], line) for i, line in enumerate(lines) if re.fullmatch(r" *\| +\^+", line)]
    return [above[below.index("^") : below.rindex("^") + 1] for above, below in pairs]


def test_carets_stand_under_the_expression(examples):
    assert carets(render(examples["epsilon-rounds-away"](), width=100, color=False)) == ["torch.log(1 - p)"]
    assert carets(render(examples["epsilon-rounds-away"](), width=40, color=False)) == ["torch.log(1 - p)"]


def test_carets_under_every_line_of_a_span(examples):
    marked = carets(render(examples["where-trap"](), width=100, color=False))
    assert marked == ["torch.where(", "y > 0,", "torch.sqrt(y),", "torch.zeros_like(y),", ")"]


def test_columns_are_bytes_and_tabs_and_wide_characters_take_their_columns(tmp_path, make_report, make_finding, find_site):
    file = tmp_path / "wide.py"
    file.write_text("def f(x):\n\treturn '漢é', log(x)\n", encoding="utf-8")
    found = make_finding(site=find_site("log(x)", "f", str(file)))
    lines = render(make_report(verdict="unsafe", findings=(found,)), width=100, color=False).split("\n")
    i = next(i for i, line in enumerate(lines) if "^" in line)
    assert lines[i - 1] == "2 |     return '漢é', log(x)"
    assert cell_len(lines[i - 1][: lines[i - 1].index("log")]) == lines[i].index("^")
    assert lines[i].count("^") == len("log(x)")


def test_a_file_that_has_changed_is_not_quoted(tmp_path, make_report, make_finding):
    file = tmp_path / "changed.py"
    file.write_text("something else\n" * 9)
    found = make_finding(site=Site(str(file), 3, 4, 4, 9, "log(\n  x)", "f"))
    shown = render(make_report(verdict="unsafe", findings=(found,)), width=100, color=False)
    assert "something else" not in shown
    assert carets(shown) == ["log(", "x)"]


def test_a_long_span_is_shortened(tmp_path, make_report, make_finding, find_site):
    file = tmp_path / "long.py"
    text = "log(\n" + "".join(f"  {i},\n" for i in range(50)) + ")"
    file.write_text("y = " + text + "\n")
    shown = render(make_report(verdict="unsafe", findings=(make_finding(site=find_site(text, "f", str(file))),)), width=100, color=False)
    assert carets(shown) == ["log(", "0,", "1,", "49,", ")"]
    assert " | ...\n" in shown


def test_the_marked_part_of_a_long_line_stays_in_view(tmp_path, make_report, make_finding, find_site):
    file = tmp_path / "long.py"
    file.write_text("y = " + "a + " * 50 + "log(x)" + " + b" * 50 + "\n")
    shown = render(make_report(verdict="unsafe", findings=(make_finding(site=find_site("log(x)", "f", str(file))),)), width=40, color=False)
    assert carets(shown) == ["log(x)"]
    assert re.search(r"\| \.\.\..*log\(x\).*\.\.\.\n", shown)


def test_errors_stand_before_warnings(make_report, make_finding):
    warning = make_finding(severity="warning", kind="dead-gradient", cause="clamp-kills-gradient")
    shown = render(make_report(verdict="unsafe", findings=(warning, make_finding())), width=100, color=False)
    assert shown.index("error[log-of-zero]") < shown.index("warning[clamp-kills-gradient]")


def headline(report) -> str:
    return render(report, width=120, color=False).split("\n")[0]


@pytest.mark.parametrize(
    ("loss", "gradient", "says"),
    [
        (np.nan, np.nan, "can become NaN"),
        (np.inf, np.nan, "can become infinite"),
        (1.0, np.nan, "has a gradient that can become NaN"),
        (1.0, -np.inf, "has a gradient that can become infinite"),
    ],
)
def test_the_headline_says_what_goes_wrong(make_report, make_finding, loss, gradient, says):
    witness = Witness({}, np.float32(loss), {"x": np.float32([0, gradient])})
    assert says in headline(make_report(verdict="unsafe", findings=(make_finding(witness=witness),)))


def test_many_open_sites_are_counted_not_listed(make_report, examples):
    one = examples["undecided-op"]().undecided[0]
    shown = render(make_report(verdict="undecided", undecided=(one,) * 25), width=100, color=False)
    assert shown.count("  - acme.spline") == 10
    assert "... and 15 more" in shown


def test_findings_alone(examples):
    findings = [f for name in ("where-trap", "exploding-gradient") for f in examples[name]().findings]
    shown = render_findings(findings, width=100, color=False)
    assert shown.startswith("error[masked-branch-gradient]")
    assert shown.endswith("1 error, 1 warning\n")
    assert render_findings([], width=100, color=False) == "Nothing found.\n"


def test_a_concrete_input_is_not_called_a_domain(make_report):
    shown = render(make_report(domain={"x": const(np.zeros(3))}), width=100, color=False)
    assert "finite on this one input" in shown
    assert "Proven" not in shown


def test_hundreds_of_parameters_are_counted(make_report, make_finding):
    inputs = {f"w{i}": np.zeros(1) for i in range(300)}
    bad = {**inputs, "w299": np.array([np.nan])}
    found = make_finding(witness=Witness(inputs, np.float64(np.nan), bad))
    shown = render(make_report(verdict="unsafe", findings=(found,)), width=100, color=False)
    assert shown.count("... and 29") == 2
    assert "gradient by w299: nan" in shown or "gradient by w299: [nan]" in shown


def test_a_target_is_shown_from_here(make_report):
    file = Path.cwd() / "losses.py"
    lines = render(make_report(target=f"{file}:f(lambda x: x)"), width=100, color=False).split("\n")
    assert lines[0].startswith("SAFE  f(lambda x: x): ")
    assert lines[1].strip().startswith("losses.py:f(lambda x: x), ")


@pytest.mark.parametrize(
    ("inputs", "says"),
    [(("1.0", "0.0"), "div(1.0, 0.0) in line"), (("1.0, 0.0",), "div(1.0, 0.0) in line"), (("?",), "division by zero in line")],
)
def test_the_headline_names_the_first_step_if_it_is_about_numbers(make_report, make_finding, find_site, inputs, says):
    site = find_site("torch.log(1 - p)")
    found = make_finding(cause="div-by-zero", op="div", site=site, chain=(Step("div", site, "forward", inputs, "inf"),))
    assert says in headline(make_report(verdict="unsafe", findings=(found,)))


def test_what_was_said_of_a_cause_is_not_said_again(make_report, make_finding):
    step = Step("log", None, "forward", ("0.0",), "-inf")
    links = [replace(step, output=f"{n} -inf") for n in range(9)]
    first, second = (make_finding(id=i, chain=tuple(links)) for i in ("f1", "f2"))
    shown = render(make_report(verdict="unsafe", findings=(first, second)), width=100)
    assert shown.count("  why  ") == 1
    assert shown.count("as above") == 1
    assert shown.count("-> 4 -inf") == 1
    assert shown.count("-> 8 -inf") == 2  # where it ends is told each time
    assert "... 6 more" in shown


def test_the_same_link_twice_in_a_row_is_one_line(make_report, make_finding):
    step = Step("add", None, "forward", ("1.0", "inf"), "inf")
    assert render(make_report(verdict="unsafe", findings=(make_finding(chain=(step, step)),)), width=100).count("add(1.0, inf) -> inf") == 1


def test_where_only_a_gradient_fails_it_is_said_by_what_was_differentiated(make_report, make_finding):
    def shown(loss, **domain):
        values = {name: np.zeros((), np.float32) for name in domain}
        witness = Witness(values, np.float32(loss), {name: np.float32(np.nan) for name in domain})
        return render(make_report(verdict="unsafe", domain=domain, findings=(make_finding(witness=witness),)), width=200)

    assert "by x, y; if one" in shown(1.0, x=real(), y=real())
    assert "grad=False" not in shown(np.nan, x=real(), y=real())
    assert "grad=False" not in shown(1.0, x=real())
