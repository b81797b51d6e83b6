"""Addresses that carry ids, and what mail that comes back says."""

import contextlib
import datetime
import email
import email.policy
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notify_service.domain import mail
from notify_service.providers import mail as smtp
from notify_service.providers import texts

AGENCY = uuid.UUID("01890000-0000-7000-8000-000000000001")
MESSAGE = uuid.UUID("01890000-0000-7000-8000-0000000000aa")
DOMAIN = "recupera.example"

POSTFIX = """\
Return-Path: <>
Delivered-To: {to}
From: MAILER-DAEMON@mx.example (Mail Delivery System)
Subject: Undelivered Mail Returned to Sender
To: {to}
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="X"

--X
Content-Type: text/plain; charset=us-ascii

I'm sorry to have to inform you that your message could not be delivered.

--X
Content-Description: Delivery report
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example
X-Postfix-Queue-ID: 4AB12C

Final-Recipient: rfc822; someone@example.org
Original-Recipient: rfc822;someone@example.org
Action: {action}
Status: {status}
Diagnostic-Code: smtp; 550 5.1.1 user unknown

--X
Content-Type: text/rfc822-headers

Message-ID: <x@recupera.example>

--X--
"""


def postfix(action: str = "failed", status: str = "5.1.1") -> bytes:
    to = mail.return_address(AGENCY, MESSAGE, DOMAIN)
    return POSTFIX.format(to=to, action=action, status=status).replace("\n", "\r\n").encode()


@pytest.mark.parametrize(
    ("action", "status", "outcome", "code"),
    [
        ("failed", "5.1.1", mail.Outcome.BOUNCED, "DSN_5_1_1"),
        ("failed", "5.2.1 (disabled)", mail.Outcome.BOUNCED, "DSN_5_2_1"),
        ("Failed", "5.7.26", mail.Outcome.FAILED, "DSN_5_7_26"),
        ("failed", "4.4.1", mail.Outcome.FAILED, "DSN_4_4_1"),
        ("failed", "nonsense", mail.Outcome.BOUNCED, "DSN_5_0_0"),
        ("delayed", "4.4.1", mail.Outcome.DELAYED, "DSN_4_4_1"),
        ("delivered", "2.0.0", mail.Outcome.DELIVERED, "DSN_2_0_0"),
        ("relayed", "2.1.9", mail.Outcome.DELIVERED, "DSN_2_1_9"),
    ],
)
def test_a_delivery_report(action: str, status: str, outcome: mail.Outcome, code: str) -> None:
    assert mail.read(postfix(action, status)) == mail.Report(
        agency=AGENCY, message_id=MESSAGE, outcome=outcome, code=code
    )


def test_an_abuse_report_is_a_complaint() -> None:
    raw = postfix().replace(b"message/delivery-status", b"message/feedback-report")
    assert mail.read(raw).outcome is mail.Outcome.COMPLAINT


def test_a_report_that_names_nothing_tells_nothing() -> None:
    with pytest.raises(mail.MailNotReport):
        mail.read(postfix(action="unheard-of"))
    with pytest.raises(mail.MailNotReport):
        mail.read(b"x" * (mail.MAX_MAIL + 1))


@given(st.binary(max_size=400))
def test_any_bytes_are_a_report_or_a_typed_refusal(raw: bytes) -> None:
    with pytest.raises(mail.MailNotReport):
        mail.read(raw)


@given(st.binary(max_size=200), st.integers(0, 800))
def test_a_damaged_report_never_fails_otherwise(noise: bytes, at: int) -> None:
    raw = postfix()
    with contextlib.suppress(mail.MailNotReport):
        mail.read(raw[:at] + noise + raw[at:])


@given(st.uuids(), st.uuids())
def test_addresses_carry_both_ids_within_the_limit(agency: uuid.UUID, message: uuid.UUID) -> None:
    for kind, address in (
        ("b", mail.return_address(agency, message, DOMAIN)),
        ("u", mail.unsubscribe_address(agency, message, DOMAIN)),
    ):
        local = address.partition("@")[0]
        assert len(local) <= 64
        assert local == local.lower()
        raw = f"To: <{address.upper()}>\r\n\r\nno more".encode()
        if kind == "u":
            found = mail.read(raw)
            assert (found.agency, found.message_id, found.outcome) == (agency, message, mail.Outcome.OPT_OUT)
        else:
            with pytest.raises(mail.MailNotReport):
                mail.read(raw)


def a_letter(**fields: object) -> smtp.Letter:
    given_fields: dict[str, object] = {
        "agency": AGENCY,
        "message_id": MESSAGE,
        "address": "someone@example.org",
        "person_name": "José da Conceição",
        "language": "pt-BR",
        "text": texts.Text(subject="Atenção: R$\xa01,00", body="Olá\n.ponto no começo\n"),
        "time": datetime.datetime(2026, 3, 2, 13, 0, tzinfo=datetime.UTC),
        **fields,
    }
    return smtp.Letter(**given_fields)  # type: ignore[arg-type]


def test_the_mail_is_seven_bit_and_says_how_to_unsubscribe() -> None:
    mailer = smtp.Mailer(
        host="h", port=25, sender="cobranca@recupera.example", public_url="https://recupera.example/"
    )
    return_path, data = mailer.envelope(a_letter())
    assert data.isascii()
    assert return_path == mail.return_address(AGENCY, MESSAGE, DOMAIN)
    parsed = email.message_from_bytes(data, policy=email.policy.default)
    assert parsed["To"] == "José da Conceição <someone@example.org>"
    assert parsed["Subject"] == "Atenção: R$\xa01,00"
    assert parsed["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    link = f"https://recupera.example/u/{mail.unsubscribe_token(AGENCY, MESSAGE)}"
    assert str(parsed["List-Unsubscribe"]).startswith(f"<{link}>, <mailto:u.")
    assert mailer.unsubscribe(AGENCY, MESSAGE) == link
    assert ".ponto no começo" in parsed.get_content()


def test_the_message_id_is_the_messages_own() -> None:
    mailer = smtp.Mailer(host="h", port=25, sender="cobranca@recupera.example")
    assert mailer.act_key(MESSAGE) == f"<{MESSAGE}@recupera.example>"
    assert mailer.act_key(MESSAGE) == mailer.act_key(MESSAGE)


def test_a_name_cannot_add_a_header() -> None:
    mailer = smtp.Mailer(host="h", port=25, sender="cobranca@recupera.example")
    _, data = mailer.envelope(a_letter(person_name="X\r\nBcc: y@z.example"))
    parsed = email.message_from_bytes(data, policy=email.policy.default)
    assert parsed["Bcc"] is None
