"""Closing: what waits becomes lines of statements, set-wise.

Whoever closes holds the creditor's row, so two never count the same; a settlement that commits meanwhile stays in
`settlements_waiting` for the next statement, whatever its id or date. A line's posting is its key: none stands twice.
"""

import dataclasses
import datetime
import uuid
from collections.abc import Sequence

import sqlalchemy as sa

from agreement_service.domain import remittance
from agreement_service.store import tables
from servicekit import db

SLICE = 20_000
"""Settlements that one statement of SQL counts."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """What the lines and fees of an open statement come to, minor units."""

    statement_id: uuid.UUID
    for_case_id: uuid.UUID | None
    number: int
    carried_in_minor: int
    settlements: int
    gross_minor: int
    commission_minor: int
    success_fee_minor: int
    tax_added_minor: int
    tax_retained_minor: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """A case that a statement's lines touch: whether nothing of it is open, what was received on its titles, and its
    success fees so far."""

    case_id: uuid.UUID
    statement_id: uuid.UUID
    contract_id: uuid.UUID
    resolved: bool
    received_minor: int
    before: remittance.Fee | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a slice moved: how many settlements, the last one's posting, and the earliest value date that no contract
    covers (then nothing may be committed)."""

    settlements: int
    last: int
    uncovered: datetime.date | None


_LAST = tables.sql(
    """
    SELECT max(period_end) FROM statements
    WHERE agency = :agency AND creditor_id = :creditor_id AND currency = :currency AND period_end IS NOT NULL
    """
)
_FIRST = tables.sql(
    """
    SELECT min(business_date) FROM settlements_waiting
    WHERE agency = :agency AND creditor_id = :creditor_id AND currency = :currency
    """
)
_OPEN = tables.sql(
    """
    INSERT INTO statements (agency, id, creditor_id, currency, for_case_id, number, state, period_start)
    SELECT CAST(:agency AS uuid), uuidv7(), :creditor_id, :currency, wanted.case_id, 1 + coalesce((
        SELECT max(number) FROM statements WHERE agency = :agency AND creditor_id = :creditor_id
            AND currency = :currency AND for_case_id IS NOT DISTINCT FROM wanted.case_id), 0), 'OPEN',
        CAST(:start AS date)
    FROM (
        SELECT CAST(NULL AS uuid) AS case_id WHERE NOT :individual
        UNION ALL
        SELECT DISTINCT case_id FROM settlements_waiting
        WHERE :individual AND agency = :agency AND creditor_id = :creditor_id AND currency = :currency
            AND business_date < :end
    ) AS wanted ORDER BY wanted.case_id
    ON CONFLICT DO NOTHING
    """
).bindparams(sa.bindparam("end", type_=sa.Date()), sa.bindparam("individual", type_=sa.Boolean()))
_NO_CASE = "00000000-0000-0000-0000-000000000000"


def _half_up(amount: str, rate: str) -> str:
    """Percent times 10 000 of an amount, half away from zero, exactly."""
    return f"CAST(round(CAST({amount} AS numeric) * {rate} * 0.000001) AS bigint)"


