"""Placing a slice of a portfolio: staging, then one INSERT .. SELECT a table, sorted by its key.

Every look-up in a big table is a scalar or LIMITed lateral sub-query, so that the plan is an index probe a
row however large the table is and however old its statistics are (a join would let the planner read the
whole table in every slice). What was measured is in services/case/README.md, "Import".
"""

from __future__ import annotations

import dataclasses
import datetime
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from case_service.store import scoped
from servicekit import db

COLUMNS: Mapping[str, str] = {
    "line": "bigint",
    "creditor_reference": "text",
    "creditor_name": "text",
    "creditor_document": "text",
    "creditor_address": "text",
    "contract_reference": "text",
    "product": "text",
    "debtor_reference": "text",
    "debtor_document_type": "text",
    "debtor_document": "text",
    "debtor_name": "text",
    "birth_date": "date",
    "country": "text",
    "region": "text",
    "city": "text",
    "postal_code": "text",
    "address": "text",
    "phone_1": "text",
    "phone_2": "text",
    "email": "text",
    "guarantor_document_type": "text",
    "guarantor_document": "text",
    "guarantor_name": "text",
    "guarantor_phone": "text",
    "guarantor_email": "text",
    "title_reference": "text",
    "title_type": "text",
    "issue_date": "date",
    "due_date": "date",
    "principal_minor": "bigint",
    "currency": "text",
    "penalty_rate_e4": "bigint",
    "monthly_interest_rate_e4": "bigint",
}
"""Columns of the staging table, in the order of recupera.imports.v1.PortfolioRow (whose ``row`` is ``line``
here).
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """What became of the rows of a slice. ``rejects`` are (row, field) of titles that differ from what is
    placed, ``frozen`` are rows of cases whose batch is being taken back.
    """

    new: int
    unchanged: int
    rejects: Sequence[tuple[int, str]]
    frozen: Sequence[int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """How many titles were made, and how many cases were opened for them or opened again."""

    titles: int
    cases: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placed:
    """New titles of cases of one partition, as columns of equal length; ids as one string of 16 bytes each."""

    partition: int
    case_ids: bytes
    title_ids: bytes
    debtor_ids: bytes
    creditor_ids: bytes
    creditor_references: Sequence[str]
    contract_references: Sequence[str]
    currencies: Sequence[str]
    title_references: Sequence[str]
    principal_minor: Sequence[int]
    due_days: Sequence[int]
    penalty_rates_e4: Sequence[int | None]
    monthly_interest_rates_e4: Sequence[int | None]
    """None: the file gave no rate, which is not a rate of zero."""
    title_types: Sequence[str]
    products: Sequence[str]
    natural_persons: Sequence[bool]
    """Whether the debtor is a natural person."""


def stage(tx: db.Transaction, csv: bytes) -> None:
    """Load the rows (CSV without header, columns as ``COLUMNS``) into this connection's staging table."""
    for statement in _PREPARE:
        tx.execute(statement)
    tx.copy("staging", list(COLUMNS), csv)
    tx.execute(_ANALYZE_STAGING)


def place(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    batch_id: uuid.UUID,
    actor: str,
    now: datetime.datetime,
    business_date: datetime.date,
) -> Made:
    """Make what the staged rows name and this agency does not have yet.

    A title may be made a moment before by a slice of another partition (one contract, two debtors): then
    fewer are made than ``count(tx).new`` says, and the caller starts again.
    """
    params = {
        "agency": agency,
        "batch_id": batch_id,
        "now": now,
        "business_date": business_date,
        "actor": actor,
        "provenance": "PORTFOLIO",
    }
    for statement in _PEOPLE_AND_CONTRACTS:
        tx.execute(statement, params)
    tx.execute(_LOCK_CASES, params)
    cases = tx.execute(_CASES, params).scalar_one()
    titles = tx.execute(_TITLES, params).rowcount
    tx.execute(_GUARANTORS, params)
    return Made(titles=titles, cases=cases)


def count(tx: db.Transaction) -> Counts:
    """What became of the staged rows."""
    row = tx.execute(_COUNT).one()
    return Counts(
        new=row.new,
        unchanged=row.unchanged,
        rejects=[
            (line, field)
            for line, field in zip(row.changed_lines or (), row.changed_fields or (), strict=True)
        ],
        frozen=row.frozen_lines or (),
    )


