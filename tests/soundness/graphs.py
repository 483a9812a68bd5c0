"""Random small graphs with domains and sampled inputs, rich in the structures that the analysis exploits.

A graph is put together from *motifs*: x - max(x), x / norm(x), where(x > 0, f(x), c), p and 1 - p, a softmax and its sum, sums of
parts over sums of wholes, each also as a look-alike for which the exploited fact does not hold (the maximum over another axis, the
norm of another value, a view along another dimension). Between them stand single operations of every family.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from whynan.domain.interval import Bounds, contains, make, spread, top
from whynan.ir.dtype import BOOL, FLOATS, FORMATS, INT32, INT64, UINT8, Array, Format, flushed, from_ordinal, nearest, ordinal
from whynan.ir.graph import Builder, Graph, Output, Shape
from whynan.ops._opdef import OPS

SHAPES: tuple[Shape, ...] = ((), (3,), (3,), (2, 3), (2, 3), (3, 3), (3, 3), (1, 3), (2, 1), (2, 3, 2))
SAMPLES = 20

UNARY = """square sqrt rsqrt cbrt reciprocal neg abs sign relu exp exp2 expm1 log log2 log10 log1p sigmoid logsigmoid tanh entr sin cos tan
sinh cosh asin acos atan asinh acosh atanh erf erfc erfinv lgamma digamma trigamma sinc i0 i0e i1 i1e silu mish gelu softplus elu floor ceil
round trunc frac clamp nan_to_num""".split()
COMMON_UNARY = "square sqrt rsqrt reciprocal neg abs relu exp expm1 log log1p sigmoid tanh clamp".split()
BINARY = """add sub mul div maximum minimum pow hypot logaddexp logaddexp2 xlogy xlog1py atan2 heaviside copysign fmod remainder
floor_divide""".split()
COMMON_BINARY = "add sub mul div maximum minimum pow".split()
COMPARISONS = "eq ne lt le gt ge".split()
REDUCTIONS = "sum sum sum mean var prod amax amin norm logsumexp".split()
SCANS = "cumsum cumprod cummax cummin logcumsumexp sort_values".split()


@dataclass(frozen=True, eq=False)
class Case:
    """A graph, the bounds of its inputs, and inputs that lie within them, stacked along a leading axis.

    `simplexes` are the inputs whose rows sum to 1.
    """

    graph: Graph
    domains: dict[str, Bounds]
    inputs: dict[str, Array]
    simplexes: tuple[str, ...] = ()


def draw_case(rng: np.random.Generator, compiled: bool = False, conditional: bool = False) -> Case:
    """A random case of 3 to 14 operations beside inputs and constants.

    `compiled` draws what TensorFlow, JAX and compilers add: formats that flush subnormals, contracted products, values of several
    formats in one formula, unbounded integers, rows of a simplex, choices without a choice. `conditional` draws of the same, but mostly
    conditions: between computed values, below reductions, on integers, in several formats.
    """
    maker = Maker(rng, compiled or conditional)
    motifs, shares = (MOTIFS, SHARES) if not compiled else (COMPILED_MOTIFS, COMPILED_SHARES)
    if conditional:
        motifs, shares = CONDITIONAL_MOTIFS, CONDITIONAL_SHARES
    for _ in range(1 + int(rng.integers(3))):
        maker.input()
    goal = 3 + int(12 * rng.random() ** 1.7)
    while maker.size < goal:
        motif = motifs[int(rng.choice(len(motifs), p=shares))]
        try:
            motif(maker)
        except _Misfit:
            continue
    return maker.case()


class _Misfit(Exception):
    """A motif that does not fit what it was given; nothing is wrong, another one is drawn."""


class Maker:
    """Builds a graph node by node; operations check shapes and raise `_Misfit`."""

    def __init__(self, rng: np.random.Generator, compiled: bool = False) -> None:
        self.rng, self.builder = rng, Builder()
        self.formats = tuple(map(flushed, FLOATS)) if compiled and rng.random() < 0.7 else FLOATS
        self.format = self.formats[int(rng.choice(4, p=(0.2, 0.5, 0.15, 0.15)))]
        self.mixed = self.chance(0.5 if compiled else 0.2)
        self.inputs: dict[str, int] = {}
        self.domains: dict[str, Bounds] = {}
        self.samples: dict[str, Array] = {}
        self.simplexes: list[str] = []

    @property
    def size(self) -> int:
        """Operations so far, inputs and constants not counted."""
        return sum(n.op not in ("input", "const") for n in self.builder.nodes)

    def case(self) -> Case:
        """The graph so far; everything that nothing reads is an output."""
        nodes = tuple(self.builder.nodes)
        read = {i for n in nodes for i in n.inputs}
        outputs = tuple(Output("loss", f"out{n.id}", n.id) for n in nodes if n.id not in read)
        return Case(Graph(nodes, self.inputs, outputs), self.domains, self.samples, tuple(self.simplexes))

    # ------------------------------------------------------------ chance

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def one(self, *choices: Any) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    # ------------------------------------------------------------ values

    def input(self, shape: Shape | None = None, fmt: Format | None = None) -> int:
        fmt = fmt or (self.format if self.chance(0.9) else self.one(*self.formats))
        shape = self.one(*SHAPES) if shape is None else shape
        node = self.builder.add("input", (), shape, fmt)
        name = f"x{len(self.inputs)}"
        self.inputs[name] = node
        self.domains[name] = draw_domain(self.rng, fmt, shape)
        self.samples[name] = draw_samples(self.rng, self.domains[name], fmt, shape, SAMPLES)
        return node

    def indices(self, n: int, shape: Shape) -> int:
        """Integers below n: a constant or an input."""
        value = self.rng.integers(0, n, shape)
        if self.chance(0.5):
            return self.builder.const(np.asarray(value), INT64)
        name, one = f"i{len(self.inputs)}", (1,) * len(shape)
        node = self.builder.add("input", (), shape, INT64)
        self.inputs[name] = node
        self.domains[name] = make(np.zeros(one), np.full(one, n - 1), neg_zero=False, fraction=False)
        self.samples[name] = self.rng.integers(0, n, (SAMPLES, *shape))
        return node

    def simplex(self, shape: Shape) -> int:
        """An input of rows that sum to 1 but for the rounding of their elements; some elements are 0, tiny, or the whole row's 1."""
        fmt, size = self.format, (SAMPLES, *shape)
        weights = self.rng.gamma(self.rng.choice((0.05, 0.5, 1.0, 10.0)), size=size)
        weights = np.where(self.rng.random(size) < self.rng.choice((0.0, 0.3)), 0.0, weights)
        rows = np.where(weights.sum(-1, keepdims=True) > 0, weights, 1.0)
        value = nearest(fmt, rows / rows.sum(-1, keepdims=True))
        node, name = self.builder.add("input", (), shape, fmt), f"x{len(self.inputs)}"
        self.inputs[name], self.samples[name] = node, value.astype(fmt.numpy)
        self.domains[name] = make(np.zeros((1,) * len(shape)), np.ones((1,) * len(shape)), fmt=fmt)
        self.simplexes.append(name)
        return node

    def whole(self, shape: Shape) -> int:
        """An input of integers, mostly unbounded ones."""
        fmt = self.one(INT64, INT64, INT32, UINT8)
        node, name = self.builder.add("input", (), shape, fmt), f"n{len(self.inputs)}"
        limits = np.iinfo(fmt.numpy)
        few = np.array([x for x in (0, 1, -1, 2, 7, limits.min, limits.max, limits.max - 1, 2**24 + 1, 2**53 + 1) if x <= limits.max])
        few = few[few >= limits.min]
        self.inputs[name], one = node, (1,) * len(shape)
        if self.chance(0.7):
            self.domains[name] = top(fmt, len(shape))
        else:
            few = few[(few >= 0) & (few <= 7)]
            self.domains[name] = make(np.zeros(one), np.full(one, 7.0), neg_zero=False, fraction=False)
        self.samples[name] = self.rng.choice(few, (SAMPLES, *shape)).astype(fmt.numpy)
        return node

    def number(self, fmt: Format, *values: float) -> int:
        """A 0-d constant: one of the values, or of the usual ones."""
        value = self.one(*values) if values else float(self.rng.choice(_specials(fmt)))
        return self.builder.const(np.asarray(nearest(fmt, value)).astype(fmt.numpy), fmt)

    def pick(self, least: int = 0) -> int:
        """A float value of at least so many dimensions, late ones more often."""
        found = [n.id for n in self.builder.nodes if n.format.is_float and n.op != "const" and len(n.shape) >= least]
        if not found:
            raise _Misfit
        return found[-1 - int(len(found) * self.rng.random() ** 1.6)]

    def partner(self, x: int) -> int:
        """A value that broadcasts with x: x itself, another one, a constant, something made of x."""
        kind = self.rng.random()
        if kind < 0.2:
            return x
        if kind < 0.45:
            return self.number(self.fmt(x))
        if kind < 0.6:
            return self.unary(x)
        if kind < 0.7 and self.shape(x):
            return self.reduce(x)
        return self.pick()

    def shape(self, x: int) -> Shape:
        return self.builder.shape(x)

    def fmt(self, x: int) -> Format:
        return self.builder.format(x)

    # ------------------------------------------------------------ operations

    def same_format(self, *nodes: int) -> list[int]:
        """Casts that the front ends would insert: everything in the widest format."""
        formats = [self.fmt(x) for x in nodes]
        if all(f is formats[0] for f in formats):
            return list(nodes)
        wide = max(formats, key=lambda f: (f.is_float, f.numpy.itemsize, f.max))
        return [x if self.fmt(x) is wide else self.builder.add("cast", (x,), self.shape(x), wide) for x in nodes]

    def elementwise(self, op: str, *nodes: int, fmt: Format | None = None, **attrs: Any) -> int:
        nodes = tuple(self.same_format(*nodes))
        made = self.builder.add(op, nodes, self.broadcast(*nodes), fmt or self.fmt(nodes[0]), **attrs)
        return self.widened(made) if self.mixed and self.fmt(made).is_float else made

    def widened(self, x: int) -> int:
        """Now and then the same in a wider format: relations look through such casts."""
        wider = [f for f in self.formats if f.eps <= self.fmt(x).eps and f.max >= self.fmt(x).max and f.smallest <= self.fmt(x).smallest]
        return self.builder.add("cast", (x,), self.shape(x), self.one(*wider)) if self.chance(0.25) else x

    def broadcast(self, *nodes: int) -> Shape:
        try:
            return np.broadcast_shapes(*(self.shape(x) for x in nodes))
        except ValueError:
            raise _Misfit from None

    def unary(self, x: int, op: str | None = None) -> int:
        op = op or self.one(*(COMMON_UNARY if self.chance(0.7) else UNARY))
        return self.elementwise(op, x, **_attributes(self, op, self.fmt(x)))

    def where(self, c: int, a: int, b: int) -> int:
        a, b = self.same_format(a, b)
        return self.builder.add("where", (c, a, b), self.broadcast(c, a, b), self.fmt(a))

    def compare(self, x: int, y: int) -> int:
        return self.elementwise(self.one(*COMPARISONS), x, y, fmt=BOOL)

    def dims(self, x: int) -> tuple[int, ...]:
        rank = len(self.shape(x))
        if not rank:
            raise _Misfit
        count = 1 if self.chance(0.7) else int(self.rng.integers(1, rank + 1))
        return tuple(sorted(int(d) - rank for d in self.rng.choice(rank, count, replace=False)))

    def reduce(self, x: int, op: str | None = None, dims: tuple[int, ...] | None = None, **attrs: Any) -> int:
        op = op or self.one(*REDUCTIONS)
        dims = self.dims(x) if dims is None else dims
        if op == "norm":
            attrs.setdefault("ord", self.one(2.0, 2.0, 2.0, 1.0, np.inf, 3.0, 1.5, 4.0, 0.0, 0.5, -np.inf, 10.0))
        if op == "var":
            attrs.setdefault("correction", self.one(0, 1))
        x = self.widened(x) if self.mixed else x
        rank = len(self.shape(x))
        shape = tuple(1 if d - rank in dims else n for d, n in enumerate(self.shape(x)))
        return self.builder.add(op, (x,), shape, self.fmt(x), dims=dims, **attrs)

    def along(self, x: int, op: str, **attrs: Any) -> int:
        if not self.shape(x):
            raise _Misfit
        return self.builder.add(op, (x,), self.shape(x), self.fmt(x), dim=self.dims(x)[0], **attrs)

    def move(self, x: int) -> int:
        """An operation that rearranges elements, mostly one that keeps pairs of elements together."""
        op = self.one("reshape", "reshape", "permute", "expand", "slice", "concat", "flip", "roll", "gather", "index", "scatter")
        return MOVES[op](self, x)

    def permute(self, x: int) -> int:
        rank = len(self.shape(x))
        axes = tuple(int(a) - rank for a in self.rng.permutation(rank))
        return self.builder.add("permute", (x,), tuple(self.shape(x)[a] for a in axes), self.fmt(x), axes=axes)

    def reshape(self, x: int) -> int:
        shape = list(self.shape(x))
        kind = self.rng.random()
        if kind < 0.5 or not shape:
            shape.insert(int(self.rng.integers(len(shape) + 1)), 1)
        elif kind < 0.75:
            shape = [n for n in shape if n != 1]
        else:
            shape = self.one([int(np.prod(shape))], shape[::-1])
        return self.builder.add("reshape", (x,), tuple(shape[:4]), self.fmt(x)) if len(shape) <= 4 else x

    def expand(self, x: int) -> int:
        shape = tuple(self.one(2, 3) if n == 1 else n for n in self.shape(x))
        shape = (self.one(2, 3), *shape) if self.chance(0.4) and len(shape) < 3 else shape
        return self.builder.add("expand", (x,), shape, self.fmt(x))

    def slice(self, x: int) -> int:
        d = self.dims(x)[0]
        n = self.shape(x)[d]
        start, step = int(self.rng.integers(n)), self.one(1, 1, 2)
        shape = _with(self.shape(x), d, len(range(start, n, step)))
        return self.builder.add("slice", (x,), shape, self.fmt(x), dim=d, start=start, step=step)

    def concat(self, x: int) -> int:
        d = self.dims(x)[0]
        x, y = self.same_format(x, self.one(x, self.unary(x)))
        return self.builder.add("concat", (x, y), _with(self.shape(x), d, 2 * self.shape(x)[d]), self.fmt(x), dim=d)

    def flip(self, x: int) -> int:
        return self.builder.add("flip", (x,), self.shape(x), self.fmt(x), dims=self.dims(x))

    def roll(self, x: int) -> int:
        dims = self.dims(x)
        return self.builder.add("roll", (x,), self.shape(x), self.fmt(x), dims=dims, shifts=tuple(self.one(-1, 1, 2) for _ in dims))

    def gather(self, x: int) -> int:
        d = self.dims(x)[0]
        shape = _with(self.shape(x), d, self.one(1, 1, 2))
        return self.builder.add("gather", (x, self.indices(self.shape(x)[d], shape)), shape, self.fmt(x), dim=d)

    def index(self, x: int) -> int:
        d = self.dims(x)[0]
        shape = self.shape(x)
        index = self.indices(shape[d], (2,))
        return self.builder.add("index", (x, index), _with(shape, d, 2), self.fmt(x), axes=(d,))

    def scatter(self, x: int) -> int:
        d = self.dims(x)[0]
        shape = _with(self.shape(x), d, self.one(1, 2))
        index = self.indices(self.shape(x)[d], shape)
        x, source = self.same_format(x, self.pick())
        if self.shape(source) != shape:
            source = self.builder.add("expand", (self.number(self.fmt(x)),), shape, self.fmt(x))
        return self.builder.add(self.one("scatter", "scatter_add"), (x, index, source), self.shape(x), self.fmt(x), dim=d)


