"""Terms: text and back, places in a term."""

import pytest

from whynan.ir.term import TermError, at, is_number, leaf, leaves, number, parse, put, term, walk

TEXTS = """
log(softmax(x, axis=-1) + 1e-08)
-(t * log(sigmoid(x)) + (1 - t) * log(1 - sigmoid(x)))
a - (b - c)
a - b - c
a ** (-2)
(-a) ** 2
-a * b
2 ** 3 ** x
(2 ** x) ** y
where(x > 0, sqrt(x), 0)
leaf('x[:, 0]') / 3
sum(x, axis=(0, 1), keepdims=True)
number('inf') * x
move(x, i, text='{0}[{1}]')
a @ b
""".strip().splitlines()


@pytest.mark.parametrize("text", TEXTS)
def test_a_term_prints_as_it_was_written(text):
    assert str(parse(text)) == text


@pytest.mark.parametrize("text", ["x +", "x if y else z", "f(*x)", "x.y", "'a'"])
def test_what_is_no_term_is_refused(text):
    with pytest.raises(TermError):
        parse(text)


def test_attributes_come_in_any_order():
    assert term("sum", leaf("x"), keepdims=True, axis=1) == term("sum", leaf("x"), axis=1, keepdims=True)


def test_a_sub_term_is_found_and_replaced():
    t = parse("log(1 - p) + p")
    path = next(path for path, s in walk(t) if s.op == "log")
    assert str(at(t, path)) == "log(1 - p)"
    assert str(put(t, path, parse("log1p(-p)"))) == "log1p(-p) + p"
    assert leaves(t) == ("p",)
    assert is_number(number(1), 1.0) and not is_number(leaf("p"))
