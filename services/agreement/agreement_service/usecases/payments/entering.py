"""Payments reported, entered exactly once, confirmed."""

import dataclasses
import datetime
import uuid
from collections.abc import Mapping, Sequence

from agreement_service import providers
from agreement_service.domain import accounts
from agreement_service.domain import payments as rules
from agreement_service.store import accounts as account_store
from agreement_service.store import payments as store
from agreement_service.usecases import counts, facts, moments
from agreement_service.usecases.payments import matching
from agreement_service.usecases.payments.reports import Report
from servicekit import blobs, db, errors, ids

MANY = 100
"""Reports that are worth having the statements planned anew."""


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

    A payment that only the debtor or a collector had reported is confirmed by the report: what the bank says of it
    counts. Reports that differ from what is known (PaymentDiffers), of annulled payments (PaymentAnnulled) or malformed
    (InvalidRequest) are refused one by one.
    """
    if len(reports) >= MANY:
        store.plan_anew(tx)
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
    matches = _matches(tx, agency, first)
    if any(matches[key] is None and not one.unconfirmed for key, one in first.items()):
        store.guard_unidentified(tx, agency, shared=False)
        matches = _matches(tx, agency, first)
    new = {identity: _payment(report, moment) for identity, report in first.items()}
    inserted = store.insert(
        tx, agency, list(new.values()), now=moment.now, business_date=moment.business_date
    )
    known = store.by_identity(tx, agency, [key for key, one in new.items() if one.id not in inserted])
    sources, unchanged, again = [], 0, set(inserted)
    said: dict[uuid.UUID, Report] = {}
    found = {**new, **known}
    for index, report in good:
        payment = found[report.identity]
        if payment.state is accounts.PaymentState.ANNULLED:
            refused.append((index, rules.PaymentAnnulled("the payment was annulled", payment=payment.id)))
            continue
        confirms = payment.state in accounts.UNCONFIRMED and not report.unconfirmed
        if payment.currency != report.currency or (
            payment.amount_minor != report.amount_minor and not confirms
        ):
            refused.append((index, _differs(payment)))
            continue
        if confirms:
            said.setdefault(payment.id, report)
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
        if one.id in said
        or (one.state is accounts.PaymentState.UNIDENTIFIED and matches[one.identity] is not None)
    ]
    # a second report may say what the first one did not: then the payment is identified by it
    late = []
    for one in store.get(tx, agency, waiting, lock=True).values():
        if one.state in accounts.UNCONFIRMED and one.id in said:
            _take_over(one, said[one.id])
            late.append(one)
        elif one.state is accounts.PaymentState.UNIDENTIFIED and not one.by_hand:
            late.append(one)
    confirmed = [one for one in late if one.id in said]
    store.confirm(tx, agency, confirmed)
    # what the bank does not say, who reported it may have said
    told = [one for one in late if one.id in said and matches[one.identity] is None and _own(one) is None]
    for one, match in zip(
        told, store.match(tx, agency, [matching.references_of(one) for one in told]), strict=True
    ):
        matches[one.identity] = match
    coming = [one for one in fresh if one.state is accounts.PaymentState.UNIDENTIFIED]
    counts.payments(tx, [*coming, *confirmed])
    found_now = {
        one.id: match
        for one in (*coming, *late)
        if (match := (_own(one) if one.chosen else None) or matches[one.identity] or _own(one)) is not None
    }
    matching.apply(
        tx,
        agency,
        [one for one in (*coming, *late) if one.id in found_now],
        found_now,
        moment=moment,
        bank=bank,
    )
    for one in fresh:
        if one.id not in found_now:
            facts.payment_changed(tx, moment, one, {})
    matching.wait(
        tx, agency, [one for one in late if one.id in said and one.id not in found_now], moment=moment
    )
    return Entered(
        applied=len(inserted),
        unchanged=unchanged,
        refused=sorted(refused, key=lambda one: one[0]),
        payments={identity: one.id for identity, one in found.items()},
    )


def record(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    report: Report,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> uuid.UUID:
    """Enter one credit by hand; its payment's id.

    One that the bank has confirmed has a value date of today or before. Raises what `enter` refuses with,
    InvalidRequest, and, where it names a case, ResourceNotFound, CurrencyDiffers, CreditorDiffers, TitleNotOfCase.
    """
    if report.value_date > moment.business_date and not report.unconfirmed:
        raise errors.invalid(
            "value_date", f"expected {moment.business_date} or earlier, or an unconfirmed payment"
        )
    if report.case_id is not None:
        matching.check_case(
            tx,
            agency,
            report.case_id,
            currency=report.currency,
            creditor_reference=report.creditor_reference,
            title_ids=[title_id for title_id, _ in report.chosen],
        )
    elif report.chosen:
        raise errors.invalid("case_id", "expected the case of the titles in allocations")
    entered = enter(tx=tx, agency=agency, reports=[report], moment=moment, bank=bank)
    if entered.refused:
        raise entered.refused[0][1]
    return entered.payments[report.identity]


def report_proof(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    case_id: uuid.UUID,
    account: str,
    means: str,
    bank_reference: str,
    value_date: datetime.date,
    amount_minor: int,
    currency: str,
    caller: str,
    proof: bytes,
    proof_type: str,
    moment: moments.Moment,
) -> uuid.UUID:
    """A debtor says that he paid (S1-20): the payment waits, REPORTED, for the bank; no money moves. Its id.

    With the bank's own reference (the end-to-end id of a Pix) and account the bank's report confirms it by itself;
    otherwise ConfirmPayment. A proof is kept five years (CC BR art. 206 §5). Raises InvalidRequest, ResourceNotFound,
    CurrencyDiffers, PaymentDiffers (that credit is known already).
    """
    if len(proof) > rules.MAX_PROOF:
        raise errors.invalid("proof", f"expected at most {rules.MAX_PROOF} bytes")
    if proof and proof_type not in rules.PROOF_TYPES:
        raise errors.invalid("proof_type", f"expected one of {', '.join(sorted(rules.PROOF_TYPES))}")
    case = account_store.cases(tx, agency, [case_id]).get(case_id)
    if case is None:
        raise errors.ResourceNotFound("no such case", case=case_id)
    payment_id = ids.new()
    payment = store.Payment(
        id=payment_id,
        creditor_reference=case.creditor_reference,
        account=account or rules.REPORTED,
        means=means,
        bank_reference=bank_reference or str(payment_id),
        value_date=value_date,
        amount_minor=amount_minor,
        currency=currency,
        txid="",
        our_number="",
        title_reference="",
        contract_reference="",
        state=accounts.PaymentState.REPORTED,
        case_id=case_id,
        created_at=moment.now,
    )
    if wrong := rules.check_report(
        creditor_reference=payment.creditor_reference,
        account=payment.account,
        means=means,
        bank_reference=payment.bank_reference,
        amount_minor=amount_minor,
        currency=currency,
    ):
        raise errors.InvalidRequest(fields=wrong)
    if currency != case.currency:
        raise rules.CurrencyDiffers(
            "the payment is in another currency than the case", payment=currency, case=case.currency
        )
    if proof:
        kept = blobs.create(
            tx,
            agency=agency,
            kind="payment-proof",
            retention_days=rules.PROOF_DAYS,
            chunks=[proof],
            now=moment.now,
        )
        payment.proof_blob_id, payment.proof_type = kept.id, proof_type
    if not store.insert(tx, agency, [payment], now=moment.now, business_date=moment.business_date):
        raise _differs(store.by_identity(tx, agency, [payment.identity])[payment.identity])
    store.add_sources(tx, agency, [store.Source(payment_id, caller=caller)])
    facts.payment_changed(tx, moment, payment, {})
    return payment_id


def proof_of(*, tx: db.Transaction, agency: uuid.UUID, payment_id: uuid.UUID) -> tuple[str, uuid.UUID]:
    """The type and the blob of a payment's proof. Raises ResourceNotFound."""
    payment = matching.get(tx, agency, payment_id)
    if payment.proof_blob_id is None:
        raise errors.ResourceNotFound("the payment has no proof", payment=payment_id)
    return payment.proof_type, payment.proof_blob_id