_TAKE = tables.sql(
    f"""
    WITH RECURSIVE reach AS MATERIALIZED (
        SELECT * FROM unnest(CAST(:products AS text[]), CAST(:valid_froms AS date[]), CAST(:valid_tos AS date[]),
            CAST(:from_days AS int[]), CAST(:to_days AS int[]), CAST(:contract_ids AS uuid[]),
            CAST(:principal_rates AS int[]), CAST(:charges_rates AS int[]), CAST(:costs_rates AS int[]),
            CAST(:fixed AS bigint[]), CAST(:per_settlement AS boolean[]), CAST(:tax_rates AS int[]),
            CAST(:retained AS boolean[]))
            AS row (product, valid_from, valid_to, from_day, to_day, contract_id, principal_rate, charges_rate,
                costs_rate, fixed, per_settlement, tax_rate, retained)
    ), terms AS MATERIALIZED (
        SELECT DISTINCT contract_id, fixed, per_settlement, tax_rate, retained FROM reach
    ), collecting AS MATERIALIZED (
        SELECT id, coalesce(for_case_id, '{_NO_CASE}') AS for_case_id FROM statements
        WHERE agency = :agency AND creditor_id = :creditor_id AND currency = :currency AND state = 'OPEN'
            AND (for_case_id IS NOT NULL) = :individual
    ), taken AS (
        -- What was taken back waits for what it takes back, should that not be in this statement. Rows of the queue
        -- never move, and only who holds the creditor takes some out: so they are deleted by their place.
        DELETE FROM settlements_waiting WHERE agency = :agency AND ctid = ANY(ARRAY(
            SELECT waiting.ctid FROM settlements_waiting AS waiting JOIN collecting
                ON collecting.for_case_id = CASE WHEN :individual THEN waiting.case_id ELSE '{_NO_CASE}' END
            WHERE waiting.agency = :agency AND waiting.creditor_id = :creditor_id AND waiting.currency = :currency
                AND waiting.posting_id > :after AND waiting.business_date < :end
                AND (waiting.amount_minor > 0 OR NOT EXISTS (
                    SELECT 1 FROM settlements_waiting AS other
                    WHERE other.agency = :agency AND other.payment_id = waiting.payment_id
                        AND other.posting_id < waiting.posting_id
                        AND (other.business_date >= :end OR other.posting_id <= :after)))
            ORDER BY waiting.posting_id LIMIT :slice))
        RETURNING posting_id AS id, payment_id, case_id, title_id, coalesce(title_id, instalment_id) AS unit,
            agreement_id, component, amount_minor, value_date
    ), settled AS MATERIALIZED (
        SELECT taken.*, collecting.id AS statement_id, title.due_date, title.origin_agreement_id,
            CASE WHEN cardinality(CAST(:own AS text[])) = 0 THEN '' ELSE (
                SELECT product FROM case_accounts WHERE agency = :agency AND case_id = taken.case_id) END AS product
        FROM taken JOIN collecting
                ON collecting.for_case_id = CASE WHEN :individual THEN taken.case_id ELSE '{_NO_CASE}' END
            LEFT JOIN LATERAL (
                SELECT due_date, origin_agreement_id FROM titles
                WHERE agency = :agency AND case_id = taken.case_id AND id = taken.title_id OFFSET 0
            ) AS title ON true
    ), ancestors AS (
        SELECT DISTINCT unit AS subject, case_id, title_id FROM settled WHERE origin_agreement_id IS NOT NULL
        UNION
        SELECT settled.agreement_id, bound.case_id, bound.title_id
        FROM (SELECT DISTINCT agreement_id FROM settled WHERE title_id IS NULL) AS settled CROSS JOIN LATERAL (
            SELECT case_id, title_id FROM agreement_titles
            WHERE agency = :agency AND agreement_id = settled.agreement_id OFFSET 0) AS bound
        UNION
        SELECT ancestors.subject, parent.parent_case_id, parent.parent_id
        FROM ancestors CROSS JOIN LATERAL (
            SELECT parent_case_id, parent_id FROM title_lineage
            WHERE agency = :agency AND case_id = ancestors.case_id AND title_id = ancestors.title_id OFFSET 0
        ) AS parent
    ), oldest AS MATERIALIZED (
        SELECT ancestors.subject, min(title.due_date) AS due_date
        FROM ancestors CROSS JOIN LATERAL (
            SELECT due_date FROM titles
            WHERE agency = :agency AND case_id = ancestors.case_id AND id = ancestors.title_id OFFSET 0) AS title
        GROUP BY ancestors.subject
    ), aged AS MATERIALIZED (
        SELECT settled.*,
            CASE WHEN settled.product = ANY(CAST(:own AS text[])) THEN settled.product ELSE '' END AS line,
            greatest(0, settled.value_date - coalesce(oldest.due_date, settled.due_date, settled.value_date)) AS days
        FROM settled LEFT JOIN oldest
            ON oldest.subject = CASE WHEN settled.title_id IS NULL THEN settled.agreement_id ELSE settled.unit END
    ), priced AS MATERIALIZED (
        SELECT aged.id, aged.statement_id, aged.payment_id, aged.case_id, aged.unit, aged.component, aged.amount_minor,
            aged.value_date, aged.days, reach.contract_id, CASE aged.component
                WHEN 'PRINCIPAL' THEN reach.principal_rate WHEN 'COSTS' THEN reach.costs_rate
                WHEN 'FEES' THEN reach.costs_rate ELSE reach.charges_rate END AS rate
        FROM aged LEFT JOIN reach ON reach.product = aged.line AND aged.value_date >= reach.valid_from
            AND (reach.valid_to IS NULL OR aged.value_date < reach.valid_to)
            AND aged.days >= reach.from_day AND (reach.to_day IS NULL OR aged.days < reach.to_day)
    ), entangled AS MATERIALIZED (
        -- Payments whose lines depend on one another: taken back in part or whole, or with a fixed amount.
        SELECT DISTINCT payment_id, case_id FROM priced
        WHERE amount_minor < 0 OR contract_id IN (SELECT contract_id FROM terms WHERE fixed > 0)
    ), together AS MATERIALIZED (
        SELECT priced.id, priced.statement_id, priced.payment_id, priced.case_id, priced.unit, priced.component,
            priced.amount_minor, priced.days, priced.contract_id, priced.rate, CAST(NULL AS bigint) AS percentage,
            CAST(NULL AS bigint) AS fixed, CAST(NULL AS bigint) AS added, CAST(NULL AS bigint) AS kept
        FROM priced JOIN entangled ON entangled.payment_id = priced.payment_id AND entangled.case_id = priced.case_id
        UNION ALL
        SELECT earlier.* FROM entangled CROSS JOIN LATERAL (
            SELECT postings.id, CAST(NULL AS uuid), postings.payment_id, postings.case_id,
                coalesce(postings.title_id, postings.instalment_id), postings.component, postings.amount_minor,
                lines.days_past_due, lines.contract_id, lines.rate_e4, lines.percentage_minor, lines.fixed_minor,
                lines.tax_added_minor, lines.tax_retained_minor
            FROM postings JOIN statement_lines AS lines
                ON lines.agency = postings.agency AND lines.posting_id = postings.id
            WHERE postings.agency = :agency AND postings.payment_id = entangled.payment_id
                AND postings.case_id = entangled.case_id AND postings.kind = 'RECEIVED' OFFSET 0) AS earlier
    ), begun AS (
        SELECT together.*, count(*) FILTER (WHERE amount_minor > 0) OVER (
                PARTITION BY payment_id, case_id, unit, component ORDER BY id) AS start,
            sum(amount_minor) OVER (PARTITION BY payment_id, case_id ORDER BY id) AS held,
            sum(amount_minor) OVER (PARTITION BY payment_id, case_id, unit ORDER BY id) AS unit_held
        FROM together
    ), given AS (
        SELECT id, statement_id, payment_id, case_id, amount_minor, percentage, fixed, added, kept, held, unit_held,
            first_value(contract_id) OVER given AS contract_id, first_value(days) OVER given AS days,
            first_value(rate) OVER given AS rate,
            count(*) FILTER (WHERE held = 0) OVER (
                PARTITION BY payment_id, case_id ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS round
        FROM begun
        WINDOW given AS (PARTITION BY payment_id, case_id, unit, component, start ORDER BY id)
    ), counted AS (
        SELECT given.id, given.statement_id, given.payment_id, given.case_id, given.amount_minor, given.contract_id,
            given.days, given.rate, given.held, given.round, given.added, given.kept, terms.tax_rate, terms.retained,
            coalesce(given.percentage, {_half_up("given.amount_minor", "given.rate")}) AS percentage,
            coalesce(given.fixed, terms.fixed * CASE
                WHEN state.before <= 0 AND state.after > 0 THEN 1 WHEN state.before > 0 AND state.after <= 0 THEN -1
                ELSE 0 END) AS fixed
        FROM given JOIN terms ON terms.contract_id = given.contract_id CROSS JOIN LATERAL (
            SELECT CASE WHEN terms.per_settlement THEN unit_held ELSE held END AS after,
                CASE WHEN terms.per_settlement THEN unit_held ELSE held END - given.amount_minor AS before) AS state
    ), taxed AS (
        SELECT counted.*, coalesce(added, CASE WHEN retained THEN 0 ELSE tax END) AS tax_added,
            coalesce(kept, CASE WHEN retained THEN tax ELSE 0 END) AS tax_retained
        FROM counted CROSS JOIN LATERAL (
            SELECT {_half_up("(counted.percentage + counted.fixed)", "counted.tax_rate")} AS tax) AS taxes
    ), restored AS (
        SELECT id, statement_id, contract_id, days, rate, amount_minor,
            CASE WHEN held = 0 THEN percentage - sum(percentage) OVER round ELSE percentage END AS percentage,
            CASE WHEN held = 0 THEN fixed - sum(fixed) OVER round ELSE fixed END AS fixed,
            CASE WHEN held = 0 THEN tax_added - sum(tax_added) OVER round ELSE tax_added END AS tax_added,
            CASE WHEN held = 0 THEN tax_retained - sum(tax_retained) OVER round ELSE tax_retained END AS tax_retained
        FROM taxed WINDOW round AS (PARTITION BY payment_id, case_id, round)
    ), plain AS (
        SELECT priced.id, priced.statement_id, priced.contract_id, priced.days, priced.rate, priced.amount_minor,
            {_half_up("priced.amount_minor", "priced.rate")} AS percentage, terms.tax_rate, terms.retained
        FROM priced JOIN terms ON terms.contract_id = priced.contract_id
        WHERE NOT EXISTS (SELECT 1 FROM entangled
            WHERE entangled.payment_id = priced.payment_id AND entangled.case_id = priced.case_id)
    ), added AS (
        INSERT INTO statement_lines (agency, posting_id, statement_id, contract_id, days_past_due, rate_e4,
            amount_minor, percentage_minor, fixed_minor, tax_added_minor, tax_retained_minor)
        SELECT CAST(:agency AS uuid), line.* FROM (
            SELECT id, statement_id, contract_id, days, rate, amount_minor, percentage, 0 AS fixed,
                CASE WHEN retained THEN 0 ELSE {_half_up("percentage", "tax_rate")} END,
                CASE WHEN retained THEN {_half_up("percentage", "tax_rate")} ELSE 0 END
            FROM plain
            UNION ALL
            SELECT id, statement_id, contract_id, days, rate, amount_minor, percentage, fixed, tax_added, tax_retained
            FROM restored WHERE statement_id IS NOT NULL
        ) AS line ORDER BY line.id
    )
    SELECT count(*) AS settlements, coalesce(max(id), 0) AS last,
        min(value_date) FILTER (WHERE contract_id IS NULL) AS uncovered FROM priced
    """  # noqa: S608 -- text of this module
).bindparams(sa.bindparam("end", type_=sa.Date()), sa.bindparam("individual", type_=sa.Boolean()))
_RESOLVED = tables.sql(
    """
    WITH touched AS MATERIALIZED (
        SELECT statements.id AS statement_id, postings.case_id,
            (array_agg(lines.contract_id ORDER BY lines.posting_id DESC))[1] AS contract_id
        FROM statements JOIN statement_lines AS lines
                ON lines.agency = statements.agency AND lines.statement_id = statements.id
            CROSS JOIN LATERAL (
                SELECT case_id FROM postings WHERE agency = :agency AND id = lines.posting_id OFFSET 0) AS postings
        WHERE statements.agency = :agency AND statements.creditor_id = :creditor_id
            AND statements.currency = :currency AND statements.state = 'OPEN'
        GROUP BY statements.id, postings.case_id
    )
    SELECT touched.*, title.received_minor, title.open_minor = 0 AND NOT title.lost AND NOT EXISTS (
            SELECT 1 FROM case_accounts JOIN agreements
                ON agreements.agency = case_accounts.agency AND agreements.id = case_accounts.agreement_id
            WHERE case_accounts.agency = :agency AND case_accounts.case_id = touched.case_id
                AND agreements.state IN ('AWAITING_DOWN_PAYMENT', 'ACTIVE')) AS resolved,
        before.*
    FROM touched CROSS JOIN LATERAL (
        SELECT coalesce(CAST(sum(received_minor) AS bigint), 0) AS received_minor, coalesce(sum(open_principal_minor
                + open_correction_minor + open_penalty_minor + open_interest_minor + open_costs_minor
                + open_fees_minor), 0) AS open_minor, coalesce(bool_or(state = 'WRITTEN_OFF'), false) AS lost
        FROM titles WHERE agency = :agency AND case_id = touched.case_id
    ) AS title CROSS JOIN LATERAL (
        SELECT CAST(sum(fee_minor) AS bigint) AS fee_minor, CAST(sum(tax_added_minor) AS bigint) AS tax_added_minor,
            CAST(sum(tax_retained_minor) AS bigint) AS tax_retained_minor,
            (array_agg(rate_e4 ORDER BY statement_id DESC))[1] AS rate_e4,
            (array_agg(base_minor ORDER BY statement_id DESC))[1] AS base_minor
        FROM statement_fees WHERE agency = :agency AND case_id = touched.case_id
    ) AS before
    ORDER BY touched.statement_id, touched.case_id
    """
)
_ADD_FEES = tables.sql(
    """
    INSERT INTO statement_fees (agency, statement_id, case_id, contract_id, rate_e4, base_minor, fee_minor,
        tax_added_minor, tax_retained_minor)
    SELECT CAST(:agency AS uuid), new.* FROM unnest(CAST(:statement_ids AS uuid[]), CAST(:case_ids AS uuid[]),
        CAST(:contract_ids AS uuid[]), CAST(:rates AS int[]), CAST(:bases AS bigint[]), CAST(:fees AS bigint[]),
        CAST(:added AS bigint[]), CAST(:retained AS bigint[])) AS new
    """
)
_SUMS = tables.sql(
    """
    SELECT statements.id AS statement_id, statements.for_case_id, statements.number, statements.carried_in_minor,
        lines.settlements, lines.gross AS gross_minor, lines.commission AS commission_minor,
        fees.fee AS success_fee_minor, lines.added + fees.added AS tax_added_minor,
        lines.retained + fees.retained AS tax_retained_minor
    FROM statements CROSS JOIN LATERAL (
        SELECT count(*) AS settlements, CAST(coalesce(sum(amount_minor), 0) AS bigint) AS gross,
            CAST(coalesce(sum(percentage_minor + fixed_minor), 0) AS bigint) AS commission,
            CAST(coalesce(sum(tax_added_minor), 0) AS bigint) AS added,
            CAST(coalesce(sum(tax_retained_minor), 0) AS bigint) AS retained
        FROM statement_lines WHERE agency = statements.agency AND statement_id = statements.id
    ) AS lines CROSS JOIN LATERAL (
        SELECT CAST(coalesce(sum(fee_minor), 0) AS bigint) AS fee,
            CAST(coalesce(sum(tax_added_minor), 0) AS bigint) AS added,
            CAST(coalesce(sum(tax_retained_minor), 0) AS bigint) AS retained
        FROM statement_fees WHERE agency = statements.agency AND statement_id = statements.id
    ) AS fees
    WHERE statements.agency = :agency AND statements.creditor_id = :creditor_id AND statements.currency = :currency
        AND statements.state = 'OPEN'
    ORDER BY statements.id
    """
)
_CLOSE = tables.sql(
    """
    UPDATE statements SET state = 'CLOSED', period_start = CAST(:start AS date), period_end = CAST(:end AS date),
        settlements = new.settlements, gross_minor = new.gross, commission_minor = new.commission,
        success_fee_minor = new.fee, tax_added_minor = new.added, tax_retained_minor = new.retained,
        net_minor = new.net, minimum_minor = CAST(:minimum AS bigint), remitted_minor = new.remitted,
        carried_out_minor = new.carried_out, closed_by = :by, closed_at = :now, version = version + 1
    FROM unnest(CAST(:ids AS uuid[]), CAST(:settlements AS bigint[]), CAST(:gross AS bigint[]),
        CAST(:commission AS bigint[]), CAST(:fees AS bigint[]), CAST(:added AS bigint[]), CAST(:retained AS bigint[]),
        CAST(:net AS bigint[]), CAST(:remitted AS bigint[]), CAST(:carried_out AS bigint[]))
        AS new (id, settlements, gross, commission, fee, added, retained, net, remitted, carried_out)
    WHERE statements.agency = :agency AND statements.id = new.id AND statements.state = 'OPEN'
    """
)
_NEXT = tables.sql(
    """
    INSERT INTO statements (agency, id, creditor_id, currency, for_case_id, number, state, period_start,
        carried_in_minor)
    SELECT agency, uuidv7(), creditor_id, currency, for_case_id, number + 1, 'OPEN', period_end, carried_out_minor
    FROM statements WHERE agency = :agency AND id = ANY(CAST(:ids AS uuid[]))
        AND (carried_out_minor <> 0 OR (for_case_id IS NULL AND NOT :individual))
    ORDER BY id
    """
).bindparams(sa.bindparam("individual", type_=sa.Boolean()))


