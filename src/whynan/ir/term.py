"""Terms: the expression of a loss as a tree, as a reader of the source sees it and as a rewriter changes it.

A `Term` is an operation applied to terms. The names are those of `whynan.ops` wherever an op of that name exists; the
axes are the source's own (as written: `axis=-1`, `axis=(0, 1)`, `axis=None` for all), and results have the shape that the
source's call gives (`keepdims` says whether reduced axes stay). What the reader of the source does not understand is a *leaf*.

| op | args | attrs | meaning |
|---|---|---|---|
| `leaf` | | `name` | a source expression that is not looked into (its text, usually a variable's name) |
| `number` | | `value` (float) | a literal, also one folded from literals: `1e-8`, `math.pi` |
| `neg abs exp exp2 expm1 log log2 log10 log1p sqrt rsqrt square reciprocal sign` | x | | elementwise |
| `sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf sigmoid logsigmoid softplus relu` | x | | elementwise |
| `add sub mul div pow maximum minimum atan2 logaddexp xlogy hypot divide_no_nan` | x, y | | `xlogy(x, y)` = x log y, 0 where x = 0 |
| `eq ne lt le gt ge` `logical_and logical_or logical_not` | x, y (x) | | booleans |
| `where` | condition, a, b | | `masked_fill(x, m, v)` is `where(m, v, x)` |
| `clamp` · `clamp_min` · `clamp_max` | x, low, high · x, low · x, high | | limits are terms (numbers, mostly) |
| `sum mean amax amin prod logsumexp` `any all` | x | `axis`, `keepdims` | reductions |
| `norm` | x | `axis`, `keepdims`, `p` | p-norm |
| `var std` | x | `axis`, `keepdims`, `correction` | |
| `softmax log_softmax cumsum` | x | `axis` | |
| `normalize` | x | `axis`, `p` (2.0), `eps` | x / max(norm(x), eps), `F.normalize` |
| `cosine_similarity` | x, y | `axis` | |
| `gather` | x, index | `axis` | elements picked along an axis |
| `matmul` | x, y | | |
| `det logdet slogdet_log` `cholesky inverse` | x | | `slogdet_log` is the log of the absolute determinant |
| `bce_with_logits` · `binary_cross_entropy` | logits, target · probabilities, target | | elementwise; a mean around it is a `mean` |
| `nll` · `cross_entropy` | log-probabilities, index · logits, index | `axis` | per sample, class indices as targets |
| `kl_div` | log-probabilities, target | | elementwise t (log t - x) |
| `cast` | x | `dtype` (`"float32"`) | `x.float()`, `x.to(torch.float32)`, `tf.cast` |
| `dtype_of` | x, y | | x converted to the dtype of y |
| `detach` | x | | no gradient passes (`detach`, `tf.stop_gradient`, `lax.stop_gradient`) |
| `zeros_like ones_like` | x | | |
| `finfo_eps finfo_tiny finfo_max finfo_min` | x | | a limit of x's own dtype (`torch.finfo(x.dtype).eps`) |
| `move` | x, … | `text` | elements of x moved, picked or repeated, none computed: `{0}[:, None]`, `{0}.reshape(n, -1)`, `{0}[{1}]` |
| `opaque` | … | `text` | any other call, with the arguments that are understood: `my_layer({0}, k)` |

In `text`, `{0}`, `{1}` … stand for the arguments. An attribute that is not a literal is its source text (a `str`). One that is None
or False is absent: `sum(x)` is the sum over everything, without `keepdims`.
Text form (`str(term)`, `parse`): Python's infix operators and calls, attributes as keywords: `log(softmax(x, axis=-1) + 1e-8)`.
"""

import ast
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace

from whynan.errors import WhynanError

Path = tuple[int, ...]
Attr = tuple[str, Hashable]

