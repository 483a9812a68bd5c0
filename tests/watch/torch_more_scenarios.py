"""More training runs that go bad: other layers, other losses, and runs in which nothing is wrong."""

import functools
import math

import torch
from tests.watch.torch_scenarios import BAD_STEP, FEATURES, SAMPLES, Net, Scenario, data, put
from torch import nn
from torch.nn import functional as F


def _bad(step, t, index, value):
    return put(t, index, value) if step == BAD_STEP else t


def lstm_sequence_first():
    """A recurrent net whose batch is the second axis; a loss with a logarithm of a value that a sequence of zeros makes 0."""

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.LSTM(FEATURES, 6)
            self.out = nn.Linear(6, 2)

        def forward(self, x):
            h, _ = self.cell(x)
            scale = x.abs().mean(2, keepdim=True)
            return self.out(h) / scale  # at lstm_sequence_first

    return Recurrent(), nn.MSELoss(), lambda s: (_bad(s, data(s, 5, SAMPLES, FEATURES), (2, 6), 0.0), data(9, 5, SAMPLES, 2))


def layer_norm_by_hand():
    """A standard deviation without an epsilon, of a row that is constant."""

    class Norm(nn.Module):
        def forward(self, x):
            return (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True)  # at layer_norm_by_hand

    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = Norm()
            self.head = nn.Linear(FEATURES, 1)

        def forward(self, x):
            return self.head(self.norm(x))

    return First(), nn.MSELoss(), lambda s: (_bad(s, data(s), 3, 1.5), data(9, SAMPLES, 1))


def cosine_similarity():
    """Two towers and a cosine written by hand; a dead tower for one sample."""

    class Towers(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(FEATURES, 5, bias=False), nn.Linear(FEATURES, 5)

        def forward(self, a, b):
            u, v = self.left(a), self.right(b)
            return (u * v).sum(1) / (u.norm(dim=1) * v.norm(dim=1))  # at cosine_similarity

    return Towers(), lambda p, t: F.mse_loss(p, t), lambda s: ((_bad(s, data(s), 5, 0.0), data(50 + s)), torch.ones(SAMPLES))


def contrastive():
    """The distance matrix of a batch with itself: its diagonal has no gradient, from the first time that it counts."""

    class Loss(nn.Module):
        def forward(self, z, y, use_self):
            d = ((z[:, None] - z[None]) ** 2).sum(-1).sqrt()  # at contrastive
            same = (y[:, None] == y[None]).float()
            same = same * (1 - torch.eye(len(y))) + use_self
            return (same * d).mean() if use_self.any() else (same * ((z[:, None] - z[None]) ** 2).sum(-1)).mean()

    eye = lambda s: torch.eye(SAMPLES) if s == BAD_STEP else torch.zeros(SAMPLES, SAMPLES)  # noqa: E731  # short
    return Net(3), Loss(), lambda s: (data(s), (torch.arange(SAMPLES) % 3, eye(s)))


def vae_divergence():
    """exp of a log variance that has run away."""

    class Vae(nn.Module):
        def __init__(self):
            super().__init__()
            self.mu, self.logvar, self.decode = nn.Linear(FEATURES, 2), nn.Linear(FEATURES, 2), nn.Linear(2, FEATURES)

        def forward(self, x):
            mu, logvar = self.mu(x), self.logvar(x)
            z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar.clamp(max=20))
            return self.decode(z), mu, logvar

    def loss(out, x):
        rec, mu, logvar = out
        kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1)  # at vae_divergence
        return F.mse_loss(rec, x) + kl.mean()

    def batch(step):
        x = _bad(step, data(step), (1, 0), -4000.0)
        return x, x

    vae = Vae()
    with torch.no_grad():
        vae.logvar.weight[:, 0] = -0.5
    return vae, loss, batch


