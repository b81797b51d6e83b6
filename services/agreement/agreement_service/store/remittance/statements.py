"""Statements read, approved, paid; their lines; which payments are remitted."""

import dataclasses
import datetime
import uuid
from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from agreement_service.domain import remittance
from agreement_service.store import tables
from servicekit import db


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One row of statements with the creditor's own references; amounts in minor units of `currency`. Of an open one
    `settlements` and `gross_minor` are what waits."""

    id: uuid.UUID
    creditor_id: uuid.UUID
    creditor_reference: str
    currency: str
    for_case_id: uuid.UUID | None
    contract_reference: str
    number: int
    state: remittance.StatementState
    period_start: datetime.date | None
    period_end: datetime.date | None
    settlements: int
    gross_minor: int
    commission_minor: int
    success_fee_minor: int
    tax_added_minor: int
    tax_retained_minor: int
    carried_in_minor: int
    net_minor: int
    minimum_minor: int
    remitted_minor: int
    carried_out_minor: int
    closed_by: str
    closed_at: datetime.datetime | None
    approved_by: str
    approved_at: datetime.datetime | None
    pay_date: datetime.date | None
    bank_reference: str
    version: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of a statement as people see it; minor units. `posting_id` is None for a success fee, whose `amount_minor`
    is the base."""

    posting_id: int | None
    case_id: uuid.UUID
    contract_reference: str
    title_reference: str
    instalment_number: int | None
    component: str
    payment_id: uuid.UUID | None
    value_date: datetime.date | None
    business_date: datetime.date | None
    days_past_due: int
    amount_minor: int
    contract_id: uuid.UUID
    rate_e4: int
    percentage_minor: int
    fixed_minor: int
    tax_added_minor: int
    tax_retained_minor: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Sums of a statement's lines by what was settled, how old it was and the rate; minor units."""

    component: str
    rate_e4: int
    from_day: int
    to_day: int | None
    settlements: int
    amount_minor: int
    commission_minor: int
    tax_added_minor: int
    tax_retained_minor: int


