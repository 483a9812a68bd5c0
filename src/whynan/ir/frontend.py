"""What a front end gives to the rest: a program that can be run for real and recorded as a graph."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from whynan.ir.dtype import Array
from whynan.ir.graph import Graph


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One run of the real function: the loss (summed to a scalar if it has several elements) and the gradients by name.

    `parts` are the loss's elements before summing. A gradient that the framework does not give (the input is not connected)
    is absent. `error` is the framework's own message, first line, if the run raised; everything else is then empty.
    """

    loss: Array
    gradients: Mapping[str, Array]
    error: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """A recorded run: the graph and, node by node, the value that the framework computed (None where none was seen)."""

    graph: Graph
    values: tuple[Array | None, ...]


class Program(Protocol):
    """A loss made ready by a front end: runs on NumPy arrays by input name, in one mode."""

    @property
    def name(self) -> str:
        """The target's name for reports."""
        ...

    @property
    def framework(self) -> str:
        """"torch", "tensorflow" or "jax"."""
        ...

    @property
    def framework_version(self) -> str:
        """The version of the framework."""
        ...

    @property
    def parameters(self) -> Mapping[str, Array]:
        """Trainable parameters that the loss itself owns (a module's), by qualified name; they are inputs with a fixed value."""
        ...

    def run(self, inputs: Mapping[str, Array], wrt: tuple[str, ...], mode: str) -> Run:
        """Run the real function and its gradients by `wrt`, as a user would (no recording)."""
        ...

    def capture(self, inputs: Mapping[str, Array], wrt: tuple[str, ...], mode: str, told: Sequence[float] = ()) -> Trace:
        """Run once and record every operation, forward and backward. Raises TargetError with the framework's own line.

        `told` are outcomes of the looks that Python code takes at values, in order: the code is told them instead of what it would see,
        so that the path of inputs that are not at hand is recorded. The values mean nothing then, and a look that cannot be told shows what
        is seen. Front ends that cannot tell any raise TargetError.
        """
        ...
