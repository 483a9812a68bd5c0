"""Other ways of looking for NaN in PyTorch, each as a context around training. None is imported before it is used."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

Around = Callable[[nn.Module, Any, Any], Any]


@contextmanager
def nothing(model: nn.Module, loss: Any, optimizer: Any) -> Iterator[None]:
    """Nobody watches."""
    yield


@contextmanager
def whynan_watch(model: nn.Module, loss: Any, optimizer: Any) -> Iterator[Any]:
    """whynan.watch, without incident folders."""
    import whynan

    with whynan.watch(model, loss=loss, optimizer=optimizer, folder=None) as watch:
        yield watch


@contextmanager
def anomaly_mode(model: nn.Module, loss: Any, optimizer: Any) -> Iterator[None]:
    """torch.autograd's anomaly mode: names the forward call of a backward function that returned NaN."""
    with torch.autograd.detect_anomaly(check_nan=True):
        yield


@contextmanager
def module_hooks(model: nn.Module, loss: Any, optimizer: Any) -> Iterator[None]:
    """A forward hook on each module that checks its output, as many answers on the web advise."""

    def check(module: nn.Module, args: Any, out: Any) -> None:
        for t in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(t, torch.Tensor) and not torch.isfinite(t).all():
                raise FloatingPointError(f"the output of {type(module).__name__} is not finite")

    parts = [m for top in (model, loss) if isinstance(top, nn.Module) for m in top.modules()]
    hooks = [m.register_forward_hook(check) for m in parts]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Checked(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if "empty" in str(func):
            return out  # memory with anything in it
        for t in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(t, torch.Tensor) and t.is_floating_point() and not torch.isfinite(t).all():
                raise FloatingPointError(f"{func} gave a value that is not finite")
        return out


@contextmanager
def dispatch_checks(model: nn.Module, loss: Any, optimizer: Any) -> Iterator[None]:
    """Every operation's result is checked as it is made, by a TorchDispatchMode."""
    with _Checked():
        yield


@contextmanager
def underflow_overflow(model: nn.Module, loss: Any, optimizer: Any) -> Iterator[None]:
    """`transformers.debug_utils.DebugUnderflowOverflow`: hooks that look at weights, inputs and outputs of all modules."""
    from transformers.debug_utils import DebugUnderflowOverflow

    DebugUnderflowOverflow(model)
    try:
        yield
    finally:
        for m in model.modules():
            m._forward_hooks.clear()


PEERS: dict[str, Around] = {
    "whynan.watch": whynan_watch,
    "anomaly mode": anomaly_mode,
    "module hooks": module_hooks,
    "dispatch checks": dispatch_checks,
    "DebugUnderflowOverflow": underflow_overflow,
}

FINDER = "torchlens find_nan"


class _Whole(nn.Module):
    """Model and loss as one module, which is what torchlens looks at."""

    def __init__(self, model: nn.Module, loss: Any) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, *given: Any) -> torch.Tensor:
        """The loss of inputs and targets: `inputs` of them go to the model."""
        made = self.model(*given[: self.inputs])
        return self.loss(made, *given[self.inputs :])

    inputs = 1


def found_by_torchlens(model: nn.Module, loss: Any, batch: tuple[Any, Any], autocast: Any = None, backward: bool = False) -> str:
    """`torchlens.debug.find_nan` on model and loss, and if it finds nothing and `backward` is set, `bisect_nan_backward`; what they say."""
    import torchlens
    from torchlens.options import CaptureOptions

    whole = _Whole(model, loss)
    inputs, targets = (part if isinstance(part, tuple) else (part,) for part in batch)
    whole.inputs = len(inputs)
    given = [*inputs, *targets]
    with torch.autocast("cpu", dtype=autocast) if autocast else nullcontext():
        found = torchlens.debug.find_nan(whole, given)
        if found.found or not backward:
            return f"{found.func_name} {found.source_line}" if found.found else ""
        trace = torchlens.trace(whole, given, capture=CaptureOptions(save_grads=True))
    trace.log_backward(trace[trace.output_layers[0]].out)
    told = torchlens.debug.bisect_nan_backward(trace)
    return f"a gradient {told.birth.source_line if told.birth else ''}" if told.found else ""
