"""What an argument's name says about its values, and which shapes to try, where the user said nothing.

Everything inferred here is marked as assumed, so that a report can print it.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from whynan.domain.spec import (
    LOGIT,
    WIDE,
    Domain,
    as_array,
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
    retyped,
    simplex,
)
from whynan.ir.dtype import FORMATS, Array

Shape = tuple[int, ...]

# names and parts of names (split at "_" and capitals, digits dropped), by what they stand for
_TARGET = "true target targets tgt label labels t gt truth groundtruth actual expected reference ref desired"
_KINDS: dict[str, str] = {
    "logprob": "logp logps logprob logprobs logpmf logpdf loglik loglikelihood",
    "logit": "logit logits score scores energy energies",
    "logscale": "logvar logsigma logstd logscale logvariance",
    "prob": "p q prob probs probability probabilities proba iou conf confidence likelihood",
    "simplex": "softmax attention attn",
    "mask": "mask masks keep valid ignore pad padding visible allowed",
    "positive": "var variance sigma sigmas std stdev stddev scale temperature temp tau bandwidth rate concentration precision kappa",
    "nonnegative": "weight weights distance distances dist length area count counts duration time depth margin gamma",
    "index": "idx index indices ids",
    "flag": "event events censored indicator done dones",
    "image": "img imgs image images picture pictures frame frames pixels",
    "small": "eps epsilon smooth smoothing",
}
_KIND_OF = {word: kind for kind, words in _KINDS.items() for word in words.split()}
_TARGETS = frozenset(_TARGET.split())
_PREDICTIONS = frozenset(
    "pred preds prediction predictions predicted output outputs out input inputs hat yhat estimate estimates recon reconstruction".split()
)
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
    if any({*words_of(other)} & _PREDICTIONS and [w for w in words_of(other) if w not in _PREDICTIONS] == words for other in others):
        return True  # x beside recon_x, y beside y_hat
    return any(word in _TARGETS for word in words) and not any(word in _PREDICTIONS or _kind_word(word) == "logit" for word in words)


def kind_of(name: str, function: str = "") -> str:
    """The kind that a name suggests ("real" if none); a prediction in a loss of probabilities, by the function's name, is a "prob".

    `function` is the loss's name, followed by the names that its code uses if they are known.
    """
    words = words_of(name)
    if words[:1] == ["log"] and len(words) > 1:
        if words[1] in _PREDICTIONS | _TARGETS:
            return "logit" if "poisson" in _function_words(function) else "logprob"  # the logarithm of a rate, which has no upper end
        return {"prob": "logprob", "positive": "logscale"}.get(_kind_word(words[1]), "logit")
    for word in reversed(words):
        if kind := _kind_word(word):
            return kind
    if not any(word in _PREDICTIONS for word in words):
        return "real"
    return _prediction_kind(_function_words(function), _used_words(function))


def _function_words(function: str) -> list[str]:
    """The parts of a loss's name, its arguments and the word "loss" left out."""
    named = (function.split() or [""])[0].partition("(")[0]
    return [word for word in words_of(named) if word != "loss"]


def _used_words(function: str) -> frozenset[str]:
    """The names that a loss's code uses, and their parts: `log_softmax` is "log_softmax", "log" and "softmax"."""
    used = function.split()[1:]
    taken = ["log()"] if "log" in used else []  # as against a part of another name, as of log_target
    return frozenset([*used, *taken, *(word for name in used for word in words_of(name))])


def _kind_word(word: str) -> str:
    return _KIND_OF.get(word, "")