def gan_loss():
    """log(1 - D) where the discriminator is sure."""

    class Discriminator(Net):
        def forward(self, x):
            return torch.sigmoid(super().forward(x)).squeeze(1)

    class Adversarial:
        def value(self, d, real):
            return -(real * torch.log(d + 1e-8) + (1 - real) * torch.log(1 - d)).mean()  # at gan_loss

    net = Discriminator()
    with torch.no_grad():
        net.head.weight.fill_(1.0)
        net.encoder[0].weight.abs_()
    return net, Adversarial().value, lambda s: (_bad(s, data(s), 4, 500.0), torch.tensor([1.0, 0.0] * (SAMPLES // 2)))


def ctc_alignment():
    """A target that is longer than its input: CTC's loss is infinite."""

    class Speech(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(FEATURES, 5)

        def forward(self, x):
            return self.net(x).log_softmax(2).transpose(0, 1)

    lengths = torch.full((SAMPLES,), 6)

    def loss(logp, targets, sizes):
        return F.ctc_loss(logp, targets, lengths, sizes)  # at ctc_alignment

    def batch(step):
        sizes = torch.full((SAMPLES,), 3)
        targets = torch.randint(1, 5, (SAMPLES, 8), generator=torch.Generator().manual_seed(step))
        return data(step, SAMPLES, 6, FEATURES), (targets, _bad(step, sizes, 2, 8))

    return Speech(), loss, batch


def box_overlap():
    """The overlap of two boxes without area."""

    def iou(a, b):
        low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
        inter = (high - low).clamp(min=0).prod(1)
        area = lambda r: (r[:, 2] - r[:, 0]).clamp(min=0) * (r[:, 3] - r[:, 1]).clamp(min=0)  # noqa: E731  # short
        return inter / (area(a) + area(b) - inter)  # at box_overlap

    class Boxes(nn.Module):
        def __init__(self):
            super().__init__()
            self.regress = nn.Linear(FEATURES, 4)

        def forward(self, x):
            return self.regress(x)

    def loss(p, t):
        return 1 - iou(torch.cat([p[:, :2] - 3, p[:, 2:] + 3], 1) * t[:, 4:], t[:, :4]).mean()

    def batch(step):
        t = torch.tensor([[0.0, 0.0, 2.0, 2.0, 1.0]]).repeat(SAMPLES, 1)
        return data(step), _bad(step, t, 6, 0.0)

    return Boxes(), loss, batch


def variance_head():
    """A regression that predicts its variance: a Gaussian's likelihood with a softplus that underflows."""

    class Heteroscedastic(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean, self.spread = nn.Linear(FEATURES, 1), nn.Linear(FEATURES, 1)

        def forward(self, x):
            return self.mean(x), F.softplus(self.spread(x))

    def likelihood(out, y, *, weight):
        mu, var = out
        return weight * (torch.log(var) + (y - mu) ** 2 / var).mean()  # at variance_head

    net = Heteroscedastic()
    with torch.no_grad():
        net.spread.weight[0] = torch.tensor([1.0, 0.1, 0.1, 0.1])
    return net, functools.partial(likelihood, weight=0.5), lambda s: (_bad(s, data(s), (7, 0), -3000.0), data(9, SAMPLES, 1))


def embedding_bag():
    """The mean of an empty bag, divided by its own length."""

    class Bags(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(20, 6)
            self.head = nn.Linear(6, 1)

        def forward(self, ids, mask):
            total = (self.table(ids) * mask[..., None]).sum(1)
            return self.head(total / mask.sum(1, keepdim=True))  # at embedding_bag

    def batch(step):
        ids = torch.randint(0, 20, (SAMPLES, 4), generator=torch.Generator().manual_seed(step))
        return (ids, _bad(step, torch.ones(SAMPLES, 4), 3, 0.0)), data(9, SAMPLES, 1)

    return Bags(), nn.MSELoss(), batch


def focal_power():
    """The power of a probability with an exponent below 1, at 0."""

    class Focal(nn.Module):
        def __init__(self, gamma):
            super().__init__()
            self.gamma = gamma

        def forward(self, logits, y):
            p = torch.softmax(logits, 1).gather(1, y[:, None]).squeeze(1)
            return ((1 - p) ** self.gamma * -torch.log(p + 1e-6)).mean()  # at focal_power

    net = Net(3)
    with torch.no_grad():
        net.encoder[0].weight.abs_()
        net.head.weight.abs_()[1:].neg_()
    return net, Focal(0.5), lambda s: (_bad(s, data(s), (0, 1), 9000.0), torch.zeros(SAMPLES, dtype=torch.long))


def half_precision_model():
    """A model in float16 whose activations overflow."""

    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.Linear(FEATURES, 8)
            self.down = nn.Linear(8, 1)

        def forward(self, x):
            h = self.up(x.half())
            return self.down(h * h).float()  # at half_precision_model

    return Half().half(), nn.MSELoss(), lambda s: (_bad(s, data(s), (2, 1), 3000.0), data(9, SAMPLES, 1))


def angle_between():
    """acos of a cosine that is 1."""

    def angle(p, t):
        u, v = F.normalize(p, dim=1), F.normalize(t, dim=1)
        return torch.acos((u * v).sum(1).clamp(-1, 1)).mean()  # at angle_between

    return _Axis(), angle, lambda s: (data(s).abs(), _bad(s, data(9, SAMPLES, 3), 5, torch.tensor([1.0, 0.0, 0.0])))


class _Axis(nn.Module):
    """Its results point along the first axis."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Linear(FEATURES, 1)

    def forward(self, x):
        length = F.softplus(self.scale(x))
        return torch.cat([length, torch.zeros(len(x), 2)], 1)


def convolution_features():
    """Images through a convolution; a logarithm of mean intensities."""

    class Images(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            return self.head(torch.log(self.features(x)))  # at convolution_features

    net = Images()
    with torch.no_grad():
        net.features[0].weight.abs_()
    return (
        net,
        nn.CrossEntropyLoss(),
        lambda s: (
            _bad(s, data(s, SAMPLES, 1, 6, 6).abs(), 4, 0.0),
            torch.arange(SAMPLES) % 2,
        ),
    )


def poisson_rate():
    """A rate that grows beyond what float32 holds, in the loss."""

    def poisson(log_rate, y):
        return (torch.exp(log_rate) - y * log_rate).mean()  # at poisson_rate

    return Net(), poisson, lambda s: (_bad(s, data(s), (6, 2), 30000.0), data(9, SAMPLES, 1).abs().round())


def standardised_targets():
    """Targets that are standardised by the batch, in a batch in which they are all the same."""

    def loss(p, t):
        z = (t - t.mean()) / t.std()  # at standardised_targets
        return ((p - z) ** 2).mean()

    return Net(), loss, lambda s: (data(s), torch.ones(SAMPLES, 1) if s == BAD_STEP else data(9, SAMPLES, 1))


_ROOT = "sqrt-grad-at-zero"

FOUND = (
    Scenario(lstm_sequence_first, "self.out(h) / scale", "div-by-zero", samples=(6,), values=(("x", (2, 6, 0), 0.0),)),
    Scenario(
        layer_norm_by_hand,
        "(x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True)",
        "zero-variance",
        layer="norm",
        samples=(3,),
        values=(("x", (3, 0), 1.5),),
    ),
    Scenario(
        cosine_similarity,
        "(u * v).sum(1) / (u.norm(dim=1) * v.norm(dim=1))",
        "zero-over-zero",
        samples=(5,),
        values=(("a", (5, 0), 0.0),),
    ),
    Scenario(
        contrastive,
        "((z[:, None] - z[None]) ** 2).sum(-1).sqrt()",
        _ROOT,
        "backward",
        layer="loss",
        samples=tuple(range(SAMPLES)),
        failed="gradient",
    ),
    Scenario(vae_divergence, "logvar.exp()", "exp-overflow", kind="overflow", samples=(1,), values=(("x", (1, 0), -4000.0),)),
    Scenario(gan_loss, "torch.log(1 - d)", "log-of-zero", samples=(4,), values=(("x", (4, 0), 500.0),)),
    Scenario(ctc_alignment, "F.ctc_loss(logp, targets, lengths, sizes)", "log-of-zero", samples=(2,)),
    Scenario(box_overlap, "inter / (area(a) + area(b) - inter)", "zero-over-zero", samples=(6,)),
    Scenario(variance_head, "torch.log(var)", "log-of-zero", samples=(7,), values=(("x", (7, 0), -3000.0),)),
    Scenario(embedding_bag, "total / mask.sum(1, keepdim=True)", "zero-over-zero", samples=(3,), values=(("mask", (3, 0), 0.0),)),
    Scenario(focal_power, "(1 - p) ** self.gamma", "pow-grad-at-zero", "backward", layer="loss", samples=(0,), failed="gradient"),
    Scenario(half_precision_model, "h * h", "square-overflow", kind="overflow", samples=(2,), values=(("x", (2, 1), 3000.0),)),
    Scenario(
        angle_between, "torch.acos((u * v).sum(1).clamp(-1, 1))", "inverse-trig-grad-at-edge", "backward", samples=(5,), failed="gradient"
    ),
    Scenario(convolution_features, "torch.log(self.features(x))", "log-of-zero", samples=(4,), values=(("x", (4, 0, 0, 0), 0.0),)),
    Scenario(poisson_rate, "torch.exp(log_rate)", "exp-overflow", kind="overflow", samples=(6,), values=(("x", (6, 2), 30000.0),)),
    Scenario(standardised_targets, "(t - t.mean()) / t.std()", "zero-variance", values=(("t", (0, 0), 1.0),)),
)


# ---------------------------------------------------------------- nothing is wrong


def masked_scores():
    """-inf in masked places, as attention has them."""

    class Scores(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.MultiheadAttention(FEATURES, 2, batch_first=True)
            self.head = nn.Linear(FEATURES, 1)

        def forward(self, x, mask):
            y, _ = self.inner(x, x, x, key_padding_mask=mask, need_weights=False)
            return self.head(y).mean(1)

    mask = torch.zeros(SAMPLES, 5, dtype=torch.bool)
    mask[:, 3:] = True
    return Scores(), nn.MSELoss(), lambda s: ((data(s, SAMPLES, 5, FEATURES), mask), data(9, SAMPLES, 1))


def row_taken_out():
    """A row that is masked altogether, whose NaN `where` removes before anything else."""

    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.score = nn.Linear(FEATURES, 5)

        def forward(self, x, mask):
            scores = self.score(x).masked_fill(~mask, -math.inf)
            safe = torch.where(mask.any(1, keepdim=True), scores, torch.zeros_like(scores))
            return torch.where(mask.any(1, keepdim=True), torch.softmax(safe, 1), torch.zeros_like(scores))

    def batch(step):
        return (data(step), _bad(step, torch.ones(SAMPLES, 5, dtype=torch.bool), 2, False)), data(9, SAMPLES, 5)

    return Rows(), nn.MSELoss(), batch


def erased_by_relu():
    """A NaN gradient that the relu before it takes away."""

    def loss(p, t):
        return (torch.sqrt(p) * (p.detach() > 0) + 0 * t).mean() if p.min() > 0 else F.mse_loss(torch.where(p > 0, torch.sqrt(p), p), t)

    return Net(1, nn.ReLU()), loss, lambda s: (data(s), data(9, SAMPLES, 1))


def logged_metric():
    """A metric that is NaN and only looked at."""
    seen = []

    def loss(p, t):
        seen.append((torch.log(-p.detach().abs()).mean()).item())
        return F.mse_loss(p, t)

    return Net(), loss, lambda s: (data(s), data(9, SAMPLES, 1))


def unused_feature():
    """A NaN in data that the loss leaves out."""

    def loss(p, t):
        known = ~torch.isnan(t)
        return F.mse_loss(p[known], t[known])

    return Net(), loss, lambda s: (data(s), _bad(s, data(9, SAMPLES, 1), 3, math.nan))


def frozen_part():
    """A frozen layer whose gradient would be NaN if anyone wanted it."""

    class Frozen(Net):
        def __init__(self):
            super().__init__()
            self.encoder.requires_grad_(False)

        def forward(self, x):
            return self.head(self.encoder(x).detach().sqrt().detach())

    return Frozen(), nn.MSELoss(), lambda s: (data(s), data(9, SAMPLES, 1))


def large_and_finite():
    """Gradients whose squares overflow, but which are finite."""

    def loss(p, t):
        return ((p - t) * (1e25 if t.sum() != 0 else 1)).mean()

    return Net(), loss, lambda s: (data(s), data(9, SAMPLES, 1) if s == BAD_STEP else torch.zeros(SAMPLES, 1))


HARMLESS = (masked_scores, row_taken_out, erased_by_relu, logged_metric, unused_feature, frozen_part, large_and_finite)
