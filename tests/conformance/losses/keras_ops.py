"""The losses of the suite in `keras.ops`, for any backend. `# <- text` ends the line that fails and quotes the expression that does."""

from keras import ops

# ---------------------------------------------------------------- classification


def bce_by_hand(p, t):
    sure = ops.log(p)  # <- ops.log(p)
    return -ops.mean(t * sure + (1 - t) * ops.log(1.001 - p))


def bce_clamped(p, t):
    p = ops.clip(p, 1e-6, 1 - 1e-6)
    return -ops.mean(t * ops.log(p) + (1 - t) * ops.log(1 - p))


def bce_clamped_1e8(p, t):
    p = ops.clip(p, 1e-8, 1 - 1e-8)
    other = ops.log(1 - p)  # <- ops.log(1 - p)
    return -ops.mean(t * ops.log(p) + (1 - t) * other)


def bce_epsilon_1e8(p, t):
    other = ops.log(1 - p + 1e-8)  # <- ops.log(1 - p + 1e-8)
    return -ops.mean(t * ops.log(p + 1e-8) + (1 - t) * other)


def bce_half_epsilon(p, t):
    sure = ops.log(p + 1e-8)  # <- ops.log(p + 1e-8)
    return -ops.mean(t * sure)


def bce_of_sigmoid(x, t):
    p = ops.sigmoid(x)
    other = ops.log(1 - p)  # <- ops.log(1 - p)
    return -ops.mean(t * ops.log(p) + (1 - t) * other)


def bce_with_logits(x, t):
    return ops.mean(ops.binary_crossentropy(t, x, from_logits=True))


def cross_entropy_of_softmax(z, t):
    logs = ops.log(ops.softmax(z, -1))  # <- ops.log(ops.softmax(z, -1))
    return -ops.mean(ops.sum(t * logs, -1))


def cross_entropy(z, t):
    return -ops.mean(ops.sum(t * ops.log_softmax(z, -1), -1))


def label_smoothing(z, t):
    soft = 0.9 * t + 0.1 / 3
    return -ops.mean(ops.sum(soft * ops.log_softmax(z, -1), -1))


def brier(z, t):
    return ops.mean(ops.square(ops.softmax(z, -1) - t))


def softmax_by_hand(z, t):
    e = ops.exp(z)
    p = e / ops.sum(e, -1, keepdims=True)  # <- e / ops.sum(e, -1, keepdims=True)
    return ops.mean((p - t) ** 2)


def masked_softmax(z, allowed, t):
    z = ops.where(allowed, z, -float("inf"))
    p = ops.softmax(z, -1)  # <- ops.softmax(z, -1)
    return ops.mean((p - t) ** 2)


def masked_softmax_finite(z, allowed, t):
    z = ops.where(allowed, z, -1e9)
    p = ops.softmax(z, -1)
    return ops.mean((p - t) ** 2)


def focal_gamma_0_7(x, t):
    bce = ops.softplus(x) - t * x
    weight = (1 - ops.exp(-bce)) ** 0.7  # <- (1 - ops.exp(-bce)) ** 0.7
    return ops.mean(weight * bce)


def focal_gamma_2(x, t):
    bce = ops.binary_crossentropy(t, x, from_logits=True)
    return ops.mean((1 - ops.exp(-bce)) ** 2 * bce)


# ---------------------------------------------------------------- overlap


def dice(p, t):
    overlap = 2 * ops.sum(p * t, -1) / ops.sum(p + t, -1)  # <- 2 * ops.sum(p * t, -1) / ops.sum(p + t, -1)
    return 1 - ops.mean(overlap)


def dice_smooth(p, t):
    return 1 - ops.mean((2 * ops.sum(p * t, -1) + 1) / (ops.sum(p + t, -1) + 1))


def focal_tversky(p, t):
    hit, miss = ops.sum(p * t, -1), ops.sum((1 - p) * t, -1)
    index = (hit + 1) / (hit + 0.7 * miss + 1)
    return ops.mean((1 - index) ** 0.75)  # <- (1 - index) ** 0.75


