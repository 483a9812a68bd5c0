"""Code that hangs on a few whole numbers is proven case by case."""

import pytest
import torch

import whynan
from whynan import classes, real

ROWS = real(4, 2, low=-10, high=10)


def pairs(x, labels, nothing):
    """The mean squared distance of rows with equal labels, and what `nothing` makes of it where there are none."""
    same = (labels[:, None] == labels[None]) & ~torch.eye(len(labels), dtype=torch.bool)
    i, j = torch.where(same)
    squares = ((x[i] - x[j]) ** 2).sum(-1)
    return squares.mean() if len(i) else nothing(squares)


def guarded(x, labels):
    return pairs(x, labels, lambda squares: squares.sum())


def unguarded(x, labels):
    return pairs(x, labels, lambda squares: squares.mean())


def within_classes(x, labels):
    return sum(((x[labels == c] - x[labels == c].mean(0)) ** 2).mean() for c in torch.unique(labels))


def refused(x, labels):
    if labels.sum() == 4:
        raise ValueError("one class only")
    return (x**2).mean()


@pytest.mark.parametrize("loss", [guarded, within_classes])
def test_all_labels_are_gone_through(loss):
    assert whynan.check(loss, x=ROWS, labels=classes(2, 4)).verdict == "safe"


def test_of_four_labels_of_two_classes_two_are_equal_and_of_five_classes_none_may_be():
    assert whynan.check(unguarded, x=real(3, 2, low=-10, high=10), labels=classes(2, 3)).verdict == "safe"  # pigeons and holes
    report = whynan.check(unguarded, x=real(3, 2, low=-10, high=10), labels=classes(3, 3))
    assert report.verdict == "unsafe" and report.findings[0].cause == "empty-reduction"
    assert len(set(report.findings[0].witness.inputs["labels"].tolist())) == 3


def test_a_case_in_which_the_loss_raises_is_named():
    report = whynan.check(refused, x=ROWS, labels=classes(2, 4))
    assert report.verdict == "undecided"
    assert any("for labels = [1, 1, 1, 1]" in o.reason and "one class only" in o.reason for o in report.undecided)


def test_one_case_that_fails_among_many():
    def loss(x, labels):
        return (x / (labels.float() * torch.tensor([8.0, 4.0, 2.0, 1.0])).sum().sub(5.0).abs()).sum() if labels[0] == 0 else x.sum()

    report = whynan.check(loss, x=ROWS.but(shape=(4,)), labels=classes(2, 4))
    assert report.verdict == "unsafe"
    assert report.findings[0].witness.inputs["labels"].tolist() == [0, 1, 0, 1]