_STATEMENTS = """
    SELECT statements.id, statements.creditor_id, creditors.creditor_reference, statements.currency,
        statements.for_case_id, coalesce(case_accounts.contract_reference, '') AS contract_reference, statements.number,
        statements.state, statements.period_start, statements.period_end,
        CASE WHEN statements.state = 'OPEN' THEN waiting.settlements ELSE statements.settlements END AS settlements,
        CASE WHEN statements.state = 'OPEN' THEN waiting.gross ELSE statements.gross_minor END AS gross_minor,
        statements.commission_minor, statements.success_fee_minor, statements.tax_added_minor,
        statements.tax_retained_minor, statements.carried_in_minor, statements.net_minor, statements.minimum_minor,
        statements.remitted_minor, statements.carried_out_minor, statements.closed_by, statements.closed_at,
        statements.approved_by, statements.approved_at, statements.pay_date, statements.bank_reference,
        statements.version
    FROM statements JOIN creditors
            ON creditors.agency = statements.agency AND creditors.creditor_id = statements.creditor_id
        LEFT JOIN case_accounts
            ON case_accounts.agency = statements.agency AND case_accounts.case_id = statements.for_case_id
        LEFT JOIN LATERAL (
            SELECT count(*) AS settlements, CAST(coalesce(sum(amount_minor), 0) AS bigint) AS gross
            FROM settlements_waiting AS waiting
            WHERE waiting.agency = statements.agency AND waiting.creditor_id = statements.creditor_id
                AND waiting.currency = statements.currency
                AND (statements.for_case_id IS NULL OR waiting.case_id = statements.for_case_id)
        ) AS waiting ON statements.state = 'OPEN'
    WHERE statements.agency = :agency
"""
_VISIBLE = " AND (CAST(:creditor AS uuid) IS NULL OR statements.creditor_id = :creditor)"
_GET = tables.sql(_STATEMENTS + _VISIBLE + " AND statements.id = :id")
_BY_IDS = tables.sql(
    _STATEMENTS
    + " AND statements.id = ANY(CAST(:ids AS uuid[])) ORDER BY case_accounts.contract_reference, statements.id"
)
_PAGE = tables.sql(
    _STATEMENTS
    + _VISIBLE
    + """ AND (:reference = '' OR creditors.creditor_reference = :reference)
        AND (CAST(:state AS text) IS NULL OR statements.state = :state)
        AND (CAST(:after AS uuid) IS NULL OR statements.id > :after)
    ORDER BY statements.id LIMIT :limit"""
)
_LOCK_ROWS = tables.sql(
    "SELECT id FROM statements WHERE agency = :agency AND id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR UPDATE"
)
_APPROVE = tables.sql(
    """
    UPDATE statements SET state = 'APPROVED', approved_by = :by, approved_at = :now, version = version + 1
    WHERE agency = :agency AND id = :id AND state = 'CLOSED'
    """
)
_PAY = tables.sql(
    """
    UPDATE statements SET state = 'PAID', pay_date = :date, bank_reference = :reference, version = version + 1
    WHERE agency = :agency AND id = :id AND state = 'APPROVED'
    """
)
_LINES = tables.sql(
    """
    SELECT lines.posting_id, posting.case_id, account.contract_reference,
        coalesce(title.reference, '') AS title_reference, instalment.number AS instalment_number, posting.component,
        posting.payment_id, posting.value_date, posting.business_date,
        lines.days_past_due, lines.amount_minor, lines.contract_id, lines.rate_e4,
        lines.percentage_minor, lines.fixed_minor, lines.tax_added_minor, lines.tax_retained_minor
    FROM (
        SELECT * FROM statement_lines
        WHERE agency = :agency AND statement_id = :id AND posting_id > :after ORDER BY posting_id LIMIT :limit
    ) AS lines CROSS JOIN LATERAL (
        SELECT * FROM postings WHERE postings.agency = :agency AND postings.id = lines.posting_id OFFSET 0
    ) AS posting CROSS JOIN LATERAL (
        SELECT contract_reference FROM case_accounts
        WHERE case_accounts.agency = :agency AND case_accounts.case_id = posting.case_id OFFSET 0
    ) AS account LEFT JOIN LATERAL (
        SELECT reference FROM titles WHERE titles.agency = :agency AND titles.case_id = posting.case_id
            AND titles.id = posting.title_id OFFSET 0
    ) AS title ON true LEFT JOIN LATERAL (
        SELECT number FROM instalments
        WHERE instalments.agency = :agency AND instalments.id = posting.instalment_id OFFSET 0
    ) AS instalment ON true
    ORDER BY lines.posting_id
    """
)
_FEES = tables.sql(
    """
    SELECT fees.case_id, account.contract_reference, fees.base_minor AS amount_minor, fees.contract_id, fees.rate_e4,
        fees.fee_minor AS percentage_minor, fees.tax_added_minor, fees.tax_retained_minor
    FROM statement_fees AS fees JOIN case_accounts AS account
        ON account.agency = fees.agency AND account.case_id = fees.case_id
    WHERE fees.agency = :agency AND fees.statement_id = :id AND (CAST(:after AS uuid) IS NULL OR fees.case_id > :after)
    ORDER BY fees.case_id LIMIT :limit
    """
)
_GROUPS = tables.sql(
    """
    SELECT posting.component, lines.rate_e4, band.from_day, band.to_day, count(*) AS settlements,
        CAST(sum(lines.amount_minor) AS bigint) AS amount_minor,
        CAST(sum(lines.percentage_minor + lines.fixed_minor) AS bigint) AS commission_minor,
        CAST(sum(lines.tax_added_minor) AS bigint) AS tax_added_minor,
        CAST(sum(lines.tax_retained_minor) AS bigint) AS tax_retained_minor
    FROM statement_lines AS lines JOIN (
            SELECT contract_id, from_day,
                lead(from_day) OVER (PARTITION BY contract_id ORDER BY from_day) AS to_day
            FROM commission_bands WHERE agency = :agency
        ) AS band ON band.contract_id = lines.contract_id AND lines.days_past_due >= band.from_day
            AND (band.to_day IS NULL OR lines.days_past_due < band.to_day)
        CROSS JOIN LATERAL (
            SELECT component FROM postings WHERE postings.agency = :agency AND postings.id = lines.posting_id OFFSET 0
        ) AS posting
    WHERE lines.agency = :agency AND lines.statement_id = :id
    GROUP BY posting.component, lines.rate_e4, band.from_day, band.to_day
    ORDER BY band.from_day, posting.component, lines.rate_e4
    """
)
_REMITTED = tables.sql(
    """
    SELECT postings.payment_id FROM postings LEFT JOIN statement_lines AS lines
            ON lines.agency = postings.agency AND lines.posting_id = postings.id
        LEFT JOIN statements ON statements.agency = lines.agency AND statements.id = lines.statement_id
    WHERE postings.agency = :agency AND postings.payment_id = ANY(CAST(:ids AS uuid[])) AND postings.kind = 'RECEIVED'
    GROUP BY postings.payment_id HAVING bool_and(coalesce(statements.state IN ('APPROVED', 'PAID'), false))
    """
)


