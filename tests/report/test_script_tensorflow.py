"""Witness programs of TensorFlow and Keras losses: the inputs bit for bit, and that they fail in the mode that they say."""

import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from whynan.report.script import witness_script

tf = pytest.importorskip("tensorflow")

LOSSES = """
import keras
import tensorflow as tf
from keras import ops

scale = tf.Variable([1.0, 1.0])


def logarithm(y):
    return tf.where(y > 0, 1 + tf.math.log(y), tf.zeros_like(y))


def root(y):
    return tf.where(y > 0, tf.sqrt(y), tf.zeros_like(y))


def with_epsilon(p):
    return -tf.math.log(1 - p + tf.cast(1e-8, p.dtype))


def scaled(x):
    return {"loss": tf.math.log(x) * scale}


def labelled(logits, labels):
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits), labels


def gathered(table, rows):
    return tf.reduce_sum(tf.sqrt(tf.gather(table, rows)))


class Bce(keras.losses.Loss):
    def __init__(self, gamma=1.0):
        super().__init__()
        self.gamma = gamma
        self.weight = keras.Variable([1.0, 1.0])

    def call(self, target, prediction):
        return -target * ops.log(prediction) * self.gamma * self.weight


@tf.function
def compiled_by_its_owner(y):
    return tf.reduce_sum(tf.sqrt(y)) * scale[0]


@tf.function
def with_epsilon_compiled(p):
    return with_epsilon(p)


layer = keras.layers.Dense(1, name="last")
layer.build((None, 2))


def through_a_layer(x):
    return {"loss": tf.reduce_sum(layer(x)), "rate": 0.5, "steps": tf.constant(3)}
"""


@pytest.fixture(scope="module")
def losses(tmp_path_factory):
    """A file of losses."""
    file = tmp_path_factory.mktemp("losses") / "tf_losses.py"
    file.write_text(LOSSES)
    return file


