"""The tables, each column declared business, reference or incidental (with the reason).

Business columns are what two runs of the same work must agree on, whatever was killed, repeated or
reordered between; references are compared through the natural key of the row they point to
(``info["natural_key"]`` of its table). DDL is in migrations; a test holds both together.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

PARTITIONS = 24
"""Of the topic recupera.case.v1 and of the generated column ``cases.partition``; part of the contract."""

METADATA = sa.MetaData()

_ID = "id made by this service"
_WALL = "agency-clock instant of handling: depends on when a worker got to it"
_COUNTER = "number of writes: depends on how facts were cut into transactions"


def _column(name: str, type_: sa.types.TypeEngine[Any], **info: object) -> sa.Column[Any]:
    return sa.Column(name, type_, info=info)


def _business(name: str, type_: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return _column(name, type_, kind="business")


def _incidental(name: str, type_: sa.types.TypeEngine[Any], reason: str) -> sa.Column[Any]:
    return _column(name, type_, kind="incidental", reason=reason)


def _reference(name: str, to: str) -> sa.Column[Any]:
    return _column(name, sa.Uuid(), kind="reference", to=to)


def _table(name: str, natural_key: list[str], *columns: sa.Column[Any]) -> sa.Table:
    return sa.Table(
        name, METADATA, _business("agency", sa.Uuid()), *columns, info={"natural_key": natural_key}
    )


TEXT = sa.Text()
DATE = sa.Date()
BIG = sa.BigInteger()
INT = sa.Integer()
BOOL = sa.Boolean()
UUID = sa.Uuid()
INSTANT = sa.DateTime(timezone=True)
TEXTS = postgresql.ARRAY(sa.Text())
JSON = postgresql.JSONB()

agencies = _table(
    "agencies",
    ["agency"],
    _business("currency", TEXT),
    _incidental("created_at", INSTANT, _WALL),
)

creditors = _table(
    "creditors",
    ["agency", "reference"],
    _incidental("id", UUID, _ID),
    _business("reference", TEXT),
    _business("display_name", TEXT),
    _business("document", TEXT),
    _business("address", TEXT),
)

people = _table(
    "people",
    ["agency", "document_type", "document"],
    _incidental("id", UUID, _ID),
    _business("document_type", TEXT),
    _business("document", TEXT),
    _business("display_name", TEXT),
    _business("birth_date", DATE),
    _business("country", TEXT),
    _business("region", TEXT),
    _business("city", TEXT),
    _business("postal_code", TEXT),
    _business("address", TEXT),
    _business("debtor", BOOL),
)

contact_points = _table(
    "contact_points",
    ["agency", "person_id", "kind", "value"],
    _incidental("id", UUID, _ID),
    _reference("person_id", "people"),
    _business("kind", TEXT),
    _business("value", TEXT),
    _incidental(
        "position", sa.SmallInteger(), "place in the row that came first, of several that name the number"
    ),
    _business("provenance", TEXT),
)

barred_contacts = _table(
    "barred_contacts",
    ["agency", "kind", "value"],
    _business("kind", TEXT),
    _business("value", TEXT),
    _business("reason", TEXT),
    _incidental("since", INSTANT, _WALL),
)

contracts = _table(
    "contracts",
    ["agency", "creditor_id", "reference"],
    _incidental("id", UUID, _ID),
    _reference("creditor_id", "creditors"),
    _business("reference", TEXT),
    _business("product", TEXT),
)

cases = _table(
    "cases",
    ["agency", "debtor_id", "contract_id", "currency"],
    _incidental("id", UUID, _ID),
    _reference("contract_id", "contracts"),
    _reference("debtor_id", "people"),
    _reference("creditor_id", "creditors"),
    _business("currency", TEXT),
    _business("natural_key", BIG),
    _incidental("partition", sa.SmallInteger(), "crc32 of the id, which this service makes"),
    _business("state", TEXT),
    _business("sub_state", TEXT),
    _business("held_state", TEXT),
    _business("held_sub_state", TEXT),
    _business("placed_principal_minor", BIG),
    _business("open_principal_minor", BIG),
    _business("open_titles", INT),
    _business("oldest_due_date", DATE),
    _business("agreements_in_force", INT),
    _business("holds_active", INT),
    _business("promise_until", DATE),
    _business("last_step_date", DATE),
    _business("last_level", TEXT),
    _incidental(
        "frozen_by", UUID, "id of the batch, made by the import service; empty when nothing is under way"
    ),
    _incidental("version", BIG, _COUNTER),
    _incidental("created_at", INSTANT, _WALL),
    _incidental("updated_at", INSTANT, _WALL),
)

case_guarantors = _table(
    "case_guarantors",
    ["agency", "case_id", "person_id"],
    _reference("case_id", "cases"),
    _reference("person_id", "people"),
)

titles = _table(
    "titles",
    ["agency", "contract_id", "title_reference", "withdrawn"],
    _incidental("id", UUID, _ID),
    _reference("case_id", "cases"),
    _reference("contract_id", "contracts"),
    _business("title_reference", TEXT),
    _business("title_type", TEXT),
    _business("issue_date", DATE),
    _business("due_date", DATE),
    _business("principal_minor", BIG),
    _business("open_principal_minor", BIG),
    _business("penalty_rate_e4", BIG),
    _business("monthly_interest_rate_e4", BIG),
    _business("state", TEXT),
    _business("withdrawn", BOOL),
    _incidental("version", BIG, "version of the agreement service's row: counts its writes"),
    _incidental("batch_id", UUID, "id of the batch, made by the import service"),
)

timeline = _table(
    "timeline",
    ["agency", "case_id", "business_date", "kind", "code"],
    _reference("case_id", "cases"),
    _incidental("id", UUID, _ID),
    _incidental("at", INSTANT, _WALL),
    _business("business_date", DATE),
    _business("actor", TEXT),
    _business("kind", TEXT),
    _business("code", TEXT),
    _business("details", JSON),
    _business("note", TEXT),
    _incidental("subject_id", UUID, "id of the hold, message, call, agreement or payment, made by its owner"),
)

placed_slices = _table(
    "placed_slices",
    ["agency", "slice"],
    _incidental("batch_id", UUID, "id made by the import service"),
    _business("slice", INT),
    _business("applied", INT),
    _business("unchanged", INT),
    _business("rejects", JSON),
    _business("business_date", DATE),
    _incidental("mark", UUID, _ID),
)

holds = _table(
    "holds",
    ["agency", "case_id", "type", "until", "reason"],
    _incidental("id", UUID, _ID),
    _reference("case_id", "cases"),
    _business("type", TEXT),
    _business("state", TEXT),
    _business("channels", TEXTS),
    _business("until", DATE),
    _business("reason", TEXT),
    _incidental("created_at", INSTANT, _WALL),
)

contacts = _table(
    "contacts",
    ["agency", "case_id", "business_date", "channel", "outcome"],
    _incidental("act_key", UUID, "id of the message or call, made by its owner"),
    _reference("case_id", "cases"),
    _incidental("id", UUID, _ID),
    _reference("person_id", "people"),
    _business("channel", TEXT),
    _business("outcome", TEXT),
    _business("manual", BOOL),
    _business("promise_date", DATE),
    _business("promise_amount_minor", BIG),
    _business("note", TEXT),
    _business("business_date", DATE),
    _incidental("at", INSTANT, _WALL),
    _incidental("version", BIG, "version of the owner's row: counts its writes"),
)

promises = _table(
    "promises",
    ["agency", "case_id", "made_on", "promise_date", "amount_minor"],
    _reference("case_id", "cases"),
    _incidental("act_key", UUID, "id of the call or contact, made by its owner"),
    _incidental("id", UUID, _ID),
    _business("state", TEXT),
    _business("made_on", DATE),
    _business("promise_date", DATE),
    _business("amount_minor", BIG),
    _business("currency", TEXT),
)

reservations = _table(
    "reservations",
    ["agency", "case_id", "person_id", "channel", "purpose", "local_date"],
    _incidental("key", UUID, "id of the act, made by its owner"),
    _reference("case_id", "cases"),
    _reference("person_id", "people"),
    _business("channel", TEXT),
    _business("purpose", TEXT),
    _business("state", TEXT),
    _business("counts", BOOL),
    _business("right_party_call", BOOL),
    _business("abandoned", BOOL),
    _business("local_date", DATE),
    _reference("contact_point_id", "contact_points"),
    _business("rule", TEXT),
    _business("explanation", TEXT),
    _business("time_zone", TEXT),
    _incidental("reserved_at", INSTANT, _WALL),
    _incidental("valid_until", INSTANT, _WALL),
    _incidental("version", BIG, "version of the owner's row: counts its writes"),
)

contact_rules = _table(
    "contact_rules",
    ["agency", "code", "country", "region", "valid_from"],
    _business("code", TEXT),
    _business("country", TEXT),
    _business("region", TEXT),
    _business("channels", TEXTS),
    _business("valid_from", DATE),
    _business("valid_to", DATE),
    _business("parameters", JSON),
    _business("source", TEXT),
)

ladders = _table(
    "ladders",
    ["agency", "code"],
    _incidental("id", UUID, _ID),
    _business("code", TEXT),
    _business("display_name", TEXT),
    _business("version", BIG),
)

ladder_levels = _table(
    "ladder_levels",
    ["agency", "ladder_id", "code"],
    _reference("ladder_id", "ladders"),
    _business("position", sa.SmallInteger()),
    _incidental("id", UUID, _ID),
    _business("code", TEXT),
    _business("display_name", TEXT),
    _business("from_days", INT),
    _business("to_days", INT),
    _business("minimum_wait_days", INT),
    _business("channel", TEXT),
    _business("template", TEXT),
    _business("counts", BOOL),
)

business_days = _table(
    "business_days",
    ["agency", "date"],
    _business("date", DATE),
    _incidental(
        "opened_at",
        INSTANT,
        "the machine's instant: a late slice is late for people, not for a simulated clock",
    ),
)

_SLICE = "cases fall into slices by their id, which this service makes; their sum over the date is compared by rows"
day_slices = _table(
    "day_slices",
    ["agency", "date", "partition"],
    _business("date", DATE),
    _business("partition", sa.SmallInteger()),
    _business("state", TEXT),
    _incidental("cases_seen", INT, _SLICE),
    _incidental("agenda_items", INT, _SLICE),
    _incidental("steps", JSON, _SLICE),
)

agenda = _table(
    "agenda",
    ["agency", "date", "case_id", "reason"],
    _business("date", DATE),
    _reference("case_id", "cases"),
    _business("reason", TEXT),
    _business("level", TEXT),
    _business("days_past_due", INT),
    _business("state", TEXT),
)

case_agreements = _table(
    "case_agreements",
    ["agency", "case_id", "state"],
    _reference("case_id", "cases"),
    _incidental("agreement_id", UUID, "id made by the agreement service"),
    _business("state", TEXT),
    _incidental("version", BIG, "version of the agreement service's row: counts its writes"),
)

case_payments = _table(
    "case_payments",
    ["agency", "case_id", "state", "allocated_minor", "value_date"],
    _reference("case_id", "cases"),
    _incidental("payment_id", UUID, "id made by the agreement service"),
    _business("state", TEXT),
    _business("allocated_minor", BIG),
    _business("value_date", DATE),
    _incidental("version", BIG, "version of the agreement service's row: counts its writes"),
)
