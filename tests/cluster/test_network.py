"""NetworkPolicy in effect: each pair of pods that must talk does, every other pair does not.

Real pods ask where they have Python; for the gateway, the jobs and people from elsewhere stand pods of our image with
the labels of the chart's. What nobody of ours may reach is reached by a foreign pod, so that "silent" shows something.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

import pytest
import yaml
from cluster import installation

from recupera_local import gateway_client as gc
from recupera_local import ports

pytestmark = pytest.mark.timeout(900)

CALLS = {
    "case": {"import"},
    "agreement": {"case", "import"},
    "dialer": {"case"},
    "notify": {"case", "agreement"},
    "import": {"case", "agreement"},
}
"""Whose API each service calls (their READMEs)."""
JOBS = ("topics", *(f"migrate-{service}" for service in ports.SERVICES))
OUTSIDE = ("postgres", "kafka", "smtp", "this machine", "API server", "pod elsewhere", "postgres elsewhere")
OURS = "ours"

ASK = """
import json, socket, sys, threading
answers = {}
def ask(name, host, port):
    try:
        if port:
            socket.create_connection((host, port), timeout=3).close()
        else:
            socket.getaddrinfo(host, 80)
        answers[name] = "answers"
    except ConnectionRefusedError:
        answers[name] = "refuses"
    except OSError:
        answers[name] = "silent"
threads = [threading.Thread(target=ask, args=target) for target in json.loads(sys.argv[1])]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps(answers))
"""
LISTEN = """
import socket, sys, threading
def listen(port):
    with socket.create_server(("0.0.0.0", port)) as server:
        while True:
            server.accept()[0].close()
threads = [threading.Thread(target=listen, args=(int(port),)) for port in sys.argv[1:]]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""

Target = tuple[str, str, int]
"""What it is (`component:port#pod`, or of OUTSIDE), address, port; port 0: the address is a name to look up."""
Pod = tuple[str, str]
"""Namespace, name."""


def expected(component: str) -> set[str]:
    """What a pod of ours reaches; targets are `component:port` or a name of OUTSIDE, "names" is the DNS."""
    if component == "gateway":
        return {"names", *(f"{service}-serve:grpc" for service in ports.SERVICES)}
    if component in JOBS:
        return {"names", "postgres", "kafka"}
    service, role = component.rsplit("-", 1)
    reached = {"names", "postgres", *(f"{called}-serve:grpc" for called in CALLS[service])}
    if role == "worker":
        reached.add("kafka")
        if service == "notify":
            reached.add("smtp")
    return reached


def test_every_allowed_path_answers_and_no_other_does(installed: installation.Installation) -> None:
    elsewhere = f"{installed.namespace}-elsewhere"
    with (
        _listening(installed.settings.host) as foreign_port,
        _namespaces(installed, elsewhere, installed.monitoring),
        _probes(installed),
    ):
        apart = {
            "elsewhere": (elsewhere, "elsewhere"),
            "monitoring": (installed.monitoring, "monitoring"),
            "unlabelled": (installed.namespace, "probe-unlabelled"),
        }
        _run(installed, elsewhere, _pod("elsewhere", installed, {}, listens=_elsewhere_ports(installed)))
        _run(installed, installed.monitoring, _pod("monitoring", installed, {}))
        _run(installed, installed.namespace, _pod("probe-unlabelled", installed, {}))
        for namespace in (elsewhere, installed.monitoring, installed.namespace):
            _await_running(installed, namespace)
        targets = _targets(installed, foreign_port, elsewhere)
        sources = _sources(installed)
        assert set(sources) == {
            "gateway",
            *JOBS,
            *(f"{s}-{role}" for s in ports.SERVICES for role in installation.ROLES),
        }
        metrics = {
            kind for kind in (name.partition("#")[0] for name, _, _ in targets) if kind.endswith(":metrics")
        }
        assert len(metrics) == 11, "each component has metrics"
        wanted = {name: expected(name) for name in sources} | {
            "elsewhere": {"names", *OUTSIDE},
            "unlabelled": {"names", *OUTSIDE},
            "monitoring": {"names", *OUTSIDE, *metrics},
        }
        _hold(installed, {**sources, **apart}, targets, wanted)
    installation.until("a healthy gateway", installed.healthy, seconds=30)


def _hold(
    installed: installation.Installation,
    sources: Mapping[str, Pod],
    targets: Sequence[Target],
    wanted: Mapping[str, set[str]],
) -> None:
    """Ask until all is as wanted: a network takes a moment to know new pods. Fails with every pair that is not."""
    wrong: list[str] = []

    def right() -> bool:
        wrong.clear()
        with futures.ThreadPoolExecutor(4) as pool:
            asked = {name: pool.submit(_ask, installed, pod, targets) for name, pod in sources.items()}
        for source, answer in asked.items():
            for name, how in sorted(answer.result().items()):
                allowed = name.partition("#")[0] in wanted[source]
                if allowed and how != "answers":
                    wrong.append(f"{source} does not reach {name}")
                elif not allowed and how != "silent":
                    wrong.append(f"{source} reaches {name}")
        return not wrong

    try:
        installation.until("the paths", right, seconds=60)
    except gc.WaitedTooLong:
        pytest.fail("\n".join(wrong))


