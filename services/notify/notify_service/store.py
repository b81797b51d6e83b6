"""Tables and queries of notify; agency is the first argument after the transaction (architecture §5).

`info` of each column says what it is to the fault test: business (its value is the outcome), incidental
(with the reason why two right runs may differ), or a reference to a row of this or another service
(`case.cases`).
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from notify_service.domain import messages, templates
from servicekit import acts, db, money, topics

FACT = "recupera.notify.v1.NotifyFact"

METADATA = sa.MetaData()
_BUSINESS = {"kind": "business"}
_OWN_ID = {"kind": "incidental", "reason": "UUID made here; the row is found by its natural key"}
_CLOCK = {"kind": "incidental", "reason": "instant at which it happened to run"}


def _reference(to: str) -> dict[str, str]:
    return {"kind": "reference", "to": to}


def _incidental(reason: str) -> dict[str, str]:
    return {"kind": "incidental", "reason": reason}


def _agency() -> sa.Column[uuid.UUID]:
    return sa.Column("agency", sa.Uuid, primary_key=True, info=_BUSINESS)


_Time = sa.DateTime(timezone=True)

case_anchors = sa.Table(
    "case_anchors",
    METADATA,
    _agency(),
    sa.Column("case_id", sa.Uuid, primary_key=True, info=_reference("case.cases")),
    info={"natural_key": ["case_id"]},
)

message_rows = sa.Table(
    "messages",
    METADATA,
    _agency(),
    sa.Column("id", sa.Uuid, primary_key=True, info=_OWN_ID),
    sa.Column("case_id", sa.Uuid, info=_reference("case.cases")),
    sa.Column("partition", sa.SmallInteger, info=_incidental("follows from the case's id")),
    sa.Column("person_id", sa.Uuid, info=_reference("case.people")),
    sa.Column("contact_point_id", sa.Uuid, info=_reference("case.contact_points")),
    sa.Column("channel", sa.Text, info=_BUSINESS),
    sa.Column("purpose", sa.Text, info=_BUSINESS),
    sa.Column("template", sa.Text, info=_BUSINESS),
    sa.Column("template_version", sa.Integer, info=_BUSINESS),
    sa.Column("language", sa.Text, info=_BUSINESS),
    sa.Column("step_id", sa.Uuid, info=_incidental("id of a step or instalment; `occasion` says which one")),
    sa.Column("occasion", sa.Text, info=_BUSINESS),
    sa.Column("date", sa.Date, info=_BUSINESS),
    sa.Column("agreement_id", sa.Uuid, info=_reference("agreement.agreements")),
    sa.Column("instalment_number", sa.Integer, info=_BUSINESS),
    sa.Column("instalment_due_date", sa.Date, info=_BUSINESS),
    sa.Column("state", sa.Text, info=_BUSINESS),
    sa.Column("rule", sa.Text, info=_BUSINESS),
    sa.Column("failure", sa.Text, info=_BUSINESS),
    sa.Column("attempts", sa.Integer, info=_BUSINESS),
    sa.Column("due_at", _Time, info=_incidental("counted from the instant of the last refusal")),
    sa.Column("act_key", sa.Text, info=_incidental("made of the message's id")),
    sa.Column("act_worker", sa.Uuid, info=_incidental("process that works on it")),
    sa.Column("created_at", _Time, info=_CLOCK),
    sa.Column("sent_at", _Time, info=_CLOCK),
    sa.Column("version", sa.BigInteger, info=_incidental("counts writes, retries included")),
    info={"natural_key": ["case_id", "occasion", "template", "date"]},
)

evidence = sa.Table(
    "message_evidence",
    METADATA,
    _agency(),
    sa.Column("message_id", sa.Uuid, primary_key=True, info=_reference("messages")),
    sa.Column("attempt", sa.Integer, primary_key=True, info=_BUSINESS),
    sa.Column("total_minor", sa.BigInteger, info=_BUSINESS),
    sa.Column("currency", sa.Text, info=_BUSINESS),
    sa.Column(
        "balance", postgresql.JSONB, info=_incidental("names its subjects by id; its sum is total_minor")
    ),
    sa.Column(
        "text_sha256",
        sa.LargeBinary,
        info=_incidental("the text holds the message's own unsubscribe address"),
    ),
    sa.Column("text_blob", sa.Uuid, info=_OWN_ID),
    sa.Column("created_at", _Time, info=_CLOCK),
    info={"natural_key": ["message_id", "attempt"]},
)

template_rows = sa.Table(
    "templates",
    METADATA,
    _agency(),
    sa.Column("code", sa.Text, primary_key=True, info=_BUSINESS),
    sa.Column("language", sa.Text, primary_key=True, info=_BUSINESS),
    sa.Column("version", sa.Integer, primary_key=True, info=_BUSINESS),
    sa.Column("channel", sa.Text, info=_BUSINESS),
    sa.Column("subject", sa.Text, info=_BUSINESS),
    sa.Column("body", sa.Text, info=_BUSINESS),
    sa.Column("created_at", _Time, info=_CLOCK),
    info={"natural_key": ["code", "language", "version"]},
)

suppressions = sa.Table(
    "suppressions",
    METADATA,
    _agency(),
    sa.Column("id", sa.Uuid, primary_key=True, info=_OWN_ID),
    sa.Column("contact_point_id", sa.Uuid, info=_reference("case.contact_points")),
    sa.Column("reason", sa.Text, info=_BUSINESS),
    sa.Column("message_id", sa.Uuid, info=_incidental("the first of the messages that said so")),
    sa.Column("created_at", _Time, info=_CLOCK),
    info={"natural_key": ["contact_point_id", "reason"]},
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Told:
    """A message as facts tell it."""

    id: uuid.UUID
    case_id: uuid.UUID
    person_id: uuid.UUID | None
    channel: messages.Channel
    template: str
    state: messages.State
    rule: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """What becomes of a message this process works on."""

    message: messages.Message
    state: messages.State
    attempts: int
    rule: str = ""
    failure: str = ""
    due_at: datetime.datetime | None = None
    sent_at: datetime.datetime | None = None
    person_id: uuid.UUID | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """An act about to begin, with its evidence."""

    message: messages.Message
    act_key: str
    template_version: int
    language: str
    person_id: uuid.UUID
    contact_point_id: uuid.UUID
    total_minor: int
    currency: str
    balance: Mapping[str, Any]
    text_sha256: bytes
    text_blob: uuid.UUID


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """A message as people and other systems see it."""

    id: uuid.UUID
    case_id: uuid.UUID
    person_id: uuid.UUID | None
    contact_point_id: uuid.UUID | None
    channel: messages.Channel
    template: str
    template_version: int | None
    language: str | None
    occasion: str
    date: datetime.date
    state: messages.State
    rule: str
    failure: str
    attempts: int
    due_at: datetime.datetime | None
    sent_at: datetime.datetime | None
    act_key: str | None
    stated_total: money.Money | None
    """Amount of the last act's evidence."""
    text_sha256: bytes | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suppression:
    """A contact point that must not be written to; case and person are those of the message that said so."""

    id: uuid.UUID
    contact_point_id: uuid.UUID
    reason: messages.Reason
    created_at: datetime.datetime
    case_id: uuid.UUID
    person_id: uuid.UUID | None


