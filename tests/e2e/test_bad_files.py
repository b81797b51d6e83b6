"""Files that are wrong, as a creditor's system uploads them: through the gateway, until the batch says why, by name and
row; and nothing stops. The reading itself has its tests in tests/integration/import.
"""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from recupera_local import gateway_client as gc
from support import calls, portfolio, two_agencies, whole

from .conftest import Two

pytestmark = [
    pytest.mark.feature("S2-41"),
    pytest.mark.timeout(900),  # two agencies have their day within whichever test comes first
]

GOOD = portfolio.rows(2)
SETTLED = {"STATE_REJECTED", "STATE_APPLIED", "STATE_APPLIED_WITH_ERRORS", "STATE_AWAITING_APPROVAL"}
_numbers = itertools.count()


@pytest.fixture(scope="module")
def agency(whole: whole.Whole, two: Two) -> Iterator[two_agencies.Agency]:
    """The agency that gets the files; afterwards every process is still the one it was."""
    before = whole.pids()
    yield two.ours
    assert whole.healthy()
    assert whole.pids() == before


def read(
    agency: two_agencies.Agency, folder: Path, content: bytes, kind: str = "PORTFOLIO"
) -> dict[str, Any]:
    """Upload a file and wait until its batch has come to rest."""
    path = folder / f"file {next(_numbers)}.csv"
    path.write_bytes(content)
    name = agency.gateway.upload(path=path, kind=kind)["name"]

    def settled() -> dict[str, Any] | None:
        batch = agency.gateway.get(name)
        return batch if batch["state"] in SETTLED else None

    return gc.wait_for(f"{name} at rest", settled, seconds=60)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(b"", "EMPTY_FILE", id="empty"),
        pytest.param(portfolio.content(GOOD).split(b"\n")[0] + b"\n", "EMPTY_FILE", id="header only"),
        pytest.param(gzip.compress(portfolio.content(GOOD), mtime=0), "BINARY_FILE", id="binary"),
        pytest.param(b"name;amount\nx;1\n", "WRONG_LAYOUT", id="wrong layout"),
        pytest.param(portfolio.text(GOOD).encode("utf-16"), "WRONG_ENCODING", id="wrong encoding"),
        pytest.param(
            portfolio.content(GOOD) + b"LUZ;" + b"x" * 10_000_000 + b"\n", "LINE_TOO_LONG", id="10 MB line"
        ),
    ],
)
def test_a_file_refused_as_a_whole(
    agency: two_agencies.Agency, tmp_path: Path, content: bytes, code: str
) -> None:
    cases = agency.gateway.get("cases:summarize")["cases"]
    batch = read(agency, tmp_path, content)
    assert (batch["state"], batch["refusalCode"]) == ("STATE_REJECTED", code)
    assert batch["refusal"].startswith(("expected", "the header"))
    assert agency.gateway.get("cases:summarize")["cases"] == cases


def test_rows_refused_one_by_one(agency: two_agencies.Agency, gateway: calls.Client, tmp_path: Path) -> None:
    """Each with its row, its column, a code and what was expected; the good row waits for a person's word."""
    bad = {
        "principal": [("-10,00", "AMOUNT_NOT_POSITIVE"), ("1O,00", "AMOUNT_FORMAT")],
        "due_date": [("31/02/2026", "IMPOSSIBLE_DATE"), ("2026-13-05", "IMPOSSIBLE_DATE")],
        "currency": [("XYZ", "UNKNOWN_CURRENCY")],
        "debtor_name": [('=HYPERLINK("http://example.com")', "FORMULA")],
        "debtor_document": [("390.533.447-06", "DOCUMENT_CHECK_DIGIT")],
        "title_reference": [("", "MISSING"), ("BAD-0", "DUPLICATE_IN_FILE")],
    }
    wanted = []
    rows = [{**portfolio.PORTFOLIO, "contract_reference": "BAD", "title_reference": "BAD-0"}]
    for field, values in bad.items():
        for value, code in values:
            rows.append({**rows[0], "title_reference": f"BAD-{len(rows)}", field: value})
            wanted.append((len(rows) + 1, field, code))
    batch = read(agency, tmp_path, portfolio.content(rows))
    assert (batch["state"], batch["refusalCode"]) == ("STATE_AWAITING_APPROVAL", "TOO_MANY_REJECTS")
    found = list(agency.gateway.pages(f"{batch['name']}/rejectedRows", "rejectedRows"))
    assert [(int(row["row"]), row["field"], row["code"]) for row in found] == wanted
    assert all(row["expected"] for row in found)
    # the file of the refused rows, as a person downloads it
    rpc = calls.rpc("ImportService/DownloadRejects")
    answer = gateway.json(rpc, f"/v1/{batch['name']}:downloadRejects", agency.token())
    rejects = answer.body["file"]
    assert len(rejects.splitlines()) == len(wanted) + 1
    assert "IMPOSSIBLE_DATE" in rejects
    assert "'=HYPERLINK" in rejects, "a formula must not come alive in the spreadsheet that opens the file"
    agency.gateway.post(f"{batch['name']}:reject")


