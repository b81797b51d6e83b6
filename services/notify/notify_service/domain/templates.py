"""Texts of messages: what a template is and what it may name. Compiling and rendering is in providers.texts
(S2-20).
"""

from __future__ import annotations

import dataclasses
import re

from notify_service.domain import messages
from servicekit import errors

LANGUAGES = ("pt-BR", "pt-PT")
CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*", re.ASCII)
MAX_CODE = 60
MAX_SUBJECT = 200
"""Characters of a rendered subject (RFC 5322 lines are folded by the mailer)."""
MAX_SOURCE = 20_000
"""Characters of a template's body."""
MAX_TEXT = 100_000
"""Characters of a rendered body."""
DEFAULT_VERSION = 1
"""Version of the templates that come with the platform; an agency's own texts for the same name count on
from it.
"""


class TemplateRefused(errors.ServiceError):
    """A template that does not compile, names what it must not, or leaves out what the law asks for (R07)."""

    status = errors.Status.INVALID_ARGUMENT


@dataclasses.dataclass(frozen=True, kw_only=True)
class Template:
    """A version of a text for one language and channel."""

    code: str
    language: str
    channel: messages.Channel
    subject: str
    body: str
    version: int

    @property
    def name(self) -> str:
        """Last part of the resource name: `reminder-1-pt-BR`."""
        return f"{self.code}-{self.language}"


def check_names(template: Template) -> None:
    """Raises TemplateRefused naming each wrong field of code, language, subject, body."""
    found = []
    if not CODE.fullmatch(template.code) or len(template.code) > MAX_CODE:
        found.append(
            errors.FieldViolation(
                "template.code", f"expected lower-case words joined by hyphens, at most {MAX_CODE} letters"
            )
        )
    if template.language not in LANGUAGES:
        found.append(errors.FieldViolation("template.language", f"expected one of {', '.join(LANGUAGES)}"))
    if template.channel is messages.Channel.EMAIL and not template.subject.strip():
        found.append(errors.FieldViolation("template.subject", "expected a subject: e-mails have one"))
    if template.channel is messages.Channel.SMS and template.subject:
        found.append(errors.FieldViolation("template.subject", "expected none: an SMS has no subject"))
    if len(template.subject) > MAX_SUBJECT:
        found.append(errors.FieldViolation("template.subject", f"expected at most {MAX_SUBJECT} characters"))
    if not template.body.strip():
        found.append(errors.FieldViolation("template.body", "expected a text"))
    if len(template.body) > MAX_SOURCE:
        found.append(errors.FieldViolation("template.body", f"expected at most {MAX_SOURCE} characters"))
    if found:
        raise TemplateRefused("the template is refused", fields=found)
