"""`whynan.watch(step)` for TensorFlow training steps that a person writes with a GradientTape."""

from itertools import pairwise

import numpy as np
import pytest

import whynan
from whynan.errors import NonFiniteError, WhynanError

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
if keras.backend.backend() != "tensorflow":
    pytest.skip("Keras runs on another framework here", allow_module_level=True)

pytestmark = pytest.mark.slow

BAD, EIGHT = 5, 8


def log_of_zero(p, y):
    return -tf.reduce_mean(tf.math.log(p))


def root(p, y):
    return tf.reduce_mean(tf.sqrt(tf.square(y - p)))


def trap(p, y):
    return tf.reduce_mean(tf.where(p > 0, tf.math.log(p), 0.0))


def ratio(p, y):
    return tf.reduce_mean(tf.exp(p) / (1.0 + tf.exp(p)))


def masked_softmax(p, y):
    return tf.reduce_mean(tf.square(tf.nn.softmax(tf.where(y > 0, p, -np.inf))))


def masked_mean(p, y):
    return tf.reduce_sum(p * y) / tf.reduce_sum(y)


@tf.custom_gradient
def clipped(x):
    return tf.minimum(x, 2.0), lambda upstream: upstream / (x - 2.0)


def handwritten(p, y):
    return tf.reduce_mean(tf.square(clipped(p)))


def squared(p, y):
    return tf.reduce_mean(tf.square(p - y))


def erased(p, y):
    return tf.reduce_mean(tf.sqrt(tf.where(p > 0, p, 0.0)))


# loss, the bad sample, its target, number of outputs; what failed, class, cause, expression
SCENARIOS = [
    (log_of_zero, 0.0, None, 1, "loss", "an operation's domain", "log-of-zero", "tf.math.log(p)"),
    (root, [0.5, 0.5], None, 1, "gradient", "an operation's domain", "sqrt-grad-at-zero", "tf.sqrt(tf.square(y - p))"),
    (trap, 0.0, None, 1, "gradient", "an operation's domain", "masked-branch-gradient", "tf.math.log(p)"),
    (ratio, 100.0, None, 1, "loss", "overflow", "exp-overflow", "tf.exp(p)"),
    (masked_softmax, None, 0.0, 4, "loss", "an operation's domain", "all-masked-softmax", "tf.nn.softmax(tf.where(y > 0, p, -np.inf))"),
    (handwritten, [1.0, 1.0], None, 1, "gradient", "a backward of your own", "div-by-zero", "upstream / (x - 2.0)"),
]


def batch(bad=None, y_bad=None, out=1):
    x = np.random.default_rng(0).uniform(0.3, 0.7, (EIGHT, 2)).astype("float32")
    y = np.ones((EIGHT, out), "float32")
    if bad is not None:
        x[BAD] = bad
    if y_bad is not None:
        y[BAD] = y_bad
    return tf.constant(x), tf.constant(y)


