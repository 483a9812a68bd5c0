"""Attention, masks, soft maxima, orderings, scatters: where -inf, empty rows and ties live."""

import math

import torch
import torch.nn.functional as F

from whynan import binary, classes, logit, mask, nonnegative, positive, prob, real


def attention_inf(q, k, m):
    s = (q @ k.T / math.sqrt(q.shape[-1])).masked_fill(~m, -torch.inf)
    return (torch.softmax(s, -1) ** 2).sum(-1).mean()


def attention_big(q, k, m):
    s = (q @ k.T / math.sqrt(q.shape[-1])).masked_fill(~m, -1e4)
    return (torch.softmax(s, -1) ** 2).sum(-1).mean()


def attention_repaired(q, k, m):
    s = (q @ k.T / math.sqrt(q.shape[-1])).masked_fill(~m, -torch.inf)
    empty = ~m.any(-1, keepdim=True)
    p = torch.softmax(s.masked_fill(empty, 0.0), -1).masked_fill(empty, 0.0)
    return (p**2).sum(-1).mean()


def attention_nan_to_num(q, k, m):
    s = (q @ k.T / math.sqrt(q.shape[-1])).masked_fill(~m, -torch.inf)
    return (torch.nan_to_num(torch.softmax(s, -1)) ** 2).sum(-1).mean()


def sdpa(q, k, v):
    return F.scaled_dot_product_attention(q[None], k[None], v[None]).mean()


def sdpa_mask(q, k, v, m):
    return F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=m[None]).mean()


def causal(z):
    m = torch.ones(4, 4, dtype=torch.bool).tril()
    return torch.log_softmax(z.masked_fill(~m, -torch.inf), -1).diagonal().mean()


def additive_mask(z, m):
    s = z + (1.0 - m) * -1e9
    return F.log_softmax(s, -1)[:, 0].mean()


def masked_log_softmax_sum(z, m):
    lp = F.log_softmax(z.masked_fill(~m, -torch.inf), -1)
    return -(lp * m.to(z.dtype)).sum(-1).mean()


def logsumexp_masked(z, m):
    return torch.logsumexp(z.masked_fill(~m, -torch.inf), -1).mean()


def logsumexp_by_hand(z):
    return torch.log(torch.exp(z).sum(-1)).mean()


def logsumexp_shifted(z):
    c = z.max(-1, keepdim=True).values
    return (c.squeeze(-1) + torch.log(torch.exp(z - c).sum(-1))).mean()


def logsumexp_shifted_detached(z):
    c = z.detach().amax(-1, keepdim=True)
    return (c.squeeze(-1) + torch.log(torch.exp(z - c).sum(-1))).mean()


def logsumexp_shift_by_mean(z):
    c = z.mean(-1, keepdim=True)
    return (c.squeeze(-1) + torch.log(torch.exp(z - c).sum(-1))).mean()


def softmax_by_hand(z):
    e = torch.exp(z - z.max(-1, keepdim=True).values)
    return (e / e.sum(-1, keepdim=True)).pow(2).sum()


def softmin_shift_wrong_axis(z):
    e = torch.exp(z - z.max(0, keepdim=True).values)
    return (e / e.sum(-1, keepdim=True)).pow(2).sum()


def log_softmax_by_hand(z):
    return (z - torch.logsumexp(z, -1, keepdim=True)).exp().log().mean()


def log_prob_exp_minus(z):
    lp = z - torch.logsumexp(z, -1, keepdim=True)
    return torch.log1p(-lp.exp()).mean()


def log_prob_exp_minus_half(z):
    lp = z - torch.logsumexp(z, -1, keepdim=True)
    return torch.log1p(-0.5 * lp.exp()).mean()


def logcumsumexp(z):
    return torch.logcumsumexp(z, -1).mean()


def cumsum_survival(x):
    return torch.log(torch.cumsum(x, -1)).mean()


def cumsum_survival_eps(x):
    return torch.log(torch.cumsum(x, -1) + 1e-3).mean()


def cumprod_survival(p):
    return torch.cumprod(1 - p, -1).mean()


def cumprod_log(p):
    return torch.log(torch.cumprod(1 - p, -1) + 1e-3).mean()


