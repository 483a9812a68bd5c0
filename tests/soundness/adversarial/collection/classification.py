"""Losses of classifiers, by hand and built in, naive and repaired."""

import torch
import torch.nn.functional as F

from whynan import binary, classes, const, logit, onehot, prob, real, simplex


def bce_naive(p, t):
    return -(t * torch.log(p) + (1 - t) * torch.log(1 - p)).mean()


def bce_eps(p, t):
    return -(t * torch.log(p + 1e-7) + (1 - t) * torch.log(1 - p + 1e-7)).mean()


def bce_clamp(p, t):
    p = p.clamp(1e-4, 1 - 1e-4)
    return -(t * torch.log(p) + (1 - t) * torch.log(1 - p)).mean()


def bce_builtin(p, t):
    return F.binary_cross_entropy(p, t)


def bce_builtin_weight(p, t, w):
    return F.binary_cross_entropy(p, t, weight=w, reduction="sum")


def bce_logits(z, t):
    return F.binary_cross_entropy_with_logits(z, t)


def bce_logits_pos(z, t, w):
    return F.binary_cross_entropy_with_logits(z, t, pos_weight=w)


def bce_of_sigmoid(z, t):
    return F.binary_cross_entropy(torch.sigmoid(z), t)


def ce(z, y):
    return F.cross_entropy(z, y)


def ce_smooth(z, y):
    return F.cross_entropy(z, y, label_smoothing=0.1)


def ce_soft(z, q):
    return F.cross_entropy(z, q)


def ce_weight(z, y):
    return F.cross_entropy(z, y, weight=torch.tensor([0.0, 1.0, 2.0], dtype=z.dtype))


def ce_ignore(z, y):
    return F.cross_entropy(z, y, ignore_index=0)


def ce_ignore_repaired(z, y):
    n = (y != 0).sum().clamp(min=1)
    return F.cross_entropy(z, y, ignore_index=0, reduction="sum") / n


def nll_of_log_softmax_by_hand(z, y):
    p = torch.softmax(z, -1)
    return F.nll_loss(torch.log(p), y)


def nll_log_p_eps(p, y):
    return F.nll_loss(torch.log(p + 1e-6), y)


def gather_log(p, y):
    return -torch.log(p.gather(1, y[:, None])).mean()


def focal(z, t):
    p = torch.sigmoid(z)
    pt = torch.where(t == 1, p, 1 - p)
    return (-((1 - pt) ** 2) * torch.log(pt)).mean()


def focal_stable(z, t):
    ce = F.binary_cross_entropy_with_logits(z, t, reduction="none")
    pt = torch.exp(-ce)
    return ((1 - pt) ** 2 * ce).mean()


def focal_stable_half(z, t):
    ce = F.binary_cross_entropy_with_logits(z, t, reduction="none")
    pt = torch.exp(-ce)
    return ((1 - pt) ** 0.5 * ce).mean()


def focal_clamped_half(z, t):
    ce = F.binary_cross_entropy_with_logits(z, t, reduction="none")
    return ((1 - torch.exp(-ce)).clamp(min=1e-3) ** 0.5 * ce).mean()


def poly1(z, y):
    ce = F.cross_entropy(z, y, reduction="none")
    pt = F.one_hot(y, z.shape[-1]).to(z.dtype).mul(F.softmax(z, -1)).sum(-1)
    return (ce + 1.0 * (1 - pt)).mean()


def kl_batchmean(z, q):
    return F.kl_div(F.log_softmax(z, -1), q, reduction="batchmean")


def kl_by_hand(p, q):
    return (q * torch.log(q / p)).sum(-1).mean()


def kl_log_target(z, w):
    return F.kl_div(F.log_softmax(z, -1), F.log_softmax(w, -1), log_target=True, reduction="batchmean")


def js(p, q):
    m = (p + q) / 2
    return (p * torch.log(p / m) + q * torch.log(q / m)).sum(-1).mean()


def js_xlogy(p, q):
    m = (p + q) / 2
    return (torch.xlogy(p, p) - torch.xlogy(p, m) + torch.xlogy(q, q) - torch.xlogy(q, m)).sum(-1).mean()


