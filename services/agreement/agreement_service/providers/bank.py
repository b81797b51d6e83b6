"""The bank that registers instruments."""

import dataclasses
import datetime
import enum
from typing import Protocol

from agreement_service.domain import collection
from agreement_service.providers import parties


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the bank is asked to register; `key` is the number by which it knows it (nosso número, txid)."""

    kind: str
    key: str
    amount_minor: int
    due_date: datetime.date
    today: datetime.date
    payer: parties.Parties | None = None
    """Who owes, for a bank that asks (`pix_charges`); None where nobody was asked."""


class Registration(enum.StrEnum):
    """How the bank sees an instrument."""

    REGISTERED = "REGISTERED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"


class BankUnavailable(Exception):
    """The bank did not answer: the act stays open and is asked for again."""


class BankProvider(Protocol):
    """A bank, for one collection account. Every call is idempotent by the order's key. Raises BankUnavailable."""

    @property
    def account(self) -> collection.CollectionAccount:
        """Where the money goes."""
        ...

    @property
    def pix_charges(self) -> bool:
        """Whether Pix instruments are charges at the bank (cob, cobv), whose code and address only the bank can give.

        Otherwise their codes are static, made at issue.
        """
        ...

    @property
    def multibanco_entity(self) -> str:
        """The house's own entity for references of creditors that have none; empty where there is none."""
        ...

    def register(self, order: Order) -> Registration:
        """Make an instrument payable."""
        ...

    def cancel(self, order: Order) -> Registration:
        """Make an instrument unusable."""
        ...

    def find(self, order: Order) -> Registration | None:
        """What the bank knows of an instrument; None where it never heard of it."""
        ...

    def code(self, order: Order) -> str:
        """The BR Code of a registered charge; empty where it was made at issue."""
        ...


class OfflineBank:
    """A bank that says yes at once and remembers nothing: for development, tests and the demo. Its account is the one
    of the published vectors (standards.md 4.1, 4.4), so nobody is paid by mistake."""

    account = collection.CollectionAccount(
        bank="341",
        branch="1248",
        account="02124",
        wallet="109",
        beneficiary_name="Recupera Cobranças",
        payable_days=collection.PAYABLE_DAYS,
        pix_key="123e4567-e12b-12d1-a456-426655440000",
        pix_name="Recupera Cobrancas",
        pix_city="SAO PAULO",
    )
    pix_charges = False
    multibanco_entity = "90150"

    def register(self, order: Order) -> Registration:
        """Registered."""
        return Registration.REGISTERED

    def cancel(self, order: Order) -> Registration:
        """Cancelled."""
        return Registration.CANCELLED

    def find(self, order: Order) -> Registration | None:
        """Unknown: asking it to register or cancel again is right."""
        return None

    def code(self, order: Order) -> str:
        """Made at issue."""
        return ""
