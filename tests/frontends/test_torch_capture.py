"""The PyTorch front end: sites, phases, values under mutation, state left untouched, what the program looked at."""

import importlib
import math
import pkgutil
import warnings

import ml_dtypes
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import whynan.ops
from whynan.errors import FrameworkMissing, TargetError
from whynan.frontends import load as load_any
from whynan.frontends.torch import load
from whynan.ir.graph import BACKWARD, FORWARD, call_of
from whynan.ops._opdef import known, run

for _module in pkgutil.iter_modules(whynan.ops.__path__):
    importlib.import_module(f"whynan.ops.{_module.name}")

X = np.array([[0.2, 0.9, 0.4, 0.7], [0.5, 0.3, 0.8, 0.6], [1.1, 0.1, 0.55, 0.35]], np.float32)
Y = np.array([[0.6, 0.2, 0.9, 0.1], [0.3, 0.7, 0.4, 0.8], [0.5, 0.15, 0.95, 0.25]], np.float32)


def capture(loss, wrt=None, name="loss", **inputs):
    program = load(loss, name)
    if wrt is None:
        wrt = tuple(n for n, v in inputs.items() if v.dtype.kind not in "iub") + tuple(program.parameters)
    return program.capture(inputs, wrt, "eager")


def disagreements(trace, rtol=1e-5):
    """Nodes whose op, evaluated on the evaluated inputs, differs from what the framework computed; ops that cannot be run are skipped."""
    values, wrong, checked = [], [], 0
    for n in trace.graph.nodes:
        real = trace.values[n.id]
        ready = [values[i] for i in n.inputs]
        if n.op in ("input", "const", "random") or not known(n.op) or any(v is None for v in ready):
            values.append(real)
            continue
        value = run(call_of(trace.graph, n), ready)
        assert value.shape == n.shape
        if real is not None:
            checked += 1
            if not np.allclose(value.astype(float), real.astype(float), rtol=rtol, atol=1e-6, equal_nan=True):
                wrong.append((n.op, n.spelling, n.site))
        values.append(value)
    assert checked
    return wrong


def agrees(loss, **inputs):
    """Every node's evaluated value is the framework's, and the graph's outputs are those of the plain run."""
    trace = capture(loss, **inputs)
    plain = load(loss, "loss").run(inputs, tuple(inputs), "eager")
    assert plain.error == ""
    assert disagreements(trace) == []
    found = {o.name: trace.values[o.node] for o in trace.graph.outputs if trace.values[o.node] is not None}
    for name, gradient in plain.gradients.items():
        if name in found:
            np.testing.assert_allclose(found[name], gradient, rtol=1e-6)
    assert {o.name for o in trace.graph.outputs} == {"loss", *plain.gradients}
    assert not [n.op for n in trace.graph.nodes if n.op.startswith("unknown:")]
    return trace


def texts(trace, op, phase=FORWARD):
    return [n.site.text for n in trace.graph.nodes if n.op == op and n.phase == phase and n.site]


# ---------------------------------------------------------------- sites


def _helper(a):
    return torch.log(a) + 1


def _calls_helper(x):
    return (_helper(x) * 2).sum()


def test_an_op_in_a_helper_stands_in_the_helper():
    trace = capture(_calls_helper, x=X)
    (log,) = [n for n in trace.graph.nodes if n.op == "log"]
    assert (log.site.text, log.site.function, log.spelling) == ("torch.log(a)", "_helper", "aten.log.default")
    assert log.site.file == __file__
    assert texts(trace, "mul") == ["_helper(x) * 2"]


def _multi_line(x):
    # fmt: off
    y = (x
         .log()
         # a comment
         .sum(dim=0))
    return (torch.exp(
        y
    ) + "é".count("x") * y).mean()
    # fmt: on


def test_expressions_over_several_lines_are_whole():
    trace = capture(_multi_line, x=X)
    (log,) = [n for n in trace.graph.nodes if n.op == "log"]
    first = _multi_line.__code__.co_firstlineno
    assert log.site.text == "x\n         .log()"
    assert (log.site.line, log.site.end_line, log.site.column, log.site.end_column) == (first + 2, first + 3, 9, 15)
    assert texts(trace, "exp") == ["torch.exp(\n        y\n    )"]
    assert texts(trace, "sum") == ["x\n         .log()\n         # a comment\n         .sum(dim=0)"]


