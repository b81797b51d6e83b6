"""Addresses that carry a message's id, and mail that comes back to them: delivery reports and opt-outs.

The return path (VERP) and the unsubscribe address of every mail hold the ids of agency and message in
base32, lower case (servers may fold case; a local part has at most 64 characters, RFC 5321 §4.5.3.1.1). An
id is a UUIDv7 of 74 random bits:
knowing the address is having got, or returned, the mail.
"""

from __future__ import annotations

import base64
import dataclasses
import email.message
import email.policy
import enum
import re
import uuid

from servicekit import errors

MAX_MAIL = 1024 * 1024
"""Bytes of a mail that is read."""

_ADDRESS = re.compile(r"\b([bu])\.([a-z2-7]{26})\.([a-z2-7]{26})@", re.ASCII)
_STATUS = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})", re.ASCII)
_RECIPIENT_HEADERS = ("Delivered-To", "X-Original-To", "Envelope-To", "To")


class Outcome(enum.StrEnum):
    """What a mail that came back says about a message."""

    DELIVERED = "DELIVERED"
    BOUNCED = "BOUNCED"
    """The address does not work: it must not be used again."""
    FAILED = "FAILED"
    """This message will not arrive; nothing is said against the address (4.x.x given up, or 5.7.x policy)."""
    DELAYED = "DELAYED"
    """The mail server still tries."""
    COMPLAINT = "COMPLAINT"
    OPT_OUT = "OPT_OUT"


class MailNotReport(errors.ServiceError):
    """A mail that is neither a delivery report nor an opt-out of one of our messages."""

    status = errors.Status.INVALID_ARGUMENT


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What a mail tells. `code`: stable, e.g. DSN_5_1_1."""

    agency: uuid.UUID
    message_id: uuid.UUID
    outcome: Outcome
    code: str


def message_id(message: uuid.UUID, domain: str) -> str:
    """The Message-ID of a message: the same at every attempt, so that two copies could be told to be one."""
    return f"<{message}@{domain}>"


def return_address(agency: uuid.UUID, message: uuid.UUID, domain: str) -> str:
    """Envelope sender of a message: where reports about it come (VERP)."""
    return f"b.{_text(agency)}.{_text(message)}@{domain}"


def unsubscribe_address(agency: uuid.UUID, message: uuid.UUID, domain: str) -> str:
    """Where a mail that says "no more" comes (RFC 2369)."""
    return f"u.{_text(agency)}.{_text(message)}@{domain}"


def unsubscribe_token(agency: uuid.UUID, message: uuid.UUID) -> str:
    """The same two ids for a link (RFC 8058)."""
    return f"{_text(agency)}.{_text(message)}"


def read(raw: bytes) -> Report:
    """Read a mail that came to a return or unsubscribe address.

    A delivery report (RFC 3464, `message/delivery-status`) says failed, delayed, delivered, relayed or
    expanded; an abuse report (RFC 5965) is a COMPLAINT; any other mail to an unsubscribe address is an
    OPT_OUT. Raises MailNotReport.
    """
    if len(raw) > MAX_MAIL:
        raise MailNotReport("the mail is too large to be a report", limit_bytes=MAX_MAIL)
    parsed = email.message_from_bytes(raw, policy=email.policy.compat32)
    kind, agency, message = _recipient(parsed)
    found = _complaint(parsed) or _delivery_status(parsed)
    if found is None and kind == "u":
        found = (Outcome.OPT_OUT, "UNSUBSCRIBE")
    if found is None:
        raise MailNotReport("the mail holds no delivery status")
    return Report(agency=agency, message_id=message, outcome=found[0], code=found[1])


def _recipient(parsed: email.message.Message) -> tuple[str, uuid.UUID, uuid.UUID]:
    for header in _RECIPIENT_HEADERS:
        for value in parsed.get_all(header, []):
            if match := _ADDRESS.search(str(value).lower()):
                return match[1], _id(match[2]), _id(match[3])
    raise MailNotReport("the mail did not come to the address of a message")


def _complaint(parsed: email.message.Message) -> tuple[Outcome, str] | None:
    for part in parsed.walk():
        if part.get_content_type() == "message/feedback-report":
            return Outcome.COMPLAINT, "FEEDBACK_REPORT"
    return None


def _delivery_status(parsed: email.message.Message) -> tuple[Outcome, str] | None:
    """The status of the one recipient that each of our mails has."""
    for part in parsed.walk():
        if part.get_content_type() != "message/delivery-status":
            continue
        blocks = part.get_payload()
        for block in blocks if isinstance(blocks, list) else []:
            if not isinstance(block, email.message.Message) or "Action" not in block:
                continue
            action = str(block["Action"]).strip().lower()
            match = _STATUS.search(str(block.get("Status", "")))
            status = match.groups() if match else ("5" if action == "failed" else "2", "0", "0")
            code = "DSN_" + "_".join(status)
            if action in ("delivered", "relayed", "expanded"):
                return Outcome.DELIVERED, code
            if action == "delayed":
                return Outcome.DELAYED, code
            if action == "failed":
                bad_address = status[0] == "5" and status[1] != "7"
                return (Outcome.BOUNCED if bad_address else Outcome.FAILED), code
    return None


def _text(value: uuid.UUID) -> str:
    return base64.b32encode(value.bytes).decode().rstrip("=").lower()


def _id(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(bytes=base64.b32decode(text.upper() + "======"))
    except ValueError:
        raise MailNotReport("the mail did not come to the address of a message") from None
