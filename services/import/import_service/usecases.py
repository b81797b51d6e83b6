"""What import does, one function each; a transaction comes in, nothing is committed here.

Everything about a batch happens under the lock of its row; every change of state is published as BatchChanged.
`clock` is the agency's clock as the transaction read it.
"""

from __future__ import annotations

import dataclasses
import datetime
import uuid
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

from google.protobuf import message as protobuf

from import_service import domain, store
from recupera.case.v1 import case_facts_pb2
from recupera.imports.v1 import imports_facts_pb2, imports_pb2
from servicekit import clock as clocks
from servicekit import dates, db, errors, ids, telemetry

if TYPE_CHECKING:
    from import_service.providers import reading  # it loads Polars, which `serve` does without

_rows = telemetry.counter(
    "recupera.import.rows",
    "{row}",
    "Rows of files, by what became of them: applied (good), or rejected",
    known={"kind": domain.Kind, "outcome": ("good", "rejected")},
)
_batches = telemetry.counter("recupera.import.batches", "{batch}", "Batches, by the state they came into")

State = domain.State
REVERSIBLE = (State.APPLIED, State.APPLIED_WITH_ERRORS)


class RowReject(Protocol):
    """RowReject of recupera.case.v1 and of recupera.agreement.v1."""

    row: int
    field: str
    code: str
    expected: str


class SliceUnknown(errors.ServiceError):
    """A fact about a slice that this service never made: it waits, parked, for a person."""

    status = errors.Status.NOT_FOUND


# -- upload --------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Upload:
    """A file whose bytes are stored. `encoding`: what files.Sniffer found; `creditor`: that the token is bound to."""

    kind: domain.Kind
    file_name: str
    blob_id: uuid.UUID
    size_bytes: int
    sha256: bytes
    encoding: str
    expected: domain.Expected
    creditor: uuid.UUID | None


def receive(
    tx: db.Transaction, agency: uuid.UUID, *, clock: clocks.AgencyClock, upload: Upload
) -> store.BatchView:
    """Make a batch of an uploaded file, RECEIVED, to be read by a worker.

    Raises DuplicateFile naming the live batch (metadata `batch`, a resource name) with the same bytes and kind; what
    was refused or taken back may come again.
    """
    now = clock.now()
    batch = domain.Batch(
        id=ids.new(),
        kind=upload.kind,
        state=State.RECEIVED,
        file_name=upload.file_name,
        size_bytes=upload.size_bytes,
        sha256=upload.sha256,
        blob_id=upload.blob_id,
        creditor=upload.creditor,
        expected=upload.expected,
        rows_read=0,
        rows_good=0,
        rows_rejected=0,
        rows_applied=0,
        rows_unchanged=0,
        slices=0,
        slices_applied=0,
        refusal_code="",
        refusal="",
        encoding=upload.encoding,
        delimiter="",
        columns=(),
        business_date=clock.business_date,
        created_at=now,
        applied_at=None,
        version=1,
    )
    twin = store.insert_batch(tx, agency, batch)
    if twin is not None:
        raise domain.DuplicateFile("this file was uploaded before", batch=f"agencies/{agency}/batches/{twin}")
    store.add_work(tx, agency, batch.id, state=store.READ_DUE, step="", due_at=now)
    _came_into(tx, agency, batch, clock)
    return store.BatchView(batch=batch, totals=(), rejects={})


# -- reading -------------------------------------------------------------------------------------------------


def claim_reading(tx: db.Transaction, agency: uuid.UUID, *, clock: clocks.AgencyClock) -> store.Job | None:
    """Take up a file to be read, if one waits: also one that a dead worker was reading."""
    jobs = store.claim_work(tx, agency, due=store.READ_DUE, acting=store.READING, now=clock.now())
    return jobs[0] if jobs else None


