"""Proto -> domain and rows -> proto."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from case_service.domain import cases, contact, ladder
from case_service.domain import permission as permissions
from case_service.usecases import facts, permission
from recupera.case.v1 import case_pb2, case_service_pb2
from servicekit import clock, dates, errors, ids, money, names

AGENCY = "agencies/{agency}"
CASE = "agencies/{agency}/cases/{case}"
CREDITOR = "agencies/{agency}/creditors/{creditor}"
DEBTOR = "agencies/{agency}/debtors/{debtor}"
TITLE = "agencies/{agency}/cases/{case}/titles/{title}"
PERSON = "agencies/{agency}/cases/{case}/people/{person}"
HOLD = "agencies/{agency}/cases/{case}/holds/{hold}"
CONTACT = "agencies/{agency}/cases/{case}/contacts/{contact}"
LADDER = "agencies/{agency}/ladders/{ladder=text}"
DAY = "agencies/{agency}/businessDays/{date=text}"
CLOCK = "agencies/{agency}/clock"

MAX_TEXT = 4_000


def text(value: str, field: str, *, maximum: int = MAX_TEXT) -> str:
    """A text of people. Raises InvalidRequest when it is too long or holds what the database cannot."""
    if len(value) > maximum or "\0" in value:
        raise errors.invalid(field, f"expected at most {maximum} characters")
    return value


def etag(value: str, field: str = "etag") -> int | None:
    """The version in an etag; None where there is none. Raises InvalidRequest."""
    if not value:
        return None
    if not value.isascii() or not value.isdigit() or len(value) > 18:
        raise errors.invalid(field, "expected the etag of an earlier answer")
    return int(value)


def channel(value: int, field: str) -> contact.Channel:
    """Raises InvalidRequest on an unspecified or unknown channel."""
    name = _name(case_pb2.Channel, value, "CHANNEL_", field)
    return contact.Channel(name)


def outcome(value: int, field: str) -> contact.Outcome:
    """Raises InvalidRequest on an unspecified or unknown outcome, and on MESSAGE_SENT, which only notify
    reports.
    """
    found = contact.Outcome(_name(case_pb2.ContactRecord.Outcome, value, "OUTCOME_", field))
    if found is contact.Outcome.MESSAGE_SENT:
        raise errors.invalid(
            field, "expected what a person found; messages are put on record by the service that sends them"
        )
    return found


def state(value: int, field: str) -> cases.State:
    """Raises InvalidRequest on an unspecified or unknown state."""
    return cases.State(_name(case_pb2.Case.State, value, "STATE_", field))


def sub_state(value: int, field: str) -> cases.SubState:
    """NONE where unspecified. Raises InvalidRequest on an unknown one."""
    if value == case_pb2.Case.SUB_STATE_UNSPECIFIED:
        return cases.SubState.NONE
    return cases.SubState(_name(case_pb2.Case.SubState, value, "SUB_STATE_", field))


def hold_type(value: int, field: str) -> str:
    """Raises InvalidRequest on an unspecified or unknown type."""
    return _name(case_pb2.Hold.Type, value, "TYPE_", field)


def _name(enum: Any, value: int, prefix: str, field: str) -> str:
    if value == 0 or value not in enum.values():
        raise errors.invalid(field, "expected a known value")
    return str(enum.Name(value)).removeprefix(prefix)


def case_of(agency: UUID, row: Any) -> case_pb2.Case:
    """A case from a row of store.cases.GET."""
    days_past_due = 0
    if row.oldest_due_date is not None:
        days_past_due = max(0, (row.business_date - row.oldest_due_date).days)
    return case_pb2.Case(
        name=f"agencies/{agency}/cases/{row.id}",
        state=facts.state(row.state),
        sub_state=facts.sub_state(row.sub_state),
        creditor=f"agencies/{agency}/creditors/{row.creditor_id}",
        creditor_display_name=row.creditor_name,
        creditor_reference=row.creditor_reference,
        debtor=f"agencies/{agency}/debtors/{row.debtor_id}",
        debtor_display_name=row.debtor_name,
        contract_reference=row.contract_reference,
        product=row.product,
        placed_principal=_money(row.placed_principal_minor, row.currency),
        open_principal=_money(row.open_principal_minor, row.currency),
        open_titles=row.open_titles,
        oldest_due_date=_date(row.oldest_due_date),
        days_past_due=days_past_due,
        has_agreement=row.agreements_in_force > 0,
        on_hold=row.holds_active > 0,
        next_action_date=_date(row.promise_until),
        create_time=dates.to_timestamp(row.created_at),
        update_time=dates.to_timestamp(row.updated_at),
        etag=str(row.version),
    )


def title_of(agency: UUID, case_id: UUID, row: Any) -> case_pb2.Title:
    """A title from a row of store.cases.TITLES."""
    return case_pb2.Title(
        name=f"agencies/{agency}/cases/{case_id}/titles/{row.id}",
        title_reference=row.title_reference,
        title_type=row.title_type,
        issue_date=_date(row.issue_date),
        due_date=_date(row.due_date),
        principal=_money(row.principal_minor, row.currency),
        open_principal=_money(row.open_principal_minor, row.currency),
        state=row.state,
    )


def people_of(agency: UUID, case_id: UUID, rows: Sequence[Any]) -> list[case_pb2.Person]:
    """People with their contact points from rows of store.cases.PEOPLE."""
    people: dict[UUID, case_pb2.Person] = {}
    for row in rows:
        person = people.setdefault(
            row.id,
            case_pb2.Person(
                name=f"agencies/{agency}/cases/{case_id}/people/{row.id}",
                role=row.role,
                display_name=row.display_name,
                document_type=row.document_type,
                document=row.document,
            ),
        )
        if row.point_id is not None:
            person.contact_points.add(
                id=str(row.point_id),
                kind=row.kind,
                value=row.value,
                provenance=row.provenance,
                invalid_reason=row.invalid_reason or "",
            )
    return list(people.values())


def entry_of(row: Any) -> case_pb2.TimelineEntry:
    """A line from a row of store.cases.TIMELINE."""
    details = dict(row.details or {})
    if row.subject_id is not None:
        details["subject"] = str(row.subject_id)
    return case_pb2.TimelineEntry(
        time=dates.to_timestamp(row.at),
        business_date=dates.to_proto(row.business_date),
        actor=row.actor,
        kind=row.kind,
        code=row.code,
        details=details,
        note=row.note,
    )


def hold_of(agency: UUID, row: Any) -> case_pb2.Hold:
    """A hold from a row of table holds."""
    return case_pb2.Hold(
        name=f"agencies/{agency}/cases/{row.case_id}/holds/{row.id}",
        type=case_pb2.Hold.Type.Value(f"TYPE_{row.type}"),
        state=case_pb2.Hold.State.Value(f"STATE_{row.state}"),
        channels=[facts.channel(name) for name in row.channels],
        until=_date(row.until),
        reason=row.reason,
        create_time=dates.to_timestamp(row.created_at),
    )


def ladder_of(
    agency: UUID, code: str, rows: Sequence[Any], levels: Sequence[ladder.Level]
) -> case_pb2.Ladder:
    """A ladder from its rows."""
    return case_pb2.Ladder(
        name=f"agencies/{agency}/ladders/{code}",
        display_name=rows[0].display_name,
        etag=str(rows[0].version),
        levels=[
            case_pb2.Ladder.Level(
                code=level.code,
                display_name=level.display_name,
                from_days=level.from_days,
                to_days=level.to_days,
                minimum_wait_days=level.minimum_wait_days,
                channel=facts.channel(level.channel),
                template=level.template,
                counts=level.counts,
            )
            for level in levels
        ],
    )


def levels(message: case_pb2.Ladder) -> list[ladder.Level]:
    """The levels that an update asks for. Raises InvalidRequest."""
    return [
        ladder.Level(
            code=text(level.code, f"ladder.levels[{place}].code"),
            display_name=text(level.display_name, f"ladder.levels[{place}].display_name", maximum=200),
            from_days=level.from_days,
            to_days=level.to_days,
            minimum_wait_days=level.minimum_wait_days,
            channel=channel(level.channel, f"ladder.levels[{place}].channel"),
            template=text(level.template, f"ladder.levels[{place}].template"),
            counts=level.counts,
        )
        for place, level in enumerate(message.levels)
    ]


def agenda_item(agency: UUID, row: Any) -> case_pb2.AgendaItem:
    """An item from a row of store.days.AGENDA."""
    return case_pb2.AgendaItem(
        case=f"agencies/{agency}/cases/{row.case_id}",
        date=dates.to_proto(row.date),
        reason=row.reason,
        level=row.level,
        debtor_display_name=row.debtor_name,
        open_principal=_money(row.open_principal_minor, row.currency),
        days_past_due=row.days_past_due,
        state=row.state,
    )


def day_of(agency: UUID, date: datetime.date, rows: Sequence[Any]) -> case_pb2.BusinessDay:
    """A business day from the rows of its slices."""
    steps: dict[str, int] = {}
    for row in rows:
        for name, count in row.steps.items():
            steps[f"CHANNEL_{name}"] = steps.get(f"CHANNEL_{name}", 0) + count
    done = sum(row.state == "DONE" for row in rows)
    return case_pb2.BusinessDay(
        name=f"agencies/{agency}/businessDays/{date.isoformat()}",
        date=dates.to_proto(date),
        state=case_pb2.BusinessDay.STATE_DONE if done == len(rows) else case_pb2.BusinessDay.STATE_RUNNING,
        slices=len(rows),
        slices_done=done,
        steps_by_channel=steps,
        cases_seen=sum(row.cases_seen for row in rows),
        agenda_items=sum(row.agenda_items for row in rows),
    )


def clock_of(found: clock.AgencyClock, currency: str) -> case_pb2.AgencyClock:
    """The agency's clock."""
    return case_pb2.AgencyClock(
        name=f"agencies/{found.agency}/clock",
        time_zone=found.time_zone,
        simulated=found.simulated,
        now=dates.to_timestamp(found.now()),
        speed_thousandths=int(found.speed * 1000),
        business_date=dates.to_proto(found.business_date),
        currency=currency,
        etag=str(found.version),
    )