def placed(tx: db.Transaction, agency: uuid.UUID) -> list[Placed]:
    """The titles just made, one item a partition of the topic, in partition order."""
    return [_placed(row) for row in tx.execute(_PLACED, {"agency": agency})]


def titles_of(
    tx: db.Transaction, agency: uuid.UUID, *, after: uuid.UUID | None, cases: int
) -> tuple[list[Placed], uuid.UUID | None]:
    """Titles of the next ``cases`` cases in id order, as placed, for republish; and the last of these ids
    (None: none left).
    """
    ids = tx.execute(_NEXT_CASES, {"agency": agency, "after": after, "cases": cases}).scalars().all()
    if not ids:
        return [], None
    rows = tx.execute(_REPUBLISH, {"agency": agency, "ids": ids})
    return [_placed(row) for row in rows], ids[-1]


def _placed(row: sa.Row[Any]) -> Placed:
    return Placed(
        partition=row.partition,
        case_ids=bytes(row.case_ids),
        title_ids=bytes(row.title_ids),
        debtor_ids=bytes(row.debtor_ids),
        creditor_ids=bytes(row.creditor_ids),
        creditor_references=row.creditor_references,
        contract_references=row.contract_references,
        currencies=row.currencies,
        title_references=row.title_references,
        principal_minor=row.principals,
        due_days=row.due_days,
        penalty_rates_e4=row.penalties,
        monthly_interest_rates_e4=row.interests,
        title_types=row.title_types,
        products=row.products,
        natural_persons=row.natural_persons,
    )


def slice_answer(
    tx: db.Transaction, agency: uuid.UUID, *, batch_id: uuid.UUID, slice_: int
) -> sa.Row[Any] | None:
    """What was answered for this slice before: applied, unchanged, rejects. None when it is new."""
    return tx.execute(_SLICE, {"agency": agency, "batch_id": batch_id, "slice": slice_}).one_or_none()


def keep_slice_answer(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    batch_id: uuid.UUID,
    slice_: int,
    applied: int,
    unchanged: int,
    rejects: Sequence[Mapping[str, Any]],
    business_date: datetime.date,
) -> None:
    """Remember what is answered for a slice, so that the slice sent again gets the same answer."""
    tx.execute(
        _KEEP_SLICE,
        {
            "agency": agency,
            "batch_id": batch_id,
            "slice": slice_,
            "applied": applied,
            "unchanged": unchanged,
            "rejects": rejects,
            "business_date": business_date,
        },
    )


_STAGING = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
_PREPARE = [
    scoped.text("SET LOCAL client_min_messages = warning"),
    scoped.text("SET LOCAL work_mem = '32MB'"),
    scoped.text(
        f"CREATE TEMPORARY TABLE IF NOT EXISTS staging ({_STAGING}, creditor_id uuid, debtor_id uuid,"
        " guarantor_id uuid) ON COMMIT DELETE ROWS"
    ),
    scoped.text(
        """
        CREATE TEMPORARY TABLE IF NOT EXISTS staged_titles (
            line bigint, creditor_id uuid, debtor_id uuid, guarantor_id uuid, contract_id uuid, currency text,
            creditor_reference text, contract_reference text, title_reference text, title_type text,
            issue_date date, due_date date, principal_minor bigint, penalty_rate_e4 bigint,
            monthly_interest_rate_e4 bigint, title_id uuid DEFAULT uuidv7(), existing_case_id uuid, verdict text,
            field text, case_id uuid
        ) ON COMMIT DELETE ROWS
        """
    ),
    scoped.text("TRUNCATE staging, staged_titles"),
]
_ANALYZE_STAGING = scoped.text(
    "ANALYZE staging (creditor_reference, contract_reference, debtor_document, guarantor_document)"
)

_CREDITORS = """
    INSERT INTO creditors (agency, reference, display_name, document, address)
    SELECT DISTINCT ON (creditor_reference) :agency, creditor_reference, coalesce(creditor_name, ''),
           coalesce(creditor_document, ''), coalesce(creditor_address, '')
    FROM staging ORDER BY creditor_reference, line
    ON CONFLICT DO NOTHING
"""

