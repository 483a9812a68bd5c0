"""The program of a witness: its inputs bit for bit, and that it fails as the loss did, with nothing but the framework."""

import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from whynan.report.script import witness_script

torch = pytest.importorskip("torch")
LOSSES = os.path.join(os.path.dirname(__file__), "losses.py")
FLOATS = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]


def built(inputs, **options):
    """The INPUTS table of a script, as bytes by name."""
    names = {"__name__": "script"}
    exec(witness_script(f"{LOSSES}:total", inputs, (), **options), names)
    tensors = names["INPUTS"]
    return {
        name: (str(t.dtype), tuple(t.shape), t.contiguous().flatten().view(torch.uint8).numpy().tobytes()) for name, t in tensors.items()
    }


def wanted(inputs):
    return {name: (f"torch.{a.dtype}", a.shape, np.ascontiguousarray(a).tobytes()) for name, a in inputs.items()}


@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_bit_for_bit(dtype):
    info = ml_dtypes.finfo(dtype)
    tiny = [info.smallest_subnormal, info.smallest_normal, info.smallest_normal * dtype(0.75), info.eps, info.max]
    special = np.array([*tiny, *(-np.array(tiny, dtype)), 0.1, 0.0, -0.0, np.inf, -np.inf], dtype)
    bits = np.random.default_rng(0).integers(0, 256, 3000 * special.itemsize, dtype=np.uint8).view(dtype)  # NaNs with payloads too
    big = np.full((40, 50), -0.0, dtype)
    big[3, 7], big[39, 49] = 0.0, info.smallest_subnormal
    inputs = {
        "special": special.reshape(3, 5),
        "scalar": special[2],
        "big": big,
        "noise": bits.reshape(30, 100),
        "empty": np.zeros((0, 3), dtype),
        "transposed": np.arange(6).astype(dtype).reshape(2, 3).T,
        "it's {odd}\n": np.ones(100, dtype),
    }
    inputs = {name: np.asarray(a) for name, a in inputs.items()}
    assert built(inputs) == wanted(inputs)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.int16, np.int8, np.uint8, np.bool_])
def test_integers_and_booleans_bit_for_bit(dtype):
    values = np.random.default_rng(1).integers(0, 2 if dtype is np.bool_ else 127, 1000).astype(dtype)
    big = np.full(500, 1).astype(dtype)
    big[7] = 0
    inputs = {
        "few": values[:6].reshape(2, 3),
        "many": values,
        "big": big,
        "end": np.array(np.iinfo(dtype).max if dtype is not np.bool_ else 1, dtype),
    }
    assert built(inputs) == wanted(inputs)


def test_a_large_uniform_array_is_short():
    assert len(witness_script("m:f", {"x": np.ones((1000, 1000), np.float32)}, ())) < 6000


@pytest.fixture(autouse=True)
def imports_undone(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in ("losses", "owners"):
        sys.modules.pop(name, None)


@pytest.fixture
def played(capsys):
    """Run a script here, which is faster than a new process: exit code and what it printed."""

    def play(script):
        names = {"__name__": "script"}
        exec(script, names)
        return names["main"](), capsys.readouterr().out

    return play


def run(script, folder, **options):
    """Run a script in a folder without whynan on its path; exit code and what it printed."""
    file = folder / "witness.py"
    file.write_text(script, encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(file)], cwd=folder, env=environment, capture_output=True, text=True, check=False, **options)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_program_fails_as_the_gradient_did(dtype, tmp_path):
    y = np.ones((8, 1), dtype)
    y[3] = 0
    script = witness_script(f"{LOSSES}:root", {"y": y}, ("y",))
    assert "import whynan" not in script
    code, printed = run(script, tmp_path)
    assert code == 1, printed
    assert "gradient by y = tensor(" in printed
    assert "1 not finite, the first at [3, 0]" in printed


def test_the_program_fails_as_the_loss_did(played):
    one = np.ones(1, np.float32)
    code, printed = played(witness_script(f"{LOSSES}:bce", {"p": one, "t": one}, ("p",)))
    assert code == 1, printed
    assert "loss = nan" in printed


def test_the_program_passes_where_the_loss_does(played):
    half = np.full((2, 1), 0.5, np.float32)
    code, printed = played(witness_script(f"{LOSSES}:bce", {"p": half, "t": half}, ("p",)))
    assert (code, "not finite" in printed) == (0, False)
    assert "gradient by p = tensor([[" in printed


