"""The wrong thing fed in: logits for probabilities, softmax twice, targets out of range, hidden NaNs, gradients cut off."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import whynan
from whynan import binary, classes, integers, logit, nonnegative, onehot, prob, real, simplex
from whynan.analysis.finding import Finding
from whynan.cli import exit_code


def found(loss: Callable[..., Any], **domains: Any) -> list[Finding]:
    """The findings of kind contract, each with a witness inside its domain that repeats."""
    report = whynan.check(loss, **domains)
    contract = [f for f in report.findings if f.kind == "contract"]
    for f in contract:
        assert f.witness is not None
        again = f.witness.replay()
        assert np.array_equal(again.loss, f.witness.loss, equal_nan=True)
    return contract


def only(loss: Callable[..., Any], cause: str, **domains: Any) -> Finding:
    """The one contract finding, which has that cause."""
    (one,) = found(loss, **domains)
    assert one.cause == cause
    return one


# ---------------------------------------------------------------- logits as probabilities


def clamped(p, t):
    q = p.clamp(1e-7, 1 - 1e-7)
    return -(t * torch.log(q) + (1 - t) * torch.log(1 - q)).mean()


def each_log_guarded(p, t):
    return -(t * torch.log(p.clamp(min=1e-7)) + (1 - t) * torch.log((1 - p).clamp(min=1e-7))).mean()


def categorical(p, t):
    share = p / p.sum(-1, keepdim=True)
    return -(t * torch.log(share.clamp(1e-7, 1 - 1e-7))).sum(-1).mean()


def test_logits_in_a_clamped_cross_entropy_are_an_error_with_a_dead_gradient():
    one = only(clamped, "logits-as-probabilities", p=logit(4), t=binary(4))
    assert (one.severity, one.op, one.phase) == ("error", "clamp", "forward")
    assert one.site is not None and one.site.text == "p.clamp(1e-7, 1 - 1e-7)"
    p = one.witness.inputs["p"]
    assert ((p < 0) | (p > 1)).all()
    assert np.isfinite(one.witness.loss) and not one.witness.gradients["p"].any()


def test_it_replaces_the_warning_about_the_clamp():
    assert "dead-gradient" not in {f.kind for f in whynan.check(clamped, p=logit(4), t=binary(4)).findings}
    assert "dead-gradient" in {f.kind for f in whynan.check(clamped, p=prob(4), t=binary(4)).findings}


def test_scores_divided_by_their_sum_are_no_probabilities():
    one = only(categorical, "logits-as-probabilities", p=real(4, 3, low=-9, high=9), t=onehot(4, 3))
    assert one.site.text == "share.clamp(1e-7, 1 - 1e-7)"


def test_a_name_alone_gives_a_warning():
    def loss(logits, t):
        return clamped(logits, t)

    report = whynan.check(loss, t=binary(4))
    assert report.domain["logits"].assumed
    assert [(f.cause, f.severity) for f in report.findings if f.kind == "contract"] == [("logits-as-probabilities", "warning")]


def test_a_loss_that_refuses_logits_says_so_with_its_own_words():
    one = only(F.binary_cross_entropy, "logits-as-probabilities", input=logit(4), target=binary(4))
    assert one.severity == "error" and "between 0 and 1" in one.message and not one.witness.loss.size


@pytest.mark.parametrize(
    ("loss", "domains"),
    [
        (clamped, {"p": prob(4), "t": binary(4)}),
        (clamped, {"p": real(4, low=0.2, high=0.8), "t": prob(4)}),
        (each_log_guarded, {"p": prob(4), "t": binary(4)}),
        (categorical, {"p": simplex(4, 3), "t": onehot(4, 3)}),
        (lambda x, t: clamped(torch.sigmoid(x), t), {"x": logit(4), "t": binary(4)}),
        (lambda v, x: (torch.log(v.clamp(1e-6, 1.0)) + x**2 / v.clamp(1e-6, 1.0)).mean(), {"v": nonnegative(4), "x": prob(4)}),
        (lambda a, b: -torch.log((a / (a + b + 1)).clamp(1e-6, 1 - 1e-6)).mean(), {"a": nonnegative(4), "b": nonnegative(4)}),
        (lambda x: x.clamp(0, 1).mean(), {"x": real(4)}),
    ],
    ids=["probabilities", "inside", "guarded", "simplex", "sigmoid", "variance", "ratio", "image"],
)
def test_probabilities_and_other_clamps_are_no_alarm(loss, domains):
    assert found(loss, **domains) == []


def test_what_the_name_does_not_tell_is_not_taken_for_logits():
    def loss(a, t):
        return clamped(a, t)

    assert found(loss, t=binary(4)) == []


# ---------------------------------------------------------------- softmax twice


@pytest.mark.parametrize(
    ("loss", "domains", "op"),
    [
        (lambda x, t: F.cross_entropy(torch.softmax(x, -1), t), {"x": logit(4, 3), "t": classes(3, 4)}, "softmax"),
        (lambda x, t: F.cross_entropy(torch.sigmoid(x), t), {"x": logit(4, 3), "t": classes(3, 4)}, "softmax"),
        (lambda x, t: F.binary_cross_entropy_with_logits(torch.sigmoid(x), t), {"x": logit(4), "t": binary(4)}, "sigmoid"),
        (lambda x, t: F.nll_loss(torch.log(torch.softmax(torch.softmax(x, -1), -1)), t), {"x": logit(4, 3), "t": classes(3, 4)}, "softmax"),
        (lambda p, t: F.cross_entropy(p, t), {"p": simplex(4, 3), "t": classes(3, 4)}, "softmax"),
        (lambda p, t: F.binary_cross_entropy_with_logits(p, t), {"p": prob(4), "t": binary(4)}, "sigmoid"),
        (lambda x, t: F.cross_entropy(torch.softmax(x, -1).clamp(1e-6, 1), t), {"x": logit(4, 3), "t": classes(3, 4)}, "softmax"),
    ],
)
def test_a_probability_taken_for_a_logit_is_a_warning(loss, domains, op):
    one = only(loss, "double-softmax", **domains)
    assert (one.severity, one.op) == ("warning", op)
    assert np.isfinite(one.witness.loss)


def test_the_message_has_measured_numbers():
    one = only(lambda p, t: F.binary_cross_entropy_with_logits(p, t), "double-softmax", p=prob(4), t=binary(4))
    assert "0.7311" in one.message  # sigmoid(1)


def focal(x, t):
    ce = F.cross_entropy(x, t, reduction="none")
    weight = 1 - torch.softmax(x, -1).gather(-1, t[:, None])[:, 0]
    return (weight**2 * ce).mean()


def distilled(student, teacher):
    return F.kl_div(F.log_softmax(student / 4, -1), torch.softmax(teacher, -1), reduction="batchmean")


def attention(q, k, v, t):
    return F.cross_entropy(torch.softmax(q @ k.T, -1) @ v, t)


@pytest.mark.parametrize(
    ("loss", "domains"),
    [
        (F.cross_entropy, {"input": logit(4, 3), "target": classes(3, 4)}),
        (lambda x, t: F.cross_entropy(F.log_softmax(x, -1), t), {"x": logit(4, 3), "t": classes(3, 4)}),
        (lambda x, t: F.nll_loss(F.log_softmax(x, -1), t), {"x": logit(4, 3), "t": classes(3, 4)}),
        (focal, {"x": logit(4, 3), "t": classes(3, 4)}),
        (distilled, {"student": logit(4, 3), "teacher": simplex(4, 3)}),
        (lambda x: torch.logsumexp(torch.sigmoid(x), -1).mean(), {"x": logit(4, 3)}),
        (lambda x: F.cross_entropy(10 * torch.sigmoid(x), torch.zeros(4, dtype=torch.long)), {"x": logit(4, 3)}),
    ],
    ids=["cross entropy", "log_softmax twice", "nll", "focal", "distillation", "pooling of probabilities", "temperature"],
)
def test_softmax_where_it_belongs_is_no_alarm(loss, domains):
    assert found(loss, **domains) == []


def test_attention_before_a_classifier_is_no_alarm():
    domains = {"q": real(4, 2, low=-3, high=3), "k": real(5, 2, low=-3, high=3), "v": real(5, 3, low=-3, high=3)}
    assert found(attention, **domains, t=classes(3, 4)) == []


# ---------------------------------------------------------------- targets out of range


@pytest.mark.parametrize(("low", "high", "bad"), [(0, 3, 3), (-1, 2, -1), (0, 255, 255)])
def test_a_label_without_a_class_is_an_error_where_the_framework_raises(low, high, bad):
    one = only(F.cross_entropy, "target-out-of-range", input=logit(4, 3), target=integers(low, high, 4))
    assert one.severity == "error" and f"target may be {bad}, but this expression has 3 classes" in one.message
    assert bad in one.witness.inputs["target"]


def test_labels_that_are_marked_to_be_ignored_are_no_alarm():
    def loss(x, t):
        return F.cross_entropy(x, t, ignore_index=-1, reduction="sum")

    assert found(loss, x=logit(4, 3), t=integers(-1, 2, 4)) == []
    assert found(loss, x=logit(4, 3), t=classes(3, 4)) == []


def test_a_loss_that_never_runs_on_its_labels_names_the_labels():
    one = only(F.cross_entropy, "target-out-of-range", input=logit(40, 3), target=integers(3, 9, 40, grad=False))
    assert one.severity == "error"


@pytest.mark.parametrize("loss", [F.binary_cross_entropy_with_logits, lambda input, target: clamped(torch.sigmoid(input), target)])
def test_targets_below_zero_make_a_cross_entropy_negative(loss):
    one = only(loss, "target-out-of-range", input=logit(4), target=real(4, low=-1, high=1, grad=False))
    assert one.severity == "warning" and one.witness.loss < 0


@pytest.mark.parametrize("target", [binary(4), prob(4)])
def test_targets_between_0_and_1_are_no_alarm(target):
    assert found(F.binary_cross_entropy_with_logits, input=logit(4), target=target) == []


def test_an_advantage_may_be_negative():
    assert found(lambda x, a: -(a * F.logsigmoid(x)).mean(), x=logit(4), a=real(4, low=-1, high=1, grad=False)) == []


# ---------------------------------------------------------------- hidden and cut off


@pytest.mark.parametrize(
    "loss",
    [
        lambda p: torch.nan_to_num(torch.log(p), 0.0, 0.0, 0.0).mean(),
        lambda p: torch.where(torch.isfinite(x := torch.log(p)), x, 0.0).mean(),
        lambda p: torch.where(~torch.isinf(x := torch.log(p)), x, torch.zeros_like(x)).mean(),
    ],
)
def test_a_nan_that_is_replaced_is_told_beside_its_gradient(loss):
    one = only(loss, "nan-hidden-after-the-fact", p=prob(4))
    assert one.op in ("nan_to_num", "where") and one.severity == "warning"
    assert np.isfinite(one.witness.loss) and not np.isfinite(one.witness.gradients["p"]).all()


def test_a_replacement_of_what_is_always_finite_hides_nothing():
    assert found(lambda p: torch.nan_to_num(torch.log(p + 1)).mean(), p=prob(4)) == []


@pytest.mark.parametrize(
    ("loss", "op"),
    [
        (lambda p, t: (((p > 0.5).float() - t) ** 2).mean(), "gt"),
        (lambda p, t: ((torch.round(p) - t) ** 2).mean(), "round"),
        (lambda p, t: (((p * 4).long() - t) ** 2).float().mean(), "cast"),
        (lambda p, t: ((p.detach() - t) ** 2).mean() + 0 * torch.zeros((), requires_grad=True), "sub"),
    ],
    ids=["threshold", "round", "integers", "detach"],
)
def test_a_loss_without_a_gradient_says_where_it_is_cut(loss, op):
    one = only(loss, "gradient-detached", p=prob(4), t=binary(4))
    assert one.op == op and one.site is not None and not one.witness.gradients.get("p", np.zeros(1)).any()


def test_numpy_in_the_loss_is_named_where_it_cuts_and_where_it_raises():
    def cut(p, t):
        return torch.as_tensor(np.log(p.detach().numpy() + 1)).mean() + t.mean()

    assert only(cut, "numpy-in-graph", p=prob(4), t=binary(4)).site.text == "p.detach().numpy()"
    one = only(lambda p, t: torch.as_tensor(np.log(p + 1)).mean(), "numpy-in-graph", p=prob(4), t=binary(4))
    assert (one.severity, one.site.text) == ("error", "np.log(p + 1)")


def test_one_input_of_several_may_be_detached_on_purpose():
    assert found(lambda x, y: (x * y.detach()).mean(), x=real(3, low=-1, high=1), y=real(3)) == []
    assert found(lambda x, m: (x * (m > 0).float()).mean(), x=real(3, low=-1, high=1), m=real(3)) == []


def test_a_gradient_that_was_asked_for_and_is_cut_is_told():
    one = only(lambda x, y: (x * y.detach()).mean(), "gradient-detached", x=real(3, low=-1, high=1), y=real(3, grad=True))
    assert "by y is missing" in one.message


# ---------------------------------------------------------------- functions that do not exist


@pytest.mark.parametrize(
    ("loss", "missing", "instead"),
    [
        (lambda p: torch.is_nan(p).mean(), "is_nan", "torch.isnan"),
        (lambda p: torch.reduce_mean(p), "reduce_mean", "torch.mean"),
        (lambda p: F.clip_by_value(p, 0, 1).mean(), "clip_by_value", "torch.clamp"),
        (lambda p: torch.log1pp(p).mean(), "log1pp", "torch.log1p"),
    ],
)
def test_a_function_that_does_not_exist_is_an_error_that_names_one_that_does(loss, missing, instead):
    for domains in ({"p": prob(4)}, {}):  # the domains do not matter
        one = only(loss, "no-such-function", **domains)
        assert (one.severity, one.op) == ("error", missing) and instead in one.message
        assert one.site is not None and missing in one.site.text


def test_a_missing_name_of_the_users_own_is_no_finding():
    import types

    own = types.ModuleType("own")
    with pytest.raises(whynan.errors.TargetError, match="module 'own' has no attribute 'f'"):
        whynan.check(lambda p: own.f(p), p=prob(4))


# ---------------------------------------------------------------- in reports


def test_errors_count_for_the_exit_code_and_warnings_do_not():
    assert exit_code(whynan.check(clamped, p=logit(4), t=binary(4))) == 1
    assert exit_code(whynan.check(lambda p, t: F.binary_cross_entropy_with_logits(p, t), p=prob(4), t=binary(4))) == 0


@pytest.mark.parametrize("loss", [clamped, F.binary_cross_entropy, lambda p, t: torch.is_nan(p).mean()])
def test_every_format_shows_the_finding(loss, tmp_path):
    names = ("p", "t") if loss is not F.binary_cross_entropy else ("input", "target")
    report = whynan.check(loss, **dict(zip(names, (logit(4), binary(4)), strict=True)))
    assert report.findings[0].kind == "contract"
    cause = report.findings[0].cause
    assert f"error[{cause}]" in str(report)
    assert cause in str(report.to_sarif())
    report.to_html(tmp_path / "r.html")
    assert cause in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert report.to_dict()["findings"][0]["witness"]["inputs"]


def test_a_report_without_a_recorded_program_claims_nothing():
    report = whynan.check(lambda p: torch.is_nan(p).mean(), p=prob(4))
    assert report.verdict == "undecided" and report.sites["total"] == 0
    assert "it raises" in str(report)
