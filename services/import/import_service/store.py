"""Tables and queries of import; agency is the first argument after the transaction (architecture.md §5).

`info` of each column says what it is to the fault test: business (its value is the outcome), incidental (with the
reason why two right runs may differ), or a reference to a row of this or another service.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from import_service import domain
from servicekit import acts, blobs, db, errors

METADATA = sa.MetaData()
_BUSINESS = {"kind": "business"}
_ARRIVAL = "its slices are applied in the order in which they arrive, so the last instant differs"


def _incidental(reason: str) -> dict[str, str]:
    return {"kind": "incidental", "reason": reason}


def _reference(to: str) -> dict[str, str]:
    return {"kind": "reference", "to": to}


_OWN_ID = _incidental("UUID made here; the row is found by its natural key")


def _agency() -> sa.Column[uuid.UUID]:
    return sa.Column("agency", sa.Uuid, primary_key=True, info=_BUSINESS)


def _batch_id() -> sa.Column[uuid.UUID]:
    return sa.Column("batch_id", sa.Uuid, primary_key=True, info=_reference("batches"))


_Time = sa.DateTime(timezone=True)

batches = sa.Table(
    "batches",
    METADATA,
    _agency(),
    sa.Column("id", sa.Uuid, primary_key=True, info=_OWN_ID),
    sa.Column("kind", sa.Text, info=_BUSINESS),
    sa.Column("sha256", sa.LargeBinary, info=_BUSINESS),
    sa.Column("sequence", sa.Integer, info=_BUSINESS),
    sa.Column("state", sa.Text, info=_BUSINESS),
    sa.Column("file_name", sa.Text, info=_BUSINESS),
    sa.Column("size_bytes", sa.BigInteger, info=_BUSINESS),
    sa.Column("blob_id", sa.Uuid, info=_OWN_ID),
    sa.Column("creditor", sa.Uuid, info=_reference("case.creditors")),
    sa.Column("expected_rows", sa.BigInteger, info=_BUSINESS),
    sa.Column("expected_total_minor", sa.BigInteger, info=_BUSINESS),
    sa.Column("encoding", sa.Text, info=_BUSINESS),
    sa.Column("delimiter", sa.Text, info=_BUSINESS),
    sa.Column("columns", sa.ARRAY(sa.Text), info=_BUSINESS),
    sa.Column("rows_read", sa.BigInteger, info=_BUSINESS),
    sa.Column("rows_good", sa.BigInteger, info=_BUSINESS),
    sa.Column("rows_rejected", sa.BigInteger, info=_BUSINESS),
    sa.Column("rows_applied", sa.BigInteger, info=_BUSINESS),
    sa.Column("rows_unchanged", sa.BigInteger, info=_BUSINESS),
    sa.Column("slices", sa.Integer, info=_BUSINESS),
    sa.Column("slices_applied", sa.Integer, info=_BUSINESS),
    sa.Column("refusal_code", sa.Text, info=_BUSINESS),
    sa.Column("refusal", sa.Text, info=_incidental("a sentence for people; refusal_code is what counts")),
    sa.Column("business_date", sa.Date, info=_BUSINESS),
    sa.Column("created_at", _Time, info=_incidental("instant of the upload")),
    sa.Column("applied_at", _Time, info=_incidental(_ARRIVAL)),
    sa.Column("version", sa.BigInteger, info=_incidental("counts changes, a reading begun again included")),
    info={"natural_key": ["kind", "sha256", "sequence"]},
)

slices = sa.Table(
    "slices",
    METADATA,
    _agency(),
    _batch_id(),
    sa.Column("number", sa.Integer, primary_key=True, info=_BUSINESS),
    sa.Column("partition", sa.SmallInteger, info=_BUSINESS),
    sa.Column("rows", sa.Integer, info=_BUSINESS),
    sa.Column("blob_id", sa.Uuid, info=_OWN_ID),
    sa.Column("state", sa.Text, info=_BUSINESS),
    sa.Column("applied", sa.Integer, info=_BUSINESS),
    sa.Column("unchanged", sa.Integer, info=_BUSINESS),
    sa.Column("refused", sa.Integer, info=_BUSINESS),
    info={"natural_key": ["batch_id", "number"]},
)

rejected_rows = sa.Table(
    "rejected_rows",
    METADATA,
    _agency(),
    _batch_id(),
    sa.Column("row_number", sa.BigInteger, primary_key=True, info=_BUSINESS),
    sa.Column("field", sa.Text, primary_key=True, info=_BUSINESS),
    sa.Column("code", sa.Text, primary_key=True, info=_BUSINESS),
    sa.Column("expected", sa.Text, info=_BUSINESS),
    sa.Column("stage", sa.Text, info=_BUSINESS),
    info={"natural_key": ["batch_id", "row_number", "field", "code"]},
)

reject_counts = sa.Table(
    "reject_counts",
    METADATA,
    _agency(),
    _batch_id(),
    sa.Column("code", sa.Text, primary_key=True, info=_BUSINESS),
    sa.Column("rows", sa.BigInteger, info=_BUSINESS),
    info={"natural_key": ["batch_id", "code"]},
)

batch_totals = sa.Table(
    "batch_totals",
    METADATA,
    _agency(),
    _batch_id(),
    sa.Column("currency", sa.Text, primary_key=True, info=_BUSINESS),
    sa.Column("read_minor", sa.BigInteger, info=_BUSINESS),
    sa.Column("good_minor", sa.BigInteger, info=_BUSINESS),
    sa.Column("refused_minor", sa.BigInteger, info=_BUSINESS),
    info={"natural_key": ["batch_id", "currency"]},
)

batch_work = sa.Table(
    "batch_work",
    METADATA,
    _agency(),
    sa.Column("id", sa.Uuid, primary_key=True, info=_reference("batches")),
    sa.Column("state", sa.Text, info=_BUSINESS),
    sa.Column("step", sa.Text, info=_BUSINESS),
    sa.Column("due_at", _Time, info=_incidental("instant from which it may be taken up")),
    sa.Column("act_key", sa.Text, info=_incidental("the batch's id")),
    sa.Column("act_worker", sa.Uuid, info=_incidental("process that works on it")),
    info={"natural_key": ["id"]},
)

READ_DUE, READING = "READ_DUE", "READING"
ROLLBACK_DUE, ROLLING_BACK = "ROLLBACK_DUE", "ROLLING_BACK"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A batch to be worked on, claimed by this process."""

    batch: domain.Batch
    step: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredSlice:
    """A slice of a batch."""

    number: int
    partition: int
    rows: int
    blob_id: uuid.UUID
    state: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class TotalsRow:
    """Sums of a batch in one currency, minor units; `refused`: of good rows that were refused when applied."""

    currency: str
    read_minor: int
    good_minor: int
    refused_minor: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchView:
    """A batch with its sums, and rows by reason of refusal."""

    batch: domain.Batch
    totals: Sequence[TotalsRow]
    rejects: Mapping[str, int]


