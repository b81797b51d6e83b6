"""The smallest service there can be, for the bench of facts: a worker that writes a row for each fact.

`python -m recupera_local.bench.note_worker` runs it; its topic is in a topics file that the bench writes.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from uuid import UUID

import sqlalchemy as sa

from recupera.case.v1 import case_facts_pb2
from servicekit import db, host, telemetry

TOPIC = "recupera.bench.v1"
PARTITIONS = 24
TOPICS = f"""
defaults: {{partitions: {PARTITIONS}, retention_ms: 604800000, max_message_bytes: 1048576}}
topics:
  - {{name: {TOPIC}, message: recupera.case.v1.CaseFact, producer: note, consumers: [note]}}
  - {{name: recupera.dead-letters.v1, partitions: 3, producer: any, consumers: []}}
"""
TABLE = """
    CREATE TABLE notes (
        agency uuid NOT NULL,
        case_id uuid NOT NULL,
        number bigint NOT NULL,
        PRIMARY KEY (agency, case_id, number)
    )
"""
INSERT = """
    INSERT INTO notes (agency, case_id, number)
    SELECT {agency}, row.case_id, row.number
    FROM unnest(CAST({cases} AS uuid[]), CAST({numbers} AS bigint[])) AS row (case_id, number)
"""
"""The one statement that both the handler and the baseline run; each fills in its driver's placeholders."""
_INSERT = sa.text(INSERT.format(agency=":agency", cases=":cases", numbers=":numbers"))


def columns(facts: Sequence[case_facts_pb2.CaseFact]) -> Mapping[str, list[UUID] | list[int]]:
    """What is written of the facts."""
    return {
        "cases": [UUID(bytes=fact.contact_recorded.case_id) for fact in facts],
        "numbers": [fact.version for fact in facts],
    }


class NoteWorker(host.Worker):
    """Writes each fact down."""

    name = "note_worker"

    @host.consume(TOPIC)
    def note(self, tx: db.Transaction, facts: Sequence[case_facts_pb2.CaseFact]) -> None:
        """One row a fact."""
        tx.execute(_INSERT, {"agency": tx.agency, **columns(facts)})


@dataclasses.dataclass(frozen=True)
class Settings:
    """What host and telemetry read."""

    kafka: str
    ready_file: pathlib.Path
    listen_host: str = "127.0.0.1"
    metrics_port: int | None = None
    otlp_endpoint: str | None = None
    trace_ratio: float = 1.0
    log_level: str = "WARNING"


def main() -> None:
    """Work until SIGTERM."""
    settings = Settings(
        kafka=os.environ["RECUPERA_KAFKA"],
        ready_file=pathlib.Path(os.environ["RECUPERA_READY_FILE"]),
        metrics_port=int(os.environ["RECUPERA_METRICS_PORT"]),
    )
    telemetry.setup("note", "worker", settings)
    engine = db.create_engine(os.environ["RECUPERA_DATABASE_URL_NOTE"], application_name="note worker")
    host.run(NoteWorker, wiring=None, settings=settings, engine=engine)
    telemetry.shutdown()


if __name__ == "__main__":
    main()