# Whoever is known as a debtor is left alone; a guarantor who turns out to be a debtor gets the debtor's full data,
# whichever of the two came first.
_PEOPLE = """
    INSERT INTO people AS known (agency, document_type, document, display_name, birth_date, country, region, city,
                                 postal_code, address, debtor)
    SELECT :agency, document_type, document, display_name, birth_date, country, region, city, postal_code, address,
           debtor
    FROM (
        SELECT DISTINCT ON (document_type, document) *
        FROM (
            SELECT debtor_document_type AS document_type, debtor_document AS document,
                   coalesce(debtor_name, '') AS display_name, birth_date, coalesce(country, '') AS country,
                   coalesce(region, '') AS region, coalesce(city, '') AS city,
                   coalesce(postal_code, '') AS postal_code, coalesce(address, '') AS address, true AS debtor, line
            FROM staging
            UNION ALL
            SELECT guarantor_document_type, guarantor_document, coalesce(guarantor_name, ''), NULL,
                   CASE guarantor_document_type WHEN 'NIF' THEN 'PT' ELSE 'BR' END, '', '', '', '', false, line
            FROM staging WHERE guarantor_document IS NOT NULL
        ) AS named
        ORDER BY document_type, document, debtor DESC, line
    ) AS one
    WHERE coalesce(
        (SELECT present.debtor OR NOT one.debtor FROM people AS present
         WHERE present.agency = @agency AND present.document_type = one.document_type
           AND present.document = one.document), false) = false
    ORDER BY document_type, document
    ON CONFLICT (agency, document_type, document) DO UPDATE SET
        display_name = excluded.display_name, birth_date = excluded.birth_date, country = excluded.country,
        region = excluded.region, city = excluded.city, postal_code = excluded.postal_code,
        address = excluded.address, debtor = true
    WHERE excluded.debtor AND NOT known.debtor
"""

_IDS = """
    UPDATE staging SET
        creditor_id = (SELECT id FROM creditors WHERE agency = @agency AND reference = creditor_reference),
        debtor_id = (SELECT id FROM people WHERE agency = @agency AND document_type = debtor_document_type
                     AND document = debtor_document),
        guarantor_id = (SELECT id FROM people WHERE agency = @agency AND document_type = guarantor_document_type
                        AND document = guarantor_document)
"""

_CONTACT_POINTS = """
    INSERT INTO contact_points (agency, person_id, kind, value, position, provenance)
    SELECT DISTINCT ON (point.person_id, point.kind, point.value) :agency, point.person_id, point.kind, point.value,
           point.position, :provenance
    FROM staging CROSS JOIN LATERAL (
        VALUES (debtor_id, 'PHONE', phone_1, 1), (debtor_id, 'PHONE', phone_2, 2), (debtor_id, 'EMAIL', email, 1),
               (guarantor_id, 'PHONE', guarantor_phone, 1), (guarantor_id, 'EMAIL', guarantor_email, 1)
    ) AS point (person_id, kind, value, position)
    WHERE point.value IS NOT NULL AND point.person_id IS NOT NULL
    ORDER BY point.person_id, point.kind, point.value, point.position
    ON CONFLICT DO NOTHING
"""

_CONTRACTS = """
    INSERT INTO contracts (agency, creditor_id, reference, product)
    SELECT DISTINCT ON (creditor_id, contract_reference) :agency, creditor_id, contract_reference,
           coalesce(product, '')
    FROM staging ORDER BY creditor_id, contract_reference, line
    ON CONFLICT DO NOTHING
"""

