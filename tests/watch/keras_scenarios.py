"""Training runs that go bad in known ways, for `model.fit` on one backend, which is a process's: each tells what its incident says.

Run as a script, with names of scenarios or for all, it prints one JSON object per scenario.
"""

import json
import sys
import traceback
from functools import cache

import keras
import numpy as np
from keras import ops

import whynan.keras
from whynan.errors import NonFiniteError

BAD = 5  # the sample that fails, of EIGHT
EIGHT = 8


def log_of_zero(y, p):
    return -ops.mean(ops.log(p))


def root(y, p):
    """A number for each sample: Keras puts its own `where` behind it."""
    return ops.mean(ops.sqrt(ops.square(y - p)), axis=-1)


def trap(y, p):
    return ops.mean(ops.where(p > 0, ops.log(p), 0.0))


def squared(y, p):
    return ops.mean(ops.square(y - p))


def ratio(y, p):
    return ops.mean(ops.exp(p) / (1.0 + ops.exp(p)))


def masked_softmax(y, p):
    return ops.mean(ops.square(ops.softmax(ops.where(y > 0, p, -np.inf))))


def refused(y, p):
    """PyTorch's binary cross-entropy raises an error where it is given NaN."""
    return ops.mean(ops.binary_crossentropy(y, ops.sigmoid(ops.sqrt(p))))


def masked_mean(y, p):
    return ops.sum(p * y) / ops.sum(y)


@ops.custom_gradient
def clipped(x):
    """Its gradient divides by the distance from 2."""

    def grad(*args, upstream=None):
        upstream = args[0] if upstream is None else upstream
        return upstream / (x - 2.0)

    return ops.minimum(x, 2.0), grad


def handwritten(y, p):
    return ops.mean(ops.square(clipped(p)))


def erased(y, p):
    return ops.mean(ops.sqrt(ops.where(p > 0, p, 0.0)))


def row_removed(y, p):
    rows = ops.any(y > 0, axis=-1, keepdims=True)
    safe = ops.where(ops.logical_or(y > 0, ops.logical_not(rows)), p, -np.inf)
    return ops.mean(ops.where(rows, ops.softmax(safe), 0.0))


def minus_infinity(y, p):
    return ops.mean(ops.square(ops.softmax(ops.where(y > 0, p, -np.inf))))


def not_a_number(y, p):
    return ops.mean(p) * np.nan


class Logs(keras.layers.Layer):
    """A layer of the user's that takes the logarithm of what it is given."""

    def call(self, x):
        return ops.log(x)


class OwnStep(keras.Model):
    """A model whose train step is the user's own."""

    def train_step(self, *given):
        return super().train_step(*given)


