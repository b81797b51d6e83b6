"""What payments pay: found by what they say, and kept apart from titles that are just being placed."""

import uuid
from collections.abc import Sequence

from agreement_service.domain import payments as rules
from agreement_service.store import tables
from agreement_service.store.payments.rows import COLUMNS, Match, Payment, payments_of
from servicekit import db

_GUARD = tables.sql(
    "SELECT pg_advisory_xact_lock(hashtextextended('unidentified payments ' || CAST(:agency AS text), 0))"
)
_GUARD_SHARED = tables.sql(
    "SELECT pg_advisory_xact_lock_shared(hashtextextended('unidentified payments ' || CAST(:agency AS text), 0))"
)
# Every look-up is a LATERAL one behind OFFSET 0: an index probe for each row, whatever the statistics say of tables
# that were filled a moment ago.
_ACCOUNT_OF = """
    CROSS JOIN LATERAL (
        SELECT case_accounts.currency, case_accounts.contract_reference, case_accounts.creditor_id FROM case_accounts
        WHERE case_accounts.agency = :agency AND case_accounts.case_id = hit.case_id OFFSET 0
    ) AS account
"""
_CREDITOR_OF = """
    CROSS JOIN LATERAL (
        SELECT creditors.creditor_reference FROM creditors
        WHERE creditors.agency = :agency AND creditors.creditor_id = account.creditor_id OFFSET 0
    ) AS creditor
"""
_INSTRUMENT = """
    SELECT instruments.id AS instrument_id, instruments.case_id FROM instruments WHERE instruments.agency = :agency
"""
_MATCH = tables.sql(
    f"""
    WITH wanted AS MATERIALIZED (
        SELECT * FROM unnest(CAST(:creditor_references AS text[]), CAST(:currencies AS text[]),
            CAST(:txids AS text[]), CAST(:our_numbers AS text[]), CAST(:title_references AS text[]),
            CAST(:contract_references AS text[])) WITH ORDINALITY
            AS row (creditor_reference, currency, txid, our_number, title_reference, contract_reference, place)
    ), instrument AS MATERIALIZED (
        SELECT wanted.*, 1 AS rank, found.case_id, found.instrument_id FROM wanted CROSS JOIN LATERAL (
            {_INSTRUMENT} AND instruments.txid = wanted.txid AND instruments.txid <> '' OFFSET 0) AS found
        UNION ALL
        SELECT wanted.*, 2, found.case_id, found.instrument_id FROM wanted CROSS JOIN LATERAL (
            {_INSTRUMENT} AND ltrim(instruments.our_number, '0') = wanted.our_number AND instruments.our_number <> ''
            OFFSET 0
        ) AS found
        UNION ALL -- a Multibanco reference as banks report it, without its entity
        SELECT wanted.*, 2, found.case_id, found.instrument_id FROM wanted CROSS JOIN LATERAL (
            {_INSTRUMENT} AND instruments.kind = 'MULTIBANCO' AND wanted.our_number <> ''
            AND ltrim(right(instruments.our_number, 9), '0') = wanted.our_number OFFSET 0
        ) AS found
    ), found AS (
        SELECT hit.place, hit.rank, hit.case_id, CAST(NULL AS uuid) AS title_id, hit.instrument_id
        FROM instrument AS hit {_ACCOUNT_OF} {_CREDITOR_OF}
        WHERE account.currency = hit.currency AND creditor.creditor_reference = hit.creditor_reference
        UNION ALL
        SELECT wanted.place, 3, hit.case_id, hit.id, NULL
        FROM wanted CROSS JOIN LATERAL (
            SELECT titles.case_id, titles.id FROM titles
            WHERE titles.agency = :agency AND titles.reference = wanted.title_reference
                AND titles.state <> 'WITHDRAWN' OFFSET 0
        ) AS hit {_ACCOUNT_OF} {_CREDITOR_OF}
        WHERE wanted.title_reference <> '' AND account.currency = wanted.currency
            AND creditor.creditor_reference = wanted.creditor_reference
            AND (wanted.contract_reference = '' OR account.contract_reference = wanted.contract_reference)
        UNION ALL
        SELECT wanted.place, 4, account.case_id, NULL, NULL
        FROM wanted CROSS JOIN LATERAL (
            SELECT case_accounts.case_id, case_accounts.currency, case_accounts.creditor_id FROM case_accounts
            WHERE case_accounts.agency = :agency
                AND case_accounts.contract_reference = wanted.contract_reference OFFSET 0
        ) AS account {_CREDITOR_OF}
        WHERE wanted.contract_reference <> '' AND wanted.title_reference = ''
            AND account.currency = wanted.currency
            AND creditor.creditor_reference = wanted.creditor_reference
    ), best AS (
        SELECT found.*, min(rank) OVER (PARTITION BY place) AS least FROM found
    )
    SELECT place, (array_agg(case_id))[1] AS case_id, (array_agg(title_id))[1] AS title_id,
        (array_agg(instrument_id))[1] AS instrument_id
    FROM best WHERE rank = least GROUP BY place HAVING count(*) = 1 ORDER BY place
    """  # noqa: S608 -- text of this module
)
_LOCK_UNIDENTIFIED = tables.sql(
    f"""
    SELECT {COLUMNS} FROM payments
    WHERE agency = :agency AND state = 'UNIDENTIFIED' AND NOT by_hand
        AND creditor_reference = ANY(CAST(:creditors AS text[]))
        AND (title_reference = ANY(CAST(:titles AS text[]))
            OR (title_reference = '' AND contract_reference = ANY(CAST(:contracts AS text[]))))
    ORDER BY id FOR UPDATE
    """  # noqa: S608 -- column names of this module
)
_HAS_UNIDENTIFIED = tables.sql(
    "SELECT EXISTS (SELECT 1 FROM payments WHERE agency = :agency AND state = 'UNIDENTIFIED'"
    " AND creditor_reference = ANY(CAST(:creditors AS text[])))"
)


