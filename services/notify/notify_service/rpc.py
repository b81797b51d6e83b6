"""NotifyService over gRPC: proto -> one use case -> proto. No rules, no SQL."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import TypeVar
from uuid import UUID

import grpc
from google.protobuf.message import Message

from notify_service import store
from notify_service.domain import mail, messages, templates
from notify_service.providers import remote
from notify_service.usecases import reports, requests, texts
from recupera.case.v1 import case_pb2
from recupera.notify.v1 import notify_pb2, notify_service_pb2, notify_service_pb2_grpc
from servicekit import clock, dates, db, errors, idempotency, ids, money, names, pagination, rpc

AGENCY = "agencies/{agency}"
MESSAGE = "agencies/{agency}/messages/{message}"
TEMPLATE = "agencies/{agency}/templates/{template=text}"
SUPPRESSION = "agencies/{agency}/suppressions/{suppression}"

SERVICES = (notify_service_pb2.DESCRIPTOR.services_by_name["NotifyService"].full_name,)
"""Full names of what `add_to` registers."""

M = TypeVar("M", bound=Message)

_CHANNELS: Mapping[messages.Channel, case_pb2.Channel.ValueType] = {
    messages.Channel.EMAIL: case_pb2.CHANNEL_EMAIL,
    messages.Channel.SMS: case_pb2.CHANNEL_SMS,
}
_REASONS: Mapping[messages.Reason, notify_pb2.Suppression.Reason.ValueType] = {
    messages.Reason.BOUNCED: notify_pb2.Suppression.REASON_BOUNCED,
    messages.Reason.OPT_OUT: notify_pb2.Suppression.REASON_OPT_OUT,
    messages.Reason.COMPLAINT: notify_pb2.Suppression.REASON_COMPLAINT,
}
_OUTCOMES: Mapping[int, mail.Outcome] = {
    notify_service_pb2.ReportDeliveryRequest.OUTCOME_DELIVERED: mail.Outcome.DELIVERED,
    notify_service_pb2.ReportDeliveryRequest.OUTCOME_BOUNCED: mail.Outcome.BOUNCED,
    notify_service_pb2.ReportDeliveryRequest.OUTCOME_COMPLAINT: mail.Outcome.COMPLAINT,
    notify_service_pb2.ReportDeliveryRequest.OUTCOME_OPT_OUT: mail.Outcome.OPT_OUT,
}
_MAX_CODE = 60


def add_to(server: grpc.Server, servicer: NotifyServicer) -> None:
    """Register the servicer."""
    notify_service_pb2_grpc.add_NotifyServiceServicer_to_server(servicer, server)


class NotifyServicer(notify_service_pb2_grpc.NotifyServiceServicer):
    """The RPCs of notify."""

    def __init__(self, engine: db.Engine, *, contacts: remote.Contacts) -> None:
        self._engine = engine
        self._contacts = contacts

    def _once(
        self, request: Message, response: type[M], run: Callable[[db.Transaction, clock.AgencyClock], M]
    ) -> M:
        caller = rpc.caller()
        with db.begin(self._engine, agency=caller.agency) as tx:
            return idempotency.once(
                tx,
                caller=caller,
                method=rpc.method(),
                request=request,
                response=response,
                run=lambda: run(tx, clock.read(tx, caller.agency)),
            )

    # -- messages --------------------------------------------------------------------------------------------

    def GetMessage(  # noqa: N802
        self, request: notify_service_pb2.GetMessageRequest, context: grpc.ServicerContext
    ) -> notify_pb2.Message:
        """https://google.aip.dev/131"""
        agency = rpc.caller().agency
        message_id = names.parse(MESSAGE, request.name)["message"]
        found = store.get_message(self._engine, agency, message_id)
        if found is None:
            raise reports.MessageNotFound("no such message", id=str(message_id))
        return _message(agency, found)

    def ListMessages(  # noqa: N802
        self, request: notify_service_pb2.ListMessagesRequest, context: grpc.ServicerContext
    ) -> notify_service_pb2.ListMessagesResponse:
        """https://google.aip.dev/132"""
        agency = rpc.caller().agency
        names.parse(AGENCY, request.parent, "parent")
        page = pagination.read(request, key=(UUID,))
        found = store.list_messages(
            self._engine,
            agency,
            after=page.after[0] if page.after else store.NO_ID,
            limit=page.limit,
            state=_state(request.state),
            case_id=ids.parse(request.case_id, "case_id") if request.case_id else None,
        )
        kept, next_page_token = page.cut(found, key=lambda message: (message.id,))
        return notify_service_pb2.ListMessagesResponse(
            messages=[_message(agency, message) for message in kept], next_page_token=next_page_token
        )

    def RequestMessage(  # noqa: N802
        self, request: notify_service_pb2.RequestMessageRequest, context: grpc.ServicerContext
    ) -> notify_pb2.Message:
        """https://google.aip.dev/133. `case` is asked before the transaction whether the case is the
        agency's.
        """
        agency = rpc.caller().agency
        names.parse(AGENCY, request.parent, "parent")
        case_id = ids.parse(request.case_id, "case_id")
        if not templates.CODE.fullmatch(request.template):
            raise errors.invalid("template", "expected the code of a template, e.g. reminder-1")
        if not self._contacts.knows(agency, case_id):
            raise requests.CaseUnknown("no such case", case=str(case_id))

        def run(tx: db.Transaction, time: clock.AgencyClock) -> notify_pb2.Message:
            made = requests.request_message(
                tx,
                agency,
                case_id=case_id,
                template=request.template,
                now=time.now(),
                business_date=time.business_date,
            )
            return _message(agency, made)

        return self._once(request, notify_pb2.Message, run)

    def ReportDelivery(  # noqa: N802
        self, request: notify_service_pb2.ReportDeliveryRequest, context: grpc.ServicerContext
    ) -> notify_pb2.Message:
        """A provider's word on a message."""
        agency = rpc.caller().agency
        message_id = names.parse(MESSAGE, request.name)["message"]
        outcome = _OUTCOMES.get(request.outcome)
        if outcome is None:
            raise errors.invalid("outcome", "expected DELIVERED, BOUNCED, COMPLAINT or OPT_OUT")
        if len(request.code) > _MAX_CODE or not (request.code.isascii() and request.code.isprintable()):
            raise errors.invalid("code", f"expected printable ASCII of at most {_MAX_CODE} characters")

        def run(tx: db.Transaction, time: clock.AgencyClock) -> notify_pb2.Message:
            found = reports.report(
                tx,
                agency,
                message_id=message_id,
                outcome=outcome,
                code=request.code,
                now=time.now(),
                business_date=time.business_date,
            )
            return _message(agency, found)

        return self._once(request, notify_pb2.Message, run)

    def ReportMail(  # noqa: N802
        self, request: notify_service_pb2.ReportMailRequest, context: grpc.ServicerContext
    ) -> notify_pb2.Message:
        """A mail that came back."""
        agency = rpc.caller().agency
        names.parse(AGENCY, request.parent, "parent")

        def run(tx: db.Transaction, time: clock.AgencyClock) -> notify_pb2.Message:
            found = reports.report_mail(
                tx, agency, raw=request.mail, now=time.now(), business_date=time.business_date
            )
            return _message(agency, found)

        return self._once(request, notify_pb2.Message, run)

    def SummarizeMessages(  # noqa: N802
        self, request: notify_service_pb2.SummarizeMessagesRequest, context: grpc.ServicerContext
    ) -> notify_service_pb2.SummarizeMessagesResponse:
        """Counts of one business date or of all."""
        agency = rpc.caller().agency
        names.parse(AGENCY, request.parent, "parent")
        date = dates.from_proto(request.date, "date") if request.HasField("date") else None
        with db.begin(self._engine, agency=agency) as tx:
            found = reports.summarize(tx, agency, now=clock.read(tx, agency).now(), date=date)
        return notify_service_pb2.SummarizeMessagesResponse(
            by_state=found.by_state,
            by_rule=found.by_rule,
            messages=found.messages,
            due=found.due,
            outbox=found.outbox,
            parked=found.parked,
        )

    # -- templates -------------------------------------------------------------------------------------------

    def ListTemplates(  # noqa: N802
        self, request: notify_service_pb2.ListTemplatesRequest, context: grpc.ServicerContext
    ) -> notify_service_pb2.ListTemplatesResponse:
        """https://google.aip.dev/132"""
        agency = rpc.caller().agency
        names.parse(AGENCY, request.parent, "parent")
        page = pagination.read(request, key=(str,))
        after = page.after[0] if page.after else ""
        with db.begin(self._engine, agency=agency) as tx:
            found = [entry for entry in texts.in_force(tx, agency) if entry[0].name > after]
        kept, next_page_token = page.cut(found[: page.limit], key=lambda entry: (entry[0].name,))
        return notify_service_pb2.ListTemplatesResponse(
            templates=[_template(agency, template, created_at) for template, created_at in kept],
            next_page_token=next_page_token,
        )

    def PublishTemplate(  # noqa: N802
        self, request: notify_service_pb2.PublishTemplateRequest, context: grpc.ServicerContext
    ) -> notify_pb2.Template:
        """Stores a new version; `template.name` and `template.version` are not read."""
        agency = rpc.caller().agency
        names.parse(AGENCY, request.parent, "parent")
        wanted = request.template
        channel = next((ours for ours, theirs in _CHANNELS.items() if theirs == wanted.channel), None)
        if channel is None:
            raise errors.invalid("template.channel", "expected CHANNEL_EMAIL or CHANNEL_SMS")

        def run(tx: db.Transaction, time: clock.AgencyClock) -> notify_pb2.Template:
            now = time.now()
            made = texts.publish(
                tx,
                agency,
                code=wanted.code,
                language=wanted.language,
                channel=channel,
                subject=wanted.subject,
                body=wanted.body,
                now=now,
            )
            return _template(agency, made, now)

        return self._once(request, notify_pb2.Template, run)

    # -- suppressions ----------------------------------------------------------------------------------------

    def ListSuppressions(  # noqa: N802
        self, request: notify_service_pb2.ListSuppressionsRequest, context: grpc.ServicerContext
    ) -> notify_service_pb2.ListSuppressionsResponse:
        """https://google.aip.dev/132"""
        agency = rpc.caller().agency
        names.parse(AGENCY, request.parent, "parent")
        page = pagination.read(request, key=(UUID,))
        with db.begin(self._engine, agency=agency) as tx:
            found = store.list_suppressions(
                tx, agency, after=page.after[0] if page.after else store.NO_ID, limit=page.limit
            )
        kept, next_page_token = page.cut(found, key=lambda suppression: (suppression.id,))
        return notify_service_pb2.ListSuppressionsResponse(
            suppressions=[
                notify_pb2.Suppression(
                    name=names.format(SUPPRESSION, agency=agency, suppression=one.id),
                    contact_point_id=str(one.contact_point_id),
                    reason=_REASONS[one.reason],
                    create_time=dates.to_timestamp(one.created_at),
                )
                for one in kept
            ],
            next_page_token=next_page_token,
        )