@pytest.fixture(autouse=True)
def imports_undone(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    tf.config.run_functions_eagerly(False)
    sys.modules.pop("tf_losses", None)


def write(target, inputs, gradients_by=None, **options):
    return witness_script(target, inputs, tuple(inputs) if gradients_by is None else gradients_by, framework="tensorflow", **options)


def play(script):
    """Run a script here, which is faster than a new process: what came out, by name."""
    tf.config.run_functions_eagerly(False)
    names = {"__name__": "script"}
    exec(script, names)
    return names["run"](names["load_loss"]())


def run(script, folder):
    """Run a script in a process of its own; exit code and what it printed."""
    file = folder / "witness.py"
    file.write_text(script, encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
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
    tensors = {name: tf.constant(value).numpy() for name, value in names["INPUTS"].items()}
    assert {name: (str(t.dtype), t.shape, t.tobytes()) for name, t in tensors.items()} == {
        name: (str(a.dtype), a.shape, np.asarray(a).tobytes()) for name, a in inputs.items()
    }


@pytest.mark.parametrize("mode", ["eager", "function", "xla"])
def test_a_gradient_that_is_nan(losses, mode):
    y = np.ones((8, 1), np.float32)
    y[3] = 0
    found = play(write(f"{losses}:logarithm", {"y": y}, mode=mode))
    assert found["loss"] == 7
    assert found["loss"].dtype == np.float64
    assert np.argwhere(np.isnan(found["gradient by y"])).tolist() == [[3, 0]]


def test_the_mode_decides(losses):
    def is_finite(loss, value, mode):
        found = play(write(f"{losses}:{loss}", {"p" if loss == "with_epsilon" else "y": np.full(1, value, np.float32)}, mode=mode))
        return all(np.isfinite(result).all() for result in found.values())

    modes = ("eager", "function", "xla")
    # Grappler and XLA add 1e-8 to the 1 before it; TensorFlow's own kernel takes 0 / 0 for 0 in the gradient of a root, XLA does not
    assert [is_finite("with_epsilon", 1, mode) for mode in modes] == [True, False, False]
    assert [is_finite("root", 0, mode) for mode in modes] == [True, True, False]


@pytest.mark.parametrize("mode", ["eager", "function", "xla"])
def test_variables_get_the_recorded_values(losses, mode):
    inputs, parameters = {"x": np.array([0.5, 0.25], np.float32)}, {"scale": np.array([np.inf, 1], np.float32)}
    found = play(write(f"{losses}:scaled", inputs, ("x", "scale"), parameters=parameters, mode=mode))
    assert found["gradient by x"][0] == np.inf
    assert found["gradient by scale"].tolist() == pytest.approx(np.log([0.5, 0.25]).tolist())
    found = play(write(f"{losses}:compiled_by_its_owner", {"y": np.zeros(2, np.float32)}, ("y", "scale"), parameters=parameters, mode=mode))
    assert not np.isfinite(found["gradient by y"]).any()
    assert found["gradient by scale"].tolist() == [0, 0]


def test_eager_mode_is_eager_inside_a_function_too(losses):
    inputs = {"p": np.ones(1, np.float32)}
    assert play(write(f"{losses}:with_epsilon_compiled", inputs, mode="function"))["loss"] == np.inf
    assert play(write(f"{losses}:with_epsilon_compiled", inputs, mode="eager"))["loss"] == pytest.approx(18.42, abs=0.01)


def test_variables_of_a_keras_layer_go_by_their_path(losses):
    parameters = {"layer.last.kernel": np.array([[2], [np.inf]], np.float32)}
    found = play(write(f"{losses}:through_a_layer", {"x": np.ones((1, 2), np.float32)}, ("x", "layer.last.kernel"), parameters=parameters))
    assert found["loss"] == np.inf
    assert found["gradient by x"].tolist() == [[2, np.inf]]
    assert found["gradient by layer.last.kernel"].tolist() == [[1], [1]]


@pytest.mark.parametrize("expression", ["Bce", "Bce()", "Bce(gamma=2.0)", "Bce().call"])
def test_keras_losses_take_their_inputs_in_the_order_of_call(losses, expression):
    inputs = {"prediction": np.zeros(2, np.float32), "target": np.array([0, 1], np.float32)}
    parameters = {"self.weight": np.array([3, 4], np.float32)}
    found = play(write(f"{losses}:{expression}", inputs, ("prediction", "self.weight"), parameters=parameters))
    assert not np.isfinite(found["loss"])
    assert set(found) == {"loss", "gradient by prediction", "gradient by self.weight"}


def test_integers_have_no_gradient(losses):
    inputs = {"logits": np.zeros((2, 3), np.float32), "labels": np.array([0, 2], np.int32)}
    found = play(write(f"{losses}:labelled", inputs))
    assert set(found) == {"loss", "gradient by logits"}
    assert found["loss"] == pytest.approx(2 * np.log(3))


def test_gathered_gradients_are_dense(losses):
    inputs = {"table": np.array([[0.0], [1.0]], np.float32), "rows": np.array([1], np.int64)}
    assert play(write(f"{losses}:gathered", inputs))["gradient by table"].tolist() == [[0.0], [0.5]]


def test_an_unknown_mode_is_an_error():
    with pytest.raises(KeyError):
        write("m:f", {}, mode="jit")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_the_program_stands_alone(losses, tmp_path, dtype):
    script = write(f"{losses}:logarithm", {"y": np.array([0, 1], dtype)}, mode="function")
    assert "import whynan" not in script
    code, printed = run(script, tmp_path)
    assert code == 1, printed
    assert "loss = 1.0" in printed
    assert "gradient by y = [nan " in printed
    assert "1 not finite, the first at [0]" in printed
    code, printed = run(write(f"{losses}:logarithm", {"y": np.array([1, 1], dtype)}, mode="xla"), tmp_path)
    assert (code, "not finite" in printed) == (0, False), printed


@pytest.mark.slow
def test_a_loss_that_raises_is_exit_code_two(losses, tmp_path):
    code, printed = run(write(f"{losses}:labelled", {"logits": np.zeros(3, np.float32), "labels": np.zeros(2, np.int32)}), tmp_path)
    assert code == 2
    assert "Traceback" in printed


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "framework"), [("torch", "torch"), ("jax", "jax"), ("tensorflow", "tensorflow")])
def test_keras_runs_on_the_backend_that_it_failed_on(tmp_path, backend, framework):
    (tmp_path / "keras_loss.py").write_text(
        "import keras\n"
        "class Root(keras.losses.Loss):\n"
        "    def call(self, true, pred):\n"
        "        print('on', keras.backend.backend())\n"
        "        return keras.ops.sqrt(pred - true)\n"
    )
    pytest.importorskip(framework)
    inputs = {"pred": np.array([[0.0, 1.0]], np.float32), "true": np.zeros((1, 2), np.float32)}
    mode = {"torch": "eager", "jax": "jit", "tensorflow": "function"}[framework]
    target = "keras_loss.py:Root"
    script = witness_script(target, inputs, ("pred",), framework=framework, mode=mode, environment={"KERAS_BACKEND": backend})
    code, printed = run(script, tmp_path)
    assert code == 1, printed
    assert f"on {backend}" in printed
    assert "1 not finite, the first at [0, 0]" in printed
