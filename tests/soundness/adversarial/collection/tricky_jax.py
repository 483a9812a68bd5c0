"""JAX losses whose finiteness hangs on subnormals that count as zero, contracted products, or relations between values."""

import jax
import jax.numpy as jnp

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
    return jnp.log(jnp.clip(x, 1e-40, 1.0)).mean()


@case(x=prob(4, 3))
def clip_at_the_smallest_normal(x):
    return jnp.log(jnp.clip(x, 1.1754944e-38, 1.0)).mean()


@case(x=prob(4, 3))
def add_a_subnormal(x):
    return jnp.log(x + 1e-40).mean()


@case(x=prob(4, 3))
def masked_log(x):
    return jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1)), 0).mean()


@case(x=prob(4, 3))
def masked_square(x):
    y = x * x
    return jnp.where(y > 0, jnp.log(jnp.where(y > 0, y, 1)), 0).mean()


@case(x=prob(4, 3))
def masked_by_the_root(x):
    return jnp.where(x > 0, jnp.log(jnp.where(x > 0, x * x, 1)), 0).mean()


@case(x=real(4, 3, low=-1, high=1))
def sign_by_division(x):
    return (x / jnp.where(jnp.abs(x) > 0, jnp.abs(x), 1)).mean()


@case(x=real(4, 3, low=-1, high=1))
def not_equal_zero(x):
    return (1e-30 / jnp.where(x != 0, x, 1)).mean()


@case(x=real(4, 3, low=-1, high=1))
def difference_of_unequal(x):
    y = x[:, ::-1]
    return jnp.where(x != y, 1e-37 / jnp.where(x != y, x - y, 1), 0).mean()


@case(a=X, b=X)
def discriminant(a, b):
    return jnp.sqrt((a + b) ** 2 - 4 * a * b + 1e-3).mean()


@case(a=X, b=X)
def product_minus_itself(a, b):
    return jnp.sqrt(a * b - b * a + 1e-9).mean()


@case(a=AWAY, b=AWAY)
def area_of_a_triangle(a, b):
    return jnp.sqrt((a * a).sum(-1) * (b * b).sum(-1) - (a * b).sum(-1) ** 2 + 1e-4).mean()


@case(a=AWAY, b=AWAY)
def sine_of_the_angle(a, b):
    c = (a * b).sum(-1) / jnp.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    return jnp.sqrt(1.0001 - c * c).mean()


@case(a=X, b=X)
def angle_of_clipped(a, b):
    c = (a * b).sum(-1) / (jnp.linalg.norm(a + 1e-3, axis=-1) * jnp.linalg.norm(b + 1e-3, axis=-1) + 1e-8)
    return jnp.arccos(jnp.clip(c, -1 + 1e-6, 1 - 1e-6)).mean()


@case(a=AWAY, b=AWAY)
def log_of_one_minus_cosine(a, b):
    c = (a * b).sum(-1) / (jnp.sqrt((a * a).sum(-1)) * jnp.sqrt((b * b).sum(-1)))
    return jnp.log(1.00001 - c).mean()


@case(a=AWAY, b=AWAY)
def root_of_a_norm_is_no_norm(a, b):
    c = (a * b).sum(-1) / jnp.sqrt((a * a).sum(-1) * jnp.sqrt((b * b).sum(-1)))
    return jnp.log(1.1 - c).mean()


@case(a=AWAY, b=AWAY)
def mean_cosine(a, b):
    c = (a * b).mean(-1) / jnp.sqrt((a * a).mean(-1) * (b * b).mean(-1))
    return jnp.log(1.0001 - c).mean()


@case(p=simplex(4, 3))
def total_of_a_simplex(p):
    return (1 / (p.sum(-1) - 0.5)).mean() + jnp.log(1.001 - p.sum(-1)).mean()


@case(p=simplex(4, 3))
def total_but_one(p):
    return jnp.log(p.sum(-1) - 0.9999).mean()


@case(p=simplex(4, 3))
def rest_of_a_simplex(p):
    return jnp.log(1 - p[:, 1:].sum(-1)).mean()


@case(p=simplex(4, 3))
def normalised_again(p):
    q = p / p.sum(-1, keepdims=True)
    return -(q * jnp.log(q + 1e-7)).sum(-1).mean()


@case(x=X)
def sorted_gaps(x):
    s = jnp.sort(x, axis=-1)
    return jnp.sqrt(s[:, 1:] - s[:, :-1] + 1e-6).mean()


@case(x=X)
def sorted_gaps_backwards(x):
    s = jnp.sort(x, axis=-1)
    return jnp.log1p(s[:, :-1] - s[:, 1:]).mean()


