"""Every TensorFlow op that has a lowering against the kernel that really runs: its values and its bounds."""

import zlib
from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from tests.conformance.tensorflow._recorded import (  # noqa: E402
    Ran,
    evaluated,
    format_of_array,
    known,
    outside,
    ran,
    random,
    subnormal,
    ulps,
)
from tests.conformance.tensorflow._samples import SAMPLES, Draw  # noqa: E402

from whynan.frontends.tensorflow.lower import SPELLINGS, STRUCTURAL  # noqa: E402
from whynan.ir.dtype import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, Format, flushed  # noqa: E402

FORMATS = (FLOAT32, *(pytest.param(f, marks=pytest.mark.slow) for f in (FLOAT64, FLOAT16, BFLOAT16)))

# Lowerings that cannot be called here: ops of graphs and loops, of resources, of Grappler's own.
WITHOUT_SAMPLE = {
    *("AccumulateNV2", "Const", "ControlTrigger", "Enter", "Exit", "NextIteration", "OptimizationBarrier", "_EagerConst"),
    *("ReadVariableOp", "ResourceGather", "_FusedDepthwiseConv2dNative"),
}

# Sums of terms that may cancel: errors are measured against the largest result.
SUMS = {
    *("Sum", "Mean", "Prod", "EuclideanNorm", "Cumsum", "Cumprod", "CumulativeLogsumexp", "Softmax", "LogSoftmax"),
    *("SoftmaxCrossEntropyWithLogits", "SparseSoftmaxCrossEntropyWithLogits", "L2Loss", "MatMul", "BatchMatMul", "BatchMatMulV2"),
    *("BatchMatMulV3", "Einsum", "BiasAddGrad", "Cholesky", "MatrixSolve", "MatrixTriangularSolve", "MatrixInverse", "SelfAdjointEigV2"),
    *("Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter", "Conv3D", "Conv3DBackpropInputV2", "Conv3DBackpropFilterV2", "Svd"),
    *("DepthwiseConv2dNative", "DepthwiseConv2dNativeBackpropInput", "DepthwiseConv2dNativeBackpropFilter", "AvgPool", "AvgPool3D"),
    *("AvgPoolGrad", "AvgPool3DGrad", "MaxPoolGrad", "MaxPool3DGrad", "_FusedMatMul", "_FusedConv2D"),
    *(
        "_FusedBatchNormEx",
        "FusedBatchNorm",
        "FusedBatchNormV2",
        "FusedBatchNormV3",
        "FusedBatchNormGrad",
        "FusedBatchNormGradV2",
        "FusedBatchNormGradV3",
    ),
    *("LogMatrixDeterminant", "_FusedBatchNormEx"),
}

# Differences of numbers near 1, and functions with a root away from zero: errors are measured against 1 or a larger result.
NEAR_ONE = {"Elu", "Selu", "Digamma", "Lgamma"}

# Ulps by which a kernel may differ from NumPy where 4 (16 for sums, 64 in half precision, which some kernels accumulate) are too few.
TOLERANCES = {
    "Erfc": 600.0,  # exp(-x * x) far out, where x * x was rounded
    "Pow": 1024.0,  # the vectorised float64 kernel
    "Reciprocal": 8192.0,  # float32 beyond 1e31: an approximation that is not refined
    "Inv": 8192.0,
    "Tanh": 8.0,
    "Sigmoid": 8.0,
    "Softplus": 8.0,
    "Erf": 8.0,
    "Erfinv": 32.0,
    "Digamma": 16.0,
    "Polygamma": 64.0,
    **dict.fromkeys(("BesselI0", "BesselI1", "BesselI0e", "BesselI1e"), 16.0),
    **dict.fromkeys(("MatrixSolve", "MatrixInverse", "Cholesky", "MatrixTriangularSolve", "SelfAdjointEigV2", "Svd"), 64.0),
    **dict.fromkeys(("FusedBatchNormGrad", "FusedBatchNormGradV2", "FusedBatchNormGradV3"), 32.0),
}


def calls(type: str, fmt: Format) -> list[Ran]:
    """The op as it ran in its samples; none where it has no kernel for the format."""
    rng = np.random.default_rng(zlib.crc32(type.encode()))
    found: list[Ran] = []
    for sample in SAMPLES[type]:
        try:
            found += [op for op in ran(lambda sample=sample: sample(Draw(rng, flushed(fmt)))) if op.type == type]
        except (tf.errors.OpError, TypeError, ValueError) as error:
            if fmt is FLOAT32:
                raise
            pytest.skip(f"no kernel: {str(error).splitlines()[0][-80:]}")
    assert found, f"the samples of {type} do not run it"
    return found


def distances(op: Ran) -> list[Any]:
    """For each result the ulps between the kernel's values and those of the lowering, evaluated with NumPy."""
    found = []
    for result, got in zip(op.results, evaluated(op), strict=True):
        if result is None or got is None or not result.size:
            continue
        fmt = format_of_array(result)
        if (op.type == "Prod" or (op.type in SUMS and fmt.numpy.itemsize == 2)) and any(_wild(x) for x in op.inputs):
            continue  # partial results overflow or not, as the order has it
        distance = ulps(fmt, got, result, together=op.type in SUMS, least=op.type in NEAR_ONE)
        found.append(np.where(subnormal(op, result.shape), 0.0, distance))
    return found


