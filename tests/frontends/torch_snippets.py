"""Small PyTorch programs, forward and backward, and a mode that checks the lowering of every aten call they make.

Run as a script, it writes `tests/golden/torch_ops.txt`: the aten ops that the programs reach, each known, partly known or unknown.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from whynan.errors import OpError
from whynan.frontends.torch.lower import Aten, Ref, lower
from whynan.ir.dtype import FORMATS, Array
from whynan.ir.graph import Builder, Call, Node
from whynan.ops._opdef import run

GOLDEN = Path(__file__).parents[1] / "golden" / "torch_ops.txt"
SKIPPED = ("empty", "new_empty", "is_same_size", "_local_scalar_dense", "equal", "resize", "set")


def array(t: torch.Tensor) -> Array:
    """A tensor's values as NumPy, bfloat16 through ml_dtypes."""
    t = t.detach()
    if t.dtype == torch.bfloat16:
        return t.float().numpy().astype(FORMATS["bfloat16"].numpy)
    return t.numpy(force=True).copy()


@dataclass(frozen=True)
class Seen:
    """One aten call: its name, the lowered nodes, and for each result the framework's value and whynan's (None if unknown)."""

    name: str
    nodes: list[Node]
    results: list[tuple[Array, Array | None]]
    inputs: list[Array]


@dataclass
class Checker(TorchDispatchMode):
    """Lowers every aten call on constants and evaluates the nodes beside the framework's own run."""

    seen: list[Seen] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        builder, inputs = Builder(), []

        def given(x: Any) -> Any:
            if isinstance(x, torch.Tensor):
                value = array(x)
                inputs.append(value)
                return Ref(builder.const(value, FORMATS[str(x.dtype)[6:]]))
            return [given(y) for y in x] if isinstance(x, (list, tuple)) else x

        name = functional(op)
        complex_used = any(isinstance(a, torch.Tensor) and a.is_complex() for a in args)
        if name.split(".")[0].startswith(SKIPPED) or complex_used:
            return op(*args, **kwargs)
        call = Aten(name, tuple(given(a) for a in args), {k: given(v) for k, v in kwargs.items() if k != "out"})
        result = op(*args, **kwargs)
        results = list(result) if isinstance(result, (tuple, list)) else [result]
        if any(isinstance(r, torch.Tensor) and r.is_complex() for r in results):
            return result
        metas = tuple((tuple(r.shape), FORMATS[str(r.dtype)[6:]]) if isinstance(r, torch.Tensor) else None for r in results)
        values = tuple(array(r) if isinstance(r, torch.Tensor) else None for r in results)
        nodes = lower(builder, Aten(call.name, call.args, call.kwargs, metas, values))
        pairs = []
        for node, value in zip(nodes, values, strict=True):
            if value is not None and node is not None:
                pairs.append((value, evaluated(builder.nodes, node)))
        for node, meta in zip(nodes, metas, strict=True):
            if node is not None and meta is not None:
                assert (builder.shape(node), builder.format(node).name) == (meta[0], meta[1].name), name
        self.seen.append(Seen(name, builder.nodes, pairs, inputs))
        return result


def functional(op: Any) -> str:
    """The name without the in-place mark: "add_.Tensor" is "add.Tensor"."""
    packet, _, overload = str(op).removeprefix("aten.").partition(".")
    if packet.endswith("_") and not packet.endswith("__"):
        packet = packet[:-1]
        if packet == "pow":
            overload = {"Scalar": "Tensor_Scalar", "Tensor": "Tensor_Tensor"}[overload]
    return f"{packet}.{overload}"


def evaluated(nodes: list[Node], wanted: int) -> Array | None:
    """The value of a node that depends on constants only; None where an op is unknown, random or not written yet."""
    values: dict[int, Array | None] = {}
    for node in nodes[: wanted + 1]:
        arrays = [values[i] for i in node.inputs]
        if any(a is None for a in arrays) or node.op.startswith("unknown:") or node.op == "random":
            values[node.id] = None
            continue
        inputs = [nodes[i] for i in node.inputs]
        call = Call(node.op, node.attrs, tuple(n.shape for n in inputs), tuple(n.format for n in inputs), node.shape, node.format)
        if node.op == "const":
            values[node.id] = np.broadcast_to(node.attrs["value"], node.shape)
            continue
        try:
            values[node.id] = run(call, [a for a in arrays if a is not None])
        except OpError:
            values[node.id] = None
    return values[wanted]


def disagreement(seen: Seen) -> str:
    """Where whynan's value of a result differs from the framework's by more than rounding: empty if nowhere."""
    for number, (real, ours) in enumerate(seen.results):
        if ours is not None and not _agree(seen, real, ours):
            return f"{seen.name}[{number}] {real.dtype.name}: {ours.reshape(-1)[:8]} for {real.reshape(-1)[:8]} on {seen.inputs}"
    return ""


