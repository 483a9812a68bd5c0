"""The wrong thing fed in: what a loss takes its inputs for, against what they are. Findings of kind `contract`.

Where to look is read off the graph (`meaning`), what the inputs may be off the proof and the domains; each finding rests on a
run of the real function that shows it.
"""

from collections.abc import Iterator

from whynan.analysis.contracts.case import Case
from whynan.analysis.contracts.cut import detached
from whynan.analysis.contracts.hidden import hidden
from whynan.analysis.contracts.labels import labels
from whynan.analysis.contracts.scores import scores_as_probabilities
from whynan.analysis.contracts.twice import normalised_twice
from whynan.analysis.contracts.weights import weights
from whynan.analysis.finding import Finding
from whynan.analysis.health import Patient
from whynan.analysis.propagate import Proof
from whynan.analysis.search import Searched
from whynan.analysis.view import View
from whynan.ir.frontend import Trace


def contracts(patient: Patient, trace: Trace, proof: Proof, searched: Searched) -> Iterator[Finding]:
    """All findings of kind `contract` for one mode, but for those that `health` makes of single runs."""
    case = Case(patient, trace, View(trace.graph), proof, tuple(f.inputs for f in searched.failures))
    for look in (scores_as_probabilities, normalised_twice, labels, weights, hidden, detached):
        yield from look(case)
