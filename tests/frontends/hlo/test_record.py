"""Recording: what is inlined, unrolled and contracted, what is forward and what backward, and what stays unknown by name."""

from pathlib import Path

import numpy as np
import pytest

from whynan.analysis.evaluate import evaluate
from whynan.errors import OpError
from whynan.frontends.hlo.lower._table import CUSTOM_CALLS, OPCODES, lowers
from whynan.frontends.hlo.parse import Metadata, parse
from whynan.frontends.hlo.record import Spot, record
from whynan.frontends.trace import Recording, finished
from whynan.ir.dtype import FLOAT32, flushed
from whynan.ir.graph import BACKWARD, FORWARD, Graph, Output
from whynan.ir.where import Site

TEXTS = Path(__file__).parent / "texts"


def spot(metadata: Metadata) -> Spot:
    if not metadata.frames:
        return Spot(None, metadata.op_name.removeprefix("gradient_tape/"), metadata.op_name.startswith("gradient_tape"))
    f = metadata.frames[0]
    return Spot(Site(f.file, f.line, f.end_line, f.column, f.end_column, "", f.function), str(f), "transpose(" in metadata.op_name)


def graph_of(text: str, *shapes: tuple[int, ...], losses: int = 1) -> Graph:
    recording = Recording()
    inputs = {f"x{i}": recording.builder.add("input", (), s, flushed(FLOAT32)) for i, s in enumerate(shapes)}
    results = record(recording, parse(text), list(inputs.values()), spot, losses)
    return finished(recording, inputs, [Output("loss", f"r{i}", n) for i, n in enumerate(results)]).graph


def program(body: str, parameters: str = "x: f32[3], y: f32[3]", others: str = "") -> str:
    """A module with an entry of that body."""
    return f"HloModule m\n\n{others}\n\nENTRY %main ({parameters}) -> f32[3] {{\n{body}\n}}\n"


INPUTS = "  %x = f32[3]{0} parameter(0)\n  %y = f32[3]{0} parameter(1)\n"


def ops(graph: Graph) -> list[str]:
    return [n.op for n in graph.nodes]


@pytest.mark.parametrize("name", ["jax_std", "tensorflow_std"])
def test_a_whole_program(name: str) -> None:
    graph = graph_of((TEXTS / f"{name}.hlo").read_text(), (4, 3), (4, 3))
    assert not [op for op in ops(graph) if op.startswith("unknown")]
    assert {n.phase for n in graph.nodes} == {FORWARD, BACKWARD}
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((4, 3)).astype(np.float32), rng.random((4, 3)).astype(np.float32)
    loss, gradient = (evaluate(graph, {"x0": x, "x1": t})[o.node] for o in graph.outputs)
    h = np.float32(1e-2)
    x[1, 2] += h
    above = evaluate(graph, {"x0": x, "x1": t})[graph.outputs[0].node]
    x[1, 2] -= 2 * h
    below = evaluate(graph, {"x0": x, "x1": t})[graph.outputs[0].node]
    assert loss is not None and gradient is not None and above is not None and below is not None
    slope = (above.astype(np.float64) - below) / (2 * h)
    assert slope == pytest.approx(gradient[1, 2], rel=1e-2, abs=1e-2 * max(1.0, abs(float(loss)) * 1e-2))


def test_a_backward_node_derives_from_the_forward_one_at_its_place() -> None:
    graph = graph_of((TEXTS / "jax_std.hlo").read_text(), (4, 3), (4, 3))
    by_source = {n.source: n for n in graph.nodes if n.phase == FORWARD and n.source >= 0}
    of_log = [n for n in graph.nodes if n.phase == BACKWARD and n.op == "div" and n.site is not None and n.site.column == 42]
    assert [by_source[n.derives].op for n in of_log] == ["log"]
    of_root = [n for n in graph.nodes if n.phase == BACKWARD and n.op == "div" and n.site is not None and n.site.line == 8]
    assert [by_source[n.derives].op for n in of_root] == ["sqrt"]


def test_each_instruction_has_a_source_of_its_own() -> None:
    graph = graph_of(program(INPUTS + "  %a = f32[3]{0} add(%x, %y)\n  ROOT %b = f32[3]{0} log(%a)"), (3,), (3,))
    assert [(n.op, n.spelling) for n in graph.nodes[2:]] == [("add", "hlo.add"), ("log", "hlo.log")]
    assert len({n.source for n in graph.nodes[2:]}) == 2


FUSED = """%fused (a: f32[3], b: f32[3], c: f32[3]) -> f32[3] {
  %a = f32[3]{0} parameter(0)
  %b = f32[3]{0} parameter(1)
  %m = f32[3]{0} multiply(%a, %b)
  ROOT %s = f32[3]{0} add(%m, %a)
}
"""


