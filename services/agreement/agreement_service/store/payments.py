"""Payments: entered once, matched, loaded with what they did, written back; set-based."""

import dataclasses
import datetime
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from agreement_service.domain import accounts
from agreement_service.domain import payments as rules
from agreement_service.store import tables
from servicekit import db

_COLUMNS = """
    payments.id, payments.creditor_reference, payments.account, payments.means, payments.bank_reference,
    payments.value_date, payments.amount_minor, payments.currency, payments.txid, payments.our_number,
    payments.title_reference, payments.contract_reference, payments.state, payments.allocated_minor,
    payments.overpaid_minor, payments.case_id, payments.title_id, payments.instrument_id, payments.epoch,
    payments.reverse_date, payments.reverse_reason, payments.reverse_kind, payments.refunded_minor,
    payments.credited_minor, payments.by_hand, payments.origin_payment_id, payments.chosen_title_ids,
    payments.chosen_minor, payments.proof_blob_id, payments.proof_type, payments.created_at, payments.version
"""


@dataclasses.dataclass(slots=True, kw_only=True)
class Payment:
    """One row of payments.

    `by_hand`: somebody said that its references are wrong, it is matched by hand only. `chosen_*`: titles it pays
    first, with the most that each gets. `origin_payment_id`: it is a credit, made of what that payment had overpaid.
    """

    id: uuid.UUID
    creditor_reference: str
    account: str
    means: str
    bank_reference: str
    value_date: datetime.date
    amount_minor: int
    currency: str
    txid: str
    our_number: str
    title_reference: str
    contract_reference: str
    state: accounts.PaymentState
    allocated_minor: int = 0
    overpaid_minor: int = 0
    case_id: uuid.UUID | None = None
    title_id: uuid.UUID | None = None
    instrument_id: uuid.UUID | None = None
    epoch: int = 0
    reverse_date: datetime.date | None = None
    reverse_reason: str = ""
    reverse_kind: str = ""
    refunded_minor: int = 0
    credited_minor: int = 0
    by_hand: bool = False
    origin_payment_id: uuid.UUID | None = None
    chosen_title_ids: list[uuid.UUID] = dataclasses.field(default_factory=list)
    chosen_minor: list[int] = dataclasses.field(default_factory=list)
    proof_blob_id: uuid.UUID | None = None
    proof_type: str = ""
    created_at: datetime.datetime
    version: int = 1

    @property
    def identity(self) -> rules.Identity:
        """What identifies the credit."""
        return self.creditor_reference, self.account, self.means, self.bank_reference

    @property
    def key(self) -> accounts.PaymentKey:
        """Its place in the order of payments."""
        return accounts.PaymentKey(self.value_date, self.identity)

    @property
    def chosen(self) -> tuple[tuple[uuid.UUID, int], ...]:
        """The titles it pays first, and how much of each."""
        return tuple(zip(self.chosen_title_ids, self.chosen_minor, strict=True))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which payments a list shows (the tabs of S1-18); None and empty: all. Value dates, both inclusive."""

    states: Sequence[str] = ()
    reverse_kind: str | None = None
    case_id: uuid.UUID | None = None
    creditor_reference: str | None = None
    since: datetime.date | None = None
    until: datetime.date | None = None


EVERYTHING = Filter()


@dataclasses.dataclass(frozen=True, slots=True)
class Match:
    """What a payment pays."""

    case_id: uuid.UUID
    title_id: uuid.UUID | None
    instrument_id: uuid.UUID | None


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """Where a payment was reported: a row of a batch, or a caller."""

    payment_id: uuid.UUID
    batch_id: uuid.UUID | None = None
    row: int | None = None
    caller: str = ""


_GUARD = tables.sql(
    "SELECT pg_advisory_xact_lock(hashtextextended('unidentified payments ' || CAST(:agency AS text), 0))"
)
_GUARD_SHARED = tables.sql(
    "SELECT pg_advisory_xact_lock_shared(hashtextextended('unidentified payments ' || CAST(:agency AS text), 0))"
)
_PLAN_ANEW = tables.sql("DISCARD PLANS")
# Money that comes in is a posting at once; that of the unconfirmed when it is confirmed (_WRITE).
_INSERT = tables.sql(
    """
    WITH new AS MATERIALIZED (
        SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:creditor_references AS text[]), CAST(:accounts AS text[]),
            CAST(:means AS text[]), CAST(:bank_references AS text[]), CAST(:value_dates AS date[]),
            CAST(:amounts AS bigint[]), CAST(:currencies AS text[]), CAST(:txids AS text[]),
            CAST(:our_numbers AS text[]), CAST(:title_references AS text[]), CAST(:contract_references AS text[]),
            CAST(:states AS text[]), CAST(:case_ids AS uuid[]), CAST(:origins AS uuid[]),
            CAST(:proof_blob_ids AS uuid[]), CAST(:proof_types AS text[]), CAST(:chosen AS text[]))
            AS row (id, creditor_reference, account, means, bank_reference, value_date, amount, currency, txid,
                our_number, title_reference, contract_reference, state, case_id, origin, proof_blob_id, proof_type,
                chosen)
    ), entered AS (
        INSERT INTO payments (agency, id, creditor_reference, account, means, bank_reference, value_date, amount_minor,
            currency, txid, our_number, title_reference, contract_reference, state, case_id, origin_payment_id,
            proof_blob_id, proof_type, chosen_title_ids, chosen_minor, created_at)
        SELECT CAST(:agency AS uuid), id, creditor_reference, account, means, bank_reference, value_date, amount,
            currency, txid, our_number, title_reference, contract_reference, state, case_id, origin, proof_blob_id,
            proof_type, CAST(split_part(chosen, ' ', 1) AS uuid[]), CAST(split_part(chosen, ' ', 2) AS bigint[]),
            CAST(:now AS timestamptz)
        FROM new ORDER BY creditor_reference, account, means, bank_reference
        ON CONFLICT DO NOTHING RETURNING id, amount_minor, currency, value_date, state, origin_payment_id
    ), paid_in AS (
        INSERT INTO postings (agency, component, kind, amount_minor, currency, business_date, value_date, payment_id)
        SELECT CAST(:agency AS uuid), 'CASH', 'PAID_IN', amount_minor, currency, CAST(:business_date AS date),
            value_date, id
        FROM entered WHERE state = 'UNIDENTIFIED' AND origin_payment_id IS NULL ORDER BY id
    )
    SELECT id FROM entered
    """
)
_BY_IDENTITY = tables.sql(
    f"""
    SELECT payments.* FROM unnest(CAST(:creditor_references AS text[]), CAST(:accounts AS text[]),
        CAST(:means AS text[]), CAST(:bank_references AS text[]))
        AS wanted (creditor_reference, account, means, bank_reference)
    CROSS JOIN LATERAL (
        SELECT {_COLUMNS} FROM payments
        WHERE payments.agency = :agency AND payments.creditor_reference = wanted.creditor_reference
            AND payments.account = wanted.account AND payments.means = wanted.means
            AND payments.bank_reference = wanted.bank_reference OFFSET 0
    ) AS payments
    """  # noqa: S608 -- column names of this module
)
_SOURCES = tables.sql(
    """
    INSERT INTO payment_sources (agency, payment_id, kind, batch_id, row, caller)
    SELECT CAST(:agency AS uuid), new.payment_id, CASE WHEN new.batch_id IS NULL THEN 'RPC' ELSE 'FILE' END,
        new.batch_id, new.row, new.caller
    FROM unnest(CAST(:payment_ids AS uuid[]), CAST(:batch_ids AS uuid[]), CAST(:rows AS bigint[]),
        CAST(:callers AS text[])) AS new (payment_id, batch_id, row, caller)
    ORDER BY 2, 4, 5, 6
    ON CONFLICT DO NOTHING
    """
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
    SELECT {_COLUMNS} FROM payments
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
_BY_ID = f"SELECT {_COLUMNS} FROM payments WHERE agency = :agency AND id = ANY(CAST(:ids AS uuid[]))"  # noqa: S608
_GET = tables.sql(_BY_ID)
_LOCK = tables.sql(_BY_ID + " ORDER BY id FOR UPDATE")
_LATER = tables.sql(
    f"""
    SELECT {_COLUMNS} FROM payments JOIN case_accounts
        ON case_accounts.agency = payments.agency AND case_accounts.case_id = payments.case_id
            AND case_accounts.epoch = payments.epoch
    WHERE payments.agency = :agency AND payments.case_id = ANY(CAST(:case_ids AS uuid[]))
        AND payments.value_date >= :since AND payments.state IN ('ALLOCATED', 'OVERPAID', 'REFUNDED')
    """  # noqa: S608 -- column names of this module
)
_ENTRIES = tables.sql(
    """
    SELECT payment_id, case_id, title_id, instalment_id, component, kind, from_date, through_date, base_minor,
        numerator, denominator, rule, CAST(sum(amount_minor) AS bigint) AS amount_minor
    FROM postings WHERE agency = :agency AND payment_id = ANY(CAST(:ids AS uuid[])) AND component <> 'CASH'
    GROUP BY payment_id, case_id, title_id, instalment_id, component, kind, from_date, through_date, base_minor,
        numerator, denominator, rule
    HAVING sum(amount_minor) <> 0 ORDER BY max(id)
    """
)
# What changes of a payment's money is posted with it: confirmed or annulled, overpaid, credited, refunded, reversed.
_WRITE = tables.sql(
    """
    WITH changed AS (
        UPDATE payments SET state = new.state, allocated_minor = new.allocated, overpaid_minor = new.overpaid,
            refunded_minor = new.refunded, credited_minor = new.credited, case_id = new.case_id,
            title_id = new.title_id, instrument_id = new.instrument_id, epoch = new.epoch, by_hand = new.by_hand,
            chosen_title_ids = CAST(split_part(new.chosen, ' ', 1) AS uuid[]),
            chosen_minor = CAST(split_part(new.chosen, ' ', 2) AS bigint[]),
            reverse_date = new.reverse_date, reverse_reason = new.reverse_reason, reverse_kind = new.reverse_kind,
            version = new.version
        FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:allocated AS bigint[]),
            CAST(:overpaid AS bigint[]), CAST(:refunded AS bigint[]), CAST(:credited AS bigint[]),
            CAST(:case_ids AS uuid[]), CAST(:title_ids AS uuid[]), CAST(:instrument_ids AS uuid[]),
            CAST(:epochs AS int[]), CAST(:by_hand AS boolean[]), CAST(:chosen AS text[]),
            CAST(:reverse_dates AS date[]), CAST(:reverse_reasons AS text[]), CAST(:reverse_kinds AS text[]),
            CAST(:versions AS bigint[]))
            AS new (id, state, allocated, overpaid, refunded, credited, case_id, title_id, instrument_id, epoch,
                by_hand, chosen, reverse_date, reverse_reason, reverse_kind, version)
        WHERE payments.agency = :agency AND payments.id = new.id
        RETURNING WITH (OLD AS before, NEW AS after)
            after.id, coalesce(after.case_id, before.case_id) AS case_id, after.amount_minor AS amount,
            after.currency, after.value_date, after.origin_payment_id AS origin, before.state AS was, after.state,
            before.state NOT IN ('REPORTED', 'NEW_UNCONFIRMED', 'ANNULLED') AS had,
            after.state NOT IN ('REPORTED', 'NEW_UNCONFIRMED', 'ANNULLED') AS has,
            after.overpaid_minor + after.refunded_minor + after.credited_minor
                - before.overpaid_minor - before.refunded_minor - before.credited_minor AS overpaid,
            after.refunded_minor - before.refunded_minor AS refunded, after.refunded_minor AS given_back,
            after.credited_minor - before.credited_minor AS credited
    )
    INSERT INTO postings (agency, case_id, component, kind, amount_minor, currency, business_date, value_date,
        payment_id)
    SELECT CAST(:agency AS uuid), changed.case_id, 'CASH', entry.kind, entry.amount, changed.currency,
        CAST(:business_date AS date), changed.value_date, changed.id
    FROM changed CROSS JOIN LATERAL (VALUES
        (1, 'PAID_IN', CASE WHEN origin IS NULL THEN (has::int - had::int) * amount ELSE 0 END),
        (2, 'OVERPAID', overpaid), (3, 'CREDITED', credited), (4, 'REFUNDED', refunded),
        (5, 'REVERSED', CASE WHEN state = 'REVERSED' AND was <> 'REVERSED' THEN amount - given_back ELSE 0 END))
        AS entry (place, kind, amount)
    WHERE entry.amount <> 0 ORDER BY changed.id, entry.place
    """
)
_CONFIRM = tables.sql(
    """
    UPDATE payments SET creditor_reference = new.creditor_reference, account = new.account, means = new.means,
        bank_reference = new.bank_reference, value_date = new.value_date, amount_minor = new.amount,
        txid = new.txid, our_number = new.our_number, title_reference = new.title_reference,
        contract_reference = new.contract_reference
    FROM unnest(CAST(:ids AS uuid[]), CAST(:creditor_references AS text[]), CAST(:accounts AS text[]),
        CAST(:means AS text[]), CAST(:bank_references AS text[]), CAST(:value_dates AS date[]),
        CAST(:amounts AS bigint[]), CAST(:txids AS text[]), CAST(:our_numbers AS text[]),
        CAST(:title_references AS text[]), CAST(:contract_references AS text[]))
        AS new (id, creditor_reference, account, means, bank_reference, value_date, amount, txid, our_number,
            title_reference, contract_reference)
    WHERE payments.agency = :agency AND payments.id = new.id
        AND payments.state IN ('REPORTED', 'NEW_UNCONFIRMED', 'ANNULLED')
    """
)
_CLEAR = tables.sql(
    "DELETE FROM allocations WHERE agency = :agency AND payment_id = ANY(CAST(:ids AS uuid[]))"
)
_ALLOCATE = tables.sql(
    """
    INSERT INTO allocations (agency, payment_id, case_id, title_id, instalment_id, component, amount_minor)
    SELECT CAST(:agency AS uuid), new.* FROM unnest(CAST(:payment_ids AS uuid[]), CAST(:case_ids AS uuid[]),
        CAST(:title_ids AS uuid[]), CAST(:instalment_ids AS uuid[]), CAST(:components AS text[]),
        CAST(:amounts AS bigint[]))
        AS new (payment_id, case_id, title_id, instalment_id, component, amount)
    ORDER BY new.payment_id, new.title_id, new.instalment_id, new.component
    """
)
_CREDITOR = """(CAST(:creditor AS uuid) IS NULL OR payments.creditor_reference = (SELECT creditors.creditor_reference
    FROM creditors WHERE creditors.agency = payments.agency AND creditors.creditor_id = :creditor))"""
_PAGE = tables.sql(
    f"""
    SELECT {_COLUMNS} FROM payments
    WHERE agency = :agency AND {_CREDITOR} AND (CAST(:states AS text[]) IS NULL OR state = ANY(:states))
        AND (CAST(:reverse_kind AS text) IS NULL OR reverse_kind = :reverse_kind)
        AND (CAST(:case_id AS uuid) IS NULL OR case_id = :case_id)
        AND (CAST(:creditor_reference AS text) IS NULL OR creditor_reference = :creditor_reference)
        AND (CAST(:since AS date) IS NULL OR value_date >= :since)
        AND (CAST(:until AS date) IS NULL OR value_date <= :until)
        AND (CAST(:after AS uuid) IS NULL OR id > :after)
    ORDER BY id LIMIT :limit
    """  # noqa: S608 -- column names of this module
)
_GET_ONE = tables.sql(
    f"SELECT {_COLUMNS} FROM payments WHERE agency = :agency AND id = :id AND {_CREDITOR}"  # noqa: S608
)
_ALLOCATIONS = tables.sql(
    """
    SELECT payment_id, case_id, title_id, instalment_id, component, amount_minor FROM allocations
    WHERE agency = :agency AND payment_id = ANY(CAST(:ids AS uuid[]))
    ORDER BY payment_id, instalment_id, title_id, component
    """
)
_GET_SOURCES = tables.sql(
    """
    SELECT payment_id, kind, batch_id, row, caller FROM payment_sources
    WHERE agency = :agency AND payment_id = ANY(CAST(:ids AS uuid[]))
    ORDER BY payment_id, kind, batch_id, row, caller
    """
)


def plan_anew(tx: db.Transaction) -> None:
    """Have the plans of this session made again, those of the foreign keys' checks included.

    A session keeps the plans that it made when tables were all but empty, and then scans a whole table to check each
    row of a bulk insert (run: 5,000 payments in the session that had placed the first title: 20 s of the server's
    processor; planned anew 1.3 s).
    """
    tx.execute(_PLAN_ANEW)


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


def insert(
    tx: db.Transaction,
    agency: uuid.UUID,
    new: Sequence[Payment],
    *,
    now: datetime.datetime,
    business_date: datetime.date,
) -> set[uuid.UUID]:
    """Enter payments whose identity is not known yet; the ids that were. A twin under way is waited for."""
    ordered = sorted(new, key=lambda payment: payment.identity)
    found = tx.execute(
        _INSERT,
        {
            "agency": agency,
            "now": now,
            "business_date": business_date,
            "ids": [one.id for one in ordered],
            **_identities([one.identity for one in ordered]),
            "value_dates": [one.value_date for one in ordered],
            "amounts": [one.amount_minor for one in ordered],
            "currencies": [one.currency for one in ordered],
            "txids": [one.txid for one in ordered],
            "our_numbers": [one.our_number for one in ordered],
            "title_references": [one.title_reference for one in ordered],
            "contract_references": [one.contract_reference for one in ordered],
            "states": [one.state.value for one in ordered],
            "case_ids": [one.case_id for one in ordered],
            "origins": [one.origin_payment_id for one in ordered],
            "proof_blob_ids": [one.proof_blob_id for one in ordered],
            "proof_types": [one.proof_type for one in ordered],
            "chosen": [_chosen(one) for one in ordered],
        },
    )
    return set(found.scalars())


def confirm(tx: db.Transaction, agency: uuid.UUID, payments: Sequence[Payment]) -> None:
    """Take over what the bank says of payments that moved no money yet: identity, date, amount, references."""
    if not payments:
        return
    tx.execute(
        _CONFIRM,
        {
            "agency": agency,
            "ids": [one.id for one in payments],
            **_identities([one.identity for one in payments]),
            "value_dates": [one.value_date for one in payments],
            "amounts": [one.amount_minor for one in payments],
            "txids": [one.txid for one in payments],
            "our_numbers": [one.our_number for one in payments],
            "title_references": [one.title_reference for one in payments],
            "contract_references": [one.contract_reference for one in payments],
        },
    )


def by_identity(
    tx: db.Transaction, agency: uuid.UUID, identities: Iterable[rules.Identity]
) -> dict[rules.Identity, Payment]:
    """Payments by what identifies the credit."""
    wanted = sorted(set(identities))
    found = _payments(tx.execute(_BY_IDENTITY, {"agency": agency, **_identities(wanted)}).mappings())
    return {payment.identity: payment for payment in found}


def add_sources(tx: db.Transaction, agency: uuid.UUID, sources: Sequence[Source]) -> None:
    """Note where payments were reported; the same report again changes nothing."""
    if sources:
        tx.execute(
            _SOURCES,
            {
                "agency": agency,
                "payment_ids": [one.payment_id for one in sources],
                "batch_ids": [one.batch_id for one in sources],
                "rows": [one.row for one in sources],
                "callers": [one.caller for one in sources],
            },
        )


def get(
    tx: db.Transaction, agency: uuid.UUID, ids: Iterable[uuid.UUID], *, lock: bool = False
) -> dict[uuid.UUID, Payment]:
    """Payments by id."""
    rows = tx.execute(_LOCK if lock else _GET, {"agency": agency, "ids": sorted(set(ids))}).mappings()
    return {payment.id: payment for payment in _payments(rows)}


def find(
    tx: db.Transaction, agency: uuid.UUID, payment_id: uuid.UUID, *, creditor: uuid.UUID | None
) -> Payment | None:
    """One payment, of the creditor where one is given."""
    params = {"agency": agency, "id": payment_id, "creditor": creditor}
    return next(iter(_payments(tx.execute(_GET_ONE, params).mappings())), None)


def page(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    creditor: uuid.UUID | None = None,
    only: Filter = EVERYTHING,
    after: uuid.UUID | None,
    limit: int,
) -> list[Payment]:
    """Payments in id order."""
    params = {
        "agency": agency,
        "creditor": creditor,
        "states": list(only.states) or None,
        "reverse_kind": only.reverse_kind,
        "case_id": only.case_id,
        "creditor_reference": only.creditor_reference,
        "since": only.since,
        "until": only.until,
        "after": after,
        "limit": limit,
    }
    return _payments(tx.execute(_PAGE, params).mappings())


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
    return _payments(tx.execute(_LOCK_UNIDENTIFIED, params).mappings())


def later(
    tx: db.Transaction, agency: uuid.UUID, case_ids: Iterable[uuid.UUID], *, since: datetime.date
) -> list[Payment]:
    """Applied payments of these cases' present epochs with a value date of `since` or later."""
    params = {"agency": agency, "case_ids": sorted(set(case_ids)), "since": since}
    return _payments(tx.execute(_LATER, params).mappings())


