"""Guards: what to do at a failing operation where no rewriting is finite, one row each.

A floor is taken from the value's own format (`finfo_eps(X)` is the distance from 1 to the next number, `finfo_tiny(X)` the smallest normal
number): a literal may round away in a smaller format, and a compiler may fold it. `exact` rows change the value nowhere where the old
one is finite; they come first. Literals stand for margins only where the format does not give one.
"""

from whynan.fixes._pattern import Guard, guard

_BELOW_TINY = "Below the smallest normal number of the format the value is that of the floor, and no gradient passes there."
_BELOW_ROOT = "Below the root of the format's smallest normal number the value is that of the floor, and no gradient passes there."
_AT_TINY = "Nothing changes but where the divisor is 0 or subnormal: there the quotient becomes 0, and no gradient passes."
_AT_ENDS = "Nothing changes but the gradient at -1 and 1, which becomes 0 instead of infinite; beyond them the value is that of the end."
_MARGIN = "Closer than eps to -1 and 1 the value is that of the margin, and no gradient passes there."
_BELOW_SQUARE = "Below eps squared, less than ordinary numbers resolve, the value is that of the floor, and no gradient passes there."
_NEAR_ZERO_SQUARE = "Where the divisor is closer to 0 than eps squared, the quotient becomes 0, and no gradient passes there."
_BELOW_EPS = "Below eps, the format's spacing at 1, the value is that of the floor, and no gradient passes there."
_PLUS_TINY = "At and near 0 the value moves by at most the root of the format's smallest normal number; the gradient stays alive."
_PLUS_EPS = "The value moves by at most the root of eps, the format's spacing at 1, near 0 and by less elsewhere; the gradient stays alive."
_AT_ZERO = "Nothing changes but at 0, where the gradient becomes 0 instead of undefined."
_ZERO_DIVISOR = "Nothing changes but where the divisor is 0: there the quotient becomes 0, and no gradient passes."
_NEAR_ZERO_DIVISOR = "Where the divisor is closer to 0 than eps, the quotient becomes 0, and no gradient passes there."
_PLUS_DIVISOR = "The quotient shrinks by a factor of divisor / (divisor + eps); the gradient stays alive."

_LOG = (
    "log-of-zero log-of-negative epsilon-rounds-away epsilon-removed-by-compiler rounding-out-of-domain "
    "underflow-then-divide masked-branch-gradient"
)
_SQRT = "sqrt-grad-at-zero sqrt-of-negative zero-variance masked-branch-gradient div-by-zero rounding-out-of-domain zero-over-zero"
_DIV = (
    "div-by-zero zero-over-zero underflow-then-divide empty-reduction zero-variance epsilon-rounds-away norm-grad-at-zero "
    "sqrt-grad-at-zero inf-over-inf"
)
_NORM = "norm-grad-at-zero sqrt-grad-at-zero div-by-zero zero-over-zero"
_POW = "pow-grad-at-zero pow-domain masked-branch-gradient"
_EDGE = "inverse-trig-domain inverse-trig-grad-at-edge rounding-out-of-domain epsilon-rounds-away masked-branch-gradient"
_INF = "zero-times-inf masked-branch-gradient inf-minus-inf all-masked-softmax"

