"""Make a witness simple: as few elements as possible away from a plain value, numbers as round as possible.

Each step is judged by the real function: a simpler input is kept only if it still fails in the same outputs.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from whynan.analysis.effort import Effort
from whynan.domain import sample
from whynan.domain.spec import ROWS, Domain
from whynan.ir.dtype import Array

Inputs = Mapping[str, Array]

MOST_NUMBERS = 50_000_000  # in all runs together
LEAST = 4  # runs, however large
SECONDS = 2.0  # for a loss that takes long to run

ROUND = (0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 10.0, -10.0, 100.0, -100.0, 1000.0, -1000.0)


def shrink(
    inputs: Inputs, domains: Mapping[str, Domain], fails: Callable[[Inputs], bool], budget: int = 160, element: tuple[int, ...] = ()
) -> Inputs:
    """The simplest input found on which `fails` still holds, within `budget` runs of it (fewer where each is of millions of numbers).

    `element` is where the failure was seen: the first try keeps only what stands there, in all inputs at once.
    """
    numbers = sum(a.size for a in inputs.values())
    judge = _Judge(inputs, domains, fails, max(min(budget, MOST_NUMBERS // max(numbers, 1)), LEAST))
    _at(judge, element)
    for _ in range(2):
        before = judge.spent
        for name in domains:
            _whole(judge, name)
        for name in domains:
            _blocks(judge, name)
        for name in domains:
            _numbers(judge, name)
        if judge.spent == before or judge.spent >= budget:
            break
    return judge.best


class _Judge:
    """Holds the best input so far and how many runs were spent."""

    def __init__(self, inputs: Inputs, domains: Mapping[str, Domain], fails: Callable[[Inputs], bool], budget: int) -> None:
        self.best: Inputs = dict(inputs)
        self.domains = domains
        self.fails = fails
        self.budget = budget
        self.effort = Effort()
        self.spent = 0

    def accepts(self, name: str, array: Array) -> bool:
        """Try another array for one input; keep it if the failure stays."""
        if self.spent >= self.budget or (self.spent >= LEAST and self.effort.seconds > SECONDS):
            return False
        domain = self.domains[name]
        array = sample.project(domain, array)
        if _same(array, self.best[name]) or not sample.contains(domain, array):
            return False
        self.spent += 1
        trial = {**self.best, name: array}
        if not self.fails(trial):
            return False
        self.best = trial
        return True


def _at(judge: _Judge, element: tuple[int, ...]) -> None:
    """Everything plain but what stands at one element; failing that, but the row it stands in."""
    for index in (element, element[:1]):
        if not index:
            return
        trial = {name: _only(judge.domains[name], a, index) for name, a in judge.best.items()}
        members = all(sample.contains(judge.domains[name], a) for name, a in trial.items())
        judge.spent += 1
        if members and judge.fails(trial):
            judge.best = trial
            return


def _only(domain: Domain, array: Array, index: tuple[int, ...]) -> Array:
    """The plain array with the values of another at an index (counted from the last axes where the array has fewer), if it has that."""
    index = index[-array.ndim :] if array.ndim else ()
    out = np.array(sample.plain(domain))  # a single integer comes as a scalar
    if domain.value is not None or any(k >= n for k, n in zip(index, array.shape, strict=False)):
        return array
    out[index] = array[index]
    return out


def _same(a: Array, b: Array) -> bool:
    return a.tobytes() == b.tobytes()


def _whole(judge: _Judge, name: str) -> None:
    """The plainest array at once, or one value everywhere."""
    domain = judge.domains[name]
    if domain.value is not None or judge.accepts(name, sample.plain(domain)):
        return
    here = judge.best[name]
    for value in dict.fromkeys(here.reshape(-1)[:4].astype(np.float64).tolist()):
        if judge.accepts(name, sample.full(domain, value)):
            return


def _blocks(judge: _Judge, name: str) -> None:
    """Ever smaller blocks of elements (of whole rows where the domain is made of rows) set to the plain array's (delta debugging)."""
    domain = judge.domains[name]
    if domain.value is not None:
        return
    width = domain.shape[-1] if domain.kind in ROWS else 1
    plain = sample.plain(domain).reshape(-1, width)
    size = len(plain)
    block = (size + 1) // 2
    while block and size > 1:
        for start in range(0, size, block):
            here = judge.best[name].reshape(-1, width).copy()
            if _same(here[start : start + block], plain[start : start + block]):
                continue
            here[start : start + block] = plain[start : start + block]
            judge.accepts(name, here.reshape(domain.shape))
            if judge.spent >= judge.budget:
                return
        if block == 1 or size // block > 64:
            break
        block = (block + 1) // 2


def _numbers(judge: _Judge, name: str) -> None:
    """Rounder numbers in place of each distinct value that is left."""
    domain = judge.domains[name]
    if domain.value is not None or sample.huge(domain):  # nobody reads millions of numbers
        return
    plain = set(sample.plain(domain).astype(np.float64).reshape(-1).tolist())  # these need no rounder number
    values = list(dict.fromkeys(judge.best[name].astype(np.float64).reshape(-1).tolist()))
    for value in [v for v in values if v not in plain][:8]:
        for simpler in _simpler(value):
            if judge.spent >= judge.budget:
                return
            here = judge.best[name].astype(np.float64)
            if judge.accepts(name, np.where(here == value, simpler, here)):
                break


def _simpler(value: float) -> Iterator[float]:
    """Candidates that read more easily than a value, best first."""
    if not np.isfinite(value) or not value:
        return
    for r in ROUND:
        if _cost(r) < _cost(value):
            yield r
    for digits in (1, 2, 3):
        rounded = float(f"{value:.{digits}g}")
        if _cost(rounded) < _cost(value):
            yield rounded


def _cost(value: float) -> int:
    """How hard a number is to read: significant digits first, then length."""
    text = f"{value:.9g}"
    digits = text.partition("e")[0].replace(".", "").strip("-0")
    return 10 * len(digits) + len(text) if value else 0
