"""What a bad step leads to: the policies, and the decision as a function of what has happened so far."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whynan.errors import WhynanError

RAISE, SKIP, ROLLBACK, STOP, RETRY = POLICIES = ("raise", "skip", "rollback", "stop", "retry")


@dataclass(frozen=True, slots=True)
class Options:
    """How a run is watched.

    `policy`: "raise" ends the run with a NonFiniteError before the update; "skip" drops this update; "rollback" returns to the last
    healthy snapshot, which is taken every `every` steps, in memory or in the folder `snapshots`; "stop" asks the loop to end in good
    order; "retry" runs the step again without the samples that fail. `patience` is how many bad steps in a row are borne: the
    `patience`-th raises. `on_incident` is called with the incident and may return another policy for this step. `folder` is where
    incident bundles are written (None: nowhere), `incidents` how many are explained and kept; `save_batch` says whether the batch goes
    into them, `limit` is a bundle's size in bytes. `memory` is how many steps the flight record holds. `replay_seconds` bounds the
    explanation. `scalars` says whether TensorBoard, W&B or MLflow, where the run uses them, get bad steps and the gradient norm;
    `writer` is the TensorBoard writer to use, where it is not the only one.
    """

    policy: str = RAISE
    patience: int = 3
    every: int = 100
    snapshots: Path | None = None
    on_incident: Callable[[Any], str | None] | None = None
    folder: Path | None = Path("whynan-incidents")
    incidents: int = 10
    save_batch: bool = True
    limit: int = 256 * 2**20
    memory: int = 200
    replay_seconds: float = 60.0
    fixes: bool = True
    scalars: bool = True
    writer: Any = None

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise WhynanError(f"whynan.watch has no policy {self.policy!r}.", f"Choose from {', '.join(POLICIES)}.")
        for name in ("patience", "every", "memory"):
            if getattr(self, name) < 1:
                raise WhynanError(f"{name} is {getattr(self, name)}.", "Give a number from 1 up.")


def decided(options: Options, wanted: str | None, in_a_row: int, rollbacks: int = 1) -> str:
    """What to do about the `in_a_row`-th bad step in a row, if the user's callback wanted that (None: has no wish).

    The `patience`-th bad step in a row raises whatever the policy, so that a run that only drops updates, or does not stop when asked to,
    does not go on for ever. `rollbacks` counts the rollbacks, this one with them, to what may be the same snapshot: where the steps after
    it are healthy for a while and then fail again, that is as hopeless.
    """
    policy = wanted or options.policy
    if policy not in POLICIES:
        raise WhynanError(f"on_incident returned {wanted!r}.", f"Return None or one of {', '.join(POLICIES)}.")
    patience = max(options.patience, 2) if policy == STOP else options.patience  # the first time, the loop has not yet been asked
    gone = in_a_row >= patience or (policy == ROLLBACK and rollbacks >= patience)
    return RAISE if gone else policy
