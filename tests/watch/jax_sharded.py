"""A worker process with four devices, run by `test_jax_policies`: steps on arrays that are spread over them go bad."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from whynan.errors import NonFiniteError
from whynan.watching.jax.watcher import JaxWatch
from whynan.watching.policy import Options

OPTIMIZER = optax.adam(0.1)
MESH = Mesh(np.array(jax.devices()), ("data",))
WHOLE, ROWS = NamedSharding(MESH, PartitionSpec()), NamedSharding(MESH, PartitionSpec("data"))
BAD, BAD_SAMPLE = 2, 5


def loss_fn(params: Any, x: Any, y: Any) -> Any:
    hidden = jax.lax.with_sharding_constraint(jnp.log(jnp.abs(x)) @ params["w"], ROWS)
    return jnp.mean((hidden @ params["v"] - y) ** 2)


GRADIENT = jax.value_and_grad(loss_fn)


def step(params: Any, state: Any, x: Any, y: Any, gradient: Callable[..., Any] = GRADIENT) -> Any:
    loss, grads = gradient(params, x, y)
    updates, state = OPTIMIZER.update(grads, state, params)
    return optax.apply_updates(params, updates), state, loss


def in_pieces(params: Any, x: Any, y: Any) -> Any:
    """Loss and gradients as each device computes them of its rows, averaged."""
    loss, grads = jax.value_and_grad(lambda p: jnp.mean((jnp.log(jnp.abs(x)) @ p["w"] @ p["v"] - y) ** 2))(params)
    return jax.lax.pmean(loss, "data"), jax.lax.pmean(grads, "data")


def begun(place: NamedSharding) -> Any:
    numbers = np.random.default_rng(0)
    params = {"w": jnp.asarray(numbers.normal(size=(4, 8)), jnp.float32), "v": jnp.asarray(numbers.normal(size=8), jnp.float32)}
    params = jax.device_put(params, place)
    return params, jax.tree.map(lambda a: jax.device_put(a, place if a.ndim else WHOLE), OPTIMIZER.init(params))


def batch(number: int) -> Any:
    numbers = np.random.default_rng(number)
    x, y = numbers.normal(size=(8, 4)).astype(np.float32) + 5, numbers.normal(size=8).astype(np.float32)
    x[BAD_SAMPLE, 1] *= number != BAD
    return jax.device_put((x, y), ROWS)


PIECES = jax.shard_map(
    in_pieces,
    mesh=MESH,
    in_specs=(PartitionSpec(), PartitionSpec("data"), PartitionSpec("data")),
    out_specs=(PartitionSpec(), PartitionSpec()),
    check_vma=False,
)
PLACED = {"in_shardings": (WHOLE, WHOLE, ROWS, ROWS), "out_shardings": (WHOLE, WHOLE, WHOLE)}
CASES: dict[str, tuple[Any, NamedSharding, bool, str]] = {  # the step, where its parameters lie, whether the device chooses, the policy
    "parameters whole": (jax.jit(step, **PLACED), WHOLE, False, "skip"),
    "parameters whole, donated": (jax.jit(step, donate_argnums=(0, 1), **PLACED), WHOLE, True, "raise"),
    "parameters spread": (jax.jit(step), ROWS, False, "retry"),
    "parameters spread, donated": (jax.jit(step, donate_argnums=(0, 1)), ROWS, True, "rollback"),
    "in pieces": (jax.jit(partial(step, gradient=PIECES)), WHOLE, True, "skip"),
}


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit, and in the same places."""
    equal = jax.tree.map(lambda x, y: np.array_equal(x, y) and x.sharding.is_equivalent_to(y.sharding, x.ndim), a, b)
    return bool(jax.tree.all(equal))


def main(folder: Path) -> None:
    """Run all cases; raises AssertionError where one is not as it should be."""
    for name, (function, place, on_device, policy) in CASES.items():
        watched = JaxWatch(function, Options(folder=None, policy=policy, every=1, snapshots=folder), on_device=on_device)
        now, plain = begun(place), begun(place)
        try:
            for number in range(5):
                now = watched(*now, *batch(number))[:2]
                if number != BAD:
                    plain = function(*plain, *batch(number))[:2]
                elif policy == "retry":
                    assert not same(now, plain), "the other samples are learnt from"
                    plain = jax.tree.map(jnp.copy, now)
            watched.close()
        except NonFiniteError:
            assert policy == "raise", name
        else:
            assert same(now, plain), name
        (incident,) = watched.incidents
        assert incident.step == BAD
        if name == "in pieces":
            assert "shard_map" in incident.unexplained
        else:
            assert incident.reproduced and incident.suspects.samples == incident.suspects.alone == (BAD_SAMPLE,), (
                name,
                incident.unexplained,
            )
            assert incident.finding is not None and incident.finding.site is not None and "jnp.log" in incident.finding.site.text


if __name__ == "__main__":
    main(Path(sys.argv[1]))
