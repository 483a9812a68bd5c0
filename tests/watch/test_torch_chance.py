"""Whether watched or not, a run draws the same random numbers, also Python's and NumPy's."""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

import whynan


class Forcing(nn.Module):
    """A model that draws numbers of its own in its forward."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x):
        return self.layer(x) * (1 + random.random()) * (1 + np.random.rand())


def test_an_incident_draws_no_numbers_from_python_or_numpy():
    random.seed(1)
    np.random.seed(1)
    model = Forcing()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with whynan.watch(model, optimizer=optimizer, policy="skip", folder=None) as watch:
        model(torch.full((2, 3), torch.nan)).mean().backward()
        before = random.getstate(), np.random.get_state()[1:3]
        optimizer.step()
        assert len(watch.incidents) == 1
    assert random.getstate() == before[0]
    now = np.random.get_state()[1:3]
    assert now[1] == before[1][1] and (now[0] == before[1][0]).all()


def test_the_first_use_of_watch_draws_no_numbers():
    program = (
        "import random, torch, whynan; random.seed(0); before = random.getstate(); m = torch.nn.Linear(2, 1)\n"
        "whynan.watch(m, optimizer=torch.optim.SGD(m.parameters(), 0.1), folder=None); assert random.getstate() == before"
    )
    source = str(Path(whynan.__file__).parents[1])
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120, env={**os.environ, "PYTHONPATH": source})
