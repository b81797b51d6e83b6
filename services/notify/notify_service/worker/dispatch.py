"""Sends due messages, slice by slice: claim, ask permission, ask amounts, render; then act by act, a few at
a time.

What may be under way when this process dies is at most `acts_in_flight` messages: ACTING is committed for
that many, together with the outcomes of the ones before, and only then they leave. Everything before ACTING
can be done again: the reservation has the message's own key, nothing left. A database that goes away in
between costs nothing either: outcomes wait in memory until they are committed, and are committed by their
rows' state, so that twice is once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
import uuid
from collections.abc import Mapping, Sequence

from notify_service import store
from notify_service.domain import messages
from notify_service.providers import mail, remote
from notify_service.usecases import acts
from servicekit import clock, db, errors, facts, host, telemetry

BUDGET = 2.0
"""Seconds after which a tick begins no other slice, so that agencies that come meanwhile are seen."""
RESTS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Machine seconds without trying, after the first, second, .. failure of an agency in a row."""

_log = logging.getLogger("recupera.notify.dispatch")
_verdicts = telemetry.counter(
    "recupera.notify.acts",
    "{act}",
    "Messages given to a provider, by what it said",
    known={"channel": messages.Channel, "verdict": messages.Verdict},
)
_slices = telemetry.histogram("recupera.notify.slice", "s", "Time of one slice of due messages")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """How much at once, how often, how long."""

    slice_size: int = 200
    """Messages claimed together; at most 500 (the limit of the questions)."""
    acts_in_flight: int = 10
    """Messages committed ACTING together: so many are UNKNOWN at most when the process is killed."""
    attempts_max: int = 5
    """Transient refusals after which a message is FAILED."""
    validity_days: int = 7
    """Days after its date on which a message may still leave."""
    evidence_days: int = 1_825
    """Retention of rendered texts."""


