"""Business days, their slices, the daily run of one slice, the agenda."""

from __future__ import annotations

import dataclasses
import datetime
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from case_service.store import scoped, tables
from servicekit import db

PARTITIONS = tables.PARTITIONS
DONE = "DONE"
"""State of a slice that was run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Worked:
    """What a run did in one slice, as columns. ``step_*`` are steps that became due, ``moved_ids`` cases
    that entered collection (with their versions and open principal). Ids as one string of 16 bytes each.
    """

    cases_seen: int
    agenda_items: int
    step_case_ids: bytes
    step_person_ids: bytes
    step_creditor_ids: bytes
    step_levels: Sequence[int]
    step_days: Sequence[int]
    step_open_minor: Sequence[int]
    step_natural_keys: Sequence[int]
    moved_ids: bytes
    moved_versions: Sequence[int]
    moved_open_minor: Sequence[int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged:
    """What became of a slice's promises, and the agenda items that followed."""

    agenda_items: int
    kept: int
    broken: int


def open_day(tx: db.Transaction, agency: uuid.UUID, date: datetime.date) -> bool:
    """Add the date and its slices; slices that were cleared before the date was open keep that. False where
    it is open.
    """
    if tx.execute(_OPEN, {"agency": agency, "date": date}).rowcount == 0:
        return False
    tx.execute(_OPEN_SLICES, {"agency": agency, "date": date, "slices": PARTITIONS})
    return True


def day(tx: db.Transaction, agency: uuid.UUID, date: datetime.date) -> Sequence[sa.Row[Any]]:
    """The slices of an opened date; empty where the date is not open."""
    return tx.execute(DAY, {"agency": agency, "date": date}).all()


def clear(tx: db.Transaction, agency: uuid.UUID, *, date: datetime.date, partition: int) -> None:
    """The due and breach run of this and all earlier dates is over in the partition: its waiting slices may run."""
    tx.execute(_CLEAR, {"agency": agency, "date": date, "partition": partition})


def cleared(tx: db.Transaction, agency: uuid.UUID, *, partition: int | None) -> Sequence[sa.Row[Any]]:
    """Slices of opened dates that may run, oldest date first, locked; of one partition or (None) of any."""
    return tx.execute(_CLEARED, {"agency": agency, "partition": partition}).all()


def late(tx: db.Transaction, agency: uuid.UUID, *, minutes: int) -> Sequence[sa.Row[Any]]:
    """Dates with slices that are still not done ``minutes`` machine minutes after the date was opened."""
    return tx.execute(_LATE, {"agency": agency, "minutes": minutes}).all()


def open_slices(tx: db.Transaction, agency: uuid.UUID) -> int:
    """Slices of opened dates that are not done."""
    return int(tx.execute(_OPEN_COUNT, {"agency": agency}).scalar_one())


def expired_holds(
    tx: db.Transaction, agency: uuid.UUID, *, date: datetime.date, partition: int
) -> Sequence[sa.Row[Any]]:
    """Active holds of the slice whose last day is before ``date``."""
    return tx.execute(_EXPIRED_HOLDS, {"agency": agency, "date": date, "partition": partition}).all()


def expire_hold(tx: db.Transaction, agency: uuid.UUID, *, case_id: uuid.UUID, hold_id: uuid.UUID) -> int:
    """Mark the hold as expired; how many are still active on the case."""
    params = {"agency": agency, "case_id": case_id, "id": hold_id}
    tx.execute(_EXPIRE_HOLD, params)
    return int(tx.execute(_HOLDS_LEFT, params).scalar_one())


def lock_slice(tx: db.Transaction, agency: uuid.UUID, *, partition: int) -> None:
    """Lock the slice's cases that the run may change, in id order."""
    for statement in _LOCK_SLICE:
        tx.execute(statement, {"agency": agency, "partition": partition})


