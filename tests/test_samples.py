"""Sample files of each kind, and the broken ones: one line each, and nothing in them is run."""

import json
import pickle
import struct

import ml_dtypes
import numpy as np
import pytest

from whynan.errors import SampleError
from whynan.samples import load_samples


def test_npz(tmp_path):
    np.savez(tmp_path / "s.npz", p=np.float32([0.5]), t=np.int64([1]))
    arrays = load_samples(tmp_path / "s.npz")
    assert {n: (a.dtype.name, a.tolist()) for n, a in arrays.items()} == {"p": ("float32", [0.5]), "t": ("int64", [1])}


def test_safetensors_with_bfloat16(tmp_path):
    pytest.importorskip("safetensors")
    values = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    header = json.dumps({"x": {"dtype": "BF16", "shape": [2, 1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "s.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + values.tobytes())
    arrays = load_samples(str(tmp_path / "s.safetensors"))
    assert arrays["x"].dtype == ml_dtypes.bfloat16
    assert arrays["x"].tolist() == [[1.5], [-2.0]]


def test_pt(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"x": torch.tensor([1.5], dtype=torch.bfloat16), "m": torch.tensor([True])}, tmp_path / "s.pt")
    arrays = load_samples(tmp_path / "s.pt")
    assert (arrays["x"].dtype, arrays["m"].dtype) == (ml_dtypes.bfloat16, np.bool_)


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def refused(path):
    with pytest.raises(SampleError) as caught:
        load_samples(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_pickles_are_refused_and_not_run(tmp_path):
    ran = tmp_path / "ran"
    np.savez(tmp_path / "s.npz", p=np.array([Touch(ran)], dtype=object))
    assert "cannot be read" in refused(tmp_path / "s.npz")
    pytest.importorskip("torch")
    (tmp_path / "s.pt").write_bytes(pickle.dumps({"p": Touch(ran)}, protocol=2))
    assert "cannot be read" in refused(tmp_path / "s.pt")
    assert not ran.exists()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken", b"\xff" * 64])
def test_broken_files(tmp_path, suffix, content):
    file = tmp_path / f"s{suffix}"
    file.write_bytes(content)
    assert "cannot be read" in refused(file)


def test_wrong_files(tmp_path):
    assert "there is no sample file" in refused(tmp_path / "s.npz")
    (tmp_path / "s.csv").write_text("1,2")
    assert "is not a sample file" in refused(tmp_path / "s.csv")
    with (tmp_path / "one.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    assert "a single array" in refused(tmp_path / "one.npz")
    np.savez(tmp_path / "none.npz")
    assert "holds no arrays" in refused(tmp_path / "none.npz")
    np.savez(tmp_path / "words.npz", p=np.array(["a"]))
    assert "cannot be used as an array" in refused(tmp_path / "words.npz")


def test_a_bare_tensor_has_no_name(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(torch.zeros(3), tmp_path / "s.pt")
    assert "not tensors by name" in refused(tmp_path / "s.pt")
