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


_CANDIDATES = """
    FROM agreement_cases JOIN agreements
        ON agreements.agency = agreement_cases.agency AND agreements.id = agreement_cases.agreement_id
    WHERE agreement_cases.agency = :agency AND agreement_cases.partition = :partition
"""
_EXPIRED = tables.sql(
    f"""
    SELECT DISTINCT agreements.id {_CANDIDATES}
        AND agreements.state IN ('PROPOSED', 'AWAITING_SIGNATURE') AND agreements.expire_date < :date
    """
)
_STATE = """CASE
    WHEN :date > instalments.payable_until AND :date - instalments.due_date >= agreements.broken_days
        AND (agreements.grace_date IS NULL OR :date > agreements.grace_date) THEN 'DEFAULTED'
    WHEN :date > instalments.payable_until AND :date - instalments.due_date >= agreements.missed_days THEN 'MISSED'
    WHEN instalments.paid_capital_minor + instalments.paid_interest_minor > 0 THEN 'PARTIAL'
    WHEN :date >= instalments.due_date THEN 'DUE'
    WHEN :date >= instalments.due_date - agreements.notice_days THEN 'NOTIFIED'
    ELSE 'SCHEDULED' END"""
"""`accounts.instalment_state` of an unpaid instalment."""
_MOVING = tables.sql(
    f"""
    SELECT DISTINCT agreements.id {_CANDIDATES} AND agreements.state IN ('AWAITING_DOWN_PAYMENT', 'ACTIVE')
        AND EXISTS (SELECT 1 FROM instalments
            WHERE instalments.agency = agreements.agency AND instalments.agreement_id = agreements.id
                AND instalments.state NOT IN ('PAID', 'PAID_LATE')
                AND instalments.due_date - agreements.notice_days <= :date
                AND (instalments.state <> {_STATE} OR instalments.due_date <= :date
                    AND instalments.charged_interest_minor < instalments.interest_minor))
    """  # noqa: S608 -- text of this module
).bindparams(sa.bindparam("date", type_=sa.Date()))
_EXPIRE = tables.sql(
    """
    UPDATE agreements SET state = 'EXPIRED', end_date = :date, version = version + 1
    WHERE agency = :agency AND id = ANY(CAST(:ids AS uuid[])) AND state IN ('PROPOSED', 'AWAITING_SIGNATURE')
        AND expire_date < :date
    RETURNING id
    """
)
_EARN = tables.sql(
    """
    WITH earned AS (
        SELECT instalments.id, instalments.agreement_id, agreements.case_id, agreements.currency,
            instalments.interest_minor - instalments.charged_interest_minor AS amount
        FROM instalments JOIN agreements
            ON agreements.agency = instalments.agency AND agreements.id = instalments.agreement_id
        WHERE instalments.agency = :agency AND instalments.agreement_id = ANY(CAST(:ids AS uuid[]))
            AND instalments.due_date <= :date AND instalments.charged_interest_minor < instalments.interest_minor
    ), posted AS (
        INSERT INTO postings (agency, case_id, instalment_id, component, kind, amount_minor, currency, business_date,
            value_date, agreement_id)
        SELECT CAST(:agency AS uuid), case_id, id, 'PLAN_INTEREST', 'CHARGED', amount, currency,
            CAST(:date AS date), CAST(:date AS date), agreement_id
        FROM earned ORDER BY id
    )
    UPDATE instalments SET charged_interest_minor = interest_minor, version = version + 1
    FROM earned WHERE instalments.agency = :agency AND instalments.id = earned.id
    """
)
_STATES = tables.sql(
    f"""
    WITH changed AS (
        UPDATE instalments SET state = {_STATE}, version = instalments.version + 1
        FROM unnest(CAST(:ids AS uuid[])) AS going (id), agreements
        WHERE agreements.agency = :agency AND agreements.id = going.id
            AND instalments.agency = :agency AND instalments.agreement_id = going.id
            AND instalments.state NOT IN ('PAID', 'PAID_LATE') AND instalments.state <> {_STATE}
        RETURNING instalments.id, instalments.agreement_id, instalments.number, instalments.state,
            instalments.due_date, instalments.capital_minor + instalments.interest_minor
                - instalments.paid_capital_minor - instalments.paid_interest_minor AS open_minor, instalments.version
    )
    SELECT agreement_cases.partition, agreement_cases.case_id, changed.*
    FROM changed JOIN agreement_cases
        ON agreement_cases.agency = :agency AND agreement_cases.agreement_id = changed.agreement_id
    ORDER BY agreement_cases.partition, agreement_cases.case_id, changed.number
    """  # noqa: S608 -- text of this module
).bindparams(sa.bindparam("date", type_=sa.Date()))
_CASES = tables.sql(
    "SELECT DISTINCT case_id FROM agreement_cases WHERE agency = :agency AND agreement_id = ANY(CAST(:ids AS uuid[]))"
)
_IN_FORCE = tables.sql(
    """
    SELECT id FROM agreements
    WHERE agency = :agency AND id = ANY(CAST(:ids AS uuid[])) AND state IN ('AWAITING_DOWN_PAYMENT', 'ACTIVE')
    """
)
_DEFAULTED = tables.sql(
    """
    SELECT DISTINCT agreement_id FROM instalments
    WHERE agency = :agency AND agreement_id = ANY(CAST(:ids AS uuid[])) AND state = 'DEFAULTED'
    """
)


