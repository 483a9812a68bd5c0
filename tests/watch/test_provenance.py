"""Labels of samples and elements through a recorded step: what is computed from one sample keeps its label, what from several is mixed."""

import numpy as np
import pytest
import torch

from whynan.analysis.scene import Scene
from whynan.frontends.torch.live import record
from whynan.watching.provenance import MIXED, NONE, element_labels, joined, labelled, sample_labels, together
from whynan.watching.smallest import smallest
from whynan.watching.torch.samples import layout, picked

W = torch.linspace(-1, 1, 12).reshape(3, 4)


def labels_of(f, x, of=sample_labels, axis=0):
    """The labels of a function's result."""
    scene = Scene(record(lambda: [f(x)], {"x": x, "w": W}, {}, {}).trace)
    result = f(x).numpy()
    same = [n.id for n in scene.graph.nodes if n.shape == result.shape and np.array_equal(scene.value(n.id), result.astype(np.float64))]
    node = same[-1]  # the loss is the sum of its elements
    array = x.numpy()
    start = of(array, axis) if of is sample_labels else of(array)
    return labelled(scene, {scene.graph.inputs["x"]: start}, [node])[node]


def influence(f, x):
    """By which samples each element of the result is influenced: a brute-force answer."""
    base, found = f(x), []
    for i in range(len(x)):
        other = x.clone()
        other[i] = other[i] * 1.7 + 0.3
        found.append((f(other) != base).numpy())
    return np.stack(found)


PER_SAMPLE = {
    "matmul": lambda x: x @ W,
    "softmax": lambda x: torch.softmax(x, 1),
    "norm": lambda x: (x**2).sum(1, keepdim=True).sqrt() + W.sum(),
    "transposed": lambda x: (x @ W).t().contiguous(),
    "cat": lambda x: torch.cat([x, x * 2, torch.zeros(5, 1)], 1),
    "cumsum": lambda x: x.cumsum(1),
    "pairs": lambda x: (x[:, :, None] * x[:, None, :]).reshape(5, 9),
    "sorted": lambda x: x.sort(1).values,
    "layer norm": lambda x: torch.nn.functional.layer_norm(x, (3,)),
    "padded": lambda x: torch.nn.functional.pad(x, (1, 1)),
    "embedding": lambda x: W.t()[(x > 0).long().sum(1)],
    "convolution": lambda x: torch.nn.functional.conv1d(x[:, None], torch.ones(2, 1, 2)),
    "reversed": lambda x: x.flip(0),
}


@pytest.mark.parametrize("name", PER_SAMPLE)
def test_what_is_of_one_sample_keeps_its_label(name):
    f, x = PER_SAMPLE[name], torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    labels = labels_of(f, x)
    seen = influence(f, x)
    assert labels.shape == seen.shape[1:]
    for index in np.ndindex(labels.shape):
        samples = set(np.flatnonzero(seen[(slice(None), *index)]) + 1)
        assert labels[index] not in (MIXED,)
        assert samples <= {labels[index]}


def test_what_is_of_several_is_mixed():
    x = torch.randn(5, 3)
    assert (labels_of(lambda x: x - x.mean(0), x) == MIXED).all()
    assert (labels_of(lambda x: x.t() @ x, x) == MIXED).all()
    assert (labels_of(lambda x: W.sum() + x.sum() * 0, x) == MIXED).all()


def test_elements_keep_theirs():
    x = torch.randn(2, 3)
    assert labels_of(lambda x: x.t().exp(), x, element_labels).tolist() == [[1, 4], [2, 5], [3, 6]]


def test_the_rules_of_joining():
    a, b = np.array([NONE, 1, 2, MIXED]), np.array([3, 1, 3, 2.0])
    assert together([a, b]).tolist() == [3, 1, MIXED, MIXED]
    assert joined(np.array([[NONE, 2.0, 2.0], [1.0, 2.0, NONE]]), (1,)).tolist() == [[2], [MIXED]]


def test_the_axis_of_the_samples():
    x, y = torch.zeros(5, 8, 4), torch.zeros(8)
    assert layout({"x": x, "y": y}).axes == {"x": 1, "y": 0}
    assert layout({"x": x, "y": torch.zeros(5, 8)}).axes == {"x": 0, "y": 0}
    assert layout({"x": x, "y": torch.zeros(5, 8)}, second=True).axes == {"x": 1, "y": 1}
    assert layout({"x": torch.zeros(8, 3), "w": torch.zeros(3)}).axes == {"x": 0}
    assert layout({"scale": torch.tensor(1.0)}).size == 0
    assert picked(x, 1, [2, 7]).shape == (5, 2, 4)


def test_where_everybody_fails_nobody_is_to_blame():
    assert smallest(8, lambda pick: True) == ()
    assert smallest(8, lambda pick: 3 in pick) == (3,)
    assert smallest(8, lambda pick: {2, 6} <= set(pick)) == (2, 6)
    assert smallest(8, lambda pick: True, suspects=[4]) == (4,)
    assert smallest(8, lambda pick: True if 3 not in pick else None) == (), "of what cannot run alone nothing is known"
