"""Reports as a check would make them, built by hand, one per verdict and kind, on the losses of `losses.py`; and the goldens.

`pytest tests/report --update-goldens` writes what is shown now as what is expected; review the difference.
"""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from whynan.analysis.finding import Finding, Open, Report, Step, Witness
from whynan.domain.spec import binary, classes, logit, onehot, prob, real
from whynan.ir.where import Site

LOSSES = str(Path(__file__).parent / "losses.py")


def site_of(text: str, function: str = "", file: str = LOSSES, detail: str = "") -> Site:
    """The site of the first place where a file has this text; columns are bytes, as in the front ends."""
    source = Path(file).read_text(encoding="utf-8")
    start = source.index(text)
    before, upto = source[:start], source[: start + len(text)]
    return Site(
        file,
        before.count("\n") + 1,
        upto.count("\n") + 1,
        len(before.rpartition("\n")[2].encode()),
        len(upto.rpartition("\n")[2].encode()),
        text,
        function,
        detail,
    )


def report(**changes) -> Report:
    fields = {
        "target": "losses.py:bce",
        "framework": "torch",
        "framework_version": "2.13.0",
        "dtype": "float32",
        "modes": ("eager",),
        "verdict": "safe",
        "seconds": 0.314,
        "domain": {},
        "sites": {"total": 0, "proven": 0, "refuted": 0, "undecided": 0},
    }
    return Report(**{**fields, **changes})


def finding(**changes) -> Finding:
    fields = {
        "id": "f1",
        "kind": "non-finite",
        "severity": "error",
        "cause": "log-of-zero",
        "message": "log gets 0.0.",
        "op": "log",
        "phase": "forward",
        "site": None,
        "modes": ("eager",),
    }
    return Finding(**{**fields, **changes})


def epsilon_rounds_away() -> Report:
    log = site_of("torch.log(1 - p)", "bce")
    product = site_of("(1 - t) * torch.log(1 - p)", "bce")
    mean = site_of("(t * torch.log(p) + (1 - t) * torch.log(1 - p)).mean()", "bce")
    p, t = np.full((8, 1), 0.5, np.float32), np.zeros((8, 1), np.float32)
    p[3, 0] = t[3, 0] = 1.0
    gradient = np.zeros((8, 1), np.float32)
    gradient[3, 0] = np.nan
    chain = (
        Step("log", log, "forward", ("0.0",), "-inf"),
        Step("mul", product, "forward", ("0.0", "-inf"), "nan"),
        Step("mean", mean, "forward", ("1 of 8 elements is nan",), "nan"),
    )
    found = finding(
        cause="epsilon-rounds-away",
        related=("log-of-zero", "zero-times-inf"),
        message="1 - 1e-08 is exactly 1.0 in float32, whose spacing just below 1 is 6e-08: the clamp lets 1.0 through and 1 - p is 0.0.",
        site=log,
        modes=("eager", "compile"),
        chain=chain,
        witness=Witness({"p": p, "t": t}, np.float32("nan"), {"p": gradient}, source="print('again')\n"),
    )
    return report(
        verdict="unsafe",
        modes=("eager", "compile"),
        domain={"p": prob(8, 1), "t": binary(8, 1).but(assumed=True)},
        sites={"total": 23, "proven": 19, "refuted": 4, "undecided": 0},
        findings=(found,),
        search={"evaluations": 37, "seconds": 0.02},
    )


def where_trap() -> Report:
    text = "torch.where(\n        y > 0,\n        torch.sqrt(y),\n        torch.zeros_like(y),\n    )"
    sqrt = site_of("torch.sqrt(y)", "root")
    found = finding(
        cause="masked-branch-gradient",
        related=("sqrt-grad-at-zero", "zero-times-inf"),
        message="where() does not take sqrt(y) at y = 0.0, but its gradient passes through it: 0.0 * inf.",
        op="sqrt",
        phase="backward",
        site=site_of(text, "root"),
        chain=(Step("div", sqrt, "backward", ("0.0", "0.0"), "nan"),),
        witness=Witness({"y": np.zeros(1, np.float32)}, np.float32(0), {"y": np.float32([np.nan])}),
    )
    return report(
        target="losses.py:root",
        verdict="unsafe",
        domain={"y": real(1, low=0, high=1)},
        sites={"total": 9, "proven": 8, "refuted": 1, "undecided": 0},
        findings=(found,),
        search={"evaluations": 2, "seconds": 0.001},
    )


def safe_softmax() -> Report:
    return report(
        target="losses.py:safe_cross_entropy",
        domain={"z": logit(8, 3), "target": onehot(8, 3).but(assumed=True)},
        sites={"total": 31, "proven": 31, "refuted": 0, "undecided": 0},
        envelope={"z": {"float32": 3.4028234663852886e38, "float16": 65504.0}},
        notes=("the loss is a scalar",),
    )