def _agree(seen: Seen, real: Array, ours: Array) -> bool:
    fmt = FORMATS[real.dtype.name]
    a, b = ours.astype(np.float64), real.astype(np.float64)
    if ours.shape != real.shape or not fmt.is_float:
        return np.array_equal(a, b)
    finite = np.isfinite(b)
    if not np.array_equal(np.where(finite, 0, a), np.where(finite, 0, b), equal_nan=True):
        return False
    few = 4 * fmt.eps if fmt.eps > 1e-5 else 64 * fmt.eps
    # a sum errs by its terms' rounding, not its own
    scale = min(_largest(seen.inputs), 1e3) * (0.1 if fmt.eps > 1e-5 else 1.0)
    error = np.abs(np.where(finite, a, 0.0) - np.where(finite, b, 0.0))
    return bool((error <= few * np.maximum(np.abs(np.where(finite, b, 0.0)), scale) + 4 * fmt.smallest).all())


def _largest(arrays: list[Array]) -> float:
    floats = [x.astype(np.float64) for x in arrays if x.dtype.kind not in "iub"]
    return max((float(np.abs(x[np.isfinite(x)]).max(initial=0)) for x in floats), default=0.0)


# ---------------------------------------------------------------- the programs

Snippet = Callable[[torch.Tensor], torch.Tensor]
T = torch.tensor


def like(x: torch.Tensor, value: Any) -> torch.Tensor:
    """A tensor of x's dtype."""
    return torch.as_tensor(value, dtype=x.dtype)


def unit(x: torch.Tensor) -> torch.Tensor:
    """A number of (0, 1) for each element, without gradient trouble."""
    return torch.sigmoid(x)


def named(
    room: Any, names: str, suffix: str = "", apply: Callable[[Any, torch.Tensor], torch.Tensor] = lambda f, x: f(x)
) -> dict[str, Snippet]:
    """A program for each function of a module."""
    return {name + suffix: partial(apply, getattr(room, name)) for name in names.split()}


PLAIN_ACTIVATIONS = """
    relu relu6 elu selu celu leaky_relu gelu logsigmoid hardshrink tanhshrink softsign softplus softshrink tanh sigmoid
    hardsigmoid silu mish hardswish hardtanh glu
"""
ANYWHERE = """
    exp exp2 expm1 sin cos tanh sinh cosh asinh atan erf erfc abs square neg sign sgn floor ceil round trunc frac positive
    relu sinc sum mean prod max min amax amin std var median isnan isinf isfinite logical_not signbit ravel t nan_to_num any
    all argmax count_nonzero nansum deg2rad
"""
BETWEEN_0_AND_1 = """
    log log2 log10 log1p sqrt rsqrt reciprocal asin acos atanh erfinv lgamma digamma logit tan
"""
ALONG_AN_AXIS = """
    sum mean prod amax amin std var logsumexp any all argmax argmin cumsum cumprod logcumsumexp nansum norm
"""

ROWS = T([1, 0, 3])
SIGNS = T([1.0, -1.0, 1.0])

ACTIVATIONS: dict[str, Snippet] = named(F, PLAIN_ACTIVATIONS) | {
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "elu_alpha": lambda x: F.elu(x, 0.7),
    "elu_in_place": lambda x: F.elu(x * 1, 1.0, inplace=True),
    "celu_alpha": lambda x: F.celu(x, 0.5),
    "softplus_beta": lambda x: F.softplus(x, 2.5, 5.0),
    "threshold": lambda x: F.threshold(x, 0.1, 0.3),
    "prelu": lambda x: F.prelu(x, like(x, [0.25])),
    "rrelu": lambda x: F.rrelu(x, training=False),
    "softmax": lambda x: F.softmax(x, -1),
    "log_softmax": lambda x: F.log_softmax(x, 0),
    "softmin": lambda x: F.softmin(x, 1),
    "gumbel": lambda x: F.gumbel_softmax(x, dim=-1),
    "normalize": lambda x: F.normalize(x, dim=-1),
    "normalize_1": lambda x: F.normalize(x, p=1.0, dim=0),
    "layer_norm": lambda x: F.layer_norm(x, (4,), like(x, [1.0, 2, 0.5, 1]), like(x, [0.0, 1, 0, 1])),
    "layer_norm_plain": lambda x: F.layer_norm(x, (3, 4)),
    "rms_norm": lambda x: F.rms_norm(x, (4,)),
    "batch_norm": lambda x: F.batch_norm(x, None, None, training=True),
    "batch_norm_stats": lambda x: F.batch_norm(x, torch.zeros(4, dtype=x.dtype), torch.ones(4, dtype=x.dtype), like(x, [1.0, 2, 1, 2])),
    "group_norm": lambda x: F.group_norm(x, 2, like(x, [1.0, 2, 1, 2]), like(x, [0.0, 1, 0, 1])),
    "instance_norm": lambda x: F.instance_norm(x.reshape(1, 3, 4)),
    "dropout": lambda x: F.dropout(x, 0.5),
    "alpha_dropout": lambda x: F.alpha_dropout(x, 0.5, training=True),
    "weight_norm": lambda x: torch._weight_norm(x, x.detach()[:, :1].abs() + 1, 0),
}