def expired(tx: db.Transaction, agency: uuid.UUID, *, partition: int, date: datetime.date) -> set[uuid.UUID]:
    """Proposals of the partition whose last day is over."""
    params = {"agency": agency, "partition": partition, "date": date}
    return set(tx.execute(_EXPIRED, params).scalars())


def expire(
    tx: db.Transaction, agency: uuid.UUID, ids: set[uuid.UUID], *, date: datetime.date
) -> set[uuid.UUID]:
    """Expire these proposals, where they still are proposals."""
    return set(tx.execute(_EXPIRE, {"agency": agency, "ids": sorted(ids), "date": date}).scalars())


def moving(tx: db.Transaction, agency: uuid.UUID, *, partition: int, date: datetime.date) -> set[uuid.UUID]:
    """Agreements in force of the partition with an unpaid instalment that the day moves, or whose interest it earns."""
    params = {"agency": agency, "partition": partition, "date": date}
    return set(tx.execute(_MOVING, params).scalars())


def earn(tx: db.Transaction, agency: uuid.UUID, ids: set[uuid.UUID], *, date: datetime.date) -> None:
    """Charge the plan interest of instalments whose due date is reached."""
    tx.execute(_EARN, {"agency": agency, "ids": sorted(ids), "date": date})


def cases(tx: db.Transaction, agency: uuid.UUID, ids: set[uuid.UUID]) -> set[uuid.UUID]:
    """The cases of these agreements."""
    return set(tx.execute(_CASES, {"agency": agency, "ids": sorted(ids)}).scalars())


def in_force(tx: db.Transaction, agency: uuid.UUID, ids: set[uuid.UUID]) -> set[uuid.UUID]:
    """Those of these agreements that are in force."""
    return set(tx.execute(_IN_FORCE, {"agency": agency, "ids": sorted(ids)}).scalars())


def move(tx: db.Transaction, agency: uuid.UUID, ids: set[uuid.UUID], *, date: datetime.date) -> list[Moved]:
    """Bring the instalments of these agreements to their state on a date; those that changed, a row for each case of
    their agreement, by partition."""
    return [
        Moved._make(row) for row in tx.execute(_STATES, {"agency": agency, "ids": sorted(ids), "date": date})
    ]


def defaulted(tx: db.Transaction, agency: uuid.UUID, ids: set[uuid.UUID]) -> set[uuid.UUID]:
    """Those of these agreements with an instalment that is late enough to break them."""
    return set(tx.execute(_DEFAULTED, {"agency": agency, "ids": sorted(ids)}).scalars())