def last_period_end(
    tx: db.Transaction, agency: uuid.UUID, creditor_id: uuid.UUID, currency: str
) -> datetime.date | None:
    """The day after the last one that was closed."""
    params = {"agency": agency, "creditor_id": creditor_id, "currency": currency}
    found: datetime.date | None = tx.execute(_LAST, params).scalar()
    return found


def first_waiting(
    tx: db.Transaction, agency: uuid.UUID, creditor_id: uuid.UUID, currency: str
) -> datetime.date | None:
    """The earliest business date of what waits."""
    params = {"agency": agency, "creditor_id": creditor_id, "currency": currency}
    found: datetime.date | None = tx.execute(_FIRST, params).scalar()
    return found


def open_statements(
    tx: db.Transaction,
    agency: uuid.UUID,
    creditor_id: uuid.UUID,
    currency: str,
    *,
    individual: bool,
    start: datetime.date | None,
    end: datetime.date,
) -> None:
    """See that what waits before `end` has a statement that collects it: one, or one for each case."""
    tx.execute(
        _OPEN,
        {
            "agency": agency,
            "creditor_id": creditor_id,
            "currency": currency,
            "individual": individual,
            "start": start,
            "end": end,
        },
    )


def take(
    tx: db.Transaction,
    agency: uuid.UUID,
    creditor_id: uuid.UUID,
    currency: str,
    *,
    reaches: Sequence[remittance.Reach],
    individual: bool,
    end: datetime.date,
    after: int,
    limit: int = SLICE,
) -> Taken:
    """Count the next settlements that wait, with a business date before `end` and postings behind `after`, into the
    open statements. The rules are those of domain/remittance.count."""
    rows = [
        (one, band, following)
        for one in reaches
        for band, following in zip(
            one.contract.bands, (*(b.from_day for b in one.contract.bands[1:]), None), strict=True
        )
    ]
    row = tx.execute(
        _TAKE,
        {
            "agency": agency,
            "creditor_id": creditor_id,
            "currency": currency,
            "individual": individual,
            "end": end,
            "after": after,
            "slice": limit,
            "own": sorted({one.product for one in reaches} - {""}),
            "products": [one.product for one, _, _ in rows],
            "valid_froms": [one.valid_from for one, _, _ in rows],
            "valid_tos": [one.valid_to for one, _, _ in rows],
            "from_days": [band.from_day for _, band, _ in rows],
            "to_days": [following for _, _, following in rows],
            "contract_ids": [one.contract.contract_id for one, _, _ in rows],
            "principal_rates": [band.principal_rate_e4 for _, band, _ in rows],
            "charges_rates": [band.charges_rate_e4 for _, band, _ in rows],
            "costs_rates": [band.costs_rate_e4 for _, band, _ in rows],
            "fixed": [one.contract.fixed_minor for one, _, _ in rows],
            "per_settlement": [
                one.contract.fixed_per is remittance.FixedPer.SETTLEMENT for one, _, _ in rows
            ],
            "tax_rates": [one.contract.tax_rate_e4 for one, _, _ in rows],
            "retained": [one.contract.tax_retained for one, _, _ in rows],
        },
    ).one()
    return Taken(settlements=row.settlements, last=row.last, uncovered=row.uncovered)


