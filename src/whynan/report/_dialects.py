"""How each framework's witness programs build arrays and run a loss: the texts that `script` puts together."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one framework builds arrays and runs a loss.

    `literal`, `full`, `assign` and `data` are templates for `str.format`, with the fields name, values (a Python literal), shape,
    dtype, index, value and data (an expression of little-endian bytes). `modes` maps a mode to the expression that makes the
    function `loss` run in it. `run` defines `run(loss)`, which returns what came out by name, and `wrong(value)`, the number of
    elements that are not finite and the index of the first.
    """

    imports: str
    literal: str
    full: str
    assign: str
    data: str
    modes: Mapping[str, str]
    run: str


_COMMON = """
def parameter(loss, name):
    \"\"\"The parameter of that name: of the loss itself, or of an object that it is bound to or refers to.\"\"\"
    while isinstance(loss, functools.partial):
        loss = loss.func
    function = inspect.unwrap(getattr(loss, "__func__", getattr(loss, "python_function", loss)))
    seen = inspect.getclosurevars(function) if inspect.isfunction(function) else None
    known = {**seen.globals, **seen.nonlocals} if seen else {}
    known.setdefault("self", getattr(loss, "__self__", loss))
    first, *rest = name.split(".")
    return reached(known[first], rest) if first in known else reached(loss, [first, *rest])


def reached(value, parts):
    \"\"\"What a dotted name leads to: by attributes, elements of lists and mappings, and paths of a Keras object's variables.\"\"\"
    if not parts:
        return value
    for variable in getattr(value, "variables", ()):
        if getattr(variable, "path", "").replace("/", ".") == ".".join(parts):
            return variable
    if isinstance(value, (list, tuple)):
        return reached(value[int(parts[0])], parts[1:])
    return reached(value[parts[0]] if isinstance(value, dict) else getattr(value, parts[0]), parts[1:])


def leaves(value):
    \"\"\"What a result consists of, however it is nested.\"\"\"
    if dataclasses.is_dataclass(value):
        value = vars(value)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else None
    return [value] if parts is None else [leaf for part in parts for leaf in leaves(part)]


def arguments(loss, values):
    \"\"\"The inputs by position and by name. A Keras object takes its own by position, whatever its `call` names them.\"\"\"
    first = POSITIONAL
    if not inspect.isroutine(loss) and callable(getattr(loss, "call", None)):
        first = [name for name in inspect.signature(loss.call).parameters if name in values]
    return [values[name] for name in first], {name: value for name, value in values.items() if name not in first}
"""

_WRONG = """

def wrong(value):
    \"\"\"How many elements are not finite, and where the first one is.\"\"\"
    places = np.argwhere(~np.isfinite(value.astype(np.float64)))
    return len(places), places[0].tolist() if len(places) else []
"""

_TOTAL = """

def total(parts):
    \"\"\"The loss as one number. Several elements are added up in float64, where they fit.\"\"\"
    if len(parts) == 1 and parts[0].size == 1:
        return parts[0]
    return np.asarray(sum(part.astype(np.float64).sum() for part in parts))
"""


# ---------------------------------------------------------------- PyTorch

_TORCH_RUN = (
    _COMMON
    + """

def own_parameter(loss, name):
    \"\"\"A module's own parameter, or one that the loss refers to; of a Keras variable, its tensor.\"\"\"
    if isinstance(loss, torch.nn.Module):
        return loss.get_parameter(name if name in dict(loss.named_parameters()) else name.removeprefix("self."))
    value = parameter(loss, name)
    return value if isinstance(value, torch.Tensor) else value.value


def run(loss):
    \"\"\"The loss (several elements are added up) and its gradients, by name.\"\"\"
    if isinstance(loss, type):
        loss = loss()
    own = {name: own_parameter(loss, name) for name in PARAMETERS}
    for name, value in PARAMETERS.items():
        own[name].data = value
    variables = {name: {**INPUTS, **own}[name] for name in GRADIENTS_BY}
    variables = {name: value.requires_grad_() for name, value in variables.items() if value.is_floating_point()}
    torch.manual_seed(SEED)
    first, others = arguments(loss, INPUTS)
    result = compiled(loss)(*first, **others)
    parts = [leaf for leaf in leaves(result) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]
    parts = parts or [torch.tensor(leaf) for leaf in leaves(result) if isinstance(leaf, float)]
    total = parts[0].detach() if len(parts) == 1 and parts[0].numel() == 1 else sum(part.detach().double().sum() for part in parts)
    roots = [part for part in parts if part.requires_grad]
    ones = [torch.ones_like(root) for root in roots]
    gradients = torch.autograd.grad(roots, list(variables.values()), ones, allow_unused=True) if roots and variables else []
    return {"loss": total, **{f"gradient by {name}": g for name, g in zip(variables, gradients) if g is not None}}


def wrong(value):
    \"\"\"How many elements are not finite, and where the first one is.\"\"\"
    places = (~torch.isfinite(value)).nonzero()
    return len(places), places[0].tolist() if len(places) else []
"""
)