def run_promises(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    date: datetime.date,
    partition: int,
    grace_days: int,
    now: datetime.datetime,
) -> Judged:
    """Promises of the slice: due ones get an agenda item, paid ones are kept, unpaid ones past their date
    and grace days are broken, with an agenda item, a line in the timeline and the case CONTACTED again.
    """
    params = {"agency": agency, "date": date, "partition": partition, "grace_days": grace_days, "now": now}
    row = tx.execute(_PROMISES, params).one()
    return Judged(agenda_items=row.planned, kept=row.kept, broken=row.broken)


def run_ladder(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    ladder: str,
    date: datetime.date,
    partition: int,
    grace_days: int,
    now: datetime.datetime,
) -> Worked:
    """READY cases enter collection; the first level that fits each case in collection acts, unless a hold
    on its channel or a promise in force suppresses it. Cases being taken back, on hold, in agreement or
    over are left alone.
    """
    row = tx.execute(
        _LADDER,
        {
            "agency": agency,
            "ladder": ladder,
            "date": date,
            "partition": partition,
            "grace_days": grace_days,
            "now": now,
        },
    ).one()
    return Worked(
        cases_seen=row.cases_seen,
        agenda_items=row.agenda_items,
        step_case_ids=bytes(row.step_case_ids or b""),
        step_person_ids=bytes(row.step_person_ids or b""),
        step_creditor_ids=bytes(row.step_creditor_ids or b""),
        step_levels=row.step_levels or (),
        step_days=row.step_days or (),
        step_open_minor=row.step_open or (),
        step_natural_keys=row.step_keys or (),
        moved_ids=bytes(row.moved_ids or b""),
        moved_versions=row.moved_versions or (),
        moved_open_minor=row.moved_open or (),
    )


def close_slice(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    date: datetime.date,
    partition: int,
    cases_seen: int,
    agenda_items: int,
    steps: Mapping[str, int],
) -> None:
    """The slice is done, with its counts."""
    tx.execute(
        _CLOSE,
        {
            "agency": agency,
            "date": date,
            "partition": partition,
            "cases_seen": cases_seen,
            "agenda_items": agenda_items,
            "steps": dict(steps),
        },
    )


def add_agenda(
    tx: db.Transaction, agency: uuid.UUID, *, case_id: uuid.UUID, date: datetime.date, reason: str
) -> None:
    """Add an agenda item with the case's days past due on ``date``; nothing where it is there."""
    tx.execute(_ADD_AGENDA, {"agency": agency, "case_id": case_id, "date": date, "reason": reason})


def finish_agenda(
    tx: db.Transaction, agency: uuid.UUID, *, case_ids: Sequence[uuid.UUID], date: datetime.date
) -> None:
    """What was planned for these cases on ``date`` is done."""
    tx.execute(_FINISH_AGENDA, {"agency": agency, "case_ids": case_ids, "date": date})


DAY = scoped.text(
    """
    SELECT slice.partition, slice.state, slice.cases_seen, slice.agenda_items, slice.steps
    FROM business_days AS day
    JOIN day_slices AS slice ON slice.agency = @agency AND slice.date = day.date
    WHERE day.agency = @agency AND day.date = :date ORDER BY slice.partition
    """
)
AGENDA = scoped.text(
    """
    SELECT item.case_id, item.date, item.reason, item.level, item.days_past_due, item.state,
           debt.open_principal_minor, debt.currency, debtor.display_name AS debtor_name
    FROM agenda AS item
    JOIN cases AS debt ON debt.agency = @agency AND debt.id = item.case_id
    JOIN people AS debtor ON debtor.agency = @agency AND debtor.id = debt.debtor_id
    WHERE item.agency = @agency
      AND item.date = coalesce(:date, (SELECT business_date FROM agency_clock WHERE agency = @agency))
      AND (CAST(:after_days AS integer) IS NULL
           OR item.days_past_due < :after_days
           OR (item.days_past_due = :after_days AND (item.case_id, item.reason) > (:after_case, :after_reason)))
    ORDER BY item.days_past_due DESC, item.case_id, item.reason LIMIT :limit
    """
).bindparams(sa.bindparam("date", type_=sa.Date), sa.bindparam("after_case", type_=sa.Uuid))

