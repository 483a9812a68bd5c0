"""PyTorch losses for the soundness test: of the library and hand-written, safe and unsafe ones, with their domains by dtype."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from whynan.domain.spec import Domain, binary, classes, integers, logit, mask, nonnegative, onehot, positive, prob, real, simplex, unit

HALF = ("float16", "bfloat16")
ALL = ("float32", "float64", *HALF)
WIDE = ("float32", "float64")

Loss = Callable[..., Any]


@dataclass(frozen=True)
class Example:
    """A loss, the domains of its arguments for a dtype, and the dtypes in which PyTorch computes it."""

    name: str
    loss: Loss
    domains: Callable[[str], Mapping[str, Domain]]
    dtypes: tuple[str, ...] = ("float32",)


EXAMPLES: list[Example] = []


def example(dtypes: tuple[str, ...] = ("float32",), **domains: Any) -> Callable[[Loss], Loss]:
    """Register a loss; a domain is given as a constructor's call without dtype, or (for integers) as a finished domain."""

    def register(loss: Loss) -> Loss:
        EXAMPLES.append(Example(loss.__name__, loss, lambda dtype: {n: d(dtype) if callable(d) else d for n, d in domains.items()}, dtypes))
        return loss

    return register


def of(constructor: Callable[..., Domain], *shape: int, **options: Any) -> Callable[[str], Domain]:
    """The domain in whatever dtype is tested."""
    return lambda dtype: constructor(*shape, dtype=dtype, **options)


X, Y = of(real, 3, 4, low=-10, high=10), of(real, 3, 4, low=-10, high=10)
P, T = of(prob, 3, 4), of(binary, 3, 4, grad=False)
LOGITS, TARGET = of(logit, 3, 4), classes(4, 3)

# ---------------------------------------------------------------- of torch.nn.functional


@example(ALL, x=X, y=Y)
def mse(x, y):
    return F.mse_loss(x, y)


@example(ALL, x=X, y=Y)
def l1(x, y):
    return F.l1_loss(x, y)


@example(ALL, x=X, y=Y)
def smooth_l1(x, y):
    return F.smooth_l1_loss(x, y, beta=0.5)


@example(ALL, x=X, y=Y)
def huber(x, y):
    return F.huber_loss(x, y, delta=0.7)


@example(WIDE, p=P, t=T)
def bce(p, t):
    return F.binary_cross_entropy(p, t)


@example(ALL, x=LOGITS, t=T)
def bce_logits(x, t):
    return F.binary_cross_entropy_with_logits(x, t, pos_weight=torch.tensor(2.0, dtype=x.dtype))


@example(ALL, x=LOGITS, t=TARGET)
def cross_entropy(x, t):
    return F.cross_entropy(x, t)


@example(WIDE, x=LOGITS, t=TARGET)
def cross_entropy_smoothed(x, t):
    return F.cross_entropy(x, t, label_smoothing=0.1)


@example(WIDE, x=LOGITS, t=of(simplex, 3, 4, grad=False))
def cross_entropy_soft(x, t):
    return F.cross_entropy(x, t)


@example(WIDE, x=P, t=TARGET)
def nll_of_log(x, t):
    return F.nll_loss(torch.log(x), t)


@example(ALL, x=LOGITS, t=of(simplex, 3, 4, grad=False))
def kl_div(x, t):
    return F.kl_div(F.log_softmax(x, -1), t, reduction="batchmean")


@example(WIDE, x=LOGITS, y=of(logit, 3, 4))
def kl_div_log_target(x, y):
    return F.kl_div(F.log_softmax(x, -1), F.log_softmax(y, -1), log_target=True, reduction="sum")


@example(WIDE, x=X, t=of(nonnegative, 3, 4, high=5, grad=False))
def poisson(x, t):
    return F.poisson_nll_loss(x, t, full=True)


@example(WIDE, x=X, y=Y, v=of(nonnegative, 3, 4, high=4))
def gaussian(x, y, v):
    return F.gaussian_nll_loss(x, y, v)