MOVES: dict[str, Callable[[Maker, int], int]] = {
    "reshape": Maker.reshape,
    "permute": Maker.permute,
    "expand": Maker.expand,
    "slice": Maker.slice,
    "concat": Maker.concat,
    "flip": Maker.flip,
    "roll": Maker.roll,
    "gather": Maker.gather,
    "index": Maker.index,
    "scatter": Maker.scatter,
}


def _with(shape: Shape, dim: int, n: int) -> Shape:
    out = list(shape)
    out[dim] = n
    return tuple(out)


def _attributes(m: Maker, op: str, fmt: Format) -> dict[str, Any]:
    if op == "clamp":
        ends = (0.0, -1.0, 1.0, 1e-7, fmt.eps, fmt.smallest, 0.5, 1 - fmt.eps, 10.0, -0.0)
        low, high = sorted(float(nearest(fmt, m.one(*ends))) for _ in "ab")
        which = m.rng.random()
        return {"low": None if which < 0.3 else low, "high": None if which > 0.6 else high}
    if op == "nan_to_num":
        return {"nan": m.one(0.0, 1.0, None), "posinf": m.one(None, 1.0), "neginf": m.one(None, 0.0)}
    if op == "softplus":
        return {"beta": m.one(1.0, 2.0), "threshold": 20.0}
    if op == "elu":
        return {"alpha": 1.0, "scale": m.one(1.0, 1.05), "input_scale": 1.0}
    return {"approximate": m.one("none", "tanh")} if op == "gelu" else {}


