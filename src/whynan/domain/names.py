"""What an argument's name says about its values, and which shapes to try, where the user said nothing.

Everything inferred here is marked as assumed, so that a report can print it.
"""

import re
from collections.abc import Collection, Iterator, Mapping

import numpy as np

from whynan.domain.spec import (
    LOGIT,
    WIDE,
    Domain,
    binary,
    classes,
    const,
    integers,
    logit,
    mask,
    nonnegative,
    positive,
    prob,
    real,
    retyped,
    simplex,
)
from whynan.ir.dtype import FORMATS, Array

Shape = tuple[int, ...]

# names and parts of names (split at "_" and capitals, digits dropped), by what they stand for
_TARGET = "true target targets tgt label labels t gt truth groundtruth actual expected reference ref desired"
_KINDS: dict[str, str] = {
    "logprob": "logp logps logprob logprobs logpmf logpdf loglik loglikelihood",
    "logit": "logit logits score scores energy energies logvar logsigma logstd logscale logvariance",
    "prob": "p q prob probs probability probabilities proba iou conf confidence likelihood",
    "simplex": "softmax attention attn",
    "mask": "mask masks keep valid ignore pad padding visible allowed",
    "positive": "var variance sigma sigmas std stdev stddev scale temperature temp tau bandwidth rate concentration precision kappa",
    "nonnegative": "weight weights distance distances dist length area count counts duration time depth margin gamma",
    "index": "idx index indices ids",
    "small": "eps epsilon smooth smoothing",
}
_KIND_OF = {word: kind for kind, words in _KINDS.items() for word in words.split()}
_TARGETS = frozenset(_TARGET.split())
_PREDICTIONS = frozenset("pred preds prediction predictions predicted output outputs out input inputs hat yhat estimate estimates".split())
_EMBEDDINGS = frozenset(
    "anchor anchors positive positives negative negatives emb embs embedding embeddings feature features feat query key z u v vec".split()
)
_HYPERPARAMETERS = frozenset("temperature temp tau margin alpha beta gamma delta eps epsilon lam lambda smooth smoothing reg".split())
_FIXED = _HYPERPARAMETERS - {"temperature", "temp", "tau"}  # temperatures are often learned
_WEIGHTS = frozenset({"weight", "weights", "mask", "masks"})

_SHAPES: tuple[Shape, ...] = ((4,), (4, 3), (2, 3, 4), (), (2, 3, 8, 8), (8, 1))


# ---------------------------------------------------------------- one name


def words_of(name: str) -> list[str]:
    """The parts of a name, lower case, without digits: "yTrue2" is ["y", "true"], "log_var" is ["log", "var"]."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return [part.lower() for part in parts]


def is_target(name: str, others: Collection[str] = ()) -> bool:
    """Whether a name is a target's (y_true, labels, t, ...), not differentiated by unless told. `y` is one unless beside an `x`."""
    words = words_of(name)
    if words == ["y"]:
        return "x" not in {other.lower() for other in others}
    return any(word in _TARGETS for word in words) and not any(word in _PREDICTIONS or _kind_word(word) == "logit" for word in words)


def kind_of(name: str, function: str = "") -> str:
    """The kind that a name suggests ("real" if none); a prediction in a loss of probabilities, by the function's name, is a "prob"."""
    words = words_of(name)
    if words[:1] == ["log"] and len(words) > 1:
        return "logprob" if _kind_word(words[1]) == "prob" else "logit"
    for word in reversed(words):
        if kind := _kind_word(word):
            return kind
    if not any(word in _PREDICTIONS for word in words):
        return "real"
    return _prediction_kind(_function_words(function))


def _function_words(function: str) -> list[str]:
    """The parts of a loss's name, its arguments and the word "loss" left out."""
    return [word for word in words_of(function.partition("(")[0]) if word != "loss"]


def _kind_word(word: str) -> str:
    return _KIND_OF.get(word, "")


