"""The part of `replay.py` that speaks a framework's language: `run(device)` restores, runs, and tells whether anything is not finite."""

from collections.abc import Mapping
from types import MappingProxyType

_TORCH = '''import contextlib
import random

import torch

DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "C64": torch.complex64,
    **{name: getattr(torch, dtype) for name, dtype in (
        ("U16", "uint16"), ("U32", "uint32"), ("U64", "uint64"), ("F8_E4M3", "float8_e4m3fn"), ("F8_E5M2", "float8_e5m2"),
    ) if hasattr(torch, dtype)},
}


def tensors():
    """The tensors of the bundle by name."""
    given = {}
    for name, dtype, shape, data in raw_tensors():
        flat = torch.frombuffer(data, dtype=DTYPES[dtype]) if data else torch.empty(0, dtype=DTYPES[dtype])
        given[name] = flat.reshape(shape)
    return given


def restore(mine, given):
    """Put parameters and buffers into their places."""
    modules = {name: m for name, m in mine.items() if isinstance(m, torch.nn.Module)}
    own = {PREFIX[name] + key: t for name, m in modules.items() for key, t in (*m.named_parameters(), *m.named_buffers())}
    strange = []
    for key, value in given.items():
        group, _, name = key.partition("/")
        if group not in ("parameters", "buffers"):
            continue
        if name not in own:
            strange.append(name)
        elif own[name].shape != value.shape:
            raise ValueError(f"{name} has shape {tuple(own[name].shape)} in your model, but had {tuple(value.shape)}: make it as it was")
        else:
            with torch.no_grad():
                own[name].copy_(value)
    if strange:
        print(f"your model has no {', '.join(strange[:5])}{' and others' if strange[5:] else ''}: is it the same one?", file=sys.stderr)
    for name, m in modules.items():
        m.train(TRAINING[name])
        for part in EVALUATING[name]:
            m.get_submodule(part).eval()


@contextlib.contextmanager
def state(number, given):
    """The random state and autocast that a call ran under."""
    for name, value in given.items():
        if name == f"rng/{number}/cpu":
            torch.set_rng_state(value.cpu())
        elif name.startswith((f"rng/{number}/cuda", f"rng/{number}/xpu", f"rng/{number}/mps")):
            kind, _, index = name.rpartition("/")[2].partition(":")
            if getattr(torch, kind).device_count() > int(index or 0):
                getattr(torch, kind).set_rng_state(value.cpu(), *([int(index)] if index else []))
        elif name == f"rng/{number}/python":
            *state, left = value.tolist()
            random.setstate((3, tuple(map(int, state)), None if left != left else left))
        elif name == f"rng/{number}/numpy":
            import numpy

            *state, position, has, left = value.tolist()
            numpy.random.set_state(("MT19937", state, int(position), int(has), left))
    with contextlib.ExitStack() as stack:
        for device, dtype in AUTOCAST[number]:
            stack.enter_context(torch.autocast(device, getattr(torch, dtype)))
        yield


def leaves(output):
    """The tensors in tuples, lists, mappings and the attributes of other objects, in order."""
    if isinstance(output, torch.Tensor):
        return [output]
    held = output if hasattr(output, "values") else getattr(output, "__dict__", {})
    inside = output if isinstance(output, (tuple, list)) else held.values()
    return [t for part in inside for t in leaves(part)]


def leaf(output, i=0):
    """The i-th tensor of what a call returned."""
    return leaves(output)[i]


def root(output):
    """What backward() starts from: the first number of what a call returned, or else its first tensor, that has a gradient."""
    found = [t for t in leaves(output) if t.requires_grad]
    return next((t for t in found if t.numel() == 1), found[0] if found else leaf(output))


def wrong(value):
    """How many elements are not finite, and where the first is."""
    where = (~torch.isfinite(value)).nonzero()
    return len(where), tuple(where[0].tolist()) if len(where) else ()


def refused(error):
    """Whether torch has found NaN where a probability or a distribution's parameter should be."""
    return any(text in str(error) for text in ("should be between 0 and 1", "to satisfy the constraint"))


def run(device):
    """Restore the step's state and run it forward and backward."""
    given, mine = tensors(), build()
    restore(mine, given)
    modules = {name: m.to(device) for name, m in mine.items() if isinstance(m, torch.nn.Module)}
    given = {name: value if name.startswith("rng/") else value.to(device) for name, value in given.items()}
    by = {name: value.requires_grad_() for name, value in given.items() if name.startswith("differentiated/")}
    failed = False
    try:
        for i, value in enumerate(calls(mine, given)):
            count, first = wrong(value.detach())
            print(f"loss = {value.item()}" if value.numel() == 1 else f"loss: {tuple(value.shape)}, finite" if not count else "")
            failed = told("the loss", value[first].item(), count, first) or failed
            if value.requires_grad:
                value.backward(given.get(f"seeds/{i}", torch.ones_like(value)))
    except (RuntimeError, ValueError) as error:
        if not refused(error):
            raise
        print(f"torch refuses what the step has computed: {str(error).splitlines()[0]}")
        failed = True
    by |= {PREFIX[name] + key: p for name, m in modules.items() for key, p in m.named_parameters()}
    gradients = {name: t.grad.to_dense() for name, t in by.items() if t.grad is not None}
    bad = {name: wrong(g) for name, g in gradients.items() if wrong(g)[0]}
    for name, (count, first) in list(bad.items())[:1]:
        told(f"the gradient by {name}", gradients[name][first].item(), count, first)
    if len(bad) > 1:
        print(f"and {len(bad) - 1} more of {len(gradients)} gradients are not finite")
    return failed or bool(bad)
'''

