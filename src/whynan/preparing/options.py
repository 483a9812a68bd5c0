"""What the verbs are asked for, as the settings of an analysis."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from whynan.config import OWN, Settings
from whynan.domain.spec import dtype_name
from whynan.errors import DomainError, TargetError
from whynan.frontends import FRAMEWORKS
from whynan.ir.dtype import FLOATS


@dataclass(frozen=True, slots=True)
class Options:
    """The arguments that the verbs share, as the user gave them; None for what is left to the framework and the defaults."""

    modes: Sequence[str] | str | None = None
    dtype: Any = None
    budget: float | None = None
    seed: int = 0
    envelope: bool | str | Sequence[str] = False
    accuracy: bool = False


def settings_of(framework: str, options: Options) -> Settings:
    """The settings for a framework. Raises TargetError for a mode that it has not, DomainError for a dtype without a safe range."""
    base = Settings(
        modes=_modes(framework, options.modes),
        dtype=dtype_name(options.dtype) if options.dtype is not None else None,
        seed=options.seed,
        envelope=_envelope(options.envelope),
        accuracy=options.accuracy,
    )
    budget = options.budget
    if budget is None:
        return base
    evaluations, boxes = max(base.evaluations, int(budget * 4000)), max(base.boxes, int(budget * 100_000))
    return replace(base, budget=budget, evaluations=evaluations, boxes=boxes)


def _modes(framework: str, modes: Sequence[str] | str | None) -> tuple[str, ...]:
    facts = FRAMEWORKS[framework]
    wanted = tuple(modes.split(",")) if isinstance(modes, str) else tuple(modes or facts.default)
    wanted = facts.modes if "all" in wanted else tuple(m.strip() for m in wanted)
    for mode in wanted:
        if mode not in facts.modes:
            raise TargetError(f"{facts.product} has no mode {mode!r}.", f"Choose from {', '.join(facts.modes)}.")
    return wanted


def _envelope(envelope: bool | str | Sequence[str]) -> tuple[str, ...]:
    """The dtypes in which safe ranges are wanted, as `Settings.envelope` has them."""
    if isinstance(envelope, bool):
        return (OWN,) if envelope else ()
    names = envelope.split(",") if isinstance(envelope, str) else envelope
    wanted = [f.name for f in FLOATS] if "all" in names else [dtype_name(n.strip() if isinstance(n, str) else n) for n in names]
    strange = [n for n in wanted if n not in {f.name for f in FLOATS}]
    if strange:
        raise DomainError(f"{strange[0]} has no safe range.", f"Use all or one of {', '.join(f.name for f in FLOATS)}.")
    return tuple(dict.fromkeys(wanted))
