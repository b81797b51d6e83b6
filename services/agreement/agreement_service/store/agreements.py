"""Proposals and agreements: written, read, listed."""

import dataclasses
import datetime
import json
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from agreement_service.domain import accounts, plans
from agreement_service.store import tables
from servicekit import db


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One row of agreements with its cases and what was paid; minor units of `currency`. The columns of the plan, from
    `instalments` to `down_payment_date`, say again what `terms` say."""

    id: uuid.UUID
    case_id: uuid.UUID
    case_ids: tuple[uuid.UUID, ...]
    number: int
    state: accounts.AgreementState
    currency: str
    debt_minor: int
    discount_minor: int
    plan_interest_minor: int
    total_minor: int
    instalments: int
    first_due_date: datetime.date
    annual_rate_e4: int
    down_payment_minor: int
    down_payment_date: datetime.date | None
    propose_date: datetime.date
    expire_date: datetime.date
    accept_date: datetime.date | None = None
    end_date: datetime.date | None = None
    end_reason: str = ""
    notice_days: int
    missed_days: int
    broken_days: int
    added_minor: int
    terms: plans.Terms
    note: str = ""
    settlement_type: str
    use_credits: bool = False
    created_at: datetime.datetime
    version: int = 1
    paid_minor: int = 0


_NEXT_NUMBER = tables.sql(
    "SELECT coalesce(max(number), 0) + 1 FROM agreements WHERE agency = :agency AND case_id = :case_id"
)
_INSERT = tables.sql(
    """
    INSERT INTO agreements (agency, id, case_id, number, state, currency, debt_minor, discount_minor,
        plan_interest_minor, total_minor, instalments, first_due_date, annual_rate_e4, down_payment_minor,
        down_payment_date, propose_date, expire_date, notice_days, missed_days, broken_days, added_minor, terms, note,
        settlement_type, use_credits, created_at)
    VALUES (:agency, :id, :case_id, :number, :state, :currency, :debt_minor, :discount_minor, :plan_interest_minor,
        :total_minor, :instalments, :first_due_date, :annual_rate_e4, :down_payment_minor, :down_payment_date,
        :propose_date, :expire_date, :notice_days, :missed_days, :broken_days, :added_minor, CAST(:terms AS jsonb),
        :note, :settlement_type, :use_credits, :created_at)
    """
)
_INSERT_CASES = tables.sql(
    """
    INSERT INTO agreement_cases (agency, agreement_id, case_id, partition)
    SELECT agency, CAST(:agreement_id AS uuid), case_id, partition FROM case_accounts
    WHERE agency = :agency AND case_id = ANY(CAST(:case_ids AS uuid[])) ORDER BY case_id
    """
)
_AMOUNTS = tuple(
    field.name for field in dataclasses.fields(accounts.AgreedTitle) if field.name.endswith("_minor")
)
_INSERT_TITLES = tables.sql(
    f"""
    INSERT INTO agreement_titles (agency, agreement_id, case_id, title_id, title_version, {", ".join(_AMOUNTS)})
    SELECT CAST(:agency AS uuid), CAST(:agreement_id AS uuid), new.*
    FROM unnest(CAST(:case_ids AS uuid[]), CAST(:title_ids AS uuid[]), CAST(:versions AS bigint[]),
        {", ".join(f"CAST(:{name} AS bigint[])" for name in _AMOUNTS)})
        AS new (case_id, title_id, version, {", ".join(_AMOUNTS)})
    ORDER BY new.title_id
    """  # noqa: S608 -- column names of the domain
)
_INSERT_INSTALMENTS = tables.sql(
    """
    INSERT INTO instalments (agency, agreement_id, id, number, due_date, payable_until, capital_minor, interest_minor,
        state)
    SELECT CAST(:agency AS uuid), CAST(:agreement_id AS uuid), new.*
    FROM unnest(CAST(:ids AS uuid[]), CAST(:numbers AS int[]), CAST(:due_dates AS date[]),
        CAST(:payable AS date[]), CAST(:capitals AS bigint[]), CAST(:interests AS bigint[]), CAST(:states AS text[]))
        AS new (id, number, due_date, payable_until, capital, interest, state)
    ORDER BY new.id
    """
)
_ACCEPT = tables.sql("UPDATE agreements SET accept_date = :date WHERE agency = :agency AND id = :id")
_END_REASON = tables.sql("UPDATE agreements SET end_reason = :reason WHERE agency = :agency AND id = :id")
_USES_CREDITS = tables.sql(
    """
    SELECT use_credits AND state IN ('PROPOSED', 'AWAITING_SIGNATURE') FROM agreements
    WHERE agency = :agency AND id = :id
    """
)
_COLUMNS = """
    agreements.id, agreements.case_id, agreements.number, agreements.state, agreements.currency, agreements.debt_minor,
    agreements.discount_minor, agreements.plan_interest_minor, agreements.total_minor, agreements.instalments,
    agreements.first_due_date, agreements.annual_rate_e4, agreements.down_payment_minor,
    agreements.down_payment_date, agreements.propose_date, agreements.expire_date, agreements.accept_date,
    agreements.end_date, agreements.end_reason, agreements.notice_days, agreements.missed_days,
    agreements.broken_days, agreements.added_minor, agreements.terms, agreements.note, agreements.settlement_type,
    agreements.use_credits, agreements.created_at, agreements.version,
    ARRAY(SELECT agreement_cases.case_id FROM agreement_cases WHERE agreement_cases.agency = agreements.agency
        AND agreement_cases.agreement_id = agreements.id ORDER BY agreement_cases.case_id) AS case_ids,
    CAST(coalesce((SELECT sum(paid_interest_minor + paid_capital_minor) FROM instalments
        WHERE instalments.agency = agreements.agency AND instalments.agreement_id = agreements.id), 0) AS bigint)
        AS paid_minor
