"""The tables, each column declared business, reference or incidental (with the reason); DDL is in migrations.

No column holds a number, a name or a document of a person.
"""

from typing import Any

import sqlalchemy as sa

ANCHORS = "case_anchors"

_BUSINESS = {"kind": "business"}
_UUID = {"kind": "incidental", "reason": "UUID made by the owner"}
_FOREIGN_UUID = {"kind": "incidental", "reason": "UUID made by the case service"}
_SCOPE = {"kind": "business"}
_VERSION = {"kind": "incidental", "reason": "counts changes, and a crash can add one"}
_WHEN = {"kind": "incidental", "reason": "instant at which the loop came round"}
_COPY = {
    "kind": "incidental",
    "reason": "copy of the case service's row, kept from the first change after a call was due",
}
_WHO = {"kind": "incidental", "reason": "any free agent of the campaign takes the call"}

METADATA = sa.MetaData()

case_anchors = sa.Table(
    "case_anchors",
    METADATA,
    sa.Column("agency", sa.Uuid, primary_key=True, info=_SCOPE),
    sa.Column("case_id", sa.Uuid, primary_key=True, info={"kind": "reference", "to": "case.cases"}),
    sa.Column("natural_key", sa.BigInteger, nullable=False, info=_BUSINESS),
    sa.Column("state", sa.Text, nullable=False, info=_COPY),
    sa.Column("version", sa.BigInteger, nullable=False, info=_COPY),
    info={"natural_key": ["case_id"]},
)

candidates = sa.Table(
    "candidates",
    METADATA,
    sa.Column("agency", sa.Uuid, primary_key=True, info=_SCOPE),
    sa.Column("id", sa.Uuid, primary_key=True, info=_UUID),
    sa.Column("case_id", sa.Uuid, nullable=False, info={"kind": "reference", "to": "case_anchors"}),
    sa.Column("person_id", sa.Uuid, info=_FOREIGN_UUID),
    sa.Column("date", sa.Date, nullable=False, info=_BUSINESS),
    sa.Column("step_id", sa.Uuid, nullable=False, info=_FOREIGN_UUID),
    sa.Column("level", sa.Text, nullable=False, info=_BUSINESS),
    sa.Column("script", sa.Text, nullable=False, info=_BUSINESS),
    sa.Column("days_past_due", sa.Integer, nullable=False, info=_BUSINESS),
    sa.Column("open_principal_minor", sa.BigInteger, nullable=False, info=_BUSINESS),
    sa.Column("state", sa.Text, nullable=False, info=_BUSINESS),
    sa.Column("rule", sa.Text, nullable=False, info=_BUSINESS),
    info={"natural_key": ["case_id", "date", "level", "script"]},
)

campaigns = sa.Table(
    "campaigns",
    METADATA,
    sa.Column("agency", sa.Uuid, primary_key=True, info=_SCOPE),
    sa.Column("id", sa.Uuid, primary_key=True, info=_UUID),
    sa.Column("display_name", sa.Text, nullable=False, info=_BUSINESS),
    sa.Column("state", sa.Text, nullable=False, info=_BUSINESS),
    sa.Column("pacing", sa.Text, nullable=False, info=_BUSINESS),
    sa.Column("date", sa.Date, nullable=False, info=_BUSINESS),
    sa.Column("script", sa.Text, nullable=False, info=_BUSINESS),
    sa.Column("max_attempts", sa.Integer, nullable=False, info=_BUSINESS),
    sa.Column("retry_after", sa.Interval, nullable=False, info=_BUSINESS),
    sa.Column("shift_minutes", sa.Integer, nullable=False, info=_BUSINESS),
    sa.Column("minutes_per_call", sa.Integer, nullable=False, info=_BUSINESS),
    sa.Column("simulation_seed", sa.BigInteger, nullable=False, info=_BUSINESS),
    sa.Column("pause_reason", sa.Text, nullable=False, info=_BUSINESS),
    sa.Column("calls_made", sa.BigInteger, nullable=False, info=_BUSINESS),
    sa.Column("live_answers", sa.BigInteger, nullable=False, info=_BUSINESS),
    sa.Column("abandoned_calls", sa.BigInteger, nullable=False, info=_BUSINESS),
    sa.Column("create_time", sa.DateTime(timezone=True), nullable=False, info=_WHEN),
    sa.Column("version", sa.BigInteger, nullable=False, info=_VERSION),
    info={"natural_key": ["date", "script", "display_name"]},
)