def test_a_module_gets_the_recorded_parameters(played):
    scale = np.array([np.inf, 1], np.float32)
    x = np.array([0.5, 0.25], np.float32)
    script = witness_script(f"{LOSSES}:Scaled(gamma=2.0)", {"x": x}, ("x", "scale"), parameters={"scale": scale})
    code, printed = played(script)
    assert code == 1, printed
    assert "gradient by scale = tensor(" in printed


def test_a_class_is_instantiated(played):
    code, printed = played(witness_script(f"{LOSSES}:Scaled", {"x": np.zeros(2, np.float32)}, ("x",)))
    assert code == 1, printed
    assert "loss = -inf" in printed


def test_module_targets_and_positional_inputs(tmp_path):
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("")
    (tmp_path / "pkg" / "base.py").write_text("def halve(x): return x / 2\n")
    (tmp_path / "pkg" / "losses.py").write_text("from .base import halve\ndef ratio(a, b, /): return halve(a) / b\n")
    inputs = {"a": np.array(1, np.float32), "b": np.array(0, np.float32)}
    for target in ("pkg.losses:ratio", "pkg/losses.py:ratio"):
        code, printed = run(witness_script(target, inputs, ("a",), positional=("a", "b")), tmp_path)
        assert code == 1, printed
        assert "loss = inf" in printed


OWNERS = """
import dataclasses, functools, torch

class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False))
    def forward(self, x, weight=None):
        return self.layers(x).sum()
    def method(self, x):
        return self(x)

@dataclasses.dataclass
class Output:
    loss: torch.Tensor
    steps: int = 3

own = Own()
scale = torch.nn.Parameter(torch.ones(()))
def uses_global(x):
    return {"out": Output(own(x))}
def closes_over(inner):
    return lambda x: (inner(x), scale * 1)
def half_sums(x):
    return x * 2
"""


@pytest.mark.parametrize(
    ("expression", "parameter"),
    [
        ("own", "layers.0.weight"),
        ("own", "self.layers.0.weight"),
        ("own.method", "self.layers.0.weight"),
        ("uses_global", "own.layers.0.weight"),
        ("closes_over(own)", "inner.layers.0.weight"),
        ("functools.partial(own)", "layers.0.weight"),
    ],
)
def test_parameters_are_found_where_the_front_end_found_them(tmp_path, expression, parameter):
    (tmp_path / "owners.py").write_text(OWNERS)
    inputs = {"x": np.ones((2, 1), np.float32)}
    parameters = {parameter: np.array([[np.inf]], np.float32)}
    names = {"__name__": "script"}
    exec(witness_script(f"{tmp_path / 'owners.py'}:{expression}", inputs, ("x", parameter), parameters=parameters), names)
    assert {name: value.sum().item() for name, value in names["run"](names["load_loss"]()).items()} == {
        "loss": np.inf,
        "gradient by x": np.inf,
        f"gradient by {parameter}": 2.0,
    }


def test_several_elements_are_added_in_double_precision(tmp_path):
    (tmp_path / "owners.py").write_text(OWNERS)
    names = {"__name__": "script"}
    exec(witness_script(f"{tmp_path / 'owners.py'}:half_sums", {"x": np.full(4, 30000, np.float16)}, ("x",)), names)
    assert names["run"](names["load_loss"]())["loss"].item() == 240000


def test_a_loss_that_cannot_be_run_is_exit_code_two(tmp_path):
    inputs = {"x": np.zeros(1, np.float32)}
    code, printed = run(witness_script("", inputs, ()), tmp_path)
    assert code == 2
    assert "load_loss() must return the loss" in printed


def test_targets_cannot_break_out_of_their_strings(tmp_path):
    target = 'x\\""".py:f("""\\", \'{place}\')'
    compile(witness_script(target, {"x": np.zeros(1, np.float32)}, ()), "script", "exec")
    compile(witness_script('m:"""\n\x00{}', {}, ()), "script", "exec")


def test_a_mode_is_applied_and_an_unknown_one_is_an_error():
    assert "return torch.compile(loss)" in witness_script("m:f", {}, (), mode="compile")
    for unknown in ({"mode": "xla"}, {"framework": "theano"}):
        with pytest.raises(KeyError):
            witness_script("m:f", {}, (), **unknown)
