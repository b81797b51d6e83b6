"""The worker: facts that ask for messages, and the timer that sends what is due."""

from __future__ import annotations

import dataclasses
import datetime
import uuid
from collections.abc import Sequence
from typing import Any

from notify_service import store
from notify_service.domain import messages
from notify_service.usecases import clocks, requests
from notify_service.worker import dispatch
from recupera.agreement.v1 import agreement_facts_pb2
from recupera.case.v1 import case_facts_pb2
from servicekit import acts, clock, dates, db, host


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wiring:
    """What `__main__` builds."""

    dispatcher: dispatch.Dispatcher
    allow_simulated_clock: bool


class NotifyWorker(host.Worker):
    """Consumes the facts of `case` (clock, steps due) and `agreement` (instalments)."""

    name = "notify_worker"
    wiring: Any

    @host.consume("recupera.case.v1")
    def case_facts(self, tx: db.Transaction, facts: Sequence[case_facts_pb2.CaseFact]) -> None:
        """Clock and business date; a message for each step that is an e-mail or an SMS."""
        agency = uuid.UUID(bytes=facts[0].agency)
        steps = []
        for fact in facts:
            match fact.WhichOneof("fact"):
                case "clock_changed" | "day_opened":
                    clocks.apply(tx, agency, fact=fact, allow_simulated=self.wiring.allow_simulated_clock)
                case "steps_due":
                    steps.append(fact.steps_due)
        requests.request_steps(tx, agency, chunks=steps)

    @host.consume("recupera.agreement.v1")
    def agreement_facts(self, tx: db.Transaction, facts: Sequence[agreement_facts_pb2.AgreementFact]) -> None:
        """A reminder for each instalment that is notified."""
        requests.request_reminders(
            tx,
            uuid.UUID(bytes=facts[0].agency),
            chunks=[
                (
                    dates.from_timestamp(fact.occurred_at, "occurred_at"),
                    dates.from_proto(fact.business_date, "business_date"),
                    fact.instalments_changed,
                )
                for fact in facts
                if fact.HasField("instalments_changed")
            ],
        )

    @host.looks_at(acts.DUE_AGE, acts.UNKNOWN)
    def look_at_messages(self) -> None:
        """How long the oldest message is due on a real clock, and of how many nobody knows whether they left."""
        waiting = acts.Waiting("SENDING")
        for channel in messages.Channel:
            waiting.unknown("SENDING", channel.value, 0)
        for one in clock.every(self.engine):
            since = one.business_date - datetime.timedelta(days=acts.UNKNOWN_DAYS)
            now = one.now()
            with db.begin(self.engine, agency=one.agency) as tx:
                for channel_name, number in store.unknown(tx, one.agency, since=since).items():
                    waiting.unknown("SENDING", channel_name, number)
                if not one.simulated:
                    waiting.due("SENDING", store.oldest_due(tx, one.agency, now=now), now=now)
        waiting.show()

    @host.timer(interval=0.25, eager=True)
    def send_due(self) -> None:
        """Send what is due on each agency's clock."""
        self.wiring.dispatcher.tick()