entries = sa.Table(
    "campaign_entries",
    METADATA,
    sa.Column("agency", sa.Uuid, primary_key=True, info=_SCOPE),
    sa.Column("campaign_id", sa.Uuid, primary_key=True, info={"kind": "reference", "to": "campaigns"}),
    sa.Column("case_id", sa.Uuid, primary_key=True, info={"kind": "reference", "to": "case_anchors"}),
    sa.Column("candidate_id", sa.Uuid, nullable=False, info={"kind": "reference", "to": "candidates"}),
    sa.Column("person_id", sa.Uuid, info=_FOREIGN_UUID),
    sa.Column("natural_key", sa.BigInteger, nullable=False, info=_BUSINESS),
    sa.Column("open_principal_minor", sa.BigInteger, nullable=False, info=_BUSINESS),
    sa.Column("state", sa.Text, nullable=False, info=_BUSINESS),
    sa.Column("attempts", sa.Integer, nullable=False, info=_BUSINESS),
    sa.Column("not_before", sa.DateTime(timezone=True), nullable=False, info=_WHEN),
    sa.Column("rule", sa.Text, nullable=False, info=_BUSINESS),
    info={"natural_key": ["campaign_id", "case_id"]},
)

agents = sa.Table(
    "agents",
    METADATA,
    sa.Column("agency", sa.Uuid, primary_key=True, info=_SCOPE),
    sa.Column("id", sa.Text, primary_key=True, info=_BUSINESS),
    sa.Column("state", sa.Text, nullable=False, info=_BUSINESS),
    sa.Column("campaign_id", sa.Uuid, info={"kind": "reference", "to": "campaigns"}),
    sa.Column("call_id", sa.Uuid, info=_WHO),
    sa.Column("next_state", sa.Text, nullable=False, info=_BUSINESS),
    sa.Column("since", sa.DateTime(timezone=True), nullable=False, info=_WHEN),
    info={"natural_key": ["id"]},
)

calls = sa.Table(
    "calls",
    METADATA,
    sa.Column("agency", sa.Uuid, primary_key=True, info=_SCOPE),
    sa.Column("id", sa.Uuid, primary_key=True, info=_UUID),
    sa.Column("campaign_id", sa.Uuid, nullable=False, info={"kind": "reference", "to": "campaigns"}),
    sa.Column("case_id", sa.Uuid, nullable=False, info={"kind": "reference", "to": "case_anchors"}),
    sa.Column("date", sa.Date, nullable=False, info=_BUSINESS),
    sa.Column("attempt", sa.Integer, nullable=False, info=_BUSINESS),
    sa.Column("natural_key", sa.BigInteger, nullable=False, info=_BUSINESS),
    sa.Column("state", sa.Text, nullable=False, info=_BUSINESS),
    sa.Column("agent_id", sa.Text, nullable=False, info=_WHO),
    sa.Column("person_id", sa.Uuid, info=_FOREIGN_UUID),
    sa.Column("contact_point_id", sa.Uuid, info=_FOREIGN_UUID),
    sa.Column("currency", sa.Text, nullable=False, info=_BUSINESS),
    sa.Column(
        "outside_key", sa.Text, nullable=False, info={"kind": "incidental", "reason": "carries the call's id"}
    ),
    sa.Column("rule", sa.Text, nullable=False, info=_BUSINESS),
    sa.Column("disposition", sa.Text, info=_BUSINESS),
    sa.Column("promise_date", sa.Date, info=_BUSINESS),
    sa.Column("promise_amount_minor", sa.BigInteger, info=_BUSINESS),
    sa.Column("start_time", sa.DateTime(timezone=True), info=_WHEN),
    sa.Column("end_time", sa.DateTime(timezone=True), info=_WHEN),
    sa.Column("version", sa.BigInteger, nullable=False, info=_VERSION),
    info={"natural_key": ["case_id", "date", "attempt"]},
)


def signed(key: int) -> int:
    """The 64 unsigned bits of a natural key as a bigint."""
    return key - 2**64 if key >= 2**63 else key


def unsigned(key: int) -> int:
    """The natural key of a bigint."""
    return key % 2**64


UUIDS = sa.ARRAY(sa.Uuid)


def param(name: str, kind: Any = None) -> sa.BindParameter[Any]:
    """A value given when the statement runs."""
    return sa.bindparam(name, type_=kind)
