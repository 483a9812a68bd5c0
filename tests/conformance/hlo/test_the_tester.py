"""Wrong lowerings are caught: what compares graphs with programs would notice."""

from collections.abc import Callable

import numpy as np
import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
from tests.conformance.hlo._compiled import compiled, outside  # noqa: E402
from tests.conformance.hlo.test_opcodes_match_xla import CASES, Case, check  # noqa: E402

from whynan.domain.interval import of_array  # noqa: E402
from whynan.frontends.hlo.lower import OPCODES, Op, Operand  # noqa: E402
from whynan.frontends.kit import Value, apply  # noqa: E402


def _swapped(op: Op) -> Value:
    return apply("sub", op[1], op[0])


def _without_axis(op: Op) -> Value:
    return op[0].reshape(*op.shape)


def _never_infinite(op: Op) -> Value:
    return apply("minimum", apply("exp", op[0]), 1e30)


def _no_start(op: Op) -> Operand:
    return op.operands[0]


def _no_contraction(op: Op) -> Value:
    return apply("add", op[0], op[1])


PLANTED: list[tuple[str, str, Callable[[Op], Operand]]] = [
    ("subtract", "sub", _swapped),
    ("transpose", "transpose", _without_axis),
    ("exponential", "exp", _never_infinite),
    ("dynamic-update-slice", "dynamic update", _no_start),
]


def case(name: str) -> Case:
    return next(c for c in CASES if c.name == name)


@pytest.mark.parametrize(("opcode", "name", "wrong"), PLANTED)
def test_a_wrong_lowering_is_found(monkeypatch: pytest.MonkeyPatch, opcode: str, name: str, wrong: Callable[[Op], Operand]) -> None:
    monkeypatch.setitem(OPCODES, opcode, wrong)
    program = compiled(case(name).function, *case(name).arguments(0, "float32"))
    with pytest.raises(AssertionError):
        check(case(name), program, "float32", 3)


def test_bounds_without_contraction_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """a * a - round(a * a) is 0 in two roundings, and not in one."""
    a = (1 + np.arange(1, 25) * 2.0**-12).astype(np.float32)
    arguments = [a, -(a * a)]
    sound = compiled(lambda a, b: a * a + b, *arguments)
    monkeypatch.setitem(OPCODES, "add", _no_contraction)
    unsound = compiled(lambda a, b: a * a + b, *arguments)
    points = [of_array(x) for x in arguments]
    (real,) = sound.real(arguments)
    assert (real != 0).any()
    assert not outside(sound.bounds(points)[0], real).any()
    assert outside(unsound.bounds(points)[0], real).any()


def test_jax_gives_this_text() -> None:
    """What the lowerings rest on: JAX's own text names the opcodes that are lowered."""
    text = compiled(lambda x: jnp.sum(jnp.log(x)), np.ones((3, 4), np.float32)).text
    assert " log(" in text
    assert " reduce(" in text
