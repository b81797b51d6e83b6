"""Sending: a port per channel, and the one provider there is, SMTP.

A provider says of every letter exactly one verdict. What decides is whether the text was given away: before
the DATA command nothing was sent (AWAY), after it without an answer nobody can say (UNKNOWN).
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import email.message
import email.policy
import email.utils
import logging
import re
import smtplib
import uuid
from collections.abc import Generator
from contextlib import AbstractContextManager
from typing import Protocol

from notify_service.domain import mail, messages
from notify_service.providers import texts

TIMEOUT = 30.0
"""Seconds for each answer of the mail server."""

_POLICY = email.policy.SMTP.clone(cte_type="7bit")
_ADDRESS = re.compile(r"[^\s<>()\[\]\\,;:\"@]{1,64}@[A-Za-z0-9.-]{1,253}", re.ASCII)
_POLICY_REFUSAL = re.compile(rb"\s*5\.7\.\d")
_UNAVAILABLE = 421
"""The server closes the connection (RFC 5321 §4.2.1)."""
_log = logging.getLogger("recupera.notify.mail")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Letter:
    """A message ready to go. Personal data: held in memory for the act only."""

    agency: uuid.UUID
    message_id: uuid.UUID
    address: str = dataclasses.field(repr=False)
    person_name: str = dataclasses.field(repr=False)
    language: str
    text: texts.Text
    time: datetime.datetime


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the other side said; `code` is stable: SMTP_550, CONNECTION, ADDRESS_INVALID."""

    verdict: messages.Verdict
    code: str


class Line(Protocol):
    """An open way to a provider."""

    def send(self, letter: Letter) -> Answer:
        """Send one letter, once. Never raises for what the other side does."""


class Provider(Protocol):
    """A provider of one channel. Another one (SMS) is added in `__main__` by giving it here the same two
    methods.
    """

    def act_key(self, message_id: uuid.UUID) -> str:
        """The key by which the other side knows the act: fixed before it, from the message's id alone."""

    def unsubscribe(self, agency: uuid.UUID, message_id: uuid.UUID) -> str:
        """How the person says "no more", as written in the text."""

    def line(self) -> AbstractContextManager[Line]:
        """For one slice of letters."""