class Run:
    """A model with its optimizer and a step that trains it; the step is compiled if that is asked for."""

    def __init__(self, loss, out=1, layers=(), **compiled):
        keras.utils.set_random_seed(0)
        adds = keras.layers.Dense(out, kernel_initializer="ones", name="adds")
        model = self.model = keras.Sequential([keras.layers.Input((2,)), *layers, adds], name="net")
        optimizer = self.optimizer = keras.optimizers.Adam(0.1)

        def step(x, y):
            with tf.GradientTape() as tape:
                value = loss(model(x, training=True), y)
            gradients = tape.gradient(value, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            return value

        self.step = tf.function(step, **{k: v for k, v in compiled.items() if k != "graph"}) if compiled else step

    def values(self):
        return [v.numpy() for v in (*self.model.variables, *self.optimizer.variables)]


def same(before, after):
    return len(before) == len(after) and all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def failed(run, *data, **options):
    """The incident of a step that must fail and change nothing."""
    run.optimizer.build(run.model.trainable_variables)
    step = whynan.watch(run.step, folder=None, **options)
    before = run.values()
    with pytest.raises(NonFiniteError) as error:
        step(*data)
    assert same(before, run.values())
    assert (step.step, step.bad_steps, len(step.incidents)) == (1, 1, 1)
    return error.value.incident


@pytest.mark.parametrize("compiled", [{}, {"graph": True}], ids=["eager", "function"])
@pytest.mark.parametrize(("loss", "bad", "y_bad", "out", "what", "kind", "cause", "expression"), SCENARIOS)
def test_a_failing_operation_is_named_with_the_sample_and_nothing_is_updated(
    compiled, loss, bad, y_bad, out, what, kind, cause, expression
):
    incident = failed(Run(loss, out, **compiled), *batch(bad, y_bad, out))
    assert (incident.failed, incident.kind, incident.cause) == (what, kind, cause)
    assert incident.finding.site.text == expression
    assert (incident.suspects.samples, incident.suspects.alone) == ((BAD,), (BAD,))
    assert incident.suspects.elements and all(e.index[0] == BAD for e in incident.suspects.elements)
    assert incident.parameter == ("" if loss is masked_softmax else "net/adds/kernel")


def test_a_step_that_xla_compiles_is_watched_too():
    incident = failed(Run(root, jit_compile=True), *batch([0.5, 0.5]))
    assert (incident.failed, incident.cause, incident.sample) == ("gradient", "sqrt-grad-at-zero", BAD)


def test_bad_data_are_named_with_their_place():
    x, y = batch()
    x = tf.tensor_scatter_nd_update(x, [[BAD, 1]], [np.nan])
    incident = failed(Run(squared, graph=True), x, y)
    assert incident.kind == "bad data"
    assert [(e.name, e.index) for e in incident.suspects.elements] == [("x", (BAD, 1))]


def test_an_empty_mask_is_the_whole_batchs_doing():
    incident = failed(Run(masked_mean, graph=True), batch()[0], tf.zeros((EIGHT, 1)))
    assert (incident.cause, incident.finding.site.text) == ("zero-over-zero", "tf.reduce_sum(p * y) / tf.reduce_sum(y)")


def test_the_state_of_layers_is_as_before_a_bad_step():
    run = Run(squared, layers=[keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)], graph=True)
    incident = failed(run, *batch(np.inf))
    assert incident.kind == "bad data" and incident.sample == BAD


def test_a_gradient_that_where_takes_away_is_no_incident():
    run = Run(erased, graph=True)
    step = whynan.watch(run.step, folder=None)
    step(*batch(-1.0))
    assert step.bad_steps == 0 and all(np.isfinite(v).all() for v in run.values())


def test_a_run_that_skips_is_the_run_without_the_bad_batch():
    watched, plain = Run(squared, graph=True), Run(squared, graph=True)
    step = whynan.watch(watched.step, model=watched.model, optimizer=watched.optimizer, policy="skip", folder=None)
    for x, y in (batch(), batch(np.nan), batch(0.1)):
        step(x, y)
    for x, y in (batch(), batch(0.1)):
        plain.step(x, y)
    assert same(watched.values(), plain.values())
    assert [m.outcome for m in step.flight] == ["applied", "skip", "applied"]


def test_the_step_can_be_called_as_it_was_after_the_watch_is_closed():
    run = Run(squared, graph=True)
    with whynan.watch(run.step, folder=None) as step:
        step(*batch())
    step(*batch(np.nan))
    assert step.step == 1 and np.isnan(run.values()[0]).any()


def test_a_large_but_finite_gradient_is_applied():
    run = Run(lambda p, y: tf.reduce_sum(p) * 1e25, graph=True)
    step = whynan.watch(run.step, folder=None)
    step(*batch())
    assert step.bad_steps == 0 and run.optimizer.iterations == 1


def test_of_two_optimizers_none_updates_where_one_is_given_nan():
    keras.utils.set_random_seed(0)
    good, bad = (keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)]) for _ in range(2))
    first, second = keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1)

    @tf.function
    def step(x):
        for model, optimizer, scale in ((good, first, 1.0), (bad, second, np.inf)):
            with tf.GradientTape() as tape:
                value = tf.reduce_mean(tf.square(model(x))) * scale
            gradients = tape.gradient(value, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    before = [v.numpy() for v in (*good.variables, *bad.variables)]
    watched = whynan.watch(step, model=[good, bad], optimizer=[first, second], policy="skip", folder=None)
    watched(batch()[0])
    assert watched.bad_steps == 1
    assert same(before, [v.numpy() for v in (*good.variables, *bad.variables)])


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "graph"])
def test_a_step_that_updates_its_variables_by_hand(compiled):
    w, count = tf.Variable([[1.0], [1.0]], name="w"), tf.Variable(0)

    def step(x):
        with tf.GradientTape() as tape:
            value = tf.reduce_mean(tf.math.log(x @ w))
        w.assign_sub(0.1 * tape.gradient(value, w))
        count.assign_add(1)
        return value

    watched = whynan.watch(tf.function(step) if compiled else step, policy="skip", folder=None)
    watched(batch()[0])
    before = w.numpy()
    watched(batch(0.0)[0])
    (incident,) = watched.incidents
    assert (incident.cause, incident.finding.site.text, incident.sample) == ("log-of-zero", "tf.math.log(x @ w)", BAD)
    assert np.array_equal(w.numpy(), before) and count == 1
    assert not np.array_equal(before, np.ones((2, 1)))


