"""The part of watching that knows no framework: steps are counted, moments kept, bad steps explained, and a decision is made."""

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from whynan._chance import undrawn
from whynan.errors import NonFiniteError
from whynan.waiting import telling
from whynan.watching.advice import advice_from
from whynan.watching.divergence import as_divergence, diverged
from whynan.watching.flight import FlightRecord, warning
from whynan.watching.policy import RAISE, RETRY, ROLLBACK, Options, decided
from whynan.watching.record import UNEXPLAINED, Incident, Moment, Suspects
from whynan.watching.scalars import Scalars

log = logging.getLogger("whynan.watch")


class Overseer:
    """One watched run. The framework's watcher reports each step to it, healthy or bad, in order.

    `step` is the number of the step under way, from 0. `in_a_row` counts the bad steps since the last healthy one, for each optimizer by
    itself: where two take turns, the one's healthy steps do not hide that the other no longer learns. `skipped` counts updates that were
    not made, by whynan or by a gradient scaler. `last` is the incident of the last bad step, None if that was not explained.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.step = 0
        self.rank = 0
        self.catch_up: Callable[[], None] = lambda: None  # lets who notes several steps together note those that are left
        self.agree: Callable[[Callable[[], str]], str] = lambda ask: ask()  # of several processes: on what is done
        self.bad_steps = 0
        self.skipped = 0
        self.incidents: list[Incident] = []
        self.last: Incident | None = None
        self.flight = FlightRecord(options.memory)
        self._scalars = Scalars(options.scalars, options.writer)
        self._in_a_row: dict[int, int] = {}
        self._rollbacks = 0  # since the last snapshot that can be new
        self._healthy = 0  # steps since the last rollback

    @property
    def in_a_row(self) -> int:
        """The most bad steps in a row that an optimizer has just had."""
        return max(self._in_a_row.values(), default=0)

    @property
    def suspects(self) -> Suspects:
        """The suspects of the last bad step; none where it was not explained."""
        return self.last.suspects if self.last is not None else Suspects()

    def healthy(self, moment: Moment) -> None:
        """The step was fine and is applied."""
        self.applied(moment.optimizer)
        self.noted(moment)

    def applied(self, optimizer: int = 0) -> None:
        """The step was fine; its moment is noted later, together with others."""
        self.step += 1
        self._in_a_row[optimizer] = 0
        self._healthy += 1
        if self._rollbacks and self._healthy >= self.options.every:
            self._rollbacks = 0

    def noted(self, moment: Moment) -> None:
        """A healthy step's moment, in the order of steps. Logs a warning where the run is about to fail."""
        self.flight.add(moment)
        soon = warning(self.flight)
        if soon:
            log.warning(soon)
        self._scalars.healthy(moment, self.bad_steps, self.skipped)

    def passed_over(self, moment: Moment) -> None:
        """A step that the loop itself has left out, as a gradient scaler does: neither healthy nor an incident."""
        self.flight.add(moment)
        self.step += 1
        self.skipped += 1

    def bad(self, moment: Moment, explain: Callable[[], Incident]) -> str:
        """A step that must not be applied as it is; returns the policy to be followed.

        Raises NonFiniteError if that is the policy, or when it has come to it. `explain` is called for the first `options.incidents` bad
        steps and for one that raises, and these incidents are kept; also for each that is to be retried. For the others there is no
        incident, and the callback is not asked.
        """
        in_a_row = self._in_a_row[moment.optimizer] = self._in_a_row.get(moment.optimizer, 0) + 1
        self.bad_steps += 1
        self.step += 1
        action = decided(self.options, None, in_a_row, self._rollbacks + 1)
        keep = action == RAISE or len(self.incidents) < self.options.incidents
        self.last = incident = self._explained(moment, explain, action, keep) if keep or action == RETRY else None
        if incident is not None:
            asked = incident
            action = self.agree(lambda: self._asked(asked, in_a_row))
            self.last = incident = replace(incident, action=action)
        if incident is not None and (keep or action == RAISE):
            self.incidents.append(incident)
        self._drop(moment, action)
        if action == RAISE:
            raise NonFiniteError.of(incident, in_a_row)
        what = incident if incident is not None else f"step {moment.step} went bad again ({in_a_row} in a row)"
        log.warning("%s\nThis update was not applied; policy %s.", what, action)
        return action

    def _asked(self, incident: Incident, in_a_row: int) -> str:
        if self.options.on_incident is None:
            return incident.action
        return decided(self.options, self.options.on_incident(incident), in_a_row, self._rollbacks + 1)

    def _drop(self, moment: Moment, action: str) -> None:
        self.flight.add(moment._replace(outcome=action))
        self.skipped += action != RETRY
        if action == ROLLBACK:
            self._rollbacks += 1
            self._healthy = 0
        self._scalars.bad(moment, self.bad_steps, self.skipped)

    @undrawn()
    def _explained(self, moment: Moment, explain: Callable[[], Incident], action: str, keep: bool) -> Incident:
        try:
            with telling(f"whynan: looking into step {moment.step}"):
                incident = as_divergence(explain(), diverged(self.flight, moment))
        except Exception as error:  # the explanation must not end a run that only wants to skip the step
            log.warning("whynan could not explain step %d", moment.step, exc_info=True)
            incident = _unexplained(moment, f"the explanation itself failed with {type(error).__name__}: {error}")
        advice = (*incident.advice, *advice_from(self.flight, moment, incident))
        moments = (*self.flight.moments, moment._replace(outcome=action))[-self.options.memory :]
        incident = replace(incident, moments=moments, advice=advice, action=action)
        return self._kept(incident) if keep else incident

    def _kept(self, incident: Incident) -> Incident:
        """The incident with its bundle written, if bundles are wanted and this run has not yet written as many as it may.

        Its tensors are let go: the bundle has them, and a run may have many incidents.
        """
        elsewhere = incident.world > 1 and incident.rank != self.rank  # that rank has the tensors, and keeps them
        if self.options.folder is None or elsewhere:
            return incident
        if sum(i.folder is not None for i in self.incidents) >= self.options.incidents:
            note = f"not kept in {self.options.folder}: this run has kept {self.options.incidents} incidents, as many as it may"
            return replace(incident, notes=(*incident.notes, note))
        from whynan.watching.bundle import save

        try:
            return replace(incident, folder=save(incident, self.options), tensors={})
        except Exception as error:  # a full disk, a tensor like no other: nothing of it may end the run
            return replace(
                incident,
                notes=(
                    *incident.notes,
                    f"the incident could not be written to {self.options.folder}: {str(error) or type(error).__name__}",
                ),
            )


def _unexplained(moment: Moment, why: str) -> Incident:
    when = datetime.now(UTC).isoformat(timespec="seconds")
    failed = "gradient" if math.isfinite(moment.loss) else "loss"
    return Incident(moment.step, when, "", "", failed, moment.loss, finding=None, kind=UNEXPLAINED, unexplained=f"{why}.")
