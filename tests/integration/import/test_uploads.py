"""Uploads: what is refused, what is kept, who sees it; over a real gRPC server."""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import psycopg
import pytest
import sqlalchemy as sa
from google.api import httpbody_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from import_service import usecases
from recupera.imports.v1 import imports_pb2, imports_service_pb2
from servicekit import db
from support import portfolio, waiting

from .conftest import AGENCY, OTHER, Site

pytestmark = pytest.mark.feature("S2-03", "S2-41")


class Refused:
    """What a call was refused with."""

    def __init__(self, error: grpc.RpcError) -> None:
        self.code = error.code()  # type: ignore[attr-defined]
        info = error_details_pb2.ErrorInfo()
        for detail in rpc_status.from_call(error).details:  # type: ignore[arg-type, union-attr]
            detail.Unpack(info)
        self.reason = info.reason
        self.metadata = dict(info.metadata)


def refused(run: Callable[[], Any]) -> Refused:
    with pytest.raises(grpc.RpcError) as caught:
        run()
    return Refused(caught.value)


def stored(site: Site) -> tuple[int, int]:
    """(batches, blobs with content)."""
    with db.begin(site.engine, agency=AGENCY) as tx:
        batches = tx.execute(sa.text("SELECT count(*) FROM batches")).scalar_one()
        blobs = tx.execute(sa.text("SELECT count(DISTINCT blob_id) FROM blob_chunks")).scalar_one()
        return batches, blobs


def test_the_same_file_twice_is_one_batch(site: Site) -> None:
    content = portfolio.content(portfolio.rows(3))
    first = site.upload(content)
    again = refused(lambda: site.upload(content))
    assert (again.code, again.reason) == (grpc.StatusCode.ALREADY_EXISTS, "DUPLICATE_FILE")
    assert again.metadata["batch"] == first.name
    assert stored(site) == (1, 1)
    # another agency may have the same file, and another kind is another file
    site.upload(content, agency=OTHER)
    site.upload(content, kind=imports_pb2.BATCH_KIND_PAYMENTS)
    # what was refused may come again
    site.worker.read_files()
    empty = site.read(b"\n")
    assert (empty.state, empty.refusal_code) == (imports_pb2.Batch.STATE_REJECTED, "EMPTY_FILE")
    assert site.upload(b"\n").name != empty.name


