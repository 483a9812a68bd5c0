"""Rewrites: equalities of real values, one row each.

A row with `cures` leads from a form that fails to one that does not; the others are algebra that brings terms into the shape of a row
that cures. In the e-graph an equality has no direction: which form is taken is decided by numerical cost.
"""

from whynan.fixes._pattern import Rule, rewrite

LOG2 = "0.6931471805599453"

LOGISTIC = (
    rewrite("log-sigmoid", "log(sigmoid(X))", "logsigmoid(X)", cures="log-of-zero"),
    rewrite("sigmoid-complement", "1 - sigmoid(X)", "sigmoid(-X)", cures="cancellation"),
    rewrite("sigmoid-by-hand", "1 / (1 + exp(-X))", "sigmoid(X)", cures="exp-overflow"),
    rewrite("sigmoid-by-hand-up", "exp(X) / (1 + exp(X))", "sigmoid(X)", cures="inf-over-inf"),
    rewrite("reciprocal-logistic", "1 / (1 + exp(X))", "sigmoid(-X)", cures="exp-overflow"),
    rewrite("logsigmoid-softplus", "logsigmoid(X)", "-softplus(-X)", both=True),
    rewrite("softplus-by-hand", "log(1 + exp(X))", "softplus(X)", cures="exp-overflow"),
    rewrite("softplus-log1p", "log1p(exp(X))", "softplus(X)", cures="exp-overflow"),
    rewrite("softplus-mirror", "softplus(-X)", "softplus(X) - X"),
    rewrite("bce-with-logits", "softplus(X) - T * X", "bce_with_logits(X, T)", both=True),
    rewrite("bce-pair", "T * softplus(-X) + (1 - T) * softplus(X)", "bce_with_logits(X, T)"),
    rewrite("bce-pair-log", "T * logsigmoid(X) + (1 - T) * logsigmoid(-X)", "-bce_with_logits(X, T)"),
    rewrite("bce-of-sigmoid", "binary_cross_entropy(sigmoid(X), T)", "bce_with_logits(X, T)", cures="zero-times-inf"),
    rewrite("log-tanh-slope", "log(1 - tanh(X) ** 2)", f"2 * ({LOG2} - X - softplus(-2 * X))", cures="log-of-zero"),
    rewrite("log-tanh-slope-square", "log(1 - square(tanh(X)))", f"2 * ({LOG2} - X - softplus(-2 * X))", cures="log-of-zero"),
    rewrite("log-cosh", "log(cosh(X))", f"abs(X) + softplus(-2 * abs(X)) - {LOG2}", cures="exp-overflow"),
    rewrite("tanh-by-hand", "(exp(X) - exp(-X)) / (exp(X) + exp(-X))", "tanh(X)", cures="inf-over-inf"),
    rewrite("tanh-of-double", "(exp(2 * X) - 1) / (exp(2 * X) + 1)", "tanh(X)", cures="inf-over-inf"),
    rewrite("log-sigmoid-difference", "log(sigmoid(X) - sigmoid(Y))", "logsigmoid(X) + logsigmoid(-Y) + log(-expm1(Y - X))",
            cures="log-of-zero"),
)  # fmt: skip

SOFTMAX = (
    rewrite("log-softmax", "log(softmax(X, axis=A))", "log_softmax(X, axis=A)", cures="log-of-zero"),
    rewrite("exp-log-softmax", "exp(log_softmax(X, axis=A))", "softmax(X, axis=A)"),
    rewrite("log-softmax-by-hand", "X - logsumexp(X, axis=A, keepdims=True)", "log_softmax(X, axis=A)"),
    rewrite("softmax-by-hand", "exp(X) / sum(exp(X), axis=A, keepdims=True)", "softmax(X, axis=A)", cures="inf-over-inf"),
    rewrite("softmax-over-all", "exp(X) / sum(exp(X))", "exp(X - logsumexp(X))", cures="inf-over-inf"),
    rewrite("log-sum-exp", "log(sum(exp(X), axis=A, keepdims=K))", "logsumexp(X, axis=A, keepdims=K)", cures="exp-overflow"),
    rewrite("log-cumsum-exp", "log(cumsum(exp(X), axis=A))", "logcumsumexp(X, axis=A)", cures="exp-overflow"),
    rewrite("log-sum-positive", "log(sum(X, axis=A, keepdims=K))", "logsumexp(log(X), axis=A, keepdims=K)", positive="X",
            cures="underflow-then-divide"),
    rewrite("log-sum-masked", "log(sum(exp(X) * M, axis=A, keepdims=K))",
            "logsumexp(where(M > 0, X, -finfo_max(X) ** 0.5), axis=A, keepdims=K)",
            binary="M", cures="exp-overflow"),
    rewrite("log-add-exp", "log(exp(X) + exp(Y))", "logaddexp(X, Y)", cures="exp-overflow"),
    rewrite("shifted-log-sum-exp", "log(sum(exp(X - amax(X, axis=A, keepdims=True)), axis=A, keepdims=True))",
            "logsumexp(X, axis=A, keepdims=True) - amax(X, axis=A, keepdims=True)"),
    rewrite("log-gather", "log(gather(X, I, axis=A))", "gather(log(X), I, axis=A)", positive="X"),
    rewrite("neg-gather", "-gather(X, I, axis=A)", "gather(-X, I, axis=A)", both=True),
)  # fmt: skip