# ---------------------------------------------------------------- motifs


def _any_unary(m: Maker) -> None:
    m.unary(m.pick())


def _any_binary(m: Maker) -> None:
    x = m.pick()
    m.elementwise(m.one(*(COMMON_BINARY if m.chance(0.8) else BINARY)), *_shuffled(m, x, m.partner(x)))


def _shuffled(m: Maker, a: int, b: int) -> tuple[int, int]:
    return (a, b) if m.chance(0.5) else (b, a)


def _any_move(m: Maker) -> None:
    m.move(m.pick())


def _any_reduction(m: Maker) -> None:
    x = m.pick(1)
    if m.chance(0.2):
        m.along(x, m.one(*SCANS))
    else:
        m.reduce(x)


def _decoy(m: Maker, x: int) -> int:
    """x, or something that resembles it."""
    kind = m.rng.random()
    if kind < 0.6:
        return x
    if kind < 0.8:
        return m.unary(x, m.one("abs", "neg", "relu", "clamp", "square", "exp"))
    y = m.permute(x) if m.chance(0.5) else m.pick()
    return y if m.shape(y) == m.shape(x) else x


def _condition(m: Maker, x: int) -> int:
    kind = m.rng.random()
    if kind < 0.6:
        c = m.compare(*_shuffled(m, x, m.number(m.fmt(x), 0.0, 0.0, 0.0, 1.0, 0.5, m.fmt(x).eps, -1.0)))
    elif kind < 0.8:
        c = m.compare(x, m.partner(x))
    else:
        c = m.elementwise(m.one("isnan", "isinf", "isfinite", "signbit"), x, fmt=BOOL)
    return m.elementwise("logical_not", c, fmt=BOOL) if m.chance(0.15) else c


