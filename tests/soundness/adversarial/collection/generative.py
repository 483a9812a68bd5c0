"""VAEs, diffusion, flows, GANs, distributions, survival, reinforcement learning, modules with parameters."""

import math

import torch
import torch.distributions as D
import torch.nn.functional as F
from torch import nn

from whynan import binary, classes, logit, nonnegative, positive, prob, real, simplex


def vae_kl(mu, logvar):
    return -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(-1).mean()


def vae_kl_clamped(mu, logvar):
    return -0.5 * (1 + logvar - mu**2 - logvar.clamp(-10, 10).exp()).sum(-1).mean()


def vae_kl_sigma(mu, s):
    return (-torch.log(s) + (s**2 + mu**2 - 1) / 2).mean()


def vae_sample_nll(mu, logvar, x):
    z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
    return ((z - x) ** 2).mean()


def gaussian_nll_logvar(mu, logvar, x):
    return (0.5 * logvar + 0.5 * (x - mu) ** 2 / logvar.exp()).mean()


def gaussian_nll_logvar_neg(mu, logvar, x):
    return (0.5 * logvar + 0.5 * (x - mu) ** 2 * (-logvar).exp()).mean()


def mdn(pi, mu, s, y):
    comp = -0.5 * ((y - mu) / s.exp()) ** 2 - s - 0.5 * math.log(2 * math.pi)
    return -torch.logsumexp(F.log_softmax(pi, -1) + comp, -1).mean()


def mdn_naive(pi, mu, s, y):
    comp = torch.exp(-0.5 * ((y - mu) / s.exp()) ** 2) / (s.exp() * math.sqrt(2 * math.pi))
    return -torch.log((F.softmax(pi, -1) * comp).sum(-1)).mean()


def discretised_logistic(mu, ls, x):
    inv = torch.exp(-ls)
    hi, lo = torch.sigmoid((x - mu + 1 / 255) * inv), torch.sigmoid((x - mu - 1 / 255) * inv)
    return -torch.log(hi - lo).mean()


def discretised_logistic_clamped(mu, ls, x):
    inv = torch.exp(-ls)
    hi, lo = torch.sigmoid((x - mu + 1 / 255) * inv), torch.sigmoid((x - mu - 1 / 255) * inv)
    return -torch.log((hi - lo).clamp(min=1e-4)).mean()


def gan_minimax(d):
    return torch.log(1 - torch.sigmoid(d)).mean()


def gan_softplus(d):
    return -F.softplus(d).mean()


def wgan_gp(g):
    return ((g.flatten(1).norm(2, dim=1) - 1) ** 2).mean()


def flow_affine(x, s, t):
    z = (x - t) * torch.exp(-s)
    return (0.5 * z**2 + s).mean()


def flow_logit(x):
    z = torch.log(x) - torch.log(1 - x)
    return (z**2).mean()


def flow_logit_alpha(x):
    u = 0.05 + 0.9 * x
    z = torch.log(u) - torch.log(1 - u)
    return (0.5 * z**2 - torch.log(1 / u + 1 / (1 - u))).mean()


def ddpm_weight(e, p, a):
    return ((1 - a) / a * (e - p) ** 2).mean()


def ddpm_weight_eps(e, p, a):
    return ((1 - a) / (a + 1e-2) * (e - p) ** 2).mean()


def ddpm_sqrt(x, e, a):
    return ((torch.sqrt(a) * x + torch.sqrt(1 - a) * e) ** 2).mean()


def snr_weight(e, p, t):
    a = torch.cos(t * math.pi / 2) ** 2
    snr = a / (1 - a)
    return (torch.minimum(snr, torch.full_like(snr, 5.0)) / snr * (e - p) ** 2).mean()


def normal_log_prob(mu, s, x):
    return -D.Normal(mu, s).log_prob(x).mean()


def normal_log_prob_softplus(mu, s, x):
    return -D.Normal(mu, F.softplus(s) + 1e-2, validate_args=False).log_prob(x).mean()


