"""What PyTorch computes on a CPU lies within the bounds: reductions, norms, softmax, scans, products, distances, windows.

PyTorch accumulates half precision in float32 and sums in blocks; bounds must hold for that as for any other order.
"""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from whynan.domain.interval import Bounds, contains, join, join_axes, of_array
from whynan.ir.dtype import BFLOAT16, FLOATS, INT64, Array, Format
from whynan.ir.graph import Call
from whynan.ops._opdef import bound

torch = pytest.importorskip("torch")
F = torch.nn.functional

FAMILIES = ("ordinary", "positive", "large", "small", "equal", "infinite", "whole")
SIZES = (1, 7, 1000)


def to_torch(x: Array) -> Any:
    if x.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(x.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(np.ascontiguousarray(x))


def to_numpy(t: Any) -> Array:
    return np.asarray(t.to(torch.float64).numpy() if t.is_floating_point() else t.numpy())


def draw(rng: np.random.Generator, fmt: Format, shape: tuple[int, ...], family: str) -> Array:
    """Numbers of a family: `large` ones overflow when squared or summed, `small` ones underflow when squared."""
    x = rng.normal(size=shape)
    if family == "positive":
        x = np.abs(x)
    if family == "large":
        x = np.clip(x, -2, 2) / 2 * fmt.max * rng.choice([1.0, 1e-2, fmt.max**-0.5])
    if family == "small":
        x = x * rng.choice([fmt.tiny, fmt.smallest * 4, fmt.tiny**0.5, fmt.smallest**0.5])
    if family == "equal":
        x = np.full(shape, rng.choice([0.0, -0.0, 1.0, 0.1, fmt.max, fmt.smallest]))
    if family == "infinite":
        x = np.where(rng.random(shape) < 0.3, rng.choice([np.inf, -np.inf, np.nan], shape, p=[0.4, 0.5, 0.1]), x)
    if family == "whole":
        x = np.round(x * 3)
    with np.errstate(over="ignore"):
        return np.asarray(x).astype(fmt.numpy)


def boxes(rng: np.random.Generator, arrays: list[Array]) -> list[Bounds]:
    """The array itself, a box per element around several arrays, and one interval for all elements."""
    wide = join(*(of_array(a) for a in arrays))
    return [of_array(arrays[0]), wide, join_axes(wide, range(-wide.lo.ndim, 0))]


def check(call: Call, kernel: Callable[..., Any], inputs: list[list[Array]], rng: np.random.Generator) -> None:
    """`inputs` holds, per input of the op, a few arrays; the first of each is what runs."""
    result = to_numpy(kernel(*(to_torch(arrays[0]) for arrays in inputs)).reshape(call.shape))
    for kind in range(3):
        b = bound(call, [boxes(rng, arrays)[kind] for arrays in inputs])
        inside = contains(b, result)
        assert inside.all(), (call.op, dict(call.attrs), call.format.name, kind, result[~inside][:3], b.lo.ravel()[:3], b.hi.ravel()[:3])


REDUCTIONS: dict[str, tuple[str, dict[str, Any], Callable[[Any], Any]]] = {
    "sum": ("sum", {}, lambda x: x.sum(-1)),
    "sum of a column": ("sum", {}, lambda x: x.t().contiguous().sum(0)),
    "mean": ("mean", {}, lambda x: x.mean(-1)),
    "var": ("var", {"correction": 1}, lambda x: x.var(-1)),
    "var of all": ("var", {"correction": 0}, lambda x: torch.stack([r.var(correction=0) for r in x])),
    "prod": ("prod", {}, lambda x: x.prod(-1)),
    "amax": ("amax", {}, lambda x: x.amax(-1)),
    "amin": ("amin", {}, lambda x: x.amin(-1)),
    "logsumexp": ("logsumexp", {}, lambda x: x.logsumexp(-1)),
    "argmax": ("argmax", {}, lambda x: x.argmax(-1)),
    "count": ("count_nonzero", {}, lambda x: x.count_nonzero(-1)),
    "any": ("any", {}, lambda x: x.any(-1)),
    **{
        f"norm {p}": ("norm", {"ord": p}, lambda x, p=p: torch.linalg.vector_norm(x, p, -1))
        for p in (0.0, 0.5, 1.0, 2.0, 3.0, float("inf"), float("-inf"))
    },
}


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("fmt", FLOATS, ids=str)
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.filterwarnings("ignore:var")
def test_reduction(name: str, fmt: Format, n: int) -> None:
    op, attrs, kernel = REDUCTIONS[name]
    rng = np.random.default_rng(len(name) * 1000 + n)
    result = INT64 if op in ("argmax", "count_nonzero", "any") else fmt
    for family in FAMILIES:
        arrays = [draw(rng, fmt, (3, n), family) for _ in range(3)]
        check(Call(op, {"dims": (-1,), **attrs}, ((3, n),), (fmt,), (3, 1), result), kernel, [arrays], rng)


ROWS: dict[str, Callable[[Any], Any]] = {
    "softmax": lambda x: torch.softmax(x, -1),
    "log_softmax": lambda x: torch.log_softmax(x, -1),
    "cumsum": lambda x: x.cumsum(-1),
    "cumprod": lambda x: x.cumprod(-1),
    "cummax": lambda x: x.cummax(-1)[0],
    "logcumsumexp": lambda x: x.logcumsumexp(-1),
    "sort_values": lambda x: x.sort(-1)[0],
}


@pytest.mark.parametrize("op", ROWS)
@pytest.mark.parametrize("fmt", FLOATS, ids=str)
@pytest.mark.parametrize("n", SIZES)
def test_rows(op: str, fmt: Format, n: int) -> None:
    rng = np.random.default_rng(n)
    for family in FAMILIES:
        arrays = [draw(rng, fmt, (3, n), family) for _ in range(3)]
        check(Call(op, {"dim": -1}, ((3, n),), (fmt,), (3, n), fmt), ROWS[op], [arrays], rng)


@pytest.mark.parametrize("fmt", FLOATS, ids=str)
@pytest.mark.parametrize("n", [1, 7, 300])
def test_matrix_product(fmt: Format, n: int) -> None:
    rng = np.random.default_rng(n)
    for family in FAMILIES:
        a = [draw(rng, fmt, (2, n), family) for _ in range(2)]
        b = [draw(rng, fmt, (n, 3), "ordinary") for _ in range(2)]
        check(Call("matmul", {}, ((2, n), (n, 3)), (fmt, fmt), (2, 3), fmt), lambda x, y: x @ y, [a, b], rng)


@pytest.mark.parametrize("fmt", [f for f in FLOATS if f.numpy.itemsize > 2], ids=str)
@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, float("inf")])
def test_distance_and_its_gradient(fmt: Format, p: float) -> None:
    rng = np.random.default_rng(5)
    for family in ("ordinary", "small", "equal", "large", "whole"):
        xs, ys = ([draw(rng, fmt, (3, 4), family) for _ in range(2)] for _ in range(2))
        ys[0][0] = xs[0][0]
        gs = [draw(rng, fmt, (3, 3), "ordinary") for _ in range(2)]
        call = Call("cdist", {"p": p}, ((3, 4), (3, 4)), (fmt, fmt), (3, 3), fmt)
        check(call, lambda x, y: torch.cdist(x, y, p, compute_mode="donot_use_mm_for_euclid_dist"), [xs, ys], rng)
        x, y, g = (to_torch(a[0]) for a in (xs, ys, gs))
        x.requires_grad_()
        distance = torch.cdist(x, y, p, compute_mode="donot_use_mm_for_euclid_dist")
        (gradient,) = torch.autograd.grad(distance, x, g)
        inputs = [of_array(a) for a in (gs[0], xs[0], ys[0], to_numpy(distance.detach()))]
        found = bound(Call("cdist_grad", {"p": p}, ((3, 3), (3, 4), (3, 4), (3, 3)), (fmt,) * 4, (3, 4), fmt), inputs)
        assert contains(found, to_numpy(gradient)).all(), (family, gradient, found)


