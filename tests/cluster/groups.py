"""Consumer groups as the broker tells of them: who has which partitions, how far behind they are."""

from __future__ import annotations

import kafka
from cluster import installation

from servicekit import topics


def partitions_of(component: str) -> int:
    """How many partitions a service's workers share."""
    service = component.removesuffix("-worker")
    return sum(topic.partitions for topic in topics.catalog().by_name.values() if service in topic.consumers)


def await_shares(
    installed: installation.Installation, component: str, *, members: int, partitions: int
) -> None:
    """Until so many members share all partitions of the group, each having some."""
    group = f"recupera.{component.removesuffix('-worker')}"

    def shared() -> bool:
        shares = shares_of(installed, group)
        return len(shares) == members and all(shares.values()) and sum(shares.values()) == partitions

    installation.until(f"{partitions} partitions of {group} on {members} workers", shared, seconds=180)


def shares_of(installed: installation.Installation, group: str) -> dict[str, int]:
    """Partitions of each member of a consumer group, as the broker says it."""
    admin = kafka.KafkaAdminClient(bootstrap_servers=installed.bootstrap)
    try:
        described = admin.describe_groups([group])[group]
    finally:
        admin.close()
    if described["group_state"] != "Stable":
        return {}
    return {
        member["member_id"]: sum(
            len(one["partitions"]) for one in member["member_assignment"]["assigned_partitions"]
        )
        for member in described["members"]
    }


def lag(trigger: dict[str, str], bootstrap: str) -> int:
    """The sum over a topic's partitions as KEDA's scaler makes it: Metadata, OffsetFetch of the group, ListOffsets.

    A partition for which the group never told an offset counts whole, as `offsetResetPolicy: earliest` says.
    """
    assert trigger["offsetResetPolicy"] == "earliest"
    group, topic = trigger["consumerGroup"], trigger["topic"]
    consumer = kafka.KafkaConsumer(
        topic, bootstrap_servers=bootstrap, group_id=None, enable_auto_commit=False
    )
    admin = kafka.KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        partitions = installation.until(topic, lambda: consumer.partitions_for_topic(topic))
        places = [kafka.TopicPartition(topic, one) for one in partitions]
        ends = consumer.end_offsets(places)
        told = admin.list_group_offsets({group: None})[group]
        return sum(ends[one] - (max(told[one].offset, 0) if one in told else 0) for one in places)
    finally:
        admin.close()
        consumer.close()
