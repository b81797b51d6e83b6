"""Payments taken back: reversed by the bank, annulled, unmatched; always by contra entries."""

import dataclasses
import uuid
from collections.abc import Collection, Mapping, Sequence

from agreement_service import providers
from agreement_service.domain import accounts, novations
from agreement_service.domain import payments as rules
from agreement_service.store import accounts as account_store
from agreement_service.store import credits as credit_store
from agreement_service.store import payments as store
from agreement_service.usecases import books, facts, moments
from agreement_service.usecases.payments import matching
from servicekit import db, errors


def reverse(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    payment_id: uuid.UUID,
    reason: str,
    version: int | None,
    moment: moments.Moment,
    bank: providers.BankProvider,
    kind: rules.ReversalKind = rules.ReversalKind.OTHER,
) -> None:
    """The bank took the money back: contra entries take back all that the payment did; later payments apply anew.

    A payment from before an agreement began or ended gives back its cash only (domain/accounts). Credits that were made
    of it are annulled first; what was refunded of it is not taken a second time. Raises ResourceNotFound,
    VersionMismatch, PaymentAlreadyReversed, PaymentAnnulled, PaymentNotConfirmed, PaymentIsCredit, InvalidRequest (a
    kind that is not one of the payment's means).
    """
    taken = _lock(tx, agency, payment_id, version)
    payment = taken.payment
    if payment.state in accounts.UNCONFIRMED:
        raise rules.PaymentNotConfirmed("the payment is not confirmed", state=payment.state.value)
    if payment.origin_payment_id is not None:
        raise rules.PaymentIsCredit("annul the credit instead", origin=payment.origin_payment_id)
    rules.check_reversal(kind, payment.means)
    for credit_id in taken.credits:
        credit = store.get(tx, agency, [credit_id])[credit_id]
        credit.reverse_date, credit.reverse_reason = (
            moment.business_date,
            "the payment it was made of went back",
        )
        _take_back(tx, agency, credit, accounts.PaymentState.ANNULLED, moment=moment, bank=bank)
        _give_back(tx, agency, credit, moment=moment)
    payment = store.get(tx, agency, [payment_id])[payment_id]
    payment.reverse_date, payment.reverse_reason = moment.business_date, reason
    payment.reverse_kind = kind.value
    _take_back(tx, agency, payment, accounts.PaymentState.REVERSED, moment=moment, bank=bank)


