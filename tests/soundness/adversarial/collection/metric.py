"""Metric learning, segmentation, detection boxes."""

import math

import torch
import torch.nn.functional as F

from whynan import binary, classes, nonnegative, prob, real, unit


def cosine_by_hand(a, b):
    return (1 - (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))).mean()


def cosine_by_hand_eps(a, b):
    return (1 - (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1) + 1e-3)).mean()


def cosine_builtin(a, b):
    return (1 - F.cosine_similarity(a, b)).mean()


def cosine_acos(a, b):
    return torch.acos(F.cosine_similarity(a, b)).mean()


def cosine_acos_scaled(a, b):
    return torch.acos(0.99 * F.cosine_similarity(a, b)).mean()


def cosine_sqrt(a, b):
    return torch.sqrt(2 - 2 * F.cosine_similarity(a, b)).mean()


def cosine_embedding(a, b, y):
    return F.cosine_embedding_loss(a, b, 2 * y - 1)


def triplet_builtin(a, p, n):
    return F.triplet_margin_loss(a, p, n)


def triplet_norm(a, p, n):
    return F.relu((a - p).norm(dim=-1) - (a - n).norm(dim=-1) + 0.2).mean()


def triplet_squared(a, p, n):
    return F.relu(((a - p) ** 2).sum(-1) - ((a - n) ** 2).sum(-1) + 0.2).mean()


def contrastive(a, b, y):
    d = F.pairwise_distance(a, b)
    return (y * d**2 + (1 - y) * F.relu(1 - d) ** 2).mean()


def contrastive_by_hand(a, b, y):
    d = torch.sqrt(((a - b) ** 2).sum(-1))
    return (y * d**2 + (1 - y) * F.relu(1 - d) ** 2).mean()


def batch_hard(x):
    d = torch.cdist(x, x)
    return F.relu(d.max(1).values - d.topk(2, largest=False).values[:, 1] + 0.3).mean()


def cdist_p1(x, y):
    return torch.cdist(x, y, p=1).mean()


def cdist_inf(x, y):
    return torch.cdist(x, y, p=torch.inf).mean()


def cdist_p3(x, y):
    return torch.cdist(x, y, p=3).mean()


def pdist(x):
    return F.pdist(x).mean()


def info_nce(a, b):
    a, b = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
    return F.cross_entropy(a @ b.T / 0.07, torch.arange(len(a)))


def info_nce_exp(a, b):
    a, b = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
    s = torch.exp(a @ b.T / 0.07)
    return -torch.log(s.diagonal() / s.sum(-1)).mean()


def info_nce_exp_cold(a, b):
    a, b = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
    s = torch.exp(a @ b.T / 0.005)
    return -torch.log(s.diagonal() / s.sum(-1)).mean()


def normalize_by_hand(a):
    return (a / a.norm(dim=-1, keepdim=True)).sum()


def normalize_by_hand_clamp(a):
    return (a / a.norm(dim=-1, keepdim=True).clamp(min=1e-3)).sum()


def normalize_rsqrt(a):
    return (a * torch.rsqrt((a * a).sum(-1, keepdim=True))).sum()


def normalize_rsqrt_eps(a):
    return (a * torch.rsqrt((a * a).sum(-1, keepdim=True) + 1e-6)).sum()


def normalize_acos(a):
    n = F.normalize(a, dim=-1)
    return torch.acos(n * 0.999).mean()


def normalize_log(a):
    n = F.normalize(a, dim=-1)
    return torch.log(1.01 - n * n).mean()


def normalize_sqrt_tight(a):
    n = F.normalize(a, dim=-1)
    return torch.sqrt(1 - n * n).mean()


def normalize_sqrt_tight_nograd(a):
    n = F.normalize(a, dim=-1)
    return torch.sqrt(1.00001 - n * n).mean()


def supcon(z, y):
    z = F.normalize(z, dim=-1)
    s = z @ z.T / 0.1
    same = (y[:, None] == y[None]) & ~torch.eye(len(y), dtype=torch.bool)
    lp = F.log_softmax(s.masked_fill(torch.eye(len(y), dtype=torch.bool), -torch.inf), -1)
    return -((lp * same).sum(-1) / same.sum(-1)).mean()


def supcon_guarded(z, y):
    z = F.normalize(z, dim=-1)
    eye = torch.eye(len(y), dtype=torch.bool)
    s = (z @ z.T / 0.1).masked_fill(eye, -1e4)
    same = (y[:, None] == y[None]) & ~eye
    lp = F.log_softmax(s, -1)
    return -((lp * same).sum(-1) / same.sum(-1).clamp(min=1)).mean()


def barlow(a, b):
    a, b = (a - a.mean(0)) / a.std(0), (b - b.mean(0)) / b.std(0)
    c = a.T @ b / len(a)
    return ((c - torch.eye(c.shape[0], dtype=c.dtype)) ** 2).sum()


