"""The bounds against the real thing: what PyTorch computes on a CPU lies within the bounds of its own input.

Arrays are long enough for the vectorised kernels, and single elements take the scalar ones.
"""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tests.ops.soundness import special_values

from whynan.domain.interval import contains, of_array
from whynan.ir.dtype import BOOL, FLOATS, Array, Format, from_ordinal, nearest, ordinal
from whynan.ir.graph import Call
from whynan.ops._opdef import bound

torch = pytest.importorskip("torch")
functional = torch.nn.functional

SIZE = 2048
Row = tuple[str, Callable[..., Any], int, dict[str, Any]]


def _row(op: str, function: Callable[..., Any], arity: int = 1, **attrs: Any) -> Row:
    return op, function, arity, attrs


_SAME = """abs sign reciprocal sqrt rsqrt square floor ceil round trunc frac relu exp exp2 expm1 log log2 log10 log1p sigmoid tanh sin cos
tan sinh cosh asin acos atan asinh acosh atanh erf erfc erfinv lgamma digamma sinc neg isnan isinf isfinite signbit logical_not"""
_SAME_PAIRS = """add sub mul div pow fmod remainder floor_divide hypot maximum minimum logaddexp logaddexp2 xlogy atan2 heaviside copysign
eq ne lt le gt ge logical_and logical_or logical_xor"""

ROWS = [
    *[_row(op, getattr(torch, op)) for op in _SAME.split()],
    *[_row(op, getattr(torch, op), 2) for op in _SAME_PAIRS.split()],
    *[_row(op, getattr(torch.special, op)) for op in ("entr", "i0", "i0e", "i1", "i1e")],
    _row("xlog1py", torch.special.xlog1py, 2),
    _row("trigamma", lambda x: torch.polygamma(1, x)),
    _row("logsigmoid", functional.logsigmoid),
    _row("silu", functional.silu),
    _row("mish", functional.mish),
    _row("gelu", functional.gelu, approximate="none"),
    _row("gelu", lambda x: functional.gelu(x, approximate="tanh"), approximate="tanh"),
    *[
        _row("softplus", lambda x, b=b, t=t: functional.softplus(x, beta=b, threshold=t), beta=b, threshold=t)
        for b, t in ((1.0, 20.0), (2.5, 3.0), (-1.0, 5.0))
    ],
    _row("elu", functional.elu, alpha=1.0, scale=1.0, input_scale=1.0),
    _row("elu", functional.selu, alpha=1.6732632423543772, scale=1.0507009873554805, input_scale=1.0),
    _row("elu", lambda x: functional.celu(x, 0.7), alpha=0.7, scale=1.0, input_scale=1 / 0.7),
    _row("nan_to_num", torch.nan_to_num, nan=0.0, posinf=None, neginf=None),
    _row("clamp", lambda x: torch.clamp(x, min=0.0, max=1.0), low=0.0, high=1.0),
    _row("clamp", lambda x: torch.clamp(x, min=1.0, max=0.5), low=1.0, high=0.5),
]


def tensor(x: Array) -> Any:
    if x.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(x.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(x.copy())


def array(t: Any) -> Array:
    return t.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if t.dtype == torch.bfloat16 else t.numpy()


def values(rng: np.random.Generator, fmt: Format, size: int) -> Array:
    """Special values, values around 1, moderate ones, and any at all."""
    reach = int(ordinal(fmt, fmt.max))
    quarter = size // 4
    parts = [
        rng.choice(special_values(fmt).astype(np.float64), quarter),
        rng.uniform(-2, 2, quarter),
        rng.normal(size=quarter) * 10.0 ** rng.uniform(-3, 3, quarter),
        from_ordinal(fmt, rng.integers(-reach, reach, size - 3 * quarter)),
    ]
    return nearest(fmt, rng.permutation(np.concatenate(parts))).astype(fmt.numpy)


def outside(row: Row, fmt: Format, arrays: list[Array]) -> list[Any]:
    """Inputs and results of the elements that lie outside of their bounds."""
    op, function, arity, attrs = row
    try:
        result = function(*[tensor(x) for x in arrays])
    except (RuntimeError, NotImplementedError) as error:
        pytest.skip(f"PyTorch has no kernel: {str(error).splitlines()[0]}")
    value = array(result)
    result_format = BOOL if value.dtype == bool else fmt
    shape = arrays[0].shape
    call = Call(op, attrs, (shape,) * arity, (fmt,) * arity, shape, result_format)
    b = bound(call, [of_array(x) for x in arrays])
    bad = ~contains(b, value)
    return [([float(x[i]) for x in arrays], float(value[i]), float(b.lo[i]), float(b.hi[i])) for i in np.nonzero(bad)[0]]


@pytest.mark.parametrize("fmt", FLOATS, ids=str)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join([row[0], *map(str, row[3].values())]))
def test_results_lie_within_bounds(row: Row, fmt: Format) -> None:
    rng = np.random.default_rng(7)
    arrays = [values(rng, fmt, SIZE) for _ in range(row[2])]
    bad = outside(row, fmt, arrays)
    for i in range(24):
        bad += outside(row, fmt, [x[i : i + 1] for x in arrays])
    assert not bad, bad[:5]


@pytest.mark.parametrize("fmt", FLOATS, ids=str)
@pytest.mark.parametrize("exponent", [0.0, 0.5, -0.5, 1.0, -1.0, 2.0, -2.0, 3.0, 4.0, 0.7, -3.0])
def test_powers_with_a_number_as_exponent(fmt: Format, exponent: float) -> None:
    """PyTorch computes some of them as products, roots and reciprocals."""
    x = values(np.random.default_rng(8), fmt, SIZE)
    e = nearest(fmt, np.full_like(x, exponent, dtype=np.float64)).astype(fmt.numpy)
    row = _row("pow", lambda a, b: torch.pow(a, float(e[0])), 2)
    assert not outside(row, fmt, [x, e])


@pytest.mark.parametrize("fmt", FLOATS, ids=str)
@pytest.mark.parametrize("condition", [True, False])
def test_where_takes_one_branch(fmt: Format, condition: bool) -> None:
    a, b = (values(np.random.default_rng(s), fmt, 64) for s in (1, 2))
    value = array(torch.where(torch.tensor(condition), tensor(a), tensor(b)))
    call = Call("where", {}, ((1,), (64,), (64,)), (BOOL, fmt, fmt), (64,), fmt)
    assert contains(bound(call, [of_array(np.array([condition])), of_array(a), of_array(b)]), value).all()
    assert np.array_equal(value.view(f"i{fmt.numpy.itemsize}"), (a if condition else b).view(f"i{fmt.numpy.itemsize}"))


@pytest.mark.parametrize("source", FLOATS, ids=str)
@pytest.mark.parametrize("target", FLOATS, ids=str)
def test_casts(source: Format, target: Format) -> None:
    x = values(np.random.default_rng(3), source, SIZE)
    dtype = getattr(torch, target.name)
    call = Call("cast", {}, ((SIZE,),), (source,), (SIZE,), target)
    assert contains(bound(call, [of_array(x)]), array(tensor(x).to(dtype))).all()


def test_the_comparison_can_fail() -> None:
    """A function that is not the op is found out."""
    x = np.linspace(0.1, 1, 64, dtype=np.float32)
    assert outside(_row("exp", torch.exp2), FLOATS[1], [x])
