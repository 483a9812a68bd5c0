"""The command line: exit codes, one-line errors, what reaches the api, where the report goes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import whynan
from whynan import cli
from whynan.analysis.finding import Finding, Report, Witness
from whynan.cli import entry
from whynan.errors import TargetError

SOURCE = Path(__file__).parents[1] / "src"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SOURCE), "COLUMNS": "100"}


def report(verdict="safe", severity=None, script=""):
    witness = Witness({"p": np.float32([0.0])}, np.float32(np.inf), {}, script)
    found = Finding("WN1", "non-finite", severity, "log-of-zero", "log gives -inf.", "log", "forward", None, ("eager",), witness=witness)
    sites = {"total": 1, "proven": 0, "refuted": 0, "undecided": 1}
    searched = {"evaluations": 3, "seconds": 0.1}
    findings = (found,) if severity else ()
    return Report("losses.py:focal", "torch", "2", "float32", ("eager",), verdict, 0.1, {}, sites, findings, search=searched)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "losses.py").write_text(
        "import whynan\n\n@whynan.domains(t='binary(3)')\ndef focal(p, t, gamma=2.0):\n    return p\n\n\nNUMBER = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture
def api(monkeypatch):
    """Stands for the verbs: remembers what it was called with and answers with `api.report`."""
    from whynan import api as real

    class Api:
        report = report()

        def answer(self, loss, **options):
            self.loss, self.options = loss, options
            return self.report

    fake = Api()
    monkeypatch.setattr(real, "check", fake.answer)
    monkeypatch.setattr(real, "explain", fake.answer)
    return fake


# ---------------------------------------------------------------- exit codes


@pytest.mark.parametrize(
    ("verdict", "severity", "strict", "code"),
    [
        ("safe", None, [], 0),
        ("safe", "warning", [], 0),
        ("safe", "warning", ["--strict"], 0),
        ("undecided", None, [], 0),
        ("undecided", None, ["--strict"], 1),
        ("unsafe", "error", [], 1),
        ("unsafe", "error", ["--strict"], 1),
    ],
)
def test_exit_codes(folder, api, capsys, verdict, severity, strict, code):
    api.report = report(verdict, severity)
    assert cli.main(["check", "losses.py:focal", *strict]) == code
    assert "focal" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check"], "Missing argument 'TARGET'"),
        (["check", "losses.py:focal", "--banana"], "No such option"),
        (["chekc", "losses.py:focal"], "No such command"),
        (["check", "losses.py:focal", "--dtype", "int3"], "'int3' is not one of"),
        (["check", "losses.py:focal", "--budget", "-1"], "Invalid value for '--budget'"),
        (["check", "losses.py:focal", "--framework", "numpy"], "'numpy' is not one of"),
        (["check", "losses.py:focla"], "Did you mean focal?"),
        (["check", "nothing.py:focal"], "there is no file nothing.py"),
        (["check", "losses.py:NUMBER"], "is a int, which cannot be called"),
        (["check", "losses.py:focal", "-d", "p=porb(3)"], "Did you mean prob?"),
        (["check", "losses.py:focal", "-d", "prob(3)"], "is not NAME=DOMAIN"),
        (["check", "losses.py:focal", "-d", "p=prob(3)", "-d", "p=prob(3)"], "given twice"),
        (["check", "losses.py:focal", "--samples", "none.npz"], "there is no sample file none.npz"),
        (["check", "losses.py:focal", "--samples", "losses.py"], "is not a sample file"),
        (["check", "losses.py:focal", "--output", "no/such/folder.txt"], "there is no folder no/such"),
        (["explain", "losses.py:focal"], "there is no input to explain"),
        (["explain", "losses.py:focal", "-d", "p=prob(3)"], "p: that is a domain, not a value"),
    ],
)
def test_bad_usage_is_exit_2_and_one_line(folder, api, capsys, arguments, said):
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert err.startswith("whynan: ")
    assert err.count("\n") == 1
    assert out == ""


def test_errors_of_the_run_are_one_line_unless_a_traceback_is_asked_for(folder, api, monkeypatch, capsys):
    def fails(*_, **__):
        raise TargetError("losses.py:focal raised RuntimeError: sizes\ndo not match.", "Give other shapes.")

    monkeypatch.setattr("whynan.api.check", fails)
    assert cli.main(["check", "losses.py:focal"]) == 2
    assert capsys.readouterr().err == "whynan: losses.py:focal raised RuntimeError: sizes do not match. Give other shapes.\n"
    assert cli.main(["check", "losses.py:focal", "--traceback"]) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_defect_of_whynan_says_so(folder, api, monkeypatch, capsys):
    monkeypatch.setattr("whynan.api.check", lambda *_, **__: 1 / 0)
    assert cli.main(["check", "losses.py:focal"]) == 2
    assert capsys.readouterr().err == (
        "whynan: whynan itself failed with ZeroDivisionError: division by zero. Run again with --traceback and report what it prints.\n"
    )


def test_version_and_help(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"whynan {whynan.__version__}\n"
    assert cli.main(["check", "--help"]) == 0
    shown = capsys.readouterr().out
    options = "--domain --samples --framework --mode --dtype --budget --seed --strict --format --output --script"
    assert [option for option in options.split() if option not in shown] == []


# ---------------------------------------------------------------- what reaches the api


def test_options_reach_the_api(folder, api, capsys):
    plain = "--mode eager,compile --mode all --dtype float16 --budget 2 --seed 7 --framework jax --accuracy"
    assert cli.main(["check", "losses.py:focal", "-d", "p=prob(8, 1)", *plain.split()]) == 0
    assert api.loss.__name__ == "focal"
    domains = api.options.pop("domains")
    assert {n: str(d) for n, d in domains.items()} == {"t": "binary(3)", "p": "prob(8, 1)"}
    assert api.options == {
        "name": "losses.py:focal",
        "framework": "jax",
        "modes": ("eager", "compile", "all"),
        "dtype": "float16",
        "budget": 2.0,
        "accuracy": True,
        "seed": 7,
        "envelope": False,
    }


@pytest.mark.parametrize(
    ("arguments", "passed"),
    [([], False), (["--envelope"], True), (["--envelope-dtype", "float16", "--envelope-dtype", "all"], ("float16", "all"))],
)
def test_the_envelope_is_asked_for(folder, api, capsys, arguments, passed):
    assert cli.main(["check", "losses.py:focal", "-d", "p=prob(3)", *arguments]) == 0
    assert api.options["envelope"] == passed


def test_later_sources_of_domains_win(folder, api, capsys):
    (folder / "pyproject.toml").write_text(
        '[tool.whynan.domains]\np = "real(1)"\nt = "real(1)"\nother = "real(1)"\n'
        '[tool.whynan.domains."losses.py:focal"]\ngamma = "real(2)"\n'
    )
    np.savez("s.npz", p=np.float32([0.5]), unused=np.float32([1]))
    cli.main(["check", "losses.py:focal", "--samples", "s.npz", "-d", "gamma=2.0"])
    domains = api.options["domains"]
    assert set(domains) == {"p", "t", "gamma"}
    assert domains["p"].tolist() == [0.5]
    assert (str(domains["t"]), str(domains["gamma"])) == ("binary(3)", "const(2.0)")


def test_samples_must_name_arguments(folder, api, capsys):
    np.savez("s.npz", q=np.float32([0.5]))
    assert cli.main(["check", "losses.py:focal", "--samples", "s.npz"]) == 2
    assert "s.npz holds q, but the loss takes p, t, gamma." in capsys.readouterr().err


def test_explain_passes_values(folder, api, capsys):
    np.savez("s.npz", p=np.float32([0.5]))
    assert cli.main(["explain", "losses.py:focal", "--samples", "s.npz", "-d", "t=[1.0]"]) == 0
    assert {name: value.tolist() for name, value in api.options["tensors"].items()} == {"p": [0.5], "t": [1.0]}


def test_explain_passes_an_incident_on(folder, api, capsys):
    (folder / "incident").mkdir()
    assert cli.main(["explain", "incident"]) == 0
    assert api.loss == Path("incident")


# ---------------------------------------------------------------- where the report goes


def test_json(folder, api, capsys):
    api.report = report("unsafe", "error")
    assert cli.main(["check", "losses.py:focal", "--format", "json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["verdict"]) == ("whynan.report/1", "unsafe")


def test_html_and_sarif(folder, api, capsys):
    api.report = report("unsafe", "error")
    assert cli.main(["check", "losses.py:focal", "--format", "html"]) == 1
    assert capsys.readouterr().out.startswith("<!DOCTYPE html>")
    assert cli.main(["check", "losses.py:focal", "--format", "sarif", "--output", "r.sarif"]) == 1
    assert json.loads(Path("r.sarif").read_text())["version"] == "2.1.0"


def test_output_and_script_files(folder, api, capsys):
    api.report = report("unsafe", "error", script="print('again')\n")
    assert cli.main(["check", "losses.py:focal", "--output", "r.txt", "--script", "again.py"]) == 1
    assert capsys.readouterr() == ("", "")
    assert "focal" in Path("r.txt").read_text()
    assert "\x1b" not in Path("r.txt").read_text()
    assert Path("again.py").read_text() == "print('again')\n"


def test_no_script_without_a_failure(folder, api, capsys):
    assert cli.main(["check", "losses.py:focal", "--script", "again.py"]) == 0
    assert "again.py is not written" in capsys.readouterr().err
    assert not Path("again.py").exists()


# ---------------------------------------------------------------- as a process

SLOW = "import time\n\nprint('imported', flush=True)\ntime.sleep(60)\n"


def test_interrupting_is_quiet_and_leaves_nothing_behind(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    before = set(tmp_path.iterdir())
    command = [sys.executable, "-B", "-m", "whynan", "check", "slow.py:f", "--output", "r.txt"]
    process = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr.readline() == "imported\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, "", "")
    assert set(tmp_path.iterdir()) == before


def test_a_closed_pipe_is_quiet(tmp_path):
    shell = f"{sys.executable} -m whynan --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr
    assert done.stdout.strip() in ("0", str(entry.BROKEN_PIPE))


def test_the_process_exits_with_the_code(tmp_path):
    command = [sys.executable, "-m", "whynan", "check", "no.py:f"]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "whynan: there is no file no.py. Check the path, or write package.module:EXPR for an installed module.\n"
