"""Titles after placement: set-based, one statement over all rows of a transaction's facts."""

import dataclasses
import datetime
import re
import uuid
from collections.abc import Sequence

import sqlalchemy as sa

from agreement_service.domain import accounts
from agreement_service.store import tables, terms
from servicekit import db


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contracts:
    """Columns of the contracts that titles point into by index, from 0."""

    creditor_ids: list[bytes] = dataclasses.field(default_factory=list)
    creditor_references: list[str] = dataclasses.field(default_factory=list)
    contract_references: list[str] = dataclasses.field(default_factory=list)
    currencies: list[str] = dataclasses.field(default_factory=list)
    products: list[str] = dataclasses.field(default_factory=list)
    consumers: list[bool] = dataclasses.field(default_factory=list)
    """Whether the debtor is a natural person."""
    penalty_caps: list[int | None] = dataclasses.field(default_factory=list)
    """The highest penalty rate that the law allows (R09), or None."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Titles:
    """Columns of placed titles; ids are 16 bytes, days since 1970-01-01, rates in percent times 10 000."""

    case_ids: list[bytes] = dataclasses.field(default_factory=list)
    title_ids: list[bytes] = dataclasses.field(default_factory=list)
    debtor_ids: list[bytes] = dataclasses.field(default_factory=list)
    references: list[str] = dataclasses.field(default_factory=list)
    principals: list[int] = dataclasses.field(default_factory=list)
    due_days: list[int] = dataclasses.field(default_factory=list)
    payable_days: list[int] = dataclasses.field(default_factory=list)
    contracts: list[int] = dataclasses.field(default_factory=list)
    penalty_rates: list[int] = dataclasses.field(default_factory=list)
    monthly_rates: list[int] = dataclasses.field(default_factory=list)
    own_penalties: list[bool] = dataclasses.field(default_factory=list)
    own_interests: list[bool] = dataclasses.field(default_factory=list)
    """False: no rate was given, the terms that stand for the title count."""
    types: list[str] = dataclasses.field(default_factory=list)
    batch_ids: list[bytes] = dataclasses.field(default_factory=list)
    """16 bytes, or none where a person placed the title."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A title as lists show it; amounts in minor units of `currency`."""

    id: uuid.UUID
    case_id: uuid.UUID
    reference: str
    state: accounts.TitleState
    due_date: datetime.date
    payable_until: datetime.date
    principal_minor: int
    open_principal_minor: int
    currency: str
    origin_agreement_id: uuid.UUID | None
    acquirer: str
    title_type: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which titles: due from and to these days (None: no bound), in one of these states as shown (none: any)."""

    due_from: datetime.date | None = None
    due_to: datetime.date | None = None
    states: frozenset[accounts.TitleState] = frozenset()


_RESOLVED = terms.RESOLVED.format(
    account="contract", due_date="date '1970-01-01' + placed.due_day", title_id="placed.id"
)
_BEARS_INTEREST = terms.BEARS_INTEREST.format(creditor_id="contract.creditor_id")
_PLACE = tables.sql(
    f"""
    WITH contract AS MATERIALIZED (
        SELECT * FROM unnest(CAST(:creditor_ids AS uuid[]), CAST(:creditor_references AS text[]),
            CAST(:contract_references AS text[]), CAST(:currencies AS text[]), CAST(:products AS text[]),
            CAST(:consumers AS boolean[]), CAST(:penalty_caps AS int[]))
            WITH ORDINALITY AS row (creditor_id, creditor_reference, contract_reference, currency, product, consumer,
                penalty_cap, place)
    ), placed AS MATERIALIZED (
        SELECT * FROM unnest(CAST(:case_ids AS uuid[]), CAST(:title_ids AS uuid[]), CAST(:debtor_ids AS uuid[]),
            CAST(:references AS text[]), CAST(:principals AS bigint[]), CAST(:due_days AS int[]),
            CAST(:payable_days AS int[]), CAST(:contracts AS int[]), CAST(:penalty_rates AS int[]),
            CAST(:monthly_rates AS int[]), CAST(:own_penalties AS boolean[]), CAST(:own_interests AS boolean[]),
            CAST(:types AS text[]), CAST(:batch_ids AS uuid[]))
            AS row (case_id, id, debtor_id, reference, principal, due_day, payable_day, contract,
                penalty_rate, monthly_rate, own_penalty, own_interest, title_type, batch_id)
    ), any_terms AS MATERIALIZED (
        SELECT EXISTS (SELECT 1 FROM charge_terms WHERE charge_terms.agency = :agency) AS stand
    ), new_creditors AS (
        INSERT INTO creditors (agency, creditor_id, creditor_reference)
        SELECT DISTINCT ON (creditor_id) CAST(:agency AS uuid), creditor_id, creditor_reference
        FROM contract ORDER BY creditor_id
        ON CONFLICT DO NOTHING
    ), new_accounts AS (
        INSERT INTO case_accounts (agency, case_id, creditor_id, debtor_id, contract_reference, currency, partition,
            product, consumer)
        SELECT DISTINCT ON (placed.case_id) CAST(:agency AS uuid), placed.case_id, contract.creditor_id,
            placed.debtor_id, contract.contract_reference, contract.currency,
            crc32(uuid_send(placed.case_id)) % CAST(:partitions AS int), contract.product, contract.consumer
        FROM placed JOIN contract ON contract.place = placed.contract + 1
        ORDER BY placed.case_id
        ON CONFLICT DO NOTHING
    ), new_titles AS (
        INSERT INTO titles (agency, case_id, id, reference, batch_id, due_date, payable_until, principal_minor,
            penalty_rate_e4, monthly_rate_e4, accrued_through, open_principal_minor, title_type, own_penalty,
            own_interest, terms_id, bears_interest)
        SELECT CAST(:agency AS uuid), placed.case_id, placed.id, placed.reference, placed.batch_id,
            date '1970-01-01' + placed.due_day, date '1970-01-01' + placed.payable_day, placed.principal,
            least(placed.penalty_rate, contract.penalty_cap), placed.monthly_rate, date '1970-01-01' + placed.due_day,
            placed.principal, placed.title_type, placed.own_penalty, placed.own_interest,
            CASE WHEN (SELECT stand FROM any_terms) THEN {_RESOLVED} END, contract.bears_interest
        FROM placed JOIN (SELECT contract.*, {_BEARS_INTEREST} AS bears_interest FROM contract) AS contract
            ON contract.place = placed.contract + 1
        ORDER BY placed.case_id, placed.id
        ON CONFLICT DO NOTHING RETURNING case_id, principal_minor
    ), new_postings AS (
        INSERT INTO postings (agency, case_id, component, kind, amount_minor, currency, business_date, value_date)
        SELECT CAST(:agency AS uuid), principals.case_id, 'PRINCIPAL', 'PLACED', principals.amount, account.currency,
            CAST(:business_date AS date), CAST(:business_date AS date)
        FROM (SELECT case_id, sum(principal_minor) AS amount FROM new_titles GROUP BY case_id) AS principals
            JOIN (SELECT placed.case_id, min(contract.currency) AS currency
                FROM placed JOIN contract ON contract.place = placed.contract + 1 GROUP BY placed.case_id) AS account
                ON account.case_id = principals.case_id
        ORDER BY principals.case_id
    )
    SELECT count(*) FROM new_titles
    """  # noqa: S608 -- text of this module
)
_REVIVE = tables.sql(
    """
    WITH back AS (
        UPDATE titles SET open_principal_minor = principal_minor, withdrawn_minor = 0, state = 'OPEN',
            version = version + 1
        FROM unnest(CAST(:case_ids AS uuid[]), CAST(:title_ids AS uuid[])) AS placed (case_id, title_id)
        WHERE titles.agency = :agency AND titles.case_id = placed.case_id AND titles.id = placed.title_id
            AND titles.withdrawn_minor = titles.principal_minor AND titles.received_minor = 0
            AND titles.charged_penalty_minor + titles.charged_interest_minor + titles.charged_correction_minor
                + titles.charged_costs_minor + titles.charged_fees_minor = 0
        RETURNING titles.case_id, titles.id, titles.principal_minor
    )
    INSERT INTO postings (agency, case_id, title_id, component, kind, amount_minor, currency, business_date, value_date)
    SELECT CAST(:agency AS uuid), back.case_id, back.id, 'PRINCIPAL', 'WITHDRAWN', -back.principal_minor,
        case_accounts.currency, CAST(:business_date AS date), CAST(:business_date AS date)
    FROM back JOIN case_accounts ON case_accounts.agency = :agency AND case_accounts.case_id = back.case_id
    """
)
_BATCH = tables.sql(
    """
    SELECT case_id, id, version, state, EXISTS (
        SELECT 1 FROM agreement_titles JOIN agreements
            ON agreements.agency = agreement_titles.agency AND agreements.id = agreement_titles.agreement_id
        WHERE agreement_titles.agency = titles.agency AND agreement_titles.title_id = titles.id
            AND agreements.state IN ('PROPOSED', 'AWAITING_SIGNATURE')
    ) AS proposed
    FROM titles WHERE agency = :agency AND batch_id = :batch_id ORDER BY case_id, id
    """
)
_LIST = """
    SELECT titles.id, titles.case_id, titles.reference, titles.state, titles.due_date, titles.payable_until,
        titles.principal_minor, titles.open_principal_minor, case_accounts.currency, titles.origin_agreement_id,
        titles.acquirer, titles.title_type
    FROM titles JOIN case_accounts ON case_accounts.agency = titles.agency AND case_accounts.case_id = titles.case_id
    WHERE titles.agency = :agency AND (CAST(:creditor AS uuid) IS NULL OR case_accounts.creditor_id = :creditor)