def test_lambda_method_and_callable_object():
    class Loss:
        scale = 2.0

        def value(self, x):
            return (x * self.scale).sqrt().sum()

        __call__ = value

    assert texts(capture(lambda x: (x + 1).rsqrt().sum(), x=X), "rsqrt") == ["(x + 1).rsqrt()"]
    assert texts(capture(Loss().value, x=X), "sqrt") == ["(x * self.scale).sqrt()"]
    assert texts(capture(Loss(), x=X), "mul") == ["x * self.scale"]


def test_library_code_is_shown_as_the_users_call_with_the_librarys_frame_as_detail():
    trace = capture(lambda x, y: F.kl_div(x, y) * 2, x=X, y=Y)
    sites = {n.site for n in trace.graph.nodes if n.spelling == "aten.xlogy.Tensor"}
    assert {s.text for s in sites} == {"F.kl_div(x, y)"}
    assert all(s.detail.startswith("torch/nn/functional.py:") and s.detail.endswith(" in kl_div") for s in sites)


def test_a_library_target_is_shown_in_its_own_source():
    trace = capture(F.kl_div, name="kl_div", input=X, target=Y)
    (site,) = {n.site for n in trace.graph.nodes if n.spelling == "aten.xlogy.Tensor"}
    assert site.file.endswith("functional.py")
    assert site.text.startswith("torch.kl_div(")
    module = capture(nn.BCELoss(), name="BCELoss", input=X / 2, target=Y)
    assert {n.site.text.split("(")[0] for n in module.graph.nodes if n.site} == {"F.binary_cross_entropy"}


def test_source_groups_the_nodes_of_one_call():
    trace = capture(lambda x: F.cross_entropy(x, torch.tensor([0, 1, 2])), x=X)
    groups = {}
    for n in trace.graph.nodes:
        groups.setdefault(n.source, set()).add(n.spelling)
    assert all(len(spellings) == 1 for spellings in groups.values())


# ---------------------------------------------------------------- backward


def test_gradient_ops_stand_at_the_forward_expression():
    trace = agrees(lambda x: (torch.log(x) * torch.sqrt(x)).sum(), x=X)
    by_text = {}
    for n in trace.graph.nodes:
        if n.phase == BACKWARD and n.op != "const":
            by_text.setdefault(n.site.text, set()).add(n.op)
    assert "div" in by_text["torch.log(x)"]
    assert "div" in by_text["torch.sqrt(x)"]
    assert "mul" in by_text["torch.log(x) * torch.sqrt(x)"]


def test_gradients_through_views_writes_and_shared_values():
    def loss(x):
        shared = x * x
        part = shared[1:]
        buffer = torch.zeros(3, 4)
        buffer[:2] = part.exp()
        buffer[0].mul_(x[0])
        return buffer.sum() + shared.log().sum()

    trace = agrees(loss, x=X)
    backward = [n for n in trace.graph.nodes if n.phase == BACKWARD and n.op != "const"]
    assert all(n.site is not None and n.site.function.endswith("loss") for n in backward)
    assert "part.exp()" in {n.site.text for n in backward if n.op == "mul"}
    assert "shared.log()" in {n.site.text for n in backward if n.op == "div"}


class _Sqrt(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a):
        ctx.save_for_backward(a)
        return torch.sqrt(a)

    @staticmethod
    def backward(ctx, g):
        (a,) = ctx.saved_tensors
        a.numpy()
        return g / (2 * a.sqrt())


def test_a_custom_backward_is_user_code_of_its_own():
    trace = agrees(lambda x: (_Sqrt.apply(x) * x).sum(), x=X)
    (div,) = [n for n in trace.graph.nodes if n.op == "div"]
    assert (div.phase, div.site.text) == (BACKWARD, "g / (2 * a.sqrt())")
    assert texts(trace, "sqrt") == ["torch.sqrt(a)"]
    assert [a.what for a in trace.graph.assumptions] == [".numpy()"]