"""
_CREDITOR = """(CAST(:creditor AS uuid) IS NULL OR EXISTS (SELECT 1 FROM case_accounts
    WHERE case_accounts.agency = agreements.agency AND case_accounts.case_id = agreements.case_id
        AND case_accounts.creditor_id = :creditor))"""
_GET = tables.sql(
    f"SELECT {_COLUMNS} FROM agreements WHERE agency = :agency AND id = ANY(CAST(:ids AS uuid[])) AND {_CREDITOR}"  # noqa: S608
)
_PAGE = tables.sql(
    f"""
    SELECT {_COLUMNS} FROM agreements
    WHERE agency = :agency AND {_CREDITOR} AND (CAST(:state AS text) IS NULL OR state = :state)
        AND (CAST(:case_id AS uuid) IS NULL OR EXISTS (SELECT 1 FROM agreement_cases
            WHERE agreement_cases.agency = agreements.agency AND agreement_cases.agreement_id = agreements.id
                AND agreement_cases.case_id = :case_id))
        AND (CAST(:expire_from AS date) IS NULL OR expire_date >= :expire_from)
        AND (CAST(:expire_to AS date) IS NULL OR expire_date <= :expire_to)
        AND (CAST(:expire_from AS date) IS NULL AND CAST(:expire_to AS date) IS NULL OR state = 'PROPOSED')
        AND (CAST(:kind AS text) IS NULL OR kind = :kind)
        AND (CAST(:due_from AS date) IS NULL AND CAST(:due_to AS date) IS NULL OR EXISTS (SELECT 1 FROM instalments
            WHERE instalments.agency = agreements.agency AND instalments.agreement_id = agreements.id
                AND instalments.state NOT IN ('PAID', 'PAID_LATE', 'DEFAULTED', 'CANCELLED', 'RENEGOTIATED')
                AND instalments.due_date BETWEEN coalesce(CAST(:due_from AS date), '-infinity')
                    AND coalesce(CAST(:due_to AS date), 'infinity')))
        AND (CAST(:past_tolerance AS date) IS NULL OR state = 'BROKEN'
            OR state IN ('AWAITING_DOWN_PAYMENT', 'ACTIVE') AND EXISTS (SELECT 1 FROM instalments
                WHERE instalments.agency = agreements.agency AND instalments.agreement_id = agreements.id
                    AND instalments.state NOT IN ('PAID', 'PAID_LATE')
                    AND CAST(:past_tolerance AS date) - instalments.due_date >= agreements.broken_days))
        AND (CAST(:after AS uuid) IS NULL OR id > :after)
    ORDER BY id LIMIT :limit
    """  # noqa: S608 -- column names of this module
)


def next_number(tx: db.Transaction, agency: uuid.UUID, case_id: uuid.UUID) -> int:
    """The number of the case's next proposal; the case is locked."""
    return int(tx.execute(_NEXT_NUMBER, {"agency": agency, "case_id": case_id}).scalar_one())


def propose(
    tx: db.Transaction, agency: uuid.UUID, record: Record, agreed: Sequence[accounts.AgreedTitle]
) -> None:
    """Store a proposal with its cases and titles."""
    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    values |= {"agency": agency, "state": record.state.value, "terms": json.dumps(_terms_kept(record.terms))}
    tx.execute(_INSERT, values)
    tx.execute(
        _INSERT_CASES, {"agency": agency, "agreement_id": record.id, "case_ids": list(record.case_ids)}
    )
    tx.execute(
        _INSERT_TITLES,
        {
            "agency": agency,
            "agreement_id": record.id,
            "case_ids": [one.case_id for one in agreed],
            "title_ids": [one.title_id for one in agreed],
            "versions": [one.title_version for one in agreed],
            **{name: [getattr(one, name) for one in agreed] for name in _AMOUNTS},
        },
    )