_OPEN = scoped.text("INSERT INTO business_days (agency, date) VALUES (:agency, :date) ON CONFLICT DO NOTHING")
_OPEN_SLICES = scoped.text(
    """
    INSERT INTO day_slices (agency, date, partition, state)
    SELECT :agency, :date, partition, 'WAITING' FROM generate_series(0, :slices - 1) AS partition
    ON CONFLICT DO NOTHING
    """
)
_CLEAR = scoped.text(
    """
    WITH earlier AS (
        UPDATE day_slices SET state = 'CLEARED'
        WHERE agency = @agency AND partition = :partition AND date < :date AND state = 'WAITING'
    )
    INSERT INTO day_slices AS known (agency, date, partition, state) VALUES (:agency, :date, :partition, 'CLEARED')
    ON CONFLICT (agency, date, partition) DO UPDATE SET state = 'CLEARED' WHERE known.state = 'WAITING'
    """
)
_CLEARED = scoped.text(
    """
    SELECT slice.date, slice.partition FROM day_slices AS slice
    WHERE slice.agency = @agency AND slice.state = 'CLEARED'
      AND (CAST(:partition AS integer) IS NULL OR slice.partition = :partition)
      AND EXISTS (SELECT FROM business_days AS day WHERE day.agency = @agency AND day.date = slice.date)
    ORDER BY slice.date, slice.partition FOR UPDATE OF slice SKIP LOCKED
    """
)
_LATE = scoped.text(
    """
    SELECT day.date, count(*) AS slices FROM business_days AS day
    JOIN day_slices AS slice ON slice.agency = @agency AND slice.date = day.date AND slice.state <> 'DONE'
    WHERE day.agency = @agency AND day.opened_at < clock_timestamp() - make_interval(mins => :minutes)
    GROUP BY day.date ORDER BY day.date
    """
)
_OPEN_COUNT = scoped.text(
    """
    SELECT count(*) FROM day_slices AS slice
    WHERE slice.agency = @agency AND slice.state <> 'DONE'
      AND EXISTS (SELECT FROM business_days AS day WHERE day.agency = @agency AND day.date = slice.date)
    """
)
_CLOSE = scoped.text(
    """
    UPDATE day_slices SET state = 'DONE', cases_seen = :cases_seen, agenda_items = :agenda_items, steps = :steps
    WHERE agency = @agency AND date = :date AND partition = :partition
    """
).bindparams(sa.bindparam("steps", type_=sa.JSON))

_EXPIRED_HOLDS = scoped.text(
    """
    SELECT hold.id, hold.case_id, hold.type, hold.channels FROM holds AS hold
    JOIN cases AS debt ON debt.agency = @agency AND debt.id = hold.case_id AND debt.partition = :partition
    WHERE hold.agency = @agency AND hold.state = 'ACTIVE' AND hold.until < :date
    ORDER BY hold.case_id, hold.id
    """
)
_EXPIRE_HOLD = scoped.text(
    "UPDATE holds SET state = 'EXPIRED' WHERE agency = @agency AND case_id = :case_id AND id = :id AND state = 'ACTIVE'"
)
_HOLDS_LEFT = scoped.text(
    """
    UPDATE cases SET holds_active = (
        SELECT count(*) FROM holds WHERE agency = @agency AND case_id = :case_id AND state = 'ACTIVE')
    WHERE agency = @agency AND id = :case_id RETURNING holds_active
    """
)
_LOCK_SLICE = (
    scoped.text("SET LOCAL work_mem = '32MB'"),
    scoped.text(
        """
        SELECT count(*) FROM (
            SELECT FROM cases WHERE agency = @agency AND partition = :partition AND state IN ('READY',
            'IN_COLLECTION')
            ORDER BY id FOR NO KEY UPDATE) AS locked
        """
    ),
)

