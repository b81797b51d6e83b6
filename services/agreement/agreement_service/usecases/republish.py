"""The present state of everything, sent again in chunks: how a copy starts, is repaired, or follows a restore."""

import dataclasses
import datetime
import uuid

from agreement_service.domain import accounts
from agreement_service.store import accounts as account_store
from agreement_service.store import agreements as agreement_store
from agreement_service.store import approvals as approval_store
from agreement_service.store import instruments as instrument_store
from agreement_service.store import novations as novation_store
from agreement_service.store import payments as payment_store
from agreement_service.store import placement
from agreement_service.store import promises as promise_store
from agreement_service.store import remittance as remittance_store
from agreement_service.usecases import books, facts, moments
from servicekit import db

PAGE = 2_000
"""Rows of one transaction."""
NOVATIONS = 100
"""Novations of one transaction: a fact each, with a row an instalment."""
ZERO = uuid.UUID(int=0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far it is: titles that novations made, all titles, agreements with their instalments, payments, statements,
    instruments, promises, approval requests."""

    part: str = "novations"
    title: tuple[uuid.UUID, uuid.UUID] = (ZERO, ZERO)
    after: uuid.UUID = ZERO
    promise: tuple[uuid.UUID, datetime.datetime, uuid.UUID] | None = None


def step(
    *, tx: db.Transaction, agency: uuid.UUID, progress: Progress, moment: moments.Moment, page: int = PAGE
) -> Progress | None:
    """Publish the next page; None when nothing is left."""
    match progress.part:
        case "novations":
            return _novations(tx, agency, progress, moment, page)
        case "titles":
            return _titles(tx, agency, progress, moment, page)
        case "agreements":
            return _agreements(tx, agency, progress, moment, page)
        case "payments":
            return _payments(tx, agency, progress, moment, page)
        case "statements":
            return _statements(tx, agency, progress, moment, page)
        case "instruments":
            return _instruments(tx, agency, progress, moment, page)
        case "promises":
            return _promises(tx, agency, progress, moment, page)
        case _:
            return _approvals(tx, agency, progress, moment, page)


def _novations(
    tx: db.Transaction, agency: uuid.UUID, progress: Progress, moment: moments.Moment, page: int
) -> Progress:
    found = novation_store.origins(tx, agency, after=progress.after, limit=min(page, NOVATIONS))
    if not found:
        return Progress(part="titles")
    made, parents = novation_store.made(tx, agency, found), novation_store.parents(tx, agency, found)
    db.lock_anchors(
        tx, account_store.ANCHORS, agency, {one.case_id for titles in made.values() for one in titles}
    )
    for key, titles in sorted(made.items()):
        facts.titles_novated(tx, moment, titles, parents.get(key, []))
    return Progress(part="novations", after=found[-1])


def _titles(
    tx: db.Transaction, agency: uuid.UUID, progress: Progress, moment: moments.Moment, page: int
) -> Progress:
    seen = placement.present(tx, agency, after=progress.title, limit=page)
    if not seen:
        return Progress(part="agreements")
    db.lock_anchors(tx, account_store.ANCHORS, agency, {row["case_id"] for row in seen})
    rows = placement.present(tx, agency, after=progress.title, limit=page)
    facts.titles_changed(
        tx,
        moment,
        [
            (
                row["case_id"],
                row["id"],
                row["version"],
                accounts.TitleState(row["state"]),
                row["payable_until"],
                row["open_principal_minor"],
                row["due_date"],
            )
            for row in rows
        ],
    )
    return Progress(part="titles", title=(rows[-1]["case_id"], rows[-1]["id"]))


def _agreements(
    tx: db.Transaction, agency: uuid.UUID, progress: Progress, moment: moments.Moment, page: int
) -> Progress:
    seen = agreement_store.page(tx, agency, after=progress.after, limit=page)
    if not seen:
        return Progress(part="payments")
    db.lock_anchors(
        tx, account_store.ANCHORS, agency, {case_id for record in seen for case_id in record.case_ids}
    )
    ids = [record.id for record in seen]
    rows = account_store.instalments(tx, agency, ids)
    going = [
        one
        for key, agreement in account_store.agreements(tx, agency, ids).items()
        if agreement.state is not accounts.AgreementState.PROPOSED
        for one in rows[key]
    ]
    facts.instalments_changed(tx, moment, going, {record.id: record.case_ids for record in seen})
    for key, agreement in sorted(account_store.agreements(tx, agency, ids).items()):
        books.publish_agreement(
            tx,
            moment,
            agreement=agreement,
            instalments=rows[key],
            total_minor=sum(one.amount_minor for one in rows[key]),
        )
    return Progress(part="agreements", after=ids[-1])


def _payments(
    tx: db.Transaction, agency: uuid.UUID, progress: Progress, moment: moments.Moment, page: int
) -> Progress:
    seen = payment_store.page(tx, agency, after=progress.after, limit=page)
    if not seen:
        return Progress(part="statements")
    ids = [payment.id for payment in seen]
    shared = payment_store.allocations(tx, agency, ids)
    cases = {row["case_id"] for rows in shared.values() for row in rows}
    cases |= {payment.case_id for payment in seen if payment.case_id is not None}
    db.lock_anchors(tx, account_store.ANCHORS, agency, cases)
    shared = payment_store.allocations(tx, agency, ids)
    for payment in payment_store.get(tx, agency, ids).values():
        by_case: dict[uuid.UUID, int] = {}
        for row in shared.get(payment.id, ()):
            by_case[row["case_id"]] = by_case.get(row["case_id"], 0) + row["amount_minor"]
        facts.payment_changed(tx, moment, payment, by_case)
    return Progress(part="payments", after=ids[-1])


def _statements(
    tx: db.Transaction, agency: uuid.UUID, progress: Progress, moment: moments.Moment, page: int
) -> Progress:
    seen = [one.id for one in remittance_store.page(tx, agency, after=progress.after, limit=page)]
    if not seen:
        return Progress(part="instruments")
    remittance_store.lock(tx, agency, seen)
    for statement in remittance_store.by_ids(tx, agency, seen):
        if statement.period_end is not None:
            facts.statement_changed(tx, moment, statement)
    return Progress(part="statements", after=seen[-1])


def _instruments(
    tx: db.Transaction, agency: uuid.UUID, progress: Progress, moment: moments.Moment, page: int
) -> Progress | None:
    seen = instrument_store.states(tx, agency, after=progress.after, limit=page)
    if not seen:
        return Progress(part="promises")
    locked = {one.case_id for one in seen}
    db.lock_anchors(tx, account_store.ANCHORS, agency, locked)
    rows = instrument_store.states(tx, agency, after=progress.after, limit=page)
    facts.instruments_changed(tx, moment, [one for one in rows if one.case_id in locked])
    return Progress(part="instruments", after=seen[-1].id)


def _promises(
    tx: db.Transaction, agency: uuid.UUID, progress: Progress, moment: moments.Moment, page: int
) -> Progress:
    def read() -> list[promise_store.Promise]:
        return promise_store.page(
            tx, agency, creditor=None, case_id=None, state=None, after=progress.promise, limit=page
        )

    seen = read()
    if not seen:
        return Progress(part="approvals")
    locked = {one.case_id for one in seen}
    db.lock_anchors(tx, account_store.ANCHORS, agency, locked)
    for one in read():
        if one.case_id in locked:
            facts.promise_changed(tx, moment, one)
    last = seen[-1]
    return Progress(part="promises", promise=(last.case_id, last.made_at, last.contact_id))


def _approvals(
    tx: db.Transaction, agency: uuid.UUID, progress: Progress, moment: moments.Moment, page: int
) -> Progress | None:
    def read() -> list[approval_store.Approval]:
        return approval_store.page(tx, agency, date=moment.business_date, after=progress.after, limit=page)

    seen = read()
    if not seen:
        return None
    db.lock_anchors(tx, account_store.ANCHORS, agency, {key for one in seen for key in one.case_ids})
    known = {one.id for one in seen}
    for one in read():
        if one.id in known:
            facts.approval_changed(tx, moment, one)
    return Progress(part="approvals", after=seen[-1].id)
