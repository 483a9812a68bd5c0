"""Losses, expanded into the steps that the CPU kernels take."""

import numpy as np

from whynan.frontends.kit import Value, apply, narrow_or_wide, reduce, where, zeros
from whynan.frontends.torch.lower._kernel import Kernel, kernel
from whynan.frontends.torch.lower.arithmetic import limited
from whynan.ir.dtype import BOOL, INT64

MEAN, SUM = 1, 2
EPSILON = float(np.float32(1e-12))  # the kernel's own constant is a float in every format


def reduced(loss: Value, reduction: int) -> Value:
    """The loss itself, its mean or its sum."""
    if reduction == MEAN:
        return reduce("mean", loss, loss.axes)
    return loss.sum() if reduction == SUM else loss


def _share(k: Kernel, x: Value, factor: float = 1.0) -> float:
    """The factor that a mean puts before each element's gradient."""
    return factor / x.size if k["reduction"] == MEAN else factor


# ---------------------------------------------------------------- binary cross entropy


@kernel("binary_cross_entropy")
def _bce(k: Kernel) -> Value:
    x, t, weight = k.tensor("self"), k.tensor("target").cast(k.tensor("self").format), k["weight"]
    log_q = limited(apply("log1p", -x), -100.0, None)
    log_p = limited(apply("log", x), -100.0, None)
    loss = (t - 1) * log_q - t * log_p
    return reduced(loss if weight is None else loss * weight, k["reduction"])


@kernel("binary_cross_entropy_backward")
def _bce_backward(k: Kernel) -> Value:
    g, x, t, weight = k.tensor("grad_output"), k.tensor("self"), k.tensor("target"), k["weight"]
    slope = g * (x - t) / limited((1 - x) * x, EPSILON, None)
    slope = slope if weight is None else slope * weight
    return slope.up() / x.size if k["reduction"] == MEAN else slope


@kernel("binary_cross_entropy_with_logits")
def _bce_with_logits(k: Kernel) -> Value:
    x, t, weight, pos_weight = k.tensor("self"), k.tensor("target"), k["weight"], k["pos_weight"]
    log_sigmoid = apply("logsigmoid", x)
    if pos_weight is not None:
        log_sigmoid = log_sigmoid * ((pos_weight - 1) * t + 1)
    loss = (1 - t) * x - log_sigmoid
    return reduced(loss if weight is None else loss * weight, k["reduction"])


# ---------------------------------------------------------------- negative log likelihood


class _Picked:
    """What the losses by class share: the axis of the classes, the class mask, the valid rows and their weights."""

    def __init__(self, k: Kernel, axis: int) -> None:
        x, target = k.tensor("self"), k.tensor("target")
        self.x, self.axis, self.reduction = x, axis, k["reduction"]
        rows = [1 if i - x.ndim == axis else n for i, n in enumerate(x.shape)]
        target = target.cast(INT64).reshape(*rows)
        classes = x.shape[axis]
        self.valid = apply("ne", target, k["ignore_index"])
        self.index = limited(target, 0, classes - 1)
        self.weight = self._class_weight(k["weight"])
        numbers = np.arange(classes).reshape(classes, *(1,) * (-axis - 1))
        self.mask = apply("eq", self.index, x.const(numbers, INT64)) & self.valid

    def _class_weight(self, weight: Value | None) -> Value | None:
        return None if weight is None else weight.add("take_flat", self.index, shape=self.index.shape)

    def total_weight(self) -> Value:
        weight = self.x.const(1) if self.weight is None else self.weight
        return where(self.valid, weight, self.x.const(0)).sum()

    def losses(self) -> Value:
        loss = -self.x.add("gather", self.index, shape=self.index.shape, dim=self.axis)
        return where(self.valid, loss if self.weight is None else loss * self.weight, 0)

    def gradient(self, g: Value, total: Value) -> Value:
        g = -g.reshape(*(self.index.shape if g.size == self.index.size else (1,) * self.x.ndim))
        if self.reduction == MEAN:
            g = g / total.reshape(*(1,) * self.x.ndim)
        g = g if self.weight is None else self.weight * g
        return where(self.mask, g, 0)