def partition_of(case_id: uuid.UUID) -> int:
    """Partition of a case's facts in this service's topic."""
    return topics.partition_of(case_id, topics.catalog().of(FACT).partitions)


# In the statements over many rows the agency is hidden from the planner, `(SELECT CAST(:agency AS uuid))`: an
# agency that ANALYZE has not seen would be taken for one row, and any index that begins with agency for a good one.

# --- requests -----------------------------------------------------------------------------------------------

_UUIDS = sa.ARRAY(sa.Uuid)

_ANCHORS = sa.text(
    """
    INSERT INTO case_anchors (agency, case_id)
    SELECT :agency, found.id FROM unnest(CAST(:cases AS uuid[])) AS found (id) ORDER BY found.id
    ON CONFLICT DO NOTHING
    """
)
_REQUEST = sa.text(
    """
    INSERT INTO messages (agency, case_id, partition, person_id, channel, purpose, template, step_id, occasion,
                          date, agreement_id, instalment_number, instalment_due_date)
    SELECT :agency, n.*
    FROM unnest(CAST(:cases AS uuid[]), CAST(:partitions AS smallint[]), CAST(:people AS uuid[]),
                CAST(:channels AS text[]), CAST(:purposes AS text[]), CAST(:templates AS text[]),
                CAST(:steps AS uuid[]), CAST(:occasions AS text[]), CAST(:dates AS date[]),
                CAST(:agreements AS uuid[]), CAST(:numbers AS int[]), CAST(:due_dates AS date[]))
         AS n (case_id, partition, person_id, channel, purpose, template, step_id, occasion, date,
               agreement_id, number, due)
    ORDER BY n.case_id, n.step_id, n.template, n.date
    ON CONFLICT ON CONSTRAINT messages_once DO NOTHING
    RETURNING id, case_id, person_id, channel, template, state, rule
    """
)