_ARRAYS = '''import ml_dtypes
import numpy as np

DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32", "U64": "uint64",
    "I64": "int64", "F16": "float16", "F32": "float32", "F64": "float64", "C64": "complex64", "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2,
}


def tensors():
    """The arrays of the bundle by name."""
    return {name: np.frombuffer(data, DTYPES[dtype]).reshape(shape) for name, dtype, shape, data in raw_tensors()}


def wrong(value):
    """How many elements are not finite, and where the first is."""
    value = np.asarray(value)
    if value.dtype.kind in "biuSOU":
        return 0, ()
    where = np.argwhere(~np.isfinite(value.astype(np.complex128 if value.dtype.kind == "c" else np.float64)))
    return len(where), tuple(int(i) for i in where[0]) if len(where) else ()

'''

_JAX = (
    _ARRAYS
    + '''
import jax
import jax.numpy as jnp


def run(device):
    """Run the step's function on what it was given and look at everything it returns."""
    mine = build()
    given = {name: jnp.asarray(value) for name, value in tensors().items()}
    failed = False
    for result in calls(mine, given):
        for path, value in jax.tree_util.tree_flatten_with_path(result)[0]:
            count, first = wrong(value)
            failed = told("result" + jax.tree_util.keystr(path), np.asarray(value)[first], count, first) or failed
            if np.asarray(value).ndim == 0:
                print(f"result{jax.tree_util.keystr(path)} = {value}")
    return failed
'''
)

_TENSORFLOW = (
    _ARRAYS
    + '''
import tensorflow as tf


def restore(model, given):
    """Put the variables' values into their places, by path or else by order."""
    values = {name.partition("/")[2]: value for name, value in given.items() if name.partition("/")[0] in ("parameters", "buffers")}
    own = {getattr(v, "path", v.name): v for v in model.variables}
    places = own if set(values) <= set(own) else dict(zip(values, model.variables))
    for name, value in values.items():
        places[name].assign(value)


def run(device):
    """Restore the variables, run forward and backward (or the step's function), and look at everything that comes out."""
    given = tensors()
    mine = build()
    model = mine.get("model")
    variables = []
    arrays = {name: tf.convert_to_tensor(value) for name, value in given.items()}
    if model is not None:
        if not model.built and arrays:
            next(calls(mine, arrays), None)  # variables are made by the first call
        restore(model, given)
        variables = model.trainable_variables
    steps, failed = calls(mine, arrays), False
    while True:
        with tf.GradientTape() as tape:
            value = next(steps, None)
        if value is None:
            return failed
        leaves = [("result", v) for v in tf.nest.flatten(value)]
        if variables:
            leaves += [(f"the gradient by {getattr(v, 'path', v.name)}", g) for v, g in zip(variables, tape.gradient(value, variables))]
        for name, leaf in leaves:
            if leaf is None:
                continue
            leaf = leaf.values if isinstance(leaf, tf.IndexedSlices) else leaf
            count, first = wrong(leaf)
            failed = told(name, np.asarray(leaf)[first], count, first) or failed
            if not np.asarray(leaf).ndim:
                print(f"{name} = {float(leaf)}")
'''
)

_KERAS = (
    _ARRAYS
    + '''
import os

os.environ["KERAS_BACKEND"] = BACKEND

import keras


def differentiated(total, variables):
    """The loss and its gradients by the variables."""
    values = [v.value for v in variables]
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = total()
        return value, tape.gradient(value, values)
    if BACKEND == "torch":
        value = total()
        value.backward()
        return value, [v.grad for v in values]
    import jax

    def of(values):
        with keras.StatelessScope(list(zip(variables, values))):
            return total()

    return jax.value_and_grad(of)(values)


def run(device):
    """Restore the variables, run forward and backward, and look at loss and gradients."""
    given, mine = tensors(), build()
    model = mine["model"]
    model.compile(loss=mine["loss"])
    next(calls(mine, given))  # what is not yet there, variables among it, is made by the first call
    for group, own in (("parameters", model.trainable_variables), ("buffers", model.non_trainable_variables)):
        kept = [value for name, value in given.items() if name.startswith(group + "/")]
        if kept and len(kept) != len(own):
            raise ValueError(f"your model has {len(own)} {group}, the bundle {len(kept)}: make it as it was")
        for variable, value in zip(own, kept):  # in order: paths depend on what else the program has made
            variable.assign(value)
    variables = list(model.trainable_variables)
    value, gradients = differentiated(lambda: sum(calls(mine, given)), variables)
    found = [("the loss", value), *((f"the gradient by {v.path}", g) for v, g in zip(variables, gradients) if g is not None)]
    failed = 0
    for name, value in found:
        value = np.asarray(keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(value)))
        if name == "the loss":
            print(f"loss = {value}")
        count, first = wrong(value)
        failed += count > 0
        if failed < 3:
            told(name, value[first], count, first)
    if failed > 2:
        print(f"and {failed - 2} more of {len(found)} are not finite")
    return failed > 0
'''
)

RUNS: Mapping[str, str] = MappingProxyType({"torch": _TORCH, "jax": _JAX, "tensorflow": _TENSORFLOW, "keras": _KERAS})