LOSSES: dict[str, Snippet] = {
    "bce": lambda x: F.binary_cross_entropy(unit(x), like(x, np.tri(3, 4))),
    "bce_weight": lambda x: F.binary_cross_entropy(unit(x), like(x, np.tri(3, 4)), weight=like(x, [1.0, 2, 0, 1]), reduction="sum"),
    "bce_edges": lambda x: F.binary_cross_entropy(x.clamp(0, 1), like(x, np.tri(3, 4)), reduction="none"),
    "bce_logits": lambda x: F.binary_cross_entropy_with_logits(x, like(x, np.tri(3, 4))),
    "bce_logits_weights": lambda x: F.binary_cross_entropy_with_logits(
        x, like(x, np.tri(3, 4)), weight=like(x, [1.0, 2, 0, 1]), pos_weight=like(x, [1.0, 3, 0.5, 1])
    ),
    "cross_entropy": lambda x: F.cross_entropy(x, ROWS),
    "cross_entropy_options": lambda x: F.cross_entropy(x, ROWS, weight=like(x, [1.0, 2, 0, 1]), ignore_index=0, label_smoothing=0.1),
    "cross_entropy_soft": lambda x: F.cross_entropy(x, torch.softmax(x.detach(), -1)),
    "cross_entropy_2d": lambda x: F.cross_entropy(x.reshape(1, 3, 2, 2), T([[[0, 1], [2, 1]]]), weight=like(x, [1.0, 2, 0.5])),
    "nll": lambda x: F.nll_loss(x, ROWS, reduction="sum"),
    "nll_none": lambda x: F.nll_loss(x, ROWS, weight=like(x, [1.0, 2, 0, 1]), reduction="none"),
    "nll_all_ignored": lambda x: F.nll_loss(x, T([-100, -100, -100])),
    "nll_zero_weight": lambda x: F.nll_loss(x, T([2, 2, 2]), weight=like(x, [1.0, 2, 0, 1])),
    "nll_1d": lambda x: F.nll_loss(x[0], T(2)),
    "nll_2d_none": lambda x: F.nll_loss(x.reshape(1, 3, 2, 2), T([[[0, 1], [2, 1]]]), reduction="none"),
    "mse": lambda x: F.mse_loss(x, x.detach() * 0.5 + 1),
    "mse_none": lambda x: F.mse_loss(x, x.detach() * 0.5 + 1, reduction="none"),
    "l1": lambda x: F.l1_loss(x, x.detach() * 0.5 + 1),
    "smooth_l1": lambda x: F.smooth_l1_loss(x, x.detach() * 0.5),
    "smooth_l1_beta": lambda x: F.smooth_l1_loss(x, x.detach() * 0.5, beta=0.1, reduction="sum"),
    "smooth_l1_0": lambda x: F.smooth_l1_loss(x, x.detach() * 0.5, beta=0.0),
    "huber": lambda x: F.huber_loss(x, x.detach() * 0.5, delta=0.3),
    "huber_none": lambda x: F.huber_loss(x, x.detach() * 0.5, reduction="none"),
    "soft_margin": lambda x: F.soft_margin_loss(x, torch.sign(x.detach()) * -1),
    "multi_margin": lambda x: F.multi_margin_loss(x, ROWS),
    "multi_margin_2": lambda x: F.multi_margin_loss(x, ROWS, p=2, weight=like(x, [1.0, 2, 0, 1]), reduction="sum"),
    "multi_margin_none": lambda x: F.multi_margin_loss(x, ROWS, margin=0.5, reduction="none"),
    "multilabel_margin": lambda x: F.multilabel_margin_loss(x, T([[0, 2, -1, 1], [3, -1, 0, 0], [-1, 1, 1, 1]])),
    "multilabel_margin_none": lambda x: F.multilabel_margin_loss(x, T([[0, 2, -1, 1], [3, -1, 0, 0], [0, 1, 2, 3]]), reduction="none"),
    "multilabel_soft_margin": lambda x: F.multilabel_soft_margin_loss(x, like(x, np.tri(3, 4))),
    "margin_ranking": lambda x: F.margin_ranking_loss(x[:, 0], x[:, 1], SIGNS.to(x.dtype), 0.5),
    "cosine_embedding": lambda x: F.cosine_embedding_loss(x, x.detach() * 0.5 + 1, SIGNS.to(x.dtype)),
    "cosine_similarity": lambda x: F.cosine_similarity(x, x.detach() * 0.5 + 1),
    "hinge_embedding": lambda x: F.hinge_embedding_loss(x[:, 0], SIGNS.to(x.dtype)),
    "triplet": lambda x: F.triplet_margin_loss(x, x.detach() * 0.5, x.detach() + 1),
    "triplet_swap": lambda x: F.triplet_margin_loss(x, x.detach() * 0.5, x.detach() + 1, swap=True),
    "pairwise": lambda x: F.pairwise_distance(x, x.detach() * 0.5, p=3.0),
    "kl_div": lambda x: F.kl_div(torch.log_softmax(x, -1), torch.softmax(x.detach() * 0.5, -1), reduction="batchmean"),
    "kl_div_log": lambda x: F.kl_div(torch.log_softmax(x, -1), torch.log_softmax(x.detach() * 0.5, -1), log_target=True, reduction="sum"),
    "poisson": lambda x: F.poisson_nll_loss(x, x.detach().abs().round(), full=True),
    "poisson_rate": lambda x: F.poisson_nll_loss(x.exp(), x.detach().abs(), log_input=False),
    "gaussian": lambda x: F.gaussian_nll_loss(x, x.detach() * 0.5, x.detach().exp(), full=True),
    "ctc": lambda x: F.ctc_loss(torch.log_softmax(x.reshape(3, 1, 4), -1), T([[1, 2]]), T([3]), T([2])),
    "dice": lambda x: 1 - (2 * (unit(x) * (x.detach() > 0)).sum() + 1e-6) / (unit(x).sum() + (x.detach() > 0).sum() + 1e-6),
}

