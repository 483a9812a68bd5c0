"""Digits lost: textbook cases are found where they are lost, stable forms are silent, and every claim stands up to real arithmetic."""

import mpmath
import numpy as np
import pytest

import whynan
from whynan.analysis import accuracy

torch = pytest.importorskip("torch")
F = torch.nn.functional


def found(loss, **domains):
    return [f for f in whynan.check(loss, accuracy=True, **domains).findings if f.kind == "inaccurate"]


# ---------------------------------------------------------------- textbook cases


def one_minus_cos(x):
    return (1 - torch.cos(x)).mean()


def exp_minus_one(x):
    return (torch.exp(x) - 1).abs().mean()


def softplus_by_hand(x):
    return torch.log(1 + torch.exp(x)).mean()


def log_one_minus_sigmoid(x):
    return -torch.log(1 - torch.sigmoid(x)).mean()


def variance_of_squares(x):
    return (x**2).mean() - x.mean() ** 2


def difference_of_squares(a, b):
    return (a**2 - b**2).abs().mean()


def root_minus_x(x):
    return (torch.sqrt(x**2 + 1) - x).mean()


def small_root(b, c):
    return ((-b + torch.sqrt(b * b - 4 * c)) / 2).abs().mean()


def distance_of_squares(a, b):
    return ((a * a).sum(-1) + (b * b).sum(-1) - 2 * (a * b).sum(-1)).mean()


REAL, WIDE = whynan.real(8, low=-4, high=4), whynan.real(8)
TEXTBOOK = [
    (one_minus_cos, {"x": REAL}, "1 - torch.cos(x)"),
    (exp_minus_one, {"x": REAL}, "torch.exp(x) - 1"),
    (softplus_by_hand, {"x": whynan.real(8, low=-50, high=50)}, "1 + torch.exp(x)"),
    (log_one_minus_sigmoid, {"x": whynan.real(8, low=-15, high=15)}, "1 - torch.sigmoid(x)"),
    (variance_of_squares, {"x": WIDE}, "(x**2).mean() - x.mean() ** 2"),
    (difference_of_squares, {"a": WIDE, "b": WIDE}, "a**2 - b**2"),
    (root_minus_x, {"x": WIDE}, "torch.sqrt(x**2 + 1) - x"),
    (small_root, {"b": whynan.real(8, low=100, high=1e4), "c": whynan.real(8, low=-1, high=1)}, "-b + torch.sqrt(b * b - 4 * c)"),
    (distance_of_squares, {"a": whynan.real(4, 8), "b": whynan.real(4, 8)}, "(a * a).sum(-1) + (b * b).sum(-1) - 2 * (a * b).sum(-1)"),
]


@pytest.mark.parametrize(("loss", "domains", "text"), TEXTBOOK, ids=lambda v: getattr(v, "__name__", None))
def test_textbook_cases_are_found_and_placed(loss, domains, text):
    (finding,) = found(loss, **domains)
    assert finding.site.text == text
    assert (finding.kind, finding.severity, finding.cause, finding.phase) == ("inaccurate", "warning", "cancellation", "forward")
    a = finding.accuracy
    assert a.digits < a.of / 2
    assert f"`{text}`" in finding.message
    again = finding.witness.replay()
    assert float(again.loss) == float(finding.witness.loss), "the witness repeats"
    if a.output == "loss":
        assert (a.computed, a.exact) == (float(finding.witness.loss), float(finding.witness.exact["loss"]))


def test_the_exact_value_is_exact():
    (finding,) = found(one_minus_cos, x=REAL)
    x = [mpmath.mpf(float(v)) for v in finding.witness.inputs["x"]]
    exact = sum(2 * mpmath.sin(v / 2) ** 2 for v in x) / len(x)
    assert finding.accuracy.exact == pytest.approx(float(exact), rel=1e-14, abs=0)


def test_the_region_is_where_digits_are_lost():
    (finding,) = found(softplus_by_hand, x=whynan.real(8, low=-50, high=50))
    ((low, high),) = finding.accuracy.where["x"]
    assert low == -50 and -12 < high < -10
    for value, lost in ((-30.0, True), (-12.0, True), (-5.0, False), (3.0, False)):
        computed = float(softplus_by_hand(torch.full((8,), value)))
        error = abs(computed - float(mpmath.log1p(mpmath.exp(value)))) / float(mpmath.log1p(mpmath.exp(value)))
        assert (error > 10**-3.6) == lost == (low <= value <= high)


def test_float64_is_measured_with_more_digits_than_it_has():
    (finding,) = found(one_minus_cos, x=whynan.real(8, low=-4, high=4, dtype="float64"))
    assert finding.site.text == "1 - torch.cos(x)"
    assert finding.accuracy.of == pytest.approx(15.95, abs=0.01)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype):
    (finding,) = found(log_one_minus_sigmoid, x=whynan.real(8, low=-15, high=15, dtype=dtype))
    assert finding.site.text == "1 - torch.sigmoid(x)"


def test_a_gradient_that_loses_its_digits():
    """The square root of a difference that cancels: its derivative has the digits of the difference."""

    def loss(a, b):
        return torch.sqrt(a * a - b * b + 1e-3).mean()

    findings = found(loss, a=whynan.real(8, low=99, high=100), b=whynan.real(8, low=90, high=99))
    assert [f.site.text for f in findings] == ["a * a - b * b"]


# ---------------------------------------------------------------- stable forms