def summary_of(row: Any) -> case_service_pb2.SummarizeCasesResponse:
    """Counts from the row of store.cases.SUMMARY."""
    by_state: dict[str, int] = {}
    placed: dict[str, int] = {}
    open_: dict[str, int] = {}
    for debts in row.debts or ():
        by_state[debts["state"]] = by_state.get(debts["state"], 0) + debts["cases"]
        placed[debts["currency"]] = placed.get(debts["currency"], 0) + debts["placed"]
        open_[debts["currency"]] = open_.get(debts["currency"], 0) + debts["open"]
    return case_service_pb2.SummarizeCasesResponse(
        cases=sum(by_state.values()),
        open=sum(count for name, count in by_state.items() if name not in cases.TERMINAL),
        by_state=by_state,
        placed_principal=[_money(minor, currency) for currency, minor in sorted(placed.items())],
        open_principal=[_money(minor, currency) for currency, minor in sorted(open_.items())],
        promises=row.promises,
        contacts=row.contacts,
        debtors=row.debtors,
        titles=row.titles,
        outbox=row.outbox,
        parked=row.parked,
    )


_PURPOSES: Mapping[int, permissions.Purpose] = {
    case_service_pb2.ContactItem.PURPOSE_COLLECTION: permissions.Purpose.COLLECTION,
    case_service_pb2.ContactItem.PURPOSE_AGREEMENT_REMINDER: permissions.Purpose.AGREEMENT_REMINDER,
}