LOGARITHMS: tuple[Guard, ...] = tuple(
    row
    for log in ("log", "log2", "log10")
    for row in (
        guard(f"{log}-floor-tiny", f"{log}(X)", f"{log}(clamp_min(X, finfo_tiny(X)))", "keep the logarithm's argument above 0",
              _BELOW_TINY, _LOG, exact=True, rank=3),
        guard(f"{log}-floor-eps", f"{log}(X)", f"{log}(clamp_min(X, finfo_eps(X)))", "keep the logarithm's argument above eps",
              _BELOW_EPS, _LOG, rank=4),
        guard(f"{log}-plus-eps", f"{log}(X)", f"{log}(X + finfo_eps(X))", "add eps to the logarithm's argument",
              "The value moves by log(1 + eps / x): nothing for x well above eps; the gradient stays alive.", _LOG, nonnegative="X",
              rank=4),
        guard(f"{log}-plus-tiny", f"{log}(X)", f"{log}(X + finfo_tiny(X))", "add the smallest normal number to the logarithm's argument",
              "The value changes below the smallest normal numbers only; the gradient stays alive, and may become huge.", _LOG,
              nonnegative="X", rank=4),
        guard(f"{log}-where", f"{log}(X)", f"where(X > 0, {log}(where(X > 0, X, 1)), {log}(finfo_tiny(X)))",
              "take the logarithm only where it is defined", "Nothing changes but at 0 and below.", _LOG, exact=True, rank=6),
        guard(f"{log}-limits", f"{log}(clamp(X, C, D))", f"{log}(clamp(X, finfo_eps(X), 1 - finfo_eps(X)))",
              "clamp with the format's own eps", _BELOW_EPS, _LOG, rank=2),
        guard(f"{log}-complement", f"{log}(1 - X)", f"{log}(clamp_min(1 - X, finfo_eps(X)))", "keep 1 - x above eps", _BELOW_EPS, _LOG,
              exact=True, rank=2),
        guard(f"{log}-complement-guarded", f"{log}(1 - X + C)", f"{log}(clamp_min(1 - X, finfo_eps(X)))", "keep 1 - x above eps",
              _BELOW_EPS, _LOG, rank=2),
    )
) + (
    guard("log1p-floor", "log1p(X)", "log1p(clamp_min(X, finfo_eps(X) - 1))", "keep the argument of log1p above -1", _BELOW_EPS, _LOG,
          exact=True, rank=2),
    guard("log1p-negative-limit", "log1p(-clamp_max(X, C))", "log1p(-clamp_max(X, 1 - finfo_eps(X)))", "clamp with the format's own eps",
          _BELOW_EPS, _LOG, rank=2),
    guard("log1p-negative", "log1p(-X)", "log1p(-clamp_max(X, 1 - finfo_eps(X)))", "keep the argument of log1p above -1", _BELOW_EPS,
          _LOG, exact=True, rank=1),
    guard("p-log-p", "X * log(X)", "X * log(clamp_min(X, finfo_tiny(X)))", "keep the logarithm's argument above 0",
          "0 log 0 becomes 0; below the smallest normal number no gradient passes through the logarithm.", _LOG + " zero-times-inf",
          exact=True, rank=1),
    guard("xlogy", "X * log(Y)", "xlogy(X, Y)", "let a zero weight win over the logarithm",
          "Nothing changes but where both are 0: there the product becomes 0.", "zero-times-inf log-of-zero", exact=True, rank=4),
    guard("xlogy-floor", "xlogy(X, Y)", "X * log(clamp_min(Y, finfo_tiny(Y)))", "keep the logarithm's argument above 0", _BELOW_TINY,
          _LOG, exact=True, rank=2),
    guard("kl-target", "kl_div(X, T)", "T * (log(clamp_min(T, finfo_tiny(T))) - X)",
          "write the divergence out, with a floor under the target's logarithm", _BELOW_TINY, exact=True, rank=1),
    guard("kl-target-eps", "kl_div(X, T)", "T * (log(clamp_min(T, finfo_eps(T))) - X)",
          "write the divergence out, with a floor under the target's logarithm", _BELOW_EPS, rank=2),
    *(
        guard(f"bce-built-in{n}", naive, "binary_cross_entropy(X, T)", "use the built-in binary cross-entropy",
              "No logarithm is below -100, and no divisor of a gradient below 1e-12.", _LOG, exact=True, rank=-2)
        for n, naive in enumerate((
            "-(T * log(X) + (1 - T) * log(1 - X))",
            "-T * log(X) - (1 - T) * log(1 - X)",
            "-(T * log(X)) - (1 - T) * log(1 - X)",
        ))
    ),
    guard("bce-clamp", "binary_cross_entropy(X, T)", "binary_cross_entropy(clamp(X, finfo_eps(X), 1 - finfo_eps(X)), T)",
          "keep the probabilities inside (0, 1)", _BELOW_EPS, rank=2),
)  # fmt: skip