def undecided_op() -> Report:
    call = site_of("torch.ops.acme.spline(x, knots)", "spline_loss")
    return report(
        target="losses.py:spline_loss",
        verdict="undecided",
        domain={"x": real(16), "knots": real(4, dtype="float64")},
        sites={"total": 12, "proven": 9, "refuted": 0, "undecided": 3},
        undecided=(
            Open("acme.spline", call, "forward", "unknown op acme.spline: it may give anything, NaN included."),
            Open("square", site_of("weights.square()", "spline_loss"), "backward", "its input may be infinite."),
            Open("iota", None, "forward", "no bound."),
        ),
        search={"evaluations": 2048, "seconds": 1.5},
    )


def exploding_gradient() -> Report:
    a = np.linspace(-1, 1, 3000, dtype=np.float32).reshape(1000, 3)
    gradient = np.zeros((1000, 3), np.float32)
    gradient[7, 2] = -2.5e17
    division = site_of("1 / ((a - b).square().sum(-1) + 1e-12)", "inverse_distance", detail="torch/_tensor.py:40 in __rdiv__")
    found = finding(
        kind="exploding-gradient",
        severity="warning",
        cause="steep-gradient",
        message="the gradient by a reaches 2.5e+17; the limit is 1e+06.",
        op="div",
        phase="backward",
        site=division,
        witness=Witness({"a": a, "b": a + np.float32(1e-6)}, np.float32(1e12), {"a": gradient}),
    )
    return report(
        target="losses.py:inverse_distance",
        domain={"a": real(1000, 3, low=-1, high=1), "b": real(1000, 3, low=-1, high=1)},
        sites={"total": 18, "proven": 18, "refuted": 0, "undecided": 0},
        findings=(found,),
        search={"evaluations": 96, "seconds": 0.11},
    )


def hostile() -> Report:
    """Text that tries to be markup, escape codes, HTML or a longer line than any screen."""
    text = "f('[bold]</pre><script>alert(1)</script>\x1b[31m\u202e\u00e9\u6f22', [/red])" + " + 0" * 60
    site = Site("[link=x]\x1b]0;owned\x07<b>.py", 7, 7, 4, 4 + len(text.encode()), text, "<lambda>[/]")
    found = finding(
        message="[red]<img src=x onerror=alert(1)>\x1b[2J\x00 & [/nonsense]",
        site=site,
        chain=(Step("<i>", site, "backward", ("[b]", "\x9b1m"), "</pre>"),),
        witness=Witness({"<x>[/]\x1b[0m": np.array([0.1], ml_dtypes.bfloat16)}, np.float32("inf"), {}, source="</pre><script>1</script>"),
    )
    return report(
        target="<u>\x1b[1m.py:[blink]f",
        verdict="unsafe",
        domain={"\u202e<x>": classes(3, 2).but(assumed=True)},
        findings=(found,),
        undecided=(Open("[/]<op>", site, "forward", "\x1b[5m<because>"),),
        notes=("[/] \x07 <note>",),
    )


REPORTS = {
    f.__name__.replace("_", "-"): f for f in (epsilon_rounds_away, where_trap, safe_softmax, undecided_op, exploding_gradient, hostile)
}


GOLDENS = Path(__file__).parents[1] / "golden" / "report"


def pytest_addoption(parser):
    parser.addoption("--update-goldens", action="store_true", help="write the reports shown now as the expected ones")


def pytest_generate_tests(metafunc):
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", list(REPORTS))


@pytest.fixture(autouse=True)
def in_the_folder_of_the_losses(monkeypatch):
    monkeypatch.chdir(Path(LOSSES).parent)


@pytest.fixture
def example(name):
    """The report of that name."""
    return REPORTS[name]()


@pytest.fixture
def examples():
    """All reports by name, each made afresh by a call."""
    return REPORTS


@pytest.fixture
def make_report():
    """A report of defaults, with changes by keyword."""
    return report


@pytest.fixture
def make_finding():
    """A finding of defaults, with changes by keyword."""
    return finding


@pytest.fixture
def find_site():
    """The site of a text in a file."""
    return site_of


@pytest.fixture
def matches_golden(request):
    """Compare a text with the golden file of that name, or write it under --update-goldens."""

    def compare(file_name: str, text: str) -> None:
        golden = GOLDENS / file_name
        text = text.replace(str(Path(LOSSES).parent), "FOLDER")
        if request.config.getoption("--update-goldens", default=False):
            golden.parent.mkdir(parents=True, exist_ok=True)
            golden.write_bytes(text.encode())
        assert golden.exists(), f"no golden {file_name}: run `pytest tests/report --update-goldens`"
        assert text == golden.read_bytes().decode()

    return compare
