"""NotifyService over real gRPC: every RPC, its errors, and two agencies apart."""

import datetime
from email.message import EmailMessage
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from typing import Any
from uuid import UUID

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from notify_service.domain import mail as domain_mail
from recupera.case.v1 import case_pb2
from recupera.notify.v1 import notify_pb2, notify_service_pb2
from servicekit import dates

from .conftest import AGENCY, DATE, NOW, OTHER_AGENCY, CaseService, MailServer, Notify, address, an_id, case

PARENT = f"agencies/{AGENCY}"
BODY = (
    "{{ creditor.name }} {{ creditor.address }} {{ creditor.document }} {{ balance.total }} {{ unsubscribe }}"
)


def reason(error: pytest.ExceptionInfo[grpc.RpcError]) -> tuple[grpc.StatusCode, str]:
    status = rpc_status.from_call(error.value)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return error.value.code(), info.reason


def refused(notify: Notify, method: str, request: Any, **options: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as error:
        notify.call(method, request, **options)
    return reason(error)


def sent(notify: Notify, number: int = 1) -> notify_pb2.Message:
    """A message that was sent."""
    notify.deliver(notify.steps_due([number]))
    notify.tick()
    answer = notify.call(
        "ListMessages", notify_service_pb2.ListMessagesRequest(parent=PARENT, case_id=str(case(number)))
    )
    found: notify_pb2.Message = answer.messages[0]
    return found


# -- messages ----------------------------------------------------------------------------------------------------------


def test_a_message_tells_what_became_of_it(notify: Notify) -> None:
    found = notify.call("GetMessage", notify_service_pb2.GetMessageRequest(name=sent(notify).name))
    assert found.state == notify_pb2.Message.STATE_SENT
    assert found.case_id == str(case(1))
    assert (found.template, found.template_version, found.language) == ("reminder-1", 1, "pt-BR")
    assert dates.from_proto(found.date, "date") == DATE
    assert found.occasion == "LADDER:L1"
    assert (found.stated_total.units, found.stated_total.nanos) == (103, 300_000_000)
    assert len(found.text_sha256) == 32
    assert dates.from_timestamp(found.send_time, "send_time") == NOW
    assert found.outside_key.endswith("@recupera.example>")


def test_messages_are_paged_and_filtered(notify: Notify, case_service: CaseService) -> None:
    case_service.refusals = {case(number): ("R05", None) for number in (2, 4)}
    notify.deliver(notify.steps_due([1, 2, 3, 4, 5]))
    notify.tick()
    seen: list[str] = []
    token = ""
    while True:
        page = notify.call(
            "ListMessages",
            notify_service_pb2.ListMessagesRequest(parent=PARENT, page_size=2, page_token=token),
        )
        assert len(page.messages) <= 2
        seen += [message.name for message in page.messages]
        token = page.next_page_token
        if not token:
            break
    assert len(seen) == len(set(seen)) == 5
    assert seen == sorted(seen)
    suppressed = notify.call(
        "ListMessages",
        notify_service_pb2.ListMessagesRequest(parent=PARENT, state=notify_pb2.Message.STATE_SUPPRESSED),
    ).messages
    assert {message.case_id for message in suppressed} == {str(case(2)), str(case(4))}
    assert {message.rule for message in suppressed} == {"R05"}


@pytest.mark.feature("S1-10")
def test_a_person_asks_for_a_message_once_a_day(notify: Notify, mail_server: MailServer) -> None:
    request = notify_service_pb2.RequestMessageRequest(
        parent=PARENT, case_id=str(case(1)), template="notice-1", request_id="a"
    )
    first = notify.call("RequestMessage", request)
    assert first.state == notify_pb2.Message.STATE_REQUESTED
    request.request_id = "b"
    assert notify.call("RequestMessage", request).name == first.name
    notify.tick()
    assert len(mail_server.mails) == 1
    assert mail_server.mails[0].parsed["Subject"].startswith("Comunicado sobre o contrato CONTRATO-1")
    assert [row[0] for row in notify.told()] == ["REQUESTED", "SENT"]
    assert (
        notify.call("RequestMessage", request).state == notify_pb2.Message.STATE_REQUESTED
    )  # the first answer


def test_what_cannot_be_asked_for(notify: Notify, case_service: CaseService) -> None:
    def ask(**fields: str) -> tuple[grpc.StatusCode, str]:
        given = {"parent": PARENT, "case_id": str(case(1)), "template": "reminder-1", **fields}
        return refused(notify, "RequestMessage", notify_service_pb2.RequestMessageRequest(**given))

    assert ask(template="no-such") == (grpc.StatusCode.NOT_FOUND, "TEMPLATE_UNKNOWN")
    assert ask(template="NO/SUCH") == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert ask(template="agreement-reminder") == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "TEMPLATE_NOT_FOR_REQUESTS",
    )
    assert ask(case_id=str(an_id("nobody's"))) == (grpc.StatusCode.NOT_FOUND, "CASE_UNKNOWN")
    assert ask(case_id="x") == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert ask(parent=f"agencies/{OTHER_AGENCY}") == (grpc.StatusCode.PERMISSION_DENIED, "AGENCY_MISMATCH")


