"""Facts and timers of case: fact -> one use case. No rules, no SQL."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import uuid
from collections.abc import Mapping, Sequence

from case_service.domain import contact
from case_service.providers import slices
from case_service.store import days as day_store
from case_service.store import portfolio as staging
from case_service.usecases import days, moments, outcomes, portfolio
from recupera.agreement.v1 import agreement_facts_pb2, agreement_pb2
from recupera.case.v1 import case_pb2
from recupera.dialer.v1 import dialer_facts_pb2, dialer_pb2
from recupera.imports.v1 import imports_facts_pb2, imports_pb2
from recupera.notify.v1 import notify_facts_pb2, notify_pb2
from servicekit import clock, dates, db, facts, host, telemetry

logger = logging.getLogger("recupera.case")

_late = telemetry.counter(
    "recupera.case.late_slices", "{slice}", "Slices of the daily run found late, at each look", known={}
)
_behind = telemetry.gauge(
    "recupera.case.days_behind", "{day}", "Most days by which a business date is behind the one that is due"
)
_open = telemetry.gauge(
    "recupera.case.day_slices_open", "{slice}", "Slices of the open business days that are not done"
)

SliceKey = tuple[bytes, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wiring:
    """What ``__main__`` gives the worker."""

    slices: slices.Slices
    late_slice_minutes: int
    day_opens_hour: int = 0


class CaseWorker(host.Worker):
    """The worker process of case."""

    name = "case_worker"
    wiring: Wiring

    def fetch_slices(self, found: Sequence[imports_facts_pb2.ImportFact]) -> Mapping[SliceKey, bytes]:
        """The rows of the portfolio slices that are ready, as CSV."""
        return {
            (ready.batch_id, ready.slice): self.wiring.slices.fetch(
                uuid.UUID(bytes=fact.agency),
                batch_id=uuid.UUID(bytes=ready.batch_id),
                slice_=ready.slice,
                columns=["row", *list(staging.COLUMNS)[1:]],
            )
            for fact in found
            if (ready := _portfolio_slice(fact)) is not None
        }

    @host.consume("recupera.imports.v1", prepare="fetch_slices", max_records=1)
    def import_facts(
        self,
        tx: db.Transaction,
        found: Sequence[imports_facts_pb2.ImportFact],
        prepared: Mapping[SliceKey, bytes],
    ) -> None:
        """Slices of portfolios; payments are the agreement service's."""
        for fact in found:
            ready = _portfolio_slice(fact)
            if ready is not None:
                portfolio.apply_slice(
                    tx,
                    uuid.UUID(bytes=fact.agency),
                    batch_id=uuid.UUID(bytes=ready.batch_id),
                    slice_=ready.slice,
                    csv=prepared[ready.batch_id, ready.slice],
                )

    @host.consume("recupera.agreement.v1")
    def agreement_facts(self, tx: db.Transaction, found: Sequence[agreement_facts_pb2.AgreementFact]) -> None:
        """Titles, agreements, payments, and days that are done there."""
        for fact in found:
            agency = uuid.UUID(bytes=fact.agency)
            match facts.kind(fact):
                case "day_done":
                    days.day_done(
                        tx,
                        agency,
                        date=dates.from_proto(fact.day_done.date, "date"),
                        partition=fact.day_done.partition,
                    )
                case "titles_novated":
                    novated = fact.titles_novated
                    outcomes.titles_novated(
                        tx,
                        _moment(tx, fact),
                        titles=[
                            outcomes.Novated(*one)
                            for one in zip(
                                _ids(novated.case_ids),
                                _ids(novated.title_ids),
                                novated.title_references,
                                novated.principal_minor,
                                [dates.from_epoch_days(day) for day in novated.due_days],
                                novated.penalty_rates_e4,
                                novated.monthly_rates_e4,
                                strict=True,
                            )
                        ],
                    )
                case "titles_changed":
                    changed = fact.titles_changed
                    outcomes.titles_changed(
                        tx,
                        _moment(tx, fact),
                        case_ids=_ids(changed.case_ids),
                        title_ids=_ids(changed.title_ids),
                        versions=list(changed.versions),
                        states=[
                            agreement_pb2.Title.State.Name(state).removeprefix("STATE_")
                            for state in changed.states
                        ],
                        open_minor=list(changed.open_principal_minor),
                        due_dates=[dates.from_epoch_days(day) for day in changed.due_days],
                    )
                case "agreement_changed":
                    outcomes.agreement_changed(
                        tx,
                        _moment(tx, fact),
                        case_id=uuid.UUID(bytes=fact.agreement_changed.case_id),
                        agreement_id=uuid.UUID(bytes=fact.agreement_changed.agreement_id),
                        state=agreement_pb2.Agreement.State.Name(fact.agreement_changed.state).removeprefix(
                            "STATE_"
                        ),
                        version=fact.version,
                    )
                case "payment_changed" if fact.payment_changed.case_id:
                    paid = fact.payment_changed
                    outcomes.payment_changed(
                        tx,
                        _moment(tx, fact),
                        case_id=uuid.UUID(bytes=paid.case_id),
                        payment_id=uuid.UUID(bytes=paid.payment_id),
                        state=agreement_pb2.Payment.State.Name(paid.state).removeprefix("STATE_"),
                        amount_minor=paid.amount_minor,
                        allocated_minor=paid.allocated_minor,
                        currency=paid.currency,
                        value_date=dates.from_proto(paid.value_date, "value_date")
                        if paid.HasField("value_date")
                        else None,
                        version=fact.version,
                    )

    @host.consume("recupera.notify.v1")
    def notify_facts(self, tx: db.Transaction, found: Sequence[notify_facts_pb2.NotifyFact]) -> None:
        """Messages and addresses that must not be used again."""
        for fact in found:
            match facts.kind(fact):
                case "messages_changed":
                    outcomes.messages_changed(
                        tx,
                        _moment(tx, fact),
                        messages=_messages(fact.messages_changed),
                        channel=_channel(fact.messages_changed.channel),
                    )
                case "contact_point_suppressed":
                    barred = fact.contact_point_suppressed
                    outcomes.contact_point_suppressed(
                        tx,
                        _moment(tx, fact),
                        case_id=uuid.UUID(bytes=barred.case_id),
                        contact_point_id=uuid.UUID(bytes=barred.contact_point_id),
                        reason=notify_pb2.Suppression.Reason.Name(barred.reason).removeprefix("REASON_"),
                    )

    @host.consume("recupera.dialer.v1")
    def dialer_facts(self, tx: db.Transaction, found: Sequence[dialer_facts_pb2.DialerFact]) -> None:
        """Calls."""
        for fact in found:
            if facts.kind(fact) == "call_ended":
                outcomes.call_ended(tx, _moment(tx, fact), call=_call(fact.call_ended, fact.version))

    @host.timer(interval=30.0)
    def open_days(self) -> None:
        """The business day of each agency whose calendar date has come (docs/adr/0015-daily-run-is-a-timer.md)."""
        host.each(clock.agencies(self.engine), self._open_day)

    def _open_day(self, agency: uuid.UUID) -> None:
        with db.begin(self.engine, agency=agency) as tx:
            date = days.open_due(tx, agency, hour=self.wiring.day_opens_hour)
        if date:
            logger.info("business day opened", extra={"agency": str(agency), "date": date.isoformat()})

    @host.timer(interval=1.0)
    def run_cleared_slices(self) -> None:
        """Slices whose due and breach run was over before their date was open here."""
        host.each(clock.with_work(self.engine, "agencies_to_run"), self._run_cleared)

    def _run_cleared(self, agency: uuid.UUID) -> None:
        while not host.draining():
            with db.begin(self.engine, agency=agency) as tx:
                if days.run_cleared(tx, agency, partition=None, limit=1) == 0:
                    break

    @host.looks_at(_behind, _open)
    def look_at_days(self) -> None:
        """How far the business days are."""
        _behind.show([(clock.days_behind(self.engine, hour=self.wiring.day_opens_hour), {})])
        open_slices = 0
        for agency in clock.agencies(self.engine):
            with db.begin(self.engine, agency=agency) as tx:
                open_slices += day_store.open_slices(tx, agency)
        _open.show([(open_slices, {})])

    @host.timer(interval=60.0)
    def watch_days(self) -> None:
        """Slices of the daily run that are late: an alarm for people; the slice waits on, and is never skipped."""
        host.each(clock.agencies(self.engine), self._watch_days)

    def _watch_days(self, agency: uuid.UUID) -> None:
        with db.begin(self.engine, agency=agency) as tx:
            late = days.late(tx, agency, minutes=self.wiring.late_slice_minutes)
        for date, count in late.items():
            _late.add(count)
            logger.error(
                "slices of the daily run are late",
                extra={"agency": str(agency), "date": date.isoformat(), "slices": count},
            )