def annul(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    payment_id: uuid.UUID,
    reason: str,
    version: int | None,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """The payment was entered by mistake, or a credit is not wanted: contra entries, never deletion (S1-18).

    Of a credit the payment it was made of has the money again. Raises ResourceNotFound, VersionMismatch, PaymentSpent,
    PaymentAlreadyReversed, PaymentAnnulled.
    """
    payment = _lock(tx, agency, payment_id, version).payment
    _check_unspent(payment)
    payment.reverse_date, payment.reverse_reason = moment.business_date, reason
    _take_back(tx, agency, payment, accounts.PaymentState.ANNULLED, moment=moment, bank=bank)
    _give_back(tx, agency, payment, moment=moment)


def unmatch(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    payment_id: uuid.UUID,
    version: int | None,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """The payment was matched by mistake: it is unidentified again, and from now on matched by hand only.

    Raises ResourceNotFound, VersionMismatch, PaymentNotMatched, PaymentSpent, PaymentIsCredit, PaymentAlreadyReversed,
    PaymentAnnulled.
    """
    payment = _lock(tx, agency, payment_id, version).payment
    if payment.state not in accounts.APPLIED:
        raise rules.PaymentNotMatched("the payment is not matched", state=payment.state.value)
    if payment.origin_payment_id is not None:
        raise rules.PaymentIsCredit("annul the credit instead", origin=payment.origin_payment_id)
    _check_unspent(payment)
    payment.by_hand = True
    _take_back(tx, agency, payment, accounts.PaymentState.UNIDENTIFIED, moment=moment, bank=bank)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Locked:
    payment: store.Payment
    credits: Sequence[uuid.UUID]


def _lock(tx: db.Transaction, agency: uuid.UUID, payment_id: uuid.UUID, version: int | None) -> _Locked:
    """Lock all cases that taking this payment back can touch, then it, the credits made of it, its origin."""
    seen = matching.get(tx, agency, payment_id)
    made = credit_store.made_of(tx, agency, payment_id)
    family = store.get(tx, agency, [*made, *([seen.origin_payment_id] if seen.origin_payment_id else [])])
    cases = _cases_of(tx, agency, [seen, *family.values()])
    if cases:
        account_store.lock(tx, agency, cases)
    payment = store.get(tx, agency, [payment_id, *family], lock=True)[payment_id]
    if seen.case_id != payment.case_id or made != credit_store.made_of(tx, agency, payment_id):
        raise errors.VersionMismatch("the payment changed meanwhile", etag=payment.version)
    matching.check_version(payment.version, version)
    if payment.state is accounts.PaymentState.REVERSED:
        raise rules.PaymentAlreadyReversed("the payment was reversed before", date=payment.reverse_date)
    if payment.state is accounts.PaymentState.ANNULLED:
        raise rules.PaymentAnnulled("the payment was annulled before", date=payment.reverse_date)
    return _Locked(payment=payment, credits=made)


def _check_unspent(payment: store.Payment) -> None:
    if payment.refunded_minor or payment.credited_minor:
        raise rules.PaymentSpent(
            "part of the payment was refunded or credited",
            refunded_minor=payment.refunded_minor,
            credited_minor=payment.credited_minor,
        )


def _take_back(
    tx: db.Transaction,
    agency: uuid.UUID,
    payment: store.Payment,
    becomes: accounts.PaymentState,
    *,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """Take everything back that a payment did; its cases are locked."""
    case_id = payment.case_id
    if payment.state not in accounts.APPLIED:
        payment.state = becomes
        payment.version += 1
        store.write(tx, agency, [payment], {}, business_date=moment.business_date)
        facts.payment_changed(tx, moment, payment, {})
        return
    assert case_id is not None
    cases = account_store.lock(tx, agency, _cases_of(tx, agency, [payment]))
    if payment.epoch == cases[case_id].epoch:
        opened = books.open_books(tx, agency, case_ids=cases, moment=moment, bank=bank, removed=[payment])
        opened.settle(removed=[payment], becomes=becomes)
    else:
        opened = _behind(tx, agency, payment, cases, becomes, moment=moment, bank=bank)
    if becomes is accounts.PaymentState.UNIDENTIFIED:
        payment.case_id = payment.title_id = payment.instrument_id = None
        payment.chosen_title_ids, payment.chosen_minor = [], []
    opened.save()


def _give_back(
    tx: db.Transaction, agency: uuid.UUID, credit: store.Payment, *, moment: moments.Moment
) -> None:
    """A credit was annulled: the payment it was made of has overpaid that much again."""
    if credit.origin_payment_id is None:
        return
    origin = store.get(tx, agency, [credit.origin_payment_id])[credit.origin_payment_id]
    origin.credited_minor -= credit.amount_minor
    origin.overpaid_minor += credit.amount_minor
    write_spent(tx, agency, origin, moment=moment)


def write_spent(
    tx: db.Transaction, agency: uuid.UUID, payment: store.Payment, *, moment: moments.Moment
) -> None:
    """Write and publish a payment of whose overpaid money something was refunded or credited, or came back."""
    payment.state = accounts.applied_state(
        allocated_minor=payment.allocated_minor,
        overpaid_minor=payment.overpaid_minor,
        refunded_minor=payment.refunded_minor,
    )
    payment.version += 1
    entries = store.entries(tx, agency, [payment.id])
    store.write(tx, agency, [payment], entries, business_date=moment.business_date)
    facts.payment_changed(tx, moment, payment, books.shares(entries.get(payment.id, [])))


def _cases_of(tx: db.Transaction, agency: uuid.UUID, payments: Collection[store.Payment]) -> set[uuid.UUID]:
    """The cases that taking payments back can touch."""
    made = store.entries(tx, agency, [payment.id for payment in payments])
    entries = [entry for of_one in made.values() for entry in of_one]
    instalment_ids = {entry.instalment_id for entry in entries if entry.instalment_id is not None}
    agreement_ids = account_store.agreements_of_instalments(tx, agency, instalment_ids)
    agreed = account_store.agreed(tx, agency, agreement_ids)
    found = {entry.case_id for entry in entries} | {
        item.case_id for items in agreed.values() for item in items
    }
    return found | {payment.case_id for payment in payments if payment.case_id is not None}


def _behind(
    tx: db.Transaction,
    agency: uuid.UUID,
    payment: store.Payment,
    cases: Mapping[uuid.UUID, account_store.CaseAccount],
    becomes: accounts.PaymentState,
    *,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> books.Books:
    entries = store.entries(tx, agency, [payment.id]).get(payment.id, [])
    instalment_ids = {entry.instalment_id for entry in entries if entry.instalment_id is not None}
    over = account_store.agreements_of_instalments(tx, agency, instalment_ids)
    instalments = account_store.instalments(tx, agency, over)
    ended = account_store.agreements(tx, agency, over)
    given_back = [key for key, one in ended.items() if novations.restored(one)]
    originals = account_store.agreed(tx, agency, given_back, novated=True) if given_back else {}
    agreed = account_store.agreed(tx, agency, over)
    also = {entry.title_id for entry in entries if entry.title_id is not None} | {
        item.title_id for items in (*agreed.values(), *originals.values()) for item in items
    }
    bound = account_store.agreements(
        tx, agency, {case.agreement_id for case in cases.values() if case.agreement_id is not None}
    )
    going_on = (*accounts.IN_FORCE, accounts.AgreementState.FULFILLED)
    living = next((one for key, one in bound.items() if key in over and one.state in going_on), None)
    key = living.agreement_id if living is not None else None
    account = accounts.Account(
        titles=account_store.titles(tx, agency, cases, also=also),
        agreement=living,
        instalments=instalments.pop(key) if key is not None else [],
        agreed=agreed.get(key, []) if key is not None else [],
        ended=[one for rows in instalments.values() for one in rows],
    )
    by_id = {title.title_id: title for title in account.titles}
    oldest: dict[uuid.UUID, uuid.UUID] = {}
    for agreement_id, rows in instalments.items():
        first = min(
            (by_id[item.title_id] for item in originals.get(agreement_id) or agreed[agreement_id]),
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
    account.reverse_behind(
        applied,
        oldest=oldest,
        in_force=[key for key, one in bound.items() if one.state in accounts.IN_FORCE],
        date=moment.business_date,
        becomes=becomes,
    )
    for agreement_id, items in originals.items():
        novations.give_back(account, items, agreement_id=agreement_id, date=moment.business_date)
    opened.note(applied)
    return opened
