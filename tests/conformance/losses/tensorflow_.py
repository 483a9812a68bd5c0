"""The losses of the suite in TensorFlow. `# <- text` stands at the end of the line that fails and quotes the expression that does."""

import tensorflow as tf

# ---------------------------------------------------------------- classification


def bce_by_hand(p, t):
    sure = tf.math.log(p)  # <- tf.math.log(p)
    return -tf.reduce_mean(t * sure + (1 - t) * tf.math.log(1.001 - p))


def bce_clamped(p, t):
    p = tf.clip_by_value(p, 1e-6, 1 - 1e-6)
    return -tf.reduce_mean(t * tf.math.log(p) + (1 - t) * tf.math.log(1 - p))


def bce_clamped_1e8(p, t):
    p = tf.clip_by_value(p, 1e-8, 1 - 1e-8)
    other = tf.math.log(1 - p)  # <- tf.math.log(1 - p)
    return -tf.reduce_mean(t * tf.math.log(p) + (1 - t) * other)


def bce_epsilon_1e8(p, t):
    other = tf.math.log(1 - p + 1e-8)  # <- tf.math.log(1 - p + 1e-8)
    return -tf.reduce_mean(t * tf.math.log(p + 1e-8) + (1 - t) * other)


def bce_half_epsilon(p, t):
    sure = tf.math.log(p + 1e-8)  # <- tf.math.log(p + 1e-8)
    return -tf.reduce_mean(t * sure)


def bce_of_sigmoid(x, t):
    p = tf.sigmoid(x)
    other = tf.math.log(1 - p)  # <- tf.math.log(1 - p)
    return -tf.reduce_mean(t * tf.math.log(p) + (1 - t) * other)


def bce_with_logits(x, t):
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=t, logits=x))


def cross_entropy_of_softmax(z, t):
    logs = tf.math.log(tf.nn.softmax(z, -1))  # <- tf.math.log(tf.nn.softmax(z, -1))
    return -tf.reduce_mean(tf.reduce_sum(t * logs, -1))


def cross_entropy(z, t):
    return -tf.reduce_mean(tf.reduce_sum(t * tf.nn.log_softmax(z, -1), -1))


def label_smoothing(z, t):
    soft = 0.9 * t + 0.1 / 3
    return -tf.reduce_mean(tf.reduce_sum(soft * tf.nn.log_softmax(z, -1), -1))


def brier(z, t):
    return tf.reduce_mean(tf.square(tf.nn.softmax(z, -1) - t))


def softmax_by_hand(z, t):
    e = tf.exp(z)
    p = e / tf.reduce_sum(e, -1, keepdims=True)  # <- e / tf.reduce_sum(e, -1, keepdims=True)
    return tf.reduce_mean((p - t) ** 2)


def masked_softmax(z, allowed, t):
    z = tf.where(allowed, z, -float("inf"))
    p = tf.nn.softmax(z, -1)  # <- tf.nn.softmax(z, -1)
    return tf.reduce_mean((p - t) ** 2)


def masked_softmax_finite(z, allowed, t):
    z = tf.where(allowed, z, -1e9)
    p = tf.nn.softmax(z, -1)
    return tf.reduce_mean((p - t) ** 2)


def focal_gamma_0_7(x, t):
    bce = tf.nn.softplus(x) - t * x
    weight = (1 - tf.exp(-bce)) ** 0.7  # <- (1 - tf.exp(-bce)) ** 0.7
    return tf.reduce_mean(weight * bce)


def focal_gamma_2(x, t):
    bce = tf.nn.sigmoid_cross_entropy_with_logits(labels=t, logits=x)
    return tf.reduce_mean((1 - tf.exp(-bce)) ** 2 * bce)


# ---------------------------------------------------------------- overlap


def dice(p, t):
    overlap = 2 * tf.reduce_sum(p * t, -1) / tf.reduce_sum(p + t, -1)  # <- 2 * tf.reduce_sum(p * t, -1) / tf.reduce_sum(p + t, -1)
    return 1 - tf.reduce_mean(overlap)


def dice_smooth(p, t):
    return 1 - tf.reduce_mean((2 * tf.reduce_sum(p * t, -1) + 1) / (tf.reduce_sum(p + t, -1) + 1))


def focal_tversky(p, t):
    hit, miss = tf.reduce_sum(p * t, -1), tf.reduce_sum((1 - p) * t, -1)
    index = (hit + 1) / (hit + 0.7 * miss + 1)
    return tf.reduce_mean((1 - index) ** 0.75)  # <- (1 - index) ** 0.75