def vicreg_std(a):
    return F.relu(1 - torch.sqrt(a.var(0) + 1e-4)).mean()


def byol(a, b):
    return 2 - 2 * (F.normalize(a, dim=-1) * F.normalize(b.detach(), dim=-1)).sum(-1).mean()


def uniformity(x):
    return torch.pdist(x).pow(2).mul(-2).exp().mean().log()


def mmd(x, y):
    d = ((x[:, None] - y[None]) ** 2).sum(-1)
    return torch.sqrt(torch.exp(-d).mean() - torch.exp(-d).mean() * 0.5)


def student_kernel(x, y):
    q = 1 / (1 + ((x[:, None] - y[None]) ** 2).sum(-1))
    p = q / q.sum()
    return (p * p.log()).sum()


def dice(p, t):
    return 1 - 2 * (p * t).sum() / (p.sum() + t.sum())


def dice_smooth(p, t):
    return 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)


def dice_eps(p, t):
    return 1 - 2 * (p * t).sum() / (p.sum() + t.sum() + 1e-8)


def log_dice(p, t):
    return -torch.log(2 * (p * t).sum() / (p.sum() + t.sum() + 1e-3))


def log_dice_smooth(p, t):
    return -torch.log((2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1))


def log_dice_power(p, t):
    return (-torch.log((2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1))) ** 0.3


def jaccard(p, t):
    i = (p * t).sum()
    return 1 - i / (p.sum() + t.sum() - i)


def jaccard_smooth(p, t):
    i = (p * t).sum()
    return 1 - (i + 1) / (p.sum() + t.sum() - i + 1)


def jaccard_log(p, t):
    i = (p * t).sum()
    return torch.log(1.001 - (i + 1) / (p.sum() + t.sum() - i + 1))


def tversky(p, t):
    tp, fp, fn = (p * t).sum(), (p * (1 - t)).sum(), ((1 - p) * t).sum()
    return (1 - (tp + 1) / (tp + 0.7 * fp + 0.3 * fn + 1)) ** 0.75


def tversky_plain(p, t):
    tp, fp, fn = (p * t).sum(), (p * (1 - t)).sum(), ((1 - p) * t).sum()
    return 1 - (tp + 1) / (tp + 0.7 * fp + 0.3 * fn + 1)


def squared_dice(p, t):
    return 1 - (2 * (p * t).sum() + 1e-3) / ((p * p).sum() + (t * t).sum() + 1e-3)


def iou(a, b):
    lt, rb = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    i = (rb - lt).clamp(min=0).prod(-1)
    u = (a[:, 2:] - a[:, :2]).prod(-1) + (b[:, 2:] - b[:, :2]).prod(-1) - i
    return (1 - i / u).mean()


def iou_cxcywh(a, b):
    a = torch.cat([a[:, :2] - a[:, 2:] / 2, a[:, :2] + a[:, 2:] / 2], 1)
    b = torch.cat([b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2], 1)
    lt, rb = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    i = (rb - lt).clamp(min=0).prod(-1)
    u = (a[:, 2:] - a[:, :2]).prod(-1) + (b[:, 2:] - b[:, :2]).prod(-1) - i
    return (1 - i / (u + 1e-7)).mean()


def wh_iou(a, b):
    i = torch.minimum(a, b).prod(-1)
    u = a.prod(-1) + b.prod(-1) - i
    return -torch.log((i + 1e-3) / (u + 1e-3)).mean()


def wh_iou_plain(a, b):
    i = torch.minimum(a, b).prod(-1)
    return (1 - i / (a.prod(-1) + b.prod(-1) - i)).mean()


def wh_iou_mul(a, b):
    i = torch.minimum(a[:, 0], b[:, 0]) * torch.minimum(a[:, 1], b[:, 1])
    u = a[:, 0] * a[:, 1] + b[:, 0] * b[:, 1] - i + 1e-3
    return torch.sqrt(1.01 - i / u).mean()


def ciou_aspect(a, b):
    v = 4 / math.pi**2 * (torch.atan(a[:, 0] / a[:, 1]) - torch.atan(b[:, 0] / b[:, 1])) ** 2
    i = torch.minimum(a, b).prod(-1)
    iou = i / (a.prod(-1) + b.prod(-1) - i + 1e-3)
    with torch.no_grad():
        alpha = v / (1 - iou + v)
    return (1 - iou + alpha * v).mean()


def ciou_aspect_eps(a, b):
    v = 4 / math.pi**2 * (torch.atan(a[:, 0] / (a[:, 1] + 1e-3)) - torch.atan(b[:, 0] / (b[:, 1] + 1e-3))) ** 2
    i = torch.minimum(a, b).prod(-1)
    iou = i / (a.prod(-1) + b.prod(-1) - i + 1e-3)
    alpha = v / (1 - iou + v + 1e-3)
    return (1 - iou + alpha * v).mean()


def box_log_targets(a, b):
    return torch.abs(torch.log(b / a)).mean()