class Mailer:
    """E-mail over SMTP: one connection for a slice, opened at the first letter and again when it broke."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        sender: str,
        sender_name: str = "",
        public_url: str | None = None,
        starttls: bool = False,
        username: str | None = None,
        password: str | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._sender = sender
        self._from = email.utils.formataddr((sender_name, sender))
        self._domain = sender.rpartition("@")[2]
        self._public_url = public_url.rstrip("/") if public_url else None
        self._starttls = starttls
        self._login = (username, password) if username and password else None

    def act_key(self, message_id: uuid.UUID) -> str:
        """The Message-ID."""
        return mail.message_id(message_id, self._domain)

    def unsubscribe(self, agency: uuid.UUID, message_id: uuid.UUID) -> str:
        """The link where a public address is set, else the mail address."""
        if self._public_url:
            return f"{self._public_url}/u/{mail.unsubscribe_token(agency, message_id)}"
        return mail.unsubscribe_address(agency, message_id, self._domain)

    @contextlib.contextmanager
    def line(self) -> Generator[Line]:
        """Closes the connection at the end."""
        line = _SmtpLine(self)
        try:
            yield line
        finally:
            line.close()

    def connect(self) -> smtplib.SMTP:
        """A connection that said hello, over TLS and logged in where set. Raises OSError,
        smtplib.SMTPException.
        """
        connection = smtplib.SMTP(self._host, self._port, local_hostname=self._domain, timeout=TIMEOUT)
        try:
            connection.ehlo_or_helo_if_needed()
            if self._starttls:
                connection.starttls()
            if self._login:
                connection.login(*self._login)
        except BaseException:
            connection.close()
            raise
        return connection

    def envelope(self, letter: Letter) -> tuple[str, bytes]:
        """(return path, the mail as bytes with CRLF): what DATA carries before dots are doubled."""
        away = mail.unsubscribe_address(letter.agency, letter.message_id, self._domain)
        found = email.message.EmailMessage(policy=_POLICY)
        found["From"] = self._from
        found["To"] = email.utils.formataddr((" ".join(letter.person_name.split()), letter.address))
        found["Subject"] = letter.text.subject
        found["Date"] = letter.time
        found["Message-ID"] = self.act_key(letter.message_id)
        found["Auto-Submitted"] = "auto-generated"
        found["Content-Language"] = letter.language
        if self._public_url:
            found["List-Unsubscribe"] = (
                f"<{self.unsubscribe(letter.agency, letter.message_id)}>, <mailto:{away}>"
            )
            found["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        else:
            found["List-Unsubscribe"] = f"<mailto:{away}>"
        found.set_content(letter.text.body, charset="utf-8")
        return mail.return_address(letter.agency, letter.message_id, self._domain), found.as_bytes()


class _Away(Exception):
    """The connection went before the text was given."""


class _SmtpLine:
    def __init__(self, mailer: Mailer) -> None:
        self._mailer = mailer
        self._connection: smtplib.SMTP | None = None

    def send(self, letter: Letter) -> Answer:
        """MAIL, RCPT, DATA, text: one answer. A connection found broken is opened again once, before
        anything was sent.
        """
        if not _ADDRESS.fullmatch(letter.address):
            return Answer(messages.Verdict.NO_SUCH_ADDRESS, "ADDRESS_INVALID")
        return_path, data = self._mailer.envelope(letter)
        used_before = self._connection is not None
        try:
            return self._transmit(return_path, letter.address, data)
        except _Away:
            if not used_before:
                return Answer(messages.Verdict.AWAY, "CONNECTION")
        try:
            return self._transmit(return_path, letter.address, data)
        except _Away:
            return Answer(messages.Verdict.AWAY, "CONNECTION")

    def close(self) -> None:
        """Say goodbye."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError, smtplib.SMTPException):
                connection.quit()
            connection.close()

    def _transmit(self, return_path: str, address: str, data: bytes) -> Answer:
        try:
            refused = self._before_text(return_path, address)
        except (OSError, smtplib.SMTPException) as error:
            _log.warning("the mail server is away", extra={"problem": type(error).__name__})
            self._drop()
            raise _Away from None
        if refused is not None:
            self._reset()
            return refused
        return self._text(data)

    def _before_text(self, return_path: str, address: str) -> Answer | None:
        """None: the server waits for the text."""
        if self._connection is None:
            self._connection = self._mailer.connect()
        connection = self._connection
        code, reply = connection.mail(return_path)
        if code // 100 == 2:
            code, reply = connection.rcpt(address)
            if code // 100 == 5 and not _POLICY_REFUSAL.match(reply):
                return Answer(messages.Verdict.NO_SUCH_ADDRESS, f"SMTP_{code}")
            if code // 100 == 2:
                code, reply = connection.docmd("DATA")
                if code == 354:
                    return None
        if code == _UNAVAILABLE:
            raise smtplib.SMTPServerDisconnected("421")
        return Answer(_refusal(code), f"SMTP_{code}")

    def _text(self, data: bytes) -> Answer:
        connection = self._connection
        assert connection is not None
        try:
            connection.send(
                re.sub(rb"(?m)^\.", b"..", data) + (b"" if data.endswith(b"\r\n") else b"\r\n") + b".\r\n"
            )
            code, _ = connection.getreply()
        except (OSError, smtplib.SMTPException) as error:
            _log.warning("no answer to a text that was given", extra={"problem": type(error).__name__})
            self._drop()
            return Answer(messages.Verdict.UNKNOWN, "NO_ANSWER")
        if code // 100 == 2:
            return Answer(messages.Verdict.ACCEPTED, f"SMTP_{code}")
        if code == _UNAVAILABLE:
            self._drop()
        return Answer(_refusal(code), f"SMTP_{code}")

    def _reset(self) -> None:
        """Forget the transaction that was refused; the next letter finds out if the connection is gone."""
        if self._connection is not None:
            try:
                self._connection.rset()
            except (OSError, smtplib.SMTPException):
                self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _refusal(code: int) -> messages.Verdict:
    return messages.Verdict.TRANSIENT if code // 100 == 4 else messages.Verdict.PERMANENT
