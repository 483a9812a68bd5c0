"""What an optimizer changes, kept and put back: for steps that have begun when they turn out to be bad, and for snapshots."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

Optimizer = torch.optim.Optimizer


class Dropped(Exception):
    """Leaves an optimizer's step from inside its closure; never seen by the user."""


def evaluates_again(optimizer: Optimizer) -> bool:
    """Whether a closure may be called by this optimizer after it has changed a parameter: by LBFGS, and by one not of torch's own."""
    return isinstance(optimizer, torch.optim.LBFGS) or not type(optimizer).__module__.startswith("torch.optim")


def inside(optimizer: Optimizer) -> list[Optimizer]:
    """Optimizers that this one holds, and that may make its updates (SAM's `base_optimizer`)."""
    return [o for o in vars(optimizer).values() if isinstance(o, Optimizer)]


def searches(optimizer: Optimizer) -> bool:
    """Whether the optimizer tries steps along a line, of which some may fail."""
    return any(group.get("line_search_fn") for group in optimizer.param_groups)


class Kept:
    """An optimizer's parameters and state as they are now."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._state = state_of(optimizer, lists=not isinstance(optimizer, torch.optim.LBFGS))  # LBFGS never writes into its history
        self._parameters = parameters_of(optimizer)

    def restore(self) -> None:
        """Put all back; can be done once."""
        put_parameters(self._optimizer, self._parameters)
        put_state(self._optimizer, self._state, self._state["rest"])


def parameters_of(optimizer: Optimizer) -> list[torch.Tensor]:
    """Copies of the parameters, in the optimizer's order."""
    return [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]


def put_parameters(optimizer: Optimizer, copies: Sequence[torch.Tensor]) -> None:
    """Write what `parameters_of` returned back."""
    with torch.no_grad():
        for p, copy in zip((p for group in optimizer.param_groups for p in group["params"]), copies, strict=True):
            p.copy_(copy)


def state_of(optimizer: Optimizer, lists: bool = True) -> dict[str, Any]:
    """A copy of an optimizer's state by parameter, in its order, and of what its groups hold beside parameters."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    states = [copied(optimizer.state[p], lists) if p in optimizer.state else None for p in params]
    rest = [{k: copied(v, lists) for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    return {"states": states, "rest": rest}


def put_state(optimizer: Optimizer, kept: Mapping[str, Any], rest: Sequence[Mapping[str, Any]] = ()) -> None:
    """Give an optimizer the state that `state_of` returned; the copies become its own. `rest` is for its groups, one each."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for p, state in zip(params, kept["states"], strict=True):
        if state is None:
            optimizer.state.pop(p, None)
        else:
            optimizer.state[p] = state
    for group, values in zip(optimizer.param_groups, rest, strict=False):
        group.update(values)


def copied(value: Any, lists: bool = True) -> Any:
    """A copy of a nested state, its tensors cloned; without `lists`, lists are new but hold the same tensors."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {k: copied(v, lists) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(copied(v, lists) for v in value) if lists else type(value)(value)
    return value


def gradients_of(optimizer: Optimizer) -> list[torch.Tensor]:
    """The gradients that an update by the optimizer would use."""
    return [g for group in optimizer.param_groups for p in group["params"] if (g := p.grad) is not None]