def normal_kl(mu, s):
    return D.kl_divergence(D.Normal(mu, s, validate_args=False), D.Normal(torch.zeros_like(mu), torch.ones_like(s))).mean()


def normal_kl_exp(mu, ls):
    return D.kl_divergence(
        D.Normal(mu, ls.exp(), validate_args=False), D.Normal(torch.zeros_like(mu), torch.ones_like(mu), validate_args=False)
    ).mean()


def bernoulli_probs(p, t):
    return -D.Bernoulli(p, validate_args=False).log_prob(t).mean()


def bernoulli_logits(z, t):
    return -D.Bernoulli(logits=z, validate_args=False).log_prob(t).mean()


def bernoulli_entropy(p):
    return D.Bernoulli(p, validate_args=False).entropy().mean()


def categorical_probs(p, y):
    return -D.Categorical(p, validate_args=False).log_prob(y).mean()


def categorical_logits(z, y):
    return -D.Categorical(logits=z, validate_args=False).log_prob(y).mean()


def categorical_entropy(z):
    return D.Categorical(logits=z, validate_args=False).entropy().mean()


def beta_log_prob(a, b, x):
    return -D.Beta(a, b, validate_args=False).log_prob(x).mean()


def beta_log_prob_guarded(a, b, x):
    return -D.Beta(a + 1, b + 1, validate_args=False).log_prob(0.01 + 0.98 * x).mean()


def gamma_log_prob(a, b, x):
    return -D.Gamma(a, b, validate_args=False).log_prob(x).mean()


def gamma_log_prob_guarded(a, b, x):
    return -D.Gamma(a + 0.1, b + 0.1, validate_args=False).log_prob(x + 0.1).mean()


def laplace_log_prob(mu, s, x):
    return -D.Laplace(mu, s + 1e-2, validate_args=False).log_prob(x).mean()


def student_log_prob(df, mu, x):
    return -D.StudentT(df + 1, mu, torch.ones_like(mu), validate_args=False).log_prob(x).mean()


def dirichlet_log_prob(a, x):
    return -D.Dirichlet(a + 0.1, validate_args=False).log_prob(x).mean()


def dirichlet_kl(a, b):
    return D.kl_divergence(D.Dirichlet(a + 0.1, validate_args=False), D.Dirichlet(b + 0.1, validate_args=False)).mean()


def poisson_log_prob(r, k):
    return -D.Poisson(r, validate_args=False).log_prob(k).mean()


def negative_binomial(r, z, k):
    return -D.NegativeBinomial(r + 0.1, logits=z, validate_args=False).log_prob(k).mean()


def von_mises(mu, c, x):
    return -D.VonMises(mu, c + 1e-2, validate_args=False).log_prob(x).mean()


def log_normal(mu, s, x):
    return -D.LogNormal(mu, s + 1e-2, validate_args=False).log_prob(x).mean()


def tanh_normal(mu, s, a):
    base = D.Normal(mu, s + 1e-2, validate_args=False)
    x = torch.atanh(a)
    return -(base.log_prob(x) - torch.log(1 - a**2 + 1e-6)).mean()


def tanh_normal_clamped(mu, s, a):
    base = D.Normal(mu, s + 1e-2, validate_args=False)
    a = a.clamp(-0.99, 0.99)
    x = torch.atanh(a)
    return -(base.log_prob(x) - torch.log(1 - a**2 + 1e-6)).mean()


def ppo(lp, old, adv):
    r = torch.exp(lp - old)
    return -torch.minimum(r * adv, r.clamp(0.8, 1.2) * adv).mean()


def ppo_bounded(lp, old, adv):
    r = torch.exp((lp - old).clamp(-10, 10))
    return -torch.minimum(r * adv, r.clamp(0.8, 1.2) * adv).mean()


def advantage_normalised(lp, adv):
    a = (adv - adv.mean()) / adv.std()
    return -(lp * a).mean()


def advantage_normalised_eps(lp, adv):
    a = (adv - adv.mean()) / (adv.std() + 1e-2)
    return -(lp * a).mean()


def sac_entropy(z, q):
    p = F.softmax(z, -1)
    return (p * (0.2 * torch.log(p) - q)).sum(-1).mean()


