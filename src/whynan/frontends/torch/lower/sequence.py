"""Connectionist temporal classification."""

from typing import Any

import numpy as np

from whynan.frontends.kit import Value
from whynan.frontends.torch.lower._kernel import Kernel, kernel
from whynan.ir.dtype import INT64


def _lengths(k: Kernel, name: str, n: int) -> Value:
    """Lengths, a tensor or numbers, as a value (n,)."""
    lengths = k[name]
    return lengths.reshape(n) if isinstance(lengths, Value) else k.const(np.array(lengths, np.int64).reshape(n), INT64)


def _inputs(k: Kernel) -> tuple[Value, ...]:
    """Log-probabilities (T, N, C), where a single sequence has no batch axis; targets; the lengths of both."""
    x, targets = k.tensor("log_probs"), k.tensor("targets")
    x = x if x.ndim == 3 else x.reshape(x.shape[0], 1, x.shape[-1])
    return x, targets, _lengths(k, "input_lengths", x.shape[1]), _lengths(k, "target_lengths", x.shape[1])


def _attrs(k: Kernel) -> dict[str, Any]:
    return {"blank": int(k["blank"]), "zero_infinity": bool(k["zero_infinity"])}


@kernel("_ctc_loss", "_ctc_loss.Tensor")
def _ctc_loss(k: Kernel) -> tuple[Value, Value]:
    x, *others = _inputs(k)
    times, n, _ = x.shape
    width = k.out(1)[0][-1]
    return x.add("ctc_loss", *others, shape=(n,), **_attrs(k)), x.add("ctc_alpha", *others, shape=(n, times, width), **_attrs(k))


@kernel("_ctc_loss_backward", "_ctc_loss_backward.Tensor")
def _ctc_loss_backward(k: Kernel) -> Value:
    x, *others = _inputs(k)
    g, loss = (k.tensor(name).reshape(x.shape[1]) for name in ("grad", "neg_log_likelihood"))
    return g.add("ctc_grad", loss, x, *others, shape=x.shape, **_attrs(k))
