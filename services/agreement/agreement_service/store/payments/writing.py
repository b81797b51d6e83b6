"""Payments entered once, confirmed, written back; their money is posted by the same statements."""

import datetime
import uuid
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from agreement_service.domain import accounts
from agreement_service.store import tables
from agreement_service.store.payments.rows import Payment, Source, identities_of
from servicekit import db

_UNIQUE_VIOLATION = "23505"
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


def plan_anew(tx: db.Transaction) -> None:
    """Have the plans of this session made again, those of the foreign keys' checks included.

    A session keeps the plans that it made when tables were all but empty, and then scans a whole table to check each
    row of a bulk insert (run: 5,000 payments in the session that had placed the first title: 20 s of the server's
    processor; planned anew 1.3 s).
    """
    tx.execute(_PLAN_ANEW)


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
            **identities_of([one.identity for one in ordered]),
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
            **identities_of([one.identity for one in payments]),
            "value_dates": [one.value_date for one in payments],
            "amounts": [one.amount_minor for one in payments],
            "txids": [one.txid for one in payments],
            "our_numbers": [one.our_number for one in payments],
            "title_references": [one.title_reference for one in payments],
            "contract_references": [one.contract_reference for one in payments],
        },
    )


def confirm_as(tx: db.Transaction, agency: uuid.UUID, payment: Payment) -> bool:
    """`confirm` of one payment that may take another identity; False, and nothing written, where another one has it.

    A twin under way is waited for: it may be confirmed, or entered, by another transaction that nobody sees yet.
    """
    try:
        with tx.savepoint():
            confirm(tx, agency, [payment])
    except sa.exc.IntegrityError as error:
        if getattr(error.orig, "sqlstate", None) != _UNIQUE_VIOLATION:
            raise
        return False
    return True


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


def _chosen(payment: Payment) -> str:
    """Two array literals, which the statements take apart: there is no array of arrays of any length."""
    ids = ",".join(map(str, payment.chosen_title_ids))
    return f"{{{ids}}} {{{','.join(map(str, payment.chosen_minor))}}}"
