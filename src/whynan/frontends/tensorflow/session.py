"""The surroundings of one run: the seed, gradients as usual, silence; and the framework's errors in one line that a person understands."""

import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import tensorflow as tf
from absl import logging as absl_logging
from tensorflow.python.eager import context
from tensorflow.python.framework import op_callbacks

from whynan.frontends.trace import first_line

_PREFIX = re.compile(r"^\{\{function_node [^}]*\}\}\s*|^(?:[a-zA-Z_]*Error: )?in user code:\s*$")
_SUFFIX = re.compile(r"\s*\[Op:[^\]]*\]( name:.*)?$|\s*\[\[\{\{node .*$")
_NODE = re.compile(r"'\{\{node [^}]*\}\} = (\w+)\[[^']*'")
_GRAPH = re.compile(r" graph __inference_\w+\[[^\]]*\]")
_NOISE = re.compile(
    r"^(File |Detected at node|Graph execution error|Stack trace for op|\(\d\) |\[\[\{\{|in user code:|Call arguments received|Original)"
)
_RAISED = re.compile(r"^(?:[\w.]*\.)?(\w*(?:Error|Exception|Warning|Exit))(?:: (.*))?$")


@contextmanager
def session(seed: int, *, python: bool, seeded: bool = True) -> Iterator[None]:
    """The given seed and silence; `python` runs the Python body of every `tf.function`. Afterwards TensorFlow's settings are as before.

    Without `seeded` random numbers go on from where they are: a new seed makes TensorFlow forget its kernels, which costs milliseconds.
    """
    ctx = context.context()
    ctx.ensure_initialized()
    random = {name: vars(ctx).get(name) for name in ("_seed", "_rng")}
    eagerly = tf.config.functions_run_eagerly()
    try:
        with _silence(), _keras_seed(seed) if seeded else nullcontext():
            if seeded:
                tf.random.set_seed(seed)
            if eagerly != python:
                tf.config.run_functions_eagerly(python)
            yield
    finally:
        if eagerly != python:
            tf.config.run_functions_eagerly(eagerly)
        vars(ctx).update(random)


@contextmanager
def _keras_seed(seed: int) -> Iterator[None]:
    """Keras' own generator of seeds starts from the given one inside; afterwards it goes on as before."""
    module = sys.modules.get("keras.src.random.seed_generator")
    if module is None:
        yield
        return
    state = module.global_seed_generator().state
    before = state.value.read_value()
    try:
        state.assign([seed % 2**31, 0])
        yield
    finally:
        state.assign(before)


# ops that draw from a generator which only a new seed starts again
DRAWING = frozenset(
    {
        *("RandomUniform", "RandomUniformInt", "RandomStandardNormal", "TruncatedNormal", "ParameterizedTruncatedNormal", "Multinomial"),
        *("RandomGamma", "RandomPoisson", "RandomPoissonV2", "RandomShuffle", "StatefulRandomBinomial", "LogUniformCandidateSampler"),
        *("UniformCandidateSampler", "LearnedUnigramCandidateSampler", "FixedUnigramCandidateSampler", "AllCandidateSampler"),
    }
)


@contextmanager
def watching_draws() -> Iterator[list[str]]:
    """A list of the random ops that run inside."""
    seen: list[str] = []

    def watch(op_type: Any, inputs: Any, attrs: Any, outputs: Any, op_name: Any = None, graph: Any = None) -> None:
        name = op_type.decode() if isinstance(op_type, bytes) else str(op_type)
        if name in DRAWING or name.startswith("StatelessRandom"):
            seen.append(name)

    op_callbacks.add_op_callback(watch)
    try:
        yield seen
    finally:
        op_callbacks.remove_op_callback(watch)


@contextmanager
def _silence() -> Iterator[None]:
    """No warnings of TensorFlow, AutoGraph or Python inside."""
    loggers = (tf.get_logger(), absl_logging.get_absl_logger())
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def said(error: BaseException) -> str:
    """The kind of an error and what it says, in one line: without node names, generated code and stack listings."""
    kind, lines = type(error).__name__, [line.strip() for line in str(error).splitlines()]
    if any(line.startswith("in user code:") for line in lines):  # AutoGraph: a listing, then the error as Python prints it
        found = [(i, m) for i, line in enumerate(lines) if (m := _RAISED.match(line)) and i]
        if found:
            kind, lines = found[-1][1][1], [found[-1][1][2] or "", *lines[found[-1][0] + 1 :]]
    useful = [text for line in lines if not _NOISE.match(line) and (text := _SUFFIX.sub("", _PREFIX.sub("", line)).strip())]
    if "Graph execution error" in str(error):  # the message stands below the listing
        useful = useful[-1:] if useful else []
    return f"{kind}: {_GRAPH.sub('', _NODE.sub(lambda m: m[1], useful[0]))}" if useful else first_line(error)
