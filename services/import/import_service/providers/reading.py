"""Reading a whole file: from its bytes to rejects, totals and slices, block by block and in bounded memory.

A pure function of the file's bytes and the rules: reading again gives the same parts, so a reader that was killed
starts over.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Iterable, Iterator

from import_service import domain
from import_service.providers import checks, files, layouts, slices, tables

Chunks = Callable[[], Iterable[bytes]]
"""Opens the file again from its beginning."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """What one block of the file gave; numbers are of this block."""

    rows_read: int
    rows_good: int
    rows_rejected: int
    rejects: list[domain.Reject]
    totals: list[domain.Totals]
    slices: list[slices.Slice]


def dialect(chunks: Chunks, *, kind: domain.Kind, encoding: str) -> domain.Dialect:
    """How the file is written: delimiter and columns from its header, the convention of amounts from the first block
    that shows one. `encoding` is what `files.Sniffer` found. Raises FileRefused.
    """
    files.refuse_encoding(encoding)
    found = files.read_header(chunks(), kind=kind, encoding=encoding)
    comma = point = 0
    column = domain.AMOUNT_COLUMN[kind]
    for block in files.blocks(chunks(), delimiter=found.delimiter):
        comma, point = checks.convention(tables.read(block, found, (column,)).frame[column])
        if comma or point:
            break
    return dataclasses.replace(
        found, convention=domain.convention(comma=comma, point=point, delimiter=found.delimiter)
    )


def parts(
    chunks: Chunks,
    *,
    agency: uuid.UUID,
    kind: domain.Kind,
    dialect: domain.Dialect,
    rules: layouts.Rules,
    partitions: int,
) -> Iterator[Part]:
    """Read the file. Raises FileRefused: LINE_TOO_LONG, EMPTY_FILE when it has no row."""
    layout = tuple(column.name for column in domain.LAYOUTS[kind])
    cutter = slices.Cutter(agency=agency, partitions=partitions, kind=kind)
    seen = layouts.Duplicates(layouts.TITLE_KEY)
    rows = 0
    for block in files.blocks(chunks(), delimiter=dialect.delimiter):
        table = tables.read(block, dialect, layout)
        checked = layouts.check(kind, table, rules)
        if kind is domain.Kind.PORTFOLIO:
            checked = layouts.without_duplicates(checked, seen)
        rows += table.rows
        yield Part(
            rows_read=table.rows,
            rows_good=checked.good.height,
            rows_rejected=checked.rejected,
            rejects=checked.rejects,
            totals=checked.totals,
            slices=list(cutter.add(checked.good)),
        )
    if not rows:
        raise domain.FileRefused("EMPTY_FILE", "expected rows after the header; the file has none")
    for rest in cutter.rest():
        yield Part(rows_read=0, rows_good=0, rows_rejected=0, rejects=[], totals=[], slices=[rest])