def start_reading(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    clock: clocks.AgencyClock,
    batch_id: uuid.UUID,
    dialect: domain.Dialect,
) -> None:
    """The file has the layout: PARSED. What an earlier reading that was killed left is taken away first."""
    batch = _held(tx, agency, batch_id)
    store.forget_reading(tx, agency, batch_id)
    changed = store.change_batch(
        tx,
        agency,
        batch,
        state=State.PARSED.value,
        delimiter=dialect.delimiter,
        columns=list(dialect.columns),
        rows_read=0,
        rows_good=0,
        rows_rejected=0,
        slices=0,
    )
    if batch.state is not State.PARSED:
        _came_into(tx, agency, changed, clock)


def add_part(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    clock: clocks.AgencyClock,
    batch_id: uuid.UUID,
    part: reading.Part,
    slice_retention_days: int,
) -> None:
    """Keep what a block of the file gave; GetBatch shows the rows read so far."""
    batch = _held(tx, agency, batch_id)
    store.add_rejects(tx, agency, batch_id, part.rejects, stage="READ")
    store.add_totals(tx, agency, batch_id, part.totals)
    for number, one in enumerate(part.slices, batch.slices):
        store.add_slice(
            tx,
            agency,
            batch_id,
            number=number,
            partition=one.partition,
            rows=one.rows,
            arrow=one.arrow,
            retention_days=slice_retention_days,
            now=clock.now(),
        )
    store.change_batch(
        tx,
        agency,
        batch,
        rows_read=batch.rows_read + part.rows_read,
        rows_good=batch.rows_good + part.rows_good,
        rows_rejected=batch.rows_rejected + part.rows_rejected,
        slices=batch.slices + len(part.slices),
    )


def finish_reading(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    clock: clocks.AgencyClock,
    batch_id: uuid.UUID,
    max_error_percent: Decimal,
) -> domain.State:
    """The whole file is read: VALIDATED, and at once AWAITING_APPROVAL where totals differ or too many rows are
    refused, else APPLYING with a SliceReady for every slice."""
    batch = _held(tx, agency, batch_id)
    store.end_work(tx, agency, batch_id)
    tx.count(_rows, batch.rows_rejected, kind=batch.kind.value, outcome="rejected")
    batch = _move(tx, agency, batch, State.VALIDATED, clock)
    found = domain.doubt(
        expected=batch.expected,
        rows_read=batch.rows_read,
        rows_rejected=batch.rows_rejected,
        read_total_minor=sum(one.read_minor for one in store.totals_of(tx, agency, batch_id)),
        max_error_percent=max_error_percent,
    )
    if found is not None:
        batch = _move(
            tx, agency, batch, State.AWAITING_APPROVAL, clock, refusal_code=found.code, refusal=found.sentence
        )
    else:
        batch = _apply(tx, agency, batch, clock)
    return batch.state


def refuse_file(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    clock: clocks.AgencyClock,
    batch_id: uuid.UUID,
    refused: domain.FileRefused,
) -> None:
    """The file as a whole is refused: REJECTED, and nothing of it is left but the file itself."""
    batch = _held(tx, agency, batch_id)
    store.end_work(tx, agency, batch_id)
    store.forget_reading(tx, agency, batch_id)
    _move(
        tx,
        agency,
        batch,
        State.REJECTED,
        clock,
        refusal_code=refused.code,
        refusal=refused.sentence,
        rows_read=0,
        rows_good=0,
        rows_rejected=0,
        slices=0,
    )


# -- what people decide --------------------------------------------------------------------------------------


def approve(
    tx: db.Transaction, agency: uuid.UUID, *, clock: clocks.AgencyClock, batch_id: uuid.UUID, etag: str
) -> store.BatchView:
    """Let a waiting batch go on with its good rows. Raises ResourceNotFound, VersionMismatch, BatchStateForbids."""
    batch = _found(tx, agency, batch_id, etag)
    _expect(batch, (State.AWAITING_APPROVAL,))
    _apply(tx, agency, batch, clock)
    return store.view(tx, agency, batch_id)


