"""Witness programs of JAX losses: the inputs bit for bit, and that they fail in the mode that they say."""

import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from whynan.report.script import witness_script

jax = pytest.importorskip("jax")

LOSSES = """
import dataclasses
import jax
import jax.numpy as jnp


def root(y):
    return jnp.where(y > 0, jnp.sqrt(y), 0)


def with_epsilon(p):
    return -jnp.log(1 - p + 1e-8)


def ratio(a, b, /):
    return a / b


def labelled(logits, labels):
    return {"loss": jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1), "labels": labels}


@dataclasses.dataclass
class Power:
    gamma: float = 0.5

    def __call__(self, x):
        return x**self.gamma


@jax.custom_vjp
def rounded(x):
    return x


rounded.defvjp(lambda x: (x, x), lambda x, g: (g / x,))
"""


@pytest.fixture(scope="module")
def losses(tmp_path_factory):
    """A file of losses."""
    file = tmp_path_factory.mktemp("losses") / "jax_losses.py"
    file.write_text(LOSSES)
    return file


@pytest.fixture(autouse=True)
def settings_undone(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    wide = jax.config.jax_enable_x64
    yield
    jax.config.update("jax_enable_x64", wide)
    sys.modules.pop("jax_losses", None)


def write(target, inputs, gradients_by=None, *, mode="jit", **options):
    wanted = tuple(inputs) if gradients_by is None else gradients_by
    return witness_script(target, inputs, wanted, framework="jax", mode=mode, **options)


def play(script):
    """Run a script here, which is faster than a new process: what came out, by name."""
    names = {"__name__": "script"}
    exec(script, names)
    return names["run"](names["load_loss"]())


def run(script, folder):
    """Run a script in a process of its own; exit code and what it printed."""
    file = folder / "witness.py"
    file.write_text(script, encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, str(file)], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_floats_bit_for_bit(dtype):
    info = ml_dtypes.finfo(dtype)
    special = np.array([info.smallest_subnormal, info.tiny * dtype(0.75), info.max, 0.1, 0.0, -0.0, np.inf, -np.inf], dtype)
    big = np.full((40, 50), -0.0, dtype)
    big[3, 7] = info.smallest_subnormal
    noise = np.random.default_rng(0).integers(0, 256, 3000 * special.itemsize, dtype=np.uint8).view(dtype)
    inputs = {"special": special, "big": big, "noise": noise, "scalar": special[0], "empty": np.zeros((0, 3), dtype)}
    names = {"__name__": "script"}
    exec(write("m:f", {name: np.asarray(a) for name, a in inputs.items()}), names)
    arrays = {name: np.asarray(jax.numpy.asarray(value)) for name, value in names["INPUTS"].items()}
    assert {name: (str(a.dtype), a.shape, a.tobytes()) for name, a in arrays.items()} == {
        name: (str(a.dtype), a.shape, np.asarray(a).tobytes()) for name, a in inputs.items()
    }


@pytest.mark.parametrize("mode", ["jit", "eager"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_a_gradient_that_is_nan(losses, mode, dtype):
    y = np.ones((8, 1), dtype)
    y[3] = 0
    found = play(write(f"{losses}:root", {"y": y}, mode=mode))
    assert found["loss"] == 7
    assert found["gradient by y"].dtype == dtype
    assert np.argwhere(np.isnan(found["gradient by y"].astype(float))).tolist() == [[3, 0]]


def test_a_mode_is_what_decides(losses):
    inputs = {"p": np.ones(1, np.float32)}
    target = f"{losses}:with_epsilon"
    assert {mode: bool(np.isfinite(play(write(target, inputs, mode=mode))["loss"])) for mode in ("eager", "jit")} == {
        "eager": True,
        "jit": False,
    }


def test_inputs_by_position_and_labels_without_gradient(losses):
    found = play(write(f"{losses}:ratio", {"b": np.float32(0), "a": np.float32(1)}, positional=("a", "b")))
    assert found["loss"] == np.inf
    assert found["gradient by b"] == -np.inf
    inputs = {"logits": np.zeros((2, 3), np.float32), "labels": np.array([0, 2], np.int32)}
    found = play(write(f"{losses}:labelled", inputs))
    assert set(found) == {"loss", "gradient by logits"}
    assert found["loss"] == pytest.approx(-2 * np.log(3))


@pytest.mark.parametrize("expression", ["Power", "Power()", "Power(gamma=0.5)", "jax.jit(lambda x: x**0.5)", "rounded"])
@pytest.mark.parametrize("mode", ["jit", "eager"])
def test_objects_and_handwritten_gradients(losses, expression, mode):
    found = play(write(f"{losses}:{expression}", {"x": np.zeros(2, np.float32)}, mode=mode))
    assert found["loss"] == 0
    assert not np.isfinite(found["gradient by x"]).any()


def test_an_unknown_mode_is_an_error():
    with pytest.raises(KeyError):
        write("m:f", {}, mode="xla")


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "mode"), [(np.float64, "jit"), (np.float16, "eager"), (ml_dtypes.bfloat16, "jit")])
def test_the_program_stands_alone(losses, tmp_path, dtype, mode):
    script = write(f"{losses}:root", {"y": np.array([0, 1], dtype)}, mode=mode)
    assert "import whynan" not in script
    code, printed = run(script, tmp_path)
    assert code == 1, printed
    assert "gradient by y = [nan " in printed
    assert "1 not finite, the first at [0]" in printed
    code, printed = run(write(f"{losses}:root", {"y": np.array([1, 1], dtype)}, mode=mode), tmp_path)
    assert (code, "not finite" in printed) == (0, False), printed


@pytest.mark.slow
def test_a_loss_that_raises_is_exit_code_two(losses, tmp_path):
    code, printed = run(write(f"{losses}:ratio", {"a": np.zeros(3, np.float32), "b": np.zeros(2, np.float32)}), tmp_path)
    assert code == 2
    assert "Traceback" in printed
