"""The gallery: its expectations hold on real PyTorch, and whynan reaches them."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

torch = pytest.importorskip("torch")

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
MODULES = {path.stem: summary.load(path) for path in summary.files()}


def cases(verdict: str | None = None) -> list[Any]:
    return [
        pytest.param(stem, function, dtype, id=f"{stem}-{function}-{dtype}")
        for stem, module in MODULES.items()
        for function, expected in module.EXPECTED.items()
        for dtype, (said, _) in expected.items()
        if verdict in (None, said)
    ]


def witness(module: ModuleType, function: str, dtype: str) -> Any:
    values = module.WITNESS[function]
    values = values.get(dtype, values)
    boxes = {name: evidence.box(text) for name, text in module.DOMAINS.items()}
    return {name: evidence.tensor(b, values[name], getattr(torch, dtype)) for name, b in boxes.items()}


# ---------------------------------------------------------------- the evidence, without whynan


@pytest.mark.parametrize(("stem", "function", "dtype"), cases("unsafe"))
def test_the_witness_of_an_unsafe_loss_fails_in_pytorch(stem, function, dtype):
    module = MODULES[stem]
    assert evidence.fails(getattr(module, function), witness(module, function, dtype))


@pytest.mark.parametrize(("stem", "function", "dtype"), cases("safe"))
def test_a_safe_loss_is_finite_and_as_steep_as_it_says(stem, function, dtype):
    module = MODULES[stem]
    loss = getattr(module, function)
    tried = list(evidence.samples(module.DOMAINS, getattr(torch, dtype), 40))
    assert [x for x in tried if evidence.fails(loss, x)] == []
    says_steep = "steep-gradient" in getattr(module, "WARNINGS", {}).get(function, {}).get(dtype, ())
    assert any(evidence.steepest(loss, x) > STEEP for x in tried) == says_steep


@pytest.mark.parametrize("stem", MODULES)
def test_a_file_is_complete(stem):
    module = MODULES[stem]
    assert all(word in module.__doc__ for word in ("What people write:", "What they ask:", "Published:", "Measured:"))
    assert "loss" in module.EXPECTED
    for function, expected in module.EXPECTED.items():
        assert tuple(expected) == summary.FORMATS
        assert all((verdict == "unsafe") == (cause is not None) for verdict, cause in expected.values())
        assert callable(getattr(module, function))


def test_the_sampler_stays_inside_the_domain():
    domains = {"x": "real(3, 2, low=-0.3, high=0.7)", "c": "classes(4, 5)", "u": "unit(4, 3)", "s": "simplex(4, 3)", "m": "mask(5)"}
    for x in evidence.samples(domains, torch.bfloat16, 30):
        assert float(x["x"].double().min()) >= -0.3
        assert float(x["x"].double().max()) <= 0.7
        assert set(x["c"].tolist()) <= {0, 1, 2, 3}
        assert float((x["u"].double().norm(dim=-1) - 1).abs().max()) < 0.02
        assert float((x["s"].double().sum(-1) - 1).abs().max()) < 0.02
        assert x["m"].dtype == torch.bool


def test_the_sampler_finds_a_failure_at_a_corner_and_between():
    at_zero = {"p": "prob(4)"}
    assert any(evidence.fails(lambda p: torch.log(p).sum(), x) for x in evidence.samples(at_zero, torch.float32, 20))
    pair = {"a": "real(4)", "b": "real(4)"}
    assert any(evidence.fails(lambda a, b: torch.sqrt(((a - b) ** 2).sum()), x) for x in evidence.samples(pair, torch.float32, 40))


def test_the_sampler_names_a_domain_it_does_not_know():
    with pytest.raises(ValueError, match="no sampler"):
        evidence.box("octonion(3)")


@pytest.mark.parametrize(("function", "right"), [("wrong", False), ("repaired", True)])
def test_a_custom_gradient_against_finite_differences(function, right):
    loss = getattr(MODULES["custom_gradient"], function)
    x = torch.linspace(-3, 3, 8, dtype=torch.float64).reshape(8, 1).requires_grad_()
    assert torch.autograd.gradcheck(loss, (x,), raise_exception=False) is right


def test_a_clamped_loss_has_no_gradient_where_the_true_one_is_large():
    far = {"p": torch.zeros(8, 1), "t": torch.full((8, 1), 1000.0)}
    for stem in ("exponential_error", "squared_error"):
        assert evidence.steepest(MODULES[stem].repaired, far) == 0
    assert evidence.steepest(MODULES["squared_error"].huber, far) > 0


def test_an_epsilon_on_softmax_loses_the_gradient_of_the_worst_mistakes():
    x, t = torch.tensor([[100.0, -100.0, -100.0, -100.0]] * 8), torch.ones(8, dtype=torch.int64)
    module = MODULES["log_of_softmax"]
    assert evidence.steepest(module.epsilon, {"x": x, "t": t}) == 0
    assert evidence.steepest(module.repaired, {"x": x, "t": t}) == pytest.approx(1 / 8)


def test_the_two_hinges_differ_at_the_tie_only():
    module = MODULES["hinge"]
    s, y = torch.tensor([[0.5], [1.0], [2.0]]), torch.ones(3, 1)
    by_max, by_relu = (evidence.run(f, {"s": s, "y": y})[1]["s"].flatten() * 3 for f in (module.loss, module.repaired))
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
        answers[key] = whynan.check(getattr(module, function), domains=module.DOMAINS, dtype=dtype)
    return answers[key]


@pytest.mark.slow
@pytest.mark.parametrize(("stem", "function", "dtype"), cases())
def test_whynan_reaches_the_expected_answer(answers, stem, function, dtype):
    report = report_on(answers, stem, function, dtype)
    causes = [f.cause for f in report.findings if f.severity == "error"]
    assert (report.verdict, causes[0] if causes else None) == MODULES[stem].EXPECTED[function][dtype]


@pytest.mark.slow
@pytest.mark.parametrize(("stem", "function", "dtype"), cases("safe"))
def test_whynan_gives_the_expected_warnings(answers, stem, function, dtype):
    report = report_on(answers, stem, function, dtype)
    expected = getattr(MODULES[stem], "WARNINGS", {}).get(function, {}).get(dtype, ())
    assert set(expected) <= {f.cause for f in report.findings if f.severity != "error"}


@pytest.mark.slow
def test_the_table_of_the_readme_is_current(answers):
    table = []
    for stem, module in MODULES.items():
        for function, expected in module.EXPECTED.items():
            found = {}
            for dtype in summary.FORMATS:
                report = report_on(answers, stem, function, dtype)
                found[dtype] = (report.verdict, next((f.cause for f in report.findings if f.severity == "error"), None))
            table.append(summary.row(stem, module.__doc__.splitlines()[0].rstrip("."), function, found, expected))
    assert summary.between_markers(summary.README.read_text(encoding="utf-8")) == summary.markdown(table)
