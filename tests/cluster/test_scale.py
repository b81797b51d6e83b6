"""More and fewer processes while calls and work go on: no call fails, partitions move, order per case holds."""

from __future__ import annotations

from pathlib import Path

import kafka
import pytest
from cluster import installation, work

from servicekit import topics

SERVERS = ("case-serve", "agreement-serve")
WORKERS = ("case-worker", "agreement-worker")

pytestmark = pytest.mark.timeout(1500)


def test_servers_and_workers_go_from_one_to_three_and_back(
    installed: installation.Installation, tmp_path: Path
) -> None:
    for component in SERVERS:
        installed.scale(component, 1)
    all_partitions = {component: partitions_of(component) for component in WORKERS}
    with work.disturbed(installed, tmp_path, "one to three and back"):
        for component in (*SERVERS, *WORKERS):
            installed.scale(component, 3)
        for component in WORKERS:
            await_shares(installed, component, members=3, partitions=all_partitions[component])
        for component in (*SERVERS, *WORKERS):
            installed.scale(component, 1)
        for component in WORKERS:
            await_shares(installed, component, members=1, partitions=all_partitions[component])
    assert not installed.restarts()
    for component in SERVERS:
        installed.scale(component, 2)


def test_servers_follow_their_load(installed: installation.Installation, tmp_path: Path) -> None:
    assert installed.usage(), "the cluster has no metrics server: an HPA cannot scale"
    scaled = {"enabled": True, "minReplicas": 1, "maxReplicas": 3, "cpuPercent": 50, "scaleDownSeconds": 15}
    serve = {"resources": {"requests": {"cpu": "50m"}}, "autoscaling": scaled}
    installed.upgrade(changed={"services": {"case": {"serve": serve}}})
    installation.until("one server while there is no load", lambda: running(installed) == 1, seconds=300)
    with work.disturbed(installed, tmp_path, "scaling by load"):
        installation.until("three servers under load", lambda: running(installed) == 3, seconds=300)
    installation.until("one server after the load", lambda: running(installed) == 1, seconds=300)
    installed.upgrade()


def running(installed: installation.Installation) -> int:
    """Servers of case that are ready."""
    name = f"{installation.RELEASE}-case-serve"
    status = installed.get("deployment", name)["status"]
    return int(status.get("readyReplicas", 0)) if status.get("replicas") == status.get("readyReplicas") else 0


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
