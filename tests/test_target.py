"""Targets: what they may look like, what goes wrong with them, and the framework they are written in."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from whynan.errors import FrameworkMissing, TargetError
from whynan.target import arguments_of, framework_of, load_target, uses

LOSSES = """
import math
from helper import half

LIMIT = 3.5

def focal(p, t, gamma=2.0):
    return half(p) + t * gamma

class Focal:
    def __init__(self, gamma=2.0):
        self.gamma = gamma
    def __call__(self, p, t):
        return p * self.gamma

class Needy:
    def __init__(self, size, *, depth):
        pass
    def __call__(self, x):
        return x

class Angry:
    def __init__(self):
        raise ValueError("not today\\nsecond line")
    def __call__(self, x):
        return x

class nested:
    inner = staticmethod(focal)

def make(scale):
    def loss(x):
        return x * scale
    return loss
"""


DATACLASS = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass
class Loss:
    g: float = 1.0
    def __call__(self, x):
        return x * self.g
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "losses.py").write_text(LOSSES)
    (tmp_path / "helper.py").write_text("def half(x):\n    return x / 2\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith(("helper", "whynan_target_", "package_")):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("expression", "arguments", "result"),
    [
        ("focal", (2, 1), 3.0),
        ("Focal", (2, 1), 4.0),
        ("Focal(gamma=0.5)", (2, 1), 1.0),
        ("nested.inner", (2, 1), 3.0),
        ("make(10)", (2,), 20),
        ("lambda p, t: focal(p, t) + LIMIT", (2, 1), 6.5),
        ("lambda x: {1: x}[1:][0] if False else x", (2,), 2),
    ],
)
def test_expressions(folder, expression, arguments, result):
    target = load_target(f"losses.py:{expression}")
    assert target.callable(*arguments) == result
    assert target.name == f"losses.py:{expression}"
    assert target.file == folder / "losses.py"


def test_modules_and_absolute_paths(folder):
    assert load_target("helper:half").callable(4) == 2
    assert load_target(f"{folder}/losses.py:focal").callable(2, 1) == 3
    assert load_target("math:sqrt").callable(4) == 2
    assert load_target("math:sqrt").framework in (None, "torch", "tensorflow", "jax")


def test_an_edited_file_is_read_again(folder):
    assert load_target("losses.py:make(1)").callable(3) == 3
    (folder / "losses.py").write_text("def make(scale):\n    return lambda x: x + scale + 100\n")
    assert load_target("losses.py:make(1)").callable(3) == 104


def test_a_file_of_a_package_may_import_relatively(folder):
    inner = folder / "package_a" / "sub"
    inner.mkdir(parents=True)
    (folder / "package_a" / "__init__.py").touch()
    (inner / "__init__.py").touch()
    (folder / "package_a" / "util.py").write_text("def one():\n    return 1\n")
    (inner / "loss.py").write_text("from ..util import one\n\ndef loss(x):\n    return x + one()\n")
    assert load_target("package_a/sub/loss.py:loss").callable(1) == 2


def test_a_file_named_like_a_standard_module_does_no_harm(folder):
    (folder / "statistics.py").write_text("def loss(x):\n    return x\n")
    import statistics

    assert load_target("statistics.py:loss").callable(5) == 5
    assert sys.modules["statistics"] is statistics


def test_dataclasses_and_pickled_names_find_their_module(folder):
    (folder / "data.py").write_text(DATACLASS)
    assert load_target("data.py:Loss(2.0)").callable(3) == 6


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("losses.py:focla", "Did you mean focal?"),
        ("losses.py:zzz", "The module defines focal, Focal, Needy, Angry, nested, make."),
        ("losses.py:nested.iner", "Did you mean inner?"),
        ("losses.py:LIMIT", "is a float, which cannot be called"),
        ("losses.py:focal(", "is not a Python expression"),
        ("losses.py:Focal(depth=3)", "raised TypeError"),
        ("losses.py:make(1)(None)", "raised TypeError"),
        ("losses.py:Needy", "needs arguments: size, depth. Write losses.py:Needy(size=…, depth=…)."),
        ("losses.py:Angry", "Angry() raised ValueError: not today."),
        ("losses.py:", "It defines focal, Focal"),
        ("losses.py", "write losses.py:focal"),
        ("losses", "'losses' is not a target"),
        ("", "is not a target"),
        (":focal", "is not a target"),
        ("no_such.py:focal", "there is no file no_such.py"),
        ("no_such_module:focal", "there is no module 'no_such_module'"),
        ("math.nothing:focal", "there is no module"),
        ("./losses:focal", "is neither a file ending in .py nor a module's name"),
    ],
)
def test_bad_targets_are_one_line_that_says_what_to_do(folder, text, said):
    with pytest.raises(TargetError) as caught:
        load_target(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def f(x:\n    pass\n", "SyntaxError"),
        ("x = 1\nimport no_such_thing\n", "broken.py:2). Install no_such_thing"),
        ("def g():\n    raise RuntimeError('deep\\nmore')\n\ng()\n", "RuntimeError: deep ("),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
        ("from helper import nothing\n", "ImportError: cannot import name 'nothing'"),
    ],
)
def test_a_failing_import_shows_error_and_place(folder, source, said):
    (folder / "broken.py").write_text(source)
    with pytest.raises(TargetError) as caught:
        load_target("broken.py:f")
    assert said in str(caught.value)
    assert "broken.py:" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not any(name.startswith("whynan_target_broken") for name in sys.modules)


def test_the_place_is_the_users_own_line(folder):
    (folder / "broken.py").write_text("import json\n\nX = json.loads('{')\n")
    with pytest.raises(TargetError, match=r"broken\.py:3\)"):
        load_target("broken.py:X")


def test_a_missing_framework_says_how_to_get_it(folder):
    (folder / "flow.py").write_text("raise ModuleNotFoundError(\"No module named 'tensorflow'\", name='tensorflow')\n")
    with pytest.raises(FrameworkMissing, match=r"needs tensorflow, which is not installed. This version .* checks PyTorch losses only"):
        load_target("flow.py:f")


# ---------------------------------------------------------------- arguments


def test_arguments():
    class Module:
        def forward(self, p, t, gamma=2.0, *rest, **more):
            return p

        def __call__(self, *args, **kwargs):
            return self.forward(*args, **kwargs)

    assert arguments_of(Module()) == {"p": True, "t": True, "gamma": False}
    assert arguments_of(lambda x, /, y=1, *, z: x) == {"x": True, "y": False, "z": True}
    assert arguments_of(dict) == {}


def test_arguments_of_built_in_functions_are_in_their_docstrings():
    torch = pytest.importorskip("torch")
    assert arguments_of(torch.log) == {"input": True, "out": False}
    assert arguments_of(torch.logsumexp) == {"input": True, "dim": True, "keepdim": False, "out": False}
    assert arguments_of(torch.nn.functional.cosine_similarity) == {"x1": True, "x2": True, "dim": False, "eps": False}


# ---------------------------------------------------------------- framework

# stand-ins for the real packages: finding the framework must not depend on what is installed
STUBS = {
    "torch": "class Tensor: pass\ndef log(x): return x\n",
    "jax": "class Array: pass\n",
    "tensorflow": "class Tensor: pass\n",
}
USES = """
from __future__ import annotations
import torch
import jax

