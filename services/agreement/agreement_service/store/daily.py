"""The daily run of one partition: what time alone changes, set-based."""

import datetime
import uuid
from typing import NamedTuple

import sqlalchemy as sa

from agreement_service.store import tables
from servicekit import db


class Moved(NamedTuple):
    """An instalment whose state the day changed, as a case of its agreement sees it."""

    partition: int
    case_id: uuid.UUID
    id: uuid.UUID
    agreement_id: uuid.UUID
    number: int
    state: str
    due_date: datetime.date
    open_minor: int
    version: int


_STATE = """CASE
    WHEN :date > instalments.payable_until AND :date - instalments.due_date >= agreements.broken_days
        AND (agreements.grace_date IS NULL OR :date > agreements.grace_date) THEN 'DEFAULTED'
    WHEN :date > instalments.payable_until AND :date - instalments.due_date >= agreements.missed_days THEN 'MISSED'
    WHEN instalments.paid_capital_minor + instalments.paid_interest_minor > 0 THEN 'PARTIAL'
    WHEN :date >= instalments.due_date THEN 'DUE'
    WHEN :date >= instalments.due_date - agreements.notice_days THEN 'NOTIFIED'
    ELSE 'SCHEDULED' END"""
"""`accounts.instalment_state` of an unpaid instalment."""
_TOUCHED = tables.sql(
    """
    SELECT agreements.id, agreement_cases.case_id, agreements.state, agreements.expire_date < :date AS late
    FROM agreement_cases JOIN agreements
        ON agreements.agency = agreement_cases.agency AND agreements.id = agreement_cases.agreement_id
    WHERE agreement_cases.agency = :agency AND agreement_cases.partition = :partition
        AND agreement_cases.next_day <= :date
    """
).bindparams(sa.bindparam("date", type_=sa.Date()))
# An unpaid instalment changes only on these days (_STATE): on none before the least of those that are still to come.
_NEXT_DAY = tables.sql(
    """
    UPDATE agreement_cases SET next_day = coalesce(coming.day, '9999-12-31')
    FROM unnest(CAST(:ids AS uuid[])) AS looked (id) CROSS JOIN LATERAL (
        SELECT min(CASE WHEN instalments.due_date - agreements.notice_days > :date
                THEN least(instalments.due_date - agreements.notice_days, missed.day, broken.day)
            ELSE least(CASE WHEN instalments.due_date > :date THEN instalments.due_date END,
                CASE WHEN missed.day > :date THEN missed.day END, CASE WHEN broken.day > :date THEN broken.day END)
            END) AS day
        FROM agreements JOIN instalments
            ON instalments.agency = agreements.agency AND instalments.agreement_id = agreements.id
            CROSS JOIN LATERAL (SELECT greatest(instalments.payable_until + 1,
                instalments.due_date + agreements.missed_days) AS day) AS missed
            CROSS JOIN LATERAL (SELECT greatest(instalments.payable_until + 1,
                instalments.due_date + agreements.broken_days, agreements.grace_date + 1) AS day) AS broken
        WHERE agreements.agency = :agency AND agreements.id = looked.id
            AND agreements.state IN ('AWAITING_DOWN_PAYMENT', 'ACTIVE')
            AND instalments.state NOT IN ('PAID', 'PAID_LATE')
    ) AS coming
    WHERE agreement_cases.agency = :agency AND agreement_cases.agreement_id = looked.id
    """
).bindparams(sa.bindparam("date", type_=sa.Date()))
_EXPIRE = tables.sql(
    """
    UPDATE agreements SET state = 'EXPIRED', end_date = :date, version = version + 1
    WHERE agency = :agency AND id = ANY(CAST(:ids AS uuid[])) AND state IN ('PROPOSED', 'AWAITING_SIGNATURE')
        AND expire_date < :date
    RETURNING id
    """
)
_MOVE = tables.sql(
    f"""
    WITH changed AS (
        UPDATE instalments SET version = instalments.version + 1,
            charged_interest_minor = CASE WHEN instalments.due_date <= :date
                THEN greatest(instalments.charged_interest_minor, instalments.interest_minor)
                ELSE instalments.charged_interest_minor END,
            state = CASE WHEN instalments.state IN ('PAID', 'PAID_LATE') THEN instalments.state ELSE {_STATE} END
        FROM unnest(CAST(:ids AS uuid[])) AS going (id), agreements
        WHERE agreements.agency = :agency AND agreements.id = going.id
            AND agreements.state IN ('AWAITING_DOWN_PAYMENT', 'ACTIVE')
            AND instalments.agency = :agency AND instalments.agreement_id = going.id
            AND (instalments.due_date <= :date AND instalments.charged_interest_minor < instalments.interest_minor
                OR instalments.state NOT IN ('PAID', 'PAID_LATE') AND instalments.state <> {_STATE})
        RETURNING new.id, new.agreement_id, new.number, new.state, new.due_date, new.capital_minor + new.interest_minor
                - new.paid_capital_minor - new.paid_interest_minor AS open_minor, new.version,
            new.charged_interest_minor - old.charged_interest_minor AS earned, old.state <> new.state AS moved,
            agreements.case_id AS lead, agreements.currency
    ), posted AS (
        INSERT INTO postings (agency, case_id, instalment_id, component, kind, amount_minor, currency, business_date,
            value_date, agreement_id)
        SELECT CAST(:agency AS uuid), lead, id, 'PLAN_INTEREST', 'CHARGED', earned, currency, :date, :date, agreement_id
        FROM changed WHERE earned > 0 ORDER BY id
    )
    SELECT agreement_cases.partition, agreement_cases.case_id, changed.id, changed.agreement_id, changed.number,
        changed.state, changed.due_date, changed.open_minor, changed.version
    FROM changed JOIN agreement_cases
        ON agreement_cases.agency = :agency AND agreement_cases.agreement_id = changed.agreement_id
    WHERE changed.moved ORDER BY agreement_cases.partition, agreement_cases.case_id, changed.number
    """  # noqa: S608 -- text of this module
).bindparams(sa.bindparam("date", type_=sa.Date()))
_CASES = tables.sql(
    "SELECT DISTINCT case_id FROM agreement_cases WHERE agency = :agency AND agreement_id = ANY(CAST(:ids AS uuid[]))"
)
_PROPOSED = frozenset({"PROPOSED", "AWAITING_SIGNATURE"})
_IN_FORCE = frozenset({"AWAITING_DOWN_PAYMENT", "ACTIVE"})


