"""The dialer's worker: facts of the case service, and the loops of its campaigns. No rules, no SQL."""

import collections
import dataclasses
import datetime
import decimal
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from dialer_service import domain, providers, store, usecases
from recupera.case.v1 import case_facts_pb2, case_pb2
from servicekit import acts, clock, dates, db, host, leases, telemetry

INTERVAL = 0.2
"""Seconds between ticks: a free agent has the next call within one."""
TICK = 1.0
"""Seconds after which loops that still find work end the tick, so that new campaigns and agencies are seen."""
LEASE = datetime.timedelta(seconds=10)
RENEW = 2.0
"""Seconds after which a loop that still works renews its lease."""

logger = logging.getLogger("recupera.dialer")

_dialled = telemetry.counter(
    "recupera.dialer.calls",
    "{call}",
    "Calls asked of the exchange, by outcome",
    known={"outcome": domain.Outcome},
)
_refused = telemetry.counter("recupera.dialer.refused", "{call}", "Calls that permission refused, by rule")
_paused = telemetry.gauge(
    "recupera.dialer.campaigns_paused",
    "{campaign}",
    "Campaigns that paused themselves and still are, by reason",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wiring:
    """What `__main__` gives the worker."""

    exchange: providers.Exchange
    permission: providers.Permission
    handling: datetime.timedelta
    allow_simulated_clock: bool


class DialerWorker(host.Worker):
    """Consumes the case service's facts and runs the loops of campaigns."""

    name = "dialer_worker"

    @host.consume("recupera.case.v1")
    def case_facts(self, tx: db.Transaction, facts: Sequence[case_facts_pb2.CaseFact]) -> None:
        """The clock, the business date, cases due a call, and states of cases; other facts are not for us."""
        agency = tx.agency
        assert agency is not None
        for fact in facts:
            match fact.WhichOneof("fact"):
                case "clock_changed":
                    usecases.take_clock(
                        tx, changed=_clock(agency, fact), allow_simulated=self.wiring.allow_simulated_clock
                    )
                case "day_opened":
                    usecases.open_day(tx, agency, date=dates.from_proto(fact.day_opened.date, "date"))
        news = [part for fact in facts for part in _news(fact)]
        if news:
            usecases.take_case_news(tx, agency, news=news)

    @host.looks_at(acts.UNKNOWN, _paused)
    def look_at_calls(self) -> None:
        """Of how many calls nobody knows whether they were made, and how many campaigns have paused themselves."""
        waiting = acts.Waiting()
        waiting.unknown("CALLING", "CALL", 0)
        paused = collections.Counter({reason.value: 0 for reason in domain.PAUSED_ITSELF})
        for one in clock.every(self.engine):
            since = one.business_date - datetime.timedelta(days=acts.UNKNOWN_DAYS)
            with db.begin(self.engine, agency=one.agency) as tx:
                waiting.unknown("CALLING", "CALL", store.unknown(tx, one.agency, since=since))
                paused.update(store.paused_campaigns(tx, one.agency, since=since))
        waiting.show()
        _paused.show(paused, by="reason")

    @host.timer(interval=INTERVAL)
    def dial(self) -> None:
        """Run the loop of each campaign that this process holds the lease of, until it finds no work."""
        run_campaigns(self.engine, self.wiring)


def run_campaigns(engine: db.Engine, wiring: Wiring, *, seconds: float = TICK) -> None:
    """One tick: every campaign of every agency that needs its loop, in turns while work is found, for so many seconds.

    An agency or a campaign that fails does not keep the others from their turn; the last failure is raised at the end.
    Calls begun stay where they are, and the next tick takes them up.
    """
    failure: Exception | None = None
    loops: collections.deque[Loop] = collections.deque()

    def gather(agency: UUID) -> None:
        with db.begin(engine, agency=agency) as tx:
            loops.extend(Loop(engine, wiring, agency, one) for one in usecases.worked_campaigns(tx, agency))

    try:
        host.each(clock.with_work(engine, "agencies_to_dial"), gather)
    except Exception as error:
        failure = error
    ends = time.monotonic() + seconds
    while loops:
        loop = loops.popleft()
        try:
            if loop.step(begin=time.monotonic() < ends):
                loops.append(loop)
        except Exception as error:
            logger.warning("campaign loop stopped", extra={"campaign_id": loop.campaign_id}, exc_info=error)
            failure = error
    if failure is not None:
        raise failure


class Loop:
    """The loop of one campaign, under its lease. Doing a step twice, or two owners for a moment, changes
    nothing: every step is conditional on the state it found, and the exchange begins a call once for a
    key.
    """

    def __init__(self, engine: db.Engine, wiring: Wiring, agency: UUID, campaign_id: UUID) -> None:
        self.campaign_id = campaign_id
        self._engine = engine
        self._wiring = wiring
        self._agency = agency
        self._held: float | None = None
        self._outcomes: dict[UUID, domain.Outcome | None] | None = None

    def step(self, *, begin: bool) -> bool:
        """Settle the calls of the step before (in the first: those found in DIALING) and, where asked to `begin`
        and while the lease is held, dial one call for each free agent. True when there is another step to make.
        """
        held = self._hold()
        if self._outcomes is None:
            if not held:
                return False
            self._outcomes = self._reconcile()
        queued = self._advance(self._outcomes, begin=begin and held)
        self._outcomes = {}
        if queued is None:
            leases.release(self._engine, self._lease)
            return False
        if not queued or not begin or not held:
            return False
        dialled = self._permit(queued)
        if dialled is None:
            return False
        self._outcomes = self._originate(dialled)
        return True

    @property
    def _lease(self) -> str:
        return f"campaign/{self.campaign_id}"

    def _hold(self) -> bool:
        if self._held is not None and time.monotonic() - self._held < RENEW:
            return True
        if not leases.hold(self._engine, self._lease, lease=LEASE):
            return False
        self._held = time.monotonic()
        return True

    def _reconcile(self) -> dict[UUID, domain.Outcome | None]:
        """What became of calls found in DIALING: of a loop that crashed, or whose line still rings."""
        with db.begin(self._engine, agency=self._agency) as tx:
            found = usecases.dialling_calls(tx, self._agency, campaign_id=self.campaign_id)
        outcomes: dict[UUID, domain.Outcome | None] = {}
        for call in found:
            try:
                outcome = self._wiring.exchange.ask(call.outside_key)
            except providers.CallNotKnown:
                outcomes[call.id] = None
            else:
                if outcome is not None:
                    outcomes[call.id] = outcome
        return outcomes

    def _advance(
        self, outcomes: dict[UUID, domain.Outcome | None], *, begin: bool
    ) -> Sequence[domain.Call] | None:
        with db.begin(self._engine, agency=self._agency) as tx:
            agency_clock = clock.read(tx, self._agency)
            return usecases.advance(
                tx,
                self._agency,
                campaign_id=self.campaign_id,
                outcomes=outcomes,
                begin=begin,
                handling=self._wiring.handling,
                now=agency_clock.now(),
                business_date=agency_clock.business_date,
            )

    def _permit(self, queued: Sequence[domain.Call]) -> list[tuple[domain.Call, str]] | None:
        """Calls committed as DIALING, each with its number; None where permission had no answer for any."""
        asks = [providers.Ask(key=call.id, case_id=call.case_id, person_id=call.person_id) for call in queued]
        answers = self._wiring.permission.reserve(self._agency, asks)
        if not answers:
            return None
        with db.begin(self._engine, agency=self._agency) as tx:
            for answer in answers:
                if isinstance(answer, domain.Refused):
                    tx.count(_refused, rule=answer.rule)
            agency_clock = clock.read(tx, self._agency)
            dialled = usecases.permit(
                tx,
                self._agency,
                campaign_id=self.campaign_id,
                answers=answers,
                now=agency_clock.now(),
                business_date=agency_clock.business_date,
            )
        numbers = {answer.key: answer.number for answer in answers if isinstance(answer, domain.Granted)}
        return [(call, numbers[call.id]) for call in dialled]

    def _originate(self, dialled: list[tuple[domain.Call, str]]) -> dict[UUID, domain.Outcome | None]:
        """Dial. When the exchange is away the campaign pauses; what is left in DIALING is asked for in
        later ticks.
        """
        outcomes: dict[UUID, domain.Outcome | None] = {}
        for call, number in dialled:
            try:
                outcome = self._wiring.exchange.originate(call.outside_key, number)
            except providers.ExchangeUnavailable:
                self._pause(domain.PauseReason.EXCHANGE_UNAVAILABLE)
                break
            if outcome is not None:
                outcomes[call.id] = outcome
                _dialled.add(1, {"outcome": outcome.value})
        return outcomes

    def _pause(self, reason: domain.PauseReason) -> None:
        logger.error("campaign paused", extra={"campaign_id": self.campaign_id, "reason": reason})
        with db.begin(self._engine, agency=self._agency) as tx:
            agency_clock = clock.read(tx, self._agency)
            usecases.pause_for(
                tx,
                self._agency,
                campaign_id=self.campaign_id,
                reason=reason,
                now=agency_clock.now(),
                business_date=agency_clock.business_date,
            )


def _clock(agency: UUID, fact: case_facts_pb2.CaseFact) -> clock.AgencyClock:
    changed = fact.clock_changed
    return clock.AgencyClock(
        agency=agency,
        time_zone=changed.time_zone,
        simulated=changed.simulated,
        base_machine=dates.from_timestamp(changed.base_machine, "base_machine")
        if changed.simulated
        else None,
        base_agency=dates.from_timestamp(changed.base_agency, "base_agency") if changed.simulated else None,
        speed=decimal.Decimal(changed.speed_thousandths) / 1000,
        business_date=dates.from_proto(changed.business_date, "business_date"),
        version=fact.version,
    )


def _news(fact: case_facts_pb2.CaseFact) -> Iterator[domain.DueOn | domain.CaseChange]:
    match fact.WhichOneof("fact"):
        case "steps_due":
            due = list(_due(fact.steps_due))
            if due:
                yield domain.DueOn(date=dates.from_proto(fact.steps_due.date, "date"), due=due)
        case "cases_changed":
            changed = fact.cases_changed
            for case, version, state in zip(changed.case_ids, changed.versions, changed.states, strict=True):
                yield domain.CaseChange(case_id=UUID(bytes=case), version=version, state=_case_state(state))


def _case_state(number: int) -> str:
    """The name of a case's state; empty for one this version does not know."""
    states: Any = case_pb2.Case.State
    return str(states.Name(number)).removeprefix("STATE_") if number in states.values() else ""


def _due(steps: case_facts_pb2.StepsDue) -> Iterator[domain.Due]:
    """The rows whose step is a call."""
    for row, case in enumerate(steps.case_ids):
        step = steps.table_steps[steps.step_index[row]] if steps.step_index else steps.table_steps[0]
        if step.channel != case_pb2.CHANNEL_CALL:
            continue
        person = steps.person_ids[row] if steps.person_ids else b""
        yield domain.Due(
            case_id=UUID(bytes=case),
            person_id=UUID(bytes=person) if person else None,
            natural_key=steps.natural_keys[row] if steps.natural_keys else 0,
            step_id=UUID(bytes=step.step_id),
            level=step.level,
            script=step.template,
            days_past_due=steps.days_past_due[row] if steps.days_past_due else 0,
            open_principal_minor=steps.open_principal_minor[row] if steps.open_principal_minor else 0,
        )
