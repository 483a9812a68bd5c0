"""TensorFlow losses whose finiteness hangs on subnormals that count as zero, contracted products, or relations between values."""

import tensorflow as tf

from whynan.domain.spec import binary, classes, integers, logit, positive, prob, real, simplex, unit

CASES = {}


def case(**domains):
    """Register a loss with its domains."""

    def register(loss):
        CASES[loss.__name__] = domains
        return loss

    return register


X = real(4, 3, low=-10, high=10)
AWAY = real(4, 3, low=0.1, high=10)


@case(x=prob(4, 3))
def clip_at_a_subnormal(x):
    return tf.reduce_mean(tf.math.log(tf.clip_by_value(x, 1e-40, 1.0)))


@case(x=prob(4, 3))
def clip_at_the_smallest_normal(x):
    return tf.reduce_mean(tf.math.log(tf.clip_by_value(x, 1.1754944e-38, 1.0)))


@case(x=prob(4, 3))
def add_a_subnormal(x):
    return tf.reduce_mean(tf.math.log(x + 1e-40))


@case(x=prob(4, 3))
def masked_log(x):
    return tf.reduce_mean(tf.where(x > 0, tf.math.log(tf.where(x > 0, x, 1)), 0))


@case(x=prob(4, 3))
def masked_square(x):
    y = x * x
    return tf.reduce_mean(tf.where(y > 0, tf.math.log(tf.where(y > 0, y, 1)), 0))


@case(x=prob(4, 3))
def masked_by_the_root(x):
    return tf.reduce_mean(tf.where(x > 0, tf.math.log(tf.where(x > 0, x * x, 1)), 0))


@case(x=real(4, 3, low=-1, high=1))
def sign_by_division(x):
    return tf.reduce_mean(x / tf.where(tf.abs(x) > 0, tf.abs(x), 1))


@case(x=real(4, 3, low=-1, high=1))
def not_equal_zero(x):
    return tf.reduce_mean(1e-30 / tf.where(x != 0, x, 1))


@case(x=real(4, 3, low=-1, high=1))
def difference_of_unequal(x):
    y = x[:, ::-1]
    return tf.reduce_mean(tf.where(x != y, 1e-37 / tf.where(x != y, x - y, 1), 0))


@case(a=X, b=X)
def discriminant(a, b):
    return tf.reduce_mean(tf.sqrt((a + b) ** 2 - 4 * a * b + 0.001))


@case(a=X, b=X)
def product_minus_itself(a, b):
    return tf.reduce_mean(tf.sqrt(a * b - b * a + 1e-09))


@case(a=AWAY, b=AWAY)
def area_of_a_triangle(a, b):
    return tf.reduce_mean(tf.sqrt(tf.reduce_sum(a * a, -1) * tf.reduce_sum(b * b, -1) - tf.reduce_sum(a * b, -1) ** 2 + 0.0001))


@case(a=AWAY, b=AWAY)
def sine_of_the_angle(a, b):
    c = tf.reduce_sum(a * b, -1) / tf.sqrt(tf.reduce_sum(a * a, -1) * tf.reduce_sum(b * b, -1))
    return tf.reduce_mean(tf.sqrt(1.0001 - c * c))


@case(a=X, b=X)
def angle_of_clipped(a, b):
    c = tf.reduce_sum(a * b, -1) / (tf.norm(a + 0.001, axis=-1) * tf.norm(b + 0.001, axis=-1) + 1e-08)
    return tf.reduce_mean(tf.acos(tf.clip_by_value(c, -1 + 1e-06, 1 - 1e-06)))


@case(a=AWAY, b=AWAY)
def log_of_one_minus_cosine(a, b):
    c = tf.reduce_sum(a * b, -1) / (tf.sqrt(tf.reduce_sum(a * a, -1)) * tf.sqrt(tf.reduce_sum(b * b, -1)))
    return tf.reduce_mean(tf.math.log(1.00001 - c))


@case(a=AWAY, b=AWAY)
def root_of_a_norm_is_no_norm(a, b):
    c = tf.reduce_sum(a * b, -1) / tf.sqrt(tf.reduce_sum(a * a, -1) * tf.sqrt(tf.reduce_sum(b * b, -1)))
    return tf.reduce_mean(tf.math.log(1.1 - c))


@case(a=AWAY, b=AWAY)
def mean_cosine(a, b):
    c = tf.reduce_mean(a * b, -1) / tf.sqrt(tf.reduce_mean(a * a, -1) * tf.reduce_mean(b * b, -1))
    return tf.reduce_mean(tf.math.log(1.0001 - c))


@case(p=simplex(4, 3))
def total_of_a_simplex(p):
    return tf.reduce_mean(1 / (tf.reduce_sum(p, -1) - 0.5)) + tf.reduce_mean(tf.math.log(1.001 - tf.reduce_sum(p, -1)))


@case(p=simplex(4, 3))
def total_but_one(p):
    return tf.reduce_mean(tf.math.log(tf.reduce_sum(p, -1) - 0.9999))


@case(p=simplex(4, 3))
def rest_of_a_simplex(p):
    return tf.reduce_mean(tf.math.log(1 - tf.reduce_sum(p[:, 1:], -1)))


