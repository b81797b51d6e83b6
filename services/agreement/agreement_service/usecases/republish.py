"""The present state of everything, sent again in chunks: how a copy starts, is repaired, or follows a restore."""

import dataclasses
import uuid

from agreement_service.domain import accounts
from agreement_service.store import accounts as account_store
from agreement_service.store import agreements as agreement_store
from agreement_service.store import payments as payment_store
from agreement_service.store import placement
from agreement_service.usecases import books, facts, moments
from servicekit import db

PAGE = 2_000
"""Rows of one transaction."""
ZERO = uuid.UUID(int=0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far it is: titles first, then agreements with their instalments, then payments."""

    part: str = "titles"
    title: tuple[uuid.UUID, uuid.UUID] = (ZERO, ZERO)
    after: uuid.UUID = ZERO


def step(
    *, tx: db.Transaction, agency: uuid.UUID, progress: Progress, moment: moments.Moment, page: int = PAGE
) -> Progress | None:
    """Publish the next page; None when nothing is left."""
    match progress.part:
        case "titles":
            return _titles(tx, agency, progress, moment, page)
        case "agreements":
            return _agreements(tx, agency, progress, moment, page)
        case _:
            return _payments(tx, agency, progress, moment, page)


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
    return Progress(title=(rows[-1]["case_id"], rows[-1]["id"]))


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
) -> Progress | None:
    seen = payment_store.page(tx, agency, after=progress.after, limit=page)
    if not seen:
        return None
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