def add_messages(
    tx: db.Transaction, agency: uuid.UUID, requests: Sequence[messages.NewMessage]
) -> list[Told]:
    """Store requests in one statement; those that exist (same case, step, template, date) stay. Returns the
    new ones.
    """
    if not requests:
        return []
    cases = sorted({request.case_id for request in requests})
    tx.execute(_ANCHORS, {"agency": agency, "cases": cases})
    rows = tx.execute(
        _REQUEST,
        {
            "agency": agency,
            "cases": [one.case_id for one in requests],
            "partitions": [partition_of(one.case_id) for one in requests],
            "people": [one.person_id for one in requests],
            "channels": [one.channel.value for one in requests],
            "purposes": [one.purpose.value for one in requests],
            "templates": [one.template for one in requests],
            "steps": [one.step_id for one in requests],
            "occasions": [one.occasion for one in requests],
            "dates": [one.date for one in requests],
            "agreements": [one.agreement_id for one in requests],
            "numbers": [one.instalment_number for one in requests],
            "due_dates": [one.instalment_due_date for one in requests],
        },
    )
    return [_told(row) for row in rows]


def lock_cases(tx: db.Transaction, agency: uuid.UUID, case_ids: Iterable[uuid.UUID]) -> None:
    """Lock the anchors, in id order, before facts about the cases are published (architecture §5)."""
    db.lock_anchors(tx, "case_anchors", agency, case_ids)


def case_known(tx: db.Transaction, agency: uuid.UUID, case_id: uuid.UUID) -> bool:
    """True where a message was asked for on this case before."""
    statement = sa.select(case_anchors.c.case_id).where(
        case_anchors.c.agency == agency, case_anchors.c.case_id == case_id
    )
    return tx.execute(statement).first() is not None


# --- the act ------------------------------------------------------------------------------------------------

_CLAIM = sa.text(
    """
    WITH due AS MATERIALIZED (
        SELECT m.id FROM messages m
        WHERE m.agency = (SELECT CAST(:agency AS uuid)) AND m.state IN ('REQUESTED', 'SCHEDULED', 'FAILED_RETRYABLE')
          AND (m.due_at IS NULL OR m.due_at <= :now)
          AND (m.act_worker IS NULL OR m.act_worker = :worker OR NOT EXISTS (
               SELECT 1 FROM workers w
               WHERE w.id = m.act_worker AND w.heartbeat_at > clock_timestamp() - CAST(:dead_after AS
               interval)))
        ORDER BY m.partition, m.case_id, m.id
        LIMIT :limit
        FOR UPDATE SKIP LOCKED
    )
    UPDATE messages m SET act_worker = :worker FROM due
    WHERE m.agency = (SELECT CAST(:agency AS uuid)) AND m.id = due.id
    RETURNING m.id, m.case_id, m.person_id, m.channel, m.purpose, m.template, m.date, m.state, m.attempts,
              m.agreement_id, m.instalment_number, m.instalment_due_date, m.failure, m.partition
    """
)