ROOTS: tuple[Guard, ...] = (
    guard("sqrt-clamped-low", "sqrt(clamp(X, 0, D))", "sqrt(clamp(X, finfo_tiny(X), D))", "let the clamp keep the root off 0",
          _BELOW_TINY, _SQRT, exact=True, rank=1),
    guard("sqrt-clamped", "sqrt(clamp_min(X, 0))", "sqrt(clamp_min(X, finfo_tiny(X)))", "let the clamp keep the root off 0", _BELOW_TINY,
          _SQRT, exact=True, rank=1),
    guard("sqrt-clamped-eps", "sqrt(clamp_min(X, C))", "sqrt(clamp_min(X, finfo_eps(X)))", "let the clamp keep the root off 0",
          _BELOW_EPS, _SQRT, rank=3),
    guard("sqrt-clamped-low-eps", "sqrt(clamp(X, 0, D))", "sqrt(clamp(X, finfo_eps(X), D))", "let the clamp keep the root off 0",
          _BELOW_EPS, _SQRT, rank=3),
    guard("sqrt-plus-tiny", "sqrt(X)", "sqrt(X + finfo_tiny(X))", "add the smallest normal number under the root", _PLUS_TINY, _SQRT,
          nonnegative="X", exact=True, rank=2),
    guard("sqrt-plus-eps", "sqrt(X)", "sqrt(X + finfo_eps(X))", "add eps under the root", _PLUS_EPS, _SQRT, nonnegative="X", rank=3),
    guard("sqrt-floor-tiny", "sqrt(X)", "sqrt(clamp_min(X, finfo_tiny(X)))", "keep the root's argument above 0", _BELOW_TINY, _SQRT,
          exact=True, rank=3),
    guard("sqrt-floor-eps", "sqrt(X)", "sqrt(clamp_min(X, finfo_eps(X)))", "keep the root's argument above eps", _BELOW_EPS, _SQRT, rank=4),
    guard("sqrt-where", "sqrt(X)", "where(X > 0, sqrt(where(X > 0, X, 1)), 0)", "take the root only where it has a slope", _AT_ZERO,
          _SQRT, exact=True, rank=4),
    guard("rsqrt-plus-eps", "rsqrt(X)", "rsqrt(X + finfo_eps(X))", "add eps under the root", _PLUS_DIVISOR, _SQRT, nonnegative="X", rank=3),
    guard("rsqrt-floor-tiny", "rsqrt(X)", "rsqrt(clamp_min(X, finfo_tiny(X)))", "keep the root's argument above 0", _BELOW_TINY, _SQRT,
          exact=True, rank=2),
    guard("rsqrt-floor-root", "rsqrt(X)", "rsqrt(clamp_min(X, finfo_tiny(X) ** 0.5))", "keep the root's argument above 0", _BELOW_ROOT,
          _SQRT, rank=3),
    guard("rsqrt-floor-eps", "rsqrt(X)", "rsqrt(clamp_min(X, finfo_eps(X)))", "keep the root's argument above eps", _BELOW_EPS, _SQRT,
          rank=3),
    guard("norm-sqrt", "norm(X, axis=A, keepdims=K)", "sqrt(sum(square(X), axis=A, keepdims=K) + finfo_tiny(X))",
          "write the norm as a root that is never 0", _PLUS_TINY, _NORM, exact=True, rank=2),
    guard("norm-sqrt-eps", "norm(X, axis=A, keepdims=K)", "sqrt(sum(square(X), axis=A, keepdims=K) + finfo_eps(X))",
          "write the norm as a root that is never 0", _PLUS_EPS, _NORM, rank=3),
    guard("norm-two-sqrt", "norm(X, axis=A, keepdims=K, p=2)", "sqrt(sum(square(X), axis=A, keepdims=K) + finfo_tiny(X))",
          "write the norm as a root that is never 0", _PLUS_TINY, _NORM, exact=True, rank=2),
    guard("norm-two-sqrt-eps", "norm(X, axis=A, keepdims=K, p=2)", "sqrt(sum(square(X), axis=A, keepdims=K) + finfo_eps(X))",
          "write the norm as a root that is never 0", _PLUS_EPS, _NORM, rank=3),
    guard("std-var", "std(X, axis=A, keepdims=K, correction=B)", "sqrt(var(X, axis=A, keepdims=K, correction=B) + finfo_tiny(X))",
          "take the root of the variance, kept off 0", _PLUS_TINY, exact=True, rank=2),
    guard("std-var-eps", "std(X, axis=A, keepdims=K, correction=B)", "sqrt(var(X, axis=A, keepdims=K, correction=B) + finfo_eps(X))",
          "take the root of the variance, kept off 0", _PLUS_EPS, rank=3),
    guard("hypot-sqrt", "hypot(X, Y)", "sqrt(square(X) + square(Y) + finfo_tiny(X))", "write the root out and keep it off 0", _PLUS_TINY,
          exact=True, rank=2),
    guard("normalize-floor", "normalize(X, axis=A, p=P, eps=C)",
          "X / clamp_min(norm(X, axis=A, keepdims=True, p=P), finfo_tiny(X))", "normalise with a floor that the format holds", _BELOW_TINY,
          exact=True, rank=1),
    guard("normalize-floor-reciprocal", "normalize(X, axis=A, p=P, eps=C)",
          "X / clamp_min(norm(X, axis=A, keepdims=True, p=P), 1.25 / finfo_max(X))", "normalise with a floor whose reciprocal is finite",
          _BELOW_TINY, exact=True, rank=2),
    guard("normalize-eps", "normalize(X, axis=A, p=P, eps=C)", "X / (norm(X, axis=A, keepdims=True, p=P) + finfo_eps(X))",
          "normalise with the format's own eps", _PLUS_DIVISOR, rank=2),
)  # fmt: skip

