"""The life of agreements: accepted, signed, ended, reinstated; lineage of titles; promises to pay."""
# ruff: noqa: N802 -- methods carry the names of the RPCs

import datetime
import uuid

import grpc

from agreement_service.rpc import agreements, common, natures, titles
from agreement_service.store import promises as promise_store
from agreement_service.usecases import life, moments
from agreement_service.usecases import titles as title_cases
from recupera.agreement.v1 import agreement_pb2, agreement_service_pb2
from servicekit import blobs, dates, db, ids, pagination, rpc


class Life(common.Methods):
    """The life of agreements, lineage of titles, promises to pay."""

    def AcceptAgreement(
        self, request: agreement_service_pb2.AcceptAgreementRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Agreement:
        """The debtor says yes."""
        agency, agreement_id = common.named(common.AGREEMENT, request.name, "agreement")

        def run(tx: db.Transaction) -> agreement_pb2.Agreement:
            life.accept(
                tx=tx,
                agency=agency,
                agreement_id=agreement_id,
                version=common.version_of(request.etag),
                moment=moments.read(tx, agency),
                bank=self.bank,
                channel=natures.channel(request.channel),
                accepted_by=request.accepted_by or rpc.caller().subject,
            )
            return agreements.agreement(tx, agency, agreement_id)

        return self.once(agency, request, agreement_pb2.Agreement, run)

    def CancelAgreement(
        self, request: agreement_service_pb2.CancelAgreementRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Agreement:
        """End a proposal or an agreement in force."""
        agency, agreement_id = common.named(common.AGREEMENT, request.name, "agreement")

        def run(tx: db.Transaction) -> agreement_pb2.Agreement:
            life.cancel(
                tx=tx,
                agency=agency,
                agreement_id=agreement_id,
                reason=common.reason(request.reason),
                version=common.version_of(request.etag),
                moment=moments.read(tx, agency),
                bank=self.bank,
            )
            return agreements.agreement(tx, agency, agreement_id)

        return self.once(agency, request, agreement_pb2.Agreement, run)

    def UploadSignedDocument(
        self, request: agreement_service_pb2.UploadSignedDocumentRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Agreement:
        """The signed confession of the debt is here."""
        agency, agreement_id = common.named(common.AGREEMENT, request.name, "agreement")

        def run(tx: db.Transaction) -> agreement_pb2.Agreement:
            life.sign(
                tx=tx,
                agency=agency,
                agreement_id=agreement_id,
                content=request.content,
                version=common.version_of(request.etag),
                moment=moments.read(tx, agency),
                bank=self.bank,
            )
            return agreements.agreement(tx, agency, agreement_id)

        return self.once(agency, request, agreement_pb2.Agreement, run)

    def DownloadSignedDocument(
        self, request: agreement_service_pb2.DownloadSignedDocumentRequest, context: grpc.ServicerContext
    ) -> agreement_service_pb2.DownloadSignedDocumentResponse:
        """The signed confession as it was uploaded."""
        agency, agreement_id = common.named(common.AGREEMENT, request.name, "agreement")
        with db.begin(self.engine, agency=agency) as tx:
            now = moments.read(tx, agency).now
            found = life.signed_document(tx=tx, agency=agency, agreement_id=agreement_id, now=now)
        return agreement_service_pb2.DownloadSignedDocumentResponse(
            document=natures.document(found, now), content=b"".join(blobs.read(self.engine, found.blob_id))
        )

    def EraseSignedDocument(
        self, request: agreement_service_pb2.EraseSignedDocumentRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Agreement:
        """Erase the content of the signed confession."""
        agency, agreement_id = common.named(common.AGREEMENT, request.name, "agreement")

        def run(tx: db.Transaction) -> agreement_pb2.Agreement:
            life.erase_document(
                tx=tx,
                agency=agency,
                agreement_id=agreement_id,
                reason=common.reason(request.reason),
                version=common.version_of(request.etag),
                moment=moments.read(tx, agency),
            )
            return agreements.agreement(tx, agency, agreement_id)

        return self.once(agency, request, agreement_pb2.Agreement, run)

    def ReinstateAgreement(
        self, request: agreement_service_pb2.ReinstateAgreementRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Agreement:
        """A broken agreement is in force again."""
        agency, agreement_id = common.named(common.AGREEMENT, request.name, "agreement")

        def run(tx: db.Transaction) -> agreement_pb2.Agreement:
            life.reinstate(
                tx=tx,
                agency=agency,
                agreement_id=agreement_id,
                grace_date=common.date_of(request, "grace_date"),
                reason=common.reason(request.reason),
                version=common.version_of(request.etag),
                authority=common.authority(),
                moment=moments.read(tx, agency),
                bank=self.bank,
            )
            return agreements.agreement(tx, agency, agreement_id)

        return self.once(agency, request, agreement_pb2.Agreement, run)

    def GetTitleLineage(
        self, request: agreement_service_pb2.GetTitleLineageRequest, context: grpc.ServicerContext
    ) -> agreement_service_pb2.TitleLineage:
        """Ancestors and descendants of a title."""
        agency, title_id = common.named(common.TITLE, request.name, "title")
        with db.begin(self.engine, agency=agency) as tx:
            date = moments.read(tx, agency).business_date
            up, down = title_cases.lineage(
                tx=tx, agency=agency, title_id=title_id, creditor=rpc.caller().creditor
            )
        return agreement_service_pb2.TitleLineage(
            ancestors=[titles.shown(agency, one, date) for one in up],
            descendants=[titles.shown(agency, one, date) for one in down],
        )

    def ListPromises(
        self, request: agreement_service_pb2.ListPromisesRequest, context: grpc.ServicerContext
    ) -> agreement_service_pb2.ListPromisesResponse:
        """Promises to pay."""
        agency = common.agency_of(request.parent, "parent")
        page = pagination.read(request, key=(uuid.UUID, datetime.datetime, uuid.UUID))
        with db.begin(self.engine, agency=agency) as tx:
            rows = promise_store.page(
                tx,
                agency,
                creditor=rpc.caller().creditor,
                case_id=ids.parse(request.case_id, "case_id") if request.case_id else None,
                state=common.state_of(agreement_pb2.Promise.State.items(), request.state),
                after=page.after,
                limit=page.limit,
            )
        kept, token = page.cut(rows, key=lambda one: (one.case_id, one.made_at, one.contact_id))
        return agreement_service_pb2.ListPromisesResponse(
            promises=[_promise(one) for one in kept], next_page_token=token
        )


def _promise(one: promise_store.Promise) -> agreement_pb2.Promise:
    return agreement_pb2.Promise(
        case_id=str(one.case_id),
        contact_id=str(one.contact_id),
        state=agreement_pb2.Promise.State.Value(f"STATE_{one.state.value}"),
        made_date=dates.to_proto(one.made_date),
        promise_date=dates.to_proto(one.promise_date),
        tolerance_date=dates.to_proto(one.tolerance_date),
        amount=common.money_of(one.amount_minor, one.currency),
        paid=common.money_of(one.paid_minor, one.currency),
    )
