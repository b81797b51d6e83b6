"""docs/installation: every object is one that its operator takes, what they name is there, and the chart fits them."""

from __future__ import annotations

import functools
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import psycopg
import pytest
import yaml
from psycopg import sql

from recupera_local import helm, paths, ports, postgres, schemas
from servicekit import acls, migrations

FOLDER = paths.REPO / "docs" / "installation"
CHART = paths.REPO / "deploy" / "helm" / "recupera"
VALUES = FOLDER / "my-values.yaml"
STACK = FOLDER / "kube-prometheus-stack-values.yaml"
CORE = ("v1", "apps/v1", "batch/v1", "policy/v1", "autoscaling/v2", "networking.k8s.io/v1")
"""API versions of Kubernetes' own; all others are custom resources."""
MONITORING = "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1"

Object = Mapping[str, Any]


@functools.cache
def objects() -> tuple[tuple[str, Object], ...]:
    """Every object beside its file's name; the two files of values are not objects."""
    files = sorted(set(FOLDER.glob("*.yaml")) - {VALUES, STACK})
    return tuple((file.name, one) for file in files for one in yaml.safe_load_all(file.read_text()) if one)


def of_kind(kind: str, namespace: str | None = None) -> dict[str, Object]:
    """Objects of a kind by name."""
    return {
        one["metadata"]["name"]: one
        for _, one in objects()
        if one["kind"] == kind and namespace in (None, one["metadata"].get("namespace"))
    }