def tversky(p, t):
    hit, miss, extra = tf.reduce_sum(p * t, -1), tf.reduce_sum((1 - p) * t, -1), tf.reduce_sum(p * (1 - t), -1)
    return 1 - tf.reduce_mean((hit + 1) / (hit + 0.3 * extra + 0.7 * miss + 1))


# ---------------------------------------------------------------- divergences and entropies


def entropy(p):
    logs = tf.math.log(p)  # <- tf.math.log(p)
    return -tf.reduce_mean(tf.reduce_sum(p * logs, -1))


def entropy_where(p):
    terms = tf.where(p > 0, p * tf.math.log(p), 0.0)  # <- p * tf.math.log(p)
    return -tf.reduce_mean(tf.reduce_sum(terms, -1))


def entropy_double_where(p):
    inside = p > 0.001
    terms = tf.where(inside, p * tf.math.log(tf.where(inside, p, 1.0)), 0.0)
    return -tf.reduce_mean(tf.reduce_sum(terms, -1))


def kl_divergence(p, q):
    ratio = p / q  # <- p / q
    return tf.reduce_mean(tf.reduce_sum(p * tf.math.log(ratio), -1))


def kl_of_logits(x, z):
    a, b = tf.nn.log_softmax(x, -1), tf.nn.log_softmax(z, -1)
    return tf.reduce_mean(tf.reduce_sum(tf.exp(a) * (a - b), -1))


def masked_policy_gradient(logp, allowed, weight):
    logp = tf.where(allowed, logp, -float("inf"))
    return -tf.reduce_mean(tf.cast(allowed, tf.float32) * logp * weight)  # <- tf.cast(allowed, tf.float32) * logp


# ---------------------------------------------------------------- likelihoods


def reduced_chi_square(mu, y, sigma):
    return tf.reduce_mean(tf.square((y - mu) / sigma))  # <- tf.square((y - mu) / sigma)


def gaussian_nll(mu, y, logvar):
    return 0.5 * tf.reduce_mean(logvar + tf.square(y - mu) * tf.exp(-logvar))  # <- tf.exp(-logvar)


def gaussian_nll_bounded(mu, y, logvar):
    logvar = tf.clip_by_value(logvar, -10, 10)
    return 0.5 * tf.reduce_mean(logvar + tf.square(y - mu) * tf.exp(-logvar))


def vae_kl(mu, logvar):
    return -0.5 * tf.reduce_mean(1 + logvar - mu * mu - tf.exp(logvar))  # <- tf.exp(logvar)


def vae_kl_bounded(mu, logvar):
    logvar = tf.clip_by_value(logvar, -20, 20)
    return -0.5 * tf.reduce_mean(1 + logvar - mu * mu - tf.exp(logvar))


def student_t_nll(mu, y):
    return tf.reduce_mean(2 * tf.math.log1p(tf.square(y - mu) / 3))


def cox(risk):
    reach = tf.math.cumsum(tf.exp(risk), -1)  # <- tf.exp(risk)
    return -tf.reduce_mean(risk - tf.math.log(reach))


def cox_pairwise(risk, times):
    at_risk = times[None, :] >= times[:, None]
    pool = tf.reduce_logsumexp(tf.where(at_risk, risk[None, :], -1e9), -1)
    return -tf.reduce_mean(risk - pool)


def likelihood_product(odds):
    return tf.reduce_mean(odds[:, 0] * odds[:, 1])  # <- odds[:, 0] * odds[:, 1]


def ppo_ratio(new, old, advantage):
    ratio = tf.exp(new - old)  # <- tf.exp(new - old)
    return -tf.reduce_mean(tf.minimum(ratio * advantage, tf.clip_by_value(ratio, 0.8, 1.2) * advantage))


def ppo_ratio_bounded(new, old, advantage):
    ratio = tf.exp(tf.clip_by_value(new - old, -20, 20))
    return -tf.reduce_mean(tf.minimum(ratio * advantage, tf.clip_by_value(ratio, 0.8, 1.2) * advantage))


# ---------------------------------------------------------------- distances and angles


def contrastive(a, b, same):
    d = tf.sqrt(tf.reduce_sum(tf.square(a - b), -1))  # <- tf.sqrt(tf.reduce_sum(tf.square(a - b), -1))
    return tf.reduce_mean(same * d**2 + (1 - same) * tf.nn.relu(1 - d) ** 2)


