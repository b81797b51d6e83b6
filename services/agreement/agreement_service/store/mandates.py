"""Collecting in euro: creditors' accounts, SEPA mandates, direct debits, the files they are asked for in."""

import dataclasses
import datetime
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agreement_service.domain import sepa
from agreement_service.store import tables
from servicekit import acts, db

FILES = "collection_files"

tables.table(
    "euro_accounts",
    ["creditor_id"],
    tables.reference("creditor_id", "creditors", key=True),
    tables.business("holder_name", tables.TEXT),
    tables.business("iban", tables.TEXT),
    tables.business("bic", tables.TEXT),
    tables.business("scheme_identifier", tables.TEXT),
    tables.business("pre_notice_days", tables.INT),
    tables.business("multibanco_entity", tables.TEXT),
    tables.incidental("version", tables.BIG, "counts writes: how often somebody set it"),
)
tables.table(
    "mandates",
    ["creditor_id", "reference"],
    tables.incidental("id", tables.UUID, "UUID made by this service", key=True),
    tables.reference("creditor_id", "creditors"),
    tables.incidental("debtor_id", tables.UUID, "UUID made by the case service"),
    tables.reference("case_id", "case_accounts"),
    tables.business("reference", tables.TEXT),
    tables.business("signature_date", tables.DATE),
    tables.business("scheme", tables.TEXT),
    tables.business("one_off", tables.BOOL),
    tables.business("iban", tables.TEXT),
    tables.business("state", tables.TEXT),
    tables.business("reason_code", tables.TEXT),
    tables.business("last_collection_date", tables.DATE),
    tables.incidental("created_at", tables.INSTANT, "instant of the agency's clock when it was handled"),
    tables.incidental("version", tables.BIG, "counts writes"),
)
tables.table(
    FILES,
    ["creditor_id", "number"],
    tables.incidental("id", tables.UUID, "UUID made by this service", key=True),
    tables.reference("creditor_id", "creditors"),
    tables.business("number", tables.BIG),
    tables.business("due_through", tables.DATE),
    tables.business("create_date", tables.DATE),
    tables.business("transactions", tables.INT),
    tables.business("total_minor", tables.BIG),
    tables.business("state", tables.TEXT),
    tables.incidental("blob_id", tables.UUID, "UUID made by this service"),
    tables.incidental("sha256", tables.BYTES, "the content holds ids made by this service"),
    tables.incidental("created_at", tables.INSTANT, "instant of the agency's clock when it was handled"),
    tables.incidental("due_at", tables.INSTANT, "instant of the agency's clock when it was handled"),
    tables.incidental("act_key", tables.TEXT, "made from the row's id"),
    tables.incidental("act_worker", tables.UUID, "process that acted"),
)
tables.table(
    "direct_debits",
    ["instrument_id"],
    tables.reference("instrument_id", "instruments", key=True),
    tables.reference("mandate_id", "mandates"),
    tables.business("notice_date", tables.DATE),
    tables.business("state", tables.TEXT),
    tables.reference("file_id", FILES),
    tables.business("amount_minor", tables.BIG),
    tables.business("sequence", tables.TEXT),
    tables.business("collection_date", tables.DATE),
    tables.business("reason_code", tables.TEXT),
    tables.business("return_date", tables.DATE),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EuroAccount:
    """One row of euro_accounts; `version` 0 where there is none yet."""

    holder_name: str
    iban: str
    bic: str = ""
    scheme_identifier: str = ""
    pre_notice_days: int = sepa.PRE_NOTICE_DAYS
    multibanco_entity: str = ""
    version: int = 0


@dataclasses.dataclass(slots=True, kw_only=True)
class Mandate:
    """One row of mandates."""

    id: uuid.UUID
    creditor_id: uuid.UUID
    debtor_id: uuid.UUID
    case_id: uuid.UUID
    reference: str
    signature_date: datetime.date
    scheme: sepa.Scheme
    one_off: bool
    iban: str = dataclasses.field(repr=False)
    state: sepa.MandateState
    reason_code: str = ""
    last_collection_date: datetime.date | None = None
    created_at: datetime.datetime
    version: int = 1

    def state_on(self, date: datetime.date) -> sepa.MandateState:
        """Its state on a date: lapsed after 36 months idle."""
        return sepa.state_on(
            self.state,
            signature_date=self.signature_date,
            last_collection_date=self.last_collection_date,
            date=date,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DirectDebit:
    """One row of direct_debits with what its instrument says; `open_minor` is what is unpaid of its instalment."""

    instrument_id: uuid.UUID
    mandate_id: uuid.UUID
    instalment_id: uuid.UUID
    agreement_id: uuid.UUID
    case_id: uuid.UUID
    number: int
    end_to_end_id: str
    instrument_state: str
    due_date: datetime.date
    open_minor: int
    notice_date: datetime.date
    state: str
    file_id: uuid.UUID | None
    amount_minor: int
    sequence: str
    collection_date: datetime.date | None
    reason_code: str
    return_date: datetime.date | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a file asks of a direct debit."""

    instrument_id: uuid.UUID
    amount_minor: int
    sequence: sepa.Sequence
    collection_date: datetime.date


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One row of collection_files."""

    id: uuid.UUID
    creditor_id: uuid.UUID
    number: int
    due_through: datetime.date
    create_date: datetime.date
    transactions: int
    total_minor: int
    state: str
    blob_id: uuid.UUID | None
    sha256: bytes
    created_at: datetime.datetime


_ACCOUNT = tables.sql(
    "SELECT holder_name, iban, bic, scheme_identifier, pre_notice_days, multibanco_entity, version"
    " FROM euro_accounts WHERE agency = :agency AND creditor_id = :creditor_id"
)
_PUT_ACCOUNT = tables.sql(
    """
    INSERT INTO euro_accounts AS known (agency, creditor_id, holder_name, iban, bic, scheme_identifier,
        pre_notice_days, multibanco_entity)
    VALUES (CAST(:agency AS uuid), :creditor_id, :holder_name, :iban, :bic, :scheme_identifier, :pre_notice_days,
        :multibanco_entity)
    ON CONFLICT (agency, creditor_id) DO UPDATE SET holder_name = excluded.holder_name, iban = excluded.iban,
        bic = excluded.bic, scheme_identifier = excluded.scheme_identifier,
        pre_notice_days = excluded.pre_notice_days, multibanco_entity = excluded.multibanco_entity,
        version = known.version + 1
    WHERE known.version = :version
    """
)
_MANDATE = """mandates.id, mandates.creditor_id, mandates.debtor_id, mandates.case_id, mandates.reference,
    mandates.signature_date, mandates.scheme, mandates.one_off, mandates.iban, mandates.state, mandates.reason_code,
    mandates.last_collection_date, mandates.created_at, mandates.version"""
_ADD_MANDATE = tables.sql(
    """
    INSERT INTO mandates (agency, id, creditor_id, debtor_id, case_id, reference, signature_date, scheme, one_off,
        iban, state, created_at)
    VALUES (CAST(:agency AS uuid), :id, :creditor_id, :debtor_id, :case_id, :reference, :signature_date, :scheme,
        :one_off, :iban, 'ACTIVE', :created_at)
    ON CONFLICT DO NOTHING
    """
)
_BY_ID = (
    f"SELECT {_MANDATE} FROM mandates WHERE agency = :agency AND id = ANY(CAST(:ids AS uuid[])) ORDER BY id"  # noqa: S608
)
_GET = tables.sql(_BY_ID)
_LOCK = tables.sql(_BY_ID + " FOR UPDATE")
_PAGE = tables.sql(
    f"""
    SELECT {_MANDATE} FROM mandates
    WHERE agency = :agency AND (CAST(:creditor_id AS uuid) IS NULL OR (creditor_id = :creditor_id
            AND debtor_id = :debtor_id))
        AND (CAST(:after AS uuid) IS NULL OR id > :after)
    ORDER BY id LIMIT :limit
    """  # noqa: S608 -- column names of this module
)
_OF_DEBTORS = tables.sql(
    f"""
    SELECT account.case_id AS of_case_id, {_MANDATE}
    FROM case_accounts AS account
    JOIN mandates ON mandates.agency = account.agency AND mandates.creditor_id = account.creditor_id
        AND mandates.debtor_id = account.debtor_id AND mandates.state = 'ACTIVE'
    WHERE account.agency = :agency AND account.case_id = ANY(CAST(:ids AS uuid[]))
    """  # noqa: S608 -- column names of this module
)
_CURRENT = tables.sql(
    f"SELECT {_MANDATE} FROM mandates WHERE agency = :agency AND creditor_id = :creditor_id"  # noqa: S608
    " AND debtor_id = :debtor_id AND state IN ('ACTIVE', 'SUSPENDED') FOR UPDATE"
)
_WRITE = tables.sql(
    """
    UPDATE mandates SET state = :state, reason_code = :reason_code, last_collection_date = :last_collection_date,
        version = version + 1
    WHERE agency = :agency AND id = :id
    """
)
_DEBIT = """
    SELECT debits.instrument_id, debits.mandate_id, instruments.instalment_id, instalments.agreement_id,
        agreements.case_id, instalments.number, instruments.txid AS end_to_end_id,
        instruments.state AS instrument_state, instruments.due_date,
        instalments.capital_minor + instalments.interest_minor - instalments.paid_interest_minor
            - instalments.paid_capital_minor AS open_minor,
        debits.notice_date, debits.state, debits.file_id, debits.amount_minor, debits.sequence,
        debits.collection_date, debits.reason_code, debits.return_date
    FROM direct_debits AS debits
    JOIN instruments ON instruments.agency = debits.agency AND instruments.id = debits.instrument_id
    JOIN instalments ON instalments.agency = instruments.agency AND instalments.id = instruments.instalment_id
    JOIN agreements ON agreements.agency = instalments.agency AND agreements.id = instalments.agreement_id
    WHERE debits.agency = :agency
"""
_DUE = tables.sql(
    f"""
    {_DEBIT} AND debits.state = 'DUE' AND instruments.state = 'REGISTERED' AND instruments.due_date <= :through
        AND debits.mandate_id IN (SELECT mandates.id FROM mandates WHERE mandates.agency = :agency
            AND mandates.creditor_id = :creditor_id AND mandates.state = 'ACTIVE')
    ORDER BY debits.mandate_id, instruments.due_date, instalments.number, debits.instrument_id LIMIT :limit
    """  # noqa: S608 -- text of this module
)
_OF_MANDATES = tables.sql(
    f"{_DEBIT} AND debits.mandate_id = ANY(CAST(:ids AS uuid[])) ORDER BY debits.instrument_id"
)
_OF_INSTALMENTS = tables.sql(
    f"{_DEBIT} AND instruments.instalment_id = ANY(CAST(:ids AS uuid[])) ORDER BY debits.instrument_id"
)
_OF_FILE = tables.sql(f"{_DEBIT} AND debits.file_id = :file_id ORDER BY debits.instrument_id")
_BY_KEY = tables.sql(f"{_DEBIT} AND instruments.txid = :key AND instruments.kind = 'SEPA_DD'")
_PAGE_DEBITS = tables.sql(
    f"""
    {_DEBIT} AND (CAST(:file_id AS uuid) IS NULL OR debits.file_id = :file_id)
        AND (CAST(:after AS uuid) IS NULL OR debits.instrument_id > :after)
    ORDER BY debits.instrument_id LIMIT :limit
    """
)
_ADD_DEBITS = tables.sql(
    """
    INSERT INTO direct_debits (agency, instrument_id, mandate_id, notice_date, state)
    SELECT CAST(:agency AS uuid), new.instrument_id, new.mandate_id, CAST(:notice_date AS date), 'DUE'
    FROM unnest(CAST(:instrument_ids AS uuid[]), CAST(:mandate_ids AS uuid[])) AS new (instrument_id, mandate_id)
    ORDER BY new.instrument_id
    """
)
_ASK = tables.sql(
    """
    UPDATE direct_debits SET state = 'ASKED', file_id = :file_id, amount_minor = new.amount, sequence = new.sequence,
        collection_date = new.collection_date
    FROM unnest(CAST(:instrument_ids AS uuid[]), CAST(:amounts AS bigint[]), CAST(:sequences AS text[]),
        CAST(:collection_dates AS date[])) AS new (instrument_id, amount, sequence, collection_date)
    WHERE direct_debits.agency = :agency AND direct_debits.instrument_id = new.instrument_id
        AND direct_debits.state = 'DUE'
    """
)
_RETURN = tables.sql(
    "UPDATE direct_debits SET state = 'RETURNED', reason_code = :reason_code, return_date = :return_date"
    " WHERE agency = :agency AND instrument_id = :instrument_id AND state = 'ASKED'"
)
_DROP = tables.sql(
    "UPDATE direct_debits SET state = 'DROPPED' WHERE agency = :agency AND mandate_id = :mandate_id"
    " AND state = 'DUE' RETURNING instrument_id"
)
_FILE = (
    "id, creditor_id, number, due_through, create_date, transactions, total_minor, state, blob_id, sha256,"
    " created_at"
)
_ADD_FILE = tables.sql(
    """
    INSERT INTO collection_files (agency, id, creditor_id, number, due_through, create_date, transactions, total_minor,
        state, created_at, due_at, act_key)
    VALUES (CAST(:agency AS uuid), :id, :creditor_id, :number, :due_through, :create_date, :transactions,
        :total_minor, 'DRAFT', :created_at, :created_at, :act_key)
    """
)
_GET_FILE = tables.sql(f"SELECT {_FILE} FROM collection_files WHERE agency = :agency AND id = :id")  # noqa: S608
_PAGE_FILES = tables.sql(
    f"""
    SELECT {_FILE} FROM collection_files
    WHERE agency = :agency AND (CAST(:creditor_id AS uuid) IS NULL OR creditor_id = :creditor_id)
        AND (CAST(:after AS uuid) IS NULL OR id > :after)
    ORDER BY id LIMIT :limit
    """  # noqa: S608 -- column names of this module
)
_READY = tables.sql(
    "UPDATE collection_files SET state = 'READY', blob_id = :blob_id, sha256 = :sha256, act_worker = NULL"
    " WHERE agency = :agency AND id = :id AND state = 'WRITING'"
)
_PAYMENT_OF = tables.sql(
    "SELECT id, means FROM payments WHERE agency = :agency AND instrument_id = :instrument_id"
    " AND state IN ('ALLOCATED', 'OVERPAID', 'REFUNDED') AND origin_payment_id IS NULL ORDER BY id LIMIT 1"
)


def euro_account(tx: db.Transaction, agency: uuid.UUID, creditor_id: uuid.UUID) -> EuroAccount | None:
    """Where a creditor's money in EUR goes, if it was set."""
    row = tx.execute(_ACCOUNT, {"agency": agency, "creditor_id": creditor_id}).mappings().first()
    return EuroAccount(**row) if row is not None else None


def put_euro_account(
    tx: db.Transaction, agency: uuid.UUID, creditor_id: uuid.UUID, account: EuroAccount
) -> bool:
    """Write it over that of `account.version` (0: none yet). False when it is of another version by now."""
    values = {"agency": agency, "creditor_id": creditor_id, **dataclasses.asdict(account)}
    return bool(tx.execute(_PUT_ACCOUNT, values).rowcount)


def add(tx: db.Transaction, agency: uuid.UUID, new: Mandate) -> bool:
    """Store a mandate; False where its reference is known with the creditor, or the debtor has one to collect on."""
    return bool(tx.execute(_ADD_MANDATE, {"agency": agency, **dataclasses.asdict(new)}).rowcount)


def get(
    tx: db.Transaction, agency: uuid.UUID, ids: Iterable[uuid.UUID], *, lock: bool = False
) -> dict[uuid.UUID, Mandate]:
    """Mandates by id; with `lock` locked in id order (their cases' accounts are locked before)."""
    found = tx.execute(_LOCK if lock else _GET, {"agency": agency, "ids": sorted(set(ids))}).mappings()
    return {row["id"]: _mandate(row) for row in found}


def page(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    party: tuple[uuid.UUID, uuid.UUID] | None,
    after: uuid.UUID | None,
    limit: int,
) -> list[Mandate]:
    """Mandates in id order, of a (creditor, debtor) or all."""
    creditor_id, debtor_id = party or (None, None)
    rows = tx.execute(
        _PAGE,
        {
            "agency": agency,
            "creditor_id": creditor_id,
            "debtor_id": debtor_id,
            "after": after,
            "limit": limit,
        },
    ).mappings()
    return [_mandate(row) for row in rows]


def active_of_cases(
    tx: db.Transaction, agency: uuid.UUID, case_ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, Mandate]:
    """The active mandate of each case's debtor with its creditor, where there is one."""
    rows = tx.execute(_OF_DEBTORS, {"agency": agency, "ids": sorted(set(case_ids))}).mappings()
    return {row["of_case_id"]: _mandate(row) for row in rows}


def current(
    tx: db.Transaction, agency: uuid.UUID, *, creditor_id: uuid.UUID, debtor_id: uuid.UUID
) -> Mandate | None:
    """The mandate of a debtor with a creditor that is active or suspended, locked."""
    row = (
        tx.execute(_CURRENT, {"agency": agency, "creditor_id": creditor_id, "debtor_id": debtor_id})
        .mappings()
        .first()
    )
    return _mandate(row) if row is not None else None


def write(tx: db.Transaction, agency: uuid.UUID, mandate: Mandate) -> None:
    """Write a locked mandate's state, reason and last collection."""
    tx.execute(
        _WRITE,
        {
            "agency": agency,
            "id": mandate.id,
            "state": mandate.state.value,
            "reason_code": mandate.reason_code,
            "last_collection_date": mandate.last_collection_date,
        },
    )
    mandate.version += 1


def add_debits(
    tx: db.Transaction,
    agency: uuid.UUID,
    mandate_of: Mapping[uuid.UUID, uuid.UUID],
    *,
    notice_date: datetime.date,
) -> None:
    """Direct debits of new instruments (by id) under their mandates, of which the debtor is told on `notice_date`."""
    if mandate_of:
        tx.execute(
            _ADD_DEBITS,
            {
                "agency": agency,
                "instrument_ids": list(mandate_of),
                "mandate_ids": list(mandate_of.values()),
                "notice_date": notice_date,
            },
        )


def due(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    creditor_id: uuid.UUID,
    through: datetime.date,
    limit: int,
) -> list[DirectDebit]:
    """Direct debits of a creditor that wait for a file and fall due up to a day, a mandate's together by due date."""
    return _debits(
        tx.execute(_DUE, {"agency": agency, "creditor_id": creditor_id, "through": through, "limit": limit})
    )


def of_mandates(tx: db.Transaction, agency: uuid.UUID, ids: Iterable[uuid.UUID]) -> list[DirectDebit]:
    """All direct debits of these mandates."""
    return _debits(tx.execute(_OF_MANDATES, {"agency": agency, "ids": sorted(set(ids))}))


def of_instalments(tx: db.Transaction, agency: uuid.UUID, ids: Iterable[uuid.UUID]) -> list[DirectDebit]:
    """All direct debits of these instalments, oldest first."""
    return _debits(tx.execute(_OF_INSTALMENTS, {"agency": agency, "ids": sorted(set(ids))}))


def of_file(tx: db.Transaction, agency: uuid.UUID, file_id: uuid.UUID) -> list[DirectDebit]:
    """What a file asks for."""
    return _debits(tx.execute(_OF_FILE, {"agency": agency, "file_id": file_id}))


def by_end_to_end_id(tx: db.Transaction, agency: uuid.UUID, key: str) -> DirectDebit | None:
    """The direct debit that the bank knows by this id."""
    found = _debits(tx.execute(_BY_KEY, {"agency": agency, "key": key}))
    return found[0] if found else None


def page_debits(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    file_id: uuid.UUID | None,
    after: uuid.UUID | None,
    limit: int,
) -> list[DirectDebit]:
    """Direct debits in order of their instruments."""
    return _debits(
        tx.execute(_PAGE_DEBITS, {"agency": agency, "file_id": file_id, "after": after, "limit": limit})
    )


def ask(tx: db.Transaction, agency: uuid.UUID, file_id: uuid.UUID, asked: Sequence[Asked]) -> int:
    """Put direct debits that wait into a file; how many were waiting."""
    found = tx.execute(
        _ASK,
        {
            "agency": agency,
            "file_id": file_id,
            "instrument_ids": [one.instrument_id for one in asked],
            "amounts": [one.amount_minor for one in asked],
            "sequences": [one.sequence.value for one in asked],
            "collection_dates": [one.collection_date for one in asked],
        },
    )
    return int(found.rowcount)


def come_back(
    tx: db.Transaction,
    agency: uuid.UUID,
    instrument_id: uuid.UUID,
    *,
    reason_code: str,
    return_date: datetime.date,
) -> bool:
    """A direct debit that was asked for came back; False where it is not one."""
    found = tx.execute(
        _RETURN,
        {
            "agency": agency,
            "instrument_id": instrument_id,
            "reason_code": reason_code,
            "return_date": return_date,
        },
    )
    return bool(found.rowcount)


def drop(tx: db.Transaction, agency: uuid.UUID, mandate_id: uuid.UUID) -> list[uuid.UUID]:
    """What waits under a mandate is collected no more; the instruments."""
    return list(tx.execute(_DROP, {"agency": agency, "mandate_id": mandate_id}).scalars())


def payment_of(
    tx: db.Transaction, agency: uuid.UUID, instrument_id: uuid.UUID
) -> tuple[uuid.UUID, str] | None:
    """The payment that was made with an instrument and holds, and its means."""
    row = tx.execute(_PAYMENT_OF, {"agency": agency, "instrument_id": instrument_id}).first()
    return (row.id, row.means) if row is not None else None


def add_file(tx: db.Transaction, agency: uuid.UUID, new: File) -> None:
    """Journal a file, as draft."""
    values = dataclasses.asdict(new)
    tx.execute(_ADD_FILE, {"agency": agency, **values, "act_key": new.id.hex})


def file(tx: db.Transaction, agency: uuid.UUID, file_id: uuid.UUID) -> File | None:
    """One file."""
    row = tx.execute(_GET_FILE, {"agency": agency, "id": file_id}).mappings().first()
    return _file(row) if row is not None else None


def page_files(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    creditor_id: uuid.UUID | None,
    after: uuid.UUID | None,
    limit: int,
) -> list[File]:
    """Files in id order."""
    rows = tx.execute(
        _PAGE_FILES, {"agency": agency, "creditor_id": creditor_id, "after": after, "limit": limit}
    ).mappings()
    return [_file(row) for row in rows]


def claim_files(tx: db.Transaction, agency: uuid.UUID, *, now: datetime.datetime, limit: int) -> list[File]:
    """Files to write: drafts, and those whose writing was begun and never finished (nothing left the house by it)."""
    left = acts.abandoned(tx, FILES, agency=agency, acting_state="WRITING", mine=True)
    fresh = acts.claim(
        tx, FILES, agency=agency, due_state="DRAFT", acting_state="WRITING", now=now, limit=limit
    )
    return [_file(row) for row in (*left, *fresh)]


def oldest_file_due(
    tx: db.Transaction, agency: uuid.UUID, *, now: datetime.datetime
) -> datetime.datetime | None:
    """Since when the oldest file is due that is not written."""
    return acts.oldest_due(tx, FILES, agency=agency, states=("DRAFT", "WRITING"), now=now)


def finish_file(
    tx: db.Transaction, agency: uuid.UUID, file_id: uuid.UUID, *, blob_id: uuid.UUID, sha256: bytes
) -> bool:
    """The content is kept; False where another worker was faster."""
    found = tx.execute(_READY, {"agency": agency, "id": file_id, "blob_id": blob_id, "sha256": sha256})
    return bool(found.rowcount)


def _mandate(row: Mapping[Any, Any]) -> Mandate:
    found = {field.name: row[field.name] for field in dataclasses.fields(Mandate)}
    return Mandate(
        **{**found, "scheme": sepa.Scheme(row["scheme"]), "state": sepa.MandateState(row["state"])}
    )


def _debits(result: Any) -> list[DirectDebit]:
    return [DirectDebit(**row) for row in result.mappings()]


def _file(row: Mapping[Any, Any]) -> File:
    names = [field.name for field in dataclasses.fields(File)]
    return File(**{**{name: row[name] for name in names}, "sha256": bytes(row["sha256"])})