# -- batches -------------------------------------------------------------------------------------------------


def insert_batch(tx: db.Transaction, agency: uuid.UUID, batch: domain.Batch) -> uuid.UUID | None:
    """Store a new batch; None, or the id of the live batch that has the same content and kind."""
    while True:
        done = tx.execute(
            _INSERT_BATCH,
            {
                "agency": agency,
                "id": batch.id,
                "kind": batch.kind.value,
                "sha256": batch.sha256,
                "state": batch.state.value,
                "file_name": batch.file_name,
                "size_bytes": batch.size_bytes,
                "blob_id": batch.blob_id,
                "creditor": batch.creditor,
                "expected_rows": batch.expected.rows,
                "expected_total": batch.expected.total_minor,
                "encoding": batch.encoding,
                "business_date": batch.business_date,
                "created_at": batch.created_at,
                "version": batch.version,
            },
        )
        if done.rowcount == 1:
            return None
        found = tx.execute(
            _LIVE_BATCH, {"agency": agency, "kind": batch.kind.value, "sha256": batch.sha256}
        ).scalar_one_or_none()
        if found is not None:
            return uuid.UUID(str(found))
        # the twin was refused between the two statements: its sequence number is taken, the next one is free


def lock_batch(tx: db.Transaction, agency: uuid.UUID, batch_id: uuid.UUID) -> domain.Batch | None:
    """The batch, locked until the transaction ends: everything about a batch is done under this lock."""
    row = tx.execute(_LOCK_BATCH, {"agency": agency, "id": batch_id}).mappings().one_or_none()
    return None if row is None else _batch(row)


