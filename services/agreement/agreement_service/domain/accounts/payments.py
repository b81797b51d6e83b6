"""Payments given to a case, their order, and the postings they make."""

import dataclasses
import datetime
import enum
import functools
import uuid

from agreement_service.domain.accounts.entries import Entry


class PaymentState(enum.StrEnum):
    """States of a payment. OVERPAID: nothing was left to pay, all of it is kept as overpaid."""

    UNIDENTIFIED = "UNIDENTIFIED"
    ALLOCATED = "ALLOCATED"
    OVERPAID = "OVERPAID"
    REVERSED = "REVERSED"


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
    """A payment given to a case, and the entries it made (net of contra entries, in the order they were made)."""

    payment_id: uuid.UUID
    case_id: uuid.UUID
    title_id: uuid.UUID | None
    key: PaymentKey
    amount_minor: int
    state: PaymentState = PaymentState.UNIDENTIFIED
    allocated_minor: int = 0
    overpaid_minor: int = 0
    entries: list[Entry] = dataclasses.field(default_factory=list)
    version: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Posting:
    """An entry with what caused it."""

    entry: Entry
    value_date: datetime.date
    payment_id: uuid.UUID | None = None
    agreement_id: uuid.UUID | None = None
