"""Writing incidents: what is in a folder, that it is whole, that nothing is overwritten, and what is left out where it does not fit."""

import json
import math
import os
import sys
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
import torch
from tests.watch.incidents import finding, incident

from whynan.analysis.finding import Witness
from whynan.watching import bundle
from whynan.watching.bundle import planned, save, without_data
from whynan.watching.json import dumps, loads, to_dict
from whynan.watching.overseer import Overseer
from whynan.watching.policy import Options
from whynan.watching.read import read
from whynan.watching.record import Element, Incident, Moment, Stored, Suspects
from whynan.watching.tensors import NotStored, flat, leaves, measured
from whynan.watching.valid import fault

safetensors = pytest.importorskip("safetensors")


def saved(incident: Incident, folder, **options):
    return save(incident, Options(folder=folder, **options))


def stored(folder):
    """The tensors of a bundle as the safetensors package reads them: dtype, shape and bytes by name."""
    found = safetensors.deserialize((folder / "tensors.safetensors").read_bytes())
    return {name: (view["dtype"], tuple(view["shape"]), bytes(view["data"])) for name, view in found}


# ---------------------------------------------------------------- the folder


def test_what_is_in_a_folder(tmp_path):
    folder = saved(incident(tensors={"batch/p": np.zeros(3)}), tmp_path / "deep" / "er")
    assert folder == tmp_path / "deep" / "er" / "2026-03-01T08-44-48-step-1204-rank-0"
    assert sorted(f.name for f in folder.iterdir()) == ["incident.json", "replay.py", "report.html", "report.txt", "tensors.safetensors"]
    assert "torch.log(p)" in (folder / "report.txt").read_text() and "log-of-zero" in (folder / "report.html").read_text()
    compile((folder / "replay.py").read_text(), "replay.py", "exec")
    assert list(tmp_path.rglob(".*")) == []


def test_names_are_unique_and_nothing_is_overwritten(tmp_path):
    folders = [saved(incident(notes=(str(i),)), tmp_path) for i in range(3)]
    assert [f.name.rpartition("rank-")[2] for f in folders] == ["0", "0-2", "0-3"]
    assert [read(f).notes for f in folders] == [("0",), ("1",), ("2",)]


@pytest.mark.parametrize("when", ["", "../../x", "\x1b[2J", "2026-03-01T08:44:48.123456+00:00"])
def test_a_name_is_always_a_plain_name(tmp_path, when):
    folder = saved(incident(when=when), tmp_path)
    assert folder.parent == tmp_path and folder.name.replace("-", "").isalnum()


def test_a_folder_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(*_):
        assert [f.name[:9] for f in tmp_path.iterdir()] == [".writing-"]
        raise OSError("no space left on device")

    monkeypatch.setattr(bundle, "write", full)
    with pytest.raises(OSError, match="no space"):
        saved(incident(tensors={"batch/p": np.zeros(3)}), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_an_os_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="denied"):
        saved(incident(), tmp_path / "x")


# ---------------------------------------------------------------- incident.json


def test_json_and_back():
    given = incident(suspects=Suspects((3,), (3,), (Element("x", (3, 2), math.nan), Element("y", (), -math.inf)), 8, 2))
    given = replace(given, loss=math.nan, stored=(Stored("batch/x", "float32", (8, 2), 8, (3,)), Stored("y", "", (), left_out="why")))
    text = dumps(given)
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    again = loads(text)
    assert to_dict(again) == to_dict(given)
    assert (again.cause, again.sample, again.parameter) == ("log-of-zero", 3, "head.weight")
    assert again.finding.chain[1].inputs == ("1.0", "-inf") and again.finding.fixes[0].applicability == "verified"
    assert again.finding.site == given.finding.site and repr(again.moments) == repr(given.moments)