def _ask(installed: installation.Installation, pod: Pod, targets: Sequence[Target]) -> dict[str, str]:
    """What each target says to a pod; a pod does not ask itself, which no policy sees."""
    namespace, name = pod
    others = [target for target in targets if target[0].partition("#")[2] != name]
    arguments = ("--namespace", namespace, "exec", name, "--", "python", "-c", ASK, json.dumps(others))
    answers: dict[str, str] = json.loads(installed.kubectl(*arguments))
    return answers


def _targets(installed: installation.Installation, foreign_port: int, elsewhere: str) -> list[Target]:
    """Every port of every pod of ours, and what is outside."""
    backing, host = installed.backing, installed.settings.host
    kubernetes = installed.get("service", "kubernetes", "--namespace=default")
    [pod] = [
        one
        for one in installed.get("pods", f"--namespace={elsewhere}")["items"]
        if one["metadata"]["name"] == "elsewhere"
    ]
    away = pod["status"]["podIP"]
    found: list[Target] = [
        ("names", f"{installation.RELEASE}-case.{installed.namespace}.svc", 0),
        ("postgres", host, backing.postgres.port),
        ("kafka", host, backing.kafka.port),
        ("smtp", host, backing.smtp_port),
        ("this machine", host, foreign_port),
        ("API server", kubernetes["spec"]["clusterIP"], kubernetes["spec"]["ports"][0]["port"]),
        ("pod elsewhere", away, _elsewhere_ports(installed)[0]),
        ("postgres elsewhere", away, backing.postgres.port),
    ]
    for one in _of_deployments(installed):
        component = one["metadata"]["labels"]["app.kubernetes.io/component"]
        found += [
            (
                f"{component}:{port['name']}#{one['metadata']['name']}",
                one["status"]["podIP"],
                port["containerPort"],
            )
            for container in one["spec"]["containers"]
            for port in container.get("ports", ())
        ]
    return found


def _elsewhere_ports(installed: installation.Installation) -> tuple[int, ...]:
    """Where a foreign pod listens: at a service's port, and at PostgreSQL's, which only one address may be asked at."""
    return (7101, installed.backing.postgres.port)


def _sources(installed: installation.Installation) -> dict[str, Pod]:
    """A pod of each component that can ask: real ones of our image, probes for the others."""
    found = {}
    for pod in _of_deployments(installed):
        component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
        if component != "gateway":
            found[component] = (installed.namespace, pod["metadata"]["name"])
    return found | {name: (installed.namespace, f"probe-{name}") for name in ("gateway", *JOBS)}


def _of_deployments(installed: installation.Installation) -> list[dict[str, Any]]:
    return [pod for pod in installed.pods() if "pod-template-hash" in pod["metadata"]["labels"]]


@contextlib.contextmanager
def _probes(installed: installation.Installation) -> Iterator[None]:
    """A pod with the labels of each component whose own pods cannot be asked, as the chart makes them."""
    rendered = [
        one
        for one in yaml.safe_load_all(
            installed.helm("get", "manifest", installation.RELEASE)
            + "\n---\n"
            + installed.helm("get", "hooks", installation.RELEASE)
        )
        if one and one["kind"] in ("Deployment", "Job")
    ]
    labels = {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"]["template"]["metadata"][
            "labels"
        ]
        for one in rendered
    }
    try:
        for name in ("gateway", *JOBS):
            _run(installed, installed.namespace, _pod(f"probe-{name}", installed, labels[name]))
        yield
    finally:
        installed.kubectl("delete", "pods", f"--selector={OURS}=probe", "--force", "--grace-period=0")


def _pod(
    name: str, installed: installation.Installation, labels: Mapping[str, str], *, listens: Sequence[int] = ()
) -> dict[str, Any]:
    """A pod that does nothing but listen. It is never ready, so no service sends calls to it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {**labels, OURS: "probe"}},
        "spec": {
            "readinessGates": [{"conditionType": "example.com/never"}],
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "probe",
                    "image": installed.settings.image,
                    "command": ["python", "-c", LISTEN, *(str(port) for port in listens or (7999,))],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }


def _run(installed: installation.Installation, namespace: str, pod: Mapping[str, Any]) -> None:
    installed.kubectl("--namespace", namespace, "apply", "-f", "-", given=json.dumps(pod))


def _await_running(installed: installation.Installation, namespace: str) -> None:
    where = ("--namespace", namespace, f"--selector={OURS}=probe", "--timeout=120s")
    installed.kubectl("wait", "pods", "--for=jsonpath={.status.phase}=Running", *where)


@contextlib.contextmanager
def _namespaces(installed: installation.Installation, *names: str) -> Iterator[None]:
    """Namespaces of other people."""
    try:
        for name in names:
            installed.kubectl("create", "namespace", name)
        yield
    finally:
        installed.kubectl("delete", "namespace", *names, "--ignore-not-found", "--wait=false")


@contextlib.contextmanager
def _listening(host: str) -> Iterator[int]:
    """A server of this machine that nobody of ours has to do with; its port."""
    with socket.create_server((host, 0)) as server:
        yield int(server.getsockname()[1])
