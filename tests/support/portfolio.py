"""Small import files for tests: good rows, and variations of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

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


def text(found: Sequence[Mapping[str, str]], *, delimiter: str = ";", columns: Sequence[str] | None = None) -> str:
    """CSV text of rows, quoted where needed."""
    names = list(columns or dict.fromkeys(name for row in found for name in row))
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, names, restval="", delimiter=delimiter, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(found)
    return out.getvalue()


def content(found: Sequence[Mapping[str, str]], **kwargs: str) -> bytes:
    """The same as UTF-8."""
    return text(found, **kwargs).encode()  # type: ignore[arg-type]
