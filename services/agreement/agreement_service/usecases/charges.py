"""Charges of single titles: explained, edited, added, forgiven (S1-17, S5-03, S5-09; R08)."""

import dataclasses
import datetime
import uuid
from collections.abc import Sequence

from agreement_service import providers
from agreement_service.domain import accounts, balances, limits, terms
from agreement_service.store import accounts as account_store
from agreement_service.store import explained
from agreement_service.store import terms as term_store
from agreement_service.usecases import books, moments
from agreement_service.usecases import limits as limit_cases
from servicekit import db, errors

MAX_EXPLAINED = 10_000
MAX_EDITED = 500
MAX_RATE_E4 = 1_000_000


class TitleClosed(errors.ServiceError):
    """Nothing is open of the title."""

    status = errors.Status.FAILED_PRECONDITION


class TitleInAgreement(errors.ServiceError):
    """The title's charges are agreed: they do not change while the agreement is in force."""

    status = errors.Status.FAILED_PRECONDITION


class WaivedAboveCharged(errors.ServiceError):
    """More is to be forgiven than is charged."""

    status = errors.Status.INVALID_ARGUMENT


@dataclasses.dataclass(frozen=True, kw_only=True)
class Balance:
    """A title on a date; minor units of `currency`."""

    title: accounts.Title
    explained: balances.Explained
    currency: str


def explain_many(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    title_ids: Sequence[str],
    date: datetime.date,
    creditor: uuid.UUID | None = None,
) -> explained.Columns:
    """The lines of many titles, counted in SQL; ids in canonical spelling.

    Raises InvalidRequest, ResourceNotFound naming the first that is not known.
    """
    if not 1 <= len(title_ids) <= MAX_EXPLAINED or len(set(title_ids)) != len(title_ids):
        raise errors.invalid("title_ids", f"expected 1 to {MAX_EXPLAINED} titles, each once")
    found = explained.lines(tx, agency, sorted(title_ids), date=date, creditor=creditor)
    if len(found.title_ids) != len(title_ids):
        missing = sorted(set(title_ids) - set(found.title_ids))
        raise errors.ResourceNotFound("no such title", title=missing[0], missing=len(missing))
    return found


def explain_one(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    title_id: uuid.UUID,
    date: datetime.date,
    creditor: uuid.UUID | None = None,
) -> Balance:
    """One title's lines, as ExplainBalances gives them. Raises ResourceNotFound."""
    return _balances(tx, agency, [title_id], date=date, creditor=creditor)[0]


def edit_terms(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    title_ids: Sequence[uuid.UUID],
    penalty_rate_e4: int | None,
    monthly_rate_e4: int | None,
    reason: str,
    changed_by: str,
    authority: limits.Authority,
    moment: moments.Moment,
) -> list[Balance]:
    """Give titles rates of their own (S5-09); what is posted stays, from the day to which it is posted they count.

    Raises InvalidRequest, ResourceNotFound, TitleClosed, TitleInAgreement, ChargeAboveLegalLimit, ApprovalNeeded.
    """
    wrong = []
    if not 1 <= len(title_ids) <= MAX_EDITED or len(set(title_ids)) != len(title_ids):
        wrong.append(errors.FieldViolation("title_ids", f"expected 1 to {MAX_EDITED} titles, each once"))
    rates = {"penalty_rate_e4": penalty_rate_e4, "monthly_interest_rate_e4": monthly_rate_e4}
    for field, rate in rates.items():
        if rate is not None and not 0 <= rate <= MAX_RATE_E4:
            wrong.append(errors.FieldViolation(field, f"expected 0 to {MAX_RATE_E4}"))
    if penalty_rate_e4 is None and monthly_rate_e4 is None:
        wrong.append(errors.FieldViolation("penalty_rate_e4", "expected a rate to change"))
    if wrong:
        raise errors.InvalidRequest(fields=wrong)
    places = _places(tx, agency, title_ids)
    account_store.lock(tx, agency, {one.case_id for one in places.values()})
    for one in _titles(tx, agency, places):
        _check_free(one)
    for place in places.values():
        cap = terms.penalty_cap_e4(
            currency=place.currency, consumer=place.consumer, date=moment.business_date
        )
        if cap is not None and penalty_rate_e4 is not None and penalty_rate_e4 > cap:
            law = terms.law_on(terms.CONSUMER_BR, moment.business_date)
            above = errors.FieldViolation("penalty_rate_e4", f"expected at most {cap}: {law.source}")
            raise terms.ChargeAboveLegalLimit("above what the law allows", fields=[above])
    case_ids = sorted({one.case_id for one in places.values()})
    for creditor_id in sorted({one.creditor_id for one in places.values()}):
        for kind, rate in (
            (limits.Kind.PENALTY, penalty_rate_e4),
            (limits.Kind.INTEREST, monthly_rate_e4),
        ):
            if rate is not None:
                limit_cases.check(
                    tx=tx,
                    agency=agency,
                    authority=authority,
                    creditor_id=creditor_id,
                    kind=kind,
                    value=rate,
                    date=moment.business_date,
                    case_ids=case_ids,
                )
    term_store.edit(
        tx,
        agency,
        [(place.case_id, place.title_id) for place in places.values()],
        penalty_rate_e4=penalty_rate_e4,
        monthly_rate_e4=monthly_rate_e4,
        reason=reason,
        changed_by=changed_by,
        now=moment.now,
        business_date=moment.business_date,
    )
    account_store.new_epoch(tx, agency, case_ids)
    return _balances(tx, agency, title_ids, date=moment.business_date)


