"""Vectorised checks of identity documents, amounts, dates, telephone numbers (Polars expressions over text columns)."""

from __future__ import annotations

import datetime
from functools import reduce

import phonenumbers
import polars as pl

from import_service import domain

_TWO = "(?:[14689][1-9]|2[12478]|3[1-578]|5[13-5]|7[13-579])"
BR_PHONE = rf"^(?:\+55|0055|55)?0?({_TWO}(?:9[6-9][0-9]{{7}}|[2-5][0-9]{{7}}))$"
"""Brazilian numbers that need no library: area code in use, mobile 9[6-9], fixed [2-5] (ITU E.164; Anatel plan)."""
_PT_FIXED = "2(?:[12][0-9]|3[1-689]|4[1-59]|[57][1-9]|6[1-35689]|8[1-69]|9[1256])[0-9]{6}"
PT_PHONE = rf"^(?:\+351|00351|351)?(9[1236][0-9]{{7}}|{_PT_FIXED})$"
"""Portuguese numbers that need no library: mobile 91, 92, 93, 96 and fixed 2x."""
EMAIL = r"^[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}$"


def document(cell: pl.Expr) -> pl.Expr:
    """Digits and capitals only: punctuation of CPF, CNPJ and NIF dropped."""
    return cell.str.replace_all(r"[./\s-]", "").str.to_uppercase()


def document_type(document: pl.Expr, stated: pl.Expr) -> pl.Expr:
    """The stated type, else the one that the length tells: 11 CPF, 14 CNPJ, 9 NIF; else null."""
    length = document.str.len_bytes()
    told = (
        pl.when(length == 11)
        .then(pl.lit("CPF"))
        .when(length == 14)
        .then(pl.lit("CNPJ"))
        .when(length == 9)
        .then(pl.lit("NIF"))
    )
    return pl.coalesce(stated.str.to_uppercase(), told)


_SHAPES = {"CPF": r"^[0-9]{11}$", "CNPJ": r"^[0-9A-Z]{12}[0-9]{2}$", "NIF": r"^[1-9][0-9]{8}$"}


def document_shape(document: pl.Expr, kind: pl.Expr) -> pl.Expr:
    """Whether the document has the characters of its type. Null document: null."""
    shape = pl.lit(False)
    for name, pattern in _SHAPES.items():
        shape = pl.when(kind == name).then(document.str.contains(pattern)).otherwise(shape)
    return pl.when(document.is_not_null()).then(shape)


def characters(document: pl.Expr) -> pl.Expr:
    """The last 16 characters as an array of code - 48 (standards.md 4.5), from texts of at most 16 ASCII characters."""
    return (
        document.str.zfill(16).cast(pl.Binary).bin.reinterpret(dtype=pl.Array(pl.UInt8, 16), endianness="big")
    )


def _weighted(name: str, last: int, weights: list[int]) -> pl.Expr:
    """Sum of characters times weights; the last weight belongs to the character at index `last` of 16."""
    first = last - len(weights) + 1
    terms = [
        (pl.col(name).arr.get(first + index).cast(pl.Int32) - 48) * weight
        for index, weight in enumerate(weights)
    ]
    return reduce(lambda total, term: total + term, terms)


_CPF = list(range(11, 1, -1))
_CNPJ = [6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2]


def _digit(name: str, index: int) -> pl.Expr:
    return pl.col(name).arr.get(index).cast(pl.Int32) - 48


def check_digits(documents: pl.Series, kinds: pl.Series) -> pl.Series:
    """Whether the check digits hold (standards.md 4.5); false where the shape is wrong, null without a document.

    CPF of one repeated digit and CNPJ of zeros are refused: Receita Federal never issues them.
    """
    frame = pl.DataFrame({"document": documents, "kind": kinds}).with_columns(
        shape=document_shape(pl.col("document"), pl.col("kind"))
    )
    frame = frame.with_columns(characters(pl.when("shape").then("document")).alias("c"))

    def mod11(total: pl.Expr) -> pl.Expr:
        return (11 - total % 11) % 11 % 10

    cpf = (mod11(_weighted("c", 13, _CPF[1:])) == _digit("c", 14)) & (
        mod11(_weighted("c", 14, _CPF)) == _digit("c", 15)
    )
    cnpj = (mod11(_weighted("c", 13, _CNPJ[1:])) == _digit("c", 14)) & (
        mod11(_weighted("c", 14, _CNPJ)) == _digit("c", 15)
    )
    nif = mod11(_weighted("c", 14, list(range(9, 1, -1)))) == _digit("c", 15)
    repeated = pl.col("document").is_in([str(digit) * 11 for digit in range(10)])
    zeros = pl.col("document") == "0" * 14
    holds = (
        pl.when(pl.col("kind") == "CPF")
        .then(cpf & ~repeated)
        .when(pl.col("kind") == "CNPJ")
        .then(cnpj & ~zeros)
        .when(pl.col("kind") == "NIF")
        .then(nif)
    )
    return frame.select(
        pl.when(pl.col("document").is_null())
        .then(None)
        .otherwise(pl.col("shape") & holds.fill_null(value=False))
        .alias("ok")
    )["ok"]


