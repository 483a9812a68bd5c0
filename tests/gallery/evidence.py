"""What real PyTorch does on the corners and on samples of a domain: the evidence that the gallery's expectations rest on.

Nothing here uses whynan, so that the tests compare whynan with something other than itself.
"""

import ast
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]
TARGETS = frozenset({"t", "y", "target", "mask"})
BOUNDS = {"real": (-1e4, 1e4), "prob": (0.0, 1.0), "logit": (-100.0, 100.0), "nonnegative": (0.0, 1e4)}
CHOICES = {"binary": (0.0, 1.0), "mask": (0.0, 1.0)}
ROWS = ("unit", "simplex")


@dataclass(frozen=True)
class Box:
    """One input's domain: the constructor's name, the shape, and the closed bounds of its numbers."""

    kind: str
    shape: tuple[int, ...]
    low: float
    high: float


def box(text: str) -> Box:
    """Read one domain, such as "real(8, 1, low=-1)"; ValueError where the gallery's sampler does not know the kind."""
    call = ast.parse(text, mode="eval").body
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
        raise ValueError(f"not a domain: {text!r}")
    kind = call.func.id
    numbers = tuple(int(ast.literal_eval(a)) for a in call.args)
    if kind == "classes":
        return Box(kind, numbers[1:], 0.0, numbers[0] - 1.0)
    if kind in ROWS or kind in CHOICES:
        return Box(kind, numbers, *CHOICES.get(kind, (-1.0, 1.0)))
    if kind not in BOUNDS:
        raise ValueError(f"no sampler for the domain {text!r}")
    given = {k.arg: float(ast.literal_eval(k.value)) for k in call.keywords}
    low, high = BOUNDS[kind]
    return Box(kind, numbers, given.get("low", low), given.get("high", high))


def tensor(b: Box, values: Any, dtype: torch.dtype) -> torch.Tensor:
    """The values (one number, or as many as the box has) as a tensor inside the box: rounded to the dtype, but not out of the bounds."""
    raw = torch.as_tensor(values, dtype=torch.float64).expand(b.shape)
    if b.kind in ("mask", "classes"):
        return raw.to(torch.bool if b.kind == "mask" else torch.int64)
    rounded = raw.to(dtype).contiguous()
    if b.kind in ROWS:
        return rounded
    outside = (rounded.double() < b.low) | (rounded.double() > b.high)
    return torch.where(outside, torch.nextafter(rounded, torch.zeros_like(rounded)), rounded)


def corners(b: Box, dtype: torch.dtype) -> list[float]:
    """The ends of a box of numbers, and what lies in it next to 0 and 1 in the dtype; every class; nothing for rows."""
    if b.kind in ROWS:
        return []
    if b.kind not in BOUNDS:
        return [b.low, b.high]
    info = torch.finfo(dtype)
    near_zero = [info.tiny * info.eps, info.tiny, 1e-7, 1e-5, info.eps]
    near_one = [1 - info.eps / 2, 1.0, 1 + info.eps, 10.0]
    inside = [x for m in near_zero + near_one for x in (m, -m) if b.low < x < b.high]
    return [b.low, b.high, *([0.0] if b.low < 0 < b.high else []), *inside]


def _rows(b: Box, one_hot: bool, g: torch.Generator) -> torch.Tensor:
    raw = torch.randn(b.shape, generator=g, dtype=torch.float64)
    if one_hot:
        return torch.nn.functional.one_hot(raw.argmax(-1), b.shape[-1]).double()
    return (8 * raw).softmax(-1) if b.kind == "simplex" else raw / raw.norm(dim=-1, keepdim=True)


def draw(b: Box, dtype: torch.dtype, g: torch.Generator) -> torch.Tensor:
    """One tensor inside the box: corners, one corner everywhere, uniform, or at one random scale around zero."""
    way = int(torch.randint(5, (), generator=g))
    if b.kind in ROWS:
        return tensor(b, _rows(b, way % 2 == 0, g), dtype)
    uniform = torch.rand(b.shape, generator=g, dtype=torch.float64)
    if b.kind == "classes":
        return tensor(b, torch.floor(uniform * (b.high + 1)), dtype)
    ends = torch.tensor(corners(b, dtype), dtype=torch.float64)
    picked = ends[torch.randint(len(ends), b.shape, generator=g)]
    if b.kind in CHOICES:
        return tensor(b, picked.flatten()[0] if way == 0 else picked, dtype)
    spread = b.low + uniform * (b.high - b.low)
    smallest = torch.finfo(dtype).tiny * torch.finfo(dtype).eps
    scale = math.exp(math.log(smallest) * float(torch.rand((), generator=g)))
    near = (spread / max(abs(b.low), abs(b.high)) * 4 * scale).clamp(b.low, b.high)
    values = (picked, picked.flatten()[0], spread, near, torch.where(uniform < 0.5, picked, spread))[way]
    return tensor(b, values, dtype)


def samples(domains: Mapping[str, str], dtype: torch.dtype, count: int, seed: int = 0) -> Iterator[Tensors]:
    """Inputs inside the domains: first up to `count` products of corners, then `count` random ones, half of them with equal inputs."""
    boxes = {name: box(text) for name, text in domains.items()}
    g = torch.Generator().manual_seed(seed)
    ends = [corners(b, dtype) or [None] for b in boxes.values()]
    for values in itertools.islice(itertools.product(*ends), count):
        yield {n: draw(b, dtype, g) if v is None else tensor(b, v, dtype) for (n, b), v in zip(boxes.items(), values, strict=True)}
    first, *others = boxes
    for k in range(count):
        drawn = {n: draw(b, dtype, g) for n, b in boxes.items()}
        equal = {n: drawn[first].clone() for n in others if k % 2 and boxes[n] == boxes[first]}
        yield drawn | equal


def run(loss: Callable[..., torch.Tensor], inputs: Tensors) -> tuple[torch.Tensor, Tensors]:
    """The loss and its gradient by every floating input that is not a target; by an input that is not used it is zero."""
    leaves = {n: x.detach().clone().requires_grad_(x.is_floating_point() and n not in TARGETS) for n, x in inputs.items()}
    wanted = {n: x for n, x in leaves.items() if x.requires_grad}
    value = loss(**leaves)
    found = torch.autograd.grad(value.sum(), list(wanted.values()), allow_unused=True)
    return value.detach(), {n: torch.zeros_like(x) if g is None else g for (n, x), g in zip(wanted.items(), found, strict=True)}


def fails(loss: Callable[..., torch.Tensor], inputs: Tensors) -> bool:
    """True if the loss or a gradient is NaN or infinite on these inputs."""
    value, gradients = run(loss, inputs)
    return not all(bool(torch.isfinite(x).all()) for x in (value, *gradients.values()))


def steepest(loss: Callable[..., torch.Tensor], inputs: Tensors) -> float:
    """The largest |element| of any gradient on these inputs."""
    return max(float(g.abs().max()) for g in run(loss, inputs)[1].values())