def reject(
    tx: db.Transaction, agency: uuid.UUID, *, clock: clocks.AgencyClock, batch_id: uuid.UUID, etag: str
) -> store.BatchView:
    """Refuse a waiting batch; `refusal_code` goes on saying why it waited. The same file may be uploaded again.

    Raises ResourceNotFound, VersionMismatch, BatchStateForbids.
    """
    batch = _found(tx, agency, batch_id, etag)
    _expect(batch, (State.AWAITING_APPROVAL,))
    store.erase_slices(tx, agency, batch_id)
    _move(tx, agency, batch, State.REJECTED, clock)
    return store.view(tx, agency, batch_id)


def start_rollback(
    tx: db.Transaction, agency: uuid.UUID, *, clock: clocks.AgencyClock, batch_id: uuid.UUID, etag: str
) -> store.BatchView:
    """Begin to take an applied portfolio back; a worker asks case and agreement, either of which may refuse.

    Raises ResourceNotFound, VersionMismatch, BatchStateForbids, BatchNotReversible.
    """
    batch = _found(tx, agency, batch_id, etag)
    _expect(batch, REVERSIBLE)
    if batch.kind is not domain.Kind.PORTFOLIO:
        raise domain.BatchNotReversible("only portfolio batches can be taken back", batch=batch_id)
    _move(tx, agency, batch, State.ROLLING_BACK, clock, refusal_code="", refusal="")
    store.add_work(
        tx,
        agency,
        batch_id,
        state=store.ROLLBACK_DUE,
        step=domain.RollbackStep.BEGIN.value,
        due_at=clock.now(),
    )
    return store.view(tx, agency, batch_id)


# -- applying ------------------------------------------------------------------------------------------------


def slice_applied(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    clock: clocks.AgencyClock,
    batch_id: uuid.UUID,
    number: int,
    applied: int,
    unchanged: int,
    rejects: Sequence[RowReject],
    amounts_of: Callable[[bytes, Sequence[int]], Mapping[str, int]],
) -> None:
    """A service has committed a slice: close it, note its rejects, and the batch when it was the last one.

    `amounts_of` gives what rows of a slice's content amount to, by currency (providers.slices.amounts_of). A slice
    closed before stays as it is. Raises SliceUnknown.
    """
    batch = store.lock_batch(tx, agency, batch_id)
    found = store.slice_of(tx, agency, batch_id, number) if batch is not None else None
    if batch is None or found is None:
        raise SliceUnknown("no such slice was sent", batch=batch_id, slice=number)
    if found.state == "APPLIED":
        return
    refused = store.add_rejects(
        tx,
        agency,
        batch_id,
        [
            domain.Reject(row=one.row, field=one.field, code=one.code, expected=one.expected)
            for one in rejects
        ],
        stage="APPLY",
    )
    if rejects:
        content = store.blob_in(tx, found.blob_id)
        if content:
            store.refuse_totals(
                tx, agency, batch_id, amounts_of(content, sorted({one.row for one in rejects}))
            )
    store.close_slice(tx, agency, batch_id, number, applied=applied, unchanged=unchanged, refused=refused)
    tx.count(_rows, applied + unchanged, kind=batch.kind.value, outcome="good")
    tx.count(_rows, refused, kind=batch.kind.value, outcome="rejected")
    values: dict[str, object] = {
        "slices_applied": batch.slices_applied + 1,
        "rows_applied": batch.rows_applied + applied,
        "rows_unchanged": batch.rows_unchanged + unchanged,
        "rows_rejected": batch.rows_rejected + refused,
    }
    batch = store.change_batch(tx, agency, batch, **values)
    if batch.slices_applied == batch.slices and batch.state is State.APPLYING:
        _applied(tx, agency, batch, clock)


def take_clock(
    tx: db.Transaction, agency: uuid.UUID, *, fact: case_facts_pb2.CaseFact, allow_simulated: bool
) -> None:
    """Keep a copy of the agency's clock, written only forward. Raises SimulatedClockRefused."""
    told = fact.clock_changed
    clocks.store(
        tx,
        clocks.AgencyClock(
            agency=agency,
            time_zone=told.time_zone,
            simulated=told.simulated,
            base_machine=_instant(told.HasField("base_machine"), told.base_machine),
            base_agency=_instant(told.HasField("base_agency"), told.base_agency),
            speed=Decimal(told.speed_thousandths) / 1000,
            business_date=dates.from_proto(told.business_date, "business_date"),
            version=fact.version,
        ),
        allow_simulated=allow_simulated,
    )


