"""What breaks on a cluster, and the platform heals by itself: nothing lost, nothing twice, and somebody is told.

Each test works portfolios of agencies of its own, one after another, while the fault happens, and goes on until it is
over; then the money is counted a second time from the files, copies are compared with their owners' rows, and each mail
is in the mail box once. Callers try again (`PATIENCE`), as the documents tell creditors' systems to.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cluster import installation, observed, work

from recupera_local import ports

PATIENCE = 240.0
IN_THE_ACT = 10
"""Messages that notify has in the act at one moment: UNKNOWN after a kill, and never sent again by themselves."""
COMPONENTS = (
    "gateway",
    *(f"{service}-{role}" for service in ports.SERVICES for role in installation.ROLES),
)

FILL = """
import os, time
while True:  # many small ones: it is the worker that the kernel finds to be the largest
    if not os.fork():
        held = b"x" * (24 << 20)
        time.sleep(120)  # the memory is held: nobody waits for this
    time.sleep(0.02)  # the pace at which the container fills
"""

pytestmark = pytest.mark.timeout(900)


def test_each_deployment_loses_its_pods_in_turn(installed: installation.Installation, tmp_path: Path) -> None:
    with worked(installed, tmp_path, unknown=IN_THE_ACT):
        for component in COMPONENTS:
            killed = kill(installed, component)
            await_healed(installed, component, without=killed)


def test_all_pods_go_at_once(installed: installation.Installation, tmp_path: Path) -> None:
    with observed.running(installed, tmp_path / "prometheus") as prometheus:
        assert "RecuperaComponentDown" not in prometheus.alerts()
        with worked(installed, tmp_path, unknown=IN_THE_ACT):
            killed = kill(installed, *COMPONENTS)
            prometheus.await_alert("RecuperaComponentDown")
            await_healed(installed, without=killed)
        prometheus.await_quiet("RecuperaComponentDown")


def test_a_worker_is_killed_at_its_memory_limit(installed: installation.Installation, tmp_path: Path) -> None:
    with observed.running(installed, tmp_path / "prometheus") as prometheus:
        assert "RecuperaPodOutOfMemory" not in prometheus.alerts()
        with worked(installed, tmp_path):
            [pod] = installed.pods("import-worker")
            name = pod["metadata"]["name"]
            before = _status(pod)["restartCount"]
            with pytest.raises(installation.CommandFailed):
                installed.kubectl("exec", name, "--", "python", "-c", FILL)
            found = installation.until(
                "the restart", lambda: _restarted(installed, name, before), seconds=180
            )
            assert found["lastState"]["terminated"]["reason"] == "OOMKilled"
            told = prometheus.await_alert("RecuperaPodOutOfMemory")
            assert (told["pod"], told["container"]) == (name, "worker")
            await_healed(installed, "import-worker")
        [pod] = installed.pods("import-worker")
        assert pod["metadata"]["name"] == name, "the container was started again, not the pod"


def test_postgres_goes_away_and_comes_back(installed: installation.Installation, tmp_path: Path) -> None:
    expected = ("RecuperaServiceUnreachable", "RecuperaRelayFailing")
    with observed.running(installed, tmp_path / "prometheus") as prometheus:
        assert not set(expected) & set(prometheus.alerts())
        restarts = installed.restarts()
        with worked(installed, tmp_path, unknown=IN_THE_ACT):
            installed.backing.postgres.process.kill()
            try:
                for name in expected:
                    prometheus.await_alert(name)
                assert not installed.healthy()
            finally:
                installed.backing.postgres.start()
            await_healed(installed)
        prometheus.await_quiet("RecuperaServiceUnreachable")
        assert installed.restarts() == restarts, "it is waited for, not crashed over"


def test_kafka_goes_away_and_comes_back(installed: installation.Installation, tmp_path: Path) -> None:
    with observed.running(installed, tmp_path / "prometheus") as prometheus:
        assert "RecuperaRelayFailing" not in prometheus.alerts()
        restarts = installed.restarts()
        with worked(installed, tmp_path) as works:
            installed.backing.kafka.process.kill()
            try:
                # A relay waits half a minute for an answer before it counts a failure.
                prometheus.await_alert("RecuperaRelayFailing", seconds=240)
                installation.until("calls answered without Kafka", installed.healthy, seconds=30)
                assert int(works[-1].journey.gateway.get("batches")["batches"][0]["rowsRead"])
            finally:
                installed.backing.kafka.start()
            await_healed(installed)
        assert "RecuperaServiceUnreachable" not in prometheus.alerts()
        assert installed.restarts() == restarts, "it is waited for, not crashed over"


@contextlib.contextmanager
def worked(
    installed: installation.Installation, folder: Path, *, unknown: int = 0
) -> Iterator[list[work.Work]]:
    """Portfolio after portfolio is imported and worked for a day, each by an agency of its own, while the block runs.

    The block begins in the midst of an import. Afterwards all of it must be right, but for so many messages UNKNOWN.
    """
    over = threading.Event()
    done: list[work.Work] = []
    failed: list[BaseException] = []

    def go() -> None:
        try:
            while not over.is_set():
                seed = len(done)
                done.append(
                    work.Work(
                        installed, folder / f"work-{seed}", debtors=60, days=1, seed=seed, patience=PATIENCE
                    )
                )
                done[-1].place()
                done[-1].work()
        except BaseException as error:  # handed to the thread that waits
            failed.append(error)

    thread = threading.Thread(target=go, name="work", daemon=True)
    thread.start()
    try:
        installation.until("an import", lambda: failed or _importing(done), seconds=120)
        yield done
    finally:
        over.set()
        thread.join()
    if failed:
        raise failed[0]
    for one in done:
        one.check(unknown=unknown)


def _importing(done: list[work.Work]) -> bool:
    return bool(done and done[0].journey.gateway.get("batches").get("batches"))


def kill(installed: installation.Installation, *components: str) -> list[str]:
    """All pods of these components at once, without time to say goodbye; their names."""
    names = [name for component in components for name in installation.names(installed.pods(component))]
    installed.kubectl("delete", "pods", *names, "--force", "--grace-period=0", "--wait=false")
    return names


def await_healed(
    installed: installation.Installation, component: str | None = None, *, without: Sequence[str] = ()
) -> None:
    """Until the Deployment (all of them) has every pod it should have, ready, and the gateway sees every service.

    And until the pods `without` are gone: while they are there the numbers may be those of before.
    """

    def healed() -> bool:
        if set(without) & set(installation.names(installed.pods())):
            return False
        selector = f"app.kubernetes.io/instance={installation.RELEASE}"
        if component is not None:
            selector += f",app.kubernetes.io/component={component}"
        found = installed.get("deployments", "--selector", selector)["items"]
        wanted = {one["metadata"]["name"]: one["spec"]["replicas"] for one in found}
        ready = {one["metadata"]["name"]: one["status"].get("readyReplicas", 0) for one in found}
        return bool(wanted) and ready == wanted and installed.healthy()

    installation.until(f"{component or 'everything'} ready again", healed, seconds=240)


def _status(pod: dict[str, Any]) -> dict[str, Any]:
    [status] = pod["status"]["containerStatuses"]
    return dict(status)


def _restarted(installed: installation.Installation, name: str, before: int) -> dict[str, Any] | None:
    status = _status(installed.get("pod", name))
    return status if status["restartCount"] > before and status["ready"] else None
