"""`whynan.keras.Watch` in runs that go bad: each backend in a process of its own, which runs all scenarios (`keras_scenarios`)."""

import json
import math
import os
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BACKENDS = ("tensorflow", "torch", "jax")
BAD, BATCHES = 5, 4
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"  # to compile: nothing here runs for long

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_spec("keras") is None, reason="keras is not installed")]

# per scenario: what failed, class, cause, phase, expression
EXPECTED = {
    "log-of-zero": ("loss", "an operation's domain", "log-of-zero", "forward", "ops.log(p)"),
    "root": ("gradient", "an operation's domain", "sqrt-grad-at-zero", "backward", "ops.sqrt(ops.square(y - p))"),
    "where-trap": ("gradient", "an operation's domain", "masked-branch-gradient", "backward", "ops.log(p)"),
    "exp-overflow": ("loss", "overflow", "exp-overflow", "forward", "ops.exp(p)"),
    "empty-softmax-row": ("loss", "an operation's domain", "all-masked-softmax", "forward", "ops.softmax(ops.where(y > 0, p, -np.inf))"),
    "layer": ("loss", "an operation's domain", "log-of-zero", "forward", "ops.log(x)"),
    "own-step": ("gradient", "an operation's domain", "masked-branch-gradient", "backward", "ops.log(p)"),
    "refused": ("loss", "an operation's domain", "sqrt-of-negative", "forward", "ops.sqrt(p)"),
    "handwritten": ("gradient", "a backward of your own", "div-by-zero", "backward", "upstream / (x - 2.0)"),
}
# `where` takes the gradient of masked logits away, on some backends relu's derivative that of what it has cut off
FINITE_GRADIENTS = {("tensorflow", "empty-softmax-row"), ("torch", "empty-softmax-row"), ("torch", "log-of-zero")}
FINITE_GRADIENTS |= {("jax", "empty-softmax-row"), ("jax", "log-of-zero")}
FINITE_GRADIENTS |= {("torch", "refused")}  # it does not come to gradients
HARMLESS = ("erased", "row-removed", "minus-infinity", "nan-metric")


@cache
def results(backend):
    """What every scenario said, by name."""
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    run = subprocess.run(
        [sys.executable, str(HERE / "keras_scenarios.py")],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "KERAS_BACKEND": backend, "XLA_FLAGS": QUICK, **QUIET},
    )
    found = {(line := json.loads(text))["scenario"]: line for text in run.stdout.splitlines() if text.startswith("{")}
    assert found, run.stderr[-2000:]
    return found


def found(backend, scenario):
    told = results(backend)[scenario]
    assert "error" not in told, told["error"]
    return told


def chosen(backend, scenario):
    """As `found`, but skipped where a backend does not run the scenario."""
    if scenario not in results(backend):
        pytest.skip(f"not run on {backend}")
    return found(backend, scenario)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scenario", EXPECTED)
def test_an_operation_that_fails_on_one_sample_is_named_with_it(backend, scenario):
    told = chosen(backend, scenario)
    assert told["raised"] and told["untouched"]
    assert tuple(told[k] for k in ("failed", "kind", "cause", "phase", "expression")) == EXPECTED[scenario]
    assert (told["samples"], told["alone"]) == ([BAD], [BAD])
    assert told["elements"][0][:2] == ["y" if scenario == "empty-softmax-row" else "x", [BAD, 0]]
    assert told["reproduced"]
    assert told["parameter"] == ("" if (backend, scenario) in FINITE_GRADIENTS else "adds/kernel")
    assert told["layer"] == ("logs" if scenario == "layer" else "")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("scenario", "element"), [("nan-row", ["x", [BAD, 1], "nan"]), ("inf-feature", ["x", [BAD, 0], "inf"])])
def test_bad_data_are_named_with_their_place(backend, scenario, element):
    told = chosen(backend, scenario)
    assert told["raised"] and told["untouched"]
    assert (told["kind"], told["elements"], told["samples"], told["alone"]) == ("bad data", [element], [BAD], [BAD])


def test_a_read_outside_of_an_embedding_is_bad_data():
    told = found("jax", "outside")  # elsewhere it is an error
    assert told["raised"] and told["untouched"] and "outside of the array" in told["text"]
    assert (told["kind"], told["samples"], told["elements"]) == ("bad data", [BAD], [["x", [BAD, 1], "9.0"]])


