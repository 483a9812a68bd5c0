"""What is right for each loss of the suite, said once for all frameworks, and inputs on which real frameworks show that it is.

The table was written by thinking about the formulas; where a framework truly differs, `golden/frameworks.txt` says so.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Answer:
    """A verdict and, if it is "unsafe", the cause, the phase and the canonical op of the first finding."""

    verdict: str
    cause: str = ""
    phase: str = ""
    op: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.verdict, self.cause, self.phase, self.op)))


@dataclass(frozen=True)
class Case:
    """One loss: its arguments' domains, the answer, and inputs by argument: a number stands for a whole array of it.

    On every combination of the inputs an unsafe loss fails and a safe one is finite, gradients included.
    """

    name: str
    domains: Mapping[str, Any]
    answer: Answer
    inputs: Mapping[str, tuple[Any, ...]]
    warns: str = ""  # the cause of a warning that it must have

    def combinations(self) -> Iterator[dict[str, Any]]:
        """The inputs, one value per argument."""
        for values in product(*self.inputs.values()):
            yield dict(zip(self.inputs, values, strict=True))


def forward(cause: str, op: str) -> Answer:
    return Answer("unsafe", cause, "forward", op)


def backward(cause: str, op: str) -> Answer:
    return Answer("unsafe", cause, "backward", op)


def _case(name: str, answer: Answer, warns: str = "", **arguments: tuple[Any, ...]) -> Case:
    """Each argument is its domain, then the values that it is tried on."""
    domains = {argument: domain for argument, (domain, *_) in arguments.items()}
    return Case(name, domains, answer, {argument: tuple(values) for argument, (_, *values) in arguments.items()}, warns)


SAFE = Answer("safe")

# values
HALF = (0.0, 1e-30, 0.3)  # what lies at and next to the lower end of [0, 1]
ENDS = (*HALF, 1.0)
SCORES = (-100.0, 0.0, 100.0)
WIDE = (-1e4, 0.0, 1.0, 1e4)
ROWS = [[0.0, 0.0, 1.0], [0.2, 0.3, 0.5]]
FIRST = [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
TORN = [[100.0, -100.0, 0.0], [-100.0, 100.0, 100.0]]
DEEP = [[-200.0, -200.0, -200.0], [0.0, -1.0, -2.0]]
EMPTY_ROW = [[False, False, False], [True, False, True]]
DIFFERENT = [[0.5, -0.25], [1.0, 0.0]]
UNLABELLED = np.array([1.0, np.nan], np.float32)
LONG = [[0.0, 0.02, 0.9998]] * 2  # of norm 1, but the sum of squares is above 1 in float32, whatever the order

CASES = (
    # classification
    _case("bce_by_hand", forward("log-of-zero", "log"), p=("prob(4)", 0.0), t=("binary(4)", 0.0, 1.0)),
    _case("bce_clamped", SAFE, p=("prob(4)", *ENDS), t=("binary(4)", 0.0, 1.0)),
    _case("bce_clamped_1e8", forward("epsilon-rounds-away", "log"), p=("prob(4)", 1.0), t=("binary(4)", 0.0, 1.0)),
    _case("bce_epsilon_1e8", SAFE, p=("prob(4)", *ENDS), t=("binary(4)", 0.0, 1.0)),
    _case(
        "bce_half_epsilon",
        forward("epsilon-rounds-away", "log"),
        p=("prob(4, dtype=float16)", 0.0),
        t=("binary(4, dtype=float16)", 0.0, 1.0),
    ),
    _case("bce_of_sigmoid", forward("log-of-zero", "log"), x=("logit(4, low=-80, high=80)", 80.0, 20.0), t=("binary(4)", 0.0, 1.0)),
    _case("bce_with_logits", SAFE, x=("logit(4)", *SCORES), t=("binary(4)", 0.0, 1.0)),
    _case("cross_entropy_of_softmax", forward("log-of-zero", "log"), z=("logit(2, 3)", TORN), t=("onehot(2, 3)", FIRST)),
    _case("cross_entropy", SAFE, z=("logit(2, 3)", TORN, *SCORES), t=("onehot(2, 3)", FIRST)),
    _case("label_smoothing", SAFE, z=("logit(2, 3)", TORN, *SCORES), t=("onehot(2, 3)", FIRST)),
    _case("brier", SAFE, z=("logit(2, 3)", TORN, *SCORES), t=("onehot(2, 3)", FIRST)),
    _case("softmax_by_hand", forward("underflow-then-divide", "div"), z=("logit(2, 3, low=-200, high=0)", DEEP), t=("onehot(2, 3)", FIRST)),
    _case(
        "masked_softmax",
        forward("all-masked-softmax", "softmax"),
        z=("logit(2, 3)", 0.0, TORN),
        allowed=("mask(2, 3)", EMPTY_ROW),
        t=("onehot(2, 3)", FIRST),
    ),
    _case(
        "masked_softmax_finite",
        SAFE,
        z=("logit(2, 3)", 0.0, TORN),
        allowed=("mask(2, 3)", EMPTY_ROW, True),
        t=("onehot(2, 3)", FIRST),
    ),
    _case("focal_gamma_0_7", backward("pow-grad-at-zero", "pow"), x=("logit(4)", 100.0), t=("binary(4)", 1.0)),
    _case("focal_gamma_2", SAFE, x=("logit(4)", *SCORES), t=("binary(4)", 0.0, 1.0)),
    # overlap
    _case("dice", forward("zero-over-zero", "div"), p=("prob(2, 4)", 0.0), t=("binary(2, 4)", 0.0)),
    _case("dice_smooth", SAFE, p=("prob(2, 4)", *ENDS), t=("binary(2, 4)", 0.0, 1.0)),
    _case("focal_tversky", backward("pow-grad-at-zero", "pow"), p=("prob(2, 4)", 0.0, 1.0), t=("binary(2, 4)", 0.0)),
    _case("tversky", SAFE, p=("prob(2, 4)", *ENDS), t=("binary(2, 4)", 0.0, 1.0)),
    # divergences and entropies
    _case("entropy", forward("log-of-zero", "log"), p=("simplex(2, 3)", ROWS)),
    _case("entropy_where", backward("masked-branch-gradient", "mul"), p=("simplex(2, 3)", ROWS)),
    _case("entropy_double_where", SAFE, p=("simplex(2, 3)", ROWS, FIRST)),
    _case("kl_divergence", forward("div-by-zero", "div"), p=("simplex(2, 3, low=0.1)", [[0.2, 0.3, 0.5]] * 2), q=("simplex(2, 3)", ROWS)),
    _case("kl_of_logits", SAFE, x=("logit(2, 3)", TORN, *SCORES), z=("logit(2, 3)", TORN, *SCORES)),
    _case(
        "masked_policy_gradient",
        forward("zero-times-inf", "mul"),
        logp=("real(2, 3, low=-50, high=0)", -1.0),
        allowed=("mask(2, 3)", EMPTY_ROW),
        weight=("real(2, 3, low=-1, high=1)", 0.0, 1.0),
    ),
    # likelihoods
    _case(
        "reduced_chi_square",
        forward("square-overflow", "square"),
        mu=("real(4)", 1.0),
        y=("real(4)", -1e4),
        sigma=("positive(4, low=1e-30)", 1e-30),
    ),
    _case(
        "gaussian_nll",
        forward("exp-overflow", "exp"),
        mu=("real(4, low=-10, high=10)", 1.0),
        y=("real(4, low=-10, high=10)", 1.0, 2.0),
        logvar=("logit(4)", -100.0),
    ),
    _case(
        "gaussian_nll_bounded",
        SAFE,
        mu=("real(4, low=-10, high=10)", 1.0, 10.0),
        y=("real(4, low=-10, high=10)", 1.0, -10.0),
        logvar=("logit(4)", *SCORES),
    ),
    _case("vae_kl", forward("exp-overflow", "exp"), mu=("logit(4)", 0.0), logvar=("logit(4)", 100.0)),
    _case("vae_kl_bounded", SAFE, mu=("logit(4)", *SCORES), logvar=("logit(4)", *SCORES)),
    _case("student_t_nll", SAFE, mu=("real(4)", *WIDE), y=("real(4)", *WIDE)),
    _case("cox", forward("exp-overflow", "exp"), risk=("logit(5)", 100.0, 89.0)),
    _case("cox_pairwise", SAFE, risk=("logit(5)", *SCORES), times=("real(5, low=0, high=10, grad=False)", 0.0, [1.0, 2.0, 2.0, 3.0, 10.0])),
    _case("likelihood_product", forward("product-overflow", "mul"), odds=("positive(3, 2, low=1, high=1e30)", 1e30, 1e25)),
    _case(
        "ppo_ratio",
        forward("exp-overflow", "exp"),
        new=("real(4, low=-100, high=0)", 0.0),
        old=("real(4, low=-100, high=0)", -100.0),
        advantage=("real(4, low=-10, high=10, grad=False)", -1.0, 0.0),
    ),
    _case(
        "ppo_ratio_bounded",
        SAFE,
        new=("real(4, low=-100, high=0)", 0.0, -100.0),
        old=("real(4, low=-100, high=0)", 0.0, -100.0),
        advantage=("real(4, low=-10, high=10, grad=False)", -10.0, 0.0, 10.0),
    ),
    # distances and angles
    _case(
        "contrastive",
        backward("sqrt-grad-at-zero", "sqrt"),
        a=("real(2, 2, low=-1, high=1)", DIFFERENT),
        b=("real(2, 2, low=-1, high=1)", DIFFERENT),
        same=("binary(2)", 0.0),
    ),
    _case(
        "contrastive_epsilon",
        SAFE,
        a=("real(2, 2, low=-1, high=1)", DIFFERENT, 1.0),
        b=("real(2, 2, low=-1, high=1)", DIFFERENT, -1.0),
        same=("binary(2)", 0.0, 1.0),
    ),
    _case(
        "triplet_norm",
        backward("norm-grad-at-zero", "norm"),
        a=("real(2, 2, low=-1, high=1)", DIFFERENT),
        b=("real(2, 2, low=-1, high=1)", DIFFERENT),
        c=("real(2, 2, low=-1, high=1)", DIFFERENT),
    ),
    _case(
        "triplet_squared",
        SAFE,
        a=("real(2, 2, low=-1, high=1)", DIFFERENT, 1.0),
        b=("real(2, 2, low=-1, high=1)", DIFFERENT, -1.0),
        c=("real(2, 2, low=-1, high=1)", DIFFERENT, 0.0),
    ),
    _case("bpr", SAFE, a=("logit(4)", *SCORES), b=("logit(4)", *SCORES)),
    _case("cosine", forward("zero-over-zero", "div"), a=("real(2, 3, low=-1, high=1)", 0.0), b=("real(2, 3, low=-1, high=1)", 0.5)),
    _case(
        "cosine_bounded",
        SAFE,
        a=("real(2, 3, low=-1, high=1)", 0.0, 1e-30, 1.0),
        b=("real(2, 3, low=-1, high=1)", 0.0, 1e-30, -1.0),
    ),
    _case("info_nce", forward("exp-overflow", "exp"), similarity=("real(3, 3, low=-1, high=1)", 1.0, 0.9)),
    _case("info_nce_log_softmax", SAFE, similarity=("real(3, 3, low=-1, high=1)", -1.0, 0.0, 1.0)),
    _case("arcface", backward("inverse-trig-grad-at-edge", "acos"), cosine=("real(4, low=-1, high=1)", -1.0, 1.0)),
    _case("arcface_clamped", SAFE, cosine=("real(4, low=-1, high=1)", -1.0, 0.0, 1.0)),
    _case("arcface_clamped_1e8", backward("epsilon-rounds-away", "acos"), cosine=("real(4, low=-1, high=1)", -1.0, 1.0)),
    _case(
        "angle_between",
        forward("rounding-out-of-domain", "acos"),
        a=("unit(2, 3, grad=False)", LONG),
        b=("unit(2, 3, grad=False)", LONG),
        weight=("nonnegative(2, high=1)", 1.0),
    ),
    _case("angle_of_sine", forward("inverse-trig-domain", "asin"), p=("real(4, low=-2, high=2)", 1.5, -2.0)),
    _case(
        "heading",
        backward("atan2-at-origin", "atan2"),
        y=("real(4, low=-1, high=1, grad=True)", 0.0, 1e-20),
        x=("real(4, low=-1, high=1)", 0.0),
    ),
    _case(
        "heading_ahead",
        SAFE,
        y=("real(4, low=-1, high=1, grad=True)", -1.0, 0.0, 1.0),
        x=("real(4, low=0.1, high=1)", 0.1, 1.0),
    ),
    _case(
        "critics_apart",
        forward("inf-minus-inf", "sub"),
        one=("real(2, 3, low=0, high=1)", 0.5),
        other=("real(2, 3, low=0, high=1)", 0.5, 0.0),
        allowed=("mask(2, 3)", EMPTY_ROW),
    ),
    _case(
        "detour",
        forward("inf-over-inf", "div"),
        route=("real(3, low=1, high=10)", 1.0),
        straight=("real(3, low=1, high=10)", 1.0, 2.0),
        reachable=("mask(3)", False, [True, False, True]),
    ),
    # regression
    _case("rmse", backward("sqrt-grad-at-zero", "sqrt"), p=("real(4)", 0.5), y=("real(4)", 0.5)),
    _case("rmse_epsilon", SAFE, p=("real(4)", *WIDE), y=("real(4)", *WIDE)),
    _case("huber", SAFE, p=("real(4)", *WIDE), y=("real(4)", *WIDE)),
    _case("log_cosh", forward("exp-overflow", "cosh"), p=("real(4)", 1000.0, -1000.0), y=("real(4)", 1.0)),
    _case("log_cosh_softplus", SAFE, p=("real(4)", *WIDE), y=("real(4)", *WIDE)),
    _case("quantile", SAFE, p=("real(4)", *WIDE), y=("real(4)", *WIDE)),
    _case("wing", SAFE, p=("real(4)", *WIDE), y=("real(4)", *WIDE)),
    _case("msle", forward("log-of-negative", "log1p"), p=("real(4, low=-5, high=5)", -2.0), y=("nonnegative(4, high=5)", 1.0)),
    _case("mape", forward("div-by-zero", "div"), p=("real(4, low=1, high=10)", 1.0), y=("nonnegative(4, high=10)", 0.0)),
    _case("smape", forward("zero-over-zero", "div"), p=("real(4)", 0.0), y=("real(4)", 0.0)),
    _case(
        "ratio_where",
        backward("masked-branch-gradient", "div"),
        n=("real(4, low=-1, high=1)", 0.0, 1.0),
        d=("real(4, low=0, high=1)", 0.0),
    ),
    _case("ratio_double_where", SAFE, n=("real(4, low=-1, high=1)", 0.0, 1.0), d=("real(4, low=0, high=1)", *ENDS, 0.01)),
    _case("root_where", backward("masked-branch-gradient", "sqrt"), x=("real(4, low=0, high=1)", 0.0)),
    _case("gamma_correction", forward("pow-domain", "pow"), p=("real(4, low=-1, high=1)", -0.5), y=("prob(4)", 0.5)),
    _case("gamma_correction_clamped", SAFE, p=("real(4, low=-1, high=1)", -0.5, 0.0, 1.0), y=("prob(4)", 0.0, 1.0)),
    _case("circle", forward("sqrt-of-negative", "sqrt"), x=("real(4, low=-2, high=2)", 1.5, -2.0)),
    _case("probit", forward("other-domain-error", "erfinv"), p=("prob(4)", 0.0, 1.0), y=("real(4)", 0.5)),
    _case("masked_mean", forward("zero-over-zero", "div"), e=("real(4)", 0.0, 1.0), mask=("mask(4)", False)),
    _case("masked_mean_guarded", SAFE, e=("real(4)", *WIDE), mask=("mask(4)", False, True)),
    _case("smoothness", forward("empty-reduction", "mean"), p=("real(1)", 0.0, 1.0)),
    _case("missing_label", forward("nonfinite-input", "input"), p=("real(2)", 0.0, 1.0), y=(UNLABELLED, UNLABELLED)),
    # statistics and formats
    _case("standardised", forward("zero-variance", "div"), x=("real(4, low=-1, high=1)", 0.0, 0.5), y=("real(4, low=-1, high=1)", 1.0)),
    _case("layer_norm", SAFE, x=("real(4, low=-1, high=1)", 0.0, 0.3, [1.0, -1.0, 1.0, -1.0]), y=("real(4, low=-1, high=1)", -1.0, 1.0)),
    _case("half_precision", forward("cast-overflow", "cast"), p=("real(4, low=-1e5, high=1e5)", 1e5, -7e4)),
    _case("half_precision_sum", forward("sum-overflow", "sum"), e=("nonnegative(4, high=3e4, dtype=float16)", 3e4, 2e4)),
    _case("softplus_by_hand", forward("exp-overflow", "exp"), x=("logit(4)", 100.0, 89.0)),
    _case("softplus", SAFE, x=("logit(4)", *SCORES)),
    # gradients of one's own
    _case("custom_gradient_overflow", backward("exp-overflow", "exp"), x=("logit(4)", 100.0, 89.0)),
    _case("custom_gradient_wrong", SAFE, warns="custom-gradient-wrong", x=("logit(4)", *SCORES)),
)