def sac_entropy_eps(z, q):
    p = F.softmax(z, -1)
    return (p * (0.2 * torch.log(p + (p == 0) * 1e-4) - q)).sum(-1).mean()


def td_huber(q, r):
    return F.smooth_l1_loss(q, r + 0.99 * q.detach().roll(1))


def dpo(a, b, c, d):
    return -F.logsigmoid(0.1 * ((a - b) - (c - d))).mean()


def orpo(a, b):
    odds = (a - b) - (torch.log1p(-torch.exp(a)) - torch.log1p(-torch.exp(b)))
    return -F.logsigmoid(odds).mean()


def orpo_bounded(a, b):
    a, b = a.clamp(max=-1e-2), b.clamp(max=-1e-2)
    odds = (a - b) - (torch.log1p(-torch.exp(a)) - torch.log1p(-torch.exp(b)))
    return -F.logsigmoid(odds).mean()


def grpo(lp, ref):
    d = ref - lp
    return (torch.exp(d) - d - 1).mean()


def cox(risk, e):
    return -((risk - torch.logcumsumexp(risk, 0)) * e).sum() / e.sum()


def cox_guarded(risk, e):
    return -((risk - torch.logcumsumexp(risk, 0)) * e).sum() / e.sum().clamp(min=1)


def cox_naive(risk, e):
    return -((risk - torch.log(torch.cumsum(torch.exp(risk), 0))) * e).mean()


def weibull(t, k, lam, e):
    h = (t / lam) ** k
    return -(e * (torch.log(k / lam) + (k - 1) * torch.log(t / lam)) - h).mean()


def weibull_log(lt, k, ll, e):
    z = k * (lt - ll)
    return -(e * (torch.log(k) + z - lt) - torch.exp(z.clamp(max=10))).mean()


def discrete_hazard(z, e):
    h = torch.sigmoid(z)
    s = torch.cumprod(1 - h, -1)
    return -(e * torch.log(h) + (1 - e) * torch.log(s)).mean()


def discrete_hazard_stable(z, e):
    return -(e * F.logsigmoid(z) + (1 - e) * torch.cumsum(F.logsigmoid(-z), -1)).mean()


def brier_ipcw(s, g, e):
    return (e * (s**2) / g).mean()


def ctc(z, y):
    lengths = torch.full((2,), 5, dtype=torch.long)
    return F.ctc_loss(F.log_softmax(z, -1), y, lengths, torch.full((2,), 2, dtype=torch.long))


class Learned(nn.Module):
    """Uncertainty weights of two tasks."""

    def __init__(self):
        super().__init__()
        self.s = nn.Parameter(torch.zeros(2))

    def forward(self, a, b):
        return (torch.exp(-self.s[0]) * a).mean() + (torch.exp(-self.s[1]) * b).mean() + self.s.sum()


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.GELU(), nn.Linear(4, 2))

    def forward(self, x, y):
        return F.cross_entropy(self.net(x), y)


class Temperature(nn.Module):
    def __init__(self):
        super().__init__()
        self.tau = nn.Parameter(torch.zeros(()))

    def forward(self, z, y):
        return F.cross_entropy(z / self.tau, y)


learned, head, temp = Learned(), Head(), Temperature()


def mahalanobis(x, c):
    a = c @ c.transpose(-1, -2) + 0.1 * torch.eye(3, dtype=x.dtype)
    return (x * torch.linalg.solve(a, x[..., None])[..., 0]).sum()


def log_det(c):
    return torch.logdet(c @ c.transpose(-1, -2) + 0.1 * torch.eye(3, dtype=c.dtype))


def orthogonality(c):
    return torch.linalg.matrix_norm(c @ c.T - torch.eye(3, dtype=c.dtype))


def spectral(c):
    return torch.linalg.svdvals(c).max()


def einsum_attention(q, k):
    s = torch.einsum("id,jd->ij", q, k)
    return torch.einsum("ij,jd->id", torch.softmax(s, -1), k).norm()