# What is known of each row: the title under its natural key, and the case. A row is compared with the title that is
# placed, or with the first row of the slice that names it.
_PLACING = """
    INSERT INTO staged_titles (line, creditor_id, debtor_id, guarantor_id, contract_id, currency,
    creditor_reference,
                         contract_reference, title_reference, title_type, issue_date, due_date, principal_minor,
                         penalty_rate_e4, monthly_interest_rate_e4, existing_case_id, verdict, field)
    SELECT line, creditor_id, debtor_id, guarantor_id, contract_id, currency, creditor_reference,
           contract_reference, title_reference, title_type, issue_date, due_date, principal_minor,
           penalty_rate_e4, monthly_interest_rate_e4, existing_case_id,
           CASE WHEN field IS NOT NULL THEN 'CHANGED'
                WHEN present OR place > 1 THEN 'UNCHANGED'
                WHEN frozen THEN 'FROZEN'
                ELSE 'NEW' END,
           field
    FROM (
        SELECT *, CASE WHEN principal_minor <> as_principal THEN 'principal'
                       WHEN due_date <> as_due THEN 'due_date'
                       WHEN currency <> as_currency THEN 'currency'
                       WHEN debtor_id <> as_debtor THEN 'debtor_document' END AS field
        FROM (
            SELECT found.*, title.id IS NOT NULL AS present, debt.id AS existing_case_id,
                   coalesce(debt.frozen_by IS NOT NULL, false) AS frozen,
                   row_number() OVER same AS place,
                   coalesce(title.principal_minor, first_value(found.principal_minor) OVER same) AS as_principal,
                   coalesce(title.due_date, first_value(found.due_date) OVER same) AS as_due,
                   coalesce(title.currency, first_value(found.currency) OVER same) AS as_currency,
                   coalesce(title.debtor_id, first_value(found.debtor_id) OVER same) AS as_debtor
            FROM (
                SELECT *, (SELECT id FROM contracts WHERE agency = @agency AND creditor_id = staging.creditor_id
                           AND reference = contract_reference) AS contract_id
                FROM staging OFFSET 0
            ) AS found
            LEFT JOIN LATERAL (
                SELECT present.id, present.principal_minor, present.due_date, debt.currency, debt.debtor_id
                FROM titles AS present JOIN cases AS debt ON debt.agency = @agency AND debt.id = present.case_id
                WHERE present.agency = @agency AND present.contract_id = found.contract_id
                  AND present.title_reference = found.title_reference AND NOT present.withdrawn
                LIMIT 1
            ) AS title ON true
            LEFT JOIN LATERAL (
                SELECT id, frozen_by FROM cases
                WHERE agency = @agency AND debtor_id = found.debtor_id AND contract_id = found.contract_id
                  AND cases.currency = found.currency
                LIMIT 1
            ) AS debt ON true
            WINDOW same AS (PARTITION BY found.contract_id, found.title_reference ORDER BY found.line)
        ) AS compared
    ) AS judged
    ORDER BY debtor_id, contract_id, due_date
"""

# A cached plan would be the plan of the first, empty tables; the checks of foreign keys are better off with theirs:
# planned anew for every row they cost 17 microseconds instead of 5.
_PLAN_ANEW = "SET LOCAL plan_cache_mode = force_custom_plan"
_PLAN_ONCE = "SET LOCAL plan_cache_mode = auto"

_PEOPLE_AND_CONTRACTS = [
    scoped.text(statement)
    for statement in (
        _CREDITORS,
        _PLAN_ANEW,
        _PEOPLE,
        _IDS,
        _PLAN_ONCE,
        _CONTACT_POINTS,
        _CONTRACTS,
        _PLAN_ANEW,
        _PLACING,
        _PLAN_ONCE,
        "ANALYZE staged_titles (contract_id, debtor_id, currency, verdict)",
    )
]

_LOCK_CASES = scoped.text(
    """
    SELECT id FROM cases WHERE agency = @agency AND id = ANY (
        ARRAY(SELECT DISTINCT existing_case_id FROM staged_titles WHERE verdict = 'NEW' AND existing_case_id
        IS NOT NULL))
    ORDER BY id FOR NO KEY UPDATE
    """
)

