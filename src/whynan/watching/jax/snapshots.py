"""The last healthy state of a run, to which policy "rollback" returns: in memory, or in one file of a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from whynan.frontends.jax.arrays import lying_like, plain_array
from whynan.watching.jax.wiring import is_array


class Snapshot:
    """One kept state. `copied` says that the arrays must be copied, since the step gives their memory away."""

    def __init__(self, folder: Path | None, copied: bool) -> None:
        self._file = folder / "healthy.npz" if folder is not None else None
        self._copied = copied
        self._kept: Sequence[Any] = ()

    def take(self, state: Sequence[Any]) -> None:
        """Keep this state instead of the one before. Raises OSError if the folder cannot be written."""
        if self._file is None:
            self._kept = self._own(state)
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(".new.npz")
        leaves = [np.asarray(plain_array(x)) for x in jax.tree.leaves(list(state)) if is_array(x)]
        np.savez(fresh, *[np.frombuffer(np.ascontiguousarray(x).tobytes(), np.uint8) for x in leaves])
        fresh.replace(self._file)

    def restore(self, like: Sequence[Any]) -> Sequence[Any]:
        """The kept state, in the structure of `like`."""
        if self._file is None:
            return self._own(self._kept) if self._kept else like
        with np.load(self._file) as kept:
            parts = iter([kept[f"arr_{i}"] for i in range(len(kept.files))])
        read: list[Any] = jax.tree.map(lambda x: _read(next(parts), x) if is_array(x) else x, list(like))
        return read

    def _own(self, state: Sequence[Any]) -> Sequence[Any]:
        own: list[Any] = jax.tree.map(lambda x: jnp.copy(x) if self._copied and is_array(x) else x, list(state))
        return own


def _read(part: Any, like: Any) -> Any:
    plain = plain_array(like)
    array = jnp.asarray(np.frombuffer(part.tobytes(), plain.dtype).reshape(plain.shape))
    return lying_like(array if plain is like else jax.random.wrap_key_data(array, impl=jax.random.key_impl(like)), like)
