"""Random graphs of what exact arithmetic can follow: sums, products, exponentials, maxima and rows of a few elements, in moderate ranges.

The graphs of `graphs.py` take all operations and ranges, where errors soon swallow everything. These stay where identities matter: values
are used several times, so that much cancels, and inputs lie at ends, at ties, close together, and among the smallest numbers.
"""

from collections.abc import Callable

import numpy as np
from tests.analysis.small import Small
from tests.soundness.graphs import Case

from whynan.domain.interval import Bounds, between
from whynan.ir.dtype import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, Array, Format, flushed, nearest

FORMATS = (FLOAT32, FLOAT32, FLOAT64, FLOAT16, BFLOAT16, flushed(FLOAT32))
RANGES = ((0.0, 1.0), (-1.0, 1.0), (-30.0, 30.0), (1e-3, 5.0), (0.5, 0.500001), (-100.0, 100.0), (0.0, 1e-30), (1e-6, 1.0))
SAMPLES = 24
NODES = 14

UNARY = ("neg", "exp", "log", "log1p", "square", "sqrt", "abs", "relu", "sin", "cos", "sigmoid", "softplus", "logsigmoid", "reciprocal")
BINARY = ("add", "sub", "mul", "div", "maximum", "minimum", "logaddexp", "add", "sub", "mul", "sub")
ROWS = ("softmax", "log_softmax")
REDUCED = ("sum", "mean", "amax", "amin", "logsumexp", "norm", "prod")


def draw_smooth(rng: np.random.Generator) -> Case:
    """A graph, its domains, and inputs of these domains stacked by sample."""
    fmt = FORMATS[rng.integers(len(FORMATS))]
    n = int(rng.integers(2, 5))
    s, made = Small(), list[int]()
    domains: dict[str, Bounds] = {}
    inputs: dict[str, Array] = {}
    for name in "xyz"[: int(rng.integers(1, 4))]:
        lo, hi = (float(nearest(fmt, end)) for end in RANGES[rng.integers(len(RANGES))])
        made.append(s.input(name, n, fmt=fmt))
        domains[name] = between(lo, hi, fmt, 1)
        inputs[name] = _values(rng, fmt, lo, hi, n)
    for _ in range(int(rng.integers(3, NODES))):
        made.append(_node(rng, s, made, n, fmt))
    return Case(s.graph(made[-1]), domains, inputs)


def _values(rng: np.random.Generator, fmt: Format, lo: float, hi: float, n: int) -> Array:
    """Anything in the range, its ends, equal elements, neighbours, and tiny numbers."""
    kinds: list[Callable[[], Array]] = [
        lambda: rng.uniform(lo, hi, n),
        lambda: rng.choice([lo, hi], n),
        lambda: np.full(n, rng.uniform(lo, hi)),
        lambda: rng.uniform(lo, hi) * (1 + fmt.eps * rng.integers(-2, 3, n)),
        lambda: rng.choice([0.0, fmt.tiny, -fmt.tiny, fmt.eps, 1.0, hi], n),
        lambda: np.sort(rng.uniform(lo, hi, n))[::-1],
    ]
    drawn = np.array([kinds[rng.integers(len(kinds))]() for _ in range(SAMPLES)])
    return nearest(fmt, np.clip(drawn, lo, hi)).astype(fmt.numpy)


def _node(rng: np.random.Generator, s: Small, made: list[int], n: int, fmt: Format) -> int:
    def pick() -> int:
        return made[-1 - int(min(rng.geometric(0.3) - 1, len(made) - 1))]

    kind = rng.choice(["unary", "binary", "binary", "row", "reduce", "const", "cumsum", "slice", "matmul"])
    x = pick()
    if kind == "unary":
        return s.op(str(rng.choice(UNARY)), x)
    if kind == "binary":
        return s.op(str(rng.choice(BINARY)), x, pick())
    if kind == "const":
        value = float(nearest(fmt, rng.choice([0.5, 1e-4, 2.0, 1e-8, -1.0, 0.1, 0.6931472])))
        return s.op(str(rng.choice(["add", "mul", "sub", "div"])), x, s.const(value, fmt))
    whole = [i for i in made if s.builder.shape(i) == (n,)]
    x = whole[-1 - int(min(rng.geometric(0.3) - 1, len(whole) - 1))]
    if kind == "row":
        return s.op(str(rng.choice(ROWS)), x, dim=-1)
    if kind == "cumsum":
        return s.op("cumsum", x, dim=-1)
    if kind == "slice":
        return s.op("slice", x, shape=(1,), dim=-1, start=int(rng.integers(n)), step=1)
    op = str(rng.choice(REDUCED)) if kind == "reduce" else "sum"
    return s.reduce(op, x, -1, **({"ord": 2.0} if op == "norm" else {}))
