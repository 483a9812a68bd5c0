"""What is kept of a step while it runs: the calls of model and loss with what they need to be run again. References, not copies."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from types import CodeType
from typing import Any
from weakref import ref

import torch

from whynan.watching.torch.buffers import Buffers
from whynan.watching.torch.chance import Chance
from whynan.watching.torch.nested import replaced_in, tensors_in

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
    versions: list[int]
    rng: Mapping[str, torch.Tensor]
    autocast: Sequence[tuple[str, bool, Any]]
    place: tuple[CodeType, int] | None = None  # where in the user's code the call stands: code and offset
    buffers: Buffers | None = None
    outputs: tuple[Any, ...] = ()  # weak references
    value: torch.Tensor | None = None  # the loss; detached as soon as its graph is not waited for
    waiting: Any = None  # a weak reference to the hook that notes the seed: it lives as long as the graph
    seed: torch.Tensor | str | None = None  # the gradient by it, or ONES, if backward has come by
    carried: bool = False  # from before the last update, for another optimizer's step
    chance: Chance | None = None  # Python's and NumPy's random state before the call, if it may draw from them

    def rewind(self) -> None:
        """Set all random states as they were before the call."""
        set_random_state(self.rng)
        if self.chance is not None:
            self.chance.restore()

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
        return self.versions != versions_of(self.args) + versions_of(self.kwargs.values())


class _Seed:
    """Notes the gradient that comes in by a loss."""

    __slots__ = ("__weakref__", "_call")

    def __init__(self, call: Call) -> None:
        self._call = call

    def __call__(self, gradient: torch.Tensor) -> None:
        self._call.seed = gradient


def loss_in(result: Any) -> Any:
    """The loss in what a training step returned: `result["loss"]` or `result.loss`; None if there is none."""
    return result.get("loss") if isinstance(result, Mapping) else getattr(result, "loss", None)


def versions_of(values: Iterable[Any]) -> list[int]:
    """How often each tensor among nested values has been written to."""
    found = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(-1 if value.is_inference() else value._version)
        elif value is not None and not isinstance(value, (int, float, str)):
            found += versions_of(tensors_in(value))
    return found


def references(result: Any) -> tuple[Any, ...]:
    """Weak references to the tensors of a result, which must not keep the autograd graph alive."""
    if isinstance(result, torch.Tensor):
        return (ref(result),)
    return tuple(map(ref, tensors_in(result)))


_CUDA = torch.version.cuda is not None or torch.version.hip is not None
_BUILT_FOR: tuple[Any, ...] = (*((torch.cuda,) if _CUDA else ()), *((torch.xpu,) if getattr(torch.version, "xpu", None) else ()))
_MPS = torch.backends.mps.is_available()


def random_state() -> dict[str, torch.Tensor]:
    """Torch's random state on the CPU and on every CUDA, XPU and MPS device in use, without waiting for the device."""
    states = {"cpu": torch.default_generator.get_state()}
    for kind in _BUILT_FOR:
        if kind.is_initialized():
            name = kind.__name__.removeprefix("torch.")
            states |= {f"{name}:{i}": kind.get_rng_state(i) for i in range(kind.device_count())}
    if _MPS:
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_random_state(states: Mapping[str, torch.Tensor]) -> None:
    """Put back what `random_state` returned."""
    for device, state in states.items():
        kind, _, number = device.partition(":")
        if kind == "cpu":
            torch.default_generator.set_state(state)
        else:
            getattr(torch, kind).set_rng_state(state, *([int(number)] if number else []))


_is_any_autocast_enabled = torch._C._is_any_autocast_enabled
_DEVICES = ("cpu", "cuda", "xpu", "mps")


def autocast_state() -> Sequence[tuple[str, bool, Any]]:
    """For each device type whether autocast is on, and to what dtype. Empty where it is off everywhere."""
    if not _is_any_autocast_enabled():
        return ()
    return [(d, True, torch.get_autocast_dtype(d)) for d in _DEVICES if torch.is_autocast_enabled(d)]


def in_autocast(state: Sequence[tuple[str, bool, Any]]) -> AbstractContextManager[Any]:
    """The kept autocast state as a context."""
    stack = ExitStack()
    for device in _DEVICES:
        kept = next((s for s in state if s[0] == device), None)
        if kept is not None or torch.is_autocast_enabled(device):
            stack.enter_context(torch.autocast(device, dtype=kept[2] if kept else None, enabled=kept is not None))
    return stack


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


def mapped(f: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with `f` applied to every tensor in them."""
    return replaced_in(args, f), replaced_in(dict(kwargs), f)