def claim(
    tx: db.Transaction, agency: uuid.UUID, *, now: datetime.datetime, limit: int
) -> list[messages.Message]:
    """Take up to `limit` messages due at `now` for this process; their state stays.

    Rows that another live process works on are passed over; rows of a dead one are taken over, which is safe
    because nothing left before ACTING. In order of partition and case, so that acts of a few share their
    facts.
    """
    rows = tx.execute(
        _CLAIM,
        {
            "agency": agency,
            "now": now,
            "worker": acts.worker_id(),
            "dead_after": acts.DEAD_AFTER,
            "limit": limit,
        },
    ).all()
    return [
        messages.Message(
            id=row.id,
            case_id=row.case_id,
            person_id=row.person_id,
            channel=messages.Channel(row.channel),
            purpose=messages.Purpose(row.purpose),
            template=row.template,
            date=row.date,
            state=messages.State(row.state),
            attempts=row.attempts,
            agreement_id=row.agreement_id,
            instalment_number=row.instalment_number,
            instalment_due_date=row.instalment_due_date,
            failure=row.failure,
        )
        for row in sorted(rows, key=lambda row: (row.partition, row.case_id, row.id))
    ]


_START = sa.text(
    """
    UPDATE messages m
    SET state = 'ACTING', act_key = n.act_key, template_version = n.template_version, language = n.language,
        person_id = n.person_id, contact_point_id = n.contact_point_id, version = m.version + 1
    FROM unnest(CAST(:ids AS uuid[]), CAST(:keys AS text[]), CAST(:versions AS int[]),
                CAST(:languages AS text[]), CAST(:people AS uuid[]), CAST(:points AS uuid[]))
         AS n (id, act_key, template_version, language, person_id, contact_point_id)
    WHERE m.agency = (SELECT CAST(:agency AS uuid)) AND m.id = n.id AND m.act_worker = :worker
      AND m.state IN ('REQUESTED', 'SCHEDULED', 'FAILED_RETRYABLE', 'ACTING')
    RETURNING m.id
    """
)
_EVIDENCE = sa.text(
    """
    INSERT INTO message_evidence (agency, message_id, attempt, total_minor, currency, balance, text_sha256,
                                  text_blob)
    SELECT :agency, n.*
    FROM unnest(CAST(:ids AS uuid[]), CAST(:attempts AS int[]), CAST(:totals AS bigint[]),
                CAST(:currencies AS text[]), CAST(:balances AS jsonb[]), CAST(:hashes AS bytea[]),
                CAST(:blobs AS uuid[]))
         AS n (message_id, attempt, total_minor, currency, balance, text_sha256, text_blob)
    ORDER BY n.message_id
    ON CONFLICT (agency, message_id, attempt) DO UPDATE
    SET total_minor = excluded.total_minor, currency = excluded.currency, balance = excluded.balance,
        text_sha256 = excluded.text_sha256, text_blob = excluded.text_blob, created_at = excluded.created_at
    """
)


def start(tx: db.Transaction, agency: uuid.UUID, starts: Sequence[Start]) -> set[uuid.UUID]:
    """Set claimed messages ACTING with their outside key and evidence. Returns the ids that this process may
    act on.

    Doing it again (the commit's answer was lost) gives the same ids: nothing left yet.
    """
    if not starts:
        return set()
    begun = {
        row.id
        for row in tx.execute(
            _START,
            {
                "agency": agency,
                "worker": acts.worker_id(),
                "ids": [one.message.id for one in starts],
                "keys": [one.act_key for one in starts],
                "versions": [one.template_version for one in starts],
                "languages": [one.language for one in starts],
                "people": [one.person_id for one in starts],
                "points": [one.contact_point_id for one in starts],
            },
        )
    }
    kept = [one for one in starts if one.message.id in begun]
    if kept:
        tx.execute(
            _EVIDENCE,
            {
                "agency": agency,
                "ids": [one.message.id for one in kept],
                "attempts": [one.message.attempts + 1 for one in kept],
                "totals": [one.total_minor for one in kept],
                "currencies": [one.currency for one in kept],
                "balances": [json.dumps(one.balance, separators=(",", ":")) for one in kept],
                "hashes": [one.text_sha256 for one in kept],
                "blobs": [one.text_blob for one in kept],
            },
        )
    return begun


