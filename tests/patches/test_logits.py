"""A model's last activation moved into the loss, as text."""

from pathlib import Path

import pytest

from whynan.patches.logits import Place, moved

FILE = Path("losses.py")

TORCH = """import torch
import torch.nn as nn


def model(x):
    \"\"\"Probabilities.\"\"\"
    z = x @ W
    return {call}


def loss(p, t):
    \"\"\"By hand.\"\"\"
    return -(t * torch.log(p) + (1 - t) * torch.log(1 - p)).mean()
"""

LOSS = "    prob = {call}\n    return -(t * torch.log(prob) + (1 - t) * torch.log(1 - prob)).mean()\n"


def result(text: str, name: str = "model", line: int = 5, framework: str = "torch") -> str | None:
    places = Place(FILE, name, line), Place(FILE, "loss", len(text[: text.index("def loss")].splitlines()) + 1)
    made = moved(*places, "p", framework, {FILE: text})
    return None if made is None else made[FILE]


@pytest.mark.parametrize(
    ("call", "rest", "taken"),
    [
        ("torch.sigmoid(z)", "z", "torch.sigmoid(p)"),
        ("z.sigmoid()", "z", "p.sigmoid()"),
        ("torch.softmax(z * 2, dim=-1)", "z * 2", "torch.softmax(p, dim=-1)"),
        ("(z + 1).softmax(1)", "z + 1", "(p).softmax(1)"),
    ],
)
def test_a_returned_activation_moves(call: str, rest: str, taken: str) -> None:
    text = result(TORCH.format(call=call))
    assert text is not None and (f"    return {rest}\n" in text or f"    return ({rest})\n" in text)
    assert LOSS.format(call=taken) in text
    compile(text, "losses.py", "exec")


def test_the_last_layer_of_a_sequential_goes() -> None:
    text = TORCH.format(call="z").replace("def loss", "net = nn.Sequential(\n    nn.Linear(3, 1),\n    nn.Sigmoid(),\n)\n\n\ndef loss")
    made = result(text, "net", 0)
    assert made is not None and "Sigmoid" not in made and LOSS.format(call="torch.sigmoid(p)") in made
    compile(made, "losses.py", "exec")


def test_an_activation_that_a_keras_layer_is_given_by_name_goes() -> None:
    text = (
        "import keras\nfrom keras import ops\n\nnet = keras.Sequential([keras.layers.Dense(8), "
        "keras.layers.Dense(1, activation='sigmoid')])\n"
        "\n\ndef loss(p, t):\n    return -ops.mean(t * ops.log(p))\n"
    )
    made = result(text, "net", 0, "tensorflow")
    assert made is not None and "keras.layers.Dense(1)])" in made
    assert "    prob = ops.sigmoid(p)\n    return -ops.mean(t * ops.log(prob))\n" in made or "prob = keras.ops.sigmoid(p)" in made
    compile(made, "losses.py", "exec")


@pytest.mark.parametrize("call", ["z", "torch.tanh(z)", "other(z)"])
def test_what_is_no_activation_stays(call: str) -> None:
    assert result(TORCH.format(call=call)) is None


def test_a_prediction_that_is_assigned_again_stays() -> None:
    text = TORCH.format(call="torch.sigmoid(z)").replace("    return -(t", "    p = p + 1e-8\n    return -(t")
    assert result(text) is None


def test_two_files_must_have_the_same_names() -> None:
    model = "import torch as th\n\n\ndef model(x):\n    return th.sigmoid(x)\n"
    loss = "import torch\n\n\ndef loss(p, t):\n    return -(t * torch.log(p)).mean()\n"
    one, two = Path("model.py"), Path("loss.py")
    assert moved(Place(one, "model", 4), Place(two, "loss", 4), "p", "torch", {one: model, two: loss}) is None
    made = moved(
        Place(one, "model", 4),
        Place(two, "loss", 4),
        "p",
        "torch",
        {one: model, two: loss.replace("import torch", "import torch as th\nimport torch")},
    )
    assert made is not None and "return x\n" in made[one] and "prob = th.sigmoid(p)" in made[two]
