"""A loss that is given with its model: the source with the model's last activation moved into the loss, to be mended there."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from whynan.analysis.finding import UNSAFE
from whynan.fixing.job import State, text_of
from whynan.fixing.search import Search
from whynan.frontends.source import USER, kind_of
from whynan.patches.load import plain_function
from whynan.patches.logits import Place, moved

TITLE = "let the model return logits"
_NOTE = "the model returns logits now: what else takes its output for a probability must apply the activation itself"


def with_logits(search: Search) -> Iterator[State]:
    """The state in which the model returns logits and the loss applies the activation itself, if the model ends in one that is seen."""
    job = search.job
    if job.model is None or not job.prediction:
        return
    places = _place(job.model, job.model_expression, job.model_home), _place(job.target, job.expression, None)
    model, loss = places
    if model is None or loss is None:
        return
    old = {file: text for file in (model.file, loss.file) if (text := text_of(file)) is not None and kind_of(str(file)) == USER}
    texts = moved(model, loss, job.prediction, job.program.framework, old) if model.file in old and loss.file in old else None
    program = search.program(texts) if texts is not None else None
    report = search.check(program) if program is not None else None
    if texts is not None and report is not None and report.verdict == UNSAFE:
        yield State(texts, search.at_home(report), (TITLE,), notes=(_NOTE,))


def _place(target: Any, expression: str, home: ModuleType | None) -> Place | None:
    """Where a function, the forward method of a module, or an object made at the top level of a file stands in the user's sources."""
    function = plain_function(target)
    if not inspect.isfunction(function):
        function = next((f for n in ("forward", "call", "__call__") if inspect.isfunction(f := getattr(type(target), n, None))), None)
    code = function.__code__ if function is not None else None
    if code is not None and kind_of(code.co_filename) == USER:
        return Place(Path(code.co_filename).resolve(), code.co_name, code.co_firstlineno)
    file = getattr(home, "__file__", None)
    return Place(Path(file).resolve(), expression) if file and expression.isidentifier() and kind_of(file) == USER else None
