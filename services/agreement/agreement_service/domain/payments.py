"""Payments as they are reported: identity, references, and what is refused (feature S1-18)."""

import dataclasses
import re

from servicekit import errors

Identity = tuple[str, str, str, str]
"""Creditor, account, means, bank reference: with the agency it identifies a credit."""

MEANS = frozenset({"PIX", "BOLETO", "TRANSFER", "MULTIBANCO", "SEPA_DD", "CARD", "CHEQUE", "CASH"})
MAX_TEXT = 140


class PaymentDiffers(errors.ServiceError):
    """A credit that is known already was reported again with another amount or currency."""

    status = errors.Status.ALREADY_EXISTS


class PaymentNotUnidentified(errors.ServiceError):
    """Only a payment that waits as unidentified can be matched."""

    status = errors.Status.FAILED_PRECONDITION


class PaymentAlreadyReversed(errors.ServiceError):
    """The payment was reversed before."""

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
    """The 8 digits of Itaú's our number, however it is written: 00010152, 10152, 109/00010152-7."""
    digits = re.sub(r"[ ./\-]", "", text)
    if not digits.isascii() or not digits.isdigit():
        return ""
    if len(digits) == 12 and digits.startswith("109"):
        digits = digits[3:11]
    return digits.zfill(8) if len(digits) <= 8 else ""


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
