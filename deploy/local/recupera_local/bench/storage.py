"""Section `storage`: bytes and processor time that a title, a case, a message and a call cost; what docs/sizing.md
multiplies.

Every service runs. A portfolio is imported, its first business day and the next are run with all that follows from
them, and GetCase and RecordContact are called. After each step the platform is let come to rest; the difference of
what PostgreSQL, its WAL and Kafka's log files hold, and of processor seconds, is the step's.
"""

import concurrent.futures
import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping

import psycopg

from recupera_local import gateway_client
from recupera_local import platform as local
from recupera_local.bench import figures, imports, load, memory, portfolios, scenes
from recupera_local.demo import journey
from servicekit import ids, kafka, topics

TITLES = 100_000
CALLS_SECONDS = 10.0
CONTACTS = 2_000
CONNECTIONS = 8
LARGEST = 6
"""Tables and topics named in the progress of each step."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Held:
    """What is stored at a moment, in bytes: tables with indexes by `service.table`, WAL written since the server was
    made, records in Kafka by topic (one copy). And processor seconds by process."""

    tables: Mapping[str, int]
    wal: int
    topics: Mapping[str, int]
    processor: Mapping[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """What a step added, as `Held`, and how long it took."""

    tables: Mapping[str, int]
    wal: int
    topics: Mapping[str, int]
    processor: Mapping[str, float]
    seconds: float

    @property
    def postgres(self) -> int:
        """Bytes in all databases."""
        return sum(self.tables.values())

    @property
    def kafka(self) -> int:
        """Bytes in all topics, one copy."""
        return sum(self.topics.values())


def run(scene: scenes.Scene) -> list[figures.Figure]:
    """Bytes beside those of the file that was imported; processor seconds beside nothing."""
    titles = TITLES // 20 if scene.quick else TITLES
    with scene.folder("portfolio") as files, scene.platform("storage") as platform:
        portfolio = files / "portfolio.csv"
        cases = portfolios.write(portfolio, titles=titles, seed=imports.SEED)
        file_bytes = portfolio.stat().st_size
        imports.start_agency(platform)
        gateway = gateway_client.Gateway(
            base_url=platform.gateway_url,
            token=platform.token,
            agency=platform.agency,
            patience_seconds=imports.PATIENCE,
        )
        days = journey.weekdays_from(portfolios.FIRST_DAY, 2)
        way = journey.Journey(
            gateway=gateway,
            plan=journey.Plan(portfolio=portfolio, payments={}, days=days),
            work_dir=files,
            say=scene.say,
            settle=lambda: None,
            patience=imports.PATIENCE,
        )
        steps: dict[str, Step] = {}
        with _step(scene, platform, "import", steps):
            imports.imported(scene, platform, portfolio, titles)
        messages = 0
        for name, day in zip(("first day", "next day"), days, strict=True):
            with _step(scene, platform, name, steps):
                way.set_clock(day)
                way.send_messages(day, way.run_day(day))
            before, messages = messages, way.stages["messages"].items
            scene.say(f"{name}: {cases:,} cases, {messages - before:,} messages")
        names = _cases(platform)
        with _step(scene, platform, "GetCase", steps):
            calls = _get_cases(platform, names)
        with _step(scene, platform, "RecordContact", steps):
            contacts = _record_contacts(platform, names[: CONTACTS // (20 if scene.quick else 1)])
    found = [
        figures.Figure(
            name=f"storage: {what} a title after the import",
            unit="B",
            ours=size / titles,
            baseline=file_bytes / titles,
            goal=None,
        )
        for what, size in (
            ("PostgreSQL", steps["import"].postgres),
            ("WAL", steps["import"].wal),
            ("Kafka (one copy)", steps["import"].kafka),
        )
    ]
    for name in ("first day", "next day"):
        found += [
            figures.Figure(
                name=f"storage: {what} a case on its {name}",
                unit="B",
                ours=size / cases,
                baseline=file_bytes / titles,
                goal=None,
            )
            for what, size in (
                ("PostgreSQL", steps[name].postgres),
                ("WAL", steps[name].wal),
                ("Kafka (one copy)", steps[name].kafka),
            )
        ]
    for name, number in (("GetCase", calls), ("RecordContact", contacts)):
        spent = steps[name].processor
        scene.say(
            f"{name}: {number:,} calls; processor ms a call: "
            + ", ".join(f"{one} {seconds / number * 1000:.2f}" for one, seconds in _largest(spent))
        )
        found.append(
            figures.Figure(
                name=f"processor seconds of 1,000 {name}, all processes; baseline: the service's own",
                unit="s",
                ours=sum(spent.values()) / number * 1000,
                baseline=spent["case.serve"] / number * 1000,
                goal=None,
            )
        )
    return found


@contextlib.contextmanager
def _step(scene: scenes.Scene, platform: local.Platform, name: str, steps: dict[str, Step]) -> Iterator[None]:
    before, started = _held(platform), time.perf_counter()
    yield
    gateway_client.wait_for(
        f"rest after {name}", lambda: _at_rest(platform) or None, seconds=imports.PATIENCE
    )
    after = _held(platform)
    step = Step(
        tables=_difference(after.tables, before.tables),
        wal=after.wal - before.wal,
        topics=_difference(after.topics, before.topics),
        processor={one: spent - before.processor.get(one, 0.0) for one, spent in after.processor.items()},
        seconds=time.perf_counter() - started,
    )
    steps[name] = step
    by_service = {
        service: sum(size for table, size in step.tables.items() if table.startswith(f"{service}."))
        for service in platform.services
    }
    scene.say(
        f"{name}: {step.seconds:.0f} s; PostgreSQL {step.postgres / 1e6:.1f} MB, WAL {step.wal / 1e6:.1f} MB,"
        f" Kafka {step.kafka / 1e6:.1f} MB"
    )
    scene.say("  databases MB: " + _told(by_service))
    scene.say("  largest tables MB: " + _told(step.tables))
    scene.say("  topics MB: " + _told(step.topics))
    scene.say("  " + memory.spent_told(step.processor))


def _held(platform: local.Platform) -> Held:
    tables = {}
    for service in platform.services:
        with psycopg.connect(platform.owner_url(service)) as connection:
            rows = connection.execute(
                "SELECT relname, pg_total_relation_size(oid) FROM pg_class"
                " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            )
            tables |= {f"{service}.{name}": size for name, size in rows}
    with psycopg.connect(platform.owner_url("case")) as connection:
        row = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
    assert row is not None
    logs: dict[str, int] = {}
    for segment in (platform.state_dir / "kafka" / "data").glob("recupera.*/*.log"):
        topic = segment.parent.name.rpartition("-")[0]
        logs[topic] = logs.get(topic, 0) + segment.stat().st_size
    return Held(
        tables=tables, wal=int(row[0]), topics=logs, processor=dict(memory.processor_seconds(platform))
    )


def _at_rest(platform: local.Platform) -> bool:
    """Whether every outbox is empty and every consumer has committed all that its topics hold."""
    catalog = topics.catalog()
    ends = kafka.ends(
        platform.bootstrap,
        [
            kafka.Partition(topic.name, number)
            for topic in catalog.by_name.values()
            for number in range(topic.partitions)
        ],
    )
    for service in platform.services:
        with psycopg.connect(platform.owner_url(service)) as connection:
            if connection.execute("SELECT 1 FROM outbox LIMIT 1").fetchone() is not None:
                return False
            rows = connection.execute("SELECT topic, partition, next_offset FROM consumer_offsets")
            stored = {kafka.Partition(str(row[0]), int(row[1])): int(row[2]) for row in rows}
        if any(
            stored.get(partition, 0) < end
            for partition, end in ends.items()
            if service in catalog[partition.topic].consumers
        ):
            return False
    return True


def _cases(platform: local.Platform) -> list[str]:
    with psycopg.connect(platform.owner_url("case")) as connection:
        found = [row[0] for row in connection.execute("SELECT id FROM cases ORDER BY crc32(uuid_send(id))")]
    return [f"agencies/{platform.agency}/cases/{case}" for case in found]


def _get_cases(platform: local.Platform, names: list[str]) -> int:
    connections = [
        load.JsonConnection(platform.ports["gateway"], platform.token()) for _ in range(CONNECTIONS)
    ]
    try:
        return len(load.run(connections, names, CALLS_SECONDS).latencies)
    finally:
        for connection in connections:
            connection.socket.close()


def _record_contacts(platform: local.Platform, names: list[str]) -> int:
    def some(part: list[str]) -> int:
        gateway = gateway_client.Gateway(
            base_url=platform.gateway_url, token=platform.token, agency=platform.agency
        )
        try:
            for name in part:
                gateway.post(
                    f"{name.removeprefix(gateway.parent + '/')}/contacts",
                    {
                        "contact": {"channel": "CHANNEL_CALL", "outcome": "OUTCOME_NO_ANSWER"},
                        "requestId": str(ids.new()),
                    },
                )
        finally:
            gateway.close()
        return len(part)

    with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
        return sum(pool.map(some, [names[number::CONNECTIONS] for number in range(CONNECTIONS)]))


def _difference(after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    return {name: size - before.get(name, 0) for name, size in after.items()}


def _largest(sizes: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(sizes.items(), key=lambda item: -item[1])[:LARGEST]


def _told(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {size / 1e6:.1f}" for name, size in _largest(sizes))
