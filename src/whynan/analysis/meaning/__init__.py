"""What values of a graph stand for, read off the operations around them: probabilities, scores, class numbers.

No name of a function or an argument is looked at: a sigmoid is one however the framework or the user wrote it.
"""

from whynan.analysis.meaning.classes import Lookup, lookups, sentinels
from whynan.analysis.meaning.softmax import Normaliser, normalisers, probability
from whynan.analysis.meaning.targets import Use, mixing_weights, probability_uses
from whynan.analysis.meaning.walk import CUTS, STEPS, depends, origin

__all__ = [
    "CUTS",
    "STEPS",
    "Lookup",
    "Normaliser",
    "Use",
    "depends",
    "lookups",
    "mixing_weights",
    "normalisers",
    "origin",
    "probability",
    "probability_uses",
    "sentinels",
]
