"""Recording what a training loop has: modules and tensors as they are, rather than a loss on arrays."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from whynan.errors import TargetError, WhynanError
from whynan.frontends.torch.program import array_of, call, differentiate, recorded
from whynan.frontends.torch.recorder import Recorder
from whynan.frontends.trace import finished, first_line
from whynan.ir.frontend import Trace
from whynan.ir.graph import Node

__all__ = ["Live", "call", "differentiate", "record"]


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """A recorded step; `starts` are framework calls from which on the module of that path in `paths` was running."""

    trace: Trace
    starts: tuple[int, ...]
    paths: tuple[str, ...]

    def layer(self, node: Node) -> str:
        """The path of the module whose forward the node, or the forward call that it derives, stands in; empty if none's."""
        number = node.derives if node.derives >= 0 else node.source
        i = bisect_right(self.starts, number) - 1
        return self.paths[i] if number >= 0 and i >= 0 else ""


def record(
    run: Callable[[], Any],
    inputs: Mapping[str, torch.Tensor],
    wrt: Mapping[str, torch.Tensor],
    modules: Mapping[str, torch.nn.Module],
    seeds: Callable[[list[torch.Tensor]], Sequence[torch.Tensor]] | None = None,
) -> Live:
    """Run once and record every op, forward and backward.

    `run` returns the loss, or several that are added; what is the user's in it is called by `call`. `inputs` are the tensors that the
    graph gets as inputs, parameters included, `wrt` those of them whose gradients are wanted. `modules` are the roots by path, whose
    submodules name the layers. `seeds` gives the gradients by the losses, else they are ones. Raises TargetError with the framework's own
    line if the run raises.
    """
    recorder = Recorder(call.__code__, differentiate.__code__)
    nodes = {name: recorder.input(name, t, array_of(t)) for name, t in inputs.items()}
    try:
        with _layers(recorder, modules) as spans, recorder:
            outputs = recorded(recorder, run, wrt, seeds)
    except WhynanError:
        raise
    except Exception as error:
        raise TargetError(f"the step raised {first_line(error).rstrip('.')} when it was run again.") from error
    return Live(finished(recorder.recording, nodes, outputs), tuple(s for s, _ in spans), tuple(p for _, p in spans))


@contextmanager
def _layers(recorder: Recorder, roots: Mapping[str, torch.nn.Module]) -> Iterator[list[tuple[int, str]]]:
    """Collect, while the run lasts, from which framework call on which module was running."""
    paths = {id(m): ".".join(p for p in (root, name) if p) for root, top in roots.items() for name, m in top.named_modules()}
    running, spans = [""], []

    def entered(module: torch.nn.Module, args: Any) -> None:
        running.append(paths.get(id(module), running[-1]))
        spans.append((recorder.calls, running[-1]))

    def left(module: torch.nn.Module, args: Any, result: Any) -> None:
        running.pop()
        spans.append((recorder.calls, running[-1]))

    hooks = [register_module_forward_pre_hook(entered), register_module_forward_hook(left)]
    try:
        yield spans
    finally:
        for hook in hooks:
            hook.remove()
