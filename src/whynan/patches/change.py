"""A change of source files: shown as a unified diff, applied atomically."""

import difflib
import hashlib
import os
import tempfile
import tokenize
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from whynan.errors import WhynanError

VERIFIED, REVIEW, ADVICE = "verified", "needs-review", "advice"


class PatchError(WhynanError):
    """A file cannot be changed: it is not what it was, cannot be written, or would not parse."""


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file's new text beside the old one, both with the file's own line endings, in its own encoding."""

    path: Path
    old: str
    new: str
    encoding: str
    digest: str  # of the bytes that the change was made for


def read_file(path: Path) -> tuple[str, str, str]:
    """The text of a source file with its line endings, its encoding and a digest of its bytes. Raises PatchError if it cannot be read."""
    try:
        data = path.read_bytes()
        encoding = tokenize.detect_encoding(BytesIO(data).readline)[0]
        return data.decode(encoding), encoding, hashlib.sha256(data).hexdigest()
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise PatchError(f"{path} cannot be read: {error}.", "Mend the file first.") from error


def diff(change: FileChange) -> str:
    """The change as a unified diff that `patch -p1` and `git apply` take, with paths below the current folder where that is possible."""
    name = _shown(change.path)
    old, new = change.old.replace("\r\n", "\n").splitlines(keepends=True), change.new.replace("\r\n", "\n").splitlines(keepends=True)
    lines = difflib.unified_diff(old, new, f"a/{name}", f"b/{name}")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _shown(path: Path) -> str:
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.as_posix().lstrip("/")


def write(changes: tuple[FileChange, ...]) -> None:
    """Write all changed files, or none: each beside its place first, then put into it, with mode and links kept.

    Raises PatchError if a file has changed since, cannot be written, or if the new text does not parse.
    """
    for change in changes:
        _check(change)
    staged: list[tuple[Path, Path]] = []
    try:
        for change in changes:
            target = change.path.resolve()
            staged.append((_staged(target, change.new.encode(change.encoding)), target))
        for source, target in staged:
            os.replace(source, target)
    except OSError as error:
        raise PatchError(f"the change cannot be written: {error}.", "Check the folder's permissions.") from error
    finally:
        for source, _ in staged:
            source.unlink(missing_ok=True)


def _check(change: FileChange) -> None:
    if read_file(change.path)[2] != change.digest:
        raise PatchError(f"{change.path} has changed since the fix was made.", "Run whynan fix again.")
    try:
        compile(change.new.encode(change.encoding), str(change.path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise PatchError(f"{change.path} would not parse after the change: {error}.", "Report this as a defect of whynan.") from error


def _staged(target: Path, data: bytes) -> Path:
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".whynan", dir=target.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(name, target.stat().st_mode & 0o7777)
    return Path(name)


# ---------------------------------------------------------------- the fix


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a fix.

    `verdict` is that of the same check on the changed source. `difference` is the largest relative difference of the loss from a run of
    the original without rounding, over the `compared` inputs on which that is well defined (`mended` of them make the original fail).
    `changed` says in words where the value changes ("" if nowhere), `gradient` where the gradient is alive or dead, and `cost` is the time
    of the changed loss relative to the original.
    """

    verdict: str
    compared: int
    mended: int
    difference: float | None
    changed: str
    gradient: str
    cost: float | None
    notes: tuple[str, ...] = ()

    def lines(self) -> tuple[str, ...]:
        """The evidence in plain words, one fact a line."""
        said = {
            "safe": "checked again on the same inputs: proven finite, gradients included",
            "undecided": "checked again on the same inputs: no failure was found, but finiteness is not proven",
            "": "not checked",
        }
        found = [said.get(self.verdict, f"checked again: {self.verdict}")]
        if self.difference is not None and not self.changed:
            failed = f", {self.mended} of which make the original fail" if self.mended else ""
            where = f"{self.compared} inputs{failed}"
            found.append(f"same value as the original without rounding on {where}, at most {self.difference:.1e} off")
        found += [line for line in (self.changed, self.gradient) if line]
        if self.cost is not None:
            found.append(f"cost: {self.cost:.1f}x the time of the original")
        return (*found, *self.notes)


@dataclass(frozen=True, slots=True, eq=False)
class Fix:
    """One way to remove a defect, as the public contract (section 5) describes it.

    `applicability` is "verified", "needs-review" or "advice"; `patch` a unified diff, or the text of a new function where the source
    itself cannot be changed.
    """

    title: str
    applicability: str
    patch: str
    evidence: Evidence
    changes: tuple[FileChange, ...] = ()

    def apply(self) -> None:
        """Write the change to the files, all or none. Raises PatchError if they have changed since or there is nothing to write."""
        if not self.changes:
            raise PatchError(f"{self.title}: there is no file to change.", "Make the change by hand.")
        write(self.changes)

    def __str__(self) -> str:
        lines = "\n".join(f"  {line}" for line in self.evidence.lines())
        return f"{self.title} [{self.applicability}]\n{lines}\n{self.patch}".rstrip()
