"""The act: claim what is due, decide, begin, settle (architecture §7). The worker asks and sends in
between.
"""

from __future__ import annotations

import dataclasses
import datetime
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence

from notify_service import store
from notify_service.domain import messages, templates
from notify_service.providers import mail, texts
from notify_service.usecases import facts
from notify_service.usecases import texts as templates_in_force
from servicekit import blobs, clock, db, telemetry

TEXT_KIND = "message-text"
"""Kind of the blobs that keep rendered texts."""

_suppressed = telemetry.counter(
    "recupera.notify.suppressed", "{message}", "Messages that a rule suppressed for good, by channel and rule"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slice:
    """Messages claimed at one instant of the agency's clock."""

    now: datetime.datetime
    business_date: datetime.date
    messages: Sequence[messages.Message]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """A message ready for its act."""

    message: messages.Message
    act: messages.Act
    template: templates.Template
    letter: mail.Letter
    act_key: str


def claim(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    limit: int,
    validity_days: int,
    channels: Collection[messages.Channel],
) -> Slice:
    """Take up to `limit` due messages for this process, and give up acts of processes that died.

    What is too old becomes EXPIRED, what has no provider is suppressed (NO_PROVIDER); the rest is returned.
    Raises clock.AgencyClockUnknown.
    """
    agency_clock = clock.read(tx, agency)
    now, business_date = agency_clock.now(), agency_clock.business_date
    if store.anything_acting(tx, agency):
        give_up_abandoned(tx, agency, now=now, business_date=business_date)
    claimed = store.claim(tx, agency, now=now, limit=limit)
    over: list[store.Change] = []
    left: list[messages.Message] = []
    for message in claimed:
        if messages.expired(date=message.date, business_date=business_date, validity_days=validity_days):
            over.append(_change(message, state=messages.State.EXPIRED))
        elif message.channel not in channels:
            over.append(_change(message, state=messages.State.SUPPRESSED, rule=messages.Rule.NO_PROVIDER))
        else:
            left.append(message)
    _settle(tx, agency, over, before=store.BEFORE_ACT, now=now, business_date=business_date)
    return Slice(now=now, business_date=business_date, messages=left)


def give_up_abandoned(
    tx: db.Transaction, agency: uuid.UUID, *, now: datetime.datetime, business_date: datetime.date
) -> int:
    """Acts of processes that died become UNKNOWN: they may have gone out, so nobody repeats them. How
    many.
    """
    found = store.abandoned(tx, agency)
    if not found:
        return 0
    store.lock_cases(tx, agency, [case_id for _, case_id in found])
    told = store.give_up(tx, agency, [message_id for message_id, _ in found])
    facts.messages_changed(tx, agency, told=told, now=now, business_date=business_date)
    return len(told)


def prepare(
    agency: uuid.UUID,
    *,
    message: messages.Message,
    act: messages.Act,
    catalog: texts.Catalog,
    provider: mail.Provider,
    now: datetime.datetime,
) -> Prepared | messages.Suppress:
    """Render a message. Suppress(NO_TEMPLATE) where no template fits the person's language, the channel and
    the occasion.
    """
    template = catalog(message.template, act.grant.language)
    if template is None or template.channel is not message.channel:
        return messages.Suppress(rule=messages.Rule.NO_TEMPLATE)
    values = texts.context(
        grant=act.grant,
        balance=act.balance,
        instalment=act.instalment,
        instalment_number=message.instalment_number,
        unsubscribe=provider.unsubscribe(agency, message.id),
    )
    try:
        text = texts.render(template, values)
    except templates.TemplateRefused:
        return messages.Suppress(rule=messages.Rule.NO_TEMPLATE)
    return Prepared(
        message=message,
        act=act,
        template=template,
        letter=mail.Letter(
            agency=agency,
            message_id=message.id,
            address=act.grant.address,
            person_name=act.grant.person_name,
            language=act.grant.language,
            text=text,
            time=now,
        ),
        act_key=provider.act_key(message.id),
    )


def leave(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    decided: Iterable[tuple[messages.Message, messages.Suppress | messages.Defer]],
    people: Mapping[uuid.UUID, uuid.UUID],
    now: datetime.datetime,
    business_date: datetime.date,
) -> None:
    """Write the decisions not to act now. `people`: person by message id, where permission named one."""
    changes = []
    for message, decision in decided:
        match decision:
            case messages.Suppress():
                change = _change(message, state=messages.State.SUPPRESSED, rule=decision.rule)
            case messages.Defer():
                change = _change(message, state=messages.State.SCHEDULED, due_at=decision.until)
        changes.append(dataclasses.replace(change, person_id=people.get(message.id)))
    _settle(tx, agency, changes, before=store.BEFORE_ACT, now=now, business_date=business_date)


def standing(
    tx: db.Transaction, agency: uuid.UUID, *, contact_points: Iterable[uuid.UUID]
) -> tuple[texts.Catalog, Mapping[uuid.UUID, Collection[messages.Reason]]]:
    """The templates in force, and the reasons of our own against these contact points."""
    return templates_in_force.catalog(tx, agency), store.reasons_against(tx, agency, contact_points)


def advance(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    done: Sequence[store.Change],
    following: Sequence[Prepared],
    retention_days: int,
) -> set[uuid.UUID]:
    """Commit the outcomes of the last few acts, and ACTING for the next few before anything of them leaves.

    Returns the messages that may be acted on now: not those whose reservation ran out meanwhile (they stay
    due), nor those that another process took over. Done again, because the commit's answer was lost, it
    changes nothing and answers the same. Addresses that do not exist are suppressed. Every act keeps its
    evidence: key, balance by line, text (R08).
    """
    agency_clock = clock.read(tx, agency)
    now = agency_clock.now()
    told = _settle(tx, agency, done, before=store.IN_ACT, now=now, business_date=agency_clock.business_date)
    bounced = {one.id: one for one in told if one.state is messages.State.BOUNCED}
    for message_id, contact_point_id, reason in store.suppress(
        tx, agency, reasons=[(one, messages.Reason.BOUNCED) for one in bounced], now=now
    ):
        facts.contact_point_suppressed(
            tx,
            agency,
            case_id=bounced[message_id].case_id,
            person_id=bounced[message_id].person_id,
            contact_point_id=contact_point_id,
            reason=reason,
            now=now,
            business_date=agency_clock.business_date,
        )
    valid = [one for one in following if one.act.grant.valid_until >= now]
    return store.start(
        tx, agency, [_start(tx, agency, one, retention_days=retention_days, now=now) for one in valid]
    )


def _start(
    tx: db.Transaction, agency: uuid.UUID, one: Prepared, *, retention_days: int, now: datetime.datetime
) -> store.Start:
    blob = blobs.create(
        tx,
        agency=agency,
        kind=TEXT_KIND,
        retention_days=retention_days,
        chunks=[one.letter.text.content],
        now=now,
    )
    grant = one.act.grant
    return store.Start(
        message=one.message,
        act_key=one.act_key,
        template_version=one.template.version,
        language=one.template.language,
        person_id=grant.person_id,
        contact_point_id=grant.contact_point_id,
        total_minor=one.act.balance.total.minor,
        currency=one.act.balance.total.currency,
        balance=one.act.balance.evidence(),
        text_sha256=one.letter.text.sha256,
        text_blob=blob.id,
    )


def outcome(
    message: messages.Message, answer: mail.Answer, *, now: datetime.datetime, attempts_max: int
) -> store.Change:
    """What the provider's answer makes of a message."""
    settled = messages.settle(
        message=message, verdict=answer.verdict, code=answer.code, now=now, attempts_max=attempts_max
    )
    return store.Change(
        message=message,
        state=settled.state,
        attempts=settled.attempts,
        failure=settled.failure,
        due_at=settled.due_at,
        sent_at=now if settled.state is messages.State.SENT else None,
    )


def _settle(
    tx: db.Transaction,
    agency: uuid.UUID,
    changes: Sequence[store.Change],
    *,
    before: Sequence[str],
    now: datetime.datetime,
    business_date: datetime.date,
) -> list[store.Told]:
    """One statement for all, one fact for each chunk; what only went back to be due is not told."""
    store.lock_cases(tx, agency, [one.message.case_id for one in changes])
    told = store.change(tx, agency, changes, before=before)
    for one in told:
        if one.state is messages.State.SUPPRESSED:
            tx.count(_suppressed, channel=one.channel.value, rule=one.rule)
    refused = {one.message.id for one in changes if one.attempts > one.message.attempts}
    facts.messages_changed(
        tx,
        agency,
        told=[one for one in told if one.state not in messages.DUE or one.id in refused],
        now=now,
        business_date=business_date,
    )
    return told


def _change(
    message: messages.Message,
    *,
    state: messages.State,
    rule: str = "",
    due_at: datetime.datetime | None = None,
) -> store.Change:
    return store.Change(
        message=message,
        state=state,
        attempts=message.attempts,
        rule=rule,
        failure=message.failure,
        due_at=due_at,
    )