def _branches(m: Maker) -> None:
    """where(x > 0, f(x), c), with the double form where(c, f(where(c, x, 1)), 0) and masks by products."""
    x = m.pick()
    c = _condition(m, x if m.chance(0.8) else m.partner(x))
    if m.chance(0.25):
        c = m.elementwise(m.one("logical_and", "logical_or", "logical_xor"), c, _condition(m, x), fmt=BOOL)
    inner = m.where(c, *_shuffled(m, x, m.number(m.fmt(x), 1.0, 0.0))) if m.chance(0.3) else x
    y = m.unary(inner) if m.chance(0.7) else m.elementwise("div", *_shuffled(m, m.partner(x), inner))
    if m.chance(0.2):
        mask = m.builder.add("cast", (c,), m.shape(c), m.fmt(y))
        m.elementwise("mul", *_shuffled(m, y, mask))
    else:
        m.where(c, *_shuffled(m, y, m.number(m.fmt(y), 0.0, 1.0) if m.chance(0.5) else m.partner(x)))


def _centred(m: Maker) -> None:
    """x - max(x), its exponential, the sum of that and what follows in a softmax or log-sum-exp."""
    x = m.pick(1)
    dims = m.dims(x)
    top = m.reduce(_decoy(m, x), "amax" if m.chance(0.8) else m.one("amin", "logsumexp", "mean", "norm"), dims)
    top = _transparent(m, top)
    d = m.elementwise("sub", *((x, top) if m.chance(0.85) else (top, x)))
    if m.chance(0.6):
        e = m.unary(d, "exp" if m.chance(0.8) else m.one("exp2", "sigmoid", "expm1", "square", "softplus"))
        s = m.reduce(e, m.one("sum", "sum", "mean", "amax"), dims if m.chance(0.8) else None)
        if m.chance(0.5):
            m.elementwise("div", e, s)
        else:
            m.unary(s, m.one("log", "reciprocal", "rsqrt"))


def _transparent(m: Maker, x: int) -> int:
    """Now and then a detour that shows the same elements, or nearly the same."""
    if m.chance(0.75):
        return x
    kind = m.rng.random()
    if kind < 0.4:
        y = m.expand(x)
    elif kind < 0.7:
        y = m.permute(x)
    else:
        y = m.builder.add("cast", (x,), m.shape(x), m.one(*m.formats))
    return y


def _normed(m: Maker) -> None:
    """x / norm(x), with and without protection of the norm."""
    x = m.pick(1)
    dims = m.dims(x)
    y = _decoy(m, x)
    if m.chance(0.5):
        n = m.reduce(y, "norm", dims)
    else:
        square = m.unary(y, "square") if m.chance(0.5) else m.elementwise("mul", y, y)
        total = m.reduce(square, m.one("sum", "sum", "sum", "amax", "mean"), dims)
        total = m.elementwise("add", total, m.number(m.fmt(total), m.fmt(total).eps, 1e-6, 1.0)) if m.chance(0.3) else total
        n = m.unary(total, "sqrt")
    protection = m.rng.random()
    if protection < 0.2:
        n = m.elementwise("clamp", n, low=float(nearest(m.fmt(n), m.one(1e-6, m.fmt(n).eps, m.fmt(n).tiny))), high=None)
    elif protection < 0.4:
        n = m.elementwise("add", n, m.number(m.fmt(n), 1e-6, m.fmt(n).eps, m.fmt(n).smallest))
    elif protection < 0.55:
        n = m.where(m.compare(n, m.number(m.fmt(n), 0.0)), *_shuffled(m, m.number(m.fmt(n), 1.0), n))
    n = _transparent(m, n)
    q = m.elementwise("div" if m.chance(0.8) else m.one("sub", "mul"), x, n)
    if m.chance(0.4):
        m.elementwise("sub", m.number(m.fmt(q), 1.0), m.unary(q, "square"))


def _softmaxed(m: Maker) -> None:
    x = m.pick(1)
    op = m.one("softmax", "softmax", "log_softmax")
    p = m.along(x, op)
    follow = m.rng.random()
    if follow < 0.35:
        m.reduce(p, m.one("sum", "amax", "mean"))
    elif follow < 0.5:
        m.elementwise("sub", m.number(m.fmt(p), 1.0), p)
    elif follow < 0.7:
        m.unary(p, m.one("log", "exp", "sqrt", "reciprocal", "neg"))
    elif follow < 0.8:
        m.reduce(m.builder.add("cast", (p,), m.shape(p), m.one(*m.formats, INT32)), "sum")
    elif m.chance(0.5):
        m.gather(p)


def _complement(m: Maker) -> None:
    """p and 1 - p in one expression."""
    x = m.pick()
    p = x if m.chance(0.4) else m.unary(x, m.one("sigmoid", "tanh", "clamp", "exp", "erf"))
    q = m.elementwise("sub", m.number(m.fmt(p), 1.0), p)
    f = m.one("log", "sqrt", "reciprocal", "log1p", "rsqrt", "square")
    a, b = (m.unary(p, f) if m.chance(0.6) else p), (m.unary(q, f) if m.chance(0.6) else q)
    m.elementwise(m.one("mul", "mul", "add", "div", "sub"), a, b)
    if m.chance(0.3):
        m.elementwise(m.one("xlogy", "pow"), *_shuffled(m, p, q))


