"""Promises to pay: written, judged by what was paid, listed."""

import dataclasses
import datetime
import uuid
from collections.abc import Iterable

import sqlalchemy as sa

from agreement_service.domain import promises
from agreement_service.store import tables
from agreement_service.store.tables import BIG, DATE, INSTANT, TEXT, UUID, business, incidental, reference
from servicekit import db

table = tables.table(
    "promises",
    ["case_id", "promise_date", "made_date", "amount_minor"],
    reference("case_id", "case_accounts", key=True),
    incidental("contact_id", UUID, "UUID made by the service that contacted", key=True),
    business("state", TEXT),
    incidental("made_at", INSTANT, "instant of the agency's clock when it was made"),
    business("made_date", DATE),
    business("promise_date", DATE),
    business("tolerance_date", DATE),
    business("amount_minor", BIG),
    business("paid_minor", BIG),
    business("currency", TEXT),
    incidental("version", BIG, "counts writes: how many there are depends on the order of arrival"),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A row; amounts in minor units of `currency`."""

    case_id: uuid.UUID
    contact_id: uuid.UUID
    state: promises.PromiseState
    made_at: datetime.datetime
    made_date: datetime.date
    promise_date: datetime.date
    tolerance_date: datetime.date
    amount_minor: int
    paid_minor: int
    currency: str
    version: int


_COLUMNS = """promises.case_id, promises.contact_id, promises.state, promises.made_at, promises.made_date,
    promises.promise_date, promises.tolerance_date, promises.amount_minor, promises.paid_minor, promises.currency,
    promises.version"""
# A contact reported again says the same or more: what it says last counts, unless the promise is replaced.
_MAKE = tables.sql(
    f"""
    INSERT INTO promises (agency, case_id, contact_id, state, made_at, made_date, promise_date, tolerance_date,
        amount_minor, currency, version)
    VALUES (:agency, :case_id, :contact_id, 'PENDING', :made_at, :made_date, :promise_date, :tolerance_date,
        :amount_minor, :currency, 1)
    ON CONFLICT (agency, case_id, contact_id) DO UPDATE SET promise_date = excluded.promise_date,
        tolerance_date = excluded.tolerance_date, amount_minor = excluded.amount_minor, version = promises.version + 1
    WHERE promises.state <> 'REPLACED' AND (promises.promise_date, promises.amount_minor)
        IS DISTINCT FROM (excluded.promise_date, excluded.amount_minor)
    RETURNING {_COLUMNS}
    """  # noqa: S608 -- column names of this module
)
# Of the promises of a case the newest counts: older ones that still wait are replaced, whichever arrived first.
_REPLACE_OLDER = tables.sql(
    f"""
    UPDATE promises SET state = 'REPLACED', version = promises.version + 1
    WHERE agency = :agency AND case_id = :case_id AND state = 'PENDING'
        AND EXISTS (SELECT FROM promises AS newer WHERE newer.agency = promises.agency
            AND newer.case_id = promises.case_id
            AND (newer.made_at, newer.contact_id) > (promises.made_at, promises.contact_id))
    RETURNING {_COLUMNS}
    """  # noqa: S608 -- column names of this module
)
_REPLACE = tables.sql(
    f"""
    UPDATE promises SET state = 'REPLACED', version = promises.version + 1
    WHERE agency = :agency AND case_id = ANY(CAST(:case_ids AS uuid[])) AND state = 'PENDING'
    RETURNING {_COLUMNS}
    """  # noqa: S608 -- column names of this module
)
_JUDGE = tables.sql(
    f"""
    WITH judged AS (
        SELECT promises.case_id, promises.contact_id, paid.minor, CASE
            WHEN paid.minor >= promises.amount_minor THEN 'KEPT'
            WHEN :date > promises.tolerance_date THEN 'BROKEN'
            ELSE 'PENDING' END AS state
        FROM promises CROSS JOIN LATERAL (
            SELECT CAST(coalesce(sum(payments.allocated_minor), 0) AS bigint) AS minor FROM payments
            WHERE payments.agency = promises.agency AND payments.case_id = promises.case_id
                AND payments.value_date BETWEEN promises.made_date AND promises.tolerance_date) AS paid
        WHERE promises.agency = :agency AND promises.state <> 'REPLACED'
            AND promises.case_id = ANY(CAST(:case_ids AS uuid[]))
    )
    UPDATE promises SET state = judged.state, paid_minor = judged.minor, version = promises.version + 1
    FROM judged WHERE promises.agency = :agency AND promises.case_id = judged.case_id
        AND promises.contact_id = judged.contact_id
        AND (promises.state, promises.paid_minor) IS DISTINCT FROM (judged.state, judged.minor)
    RETURNING {_COLUMNS}
    """  # noqa: S608 -- column names of this module
).bindparams(sa.bindparam("date", type_=sa.Date()))
_DUE_CASES = tables.sql(
    """
    SELECT DISTINCT promises.case_id FROM promises JOIN case_accounts
        ON case_accounts.agency = promises.agency AND case_accounts.case_id = promises.case_id
    WHERE promises.agency = :agency AND promises.state = 'PENDING' AND promises.tolerance_date < :date
        AND case_accounts.partition = :partition
    """
)
_PAGE = tables.sql(
    f"""
    SELECT {_COLUMNS} FROM promises
    WHERE agency = :agency AND (CAST(:case_id AS uuid) IS NULL OR case_id = :case_id)
        AND (CAST(:state AS text) IS NULL OR state = :state)
        AND (CAST(:creditor AS uuid) IS NULL OR EXISTS (SELECT 1 FROM case_accounts
            WHERE case_accounts.agency = promises.agency AND case_accounts.case_id = promises.case_id
                AND case_accounts.creditor_id = :creditor))
        AND (CAST(:after_case AS uuid) IS NULL
            OR (case_id, made_at, contact_id) > (:after_case, CAST(:after_at AS timestamptz), CAST(:after_id AS uuid)))
    ORDER BY case_id, made_at, contact_id LIMIT :limit
    """  # noqa: S608 -- column names of this module
)


def make(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    case_id: uuid.UUID,
    contact_id: uuid.UUID,
    made_at: datetime.datetime,
    made_date: datetime.date,
    promise_date: datetime.date,
    tolerance_date: datetime.date,
    amount_minor: int,
    currency: str,
) -> list[Promise]:
    """Enter a promise in place of older ones that wait; which rows changed."""
    params = {
        "agency": agency,
        "case_id": case_id,
        "contact_id": contact_id,
        "made_at": made_at,
        "made_date": made_date,
        "promise_date": promise_date,
        "tolerance_date": tolerance_date,
        "amount_minor": amount_minor,
        "currency": currency,
    }
    changed = _promises(tx.execute(_MAKE, params).mappings())
    replaced = _promises(tx.execute(_REPLACE_OLDER, {"agency": agency, "case_id": case_id}).mappings())
    return list({one.contact_id: one for one in (*changed, *replaced)}.values())


def replace(tx: db.Transaction, agency: uuid.UUID, case_ids: Iterable[uuid.UUID]) -> list[Promise]:
    """An agreement takes the place of promises that wait; which rows changed."""
    params = {"agency": agency, "case_ids": sorted(set(case_ids))}
    return _promises(tx.execute(_REPLACE, params).mappings())


def judge(
    tx: db.Transaction, agency: uuid.UUID, case_ids: Iterable[uuid.UUID], *, date: datetime.date
) -> list[Promise]:
    """Bring the promises of these cases to their state by what was paid; which rows changed."""
    params = {"agency": agency, "case_ids": sorted(set(case_ids)), "date": date}
    return _promises(tx.execute(_JUDGE, params).mappings())


def due_cases(
    tx: db.Transaction, agency: uuid.UUID, *, partition: int, date: datetime.date
) -> set[uuid.UUID]:
    """Cases of a partition with a promise that waits though its tolerance is over."""
    params = {"agency": agency, "partition": partition, "date": date}
    return set(tx.execute(_DUE_CASES, params).scalars())


def page(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    creditor: uuid.UUID | None,
    case_id: uuid.UUID | None,
    state: str | None,
    after: tuple[object, ...] | None,
    limit: int,
) -> list[Promise]:
    """Promises by case, then as they were made."""
    after_case, after_at, after_id = after or (None, None, None)
    params = {
        "agency": agency,
        "creditor": creditor,
        "case_id": case_id,
        "state": state,
        "after_case": after_case,
        "after_at": after_at,
        "after_id": after_id,
        "limit": limit,
    }
    return _promises(tx.execute(_PAGE, params).mappings())


def _promises(rows: Iterable[sa.RowMapping]) -> list[Promise]:
    return [Promise(**{**row, "state": promises.PromiseState(row["state"])}) for row in rows]