def test_a_payment_that_is_wrong(agency: two_agencies.Agency, tmp_path: Path) -> None:
    rows = portfolio.rows(4, {**portfolio.PAYMENT, "account": "bad files"})
    rows[0]["amount"] = "-1,00"
    rows[1]["value_date"] = "2026-11-31"
    rows[2]["currency"] = "REAL"
    rows[3]["means"] = "SHELLS"
    batch = read(agency, tmp_path, portfolio.content(rows), "PAYMENTS")
    found = agency.gateway.get(f"{batch['name']}/rejectedRows")["rejectedRows"]
    assert {(int(row["row"]), row["field"]) for row in found} == {
        (2, "amount"),
        (3, "value_date"),
        (4, "currency"),
        (5, "means"),
    }
    assert batch["state"] == "STATE_AWAITING_APPROVAL"
    agency.gateway.post(f"{batch['name']}:reject")


def test_a_truncated_upload(agency: two_agencies.Agency, tmp_path: Path, whole: whole.Whole) -> None:
    """Fewer bytes than announced, and a connection that breaks off: no batch comes of either."""
    before = {batch["name"] for batch in agency.gateway.pages("batches", "batches")}
    content = portfolio.content([{**GOOD[0], "contract_reference": "TRUNCATED"}])
    path = tmp_path / "truncated.csv"
    path.write_bytes(content)
    with pytest.raises(gc.CallRefused) as refused:
        agency.gateway.upload(path=path, kind="PORTFOLIO", sizeBytes=len(content) + 1)
    assert (refused.value.status, refused.value.reason) == (400, "TRUNCATED_UPLOAD")

    def broken() -> Iterator[bytes]:
        yield content
        raise ConnectionAbortedError

    with pytest.raises((ConnectionAbortedError, httpx.TransportError)), httpx.Client() as client:
        client.post(
            f"{whole.url}/v1/{agency.parent}/batches:upload",
            params={"kind": "BATCH_KIND_PORTFOLIO", "fileName": "broken.csv"},
            content=broken(),
            headers={"content-type": "text/csv", **calls.bearer(agency.token())},
        )
    assert {batch["name"] for batch in agency.gateway.pages("batches", "batches")} == before


def test_a_duplicate_upload(agency: two_agencies.Agency) -> None:
    """The same bytes again, under any name: refused, and the answer names the first batch."""
    again = agency.portfolio.with_name("again.csv")
    again.write_bytes(agency.portfolio.read_bytes())
    with pytest.raises(gc.CallRefused) as refused:
        agency.gateway.upload(path=again, kind="PORTFOLIO")
    assert (refused.value.status, refused.value.reason) == (409, "DUPLICATE_FILE")
    assert refused.value.details[0]["metadata"]["batch"] == agency.batch


def test_an_unknown_kind(agency: two_agencies.Agency) -> None:
    with pytest.raises(gc.CallRefused) as refused:
        agency.gateway.upload(path=agency.portfolio, kind="UNSPECIFIED")
    assert (refused.value.status, refused.value.reason) == (400, "INVALID_REQUEST")
