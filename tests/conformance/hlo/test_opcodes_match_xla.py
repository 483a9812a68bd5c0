"""Every opcode with a lowering against the program that XLA makes: its values and its bounds, also at values that hurt."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
from jax import lax  # noqa: E402
from tests.conformance.hlo._compiled import Compiled, around, compiled, outside, subnormals_as_zero  # noqa: E402

from whynan.domain.interval import of_array  # noqa: E402

Array = Any
rng = np.random.default_rng


@dataclass(frozen=True)
class Case:
    """A function and what makes arguments for it: shapes, and how values are drawn ("real", "special", "integer", "mask")."""

    name: str
    function: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...] = ((24,),)
    values: tuple[str, ...] = ("special",)
    ulps: float = 8.0

    def arguments(self, seed: int, dtype: str) -> list[Array]:
        """Arguments drawn with a seed."""
        draw = rng([seed, zlib.crc32(self.name.encode())])
        kinds = self.values * (len(self.shapes) // len(self.values)) if len(self.values) < len(self.shapes) else self.values
        return [drawn(draw, k, s, dtype) for k, s in zip(kinds, self.shapes, strict=True)]


SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -3.0, 1e-7, -1e-7, 1e-30, 88.7, -88.0, 100.0, -104.0, 1e20, -1e20, 3e38, 1e-40]
SPECIAL += [np.inf, -np.inf, np.nan]


def drawn(draw: np.random.Generator, kind: str, shape: tuple[int, ...], dtype: str) -> Array:
    """Values of a kind."""
    if kind == "integer":
        return draw.integers(0, 4, shape).astype(np.int32)
    if kind == "any integer":
        return draw.integers(-6, 9, shape).astype(np.int32)
    if kind == "mask":
        return draw.integers(0, 2, shape).astype(bool)
    with np.errstate(over="ignore"):
        plain = (draw.standard_normal(shape) * draw.choice([0.1, 1.0, 10.0])).astype(dtype)
        special = draw.choice(SPECIAL, shape).astype(dtype)
    return np.asarray(np.where(draw.random(shape) < 0.7, special, plain) if kind == "special" else plain)


def unary(name: str) -> Case:
    return Case(name, getattr(lax, name))


def binary(name: str) -> Case:
    return Case(name, getattr(lax, name), ((64,), (64,)))


def of(
    name: str, function: Callable[..., Any], *shapes: tuple[int, ...], values: tuple[str, ...] = ("special",), ulps: float = 8.0
) -> Case:
    return Case(name, function, shapes or ((24,),), values, ulps)


ELEMENTWISE = [
    *map(unary, ["abs", "neg", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "cbrt", "tanh", "logistic", "sin", "cos", "tan"]),
    *map(
        unary,
        ["atan", "erf", "floor", "ceil", "round", "sign", "is_finite", "asin", "acos", "sinh", "cosh", "asinh", "acosh", "atanh", "square"],
    ),
    *map(binary, ["add", "sub", "mul", "div", "max", "min", "pow", "atan2", "rem", "eq", "ne", "lt", "le", "gt", "ge"]),
    of("round even", lambda x: lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN)),
    of("clamp", lambda x: jnp.clip(x, -1.0, 2.0)),
    of("clamp by arrays", lambda a, x, b: lax.clamp(a, x, b), (24,), (24,), (24,)),
    of("select", lambda c, a, b: jnp.where(c, a, b), (24,), (24,), (24,), values=("mask", "special", "special")),
    of("logic", lambda a, b: (a & b, a | b, a ^ b, ~a), (24,), (24,), values=("mask", "mask")),
    of("bits", lambda a, b: (a & b, a | b, a ^ b, ~a), (24,), (24,), values=("any integer", "any integer")),
    of(
        "integers",
        lambda a, b: (a + b, a - b, a * b, -a, abs(a), jnp.sign(a), lax.div(a, b), lax.rem(a, b), lax.max(a, b)),
        (24,),
        (24,),
        values=("any integer",),
    ),
    of(
        "conversions",
        lambda a, m: (a.astype(jnp.float32) / 3, m.astype(jnp.float32), a.astype(bool), a.astype(jnp.int8)),
        (24,),
        (24,),
        values=("any integer", "mask"),
    ),
    of("halves", lambda x: x.astype(jnp.bfloat16).astype(jnp.float32) + x.astype(jnp.float16).astype(jnp.float32)),
    of("reduced precision", lambda x: lax.reduce_precision(x, 8, 7)),
    of("to integer", lambda x: (x / 2).astype(jnp.int32), values=("real",)),
    of("product and sum", lambda a, b, c: a * b + c, (24,), (24,), (24,)),
    of("negated product", lambda a, b, c: c - a * b, (24,), (24,), (24,)),
    of("two products", lambda a, b, c: a * b - b * c, (24,), (24,), (24,)),
    of("chosen product", lambda a, b, c: jnp.where(c > 0, a * b, 0.0) + 1.0, (24,), (24,), (24,)),
    of("moved product", lambda a, b, c: (a * b).reshape(4, 6).T + c, (24,), (24,), (6, 4)),
]

MOVES = [
    of("picked product", lambda a, b, i: (a * b)[i] + a[0], (5, 4), (5, 4), (3,), values=("special", "special", "integer")),
    of("running products", lambda a, b: jnp.cumsum(a * b, 1) + 1, (3, 4), (3, 4), values=("real",), ulps=64),
    of("padded product", lambda a, b, c: jnp.pad(a * b, 1) + c, (3,), (3,), (5,), values=("special",)),
    of("joined product", lambda a, b, c: jnp.concatenate([a * b, a]) - c, (3,), (3,), (6,), values=("special",)),
    of("broadcast", lambda x: jnp.broadcast_to(x[:, None, :], (4, 3, 5)), (4, 5)),
    of("broadcast in dim", lambda x: lax.broadcast_in_dim(x, (4, 2, 5), (0, 2)), (4, 5)),
    of("transpose", lambda x: jnp.transpose(x, (2, 0, 1)) * 2, (2, 3, 4)),
    of("transpose and reshape", lambda x: jnp.exp(jnp.transpose(x, (1, 0, 2)).reshape(12, 2)), (4, 3, 2)),
    of("slice", lambda x: x[1:4, ::2], (5, 6)),
    of("reverse", lambda x: x[::-1, ::-1] + 1, (3, 4)),
    of("concatenate", lambda a, b: jnp.concatenate([a, b], 1), (2, 3), (2, 2)),
    of("stack", lambda a, b: jnp.stack([a, b], 1), (3,), (3,)),
    of("pad", lambda x: lax.pad(x, jnp.float32(7), [(1, 2, 1), (0, -1, 0)]), (3, 4)),
    of("pad by a value", lambda x, v: lax.pad(x, v, [(1, 0, 2)]), (3,), ()),
    of("iota", lambda x: x * lax.broadcasted_iota(jnp.float32, (3, 4), 1), (3, 4)),
    of("big constant", lambda x: x * np.linspace(-1, 1, 40, dtype=np.float32), (40,)),
    of("split and roll", lambda x: jnp.roll(x, 2, 0) - x, (7,)),
    of("triangle", lambda x: jnp.tril(x) + jnp.triu(x, 1), (4, 4)),
    of("diagonal", lambda x: jnp.diagonal(x) + jnp.trace(x), (4, 4), values=("real",)),
    of("dynamic slice", lambda x, i: lax.dynamic_slice(x, (i, 1), (2, 3)), (5, 6), (), values=("special", "any integer")),
    of(
        "dynamic update",
        lambda x, u, i: lax.dynamic_update_slice(x, u, (i, 1)),
        (5, 6),
        (2, 3),
        (),
        values=("special", "special", "any integer"),
    ),
    of(
        "dynamic update all",
        lambda x, u, i: lax.dynamic_update_slice(x, u, (i, i)),
        (5, 6),
        (2, 3),
        (),
        values=("special", "special", "any integer"),
    ),
]

REDUCTIONS = [
    of("sum", lambda x: (jnp.sum(x), jnp.sum(x, 0), jnp.sum(x, 1)), (6, 7), values=("real",), ulps=64),
    of("sum with infinities", lambda x: jnp.sum(x, 1), (6, 3)),
    of("long sum", lambda x: jnp.sum(x), (5000,), values=("real",), ulps=4096),
    of("sum of products", lambda a, b: jnp.sum(a * b, 1), (6, 5), (6, 5), values=("real",), ulps=256),
    of("mean and deviation", lambda x: (jnp.mean(x), jnp.std(x, 0), jnp.var(x, 1)), (6, 7), values=("real",), ulps=256),
    of("product", lambda x: jnp.prod(x, 0), (3, 4), values=("real",), ulps=32),
    of("extremes", lambda x: (jnp.max(x), jnp.min(x, 0), jnp.max(x, 1)), (6, 7)),
    of("any and all", lambda m: (jnp.any(m, 0), jnp.all(m, 1), jnp.sum(m)), (6, 3), values=("mask",)),
    of("integer sums", lambda a: (jnp.sum(a), jnp.max(a, 0), jnp.prod(a, 1)), (5, 3), values=("any integer",)),
    of("arg-extremes", lambda x: (jnp.argmax(x, 1), jnp.argmin(x, 0), jnp.argmax(x)), (5, 6)),
    of(
        "running",
        lambda x: (jnp.cumsum(x, 0), jnp.cumprod(x, 1), lax.cummax(x, 0), lax.cummin(x, 1), lax.cumsum(x, 1, True)),
        (5, 4),
        values=("real",),
        ulps=64,
    ),
    of("running extremes", lambda x: (lax.cummax(x, 0), lax.cummin(x, 1, True)), (5, 4)),
    of(
        "log-sum-exp",
        lambda x: (jax.nn.logsumexp(x, 1), jax.nn.softmax(x, 1), jax.nn.log_softmax(x, 0)),
        (4, 5),
        values=("real",),
        ulps=4096,
    ),
    of(
        "pools",
        lambda x: (
            lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (2, 1), "SAME"),
            lax.reduce_window(x, 0.0, lax.add, (2, 3), (1, 2), "VALID"),
        ),
        (6, 7),
        values=("real",),
        ulps=64,
    ),
    of("sort", lambda x: jnp.sort(x, 1), (4, 6)),
    of("sort descending", lambda x: jnp.sort(x, 0, descending=True), (6, 2), values=("real",)),
    of("argsort", lambda x: (jnp.argsort(x, 1), jnp.take_along_axis(x, jnp.argsort(x, 1), 1)), (4, 6), values=("real",)),
    of("top-k", lambda x: lax.top_k(x, 2), (4, 6), values=("real",)),
    of("median and quantile", lambda x: (jnp.median(x, 1), jnp.quantile(x, 0.3)), (4, 6), values=("real",), ulps=32),
    of("norm", lambda x: (jnp.linalg.norm(x), jnp.linalg.norm(x, axis=1)), (4, 6), values=("real",), ulps=64),
]

INDEXING = [
    of("take", lambda x, i: jnp.take(x, i, 0), (5, 3), (4,), values=("special", "integer")),
    of("take out of range", lambda x, i: x[i], (5, 3), (6,), values=("special", "any integer")),
    of("take along axis", lambda x, i: jnp.take_along_axis(x, i[:, None], 1)[:, 0], (6, 5), (6,), values=("special", "integer")),
    of("pairs", lambda x, i, j: x[i, j], (5, 4), (6,), (6,), values=("special", "integer", "integer")),
    of("constant positions", lambda x: x[jnp.array([3, 0, 3]), :2], (5, 4)),
    of("scatter", lambda x, i, v: x.at[i].set(v), (5, 3), (), (3,), values=("special", "any integer", "special")),
    of("scatter add", lambda x, i, v: x.at[i].add(v), (5, 3), (6,), (6, 3), values=("real", "any integer", "real"), ulps=64),
    of("scatter extremes", lambda x, i, v: (x.at[i].max(v), x.at[i].min(v)), (5,), (6,), (6,), values=("real", "integer", "real")),
    of("scatter multiply", lambda x, i, v: x.at[i].multiply(v), (5,), (4,), (4,), values=("real", "integer", "real"), ulps=64),
    of("one-hot", lambda i: jax.nn.one_hot(i, 4), (6,), values=("any integer",)),
    of("segment sum", lambda v, i: jax.ops.segment_sum(v, i, 4), (6,), (6,), values=("real", "integer"), ulps=64),
    of(
        "gradient of take",
        lambda x, i: jax.grad(lambda x: jnp.sum(jnp.take_along_axis(x, i[:, None], 1) ** 2))(x),
        (6, 5),
        (6,),
        values=("real", "integer"),
    ),
]

LINEAR = [
    of("matmul", lambda a, b: a @ b, (4, 5), (5, 3), values=("real",), ulps=1024),
    of("batched matmul", lambda a, b: jnp.einsum("bij,bkj->bik", a, b), (2, 3, 4), (2, 5, 4), values=("real",), ulps=1024),
    of("inner product", lambda a, b: jnp.dot(a, b), (7,), (7,), values=("real",), ulps=1024),
    of("outer", lambda a, b: jnp.einsum("i,j->ji", a, b), (3,), (4,)),
    of("einsum", lambda a, b: jnp.einsum("aibj,jci->cab", a, b), (2, 3, 4, 5), (5, 2, 3), values=("real",), ulps=4096),
    of(
        "convolution",
        lambda x, w: lax.conv_general_dilated(x, w, (1, 2), "SAME"),
        (2, 3, 6, 7),
        (4, 3, 3, 3),
        values=("real",),
        ulps=1 << 14,
    ),
    of(
        "convolution gradients",
        lambda x, w: jax.grad(lambda x, w: jnp.sum(lax.conv_general_dilated(x, w, (2,), [(1, 0)]) ** 2), (0, 1))(x, w),
        (2, 3, 6),
        (4, 3, 3),
        values=("real",),
        ulps=1 << 16,
    ),
    of(
        "grouped convolution",
        lambda x, w: lax.conv_general_dilated(x, w, (1,), "VALID", rhs_dilation=(2,), feature_group_count=2),
        (2, 4, 9),
        (6, 2, 3),
        values=("real",),
        ulps=1 << 14,
    ),
]

CONTROL = [
    of("cond", lambda c, x: lax.cond(c, lambda v: jnp.log(v), lambda v: v * 2, x), (), (6,), values=("mask", "special")),
    of("switch", lambda i, x: lax.switch(i, [jnp.sin, jnp.exp, lambda v: -v], x), (), (6,), values=("any integer", "special")),
    of("scan", lambda x: lax.scan(lambda c, v: (c * 0.5 + v, c), 0.0, x)[1], (5,), values=("real",), ulps=64),
    of("loop", lambda x: lax.fori_loop(0, 4, lambda i, v: jnp.sin(v) + i, x), (5,), values=("real",), ulps=1024),
    of(
        "gradient of a scan",
        lambda x: jax.grad(lambda x: lax.scan(lambda c, v: (jnp.tanh(c + v), None), 0.0, x)[0])(x),
        (5,),
        values=("real",),
        ulps=1024,
    ),
    of("map", lambda x: lax.map(jnp.exp, x), (5,)),
    of("vmap", lambda a, b: jax.vmap(jnp.dot)(a, b), (5, 3), (5, 3), values=("real",), ulps=1024),
]

# functions that do not take all subnormals for zero: there the graph's values differ, not its bounds
SUBNORMALS_MATTER = ("cbrt", "pow", "atan2")

CASES = [*ELEMENTWISE, *MOVES, *REDUCTIONS, *INDEXING, *LINEAR, *CONTROL]


def differs(got: Array, real: Array, ulps: float) -> Array:
    """Where two results differ by more than rounding; subnormals count as zero."""
    got, real = subnormals_as_zero(got), subnormals_as_zero(real)
    if real.dtype.kind in "iub":
        return got != real
    a, b = np.asarray(got, np.float64), np.asarray(real, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        size = np.maximum(np.abs(b), np.nanmax(np.abs(np.where(np.isfinite(b), b, 0)), initial=0.0) * 1e-3 if ulps > 8 else 0)
        near = np.abs(a - b) <= ulps * float(jnp.finfo(real.dtype).eps) * size + float(jnp.finfo(real.dtype).tiny)
    return ~((a == b) | np.isnan(a) & np.isnan(b) | near & np.isfinite(a) & np.isfinite(b))


def check(case: Case, program: Compiled, dtype: str, seeds: int) -> None:
    """Values agree with the program's, and its results lie in the bounds of their arguments and of ranges that hold them."""
    for seed in range(seeds):
        arguments = case.arguments(seed, dtype)
        real, got = program.real(arguments), program.evaluated(arguments)
        points = program.bounds([of_array(a) for a in arguments])
        ranges = program.bounds([around([a]) for a in arguments])
        for k, (r, g, p, b) in enumerate(zip(real, got, points, ranges, strict=True)):
            wrong = differs(g, r, case.ulps) & (case.name not in SUBNORMALS_MATTER)
            assert not wrong.any(), f"result {k} of {case.name}: XLA gives {r[wrong][:3]}, the graph {g[wrong][:3]} for {arguments}"
            for name, bounds in (("points", p), ("ranges", b)):
                out = outside(bounds, r)
                assert not out.any(), (
                    f"result {k} of {case.name}: XLA gives {r[out][:3]}, outside of the bounds from {name} for {arguments}"
                )


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_the_graph_computes_what_xla_computes(case: Case) -> None:
    program = compiled(case.function, *case.arguments(0, "float32"))
    assert program.unknown == []
    check(case, program, "float32", 3)
