"""Payments given to what they pay, by what they say or by hand."""

import dataclasses
import uuid
from collections.abc import Mapping, Sequence

from agreement_service import providers
from agreement_service.domain import accounts
from agreement_service.domain import payments as rules
from agreement_service.store import accounts as account_store
from agreement_service.store import instruments as instrument_store
from agreement_service.store import payments as store
from agreement_service.usecases import books, facts, moments
from agreement_service.usecases.payments.reports import Chosen
from servicekit import db, errors


def match_waiting(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    waiting: Sequence[store.Payment],
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """Titles arrived: match locked unidentified payments again."""
    matches = store.match(tx, agency, [references_of(one) for one in waiting])
    found = {one.id: match for one, match in zip(waiting, matches, strict=True) if match is not None}
    apply(tx, agency, [one for one in waiting if one.id in found], found, moment=moment, bank=bank)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a payment is given to by hand: a case (with a title of it, or several with amounts), an instalment's
    agreement, or references of the payment's creditor."""

    case_id: uuid.UUID | None = None
    title_id: uuid.UUID | None = None
    chosen: Chosen = ()
    instalment_id: uuid.UUID | None = None
    title_reference: str = ""
    contract_reference: str = ""


def match_by_hand(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    payment_id: uuid.UUID,
    target: Target,
    version: int | None,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """Give an unidentified payment to a case of the same creditor and currency.

    Raises InvalidRequest, ResourceNotFound, VersionMismatch, PaymentNotUnidentified, CurrencyDiffers, CreditorDiffers,
    TitleNotOfCase, PaymentTargetUnclear.
    """
    payment = store.get(tx, agency, [payment_id], lock=True).get(payment_id)
    if payment is None:
        raise errors.ResourceNotFound("no such payment", payment=payment_id)
    check_version(payment.version, version)
    if payment.state is not accounts.PaymentState.UNIDENTIFIED:
        raise rules.PaymentNotUnidentified("the payment is not unidentified", state=payment.state.value)
    match = _target(tx, agency, payment, target)
    check_case(
        tx,
        agency,
        match.case_id,
        currency=payment.currency,
        creditor_reference=payment.creditor_reference,
        title_ids=[
            *(title_id for title_id, _ in target.chosen),
            *([match.title_id] if match.title_id is not None else []),
        ],
    )
    if wrong := rules.check_chosen(target.chosen, amount_minor=payment.amount_minor):
        raise errors.InvalidRequest(fields=wrong)
    payment.chosen_title_ids = [title_id for title_id, _ in target.chosen]
    payment.chosen_minor = [minor for _, minor in target.chosen]
    apply(tx, agency, [payment], {payment.id: match}, moment=moment, bank=bank)


def _target(tx: db.Transaction, agency: uuid.UUID, payment: store.Payment, target: Target) -> store.Match:
    ways = [
        target.case_id is not None,
        target.instalment_id is not None,
        bool(target.title_reference or target.contract_reference),
    ]
    if sum(ways) != 1:
        raise errors.invalid("case_id", "expected one of case_id, instalment_id, and references")
    if target.case_id is None and (target.title_id is not None or target.chosen):
        raise errors.invalid("case_id", "expected the case of the titles")
    if target.case_id is not None:
        return store.Match(target.case_id, target.title_id, None)
    if target.instalment_id is not None:
        found = account_store.agreements_of_instalments(tx, agency, [target.instalment_id])
        if not found:
            raise errors.ResourceNotFound("no such instalment", instalment=target.instalment_id)
        (agreement,) = account_store.agreements(tx, agency, found).values()
        return store.Match(agreement.case_id, None, None)
    references = rules.References(
        creditor_reference=payment.creditor_reference,
        currency=payment.currency,
        txid="",
        our_number="",
        title_reference=target.title_reference,
        contract_reference=target.contract_reference,
    )
    match = store.match(tx, agency, [references])[0]
    if match is None:
        raise rules.PaymentTargetUnclear("expected references of one title or contract of the creditor")
    return match


def check_case(
    tx: db.Transaction,
    agency: uuid.UUID,
    case_id: uuid.UUID,
    *,
    currency: str,
    creditor_reference: str,
    title_ids: Sequence[uuid.UUID],
) -> None:
    """Raise where money of this creditor and currency cannot be given to a case, or to these titles of it."""
    case = account_store.cases(tx, agency, [case_id]).get(case_id)
    if case is None:
        raise errors.ResourceNotFound("no such case", case=case_id)
    if case.currency != currency:
        raise rules.CurrencyDiffers(
            "the payment is in another currency than the case", payment=currency, case=case.currency
        )
    if case.creditor_reference != creditor_reference:
        raise rules.CreditorDiffers("the payment was made to another creditor than the case's")
    if title_ids:
        owned = {one.title_id for one in account_store.titles(tx, agency, [case_id], also=title_ids)}
        if missing := sorted(set(title_ids) - owned):
            raise rules.TitleNotOfCase("a chosen title is not one of the case", title=missing[0])


def apply(
    tx: db.Transaction,
    agency: uuid.UUID,
    payments: Sequence[store.Payment],
    matches: Mapping[uuid.UUID, store.Match],
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """Give payments to what they were matched with, and allocate them."""
    if not payments:
        return
    for one in payments:
        match = matches[one.id]
        one.case_id, one.title_id, one.instrument_id = match.case_id, match.title_id, match.instrument_id
    used = [one.instrument_id for one in payments if one.instrument_id is not None]
    parts = instrument_store.titles_of(tx, agency, used) if used else {}
    for one in payments:
        if one.instrument_id in parts and not one.chosen_title_ids:
            one.chosen_title_ids = [title_id for title_id, _ in parts[one.instrument_id]]
            one.chosen_minor = [minor for _, minor in parts[one.instrument_id]]
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


def wait(
    tx: db.Transaction, agency: uuid.UUID, payments: Sequence[store.Payment], *, moment: moments.Moment
) -> None:
    """Confirmed payments that find nothing to pay wait as unidentified."""
    for one in payments:
        one.state, one.case_id, one.title_id = accounts.PaymentState.UNIDENTIFIED, None, None
        one.version += 1
    store.write(tx, agency, payments, {}, business_date=moment.business_date)
    for one in payments:
        facts.payment_changed(tx, moment, one, {})


def references_of(payment: store.Payment) -> rules.References:
    """What a payment says about what it pays."""
    return rules.References(
        creditor_reference=payment.creditor_reference,
        currency=payment.currency,
        txid=payment.txid,
        our_number=payment.our_number,
        title_reference=payment.title_reference,
        contract_reference=payment.contract_reference,
    )


def check_version(found: int, wanted: int | None) -> None:
    """Raise VersionMismatch unless nobody asked or it is the version asked for."""
    if wanted is not None and found != wanted:
        raise errors.VersionMismatch("the payment changed since it was read", etag=found)


def get(tx: db.Transaction, agency: uuid.UUID, payment_id: uuid.UUID) -> store.Payment:
    """One payment, not locked. Raises ResourceNotFound."""
    payment = store.get(tx, agency, [payment_id]).get(payment_id)
    if payment is None:
        raise errors.ResourceNotFound("no such payment", payment=payment_id)
    return payment
