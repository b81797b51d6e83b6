"""The facts of this service, built from columns and rows. No personal data (architecture §6)."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from case_service.store import days, portfolio, tables
from case_service.usecases.moments import Moment
from recupera.case.v1 import case_facts_pb2, case_pb2
from servicekit import clock, dates, db, facts, topics

PARTITIONS = tables.PARTITIONS


def head(moment: Moment, *, subject: uuid.UUID | None = None, version: int = 0) -> case_facts_pb2.CaseFact:
    """A fact of the agency without a body."""
    return case_facts_pb2.CaseFact(
        occurred_at=dates.to_timestamp(moment.now),
        business_date=dates.to_proto(moment.business_date),
        agency=moment.agency.bytes,
        subject=b"" if subject is None else subject.bytes,
        version=version,
    )


def ids(column: bytes) -> list[bytes]:
    """A column of ids of 16 bytes each, cut."""
    return [column[at : at + 16] for at in range(0, len(column), 16)]


def clock_changed(tx: db.Transaction, moment: Moment, changed: clock.AgencyClock, currency: str) -> None:
    """Publish the clock, as a whole, to every partition."""
    body = case_facts_pb2.ClockChanged(
        time_zone=changed.time_zone,
        simulated=changed.simulated,
        speed_thousandths=int(changed.speed * 1000),
        business_date=dates.to_proto(changed.business_date),
        currency=currency,
    )
    if changed.base_machine is not None and changed.base_agency is not None:
        body.base_machine.CopyFrom(dates.to_timestamp(changed.base_machine))
        body.base_agency.CopyFrom(dates.to_timestamp(changed.base_agency))
    for partition in range(PARTITIONS):
        fact = head(moment, subject=moment.agency, version=changed.version)
        fact.clock_changed.CopyFrom(body)
        tx.publish(fact, partition=partition)


def day_opened(tx: db.Transaction, moment: Moment, *, date: datetime.date, version: int) -> None:
    """Publish to every partition that the date is open."""
    for partition in range(PARTITIONS):
        fact = head(moment, subject=moment.agency, version=version)
        fact.day_opened.date.CopyFrom(dates.to_proto(date))
        fact.day_opened.partition = partition
        tx.publish(fact, partition=partition)


def titles_placed(
    tx: db.Transaction, moment: Moment, placed: Iterable[portfolio.Placed], *, batch_id: uuid.UUID | None
) -> None:
    """Publish placed titles in chunks of one partition."""
    for columns in placed:
        case_ids, title_ids = ids(columns.case_ids), ids(columns.title_ids)
        debtor_ids, creditor_ids = ids(columns.debtor_ids), ids(columns.creditor_ids)
        contracts = list(
            zip(
                creditor_ids,
                columns.creditor_references,
                columns.contract_references,
                columns.currencies,
                columns.products,
                columns.natural_persons,
                strict=True,
            )
        )
        terms = list(zip(columns.penalty_rates_e4, columns.monthly_interest_rates_e4, strict=True))
        for at in range(0, len(case_ids), facts.MAX_ROWS):
            part = slice(at, at + facts.MAX_ROWS)
            contract_of = {key: index for index, key in enumerate(dict.fromkeys(contracts[part]))}
            terms_of = {key: index for index, key in enumerate(dict.fromkeys(terms[part]))}
            type_of = {key: index for index, key in enumerate(dict.fromkeys(columns.title_types[part]))}
            fact = head(moment)
            fact.titles_placed.CopyFrom(
                case_facts_pb2.TitlesPlaced(
                    case_ids=case_ids[part],
                    title_ids=title_ids[part],
                    debtor_ids=debtor_ids[part],
                    title_references=columns.title_references[part],
                    principal_minor=columns.principal_minor[part],
                    due_days=columns.due_days[part],
                    contract_index=[contract_of[key] for key in contracts[part]],
                    terms_index=[terms_of[key] for key in terms[part]],
                    table_contracts=[
                        case_facts_pb2.PlacedContract(
                            creditor_id=creditor,
                            creditor_reference=creditor_reference,
                            contract_reference=contract_reference,
                            currency=currency,
                            product=product,
                            natural_person=natural_person,
                        )
                        for (
                            creditor,
                            creditor_reference,
                            contract_reference,
                            currency,
                            product,
                            natural_person,
                        ) in contract_of
                    ],
                    table_terms=[
                        case_facts_pb2.ChargeTerms(
                            penalty_rate_e4=penalty or 0,
                            monthly_interest_rate_e4=interest or 0,
                            no_penalty=penalty is None,
                            no_monthly_interest=interest is None,
                        )
                        for penalty, interest in terms_of
                    ],
                    type_index=[type_of[key] for key in columns.title_types[part]],
                    table_types=list(type_of),
                    batch_id=b"" if batch_id is None else batch_id.bytes,
                )
            )
            tx.publish(fact, partition=columns.partition)


def slice_applied(
    tx: db.Transaction,
    moment: Moment,
    *,
    batch_id: uuid.UUID,
    slice_: int,
    applied: int,
    unchanged: int,
    rejects: Sequence[Any],
) -> None:
    """Publish what became of a slice, to the batch's partition."""
    fact = head(moment, subject=batch_id)
    fact.slice_applied.CopyFrom(
        case_facts_pb2.SliceApplied(
            batch_id=batch_id.bytes,
            slice=slice_,
            applied=applied,
            unchanged=unchanged,
            rejects=[case_facts_pb2.RowReject(**reject) for reject in rejects],
        )
    )
    tx.publish(fact, partition=topics.partition_of(batch_id, PARTITIONS))


