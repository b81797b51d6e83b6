"""KEDA itself gives a worker more pods by lag, and takes them back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import figures, groups, installation, keda, work

SERVICE = "agreement"
TOPIC = "recupera.case.v1"
MOST = 3
LAG = 50
COOLDOWN = 15
UNREACHED = 1_000_000

pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def scaled(
    prepared: installation.Installation, request: pytest.FixtureRequest
) -> Iterator[installation.Installation]:
    """The installation with two workers that KEDA scales: one at a low lag, one at a lag that is never reached."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(keda.running(prepared))
        except keda.KedaMissing as missing:
            pytest.skip(str(missing))
        installed: installation.Installation = request.getfixturevalue("installed")
        low = {"enabled": True, "maxReplicas": MOST, "lag": LAG, "cooldownSeconds": COOLDOWN}
        high = {"enabled": True, "maxReplicas": 100, "lag": UNREACHED}
        stack.callback(installed.upgrade)  # while KEDA still acts: it takes its finalizers off
        installed.upgrade(
            changed={"services": {SERVICE: {"worker": {"keda": low}}, "import": {"worker": {"keda": high}}}}
        )
        for service in (SERVICE, "import"):
            installation.until(f"lag of {service} read", lambda of=service: reads(installed, of), seconds=120)
        yield installed


def test_a_worker_follows_its_lag(scaled: installation.Installation, tmp_path: Path) -> None:
    most = {service: autoscaled(scaled, service)[0]["spec"]["maxReplicas"] for service in (SERVICE, "import")}
    assert most == {SERVICE: MOST, "import": 24}, "more workers than partitions"
    partitions = groups.partitions_of(f"{SERVICE}-worker")
    with work.disturbed(scaled, tmp_path, "scaling by lag"):
        with paused(scaled):
            installation.until("lag above the threshold", lambda: lag(scaled) > LAG, seconds=120)
            started = time.monotonic()
            installation.until("a second pod", lambda: wanted(scaled) > 1, seconds=120)
            asked = time.monotonic() - started
            groups.await_shares(scaled, f"{SERVICE}-worker", members=MOST, partitions=partitions)
            shared, left = time.monotonic() - started, lag(scaled)
        started = time.monotonic()
        installation.until("lag below the threshold", lambda: lag(scaled) < LAG, seconds=120)
        caught_up = time.monotonic() - started
        installation.until("one pod", lambda: wanted(scaled) == 1, seconds=300)
        groups.await_shares(scaled, f"{SERVICE}-worker", members=1, partitions=partitions)
        alone = time.monotonic() - started
    figures.note(
        f"a worker by KEDA, {LAG} records a pod, cooldown {COOLDOWN} s",
        f"second pod asked for {asked:.0f} s after lag was above, {MOST} share the partitions after {shared:.0f} s "
        f"({left} records behind); caught up {caught_up:.0f} s after the pause, one alone after {alone:.0f} s",
    )


def test_a_paused_object_leaves_the_worker_to_people(scaled: installation.Installation) -> None:
    """As docs/operations.md has it: with the pods that there are, or with none."""
    named = f"scaledobject/{installation.RELEASE}-import-worker"
    scaled.kubectl("annotate", named, "autoscaling.keda.sh/paused=true")
    installation.until("no HPA", lambda: not autoscaled(scaled, "import"), seconds=90)
    assert len(scaled.pods("import-worker")) == 1
    scaled.kubectl("annotate", named, "autoscaling.keda.sh/paused-")
    installation.until("an HPA again", lambda: autoscaled(scaled, "import"), seconds=90)
    scaled.kubectl("annotate", named, "autoscaling.keda.sh/paused-replicas=0")
    installation.until("no worker", lambda: not scaled.pods("import-worker"), seconds=90)
    scaled.kubectl("annotate", named, "autoscaling.keda.sh/paused-replicas-")
    installation.until("a worker again", lambda: scaled.pods("import-worker"), seconds=90)
    scaled.kubectl("rollout", "status", f"deployment/{installation.RELEASE}-import-worker", "--timeout=180s")


@contextlib.contextmanager
def paused(installed: installation.Installation) -> Iterator[None]:
    """The service applies no facts of cases while the block runs."""
    command = (
        "exec",
        f"deploy/{installation.RELEASE}-{SERVICE}-worker",
        "--",
        "python",
        "-m",
        f"{SERVICE}_service",
    )
    installed.kubectl(*command, "pause", TOPIC, "--reason", "lag")
    try:
        yield
    finally:
        installed.kubectl(*command, "resume", TOPIC)


def autoscaled(installed: installation.Installation, service: str) -> list[dict[str, Any]]:
    """The HPA that KEDA made of a worker's object; none when it has not."""
    name = f"keda-hpa-{installation.RELEASE}-{service}-worker"
    found: list[dict[str, Any]] = installed.get("hpa")["items"]
    return [one for one in found if one["metadata"]["name"] == name]


def reads(installed: installation.Installation, service: str) -> bool:
    """Whether KEDA made an HPA of a worker's object, and the HPA knows the lag of each topic."""
    for one in autoscaled(installed, service):
        known = {told["type"]: told["status"] for told in one["status"].get("conditions", ())}
        metrics = one["status"].get("currentMetrics") or ()
        return known.get("ScalingActive") == "True" and len(metrics) == len(one["spec"]["metrics"])
    return False


def wanted(installed: installation.Installation) -> int:
    """Pods that the Deployment was told to have."""
    found = installed.get("deployment", f"{installation.RELEASE}-{SERVICE}-worker")
    return int(found["spec"]["replicas"])


def lag(installed: installation.Installation) -> int:
    """How far the paused service is behind, as its trigger says it is read."""
    named = f"{installation.RELEASE}-{SERVICE}-worker"
    triggers = installed.get("scaledobject", named)["spec"]["triggers"]
    [trigger] = [one["metadata"] for one in triggers if one["metadata"]["topic"] == TOPIC]
    return groups.lag(trigger, installed.bootstrap)