def _shares(m: Maker) -> None:
    """x / sum(x), sum(part of x) / sum(x), over equal or other axes."""
    x = m.pick(1)
    if m.chance(0.6):
        x = m.unary(x, m.one("square", "abs", "exp", "relu", "sigmoid"))
    dims = m.dims(x)
    part = x
    if m.chance(0.6):
        y = m.partner(x)
        y = y if m.shape(y) in (m.shape(x), ()) else x
        y = m.unary(y, m.one("sigmoid", "abs", "relu", "clamp")) if m.chance(0.5) else y
        part = m.elementwise(m.one("minimum", "mul", "sub"), *_shuffled(m, x, y))
    other = m.elementwise("add", x, m.unary(part, "abs")) if m.chance(0.3) else x
    part = m.reduce(part, "sum", dims) if m.chance(0.5) else part
    whole = m.reduce(other, m.one("sum", "sum", "sum", "amax", "logsumexp", "mean"), dims if m.chance(0.8) else None)
    if m.chance(0.4):
        part, whole = (m.elementwise("add", v, m.number(m.fmt(v), 1.0, 1e-6, m.fmt(v).eps)) for v in (part, whole))
    q = m.elementwise("div" if m.chance(0.7) else "sub", part, whole)
    if m.chance(0.4):
        m.unary(m.elementwise("sub", m.number(m.fmt(q), 1.0), q), m.one("log", "sqrt", "reciprocal"))


def _pairs(m: Maker) -> None:
    """y[:, None] - y[None, :], or two views that look alike."""
    x = m.pick(1)
    shape = m.shape(x)
    if len(shape) != 1 or m.chance(0.3):
        a, b = (m.permute(x) if m.chance(0.5) else m.reshape(x) for _ in "ab")
    else:
        a, b = (m.builder.add("reshape", (x,), s, m.fmt(x)) for s in ((*shape, 1), (1, *shape) if m.chance(0.8) else (*shape, 1)))
    d = m.elementwise(m.one("sub", "sub", "mul", "div", "maximum"), a, b)
    if m.chance(0.5):
        total = m.reduce(m.unary(d, m.one("square", "abs")), m.one("sum", "amax"))
        m.elementwise("div", d, m.unary(total, "sqrt") if m.chance(0.5) else total)


def _ordered(m: Maker) -> None:
    """x against a maximum, minimum, clamp, sum with something of known sign."""
    x = m.pick()
    y = m.partner(x)
    y = m.unary(y, m.one("square", "abs", "relu", "exp", "sigmoid")) if m.chance(0.5) else y
    big = m.elementwise(m.one("maximum", "minimum", "add", "sub", "mul"), *_shuffled(m, x, y))
    if m.chance(0.15):  # the same computation in two formats, or with one term replaced
        op, z = m.builder.nodes[big].op, m.partner(x)
        x = m.elementwise(op if op in COMMON_BINARY else "add", m.widened(x), m.widened(y) if m.chance(0.6) else z)
    if m.chance(0.4):
        big = m.unary(big, m.one("sqrt", "exp", "log", "log1p", "relu", "clamp"))
        x = m.unary(x, m.builder.nodes[big].op) if m.chance(0.6) and m.builder.nodes[big].op != "clamp" else x
    m.elementwise(m.one("sub", "div", "div"), *_shuffled(m, x, _transparent(m, big)))


def _cast(m: Maker) -> None:
    x = m.pick()
    fmt = m.one(*m.formats) if m.chance(0.85) else m.one(BOOL, INT32)
    y = m.builder.add("cast", (x,), m.shape(x), fmt)
    if not fmt.is_float:
        m.builder.add("cast", (y,), m.shape(y), m.fmt(x))


def _matmul(m: Maker) -> None:
    x = m.pick(2)
    y = m.permute(x) if m.chance(0.5) else m.pick(2)
    a, b = m.shape(x), m.shape(y)
    if len(a) != 2 or len(b) != 2 or a[1] != b[0]:
        raise _Misfit
    x, y = m.same_format(x, y)
    m.builder.add("matmul", (x, y), (a[0], b[1]), m.fmt(x))


def _late_input(m: Maker) -> None:
    if len(m.inputs) > 3:
        raise _Misfit
    m.input()


# ---------------------------------------------------------------- motifs of TensorFlow, JAX and compilers


def _contracted(m: Maker) -> None:
    """a * b + c with one rounding or two."""
    a = m.pick()
    a, b, c = m.same_format(a, m.partner(a), m.partner(a))
    product = m.elementwise("mul", a, b) if not m.mixed else m.builder.add("mul", (a, b), m.broadcast(a, b), m.fmt(a))
    c = m.builder.add("neg", (product,), m.shape(product), m.fmt(a)) if m.chance(0.3) and m.fmt(product) is m.fmt(a) else c
    shape = m.broadcast(a, b, c)
    fused = m.builder.add("fma", (a, b, c), shape, m.fmt(a))
    if m.chance(0.7) and m.fmt(product) is m.fmt(a):
        plain = m.builder.add("add", (product, c), shape, m.fmt(a))
        fused = m.builder.add("either", _shuffled(m, fused, plain), shape, m.fmt(a))
    if m.chance(0.5):
        m.unary(fused, m.one("sqrt", "log", "reciprocal", "rsqrt", "square"))


def _contracted_sum(m: Maker) -> None:
    """A sum of products with one rounding each or two, and what is subtracted from it."""
    x = m.pick(1)
    x, y = m.same_format(x, m.partner(x))
    product = m.builder.add("mul", (x, y), m.broadcast(x, y), m.fmt(x))
    if not m.shape(product):
        raise _Misfit
    dims = m.dims(product)
    shape = tuple(1 if d - len(m.shape(product)) in dims else n for d, n in enumerate(m.shape(product)))
    total = m.builder.add("sum", (product,), shape, m.fmt(x), dims=dims, contracted=True, kernel=1)
    other = m.builder.add("sum", (product,), shape, m.fmt(x), dims=dims) if m.chance(0.4) else m.one(product, x, y)
    d = m.elementwise(m.one("sub", "div"), *_shuffled(m, total, other))
    m.unary(d, m.one("sqrt", "log", "reciprocal"))