@functools.cache
def rendered(program: str = "helm4", *arguments: str) -> tuple[Object, ...]:
    """What the chart makes of my-values.yaml."""
    command = [str(helm.binary(program)), "template", "recupera", str(CHART), "--namespace", "recupera"]
    done = subprocess.run(
        [*command, "-f", str(VALUES), *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return tuple(one for one in yaml.safe_load_all(done.stdout) if one)


def application() -> Mapping[str, Any]:
    """The source of Argo CD's application of the chart."""
    found: Mapping[str, Any] = of_kind("Application")["recupera"]["spec"]["source"]
    return found


def custom(found: tuple[Object, ...]) -> list[Mapping[str, Any]]:
    """Custom resources, as `schemas.problems` takes them."""
    return [
        {"where": f"{one['kind']} {one['metadata']['name']}", "object": one}
        for one in found
        if one["apiVersion"] not in CORE
    ]


@pytest.mark.timeout(900)
def test_every_object_is_what_its_operator_takes() -> None:
    ours = custom(tuple(one for _, one in objects()))
    charts = custom(rendered())
    kinds = {one["object"]["kind"] for one in [*ours, *charts]}
    assert kinds >= {
        "Cluster",
        "Kafka",
        "KafkaUser",
        "ExternalSecret",
        "Certificate",
        "Application",
        "ScaledObject",
    }
    stack = yaml.safe_load(STACK.read_text())["prometheus"]["prometheusSpec"]
    operators = {  # all but these names are the operator's own
        name: value
        for name, value in stack.items()
        if name != "storageSpec" and not name.endswith("UsesHelmValues")
    }
    part = {
        "where": STACK.name,
        "type": f'Partial<import("{MONITORING}/PrometheusSpec").IPrometheusSpec>',
        "object": operators,
    }
    assert schemas.problems([*ours, *charts, part]) == []


@pytest.mark.timeout(900)
def test_what_an_operator_would_refuse_is_seen() -> None:
    cluster = json.loads(json.dumps(of_kind("Cluster")["recupera-case"]))
    cluster["spec"]["managed"]["roles"][0]["bypassRLS"] = False
    user = json.loads(json.dumps(of_kind("KafkaUser")["recupera-case"]))
    user["spec"]["authentication"]["type"] = "scram"
    certificate = json.loads(json.dumps(of_kind("Certificate")["kafka-listener"]))
    del certificate["spec"]["issuerRef"]
    store = json.loads(json.dumps(of_kind("ObjectStore")["backups"]))
    store["spec"]["configuration"]["wal"] = {"compresion": "gzip"}
    broken = {"role": cluster, "user": user, "certificate": certificate, "store": store}
    broken["unknown"] = {"apiVersion": "nobody.example/v1", "kind": "Thing", "metadata": {"name": "x"}}
    found = schemas.problems([{"where": where, "object": one} for where, one in broken.items()])
    assert {line.partition(":")[0] for line in found} == set(broken)


def test_plain_objects_are_what_kubernetes_takes() -> None:
    for one in [*(one for _, one in objects()), *rendered()]:
        if one["apiVersion"] in CORE:
            kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)


def test_both_helms_and_argo_cd_render_my_values(tmp_path: Path) -> None:
    def comparable(found: tuple[Object, ...]) -> list[str]:
        return sorted(json.dumps(one, sort_keys=True) for one in found)

    assert comparable(rendered("helm3")) == comparable(rendered("helm4"))
    source = application()
    assert (paths.REPO / source["path"]).resolve() == CHART
    assert [(CHART / name).resolve() for name in source["helm"]["valueFiles"]] == [VALUES]
    own = tmp_path / "argo.yaml"
    own.write_text(yaml.safe_dump(source["helm"]["valuesObject"]))
    jobs = [one for one in rendered("helm4", "-f", str(own)) if one["kind"] == "Job"]
    assert len(jobs) == len(ports.SERVICES) + 1
    for job in jobs:
        assert job["metadata"]["annotations"] == {"argocd.argoproj.io/sync-wave": "-1"}


def test_argo_cd_applies_every_file_of_objects() -> None:
    included = of_kind("Application")["recupera-base"]["spec"]["source"]["directory"]["include"]
    names = {f"{name}.yaml" for name in re.sub(r"[{}]|\.yaml", "", included).split(",")}
    assert names == {file for file, _ in objects()} - {"argocd.yaml", "restore.yaml"}
    project = of_kind("AppProject")["recupera"]["spec"]
    allowed = {one["namespace"] for one in project["destinations"]}
    assert {one["metadata"].get("namespace") for file, one in objects() if file in names} - {None} <= allowed
    cluster_wide = {
        one["kind"] for file, one in objects() if file in names and "namespace" not in one["metadata"]
    }
    assert {one["kind"] for one in project["clusterResourceWhitelist"]} == cluster_wide


# ---- what is named is there -----------------------------------------------------------------------------------------


def secrets() -> dict[tuple[str, str], set[str]]:
    """Namespace and name of every Secret that the objects make, with its keys."""
    found: dict[tuple[str, str], set[str]] = {}
    for one in of_kind_all("ExternalSecret"):
        spec = one["spec"]
        keys = set(spec["target"].get("template", {}).get("data", {})) or {
            row["secretKey"] for row in spec["data"]
        }
        found[one["metadata"]["namespace"], spec["target"]["name"]] = keys
    for one in of_kind_all("Certificate"):
        found[one["metadata"]["namespace"], one["spec"]["secretName"]] = {"ca.crt", "tls.crt", "tls.key"}
    return found


def of_kind_all(kind: str) -> list[Object]:
    """Objects of a kind, whatever their names."""
    return [one for _, one in objects() if one["kind"] == kind]


def named(where: Any, namespace: str) -> Iterator[tuple[str, str, str]]:
    """Namespace, name and key of each Secret that a pod, or an object of an operator, refers to; "" for any key."""
    if isinstance(where, list):
        for one in where:
            yield from named(one, namespace)
    if not isinstance(where, Mapping):
        return
    for field, value in where.items():
        match field:
            case "secretKeyRef" | "accessKeyId" | "secretAccessKey":
                yield namespace, value["name"], value["key"]
            case "secret" if isinstance(value, Mapping) and "secretName" in value:
                for item in value.get("items", [{"key": ""}]):
                    yield namespace, value["secretName"], item["key"]
            case "secretTargetRef":
                for item in value:
                    yield namespace, item["name"], item["key"]
            case "brokerCertChainAndKey":
                yield from ((namespace, value["secretName"], value[key]) for key in ("certificate", "key"))
            case "serverTLSSecret":
                yield from ((namespace, value, key) for key in ("tls.crt", "tls.key"))
            case "serverCASecret":
                yield namespace, value, "ca.crt"
            case "passwordSecret":
                yield from ((namespace, value["name"], key) for key in ("username", "password"))
            case "secret" if isinstance(value, Mapping) and "name" in value:  # of initdb
                yield from ((namespace, value["name"], key) for key in ("username", "password"))
            case _:
                yield from named(value, namespace)


def test_every_secret_that_is_named_is_made_with_that_key() -> None:
    made = secrets()
    referred = [
        *(row for one in rendered() for row in named(one.get("spec"), "recupera")),
        *(
            row
            for _, one in objects()
            if one["kind"] in ("Cluster", "Kafka", "KafkaUser", "ObjectStore", "TriggerAuthentication")
            for row in named(one["spec"], one["metadata"]["namespace"])
        ),
    ]
    assert len(set(referred)) > 40
    for namespace, name, key in set(referred):
        assert (namespace, name) in made, f"{namespace}/{name}"
        assert not key or key in made[namespace, name], f"{namespace}/{name} has no {key}"
    used = {(namespace, name) for namespace, name, _ in referred}
    of_issuers = {("cert-manager", "internal-ca")}
    assert set(made) - used - of_issuers == set(), "made for nobody"


def test_addresses_are_those_of_the_clusters_and_in_their_certificates() -> None:
    certificates = of_kind("Certificate", "databases")
    for service in ports.SERVICES:
        host = f"recupera-{service}-rw.databases.svc"
        urls = of_kind("ExternalSecret", "recupera")[f"recupera-{service}"]["spec"]["target"]["template"][
            "data"
        ]
        for url, role in (
            (urls["url"], f"recupera_{service}"),
            (urls["owner-url"], f"recupera_{service}_owner"),
        ):
            assert re.sub(r"\{\{.*?\}\}", "x", url) == f"postgresql://{role}:x@{host}:5432/recupera_{service}"
        assert host in certificates[f"recupera-{service}-server"]["spec"]["dnsNames"]
        assert of_kind("Cluster")[f"recupera-{service}"]["spec"]["certificates"] == {
            "serverTLSSecret": f"recupera-{service}-server",
            "serverCASecret": f"recupera-{service}-server",
        }
    values = yaml.safe_load(VALUES.read_text())
    host, _, port = values["kafka"]["bootstrap"].partition(":")
    kafka = of_kind("Kafka")["recupera"]
    assert host == f"{kafka['metadata']['name']}-kafka-bootstrap.{kafka['metadata']['namespace']}.svc"
    assert host in of_kind("Certificate")["kafka-listener"]["spec"]["dnsNames"]
    (listener,) = kafka["spec"]["kafka"]["listeners"]
    assert (listener["port"], listener["tls"]) == (int(port), True)
    (parent,) = values["gateway"]["route"]["parentRefs"]
    gateway = of_kind("Gateway", parent["namespace"])[parent["name"]]
    https = next(one for one in gateway["spec"]["listeners"] if one["name"] == parent["sectionName"])
    assert values["gateway"]["route"]["hostnames"] == [https["hostname"]]


def test_network_policies_name_namespaces_that_are_there() -> None:
    there = {one["metadata"]["name"] for one in of_kind_all("Namespace")} | {"monitoring", "kube-system"}
    label = "kubernetes.io/metadata.name"
    text = "".join(json.dumps(one) for one in rendered() if one["kind"] == "NetworkPolicy")
    assert set(re.findall(rf'"{label}": "([^"]+)"', text)) <= there


# ---- PostgreSQL and Kafka -------------------------------------------------------------------------------------------


def test_clusters_differ_by_service_and_size_only() -> None:
    def alike(service: str) -> str:
        spec = json.loads(json.dumps(of_kind("Cluster")[f"recupera-{service}"]["spec"]))
        for sized in ("storage", "walStorage", "resources"):
            spec.pop(sized)
        for sized in ("shared_buffers", "effective_cache_size"):
            spec["postgresql"]["parameters"].pop(sized)
        return json.dumps(spec, sort_keys=True).replace(service, "SERVICE")

    assert {alike(service) for service in ports.SERVICES} == {alike("case")}
    for service in ports.SERVICES:
        backup = of_kind("ScheduledBackup")[f"recupera-{service}"]["spec"]
        assert backup["cluster"]["name"] == f"recupera-{service}"


@pytest.mark.timeout(900)
def test_the_roles_of_a_cluster_are_what_migrate_and_the_service_need(
    private_postgres: postgres.Postgres,
) -> None:
    private_postgres.start()
    for service in ports.SERVICES:
        spec = of_kind("Cluster")[f"recupera-{service}"]["spec"]
        initdb, (role,) = spec["bootstrap"]["initdb"], spec["managed"]["roles"]
        owner, database, name = initdb["owner"], initdb["database"], role["name"]
        password = private_postgres.url().split(":")[2].partition("@")[0]
        with private_postgres.administrator() as connection:  # as the operator does
            connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                    sql.Identifier(owner), sql.Literal(password)
                )
            )
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0").format(
                    sql.Identifier(database), sql.Identifier(owner)
                )
            )
        with psycopg.connect(private_postgres.url(database), autocommit=True) as connection:
            for statement in initdb["postInitApplicationSQL"]:
                connection.execute(statement)
            connection.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(name), sql.Literal(password))
            )
        package = paths.REPO / "services" / service / "migrations"
        migrations.upgrade(private_postgres.url(database, owner), package)
        attributes = ("super", "bypassrls", "createdb", "createrole", "replication")
        with psycopg.connect(private_postgres.url(database, name)) as connection:
            rights = connection.execute(
                "SELECT rolsuper, rolbypassrls, rolcreatedb, rolcreaterole, rolreplication"
                " FROM pg_roles WHERE rolname = current_user"
            ).fetchone()
            assert rights == (False,) * len(attributes)
            assert {role[key] for key in ("superuser", *attributes[1:])} == {False}
            owned = connection.execute(
                "SELECT count(*) FROM pg_class WHERE relowner = current_user::regrole"
            ).fetchone()
            assert owned == (0,)
            tables = connection.execute(
                "SELECT count(*) FROM pg_class WHERE relrowsecurity AND relnamespace = 'public'::regnamespace"
            ).fetchone()
            assert tables is not None
            assert tables[0] > 0
            connection.execute("SELECT * FROM outbox")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("CREATE TABLE mine (id int)")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(private_postgres.url("recupera_agreement", "recupera_case"))