"""
# PAST_DUE is not stored: accounts.title_state_on
_FILTER = """
        AND (CAST(:due_from AS date) IS NULL OR titles.due_date >= CAST(:due_from AS date))
        AND (CAST(:due_to AS date) IS NULL OR titles.due_date <= CAST(:due_to AS date))
        AND (CAST(:states AS text[]) IS NULL OR CASE WHEN titles.state = 'OPEN'
            AND titles.payable_until < CAST(:business_date AS date) THEN 'PAST_DUE' ELSE titles.state END
            = ANY(CAST(:states AS text[])))
"""
_LIST_CASE = tables.sql(
    _LIST
    + _FILTER
    + """ AND titles.case_id = :case_id AND (CAST(:after_date AS date) IS NULL
            OR (titles.due_date, titles.id) > (:after_date, CAST(:after_id AS uuid)))
    ORDER BY titles.due_date, titles.id LIMIT :limit"""
)
_LIST_ALL = tables.sql(
    _LIST
    + _FILTER
    + """ AND (CAST(:after_case AS uuid) IS NULL
            OR (titles.case_id, titles.id) > (:after_case, CAST(:after_id AS uuid)))
    ORDER BY titles.case_id, titles.id LIMIT :limit"""
)
_LIST_IDS = tables.sql(
    _LIST + " AND titles.id = ANY(CAST(:ids AS uuid[])) ORDER BY titles.due_date, titles.reference, titles.id"
)
_PRESENT = tables.sql(
    """
    SELECT titles.case_id, titles.id, titles.version, titles.state, titles.payable_until, titles.open_principal_minor,
        titles.due_date
    FROM titles WHERE agency = :agency AND acquirer = '' AND (case_id, id) > (:after_case, :after_id)
    ORDER BY case_id, id LIMIT :limit
    """
)


def place(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    contracts: Contracts,
    titles: Titles,
    partitions: int,
    business_date: datetime.date,
) -> int:
    """Insert creditors, accounts and titles that are not there yet, and post their principal, a row for each case; how
    many titles were new."""
    params = {
        "agency": agency,
        "business_date": business_date,
        "partitions": partitions,
        "creditor_ids": _ids(contracts.creditor_ids),
        "creditor_references": _texts(contracts.creditor_references),
        "contract_references": _texts(contracts.contract_references),
        "currencies": _texts(contracts.currencies),
        "products": _texts(contracts.products),
        "consumers": contracts.consumers,
        "penalty_caps": contracts.penalty_caps,
        "case_ids": _ids(titles.case_ids),
        "title_ids": _ids(titles.title_ids),
        "debtor_ids": _ids(titles.debtor_ids),
        "references": _texts(titles.references),
        "principals": _numbers(titles.principals),
        "due_days": _numbers(titles.due_days),
        "payable_days": _numbers(titles.payable_days),
        "contracts": _numbers(titles.contracts),
        "penalty_rates": _numbers(titles.penalty_rates),
        "monthly_rates": _numbers(titles.monthly_rates),
        "own_penalties": _flags(titles.own_penalties),
        "own_interests": _flags(titles.own_interests),
        "types": _texts(titles.types),
        "batch_ids": "{" + ",".join([one.hex() or "NULL" for one in titles.batch_ids]) + "}",
    }
    return int(tx.execute(_PLACE, params).scalar_one())


def revive(tx: db.Transaction, agency: uuid.UUID, *, titles: Titles, business_date: datetime.date) -> int:
    """Titles that were taken back untouched and are placed again: the withdrawal is undone by a contra entry."""
    return tx.execute(
        _REVIVE,
        {
            "agency": agency,
            "case_ids": _ids(titles.case_ids),
            "title_ids": _ids(titles.title_ids),
            "business_date": business_date,
        },
    ).rowcount


def of_batch(
    tx: db.Transaction, agency: uuid.UUID, batch_id: uuid.UUID
) -> Sequence[sa.Row[tuple[object, ...]]]:
    """Titles that a batch brought: case_id, id, version, state, proposed (in a proposal that still holds)."""
    return tx.execute(_BATCH, {"agency": agency, "batch_id": batch_id}).all()


def page(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    creditor: uuid.UUID | None,
    case_id: uuid.UUID | None,
    after: tuple[object, object] | None,
    limit: int,
    wanted: Filter,
    business_date: datetime.date,
) -> list[Listed]:
    """Titles of a case by (due date, id), or of all by (case, id), as they are on the business date."""
    scope = {
        "agency": agency,
        "creditor": creditor,
        "limit": limit,
        "due_from": wanted.due_from,
        "due_to": wanted.due_to,
        "states": sorted(wanted.states) or None,
        "business_date": business_date,
    }
    if case_id is not None:
        date, title_id = after or (None, None)
        found = tx.execute(
            _LIST_CASE, {**scope, "case_id": case_id, "after_date": date, "after_id": title_id}
        )
    else:
        case, title_id = after or (None, None)
        found = tx.execute(_LIST_ALL, {**scope, "after_case": case, "after_id": title_id})
    return [Listed(**{**row, "state": accounts.TitleState(row["state"])}) for row in found.mappings()]


def listed(
    tx: db.Transaction, agency: uuid.UUID, ids: Sequence[uuid.UUID], *, creditor: uuid.UUID | None
) -> list[Listed]:
    """Titles by id, oldest due date first, of the creditor where one is given."""
    found = tx.execute(_LIST_IDS, {"agency": agency, "creditor": creditor, "ids": sorted(ids)})
    return [Listed(**{**row, "state": accounts.TitleState(row["state"])}) for row in found.mappings()]


def present(
    tx: db.Transaction, agency: uuid.UUID, *, after: tuple[uuid.UUID, uuid.UUID], limit: int
) -> Sequence[sa.RowMapping]:
    """Present state of titles in (case, id) order, for republish."""
    params = {"agency": agency, "after_case": after[0], "after_id": after[1], "limit": limit}
    return tx.execute(_PRESENT, params).mappings().all()


# Array literals: PostgreSQL reads one text of 10,000 values in a tenth of the time that the driver takes to bind them.


def _ids(values: Sequence[bytes]) -> str:
    text = b"".join(values).hex()
    return "{" + ",".join([text[at : at + 32] for at in range(0, len(text), 32)]) + "}"


def _numbers(values: Sequence[int]) -> str:
    return "{" + ",".join(map(str, values)) + "}"


def _flags(values: Sequence[bool]) -> str:
    return "{" + ",".join(["t" if value else "f" for value in values]) + "}"


def _texts(values: Sequence[str]) -> str:
    return "{" + ",".join(['"' + _ESCAPED.sub(r"\\\g<0>", value) + '"' for value in values]) + "}"


_ESCAPED = re.compile(r'["\\]')
