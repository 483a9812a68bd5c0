"""The verbs end to end on PyTorch: targets, domains, seeds, and what is said when something does not fit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import whynan
from whynan import cli
from whynan.cli import entry
from whynan.errors import DomainError, TargetError

torch = pytest.importorskip("torch")

SOURCE = Path(__file__).parents[1] / "src"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SOURCE), "COLUMNS": "100", "OMP_NUM_THREADS": "1"}

LOSSES = """
import sys
import time

import torch
import torch.nn.functional as F


def mse(p, t):
    return F.mse_loss(p, t)


def bce(p, t):
    return -(t * torch.log(p) + (1 - t) * torch.log(1 - p)).mean()


def raises(p, t):
    raise ValueError("no\\nway")


def nothing(p, t):
    return None


def constant(p, t):
    return torch.tensor(3.0)


def detached(p, t):
    return F.mse_loss(p, t).detach()


def config(p, cfg):
    return p.mean() * cfg.scale


def exits(p, t):
    sys.exit(3)


def star(*xs):
    return sum(x.mean() for x in xs)


async def later(p, t):
    return p


def steps(p, t):
    yield p


def prints(p, t):
    print("noise")
    return F.mse_loss(p, t)


def dropout(p, t):
    return F.mse_loss(F.dropout(p, 0.5), t)


def slow(p, t):
    time.sleep(0.05)
    return bce(p, t)


def pairs(embeddings, labels=None):
    if labels is None:
        raise ValueError("labels are required")
    return torch.cdist(embeddings, embeddings)[labels[:, None] == labels].mean()


def selected(embeddings, labels):
    near = (1 - torch.cdist(embeddings, embeddings)).clamp(min=0.1, max=0.9)
    return near[labels[:, None] != labels].sum()


def forked(p, t):
    return p.mean() if p.sum() > 0 else t.mean()


