"""Losses that lean on one fact of the prover: relations with slack, attained zeros, coupled boxes, value numbering, mixed formats."""

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from whynan import classes, logit, nonnegative, prob, real


def mixed_norm(x):
    """Squares in the input's format, their sum and root in float32."""
    n = torch.sqrt((x * x).float().sum(-1, keepdim=True))
    r = x.float() / (n + 1e-20)
    return torch.log(1 + 1e-5 - r).mean()


def mixed_norm_sqrt(x):
    n = torch.sqrt((x * x).float().sum(-1, keepdim=True) + 1e-12)
    return torch.sqrt(1 + 1e-5 - x.float() / n).mean()


def mixed_sum(x):
    """One sum in the input's format, a larger one in float32."""
    small, large = x.sum(-1).float(), (x.float() * 1.0).sum(-1)
    return torch.log(large - small + 1e-5).mean()


def mixed_add(x, y):
    a, b = (x + y).float(), x.float() + y.float()
    return torch.sqrt(b - a + 1e-6).mean()


def mixed_sqrt(x):
    return torch.sqrt(torch.sqrt(x.float()) - torch.sqrt(x).float() + 1e-6).mean()


def wide_then_narrow(x):
    y = x.double() * 1e-30
    return torch.log(y.to(x.dtype) + 1e-30).mean()


def nan_in_maximum(x, y):
    top = torch.maximum(torch.log(x), y)
    return torch.where(torch.isnan(top), 1 / y, torch.zeros_like(y)).mean()


def nan_in_amax(x):
    r = torch.sqrt(x)
    top = r.amax(-1, keepdim=True)
    return torch.where(torch.isnan(top), 1 / (x - 3), torch.zeros_like(x)).detach().mean() + x.mean()


def nan_to_num_sum(x):
    return (1 / torch.nan_to_num(torch.log(x), nan=0.0, neginf=-1.0, posinf=1.0).sum(-1)).detach().mean() + x.mean()


def zero_sign(x):
    y = F.relu(x)
    return torch.atan2(y, -y).mean()


def zero_sign_reciprocal(x):
    y = x.abs() * -1.0
    return torch.where(x == 0, torch.zeros_like(x), 1 / torch.where(x == 0, 1.0, y)).mean()


def zero_sign_copysign(x):
    y = torch.copysign(torch.ones_like(x), x * 0.0)
    return torch.log(y + 1.5).mean() + torch.sqrt(y).detach().mean()


def zero_product(x):
    y = x * 0.0
    return torch.sqrt(torch.copysign(torch.ones_like(x), y + 0.0) + 1).mean()


def tiny_divisor(x, y):
    return (x / torch.sqrt(x * x + y * y + 1e-38)).mean()


def tiny_divisor_log(x, y):
    r = x / torch.sqrt(x * x + y * y + 1e-38)
    return torch.log(1.001 - r).mean()


def tiny_norm(x):
    n = x.norm(dim=-1, keepdim=True)
    return torch.log(1.9 - x / (n + 1e-38)).mean()


def tiny_norm_where(x):
    n = x.norm(dim=-1, keepdim=True)
    r = torch.where(n > 0, x / torch.where(n > 0, n, torch.ones_like(n)), torch.zeros_like(x))
    return torch.log(1.3 - r).detach().mean() + x.mean()


def tiny_norm_where_wide(x):
    n = x.norm(dim=-1, keepdim=True)
    r = torch.where(n > 0, x / torch.where(n > 0, n, torch.ones_like(n)), torch.zeros_like(x))
    return torch.log(1.6 - r).detach().mean() + x.mean()


def tiny_norm_p3(x):
    n = torch.linalg.vector_norm(x, 3, dim=-1, keepdim=True)
    r = torch.where(n > 0, x / torch.where(n > 0, n, torch.ones_like(n)), torch.zeros_like(x))
    return torch.log(1.9 - r).detach().mean() + x.mean()


def norm_difference(x):
    n = torch.sqrt((x * x).sum(-1))
    return torch.sqrt(n - x[:, 0] + 1e-6).mean()


