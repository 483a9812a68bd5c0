"""The losses of the suite in PyTorch. `# <- text` stands at the end of the line that fails and quotes the expression that does."""

import torch
from torch.nn import functional as F

# ---------------------------------------------------------------- classification


def bce_by_hand(p, t):
    sure = torch.log(p)  # <- torch.log(p)
    return -torch.mean(t * sure + (1 - t) * torch.log(1.001 - p))


def bce_clamped(p, t):
    p = torch.clamp(p, 1e-6, 1 - 1e-6)
    return -torch.mean(t * torch.log(p) + (1 - t) * torch.log(1 - p))


def bce_clamped_1e8(p, t):
    p = torch.clamp(p, 1e-8, 1 - 1e-8)
    other = torch.log(1 - p)  # <- torch.log(1 - p)
    return -torch.mean(t * torch.log(p) + (1 - t) * other)


def bce_epsilon_1e8(p, t):
    other = torch.log(1 - p + 1e-8)  # <- torch.log(1 - p + 1e-8)
    return -torch.mean(t * torch.log(p + 1e-8) + (1 - t) * other)


def bce_half_epsilon(p, t):
    sure = torch.log(p + 1e-8)  # <- torch.log(p + 1e-8)
    return -torch.mean(t * sure)


def bce_of_sigmoid(x, t):
    p = torch.sigmoid(x)
    other = torch.log(1 - p)  # <- torch.log(1 - p)
    return -torch.mean(t * torch.log(p) + (1 - t) * other)


def bce_with_logits(x, t):
    return F.binary_cross_entropy_with_logits(x, t)


def cross_entropy_of_softmax(z, t):
    logs = torch.log(torch.softmax(z, -1))  # <- torch.log(torch.softmax(z, -1))
    return -torch.mean(torch.sum(t * logs, -1))


def cross_entropy(z, t):
    return -torch.mean(torch.sum(t * torch.log_softmax(z, -1), -1))


def label_smoothing(z, t):
    soft = 0.9 * t + 0.1 / 3
    return -torch.mean(torch.sum(soft * torch.log_softmax(z, -1), -1))


def brier(z, t):
    return torch.mean(torch.square(torch.softmax(z, -1) - t))


def softmax_by_hand(z, t):
    e = torch.exp(z)
    p = e / torch.sum(e, -1, keepdim=True)  # <- e / torch.sum(e, -1, keepdim=True)
    return torch.mean((p - t) ** 2)


def masked_softmax(z, allowed, t):
    z = torch.where(allowed, z, -torch.inf)
    p = torch.softmax(z, -1)  # <- torch.softmax(z, -1)
    return torch.mean((p - t) ** 2)


def masked_softmax_finite(z, allowed, t):
    z = torch.where(allowed, z, -1e9)
    p = torch.softmax(z, -1)
    return torch.mean((p - t) ** 2)


def focal_gamma_0_7(x, t):
    bce = F.softplus(x) - t * x
    weight = (1 - torch.exp(-bce)) ** 0.7  # <- (1 - torch.exp(-bce)) ** 0.7
    return torch.mean(weight * bce)


def focal_gamma_2(x, t):
    bce = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    return torch.mean((1 - torch.exp(-bce)) ** 2 * bce)


# ---------------------------------------------------------------- overlap


def dice(p, t):
    overlap = 2 * torch.sum(p * t, -1) / torch.sum(p + t, -1)  # <- 2 * torch.sum(p * t, -1) / torch.sum(p + t, -1)
    return 1 - torch.mean(overlap)


def dice_smooth(p, t):
    return 1 - torch.mean((2 * torch.sum(p * t, -1) + 1) / (torch.sum(p + t, -1) + 1))


def focal_tversky(p, t):
    hit, miss = torch.sum(p * t, -1), torch.sum((1 - p) * t, -1)
    index = (hit + 1) / (hit + 0.7 * miss + 1)
    return torch.mean((1 - index) ** 0.75)  # <- (1 - index) ** 0.75


