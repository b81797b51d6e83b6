"""Overpaid money: given back (with a limit, R28), or used as a credit for other titles of the debtor (S5-08)."""

import dataclasses
import datetime
import uuid

from agreement_service import providers
from agreement_service.domain import accounts, limits
from agreement_service.domain import payments as rules
from agreement_service.store import accounts as account_store
from agreement_service.store import credits as store
from agreement_service.store import payments as payment_store
from agreement_service.usecases import limits as limit_cases
from agreement_service.usecases import moments, payments
from servicekit import db, errors, ids


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Credit:
    """Overpaid money that a debtor has with a creditor; minor units of `currency`."""

    payment_id: uuid.UUID
    case_id: uuid.UUID
    value_date: datetime.date
    currency: str
    overpaid_minor: int
    version: int


def available(*, tx: db.Transaction, agency: uuid.UUID, case_id: uuid.UUID) -> list[Credit]:
    """The credits that the debtor of a case has with its creditor, oldest first (S5-08)."""
    return [
        Credit(
            payment_id=row["id"],
            case_id=row["case_id"],
            value_date=row["value_date"],
            currency=row["currency"],
            overpaid_minor=row["overpaid_minor"],
            version=row["version"],
        )
        for row in store.available(tx, agency, case_id)
    ]


def refund(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    payment_id: uuid.UUID,
    amount_minor: int,
    currency: str,
    reason: str,
    by: str,
    version: int | None,
    authority: limits.Authority,
    moment: moments.Moment,
) -> None:
    """Overpaid money was given back to whoever paid: at most what the payment has overpaid, in parts if need be.

    Raises InvalidRequest, ResourceNotFound, VersionMismatch, PaymentNotMatched, PaymentIsCredit, MoreThanOverpaid,
    CurrencyDiffers, ApprovalNeeded (limit kind REFUND, R28).
    """
    if amount_minor <= 0:
        raise errors.invalid("amount", "expected more than zero")
    payment, cases = _lock(tx, agency, payment_id, version)
    if payment.origin_payment_id is not None:
        raise rules.PaymentIsCredit(
            "annul the credit and refund the payment it was made of", origin=payment.origin_payment_id
        )
    if currency != payment.currency:
        raise rules.CurrencyDiffers("the payment is in another currency", payment=payment.currency)
    _check_overpaid(payment, amount_minor)
    assert payment.case_id is not None
    limit_cases.check(
        tx=tx,
        agency=agency,
        authority=authority,
        creditor_id=cases[payment.case_id].creditor_id,
        kind=limits.Kind.REFUND,
        value=amount_minor,
        currency=currency,
        date=moment.business_date,
        case_ids=[payment.case_id],
    )
    store.refund(
        tx,
        agency,
        payment_id,
        amount_minor=amount_minor,
        refund_date=moment.business_date,
        reason=reason,
        refunded_by=by,
    )
    payment.refunded_minor += amount_minor
    payment.overpaid_minor -= amount_minor
    payments.write_spent(tx, agency, payment, moment=moment)


def apply_credit(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    payment_id: uuid.UUID,
    case_id: uuid.UUID,
    chosen: payments.Chosen = (),
    amount: tuple[int, str] | None,
    version: int | None,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> uuid.UUID:
    """Use overpaid money (minor units and currency; None: all of it) for a case of the same debtor, creditor and
    currency; the credit's id.

    The credit is a payment of its own, of means CREDIT and of today, allocated as every other; annulling it gives the
    money back to the payment it was made of. `chosen` titles get theirs first. Raises InvalidRequest, ResourceNotFound,
    VersionMismatch, PaymentNotMatched, PaymentIsCredit, MoreThanOverpaid, CurrencyDiffers, CreditorDiffers,
    DebtorDiffers, TitleNotOfCase.
    """
    if amount is not None and amount[0] <= 0:
        raise errors.invalid("amount", "expected more than zero")
    origin, cases = _lock(tx, agency, payment_id, version, case_id)
    if origin.origin_payment_id is not None:
        raise rules.PaymentIsCredit(
            "annul the credit and use the payment it was made of", origin=origin.origin_payment_id
        )
    if amount is not None and amount[1] != origin.currency:
        raise rules.CurrencyDiffers("the payment is in another currency", payment=origin.currency)
    amount_minor = origin.overpaid_minor if amount is None else amount[0]
    _check_overpaid(origin, amount_minor)
    if wrong := rules.check_chosen(chosen, amount_minor=amount_minor):
        raise errors.InvalidRequest(fields=wrong)
    assert origin.case_id is not None
    payments.check_case(
        tx,
        agency,
        case_id,
        currency=origin.currency,
        creditor_reference=origin.creditor_reference,
        title_ids=[title_id for title_id, _ in chosen],
    )
    if cases[case_id].debtor_id != cases[origin.case_id].debtor_id:
        raise rules.DebtorDiffers("the case is another debtor's", case=case_id)
    origin.credited_minor += amount_minor
    origin.overpaid_minor -= amount_minor
    payments.write_spent(tx, agency, origin, moment=moment)
    credit = payment_store.Payment(
        id=ids.new(),
        creditor_reference=origin.creditor_reference,
        account=origin.account,
        means=rules.CREDIT,
        bank_reference=f"{origin.means}:{origin.bank_reference}/{1 + store.count(tx, agency, origin.id)}",
        value_date=moment.business_date,
        amount_minor=amount_minor,
        currency=origin.currency,
        txid="",
        our_number="",
        title_reference="",
        contract_reference="",
        state=accounts.PaymentState.UNIDENTIFIED,
        origin_payment_id=origin.id,
        chosen_title_ids=[title_id for title_id, _ in chosen],
        chosen_minor=[minor for _, minor in chosen],
        created_at=moment.now,
    )
    payment_store.insert(tx, agency, [credit], now=moment.now, business_date=moment.business_date)
    payments.apply(tx, agency, [credit], {credit.id: payment_store.Match(case_id, None, None)}, moment, bank)
    return credit.id


def _lock(
    tx: db.Transaction, agency: uuid.UUID, payment_id: uuid.UUID, version: int | None, *case_ids: uuid.UUID
) -> tuple[payment_store.Payment, dict[uuid.UUID, account_store.CaseAccount]]:
    """Lock a payment's case and these, then the payment; it has to count."""
    seen = payment_store.get(tx, agency, [payment_id]).get(payment_id)
    if seen is None:
        raise errors.ResourceNotFound("no such payment", payment=payment_id)
    wanted = {*case_ids, *([seen.case_id] if seen.case_id is not None else [])}
    cases = account_store.lock(tx, agency, wanted)
    if missing := sorted(set(case_ids) - set(cases)):
        raise errors.ResourceNotFound("no such case", case=missing[0])
    payment = payment_store.get(tx, agency, [payment_id], lock=True)[payment_id]
    if payment.case_id != seen.case_id or (version is not None and payment.version != version):
        raise errors.VersionMismatch("the payment changed since it was read", etag=payment.version)
    if payment.state not in accounts.APPLIED:
        raise rules.PaymentNotMatched("the payment was not given to a case", state=payment.state.value)
    return payment, cases


def _check_overpaid(payment: payment_store.Payment, amount_minor: int) -> None:
    if not 0 < amount_minor <= payment.overpaid_minor:
        raise rules.MoreThanOverpaid(
            "more was asked than the payment has overpaid",
            overpaid_minor=payment.overpaid_minor,
            asked_minor=amount_minor,
            currency=payment.currency,
        )
