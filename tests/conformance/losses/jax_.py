"""The losses of the suite in JAX. `# <- text` stands at the end of the line that fails and quotes the expression that does."""

import jax
import jax.numpy as jnp

# ---------------------------------------------------------------- classification


def bce_by_hand(p, t):
    sure = jnp.log(p)  # <- jnp.log(p)
    return -jnp.mean(t * sure + (1 - t) * jnp.log(1.001 - p))


def bce_clamped(p, t):
    p = jnp.clip(p, 1e-6, 1 - 1e-6)
    return -jnp.mean(t * jnp.log(p) + (1 - t) * jnp.log(1 - p))


def bce_clamped_1e8(p, t):
    p = jnp.clip(p, 1e-8, 1 - 1e-8)
    other = jnp.log(1 - p)  # <- jnp.log(1 - p)
    return -jnp.mean(t * jnp.log(p) + (1 - t) * other)


def bce_epsilon_1e8(p, t):
    other = jnp.log(1 - p + 1e-8)  # <- jnp.log(1 - p + 1e-8)
    return -jnp.mean(t * jnp.log(p + 1e-8) + (1 - t) * other)


def bce_half_epsilon(p, t):
    sure = jnp.log(p + 1e-8)  # <- jnp.log(p + 1e-8)
    return -jnp.mean(t * sure)


def bce_of_sigmoid(x, t):
    p = jax.nn.sigmoid(x)
    other = jnp.log(1 - p)  # <- jnp.log(1 - p)
    return -jnp.mean(t * jnp.log(p) + (1 - t) * other)


def bce_with_logits(x, t):
    return -jnp.mean(t * jax.nn.log_sigmoid(x) + (1 - t) * jax.nn.log_sigmoid(-x))


def cross_entropy_of_softmax(z, t):
    logs = jnp.log(jax.nn.softmax(z, -1))  # <- jnp.log(jax.nn.softmax(z, -1))
    return -jnp.mean(jnp.sum(t * logs, -1))


def cross_entropy(z, t):
    return -jnp.mean(jnp.sum(t * jax.nn.log_softmax(z, -1), -1))


def label_smoothing(z, t):
    soft = 0.9 * t + 0.1 / 3
    return -jnp.mean(jnp.sum(soft * jax.nn.log_softmax(z, -1), -1))


def brier(z, t):
    return jnp.mean(jnp.square(jax.nn.softmax(z, -1) - t))


def softmax_by_hand(z, t):
    e = jnp.exp(z)
    p = e / jnp.sum(e, -1, keepdims=True)  # <- e / jnp.sum(e, -1, keepdims=True)
    return jnp.mean((p - t) ** 2)


def masked_softmax(z, allowed, t):
    z = jnp.where(allowed, z, -jnp.inf)
    p = jax.nn.softmax(z, -1)  # <- jax.nn.softmax(z, -1)
    return jnp.mean((p - t) ** 2)


def masked_softmax_finite(z, allowed, t):
    z = jnp.where(allowed, z, -1e9)
    p = jax.nn.softmax(z, -1)
    return jnp.mean((p - t) ** 2)


def focal_gamma_0_7(x, t):
    bce = jax.nn.softplus(x) - t * x
    weight = (1 - jnp.exp(-bce)) ** 0.7  # <- (1 - jnp.exp(-bce)) ** 0.7
    return jnp.mean(weight * bce)


def focal_gamma_2(x, t):
    bce = jax.nn.softplus(x) - t * x
    return jnp.mean((1 - jnp.exp(-bce)) ** 2 * bce)


# ---------------------------------------------------------------- overlap


def dice(p, t):
    overlap = 2 * jnp.sum(p * t, -1) / jnp.sum(p + t, -1)  # <- 2 * jnp.sum(p * t, -1) / jnp.sum(p + t, -1)
    return 1 - jnp.mean(overlap)


def dice_smooth(p, t):
    return 1 - jnp.mean((2 * jnp.sum(p * t, -1) + 1) / (jnp.sum(p + t, -1) + 1))


def focal_tversky(p, t):
    hit, miss = jnp.sum(p * t, -1), jnp.sum((1 - p) * t, -1)
    index = (hit + 1) / (hit + 0.7 * miss + 1)
    return jnp.mean((1 - index) ** 0.75)  # <- (1 - index) ** 0.75


