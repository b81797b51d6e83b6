"""Settling titles without cash (S5-25): why, and what is refused."""

import enum

from servicekit import errors

MAX_TITLES = 500


class WriteOffType(enum.StrEnum):
    """Why a title is settled without cash coming in here."""

    LOSS = "LOSS"
    """Given up as uncollectable."""
    PAID_TO_CREDITOR = "PAID_TO_CREDITOR"
    """Paid to the creditor himself."""
    COURTESY = "COURTESY"
    TIME_BARRED = "TIME_BARRED"
    WRONG_TITLE = "WRONG_TITLE"
    """It should never have been placed."""
    OTHER = "OTHER"


class TitleBound(errors.ServiceError):
    """A title in an agreement in force is not written off: cancel the agreement first."""

    status = errors.Status.FAILED_PRECONDITION


class NothingOpen(errors.ServiceError):
    """The title owes nothing."""

    status = errors.Status.FAILED_PRECONDITION


class NotWrittenOff(errors.ServiceError):
    """The title has no write-off that could be undone."""

    status = errors.Status.FAILED_PRECONDITION