def resolutions(
    tx: db.Transaction, agency: uuid.UUID, creditor_id: uuid.UUID, currency: str
) -> list[Resolution]:
    """The cases that the lines of the open statements touch."""
    params = {"agency": agency, "creditor_id": creditor_id, "currency": currency}
    return [
        Resolution(
            case_id=row.case_id,
            statement_id=row.statement_id,
            contract_id=row.contract_id,
            resolved=row.resolved,
            received_minor=row.received_minor,
            before=None
            if row.fee_minor is None
            else remittance.Fee(
                rate_e4=row.rate_e4,
                base_minor=row.base_minor,
                fee_minor=row.fee_minor,
                tax_added_minor=row.tax_added_minor,
                tax_retained_minor=row.tax_retained_minor,
            ),
        )
        for row in tx.execute(_RESOLVED, params)
    ]


def add_fees(
    tx: db.Transaction, agency: uuid.UUID, fees: Sequence[tuple[Resolution, remittance.Fee]]
) -> None:
    """Add success fees to open statements."""
    if not fees:
        return
    tx.execute(
        _ADD_FEES,
        {
            "agency": agency,
            "statement_ids": [one.statement_id for one, _ in fees],
            "case_ids": [one.case_id for one, _ in fees],
            "contract_ids": [one.contract_id for one, _ in fees],
            "rates": [fee.rate_e4 for _, fee in fees],
            "bases": [fee.base_minor for _, fee in fees],
            "fees": [fee.fee_minor for _, fee in fees],
            "added": [fee.tax_added_minor for _, fee in fees],
            "retained": [fee.tax_retained_minor for _, fee in fees],
        },
    )


