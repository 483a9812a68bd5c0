"""An audit of a small package in which losses fail, hang and kill their process."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from benchmarks.audit.run import joined
from tests.soundness.adversarial.attack import judge
from tests.soundness.adversarial.targets import proven

import whynan
from whynan.audits import command, store, table
from whynan.audits.run import Options, planned
from whynan.audits.run import run as run_audit
from whynan.cli import main
from whynan.errors import TargetError

MODULE = "tests.audits.fake_losses"
OVERRIDES = """
[domains]
p = "prob(4)"
t = "prob(4)"
[losses.ScaledLoss]
call = "ScaledLoss(2.0)"
[losses.BrokenLoss]
exclude = "it is broken"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("audit")
    (place / "overrides.toml").write_text(OVERRIDES)
    return place


@pytest.fixture(scope="module")
def done(folder: Path):
    """The audit, done once; its losses hang for no longer than 12 seconds."""
    return run_audit(MODULE, Options(timeout=12, jobs=2), folder, folder / "overrides.toml")


@pytest.mark.slow
def test_each_loss_has_its_row_whatever_it_does(done) -> None:
    verdicts = {record.name: record.verdict for record in done.records}
    assert verdicts == {
        "squared_loss": "safe",
        "ScaledLoss": "safe",
        "log_loss": "unsafe",
        "sleeping_loss": "hung",
        "deadly_loss": "crashed",
        "refused_loss": "refused",
        "BrokenLoss": "excluded",
    }
    reasons = {record.name: record.reason for record in done.records}
    assert "exit code 3" in reasons["deadly_loss"] and "12 s" in reasons["sleeping_loss"]
    assert "it takes no inputs at all" in reasons["refused_loss"] and reasons["BrokenLoss"] == "it is broken"
    assert done.others == ("learning_rate",)


@pytest.mark.slow
def test_a_failure_is_confirmed_by_its_program_in_a_fresh_process(done, folder: Path) -> None:
    (record,) = (r for r in done.records if r.name == "log_loss")
    assert record.confirmed and all(record.confirmed) and table.row_of(record).confirmed is True
    assert "log-of-zero" in table.row_of(record).causes
    again = subprocess.run([sys.executable, folder / "losses" / "log_loss.py"], capture_output=True, check=False)
    assert again.returncode == 1, again.stderr


@pytest.mark.slow
def test_a_second_audit_does_only_what_is_missing_or_asked_anew(done, folder: Path) -> None:
    heard = []
    (folder / "losses" / "squared_loss.json").unlink()
    options = Options(timeout=12, jobs=1)
    again = run_audit(MODULE, options, folder, folder / "overrides.toml", lambda d, n, record: heard.append(record))
    assert [r.name for r in heard if r is not None] == ["squared_loss"]
    assert {r.name: r.verdict for r in again.records} == {r.name: r.verdict for r in done.records}
    other = Options(timeout=12, jobs=1, seed=1, only=["squared"])
    run_audit(MODULE, other, folder, folder / "overrides.toml", lambda d, n, record: heard.append(record))
    assert [r.name for r in heard if r is not None] == ["squared_loss", "squared_loss"]  # other options: another answer
    (folder / "losses" / "squared_loss.json").write_text('{"schema": "whynan.audit/1", "na')  # as an interruption would leave it
    run_audit(MODULE, options, folder, folder / "overrides.toml", lambda d, n, record: heard.append(record))
    assert len([r for r in heard if r is not None]) == 3


@pytest.mark.slow
def test_a_loss_that_was_ended_is_tried_again_only_with_more_time(done, folder: Path) -> None:
    heard = []
    for timeout in (1.0, 12.5):
        options = Options(timeout=timeout, jobs=1, only=["sleeping"])
        run_audit(MODULE, options, folder, folder / "overrides.toml", lambda d, n, record: heard.append(record))
    assert [r.seconds for r in heard if r is not None] == [12.5]


@pytest.mark.slow
def test_the_tables_link_pages_and_programs_that_exist(done, folder: Path) -> None:
    command.write(done, folder)
    page, text = (folder / "index.html").read_text(), (folder / "README.md").read_text()
    assert "losses/log_loss.html" in page and "losses/log_loss.py" in page and "(losses/log_loss.py)" in text
    assert all((folder / "losses" / name).is_file() for name in ("log_loss.html", "log_loss.py", "squared_loss.html"))
    assert not (folder / "losses" / "squared_loss.py").exists()
    data = json.loads((folder / "audit.json").read_text())
    assert data["counts"]["decided"] == 0.5 and data["counts"]["losses"] == 7 and data["counts"]["excluded"] == 1
    assert data["versions"]["torch"] and len(data["losses"]) == 7


