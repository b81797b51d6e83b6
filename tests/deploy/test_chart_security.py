"""What the chart does for brokers and databases that encrypt and ask who we are."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from recupera_local import helm, paths, ports
from servicekit import settings

CHART = paths.REPO / "deploy" / "helm" / "recupera"
SECURE = CHART / "ci" / "secure-values.yaml"
MINIMAL = CHART / "ci" / "minimal-values.yaml"

Object = Mapping[str, Any]


def render(values: Path, *arguments: str, program: str = "helm4") -> subprocess.CompletedProcess[str]:
    """Run `helm template`, each argument a `--set`."""
    command = [str(helm.binary(program)), "template", "r", str(CHART), "--namespace", "n", "-f", str(values)]
    for argument in arguments:
        command += ["--set", argument]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def objects(kind: str, values: Path, *arguments: str) -> dict[str, Object]:
    """Objects of a kind by name."""
    answer = render(values, *arguments)
    assert answer.returncode == 0, answer.stderr
    return {
        one["metadata"]["name"]: one
        for one in yaml.safe_load_all(answer.stdout)
        if one and one["kind"] == kind
    }


def pod(one: Object) -> Mapping[str, Any]:
    """Its pod's spec."""
    spec: Mapping[str, Any] = one["spec"]["template"]["spec"]
    return spec


def variables(one: Object) -> dict[str, str]:
    """Plain variables of its first container."""
    return {
        variable["name"]: variable["value"]
        for variable in pod(one)["containers"][0].get("env", [])
        if "value" in variable
    }


def files(one: Object) -> dict[str, tuple[str, str]]:
    """Secret and key of each file that its first container sees."""
    mounts = {mount["name"]: mount["mountPath"] for mount in pod(one)["containers"][0]["volumeMounts"]}
    return {
        f"{mounts[volume['name']]}/{item['path']}": (volume["secret"]["secretName"], item["key"])
        for volume in pod(one)["volumes"]
        if "secret" in volume and volume["name"] in mounts
        for item in volume["secret"]["items"]
    }


def brokers(one: Object, folder: Path) -> settings.Brokers:
    """What the process would read, with its files there: the chart sets nothing that the program refuses."""
    told = {name: value for name, value in variables(one).items() if name.startswith("RECUPERA_KAFKA")}
    for name, value in told.items():
        if name.endswith("_FILE"):
            assert value in files(one)
            told[name] = str(folder / value.removeprefix("/"))
            (folder / value.removeprefix("/")).parent.mkdir(parents=True, exist_ok=True)
            (folder / value.removeprefix("/")).write_text("x")
    return settings.load(settings.Brokers, told)


def test_by_default_nothing_is_mounted_and_nothing_is_said() -> None:
    for one in [*objects("Deployment", MINIMAL).values(), *objects("Job", MINIMAL).values()]:
        assert not [name for name in variables(one) if name.startswith(("RECUPERA_KAFKA_", "PG"))]
        assert not [file for file in files(one) if file.startswith(("/kafka", "/database"))]


def test_each_worker_and_the_topics_job_show_their_own_password(tmp_path: Path) -> None:
    deployments, jobs = objects("Deployment", SECURE), objects("Job", SECURE)
    for service in ports.SERVICES:
        worker = deployments[f"r-{service}-worker"]
        told = brokers(worker, tmp_path)
        assert (told.security, told.mechanism) == ("SASL_SSL", "SCRAM-SHA-512")
        assert told.user == ("case" if service == "case" else f"recupera-{service}-kafka")
        assert files(worker)["/kafka/ca/ca.crt"] == ("recupera-cluster-ca-cert", "ca.crt")
        assert files(worker)["/kafka/user/password"] == (f"recupera-{service}-kafka", "password")
    job = jobs["r-topics"]
    assert brokers(job, tmp_path).user == "recupera-topics"
    assert files(job) == {
        "/kafka/ca/ca.crt": ("recupera-cluster-ca-cert", "ca.crt"),
        "/kafka/user/password": ("recupera-topics", "password"),
    }


def test_what_does_not_talk_to_kafka_has_no_user_of_it(tmp_path: Path) -> None:
    deployments, jobs = objects("Deployment", SECURE), objects("Job", SECURE)
    silent = [deployments[f"r-{service}-serve"] for service in ports.SERVICES]
    silent += [jobs[f"r-migrate-{service}"] for service in ports.SERVICES]
    for one in silent:
        assert not [file for file in files(one) if file.startswith("/kafka")]
        assert not [name for name in variables(one) if name.startswith("RECUPERA_KAFKA_")]
    assert brokers(deployments["r-case-serve"], tmp_path).security == "PLAINTEXT"