def change_batch(
    tx: db.Transaction, agency: uuid.UUID, batch: domain.Batch, **values: object
) -> domain.Batch:
    """Write `values` (columns) over the batch as it was read and count its version up. Raises VersionMismatch."""
    done = tx.execute(
        sa.update(batches)
        .where(batches.c.agency == agency, batches.c.id == batch.id, batches.c.version == batch.version)
        .values(version=batch.version + 1, **values)
        .returning(batches)
    )
    row = done.mappings().one_or_none()
    if row is None:
        raise errors.VersionMismatch("the batch changed meanwhile", batch=batch.id)
    return _batch(row)


def batch(
    engine: sa.Engine, agency: uuid.UUID, batch_id: uuid.UUID, creditor: uuid.UUID | None
) -> BatchView | None:
    """One batch; of `creditor` only, when given."""
    rows = db.read(
        engine,
        agency=agency,
        statement=_VIEW_ONE,
        params={"agency": agency, "id": batch_id, "creditor": creditor},
    )
    return _view(rows[0]._mapping) if rows else None


def view(tx: db.Transaction, agency: uuid.UUID, batch_id: uuid.UUID) -> BatchView:
    """The batch as the transaction sees it; it exists."""
    return _view(tx.execute(_VIEW_ONE, {"agency": agency, "id": batch_id, "creditor": None}).mappings().one())


def list_batches(
    engine: sa.Engine,
    agency: uuid.UUID,
    *,
    creditor: uuid.UUID | None,
    kind: domain.Kind | None,
    before: uuid.UUID | None,
    limit: int,
) -> list[BatchView]:
    """Newest first, those made before `before`."""
    rows = db.read(
        engine,
        agency=agency,
        statement=_VIEW_LIST,
        params={"agency": agency, "creditor": creditor, "kind": kind, "before": before, "limit": limit},
    )
    return [_view(row._mapping) for row in rows]


def batch_ids(tx: db.Transaction, agency: uuid.UUID) -> list[uuid.UUID]:
    """Every batch of the agency, oldest first."""
    return list(
        tx.execute(sa.select(batches.c.id).where(batches.c.agency == agency).order_by(batches.c.id)).scalars()
    )


def answers(engine: sa.Engine) -> bool:
    """True when the database answers; raises when it does not."""
    return bool(db.read(engine, agency=None, statement=sa.select(sa.literal(1))))


# -- reading -------------------------------------------------------------------------------------------------


def add_work(
    tx: db.Transaction,
    agency: uuid.UUID,
    batch_id: uuid.UUID,
    *,
    state: str,
    step: str,
    due_at: datetime.datetime,
) -> None:
    """Let a worker take up the batch."""
    tx.execute(
        sa.insert(batch_work).values(
            agency=agency, id=batch_id, state=state, step=step, due_at=due_at, act_key=str(batch_id)
        )
    )


def claim_work(
    tx: db.Transaction, agency: uuid.UUID, *, due: str, acting: str, now: datetime.datetime
) -> list[Job]:
    """Take up at most one batch that is due: first what a dead worker, or this one in a failed tick, left over."""
    rows = list(acts.abandoned(tx, "batch_work", agency=agency, acting_state=acting, mine=True, limit=1))
    if rows:
        tx.execute(
            sa.update(batch_work)
            .where(batch_work.c.agency == agency, batch_work.c.id == rows[0]["id"])
            .values(act_worker=acts.worker_id())
        )
    else:
        rows = acts.claim(
            tx, "batch_work", agency=agency, due_state=due, acting_state=acting, now=now, limit=1
        )
    jobs = []
    for row in rows:
        found = lock_batch(tx, agency, row["id"])
        assert found is not None
        jobs.append(Job(batch=found, step=row["step"]))
    return jobs


def oldest_due(
    tx: db.Transaction, agency: uuid.UUID, *, act: str, now: datetime.datetime
) -> datetime.datetime | None:
    """Since when the oldest work of this kind is due. A file in hand no longer is; a batch is, until it is back."""
    states = (READ_DUE,) if act == READING else (ROLLBACK_DUE, ROLLING_BACK)
    return acts.oldest_due(tx, "batch_work", agency=agency, states=states, now=now)


def holds_work(tx: db.Transaction, agency: uuid.UUID, batch_id: uuid.UUID, *, acting: str) -> bool:
    """Whether this process still has the batch in hand; locks it if so."""
    return (
        tx.execute(
            _HOLDS_WORK, {"agency": agency, "id": batch_id, "state": acting, "worker": acts.worker_id()}
        ).first()
        is not None
    )


