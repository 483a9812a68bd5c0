"""A kept step run again: the calls in their order from the kept state, on the whole batch or on some of its samples."""

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.utils.checkpoint

from whynan._chance import undrawn
from whynan.frontends.torch.live import Live, call, differentiate, record
from whynan.watching.torch.calls import LOSS, ONES, Call, in_autocast, loss_in, mapped, random_state, set_random_state
from whynan.watching.torch.intercept import LIBRARIES, standing_at, watch_function
from whynan.watching.torch.needed import Way, finite
from whynan.watching.torch.nested import named_in, tensors_in
from whynan.watching.torch.ranks import alone
from whynan.watching.torch.samples import Layout, layout, picked, sequences_first
from whynan.watching.torch.slices import Slice, slices_of
from whynan.watching.torch.window import Window

Pick = Sequence[int] | None  # samples of the batch; None: all


@dataclass(slots=True, eq=False)
class Part:
    """A piece of the step that can be run again by itself: calls that hang together by their tensors.

    `given` are its data by argument name, `cut` those tensors that something between the calls made, which were differentiated by: the
    piece starts anew from their values. `ends` are the calls whose results are the losses, empty if the loss is made elsewhere.
    """

    calls: list[Call]
    given: dict[str, torch.Tensor] = field(default_factory=dict)
    cut: dict[str, torch.Tensor] = field(default_factory=dict)
    ends: list[Call] = field(default_factory=list)
    number: int = 0
    sequences_first: bool = False  # the samples lie along the second axis
    lines: Slice | None = None  # the user's own lines, which lead from the data to the loss: they are run in place of the calls

    @property
    def differentiated(self) -> bool:
        """Whether the losses are known, so that gradients can be had."""
        return bool(self.ends) or self.lines is not None


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a piece gave when it was run again: whether loss and gradients are finite. `error` is what it raised."""

    loss_finite: bool = True
    gradients: Mapping[str, torch.Tensor] = field(default_factory=dict)
    error: str = ""

    @property
    def bad(self) -> tuple[str, ...]:
        """The names of the gradients that are not finite."""
        return tuple(n for n, g in self.gradients.items() if not bool(torch.isfinite(dense(g)).all()))

    @property
    def failed(self) -> bool:
        """Whether something was not finite."""
        return not self.loss_finite or bool(self.bad)


def dense(t: torch.Tensor) -> torch.Tensor:
    """The values of a gradient, which may be sparse."""
    return t.coalesce().values() if t.layout is torch.sparse_coo else t


# ---------------------------------------------------------------- taking the step to pieces


def parts_of(window: Window) -> list[Part]:
    """The pieces of a step in order: each differentiated loss with the model calls that lead to it; model calls that lead to none."""
    calls = list(window.calls)
    used: set[int] = set()
    found: list[Part] = []
    ends = [c for c in calls if _is_end(c, window)]
    for end in ends:
        chain = _behind(end, calls)
        used.update(id(c) for c in chain)
        found.append(_part(chain, [end], window.forgotten + len(found)))
    loose = [c for c in calls if c.role != LOSS and id(c) not in used and not c.carried]
    before = [sum(calls.index(end) < calls.index(c) for end in ends) for c in loose] if ends else range(len(loose))
    return found + [_part([c], [], window.forgotten + number) for c, number in zip(loose, before, strict=True)]


def part_from(lines: Slice, parameters: Mapping[str, torch.Tensor], number: int) -> Part:
    """The piece that consists of lines of the user's."""
    part = Part([c for c in lines.calls if c.role != LOSS], number=number, lines=lines)
    seen = {id(p) for p in parameters.values()}
    own = list(lines.data())
    mine = {id(t) for _, t in own}
    plain = [pair for pair in own if "." not in pair[0]]
    users = [pair for c in lines.given() if not _of_torch(c.target) for pair in named_tensors(c)]
    # told by the name of the user's argument, else by that in the loop, else by that of torch's argument ("input")
    for name, t in (*users, *plain, *(pair for c in lines.given() for pair in named_tensors(c)), *own):
        where = part.given if t.grad_fn is None else part.cut if id(t) in mine else None
        if id(t) not in seen and where is not None:
            seen.add(id(t))
            where[_free(name, {**part.given, **part.cut}, t)] = t
    return part