@case(p=simplex(4, 3))
def normalised_again(p):
    q = p / tf.reduce_sum(p, -1, keepdims=True)
    return -tf.reduce_mean(tf.reduce_sum(q * tf.math.log(q + 1e-07), -1))


@case(x=X)
def sorted_gaps(x):
    s = tf.sort(x, axis=-1)
    return tf.reduce_mean(tf.sqrt(s[:, 1:] - s[:, :-1] + 1e-06))


@case(x=X)
def sorted_gaps_backwards(x):
    s = tf.sort(x, axis=-1)
    return tf.reduce_mean(tf.math.log1p(s[:, :-1] - s[:, 1:]))


@case(x=logit(4, 3))
def guarded_log_sum_exp(x):
    m = tf.reduce_max(x, -1, keepdims=True)
    m = tf.where(tf.math.is_finite(m), m, 0)
    return tf.reduce_mean(tf.math.log(tf.reduce_sum(tf.exp(x - m), -1)) + m[:, 0])


@case(x=logit(4, 3))
def soft_weights(x):
    e = tf.exp(x - tf.stop_gradient(tf.reduce_max(x, -1, keepdims=True)))
    p = e / tf.reduce_sum(e, -1, keepdims=True)
    return tf.reduce_mean(tf.sqrt(1 - p + 1e-07)) + tf.reduce_mean(tf.math.log(tf.reduce_sum(p, -1)))


@case(x=real(4, 3, low=-7, high=7))
def squashed(x):
    return tf.reduce_mean(tf.math.log(1 - tf.tanh(x) ** 2))


@case(x=real(4, 3, low=-20, high=20))
def squashed_with_epsilon(x):
    return tf.reduce_mean(tf.math.log(1 - tf.tanh(x) ** 2 + 1e-06))


@case(x=real(4, 3, low=-80, high=80))
def naive_sigmoid(x):
    e = tf.exp(x)
    return tf.reduce_mean(tf.math.log(1.0001 - e / (1 + e)))


@case(x=real(4, 3, low=-15, high=15))
def complement_of_sigmoid(x):
    return tf.reduce_mean(tf.math.log(1 - tf.sigmoid(x)))


@case(x=prob(4, 3))
def variance_by_moments(x):
    return tf.reduce_mean(tf.sqrt(tf.reduce_mean(x * x, -1) - tf.reduce_mean(x, -1) ** 2 + 1e-06))


@case(x=X)
def standardised(x):
    return tf.reduce_mean((x - tf.reduce_mean(x, -1, keepdims=True)) / tf.sqrt(tf.math.reduce_variance(x, -1, keepdims=True) + 1e-12))


@case(x=X)
def normalised(x):
    return tf.reduce_mean(x / tf.maximum(tf.sqrt(tf.reduce_sum(x * x, -1, keepdims=True) + 1e-30), 1e-12))


@case(x=X)
def tiny_norm(x):
    n = tf.sqrt(tf.reduce_sum(x * x, -1, keepdims=True))
    return tf.reduce_mean(x / tf.where(n > 0, n, 1))


@case(x=unit(4, 3))
def unit_rows(x):
    return tf.reduce_mean(tf.math.log(tf.reduce_sum(x * x, -1))) + tf.reduce_mean(tf.sqrt(1.001 - tf.reduce_sum(x * x, -1)))


@case(x=positive(4, 3))
def reciprocal_of_positive(x):
    return tf.reduce_mean(0.001 / x)


@case(x=positive(4, 3, low=1e-38))
def reciprocal_of_normal(x):
    return tf.reduce_mean(0.001 / x)


@case(x=X, n=integers(0, 2**31 - 1, 4, 3, dtype="int32"))
def counts(x, n):
    return tf.reduce_mean(x / tf.cast(tf.maximum(n + 1, 1), x.dtype))


@case(x=X, k=classes(3, 4))
def picked(x, k):
    p = tf.nn.softmax(x, -1)
    return -tf.reduce_mean(tf.math.log(tf.gather(p, k, batch_dims=1)))


@case(x=X, m=binary(4, 3))
def masked_mean(x, m):
    return tf.reduce_mean(tf.reduce_sum(x * m, -1) / tf.maximum(tf.reduce_sum(m, -1), 1)) + tf.reduce_mean(
        m / (tf.reduce_sum(m, -1, keepdims=True) + 1e-08)
    )


@case(x=X)
def in_half_and_back(x):
    y = tf.cast(tf.cast(x, tf.bfloat16), x.dtype)
    return tf.reduce_mean(tf.math.log(x - y + 0.05))


@case(x=X)
def fused_cancellation(x):
    y = x * x
    return tf.reduce_mean(tf.sqrt(y - y * tf.where(x > 20, 0.5, 1) + 1e-05))


@case(x=real(4, 3, low=1.0, high=10000.0))
def hyperbolic(x):
    return tf.reduce_mean(tf.math.acosh(1 + x * 1e-07)) + tf.reduce_mean(tf.math.atanh(1 - 1 / (1 + x)))


@case(p=prob(4, 3))
def power_of_a_probability(p):
    return tf.reduce_mean(tf.pow(p, 1.5) + tf.pow(1.0 - p, 2.5))
