"""The isolated import: the changed loss runs, the user's files and modules stay as they are."""

import functools
import importlib
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from whynan.patches.change import PatchError
from whynan.patches.load import Isolated


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of a loss, a helper, and a module between the two."""
    folder = tmp_path / "isolated_losses"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "helper.py").write_text("def half(x):\n    return x / 2\n")
    (folder / "between.py").write_text("from . import helper\n\n\ndef quarter(x):\n    return helper.half(x) / 2\n")
    (folder / "losses.py").write_text(
        textwrap.dedent(
            """
            from .between import quarter


            def loss(x):
                return quarter(x)


            class Loss:
                def __init__(self, scale):
                    self.scale = scale

                def __call__(self, x):
                    return self.scale * x

                def method(self, x):
                    return self.scale + x


            def made(scale):
                def inner(x):
                    return scale - x
                return inner


            times = lambda x: x * 3
            """
        )
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [n for n in sys.modules if n.startswith("isolated_losses")]:
        del sys.modules[name]


def changed(file: Path, old: str, new: str) -> dict[Path, str]:
    text = file.read_text()
    assert old in text
    return {file: text.replace(old, new)}


def test_a_function(package: Path) -> None:
    module = importlib.import_module("isolated_losses.losses")
    with Isolated() as isolated:
        made = isolated.changed(module.loss, "", changed(package / "losses.py", "quarter(x)", "quarter(x) + 1"))
        assert made(4) == 2 and module.loss(4) == 1


def test_a_helper_in_another_file_reached_through_a_third(package: Path) -> None:
    module = importlib.import_module("isolated_losses.losses")
    before = {name: m for name, m in sys.modules.items() if name.startswith("isolated_losses")}
    with Isolated() as isolated:
        made = isolated.changed(module.loss, "", changed(package / "helper.py", "x / 2", "x / 4"))
        assert made(8) == 1 and module.loss(8) == 2
    assert {name: m for name, m in sys.modules.items() if name.startswith("isolated_losses")} == before
    assert importlib.import_module("isolated_losses").helper is before["isolated_losses.helper"]


@pytest.mark.parametrize(
    ("make", "old", "new", "value"),
    [
        (lambda m: m.Loss(3), "self.scale * x", "self.scale * x + 1", 7),
        (lambda m: m.Loss(3).method, "self.scale + x", "self.scale + x + 1", 6),
        (lambda m: m.made(9), "scale - x", "scale - x + 1", 8),
        (lambda m: m.times, "x * 3", "x * 4", 8),
        (lambda m: functools.wraps(m.times)(lambda x: m.times(x)), "x * 3", "x * 5", 10),
    ],
)
def test_whatever_a_loss_is(package: Path, make, old: str, new: str, value: float) -> None:
    module = importlib.import_module("isolated_losses.losses")
    with Isolated() as isolated:
        assert isolated.changed(make(module), "", changed(package / "losses.py", old, new))(2) == value


def test_by_expression(package: Path) -> None:
    module = importlib.import_module("isolated_losses.losses")
    with Isolated() as isolated:
        texts = changed(package / "losses.py", "self.scale * x", "self.scale * x + 1")
        assert isolated.changed(module.Loss(5), "Loss(5)", texts)(2) == 11


def test_what_cannot_be_run_is_refused(package: Path) -> None:
    module = importlib.import_module("isolated_losses.losses")
    before = set(sys.modules)
    with Isolated() as isolated:
        with pytest.raises(PatchError, match="cannot be run"):
            isolated.changed(module.loss, "", changed(package / "losses.py", "times = ", "times = undefined + "))
        with pytest.raises(PatchError, match="not found"):
            isolated.changed(module.times, "", changed(package / "losses.py", "times = lambda x: x * 3", ""))
        with pytest.raises(PatchError):
            isolated.changed(len, "", {})
    assert set(sys.modules) == before


def test_nothing_is_left_behind(package: Path) -> None:
    module = importlib.import_module("isolated_losses.losses")
    before, files = set(sys.modules), sorted(p.name for p in package.iterdir())
    with Isolated() as isolated:
        isolated.changed(module.loss, "", changed(package / "losses.py", "quarter(x)", "quarter(x) + 1"))
        folder = Path(next(iter(isolated.homes))).parent.parent
        assert folder.is_dir()
    assert set(sys.modules) == before and not folder.exists()
    assert sorted(p.name for p in package.iterdir()) == files
