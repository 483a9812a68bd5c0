"""Regression, physics and geometry: roots, norms, ratios, angles."""

import math

import torch
import torch.nn.functional as F

from whynan import mask, nonnegative, positive, real, unit


def rmse(x, y):
    return torch.sqrt(((x - y) ** 2).mean())


def rmse_eps(x, y):
    return torch.sqrt(((x - y) ** 2).mean() + 1e-6)


def rmsle(x, y):
    return torch.sqrt(((torch.log1p(x) - torch.log1p(y)) ** 2).mean())


def mape(x, y):
    return ((x - y).abs() / y.abs()).mean()


def mape_clamp(x, y):
    return ((x - y).abs() / y.abs().clamp(min=1e-3)).mean()


def smape(x, y):
    return (2 * (x - y).abs() / (x.abs() + y.abs())).mean()


def smape_where(x, y):
    d = x.abs() + y.abs()
    ok = d > 1e-3
    return torch.where(ok, 2 * (x - y).abs() / torch.where(ok, d, torch.ones_like(d)), torch.zeros_like(d)).mean()


def log_cosh(x, y):
    return torch.log(torch.cosh(x - y)).mean()


def log_cosh_stable(x, y):
    d = x - y
    return (d + F.softplus(-2 * d) - math.log(2)).mean()


def huber(x, y):
    return F.huber_loss(x, y, delta=0.5)


def smooth_l1(x, y):
    return F.smooth_l1_loss(x, y, beta=0.1)


def charbonnier(x, y):
    return torch.sqrt((x - y) ** 2 + 1e-3**2).mean()


def charbonnier_tiny(x, y):
    return torch.sqrt((x - y) ** 2 + 1e-12).mean()


def quantile(x, y):
    d = y - x
    return torch.maximum(0.9 * d, -0.1 * d).mean()


def r_squared(x, y):
    return ((x - y) ** 2).sum() / ((y - y.mean()) ** 2).sum()


def r_squared_eps(x, y):
    return ((x - y) ** 2).sum() / (((y - y.mean()) ** 2).sum() + 1e-2)


def pearson(x, y):
    a, b = x - x.mean(), y - y.mean()
    return 1 - (a * b).sum() / (a.norm() * b.norm())


def pearson_eps(x, y):
    a, b = x - x.mean(), y - y.mean()
    return 1 - (a * b).sum() / (a.norm() * b.norm() + 1e-3)


def ccc(x, y):
    cov = ((x - x.mean()) * (y - y.mean())).mean()
    return 1 - 2 * cov / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


def standard(x):
    z = (x - x.mean(0)) / x.std(0)
    return (z**4).mean()


def standard_eps(x):
    z = (x - x.mean(0)) / (x.std(0) + 1e-3)
    return (z**2).mean()


def standard_var_eps(x):
    z = (x - x.mean(0)) / torch.sqrt(x.var(0, unbiased=False) + 1e-3)
    return (z**2).mean()


def power_spectrum(x):
    return (x.abs() ** 0.3).mean()


def cube_root_sign(x):
    return (x.sign() * (x.abs() + 1e-4) ** (1 / 3)).mean()


def pow_tensor(x, a):
    return torch.pow(x, a).mean()


def pow_tensor_clamped(x, a):
    return torch.pow(x.clamp(min=1e-2), a).mean()


def angle(u, v):
    return torch.acos((u * v).sum(-1)).mean()


def angle_clamped(u, v):
    return torch.acos((u * v).sum(-1).clamp(-0.999, 0.999)).mean()


def angle_atan2(x, y):
    return torch.atan2(y, x).mean()


def angle_atan2_eps(x, y):
    return torch.atan2(y, x.abs() + 1e-3).mean()


def vector_angle_cross(u, v):
    c = torch.linalg.cross(u, v)
    return torch.atan2(c.norm(dim=-1), (u * v).sum(-1)).mean()


def geodesic(r):
    trace = r.diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.acos(((trace - 1) / 2).clamp(-1, 1)).mean()


def geodesic_clamped(r):
    trace = r.diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.acos(((trace - 1) / 2).clamp(-1 + 1e-3, 1 - 1e-3)).mean()


def quaternion(q, p):
    q = F.normalize(q, dim=-1)
    return (1 - (q * p).sum(-1) ** 2).mean()


def quaternion_by_hand(q, p):
    q = q / q.norm(dim=-1, keepdim=True)
    return (1 - (q * p).sum(-1) ** 2).mean()


