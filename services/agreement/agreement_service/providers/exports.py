"""Tables as files that people open: CSV and XLSX, row by row in bounded memory, as Portuguese readers expect them.

A cell is text, a whole number, a date, `Minor` (cents) or `Percent`. Text is never taken for a formula, a link or a
number: in CSV a text that a spreadsheet would run gets an apostrophe in front, in XLSX cells are strings by type.
"""

import csv as csv_module
import dataclasses
import datetime
import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import xlsxwriter
from babel import dates as babel_dates
from babel import numbers as babel_numbers

from servicekit import money

PIECE = 1 << 20
"""Bytes of a piece at most."""
SHEET_ROWS = 1_000_000
"""Rows of a sheet at most (a spreadsheet has 1 048 576 in all); more go on in a next one."""
_ROWS = 2_000
_RUNS = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")


@dataclasses.dataclass(frozen=True, slots=True)
class Minor:
    """An amount in minor units."""

    minor: int


@dataclasses.dataclass(frozen=True, slots=True)
class Percent:
    """Percent times 10 000."""

    rate_e4: int


Cell = str | int | datetime.date | Minor | Percent | None
Row = Sequence[Cell]


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """A heading, and how many characters wide the column is in a spreadsheet."""

    heading: str
    width: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A table: headings, then rows; in a spreadsheet `total` stands below them, where it is given."""

    name: str
    columns: Sequence[Column]
    rows: Iterable[Row]
    total: Row | None = None


def csv(sheet: Sheet) -> Iterator[bytes]:
    """Semicolons, comma as decimal sign, dates as dd/mm/yyyy, UTF-8 with a byte order mark, CRLF; without a total."""
    buffer = io.StringIO()
    writer = csv_module.writer(buffer, delimiter=";", lineterminator="\r\n")
    buffer.write("\N{BYTE ORDER MARK}")
    writer.writerow([column.heading for column in sheet.columns])
    for number, row in enumerate(sheet.rows, 1):
        writer.writerow([_plain(cell) for cell in row])
        if number % _ROWS == 0:
            yield from _pieces(buffer.getvalue().encode())
            buffer.seek(0)
            buffer.truncate()
    yield from _pieces(buffer.getvalue().encode())


def xlsx(sheets: Sequence[Sheet], *, title: str, created: datetime.datetime) -> Iterator[bytes]:
    """A workbook, each sheet with frozen headings; made in a temporary file, whatever its size."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "book.xlsx"
        _write(path, folder, sheets, title=title, created=created)
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                yield piece


def amount(minor: int, currency: str) -> str:
    """As people write it: R$ 1.234,56 in reais, 1 234,56 € in euros."""
    return babel_numbers.format_currency(money.from_minor(minor), currency, locale=locale(currency))


def number(minor: int, currency: str) -> str:
    """An amount without its currency's sign."""
    return babel_numbers.format_decimal(money.from_minor(minor), format="#,##0.00", locale=locale(currency))


def percent(rate_e4: int, currency: str) -> str:
    """Percent with two to four decimals."""
    value = Decimal(rate_e4) / 10_000
    return babel_numbers.format_decimal(value, format="#,##0.00##", locale=locale(currency)) + "%"


def date(value: datetime.date) -> str:
    """dd/mm/yyyy, as both countries write it."""
    return babel_dates.format_date(value, format="dd/MM/yyyy", locale="pt_BR")


def locale(currency: str) -> str:
    """The Portuguese of a currency's country."""
    return "pt_PT" if currency == "EUR" else "pt_BR"


def _plain(cell: Cell) -> str:
    match cell:
        case None:
            return ""
        case Minor(minor):
            return f"{money.from_minor(minor)}".replace(".", ",")
        case Percent(rate_e4):
            return f"{(Decimal(rate_e4) / 10_000).normalize():f}".replace(".", ",")
        case datetime.date():
            return f"{cell:%d/%m/%Y}"
        case int():
            return str(cell)
        case str():
            return f"'{cell}" if cell.startswith(_RUNS) else cell


def _pieces(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]


def _write(
    path: Path,
    folder: str,
    sheets: Sequence[Sheet],
    *,
    title: str,
    created: datetime.datetime,
) -> None:
    book = xlsxwriter.Workbook(
        str(path),
        {
            "constant_memory": True,
            "tmpdir": folder,
            "strings_to_formulas": False,
            "strings_to_urls": False,
            "strings_to_numbers": False,
        },
    )
    book.set_properties({"title": title, "created": created.replace(tzinfo=None)})
    base = {"font_name": "Calibri", "font_size": 10, "valign": "vcenter"}
    head = book.add_format(
        {**base, "bold": True, "bg_color": "#1F3A5F", "font_color": "#FFFFFF", "text_wrap": True}
    )
    whole = book.add_format({**base, "num_format": "0"})
    text = book.add_format({**base, "num_format": "@"})
    day = book.add_format({**base, "num_format": "dd/mm/yyyy", "align": "left"})
    cents = book.add_format({**base, "num_format": "#,##0.00;[Red]-#,##0.00"})
    rate = book.add_format({**base, "num_format": "0.00##%"})
    strong = {"bold": True, "top": 1}
    last = book.add_format({**base, **strong})
    last_cents = book.add_format({**base, **strong, "num_format": "#,##0.00;[Red]-#,##0.00"})

    def begin(sheet: Sheet, number: int) -> Any:
        page = book.add_worksheet(sheet.name if number == 1 else f"{sheet.name} {number}")
        page.hide_gridlines(2)
        page.set_landscape()
        page.set_paper(9)
        page.fit_to_pages(1, 0)
        page.repeat_rows(0)
        page.freeze_panes(1, 0)
        page.set_row(0, 30)
        for place, column in enumerate(sheet.columns):
            page.set_column(place, place, column.width)
            page.write_string(0, place, column.heading, head)
        return page

    for sheet in sheets:
        page, at, number = begin(sheet, 1), 0, 1
        for row in sheet.rows:
            if at == SHEET_ROWS:
                at, number = 0, number + 1
                page = begin(sheet, number)
            at += 1
            for place, cell in enumerate(row):
                match cell:
                    case None:
                        pass
                    case Minor(minor):
                        page.write_number(at, place, money.from_minor(minor), cents)
                    case Percent(rate_e4):
                        page.write_number(at, place, Decimal(rate_e4) / 1_000_000, rate)
                    case datetime.date():
                        page.write_datetime(at, place, cell, day)
                    case int():
                        page.write_number(at, place, cell, whole)
                    case str():
                        page.write_string(at, place, cell, text)
        if sheet.total is not None:
            for place, cell in enumerate(sheet.total):
                if isinstance(cell, Minor):
                    page.write_number(at + 1, place, money.from_minor(cell.minor), last_cents)
                else:
                    page.write_string(at + 1, place, cell if isinstance(cell, str) else "", last)
    book.close()