def by_global(x):
    return torch.log(x)

def by_helper(x):
    return by_global(x) + 1

def by_import(x):
    import tensorflow as tf
    return tf.log(x)

def by_closure(x):
    def inner(y):
        return torch.log(y)
    return inner(x)

def by_annotation(x: jax.Array):
    return x

def by_nothing(x):
    return x

class Loss:
    def __call__(self, x):
        return torch.log(x)
"""


def probe(tmp_path, expression):
    """The framework found in a process whose frameworks are the stand-ins."""
    for name, text in STUBS.items():
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "uses.py").write_text(USES)
    code = f"from whynan.target import load_target; print(load_target('uses.py:{expression}').framework)"
    source = Path(__file__).parents[1] / "src"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(source)])}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("expression", "framework"),
    [
        ("by_global", "torch"),
        ("by_helper", "torch"),
        ("by_import", "tensorflow"),
        ("by_closure", "torch"),
        ("by_annotation", "jax"),
        ("by_nothing", "None"),
        ("Loss", "torch"),
        ("lambda x: torch.log(x)", "torch"),
    ],
)
def test_framework(tmp_path, expression, framework):
    assert probe(tmp_path, expression) == framework


def test_frameworks_own_functions_and_modules():
    torch = pytest.importorskip("torch")
    assert framework_of(torch.nn.functional.binary_cross_entropy) == "torch"
    assert framework_of(torch.nn.BCELoss()) == "torch"
    assert framework_of(torch.nn.BCELoss().forward) == "torch"
    assert framework_of(torch.log) == "torch"
    assert arguments_of(torch.nn.BCELoss()) == {"input": True, "target": True}


def test_what_a_loss_uses_is_read_from_its_home_and_its_code():
    assert uses(framework_of, "whynan") and uses(lambda p: pytest.approx(p), "pytest")
    assert not uses(framework_of, "keras") and not uses(lambda p: pytest.approx(p), "keras")