def _cosine(m: Maker) -> None:
    """sum(x y) against the sizes of x and y: cosine similarity in its spellings, and look-alikes."""
    x = m.pick(1)
    y = m.one(x, m.pick(1), m.unary(x, m.one("neg", "abs", "square", "exp")))
    y = y if m.shape(y) == m.shape(x) else x
    dims = m.dims(x)
    reduction = m.one("sum", "sum", "mean")
    product = m.unary(x, "square") if x == y and m.chance(0.5) else m.elementwise("mul", x, _decoy(m, y) if m.chance(0.2) else y)
    top = m.reduce(product, reduction, dims)
    other = m.dims(x) if m.chance(0.1) else dims
    sizes = [_size(m, _decoy(m, v) if m.chance(0.15) else v, reduction, d) for v, d in ((x, dims), (y, other))]
    kind = m.rng.random()
    if kind < 0.4:
        bottom = m.elementwise("mul", *(m.unary(s, "sqrt") for s in sizes))
    else:
        bottom = m.elementwise("mul", *_shuffled(m, *sizes))
        if m.chance(0.5):
            bottom = m.elementwise("add", *_shuffled(m, bottom, m.number(m.fmt(bottom), m.fmt(bottom).eps, 1e-6, 1.0)))
        bottom = m.unary(bottom, "sqrt")
    if m.chance(0.4):
        bottom = m.elementwise("clamp", bottom, low=float(nearest(m.fmt(bottom), m.one(1e-6, m.fmt(bottom).eps, 0.1))), high=None)
    q = m.elementwise(m.one("div", "div", "sub"), top, bottom)
    if m.chance(0.5):
        m.unary(m.elementwise("sub", m.number(m.fmt(q), 1.0), q), m.one("sqrt", "log", "reciprocal"))


def _size(m: Maker, x: int, reduction: str, dims: tuple[int, ...]) -> int:
    """A sum (mean) of squares, in whatever format, or a norm."""
    if m.chance(0.2):
        return m.reduce(x, "norm", dims, ord=2.0)
    square = m.unary(x, "square") if m.chance(0.5) else m.elementwise("mul", x, x)
    total = m.reduce(square, reduction if m.chance(0.9) else "sum", dims)
    return m.elementwise("add", total, m.number(m.fmt(total), 1e-6, m.fmt(total).eps)) if m.chance(0.2) else total


def _sorted_parts(m: Maker) -> None:
    """Differences of neighbours in a sorted value or in running extremes, and of what only resembles it."""
    x = m.pick(1)
    d = m.dims(x)[0]
    n = m.shape(x)[d]
    if n < 2:
        raise _Misfit
    op = m.one("sort_values", "sort_values", "cummax", "cummin")
    more = {"descending": m.chance(0.5)} if op == "sort_values" else {}
    s = m.builder.add(op, (x,), m.shape(x), m.fmt(x), dim=d, **more) if m.chance(0.85) else x
    e = m.dims(x)[0] if m.chance(0.15) else d
    if m.shape(x)[e] < 2:
        raise _Misfit
    shape = _with(m.shape(x), e, m.shape(x)[e] - 1)
    one, two = (m.builder.add("slice", (s,), shape, m.fmt(x), dim=e, start=k, step=1) for k in (0, 1))
    gap = m.elementwise(m.one("sub", "sub", "div"), *_shuffled(m, one, two))
    m.unary(gap, m.one("sqrt", "log", "log1p", "reciprocal", "square"))


def _no_choice(m: Maker) -> None:
    """x - where(isfinite(m), m, 0) with m = max(x), and other choices that the domain has made, or nearly."""
    x = m.pick(1)
    dims = m.dims(x)
    top = m.reduce(x, m.one("amax", "amax", "amin", "sum", "norm"), dims)
    test = m.rng.random()
    if test < 0.6:
        c = m.elementwise(m.one("isfinite", "isnan", "isinf"), top, fmt=BOOL)
    else:
        c = m.compare(top, m.number(m.fmt(top), 0.0, m.fmt(top).max, m.fmt(top).smallest, m.fmt(top).tiny))
    top = m.where(c, *_shuffled(m, top, m.number(m.fmt(top), 0.0, 1.0)))
    d = m.elementwise("sub" if m.chance(0.8) else "div", x, _transparent(m, top))
    s = m.reduce(m.unary(d, m.one("exp", "exp", "square", "sigmoid")), "sum", dims)
    m.unary(s, m.one("log", "sqrt", "reciprocal"))


def _whole_numbers(m: Maker) -> None:
    """Unbounded integers: as numbers, as conditions, in divisions, clamped."""
    if len(m.inputs) > 4:
        raise _Misfit
    n = m.whole(m.one(*SHAPES[:6]))
    fmt = m.fmt(n)
    kind = m.rng.random()
    if kind < 0.3:
        one = m.builder.const(np.asarray(m.one(1, 2, 5)).astype(fmt.numpy), fmt)
        n = m.builder.add(m.one("add", "sub", "mul", "maximum", "minimum"), (n, one), m.shape(n), fmt)
    elif kind < 0.45 and fmt is not UINT8:
        n = m.builder.add(m.one("abs", "neg", "square"), (n,), m.shape(n), fmt)
    elif kind < 0.6:
        n = m.builder.add("clamp", (n,), m.shape(n), fmt, low=m.one(0.0, 1.0, None), high=m.one(10.0, 3.0))
    elif kind < 0.75 and m.shape(n):
        rank = len(m.shape(n))
        n = m.builder.add(m.one("sum", "amax", "amin", "prod"), (n,), (1,) * rank, fmt, dims=tuple(range(-rank, 0)))
    x = m.builder.add("cast", (n,), m.shape(n), m.one(*m.formats))
    if m.chance(0.4):
        c = m.builder.add(m.one(*COMPARISONS), (n, m.builder.const(np.asarray(m.one(0, 1, 7)).astype(fmt.numpy), fmt)), m.shape(n), BOOL)
        x = m.where(c, *_shuffled(m, x, m.number(m.fmt(x), 1.0, 0.0)))
    m.unary(x, m.one("reciprocal", "log", "sqrt", "rsqrt", "square", "neg"))


