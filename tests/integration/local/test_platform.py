"""The platform as one object, with one of its services: what the fault tests, the demo and the bench rely on."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from recupera_local import platform, ports, processes
from support import waiting

SERVICE = "dialer"
UP = 60.0


def make(folder: Path, **options: object) -> platform.Platform:
    """A platform with one service."""
    return platform.Platform(state_dir=folder, ports=ports.free(), services=[SERVICE], **options)  # type: ignore[arg-type]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[platform.Platform]:
    """A running platform."""
    made = make(tmp_path)
    made.start()
    yield made
    made.stop()


def test_processes_are_killed_started_and_kept_alive_by_name(running: platform.Platform) -> None:
    names = {"postgres", "kafka", "envoy", "mailbox", "migrate", f"{SERVICE}.serve", f"{SERVICE}.worker"}
    assert set(running.processes()) == names
    assert set(running.memory_pss()) == names - {"migrate"}
    assert all(megabytes > 5 for megabytes in (size // 2**20 for size in running.memory_pss().values()))

    # The service answers behind the gateway, with its token and without.
    campaigns = f"{running.gateway_url}/v1/agencies/{running.agency}/campaigns"
    assert (
        httpx.get(campaigns, headers={"authorization": f"Bearer {running.token()}"}).json()["campaigns"] == []
    )
    assert httpx.get(campaigns).json()["details"][0]["reason"] == "TOKEN_MISSING"
    assert httpx.get(f"{running.mailbox_url}/messages").json()["count"] == 0

    # Its role is not the owner of its tables.
    with (
        psycopg.connect(running.url(SERVICE)) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("DROP TABLE outbox")

    # Killed, it stays dead until it is started.
    for name in sorted(names - {"migrate"}):
        before = running.processes()[name].pid
        running.kill(name)
        assert not running.processes()[name].alive
        running.start_process(name, wait=True)
        assert running.processes()[name].pid not in (None, before)
    waiting.until(lambda: httpx.get(f"{running.gateway_url}/health").status_code == 200, timeout=UP)

    # What dies by itself is started again.
    worker = running.processes()[f"{SERVICE}.worker"]
    before = worker.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    waiting.until(lambda: worker.pid not in (None, before), timeout=UP)
    assert running.failure is None

    # A second worker shares the work, under a name of its own.
    second = running.start_second_worker(SERVICE)
    running.processes()[second].wait_ready()
    assert second != f"{SERVICE}.worker"
    running.kill(second)


def test_state_is_kept_and_nothing_is_left_running(tmp_path: Path) -> None:
    made = make(tmp_path)
    made.start()
    pids = [process.pid for process in made.processes().values() if process.pid is not None]
    children = [psutil.Process(pid) for pid in pids]
    with psycopg.connect(made.owner_url(SERVICE)) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
    made.stop()
    assert all(processes.gone(child) for child in children)
    made.start()
    with psycopg.connect(made.owner_url(SERVICE)) as connection:
        assert connection.execute("SELECT n FROM kept").fetchall() == [(1,)]
    made.stop()


def test_a_taken_port_stops_the_start_before_anything_runs(tmp_path: Path) -> None:
    made = make(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", made.ports["kafka"]))
        taken.listen()
        with pytest.raises(ports.PortInUse, match="kafka"):
            made.start()
    assert not made.processes()


def test_a_service_that_cannot_start_is_reported_with_its_log_and_all_is_stopped(tmp_path: Path) -> None:
    made = make(tmp_path, environ={"RECUPERA_LOG_LEVEL": "LOUD"})
    with pytest.raises(
        processes.ProcessFailed, match=r"dialer\.serve ended with exit code(.|\n)*RECUPERA_LOG_LEVEL"
    ):
        made.start()
    assert not any(process.alive for process in made.processes().values())