_CHANGE = sa.text(
    """
    UPDATE messages m
    SET state = n.state, attempts = n.attempts, rule = n.rule, failure = n.failure, due_at = n.due_at,
        sent_at = coalesce(n.sent_at, m.sent_at), person_id = coalesce(n.person_id, m.person_id),
        act_worker = CASE WHEN n.state = 'UNKNOWN' THEN m.act_worker END, version = m.version + 1
    FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:attempts AS int[]),
                CAST(:rules AS text[]), CAST(:failures AS text[]), CAST(:due AS timestamptz[]),
                CAST(:sent AS timestamptz[]), CAST(:people AS uuid[]))
         AS n (id, state, attempts, rule, failure, due_at, sent_at, person_id)
    WHERE m.agency = (SELECT CAST(:agency AS uuid)) AND m.id = n.id AND m.act_worker = :worker
      AND (m.state = ANY (CAST(:before AS text[])) OR (m.state = 'UNKNOWN' AND n.state <> 'UNKNOWN'))
    RETURNING m.id, m.person_id
    """
)
BEFORE_ACT = tuple(sorted(state.value for state in messages.DUE))
IN_ACT = (messages.State.ACTING.value,)


def change(
    tx: db.Transaction, agency: uuid.UUID, changes: Sequence[Change], *, before: Sequence[str]
) -> list[Told]:
    """Write what became of messages that this process works on, all in one statement, and give them free.

    Only rows still in a state of `before` change, or UNKNOWN ones that another process gave up for this one. Returns
    the changed ones as facts tell them.
    """
    if not changes:
        return []
    rows = tx.execute(
        _CHANGE,
        {
            "agency": agency,
            "worker": acts.worker_id(),
            "before": list(before),
            "ids": [one.message.id for one in changes],
            "states": [one.state.value for one in changes],
            "attempts": [one.attempts for one in changes],
            "rules": [one.rule for one in changes],
            "failures": [one.failure for one in changes],
            "due": [one.due_at for one in changes],
            "sent": [one.sent_at for one in changes],
            "people": [one.person_id for one in changes],
        },
    )
    people = {row.id: row.person_id for row in rows}
    return [
        Told(
            id=one.message.id,
            case_id=one.message.case_id,
            person_id=people[one.message.id],
            channel=one.message.channel,
            template=one.message.template,
            state=one.state,
            rule=one.rule,
        )
        for one in changes
        if one.message.id in people
    ]


_GIVE_UP = sa.text(
    """
    UPDATE messages SET state = 'UNKNOWN', attempts = attempts + 1, failure = '', version = version + 1
    WHERE agency = (SELECT CAST(:agency AS uuid)) AND id = ANY (CAST(:ids AS uuid[])) AND state = 'ACTING'
    RETURNING id, case_id, person_id, channel, template, state, rule
    """
)


def abandoned(tx: db.Transaction, agency: uuid.UUID) -> list[tuple[uuid.UUID, uuid.UUID]]:
    """(message, case) of acts whose process is dead; never this process's own. Locked."""
    return [
        (row["id"], row["case_id"])
        for row in acts.abandoned(tx, "messages", agency=agency, acting_state=messages.State.ACTING)
        if row["act_worker"] != acts.worker_id()
    ]


def give_up(tx: db.Transaction, agency: uuid.UUID, ids: Sequence[uuid.UUID]) -> list[Told]:
    """Set acts of dead processes UNKNOWN."""
    return [_told(row) for row in tx.execute(_GIVE_UP, {"agency": agency, "ids": list(ids)})]


_BEGUN = sa.text(
    """
    SELECT EXISTS (
        SELECT 1 FROM messages WHERE agency = (SELECT CAST(:agency AS uuid)) AND state = 'ACTING')
    """
)


def anything_acting(tx: db.Transaction, agency: uuid.UUID) -> bool:
    """True where some act of the agency is under way or was left behind."""
    return bool(tx.execute(_BEGUN, {"agency": agency}).scalar())


_OLDEST_DUE = sa.text(
    """
    SELECT min(coalesce(due_at, created_at)) FROM messages
    WHERE agency = (SELECT CAST(:agency AS uuid)) AND state IN ('REQUESTED', 'SCHEDULED', 'FAILED_RETRYABLE')
      AND coalesce(due_at, created_at) <= :now
    """
)
_UNKNOWN = sa.text(
    """
    SELECT channel, count(*) AS number FROM messages
    WHERE agency = (SELECT CAST(:agency AS uuid)) AND state = 'UNKNOWN' AND date >= :since GROUP BY channel
    """
)


