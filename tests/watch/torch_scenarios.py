"""Training runs that go bad in the ways that training runs do: what each consists of, and what must be said of it."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from tests.watch.marked import marked
from torch import nn
from torch.nn import functional as F

SAMPLES, FEATURES, BAD_STEP = 8, 4, 3


@dataclass(frozen=True)
class Scenario:
    """A run whose step `BAD_STEP` fails, and what is to be found.

    `make` returns model, criterion (called with the model's result and the targets) and a function from the step's number to the inputs
    and the targets.
    `at` is the failing expression, which stands in the line that ends with the comment `# at NAME`, if there is one; else in a library.
    `samples` are those to blame, `values` (argument, index, value) are among those told. `kind` is the class of the cause.
    """

    make: Callable[[], tuple[nn.Module, Any, Callable[[int], tuple[Any, Any]]]]
    at: str
    cause: str
    phase: str = "forward"
    kind: str = "an operation's domain"
    layer: str = ""
    parameter: str = ""
    samples: tuple[int, ...] = ()
    values: tuple[tuple[str, tuple[int, ...], float], ...] = ()
    failed: str = "loss"
    autocast: torch.dtype | None = None

    @property
    def name(self) -> str:
        """The name of the function that makes it."""
        return self.make.__name__

    @property
    def line(self) -> int | None:
        """The number of the marked line, None if there is none: the expression stands in a library."""
        file = self.make.__code__.co_filename
        return marked(file).get(self.name)


class Net(nn.Module):
    """An encoder and a head."""

    def __init__(self, out: int = 1, last: nn.Module | None = None) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU())
        self.head = nn.Linear(16, out)
        self.last = last or nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.head(self.encoder(x)))  # at nan_row, inf_feature


def data(step: int, *shape: int) -> torch.Tensor:
    """Ordinary numbers, others in each step."""
    return torch.randn(*(shape or (SAMPLES, FEATURES)), generator=torch.Generator().manual_seed(step))


def put(t: torch.Tensor, index: Any, value: Any) -> torch.Tensor:
    """The tensor with a value put in."""
    t[index] = value
    return t


# ---------------------------------------------------------------- what must be found


def log_of_zero():
    """A probability that is exactly 0, as a one-hot prediction gives."""

    class Loss(nn.Module):
        def forward(self, p, t):
            return -(t * torch.log(p)).sum(1).mean()  # at log_of_zero

    def batch(step):
        x = data(step)
        if step == BAD_STEP:
            x[5, 0] = 4000.0
        return x, torch.full((SAMPLES, 3), 1 / 3)

    return Net(3, nn.Softmax(1)), Loss(), batch


def sqrt_gradient():
    """The distance of two equal points has no gradient."""

    def distance(p, t):
        return torch.sqrt(((p - t) ** 2).sum(1)).mean()  # at sqrt_gradient

    net = Net(2)

    def batch(step):
        x, t = data(step), data(100 + step, SAMPLES, 2)
        if step == BAD_STEP:
            with torch.no_grad():
                t[6] = net(x)[6]
        return x, t

    return net, distance, batch


def norm_gradient():
    """A norm, root of squares written out, of an encoder that is dead for one sample."""

    class Direction(nn.Module):
        def forward(self, x):
            return x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-8)  # at norm_gradient

    class Dead(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(FEATURES, 3, bias=False)
            self.direction = Direction()

        def forward(self, x):
            return self.direction(self.inner(x))

    return Dead(), nn.MSELoss(), lambda step: (put(data(step), 2, 0.0) if step == BAD_STEP else data(step), data(9, SAMPLES, 3))


def where_trap():
    """The branch that `where` does not take has a derivative all the same: 0 times infinity."""

    def loss(p, t, n):
        ratio = torch.where(n > 0, p / n, torch.zeros_like(p))  # at where_trap
        return F.mse_loss(ratio, t)

    def batch(step):
        n = torch.ones(SAMPLES, 1)
        return data(step), (data(9, SAMPLES, 1), put(n, 1, 0.0) if step == BAD_STEP else n)

    return Net(), loss, batch


def nan_row():
    """A row of the data has a NaN."""
    return Net(), nn.MSELoss(), lambda s: (put(data(s), (3, 2), math.nan) if s == BAD_STEP else data(s), data(9, SAMPLES, 1))


def inf_feature():
    """A feature is infinite, as a ratio with denominator 0 leaves it."""
    return Net(), F.l1_loss, lambda s: (put(data(s), (7, 1), math.inf) if s == BAD_STEP else data(s), data(9, SAMPLES, 1))


def nan_target():
    """A label is missing."""
    return (
        Net(),
        nn.SmoothL1Loss(),
        lambda s: (data(s), put(data(9, SAMPLES, 1), (4, 0), math.nan) if s == BAD_STEP else data(9, SAMPLES, 1)),
    )


def exp_then_division():
    """A softmax written by hand: exp overflows, the division makes NaN of it."""

    class Softmax(nn.Module):
        def forward(self, z):
            e = torch.exp(z)  # at exp_then_division
            return e / e.sum(1, keepdim=True)

    def batch(step):
        return put(data(step), (4, 3), 9000.0) if step == BAD_STEP else data(step), data(9, SAMPLES, 3)

    return Net(3, Softmax()), nn.MSELoss(), batch


class Attention(nn.Module):
    """One head of attention over a sequence, with a mask of what may be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(FEATURES, 8), nn.Linear(FEATURES, 8), nn.Linear(FEATURES, 8)
        self.out = nn.Linear(8, 1)

    def forward(self, x, mask):
        scores = self.query(x) @ self.key(x).transpose(1, 2) / 8**0.5
        scores = scores.masked_fill(~mask[:, None, :], float("-inf"))
        weights = torch.softmax(scores, dim=-1)  # at masked_softmax
        return self.out(weights @ self.value(x)).mean(1)


def masked_softmax():
    """A sequence whose mask is all False."""

    def batch(step):
        mask = torch.ones(SAMPLES, 5, dtype=torch.bool)
        mask[:, 3:] = False
        if step == BAD_STEP:
            mask[6] = False
        return (data(step, SAMPLES, 5, FEATURES), mask), data(9, SAMPLES, 1)

    return Attention(), nn.MSELoss(), batch


def float16_autocast():
    """Activations beyond 65504 under autocast."""

    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(FEATURES, 16), nn.Linear(16, 1)

        def forward(self, x):
            return self.second(torch.relu(self.first(x)))  # at float16_autocast

    def batch(step):
        return put(data(step), (5, 2), 60000.0) if step == BAD_STEP else data(step), data(9, SAMPLES, 1)

    net = Wide()
    with torch.no_grad():
        net.first.weight.abs_().add_(1.5)
    return net, lambda p, t: F.mse_loss(p.float(), t), batch


class Magnitude(torch.autograd.Function):
    """The absolute value, with a backward that divides by what may be 0."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.abs()

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (x / x.abs())  # at bad_backward


def bad_backward():
    """A backward of the user's own that divides by what may be 0: by a sample's weight."""

    def loss(p, t, w):
        return Magnitude.apply((p - t) * w).mean()

    def batch(step):
        w = torch.ones(SAMPLES, 1)
        return data(step), (data(9, SAMPLES, 1), put(w, 3, 0.0) if step == BAD_STEP else w)

    return Net(), loss, batch


def empty_mask():
    """A mean over nothing."""

    class MaskedLoss:
        def __call__(self, p, t, mask):
            return (mask * (p - t) ** 2).sum() / mask.sum()  # at empty_mask

    def batch(step):
        mask = torch.zeros(SAMPLES, 1) if step == BAD_STEP else torch.ones(SAMPLES, 1)
        return data(step), (data(9, SAMPLES, 1), mask)

    return Net(), MaskedLoss(), batch


def embedding_trap():
    """A row of the embedding is all zero; its norm has no gradient."""

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(10, FEATURES)
            with torch.no_grad():
                self.table.weight[0] = 0.0
            self.head = nn.Linear(FEATURES, 1)

        def forward(self, ids):
            e = self.table(ids)
            unit = e / (e**2).sum(-1, keepdim=True).sqrt().clamp(min=1e-6)  # at embedding_trap
            return self.head(unit.mean(1))

    def batch(step):
        ids = torch.randint(1, 10, (SAMPLES, 3), generator=torch.Generator().manual_seed(step))
        if step == BAD_STEP:
            ids[2, 1] = 0
        return ids, data(9, SAMPLES, 1)

    return Tokens(), nn.MSELoss(), batch


def batch_norm_of_one():
    """A standard deviation over a batch of one sample."""

    class Whiten(nn.Module):
        def forward(self, x):
            return (x - x.mean(0)) / (x.std(0) + 1e-5)  # at batch_norm_of_one

    def batch(step):
        n = 1 if step == BAD_STEP else SAMPLES
        return data(step, n, FEATURES), data(9, n, 1)

    return Net(1, Whiten()), nn.MSELoss(), batch


def broken_row():
    """A row of the embedding is NaN; only who uses it fails."""

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(10, FEATURES)
            self.head = nn.Linear(FEATURES, 1)
            with torch.no_grad():
                self.table.weight[9, 1] = math.nan

        def forward(self, ids):
            rows = self.table(ids)  # at broken_row
            return self.head(rows.mean(1))

    def batch(step):
        ids = torch.randint(0, 9, (SAMPLES, 3), generator=torch.Generator().manual_seed(step))
        return put(ids, (6, 2), 9) if step == BAD_STEP else ids, data(9, SAMPLES, 1)

    return Tokens(), functools.partial(F.huber_loss, delta=2.0), batch


FOUND = (
    Scenario(log_of_zero, "torch.log(p)", "log-of-zero", layer="loss", samples=(5,), values=(("x", (5, 0), 4000.0),)),
    Scenario(
        sqrt_gradient,
        "torch.sqrt(((p - t) ** 2).sum(1))",
        "sqrt-grad-at-zero",
        "backward",
        parameter="head.weight",
        samples=(6,),
        failed="gradient",
    ),
    Scenario(
        norm_gradient,
        "x.pow(2).sum(1, keepdim=True).sqrt()",
        "sqrt-grad-at-zero",
        "backward",
        layer="direction",
        parameter="inner.weight",
        samples=(2,),
        values=(("x", (2, 0), 0.0),),
        failed="gradient",
    ),
    Scenario(
        where_trap,
        "p / n",
        "masked-branch-gradient",
        "backward",
        parameter="head.weight",
        samples=(1,),
        values=(("n", (1, 0), 0.0),),
        failed="gradient",
    ),
    Scenario(nan_row, "self.encoder(x)", "nonfinite-input", kind="bad data", samples=(3,), values=(("x", (3, 2), math.nan),)),
    Scenario(inf_feature, "self.encoder(x)", "nonfinite-input", kind="bad data", samples=(7,), values=(("x", (7, 1), math.inf),)),
    Scenario(nan_target, "loss(out, *targets)", "nonfinite-input", kind="bad data", samples=(4,), values=(("target", (4, 0), math.nan),)),
    Scenario(
        exp_then_division, "torch.exp(z)", "exp-overflow", kind="overflow", layer="last", samples=(4,), values=(("x", (4, 3), 9000.0),)
    ),
    Scenario(masked_softmax, "torch.softmax(scores, dim=-1)", "all-masked-softmax", samples=(6,), values=(("mask", (6, 0), 0.0),)),
    Scenario(
        float16_autocast,
        "self.first(x)",
        "cast-overflow",
        kind="overflow",
        layer="first",
        samples=(5,),
        values=(("x", (5, 2), 60000.0),),
        autocast=torch.float16,
    ),
    Scenario(
        bad_backward,
        "x / x.abs()",
        "zero-over-zero",
        "backward",
        kind="a backward of your own",
        parameter="head.weight",
        samples=(3,),
        failed="gradient",
    ),
    Scenario(empty_mask, "(mask * (p - t) ** 2).sum() / mask.sum()", "zero-over-zero", values=(("mask", (0, 0), 0.0),)),
    Scenario(
        embedding_trap,
        "(e**2).sum(-1, keepdim=True).sqrt()",
        "sqrt-grad-at-zero",
        "backward",
        parameter="table.weight",
        samples=(2,),
        values=(("ids", (2, 1), 0.0),),
        failed="gradient",
    ),
    Scenario(
        broken_row, "self.table(ids)", "nonfinite-input", kind="bad state", samples=(6,), values=(("table.weight", (9, 1), math.nan),)
    ),
    Scenario(batch_norm_of_one, "x.std(0)", "zero-variance", layer="last", samples=(0,)),
)
