"""The facts of this service, built from rows and published in chunks by partition."""

import datetime
import uuid
from collections.abc import Iterable, Mapping, Sequence

from agreement_service.domain import accounts
from agreement_service.store import approvals as approval_store
from agreement_service.store import payments as payment_store
from agreement_service.usecases import moments
from recupera.agreement.v1 import agreement_facts_pb2, agreement_pb2
from recupera.approvals.v1 import approvals_pb2
from servicekit import dates, db, facts, topics

TOPIC = "recupera.agreement.v1"


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
    rows: Iterable[
        tuple[uuid.UUID, uuid.UUID, int, accounts.TitleState, datetime.date, int, datetime.date]
    ],
) -> None:
    """Publish titles: case, id, version, stored state, payable until, open principal, due date."""
    for partition, part in facts.by_partition(rows, case_id=lambda row: row[0], partitions=partitions()):
        fact = header(moment)
        body = fact.titles_changed
        for case_id, title_id, version, state, payable_until, open_principal, due_date in part:
            shown = accounts.title_state_on(
                state, payable_until=payable_until, business_date=moment.business_date
            )
            body.case_ids.append(case_id.bytes)
            body.title_ids.append(title_id.bytes)
            body.versions.append(version)
            body.states.append(agreement_pb2.Title.State.Value(f"STATE_{shown.value}"))
            body.open_principal_minor.append(open_principal)
            body.due_days.append(dates.epoch_days(due_date))
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
        for case_id, one in part:
            body.case_ids.append(case_id.bytes)
            body.agreement_ids.append(one.agreement_id.bytes)
            body.instalment_ids.append(one.instalment_id.bytes)
            body.numbers.append(one.number)
            body.states.append(agreement_pb2.Instalment.State.Value(f"STATE_{one.state.value}"))
            body.due_days.append(dates.epoch_days(one.due_date))
            body.open_minor.append(one.open_minor)
            body.versions.append(one.version)
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


def day_done(tx: db.Transaction, moment: moments.Moment, *, date: datetime.date, partition: int) -> None:
    """Publish that the day is done in a partition."""
    fact = header(moment)
    fact.day_done.partition = partition
    fact.day_done.date.CopyFrom(dates.to_proto(date))
    tx.publish(fact, partition=partition)
