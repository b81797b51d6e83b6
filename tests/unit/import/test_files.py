"""Files as bytes: encodings, headers, records, quotes, limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from import_service import domain
from import_service.providers import files
from support import portfolio

pytestmark = pytest.mark.feature("S2-41")
HEADER = ";".join(column.name for column in domain.PORTFOLIO_COLUMNS)


def sniff(content: bytes, piece: int = 7) -> str:
    sniffer = files.Sniffer()
    for start in range(0, len(content), piece):
        sniffer.feed(content[start : start + piece])
    return sniffer.encoding


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (b"abc", files.UTF8),
        ("ação".encode(), files.UTF8),
        ("ação".encode("utf-8-sig"), files.UTF8),
        ("ação".encode("latin-1"), files.CP1252),
        ("10 € “aspas”".encode("cp1252"), files.CP1252),
        ("ação".encode("utf-16"), files.UTF16),
        (b"PK\x03\x04 spreadsheet", files.BINARY),
        (b"%PDF-1.7 ...", files.BINARY),
        (b"a;b\0c", files.BINARY),
        (b"\x01\x02\x03\x04abc", files.BINARY),
        ("ação".encode() + b"\n" + "ação".encode("latin-1"), files.MIXED),
        (b"a\xe7\x81o", files.MIXED),
        ("ação".encode()[:-1] + b"\xc3", files.MIXED),
    ],
)
@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_encodings(content: bytes, encoding: str, piece: int) -> None:
    assert sniff(content, piece) == encoding


def refused(content: bytes) -> str:
    with pytest.raises(domain.FileRefused) as caught:
        portfolio.read(content)
    return caught.value.code


def test_a_file_that_is_none() -> None:
    assert refused(b"") == "EMPTY_FILE"
    assert refused(b"\n \n") == "EMPTY_FILE"
    assert refused(HEADER.encode()) == "EMPTY_FILE"
    assert refused(HEADER.encode() + b"\n\n;;;\n") == "EMPTY_FILE"
    assert refused(b"PK\x03\x04" + b"\0" * 100) == "BINARY_FILE"
    assert refused(HEADER.encode("utf-16")) == "WRONG_ENCODING"
    assert refused(HEADER.encode() + "\nç".encode() + b"\n\xe7\n") == "WRONG_ENCODING"
    assert refused(b"name;amount\na;1\n") == "WRONG_LAYOUT"
    assert refused(b";".join([b"x"] * 201)) == "TOO_MANY_COLUMNS"


@pytest.mark.parametrize("at", ["header", "row", "quoted"])
def test_a_line_of_ten_megabytes(at: str) -> None:
    long = b"x" * 10 * 1024 * 1024
    row = portfolio.content([portfolio.PORTFOLIO])
    content = {
        "header": long,
        "row": row + long + b"\n" + row.splitlines()[1],
        "quoted": row + b'"' + long + b'"\n',
    }[at]
    assert refused(content) == "LINE_TOO_LONG"


def test_what_is_wrong_with_a_header_is_named() -> None:
    with pytest.raises(domain.FileRefused) as caught:
        domain.dialect_of(
            ["creditor_reference", "Creditor_Name ", "e-mail", "currency", "currency"],
            kind=domain.Kind.PORTFOLIO,
            encoding="utf-8",
            delimiter=";",
        )
    assert (
        "missing columns: contract_reference, debtor_document, debtor_name, title_reference"
        in caught.value.sentence
    )
    assert "at position 3" in caught.value.sentence
    assert "named twice: currency" in caught.value.sentence
    assert "e-mail" not in caught.value.sentence


def cells(content: bytes, delimiter: str = ";", block: int = 64) -> list[list[str] | None]:
    found: list[list[str] | None] = []
    pieces = [content[start : start + 5] for start in range(0, len(content), 5)]
    for one in files.blocks(pieces, delimiter=delimiter, block=block):
        assert one.first_row == len(found) + 1
        for index, raw in enumerate(one.records.raw):
            special = one.records.special.get(index, False)
            found.append(
                None
                if special is None
                else files.cells_of(raw, special, delimiter=delimiter, encoding="utf-8")
            )
    return found


def test_quotes() -> None:
    assert cells(b'a;"b;c";"d ""e"""\n') == [["a", "b;c", 'd "e"']]
    assert cells(b'a;"b\nc";d\ne;f;g\n') == [["a", "b\nc", "d"], ["e", "f", "g"]]
    assert cells(b'bar "do Ze";b\n') == [['bar "do Ze"', "b"]]
    assert cells(b'"a"b;c\nd;e\n') == [None, ["d", "e"]]
    assert cells(b'"a;b\nc;d\ne;f') == [None, ["c", "d"], ["e", "f"]]
    assert cells(b'x;"never closed\n' + b"c;d\n" * 200) == [None] + [["c", "d"]] * 200
    assert cells(b"a;b\r\nc;d\r\n") == [["a", "b"], ["c", "d"]]
    assert cells(b"a;b\n\nc;d") == [["a", "b"], [""], ["c", "d"]]


@given(
    st.lists(
        st.lists(st.text(st.sampled_from('ab;", \néç'), max_size=8), min_size=2, max_size=4),
        min_size=1,
        max_size=30,
    ),
    st.sampled_from(["\n", "\r\n"]),
    st.integers(10, 200),
)
def test_what_the_csv_module_writes_is_read_back(rows: list[list[str]], line_end: str, block: int) -> None:
    import csv
    import io

    out = io.StringIO(newline="")
    csv.writer(out, delimiter=";", lineterminator=line_end).writerows(rows)
    assert cells(out.getvalue().encode(), block=block) == rows


@given(st.binary(max_size=400), st.integers(20, 100))
def test_any_bytes_are_cut_into_records_without_loss(content: bytes, block: int) -> None:
    content = content.replace(b"\r", b"").removeprefix(b"\xef\xbb\xbf")
    pieces = [content[start : start + 11] for start in range(0, len(content), 11)]
    raw = [record for one in files.blocks(pieces, delimiter=";", block=block) for record in one.records.raw]
    assert b"\n".join(raw) == content.removesuffix(b"\n")