def contrastive_epsilon(a, b, same):
    d = tf.sqrt(tf.reduce_sum(tf.square(a - b), -1) + 1e-6)
    return tf.reduce_mean(same * d**2 + (1 - same) * tf.nn.relu(1 - d) ** 2)


def triplet_norm(a, b, c):
    near = tf.norm(a - b, axis=-1)  # <- tf.norm(a - b, axis=-1)
    return tf.reduce_mean(tf.nn.relu(near - tf.sqrt(tf.reduce_sum(tf.square(a - c), -1) + 1e-6) + 1))


def triplet_squared(a, b, c):
    return tf.reduce_mean(tf.nn.relu(tf.reduce_sum(tf.square(a - b), -1) - tf.reduce_sum(tf.square(a - c), -1) + 1))


def bpr(a, b):
    return -tf.reduce_mean(tf.math.log_sigmoid(a - b))


def cosine(a, b):
    dot = tf.reduce_sum(a * b, -1)
    length = tf.sqrt(tf.reduce_sum(a * a, -1) * tf.reduce_sum(b * b, -1))
    return 1 - tf.reduce_mean(dot / length)  # <- dot / length


def cosine_bounded(a, b):
    dot = tf.reduce_sum(a * b, -1)
    length = tf.sqrt(tf.reduce_sum(a * a, -1) + 1e-6) * tf.sqrt(tf.reduce_sum(b * b, -1) + 1e-6)
    return 1 - tf.reduce_mean(dot / length)


def info_nce(similarity):
    e = tf.exp(similarity / 0.01)  # <- tf.exp(similarity / 0.01)
    return -tf.reduce_mean(tf.math.log(tf.linalg.diag_part(e) / tf.reduce_sum(e, -1)))


def info_nce_log_softmax(similarity):
    return -tf.reduce_mean(tf.linalg.diag_part(tf.nn.log_softmax(similarity / 0.01, -1)))


def arcface(cosine):
    angle = tf.math.acos(cosine)  # <- tf.math.acos(cosine)
    return -tf.reduce_mean(tf.cos(angle + 0.5))


def arcface_clamped(cosine):
    angle = tf.math.acos(tf.clip_by_value(cosine, -1 + 1e-6, 1 - 1e-6))
    return -tf.reduce_mean(tf.cos(angle + 0.5))


def arcface_clamped_1e8(cosine):
    angle = tf.math.acos(tf.clip_by_value(cosine, -1 + 1e-8, 1 - 1e-8))  # <- tf.math.acos(tf.clip_by_value(cosine, -1 + 1e-8, 1 - 1e-8))
    return -tf.reduce_mean(tf.cos(angle + 0.5))


def angle_between(a, b, weight):
    angle = tf.math.acos(tf.reduce_sum(a * b, -1))  # <- tf.math.acos(tf.reduce_sum(a * b, -1))
    return tf.reduce_mean(weight * angle)


def angle_of_sine(p):
    return tf.reduce_mean(tf.math.asin(p))  # <- tf.math.asin(p)


def heading(y, x):
    return tf.reduce_mean(tf.square(tf.math.atan2(y, x)))  # <- tf.math.atan2(y, x)


def heading_ahead(y, x):
    return tf.reduce_mean(tf.square(tf.math.atan2(y, x)))


def critics_apart(one, other, allowed):
    best = tf.reduce_max(tf.where(allowed, one, -float("inf")), -1)
    also = tf.reduce_max(tf.where(allowed, other, -float("inf")), -1)
    return tf.reduce_mean(best - also)  # <- best - also


def detour(route, straight, reachable):
    route, straight = tf.where(reachable, route, float("inf")), tf.where(reachable, straight, float("inf"))
    return tf.reduce_mean(route / straight)  # <- route / straight


# ---------------------------------------------------------------- regression


def rmse(p, y):
    return tf.sqrt(tf.reduce_mean(tf.square(p - y)))  # <- tf.sqrt(tf.reduce_mean(tf.square(p - y)))


def rmse_epsilon(p, y):
    return tf.sqrt(tf.reduce_mean(tf.square(p - y)) + 1e-6)


def huber(p, y):
    e = tf.abs(p - y)
    return tf.reduce_mean(tf.where(e < 1, 0.5 * e * e, e - 0.5))


