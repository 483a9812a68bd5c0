"""What the incidents of `incidents.py` and the bundles of `test_bundle_replay.py` are about."""

import torch


def bce(p, t):
    return -(t * torch.log(p)).mean()


class Net(torch.nn.Module):
    """A batch norm, a dropout and a submodule in evaluation mode: state that a replay must restore."""

    def __init__(self, width=8):
        super().__init__()
        self.body = torch.nn.Linear(4, width)
        self.norm = torch.nn.BatchNorm1d(width)
        self.drop = torch.nn.Dropout(0.5)
        self.frozen = torch.nn.Dropout(0.9).eval()
        self.head = torch.nn.Linear(width, 1)

    def forward(self, x):
        return self.head(self.frozen(self.drop(torch.relu(self.norm(self.body(x["rows"])))))) * x["weights"][0]


class Sqrt(torch.nn.Module):
    """A loss with a plain attribute and a buffer."""

    def __init__(self):
        super().__init__()
        self.power = 1
        self.register_buffer("shift", torch.zeros(()))

    def forward(self, p, t):
        return torch.sqrt((p - t).abs() ** self.power + self.shift).mean()


class Wide(torch.nn.Module):
    """A model that only its arguments can make."""

    def __init__(self, width):
        super().__init__()
        self.layer = torch.nn.Linear(4, width)

    def forward(self, x):
        return self.layer(x)