def tversky(p, t):
    hit, miss, extra = jnp.sum(p * t, -1), jnp.sum((1 - p) * t, -1), jnp.sum(p * (1 - t), -1)
    return 1 - jnp.mean((hit + 1) / (hit + 0.3 * extra + 0.7 * miss + 1))


# ---------------------------------------------------------------- divergences and entropies


def entropy(p):
    logs = jnp.log(p)  # <- jnp.log(p)
    return -jnp.mean(jnp.sum(p * logs, -1))


def entropy_where(p):
    terms = jnp.where(p > 0, p * jnp.log(p), 0.0)  # <- p * jnp.log(p)
    return -jnp.mean(jnp.sum(terms, -1))


def entropy_double_where(p):
    inside = p > 0.001
    terms = jnp.where(inside, p * jnp.log(jnp.where(inside, p, 1.0)), 0.0)
    return -jnp.mean(jnp.sum(terms, -1))


def kl_divergence(p, q):
    ratio = p / q  # <- p / q
    return jnp.mean(jnp.sum(p * jnp.log(ratio), -1))


def kl_of_logits(x, z):
    a, b = jax.nn.log_softmax(x, -1), jax.nn.log_softmax(z, -1)
    return jnp.mean(jnp.sum(jnp.exp(a) * (a - b), -1))


def masked_policy_gradient(logp, allowed, weight):
    logp = jnp.where(allowed, logp, -jnp.inf)
    return -jnp.mean(allowed.astype(jnp.float32) * logp * weight)  # <- allowed.astype(jnp.float32) * logp


# ---------------------------------------------------------------- likelihoods


def reduced_chi_square(mu, y, sigma):
    return jnp.mean(jnp.square((y - mu) / sigma))  # <- jnp.square((y - mu) / sigma)


def gaussian_nll(mu, y, logvar):
    return 0.5 * jnp.mean(logvar + jnp.square(y - mu) * jnp.exp(-logvar))  # <- jnp.exp(-logvar)


def gaussian_nll_bounded(mu, y, logvar):
    logvar = jnp.clip(logvar, -10, 10)
    return 0.5 * jnp.mean(logvar + jnp.square(y - mu) * jnp.exp(-logvar))


def vae_kl(mu, logvar):
    return -0.5 * jnp.mean(1 + logvar - mu * mu - jnp.exp(logvar))  # <- jnp.exp(logvar)


def vae_kl_bounded(mu, logvar):
    logvar = jnp.clip(logvar, -20, 20)
    return -0.5 * jnp.mean(1 + logvar - mu * mu - jnp.exp(logvar))


def student_t_nll(mu, y):
    return jnp.mean(2 * jnp.log1p(jnp.square(y - mu) / 3))


def cox(risk):
    reach = jnp.cumsum(jnp.exp(risk), -1)  # <- jnp.exp(risk)
    return -jnp.mean(risk - jnp.log(reach))


def cox_pairwise(risk, times):
    at_risk = times[None, :] >= times[:, None]
    pool = jax.nn.logsumexp(jnp.where(at_risk, risk[None, :], -1e9), -1)
    return -jnp.mean(risk - pool)


def likelihood_product(odds):
    return jnp.mean(odds[:, 0] * odds[:, 1])  # <- odds[:, 0] * odds[:, 1]


def ppo_ratio(new, old, advantage):
    ratio = jnp.exp(new - old)  # <- jnp.exp(new - old)
    return -jnp.mean(jnp.minimum(ratio * advantage, jnp.clip(ratio, 0.8, 1.2) * advantage))


def ppo_ratio_bounded(new, old, advantage):
    ratio = jnp.exp(jnp.clip(new - old, -20, 20))
    return -jnp.mean(jnp.minimum(ratio * advantage, jnp.clip(ratio, 0.8, 1.2) * advantage))


# ---------------------------------------------------------------- distances and angles


def contrastive(a, b, same):
    d = jnp.sqrt(jnp.sum(jnp.square(a - b), -1))  # <- jnp.sqrt(jnp.sum(jnp.square(a - b), -1))
    return jnp.mean(same * d**2 + (1 - same) * jax.nn.relu(1 - d) ** 2)


