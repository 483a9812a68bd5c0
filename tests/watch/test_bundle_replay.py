"""`replay.py` of a bundle reproduces the failure in a fresh process, with the user's code and without whynan."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.watch.incidents import incident
from tests.watch.step_losses import Net, Sqrt, Wide, bce

import whynan
from whynan.errors import NonFiniteError
from whynan.watching.bundle import save
from whynan.watching.policy import Options
from whynan.watching.recipe import Writer, of_function, piece
from whynan.watching.record import Piece, Recipe
from whynan.watching.script import replay_script
from whynan.watching.torch.recipe import built_in

ROOT = Path(__file__).parents[2]


def run(folder, *arguments, cwd=None):
    """The replay as a stranger runs it: no whynan, no path of this repository."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH",)}
    command = [sys.executable, "-c", _WITHOUT_WHYNAN, str(folder / "replay.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd or folder, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


_WITHOUT_WHYNAN = """
import runpy, sys
sys.modules["whynan"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def script_of(folder):
    """The names that a replay defines, without running it."""
    return runpy.run_path(str(folder / "replay.py"), run_name="replay")


def watched(tmp_path, model, loss, batches, seed=0, **options):
    """Train until a step goes bad; returns the incident and the gradients of the bad step by parameter."""
    torch.manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with whynan.watch(model, loss=loss, optimizer=optimizer, folder=tmp_path, **options) as watch:
        for x, t in batches:
            optimizer.zero_grad()
            loss(model(x), t).backward()
            gradients = {n: p.grad for n, p in model.named_parameters()}
            try:
                optimizer.step()
            except NonFiniteError:
                return watch.incidents[0], gradients
    raise AssertionError("no step went bad")


# ---------------------------------------------------------------- a step of PyTorch


@pytest.fixture(scope="module")
def bundled(tmp_path_factory):
    """A bundle with nested inputs, batch norm, dropout (random numbers matter) and a loss module with an attribute of its own."""
    torch.manual_seed(1)
    model, loss = Net(), Sqrt()
    loss.power = 2
    rows = [torch.randn(8, 4) for _ in range(3)]

    def batches():
        for i, x in enumerate(rows):
            given = {"rows": x, "weights": [torch.ones(()), 3]}
            with torch.no_grad():
                state = torch.get_rng_state()
                t = torch.zeros(8, 1) if i < 2 else _own_outputs(model, given)
                torch.set_rng_state(state)
            yield given, t

    return watched(tmp_path_factory.mktemp("bundle"), model, loss, batches())


def _own_outputs(model, given):
    """What the model will give in the next call, so that the target equals it in one row: sqrt has an infinite gradient at 0."""
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    t = model(given).clone()
    for n, b in model.named_buffers():
        b.copy_(buffers[n])
    t[:5] += 1.0
    t[6:] += 1.0
    return t


@pytest.mark.slow
def test_the_replay_fails_as_the_step_did(bundled):
    found, gradients = bundled
    assert found.cause and found.reproduced and found.folder is not None
    code, out, err = run(found.folder, "--code", str(ROOT))
    assert code == 1, out + err
    bad = [n for n, g in gradients.items() if not g.isfinite().all()]
    assert f"the gradient by {bad[0]} is not finite: {int((~gradients[bad[0]].isfinite()).sum())} element" in out
    assert float(re.search(r"loss = (\S+)", out).group(1)) == pytest.approx(found.loss, rel=1e-6), "random state and buffers are restored"


@pytest.mark.slow
def test_the_replay_says_when_it_does_not_fail(bundled, tmp_path):
    script = (bundled[0].folder / "replay.py").read_text()
    healthy = script.replace("given['batch/t']", "given['batch/t'] + 1")
    assert healthy != script
    (tmp_path / "replay.py").write_text(healthy)
    (tmp_path / "tensors.safetensors").write_bytes((bundled[0].folder / "tensors.safetensors").read_bytes())
    code, out, err = run(tmp_path, "--code", str(ROOT))
    assert (code, out.split("\n")[-2]) == (0, "It did not fail: everything is finite here."), err


@pytest.mark.slow
def test_the_replay_says_what_it_needs(tmp_path):
    """A model with arguments, defined where nothing imports it from, under autocast: filled in by hand, it runs."""
    model = Wide(3)

    def batches():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            yield torch.full((2, 4), 1e38), torch.ones(2, 3)

    found, _ = watched(tmp_path, model, bce, batches(), save_batch=True)
    folder = found.folder
    text = (folder / "replay.py").read_text()
    assert "# model = imported('tests.watch.step_losses:Wide')(...)" in text and "Wide(width) needs arguments" in text
    with pytest.raises(NotImplementedError, match="must make the model as your script does"):
        script_of(folder)["build"]()
    lines = [line for line in text.split("\n") if "raise NotImplementedError('build" not in line]
    filled = "\n".join(lines).replace("    model = None", "    model = imported('tests.watch.step_losses:Wide')(3)")
    (folder / "replay.py").write_text(filled)
    assert "AUTOCAST = [[('cpu', 'bfloat16')]" in filled
    code, out, err = run(folder, "--code", str(ROOT))
    assert code == 1 and "It failed again." in out, err


# ---------------------------------------------------------------- JAX and TensorFlow: a function on what it was given


STEP = """
import collections

State = collections.namedtuple("State", "w count")


def step(state, batch, rate=0.1):
    {body}
"""
JAX = """import jax.numpy as jnp
    loss = jnp.log(batch["x"] * state.w).sum()
    return State(state.w - rate * loss, state.count + 1), {"loss": loss}"""
TENSORFLOW = """import tensorflow as tf
    loss = tf.reduce_sum(tf.math.log(batch["x"] * state.w))
    return State(state.w - rate * loss, state.count + 1), {"loss": loss}"""


@pytest.mark.slow
@pytest.mark.parametrize(("framework", "body"), [("jax", JAX), ("tensorflow", TENSORFLOW)])
def test_a_function_runs_again_on_its_arguments(tmp_path, monkeypatch, capsys, framework, body):
    pytest.importorskip(framework)
    import numpy as np

    (tmp_path / f"{framework}_step.py").write_text(STEP.replace("{body}", body))
    monkeypatch.syspath_prepend(tmp_path)
    module = __import__(f"{framework}_step")
    state = module.State(np.float32([1, 2]), np.int32(3))
    recipe, tensors = of_function(
        module.step, (state, {"x": np.float32([1, 0])}), {"rate": 0.5}, lambda v: isinstance(v, np.ndarray | np.generic), {0: "parameters"}
    )
    assert set(tensors) == {"parameters/0/w", "parameters/0/count", "batch/1/x"}
    folder = save(incident(framework=framework, recipe=recipe, tensors=tensors), Options(folder=tmp_path / "incidents"))
    assert script_of(folder)["run"]("cpu")
    out = capsys.readouterr().out
    assert "is not finite" in out and "-inf" in out and ("['loss'] = -inf" in out or framework == "tensorflow")


FIT = """
import os
os.environ["KERAS_BACKEND"] = "torch"
import numpy as np, keras, whynan, whynan.keras

keras.utils.set_random_seed(0)
layers = [keras.Input((4,)), keras.layers.Dense(8), keras.layers.BatchNormalization(), keras.layers.Dropout(0.3), keras.layers.Dense(1)]
model = keras.Sequential(layers)
model.compile("sgd", loss=keras.losses.MeanSquaredError())
x = np.random.default_rng(0).normal(size=(16, 4)).astype("f4")
y = x.sum(1, keepdims=True)
y[5] = np.inf
try:
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[whynan.keras.Watch()])
except whynan.NonFiniteError as error:
    print(error.incident.folder)
"""


@pytest.mark.slow
def test_a_step_of_keras_runs_again(tmp_path):
    """The model is made again from its configuration: there is no file of the user's to import."""
    pytest.importorskip("keras")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", FIT], cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=200, check=False
    )
    folder = tmp_path / done.stdout.strip()
    assert "keras.saving.deserialize_keras_object" in (folder / "replay.py").read_text(), done.stderr
    code, out, err = run(folder)
    assert code == 1 and "loss = inf" in out and "the gradient by dense/kernel is not finite" in out, err


