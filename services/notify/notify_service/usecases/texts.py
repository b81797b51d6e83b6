"""Templates of an agency: published versions, and those in force."""

from __future__ import annotations

import datetime
import uuid

from notify_service import store
from notify_service.domain import messages, templates
from notify_service.providers import texts
from servicekit import db, errors


class TemplateChannelFixed(errors.ServiceError):
    """A template keeps its channel: ladders and people name it by its code alone."""

    status = errors.Status.FAILED_PRECONDITION


def publish(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    code: str,
    language: str,
    channel: messages.Channel,
    subject: str,
    body: str,
    now: datetime.datetime,
) -> templates.Template:
    """Store a new version of a template, in force from the next act on (S2-20).

    Versions count on from the agency's last one, or from the platform's. Raises TemplateRefused (lint, R07),
    TemplateChannelFixed, VersionMismatch where somebody published the same template meanwhile.
    """
    force = {template.name: template for template, _ in in_force(tx, agency)}
    for template in force.values():
        if template.code == code and template.channel is not channel:
            raise TemplateChannelFixed("a template keeps its channel", channel=template.channel.value)
    known = force.get(f"{code}-{language}")
    made = templates.Template(
        code=code,
        language=language,
        channel=channel,
        subject=subject,
        body=body,
        version=known.version + 1 if known else templates.DEFAULT_VERSION,
    )
    texts.lint(made)
    if not store.add_template(tx, agency, made, now=now):
        raise errors.VersionMismatch(
            "the template was published by somebody else meanwhile", template=made.name
        )
    return made


def in_force(
    tx: db.Transaction, agency: uuid.UUID
) -> list[tuple[templates.Template, datetime.datetime | None]]:
    """The templates in force with their instant of publication (None: the platform's), in name order."""
    found: dict[str, tuple[templates.Template, datetime.datetime | None]] = {
        template.name: (template, None) for template in texts.defaults().values()
    }
    for template, created_at in store.agency_templates(tx, agency):
        found[template.name] = (template, created_at)
    return [found[name] for name in sorted(found)]


def catalog(tx: db.Transaction, agency: uuid.UUID) -> texts.Catalog:
    """The templates in force, to look up by code and language."""
    return texts.catalog([template for template, _ in in_force(tx, agency)])


def channel_of(tx: db.Transaction, agency: uuid.UUID, *, code: str) -> messages.Channel | None:
    """The channel of a template's code; None where no language has it."""
    for template, _ in in_force(tx, agency):
        if template.code == code:
            return template.channel
    return None
