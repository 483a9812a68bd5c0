"""Domains beside the code: decorator and pyproject tables."""

import numpy as np
import pytest

import whynan
from whynan.domain.declare import as_domain, declared_by, from_table, project_domains
from whynan.errors import DomainError


def test_the_decorator_marks_and_returns_the_loss():
    def loss(p, t):
        return p + t

    marked = whynan.domains(p=whynan.prob(8), t="binary(8)")(loss)
    assert marked is loss
    assert {name: d.kind for name, d in declared_by(loss).items()} == {"p": "prob", "t": "binary"}
    whynan.domains(p=whynan.logit(8))(loss)
    assert {name: d.kind for name, d in declared_by(loss).items()} == {"p": "logit", "t": "binary"}


def test_the_decorator_marks_classes_and_their_instances():
    @whynan.domains(x="real(3)")
    class Loss:
        def __call__(self, x):
            return x

    assert declared_by(Loss())["x"].shape == (3,)
    assert declared_by(len) == {}


def test_arrays_stand_for_themselves():
    assert as_domain("p", np.array([0.2, 0.7], np.float32)).kind == "prob"


def test_a_bad_domain_names_its_argument():
    with pytest.raises(DomainError, match=r"^p: there is no domain 'porb'"):
        whynan.domains(p="porb(8)")


def test_tables():
    table = {"p": "prob(8)", "t": [0.0, 1.0], "losses.py:focal": {"t": "binary(8)"}}
    assert {n: d.kind for n, d in from_table(table).items()} == {"p": "prob", "t": "const"}
    assert {n: d.kind for n, d in from_table(table, "losses.py:focal").items()} == {"p": "prob", "t": "binary"}
    with pytest.raises(DomainError, match="is not a table"):
        from_table("prob(8)")


def test_the_nearest_pyproject_counts(tmp_path):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert project_domains(inner) == {} or "p" not in project_domains(inner)
    (tmp_path / "pyproject.toml").write_text('[tool.whynan.domains]\np = "prob(8, 1)"\n')
    assert str(project_domains(inner)["p"]) == "prob(8, 1)"
    (tmp_path / "a" / "pyproject.toml").write_text("[project]\n")
    assert project_domains(inner) == {}
    (tmp_path / "a" / "pyproject.toml").write_text("[tool.whynan.domains\n")
    with pytest.raises(DomainError, match="cannot be read"):
        project_domains(inner)