def _is_end(c: Call, window: Window) -> bool:
    if c.role == LOSS:
        return c.seed is not None
    roots = [r() for _, r, _ in window.roots]
    return any(r is not None and any(o() is r for o in c.outputs) for r in roots)


def _behind(end: Call, calls: Sequence[Call]) -> list[Call]:
    """The calls whose results reach the end through arguments, itself included, in order."""
    wanted = [end]
    for c in reversed(calls[: calls.index(end)]):
        outputs = {id(t) for o in c.outputs if (t := o()) is not None}
        if any(id(t) in outputs for w in wanted for t in w.tensors()):
            wanted.append(c)
    return sorted(wanted, key=calls.index)


def _part(chain: list[Call], ends: list[Call], number: int) -> Part:
    part = Part(chain, ends=ends, number=number)
    made = {id(t) for c in chain for o in c.outputs if (t := o()) is not None}
    for c in chain:
        for name, t in named_tensors(c):
            if id(t) in made:
                continue
            where = part.cut if t.grad_fn is not None else part.given
            where[_free(name, {**part.given, **part.cut}, t)] = t
    return part


def _free(name: str, taken: Mapping[str, torch.Tensor], t: torch.Tensor) -> str:
    fresh, i = name, 2
    while fresh in taken and taken[fresh] is not t:
        fresh, i = f"{name}_{i}", i + 1
    return fresh


def named_tensors(c: Call) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors among a call's arguments by the argument's name; `batch.0`, `batch.mask` where they lie inside one."""
    for name, value in bound(c).items():
        yield from named_in(name, value)


def bound(c: Call) -> Mapping[str, Any]:
    """A call's arguments by name."""
    forward = getattr(c.target, "forward", c.target)
    try:
        bound = inspect.signature(forward).bind(*c.args, **c.kwargs).arguments
    except (TypeError, ValueError):
        return {**{str(i): a for i, a in enumerate(c.args)}, **c.kwargs}
    flat: dict[str, Any] = {}
    kinds = inspect.signature(forward).parameters
    for name, value in bound.items():
        flat.update(value if kinds[name].kind is inspect.Parameter.VAR_KEYWORD else {name: value})
    return flat


def layout_of(part: Part) -> Layout:
    """Along which axes of the piece's data its samples lie."""
    return layout({**part.given, **part.cut}, part.sequences_first)


def batch_of(part: Part) -> int:
    """How many samples the piece's data have, 0 if that cannot be told."""
    return layout_of(part).size


def pieces(window: Window, parameters: Mapping[str, torch.Tensor]) -> Iterator[Part]:
    """The pieces to look into, best first.

    The user's own lines where something lies between the calls and the loss, or where they have made of other tensors what is not finite;
    then the calls; then those lines that use values of before; last what starts from a value between the calls that is not finite.
    """

    def from_lines(way: Way) -> Iterator[Part]:
        for step in window.differentiated:
            yield from (part_from(lines, parameters, step.number) for lines in slices_of(step, way))

    parts = parts_of(window)
    clean = parts and all(p.ends and not p.cut and all(c.seed is ONES for c in p.ends) for p in parts) and not window.roots
    clean = clean and not any(_of_torch(c.target) for p in parts for c in p.ends)  # else no line of the user's would be seen
    lines = [] if clean else list(from_lines(Way()))
    got = [t for c in window.calls for t in c.tensors() if t.grad_fn is None] + [t for p in lines for t in p.given.values()]
    if not all(map(finite, got)):
        yield from (p for p in from_lines(Way(doubting=True)) if all(map(finite, p.given.values())))
    yield from lines
    yield from (p for p in parts if not _enters_bad(p))
    yield from (p for p in from_lines(Way(doubting=True, cutting=True)) if p.cut and not _enters_bad(p))
    yield from (p for p in parts if _enters_bad(p))