# A case is validated when it is placed: RECEIVED -> READY in this transaction. A title for a case that is
# over opens it
# again (REPLACED). What is on the wire as natural key is the first 8 bytes of the hash, unsigned.
_CASES = scoped.text(
    """
    WITH wanted AS (
        SELECT contract_id, debtor_id, currency, any_value(creditor_id) AS creditor_id,
               any_value(creditor_reference) AS creditor_reference, any_value(contract_reference) AS
               contract_reference,
               sum(principal_minor)::bigint AS principal_minor, count(*)::integer AS titles, min(due_date) AS oldest
        FROM staged_titles WHERE verdict = 'NEW' GROUP BY debtor_id, contract_id, currency
    ), stored AS (
        INSERT INTO cases AS known (agency, contract_id, debtor_id, creditor_id, currency, natural_key, state,
                                    placed_principal_minor, open_principal_minor, open_titles, oldest_due_date,
                                    created_at, updated_at)
        SELECT :agency, contract_id, debtor_id, creditor_id, currency,
               substr(sha256(convert_to(creditor_reference || '|' || contract_reference || '|' || currency,
               'UTF8')), 1, 8)::bigint,
               'READY', principal_minor, principal_minor, titles, oldest, :now, :now
        FROM wanted ORDER BY debtor_id, contract_id, currency
        ON CONFLICT (agency, debtor_id, contract_id, currency) DO UPDATE SET
            state = CASE WHEN known.state IN ('RESOLVED_PAID', 'RESOLVED_SETTLED', 'RESOLVED_OTHER', 'RETURNED',
                                              'TIME_BARRED') THEN 'READY' ELSE known.state END,
            placed_principal_minor = known.placed_principal_minor + excluded.placed_principal_minor,
            open_principal_minor = known.open_principal_minor + excluded.open_principal_minor,
            open_titles = known.open_titles + excluded.open_titles,
            oldest_due_date = least(known.oldest_due_date, excluded.oldest_due_date),
            version = known.version + 1, updated_at = excluded.updated_at
        RETURNING id, debtor_id, contract_id, currency, old.state AS old_state, new.state AS new_state
    ), noted AS (
        INSERT INTO timeline (agency, case_id, at, business_date, actor, kind, code, subject_id)
        SELECT :agency, id, :now, :business_date, :actor, 'STATE_CHANGED', new_state, :batch_id
        FROM stored WHERE old_state IS DISTINCT FROM new_state ORDER BY id
    ), marked AS (
        UPDATE staged_titles SET case_id = stored.id FROM stored
        WHERE staged_titles.verdict = 'NEW' AND staged_titles.debtor_id = stored.debtor_id
          AND staged_titles.contract_id = stored.contract_id AND staged_titles.currency = stored.currency
    )
    SELECT count(*) FROM stored WHERE old_state IS DISTINCT FROM new_state
    """
)

_TITLES = scoped.text(
    """
    INSERT INTO titles (agency, id, case_id, contract_id, title_reference, title_type, issue_date, due_date,
                        principal_minor, open_principal_minor, penalty_rate_e4, monthly_interest_rate_e4, state,
                        batch_id)
    SELECT :agency, title_id, case_id, contract_id, title_reference, coalesce(title_type, 'OTHER'),
    issue_date, due_date,
           principal_minor, principal_minor, penalty_rate_e4, monthly_interest_rate_e4,
           'OPEN', :batch_id
    FROM staged_titles WHERE verdict = 'NEW' ORDER BY contract_id, title_reference
    ON CONFLICT DO NOTHING
    """
)

_GUARANTORS = scoped.text(
    """
    INSERT INTO case_guarantors (agency, case_id, person_id)
    SELECT DISTINCT :agency, case_id, guarantor_id FROM staged_titles
    WHERE verdict = 'NEW' AND guarantor_id IS NOT NULL AND guarantor_id <> debtor_id
    ORDER BY case_id, guarantor_id
    ON CONFLICT DO NOTHING
    """
)

_COUNT = scoped.text(
    """
    SELECT count(*) FILTER (WHERE verdict = 'NEW') AS new, count(*) FILTER (WHERE verdict = 'UNCHANGED') AS
    unchanged,
           array_agg(line ORDER BY line) FILTER (WHERE verdict = 'CHANGED') AS changed_lines,
           array_agg(field ORDER BY line) FILTER (WHERE verdict = 'CHANGED') AS changed_fields,
           array_agg(line ORDER BY line) FILTER (WHERE verdict = 'FROZEN') AS frozen_lines
    FROM staged_titles
    """
)

