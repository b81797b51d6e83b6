"""More and fewer processes while calls and work go on: no call fails, partitions move, order per case holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster import groups, installation, work

SERVERS = ("case-serve", "agreement-serve")
WORKERS = ("case-worker", "agreement-worker")

pytestmark = pytest.mark.timeout(1500)


def test_servers_and_workers_go_from_one_to_three_and_back(
    installed: installation.Installation, tmp_path: Path
) -> None:
    for component in SERVERS:
        installed.scale(component, 1)
    all_partitions = {component: groups.partitions_of(component) for component in WORKERS}
    try:
        with work.disturbed(installed, tmp_path, "one to three and back"):
            for component in (*SERVERS, *WORKERS):
                installed.scale(component, 3)
            for component in WORKERS:
                groups.await_shares(installed, component, members=3, partitions=all_partitions[component])
            for component in (*SERVERS, *WORKERS):
                installed.scale(component, 1)
            for component in WORKERS:
                groups.await_shares(installed, component, members=1, partitions=all_partitions[component])
            for component in SERVERS:
                installed.replace(component)
        assert not installed.restarts()
    finally:
        for component in SERVERS:
            installed.scale(component, 2)


def test_servers_follow_their_load(installed: installation.Installation, tmp_path: Path) -> None:
    installation.until("metrics of pods, without which no HPA scales", installed.usage, seconds=120)
    scaled = {"enabled": True, "minReplicas": 1, "maxReplicas": 3, "cpuPercent": 50, "scaleDownSeconds": 15}
    serve = {"resources": {"requests": {"cpu": "30m"}}, "autoscaling": scaled}
    installed.upgrade(changed={"services": {"case": {"serve": serve}}})
    try:
        installation.until("one server while there is no load", lambda: running(installed) == 1, seconds=300)
        with work.disturbed(installed, tmp_path, "scaling by load"):
            installation.until("three servers under load", lambda: running(installed) == 3, seconds=300)
        installation.until("one server after the load", lambda: running(installed) == 1, seconds=300)
    finally:
        installed.upgrade()


def running(installed: installation.Installation) -> int:
    """Servers of case that are ready."""
    name = f"{installation.RELEASE}-case-serve"
    status = installed.get("deployment", name)["status"]
    return int(status.get("readyReplicas", 0)) if status.get("replicas") == status.get("readyReplicas") else 0
