"""`model.fit` on TensorFlow: the model's train function is replaced by one whose step is watched."""

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import tensorflow as tf

from whynan.errors import WhynanError
from whynan.watching.keras.data import by_name, collected
from whynan.watching.keras.fit import Logs, optimizers_of, replaced
from whynan.watching.keras.recipe import bundled
from whynan.watching.overseer import Overseer
from whynan.watching.tensorflow.step import State, WatchedStep, raw


def begin(model: Any, overseer: Overseer) -> Callable[[], None]:
    """Watch the model's training from now on; returns what ends that. Raises WhynanError for a strategy with several replicas."""
    if model.distribute_strategy.num_replicas_in_sync > 1:
        raise WhynanError("whynan.keras.Watch does not watch a strategy with several replicas.", "Train on one, or without the callback.")
    watched = WatchedStep(
        model.train_step,
        lambda: _state(model),
        overseer,
        _compile(model, model.train_function),
        jit=bool(model.jit_compile),
        names=_names,
        bundled=lambda args, kwargs: bundled(model, args[0], lambda v: isinstance(v, tf.Tensor)),
    )
    one, logs = model._autoconvert_optionals(watched), Logs(model, watched.judge, model.get_metrics_result)

    def train_function(iterator: Any) -> Any:
        """The batches of one execution, each in a step of its own; StopIteration if there is none."""
        told = logs.of(one(next(iterator)))
        for data in islice(iterator, model.steps_per_execution - 1):
            told = logs.of(one(data))
        return told

    return replaced(model, train_function)


def _compile(model: Any, before: Any) -> Callable[..., Any] | None:
    """What compiles a step, None if the model runs eagerly. One that was compiled for the same train function is used again."""
    if model.run_eagerly:
        return None

    known, asked = vars(before), False

    def compile_(step: Callable[..., Any]) -> Any:
        nonlocal asked
        if asked or "_whynan" not in known:
            known["_whynan"] = tf.function(step, autograph=False, reduce_retracing=True, jit_compile=model.jit_compile)
        asked = True
        return known["_whynan"]

    return compile_


def _state(model: Any) -> State:
    trainable = {str(v.path): raw(v) for v in model.trainable_variables}
    others = [raw(v) for v in (*model.non_trainable_variables, *model.metrics_variables)]
    return State(trainable, others, optimizers_of(model), [model])


def _names(step: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return collected(by_name(args[0]), tf.Tensor)
