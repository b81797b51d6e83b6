"""The ledger: a small service with which servicekit is tested. It notes each row of a case fact, in the order in which
it was applied, under no key that would hide a second time.

Run as a worker process: `python -m support.ledger`, with RECUPERA_KAFKA, LEDGER_DATABASE_URL and what `Settings` reads.
Table `knobs` tells the handler what to do, also while it runs: see `LedgerWorker`.
"""

import dataclasses
import logging
import os
import pathlib
import sys
import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from recupera.case.v1 import case_facts_pb2
from servicekit import db, errors, facts, host, telemetry
from servicekit import settings as settings_module

MIGRATIONS = pathlib.Path(__file__).parent / "ledger_migrations"

INSERT = sa.text(
    """
    INSERT INTO applied (agency, case_id, number, pid)
    SELECT :agency, row.case_id, row.number, :pid
    FROM unnest(CAST(:cases AS uuid[]), CAST(:numbers AS bigint[])) WITH ORDINALITY AS row (case_id, number, place)
    ORDER BY row.place
    """
)
LIMIT = sa.text("INSERT INTO limits (agency, case_id, number) VALUES (:agency, :case_id, :number)")
KNOBS = sa.text("SELECT name, value FROM knobs")
SET = sa.text(
    "INSERT INTO knobs (name, value) VALUES (:name, :value) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
UNSET = sa.text("DELETE FROM knobs WHERE name = :name")
APPLIED = sa.text("SELECT agency, case_id, number, pid, transaction FROM applied ORDER BY place")


class CaseRefused(errors.ServiceError):
    """The knob `refuse:<case>` is set."""

    status = errors.Status.FAILED_PRECONDITION


class RemoteAway(errors.ServiceError):
    """The knob `away:<case>` is set: it will pass, the fact is not why."""

    status = errors.Status.UNAVAILABLE
    transient = True


class CaseMoved(errors.ServiceError):
    """The knob `aborted:<case>` counts down: somebody else changes the case meanwhile."""

    status = errors.Status.ABORTED


class Panic(BaseException):
    """The knob `panic:<case>`, or `tick` is `panics`: as Polars raises it, no Exception."""


class LedgerWorker(host.Worker):
    """Knobs: `refuse:<case>` (reason), `away:<case>`, `bug:<case>`, `panic:<case>`, `twice:<case>` (breaks a deferred
    constraint), `aborted:<case>`, `sleep` (seconds in the transaction), `sleep once` (the same, one time), `tick` (the
    timer fails when set)."""

    name = "agreement_worker"

    @host.consume("recupera.case.v1")
    def case_facts(self, tx: db.Transaction, messages: Sequence[case_facts_pb2.CaseFact]) -> None:
        """Note each row."""
        knobs = {row.name: row.value for row in tx.execute(KNOBS)}
        rows = [row for message in messages for row in rows_of(message)]
        for case, _ in rows:
            if f"refuse:{case}" in knobs:
                raise CaseRefused("told to", case=case)
            if f"away:{case}" in knobs:
                raise RemoteAway("told to", case=case)
            if f"bug:{case}" in knobs:
                raise ZeroDivisionError("told to")
            if f"panic:{case}" in knobs:
                raise Panic
            if f"twice:{case}" in knobs:
                tx.execute(LIMIT, [{"agency": tx.agency, "case_id": case, "number": 1}] * 2)
            if f"aborted:{case}" in knobs and self.wiring.setdefault(f"aborted:{case}", 0) < 2:
                self.wiring[f"aborted:{case}"] += 1
                raise CaseMoved("told to", case=case)
        tx.execute(
            INSERT,
            {
                "agency": tx.agency,
                "pid": os.getpid(),
                "cases": [case for case, _ in rows],
                "numbers": [number for _, number in rows],
            },
        )
        if "sleep" in knobs:
            time.sleep(float(knobs["sleep"]))
        if "sleep once" in knobs:
            tx.execute(UNSET, {"name": "sleep once"})
            time.sleep(float(knobs["sleep once"]))

    @host.timer(interval=0.1, eager=True)
    def tick(self) -> None:
        """Count."""
        with db.begin(self.engine, agency=None) as tx:
            knobs = {row.name: row.value for row in tx.execute(KNOBS)}
            tx.execute(SET, {"name": "ticks", "value": str(int(knobs.get("ticks", "0")) + 1)})
        if "tick" in knobs:
            raise Panic if knobs["tick"] == "panics" else ZeroDivisionError("told to")


def rows_of(message: case_facts_pb2.CaseFact) -> list[tuple[uuid.UUID, int]]:
    """(case, number) of each row."""
    if message.WhichOneof("fact") == "cases_changed":
        body = message.cases_changed
        return [
            (uuid.UUID(bytes=case), number) for case, number in zip(body.case_ids, body.versions, strict=True)
        ]
    return [(facts.cases(message)[0], message.version)]


def single(agency: uuid.UUID, case: uuid.UUID, number: int) -> case_facts_pb2.CaseFact:
    """A fact about one case."""
    fact = case_facts_pb2.CaseFact(agency=agency.bytes, subject=case.bytes, version=number)
    fact.contact_recorded.case_id = case.bytes
    return fact


def chunk(agency: uuid.UUID, rows: Iterable[tuple[uuid.UUID, int]]) -> case_facts_pb2.CaseFact:
    """A fact about many cases."""
    fact = case_facts_pb2.CaseFact(agency=agency.bytes)
    for case, number in rows:
        fact.cases_changed.case_ids.append(case.bytes)
        fact.cases_changed.versions.append(number)
    return fact


def turn(engine: sa.Engine, name: str, value: object) -> None:
    """Set a knob; None removes it."""
    with db.begin(engine, agency=None) as tx:
        if value is None:
            tx.execute(UNSET, {"name": name})
        else:
            tx.execute(SET, {"name": name, "value": str(value)})


def knob(engine: sa.Engine, name: str) -> str | None:
    """A knob's value."""
    rows = db.read(engine, agency=None, statement=KNOBS)
    return {row.name: row.value for row in rows}.get(name)


def applied(owner: sa.Engine) -> list[sa.Row[Any]]:
    """What was applied, of all agencies, in order; by an engine of the owner."""
    return db.read(owner, agency=None, statement=APPLIED)


def numbers(owner: sa.Engine) -> dict[uuid.UUID, list[int]]:
    """The numbers applied for each case, in the order in which they were."""
    found: dict[uuid.UUID, list[int]] = {}
    for row in applied(owner):
        found.setdefault(row.case_id, []).append(row.number)
    return found


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the worker process reads."""

    kafka: settings_module.Brokers
    ready_file: pathlib.Path | None
    listen_host: str = "127.0.0.1"
    metrics_port: int | None = None
    otlp_endpoint: str | None = None
    trace_ratio: float = 1.0
    log_level: str = "INFO"


def main() -> None:
    """The worker process."""
    ready = os.environ.get("RECUPERA_READY_FILE")
    settings = Settings(
        kafka=settings_module.load(settings_module.Brokers),
        ready_file=pathlib.Path(ready) if ready else None,
        metrics_port=int(os.environ["LEDGER_METRICS_PORT"]) if "LEDGER_METRICS_PORT" in os.environ else None,
    )
    telemetry.setup("ledger", "worker", settings)
    logging.getLogger("recupera").setLevel(logging.DEBUG)
    options = host.Options(
        retry_limit=float(os.environ.get("LEDGER_RETRY_LIMIT", "60")),
        parked_limit=int(os.environ.get("LEDGER_PARKED_LIMIT", "100")),
        session_timeout_ms=int(os.environ.get("LEDGER_SESSION_TIMEOUT_MS", "6000")),
        max_poll_interval_ms=int(os.environ.get("LEDGER_MAX_POLL_INTERVAL_MS", "300000")),
        relay=os.environ.get("LEDGER_RELAY", "1") == "1",
        gauges_every=float(os.environ.get("LEDGER_GAUGES_EVERY", "15")),
    )
    engine = db.create_engine(os.environ["LEDGER_DATABASE_URL"], application_name="ledger")
    try:
        host.run(LedgerWorker, wiring={}, settings=settings, engine=engine, options=options)
    finally:
        telemetry.shutdown()


if __name__ == "__main__":
    sys.exit(main())
