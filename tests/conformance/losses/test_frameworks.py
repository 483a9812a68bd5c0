"""The same losses in every framework: whynan gives the same answer, and the frameworks themselves say that it is right.

Where they truly differ, `golden/frameworks.txt` holds the answer and `docs/frameworks.md` the reason.
"""

import ast
import re
from importlib.util import find_spec

import pytest
from tests.conformance.losses import golden
from tests.conformance.losses.cases import CASES, SAFE
from tests.conformance.losses.programs import FOLDER, PROGRAMS, fails, marks, said

from whynan.report.words import WORDS

SPELLINGS = ("pytorch", "tensorflow_", "keras_ops", "jax_")
DIFFERENCES = golden.read()
EXPLAINED = golden.ROOT / "docs" / "frameworks.md"
# causes of kind `non-finite` that no loss of the table has, and why
NOT_HERE = {
    "divergence": "several training steps",
}
OF_OTHER_KINDS = {
    *("steep-gradient", "clamp-kills-gradient", "saturated-activation", "vanished-gradient", "cancellation", "logits-as-probabilities"),
    *("double-softmax", "target-out-of-range", "nan-hidden-after-the-fact", "gradient-detached", "numpy-in-graph", "no-such-function"),
}


def missing(program):
    """The package that a program needs and this Python lacks, if any."""
    return next((p for p in (program.framework, *(["keras"] if program.backend else [])) if find_spec(p) is None), None)


def all_pairs():
    """Every loss in every program that runs in this process; Keras takes its backend from the environment."""
    for program in PROGRAMS.values():
        if program.alone:
            continue
        absent = missing(program)
        skip = [pytest.mark.skipif(absent is not None, reason=f"{absent} is not installed")]
        for case in program.cases():
            yield pytest.param(program, case, id=f"{program.name}-{case.name}", marks=skip)


# ---------------------------------------------------------------- the answers


@pytest.mark.slow
@pytest.mark.parametrize(("program", "case"), list(all_pairs()))
def test_the_answer_is_right(program, case):
    right = golden.expected(program, case, DIFFERENCES)
    assert said(program, case) == right
    assert golden.agrees(right, fails(program, case))


@pytest.mark.slow
@pytest.mark.parametrize("program", [p for p in PROGRAMS.values() if p.alone], ids=lambda p: p.name)
def test_keras_on_another_backend(program):
    absent = missing(program)
    if absent:
        pytest.skip(f"{absent} is not installed")
    answers = golden.apart(program.name)
    right = {case.name: golden.expected(program, case, DIFFERENCES) for case in program.cases()}
    assert {loss: answer for loss, (answer, _) in answers.items()} == right
    assert [loss for loss, (_, failed) in answers.items() if not golden.agrees(right[loss], failed)] == []


# ---------------------------------------------------------------- the suite itself


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_file_spells_every_loss_and_marks_what_fails(spelling):
    source = (FOLDER / f"{spelling}.py").read_text(encoding="utf-8")
    losses = [n.name for n in ast.parse(source).body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
    assert losses == [case.name for case in CASES]
    for case in CASES:
        of_value = case.answer.cause != "nonfinite-input"
        if case.answer != SAFE and of_value:
            _, line, text = marks(spelling)[case.name]
            assert text in source.splitlines()[line - 1].partition("# <- ")[0]
    assert source.count("# <- ") == len(marks(spelling)) + 1  # the docstring shows one


def test_every_cause_is_met():
    met = {case.answer.cause for case in CASES} | {case.warns for case in CASES}
    met |= {word for answer in DIFFERENCES.values() for word in answer.split() if word in WORDS}
    assert WORDS.keys() - OF_OTHER_KINDS - met == NOT_HERE.keys()


def test_many_of_the_losses_are_safe():
    safe = sum(case.answer == SAFE for case in CASES)
    assert len(CASES) >= 60
    assert 0.4 <= safe / len(CASES) <= 0.6


def test_every_difference_is_explained():
    rows = re.findall(r"^\| `(\w+)` \| ([\w ,]+) \| (.+?) \| (.+) \|$", EXPLAINED.read_text(encoding="utf-8"), flags=re.MULTILINE)
    told = {(loss, name.strip()): answer.strip("`") for loss, names, answer, _ in rows for name in names.split(",")}
    assert told == DIFFERENCES
    assert all(why.endswith(".") and len(why.split()) > 5 for *_, why in rows)


def test_a_wrong_answer_would_be_noticed():
    assert not golden.agrees("safe", [False, True])
    assert not golden.agrees("unsafe log-of-zero forward log", [False, False])


def test_the_golden_file_is_read_as_it_is_written(tmp_path, monkeypatch):
    rows = {("dice", "tf xla"): "safe", ("cox", "jax"): "unsafe exp-overflow forward exp in jnp.exp(risk)"}
    monkeypatch.setattr(golden, "FILE", tmp_path / "frameworks.txt")
    golden.FILE.write_text(golden.text(rows), encoding="utf-8")
    assert golden.read() == rows
