"""The development mailbox: a real SMTP server that keeps every message, and a small HTTP server to look at them.

SMTP: accepts mail for anybody, unless a rule says otherwise. HTTP, on 127.0.0.1 only:

    GET    /                       the messages, for a person
    GET    /messages               {"count", "messages": [...]}, newest first; ?recipient= ?message_id= ?limit= (100)
    GET    /messages/{id}          one message with headers, text and html
    DELETE /messages               forget all
    GET    /rules, PUT /rules      [{"pattern": "regex on the recipient", "action": "refuse" | "defer" | "bounce"}]
    GET    /health

`refuse` answers 550 5.1.1 and `defer` 451 4.3.0 to RCPT TO; `bounce` accepts the message and answers with a delivery
report (RFC 3464) to its envelope sender, which is found in the mailbox too. The first rule that matches counts.
Messages and rules are kept in `FOLDER/mailbox.sqlite`.
"""

import argparse
import email
import email.message
import email.policy
import email.utils
import html
import http.server
import json
import re
import signal
import sqlite3
import sys
import threading
import urllib.parse
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path
from typing import Any

from aiosmtpd import controller, smtp

ANSWERS = {"refuse": "550 5.1.1 no such mailbox", "defer": "451 4.3.0 try again later"}
ACTIONS = (*ANSWERS, "bounce")
MAXIMUM_SIZE = 32 * 1024 * 1024


class RuleInvalid(ValueError):
    """A rule is not {"pattern": regex, "action": one of ACTIONS}."""


