"""gRPC servicer of recupera.imports.v1.ImportService: proto -> one use case -> proto."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import grpc
from google.api import httpbody_pb2
from google.type import money_pb2

from import_service import domain, store, usecases
from import_service.providers import files, rejectfile
from import_service.settings import Settings
from recupera.imports.v1 import imports_pb2, imports_service_pb2, imports_service_pb2_grpc
from servicekit import auth, blobs, clock, dates, db, errors, idempotency, money, names, pagination, rpc

SERVICES = ["recupera.imports.v1.ImportService"]
BATCH = "agencies/{agency}/batches/{batch}"
AGENCY = "agencies/{agency}"

_KINDS = {
    imports_pb2.BATCH_KIND_PORTFOLIO: domain.Kind.PORTFOLIO,
    imports_pb2.BATCH_KIND_PAYMENTS: domain.Kind.PAYMENTS,
}
_APPLIED = frozenset({domain.State.APPLIED, domain.State.APPLIED_WITH_ERRORS, domain.State.ROLLING_BACK})


def add_to(server: grpc.Server, servicer: ImportServicer) -> None:
    """Register the servicer."""
    imports_service_pb2_grpc.add_ImportServiceServicer_to_server(servicer, server)


class ImportServicer(imports_service_pb2_grpc.ImportServiceServicer):
    """The service's API."""

    def __init__(self, *, engine: db.Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings

    def ready(self) -> bool:
        """Whether the database answers."""
        return store.answers(self._engine)

    def UploadBatch(  # noqa: N802
        self,
        request_iterator: Iterator[imports_service_pb2.UploadBatchRequest],
        context: grpc.ServicerContext,
    ) -> imports_pb2.Batch:
        """Takes a file over gRPC."""
        first = next(request_iterator, None)
        if first is None or first.WhichOneof("part") != "header":
            raise errors.invalid("header", "expected the header in the first message")
        return self._upload(first.header, _contents(request_iterator))

    def UploadBatchBody(  # noqa: N802
        self,
        request_iterator: Iterator[imports_service_pb2.UploadBatchBodyRequest],
        context: grpc.ServicerContext,
    ) -> imports_pb2.Batch:
        """Takes a file as the body of a POST."""
        first = next(request_iterator, None)
        if first is None:
            raise errors.invalid("parent", "expected agencies/{agency}")
        header = imports_service_pb2.UploadHeader(
            parent=first.parent,
            kind=first.kind,
            file_name=first.file_name,
            expected_rows=first.expected_rows,
            expected_total=first.expected_total,
            size_bytes=first.size_bytes,
            request_id=first.request_id,
            sha256=first.sha256,
        )
        return self._upload(header, _bodies(first, request_iterator))

    def _upload(self, header: imports_service_pb2.UploadHeader, pieces: Iterable[bytes]) -> imports_pb2.Batch:
        caller = rpc.caller()
        agency = names.parse(AGENCY, header.parent, "parent")["agency"]
        kind, expected = self._announced(header)
        with db.begin(self._engine, agency=agency) as tx:
            now = clock.read(tx, agency).now()
        sniffer = files.Sniffer()
        blob = blobs.write(
            self._engine,
            agency=agency,
            kind="file",
            retention_days=self._settings.file_retention_days,
            chunks=self._measured(pieces, sniffer, header),
            now=now,
        )
        used = False
        try:
            if header.sha256 and bytes.fromhex(header.sha256) != blob.sha256:
                raise domain.TruncatedUpload("the content has another SHA-256 than announced")
            keyed = imports_service_pb2.UploadHeader()
            keyed.CopyFrom(header)
            keyed.sha256 = blob.sha256.hex()

            with db.begin(self._engine, agency=agency) as tx:

                def receive() -> imports_pb2.Batch:
                    nonlocal used
                    view = usecases.receive(
                        tx,
                        agency,
                        clock=clock.read(tx, agency),
                        upload=usecases.Upload(
                            kind=kind,
                            file_name=header.file_name,
                            blob_id=blob.id,
                            size_bytes=blob.size,
                            sha256=blob.sha256,
                            encoding=sniffer.encoding,
                            expected=expected,
                            creditor=caller.creditor,
                        ),
                    )
                    used = True
                    return _to_proto(agency, view)

                answer = idempotency.once(
                    tx,
                    caller=caller,
                    method=rpc.method(),
                    request=keyed,
                    response=imports_pb2.Batch,
                    run=receive,
                )
        except BaseException:
            if not used:  # else its batch may be committed, or be soon: it is left to its retention
                self._erase(agency, blob.id)
            raise
        if not used:  # the answer of an earlier upload: its file is there already
            self._erase(agency, blob.id)
        return answer

    def _announced(self, header: imports_service_pb2.UploadHeader) -> tuple[domain.Kind, domain.Expected]:
        kind = _KINDS.get(header.kind)
        if kind is None:
            raise errors.invalid("kind", "expected BATCH_KIND_PORTFOLIO or BATCH_KIND_PAYMENTS")
        if len(header.file_name) > 255 or not header.file_name.isprintable():
            raise errors.invalid("file_name", "expected at most 255 printable characters")
        if header.expected_rows < 0:
            raise errors.invalid("expected_rows", "expected a number of rows, or 0")
        if header.size_bytes < 0:
            raise errors.invalid("size_bytes", "expected a number of bytes, or 0")
        if header.sha256 and not re.fullmatch("[0-9a-fA-F]{64}", header.sha256):
            raise errors.invalid("sha256", "expected 64 hexadecimal digits")
        if header.size_bytes > self._settings.max_file_bytes:
            raise self._too_large()
        return kind, domain.Expected(
            rows=header.expected_rows or None, total_minor=domain.expected_total(header.expected_total)
        )

    def _measured(
        self, pieces: Iterable[bytes], sniffer: files.Sniffer, header: imports_service_pb2.UploadHeader
    ) -> Iterator[bytes]:
        size = 0
        for piece in pieces:
            size += len(piece)
            if size > self._settings.max_file_bytes:
                raise self._too_large()
            if header.size_bytes and size > header.size_bytes:
                break
            sniffer.feed(piece)
            yield piece
        if header.size_bytes and size != header.size_bytes:
            raise domain.TruncatedUpload(
                f"{header.size_bytes} bytes were announced, "
                + ("more" if size > header.size_bytes else f"{size}")
                + " came",
                announced_bytes=header.size_bytes,
            )

    def _too_large(self) -> domain.FileTooLarge:
        limit = self._settings.max_file_bytes
        return domain.FileTooLarge(f"a file has at most {limit} bytes", limit_bytes=limit)

    def _erase(self, agency: uuid.UUID, blob_id: uuid.UUID) -> None:
        with db.begin(self._engine, agency=agency) as tx:
            blobs.erase(tx, blob_id)

    def GetBatch(  # noqa: N802
        self, request: imports_service_pb2.GetBatchRequest, context: grpc.ServicerContext
    ) -> imports_pb2.Batch:
        """One batch."""
        agency, batch_id = _batch_name(request.name)
        return _to_proto(agency, self._view(rpc.caller(), agency, batch_id))

    def ListBatches(  # noqa: N802
        self, request: imports_service_pb2.ListBatchesRequest, context: grpc.ServicerContext
    ) -> imports_service_pb2.ListBatchesResponse:
        """Newest first."""
        agency = names.parse(AGENCY, request.parent, "parent")["agency"]
        page = pagination.read(request, key=(uuid.UUID,))
        rows = store.list_batches(
            self._engine,
            agency,
            creditor=rpc.caller().creditor,
            kind=_KINDS.get(request.kind),
            before=page.after[0] if page.after else None,
            limit=page.limit,
        )
        kept, token = page.cut(rows, key=lambda view: (view.batch.id,))
        return imports_service_pb2.ListBatchesResponse(
            batches=[_to_proto(agency, view) for view in kept], next_page_token=token
        )

    def ApproveBatch(  # noqa: N802
        self, request: imports_service_pb2.ApproveBatchRequest, context: grpc.ServicerContext
    ) -> imports_pb2.Batch:
        """Lets a waiting batch go on."""
        return self._decide(request, usecases.approve)

    def RejectBatch(  # noqa: N802
        self, request: imports_service_pb2.RejectBatchRequest, context: grpc.ServicerContext
    ) -> imports_pb2.Batch:
        """Refuses a waiting batch."""
        return self._decide(request, usecases.reject)

    def RollBackBatch(  # noqa: N802
        self, request: imports_service_pb2.RollBackBatchRequest, context: grpc.ServicerContext
    ) -> imports_pb2.Batch:
        """Takes an applied portfolio batch back."""
        return self._decide(request, usecases.start_rollback)

    def _decide(self, request: Any, use_case: Any) -> imports_pb2.Batch:
        agency, batch_id = _batch_name(request.name)
        with db.begin(self._engine, agency=agency) as tx:
            return idempotency.once(
                tx,
                caller=rpc.caller(),
                method=rpc.method(),
                request=request,
                response=imports_pb2.Batch,
                run=lambda: _to_proto(
                    agency,
                    use_case(tx, agency, clock=clock.read(tx, agency), batch_id=batch_id, etag=request.etag),
                ),
            )

    def ListRejectedRows(  # noqa: N802
        self, request: imports_service_pb2.ListRejectedRowsRequest, context: grpc.ServicerContext
    ) -> imports_service_pb2.ListRejectedRowsResponse:
        """Rejected rows, in row order."""
        agency, batch_id = _batch_name(request.parent, "parent")
        page = pagination.read(request, default=100, key=(int, str, str))
        self._view(rpc.caller(), agency, batch_id)
        rows = store.rejects_page(
            self._engine,
            agency,
            batch_id,
            after=page.after or (0, "", ""),
            limit=page.limit,
        )
        kept, token = page.cut(rows, key=lambda one: (one.row, one.field, one.code))
        return imports_service_pb2.ListRejectedRowsResponse(
            rejected_rows=[
                imports_pb2.RejectedRow(row=one.row, field=one.field, code=one.code, expected=one.expected)
                for one in kept
            ],
            next_page_token=token,
        )

    def DownloadRejects(  # noqa: N802
        self, request: imports_service_pb2.DownloadRejectsRequest, context: grpc.ServicerContext
    ) -> Iterator[httpbody_pb2.HttpBody]:
        """The rejected rows as a file."""
        agency, batch_id = _batch_name(request.name)
        batch = self._view(rpc.caller(), agency, batch_id).batch
        content_type = f"text/csv; charset={batch.encoding if batch.columns else files.UTF8}"
        pieces = rejectfile.write(
            blobs.read(self._engine, batch.blob_id),
            encoding=batch.encoding if batch.columns else files.UTF8,
            delimiter=batch.delimiter,
            columns=batch.columns,
            rejects=self._rejects(agency, batch_id),
        )
        for piece in pieces:
            for start in range(0, len(piece), blobs.CHUNK):
                yield httpbody_pb2.HttpBody(
                    content_type=content_type, data=piece[start : start + blobs.CHUNK]
                )

    def _rejects(self, agency: uuid.UUID, batch_id: uuid.UUID) -> Iterator[domain.Reject]:
        after = (0, "", "")
        while rows := store.rejects_page(self._engine, agency, batch_id, after=after, limit=5_000):
            yield from rows
            after = (rows[-1].row, rows[-1].field, rows[-1].code)

    def FetchSlice(  # noqa: N802
        self, request: imports_service_pb2.FetchSliceRequest, context: grpc.ServicerContext
    ) -> Iterator[imports_service_pb2.FetchSliceResponse]:
        """Rows of a slice."""
        agency, batch_id = _batch_name(request.name)
        blob_id = store.slice_blob(self._engine, agency, batch_id, request.slice)
        if blob_id is None:
            raise errors.ResourceNotFound("no such slice", batch=batch_id, slice=request.slice)
        for piece in blobs.read(self._engine, blob_id):
            yield imports_service_pb2.FetchSliceResponse(arrow_ipc=piece)

    def _view(self, caller: auth.Caller, agency: uuid.UUID, batch_id: uuid.UUID) -> store.BatchView:
        view = store.batch(self._engine, agency, batch_id, caller.creditor)
        if view is None:
            raise errors.ResourceNotFound("no such batch", batch=batch_id)
        return view


def _contents(requests: Iterator[imports_service_pb2.UploadBatchRequest]) -> Iterator[bytes]:
    for request in requests:
        if request.WhichOneof("part") != "content":
            raise errors.invalid("content", "expected content in every message after the first")
        yield request.content


def _bodies(
    first: imports_service_pb2.UploadBatchBodyRequest,
    requests: Iterator[imports_service_pb2.UploadBatchBodyRequest],
) -> Iterator[bytes]:
    yield first.body.data
    for request in requests:
        yield request.body.data


def _batch_name(name: str, field: str = "name") -> tuple[uuid.UUID, uuid.UUID]:
    found = names.parse(BATCH, name, field)
    return found["agency"], found["batch"]


def _to_proto(agency: uuid.UUID, view: store.BatchView) -> imports_pb2.Batch:
    batch = view.batch
    message = imports_pb2.Batch(
        name=names.format(BATCH, agency=agency, batch=batch.id),
        kind=imports_pb2.BatchKind.Value(f"BATCH_KIND_{batch.kind.value}"),
        state=imports_pb2.Batch.State.Value(f"STATE_{batch.state.value}"),
        file_name=batch.file_name,
        size_bytes=batch.size_bytes,
        sha256=batch.sha256.hex(),
        expected_rows=batch.expected.rows or 0,
        rows_read=batch.rows_read,
        rows_good=batch.rows_good,
        rows_rejected=batch.rows_rejected,
        rows_applied=batch.rows_applied,
        rows_unchanged=batch.rows_unchanged,
        good_totals=[money.to_proto(money.Money(one.good_minor, one.currency)) for one in view.totals],
        applied_totals=[
            money.to_proto(money.Money(one.good_minor - one.refused_minor, one.currency))
            for one in view.totals
            if batch.state in _APPLIED
        ],
        rejects_by_code=[
            imports_pb2.RejectCount(code=code, rows=rows) for code, rows in sorted(view.rejects.items())
        ],
        refusal_code=batch.refusal_code,
        refusal=batch.refusal,
        encoding=batch.encoding,
        delimiter=batch.delimiter,
        create_time=dates.to_timestamp(batch.created_at),
        slices=batch.slices,
        slices_applied=batch.slices_applied,
        etag=str(batch.version),
    )
    if batch.expected.total_minor is not None:
        units, cents = divmod(batch.expected.total_minor, 100)
        message.expected_total.CopyFrom(
            money_pb2.Money(
                currency_code=view.totals[0].currency if len(view.totals) == 1 else "",
                units=units,
                nanos=cents * money.NANOS_PER_MINOR,
            )
        )
    if batch.applied_at is not None:
        message.applied_time.CopyFrom(dates.to_timestamp(batch.applied_at))
    return message