def test_averaged_weights_do_not_take_the_place_of_those_before_the_bad_step():
    told = found("jax", "averaged")
    assert told["history"] == {"raised": 1} and told["as_cut_off"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_empty_mask_is_the_whole_batchs_doing(backend):
    told = chosen(backend, "empty-mask")
    assert told["raised"] and told["untouched"]
    assert (told["cause"], told["expression"]) == ("zero-over-zero", "ops.sum(p * y) / ops.sum(y)")


@pytest.mark.parametrize("backend", BACKENDS)
def test_steps_that_a_loss_scale_leaves_out_are_no_incidents(backend):
    told = found(backend, "scaled")
    left_out = [outcome == "left out by the loss scale" for outcome in told["outcomes"]]
    assert told["bad_steps"] == 0 and any(left_out) and not all(left_out)
    assert told["scales"][1:] == [scale / 2 if out else scale for scale, out in zip(told["scales"], left_out, strict=True)][:-1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_overflow_of_half_precision_in_a_layer_is_named_with_the_layer(backend):
    told = found(backend, "half")
    assert told["raised"] and told["untouched"]
    assert (told["failed"], told["kind"], told["layer"], told["parameter"]) == ("loss", "overflow", "adds", "adds/kernel")
    assert told["expression"] == "ops.matmul(inputs, self.kernel)"
    assert told["samples"] == told["alone"] == [BAD]


@pytest.mark.parametrize("backend", BACKENDS)
def test_state_that_a_step_changes_besides_its_parameters_is_as_before(backend):
    told = found(backend, "state")  # statistics of a batch norm and the seed of a dropout
    assert told["raised"] and told["untouched"]
    assert told["samples"] == [BAD]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scenario", ["skip", "several-steps", "eagerly", "rollback", "followed"])
def test_a_run_that_skips_a_batch_is_the_run_without_it(backend, scenario):
    told = chosen(backend, scenario)
    assert told["as_without"] and not told["as_cut_off"]
    assert (told["steps"], told["bad_steps"], told["samples"]) == (BATCHES, 1, [BAD])
    bad = 2 if scenario == "several-steps" else 1
    assert told["outcomes"] == [told["actions"][0] if step == bad else "applied" for step in range(BATCHES)]
    assert all(math.isfinite(value) for values in told["history"].values() for value in values)
    assert [math.isfinite(n) for n in told["norms"]] == [step != bad for step in range(BATCHES)]
    assert len(told["told"]) == (BATCHES if scenario == "followed" else 0) and all(math.isfinite(loss) for loss in told["told"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bad_step_after_many_good_ones_leaves_the_weights_of_those_to_the_last_bit(backend):
    told = chosen(backend, "far")
    assert told["raised"] and told["untouched"]
    assert told["text"].startswith("STEP 20 ") and told["samples"] == [BAD]


@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_a_step_of_two_optimizers_is_taken_back_as_a_whole(backend):
    told = found(backend, "pair")
    assert told["as_without"]
    assert (told["failed"], told["phase"], told["samples"], told["alone"]) == ("loss", "forward", [BAD], [BAD])
    assert told["expression"] == "part(x) / unit"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_that_stops_ends_in_good_order_before_the_update(backend):
    told = chosen(backend, "stop")
    assert told["as_cut_off"] and told["steps"] == 2
    assert all(math.isfinite(value) for values in told["history"].values() for value in values)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_tried_again_leaves_the_bad_samples_out(backend):
    told = chosen(backend, "retry")
    assert told["finite"] and not told["as_without"]
    assert told["outcomes"] == ["applied", "retry", "applied", "applied", "applied"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_last_bad_step_that_patience_bears_raises_and_is_not_applied(backend):
    told = chosen(backend, "patience")
    assert told["history"] == {"raised": 2} and told["actions"] == ["skip", "raise"]
    assert told["as_cut_off"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scenario", HARMLESS)
def test_what_never_reaches_loss_or_parameters_is_no_incident(backend, scenario):
    told = found(backend, scenario)
    assert not told["raised"] and told["incidents"] == 0
    assert not told["untouched"], "the step has updated the parameters"
