"""The outside world: the bank that registers instruments, slices of payment files, the calendar of business days."""

import dataclasses
import datetime
import enum
import functools
import io
import uuid
from collections.abc import Sequence
from typing import Any, Protocol

import holidays
import polars as pl

from agreement_service.domain import boleto
from recupera.imports.v1 import imports_service_pb2, imports_service_pb2_grpc
from servicekit import client, names

_COUNTRIES = {"BRL": "BR", "EUR": "PT"}


@functools.cache
def _holidays(currency: str) -> holidays.HolidayBase:
    return holidays.country_holidays(_COUNTRIES[currency])


@functools.lru_cache(maxsize=65_536)
def payable_until(due_date: datetime.date, currency: str) -> datetime.date:
    """The last day on which what is due can be paid without charges: the due date, or the next business day after it
    where it is a weekend or a national holiday of the currency's country (Lei 7.089/1985; PT: CC art. 279 e)."""
    calendar = _holidays(currency)
    day = due_date
    while day.weekday() >= 5 or day in calendar:
        day += datetime.timedelta(days=1)
    return day


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CollectionAccount:
    """Where the money of slips and Pix codes goes: Itaú branch, account and wallet, Pix key and its holder."""

    bank: str
    branch: str
    account: str
    wallet: str
    pix_key: str
    pix_name: str
    pix_city: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the bank is asked to register; `key` is the number by which it knows it (nosso número, txid)."""

    kind: str
    key: str
    amount_minor: int
    due_date: datetime.date


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
    def account(self) -> CollectionAccount:
        """Where the money goes."""
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


class OfflineBank:
    """A bank that says yes at once and remembers nothing: for development, tests and the demo. Its account is the one
    of the published vectors (standards.md 4.1, 4.4), so nobody is paid by mistake."""

    account = CollectionAccount(
        bank=boleto.ITAU,
        branch="1248",
        account="02124",
        wallet=boleto.ITAU_WALLET,
        pix_key="123e4567-e12b-12d1-a456-426655440000",
        pix_name="Recupera Cobrancas",
        pix_city="SAO PAULO",
    )

    def register(self, order: Order) -> Registration:
        """Registered."""
        return Registration.REGISTERED

    def cancel(self, order: Order) -> Registration:
        """Cancelled."""
        return Registration.CANCELLED

    def find(self, order: Order) -> Registration | None:
        """Unknown: asking it to register or cancel again is right."""
        return None


PROVIDERS = {"offline": OfflineBank}


SLICE_TIMEOUT = 30.0
"""Seconds to fetch a slice of at most 10,000 rows."""


class Slices(Protocol):
    """Where the rows of payment files come from."""

    def payments(self, agency: uuid.UUID, batch_id: uuid.UUID, number: int) -> Sequence[dict[str, Any]]:
        """Rows of a slice, named as recupera.imports.v1.PaymentRow. Raises RemoteUnavailable, RemoteRefused."""
        ...


class ImportSlices:
    """Slices of the import service, fetched over gRPC as Arrow."""

    def __init__(self, channel: client.Channel) -> None:
        self._channel = channel
        self._stub = imports_service_pb2_grpc.ImportServiceStub(channel.grpc)

    def payments(self, agency: uuid.UUID, batch_id: uuid.UUID, number: int) -> Sequence[dict[str, Any]]:
        """Rows of a slice."""
        request = imports_service_pb2.FetchSliceRequest(
            name=names.format("agencies/{agency}/batches/{batch}", agency=agency, batch=batch_id),
            slice=number,
        )
        parts = self._channel.stream(self._stub.FetchSlice, request, agency=agency, timeout=SLICE_TIMEOUT)
        return pl.read_ipc_stream(io.BytesIO(b"".join(part.arrow_ipc for part in parts))).to_dicts()