def sums(tx: db.Transaction, agency: uuid.UUID, creditor_id: uuid.UUID, currency: str) -> list[Sums]:
    """What the open statements of a creditor and currency come to, from their lines."""
    params = {"agency": agency, "creditor_id": creditor_id, "currency": currency}
    return [Sums(**row) for row in tx.execute(_SUMS, params).mappings()]


def close(
    tx: db.Transaction,
    agency: uuid.UUID,
    counted: Sequence[tuple[Sums, remittance.Totals]],
    *,
    start: datetime.date,
    end: datetime.date,
    minimum_minor: int,
    by: str,
    now: datetime.datetime,
    individual: bool,
) -> None:
    """Close open statements with these totals, which are the sums of their lines (the database looks), and open those
    that go on."""
    ids = [one.statement_id for one, _ in counted]
    tx.execute(
        _CLOSE,
        {
            "agency": agency,
            "start": start,
            "end": end,
            "minimum": minimum_minor,
            "by": by,
            "now": now,
            "ids": ids,
            "settlements": [total.settlements for _, total in counted],
            "gross": [total.gross_minor for _, total in counted],
            "commission": [total.commission_minor for _, total in counted],
            "fees": [total.success_fee_minor for _, total in counted],
            "added": [total.tax_added_minor for _, total in counted],
            "retained": [total.tax_retained_minor for _, total in counted],
            "net": [total.net_minor for _, total in counted],
            "remitted": [total.remitted_minor for _, total in counted],
            "carried_out": [total.carried_out_minor for _, total in counted],
        },
    )
    tx.execute(_NEXT, {"agency": agency, "ids": ids, "individual": individual})