class Accumulating(Run):
    """Adds up gradients over two steps, in a method of an object: the update stands in a branch of the graph."""

    def __init__(self, loss):
        super().__init__(loss)
        self.loss, self.count = loss, tf.Variable(0)
        self.sums = [tf.Variable(tf.zeros_like(v)) for v in self.model.trainable_variables]
        self.step = self.train

    @tf.function
    def train(self, x, y):
        with tf.GradientTape() as tape:
            value = self.loss(self.model(x, training=True), y)
        for total, gradient in zip(self.sums, tape.gradient(value, self.model.trainable_variables), strict=True):
            total.assign_add(gradient)
        self.count.assign_add(1)
        if self.count % 2 == 0:
            self.optimizer.apply_gradients(zip(self.sums, self.model.trainable_variables, strict=True))
            for total in self.sums:
                total.assign(tf.zeros_like(total))
        return value

    def values(self):
        return [*super().values(), *(v.numpy() for v in (*self.sums, self.count))]


class Epoch(Run):
    """All steps of an epoch in one function of the graph."""

    def __init__(self, loss):
        super().__init__(loss)
        model, optimizer = self.model, self.optimizer

        @tf.function
        def epoch(x, y):
            for i in tf.range(EIGHT // 2):
                with tf.GradientTape() as tape:
                    value = loss(model(x[2 * i : 2 * i + 2]), y)
                optimizer.apply_gradients(zip(tape.gradient(value, model.trainable_variables), model.trainable_variables, strict=True))

        self.step = epoch


class Wrapped(Run):
    """A plain function that calls one which was compiled, and traced, before."""

    def __init__(self, loss):
        super().__init__(loss, graph=True)
        compiled, before = self.step, [v.numpy() for v in self.model.variables]
        compiled(*batch())
        for variable, value in zip(self.model.variables, before, strict=True):
            variable.assign(value)
        self.step = lambda x, y: compiled(x, y)


@pytest.mark.parametrize("kind", [Accumulating, Epoch, Wrapped])
def test_an_update_inside_of_a_branch_a_loop_or_another_function(kind):
    run = kind(log_of_zero)
    run.optimizer.build(run.model.trainable_variables)
    step = whynan.watch(run.step, policy="skip", folder=None)
    for _ in range(3):
        step(*batch())
    before = run.values()
    step(*batch(-9.0))
    (incident,) = step.incidents
    assert (incident.cause, incident.finding.site.text, incident.sample) == ("log-of-negative", "tf.math.log(p)", BAD)
    assert same(before, run.values())
    step(*batch())
    assert [m.outcome for m in step.flight] == ["applied"] * 3 + ["skip", "applied"]
    plain = kind(log_of_zero)
    for _ in range(4):
        plain.step(*batch())
    assert same([v.numpy() for v in run.model.variables], [v.numpy() for v in plain.model.variables])


def test_arrays_of_numpy_are_named_and_a_data_set_is_not():
    x, y = (t.numpy() for t in batch())
    x[BAD, 1] = np.nan
    incident = failed(Run(squared), x, y)
    assert [(e.name, e.index) for e in incident.suspects.elements] == [("x", (BAD, 1))]
    run = Run(squared)
    rows, inner = tf.data.Dataset.from_tensors((x, y)), run.step
    run.step = lambda rows: [inner(x, y) for x, y in rows]
    incident = failed(run, rows)
    assert (incident.kind, incident.finding.site.text) == ("bad data", "model(x, training=True)")


def test_a_derivative_inside_of_a_loss_is_not_the_loss():
    run = Run(squared)
    model, optimizer = run.model, run.optimizer

    @tf.function
    def penalised(x, y):
        with tf.GradientTape() as tape:
            with tf.GradientTape() as inner:
                inner.watch(x)
                p = model(x)
            value = tf.reduce_mean(tf.square(tf.norm(inner.gradient(p, x), axis=1) - 1.0))
        optimizer.apply_gradients(zip(tape.gradient(value, model.trainable_variables), model.trainable_variables, strict=True))
        return value

    step = whynan.watch(penalised, folder=None)
    assert float(step(*batch())) == pytest.approx(step.flight[0].loss)


def test_a_watched_step_inside_of_another_function_is_refused():
    step = whynan.watch(Run(squared, graph=True).step, folder=None)
    with pytest.raises(Exception, match="Watch the outer function"):
        tf.function(lambda x, y: step(x, y), autograph=False)(*batch())


def drawing(compiled, times=1, bad=1):
    """A step that draws its batch itself, `times` in a loop; one batch is bad. With its parameters and an iterator of four."""
    w = tf.Variable([[1.0], [1.0]], name="w")
    optimizer = keras.optimizers.SGD(0.1)

    def train(x):
        with tf.GradientTape() as tape:
            value = tf.reduce_mean(tf.math.log(x @ w))
        optimizer.apply_gradients([(tape.gradient(value, w), w)])
        return value

    def once(iterator):
        return train(next(iterator)["x"])

    def several(iterator):
        total = tf.constant(0.0)
        for _ in tf.range(times):
            total += train(next(iterator)["x"])
        return total

    rows = np.concatenate([batch(0.0 if i == bad else None)[0] for i in range(4)])
    step = once if times == 1 else several
    return tf.function(step) if compiled else step, w, iter(tf.data.Dataset.from_tensor_slices({"x": rows}).batch(EIGHT))


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "graph"])
def test_a_batch_that_the_step_draws_from_an_iterator_is_kept(compiled):
    step, w, iterator = drawing(compiled)
    watched = whynan.watch(step, policy="skip", folder=None)
    values = []
    for _ in range(4):
        watched(iterator)
        values.append(w.numpy())
    (incident,) = watched.incidents
    assert (incident.step, incident.cause, incident.finding.site.text) == (1, "log-of-zero", "tf.math.log(x @ w)")
    assert incident.suspects.samples == incident.suspects.alone == (BAD,) and "batch.x[5, 0] = 0" in str(incident)
    assert [np.array_equal(a, b) for a, b in pairwise(values)] == [True, False, False], "no batch was lost"


