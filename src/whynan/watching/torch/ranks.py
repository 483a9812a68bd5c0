"""A run of several processes: all of them judge a step alike, in the same step, and learn from which rank the failure came.

One small all-reduce a step. What follows a bad step is the same sequence of collectives on every rank: flags, explanations, decision.
The step is run again on each rank by itself; collectives of the user's own code are refused there, as ranks run it differently often.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist

from whynan.watching.policy import RAISE, RETRY, ROLLBACK, SKIP, STOP
from whynan.watching.record import Incident
from whynan.watching.torch.calls import Refused
from whynan.watching.torch.intercept import DOOR, is_data_parallel, watch_function

FINE, GRADIENT, LOSS = range(3)  # what a rank has found

_SEVEREST_LAST = (SKIP, RETRY, ROLLBACK, STOP, RAISE)
_COLLECTIVES = """all_reduce broadcast reduce barrier send recv gather scatter all_gather all_gather_into_tensor all_gather_object
    reduce_scatter reduce_scatter_tensor all_to_all all_to_all_single""".split()


def ranks_of(models: Any) -> "Ranks | None":
    """The processes of this run; None if it is alone."""
    if not dist.is_available() or not dist.is_initialized():
        return None
    group = next((m.process_group for m in models if is_data_parallel(m)), None)
    return Ranks(group) if dist.get_world_size(group) > 1 else None


class Ranks:
    """The processes of a group and what they tell each other."""

    def __init__(self, group: Any) -> None:
        self._group = group
        self.rank, self.world = dist.get_rank(group), dist.get_world_size(group)
        self._device = "cuda" if dist.get_backend(group) == "nccl" else "cpu"
        self.codes: list[int] = []

    def tell(self, code: int) -> bool:
        """Whether the step is fine on every rank; `codes` is then what each has found."""
        flags = torch.zeros(self.world, dtype=torch.int32)
        flags[self.rank] = code
        flags = flags.to(self._device)
        dist.all_reduce(flags, group=self._group)
        self.codes = flags.tolist()
        return not any(self.codes)

    def joined(self, explain: Callable[[], Incident]) -> Incident:
        """The incident of all ranks: a rank whose own step is healthy tells of the first whose step failed."""
        try:
            own, error = explain(), None
        except Exception as failure:
            own, error = None, failure
        told = None if own is None else replace(own, tensors={}, recipe=None)
        found: list[Incident | None] = [None] * self.world
        dist.all_gather_object(found, told, group=self._group)
        ranks = tuple(i for i, f in enumerate(found) if f is not None and f.reproduced)
        ranks = ranks or tuple(i for i, code in enumerate(self.codes) if code == max(self.codes))
        mine = self.rank in ranks
        if error is not None and mine:
            raise error
        theirs = own if mine else found[ranks[0]]
        if theirs is None:
            raise RuntimeError(f"rank {ranks[0]} could not explain it") from error
        note = () if mine else (f"this is told by rank {self.rank}: its own part of the step is healthy",)
        rank = self.rank if mine else ranks[0]
        return replace(theirs, rank=rank, world=self.world, ranks=ranks, notes=(*theirs.notes, *note))

    def agree(self, ask: Callable[[], str]) -> str:
        """What is done on all ranks: the severest of what they want. Raises here what `ask` raises, elsewhere the step's error."""
        try:
            wanted, error = ask(), None
        except Exception as failure:
            wanted, error = RAISE, failure
        code = torch.tensor(_SEVEREST_LAST.index(wanted), device=self._device)
        dist.all_reduce(code, op=dist.ReduceOp.MAX, group=self._group)
        if error is not None:
            raise error
        return _SEVEREST_LAST[int(code)]

    def averaged(self, healed: bool, parameters: list[torch.Tensor]) -> bool:
        """Average the gradients that every rank has made anew by itself; False, and nothing is averaged, if one of them could not.

        `parameters` are those that had a gradient before, on all ranks the same.
        """
        count = torch.tensor(int(healed), device=self._device)
        dist.all_reduce(count, group=self._group)
        if int(count) < self.world:
            return False
        for p in parameters:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            dist.all_reduce(p.grad, group=self._group)
            p.grad /= self.world
        return True