def test_a_recomputed_forward_part_is_forward():
    trace = agrees(lambda x: checkpoint(lambda a: (a.log() * a).sum(), x, use_reentrant=False), x=X)
    assert texts(trace, "log") == ["a.log()", "a.log()"]
    assert set(texts(trace, "div", BACKWARD)) == {"a.log()"}


def test_a_gradient_inside_the_loss_is_backward_and_differentiated_again():
    def penalty(x):
        z = x * 1
        (g,) = torch.autograd.grad((z**3).sum(), z, create_graph=True)
        return (g.norm(dim=1) - 1).pow(2).mean()

    trace = agrees(penalty, x=X)
    assert "z**3" in texts(trace, "mul", BACKWARD)
    assert "g.norm(dim=1)" in texts(trace, "div", BACKWARD)


def test_hooks_run_as_user_code():
    def loss(x):
        y = x * 2
        y.register_hook(lambda g: g.clamp(max=0.5))
        return y.log().sum()

    assert "g.clamp(max=0.5)" in texts(agrees(loss, x=X), "clamp", BACKWARD)


# ---------------------------------------------------------------- values under mutation


def _slices(x):
    b = x * 1
    b[:, 1] = 5
    b[0] = b[1] * 2
    b[..., 2:].mul_(3)
    b.t()[0].add_(1)
    b[b > 1] = 0.5
    b[torch.tensor([0, 2])] += 1
    b.view(-1)[3:5].clamp_(max=0.3)
    b.diagonal().zero_()
    b[1:, 1:].copy_(x[:2, :3])
    b[0, 0:2] = torch.tensor([1, 2])
    return b.log1p().sum()


def _old_views(x):
    a = x.clone()
    old, flat = a[1], a.view(12)
    a.add_(1)
    new = old * 2
    flat[4] = 9.0
    return (new + old + a.sum(0)).sum() + flat.sum()


def _in_place(x, y):
    a = (x * y).relu_() * 1
    a.clamp_(0, 2)
    a = a.sub_(y).pow(2)
    a.add_(1e-3)
    a = a.sqrt() * 1
    a.masked_fill_(y > 0.5, 0.0)
    a.scatter_(1, torch.zeros(3, 1, dtype=torch.long), 7.0)
    z = torch.zeros(3, 4)
    z.copy_(y[0])
    z += x
    z.fill_(2.0)
    z *= a
    out = torch.empty(3, 4)
    with torch.no_grad():
        torch.add(x, y, out=out)
        out.index_put_((torch.tensor([0]),), y[1])
        torch.log(y, out=out[:, :])
    wide = torch.zeros(3, 4, dtype=torch.float64)
    wide[:2] = x[:2]
    wide.zero_()[1:] = y[1:]
    wide[0] = x.max()
    return (z + out).sum() + wide.sum()


def _detached_write(x):
    a = x * 2
    a.detach()[0] = 3
    return a.data.sum() + a.sum()


def _transposed(x):
    t = x.t() * 2
    t[0] = 1
    return t.contiguous().view(-1)[:5].sum() + t.permute(1, 0)[2].exp().sum()


@pytest.mark.parametrize("loss", [_slices, _old_views, _detached_write, _transposed])
def test_writes_to_views(loss):
    agrees(loss, x=X)


def test_writes_in_place_and_into_out_arguments():
    agrees(_in_place, x=X, y=Y)


def test_many_results():
    def loss(x):
        a, b = x.split(2, 1)
        values, _ = x.max(1)
        ordered, _ = x.sort(-1)
        a = a.clone()
        a[:] = b
        a[0].zero_()
        return (a * b).sum() + values.sum() + (ordered * torch.arange(4)).sum() + x.unbind(0)[1].log().sum()

    agrees(loss, x=X)


def test_a_wrong_graph_would_be_noticed():
    trace = capture(lambda x: (x * 3).sum(), x=X)
    (mul,) = [n for n in trace.graph.nodes if n.op == "mul" and n.phase == FORWARD]
    values = list(trace.values)
    values[mul.id] = values[mul.id] + 1
    assert disagreements(type(trace)(trace.graph, tuple(values))) != []


# ---------------------------------------------------------------- constants and formats

_TABLE = torch.arange(12.0).reshape(3, 4)