METHODS: dict[str, Snippet] = {
    **named(torch, ANYWHERE),
    **named(torch, BETWEEN_0_AND_1, "_unit", lambda f, x: f(unit(x))),
    "entr": lambda x: torch.special.entr(unit(x)),
    "acosh": lambda x: torch.acosh(x.exp() + 1),
    "logit_eps": lambda x: torch.logit(unit(x), 1e-3),
    "polygamma": lambda x: torch.polygamma(1, unit(x)),
    "i1": lambda x: torch.special.i1(x) + torch.special.i0e(x) + torch.special.i1e(x),
    "scalars": lambda x: (x + 1e-8) * 1.7 / 3 - 1e-3 + (1 - x) / 0.7 + 2 / (x.abs() + 1),
    "big_scalars": lambda x: x * 1e5 / 1e5 - x / 1e6,
    "alpha": lambda x: torch.add(x, x.detach(), alpha=0.5) + torch.sub(x, 1, alpha=2) + torch.rsub(x, x.detach() * 2),
    "zero_dim": lambda x: x * T(1e-3) + x / T(3.0) + x + T(2),
    "int_times_float": lambda x: x * torch.arange(4) + torch.arange(4) * 1.5,
    "promote": lambda x: x * torch.ones(4, dtype=torch.float64) + x.float(),
    "bool_arithmetic": lambda x: (x > 0) * x + (x > 1).sum() * x + ((x > 0) & (x < 1)).to(x.dtype) * x,
    **{f"pow_{p}": lambda x, p=p: (x.abs() + 0.5) ** p for p in (0.5, 2, 3, -0.5, -1, -2, 0, 1, 1.7, -3, 4)},
    "pow_tensor": lambda x: (x.abs() + 0.5) ** x,
    "pow_scalar": lambda x: 2.1**x,
    "pow_of_negative": lambda x: x**1.5,
    "times_itself": lambda x: x * x + (-x) * x,
    "fmod": lambda x: torch.fmod(x, 0.7) + torch.remainder(x, 0.7) + x % (x.detach().abs() + 1),
    "floor_divide": lambda x: x.detach() // 0.7 + torch.div(x, 0.3, rounding_mode="trunc"),
    "floor_divide_tensor": lambda x: torch.div(x, x.detach() + 10, rounding_mode="floor"),
    "maximum": lambda x: torch.maximum(x, -x) + torch.minimum(x, x.detach() * 2) + torch.fmax(x, -x) + torch.fmin(x, -x),
    "clamp": lambda x: x.clamp(-0.5, 0.7) + x.clamp(min=0.1) + x.clamp(max=1e-3) + x.clamp(1.0, -1.0),
    "clamp_tensor": lambda x: x.clamp(x.detach() - 1, x.detach() * 0.5) + torch.clamp_min(x, 0.3) + torch.clamp_max(x, 0.3),
    "addcmul": lambda x: torch.addcmul(x, x, x.detach(), value=0.3) + torch.addcdiv(x, x, x.detach().abs() + 1, value=0.3),
    "lerp": lambda x: torch.lerp(x, x * 2, 0.3) + torch.lerp(x, x * 2, 0.8) + torch.lerp(x, x * 2, unit(x)),
    "hypot": lambda x: torch.hypot(x, x.detach() + 1) + torch.atan2(x, x.detach() + 2),
    "logaddexp": lambda x: torch.logaddexp(x, -x) + torch.logaddexp2(x, -x),
    "xlogy": lambda x: torch.xlogy(x, unit(x)) + torch.special.xlog1py(x, unit(x)) + torch.xlogy(x, 2.0),
    "comparisons": lambda x: ((x > 0) | (x <= -1) ^ (x == 0)) * x + (x.ne(0.1) & ~(x < x.detach() * 2)) * x + x.ge(0) * x,
    "int_comparisons": lambda x: x * (torch.arange(4) > 1.5) * (torch.arange(4) == T(2.0)),
    "where": lambda x: torch.where(x > 0, x.sqrt(), 0.0) + torch.where(x > 0, 1e-3, x) + torch.where(x > 0, x, x * 2),
    "masked_fill": lambda x: x.masked_fill(x > 0, -1e4) + x.masked_fill(x < 0, T(2.0)),
    "softmax_masked": lambda x: torch.softmax(x.masked_fill(x > 0, -math.inf), -1),
    "nan_to_num_inf": lambda x: torch.nan_to_num(x / (x * 0), nan=1.0, posinf=2.0, neginf=-3.0),
    "copysign": lambda x: torch.copysign(x, -x.detach()) + torch.copysign(x, -1.0),
    "heaviside": lambda x: torch.heaviside(x.detach(), like(x, 0.5)) * x,
    "isclose": lambda x: torch.isclose(x, x.detach() * 1.000001) * x,
    "bitwise": lambda x: ((torch.arange(4) & 1) | 2 ^ ~torch.arange(4)) * x,
    **named(torch, ALONG_AN_AXIS, "_dim", lambda f, x: f(x, dim=1)),
    "sum_keep": lambda x: x.sum((0, 1), keepdim=True) + x.mean(0, keepdim=True) + (x > 0).sum(0),
    "sum_dtype": lambda x: x.sum(dtype=torch.float64) + x.mean(0, dtype=torch.float64).sum(),
    "max_dim": lambda x: x.max(1).values + x.min(1).values + x.max(0)[0].sum(),
    "aminmax": lambda x: x.aminmax(dim=1)[0] + x.aminmax(dim=1)[1],
    "median_dim": lambda x: x.median(1).values + x.kthvalue(2, 1).values,
    "cummax": lambda x: x.cummax(1).values + x.cummin(0).values,
    "sort": lambda x: x.sort(1).values + x.sort(0, descending=True).values + x.gather(1, x.argsort(1)),
    "topk": lambda x: x.topk(2, 1).values + x.topk(2, 1, largest=False).values,
    **{f"norm_{p}": lambda x, p=p: x.norm(p) + torch.linalg.vector_norm(x, p, dim=1).sum() for p in (0, 1, 2, 3, 0.5, math.inf, -math.inf)},
    "norm_of_one": lambda x: x[:, :1].norm(dim=1),
    "dist": lambda x: torch.dist(x, x.detach() * 0.5) + torch.cdist(x, x.detach() * 0.5).sum() + torch.cdist(x, x.detach(), p=1).sum(),
    "cdist_large": lambda x: torch.cdist(x.reshape(12, 1).repeat(3, 2), x.detach().reshape(12, 1).repeat(3, 2) + 1),
    "pdist": F.pdist,
    "variances": lambda x: torch.var_mean(x, 1)[0] + torch.std_mean(x, 1)[1] + x.var(1, unbiased=False) + x.std(1, correction=0),
    "views": lambda x: x.view(4, 3).t().reshape(2, 6)[:, 1:5:2].unsqueeze(1).expand(2, 3, 2).permute(1, 2, 0).flatten(1),
    "select": lambda x: x[1] + x[:, 0].sum() + x[-1, 1:].sum() + x.narrow(1, 1, 2).sum() + x.diagonal().sum() + x.trace(),
    "split": lambda x: sum(p.sum() * i for i, p in enumerate([*x.split(2, 1), *x.unbind(0), *x.chunk(2, 1), *x.split([1, 3], 1)])),
    "cat": lambda x: torch.cat([x, x * 2], 1) + torch.stack([x, x], 1).reshape(3, 8),
    "flip": lambda x: x.flip(1) + x.roll(1, 0) + x.roll(2) + x.tril() + x.triu(1),
    "repeat": lambda x: x.repeat(2, 3) + x.tile(2, 3) + x.repeat_interleave(6, 0).reshape(6, 12),
    "unfold": lambda x: x.unfold(1, 2, 1) + x.unfold(0, 3, 1).sum(),
    "as_strided": lambda x: x.as_strided((2, 2), (4, 2), 1),
    "diag": lambda x: torch.diag_embed(x).sum() + torch.diag(x[0]).sum(),
    "in_place": lambda x: fill_parts(x),
    "pad": lambda x: F.pad(x, (1, 2, 0, 1), value=0.5) + F.pad(x, (1, 2, 1, 0)) + F.pad(x, (-1, 4, 0, 1)),
    "pad_edges": lambda x: sum(F.pad(x[None], (1, 2), mode=mode) for mode in ("reflect", "replicate", "circular")),
    "pad_edges_2d": lambda x: sum(F.pad(x[None, None], (1, 2, 1, 1), mode=mode) for mode in ("reflect", "replicate")),
    "gather": lambda x: x.gather(1, T([[0, 1], [2, 3]])) + x.index_select(1, T([0, 2]))[:2] + x.take(T([0, 5])),
    "scatter": lambda x: x.scatter(1, T([[0], [1], [2]]), 2.0) + x.scatter_add(1, T([[0, 0]]), x[:1, :2]),
    "scatter_part": lambda x: x.scatter(0, T([[0, 1]]), x.detach()) + x.scatter(1, T([[0], [1]]), x[:2, :1]),
    "scatter_reduce": lambda x: sum(
        x.scatter_reduce(1, T([[0, 0, 1], [1, 2, 2], [3, 3, 3]]), x[:, :3] * 0.5 + 2, r, include_self=s)
        for r in ("sum", "prod", "mean", "amax", "amin")
        for s in (True, False)
    ),
    "index": lambda x: x[T([0, 2])] + x[T([0, 1]), T([1, 2])].sum() + x[..., T([0, 1, 1, 3])].sum(),
    "index_apart": lambda x: x.reshape(3, 2, 2)[T([0]), :, T([1])],
    "index_apart_put": lambda x: write_apart(x),
    "boolean_index": lambda x: x[x > 0].sum() + x[T([True, False, True])].sum() + x.masked_select(x < 0.5).sum(),
    "unique": lambda x: x * sum(v.sum() for v in torch.unique((x > 0).long(), return_inverse=True, return_counts=True)),
    "unique_rows": lambda x: x * sum(v.sum() for v in torch.unique((x > 0).long(), dim=0, return_counts=True)),
    "bincount": lambda x: x * (x > 0).long().reshape(-1).bincount()[0] + x.sum() * T([1, 0, 3]).bincount(like(x, [1.0, 2, 3])).sum(),
    "boolean_row": lambda x: x[T([True, False, True]), 1],
    "index_put": lambda x: (
        x.index_put((T([0, 0]), T([1, 1])), like(x, [1.0, 2]), accumulate=True) + x.index_add(0, T([0, 2]), x[:2], alpha=2)
    ),
    "index_copy": lambda x: (
        x.index_copy(0, T([0, 2]), x[:2].detach()) + x.index_fill(1, T([1]), 3.0) + x.masked_scatter(x > 0, x.detach().flip(0))
    ),
    "embedding": lambda x: F.embedding(T([[0, 2], [2, 1]]), x, padding_idx=1),
    "one_hot": lambda x: x * F.one_hot(ROWS, 4),
    "nonzero": lambda x: x * (x > 0).nonzero().sum(),
    "matmul": lambda x: (x @ x.T).sum() + torch.bmm(x[None], x.T[None]).sum(),
    "vectors": lambda x: (x @ x[0]).sum() + x[0] @ x[1] + torch.outer(x[0], x[1]).sum(),
    "addmm": lambda x: torch.addmm(x[:, :3], x, x.T, beta=0.5, alpha=2) + F.linear(x, x, x[:, 0]) + torch.einsum("ij,kj->ik", x, x),
    "baddbmm": lambda x: torch.baddbmm(x[None, :, :3], x[None], x.T[None]) + torch.addmv(x[:, 0], x, x[0]).sum(),
    "conv1d": lambda x: F.conv1d(x[None], x.detach().reshape(2, 3, 2), x[0, :2], padding=1),
    "conv2d": lambda x: F.conv2d(x.reshape(1, 1, 3, 4), x.reshape(3, 1, 2, 2), stride=1),
    "conv_transpose": lambda x: F.conv_transpose1d(x[None], x.reshape(3, 2, 2), stride=2),
    "pools": lambda x: F.avg_pool2d(x[None, None], 2).sum() + F.max_pool2d(x[None, None], 2, 1).sum(),
    "pools_padded": lambda x: F.max_pool2d(x[None, None], 2, 2, 1, ceil_mode=True).sum() + F.avg_pool2d(x[None, None], 2, 2, 1).sum(),
    "adaptive_windows": lambda x: F.adaptive_avg_pool2d(x[None, None], 2),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x[None, None], 1).sum() + F.adaptive_max_pool2d(x[None, None], 1).sum(),
    "pools_1d": lambda x: F.avg_pool1d(x[None], 2).sum() + F.max_pool1d(x[None], 2).sum() + F.adaptive_avg_pool1d(x[None], 2).sum(),
    "interpolate": lambda x: F.interpolate(x[None], scale_factor=2).sum() + F.interpolate(x[None, None], scale_factor=2).sum(),
    "interpolate_linear": lambda x: F.interpolate(x[None, None], size=(6, 8), mode="bilinear"),
    "interpolate_cubic": lambda x: F.interpolate(x[None, None], scale_factor=2, mode="bicubic"),
    "grid_sample": lambda x: F.grid_sample(x[None, None], torch.zeros(1, 2, 2, 2, dtype=x.dtype), align_corners=False),
    "fold": lambda x: F.unfold(x[None, None], 2).sum() + F.fold(x.reshape(1, 4, 3)[:, :, :2], (2, 3), 2).sum(),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x.reshape(1, 4, 3, 1), 2),
    "attention": lambda x: F.scaled_dot_product_attention(x[None, None], x[None, None], x[None, None]),
    "attention_masked": lambda x: F.scaled_dot_product_attention(x[None, None], x[None, None], x[None, None], is_causal=True),
    "attention_row_masked": lambda x: F.scaled_dot_product_attention(
        x[None, None], x[None, None], x[None, None], attn_mask=T([[False] * 3, [True] * 3, [True, False, True]])
    ),
    "random": lambda x: x + torch.rand_like(x) + torch.randn(4) + torch.randint(0, 3, (4,)) + torch.bernoulli(unit(x).detach()),
    "created": lambda x: x + torch.arange(4) + torch.zeros_like(x) + torch.full((4,), 2.5) + torch.linspace(0, 1, 4) + torch.eye(3, 4),
    "det": lambda x: torch.linalg.det(spd(x)) + torch.linalg.slogdet(spd(x))[1],
    "inverse": lambda x: torch.linalg.inv(spd(x)).sum() + torch.linalg.solve(spd(x), x).sum() + torch.linalg.cholesky(spd(x)).sum(),
    "spectrum": lambda x: torch.linalg.eigvalsh(spd(x)).sum() + torch.linalg.svdvals(x).sum() + torch.linalg.matrix_norm(x, 2),
    "fft": lambda x: torch.fft.rfft(x).abs().sum(),
}