def prod_zero(x):
    return x.prod(-1).mean()


def prod_all(x):
    return torch.log(x.prod() + 1e-3)


def noisy_or(p):
    return -torch.log(1 - (1 - p).prod(-1)).mean()


def noisy_or_clamped(p):
    return -torch.log((1 - (1 - p).prod(-1)).clamp(min=1e-3)).mean()


def topk_ratio(x):
    v = x.topk(2, -1).values
    return (v[:, 1] / v[:, 0]).mean()


def topk_ratio_positive(x):
    v = (x.abs() + 1e-2).topk(2, -1).values
    return torch.log(v[:, 1] / v[:, 0]).mean()


def sort_gap(x):
    s = x.sort(-1).values
    return torch.log(s[:, 1:] - s[:, :-1]).mean()


def sort_gap_eps(x):
    s = x.sort(-1).values
    return torch.log((s[:, 1:] - s[:, :-1]).abs() + 1e-3).mean()


def lovasz_hinge(z, t):
    e = 1 - z * (2 * t - 1)
    errors, order = e.sort(descending=True)
    gt = t[order]
    inter = gt.sum() - gt.cumsum(0)
    union = gt.sum() + (1 - gt).cumsum(0)
    jac = 1 - inter / union
    jac = torch.cat([jac[:1], jac[1:] - jac[:-1]])
    return (F.relu(errors) * jac).sum()


def listnet(s, r):
    return -(F.softmax(r, -1) * F.log_softmax(s, -1)).sum(-1).mean()


def listmle(s, y):
    z = s.gather(-1, y.argsort(-1, descending=True))
    return (z.flip(-1).logcumsumexp(-1).flip(-1) - z).sum(-1).mean()


def ndcg(s, y):
    g = 2**y - 1
    d = torch.log2(torch.arange(2, s.shape[-1] + 2).to(s.dtype))
    ideal = (g.sort(-1, descending=True).values / d).sum(-1)
    return (1 - (F.softmax(s, -1) * g / d).sum(-1) / ideal).mean()


def ndcg_guarded(s, y):
    g = 2**y - 1
    d = torch.log2(torch.arange(2, s.shape[-1] + 2).to(s.dtype))
    ideal = (g.sort(-1, descending=True).values / d).sum(-1)
    return (1 - (F.softmax(s, -1) * g / d).sum(-1) / ideal.clamp(min=1e-3)).mean()


def median_scale(x):
    m = x.median(-1, keepdim=True).values
    return ((x - m) / (x - m).abs().median(-1, keepdim=True).values).mean()


def median_scale_eps(x):
    m = x.median(-1, keepdim=True).values
    return ((x - m) / ((x - m).abs().median(-1, keepdim=True).values + 1e-2)).mean()


def minmax(x):
    lo, hi = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    return ((x - lo) / (hi - lo)).mean()


def minmax_eps(x):
    lo, hi = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    return ((x - lo) / (hi - lo + 1e-2)).mean()


def minmax_log(x):
    lo, hi = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    r = (x - lo) / (hi - lo + 1e-2)
    return torch.log(1.01 - r).mean()


def minmax_sqrt(x):
    lo, hi = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    r = (x - lo) / (hi - lo + 1e-2)
    return torch.sqrt(1 - r).mean()


def scatter_mean(x, i):
    total = torch.zeros(3, dtype=x.dtype).scatter_add(0, i, x)
    count = torch.zeros(3, dtype=x.dtype).scatter_add(0, i, torch.ones_like(x))
    return (total / count).mean()


def scatter_mean_clamped(x, i):
    total = torch.zeros(3, dtype=x.dtype).scatter_add(0, i, x)
    count = torch.zeros(3, dtype=x.dtype).scatter_add(0, i, torch.ones_like(x))
    return (total / count.clamp(min=1)).mean()


def scatter_softmax(x, i):
    top = torch.full((3,), -1e4, dtype=x.dtype).scatter_reduce(0, i, x, "amax")
    e = torch.exp(x - top[i])
    s = torch.zeros(3, dtype=x.dtype).scatter_add(0, i, e)
    return torch.log(e / s[i]).mean()