DIVISIONS: tuple[Guard, ...] = (
    guard("div-count", "X / sum(Y, axis=A, keepdims=K)", "X / clamp_min(sum(Y, axis=A, keepdims=K), 1)",
          "divide by at least 1: an empty mask gives 0", "Nothing changes where the divisor is 1 or more, as a count is unless it is 0.",
          _DIV, rank=1),
    guard("div-where", "X / Y", "where(Y != 0, X / where(Y != 0, Y, 1), 0)", "divide only where the divisor is not 0", _ZERO_DIVISOR,
          _DIV, exact=True, rank=3),
    guard("div-floor-tiny", "X / Y", "X / clamp_min(Y, finfo_tiny(Y))", "keep the divisor above 0", _BELOW_TINY, _DIV, nonnegative="Y",
          exact=True, rank=2),
    guard("div-where-tiny", "X / Y", "where(abs(Y) > finfo_tiny(Y), X / where(abs(Y) > finfo_tiny(Y), Y, 1), 0)",
          "divide only where the divisor is not 0", _AT_TINY, _DIV, exact=True, rank=4),
    guard("div-floor-root", "X / Y", "X / clamp_min(Y, finfo_tiny(Y) ** 0.5)", "keep the divisor's square above 0", _BELOW_ROOT, _DIV,
          nonnegative="Y", rank=3),
    guard("div-floor-eps-square", "X / Y", "X / clamp_min(Y, finfo_eps(Y) ** 2)", "keep the divisor above eps squared", _BELOW_SQUARE,
          _DIV, nonnegative="Y", exact=True, rank=4),
    guard("div-where-eps-square", "X / Y", "where(abs(Y) > finfo_eps(Y) ** 2, X / where(abs(Y) > finfo_eps(Y) ** 2, Y, 1), 0)",
          "divide only where the divisor is not 0", _NEAR_ZERO_SQUARE, _DIV, exact=True, rank=5),
    guard("div-normalize", "X / norm(X, axis=A, keepdims=True, p=2)", "normalize(X, axis=A, p=2)", "use the built-in normalisation",
          "Below 1e-12 the norm is taken for 1e-12.", _DIV, exact=True, rank=1),
    guard("div-cosine-built-in", "sum(X * Y, axis=A) / (norm(X, axis=A, p=2) * norm(Y, axis=A, p=2))", "cosine_similarity(X, Y, axis=A)",
          "use the built-in cosine similarity", "Below 1e-8 a norm is taken for 1e-8.", _DIV, rank=1),
    guard("div-cosine", "sum(X * Y, axis=A) / (norm(X, axis=A, p=P) * norm(Y, axis=A, p=P))",
          "sum(X / clamp_min(norm(X, axis=A, p=P, keepdims=True), finfo_tiny(X) ** 0.5)"
          " * (Y / clamp_min(norm(Y, axis=A, p=P, keepdims=True), finfo_tiny(Y) ** 0.5)), axis=A)",
          "normalise first, with a floor under each norm", _BELOW_ROOT, _DIV, exact=True, rank=1),
    guard("div-floor-root-eps", "X / Y", "X / clamp_min(Y, finfo_eps(Y) ** 0.5)", "keep the divisor above the root of eps",
          "Below the root of eps the value is that of the floor, and no gradient passes there.", _DIV, nonnegative="Y", rank=5),
    guard("div-count-square", "X / sum(Y, axis=A, keepdims=K) ** 2", "X / clamp_min(sum(Y, axis=A, keepdims=K), 1) ** 2",
          "divide by at least 1: an empty mask gives 0", "Nothing changes where the sum is 1 or more, as a count is unless it is 0.",
          _DIV, rank=1),
    guard("div-where-eps", "X / Y", "where(abs(Y) > finfo_eps(Y), X / where(abs(Y) > finfo_eps(Y), Y, 1), 0)",
          "divide only where the divisor is not 0", _NEAR_ZERO_DIVISOR, _DIV, rank=4),
    guard("div-plus-eps", "X / Y", "X / (Y + finfo_eps(Y))", "add eps to the divisor", _PLUS_DIVISOR, _DIV, nonnegative="Y", rank=4),
    guard("div-plus-tiny", "X / Y", "X / (Y + finfo_tiny(Y))", "add the smallest normal number to the divisor", _PLUS_DIVISOR, _DIV,
          nonnegative="Y", exact=True, rank=3),
    guard("div-floor-eps", "X / Y", "X / clamp_min(Y, finfo_eps(Y))", "keep the divisor above eps", _BELOW_EPS, _DIV, nonnegative="Y",
          rank=4),
    guard("div-smooth", "X / Y", "(X + finfo_eps(Y)) / (Y + finfo_eps(Y))", "add eps above and below: two empty sets agree",
          "The quotient moves by at most eps / (divisor + eps); 0 / 0 becomes 1.", "zero-over-zero", nonnegative="Y", rank=5),
    guard("div-sqrt", "X / sqrt(Y)", "X / sqrt(Y + finfo_eps(Y))", "add eps under the root of the divisor", _PLUS_DIVISOR, _DIV,
          nonnegative="Y", rank=2),
    guard("div-norm", "X / norm(Y, axis=A, keepdims=K, p=P)", "X / clamp_min(norm(Y, axis=A, keepdims=K, p=P), finfo_eps(Y))",
          "keep the divisor above eps", _BELOW_EPS, _DIV, rank=2),
    guard("div-norm-sqrt", "X / norm(Y, axis=A, keepdims=K)", "X / sqrt(sum(square(Y), axis=A, keepdims=K) + finfo_eps(Y))",
          "write the norm as a root that is never 0", _PLUS_DIVISOR, _DIV, rank=3),
    guard("div-std", "X / std(Y, axis=A, keepdims=K, correction=B)", "X / sqrt(var(Y, axis=A, keepdims=K, correction=B) + finfo_eps(Y))",
          "take the root of the variance, kept off 0", _PLUS_DIVISOR, _DIV, rank=2),
    guard("reciprocal-where", "reciprocal(X)", "where(X != 0, reciprocal(where(X != 0, X, 1)), 0)",
          "divide only where the divisor is not 0", _ZERO_DIVISOR, _DIV, exact=True, rank=3),
    guard("reciprocal-plus-eps", "reciprocal(X)", "reciprocal(X + finfo_eps(X))", "add eps to the divisor", _PLUS_DIVISOR, _DIV,
          nonnegative="X", rank=4),
    guard("masked-mean", "mean(move(X, M, text='{0}[{1}]'))", "sum(where(M, X, zeros_like(X))) / clamp_min(sum(dtype_of(M, X)), 1)",
          "take the mean by sums: an empty selection gives 0", "Nothing changes but for an empty selection, whose mean becomes 0.",
          "empty-reduction zero-over-zero", exact=True, rank=1),
)  # fmt: skip