def contrastive_epsilon(a, b, same):
    d = jnp.sqrt(jnp.sum(jnp.square(a - b), -1) + 1e-6)
    return jnp.mean(same * d**2 + (1 - same) * jax.nn.relu(1 - d) ** 2)


def triplet_norm(a, b, c):
    near = jnp.linalg.norm(a - b, axis=-1)  # <- jnp.linalg.norm(a - b, axis=-1)
    return jnp.mean(jax.nn.relu(near - jnp.sqrt(jnp.sum(jnp.square(a - c), -1) + 1e-6) + 1))


def triplet_squared(a, b, c):
    return jnp.mean(jax.nn.relu(jnp.sum(jnp.square(a - b), -1) - jnp.sum(jnp.square(a - c), -1) + 1))


def bpr(a, b):
    return -jnp.mean(jax.nn.log_sigmoid(a - b))


def cosine(a, b):
    dot = jnp.sum(a * b, -1)
    length = jnp.sqrt(jnp.sum(a * a, -1) * jnp.sum(b * b, -1))
    return 1 - jnp.mean(dot / length)  # <- dot / length


def cosine_bounded(a, b):
    dot = jnp.sum(a * b, -1)
    length = jnp.sqrt(jnp.sum(a * a, -1) + 1e-6) * jnp.sqrt(jnp.sum(b * b, -1) + 1e-6)
    return 1 - jnp.mean(dot / length)


def info_nce(similarity):
    e = jnp.exp(similarity / 0.01)  # <- jnp.exp(similarity / 0.01)
    return -jnp.mean(jnp.log(jnp.diagonal(e) / jnp.sum(e, -1)))


def info_nce_log_softmax(similarity):
    return -jnp.mean(jnp.diagonal(jax.nn.log_softmax(similarity / 0.01, -1)))


def arcface(cosine):
    angle = jnp.arccos(cosine)  # <- jnp.arccos(cosine)
    return -jnp.mean(jnp.cos(angle + 0.5))


def arcface_clamped(cosine):
    angle = jnp.arccos(jnp.clip(cosine, -1 + 1e-6, 1 - 1e-6))
    return -jnp.mean(jnp.cos(angle + 0.5))


def arcface_clamped_1e8(cosine):
    angle = jnp.arccos(jnp.clip(cosine, -1 + 1e-8, 1 - 1e-8))  # <- jnp.arccos(jnp.clip(cosine, -1 + 1e-8, 1 - 1e-8))
    return -jnp.mean(jnp.cos(angle + 0.5))


def angle_between(a, b, weight):
    angle = jnp.arccos(jnp.sum(a * b, -1))  # <- jnp.arccos(jnp.sum(a * b, -1))
    return jnp.mean(weight * angle)


def angle_of_sine(p):
    return jnp.mean(jnp.arcsin(p))  # <- jnp.arcsin(p)


def heading(y, x):
    return jnp.mean(jnp.square(jnp.arctan2(y, x)))  # <- jnp.arctan2(y, x)


def heading_ahead(y, x):
    return jnp.mean(jnp.square(jnp.arctan2(y, x)))


def critics_apart(one, other, allowed):
    best = jnp.max(jnp.where(allowed, one, -jnp.inf), -1)
    also = jnp.max(jnp.where(allowed, other, -jnp.inf), -1)
    return jnp.mean(best - also)  # <- best - also


def detour(route, straight, reachable):
    route, straight = jnp.where(reachable, route, jnp.inf), jnp.where(reachable, straight, jnp.inf)
    return jnp.mean(route / straight)  # <- route / straight


# ---------------------------------------------------------------- regression


def rmse(p, y):
    return jnp.sqrt(jnp.mean(jnp.square(p - y)))  # <- jnp.sqrt(jnp.mean(jnp.square(p - y)))


def rmse_epsilon(p, y):
    return jnp.sqrt(jnp.mean(jnp.square(p - y)) + 1e-6)


def huber(p, y):
    e = jnp.abs(p - y)
    return jnp.mean(jnp.where(e < 1, 0.5 * e * e, e - 0.5))


def log_cosh(p, y):
    return jnp.mean(jnp.log(jnp.cosh(p - y)))  # <- jnp.cosh(p - y)


def log_cosh_softplus(p, y):
    e = p - y
    return jnp.mean(e + jax.nn.softplus(-2 * e) - 0.6931472)