def scatter_softmax_plain(x, i):
    e = torch.exp(x)
    s = torch.zeros(3, dtype=x.dtype).scatter_add(0, i, e)
    return (e / s[i]).pow(2).mean()


def index_put(x, i):
    w = torch.zeros(3, dtype=x.dtype)
    w = w.index_put((i,), x.abs(), accumulate=True)
    return torch.log(w + 1e-3).mean()


def index_add_in_place(x, i):
    w = torch.zeros(3, dtype=x.dtype)
    w.index_add_(0, i, x.abs())
    return (1 / (w + 1)).mean()


def in_place_chain(x):
    y = x.abs()
    y += 1e-3
    z = y.log()
    y = y.clone()
    y -= 1e-3
    return z.mean() + y.sqrt().mean()


def in_place_then_read(x):
    y = x * 1
    y[:, 0] = 0
    y[:, 1:].mul_(2).add_(1)
    return torch.log(y.abs() + 1e-3).mean()


def in_place_mask(x, m):
    y = x.clone()
    y[~m] = 1.0
    return torch.log(y).mean()


def out_of_mask(x, m):
    y = torch.log(x)
    y[~m] = 0.0
    return y.mean()


def soft_argmax(z):
    p = F.softmax(z, -1)
    return (p * torch.arange(p.shape[-1]).to(z.dtype)).sum(-1).mean()


def gumbel_log_log(u):
    return -torch.log(-torch.log(u)).mean()


def gumbel_log_log_eps(u):
    return -torch.log(-torch.log(u * 0.98 + 0.01)).mean()


def sinkhorn(c):
    k = torch.exp(-c / 0.1)
    u = torch.ones(k.shape[0], dtype=c.dtype)
    for _ in range(3):
        v = 1 / (k.T @ u)
        u = 1 / (k @ v)
    return (u[:, None] * k * v[None] * c).sum()


def sinkhorn_log(c):
    k = -c / 0.1
    f, g = torch.zeros(k.shape[0], dtype=c.dtype), torch.zeros(k.shape[1], dtype=c.dtype)
    for _ in range(3):
        g = -torch.logsumexp(k + f[:, None], 0)
        f = -torch.logsumexp(k + g[None], 1)
    return (torch.exp(k + f[:, None] + g[None]) * c).sum()


def token_mean(lp, m):
    return -(lp * m).sum(-1).div(m.sum(-1)).mean()


def token_mean_max(lp, m):
    return -(lp * m).sum(-1).div(torch.maximum(m.sum(-1), torch.ones(1, dtype=lp.dtype))).mean()


def max_minus_max(x):
    return torch.log(1 + (x.amax(-1) - x.amax(-1)) ** 2).mean()


def ratio_to_max(x):
    return torch.asin(0.99 * x / (x.amax(-1, keepdim=True) + 1e-2)).mean()


def ratio_to_max_abs(x):
    return torch.asin(0.99 * x / (x.abs().amax(-1, keepdim=True) + 1e-2)).mean()


def ratio_to_max_abs_tiny(x):
    return torch.atanh(0.99 * x / (x.abs().amax(-1, keepdim=True) + 1e-30)).mean()


def ratio_to_sum(x):
    return torch.log(1 - 0.999 * x / (x.sum(-1, keepdim=True) + 1e-3)).mean()


def nan_branch(x, y):
    r = torch.log(x)
    top = torch.maximum(r, y)
    return torch.where(torch.isnan(top), 1 / (y + 5), torch.zeros_like(y)).mean()


