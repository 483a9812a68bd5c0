"""The constructors: defaults, bounds moved inward, errors in one clear line."""

import ml_dtypes
import numpy as np
import pytest

import whynan
from whynan.domain import names, spec
from whynan.errors import DomainError

FLOATS = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


@pytest.mark.parametrize(
    ("made", "low", "high", "dtype", "grad"),
    [
        (spec.real(8, 3), -1e4, 1e4, "float32", True),
        (spec.prob(8), 0, 1, "float32", True),
        (spec.logit(8), -100, 100, "float32", True),
        (spec.positive(8), 2.0**-149, 1e4, "float32", True),
        (spec.nonnegative(8), 0, 1e4, "float32", True),
        (spec.simplex(8), 0, 1, "float32", True),
        (spec.unit(8), -1, 1, "float32", True),
        (spec.binary(8), 0, 1, "float32", False),
        (spec.onehot(8), 0, 1, "float32", False),
        (spec.mask(8), 0, 1, "bool", False),
        (spec.classes(10, 8), 0, 9, "int64", False),
        (spec.integers(-2, 7, 8), -2, 7, "int64", False),
    ],
)
def test_defaults(made, low, high, dtype, grad):
    assert (made.low, made.high, made.dtype, made.grad) == (low, high, dtype, grad)
    assert not made.assumed
    assert not made.grad_given


@pytest.mark.parametrize("name", FLOATS)
def test_ends_move_inward_to_the_dtype(name):
    domain = spec.real(3, low=-0.1, high=0.3, dtype=name)
    kind = FLOATS[name]
    assert domain.low >= -0.1
    assert domain.high <= 0.3
    # the very next value outward would leave the bounds
    assert float(np.nextafter(kind(domain.low), kind(-1))) < -0.1
    assert float(np.nextafter(kind(domain.high), kind(1))) > 0.3


@pytest.mark.parametrize("name", FLOATS)
def test_positive_starts_at_the_smallest_subnormal(name):
    smallest = float(ml_dtypes.finfo(FLOATS[name]).smallest_subnormal)
    assert spec.positive(4, dtype=name).low == smallest
    assert spec.positive(4, low=0, dtype=name).low == smallest
    assert spec.positive(4, low=0.5, dtype=name).low == 0.5


def test_bounds_beyond_the_dtype_stop_at_its_largest_value():
    domain = spec.real(2, low=-np.inf, high=1e9, dtype="float16")
    assert (domain.low, domain.high) == (-65504, 65504)


def test_a_missing_bound_gives_way_to_a_given_one():
    assert spec.real(2, high=-1e5).low == -float(np.finfo(np.float32).max)
    assert spec.positive(2, low=2e4).high == float(np.finfo(np.float32).max)
    assert spec.real(2, high=3).low == -1e4


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (np.float16, "float16"),
        (np.dtype("float64"), "float64"),
        (ml_dtypes.bfloat16, "bfloat16"),
        ("torch.float16", "float16"),
        ("half", "float16"),
    ],
)
def test_dtypes_by_name_or_object(dtype, name):
    assert spec.real(2, dtype=dtype).dtype == name


def test_torch_dtypes_and_tensors():
    torch = pytest.importorskip("torch")
    assert spec.real(2, dtype=torch.bfloat16).dtype == "bfloat16"
    domain = spec.const(torch.tensor([1.5, 2.5], dtype=torch.bfloat16, requires_grad=True))
    assert (domain.dtype, domain.shape, domain.value.tolist()) == ("bfloat16", (2,), [1.5, 2.5])


def test_shapes():
    assert spec.real().shape == ()
    assert spec.real((8, 3)).shape == (8, 3)
    assert spec.real(np.int64(2), 0).shape == (2, 0)
    assert spec.classes(5, 2, 3).shape == (2, 3)
    assert spec.integers(0, 5).shape == ()