def _enters_bad(part: Part) -> bool:
    """Whether a piece starts from a value that is not finite: what made that is to be looked into first."""
    return not all(map(finite, part.cut.values()))


def _of_torch(target: Any) -> bool:
    code = getattr(getattr(type(target), "forward", target), "__code__", None)
    return code is not None and code.co_filename.startswith(LIBRARIES)


# ---------------------------------------------------------------- running


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """A piece made ready to run: `run` gives its losses, `inputs` are the tensors it reads, `wrt` what is differentiated by, `seeds` the
    gradients that come in by the losses (None: ones)."""

    run: Callable[[], list[torch.Tensor]]
    inputs: dict[str, torch.Tensor]
    wrt: dict[str, torch.Tensor]
    seeds: list[torch.Tensor | None] | None


def bench(part: Part, parameters: Mapping[str, torch.Tensor], pick: Pick = None) -> Bench:
    """Make a piece ready to run on the picked samples. `parameters` are those of the model and the loss by name."""
    samples = layout_of(part)
    fresh: dict[int, torch.Tensor] = {}
    inputs: dict[str, torch.Tensor] = {}
    wrt: dict[str, torch.Tensor] = {}
    for name, t in {**part.given, **part.cut}.items():
        ready = picked(t.detach(), samples.axes.get(name), pick)
        if t.requires_grad and (name in part.cut or t.is_leaf):
            ready = ready.clone().requires_grad_()
            wrt[name] = ready
        fresh[id(t)] = inputs[name] = ready
    wrt |= {n: p for n, p in parameters.items() if p.requires_grad}
    inputs |= parameters
    seeds = [_seed(c, samples.size, pick) for c in part.ends] if all(c.seed is not None for c in part.ends) and part.ends else None
    if part.lines is not None:
        lines = part.lines
        return Bench(lambda: [call(lines.run, (lambda t: fresh.get(id(t), t),), {})], inputs, wrt, None)
    return Bench(lambda: _losses(part, fresh), inputs, wrt, seeds)


def _seed(c: Call, batch: int, pick: Pick) -> torch.Tensor | None:
    if isinstance(c.seed, str):
        return None
    assert c.seed is not None, "an end was differentiated"
    return picked(c.seed, 0 if c.seed.ndim and c.seed.shape[0] == batch else None, pick)


def _losses(part: Part, fresh: Mapping[int, torch.Tensor]) -> list[torch.Tensor]:
    """Call after call; the result of one stands for its old tensors in the next."""
    now = dict(fresh)
    losses: list[torch.Tensor] = []
    for c in part.calls:
        args, kwargs = mapped(lambda t: now.get(id(t), t), c.args, c.kwargs)
        c.rewind()
        with in_autocast(c.autocast):
            result = call(standing_at(c.place, c.target), args, kwargs)
        if c.role == LOSS and not isinstance(result, torch.Tensor):
            result = loss_in(result)
        made = tensors_in(result)
        for old, new in zip(c.outputs, made, strict=False):
            if (was := old()) is not None:
                now[id(was)] = new
        if c in part.ends or not part.ends:
            losses += _roots(c, made)
    return losses