LOGARITHMS = (
    rewrite("log-one-plus", "log(1 + X)", "log1p(X)", cures="cancellation"),
    rewrite("log-one-minus", "log(1 - X)", "log1p(-X)", cures="cancellation"),
    rewrite("exp-minus-one", "exp(X) - 1", "expm1(X)", cures="cancellation"),
    rewrite("one-minus-exp", "1 - exp(X)", "-expm1(X)", cures="cancellation"),
    rewrite("log-exp", "log(exp(X))", "X", cures="exp-overflow"),
    rewrite("exp-log", "exp(log(X))", "X", positive="X"),
    rewrite("log-product", "log(X * Y)", "log(X) + log(Y)", positive="XY"),
    rewrite("log-quotient", "log(X / Y)", "log(X) - log(Y)", positive="XY", cures="underflow-then-divide"),
    rewrite("log-reciprocal", "log(1 / X)", "-log(X)", positive="X"),
    rewrite("log-power", "log(X ** Y)", "Y * log(X)", positive="X"),
    rewrite("log-square", "log(square(X))", "2 * log(X)", positive="X", cures="square-overflow"),
    rewrite("log-root", "log(sqrt(X))", "0.5 * log(X)", positive="X"),
    rewrite("power-by-logarithm", "X ** Y", "exp(Y * log(X))", positive="X"),
    rewrite("exp-sum", "exp(X) * exp(Y)", "exp(X + Y)", cures="exp-overflow"),
    rewrite("exp-difference", "exp(X) / exp(Y)", "exp(X - Y)", cures="inf-over-inf"),
    rewrite("over-exp", "X / exp(Y)", "X * exp(-Y)", both=True),
    rewrite("exp-power", "exp(X) ** Y", "exp(X * Y)"),
    rewrite("exp-square", "square(exp(X))", "exp(2 * X)"),
    rewrite("exp-root", "sqrt(exp(X))", "exp(0.5 * X)"),
    rewrite("log2", "log2(X)", "log(X) * 1.4426950408889634"),
)  # fmt: skip

ROOTS = (
    rewrite("root-of-square", "sqrt(square(X))", "abs(X)", cures="sqrt-grad-at-zero"),
    rewrite("square-of-root", "square(sqrt(X))", "X", nonnegative="X", cures="sqrt-grad-at-zero"),
    rewrite("power-two", "X ** 2", "square(X)", both=True),
    rewrite("power-half", "X ** 0.5", "sqrt(X)", both=True),
    rewrite("power-one", "X ** 1", "X"),
    rewrite("product-of-same", "X * X", "square(X)", both=True),
    rewrite("over-own-root", "X / sqrt(X)", "sqrt(X)", nonnegative="X", cures="zero-over-zero"),
    rewrite("difference-of-squares", "square(X) - square(Y)", "(X - Y) * (X + Y)", cures="cancellation"),
    rewrite("one-minus-square", "1 - square(X)", "(1 - X) * (1 + X)", cures="cancellation"),
    rewrite("square-minus-one", "square(X) - 1", "(X - 1) * (X + 1)", cures="cancellation"),
    rewrite("one-minus-cosine", "1 - cos(X)", "2 * square(sin(0.5 * X))", cures="cancellation"),
    rewrite("acosh-by-hand", "log(X + sqrt(square(X) - 1))", "acosh(X)"),
    rewrite("square-of-product", "square(X * Y)", "square(X) * square(Y)"),
    rewrite("square-of-quotient", "square(X / Y)", "square(X) / square(Y)"),
    rewrite("rsqrt", "1 / sqrt(X)", "rsqrt(X)"),
)  # fmt: skip

QUOTIENTS = (
    rewrite("over-itself", "X / X", "1", cures="zero-over-zero"),
    rewrite("product-over-factor", "X * Y / Y", "X", cures="zero-over-zero"),
    rewrite("common-factor", "X * Y / (X * Z)", "Y / Z", cures="zero-over-zero"),
    rewrite("quotient-of-quotient", "X / (Y / Z)", "X * Z / Y"),
    rewrite("quotient-twice", "X / Y / Z", "X / (Y * Z)", both=True),
    rewrite("factor-out-of-quotient", "X * Y / Z", "X * (Y / Z)", both=True),
    rewrite("difference-of-quotients", "X / Z - Y / Z", "(X - Y) / Z"),
    rewrite("negative-quotient", "-X / Y", "-(X / Y)", both=True),
)  # fmt: skip