def tversky(p, t):
    hit, miss, extra = torch.sum(p * t, -1), torch.sum((1 - p) * t, -1), torch.sum(p * (1 - t), -1)
    return 1 - torch.mean((hit + 1) / (hit + 0.3 * extra + 0.7 * miss + 1))


# ---------------------------------------------------------------- divergences and entropies


def entropy(p):
    logs = torch.log(p)  # <- torch.log(p)
    return -torch.mean(torch.sum(p * logs, -1))


def entropy_where(p):
    terms = torch.where(p > 0, p * torch.log(p), 0.0)  # <- p * torch.log(p)
    return -torch.mean(torch.sum(terms, -1))


def entropy_double_where(p):
    inside = p > 0.001
    terms = torch.where(inside, p * torch.log(torch.where(inside, p, 1.0)), 0.0)
    return -torch.mean(torch.sum(terms, -1))


def kl_divergence(p, q):
    ratio = p / q  # <- p / q
    return torch.mean(torch.sum(p * torch.log(ratio), -1))


def kl_of_logits(x, z):
    a, b = torch.log_softmax(x, -1), torch.log_softmax(z, -1)
    return torch.mean(torch.sum(torch.exp(a) * (a - b), -1))


def masked_policy_gradient(logp, allowed, weight):
    logp = torch.where(allowed, logp, -torch.inf)
    return -torch.mean(allowed.float() * logp * weight)  # <- allowed.float() * logp


# ---------------------------------------------------------------- likelihoods


def reduced_chi_square(mu, y, sigma):
    return torch.mean(torch.square((y - mu) / sigma))  # <- torch.square((y - mu) / sigma)


def gaussian_nll(mu, y, logvar):
    return 0.5 * torch.mean(logvar + torch.square(y - mu) * torch.exp(-logvar))  # <- torch.exp(-logvar)


def gaussian_nll_bounded(mu, y, logvar):
    logvar = torch.clamp(logvar, -10, 10)
    return 0.5 * torch.mean(logvar + torch.square(y - mu) * torch.exp(-logvar))


def vae_kl(mu, logvar):
    return -0.5 * torch.mean(1 + logvar - mu * mu - torch.exp(logvar))  # <- torch.exp(logvar)


def vae_kl_bounded(mu, logvar):
    logvar = torch.clamp(logvar, -20, 20)
    return -0.5 * torch.mean(1 + logvar - mu * mu - torch.exp(logvar))


def student_t_nll(mu, y):
    return torch.mean(2 * torch.log1p(torch.square(y - mu) / 3))


def cox(risk):
    reach = torch.cumsum(torch.exp(risk), -1)  # <- torch.exp(risk)
    return -torch.mean(risk - torch.log(reach))


def cox_pairwise(risk, times):
    at_risk = times[None, :] >= times[:, None]
    pool = torch.logsumexp(torch.where(at_risk, risk[None, :], -1e9), -1)
    return -torch.mean(risk - pool)


def likelihood_product(odds):
    return torch.mean(odds[:, 0] * odds[:, 1])  # <- odds[:, 0] * odds[:, 1]


def ppo_ratio(new, old, advantage):
    ratio = torch.exp(new - old)  # <- torch.exp(new - old)
    return -torch.mean(torch.minimum(ratio * advantage, torch.clamp(ratio, 0.8, 1.2) * advantage))


def ppo_ratio_bounded(new, old, advantage):
    ratio = torch.exp(torch.clamp(new - old, -20, 20))
    return -torch.mean(torch.minimum(ratio * advantage, torch.clamp(ratio, 0.8, 1.2) * advantage))


# ---------------------------------------------------------------- distances and angles