def test_a_product_in_a_fusion_may_be_contracted() -> None:
    graph = graph_of(program(INPUTS + "  ROOT %f = f32[3]{0} fusion(%x, %y), kind=kLoop, calls=%fused", others=FUSED), (3,), (3,))
    assert ops(graph)[2:] == ["mul", "add", "fma", "either"]


def test_a_product_outside_of_a_fusion_is_rounded() -> None:
    graph = graph_of(program(INPUTS + "  %m = f32[3]{0} multiply(%x, %y)\n  ROOT %s = f32[3]{0} add(%m, %x)"), (3,), (3,))
    assert ops(graph)[2:] == ["mul", "add"]


def test_a_product_of_another_kernel_is_rounded() -> None:
    body = "  %m = f32[3]{0} multiply(%x, %y)\n  ROOT %f = f32[3]{0} fusion(%m, %y), kind=kLoop, calls=%plus"
    plus = FUSED.replace("multiply", "maximum").replace("fused", "plus")
    assert "fma" not in ops(graph_of(program(INPUTS + body, others=plus), (3,), (3,)))


def test_a_product_by_a_power_of_two_needs_no_rounding() -> None:
    halved = FUSED.replace("%b = f32[3]{0} parameter(1)", "%h = f32[] constant(0.5)\n  %b = f32[3]{0} broadcast(%h), dimensions={}")
    graph = graph_of(program(INPUTS + "  ROOT %f = f32[3]{0} fusion(%x), kind=kLoop, calls=%fused", others=halved), (3,), (3,))
    assert "fma" not in ops(graph)


def test_a_number_that_is_repeated_stands_as_one() -> None:
    body = "  %one = f32[] constant(1)\n  %ones = f32[3]{0} broadcast(%one), dimensions={}\n  ROOT %s = f32[3]{0} subtract(%ones, %x)"
    graph = graph_of(program(INPUTS + body), (3,), (3,))
    assert [(n.op, n.shape) for n in graph.nodes[2:]] == [("const", ()), ("sub", (3,))]


def test_an_opcode_without_a_lowering_is_unknown_by_name() -> None:
    graph = graph_of(program(INPUTS + "  ROOT %s = f32[3]{0} fft(%x), fft_type=FFT"), (3,), (3,))
    assert ops(graph)[-1] == "unknown:hlo.fft"
    assert graph.nodes[-1].inputs == (graph.inputs["x0"],)


def test_a_custom_call_is_unknown_by_its_target() -> None:
    graph = graph_of(program(INPUTS + '  ROOT %s = f32[3]{0} custom-call(%x), custom_call_target="mystery"'), (3,), (3,))
    assert ops(graph)[-1] == "unknown:hlo.mystery"


def test_a_loop_that_depends_on_values_is_unknown() -> None:
    others = """%body (s: f32[3]) -> f32[3] {
  %s = f32[3]{0} parameter(0)
  ROOT %d = f32[3]{0} add(%s, %s)
}

%going (s: f32[3]) -> pred[] {
  %s = f32[3]{0} parameter(0)
  %first = f32[1]{0} slice(%s), slice={[0:1]}
  %number = f32[] reshape(%first)
  %limit = f32[] constant(100)
  ROOT %less = pred[] compare(%number, %limit), direction=LT
}
"""
    graph = graph_of(program(INPUTS + "  ROOT %w = f32[3]{0} while(%x), condition=%going, body=%body", others=others), (3,), (3,))
    assert ops(graph)[-1] == "unknown:hlo.while"


def test_two_lowerings_of_one_opcode_are_refused() -> None:
    with pytest.raises(OpError):
        lowers("add")(OPCODES["add"])
    assert not set(OPCODES) & set(CUSTOM_CALLS)


def test_numbers_that_rounding_has_changed_are_kept_as_the_source_has_them() -> None:
    body = """  %x = f32[3]{0} parameter(0)
  %low = f32[] constant(1e-08)
  %high = f32[] constant(1)
  ROOT %c = f32[3]{0} clamp(%low, %x, %high), metadata={op_name="clamp"}"""
    recording = Recording()
    x = recording.builder.add("input", (), (3,), flushed(FLOAT32))
    site = Site("losses.py", 1, 1, 0, 25, "clip(x, 1e-8, 1 - 1e-8)", "loss")
    module = parse(program(body, "x: f32[3]"))
    for place, more in ((Spot(site), {"low_written": 1e-8, "high_written": 1 - 1e-8}), (Spot(), {})):
        (result,) = record(recording, module, [x], lambda metadata, place=place: place)
        nodes = finished(recording, {"x": x}, [Output("loss", "loss", result)]).graph.nodes
        assert nodes[-1].attrs == {"low": float(np.float32(1e-8)), "high": 1.0, **more}