def entries(
    tx: db.Transaction, agency: uuid.UUID, ids: Iterable[uuid.UUID]
) -> Mapping[uuid.UUID, list[accounts.Entry]]:
    """What these payments did, net of contra entries, in the order in which it was done."""
    grouped: dict[uuid.UUID, list[accounts.Entry]] = {}
    wanted = sorted(set(ids))
    if wanted:
        for row in tx.execute(_ENTRIES, {"agency": agency, "ids": wanted}).mappings():
            fields = dict(row)
            payment_id = fields.pop("payment_id")
            fields["component"] = accounts.Component(fields["component"])
            fields["kind"] = accounts.Kind(fields["kind"])
            grouped.setdefault(payment_id, []).append(accounts.Entry(**fields))
    return grouped


def write(
    tx: db.Transaction,
    agency: uuid.UUID,
    changed: Sequence[Payment],
    allocated: Mapping[uuid.UUID, Sequence[accounts.Entry]],
    *,
    business_date: datetime.date,
) -> None:
    """Write payments, post what changed of their money, and replace their allocations by `allocated`."""
    if not changed:
        return
    ordered = sorted(changed, key=lambda payment: payment.id)
    tx.execute(
        _WRITE,
        {
            "agency": agency,
            "business_date": business_date,
            "ids": [one.id for one in ordered],
            "states": [one.state.value for one in ordered],
            "allocated": [one.allocated_minor for one in ordered],
            "overpaid": [one.overpaid_minor for one in ordered],
            "refunded": [one.refunded_minor for one in ordered],
            "credited": [one.credited_minor for one in ordered],
            "by_hand": [one.by_hand for one in ordered],
            "chosen": [_chosen(one) for one in ordered],
            "reverse_kinds": [one.reverse_kind for one in ordered],
            "case_ids": [one.case_id for one in ordered],
            "title_ids": [one.title_id for one in ordered],
            "instrument_ids": [one.instrument_id for one in ordered],
            "epochs": [one.epoch for one in ordered],
            "reverse_dates": [one.reverse_date for one in ordered],
            "reverse_reasons": [one.reverse_reason for one in ordered],
            "versions": [one.version for one in ordered],
        },
    )
    tx.execute(_CLEAR, {"agency": agency, "ids": [one.id for one in ordered]})
    rows = [
        (one.id, entry)
        for one in ordered
        for entry in allocated.get(one.id, ())
        if entry.kind is accounts.Kind.RECEIVED
    ]
    if rows:
        tx.execute(
            _ALLOCATE,
            {
                "agency": agency,
                "payment_ids": [payment_id for payment_id, _ in rows],
                "case_ids": [entry.case_id for _, entry in rows],
                "title_ids": [entry.title_id for _, entry in rows],
                "instalment_ids": [entry.instalment_id for _, entry in rows],
                "components": [entry.component.value for _, entry in rows],
                "amounts": [entry.amount_minor for _, entry in rows],
            },
        )


