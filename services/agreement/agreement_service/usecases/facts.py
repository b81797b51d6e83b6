"""The facts of this service, built from rows and published in chunks by partition."""

import datetime
import itertools
import uuid
from collections.abc import Iterable, Mapping, Sequence

from agreement_service.domain import accounts
from agreement_service.store import approvals as approval_store
from agreement_service.store import daily as daily_store
from agreement_service.store import instruments as instrument_store
from agreement_service.store import novations as novation_store
from agreement_service.store import payments as payment_store
from agreement_service.store import promises as promise_store
from agreement_service.store import remittance as remittance_store
from agreement_service.usecases import moments
from recupera.agreement.v1 import agreement_facts_pb2, agreement_pb2, remittance_pb2
from recupera.approvals.v1 import approvals_pb2
from servicekit import dates, db, facts, topics

TOPIC = "recupera.agreement.v1"
_TITLE_STATES = {name.removeprefix("STATE_"): number for name, number in agreement_pb2.Title.State.items()}
_INSTALMENT_STATES = {
    name.removeprefix("STATE_"): number for name, number in agreement_pb2.Instalment.State.items()
}


def partitions() -> int:
    """Number of partitions of this service's topic."""
    return topics.catalog()[TOPIC].partitions


def header(
    moment: moments.Moment, *, subject: uuid.UUID | None = None, version: int = 0
) -> agreement_facts_pb2.AgreementFact:
    """A fact without its content."""
    return agreement_facts_pb2.AgreementFact(
        occurred_at=dates.to_timestamp(moment.now),
        business_date=dates.to_proto(moment.business_date),
        subject=subject.bytes if subject is not None else b"",
        version=version,
    )


def titles_changed(
    tx: db.Transaction,
    moment: moments.Moment,
    rows: Iterable[tuple[uuid.UUID, uuid.UUID, int, accounts.TitleState, datetime.date, int, datetime.date]],
) -> None:
    """Publish titles: case, id, version, stored state, payable until, open principal, due date."""
    for partition, part in facts.by_partition(rows, case_id=lambda row: row[0], partitions=partitions()):
        fact = header(moment)
        body = fact.titles_changed
        case_ids, title_ids, versions, states, payable, open_principal, due_dates = zip(*part, strict=True)
        today = moment.business_date
        shown = [
            accounts.title_state_on(state, payable_until=day, business_date=today)
            for state, day in zip(states, payable, strict=True)
        ]
        body.case_ids.extend([one.bytes for one in case_ids])
        body.title_ids.extend([one.bytes for one in title_ids])
        body.versions.extend(versions)
        body.states.extend([_TITLE_STATES[one.value] for one in shown])
        body.open_principal_minor.extend(open_principal)
        body.due_days.extend([dates.epoch_days(one) for one in due_dates])
        tx.publish(fact, partition=partition)


def title_row(
    title: accounts.Title,
) -> tuple[uuid.UUID, uuid.UUID, int, accounts.TitleState, datetime.date, int, datetime.date]:
    """The row of `titles_changed` for a title."""
    return (
        title.case_id,
        title.title_id,
        title.version,
        title.state,
        title.payable_until,
        title.open_principal_minor,
        title.due_date,
    )


def titles_novated(
    tx: db.Transaction,
    moment: moments.Moment,
    made: Sequence[novation_store.Made],
    parents: Sequence[uuid.UUID],
) -> None:
    """Publish the titles that one novation made, all in its lead case, and their originals."""
    if not made:
        return
    fact = header(moment, subject=made[0].agreement_id)
    body = fact.titles_novated
    body.table_currencies.append(made[0].currency)
    body.table_parents.extend(one.bytes for one in parents)
    for one in made:
        body.case_ids.append(one.case_id.bytes)
        body.title_ids.append(one.title_id.bytes)
        body.title_references.append(one.reference)
        body.principal_minor.append(one.principal_minor)
        body.due_days.append(dates.epoch_days(one.due_date))
        body.agreement_ids.append(one.agreement_id.bytes)
        body.penalty_rates_e4.append(one.penalty_rate_e4)
        body.monthly_rates_e4.append(one.monthly_rate_e4)
        body.currency_index.append(0)
    tx.publish(fact, case_id=made[0].case_id)


