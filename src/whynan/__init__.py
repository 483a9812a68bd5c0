"""whynan: proves that a loss function stays finite, or shows the input and the expression that make it NaN.

Public names are loaded when first used (PEP 562), so that `import whynan` costs next to nothing and imports no framework.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from whynan._chance import undrawn

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from whynan.analysis.finding import Finding, Witness
    from whynan.api import check, explain, fix, watch
    from whynan.audits.run import audit
    from whynan.domain.declare import domains
    from whynan.domain.spec import (
        Domain,
        binary,
        classes,
        const,
        integers,
        logit,
        mask,
        nonnegative,
        onehot,
        positive,
        prob,
        real,
        simplex,
        unit,
    )
    from whynan.errors import DomainError, FrameworkMissing, IncidentError, NonFiniteError, OpError, SampleError, TargetError, WhynanError
    from whynan.patches.change import Evidence, Fix, PatchError
    from whynan.result import Report

_HOMES = {
    "whynan.analysis.finding": ("Finding", "Witness"),
    "whynan.api": ("check", "explain", "fix", "watch"),
    "whynan.audits.run": ("audit",),
    "whynan.domain.declare": ("domains",),
    "whynan.domain.spec": (
        "Domain",
        "binary",
        "classes",
        "const",
        "integers",
        "logit",
        "mask",
        "nonnegative",
        "onehot",
        "positive",
        "prob",
        "real",
        "simplex",
        "unit",
    ),
    "whynan.errors": (
        "DomainError",
        "FrameworkMissing",
        "IncidentError",
        "NonFiniteError",
        "OpError",
        "SampleError",
        "TargetError",
        "WhynanError",
    ),
    "whynan.patches.change": ("Evidence", "Fix", "PatchError"),
    "whynan.result": ("Report",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Domain",
    "DomainError",
    "Evidence",
    "Finding",
    "Fix",
    "FrameworkMissing",
    "IncidentError",
    "NonFiniteError",
    "OpError",
    "PatchError",
    "Report",
    "SampleError",
    "TargetError",
    "WhynanError",
    "Witness",
    "__version__",
    "audit",
    "binary",
    "check",
    "classes",
    "const",
    "domains",
    "explain",
    "fix",
    "integers",
    "logit",
    "mask",
    "nonnegative",
    "onehot",
    "positive",
    "prob",
    "real",
    "simplex",
    "unit",
    "watch",
]


def __getattr__(name: str) -> Any:
    """Import the module that defines a public name and keep the value; AttributeError for any other name."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'whynan' has no attribute {name!r}")
    with undrawn():
        value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
