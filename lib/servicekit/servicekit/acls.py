"""What each user of Kafka must be allowed, and no more, from topics.yaml: for brokers that authorize.

``python -m servicekit acls`` prints it in the shape of Strimzi's KafkaUser (``spec.authorization.acls``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from servicekit import topics

TOPICS_JOB = "topics"
SCALER = "scaler"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """Operations (Kafka's names) allowed on one topic or group. Read and Write imply Describe, as in Kafka."""

    kind: str
    name: str
    operations: tuple[str, ...]

    def as_strimzi(self) -> Mapping[str, Any]:
        """An entry of a KafkaUser's ``acls``."""
        resource = {"type": self.kind, "name": self.name, "patternType": "literal"}
        return {"resource": resource, "operations": list(self.operations)}


def of_service(service: str, catalog: topics.Catalog | None = None) -> list[Rule]:
    """Of a service's worker: read what it consumes in its own group, write what it produces, and see the settings of
    these topics (doctor). Its API needs nothing of Kafka. An idempotent producer needs no more than Write.
    """
    catalog = catalog or topics.catalog()
    rules = []
    for topic in catalog.used_by(service).by_name.values():
        does = [
            *(["Read"] if service in topic.consumers else []),
            *(["Write"] if topic.producer in (service, topics.ANY) else []),
        ]
        rules.append(_topic(topic, *does, "DescribeConfigs"))
    return [*rules, Rule(kind="group", name=group(service), operations=("Read",))]


def of_topics_job(catalog: topics.Catalog | None = None) -> list[Rule]:
    """Of ``python -m servicekit topics``: create each topic, and see its settings."""
    catalog = catalog or topics.catalog()
    return [_topic(topic, "Create", "Describe", "DescribeConfigs") for topic in catalog.by_name.values()]


def of_scaler(catalog: topics.Catalog | None = None) -> list[Rule]:
    """Of what scales workers by lag (KEDA): see where topics end and how far groups are."""
    catalog = catalog or topics.catalog()
    consumed = [topic for topic in catalog.by_name.values() if topic.consumers]
    readers = sorted({service for topic in consumed for service in topic.consumers})
    return [
        *(_topic(topic, "Describe") for topic in consumed),
        *(Rule(kind="group", name=group(service), operations=("Describe",)) for service in readers),
    ]


def all_users(catalog: topics.Catalog | None = None) -> dict[str, list[Rule]]:
    """By user: each service's name, ``TOPICS_JOB``, ``SCALER``."""
    catalog = catalog or topics.catalog()
    services = {
        name
        for topic in catalog.by_name.values()
        for name in (topic.producer, *topic.consumers)
        if name != topics.ANY
    }
    return {
        **{service: of_service(service, catalog) for service in sorted(services)},
        TOPICS_JOB: of_topics_job(catalog),
        SCALER: of_scaler(catalog),
    }


def group(service: str) -> str:
    """A service's group in Kafka."""
    return topics.on_wire(f"recupera.{service}")


def _topic(topic: topics.Topic, *operations: str) -> Rule:
    return Rule(kind="topic", name=topics.on_wire(topic.name), operations=operations)