def cases_changed(tx: db.Transaction, moment: Moment, rows: Iterable[Any]) -> None:
    """Publish the state of cases: rows with id, version, state, sub_state, open_principal_minor. Their
    anchors are locked.
    """
    for partition, part in facts.by_partition(rows, case_id=lambda row: row.id, partitions=PARTITIONS):
        fact = head(moment)
        fact.cases_changed.CopyFrom(
            case_facts_pb2.CasesChanged(
                case_ids=[row.id.bytes for row in part],
                versions=[row.version for row in part],
                states=[state(row.state) for row in part],
                sub_states=[sub_state(row.sub_state) for row in part],
                open_principal_minor=[row.open_principal_minor for row in part],
            )
        )
        tx.publish(fact, partition=partition)


def collection_entered(tx: db.Transaction, moment: Moment, *, partition: int, worked: days.Worked) -> None:
    """Publish the cases of a slice that entered collection."""
    case_ids = ids(worked.moved_ids)
    for at in range(0, len(case_ids), facts.MAX_ROWS):
        part = slice(at, at + facts.MAX_ROWS)
        rows = len(case_ids[part])
        fact = head(moment)
        fact.cases_changed.CopyFrom(
            case_facts_pb2.CasesChanged(
                case_ids=case_ids[part],
                versions=worked.moved_versions[part],
                states=[case_pb2.Case.STATE_IN_COLLECTION] * rows,
                sub_states=[case_pb2.Case.SUB_STATE_NEW] * rows,
                open_principal_minor=worked.moved_open_minor[part],
            )
        )
        tx.publish(fact, partition=partition)


def steps_due(
    tx: db.Transaction,
    moment: Moment,
    *,
    partition: int,
    date: datetime.date,
    worked: days.Worked,
    levels: Sequence[Any],
) -> None:
    """Publish the steps of a slice; ``levels`` are the ladder's rows by position."""
    case_ids, person_ids = ids(worked.step_case_ids), ids(worked.step_person_ids)
    keys = list(zip(worked.step_levels, ids(worked.step_creditor_ids), strict=True))
    for at in range(0, len(case_ids), facts.MAX_ROWS):
        part = slice(at, at + facts.MAX_ROWS)
        step_of = {key: index for index, key in enumerate(dict.fromkeys(keys[part]))}
        fact = head(moment)
        fact.steps_due.CopyFrom(
            case_facts_pb2.StepsDue(
                case_ids=case_ids[part],
                person_ids=person_ids[part],
                step_index=[step_of[key] for key in keys[part]],
                days_past_due=worked.step_days[part],
                open_principal_minor=worked.step_open_minor[part],
                natural_keys=[key & 0xFFFF_FFFF_FFFF_FFFF for key in worked.step_natural_keys[part]],
                table_steps=[
                    case_facts_pb2.LadderStep(
                        step_id=levels[position].id.bytes,
                        level=levels[position].code,
                        channel=channel(levels[position].channel),
                        template=levels[position].template,
                        creditor_id=creditor,
                    )
                    for position, creditor in step_of
                ],
                date=dates.to_proto(date),
            )
        )
        tx.publish(fact, partition=partition)