def test_a_file_whose_commit_is_in_doubt_is_kept(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch was committed and the answer to COMMIT was lost, as at a failover."""
    content = portfolio.content(portfolio.rows(3))
    receive = usecases.receive

    def in_doubt(tx: db.Transaction, *arguments: Any, **options: Any) -> Any:
        view = receive(tx, *arguments, **options)
        commit = tx._commit

        def lost(transaction: Any) -> None:
            commit(transaction)
            raise psycopg.OperationalError("the answer was lost")

        tx._commit = lost  # type: ignore[method-assign]  # an answer that is lost
        return view

    with monkeypatch.context() as patched:
        patched.setattr(usecases, "receive", in_doubt)
        assert refused(lambda: site.upload(content, request_id="r")).code == grpc.StatusCode.UNAVAILABLE
    assert stored(site) == (1, 1)
    batch = site.upload(content, request_id="r")
    assert stored(site) == (1, 1)
    site.worker.read_files()
    assert site.get(batch.name).rows_good == 3


def test_a_request_id_gives_the_same_answer(site: Site) -> None:
    content = portfolio.content(portfolio.rows(3))
    first = site.upload(content, request_id="r")
    assert site.upload(content, request_id="r") == first
    assert refused(lambda: site.upload(content + b"\n", request_id="r")).reason == "REQUEST_ID_REUSED"
    assert (
        refused(lambda: site.upload(content, request_id="r", expected_rows=9)).reason == "REQUEST_ID_REUSED"
    )
    assert stored(site) == (1, 1)


def test_what_is_announced_must_come(site: Site) -> None:
    content = portfolio.content(portfolio.rows(3))
    for size in (len(content) + 1, len(content) - 1):
        found = refused(lambda size=size: site.upload(content, size_bytes=size))  # type: ignore[misc]
        assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "TRUNCATED_UPLOAD")
    assert refused(lambda: site.upload(content, sha256="0" * 64)).reason == "TRUNCATED_UPLOAD"
    assert stored(site) == (0, 0)
    assert site.upload(
        content, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
    ).size_bytes == len(content)


def test_a_file_above_the_limit(make_site: Callable[..., Site]) -> None:
    site = make_site(max_file_bytes=2_500_000)
    for header in ({}, {"size_bytes": 3_000_000}):
        found = refused(lambda header=header: site.upload(b"x" * 3_000_000, **header))  # type: ignore[misc]
        assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "FILE_TOO_LARGE")
        assert found.metadata["limit_bytes"] == "2500000"
    assert stored(site) == (0, 0)
    assert site.upload(b"x" * 2_500_000).size_bytes == 2_500_000


def test_an_upload_that_is_broken_off_leaves_nothing(site: Site) -> None:
    begun = threading.Event()

    def requests() -> Iterator[imports_service_pb2.UploadBatchRequest]:
        yield imports_service_pb2.UploadBatchRequest(
            header=imports_service_pb2.UploadHeader(
                parent=f"agencies/{AGENCY}", kind=imports_pb2.BATCH_KIND_PORTFOLIO
            )
        )
        for _ in range(3):
            yield imports_service_pb2.UploadBatchRequest(content=b"x" * 1024 * 1024)
        begun.set()
        threading.Event().wait(20)

    call = site.stub.UploadBatch.future(requests(), timeout=30, metadata=site.token())
    assert begun.wait(10)
    waiting.until(lambda: stored(site)[1] == 1, what="the first chunks are stored")
    call.cancel()
    waiting.until(lambda: stored(site) == (0, 0), what="the chunks are gone")
    assert site.upload(portfolio.content(portfolio.rows(1)))


@pytest.mark.parametrize(
    ("header", "field"),
    [
        ({"kind": 0}, "kind"),
        ({"kind": 9}, "kind"),
        ({"expected_total": "1,5"}, "expected_total"),
        ({"expected_rows": -1}, "expected_rows"),
        ({"size_bytes": -1}, "size_bytes"),
        ({"sha256": "xyz"}, "sha256"),
    ],
)
def test_headers_that_are_wrong(site: Site, header: dict[str, Any], field: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        site.upload(b"x", **header)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
    bad = error_details_pb2.BadRequest()
    assert any(
        detail.Unpack(bad) and bad.field_violations[0].field == field
        for detail in rpc_status.from_call(caught.value).details  # type: ignore[arg-type, union-attr]
    )


def test_streams_that_do_not_begin_with_a_header(site: Site) -> None:
    def send(*requests: imports_service_pb2.UploadBatchRequest) -> Any:
        return site.stub.UploadBatch(iter(requests), timeout=10, metadata=site.token())

    header = imports_service_pb2.UploadBatchRequest(
        header=imports_service_pb2.UploadHeader(
            parent=f"agencies/{AGENCY}", kind=imports_pb2.BATCH_KIND_PORTFOLIO
        )
    )
    content = imports_service_pb2.UploadBatchRequest(content=b"x")
    for requests in ((), (content,), (header, header)):
        assert refused(lambda requests=requests: send(*requests)).reason == "INVALID_REQUEST"  # type: ignore[misc]
    oversized = imports_service_pb2.UploadBatchRequest(content=b"x" * (9 * 1024 * 1024))
    assert refused(lambda: send(header, oversized)).reason == "MESSAGE_TOO_LARGE"
    assert stored(site) == (0, 0)


def test_a_body_in_pieces(site: Site) -> None:
    """As Envoy sends a POST: the first message has the query parameters and the first bytes."""
    content = portfolio.content(portfolio.rows(50))

    def requests() -> Iterator[imports_service_pb2.UploadBatchBodyRequest]:
        yield imports_service_pb2.UploadBatchBodyRequest(
            parent=f"agencies/{AGENCY}",
            kind=imports_pb2.BATCH_KIND_PORTFOLIO,
            file_name="carteira.csv",
            body=httpbody_pb2.HttpBody(content_type="text/csv", data=content[:100]),
        )
        for start in range(100, len(content), 1000):
            yield imports_service_pb2.UploadBatchBodyRequest(
                body=httpbody_pb2.HttpBody(data=content[start : start + 1000])
            )

    batch = site.stub.UploadBatchBody(requests(), timeout=10, metadata=site.token())
    assert batch.sha256 == hashlib.sha256(content).hexdigest()
    assert batch.file_name == "carteira.csv"
    site.worker.read_files()
    assert site.get(batch.name).rows_good == 50


def test_one_agency_never_sees_another(site: Site) -> None:
    rows = portfolio.rows(3)
    rows[0]["due_date"] = "x"
    batch = site.read(portfolio.content(rows))
    foreign = batch.name.replace(str(AGENCY), str(OTHER))
    stub, service = site.stub, imports_service_pb2
    for method, request in (
        (stub.GetBatch, service.GetBatchRequest(name=batch.name)),
        (stub.ApproveBatch, service.ApproveBatchRequest(name=batch.name)),
        (stub.RejectBatch, service.RejectBatchRequest(name=batch.name)),
        (stub.RollBackBatch, service.RollBackBatchRequest(name=batch.name)),
        (stub.ListRejectedRows, service.ListRejectedRowsRequest(parent=batch.name)),
        (stub.ListBatches, service.ListBatchesRequest(parent=f"agencies/{AGENCY}")),
    ):
        assert refused(lambda: site.call(method, request, agency=OTHER)).reason == "AGENCY_MISMATCH"  # noqa: B023
        text = str(request).replace(str(AGENCY), str(OTHER))
        if "batches/" in text:
            request.Clear()
            setattr(request, "parent" if method is stub.ListRejectedRows else "name", foreign)
            assert (
                refused(lambda: site.call(method, request, agency=OTHER)).code  # noqa: B023
                == grpc.StatusCode.NOT_FOUND
            )
    download = service.DownloadRejectsRequest(name=foreign)
    assert (
        refused(lambda: list(site.call(stub.DownloadRejects, download, agency=OTHER))).reason
        == "RESOURCE_NOT_FOUND"
    )
    assert not site.call(
        stub.ListBatches, service.ListBatchesRequest(parent=f"agencies/{OTHER}"), agency=OTHER
    ).batches
    fetch = service.FetchSliceRequest(name=batch.name, slice=0)
    assert refused(lambda: list(site.call(stub.FetchSlice, fetch))).reason == "SCOPE_MISSING"
    # without a scope no table shows a row
    with db.begin(site.engine, agency=None) as tx:
        for table in ("batches", "slices", "rejected_rows", "reject_counts", "batch_totals", "batch_work"):
            assert tx.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one() == 0


def test_a_creditor_sees_what_it_sent_and_sends_its_own_rows(site: Site) -> None:
    mine, stranger = uuid.uuid4(), uuid.uuid4()
    site.remote.references[mine] = "LUZ"
    rows = portfolio.rows(40)
    rows[1]["creditor_reference"] = "OTHER"
    batch = site.upload(portfolio.content(rows), creditor=mine)
    site.upload(portfolio.content(portfolio.rows(2)))
    site.worker.read_files()
    service = imports_service_pb2
    seen = site.call(site.stub.GetBatch, service.GetBatchRequest(name=batch.name), creditor=mine)
    assert {one.code: one.rows for one in seen.rejects_by_code} == {"CREDITOR_MISMATCH": 1}
    listed = site.call(
        site.stub.ListBatches, service.ListBatchesRequest(parent=f"agencies/{AGENCY}"), creditor=mine
    )
    assert [one.name for one in listed.batches] == [batch.name]
    get = service.GetBatchRequest(name=batch.name)
    assert (
        refused(lambda: site.call(site.stub.GetBatch, get, creditor=stranger)).reason == "RESOURCE_NOT_FOUND"
    )
    approve = service.ApproveBatchRequest(name=batch.name)
    assert (
        refused(lambda: site.call(site.stub.ApproveBatch, approve, creditor=mine)).reason
        == "CREDITOR_NOT_ALLOWED"
    )
    unknown = site.upload(portfolio.content(portfolio.rows(7)), creditor=stranger)
    site.worker.read_files()
    assert site.get(unknown.name).refusal_code == "CREDITOR_UNKNOWN"


def test_batches_are_listed_newest_first_by_pages(site: Site) -> None:
    made = [site.upload(portfolio.content(portfolio.rows(count))).name for count in range(1, 6)]
    payments = site.upload(
        portfolio.content(portfolio.rows(1, portfolio.PAYMENT)), kind=imports_pb2.BATCH_KIND_PAYMENTS
    )
    found: list[str] = []
    token = ""
    while True:
        page = site.call(
            site.stub.ListBatches,
            imports_service_pb2.ListBatchesRequest(
                parent=f"agencies/{AGENCY}",
                page_size=2,
                page_token=token,
                kind=imports_pb2.BATCH_KIND_PORTFOLIO,
            ),
        )
        found += [batch.name for batch in page.batches]
        token = page.next_page_token
        if not token:
            break
    assert found == made[::-1]
    everything = site.call(
        site.stub.ListBatches, imports_service_pb2.ListBatchesRequest(parent=f"agencies/{AGENCY}")
    )
    assert everything.batches[0].name == payments.name


def test_an_agency_without_a_clock(site: Site) -> None:
    unknown = uuid.uuid4()
    assert refused(lambda: site.upload(b"x", agency=unknown)).reason == "AGENCY_CLOCK_UNKNOWN"