@pytest.mark.parametrize("fmt", FLOATS, ids=str)
@pytest.mark.parametrize("transposed", [False, True])
def test_convolution(fmt: Format, transposed: bool) -> None:
    rng = np.random.default_rng(3)
    kernel = F.conv_transpose2d if transposed else F.conv2d
    attrs = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 1), "output_padding": (0, 0), "transposed": transposed, "groups": 2}
    w_shape = (4, 2, 3, 2)
    for family in ("ordinary", "positive", "small", "large"):
        x = [draw(rng, fmt, (2, 4, 5, 6), family) for _ in range(2)]
        w = [draw(rng, fmt, w_shape, "ordinary") for _ in range(2)]
        run = lambda a, b: kernel(a, b, stride=(2, 1), padding=(1, 0), groups=2)  # noqa: E731
        shape = tuple(run(to_torch(x[0]).float(), to_torch(w[0]).float()).shape)
        check(Call("conv", attrs, ((2, 4, 5, 6), w_shape), (fmt, fmt), shape, fmt), run, [x, w], rng)


def test_concrete_convolutions_equal_torch() -> None:
    from whynan.ops._opdef import run

    from ..ops.cases.linalg import CASES

    rng = np.random.default_rng(8)
    for _ in range(20):
        call = CASES["conv_input_grad"](rng)
        y, x, w = (torch.from_numpy(rng.normal(size=s)).requires_grad_() for s in call.shapes)
        attrs = call.attrs
        bias, rest = None, [list(attrs[k]) for k in ("stride", "padding", "dilation")]
        out = torch.convolution(x, w, bias, *rest, attrs["transposed"], list(attrs["output_padding"]), attrs["groups"])
        assert out.shape == y.shape
        expected = torch.autograd.grad(out, (x, w), y)
        arrays = [t.detach().numpy() for t in (y, x, w)]
        forward = Call("conv", attrs, call.shapes[1:], call.formats[1:], call.shapes[0], call.format)
        weight = Call("conv_weight_grad", attrs, call.shapes, call.formats, call.shapes[2], call.format)
        np.testing.assert_allclose(run(forward, arrays[1:], wide=True), out.detach().numpy(), atol=1e-10)
        np.testing.assert_allclose(run(call, arrays, wide=True), expected[0].numpy(), atol=1e-10)
        np.testing.assert_allclose(run(weight, arrays, wide=True), expected[1].numpy(), atol=1e-10)