def add_instalments(
    tx: db.Transaction, agency: uuid.UUID, agreement_id: uuid.UUID, rows: Sequence[accounts.Instalment]
) -> None:
    """Store the instalments of a proposal."""
    tx.execute(
        _INSERT_INSTALMENTS,
        {
            "agency": agency,
            "agreement_id": agreement_id,
            "ids": [one.instalment_id for one in rows],
            "numbers": [one.number for one in rows],
            "due_dates": [one.due_date for one in rows],
            "payable": [one.payable_until for one in rows],
            "capitals": [one.capital_minor for one in rows],
            "interests": [one.interest_minor for one in rows],
            "states": [one.state.value for one in rows],
        },
    )


def uses_credits(tx: db.Transaction, agency: uuid.UUID, agreement_id: uuid.UUID) -> bool:
    """Whether it is a proposal that is to use the debtor's overpaid money (S5-08)."""
    return bool(tx.execute(_USES_CREDITS, {"agency": agency, "id": agreement_id}).scalar_one())


def set_accept_date(
    tx: db.Transaction, agency: uuid.UUID, agreement_id: uuid.UUID, date: datetime.date
) -> None:
    """Note the day of acceptance."""
    tx.execute(_ACCEPT, {"agency": agency, "id": agreement_id, "date": date})


def set_end_reason(tx: db.Transaction, agency: uuid.UUID, agreement_id: uuid.UUID, reason: str) -> None:
    """Note why an agreement was ended."""
    tx.execute(_END_REASON, {"agency": agency, "id": agreement_id, "reason": reason})


def get(
    tx: db.Transaction, agency: uuid.UUID, ids: Iterable[uuid.UUID], *, creditor: uuid.UUID | None = None
) -> dict[uuid.UUID, Record]:
    """Agreements by id, of the creditor where one is given."""
    params = {"agency": agency, "ids": sorted(set(ids)), "creditor": creditor}
    return {record.id: record for record in _records(tx.execute(_GET, params).mappings())}


def page(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    creditor: uuid.UUID | None = None,
    state: str | None = None,
    case_id: uuid.UUID | None = None,
    expire_from: datetime.date | None = None,
    expire_to: datetime.date | None = None,
    due_from: datetime.date | None = None,
    due_to: datetime.date | None = None,
    past_tolerance: datetime.date | None = None,
    kind: str | None = None,
    after: uuid.UUID | None,
    limit: int,
) -> list[Record]:
    """Agreements in id order; with `expire_from` or `expire_to`, proposals whose last day lies there; with `due_from`
    or `due_to`, those with an unpaid instalment due there; with `past_tolerance`, those that are broken, or late enough
    on that day to be (S3-26)."""
    params = {
        "agency": agency,
        "creditor": creditor,
        "state": state,
        "case_id": case_id,
        "expire_from": expire_from,
        "expire_to": expire_to,
        "due_from": due_from,
        "due_to": due_to,
        "past_tolerance": past_tolerance,
        "kind": kind,
        "after": after,
        "limit": limit,
    }
    return _records(tx.execute(_PAGE, params).mappings())


def _records(rows: Iterable[sa.RowMapping]) -> list[Record]:
    return [
        Record(
            **{
                **row,
                "state": accounts.AgreementState(row["state"]),
                "case_ids": tuple(row["case_ids"]),
                "terms": _terms_read(row),
            }
        )
        for row in rows
    ]


_DEFAULTS = {
    field.name: field.default
    for field in dataclasses.fields(plans.Terms)
    if field.default is not dataclasses.MISSING
}
_IN_COLUMNS = (
    "instalments",
    "first_due_date",
    "annual_rate_e4",
    "down_payment_minor",
    "down_payment_date",
)


def _terms_kept(terms: plans.Terms) -> dict[str, Any]:
    """What of the terms has no column of its own, as JSON; defaults left out."""
    kept = {
        name: getattr(terms, name)
        for name, default in _DEFAULTS.items()
        if name not in _IN_COLUMNS and getattr(terms, name) != default
    }
    if terms.due_dates:
        kept["due_dates"] = [date.isoformat() for date in terms.due_dates]
    if terms.rows:
        kept["rows"] = [[row.due_date.isoformat(), row.amount_minor] for row in terms.rows]
    return kept


def _terms_read(row: sa.RowMapping) -> plans.Terms:
    # A row written before there was more than these columns: its discount was in the terms.
    kept = dict(row["terms"]) if row["terms"] is not None else {"discount_minor": row["discount_minor"]}
    if "method" in kept:
        kept["method"] = plans.Method(kept["method"])
    if "due_dates" in kept:
        kept["due_dates"] = tuple(datetime.date.fromisoformat(date) for date in kept["due_dates"])
    if "rows" in kept:
        kept["rows"] = tuple(
            plans.EditedRow(due_date=datetime.date.fromisoformat(date), amount_minor=amount)
            for date, amount in kept["rows"]
        )
    return plans.Terms(**{name: row[name] for name in _IN_COLUMNS}, **kept)
