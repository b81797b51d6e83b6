"""A file's whole way: upload, reading, slices, applied facts, rejects, taking back."""

from __future__ import annotations

import hashlib
import io

import polars as pl
import pytest
from google.protobuf import json_format

from import_service.providers import layouts, slices
from recupera.imports.v1 import imports_pb2, imports_service_pb2
from support import portfolio

from .conftest import AGENCY, Site

pytestmark = pytest.mark.feature("S2-41")


def test_a_portfolio_goes_the_whole_way(site: Site) -> None:
    rows = portfolio.rows(30)
    rows[3]["debtor_document"] = "390.533.447-04"
    rows[4]["due_date"] = "31/02/2026"
    content = portfolio.content(rows)
    batch = site.upload(content, expected_rows=30, request_id="r-1", size_bytes=len(content))
    assert batch.state == imports_pb2.Batch.STATE_RECEIVED
    assert batch.sha256 == hashlib.sha256(content).hexdigest()
    site.worker.read_files()
    batch = site.get(batch.name)
    assert (batch.rows_read, batch.rows_good, batch.rows_rejected) == (30, 28, 2)
    # 2 of 30 are more than 5 %
    assert batch.state == imports_pb2.Batch.STATE_AWAITING_APPROVAL
    assert batch.refusal_code == "TOO_MANY_REJECTS"
    assert not site.ready_slices()
    site.call(
        site.stub.ApproveBatch, imports_service_pb2.ApproveBatchRequest(name=batch.name, etag=batch.etag)
    )
    ready = site.ready_slices()
    assert sum(one.rows for _, one in ready) == 28
    partition = slices.partition_of(AGENCY, "39053344705", 24)
    assert {place for place, _ in ready} == {partition}
    frame = pl.read_ipc_stream(io.BytesIO(site.slice(batch.name, 0)))
    assert tuple(frame.columns) == layouts.PORTFOLIO_SLICE
    assert frame["principal_minor"].to_list() == [123450] * 28
    assert frame["row"].to_list() == [2, 3, 4, *range(7, 32)]

    site.applied(
        batch.name, 0, applied=26, unchanged=1, rejects=[(9, "principal", "TITLE_CHANGED_AFTER_PLACEMENT")]
    )
    batch = site.get(batch.name)
    assert batch.state == imports_pb2.Batch.STATE_APPLIED_WITH_ERRORS
    assert (batch.rows_applied, batch.rows_unchanged, batch.rows_rejected) == (26, 1, 3)
    assert [json_format.MessageToDict(one) for one in batch.good_totals] == [
        {"currencyCode": "BRL", "units": "34566"}
    ]
    assert [json_format.MessageToDict(one) for one in batch.applied_totals] == [
        {"currencyCode": "BRL", "units": "33331", "nanos": 500000000}
    ]
    assert {one.code: one.rows for one in batch.rejects_by_code} == {
        "DOCUMENT_CHECK_DIGIT": 1,
        "IMPOSSIBLE_DATE": 1,
        "TITLE_CHANGED_AFTER_PLACEMENT": 1,
    }
    assert site.rejects(batch.name) == [
        (5, "debtor_document", "DOCUMENT_CHECK_DIGIT"),
        (6, "due_date", "IMPOSSIBLE_DATE"),
        (9, "principal", "TITLE_CHANGED_AFTER_PLACEMENT"),
    ]
    assert site.states() == [
        "RECEIVED", "PARSED", "VALIDATED", "AWAITING_APPROVAL", "APPLYING", "APPLIED_WITH_ERRORS",
    ]  # fmt: skip
    lines = site.download(batch.name).decode("utf-8-sig").splitlines()
    assert lines[0].endswith(";reject_row;reject_field;reject_code;reject_expected")
    assert len(lines) == 4
    assert "390.533.447-04" in lines[1]
    assert ";5;debtor_document;DOCUMENT_CHECK_DIGIT;" in lines[1]


def test_payments_go_the_same_way(site: Site) -> None:
    batch = site.read(
        portfolio.content(portfolio.rows(5, portfolio.PAYMENT)), kind=imports_pb2.BATCH_KIND_PAYMENTS
    )
    assert batch.state == imports_pb2.Batch.STATE_APPLYING
    frame = pl.read_ipc_stream(io.BytesIO(site.slice(batch.name, 0)))
    assert tuple(frame.columns) == layouts.PAYMENTS_SLICE
    batch = site.apply_all(batch.name, payments=True)
    assert batch.state == imports_pb2.Batch.STATE_APPLIED
    assert batch.rows_applied == 5
