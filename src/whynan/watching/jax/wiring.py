"""Which of a step's results is the loss, which arguments come back changed, and which of those a failure counts in."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from whynan.errors import WhynanError
from whynan.frontends.jax import steps
from whynan.watching.jax.modules import scoped

_NORM = re.compile(r"(^|_)(g|grads?|gradients?)_?(global_?)?norm$|^global_norm$", re.IGNORECASE)

OBJECTS = "_objects"  # the name of an argument that is a dictionary of the states of several arguments of the user's

Key = int | str  # of an argument: its position, or its name where it is given by name


@dataclass(frozen=True, slots=True, eq=False)
class Wiring:
    """How a step's results go back into its arguments.

    `carried` pairs an argument with the result that replaces it (None: the whole result does). `counted` are the places, among the
    leaves of all carried results in that order, of the floating arrays from which the loss of this step or of a later one is computed.
    `loss` is the path of the loss in the result, None if there is none. `dropped` are the places of counters of updates that an
    optimizer in the step leaves out itself (`whynan.optax.guard`, `optax.apply_if_finite`).
    """

    carried: tuple[tuple[Key, int | None], ...]
    counted: tuple[int, ...]
    loss: tuple[Any, ...] | None
    single: bool  # the result is one thing, not a tuple
    dropped: tuple[int, ...] = ()
    norm: tuple[Any, ...] | None = None  # the path of the gradients' norm, where the step returns it by a name that says so

    def state(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """The arguments that the step replaces."""
        return [args[key] if isinstance(key, int) else kwargs[key] for key, _ in self.carried]

    def changed(self, out: Any) -> list[Any]:
        """What the step returned for them."""
        return [out if place is None else out[place] for _, place in self.carried]

    def loss_of(self, out: Any) -> Any:
        """The loss in a result; None if there is none."""
        return _at(self.loss, out)

    def norm_of(self, out: Any) -> Any:
        """The gradients' norm in a result; None if it has none."""
        return _at(self.norm, out)

    def replaced(self, out: Any, state: Sequence[Any]) -> Any:
        """The result with `state` in the place of what the step returned for it."""
        new = {place: s for (_, place), s in zip(self.carried, state, strict=True)}
        if None in new:
            return new[None]
        return type(out)(new.get(i, x) for i, x in enumerate(out)) if new else out

    def given(self, args: Sequence[Any], kwargs: Mapping[str, Any], state: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with `state` in the place of those that the step replaces."""
        new = {key: s for (key, _), s in zip(self.carried, state, strict=True)}
        return tuple(new.get(i, a) for i, a in enumerate(args)), {k: new.get(k, a) for k, a in kwargs.items()}


def _at(path: Sequence[Any] | None, out: Any) -> Any:
    """What stands at a path in a result; None without a path."""
    if path is None:
        return None
    for entry in path:
        out = _entered(out, entry)
    return out


def _entered(value: Any, entry: Any) -> Any:
    """What stands at one entry of a path into a pytree."""
    if hasattr(entry, "idx"):
        return value[entry.idx]
    if hasattr(entry, "name"):
        return getattr(value, entry.name)
    return value[entry.key]


def arguments(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[Key, str]:
    """The arguments' names: as the function's signature has them, else `args[0]`."""
    given = parameters(function)
    names = [p.name for p in given if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][: len(args)]
    rest = next((p.name for p in given if p.kind is p.VAR_POSITIONAL), "args")
    first = len(names) if rest in {p.name for p in given} else 0
    names += [f"{rest}[{i - first}]" for i in range(len(names), len(args))]
    return {**dict(enumerate(names)), **{k: k for k in kwargs}}


def parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters of a function; none where they cannot be told."""
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []


# ---------------------------------------------------------------- the step as a program


@dataclass(frozen=True, slots=True, eq=False)
class Traced:
    """A step written out for the arrays that it was called with.

    `keys` says for each array which argument it belongs to, `shape` is the structure that the step returns, with shapes for arrays.
    """

    program: steps.Steps
    keys: tuple[Key, ...]
    shape: Any


def traced(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Traced:
    """Trace a step. What is no array stays as it is: part of the program. Raises what the step raises when it is traced."""
    names = arguments(function, args, kwargs)
    tree: Any  # JAX has no public name for the type
    leaves, tree = jax.tree_util.tree_flatten_with_path((list(args), dict(kwargs)))
    held = [i for i, (path, leaf) in enumerate(leaves) if _is_data(path, leaf)]
    keys = tuple(_key_of(path) for path, _ in leaves)

    def flat(*arrays: Any) -> Any:
        given = [leaf for _, leaf in leaves]
        for i, a in zip(held, arrays, strict=True):
            given[i] = a
        own, named = tree.unflatten(given)
        return function(*own, **named)

    called = [_called(names, leaves[i][0]) for i in held]
    with scoped():
        program, shape = steps.written_out(flat, called, [jnp.asarray(leaves[i][1]) for i in held])
    return Traced(program, tuple(keys[i] for i in held), shape)


def arrays_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """The arrays among the arguments, in the order of a traced step's."""
    leaves = jax.tree_util.tree_flatten_with_path((list(args), dict(kwargs)))[0]
    return [jnp.asarray(leaf) for path, leaf in leaves if _is_data(path, leaf)]


def _is_data(path: Sequence[Any], leaf: Any) -> bool:
    """Whether a leaf of the arguments is data: an array, or a number inside of a state. A number by itself is part of the program."""
    return is_array(leaf) or (len(path) > 2 and isinstance(leaf, (bool, int, float)))


def named_arrays(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, tuple[Key, Any]]:
    """The arrays among the arguments as Python would reach them (`batch['x']`), each with the argument that it belongs to."""
    names = arguments(function, args, kwargs)
    leaves = jax.tree_util.tree_flatten_with_path((list(args), dict(kwargs)))[0]
    return {_called(names, p): (_key_of(p), leaf) for p, leaf in leaves if _is_data(p, leaf)}


def _called(names: Mapping[Key, str], path: Sequence[Any]) -> str:
    """An array as Python reaches it. Objects that were gathered into one argument (`OBJECTS`) have their own names in its path."""
    name = names[_key_of(path)]
    if name != OBJECTS:
        return name + jax.tree_util.keystr(tuple(path[2:]))
    return "".join(map(_attribute, path[2:])).removeprefix(".").removesuffix(".value")


def _attribute(entry: Any) -> str:
    """An entry of a path into the state of objects, as Python reaches it in the objects."""
    key = getattr(entry, "key", None)
    return f".{key}" if isinstance(key, str) and key.isidentifier() else jax.tree_util.keystr((entry,))


def is_array(value: Any) -> bool:
    """Whether a leaf is data, not part of the program: an array of JAX's or NumPy's."""
    return hasattr(value, "dtype") and hasattr(value, "shape")


def is_floating(value: Any) -> bool:
    """Whether an array holds real floating numbers."""
    return is_array(value) and bool(jnp.issubdtype(value.dtype, jnp.floating))


def _key_of(path: Sequence[Any]) -> Key:
    key: Key = path[1].idx if hasattr(path[1], "idx") else path[1].key
    return key


# ---------------------------------------------------------------- finding the wiring


def wired(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any, step: Traced | None, loss: int | str | None) -> Wiring:
    """How the step is wired, from one call of it; `loss` is the user's word for which result is the loss.

    `out` may hold shapes in the place of arrays. Raises WhynanError if `loss` names no floating number of the result.
    """
    single = type(out) not in (tuple, list)
    results = [out] if single else list(out)
    moved = _moved(step) if step is not None else None
    carried: dict[Key, int] = {}
    given: dict[Key, Any] = dict(enumerate(args)) | dict(kwargs)
    for place, result in enumerate(results):
        fit = (key for key, value in given.items() if key not in carried and _alike(value, result))
        bare = jax.tree_util.all_leaves([result]) and is_floating(result)
        key = next((k for k in fit if not bare or _comes_back(k, place, result, carried, moved, results)), None)
        if key is not None:
            carried[key] = place
    order = {i: key for key, i in carried.items()}
    found = _loss_path(out, results, set(order), single, step, loss)
    pairs = tuple((order[i], None if single else i) for i in sorted(order))
    counted = tuple(_counted(results, order, given, step, found, single))
    counters = tuple(_counters([results[i] for i in sorted(order)]))
    return Wiring(pairs, counted, found, single, counters, _norm_path(out))


def _norm_path(out: Any) -> tuple[Any, ...] | None:
    """The path of a single floating number called the norm of the gradients, as metrics and `whynan.optax.guard` call it."""
    leaves = jax.tree_util.tree_flatten_with_path(out)[0]
    named = (path for path, leaf in leaves if path and is_floating(leaf) and leaf.size == 1 and _NORM.search(_last(path)))
    return next((tuple(path) for path in named), None)


def _last(path: Sequence[Any]) -> str:
    return str(jax.tree_util.keystr((path[-1],), simple=True))


def _counters(state: Sequence[Any]) -> Iterator[int]:
    """The places of the leaves that count dropped updates, by the names that they have in the optimizers' states."""
    for i, (path, leaf) in enumerate(jax.tree_util.tree_flatten_with_path(list(state))[0]):
        if getattr(path[-1], "name", "") in ("bad_steps", "total_notfinite") and is_array(leaf):
            yield i


def _alike(a: Any, b: Any) -> bool:
    """Whether two pytrees have the same structure, with at least one array, and arrays of the same kinds."""
    left, right = jax.tree.leaves(a), jax.tree.leaves(b)
    same: Any = jax.tree.structure(a)  # JAX has no public name for the type
    if same != jax.tree.structure(b) or not any(is_array(x) for x in left):
        return False
    return all(_kind(x) == _kind(y) for x, y in zip(left, right, strict=True))


def _kind(x: Any) -> Any:
    """Shape and dtype of an array; a number in a state (a step count that begins as Python's 0) comes back as an array."""
    if isinstance(x, (bool, int, float)):
        return (), jnp.result_type(x)
    return (tuple(x.shape), x.dtype) if is_array(x) else type(x)


def _comes_back(key: Key, place: int, result: Any, carried: Mapping[Key, int], moved: set[int] | None, results: Sequence[Any]) -> bool:
    """Whether a single floating array replaces an argument, and is not just something of the same shape that was computed.

    An array that replaces another is computed from a gradient; where that cannot be seen, parameters are taken to come first. A number
    by itself is rather a loss or a metric, unless it stands where a parameter would.
    """
    follows = key == 0 or (isinstance(key, int) and key - 1 in carried)
    if moved:
        return (bool(result.shape) or follows) and sum(len(jax.tree.leaves(r)) for r in results[:place]) in moved
    return follows and (bool(result.shape) or place == key)


def _moved(step: Traced) -> set[int]:
    """The places of the flat results that are computed from a gradient."""
    ends = set(steps.gradients(step.program))
    return {i for i in range(len(step.program.closed.jaxpr.outvars)) if steps.depends(step.program, i, ends)} if ends else set()


def _loss_path(
    out: Any, results: Sequence[Any], carried: set[int], single: bool, step: Traced | None, named: int | str | None
) -> tuple[Any, ...] | None:
    """The path of the loss: what the user names, else a floating number called a loss, else one that was differentiated, else the first."""
    leaves = jax.tree_util.tree_flatten_with_path(out)[0]
    candidates = []
    for flat, (path, leaf) in enumerate(leaves):
        top = 0 if single else path[0].idx
        if top not in carried and is_floating(leaf) and leaf.size == 1:
            candidates.append((flat, path))
    if named is not None:
        return _named(candidates, named, single)
    differentiated = {flat for flat, _ in candidates if step is not None and steps.in_forward_pass(step.program, flat)}

    def rank(c: tuple[int, Any]) -> tuple[bool, bool, int]:
        return "loss" not in jax.tree_util.keystr(c[1][-1:]).lower(), c[0] not in differentiated, c[0]

    return min(candidates, key=rank)[1] if candidates else None


def _named(candidates: Sequence[tuple[int, Any]], named: int | str, single: bool) -> tuple[Any, ...]:
    for _, path in candidates:
        text = jax.tree_util.keystr(path)
        simple = jax.tree_util.keystr(path, simple=True, separator=".")
        if named in (text, simple) or (isinstance(named, int) and not single and path[0].idx == named):
            return tuple(path)
        if isinstance(named, str) and simple.rpartition(".")[2] == named:
            return tuple(path)
    shown = ", ".join(jax.tree_util.keystr(p) or "the result itself" for _, p in candidates) or "none"
    raise WhynanError(f"the step's result has no floating number at loss={named!r}.", f"Numbers that could be the loss: {shown}.")


def _counted(
    results: Sequence[Any], order: Mapping[int, Key], given: Mapping[Key, Any], step: Traced | None, loss: Any, single: bool
) -> Iterator[int]:
    """The places of the leaves of the carried results that the loss depends on, now or in a later step."""
    kept = [leaf for place in sorted(order) for leaf in jax.tree.leaves(results[place])]
    every = [i for i, leaf in enumerate(kept) if is_floating(leaf)]
    if step is None:
        yield from every
        return
    outputs = _flat_places(results)
    flat_out = [i for place in sorted(order) for i in outputs[place]]  # of each leaf of the carried results: its place in the flat results
    flat_in = [i for place in sorted(order) for i in _places_of(step, order[place])]
    if len(flat_in) != len(flat_out):
        yield from every
        return
    wanted = {_loss_place(results, loss, single)} if loss is not None else {flat_out[i] for i in every}
    while True:
        read = steps.reached(step.program, steps.results(step.program, sorted(wanted)))
        more = wanted | {o for i, o in zip(flat_in, flat_out, strict=True) if i in read}
        if more == wanted:
            break
        wanted = more
    yield from (i for i in every if flat_out[i] in wanted)


def _flat_places(results: Sequence[Any]) -> list[list[int]]:
    """For each result the places of its leaves among all leaves."""
    found, start = [], 0
    for result in results:
        size = len(jax.tree.leaves(result))
        found.append(list(range(start, start + size)))
        start += size
    return found


def _places_of(step: Traced, key: Key) -> list[int]:
    return [i for i, k in enumerate(step.keys) if k == key]


def _loss_place(results: Sequence[Any], loss: Sequence[Any], single: bool) -> int:
    leaves = jax.tree_util.tree_flatten_with_path(results[0] if single else list(results))[0]
    return next(i for i, (path, _) in enumerate(leaves) if jax.tree_util.keystr(path) == jax.tree_util.keystr(tuple(loss)))
