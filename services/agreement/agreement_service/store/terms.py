"""Terms of charges and published series: kept, resolved for titles in one statement, loaded as rules."""

import dataclasses
import datetime
import uuid
from collections.abc import Collection, Mapping, Sequence

import sqlalchemy as sa

from agreement_service.domain import accounts, charges, series
from agreement_service.domain import terms as domain
from agreement_service.store import tables
from servicekit import db

_NOW = "instant of the agency's clock when it was set"
SERIES = tables.table(
    "series",
    ["code"],
    tables.business("code", tables.TEXT, key=True),
    tables.business("kind", tables.TEXT),
    tables.business("denominator", tables.BIG),
    tables.business("first_day", tables.DATE),
    tables.business("last_day", tables.DATE),
    tables.incidental("version", tables.BIG, "counts writes: how many imports there were"),
)
SERIES_VALUES = tables.table(
    "series_values",
    ["code", "period"],
    tables.business("code", tables.TEXT, key=True),
    tables.business("period", tables.DATE, key=True),
    tables.business("value_e6", tables.BIG),
    tables.business("source", tables.TEXT),
    tables.incidental("imported_at", tables.INSTANT, _NOW),
)
SERIES_DAYS = tables.table(
    "series_days",
    ["code", "first_day"],
    tables.business("code", tables.TEXT, key=True),
    tables.business("first_day", tables.DATE, key=True),
    tables.business("cumulative", sa.Numeric()),
    tables.business("per_day", sa.Numeric()),
)
SERIES_REPLACED = tables.table(
    "series_replaced",
    ["code", "period", "value_e6"],
    tables.business("code", tables.TEXT, key=True),
    tables.business("period", tables.DATE, key=True),
    tables.incidental("replaced_at", tables.INSTANT, _NOW, key=True),
    tables.business("value_e6", tables.BIG),
    tables.business("source", tables.TEXT),
)
_CONTENT = (
    "penalty_rate_e4",
    "penalty_minor",
    "interest_rate_e4",
    "surcharge_e4",
    "interest_unit",
    "day_count",
    "interest_factor",
    "interest_denominator",
    "interest_series",
    "correction_series",
    "commission_rate_e4",
    "commission_minimum_minor",
    "commission_maximum_minor",
    "commission_above_minor",
    "commission_above_rate_e4",
    "late_payment_minor",
    "expenses_minor",
    "fees_rate_e4",
    "grace_days",
    "source",
)
_TEXTS = {"interest_unit", "day_count", "interest_series", "correction_series", "source"}
CHARGE_TERMS = tables.table(
    "charge_terms",
    ["creditor_id", "product", "title_id", "currency", "consumer", "valid_from", "revision"],
    tables.incidental("id", tables.UUID, "UUID made by this service", key=True),
    tables.incidental("creditor_id", tables.UUID, "UUID made by the case service"),
    tables.business("product", tables.TEXT),
    tables.reference("title_id", "titles"),
    tables.business("currency", tables.TEXT),
    tables.business("consumer", tables.BOOL),
    tables.business("valid_from", tables.DATE),
    tables.business("revision", tables.INT),
    *(
        tables.business(
            name, tables.TEXT if name in _TEXTS else tables.BIG if name.endswith("_minor") else tables.INT
        )
        for name in _CONTENT
        if name not in ("interest_factor", "interest_denominator")
    ),
    tables.business("interest_factor", tables.BIG),
    tables.business("interest_denominator", tables.BIG),
    tables.business("set_by", tables.TEXT),
    tables.incidental("created_at", tables.INSTANT, _NOW),
)
TITLE_TERM_CHANGES = tables.table(
    "title_term_changes",
    ["title_id", "number"],
    tables.reference("title_id", "titles", key=True),
    tables.reference("case_id", "case_accounts"),
    tables.business("number", tables.INT, key=True),
    tables.business("business_date", tables.DATE),
    tables.business("penalty_rate_e4", tables.INT),
    tables.business("monthly_rate_e4", tables.INT),
    tables.business("old_penalty_rate_e4", tables.INT),
    tables.business("old_monthly_rate_e4", tables.INT),
    tables.business("reason", tables.TEXT),
    tables.business("changed_by", tables.TEXT),
    tables.incidental("changed_at", tables.INSTANT, _NOW),
)
CHARGE_CHANGES = tables.table(
    "charge_changes",
    ["title_id", "number"],
    tables.reference("title_id", "titles", key=True),
    tables.reference("case_id", "case_accounts"),
    tables.business("number", tables.INT, key=True),
    tables.business("business_date", tables.DATE),
    tables.business("kind", tables.TEXT),
    tables.business("component", tables.TEXT),
    tables.business("amount_minor", tables.BIG),
    tables.business("reason", tables.TEXT),
    tables.business("changed_by", tables.TEXT),
    tables.incidental("changed_at", tables.INSTANT, _NOW),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A row of terms as set."""

    id: uuid.UUID
    scope: domain.Scope
    terms: domain.Terms
    revision: int
    set_by: str
    created_at: datetime.datetime


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A published value: first day of its period, percent times 1 000 000."""

    period: datetime.date
    value_e6: int
    source: str


_KEY = "id, creditor_id, product, title_id, currency, consumer, valid_from, revision, set_by, created_at"
_ADD = tables.sql(
    f"""
    INSERT INTO charge_terms (agency, {_KEY}, {", ".join(_CONTENT)})
    SELECT CAST(:agency AS uuid), :id, CAST(:creditor_id AS uuid), :product, CAST(:title_id AS uuid), :currency,
        :consumer, :valid_from, 1 + coalesce(max(revision), 0), :set_by, :created_at,
        {", ".join(":" + name for name in _CONTENT)}
    FROM charge_terms WHERE agency = :agency AND currency = :currency AND consumer = :consumer
        AND creditor_id IS NOT DISTINCT FROM CAST(:creditor_id AS uuid) AND product = :product
        AND title_id IS NOT DISTINCT FROM CAST(:title_id AS uuid) AND valid_from = :valid_from
    """  # noqa: S608 -- column names of this module
)
_LIST = tables.sql(
    f"""
    SELECT {_KEY}, {", ".join(_CONTENT)} FROM charge_terms
    WHERE agency = :agency AND (CAST(:creditor_id AS uuid) IS NULL OR creditor_id = :creditor_id)
        AND (CAST(:after AS uuid) IS NULL OR id > :after)
    ORDER BY id LIMIT :limit
    """  # noqa: S608 -- column names of this module
)
_BY_ID = tables.sql(
    f"""
    SELECT {_KEY}, {", ".join(_CONTENT)} FROM charge_terms
    WHERE agency = :agency AND id = ANY(CAST(:ids AS uuid[]))
    """  # noqa: S608 -- column names of this module
)
RESOLVED = """(
    SELECT charge_terms.id FROM charge_terms
    WHERE charge_terms.agency = (SELECT CAST(:agency AS uuid)) AND charge_terms.currency = {account}.currency
        AND charge_terms.consumer = {account}.consumer AND charge_terms.valid_from <= {due_date}
        AND (charge_terms.creditor_id IS NULL OR charge_terms.creditor_id = {account}.creditor_id)
        AND charge_terms.product IN ('', {account}.product)
        AND (charge_terms.title_id IS NULL OR charge_terms.title_id = {title_id})
    ORDER BY charge_terms.title_id IS NULL, charge_terms.product = '', charge_terms.creditor_id IS NULL,
        charge_terms.valid_from DESC, charge_terms.revision DESC
    LIMIT 1
)"""
"""The terms that stand for a title: a scalar sub-query over expressions of the statement around it."""
BEARS_INTEREST = """coalesce((
    SELECT charge_interest AND default_interest FROM creditor_settings
    WHERE creditor_settings.agency = (SELECT CAST(:agency AS uuid)) AND creditor_settings.creditor_id = {creditor_id}
), true)"""
"""Whether a creditor charges interest for default (S1-26)."""
_SCOPED = """
    SELECT titles.case_id, titles.id, {resolved} AS terms_id, {bears} AS bears_interest
    FROM titles JOIN case_accounts AS account ON account.agency = titles.agency AND account.case_id = titles.case_id
    WHERE titles.agency = :agency AND {open} > 0
        AND (CAST(:creditor_id AS uuid) IS NULL OR account.creditor_id = CAST(:creditor_id AS uuid))
        AND (CAST(:title_id AS uuid) IS NULL OR titles.id = CAST(:title_id AS uuid))
"""
_OPEN = (
    "(titles.open_principal_minor + titles.open_correction_minor + titles.open_penalty_minor"
    " + titles.open_interest_minor + titles.open_costs_minor + titles.open_fees_minor)"
)
_SELECTED = _SCOPED.format(
    resolved=RESOLVED.format(account="account", due_date="titles.due_date", title_id="titles.id"),
    bears=BEARS_INTEREST.format(creditor_id="account.creditor_id"),
    open=_OPEN,
)
_TOUCHED = tables.sql(
    f"""
    SELECT DISTINCT titles.case_id FROM titles JOIN ({_SELECTED}) AS new
        ON new.case_id = titles.case_id AND new.id = titles.id
    WHERE titles.agency = :agency AND (titles.terms_id IS DISTINCT FROM new.terms_id
        OR titles.bears_interest IS DISTINCT FROM new.bears_interest)
    """  # noqa: S608 -- text of this module
)
_RESOLVE = tables.sql(
    f"""
    UPDATE titles SET terms_id = new.terms_id, bears_interest = new.bears_interest, version = titles.version + 1
    FROM ({_SELECTED}) AS new
    WHERE titles.agency = :agency AND titles.case_id = new.case_id AND titles.id = new.id
        AND (titles.terms_id IS DISTINCT FROM new.terms_id
            OR titles.bears_interest IS DISTINCT FROM new.bears_interest)
    """  # noqa: S608 -- text of this module
)
_SERIES = tables.sql(
    """
    SELECT series.code, series.kind, series.denominator, series.first_day, series.last_day, series.version,
        array_agg(series_days.first_day ORDER BY series_days.first_day) AS days,
        array_agg(series_days.cumulative ORDER BY series_days.first_day) AS cumulative,
        array_agg(series_days.per_day ORDER BY series_days.first_day) AS per_day
    FROM series JOIN series_days ON series_days.agency = series.agency AND series_days.code = series.code
    WHERE series.agency = :agency AND series.code = ANY(CAST(:codes AS text[]))
    GROUP BY series.agency, series.code
    """
)
_VALUES = tables.sql(
    """
    SELECT period, value_e6, source FROM series_values
    WHERE agency = :agency AND code = :code ORDER BY period
    """
)
_LOCK_SERIES = tables.sql(
    """
    INSERT INTO series (agency, code, kind, denominator, first_day, last_day)
    VALUES (CAST(:agency AS uuid), :code, :kind, 1, :first_day, :first_day)
    ON CONFLICT (agency, code) DO UPDATE SET version = series.version + 1
    """
)
_KEEP_REPLACED = tables.sql(
    """
    INSERT INTO series_replaced (agency, code, period, replaced_at, value_e6, source)
    SELECT CAST(:agency AS uuid), code, period, :now, value_e6, source FROM series_values
    WHERE agency = :agency AND code = :code AND period = ANY(CAST(:periods AS date[])) ORDER BY period
    """
)
_PUT_VALUES = tables.sql(
    """
    INSERT INTO series_values (agency, code, period, value_e6, source, imported_at)
    SELECT CAST(:agency AS uuid), :code, new.period, new.value_e6, new.source, :now
    FROM unnest(CAST(:periods AS date[]), CAST(:values AS bigint[]), CAST(:sources AS text[]))
        AS new (period, value_e6, source) ORDER BY new.period
    ON CONFLICT (agency, code, period) DO UPDATE
        SET value_e6 = excluded.value_e6, source = excluded.source, imported_at = excluded.imported_at
    """
)
_CLEAR_DAYS = tables.sql("DELETE FROM series_days WHERE agency = :agency AND code = :code")
_PUT_DAYS = tables.sql(
    """
    INSERT INTO series_days (agency, code, first_day, cumulative, per_day)
    SELECT CAST(:agency AS uuid), :code, new.* FROM unnest(CAST(:days AS date[]), CAST(:cumulative AS numeric[]),
        CAST(:per_day AS numeric[])) AS new (first_day, cumulative, per_day)
    """
)
_PUT_SERIES = tables.sql(
    """
    UPDATE series SET denominator = :denominator, first_day = :first_day, last_day = :last_day
    WHERE agency = :agency AND code = :code
    """
)


_EDIT = tables.sql(
    """
    WITH old AS (
        SELECT titles.case_id, titles.id, CASE WHEN titles.own_penalty THEN titles.penalty_rate_e4 END AS penalty,
            CASE WHEN titles.own_interest THEN titles.monthly_rate_e4 END AS monthly
        FROM titles JOIN unnest(CAST(:case_ids AS uuid[]), CAST(:title_ids AS uuid[])) AS chosen (case_id, id)
            ON chosen.case_id = titles.case_id AND chosen.id = titles.id
        WHERE titles.agency = :agency
    ), changed AS (
        UPDATE titles SET penalty_rate_e4 = coalesce(CAST(:penalty AS int), titles.penalty_rate_e4),
            own_penalty = titles.own_penalty OR CAST(:penalty AS int) IS NOT NULL,
            monthly_rate_e4 = coalesce(CAST(:monthly AS int), titles.monthly_rate_e4),
            own_interest = titles.own_interest OR CAST(:monthly AS int) IS NOT NULL,
            version = titles.version + 1
        FROM old WHERE titles.agency = :agency AND titles.case_id = old.case_id AND titles.id = old.id
    )
    INSERT INTO title_term_changes (agency, title_id, case_id, number, business_date, penalty_rate_e4,
        monthly_rate_e4, old_penalty_rate_e4, old_monthly_rate_e4, reason, changed_by, changed_at)
    SELECT CAST(:agency AS uuid), old.id, old.case_id, 1 + (
            SELECT coalesce(max(number), 0) FROM title_term_changes
            WHERE title_term_changes.agency = :agency AND title_term_changes.title_id = old.id),
        CAST(:business_date AS date), CAST(:penalty AS int), CAST(:monthly AS int), old.penalty, old.monthly,
        :reason, :changed_by, :now
    FROM old ORDER BY old.id
    """
)
_NOTE = tables.sql(
    """
    INSERT INTO charge_changes (agency, title_id, case_id, number, business_date, kind, component, amount_minor,
        reason, changed_by, changed_at)
    SELECT CAST(:agency AS uuid), :title_id, :case_id, 1 + coalesce(max(number), 0), CAST(:business_date AS date),
        :kind, :component, :amount_minor, :reason, :changed_by, :now
    FROM charge_changes WHERE agency = :agency AND title_id = :title_id
    """
)
_PROPOSED = """
    SELECT titles.case_id, titles.id FROM agreements
    JOIN agreement_titles ON agreement_titles.agency = agreements.agency
        AND agreement_titles.agreement_id = agreements.id
    JOIN titles ON titles.agency = agreements.agency AND titles.case_id = agreement_titles.case_id
        AND titles.id = agreement_titles.title_id
    JOIN charge_terms AS terms ON terms.agency = titles.agency AND terms.id = titles.terms_id
    WHERE agreements.agency = :agency AND agreements.state = 'PROPOSED'
        AND :code IN (terms.interest_series, terms.correction_series)
"""
_PROPOSED_WITH = tables.sql(
    f"SELECT DISTINCT case_id FROM ({_PROPOSED}) AS counted"  # noqa: S608 -- text of this module
)
_TOUCH_PROPOSED = tables.sql(
    f"""
    UPDATE titles SET version = titles.version + 1 FROM (SELECT DISTINCT * FROM ({_PROPOSED}) AS one) AS counted
    WHERE titles.agency = :agency AND titles.case_id = counted.case_id AND titles.id = counted.id
    """  # noqa: S608 -- text of this module
)


def edit(
    tx: db.Transaction,
    agency: uuid.UUID,
    chosen: Sequence[tuple[uuid.UUID, uuid.UUID]],
    *,
    penalty_rate_e4: int | None,
    monthly_rate_e4: int | None,
    reason: str,
    changed_by: str,
    now: datetime.datetime,
    business_date: datetime.date,
) -> None:
    """Give titles (case, title) rates of their own, None: as before; what they were is kept."""
    tx.execute(
        _EDIT,
        {
            "agency": agency,
            "case_ids": [case_id for case_id, _ in chosen],
            "title_ids": [title_id for _, title_id in chosen],
            "penalty": penalty_rate_e4,
            "monthly": monthly_rate_e4,
            "reason": reason,
            "changed_by": changed_by,
            "now": now,
            "business_date": business_date,
        },
    )


def note(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    title_id: uuid.UUID,
    case_id: uuid.UUID,
    kind: accounts.Kind,
    component: accounts.Component,
    amount_minor: int,
    reason: str,
    changed_by: str,
    now: datetime.datetime,
    business_date: datetime.date,
) -> None:
    """Keep who charged or waived what on a title, and why."""
    tx.execute(
        _NOTE,
        {
            "agency": agency,
            "title_id": title_id,
            "case_id": case_id,
            "kind": kind.value,
            "component": component.value,
            "amount_minor": amount_minor,
            "reason": reason,
            "changed_by": changed_by,
            "now": now,
            "business_date": business_date,
        },
    )


def proposed_with(tx: db.Transaction, agency: uuid.UUID, code: str) -> list[uuid.UUID]:
    """Cases with a title in a proposal that was counted by this series; in id order."""
    return sorted(tx.execute(_PROPOSED_WITH, {"agency": agency, "code": code}).scalars())


def touch_proposed(tx: db.Transaction, agency: uuid.UUID, code: str) -> None:
    """Titles in proposals counted by this series have changed: the proposals have to be counted again."""
    tx.execute(_TOUCH_PROPOSED, {"agency": agency, "code": code})


def add(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    id: uuid.UUID,
    scope: domain.Scope,
    terms: domain.Terms,
    set_by: str,
    now: datetime.datetime,
) -> None:
    """A new row; of the same scope and first day, the last set counts."""
    content = {name: getattr(terms, name) for name in _CONTENT if not name.startswith("commission_")}
    tx.execute(
        _ADD,
        {
            "agency": agency,
            "id": id,
            **dataclasses.asdict(scope),
            **content,
            **terms.commission_values(scope),
            "set_by": set_by,
            "created_at": now,
        },
    )


def get(tx: db.Transaction, agency: uuid.UUID, ids: Collection[uuid.UUID]) -> dict[uuid.UUID, Record]:
    """Rows by id."""
    found = tx.execute(_BY_ID, {"agency": agency, "ids": sorted(ids)}).mappings()
    return {row["id"]: _record(row) for row in found}


def page(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    creditor_id: uuid.UUID | None,
    after: uuid.UUID | None,
    limit: int,
) -> list[Record]:
    """Rows in the order in which they were set; of one creditor where one is given."""
    params = {"agency": agency, "creditor_id": creditor_id, "after": after, "limit": limit}
    return [_record(row) for row in tx.execute(_LIST, params).mappings()]


def _record(row: sa.RowMapping) -> Record:
    names = {field.name for field in dataclasses.fields(domain.Terms)} - {"recovery_commission"}
    return Record(
        id=row["id"],
        scope=domain.Scope(**{field.name: row[field.name] for field in dataclasses.fields(domain.Scope)}),
        terms=domain.Terms(
            **{
                **{name: row[name] for name in names},
                "interest_unit": domain.Unit(row["interest_unit"]),
                "day_count": domain.DayCount(row["day_count"]),
                "recovery_commission": row["commission_rate_e4"] > 0,
            }
        ),
        revision=row["revision"],
        set_by=row["set_by"],
        created_at=row["created_at"],
    )


def touched(
    tx: db.Transaction, agency: uuid.UUID, *, creditor_id: uuid.UUID | None, title_id: uuid.UUID | None = None
) -> list[uuid.UUID]:
    """Cases of open titles whose terms would change if they were resolved now; in id order."""
    params = {"agency": agency, "creditor_id": creditor_id, "title_id": title_id}
    return sorted(tx.execute(_TOUCHED, params).scalars())


def resolve(
    tx: db.Transaction, agency: uuid.UUID, *, creditor_id: uuid.UUID | None, title_id: uuid.UUID | None = None
) -> int:
    """Give open titles the terms that stand for them today; how many changed. The caller holds their cases' locks."""
    params = {"agency": agency, "creditor_id": creditor_id, "title_id": title_id}
    return tx.execute(_RESOLVE, params).rowcount


def rules(
    tx: db.Transaction, agency: uuid.UUID, ids: Collection[uuid.UUID]
) -> Mapping[uuid.UUID | None, charges.Rules]:
    """What rows of terms say, with their series; None: what no terms say."""
    found: dict[uuid.UUID | None, charges.Rules] = {None: charges.NO_RULES}
    if not ids:
        return found
    rows = tx.execute(_BY_ID, {"agency": agency, "ids": sorted(ids)}).mappings().all()
    codes = {row[name] for row in rows for name in ("interest_series", "correction_series")} - {""}
    days = series_tables(tx, agency, codes) if codes else {}
    for row in rows:
        rate = 0 if row["interest_series"] else row["interest_rate_e4"] + row["surcharge_e4"]
        found[row["id"]] = charges.Rules(
            terms_id=row["id"],
            source=row["source"],
            penalty_rate_e4=row["penalty_rate_e4"],
            penalty_minor=row["penalty_minor"],
            interest_rate_e4=rate,
            interest_rule=domain.interest_rule(
                domain.Unit(row["interest_unit"]), domain.DayCount(row["day_count"])
            ),
            interest_factor=row["interest_factor"],
            interest_denominator=row["interest_denominator"],
            interest=days.get(row["interest_series"]),
            correction=days.get(row["correction_series"]),
            commission_rate_e4=row["commission_rate_e4"],
            commission_minimum_minor=row["commission_minimum_minor"],
            commission_maximum_minor=row["commission_maximum_minor"],
            commission_above_minor=row["commission_above_minor"],
            commission_above_rate_e4=row["commission_above_rate_e4"],
            late_payment_minor=row["late_payment_minor"],
            expenses_minor=row["expenses_minor"],
            fees_rate_e4=row["fees_rate_e4"],
            grace_days=row["grace_days"],
        )
    return found


def series_tables(tx: db.Transaction, agency: uuid.UUID, codes: Collection[str]) -> dict[str, series.Table]:
    """The days of series that have values."""
    found = tx.execute(_SERIES, {"agency": agency, "codes": sorted(codes)})
    return {
        row.code: series.Table(
            row.code,
            series.Kind(row.kind),
            row.denominator,
            row.first_day,
            row.last_day,
            tuple(
                series.Row(day, int(cumulative), int(per_day))
                for day, cumulative, per_day in zip(row.days, row.cumulative, row.per_day, strict=True)
            ),
        )
        for row in found
    }


def lock_series(tx: db.Transaction, agency: uuid.UUID, definition: series.Definition) -> None:
    """One import of a series at a time; the series is there afterwards."""
    params = {"agency": agency, "code": definition.code, "kind": definition.kind.value}
    tx.execute(_LOCK_SERIES, {**params, "first_day": datetime.date(1970, 1, 1)})


def values(tx: db.Transaction, agency: uuid.UUID, code: str) -> list[Value]:
    """Values of a series as published, oldest first."""
    found = tx.execute(_VALUES, {"agency": agency, "code": code}).mappings()
    return [Value(**row) for row in found]


def put_values(
    tx: db.Transaction,
    agency: uuid.UUID,
    code: str,
    *,
    changed: Sequence[Value],
    days: series.Table,
    now: datetime.datetime,
) -> None:
    """Write values, keeping those that they replace, and the days of the whole series."""
    scope = {"agency": agency, "code": code}
    periods = [one.period for one in changed]
    tx.execute(_KEEP_REPLACED, {**scope, "periods": periods, "now": now})
    tx.execute(
        _PUT_VALUES,
        {
            **scope,
            "periods": periods,
            "values": [one.value_e6 for one in changed],
            "sources": [one.source for one in changed],
            "now": now,
        },
    )
    tx.execute(_CLEAR_DAYS, scope)
    tx.execute(
        _PUT_DAYS,
        {
            **scope,
            "days": [row.first_day for row in days.rows],
            "cumulative": [row.cumulative for row in days.rows],
            "per_day": [row.per_day for row in days.rows],
        },
    )
    tx.execute(
        _PUT_SERIES,
        {
            **scope,
            "denominator": days.denominator,
            "first_day": days.first_day,
            "last_day": days.last_day,
        },
    )
