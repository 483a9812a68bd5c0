"""The notation as text: what it reads, what it refuses, and that it never runs anything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whynan.domain import spec
from whynan.domain.parse import parse, parse_assignment, parse_assignments
from whynan.errors import DomainError


def same(a, b):
    return (a.kind, a.shape, a.dtype, a.low, a.high, a.grad) == (b.kind, b.shape, b.dtype, b.low, b.high, b.grad)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("prob(8, 1)", spec.prob(8, 1)),
        (" prob( 8,\n 1 ) ", spec.prob(8, 1)),
        ("real(3, low=-1, high=1, dtype='float16')", spec.real(3, low=-1, high=1, dtype="float16")),
        ("real(3, low=-1e-3, high=+1e4)", spec.real(3, low=-1e-3, high=1e4)),
        ("real((2, 3), dtype=bfloat16)", spec.real(2, 3, dtype="bfloat16")),
        ("real(3, dtype=torch.float64)", spec.real(3, dtype="float64")),
        ("whynan.prob(3)", spec.prob(3)),
        ("real(3, low=-inf, high=inf)", spec.real(3, low=float("-inf"), high=float("inf"))),
        ("logit(4, grad=False)", spec.logit(4, grad=False)),
        ("classes(10, 5)", spec.classes(10, 5)),
        ("classes(n=10)", spec.classes(10)),
        ("integers(-3, 100, 4, dtype='int32')", spec.integers(-3, 100, 4, dtype="int32")),
        ("const([[1, 2], [3, 4]])", spec.const([[1, 2], [3, 4]])),
        ("0.25", spec.const(0.25)),
        ("[0.0, -1.0]", spec.const([0.0, -1.0])),
        ("mask()", spec.mask()),
    ],
)
def test_reads(text, meant):
    assert same(parse(text), meant)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a domain"),
        ("prob(8", "is not a domain"),
        ("(" * 5000, "is not a domain"),
        ("porb(8)", "Did you mean prob?"),
        ("banana(8)", "Use one of real, prob"),
        ("prob", "needs a shape"),
        ("prob(8, lo=0)", "no keyword 'lo'"),
        ("prob(**{'low': 0})", "is not a number"),
        ("prob(*[8])", "is not a number"),
        ("real(x)", "'x' in 'real(x)' is not a number"),
        ("real(3, low=1+1)", "is not a number"),
        ("real(-True)", "is not a number"),
        ("classes()", "does not fit classes. It takes n, *shape"),
        ("integers(1)", "does not fit integers"),
        ("real(1)(2)", "there is no domain"),
        ("real(1j)", "is not a number"),
        ("lambda: 0", "is not a number"),
        ("prob(8); prob(9)", "is not a domain"),
    ],
)
def test_refuses_in_one_line(text, said):
    with pytest.raises(DomainError) as caught:
        parse(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_nothing_is_evaluated(tmp_path):
    proof = tmp_path / "ran"
    opened = f"open({str(proof)!r}, 'w')"
    for text in (opened, f"real({opened})", f"prob(8, low={opened})", f"prob(8, dtype={opened})", f"[{opened}]", f"(lambda: {opened})()"):
        with pytest.raises(DomainError):
            parse(text)
    assert not proof.exists()


def test_assignments():
    assert parse_assignment("p=real(3, low=-1)")[0] == "p"
    both = parse_assignments(["p=prob(8, 1)", " t = binary(8, 1)"])
    assert [d.kind for d in both.values()] == ["prob", "binary"]
    with pytest.raises(DomainError, match="given twice"):
        parse_assignments(["p=prob(8)", "p=prob(8)"])
    for bad in ("prob(8)", "=prob(8)", "1p=prob(8)", "p", ""):
        with pytest.raises(DomainError, match="is not NAME=DOMAIN"):
            parse_assignment(bad)
    with pytest.raises(DomainError, match=r"^p: there is no domain 'porb'"):
        parse_assignment("p=porb(8)")


sizes = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)
bounds = st.floats(-3e4, 3e4)


@given(sizes, bounds, bounds, st.sampled_from(["float32", "float64", "float16", "bfloat16"]), st.sampled_from([None, True, False]))
def test_what_is_printed_is_read_back(shape, a, b, dtype, grad):
    try:
        domain = spec.real(*shape, low=min(a, b), high=max(a, b), dtype=dtype, grad=grad)
    except DomainError:
        return  # no value of the dtype lies between
    assert same(parse(str(domain)), domain)


@pytest.mark.parametrize(
    "domain",
    [
        *(maker(2, 3) for name, maker in spec.CONSTRUCTORS.items() if name not in ("classes", "integers", "const")),
        spec.classes(5, 2),
        spec.integers(-4, 4, 2, dtype="int8"),
        spec.const([1, 2, 3]),
        spec.const([0.5], dtype="float16"),
        spec.positive(3, dtype="bfloat16"),
        spec.simplex(5, low=0.1, high=0.3),
    ],
    ids=str,
)
def test_every_kind_is_read_back(domain):
    assert same(parse(str(domain)), domain)


@given(st.text(max_size=40))
def test_any_text_is_a_domain_or_a_domain_error(text):
    said = ""
    try:
        made = parse(text)
    except DomainError as error:
        made, said = None, str(error)
    assert isinstance(made, spec.Domain) or said
    assert "\n" not in said