_AGGREGATED = """
    SELECT partition,
           string_agg(uuid_send(case_id), ''::bytea) AS case_ids, string_agg(uuid_send(title_id), ''::bytea)
           AS title_ids,
           string_agg(uuid_send(debtor_id), ''::bytea) AS debtor_ids,
           string_agg(uuid_send(creditor_id), ''::bytea) AS creditor_ids,
           array_agg(creditor_reference) AS creditor_references, array_agg(contract_reference) AS
           contract_references,
           array_agg(currency) AS currencies, array_agg(title_reference) AS title_references,
           array_agg(principal_minor) AS principals, array_agg(due_date - DATE '1970-01-01') AS due_days,
           array_agg(penalty_rate_e4) AS penalties, array_agg(monthly_interest_rate_e4) AS interests,
           array_agg(title_type) AS title_types, array_agg(product) AS products,
           array_agg(natural_person) AS natural_persons
    FROM ({rows}) AS row
    GROUP BY partition ORDER BY partition
"""
# CPF; of the Portuguese tax numbers those that begin with 1, 2, 3 or 45 are of natural persons.
_NATURAL = (
    "(debtor.document_type = 'CPF' OR debtor.document_type = 'NIF' AND debtor.document ~ '^([123]|45)')"
)
_PLACED = scoped.text(
    _AGGREGATED.format(
        rows=f"""
        SELECT (crc32(uuid_send(case_id)) % 24)::integer AS partition, case_id, title_id, debtor_id, creditor_id,
               creditor_reference, contract_reference, currency, title_reference, principal_minor, due_date,
               penalty_rate_e4, monthly_interest_rate_e4, coalesce(title_type, 'OTHER') AS title_type,
               (SELECT contracts.product FROM contracts
                WHERE contracts.agency = @agency AND contracts.id = staged_titles.contract_id) AS product,
               (SELECT {_NATURAL} FROM people AS debtor
                WHERE debtor.agency = @agency AND debtor.id = staged_titles.debtor_id) AS natural_person
        FROM staged_titles WHERE verdict = 'NEW' ORDER BY 1, case_id, due_date, title_id
        """  # noqa: S608  constants only
    )
)
_NEXT_CASES = scoped.text(
    """
    SELECT id FROM cases WHERE agency = @agency AND (CAST(:after AS uuid) IS NULL OR id > :after)
    ORDER BY id LIMIT :cases FOR NO KEY UPDATE
    """
)
_REPUBLISH = scoped.text(
    _AGGREGATED.format(
        rows=f"""
        SELECT debt.partition::integer AS partition, debt.id AS case_id, title.id AS title_id, debt.debtor_id,
               debt.creditor_id, creditor.reference AS creditor_reference, contract.reference AS contract_reference,
               debt.currency, title.title_reference, title.principal_minor, title.due_date, title.penalty_rate_e4,
               title.monthly_interest_rate_e4, title.title_type, contract.product,
               {_NATURAL} AS natural_person
        FROM cases AS debt
        JOIN people AS debtor ON debtor.agency = debt.agency AND debtor.id = debt.debtor_id
        JOIN titles AS title ON title.agency = debt.agency AND title.case_id = debt.id
        JOIN contracts AS contract ON contract.agency = debt.agency AND contract.id = debt.contract_id
        JOIN creditors AS creditor ON creditor.agency = debt.agency AND creditor.id = debt.creditor_id
        WHERE debt.agency = @agency AND debt.id = ANY (:ids) AND NOT title.withdrawn
          AND title.title_type <> 'NOVATION' -- made by the agreement service, which has them
        ORDER BY debt.partition, debt.id, title.due_date, title.id
        """  # noqa: S608  constants only
    )
)

_SLICE = scoped.text(
    "SELECT applied, unchanged, rejects FROM placed_slices"
    " WHERE agency = @agency AND batch_id = :batch_id AND slice = :slice"
)
_KEEP_SLICE = scoped.text(
    """
    INSERT INTO placed_slices (agency, batch_id, slice, applied, unchanged, rejects, business_date)
    VALUES (:agency, :batch_id, :slice, :applied, :unchanged, :rejects, :business_date)
    """
).bindparams(sa.bindparam("rejects", type_=sa.JSON))