def spd(x: torch.Tensor) -> torch.Tensor:
    """A positive definite matrix made of x."""
    return x @ x.T + 2 * torch.eye(3, dtype=x.dtype)


def fill_parts(x: torch.Tensor) -> torch.Tensor:
    """Writes into slices."""
    y = torch.zeros_like(x)
    y[0] = x[1] * 2
    y[:, 1] += x[:, 0]
    y[x.detach() > 0] = 0.5
    y.mul_(2).add_(1).clamp_(max=3)
    return y * x


def write_apart(x: torch.Tensor) -> torch.Tensor:
    """Writes at indices along axes that are not neighbours."""
    y = x.reshape(3, 2, 2) * 1
    y[T([0, 2]), :, T([1, 0])] = like(x, [[1.0, 2.0], [3.0, 4.0]])
    return y * x.reshape(3, 2, 2)


def distributions() -> dict[str, Snippet]:
    """Log-densities and divergences of torch.distributions."""
    D = torch.distributions

    def log_prob(make: Callable[[torch.Tensor], Any], value: Callable[[torch.Tensor], torch.Tensor]) -> Snippet:
        return lambda x: make(x).log_prob(value(x.detach()))

    positive, real, inside = (lambda x: x.exp() + 0.1), (lambda x: x * 0.5), (lambda x: unit(x))
    count, row = (lambda x: x.abs().round()), (lambda x: x)
    options: dict[str, Any] = {"validate_args": False}
    out = {
        "normal": log_prob(lambda x: D.Normal(x, x.exp(), **options), real),
        "log_normal": log_prob(lambda x: D.LogNormal(x, x.exp(), **options), positive),
        "laplace": log_prob(lambda x: D.Laplace(x, x.exp(), **options), real),
        "cauchy": log_prob(lambda x: D.Cauchy(x, x.exp(), **options), real),
        "student": log_prob(lambda x: D.StudentT(x.exp() + 1, x, x.exp(), **options), real),
        "gamma": log_prob(lambda x: D.Gamma(x.exp(), x.exp(), **options), positive),
        "beta": log_prob(lambda x: D.Beta(x.exp(), x.exp(), **options), inside),
        "dirichlet": log_prob(lambda x: D.Dirichlet(x.exp(), **options), lambda x: torch.softmax(x, -1)),
        "exponential": log_prob(lambda x: D.Exponential(x.exp(), **options), positive),
        "poisson": log_prob(lambda x: D.Poisson(x.exp(), **options), count),
        "bernoulli": log_prob(lambda x: D.Bernoulli(logits=x, **options), lambda x: (x > 0).to(x.dtype)),
        "categorical": log_prob(lambda x: D.Categorical(logits=x, **options), lambda x: ROWS),
        "binomial": log_prob(lambda x: D.Binomial(5, logits=x, **options), count),
        "negative_binomial": log_prob(lambda x: D.NegativeBinomial(5, logits=x, **options), count),
        "geometric": log_prob(lambda x: D.Geometric(logits=x, **options), count),
        "gumbel": log_prob(lambda x: D.Gumbel(x, x.exp(), **options), real),
        "weibull": log_prob(lambda x: D.Weibull(x.exp(), x.exp() + 1, **options), positive),
        "half_normal": log_prob(lambda x: D.HalfNormal(x.exp(), **options), positive),
        "von_mises": log_prob(lambda x: D.VonMises(x, x.exp(), **options), row),
        "pareto": log_prob(lambda x: D.Pareto(x.exp(), x.exp(), **options), lambda x: x.exp() + 5),
        "uniform": log_prob(lambda x: D.Uniform(x - 10, x.exp() + 10, **options), row),
        "mvn": log_prob(lambda x: D.MultivariateNormal(x[:, 0], spd(x), **options), lambda x: x[:, 1]),
        "kl_normal": lambda x: D.kl_divergence(D.Normal(x, x.exp(), **options), D.Normal(x * 0, x.exp() * 0 + 1, **options)),
        "kl_gamma": lambda x: D.kl_divergence(D.Gamma(x.exp(), x.exp(), **options), D.Gamma(x.exp() + 1, x.exp(), **options)),
        "kl_beta": lambda x: D.kl_divergence(D.Beta(x.exp(), x.exp(), **options), D.Beta(x.exp() + 1, x.exp(), **options)),
        "kl_categorical": lambda x: D.kl_divergence(D.Categorical(logits=x, **options), D.Categorical(logits=-x, **options)),
        "kl_bernoulli": lambda x: D.kl_divergence(D.Bernoulli(logits=x, **options), D.Bernoulli(logits=-x, **options)),
        "kl_dirichlet": lambda x: D.kl_divergence(D.Dirichlet(x.exp(), **options), D.Dirichlet(x.exp() + 1, **options)),
        "entropy": lambda x: D.Categorical(logits=x, **options).entropy() + D.Normal(x[:, 0], x[:, 0].exp(), **options).entropy(),
    }
    return {f"distribution_{name}": snippet for name, snippet in out.items()}


