"""Payments: reported, entered exactly once, matched, allocated, taken back."""

import dataclasses
import datetime
import uuid
from collections.abc import Mapping, Sequence

from agreement_service import providers
from agreement_service.domain import accounts
from agreement_service.domain import payments as rules
from agreement_service.store import accounts as account_store
from agreement_service.store import payments as store
from agreement_service.usecases import books, facts, moments
from servicekit import db, errors, ids


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A credit as somebody reports it; `amount_minor` in `currency`. `batch_id` and `row`, or `caller`, say who."""

    creditor_reference: str
    account: str
    means: str
    bank_reference: str
    value_date: datetime.date
    amount_minor: int
    currency: str
    txid: str = ""
    our_number: str = ""
    title_reference: str = ""
    contract_reference: str = ""
    batch_id: uuid.UUID | None = None
    row: int | None = None
    caller: str = ""

    @property
    def identity(self) -> rules.Identity:
        """What identifies the credit."""
        return self.creditor_reference, self.account, self.means, self.bank_reference

    @property
    def references(self) -> rules.References:
        """What it says about what it pays."""
        return rules.References(
            creditor_reference=self.creditor_reference,
            currency=self.currency,
            txid=self.txid,
            our_number=self.our_number,
            title_reference=self.title_reference,
            contract_reference=self.contract_reference,
        )

    def check(self) -> list[errors.FieldViolation]:
        """What is wrong with it."""
        return rules.check_report(
            creditor_reference=self.creditor_reference,
            account=self.account,
            means=self.means,
            bank_reference=self.bank_reference,
            amount_minor=self.amount_minor,
            currency=self.currency,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entered:
    """What became of reports: payments entered now, reports of payments known before, refused ones (index, error)."""

    applied: int
    unchanged: int
    refused: list[tuple[int, errors.ServiceError]]
    payments: Mapping[rules.Identity, uuid.UUID]


def enter(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    reports: Sequence[Report],
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> Entered:
    """Enter credits, set-based: a credit that is known gets one more source, a new one is matched and allocated.

    Reports that differ from what is known (PaymentDiffers) or are malformed (InvalidRequest) are refused one by one.
    """
    refused: list[tuple[int, errors.ServiceError]] = []
    good: list[tuple[int, Report]] = []
    for index, report in enumerate(reports):
        if wrong := report.check():
            refused.append((index, errors.InvalidRequest(fields=wrong)))
        else:
            good.append((index, report))
    first: dict[rules.Identity, Report] = {}
    for _, report in good:
        first.setdefault(report.identity, report)
    matches = dict(
        zip(first, store.match(tx, agency, [one.references for one in first.values()]), strict=True)
    )
    if None in matches.values():
        store.guard_unidentified(tx, agency, shared=False)
        matches = dict(
            zip(first, store.match(tx, agency, [one.references for one in first.values()]), strict=True)
        )
    new = {identity: _payment(report, moment) for identity, report in first.items()}
    inserted = store.insert(tx, agency, list(new.values()), now=moment.now)
    known = store.by_identity(tx, agency, [key for key, one in new.items() if one.id not in inserted])
    sources, unchanged, again = [], 0, set(inserted)
    found = {**new, **known}
    for index, report in good:
        payment = found[report.identity]
        if (payment.amount_minor, payment.currency) != (report.amount_minor, report.currency):
            refused.append((index, _differs(payment)))
            continue
        sources.append(
            store.Source(payment.id, batch_id=report.batch_id, row=report.row, caller=report.caller)
        )
        if payment.id in again:
            again.remove(payment.id)
        else:
            unchanged += 1
    store.add_sources(tx, agency, sources)
    fresh = [one for one in new.values() if one.id in inserted]
    waiting = [
        one.id
        for one in known.values()
        if one.state is accounts.PaymentState.UNIDENTIFIED and matches[one.identity] is not None
    ]
    # a second report may say what the first one did not: then the payment is identified by it
    late = [
        one
        for one in store.get(tx, agency, waiting, lock=True).values()
        if one.state is accounts.PaymentState.UNIDENTIFIED
    ]
    found_now = {one.id: match for one in (*fresh, *late) if (match := matches[one.identity]) is not None}
    _apply(
        tx,
        agency,
        [one for one in (*fresh, *late) if one.id in found_now],
        found_now,
        moment=moment,
        bank=bank,
    )
    for one in fresh:
        if one.id not in found_now:
            facts.payment_changed(tx, moment, one, {})
    return Entered(
        applied=len(inserted),
        unchanged=unchanged,
        refused=sorted(refused, key=lambda one: one[0]),
        payments={identity: one.id for identity, one in found.items()},
    )


def match_waiting(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    waiting: Sequence[store.Payment],
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """Titles arrived: match locked unidentified payments again."""
    matches = store.match(tx, agency, [_references(one) for one in waiting])
    found = {one.id: match for one, match in zip(waiting, matches, strict=True) if match is not None}
    _apply(tx, agency, [one for one in waiting if one.id in found], found, moment=moment, bank=bank)


def match_by_hand(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    payment_id: uuid.UUID,
    case_id: uuid.UUID,
    version: int | None,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """Give an unidentified payment to a case of the same creditor and currency.

    Raises ResourceNotFound, VersionMismatch, PaymentNotUnidentified, CurrencyDiffers, CreditorDiffers.
    """
    payment = store.get(tx, agency, [payment_id], lock=True).get(payment_id)
    if payment is None:
        raise errors.ResourceNotFound("no such payment", payment=payment_id)
    _check_version(payment.version, version)
    if payment.state is not accounts.PaymentState.UNIDENTIFIED:
        raise rules.PaymentNotUnidentified("the payment is not unidentified", state=payment.state.value)
    case = account_store.cases(tx, agency, [case_id]).get(case_id)
    if case is None:
        raise errors.ResourceNotFound("no such case", case=case_id)
    if case.currency != payment.currency:
        raise rules.CurrencyDiffers(
            "the payment is in another currency than the case", payment=payment.currency, case=case.currency
        )
    if case.creditor_reference != payment.creditor_reference:
        raise rules.CreditorDiffers("the payment was made to another creditor than the case's")
    _apply(tx, agency, [payment], {payment.id: store.Match(case_id, None, None)}, moment=moment, bank=bank)


def reverse(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    payment_id: uuid.UUID,
    reason: str,
    version: int | None,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """The money went back: contra entries take everything back that the payment did; later payments apply anew.

    A payment from before an agreement began or ended gives back its cash only (domain/accounts).
    Raises ResourceNotFound, VersionMismatch, PaymentAlreadyReversed.
    """
    payment = store.get(tx, agency, [payment_id]).get(payment_id)
    if payment is None:
        raise errors.ResourceNotFound("no such payment", payment=payment_id)
    cases: dict[uuid.UUID, account_store.CaseAccount] = {}
    if payment.case_id is not None:
        cases = account_store.lock(tx, agency, _cases_of(tx, agency, payment))
    seen, payment = payment, store.get(tx, agency, [payment_id], lock=True)[payment_id]
    if seen.case_id != payment.case_id:
        raise errors.VersionMismatch("the payment was matched meanwhile", etag=payment.version)
    _check_version(payment.version, version)
    if payment.state is accounts.PaymentState.REVERSED:
        raise rules.PaymentAlreadyReversed("the payment was reversed before", date=payment.reverse_date)
    payment.reverse_date, payment.reverse_reason = moment.business_date, reason
    if payment.case_id is None:
        payment.state = accounts.PaymentState.REVERSED
        payment.version += 1
        store.write(tx, agency, [payment], {})
        facts.payment_changed(tx, moment, payment, {})
    elif payment.epoch == cases[payment.case_id].epoch:
        opened = books.open_books(tx, agency, case_ids=cases, moment=moment, bank=bank, removed=[payment])
        opened.settle(removed=[payment])
        opened.save()
    else:
        _reverse_behind(tx, agency, payment, cases, moment=moment, bank=bank)


def _cases_of(tx: db.Transaction, agency: uuid.UUID, payment: store.Payment) -> set[uuid.UUID]:
    """The cases that taking a payment back can touch."""
    entries = store.entries(tx, agency, [payment.id]).get(payment.id, [])
    instalment_ids = {entry.instalment_id for entry in entries if entry.instalment_id is not None}
    agreement_ids = account_store.agreements_of_instalments(tx, agency, instalment_ids)
    agreed = account_store.agreed(tx, agency, agreement_ids)
    found = {entry.case_id for entry in entries} | {
        item.case_id for items in agreed.values() for item in items
    }
    return found | ({payment.case_id} if payment.case_id is not None else set())


def _reverse_behind(
    tx: db.Transaction,
    agency: uuid.UUID,
    payment: store.Payment,
    cases: Mapping[uuid.UUID, account_store.CaseAccount],
    *,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    entries = store.entries(tx, agency, [payment.id]).get(payment.id, [])
    instalment_ids = {entry.instalment_id for entry in entries if entry.instalment_id is not None}
    over = account_store.agreements_of_instalments(tx, agency, instalment_ids)
    instalments = account_store.instalments(tx, agency, over)
    agreed = account_store.agreed(tx, agency, over)
    also = {entry.title_id for entry in entries if entry.title_id is not None} | {
        item.title_id for items in agreed.values() for item in items
    }
    account = accounts.Account(
        titles=account_store.titles(tx, agency, cases, also=also),
        ended=[one for rows in instalments.values() for one in rows],
    )
    by_id = {title.title_id: title for title in account.titles}
    oldest: dict[uuid.UUID, uuid.UUID] = {}
    for agreement_id, rows in instalments.items():
        first = min(
            (by_id[item.title_id] for item in agreed[agreement_id]),
            key=lambda title: (title.due_date, title.reference),
        )
        oldest |= {row.instalment_id: first.title_id for row in rows}
    applied = books.applied_payment(payment, entries)
    opened = books.Books(
        tx=tx,
        agency=agency,
        moment=moment,
        bank=bank,
        cases=cases,
        loaded=[account],
        account_of=dict.fromkeys(cases, account),
        payments={payment.id: payment},
        applied={payment.id: applied},
    )
    opened.remember()
    current = account_store.agreements(
        tx, agency, {case.agreement_id for case in cases.values() if case.agreement_id is not None}
    )
    account.reverse_behind(
        applied,
        oldest=oldest,
        in_force=[key for key, one in current.items() if one.state in accounts.IN_FORCE],
        date=moment.business_date,
    )
    opened.note(applied)
    opened.save()


def _apply(
    tx: db.Transaction,
    agency: uuid.UUID,
    payments: Sequence[store.Payment],
    matches: Mapping[uuid.UUID, store.Match],
    *,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    if not payments:
        return
    for one in payments:
        match = matches[one.id]
        one.case_id, one.title_id, one.instrument_id = match.case_id, match.title_id, match.instrument_id
    opened = books.open_books(
        tx,
        agency,
        case_ids={matches[one.id].case_id for one in payments},
        moment=moment,
        bank=bank,
        new=payments,
    )
    opened.settle(new=payments)
    opened.save()


def _payment(report: Report, moment: moments.Moment) -> store.Payment:
    return store.Payment(
        id=ids.new(),
        creditor_reference=report.creditor_reference,
        account=report.account,
        means=report.means,
        bank_reference=report.bank_reference,
        value_date=report.value_date,
        amount_minor=report.amount_minor,
        currency=report.currency,
        txid=report.txid,
        our_number=report.our_number,
        title_reference=report.title_reference,
        contract_reference=report.contract_reference,
        state=accounts.PaymentState.UNIDENTIFIED,
        created_at=moment.now,
    )


def _references(payment: store.Payment) -> rules.References:
    return rules.References(
        creditor_reference=payment.creditor_reference,
        currency=payment.currency,
        txid=payment.txid,
        our_number=payment.our_number,
        title_reference=payment.title_reference,
        contract_reference=payment.contract_reference,
    )


def _differs(payment: store.Payment) -> rules.PaymentDiffers:
    return rules.PaymentDiffers(
        "this credit is known with another amount or currency",
        payment=payment.id,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
    )


def _check_version(found: int, wanted: int | None) -> None:
    if wanted is not None and found != wanted:
        raise errors.VersionMismatch("the payment changed since it was read", etag=found)