def quaternion_sqrt(q, p):
    q = F.normalize(q, dim=-1)
    return torch.sqrt(1 - (q * p).sum(-1) ** 2).mean()


def axis_angle(w):
    theta = torch.sqrt((w**2).sum(-1) + 1e-8)
    return (torch.sin(theta) / theta).mean()


def sinc_by_hand(x):
    return torch.where(x == 0, torch.ones_like(x), torch.sin(x) / x).mean()


def sinc_double_where(x):
    s = torch.where(x == 0, torch.ones_like(x), x)
    return torch.where(x == 0, torch.ones_like(x), torch.sin(s) / s).mean()


def coulomb(x):
    d = torch.cdist(x, x)
    i, j = torch.triu_indices(len(x), len(x), 1)
    return (1 / d[i, j]).sum()


def coulomb_softened(x):
    d = ((x[:, None] - x[None]) ** 2).sum(-1)
    return (1 / torch.sqrt(d + 1e-2)).sum()


def lennard_jones(r):
    s = (1 / r) ** 6
    return (4 * (s * s - s)).mean()


def lennard_jones_clamped(r):
    s = (1 / r.clamp(min=0.5)) ** 6
    return (4 * (s * s - s)).mean()


def chamfer(x, y):
    d = torch.cdist(x, y)
    return d.min(1).values.mean() + d.min(0).values.mean()


def chamfer_sqrt(x, y):
    d = ((x[:, None] - y[None]) ** 2).sum(-1).sqrt()
    return d.min(1).values.mean() + d.min(0).values.mean()


def chamfer_expanded(x, y):
    d = (x**2).sum(-1)[:, None] + (y**2).sum(-1)[None] - 2 * x @ y.T
    return torch.sqrt(d.min(1).values).mean()


def chamfer_expanded_clamped(x, y):
    d = (x**2).sum(-1)[:, None] + (y**2).sum(-1)[None] - 2 * x @ y.T
    return torch.sqrt(d.clamp(min=1e-2)).mean()


def total_variation(x):
    dx, dy = x[:, 1:, :-1] - x[:, :-1, :-1], x[:, :-1, 1:] - x[:, :-1, :-1]
    return torch.sqrt(dx**2 + dy**2).mean()


def eikonal(g):
    return ((g.norm(dim=-1) - 1) ** 2).mean()


def gradient_penalty(g):
    return ((torch.sqrt((g**2).sum(-1) + 1e-12) - 1) ** 2).mean()


def hypot_loss(x, y):
    return torch.hypot(x, y).mean()


def psnr(x, y):
    return -10 * torch.log10(1 / ((x - y) ** 2).mean())


def psnr_clamped(x, y):
    return -10 * torch.log10(1 / ((x - y) ** 2).mean().clamp(min=1e-4))


def si_sdr(x, s):
    a = (x * s).sum(-1, keepdim=True) / (s**2).sum(-1, keepdim=True)
    t = a * s
    return -10 * torch.log10((t**2).sum(-1) / ((x - t) ** 2).sum(-1)).mean()


def si_sdr_eps(x, s):
    e = 1e-4
    a = (x * s).sum(-1, keepdim=True) / ((s**2).sum(-1, keepdim=True) + e)
    t = a * s
    return -10 * torch.log10(((t**2).sum(-1) + e) / (((x - t) ** 2).sum(-1) + e)).mean()


def si_log_depth(d, g):
    e = torch.log(d) - torch.log(g)
    return torch.sqrt((e**2).mean() - 0.85 * e.mean() ** 2)


def si_log_depth_eps(d, g):
    e = torch.log(d) - torch.log(g)
    return torch.sqrt(((e**2).mean() - 0.85 * e.mean() ** 2).clamp(min=1e-6))


def masked_mean(x, m):
    return x[m].mean()


def masked_mean_safe(x, m):
    w = m.to(x.dtype)
    return (x * w).sum() / w.sum().clamp(min=1)


def masked_rmse(x, y, m):
    w = m.to(x.dtype)
    return torch.sqrt(((x - y) ** 2 * w).sum() / w.sum().clamp(min=1) + 1e-4)


def masked_log(x, m):
    return torch.where(m, torch.log(x), torch.zeros_like(x)).mean()


def masked_log_filled(x, m):
    return torch.log(x.masked_fill(~m, 1.0)).mean()


