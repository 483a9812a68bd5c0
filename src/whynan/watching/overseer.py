"""The part of watching that knows no framework: steps are counted, moments kept, bad steps explained, and a decision is made."""

import logging
from collections.abc import Callable
from dataclasses import replace

from whynan.errors import NonFiniteError
from whynan.watching.flight import FlightRecord, advice_from
from whynan.watching.policy import RAISE, Options, decided
from whynan.watching.record import Incident, Moment

log = logging.getLogger("whynan.watch")


class Overseer:
    """One watched run. The framework's watcher reports each step to it, healthy or bad, in order."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.step = 0  # the number of the step under way, from 0
        self.bad_steps = 0
        self.in_a_row = 0
        self.incidents: list[Incident] = []
        self.flight = FlightRecord(options.memory)

    def healthy(self, moment: Moment) -> None:
        """The step was fine and is applied."""
        self.flight.add(moment)
        self.step += 1
        self.in_a_row = 0

    def passed_over(self, moment: Moment) -> None:
        """A step that the loop itself has left out, as a gradient scaler does: neither healthy nor an incident."""
        self.flight.add(moment)
        self.step += 1

    def bad(self, moment: Moment, explain: Callable[[], Incident]) -> str:
        """A step that must not be applied as it is; returns the policy to be followed.

        Raises NonFiniteError if that is the policy, or when it has come to it. `explain` is called for the first `options.incidents`
        bad steps, not again for those that follow at once in a row for the same reason.
        """
        self.bad_steps += 1
        self.in_a_row += 1
        explained = self._explained(moment, explain)
        wanted = self._asked(explained) if explained is not None else None
        action = decided(self.options, wanted, self.in_a_row)
        self.flight.add(replace(moment, outcome=action))
        self.step += 1
        if explained is not None:
            self.incidents[-1] = explained = replace(explained, action=action)
        self._say(explained, moment, action)
        if action == RAISE:
            raise NonFiniteError.of(explained or self.incidents[-1], self.in_a_row)
        return action

    def _explained(self, moment: Moment, explain: Callable[[], Incident]) -> Incident | None:
        if len(self.incidents) >= self.options.incidents and self.in_a_row > 1:
            return None
        incident = explain()
        incident = replace(incident, moments=self.flight.moments, advice=(*incident.advice, *advice_from(self.flight, moment, incident)))
        incident = self._kept(replace(incident, action=decided(self.options, None, self.in_a_row)))
        self.incidents.append(incident)
        return incident

    def _kept(self, incident: Incident) -> Incident:
        """The incident with its bundle written, if bundles are wanted and this run has not yet written as many as it may."""
        if self.options.folder is None or sum(i.folder is not None for i in self.incidents) >= self.options.incidents:
            return incident
        from whynan.watching.bundle import save

        try:
            return replace(incident, folder=save(incident, self.options))
        except OSError as error:
            return replace(incident, notes=(*incident.notes, f"the incident could not be written to {self.options.folder}: {error}"))

    def _asked(self, incident: Incident) -> str | None:
        return self.options.on_incident(incident) if self.options.on_incident is not None else None

    def _say(self, incident: Incident | None, moment: Moment, action: str) -> None:
        if action == RAISE:
            return  # the error says it
        what = str(incident) if incident is not None else f"step {moment.step} went bad again ({self.in_a_row} in a row)"
        log.warning("%s\n%s", what, f"This update was not applied; policy {action}.")
