"""Permission to contact, asked right before the act (architecture §7)."""

from __future__ import annotations

import dataclasses
import datetime
import uuid
from collections.abc import Sequence
from typing import Any

from case_service.domain import cases as machine
from case_service.domain import permission, rules
from case_service.domain.contact import Channel
from case_service.store import agency as agencies
from case_service.store import cases
from case_service.store import permission as store
from case_service.usecases import moments
from servicekit import db

MAX_ITEMS = 500
_WEEK = datetime.timedelta(days=9)
"""Seven days back in any zone."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """One act asked for: ``person_id`` None is the case's debtor."""

    key: uuid.UUID
    case_id: uuid.UUID
    person_id: uuid.UUID | None
    channel: Channel
    purpose: permission.Purpose


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """Granted where ``rule`` is empty. ``debt`` and ``person`` are the store's rows of the case and person."""

    key: uuid.UUID
    rule: str = ""
    explanation: str = ""
    retry_time: datetime.datetime | None = None
    contact_point_id: uuid.UUID | None = None
    address: str = ""
    time_zone: str = ""
    valid_until: datetime.datetime | None = None
    debt: Any = None
    person: Any = None


def reserve(
    tx: db.Transaction, agency: uuid.UUID, *, items: Sequence[Item], holidays: rules.Holidays
) -> list[Answer]:
    """Answer each item, in order; what is granted counts for the items after it, until an outcome closes
    it.

    The same key gets the same answer, but for: a refusal with a time to ask again, a grant that ran out
    unused, and a grant that was closed as not attempted; these are decided anew, without counting
    themselves. Cases and people are locked in id order, so that two callers never both get the last contact
    of a day. Raises AgencyClockUnknown.
    """
    moment = moments.read(tx, agency)
    case_ids = sorted({item.case_id for item in items})
    store.lock(
        tx, agency, case_ids=case_ids, person_ids=sorted({item.person_id for item in items if item.person_id})
    )
    debts = store.debts(tx, agency, case_ids)
    parties = store.parties(tx, agency, case_ids)
    people = sorted({person_id for _, person_id in parties})
    points: dict[uuid.UUID, list[permission.Point]] = {}
    for row in store.points(tx, agency, people):
        points.setdefault(row.person_id, []).append(
            permission.Point(id=row.id, kind=row.kind, value=row.value, position=row.position)
        )
    held: dict[uuid.UUID, set[Channel | None]] = {}
    for hold in cases.holds(tx, agency, case_ids):
        held.setdefault(hold.case_id, set()).update(
            (Channel(name) for name in hold.channels) if hold.channels else (None,)
        )
    uses: dict[uuid.UUID, permission.Use] = {
        row.key: permission.Use(
            person_id=row.person_id,
            case_id=row.case_id,
            local_date=row.local_date,
            point_id=row.contact_point_id,
            right_party_call=row.right_party_call,
            abandoned=row.abandoned,
            at=row.reserved_at,
        )
        for row in store.uses(
            tx, agency, case_ids=case_ids, person_ids=people, since=(moment.now - _WEEK).date()
        )
    }
    known = dict(store.answers(tx, agency, [item.key for item in items]))
    book = rules.Book(agencies.rules_of(tx, agency))
    answers: dict[uuid.UUID, Answer] = {}
    kept: list[dict[str, Any]] = []
    for item in items:
        if item.key in answers:
            continue
        debt = debts.get(item.case_id)
        person_id = item.person_id or (debt.debtor_id if debt is not None else None)
        person = parties.get((item.case_id, person_id)) if person_id else None
        if debt is None:
            answers[item.key] = Answer(key=item.key, rule="CASE_UNKNOWN", explanation="no such case")
            continue
        if person is None:
            answers[item.key] = Answer(key=item.key, rule="PERSON_UNKNOWN", explanation="not on the case")
            continue
        before = known.get(item.key)
        if before is not None and _stands(before, moment.now):
            answers[item.key] = _again(before, debts.get(before.case_id), parties)
            continue
        uses.pop(item.key, None)
        decided = permission.decide(
            debt=permission.Debt(
                id=debt.id,
                state=machine.State(debt.state),
                open_principal_minor=debt.open_principal_minor,
                frozen=debt.frozen_by is not None,
                agreement_in_force=debt.agreements_in_force > 0,
                promise_until=debt.promise_until,
                held_channels=frozenset(held.get(debt.id, ())),
            ),
            person=permission.Person(
                id=person.id,
                country=person.country,
                region=person.region,
                postal_code=person.postal_code,
                points=points.get(person.id, ()),
            ),
            channel=item.channel,
            purpose=item.purpose,
            uses=list(uses.values()),
            book=book,
            holidays=holidays,
            agency_zone=moment.zone,
            now=moment.now,
            business_date=moment.business_date,
        )
        kept_row: dict[str, Any] = {
            "key": item.key,
            "case_id": debt.id,
            "person_id": person.id,
            "channel": item.channel,
            "purpose": item.purpose,
            "local_date": decided.local_date,
            "time_zone": decided.time_zone,
            "now": moment.now,
            "right_party_call": False,
        }
        if isinstance(decided, permission.Granted):
            uses[item.key] = permission.Use(
                person_id=person.id,
                case_id=debt.id,
                local_date=decided.local_date,
                point_id=decided.point.id,
                right_party_call=False,
                abandoned=False,
                at=moment.now,
            )
            kept_row |= {"state": "OPEN", "counts": True, "rule": "", "explanation": ""}
            kept_row |= {"contact_point_id": decided.point.id, "valid_until": decided.valid_until}
            answers[item.key] = Answer(
                key=item.key,
                contact_point_id=decided.point.id,
                address=decided.point.value,
                time_zone=decided.time_zone,
                valid_until=decided.valid_until,
                debt=debt,
                person=person,
            )
        else:
            # valid_until of a refusal is when it may be asked again.
            kept_row |= {
                "state": "REFUSED",
                "counts": False,
                "rule": decided.rule,
                "explanation": decided.explanation,
            }
            kept_row |= {"contact_point_id": None, "valid_until": decided.retry_time}
            answers[item.key] = Answer(
                key=item.key,
                rule=decided.rule,
                explanation=decided.explanation,
                retry_time=decided.retry_time,
            )
        kept.append(kept_row)
    store.keep(tx, agency, kept)
    return [answers[item.key] for item in items]


def _stands(before: Any, now: datetime.datetime) -> bool:
    match before.state:
        case "REFUSED":
            return before.valid_until is None or now < before.valid_until
        case "OPEN":
            return bool(now <= before.valid_until)
        case _:
            return bool(before.counts)


def _again(before: Any, debt: Any, parties: Any) -> Answer:
    if before.state == "REFUSED":
        return Answer(
            key=before.key, rule=before.rule, explanation=before.explanation, retry_time=before.valid_until
        )
    return Answer(
        key=before.key,
        contact_point_id=before.contact_point_id,
        address=before.value or "",
        time_zone=before.time_zone,
        valid_until=before.valid_until,
        debt=debt,
        person=parties.get((before.case_id, before.person_id)),
    )