def gradients(loss, variables):
    """The gradients of what the function gives, in a train step that differentiates by itself."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = loss()
        return tape.gradient(value, [v.value for v in variables])
    for v in variables:
        v.value.grad = None
    loss().backward()
    return [v.value.grad for v in variables]


class Pair(keras.Model):
    """Two parts with an optimizer each, as in adversarial training. The second fails, when the first has been updated."""

    def __init__(self):
        super().__init__(name="pair")
        self.parts = [keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)]) for _ in range(2)]
        self.first, self.second = keras.optimizers.Adam(0.1), keras.optimizers.Adam(0.1)

    def call(self, x):
        return self.parts[1](x)

    def train_step(self, data):
        x, _ = data
        for part, optimizer in zip(self.parts, (self.first, self.second), strict=True):

            def loss(part=part, unit=1.0 if part is self.parts[0] else x[:, :1]):
                return ops.mean(ops.square(part(x) / unit))

            optimizer.apply(gradients(loss, part.trainable_variables), part.trainable_variables)
        return {"mean": ops.mean(x)}


def _data(width=2, bad=None, y_bad=None, out=1):
    """Positive samples whose sum is near 1, one of them replaced."""
    x = np.random.default_rng(0).uniform(0.3, 0.7, (EIGHT, width)).astype("float32")
    y = np.ones((EIGHT, out), "float32")
    if bad is not None:
        x[BAD] = bad
    if y_bad is not None:
        y[BAD] = y_bad
    return x, y


def _model(width=2, out=1, relu=False, behind=None, before=None, policy=None, own=False):
    """A layer that adds up its inputs, with what is asked for behind it and before it."""
    x = given = keras.layers.Input((width,))
    for layer in before() if before else ():
        x = layer(x)
    adds = keras.layers.Dense(out, kernel_initializer="ones", activation="relu" if relu else None, name="adds", dtype=policy)
    x = adds(x)
    for layer in behind() if behind else ():
        x = layer(x)
    return (OwnStep if own else keras.Model)(given, x, name="net")


def case(loss, x, y, **model):
    return {"loss": loss, "x": x, "y": y, "model": model}


def _empty_row():
    x, y = _data(out=4, y_bad=0.0)
    return case(masked_softmax, x, y, out=4)


def _nan_row():
    x, y = _data()
    x[BAD, 1] = np.nan
    return case(squared, x, y)


def _inf_feature():
    x, y = _data()
    x[BAD, 0] = np.inf
    return case(squared, x, y)


def _outside():
    """A word that the table does not have."""
    x = np.arange(2 * EIGHT).reshape(EIGHT, 2) % 4.0
    x[BAD, 1] = 9
    return case(squared, x.astype("float32"), _data()[1], before=lambda: [keras.layers.Embedding(4, 3), keras.layers.Flatten()])


SCENARIOS = {
    "outside": _outside,
    "log-of-zero": lambda: case(log_of_zero, *_data(bad=0.0), relu=True),
    "root": lambda: case(root, *_data(bad=[0.5, 0.5])),
    "where-trap": lambda: case(trap, *_data(bad=0.0)),
    "nan-row": _nan_row,
    "inf-feature": _inf_feature,
    "exp-overflow": lambda: case(ratio, *_data(bad=100.0)),
    "empty-softmax-row": _empty_row,
    "empty-mask": lambda: case(masked_mean, _data()[0], np.zeros((EIGHT, 1), "float32")),
    "handwritten": lambda: case(handwritten, *_data(bad=[1.0, 1.0])),
    "layer": lambda: case(squared, *_data(bad=0.0), behind=lambda: [Logs(name="logs")]),
    "refused": lambda: case(refused, *_data(bad=-1.0)),
    "half": lambda: case(squared, *_data(bad=[60000.0, 50000.0]), policy="mixed_float16"),
    "own-step": lambda: case(trap, *_data(bad=0.0), own=True),
    "state": lambda: case(log_of_zero, *_data(bad=np.nan), before=lambda: [keras.layers.BatchNormalization(), keras.layers.Dropout(0.1)]),
}
HARMLESS = {
    "erased": lambda: case(erased, *_data(bad=-1.0)),
    "row-removed": lambda: case(row_removed, *_data(out=4, y_bad=0.0), out=4),
    "minus-infinity": lambda: case(minus_infinity, *_data(out=4, y_bad=[1, 0, 0, 1]), out=4),
    "nan-metric": lambda: {**case(squared, *_data()), "metrics": [not_a_number]},
}


def told(name, made):
    """What comes of one step of a scenario, as plain data."""
    model = _model(made["x"].shape[1], **made["model"])
    model.compile(optimizer=keras.optimizers.Adam(0.1), loss=made["loss"], metrics=made.get("metrics"))
    model.optimizer.build(model.trainable_variables)
    before = values(model)
    watch = whynan.keras.Watch(folder=None)
    raised = False
    try:
        model.fit(made["x"], made["y"], batch_size=EIGHT, shuffle=False, verbose=0, callbacks=[watch])
    except NonFiniteError as error:
        raised = error.incident is watch.incidents[0]
    found = {"scenario": name, "raised": raised, "incidents": len(watch.incidents), "untouched": same(before, values(model))}
    return found | (plain(watch.incidents[0]) if watch.incidents else {})


BATCHES = 4
POLICIES = {
    "skip": {"policy": "skip"},
    "several-steps": {"policy": "skip", "steps_per_execution": 3, "bad": (BAD + 2 * EIGHT,)},
    "eagerly": {"policy": "skip", "run_eagerly": True},
    "rollback": {"policy": "rollback", "every": 1},
    "stop": {"policy": "stop"},
    "retry": {"policy": "retry"},
    "averaged": {"policy": "raise", "use_ema": True},
    "patience": {"policy": "skip", "patience": 2, "bad": (8, 16)},
    "followed": {"policy": "skip", "follower": True},
}

# Keras on PyTorch takes no several steps in one execution, and is always eager; on JAX a train step with two optimizers is another one;
# what is the same on all backends is tried on one; TensorFlow may hang at exit after a generator's run was cut off
LEFT_OUT = {"torch": ("eagerly", "several-steps", "averaged", "outside"), "jax": ("pair",), "tensorflow": ("averaged", "outside", "far")}


def trained(x, y, callbacks=(), use_ema=False, **compiled):
    """A model after one epoch, and what its history says."""
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Dense(3, activation="tanh"), keras.layers.Dense(1)]
    model = keras.Sequential([keras.layers.Input((2,)), *layers])
    model.compile(optimizer=keras.optimizers.Adam(0.1, use_ema=use_ema), loss=squared, metrics=["mae"], **compiled)
    history = {}
    try:
        history = model.fit(x, y, batch_size=None if y is None else EIGHT, shuffle=False, verbose=0, callbacks=list(callbacks)).history
    except NonFiniteError as error:
        history = {"raised": error.in_a_row}
    return model, history


def scaled():
    """Half precision with a loss scale that is too large at first, and gradients that are added up over two steps."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1, dtype="mixed_float16")])
    inner = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    model.compile(optimizer=keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**18), loss=squared)
    x, y = rows_of_a_run()
    watch = whynan.keras.Watch(folder=None)
    model.fit(x, y, batch_size=EIGHT, epochs=3, shuffle=False, verbose=0, callbacks=[watch])
    outcomes = [m.outcome for m in watch.flight]
    return {"scenario": "scaled", "bad_steps": watch.bad_steps, "outcomes": outcomes, "scales": [m.scale for m in watch.flight]}