def relative_l2(x, y):
    return (x - y).norm() / y.norm()


def relative_l2_max(x, y):
    return (x - y).norm() / torch.maximum(y.norm(), torch.tensor(1e-3, dtype=x.dtype))


def norm_p3(x):
    return torch.linalg.vector_norm(x, 3, dim=-1).mean()


def norm_p1(x):
    return torch.linalg.vector_norm(x, 1, dim=-1).mean()


def norm_inf(x):
    return torch.linalg.vector_norm(x, torch.inf, dim=-1).mean()


def norm_half(x):
    return torch.linalg.vector_norm(x, 0.5, dim=-1).mean()


def norm_fro(x):
    return torch.linalg.matrix_norm(x).mean()


def kepler(e, m):
    return (m - e * torch.sin(m)).div(torch.sqrt(1 - e * e)).mean()


def lorentz(v):
    return (1 / torch.sqrt(1 - v**2)).mean()


def poincare(u, v):
    s = ((u - v) ** 2).sum(-1)
    a, b = 1 - (u**2).sum(-1), 1 - (v**2).sum(-1)
    return torch.acosh(1 + 2 * s / (a * b)).mean()


def poincare_eps(u, v):
    s = ((u - v) ** 2).sum(-1)
    a, b = 1 - (u**2).sum(-1), 1 - (v**2).sum(-1)
    return torch.acosh(1 + 1e-2 + 2 * s / (a * b)).mean()


def softplus_var(x, mu, s):
    v = F.softplus(s) + 1e-3
    return (torch.log(v) + (x - mu) ** 2 / v).mean()


def gaussian_builtin(x, mu, v):
    return F.gaussian_nll_loss(mu, x, v)


def poisson_builtin(z, t):
    return F.poisson_nll_loss(z, t, full=True)


def poisson_rate(r, t):
    return F.poisson_nll_loss(r, t, log_input=False)


def tweedie(m, y):
    return (-y * m ** (1 - 1.5) / (1 - 1.5) + m ** (2 - 1.5) / (2 - 1.5)).mean()


def gamma_deviance(m, y):
    return 2 * (torch.log(m / y) + y / m - 1).mean()


def x_minus_x(x):
    return torch.log(x - x + 1).mean()


def spherical(x):
    r = x.norm(dim=-1)
    return torch.acos(x[..., 2] / r).mean()


def spherical_guarded(x):
    r = x.norm(dim=-1)
    return torch.acos((x[..., 2] / (r + 1e-2)) * 0.999).mean()


def spherical_unsafe_guard(x):
    r = x.norm(dim=-1)
    return torch.acos(x[..., 2] / (r + 1e-12)).mean()


def one_minus_ratio(x, y):
    r = x.abs() / (x.abs() + y.abs() + 1e-3)
    return torch.log(1 - r).mean()


def ratio_log(x, y):
    r = x / torch.sqrt(x * x + y * y + 1e-4)
    return torch.log1p(-r * r).mean()