def activations(x):
    return (F.gelu(x) + F.silu(x) + F.mish(x) + F.elu(x) + F.selu(x) + F.celu(x, 0.5) + F.softplus(x, 2.0) + F.hardswish(x)).mean()


def activations_log(x):
    return torch.log(F.gelu(x) + F.silu(x) + F.mish(x) + F.elu(x) + 3).mean()


def softplus_ratio(x):
    return (1 / F.softplus(x)).mean()


def softplus_ratio_eps(x):
    return (1 / (F.softplus(x) + 1e-2)).mean()


def elu_log(x):
    return torch.log(F.elu(x) + 1).mean()


def elu_log_eps(x):
    return torch.log(F.elu(x) + 1.01).mean()


def logaddexp(x, y):
    return torch.logaddexp(x, y).mean()


def logsubexp(x, y):
    m = torch.maximum(x, y)
    return (m + torch.log(torch.exp(x - m) - torch.exp(y - m) + 1.001)).mean()


MU, LV = real(4, 2, low=-10, high=10), real(4, 2, low=-30, high=30)
SG = positive(4, 2, high=10)
X = real(4, 2, low=-10, high=10)
POS = nonnegative(4, 2, high=10)
FIX = {"grad": False}
Y2 = classes(3, 4)
CASES = {
    "vae_kl": {"mu": real(4, 2), "logvar": real(4, 2)},
    "vae_kl_clamped": {"mu": X, "logvar": LV},
    "vae_kl_sigma": {"mu": X, "s": SG},
    "vae_sample_nll": {"mu": X, "logvar": LV, "x": X},
    "gaussian_nll_logvar": {"mu": MU, "logvar": real(4, 2, low=-200, high=200), "x": X},
    "gaussian_nll_logvar_neg": {"mu": MU, "logvar": real(4, 2, low=-50, high=50), "x": X},
    "mdn": {"pi": X, "mu": X, "s": real(4, 2, low=-3, high=3), "y": real(4, 1, low=-10, high=10)},
    "mdn_naive": {"pi": X, "mu": X, "s": real(4, 2, low=-3, high=3), "y": real(4, 1, low=-10, high=10)},
    "discretised_logistic": {"mu": X, "ls": real(4, 2, low=-3, high=3), "x": X},
    "discretised_logistic_clamped": {"mu": X, "ls": real(4, 2, low=-3, high=3), "x": X},
    "gan_minimax": {"d": logit(6)},
    "gan_softplus": {"d": logit(6)},
    "wgan_gp": {"g": X},
    "flow_affine": {"x": X, "s": real(4, 2, low=-3, high=3), "t": X},
    "flow_logit": {"x": prob(6)},
    "flow_logit_alpha": {"x": prob(6)},
    **{n: {"e": X, "p": X, "a": prob(4, 1)} for n in ("ddpm_weight", "ddpm_weight_eps")},
    "ddpm_sqrt": {"x": X, "e": X, "a": prob(4, 1)},
    "snr_weight": {"e": X, "p": X, "t": prob(4, 1, grad=False)},
    "normal_log_prob": {"mu": X, "s": SG, "x": X},
    "normal_log_prob_softplus": {"mu": X, "s": X, "x": X},
    "normal_kl": {"mu": X, "s": SG},
    "normal_kl_exp": {"mu": X, "ls": real(4, 2, low=-10, high=10)},
    "bernoulli_probs": {"p": prob(6), "t": binary(6)},
    "bernoulli_logits": {"z": logit(6), "t": binary(6)},
    "bernoulli_entropy": {"p": prob(6)},
    "categorical_probs": {"p": simplex(4, 3), "y": Y2},
    "categorical_logits": {"z": logit(4, 3), "y": Y2},
    "categorical_entropy": {"z": logit(4, 3)},
    **{
        n: {"a": positive(4, 2, high=20), "b": positive(4, 2, high=20), "x": prob(4, 2, grad=False)}
        for n in ("beta_log_prob", "beta_log_prob_guarded")
    },
    **{
        n: {"a": positive(4, 2, high=20), "b": positive(4, 2, high=20), "x": nonnegative(4, 2, high=20, grad=False)}
        for n in ("gamma_log_prob", "gamma_log_prob_guarded")
    },
    "laplace_log_prob": {"mu": X, "s": POS, "x": X},
    "student_log_prob": {"df": POS, "mu": X, "x": X},
    "dirichlet_log_prob": {"a": nonnegative(4, 3, high=10), "x": simplex(4, 3, grad=False)},
    "dirichlet_kl": {"a": nonnegative(4, 3, high=10), "b": nonnegative(4, 3, high=10)},
    "poisson_log_prob": {"r": POS, "k": real(4, 2, low=0, high=10, grad=False)},
    "negative_binomial": {"r": POS, "z": X, "k": real(4, 2, low=0, high=10, grad=False)},
    "von_mises": {"mu": X, "c": POS, "x": X},
    "log_normal": {"mu": X, "s": POS, "x": nonnegative(4, 2, high=10, grad=False)},
    **{n: {"mu": X, "s": POS, "a": real(4, 2, low=-1, high=1)} for n in ("tanh_normal", "tanh_normal_clamped")},
    **{
        n: {"lp": real(6, low=-100, high=0), "old": real(6, low=-100, high=0, grad=False), "adv": real(6, low=-10, high=10, grad=False)}
        for n in ("ppo", "ppo_bounded")
    },
    **{
        n: {"lp": real(6, low=-100, high=0), "adv": real(6, low=-10, high=10, grad=False)}
        for n in ("advantage_normalised", "advantage_normalised_eps")
    },
    **{n: {"z": logit(4, 3), "q": real(4, 3, low=-10, high=10, grad=False)} for n in ("sac_entropy", "sac_entropy_eps")},
    "td_huber": {"q": X, "r": X},
    "dpo": {n: real(4, low=-1000, high=0) for n in "abcd"},
    **{n: {"a": real(4, low=-50, high=0), "b": real(4, low=-50, high=0)} for n in ("orpo", "orpo_bounded")},
    "grpo": {"lp": real(6, low=-200, high=0), "ref": real(6, low=-200, high=0, grad=False)},
    **{n: {"risk": logit(6), "e": binary(6)} for n in ("cox", "cox_guarded", "cox_naive")},
    "weibull": {"t": nonnegative(6, high=10, grad=False), "k": positive(6, high=10), "lam": positive(6, high=10), "e": binary(6)},
    "weibull_log": {
        "lt": real(6, low=-3, high=3, grad=False),
        "k": real(6, low=0.1, high=10),
        "ll": real(6, low=-3, high=3),
        "e": binary(6),
    },
    **{n: {"z": logit(4, 3), "e": binary(4, 3)} for n in ("discrete_hazard", "discrete_hazard_stable")},
    "brier_ipcw": {"s": prob(6), "g": prob(6, grad=False), "e": binary(6)},
    "ctc": {"z": logit(5, 2, 4), "y": classes(3, 2, 2)},
    "learned": {"a": POS, "b": POS},
    "head": {"x": real(4, 3, low=-10, high=10), "y": classes(2, 4)},
    "temp": {"z": logit(4, 3), "y": Y2},
    "mahalanobis": {"x": real(2, 3, low=-1, high=1), "c": real(2, 3, 3, low=-1, high=1)},
    "log_det": {"c": real(3, 3, low=-1, high=1)},
    "orthogonality": {"c": real(3, 3, low=-1, high=1)},
    "spectral": {"c": real(3, 3, low=-1, high=1)},
    "einsum_attention": {"q": X, "k": X},
    "activations": {"x": real(6)},
    "activations_log": {"x": real(6, low=-50, high=50)},
    "softplus_ratio": {"x": real(6, low=-200, high=200)},
    "softplus_ratio_eps": {"x": real(6, low=-200, high=200)},
    "elu_log": {"x": real(6, low=-50, high=50)},
    "elu_log_eps": {"x": real(6, low=-50, high=50)},
    "logaddexp": {"x": real(6), "y": real(6)},
    "logsubexp": {"x": logit(6), "y": logit(6)},
}