def norm_p1_difference(x):
    return torch.sqrt(x.norm(p=1, dim=-1) - x.norm(dim=-1) + 1e-3).mean()


def sum_difference(x):
    return torch.sqrt(x.sum(-1) - x.amax(-1) + 1e-9).mean()


def sum_difference_products(x, y):
    return torch.sqrt(x.sum(-1) - (x * y).sum(-1) + 1e-9).mean()


def sum_difference_min(x, y):
    return torch.log(1e-6 + x.sum() - torch.minimum(x, y).sum())


def lse_difference(z):
    return torch.log(torch.logsumexp(z, -1) - z.amax(-1) + 1e-6).mean()


def lse_difference_pick(z, y):
    d = torch.logsumexp(z, -1) - z.gather(-1, y[:, None]).squeeze(-1)
    return torch.sqrt(d + 1e-9).mean()


def ce_sqrt(z, y):
    return torch.sqrt(F.cross_entropy(z, y, reduction="none") + 1e-9).mean()


def softmax_row(z):
    return torch.sqrt(1 - F.softmax(z, -1).sum(-1) + 1e-6).mean()


def softmax_row_loose(z):
    return torch.sqrt(1.01 - F.softmax(z, -1).sum(-1)).mean()


def softmax_top(z):
    return torch.log(F.softmax(z, -1).amax(-1) - 0.33).mean()


def softmax_top_exact(z):
    return torch.log(F.softmax(z, -1).amax(-1) - 1 / 3 + 1e-8).mean()


def softmax_top_by_hand(z):
    e = torch.exp(z - z.amax(-1, keepdim=True))
    return torch.log(e.sum(-1) - 0.99).mean()


def shift_by_amin(z):
    return torch.log(torch.exp(z.amin(-1, keepdim=True) - z).sum(-1)).mean()


def shift_by_topk(z):
    return torch.log(torch.exp(z - z.topk(1, -1).values).sum(-1)).mean()


def shift_by_sorted(z):
    return torch.log(torch.exp(z - z.sort(-1, descending=True).values[:, :1]).sum(-1)).mean()


def shift_by_transposed(z):
    c = z.t().amax(0)
    return torch.log(torch.exp(z - c[:, None]).sum(1)).mean()


def shift_by_wrong_axis_square(z):
    """On a square matrix the shapes fit, the maxima do not."""
    return torch.log(torch.exp(z - z.amax(0)[:, None]).sum(1)).mean()


def shift_by_other(z, w):
    return torch.log(torch.exp(z - w.amax(-1, keepdim=True)).sum(-1)).mean()


def outer_difference(x):
    d = x[:, None] - x[None, :]
    return torch.log(d * d + 1e-3).mean() + torch.log((x - x) + 1.0).mean()


def outer_square_view(x):
    """x @ x and x * x.T on a square matrix are not squares."""
    return torch.sqrt(x * x.t() + 1e-3).mean()


def outer_square_reshape(x):
    return torch.sqrt(x * x.reshape(3, 2).reshape(2, 3).flip(0) + 1e-3).mean()


def outer_quotient(x):
    p = x.abs() + 1e-3
    return torch.log(1.001 - p / (p + p.t())).mean()


def random_twice(x):
    a, b = torch.rand_like(x), torch.rand_like(x)
    return torch.log(1 + a - b + 1e-3).mean() * x.mean()


def random_difference(x):
    a, b = torch.rand(4, 3, dtype=x.dtype), torch.rand(4, 3, dtype=x.dtype)
    return (x / (1 + a - b)).mean()


def dropout(x):
    y = F.dropout(x.abs(), 0.5)
    return torch.log(y).mean()


def dropout_eps(x):
    y = F.dropout(x.abs(), 0.5)
    return torch.log(y + 1e-3).mean()


def normal_noise(x):
    return torch.log((x + torch.randn_like(x)).abs() + 1e-3).mean()