def tversky(p, t):
    hit, miss, extra = ops.sum(p * t, -1), ops.sum((1 - p) * t, -1), ops.sum(p * (1 - t), -1)
    return 1 - ops.mean((hit + 1) / (hit + 0.3 * extra + 0.7 * miss + 1))


# ---------------------------------------------------------------- divergences and entropies


def entropy(p):
    logs = ops.log(p)  # <- ops.log(p)
    return -ops.mean(ops.sum(p * logs, -1))


def entropy_where(p):
    terms = ops.where(p > 0, p * ops.log(p), 0.0)  # <- p * ops.log(p)
    return -ops.mean(ops.sum(terms, -1))


def entropy_double_where(p):
    inside = p > 0.001
    terms = ops.where(inside, p * ops.log(ops.where(inside, p, 1.0)), 0.0)
    return -ops.mean(ops.sum(terms, -1))


def kl_divergence(p, q):
    ratio = p / q  # <- p / q
    return ops.mean(ops.sum(p * ops.log(ratio), -1))


def kl_of_logits(x, z):
    a, b = ops.log_softmax(x, -1), ops.log_softmax(z, -1)
    return ops.mean(ops.sum(ops.exp(a) * (a - b), -1))


def masked_policy_gradient(logp, allowed, weight):
    logp = ops.where(allowed, logp, -float("inf"))
    return -ops.mean(ops.cast(allowed, "float32") * logp * weight)  # <- ops.cast(allowed, "float32") * logp


# ---------------------------------------------------------------- likelihoods


def reduced_chi_square(mu, y, sigma):
    return ops.mean(ops.square((y - mu) / sigma))  # <- ops.square((y - mu) / sigma)


def gaussian_nll(mu, y, logvar):
    return 0.5 * ops.mean(logvar + ops.square(y - mu) * ops.exp(-logvar))  # <- ops.exp(-logvar)


def gaussian_nll_bounded(mu, y, logvar):
    logvar = ops.clip(logvar, -10, 10)
    return 0.5 * ops.mean(logvar + ops.square(y - mu) * ops.exp(-logvar))


def vae_kl(mu, logvar):
    return -0.5 * ops.mean(1 + logvar - mu * mu - ops.exp(logvar))  # <- ops.exp(logvar)


def vae_kl_bounded(mu, logvar):
    logvar = ops.clip(logvar, -20, 20)
    return -0.5 * ops.mean(1 + logvar - mu * mu - ops.exp(logvar))


def student_t_nll(mu, y):
    return ops.mean(2 * ops.log1p(ops.square(y - mu) / 3))


def cox(risk):
    reach = ops.cumsum(ops.exp(risk), -1)  # <- ops.exp(risk)
    return -ops.mean(risk - ops.log(reach))


def cox_pairwise(risk, times):
    at_risk = times[None, :] >= times[:, None]
    pool = ops.logsumexp(ops.where(at_risk, risk[None, :], -1e9), -1)
    return -ops.mean(risk - pool)


def likelihood_product(odds):
    return ops.mean(odds[:, 0] * odds[:, 1])  # <- odds[:, 0] * odds[:, 1]


def ppo_ratio(new, old, advantage):
    ratio = ops.exp(new - old)  # <- ops.exp(new - old)
    return -ops.mean(ops.minimum(ratio * advantage, ops.clip(ratio, 0.8, 1.2) * advantage))


def ppo_ratio_bounded(new, old, advantage):
    ratio = ops.exp(ops.clip(new - old, -20, 20))
    return -ops.mean(ops.minimum(ratio * advantage, ops.clip(ratio, 0.8, 1.2) * advantage))


# ---------------------------------------------------------------- distances and angles


def contrastive(a, b, same):
    d = ops.sqrt(ops.sum(ops.square(a - b), -1))  # <- ops.sqrt(ops.sum(ops.square(a - b), -1))
    return ops.mean(same * d**2 + (1 - same) * ops.relu(1 - d) ** 2)