SNIPPETS: dict[str, Snippet] = ACTIVATIONS | LOSSES | METHODS | distributions()

# torch's own results for NaN and infinite inputs differ here between the vector loop of a kernel and its scalar tail,
# or the result is an index among equal values, or the order of a sum decides whether it overflows
UNSTABLE: dict[str, set[str]] = {
    "float64": {"polygamma.default"},  # torch's own trigamma errs by 1e-13
    "edges": {"topk.default"},
    "large": {"linalg_cholesky_ex.default", "_linalg_eigh.default"},  # an ill-conditioned matrix
    "infinite": {
        "_adaptive_avg_pool2d.default",
        "_linalg_slogdet.default",
        "linalg_cholesky_ex.default",
        "_scaled_dot_product_flash_attention_for_cpu.default",
        "convolution.default",
        "gelu.default",
        "gelu_backward.default",
        "hardshrink_backward.default",
        "hardtanh_backward.default",
        "logit_backward.default",
        "median.dim",
        "native_batch_norm.default",
        "native_group_norm.default",
        "native_layer_norm.default",
        "pow.Tensor_Scalar",
        "softshrink_backward.default",
        "sum.default",
    },
}

INPUTS: dict[str, list[list[float]]] = {
    "ordinary": [[0.3, -1.2, 0.8, 2.5], [-0.4, 1.7, -2.2, 0.1], [1.1, -0.6, 0.9, -3.1]],
    "edges": [[0.0, -0.0, 1.0, -1.0], [30.0, -30.0, 3.0, -3.0], [0.5, -0.5, 6.0, 100.0]],
    "large": [[1e4, -1e4, 200.0, -200.0], [88.0, -104.0, 1.0, 0.0], [20.0, -20.0, 3e4, 0.0]],
    "infinite": [[math.inf, -math.inf, 1.0, 0.0], [0.0, math.nan, 2.0, -1.0], [1.0, 2.0, 3.0, math.inf]],
}


