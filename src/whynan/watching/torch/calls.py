"""What is kept of a step while it runs: the calls of model and loss with what they need to be run again. References, not copies."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any
from weakref import ref

import torch
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy
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
    value: torch.Tensor | None = None  # the loss; detached as soon as its graph is not waited for
    waiting: Any = None  # a weak reference to the hook that notes the seed: it lives as long as the graph
    place: tuple[CodeType, int] | None = None  # where in the user's code the call stands: code and offset
    seed: torch.Tensor | str | None = None  # the gradient by it, or ONES, if backward has come by
    carried: bool = False  # from before the last update, for another optimizer's step

    def alive(self) -> bool:
        """Whether a result that can be differentiated is still there."""
        return any((t := o()) is not None and t.requires_grad for o in self.outputs)

    def await_seed(self) -> None:
        """Note the gradient that comes in by the loss, whenever it does."""
        if self.waiting is None and self.value is not None and self.value.requires_grad:
            hook = _Seed(self)
            self.value.register_hook(hook)  # type: ignore[no-untyped-call]  # torch leaves it without types
            self.waiting, self.value = ref(hook), self.value.detach()

    def tensors(self) -> list[torch.Tensor]:
        """The tensors among the arguments."""
        found = tensors_in(self.args)
        return found + tensors_in(self.kwargs) if self.kwargs else found

    def continues(self) -> bool:
        """Whether an argument was made by something that is differentiated, too, or is itself what is differentiated by (a penalty)."""
        return any(t.requires_grad and not isinstance(t, torch.nn.Parameter) for t in self.tensors())

    def overwritten(self) -> bool:
        """Whether an argument has been written to since."""
        return self.versions != versions_of(self.tensors())


class _Seed:
    """Notes the gradient that comes in by a loss."""

    __slots__ = ("__weakref__", "_call")

    def __init__(self, call: Call) -> None:
        self._call = call

    def __call__(self, gradient: torch.Tensor) -> None:
        self._call.seed = gradient


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
    """Copies of a module's buffers: the place that each was in, the tensor that was there, and a copy of its values."""

    places: list[tuple[dict[str, Any], str]]
    owners: list[torch.Tensor]
    copies: list[torch.Tensor]

    def restore(self) -> None:
        """Put the tensors back into their places and the values into the tensors, which graphs that have saved them do not notice."""
        with torch.no_grad():
            for (there, name), owner, copy in zip(self.places, self.owners, self.copies, strict=True):
                owner.data.copy_(copy)
                there[name] = owner