class Store:
    """Messages and rules in one SQLite file; thread safe."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._connection.executescript(
            """
            PRAGMA journal_mode = WAL;
            PRAGMA synchronous = OFF;
            CREATE TABLE IF NOT EXISTS messages (
                id integer PRIMARY KEY AUTOINCREMENT, received_at text NOT NULL, sender text NOT NULL,
                recipient text NOT NULL, message_id text NOT NULL, subject text NOT NULL, raw blob NOT NULL);
            CREATE INDEX IF NOT EXISTS messages_recipient ON messages (recipient);
            CREATE INDEX IF NOT EXISTS messages_message_id ON messages (message_id);
            CREATE TABLE IF NOT EXISTS rules (
                position integer PRIMARY KEY, pattern text NOT NULL, action text NOT NULL);
            """
        )

    def add(self, *, sender: str, recipients: Sequence[str], raw: bytes) -> None:
        """Keep one copy a recipient."""
        message = email.message_from_bytes(raw, policy=email.policy.default)
        rows = [
            (
                datetime.now(UTC).isoformat(),
                sender,
                recipient,
                str(message.get("Message-ID", "")).strip(),
                str(message.get("Subject", "")),
                raw,
            )
            for recipient in recipients
        ]
        with self._lock, self._connection:
            self._connection.execute("BEGIN")
            self._connection.executemany(
                "INSERT INTO messages (received_at, sender, recipient, message_id, subject, raw) VALUES (?,?,?,?,?,?)",
                rows,
            )

    def count(self) -> int:
        """How many messages are kept."""
        with self._lock:
            return int(self._connection.execute("SELECT count(*) FROM messages").fetchone()[0])

    def find(self, *, recipient: str | None, message_id: str | None, limit: int) -> list[dict[str, Any]]:
        """Messages without their content, newest first."""
        with self._lock:
            found = self._connection.execute(
                "SELECT id, received_at, sender, recipient, message_id, subject FROM messages"
                " WHERE (:recipient IS NULL OR recipient = :recipient)"
                " AND (:message_id IS NULL OR message_id = :message_id) ORDER BY id DESC LIMIT :limit",
                {"recipient": recipient, "message_id": message_id, "limit": limit},
            )
            return [dict(row) for row in found]

    def get(self, number: int) -> dict[str, Any] | None:
        """One message with its content, None when there is none of that number."""
        with self._lock:
            row = self._connection.execute("SELECT * FROM messages WHERE id = ?", [number]).fetchone()
        if row is None:
            return None
        message = email.message_from_bytes(row["raw"], policy=email.policy.default)
        bodies = {kind: message.get_body(preferencelist=(kind,)) for kind in ("plain", "html")}
        return {
            **{
                name: row[name]
                for name in ("id", "received_at", "sender", "recipient", "message_id", "subject")
            },
            "headers": [[name, str(value)] for name, value in message.items()],
            "text": bodies["plain"].get_content() if bodies["plain"] else "",
            "html": bodies["html"].get_content() if bodies["html"] else "",
            "raw": row["raw"].decode("utf-8", errors="replace"),
        }

    def clear(self) -> None:
        """Forget all messages."""
        with self._lock:
            self._connection.execute("DELETE FROM messages")

    def rules(self) -> list[dict[str, str]]:
        """The rules in their order."""
        with self._lock:
            return [
                dict(row)
                for row in self._connection.execute("SELECT pattern, action FROM rules ORDER BY position")
            ]

    def replace_rules(self, rules: Sequence[Mapping[str, str]]) -> None:
        """Put these rules in place of the former ones. Raises RuleInvalid."""
        try:
            rows = [(index, rule["pattern"], rule["action"]) for index, rule in enumerate(rules)]
            for _, pattern, action in rows:
                re.compile(pattern)
                if action not in ACTIONS:
                    raise RuleInvalid(f"action is {action!r}, not one of {', '.join(ACTIONS)}")
        except (KeyError, TypeError, re.error) as error:
            raise RuleInvalid(f'a rule is {{"pattern": regex, "action": ..}}: {error!r}') from error
        with self._lock, self._connection:
            self._connection.execute("BEGIN")
            self._connection.execute("DELETE FROM rules")
            self._connection.executemany("INSERT INTO rules VALUES (?, ?, ?)", rows)

    def action(self, recipient: str) -> str | None:
        """What a rule says about mail to the recipient."""
        return next((rule["action"] for rule in self.rules() if re.search(rule["pattern"], recipient)), None)


class Receiver:
    """aiosmtpd's handler: what happens to mail that comes in."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def handle_RCPT(  # noqa: N802 (the name is aiosmtpd's)
        self,
        _server: smtp.SMTP,
        _session: smtp.Session,
        envelope: smtp.Envelope,
        address: str,
        _options: list[str],
    ) -> str:
        """Refuse or defer the recipient if a rule says so."""
        answer = ANSWERS.get(self._store.action(address) or "")
        if answer is not None:
            return answer
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(  # noqa: N802 (the name is aiosmtpd's)
        self, _server: smtp.SMTP, _session: smtp.Session, envelope: smtp.Envelope
    ) -> str:
        """Keep the message; answer with a delivery report where a rule says that it bounces."""
        raw = envelope.content if isinstance(envelope.content, bytes) else (envelope.content or "").encode()
        sender = envelope.mail_from or ""
        self._store.add(sender=sender, recipients=envelope.rcpt_tos, raw=raw)
        for recipient in envelope.rcpt_tos:
            if sender and self._store.action(recipient) == "bounce":
                self._store.add(sender="", recipients=[sender], raw=delivery_report(sender, recipient, raw))
        return "250 2.0.0 kept"


def delivery_report(sender: str, recipient: str, raw: bytes) -> bytes:
    """A multipart/report of a permanent failure (RFC 3464), with the headers of the message that failed."""
    report = MIMEMultipart("report")
    report.set_param("report-type", "delivery-status")
    report["From"] = "Mail Delivery System <mailer-daemon@mailbox.local>"
    report["To"] = sender
    report["Subject"] = "Undelivered Mail Returned to Sender"
    report["Date"] = email.utils.formatdate()
    report["Message-ID"] = email.utils.make_msgid(domain="mailbox.local")
    report.attach(MIMEText(f"Your message could not be delivered to {recipient}: no such mailbox.\n"))
    status = email.message.Message()
    status["Content-Type"] = "message/delivery-status"
    groups = (
        "Reporting-MTA: dns; mailbox.local\n\n",
        f"Final-Recipient: rfc822; {recipient}\nAction: failed\nStatus: 5.1.1\n"
        "Diagnostic-Code: smtp; 550 5.1.1 no such mailbox\n\n",
    )
    status.set_payload([email.message_from_string(group) for group in groups])
    report.attach(status)
    report.attach(
        MIMEMessage(email.message_from_bytes(raw.split(b"\r\n\r\n", 1)[0] + b"\r\n\r\n"), "rfc822-headers")
    )
    return report.as_bytes()


