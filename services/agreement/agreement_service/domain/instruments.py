"""Payment instruments: kinds, states and what may follow on what (state-machines.md; features S2-29, S5-26, S5-27).

An instrument never changes while it can be paid: it is cancelled at the bank, and another is made.
"""

import dataclasses
import datetime
import enum
import uuid

from servicekit import errors

MAX_DAYS_AHEAD = 365
MAX_TITLES = 100


class Kind(enum.StrEnum):
    """What a debtor pays with; also the name of the means in a creditor's settings."""

    BOLETO = "BOLETO"
    PIX = "PIX"
    MULTIBANCO = "MULTIBANCO"
    SEPA_DD = "SEPA_DD"


class State(enum.StrEnum):
    """Where an instrument stands at the bank: DRAFT, REGISTERING (the bank is asked), REGISTERED or REJECTED; PAID,
    EXPIRED, or CANCEL_REQUESTED, CANCELLING (the bank is asked), CANCELLED. Money that arrives on one that is over is
    money all the same: it becomes PAID."""

    DRAFT = "DRAFT"
    REGISTERING = "REGISTERING"
    REGISTERED = "REGISTERED"
    REJECTED = "REJECTED"
    PAID = "PAID"
    EXPIRED = "EXPIRED"
    CANCEL_REQUESTED = "CANCEL_REQUESTED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"


LIVE = frozenset({State.DRAFT, State.REGISTERING, State.REGISTERED})
"""Can be paid, or will be."""
ENDLESS = frozenset({Kind.MULTIBANCO, Kind.SEPA_DD})
"""Without a last day: a reference with check digits can be paid for ever, a direct debit waits for its file."""
CLOSING = frozenset({State.CANCEL_REQUESTED, State.CANCELLING})
"""Must not be paid any more, but the bank may still take it."""


class InstrumentPayable(errors.ServiceError):
    """The debt has an instrument of this kind that can be paid: cancel it, or reissue it."""

    status = errors.Status.FAILED_PRECONDITION


class InstrumentNotPayable(errors.ServiceError):
    """The instrument is paid, expired, rejected, cancelled or being cancelled: there is nothing to cancel."""

    status = errors.Status.FAILED_PRECONDITION


class InstrumentPaid(errors.ServiceError):
    """The instrument was paid: there is nothing left to copy."""

    status = errors.Status.FAILED_PRECONDITION


class InstrumentReplaced(errors.ServiceError):
    """A later instrument of the same kind took its place: that one is to be reissued."""

    status = errors.Status.FAILED_PRECONDITION


class InstrumentNotRegistered(errors.ServiceError):
    """Only what the bank has registered is printed (S5-27); wait for it, or reissue what is over."""

    status = errors.Status.FAILED_PRECONDITION


class FormatNotOfTheKind(errors.ServiceError):
    """An instrument of this kind has no such picture."""

    status = errors.Status.INVALID_ARGUMENT


class MeansNotAccepted(errors.ServiceError):
    """The creditor does not accept this means, or his account cannot take it."""

    status = errors.Status.FAILED_PRECONDITION


class CollectionAccountNotUsable(errors.ServiceError):
    """The account is not active, or another creditor's."""

    status = errors.Status.FAILED_PRECONDITION


class AmountAboveInstrument(errors.ServiceError):
    """The amount is above what an instrument of this kind can say."""

    status = errors.Status.FAILED_PRECONDITION


class InstalmentNotOpen(errors.ServiceError):
    """The instalment is paid, or its agreement is not in force."""

    status = errors.Status.FAILED_PRECONDITION


class TitleNotCollectable(errors.ServiceError):
    """A title is not open, is in an agreement, or is not of the case."""

    status = errors.Status.FAILED_PRECONDITION


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Debt:
    """What one instrument is to pay: an instalment, or titles of one case outside an agreement, each with its part of
    the amount. Minor units of `currency`."""

    case_id: uuid.UUID
    creditor_id: uuid.UUID
    currency: str
    instalment_id: uuid.UUID | None = None
    titles: tuple[tuple[uuid.UUID, int], ...] = ()
    amount_minor: int
    due_date: datetime.date


def check_date(date: datetime.date, *, today: datetime.date) -> None:
    """Refuse a due date before today or too far ahead. Raises InvalidRequest naming the range."""
    last = today + datetime.timedelta(days=MAX_DAYS_AHEAD)
    if not today <= date <= last:
        raise errors.invalid("date", f"expected {today} to {last}")