def oldest_due(tx: db.Transaction, agency: uuid.UUID, *, now: datetime.datetime) -> datetime.datetime | None:
    """Since when the oldest message is due that did not leave."""
    found: datetime.datetime | None = tx.execute(_OLDEST_DUE, {"agency": agency, "now": now}).scalar_one()
    return found


def unknown(tx: db.Transaction, agency: uuid.UUID, *, since: datetime.date) -> Mapping[str, int]:
    """Messages of this date and later that are UNKNOWN, by channel."""
    rows = tx.execute(_UNKNOWN, {"agency": agency, "since": since})
    return {row.channel: row.number for row in rows}


# --- suppressions -------------------------------------------------------------------------------------------

_REASONS = sa.select(suppressions.c.contact_point_id, suppressions.c.reason).where(
    suppressions.c.agency == sa.bindparam("agency"),
    suppressions.c.contact_point_id == sa.any_(sa.bindparam("points", type_=_UUIDS)),
)
_SUPPRESS = sa.text(
    """
    INSERT INTO suppressions (agency, contact_point_id, reason, message_id, created_at)
    SELECT :agency, m.contact_point_id, n.reason, m.id, :now
    FROM unnest(CAST(:ids AS uuid[]), CAST(:reasons AS text[])) AS n (id, reason)
    JOIN messages m ON m.agency = (SELECT CAST(:agency AS uuid)) AND m.id = n.id
    ORDER BY m.contact_point_id, n.reason, m.id
    ON CONFLICT ON CONSTRAINT suppressions_once DO NOTHING
    RETURNING message_id, contact_point_id, reason
    """
)


def reasons_against(
    tx: db.Transaction, agency: uuid.UUID, contact_points: Iterable[uuid.UUID]
) -> dict[uuid.UUID, set[messages.Reason]]:
    """Why contact points must not be written to; those that may be are absent."""
    found: dict[uuid.UUID, set[messages.Reason]] = {}
    for row in tx.execute(_REASONS, {"agency": agency, "points": sorted(set(contact_points))}):
        found.setdefault(row.contact_point_id, set()).add(messages.Reason(row.reason))
    return found


def suppress(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    reasons: Sequence[tuple[uuid.UUID, messages.Reason]],
    now: datetime.datetime,
) -> list[tuple[uuid.UUID, uuid.UUID, messages.Reason]]:
    """Suppress the contact points of these messages; returns (message, contact point, reason) of the new
    ones.
    """
    if not reasons:
        return []
    rows = tx.execute(
        _SUPPRESS,
        {
            "agency": agency,
            "now": now,
            "ids": [message for message, _ in reasons],
            "reasons": [reason.value for _, reason in reasons],
        },
    )
    return [(row.message_id, row.contact_point_id, messages.Reason(row.reason)) for row in rows]


NO_ID = uuid.UUID(int=0)

# --- reading ------------------------------------------------------------------------------------------------

_LAST_EVIDENCE = (
    sa.select(evidence.c.total_minor, evidence.c.currency, evidence.c.text_sha256)
    .where(evidence.c.agency == message_rows.c.agency, evidence.c.message_id == message_rows.c.id)
    .order_by(evidence.c.attempt.desc())
    .limit(1)
    .lateral("last_evidence")
)
_MESSAGE = sa.select(message_rows, _LAST_EVIDENCE).select_from(
    message_rows.outerjoin(_LAST_EVIDENCE, sa.true())
)
_GET_MESSAGE = _MESSAGE.where(
    message_rows.c.agency == sa.bindparam("agency"), message_rows.c.id == sa.bindparam("id")
)
_LIST_MESSAGES = (
    _MESSAGE.where(
        message_rows.c.agency == sa.bindparam("agency"),
        message_rows.c.id > sa.bindparam("after"),
        sa.or_(
            sa.bindparam("state", type_=sa.Text) == "",
            message_rows.c.state == sa.bindparam("state", type_=sa.Text),
        ),
        sa.or_(
            sa.bindparam("case_id", type_=sa.Uuid).is_(None),
            message_rows.c.case_id == sa.bindparam("case_id", type_=sa.Uuid),
        ),
    )
    .order_by(message_rows.c.id)
    .limit(sa.bindparam("limit"))
)


