"""The gallery: its expectations hold on the real frameworks, and whynan reaches them."""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
GALLERY = ROOT / "examples" / "gallery"
STEEP = 1e6  # the limit of the exploding-gradient warning


def module_at(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"gallery_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


evidence = module_at(Path(__file__).with_name("evidence.py"))
summary = module_at(GALLERY / "summary.py")
MODULES = {summary.stem(path): summary.load(path) for path in summary.files() if summary.folder(summary.stem(path)) != "keras_losses"}
if os.environ.get("KERAS_BACKEND", summary.KERAS_BACKEND) == summary.KERAS_BACKEND:
    MODULES |= {summary.stem(path): summary.load(path) for path in summary.files() if summary.folder(summary.stem(path)) == "keras_losses"}


def cases(verdict: str | None = None) -> list[Any]:
    return [
        pytest.param(name, function, dtype, id=f"{name}-{function}-{dtype}", marks=[pytest.mark.slow] if "/" in name else [])
        for name, module in MODULES.items()
        for function, expected in module.EXPECTED.items()
        for dtype, (said, _) in expected.items()
        if verdict in (None, said)
    ]


def witness(module: ModuleType, function: str, dtype: str) -> Any:
    values = module.WITNESS[function]
    values = values.get(dtype, values)
    boxes = {name: evidence.box(text) for name, text in module.DOMAINS.items()}
    return {name: evidence.array(b, values[name], dtype) for name, b in boxes.items()}


def run(name: str, function: str, inputs: Any, mode: str | None = None) -> Any:
    module = MODULES[name]
    mode = mode or summary.modes_of(name, module)[0]
    return evidence.run(summary.GROUPS[summary.folder(name)].framework, getattr(module, function), inputs, mode)


# ---------------------------------------------------------------- the evidence, without whynan


@pytest.mark.parametrize(("stem", "function", "dtype"), cases("unsafe"))
def test_the_witness_of_an_unsafe_loss_fails_in_the_framework(stem, function, dtype):
    module = MODULES[stem]
    inputs = witness(module, function, dtype)
    failing = {mode for mode in summary.modes_of(stem, module) if evidence.fails(run(stem, function, inputs, mode))}
    assert failing == set(summary.expected(stem, module, function, dtype)[2])


@pytest.mark.parametrize(("stem", "function", "dtype"), cases("unsafe"))
def test_a_loss_that_fails_in_some_modes_is_finite_in_the_others(stem, function, dtype):
    module = MODULES[stem]
    others = set(summary.modes_of(stem, module)) - set(summary.expected(stem, module, function, dtype)[2])
    tried = list(evidence.samples(module.DOMAINS, dtype, 40 if others else 0))
    assert [(mode, x) for mode in others for x in tried if evidence.fails(run(stem, function, x, mode))] == []


@pytest.mark.parametrize(("stem", "function", "dtype"), cases("safe"))
def test_a_safe_loss_is_finite_and_as_steep_as_it_says(stem, function, dtype):
    module = MODULES[stem]
    tried = list(evidence.samples(module.DOMAINS, dtype, 40))
    outcomes = [(mode, x, run(stem, function, x, mode)) for mode in summary.modes_of(stem, module) for x in tried]
    assert [(mode, x) for mode, x, outcome in outcomes if evidence.fails(outcome)] == []
    says_steep = "steep-gradient" in getattr(module, "WARNINGS", {}).get(function, {}).get(dtype, ())
    assert any(evidence.steepest(outcome) > STEEP for _, _, outcome in outcomes) == says_steep


@pytest.mark.parametrize("stem", MODULES)
def test_a_file_is_complete(stem):
    module = MODULES[stem]
    assert all(word in module.__doc__ for word in ("What people write:", "What they ask:", "Published:", "Measured:"))
    assert "loss" in module.EXPECTED
    for function, expected in module.EXPECTED.items():
        assert tuple(expected) == summary.FORMATS
        assert all(cause is not None for verdict, cause in expected.values() if verdict == "unsafe")
        assert all(cause in (None, "logits-as-probabilities") for verdict, cause in expected.values() if verdict != "unsafe")
        assert callable(getattr(module, function))


def test_the_sampler_stays_inside_the_domain():
    domains = {"x": "real(3, 2, low=-0.3, high=0.7)", "c": "classes(4, 5)", "u": "unit(4, 3)", "s": "simplex(4, 3)", "m": "mask(5)"}
    domains["o"] = "onehot(4, 3)"
    for x in evidence.samples(domains, "bfloat16", 30):
        wide = {name: value.astype(np.float64) for name, value in x.items()}
        assert wide["x"].min() >= -0.3
        assert wide["x"].max() <= 0.7
        assert set(x["c"].tolist()) <= {0, 1, 2, 3}
        assert abs(np.linalg.norm(wide["u"], axis=-1) - 1).max() < 0.02
        assert abs(wide["s"].sum(-1) - 1).max() < 0.02
        assert x["m"].dtype == np.bool_
        assert (wide["o"].sum(-1).tolist(), set(wide["o"].flat)) == ([1] * 4, {0, 1})


def log_sum(x):
    return x.log().sum()


def distance(a, b):
    return ((a - b) ** 2).sum().sqrt()


@pytest.mark.parametrize(("loss", "domains"), [(log_sum, {"x": "prob(4)"}), (distance, {"a": "real(4)", "b": "real(4)"})])
def test_the_sampler_finds_a_failure_at_a_corner_and_between(loss, domains):
    pytest.importorskip("torch")
    assert any(evidence.fails(evidence.run("torch", loss, x, "eager")) for x in evidence.samples(domains, "float32", 40))


@pytest.mark.parametrize(
    ("framework", "modes"), [("torch", ["eager"]), ("tensorflow", ["eager", "function", "xla"]), ("jax", ["jit", "eager"])]
)
def test_the_runs_give_loss_and_gradients(framework, modes):
    pytest.importorskip(framework)
    inputs = {"p": np.array([2, 3], np.float32), "t": np.array([5, 7], np.float32), "n": np.array([1, 1], np.float32)}
    for mode in modes:
        value, gradients = evidence.run(framework, lambda p, t, n: p * p * t, inputs, mode)
        assert value.tolist() == [20, 63]
        assert {name: g.tolist() for name, g in gradients.items()} == {"p": [20, 42], "n": [0, 0]}


def test_the_sampler_names_a_domain_it_does_not_know():
    with pytest.raises(ValueError, match="no sampler"):
        evidence.box("octonion(3)")


@pytest.mark.parametrize(("function", "right"), [("wrong", False), ("repaired", True)])
def test_a_custom_gradient_against_finite_differences(function, right):
    torch = pytest.importorskip("torch")
    loss = getattr(MODULES["custom_gradient"], function)
    x = torch.linspace(-3, 3, 8, dtype=torch.float64).reshape(8, 1).requires_grad_()
    assert torch.autograd.gradcheck(loss, (x,), raise_exception=False) is right


def test_a_clamped_loss_has_no_gradient_where_the_true_one_is_large():
    pytest.importorskip("torch")
    far = {"p": np.zeros((8, 1), np.float32), "t": np.full((8, 1), 1000, np.float32)}
    for stem in ("exponential_error", "squared_error"):
        assert evidence.steepest(run(stem, "repaired", far)) == 0
    assert evidence.steepest(run("squared_error", "huber", far)) > 0


def test_an_epsilon_on_softmax_loses_the_gradient_of_the_worst_mistakes():
    pytest.importorskip("torch")
    inputs = {"x": np.array([[100, -100, -100, -100]] * 8, np.float32), "t": np.ones(8, np.int64)}
    assert evidence.steepest(run("log_of_softmax", "epsilon", inputs)) == 0
    assert evidence.steepest(run("log_of_softmax", "repaired", inputs)) == pytest.approx(1 / 8)


def test_the_two_hinges_differ_at_the_tie_only():
    pytest.importorskip("torch")
    inputs = {"s": np.array([[0.5], [1], [2]], np.float32), "y": np.ones((3, 1), np.float32)}
    by_max, by_relu = (run("hinge", function, inputs)[1]["s"].flatten() * 3 for function in ("loss", "repaired"))
    assert by_max.tolist() == pytest.approx([-1.0, -0.5, 0.0])
    assert by_relu.tolist() == pytest.approx([-1.0, 0.0, 0.0])


# ---------------------------------------------------------------- whynan against the evidence


@pytest.fixture(scope="module")
def answers() -> dict[tuple[str, str, str], Any]:
    return {}


def report_on(answers, stem, function, dtype):
    whynan = pytest.importorskip("whynan")
    key = (stem, function, dtype)
    if key not in answers:
        module = MODULES[stem]
        group = summary.GROUPS[summary.folder(stem)]
        modes = summary.modes_of(stem, module)
        loss = getattr(module, function)
        answers[key] = whynan.check(loss, domains=module.DOMAINS, dtype=dtype, framework=group.framework, modes=modes)
    return answers[key]


@pytest.mark.slow
@pytest.mark.parametrize(("stem", "function", "dtype"), cases())
def test_whynan_reaches_the_expected_answer(answers, stem, function, dtype):
    report = report_on(answers, stem, function, dtype)
    assert summary.answered(report) == summary.expected(stem, MODULES[stem], function, dtype)


@pytest.mark.slow
@pytest.mark.parametrize(("stem", "function", "dtype"), cases("safe"))
def test_whynan_gives_the_expected_warnings(answers, stem, function, dtype):
    report = report_on(answers, stem, function, dtype)
    expected = getattr(MODULES[stem], "WARNINGS", {}).get(function, {}).get(dtype, ())
    assert set(expected) <= {f.cause for f in report.findings if f.severity != "error"}


@pytest.mark.slow
@pytest.mark.skipif(len(MODULES) < len(list(GALLERY.rglob("[a-z]*.py"))) - 1, reason="the table takes all frameworks")
def test_the_table_of_the_readme_is_current(answers):
    table = [
        summary.row(name, module, function, {f: summary.answered(report_on(answers, name, function, f)) for f in summary.FORMATS})
        for name, module in MODULES.items()
        for function in module.EXPECTED
    ]
    shown = summary.between_markers(summary.README.read_text(encoding="utf-8"))
    assert sorted(shown.splitlines()) == sorted(summary.markdown(table).splitlines())  # folders come in the order of the file system
