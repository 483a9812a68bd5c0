"""The training steps that are timed, the same in each framework: a small MLP, a CNN with batch norm, a transformer."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class Attentive(nn.Module):
    """A transformer encoder over token embeddings, with a linear head on the mean."""

    def __init__(self, vocabulary: int = 500, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores of token sequences of shape (batch, length)."""
        return self.head(self.encoder(self.embedding(x)).mean(1))


def mlp() -> tuple[nn.Module, torch.Tensor]:
    """Three linear layers, 26,000 parameters, and a batch: about 0.7 ms a step on one core."""
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)), torch.randn(64, 64)


def cnn() -> tuple[nn.Module, torch.Tensor]:
    """Five convolutions with batch norm on images of 16 x 16."""
    layers: list[nn.Module] = []
    channels = 3
    for out in (16, 32, 32, 64, 64):
        layers += [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
        channels = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)), torch.randn(16, 3, 16, 16)


def transformer() -> tuple[nn.Module, torch.Tensor]:
    """Two encoder layers of width 64 on 16 sequences of 32 tokens."""
    return Attentive(), torch.randint(0, 500, (16, 32))


MODELS = {"MLP": mlp, "CNN": cnn, "transformer": transformer}


def torch_step(made: tuple[nn.Module, torch.Tensor]) -> tuple[nn.Module, nn.Module, Any, Callable[[], None], tuple[Any, Any]]:
    """Model, criterion, optimizer, a function that makes one training step, and the batch."""
    model, x = made
    y = torch.randint(0, 10, (len(x),))
    criterion, optimizer = nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()

    return model, criterion, optimizer, step, (x, y)