def set_step(tx: db.Transaction, agency: uuid.UUID, batch_id: uuid.UUID, step: str) -> None:
    """Where the work on the batch is."""
    tx.execute(
        sa.update(batch_work)
        .where(batch_work.c.agency == agency, batch_work.c.id == batch_id)
        .values(step=step)
    )


def end_work(tx: db.Transaction, agency: uuid.UUID, batch_id: uuid.UUID) -> None:
    """Nothing waits for the batch any more."""
    tx.execute(sa.delete(batch_work).where(batch_work.c.agency == agency, batch_work.c.id == batch_id))


def forget_reading(tx: db.Transaction, agency: uuid.UUID, batch_id: uuid.UUID) -> None:
    """Take away what an earlier reading of the file left: rejects, sums, slices with their blobs."""
    erase_slices(tx, agency, batch_id)
    for table in (slices, rejected_rows, reject_counts, batch_totals):
        tx.execute(sa.delete(table).where(table.c.agency == agency, table.c.batch_id == batch_id))


def erase_slices(tx: db.Transaction, agency: uuid.UUID, batch_id: uuid.UUID) -> None:
    """Erase the content of a batch's slices."""
    chosen = sa.select(slices.c.blob_id).where(slices.c.agency == agency, slices.c.batch_id == batch_id)
    for (blob_id,) in tx.execute(chosen.order_by(slices.c.number)).all():
        blobs.erase(tx, blob_id)


def add_rejects(
    tx: db.Transaction,
    agency: uuid.UUID,
    batch_id: uuid.UUID,
    rejects: Sequence[domain.Reject],
    *,
    stage: str,
) -> int:
    """Append reasons of refusal and count their rows by code; those that are known already are left out. Returns how
    many rows are refused that were not refused before."""
    if not rejects:
        return 0
    columns: dict[str, Any] = {
        "rows": [reject.row for reject in rejects],
        "fields": [reject.field for reject in rejects],
        "codes": [reject.code for reject in rejects],
        "expected": [reject.expected for reject in rejects],
    }
    known = set(
        tx.execute(
            _KNOWN_REJECTS, {"agency": agency, "batch": batch_id, "rows": sorted(set(columns["rows"]))}
        ).scalars()
    )
    done = tx.execute(_ADD_REJECTS, {"agency": agency, "batch": batch_id, "stage": stage, **columns})
    inserted = {(int(one.row_number), str(one.code)) for one in done}
    counts = collections.Counter(code for _, code in inserted)
    if counts:
        codes = sorted(counts)
        tx.execute(
            _COUNT_REJECTS,
            {"agency": agency, "batch": batch_id, "codes": codes, "rows": [counts[code] for code in codes]},
        )
    return len({row for row, _ in inserted} - known)


def add_totals(
    tx: db.Transaction, agency: uuid.UUID, batch_id: uuid.UUID, totals: Iterable[domain.Totals]
) -> None:
    """Add a block's sums to the batch's."""
    for one in sorted(totals, key=lambda total: total.currency):
        tx.execute(_ADD_TOTALS, {"agency": agency, "batch": batch_id, **dataclasses.asdict(one)})


def refuse_totals(
    tx: db.Transaction, agency: uuid.UUID, batch_id: uuid.UUID, minor_by_currency: Mapping[str, int]
) -> None:
    """Note what rows refused at applying amount to."""
    for currency in sorted(minor_by_currency):
        tx.execute(
            sa.update(batch_totals)
            .where(
                batch_totals.c.agency == agency,
                batch_totals.c.batch_id == batch_id,
                batch_totals.c.currency == currency,
            )
            .values(refused_minor=batch_totals.c.refused_minor + minor_by_currency[currency])
        )


def totals_of(tx: db.Transaction, agency: uuid.UUID, batch_id: uuid.UUID) -> list[TotalsRow]:
    """The batch's sums by currency."""
    rows = tx.execute(
        sa.select(batch_totals)
        .where(batch_totals.c.agency == agency, batch_totals.c.batch_id == batch_id)
        .order_by(batch_totals.c.currency)
    ).mappings()
    return [_totals(row) for row in rows]


