"""What whynan says about each cause: a title, why it happens, what to do. Terminal, HTML, SARIF and `explain` all read it here.

The keys are the causes of the public contract, section 4: no more and no fewer. A finding's own message carries the numbers
of the case at hand (the dtype's spacing, the values); the texts here hold for every case.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Words:
    """The texts of one cause: `title` is a phrase, `why` one sentence, `hint` one or two on what to do."""

    title: str
    why: str
    hint: str


_WORDS: dict[str, Words] = {}
WORDS: Mapping[str, Words] = MappingProxyType(_WORDS)


def words(cause: str) -> Words:
    """The texts of a cause. Raises KeyError for a name that is not in the contract."""
    return _WORDS[cause]


def _say(cause: str, title: str, why: str, hint: str) -> None:
    _WORDS[cause] = Words(title, why, hint)


# ---------------------------------------------------------------- non-finite: out of an op's domain

_say(
    "log-of-zero",
    "logarithm of zero",
    "log falls to -inf as its input reaches zero, and its derivative 1/x grows to inf.",
    "Compute the logarithm from logits (log_softmax, logsigmoid, a loss 'with logits'), or keep the input of log away from zero "
    "with a bound that the dtype can represent there; a clamp also stops the gradient where it acts.",
)
_say(
    "log-of-negative",
    "logarithm of a negative number",
    "log has no real value below zero.",
    "Check that the input is what the formula expects (a probability, a variance, a ratio of positives); if only rounding takes it "
    "below zero, bound it from below before the logarithm.",
)
_say(
    "div-by-zero",
    "division by zero",
    "The divisor can be exactly zero on this domain.",
    "Bound the divisor away from zero, or replace it by 1 where it is zero and select the result afterwards; "
    "do not select only after dividing: the gradient still divides by zero.",
)
_say(
    "zero-over-zero",
    "zero divided by zero",
    "The quotient's limit depends on how both reach zero.",
    "Replace the divisor by 1 where it is zero (where(d == 0, 1, d)) before dividing, or bound it from below.",
)
_say(
    "sqrt-of-negative",
    "square root of a negative number",
    "The square root of a negative number is not real.",
    "If the input cannot be negative in exact arithmetic (a variance as E[x*x] - E[x]**2, a squared distance expanded), compute it as "
    "a sum of squares; otherwise bound it from below by a small positive number.",
)
_say(
    "sqrt-grad-at-zero",
    "gradient of sqrt at zero",
    "The derivative of sqrt(x) is 1 / (2 * sqrt(x)), which is infinite at x = 0; times a zero gradient it is NaN.",
    "Add a small positive number under the root, sqrt(x + eps), or bound x from below by such a number; "
    "adding it after the root does not help.",
)
_say(
    "norm-grad-at-zero",
    "gradient of a norm at the zero vector",
    "The derivative of a norm is x / |x|, which is 0 / 0 for the zero vector.",
    "Use the squared norm where it serves as well, or sqrt(sum(x * x) + eps); a framework's own norm function may define the gradient "
    "there, a hand-written root of a sum does not.",
)
_say(
    "pow-domain",
    "power outside its domain",
    "A negative number has no real power with a fractional exponent, and zero has no finite power with a negative one.",
    "Bound the base from below by a small positive number, or take the power of the absolute value if that is what is meant.",
)
_say(
    "pow-grad-at-zero",
    "gradient of a power at zero",
    "The derivative p * x**(p - 1) is infinite at x = 0 when the exponent p is between 0 and 1.",
    "Bound the base from below by a small positive number before taking the power, or use an exponent of at least 1.",
)
_say(
    "inverse-trig-domain",
    "inverse function outside [-1, 1]",
    "acos, asin and atanh are defined between -1 and 1 only, and rounding can take a cosine just past 1.",
    "Clamp the input into the range, and to 1 - eps with eps at least finfo(dtype).eps where its gradient is needed: "
    "the derivative is infinite at the edge.",
)
_say(
    "inverse-trig-grad-at-edge",
    "gradient of an inverse function at the edge of its range",
    "The derivative of acos and asin is 1 / sqrt(1 - x*x) and that of atanh 1 / (1 - x*x), both infinite at x = 1 and x = -1.",
    "Clamp the input to 1 - eps with eps at least finfo(dtype).eps: a smaller one rounds away and leaves 1.",
)
_say(
    "atan2-at-origin",
    "atan2 at the origin",
    "The derivative of atan2(y, x) divides by x*x + y*y, which is zero at the origin.",
    "Replace x by 1 where both x and y are zero before calling atan2, and select the result afterwards.",
)
_say(
    "other-domain-error",
    "function outside its domain",
    "The function has no finite value for this input.",
    "Keep the input inside the function's domain, or replace it there by a harmless value before the call.",
)

# ---------------------------------------------------------------- non-finite: overflow and what follows

_say(
    "exp-overflow",
    "exponential overflow",
    "exp exceeds the largest number of the dtype for quite small inputs: beyond 88.7 in float32 and bfloat16, 11.09 in float16, "
    "709.7 in float64.",
    "Use the function that never forms the exponential: logsumexp, log_softmax, softplus, logsigmoid, expm1; "
    "or subtract the maximum first; or bound the exponent from above.",
)
_say(
    "square-overflow",
    "square overflow",
    "The square of a number beyond the root of the largest number of the dtype (1.8e19 in float32, 255.9 in float16) is infinite.",
    "Scale the value before squaring, compute this part in a wider dtype, or bound it; a loss that grows linearly (Huber, L1) "
    "has no such square.",
)
_say(
    "product-overflow",
    "product overflow",
    "The product or quotient is larger than the largest number of the dtype.",
    "Scale the factors, add logarithms instead of multiplying, compute this part in a wider dtype, or bound the factors.",
)
_say(
    "sum-overflow",
    "sum overflow",
    "The sum is larger than the largest number of the dtype, though each term is finite.",
    "Average instead of summing by dividing the terms first, or accumulate in a wider dtype (in float16 the limit is 65504).",
)
_say(
    "cast-overflow",
    "overflow in a conversion",
    "The value is finite in its own dtype and larger than the largest number of the dtype that it is converted to.",
    "Bound or scale the value before the conversion, or keep this part in the wider dtype (bfloat16 has float32's range, "
    "float16 ends at 65504).",
)
_say(
    "underflow-then-divide",
    "underflow, then division",
    "A small number rounds to zero or nearly so, and dividing by it exceeds the largest number of the dtype.",
    "Divide by a quantity that is bounded away from zero, or compute the quotient as the exponential of a difference of logarithms.",
)
_say(
    "inf-minus-inf",
    "infinity minus infinity",
    "inf - inf has no value.",
    "Remove the infinity where it arises, in the expression before; for x - max(x) over rows that are masked out with -inf, use a large "
    "finite negative number for the mask.",
)
_say(
    "zero-times-inf",
    "zero times infinity",
    "0 * inf is NaN, not 0: multiplying by zero does not remove an infinity.",
    "Remove the infinity where it arises; to drop an element, select with where on the input of the dangerous function "
    "instead of multiplying its result by a 0/1 mask.",
)
_say(
    "inf-over-inf",
    "infinity divided by infinity",
    "inf / inf has no value.",
    "Keep both sides finite: subtract the maximum before exponentials (softmax does), or work with logarithms.",
)

# ---------------------------------------------------------------- non-finite: how a loss is put together

_say(
    "masked-branch-gradient",
    "infinite gradient of a branch that is not taken",
    "where(), clamp, min, max and a mask select values only: what they drop is still differentiated, and zero times its infinite "
    "derivative is NaN.",
    "Make the input safe before the dangerous operation, not its result after it: x_safe = where(cond, x, 1), then "
    "where(cond, f(x_safe), other); or clamp the input.",
)
_say(
    "empty-reduction",
    "reduction over no elements",
    "The mean of no elements is 0 / 0, and their maximum or logsumexp is -inf.",
    "Bound the count from below by 1 (sum / count.clamp(min=1)), or skip the term when nothing is selected.",
)
_say(
    "zero-variance",
    "division by a standard deviation of zero",
    "All values are equal, or there is only one, so the standard deviation is zero or undefined and the normalised value 0 / 0.",
    "Add a small positive number to the variance under the root, rsqrt(var + eps); with a single value use the biased variance "
    "(correction 0).",
)
_say(
    "all-masked-softmax",
    "softmax over a row that is masked out entirely",
    "Every entry of the row is -inf, so softmax subtracts -inf from -inf, which is NaN.",
    "Fill masked entries with the most negative finite number (finfo(dtype).min) instead of -inf, or leave at least one "
    "entry of each row unmasked and zero such rows afterwards.",
)
_say(
    "epsilon-rounds-away",
    "an epsilon too small for the dtype",
    "The epsilon is lost to rounding: next to 1 the spacing is finfo(dtype).eps (1.2e-07 in float32, 9.8e-04 in float16, "
    "7.8e-03 in bfloat16), half that below 1, so 1 - 1e-8 is exactly 1.",
    "Use an epsilon of at least finfo(dtype).eps times the number it is combined with, or write the expression so that none is needed "
    "(from logits).",
)
_say(
    "rounding-out-of-domain",
    "rounding takes a value out of the function's domain",
    "In exact arithmetic the value stays in the domain; the rounding errors of this dtype take it just outside.",
    "Clamp the value to the mathematically possible range right before the function, or use a formula that cannot leave it "
    "(a sum of squares instead of a difference).",
)
_say(
    "epsilon-removed-by-compiler",
    "an epsilon that the compiler removes",
    "The compiler reorders the sum (1 - x + 1e-8 becomes (1 + 1e-8) - x), and the epsilon then rounds away.",
    "Use an epsilon of at least finfo(dtype).eps, or a bound that is not a sum: maximum(1 - x, eps).",
)
_say(
    "nonfinite-input",
    "an input that is already NaN or infinite",
    "The value was NaN or infinite before the loss saw it.",
    "Find where it comes from: the data (whynan data FILE) or an earlier layer; the loss itself is not at fault.",
)
_say(
    "divergence",
    "the parameters diverged over several steps",
    "Each step was finite, but the parameters grew from step to step until a value exceeded the dtype's range.",
    "Lower the learning rate, clip the gradient norm, or warm up; then look at the first step at which the loss rose sharply.",
)
_say(
    "custom-gradient-wrong",
    "a hand-written gradient is wrong",
    "The user's own backward function is not the derivative of the forward one, or is not finite where that is.",
    "Compare the backward function with finite differences in float64 (torch.autograd.gradcheck) at this input, and give it the "
    "forward's guards.",
)

# ---------------------------------------------------------------- the other kinds

_say(
    "steep-gradient",
    "a gradient too large to train with",
    "The gradient is finite but so large that one step of an optimizer can throw the parameters away.",
    "Bound the quantity whose inverse appears in the gradient from below by a larger number, use a form that works from logits, or clip "
    "the gradient.",
)
_say(
    "clamp-kills-gradient",
    "a clamp stops the gradient",
    "Outside its limits a clamp is constant, so its derivative is exactly zero: those elements cannot learn.",
    "Compute from logits so that no clamp is needed, or use a smooth bound; a clamp of the final value hides the same problem.",
)
_say(
    "saturated-activation",
    "a saturated activation stops the gradient",
    "So far out, sigmoid, tanh or softmax rounds to its limit and its derivative to exactly zero, where the true one is not zero.",
    "Use the loss that takes logits where there is one (cross entropy or binary cross entropy 'with logits'): there the saturated factor "
    "cancels. Where there is none, keep what goes into the activation small: scale or penalise it.",
)
_say(
    "vanished-gradient",
    "a gradient lost to rounding",
    "The true slope is not zero here, but the number that carries it is so small that it underflows, or is the difference of two numbers "
    "that round to the same one.",
    "Compute the loss from logarithms or scaled differences so that the small factor never stands alone, or use a wider dtype.",
)
_say(
    "cancellation",
    "digits lost by cancellation",
    "Two nearly equal numbers are subtracted, or a small number is added to a large one and needed again later: what is left is mostly "
    "rounding error.",
    "Use the function made for it (log1p, expm1, logsumexp, a difference of squares as a product), or compute this part in a wider dtype.",
)
_say(
    "logits-as-probabilities",
    "logits where probabilities are expected",
    "The loss takes numbers between 0 and 1 and is given raw scores: where it clamps them it learns nothing, elsewhere it means nothing.",
    "Apply sigmoid or softmax first, or better use the variant of the loss that takes logits (from_logits=True, 'with logits').",
)
_say(
    "double-softmax",
    "softmax applied twice",
    "The loss applies softmax (or sigmoid) itself and is given values to which it was applied already: gradients become small "
    "and the loss cannot reach zero.",
    "Pass the raw logits to the loss: leave out the activation before it, or use the loss that takes probabilities.",
)
_say(
    "target-out-of-range",
    "a target outside the loss's range",
    "The loss is defined for other targets than those given: class indices 0 ... n-1, or numbers between 0 and 1.",
    "Check how the labels are encoded (from 0, or 0 and 1 instead of -1 and 1) and the value that marks ignored ones (ignore_index).",
)
_say(
    "nan-hidden-after-the-fact",
    "a NaN replaced after it arose",
    "nan_to_num or where replaces the NaN in the value, but the gradient still passes through the expression that gave it.",
    "Remove the cause: make the input of that expression safe before it is computed.",
)
_say(
    "gradient-detached",
    "the gradient is cut off",
    "As far as differentiation goes the loss does not depend on this input any more: it is detached (detach, item, no_grad, "
    "stop_gradient, a new tensor from data), or goes through a step without slope (a comparison, round, argmax, whole numbers).",
    "Keep the computation on tensors from input to loss, without detach(), .item(), .data or no_grad(); use a smooth function "
    "(sigmoid, softmax) in place of a threshold or an argmax.",
)
_say(
    "numpy-in-graph",
    "NumPy inside the loss",
    "NumPy does not record gradients: what it computes is a constant for the framework, and a compiled program has no numbers for it.",
    "Use the framework's own functions in the loss (torch.isnan, tf.math.is_nan, jnp.isnan instead of np.isnan).",
)
_say(
    "no-such-function",
    "a function that does not exist",
    "The framework has no function of this name, or not with this argument.",
    "Check the spelling against the framework's documentation for the installed version.",
)