def test_a_certificate_of_ours(tmp_path: Path) -> None:
    said = [
        "kafka.security=SSL",
        "kafka.tls.caSecret=ca",
        "kafka.user.secret=me",
        "kafka.user.keyKey=tls.key",
    ]
    worker = objects("Deployment", MINIMAL, *said)["r-notify-worker"]
    told = brokers(worker, tmp_path)
    assert told.security == "SSL"
    assert told.password_file is None
    assert files(worker)["/kafka/user/user.crt"] == ("me", "user.crt")
    assert files(worker)["/kafka/user/user.key"] == ("me", "tls.key")
    without = objects("Deployment", MINIMAL, "kafka.security=SSL")["r-notify-worker"]
    assert brokers(without, tmp_path).certificate_file is None


def test_one_user_for_all_unless_one_has_its_own(tmp_path: Path) -> None:
    said = ["kafka.security=SASL_SSL", "kafka.user.secret=all", "kafka.user.name=recupera"]
    own = "services.dialer.kafkaUser.secret=dialer"
    deployments = objects("Deployment", MINIMAL, *said, own)
    assert brokers(deployments["r-case-worker"], tmp_path).user == "recupera"
    assert brokers(deployments["r-dialer-worker"], tmp_path).user == "dialer"
    assert files(deployments["r-dialer-worker"])["/kafka/user/password"] == ("dialer", "password")
    assert brokers(objects("Job", MINIMAL, *said, own)["r-topics"], tmp_path).user == "recupera"


def test_databases_are_verified_by_whoever_connects() -> None:
    deployments, jobs = objects("Deployment", SECURE), objects("Job", SECURE)
    for service in ports.SERVICES:
        expected = ("agreement-ca", "tls.crt") if service == "agreement" else ("postgres-ca", "ca.crt")
        for one in (
            deployments[f"r-{service}-serve"],
            deployments[f"r-{service}-worker"],
            jobs[f"r-migrate-{service}"],
        ):
            told = variables(one)
            assert told["PGSSLMODE"] == "verify-full"
            assert files(one)[told["PGSSLROOTCERT"]] == expected
    assert "PGSSLMODE" not in variables(jobs["r-topics"])


def test_the_collector_is_verified_by_what_sends_to_it() -> None:
    for name, one in objects("Deployment", SECURE).items():
        if name != "r-gateway":
            assert files(one)[variables(one)["OTEL_EXPORTER_OTLP_CERTIFICATE"]] == ("collector-ca", "ca.crt")
    for one in objects("Deployment", MINIMAL).values():
        assert "OTEL_EXPORTER_OTLP_CERTIFICATE" not in variables(one)


def test_keda_is_told_how_and_by_whom_lag_is_read() -> None:
    [scaled] = objects("ScaledObject", SECURE).values()
    for trigger in scaled["spec"]["triggers"]:
        assert (trigger["metadata"]["tls"], trigger["metadata"]["sasl"]) == ("enable", "scram_sha512")
        assert trigger["authenticationRef"] == {"name": "recupera-kafka", "kind": "TriggerAuthentication"}
    mechanism = ["kafka.user.mechanism=PLAIN", "kafka.scaler.kind=ClusterTriggerAuthentication"]
    [other] = objects("ScaledObject", SECURE, *mechanism).values()
    for trigger in other["spec"]["triggers"]:
        assert trigger["metadata"]["sasl"] == "plaintext"
        assert trigger["authenticationRef"]["kind"] == "ClusterTriggerAuthentication"
    [plain] = objects("ScaledObject", MINIMAL, "services.case.worker.keda.enabled=true").values()
    for trigger in plain["spec"]["triggers"]:
        assert "authenticationRef" not in trigger
        assert not {"tls", "sasl"} & set(trigger["metadata"])


@pytest.mark.parametrize("program", ["helm3", "helm4"])
@pytest.mark.parametrize(
    ("values", "wrong", "place"),
    [
        (MINIMAL, ["kafka.security=TLS"], "security"),
        (MINIMAL, ["kafka.security=SASL_SSL"], "or kafka.user.secret must name the Secret"),
        (MINIMAL, ["kafka.tls.caSecret=ca"], "caSecret"),
        (MINIMAL, ["kafka.user.secret=me"], "kafka.security is PLAINTEXT"),
        (MINIMAL, ["kafka.user.mechanism=MD5"], "mechanism"),
        (MINIMAL, ["kafka.user.password=secret"], "password"),
        (MINIMAL, ["database.caSecret=A B"], "caSecret"),
        (SECURE, ["kafka.topics.user.secret="], "kafka.topics.user.secret or kafka.user.secret"),
        (SECURE, ["kafka.scaler.authentication="], "kafka.scaler.authentication"),
        (SECURE, ["kafka.scaler.kind=Secret"], "kind"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_value_is_refused_by_its_place(
    program: str, values: Path, wrong: list[str], place: str
) -> None:
    answer = render(values, *wrong, program=program)
    assert answer.returncode == 1
    assert place in answer.stderr
