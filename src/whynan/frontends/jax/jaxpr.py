"""What the traced loss (its jaxpr) tells and the compiled program does not: exact spans, handwritten derivatives, epsilons."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from whynan.frontends.hlo.parse import Frame
from whynan.frontends.jax.arrays import format_of
from whynan.frontends.jax.inside import HOME
from whynan.frontends.jax.places import frames_of, plain, site_of
from whynan.frontends.source import USER, kind_of
from whynan.frontends.written import written_number
from whynan.ir.graph import SMALL, Addend
from whynan.ir.where import Site

_Starts = tuple[tuple[str, int, int], ...]  # of each frame, innermost first: file, line, column

# the derivatives of these are too plain to be looked for where another expression starts at the same place
_LINEAR = frozenset({"add", "sub", "neg", "convert_element_type", "broadcast_in_dim", "reshape", "squeeze", "transpose", "copy"})

# what a number remains itself under
_SPREADING = frozenset({"broadcast_in_dim", "convert_element_type", "reshape", "squeeze", "copy"})

_CUSTOM_GRADIENT = "jax/_src/custom_derivatives.py"


@dataclass(frozen=True, slots=True, eq=False)
class Traced:
    """A traced loss: for each stack of starts the expressions that start there, each with the op or function it calls.

    `empty` are the expressions that add up no elements at all.
    """

    spans: Mapping[_Starts, Sequence[tuple[str, tuple[Frame, ...]]]]
    handwritten: tuple[Site, ...] = ()
    added: tuple[Addend, ...] = ()
    empty: tuple[Site, ...] = ()

    def exact(self, frames: tuple[Frame, ...], name: str) -> tuple[Frame, ...]:
        """The frames of an instruction with their true ends.

        XLA keeps one frame for all expressions that start at the same place, `a` and `a + b`; the instruction's name tells them apart.
        """
        starts = _starts(frames)
        found = self.spans.get(starts) or [(label, (*own, *frames[1:])) for label, own in self.spans.get(starts[:1], ())]
        for scope in plain(name).split("/")[1:]:
            for label, own in found:
                if label == scope:
                    return own
        return next((own for label, own in found if label not in _LINEAR), frames)


def traced(loss: Callable[..., Any], arrays: Sequence[Any]) -> Traced:
    """The loss traced on arrays of these shapes; of one that cannot be traced without values nothing is known."""
    try:
        jaxpr = jax.make_jaxpr(loss)(*arrays)
    except Exception:
        return Traced({})
    return traced_in(jaxpr)


def traced_in(jaxpr: Any) -> Traced:
    """What the equations of a jaxpr tell."""
    spans: dict[_Starts, list[tuple[str, tuple[Frame, ...]]]] = {}
    written: dict[Site, None] = {}
    added: dict[Addend, None] = {}
    empty: dict[Site, None] = {}
    for equation, frames, values in _equations(jaxpr, (), {}):
        shown = tuple(f for f in frames if not f.file.startswith(HOME))
        for known in {shown, shown[:1]}:  # by the innermost frame alone too: a recomputed or transposed part is reached another way
            spans.setdefault(_starts(known), []).append((_label(equation), known))
        site = site_of(frames)
        if site is not None and _is_users(equation, site):
            written[site] = None
        if equation.primitive.name in ("add", "sub", "max"):
            added |= dict.fromkeys(_addends(equation, values, site_of(frames)))
        if equation.primitive.name == "reduce_sum" and not equation.invars[0].aval.size and (site := site_of(frames)) is not None:
            empty[site] = None
    return Traced(spans, tuple(written), tuple(added), tuple(empty))


def _addends(equation: Any, values: Sequence[float | None], site: Site | None) -> Iterator[Addend]:
    """The small constants that an equation adds, as the source has them: a zero may be what rounding has left of one."""
    fmt = format_of(equation.outvars[0].aval.dtype)
    if fmt is None or not fmt.is_float:
        return
    for value in values:
        if value is not None and abs(value) <= SMALL:
            written = written_number(site.text, np.asarray(value), fmt) if site is not None else None
            number = abs(value if written is None else written)
            if number:
                yield Addend(number, site, fmt)


def _equations(
    closed: Any, around: tuple[Frame, ...], known: Mapping[Any, float]
) -> Iterator[tuple[Any, tuple[Frame, ...], list[float | None]]]:
    """All equations, each with its frames and with the numbers among its operands.

    One inside a jitted function that has no frames stands where that is called. `known` are the variables that are plain numbers.
    """
    jaxpr = _open(closed)
    held = zip(jaxpr.constvars, map(_number, getattr(closed, "consts", ())), strict=False)
    numbers = {**known, **{v: number for v, number in held if number is not None}}
    for equation in jaxpr.eqns:
        frames = frames_of(equation.source_info.traceback) or around
        values = [_number(v.val) if hasattr(v, "val") else numbers.get(v) for v in equation.invars]
        yield equation, frames, values
        if equation.primitive.name in _SPREADING and values[0] is not None:
            numbers[equation.outvars[0]] = values[0]
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
            if hasattr(inner, "eqns"):
                own = _open(inner).invars
                given = {v: n for v, n in zip(own, values, strict=False) if n is not None} if len(own) == len(values) else {}
                yield from _equations(inner, frames, given)


def _open(jaxpr: Any) -> Any:
    """The equations and variables of a jaxpr that may come with the values of its constants."""
    return getattr(jaxpr, "jaxpr", jaxpr)


def _number(value: Any) -> float | None:
    real = isinstance(value, (float, int, np.ndarray, np.generic, jax.Array)) and not np.iscomplexobj(value)
    return float(value) if real and np.ndim(value) == 0 else None


def _starts(frames: Sequence[Frame]) -> _Starts:
    return tuple((f.file, f.line, f.column) for f in frames)


def _label(equation: Any) -> str:
    """How an op's name shows the equation: the primitive, or the jitted function that it calls."""
    name = equation.params.get("name")
    return f"jit({name}" if name and "jaxpr" in equation.params else str(equation.primitive.name)


def _is_users(equation: Any, site: Site) -> bool:
    """Whether a call at that site is of a function with a derivative of the user's own; many functions of JAX's have one too."""
    if equation.primitive.name not in ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"):
        return False
    called = equation.params.get("call_jaxpr") or equation.params["fun_jaxpr"]
    where = called.jaxpr.debug_info.func_src_info or ""  # "relu at FILE:71"
    file = where.rpartition(" at ")[2].rpartition(":")[0]
    if not file.endswith(_CUSTOM_GRADIENT):
        return kind_of(file) == USER
    # jax.custom_gradient puts a function of its own around the user's, where another expression than the call is computed
    return any(site_of(frames_of(e.source_info.traceback)) not in (None, site) for e in called.jaxpr.eqns)
