"""Rows of payments, and what they are asked by."""

import dataclasses
import datetime
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from agreement_service.domain import accounts
from agreement_service.domain import payments as rules

COLUMNS = """
    payments.id, payments.creditor_reference, payments.account, payments.means, payments.bank_reference,
    payments.value_date, payments.amount_minor, payments.currency, payments.txid, payments.our_number,
    payments.title_reference, payments.contract_reference, payments.state, payments.allocated_minor,
    payments.overpaid_minor, payments.case_id, payments.title_id, payments.instrument_id, payments.epoch,
    payments.reverse_date, payments.reverse_reason, payments.reverse_kind, payments.refunded_minor,
    payments.credited_minor, payments.by_hand, payments.origin_payment_id, payments.chosen_title_ids,
    payments.chosen_minor, payments.proof_blob_id, payments.proof_type, payments.created_at, payments.version
"""


@dataclasses.dataclass(slots=True, kw_only=True)
class Payment:
    """One row of payments.

    `by_hand`: somebody said that its references are wrong, it is matched by hand only. `chosen_*`: titles it pays
    first, with the most that each gets. `origin_payment_id`: it is a credit, made of what that payment had overpaid.
    """

    id: uuid.UUID
    creditor_reference: str
    account: str
    means: str
    bank_reference: str
    value_date: datetime.date
    amount_minor: int
    currency: str
    txid: str
    our_number: str
    title_reference: str
    contract_reference: str
    state: accounts.PaymentState
    allocated_minor: int = 0
    overpaid_minor: int = 0
    case_id: uuid.UUID | None = None
    title_id: uuid.UUID | None = None
    instrument_id: uuid.UUID | None = None
    epoch: int = 0
    reverse_date: datetime.date | None = None
    reverse_reason: str = ""
    reverse_kind: str = ""
    refunded_minor: int = 0
    credited_minor: int = 0
    by_hand: bool = False
    origin_payment_id: uuid.UUID | None = None
    chosen_title_ids: list[uuid.UUID] = dataclasses.field(default_factory=list)
    chosen_minor: list[int] = dataclasses.field(default_factory=list)
    proof_blob_id: uuid.UUID | None = None
    proof_type: str = ""
    created_at: datetime.datetime
    version: int = 1

    @property
    def identity(self) -> rules.Identity:
        """What identifies the credit."""
        return self.creditor_reference, self.account, self.means, self.bank_reference

    @property
    def key(self) -> accounts.PaymentKey:
        """Its place in the order of payments."""
        return accounts.PaymentKey(self.value_date, self.identity)

    @property
    def chosen(self) -> tuple[tuple[uuid.UUID, int], ...]:
        """The titles it pays first, and how much of each."""
        return tuple(zip(self.chosen_title_ids, self.chosen_minor, strict=True))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which payments a list shows (the tabs of S1-18); None and empty: all. Value dates, both inclusive."""

    states: Sequence[str] = ()
    reverse_kind: str | None = None
    case_id: uuid.UUID | None = None
    creditor_reference: str | None = None
    since: datetime.date | None = None
    until: datetime.date | None = None


EVERYTHING = Filter()


@dataclasses.dataclass(frozen=True, slots=True)
class Match:
    """What a payment pays."""

    case_id: uuid.UUID
    title_id: uuid.UUID | None
    instrument_id: uuid.UUID | None


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """Where a payment was reported: a row of a batch, or a caller."""

    payment_id: uuid.UUID
    batch_id: uuid.UUID | None = None
    row: int | None = None
    caller: str = ""


def identities_of(identities: Sequence[rules.Identity]) -> dict[str, list[Any]]:
    """Identities as columns."""
    names = ("creditor_references", "accounts", "means", "bank_references")
    return {name: [one[place] for one in identities] for place, name in enumerate(names)}


def payments_of(rows: Iterable[sa.RowMapping]) -> list[Payment]:
    """Payments of rows with COLUMNS."""
    return [Payment(**{**row, "state": accounts.PaymentState(row["state"])}) for row in rows]