@example(WIDE, a=X, b=Y)
def cosine_similarity(a, b):
    return F.cosine_similarity(a, b, dim=-1).sum()


@example(WIDE, a=of(unit, 3, 4), b=of(unit, 3, 4))
def arc(a, b):
    return torch.acos((a * b).sum(-1).clamp(-1, 1)).sum()


@example(WIDE, a=X, b=Y)
def cosine_embedding(a, b):
    return F.cosine_embedding_loss(a, b, torch.ones(3, dtype=a.dtype), margin=0.2)


@example(WIDE, a=X, p=Y, n=of(real, 3, 4, low=-1, high=1))
def triplet(a, p, n):
    return F.triplet_margin_loss(a, p, n)


@example(WIDE, x=X, t=TARGET)
def multi_margin(x, t):
    return F.multi_margin_loss(x, t)


@example(WIDE, x=X, t=T)
def multilabel_soft_margin(x, t):
    return F.multilabel_soft_margin_loss(x, t)


@example(ALL, x=X, t=of(binary, 3, 4, grad=False))
def soft_margin(x, t):
    return F.soft_margin_loss(x, 2 * t - 1)


@example(ALL, x=X, t=of(binary, 3, 4, grad=False))
def hinge_embedding(x, t):
    return F.hinge_embedding_loss(x, 2 * t - 1)


@example(WIDE, x=of(logit, 3, 5))
def layer_norm(x):
    return F.layer_norm(x, (5,)).square().sum()


@example(WIDE, x=X)
def normalize(x):
    return F.normalize(x, dim=-1).sum()


@example(WIDE, a=X, b=Y)
def pairwise_distance(a, b):
    return F.pairwise_distance(a, b).sum()


# ---------------------------------------------------------------- probabilities


@example(ALL, p=P)
def entropy(p):
    return -(p * torch.log(p)).sum()


@example(ALL, p=P, t=T)
def bce_with_epsilon(p, t):
    return -(t * torch.log(p + 1e-8) + (1 - t) * torch.log(1 - p + 1e-8)).mean()


@example(ALL, p=P, t=T)
def bce_clamped(p, t):
    p = p.clamp(1e-6, 1 - 1e-6)
    return -(t * p.log() + (1 - t) * (1 - p).log()).mean()


@example(ALL, x=LOGITS, t=T)
def focal(x, t):
    p = torch.sigmoid(x)
    q = torch.where(t > 0.5, p, 1 - p)
    return (-((1 - q) ** 2.0) * torch.log(q)).mean()


@example(WIDE, x=LOGITS, t=TARGET)
def focal_gather(x, t):
    logp = F.log_softmax(x, -1).gather(1, t[:, None])
    return (-((1 - logp.exp()) ** 1.5) * logp).mean()


@example(ALL, p=P, t=T)
def dice(p, t):
    return 1 - 2 * (p * t).sum() / (p.sum() + t.sum())


@example(ALL, p=P, t=T)
def dice_smoothed(p, t):
    return 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)


@example(WIDE, p=P, t=T)
def iou(p, t):
    return 1 - torch.minimum(p, t).sum() / torch.maximum(p, t).sum()


@example(WIDE, p=P, t=T)
def tversky(p, t):
    tp, fp, fn = (p * t).sum(-1), (p * (1 - t)).sum(-1), ((1 - p) * t).sum(-1)
    return (1 - tp / (tp + 0.7 * fp + 0.3 * fn + 1e-7)).pow(0.75).sum()


@example(ALL, p=of(prob, 3, 4), q=of(prob, 3, 4))
def jensen_shannon(p, q):
    m = (p + q) / 2
    return (torch.xlogy(p, p / m) + torch.xlogy(q, q / m)).sum()


@example(WIDE, p=of(simplex, 3, 4), q=of(simplex, 3, 4))
def kl_by_hand(p, q):
    return torch.where(p > 0, p * (p / q).log(), torch.zeros_like(p)).sum()