_TORCH = Dialect(
    imports="import torch",
    literal="{name} = torch.tensor({values}, dtype=torch.{dtype})",
    full="{name} = torch.full({shape}, {value}, dtype=torch.{dtype})",
    assign="{name}[{index}] = {value}",
    data="{name} = torch.frombuffer(bytearray({data}), dtype=torch.{dtype}).reshape({shape})",
    modes={"eager": "loss", "compile": "torch.compile(loss)"},
    run=_TORCH_RUN,
)


# ---------------------------------------------------------------- TensorFlow

_TENSORFLOW_RUN = (
    _COMMON
    + _TOTAL
    + """

def eagerly(loss):
    \"\"\"The loss as it stands, with all that is decorated with tf.function run as plain Python.\"\"\"
    tf.config.run_functions_eagerly(True)
    return loss


def floating(result):
    \"\"\"The floating tensors of a result, variables read.\"\"\"
    found = [leaf for leaf in leaves(result) if tf.is_tensor(leaf) or hasattr(leaf, "value")]
    return [part for part in map(tf.convert_to_tensor, found) if part.dtype.is_floating]


def run(loss):
    \"\"\"The loss (several elements are added up) and its gradients, by name.\"\"\"
    if isinstance(loss, type):
        loss = loss()
    own = {name: parameter(loss, name) for name in PARAMETERS}
    for name, value in PARAMETERS.items():
        own[name].assign(value)
    own = {name: value if isinstance(value, tf.Variable) else value.value for name, value in own.items()}

    def step(inputs):
        \"\"\"Loss and gradients as one computation, so that a compiler sees both.\"\"\"
        variables = {name: {**inputs, **own}[name] for name in GRADIENTS_BY}
        variables = {name: value for name, value in variables.items() if value.dtype.is_floating}
        with tf.GradientTape() as tape:
            tape.watch(list(variables.values()))
            first, others = arguments(loss, inputs)
            parts = floating(loss(*first, **others))
        gradients = dict(zip(variables, tape.gradient(parts, list(variables.values()))))
        return parts, {name: tf.convert_to_tensor(g) for name, g in gradients.items() if g is not None}

    tf.random.set_seed(SEED)
    parts, gradients = compiled(step)({name: tf.constant(value) for name, value in INPUTS.items()})
    return {"loss": total([part.numpy() for part in parts]), **{f"gradient by {name}": g.numpy() for name, g in gradients.items()}}
"""
    + _WRONG
)

_TENSORFLOW = Dialect(
    imports="import numpy as np\nimport tensorflow as tf",
    literal='{name} = np.array({values}, "{dtype}")',
    full='{name} = np.full({shape}, {value}, "{dtype}")',
    assign="{name}[{index}] = {value}",
    data='{name} = np.frombuffer({data}, "{dtype}").reshape({shape})',
    modes={"eager": "eagerly(loss)", "function": "tf.function(loss)", "xla": "tf.function(loss, jit_compile=True)"},
    run=_TENSORFLOW_RUN,
)


# ---------------------------------------------------------------- JAX

_JAX_RUN = (
    """
if any(value.dtype == np.float64 for value in INPUTS.values()):
    jax.config.update("jax_enable_x64", True)

"""
    + _COMMON
    + _TOTAL
    + """

def run(loss):
    \"\"\"The loss (several elements are added up) and its gradients, by name.\"\"\"
    if isinstance(loss, type):
        loss = loss()

    def step(variables, inputs):
        \"\"\"Loss and gradients as one computation, so that a compiler sees both.\"\"\"

        def floating(variables):
            first, others = arguments(loss, {name: variables.get(name, value) for name, value in inputs.items()})
            found = [leaf for tree in jax.tree.leaves(loss(*first, **others)) for leaf in leaves(tree)]
            arrays = [leaf for leaf in found if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)]
            return arrays or [jnp.asarray(leaf) for leaf in found if isinstance(leaf, float)]

        parts, pullback = jax.vjp(floating, variables)
        return parts, pullback([jnp.ones_like(part) for part in parts])[0]

    inputs = {name: jnp.asarray(value) for name, value in INPUTS.items()}
    variables = {name: inputs[name] for name in GRADIENTS_BY if jnp.issubdtype(inputs[name].dtype, jnp.floating)}
    parts, gradients = compiled(step)(variables, inputs)
    return {
        "loss": total([np.asarray(part) for part in parts]),
        **{f"gradient by {name}": np.asarray(gradients[name]) for name in variables},
    }
"""
    + _WRONG
)

_JAX = Dialect(
    imports="import jax\nimport jax.numpy as jnp\nimport numpy as np",
    literal='{name} = np.array({values}, "{dtype}")',
    full='{name} = np.full({shape}, {value}, "{dtype}")',
    assign="{name}[{index}] = {value}",
    data='{name} = np.frombuffer({data}, "{dtype}").reshape({shape})',
    modes={"jit": "jax.jit(loss)", "eager": "loss"},
    run=_JAX_RUN,
)

DIALECTS: Mapping[str, Dialect] = {"torch": _TORCH, "tensorflow": _TENSORFLOW, "jax": _JAX}