@pytest.mark.parametrize("fmt", FLOATS, ids=str)
def test_pools_and_interpolation(fmt: Format) -> None:
    rng = np.random.default_rng(4)
    for family in FAMILIES:
        x = [draw(rng, fmt, (1, 2, 5, 6), family) for _ in range(2)]
        for include in (True, False):
            attrs = {"kernel": (3, 2), "stride": (2, 2), "padding": (1, 1), "ceil_mode": True, "count_include_pad": include}
            average = lambda a, i=include: F.avg_pool2d(a, (3, 2), (2, 2), (1, 1), True, i)  # noqa: E731
            check(Call("avg_pool", attrs, ((1, 2, 5, 6),), (fmt,), (1, 2, 3, 4), fmt), average, [x], rng)
        attrs = {"kernel": (3, 2), "stride": (2, 2), "padding": (1, 1), "dilation": (1, 1), "ceil_mode": False}
        maximum = lambda a: F.max_pool2d(a, (3, 2), (2, 2), (1, 1))  # noqa: E731
        check(Call("max_pool", attrs, ((1, 2, 5, 6),), (fmt,), (1, 2, 3, 4), fmt), maximum, [x], rng)
        for corners in (True, False):
            linear = lambda a, c=corners: F.interpolate(a, size=(7, 4), mode="bilinear", align_corners=c)  # noqa: E731
            attrs = {"mode": "linear", "align_corners": corners}
            check(Call("interpolate", attrs, ((1, 2, 5, 6),), (fmt,), (1, 2, 7, 4), fmt), linear, [x], rng)


def test_a_wrong_bound_is_noticed() -> None:
    rng = np.random.default_rng(0)
    x = [draw(rng, BFLOAT16, (3, 7), "positive")]
    with pytest.raises(AssertionError):
        check(Call("sum", {"dims": (-1,)}, ((3, 7),), (BFLOAT16,), (3, 1), BFLOAT16), lambda t: -t.sum(-1) - 1, [x], rng)
