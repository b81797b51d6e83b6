"""Payments given to a case, their order, and the postings they make."""

import dataclasses
import datetime
import enum
import functools
import uuid

from agreement_service.domain.accounts.entries import Entry


class PaymentState(enum.StrEnum):
    """Stored states of a payment (state-machines.md; NEW is between confirmation and allocation, in one transaction).

    REPORTED, by the debtor, and NEW_UNCONFIRMED, by a collector, move no money. OVERPAID: nothing was left to pay, what
    is not given back or credited is kept. REFUNDED: all of it was given back. REVERSED: the bank took it back.
    ANNULLED: entered by mistake.
    """

    REPORTED = "REPORTED"
    NEW_UNCONFIRMED = "NEW_UNCONFIRMED"
    UNIDENTIFIED = "UNIDENTIFIED"
    ALLOCATED = "ALLOCATED"
    OVERPAID = "OVERPAID"
    REFUNDED = "REFUNDED"
    REVERSED = "REVERSED"
    ANNULLED = "ANNULLED"


APPLIED = frozenset({PaymentState.ALLOCATED, PaymentState.OVERPAID, PaymentState.REFUNDED})
"""States of payments that were given to a case and count."""
UNCONFIRMED = frozenset({PaymentState.REPORTED, PaymentState.NEW_UNCONFIRMED})
"""States of payments that nobody but the debtor or a collector has seen."""
TAKEN_BACK = frozenset({PaymentState.REVERSED, PaymentState.ANNULLED})
"""States of payments that count no more."""


@functools.total_ordering
@dataclasses.dataclass(frozen=True, slots=True)
class PaymentKey:
    """The order in which payments apply: value date, then what identifies the credit."""

    value_date: datetime.date
    identity: tuple[str, str, str, str]

    def __lt__(self, other: "PaymentKey") -> bool:
        return (self.value_date, self.identity) < (other.value_date, other.identity)


@dataclasses.dataclass(slots=True, kw_only=True)
class Payment:
    """A payment given to a case, and the entries it made (net of contra entries, in the order they were made).

    `chosen` are titles it pays first, with the most that each gets. What was refunded or credited is not there to be
    allocated.
    """

    payment_id: uuid.UUID
    case_id: uuid.UUID
    title_id: uuid.UUID | None
    key: PaymentKey
    amount_minor: int
    state: PaymentState = PaymentState.UNIDENTIFIED
    allocated_minor: int = 0
    overpaid_minor: int = 0
    refunded_minor: int = 0
    credited_minor: int = 0
    chosen: tuple[tuple[uuid.UUID, int], ...] = ()
    entries: list[Entry] = dataclasses.field(default_factory=list)
    version: int = 1

    def settle_state(self) -> None:
        """The state that follows from what became of the money."""
        self.state = applied_state(
            allocated_minor=self.allocated_minor,
            overpaid_minor=self.overpaid_minor,
            refunded_minor=self.refunded_minor,
        )


def applied_state(*, allocated_minor: int, overpaid_minor: int, refunded_minor: int) -> PaymentState:
    """The state of a payment that was given to a case, from what became of its money."""
    if allocated_minor:
        return PaymentState.ALLOCATED
    return PaymentState.REFUNDED if refunded_minor and not overpaid_minor else PaymentState.OVERPAID


@dataclasses.dataclass(frozen=True, slots=True)
class Posting:
    """An entry with what caused it."""

    entry: Entry
    value_date: datetime.date
    payment_id: uuid.UUID | None = None
    agreement_id: uuid.UUID | None = None
