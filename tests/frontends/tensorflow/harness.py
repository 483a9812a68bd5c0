"""What the tests of the TensorFlow front end share: recording, and comparing a recording with the plain run."""

import importlib
import pkgutil

import numpy as np

import whynan.ops
from whynan.frontends.tensorflow import load
from whynan.ir.graph import call_of
from whynan.ops._opdef import known
from whynan.ops._opdef import run as evaluate

for _module in pkgutil.iter_modules(whynan.ops.__path__):
    importlib.import_module(f"whynan.ops.{_module.name}")

X = np.array([[0.2, 0.9, 0.4], [0.5, 0.3, 0.8], [1.1, 0.1, 0.55], [0.7, 0.35, 0.15]], np.float32)
T = np.array([[0.6, 0.2, 0.9], [0.3, 0.7, 0.4], [0.5, 0.15, 0.95], [0.25, 0.85, 0.45]], np.float32)


def capture(loss, mode="eager", **inputs):
    """A recording with gradients by all floating inputs and parameters."""
    program = load(loss, "loss")
    ready = {**inputs, **program.parameters}
    wrt = tuple(n for n, v in ready.items() if isinstance(v, np.ndarray) and v.dtype.kind not in "iub")
    return program.capture(ready, wrt, mode)


def agrees(loss, mode="eager", **inputs):
    """Record; the outputs must be exactly those of the plain run, and every known op, evaluated, what the framework computed."""
    program = load(loss, "loss")
    ready = {**inputs, **program.parameters}
    wrt = tuple(n for n, v in ready.items() if isinstance(v, np.ndarray) and v.dtype.kind not in "iub")
    run = program.run(ready, wrt, mode)
    assert not run.error
    trace = program.capture(ready, wrt, mode)
    for output in trace.graph.outputs:
        value = trace.values[output.node]
        plain = run.loss if output.kind == "loss" else run.gradients[output.name]
        if value is not None:
            assert np.array_equal(value, plain, equal_nan=True), output.name
    assert {o.name for o in trace.graph.outputs} == {"loss", *run.gradients}
    assert disagreements(trace) == []
    return trace


def disagreements(trace, rtol=1e-4):
    """Nodes whose op, evaluated on the evaluated inputs, differs from what the framework computed; ops that cannot be run are skipped."""
    values, wrong = [], []
    for n in trace.graph.nodes:
        real, ready = trace.values[n.id], [values[i] for i in n.inputs]
        if n.op in ("input", "const", "random") or not known(n.op) or any(v is None for v in ready):
            values.append(real)
            continue
        value = evaluate(call_of(trace.graph, n), ready)
        assert value.shape == n.shape
        if real is not None and not np.allclose(value.astype(float), real.astype(float), rtol=rtol, atol=1e-5, equal_nan=True):
            wrong.append((n.op, n.spelling, n.site))
        values.append(value)
    return wrong


def evaluated(trace, inputs):
    """What a recording computes on other inputs: the value of each output."""
    values = []
    for n in trace.graph.nodes:
        if n.op == "input":
            values.append(inputs[n.attrs["name"]])
        elif n.op == "const":
            values.append(np.broadcast_to(n.attrs["value"], n.shape))
        else:
            values.append(evaluate(call_of(trace.graph, n), [values[i] for i in n.inputs]))
    return [values[o.node] for o in trace.graph.outputs]


def unknown(trace):
    """The ops without a meaning."""
    return sorted({n.op for n in trace.graph.nodes if n.op.startswith("unknown:")})


def texts(trace, op, phase="forward"):
    """The source expressions of the nodes of an op, in order, without repetition."""
    return list(dict.fromkeys(n.site.text for n in trace.graph.nodes if n.op == op and n.phase == phase and n.site))


def nodes(trace, op, phase="forward"):
    """The nodes of an op in one phase."""
    return [n for n in trace.graph.nodes if n.op == op and n.phase == phase]
