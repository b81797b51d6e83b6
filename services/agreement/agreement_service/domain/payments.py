"""Payments as they are reported: identity, references, and what is refused (feature S1-18)."""

import dataclasses
import enum
import re
import uuid
from collections.abc import Mapping, Sequence

from servicekit import errors

Identity = tuple[str, str, str, str]
"""Creditor, account, means, bank reference: with the agency it identifies a credit."""

MEANS = frozenset({"PIX", "BOLETO", "TRANSFER", "MULTIBANCO", "SEPA_DD", "CARD", "CHEQUE", "CASH"})
CREDIT = "CREDIT"
"""Means of a payment that is made of what another one had overpaid (S5-08); nobody reports it."""
REPORTED = "REPORTED"
"""Account of a payment that a debtor reported, until the bank names another."""
MAX_TEXT = 140
MAX_CHOSEN = 100
MAX_PROOF = 4 * 1024 * 1024
PROOF_DAYS = 5 * 365
PROOF_TYPES = frozenset({"application/pdf", "image/jpeg", "image/png"})


class ReversalKind(enum.StrEnum):
    """Why the bank took a payment back (S1-18; standards.md 4.4)."""

    BOUNCED_CHEQUE = "BOUNCED_CHEQUE"
    PIX_RETURN = "PIX_RETURN"
    """Devolução asked by the receiver."""
    MED = "MED"
    """Mecanismo Especial de Devolução: fraud or failure, taken by the bank."""
    SDD_RETURN = "SDD_RETURN"
    """R-transaction of a SEPA direct debit."""
    CHARGEBACK = "CHARGEBACK"
    OTHER = "OTHER"


REVERSAL_MEANS: Mapping[ReversalKind, frozenset[str]] = {
    ReversalKind.BOUNCED_CHEQUE: frozenset({"CHEQUE"}),
    ReversalKind.PIX_RETURN: frozenset({"PIX"}),
    ReversalKind.MED: frozenset({"PIX"}),
    ReversalKind.SDD_RETURN: frozenset({"SEPA_DD"}),
    ReversalKind.CHARGEBACK: frozenset({"CARD"}),
    ReversalKind.OTHER: MEANS,
}
"""Which means each kind is of."""


class PaymentDiffers(errors.ServiceError):
    """A credit that is known already was reported with another amount or currency, or confirmed as another payment."""

    status = errors.Status.ALREADY_EXISTS


class PaymentNotUnidentified(errors.ServiceError):
    """Only a payment that waits as unidentified can be matched."""

    status = errors.Status.FAILED_PRECONDITION


class PaymentAlreadyReversed(errors.ServiceError):
    """The payment was reversed before."""

    status = errors.Status.FAILED_PRECONDITION


class PaymentAnnulled(errors.ServiceError):
    """The payment was annulled as entered by mistake; ConfirmPayment brings it back if it came in after all."""

    status = errors.Status.FAILED_PRECONDITION


class PaymentNotConfirmed(errors.ServiceError):
    """Nothing came in yet: a payment that is only reported moves no money. Confirm it, or annul it."""

    status = errors.Status.FAILED_PRECONDITION


class PaymentNotUnconfirmed(errors.ServiceError):
    """Only a payment that moved no money (reported, unconfirmed, annulled) can be confirmed."""

    status = errors.Status.FAILED_PRECONDITION


class PaymentNotMatched(errors.ServiceError):
    """Only a payment that was given to a case can be unmatched, refunded or credited."""

    status = errors.Status.FAILED_PRECONDITION


class PaymentSpent(errors.ServiceError):
    """Part of the payment was refunded or credited: it can neither be annulled nor unmatched."""

    status = errors.Status.FAILED_PRECONDITION


class PaymentIsCredit(errors.ServiceError):
    """The payment was made of another one's overpaid money: annul it, and that one has the money again."""

    status = errors.Status.FAILED_PRECONDITION


class MoreThanOverpaid(errors.ServiceError):
    """More was asked than the payment has overpaid."""

    status = errors.Status.FAILED_PRECONDITION