def _state(wanted: notify_pb2.Message.State.ValueType) -> messages.State | None:
    """None: not filtered."""
    if wanted == notify_pb2.Message.STATE_UNSPECIFIED:
        return None
    if wanted not in notify_pb2.Message.State.values():
        raise errors.invalid("state", "expected a state of a message")
    return messages.State(notify_pb2.Message.State.Name(wanted).removeprefix("STATE_"))


def _message(agency: UUID, found: store.Record) -> notify_pb2.Message:
    return notify_pb2.Message(
        name=names.format(MESSAGE, agency=agency, message=found.id),
        state=notify_pb2.Message.State.Value(f"STATE_{found.state}"),
        case_id=str(found.case_id),
        channel=_CHANNELS[found.channel],
        template=found.template,
        template_version=found.template_version or 0,
        language=found.language or "",
        date=dates.to_proto(found.date),
        rule=found.rule,
        attempts=found.attempts,
        due_time=dates.to_timestamp(found.due_at) if found.due_at else None,
        send_time=dates.to_timestamp(found.sent_at) if found.sent_at else None,
        outside_key=found.act_key or "",
        failure=found.failure,
        stated_total=money.to_proto(found.stated_total) if found.stated_total else None,
        text_sha256=found.text_sha256 or b"",
        occasion=found.occasion,
    )


def _template(
    agency: UUID, template: templates.Template, created_at: datetime.datetime | None
) -> notify_pb2.Template:
    return notify_pb2.Template(
        name=names.format(TEMPLATE, agency=agency, template=template.name),
        code=template.code,
        language=template.language,
        channel=_CHANNELS[template.channel],
        subject=template.subject,
        body=template.body,
        version=template.version,
        create_time=dates.to_timestamp(created_at) if created_at else None,
    )