@example(WIDE, p=of(prob, 3, 4), q=of(onehot, 3, 4, grad=False))
def hellinger(p, q):
    return (p.sqrt() - q.sqrt()).square().sum().sqrt()


# ---------------------------------------------------------------- softmax by hand


@example(ALL, x=LOGITS)
def softmax_naive(x):
    e = x.exp()
    return (e / e.sum(-1, keepdim=True)).log().sum()


@example(ALL, x=LOGITS)
def softmax_shifted(x):
    e = (x - x.amax(-1, keepdim=True)).exp()
    return (e / e.sum(-1, keepdim=True)).square().sum()


@example(ALL, x=LOGITS)
def softmax_shifted_wrongly(x):
    e = (x - x.max()).exp()
    return (e / e.sum(-1, keepdim=True)).square().sum()


@example(WIDE, x=LOGITS)
def logsumexp_by_hand(x):
    m = x.max(dim=-1, keepdim=True).values
    return ((x - m).exp().sum(-1).log() + m[:, 0]).sum()


@example(WIDE, x=LOGITS, keep=mask(3, 4))
def masked_softmax(x, keep):
    return torch.softmax(x.masked_fill(~keep, float("-inf")), -1).square().sum()


@example(WIDE, x=LOGITS, keep=mask(3, 4))
def masked_softmax_finite(x, keep):
    p = torch.softmax(torch.where(keep, x, torch.full_like(x, -1e9)), -1)
    return (p * keep).sum(-1).log1p().sum()


@example(WIDE, x=LOGITS)
def logsumexp_minus(x):
    return (torch.logsumexp(x, -1) - x[:, 0]).sum()


@example(WIDE, a=of(unit, 4, 3), b=of(unit, 4, 3))
def info_nce(a, b):
    return F.cross_entropy(a @ b.T / 0.07, torch.arange(4))


# ---------------------------------------------------------------- branches, norms, statistics


@example(ALL, x=X)
def where_sqrt(x):
    return torch.where(x > 0, x.sqrt(), torch.zeros_like(x)).sum()


@example(ALL, x=X)
def where_twice(x):
    safe = torch.where(x > 0, x, torch.ones_like(x))
    return torch.where(x > 0, safe.sqrt() + safe.log(), torch.zeros_like(x)).sum()


@example(WIDE, x=X, y=Y)
def safe_division(x, y):
    return torch.where(y == 0, torch.zeros_like(x), x / torch.where(y == 0, torch.ones_like(y), y)).sum()


@example(WIDE, x=X)
def norm_direct(x):
    return (x / x.norm(dim=-1, keepdim=True)).sum()


@example(ALL, x=X)
def norm_by_hand(x):
    return (x / (x * x).sum(-1, keepdim=True).sqrt().clamp_min(1e-3)).sum()


@example(WIDE, x=of(real, 3, 4))
def norm_other_axis(x):
    return (x / (x.norm(dim=0, keepdim=True) + 1e-6)).sum()


@example(WIDE, x=X)
def norms(x):
    return x.norm(p=1) + x.norm(p=float("inf")) + torch.linalg.vector_norm(x, ord=3, dim=0).sum()


@example(ALL, x=X)
def standardised(x):
    return ((x - x.mean(0)) / x.std(0)).square().sum()