def _prediction_kind(function: list[str], used: frozenset[str]) -> str:
    """What predictions are, by the loss's name and by what its code does with them."""
    if _of_probabilities(function) and "from_logits=True" not in used:
        return "simplex" if "categorical" in function else "prob"
    if function == ["poisson"] or "logarithmic" in function:
        return "nonnegative"
    if {"logits", "logit", "poisson", "crossentropy", "ctc"} & {*function}:
        return "logit"
    if function[-2:] == ["cross", "entropy"] and "binary" not in function:
        return "logit"
    if "divergence" in function:
        return "prob"
    if used & {"sigmoid", "softmax", "logsigmoid", "logits", "cross_entropy"}:
        return "logit"
    if {"kl", "nll"} & {*function} and "gaussian" not in function:
        return "prob" if "log()" in used else "logprob"
    if {"bce", "dice", "jaccard", "tversky", "js"} & {*function} or {"binary", "entropy"} <= {*function}:
        return "prob"
    return "prob" if used & {"binary_cross_entropy", "BCELoss"} else "real"


def _of_probabilities(function: list[str]) -> bool:
    """Whether it is a cross-entropy by Keras' names: of probabilities, unless told that they are logits."""
    return "crossentropy" in function or {"categorical", "entropy"} <= {*function}


def _by_rows(function: list[str]) -> bool:
    """Whether a loss, by Keras' names, takes a one-hot row for each row of its predictions."""
    return "categorical" in function and "sparse" not in function


def _of_rows(function: list[str], used: frozenset[str]) -> bool:
    """Whether a loss compares rows of scores with rows of ones and zeros if it does not take class numbers."""
    entropy = {"cross", "entropy"} <= {*function} and "softmax" in {*function} | used and not {"binary", "sigmoid"} & {*function}
    return entropy or "multiclass" in function or _by_rows(function)


def domain_for(name: str, shape: Shape, function: str = "") -> Domain:
    """The assumed domain of an argument that is no target, from its name."""
    match kind_of(name, function):
        case "logprob":
            domain = real(*shape, low=-100, high=0)
        case "logit" | "logscale":
            domain = logit(*shape)
        case "flag":
            domain = binary(*shape)
        case "prob" | "image":
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


def of_array(value: Any, name: str = "") -> Domain:
    """The domain that a concrete array or tensor stands for: its shape and dtype, the kind by its values and the argument's name.

    The kind is the narrowest that holds the values and goes with the name: probabilities in [0, 1] are `prob` if the name does not
    say otherwise, zeros and ones `binary`, integers `classes` or `integers`. The domain is marked as assumed.
    """
    array = as_array(value)
    return kind_for_values(name, array).but(assumed=True)