def test_users_of_kafka_may_do_what_topics_yaml_says() -> None:
    users = of_kind("KafkaUser")
    wanted = acls.all_users()
    assert set(users) == {f"recupera-{name}" for name in wanted}
    for name, rules in wanted.items():
        spec = users[f"recupera-{name}"]["spec"]
        assert spec["authorization"]["acls"] == [rule.as_strimzi() for rule in rules]
    values = yaml.safe_load(VALUES.read_text())
    for service in ports.SERVICES:
        assert values["services"][service]["kafkaUser"]["name"] in users
    assert values["kafka"]["topics"]["user"]["name"] in users


def test_topics_are_made_by_our_job_alone() -> None:
    assert "topicOperator" not in of_kind("Kafka")["recupera"]["spec"]["entityOperator"]
    assert not of_kind_all("KafkaTopic")
    config = of_kind("Kafka")["recupera"]["spec"]["kafka"]["config"]
    assert config["auto.create.topics.enable"] is False
    assert config["unclean.leader.election.enable"] is False
    brokers = of_kind("KafkaNodePool")["broker"]["spec"]["replicas"]
    jobs = [
        one
        for one in rendered()
        if one["kind"] == "Job" and one["metadata"]["name"].startswith("recupera-topics")
    ]
    (job,) = jobs
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments == ["servicekit", "topics", f"--replication={brokers}", "--min-insync=2"]


def test_alerts_wake_whom_their_severity_says() -> None:
    routes = yaml.safe_load(STACK.read_text())["alertmanager"]["config"]["route"]["routes"]
    severities = yaml.safe_load((CHART / "values.yaml").read_text())["monitoring"]["rules"]["severities"]
    night = next(route for route in routes if route["receiver"] == "night")
    assert night["matchers"] == [f'severity = "{severities["critical"]}"']