def contrastive_epsilon(a, b, same):
    d = ops.sqrt(ops.sum(ops.square(a - b), -1) + 1e-6)
    return ops.mean(same * d**2 + (1 - same) * ops.relu(1 - d) ** 2)


def triplet_norm(a, b, c):
    near = ops.norm(a - b, axis=-1)  # <- ops.norm(a - b, axis=-1)
    return ops.mean(ops.relu(near - ops.sqrt(ops.sum(ops.square(a - c), -1) + 1e-6) + 1))


def triplet_squared(a, b, c):
    return ops.mean(ops.relu(ops.sum(ops.square(a - b), -1) - ops.sum(ops.square(a - c), -1) + 1))


def bpr(a, b):
    return -ops.mean(ops.log_sigmoid(a - b))


def cosine(a, b):
    dot = ops.sum(a * b, -1)
    length = ops.sqrt(ops.sum(a * a, -1) * ops.sum(b * b, -1))
    return 1 - ops.mean(dot / length)  # <- dot / length


def cosine_bounded(a, b):
    dot = ops.sum(a * b, -1)
    length = ops.sqrt(ops.sum(a * a, -1) + 1e-6) * ops.sqrt(ops.sum(b * b, -1) + 1e-6)
    return 1 - ops.mean(dot / length)


def info_nce(similarity):
    e = ops.exp(similarity / 0.01)  # <- ops.exp(similarity / 0.01)
    return -ops.mean(ops.log(ops.diagonal(e) / ops.sum(e, -1)))


def info_nce_log_softmax(similarity):
    return -ops.mean(ops.diagonal(ops.log_softmax(similarity / 0.01, -1)))


def arcface(cosine):
    angle = ops.arccos(cosine)  # <- ops.arccos(cosine)
    return -ops.mean(ops.cos(angle + 0.5))


def arcface_clamped(cosine):
    angle = ops.arccos(ops.clip(cosine, -1 + 1e-6, 1 - 1e-6))
    return -ops.mean(ops.cos(angle + 0.5))


def arcface_clamped_1e8(cosine):
    angle = ops.arccos(ops.clip(cosine, -1 + 1e-8, 1 - 1e-8))  # <- ops.arccos(ops.clip(cosine, -1 + 1e-8, 1 - 1e-8))
    return -ops.mean(ops.cos(angle + 0.5))


def angle_between(a, b, weight):
    angle = ops.arccos(ops.sum(a * b, -1))  # <- ops.arccos(ops.sum(a * b, -1))
    return ops.mean(weight * angle)


def angle_of_sine(p):
    return ops.mean(ops.arcsin(p))  # <- ops.arcsin(p)


def heading(y, x):
    return ops.mean(ops.square(ops.arctan2(y, x)))  # <- ops.arctan2(y, x)


def heading_ahead(y, x):
    return ops.mean(ops.square(ops.arctan2(y, x)))


def critics_apart(one, other, allowed):
    best = ops.max(ops.where(allowed, one, -float("inf")), -1)
    also = ops.max(ops.where(allowed, other, -float("inf")), -1)
    return ops.mean(best - also)  # <- best - also


def detour(route, straight, reachable):
    route, straight = ops.where(reachable, route, float("inf")), ops.where(reachable, straight, float("inf"))
    return ops.mean(route / straight)  # <- route / straight


# ---------------------------------------------------------------- regression


def rmse(p, y):
    return ops.sqrt(ops.mean(ops.square(p - y)))  # <- ops.sqrt(ops.mean(ops.square(p - y)))


def rmse_epsilon(p, y):
    return ops.sqrt(ops.mean(ops.square(p - y)) + 1e-6)


def huber(p, y):
    e = ops.abs(p - y)
    return ops.mean(ops.where(e < 1, 0.5 * e * e, e - 0.5))


def log_cosh(p, y):
    return ops.mean(ops.log(ops.cosh(p - y)))  # <- ops.cosh(p - y)


