"""A loss composed with a model: one callable in which the model's outputs are the loss's predictions.

The model is any callable on arrays of its framework: a `torch.nn.Module`, a Keras model, a Flax NNX or bound Linen module, a plain
function; a Linen module may be given with its variables as a pair. It is called as it is, in the mode it was left in.
"""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from whynan.domain.names import is_target, kind_of, words_of
from whynan.domain.spec import Domain
from whynan.errors import DomainError, TargetError, WhynanError
from whynan.target import arguments_of, framework_of, positional_only

INPUT, TARGET = "x", "y"  # what the model's input and the loss's target are called unless the user names them as their functions do
Seen = dict[str, tuple[tuple[int, ...], ...]]
_WEIGHTS = frozenset("weight weights sample_weight reduction eps epsilon margin alpha gamma beta tau temperature smoothing".split())


@dataclass(frozen=True, slots=True)
class Wiring:
    """Which argument of the composition is which: names of the composition to names of the model and of the loss.

    `predictions` are the loss's arguments that the model's outputs become; `target` is the composition's name for the target, if any.
    """

    model: Mapping[str, str]
    loss: Mapping[str, str]
    predictions: tuple[str, ...]
    target: str

    @property
    def names(self) -> tuple[str, ...]:
        """The composition's arguments, the model's first; one that both take stands once."""
        return tuple(dict.fromkeys([*self.model, *self.loss]))


@dataclass(slots=True, eq=False)
class Composition:
    """A loss of a model's outputs. `callable` is the composed function, `wiring` says what its arguments are.

    `model` is the first part alone, a function of the model's inputs that gives the loss's predictions.
    """

    callable: Callable[..., Any]
    model: Callable[..., Any]
    wiring: Wiring
    framework: str | None
    seen: Seen = field(default_factory=dict)  # "shapes" of what the model gave in the last run

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of the outputs that the model gave in the last run; empty if it raised, or was not run."""
        return self.seen.get("shapes", ())

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Inside, an error that the loss raises on the model's output says so, with the output's shape."""
        try:
            yield
        except WhynanError as error:
            if not self.shapes or not isinstance(error, TargetError | DomainError) or " raised " not in error.message:
                raise
            gave, takes = " and ".join(map(_shape_text, self.shapes)), ", ".join(self.wiring.predictions)
            said = f"{error.message.rstrip('.')}; the model's output, {gave}, went to the loss as {takes}."
            raise type(error)(said, error.hint) from error


def compose(loss: Callable[..., Any], model: Any, given: Collection[str], name: str = "the loss") -> Composition:
    """The loss of the model's outputs as one function of the model's inputs and the loss's other arguments.

    `given` are the names that the user has said something about: they decide whether an argument is called `x` or `y` or as the
    model and the loss call it. Raises TargetError if the model cannot be called, is of another framework, or if no argument of the loss
    is left for its output.
    """
    called, framework = _callable(model), _framework(loss, model)
    wiring = wire(arguments_of(loss), _inputs(model), given, name)
    seen: Seen = {}
    first = _signed(_first(called, tuple(wiring.model), wiring.predictions, seen), tuple(wiring.model))
    composed = _signed(_composed(loss, called, wiring, positional_only(loss), seen), wiring.names)
    return Composition(composed, first, wiring, framework, seen)


def _signed(function: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """The function with a signature of arguments of those names."""
    parameters = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in names]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by inspect.signature
    return function


def _first(model: Callable[..., Any], feeds: tuple[str, ...], predictions: tuple[str, ...], seen: Seen) -> Callable[..., Any]:
    def first(*args: Any, **kwargs: Any) -> Any:
        values = {**dict(zip(feeds, args, strict=False)), **kwargs}
        seen["shapes"] = ()
        predicted = spread(model(*[values[n] for n in feeds]), predictions)
        seen["shapes"] = tuple([shape_of(predicted[n]) for n in predictions])
        return tuple(predicted.values())

    return first


def _composed(
    loss: Callable[..., Any],
    model: Callable[..., Any],
    wiring: Wiring,
    positional: tuple[str, ...],
    seen: Seen,
) -> Callable[..., Any]:
    """A plain function: front ends find the parameters of `model` and `loss` among its free names."""
    names, feeds, passes = wiring.names, tuple(wiring.model), tuple(wiring.loss.items())
    predictions = wiring.predictions

    def composed(*args: Any, **kwargs: Any) -> Any:
        values = {**dict(zip(names, args, strict=False)), **kwargs}
        seen["shapes"] = ()
        result = model(*[values[n] for n in feeds])
        predicted = spread(result, predictions)
        seen["shapes"] = tuple([shape_of(predicted[n]) for n in predictions])
        passed = {**{own: values[n] for n, own in passes}, **predicted}
        first = [passed.pop(n) for n in positional if n in passed]
        return loss(*first, **passed)

    return composed


# ---------------------------------------------------------------- the model


