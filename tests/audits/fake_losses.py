"""A package of losses for audits: one that is safe, one that fails, one that hangs, one that kills its process, and what is no loss."""

import os
import time

import torch

VERSION = "1.0"


def squared_loss(p, t):
    return ((p - t) ** 2).mean()


def log_loss(p, t):
    return -(t * torch.log(p)).mean()


def sleeping_loss(p, t):
    time.sleep(600)
    return (p - t).sum()


def deadly_loss(p, t):
    print("what a loss prints goes nowhere")
    os._exit(3)


def refused_loss(p, t):
    raise ValueError("it takes no inputs at all")


class ScaledLoss(torch.nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, p, t):
        return self.scale * squared_loss(p, t)


class BrokenLoss(torch.nn.Module):
    def __init__(self):
        super().__init__()
        raise RuntimeError("this loss can never be made")

    def forward(self, p, t):
        return p


scaled = ScaledLoss  # another name for the same class


def learning_rate(step):
    return 0.1 / (1 + step)


def _hidden_loss(p, t):
    return p - t
