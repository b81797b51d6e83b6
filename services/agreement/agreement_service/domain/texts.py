"""Amounts, dates and documents as Portuguese readers write them, for papers."""

import datetime

from stdnum.br import cnpj, cpf

from servicekit import money

_SWAP = str.maketrans(",.", ".,")


def amount(minor: int, currency: str) -> str:
    """R$ 1.234,56 or 1.234,56 €; the sign in front."""
    number = f"{abs(money.from_minor(minor)):,.2f}".translate(_SWAP)
    sign = "-" if minor < 0 else ""
    return (
        f"{sign}R$\N{NO-BREAK SPACE}{number}" if currency == "BRL" else f"{sign}{number}\N{NO-BREAK SPACE}€"
    )


def date(value: datetime.date) -> str:
    """22/11/2026."""
    return f"{value:%d/%m/%Y}"


def document(value: str, kind: str = "") -> str:
    """A document with what it is: CPF 390.533.447-05, CNPJ 12.ABC.345/01DE-35, NIF 501964843. Without a kind, 14
    characters are a CNPJ and 9 digits a NIF; empty where there is none."""
    if not value:
        return ""
    kind = kind or {14: "CNPJ", 11: "CPF", 9: "NIF"}.get(len(value), "")
    formatted = {"CPF": cpf.format, "CNPJ": cnpj.format}.get(kind, str)(value)
    return f"{kind} {formatted}".strip()