def box_regression(a, b):
    return F.smooth_l1_loss(torch.log(b / (a + 1e-3) + 1e-3), a)


def boundary(p, d):
    return (p * d).sum() / (p.sum() + 1e-6)


def soft_edge(x):
    k = torch.tensor([[[[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]]], dtype=x.dtype)
    gx, gy = F.conv2d(x, k), F.conv2d(x, k.transpose(-1, -2))
    return torch.sqrt(gx**2 + gy**2).mean()


def soft_edge_eps(x):
    k = torch.tensor([[[[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]]], dtype=x.dtype)
    gx, gy = F.conv2d(x, k), F.conv2d(x, k.transpose(-1, -2))
    return torch.sqrt(gx**2 + gy**2 + 1e-4).mean()


def ssim(x, y):
    mx, my = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    vx, vy = F.avg_pool2d(x * x, 2) - mx * mx, F.avg_pool2d(y * y, 2) - my * my
    c = F.avg_pool2d(x * y, 2) - mx * my
    return 1 - ((2 * mx * my + 1e-4) * (2 * c + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))).mean()


def ssim_variance_sqrt(x):
    m = F.avg_pool2d(x, 2)
    return torch.sqrt(F.avg_pool2d(x * x, 2) - m * m).mean()


def variance_by_moments(x):
    return torch.log((x * x).mean(-1) - x.mean(-1) ** 2 + 1e-3).mean()


def variance_by_moments_large(x):
    return torch.sqrt((x * x).mean(-1) - x.mean(-1) ** 2 + 1e-3).mean()


def maxpool_ratio(x):
    m = F.max_pool2d(x, 2)
    return (F.avg_pool2d(x, 2) / (m + 1e-3)).mean()


def interpolate_log(x):
    return torch.log(F.interpolate(x, scale_factor=2, mode="bilinear") + 1e-3).mean()


def interpolate_cubic_log(x):
    return torch.log(F.interpolate(x, scale_factor=2, mode="bicubic") + 1e-3).mean()


A = real(4, 3, low=-10, high=10)
P, T = prob(2, 6), binary(2, 6)
WH = nonnegative(4, 2, high=100)
IMG = real(1, 1, 4, 4, low=0, high=1)
CASES = {
    **{
        n: {"a": A, "b": A}
        for n in ("cosine_by_hand", "cosine_by_hand_eps", "cosine_builtin", "cosine_acos", "cosine_acos_scaled", "cosine_sqrt")
    },
    "cosine_embedding": {"a": A, "b": A, "y": binary(4)},
    **{n: {"a": A, "p": A, "n": A} for n in ("triplet_builtin", "triplet_norm", "triplet_squared")},
    **{n: {"a": A, "b": A, "y": binary(4)} for n in ("contrastive", "contrastive_by_hand")},
    "batch_hard": {"x": A},
    **{n: {"x": A, "y": A} for n in ("cdist_p1", "cdist_inf", "cdist_p3", "mmd", "student_kernel")},
    "pdist": {"x": A},
    **{n: {"a": A, "b": A} for n in ("info_nce", "info_nce_exp", "info_nce_exp_cold", "barlow", "byol")},
    **{
        n: {"a": A}
        for n in (
            "normalize_by_hand",
            "normalize_by_hand_clamp",
            "normalize_rsqrt",
            "normalize_rsqrt_eps",
            "normalize_acos",
            "normalize_log",
            "normalize_sqrt_tight",
            "normalize_sqrt_tight_nograd",
            "vicreg_std",
        )
    },
    **{n: {"z": A, "y": classes(3, 4)} for n in ("supcon", "supcon_guarded")},
    "uniformity": {"x": unit(4, 3)},
    **{
        n: {"p": P, "t": T}
        for n in (
            "dice",
            "dice_smooth",
            "dice_eps",
            "log_dice",
            "log_dice_smooth",
            "log_dice_power",
            "jaccard",
            "jaccard_smooth",
            "jaccard_log",
            "tversky",
            "tversky_plain",
            "squared_dice",
        )
    },
    **{n: {"a": real(4, 4, low=0, high=100), "b": real(4, 4, low=0, high=100, grad=False)} for n in ("iou", "iou_cxcywh")},
    **{
        n: {"a": WH, "b": WH.but(grad=False, grad_given=True)}
        for n in ("wh_iou", "wh_iou_plain", "wh_iou_mul", "ciou_aspect", "ciou_aspect_eps", "box_log_targets", "box_regression")
    },
    "boundary": {"p": P, "d": real(2, 6, low=-10, high=10)},
    **{
        n: {"x": IMG}
        for n in ("soft_edge", "soft_edge_eps", "ssim_variance_sqrt", "maxpool_ratio", "interpolate_log", "interpolate_cubic_log")
    },
    "ssim": {"x": IMG, "y": IMG},
    "variance_by_moments": {"x": real(4, 3, low=-1, high=1)},
    "variance_by_moments_large": {"x": real(4, 3, low=-100, high=100)},
}