def guard_unidentified(tx: db.Transaction, agency: uuid.UUID, *, shared: bool) -> None:
    """Keep placements (shared) and payments that find nothing to pay (not shared) apart.

    Without it a payment that finds no title and a placement that finds no payment could pass each other unseen.
    Taken before any row is locked.
    """
    tx.execute(_GUARD_SHARED if shared else _GUARD, {"agency": str(agency)})


def match(
    tx: db.Transaction, agency: uuid.UUID, references: Sequence[rules.References]
) -> list[Match | None]:
    """What each pays: by txid, our number, title (with contract where given), contract; None where nothing or more
    than one thing is found. A payment that names a title waits for that title."""
    if not references:
        return []
    found = tx.execute(
        _MATCH,
        {
            "agency": agency,
            "creditor_references": [one.creditor_reference for one in references],
            "currencies": [one.currency for one in references],
            "txids": [one.txid for one in references],
            "our_numbers": [rules.plain_our_number(one.our_number) for one in references],
            "title_references": [one.title_reference for one in references],
            "contract_references": [one.contract_reference for one in references],
        },
    )
    matches: list[Match | None] = [None] * len(references)
    for row in found:
        matches[row.place - 1] = Match(row.case_id, row.title_id, row.instrument_id)
    return matches


def lock_unidentified(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    creditors: Sequence[str],
    titles: Sequence[str],
    contracts: Sequence[str],
) -> list[Payment]:
    """Unidentified payments that name one of these titles or contracts, locked."""
    scope = {"agency": agency, "creditors": list(creditors)}
    if not tx.execute(_HAS_UNIDENTIFIED, scope).scalar_one():
        return []
    params = {**scope, "titles": list(titles), "contracts": list(contracts)}
    return payments_of(tx.execute(_LOCK_UNIDENTIFIED, params).mappings())