POWERS: tuple[Guard, ...] = (
    guard("pow-floor-tiny", "X ** Y", "clamp_min(X, finfo_tiny(X)) ** Y", "keep the base above 0", _BELOW_TINY, _POW, exact=True, rank=2),
    guard("pow-floor-eps", "X ** Y", "clamp_min(X, finfo_eps(X)) ** Y", "keep the base above eps", _BELOW_EPS, _POW, rank=3),
    guard("pow-plus-eps", "X ** Y", "(X + finfo_eps(X)) ** Y", "add eps to the base", "The base moves by eps; the gradient stays alive.",
          _POW, nonnegative="X", rank=3),
    guard("pow-where", "X ** Y", "where(X > 0, where(X > 0, X, 1) ** Y, 0)", "take the power only where it has a slope", _AT_ZERO, _POW,
          rank=5),
)  # fmt: skip

ANGLES: tuple[Guard, ...] = tuple(
    row
    for f in ("acos", "asin", "atanh")
    for row in (
        guard(f"{f}-limits", f"{f}(clamp(X, C, D))", f"{f}(clamp(X, finfo_eps(X) - 1, 1 - finfo_eps(X)))",
              f"keep the argument of {f} inside (-1, 1)", _MARGIN, _EDGE, rank=1),
        guard(f"{f}-limit", f"{f}(minimum(X, 1))", f"{f}(clamp(X, finfo_eps(X) - 1, 1 - finfo_eps(X)))",
              f"keep the argument of {f} inside (-1, 1)", _MARGIN, _EDGE, rank=1),
        guard(f"{f}-clamp", f"{f}(X)", f"{f}(clamp(X, finfo_eps(X) - 1, 1 - finfo_eps(X)))", f"keep the argument of {f} inside (-1, 1)",
              _MARGIN, _EDGE, rank=2),
        guard(f"{f}-scale", f"{f}(X)", f"{f}(X * (1 - 8 * finfo_eps(X)))", f"shrink the argument of {f} by 8 eps",
              "The argument shrinks by 8 eps; the gradient stays alive everywhere.", _EDGE, rank=4),
    )
) + (
    guard("acosh-where", "acosh(X)", "where(X > 1, acosh(where(X > 1, X, 2)), 0)", "take acosh only where it has a slope",
          "Nothing changes but the gradient at 1, which becomes 0 instead of infinite.", _EDGE, exact=True, rank=1),
    guard("acos-where", "acos(X)", "where(abs(X) < 1, acos(where(abs(X) < 1, X, 0)), acos(detach(clamp(X, -1, 1))))",
          "let no gradient through at the ends of acos", _AT_ENDS, _EDGE, exact=True, rank=1),
    guard("asin-where", "asin(X)", "where(abs(X) < 1, asin(where(abs(X) < 1, X, 0)), asin(detach(clamp(X, -1, 1))))",
          "let no gradient through at the ends of asin", _AT_ENDS, _EDGE, exact=True, rank=1),
    guard("acosh-clamp", "acosh(X)", "acosh(clamp_min(X, 1 + finfo_eps(X)))", "keep the argument of acosh above 1",
          "Closer than eps to 1 the value is that of the margin, and no gradient passes there.", _EDGE, exact=True, rank=1),
    guard("atan2-origin", "atan2(Y, X)", "atan2(Y, where(logical_and(X == 0, Y == 0), 1, X))", "give the angle at the origin a direction",
          "Nothing changes but at the origin, where the angle becomes 0 and the gradient finite.", "atan2-at-origin", exact=True, rank=1),
    guard("atan2-plus-eps", "atan2(Y, X)", "atan2(Y, where(abs(X) + abs(Y) < finfo_eps(X), finfo_eps(X), X))",
          "give the angle near the origin a direction", "Closer than eps to the origin the angle changes.", "atan2-at-origin", rank=2),
)  # fmt: skip