def _rows_of_one(m: Maker) -> None:
    """Sums over rows of a simplex, and over what only resembles them."""
    if len(m.inputs) > 4:
        raise _Misfit
    p = m.simplex(m.one((3,), (2, 3), (3, 3), (2, 1), (2, 3, 2)))
    q = _transparent(m, p) if m.chance(0.5) else p
    total = m.reduce(q, m.one("sum", "sum", "sum", "mean"), (-1,) if m.chance(0.7) else None)
    rest = m.elementwise("sub", *_shuffled(m, total, m.number(m.fmt(total), 1.0, 0.5, 0.9)))
    m.unary(rest if m.chance(0.5) else total, m.one("reciprocal", "log", "sqrt", "rsqrt"))
    if m.chance(0.5):
        m.elementwise("div", p, total) if m.fmt(p) is m.fmt(total) else m.unary(p, "log")


def _other_formats(m: Maker) -> None:
    """A value in two formats in one formula, the narrow one widened again."""
    x = m.pick()
    y = m.builder.add("cast", (x,), m.shape(x), m.one(*m.formats))
    y = m.unary(y) if m.chance(0.6) else y
    y = m.builder.add("cast", (y,), m.shape(y), m.one(*m.formats)) if m.chance(0.5) else y
    m.elementwise(m.one("sub", "sub", "div", "mul", "maximum"), *_shuffled(m, x, y))


WEIGHTS: dict[Callable[[Maker], None], float] = {
    _any_unary: 3,
    _any_binary: 4,
    _any_move: 1.5,
    _any_reduction: 1.5,
    _branches: 3,
    _centred: 2.5,
    _normed: 2.5,
    _softmaxed: 1.5,
    _complement: 1.5,
    _shares: 2.5,
    _pairs: 1,
    _ordered: 2.5,
    _cast: 1,
    _matmul: 0.4,
    _late_input: 0.4,
}
MOTIFS = tuple(WEIGHTS)
SHARES = np.array(list(WEIGHTS.values())) / sum(WEIGHTS.values())
COMPILED_WEIGHTS: dict[Callable[[Maker], None], float] = {
    **{motif: weight / 3 for motif, weight in WEIGHTS.items()},
    _contracted: 3,
    _contracted_sum: 2,
    _cosine: 3,
    _sorted_parts: 1.5,
    _no_choice: 2,
    _whole_numbers: 2,
    _rows_of_one: 1.5,
    _other_formats: 2,
}
COMPILED_MOTIFS = tuple(COMPILED_WEIGHTS)
COMPILED_SHARES = np.array(list(COMPILED_WEIGHTS.values())) / sum(COMPILED_WEIGHTS.values())


def _computed_choice(m: Maker) -> None:
    """where(x > y, f(x - y), c) for two computed values, in the double form now and then, and look-alikes (y - x, another y)."""
    x, y = m.same_format(m.pick(), m.partner(m.pick()))
    if m.chance(0.6):
        y = m.elementwise("mul", y, m.partner(y)) if m.chance(0.5) else m.unary(y)
    c = m.compare(*_shuffled(m, x, y))
    if m.chance(0.4):
        other = m.compare(x, y) if m.chance(0.4) else _condition(m, m.one(x, y))
        c = m.elementwise(m.one("logical_and", "logical_or"), c, other, fmt=BOOL)
    c = m.elementwise("logical_not", c, fmt=BOOL) if m.chance(0.2) else c
    d = m.elementwise(m.one("sub", "sub", "sub", "div", "mul"), *_shuffled(m, x, _decoy(m, y)))
    d = m.where(c, *_shuffled(m, d, m.number(m.fmt(d), 1.0, 0.0, 0.5)))
    f = m.unary(d, m.one("log", "sqrt", "reciprocal", "rsqrt", "log1p", "square"))
    if m.chance(0.5):
        m.where(c, *_shuffled(m, f, m.number(m.fmt(f), 0.0, 1.0)))


def _two_worlds(m: Maker) -> None:
    """norm(where(norm(x) < eps, 1, x)): a condition on rows below a second reduction, over the same or other axes, of x or another."""
    x = m.pick(1)
    dims = m.dims(x)
    size = _size(m, _decoy(m, x), m.one("sum", "sum", "mean"), dims) if m.chance(0.7) else m.reduce(x, None, dims)
    size = m.unary(size, "sqrt") if m.chance(0.3) else size
    c = m.compare(*_shuffled(m, size, m.number(m.fmt(size), 0.0, 1e-6, m.fmt(size).eps, m.fmt(size).tiny, 1.0)))
    if m.chance(0.25):
        c = m.elementwise(m.one("logical_and", "logical_or"), c, _condition(m, size), fmt=BOOL)
    shown = _transparent(m, c) if m.chance(0.3) else c
    if m.fmt(shown) is not BOOL:
        shown = c
    safe = m.where(shown, *_shuffled(m, m.permute(x) if m.chance(0.15) else x, m.number(m.fmt(x), 1.0, 1.0, 0.0)))
    other = m.dims(safe) if m.chance(0.25) else tuple(d for d in dims if -d <= len(m.shape(safe)))
    other = other or m.dims(safe)
    again = _size(m, safe, m.one("sum", "sum", "mean"), other) if m.chance(0.7) else m.reduce(safe, None, other)
    f = m.unary(again, m.one("sqrt", "log", "reciprocal", "rsqrt"))
    if m.chance(0.5):
        f = m.elementwise("div", *_shuffled(m, m.one(x, safe), f))
    if m.chance(0.5):
        m.where(c, *_shuffled(m, f, m.number(m.fmt(f), 0.0, 1.0)))


CONDITIONAL_WEIGHTS: dict[Callable[[Maker], None], float] = {
    **{motif: weight / 5 for motif, weight in COMPILED_WEIGHTS.items()},
    _branches: 4,
    _computed_choice: 5,
    _two_worlds: 5,
    _no_choice: 2,
    _whole_numbers: 3,
    _other_formats: 2,
    _cast: 1.5,
}
CONDITIONAL_MOTIFS = tuple(CONDITIONAL_WEIGHTS)
CONDITIONAL_SHARES = np.array(list(CONDITIONAL_WEIGHTS.values())) / sum(CONDITIONAL_WEIGHTS.values())


