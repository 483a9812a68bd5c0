"""What a bundle keeps of a step of `model.fit`: variables and batch by name, and how `replay.py` makes the model again."""

import json
from collections.abc import Callable, Iterable
from typing import Any

import keras
from keras.src.models.functional import Functional

from whynan.watching.keras.data import by_name
from whynan.watching.recipe import Writer, piece
from whynan.watching.record import Piece, Recipe

_PLAIN = (keras.Sequential, Functional)
_LONGEST = 200_000  # of a model's configuration as text


def bundled(
    model: Any, data: Any, is_tensor: Callable[[Any], bool], values: Iterable[tuple[Any, Any]] | None = None
) -> tuple[Recipe, dict[str, Any]]:
    """How the loss of a batch is computed again, and the tensors for it.

    `values` are the model's variables with their values, where those do not hold them (JAX, while `fit` runs).
    """
    writer = Writer(is_tensor)
    parts = {name: writer.text(value, f"batch/{name}") for name, value in by_name(data).items()}
    arguments = ", ".join(f"{name}={text}" for name, text in parts.items())
    scale = getattr(model.optimizer, "dynamic_scale", None)  # a number, or a variable, which has no truth value
    scale = 1.0 if scale is None else float(scale)
    lines: tuple[str, ...] = (
        f"output = model({parts.get('x', '')}, training=True)",
        f"yield model.compute_loss({arguments}, y_pred=output){f' * {scale!r}' if scale != 1 else ''}",
    )
    if type(model).train_step is not keras.Model.train_step:
        lines = (f"# {type(model).__name__}.train_step is your own: yield here the loss that it differentiates", *lines)
    trainable = {id(v) for v in model.trainable_variables}
    held = ((v, v.value) for v in (*model.trainable_variables, *model.non_trainable_variables)) if values is None else values
    variables = {f"{'parameters' if id(v) in trainable else 'buffers'}/{v.path}": value for v, value in held}
    return Recipe((_model(model), _loss(model.loss)), lines, dialect="keras"), {**writer.tensors, **variables}


def _model(model: Any) -> Piece:
    """A model made of Keras' own layers by its configuration, any other by its class."""
    try:
        parts = {"config": model.get_config(), "build_config": model.get_build_config()}
        text = json.dumps({"module": type(model).__module__, "class_name": type(model).__name__, **parts})
    except Exception:  # a model that has no configuration, or one that cannot be written
        return piece("model", model)
    known = type(model) in _PLAIN and len(text) <= _LONGEST and _own(json.loads(text))
    return Piece("model", text=f"keras.saving.deserialize_keras_object(json.loads({text!r}))") if known else piece("model", model)


def _own(config: Any) -> bool:
    """Whether everything in a configuration is Keras' own."""
    if isinstance(config, dict):
        module = config.get("module")
        strange = config.get("registered_name") is not None or config.get("class_name") in ("__lambda__", "Lambda", "function")
        return not strange and (not isinstance(module, str) or module.startswith("keras")) and all(map(_own, config.values()))
    return all(map(_own, config)) if isinstance(config, list) else True


def _loss(loss: Any) -> Piece:
    """A loss by its name, by its configuration if it is Keras' own, else by an import."""
    if loss is None or isinstance(loss, str):
        return Piece("loss", text=repr(loss))
    if isinstance(loss, (dict, list)):
        text = Writer(lambda _: False).text(loss, "loss")
        return Piece("loss", text=text) if "unknown(" not in text else Piece("loss", missing="several losses", shown=repr(loss))
    if type(loss).__module__.startswith("keras."):
        try:
            config = keras.losses.serialize(loss)
            if _own(config):
                return Piece("loss", text=f"keras.losses.deserialize({config!r})")
        except Exception:  # a loss that has no configuration
            return piece("loss", loss)
    return piece("loss", loss)
