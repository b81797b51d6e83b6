"""kafka-python behind our own names: producer, consumer, topic administration (platform.md, "Kafka: the real
broker").

kafka-python 3 does its I/O on a thread of its own and is not thread-safe: one loop owns a ``Consumer`` and
calls it from one thread at a time. Its rebalance listener may not call the consumer, so it only notes what
changed, and partitions are positioned after the poll that noticed.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import importlib
import logging
import socket
import ssl
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import kafka.errors as driver_errors
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.consumer.group import KafkaConsumer
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.net.compat import KafkaNetClient
from kafka.net.sasl import register_sasl_mechanism
from kafka.net.sasl.abc import SaslMechanism
from kafka.net.sasl.plain import SaslMechanismPlain
from kafka.net.sasl.scram import SaslMechanismScram
from kafka.net.selector import NetworkSelector
from kafka.producer.kafka import KafkaProducer
from kafka.structs import OffsetAndMetadata, TopicPartition

from servicekit import db, topics
from servicekit import settings as settings_module
from servicekit.delivery import Record

Unavailable = driver_errors.KafkaError
"""Anything that Kafka's client raises."""

NotAdmitted = driver_errors.SaslAuthenticationFailedError
"""Kafka does not know our user or password: they may be changing, so a new client may be let in later."""

BATCH_BYTES = 512 * 1024
Refused = (
    driver_errors.MessageSizeTooLargeError,
    driver_errors.RecordListTooLargeError,
    driver_errors.InvalidRecordError,
    driver_errors.InvalidTopicError,
    driver_errors.UnknownTopicOrPartitionError,
    driver_errors.TopicAuthorizationFailedError,
    driver_errors.PolicyViolationError,
)
"""What Kafka answers to a record that it will not take however often it comes."""
BOOTSTRAP_MS = 10_000
HANDSHAKE = 5.0
"""Seconds that a broker may be silent in a TLS handshake: half of a bootstrap, so that another broker gets a turn."""
SOCKET_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, db.DEAD_PEER["keepalives_idle"]),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, db.DEAD_PEER["keepalives_interval"]),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, db.DEAD_PEER["keepalives_count"]),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, db.DEAD_PEER["tcp_user_timeout"]),
)
FETCH_BYTES = 8 * 1024 * 1024
PARTITION_FETCH_BYTES = 2 * 1024 * 1024

logger = logging.getLogger("recupera.kafka")
_connecting = logging.getLogger("kafka.net.manager")
logging.getLogger("kafka.net.selector").setLevel(logging.ERROR)  # warns of every task of 0.1 s


class ChecksumsTooSlow(Exception):
    """The C checksum is missing: everything would work, fifty times slower (platform.md)."""


class Unreachable(driver_errors.KafkaTimeoutError):  # type: ignore[misc] # kafka-python has no types
    """No broker let us in; the text says what the last one answered: its certificate, our password, no answer."""


class RangeLost(Exception):
    """Records between the stored offset and the oldest one in Kafka are gone."""

    def __init__(self, partitions: Mapping[Partition, int]) -> None:
        super().__init__(
            ", ".join(f"{p.topic}/{p.partition} at {offset}" for p, offset in partitions.items())
        )
        self.partitions = partitions


class TopicMissing(Exception):
    """A topic is not there yet, or has another number of partitions than topics.yaml says."""


