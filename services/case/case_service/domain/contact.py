"""What the outcome of a contact means for a case (S1-08, S1-09, S2-35)."""

from __future__ import annotations

import dataclasses
import datetime
import enum
from collections.abc import Mapping

from case_service.domain import cases
from servicekit import errors


class Channel(enum.StrEnum):
    """How a person is reached; names as in recupera.case.v1.Channel."""

    CALL = "CALL"
    EMAIL = "EMAIL"
    SMS = "SMS"
    LETTER = "LETTER"
    WHATSAPP = "WHATSAPP"


class Outcome(enum.StrEnum):
    """How a contact ended; names as in recupera.case.v1.ContactRecord.Outcome, and what only machines report."""

    NO_ANSWER = "NO_ANSWER"
    BUSY = "BUSY"
    INVALID_NUMBER = "INVALID_NUMBER"
    MACHINE = "MACHINE"
    WRONG_PERSON = "WRONG_PERSON"
    RIGHT_PARTY = "RIGHT_PARTY"
    PROMISE_TO_PAY = "PROMISE_TO_PAY"
    REFUSAL = "REFUSAL"
    CALLBACK = "CALLBACK"
    MESSAGE_SENT = "MESSAGE_SENT"
    ABANDONED = "ABANDONED"
    ALREADY_PAID = "ALREADY_PAID"
    DISPUTE = "DISPUTE"
    NEGOTIATING = "NEGOTIATING"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"


RIGHT_PARTY = frozenset(
    {
        Outcome.RIGHT_PARTY,
        Outcome.PROMISE_TO_PAY,
        Outcome.REFUSAL,
        Outcome.CALLBACK,
        Outcome.ALREADY_PAID,
        Outcome.DISPUTE,
        Outcome.NEGOTIATING,
    }
)
"""The right person was spoken to (R05 counts these calls apart)."""

BARS: Mapping[Outcome, str] = {
    Outcome.INVALID_NUMBER: "WRONG_NUMBER",
    Outcome.WRONG_PERSON: "WRONG_NUMBER",
}
"""Outcomes after which the contact point is never used again, with the reason (R26: system-wide)."""

SUB_STATE: Mapping[Outcome, cases.SubState] = {
    Outcome.NO_ANSWER: cases.SubState.NO_CONTACT,
    Outcome.BUSY: cases.SubState.NO_CONTACT,
    Outcome.INVALID_NUMBER: cases.SubState.NO_CONTACT,
    Outcome.MACHINE: cases.SubState.NO_CONTACT,
    Outcome.WRONG_PERSON: cases.SubState.NO_CONTACT,
    Outcome.MESSAGE_SENT: cases.SubState.NO_CONTACT,
    Outcome.ABANDONED: cases.SubState.NO_CONTACT,
    Outcome.RIGHT_PARTY: cases.SubState.CONTACTED,
    Outcome.REFUSAL: cases.SubState.CONTACTED,
    Outcome.DISPUTE: cases.SubState.CONTACTED,
    Outcome.CALLBACK: cases.SubState.CALLBACK,
    Outcome.PROMISE_TO_PAY: cases.SubState.PTP,
    Outcome.NEGOTIATING: cases.SubState.NEGOTIATING,
    Outcome.ALREADY_PAID: cases.SubState.AWAITING_CREDITOR_INFO,
}


class PromiseInvalid(errors.ServiceError):
    """A promise needs a date not before the business date and an amount above zero in the case's currency."""

    status = errors.Status.INVALID_ARGUMENT


class CaseNotContactable(errors.ServiceError):
    """The case is over: nobody is contacted about it."""

    status = errors.Status.FAILED_PRECONDITION


def sub_state(current: cases.SubState, outcome: Outcome) -> cases.SubState:
    """The sub-state of a case IN_COLLECTION after a contact.

    An attempt that reached nobody never takes back what a conversation brought: only NEW becomes
    NO_CONTACT.
    """
    found = SUB_STATE.get(outcome)
    if found is None or (found is cases.SubState.NO_CONTACT and current is not cases.SubState.NEW):
        return current
    return found


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A promise to pay ``amount_minor`` minor units of ``currency`` by ``date`` (S1-09)."""

    date: datetime.date
    amount_minor: int
    currency: str


def check_promise(promise: Promise, *, business_date: datetime.date, currency: str) -> None:
    """Raises PromiseInvalid. A promise for today is good; the past is not, nor another currency than the case's."""
    if promise.date < business_date:
        raise PromiseInvalid("the promise is for a date that has passed", business_date=business_date)
    if promise.amount_minor <= 0:
        raise PromiseInvalid("the promised amount must be above zero")
    if promise.currency != currency:
        raise PromiseInvalid("the promise is in another currency than the case", currency=currency)


class PromiseState(enum.StrEnum):
    """OPEN until kept (paid in time), broken (not paid by its date and grace days) or replaced by a newer one."""

    OPEN = "OPEN"
    KEPT = "KEPT"
    BROKEN = "BROKEN"
    REPLACED = "REPLACED"


class AgreementState(enum.StrEnum):
    """States of an agreement that this service tells apart; names as in recupera.agreement.v1.Agreement.State."""

    AWAITING_SIGNATURE = "AWAITING_SIGNATURE"
    AWAITING_DOWN_PAYMENT = "AWAITING_DOWN_PAYMENT"
    ACTIVE = "ACTIVE"


IN_FORCE = frozenset(AgreementState)
"""An agreement accepted and neither fulfilled, broken, cancelled nor expired."""