def contact_items(request: case_service_pb2.ReserveContactsRequest) -> list[permission.Item]:
    """The items asked for. Raises InvalidRequest."""
    if len(request.items) > permission.MAX_ITEMS:
        raise errors.invalid("items", f"expected at most {permission.MAX_ITEMS}")
    found = []
    for place, item in enumerate(request.items):
        purpose = _PURPOSES.get(item.purpose)
        if purpose is None:
            raise errors.invalid(f"items[{place}].purpose", "expected a known value")
        found.append(
            permission.Item(
                key=ids.from_bytes(item.key, f"items[{place}].key"),
                case_id=ids.from_bytes(item.case_id, f"items[{place}].case_id"),
                person_id=ids.from_bytes(item.person_id, f"items[{place}].person_id")
                if item.person_id
                else None,
                channel=channel(item.channel, f"items[{place}].channel"),
                purpose=purpose,
            )
        )
    return found


def contact_answer(answer: permission.Answer) -> case_service_pb2.ContactAnswer:
    """The answer to one item."""
    found = case_service_pb2.ContactAnswer(key=answer.key.bytes)
    if answer.rule:
        found.refused.rule = answer.rule
        found.refused.explanation = answer.explanation
        if answer.retry_time is not None:
            found.refused.retry_time.CopyFrom(dates.to_timestamp(answer.retry_time))
        return found
    assert answer.contact_point_id is not None
    assert answer.valid_until is not None
    debt, person = answer.debt, answer.person
    portugal = person.country == "PT" or (not person.country and debt.currency == "EUR")
    found.granted.CopyFrom(
        case_service_pb2.ContactAnswer.Granted(
            contact_point_id=answer.contact_point_id.bytes,
            address=answer.address,
            person_id=person.id.bytes,
            person_name=person.display_name,
            language="pt-PT" if portugal else "pt-BR",
            time_zone=answer.time_zone,
            creditor_name=debt.creditor_name,
            creditor_address=debt.creditor_address,
            creditor_document=debt.creditor_document,
            contract_reference=debt.contract_reference,
            product=debt.product,
            guarantor=person.guarantor,
            valid_until=dates.to_timestamp(answer.valid_until),
            open_principal=_money(debt.open_principal_minor, debt.currency),
        )
    )
    return found


def parties_of(row: Any) -> case_service_pb2.Parties:
    """Parties from a row of store.cases.PARTIES."""
    return case_service_pb2.Parties(
        case_id=row.id.bytes,
        debtor_name=row.display_name,
        debtor_document_type=row.document_type,
        debtor_document=row.document,
        debtor_address=row.address,
        debtor_city=row.city,
        debtor_region=row.region,
        debtor_postal_code=row.postal_code,
        creditor_name=row.creditor_name,
        creditor_document=row.creditor_document,
        creditor_address=row.creditor_address,
    )


def contact_record(
    agency: UUID, case_id: UUID, asked: case_pb2.ContactRecord, row: Any
) -> case_pb2.ContactRecord:
    """The contact as it is on record."""
    found = case_pb2.ContactRecord()
    found.CopyFrom(asked)
    found.name = names.format(CONTACT, agency=agency, case=case_id, contact=row.id)
    found.create_time.CopyFrom(dates.to_timestamp(row.at))
    found.manual = True
    return found


def _money(minor: int, currency: str) -> Any:
    return money.to_proto(money.Money(minor, currency))


def _date(value: datetime.date | None) -> Any:
    return None if value is None else dates.to_proto(value)
