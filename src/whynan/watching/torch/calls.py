"""What is kept of a step while it runs: the calls of model and loss with what they need to be run again. References, not copies."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any
from weakref import ref

import torch
from torch.utils._pytree import tree_leaves, tree_map

MODEL, LOSS = "model", "loss"
ONES = "ones"  # the gradient that `loss.backward()` begins with


@dataclass(slots=True, eq=False)
class Call:
    """One call of the watched model or loss.

    `target` is what to call again with `args` and `kwargs`, `module` the watched module behind it (None: a function). `versions` are the
    arguments' tensor versions, which tell later whether they have been written to. `rng` is torch's state of random numbers before the
    call, by device. `buffers` are copies of those buffers that a step changes. `outputs` are weak references to the tensors that came out,
    `losses` those of a loss that were differentiated, with the gradient that came in.
    """

    role: str
    target: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    versions: tuple[int, ...]
    rng: Mapping[str, torch.Tensor]
    autocast: Sequence[tuple[str, bool, Any]]
    training: bool = True
    buffers: "Buffers | None" = None
    outputs: tuple[Any, ...] = ()  # weak references
    value: torch.Tensor | None = None  # the loss
    place: tuple[str, int] = ("", 0)  # file and line of the call
    seed: torch.Tensor | str | None = None  # the gradient by it, or ONES, if backward has come by

    def tensors(self) -> list[torch.Tensor]:
        """The tensors among the arguments."""
        found = tensors_in(self.args)
        return found + tensors_in(self.kwargs) if self.kwargs else found

    def continues(self) -> bool:
        """Whether an argument was made by something that is differentiated, too."""
        return any(t.grad_fn is not None for t in self.tensors())

    def overwritten(self) -> bool:
        """Whether an argument has been written to since."""
        return self.versions != versions_of(self.tensors())


def tensors_in(value: Any) -> list[torch.Tensor]:
    """The tensors of nested tuples, lists and mappings; torch's own tree functions take ten times as long on a plain tuple."""
    if isinstance(value, torch.Tensor):
        return [value]
    found: list[torch.Tensor] = []
    for item in value.values() if isinstance(value, Mapping) else value:
        if isinstance(item, torch.Tensor):
            found.append(item)
        elif isinstance(item, (tuple, list, Mapping)):
            found += tensors_in(item)
    return found


def loss_in(result: Any) -> Any:
    """The loss in what a training step returned: `result["loss"]` or `result.loss`; None if there is none."""
    return result.get("loss") if isinstance(result, Mapping) else getattr(result, "loss", None)


def versions_of(tensors: Sequence[torch.Tensor]) -> tuple[int, ...]:
    """How often each tensor has been written to."""
    return tuple([-1 if t.is_inference() else t._version for t in tensors])


def references(result: Any) -> tuple[Any, ...]:
    """Weak references to the tensors of a result, which must not keep the autograd graph alive."""
    if isinstance(result, torch.Tensor):
        return (ref(result),)
    return tuple(ref(t) for t in tree_leaves(result) if isinstance(t, torch.Tensor))


_BUILT_FOR_CUDA = torch.version.cuda is not None or torch.version.hip is not None


def random_state() -> dict[str, torch.Tensor]:
    """Torch's random state on the CPU and on every CUDA device in use, without waiting for the device."""
    states = {"cpu": torch.default_generator.get_state()}
    if _BUILT_FOR_CUDA and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch leaves it without types
        states |= {f"cuda:{i}": torch.cuda.get_rng_state(i) for i in range(torch.cuda.device_count())}
    return states


def set_random_state(states: Mapping[str, torch.Tensor]) -> None:
    """Put back what `random_state` returned."""
    for device, state in states.items():
        if device == "cpu":
            torch.default_generator.set_state(state)
        else:
            torch.cuda.set_rng_state(state, device)


_DEVICES = ("cpu", "cuda")


def autocast_state() -> list[tuple[str, bool, Any]]:
    """For each device type whether autocast is on, and to what dtype. Empty where it is off everywhere."""
    if not torch._C._is_any_autocast_enabled():
        return []
    return [(d, True, torch.get_autocast_dtype(d)) for d in _DEVICES if torch.is_autocast_enabled(d)]


