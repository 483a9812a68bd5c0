"""`from_logits=True` for Keras losses, as text and end to end."""

from pathlib import Path

import pytest

import whynan
from whynan.patches.from_logits import with_from_logits

HEAD = "import keras\n\n\ndef loss(z, t):\n    return "


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("keras.losses.BinaryCrossentropy()(t, z)", "keras.losses.BinaryCrossentropy(from_logits=True)(t, z)"),
        (
            "keras.losses.BinaryCrossentropy(label_smoothing=0.1)(t, z)",
            "keras.losses.BinaryCrossentropy(label_smoothing=0.1, from_logits=True)(t, z)",
        ),
        ("keras.losses.categorical_crossentropy(t, z)", "keras.losses.categorical_crossentropy(t, z, from_logits=True)"),
        ("keras.losses.BinaryCrossentropy(from_logits=False)(t, z)", None),
        ("keras.losses.MeanSquaredError()(t, z)", None),
    ],
)
def test_the_call_is_told(call: str, told: str | None) -> None:
    made = with_from_logits(HEAD + call + "\n", (5, 11), (5, 11 + len(call)))
    assert made == (None if told is None else HEAD + told + "\n")


def test_a_loss_object_made_before_is_told_where_it_is_made() -> None:
    head = "from tensorflow import keras\n\n"
    text = head + "crit = keras.losses.BinaryCrossentropy(\n    name='bce',\n)\n\n\ndef loss(z, t):\n    return crit(t, z)\n"
    made = with_from_logits(text, (9, 11), (9, 21))
    assert made is not None and "    name='bce', from_logits=True,\n)" in made


@pytest.mark.slow
def test_a_loss_that_is_given_logits_is_told_so(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    file = tmp_path / "given_logits.py"
    file.write_text(HEAD + "keras.losses.BinaryCrossentropy()(t, z)\n")
    (fix,) = whynan.fix(f"{file}:loss", z=whynan.logit(4, 1), t=whynan.binary(4, 1), framework="tensorflow")
    assert fix.applicability == "needs-review" and "from_logits=True" in fix.patch and fix.evidence.verdict == "safe"