_PROMISES = scoped.text(
    """
    WITH open AS (
        SELECT promise.case_id, promise.act_key, promise.promise_date, debt.oldest_due_date,
               coalesce((SELECT sum(payment.allocated_minor) FROM case_payments AS payment
                         WHERE payment.agency = @agency AND payment.case_id = promise.case_id
                           AND payment.state = 'ALLOCATED' AND payment.value_date >= promise.made_on), 0)
                   >= promise.amount_minor AS paid
        FROM promises AS promise
        JOIN cases AS debt ON debt.agency = @agency AND debt.id = promise.case_id
        WHERE promise.agency = @agency AND promise.state = 'OPEN' AND promise.promise_date <= :date
          AND debt.partition = :partition
        ORDER BY promise.case_id
    ), judged AS (
        SELECT *, CASE WHEN paid THEN 'KEPT' WHEN promise_date + CAST(:grace_days AS integer) < :date THEN 'BROKEN'
                  ELSE 'OPEN' END AS verdict FROM open
    ), over AS (
        UPDATE promises SET state = judged.verdict FROM judged
        WHERE promises.agency = @agency AND promises.case_id = judged.case_id AND promises.act_key = judged.act_key
          AND judged.verdict <> 'OPEN'
    ), moved AS (
        UPDATE cases SET promise_until = NULL, version = version + 1, updated_at = :now,
               sub_state = CASE WHEN state = 'IN_COLLECTION' AND sub_state = 'PTP' THEN 'CONTACTED' ELSE
               sub_state END
        FROM judged WHERE cases.agency = @agency AND cases.id = judged.case_id AND judged.verdict <> 'OPEN'
    ), noted AS (
        INSERT INTO timeline (agency, case_id, at, business_date, actor, kind, code, subject_id)
        SELECT :agency, case_id, :now, :date, 'system', 'PROMISE', verdict, act_key FROM judged WHERE verdict
        <> 'OPEN'
    ), planned AS (
        INSERT INTO agenda (agency, date, case_id, reason, level, days_past_due)
        SELECT DISTINCT :agency, CAST(:date AS date), case_id,
               CASE verdict WHEN 'BROKEN' THEN 'PROMISE_BROKEN' ELSE 'PROMISE_DUE' END, '',
               greatest(0, coalesce(CAST(:date AS date) - oldest_due_date, 0))
        FROM judged
        WHERE verdict = 'BROKEN' OR (verdict = 'OPEN' AND promise_date > coalesce(
            (SELECT max(date) FROM business_days WHERE agency = @agency AND date < :date), DATE '-infinity'))
        ON CONFLICT DO NOTHING RETURNING 1
    )
    SELECT (SELECT count(*) FROM planned) AS planned, count(*) FILTER (WHERE verdict = 'KEPT') AS kept,
           count(*) FILTER (WHERE verdict = 'BROKEN') AS broken FROM judged
    """
)