def _roots(c: Call, made: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    floating = [t for t in made if t.is_floating_point() and t.requires_grad]
    if c.role == LOSS:
        return floating
    scalars = [t for t in floating if t.numel() == 1]  # a model that returns its loss
    return scalars[:1] or floating


def _not_checkpointed(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A part whose activations are not kept gives the same numbers when they are."""
    function, *rest = args if args else (kwargs["function"],)
    return function(*rest, **{k: v for k, v in kwargs.items() if k not in _CHECKPOINTING})


_CHECKPOINTING = ("function", "use_reentrant", "preserve_rng_state", "context_fn", "determinism_check", "debug", "early_stop")


@contextmanager
def undisturbed(modules: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Afterwards random states, buffers and gradients are as before; torch.compile is switched off inside."""
    import sys

    others = ExitStack()
    others.enter_context(undrawn())
    others.enter_context(warnings.catch_warnings(action="ignore"))  # of the step: given before; of some samples alone: not the user's
    others.enter_context(alone())
    unchecked = watch_function(torch.utils.checkpoint.checkpoint, _not_checkpointed)  # torch.autograd.grad does not go through all of them
    states, grads = random_state(), [(p, p.grad) for m in modules for p in m.parameters()]
    owners = [m for root in modules for m in root.modules()]
    buffers = [(m._buffers, name, b, b.detach().clone()) for m in owners for name, b in m._buffers.items() if b is not None]
    eager = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else None  # else it would import it
    try:
        with torch.enable_grad():
            if eager is None:
                yield
            else:
                with eager:
                    yield
    finally:
        if unchecked is not None:
            unchecked()
        others.close()
        set_random_state(states)
        with torch.no_grad():
            for there, name, b, copy in buffers:
                b.data.copy_(copy)  # as Buffers.restore
                there[name] = b
        for p, g in grads:
            p.grad = g


def arranged(part: Part, parameters: Mapping[str, torch.Tensor]) -> None:
    """Find out along which axis of the data the samples lie, where the model's layers leave that open."""
    data, targets = {**part.given, **part.cut}, [c.target for c in part.calls]
    part.sequences_first = sequences_first(targets, data, lambda: bench(part, parameters).run())


def outcome(part: Part, parameters: Mapping[str, torch.Tensor], pick: Pick = None) -> Outcome:
    """Run a piece again as the loop did, without recording."""
    ready = bench(part, parameters, pick)
    try:
        losses = ready.run()
        if part.lines is not None and pick is None and not part.lines.confirmed(losses[0]):
            return Outcome(error="the lines that lead to the loss gave another value when they were run again")
        if not part.differentiated:  # what came in by its results is not known
            return Outcome(all(bool(torch.isfinite(t).all()) for t in losses))
        gradients = differentiate(losses, ready.wrt, _seeds(part, losses, ready))
    except Exception as error:  # a model that does not run on some samples alone: the caller sees that
        return Outcome(error=f"{type(error).__name__}: {error}")
    return Outcome(all(bool(torch.isfinite(t).all()) for t in losses), gradients)


def recorded_again(part: Part, parameters: Mapping[str, torch.Tensor], modules: Mapping[str, torch.nn.Module], pick: Pick = None) -> Live:
    """Run a piece again and record every operation. Raises TargetError if it raises."""
    ready = bench(part, parameters, pick)
    with _dense_gradients(modules.values()):
        wrt = ready.wrt if part.differentiated else {}
        return record(ready.run, ready.inputs, wrt, modules, lambda losses: _seeds(part, losses, ready))


@contextmanager
def _dense_gradients(roots: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Embeddings with sparse gradients give the same numbers as dense ones, which can be recorded."""
    sparse = [m for root in roots for m in root.modules() if getattr(m, "sparse", None) is True]
    try:
        for m in sparse:
            setattr(m, "sparse", False)  # noqa: B010  # typed as Tensor | Module
        yield
    finally:
        for m in sparse:
            setattr(m, "sparse", True)  # noqa: B010


def _seeds(part: Part, losses: Sequence[torch.Tensor], ready: Bench) -> list[torch.Tensor]:
    """The gradients that come in by the losses; ones where none fits, as after a change of the batch."""
    if part.lines is not None:
        return [torch.full_like(t, part.lines.seed) for t in losses]
    kept = ready.seeds if ready.seeds is not None and len(ready.seeds) == len(losses) else [None] * len(losses)
    return [s if s is not None and s.shape == t.shape else torch.ones_like(t) for t, s in zip(losses, kept, strict=True)]