STATISTICS = (
    rewrite("variance-by-moments", "mean(square(X), axis=A, keepdims=K) - square(mean(X, axis=A, keepdims=K))",
            "var(X, axis=A, keepdims=K, correction=0)", cures="cancellation"),
    rewrite("variance-two-passes", "var(X, axis=A, keepdims=K, correction=0)",
            "mean(square(X - mean(X, axis=A, keepdims=True)), axis=A, keepdims=K)"),
    rewrite("log-determinant", "log(det(X))", "logdet(X)", cures="product-overflow"),
    rewrite("log-absolute-determinant", "log(abs(det(X)))", "slogdet_log(X)", cures="product-overflow"),
    rewrite("sum-of-negative", "sum(-X, axis=A, keepdims=K)", "-sum(X, axis=A, keepdims=K)", both=True),
    rewrite("mean-of-negative", "mean(-X, axis=A, keepdims=K)", "-mean(X, axis=A, keepdims=K)", both=True),
)  # fmt: skip

ALGEBRA = (
    rewrite("add-commutes", "X + Y", "Y + X"),
    rewrite("mul-commutes", "X * Y", "Y * X"),
    rewrite("add-associates", "X + Y + Z", "X + (Y + Z)"),
    rewrite("mul-associates", "X * Y * Z", "X * (Y * Z)"),
    rewrite("sub-is-add", "X - Y", "X + -Y", both=True),
    rewrite("neg-neg", "--X", "X"),
    rewrite("neg-sub", "-(X - Y)", "Y - X"),
    rewrite("neg-add", "-(X + Y)", "-X - Y", both=True),
    rewrite("neg-mul", "-(X * Y)", "-X * Y", both=True),
    rewrite("neg-one", "-1 * X", "-X"),
    rewrite("distribute-complement", "(1 - T) * X", "X - T * X"),
    rewrite("factor", "X * Y + X * Z", "X * (Y + Z)"),
    rewrite("factor-difference", "X * Y - X * Z", "X * (Y - Z)"),
    rewrite("add-zero", "X + 0", "X"),
    rewrite("mul-one", "X * 1", "X"),
    rewrite("over-one", "X / 1", "X"),
    rewrite("cancel-sum", "X + Y - Y", "X"),
    rewrite("cancel", "X - X", "0"),
    rewrite("cancel-shifted", "(X + C) - (X + D)", "C - D"),
    rewrite("cancel-shifted-down", "(X - C) - (X - D)", "D - C"),
    rewrite("cancel-shifted-apart", "(X - C) - (X + D)", "-(C + D)"),
    rewrite("cancel-shifted-away", "(X + C) - (X - D)", "C + D"),
)  # fmt: skip

TABLES: dict[str, tuple[Rule, ...]] = {
    "logistic": LOGISTIC,
    "softmax": SOFTMAX,
    "logarithms": LOGARITHMS,
    "roots": ROOTS,
    "quotients": QUOTIENTS,
    "statistics": STATISTICS,
    "algebra": ALGEBRA,
}

SIGNS: tuple[tuple[str, str, str, str], ...] = (  # term, sign, variables that must be positive, variables that must not be negative
    ("exp(X)", "positive", "", ""),
    ("sigmoid(X)", "positive", "", ""),
    ("softmax(X, axis=A)", "positive", "", ""),
    ("softplus(X)", "positive", "", ""),
    ("cosh(X)", "positive", "", ""),
    ("square(X)", "nonnegative", "", ""),
    ("abs(X)", "nonnegative", "", ""),
    ("sqrt(X)", "nonnegative", "", ""),
    ("relu(X)", "nonnegative", "", ""),
    ("X * X", "nonnegative", "", ""),
    ("X + Y", "positive", "X", "Y"),
    ("X + Y", "nonnegative", "", "XY"),
    ("X * Y", "positive", "XY", ""),
    ("X * Y", "nonnegative", "", "XY"),
    ("X / Y", "positive", "XY", ""),
    ("X ** Y", "positive", "X", ""),
    ("sqrt(X)", "positive", "X", ""),
    ("square(X)", "positive", "X", ""),
    ("sum(X, axis=A, keepdims=K)", "positive", "X", ""),
    ("mean(X, axis=A, keepdims=K)", "positive", "X", ""),
    ("amax(X, axis=A, keepdims=K)", "positive", "X", ""),
    ("cumsum(X, axis=A)", "positive", "X", ""),
    ("sum(X, axis=A, keepdims=K)", "nonnegative", "", "X"),
    ("mean(X, axis=A, keepdims=K)", "nonnegative", "", "X"),
    ("gather(X, I, axis=A)", "positive", "X", ""),
)