def get(
    tx: db.Transaction,
    agency: uuid.UUID,
    statement_id: uuid.UUID,
    *,
    creditor: uuid.UUID | None = None,
) -> Statement | None:
    """One statement, of the creditor where one is given."""
    params = {"agency": agency, "id": statement_id, "creditor": creditor}
    return next(iter(_statements(tx.execute(_GET, params).mappings())), None)


def lock(tx: db.Transaction, agency: uuid.UUID, ids: Sequence[uuid.UUID]) -> None:
    """Lock statements: their states change, and are told, one after another."""
    tx.execute(_LOCK_ROWS, {"agency": agency, "ids": list(ids)})


def by_ids(tx: db.Transaction, agency: uuid.UUID, ids: Sequence[uuid.UUID]) -> list[Statement]:
    """Statements by id, in the order of their contract references."""
    return _statements(tx.execute(_BY_IDS, {"agency": agency, "ids": list(ids)}).mappings())


def page(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    creditor: uuid.UUID | None = None,
    reference: str = "",
    state: str | None = None,
    after: uuid.UUID | None,
    limit: int,
) -> list[Statement]:
    """Statements in id order."""
    params = {
        "agency": agency,
        "creditor": creditor,
        "reference": reference,
        "state": state,
        "after": after,
        "limit": limit,
    }
    return _statements(tx.execute(_PAGE, params).mappings())


def approve(
    tx: db.Transaction, agency: uuid.UUID, statement_id: uuid.UUID, *, by: str, now: datetime.datetime
) -> bool:
    """CLOSED to APPROVED; False where it is in another state."""
    params = {"agency": agency, "id": statement_id, "by": by, "now": now}
    return bool(tx.execute(_APPROVE, params).rowcount)


def pay(
    tx: db.Transaction, agency: uuid.UUID, statement_id: uuid.UUID, *, date: datetime.date, reference: str
) -> bool:
    """APPROVED to PAID; False where it is in another state."""
    params = {"agency": agency, "id": statement_id, "date": date, "reference": reference}
    return bool(tx.execute(_PAY, params).rowcount)


def lines(
    tx: db.Transaction, agency: uuid.UUID, statement_id: uuid.UUID, *, after: int, limit: int
) -> list[Line]:
    """Settlements of a statement behind a posting, in the order of the ledger."""
    params = {"agency": agency, "id": statement_id, "after": after, "limit": limit}
    return [Line(**row) for row in tx.execute(_LINES, params).mappings()]


def fees(
    tx: db.Transaction, agency: uuid.UUID, statement_id: uuid.UUID, *, after: uuid.UUID | None, limit: int
) -> list[Line]:
    """Success fees of a statement behind a case, in the order of the cases' ids."""
    params = {"agency": agency, "id": statement_id, "after": after, "limit": limit}
    return [
        Line(
            **row,
            posting_id=None,
            title_reference="",
            instalment_number=None,
            component="",
            payment_id=None,
            value_date=None,
            business_date=None,
            days_past_due=0,
            fixed_minor=0,
        )
        for row in tx.execute(_FEES, params).mappings()
    ]


def groups(tx: db.Transaction, agency: uuid.UUID, statement_id: uuid.UUID) -> list[Group]:
    """Sums of a statement's settlements by age band, component and rate."""
    params = {"agency": agency, "id": statement_id}
    return [Group(**row) for row in tx.execute(_GROUPS, params).mappings()]


def remitted(tx: db.Transaction, agency: uuid.UUID, payment_ids: Iterable[uuid.UUID]) -> set[uuid.UUID]:
    """Those of these payments all of whose settlements are in approved statements."""
    params = {"agency": agency, "ids": sorted(set(payment_ids))}
    return set(tx.execute(_REMITTED, params).scalars())


def _statements(rows: Iterable[sa.RowMapping]) -> list[Statement]:
    return [Statement(**{**row, "state": remittance.StatementState(row["state"])}) for row in rows]