def get_message(engine: db.Engine, agency: uuid.UUID, message_id: uuid.UUID) -> Record | None:
    """The message, or None. One round trip."""
    rows = db.read(engine, agency=agency, statement=_GET_MESSAGE, params={"agency": agency, "id": message_id})
    return _record(rows[0]) if rows else None


def list_messages(
    engine: db.Engine,
    agency: uuid.UUID,
    *,
    after: uuid.UUID,
    limit: int,
    state: messages.State | None,
    case_id: uuid.UUID | None,
) -> list[Record]:
    """Messages in id order after an id; None: not filtered. One round trip."""
    params = {
        "agency": agency,
        "after": after,
        "limit": limit,
        "state": state.value if state else "",
        "case_id": case_id,
    }
    return [_record(row) for row in db.read(engine, agency=agency, statement=_LIST_MESSAGES, params=params)]


def find_message(tx: db.Transaction, agency: uuid.UUID, message_id: uuid.UUID) -> Record | None:
    """The message, or None."""
    row = tx.execute(_GET_MESSAGE, {"agency": agency, "id": message_id}).first()
    return _record(row) if row else None


def lock_message(tx: db.Transaction, agency: uuid.UUID, message_id: uuid.UUID) -> Record | None:
    """The message, locked after its case's anchor; None where there is none."""
    found = find_message(tx, agency, message_id)
    if found is None:
        return None
    lock_cases(tx, agency, [found.case_id])
    tx.execute(
        sa.select(message_rows.c.id)
        .where(message_rows.c.agency == agency, message_rows.c.id == message_id)
        .with_for_update()
    )
    return find_message(tx, agency, message_id)


def find_request(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    case_id: uuid.UUID,
    step_id: uuid.UUID,
    template: str,
    date: datetime.date,
) -> uuid.UUID | None:
    """Id of the message of this natural key."""
    statement = sa.select(message_rows.c.id).where(
        message_rows.c.agency == agency,
        message_rows.c.case_id == case_id,
        message_rows.c.step_id == step_id,
        message_rows.c.template == template,
        message_rows.c.date == date,
    )
    return tx.execute(statement).scalar()


def report(
    tx: db.Transaction,
    agency: uuid.UUID,
    message_id: uuid.UUID,
    *,
    state: messages.State,
    failure: str,
) -> Told:
    """Write the state that a delivery report tells; the row is locked."""
    row = tx.execute(
        sa.update(message_rows)
        .where(message_rows.c.agency == agency, message_rows.c.id == message_id)
        .values(state=state.value, failure=failure, act_worker=None, version=message_rows.c.version + 1)
        .returning(
            message_rows.c.id,
            message_rows.c.case_id,
            message_rows.c.person_id,
            message_rows.c.channel,
            message_rows.c.template,
            message_rows.c.state,
            message_rows.c.rule,
        )
    ).one()
    return _told(row)


_SUMMARY = sa.text(
    """
    SELECT state, rule, count(*) AS messages,
           count(*) FILTER (WHERE state = 'ACTING' OR (state IN ('REQUESTED', 'SCHEDULED', 'FAILED_RETRYABLE')
                                                       AND (due_at IS NULL OR due_at <= :now))) AS due
    FROM messages
    WHERE agency = (SELECT CAST(:agency AS uuid)) AND (CAST(:date AS date) IS NULL OR date = :date)
    GROUP BY state, rule
    """
)
_WAITING = sa.text("SELECT (SELECT count(*) FROM outbox) AS outbox, (SELECT count(*) FROM parked) AS parked")


def summarize(
    tx: db.Transaction, agency: uuid.UUID, *, now: datetime.datetime, date: datetime.date | None
) -> tuple[list[tuple[str, str, int, int]], int, int]:
    """Rows (state, rule, messages, due), facts waiting to leave, facts parked."""
    rows = [
        (row.state, row.rule, row.messages, row.due)
        for row in tx.execute(_SUMMARY, {"agency": agency, "now": now, "date": date})
    ]
    waiting = tx.execute(_WAITING).one()
    return rows, waiting.outbox, waiting.parked


