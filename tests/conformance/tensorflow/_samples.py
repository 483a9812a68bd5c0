"""Calls of every TensorFlow op that has a lowering, on values at which something happens."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from whynan.ir.dtype import Array, Format, from_ordinal, nearest, ordinal

raw = tf.raw_ops
LENGTH = 67  # longer than a vector of any width, and no multiple of one


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """Arrays for one sample in one format. `d()` draws anything at all, `d.tame()` moderate numbers."""

    rng: np.random.Generator
    format: Format

    def array(self, x: Any) -> Array:
        """Numbers rounded to the format."""
        return nearest(self.format, x).astype(self.format.numpy)

    def __call__(self, *shape: int) -> Array:
        """Special values, values around 1, moderate ones and any at all, mixed."""
        shape = shape or (LENGTH,)
        reach = int(ordinal(self.format, self.format.max))
        parts = [
            self.rng.choice(special_values(self.format), shape),
            self.rng.uniform(-2, 2, shape),
            self.rng.normal(size=shape) * 10.0 ** self.rng.uniform(-3, 3, shape),
            from_ordinal(self.format, self.rng.integers(-reach, reach, shape)),
        ]
        return self.array(np.choose(self.rng.integers(0, 4, shape), parts))

    def tame(self, *shape: int) -> Array:
        """Normally distributed numbers."""
        return self.array(self.rng.normal(size=shape or (LENGTH,)))

    def unit(self, *shape: int) -> Array:
        """Numbers from 0 to 1, the ends among them."""
        x = self.rng.uniform(size=shape or (LENGTH,))
        return self.array(np.where(self.rng.random(x.shape) < 0.2, np.round(x), x))

    def integers(self, low: int, high: int, *shape: int) -> Array:
        """int32 numbers from low to high, both included."""
        return self.rng.integers(low, high + 1, shape or (LENGTH,)).astype(np.int32)

    def mask(self, *shape: int) -> Array:
        """Booleans."""
        return self.rng.random(shape or (LENGTH,)) < 0.5


def special_values(fmt: Format) -> Array:
    """The values of a format at which something happens, both signs."""
    near_one = [1 - fmt.eps / 2, 1.0, 1 + fmt.eps, 0.5, 2.0, 3.0, 0.3, 7.7, 20.0, 88.8, 100.0]
    extreme = [fmt.smallest, 5 * fmt.smallest, fmt.tiny / 2, fmt.tiny, fmt.tiny * 2, fmt.max**0.5, fmt.max]
    positive = np.array([0.0, *near_one, *extreme, np.inf])
    return np.concatenate([positive, -positive, [np.nan]])


Sample = Callable[[Draw], Any]
SAMPLES: dict[str, list[Sample]] = {}


def sample(*types: str) -> Callable[[Sample], Sample]:
    """Register a call under the op types that it runs."""

    def register(function: Sample) -> Sample:
        for type in types:
            SAMPLES.setdefault(type, []).append(function)
        return function

    return register


def _each(types: str, *names: str) -> None:
    """Ops of one or more arrays by these argument names, in long arrays and in single elements."""

    def call(type: str, length: int) -> Sample:
        return lambda d: getattr(raw, type)(**{name: d(length) for name in names})

    for type in types.split():
        SAMPLES[type] = [call(type, LENGTH), call(type, LENGTH), *[call(type, 1)] * 24]


_each(
    """Neg Abs Sign Square Sqrt Floor Ceil Round Rint Reciprocal Inv Rsqrt Exp Expm1 Log Log1p Sigmoid Tanh Sin Cos Tan Sinh Cosh
    Asin Acos Atan Asinh Acosh Atanh Erf Erfc Lgamma Digamma Erfinv BesselI0 BesselI1 BesselI0e BesselI1e IsNan IsInf IsFinite
    ZerosLike OnesLike""",
    "x",
)
_each("Relu Relu6 LeakyRelu Elu Selu Softplus Softsign", "features")
_each(
    """Add AddV2 Sub Mul RealDiv Div FloorDiv FloorMod Mod Maximum Minimum DivNoNan MulNoNan Xdivy Xlogy Xlog1py SquaredDifference
    Pow Equal NotEqual Less LessEqual Greater GreaterEqual""",
    "x",
    "y",
)
_each("Atan2", "y", "x")
sample("Polygamma")(lambda d: raw.Polygamma(a=d.array(1.0), x=np.abs(d())))
_each("ReciprocalGrad InvGrad TanhGrad", "y", "dy")
_each("ReluGrad Relu6Grad LeakyReluGrad SoftplusGrad SoftsignGrad", "gradients", "features")
_each("EluGrad SeluGrad", "gradients", "outputs")
for _length in (LENGTH, 1):
    sample("SigmoidGrad")(lambda d, n=_length: raw.SigmoidGrad(y=d.unit(n), dy=d(n)))
    # the y of these is a root, and a cotangent next to the least normal number may be flushed before or after it is divided
    sample("SqrtGrad")(lambda d, n=_length: raw.SqrtGrad(y=np.abs(d(n)), dy=d.tame(n) * d.mask(n)))
    sample("RsqrtGrad")(lambda d, n=_length: raw.RsqrtGrad(y=np.abs(d(n)), dy=d(n)))


_each("ClipByValue", "t", "clip_value_min", "clip_value_max")
_each("Identity StopGradient PreventGradient Snapshot", "input")

# ---------------------------------------------------------------- logic, selection, casts

for _type in ("LogicalAnd", "LogicalOr"):
    sample(_type)(lambda d, t=_type: getattr(raw, t)(x=d.mask(), y=d.mask()))
sample("LogicalNot")(lambda d: raw.LogicalNot(x=d.mask()))
for _type in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
    sample(_type)(lambda d, t=_type: getattr(raw, t)(x=d.integers(-9, 9), y=d.integers(-9, 9)))
sample("Invert")(lambda d: raw.Invert(x=d.integers(-9, 9)))
sample("SelectV2")(lambda d: raw.SelectV2(condition=d.mask(5, 1), t=d(5, 7), e=d(7)))
sample("Select")(lambda d: raw.Select(condition=d.mask(5), x=d(5, 7), y=d(5, 7)))
sample("Select")(lambda d: raw.Select(condition=d.mask(5, 7), x=d(5, 7), y=d(5, 7)))
for _name in ("float16", "float32", "float64", "bfloat16", "bool"):
    sample("Cast")(lambda d, n=_name: raw.Cast(x=d(), DstT=tf.dtypes.as_dtype(n)))
sample("Cast")(lambda d: raw.Cast(x=d.tame() * 10, DstT=tf.int32))
sample("CheckNumerics")(lambda d: raw.CheckNumerics(tensor=d.tame(), message="x"))
sample("CheckNumericsV2")(lambda d: raw.CheckNumericsV2(tensor=d.tame(), message="x"))
sample("EnsureShape")(lambda d: raw.EnsureShape(input=d(3, 4), shape=[3, 4]))
sample("PlaceholderWithDefault")(lambda d: raw.PlaceholderWithDefault(input=d(3), shape=[3]))
sample("DeepCopy")(lambda d: raw.DeepCopy(x=d(3)))
sample("DebugIdentityV2")(lambda d: raw.DebugIdentityV2(input=d(3), tfdbg_context_id="", op_name="", output_slot=-1, tensor_debug_mode=-1))
sample("DebugIdentity")(lambda d: raw.DebugIdentity(input=d(3), tensor_name="x:0"))
sample("IdentityN")(lambda d: raw.IdentityN(input=[d(3), d(4)]))
sample("NoOp")(lambda d: raw.NoOp())
sample("Assert")(lambda d: raw.Assert(condition=True, data=["x"]))

# ---------------------------------------------------------------- arithmetic of several arrays, of integers

sample("AddN")(lambda d: raw.AddN(inputs=[d(9), d(9), d(9)]))
for _type in ("Add", "AddV2", "Sub", "Mul", "RealDiv", "Maximum", "SquaredDifference"):
    sample(_type)(lambda d, t=_type: getattr(raw, t)(x=d(5, 1), y=d(6)))
for _type in ("AddV2", "Sub", "Mul", "Maximum", "FloorDiv", "FloorMod", "Div", "TruncateDiv", "TruncateMod"):
    sample(_type)(lambda d, t=_type: getattr(raw, t)(x=d.integers(-9, 9), y=d.integers(1, 5)))
sample("Pow")(lambda d: raw.Pow(x=d.integers(-4, 4), y=d.integers(0, 3)))
sample("Equal")(lambda d: raw.Equal(x=d.integers(0, 3), y=d.integers(0, 3)))

# ---------------------------------------------------------------- reductions

for _type in ("Sum", "Mean", "Prod", "Max", "Min", "EuclideanNorm"):
    for _shape, _axis in (((6, 33), [1]), ((33, 6), [0]), ((3, 4, 5), [0, -1]), ((7,), [0]), ((3, 4), [])):
        sample(_type)(lambda d, t=_type, s=_shape, a=_axis: getattr(raw, t)(input=d(*s), axis=a))
        sample(_type)(lambda d, t=_type, s=_shape, a=_axis: getattr(raw, t)(input=d.tame(*s), axis=a, keep_dims=True))
for _type in ("Sum", "Mean", "Max"):
    sample(_type)(lambda d, t=_type: getattr(raw, t)(input=d.integers(-9, 9, 4, 5), axis=[1]))
for _type in ("All", "Any"):
    sample(_type)(lambda d, t=_type: getattr(raw, t)(input=d.mask(6, 3), axis=[1]))
for _type in ("ArgMax", "ArgMin"):
    sample(_type)(lambda d, t=_type: getattr(raw, t)(input=d.tame(6, 5), dimension=1))
    sample(_type)(lambda d, t=_type: getattr(raw, t)(input=np.round(d.tame(6, 5)), dimension=0, output_type=tf.int32))
sample("L2Loss")(lambda d: raw.L2Loss(t=d.tame(5, 6)))
sample("L2Loss")(lambda d: raw.L2Loss(t=d(5, 6)))
for _type in ("Cumsum", "Cumprod", "CumulativeLogsumexp"):
    for _exclusive in (False, True):
        for _reverse in (False, True):
            sample(_type)(lambda d, t=_type, e=_exclusive, r=_reverse: getattr(raw, t)(x=d.tame(4, 6), axis=1, exclusive=e, reverse=r))
    sample(_type)(lambda d, t=_type: getattr(raw, t)(x=d.tame(5, 6) * 10, axis=0))

# ---------------------------------------------------------------- softmax, cross entropy, order

for _type in ("Softmax", "LogSoftmax"):
    for _shape in ((5, 3), (4, 33), (3, 1)):
        sample(_type)(lambda d, t=_type, s=_shape: getattr(raw, t)(logits=d.tame(*s) * 10))
        sample(_type)(lambda d, t=_type, s=_shape: getattr(raw, t)(logits=finite(d(*s))))
for _scale in (1, 10, 1000):
    sample("SoftmaxCrossEntropyWithLogits")(
        lambda d, s=_scale: raw.SoftmaxCrossEntropyWithLogits(features=d.array(d.tame(6, 5) * s), labels=d.unit(6, 5))
    )
    sample("SparseSoftmaxCrossEntropyWithLogits")(
        lambda d, s=_scale: raw.SparseSoftmaxCrossEntropyWithLogits(features=d.array(d.tame(6, 5) * s), labels=d.integers(0, 4, 6))
    )
sample("SoftmaxCrossEntropyWithLogits")(lambda d: raw.SoftmaxCrossEntropyWithLogits(features=masked(d, 6, 5), labels=d.unit(6, 5)))
sample("SoftmaxCrossEntropyWithLogits")(lambda d: raw.SoftmaxCrossEntropyWithLogits(features=d.tame(6, 5), labels=d.unit(1, 5)))
sample("SparseSoftmaxCrossEntropyWithLogits")(
    lambda d: raw.SparseSoftmaxCrossEntropyWithLogits(features=masked(d, 6, 5), labels=d.integers(0, 4, 6))
)
sample("TopKV2")(lambda d: raw.TopKV2(input=d.tame(4, 7), k=3))
sample("NthElement")(lambda d: raw.NthElement(input=d.tame(4, 7), n=2))
sample("NthElement")(lambda d: raw.NthElement(input=d.tame(4, 7), n=2, reverse=True))


def finite(x: Array) -> Array:
    """The array with ones for NaN and infinities."""
    return np.where(np.isfinite(x.astype(np.float64)), x, np.ones((), x.dtype))


def masked(d: Draw, *shape: int) -> Array:
    """Logits some of which are -inf."""
    return np.where(d.mask(*shape), d.tame(*shape), d.array(-np.inf))


# ---------------------------------------------------------------- constants and random numbers

sample("Shape")(lambda d: raw.Shape(input=d(3, 4)))
sample("ShapeN")(lambda d: raw.ShapeN(input=[d(3, 4), d(5)]))
sample("Size")(lambda d: raw.Size(input=d(3, 4)))
sample("Rank")(lambda d: raw.Rank(input=d(3, 4)))
sample("BroadcastGradientArgs")(lambda d: raw.BroadcastGradientArgs(s0=[3, 1], s1=[4]))
sample("BroadcastArgs")(lambda d: raw.BroadcastArgs(s0=[3, 1], s1=[4]))
sample("ConcatOffset")(lambda d: raw.ConcatOffset(concat_dim=0, shape=[[2, 3], [4, 3]]))
sample("Range")(lambda d: raw.Range(start=0, limit=9, delta=2))
sample("LinSpace")(lambda d: raw.LinSpace(start=0.0, stop=9.0, num=4))
sample("Fill")(lambda d: raw.Fill(dims=[3, 4], value=d(1)[0]))
sample("Empty")(lambda d: raw.Empty(shape=[3, 4], dtype=tf.float32, init=True))
for _type in ("RandomUniform", "RandomStandardNormal", "TruncatedNormal"):
    sample(_type)(lambda d, t=_type: getattr(raw, t)(shape=[500], dtype=tf.float32, seed=1))
for _type in ("StatelessRandomUniform", "StatelessRandomNormal", "StatelessTruncatedNormal"):
    sample(_type)(lambda d, t=_type: getattr(raw, t)(shape=[500], seed=[1, 2]))
    sample(f"{_type}V2", "StatelessRandomGetKeyCounter", "StatelessRandomGetAlg")(
        lambda d, t=_type: getattr(raw, f"{t}V2")(shape=[500], **_key())
    )
sample("RandomUniformInt")(lambda d: raw.RandomUniformInt(shape=[50], minval=2, maxval=5))
sample("StatelessRandomUniformInt")(lambda d: raw.StatelessRandomUniformInt(shape=[50], seed=[1, 2], minval=2, maxval=5))
sample("StatelessRandomUniformIntV2")(lambda d: raw.StatelessRandomUniformIntV2(shape=[50], minval=2, maxval=5, **_key()))
sample("StatelessRandomUniformFullInt")(lambda d: raw.StatelessRandomUniformFullInt(shape=[50], seed=[1, 2], dtype=tf.int32))
sample("StatelessRandomUniformFullIntV2")(lambda d: raw.StatelessRandomUniformFullIntV2(shape=[50], dtype=tf.int32, **_key()))
sample("StatelessRandomGetKeyCounterAlg")(lambda d: raw.StatelessRandomGetKeyCounterAlg(seed=[1, 2]))
sample("RandomShuffle")(lambda d: raw.RandomShuffle(value=d.tame(5, 2)))
sample("Multinomial")(lambda d: raw.Multinomial(logits=d.tame(3, 4), num_samples=9))
sample("StatelessMultinomial")(lambda d: raw.StatelessMultinomial(logits=d.tame(3, 4), num_samples=9, seed=[1, 2]))


def _key() -> dict[str, Any]:
    key = raw.StatelessRandomGetKeyCounter(seed=[1, 2])
    return {"key": key.key, "counter": key.counter, "alg": raw.StatelessRandomGetAlg()}


# ---------------------------------------------------------------- shapes

sample("Reshape")(lambda d: raw.Reshape(tensor=d(3, 4), shape=[2, -1]))
sample("ExpandDims")(lambda d: raw.ExpandDims(input=d(3, 4), axis=1))
sample("BroadcastTo")(lambda d: raw.BroadcastTo(input=d(3, 1), shape=[2, 3, 4]))
sample("Squeeze")(lambda d: raw.Squeeze(input=d(3, 1, 4), axis=[1]))
sample("Bitcast")(lambda d: raw.Bitcast(input=d(3), type=tf.dtypes.as_dtype(d.format.name)))
sample("Transpose")(lambda d: raw.Transpose(x=d(2, 3, 4), perm=[2, 0, 1]))
sample("ConjugateTranspose")(lambda d: raw.ConjugateTranspose(x=d(2, 3, 4), perm=[2, 0, 1]))
sample("InvertPermutation")(lambda d: raw.InvertPermutation(x=[2, 0, 1]))
sample("ConcatV2")(lambda d: raw.ConcatV2(values=[d(2, 3), d(2, 4)], axis=1))
sample("Concat")(lambda d: raw.Concat(values=[d(2, 3), d(2, 4)], concat_dim=1))
sample("Pack")(lambda d: raw.Pack(values=[d(2, 3), d(2, 3)], axis=1))
sample("Unpack")(lambda d: raw.Unpack(value=d(2, 3), num=3, axis=1))
sample("Split")(lambda d: raw.Split(value=d(2, 6), axis=1, num_split=3))
sample("SplitV")(lambda d: raw.SplitV(value=d(2, 6), axis=1, size_splits=[1, 5], num_split=2))
sample("Slice")(lambda d: raw.Slice(input=d(4, 6), begin=[1, 0], size=[2, -1]))
INDICES = (
    np.s_[1:, ::2],
    np.s_[..., 1],
    np.s_[::-1, tf.newaxis, 2],
    np.s_[-1],
    np.s_[3:0:-2, 1:4],
    np.s_[:2, ..., tf.newaxis],
    np.s_[2:2],
    np.s_[-100:100],
)
for _index in INDICES:
    sample("StridedSlice")(lambda d, i=_index: tf.constant(d(4, 6))[i])
    sample("StridedSliceGrad")(lambda d, i=_index: gradient(lambda x: x[i], d(4, 6)))
sample("Tile")(lambda d: raw.Tile(input=d(2, 3), multiples=[2, 3]))
sample("ReverseV2")(lambda d: raw.ReverseV2(tensor=d(2, 3), axis=[-1]))
sample("Roll")(lambda d: raw.Roll(input=d(4, 3), shift=[1, -1], axis=[0, 1]))
sample("Pad")(lambda d: raw.Pad(input=d(2, 3), paddings=[[1, 0], [2, 1]]))
sample("PadV2")(lambda d: raw.PadV2(input=d(2, 3), paddings=[[1, 0], [2, 1]], constant_values=d.array(7.0)))
for _mode in ("REFLECT", "SYMMETRIC"):
    sample("MirrorPad")(lambda d, m=_mode: raw.MirrorPad(input=d(3, 4), paddings=[[1, 0], [2, 2]], mode=m))
for _mode in ("REFLECT", "SYMMETRIC"):
    sample("MirrorPadGrad")(lambda d, m=_mode: _through(lambda x: raw.MirrorPad(input=x, paddings=[[1, 0], [2, 2]], mode=m), d.tame(3, 4)))
sample("SpaceToDepth")(lambda d: raw.SpaceToDepth(input=d(1, 4, 6, 2), block_size=2))
sample("DepthToSpace")(lambda d: raw.DepthToSpace(input=d(1, 2, 3, 8), block_size=2))
sample("SpaceToBatchND")(lambda d: raw.SpaceToBatchND(input=d(1, 4, 5, 2), block_shape=[2, 3], paddings=[[0, 0], [0, 1]]))
sample("BatchToSpaceND")(lambda d: raw.BatchToSpaceND(input=d(6, 2, 2, 2), block_shape=[2, 3], crops=[[0, 1], [1, 0]]))
sample("MatrixDiag")(lambda d: raw.MatrixDiag(diagonal=d(2, 3)))
sample("MatrixDiagPart")(lambda d: raw.MatrixDiagPart(input=d(2, 3, 4)))
sample("MatrixSetDiag")(lambda d: raw.MatrixSetDiag(input=d(2, 3, 4), diagonal=d(2, 3)))
for _version in ("V2", "V3"):
    for _offset in (0, 1, -1):
        sample(f"MatrixDiagPart{_version}")(
            lambda d, v=_version, k=_offset: getattr(raw, f"MatrixDiagPart{v}")(input=d(2, 4, 4), k=k, padding_value=d.array(0.0))
        )
        sample(f"MatrixDiag{_version}")(
            lambda d, v=_version, k=_offset: getattr(raw, f"MatrixDiag{v}")(
                diagonal=d(2, 3), k=k, num_rows=-1, num_cols=-1, padding_value=d.array(5.0)
            )
        )
        sample(f"MatrixSetDiag{_version}")(
            lambda d, v=_version, k=_offset: getattr(raw, f"MatrixSetDiag{v}")(input=d(2, 4, 4), diagonal=d(2, 4 - abs(k)), k=k)
        )
sample("Diag")(lambda d: raw.Diag(diagonal=d(2, 3)))
sample("DiagPart")(lambda d: raw.DiagPart(input=d(2, 3, 2, 3)))
sample("MatrixBandPart")(lambda d: raw.MatrixBandPart(input=finite(d(3, 4)), num_lower=1, num_upper=-1))


def gradient(function: Callable[[Any], Any], x: Array) -> Any:
    """The gradient of a function of one tensor, under a cotangent of ones."""
    value = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(value)
        result = function(value)
    return tape.gradient(result, value)


# ---------------------------------------------------------------- indexing

sample("OneHot")(lambda d: raw.OneHot(indices=d.integers(-1, 4, 3, 2), depth=4, on_value=d.array(1.0), off_value=d.array(0.0)))
sample("OneHot")(lambda d: raw.OneHot(indices=d.integers(0, 3, 3, 2), depth=4, on_value=d.array(1.0), off_value=d.array(0.0), axis=1))
for _axis in (0, 1, -1):
    sample("GatherV2")(lambda d, a=_axis: raw.GatherV2(params=d(3, 4, 5), indices=d.integers(0, 2, 2, 2), axis=a))
for _axis, _batch in ((1, 1), (2, 1), (2, 2), (-1, 1)):
    sample("GatherV2")(
        lambda d, a=_axis, b=_batch: raw.GatherV2(params=d(3, 4, 5), indices=d.integers(0, 2, *(3, 4)[:b], 2), axis=a, batch_dims=b)
    )
sample("Gather")(lambda d: raw.Gather(params=d(3, 4), indices=d.integers(0, 2, 5)))
sample("GatherNd")(lambda d: raw.GatherNd(params=d(3, 4, 5), indices=d.integers(0, 2, 6, 2)))
sample("GatherNd")(lambda d: raw.GatherNd(params=d(3, 4), indices=d.integers(0, 2, 6, 2, 2)))
sample("ScatterNd")(lambda d: raw.ScatterNd(indices=d.integers(0, 2, 5, 1), updates=d.tame(5, 4), shape=[3, 4]))
for _type in ("TensorScatterAdd", "TensorScatterSub"):
    sample(_type)(lambda d, t=_type: getattr(raw, t)(tensor=d.tame(3, 4), indices=d.integers(0, 2, 5, 2), updates=d.tame(5)))
sample("TensorScatterUpdate")(lambda d: raw.TensorScatterUpdate(tensor=d(4, 3), indices=[[0], [2]], updates=d(2, 3)))
sample("ScatterNdNonAliasingAdd")(
    lambda d: raw.ScatterNdNonAliasingAdd(input=d.tame(3, 4), indices=d.integers(0, 2, 5, 1), updates=d.tame(5, 4))
)
for _type in ("TensorScatterMax", "TensorScatterMin"):
    for _depth in (1, 2):
        sample(_type)(
            lambda d, t=_type, n=_depth: getattr(raw, t)(
                tensor=d.tame(3, 4, 2), indices=d.integers(0, 2, 5, n), updates=d.tame(5, *(4, 2)[n - 1 :])
            )
        )
sample("DynamicPartition")(lambda d: raw.DynamicPartition(data=d(5, 2), partitions=[0, 2, 0, 1, 2], num_partitions=3))
for _type in ("DynamicStitch", "ParallelDynamicStitch"):
    sample(_type)(lambda d, t=_type: getattr(raw, t)(indices=[[0, 2], [1, 3, 4]], data=[d(2, 3), d(3, 3)]))
for _type in ("Sum", "Prod", "Max", "Min"):
    sample(f"UnsortedSegment{_type}")(
        lambda d, t=_type: getattr(raw, f"UnsortedSegment{t}")(data=d.tame(6, 2), segment_ids=d.integers(-1, 3, 6), num_segments=5)
    )
    sample(f"Segment{_type}")(lambda d, t=_type: getattr(raw, f"Segment{t}")(data=d.tame(5, 2), segment_ids=[0, 0, 1, 3, 3]))
sample("SegmentMean")(lambda d: raw.SegmentMean(data=d.tame(5, 2), segment_ids=[0, 0, 1, 3, 3]))
sample("Bincount")(lambda d: raw.Bincount(arr=d.integers(0, 4, 9), size=5, weights=d.tame(9)))
sample("DenseBincount")(lambda d: raw.DenseBincount(input=d.integers(0, 4, 9), size=5, weights=d.tame(9)))
sample("DenseBincount")(
    lambda d: raw.DenseBincount(input=d.integers(0, 4, 3, 9), size=5, weights=np.zeros(0, np.float32), binary_output=True)
)
sample("Where")(lambda d: raw.Where(condition=d.mask(4, 5)))
sample("Where")(lambda d: raw.Where(condition=np.round(d.tame(9))))
sample("ReverseSequence")(lambda d: raw.ReverseSequence(input=d(3, 5, 2), seq_lengths=[2, 5, 1], seq_dim=1, batch_dim=0))
sample("ReverseSequence")(lambda d: raw.ReverseSequence(input=d(5, 3), seq_lengths=[2, 5, 1], seq_dim=0, batch_dim=1))

# ---------------------------------------------------------------- linear algebra

for _a in (False, True):
    for _b in (False, True):
        sample("MatMul")(
            lambda d, a=_a, b=_b: raw.MatMul(
                a=d.tame(*((5, 4) if a else (4, 5))), b=d.tame(*((3, 5) if b else (5, 3))), transpose_a=a, transpose_b=b
            )
        )
        for _type in ("BatchMatMul", "BatchMatMulV2"):
            sample(_type)(
                lambda d, t=_type, a=_a, b=_b: getattr(raw, t)(
                    x=d.tame(*((2, 5, 4) if a else (2, 4, 5))), y=d.tame(*((2, 3, 5) if b else (2, 5, 3))), adj_x=a, adj_y=b
                )
            )
sample("BatchMatMulV2")(lambda d: raw.BatchMatMulV2(x=d.tame(2, 4, 5), y=d.tame(5, 3)))
sample("BatchMatMulV3")(lambda d: raw.BatchMatMulV3(x=d.tame(2, 4, 5), y=d.tame(5, 3), Tout=tf.dtypes.as_dtype(d.format.name)))
for _equation, _shapes in (
    ("ij,jk->ik", ((3, 4), (4, 5))),
    ("bij,bjk->bik", ((2, 3, 4), (2, 4, 5))),
    ("i,j->ij", ((3,), (4,))),
    ("bhqd,bhkd->bhqk", ((2, 2, 3, 4), (2, 2, 5, 4))),
    ("...i,ij->...j", ((2, 3, 4), (4, 5))),
    ("ij,ij->", ((3, 4), (3, 4))),
    ("ij,k->kj", ((3, 4), (5,))),
    ("ij->ji", ((3, 4),)),
    ("ij->i", ((3, 4),)),
):
    sample("Einsum")(
        lambda d, e=_equation, s=_shapes: (
            raw.Einsum(inputs=[d.tame(*n) for n in s], equation=e) if "..." not in e or d.format.name != "float16" else None
        )
    )
sample("Cross")(lambda d: raw.Cross(a=d.tame(4, 3), b=d.tame(4, 3)))
sample("BiasAdd")(lambda d: raw.BiasAdd(value=d(2, 3, 4), bias=d(4)))
sample("BiasAdd")(lambda d: raw.BiasAdd(value=d(2, 3, 4, 5), bias=d(3), data_format="NCHW"))
sample("BiasAddV1")(lambda d: raw.BiasAddV1(value=d(2, 3, 4), bias=d(4)))
sample("BiasAddGrad")(lambda d: raw.BiasAddGrad(out_backprop=d.tame(2, 3, 4)))
sample("BiasAddGrad")(lambda d: raw.BiasAddGrad(out_backprop=d.tame(2, 3, 4, 5), data_format="NCHW"))


def symmetric(d: Draw) -> Array:
    """Positive definite matrices with a condition number of some tens."""
    x = d.tame(2, 3, 3).astype(np.float64)
    return d.array(x @ np.swapaxes(x, -1, -2) + np.eye(3))


sample("MatrixInverse")(lambda d: raw.MatrixInverse(input=symmetric(d)))
sample("MatrixDeterminant")(lambda d: raw.MatrixDeterminant(input=symmetric(d)))
sample("LogMatrixDeterminant")(lambda d: raw.LogMatrixDeterminant(input=symmetric(d)))
sample("Cholesky")(lambda d: raw.Cholesky(input=symmetric(d)))
for _adjoint in (False, True):
    sample("MatrixSolve")(lambda d, a=_adjoint: raw.MatrixSolve(matrix=symmetric(d), rhs=d.tame(2, 3, 2), adjoint=a))
    for _lower in (False, True):
        sample("MatrixTriangularSolve")(
            lambda d, a=_adjoint, n=_lower: raw.MatrixTriangularSolve(matrix=symmetric(d), rhs=d.tame(2, 3, 2), lower=n, adjoint=a)
        )
sample("SelfAdjointEigV2")(lambda d: raw.SelfAdjointEigV2(input=symmetric(d), compute_v=False))
sample("Svd")(lambda d: raw.Svd(input=symmetric(d), compute_uv=False))

# ---------------------------------------------------------------- windows

CONVOLUTIONS = (
    {"strides": [1, 2, 2, 1], "padding": "SAME"},
    {"strides": [1, 1, 1, 1], "padding": "VALID"},
    {"strides": [1, 1, 1, 1], "padding": "SAME", "dilations": [1, 2, 2, 1]},
    {"strides": [1, 1, 1, 1], "padding": "EXPLICIT", "explicit_paddings": [0, 0, 1, 0, 2, 1, 0, 0]},
)


def _through(function: Callable[..., Any], *arrays: Array) -> Any:
    """The gradients of a function by all its arguments, under a cotangent that is not uniform."""
    values = [tf.constant(x) for x in arrays]
    with tf.GradientTape() as tape:
        tape.watch(values)
        result = function(*values)
    return tape.gradient(result, values, tf.reshape(tf.cast(tf.range(tf.size(result)), result.dtype), tf.shape(result)) / 10 - 1)


for _attrs in CONVOLUTIONS:
    sample("Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter")(
        lambda d, a=_attrs: _through(lambda x, w: raw.Conv2D(input=x, filter=w, **a), d.tame(2, 6, 5, 2), d.tame(3, 2, 2, 3))
    )
    if _attrs["padding"] != "EXPLICIT":
        _flat = {**_attrs, "strides": [1, _attrs["strides"][1], _attrs["strides"][1], 1]}
        sample("DepthwiseConv2dNative", "DepthwiseConv2dNativeBackpropInput", "DepthwiseConv2dNativeBackpropFilter")(
            lambda d, a=_flat: _through(
                lambda x, w: raw.DepthwiseConv2dNative(input=x, filter=w, strides=a["strides"], padding=a["padding"]),
                d.tame(2, 6, 5, 2),
                d.tame(3, 2, 2, 3),
            )
        )
sample("Conv3D", "Conv3DBackpropInputV2", "Conv3DBackpropFilterV2")(
    lambda d: _through(
        lambda x, w: raw.Conv3D(input=x, filter=w, strides=[1, 1, 2, 1, 1], padding="SAME"), d.tame(1, 3, 4, 5, 2), d.tame(2, 2, 3, 2, 2)
    )
)
for _padding in ("SAME", "VALID"):
    for _kind, _input in (("Max", "orig_input"), ("Avg", "")):
        sample(f"{_kind}Pool", f"{_kind}PoolGrad")(
            lambda d, k=_kind, p=_padding: _through(
                lambda x: (tf.nn.max_pool2d if k == "Max" else tf.nn.avg_pool2d)(x, [3, 2], [2, 1], p), d.tame(2, 6, 5, 3)
            )
        )
        sample(f"{_kind}Pool3D", f"{_kind}Pool3DGrad")(
            lambda d, k=_kind, p=_padding: _through(
                lambda x: (tf.nn.max_pool3d if k == "Max" else tf.nn.avg_pool3d)(x, [2, 3, 2], [2, 2, 1], p), d.tame(1, 4, 5, 4, 2)
            )
        )

# ---------------------------------------------------------------- normalisation and what Grappler fuses

for _training in (True, False):
    for _suffix in ("", "V2", "V3"):
        sample(f"FusedBatchNorm{_suffix}", f"FusedBatchNormGrad{_suffix}")(
            lambda d, t=_training, v=_suffix: _through(
                lambda x, s, o: (
                    getattr(raw, f"FusedBatchNorm{v}")(
                        x=x,
                        scale=s,
                        offset=o,
                        mean=np.zeros(0 if t else 3, np.float32),
                        variance=np.ones(0 if t else 3, np.float32),
                        is_training=t,
                    ).y
                ),
                d.tame(2, 4, 3, 3),
                d.tame(3).astype(np.float32),
                d.tame(3).astype(np.float32),
            )
        )


def _execute(type: str, inputs: list[Any], *attrs: Any, results: int = 1) -> Any:
    """An op that has no function of its own in Python."""
    from tensorflow.python.eager import context, execute

    return execute.execute_with_callbacks(type.encode(), results, [tf.constant(x) for x in inputs], attrs, context.context(), name=None)


for _ops in (["BiasAdd"], ["BiasAdd", "Relu"], ["BiasAdd", "Tanh"], ["BiasAdd", "Sigmoid"], ["BiasAdd", "Elu"], ["BiasAdd", "LeakyRelu"]):
    sample("_FusedMatMul")(
        lambda d, o=_ops: _execute(
            "_FusedMatMul",
            [d.tame(3, 4), d.tame(4, 5), d.tame(5)],
            *("T", tf.dtypes.as_dtype(d.format.name).as_datatype_enum, "num_args", 1, "fused_ops", [n.encode() for n in o]),
        )
    )
for _ops in (["BiasAdd"], ["BiasAdd", "Relu"], ["BiasAdd", "Relu6"], ["BiasAdd", "Elu"], ["BiasAdd", "LeakyRelu"]):
    sample("_FusedConv2D")(
        lambda d, o=_ops: _execute(
            "_FusedConv2D",
            [d.tame(1, 4, 5, 2), d.tame(3, 2, 2, 3), d.tame(3)],
            *("T", tf.dtypes.as_dtype(d.format.name).as_datatype_enum, "num_args", 1, "num_host_args", 0),
            *("TArgs", [tf.dtypes.as_dtype(d.format.name).as_datatype_enum], "strides", [1, 1, 1, 1], "padding", b"SAME"),
            *("fused_ops", [n.encode() for n in o]),
        )
    )
sample("_FusedBatchNormEx")(  # on a CPU the kernel exists for this form only
    lambda d: _execute(
        "_FusedBatchNormEx",
        [d.tame(2, 4, 3, 4), *(d.unit(4).astype(np.float32) for _ in range(4))],
        *("T", tf.dtypes.as_dtype(d.format.name).as_datatype_enum, "U", tf.float32.as_datatype_enum, "epsilon", 0.001),
        *("exponential_avg_factor", 1.0, "num_side_inputs", 0, "activation_mode", b"Relu", "data_format", b"NHWC"),
        *("is_training", False),
        results=6,
    )
)
sample("_UnaryOpsComposition")(
    lambda d: _execute(
        "_UnaryOpsComposition",
        [d.unit(20)],
        *("T", tf.dtypes.as_dtype(d.format.name).as_datatype_enum, "op_names", [b"Neg", b"Exp", b"Log1p"]),
    )
)
