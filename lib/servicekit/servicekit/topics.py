"""Topics as data: ``deploy/topics.yaml``, read by code, tests and chart alike (architecture §6)."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import uuid
import zlib
from collections.abc import Mapping
from typing import Any

import yaml

FILE_VARIABLE = "RECUPERA_TOPICS_FILE"
PREFIX_VARIABLE = "RECUPERA_TOPIC_PREFIX"
"""What stands before every topic and group in Kafka, so that several platforms (tests) share a broker; else
empty. Only ``kafka`` knows of it: code, databases and headers have the names of topics.yaml.
"""
DEAD_LETTERS = "recupera.dead-letters.v1"
ANY = "any"
"""The producer of a topic to which every service may write."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topic:
    """One topic. ``message`` is the protobuf full name of its records, empty for dead letters."""

    name: str
    partitions: int
    message: str
    retention_ms: int
    max_bytes: int
    producer: str
    consumers: tuple[str, ...]


class Catalog:
    """The topics of one file, by name and by message."""

    def __init__(self, topics: list[Topic]) -> None:
        self.by_name: Mapping[str, Topic] = {topic.name: topic for topic in topics}
        self.by_message: Mapping[str, Topic] = {topic.message: topic for topic in topics if topic.message}
        if len(self.by_name) != len(topics):
            raise ValueError("a topic is listed twice")

    def __getitem__(self, name: str) -> Topic:
        try:
            return self.by_name[name]
        except KeyError:
            raise ValueError(f"topic {name} is not in topics.yaml") from None

    def of(self, message: str) -> Topic:
        """The topic of a message's full name. Raises ValueError when none carries it."""
        try:
            return self.by_message[message]
        except KeyError:
            raise ValueError(f"no topic in topics.yaml carries {message}") from None

    def used_by(self, service: str) -> Catalog:
        """The topics that a service reads or writes; Kafka need not show it the others (``acls``)."""
        return Catalog(
            [
                topic
                for topic in self.by_name.values()
                if service in topic.consumers or topic.producer in (service, ANY)
            ]
        )


def path() -> pathlib.Path:
    """``RECUPERA_TOPICS_FILE``, else ``deploy/topics.yaml`` above this package, else the installed copy."""
    if given := os.environ.get(FILE_VARIABLE):
        return pathlib.Path(given)
    here = pathlib.Path(__file__).resolve()
    for folder in here.parents:
        if (candidate := folder / "deploy" / "topics.yaml").is_file():
            return candidate
    return here.parent / "topics.yaml"


def load(file: pathlib.Path) -> Catalog:
    """Read one topics file. Raises ValueError or KeyError on a bad one."""
    document: Mapping[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    defaults: Mapping[str, Any] = document.get("defaults", {})
    return Catalog([_topic({**defaults, **entry}) for entry in document["topics"]])


def catalog() -> Catalog:
    """The process's topics, read once (again where ``RECUPERA_TOPICS_FILE`` changes)."""
    return _cached(os.environ.get(FILE_VARIABLE, ""))


@functools.cache
def _cached(_given: str) -> Catalog:
    return load(path())


def _topic(entry: Mapping[str, Any]) -> Topic:
    topic = Topic(
        name=str(entry["name"]),
        partitions=int(entry["partitions"]),
        message=str(entry.get("message") or ""),
        retention_ms=int(entry["retention_ms"]),
        max_bytes=int(entry["max_message_bytes"]),
        producer=str(entry["producer"]),
        consumers=tuple(str(name) for name in entry["consumers"]),
    )
    if topic.partitions < 1:
        raise ValueError(f"{topic.name}: partitions must be at least 1")
    return topic


def prefix() -> str:
    """``RECUPERA_TOPIC_PREFIX``."""
    return os.environ.get(PREFIX_VARIABLE, "")


def on_wire(name: str) -> str:
    """A topic's or group's name in Kafka."""
    return prefix() + name


def partition_of(key: uuid.UUID, partitions: int) -> int:
    """``crc32(id bytes) mod n``: the partition of a case. In SQL: ``crc32(uuid_send(id)) % n``."""
    return zlib.crc32(key.bytes) % partitions