def promise_changed(tx: db.Transaction, moment: moments.Moment, promise: promise_store.Promise) -> None:
    """Publish what became of a promise."""
    fact = header(moment, subject=promise.contact_id, version=promise.version)
    body = fact.promise_changed
    body.case_id, body.contact_id = promise.case_id.bytes, promise.contact_id.bytes
    body.state = agreement_pb2.Promise.State.Value(f"STATE_{promise.state.value}")
    body.promise_date.CopyFrom(dates.to_proto(promise.promise_date))
    body.amount_minor, body.paid_minor = promise.amount_minor, promise.paid_minor
    body.currency = promise.currency
    tx.publish(fact, case_id=promise.case_id)


def agreement_changed(
    tx: db.Transaction,
    moment: moments.Moment,
    *,
    agreement_id: uuid.UUID,
    case_ids: Sequence[uuid.UUID],
    state: accounts.AgreementState,
    version: int,
    total_minor: int,
    currency: str,
    instalments: int,
    next_due_date: datetime.date | None,
) -> None:
    """Publish an agreement, once for each case it covers."""
    for case_id in case_ids:
        fact = header(moment, subject=agreement_id, version=version)
        fact.agreement_changed.case_id = case_id.bytes
        fact.agreement_changed.agreement_id = agreement_id.bytes
        fact.agreement_changed.state = agreement_pb2.Agreement.State.Value(f"STATE_{state.value}")
        fact.agreement_changed.total_minor = total_minor
        fact.agreement_changed.currency = currency
        fact.agreement_changed.instalments = instalments
        if next_due_date is not None:
            fact.agreement_changed.next_due_date.CopyFrom(dates.to_proto(next_due_date))
        tx.publish(fact, case_id=case_id)


def next_due_date(rows: Iterable[accounts.Instalment]) -> datetime.date | None:
    """Due date of the first unpaid instalment."""
    return min((one.due_date for one in rows if one.open_minor), default=None)


def instalments_changed(
    tx: db.Transaction,
    moment: moments.Moment,
    rows: Iterable[accounts.Instalment],
    case_ids: Mapping[uuid.UUID, Sequence[uuid.UUID]],
) -> None:
    """Publish instalments, a row for each case that their agreement covers (`case_ids` by agreement)."""
    pairs = [(case_id, one) for one in rows for case_id in case_ids[one.agreement_id]]
    for partition, part in facts.by_partition(pairs, case_id=lambda pair: pair[0], partitions=partitions()):
        fact = header(moment)
        body = fact.instalments_changed
        body.case_ids.extend([case_id.bytes for case_id, _ in part])
        body.agreement_ids.extend([one.agreement_id.bytes for _, one in part])
        body.instalment_ids.extend([one.instalment_id.bytes for _, one in part])
        body.numbers.extend([one.number for _, one in part])
        body.states.extend([_INSTALMENT_STATES[one.state.value] for _, one in part])
        body.due_days.extend([dates.epoch_days(one.due_date) for _, one in part])
        body.open_minor.extend([one.open_minor for _, one in part])
        body.versions.extend([one.version for _, one in part])
        tx.publish(fact, partition=partition)


def instruments_changed(
    tx: db.Transaction, moment: moments.Moment, rows: Iterable[instrument_store.Instrument]
) -> None:
    """Publish instruments. One that is closed while the bank is being asked still shows what was asked."""
    for partition, part in facts.by_partition(rows, case_id=lambda row: row.case_id, partitions=partitions()):
        fact = header(moment)
        body = fact.instruments_changed
        for one in part:
            body.case_ids.append(one.case_id.bytes)
            body.instrument_ids.append(one.id.bytes)
            body.versions.append(one.version)
            body.kinds.append(agreement_pb2.Instrument.Kind.Value(f"KIND_{one.kind}"))
            body.states.append(agreement_pb2.Instrument.State.Value(f"STATE_{one.state}"))
            body.amount_minor.append(one.amount_minor)
            body.due_days.append(dates.epoch_days(one.due_date))
        tx.publish(fact, partition=partition)


