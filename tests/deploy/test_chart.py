"""The chart, rendered by both Helm versions: what it refuses, what each value does, and the policies that every pod
keeps."""

from __future__ import annotations

import copy
import functools
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import celpy
import kubernetes_validate
import pytest
import yaml
from celpy import adapter

from recupera_local import helm, paths, ports, values_table

CHART = paths.REPO / "deploy" / "helm" / "recupera"
MINIMAL = CHART / "ci" / "minimal-values.yaml"
SCENARIOS = sorted((CHART / "ci").glob("*-values.yaml"))
POLICIES = {
    one["name"]: one["rule"] for one in yaml.safe_load((Path(__file__).parent / "policies.yaml").read_text())
}
HELMS = ("helm3", "helm4")
OWN_SCHEMAS = frozenset({"ScaledObject", "ServiceMonitor", "PrometheusRule", "HTTPRoute"})
"""Kinds that are not Kubernetes' own: their definitions check them in the cluster suite."""

Object = Mapping[str, Any]


def template(values: Path, *arguments: str, program: str = "helm4") -> subprocess.CompletedProcess[str]:
    """Run `helm template`."""
    return subprocess.run(
        [
            str(helm.binary(program)),
            "template",
            "r",
            str(CHART),
            "--namespace",
            "n",
            "-f",
            str(values),
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@functools.cache
def rendered(values: Path, *arguments: str, program: str = "helm4") -> tuple[Object, ...]:
    """The objects."""
    answer = template(values, *arguments, program=program)
    assert answer.returncode == 0, answer.stderr
    return tuple(one for one in yaml.safe_load_all(answer.stdout) if one)


def objects(kind: str, *arguments: str, values: Path = MINIMAL) -> dict[str, Object]:
    """Objects of a kind by name."""
    return {one["metadata"]["name"]: one for one in rendered(values, *arguments) if one["kind"] == kind}


def pods(values: Path) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Kind, name and spec of every pod."""
    for one in rendered(values):
        if one["kind"] in ("Deployment", "Job"):
            yield one["kind"], one["metadata"]["name"], one["spec"]["template"]["spec"]
        elif one["kind"] == "Pod":
            yield one["kind"], one["metadata"]["name"], one["spec"]


def keeps(rule: str, kind: str, pod: Mapping[str, Any]) -> bool:
    """Whether a pod keeps a policy; a field that is not there is a policy broken."""
    environment = celpy.Environment()
    program = environment.program(environment.compile(rule))
    containers = [*pod.get("initContainers", []), *pod["containers"]]
    given = {"pod": pod, "containers": containers, "kind": kind}
    try:
        return bool(program.evaluate({name: adapter.json_to_cel(value) for name, value in given.items()}))
    except celpy.CELEvalError:
        return False


@pytest.mark.parametrize("program", HELMS)
@pytest.mark.parametrize("values", SCENARIOS, ids=lambda path: path.name)
def test_every_scenario_renders_alike_with_both_versions(program: str, values: Path) -> None:
    # Helm orders the objects of a manifest as it likes
    def comparable(found: tuple[Object, ...]) -> list[str]:
        return sorted(json.dumps(one, sort_keys=True) for one in found)

    assert comparable(rendered(values, program=program)) == comparable(rendered(values))


@pytest.mark.parametrize("values", SCENARIOS, ids=lambda path: path.name)
def test_objects_are_what_kubernetes_takes(values: Path) -> None:
    for one in rendered(values):
        if one["kind"] not in OWN_SCHEMAS:
            kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_pod_keeps_the_policy(policy: str) -> None:
    for values in SCENARIOS:
        for kind, name, pod in pods(values):
            assert keeps(POLICIES[policy], kind, pod), f"{name} of {values.name}"


BROKEN: Mapping[str, Any] = {
    "nobody's user": lambda pod: pod["securityContext"].update(runAsUser=0),
    "no token of the API server": lambda pod: pod.pop("automountServiceAccountToken"),
    "system calls filtered": lambda pod: pod["securityContext"].pop("seccompProfile"),
    "no writable root": lambda pod: pod["containers"][0]["securityContext"].update(
        readOnlyRootFilesystem=False
    ),
    "no way to more privileges": lambda pod: pod["containers"][0]["securityContext"]["capabilities"].update(
        drop=[]
    ),
    "requests and a memory limit": lambda pod: pod["containers"][0]["resources"].pop("limits"),
    "an image that is named": lambda pod: pod["containers"][0].update(image="registry.example:5000/recupera"),
    "nothing of the node": lambda pod: pod["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
    "probes of what runs for long": lambda pod: pod["containers"][0].pop("livenessProbe"),
    "time to drain": lambda pod: pod.update(terminationGracePeriodSeconds=5),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_pod_that_breaks_the_policy_is_seen(policy: str) -> None:
    kind, _, pod = next(pods(MINIMAL))
    assert kind == "Deployment"
    broken = copy.deepcopy(dict(pod))
    BROKEN[policy](broken)
    assert not keeps(POLICIES[policy], kind, broken)


def test_what_must_be_said_is_asked_for() -> None:
    answer = template(CHART / "values.yaml")
    assert answer.returncode == 1
    asked = ["/image/repository", "/kafka/bootstrap", "/keys/jwks/secret", "/keys/services/secret"]
    for place in asked + [f"/services/{service}/database/secret" for service in ports.SERVICES]:
        assert place in answer.stderr


@pytest.mark.parametrize("program", HELMS)
@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ("services.case.serve.replcas=3", "replcas"),
        ("nonsense=1", "nonsense"),
        ("image.tag=latest", "tag"),
        ("image.digest=sha256:short", "digest"),
        ("services.case.serve.replicas=0", "replicas"),
        ("services.other.port=1", "other"),
        ("services.case.env.PATH=x", "PATH"),
        ("kafka.bootstrap=kafka", "bootstrap"),
        ("migrations.mode=never", "mode"),
        ("terminationGracePeriodSeconds=5", "terminationGracePeriodSeconds"),
        ("gateway.route.enabled=true", "parentRefs"),
        ("gateway.ingress.enabled=true", "host"),
    ],
)
def test_a_wrong_value_is_refused_by_its_place(program: str, wrong: str, place: str) -> None:
    answer = template(MINIMAL, "--set", wrong, program=program)
    assert answer.returncode == 1
    assert place in answer.stderr


def test_nothing_optional_is_there_by_default() -> None:
    kinds = {one["kind"] for one in rendered(MINIMAL)}
    assert kinds == {
        "Deployment",
        "Service",
        "ServiceAccount",
        "PodDisruptionBudget",
        "NetworkPolicy",
        "Job",
    }


def test_jobs_run_before_the_rest_or_beside_it() -> None:
    hooks = objects("Job")
    assert set(hooks) == {"r-topics", *(f"r-migrate-{service}" for service in ports.SERVICES)}
    for job in hooks.values():
        assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    gitops = CHART / "ci" / "gitops-values.yaml"
    plain = objects("Job", values=gitops)
    assert {name.rpartition("-")[0] for name in plain} == {
        f"r-migrate-{service}" for service in ports.SERVICES
    }
    for job in plain.values():
        assert "annotations" not in job["metadata"]
    wave = 'migrations.annotations={"argocd.argoproj.io/sync-wave": "-1"}'
    for job in objects("Job", "--set-json", wave, values=gitops).values():
        assert job["metadata"]["annotations"] == {"argocd.argoproj.io/sync-wave": "-1"}


def test_a_plain_job_is_another_one_for_each_change() -> None:
    gitops = CHART / "ci" / "gitops-values.yaml"
    as_is, other_image, other_value, again = (
        set(objects("Job", *change, values=gitops))
        for change in ((), ("--set", "image.tag=1.2.4"), ("--set", "migrations.timeout=700"), ("--dry-run",))
    )
    assert as_is == again
    assert not as_is & other_image
    assert not as_is & other_value


def test_workers_are_never_more_than_partitions() -> None:
    catalog = yaml.safe_load((paths.REPO / "deploy" / "topics.yaml").read_text())
    found = objects("ScaledObject", values=CHART / "ci" / "full-values.yaml")
    for service in ports.SERVICES:
        spec = found[f"r-{service}-worker"]["spec"]
        consumed = [topic["name"] for topic in catalog["topics"] if service in topic["consumers"]]
        assert [trigger["metadata"]["topic"] for trigger in spec["triggers"]] == consumed
        assert spec["maxReplicaCount"] == catalog["defaults"]["partitions"] == 24
        assert {trigger["metadata"]["consumerGroup"] for trigger in spec["triggers"]} == {
            f"recupera.{service}"
        }
        scaled = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        assert scaled == {"scaleDown": {"stabilizationWindowSeconds": 300}}
    triggers = found["r-import-worker"]["spec"]["triggers"]
    assert {trigger["metadata"]["lagThreshold"] for trigger in triggers} == {"1000000"}, "KEDA reads no 1e+06"


def test_a_worker_that_starts_while_kafka_is_away_is_waited_for() -> None:
    """Ready it is when Kafka gave it partitions; started and alive it is before."""
    workers = [
        one["spec"]["template"]["spec"]["containers"][0]
        for one in rendered(MINIMAL)
        if one["kind"] == "Deployment" and one["metadata"]["name"].endswith("-worker")
    ]
    assert len(workers) == 5
    for worker in workers:
        paths_asked = [
            worker[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")
        ]
        assert paths_asked == ["/live", "/live", "/ready"]


def test_who_is_scaled_has_no_number_of_its_own() -> None:
    full = CHART / "ci" / "full-values.yaml"
    servers, workers = objects("HorizontalPodAutoscaler", values=full), objects("ScaledObject", values=full)
    assert set(servers) == {"r-case-serve", "r-agreement-serve"}
    assert servers["r-case-serve"]["spec"]["maxReplicas"] == 20
    for name, deployment in objects("Deployment", values=full).items():
        assert ("replicas" in deployment["spec"]) is (name not in {*servers, *workers})


def test_the_check_is_there_with_its_token_and_reaches_the_gateway_only() -> None:
    assert not objects("Pod")
    full = CHART / "ci" / "full-values.yaml"
    container = objects("Pod", values=full)["r-check"]["spec"]["containers"][0]
    assert container["args"] == ["recupera_check", "http://r-gateway.n.svc"]
    assert container["env"][0]["valueFrom"]["secretKeyRef"] == {"name": "recupera-check", "key": "token"}
    policies = objects("NetworkPolicy", values=full)
    (rule,) = policies["r-check"]["spec"]["egress"]
    gateway = {"app.kubernetes.io/component": "gateway"}
    assert gateway.items() <= rule["to"][0]["podSelector"]["matchLabels"].items()
    callers = policies["r-gateway"]["spec"]["ingress"][0]["from"]
    assert callers[-1]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "check"


def test_a_worker_goes_where_its_values_say_besides() -> None:
    policies = objects("NetworkPolicy", values=CHART / "ci" / "full-values.yaml")
    bank = {"to": [{"ipBlock": {"cidr": "192.0.2.0/28"}}], "ports": [{"port": 443}]}
    there = {name for name, policy in policies.items() if bank in policy["spec"].get("egress", ())}
    assert there == {"r-agreement-worker"}


def test_secrets_come_by_reference_only() -> None:
    assert not objects("Secret", values=CHART / "ci" / "full-values.yaml")
    environment = objects("Deployment", values=CHART / "ci" / "full-values.yaml")["r-notify-worker"]["spec"][
        "template"
    ]["spec"]["containers"][0]["env"]
    variables = {one["name"]: one for one in environment}
    assert variables["RECUPERA_DATABASE_URL_NOTIFY"]["valueFrom"]["secretKeyRef"]["name"] == "recupera-notify"
    assert variables["RECUPERA_SMTP_PASSWORD"]["valueFrom"]["secretKeyRef"] == {
        "name": "mail",
        "key": "password",
    }
    assert variables["RECUPERA_SMTP_ADDRESS"]["value"] == "smtp.example:587"
    assert variables["RECUPERA_LOG_LEVEL"]["value"] == "WARNING"


def test_every_workload_has_a_policy_of_its_own_and_the_default_denies() -> None:
    policies = objects("NetworkPolicy")
    default = policies["r-default"]["spec"]
    assert default["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in default
    assert [rule["ports"][0]["port"] for rule in default["egress"]] == [53]
    assert set(objects("Deployment")) == set(policies) - {"r-default", "r-jobs"}
    worker = policies["r-dialer-worker"]["spec"]
    assert "ingress" not in worker
    reached = [
        peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
        for rule in worker["egress"]
        for peer in rule.get("to", [])
    ]
    assert reached == ["case-serve"]


def test_the_gateway_has_a_second_address_of_each_service_and_nobody_else() -> None:
    """docs/adr/0018-two-addresses-of-a-service.md"""
    services, pods = objects("Service"), objects("Deployment")
    for service in ports.SERVICES:
        one, other = services[f"r-{service}"]["spec"], services[f"r-{service}-ready"]["spec"]
        assert one["clusterIP"] == "None"
        assert {name: value for name, value in one.items() if name != "clusterIP"} == other
        name, port = f"RECUPERA_{service.upper()}_ADDRESS", one["ports"][0]["port"]
        first, second = f"r-{service}.n.svc:{port}", f"r-{service}-ready.n.svc:{port}"
        spec = pods["r-gateway"]["spec"]["template"]["spec"]
        assert {"name": name, "value": f"{first},{second}"} in spec["initContainers"][0]["env"]
        spec = pods["r-notify-worker"]["spec"]["template"]["spec"]
        assert {"name": name, "value": first} in spec["containers"][0]["env"]
    without = objects("Service", "--set", "gateway.enabled=false")
    assert set(without) == {f"r-{service}" for service in ports.SERVICES}


def test_the_gateway_is_probed_where_no_pod_may_ask_and_read_where_it_cannot_be_stopped() -> None:
    pod = objects("Deployment")["r-gateway"]["spec"]["template"]["spec"]
    [envoy], [configuration] = pod["containers"], pod["initContainers"]
    told = {one["name"]: one["containerPort"] for one in envoy["ports"]}
    assert set(told) == {"http", "metrics", "kubelet"}
    written = dict(argument.split("=", 1) for argument in configuration["args"] if "-port=" in argument)
    assert written == {
        "--port": str(told["http"]),
        "--metrics-port": str(told["metrics"]),
        "--kubelet-port": str(told["kubelet"]),
    }
    asked = [envoy[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")]
    asked.append(envoy["lifecycle"]["preStop"]["httpGet"])
    assert asked == [{"port": "kubelet", "path": path} for path in ("/started", "/ready", "/ready", "/drain")]
    monitored = ("--set-json", 'networkPolicy.metricsFrom=[{"podSelector": {}}]')
    policies = objects("NetworkPolicy", *monitored)
    let_in = {
        port["port"]
        for name in ("r-default", "r-gateway")
        for rule in policies[name]["spec"]["ingress"]
        for port in rule["ports"]
    }
    assert let_in == {"http", "metrics"}


def test_the_table_of_values_is_as_the_values_are() -> None:
    readme = (CHART / "README.md").read_text()
    assert values_table.readme(readme) == readme, "make format writes it"
    keys = [key for key, _, _ in values_table.rows()]
    assert {"image.repository", "services.SERVICE.worker.keda", "monitoring.enabled"} <= set(keys)
    assert len(keys) == len(set(keys))


def test_a_digest_names_the_image() -> None:
    full = objects("Deployment", values=CHART / "ci" / "full-values.yaml")["r-case-serve"]
    image = full["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == "registry.example:5000/recupera@sha256:" + "0123456789abcdef" * 4


def test_the_dockerfile_is_sound() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    answer = subprocess.run(
        [
            str(hadolint),
            "--failure-threshold",
            "warning",
            str(paths.REPO / "deploy" / "image" / "Dockerfile"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout
