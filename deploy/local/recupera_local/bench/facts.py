"""Section `facts`: from rows committed in the outbox to the handler's commit, against kafka-python by hand.

Ours is a whole worker process of a service whose handler writes one row a fact (note_worker): outbox, relay, broker,
host, inbox, stored offset, commit. The baseline sends the same bytes with a kafka-python producer (idempotent,
acks=all) and reads them with a kafka-python consumer that runs the same INSERT for what a poll brought and commits:
nothing protects it from losing or doubling a fact.
"""

import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
import sqlalchemy as sa
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient

from recupera.case.v1 import case_facts_pb2
from recupera_local import kafka, ports, postgres, processes
from recupera_local.bench import figures, note_worker, scenes
from servicekit import db, ids, topics
from servicekit import kafka as kit_kafka

FACTS = 60_000
QUICK_FACTS = 10_000
AGENCY = uuid.UUID("0b9e0c55-0000-7000-8000-00000000be7c")
GOAL = 0.4
PARTITIONS = note_worker.PARTITIONS


def run(scene: scenes.Scene) -> list[figures.Figure]:
    """Facts a second, ours and bare, two rounds each in turn; the means."""
    count = QUICK_FACTS if scene.quick else FACTS
    ours, bare = [], []
    with scene.folder("facts") as folder, _servers(folder) as servers:
        for number in range(2):
            bare.append(count / servers.bare(_facts(count, number * 2), number))
            scene.say(f"bare kafka-python: {bare[-1]:,.0f} facts/s")
            ours.append(count / servers.ours(_facts(count, number * 2 + 1)))
            scene.say(f"outbox to handler: {ours[-1]:,.0f} facts/s")
    return [
        figures.Figure(
            name="facts: outbox to handler commit",
            unit="facts/s",
            ours=sum(ours) / len(ours),
            baseline=sum(bare) / len(bare),
            goal=GOAL,
            at_most=False,
        )
    ]


def _facts(count: int, round_number: int) -> list[case_facts_pb2.CaseFact]:
    """Facts of `count` cases, a contact each."""
    made = []
    for _ in range(count):
        case = ids.new()
        fact = case_facts_pb2.CaseFact(
            fact_id=ids.new().bytes, agency=AGENCY.bytes, subject=case.bytes, version=round_number + 1
        )
        fact.occurred_at.FromNanoseconds(time.time_ns())
        fact.contact_recorded.case_id = case.bytes
        fact.contact_recorded.contact_id = case.bytes
        made.append(fact)
    return made