A = real(4, 3, low=-10, high=10)
P = prob(4, 3)
CASES = {
    "attention_inf": {"q": A, "k": A, "m": mask(4, 4)},
    "attention_big": {"q": A, "k": A, "m": mask(4, 4)},
    "attention_repaired": {"q": A, "k": A, "m": mask(4, 4)},
    "attention_nan_to_num": {"q": A, "k": A, "m": mask(4, 4)},
    "sdpa": {"q": A, "k": A, "v": A},
    "sdpa_mask": {"q": A, "k": A, "v": A, "m": mask(4, 4)},
    "causal": {"z": logit(4, 4)},
    "additive_mask": {"z": logit(4, 3), "m": binary(4, 3)},
    "masked_log_softmax_sum": {"z": logit(4, 3), "m": mask(4, 3)},
    "logsumexp_masked": {"z": logit(4, 3), "m": mask(4, 3)},
    "logsumexp_by_hand": {"z": logit(4, 3)},
    "logsumexp_shifted": {"z": real(4, 3)},
    "logsumexp_shifted_detached": {"z": real(4, 3)},
    "logsumexp_shift_by_mean": {"z": real(4, 3)},
    "softmax_by_hand": {"z": real(4, 3)},
    "softmin_shift_wrong_axis": {"z": real(4, 3)},
    "log_softmax_by_hand": {"z": logit(4, 3)},
    "log_prob_exp_minus": {"z": logit(4, 3)},
    "log_prob_exp_minus_half": {"z": logit(4, 3)},
    "logcumsumexp": {"z": real(4, 3)},
    "cumsum_survival": {"x": nonnegative(4, 3, high=10)},
    "cumsum_survival_eps": {"x": nonnegative(4, 3, high=10)},
    "cumprod_survival": {"p": P},
    "cumprod_log": {"p": P},
    "prod_zero": {"x": real(4, 3, low=-5, high=5)},
    "prod_all": {"x": P},
    "noisy_or": {"p": P},
    "noisy_or_clamped": {"p": P},
    "topk_ratio": {"x": A},
    "topk_ratio_positive": {"x": A},
    "sort_gap": {"x": A},
    "sort_gap_eps": {"x": A},
    "lovasz_hinge": {"z": real(6, low=-10, high=10), "t": binary(6)},
    "listnet": {"s": logit(4, 3), "r": logit(4, 3)},
    "listmle": {"s": logit(4, 3), "y": real(4, 3, low=0, high=4, grad=False)},
    "ndcg": {"s": logit(4, 3), "y": real(4, 3, low=0, high=4, grad=False)},
    "ndcg_guarded": {"s": logit(4, 3), "y": real(4, 3, low=0, high=4, grad=False)},
    "median_scale": {"x": A},
    "median_scale_eps": {"x": A},
    "minmax": {"x": A},
    "minmax_eps": {"x": A},
    "minmax_log": {"x": A},
    "minmax_sqrt": {"x": A},
    "scatter_mean": {"x": real(6, low=-10, high=10), "i": classes(3, 6)},
    "scatter_mean_clamped": {"x": real(6, low=-10, high=10), "i": classes(3, 6)},
    "scatter_softmax": {"x": real(6, low=-10, high=10), "i": classes(3, 6)},
    "scatter_softmax_plain": {"x": real(6, low=-10, high=10), "i": classes(3, 6)},
    "index_put": {"x": real(6, low=-10, high=10), "i": classes(3, 6)},
    "index_add_in_place": {"x": real(6, low=-10, high=10), "i": classes(3, 6)},
    "in_place_chain": {"x": A},
    "in_place_then_read": {"x": A},
    "in_place_mask": {"x": positive(4, 3), "m": mask(4, 3)},
    "out_of_mask": {"x": nonnegative(4, 3), "m": mask(4, 3)},
    "soft_argmax": {"z": real(4, 3)},
    "gumbel_log_log": {"u": prob(4, 3)},
    "gumbel_log_log_eps": {"u": prob(4, 3)},
    "sinkhorn": {"c": real(3, 3, low=0, high=20)},
    "sinkhorn_log": {"c": real(3, 3, low=0, high=20)},
    "token_mean": {"lp": real(4, 3, low=-50, high=0), "m": binary(4, 3)},
    "token_mean_max": {"lp": real(4, 3, low=-50, high=0), "m": binary(4, 3)},
    "max_minus_max": {"x": A},
    "ratio_to_max": {"x": A},
    "ratio_to_max_abs": {"x": A},
    "ratio_to_max_abs_tiny": {"x": A},
    "ratio_to_sum": {"x": P},
    "nan_branch": {"x": real(4, 3, low=-5, high=5), "y": real(4, 3, low=-5, high=5)},
}
