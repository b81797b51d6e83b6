"""What pods may do on a real cluster, by asking in them; and what workers are scaled by."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from cluster import groups, installation, work

from recupera_local import ports

pytestmark = pytest.mark.timeout(900)

LOOK = """
import errno, json, os, pathlib
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/1/status").read_text().splitlines())
def refusal(path):
    try:
        pathlib.Path(path, "written").write_text("x")
        os.unlink(os.path.join(path, "written"))
    except OSError as error:
        return errno.errorcode[error.errno]
    return "written"
print(json.dumps({
    "uids": sorted(set(status["Uid"].split())),
    "gids": sorted(set(status["Gid"].split())),
    "capabilities": [status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
    "no new privileges": status["NoNewPrivs"].strip(),
    "seccomp": status["Seccomp"].strip(),
    "token": os.path.exists("/var/run/secrets/kubernetes.io"),
    "writes": {path: refusal(path) for path in ("/", "/app", "/etc", "/keys/own", "/tmp")},
    "others' processes": sum(name.isdigit() for name in os.listdir("/proc")) > 20,
}))
"""
NOTHING = "0" * 16


def test_the_namespace_takes_restricted_pods_only(installed: installation.Installation) -> None:
    labels = installed.get("namespace", installed.namespace)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    careless = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "careless"},
        "spec": {"containers": [{"name": "one", "image": installed.settings.image}]},
    }
    with pytest.raises(installation.CommandFailed, match='violates PodSecurity "restricted'):
        installed.kubectl("create", "--dry-run=server", "-f", "-", given=json.dumps(careless))
    pods = installed.pods()
    assert len({one["metadata"]["labels"]["app.kubernetes.io/component"] for one in pods}) == 11
    assert {one["status"]["phase"] for one in pods} == {"Running"}


@pytest.mark.parametrize(
    "component", [f"{service}-{role}" for service in ports.SERVICES for role in installation.ROLES]
)
def test_a_running_container_has_no_rights(installed: installation.Installation, component: str) -> None:
    pod = installed.pods(component)[0]["metadata"]["name"]
    found = json.loads(installed.kubectl("exec", pod, "--", "python", "-c", LOOK))
    assert found == {
        "uids": ["65532"],
        "gids": ["65532"],
        "capabilities": [NOTHING] * 5,
        "no new privileges": "1",
        "seccomp": "2",
        "token": False,
        "writes": {"/": "EROFS", "/app": "EROFS", "/etc": "EROFS", "/keys/own": "EROFS", "/tmp": "written"},
        "others' processes": False,
    }


def test_the_api_server_takes_what_keda_is_told(installed: installation.Installation) -> None:
    admitted = {
        "security": "SASL_SSL",
        "tls": {"caSecret": "brokers"},
        "user": {"secret": "brokers"},
        "topics": {"user": {"secret": "brokers"}},
        "scaler": {"authentication": "lag"},
    }
    scaled = [one for one in _rendered(installed, kafka=admitted) if one["kind"] == "ScaledObject"]
    assert sorted(one["metadata"]["name"] for one in scaled) == sorted(
        f"{installation.RELEASE}-{service}-worker" for service in ports.SERVICES
    )
    for one in scaled:
        for trigger in one["spec"]["triggers"]:
            assert trigger["authenticationRef"] == {"name": "lag", "kind": "TriggerAuthentication"}
            assert (trigger["metadata"]["tls"], trigger["metadata"]["sasl"]) == ("enable", "scram_sha512")
    accepted = _dry_run(installed, AUTHENTICATION, *scaled)
    assert accepted.count("created (server dry run)") == len(ports.SERVICES) + 1
    scaled[0]["spec"]["triggers"] = "kafka"
    with pytest.raises(installation.CommandFailed, match=r"spec\.triggers"):
        _dry_run(installed, scaled[0])


AUTHENTICATION = {
    "apiVersion": "keda.sh/v1alpha1",
    "kind": "TriggerAuthentication",
    "metadata": {"name": "lag"},
    "spec": {
        "secretTargetRef": [
            {"parameter": "username", "name": "brokers", "key": "username"},
            {"parameter": "password", "name": "brokers", "key": "password"},
            {"parameter": "ca", "name": "brokers", "key": "ca.crt"},
        ]
    },
}
"""What the SRE writes for KEDA; the chart names it."""


def _dry_run(installed: installation.Installation, *objects: dict[str, Any]) -> str:
    """What the API server says, having changed nothing."""
    return installed.kubectl("apply", "--dry-run=server", "-f", "-", given=yaml.safe_dump_all(objects))


def test_the_lag_that_keda_asks_for_rises_and_falls(
    installed: installation.Installation, tmp_path: Any
) -> None:
    [scaled] = [
        one
        for one in _rendered(installed)
        if one["kind"] == "ScaledObject" and one["metadata"]["name"].endswith("-dialer-worker")
    ]
    [trigger] = scaled["spec"]["triggers"]
    work.await_rest(installed)
    assert groups.lag(trigger["metadata"], installed.bootstrap) == 0
    installed.scale("dialer-worker", 0)
    try:
        # Also those that are ending: they still apply facts.
        selector = "app.kubernetes.io/component=dialer-worker"
        installed.kubectl("wait", "--for=delete", "pods", "--selector", selector, "--timeout=120s")
        placed = work.Work(installed, tmp_path, debtors=60, days=1, seed=3)
        placed.journey.set_clock(placed.journey.plan.days[0])
        placed.journey.upload(placed.journey.plan.portfolio, "PORTFOLIO")
        installation.until(
            "facts that nobody applies",
            lambda: groups.lag(trigger["metadata"], installed.bootstrap) > 0,
            seconds=60,
        )
    finally:
        installed.scale("dialer-worker", 1)
    installation.until(
        "all facts applied", lambda: groups.lag(trigger["metadata"], installed.bootstrap) == 0, seconds=60
    )


def _rendered(
    installed: installation.Installation, *, kafka: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The chart's objects with KEDA on for every worker."""
    keda = {one: {"worker": {"keda": {"enabled": True}}} for one in ports.SERVICES}
    values = installation.merged(installed.values(), {"services": keda, "kafka": kafka or {}})
    path = installed.folder / "keda.yaml"
    path.write_text(yaml.safe_dump(values))
    chart = str(installation.CHART)
    rendered = installed.helm("template", installation.RELEASE, chart, "--values", str(path))
    return [one for one in yaml.safe_load_all(rendered) if one]
