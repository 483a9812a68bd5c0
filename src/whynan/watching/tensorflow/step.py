"""A training step that is watched: it looks at its own loss and gradients, and a bad one does not update and is explained."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from whynan.errors import WhynanError
from whynan.frontends.names import names_of
from whynan.frontends.tensorflow.owned import Owned, owned_by, plain_of
from whynan.frontends.tensorflow.step import converted
from whynan.watching.handle import Watched
from whynan.watching.judge import Judge, euclidean
from whynan.watching.keras.data import collected
from whynan.watching.keras.tap import BAD, FINE, LEFT_OUT, Tap
from whynan.watching.overseer import Overseer
from whynan.watching.policy import RETRY
from whynan.watching.recipe import of_function
from whynan.watching.record import Incident, Moment, Recipe
from whynan.watching.replay import Again, batch_of, explained
from whynan.watching.tensorflow.drawn import here, noting, together
from whynan.watching.tensorflow.rerun import Rerun, arrays, named, part_of
from whynan.watching.tensorflow.tap import Guard, Inside, by_hand, compiling, differentiating


@dataclass(slots=True, eq=False)
class State:
    """The variables of a run: `parameters` by name, `others` that a step may change too, and what `optimizers` hold of their own."""

    parameters: Mapping[str, Any]
    others: Sequence[Any]
    optimizers: Sequence[Any] = ()
    models: Sequence[Any] = ()

    def owned(self) -> Owned:
        """All of them, as they are to be lent to a run that must leave no trace."""
        own = [raw(v) for o in self.optimizers for v in o.variables]
        return Owned(self.parameters, (*self.parameters.values(), *self.others, *own), ())


@dataclass(eq=False, repr=False)  # with a dictionary of its own, for the attributes of the function that it stands for
class WatchedStep(Watched):
    """A step that can be called as before."""

    function: Callable[..., Any]
    state: Callable[[], State]
    overseer: Overseer
    compile: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None  # None: the step runs eagerly
    jit: bool = False  # whether XLA compiles it
    convert: bool = False  # whether AutoGraph rewrites the step
    names: Callable[..., dict[str, Any]] = named
    bundled: Callable[[tuple[Any, ...], Mapping[str, Any]], tuple[Recipe, dict[str, Any]]] | None = None  # what a bundle keeps of a step
    given: Callable[..., Any] | None = None  # what the user has, which is called again after `close`
    _run: Callable[..., Any] | None = None
    _closed: bool = False
    _parameters: Mapping[str, Any] = field(default_factory=dict)  # as of the last time that the step's Python code has run
    _held_back: bool = False  # one optimizer of Keras' makes the step's one update: then a bad one is not made at all
    _several: bool = False  # what one of several updates has changed is to be taken back where another is bad
    _optimizers: list[Any] = field(default_factory=list)  # seen in the step
    _trained: list[Any] = field(default_factory=list)  # variables that these update
    _inside: Inside = field(default_factory=Inside)
    _clones: dict[Any, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.judge = Judge(self.overseer, self._take, _put, self._norm)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run one step; see `policy` for what happens when it is bad."""
        if self._closed:
            return (self.given or self.function)(*args, **kwargs)
        if not tf.executing_eagerly():
            what = f"The watched step {getattr(self.function, '__name__', '')} is called inside of another tf.function."
            raise WhynanError(what, "Watch the outer function: whynan.watch looks into the functions, loops and branches in it.")
        if self._run is None:
            self._run = self._compiled()
        self.judge.begin()
        result, report, drawn = self._run(*args, **kwargs)
        state, loss, squared, rate, scale = report if isinstance(report, tuple) else report.numpy().tolist()
        norm = math.sqrt(2 * squared) if squared >= 0 else squared
        if state == FINE:
            self.judge.healthy(loss, norm, rate, scale)
            return result
        moment = self.judge.moment(loss, norm, rate, scale)
        if state == LEFT_OUT:
            self.judge.left_out(moment)
        else:
            args, kwargs = tf.nest.map_structure(_tensor, (args, kwargs))
            if self.judge.bad(moment, lambda: self._explained(moment, args, kwargs, drawn)) == RETRY and (rest := self._rest(drawn)):
                return self._again(rest, args, kwargs)
        return result

    def close(self) -> None:
        """Stop watching: from now on the step is called as it was given."""
        self.note()
        self._closed = True

    @property
    def stopped(self) -> bool:
        """Whether the policy asks the loop to end."""
        return self.judge.stopped

    # ------------------------------------------------------------ inside the step

    def _compiled(self) -> Callable[..., Any]:
        """The guarded step, under the name of the user's function, by which TensorFlow speaks of it."""

        def guarded(*args: Any, **kwargs: Any) -> tuple[Any, Any, Any]:
            return self._guarded(*args, **kwargs)

        return self._guarded if self.compile is None else self.compile(functools.update_wrapper(guarded, self.function))

    def _guarded(self, *args: Any, **kwargs: Any) -> tuple[Any, Any, Any]:
        """The step with its result, the guard's report and what it has drawn from iterators.

        What a bad step has changed otherwise than by an optimizer is put back. The report's numbers are a tensor in a graph.
        """
        state, guard = self.state(), Guard(self._inside)
        self._parameters = state.parameters
        before = [(v, v.read_value()) for v in self._changed(state)]
        tap = Tap(guard.update)
        with noting() as drawn, tap.open([*differentiating(tap), *compiling(self._clones)]):
            result = (converted(self.function) if self.convert and not tf.executing_eagerly() else self.function)(*args, **kwargs)
        if guard.alone and not self._several:
            self._held_back = True
            del before[: len(before) - len(state.others)]
        elif guard.optimizers and not self._several:
            self._several, self._optimizers, self._trained = True, [*guard.optimizers], [raw(v) for v in guard.variables]
            self._run = None  # from the next step on with what these optimizers hold and update
        for found in [] if guard.seen else by_hand(tap):
            guard.update(found, lambda: None)
        report = guard.report()

        def put_back() -> Any:
            for variable, value in before:
                variable.assign(value)
            return tf.constant(True)

        if tf.executing_eagerly():
            if report[0] == BAD:
                put_back()
        elif before:
            tf.cond(tf.equal(report[0], BAD), put_back, lambda: tf.constant(False))
        return result, report, here(drawn)

    def _changed(self, state: State) -> list[Any]:
        """The variables that a bad step may have changed: those that no optimizer has held back, those that are not trained last."""
        trained = {v.ref(): v for v in (*state.parameters.values(), *self._trained)}
        parameters = [] if self._held_back and not self._several else [*trained.values()]
        optimizers = {id(o): o for o in (*state.optimizers, *self._optimizers)} if self._several else {}
        return [*parameters, *(raw(v) for o in optimizers.values() for v in o.variables), *state.others]

    # ------------------------------------------------------------ when it is bad

    def _explained(self, moment: Moment, args: tuple[Any, ...], kwargs: Mapping[str, Any], drawn: Sequence[Any]) -> Incident:
        own = collected(together(drawn), tf.Tensor)
        given = arrays(self.names(self.function, args, kwargs) | own)
        batch = batch_of(given)
        state = self.state()
        rerun = Rerun(self.function, args, kwargs, state.owned(), batch, self.names, state.models, self.convert, drawn)

        def bundled() -> tuple[Recipe, dict[str, Any]]:
            recipe, tensors = (self.bundled or self._called)(args, kwargs)
            return recipe, tensors | {f"batch/{name}": t for name, t in own.items()}

        modes = ("eager",) if self.compile is None else ("eager", "xla" if self.jit else "function")
        again = Again("tensorflow", str(tf.__version__), modes, given, batch, rerun.record, bundled=bundled)
        failed = "gradient" if math.isfinite(moment.loss) else "loss"
        if failed == "gradient" and not math.isnan(moment.scale):
            failed = "scale"
        return explained(again, moment, failed, self.overseer.options.replay_seconds)

    def _called(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Recipe, dict[str, Any]]:
        """The call of the step, and its variables, which only the user's code can put into their places."""
        recipe, tensors = of_function(self.step, args, kwargs, lambda v: isinstance(v, tf.Tensor))
        load = ("# first load your variables from given['parameters/...']: see the names in incident.json",)
        tensors |= {f"parameters/{name}": v for name, v in self.state().parameters.items()}
        return replace(recipe, lines=(*load, *recipe.lines)), tensors

    def _rest(self, drawn: Sequence[Any]) -> Sequence[int]:
        """The samples to try again without the others; none where the step would draw other ones."""
        return () if drawn else self.judge.rest()

    def _again(self, rest: Sequence[int], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run the step on some of the samples."""
        batch = self.overseer.suspects.batch
        less, named_less = tf.nest.map_structure(lambda t: part_of(t, rest, batch), (args, dict(kwargs)))
        return self(*less, **named_less)

    def _norm(self) -> float:
        return euclidean(v.numpy() for v in self._parameters.values() if v.dtype.is_floating)

    def _take(self) -> list[tuple[Any, Any]]:
        return [(v, v.read_value()) for v in self.state().owned().state]


def _tensor(value: Any) -> Any:
    """An array as the tensor that a `tf.function` makes of it; anything else as it is."""
    return tf.convert_to_tensor(value) if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" else value


def _put(snapshot: list[tuple[Any, Any]]) -> None:
    for variable, value in snapshot:
        variable.assign(value)


def raw(variable: Any) -> Any:
    """TensorFlow's variable inside one of Keras'."""
    return variable if isinstance(variable, tf.Variable) else variable.value


def state_of(step: Callable[..., Any], models: Sequence[Any], optimizers: Sequence[Any]) -> State:
    """The variables of models and optimizers, and those that the step's own code refers to."""
    owned = owned_by(step)
    found = dict(owned.parameters)
    every = {v.ref(): v for v in owned.state}
    for model in models:
        found |= {str(getattr(v, "path", v.name)): raw(v) for v in model.trainable_variables}
        every |= {raw(v).ref(): raw(v) for v in model.variables}
    last = {v.ref(): name for name, v in found.items()}  # one name each, the model's
    taken = {*last, *(raw(v).ref() for o in optimizers for v in o.variables)}
    parameters = {name: v for name, v in found.items() if last[v.ref()] == name}
    return State(parameters, [v for r, v in every.items() if r not in taken], optimizers, models)


def watch_step(step: Any, models: Sequence[Any], optimizers: Sequence[Any], overseer: Overseer) -> WatchedStep:
    """Watch a step of the user's: a `tf.function` (compiled with the same settings), or a function that runs eagerly.

    Models and optimizers that its code refers to by a name need not be given. Raises WhynanError if it cannot be called.
    """
    if not callable(step):
        raise WhynanError(f"whynan.watch was given a {type(step).__name__}.", "Give it the function that makes one training step.")
    plain = plain_of(step)
    models, optimizers = _with(models, keras.Layer, plain), _with(optimizers, keras.Optimizer, plain)
    settings = {} if plain is step else {"jit_compile": step._jit_compile, "reduce_retracing": step._reduce_retracing}
    compile_ = None if plain is step else functools.partial(tf.function, autograph=False, input_signature=step.input_signature, **settings)
    convert = bool(getattr(step, "_autograph", False))
    jit, state = bool(settings.get("jit_compile")), functools.partial(state_of, plain, models, optimizers)
    watched = WatchedStep(plain, state, overseer, compile_, jit, convert, given=step)
    functools.update_wrapper(watched, plain, updated=())
    return watched


def _with(known: Sequence[Any], kind: type, step: Any) -> list[Any]:
    """What is given, and all of that kind that the step's code names, or that the object has which it is a method of."""
    owner = getattr(step, "__self__", None)
    named = [*(value for _, value in names_of(inspect.unwrap(step))), *(vars(owner).values() if hasattr(owner, "__dict__") else ())]
    return list({id(o): o for o in (*known, *named) if isinstance(o, kind)}.values())
