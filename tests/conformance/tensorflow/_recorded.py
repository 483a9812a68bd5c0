"""Raw TensorFlow ops as they ran, one by one, and what their lowering and its bounds say about the same inputs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from whynan.domain.interval import Bounds, contains, entering, join_axes, of_array
from whynan.frontends.tensorflow.lower import TfOp, lower
from whynan.ir.dtype import FORMATS, Array, Format, flushed, nearest
from whynan.ir.graph import Builder, Graph, call_of
from whynan.ops._opdef import bound, run


@dataclass(frozen=True, slots=True, eq=False)
class Ran:
    """One op: inputs and results as arrays (None where whynan has no format), attributes as the front end gives them."""

    type: str
    inputs: tuple[Array | None, ...]
    attrs: Mapping[str, Any]
    results: tuple[Array | None, ...]


def ran(function: Callable[[], Any]) -> list[Ran]:
    """All raw ops that a function runs eagerly, in order."""
    from tensorflow.python.framework import op_callbacks

    seen: list[Ran] = []

    def watch(op_type: Any, inputs: Any, attrs: Any, outputs: Any, op_name: Any = None, graph: Any = None) -> None:
        name = op_type.decode() if isinstance(op_type, bytes) else op_type
        pairs = dict(zip(attrs[::2], map(_plain, attrs[1::2]), strict=True))
        seen.append(Ran(name, tuple(map(_array, inputs)), pairs, tuple(map(_array, outputs))))

    op_callbacks.add_op_callback(watch)
    try:
        function()
    finally:
        op_callbacks.remove_op_callback(watch)
    return seen


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _array(tensor: Any) -> Array | None:
    if hasattr(tensor, "dtype") and tensor.dtype in ("resource", "variant", "string"):
        return None
    value = np.asarray(tensor.numpy() if hasattr(tensor, "numpy") else tensor)
    return value if value.dtype.name in FORMATS else None


def format_of_array(x: Array) -> Format:
    """The format as TensorFlow's kernels on a CPU have it."""
    return flushed(FORMATS[x.dtype.name])


def lowered(op: Ran) -> tuple[Builder, tuple[int | None, ...]]:
    """The nodes of one op, its inputs being nodes `input`."""
    builder = Builder()
    arrays = [np.zeros(()) if x is None else x for x in op.inputs]
    nodes = tuple(builder.add("input", (), x.shape, format_of_array(x)) for x in arrays)
    outputs = tuple(None if r is None else (r.shape, format_of_array(r)) for r in op.results)
    return builder, lower(builder, TfOp(op.type, nodes, tuple(op.inputs), op.attrs, outputs, op.results))


def known(op: Ran) -> bool:
    """Whether something is known of the op's first result."""
    builder, results = lowered(op)
    return not results or results[0] is None or not builder.nodes[results[0]].op.startswith("unknown")


def random(op: Ran) -> bool:
    """Whether the results are a matter of chance."""
    return any(n.op == "random" for n in lowered(op)[0].nodes)


def evaluated(op: Ran) -> tuple[Array | None, ...]:
    """What the lowering computes from the same inputs, subnormals taken for zeros wherever the format says so."""
    builder, results = lowered(op)
    graph = Graph(tuple(builder.nodes), {}, ())
    given = iter(op.inputs)
    values: list[Array] = []
    for node in graph.nodes:
        if node.op == "input":
            value = next(given)
            value = np.zeros(()) if value is None else value
        elif node.op.startswith("unknown"):  # a result that nobody reads
            value = np.zeros(node.shape)
        else:
            value = run(call_of(graph, node), [values[i] for i in node.inputs])
        values.append(without_subnormals(np.broadcast_to(value, node.shape), node.format))
    return tuple(None if r is None or graph.nodes[r].op.startswith("unknown") else values[r] for r in results)


def without_subnormals(x: Array, fmt: Format) -> Array:
    """The array with zeros for subnormals, if the format has none."""
    if not fmt.flush:
        return x
    return np.where(np.abs(x.astype(np.float64)) < fmt.tiny, np.copysign(np.zeros((), x.dtype), x), x)


def bounded(op: Ran, boxes: list[Bounds]) -> tuple[Bounds | None, ...]:
    """Bounds of the op's results from bounds of its inputs."""
    builder, results = lowered(op)
    graph = Graph(tuple(builder.nodes), {}, ())
    given = iter(boxes)
    found: list[Bounds] = []
    for node in graph.nodes:
        call = call_of(graph, node)
        found.append(next(given) if node.op == "input" else bound(call, [found[i] for i in node.inputs]))
    return tuple(None if r is None else found[r] for r in results)