def test_tensors_closed_over_are_constants_and_stay_as_they_are():
    column = _TABLE.t()[1:]

    def loss(x):
        d = column.clone()
        d[0] = x[:, 0]
        return (x * _TABLE).sum() + d.sum() + (torch.linspace(0, 1, 4) * x).sum()

    trace = agrees(loss, x=X)
    held = [n.attrs["value"] for n in trace.graph.nodes if n.op == "const"]
    assert any(np.array_equal(v, _TABLE.numpy()) for v in held)


def test_a_constant_is_written_to_only_in_the_run():
    def loss(x):
        _TABLE[0] = x[0].detach()
        return (_TABLE * x).sum()

    before = _TABLE.clone()
    try:
        assert disagreements(capture(loss, x=X)) == []
    finally:
        _TABLE.copy_(before)


def test_constants_of_constants_are_folded_unless_they_make_a_non_finite_value():
    trace = capture(lambda x: (x * torch.tril(torch.ones(4, 4)).sum(0)).sum() + torch.log(torch.zeros(())), x=X)
    assert not {"tril", "sum"} & {n.op for n in trace.graph.nodes if "tril" in n.spelling}
    assert texts(trace, "log") == ["torch.log(torch.zeros(()))"]


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_formats(dtype):
    x = X.astype(dtype)
    program = load(lambda x: (x * 2).log().sum(), "loss")
    plain, trace = program.run({"x": x}, ("x",), "eager"), program.capture({"x": x}, ("x",), "eager")
    assert plain.loss.dtype == plain.gradients["x"].dtype == np.dtype(dtype)
    for output in trace.graph.outputs:
        assert trace.graph.nodes[output.node].format.numpy == np.dtype(dtype)
        assert trace.values[output.node].dtype == np.dtype(dtype)


def test_complex_numbers_are_unknown():
    trace = capture(lambda x: torch.fft.fft(x).abs().sum(), x=X)
    assert any(n.op.startswith("unknown:") and "fft" in n.op for n in trace.graph.nodes)
    assert not any(n.op == "abs" for n in trace.graph.nodes)


# ---------------------------------------------------------------- what comes out


def test_several_elements_are_added_in_float64():
    big = np.full(8, 60000, np.float16)
    program = load(lambda x: x * 1, "loss")
    assert program.run({"x": big}, ("x",), "eager").loss == 480000.0
    trace = program.capture({"x": big}, ("x",), "eager")
    assert trace.graph.nodes[trace.graph.outputs[0].node].format.name == "float64"
    assert trace.graph.notes == ("the output is a vector of 8 elements: its sum is checked",)


def test_tuples_and_dicts():
    def loss(x):
        return {"a": x.sum(), "b": [x * 2, (x[0], 3, None)]}

    plain = load(loss, "loss").run({"x": X}, ("x",), "eager")
    assert plain.loss == pytest.approx(X.sum() * 3 + X[0].sum(), rel=1e-6)
    np.testing.assert_allclose(plain.gradients["x"], [[4] * 4, [3] * 4, [3] * 4])
    trace = agrees(loss, x=X)
    assert "3 floating tensors" in trace.graph.notes[0]


def test_without_a_gradient():
    for loss in (lambda x: x.sum().item(), lambda x: x.detach().sum(), lambda x: torch.ones(()) * 2):
        plain = load(loss, "loss").run({"x": X}, ("x",), "eager")
        assert (plain.error, dict(plain.gradients)) == ("", {})
    trace = capture(lambda x: x.detach().sum(), x=X)
    assert [o.name for o in trace.graph.outputs] == ["loss"]
    unused = load(lambda x, y: x.sum(), "loss").run({"x": X, "y": Y}, ("x", "y"), "eager")
    assert set(unused.gradients) == {"x"}


def _raises(x):
    raise ValueError("not like\nthis")


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (_raises, "raised ValueError: not like."),
        (lambda x: x.sum().item(), "returned a float"),
        (lambda x: (x > 0).sum(), r"returned a tensor of torch.int64"),
        (lambda x: torch.ones(3), "does not depend on any of its inputs"),
        (lambda x: None, "returned a NoneType"),
    ],
)
def test_losses_that_cannot_be_recorded(loss, message):
    with pytest.raises(TargetError, match=message) as caught:
        capture(loss, x=X)
    assert caught.value.hint


