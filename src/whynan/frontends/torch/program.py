"""A PyTorch loss as a program: run for real on NumPy arrays, or run once and recorded as a graph."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.autograd import Variable

from whynan.errors import TargetError, WhynanError
from whynan.frontends.torch.derivatives import as_unwatched, nodes_behind
from whynan.frontends.torch.owned import Owned, owned_by
from whynan.frontends.torch.recorder import Recorder
from whynan.frontends.torch.tensors import FORMATS, floating, to_array, to_tensor
from whynan.frontends.trace import finished, first_line, flattened, loss_node, one_number, refuse_to_lead
from whynan.ir.dtype import Array
from whynan.ir.frontend import Run, Trace
from whynan.ir.graph import Output

MODES = ("eager", "compile")

Target = Callable[..., Any]


class TorchProgram:
    """A loss function of PyTorch, ready to be run and recorded. `load` makes one."""

    framework = "torch"

    def __init__(self, target: Target, name: str, seed: int = 0) -> None:
        self.name = name
        self._seed = seed
        self.framework_version = str(torch.__version__)
        self._target = _eager(target)
        self._positional = _positional_only(self._target)
        self._owned: Owned = owned_by(self._target)
        self._compiled: Target | None = None

    @property
    def parameters(self) -> Mapping[str, Array]:
        """Trainable parameters that the target itself owns, by qualified name, with their present values."""
        return {name: array for name, p in self._owned.parameters.items() if (array := to_array(p)) is not None}

    def run(self, inputs: Mapping[str, Array], wrt: tuple[str, ...], mode: str = "eager") -> Run:
        """Run the loss and its gradients by `wrt`; never raises for what the loss itself raises.

        Raises TargetError for mode "compile" on a machine without a C++ compiler.
        """
        target = self._in_mode(mode)
        with _session(self._seed), self._owned.lent(inputs):
            tensors = self._tensors(inputs, wrt)
            try:
                result = call(target, *self._arguments(tensors))
                loss, parts = _loss(result)
                gradients = differentiate(parts, self._leaves(tensors, wrt))
            except (Exception, SystemExit) as error:
                if mode == "compile":
                    _refuse_without_compiler(error)
                return Run(np.empty(0), {}, first_line(error))
            return Run(loss, {name: array for name, g in gradients.items() if (array := to_array(g)) is not None})

    def capture(
        self, inputs: Mapping[str, Array], wrt: tuple[str, ...], mode: str = "eager", told: Sequence[float] = ()
    ) -> Trace:
        """Run once and record every op, forward and backward. `told` are outcomes of the looks at values, in order (`looks`).

        Raises TargetError if the loss raises, returns nothing that can be differentiated or looked at, or ignores its inputs.
        """
        if mode == "compile":
            refuse_to_lead(told)
            return self._capture_compiled(inputs, wrt)
        target = self._in_mode(mode)
        return self._record(target, Recorder(call.__code__, differentiate.__code__, told=told), inputs, wrt)

    def _capture_compiled(self, inputs: Mapping[str, Array], wrt: tuple[str, ...]) -> Trace:
        """Trace the loss in a first run, in one piece if that is possible, and record a second one."""
        from whynan.frontends.torch import compiled  # seconds to import

        target, reason = compiled.traced(self._target, whole=True), ""
        with compiled.on_stage() as first:
            error = self._try(target, inputs, wrt)
            reason = (compiled.graph_break(error) or "") if error else ""
        if reason:
            target = compiled.traced(self._target, whole=False)
            with compiled.on_stage() as first:
                self._try(target, inputs, wrt)
        recorder = Recorder(call.__code__, differentiate.__code__, modes=compiled.modes)
        with compiled.on_stage(recorder) as second:
            return self._record(target, recorder, inputs, wrt, lambda: reason or compiled.difference(first, second))

    def _try(self, target: Target, inputs: Mapping[str, Array], wrt: tuple[str, ...]) -> BaseException | None:
        """Run the loss and its gradients for what that does to the target; returns what it raised."""
        with _session(self._seed), self._owned.lent(inputs):
            tensors = self._tensors(inputs, wrt)
            try:
                differentiate(floating(call(target, *self._arguments(tensors))), self._leaves(tensors, wrt))
            except (Exception, SystemExit) as error:
                return error
        return None

    def _record(
        self, target: Target, recorder: Recorder, inputs: Mapping[str, Array], wrt: tuple[str, ...], gap: Callable[[], str] = str
    ) -> Trace:
        """Run the target while the recorder watches. `gap` says afterwards why the recording is not the whole program, if it is not."""
        with _session(self._seed), self._owned.lent(inputs):
            tensors = self._tensors(inputs, wrt)
            leaves = {**{n: t for n, t in tensors.items() if isinstance(t, torch.Tensor)}, **self._owned.parameters}
            nodes = {name: recorder.input(name, t, array_of(t)) for name, t in leaves.items()}
            try:
                with recorder:
                    outputs = recorded(recorder, lambda: call(target, *self._arguments(tensors)), self._leaves(tensors, wrt))
            except WhynanError:
                raise
            except (Exception, SystemExit) as error:
                what = first_line(error).rstrip(".")
                raise TargetError(f"the loss {self.name} raised {what}.", "Check the shapes, dtypes and values of its inputs.") from error
            missing = gap()
            if missing:
                outputs = [Output(o.kind, o.name, recorder.unproven(o.node, missing)) for o in outputs]
        return finished(recorder.recording, nodes, outputs)

    def _in_mode(self, mode: str) -> Target:
        if mode == "eager":
            return self._target
        if mode != "compile":
            raise TargetError(f"PyTorch has no mode {mode!r}.", f"Choose from {', '.join(MODES)}.")
        if self._compiled is None:
            from whynan.frontends.torch import compiled  # seconds to import

            self._compiled = compiled.compiled(self._target)
        return self._compiled

    def _tensors(self, inputs: Mapping[str, Any], wrt: tuple[str, ...]) -> dict[str, Any]:
        """The arguments: arrays as tensors, those of `wrt` with gradients, everything else as it is."""
        tensors: dict[str, Any] = {}
        for name, value in inputs.items():
            if name in self._owned.parameters:
                continue
            is_array = isinstance(value, (np.ndarray, np.generic))
            tensors[name] = to_tensor(np.asarray(value)) if is_array else value
            if is_array and name in wrt and tensors[name].is_floating_point():
                tensors[name].requires_grad_()
        return tensors

    def _arguments(self, tensors: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        first = tuple(tensors[name] for name in self._positional if name in tensors)
        return first, {name: t for name, t in tensors.items() if name not in self._positional}

    def _leaves(self, tensors: Mapping[str, Any], wrt: tuple[str, ...]) -> dict[str, torch.Tensor]:
        found = {name: self._owned.parameters.get(name, tensors.get(name)) for name in wrt}
        return {name: t for name, t in found.items() if isinstance(t, torch.Tensor) and t.requires_grad}


def load(target: Target, name: str, seed: int = 0) -> TorchProgram:
    """A program from a function, a method, a closure or a module, whose random numbers are drawn under `seed`.

    Raises TargetError if it cannot be called.
    """
    if not callable(target):
        raise TargetError(f"{name} is a {type(target).__name__}, which cannot be called.", "Name a function or an nn.Module.")
    return TorchProgram(target, name, seed)


# ---------------------------------------------------------------- running


def _refuse_without_compiler(error: BaseException) -> None:
    from whynan.frontends.torch import compiled

    refusal = compiled.without_compiler(error)
    if refusal is not None:
        raise refusal from error


def call(target: Target, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The one place from which a target is called: what lies above it on the stack is no part of the loss."""
    return target(*args, **kwargs)