def contrastive(a, b, same):
    d = torch.sqrt(torch.sum(torch.square(a - b), -1))  # <- torch.sqrt(torch.sum(torch.square(a - b), -1))
    return torch.mean(same * d**2 + (1 - same) * F.relu(1 - d) ** 2)


def contrastive_epsilon(a, b, same):
    d = torch.sqrt(torch.sum(torch.square(a - b), -1) + 1e-6)
    return torch.mean(same * d**2 + (1 - same) * F.relu(1 - d) ** 2)


def triplet_norm(a, b, c):
    near = torch.linalg.norm(a - b, dim=-1)  # <- torch.linalg.norm(a - b, dim=-1)
    return torch.mean(F.relu(near - torch.sqrt(torch.sum(torch.square(a - c), -1) + 1e-6) + 1))


def triplet_squared(a, b, c):
    return torch.mean(F.relu(torch.sum(torch.square(a - b), -1) - torch.sum(torch.square(a - c), -1) + 1))


def bpr(a, b):
    return -torch.mean(F.logsigmoid(a - b))


def cosine(a, b):
    dot = torch.sum(a * b, -1)
    length = torch.sqrt(torch.sum(a * a, -1) * torch.sum(b * b, -1))
    return 1 - torch.mean(dot / length)  # <- dot / length


def cosine_bounded(a, b):
    dot = torch.sum(a * b, -1)
    length = torch.sqrt(torch.sum(a * a, -1) + 1e-6) * torch.sqrt(torch.sum(b * b, -1) + 1e-6)
    return 1 - torch.mean(dot / length)


def info_nce(similarity):
    e = torch.exp(similarity / 0.01)  # <- torch.exp(similarity / 0.01)
    return -torch.mean(torch.log(torch.diagonal(e) / torch.sum(e, -1)))


def info_nce_log_softmax(similarity):
    return -torch.mean(torch.diagonal(torch.log_softmax(similarity / 0.01, -1)))


def arcface(cosine):
    angle = torch.acos(cosine)  # <- torch.acos(cosine)
    return -torch.mean(torch.cos(angle + 0.5))


def arcface_clamped(cosine):
    angle = torch.acos(torch.clamp(cosine, -1 + 1e-6, 1 - 1e-6))
    return -torch.mean(torch.cos(angle + 0.5))


def arcface_clamped_1e8(cosine):
    angle = torch.acos(torch.clamp(cosine, -1 + 1e-8, 1 - 1e-8))  # <- torch.acos(torch.clamp(cosine, -1 + 1e-8, 1 - 1e-8))
    return -torch.mean(torch.cos(angle + 0.5))


def angle_between(a, b, weight):
    angle = torch.acos(torch.sum(a * b, -1))  # <- torch.acos(torch.sum(a * b, -1))
    return torch.mean(weight * angle)


def angle_of_sine(p):
    return torch.mean(torch.asin(p))  # <- torch.asin(p)


def heading(y, x):
    return torch.mean(torch.square(torch.atan2(y, x)))  # <- torch.atan2(y, x)


def heading_ahead(y, x):
    return torch.mean(torch.square(torch.atan2(y, x)))


def critics_apart(one, other, allowed):
    best = torch.amax(torch.where(allowed, one, -torch.inf), -1)
    also = torch.amax(torch.where(allowed, other, -torch.inf), -1)
    return torch.mean(best - also)  # <- best - also


def detour(route, straight, reachable):
    route, straight = torch.where(reachable, route, torch.inf), torch.where(reachable, straight, torch.inf)
    return torch.mean(route / straight)  # <- route / straight


# ---------------------------------------------------------------- regression


def rmse(p, y):
    return torch.sqrt(torch.mean(torch.square(p - y)))  # <- torch.sqrt(torch.mean(torch.square(p - y)))


def rmse_epsilon(p, y):
    return torch.sqrt(torch.mean(torch.square(p - y)) + 1e-6)


def huber(p, y):
    e = torch.abs(p - y)
    return torch.mean(torch.where(e < 1, 0.5 * e * e, e - 0.5))