_PRESENT = (
    sa.select(
        message_rows.c.id,
        message_rows.c.case_id,
        message_rows.c.person_id,
        message_rows.c.channel,
        message_rows.c.template,
        message_rows.c.state,
        message_rows.c.rule,
    )
    .where(message_rows.c.agency == sa.bindparam("agency"), message_rows.c.id > sa.bindparam("after"))
    .order_by(message_rows.c.id)
    .limit(sa.bindparam("limit"))
)
_SUPPRESSIONS = (
    sa.select(suppressions, message_rows.c.case_id, message_rows.c.person_id)
    .join(
        message_rows,
        sa.and_(
            message_rows.c.agency == suppressions.c.agency, message_rows.c.id == suppressions.c.message_id
        ),
    )
    .where(suppressions.c.agency == sa.bindparam("agency"), suppressions.c.id > sa.bindparam("after"))
    .order_by(suppressions.c.id)
    .limit(sa.bindparam("limit"))
)


def present(tx: db.Transaction, agency: uuid.UUID, *, after: uuid.UUID, limit: int) -> list[Told]:
    """Messages as they are now, in id order, after an id."""
    return [_told(row) for row in tx.execute(_PRESENT, {"agency": agency, "after": after, "limit": limit})]


def list_suppressions(
    tx: db.Transaction, agency: uuid.UUID, *, after: uuid.UUID, limit: int
) -> list[Suppression]:
    """Suppressions in id order, after an id."""
    return [
        Suppression(
            id=row.id,
            contact_point_id=row.contact_point_id,
            reason=messages.Reason(row.reason),
            created_at=row.created_at,
            case_id=row.case_id,
            person_id=row.person_id,
        )
        for row in tx.execute(_SUPPRESSIONS, {"agency": agency, "after": after, "limit": limit})
    ]


def _record(row: Any) -> Record:
    return Record(
        id=row.id,
        case_id=row.case_id,
        person_id=row.person_id,
        contact_point_id=row.contact_point_id,
        channel=messages.Channel(row.channel),
        template=row.template,
        template_version=row.template_version,
        language=row.language,
        occasion=row.occasion,
        date=row.date,
        state=messages.State(row.state),
        rule=row.rule,
        failure=row.failure,
        attempts=row.attempts,
        due_at=row.due_at,
        sent_at=row.sent_at,
        act_key=row.act_key,
        stated_total=money.Money(row.total_minor, row.currency) if row.currency else None,
        text_sha256=bytes(row.text_sha256) if row.text_sha256 is not None else None,
    )


def _told(row: Any) -> Told:
    stored = messages.State(row.state)
    return Told(
        id=row.id,
        case_id=row.case_id,
        person_id=row.person_id,
        channel=messages.Channel(row.channel),
        template=row.template,
        state=stored,
        rule=row.rule,
    )


_READY = sa.text("SELECT 1")


def ready(engine: db.Engine) -> bool:
    """Whether the database answers."""
    return bool(db.read(engine, agency=None, statement=_READY))


# --- templates ----------------------------------------------------------------------------------------------

_LATEST = sa.text(
    """
    SELECT DISTINCT ON (code, language) code, language, version, channel, subject, body, created_at
    FROM templates WHERE agency = :agency ORDER BY code, language, version DESC
    """
)


def agency_templates(
    tx: db.Transaction, agency: uuid.UUID
) -> list[tuple[templates.Template, datetime.datetime]]:
    """The agency's own templates, the newest version of each, with the instant of publication."""
    return [
        (
            templates.Template(
                code=row.code,
                language=row.language,
                channel=messages.Channel(row.channel),
                subject=row.subject,
                body=row.body,
                version=row.version,
            ),
            row.created_at,
        )
        for row in tx.execute(_LATEST, {"agency": agency})
    ]


def add_template(
    tx: db.Transaction, agency: uuid.UUID, template: templates.Template, *, now: datetime.datetime
) -> bool:
    """Store a version; False where somebody stored the same version meanwhile."""
    statement = (
        postgresql.insert(template_rows)
        .values(
            agency=agency,
            code=template.code,
            language=template.language,
            version=template.version,
            channel=template.channel.value,
            subject=template.subject,
            body=template.body,
            created_at=now,
        )
        .on_conflict_do_nothing()
        .returning(template_rows.c.version)
    )
    return tx.execute(statement).first() is not None
