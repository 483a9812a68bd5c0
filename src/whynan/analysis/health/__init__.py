"""What is wrong with a loss although it stays finite: gradients that explode, die, go missing, or are wrong.

Each warning rests on runs of the real function; the graph only says where to look.
"""

from collections.abc import Iterator

from whynan.analysis.finding import Finding
from whynan.analysis.health.clamps import cut_off
from whynan.analysis.health.patient import Patient
from whynan.analysis.health.steep import exploding, looked
from whynan.analysis.health.vanished import vanished
from whynan.analysis.health.wrong import detached_by_placeholder, disagreeing
from whynan.analysis.propagate import Proof
from whynan.analysis.search import Searched
from whynan.ir.frontend import Trace

__all__ = ["Patient", "warnings"]


def warnings(patient: Patient, trace: Trace, proof: Proof, searched: Searched) -> Iterator[Finding]:
    """All warnings for one mode."""
    searched = looked(patient, trace, proof, searched)
    yield from exploding(patient, searched.steepest, trace.graph, proof)
    yield from cut_off(patient, trace, proof)
    yield from vanished(patient, trace)
    yield from detached_by_placeholder(patient, searched.detached)
    yield from disagreeing(patient, trace)