def differentiate(
    parts: Sequence[torch.Tensor], leaves: Mapping[str, torch.Tensor], seeds: Sequence[torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """Gradients of the sum of the parts by each leaf that it is connected to; `seeds` are the gradients by the parts, else ones.

    The engine is called directly: `torch.autograd.grad` would hide a user's own backward() from torch function modes.
    """
    given = seeds if seeds is not None else [torch.ones_like(t) for t in parts]
    pairs = [(t, g) for t, g in zip(parts, given, strict=True) if t.requires_grad]
    if not pairs or not leaves:
        return {}
    roots, incoming = zip(*pairs, strict=True)
    with torch.no_grad():
        found = Variable._execution_engine.run_backward(roots, incoming, False, False, tuple(leaves.values()), True, accumulate_grad=False)
    return {name: g for name, g in zip(leaves, found, strict=True) if g is not None}


def _loss(result: Any) -> tuple[Array, list[torch.Tensor]]:
    """The loss as one number, and the tensors that it is the sum of."""
    parts = floating(result)
    if parts:
        return one_number([array_of(t) for t in parts]), parts
    numbers = [leaf for leaf in flattened(result) if isinstance(leaf, (float, np.floating))]
    if not numbers:
        raise TypeError(_no_loss(result))
    return np.asarray(sum(map(float, numbers))), parts


def _no_loss(result: Any) -> str:
    what = f"a tensor of {result.dtype}" if isinstance(result, torch.Tensor) else f"a {type(result).__name__}"
    return f"the loss returned {what}, in which there is no floating tensor"


def array_of(t: torch.Tensor) -> Array:
    """The tensor's values; TypeError for an element type that whynan has no format for."""
    array = to_array(t)
    if array is None or t.dtype not in FORMATS:
        raise TypeError(f"whynan has no number format for a tensor of {t.dtype}")
    return array


@contextmanager
def _session(seed: int) -> Iterator[None]:
    """The given seed, gradients on, warnings off; afterwards the random state and torch's settings are as they were."""
    generator = torch.default_generator
    state, dtype, grad = generator.get_state(), torch.get_default_dtype(), torch.is_grad_enabled()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            generator.manual_seed(seed)
            torch.set_grad_enabled(True)
            if torch.is_inference_mode_enabled():
                with torch.inference_mode(False):
                    yield
            else:
                yield
    finally:
        generator.set_state(state)
        torch.set_grad_enabled(grad)
        if torch.get_default_dtype() is not dtype:
            torch.set_default_dtype(dtype)


def _eager(target: Target) -> Target:
    """The function that torch.compile was given, if the target is a compiled one."""
    original = getattr(target, "_torchdynamo_orig_callable", None) or getattr(target, "_orig_mod", None)
    return target if original is None else _eager(original)


def _positional_only(target: Target) -> tuple[str, ...]:
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return ()
    return tuple(p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_ONLY)


# ---------------------------------------------------------------- recording


def recorded(
    recorder: Recorder,
    run: Callable[[], Any],
    leaves: Mapping[str, torch.Tensor],
    seeds: Callable[[list[torch.Tensor]], Sequence[torch.Tensor]] | None = None,
) -> list[Output]:
    """Run a loss and its gradients by the leaves while the recorder watches (its context is entered); returns the graph's outputs.

    `seeds` gives the gradients by the loss's parts, else they are ones.

    Raises TargetError if the loss is nothing that can be differentiated or looked at, and what the run raises.
    """
    result = run()
    parts = floating(result)
    behind = nodes_behind(parts)
    recorder.derivatives_of(_handwritten(behind))
    if recorder.eager:
        as_unwatched(recorder, behind)
    loss = _loss_node(recorder, result, parts)
    gradients = differentiate(parts, leaves, seeds(parts) if seeds is not None else None)
    return [Output("loss", "loss", loss)] + [Output("gradient", n, recorder.node(g)) for n, g in gradients.items()]


def _loss_node(recorder: Recorder, result: Any, parts: list[torch.Tensor]) -> int:
    """The node of the loss: the result itself, or the float64 sum of its elements."""
    if not parts:
        raise TargetError(f"{_no_loss(result)}.", "Return a tensor; .item() and float() cut it off from its gradients.")
    nodes = [recorder.node(t) for t in parts]
    if not any(recorder.varies(n) for n in nodes):
        raise TargetError("the loss does not depend on any of its inputs.", "Check that it uses its arguments.")
    return loss_node(recorder.recording, nodes)


def _handwritten(nodes: list[Any]) -> list[Any]:
    """Those autograd nodes that are `autograd.Function`s of Python code (and not torch.compile's own)."""
    own = [n for n in nodes if isinstance(n, torch.autograd.function.BackwardCFunction) and not _is_compiled(n)]
    return sorted(own, key=lambda n: n._sequence_nr())


def _is_compiled(node: Any) -> bool:
    return str(getattr(node, "_forward_cls", type(node)).__module__).startswith("torch._functorch.")