# -- delivery ----------------------------------------------------------------------------------------------------------


def report(notify: Notify, name: str, outcome: int, code: str = "") -> notify_pb2.Message:
    found: notify_pb2.Message = notify.call(
        "ReportDelivery",
        notify_service_pb2.ReportDeliveryRequest(name=name, outcome=outcome, code=code),  # type: ignore[arg-type]
    )
    return found


def test_a_bounce_reported_later_suppresses_the_contact_point(notify: Notify) -> None:
    name = sent(notify).name
    outcomes = notify_service_pb2.ReportDeliveryRequest
    assert report(notify, name, outcomes.OUTCOME_DELIVERED).state == notify_pb2.Message.STATE_DELIVERED
    bounced = report(notify, name, outcomes.OUTCOME_BOUNCED, "SMTP_550")
    assert (bounced.state, bounced.failure) == (notify_pb2.Message.STATE_BOUNCED, "SMTP_550")
    report(notify, name, outcomes.OUTCOME_BOUNCED, "SMTP_550")
    assert [row[0] for row in notify.told()] == ["SENT", "DELIVERED", "BOUNCED"]
    [suppressed] = notify.call(
        "ListSuppressions", notify_service_pb2.ListSuppressionsRequest(parent=PARENT)
    ).suppressions
    assert suppressed.contact_point_id == str(an_id("contact point", 1))
    assert suppressed.reason == notify_pb2.Suppression.REASON_BOUNCED
    assert len(notify.published("contact_point_suppressed")) == 1


@pytest.mark.parametrize(
    ("outcome", "rule"), [("OUTCOME_OPT_OUT", "OPT_OUT"), ("OUTCOME_COMPLAINT", "COMPLAINT")]
)
def test_who_said_no_more_is_not_written_to(
    notify: Notify, mail_server: MailServer, outcome: str, rule: str
) -> None:
    message = sent(notify)
    number = notify_service_pb2.ReportDeliveryRequest.Outcome.Value(outcome)
    assert report(notify, message.name, number).state == notify_pb2.Message.STATE_SENT
    notify.deliver(notify.steps_due([1], level="L2"))
    notify.tick()
    assert notify.told()[-1] == ("SUPPRESSED", 1, False, rule)
    assert len(mail_server.mails) == 1


def test_reports_that_do_not_fit(notify: Notify, case_service: CaseService) -> None:
    case_service.refusals = {case(2): ("R05", None)}
    suppressed = sent(notify, 2).name
    outcomes = notify_service_pb2.ReportDeliveryRequest

    def ask(name: str, outcome: int) -> tuple[grpc.StatusCode, str]:
        request = notify_service_pb2.ReportDeliveryRequest(name=name, outcome=outcome)  # type: ignore[arg-type]
        return refused(notify, "ReportDelivery", request)

    assert ask(suppressed, outcomes.OUTCOME_DELIVERED) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "MESSAGE_NOT_SENT",
    )
    assert ask(suppressed, outcomes.OUTCOME_OPT_OUT)[1] == "MESSAGE_NOT_SENT"
    assert ask(suppressed, 0) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert ask(f"{PARENT}/messages/{an_id('none')}", outcomes.OUTCOME_BOUNCED)[1] == "MESSAGE_NOT_FOUND"
    bounced = sent(notify).name
    report(notify, bounced, outcomes.OUTCOME_BOUNCED)
    assert ask(bounced, outcomes.OUTCOME_DELIVERED)[1] == "REPORT_TOO_LATE"


def delivery_report(to: str, *, action: str, status: str) -> bytes:
    """As Postfix makes them (RFC 3464)."""
    made = MIMEMultipart("report", report_type="delivery-status")
    made["From"] = "MAILER-DAEMON@mx.example"
    made["To"] = to
    made["Subject"] = "Undelivered Mail Returned to Sender"
    made.attach(MIMEText("This is the mail system at host mx.example."))
    machine = EmailMessage()
    machine["Reporting-MTA"] = "dns; mx.example"
    person = EmailMessage()
    person["Final-Recipient"] = f"rfc822; {address(1)}"
    person["Action"] = action
    person["Status"] = status
    blocks = MIMEMultipart("delivery-status", _subparts=None)
    del blocks["MIME-Version"]
    status_part = MIMEMessage(machine, "delivery-status")
    status_part.set_payload([machine, person])
    made.attach(status_part)
    return made.as_bytes()