def add_slice(
    tx: db.Transaction,
    agency: uuid.UUID,
    batch_id: uuid.UUID,
    *,
    number: int,
    partition: int,
    rows: int,
    arrow: bytes,
    retention_days: int,
    now: datetime.datetime,
) -> None:
    """Store a slice and its content."""
    blob = blobs.create(
        tx, agency=agency, kind="slice", retention_days=retention_days, chunks=(arrow,), now=now
    )
    tx.execute(
        sa.insert(slices).values(
            agency=agency, batch_id=batch_id, number=number, partition=partition, rows=rows, blob_id=blob.id
        )
    )


def slices_of(tx: db.Transaction, agency: uuid.UUID, batch_id: uuid.UUID) -> list[StoredSlice]:
    """All slices of a batch, by number."""
    rows = tx.execute(
        sa.select(slices)
        .where(slices.c.agency == agency, slices.c.batch_id == batch_id)
        .order_by(slices.c.number)
    ).mappings()
    return [_slice(row) for row in rows]


def slice_of(tx: db.Transaction, agency: uuid.UUID, batch_id: uuid.UUID, number: int) -> StoredSlice | None:
    """One slice."""
    row = (
        tx.execute(
            sa.select(slices).where(
                slices.c.agency == agency, slices.c.batch_id == batch_id, slices.c.number == number
            )
        )
        .mappings()
        .one_or_none()
    )
    return None if row is None else _slice(row)


def slice_blob(engine: sa.Engine, agency: uuid.UUID, batch_id: uuid.UUID, number: int) -> uuid.UUID | None:
    """The id of a slice's content; one round trip."""
    rows = db.read(
        engine,
        agency=agency,
        statement=_SLICE_BLOB,
        params={"agency": agency, "batch": batch_id, "number": number},
    )
    return rows[0].blob_id if rows else None


def blob_in(tx: db.Transaction, blob_id: uuid.UUID) -> bytes:
    """The content of a small blob, in the transaction; empty when it was erased."""
    return b"".join(bytes(data) for (data,) in tx.execute(_BLOB_DATA, {"id": blob_id}))


def close_slice(
    tx: db.Transaction,
    agency: uuid.UUID,
    batch_id: uuid.UUID,
    number: int,
    *,
    applied: int,
    unchanged: int,
    refused: int,
) -> None:
    """A slice is applied, with these numbers of rows."""
    tx.execute(
        sa.update(slices)
        .where(slices.c.agency == agency, slices.c.batch_id == batch_id, slices.c.number == number)
        .values(state="APPLIED", applied=applied, unchanged=unchanged, refused=refused)
    )


# -- rejected rows -------------------------------------------------------------------------------------------


def rejects_page(
    engine: sa.Engine,
    agency: uuid.UUID,
    batch_id: uuid.UUID,
    *,
    after: tuple[int, str, str],
    limit: int,
) -> list[domain.Reject]:
    """Reasons of refusal after (row, field, code), in that order."""
    row, field, code = after
    rows = db.read(
        engine,
        agency=agency,
        statement=_REJECTS_PAGE,
        params={
            "agency": agency,
            "batch": batch_id,
            "row": row,
            "field": field,
            "code": code,
            "limit": limit,
        },
    )
    return [
        domain.Reject(row=one.row_number, field=one.field, code=one.code, expected=one.expected)
        for one in rows
    ]


# -- rows and domain -----------------------------------------------------------------------------------------


def _batch(row: sa.RowMapping) -> domain.Batch:
    return domain.Batch(
        id=row["id"],
        kind=domain.Kind(row["kind"]),
        state=domain.State(row["state"]),
        file_name=row["file_name"],
        size_bytes=row["size_bytes"],
        sha256=bytes(row["sha256"]),
        blob_id=row["blob_id"],
        creditor=row["creditor"],
        expected=domain.Expected(rows=row["expected_rows"], total_minor=row["expected_total_minor"]),
        rows_read=row["rows_read"],
        rows_good=row["rows_good"],
        rows_rejected=row["rows_rejected"],
        rows_applied=row["rows_applied"],
        rows_unchanged=row["rows_unchanged"],
        slices=row["slices"],
        slices_applied=row["slices_applied"],
        refusal_code=row["refusal_code"],
        refusal=row["refusal"],
        encoding=row["encoding"],
        delimiter=row["delimiter"],
        columns=tuple(row["columns"]),
        business_date=row["business_date"],
        created_at=row["created_at"],
        applied_at=row["applied_at"],
        version=row["version"],
    )