LOGIT, ROWS = whynan.logit(8), whynan.logit(4, 8)
STABLE = {
    "bce with logits": (lambda x, t: F.binary_cross_entropy_with_logits(x, t), {"x": LOGIT, "t": whynan.prob(8)}),
    "cross entropy": (lambda x, t: F.cross_entropy(x, t), {"x": ROWS, "t": whynan.classes(8, 4)}),
    "log softmax": (lambda x: -F.log_softmax(x, -1)[:, 0].mean(), {"x": ROWS}),
    "variance": (lambda x: torch.var(x), {"x": WIDE}),
    "variance in two passes": (lambda x: ((x - x.mean()) ** 2).mean(), {"x": WIDE}),
    "squared error": (lambda a, b: ((a - b) ** 2).mean(), {"a": WIDE, "b": WIDE}),
    "a fit": (lambda w, x, y: ((w * x - y) ** 2).mean(), {"w": WIDE, "x": WIDE, "y": WIDE}),
    "a fit in float64": (
        lambda w, x, y: ((w * x - y) ** 2).mean(),
        {n: whynan.real(8, dtype="float64") for n in ("w", "x", "y")},
    ),
    "softplus": (lambda x: F.softplus(x).mean(), {"x": LOGIT}),
    "log sigmoid": (lambda x: -F.logsigmoid(x).mean(), {"x": LOGIT}),
    "expm1": (lambda x: torch.expm1(x).abs().mean(), {"x": REAL}),
    "half sine": (lambda x: (2 * torch.sin(x / 2) ** 2).mean(), {"x": REAL}),
    "product of squares": (lambda a, b: ((a - b) * (a + b)).abs().mean(), {"a": WIDE, "b": WIDE}),
    "saturated sigmoid": (lambda x, t: F.mse_loss(torch.sigmoid(x), t), {"x": LOGIT, "t": whynan.prob(8)}),
    "saturated tanh": (lambda x, t: F.mse_loss(torch.tanh(x), t), {"x": WIDE, "t": WIDE}),
    "huber": (lambda a, b: F.huber_loss(a, b), {"a": WIDE, "b": WIDE}),
    "one minus a given number": (lambda p: -torch.log(1 - p).mean(), {"p": whynan.prob(8, low=0.5, high=0.99999)}),  # exact from 0.5 on
}


@pytest.mark.parametrize("name", STABLE)
def test_stable_forms_are_silent(name):
    loss, domains = STABLE[name]
    assert [f.message for f in found(loss, **domains)] == []


# ---------------------------------------------------------------- what the report says


def test_without_the_option_nothing_is_counted():
    report = whynan.check(one_minus_cos, x=REAL)
    assert [f.kind for f in report.findings] == [] and not any("digits" in note for note in report.notes)


def test_how_far_the_count_went_is_noted():
    assert any("a search and no proof" in n for n in whynan.check(one_minus_cos, x=REAL, accuracy=True).notes)
    report = whynan.check(lambda x: torch.linalg.eigvalsh(x @ x.T).sum(), x=whynan.real(3, 3, low=-1, high=1), accuracy=True)
    assert any("digits were not counted" in n for n in report.notes)


def test_large_inputs_are_declined_in_words():
    report = whynan.check(one_minus_cos, x=whynan.real(100_000, low=-4, high=4), accuracy=True)
    assert any("smaller shapes" in n for n in report.notes)
    assert [f.kind for f in report.findings] == []


def test_it_is_the_same_twice():
    one, other = (found(variance_of_squares, x=WIDE)[0] for _ in range(2))
    assert one.message == other.message
    np.testing.assert_array_equal(one.witness.inputs["x"], other.witness.inputs["x"])


def test_the_report_shows_both_values():
    report = whynan.check(one_minus_cos, x=REAL, accuracy=True)
    data = report.to_dict()["findings"][0]
    assert data["accuracy"]["output"] == "loss" and data["witness"]["exact"]["loss"] == data["accuracy"]["exact"]
    assert "exact" in str(report) and "correct digit" in str(report)
    assert report.findings[0].witness.script().rstrip().splitlines()[-1].startswith("# on this input the loss has")


def test_digits_are_blamed_on_the_user_s_expression_only():
    def loss(x):
        return F.layer_norm(x, (8,)).pow(3).mean()

    assert found(loss, x=whynan.real(4, 8)) == []


# ---------------------------------------------------------------- the testers


def test_without_the_condition_a_fit_would_be_blamed(monkeypatch):
    """The silence about w * x - y is the condition's doing, not the search's: without it the search finds its digits lost."""
    loss, domains = STABLE["a fit"]
    monkeypatch.setattr(accuracy, "_beyond_condition", lambda *case: True)
    assert [f.site.text for f in found(loss, **domains)] == ["w * x - y"]


def test_a_wrong_reference_would_be_noticed():
    """With float64 in place of real arithmetic the exact value is no longer exact."""
    (finding,) = found(one_minus_cos, x=REAL)
    x = np.float64(finding.witness.inputs["x"])
    assert float((1 - np.cos(x)).mean()) != pytest.approx(finding.accuracy.exact, rel=1e-14, abs=0)


def test_the_region_holds_the_witness() -> None:
    def loss(x: torch.Tensor) -> torch.Tensor:
        return torch.log(1 + torch.exp(x)).mean()

    report = whynan.check(loss, x=whynan.real(4, low=-30, high=10), accuracy=True)
    (found,) = [f for f in report.findings if f.kind == "inaccurate"]
    x = float(found.witness.inputs["x"].astype("float64").mean())
    assert any(low <= x <= high for low, high in found.accuracy.where["x"])
