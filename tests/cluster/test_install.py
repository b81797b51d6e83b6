"""`helm install --wait` where only PostgreSQL, Kafka, a mail server and Secrets are; then the main job on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster import figures, installation, work

from recupera_local import ports

pytestmark = pytest.mark.timeout(900)


def test_everything_is_there_when_the_command_returns(installed: installation.Installation) -> None:
    figures.note("helm install --wait", f"{installed.install_seconds:.0f} s")
    [release] = installed.revisions()
    assert release["status"] == "deployed"
    for component in installation.COMPONENTS:
        found = installed.pods(component)
        assert found, f"no pod of {component}"
        for pod in found:
            ready = {one["type"]: one["status"] for one in pod["status"]["conditions"]}["Ready"]
            assert ready == "True", pod["metadata"]["name"]
    jobs = installed.get("jobs")["items"]
    assert not jobs, f"jobs are left: {installation.names(jobs)}"
    assert installed.healthy()


def test_each_service_finds_itself_well(installed: installation.Installation) -> None:
    for service in ports.SERVICES:
        installed.kubectl(
            "exec",
            f"deployment/{installation.RELEASE}-{service}-worker",
            "--",
            "python",
            "-m",
            f"{service}_service",
            "doctor",
        )


def test_helm_test(installed: installation.Installation) -> None:
    said = installed.helm("test", installation.RELEASE, "--logs", "--timeout", "5m")
    assert "Succeeded" in said


def test_the_main_job_and_what_it_costs(installed: installation.Installation, tmp_path: Path) -> None:
    work.await_rest(installed)
    at_rest = figures.sampled(installed, seconds=20)
    done = work.Work(installed, tmp_path, debtors=200, days=3, seed=20261123)
    done.place()
    with figures.sampling(installed) as busy, done.working():
        pass
    done.check()
    assert at_rest, "the cluster has no metrics server: no figures of memory and processor"
    for component in installation.COMPONENTS:
        rest, most = at_rest[component], busy[component]
        figures.note(
            f"a pod of {component}",
            f"at rest {rest.memory >> 20} MiB, {rest.cpu:.0f}m; "
            f"in the demo at most {most.memory >> 20} MiB, {most.cpu:.0f}m",
        )
    assert not installed.restarts()