def mutated_between(x):
    y = x.abs() + 1
    a = torch.log(y)
    y = y - 1
    y.mul_(1.0)
    b = torch.log(y + 1e-3)
    y.zero_()
    return (a + b).mean() + (1 / (y + 1)).mean()


def mutated_alias(x):
    y = x.abs() + 1
    v = y.view(-1)
    v[0] = 0
    return torch.log(y).mean()


def mutated_constant(x):
    c = torch.ones(3, dtype=x.dtype)
    a = x / c
    c -= 1
    return (a + x * c).mean()


def mutated_divisor(x):
    c = torch.ones(3, dtype=x.dtype)
    c.sub_(1)
    return (x / c).mean()


def python_branch(x):
    if x.sum() > 100:
        return torch.log(x[0, 0])
    return x.mean()


def python_loop(x):
    y = x
    while y.abs().max() > 1:
        y = y / 2
    return torch.sqrt(1 - y * y + 1e-3).mean()


def item_in_constant(x):
    return torch.log(x - x.min().item() + 1e-3).mean()


def numpy_constant(x):
    return (x / float(x.detach().double().numpy().std() + 0.0)).mean()


class Reciprocal(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.sqrt(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g / (2 * torch.sqrt(x))


class Guarded(Reciprocal):
    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g / (2 * torch.sqrt(x) + 1e-2)


def custom(x):
    return Reciprocal.apply(x).mean()


def custom_guarded(x):
    return Guarded.apply(x).mean()


def checkpointed(x):
    return checkpoint(lambda v: torch.sqrt(v), x, use_reentrant=False).mean()


def checkpointed_eps(x):
    return checkpoint(lambda v: torch.sqrt(v + 1e-3), x, use_reentrant=False).mean()


def hook(x):
    y = x.abs() + 1e-3
    y.register_hook(lambda g: g / g.norm())
    return (y * 0).mean() if y.requires_grad else y.mean()


def gradient_inside(x):
    with torch.enable_grad():
        y = (x**4).sum()
        (g,) = torch.autograd.grad(y, x, create_graph=True)
    return torch.sqrt((g**2).sum(-1)).mean()


def gradient_inside_eps(x):
    with torch.enable_grad():
        y = (x**4).sum()
        (g,) = torch.autograd.grad(y, x, create_graph=True)
    return torch.sqrt((g**2).sum(-1) + 1e-3).mean()


def detached_divisor(x):
    return (x / x.detach().norm()).sum()


def straight_through(x):
    y = (x > 0).to(x.dtype)
    return torch.log((y - x).detach() + x + 1e-3).mean()


def straight_through_guarded(x):
    y = (x > 0).to(x.dtype)
    return torch.log(((y - x).detach() + x).clamp(min=1e-2)).mean()


def addcmul_cancel(x):
    return torch.sqrt(torch.addcmul(torch.ones_like(x), x, -x) + 0.0).detach().mean() + x.mean()


def fma_square_minus_square(x, y):
    p = x * y
    return torch.sqrt(torch.addcmul(p, x, y, value=-1)).detach().mean() + x.mean()


def lerp_end(x):
    y = torch.lerp(x, torch.ones_like(x), 1.0)
    return torch.log(y).mean()


def lerp_mid(x, w):
    return torch.log(torch.lerp(x, torch.ones_like(x), w) + 1e-3).mean()


def clamp_reversed(x):
    return torch.log(x.clamp(2.0, 1.0)).mean()


def clamp_tensor(x, y):
    return torch.log(torch.clamp(x, min=y.abs() + 1e-3)).mean()


def exp_neg_square(x):
    return (torch.exp(-(x**2)) * x**3).mean()


def expm1_ratio(x):
    return (torch.expm1(x) / x).mean()


def expm1_ratio_guarded(x):
    s = torch.where(x.abs() < 1e-2, torch.ones_like(x), x)
    return torch.where(x.abs() < 1e-2, 1 + x / 2, torch.expm1(s) / s).mean()


def expm1_ratio_single_where(x):
    return torch.where(x.abs() < 1e-2, 1 + x / 2, torch.expm1(x) / x).mean()


def tanh_inverse(x):
    return torch.atanh(torch.tanh(x)).mean()


def tanh_inverse_clamped(x):
    return torch.atanh(torch.tanh(x).clamp(-0.999, 0.999)).mean()


def tanh_log_jacobian(x):
    return torch.log(1 - torch.tanh(x) ** 2).mean()


def tanh_log_jacobian_eps(x):
    return torch.log(1 - torch.tanh(x) ** 2 + 1e-6).mean()


def erf_inverse(p):
    return torch.erfinv(2 * p - 1).mean()


def erf_inverse_clamped(p):
    return torch.erfinv((2 * p - 1).clamp(-0.99, 0.99)).mean()


def lgamma_zero(x):
    return torch.lgamma(x).mean()


def lgamma_shifted(x):
    return (torch.lgamma(x + 1) - torch.lgamma(x + 0.5)).mean()


def trig_ratio(x):
    return (torch.sin(x) / torch.cos(x)).mean()


def tan_half(x):
    return torch.tan(x).mean()


def pythagorean(x):
    return torch.sqrt(1 - torch.sin(x) ** 2 - torch.cos(x) ** 2 + 1e-6).mean()


def acosh_one(x):
    return torch.acosh(1 + x * x).mean()


def floor_divide(x):
    return (1 / (x - torch.floor(x) + 1)).mean() + torch.log(1 - torch.frac(x.abs()) + 1e-30).mean()


def remainder_log(x):
    return torch.log(1 - torch.remainder(x, 1.0)).mean()


def remainder_log_eps(x):
    return torch.log(1 - torch.remainder(x, 1.0) + 1e-3).mean()


def round_ratio(x):
    return (1 / (1 - 2 * (x - torch.round(x)).abs() + 1e-3)).mean()


def embedding_norm(i, w):
    e = F.embedding(i, w)
    return (e / e.norm(dim=-1, keepdim=True)).sum()


def embedding_norm_eps(i, w):
    e = F.embedding(i, w)
    return (e / (e.norm(dim=-1, keepdim=True) + 1e-3)).sum()


def layer_norm(x):
    return F.layer_norm(x, (3,)).pow(2).mean()


def layer_norm_tiny_eps(x):
    return F.layer_norm(x, (3,), eps=1e-30).pow(2).mean()


def layer_norm_zero_eps(x):
    return F.layer_norm(x, (3,), eps=0.0).pow(2).mean()


def batch_norm(x):
    return F.batch_norm(x, None, None, training=True).pow(3).mean()


def group_norm(x):
    return F.group_norm(x[..., None], 3).pow(2).mean()


def instance_norm(x):
    return F.instance_norm(x[None]).pow(2).mean()


def rms_norm(x):
    return F.rms_norm(x, (3,)).pow(2).mean()


def rms_norm_log(x):
    return torch.log(3.1 - F.rms_norm(x, (3,)).pow(2)).mean()


def layer_norm_log(x):
    return torch.log(3.1 - F.layer_norm(x, (3,)).pow(2)).mean()


def layer_norm_tight(x):
    """|(x - mean) / std| <= sqrt(n - 1) = 1.4142 for n = 3."""
    return torch.log(1.5 - F.layer_norm(x, (3,)).abs()).mean()


def z_score_tight(x):
    z = (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, unbiased=False) + 1e-6)
    return torch.log(1.5 - z.abs()).mean()


def std_ddof_zero(x):
    return x[:1].std(0).mean()


def std_single_biased(x):
    return x[:1].std(0, unbiased=False).mean()


def var_of_constant(x):
    c = x[:, :1].expand(4, 3)
    return torch.log(1 - c.var(-1) / (c.var(-1) + 1e-3)).mean()


def spread_about_the_median(x):
    t = torch.median(x)
    return ((x - t) / ((x - t).abs().mean() + 1e-3)).abs().mean()


def steps_of_a_running_maximum(x):
    m = torch.cummax(x, 1).values
    return torch.log(m[:, 1:] - m[:, :-1] + 1e-4).mean()


def scale_invariant_log(x):
    d = torch.log(x)
    return torch.sqrt((d**2).mean() - 0.85 * d.mean() ** 2 + 1e-6)


X = real(4, 3, low=-10, high=10)
PX = nonnegative(4, 3, high=10)
_ONE = """
    nan_in_amax nan_to_num_sum zero_sign zero_sign_reciprocal zero_sign_copysign zero_product tiny_norm tiny_norm_where
    tiny_norm_where_wide tiny_norm_p3 norm_difference norm_p1_difference outer_difference random_twice random_difference
    dropout dropout_eps normal_noise mutated_between mutated_alias mutated_constant mutated_divisor python_branch
    python_loop item_in_constant numpy_constant gradient_inside gradient_inside_eps detached_divisor straight_through
    straight_through_guarded exp_neg_square expm1_ratio expm1_ratio_guarded expm1_ratio_single_where tanh_inverse
    tanh_inverse_clamped tanh_log_jacobian tanh_log_jacobian_eps trig_ratio tan_half pythagorean acosh_one floor_divide
    remainder_log remainder_log_eps round_ratio layer_norm layer_norm_tiny_eps layer_norm_zero_eps batch_norm group_norm
    instance_norm rms_norm rms_norm_log layer_norm_log layer_norm_tight z_score_tight std_ddof_zero std_single_biased
    var_of_constant hook clamp_reversed
"""
CASES = {
    "mixed_norm": {"x": X},
    "mixed_norm_sqrt": {"x": X},
    "mixed_sum": {"x": PX},
    "mixed_add": {"x": PX, "y": PX},
    "mixed_sqrt": {"x": PX},
    "wide_then_narrow": {"x": PX},
    "nan_in_maximum": {"x": X, "y": X},
    **{n: {"x": X} for n in _ONE.split()},
    "tiny_divisor": {"x": X, "y": X},
    "tiny_divisor_log": {"x": X, "y": X},
    "sum_difference": {"x": PX},
    "sum_difference_products": {"x": PX, "y": prob(4, 3)},
    "sum_difference_min": {"x": PX, "y": PX},
    **{
        n: {"z": logit(4, 3)}
        for n in """
    lse_difference softmax_row softmax_row_loose softmax_top softmax_top_exact softmax_top_by_hand shift_by_amin
    shift_by_topk shift_by_sorted shift_by_transposed
""".split()
    },
    "lse_difference_pick": {"z": logit(4, 3), "y": classes(3, 4)},
    "ce_sqrt": {"z": logit(4, 3), "y": classes(3, 4)},
    "shift_by_wrong_axis_square": {"z": logit(3, 3)},
    "shift_by_other": {"z": logit(4, 3), "w": logit(4, 3)},
    "outer_square_view": {"x": real(3, 3, low=-10, high=10)},
    "outer_square_reshape": {"x": real(2, 3, low=-10, high=10)},
    "outer_quotient": {"x": real(3, 3, low=-10, high=10)},
    **{n: {"x": PX} for n in ("custom", "custom_guarded", "checkpointed", "checkpointed_eps")},
    "addcmul_cancel": {"x": prob(4, 3)},
    "fma_square_minus_square": {"x": prob(4, 3), "y": prob(4, 3)},
    "lerp_end": {"x": prob(4, 3)},
    "lerp_mid": {"x": prob(4, 3), "w": prob(4, 3)},
    "clamp_tensor": {"x": X, "y": X},
    "erf_inverse": {"p": prob(4, 3)},
    "erf_inverse_clamped": {"p": prob(4, 3)},
    "lgamma_zero": {"x": PX},
    "lgamma_shifted": {"x": PX},
    "embedding_norm": {"i": classes(3, 4), "w": X},
    "embedding_norm_eps": {"i": classes(3, 4), "w": X},
    "spread_about_the_median": {"x": real(7, low=-3, high=3)},
    "scale_invariant_log": {"x": real(6, low=0.001, high=80)},
    "steps_of_a_running_maximum": {"x": real(4, 6, low=-4, high=4)},
}