@pytest.mark.parametrize(
    ("action", "status", "state", "reason_", "code"),
    [
        ("failed", "5.1.1", "BOUNCED", ["BOUNCED"], "DSN_5_1_1"),
        ("failed", "4.4.7", "FAILED", [], "DSN_4_4_7"),
        ("failed", "5.7.1", "FAILED", [], "DSN_5_7_1"),
        ("delayed", "4.2.0", "SENT", [], ""),
        ("delivered", "2.0.0", "DELIVERED", [], ""),
    ],
)
def test_a_delivery_report_to_the_return_path(
    notify: Notify,
    mail_server: MailServer,
    action: str,
    status: str,
    state: str,
    reason_: list[str],
    code: str,
) -> None:
    sent(notify)
    raw = delivery_report(mail_server.mails[0].mail_from, action=action, status=status)
    answer = notify.call("ReportMail", notify_service_pb2.ReportMailRequest(parent=PARENT, mail=raw))
    assert notify_pb2.Message.State.Name(answer.state) == f"STATE_{state}"
    assert answer.failure == code
    assert [row["reason"] for row in notify.rows("SELECT reason FROM suppressions")] == reason_


def test_an_answer_to_the_unsubscribe_address_opts_out(notify: Notify, mail_server: MailServer) -> None:
    sent(notify)
    unsubscribe = mail_server.mails[0].parsed["List-Unsubscribe"].strip("<>").removeprefix("mailto:")
    answer = EmailMessage()
    answer["To"] = unsubscribe.upper()  # servers may fold case
    answer["Subject"] = "sair"
    answer.set_content("nao quero mais")
    notify.call("ReportMail", notify_service_pb2.ReportMailRequest(parent=PARENT, mail=answer.as_bytes()))
    assert [row["reason"] for row in notify.rows("SELECT reason FROM suppressions")] == ["OPT_OUT"]


def test_mail_that_tells_nothing(notify: Notify, mail_server: MailServer) -> None:
    sent(notify)
    other = EmailMessage()
    other["To"] = "sales@recupera.example"
    other.set_content("buy")
    holiday = EmailMessage()
    holiday["To"] = mail_server.mails[0].mail_from
    holiday.set_content("I am away until Monday")
    foreign = EmailMessage()
    foreign["To"] = domain_mail.unsubscribe_address(OTHER_AGENCY, an_id("message"), "recupera.example")
    foreign.set_content("x")
    for raw, expected in (
        (b"", "MAIL_NOT_REPORT"),
        (b"\xff\xfe\x00 nothing", "MAIL_NOT_REPORT"),
        (other.as_bytes(), "MAIL_NOT_REPORT"),
        (holiday.as_bytes(), "MAIL_NOT_REPORT"),
        (foreign.as_bytes(), "MESSAGE_NOT_FOUND"),
    ):
        request = notify_service_pb2.ReportMailRequest(parent=PARENT, mail=raw)
        assert refused(notify, "ReportMail", request)[1] == expected


# -- templates ---------------------------------------------------------------------------------------------------------


def publish(notify: Notify, **fields: Any) -> Any:
    template = notify_pb2.Template(
        **{
            "code": "reminder-1",
            "language": "pt-BR",
            "channel": case_pb2.CHANNEL_EMAIL,
            "subject": "De {{ creditor.name }}",
            "body": BODY,
            **fields,
        }
    )
    return notify.call(
        "PublishTemplate", notify_service_pb2.PublishTemplateRequest(parent=PARENT, template=template)
    )


@pytest.mark.feature("S2-20", "S5-28")
def test_an_agencys_own_text_is_used_from_then_on(notify: Notify, mail_server: MailServer) -> None:
    made = publish(notify)
    assert made.version == 2
    assert made.name == f"{PARENT}/templates/reminder-1-pt-BR"
    assert publish(notify, subject="Novo").version == 3
    message = sent(notify)
    assert mail_server.mails[0].parsed["Subject"] == "Novo"
    assert message.template_version == 3