def _refused(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    raise Refused("the step exchanges data with other ranks, which cannot be done again by one rank alone")


def _module_alone(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0].module(*args[1:], **kwargs)


def _norm_alone(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return torch.nn.BatchNorm1d.forward(*args, **kwargs)


def is_sharded(module: torch.nn.Module) -> bool:
    """Whether parameters are spread over the ranks (fully_shard)."""
    return any(hasattr(p, "full_tensor") for p in module.parameters())


def is_flat(module: torch.nn.Module) -> bool:
    """Whether it is the older FullyShardedDataParallel, which cannot be run without the other ranks."""
    return any(c.__name__ == "FullyShardedDataParallel" for m in module.modules() for c in type(m).__mro__)


def shard(t: torch.Tensor) -> torch.Tensor:
    """This rank's part of a tensor that is spread over the ranks; another tensor as it is."""
    part: torch.Tensor = t.to_local() if hasattr(t, "to_local") else t
    return part


_whole: dict[int, torch.nn.Module] = {}  # a sharded module's id and the whole one, while a step is looked into


@contextmanager
def whole(modules: Sequence[torch.nn.Module]) -> Iterator[Mapping[int, torch.nn.Module]]:
    """Sharded modules with all their parameters on each rank, which can be run without the others. All ranks must come by together."""
    _whole.update({id(m): _gathered(m, {}) for m in modules if is_sharded(m)})
    try:
        yield _whole
    finally:
        _whole.clear()


def _gathered(module: torch.nn.Module, seen: dict[int, Any]) -> torch.nn.Module:
    """A plain twin of a module: the same attributes and buffers, whole parameters, none of the hooks that gather them."""
    if id(module) in seen:
        twin: torch.nn.Module = seen[id(module)]
        return twin
    kind: Any = type(module)
    by_shards = any(base.__name__ == "FSDPModule" for base in kind.__mro__)
    plain = next(base for base in kind.__bases__ if base.__name__ != "FSDPModule") if by_shards else kind
    twin = seen[id(module)] = plain.__new__(plain)
    twin.__dict__.update({name: value for name, value in vars(module).items() if name != DOOR})
    hooks = [name for name in vars(module) if name.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called"))]
    twin.__dict__.update({name: {} for name in hooks if by_shards})
    twin.__dict__["_parameters"] = {name: _full(p, seen) for name, p in module._parameters.items()}
    twin.__dict__["_modules"] = {name: None if m is None else _gathered(m, seen) for name, m in module._modules.items()}
    return twin


def _full(p: Any, seen: dict[int, Any]) -> Any:
    if not hasattr(p, "full_tensor"):
        return p
    if id(p) not in seen:
        seen[id(p)] = torch.nn.Parameter(p.detach().full_tensor(), requires_grad=p.requires_grad)
    return seen[id(p)]


def _called_whole(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    twin = _whole.get(id(args[0]))
    return original(*args, **kwargs) if twin is None else twin(*args[1:], **kwargs)


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this rank runs modules without the others: data parallel ones as they were given, no collectives."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() < 2:
        yield
        return
    around = {
        torch.nn.parallel.DistributedDataParallel.forward: _module_alone,
        torch.nn.SyncBatchNorm.forward: _norm_alone,
        **({torch.nn.Module.__call__: _called_whole} if _whole else {}),
        **{getattr(dist, name): _refused for name in _COLLECTIVES},
    }
    with ExitStack() as stack:
        for function, instead in around.items():
            undo = watch_function(function, instead)
            if undo is not None:
                stack.callback(undo)
        yield