def _wild(x: Any) -> bool:
    return x is not None and bool((~(np.abs(x.astype(np.float64)) < 1e3)).any())


def tolerance(op: Ran) -> float:
    """The ulps that are accepted."""
    half = any(r is not None and r.dtype.itemsize == 2 for r in op.results)
    return max(TOLERANCES.get(op.type, 4.0), (64.0 if half else 16.0) * (op.type in SUMS))


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("type", sorted(SAMPLES))
def test_results_lie_within_bounds(type: str, fmt: Format) -> None:
    for op in calls(type, fmt):
        for together in (False, True):
            bad = outside(op, together)
            assert not bad, (op.attrs, together, bad[:4])


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("type", sorted(SAMPLES))
def test_values_agree(type: str, fmt: Format) -> None:
    for op in calls(type, fmt):
        assert known(op), op.attrs
        if random(op):
            continue
        for distance in distances(op):
            assert distance.max() <= tolerance(op), (op.attrs, distance.max(), [x for x in op.inputs if x is not None], op.results)


# Functions that kernels approximate, with the ranges in which they vary.
RANGES = {
    **dict.fromkeys(("Exp", "Expm1", "Sinh", "Cosh"), ((-87.0, 88.0), (-2.0, 2.0))),
    **dict.fromkeys(("Log", "Rsqrt", "Sqrt", "Reciprocal"), ((0.0, 2.0), (0.9, 1.1), (0.0, 1e30))),
    "Log1p": ((-1.0, 1.0), (-0.01, 0.01), (0.0, 1e30)),
    **dict.fromkeys(("Sigmoid", "Tanh"), ((-90.0, 20.0), (-5.0, 5.0), (-0.1, 0.1))),
    "Softplus": ((-80.0, 20.0), (-40.0, -10.0)),
    **dict.fromkeys(("Erf", "Erfc"), ((-6.0, 9.2), (-0.1, 0.1))),
    "Lgamma": ((0.0, 4.0), (-5.0, 1000.0)),
    "Digamma": ((0.0, 4.0), (-5.0, 1000.0)),
    **dict.fromkeys(("Sin", "Cos", "Tan"), ((-10.0, 10.0), (-1e6, 1e6))),
    **dict.fromkeys(("Asin", "Acos", "Atanh", "Erfinv"), ((-1.0, 1.0),)),
    **dict.fromkeys(("Atan", "Asinh", "Elu", "Selu"), ((-5.0, 5.0),)),
    "Acosh": ((1.0, 5.0),),
}
DENSE = 20_000


@pytest.mark.slow
@pytest.mark.parametrize("fmt", [FLOAT32, FLOAT64], ids=str)
@pytest.mark.parametrize("type", RANGES)
def test_dense_values_lie_within_bounds(type: str, fmt: Format) -> None:
    """How far vectorised kernels err, which a few values would not show."""
    rng = np.random.default_rng(4)
    for low, high in RANGES[type]:
        x = rng.uniform(low, high, DENSE).astype(fmt.numpy)
        bad = outside(_unary(type, x), False)
        assert not bad, (low, high, len(bad), bad[:3])


@pytest.mark.slow
@pytest.mark.parametrize("fmt", [FLOAT16, BFLOAT16], ids=str)
@pytest.mark.parametrize("type", RANGES)
def test_all_halves_lie_within_bounds(type: str, fmt: Format) -> None:
    """Every number that a half format has."""
    x = np.arange(1 << 16, dtype=np.uint16).view(fmt.numpy)
    try:
        op = _unary(type, x)
    except tf.errors.OpError as error:
        pytest.skip(f"no kernel: {str(error).splitlines()[0][-80:]}")
    bad = outside(op, False)
    assert not bad, (len(bad), bad[:3])


def _unary(type: str, x: Any) -> Ran:
    name = "features" if type in ("Softplus", "Elu", "Selu") else "x"
    (op,) = ran(lambda: getattr(tf.raw_ops, type)(**{name: x}))
    return op


def test_every_lowering_has_a_sample() -> None:
    assert set(SPELLINGS) - set(SAMPLES) == WITHOUT_SAMPLE
    assert set(SAMPLES) <= set(SPELLINGS)


def test_structural_inputs_are_those_of_lowerings() -> None:
    assert set(STRUCTURAL) <= set(SPELLINGS)


def test_the_comparison_can_fail() -> None:
    """Results of another op are found out, by their values and by their bounds."""
    (op,) = ran(lambda: tf.raw_ops.Exp(x=np.linspace(0.1, 1, 67, dtype=np.float32)))
    wrong = Ran("Expm1", op.inputs, op.attrs, op.results)
    assert outside(wrong, False)
    assert outside(wrong, True)
    assert max(d.max() for d in distances(wrong)) > 1000
