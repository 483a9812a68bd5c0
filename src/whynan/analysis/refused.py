"""A loss that raises instead of computing: what the framework's own message says about the cause, and what would run.

Three causes are told apart: a function that does not exist, NumPy where the framework passes symbols, and inputs outside the
range that the framework itself insists on.
"""

import difflib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from whynan.domain.names import is_target
from whynan.domain.spec import Domain

Runs = Callable[[Mapping[str, Domain]], bool]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a loss raises: the cause, a message, and the operation's or function's name if there is one."""

    cause: str
    message: str
    op: str = ""


def refusal(error: str, domains: Mapping[str, Domain], runs: Runs) -> Refusal | None:
    """The cause of an error that a loss raises on every input of its domains, None if it is none of those known here.

    `error` is the framework's line, `Kind: message`; `runs` says whether the loss runs on ordinary inputs of other domains.
    """
    return known_refusal(error) or _out_of_range(error, domains, runs)


def known_refusal(error: str) -> Refusal | None:
    """The cause, if the message alone tells: then no other input would help."""
    return _missing(error) or _symbolic(error)


# ---------------------------------------------------------------- a function that does not exist


# where each framework keeps its functions, the first ones first, and names that people bring along from elsewhere
_PLACES = {
    "torch": ("torch", "torch.nn.functional", "torch.special", "torch.linalg"),
    "tensorflow": ("tensorflow.math", "tensorflow", "tensorflow.nn", "tensorflow.linalg", "tensorflow.debugging"),
    "keras": ("keras.ops", "keras.losses", "keras.activations", "keras.backend", "keras.utils", "keras.random"),
    "jax": ("jax.numpy", "jax.nn", "jax.lax", "jax.scipy.special", "jax.numpy.linalg", "jax"),
    "optax": ("optax", "optax.losses", "jax.nn", "jax.numpy"),
    "numpy": ("numpy", "numpy.linalg"),
}
_SHORT = {"tensorflow": "tf", "jax.numpy": "jnp", "jax": "jax", "torch.nn.functional": "torch.nn.functional"}
_ALIASES = (
    ("is_nan", "isnan"),
    ("is_inf", "isinf"),
    ("is_finite", "isfinite"),
    ("clip_by_value", "clip", "clamp"),
    ("reduce_mean", "mean"),
    ("reduce_sum", "sum"),
    ("reduce_max", "amax", "max"),
    ("reduce_min", "amin", "min"),
    ("reduce_logsumexp", "logsumexp"),
    ("reduce_std", "std"),
    ("reduce_variance", "variance", "var"),
    ("log_sigmoid", "logsigmoid"),
    ("expand_dims", "unsqueeze"),
    ("concat", "concatenate", "cat"),
    ("divide_no_nan", "div_no_nan"),
    ("divide", "div", "truediv"),
    ("subtract", "sub"),
    ("multiply", "mul"),
    ("cast", "to_float", "astype", "type"),
    ("l2_normalize", "normalize"),
    ("square", "sqr"),
    ("convert_to_tensor", "as_tensor", "asarray", "tensor"),
)
_MODULE = re.compile(r"AttributeError: module '([\w.]+)' has no attribute '(\w+)'")


def _missing(error: str) -> Refusal | None:
    found = _MODULE.search(error)
    if found is None:
        return None
    module, name = _public(found[1]), found[2]
    root = "keras" if module.startswith("tensorflow.keras") else module.partition(".")[0]
    if root not in _PLACES:
        return None  # a module of the user's own
    close = _close(found[1], name, f"{_shown(module)}.")
    instead = list(dict.fromkeys((*_instead(root, name), *close)))[:3]
    advice = f"there is {' or '.join(instead)}" if instead else "nothing there has a name like it"
    return Refusal("no-such-function", f"{_shown(module)} has no {name}: {advice}.", name)


def _public(module: str) -> str:
    """The name by which users know a module: TensorFlow's and Keras' have private ones."""
    public = re.sub(r"^tensorflow\._api\.v\d|^tensorflow\.python\b", "tensorflow", module)
    public = re.sub(r"^keras\.(api\.)?_tf_keras\.keras\b", "tensorflow.keras", public)
    public = re.sub(r"^keras\.(api|src)\b", "keras", public)
    return re.sub(r"^jax\._src\b", "jax", public)


def _instead(root: str, name: str) -> Iterator[str]:
    """Functions that exist: of that name elsewhere, of one that means the same."""
    places = [p for p in _PLACES[root] if p.rpartition(".")[0] in ("", *_PLACES) or _module(p) is not None]
    meant = [name, *(other for group in _ALIASES if name in group for other in group if other != name)]
    for other in meant:
        yield from (f"{_shown(place)}.{other}" for place in places if _has(place, other))


def _close(module: str, name: str, prefix: str) -> list[str]:
    """Names in the module, by the name that Python has for it, that are spelt like the one that is not there."""
    here = _module(module)
    names = [n for n in dir(here) if not n.startswith("_")] if here is not None else []
    return [prefix + close for close in difflib.get_close_matches(name, names, 2, 0.8)]


def _has(place: str, name: str) -> bool:
    return callable(getattr(_module(place), name, None))


def _module(name: str) -> Any:
    """An object by its dotted name, if its framework is loaded: nothing is imported."""
    root, *rest = name.split(".")
    found: Any = sys.modules.get(name)
    if found is not None:
        return found
    found = sys.modules.get(root)
    for part in rest:
        found = getattr(found, part, None)
    return found if isinstance(found, ModuleType | type) else None


def _shown(module: str) -> str:
    root, dot, rest = module.partition(".")
    return _SHORT.get(module) or f"{_SHORT.get(root, root)}{dot}{rest}"


# ---------------------------------------------------------------- NumPy on a symbol


_SYMBOLIC = re.compile(
    r"Cannot convert a symbolic|TracerArrayConversionError|"
    r"Can't call numpy\(\) on Tensor that requires grad|'SymbolicTensor' object has no attribute 'numpy'|NumPy call, which is not supported"
)


def _symbolic(error: str) -> Refusal | None:
    if not _SYMBOLIC.search(error):
        return None
    return Refusal(
        "numpy-in-graph",
        "a NumPy function is called on a value of the framework's, which has no numbers for NumPy here (or a gradient that NumPy would "
        f"lose); the framework raises {_short(error)}",
        "numpy",
    )


def _short(error: str) -> str:
    text = " ".join(error.split())
    return f"{text[:157]}..." if len(text) > 160 else text if text.endswith(".") else f"{text}."


# ---------------------------------------------------------------- inputs outside what the framework takes


def _out_of_range(error: str, domains: Mapping[str, Domain], runs: Runs) -> Refusal | None:
    """The one input whose range is at fault: with [0, 1], or with fewer class numbers, in its place the loss runs."""
    for name, domain in domains.items():
        if domain.assumed or domain.value is not None:
            continue
        for less, what in _less(domain):
            if not runs({**domains, name: less}):
                continue
            if not what:
                break  # a range, but not that of a probability
            target = is_target(name, domains) or not domain.format.is_float
            cause = "target-out-of-range" if target else "logits-as-probabilities"
            reach = f"{name} may be {domain.low:g} to {domain.high:g}"
            return Refusal(cause, f"{reach}; the loss runs with {what}, but here it raises {_short(error)}")
    return None


def _less(domain: Domain) -> Iterator[tuple[Domain, str]]:
    """Smaller domains with what they are called; without a name, one that would say nothing about probabilities."""
    if domain.format.is_float and domain.low <= 1 and domain.high >= 0 and (domain.low < 0 or domain.high > 1):
        if domain.low < 0 and domain.high > 1:
            yield domain.but(kind="real", low=0.0), ""
            yield domain.but(kind="real", high=1.0), ""
        yield domain.but(kind="real", low=max(domain.low, 0.0), high=min(domain.high, 1.0)), "numbers between 0 and 1"
    elif domain.kind in ("classes", "integers") and domain.high > 1:
        for high in dict.fromkeys((*((domain.high,) if domain.low < 0 else ()), domain.high - max(domain.low, 1.0), 1.0)):
            yield domain.but(kind="integers", low=0.0, high=max(high, 0.0)), f"class numbers 0 to {max(high, 0.0):g}"