@kernel("nll_loss_forward", "nll_loss2d_forward")
def _nll(k: Kernel) -> tuple[Value, Value]:
    picked = _Picked(k, -3 if "2d" in k.aten.name else -1)
    if k["reduction"] not in (MEAN, SUM):
        return picked.losses(), zeros(k.tensor("self"), ())
    total = picked.total_weight()
    loss = picked.losses().sum()
    return loss / total if k["reduction"] == MEAN else loss, total


@kernel("nll_loss_backward", "nll_loss2d_backward")
def _nll_backward(k: Kernel) -> Value:
    return _Picked(k, -3 if "2d" in k.aten.name else -1).gradient(k.tensor("grad_output"), k.tensor("total_weight"))


# ---------------------------------------------------------------- regression


@kernel("mse_loss")
def _mse(k: Kernel) -> Value:
    return reduced(apply("square", k.tensor("self") - k.tensor("target")), k["reduction"])


@kernel("mse_loss_backward")
def _mse_backward(k: Kernel) -> Value:
    x = k.tensor("self")
    return (x - k.tensor("target")) * _share(k, x, 2.0) * k.tensor("grad_output")


@kernel("l1_loss")
def _l1(k: Kernel) -> Value:
    return reduced(apply("abs", k.tensor("self") - k.tensor("target")), k["reduction"])


@kernel("smooth_l1_loss")
def _smooth_l1(k: Kernel) -> Value:
    z, beta = apply("abs", k.tensor("self") - k.tensor("target")), k["beta"]
    if beta == 0:
        return reduced(z, k["reduction"])
    limit = z.const(beta)
    return reduced(where(z < limit, z * 0.5 * z / limit, z - limit * 0.5), k["reduction"])


@kernel("smooth_l1_loss_backward")
def _smooth_l1_backward(k: Kernel) -> Value:
    x, g, beta = k.tensor("self") - k.tensor("target"), k.tensor("grad_output"), k["beta"]
    norm = _share(k, k.tensor("self"))
    if beta == 0:
        return apply("sign", x) * (g * norm)

    def slope(x: Value, target: Value, g: Value) -> Value:
        return apply("div", (x - target) * norm * g, beta, ulps=3)  # the order of the factors is not that of the source

    inside = narrow_or_wide(slope, k.tensor("self"), k.tensor("target"), g)
    return where(x <= -beta, g * -norm, where(x >= beta, g * norm, inside))


@kernel("huber_loss")
def _huber(k: Kernel) -> Value:
    z, delta = apply("abs", k.tensor("self") - k.tensor("target")), k["delta"]
    limit = z.const(delta)
    return reduced(where(z < limit, z * 0.5 * z, (z - limit * 0.5) * limit), k["reduction"])


@kernel("huber_loss_backward")
def _huber_backward(k: Kernel) -> Value:
    x, g, delta = k.tensor("self") - k.tensor("target"), k.tensor("grad_output"), k["delta"]
    norm = _share(k, k.tensor("self"))
    return where(x <= -delta, g * -norm * delta, where(x >= delta, g * norm * delta, x * norm * g))


# ---------------------------------------------------------------- margins


@kernel("soft_margin_loss")
def _soft_margin(k: Kernel) -> Value:
    return reduced(apply("log1p", apply("exp", -k.tensor("self") * k.tensor("target"))), k["reduction"])


@kernel("soft_margin_loss_backward")
def _soft_margin_backward(k: Kernel) -> Value:
    x, t = k.tensor("self"), k.tensor("target")
    z = apply("exp", -t * x)
    return t * z * -_share(k, x) / (z + 1) * k.tensor("grad_output")