def add_expense(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    title_id: uuid.UUID,
    component: accounts.Component,
    amount_minor: int,
    currency: str,
    reason: str,
    changed_by: str,
    authority: limits.Authority,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> Balance:
    """Charge an expense (COSTS) or a fee (FEES) to a title.

    Raises InvalidRequest, ResourceNotFound, TitleClosed, TitleInAgreement, ApprovalNeeded.
    """
    if component not in (accounts.Component.COSTS, accounts.Component.FEES):
        raise errors.invalid("component", "expected COSTS or FEES")
    if not 0 < amount_minor <= terms.MAX_MINOR:
        raise errors.invalid("amount", f"expected 1 to {terms.MAX_MINOR} minor units")
    opened, account, title, place = _open(tx, agency, title_id, moment=moment, bank=bank)
    if currency != place.currency:
        raise errors.invalid("amount.currency_code", f"expected {place.currency}")
    by_rate = component is accounts.Component.FEES
    debt = sum(title.owed(moment.business_date).values())
    limit_cases.check(
        tx=tx,
        agency=agency,
        authority=authority,
        creditor_id=place.creditor_id,
        kind=limits.Kind.COMMISSION if by_rate else limits.Kind.EXPENSES,
        value=-(-amount_minor * MAX_RATE_E4 // debt) if by_rate else amount_minor,
        date=moment.business_date,
        currency="" if by_rate else currency,
        case_ids=[place.case_id],
    )
    entry = title.entry(component, accounts.Kind.CHARGED, amount_minor)
    title.post(entry)
    _note(opened, place, entry, reason=reason, changed_by=changed_by)
    return _saved(opened, account, title, place, [entry])


def waive_charges(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    title_id: uuid.UUID,
    component: accounts.Component,
    amount_minor: int | None,
    currency: str,
    reason: str,
    changed_by: str,
    authority: limits.Authority,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> Balance:
    """Forgive charges of a title outside an agreement: they are posted to today, then waived; None: all of them.

    Raises InvalidRequest, ResourceNotFound, TitleClosed, TitleInAgreement, WaivedAboveCharged, ApprovalNeeded.
    """
    if component not in accounts.CHARGES:
        raise errors.invalid("component", f"expected one of {', '.join(accounts.CHARGES)}")
    if amount_minor is not None and not 0 < amount_minor <= terms.MAX_MINOR:
        raise errors.invalid("amount", f"expected 1 to {terms.MAX_MINOR} minor units")
    opened, account, title, place = _open(tx, agency, title_id, moment=moment, bank=bank)
    if amount_minor is not None and currency != place.currency:
        raise errors.invalid("amount.currency_code", f"expected {place.currency}")
    entries = title.charge(moment.business_date)
    most = title.open_of(component)
    waived = most if amount_minor is None else amount_minor
    if not 0 < waived <= most:
        raise WaivedAboveCharged(
            "more than is charged", component=component.value, highest=most, currency=place.currency
        )
    limit_cases.check(
        tx=tx,
        agency=agency,
        authority=authority,
        creditor_id=place.creditor_id,
        kind=limits.Kind.WAIVER,
        value=waived,
        date=moment.business_date,
        currency=place.currency,
        case_ids=[place.case_id],
    )
    gone = title.close(accounts.Kind.WAIVED, {component: waived})
    _note(opened, place, gone[0], reason=reason, changed_by=changed_by)
    entries += gone
    return _saved(opened, account, title, place, entries)


def _note(
    opened: books.Books, place: account_store.Place, entry: accounts.Entry, *, reason: str, changed_by: str
) -> None:
    term_store.note(
        opened.tx,
        opened.agency,
        title_id=place.title_id,
        case_id=place.case_id,
        kind=entry.kind,
        component=entry.component,
        amount_minor=entry.amount_minor,
        reason=reason,
        changed_by=changed_by,
        now=opened.moment.now,
        business_date=opened.moment.business_date,
    )


def _saved(
    opened: books.Books,
    account: accounts.Account,
    title: accounts.Title,
    place: account_store.Place,
    entries: Sequence[accounts.Entry],
) -> Balance:
    date = opened.moment.business_date
    account.postings += [accounts.Posting(entry, date) for entry in entries]
    title.settle_state()
    opened.save()
    account_store.new_epoch(opened.tx, opened.agency, [place.case_id])
    return _balances(opened.tx, opened.agency, [title.title_id], date=date)[0]


def _open(
    tx: db.Transaction,
    agency: uuid.UUID,
    title_id: uuid.UUID,
    *,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> tuple[books.Books, accounts.Account, accounts.Title, account_store.Place]:
    place = _places(tx, agency, [title_id])[title_id]
    opened = books.open_books(tx, agency, case_ids=[place.case_id], moment=moment, bank=bank)
    account = opened.account_of[place.case_id]
    title = next((one for one in account.titles if one.title_id == title_id), None)
    if title is None:
        raise TitleClosed("nothing is open of the title")
    _check_free(title)
    return opened, account, title, place


def _check_free(title: accounts.Title) -> None:
    if not title.open_minor:
        raise TitleClosed("nothing is open of the title", state=title.state.value)
    if title.agreement_id is not None:
        raise TitleInAgreement("the title's charges are agreed", agreement=title.agreement_id)


def _places(
    tx: db.Transaction, agency: uuid.UUID, title_ids: Sequence[uuid.UUID]
) -> dict[uuid.UUID, account_store.Place]:
    places = account_store.places(tx, agency, title_ids)
    if missing := sorted(set(title_ids) - set(places)):
        raise errors.ResourceNotFound("no such title", title=missing[0], missing=len(missing))
    return places


def _titles(
    tx: db.Transaction, agency: uuid.UUID, places: dict[uuid.UUID, account_store.Place]
) -> list[accounts.Title]:
    found = account_store.titles(tx, agency, {one.case_id for one in places.values()}, also=places)
    return [one for one in found if one.title_id in places]


def _balances(
    tx: db.Transaction,
    agency: uuid.UUID,
    title_ids: Sequence[uuid.UUID],
    *,
    date: datetime.date,
    creditor: uuid.UUID | None = None,
) -> list[Balance]:
    places = _places(tx, agency, title_ids)
    if creditor is not None and any(one.creditor_id != creditor for one in places.values()):
        raise errors.ResourceNotFound("no such title", title=title_ids[0])
    titles = {one.title_id: one for one in _titles(tx, agency, places)}
    posted = account_store.posted_charges(tx, agency, titles.values())
    return [
        Balance(
            title=titles[key],
            explained=balances.explain_title(titles[key], date, posted.get(key, ())),
            currency=places[key].currency,
        )
        for key in title_ids
    ]