class Touched(NamedTuple):
    """Agreements of a partition that the daily run looks at."""

    expired: set[uuid.UUID]
    """Proposals whose last day is over."""
    going: set[uuid.UUID]
    """In force: the day may move an instalment of theirs, or earn its interest."""
    over: set[uuid.UUID]
    """Nothing more will happen to them by time alone."""
    cases: set[uuid.UUID]
    """Cases of those in force in the partition."""


def touched(tx: db.Transaction, agency: uuid.UUID, *, partition: int, date: datetime.date) -> Touched:
    """What the day may change in a partition; what `looked_at` noted for a later day is not among it."""
    found = Touched(set(), set(), set(), set())
    params = {"agency": agency, "partition": partition, "date": date}
    for row in tx.execute(_TOUCHED, params).all():
        if row.state in _IN_FORCE:
            found.going.add(row.id)
            found.cases.add(row.case_id)
        elif row.state not in _PROPOSED:
            found.over.add(row.id)
        elif row.late:
            found.expired.add(row.id)
    return found


def looked_at(tx: db.Transaction, agency: uuid.UUID, ids: set[uuid.UUID], *, date: datetime.date) -> None:
    """Note the day from which each of these agreements, moved to `date`, has to be looked at again: the next on which
    time alone changes it. Whoever writes an agreement in force takes the note back (accounts.write_agreements)."""
    tx.execute(_NEXT_DAY, {"agency": agency, "ids": tables.array(sorted(ids)), "date": date})


def expire(
    tx: db.Transaction, agency: uuid.UUID, ids: set[uuid.UUID], *, date: datetime.date
) -> set[uuid.UUID]:
    """Expire these proposals, where they still are proposals."""
    return set(tx.execute(_EXPIRE, {"agency": agency, "ids": tables.array(ids), "date": date}).scalars())


def cases(tx: db.Transaction, agency: uuid.UUID, ids: set[uuid.UUID]) -> set[uuid.UUID]:
    """The cases of these agreements."""
    return set(tx.execute(_CASES, {"agency": agency, "ids": tables.array(ids)}).scalars())


def move(tx: db.Transaction, agency: uuid.UUID, ids: set[uuid.UUID], *, date: datetime.date) -> list[Moved]:
    """Bring the instalments of these agreements, where they still are in force, to their state on a date, and charge
    the plan interest of those whose due date is reached. Those whose state changed, a row for each case of their
    agreement, by partition."""
    params = {"agency": agency, "ids": tables.array(sorted(ids)), "date": date}
    return [Moved._make(row) for row in tx.execute(_MOVE, params).all()]
