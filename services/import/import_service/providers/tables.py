"""Blocks of records as Polars tables: one text column per column of the layout, trimmed, empty cells null."""

from __future__ import annotations

import dataclasses
import re

import polars as pl

from import_service import domain
from import_service.providers import files

_APOSTROPHE = re.compile(rb"'[=+\-@]")
_CONTROL = bytes([*range(9), 11, 12, *range(14, 32), 127])
CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of a block. `frame`: `row` and the layout's columns as text; `rejects`: records that have no cells;
    `rows`: all records that are not blank; `control`: some cell may hold a control character.
    """

    frame: pl.DataFrame
    rejects: list[domain.Reject]
    rows: int
    last_row: int
    control: bool


def read(block: files.Block, dialect: domain.Dialect, layout: tuple[str, ...]) -> Table:
    """The table of a block, without the header (record 1) and blank records.

    Rejects: BROKEN_QUOTES, COLUMN_COUNT.
    """
    delimiter = dialect.delimiter.encode()
    blank = delimiter + b" \t\r"
    rejects: list[domain.Reject] = []
    rows: list[int] = []
    lines: list[bytes] = []
    odd: list[tuple[int, list[str]]] = []
    special = block.records.special
    read_rows = 0
    wanted = dialect.cells - 1
    quoted = False
    for number, raw in enumerate(block.records.raw, block.first_row):
        if number == 1 or not raw.strip(blank):
            continue
        read_rows += 1
        if special and (kind := special.get(number - block.first_row, False)) is not False:
            if kind is None:
                rejects.append(_broken(number))
            elif kind is True:
                if files.cells_in(raw, dialect.delimiter) == dialect.cells:
                    quoted = True
                    rows.append(number)
                    lines.append(raw)
                else:
                    rejects.append(_count(number, dialect))
            elif len(kind) == dialect.cells:
                odd.append(
                    (
                        number,
                        files.cells_of(raw, kind, delimiter=dialect.delimiter, encoding=dialect.encoding),
                    )
                )
            else:
                rejects.append(_count(number, dialect))
        elif raw.count(delimiter) == wanted:
            rows.append(number)
            lines.append(raw)
        else:
            rejects.append(_count(number, dialect))
    text = b"\n".join(lines)
    frame = _table(text, dialect, quoted=quoted).with_columns(row=pl.Series("row", rows, dtype=pl.Int64))
    if odd:
        frame = pl.concat([frame, _odd_table(odd, dialect)]).sort("row")
    return Table(
        frame=_clean(
            frame, layout, apostrophes=bool(odd) or (b"'" in text and _APOSTROPHE.search(text) is not None)
        ),
        rejects=rejects,
        rows=read_rows,
        last_row=block.first_row + len(block.records.raw) - 1,
        control=bool(odd) or len(text.translate(None, _CONTROL)) != len(text),
    )


def _names(dialect: domain.Dialect) -> list[str]:
    return [name or f"unnamed {index}" for index, name in enumerate(dialect.columns)]


def _table(text: bytes, dialect: domain.Dialect, *, quoted: bool) -> pl.DataFrame:
    names = _names(dialect)
    if not text:
        return pl.DataFrame(schema=dict.fromkeys(names, pl.String))
    if dialect.encoding != files.UTF8:
        text = text.decode(dialect.encoding).encode()
    return pl.read_csv(
        text + b"\n",
        separator=dialect.delimiter,
        has_header=False,
        quote_char='"' if quoted else None,
        schema=dict.fromkeys(names, pl.String),
    )


def _odd_table(odd: list[tuple[int, list[str]]], dialect: domain.Dialect) -> pl.DataFrame:
    names = _names(dialect)
    cells = list(zip(*(cells for _, cells in odd), strict=True))
    return pl.DataFrame(
        {
            **{
                name: pl.Series(name, [" ".join(cell.splitlines()) for cell in column], dtype=pl.String)
                for name, column in zip(names, cells, strict=True)
            },
            "row": pl.Series("row", [number for number, _ in odd], dtype=pl.Int64),
        }
    )


def _clean(frame: pl.DataFrame, layout: tuple[str, ...], *, apostrophes: bool) -> pl.DataFrame:
    """`row` and the layout's columns: trimmed, empty as null, absent ones null; an apostrophe that keeps a spreadsheet
    from taking the cell for a formula is dropped."""
    columns: list[pl.Expr] = []
    for name in layout:
        if name not in frame.columns:
            columns.append(pl.lit(None, dtype=pl.String).alias(name))
            continue
        cell = pl.col(name).str.strip_chars()
        if apostrophes:
            cell = cell.str.replace(r"^'([=+\-@])", "$1")
        columns.append(pl.when(cell != "").then(cell).alias(name))
    return frame.select("row", *columns)


def _broken(row: int) -> domain.Reject:
    return domain.Reject(
        row=row,
        field="",
        code="BROKEN_QUOTES",
        expected='a cell that begins with " ends with ", and " inside it is ""',
    )


def _count(row: int, dialect: domain.Dialect) -> domain.Reject:
    return domain.Reject(
        row=row, field="", code="COLUMN_COUNT", expected=f"{dialect.cells} cells, as the header has"
    )