def test_what_is_drawn_in_a_loop_of_the_graph_is_said_to_be_gone():
    step, w, iterator = drawing(True, times=2, bad=3)
    watched = whynan.watch(step, policy="skip", folder=None)
    watched(iterator)
    before = w.numpy()
    watched(iterator)
    assert np.array_equal(w.numpy(), before) and not np.array_equal(before, np.ones((2, 1)))
    (incident,) = watched.incidents
    assert incident.failed == "loss" and "pass it as an argument" in incident.unexplained


def rooted(p, y):
    """Run operation by operation, TensorFlow gives a masked root no gradient; compiled, it multiplies 0 with NaN."""
    return tf.reduce_mean(tf.where(p > 0, tf.sqrt(p), 0.0))


def test_a_failure_of_the_compiled_program_alone_is_looked_for_there():
    incident = failed(Run(rooted, jit_compile=True), *batch(-1.0))
    assert (incident.cause, incident.finding.site.text, incident.how) == ("masked-branch-gradient", "tf.sqrt(p)", "xla")
    assert incident.suspects.samples == incident.suspects.alone == (BAD,) and incident.parameter == "net/adds/kernel"
    assert "run again in mode eager from the same state, the step is finite" in incident.notes


def test_what_is_no_step_is_refused():
    with pytest.raises(WhynanError, match="int cannot be watched"):
        whynan.watch(3)


def test_a_model_with_a_loss_scale_can_be_written_down():
    from whynan.watching.keras.recipe import bundled

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=8.0), "mse")
    model.optimizer.build(model.trainable_variables)
    recipe, tensors = bundled(model, (tf.ones((3, 2)), tf.ones((3, 1))), lambda v: isinstance(v, tf.Tensor))
    assert "* 8.0" in recipe.lines[-1] and "batch/x" in tensors


def pooled(p, y):
    """TensorFlow's kernel makes the lowest number of a window of NaN, and the square of that is inf."""
    return tf.reduce_mean(tf.square(tf.nn.max_pool1d(tf.math.log(p - 0.1)[:, :, None], 1, 1, "VALID")))


def test_a_nan_that_a_pool_hides_is_found_behind_it():
    incident = failed(Run(pooled, graph=True), *batch(0.0))
    assert (incident.cause, incident.finding.site.text) == ("log-of-negative", "tf.math.log(p - 0.1)")
    assert incident.suspects.samples == incident.suspects.alone == (BAD,)