X, Y = real(4, 3), real(4, 3)
S = real(4, 3, low=-10, high=10)
CASES = {
    "rmse": {"x": S, "y": S},
    "rmse_eps": {"x": S, "y": S},
    "rmsle": {"x": nonnegative(6), "y": nonnegative(6)},
    "mape": {"x": X, "y": Y},
    "mape_clamp": {"x": X, "y": Y},
    "smape": {"x": X, "y": Y},
    "smape_where": {"x": X, "y": Y},
    "log_cosh": {"x": X, "y": Y},
    "log_cosh_stable": {"x": X, "y": Y},
    "huber": {"x": X, "y": Y},
    "smooth_l1": {"x": X, "y": Y},
    "charbonnier": {"x": S, "y": S},
    "charbonnier_tiny": {"x": S, "y": S},
    "quantile": {"x": X, "y": Y},
    "r_squared": {"x": S, "y": S},
    "r_squared_eps": {"x": S, "y": S},
    "pearson": {"x": S, "y": S},
    "pearson_eps": {"x": S, "y": S},
    "ccc": {"x": S, "y": S},
    "standard": {"x": S},
    "standard_eps": {"x": S},
    "standard_var_eps": {"x": S},
    "power_spectrum": {"x": S},
    "cube_root_sign": {"x": S},
    "pow_tensor": {"x": real(4, 2, low=0, high=10), "a": real(4, 2, low=0, high=2)},
    "pow_tensor_clamped": {"x": real(4, 2, low=0, high=10), "a": real(4, 2, low=-2, high=2)},
    "angle": {"u": unit(4, 3), "v": unit(4, 3)},
    "angle_clamped": {"u": unit(4, 3), "v": unit(4, 3)},
    "angle_atan2": {"x": S, "y": S},
    "angle_atan2_eps": {"x": S, "y": S},
    "vector_angle_cross": {"u": unit(4, 3), "v": unit(4, 3)},
    "geodesic": {"r": real(2, 3, 3, low=-1, high=1)},
    "geodesic_clamped": {"r": real(2, 3, 3, low=-1, high=1)},
    "quaternion": {"q": real(3, 4), "p": unit(3, 4, grad=False)},
    "quaternion_by_hand": {"q": real(3, 4), "p": unit(3, 4, grad=False)},
    "quaternion_sqrt": {"q": real(3, 4), "p": unit(3, 4, grad=False)},
    "axis_angle": {"w": S},
    "sinc_by_hand": {"x": S},
    "sinc_double_where": {"x": S},
    "coulomb": {"x": S},
    "coulomb_softened": {"x": S},
    "lennard_jones": {"r": positive(6, high=10)},
    "lennard_jones_clamped": {"r": positive(6, high=10)},
    "chamfer": {"x": S, "y": S},
    "chamfer_sqrt": {"x": S, "y": S},
    "chamfer_expanded": {"x": S, "y": S},
    "chamfer_expanded_clamped": {"x": S, "y": S},
    "total_variation": {"x": real(1, 4, 4, low=0, high=1)},
    "eikonal": {"g": S},
    "gradient_penalty": {"g": S},
    "hypot_loss": {"x": S, "y": S},
    "psnr": {"x": real(4, 3, low=0, high=1), "y": real(4, 3, low=0, high=1)},
    "psnr_clamped": {"x": real(4, 3, low=0, high=1), "y": real(4, 3, low=0, high=1)},
    "si_sdr": {"x": S, "s": S},
    "si_sdr_eps": {"x": S, "s": S},
    "si_log_depth": {"d": real(6, low=0.1, high=100), "g": real(6, low=0.1, high=100, grad=False)},
    "si_log_depth_eps": {"d": real(6, low=0.1, high=100), "g": real(6, low=0.1, high=100, grad=False)},
    "masked_mean": {"x": X, "m": mask(4, 3)},
    "masked_mean_safe": {"x": X, "m": mask(4, 3)},
    "masked_rmse": {"x": S, "y": S, "m": mask(4, 3)},
    "masked_log": {"x": nonnegative(4, 3), "m": mask(4, 3)},
    "masked_log_filled": {"x": positive(4, 3), "m": mask(4, 3)},
    "relative_l2": {"x": S, "y": S},
    "relative_l2_max": {"x": S, "y": S},
    "norm_p3": {"x": S},
    "norm_p1": {"x": S},
    "norm_inf": {"x": S},
    "norm_half": {"x": S},
    "norm_fro": {"x": real(2, 3, 3, low=-10, high=10)},
    "kepler": {"e": real(6, low=0, high=0.99), "m": real(6, low=-7, high=7)},
    "lorentz": {"v": real(6, low=-1, high=1)},
    "poincare": {"u": real(4, 2, low=-0.7, high=0.7), "v": real(4, 2, low=-0.7, high=0.7)},
    "poincare_eps": {"u": real(4, 2, low=-0.7, high=0.7), "v": real(4, 2, low=-0.7, high=0.7)},
    "softplus_var": {"x": S, "mu": S, "s": S},
    "gaussian_builtin": {"x": S, "mu": S, "v": nonnegative(4, 3, high=10)},
    "poisson_builtin": {"z": S, "t": real(4, 3, low=0, high=20, grad=False)},
    "poisson_rate": {"r": nonnegative(4, 3, high=20), "t": real(4, 3, low=0, high=20, grad=False)},
    "tweedie": {"m": positive(6, high=10), "y": nonnegative(6, high=10, grad=False)},
    "gamma_deviance": {"m": positive(6, high=10), "y": positive(6, high=10, grad=False)},
    "x_minus_x": {"x": X},
    "spherical": {"x": S},
    "spherical_guarded": {"x": S},
    "spherical_unsafe_guard": {"x": S},
    "one_minus_ratio": {"x": S, "y": S},
    "ratio_log": {"x": S, "y": S},
}