class Page(http.server.BaseHTTPRequestHandler):
    """The HTTP side; `store` is set on the class that `serve` makes."""

    store: Store
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Look at something."""
        url = urllib.parse.urlsplit(self.path)
        query = {name: values[-1] for name, values in urllib.parse.parse_qs(url.query).items()}
        message = re.fullmatch(r"/messages/(\d{1,18})", url.path)
        if url.path == "/":
            self._answer(200, _page(self.store), "text/html; charset=utf-8")
        elif url.path == "/health":
            self._answer(200, {"status": "SERVING"})
        elif url.path == "/rules":
            self._answer(200, self.store.rules())
        elif url.path == "/messages":
            limit = query.get("limit", "100")
            if not limit.isdigit():
                self._answer(400, {"message": "limit is not a number"})
                return
            found = self.store.find(
                recipient=query.get("recipient"),
                message_id=query.get("message_id"),
                limit=min(int(limit), 100_000),
            )
            self._answer(200, {"count": self.store.count(), "messages": found})
        elif message and (content := self.store.get(int(message[1]))) is not None:
            self._answer(200, content)
        else:
            self._answer(404, {"message": f"nothing at {url.path}"})

    def do_PUT(self) -> None:
        """Replace the rules."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/rules":
            self._answer(404, {"message": f"nothing at {self.path}"})
            return
        try:
            self.store.replace_rules(json.loads(body))
        except ValueError as error:
            self._answer(400, {"message": str(error)})
            return
        self._answer(200, self.store.rules())

    def do_DELETE(self) -> None:
        """Forget the messages."""
        if self.path != "/messages":
            self._answer(404, {"message": f"nothing at {self.path}"})
            return
        self.store.clear()
        self._answer(200, {"count": 0})

    def _answer(self, status: int, body: object, kind: str = "application/json") -> None:
        content = body.encode() if isinstance(body, str) else json.dumps(body, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments: object) -> None:
        """Requests are not logged: the health checks would fill the file."""


def _page(store: Store) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(row['received_at'][:19])}<td>{html.escape(row['recipient'])}"
        f'<td><a href="/messages/{row["id"]}">{html.escape(row["subject"]) or "(no subject)"}</a>'
        for row in store.find(recipient=None, message_id=None, limit=200)
    )
    return (
        '<!doctype html><meta charset="utf-8"><title>Mailbox</title>'
        "<style>body{font:15px sans-serif;margin:2em}td{padding:.2em 1em .2em 0}</style>"
        f"<h1>{store.count()} messages</h1><table>{rows}</table>"
    )


def serve(*, smtp_port: int, http_port: int, folder: Path, smtp_host: str = "127.0.0.1") -> None:
    """Serve until SIGTERM."""
    store = Store(folder / "mailbox.sqlite")
    receiving = controller.Controller(
        Receiver(store),
        hostname=smtp_host,
        port=smtp_port,
        data_size_limit=MAXIMUM_SIZE,
        enable_SMTPUTF8=True,
    )
    receiving.start()
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", http_port), type("BoundPage", (Page,), {"store": store})
    )
    server.daemon_threads = True
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(poll_interval=0.1)
    receiving.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the development mailbox."""
    parser = argparse.ArgumentParser(prog="python -m recupera_local.mailbox", description=main.__doc__)
    parser.add_argument("--smtp", type=int, required=True, metavar="PORT")
    parser.add_argument("--http", type=int, required=True, metavar="PORT")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--smtp-host", default="127.0.0.1", help="address on which SMTP listens")
    chosen = parser.parse_args(arguments)
    serve(smtp_port=chosen.smtp, http_port=chosen.http, folder=chosen.folder, smtp_host=chosen.smtp_host)
    return 0


if __name__ == "__main__":
    sys.exit(main())
