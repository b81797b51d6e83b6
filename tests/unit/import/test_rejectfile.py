"""The reject file: what was uploaded, why it was refused, safe to open, fit to be sent again."""

from __future__ import annotations

import csv
import io

import pytest

from import_service import domain
from import_service.providers import rejectfile
from support import portfolio

pytestmark = pytest.mark.feature("S2-41")


def written(content: bytes, result: portfolio.Result) -> bytes:
    return b"".join(
        rejectfile.write(
            iter([content]),
            encoding=result.dialect.encoding,
            delimiter=result.dialect.delimiter,
            columns=result.dialect.columns,
            rejects=[
                domain.Reject(row=row, field=field, code=code, expected=f"expected {code}")
                for row, field, code in result.rejects
            ],
        )
    )


def parsed(content: bytes, encoding: str = "utf-8-sig", delimiter: str = ";") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode(encoding), newline=""), delimiter=delimiter))


def test_rows_come_back_as_they_were_sent_with_reasons() -> None:
    rows = portfolio.rows(4)
    rows[1] |= {"due_date": "31/02/2026", "principal": "-5,00"}
    rows[2] |= {"debtor_name": '=cmd|"/C calc"!A0', "phone_1": "+55 11 98765-4321"}
    content = portfolio.content(rows)
    found = parsed(written(content, portfolio.read(content)))
    assert [row["reject_row"] for row in found] == ["3", "4"]
    assert (
        found[0]["reject_field"] == "due_date | principal"
        or found[0]["reject_field"] == "principal | due_date"
    )
    assert {"IMPOSSIBLE_DATE", "AMOUNT_NOT_POSITIVE"} == set(found[0]["reject_code"].split(" | "))
    assert found[0]["principal"] == "-5,00"
    assert found[1]["debtor_name"] == '\'=cmd|"/C calc"!A0'
    assert found[1]["phone_1"] == "+55 11 98765-4321"


def test_a_corrected_reject_file_is_taken() -> None:
    rows = portfolio.rows(3)
    rows[1]["due_date"] = "31/02/2026"
    content = portfolio.content(rows)
    rejects = written(content, portfolio.read(content))
    corrected = rejects.replace(b"31/02/2026", b"28/02/2026")
    again = portfolio.read(corrected)
    assert again.rejects == []
    assert again.good["title_reference"].to_list() == ["T-1-1"]
    # and once more refused, the columns of the first refusal are not there twice
    twice = written(rejects, portfolio.read(rejects))
    header = twice.decode("utf-8-sig").splitlines()[0].split(";")
    assert len(header) == len(set(header))


def test_the_encoding_and_delimiter_of_the_upload_are_kept() -> None:
    rows = portfolio.rows(2)
    rows[1] |= {"title_reference": "", "address": "Rua, 1"}
    content = portfolio.text(rows, delimiter=",").encode("cp1252")
    result = portfolio.read(content)
    (only,) = parsed(written(content, result), "cp1252", ",")
    assert (only["debtor_name"], only["address"]) == ("Conceição Araújo", "Rua, 1")


def test_rows_that_could_not_be_cut_into_cells() -> None:
    lines = portfolio.content(portfolio.rows(3)).splitlines()
    lines[1] += b";too;many"
    lines[2] = b'LUZ;"open'
    content = b"\n".join(lines)
    found = parsed(written(content, portfolio.read(content)))
    assert [row["reject_code"] for row in found] == ["COLUMN_COUNT", "BROKEN_QUOTES"]
    assert found[0]["currency"] == "BRL;too;many"
    assert found[1]["creditor_name"] == '"open'