class _Margins:
    """The hinge of each wrong class against the right one: z = margin - x[target] + x, rows by classes."""

    def __init__(self, k: Kernel) -> None:
        x, target, weight = k.tensor("self"), k.tensor("target").cast(INT64), k["weight"]
        rows = 1 if x.ndim < 2 else x.shape[0]
        self.classes = x.size // rows
        self.x = x.reshape(rows, self.classes)
        index = target.reshape(rows, 1)
        self.right = apply("eq", index, x.const(np.arange(self.classes), INT64))
        self.z = x.const(k["margin"]) - self.x.add("gather", index, shape=(rows, 1), dim=-1) + self.x
        self.violated = (self.z > 0) & ~self.right
        self.weight = None if weight is None else weight.add("take_flat", index, shape=(rows, 1))

    def weighted(self, h: Value) -> Value:
        """h where a margin is violated, times the right class's weight."""
        return where(self.violated, h if self.weight is None else h * self.weight, 0)


@kernel("multi_margin_loss")
def _multi_margin(k: Kernel) -> Value:
    m = _Margins(k)
    loss = m.weighted(m.z if k["p"] == 1 else apply("square", m.z)).sum((-1,)) / m.classes
    return reduced(loss, k["reduction"])


@kernel("multi_margin_loss_backward")
def _multi_margin_backward(k: Kernel) -> Value:
    m = _Margins(k)
    share = 1 / m.x.size if k["reduction"] == MEAN else 1 / m.classes
    h = m.weighted(m.x.const(np.full((1, 1), share)) if k["p"] == 1 else m.z * (2 * share))
    g = k.tensor("grad_output")
    g = g.reshape(g.size, 1)
    return where(m.right, 0 - h.sum((-1,)), h) * g


class _Labels:
    """Targets of a multi-label margin loss: a list of classes per row that ends at the first -1."""

    def __init__(self, k: Kernel) -> None:
        x, target = k.tensor("self"), k.tensor("target").cast(INT64)
        rows = 1 if x.ndim < 2 else x.shape[0]
        self.rows, self.classes = rows, x.size // rows
        self.x, target = x.reshape(rows, self.classes), target.reshape(rows, self.classes)
        listed = (target >= 0).cast(INT64).add("cumprod", dim=-1).cast(BOOL).reshape(rows, self.classes, 1)
        self.index = limited(target, 0, self.classes - 1)
        label = self.index.reshape(rows, self.classes, 1)
        # listed[r, i] and label[r, i] is class c
        self.of_class = apply("eq", label, x.const(np.arange(self.classes), INT64)) & listed
        self.is_target = reduce("any", self.of_class, (-2,)).reshape(rows, 1, self.classes)
        picked = self.x.add("gather", self.index, shape=self.index.shape, dim=-1).reshape(rows, self.classes, 1)
        self.z = 1 - picked + self.x.reshape(rows, 1, self.classes)
        self.violated = (self.z > 0) & ~self.is_target & listed


@kernel("multilabel_margin_loss_forward")
def _multilabel_margin(k: Kernel) -> tuple[Value, Value]:
    m = _Labels(k)
    loss = where(m.violated, m.z, 0).sum((-2, -1)) / m.classes
    return reduced(loss, k["reduction"]), m.is_target


@kernel("multilabel_margin_loss_backward")
def _multilabel_margin_backward(k: Kernel) -> Value:
    m = _Labels(k)
    share = 1 / (m.rows * m.classes) if k["reduction"] == MEAN else 1 / m.classes
    hits = where(m.violated, m.x.const(share), 0)
    gained = hits.sum((-2,)).reshape(m.rows, m.classes)
    lost = where(m.of_class, hits.sum((-1,)), 0).sum((-2,)).reshape(m.rows, m.classes)
    g = k.tensor("grad_output")
    return (gained - lost) * g.reshape(g.size, 1)
