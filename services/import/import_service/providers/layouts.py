"""Layouts portfolio-v1 and payments-v1: a table of text in, good rows as typed columns and reasons of refusal out.

Codes and rules are documented in docs/layouts/. The columns of the good rows are those of PortfolioRow and PaymentRow
(recupera/imports/v1/imports.proto), in that order: text as String, amounts and rates as Int64, dates as Date.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Sequence

import polars as pl

from import_service import domain
from import_service.providers import checks, tables

PORTFOLIO_SLICE = (
    "row", "creditor_reference", "creditor_name", "creditor_document", "creditor_address",
    "contract_reference", "product", "debtor_reference", "debtor_document_type", "debtor_document",
    "debtor_name", "birth_date", "country", "region", "city", "postal_code", "address", "phone_1",
    "phone_2", "email", "guarantor_document_type", "guarantor_document", "guarantor_name",
    "guarantor_phone", "guarantor_email", "title_reference", "title_type", "issue_date", "due_date",
    "principal_minor", "currency", "penalty_rate_e4", "monthly_interest_rate_e4",
)  # fmt: skip
PAYMENTS_SLICE = (
    "row", "creditor_reference", "account", "means", "bank_reference", "value_date", "amount_minor", "currency", "txid",
    "our_number", "title_reference", "contract_reference", "payer_document",
)  # fmt: skip

_AMOUNT_FORMS = {
    domain.Convention.COMMA: "an amount as 1.234,50, as the other amounts of the file",
    domain.Convention.POINT: "an amount as 1,234.50, as the other amounts of the file",
    domain.Convention.UNKNOWN: "an amount with at most two decimals",
}
_DATE = "a date as 2026-11-23 or 23/11/2026 that is in the calendar"
_PHONE = (
    "a telephone number in use in its country, with area code; +country code where it is another country's"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """What a batch's rows are checked against. `business_date`: of the upload. `creditor_reference`: of the creditor
    that the uploader is bound to, if any."""

    convention: domain.Convention
    business_date: datetime.date
    creditor_reference: str | None


@dataclasses.dataclass(frozen=True)
class Checked:
    """`good`: the slice columns; `rejects`: every reason of every other row, in row order; `rejected`: number of those
    rows; `totals` one a currency."""

    good: pl.DataFrame
    rejects: list[domain.Reject]
    rejected: int
    totals: list[domain.Totals]


@dataclasses.dataclass(frozen=True)
class _Check:
    """Rows where `bad` is true are refused; null counts as false."""

    field: str
    code: str
    expected: str
    bad: pl.Expr


def check(kind: domain.Kind, table: tables.Table, rules: Rules) -> Checked:
    """Check the rows of one block. Duplicates are found by `Duplicates`, which sees the whole file."""
    parsed, found = (_portfolio if kind is domain.Kind.PORTFOLIO else _payments)(table.frame, rules)
    common = list(_common(domain.LAYOUTS[kind], table))
    masks = pl.concat([_masks(table.frame, common, 0), _masks(parsed, found, len(common))], how="horizontal")
    found = [*common, *found]
    bad = masks.select(pl.any_horizontal(pl.all())).to_series()
    rejects = list(table.rejects)
    rows = parsed["row"]
    for name, any_bad in zip(masks.columns, masks.select(pl.all().any()).row(0), strict=True):
        if any_bad:
            one = found[int(name)]
            rejects += [
                domain.Reject(row=row, field=one.field, code=one.code, expected=one.expected)
                for row in rows.filter(masks[name])
            ]
    rejects.sort(key=lambda reject: reject.row)
    amount = "principal_minor" if kind is domain.Kind.PORTFOLIO else "amount_minor"
    read = parsed.select(
        pl.when(pl.col("currency").is_in(domain.CURRENCIES)).then("currency").alias("currency"),
        pl.col(amount).alias("amount"),
        good=~bad,
    ).filter(pl.col("currency").is_not_null() & pl.col("amount").is_not_null())
    sums = read.group_by("currency").agg(
        read=pl.col("amount").sum(), good=pl.col("amount").filter(pl.col("good")).sum()
    )
    columns = PORTFOLIO_SLICE if kind is domain.Kind.PORTFOLIO else PAYMENTS_SLICE
    return Checked(
        good=parsed.filter(~bad).select(columns),
        rejects=rejects,
        rejected=len(table.rejects) + int(bad.sum()),
        totals=[
            domain.Totals(currency=currency, read_minor=total, good_minor=good)
            for currency, total, good in sums.sort("currency").iter_rows()
        ],
    )


def _masks(frame: pl.DataFrame, found: Sequence[_Check], first: int) -> pl.DataFrame:
    return frame.select(
        check.bad.fill_null(value=False).alias(str(index)) for index, check in enumerate(found, first)
    )


_NOT_TEXT = frozenset({"phone_1", "phone_2", "guarantor_phone", "principal", "amount"})
"""Cells that may begin with a sign: their own checks tell."""


def _common(layout: Sequence[domain.Column], table: tables.Table) -> Iterable[_Check]:
    frame = table.frame
    for column in layout:
        cell = pl.col(column.name)
        nulls = frame[column.name].null_count()
        if column.required and nulls:
            yield _Check(column.name, "MISSING", "a value", cell.is_null())
        if nulls == frame.height:
            continue
        yield (
            _Check(
                column.name,
                "TOO_LONG",
                f"at most {column.length} characters",
                cell.str.len_bytes() > column.length,
            )
            if column.length < 20
            else _Check(
                column.name,
                "TOO_LONG",
                f"at most {column.length} characters",
                cell.str.len_chars() > column.length,
            )
        )
        if column.name not in _NOT_TEXT:
            yield _Check(
                column.name,
                "FORMULA",
                "text that does not begin with = + - or @",
                cell.str.head(1).is_in(["=", "+", "-", "@"]),
            )
        if table.control:
            yield _Check(
                column.name,
                "CONTROL_CHARACTER",
                "text without control characters",
                cell.str.contains(tables.CONTROL),
            )


def _given(frame: pl.DataFrame, name: str) -> bool:
    return frame[name].null_count() < frame.height


def _one_of(name: str, code: str, values: Sequence[str]) -> _Check:
    return _Check(
        name, code, "one of " + ", ".join(values), pl.col(name).is_not_null() & ~pl.col(name).is_in(values)
    )


def _documents(frame: pl.DataFrame, prefix: str, kinds: Sequence[str]) -> tuple[pl.DataFrame, list[_Check]]:
    """Reads `<prefix>_document`, whose type is stated in `<prefix>_document_type`, if the layout has it, or told by its
    length."""
    name, type_name = f"{prefix}_document", f"{prefix}_document_type"
    stated = type_name in frame.columns
    if not stated:
        frame = frame.with_columns(pl.lit(None, dtype=pl.String).alias(type_name))
    frame = frame.with_columns(checks.document(pl.col(name)).alias(name))
    frame = frame.with_columns(checks.document_type(pl.col(name), pl.col(type_name)).alias(type_name))
    if not _given(frame, name):
        return frame, []
    shape = checks.document_shape(pl.col(name), pl.col(type_name))
    frame = frame.with_columns(checks.check_digits(frame[name], frame[type_name]).alias(f"{name} holds"))
    forms = {
        "CPF": "CPF of 11 digits",
        "CNPJ": "CNPJ of 12 digits or capitals and 2 digits",
        "NIF": "NIF of 9 digits",
    }
    known = pl.col(type_name).is_in(kinds)
    wrong = pl.col(type_name).is_null() | (known & ~shape)
    found = [
        _Check(
            name,
            "DOCUMENT_FORMAT",
            " or ".join(forms[kind] for kind in kinds),
            pl.col(name).is_not_null() & (wrong if stated else wrong | ~known),
        ),
        _Check(
            name,
            "DOCUMENT_CHECK_DIGIT",
            "check digits that follow from the other characters",
            shape & known & ~pl.col(f"{name} holds"),
        ),
    ]
    if stated:
        found.append(_one_of(type_name, "UNKNOWN_DOCUMENT_TYPE", kinds))
    return frame, found


def _amount(frame: pl.DataFrame, name: str, rules: Rules) -> list[_Check]:
    minor = pl.col(f"{name}_minor")
    wrong = pl.col(name).is_not_null() & minor.is_null()
    found = [
        _Check(name, "AMOUNT_NOT_POSITIVE", "an amount above zero", minor <= 0),
        _Check(
            name, "AMOUNT_TOO_LARGE", "an amount below one billion millions", minor > domain.MAX_AMOUNT_MINOR
        ),
    ]
    if rules.convention is domain.Convention.UNKNOWN:
        ambiguous = pl.col(name).str.contains(checks.AMBIGUOUS)
        return [
            *found,
            _Check(
                name, "AMOUNT_AMBIGUOUS",
                "two decimals: no amount of the file shows whether . or , separates them", wrong & ambiguous,
            ),
            _Check(name, "AMOUNT_FORMAT", _AMOUNT_FORMS[rules.convention], wrong & ~ambiguous),
        ]  # fmt: skip
    return [*found, _Check(name, "AMOUNT_FORMAT", _AMOUNT_FORMS[rules.convention], wrong)]


def _date(name: str) -> _Check:
    return _Check(
        name, "IMPOSSIBLE_DATE", _DATE, pl.col(f"{name} text").is_not_null() & pl.col(name).is_null()
    )


def _mismatch(rules: Rules) -> list[_Check]:
    if rules.creditor_reference is None:
        return []
    return [
        _Check(
            "creditor_reference", "CREDITOR_MISMATCH", "the reference of the creditor that sends the file",
            pl.col("creditor_reference") != rules.creditor_reference,
        )
    ]  # fmt: skip


def _portfolio(frame: pl.DataFrame, rules: Rules) -> tuple[pl.DataFrame, list[_Check]]:
    found: list[_Check] = []
    frame, more = _documents(frame, "debtor", domain.DOCUMENT_TYPES)
    found += more
    frame, more = _documents(frame, "guarantor", domain.DOCUMENT_TYPES)
    found += more
    frame, more = _documents(frame, "creditor", ("CNPJ", "NIF"))
    found += more
    frame = frame.with_columns(
        country=pl.coalesce(
            pl.col("country").str.to_uppercase(),
            pl.when(pl.col("debtor_document_type") == "NIF").then(pl.lit("PT")).otherwise(pl.lit("BR")),
        ),
        currency=pl.col("currency").str.to_uppercase(),
        title_type=pl.col("title_type").str.to_uppercase().fill_null("OTHER"),
        principal_minor=checks.amount(pl.col("principal"), rules.convention),
        penalty_rate_e4=checks.rate(pl.col("penalty_rate")),
        monthly_interest_rate_e4=checks.rate(pl.col("monthly_interest_rate")),
        **{f"{name} text": pl.col(name) for name in ("birth_date", "issue_date", "due_date")},
        **{name: checks.date(pl.col(name)) for name in ("birth_date", "issue_date", "due_date")},
        email=pl.col("email").str.to_lowercase(),
        guarantor_email=pl.col("guarantor_email").str.to_lowercase(),
    )
    brazil = pl.col("country") == "BR"
    frame = frame.with_columns(
        region=pl.when(brazil).then(pl.col("region").str.to_uppercase()).otherwise("region")
    )
    for name in ("phone_1", "phone_2", "guarantor_phone"):
        if _given(frame, name):
            frame = frame.with_columns(
                pl.col(name).alias(f"{name} text"), checks.phones(frame[name], frame["country"]).alias(name)
            )
            found.append(
                _Check(
                    name,
                    "PHONE_INVALID",
                    _PHONE,
                    pl.col(f"{name} text").is_not_null() & pl.col(name).is_null(),
                )
            )
    for name in ("email", "guarantor_email"):
        if _given(frame, name):
            found.append(
                _Check(
                    name,
                    "EMAIL_FORMAT",
                    "an e-mail address",
                    pl.col(name).is_not_null() & ~pl.col(name).str.contains(checks.EMAIL),
                )
            )
    for name in ("penalty_rate", "monthly_interest_rate"):
        value = pl.col(f"{name}_e4")
        found += [
            _Check(
                name,
                "RATE_FORMAT",
                "percent with at most four decimals, e.g. 2 or 1,0333",
                pl.col(name).is_not_null() & value.is_null(),
            ),
            _Check(name, "RATE_TOO_HIGH", "at most 100 percent", value > 1_000_000),
        ]
    found.append(
        _Check(
            "penalty_rate",
            "PENALTY_ABOVE_CAP",
            "at most 2 percent for a natural person in BRL (CDC art. 52 §1)",
            (pl.col("debtor_document_type") == "CPF")
            & (pl.col("currency") == "BRL")
            & pl.col("penalty_rate_e4").is_between(domain.CONSUMER_PENALTY_E4 + 1, 1_000_000),
        )
    )
    guarantor = pl.any_horizontal(
        pl.col("guarantor_document", "guarantor_name", "guarantor_phone", "guarantor_email").is_not_null()
    )
    due, issued = pl.col("due_date"), pl.col("issue_date")
    found += [
        _one_of("country", "UNKNOWN_COUNTRY", ("BR", "PT")),
        _Check(
            "region",
            "UNKNOWN_REGION",
            "the two letters of a Brazilian state",
            brazil & pl.col("region").is_not_null() & ~pl.col("region").is_in(domain.UFS),
        ),
        _Check(
            "postal_code",
            "POSTAL_CODE_FORMAT",
            "00000-000 in Brazil, 0000-000 in Portugal",
            pl.col("postal_code").is_not_null()
            & ~pl.when(brazil)
            .then(pl.col("postal_code").str.contains(r"^[0-9]{5}-?[0-9]{3}$"))
            .otherwise(pl.col("postal_code").str.contains(r"^[0-9]{4}-[0-9]{3}$")),
        ),
        _one_of("currency", "UNKNOWN_CURRENCY", domain.CURRENCIES),
        _one_of("title_type", "UNKNOWN_TITLE_TYPE", domain.TITLE_TYPES),
        *_amount(frame, "principal", rules),
        _date("birth_date"),
        _date("issue_date"),
        _date("due_date"),
        _Check(
            "birth_date",
            "DATE_OUT_OF_RANGE",
            "a date of birth from 1890 to the day of the upload",
            ~checks.between(pl.col("birth_date"), domain.EARLIEST_BIRTH, rules.business_date),
        ),
        _Check(
            "due_date",
            "DATE_OUT_OF_RANGE",
            "a due date from 1980 to 2099",
            ~checks.between(due, domain.EARLIEST_DUE, domain.LATEST_DUE),
        ),
        _Check("issue_date", "DATE_OUT_OF_RANGE", "a date of issue not after the due date", issued > due),
        *(
            _Check(
                name, "MISSING", "a value, as the row names a guarantor", guarantor & pl.col(name).is_null()
            )
            for name in ("guarantor_document", "guarantor_name")
        ),
        *_mismatch(rules),
    ]
    return frame, found


def _payments(frame: pl.DataFrame, rules: Rules) -> tuple[pl.DataFrame, list[_Check]]:
    frame, found = _documents(frame, "payer", domain.DOCUMENT_TYPES)
    frame = frame.with_columns(
        pl.col("means").str.to_uppercase(),
        pl.col("currency").str.to_uppercase(),
        pl.col("value_date").alias("value_date text"),
        checks.date(pl.col("value_date")).alias("value_date"),
        checks.amount(pl.col("amount"), rules.convention).alias("amount_minor"),
    )
    found += [
        _one_of("means", "UNKNOWN_MEANS", domain.PAYMENT_MEANS),
        _one_of("currency", "UNKNOWN_CURRENCY", domain.CURRENCIES),
        *_amount(frame, "amount", rules),
        _date("value_date"),
        _Check(
            "value_date",
            "DATE_OUT_OF_RANGE",
            "a date of value from 1980 to the day of the upload",
            ~checks.between(pl.col("value_date"), domain.EARLIEST_DUE, rules.business_date),
        ),
        _Check(
            "txid",
            "TXID_FORMAT",
            "letters and digits",
            pl.col("txid").is_not_null() & ~pl.col("txid").str.contains(r"^[A-Za-z0-9]{1,35}$"),
        ),
        *_mismatch(rules),
    ]
    return frame, found


class Duplicates:
    """Titles seen so far in a file, as 64-bit hashes of their references: 8 bytes a title.

    Hashes are kept in sorted runs that are merged when they are of like size, so that looking up costs
    O(log n) runs whatever the file's length. Two of ten million different titles share a hash with a probability
    of about 3 in a million; the second would be refused, visibly.
    """

    def __init__(self, key: Sequence[str]) -> None:
        self._key = tuple(key)
        self._runs: list[pl.Series] = []

    def fresh(self, frame: pl.DataFrame) -> pl.Series:
        """For each row whether its key was not seen before, neither earlier in the file nor above it in `frame`."""
        hashed = frame.select(
            h=pl.concat_str(pl.col(self._key).fill_null(""), separator="\x1f").hash(seed=20_261_122)
        )
        fresh = hashed.select(pl.col("h").is_first_distinct()).to_series()
        hashes = hashed["h"]
        for run in self._runs:
            place = run.search_sorted(hashes, side="left")
            inside = place < len(run)
            found = run.gather(place.clip(0, len(run) - 1)) == hashes
            fresh = fresh & ~(inside & found)
        new = hashes.filter(fresh).sort()
        if len(new):
            self._runs.append(new)
        while len(self._runs) > 1 and len(self._runs[-1]) * 2 >= len(self._runs[-2]):
            last = self._runs.pop()
            self._runs[-1] = pl.concat([self._runs[-1], last]).sort()
        return fresh


TITLE_KEY = ("creditor_reference", "contract_reference", "title_reference")
"""What a title is known by within an agency."""


def without_duplicates(checked: Checked, seen: Duplicates) -> Checked:
    """Refuse good rows whose title came before in the file: DUPLICATE_IN_FILE. Bad rows do not count as seen."""
    if checked.good.is_empty():
        return checked
    fresh = seen.fresh(checked.good)
    if fresh.all():
        return checked
    again = checked.good.filter(~fresh)
    rejects = sorted(
        [
            *checked.rejects,
            *(
                domain.Reject(
                    row=row, field="title_reference", code="DUPLICATE_IN_FILE",
                    expected="a title of a creditor and contract once in a file",
                )
                for row in again["row"]
            ),
        ],
        key=lambda reject: reject.row,
    )  # fmt: skip
    less = dict(again.group_by("currency").agg(pl.col("principal_minor").sum()).iter_rows())
    return Checked(
        good=checked.good.filter(fresh),
        rejects=rejects,
        rejected=checked.rejected + again.height,
        totals=[
            dataclasses.replace(total, good_minor=total.good_minor - less.get(total.currency, 0))
            for total in checked.totals
        ],
    )