def test_templates_in_force_are_listed(notify: Notify) -> None:
    publish(notify, code="carta-1")
    found = []
    token = ""
    while True:
        page = notify.call(
            "ListTemplates",
            notify_service_pb2.ListTemplatesRequest(parent=PARENT, page_size=4, page_token=token),
        )
        found += list(page.templates)
        token = page.next_page_token
        if not token:
            break
    names = [template.name.rpartition("/")[2] for template in found]
    assert names == sorted(names)
    assert len(names) == 9
    assert {"carta-1-pt-BR", "agreement-reminder-pt-PT", "notice-1-pt-BR"} <= set(names)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"body": BODY.replace("{{ creditor.address }}", "")}, "R07"),
        ({"body": BODY + "{{ debtor.cpf }}"}, "unknown"),
        ({"body": BODY + "{% if %}"}, "line 1"),
        ({"language": "en"}, "pt-BR"),
        ({"subject": ""}, "subject"),
    ],
)
def test_a_bad_template_is_refused_with_its_field(
    notify: Notify, fields: dict[str, Any], expected: str
) -> None:
    with pytest.raises(grpc.RpcError) as error:
        publish(notify, **fields)
    assert reason(error) == (grpc.StatusCode.INVALID_ARGUMENT, "TEMPLATE_REFUSED")
    status = rpc_status.from_call(error.value)
    bad = error_details_pb2.BadRequest()
    assert status.details[1].Unpack(bad)
    assert expected in bad.field_violations[0].field + bad.field_violations[0].description
    assert notify.rows("SELECT * FROM templates") == []


def test_a_template_keeps_its_channel(notify: Notify) -> None:
    with pytest.raises(grpc.RpcError) as error:
        publish(notify, channel=case_pb2.CHANNEL_SMS, subject="")
    assert reason(error) == (grpc.StatusCode.FAILED_PRECONDITION, "TEMPLATE_CHANNEL_FIXED")
    with pytest.raises(grpc.RpcError) as error:
        publish(notify, channel=case_pb2.CHANNEL_LETTER)
    assert reason(error)[1] == "INVALID_REQUEST"


# -- summary, isolation ------------------------------------------------------------------------------------------------


def test_counts(notify: Notify, case_service: CaseService) -> None:
    later = NOW + datetime.timedelta(hours=1)
    case_service.refusals = {case(1): ("R05", None), case(2): ("R01", later)}

    def summary(**fields: Any) -> Any:
        return notify.call(
            "SummarizeMessages", notify_service_pb2.SummarizeMessagesRequest(parent=PARENT, **fields)
        )

    notify.deliver(notify.steps_due([1, 2, 3]))
    before = summary()
    assert (before.messages, before.due, before.outbox) == (3, 3, 0)
    notify.tick()
    after = summary()
    assert after.by_state == {"SUPPRESSED": 1, "SCHEDULED": 1, "SENT": 1}
    assert after.by_rule == {"R05": 1}
    assert (after.messages, after.due, after.parked) == (3, 0, 0)
    assert after.outbox > 0
    notify.set_clock(later, version=2)
    assert summary().due == 1
    assert summary(date=dates.to_proto(DATE + datetime.timedelta(days=1))).messages == 0
    assert summary(date=dates.to_proto(DATE)).messages == 3


def test_another_agency_sees_and_changes_nothing(notify: Notify) -> None:
    message = sent(notify)
    publish(notify, code="carta-1")
    report(notify, message.name, notify_service_pb2.ReportDeliveryRequest.OUTCOME_BOUNCED)
    notify.agency = OTHER_AGENCY
    notify.set_clock()
    parent = f"agencies/{OTHER_AGENCY}"
    assert not notify.call("ListMessages", notify_service_pb2.ListMessagesRequest(parent=parent)).messages
    assert not notify.call(
        "ListSuppressions", notify_service_pb2.ListSuppressionsRequest(parent=parent)
    ).suppressions
    listed = notify.call("ListTemplates", notify_service_pb2.ListTemplatesRequest(parent=parent)).templates
    assert "carta-1" not in {template.code for template in listed}
    assert refused(notify, "GetMessage", notify_service_pb2.GetMessageRequest(name=message.name)) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "AGENCY_MISMATCH",
    )
    mine = message.name.replace(str(AGENCY), str(OTHER_AGENCY))
    assert refused(notify, "GetMessage", notify_service_pb2.GetMessageRequest(name=mine)) == (
        grpc.StatusCode.NOT_FOUND,
        "MESSAGE_NOT_FOUND",
    )
    assert UUID(message.case_id) == case(1)


def test_republish_tells_the_present_state_again(notify: Notify) -> None:
    from notify_service import store
    from notify_service.usecases import reports
    from servicekit import db, testing

    message = sent(notify)
    notify.deliver(notify.steps_due(list(range(2, 30))))
    notify.tick()
    report(notify, message.name, notify_service_pb2.ReportDeliveryRequest.OUTCOME_BOUNCED)
    testing.take(notify.engine)
    with db.begin(notify.engine, agency=AGENCY) as tx:
        assert reports.republish_messages(tx, AGENCY, after=store.NO_ID) is None
        assert reports.republish_suppressions(tx, AGENCY, after=store.NO_ID) is None
    told = notify.told()
    assert sorted(row[1] for row in told) == list(range(1, 30))
    assert ("BOUNCED", 1, True, "") in told
    assert len(notify.published("contact_point_suppressed")) == 1