# Everything of the slice in one statement: the locked cases, the level that fits each, the update, the agenda, the
# timeline, and what the facts need as columns.
_LADDER = scoped.text(
    """
    WITH levels AS MATERIALIZED (
        SELECT level.position, level.code, level.from_days, level.to_days, level.minimum_wait_days, level.channel
        FROM ladders AS ladder
        JOIN ladder_levels AS level ON level.agency = @agency AND level.ladder_id = ladder.id
        WHERE ladder.agency = @agency AND ladder.code = :ladder
    ), worked AS MATERIALIZED (
        SELECT debt.id, debt.state = 'READY' AS entering, debt.debtor_id, debt.creditor_id, debt.natural_key,
               debt.open_principal_minor, CAST(:date AS date) - debt.oldest_due_date AS days, step.position,
               step.code,
               step.channel
        FROM cases AS debt LEFT JOIN LATERAL (
            SELECT position, code, channel FROM levels
            WHERE CAST(:date AS date) - debt.oldest_due_date BETWEEN from_days AND to_days
              AND (debt.last_step_date IS NULL OR debt.last_step_date + minimum_wait_days <= :date)
              AND (debt.promise_until IS NULL OR debt.promise_until + CAST(:grace_days AS integer) < :date)
              AND (debt.holds_active = 0 OR NOT EXISTS (
                  SELECT FROM holds WHERE holds.agency = @agency AND holds.case_id = debt.id AND holds.state
                  = 'ACTIVE'
                  AND levels.channel = ANY (holds.channels)))
            ORDER BY position LIMIT 1
        ) AS step ON debt.open_principal_minor > 0
        WHERE debt.agency = @agency AND debt.partition = :partition AND debt.state IN ('READY', 'IN_COLLECTION')
          AND debt.frozen_by IS NULL
    ), changed AS (
        UPDATE cases SET
            state = 'IN_COLLECTION', sub_state = CASE WHEN entering THEN 'NEW' ELSE sub_state END,
            last_step_date = CASE WHEN worked.position IS NULL THEN last_step_date ELSE :date END,
            last_level = coalesce(worked.code, last_level), version = version + 1, updated_at = :now
        FROM worked
        WHERE cases.agency = @agency AND cases.id = worked.id AND (worked.entering OR worked.position IS NOT NULL)
        RETURNING cases.id, cases.version, worked.entering
    ), noted AS (
        INSERT INTO timeline (agency, case_id, at, business_date, actor, kind, code)
        SELECT :agency, id, :now, :date, 'system', 'STATE_CHANGED', 'IN_COLLECTION' FROM worked WHERE entering
        ORDER BY id
    ), planned AS (
        INSERT INTO agenda (agency, date, case_id, reason, level, days_past_due)
        SELECT :agency, :date, id, 'LADDER', code, days FROM worked WHERE channel = 'CALL' ORDER BY id
        ON CONFLICT DO NOTHING RETURNING 1
    ), steps AS (
        SELECT string_agg(uuid_send(id), ''::bytea) AS step_case_ids,
               string_agg(uuid_send(debtor_id), ''::bytea) AS step_person_ids,
               string_agg(uuid_send(creditor_id), ''::bytea) AS step_creditor_ids,
               array_agg(position) AS step_levels, array_agg(days) AS step_days,
               array_agg(open_principal_minor) AS step_open, array_agg(natural_key) AS step_keys
        FROM (SELECT * FROM worked WHERE position IS NOT NULL ORDER BY id) AS due
    ), entered AS (
        SELECT string_agg(uuid_send(changed.id), ''::bytea) AS moved_ids, array_agg(changed.version) AS
        moved_versions,
               array_agg(worked.open_principal_minor) AS moved_open
        FROM changed JOIN worked ON worked.id = changed.id WHERE changed.entering
    )
    SELECT (SELECT count(*) FROM worked)::integer AS cases_seen, (SELECT count(*) FROM planned)::integer AS
    agenda_items,
           steps.*, entered.* FROM steps, entered
    """
)
_ADD_AGENDA = scoped.text(
    """
    INSERT INTO agenda (agency, date, case_id, reason, level, days_past_due)
    SELECT :agency, :date, id, :reason, '', greatest(0, coalesce(CAST(:date AS date) - oldest_due_date, 0))
    FROM cases WHERE agency = @agency AND id = :case_id
    ON CONFLICT DO NOTHING
    """
)
_FINISH_AGENDA = scoped.text(
    "UPDATE agenda SET state = 'DONE' WHERE agency = @agency AND date = :date AND case_id = ANY (:case_ids)"
    " AND state = 'PLANNED'"
)