def _callable(model: Any) -> Callable[..., Any]:
    if _is_pair(model):
        module, variables = model
        return lambda *inputs: module.apply(variables, *inputs)
    if not callable(model):
        raise TargetError(f"the model is a {type(model).__name__}, which cannot be called.", "Give a module or a function of its input.")
    called: Callable[..., Any] = model
    return called


def _is_pair(model: Any) -> bool:
    """A Linen module with its variables."""
    return isinstance(model, tuple) and len(model) == 2 and callable(getattr(model[0], "apply", None))


def _inputs(model: Any) -> tuple[str, ...]:
    """The names of the arrays that a model must be given; one unnamed input if it does not say."""
    module = model[0] if _is_pair(model) else model
    return tuple(n for n, needed in arguments_of(module).items() if needed and n != "self") or (INPUT,)


def _framework(loss: Any, model: Any) -> str | None:
    of_loss, of_model = framework_of(loss), framework_of(model[0] if _is_pair(model) else model)
    if of_loss and of_model and of_loss != of_model:
        raise TargetError(f"the loss is written in {of_loss}, the model in {of_model}.", "Give a model and a loss of one framework.")
    return of_loss or of_model


def spread(result: Any, predictions: Sequence[str]) -> dict[str, Any]:
    """The loss's predictions from what a model gave: one array, several in order, or several by name.

    Raises TypeError if they do not fit.
    """
    if isinstance(result, Mapping):
        missing = [n for n in predictions if n not in result]
        if len(predictions) == len(result) == 1:
            return dict(zip(predictions, result.values(), strict=True))
        if missing:
            raise TypeError(f"the model gives {', '.join(map(str, result))} by name, but the loss takes {', '.join(missing)}")
        return {n: result[n] for n in predictions}
    outputs = list(result) if isinstance(result, tuple | list) else [result]
    if len(outputs) < len(predictions):
        few = "one output" if len(outputs) == 1 else f"{len(outputs)} outputs"
        raise TypeError(f"the model gives {few}, but the loss takes {', '.join(predictions)}: give domains for those it does not predict")
    return dict(zip(predictions, outputs, strict=False))


def shape_of(output: Any) -> tuple[int, ...]:
    """The shape of one of a model's outputs."""
    return tuple([int(n) for n in getattr(output, "shape", ())])


def _shape_text(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))})"


def goes_with(target: Domain, output: tuple[int, ...]) -> bool:
    """Whether a target's shape is that of an output, or that of its rows with as many classes as it has columns."""
    if target.kind != "classes":
        return target.shape == output
    return any(target.high + 1 == n and target.shape == (*output[:axis], *output[axis + 1 :]) for axis, n in enumerate(output))


# ---------------------------------------------------------------- which argument is which


def wire(loss: Mapping[str, bool], inputs: Sequence[str], given: Collection[str], name: str = "the loss") -> Wiring:
    """Find the predictions among the loss's arguments (name to whether it is needed), and name the composition's own arguments.

    Raises TargetError if the loss has no argument for the model's output.
    """
    named = [n for n in loss if is_target(n, loss) and not _is_side(n)]
    named = named or [n for n in (TARGET,) if n in loss and (n in given or INPUT in loss)]  # beside an x the name alone tells nothing
    targets = [n for n in named if loss[n]] or named[:1]  # labels=None may be the only target
    fed = _named_inputs(inputs, given)
    free = [n for n, needed in loss.items() if needed and n not in targets and n not in given and n not in fed and not _is_side(n)]
    free = free or [n for n, needed in loss.items() if needed and n not in targets and not _is_side(n)][:1]
    if not free:
        raise TargetError(f"{name} has no argument for the model's output.", f"It takes {', '.join(loss) or 'no named arguments'}.")
    if not targets and TARGET in given and TARGET not in loss and len(free) > 1:
        targets, free = [free[-1]], free[:-1]  # names that tell nothing: the last one is the target
    rest = [n for n, needed in loss.items() if n not in free and (needed or n in given or (n in targets and TARGET in given))]
    called = {_target_name(n, targets, given): n for n in rest}
    target = next((c for c, n in called.items() if n in targets), "")
    return Wiring(dict(zip(fed, inputs, strict=True)), called, tuple(free), target)


def _named_inputs(inputs: Sequence[str], given: Collection[str]) -> tuple[str, ...]:
    """How the composition calls the model's inputs: as the model does if the user does so or there are several, else the first is `x`."""
    if any(n in given for n in inputs) or (len(inputs) > 1 and INPUT not in given):
        return tuple(inputs)
    return (INPUT, *inputs[1:])


def _target_name(name: str, targets: Sequence[str], given: Collection[str]) -> str:
    """`y` if the user calls the loss's target so; never `y` otherwise, which beside an `x` would be taken for an input."""
    if name not in targets[:1] or name in given:
        return name
    return TARGET if TARGET in given else "y_true" if name == TARGET else name


def _is_side(name: str) -> bool:
    """Whether an argument is a weight, a mask or a number that steers the loss, which no model predicts."""
    return name in _WEIGHTS or bool({*words_of(name)} & _WEIGHTS) or kind_of(name) == "mask"