@example(WIDE, x=X)
def standardised_safely(x):
    return ((x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()).pow(3).sum()


@example(WIDE, x=X, y=Y)
def correlation(x, y):
    a, b = x - x.mean(), y - y.mean()
    return 1 - (a * b).sum() / ((a * a).sum().sqrt() * (b * b).sum().sqrt() + 1e-8)


@example(WIDE, x=of(real, 4, 3, low=-2, high=2))
def distances(x):
    return torch.cdist(x, x).sum()


@example(WIDE, x=of(real, 4, 3, low=-2, high=2))
def distances_by_hand(x):
    return ((x[:, None] - x[None, :]).square().sum(-1) + 1e-9).sqrt().sum()


@example(ALL, x=X, w=of(nonnegative, 3, 4, high=1))
def weighted_mean(x, w):
    return (x * w).sum() / w.sum()


@example(WIDE, x=X, keep=mask(3, 4))
def masked_mean(x, keep):
    return (x.square() * keep).sum() / keep.sum().clamp(min=1)


@example(WIDE, mu=X, logvar=of(real, 3, 4, low=-20, high=20), y=Y)
def gaussian_by_hand(mu, logvar, y):
    return (0.5 * ((y - mu) ** 2 / logvar.exp() + logvar)).mean()


@example(ALL, mu=X, logvar=of(real, 3, 4, low=-5, high=5))
def vae(mu, logvar):
    return -0.5 * (1 + logvar - mu.pow(2) - logvar.exp()).sum()


@example(WIDE, x=of(positive, 3, 4))
def logs(x):
    return (x.log() + x.log1p() + x.rsqrt() + x.reciprocal()).sum()


@example(WIDE, x=X, e=of(real, 3, 4, low=0, high=3))
def powers(x, e):
    return (x.abs() ** e).sum()


@example(WIDE, x=X)
def activations(x):
    return sum(f(x).sum() for f in (F.gelu, F.silu, F.mish, F.elu, F.softplus, F.logsigmoid, torch.tanh, torch.erf))


@example(WIDE, x=of(real, 3, 4, low=-1, high=1))
def inverse_trigonometric(x):
    return (x.asin() + x.acos() + x.atanh() + torch.atan2(x, x.flip(0))).sum()


# ---------------------------------------------------------------- scans, orders, indices, mutation


@example(WIDE, x=X)
def products(x):
    return x.prod(-1).sum() + x.cumprod(-1).sum()


@example(WIDE, x=X)
def cumulative(x):
    return x.cumsum(0).square().sum() + torch.logcumsumexp(x, -1).sum()


@example(WIDE, x=of(real, 3, 4, low=-10, high=10), event=of(binary, 3, 4, grad=False))
def cox(x, event):
    order = x.sum(-1).argsort()
    risk = torch.logcumsumexp(x[order], 0)
    return -((x[order] - risk) * event).sum() / event.sum()


@example(WIDE, x=X)
def top_and_sorted(x):
    return x.topk(2, dim=-1).values.log1p().sum() + x.sort(-1).values.diff(dim=-1).sqrt().sum()


@example(WIDE, x=X)
def median_deviation(x):
    return (x - x.median()).abs().median()


@example(WIDE, x=X, i=integers(0, 2, 5))
def selected(x, i):
    return (x[i] / x[i].amax(-1, keepdim=True)).sum()


@example(WIDE, x=X, i=integers(0, 3, 3))
def put(x, i):
    y = torch.zeros_like(x)
    y[torch.arange(3), i] = x[:, 0]
    return y.index_add(0, torch.tensor([0, 0, 2]), x).exp().log().sum()


@example(WIDE, x=X)
def in_place(x):
    y = x.clone()
    y.mul_(2).add_(1)
    y[y < 0] = 0
    y[:, 0] /= 3
    return y.sqrt().sum()


@example(WIDE, x=X, w=of(real, 4, 2, low=-1, high=1))
def linear(x, w):
    return (torch.tanh(x @ w) @ torch.tanh(x @ w).T).logsumexp(-1).sum()


@example(WIDE, x=of(real, 2, 3, 3, low=-1, high=1))
def determinants(x):
    a = x @ x.transpose(-1, -2) + 0.1 * torch.eye(3, dtype=x.dtype)
    return torch.logdet(a).sum()


@example(WIDE, x=X)
def scattered(x):
    i = torch.tensor([[0, 1, 1, 2]] * 3)
    s = torch.zeros_like(x).scatter_add(1, i, x.square())
    return (x.square() / (s + 1)).sum()


@example(WIDE, x=LOGITS)
def mixed_precision(x):
    h = x.half()
    return (torch.softmax(h, -1).float() - torch.softmax(x, -1).float()).square().sum() + h.exp().float().clamp(max=10).sum()


@example(WIDE, x=X)
def stacked(x):
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a / (a.abs() + b.abs()), torch.stack([a, b]).amax(0)], -1).sum()