class DebtorDiffers(errors.ServiceError):
    """A credit pays cases of the debtor and creditor who hold it."""

    status = errors.Status.FAILED_PRECONDITION


class PaymentTargetUnclear(errors.ServiceError):
    """The references name no title or contract of the payment's creditor and currency, or more than one."""

    status = errors.Status.FAILED_PRECONDITION


class TitleNotOfCase(errors.ServiceError):
    """A chosen title is not one of the case, or holds nothing that can be paid."""

    status = errors.Status.FAILED_PRECONDITION


class CurrencyDiffers(errors.ServiceError):
    """The payment's currency is not the case's."""

    status = errors.Status.FAILED_PRECONDITION


class CreditorDiffers(errors.ServiceError):
    """The payment was made to another creditor than the case's."""

    status = errors.Status.FAILED_PRECONDITION


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """What a payment says about what it pays; empty where it says nothing."""

    creditor_reference: str
    currency: str
    txid: str
    our_number: str
    title_reference: str
    contract_reference: str


def plain_our_number(text: str) -> str:
    """A bank's number of a slip without its zeros in front, however it is written; empty where it is none.

    00010152, 10152, 109/00010152-7 and 109000101527 (Itaú) give 10152, 06/00000000525-P (Bradesco) 525, 16/208879-3
    (Sicredi, whose number begins with the year) 16208879.
    """
    body = re.sub(r"[ .]", "", text).partition("-")[0]
    head, slash, tail = body.partition("/")
    if slash:
        body = head + tail if (len(head), len(tail)) == (2, 6) else tail
    elif len(body) == 12 and body.startswith("109"):
        body = body[3:11]
    return body.lstrip("0") if body.isascii() and body.isdigit() and len(body) <= 20 else ""


def check_report(
    *,
    creditor_reference: str,
    account: str,
    means: str,
    bank_reference: str,
    amount_minor: int,
    currency: str,
) -> list[errors.FieldViolation]:
    """What is wrong with a reported payment; empty when nothing is."""
    wrong = []
    for field, text in (
        ("creditor_reference", creditor_reference),
        ("account", account),
        ("bank_reference", bank_reference),
    ):
        if not text.strip() or len(text) > MAX_TEXT:
            wrong.append(errors.FieldViolation(field, f"expected 1 to {MAX_TEXT} characters"))
    if means not in MEANS:
        wrong.append(errors.FieldViolation("means", f"expected one of {', '.join(sorted(MEANS))}"))
    if amount_minor <= 0:
        wrong.append(errors.FieldViolation("amount", "expected more than zero"))
    if currency not in ("BRL", "EUR"):
        wrong.append(errors.FieldViolation("currency", "expected BRL or EUR"))
    return wrong


def check_chosen(
    chosen: Sequence[tuple[uuid.UUID, int]], *, amount_minor: int
) -> list[errors.FieldViolation]:
    """What is wrong with titles chosen by hand; empty when nothing is."""
    if len(chosen) > MAX_CHOSEN:
        return [errors.FieldViolation("allocations", f"expected at most {MAX_CHOSEN} titles")]
    wrong = []
    if len({title_id for title_id, _ in chosen}) < len(chosen):
        wrong.append(errors.FieldViolation("allocations", "expected each title once"))
    for place, (_, minor) in enumerate(chosen):
        if minor <= 0:
            wrong.append(errors.FieldViolation(f"allocations[{place}].amount", "expected more than zero"))
    if sum(minor for _, minor in chosen) > amount_minor:
        wrong.append(errors.FieldViolation("allocations", "expected at most the payment's amount in sum"))
    return wrong


def check_reversal(kind: ReversalKind, means: str) -> None:
    """Raise InvalidRequest where a kind of reversal is not one of these means."""
    if means not in REVERSAL_MEANS[kind]:
        expected = [one.value for one, of in REVERSAL_MEANS.items() if means in of]
        raise errors.invalid("kind", f"expected {' or '.join(expected)} for a payment by {means}")
