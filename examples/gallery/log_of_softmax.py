"""Cross-entropy as log(softmax(x)), against `log_softmax`.

What people write: `-torch.log(torch.softmax(x, -1))` at the target class, perhaps with `+ 1e-8`.
What they ask: "softmax is never 0, so why is the loss inf?"
Published: softmax underflows when logits differ by more than about 104 in float32; use `log_softmax`.
Measured: of two logits the loss is inf from a difference of 103.972, and the gradient fails earlier, from 88.723 (float16: 17.344 and
11.094). With 1e-8 float32 is finite, but the worst mistakes have gradient 0 where the true one is -1; in float16 1e-8 is 0.
`log_softmax` is finite in all three formats.
"""

import torch
from torch.nn import functional as F

DOMAINS = {"x": "logit(8, 4)", "t": "classes(4, 8)"}
EXPECTED = {
    "loss": {"float32": ("unsafe", "log-of-zero"), "float16": ("unsafe", "log-of-zero"), "bfloat16": ("unsafe", "log-of-zero")},
    "epsilon": {"float32": ("safe", None), "float16": ("unsafe", "epsilon-rounds-away"), "bfloat16": ("safe", None)},
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WARNINGS = {
    "epsilon": {"float32": ("saturated-activation",), "bfloat16": ("saturated-activation",)},
}
WITNESS = {
    "loss": {"x": [[100.0, -100.0, -100.0, -100.0]] * 8, "t": 1},
    "epsilon": {"x": [[100.0, -100.0, -100.0, -100.0]] * 8, "t": 1},
}


def loss(x, t):
    return -torch.log(torch.softmax(x, -1)).gather(1, t[:, None]).mean()


def epsilon(x, t):
    return -torch.log(torch.softmax(x, -1) + 1e-8).gather(1, t[:, None]).mean()


def repaired(x, t):
    return F.nll_loss(F.log_softmax(x, -1), t)
