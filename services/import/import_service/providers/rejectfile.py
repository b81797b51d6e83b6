"""The reject file: refused rows as they were uploaded, with row number, fields, codes and what was expected appended.

Written from the uploaded file, block by block; a row with several reasons is one row, its reasons joined by " | ".
Cells that a spreadsheet would take for formulas get an apostrophe (docs/layouts/portfolio-v1.md, "Reject file").
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Sequence

from import_service import domain
from import_service.providers import files

_JOIN = " | "


def write(
    chunks: Iterable[bytes],
    *,
    encoding: str,
    delimiter: str,
    columns: Sequence[str],
    rejects: Iterable[domain.Reject],
) -> Iterator[bytes]:
    """The file in pieces, in the encoding of the upload. `rejects` in row order; `columns` as the header had them."""
    keep = [index for index, name in enumerate(columns) if name not in domain.REJECT_COLUMNS]
    out = _Out(encoding, delimiter)
    out.row([*(columns[index] for index in keep), *domain.REJECT_COLUMNS])
    waiting = itertools.groupby(rejects, key=lambda reject: reject.row)
    row, reasons = next(waiting, (0, iter(())))
    if row:
        for block in files.blocks(chunks, delimiter=delimiter):
            records = block.records
            last = block.first_row + len(records.raw) - 1
            while row and row <= last:
                index = row - block.first_row
                cells = files.cells_of(
                    records.raw[index],
                    records.special.get(index, False),
                    delimiter=delimiter,
                    encoding=encoding,
                )
                given = list(reasons)
                out.row(
                    [
                        *_fitted(cells, columns, keep, delimiter),
                        str(row),
                        *(
                            _JOIN.join(getattr(one, name) for one in given)
                            for name in ("field", "code", "expected")
                        ),
                    ]
                )
                row, reasons = next(waiting, (0, iter(())))
            if piece := out.take():
                yield piece
            if not row:
                break
    if piece := out.take():
        yield piece


def _fitted(cells: Sequence[str], columns: Sequence[str], keep: Sequence[int], delimiter: str) -> list[str]:
    """As many cells as the header has: missing ones empty, the ones too many joined in the last."""
    width = len(columns)
    if len(cells) > width:
        cells = [*cells[: width - 1], delimiter.join(cells[width - 1 :])]
    padded = [*cells, *[""] * (width - len(cells))]
    return [domain.formula_safe(padded[index]) for index in keep]


class _Out:
    """CSV text collected as bytes."""

    def __init__(self, encoding: str, delimiter: str) -> None:
        self._encoding = encoding
        self._text = io.StringIO(newline="")
        self._writer = csv.writer(self._text, delimiter=delimiter or ";")
        self._first = encoding == files.UTF8

    def row(self, cells: Sequence[str]) -> None:
        self._writer.writerow(cells)

    def take(self) -> bytes:
        """What was written since; a UTF-8 file begins with its mark, so that spreadsheets read its accents."""
        text = self._text.getvalue()
        self._text.seek(0)
        self._text.truncate()
        if not text:
            return b""
        mark = files.BOM if self._first else b""
        self._first = False
        return mark + text.encode(self._encoding, "replace")
