"""Safe ranges: known limits, both ends checked by real runs, what has no range, and the same answer every time."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import whynan
from whynan.analysis.finding import Report, SafeRange
from whynan.domain import sample
from whynan.ir.dtype import FORMATS, next_up


def ranges(loss: Callable[..., Any], envelope: Any = True, **domains: Any) -> tuple[Report, dict[tuple[str, str], SafeRange]]:
    """The report and its ranges by inputs and dtype."""
    report = whynan.check(loss, envelope=envelope, **domains)
    return report, {(",".join(r.inputs), r.dtype): r for r in report.safe_ranges}


def squared_error(p, t):
    return torch.mean((p - t) ** 2)


def exponential(x):
    return torch.exp(x).sum()


def softplus_by_hand(x):
    return torch.log(1 + torch.exp(x)).mean()


# ---------------------------------------------------------------- known limits


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1.8446743e19), ("float16", 255.5), ("float64", 1.3407807929942596e154)])
def test_the_squared_error_of_one_number_is_finite_up_to_the_root_of_the_largest(dtype: str, limit: float) -> None:
    target = whynan.real(low=-0.25, high=0.25)
    report, found = ranges(squared_error, [dtype], p=whynan.real(), t=target)
    assert report.envelope["p"][dtype] == pytest.approx(limit, rel=2e-3)
    assert found["p", dtype].failing == float(next_up(FORMATS[dtype], report.envelope["p"][dtype]))


def test_a_sum_over_more_elements_leaves_less_room() -> None:
    report, _ = ranges(squared_error, p=whynan.real(16), t=whynan.real(16, low=-1, high=1))
    assert report.envelope["p"]["float32"] == pytest.approx((np.finfo(np.float32).max / 16) ** 0.5, rel=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("loss", [exponential, softplus_by_hand])
def test_an_exponential_is_finite_up_to_the_logarithm_of_the_largest(loss: Callable[..., Any], dtype: str) -> None:
    report, found = ranges(loss, [dtype], x=whynan.real(1))
    largest = FORMATS[dtype].max
    assert report.envelope["x"][dtype] <= np.log(largest) <= found["x", dtype].failing
    assert found["x", dtype].failing == float(next_up(FORMATS[dtype], report.envelope["x"][dtype]))


def test_what_cannot_overflow_is_finite_for_every_number() -> None:
    report, found = ranges(lambda x: torch.tanh(x).mean(), "all", x=whynan.real(4))
    assert {d: FORMATS[d].max for d in ("float32", "float64", "float16", "bfloat16")} == report.envelope["x"]
    assert all(r.whole and r.witness is None for r in found.values())


# ---------------------------------------------------------------- what is asked, what has a range


def test_nothing_is_told_unasked() -> None:
    report = whynan.check(exponential, x=whynan.real(2))
    assert report.envelope == {} and report.safe_ranges == ()


def test_the_checked_dtype_is_the_default() -> None:
    report, _ = ranges(exponential, x=whynan.real(2, dtype="float64"))
    assert list(report.envelope["x"]) == ["float64"]


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(whynan.errors.DomainError):
        whynan.check(exponential, envelope="int64", x=whynan.real(2))


def test_inputs_that_are_bounded_by_what_they_mean_have_no_range() -> None:
    def loss(p, t, w, x):
        return (w * (p - t) ** 2 + x).mean()

    report, _ = ranges(loss, p=whynan.prob(3), t=whynan.binary(3), w=whynan.const([1.0, 2.0, 3.0]), x=whynan.real(3))
    assert list(report.envelope) == ["x"]


def test_a_loss_that_fails_at_zero_has_no_range_but_a_witness() -> None:
    report, found = ranges(lambda x: torch.sqrt(x).sum(), x=whynan.nonnegative(3))
    assert report.envelope == {}
    told = found["x", "float32"]
    assert told.proven is None and told.failing == 0 and told.reason
    assert not np.isfinite(told.witness.gradients["x"]).all()


def test_a_range_keeps_the_side_and_the_inner_end_of_its_domain() -> None:
    report, found = ranges(lambda x: (1e30 * x).sum() + (1 / x).sum(), x=whynan.real(2, low=0.5, high=2))
    assert report.envelope["x"]["float32"] == pytest.approx(np.finfo(np.float32).max / 2e30, rel=1e-3)
    assert (found["x", "float32"].witness.inputs["x"] >= 0.5).all()
    below, _ = ranges(lambda x: (1e30 * x).sum() + (1 / x).sum(), x=whynan.real(2, low=-2, high=-0.5))
    assert below.envelope == report.envelope


def test_where_the_other_input_fails_by_itself_all_are_varied_together() -> None:
    report, found = ranges(squared_error, ["float16"], p=whynan.real(4), t=whynan.real(4))
    assert report.envelope == {}
    assert found["p", "float16"].failing == 0
    assert found["p,t", "float16"].proven == 127.875 and found["p,t", "float16"].failing == 128


def test_a_range_ends_where_the_code_takes_another_path() -> None:
    def loss(x):
        return (x * 1e38 * 10).sum() if x.max() > 50 else x.sum()

    report, _ = ranges(loss, x=whynan.real(3, low=-1, high=1))
    assert report.envelope["x"]["float32"] <= 50


def test_code_that_looks_at_values_has_no_range() -> None:
    def loss(x):
        return x.sum() * float(x.detach().numpy().max())

    report, found = ranges(loss, x=whynan.real(3, low=-1, high=1))
    assert report.envelope == {} and "another path" in found["x", "float32"].reason


def test_a_dtype_in_which_the_loss_raises_is_told() -> None:
    def loss(x):
        if x.dtype == torch.float16:
            raise RuntimeError("not implemented for Half")
        return x.mean()

    report, found = ranges(loss, ["float16", "float32"], x=whynan.real(3))
    assert list(report.envelope["x"]) == ["float32"]
    assert "not implemented for Half" in found["x", "float16"].reason


def test_an_envelope_is_what_holds_in_every_mode() -> None:
    from whynan.analysis.envelope import envelope_of

    def made(mode: str, proven: float | None) -> SafeRange:
        return SafeRange(("x",), "float32", mode, proven)

    assert envelope_of((made("eager", 3.0), made("compile", 2.0))) == {"x": {"float32": 2.0}}
    assert envelope_of((made("eager", 3.0), made("compile", None))) == {}


# ---------------------------------------------------------------- both ends are real

LOSSES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "squared error": (squared_error, {"p": whynan.real(3), "t": whynan.real(3, low=-5, high=5)}),
    "softplus": (softplus_by_hand, {"x": whynan.logit(3)}),
    "log sum exp": (lambda x: torch.log(torch.exp(x).sum(-1)).sum(), {"x": whynan.logit(2, 3)}),
    "cross entropy": (lambda x, t: F.cross_entropy(x, t), {"x": whynan.logit(3, 4), "t": whynan.classes(4, 3)}),
    "with logits": (F.binary_cross_entropy_with_logits, {"input": whynan.logit(3), "target": whynan.binary(3)}),
    "cosine": (lambda x, y: 1 - F.cosine_similarity(x, y).mean(), {"x": whynan.real(2, 3), "y": whynan.real(2, 3)}),
    "distance": (lambda x, y: (x - y).pow(2).sum(-1).add(1e-6).sqrt().mean(), {"x": whynan.real(2, 3), "y": whynan.real(2, 3)}),
    "normal": (
        lambda m, s, t: (0.5 * (s + (t - m) ** 2 * torch.exp(-s))).mean(),
        {"m": whynan.real(3, low=-3, high=3), "s": whynan.real(3, low=-5, high=5), "t": whynan.real(3, low=-3, high=3)},
    ),
    "quotient": (lambda x: (x / (x.abs() + 1e-3)).mean(), {"x": whynan.real(3)}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_no_run_within_a_proven_range_fails_and_the_witness_beyond_does(name: str) -> None:
    loss, domains = LOSSES[name]
    report, _ = ranges(loss, ["float32", "float16"], **domains)
    rng = np.random.default_rng(1)
    assert report.safe_ranges
    for r in report.safe_ranges:
        if r.proven is not None:
            assert_finite_within(loss, domains, r, rng)
        if r.witness is not None:
            assert r.failing == max(np.abs(r.witness.inputs[n].astype(np.float64)).max() for n in r.inputs)
            assert r.proven is None or r.failing > r.proven
            assert fails(loss, r.witness.inputs, [n for n, d in domains.items() if d.grad])


def assert_finite_within(loss: Callable[..., Any], domains: dict[str, Any], r: SafeRange, rng: np.random.Generator) -> None:
    """Many real runs at and near the proven end."""
    narrow = {n: whynan.domain.spec.retyped(d, r.dtype) for n, d in domains.items()}
    narrow |= {n: narrow[n].but(low=-r.proven if narrow[n].low < 0 else min(narrow[n].low, r.proven), high=r.proven) for n in r.inputs}
    edges = {n: sample.corners(d) for n, d in narrow.items()}
    wrt = [n for n, d in domains.items() if d.grad]
    for k in range(250):
        inputs = {n: edges[n][rng.integers(len(edges[n]))] if k % 3 else sample.draw(d, rng) for n, d in narrow.items()}
        if k % 3 == 1:
            inputs |= {n: sample.mosaic(narrow[n], rng) for n in r.inputs}
        assert not fails(loss, inputs, wrt), (r, inputs)


def fails(loss: Callable[..., Any], inputs: Any, wrt: list[str]) -> bool:
    """Whether PyTorch gives a non-finite loss or gradient there."""
    tensors = {n: torch.from_numpy(np.array(v)) for n, v in inputs.items()}
    for n in wrt:
        tensors[n].requires_grad_()
    out = loss(**tensors)
    out.sum().backward()
    found = [out, *(tensors[n].grad for n in wrt if tensors[n].grad is not None)]
    return not all(bool(torch.isfinite(v).all()) for v in found)


def test_the_same_question_has_the_same_answer() -> None:
    one, other = (ranges(LOSSES["normal"][0], ["float32"], **LOSSES["normal"][1])[1] for _ in range(2))
    assert {k: (r.proven, r.failing) for k, r in one.items()} == {k: (r.proven, r.failing) for k, r in other.items()}
    for k, r in one.items():
        if r.witness is not None:
            assert all(np.array_equal(v, other[k].witness.inputs[n]) for n, v in r.witness.inputs.items())


def test_a_planted_unsound_bound_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    import whynan.analysis.envelope as envelope

    honest = envelope._bounded
    monkeypatch.setattr(envelope, "_bounded", lambda q, place, refine: honest(q, max(place - (1 << 23), q.first), refine))
    monkeypatch.setattr(envelope, "_contradicted", lambda q, place: None)
    report, _ = ranges(squared_error, p=whynan.real(3), t=whynan.real(3, low=-5, high=5))  # twice as wide as it should be
    for r in report.safe_ranges:
        with pytest.raises(AssertionError):
            assert_finite_within(squared_error, LOSSES["squared error"][1], r, np.random.default_rng(1))


# ---------------------------------------------------------------- other frameworks


@pytest.mark.slow
def test_each_mode_has_its_own_limit_and_the_envelope_is_the_smallest() -> None:
    jnp = pytest.importorskip("jax.numpy")
    report = whynan.check(
        lambda x: jnp.log(1 + jnp.exp(x)).mean(), framework="jax", modes="all", envelope=["float16", "float64"], x=whynan.logit(3)
    )
    assert {(r.mode, r.dtype) for r in report.safe_ranges} == {(m, d) for m in ("jit", "eager") for d in ("float16", "float64")}
    assert report.envelope["x"] == {"float16": 11.0859375, "float64": pytest.approx(np.log(np.finfo(np.float64).max))}


@pytest.mark.slow
def test_a_mean_that_adds_up_in_half_precision_leaves_less_room() -> None:
    tf = pytest.importorskip("tensorflow")
    target = whynan.real(8, low=-1, high=1)
    report = whynan.check(lambda p, t: tf.reduce_mean((p - t) ** 2), framework="tensorflow", envelope="float16", p=whynan.real(8), t=target)
    assert report.envelope["p"]["float16"] == pytest.approx((65504 / 8) ** 0.5 - 1, rel=1e-2)


def test_a_run_that_contradicts_the_proof_takes_the_range_away(monkeypatch: pytest.MonkeyPatch) -> None:
    import whynan.analysis.envelope as envelope

    honest = envelope._bounded
    monkeypatch.setattr(envelope, "_bounded", lambda q, place, refine: honest(q, max(place - (1 << 23), q.first), refine))
    report, found = ranges(squared_error, p=whynan.real(3), t=whynan.real(3, low=-5, high=5))
    assert report.envelope == {} and "does not run as recorded" in found["p", "float32"].reason


# ---------------------------------------------------------------- the reports


def test_one_sentence_per_input_in_text_and_html() -> None:
    report, _ = ranges(squared_error, ["float32", "float16"], p=whynan.real(), t=whynan.real(low=-0.25, high=0.25))
    assert "for |p| <= 1.844e+19 in float32; at |p| = 1.845e+19 the loss can be infinite" in " ".join(str(report).split())
    assert "for |p| &lt;= 255.625 in float16" in report._repr_html_()


def test_the_json_has_both_ends_with_the_witness() -> None:
    report, found = ranges(exponential, x=whynan.real(1))
    data = report.to_dict()
    assert data["envelope"] == {"x": {"float32": found["x", "float32"].proven}}
    (told,) = data["safe_ranges"]
    assert (told["inputs"], told["dtype"], told["mode"], told["whole"]) == (["x"], "float32", "eager", False)
    assert told["proven"] < told["failing"] == told["witness"]["inputs"]["x"][0]
    assert "torch" in told["witness"]["script"]


def test_no_digit_that_is_shown_overstates() -> None:
    from whynan.report._ranges import _safe_range

    shown = ((1.9999999999, "1.999"), (88.72283172607422, "88.72"), (255.875, "255.875"), (1.8446742974197924e19, "1.844e+19"))
    for proven, text in shown:
        assert f"for |x| <= {text} in" in _safe_range(SafeRange(("x",), "float64", "eager", proven))
        assert float(text) <= proven