def instalments_moved(tx: db.Transaction, moment: moments.Moment, rows: Sequence[daily_store.Moved]) -> None:
    """Publish instalments as store.daily.move gives them: sorted by partition."""
    for partition, group in itertools.groupby(rows, key=lambda row: row.partition):
        for part in facts.chunks(list(group)):
            fact = header(moment)
            body = fact.instalments_changed
            body.case_ids.extend([row.case_id.bytes for row in part])
            body.agreement_ids.extend([row.agreement_id.bytes for row in part])
            body.instalment_ids.extend([row.id.bytes for row in part])
            body.numbers.extend([row.number for row in part])
            body.states.extend([_INSTALMENT_STATES[row.state] for row in part])
            body.due_days.extend([dates.epoch_days(row.due_date) for row in part])
            body.open_minor.extend([row.open_minor for row in part])
            body.versions.extend([row.version for row in part])
            tx.publish(fact, partition=partition)


def payment_changed(
    tx: db.Transaction,
    moment: moments.Moment,
    payment: payment_store.Payment,
    allocated: Mapping[uuid.UUID, int],
) -> None:
    """Publish a payment, once for each case in `allocated` (part of the amount by case), or without one."""
    shares: list[tuple[uuid.UUID | None, int]] = sorted(allocated.items()) if allocated else []
    if not shares:
        shares = [(payment.case_id, 0)]
    for case_id, part in shares:
        fact = header(moment, subject=case_id or payment.id, version=payment.version)
        body = fact.payment_changed
        body.case_id = case_id.bytes if case_id is not None else b""
        body.payment_id = payment.id.bytes
        body.state = agreement_pb2.Payment.State.Value(f"STATE_{payment.state.value}")
        body.amount_minor = payment.amount_minor
        body.allocated_minor = part
        body.currency = payment.currency
        body.value_date.CopyFrom(dates.to_proto(payment.value_date))
        tx.publish(fact, case_id=case_id or payment.id)


def approval_changed(tx: db.Transaction, moment: moments.Moment, approval: approval_store.Approval) -> None:
    """Publish an approval request, once for each case it is about, or without one."""
    for case_id in approval.case_ids or (None,):
        fact = header(moment, subject=approval.id, version=approval.version)
        body = fact.approval_changed
        body.case_id = case_id.bytes if case_id is not None else b""
        body.approval_id = approval.id.bytes
        body.state = approvals_pb2.ApprovalRequest.State.Value(
            f"STATE_{approval.state_on(moment.business_date).value}"
        )
        body.rule = approval.rule
        body.method = approval.method
        body.expire_date.CopyFrom(dates.to_proto(approval.expire_date))
        tx.publish(fact, case_id=case_id or approval.id)


def statement_changed(
    tx: db.Transaction, moment: moments.Moment, statement: remittance_store.Statement
) -> None:
    """Publish a statement that is closed, approved or paid. The caller holds its row."""
    assert statement.period_start is not None
    assert statement.period_end is not None
    fact = header(moment, subject=statement.id, version=statement.version)
    body = fact.statement_changed
    body.statement_id = statement.id.bytes
    body.creditor_id = statement.creditor_id.bytes
    body.for_case_id = statement.for_case_id.bytes if statement.for_case_id is not None else b""
    body.number = statement.number
    body.state = remittance_pb2.Statement.State.Value(f"STATE_{statement.state.value}")
    body.currency = statement.currency
    body.period_start.CopyFrom(dates.to_proto(statement.period_start))
    body.period_end.CopyFrom(dates.to_proto(statement.period_end))
    body.settlements = statement.settlements
    body.gross_minor = statement.gross_minor
    body.commission_minor = statement.commission_minor
    body.success_fee_minor = statement.success_fee_minor
    body.tax_added_minor = statement.tax_added_minor
    body.tax_retained_minor = statement.tax_retained_minor
    body.carried_in_minor = statement.carried_in_minor
    body.remitted_minor = statement.remitted_minor
    body.carried_out_minor = statement.carried_out_minor
    tx.publish(fact, case_id=statement.id)


def day_done(tx: db.Transaction, moment: moments.Moment, *, date: datetime.date, partition: int) -> None:
    """Publish that the day is done in a partition."""
    fact = header(moment)
    fact.day_done.partition = partition
    fact.day_done.date.CopyFrom(dates.to_proto(date))
    tx.publish(fact, partition=partition)