def contact_recorded(
    tx: db.Transaction,
    moment: Moment,
    *,
    case_id: uuid.UUID,
    contact_id: uuid.UUID,
    channel_: str,
    outcome: str,
    promise_date: datetime.date | None,
    promise_amount_minor: int | None,
    currency: str,
) -> None:
    """Publish that a contact is on record."""
    fact = head(moment, subject=case_id)
    fact.contact_recorded.CopyFrom(
        case_facts_pb2.ContactRecorded(
            case_id=case_id.bytes,
            contact_id=contact_id.bytes,
            channel=channel(channel_),
            outcome=outcome_of(outcome),
            promise_date=None if promise_date is None else dates.to_proto(promise_date),
            promise_amount_minor=promise_amount_minor or 0,
            currency=currency if promise_amount_minor else "",
        )
    )
    tx.publish(fact, case_id=case_id)


def hold_changed(tx: db.Transaction, moment: Moment, *, hold: Any, state_: str) -> None:
    """Publish that a hold was placed, released or expired."""
    fact = head(moment, subject=hold.case_id)
    fact.hold_changed.CopyFrom(
        case_facts_pb2.HoldChanged(
            case_id=hold.case_id.bytes,
            hold_id=hold.id.bytes,
            type=case_pb2.Hold.Type.Value(f"TYPE_{hold.type}"),
            state=case_pb2.Hold.State.Value(f"STATE_{state_}"),
            channels=[channel(name) for name in hold.channels],
        )
    )
    tx.publish(fact, case_id=hold.case_id)


def titles_withdrawn(tx: db.Transaction, moment: Moment, rows: Iterable[Any]) -> None:
    """Publish withdrawn titles: rows with partition, case_ids and title_ids as strings of 16 bytes each."""
    for row in rows:
        case_ids, title_ids = ids(bytes(row.case_ids)), ids(bytes(row.title_ids))
        for at in range(0, len(case_ids), facts.MAX_ROWS):
            fact = head(moment)
            fact.titles_withdrawn.case_ids.extend(case_ids[at : at + facts.MAX_ROWS])
            fact.titles_withdrawn.title_ids.extend(title_ids[at : at + facts.MAX_ROWS])
            tx.publish(fact, partition=row.partition)


def state(name: str) -> case_pb2.Case.State.ValueType:
    """READY -> STATE_READY."""
    return case_pb2.Case.State.Value(f"STATE_{name}")


def sub_state(name: str) -> case_pb2.Case.SubState.ValueType:
    """NEW -> SUB_STATE_NEW; empty -> unspecified."""
    return case_pb2.Case.SubState.Value(f"SUB_STATE_{name or 'UNSPECIFIED'}")


def channel(name: str) -> case_pb2.Channel.ValueType:
    """CALL -> CHANNEL_CALL."""
    return case_pb2.Channel.Value(f"CHANNEL_{name}")


def outcome_of(name: str) -> case_pb2.ContactRecord.Outcome.ValueType:
    """BUSY -> OUTCOME_BUSY; what the wire has no name for (FAILED, UNKNOWN) -> unspecified."""
    known = case_pb2.ContactRecord.Outcome.DESCRIPTOR.values_by_name
    found = known.get(f"OUTCOME_{name}", known["OUTCOME_UNSPECIFIED"])
    return case_pb2.ContactRecord.Outcome.ValueType(found.number)
