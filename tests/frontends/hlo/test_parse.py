"""The parser on texts that JAX and TensorFlow printed, and on one with everything odd that HLO's grammar allows."""

from pathlib import Path

import numpy as np
import pytest

from whynan.errors import TargetError
from whynan.frontends.hlo.parse import Frame, Instruction, Module, Type, entries, literal, numbers, parse, pieces

TEXTS = Path(__file__).parent / "texts"
NAMES = ("jax_std", "tensorflow_std", "odd")


def module(name: str) -> Module:
    return parse((TEXTS / f"{name}.hlo").read_text())


def instruction(name: str) -> Instruction:
    return next(i for i in module("odd").entry.instructions if i.name == name)


def printed(m: Module) -> str:
    """A module as text again, in one fixed form."""

    def kind(t: object) -> str:
        if isinstance(t, tuple):
            return f"({', '.join(map(kind, t))})"
        assert isinstance(t, Type)
        return f"{t.element}[{','.join(map(str, t.dims))}]{{{','.join(map(str, t.layout))}}}"

    def line(i: Instruction) -> str:
        inside = i.literal or ", ".join(f"%{o}" for o in i.operands)
        attributes = "".join(f", {k}={v}" for k, v in i.attributes.items())
        quoted = i.metadata.op_name.replace('"', '\\"')
        return f'%{i.name} = {kind(i.type)} {i.opcode}({inside}){attributes}, metadata={{op_name="{quoted}"}}'

    out = [f"HloModule {m.name}"]
    for c in m.computations.values():
        body = [("ROOT " if i is c.root else "") + line(i) for i in c.instructions]
        out.append("\n".join([("ENTRY " if c is m.entry else "") + f"%{c.name} () -> f32[] {{", *body, "}"]))
    return "\n\n".join(out)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_printed_again_parses_to_the_same(name: str) -> None:
    once = module(name)
    again = parse(printed(once))
    assert printed(again) == printed(once)
    assert [c.name for c in again.computations.values()] == [c.name for c in once.computations.values()]


@pytest.mark.parametrize("name", NAMES)
def test_every_operand_and_computation_is_defined(name: str) -> None:
    m = module(name)
    for c in m.computations.values():
        seen: set[str] = set()
        for i in c.instructions:
            assert set(i.operands) <= seen, f"{i.name} reads what stands after it"
            seen.add(i.name)
            for key in ("calls", "to_apply"):
                assert key not in i.attributes or i.attributes[key].lstrip("%") in m.computations


@pytest.mark.parametrize(("name", "entry", "computations"), [("jax_std", "main.15", 14), ("odd", "main", 2)])
def test_the_entry_and_all_computations_are_found(name: str, entry: str, computations: int) -> None:
    m = module(name)
    assert m.entry.name == entry
    assert len(m.computations) == computations


def test_frames_are_innermost_first_with_lines_and_columns() -> None:
    root = module("jax_std").computations["fused_computation.4"].root
    assert root.opcode == "sqrt"
    assert root.metadata.op_name == "jit(loss)/jvp(jit(_std))/sqrt"
    assert root.metadata.frames == (
        Frame("/home/user/losses.py", "loss", 8, 8, 8, 26),
        Frame("/home/user/losses.py", "<module>", 12, 12, 2, 47),
    )


def test_frames_whose_parents_are_counted_from_nothing() -> None:
    frames = instruction("laid").metadata.frames
    assert [f.function for f in frames] == ["inner", "loss"]
    assert frames[0].file == '/home/user/a "quoted" name.py'


def test_the_older_form_of_metadata() -> None:
    metadata = instruction("e0").metadata
    assert (metadata.op_type, metadata.source_file, metadata.source_line) == ("Sub", "/home/user/b.py", 12)
    assert metadata.op_name == 'scope/a = b, {c} /*not a comment*/ "q"'


def test_types_with_layouts_tuples_and_dynamic_dimensions() -> None:
    assert instruction("laid").type == Type("f32", (2, 3), (0, 1))
    assert instruction("t").type == (Type("s32"), Type("pred", (4,), (0,)))
    assert instruction("out").type == (Type("f32", (2, 3), (0, 1)), (Type("s32"), Type("bf16", (2,), (0,))))


def test_operands_lose_their_comments_and_types() -> None:
    assert instruction("inner").operands == ("e0", "halves")
    assert module("odd").computations["add"].root.operands == ("a", "b")


def test_attributes_keep_their_text() -> None:
    assert instruction("laid").attributes == {"backend_config": '{"known":{"n":"5"},"text":"a, b) {"}'}
    assert instruction("out").attributes == {"frontend_attributes": '{a="b,c"}'}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("numbers", np.array([[1, -2.5, np.nan], [np.inf, -np.inf, 1e-45]], np.float32)),
        ("long", np.array([1, 2, 3, 4], np.int32)),
        ("bits", np.array([True, False, False, True])),
        ("hex", np.float64(0.1875)),
        ("payload", np.float32(np.nan)),
        ("flag", np.bool_(True)),
        ("nothing", np.zeros((0, 3), np.float32)),
        ("halves", np.array([0.5, -1.25], np.float32)),
    ],
)
def test_literals(name: str, value: np.ndarray) -> None:
    found = instruction(name)
    assert isinstance(found.type, Type)
    array = literal(found.literal, found.type)
    assert array is not None
    assert array.shape == value.shape
    np.testing.assert_array_equal(array.astype(value.dtype), value)


def test_a_literal_that_is_left_out_has_no_value_unless_it_is_given() -> None:
    kind = Type("f32", (100,), (0,))
    assert literal("{...}", kind) is None
    given = np.arange(100, dtype=np.float32)
    m = parse((TEXTS / "odd.hlo").read_text(), {"left_out": given})
    assert next(i for i in m.entry.instructions if i.name == "left_out").value is given


def test_attribute_texts() -> None:
    assert numbers("{0,-1, 12}") == (0, -1, 12)
    assert entries("{[0:4:2], [0:3]}") == ["[0:4:2]", "[0:3]"]
    assert pieces('a, {b, c}, "d, e"') == ["a", "{b, c}", '"d, e"']


@pytest.mark.parametrize("text", ["", "no module at all", "HloModule empty\n", "HloModule m\n%c () -> f32[] {\n}\n"])
def test_what_is_no_module_is_refused(text: str) -> None:
    with pytest.raises(TargetError):
        parse(text)


def test_an_instruction_that_cannot_be_read_is_named() -> None:
    with pytest.raises(TargetError, match="mystery"):
        parse("HloModule m\n\nENTRY %c () -> f32[] {\n  ROOT %mystery is not an instruction\n}\n")