def confirm(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    payment_id: uuid.UUID,
    account: str,
    means: str,
    bank_reference: str,
    value_date: datetime.date | None,
    amount: tuple[int, str] | None,
    version: int | None,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """The money is there: a reported, unconfirmed or annulled payment counts from now on, matched and allocated.

    What is given (not empty, not None; `amount` in minor units of a currency) takes the place of what was reported.
    Raises ResourceNotFound, VersionMismatch,
    PaymentNotUnconfirmed, InvalidRequest, PaymentDiffers (that credit is known as another payment: annul this one).
    """
    seen = matching.get(tx, agency, payment_id)
    match = _own(seen) or store.match(tx, agency, [matching.references_of(seen)])[0]
    if match is None:
        store.guard_unidentified(tx, agency, shared=False)
        match = store.match(tx, agency, [matching.references_of(seen)])[0]
    payment = store.get(tx, agency, [payment_id], lock=True)[payment_id]
    matching.check_version(payment.version, version)
    if payment.state not in accounts.UNCONFIRMED and payment.state is not accounts.PaymentState.ANNULLED:
        raise rules.PaymentNotUnconfirmed("the payment is confirmed", state=payment.state.value)
    if payment.origin_payment_id is not None:
        raise rules.PaymentIsCredit("apply the credit again", origin=payment.origin_payment_id)
    payment.account, payment.means = account or payment.account, means or payment.means
    payment.bank_reference = bank_reference or payment.bank_reference
    payment.value_date = value_date or payment.value_date
    if amount is not None:
        payment.amount_minor = amount[0]
        if amount[1] != payment.currency:
            raise rules.CurrencyDiffers("the payment is in another currency", payment=payment.currency)
    wrong = rules.check_report(
        creditor_reference=payment.creditor_reference,
        account=payment.account,
        means=payment.means,
        bank_reference=payment.bank_reference,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
    )
    if wrong:
        raise errors.InvalidRequest(fields=wrong)
    while not store.confirm_as(tx, agency, payment):
        if known := store.by_identity(tx, agency, [payment.identity]):
            raise _differs(known[payment.identity], "this credit is known as another payment: annul this one")
    counts.payments(tx, [payment])
    payment.reverse_date, payment.reverse_reason = None, ""
    if match is None:
        matching.wait(tx, agency, [payment], moment=moment)
    else:
        matching.apply(tx, agency, [payment], {payment.id: match}, moment=moment, bank=bank)


def _matches(
    tx: db.Transaction, agency: uuid.UUID, reports: Mapping[rules.Identity, Report]
) -> dict[rules.Identity, store.Match | None]:
    found = store.match(tx, agency, [one.references for one in reports.values()])
    return {
        identity: store.Match(report.case_id, None, None) if report.case_id is not None else match
        for (identity, report), match in zip(reports.items(), found, strict=True)
    }


def _own(payment: store.Payment) -> store.Match | None:
    """What an unconfirmed payment was said to pay."""
    if payment.case_id is None:
        return None
    return store.Match(payment.case_id, payment.title_id, None)


def _payment(report: Report, moment: moments.Moment) -> store.Payment:
    waits = report.unconfirmed
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
        state=accounts.PaymentState.NEW_UNCONFIRMED if waits else accounts.PaymentState.UNIDENTIFIED,
        case_id=report.case_id if waits else None,
        chosen_title_ids=[title_id for title_id, _ in report.chosen],
        chosen_minor=[minor for _, minor in report.chosen],
        created_at=moment.now,
    )


def _take_over(payment: store.Payment, report: Report) -> None:
    """What the bank says of a payment takes the place of what was said before; where it says nothing that stays."""
    payment.value_date, payment.amount_minor = report.value_date, report.amount_minor
    payment.txid = report.txid or payment.txid
    payment.our_number = report.our_number or payment.our_number
    payment.title_reference = report.title_reference or payment.title_reference
    payment.contract_reference = report.contract_reference or payment.contract_reference


def _differs(
    payment: store.Payment, message: str = "this credit is known with another amount or currency"
) -> rules.PaymentDiffers:
    return rules.PaymentDiffers(
        message,
        payment=payment.id,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
    )