# ---------------------------------------------------------------- the text


def test_without_a_recipe_the_script_says_what_to_write():
    text = replay_script(incident())
    compile(text, "replay.py", "exec")
    assert "build() must return" in text and "calls() must run your step" in text


def test_no_text_escapes_its_place():
    evil = "\"\"\"\n'''\nraise SystemExit(9)\n\\"
    pieces = (
        Piece("model", "a:b", missing=evil, shown=evil),
        Piece("loss", "m:f", settings={"s": evil, "inf": float("inf"), "nan": float("nan")}, instance=True, shown=evil, folder=evil),
    )
    text = replay_script(incident(recipe=Recipe(pieces, ("yield 1",)), when=evil, failed=evil, framework="jax"))
    code = compile(text, "replay.py", "exec")
    names = {"__name__": "no_main"}
    head = text[: text.index("# ------")]
    exec(compile(head, "head", "exec"), names)
    assert names["CODE"] == [evil] and code is not None


def test_calls_as_text():
    output = torch.ones(1)
    writer = Writer(lambda v: isinstance(v, torch.Tensor), [(output, "output")])
    text = writer.call(
        "f",
        {
            0: output,
            1: [torch.ones(2), (1,)],
            "mask": {"a": torch.ones(3), 2: None},
            "eps": float("inf"),
            "odd": object(),
            "f": os.path.join,
        },
    )
    assert text == (
        "f(output, [given['batch/1/0'], (1,)], mask={'a': given['batch/mask/a'], 2: None}, eps=float('inf'), "
        "odd=unknown('batch/odd: a object'), f=imported('posixpath:join'))"
    )
    assert sorted(writer.tensors) == ["batch/1/0", "batch/mask/a"]