@example(WIDE, x=of(nonnegative, 3, 4, high=1))
def einsum_attention(x):
    w = torch.softmax(torch.einsum("ik,jk->ij", x, x) / 2, -1)
    return torch.einsum("ij,jk->ik", w, x).log().sum()


@example(WIDE, x=X)
def hyperbolic(x):
    inner = (1 + 2 * x.square().sum(-1)).clamp(min=1.0)
    return torch.acosh(inner).sum()


# ---------------------------------------------------------------- kernels that do not compute as they are written

BIG = of(real, 2, 3, low=1e38, high=3e38)


@example(x=BIG)
def deviation_from_a_mean_that_overflows(x):
    """The mean of all elements is taken in their own format, although the squares are added in a double."""
    return x.std() + x[0].std()


@example(WIDE, x=of(real, 17, low=0.1, high=0.1000001))
def deviation_of_equal_numbers(x):
    return x.std() + x.std(0)


@example(x=of(real, low=1e-30, high=1e30))
def norm_of_a_number_along_its_axis(x):
    """Squares and cubes of a single number overflow if the axis is named."""
    return torch.nn.functional.normalize(x, 3.0, 0) + torch.linalg.vector_norm(x, 2, dim=0)


@example(ALL, x=of(real, 40, low=0.1, high=3))
def contracted(x):
    """In one kernel a product is not rounded before it is added."""
    return torch.sub(x * 2.3, x, alpha=2.3).sum() + torch.addcmul(x * x, x, x, value=-1).sum() + torch.lerp(x, x * x, 0.3).sum()


@example(ALL, x=of(real, 8, 5, low=0.1, high=3))
def scaled_not_centred(x):
    """Batch and group norm add mean and product: equal numbers are not 0."""
    return F.batch_norm(x, None, None, training=True).sum() + F.group_norm(x, 1).sum() + F.layer_norm(x, (5,)).sum()


@example(WIDE, x=of(real, 5, 8, low=0.1, high=3))
def laid_out_otherwise(x):
    """What does not lie together is computed by other code and added in another order."""
    y = x.t()
    return (y.sigmoid() - y.contiguous().sigmoid()).sum() + y.sum(0).sum() - y.contiguous().sum(0).sum()


@example(("float64",), x=of(real, 3, low=0.0, high=65519.9999999))
def rounded_twice(x):
    """A double goes to float16 by float32."""
    return x.half().sum()


@example(WIDE, x=of(real, 0, 3))
def of_nothing(x):
    return F.softshrink(x.logsumexp(0)).sum() + x.softmax(-1).sum() + torch.xlogy(x.logsumexp(0), x.logsumexp(0)).sum()


@example(WIDE, x=X, t=TARGET)
def margins(x, t):
    return F.multi_margin_loss(x, t) + F.multi_margin_loss(x.sign() * 0, t)


@example(WIDE, x=of(real, 3, low=1.0, high=1e37))
def negative_norms(x):
    """Where all powers underflow, the norm is infinite."""
    return torch.linalg.vector_norm(x, -2) + torch.linalg.vector_norm(x, -0.5)


@example(ALL, x=of(real, 3, low=-0.4, high=-0.1))
def zeros_of_either_sign(x):
    return torch.exp(1 / F.softshrink(x)).sum()


@example(ALL, x=of(real, 40, low=0.01, high=0.9))
def strided(x):
    """Elements that do not lie together are computed by other code: rounded at each step, powers in float64."""
    y = x[::2]
    return (y**3).sum() + (y**-2).sum() + (y**0.3).sum() + y.rsqrt().sum() + y.logit().sum() + y.sigmoid().sum()


@example(WIDE, x=P)
def logits(x):
    return torch.logit(x).sum() + torch.logit(x, 0.0).sum()