def entropy(p):
    return -(p * p.log()).sum(-1).mean()


def entropy_masked(p):
    safe = torch.where(p > 0, p, torch.ones_like(p))
    return -(safe * safe.log()).sum(-1).mean()


def entropy_of_logits(z):
    lp = F.log_softmax(z, -1)
    return -(lp.exp() * lp).sum(-1).mean()


def entropy_special(p):
    return torch.special.entr(p).sum(-1).mean()


def label_smoothing(z, y):
    lp = torch.log_softmax(z, -1)
    nll = -lp.gather(-1, y.unsqueeze(-1)).squeeze(-1)
    return (0.9 * nll - 0.1 * lp.mean(-1)).mean()


def soft_margin(z, t):
    return F.soft_margin_loss(z, 2 * t - 1)


def soft_margin_softplus(z, t):
    return F.softplus(-z * (2 * t - 1)).mean()


def multilabel_soft(z, t):
    return F.multilabel_soft_margin_loss(z, t)


def multi_margin(z, y):
    return F.multi_margin_loss(z, y, p=2)


def generalised_ce(z, y):
    p = F.softmax(z, -1).gather(1, y[:, None])
    return ((1 - p**0.7) / 0.7).mean()


def generalised_ce_clamped(z, y):
    p = F.softmax(z, -1).gather(1, y[:, None]).clamp(min=1e-4)
    return ((1 - p**0.7) / 0.7).mean()


def symmetric_ce(z, y):
    p = F.softmax(z, -1).clamp(1e-4, 1)
    one = F.one_hot(y, 3).to(z.dtype).clamp(1e-4, 1)
    return F.cross_entropy(z, y) - (p * one.log()).sum(-1).mean()


def asymmetric(z, t):
    p = torch.sigmoid(z)
    q = (1 - p + 0.05).clamp(max=1)
    loss = t * torch.log(p.clamp(min=1e-5)) + (1 - t) * torch.log(q.clamp(min=1e-5))
    return -(loss * (1 - p * t - q * (1 - t)) ** 2).mean()


def temperature(z, y, tau):
    return F.cross_entropy(z / tau, y)


def arcface(c, y):
    theta = torch.acos(c)
    hot = F.one_hot(y, 3).to(c.dtype)
    return F.cross_entropy(30 * torch.cos(theta + 0.5 * hot), y)


def arcface_clamped(c, y):
    theta = torch.acos(c.clamp(-1 + 1e-3, 1 - 1e-3))
    hot = F.one_hot(y, 3).to(c.dtype)
    return F.cross_entropy(30 * torch.cos(theta + 0.5 * hot), y)


def balanced(z, y):
    counts = torch.bincount(y, minlength=3).to(z.dtype)
    w = 1 / counts
    return (F.cross_entropy(z, y, reduction="none") * w[y]).mean()


def seesaw_margin(z, y):
    top = z.topk(2, -1).values
    return F.relu(1 - (top[:, 0] - top[:, 1])).mean() + F.cross_entropy(z, y)


def max_probability_penalty(z):
    return -torch.log(F.softmax(z, -1).max(-1).values).mean()


def log_of_min(z):
    return -torch.log(1 - F.softmax(z, -1).max(-1).values).mean()


def normalised_ce(z, y):
    lp = F.log_softmax(z, -1)
    return (lp.gather(1, y[:, None]).squeeze(1) / lp.sum(-1)).mean()


def evidential(e, t):
    a = e + 1
    s = a.sum(-1, keepdim=True)
    return (t * (torch.digamma(s) - torch.digamma(a))).sum(-1).mean()


def mutual_information(z):
    p = F.softmax(z, -1)
    m = p.mean(0)
    return (m * m.log()).sum() - (p * p.log()).sum(-1).mean()


def log_one_minus_exp(x):
    return torch.log(1 - torch.exp(-x)).mean()


def ordinal(z, y):
    cuts = torch.tensor([-1.0, 0.0, 1.0], dtype=z.dtype)
    cum = torch.sigmoid(cuts - z[:, None])
    cum = torch.cat([torch.zeros_like(cum[:, :1]), cum, torch.ones_like(cum[:, :1])], 1)
    p = cum[:, 1:] - cum[:, :-1]
    return -torch.log(p.gather(1, y[:, None]) + 1e-6).mean()