def log_cosh(p, y):
    return torch.mean(torch.log(torch.cosh(p - y)))  # <- torch.cosh(p - y)


def log_cosh_softplus(p, y):
    e = p - y
    return torch.mean(e + F.softplus(-2 * e) - 0.6931472)


def quantile(p, y):
    e = y - p
    return torch.mean(torch.maximum(0.9 * e, -0.1 * e))


def wing(p, y):
    e = torch.abs(p - y)
    return torch.mean(torch.where(e < 10, 10 * torch.log1p(e / 2), e + 7.918))


def msle(p, y):
    return torch.mean(torch.square(torch.log1p(p) - torch.log1p(y)))  # <- torch.log1p(p)


def mape(p, y):
    return torch.mean(torch.abs((y - p) / y))  # <- (y - p) / y


def smape(p, y):
    error = torch.abs(p - y) / (torch.abs(p) + torch.abs(y))  # <- torch.abs(p - y) / (torch.abs(p) + torch.abs(y))
    return torch.mean(error)


def ratio_where(n, d):
    return torch.mean(torch.where(d > 0.01, n / d, 0.0))  # <- n / d


def ratio_double_where(n, d):
    inside = d > 0.01
    return torch.mean(torch.where(inside, n / torch.where(inside, d, 1.0), 0.0))


def root_where(x):
    return torch.mean(torch.where(x > 0, torch.sqrt(x), 0.0))  # <- torch.sqrt(x)


def gamma_correction(p, y):
    return torch.mean(torch.square(p**0.45 - y))  # <- p**0.45


def gamma_correction_clamped(p, y):
    return torch.mean(torch.square(torch.clamp(p, min=0.001) ** 0.45 - y))


def circle(x):
    return torch.mean(torch.sqrt(1 - x * x))  # <- torch.sqrt(1 - x * x)


def probit(p, y):
    score = 1.4142136 * torch.erfinv(2 * p - 1)  # <- torch.erfinv(2 * p - 1)
    return torch.mean(torch.square(score - y))


def masked_mean(e, mask):
    mask = mask.float()
    return torch.sum(e * mask) / torch.sum(mask)  # <- torch.sum(e * mask) / torch.sum(mask)


def masked_mean_guarded(e, mask):
    mask = mask.float()
    return torch.sum(e * mask) / torch.clamp(torch.sum(mask), min=1)


def smoothness(p):
    return torch.mean(torch.square(p[1:] - p[:-1]))  # <- torch.mean(torch.square(p[1:] - p[:-1]))


def missing_label(p, y):
    return torch.mean(torch.square(p - y))


# ---------------------------------------------------------------- statistics and formats


def standardised(x, y):
    z = (x - torch.mean(x)) / torch.std(x, correction=0)  # <- (x - torch.mean(x)) / torch.std(x, correction=0)
    return torch.mean(z * y)


def layer_norm(x, y):
    z = (x - torch.mean(x)) / torch.sqrt(torch.var(x, correction=0) + 1e-5)
    return torch.mean(z * y)


def half_precision(p):
    return torch.max(torch.abs(p.half()))  # <- p.half()


def half_precision_sum(e):
    return torch.sum(e)  # <- torch.sum(e)


def softplus_by_hand(x):
    return torch.mean(torch.log(1 + torch.exp(x)))  # <- torch.exp(x)


def softplus(x):
    return torch.mean(F.softplus(x))


# ---------------------------------------------------------------- gradients of one's own


class _Softplus(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return F.softplus(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        e = torch.exp(x)  # <- torch.exp(x)
        return g * e / (1 + e)


def custom_gradient_overflow(x):
    return torch.mean(_Softplus.apply(x))


class _Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return F.softplus(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * g * torch.sigmoid(x)


def custom_gradient_wrong(x):
    return torch.mean(_Doubled.apply(x))
