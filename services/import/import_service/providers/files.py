"""Files as bytes: what they are (`Sniffer`), and their records (`read_header`, `blocks`). Standard library only.

A record is a line, or several when a quoted cell has line breaks in it. Its number counts from 1, the header being 1;
blank lines count, so that the number is the row a spreadsheet shows. A quote that stays open for `MAX_RECORD_LINES`
lines or `MAX_LINE` bytes, or is followed by text, breaks its line only: reading goes on with the next line.
"""

from __future__ import annotations

import codecs
import csv
import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator

from import_service import domain

BLOCK = 4 * 1024 * 1024
"""Bytes read at a time: ten to twenty thousand records."""
DELIMITERS = (";", ",")
UTF8 = "utf-8"
CP1252 = "cp1252"
BINARY = "binary"
MIXED = "mixed"
UTF16 = "utf-16"

BOM = codecs.BOM_UTF8
_UNDEFINED = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")
_NOT_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_MAGIC = (
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"%PDF",
    b"\x1f\x8b",
    b"\xd0\xcf\x11\xe0",
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"7z\xbc\xaf",
    b"Rar!",
)


class Sniffer:
    """Finds out, while a file passes by, in what encoding it is: `feed` each piece, then `encoding`.

    `encoding` is `utf-8`, `cp1252` (which holds Latin-1's printable characters), or what refuses the file: `binary`,
    `utf-16`, `mixed` (UTF-8 in one place and not in another, or bytes that CP1252 does not know).
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._size = 0
        self._head = b""
        self._utf8 = True
        self._multibyte = False
        self._nul = False
        self._control = 0
        self._undefined = False

    def feed(self, piece: bytes) -> None:
        """The next bytes of the file."""
        if self._size < 16:
            self._head += piece[:16]
        self._size += len(piece)
        self._nul = self._nul or b"\0" in piece
        if not piece.isascii():
            self._undefined = self._undefined or _UNDEFINED.search(piece) is not None
        if self._size <= 16 * BLOCK:
            self._control += len(_NOT_TEXT.findall(piece[:65_536]))
        if self._utf8:
            try:
                text = self._decoder.decode(piece)
                self._multibyte = self._multibyte or not text.isascii()
            except UnicodeDecodeError as error:
                self._utf8 = False
                self._multibyte = self._multibyte or not piece[: error.start].isascii()

    @property
    def encoding(self) -> str:
        """What was found so far; call it after the last piece."""
        if self._head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return UTF16
        if self._nul or self._head.startswith(_MAGIC) or self._control * 200 > min(self._size, 65_536):
            return BINARY
        if self._utf8:
            try:
                self._decoder.decode(b"", True)
                return UTF8
            except UnicodeDecodeError:
                self._utf8 = False
        bom = self._head.startswith(BOM)
        return MIXED if self._undefined or bom or (self._multibyte and not self._utf8) else CP1252


def refuse_encoding(encoding: str) -> None:
    """Raises FileRefused for what `Sniffer.encoding` names and this service does not read."""
    if encoding == BINARY:
        raise domain.FileRefused(
            "BINARY_FILE", "expected a text file (CSV); a spreadsheet must be saved as CSV first"
        )
    if encoding == UTF16:
        raise domain.FileRefused(
            "WRONG_ENCODING", "expected UTF-8 or Latin-1 (Windows-1252); the file is UTF-16"
        )
    if encoding == MIXED:
        raise domain.FileRefused(
            "WRONG_ENCODING",
            "expected UTF-8 or Latin-1 (Windows-1252) throughout; the file is neither as a whole",
        )


@dataclasses.dataclass(slots=True)
class Records:
    """Records of a piece of a file, in order. `raw[i]` is the record without its line end; `special[i]` is there
    where it has quotes: True when it is well formed on one line, the cells where the csv module had to read it, None
    when its quotes are broken. `used`: bytes of the piece that they take.
    """

    raw: list[bytes]
    special: dict[int, bool | list[str] | None]
    used: int


@functools.cache
def _well_formed(delimiter: str) -> re.Pattern[bytes]:
    cell = rb'(?:"(?:[^"]++|"")*+"|[^"D]*+)'.replace(b"D", delimiter.encode())
    return re.compile(cell + b"(?:" + delimiter.encode() + cell + b")*+", re.DOTALL)


_QUOTED = re.compile(rb'"(?:[^"]++|"")*+"', re.DOTALL)


def split(piece: bytes, delimiter: str, *, final: bool) -> Records:
    """Cut a piece that begins at a record and ends at a line end into records; an unfinished last one stays unused.

    `final`: nothing follows. Raises FileRefused LINE_TOO_LONG.
    """
    lines = piece.split(b"\n")
    if not lines[-1]:
        lines.pop()
    if lines and max(map(len, lines)) > domain.MAX_LINE:
        raise too_long()
    if b"\r" in piece:
        lines = [line.removesuffix(b"\r") for line in lines]
    if b'"' not in piece:
        return Records(raw=lines, special={}, used=len(piece))
    pattern = _well_formed(delimiter)
    raw: list[bytes] = []
    special: dict[int, bool | list[str] | None] = {}
    at, end = 0, len(lines)
    while at < end:
        line = lines[at]
        taken = 1
        if b'"' in line:
            if pattern.fullmatch(line):
                special[len(raw)] = True
            else:
                cells, taken, starved = _read_record(lines, at, delimiter)
                if starved and not final:
                    break
                special[len(raw)] = cells
                if taken > 1:
                    line = b"\n".join(lines[at : at + taken])
        raw.append(line)
        at += taken
    used = len(piece) if at == end else _offset(piece, at)
    return Records(raw=raw, special=special, used=used)


def _offset(piece: bytes, line: int) -> int:
    offset = 0
    for _ in range(line):
        offset = piece.index(b"\n", offset) + 1
    return offset


def _read_record(lines: list[bytes], start: int, delimiter: str) -> tuple[list[str] | None, int, bool]:
    """(cells or None, lines taken, whether more lines than there are were asked for). Cells are bytes as Latin-1."""
    asked = 0
    size = 0
    starved = False

    def feed() -> Iterator[str]:
        nonlocal asked, size, starved
        for line in lines[start : start + domain.MAX_RECORD_LINES]:
            size += len(line) + 1
            if size > domain.MAX_LINE:
                return
            asked += 1
            yield line.decode("latin-1") + "\n"
        starved = len(lines) - start < domain.MAX_RECORD_LINES

    try:
        cells = next(csv.reader(feed(), delimiter=delimiter, strict=True))
    except (csv.Error, StopIteration):
        return None, 1, starved
    return cells, asked, False


def cells_in(raw: bytes, delimiter: str) -> int:
    """Cells of a well-formed record of one line."""
    if b'"' in raw:
        raw = _QUOTED.sub(b"", raw)
    return raw.count(delimiter.encode()) + 1


def cells_of(record: bytes, special: bool | list[str] | None, *, delimiter: str, encoding: str) -> list[str]:
    """The cells of one record as text; those of a record with broken quotes are cut at every delimiter."""
    if isinstance(special, list):
        return [cell.encode("latin-1").decode(encoding, "replace") for cell in special]
    text = record.decode(encoding, "replace")
    return next(csv.reader([text], delimiter=delimiter)) if special else text.split(delimiter)


def too_long() -> domain.FileRefused:
    """What refuses a file with a line above the limit."""
    return domain.FileRefused("LINE_TOO_LONG", f"expected lines of at most {domain.MAX_LINE} bytes")


def whole_lines(chunks: Iterable[bytes], *, block: int = BLOCK) -> Iterator[bytes]:
    """Pieces of about `block` bytes that end at a line end (the last one: at the file's end), without the UTF-8 mark.

    Raises FileRefused LINE_TOO_LONG when no line end comes within the limit.
    """
    kept: list[bytes] = []
    size = 0
    tail = 0  # bytes since the last line end
    first = True
    for chunk in chunks:
        if first and chunk:
            chunk = chunk.removeprefix(BOM)
            first = False
        kept.append(chunk)
        size += len(chunk)
        last = chunk.rfind(b"\n")
        tail = len(chunk) - last - 1 if last >= 0 else tail + len(chunk)
        if tail > domain.MAX_LINE:
            raise too_long()
        if size >= block and size > tail:
            joined = b"".join(kept)
            cut = size - tail
            yield joined[:cut]
            kept, size = [joined[cut:]], tail
    if size:
        yield b"".join(kept)


def read_header(chunks: Iterable[bytes], *, kind: domain.Kind, encoding: str) -> domain.Dialect:
    """The dialect that the first line of the file tells. Raises FileRefused: EMPTY_FILE, LINE_TOO_LONG, WRONG_LAYOUT,
    TOO_MANY_COLUMNS. The delimiter is the one that gives more cells.
    """
    head = b""
    for chunk in chunks:
        head += chunk
        if b"\n" in head or len(head) > domain.MAX_LINE:
            break
    line, _, _ = head.removeprefix(BOM).partition(b"\n")
    if not head.strip(b"\xef\xbb\xbf \t\r\n"):
        raise domain.FileRefused("EMPTY_FILE", "expected a header line and rows; the file is empty")
    if len(line) > domain.MAX_LINE:
        raise too_long()
    text = line.removesuffix(b"\r").decode(encoding, "replace")
    rows = []
    for delimiter in DELIMITERS:
        try:
            rows.append(next(csv.reader([text], delimiter=delimiter, strict=True)))
        except (csv.Error, StopIteration):
            rows.append([text])
    best = max(range(len(DELIMITERS)), key=lambda index: len(rows[index]))
    return domain.dialect_of(rows[best], kind=kind, encoding=encoding, delimiter=DELIMITERS[best])


@dataclasses.dataclass(slots=True)
class Block:
    """Records of a file one after the other; the first has number `first_row`. The header is record 1."""

    first_row: int
    records: Records


def blocks(chunks: Iterable[bytes], *, delimiter: str, block: int = BLOCK) -> Iterator[Block]:
    """All records of a file, the header included, in blocks of about `block` bytes. Raises LINE_TOO_LONG."""
    rest = b""
    row = 1
    pending: bytes | None = None
    for piece in whole_lines(chunks, block=block):
        if pending is not None:
            records = split(pending, delimiter, final=False)
            rest = pending[records.used :]
            yield Block(first_row=row, records=records)
            row += len(records.raw)
        pending = rest + piece if rest else piece
        rest = b""
    if pending is not None:
        yield Block(first_row=row, records=split(pending, delimiter, final=True))