@pytest.mark.parametrize("finding", [None, finding()])
def test_json_is_as_its_schema_says(finding):
    assert fault(to_dict(incident(finding=finding)), "watching/schema.json") == ""


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        (["step"], "3", "step is no integer"),
        (["step"], True, "step is no integer"),
        (["loss"], "nan", "loss is no"),
        (["moments", 0, "loss"], None, "moments[0].loss is no"),
        (["finding", "severity"], "fatal", "finding.severity is none of"),
        (["suspects", "elements", 0, "index"], [1.5], "suspects.elements[0].index[0] is no integer"),
        (["when"], "x" * 301, "when is too long"),
        (["finding"], {}, "finding has no id"),
        (["tensors"], {}, "tensors is no array"),
    ],
)
def test_the_schema_finds_what_is_wrong(path, value, what):
    data = to_dict(incident())
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    assert fault(data, "watching/schema.json").startswith(what)


def test_a_witness_is_not_written():
    witness = Witness({"x": np.zeros(10**6, np.float32)}, np.float32(0), {})
    assert len(dumps(incident(finding=replace(finding(), witness=witness)))) < 100_000


# ---------------------------------------------------------------- tensors


ARRAYS = {
    "float32": np.float32([[1.5, np.nan], [np.inf, -0.0]]),
    "float64": np.float64([5e-324]),
    "float16": np.float16([65504, -1]),
    "bfloat16": np.array([3.0e38, 1e-3], ml_dtypes.bfloat16),
    "float8_e4m3fn": np.array([448, 0.5], ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.array([np.inf, 2.0], ml_dtypes.float8_e5m2),
    "complex64": np.complex64([1 + 2j]),
    "bool": np.array([[True], [False]]),
    "uint64": np.uint64([2**64 - 1]),
    "int64": np.int64(-3),
    "int8": np.zeros((0, 3), np.int8),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_keep_every_bit(tmp_path, name):
    array = ARRAYS[name]
    _, shape, data = stored(saved(incident(tensors={"batch/x": array}), tmp_path))["batch/x"]
    assert (shape, data) == (array.shape, array.tobytes())
    assert measured(array) == (name, array.shape, array.nbytes)


@pytest.mark.parametrize("name", [n for n in ARRAYS if n not in ("uint64",)])
def test_torch_tensors_keep_every_bit(tmp_path, name):
    array = ARRAYS[name]
    bits = torch.from_numpy(np.frombuffer(array.tobytes(), np.uint8).copy())
    tensor = bits.view(getattr(torch, name)).reshape(array.shape)
    dtype, shape, data = stored(saved(incident(tensors={"batch/x": tensor}), tmp_path))["batch/x"]
    assert (shape, data) == (array.shape, array.tobytes())
    assert measured(tensor) == (name, array.shape, array.nbytes) and dtype == bundle_name(name)


def bundle_name(name):
    from whynan.watching.tensors import NAMES

    return NAMES[name]


def test_tensors_in_any_layout(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    parameter = torch.nn.Parameter(base)
    tensors = {
        "t": base.t(),
        "stride": base[::2, 1:],
        "expanded": base[0].expand(5, 4),
        "parameter": parameter,
        "shared": parameter,
        "conj": torch.tensor([1 + 2j]).conj(),
    }
    found = stored(saved(incident(tensors={"batch": tensors}), tmp_path))
    for name, tensor in tensors.items():
        _, shape, data = found[f"batch/{name}"]
        assert (shape, data) == (tuple(tensor.shape), tensor.detach().resolve_conj().contiguous().numpy().tobytes())


def test_big_endian_and_odd_strides(tmp_path):
    array = np.arange(6, dtype=">f4").reshape(2, 3)[:, ::-1]
    _, _, data = stored(saved(incident(tensors={"x": array}), tmp_path))["x"]
    assert np.frombuffer(data, "<f4").tolist() == [2, 1, 0, 5, 4, 3]


def test_nested_batches_and_numbers():
    value = {"ids": [np.zeros(1), {"mask": np.ones(1)}], "n": 3, "text": "left out", "none": None, 4: (True,)}
    assert [name for name, _ in leaves(value, "batch")] == ["batch/ids/0", "batch/ids/1/mask", "batch/n", "batch/4/0"]


def test_names_with_odd_characters(tmp_path):
    names = ["batch/é漢", "../../etc/passwd", "a\x00\x1b", "__metadata__", "\udc80", "", "x" * 3000]
    folder = saved(
        incident(tensors={**{n: np.float32([i]) for i, n in enumerate(names)}, "batch": {1: np.zeros(1), "1": np.ones(1)}}), tmp_path
    )
    found = stored(folder)
    assert len(found) == len(names) + 2
    assert found["../../etc/passwd"][2] == np.float32([1]).tobytes()
    assert {"batch/__metadata__", "\\udc80", "batch/1", "batch/1'"} <= set(found)
    assert [f.name for f in tmp_path.iterdir()] == [folder.name]


class Strange:
    dtype = np.dtype("float32")
    shape = (3,)

    def __array__(self, *_, **__):
        raise RuntimeError("on another machine\nsecond line")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (np.array(["a"]), "no type for"),
        (np.array([object()], object), "no type for"),
        (np.zeros(1, "datetime64[s]"), "no type for"),
        (np.complex128([1]), "no type for complex128"),
        (torch.zeros(2, device="meta"), "has no elements"),
        (torch.eye(3).to_sparse(), "has no elements"),
        (Strange(), "on another machine"),
    ],
)
def test_what_cannot_be_stored_is_named(tmp_path, value, why):
    with pytest.raises(NotStored, match=why):
        flat(value)
    folder = saved(incident(tensors={"batch/x": value, "batch/y": np.zeros(2)}), tmp_path)
    left = {s.name: s.left_out for s in read(folder).stored}
    assert why in left["batch/x"] and left["batch/y"] == "" and list(stored(folder)) == ["batch/y"]


def test_no_package_is_needed_to_write(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    folder = saved(incident(tensors={"batch/x": np.zeros(2)}), tmp_path)
    assert (folder / "tensors.safetensors").stat().st_size > 16


# ---------------------------------------------------------------- what fits


def specification(batch=10):
    names = {"optimizer/m": 400, "parameters/w": 400, "buffers/b": 100, "rng/0/cpu": 50}
    data = [Stored("batch/x", "float32", (batch, 10), 40 * batch), Stored("batch/scalar", "float32", (), 4)]
    return [*(Stored(n, "uint8", (size,), size) for n, size in names.items()), *data]


@pytest.mark.parametrize(
    ("room", "kept"),
    [
        (2000, {"optimizer/m": 400, "parameters/w": 400, "buffers/b": 100, "rng/0/cpu": 50, "batch/x": 400, "batch/scalar": 4}),
        (1300, {"buffers/b": 100, "rng/0/cpu": 50, "batch/x": 400, "batch/scalar": 4}),
        (500, {"buffers/b": 100, "rng/0/cpu": 50, "batch/x": 80, "batch/scalar": 4}),
        (200, {"buffers/b": 100, "rng/0/cpu": 50, "batch/x": 40, "batch/scalar": 4}),
        (150, {"rng/0/cpu": 50, "batch/x": 40, "batch/scalar": 4}),
        (60, {"rng/0/cpu": 50}),
        (10, {}),
        (-5, {}),
    ],
)
def test_what_goes_first(room, kept):
    plan = planned(specification(), room, incident(suspects=Suspects((2, 7), (7,), batch=10)))
    assert {s.name: s.size for s in plan if not s.left_out} == kept
    assert all(s.left_out == "it does not fit into the bundle's limit" for s in plan if s.name not in kept)
    assert sum(s.size for s in plan) <= max(room, 0) or room >= 1354


def test_the_suspects_rows_are_the_ones_kept(tmp_path):
    x = np.arange(40_000, dtype=np.float32).reshape(100, 400)
    tensors = {"batch/x": x, "batch/t": torch.arange(100), "batch/other": np.zeros(7), "parameters/w": np.zeros(10**5)}
    given = incident(suspects=Suspects((3, 97), (97,), batch=100), tensors=tensors)
    folder = saved(given, tmp_path, limit=100_000)
    found = stored(folder)
    assert np.frombuffer(found["batch/x"][2], np.float32).tolist() == x[[3, 97]].reshape(-1).tolist()
    assert np.frombuffer(found["batch/t"][2], np.int64).tolist() == [3, 97] and found["batch/other"][1] == (7,)
    entries = {s.name: s for s in read(folder).stored}
    assert entries["batch/x"].samples == (3, 97) and entries["batch/x"].shape == (100, 400) and entries["parameters/w"].left_out
    assert sum(f.stat().st_size for f in folder.iterdir()) <= 100_000
    assert "SAMPLES = [3, 97]" in (folder / "replay.py").read_text()


def test_a_bundle_stays_within_its_limit(tmp_path):
    tensors = {f"parameters/{i}": np.zeros(1000) for i in range(200)} | {"batch/x": np.zeros((50, 5000)), "buffers/b": np.zeros(3000)}
    for limit in (60_000, 130_000, 300_000, 10**6, 10**7):
        folder = saved(incident(tensors=tensors, suspects=Suspects(batch=50)), tmp_path, limit=limit)
        assert sum(f.stat().st_size for f in folder.iterdir()) <= max(limit, 130_000)


def test_what_does_not_fit_is_not_copied(monkeypatch, tmp_path):
    monkeypatch.setattr(bundle, "flat", lambda value: pytest.fail("copied"))
    saved(incident(tensors={"parameters/w": torch.zeros(10**6)}), tmp_path, limit=10**5)


# ---------------------------------------------------------------- without the data


def test_without_data_no_number_of_a_sample_is_left(tmp_path):
    secret, word = 0.123454321, "0.123454321"
    step = finding().chain[0]
    found = replace(
        finding(),
        message=f"log gets {word}.",
        chain=(replace(step, inputs=(word,), output=f"{word} to -inf"), replace(step, output=word)),
        witness=Witness({"p": np.float64([secret])}, np.float64(secret), {}),
        details={"largest_found": secret},
    )
    given = incident(
        finding=found,
        suspects=Suspects((3,), (3,), (Element("p", (3, 0), secret),), 32),
        tensors={"batch/p": np.full(4, secret), "targets": np.full(4, secret), "parameters/w": np.ones(4), "rng/0/cpu": np.zeros(4)},
    )
    folder = saved(given, tmp_path, save_batch=False)
    texts = {f.name: f.read_bytes() for f in folder.iterdir()}
    assert all(word.encode() not in text for text in texts.values())
    assert set(stored(folder)) == {"parameters/w", "rng/0/cpu"}
    assert b"0.25" not in texts["incident.json"], "a fix's evidence is found on the data"
    again = read(folder)
    assert not again.data_saved and again.suspects.elements[0].value is None and again.suspects.elements[0].index == (3, 0)
    assert {s.name: s.left_out for s in again.stored}["targets"].startswith("save_batch=False")
    assert again.finding.site == found.site and again.finding.chain[0].output == "-inf" and again.finding.chain[1].output == "not shown"
    with_data = saved(given, tmp_path)
    assert word.encode() in (with_data / "incident.json").read_bytes(), "the test sees it where it is"


def test_without_data_and_without_a_finding():
    assert not without_data(incident(finding=None)).data_saved


# ---------------------------------------------------------------- a run


def overseen(folder, steps, **options):
    overseer = Overseer(Options(folder=folder, policy="skip", **options))
    for i in range(steps):
        overseer.bad(Moment(2 * i), lambda: incident(tensors={"batch/x": np.zeros(3)}))
        overseer.healthy(Moment(2 * i + 1))
    return overseer


def test_a_run_keeps_as_many_as_it_may(tmp_path):
    overseer = overseen(tmp_path, 6, incidents=2)
    assert len(list(tmp_path.iterdir())) == 2 and overseer.bad_steps == 6
    assert [read(f).action for f in tmp_path.iterdir()] == ["skip", "skip"]
    assert all(not i.tensors and i.folder.is_dir() for i in overseer.incidents)
    overseen(tmp_path, 3, incidents=2)
    assert len(list(tmp_path.iterdir())) == 4, "another run deletes nothing of it and has its own"


def test_no_folder_no_bundle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert overseen(None, 2).incidents[0].folder is None and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError("no space left on device"), ValueError("strange"), MemoryError()])
def test_a_bundle_that_cannot_be_written_does_not_end_the_run(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(bundle, "replay_script", fail)
    found = overseen(tmp_path, 1).incidents[0]
    assert found.folder is None and f"could not be written to {tmp_path}" in found.notes[-1] and list(tmp_path.iterdir()) == []