def _prediction_kind(function: list[str]) -> str:
    if {"kl", "nll"} & {*function} and not {"gaussian", "poisson"} & {*function}:
        return "logprob"
    if {"logits", "logit"} & {*function} or (function[-2:] == ["cross", "entropy"] and "binary" not in function):
        return "logit"
    if {"bce", "dice", "jaccard", "tversky"} & {*function} or {"binary", "entropy"} <= {*function}:
        return "prob"
    return "real"


def domain_for(name: str, shape: Shape, function: str = "") -> Domain:
    """The assumed domain of an argument that is no target, from its name."""
    match kind_of(name, function):
        case "logprob":
            domain = real(*shape, low=-100, high=0)
        case "logit":
            domain = logit(*shape)
        case "prob":
            domain = prob(*shape)
        case "simplex":
            domain = simplex(*shape) if shape else prob()
        case "mask":
            domain = mask(*shape)
        case "positive":
            domain = positive(*shape)
        case "nonnegative":
            domain = nonnegative(*shape, high=100)
        case "small":
            domain = positive(*shape, high=1)
        case "index":
            domain = integers(0, max(shape[0] - 1, 0) if shape else 0, *shape)
        case _:
            domain = real(*shape)
    return domain.but(assumed=True, grad=domain.grad and not (_WEIGHTS | _FIXED) & {*words_of(name)})


def with_grad_by_name(domains: Mapping[str, Domain]) -> dict[str, Domain]:
    """The domains, targets not differentiated by unless the user said `grad=`."""
    return {
        name: domain if domain.grad_given or not is_target(name, domains) else domain.but(grad=False) for name, domain in domains.items()
    }


# ---------------------------------------------------------------- values


def kind_for_values(name: str, array: Array) -> Domain:
    """The domain that a concrete array stands for, from its values and its argument's name; see `spec.of_array`.

    Values that the kind of the name does not hold widen it to `real`; an array with NaN or infinities is a `const`.
    """
    fmt = FORMATS[str(array.dtype)]
    x = array.astype(np.float64)
    low, high = (float(x.min()), float(x.max())) if x.size else (0.0, 0.0)
    if not np.isfinite(x).all():
        return const(array)
    if fmt.kind == "bool":
        return mask(*array.shape)
    if fmt.kind == "int":
        return _whole(name, array.shape, low, high, fmt.name)
    target = is_target(name)
    if x.size and (target or kind_of(name) == "mask") and np.isin(x, (0, 1)).all():
        return binary(*array.shape, dtype=fmt.name)
    return retyped(_float_kind(kind_of(name), x, low, high), fmt.name).but(grad=not target)


def _whole(name: str, shape: Shape, low: float, high: float, dtype: str) -> Domain:
    if low < 0 or kind_of(name) == "index" or not is_target(name):
        return integers(int(low), int(high), *shape, dtype=dtype)
    return classes(max(int(high) + 1, 2), *shape, dtype=dtype)


def _float_kind(kind: str, x: Array, low: float, high: float) -> Domain:
    """The named kind if its values go with it, else probabilities if the values look so, else real numbers of their magnitude."""
    if kind in ("prob", "simplex", "mask") and low >= 0 and high <= 1:
        return simplex(*x.shape) if kind == "simplex" and x.ndim and np.allclose(x.sum(-1), 1, atol=1e-3) else prob(*x.shape)
    if kind == "positive" and low > 0:
        return positive(*x.shape, high=max(high, WIDE))
    if kind == "nonnegative" and low >= 0:
        return nonnegative(*x.shape, high=max(high, 100.0))
    if kind == "logprob" and high <= 0:
        return real(*x.shape, low=min(low, -100.0), high=0)
    reach = max(abs(low), abs(high))
    if kind == "logit":
        return logit(*x.shape, low=-max(reach, LOGIT), high=max(reach, LOGIT))
    return real(*x.shape, low=-max(reach, WIDE), high=max(reach, WIDE))


# ---------------------------------------------------------------- several names


