"""Small import files for tests: good rows, and variations of them."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import io
import uuid
from collections.abc import Mapping, Sequence

import polars as pl

from import_service import domain
from import_service.providers import files, layouts, reading, slices

PORTFOLIO = {
    "creditor_reference": "LUZ",
    "creditor_name": "Luz do Norte S.A.",
    "creditor_document": "16.727.230/0001-97",
    "contract_reference": "K-1",
    "debtor_document": "390.533.447-05",
    "debtor_name": "Conceição Araújo",
    "title_reference": "T-1",
    "due_date": "2026-09-30",
    "principal": "1.234,50",
    "currency": "BRL",
}
PAYMENT = {
    "creditor_reference": "LUZ",
    "account": "001-1",
    "means": "PIX",
    "bank_reference": "E1",
    "value_date": "2026-11-20",
    "amount": "100,00",
    "currency": "BRL",
    "title_reference": "T-1",
    "contract_reference": "K-1",
}


def rows(count: int, base: Mapping[str, str] = PORTFOLIO) -> list[dict[str, str]]:
    """That many good rows, each of a title or credit of its own."""
    key = "title_reference" if "title_reference" in base and "principal" in base else "bank_reference"
    return [{**base, key: f"{base[key]}-{number}"} for number in range(count)]


def text(
    found: Sequence[Mapping[str, str]], *, delimiter: str = ";", columns: Sequence[str] | None = None
) -> str:
    """CSV text of rows, quoted where needed."""
    names = list(columns or dict.fromkeys(name for row in found for name in row))
    out = io.StringIO(newline="")
    writer = csv.DictWriter(
        out, names, restval="", delimiter=delimiter, lineterminator="\n", extrasaction="ignore"
    )
    writer.writeheader()
    writer.writerows(found)
    return out.getvalue()


def content(found: Sequence[Mapping[str, str]], **kwargs: str) -> bytes:
    """The same as UTF-8."""
    return text(found, **kwargs).encode()  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class Result:
    """What reading a whole file gave."""

    dialect: domain.Dialect
    good: pl.DataFrame
    rejects: list[tuple[int, str, str]]
    rows_read: int
    rows_rejected: int
    totals: dict[str, tuple[int, int]]
    slices: list[slices.Slice]


def read(
    found: bytes,
    *,
    kind: domain.Kind = domain.Kind.PORTFOLIO,
    piece: int = 1_000_003,
    business_date: datetime.date = datetime.date(2026, 11, 23),
    creditor_reference: str | None = None,
    agency: uuid.UUID | None = None,
) -> Result:
    """Read a file as the worker does, its bytes coming in pieces of this size. Raises FileRefused."""
    pieces = [found[start : start + piece] for start in range(0, len(found), piece)]
    sniffer = files.Sniffer()
    for one in pieces:
        sniffer.feed(one)
    dialect = reading.dialect(lambda: iter(pieces), kind=kind, encoding=sniffer.encoding)
    rules = layouts.Rules(
        convention=dialect.convention, business_date=business_date, creditor_reference=creditor_reference
    )
    parts = list(
        reading.parts(
            lambda: iter(pieces),
            agency=agency or uuid.UUID(int=1),
            kind=kind,
            dialect=dialect,
            rules=rules,
            partitions=24,
        )
    )
    cut = [one for part in parts for one in part.slices]
    totals: dict[str, tuple[int, int]] = {}
    for part in parts:
        for one in part.totals:
            read_minor, good_minor = totals.get(one.currency, (0, 0))
            totals[one.currency] = (read_minor + one.read_minor, good_minor + one.good_minor)
    return Result(
        dialect=dialect,
        good=slices.unpack([one.arrow for one in cut]).sort("row") if cut else pl.DataFrame(),
        rejects=[(one.row, one.field, one.code) for part in parts for one in part.rejects],
        rows_read=sum(part.rows_read for part in parts),
        rows_rejected=sum(part.rows_rejected for part in parts),
        totals=totals,
        slices=cut,
    )