@pytest.mark.slow
def test_a_report_that_was_kept_reads_as_it_was_written(done, folder: Path) -> None:
    for record in store.load_all(folder):
        report = store.report_of(record)
        shown = str(whynan.Report.of(report))
        assert record.verdict in (report.verdict, record.status) and shown
        if record.report is not None:
            assert whynan.Report.of(report).to_dict() == record.report


@pytest.mark.slow
def test_the_proofs_of_an_audit_can_be_attacked(done, folder: Path) -> None:
    targets = {t.key: t for t in proven(folder)}
    assert set(targets) == {f"{MODULE}:squared_loss torch eager", f"{MODULE}:ScaledLoss(2.0) torch eager"}
    target = targets[f"{MODULE}:ScaledLoss(2.0) torch eager"]
    assert {n: str(d) for n, d in target.domains.items()} == {"p": "prob(4)", "t": "prob(4)"}
    result = judge(target.name, target.loss, target.domains, "float32", 300, framework=target.framework, mode=target.mode)
    assert result.verdict == "safe" and result.attacked.runs >= 300 and not result.attacked.failures


def test_rows_of_a_later_audit_take_the_place_of_the_old_ones() -> None:
    old = {"commit": "aaa, bbb", "versions": {}, "losses": [{"name": n, "verdict": "undecided"} for n in ("a", "B", "c")]}
    new = {"commit": "ccc", "versions": {}, "losses": [{"name": "B", "verdict": "safe"}]}
    both = joined(old, new)
    assert [(row["name"], row["verdict"]) for row in both["losses"]] == [("a", "undecided"), ("B", "safe"), ("c", "undecided")]
    assert both["commit"] == "aaa, bbb, ccc" and both["counts"]["safe"] == 1 and both["counts"]["decided"] == 0.3333


@pytest.mark.slow
def test_in_python_an_audit_is_a_list_of_reports(folder: Path, done) -> None:
    reports = whynan.audit(MODULE, output=folder, overrides=folder / "overrides.toml", timeout=12, jobs=1)
    verdicts = {r.target.rpartition(":")[2]: r.verdict for r in reports}
    assert verdicts["log_loss"] == "unsafe" and verdicts["ScaledLoss(2.0)"] == "safe" and verdicts["deadly_loss"] == "undecided"
    assert any("exit code 3" in note for r in reports for note in r.notes)


@pytest.mark.slow
def test_the_command_line_says_by_its_exit_code_what_was_found(folder: Path, done, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["audit", MODULE, "--output", str(folder), "--overrides", str(folder / "overrides.toml"), "--timeout", "12", "--jobs", "1"]
    assert main([*given, "--format", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["counts"]["unsafe"] == 1
    assert main([*given, "--only", "squared"]) == 0
    assert "1 losses: 1 safe" in capsys.readouterr().out
    assert main([*given, "--only", "deadly", "--strict"]) == 1
    assert main(["audit", "no_such_module_anywhere", "--output", str(folder)]) == 2
    assert capsys.readouterr().err.count("Traceback") == 0


def test_a_module_without_losses_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(TargetError, match="exports no losses"):
        planned("json", Options())


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_done_and_leaves_no_process_behind(folder: Path, tmp_path: Path) -> None:
    class Stop(KeyboardInterrupt):
        pass

    def tell(count, total, record) -> None:
        if record is not None:
            raise Stop

    start = time.monotonic()
    with pytest.raises(Stop):
        run_audit(MODULE, Options(timeout=300, jobs=2, only=["squared", "sleeping"]), tmp_path, folder / "overrides.toml", tell)
    assert time.monotonic() - start < 60
    assert store.load(tmp_path / "losses", "squared_loss") is not None


def test_names_that_differ_in_case_only_get_files_of_their_own() -> None:
    names = store.file_names(["Dice", "dice", "Focal"])
    assert names["Focal"] == "Focal" and len({n.lower() for n in names.values()}) == 3
