"""The clipped policy ratio of PPO.

What people write: `ratio = torch.exp(new - old)`, then the minimum of the plain and the clipped objective.
What they ask: "PPO clips the ratio, how can the loss be inf?"
Published: the clip bounds the update.
Measured: the minimum picks the unclipped term when the advantage is negative; exp(100) is inf, and so is the loss, in every format.
With the difference of log-probabilities clamped to [-3, 3] first, all three are finite; beyond it the gradient is zero.
"""

import torch

DOMAINS = {
    "new": "real(8, 1, low=-100, high=0)",
    "old": "real(8, 1, low=-100, high=0)",
    "adv": "real(8, 1, low=-10, high=10)",
}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "exp-overflow"),
        "float16": ("unsafe", "exp-overflow"),
        "bfloat16": ("unsafe", "exp-overflow"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WARNINGS = {
    "repaired": {
        "float32": ("clamp-kills-gradient",),
        "float16": ("clamp-kills-gradient",),
        "bfloat16": ("clamp-kills-gradient",),
    },
}
WITNESS = {"loss": {"new": 0.0, "old": -100.0, "adv": -1.0}}


def objective(ratio, adv):
    return -torch.min(ratio * adv, ratio.clamp(0.8, 1.2) * adv).mean()


def loss(new, old, adv):
    return objective(torch.exp(new - old), adv)


def repaired(new, old, adv):
    return objective(torch.exp((new - old).clamp(-3, 3)), adv)