class _Servers:
    """PostgreSQL with the worker's database, Kafka, and the worker process."""

    def __init__(self, folder: Path) -> None:
        free = ports.free(("postgres", "kafka", "kafka.controller", "metrics"))
        log = folder / "log"
        topics_file = folder / "topics.yaml"
        topics_file.write_text(note_worker.TOPICS)
        ready = folder / "ready"
        self._catalog = topics.load(topics_file)
        self._postgres = postgres.Postgres(
            folder=folder / "postgres", port=free["postgres"], log=log / "postgres.log"
        )
        self._kafka = kafka.Kafka(
            folder=folder / "kafka",
            port=free["kafka"],
            controller_port=free["kafka.controller"],
            log=log / "kafka.log",
        )
        self._start_servers()
        self._worker = processes.Process(
            name="note.worker",
            command=[sys.executable, "-m", "recupera_local.bench.note_worker"],
            log=log / "worker.log",
            environ={
                **scenes.inherited(),
                topics.FILE_VARIABLE: str(topics_file),
                "RECUPERA_KAFKA": self._kafka.bootstrap,
                "RECUPERA_DATABASE_URL_NOTE": self._url,
                "RECUPERA_READY_FILE": str(ready),
                "RECUPERA_METRICS_PORT": str(free["metrics"]),
            },
            ready=ready.exists,
        )
        self._worker.start()
        self._worker.wait_ready()
        self._engine = db.create_engine(self._url, application_name="bench")

    def _start_servers(self) -> None:
        self._postgres.start()
        self._kafka.start()
        self._postgres.create_service_databases(["note"])
        scenes.migrate(
            self._postgres.url("recupera_note", "recupera_note_owner"), [note_worker.TABLE], tables=["notes"]
        )
        self._url = self._postgres.url("recupera_note", "recupera_note")
        kit_kafka.create_missing(self._kafka.bootstrap, self._catalog)

    def stop(self) -> None:
        """End all three."""
        processes.stop_all([self._worker, self._kafka.process, self._postgres.process])

    def ours(self, facts: Sequence[case_facts_pb2.CaseFact]) -> float:
        """Seconds from the commit of all outbox rows until the handler has committed the last of them."""
        before = self._applied()
        with scenes.topics_of(self._catalog), db.begin(self._engine, agency=AGENCY) as tx:
            for fact in facts:
                tx.publish(fact, case_id=uuid.UUID(bytes=fact.subject))
        started = time.perf_counter()
        while self._applied() < len(facts) + before:
            time.sleep(0.02)
        return time.perf_counter() - started

    def bare(self, facts: Sequence[case_facts_pb2.CaseFact], number: int) -> float:
        """Seconds from the first record sent until the last row is committed."""
        topic = f"bare.{number}"
        admin = KafkaAdminClient(bootstrap_servers=self._kafka.bootstrap)
        admin.create_topics(
            {topic: {"num_partitions": PARTITIONS, "replication_factor": 1}},
            wait_for_metadata=True,
        )
        admin.close()
        records = [
            (
                fact.SerializeToString(),
                fact.subject,
                topics.partition_of(uuid.UUID(bytes=fact.subject), PARTITIONS),
            )
            for fact in facts
        ]
        with psycopg.connect(self._url) as connection:
            producer = KafkaProducer(
                bootstrap_servers=self._kafka.bootstrap, acks="all", enable_idempotence=True, linger_ms=20,
                batch_size=512 * 1024,
            )  # fmt: skip
            consumer = KafkaConsumer(
                topic, bootstrap_servers=self._kafka.bootstrap, group_id=topic, auto_offset_reset="earliest",
                enable_auto_commit=False, max_poll_records=2_000, fetch_max_bytes=8 * 1024 * 1024,
                max_partition_fetch_bytes=2 * 1024 * 1024,
            )  # fmt: skip
            while not consumer.assignment():
                consumer.poll(timeout_ms=100)
            started = time.perf_counter()
            for value, key, partition in records:
                producer.send(topic, value=value, key=key, partition=partition)
            producer.flush()
            self._consume(consumer, connection, len(records))
            seconds = time.perf_counter() - started
            producer.close()
            consumer.close()
        return seconds

    def _consume(
        self, consumer: KafkaConsumer, connection: psycopg.Connection[tuple[object, ...]], count: int
    ) -> None:
        insert = note_worker.INSERT.format(agency="%(agency)s", cases="%(cases)s", numbers="%(numbers)s")
        while count:
            polled = [record for records in consumer.poll(timeout_ms=200).values() for record in records]
            if polled:
                facts = [case_facts_pb2.CaseFact.FromString(record.value) for record in polled]
                connection.execute("SELECT set_config('app.agency', %s, true)", [str(AGENCY)])
                connection.execute(insert, {"agency": AGENCY, **note_worker.columns(facts)})
                connection.commit()
                consumer.commit()
                count -= len(polled)

    def _applied(self) -> int:
        """Facts whose handler has committed: the sum of the stored offsets, which is cheap to ask."""
        return int(db.read(self._engine, agency=None, statement=_POSITIONS)[0].found)


_POSITIONS = sa.text("SELECT coalesce(sum(next_offset), 0) AS found FROM consumer_offsets")


@contextmanager
def _servers(folder: Path) -> Iterator[_Servers]:
    servers = _Servers(folder)
    try:
        yield servers
    finally:
        servers.stop()