def candidates(names: Collection[str], given: Mapping[str, Domain] | None = None, function: str = "") -> Iterator[dict[str, Domain]]:
    """Complete assignments of domains to the names, likeliest first; the caller takes the first with which the loss runs.

    Domains in `given` stay as they are (targets lose their gradient) and steer the shapes of the others. If nothing is left to
    infer there is one candidate. At most some sixty are made.
    """
    given = dict(given or {})
    names = list(dict.fromkeys([*names, *given]))
    seen = set()
    for made in _assignments(names, given, function):
        key = tuple(str(made[name]) for name in names)
        if key not in seen:
            seen.add(key)
            yield with_grad_by_name({name: made[name] for name in names})


def _assignments(names: list[str], given: dict[str, Domain], function: str) -> Iterator[dict[str, Domain]]:
    missing = [name for name in names if name not in given]
    targets = [name for name in missing if is_target(name, names)]
    inputs = [name for name in missing if name not in targets]
    arrays = [n for n in names if not is_target(n, names) and not {*words_of(n)} & (_WEIGHTS | _HYPERPARAMETERS)]
    for masks in ("mask", "binary") if any(kind_of(n) == "mask" for n in inputs) else ("mask",):
        for shape, target in _layouts(names, given, inputs, targets, arrays, function):
            made = dict(given)
            made |= {name: _input(name, shape, masks, function) for name in inputs}
            made |= {name: target.but(assumed=True) for name in targets}
            yield made


def _input(name: str, shape: Shape, masks: str, function: str) -> Domain:
    if {*words_of(name)} & _HYPERPARAMETERS:
        shape = ()
    domain = domain_for(name, shape, function)
    return binary(*shape).but(assumed=True) if domain.kind == "mask" and masks == "binary" else domain


def _layouts(
    names: list[str], given: dict[str, Domain], inputs: list[str], targets: list[str], arrays: list[str], function: str
) -> Iterator[tuple[Shape, Domain]]:
    """Pairs of a shape for the inputs and a domain for the targets."""
    shapes = _shapes(given, inputs, names)
    kinds = [kind_of(name, function) if name not in given else given[name].kind for name in arrays]
    # class numbers first: where they do not belong, shapes do not match and the loss refuses them
    if targets and len(arrays) == 1:
        for shape in shapes:
            yield from ((shape, domain) for domain in _class_targets(shape))
    scored = any(kind in ("prob", "logit", "simplex") for kind in kinds)
    for shape in shapes:
        wanted = [*_float_targets(shape, scored, {*_function_words(function)}), *_class_targets(shape)] if targets else [real(*shape)]
        yield from ((shape, domain) for domain in wanted)


def _float_targets(shape: Shape, scored: bool, function: set[str]) -> list[Domain]:
    """Targets of the inputs' own shape; signs where the loss is a margin's, one for each row as well."""
    if "kl" in function:
        return [prob(*shape)]
    if {"margin", "hinge", "cosine", "ranking"} & function:
        return [real(*s, low=-1, high=1) for s in dict.fromkeys((shape, shape[:1]))]
    return [binary(*shape), real(*shape)] if scored else [real(*shape), binary(*shape)]


def _class_targets(shape: Shape) -> list[Domain]:
    """Class numbers for scores of a shape: classes along axis 1 (PyTorch), then along the last axis (Keras)."""
    axes = dict.fromkeys((1, len(shape) - 1)) if len(shape) >= 2 else ()
    return [classes(shape[axis], *shape[:axis], *shape[axis + 1 :]) for axis in axes if shape[axis] >= 2]


def _shapes(given: dict[str, Domain], inputs: list[str], names: list[str]) -> list[Shape]:
    """Shapes to try for the inputs: those of the given domains and what goes with them, else the usual ones."""
    known: list[Shape] = []
    for domain in sorted(given.values(), key=lambda d: -len(d.shape)):
        whole = domain.kind in ("classes", "integers")
        if whole and domain.shape and inputs:
            count = int(domain.high) + 1
            known += [(domain.shape[0], count, *domain.shape[1:]), (*domain.shape, count)]
        known.append(domain.shape)
    embeddings = any({*words_of(name)} & _EMBEDDINGS for name in names)
    usual = sorted(_SHAPES, key=lambda s: s != (4, 3)) if embeddings else list(_SHAPES)
    return list(dict.fromkeys([*known, *usual]))