# ---------------------------------------------------------------- domains and samples


_SPECIALS: dict[str, Array] = {}


def _specials(fmt: Format) -> Array:
    """Finite values of the format at which something happens."""
    if fmt.name not in _SPECIALS:
        e = fmt.eps
        positive = [0.0, 1.0, 0.5, 2.0, 3.0, 10.0, 88.8, 100.0, 1 - e / 2, 1 + e, e, e**2, 0.1, fmt.smallest, 3 * fmt.smallest]
        positive += [fmt.tiny, fmt.tiny**0.5, fmt.max**0.5, fmt.max, fmt.max * (1 - e), 1e4]
        values = nearest(fmt, np.array(positive))
        values = values[np.isfinite(values)]
        _SPECIALS[fmt.name] = np.concatenate([values, -values])
    return _SPECIALS[fmt.name]


def draw_domain(rng: np.random.Generator, fmt: Format, shape: Shape) -> Bounds:
    """Random bounds: one interval, one per element, or groups along an axis; ends moderate or extreme; seldom NaN or infinities."""
    fmt = FORMATS[fmt.name]  # inputs may be subnormal also where operations take those for zero
    groups = tuple(n if k else 1 for n, k in zip(shape, rng.random(len(shape)) < rng.choice((0.0, 0.0, 0.5, 1.0)), strict=True))
    kind = rng.random()
    if kind < 0.3:
        ends = rng.choice(_specials(fmt), (2, *groups))
    elif kind < 0.6:
        ends = rng.choice(_moderate(fmt), (2, *groups))
    elif kind < 0.7:  # a probability, a non-negative number
        high = rng.choice((1.0, 1.0, 10.0, 1e4))
        ends = np.stack([np.zeros(groups), np.full(groups, high)])
    elif kind < 0.8:  # points
        ends = np.broadcast_to(rng.choice(_specials(fmt), groups), (2, *groups))
    else:
        ends = nearest(fmt, rng.normal(size=(2, *groups)) * 10.0 ** rng.integers(-2, 3))
    lo, hi = ends.min(axis=0), ends.max(axis=0)
    strange = rng.random()
    if strange < 0.03:
        hi = np.full(groups, np.inf)
    elif strange < 0.05:
        lo = np.full(groups, -np.inf)
    whole = rng.random() < 0.1
    if whole:
        lo, hi = np.ceil(lo), np.maximum(np.ceil(lo), np.floor(hi))
    zeros = rng.random()
    plus = (zeros < 0.85) | (lo == hi)
    return make(lo, hi, nan=rng.random() < 0.04, pos_zero=plus, neg_zero=0.2 < zeros < 0.95, fraction=not whole, fmt=fmt)


def _moderate(fmt: Format) -> Array:
    return nearest(fmt, np.array([-10.0, -3.0, -1.0, -0.5, -0.0, 0.0, 0.0, 0.1, 0.5, 1.0, 1.0, 1.0, 2.0, 5.0, 20.0, 1 - fmt.eps, fmt.eps]))


def draw_samples(rng: np.random.Generator, b: Bounds, fmt: Format, shape: Shape, count: int) -> Array:
    """Arrays within the bounds, (count, *shape): ends, zeros of both signs, special values, anything between, equal elements."""
    full = spread(b, shape)
    lo, hi = np.where(full.empty, 0.0, full.lo), np.where(full.empty, 0.0, full.hi)
    size = (count, *shape)
    share = rng.random(size) * rng.choice((1.0, 1e-2, 1e-6), (count,) + (1,) * len(shape))
    low, high = np.maximum(lo, -fmt.max), np.minimum(hi, fmt.max)
    between = low * (1 - share) + high * share
    first, last = ordinal(fmt, low), ordinal(fmt, high)
    place = rng.random(size)
    floats = from_ordinal(fmt, np.clip((first * (1 - place) + last * place).astype(np.int64), first, last))
    special = rng.choice(np.concatenate([_specials(fmt), [np.nan, -0.0, 0.0, 0.0, np.inf, -np.inf]]), size)
    ends = np.where(rng.random(size) < 0.5, lo, hi)
    whole = (np.zeros(size), -np.zeros(size), np.broadcast_to(lo, size), np.broadcast_to(hi, size))
    layers = np.stack([ends, between, floats, special, *whole])
    per_array = rng.integers(len(layers), size=(count,) + (1,) * len(shape))
    mixed = rng.random((count,) + (1,) * len(shape)) < 0.5
    choice = np.where(mixed, rng.integers(len(layers), size=size), np.broadcast_to(per_array, size))
    x = np.take_along_axis(layers, choice[None], axis=0)[0]
    x = _equal_elements(rng, x, shape)
    x = nearest(fmt, np.floor(x) if b.integral.all() else x)
    return _inside(x, full, fmt).astype(fmt.numpy)


def _equal_elements(rng: np.random.Generator, x: Array, shape: Shape) -> Array:
    """Some samples repeat one element, or one row, everywhere."""
    for axis in range(1, 1 + len(shape)):
        equal = (rng.random(len(x)) < 0.2).reshape((-1,) + (1,) * len(shape))
        x = np.where(equal, np.take(x, [0], axis=axis), x)
    return x


def _inside(x: Array, b: Bounds, fmt: Format) -> Array:
    """The samples with what lies outside replaced: by a zero of the other sign, or an end of the bounds."""
    for candidate in (-x, b.hi, b.lo, -b.lo, np.full(b.shape, np.nan)):
        inside = contains(b, x)
        if inside.all():
            return x
        x = np.where(inside, x, np.broadcast_to(candidate, x.shape))
    assert contains(b, x).all(), "no sample lies within the domain"
    return x


def check_generator() -> None:
    """Every op that the generator names has a record; a misspelt name would make `top` of it and hide all."""
    names = {*UNARY, *BINARY, *COMPARISONS, *REDUCTIONS, *SCANS, *MOVES}
    missing = names - OPS.keys()
    assert not missing, f"no such ops: {sorted(missing)}"
