"""Losses that the reports under test talk about; the scripts under test run them."""

import torch


def bce(p, t):
    p = torch.clamp(p, 1e-8, 1 - 1e-8)
    return -(t * torch.log(p) + (1 - t) * torch.log(1 - p)).mean()


def root(y):
    return torch.where(
        y > 0,
        torch.sqrt(y),
        torch.zeros_like(y),
    ).sum()


def safe_cross_entropy(z, target):
    return -(torch.log_softmax(z, dim=-1) * target).sum(-1).mean()


def spline_loss(x, knots):
    weights = torch.ops.acme.spline(x, knots)
    return weights.square().mean()


def inverse_distance(a, b):
    return (1 / ((a - b).square().sum(-1) + 1e-12)).mean()


class Scaled(torch.nn.Module):
    def __init__(self, gamma=1.0):
        super().__init__()
        self.gamma = gamma
        self.scale = torch.nn.Parameter(torch.ones(2))

    def forward(self, x):
        return (torch.log(x) * self.scale).mean() ** self.gamma


def total(*values, **named):
    return sum(v.double().sum() for v in [*values, *named.values()])