def open_day(tx: db.Transaction, agency: uuid.UUID, *, date: datetime.date) -> None:
    """The agency's business date moved forward."""
    clocks.open_day(tx, agency, date)


# -- taking back ---------------------------------------------------------------------------------------------


def claim_rollback(tx: db.Transaction, agency: uuid.UUID, *, clock: clocks.AgencyClock) -> store.Job | None:
    """Take up a batch to be taken back, if one waits; its `step` is the call to make."""
    jobs = store.claim_work(tx, agency, due=store.ROLLBACK_DUE, acting=store.ROLLING_BACK, now=clock.now())
    return jobs[0] if jobs else None


def rollback_done(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    clock: clocks.AgencyClock,
    batch_id: uuid.UUID,
    step: domain.RollbackStep,
) -> domain.RollbackStep | None:
    """The call of `step` was answered: the next one, or None when the batch is settled: ROLLED_BACK, or applied as
    before when the taking back was refused."""
    batch = _held(tx, agency, batch_id, acting=store.ROLLING_BACK)
    following = {
        domain.RollbackStep.BEGIN: domain.RollbackStep.TITLES,
        domain.RollbackStep.TITLES: domain.RollbackStep.END,
    }.get(step)
    if following is not None:
        store.set_step(tx, agency, batch_id, following.value)
        return following
    store.end_work(tx, agency, batch_id)
    after = State.ROLLED_BACK if step is domain.RollbackStep.END else _applied_state(batch)
    _move(tx, agency, batch, after, clock)
    return None


def rollback_refused(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    clock: clocks.AgencyClock,
    batch_id: uuid.UUID,
    step: domain.RollbackStep,
    code: str,
    sentence: str,
) -> domain.RollbackStep | None:
    """A service refused: the batch goes back to applied with the reason, after case has given its cases free again."""
    batch = _held(tx, agency, batch_id, acting=store.ROLLING_BACK)
    batch = store.change_batch(tx, agency, batch, refusal_code=code, refusal=sentence)
    if step is domain.RollbackStep.TITLES:
        store.set_step(tx, agency, batch_id, domain.RollbackStep.ABORT.value)
        return domain.RollbackStep.ABORT
    store.end_work(tx, agency, batch_id)
    _move(tx, agency, batch, _applied_state(batch), clock)
    return None


# -- republishing --------------------------------------------------------------------------------------------


def republish(tx: db.Transaction, agency: uuid.UUID, *, clock: clocks.AgencyClock) -> int:
    """Publish the present state of every batch again, and slices that nobody has applied; how many batches."""
    batch_ids = store.batch_ids(tx, agency)
    for batch_id in batch_ids:
        batch = store.lock_batch(tx, agency, batch_id)
        assert batch is not None
        if batch.state is State.APPLYING:
            _send_slices(tx, agency, batch, clock)
        _tell(tx, agency, batch, clock)
    return len(batch_ids)


# -- help ----------------------------------------------------------------------------------------------------


def _instant(given: bool, value: object) -> datetime.datetime | None:
    return dates.from_timestamp(value, "clock") if given else None  # type: ignore[arg-type]


def _found(tx: db.Transaction, agency: uuid.UUID, batch_id: uuid.UUID, etag: str) -> domain.Batch:
    batch = store.lock_batch(tx, agency, batch_id)
    if batch is None:
        raise errors.ResourceNotFound("no such batch", batch=batch_id)
    if etag and etag != str(batch.version):
        raise errors.VersionMismatch(
            "the batch changed since it was read", batch=batch_id, etag=str(batch.version)
        )
    return batch


class WorkLost(errors.ServiceError):
    """Another worker took the batch over: this one stops."""

    status = errors.Status.ABORTED