def quantile(p, y):
    e = y - p
    return jnp.mean(jnp.maximum(0.9 * e, -0.1 * e))


def wing(p, y):
    e = jnp.abs(p - y)
    return jnp.mean(jnp.where(e < 10, 10 * jnp.log1p(e / 2), e + 7.918))


def msle(p, y):
    return jnp.mean(jnp.square(jnp.log1p(p) - jnp.log1p(y)))  # <- jnp.log1p(p)


def mape(p, y):
    return jnp.mean(jnp.abs((y - p) / y))  # <- (y - p) / y


def smape(p, y):
    error = jnp.abs(p - y) / (jnp.abs(p) + jnp.abs(y))  # <- jnp.abs(p - y) / (jnp.abs(p) + jnp.abs(y))
    return jnp.mean(error)


def ratio_where(n, d):
    return jnp.mean(jnp.where(d > 0.01, n / d, 0.0))  # <- n / d


def ratio_double_where(n, d):
    inside = d > 0.01
    return jnp.mean(jnp.where(inside, n / jnp.where(inside, d, 1.0), 0.0))


def root_where(x):
    return jnp.mean(jnp.where(x > 0, jnp.sqrt(x), 0.0))  # <- jnp.sqrt(x)


def gamma_correction(p, y):
    return jnp.mean(jnp.square(p**0.45 - y))  # <- p**0.45


def gamma_correction_clamped(p, y):
    return jnp.mean(jnp.square(jnp.maximum(p, 0.001) ** 0.45 - y))


def circle(x):
    return jnp.mean(jnp.sqrt(1 - x * x))  # <- jnp.sqrt(1 - x * x)


def probit(p, y):
    score = 1.4142136 * jax.scipy.special.erfinv(2 * p - 1)  # <- jax.scipy.special.erfinv(2 * p - 1)
    return jnp.mean(jnp.square(score - y))


def masked_mean(e, mask):
    mask = mask.astype(jnp.float32)
    return jnp.sum(e * mask) / jnp.sum(mask)  # <- jnp.sum(e * mask) / jnp.sum(mask)


def masked_mean_guarded(e, mask):
    mask = mask.astype(jnp.float32)
    return jnp.sum(e * mask) / jnp.maximum(jnp.sum(mask), 1)


def smoothness(p):
    return jnp.mean(jnp.square(p[1:] - p[:-1]))  # <- jnp.mean(jnp.square(p[1:] - p[:-1]))


def missing_label(p, y):
    return jnp.mean(jnp.square(p - y))


# ---------------------------------------------------------------- statistics and formats


def standardised(x, y):
    z = (x - jnp.mean(x)) / jnp.std(x)  # <- (x - jnp.mean(x)) / jnp.std(x)
    return jnp.mean(z * y)


def layer_norm(x, y):
    z = (x - jnp.mean(x)) / jnp.sqrt(jnp.var(x) + 1e-5)
    return jnp.mean(z * y)


def half_precision(p):
    return jnp.max(jnp.abs(p.astype(jnp.float16)))  # <- p.astype(jnp.float16)


def half_precision_sum(e):
    return jnp.sum(e)  # <- jnp.sum(e)


def softplus_by_hand(x):
    return jnp.mean(jnp.log(1 + jnp.exp(x)))  # <- jnp.exp(x)


def softplus(x):
    return jnp.mean(jax.nn.softplus(x))


# ---------------------------------------------------------------- gradients of one's own


@jax.custom_vjp
def _softplus(x):
    return jax.nn.softplus(x)


def _softplus_gradient(x, g):
    e = jnp.exp(x)  # <- jnp.exp(x)
    return (g * e / (1 + e),)


_softplus.defvjp(lambda x: (jax.nn.softplus(x), x), _softplus_gradient)


def custom_gradient_overflow(x):
    return jnp.mean(_softplus(x))


@jax.custom_vjp
def _doubled(x):
    return jax.nn.softplus(x)


def _doubled_gradient(x, g):
    return (2 * g * jax.nn.sigmoid(x),)


_doubled.defvjp(lambda x: (jax.nn.softplus(x), x), _doubled_gradient)


def custom_gradient_wrong(x):
    return jnp.mean(_doubled(x))