_AS_REPLACED = "Nothing changes but where the NaN was replaced, and there the gradient only, which becomes finite."
_REPLACED = "zero-over-zero div-by-zero nan-hidden-after-the-fact masked-branch-gradient"

REPLACED: tuple[Guard, ...] = (
    guard("replaced-quotient", "replace_nan(X / Y, Z)", "where(Y != 0, X / where(Y != 0, Y, 1), Z)",
          "choose before dividing instead of replacing NaN after it", _AS_REPLACED, _REPLACED, exact=True, rank=-3),
    guard("replaced-quotient-root", "replace_nan(X / Y, Z)",
          "where(abs(Y) > finfo_tiny(Y) ** 0.5, X / where(abs(Y) > finfo_tiny(Y) ** 0.5, Y, 1), Z)",
          "choose before dividing instead of replacing NaN after it", _AS_REPLACED, _REPLACED, exact=True, rank=-2),
    guard("replaced-quotient-eps", "replace_nan(X / Y, Z)",
          "where(abs(Y) > finfo_eps(Y), X / where(abs(Y) > finfo_eps(Y), Y, 1), Z)",
          "choose before dividing instead of replacing NaN after it", _NEAR_ZERO_DIVISOR, _REPLACED, rank=3),
    guard("replaced-product", "replace_nan(X * log(Y), Z)", "where(Y > 0, X * log(where(Y > 0, Y, 1)), Z)",
          "choose before the logarithm instead of replacing NaN after it", _AS_REPLACED, _LOG + " nan-hidden-after-the-fact", exact=True,
          rank=-3),
)  # fmt: skip

MASKS: tuple[Guard, ...] = (
    guard("mask-times-inf", "X * where(M, C, D)", "where(M, C, X * D)", "choose instead of multiplying with an infinity",
          "Nothing changes but where 0 met the infinity.", _INF, exact=True, rank=1),
    guard("mask-times-inf-else", "X * where(M, D, C)", "where(M, X * D, C)", "choose instead of multiplying with an infinity",
          "Nothing changes but where 0 met the infinity.", _INF, exact=True, rank=2),
)  # fmt: skip

GUARDS: tuple[Guard, ...] = (*REPLACED, *LOGARITHMS, *ROOTS, *DIVISIONS, *POWERS, *ANGLES, *MASKS)