def test_run_never_raises_for_the_loss():
    plain = load(_raises, "loss").run({"x": X}, ("x",), "eager")
    assert (plain.error, plain.loss.size, dict(plain.gradients)) == ("ValueError: not like", 0, {})


def test_targets_that_are_none():
    with pytest.raises(TargetError, match="cannot be called"):
        load(3, "three")
    with pytest.raises(TargetError, match="no front end"):
        load_any(_calls_helper, "loss", "caffe")
    assert load_any(_calls_helper, "loss", "torch").framework == "torch"
    assert issubclass(FrameworkMissing, Exception)


# ---------------------------------------------------------------- state


class _Stateful(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("seen", torch.zeros(4))
        self.average = torch.zeros(())
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        self.seen.mul_(0.9).add_(x.detach().mean(0))
        self.average = self.average + 1
        self.linear.weight.data.clamp_(-0.1, 0.1)
        self.eval()
        self.train()
        return self.norm(self.linear(x)).pow(2).sum() + self.seen.sum() * F.dropout(x, 0.5).sum()

    def other(self, x):
        return self(x) * 2


def test_a_module_is_left_as_it_was():
    module = _Stateful().eval()
    module.linear.weight.grad = torch.ones(2, 4)
    before = {name: t.clone() for name, t in module.state_dict().items()}
    addresses = {name: t.data_ptr() for name, t in module.state_dict().items()}
    program = load(module, "module")
    runs = [program.run({"x": X}, ("x", "linear.weight"), "eager") for _ in range(2)]
    program.capture({"x": X}, ("x", "linear.weight"), "eager")
    assert runs[0].loss == runs[1].loss
    assert all(torch.equal(t, before[name]) and t.data_ptr() == addresses[name] for name, t in module.state_dict().items())
    assert (module.calls, module.training, float(module.average)) == (0, False, 0.0)
    assert torch.equal(module.linear.weight.grad, torch.ones(2, 4))


def test_parameters_are_inputs():
    module = nn.Linear(4, 1)
    program = load(module, "linear")
    assert set(program.parameters) == {"weight", "bias"}
    names = {"input": X, "weight": np.ones((1, 4), np.float32)}
    plain = program.run(names, ("weight", "bias", "input"), "eager")
    expected = X.sum() + 3 * module.bias.item()
    assert plain.loss == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(plain.gradients["weight"], X.sum(0, keepdims=True), rtol=1e-6)
    trace = program.capture(names, ("weight",), "eager")
    assert set(trace.graph.inputs) == {"input", "weight", "bias"}
    assert [o.name for o in trace.graph.outputs] == ["loss", "weight"]


def test_parameters_of_methods_and_closures():
    module, scale = nn.Linear(4, 1), nn.Parameter(torch.ones(()))
    assert set(load(_Stateful().other, "method").parameters) >= {"self.linear.weight", "self.norm.bias"}
    program = load(lambda x: (module(x) * scale).sum(), "closure")
    assert set(program.parameters) == {"module.weight", "module.bias", "scale"}
    assert set(program.run({"x": X}, ("x", "scale"), "eager").gradients) == {"x", "scale"}


def test_random_losses_repeat_and_leave_the_generator_alone():
    program = load(lambda x: (F.dropout(x, 0.5) * torch.rand_like(x)).sum(), "loss")
    torch.manual_seed(7)
    before = torch.get_rng_state()
    losses = {float(program.run({"x": X}, ("x",), "eager").loss) for _ in range(3)}
    trace = program.capture({"x": X}, ("x",), "eager")
    assert torch.equal(before, torch.get_rng_state())
    assert losses == {float(trace.values[trace.graph.outputs[0].node])}
    assert "the loss draws random numbers: every run of it starts from the same seed" in trace.graph.notes


def test_settings_are_restored_and_inputs_not_changed():
    def loss(x):
        warnings.warn("noise", stacklevel=1)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        x += 1
        return x.sum()

    mine = X.copy()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(loss, "loss").run({"x": mine}, (), "eager").error == ""
        capture(loss, wrt=(), x=mine)
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() is torch.float32
    np.testing.assert_array_equal(mine, X)


def test_a_compiled_function_runs_as_its_original_in_eager_mode():
    trace = agrees(torch.compile(_calls_helper), x=X)
    assert texts(trace, "log") == ["torch.log(a)"]


def test_a_memory_that_a_kernel_writes_without_saying_so_is_unknown():
    norm = nn.BatchNorm1d(4, affine=False)

    def loss(x):
        return norm(x).sum() + (x * norm.running_mean).sum()

    trace = capture(loss, x=X)
    (mul,) = [n for n in trace.graph.nodes if n.phase == FORWARD and n.site and n.site.text == "x * norm.running_mean" and n.op == "mul"]
    assert any(trace.graph.nodes[i].op.startswith("unknown:") for i in mul.inputs)


# ---------------------------------------------------------------- looks at values


def _looks(loss, **inputs):
    return [(a.what, a.low, a.high) for a in capture(loss, **inputs).graph.assumptions]


def test_looks_at_one_number():
    assert _looks(lambda x: x.sum() if x.max() > 5 else x.mean(), x=X) == [("bool(tensor)", 0.0, 0.0)]
    assert _looks(lambda x: x.sum() if x.max() else x.mean(), x=X) == [("bool(tensor)", 1.0, 1.0)]
    assert _looks(lambda x: x.sum() * x[0, 0].item(), x=X) == [(".item()", float(X[0, 0]), float(X[0, 0]))]
    assert _looks(lambda x: x.sum() * math.exp(x[0, 0]), x=X) == [("float(tensor)", float(X[0, 0]), float(X[0, 0]))]
    ((what, low, high),) = _looks(lambda x: x.sum() * int(x.sum()), x=X)
    whole = float(np.trunc(X.sum()))
    assert (what, low, high) == ("int(tensor)", whole, float(np.nextafter(np.float32(whole + 1), np.float32(0))))


def test_looks_at_all_elements():
    trace = capture(lambda x: (x * torch.from_numpy(x.detach().numpy() * 2)).sum() + sum(x[0].tolist()), x=X)
    assert [a.what for a in trace.graph.assumptions] == [".numpy()", ".tolist()"]
    assert all(trace.graph.nodes[a.node].op == "eq" and (a.low, a.high) == (1.0, 1.0) for a in trace.graph.assumptions)


def test_shapes_that_depend_on_values():
    count = float((Y > 0.5).sum())
    assert _looks(lambda x, y: x[y > 0.5].sum(), x=X, y=Y) == [("boolean index", count, count)]
    assert _looks(lambda x, y: torch.masked_select(x, y > 0.5).sum(), x=X, y=Y) == [("masked_select", count, count)]
    assert _looks(lambda x, y: x[torch.nonzero(y > 0.5)[:, 0]].sum(), x=X, y=Y) == [("nonzero", count, count)]
    assert not _looks(lambda x: x[_TABLE > 3].sum(), x=X)


def test_a_mask_that_chooses_where_one_number_goes_has_no_shape_to_assume():
    def loss(x):
        y = x * 1
        y[x > 0.5] = 0.0
        return y.sum()

    assert not _looks(loss, x=X)
    assert disagreements(capture(loss, x=X)) == []


def test_checks_in_the_library():
    classes = np.array([0, 3, 1])
    found = _looks(lambda x, t: (F.one_hot(t, 4) * x).sum(), x=X, t=classes)
    assert found
    assert {(low, high) for _, low, high in found} == {(0.0, 3.0)}
    found = _looks(lambda x: F.gaussian_nll_loss(x, x * 2, x), x=X)
    assert [(low, high) for _, low, high in found] == [(0.0, 0.0)]


def test_what_depends_on_no_input_and_what_is_only_printed_is_not_assumed():
    def loss(x):
        str(x)
        f"{x.sum():.2f}"
        return x.sum() * float(_TABLE.sum()) if _TABLE.max() > 3 else x.mean()

    assert not _looks(loss, x=X)


def test_an_assumption_has_its_site():
    def loss(x):
        if (x > 2).any():
            return x.sum()
        return x.mean()

    (assumption,) = capture(loss, x=X).graph.assumptions
    assert assumption.site.text == "(x > 2).any()"
