"""Losses whose source cannot be changed get a function around them, as advice, which is checked like any fix."""

import pytest

import whynan

torch = pytest.importorskip("torch")
pytest.importorskip("egglog")


def typed_in(text: str):
    space = {"torch": torch}
    exec(compile(text, "<stdin>", "exec"), space)
    return space["loss"]


def test_a_loss_without_a_file_gets_a_function_around_it() -> None:
    loss = typed_in("loss = lambda p: -torch.log(p).mean()")
    best = whynan.fix(loss, p=whynan.prob(4))[0]
    assert best.applicability == "advice" and best.evidence.verdict == "safe"
    assert "def safe_" in best.patch and "torch.finfo(p.dtype).eps" in best.patch
    space = {"loss": loss}
    exec(best.patch, space)
    assert whynan.check(space["safe_loss"], p=whynan.prob(4)).verdict == "safe"


def test_half_precision_is_widened_around_it() -> None:
    loss = typed_in("def loss(x):\n    return torch.exp(x).mean()")
    found = whynan.fix(loss, x=whynan.real(4, low=-12.0, high=12.0, dtype="float16"))
    assert [f.applicability for f in found] == ["advice"]
    assert "loss(x=x.to(torch.float32))" in found[0].patch


def test_what_no_wrapper_mends_gets_none() -> None:
    loss = typed_in("def loss(x):\n    return torch.sqrt(x - 5).mean()")
    assert whynan.fix(loss, x=whynan.real(4, low=0.0, high=1.0)) == []


def test_there_is_nothing_to_apply() -> None:
    best = whynan.fix(typed_in("loss = lambda p: -torch.log(p).mean()"), p=whynan.prob(4))[0]
    with pytest.raises(whynan.WhynanError):
        best.apply()