def allocations(
    tx: db.Transaction, agency: uuid.UUID, ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, list[sa.RowMapping]]:
    """Allocations by payment."""
    return _grouped(tx.execute(_ALLOCATIONS, {"agency": agency, "ids": sorted(set(ids))}).mappings().all())


def sources(
    tx: db.Transaction, agency: uuid.UUID, ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, list[sa.RowMapping]]:
    """Sources by payment."""
    return _grouped(tx.execute(_GET_SOURCES, {"agency": agency, "ids": sorted(set(ids))}).mappings().all())


def _chosen(payment: Payment) -> str:
    """Two array literals, which the statements take apart: there is no array of arrays of any length."""
    ids = ",".join(map(str, payment.chosen_title_ids))
    return f"{{{ids}}} {{{','.join(map(str, payment.chosen_minor))}}}"


def _grouped(rows: Sequence[sa.RowMapping]) -> dict[uuid.UUID, list[sa.RowMapping]]:
    grouped: dict[uuid.UUID, list[sa.RowMapping]] = {}
    for row in rows:
        grouped.setdefault(row["payment_id"], []).append(row)
    return grouped


def _identities(identities: Sequence[rules.Identity]) -> dict[str, list[Any]]:
    names = ("creditor_references", "accounts", "means", "bank_references")
    return {name: [one[place] for one in identities] for place, name in enumerate(names)}


def _payments(rows: Iterable[sa.RowMapping]) -> list[Payment]:
    return [Payment(**{**row, "state": accounts.PaymentState(row["state"])}) for row in rows]
