"""`replay.py` of a bundle: a program that runs the failing step again on another machine, with the user's code and without whynan."""

import math
from collections.abc import Sequence

from whynan.report._text import one_line, visible
from whynan.watching._dialects import RUNS
from whynan.watching.record import Incident, Piece, Recipe
from whynan.watching.words import summary


def replay_script(incident: Incident) -> str:
    """The program as text. It prints loss and gradients, and exits with 1 if one is not finite, 0 if all are, 2 if it cannot run.

    What whynan cannot know stands at the top, marked, with what it does know: how to make model and loss, and what the step computes.
    """
    recipe = incident.recipe or Recipe()
    names = [s.name for s in incident.stored if not s.left_out]
    parts = [
        _OPENING.format(step=incident.step, when=_plain(incident.when), what=_plain(summary(incident)), framework=incident.framework),
        _facts(incident, recipe),
        _YOURS,
        _build(recipe),
        _calls(recipe, names),
        _REST,
        RUNS.get(recipe.dialect or incident.framework, RUNS["jax"]),
        _MAIN,
    ]
    return "".join(parts)


def _facts(incident: Incident, recipe: Recipe) -> str:
    pieces = recipe.pieces
    missing = sorted({s.name.partition("/")[0] for s in incident.stored if s.left_out})
    cut = next((s.samples for s in incident.stored if s.samples is not None), None)
    return (
        f"CODE = {sorted({p.folder for p in pieces if p.folder})!r}  # folders that your code is imported from, besides --code\n"
        f"PREFIX = { ({p.name: p.prefix for p in pieces})!r}  # of parameters' and buffers' names in the bundle\n"
        f"TRAINING = { ({p.name: p.training for p in pieces})!r}\n"
        f"EVALUATING = { ({p.name: list(p.evaluating) for p in pieces})!r}  # submodules that were in evaluation mode\n"
        f"AUTOCAST = {[list(call) for call in recipe.autocast]!r}  # for each call, device type and dtype\n"
        f"BACKEND = {incident.framework!r}\n"
        f"LEFT_OUT = {missing!r}  # not in the bundle, see incident.json\n"
        f"SAMPLES = {None if cut is None else list(cut)!r}  # of the batch, if the bundle has not all\n"
    )


def _build(recipe: Recipe) -> str:
    lines = ["", "", "def build():", f'    """{_BUILD}"""']
    lines += [f"    {line}" for line in recipe.before]
    for p in recipe.pieces:
        lines += _made(p.name, p)
    if recipe.pieces:
        lines.append(f"    return {{{', '.join(f'{p.name!r}: {p.name}' for p in recipe.pieces)}}}")
    elif recipe.lines:
        lines.append("    return {}")
    else:
        lines.append("    raise NotImplementedError(\"build() must return {'model': ..., 'loss': ...} as your script makes them.\")")
    return "\n".join(lines) + "\n"


def _made(name: str, p: Piece) -> list[str]:
    """The statements that make the model, the loss or the step."""
    if p.text:
        return [f"    {name} = {p.text}"]
    if p.missing or not p.path:
        known = [f"    # {name} = imported({p.path!r})(...)"] if p.path else []
        what = f"build() must make the {name} as your script does: {one_line(p.missing or 'no import leads to it')}."
        return [
            *known,
            *_comment(f"what it was: {p.shown}" if p.shown else ""),
            f"    {name} = None",
            f"    raise NotImplementedError({what!r})",
        ]
    made = f"    {name} = imported({p.path!r}){'()' if p.instance else ''}"
    settings = [f"    vars({name}).update({_settings(p)})"] if p.settings else []
    return [*(_comment(f"what it was: {p.shown}") if p.instance and p.shown else []), made, *settings]


def _settings(p: Piece) -> str:
    """The settings as Python text."""
    return "{" + ", ".join(f"{k!r}: {_literal(v)}" for k, v in p.settings.items()) + "}"


def _literal(value: object) -> str:
    return f"float({str(value)!r})" if isinstance(value, float) and not math.isfinite(value) else repr(value)


def _comment(text: str) -> list[str]:
    return [f"    # {visible(line.rstrip())}" for line in text.split("\n")] if text else []


def _calls(recipe: Recipe, names: Sequence[str]) -> str:
    lines = ["", "", "def calls(mine, given):", f'    """{_CALLS}"""']
    lines += [f"    {p.name} = mine[{p.name!r}]" for p in recipe.pieces]
    lines += [f"    {line}" for line in recipe.lines]
    if not recipe.lines:
        known = ", ".join(n for n in names if n.partition("/")[0] not in ("parameters", "buffers", "rng", "optimizer")) or "no data"
        lines += [f"    raise NotImplementedError({f'calls() must run your step; given has {known}.'!r})", "    yield"]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Text that cannot end or escape the docstring that it stands in."""
    return one_line(visible(text)).replace("\\", "/").replace('"', "'")


_BUILD = "Your model and loss, as your training script makes them. Parameters and buffers are restored from the bundle afterwards."
_CALLS = "Each number that your step calls backward() on (or everything that it returns), in order."

_OPENING = '''"""Runs a training step again that went bad: step {step}, {when}.

{what}

    python replay.py [--code FOLDER] [--device DEVICE]

Needs {framework} and your code, not whynan. FOLDER is where your code is imported from. Exit code: 1 if the loss or a gradient is not
finite again, 0 if all are finite, 2 if it cannot run.
"""

import argparse
import functools
import importlib
import json
import pathlib
import sys
import traceback

'''

_YOURS = """

# ---------------------------------------------------------------- your code: look through this part
"""

_REST = '''

# ---------------------------------------------------------------- the rest needs no change


def imported(path):
    """An object by "package.module:Name"."""
    module, _, name = path.partition(":")
    return functools.reduce(getattr, name.split("."), importlib.import_module(module))


def unknown(what):
    """Stands for an argument that could not be saved."""
    raise NotImplementedError(f"write this argument into calls(): {what}")


def raw_tensors():
    """Name, safetensors' name of the dtype, shape and bytes of each tensor of the bundle."""
    file = pathlib.Path(__file__).resolve().parent / "tensors.safetensors"
    if not file.exists():
        return
    data = file.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    for name, entry in json.loads(data[8:start]).items():
        first, last = (start + n for n in entry["data_offsets"])
        yield name, entry["dtype"], entry["shape"], bytearray(data[first:last])


def told(name, value, wrong, first):
    """Print one result; returns whether it is not finite."""
    if wrong:
        print(f"{name} is not finite: {wrong} element{'s' if wrong > 1 else ''}, the first at {first}: {value}")
    return wrong > 0


'''

_MAIN = '''

def main():
    """Run the step and say whether anything is not finite."""
    parser = argparse.ArgumentParser(description="Run a training step again that went bad.")
    parser.add_argument("--code", action="append", default=[], help="folder that your code is imported from")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    sys.path[:0] = [*options.code, ".", *CODE]
    if LEFT_OUT:
        print(f"not in the bundle: {', '.join(LEFT_OUT)}; load them in build() if you have them", file=sys.stderr)
    if SAMPLES is not None:
        print(f"of the batch, the bundle has only the samples {SAMPLES}", file=sys.stderr)
    failed = run(options.device)
    print("It failed again." if failed else "It did not fail: everything is finite here.")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        code = main()
    except Exception:
        traceback.print_exc()
        code = 2
    sys.exit(code)
'''
