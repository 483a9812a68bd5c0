"""Real arithmetic agrees with every operation's own float64 code wherever that is accurate, and keeps the digits that it loses."""

import mpmath
import numpy as np
import pytest
from tests.ops.cases import cases, inputs

from whynan.ir.dtype import FLOAT64, Array
from whynan.ir.graph import Call
from whynan.ops import _exact
from whynan.ops._opdef import OPS, run

MP = mpmath.MPContext()
MP.prec = 200

# decompositions and sequence models, bit patterns, remainders of rounded quotients: no claim rests on a real value of these
WITHOUT = frozenset(
    "input const random copysign signbit heaviside frac fmod remainder floor_divide logaddexp2 logcumsumexp cdist_grad det "
    "slogabsdet inverse solve cholesky eigvalsh svdvals scatter_reduce ctc_loss ctc_alpha ctc_grad avg_pool max_pool interpolate "
    "bitwise_and bitwise_or bitwise_xor bitwise_not logical_xor any all count_nonzero".split()
)
NAMES = sorted(set(OPS) - WITHOUT)


def _arrays(op: str, call: Call, rng: np.random.Generator) -> list[Array]:
    special = inputs().get(op)
    if special is not None:
        return special(call, rng)
    out = []
    for shape, fmt in zip(call.shapes, call.formats, strict=True):
        x = rng.uniform(0.05, 0.95, shape) if fmt.is_float else rng.integers(0, 2, shape)
        out.append(np.asarray(x).astype(fmt.numpy))
    return out


def _as_float64(values: Array) -> Array:
    return np.asarray([float(x) for x in values.reshape(-1)]).reshape(values.shape)


@pytest.mark.parametrize("op", NAMES)
def test_the_real_value_agrees_with_float64(op: str) -> None:
    rng = np.random.default_rng(0)
    tried = 0
    for _ in range(60):
        call = cases()[op](rng)
        if not (call.format.is_float or any(f.is_float for f in call.formats)) or tried == 4:
            continue
        arrays = _arrays(op, call, rng)
        near = run(call, arrays, wide=True)
        real = _exact.exactly(MP, call, [_exact.lifted(MP, a) if f.is_float else a for a, f in zip(arrays, call.formats, strict=True)])
        assert real is not None, f"{op} has no real value"
        assert real.shape == near.shape
        tried += 1
        if call.format.is_float:
            assert real.dtype == object, f"{op} was computed in float64"
            there = np.isfinite(near)
            np.testing.assert_allclose(_as_float64(real)[there], near[there], rtol=1e-9, atol=1e-12)
        else:
            np.testing.assert_array_equal(real, near)
    assert tried or not any(f.is_float for f in cases()[op](rng).formats)


def test_an_unknown_operation_has_no_real_value() -> None:
    call = Call("svdvals", {}, ((2, 2),), (FLOAT64,), (2,), FLOAT64)
    assert _exact.exactly(MP, call, [np.eye(2)]) is None


@pytest.mark.parametrize(
    ("op", "x", "real"),
    [
        ("expm1", 1e-30, "1.0000000000000000000000000000005e-30"),
        ("log1p", 1e-30, "9.9999999999999999999999999999950e-31"),
        ("logsigmoid", 90.0, str(-mpmath.exp(-90))),
        ("softplus", -60.0, str(mpmath.exp(-60))),
        ("erfc", 20.0, str(mpmath.erfc(20))),
    ],
)
def test_digits_that_float64_would_lose_are_kept(op: str, x: float, real: str) -> None:
    call = Call(op, {}, ((),), (FLOAT64,), (), FLOAT64)
    value = _exact.exactly(MP, call, [np.asarray(x)])
    assert value is not None
    assert abs(value.item() / MP.mpf(real) - 1) < 1e-14


@pytest.mark.parametrize(("op", "x"), [("log", -1.0), ("sqrt", -1.0), ("reciprocal", 0.0), ("acos", 1.5), ("pow", -2.0)])
def test_what_is_not_real_is_nan(op: str, x: float) -> None:
    operands = [np.asarray(x)] + ([np.asarray(0.5)] if op == "pow" else [])
    call = Call(op, {}, ((),) * len(operands), (FLOAT64,) * len(operands), (), FLOAT64)
    value = _exact.exactly(MP, call, operands)
    assert value is not None and MP.isnan(value.item())
