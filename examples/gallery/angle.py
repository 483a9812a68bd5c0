"""The angle between two unit vectors by acos.

What people write: `torch.acos((a * b).sum(-1))` for rotations and poses; then `.clamp(-1, 1)`; then a clamp with 1e-7.
What they ask: "both are normalised, how can acos be NaN?"
Published: clamp to [-1, 1].
Measured: rounding makes the dot product of a unit vector with itself exceed 1 in every format: acos is NaN. Clamped to [-1, 1] the
value is finite and the gradient at 1 is inf. A margin of 1e-7 works in float32 only (1 - 1e-7 is 1 in the other two), with no
gradient beyond. atan2(|a x b|, a.b) is finite in all three.
"""

import torch

DOMAINS = {"a": "unit(8, 3)", "b": "unit(8, 3)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "rounding-out-of-domain"),
        "float16": ("unsafe", "rounding-out-of-domain"),
        "bfloat16": ("unsafe", "rounding-out-of-domain"),
    },
    "clamped": {
        "float32": ("unsafe", "inverse-trig-grad-at-edge"),
        "float16": ("unsafe", "inverse-trig-grad-at-edge"),
        "bfloat16": ("unsafe", "inverse-trig-grad-at-edge"),
    },
    "margin": {
        "float32": ("safe", None),
        "float16": ("unsafe", "epsilon-rounds-away"),
        "bfloat16": ("unsafe", "epsilon-rounds-away"),
    },
    # no failing input is known; the proof would need |a x b|^2 + (a.b)^2 = 1
    "repaired": {"float32": ("undecided", None), "float16": ("undecided", None), "bfloat16": ("undecided", None)},
}
WARNINGS = {
    "margin": {"float32": ("clamp-kills-gradient",)},
}
WITNESS = {
    "loss": {
        "float32": {"a": [[0.671735, 0.245919, 0.6987818]] * 8, "b": [[0.671735, 0.245919, 0.6987818]] * 8},
        "float16": {"a": [[0.8758, 0.4, 0.2703]] * 8, "b": [[0.8758, 0.4, 0.2703]] * 8},
        "bfloat16": {"a": [[0.5, 0.166, 0.85]] * 8, "b": [[0.5, 0.166, 0.85]] * 8},
    },
    "clamped": {"a": [[1.0, 0.0, 0.0]] * 8, "b": [[1.0, 0.0, 0.0]] * 8},
    "margin": {"a": [[1.0, 0.0, 0.0]] * 8, "b": [[1.0, 0.0, 0.0]] * 8},
}


def loss(a, b):
    return torch.acos((a * b).sum(-1)).mean()


def clamped(a, b):
    return torch.acos((a * b).sum(-1).clamp(-1, 1)).mean()


def margin(a, b):
    return torch.acos((a * b).sum(-1).clamp(-1 + 1e-7, 1 - 1e-7)).mean()


def repaired(a, b):
    cross = torch.linalg.vector_norm(torch.linalg.cross(a, b), dim=-1)
    return torch.atan2(cross, (a * b).sum(-1)).mean()