def kind_for_values(name: str, array: Array) -> Domain:
    """The domain that a concrete array stands for, from its values and its argument's name; see `of_array`.

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
    arrays = [n for n in names if not is_target(n, names) and not {*words_of(n)} & _WEIGHTS and not _is_setting(n, names)]
    yield from _sequences(names, given, function)
    for masks in ("mask", "binary") if any(kind_of(n) == "mask" for n in inputs) else ("mask",):
        for shape, target in _layouts(names, given, inputs, targets, arrays, function):
            made = dict(given)
            made |= {name: _input(name, () if _is_setting(name, names) else shape, masks, function) for name in inputs}
            made |= {name: positive(high=1, grad=False).but(assumed=True) for name in inputs if _is_exponent(name, names)}
            made |= {name: _target(name, target).but(assumed=True) for name in targets}
            yield made


def _target(name: str, domain: Domain) -> Domain:
    """The domain of a target; of the logarithm of one, if its name says so."""
    return real(*domain.shape, low=-100, high=0) if kind_of(name) == "logprob" and domain.format.is_float else domain


def _sequences(names: list[str], given: dict[str, Domain], function: str) -> Iterator[dict[str, Domain]]:
    """Scores (time, batch, classes), labels without the blank and their lengths, for a loss that takes lengths."""
    time, batch, kinds, most = 5, 2, 4, 2
    paddings = [n for n in names if "paddings" in words_of(n)]
    if paddings and not any(n in given for n in paddings):
        made = {n: domain_for(n, (batch, time, kinds), function) for n in names}
        made |= {n: integers(1, kinds - 1, batch, most) for n in names if is_target(n, names)}
        made |= {n: binary(batch, most if is_target(n, names) else time) for n in paddings}
        yield {n: given.get(n, made[n].but(assumed=True)) for n in names}
    lengths = [n for n in names if {"lengths", "length"} & {*words_of(n)} and len(words_of(n)) > 1]
    if "ctc" in _function_words(function) and not paddings and not lengths:
        made = {n: domain_for(n, (batch, time, kinds), function) for n in names}
        made |= {n: integers(1, kinds - 1, batch, most) for n in names if is_target(n, names)}
        yield {n: given.get(n, made[n].but(assumed=True)) for n in names}
    if len(lengths) < 2 or any(n in given for n in lengths):
        return
    made = {n: domain_for(n, (time, batch, kinds), function) for n in names if n not in lengths and not is_target(n, names)}
    made |= {n: integers(1, kinds - 1, batch, most).but(assumed=True) for n in names if is_target(n, names)}
    made |= {n: integers(1, most, batch) if is_target(n, names) else integers(time, time, batch) for n in lengths}
    yield {n: given.get(n, made[n].but(assumed=True)) for n in names}


def _is_setting(name: str, names: Collection[str]) -> bool:
    """Whether an argument is one number that a person chooses."""
    return bool({*words_of(name)} & _HYPERPARAMETERS) or _is_exponent(name, names)


def _is_exponent(name: str, names: Collection[str]) -> bool:
    """Whether p or q is no distribution: beside predictions and targets called so it is a power."""
    return name in ("p", "q") and any(is_target(n, names) for n in names) and any({*words_of(n)} & _PREDICTIONS for n in names)


def _input(name: str, shape: Shape, masks: str, function: str) -> Domain:
    domain = domain_for(name, shape, function)
    return binary(*shape).but(assumed=True) if domain.kind == "mask" and masks == "binary" else domain


def _layouts(
    names: list[str], given: dict[str, Domain], inputs: list[str], targets: list[str], arrays: list[str], function: str
) -> Iterator[tuple[Shape, Domain]]:
    """Pairs of a shape for the inputs and a domain for the targets."""
    shapes = _shapes(given, inputs, names)
    kinds = [kind_of(name, function) if name not in given else given[name].kind for name in arrays]
    # class numbers first: where they do not belong, shapes do not match and the loss refuses them
    called, used = _function_words(function), _used_words(function)
    rows = _of_rows(called, used)
    if targets and len(arrays) == 1 and not _by_rows(called) and not {"mse_loss", "l1_loss", "huber_loss"} & used:
        for shape in shapes:
            yield from ((shape, domain) for domain in _class_targets(shape))
    scored = any(kind in ("prob", "logit", "simplex") for kind in kinds) and "logscale" not in kinds
    for shape in sorted(shapes, key=lambda s: rows and len(s) < 2):
        wanted = [*_float_targets(shape, scored, rows, called, len(arrays)), *_class_targets(shape)] if targets else [real(*shape)]
        wanted += [integers(-1, shape[1] - 1, *shape)] if targets and len(shape) == 2 else []  # class numbers, padded with -1
        yield from ((shape, domain) for domain in wanted)


def _float_targets(shape: Shape, scored: bool, rows: bool, called: list[str], arrays: int) -> list[Domain]:
    """Targets of the inputs' own shape; signs where the loss is a margin's or compares two arrays, one for each row as well."""
    function = {*called}
    if {"kl", "js"} & function:
        return [prob(*shape)]
    if rows and len(shape) > (0 if _by_rows(called) else 1):
        return [onehot(*shape)]
    if "logarithmic" in function:
        return [nonnegative(*shape)]
    if "poisson" in function:
        return [nonnegative(*shape, high=100)]
    signed = {"margin", "hinge", "perceptron"} & function or ("cosine" in function and arrays > 1)
    if signed and not {"multilabel", "label", "lovasz"} & function:
        return [real(*s, low=-1, high=1) for s in dict.fromkeys((shape, shape[:1]))]
    if {"multilabel", "label"} & function:
        return [binary(*shape)]
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