def _view(row: sa.RowMapping) -> BatchView:
    return BatchView(
        batch=_batch(row),
        totals=[TotalsRow(**one) for one in row["totals"]],
        rejects=row["rejects"],
    )


def _totals(row: sa.RowMapping) -> TotalsRow:
    return TotalsRow(
        currency=row["currency"],
        read_minor=row["read_minor"],
        good_minor=row["good_minor"],
        refused_minor=row["refused_minor"],
    )


def _slice(row: sa.RowMapping) -> StoredSlice:
    return StoredSlice(
        number=row["number"],
        partition=row["partition"],
        rows=row["rows"],
        blob_id=row["blob_id"],
        state=row["state"],
    )


# -- statements ----------------------------------------------------------------------------------------------

_INSERT_BATCH = sa.text(
    """
    INSERT INTO batches (agency, id, kind, sha256, sequence, state, file_name, size_bytes, blob_id, creditor,
        expected_rows, expected_total_minor, encoding, business_date, created_at, version)
    SELECT :agency, :id, :kind, :sha256, 1 + coalesce((
            SELECT max(sequence) FROM batches WHERE agency = :agency AND kind = :kind AND sha256 = :sha256), 0),
        :state, :file_name, :size_bytes, :blob_id, :creditor, :expected_rows, :expected_total, :encoding,
        :business_date, :created_at, :version
    ON CONFLICT DO NOTHING
    """
).bindparams(
    sa.bindparam("agency", type_=sa.Uuid),
    sa.bindparam("id", type_=sa.Uuid),
    sa.bindparam("blob_id", type_=sa.Uuid),
    sa.bindparam("creditor", type_=sa.Uuid),
    sa.bindparam("kind", type_=sa.Text),
    sa.bindparam("sha256", type_=sa.LargeBinary),
    sa.bindparam("expected_rows", type_=sa.BigInteger),
    sa.bindparam("expected_total", type_=sa.BigInteger),
    sa.bindparam("created_at", type_=_Time),
    sa.bindparam("business_date", type_=sa.Date),
)
_LIVE_BATCH = sa.select(batches.c.id).where(
    batches.c.agency == sa.bindparam("agency"),
    batches.c.kind == sa.bindparam("kind"),
    batches.c.sha256 == sa.bindparam("sha256"),
    batches.c.state.not_in(("REJECTED", "ROLLED_BACK")),
)
_LOCK_BATCH = (
    sa.select(batches)
    .where(batches.c.agency == sa.bindparam("agency"), batches.c.id == sa.bindparam("id"))
    .with_for_update()
)
_HOLDS_WORK = (
    sa.select(batch_work.c.id)
    .where(
        batch_work.c.agency == sa.bindparam("agency"),
        batch_work.c.id == sa.bindparam("id"),
        batch_work.c.state == sa.bindparam("state"),
        batch_work.c.act_worker == sa.bindparam("worker"),
    )
    .with_for_update()
)

