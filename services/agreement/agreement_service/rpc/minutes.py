"""Minutes of agreements: their texts, and the documents made."""
# ruff: noqa: N802 -- methods carry the names of the RPCs

import uuid

import grpc
from google.api import httpbody_pb2

from agreement_service.domain import minutes
from agreement_service.rpc import common
from agreement_service.store import minutes as store
from agreement_service.usecases import minutes as cases
from agreement_service.usecases import moments
from recupera.agreement.v1 import instrument_service_pb2, instruments_pb2
from servicekit import blobs, dates, db, names, pagination, rpc

MINUTE = "agencies/{agency}/agreements/{agreement}/minutes/{minute}"
HOUSE_TEMPLATE = "agencies/{agency}/minuteTemplates/{language=text}"
CREDITOR_TEMPLATE = "agencies/{agency}/creditors/{creditor}/minuteTemplates/{language=text}"


class Minutes(common.Methods):
    """Minutes of agreements."""

    def GetMinuteTemplate(
        self, request: instrument_service_pb2.GetMinuteTemplateRequest, context: grpc.ServicerContext
    ) -> instruments_pb2.MinuteTemplate:
        """The text in a language."""
        agency, creditor_id, language = _template_name(request.name, "name")
        with db.begin(self.engine, agency=agency) as tx:
            return _template(tx, agency, creditor_id, language)

    def UpdateMinuteTemplate(
        self, request: instrument_service_pb2.UpdateMinuteTemplateRequest, context: grpc.ServicerContext
    ) -> instruments_pb2.MinuteTemplate:
        """Set it."""
        message = request.minute_template
        agency, creditor_id, language = _template_name(message.name, "minute_template.name")

        def run(tx: db.Transaction) -> instruments_pb2.MinuteTemplate:
            cases.set_template(
                tx=tx,
                agency=agency,
                creditor_id=creditor_id,
                language=language,
                text=message.text,
                version=common.version_of(message.etag),
            )
            return _template(tx, agency, creditor_id, language)

        return self.once(agency, request, instruments_pb2.MinuteTemplate, run)

    def RenderMinute(
        self, request: instrument_service_pb2.RenderMinuteRequest, context: grpc.ServicerContext
    ) -> instruments_pb2.Minute:
        """Make the PDF and keep it; who the parties are is asked before the transaction that keeps it."""
        found = names.parse(common.AGREEMENT, request.parent, "parent")
        agency, agreement_id = found["agency"], found["agreement"]
        with db.begin(self.engine, agency=agency) as tx:
            draft = cases.read(
                tx=tx,
                agency=agency,
                agreement_id=agreement_id,
                language=request.language,
                moment=moments.read(tx, agency),
            )
        document = cases.render(draft, agency=agency, parties=self.parties)

        def run(tx: db.Transaction) -> instruments_pb2.Minute:
            kept = cases.keep(
                tx=tx, agency=agency, draft=draft, document=document, moment=moments.read(tx, agency)
            )
            return _shown(agency, kept)

        return self.once(agency, request, instruments_pb2.Minute, run)

    def GetMinute(
        self, request: instrument_service_pb2.GetMinuteRequest, context: grpc.ServicerContext
    ) -> instruments_pb2.Minute:
        """One minute."""
        return _shown(*self._find(request.name))

    def ListMinutes(
        self, request: instrument_service_pb2.ListMinutesRequest, context: grpc.ServicerContext
    ) -> instrument_service_pb2.ListMinutesResponse:
        """Minutes of an agreement in id order."""
        found = names.parse(common.AGREEMENT, request.parent, "parent")
        agency = found["agency"]
        page = pagination.read(request, key=(uuid.UUID,))
        with db.begin(self.engine, agency=agency) as tx:
            rows = cases.page(
                tx,
                agency,
                agreement_id=found["agreement"],
                creditor=rpc.caller().creditor,
                after=page.after[0] if page.after else None,
                limit=page.limit,
            )
        kept, token = page.cut(rows, key=lambda one: (one.id,))
        return instrument_service_pb2.ListMinutesResponse(
            minutes=[_shown(agency, one) for one in kept], next_page_token=token
        )

    def DownloadMinute(
        self, request: instrument_service_pb2.DownloadMinuteRequest, context: grpc.ServicerContext
    ) -> httpbody_pb2.HttpBody:
        """The PDF."""
        _, minute = self._find(request.name)
        document = b"".join(blobs.read(self.engine, minute.blob_id))
        return httpbody_pb2.HttpBody(content_type="application/pdf", data=document)

    def _find(self, name: str) -> tuple[uuid.UUID, store.Minute]:
        found = names.parse(MINUTE, name)
        with db.begin(self.engine, agency=found["agency"]) as tx:
            minute = cases.find(
                tx,
                found["agency"],
                agreement_id=found["agreement"],
                minute_id=found["minute"],
                creditor=rpc.caller().creditor,
            )
        return found["agency"], minute


def _template_name(name: str, field: str) -> tuple[uuid.UUID, uuid.UUID | None, str]:
    if "/creditors/" in name:
        found = names.match(CREDITOR_TEMPLATE, name, field)
        return uuid.UUID(found["agency"]), uuid.UUID(found["creditor"]), found["language"]
    found = names.match(HOUSE_TEMPLATE, name, field)
    return uuid.UUID(found["agency"]), None, found["language"]


def _template(
    tx: db.Transaction, agency: uuid.UUID, creditor_id: uuid.UUID | None, language: str
) -> instruments_pb2.MinuteTemplate:
    found = cases.template(tx, agency, creditor_id=creditor_id, language=language)
    name = (
        names.format(CREDITOR_TEMPLATE, agency=agency, creditor=creditor_id, language=language)
        if creditor_id is not None
        else names.format(HOUSE_TEMPLATE, agency=agency, language=language)
    )
    return instruments_pb2.MinuteTemplate(
        name=name, text=found.text, etag=str(found.version), fields=minutes.FIELDS
    )


def _shown(agency: uuid.UUID, minute: store.Minute) -> instruments_pb2.Minute:
    return instruments_pb2.Minute(
        name=names.format(MINUTE, agency=agency, agreement=minute.agreement_id, minute=minute.id),
        language=minute.language,
        sha256=minute.sha256.hex(),
        size=minute.size,
        create_time=dates.to_timestamp(minute.created_at),
    )