@case(x=logit(4, 3))
def guarded_log_sum_exp(x):
    m = x.max(-1, keepdims=True)
    m = jnp.where(jnp.isfinite(m), m, 0)
    return (jnp.log(jnp.exp(x - m).sum(-1)) + m[:, 0]).mean()


@case(x=logit(4, 3))
def soft_weights(x):
    e = jnp.exp(x - jax.lax.stop_gradient(x.max(-1, keepdims=True)))
    p = e / e.sum(-1, keepdims=True)
    return jnp.sqrt(1 - p + 1e-7).mean() + jnp.log(p.sum(-1)).mean()


@case(x=real(4, 3, low=-7, high=7))
def squashed(x):
    return jnp.log(1 - jnp.tanh(x) ** 2).mean()


@case(x=real(4, 3, low=-20, high=20))
def squashed_with_epsilon(x):
    return jnp.log(1 - jnp.tanh(x) ** 2 + 1e-6).mean()


@case(x=real(4, 3, low=-80, high=80))
def naive_sigmoid(x):
    e = jnp.exp(x)
    return jnp.log(1.0001 - e / (1 + e)).mean()


@case(x=real(4, 3, low=-15, high=15))
def complement_of_sigmoid(x):
    return jnp.log(1 - jax.nn.sigmoid(x)).mean()


@case(x=prob(4, 3))
def variance_by_moments(x):
    return jnp.sqrt((x * x).mean(-1) - x.mean(-1) ** 2 + 1e-6).mean()


@case(x=X)
def standardised(x):
    return ((x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-12)).mean()


@case(x=X)
def normalised(x):
    return (x / jnp.maximum(jnp.sqrt((x * x).sum(-1, keepdims=True) + 1e-30), 1e-12)).mean()


@case(x=X)
def tiny_norm(x):
    n = jnp.sqrt((x * x).sum(-1, keepdims=True))
    return (x / jnp.where(n > 0, n, 1)).mean()


@case(x=unit(4, 3))
def unit_rows(x):
    return jnp.log((x * x).sum(-1)).mean() + jnp.sqrt(1.001 - (x * x).sum(-1)).mean()


@case(x=positive(4, 3))
def reciprocal_of_positive(x):
    return (1e-3 / x).mean()


@case(x=positive(4, 3, low=1e-38))
def reciprocal_of_normal(x):
    return (1e-3 / x).mean()


@case(x=X, n=integers(0, 2**31 - 1, 4, 3, dtype="int32"))
def counts(x, n):
    return (x / jnp.maximum(n + 1, 1)).mean()


@case(x=X, k=classes(3, 4))
def picked(x, k):
    p = jax.nn.softmax(x, -1)
    return -jnp.log(jnp.take_along_axis(p, k[:, None], -1)).mean()


@case(x=X, m=binary(4, 3))
def masked_mean(x, m):
    return ((x * m).sum(-1) / jnp.maximum(m.sum(-1), 1)).mean() + (m / (m.sum(-1, keepdims=True) + 1e-8)).mean()


@case(x=X)
def in_half_and_back(x):
    y = x.astype(jnp.bfloat16).astype(x.dtype)
    return jnp.log(x - y + 0.05).mean()


@case(x=X)
def fused_cancellation(x):
    y = x * x
    return jnp.sqrt(y - y * jnp.where(x > 20, 0.5, 1) + 1e-5).mean()


@case(x=real(4, 3, low=1.0, high=1e4))
def hyperbolic(x):
    return jnp.arccosh(1 + x * 1e-7).mean() + jnp.arctanh(1 - 1 / (1 + x)).mean()


@case(p=prob(4, 3))
def power_of_a_probability(p):
    return (p**1.5 + (1 - p) ** 2.5).mean()


@case(x=X, y=X)
def overlap_of_shares(x, y):
    bc = jnp.sqrt(jax.nn.softmax(x, -1) * jax.nn.softmax(y, -1) + 1e-12).sum(-1)
    return jnp.sqrt(1 - bc + 1e-4).mean()


@case(x=X, y=X)
def cosine_by_reciprocal(x, y):
    u, v = (a / jnp.sqrt((a * a).sum(-1, keepdims=True) + 1e-9) for a in (x, y))
    return jnp.sqrt(1 - (u * v).sum(-1) ** 2 + 1e-5).mean()


@case(x=real(4, 3, low=-20, high=20))
def gamma_function_of_a_softplus(x):
    return jax.scipy.special.gammaln(jax.nn.softplus(x) + 0.05).mean()