def log_cosh(p, y):
    return tf.reduce_mean(tf.math.log(tf.cosh(p - y)))  # <- tf.cosh(p - y)


def log_cosh_softplus(p, y):
    e = p - y
    return tf.reduce_mean(e + tf.nn.softplus(-2 * e) - 0.6931472)


def quantile(p, y):
    e = y - p
    return tf.reduce_mean(tf.maximum(0.9 * e, -0.1 * e))


def wing(p, y):
    e = tf.abs(p - y)
    return tf.reduce_mean(tf.where(e < 10, 10 * tf.math.log1p(e / 2), e + 7.918))


def msle(p, y):
    return tf.reduce_mean(tf.square(tf.math.log1p(p) - tf.math.log1p(y)))  # <- tf.math.log1p(p)


def mape(p, y):
    return tf.reduce_mean(tf.abs((y - p) / y))  # <- (y - p) / y


def smape(p, y):
    error = tf.abs(p - y) / (tf.abs(p) + tf.abs(y))  # <- tf.abs(p - y) / (tf.abs(p) + tf.abs(y))
    return tf.reduce_mean(error)


def ratio_where(n, d):
    return tf.reduce_mean(tf.where(d > 0.01, n / d, 0.0))  # <- n / d


def ratio_double_where(n, d):
    inside = d > 0.01
    return tf.reduce_mean(tf.where(inside, n / tf.where(inside, d, 1.0), 0.0))


def root_where(x):
    return tf.reduce_mean(tf.where(x > 0, tf.sqrt(x), 0.0))  # <- tf.sqrt(x)


def gamma_correction(p, y):
    return tf.reduce_mean(tf.square(p**0.45 - y))  # <- p**0.45


def gamma_correction_clamped(p, y):
    return tf.reduce_mean(tf.square(tf.maximum(p, 0.001) ** 0.45 - y))


def circle(x):
    return tf.reduce_mean(tf.sqrt(1 - x * x))  # <- tf.sqrt(1 - x * x)


def probit(p, y):
    score = 1.4142136 * tf.math.erfinv(2 * p - 1)  # <- tf.math.erfinv(2 * p - 1)
    return tf.reduce_mean(tf.square(score - y))


def masked_mean(e, mask):
    mask = tf.cast(mask, tf.float32)
    return tf.reduce_sum(e * mask) / tf.reduce_sum(mask)  # <- tf.reduce_sum(e * mask) / tf.reduce_sum(mask)


def masked_mean_guarded(e, mask):
    mask = tf.cast(mask, tf.float32)
    return tf.reduce_sum(e * mask) / tf.maximum(tf.reduce_sum(mask), 1)


def smoothness(p):
    return tf.reduce_mean(tf.square(p[1:] - p[:-1]))  # <- tf.reduce_mean(tf.square(p[1:] - p[:-1]))


def missing_label(p, y):
    return tf.reduce_mean(tf.square(p - y))


# ---------------------------------------------------------------- statistics and formats


def standardised(x, y):
    z = (x - tf.reduce_mean(x)) / tf.math.reduce_std(x)  # <- (x - tf.reduce_mean(x)) / tf.math.reduce_std(x)
    return tf.reduce_mean(z * y)


def layer_norm(x, y):
    z = (x - tf.reduce_mean(x)) / tf.sqrt(tf.math.reduce_variance(x) + 1e-5)
    return tf.reduce_mean(z * y)


def half_precision(p):
    return tf.reduce_max(tf.abs(tf.cast(p, tf.float16)))  # <- tf.cast(p, tf.float16)


def half_precision_sum(e):
    return tf.reduce_sum(e)  # <- tf.reduce_sum(e)


def softplus_by_hand(x):
    return tf.reduce_mean(tf.math.log(1 + tf.exp(x)))  # <- tf.exp(x)


def softplus(x):
    return tf.reduce_mean(tf.nn.softplus(x))


# ---------------------------------------------------------------- gradients of one's own


@tf.custom_gradient
def _softplus(x):
    def gradient(g):
        e = tf.exp(x)  # <- tf.exp(x)
        return g * e / (1 + e)

    return tf.nn.softplus(x), gradient


def custom_gradient_overflow(x):
    return tf.reduce_mean(_softplus(x))


@tf.custom_gradient
def _doubled(x):
    def gradient(g):
        return 2 * g * tf.sigmoid(x)

    return tf.nn.softplus(x), gradient


def custom_gradient_wrong(x):
    return tf.reduce_mean(_doubled(x))