class Dispatcher:
    """One in a process; `tick` is never called beside itself."""

    def __init__(
        self,
        *,
        engine: db.Engine,
        contacts: remote.Contacts,
        balances: remote.Balances,
        providers: Mapping[messages.Channel, mail.Provider],
        limits: Limits,
    ) -> None:
        self._engine = engine
        self._contacts = contacts
        self._balances = balances
        self._providers = providers
        self._limits = limits
        self._pending: dict[uuid.UUID, dict[uuid.UUID, store.Change]] = {}
        self._rests: dict[uuid.UUID, tuple[int, float]] = {}

    def tick(self) -> None:
        """Send what is due for every agency, in turns, until nothing is, the time is over or the process drains.

        An agency that fails rests and keeps no other from its turn; the tick fails at its end with the last failure. A
        database that is away ends it at once.
        """
        until = time.monotonic() + BUDGET
        left = (agency for agency, changes in self._pending.items() if changes)
        agencies = {*clock.with_work(self._engine, "agencies_to_send"), *left}
        waiting = [agency for agency in sorted(agencies) if self._awake(agency)]
        failure: Exception | None = None
        while waiting and time.monotonic() < until:
            going = []
            for agency in waiting:
                try:
                    if self._turn(agency):
                        going.append(agency)
                except Exception as error:
                    self._rest(agency, problem=type(error).__name__, error=error)
                    if db.is_unavailable(error):
                        raise
                    failure = error
            waiting = going
        if failure is not None:
            raise failure

    def _awake(self, agency: uuid.UUID) -> bool:
        return agency not in self._rests or self._rests[agency][1] <= time.monotonic()

    def _turn(self, agency: uuid.UUID) -> bool:
        """One slice of one agency; True where there may be more."""
        started = time.perf_counter()
        try:
            more = self._slice(agency)
        except (errors.RemoteUnavailable, errors.RemoteRefused) as error:
            self._rest(agency, problem=error.reason)
            return False
        if more:
            self._rests.pop(agency, None)
            _slices.record(time.perf_counter() - started)
        return more

    def _rest(self, agency: uuid.UUID, *, problem: str, error: Exception | None = None) -> None:
        failures = self._rests.get(agency, (0, 0.0))[0] + 1
        seconds = RESTS[min(failures, len(RESTS)) - 1]
        self._rests[agency] = (failures, time.monotonic() + seconds)
        _log.warning(
            "what is due stays due for now",
            exc_info=error,
            extra={"agency": str(agency), "problem": problem, "failures": failures, "again_in": seconds},
        )

    def _slice(self, agency: uuid.UUID) -> bool:
        self._flush(agency)
        if host.draining():
            return False
        with db.begin(self._engine, agency=agency) as tx:
            claimed = acts.claim(
                tx,
                agency,
                limit=self._limits.slice_size,
                validity_days=self._limits.validity_days,
                channels=self._providers.keys(),
            )
        if not claimed.messages:
            return False
        prepared, renewed = self._decide(agency, claimed)
        if not self._act(agency, prepared, claimed):
            return False
        if renewed:
            self._rest(agency, problem="RESERVATION_OVER")
        return not renewed

    def _decide(self, agency: uuid.UUID, claimed: acts.Slice) -> tuple[list[acts.Prepared], bool]:
        """What may be acted on, and whether some reservation had run out and is to be asked for again."""
        answers = self._contacts.reserve(agency, claimed.messages)
        if len(answers) < len(claimed.messages):
            raise errors.RemoteUnavailable("permission was not answered for every message")
        grants = {key: answer for key, answer in answers.items() if isinstance(answer, messages.Grant)}
        with db.begin(self._engine, agency=agency) as tx:
            catalog, reasons = acts.standing(
                tx, agency, contact_points=[grant.contact_point_id for grant in grants.values()]
            )
        owed = self._balances.explain(
            agency,
            [message.case_id for message in claimed.messages if message.id in grants],
            date=claimed.business_date,
        )
        left: list[tuple[messages.Message, messages.Suppress | messages.Defer]] = []
        renewed = False
        ready: list[acts.Prepared] = []
        for message in claimed.messages:
            grant = grants.get(message.id)
            decision = messages.decide(
                message=message,
                answer=answers[message.id],
                balance=owed.get(message.case_id),
                suppressed=reasons.get(grant.contact_point_id, ()) if grant else (),
                now=claimed.now,
            )
            if isinstance(decision, messages.Act):
                made = acts.prepare(
                    agency,
                    message=message,
                    act=decision,
                    catalog=catalog,
                    provider=self._providers[message.channel],
                    now=claimed.now,
                )
                if isinstance(made, acts.Prepared):
                    ready.append(made)
                    continue
                decision = made
            if isinstance(decision, messages.Renew):
                renewed = True
            else:
                left.append((message, decision))
        if left:
            with db.begin(self._engine, agency=agency) as tx:
                acts.leave(
                    tx,
                    agency,
                    decided=left,
                    people={key: grant.person_id for key, grant in grants.items()},
                    now=claimed.now,
                    business_date=claimed.business_date,
                )
        return ready, renewed

    def _act(self, agency: uuid.UUID, prepared: Sequence[acts.Prepared], claimed: acts.Slice) -> bool:
        """Act on a slice; False where the provider went away. What is not begun when the process drains stays due."""
        with contextlib.ExitStack() as open_lines:
            lines: dict[messages.Channel, mail.Line] = {}
            for group in facts.chunks(prepared, self._limits.acts_in_flight):
                if host.draining():
                    break
                begun = self._begin(agency, group, claimed)
                for one in group:
                    if one.message.id not in begun:
                        continue
                    if host.draining():
                        break  # those that are left did not leave: the flush gives them back
                    channel = one.message.channel
                    if channel not in lines:
                        lines[channel] = open_lines.enter_context(self._providers[channel].line())
                    answer = lines[channel].send(one.letter)
                    _verdicts.add(1, {"channel": channel.value, "verdict": answer.verdict.value})
                    self._pending[agency][one.message.id] = self._outcome(one, answer, claimed)
                    if answer.verdict is messages.Verdict.AWAY:
                        self._flush(agency)
                        self._rest(agency, problem=answer.code)
                        return False
            self._flush(agency)
        return True

    def _outcome(self, one: acts.Prepared, answer: mail.Answer, claimed: acts.Slice) -> store.Change:
        return acts.outcome(one.message, answer, now=claimed.now, attempts_max=self._limits.attempts_max)

    def _begin(
        self, agency: uuid.UUID, group: Sequence[acts.Prepared], claimed: acts.Slice
    ) -> set[uuid.UUID]:
        """Commit the last outcomes and ACTING for the group.

        Until a letter leaves, the group's outcome in memory is AWAY: should this commit be in doubt, the
        next flush gives those rows back that are ACTING after all.
        """
        done = list(self._pending.get(agency, {}).values())
        away = mail.Answer(messages.Verdict.AWAY, "NOT_BEGUN")
        back = {one.message.id: self._outcome(one, away, claimed) for one in group}
        self._pending.setdefault(agency, {}).update(back)
        with db.begin(self._engine, agency=agency) as tx:
            begun = acts.advance(
                tx, agency, done=done, following=group, retention_days=self._limits.evidence_days
            )
        self._pending[agency] = {key: change for key, change in back.items() if key in begun}
        return begun

    def _flush(self, agency: uuid.UUID) -> None:
        """Commit the outcomes that wait in memory."""
        pending = self._pending.get(agency)
        if not pending:
            return
        with db.begin(self._engine, agency=agency) as tx:
            acts.advance(
                tx,
                agency,
                done=list(pending.values()),
                following=(),
                retention_days=self._limits.evidence_days,
            )
        self._pending[agency] = {}