def _moment(tx: db.Transaction, fact: object) -> moments.Moment:
    occurred, date = fact.occurred_at, fact.business_date  # type: ignore[attr-defined]
    return outcomes.happened(
        tx,
        uuid.UUID(bytes=fact.agency),  # type: ignore[attr-defined]
        at=occurred.ToDatetime(datetime.UTC),
        business_date=dates.from_proto(date, "business_date"),
    )


def _portfolio_slice(fact: imports_facts_pb2.ImportFact) -> imports_facts_pb2.SliceReady | None:
    if facts.kind(fact) == "slice_ready" and fact.slice_ready.kind == imports_pb2.BATCH_KIND_PORTFOLIO:
        return fact.slice_ready
    return None


def _ids(values: Sequence[bytes]) -> list[uuid.UUID]:
    return [uuid.UUID(bytes=value) for value in values]


def _optional(value: bytes) -> uuid.UUID | None:
    return uuid.UUID(bytes=value) if value else None


def _channel(value: case_pb2.Channel.ValueType) -> contact.Channel:
    return contact.Channel(case_pb2.Channel.Name(value).removeprefix("CHANNEL_"))


def _messages(changed: notify_facts_pb2.MessagesChanged) -> list[outcomes.Message]:
    rows = len(changed.case_ids)
    people, keys = changed.person_ids or [b""] * rows, changed.reservation_keys or [b""] * rows
    attempted, rules = changed.attempted or [False] * rows, changed.rules or [""] * rows
    templates = [changed.table_templates[index] for index in changed.template_index] or [""] * rows
    return [
        outcomes.Message(
            case_id=uuid.UUID(bytes=changed.case_ids[row]),
            message_id=uuid.UUID(bytes=changed.message_ids[row]),
            person_id=_optional(people[row]),
            reservation_key=_optional(keys[row]),
            state=notify_pb2.Message.State.Name(changed.states[row]).removeprefix("STATE_"),
            attempted=attempted[row],
            rule=rules[row],
            template=templates[row],
        )
        for row in range(rows)
    ]


def _call(ended: dialer_facts_pb2.CallEnded, version: int) -> outcomes.Call:
    promise = None
    if ended.HasField("promise_date"):
        promise = contact.Promise(
            date=dates.from_proto(ended.promise_date, "promise_date"),
            amount_minor=ended.promise_amount_minor,
            currency=ended.currency,
        )
    disposition = ""
    if ended.disposition != dialer_pb2.Call.DISPOSITION_UNSPECIFIED:
        disposition = dialer_pb2.Call.Disposition.Name(ended.disposition).removeprefix("DISPOSITION_")
    return outcomes.Call(
        case_id=uuid.UUID(bytes=ended.case_id),
        call_id=uuid.UUID(bytes=ended.call_id),
        person_id=_optional(ended.person_id),
        contact_point_id=_optional(ended.contact_point_id),
        reservation_key=_optional(ended.reservation_key),
        state=dialer_pb2.Call.State.Name(ended.state).removeprefix("STATE_"),
        attempted=ended.attempted,
        right_party=ended.right_party,
        disposition=disposition,
        promise=promise,
        rule=ended.rule,
        version=version,
    )