_TOTALS_JSON = (
    sa.select(
        sa.func.coalesce(
            sa.func.jsonb_agg(
                postgresql.aggregate_order_by(
                    sa.func.jsonb_build_object(
                        "currency",
                        batch_totals.c.currency,
                        "read_minor",
                        batch_totals.c.read_minor,
                        "good_minor",
                        batch_totals.c.good_minor,
                        "refused_minor",
                        batch_totals.c.refused_minor,
                    ),
                    batch_totals.c.currency,
                )
            ),
            sa.text("'[]'::jsonb"),
            type_=postgresql.JSONB,
        )
    )
    .where(batch_totals.c.agency == batches.c.agency, batch_totals.c.batch_id == batches.c.id)
    .correlate(batches)
    .scalar_subquery()
)
_REJECTS_JSON = (
    sa.select(
        sa.func.coalesce(
            sa.func.jsonb_object_agg(reject_counts.c.code, reject_counts.c.rows),
            sa.text("'{}'::jsonb"),
            type_=postgresql.JSONB,
        )
    )
    .where(reject_counts.c.agency == batches.c.agency, reject_counts.c.batch_id == batches.c.id)
    .correlate(batches)
    .scalar_subquery()
)
_CREDITOR = sa.bindparam("creditor", type_=sa.Uuid)
_VIEW = sa.select(batches, _TOTALS_JSON.label("totals"), _REJECTS_JSON.label("rejects")).where(
    batches.c.agency == sa.bindparam("agency"), sa.or_(_CREDITOR.is_(None), batches.c.creditor == _CREDITOR)
)
_VIEW_ONE = _VIEW.where(batches.c.id == sa.bindparam("id"))
_KIND = sa.bindparam("kind", type_=sa.Text)
_BEFORE = sa.bindparam("before", type_=sa.Uuid)
_VIEW_LIST = (
    _VIEW.where(
        sa.or_(_KIND.is_(None), batches.c.kind == _KIND), sa.or_(_BEFORE.is_(None), batches.c.id < _BEFORE)
    )
    .order_by(batches.c.id.desc())
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_SLICE_BLOB = sa.select(slices.c.blob_id).where(
    slices.c.agency == sa.bindparam("agency"),
    slices.c.batch_id == sa.bindparam("batch"),
    slices.c.number == sa.bindparam("number"),
)
_BLOB_DATA = sa.text("SELECT data FROM blob_chunks WHERE blob_id = :id ORDER BY number")
_KNOWN_REJECTS = (
    sa.select(rejected_rows.c.row_number)
    .where(
        rejected_rows.c.agency == sa.bindparam("agency"),
        rejected_rows.c.batch_id == sa.bindparam("batch"),
        rejected_rows.c.row_number == sa.any_(sa.bindparam("rows", type_=sa.ARRAY(sa.BigInteger))),
    )
    .distinct()
)
_ADD_REJECTS = sa.text(
    """
    INSERT INTO rejected_rows (agency, batch_id, row_number, field, code, expected, stage)
    SELECT :agency, :batch, row_number, field, code, expected, :stage
    FROM unnest(:rows, :fields, :codes, :expected) AS given (row_number, field, code, expected)
    ORDER BY row_number, field, code
    ON CONFLICT DO NOTHING
    RETURNING row_number, code
    """
).bindparams(
    sa.bindparam("agency", type_=sa.Uuid),
    sa.bindparam("batch", type_=sa.Uuid),
    sa.bindparam("rows", type_=sa.ARRAY(sa.BigInteger)),
    sa.bindparam("fields", type_=sa.ARRAY(sa.Text)),
    sa.bindparam("codes", type_=sa.ARRAY(sa.Text)),
    sa.bindparam("expected", type_=sa.ARRAY(sa.Text)),
    sa.bindparam("stage", type_=sa.Text),
)
_COUNT_REJECTS = sa.text(
    """
    INSERT INTO reject_counts AS counted (agency, batch_id, code, rows)
    SELECT :agency, :batch, code, number FROM unnest(:codes, :rows) AS given (code, number) ORDER BY code
    ON CONFLICT (agency, batch_id, code) DO UPDATE SET rows = counted.rows + excluded.rows
    """
).bindparams(
    sa.bindparam("agency", type_=sa.Uuid),
    sa.bindparam("batch", type_=sa.Uuid),
    sa.bindparam("codes", type_=sa.ARRAY(sa.Text)),
    sa.bindparam("rows", type_=sa.ARRAY(sa.BigInteger)),
)
_ADD_TOTALS = sa.text(
    """
    INSERT INTO batch_totals AS stored (agency, batch_id, currency, read_minor, good_minor)
    VALUES (:agency, :batch, :currency, :read_minor, :good_minor)
    ON CONFLICT (agency, batch_id, currency) DO UPDATE
        SET read_minor = stored.read_minor + excluded.read_minor, good_minor = stored.good_minor + excluded.good_minor
    """
)
_REJECTS_PAGE = (
    sa.select(
        rejected_rows.c.row_number, rejected_rows.c.field, rejected_rows.c.code, rejected_rows.c.expected
    )
    .where(
        rejected_rows.c.agency == sa.bindparam("agency"),
        rejected_rows.c.batch_id == sa.bindparam("batch"),
        sa.tuple_(rejected_rows.c.row_number, rejected_rows.c.field, rejected_rows.c.code)
        > sa.tuple_(
            sa.bindparam("row", type_=sa.BigInteger),
            sa.bindparam("field", type_=sa.Text),
            sa.bindparam("code", type_=sa.Text),
        ),
    )
    .order_by(rejected_rows.c.row_number, rejected_rows.c.field, rejected_rows.c.code)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
