"""Tables as files: nothing that a spreadsheet would run, numbers and dates as Portuguese readers write them."""

import csv
import datetime
import io

import hypothesis
import openpyxl
import pytest
from hypothesis import strategies as st

from agreement_service.providers import exports

COLUMNS = [exports.Column("Texto", 10), exports.Column("Valor", 10)]
NOON = datetime.datetime(2026, 11, 20, 12, tzinfo=datetime.UTC)


def sheet(*rows, total=None):
    return exports.Sheet(name="Folha", columns=COLUMNS, rows=rows, total=total)


def read(data):
    return list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), delimiter=";"))


@hypothesis.given(st.lists(st.tuples(st.text(), st.integers(-(10**12), 10**12)), max_size=20))
def test_no_text_of_a_csv_is_a_formula_and_nothing_is_lost(rows):
    data = b"".join(exports.csv(sheet(*((text, exports.Minor(minor)) for text, minor in rows))))
    head, *found = read(data)
    assert head == ["Texto", "Valor"]
    assert len(found) == len(rows)
    for (text, minor), (cell, amount) in zip(rows, found, strict=True):
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "|", "%"))
        assert cell in (text, f"'{text}")
        assert int(amount.replace(",", "")) == minor
        assert amount[-3] == ","


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, ""),
        (exports.Minor(-5), "-0,05"),
        (exports.Minor(123_456_789), "1234567,89"),
        (exports.Percent(123_300), "12,33"),
        (exports.Percent(100_000), "10"),
        (exports.Percent(1), "0,0001"),
        (datetime.date(2026, 1, 2), "02/01/2026"),
        (7, "7"),
        ("Título; com ponto e vírgula", "Título; com ponto e vírgula"),
    ],
)
def test_cells_of_a_csv(cell, text):
    assert read(b"".join(exports.csv(sheet((cell, None)))))[1] == [text, ""]


def test_a_workbook_keeps_types():
    data = b"".join(
        exports.xlsx(
            [
                sheet(
                    ("=1+1", exports.Minor(-1_234_567)),
                    ("http://example.com", exports.Percent(123_300)),
                    ("007", datetime.date(2026, 11, 20)),
                    (None, 7),
                    total=("Total", exports.Minor(99)),
                )
            ],
            title="Prestação de contas",
            created=NOON,
        )
    )
    book = openpyxl.load_workbook(io.BytesIO(data))
    (page,) = book.worksheets
    found = [[cell.value for cell in row] for row in page.iter_rows()]
    assert found == [
        ["Texto", "Valor"],
        ["=1+1", -12345.67],
        ["http://example.com", 0.1233],
        ["007", NOON.replace(hour=0, tzinfo=None)],
        [None, 7],
        ["Total", 0.99],
    ]
    assert page["A2"].data_type == "s"
    assert page["A3"].hyperlink is None
    assert page["B4"].number_format == "dd/mm/yyyy"
    assert book.properties.title == "Prestação de contas"
    assert book.properties.created == NOON.replace(tzinfo=None)


def test_amounts_as_people_write_them():
    def plain(text):
        return text.replace("\u00a0", " ")

    assert plain(exports.amount(123_456_789, "BRL")) == "R$ 1.234.567,89"
    assert plain(exports.amount(123_456_789, "EUR")) == "1 234 567,89 €"
    assert plain(exports.amount(-50, "BRL")) == "-R$ 0,50"
    assert plain(exports.number(1_234_567, "EUR")) == "12 345,67"
    assert exports.percent(123_300, "BRL") == "12,33%"
    assert exports.percent(81_250, "EUR") == "8,125%"
    assert exports.date(datetime.date(2026, 1, 2)) == "02/01/2026"


def test_rows_go_on_in_the_next_sheet(monkeypatch):
    monkeypatch.setattr(exports, "SHEET_ROWS", 2)
    rows = [(str(number), number) for number in range(5)]
    data = b"".join(exports.xlsx([sheet(*rows, total=("Total", ""))], title="x", created=NOON))
    book = openpyxl.load_workbook(io.BytesIO(data))
    assert book.sheetnames == ["Folha", "Folha 2", "Folha 3"]
    found = [[cell.value for cell in row] for page in book.worksheets for row in page.iter_rows(min_row=2)]
    assert found == [[str(number), number] for number in range(5)] + [["Total", ""]]