def taylor_softmax(z, y):
    f = 1 + z + 0.5 * z * z
    p = f / f.sum(-1, keepdim=True)
    return F.nll_loss(p.log(), y)


Z, Y, T = logit(4, 3), classes(3, 4), binary(4, 3)
CASES = {
    "bce_naive": {"p": prob(8, 1), "t": binary(8, 1)},
    "bce_eps": {"p": prob(8, 1), "t": binary(8, 1)},
    "bce_clamp": {"p": prob(8, 1), "t": binary(8, 1)},
    "bce_builtin": {"p": prob(8, 1), "t": binary(8, 1)},
    "bce_builtin_weight": {"p": prob(4, 2), "t": prob(4, 2, grad=False), "w": real(4, 2, low=0, high=10, grad=False)},
    "bce_logits": {"z": real(8, 1), "t": binary(8, 1)},
    "bce_logits_pos": {"z": real(4, 2), "t": binary(4, 2), "w": const([3.0, 0.0])},
    "bce_of_sigmoid": {"z": real(8, 1), "t": binary(8, 1)},
    "ce": {"z": real(4, 3), "y": Y},
    "ce_smooth": {"z": Z, "y": Y},
    "ce_soft": {"z": Z, "q": simplex(4, 3)},
    "ce_weight": {"z": Z, "y": Y},
    "ce_ignore": {"z": Z, "y": Y},
    "ce_ignore_repaired": {"z": Z, "y": Y},
    "nll_of_log_softmax_by_hand": {"z": Z, "y": Y},
    "nll_log_p_eps": {"p": prob(4, 3), "y": Y},
    "gather_log": {"p": prob(4, 3), "y": Y},
    "focal": {"z": Z, "t": T},
    "focal_stable": {"z": Z, "t": T},
    "focal_stable_half": {"z": Z, "t": T},
    "focal_clamped_half": {"z": Z, "t": T},
    "poly1": {"z": Z, "y": Y},
    "kl_batchmean": {"z": Z, "q": simplex(4, 3, grad=False)},
    "kl_by_hand": {"p": simplex(4, 3), "q": simplex(4, 3, grad=False)},
    "kl_log_target": {"z": Z, "w": Z},
    "js": {"p": simplex(4, 3), "q": simplex(4, 3)},
    "js_xlogy": {"p": simplex(4, 3), "q": simplex(4, 3, grad=False)},
    "entropy": {"p": simplex(4, 3)},
    "entropy_masked": {"p": simplex(4, 3)},
    "entropy_of_logits": {"z": real(4, 3)},
    "entropy_special": {"p": simplex(4, 3)},
    "label_smoothing": {"z": Z, "y": Y},
    "soft_margin": {"z": Z, "t": T},
    "soft_margin_softplus": {"z": real(4, 3), "t": T},
    "multilabel_soft": {"z": Z, "t": T},
    "multi_margin": {"z": Z, "y": Y},
    "generalised_ce": {"z": Z, "y": Y},
    "generalised_ce_clamped": {"z": Z, "y": Y},
    "symmetric_ce": {"z": Z, "y": Y},
    "asymmetric": {"z": Z, "t": T},
    "temperature": {"z": Z, "y": Y, "tau": real(1, low=0.01, high=1)},
    "arcface": {"c": real(4, 3, low=-1, high=1), "y": Y},
    "arcface_clamped": {"c": real(4, 3, low=-1, high=1), "y": Y},
    "balanced": {"z": Z, "y": Y},
    "seesaw_margin": {"z": Z, "y": Y},
    "max_probability_penalty": {"z": Z},
    "log_of_min": {"z": Z},
    "normalised_ce": {"z": Z, "y": Y},
    "evidential": {"e": real(4, 3, low=0, high=100), "t": onehot(4, 3)},
    "mutual_information": {"z": Z},
    "log_one_minus_exp": {"x": real(6, low=0, high=50)},
    "ordinal": {"z": logit(4), "y": classes(4, 4)},
    "taylor_softmax": {"z": logit(4, 3), "y": Y},
}