_UNSIGNED = {
    domain.Convention.COMMA: r"^(?:[0-9]{1,15}|[0-9]{1,3}(?:\.[0-9]{3}){1,4})(?:,[0-9]{1,2})?$",
    domain.Convention.POINT: r"^(?:[0-9]{1,15}|[0-9]{1,3}(?:,[0-9]{3}){1,4})(?:\.[0-9]{1,2})?$",
    domain.Convention.UNKNOWN: r"^[0-9]{1,15}$",
}
_SHOWS_COMMA = r"^[+-]?(?:[0-9]+|[0-9]{1,3}(?:\.[0-9]{3})+),[0-9]{1,2}$|^[+-]?[0-9]{1,3}(?:\.[0-9]{3}){2,}$"
_SHOWS_POINT = r"^[+-]?(?:[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)\.[0-9]{1,2}$|^[+-]?[0-9]{1,3}(?:,[0-9]{3}){2,}$"
AMBIGUOUS = r"^[+-]?[0-9]{1,3}[.,][0-9]{3}$"


def convention(amounts: pl.Series) -> tuple[int, int]:
    """How many of these amounts can only be read with a decimal comma, and how many only with a decimal point."""
    counts = amounts.to_frame("a").select(
        comma=pl.col("a").str.contains(_SHOWS_COMMA).sum(), point=pl.col("a").str.contains(_SHOWS_POINT).sum()
    )
    return int(counts["comma"][0] or 0), int(counts["point"][0] or 0)


def amount(cell: pl.Expr, written: domain.Convention) -> pl.Expr:
    """Minor units, negative for a minus sign; null where the text is not an amount of this convention."""
    comma, point = (",", ".") if written is domain.Convention.COMMA else (".", ",")
    bare = cell.str.replace(r"^[+-]", "")
    fine = pl.when(bare.str.contains(_UNSIGNED[written])).then(bare)
    plain = fine.str.replace_all(point, "", literal=True)
    whole = plain.str.extract(r"^([0-9]+)").cast(pl.Int64, strict=False)
    cents = (
        plain.str.extract(rf"[{comma}]([0-9]{{1,2}})$")
        .str.pad_end(2, "0")
        .cast(pl.Int64, strict=False)
        .fill_null(0)
    )
    minor = whole * 100 + cents
    return pl.when(cell.str.starts_with("-")).then(-minor).otherwise(minor)


def rate(cell: pl.Expr) -> pl.Expr:
    """Percent times 10,000 from "2", "2,5" or "1.0333"; null where it is not at most three digits and four decimals."""
    fine = pl.when(cell.str.contains(r"^[0-9]{1,3}(?:[.,][0-9]{1,4})?$")).then(cell)
    whole = fine.str.extract(r"^([0-9]+)").cast(pl.Int64, strict=False)
    decimals = (
        fine.str.extract(r"[.,]([0-9]+)$").str.pad_end(4, "0").cast(pl.Int64, strict=False).fill_null(0)
    )
    return whole * 10_000 + decimals


def date(cell: pl.Expr) -> pl.Expr:
    """The date of YYYY-MM-DD or DD/MM/YYYY; null where it is neither, or no such day."""
    iso = pl.when(cell.str.contains(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")).then(cell)
    local = pl.when(cell.str.contains(r"^[0-9]{2}/[0-9]{2}/[0-9]{4}$")).then(cell)
    return pl.coalesce(iso.str.to_date("%Y-%m-%d", strict=False), local.str.to_date("%d/%m/%Y", strict=False))


def between(value: pl.Expr, first: datetime.date, last: datetime.date) -> pl.Expr:
    """first <= value <= last."""
    return (value >= pl.lit(first)) & (value <= pl.lit(last))


def phones(cells: pl.Series, countries: pl.Series) -> pl.Series:
    """E.164 of telephone numbers; null where there is none or it is no possible number of a plan in force.

    `countries` (BR, PT) says how a number without country code is meant. Plain Brazilian and Portuguese numbers are
    read by pattern, the rest one by one by phonenumbers.
    """
    frame = pl.DataFrame({"cell": cells, "country": countries}).with_columns(
        bare=pl.col("cell").str.replace_all(r"[\s().-]", "")
    )
    brazil = pl.lit("+55") + pl.col("bare").str.extract(BR_PHONE)
    portugal = pl.lit("+351") + pl.col("bare").str.extract(PT_PHONE)
    abroad = pl.col("bare").str.starts_with("+")
    frame = frame.with_columns(
        plain=pl.when(abroad)
        .then(
            pl.when(pl.col("bare").str.starts_with("+55"))
            .then(brazil)
            .when(pl.col("bare").str.starts_with("+351"))
            .then(portugal)
        )
        .when(pl.col("country") == "PT")
        .then(portugal)
        .otherwise(brazil)
    )
    odd = (
        frame.filter(pl.col("cell").is_not_null() & pl.col("plain").is_null())
        .select("cell", "country")
        .unique()
    )
    if odd.is_empty():
        return frame["plain"]
    read = odd.with_columns(
        odd=pl.Series(
            "odd", [_odd_phone(cell, country or "BR") for cell, country in odd.iter_rows()], dtype=pl.String
        )
    )
    joined = frame.join(read, on=["cell", "country"], how="left", nulls_equal=True, maintain_order="left")
    return joined.select(pl.coalesce("plain", "odd").alias("phone"))["phone"]


def _odd_phone(cell: str, country: str) -> str | None:
    try:
        number = phonenumbers.parse(cell, country)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number) or number.extension:
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