def log_cosh_softplus(p, y):
    e = p - y
    return ops.mean(e + ops.softplus(-2 * e) - 0.6931472)


def quantile(p, y):
    e = y - p
    return ops.mean(ops.maximum(0.9 * e, -0.1 * e))


def wing(p, y):
    e = ops.abs(p - y)
    return ops.mean(ops.where(e < 10, 10 * ops.log1p(e / 2), e + 7.918))


def msle(p, y):
    return ops.mean(ops.square(ops.log1p(p) - ops.log1p(y)))  # <- ops.log1p(p)


def mape(p, y):
    return ops.mean(ops.abs((y - p) / y))  # <- (y - p) / y


def smape(p, y):
    error = ops.abs(p - y) / (ops.abs(p) + ops.abs(y))  # <- ops.abs(p - y) / (ops.abs(p) + ops.abs(y))
    return ops.mean(error)


def ratio_where(n, d):
    return ops.mean(ops.where(d > 0.01, n / d, 0.0))  # <- n / d


def ratio_double_where(n, d):
    inside = d > 0.01
    return ops.mean(ops.where(inside, n / ops.where(inside, d, 1.0), 0.0))


def root_where(x):
    return ops.mean(ops.where(x > 0, ops.sqrt(x), 0.0))  # <- ops.sqrt(x)


def gamma_correction(p, y):
    return ops.mean(ops.square(p**0.45 - y))  # <- p**0.45


def gamma_correction_clamped(p, y):
    return ops.mean(ops.square(ops.maximum(p, 0.001) ** 0.45 - y))


def circle(x):
    return ops.mean(ops.sqrt(1 - x * x))  # <- ops.sqrt(1 - x * x)


def probit(p, y):
    score = 1.4142136 * ops.erfinv(2 * p - 1)  # <- ops.erfinv(2 * p - 1)
    return ops.mean(ops.square(score - y))


def masked_mean(e, mask):
    mask = ops.cast(mask, "float32")
    return ops.sum(e * mask) / ops.sum(mask)  # <- ops.sum(e * mask) / ops.sum(mask)


def masked_mean_guarded(e, mask):
    mask = ops.cast(mask, "float32")
    return ops.sum(e * mask) / ops.maximum(ops.sum(mask), 1)


def smoothness(p):
    return ops.mean(ops.square(p[1:] - p[:-1]))  # <- ops.mean(ops.square(p[1:] - p[:-1]))


def missing_label(p, y):
    return ops.mean(ops.square(p - y))


# ---------------------------------------------------------------- statistics and formats


def standardised(x, y):
    z = (x - ops.mean(x)) / ops.std(x)  # <- (x - ops.mean(x)) / ops.std(x)
    return ops.mean(z * y)


def layer_norm(x, y):
    z = (x - ops.mean(x)) / ops.sqrt(ops.var(x) + 1e-5)
    return ops.mean(z * y)


def half_precision(p):
    return ops.max(ops.abs(ops.cast(p, "float16")))  # <- ops.cast(p, "float16")


def half_precision_sum(e):
    return ops.sum(e)  # <- ops.sum(e)


def softplus_by_hand(x):
    return ops.mean(ops.log(1 + ops.exp(x)))  # <- ops.exp(x)


def softplus(x):
    return ops.mean(ops.softplus(x))


# ---------------------------------------------------------------- gradients of one's own


@ops.custom_gradient
def _softplus(x):
    def gradient(*args, upstream=None):
        (g,) = args if upstream is None else (upstream,)
        e = ops.exp(x)  # <- ops.exp(x)
        return g * e / (1 + e)

    return ops.softplus(x), gradient


def custom_gradient_overflow(x):
    return ops.mean(_softplus(x))


@ops.custom_gradient
def _doubled(x):
    def gradient(*args, upstream=None):
        (g,) = args if upstream is None else (upstream,)
        return 2 * g * ops.sigmoid(x)

    return ops.softplus(x), gradient


def custom_gradient_wrong(x):
    return ops.mean(_doubled(x))
