"""`from_logits=True` for a Keras loss that is given logits."""

import ast

from whynan.patches.source import Source, plain

_LOSSES = frozenset(
    f"keras.{room}.{name}"
    for room in ("losses", "metrics")
    for name in (
        "BinaryCrossentropy", "BinaryFocalCrossentropy", "CategoricalCrossentropy", "CategoricalFocalCrossentropy",
        "SparseCategoricalCrossentropy", "binary_crossentropy", "binary_focal_crossentropy", "categorical_crossentropy",
        "categorical_focal_crossentropy", "sparse_categorical_crossentropy",
    )
)  # fmt: skip


def with_from_logits(text: str, start: tuple[int, int], end: tuple[int, int]) -> str | None:
    """The file's text in which the Keras loss that is called between these ends (line, column in bytes) is told that it takes logits.

    None if there is no such call, or it says from_logits already.
    """
    source = Source(text)
    node = source.expression(start, end)
    made = (node, source.constructed(node.func)) if isinstance(node, ast.Call) else ()
    call = next((c for c in made if c is not None and plain(source.dotted(c.func)) in _LOSSES), None)
    if call is None or any(k.arg in ("from_logits", None) for k in call.keywords) or any(isinstance(a, ast.Starred) for a in call.args):
        return None
    closing = source.span(call)[1] - 1
    last = max((source.span(n)[1] for n in [*call.args, *(k.value for k in call.keywords)]), default=None)
    where, put = (closing, "from_logits=True") if last is None else (last, ", from_logits=True")
    return text[:where] + put + text[where:]