def paired():
    """A run of two optimizers that skips a batch, next to one without it."""
    x, y = rows_of_a_run()
    found = {}
    watch = whynan.keras.Watch(policy="skip", folder=None)
    for name, rows, callbacks in (("without", [*range(EIGHT), *range(2 * EIGHT, len(x))], ()), ("watched", range(len(x)), (watch,))):
        keras.utils.set_random_seed(3)
        model = Pair()
        model.compile()
        given = x.copy()
        given[BAD + EIGHT] = 0.0
        model.fit(given[list(rows)], y[list(rows)], batch_size=EIGHT, shuffle=False, verbose=0, callbacks=list(callbacks))
        found[name] = values(model, model.first, model.second)
    return {"scenario": "pair", "as_without": same(found["without"], found["watched"]), **plain(watch.incidents[0])}


@cache
def reference(rows):
    """The variables of a model that was trained on these rows only."""
    x, y = rows_of_a_run()
    return [keras.ops.convert_to_numpy(v) for v in trained(x[list(rows)], y[list(rows)])[0].variables]


def rows_of_a_run():
    x = np.random.default_rng(0).normal(size=(BATCHES * EIGHT, 2)).astype("float32")
    return x, x[:, :1].copy()


class Follower(keras.callbacks.Callback):
    """Notes the loss that `fit` tells after each batch."""

    def __init__(self):
        super().__init__()
        self.losses = []

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(logs["loss"])