def test_const_keeps_its_dtype_and_python_floats_are_float32():
    assert spec.const(np.array([1, 2], np.int32)).dtype == "int32"
    assert spec.const(0.1).dtype == "float32"
    assert spec.const([[True, False]]).dtype == "bool"
    assert spec.const(0.1, dtype="float64").value == 0.1
    assert (spec.const([3.0, -1.0, np.nan]).low, spec.const([3.0, -1.0, np.nan]).high) == (-1, 3)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: spec.real(-1), "-1 is not a size"),
        (lambda: spec.real(2.5), "2.5 is not a size"),
        (lambda: spec.real(True), "True is not a size"),
        (lambda: spec.real("3"), "'3' is not a size"),
        (lambda: spec.real(3, low=2, high=1), "so the domain is empty"),
        (lambda: spec.real(3, low=float("nan")), "low=nan is not a number"),
        (lambda: spec.real(3, high="1"), "high='1' is not a number"),
        (lambda: spec.real(3, low=1e300), "no float32 lies between"),
        (lambda: spec.real(3, low=1.0000000001, high=1.0000000002), "no float32 lies between"),
        (lambda: spec.real(3, dtype="int64"), "needs a float dtype"),
        (lambda: spec.real(3, dtype="float8"), "'float8' is not a dtype that whynan knows"),
        (lambda: spec.prob(3, high=1.5), "leave its range, [0, 1]"),
        (lambda: spec.positive(3, low=-1), "leave its range, above 0"),
        (lambda: spec.positive(3, high=0), "no number above 0"),
        (lambda: spec.classes(0, 3), "the number of classes"),
        (lambda: spec.classes(2.5, 3), "the number of classes"),
        (lambda: spec.classes(300, 3, dtype="int8"), "int8 does not hold"),
        (lambda: spec.binary(3, dtype="int64", grad=True), "only floats have gradients"),
        (lambda: spec.integers(3, 2, 4), "so the domain is empty"),
        (lambda: spec.integers(-1, 2, 4, dtype="uint8"), "uint8 does not hold"),
        (lambda: spec.integers(0, float("inf"), 4), "are not finite"),
        (lambda: spec.simplex(), "at least one element"),
        (lambda: spec.onehot(3, 0), "at least one element"),
        (lambda: spec.simplex(4, low=0.5), "never sum to 1"),
        (lambda: spec.unit(4, high=0.1, low=-0.1), "never have norm 1"),
        (lambda: spec.onehot(4, high=0), "need both 0 and 1"),
        (lambda: spec.const("text"), "cannot be used as an array"),
        (lambda: spec.const([[1, 2], [3]]), "cannot be used as an array"),
        (lambda: spec.const(1 + 2j), "cannot be used as an array"),
    ],
)
def test_errors_are_one_clear_line(make, said):
    with pytest.raises(DomainError) as caught:
        make()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.hint.endswith(".")


def test_retyped_moves_ends_inward_again():
    half = spec.retyped(spec.real(3), "float16")
    assert (half.dtype, half.low, half.high) == ("float16", -1e4, 1e4)
    assert spec.retyped(spec.real(3), "bfloat16").high == 9984
    assert spec.retyped(spec.positive(3), "float16").low == 2.0**-24
    assert spec.retyped(spec.classes(3, 2), "float16").dtype == "int64"
    assert spec.retyped(spec.const([0.1]), "float16").value.dtype == np.float16
    with pytest.raises(DomainError, match="no value in float16"):
        spec.retyped(spec.real(3, low=1e5, high=1e6), "float16")


def test_of_array_takes_shape_and_dtype_and_is_assumed():
    domain = names.of_array(np.array([0.0, 1.0], np.float16), "y_true")
    assert (domain.kind, domain.shape, domain.dtype, domain.assumed, domain.grad) == ("binary", (2,), "float16", True, False)
    assert names.of_array(np.array([0.5, 3.0]), "x").kind == "real"


def test_public_names_are_these_constructors():
    assert all(getattr(whynan, name) is maker for name, maker in spec.CONSTRUCTORS.items())
