"""Promises to pay, followed until they are kept or broken (state-machines.md `ptp`; shared domain: promise to pay)."""

import datetime
import enum

TOLERANCE_DAYS = 2
"""Calendar days after the promised day, or after the business day that follows it, in which a payment still keeps it:
money sent on the day arrives then."""


class PromiseState(enum.StrEnum):
    """What became of a promise; REPLACED by a newer one or by an agreement, and final."""

    PENDING = "PENDING"
    KEPT = "KEPT"
    BROKEN = "BROKEN"
    REPLACED = "REPLACED"


def promise_state(
    *, amount_minor: int, paid_minor: int, tolerance_date: datetime.date, business_date: datetime.date
) -> PromiseState:
    """State on a business date of a promise that nothing replaced; store/promises.py has the same in SQL, a test holds
    both together.

    `paid_minor` is what payments with a value date from the day it was made through `tolerance_date` brought the case,
    whenever they were reported.
    """
    if paid_minor >= amount_minor:
        return PromiseState.KEPT
    return PromiseState.BROKEN if business_date > tolerance_date else PromiseState.PENDING
