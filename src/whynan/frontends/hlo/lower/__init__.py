"""Translation of HLO instructions into the graph's canonical operations; importing the package fills the spelling table."""

from whynan.frontends.hlo.lower import elementwise, indexing, linalg, randomness, reduction, shape
from whynan.frontends.hlo.lower._table import CUSTOM_CALLS, OPCODES, Kernel, Op, Operand, arrays, known, leaves, lower, unknown

FAMILIES = (elementwise, indexing, linalg, randomness, reduction, shape)

__all__ = ["CUSTOM_CALLS", "FAMILIES", "OPCODES", "Kernel", "Op", "Operand", "arrays", "known", "leaves", "lower", "unknown"]