def test_two_tensors_of_one_name_and_one_tensor_of_two():
    writer = Writer(lambda v: isinstance(v, torch.Tensor))
    a, b = torch.ones(1), torch.zeros(1)
    assert [writer.text(t, "batch/x") for t in (a, b, a)] == ["given['batch/x']", 'given["batch/x\'"]', "given['batch/x']"]


def local():
    class Inner:
        pass

    return Inner()


@pytest.mark.parametrize(
    ("thing", "path", "missing"),
    [
        (bce, "tests.watch.step_losses:bce", ""),
        (Net(), "tests.watch.step_losses:Net", ""),
        (Wide(2), "tests.watch.step_losses:Wide", "Wide(width) needs arguments"),
        (torch.nn.functional.cross_entropy, "torch.nn.functional:cross_entropy", ""),
        (torch.nn.BCELoss(), "torch.nn.modules.loss:BCELoss", ""),
        (torch.nn.ModuleList([torch.nn.ReLU()]), "torch.nn.modules.container:ModuleList", "a ModuleList is made of parts"),
        (lambda p: p, "", "defined inside a function or has no name"),
        (local(), "", "defined inside a function"),
        (Net().forward, "", "a method of an object"),
    ],
)
def test_pieces(thing, path, missing):
    found = piece("model", thing)
    assert found.path == path and missing in found.missing and bool(found.missing) == bool(missing)
    if path.startswith("tests."):
        assert found.folder == str(ROOT)


def test_the_source_of_what_cannot_be_imported_is_shown():
    def loss(p):
        return p.sum()

    text = replay_script(incident(recipe=Recipe((piece("loss", loss),))))
    assert "    # what it was: def loss(p):\n    #     return p.sum()\n" in text


def test_a_script_that_trains_when_imported_is_not_imported(tmp_path):
    for guard in (False, True):
        body = "import sys\nfrom whynan.watching.recipe import piece\n\ndef f(x):\n    return x\n\n"
        body += "if __name__ == '__main__':\n    p = piece('loss', f)\n" if guard else "p = piece('loss', f)\n"
        (tmp_path / "train.py").write_text(body + ("    " if guard else "") + "print(p.path, p.folder, p.missing)\n")
        done = subprocess.run(
            [sys.executable, "train.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            check=False,
        )
        assert done.stdout == (
            f"train:f {tmp_path} \n" if guard else f"  f is defined in {tmp_path}/train.py, which would train again if it were imported\n"
        )


def test_layers_of_torch_are_written_as_they_are():
    nn = torch.nn
    model = nn.Sequential(
        nn.Linear(4, 3, bias=False),
        nn.Sequential(nn.BatchNorm1d(3, eps=0.25), nn.Dropout(0.3)),
        nn.Conv2d(1, 2, (3, 1), padding=1),
        nn.Embedding(5, 2),
    )
    again = eval(built_in(model), {"torch": torch})
    assert repr(again) == repr(model)
    assert {n: p.shape for n, p in again.state_dict().items()} == {n: p.shape for n, p in model.state_dict().items()}
    assert built_in(nn.Sequential(Net())) == "" == built_in(nn.TransformerEncoderLayer(4, 2))
