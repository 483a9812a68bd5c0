"""A run of several processes: all of them judge a step alike, in the same step, and learn from which rank the failure came.

One small all-reduce a step. What follows a bad step is the same sequence of collectives on every rank: flags, explanations, decision.
The step is run again on each rank by itself; collectives of the user's own code are refused there, as ranks run it differently often.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist

from whynan.watching.policy import RAISE, RETRY, ROLLBACK, SKIP, STOP
from whynan.watching.record import Incident
from whynan.watching.torch.calls import Refused
from whynan.watching.torch.intercept import is_data_parallel, watch_function

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


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this rank runs modules without the others: data parallel ones as they were given, no collectives."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() < 2:
        yield
        return
    around = {
        torch.nn.parallel.DistributedDataParallel.forward: _module_alone,
        torch.nn.SyncBatchNorm.forward: _norm_alone,
        **{getattr(dist, name): _refused for name in _COLLECTIVES},
    }
    with ExitStack() as stack:
        for function, instead in around.items():
            undo = watch_function(function, instead)
            if undo is not None:
                stack.callback(undo)
        yield
