"""Losses that libraries compute in one call, written out: what stands inside can then be changed where it fails.

A line is `function(parameters) = term`, the parameters as in the tables of spellings, the term in the text form of `whynan.ir.term` on
`a b c …`. A parameter `reduction` wraps the term in a mean or a sum. `CLASSES` names the function that a loss object calls.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from whynan.ir.term import Term, parse, term
from whynan.patches.idioms import Spelling, spellings

TABLE = """
torch.nn.functional.mse_loss(input=a, target=b, reduction=reduction?'mean') = (a - b) ** 2
torch.nn.functional.l1_loss(input=a, target=b, reduction=reduction?'mean') = abs(a - b)
torch.nn.functional.soft_margin_loss(input=a, target=b, reduction=reduction?'mean') = softplus(-(b * a))
torch.nn.functional.poisson_nll_loss(input=a, target=b, log_input=True, reduction=reduction?'mean') = exp(a) - b * a
torch.nn.functional.gaussian_nll_loss(input=a, target=b, var=c, full=False, eps=1e-6, reduction=reduction?'mean') = 0.5 * (log(clamp_min(c, 1e-6)) + (a - b) ** 2 / clamp_min(c, 1e-6))
torch.nn.functional.kl_div(input=a, target=b, reduction=reduction?'mean') = xlogy(b, b) - b * a
torch.nn.functional.pairwise_distance(x1=a, x2=b, p=2.0, eps=1e-6) = norm(a - b + 1e-6, axis=-1)
torch.nn.functional.binary_cross_entropy(input=a, target=b, reduction=reduction?'mean') = -(b * log(a) + (1 - b) * log(1 - a))
torch.nn.functional.logsigmoid(input=a) = -softplus(-a)
torch.logit(input=a) = log(a) - log(1 - a)
torch._weight_norm(v=a, g=b, dim=0) = a * b / opaque(a, text='torch.norm_except_dim({0}, 2, 0)')
torch.nn.functional.cosine_similarity(x1=a, x2=b, dim=axis?1) = sum(a * b, axis='dim') / (norm(a, axis='dim') * norm(b, axis='dim'))
keras.losses.categorical_crossentropy(y_true=b, y_pred=a, from_logits=False, reduction=reduction?'none') = -sum(b * log(clamp(a / sum(a, axis=-1, keepdims=True), 1e-7, 0.9999999)), axis=-1)
keras.losses.binary_crossentropy(y_true=b, y_pred=a, from_logits=False, reduction=reduction?'none') = -mean(b * log(clamp(a, 1e-7, 0.9999999)) + (1 - b) * log(clamp(1 - a, 1e-7, 0.9999999)), axis=-1)
keras.losses.cosine_similarity(y_true=b, y_pred=a, reduction=reduction?'none') = -sum(b * minimum(rsqrt(sum(square(b), axis=-1, keepdims=True)), 1e7) * (a * minimum(rsqrt(sum(square(a), axis=-1, keepdims=True)), 1e7)), axis=-1)
keras.losses.mean_squared_logarithmic_error(y_true=b, y_pred=a, reduction=reduction?'none') = mean((log(maximum(b, 1e-7) + 1) - log(maximum(a, 1e-7) + 1)) ** 2, axis=-1)
keras.losses.poisson(y_true=b, y_pred=a, reduction=reduction?'none') = mean(a - b * log(a + 1e-7), axis=-1)
optax.losses.cosine_similarity(predictions=a, targets=b, epsilon=0.0, axis=axis?-1) = sum(a / sqrt(clamp_min(sum(square(a), axis='dim', keepdims=True), 0)) * (b / sqrt(clamp_min(sum(square(b), axis='dim', keepdims=True), 0))), axis='dim')
optax.losses.cosine_distance(predictions=a, targets=b, epsilon=0.0, axis=axis?-1) = 1 - sum(a / sqrt(clamp_min(sum(square(a), axis='dim', keepdims=True), 0)) * (b / sqrt(clamp_min(sum(square(b), axis='dim', keepdims=True), 0))), axis='dim')
optax.cosine_similarity(predictions=a, targets=b, epsilon=0.0, axis=axis?-1) = sum(a / sqrt(clamp_min(sum(square(a), axis='dim', keepdims=True), 0)) * (b / sqrt(clamp_min(sum(square(b), axis='dim', keepdims=True), 0))), axis='dim')
optax.cosine_distance(predictions=a, targets=b, epsilon=0.0, axis=axis?-1) = 1 - sum(a / sqrt(clamp_min(sum(square(a), axis='dim', keepdims=True), 0)) * (b / sqrt(clamp_min(sum(square(b), axis='dim', keepdims=True), 0))), axis='dim')
"""  # noqa: E501

CLASSES = {
    "torch.nn.MSELoss": "torch.nn.functional.mse_loss",
    "torch.nn.L1Loss": "torch.nn.functional.l1_loss",
    "torch.nn.SoftMarginLoss": "torch.nn.functional.soft_margin_loss",
    "torch.nn.PoissonNLLLoss": "torch.nn.functional.poisson_nll_loss",
    "torch.nn.GaussianNLLLoss": "torch.nn.functional.gaussian_nll_loss",
    "torch.nn.KLDivLoss": "torch.nn.functional.kl_div",
    "torch.nn.BCELoss": "torch.nn.functional.binary_cross_entropy",
    "torch.nn.CosineSimilarity": "torch.nn.functional.cosine_similarity",
    "torch.nn.PairwiseDistance": "torch.nn.functional.pairwise_distance",
    "keras.losses.CategoricalCrossentropy": "keras.losses.categorical_crossentropy",
    "keras.losses.BinaryCrossentropy": "keras.losses.binary_crossentropy",
    "keras.losses.CosineSimilarity": "keras.losses.cosine_similarity",
    "keras.losses.MeanSquaredLogarithmicError": "keras.losses.mean_squared_logarithmic_error",
    "keras.losses.Poisson": "keras.losses.poisson",
}


@dataclass(frozen=True, slots=True)
class Expansion:
    """A library's function and what it computes."""

    spelling: Spelling
    value: Term

    def term(self, args: Mapping[int, Term], attrs: Mapping[str, object], averaged: bool = False) -> Term:
        """The value for these arguments and attributes; a Keras loss object takes the mean of what its function gives."""
        made = _filled(self.value, args, attrs)
        reduction = "mean" if averaged else attrs.get("reduction")
        if reduction == "batchmean":
            return term("div", term("sum", made), term("opaque", args[0], text="{0}.shape[0]"))
        return term(str(reduction), made) if reduction in ("mean", "sum") else made


@cache
def expansions() -> Mapping[str, Expansion]:
    """The table by full name of the function."""
    rows = [line.split(" = ", 1) for line in TABLE.strip().splitlines()]
    made = [Expansion(spellings(f"expansion: {head.strip()}")[0], parse(body)) for head, body in rows]
    return {e.spelling.name: e for e in made}


def _filled(t: Term, args: Mapping[int, Term], attrs: Mapping[str, object]) -> Term:
    if t.op == "leaf":
        return args["abcdefgh".index(str(t.attr("name")))]
    axis = attrs.get("axis")
    kept = {k: (axis if v == "dim" else v) for k, v in t.attrs}
    return term(t.op, *(_filled(s, args, attrs) for s in t.args), **kept)