def around(op: Ran, together: bool) -> list[Bounds]:
    """Bounds of the op's inputs: each element's own value, or (`together`) one interval for a whole input."""
    out = []
    for x in op.inputs:
        x = np.zeros(()) if x is None else x
        b = of_array(x)
        fmt = format_of_array(x)
        out.append(entering(join_axes(b, range(-x.ndim, 0)) if together and fmt.is_float and x.size else b, fmt))
    return out


# Single elements go through functions of the C library that know subnormals (as a cast of bfloat16 to bool does), while bounds have
# them as zeros.
KNOWS_SUBNORMALS = ("Log", "Lgamma", "Xlogy", "Cast")


def outside(op: Ran, together: bool) -> list[tuple[float, float, float]]:
    """Results beyond the bounds: (result, lower end, upper end). A subnormal result counts as a zero where those are flushed."""
    bad = []
    for result, b in zip(op.results, bounded(op, around(op, together)), strict=True):
        if result is None or b is None:
            continue
        fmt = format_of_array(result)
        wide = result.astype(np.float64)
        inside = np.broadcast_to(contains(b, wide), wide.shape)
        if fmt.is_float:  # a zero of either sign: vectorised kernels and those for the last elements disagree about it
            small = np.abs(wide) < (fmt.tiny if fmt.flush else fmt.smallest)
            zero = np.broadcast_to(contains(b, np.zeros_like(wide)) | contains(b, -np.zeros_like(wide)), wide.shape)
            inside = inside | small & zero
        if op.type in KNOWS_SUBNORMALS and (not together or wide.size == 1):
            inside = inside | subnormal(op, wide.shape)
        lo, hi = np.broadcast_to(b.lo, wide.shape), np.broadcast_to(b.hi, wide.shape)
        bad += [(float(wide[i]), float(lo[i]), float(hi[i])) for i in np.ndindex(wide.shape) if not inside[i]]
    return bad


def subnormal(op: Ran, shape: tuple[int, ...]) -> Array:
    """Where an input of that shape is subnormal: vectorised kernels take it for a zero, the functions for single elements may not."""
    found = np.zeros(shape, bool)
    for x in op.inputs:
        if x is not None and x.shape == shape and format_of_array(x).flush:
            wide = np.abs(x.astype(np.float64))
            found |= (wide > 0) & (wide < format_of_array(x).tiny)
    return found


def ulps(fmt: Format, got: Array, expected: Array, *, together: bool = False, least: float = 0.0) -> Array:
    """How many units in the last place of the larger value the two differ; inf where one is NaN or infinite and the other is not.

    `together` measures in units of the largest finite result, as is fair where results are sums of terms that may cancel,
    `least` in those of a number of at least that magnitude.
    """
    a, b = got.astype(np.float64), expected.astype(np.float64)
    with np.errstate(all="ignore"):
        size = np.maximum(np.maximum(np.abs(a), np.abs(b)), max(fmt.tiny, least) if fmt.is_float else 1.0)
        if together:
            size = np.maximum(size, np.max(np.abs(b), where=np.isfinite(b), initial=0.0))
        unit = np.exp2(np.floor(np.log2(size))) * fmt.eps if fmt.is_float else np.ones(())
        distance = np.abs(a - b) / unit
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        small = (np.abs(a) <= fmt.tiny) & (np.abs(b) <= fmt.tiny) & fmt.is_float  # around the least normal number either may be flushed
        distance = np.where(same | small, 0.0, distance)
        # a result at the edge of the range may round to infinity or not
        edge = np.isinf(a) != np.isinf(b)
        other = np.where(np.isinf(a), b, a)
        near = edge & (np.abs(other) >= fmt.max * (1 - 8 * fmt.eps)) & (np.sign(a) == np.sign(b))
        return np.where(near, 1.0, np.where(np.isnan(distance) | edge, np.inf, distance))


def rounded(fmt: Format, x: Array) -> Array:
    """The numbers as an array of the format."""
    return nearest(fmt, x).astype(ml_dtypes.bfloat16 if fmt.name == "bfloat16" else fmt.numpy)


__all__ = ["Ran", "bounded", "evaluated", "known", "lowered", "outside", "ran", "random", "rounded", "subnormal", "ulps"]