def scaled(p, t):
    return p.mean() * float(t.sum())
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "losses.py").write_text(LOSSES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


# ---------------------------------------------------------------- what cannot be checked


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("check losses.py:raises", "losses.py:raises raised ValueError: no on p="),
        ("check losses.py:raises -d p=prob(3) -d t=prob(3)", "losses.py:raises raised ValueError: no on p=prob(3), t=prob(3)"),
        ("check losses.py:nothing", "losses.py:nothing returned a NoneType"),
        ("check losses.py:nothing -d p=prob(3) -d t=prob(3)", "losses.py:nothing returned a NoneType"),
        ("check losses.py:constant", "no gradient of losses.py:constant reaches its inputs"),
        ("check losses.py:constant -d p=prob(3) -d t=prob(3)", "does not depend on any of its inputs"),
        ("check losses.py:detached", "no gradient of losses.py:detached reaches its inputs"),
        ("check losses.py:config", "no usual domain fits p, cfg"),
        ("check losses.py:exits", "raised SystemExit: 3"),
        ("check losses.py:star", "has no named arguments"),
        ("check losses.py:later", "is a coroutine function"),
        ("check losses.py:steps", "is a generator function"),
        ("check losses.py:mse -d p=prob(3) -d t=prob(4)", "must match the size"),
        ("check losses.py:mse -d q=prob(3)", "has no argument 'q'. It takes p, t."),
        ("check losses.py:mse -d p=prob(3,low=2)", "so the domain is empty"),
        ("check losses.py:mse -d p=prob(99999,99999,99) -d t=prob(3)", "do not fit into memory"),
        ("check losses.py:mse --mode xla", "PyTorch has no mode 'xla'. Choose from eager, compile."),
        ("check losses.py:mse --output no/where.txt", "no/where.txt cannot be written"),
        ("check losses.py:mse --samples broken.npz", "broken.npz cannot be read: it is no .npz archive"),
        ("check losses.py:mse --samples broken.pt", "broken.pt cannot be read"),
        ("explain incident.json", "an incident is broken"),
        ("explain losses.py:bce -d p=[0.5]", "no value is given for t"),
    ],
)
def test_each_is_one_line_and_exit_2(folder, capsys, arguments, said):
    for name in ("broken.npz", "broken.pt", "incident.json"):
        (folder / name).write_bytes(b"not what it says")
    assert cli.main(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert (err.count("\n"), out) == (1, "")


@pytest.mark.parametrize(("framework", "product"), [("jax", "JAX"), ("tensorflow", "TensorFlow")])
def test_a_framework_that_is_not_installed_says_which_extra_to_install(folder, capsys, monkeypatch, framework, product):
    monkeypatch.setitem(sys.modules, framework, None)
    assert cli.main(["check", "losses.py:mse", "--framework", framework]) == 2
    err = capsys.readouterr().err
    assert f"{product} cannot be imported" in err
    assert f"pip install 'whynan[{framework}]'" in err


def test_a_value_that_is_a_domain_is_refused(folder):
    with pytest.raises(DomainError, match=r"p = prob\(3\) is a domain, not a value"):
        whynan.explain("losses.py:bce", p=whynan.prob(3), t=np.float32([1, 1, 1]))
    with pytest.raises(TargetError, match="which cannot be called"):
        whynan.check(3)


# ---------------------------------------------------------------- targets and domains


def test_targets_as_text_and_as_objects(folder):
    as_text = whynan.check("losses.py:bce", p="prob(3)", t="binary(3)", modes="eager")
    assert (as_text.verdict, as_text.findings[0].cause) == ("unsafe", "log-of-zero")
    assert whynan.check(torch.nn.BCELoss()).verdict == whynan.check(torch.nn.BCELoss).verdict == "safe"


def test_a_target_as_text_brings_the_domains_of_its_project(folder):
    (folder / "pyproject.toml").write_text('[tool.whynan.domains]\np = "prob(2, low=0.1, high=0.9)"\nt = "binary(2)"\nother = "real()"\n')
    report = whynan.check("losses.py:bce")
    assert {n: str(d) for n, d in report.domain.items()} == {"p": "prob(2, low=0.1, high=0.9)", "t": "binary(2)"}
    assert report.verdict == "safe"
    assert str(whynan.check("losses.py:bce", p="prob(2)").domain["p"]) == "prob(2)"


def test_the_seed_reaches_the_loss(folder):
    drop = lambda p: torch.nn.functional.dropout(p, 0.5)  # noqa: E731
    losses = {seed: float(whynan.explain(drop, p=np.ones(64, np.float32), seed=seed).search["evaluations"]) for seed in (0, 1)}
    assert losses == {0: 1.0, 1: 1.0}
    from whynan.frontends.torch import load

    runs = [load(drop, "drop", seed).run({"p": np.ones(64, np.float32)}, ("p",)) for seed in (0, 0, 1)]
    assert runs[0].loss == runs[1].loss
    assert not np.array_equal(runs[0].gradients["p"], runs[2].gradients["p"])
    assert any("random numbers" in note for note in whynan.check("losses.py:dropout").notes)


def test_large_gradients_are_shown_on_a_simple_input():
    report = whynan.check("torch.nn.functional:binary_cross_entropy", input="prob(6)", target="binary(6)")
    steep = next(f for f in report.findings if f.kind == "exploding-gradient")
    values = steep.witness.inputs["input"]
    assert len(np.unique(values)) <= 2
    assert max(np.abs(g).max() for g in steep.witness.replay().gradients.values()) > 1e6


def test_a_hinge_is_no_dead_gradient():
    for name in ("margin_ranking_loss", "triplet_margin_loss"):
        assert [f.kind for f in whynan.check(f"torch.nn.functional:{name}").findings if f.kind == "dead-gradient"] == []


def test_both_sides_of_a_branch_on_a_value_are_proven(folder):
    assert whynan.check("losses.py:forked", p="real(2)", t="real(2, grad=True)").verdict == "safe"


def test_a_number_that_leaves_the_framework_is_named_by_its_line(folder):
    report = whynan.check("losses.py:scaled", p="real(2)", t="real(2, grad=True)")
    assert report.verdict == "undecided"
    assert [o.site.text for o in report.undecided if o.op == "path" and o.site] != []
    assert "the path that the code takes at losses.py:" in str(report).replace(f"{Path.cwd()}/", "")
    assert "where() on tensors" in str(report)


def test_an_optional_target_is_given_where_the_loss_needs_it(folder):
    report = whynan.check("losses.py:pairs")
    assert {n: str(d) for n, d in report.domain.items()} == {"embeddings": "real(4, 3)", "labels": "classes(3, 4)"}


def test_a_loss_that_selects_by_its_labels_is_proven(folder):
    assert whynan.check("losses.py:selected", embeddings="real(4, 3)", labels="classes(3, 4)").verdict == "safe"


# ---------------------------------------------------------------- explain


def test_explain_says_that_it_is_about_one_input(folder, capsys):
    np.savez("batch.npz", p=np.float32([0.5, 0.25]), t=np.float32([1, 0]), unused=np.float32([1]))
    assert cli.main(["explain", "losses.py:bce", "--samples", "batch.npz"]) == 0
    shown = capsys.readouterr().out
    assert "finite on this one input" in shown
    assert "nothing is proven about any other" in shown


def test_explain_shows_the_chain(folder, capsys):
    np.savez("batch.npz", p=np.float32([0.5, 1.0]), t=np.float32([1, 0]))
    assert cli.main(["explain", "losses.py:bce", "--samples", "batch.npz"]) == 1
    shown = capsys.readouterr().out
    assert "on this input: log(0)" in shown
    assert "log(0) -> -inf" in shown


def test_samples_stand_for_domains(folder):
    np.savez("batch.npz", p=np.float32([0.5, 0.25]), t=np.float32([1, 0]))
    assert cli.main(["check", "losses.py:bce", "--samples", "batch.npz", "--format", "json", "--output", "r.json"]) == 1
    domain = json.loads(Path("r.json").read_text())["domain"]
    assert (domain["p"]["kind"], domain["t"]["kind"], domain["p"]["shape"]) == ("prob", "binary", [2])


# ---------------------------------------------------------------- as a process


def run(folder, *arguments, **options):
    command = [sys.executable, "-m", "whynan", *arguments]
    return subprocess.run(command, cwd=folder, env={**ENVIRONMENT, **options}, capture_output=True, text=True, check=False)


def test_what_the_loss_prints_stays_out_of_the_report(folder):
    (folder / "loud.py").write_text("print('imported')\n" + LOSSES)
    done = run(folder, "check", "loud.py:prints", "--format", "json")
    assert json.loads(done.stdout)["verdict"] == "safe"
    assert done.stderr == "imported\n"


def test_a_terminal_without_utf_8(folder):
    (folder / "names.py").write_text("import torch\n\n\ndef größe(p):\n    return torch.log(p).mean()  # größer\n", encoding="utf-8")
    done = run(folder, "check", "names.py:größe", "-d", "p=prob(2)", PYTHONIOENCODING="ascii")
    assert done.returncode == 1, done.stderr
    assert done.stdout.isascii()


def test_interrupting_a_check_is_quiet_and_leaves_nothing_behind(folder):
    before = {p for p in folder.iterdir() if p.name != "__pycache__"}
    command = [sys.executable, "-B", "-m", "whynan", "check", "losses.py:slow", "-d", "p=prob(4)", "-d", "t=binary(4)", "--budget", "60"]
    process = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(6)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "")
    assert {p for p in folder.iterdir() if p.name != "__pycache__"} == before


def test_a_closed_pipe(folder):
    shell = f"{sys.executable} -m whynan check losses.py:bce -d 'p=prob(2)' -d 't=binary(2)' | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.strip() in ("1", str(entry.BROKEN_PIPE))
