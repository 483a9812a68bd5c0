"""Comparisons, logic, selection, casts, and ops that hand a value on."""

from whynan.frontends.kit import Value, where
from whynan.frontends.tensorflow.lower._kernel import Kernel, kernel, unary

for _type, _op in (
    ("Equal", "eq"),
    ("NotEqual", "ne"),
    ("Less", "lt"),
    ("LessEqual", "le"),
    ("Greater", "gt"),
    ("GreaterEqual", "ge"),
    ("LogicalAnd", "logical_and"),
    ("LogicalOr", "logical_or"),
    ("LogicalNot", "logical_not"),
    ("IsNan", "isnan"),
    ("IsInf", "isinf"),
    ("IsFinite", "isfinite"),
    ("BitwiseAnd", "bitwise_and"),
    ("BitwiseOr", "bitwise_or"),
    ("BitwiseXor", "bitwise_xor"),
    ("Invert", "bitwise_not"),
):
    unary(_op, _type)


@kernel("SelectV2")
def _select(k: Kernel) -> Value:
    return where(k[0], k[1], k[2])


@kernel("Select")
def _select_rows(k: Kernel) -> Value:
    """The condition has the operands' shape, or one number per row, or none."""
    condition = k[0]
    if condition.ndim == 1 and k[1].ndim > 1:
        condition = condition.reshape(condition.size, *(1,) * (k[1].ndim - 1))
    return where(condition, k[1], k[2])


@kernel("Cast")
def _cast(k: Kernel) -> Value:
    return k[0].cast(k.format)


@kernel(
    "Identity",
    "StopGradient",
    "PreventGradient",
    "Snapshot",
    "CheckNumerics",
    "CheckNumericsV2",
    "EnsureShape",
    "PlaceholderWithDefault",
    "DebugIdentityV2",
    "DebugIdentity",
    "Enter",
    "Exit",
    "NextIteration",
    "ReadVariableOp",
    "_EagerConst",
    "DeepCopy",
    "OptimizationBarrier",
)
def _identity(k: Kernel) -> Value:
    return k[0]


@kernel("IdentityN")
def _identity_n(k: Kernel) -> list[Value]:
    return k.inputs


@kernel("NoOp", "Assert", "ControlTrigger")
def _nothing(k: Kernel) -> tuple[None, ...]:
    return (None,) * len(k.op.outputs)
