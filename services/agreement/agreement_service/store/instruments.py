"""Payment instruments: issued, acted on, closed."""

import dataclasses
import datetime
import uuid
from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from agreement_service.store import tables
from servicekit import acts, db

TABLE = "instruments"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """One row of instruments; `act_key` is the number by which the bank knows it."""

    id: uuid.UUID
    instalment_id: uuid.UUID
    kind: str
    generation: int
    state: str
    amount_minor: int
    due_date: datetime.date
    our_number: str = ""
    barcode: str = ""
    txid: str = ""
    br_code: str = ""
    due_at: datetime.datetime
    act_key: str


_NUMBERS = tables.sql(
    """
    INSERT INTO slip_numbers AS counter (agency, account, last_number) VALUES (:agency, :account, :count)
    ON CONFLICT (agency, account) DO UPDATE SET last_number = counter.last_number + excluded.last_number
    RETURNING last_number
    """
)
_INSERT = tables.sql(
    """
    INSERT INTO instruments (agency, id, instalment_id, kind, generation, state, amount_minor, due_date, our_number,
        barcode, txid, br_code, due_at, act_key)
    SELECT CAST(:agency AS uuid), new.* FROM unnest(CAST(:ids AS uuid[]), CAST(:instalment_ids AS uuid[]),
        CAST(:kinds AS text[]), CAST(:generations AS int[]), CAST(:states AS text[]), CAST(:amounts AS bigint[]),
        CAST(:due_dates AS date[]), CAST(:our_numbers AS text[]), CAST(:barcodes AS text[]), CAST(:txids AS text[]),
        CAST(:br_codes AS text[]), CAST(:due_ats AS timestamptz[]), CAST(:act_keys AS text[]))
        AS new (id, instalment_id, kind, generation, state, amount, due_date, our_number, barcode, txid, br_code,
            due_at, act_key)
    ORDER BY new.id
    """
)
_COLUMNS = (
    "id, instalment_id, kind, generation, state, amount_minor, due_date, our_number, barcode, txid, br_code, due_at,"
    " act_key"
)
_OF_INSTALMENTS = tables.sql(
    f"SELECT {_COLUMNS} FROM instruments WHERE agency = :agency AND instalment_id = ANY(CAST(:ids AS uuid[]))"  # noqa: S608
    " ORDER BY instalment_id, generation, kind"
)
_PAY = tables.sql(
    "UPDATE instruments SET state = 'PAID', version = version + 1"
    " WHERE agency = :agency AND id = ANY(CAST(:ids AS uuid[])) AND state <> 'PAID'"
)
_CLOSE = tables.sql(
    """
    UPDATE instruments SET state = CASE state WHEN 'DRAFT' THEN 'CANCELLED' ELSE 'CANCEL_REQUESTED' END,
        due_at = :now, version = version + 1
    WHERE agency = :agency AND instalment_id = ANY(CAST(:ids AS uuid[])) AND state IN ('DRAFT', 'REGISTERED')
    """
)
_OUTCOME = tables.sql(
    """
    UPDATE instruments SET act_worker = NULL, due_at = :now, version = version + 1, state = CASE
        WHEN CAST(:outcome AS text) = 'REGISTERED' AND EXISTS (
            SELECT 1 FROM instalments WHERE instalments.agency = instruments.agency
                AND instalments.id = instruments.instalment_id
                AND instalments.state IN ('PAID', 'PAID_LATE', 'DEFAULTED', 'CANCELLED'))
        THEN 'CANCEL_REQUESTED' ELSE CAST(:outcome AS text) END
    WHERE agency = :agency AND id = :id AND state = :acting
    """
)
_WAITING = tables.sql(
    "SELECT count(*) FROM instruments"
    " WHERE agency = :agency AND state IN ('DRAFT', 'REGISTERING', 'CANCEL_REQUESTED', 'CANCELLING')"
)


def numbers(tx: db.Transaction, agency: uuid.UUID, *, account: str, count: int) -> range:
    """The next `count` numbers of slips on an account (nosso número)."""
    last = int(tx.execute(_NUMBERS, {"agency": agency, "account": account, "count": count}).scalar_one())
    return range(last - count + 1, last + 1)


def add(tx: db.Transaction, agency: uuid.UUID, new: Sequence[Instrument]) -> None:
    """Store new instruments."""
    if new:
        columns = {
            "ids": [one.id for one in new],
            "instalment_ids": [one.instalment_id for one in new],
            "kinds": [one.kind for one in new],
            "generations": [one.generation for one in new],
            "states": [one.state for one in new],
            "amounts": [one.amount_minor for one in new],
            "due_dates": [one.due_date for one in new],
            "our_numbers": [one.our_number for one in new],
            "barcodes": [one.barcode for one in new],
            "txids": [one.txid for one in new],
            "br_codes": [one.br_code for one in new],
            "due_ats": [one.due_at for one in new],
            "act_keys": [one.act_key for one in new],
        }
        tx.execute(_INSERT, {"agency": agency, **columns})


def of_instalments(
    tx: db.Transaction, agency: uuid.UUID, ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, list[Instrument]]:
    """Instruments by instalment, oldest generation first."""
    grouped: dict[uuid.UUID, list[Instrument]] = {}
    for row in tx.execute(_OF_INSTALMENTS, {"agency": agency, "ids": sorted(set(ids))}).mappings():
        grouped.setdefault(row["instalment_id"], []).append(Instrument(**row))
    return grouped


def pay(tx: db.Transaction, agency: uuid.UUID, ids: Iterable[uuid.UUID]) -> None:
    """These were used."""
    tx.execute(_PAY, {"agency": agency, "ids": sorted(set(ids))})


def close(
    tx: db.Transaction, agency: uuid.UUID, instalment_ids: Iterable[uuid.UUID], *, now: datetime.datetime
) -> None:
    """Nothing is to be paid on these instalments any more: what is registered is to be cancelled at the bank.

    One that is being registered right now is closed when its outcome comes.
    """
    tx.execute(_CLOSE, {"agency": agency, "ids": sorted(set(instalment_ids)), "now": now})


def claim(
    tx: db.Transaction, agency: uuid.UUID, *, due: str, acting: str, now: datetime.datetime, limit: int
) -> list[Instrument]:
    """Take instruments whose act is due."""
    return _instruments(
        acts.claim(tx, TABLE, agency=agency, due_state=due, acting_state=acting, now=now, limit=limit)
    )


def abandoned(tx: db.Transaction, agency: uuid.UUID, *, acting: str) -> list[Instrument]:
    """Instruments whose act was begun by a worker that is gone, or by an earlier tick of this one that failed."""
    return _instruments(acts.abandoned(tx, TABLE, agency=agency, acting_state=acting, mine=True))


def outcome(
    tx: db.Transaction,
    agency: uuid.UUID,
    instrument_id: uuid.UUID,
    *,
    acting: str,
    outcome: str,
    now: datetime.datetime,
) -> None:
    """Write what came of an act; a registered one that is not needed any more is to be cancelled."""
    tx.execute(
        _OUTCOME, {"agency": agency, "id": instrument_id, "acting": acting, "outcome": outcome, "now": now}
    )


def waiting(tx: db.Transaction, agency: uuid.UUID) -> int:
    """Acts that are due or under way."""
    return int(tx.execute(_WAITING, {"agency": agency}).scalar_one())


def _instruments(rows: Sequence[sa.RowMapping]) -> list[Instrument]:
    names = [field.name for field in dataclasses.fields(Instrument)]
    return [Instrument(**{name: row[name] for name in names}) for row in rows]
