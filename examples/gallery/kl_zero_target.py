"""Kullback-Leibler divergence with a target that holds zeros.

What people write: `(t * (t.log() - log_q)).sum(-1)`.
What they ask: "one-hot targets give NaN, soft ones do not".
Published: 0 log 0 is 0.
Measured: by hand 0 * log(0) is NaN in every format. `F.kl_div(log_q, target)` treats a zero target as 0 and is finite in all three.
"""

import torch
from torch.nn import functional as F

DOMAINS = {"log_q": "real(8, 4, low=-20, high=0)", "target": "simplex(8, 4)"}
EXPECTED = {
    "loss": {"float32": ("unsafe", "log-of-zero"), "float16": ("unsafe", "log-of-zero"), "bfloat16": ("unsafe", "log-of-zero")},
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {"loss": {"log_q": -1.0, "target": [[1.0, 0.0, 0.0, 0.0]] * 8}}


def loss(log_q, target):
    return (target * (torch.log(target) - log_q)).sum(-1).mean()


def repaired(log_q, target):
    return F.kl_div(log_q, target, reduction="batchmean")