def _held(
    tx: db.Transaction, agency: uuid.UUID, batch_id: uuid.UUID, *, acting: str = store.READING
) -> domain.Batch:
    batch = store.lock_batch(tx, agency, batch_id)
    if batch is None or not store.holds_work(tx, agency, batch_id, acting=acting):
        raise WorkLost("another worker has the batch", batch=batch_id)
    return batch


def _expect(batch: domain.Batch, states: Sequence[domain.State]) -> None:
    if batch.state not in states:
        raise domain.BatchStateForbids(
            f"the batch is {batch.state.value}, not " + " or ".join(states), state=batch.state.value
        )


def _move(
    tx: db.Transaction,
    agency: uuid.UUID,
    batch: domain.Batch,
    state: domain.State,
    clock: clocks.AgencyClock,
    **values: object,
) -> domain.Batch:
    domain.check_transition(batch.state, state)
    changed = store.change_batch(tx, agency, batch, state=state.value, **values)
    _came_into(tx, agency, changed, clock)
    return changed


def _apply(
    tx: db.Transaction, agency: uuid.UUID, batch: domain.Batch, clock: clocks.AgencyClock
) -> domain.Batch:
    batch = _move(tx, agency, batch, State.APPLYING, clock)
    if not batch.slices:
        return _applied(tx, agency, batch, clock)
    _send_slices(tx, agency, batch, clock)
    return batch


def _send_slices(
    tx: db.Transaction, agency: uuid.UUID, batch: domain.Batch, clock: clocks.AgencyClock
) -> None:
    for one in store.slices_of(tx, agency, batch.id):
        if one.state == "APPLIED":
            continue
        fact = _fact(batch, clock)
        fact.slice_ready.MergeFrom(
            imports_facts_pb2.SliceReady(
                batch_id=batch.id.bytes,
                slice=one.number,
                kind=_KIND[batch.kind],
                rows=one.rows,
                slices=batch.slices,
            )
        )
        tx.publish(fact, partition=one.partition)


def _applied_state(batch: domain.Batch) -> domain.State:
    return State.APPLIED_WITH_ERRORS if batch.rows_rejected else State.APPLIED


def _applied(
    tx: db.Transaction, agency: uuid.UUID, batch: domain.Batch, clock: clocks.AgencyClock
) -> domain.Batch:
    return _move(tx, agency, batch, _applied_state(batch), clock, applied_at=clock.now())


_KIND: Mapping[domain.Kind, imports_pb2.BatchKind.ValueType] = {
    domain.Kind.PORTFOLIO: imports_pb2.BATCH_KIND_PORTFOLIO,
    domain.Kind.PAYMENTS: imports_pb2.BATCH_KIND_PAYMENTS,
}


def _fact(batch: domain.Batch, clock: clocks.AgencyClock) -> imports_facts_pb2.ImportFact:
    return imports_facts_pb2.ImportFact(
        occurred_at=dates.to_timestamp(clock.now()),
        business_date=dates.to_proto(clock.business_date),
        subject=batch.id.bytes,
        version=batch.version,
    )


def _came_into(tx: db.Transaction, agency: uuid.UUID, batch: domain.Batch, clock: clocks.AgencyClock) -> None:
    tx.count(_batches, kind=batch.kind.value, state=batch.state.value)
    _tell(tx, agency, batch, clock)


def _tell(tx: db.Transaction, agency: uuid.UUID, batch: domain.Batch, clock: clocks.AgencyClock) -> None:
    fact = _fact(batch, clock)
    fact.batch_changed.MergeFrom(
        imports_facts_pb2.BatchChanged(
            batch_id=batch.id.bytes,
            kind=_KIND[batch.kind],
            state=imports_pb2.Batch.State.Value(f"STATE_{batch.state.value}"),
            rows_read=batch.rows_read,
            rows_good=batch.rows_good,
            rows_rejected=batch.rows_rejected,
            rows_applied=batch.rows_applied,
        )
    )
    message: protobuf.Message = fact
    tx.publish(message)
