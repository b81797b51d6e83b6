"""Facts and timers of import: fact -> one use case, timer -> one file read or one step of a batch taken back."""

from __future__ import annotations

import dataclasses
import logging
import uuid
from collections.abc import Iterator, Sequence
from decimal import Decimal

from import_service import domain, store, usecases
from import_service.providers import layouts, reading, remote, slices
from recupera.agreement.v1 import agreement_facts_pb2
from recupera.case.v1 import case_facts_pb2
from recupera.imports.v1 import imports_facts_pb2
from servicekit import acts, blobs, clock, dates, db, errors, facts, host, topics

_log = logging.getLogger("recupera.import")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wiring:
    """What the worker is made of."""

    remote: remote.Remote
    allow_simulated_clock: bool
    max_error_percent: Decimal
    slice_retention_days: int


class Draining(Exception):
    """The process is asked to stop: the file in hand is left, to be read again from its start."""


class ImportWorker(host.Worker):
    """The worker process of import."""

    name = "import_worker"
    wiring: Wiring

    @host.consume("recupera.case.v1")
    def case_facts(self, tx: db.Transaction, found: Sequence[case_facts_pb2.CaseFact]) -> None:
        """The agency's clock, and slices of portfolios that are applied."""
        for fact in found:
            agency = uuid.UUID(bytes=fact.agency)
            match facts.kind(fact):
                case "clock_changed":
                    usecases.take_clock(
                        tx, agency, fact=fact, allow_simulated=self.wiring.allow_simulated_clock
                    )
                case "day_opened":
                    usecases.open_day(tx, agency, date=dates.from_proto(fact.day_opened.date, "date"))
                case "slice_applied":
                    _slice_applied(tx, agency, fact.slice_applied)

    @host.consume("recupera.agreement.v1")
    def agreement_facts(self, tx: db.Transaction, found: Sequence[agreement_facts_pb2.AgreementFact]) -> None:
        """Slices of payments that are applied."""
        for fact in found:
            if facts.kind(fact) == "slice_applied":
                _slice_applied(tx, uuid.UUID(bytes=fact.agency), fact.slice_applied)

    @host.looks_at(acts.DUE_AGE)
    def look_at_work(self) -> None:
        """How long a file waits to be read, or a batch to be taken back, on a real clock."""
        waiting = acts.Waiting(store.READING, store.ROLLING_BACK)
        for one in clock.every(self.engine):
            if not one.simulated:
                with db.begin(self.engine, agency=one.agency) as tx:
                    for act in (store.READING, store.ROLLING_BACK):
                        since = store.oldest_due(tx, one.agency, act=act, now=one.now())
                        waiting.due(act, since, now=one.now())
        waiting.show()

    @host.timer(interval=0.4, eager=True)
    def read_files(self) -> None:
        """Read what was uploaded, a file at a time; what a killed worker was reading is read again from its start."""
        host.each(clock.with_work(self.engine, "agencies_to_read"), self._read_all)

    def _read_all(self, agency: uuid.UUID) -> None:
        while not host.draining():
            with db.begin(self.engine, agency=agency) as tx:
                job = usecases.claim_reading(tx, agency, clock=clock.read(tx, agency))
            if job is None:
                break
            self._read(agency, job.batch)

    def _read(self, agency: uuid.UUID, batch: domain.Batch) -> None:
        try:
            self._read_parts(agency, batch)
        except domain.FileRefused as refused:
            with db.begin(self.engine, agency=agency) as tx:
                usecases.refuse_file(
                    tx, agency, clock=clock.read(tx, agency), batch_id=batch.id, refused=refused
                )
            _log.info("file refused", extra={"batch": batch.id, "code": refused.code})
        except blobs.BlobErased:
            with db.begin(self.engine, agency=agency) as tx:
                usecases.refuse_file(
                    tx,
                    agency,
                    clock=clock.read(tx, agency),
                    batch_id=batch.id,
                    refused=domain.FileRefused("FILE_ERASED", "the file was erased before it was read"),
                )
        except Draining:
            _log.info("file left for another worker", extra={"batch": batch.id})
        except usecases.WorkLost:
            _log.warning("another worker reads the file", extra={"batch": batch.id})

    def _read_parts(self, agency: uuid.UUID, batch: domain.Batch) -> None:
        def chunks() -> Iterator[bytes]:
            return blobs.read(self.engine, batch.blob_id)

        rules = self._rules(agency, batch)
        dialect = reading.dialect(chunks, kind=batch.kind, encoding=batch.encoding)
        with db.begin(self.engine, agency=agency) as tx:
            usecases.start_reading(
                tx, agency, clock=clock.read(tx, agency), batch_id=batch.id, dialect=dialect
            )
        parts = reading.parts(
            chunks,
            agency=agency,
            kind=batch.kind,
            dialect=dialect,
            rules=dataclasses.replace(rules, convention=dialect.convention),
            partitions=_partitions(),
        )
        for part in parts:
            if host.draining():
                raise Draining
            with db.begin(self.engine, agency=agency) as tx:
                usecases.add_part(
                    tx,
                    agency,
                    clock=clock.read(tx, agency),
                    batch_id=batch.id,
                    part=part,
                    slice_retention_days=self.wiring.slice_retention_days,
                )
        with db.begin(self.engine, agency=agency) as tx:
            state = usecases.finish_reading(
                tx,
                agency,
                clock=clock.read(tx, agency),
                batch_id=batch.id,
                max_error_percent=self.wiring.max_error_percent,
            )
        _log.info("file read", extra={"batch": batch.id, "state": state.value})

    def _rules(self, agency: uuid.UUID, batch: domain.Batch) -> layouts.Rules:
        reference = None
        if batch.creditor is not None:
            reference = self.wiring.remote.creditor_reference(agency, batch.creditor)
            if reference is None:
                raise domain.FileRefused(
                    "CREDITOR_UNKNOWN", "the creditor that the sender is bound to is not known at the agency"
                )
        return layouts.Rules(
            convention=domain.Convention.UNKNOWN,
            business_date=batch.business_date,
            creditor_reference=reference,
        )

    @host.timer(interval=1.0, eager=True)
    def roll_back(self) -> None:
        """Take batches back: one call to case or agreement a step, each step committed before the next."""
        host.each(clock.with_work(self.engine, "agencies_to_roll_back"), self._roll_back)

    def _roll_back(self, agency: uuid.UUID) -> None:
        with db.begin(self.engine, agency=agency) as tx:
            job = usecases.claim_rollback(tx, agency, clock=clock.read(tx, agency))
        if job is None:
            return
        step: domain.RollbackStep | None = domain.RollbackStep(job.step)
        batch_id = job.batch.id
        while step is not None:
            try:
                # RemoteUnavailable lets the agency rest: the batch stays with this worker, which goes on then
                self.wiring.remote.roll_back(agency, batch_id, step)
            except errors.RemoteRefused as refused:
                if step not in (domain.RollbackStep.BEGIN, domain.RollbackStep.TITLES):
                    raise
                with db.begin(self.engine, agency=agency) as tx:
                    step = usecases.rollback_refused(
                        tx,
                        agency,
                        clock=clock.read(tx, agency),
                        batch_id=batch_id,
                        step=step,
                        code=refused.reason,
                        sentence=refused.message,
                    )
            else:
                with db.begin(self.engine, agency=agency) as tx:
                    step = usecases.rollback_done(
                        tx, agency, clock=clock.read(tx, agency), batch_id=batch_id, step=step
                    )


def _slice_applied(
    tx: db.Transaction,
    agency: uuid.UUID,
    told: case_facts_pb2.SliceApplied | agreement_facts_pb2.SliceApplied,
) -> None:
    usecases.slice_applied(
        tx,
        agency,
        clock=clock.read(tx, agency),
        batch_id=uuid.UUID(bytes=told.batch_id),
        number=told.slice,
        applied=told.applied,
        unchanged=told.unchanged,
        rejects=told.rejects,
        amounts_of=slices.amounts_of,
    )


def _partitions() -> int:
    return topics.catalog().of(imports_facts_pb2.ImportFact.DESCRIPTOR.full_name).partitions