class Changing:
    """Those buffers of a module that its steps change (a batch norm's statistics): they are copied before each step, the others are not.

    A buffer changes by being written to, or by another tensor in its place, as after `model.to`. Batch norms write into theirs without
    telling (the version stays), so those always count.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        self._places: list[tuple[dict[str, Any], str]] | None = None
        self._last: list[torch.Tensor | None] = []
        self._versions: list[int] = []
        self._changing: set[int] = set()
        self._silent: set[int] = set()

    def copies(self) -> Buffers | None:
        """Copies of the changing buffers as they are now; in the first step, of all. None if there are none."""
        first = self._places is None
        if self._places is None:
            owners = [(m, name) for m in self._module.modules() for name in m._buffers]
            self._places = [(m._buffers, name) for m, name in owners]
            self._silent = {i for i, (m, _) in enumerate(owners) if isinstance(m, _NormBase)}
        if not self._places:
            return None
        now = [there.get(name) for there, name in self._places]
        versions = [-1 if b is None or is_lazy(b) or b.is_inference() else b._version for b in now]
        if not first:
            before = zip(self._last, self._versions, now, versions, strict=True)
            self._changing.update(i for i, (was, old, b, new) in enumerate(before) if b is not was or old != new)
        self._last, self._versions = now, versions
        wanted = range(len(now)) if first else sorted(self._changing | self._silent)
        kept = [(self._places[i], b) for i in wanted if (b := now[i]) is not None and not is_lazy(b)]
        if not kept:
            return None
        with torch.no_grad():
            return Buffers([place for place, _ in kept], [b for _, b in kept], [b.detach().clone() for _, b in kept])


MICRO_BATCHES = 8  # calls of backward whose data are kept
MOST_CALLS = 512
CALLS = 16  # calls that are kept although nothing was differentiated by them


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


@dataclass(slots=True, eq=False)
class Differentiated:
    """One call of `backward`: the frames that it came from, innermost first, with where each of them was; the detached roots; whether it
    started from ones; autocast as it was then; the step's calls until then, without those before another `backward` from the same place;
    its number in the step.
    """

    frames: tuple[tuple[FrameType, int], ...]
    roots: tuple[torch.Tensor, ...]
    plain: bool
    autocast: Sequence[tuple[str, bool, Any]]
    calls: "tuple[Call, ...]"
    number: int = 0


@dataclass(slots=True, eq=False)
class Window:
    """The calls that a step consists of, and the roots that were differentiated.

    A step may have many micro-batches: when `MICRO_BATCHES` of them were found healthy they are forgotten (`forget`), their buffers are
    not: `earlier` holds those from before the step. `backwards` counts calls of backward since, `done` the calls before the last of
    them, `forgotten` the losses forgotten. With `full` no more calls are kept: one of those kept has gone bad; `room` is how many are
    kept. `dropped` is what was done about the step, by the look before the update of the optimizer `judge`; `stepped` are the optimizers
    that have made their updates, `undo` takes some of these back.
    """

    calls: list[Call] = field(default_factory=list)
    roots: list[tuple[torch.Tensor, Any, Any]] = field(default_factory=list)  # detached, a weak reference to the tensor, its node
    differentiated: list[Differentiated] = field(default_factory=list)  # of calls from the same place the last: it has its frame's values
    closing: bool = False  # an optimizer has stepped: the next call begins a new window
    full: bool = False
    room: int = CALLS
    backwards: int = 0
    done: int = 0
    forgotten: int = 0
    earlier: dict[int, Buffers] = field(default_factory=dict)
    dropped: str = ""
    judge: int = 0
    stepped: set[int] = field(default_factory=set)
    undo: list[Any] = field(default_factory=list)

    def losses(self) -> Iterator[Call]:
        """The calls of the loss that were differentiated."""
        return (c for c in self.calls if c.role == LOSS and c.seed is not None)

    def models(self) -> Iterator[Call]:
        """The calls of the model."""
        return (c for c in self.calls if c.role == MODEL)

    def differentiate(self, step: Differentiated) -> None:
        """Note a call of `backward`. Of several from the same place the last is kept, with the calls since the one before."""
        if self.differentiated and self.differentiated[-1].frames[:1] == step.frames[:1]:
            self.differentiated.pop()
            step.calls = tuple(self.calls[self.done :])
        step.number = self.forgotten + self.backwards
        self.differentiated.append(step)
        del self.differentiated[:-MICRO_BATCHES]
        self.backwards, self.done = self.backwards + 1, len(self.calls)

    def clear(self, carry: bool = False) -> None:
        """Forget everything; with `carry` not the calls of models whose results are still there, for another optimizer's step."""
        self.roots.clear()
        self.differentiated.clear()
        self.calls[:] = [c for c in self.calls if c.role == MODEL] if carry else []  # first the losses: they hold the models' results
        self.calls[:] = [c for c in self.calls if c.alive()][-MICRO_BATCHES:]
        for c in self.calls:
            c.carried, c.buffers = True, None
        self.closing = self.full = False
        self.backwards = self.forgotten = self.judge = self.done = 0
        self.room = CALLS
        self.dropped = ""
        if self.earlier or self.stepped or self.undo:
            self.earlier.clear()
            self.stepped.clear()
            self.undo.clear()

    def forget(self) -> None:
        """Forget the calls that were differentiated: they were found healthy, and the step goes on."""
        early, late = self.calls[: self.done], self.calls[self.done :]
        self.forgotten += sum(c.seed is not None for c in early)
        self._leave(early)
        self.roots.clear()
        self.differentiated.clear()
        self.calls.clear()
        early[:] = [c for c in early if c.seed is None]  # first the losses: they hold the models' results
        self.calls += [c for c in early if c.alive()] + late
        self.backwards = self.done = 0

    def let_go(self) -> None:
        """Hold no graph of a loss that nothing was done with: one is held until the next, and what was thrown away is forgotten."""
        for c in [c for c in self.calls if c.role == LOSS and c.seed is None and c.value is not None]:
            if c.waiting is None:
                c.await_seed()
            elif c.waiting() is None:
                self._leave([c])
                self.calls.remove(c)

    def make_room(self) -> bool:
        """Whether one more call can be kept; calls that nothing has come of are forgotten for it."""
        if self.full:
            return False
        waiting = [c for c in self.calls[self.done :] if c.seed is None and not c.alive()][: -CALLS // 2]
        gone = set(map(id, waiting)) if waiting else set(map(id, self.calls[: len(self.calls) - MOST_CALLS]))
        self._leave(c for c in self.calls if id(c) in gone)
        self.done -= sum(id(c) in gone for c in self.calls[: self.done])
        self.calls[:] = [c for c in self.calls if id(c) not in gone]
        self.room = max(CALLS, 2 * len(self.calls))
        return True

    def restore_buffers(self) -> None:
        """Buffers as before the step: what the bad batch has left in a batch norm's statistics is taken back."""
        for call in reversed(self.calls):
            if call.buffers is not None:
                call.buffers.restore()
        for buffers in self.earlier.values():
            buffers.restore()

    def _leave(self, calls: Iterable[Call]) -> None:
        for c in calls:
            if c.buffers is not None:
                self.earlier.setdefault(id(c.target), c.buffers)


def mapped(f: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with `f` applied to every tensor in them."""
    a, k = tree_map(lambda t: f(t) if isinstance(t, torch.Tensor) else t, (args, dict(kwargs)))
    return a, k