class Partition(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


def require_crc32c() -> None:
    """Raise ``ChecksumsTooSlow`` unless package ``crc32c`` is there and kafka-python uses it."""
    try:
        importlib.import_module("crc32c")
        record_util = importlib.import_module("kafka.record.util")
    except ImportError as error:
        raise ChecksumsTooSlow("install crc32c beside kafka-python") from error
    if record_util.crc32c_c is None:
        raise ChecksumsTooSlow("kafka-python does not see the package crc32c")


Where = settings_module.Brokers | str
"""Brokers and how to talk to them; bare ``host:port,host:port`` are talked to in plaintext."""


def _looked_up(mechanism: type[SaslMechanism]) -> type[SaslMechanism]:
    """A mechanism that may be given a function for its password, and calls it at each authentication."""

    class LookedUp(mechanism):  # type: ignore[misc] # kafka-python has no types
        def __init__(self, **config: Any) -> None:
            password = config["sasl_plain_password"]
            super().__init__(
                **config | {"sasl_plain_password": password() if callable(password) else password}
            )

    return LookedUp


for _name, _mechanism in {
    "PLAIN": SaslMechanismPlain,
    "SCRAM-SHA-256": SaslMechanismScram,
    "SCRAM-SHA-512": SaslMechanismScram,
}.items():
    register_sasl_mechanism(_name, _looked_up(_mechanism), overwrite=True)


def _connection(where: Where) -> dict[str, Any]:
    """How kafka-python is told of brokers. It reads the files at each connection, and asks for the password."""
    told: dict[str, Any] = {
        "bootstrap_servers": bootstrap_servers(where),
        "bootstrap_timeout_ms": BOOTSTRAP_MS,
        "socket_options": SOCKET_OPTIONS,
    }
    if isinstance(where, str):
        return told
    told["security_protocol"] = where.security
    if where.encrypted:
        files = {
            "ssl_cafile": where.ca_file,
            "ssl_certfile": where.certificate_file,
            "ssl_keyfile": where.key_file,
        }
        told |= {name: str(file) for name, file in files.items() if file is not None}
    if where.authenticates:
        told |= {
            "sasl_mechanism": where.mechanism,
            "sasl_plain_username": where.user,
            "sasl_plain_password": where.secret,
        }
    return told


class _Answer(logging.Handler):
    """kafka-python tells only in its log why it could not connect: the last reason, or the last that says more than
    that nobody answered.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = "no answer"

    def emit(self, record: logging.LogRecord) -> None:
        if str(record.msg).startswith("Bootstrap connection") and isinstance(record.args, tuple):
            text = str(record.args[1])
            if not _telling(self.text) or _telling(text):
                self.text = text


def _telling(text: str) -> bool:
    return "SSL" in text or "Sasl" in text


class _Impatient(NetworkSelector):  # type: ignore[misc] # kafka-python has no types
    """kafka-python's loop, but for TLS handshakes, in which the driver would wait for ever: a broker that takes the
    connection and says nothing would stop the refresh of metadata, and with it the client.
    """

    def wait_read(self, fileobj: Any, timeout_at: float | None = None) -> Any:
        if timeout_at is None and isinstance(fileobj, ssl.SSLSocket) and fileobj.version() is None:
            timeout_at = time.monotonic() + HANDSHAKE
        return super().wait_read(fileobj, timeout_at)


def _connected(driver: Callable[..., Any], where: Where, **options: Any) -> Any:
    """One of kafka-python's clients, connected. Raises ``Unreachable``."""
    made: list[KafkaNetClient] = []

    def client(**config: Any) -> KafkaNetClient:
        made.append(KafkaNetClient(net=_Impatient(**config), **config))
        return made[-1]

    answer = _Answer()
    _connecting.addHandler(answer)
    try:
        return driver(**_connection(where), kafka_client=client, **options)
    except BaseException as error:
        for one in made:  # the driver leaves its thread and its sockets behind
            one.close()
        if isinstance(error, driver_errors.KafkaTimeoutError):
            raise Unreachable(f"{', '.join(bootstrap_servers(where))}: {answer.text}") from error
        raise
    finally:
        _connecting.removeHandler(answer)


def bootstrap_servers(bootstrap: Where) -> list[str]:
    """``host:port,host:port`` as a list."""
    text = bootstrap if isinstance(bootstrap, str) else bootstrap.bootstrap
    return [server.strip() for server in text.split(",") if server.strip()]


def _in_kafka(partition: Partition) -> TopicPartition:
    return TopicPartition(topics.on_wire(partition.topic), partition.partition)


def _ours(partition: TopicPartition) -> Partition:
    return Partition(partition.topic.removeprefix(topics.prefix()), partition.partition)


class Producer:
    """Idempotent, acks=all, order kept per partition. After any failure it must be closed: an idempotent
    kafka-python producer refuses everything after one refused record."""

    def __init__(self, bootstrap: Where, *, client_id: str, batch_bytes: int = BATCH_BYTES) -> None:
        """``batch_bytes`` must stay below each topic's ``max_message_bytes``, which Kafka applies to batches;
        0 sends each record in a batch of its own, so that one that is refused takes no other with it."""
        self._producer = _connected(
            KafkaProducer,
            bootstrap,
            client_id=client_id,
            acks="all",
            enable_idempotence=True,
            allow_auto_create_topics=False,
            linger_ms=200,  # flush sends at once; until then records gather in batches
            batch_size=batch_bytes,
            max_block_ms=10_000,
            delivery_timeout_ms=30_000,
            request_timeout_ms=10_000,
            reconnect_backoff_max_ms=1_000,
            metrics_enabled=False,
        )

    def send(
        self,
        *,
        topic: str,
        partition: int,
        key: bytes,
        value: bytes,
        headers: list[tuple[str, bytes]],
    ) -> Any:
        """Queue a record; a future. Raises at once what is known at once (too large, no such topic)."""
        return self._producer.send(
            topics.on_wire(topic), value=value, key=key or None, headers=headers, partition=partition
        )

    def settle(self, futures: Sequence[Any], timeout: float = 30.0) -> None:
        """Send what is queued and wait until each of these is acknowledged or refused, or the time is
        over.
        """
        until = time.monotonic() + timeout
        with contextlib.suppress(
            driver_errors.UnknownError
        ):  # kafka-python's flush gives up on a batch it split
            self._producer.flush(timeout=timeout)
        for future in futures:
            if not future.is_done:
                with contextlib.suppress(driver_errors.KafkaError):  # the future keeps its answer
                    future.get(timeout=max(until - time.monotonic(), 0.0))

    def close(self, timeout: float = 1.0) -> None:
        """Drop the connections; what is not acknowledged within ``timeout`` seconds is given up."""
        try:
            self._producer.close(timeout=timeout)
        except driver_errors.KafkaError as error:
            logger.warning("producer did not close in order", extra={"reason": type(error).__name__})


class _Noted(ConsumerRebalanceListener):  # type: ignore[misc] # kafka-python has no types
    """Runs on the consumer's I/O thread: notes, and calls nothing."""

    def __init__(self) -> None:
        self.changed: collections.deque[tuple[TopicPartition, bool]] = collections.deque()
        """Partitions, and whether they came (True) or went."""
        self.joined = False

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self.changed.extend((partition, False) for partition in revoked)

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self.changed.extend((partition, True) for partition in assigned)
        self.joined = True

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        self.changed.extend((partition, False) for partition in lost)


class Consumer:
    """A member of a group whose positions come from our own database.

    ``poll`` gives only records of partitions that were positioned with ``seek`` since they were assigned.
    """

    def __init__(
        self,
        bootstrap: Where,
        *,
        group: str,
        client_id: str,
        subscribe: Sequence[str],
        max_poll_records: int,
        session_timeout_ms: int = 10_000,
        max_poll_interval_ms: int = 300_000,
    ) -> None:
        """Raises ``TopicMissing``."""
        require_crc32c()
        self._noted = _Noted()
        self._assigned: set[Partition] = set()
        self._positioned: set[Partition] = set()
        self._held: frozenset[str] = frozenset()
        self._consumer = _connected(
            KafkaConsumer,
            bootstrap,
            client_id=client_id,
            group_id=topics.on_wire(group),
            auto_offset_reset="none",
            enable_auto_commit=False,
            allow_auto_create_topics=False,
            max_poll_records=max_poll_records,
            session_timeout_ms=session_timeout_ms,
            heartbeat_interval_ms=max(session_timeout_ms // 5, 500),
            max_poll_interval_ms=max_poll_interval_ms,
            fetch_max_wait_ms=200,
            fetch_max_bytes=FETCH_BYTES,
            max_partition_fetch_bytes=PARTITION_FETCH_BYTES,
            reconnect_backoff_max_ms=1_000,
            metrics_enabled=False,
        )
        try:
            self._subscribe(subscribe)
        except BaseException:
            self.close()
            raise

    def _subscribe(self, names: Sequence[str]) -> None:
        self._consumer.subscribe(topics=[topics.on_wire(name) for name in names], listener=self._noted)
        # A member that leads its group before it knows the topics assigns nothing, and does not look again. `topics`
        # waits until it knows them.
        self._consumer.topics()
        for name in names:
            found = len(self._consumer.partitions_for_topic(topics.on_wire(name)) or ())
            if found != topics.catalog()[name].partitions:
                raise TopicMissing(f"{name} has {found} partitions")

    def poll(self, timeout_ms: int) -> dict[Partition, list[Record]]:
        """Records by partition, in order. Raises ``RangeLost`` where a position is no longer in Kafka."""
        try:
            polled = self._consumer.poll(timeout_ms=timeout_ms)
        except driver_errors.NoOffsetForPartitionError:
            polled = {}  # nothing was ever committed for a partition: `unpositioned` tells of it
        except driver_errors.OffsetOutOfRangeError as error:
            polled = {}
            lost = {_ours(tp): offset for tp, offset in error.args[0].items()}
            self._note()
            if positioned := {p: offset for p, offset in lost.items() if p in self._positioned}:
                raise RangeLost(positioned) from None
        except driver_errors.RetriableError as error:
            # The driver keeps most of these to itself, but not a refused connection on the way to its coordinator.
            logger.warning("Kafka is away: polled again", extra={"reason": type(error).__name__})
            time.sleep(timeout_ms / 1000)
            polled = {}
        self._note()
        return {
            _ours(tp): [
                Record(record.offset, record.key or b"", record.value or b"", record.headers or ())
                for record in records
            ]
            for tp, records in polled.items()
            if _ours(tp) in self._positioned
        }

    def _note(self) -> None:
        while self._noted.changed:
            changed, came = self._noted.changed.popleft()
            partition = _ours(changed)
            self._positioned.discard(partition)
            (self._assigned.add if came else self._assigned.discard)(partition)

    def unpositioned(self) -> list[Partition]:
        """Assigned partitions that wait for ``seek``."""
        return sorted(self._assigned - self._positioned)

    def is_ready(self) -> bool:
        """True once the group gave this member its partitions (or none) and each is positioned."""
        return self._noted.joined and not self._noted.changed and not self.unpositioned()

    def is_positioned(self, partition: Partition) -> bool:
        """True while the partition is ours and was not given away since ``seek``, as far as ``poll`` has
        seen.
        """
        return partition in self._positioned

    def forget(self, partition: Partition) -> None:
        """Give nothing of the partition until the next ``seek``."""
        self._positioned.discard(partition)

    def seek(self, partition: Partition, offset: int) -> None:
        """Read on from ``offset``. A partition taken away meanwhile stays unpositioned."""
        self._positioned.discard(partition)
        try:
            self._consumer.seek(_in_kafka(partition), offset)
        except (ValueError, KeyError, AssertionError):
            return
        self._positioned.add(partition)

    def beginnings(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        """The oldest offset of each partition."""
        found = self._consumer.beginning_offsets([_in_kafka(p) for p in partitions])
        return {_ours(tp): offset for tp, offset in found.items()}

    def pause(self) -> None:
        """Fetch nothing while polling goes on."""
        self._consumer.pause(*self._consumer.assignment())

    def resume(self) -> None:
        """Fetch again, but for what is held."""
        held, paused = self._held_partitions(), self._consumer.paused()
        with contextlib.suppress(KeyError):  # taken away this moment: the next call sees it
            self._consumer.resume(*(paused - held))
            self._consumer.pause(*(held - paused))

    def hold(self, names: Collection[str]) -> None:
        """Fetch nothing of these topics until they are no longer named here; their partitions stay ours."""
        if names or self._held:
            self._held = frozenset(names)
            self.resume()

    def _held_partitions(self) -> set[TopicPartition]:
        if not self._held:
            return set()
        return {tp for tp in self._consumer.assignment() or () if _ours(tp).topic in self._held}

    def commit(self, offsets: Mapping[Partition, int], timeout_ms: int = 5_000) -> bool:
        """Tell Kafka how far we are, for lag and scaling only: False, and a line in the log, where it did not hear."""
        told = {_in_kafka(p): OffsetAndMetadata(offset, "", -1) for p, offset in offsets.items()}
        try:
            self._consumer.commit(told, timeout_ms=timeout_ms)
        except driver_errors.KafkaError as error:
            logger.info("lag not told to Kafka", extra={"reason": type(error).__name__})
            return False
        return True

    def close(self) -> None:
        """Leave the group at once, so that its other members go on."""
        try:
            self._consumer.close(autocommit=False, timeout_ms=5_000)
        except driver_errors.KafkaError as error:
            logger.warning("consumer did not close in order", extra={"reason": type(error).__name__})


class Ends:
    """Where partitions end, asked over a connection of its own that stays open; for one thread."""

    def __init__(self, bootstrap: Where) -> None:
        self._consumer = _connected(
            KafkaConsumer,
            bootstrap,
            enable_auto_commit=False,
            request_timeout_ms=10_000,
            metrics_enabled=False,
        )

    def of(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        """The offset of the next record of each. Raises ``Unavailable``."""
        found = self._consumer.end_offsets([_in_kafka(p) for p in partitions]) if partitions else {}
        return {_ours(tp): offset for tp, offset in found.items()}

    def close(self) -> None:
        """Drop the connection."""
        try:
            self._consumer.close(autocommit=False)
        except driver_errors.KafkaError as error:
            logger.info("connection did not close in order", extra={"reason": type(error).__name__})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Durability:
    """How safely Kafka keeps a topic: copies of each partition, and copies that must have a record before it counts as
    written. Without one, the broker's defaults."""

    replication: int
    min_insync: int


def create_missing(
    bootstrap: Where, catalog: topics.Catalog | None = None, *, durability: Durability | None = None
) -> list[str]:
    """Create the topics of topics.yaml that Kafka does not have; their names. Those that are there are left alone.

    Raises ValueError where a topic is there with another number of partitions (that number is part of the
    contract).
    """
    catalog = catalog or topics.catalog()
    admin = _connected(KafkaAdminClient, bootstrap)
    try:
        existing = _existing(admin, catalog)
        for name, found in existing.items():
            if len(found["partitions"]) != catalog[name].partitions:
                raise ValueError(
                    f"{name} has {len(found['partitions'])} partitions, topics.yaml says"
                    f" {catalog[name].partitions}"
                )
        missing = {
            topics.on_wire(topic.name): {
                "num_partitions": topic.partitions,
                "replication_factor": durability.replication if durability else -1,
                "configs": _configs(topic, durability),
            }
            for topic in catalog.by_name.values()
            if topic.name not in existing
        }
        if missing:
            try:
                admin.create_topics(missing, wait_for_metadata=True)
            except driver_errors.TopicAlreadyExistsError:
                logger.info("another process creates the topics")
        return sorted(name.removeprefix(topics.prefix()) for name in missing)
    finally:
        admin.close()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kept:
    """A topic as Kafka has it. ``copies`` are those of the partition with the fewest; ``leaderless`` and ``lagging``
    count partitions without a leader, and with a copy that is not in sync."""

    partitions: int
    copies: int
    leaderless: int
    lagging: int
    configs: Mapping[str, str]

    @property
    def min_insync(self) -> int:
        """Copies that must have a record before it counts as written."""
        return int(self.configs["min.insync.replicas"])

    @property
    def unclean(self) -> bool:
        """Whether a copy that lacks records may lead: what the others had is then gone."""
        return self.configs["unclean.leader.election.enable"] == "true"


def kept(bootstrap: Where, catalog: topics.Catalog | None = None) -> dict[str, Kept]:
    """Those topics of topics.yaml that Kafka has."""
    catalog = catalog or topics.catalog()
    admin = _connected(KafkaAdminClient, bootstrap)
    try:
        existing = _existing(admin, catalog)
        if not existing:
            return {}
        resources = [ConfigResource(ConfigResourceType.TOPIC, topics.on_wire(name)) for name in existing]
        described = admin.describe_configs(resources, config_filter="all")
    finally:
        admin.close()
    of_topic = next(iter(described.values()))
    return {
        name: Kept(
            partitions=len(found["partitions"]),
            copies=min(len(one["replica_nodes"]) for one in found["partitions"]),
            leaderless=sum(one["leader_id"] < 0 for one in found["partitions"]),
            lagging=sum(len(one["isr_nodes"]) < len(one["replica_nodes"]) for one in found["partitions"]),
            configs={key: str(one["value"]) for key, one in of_topic[topics.on_wire(name)].items()},
        )
        for name, found in existing.items()
    }


def drift(
    bootstrap: Where, catalog: topics.Catalog | None = None, *, durability: Durability | None = None
) -> list[str]:
    """Where Kafka's topics differ from topics.yaml and `durability`, a line each; nothing is changed."""
    catalog = catalog or topics.catalog()
    existing = kept(bootstrap, catalog)
    lines = [f"{name}: missing" for name in catalog.by_name if name not in existing]
    for name, found in existing.items():
        lines += [f"{name}: {line}" for line in differences(catalog[name], found, durability)]
    return sorted(lines)


def differences(topic: topics.Topic, found: Kept, durability: Durability | None) -> list[str]:
    """Where one topic differs from topics.yaml and `durability`."""
    lines = []
    if found.partitions != topic.partitions:
        lines.append(f"{found.partitions} partitions, expected {topic.partitions}")
    if durability is not None and found.copies < durability.replication:
        lines.append(f"{found.copies} copies, expected {durability.replication}")
    for key, wanted in _configs(topic, durability).items():
        if (value := found.configs[key]) != wanted:
            lines.append(f"{key} is {value}, expected {wanted}")
    return lines


def _existing(admin: KafkaAdminClient, catalog: topics.Catalog) -> dict[str, Any]:
    before = topics.prefix()
    return {
        found["name"].removeprefix(before): found
        for found in admin.describe_topics()
        if found["name"].startswith(before) and found["name"].removeprefix(before) in catalog.by_name
    }


def _configs(topic: topics.Topic, durability: Durability | None) -> dict[str, str]:
    configs = {
        "retention.ms": str(topic.retention_ms),
        "max.message.bytes": str(topic.max_bytes),
        "cleanup.policy": "delete",
    }
    if durability is not None:
        configs["min.insync.replicas"] = str(durability.min_insync)
        configs["unclean.leader.election.enable"] = "false"
    return configs


def beginnings(bootstrap: Where, partitions: Collection[Partition]) -> dict[Partition, int]:
    """The oldest offset of each partition, without joining a group."""
    return _offsets(bootstrap, partitions, "beginning_offsets")


def ends(bootstrap: Where, partitions: Collection[Partition]) -> dict[Partition, int]:
    """The offset of the next record of each partition, without joining a group."""
    return _offsets(bootstrap, partitions, "end_offsets")


def _offsets(bootstrap: Where, partitions: Collection[Partition], which: str) -> dict[Partition, int]:
    consumer = _connected(KafkaConsumer, bootstrap, enable_auto_commit=False, metrics_enabled=False)
    try:
        found = getattr(consumer, which)([_in_kafka(p) for p in partitions])
        return {_ours(tp): offset for tp, offset in found.items()}
    finally:
        consumer.close(autocommit=False)
