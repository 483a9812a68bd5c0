"""Checks in mode compile: verdicts, modes of a witness, proofs that hold for the code that really runs."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import whynan
from whynan.analysis.propagate import propagate
from whynan.domain.abstract import bounds_of
from whynan.domain.sample import draw
from whynan.frontends.torch import load

pytestmark = pytest.mark.slow

BOTH = ("eager", "compile")


def errors(report):
    return [f for f in report.findings if f.severity == "error"]


def test_a_failure_in_both_modes_is_one_finding():
    def loss(p, t):
        return -(t * torch.log(p)).mean()

    report = whynan.check(loss, p=whynan.prob(4, 1), t=whynan.binary(4, 1), modes="all")
    assert report.verdict == "unsafe"
    assert report.modes == BOTH
    forward = next(f for f in errors(report) if f.phase == "forward")
    assert (forward.cause, forward.modes, forward.site.text) == ("log-of-zero", BOTH, "torch.log(p)")
    assert not np.isfinite(forward.witness.replay().loss)


def test_a_clamped_loss_is_proven_and_a_masked_gradient_found():
    def clamped(p):
        return -torch.log(p.clamp(1e-6, 1 - 1e-6)).mean()

    def masked(x):
        return torch.where(x > 0, torch.log(x), 0.0).sum()

    assert whynan.check(clamped, p=whynan.prob(4), modes="compile").verdict == "safe"
    report = whynan.check(masked, x=whynan.real(4), modes="compile")
    (finding,) = errors(report)
    assert (finding.cause, finding.phase, finding.site.text) == ("masked-branch-gradient", "backward", "torch.log(x)")


def test_an_overflow_of_float16_that_vanishes_in_a_fused_kernel():
    def loss(x):
        return (x * x / 100).mean()

    report = whynan.check(loss, x=whynan.real(4, dtype="float16", low=-1000, high=1000), modes="all")
    assert report.verdict == "unsafe"
    assert {f.modes for f in errors(report)} == {("eager",)}
    assert any("stay finite" in o.reason for o in report.undecided)  # another kernel might round between


def test_a_failure_that_only_the_compiled_code_has():
    def loss(x):
        return (1 / torch.expm1(x)).mean()

    domain = whynan.real(32, low=1e-8, high=1.0)
    assert whynan.check(loss, x=domain, modes="eager").verdict != "unsafe"
    report = whynan.check(loss, x=domain, modes="compile")
    assert report.verdict != "safe"
    run = load(loss, "loss").run({"x": np.full(32, 1e-8, np.float32)}, ("x",), "compile")
    assert (report.verdict == "unsafe") == (not np.isfinite(run.loss))


def _entropy(x, y):
    p = torch.sigmoid(x)
    return -(y * torch.log(p + 1e-3) + (1 - y) * torch.log(1 - p + 1e-3)).mean()


def _mixture(x, y):
    return (torch.softmax(x, -1) * y).sum().sqrt() + (x.tanh() ** 3 - torch.erf(y) + torch.expm1(-x.abs())).var()


@pytest.mark.parametrize(("loss", "dtype"), [(_entropy, "float32"), (_entropy, "bfloat16"), (_mixture, "float32"), (_mixture, "float16")])
def test_bounds_hold_what_the_compiled_code_computes(loss, dtype):
    domains = {"x": whynan.real(3, 5, low=-20, high=20, dtype=dtype), "y": whynan.prob(3, 5, dtype=dtype)}
    program, rng = load(loss, "loss"), np.random.default_rng(0)
    inputs = [{n: draw(d, rng) for n, d in domains.items()} for _ in range(40)]
    graph = program.capture(inputs[0], ("x", "y"), "compile").graph
    proof = propagate(graph, {n: bounds_of(domains[n]) for n in graph.inputs}, 1000)
    for one in inputs:
        run = program.run(one, ("x", "y"), "compile")
        assert not run.error
        for o in graph.outputs:
            real = np.asarray(run.loss if o.kind == "loss" else run.gradients[o.name], np.float64)
            b = proof.bounds[o.node]
            finite = np.isfinite(real)
            assert (b.may_nan | ~np.isnan(real)).all()
            assert ((real >= b.lo) & (real <= b.hi) | ~finite).all(), (o.name, real, b.lo, b.hi)


def test_gradients_and_seeds_of_a_run_are_those_of_the_compiled_loss():
    def loss(x):
        return (torch.nn.functional.dropout(x, 0.5) * x).sum()

    program, x = load(loss, "loss", seed=3), {"x": np.arange(1, 17, dtype=np.float32)}
    one, two = (program.run(x, ("x",), "compile") for _ in range(2))
    assert one.loss == two.loss
    assert np.array_equal(one.gradients["x"], two.gradients["x"])
    assert set(np.unique(one.gradients["x"] / x["x"])) <= {0.0, 4.0}  # the mask of the run itself


def test_a_machine_without_a_compiler_is_told_what_to_install(tmp_path):
    code = (
        "import numpy as np, torch; from whynan.frontends.torch import load; from whynan.errors import TargetError\n"
        "program, x = load(lambda x: (x.log() * 1.2345).sum(), 'loss'), {'x': np.ones(7, np.float32)}\n"
        "try: program.run(x, ('x',), 'compile')\n"
        "except TargetError as error: print(error)\n"
        "assert program.run(x, ('x',), 'eager').loss == 0\n"
        "program.capture(x, ('x',), 'compile')\n"
    )
    lost = {**os.environ, "CXX": "/no/such/compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    said = subprocess.run([sys.executable, "-c", code], env=lost, capture_output=True, text=True, check=True).stdout
    assert said.startswith("torch.compile finds no working C++ compiler on this machine. Install g++")
    assert len(said.splitlines()) == 1