def in_autocast(state: Sequence[tuple[str, bool, Any]]) -> AbstractContextManager[Any]:
    """The kept autocast state as a context."""
    stack = ExitStack()
    for device in _DEVICES:
        kept = next((s for s in state if s[0] == device), None)
        if kept is not None or torch.is_autocast_enabled(device):
            stack.enter_context(torch.autocast(device, dtype=kept[2] if kept else None, enabled=kept is not None))
    return stack


@dataclass(slots=True, eq=False)
class Buffers:
    """Copies of a module's buffers, with the tensors that they were copied from."""

    owners: list[torch.Tensor]
    copies: list[torch.Tensor]

    def restore(self) -> None:
        """Write the copies back. What was written into the buffers in between is lost."""
        with torch.no_grad():
            for owner, copy in zip(self.owners, self.copies, strict=True):
                owner.copy_(copy)


@dataclass(slots=True, eq=False)
class Changing:
    """Those buffers of a module that its steps change (a batch norm's statistics): they are copied before each step, the others are not."""

    module: torch.nn.Module
    _versions: list[int] = field(default_factory=list)
    _changing: set[int] = field(default_factory=set)
    _all: list[torch.Tensor] | None = None

    def copies(self) -> Buffers | None:
        """Copies of the changing buffers as they are now; in the first step, of all."""
        if self._all is None:
            self._all = list(self.module.buffers())
            self._versions = [b._version for b in self._all]
            owners = self._all
        else:
            now = [b._version for b in self._all]
            if now != self._versions:
                self._changing.update(i for i, (old, new) in enumerate(zip(self._versions, now, strict=True)) if old != new)
                self._versions = now
            owners = [self._all[i] for i in sorted(self._changing)]
        if not owners:
            return None
        with torch.no_grad():
            return Buffers(owners, [b.detach().clone() for b in owners])


class Refused(Exception):
    """Lines of the user's cannot be run again; the text says why."""


_replays = 0  # how many runs of the user's lines are under way


@contextmanager
def replay() -> Iterator[None]:
    """Inside, the user's own lines are run again: what may not be done twice is refused."""
    global _replays
    _replays += 1
    try:
        yield
    finally:
        _replays -= 1


def refuse_in_replay(*_: object) -> None:
    """Called by what may not be done twice. Raises Refused while lines are run again."""
    if _replays:
        raise Refused("the lines change gradients or parameters")


@dataclass(frozen=True, slots=True, eq=False)
class Differentiated:
    """One call of `backward`: the frames that it came from, innermost first, with where each of them was; the detached roots; whether it
    started from ones; autocast as it was then; how many calls there were in the window, and of those how many before another `backward`
    from the same place."""

    frames: tuple[tuple[FrameType, int], ...]
    roots: tuple[torch.Tensor, ...]
    plain: bool
    autocast: Sequence[tuple[str, bool, Any]]
    calls: int
    before: int = 0


@dataclass(slots=True, eq=False)
class Window:
    """The calls that a step consists of, and the roots that were differentiated."""

    calls: list[Call] = field(default_factory=list)
    roots: list[tuple[torch.Tensor, Any]] = field(default_factory=list)  # detached, and a weak reference to the tensor as it was
    differentiated: list[Differentiated] = field(default_factory=list)  # of calls from the same place the last: it has its frame's values
    backwards: int = 0  # how many calls of `backward` there were
    closing: bool = False  # an optimizer has stepped: the next call begins a new window

    def losses(self) -> Iterator[Call]:
        """The calls of the loss that were differentiated."""
        return (c for c in self.calls if c.role == LOSS and c.seed is not None)

    def models(self) -> Iterator[Call]:
        """The calls of the model."""
        return (c for c in self.calls if c.role == MODEL)

    def differentiate(self, step: Differentiated) -> None:
        """Note a call of `backward`."""
        self.backwards += 1
        if self.differentiated and self.differentiated[-1].frames[:1] == step.frames[:1]:
            step = replace(step, before=self.differentiated.pop().calls)
        self.differentiated.append(step)

    def clear(self) -> None:
        """Forget everything."""
        self.calls.clear()
        self.roots.clear()
        self.differentiated.clear()
        self.backwards = 0
        self.closing = False


def mapped(f: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with `f` applied to every tensor in them."""
    a, k = tree_map(lambda t: f(t) if isinstance(t, torch.Tensor) else t, (args, dict(kwargs)))
    return a, k