def calls(name: str, values: list[list[float]], dtype: torch.dtype) -> list[Seen]:
    """The aten calls of one program on one input, forward and backward; empty if torch cannot run it there."""
    x = torch.tensor(values, dtype=dtype, requires_grad=True)
    checker = Checker()
    torch.manual_seed(0)
    try:
        with checker:
            y = SNIPPETS[name](x)
            if y.requires_grad:
                y.sum().backward()
    except (RuntimeError, NotImplementedError, ValueError, IndexError) as error:
        if "whynan" in str(error):
            raise
    return checker.seen


def status(seen: Seen) -> str:
    """Whether the lowering leaves something unknown."""
    unknown = [n for n in seen.nodes if n.op.startswith("unknown:")]
    if not unknown:
        return "known"
    return "unknown" if len(unknown) == len(seen.results) else "partly"


def golden_lines() -> Iterator[str]:
    """One line per aten op of all programs, sorted."""
    # torch.compile turns the checks of distributions, which are ops too, off for the whole process
    torch.distributions.Distribution.set_default_validate_args(True)
    found: dict[str, str] = {}
    rank = ("known", "partly", "unknown")
    for name in SNIPPETS:
        for seen in calls(name, INPUTS["ordinary"], torch.float32):
            found[seen.name] = max(found.get(seen.name, "known"), status(seen), key=rank.index)
    return (f"{state} {op}" for state, op in sorted((state, op) for op, state in found.items()))


if __name__ == "__main__":
    GOLDEN.write_text("\n".join(golden_lines()) + "\n")
