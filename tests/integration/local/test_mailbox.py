"""The development mailbox, over real SMTP and HTTP."""

import email
import email.message
import email.policy
import smtplib
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from recupera_local import ports, processes


class Mailbox:
    """A running mailbox of this test's own."""

    def __init__(self, folder: Path) -> None:
        self.smtp_port, self.http_port = ports.free_ports(2)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.http_port}")
        self.process = processes.Process(
            name="mailbox",
            command=[
                sys.executable, "-m", "recupera_local.mailbox",
                "--smtp", str(self.smtp_port), "--http", str(self.http_port), "--folder", str(folder),
            ],
            log=folder / "mailbox.log",
            ready=lambda: processes.listening(self.http_port),
        )  # fmt: skip

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.process.start()
        self.process.wait_ready()

    def send(
        self, recipient: str, *, sender: str = "sender@agency.example", subject: str = "Olá, João"
    ) -> None:
        """Send a message by SMTP."""
        message = email.message.EmailMessage(policy=email.policy.SMTP)
        message["From"], message["To"], message["Subject"] = sender, recipient, subject
        message["Message-ID"] = f"<{recipient}>"
        message.set_content("R$ 10,00 até amanhã\n")
        with smtplib.SMTP("127.0.0.1", self.smtp_port) as client:
            client.send_message(message)


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[Mailbox]:
    """A mailbox."""
    made = Mailbox(tmp_path)
    made.start()
    yield made
    made.process.kill()
    made.http.close()


def test_message_is_kept_and_found_by_recipient_and_message_id(mailbox: Mailbox) -> None:
    mailbox.send("a@people.example")
    mailbox.send("b@people.example")
    [found] = mailbox.http.get("/messages", params={"recipient": "b@people.example"}).json()["messages"]
    assert found["subject"] == "Olá, João"
    assert mailbox.http.get("/messages", params={"message_id": "<b@people.example>"}).json()["messages"] == [
        found
    ]
    content = mailbox.http.get(f"/messages/{found['id']}").json()
    assert content["text"].strip() == "R$ 10,00 até amanhã"
    assert content["sender"] == "sender@agency.example"
    assert "2 messages" in mailbox.http.get("/").text


def test_messages_survive_sigkill(mailbox: Mailbox) -> None:
    mailbox.send("a@people.example")
    mailbox.process.kill()
    mailbox.start()
    assert mailbox.http.get("/messages").json()["count"] == 1


def test_rules_refuse_defer_and_bounce(mailbox: Mailbox) -> None:
    rules = [
        {"pattern": "^gone@", "action": "refuse"},
        {"pattern": "^later@", "action": "defer"},
        {"pattern": "^bounce@", "action": "bounce"},
    ]
    assert mailbox.http.put("/rules", json=rules).json() == rules
    for recipient, code in (("gone@x.example", 550), ("later@x.example", 451)):
        with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            mailbox.send(recipient)
        assert refused.value.recipients[recipient][0] == code
    mailbox.send("bounce@x.example", sender="verp+1@agency.example")
    [report] = mailbox.http.get("/messages", params={"recipient": "verp+1@agency.example"}).json()["messages"]
    parsed = email.message_from_string(mailbox.http.get(f"/messages/{report['id']}").json()["raw"])
    assert parsed.get_content_type() == "multipart/report"
    [status] = [part for part in parsed.walk() if part.get_content_type() == "message/delivery-status"]
    assert status.get_payload()[1]["Status"] == "5.1.1"  # type: ignore[index, union-attr]
    assert status.get_payload()[1]["Final-Recipient"] == "rfc822; bounce@x.example"  # type: ignore[index, union-attr]


@pytest.mark.parametrize(
    "body",
    ["[{}]", "nonsense", '[{"pattern": "(", "action": "refuse"}]', '[{"pattern": "x", "action": "eat"}]'],
)
def test_bad_rules_are_refused(mailbox: Mailbox, body: str) -> None:
    assert mailbox.http.put("/rules", content=body).status_code == 400
    assert mailbox.http.get("/rules").json() == []