def far():
    """A bad batch after twenty good ones, from a generator that fills the same arrays again and again."""
    x = np.random.default_rng(0).normal(size=(30 * EIGHT, 2)).astype("float32")
    y, good = x[:, :1].copy(), 20 * EIGHT
    model, _ = trained(x[:good], y[:good])
    before = values(model)
    x[good + BAD] = np.nan

    def batches():
        arrays = [(np.empty((EIGHT, 2), "float32"), np.empty((EIGHT, 1), "float32")) for _ in range(3)]  # Keras peeks at two batches
        for i in range(len(x) // EIGHT):
            rows, given = slice(i * EIGHT, (i + 1) * EIGHT), arrays[i % 3]
            given[0][:], given[1][:] = x[rows], y[rows]
            yield given

    watch = whynan.keras.Watch(folder=None)
    model, history = trained(batches(), None, [watch])
    return {"scenario": "far", "untouched": same(before, values(model)), "raised": "raised" in history, **plain(watch.incidents[0])}


def ruled(name, policy, bad=(BAD + EIGHT,), steps_per_execution=1, run_eagerly=False, use_ema=False, follower=False, **options):
    """A run of four batches, of which one or more are bad, next to runs without these batches, without their bad samples, and cut off."""
    x, y = rows_of_a_run()
    spoilt = x.copy()
    spoilt[list(bad)] = np.nan
    gone = {i // EIGHT for i in bad}
    kept = [i for i in range(len(x)) if i // EIGHT not in gone]
    watch = whynan.keras.Watch(policy=policy, folder=None, **options)
    compiled = {"steps_per_execution": steps_per_execution, "run_eagerly": run_eagerly, "use_ema": use_ema}
    looks_on = Follower()
    model, history = trained(spoilt, y, [watch, looks_on] if follower else [watch], **compiled)
    without, first = reference(tuple(kept)), reference(tuple(range(EIGHT)))
    return {
        "scenario": name,
        "as_without": close(model, without),
        "as_cut_off": close(model, first),
        "finite": all(np.isfinite(keras.ops.convert_to_numpy(v)).all() for v in model.variables),
        "told": looks_on.losses,
        "history": {k: np.asarray(v).tolist() for k, v in history.items()},
        "steps": watch.step,
        "bad_steps": watch.bad_steps,
        "samples": [i % EIGHT for i in watch.incidents[0].suspects.samples],
        "actions": [i.action for i in watch.incidents],
        "outcomes": [m.outcome for m in watch.flight],
        "norms": [m.gradient_norm for m in watch.flight],
    }


def close(model, other):
    pairs = zip(model.variables, other, strict=True)
    return all(np.allclose(keras.ops.convert_to_numpy(v), w, rtol=1e-5, atol=1e-6) for v, w in pairs)


def plain(incident):
    """The parts of an incident that tests ask for."""
    site = incident.finding.site if incident.finding else None
    return {
        "failed": incident.failed,
        "kind": incident.kind,
        "cause": incident.cause,
        "phase": incident.finding.phase if incident.finding else "",
        "expression": site.text if site else "",
        "layer": incident.layer,
        "parameter": incident.parameter,
        "samples": list(incident.suspects.samples),
        "alone": list(incident.suspects.alone),
        "elements": [[e.name, list(e.index), repr(e.value)] for e in incident.suspects.elements],
        "reproduced": incident.reproduced,
        "how": incident.how,
        "notes": list(incident.notes),
        "text": str(incident),
    }


def values(model, *optimizers):
    """Everything that a step may change, but for what `fit` itself sets back to zero."""
    own = (v for o in optimizers or (model.optimizer,) for v in o.variables)
    return [keras.ops.convert_to_numpy(v).copy() for v in (*model.variables, *own)]


def same(before, after):
    return len(before) == len(after) and all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def main():
    wanted = sys.argv[1:]
    jobs = {name: lambda name=name, make=make: told(name, make()) for name, make in {**SCENARIOS, **HARMLESS}.items()}
    jobs |= {name: lambda name=name, options=options: ruled(name, **options) for name, options in POLICIES.items()}
    jobs |= {"scaled": scaled, "pair": paired, "far": far}
    for name, job in jobs.items():
        if (wanted and name not in wanted) or (not wanted and name in LEFT_OUT.get(keras.backend.backend(), ())):
            continue
        try:
            print(json.dumps(job()), flush=True)
        except Exception:
            print(json.dumps({"scenario": name, "error": traceback.format_exc()}), flush=True)


if __name__ == "__main__":
    main()
