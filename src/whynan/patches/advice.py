"""Advice where the change belongs elsewhere: the model should return logits, the loss take them."""

from collections.abc import Collection

from whynan.ir.term import Term, name_of, walk
from whynan.patches.read import Context

_WITH_LOGITS = {
    "torch": "F.binary_cross_entropy_with_logits or F.cross_entropy",
    "tensorflow": "tf.nn.sigmoid_cross_entropy_with_logits, tf.nn.softmax_cross_entropy_with_logits, or a Keras loss with from_logits=True",
    "jax": "optax.sigmoid_binary_cross_entropy or optax.softmax_cross_entropy",
}
_LOGARITHMS = frozenset({"log", "log2", "log10", "log1p"})


def advice(context: Context, probabilities: Collection[str]) -> str:
    """What to change outside the loss, where its failing expression takes the logarithm of a model's probabilities; "" if it does not.

    `probabilities` are the names of the inputs that are probabilities.
    """
    named = sorted({n for _, t in walk(context.term) if t.op in _LOGARITHMS for n in _names(t) if n in probabilities})
    if not named:
        return ""
    return (
        f"let the model return logits rather than {named[0]}: drop its last sigmoid or softmax, and use {_WITH_LOGITS[context.framework]}, "
        "which lose nothing where the probability rounds to 0 or 1"
    )


def _names(t: Term) -> set[str]:
    return {name_of(s) for _, s in walk(t) if s.op == "leaf"}
