"""Titles settled without cash, within the limits of who does it, and the undoing of it (S5-25, R28)."""

import uuid
from collections.abc import Sequence

from agreement_service import providers
from agreement_service.domain import accounts, limits
from agreement_service.domain import writeoffs as rules
from agreement_service.store import accounts as account_store
from agreement_service.store import writeoffs as store
from agreement_service.usecases import books, moments
from agreement_service.usecases import limits as limit_cases
from servicekit import db, errors


def write_off(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    case_id: uuid.UUID,
    title_ids: Sequence[uuid.UUID],
    type_: rules.WriteOffType,
    reason: str,
    by: str,
    authority: limits.Authority,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> tuple[int, str]:
    """Take what is open of titles of a case (none named: of all outside agreements) out of the books without cash.

    Charges that are not posted yet are gone with the principal. A new epoch of the case's payments begins: earlier ones
    are not counted again. Gives the sum, minor units and currency. Raises InvalidRequest, ResourceNotFound,
    TitleBound, NothingOpen, ApprovalNeeded (limit kind WRITE_OFF, on the sum).
    """
    opened = _open(tx, agency, case_id, title_ids, moment=moment, bank=bank)
    account = opened.account_of[case_id]
    mine = {one.title_id: one for one in account.titles if one.case_id == case_id}
    if title_ids:
        if missing := sorted(set(title_ids) - set(mine)):
            raise errors.ResourceNotFound("no such title in the case, or it owes nothing", title=missing[0])
        chosen = [mine[title_id] for title_id in title_ids]
    else:
        chosen = [one for one in mine.values() if one.open_minor and one.agreement_id is None]
    for one in chosen:
        if one.agreement_id is not None and one.open_minor:
            raise rules.TitleBound("a title is in an agreement in force", agreement=one.agreement_id)
        if not one.open_minor:
            raise rules.NothingOpen("a title owes nothing", title=one.title_id, state=one.state.value)
    if not chosen:
        raise rules.NothingOpen("no title of the case is open outside an agreement", case=case_id)
    written = [(case_id, one.title_id, one.open_minor) for one in chosen]
    total = sum(amount for _, _, amount in written)
    case = opened.cases[case_id]
    limit_cases.check(
        tx=tx,
        agency=agency,
        authority=authority,
        creditor_id=case.creditor_id,
        kind=limits.Kind.WRITE_OFF,
        value=total,
        currency=case.currency,
        date=moment.business_date,
        case_ids=[case_id],
    )
    store.add(
        tx,
        agency,
        written,
        type_=type_.value,
        reason=reason,
        date=moment.business_date,
        by=by,
    )
    account.write_off([one.title_id for one in chosen], date=moment.business_date)
    opened.save()
    account_store.new_epoch(tx, agency, [case_id])
    return total, case.currency


def undo(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    case_id: uuid.UUID,
    title_ids: Sequence[uuid.UUID],
    reason: str,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> tuple[int, str]:
    """Titles owe again what was written off, by contra entries; charges accrue as if it had not been. Gives the sum.

    Raises InvalidRequest, ResourceNotFound, NotWrittenOff.
    """
    if not title_ids:
        raise errors.invalid("title_ids", f"expected 1 to {rules.MAX_TITLES} titles")
    opened = _open(tx, agency, case_id, title_ids, moment=moment, bank=bank)
    account = opened.account_of[case_id]
    mine = {one.title_id for one in account.titles if one.case_id == case_id}
    if missing := sorted(set(title_ids) - mine):
        raise errors.ResourceNotFound("no such title in the case", title=missing[0])
    standing = {row["title_id"] for row in store.standing(tx, agency, title_ids)}
    if missing := sorted(set(title_ids) - standing):
        raise rules.NotWrittenOff("a title is not written off", title=missing[0])
    entries = [
        accounts.Entry(
            case_id=row["case_id"],
            title_id=row["title_id"],
            instalment_id=None,
            component=accounts.Component(row["component"]),
            kind=accounts.Kind.WRITTEN_OFF,
            amount_minor=row["amount_minor"],
        )
        for row in store.entries(tx, agency, [case_id], title_ids)
    ]
    account.undo_write_off(entries, date=moment.business_date)
    store.undo(tx, agency, title_ids, date=moment.business_date, reason=reason)
    opened.save()
    account_store.new_epoch(tx, agency, [case_id])
    return sum(entry.amount_minor for entry in entries), opened.cases[case_id].currency


def _open(
    tx: db.Transaction,
    agency: uuid.UUID,
    case_id: uuid.UUID,
    title_ids: Sequence[uuid.UUID],
    *,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> books.Books:
    if len(title_ids) > rules.MAX_TITLES or len(set(title_ids)) != len(title_ids):
        raise errors.invalid("title_ids", f"expected at most {rules.MAX_TITLES} titles, each once")
    opened = books.open_books(tx, agency, case_ids=[case_id], moment=moment, bank=bank, titles_too=title_ids)
    if case_id not in opened.cases:
        raise errors.ResourceNotFound("no such case", case=case_id)
    return opened