INFIX = {
    "add": ("+", 4), "sub": ("-", 4), "mul": ("*", 5), "div": ("/", 5), "pow": ("**", 7), "matmul": ("@", 5),
    "eq": ("==", 2), "ne": ("!=", 2), "lt": ("<", 2), "le": ("<=", 2), "gt": (">", 2), "ge": (">=", 2),
}  # fmt: skip
_BINARY = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.Pow: "pow", ast.MatMult: "matmul"}
_COMPARED = {ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge"}


class TermError(WhynanError):
    """A text is not a term, or a term cannot be computed (it holds a leaf without a value, or an opaque call)."""


@dataclass(frozen=True, slots=True)
class Term:
    """An operation on terms: see the module's table. `attrs` are sorted by name."""

    op: str
    args: tuple["Term", ...] = ()
    attrs: tuple[Attr, ...] = ()

    def attr(self, name: str, default: Hashable = None) -> Hashable:
        """The attribute of that name."""
        return next((value for key, value in self.attrs if key == name), default)

    def __str__(self) -> str:
        return _text(self, 0)


def term(op: str, *args: Term, **attrs: Hashable) -> Term:
    """A term; attributes as keywords, in any order. None and False are what an absent attribute means: they are left out."""
    return Term(op, args, tuple(sorted((k, v) for k, v in attrs.items() if v is not None and v is not False)))


def leaf(name: str) -> Term:
    """A source expression that is not looked into."""
    return Term("leaf", (), (("name", name),))


def number(value: float) -> Term:
    """A literal."""
    return Term("number", (), (("value", float(value)),))


def is_number(t: Term, value: float | None = None) -> bool:
    """Whether a term is a literal (of that value)."""
    return t.op == "number" and (value is None or t.attr("value") == value)


def value_of(t: Term) -> float:
    """A literal's value; TermError for anything else."""
    value = t.attr("value")
    if t.op != "number" or not isinstance(value, float):
        raise TermError(f"{t} is not a number.")
    return value


def name_of(t: Term) -> str:
    """A leaf's text; TermError for anything else."""
    name = t.attr("name")
    if t.op != "leaf" or not isinstance(name, str):
        raise TermError(f"{t} is not a leaf.")
    return name


# ---------------------------------------------------------------- places in a term


def walk(t: Term, path: Path = ()) -> Iterator[tuple[Path, Term]]:
    """Each sub-term with its path, outermost first."""
    yield path, t
    for i, arg in enumerate(t.args):
        yield from walk(arg, (*path, i))


def at(t: Term, path: Path) -> Term:
    """The sub-term at a path; IndexError if there is none."""
    for i in path:
        t = t.args[i]
    return t


def put(t: Term, path: Path, new: Term) -> Term:
    """The term with another sub-term at that path."""
    if not path:
        return new
    first, rest = path[0], path[1:]
    args = tuple(put(arg, rest, new) if i == first else arg for i, arg in enumerate(t.args))
    return replace(t, args=args)


def leaves(t: Term) -> tuple[str, ...]:
    """The names of a term's leaves, in order, each once."""
    return tuple(dict.fromkeys(name_of(s) for _, s in walk(t) if s.op == "leaf"))


def size(t: Term) -> int:
    """How many operations, leaves and literals a term has."""
    return 1 + sum(size(a) for a in t.args)


# ---------------------------------------------------------------- text


def _text(t: Term, tight: int) -> str:
    if t.op == "leaf":
        name = name_of(t)
        return name if name.isidentifier() else f"leaf({name!r})"
    if t.op == "number":
        text = repr(value_of(t)).removesuffix(".0")
        if text in ("inf", "-inf", "nan"):
            return f"number({text!r})"
        return f"({text})" if text.startswith("-") and tight > 4 else text
    if t.op == "neg":
        text, level = f"-{_text(t.args[0], 6)}", 6
    elif t.op in INFIX and len(t.args) == 2 and not t.attrs:
        sign, level = INFIX[t.op]
        left, right = (level + 1, level) if t.op == "pow" else (level, level + 1)
        text = f"{_text(t.args[0], left)} {sign} {_text(t.args[1], right)}"
    else:
        parts = [_text(a, 0) for a in t.args] + [f"{k}={v!r}" for k, v in t.attrs]
        return f"{t.op}({', '.join(parts)})"
    return f"({text})" if level < tight else text


def parse(text: str) -> Term:
    """The term that a text stands for (see the module's docstring); TermError if it is none."""
    try:
        return _parsed(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError) as e:
        raise TermError(f"{text!r} is not a term: {e}.") from e


def _parsed(node: ast.expr) -> Term:
    match node:
        case ast.Name(id=name):
            return leaf(name)
        case ast.Constant(value=bool() | int() | float() as value):
            return number(value)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return number(-value)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return term("neg", _parsed(operand))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return term(_BINARY[type(op)], _parsed(left), _parsed(right))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARED:
            return term(_COMPARED[type(op)], _parsed(left), _parsed(right))
        case ast.Call(func=ast.Name(id="leaf"), args=[ast.Constant(value=str(name))]):
            return leaf(name)
        case ast.Call(func=ast.Name(id="number"), args=[ast.Constant(value=str(name))]):
            return number(float(name))
        case ast.Call(func=ast.Name(id=op_name), args=args, keywords=keywords):
            return term(op_name, *map(_parsed, args), **{k.arg or "": _attribute(k.value) for k in keywords})
    raise TermError(f"{ast.unparse(node)!r} is not a term.")


def _attribute(node: ast.expr) -> Hashable:
    """An attribute's value; a name stands for its own text."""
    value: Hashable = node.id if isinstance(node, ast.Name) else ast.literal_eval(node)
    return value
