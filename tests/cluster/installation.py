"""The chart on a real cluster, with PostgreSQL, Kafka and a mail box on this machine.

It knows a KUBECONFIG, images and this machine's address as pods reach it; nothing of what makes the cluster:

    KUBECONFIG                       any cluster whose nodes reach this machine, and whose nodes this machine reaches
    RECUPERA_CLUSTER_IMAGE           the release: `make image`, made known to the cluster
    RECUPERA_CLUSTER_NEXT_IMAGE      .. BAD_IMAGE, .. BROKEN_IMAGE: made from it by tests/cluster/images/build.sh
    RECUPERA_CLUSTER_GATEWAY_IMAGE   an image with `envoy` on its PATH
    RECUPERA_CLUSTER_HOST            this machine for pods; default: its address on the way to the API server
    RECUPERA_CLUSTER_NAMESPACE       default recupera-test; made new, and removed in the end
    RECUPERA_CLUSTER_NODE_PORT       default 30080
    RECUPERA_CLUSTER_HELM            helm4 (default) or helm3
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import sqlalchemy as sa
import yaml

from recupera_local import agencies, helm, kafka, paths, ports, postgres, processes, tokens
from recupera_local import gateway_client as gc

CHART = paths.REPO / "deploy" / "helm" / "recupera"
RELEASE = "recupera"
PATIENCE = 300.0
CHECKED = UUID("01890000-0000-7000-8000-0000000000ce")
ROLES = ("serve", "worker")
COMPONENTS = (*(f"{service}-{role}" for service in ports.SERVICES for role in ROLES), "gateway")


class SettingMissing(Exception):
    """A variable that the suite needs is not set."""


class CommandFailed(Exception):
    """kubectl or helm said no; the message has what they said."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What the suite was told."""

    image: str
    next_image: str
    bad_image: str
    broken_image: str
    gateway_image: str
    host: str
    namespace: str
    node_port: int
    helm: str

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """From the environment. Raises SettingMissing naming all that are missing."""
        images = {
            name: f"RECUPERA_CLUSTER_{name.upper()}"
            for name in ("image", "next_image", "bad_image", "broken_image", "gateway_image")
        }
        missing = [name for name in ("KUBECONFIG", *images.values()) if not environ.get(name)]
        if missing:
            raise SettingMissing(f"tests/cluster needs {', '.join(missing)}: see tests/cluster/README.md")
        return cls(
            **{name: environ[variable] for name, variable in images.items()},
            host=environ.get("RECUPERA_CLUSTER_HOST") or address_towards(api_host(environ["KUBECONFIG"])),
            namespace=environ.get("RECUPERA_CLUSTER_NAMESPACE") or "recupera-test",
            node_port=int(environ.get("RECUPERA_CLUSTER_NODE_PORT") or 30080),
            helm=environ.get("RECUPERA_CLUSTER_HELM") or "helm4",
        )


def api_host(kubeconfig: str) -> str:
    """The API server's address."""
    config = yaml.safe_load(Path(kubeconfig).read_text())
    context = next(one for one in config["contexts"] if one["name"] == config["current-context"])
    cluster = next(one for one in config["clusters"] if one["name"] == context["context"]["cluster"])
    return str(urllib.parse.urlparse(cluster["cluster"]["server"]).hostname)


def address_towards(host: str) -> str:
    """This machine's address on the way to a host."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))
        return str(probe.getsockname()[0])


def run(*command: str, given: str | None = None, timeout: float = 900) -> str:
    """A command's output. Raises CommandFailed."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode != 0:
        raise CommandFailed(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def image_values(image: str) -> dict[str, str]:
    """`registry:5000/name:tag` as the chart's values say it."""
    repository, found, tag = image.rpartition(":")
    if not found or "/" in tag:
        raise SettingMissing(f"{image}: expected a name with a tag")
    return {"repository": repository, "tag": tag}


class Backing:
    """PostgreSQL, Kafka and a mail server for the pods: processes of this machine, each of which can be stopped.

    `postgres.process.kill()` and `postgres.start()`, the same of `kafka`, cut one off and give it back.
    """

    def __init__(self, folder: Path, host: str) -> None:
        self.host = host
        self.keys = folder / "keys"
        tokens.ensure(self.keys)
        postgres_port, kafka_port, controller_port, smtp_port, self._mailbox_port = ports.free_ports(5)
        self.postgres = postgres.Postgres(
            folder=folder / "postgres",
            port=postgres_port,
            log=folder / "postgres.log",
            durable=False,
            settings={"listen_addresses": f"127.0.0.1,{host}", "max_connections": "400"},
            remote=True,
        )
        self.kafka = kafka.Kafka(
            folder=folder / "kafka",
            port=kafka_port,
            controller_port=controller_port,
            log=folder / "kafka.log",
            settings={
                "listeners": f"PLAINTEXT://0.0.0.0:{kafka_port},CONTROLLER://127.0.0.1:{controller_port}",
                "advertised.listeners": f"PLAINTEXT://{host}:{kafka_port}",
            },
        )
        self.smtp_port = smtp_port
        self.mailbox = processes.Process(
            name="mailbox",
            command=[
                *(sys.executable, "-m", "recupera_local.mailbox"),
                *("--smtp", str(smtp_port), "--smtp-host", host),
                *("--http", str(self._mailbox_port), "--folder", str(folder / "mailbox")),
            ],
            log=folder / "mailbox.log",
            environ={"PATH": os.environ["PATH"]},
            ready=lambda: processes.listening(smtp_port, host) and processes.listening(self._mailbox_port),
        )

    @property
    def bootstrap(self) -> str:
        """Kafka's address, for pods and for this machine."""
        return f"{self.host}:{self.kafka.port}"

    def start(self) -> None:
        """Start all, with a database for each service."""
        self.postgres.prepare()
        self.kafka.prepare()
        for process in (self.postgres.process, self.kafka.process, self.mailbox):
            process.start()
        self.postgres.process.wait_ready()
        self.postgres.create_service_databases(ports.SERVICES)
        self.kafka.process.wait_ready()
        self.mailbox.wait_ready()

    def stop(self) -> None:
        """Stop all."""
        for process in (self.mailbox, self.kafka.process, self.postgres.process):
            process.stop()

    def mails(self) -> list[dict[str, Any]]:
        """Every mail that was taken, newest first (recupera_local/mailbox.py says what is in one)."""
        url = f"http://127.0.0.1:{self._mailbox_port}/messages"
        found: list[dict[str, Any]] = httpx.get(url, params={"limit": 1_000_000}).json()["messages"]
        return found

    def url(self, service: str, *, owner: bool = False) -> str:
        """A service's database, for its role or for the owner of its tables; pods use the same address."""
        name = f"recupera_{service}"
        return self.postgres.url(name, f"{name}_owner" if owner else name).replace(
            "@127.0.0.1:", f"@{self.host}:"
        )

    def secrets(self) -> Iterator[tuple[str, Mapping[str, str]]]:
        """The Secrets that the chart refers to."""
        for service in ports.SERVICES:
            yield f"db-{service}", {"url": self.url(service), "owner-url": self.url(service, owner=True)}
        # The journey of `helm test` has an agency of its own.
        yield "check", {"token": tokens.issue(self.keys, agency=CHECKED, subject="users/check")}
        yield "jwks", {"jwks.json": tokens.jwks_file(self.keys).read_text()}
        yield (
            "keys",
            {
                f"{service}.json": tokens.key_file(self.keys, service).read_text()
                for service in ports.SERVICES
            },
        )


class Installation:
    """A release of the chart in a namespace of its own that demands the restricted Pod Security level.

    Has what `fault.harness.Harness` asks of a platform: `gateway_url`, `token`, `agency`, `bootstrap`, `owner_url`.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.namespace = settings.namespace
        self.folder = folder
        self.backing = Backing(folder, settings.host)
        self.install_seconds = 0.0
        """What the first `helm install --wait` took."""

    # ---- commands ------------------------------------------------------------------------------------------------

    def kubectl(self, *arguments: str, given: str | None = None, timeout: float = 900) -> str:
        """kubectl in the namespace. Raises CommandFailed."""
        return run(
            str(helm.binary("kubectl")),
            "--namespace",
            self.namespace,
            *arguments,
            given=given,
            timeout=timeout,
        )

    def helm(self, *arguments: str) -> str:
        """Helm in the namespace. Raises CommandFailed."""
        return run(str(helm.binary(self.settings.helm)), "--namespace", self.namespace, *arguments)

    def get(self, *arguments: str) -> Any:
        """`kubectl get .. -o json`, read."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Create or change objects."""
        self.kubectl("apply", "-f", "-", given=yaml.safe_dump_all(objects))

    # ---- the release ---------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Servers, namespace and Secrets: what a user has before the chart is installed."""
        self.backing.start()
        self.kubectl("delete", "namespace", self.namespace, "--ignore-not-found", "--wait")
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace, "labels": labels}}
        )
        self.apply(
            *(
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {"name": name},
                    "stringData": dict(content),
                }
                for name, content in self.backing.secrets()
            )
        )

    def remove(self) -> None:
        """Uninstall, and nothing is left of it."""
        try:
            self.kubectl("delete", "namespace", self.namespace, "--ignore-not-found", "--wait")
        finally:
            self.backing.stop()
            shutil.rmtree(self.folder, ignore_errors=True)

    def values(self) -> dict[str, Any]:
        """What a user writes into my-values.yaml, with requests small enough for two cores."""
        backing = self.backing
        small = {"requests": {"cpu": "20m"}}
        return {
            "image": image_values(self.settings.image),
            "kafka": {"bootstrap": backing.bootstrap, "topics": {"replication": 1, "minInsync": 1}},
            "keys": {"jwks": {"secret": "jwks"}, "services": {"secret": "keys"}},
            "check": {"token": {"secret": "check"}},
            "env": {"RECUPERA_ALLOW_SIMULATED_CLOCK": "1"},
            "services": {
                service: {
                    "database": {"secret": f"db-{service}"},
                    **{role: {"resources": small} for role in ROLES},
                }
                | (
                    {"env": {"RECUPERA_SMTP_ADDRESS": f"{backing.host}:{backing.smtp_port}"}}
                    if service == "notify"
                    else {}
                )
                for service in ports.SERVICES
            },
            "gateway": {
                "image": image_values(self.settings.gateway_image),
                "service": {"type": "NodePort", "nodePort": self.settings.node_port},
                "resources": small,
            },
            "networkPolicy": {
                **{
                    name: {"ports": [port], "to": [block(backing.host)]}
                    for name, port in (
                        ("postgres", backing.postgres.port),
                        ("kafka", backing.kafka.port),
                        ("smtp", backing.smtp_port),
                    )
                },
                # Calls of this machine come through a node's port, those for metrics through the API server.
                "gatewayFrom": [block(backing.host), *(block(node) for node in self.nodes)],
                "metricsFrom": [
                    *(block(node) for node in self.nodes),
                    {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.monitoring}}},
                ],
            },
            "monitoring": {"enabled": True, "interval": "5s"},
        }

    @property
    def monitoring(self) -> str:
        """The namespace from which metrics may be read."""
        return f"{self.namespace}-monitoring"

    def upgrade(self, *flags: str, changed: Mapping[str, Any] | None = None, timeout: str = "10m") -> float:
        """`helm upgrade --install --wait` with the values, `changed` laid over them; the seconds it took."""
        values = merged(self.values(), changed or {})
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", dir=self.folder) as file:
            yaml.safe_dump(values, file)
            file.flush()
            started = time.monotonic()
            self.helm(
                *("upgrade", "--install", RELEASE, str(CHART), "--values", file.name),
                *("--wait", "--timeout", timeout, *self.forced, *flags),
            )
            return time.monotonic() - started

    @property
    def forced(self) -> Sequence[str]:
        """Helm 4 applies on the server, where `kubectl scale` owns the number that it has set."""
        return () if self.settings.helm == "helm3" else ("--force-conflicts",)

    def rollback(self) -> float:
        """`helm rollback --wait` to the release before; the seconds it took."""
        started = time.monotonic()
        self.helm("rollback", RELEASE, "--wait", "--timeout", "10m", *self.forced)
        return time.monotonic() - started

    def revisions(self) -> list[dict[str, Any]]:
        """`helm history`, oldest first: revision, status, description .."""
        found: list[dict[str, Any]] = json.loads(self.helm("history", RELEASE, "--output", "json"))
        return found

    def install(self) -> None:
        """The first time; the gateway answers then. Raises CommandFailed with what a person looks at."""
        try:
            self.install_seconds = self.upgrade()
        except CommandFailed as error:
            raise CommandFailed(f"{error}\n{self.why()}") from None
        until("the gateway at the node's port", self.healthy, seconds=30)

    def healthy(self) -> bool:
        """The gateway sees every service answer its health checks."""
        try:
            return httpx.get(f"{self.gateway_url}/health", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def scale(self, component: str, replicas: int) -> None:
        """Set a Deployment's replicas and wait until they are there and ready: `scale("case-worker", 3)`."""
        name = f"deployment/{RELEASE}-{component}"
        self.kubectl("scale", name, f"--replicas={replicas}")
        self.kubectl("rollout", "status", name, "--timeout=180s")

    def replace(self, component: str) -> None:
        """New pods for a Deployment, as an upgrade makes them, and wait until they are ready and the old ones going."""
        name = f"deployment/{RELEASE}-{component}"
        self.kubectl("rollout", "restart", name)
        self.kubectl("rollout", "status", name, "--timeout=180s")

    # ---- looking at it -------------------------------------------------------------------------------------------

    def pods(self, component: str | None = None) -> list[dict[str, Any]]:
        """Pods that are not ending, of all Deployments or of one component (case-serve, case-worker, .., gateway)."""
        of = ", ".join([component] if component is not None else COMPONENTS)
        selector = f"app.kubernetes.io/instance={RELEASE}, app.kubernetes.io/component in ({of})"
        found: list[dict[str, Any]] = self.get("pods", "--selector", selector)["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def usage(self) -> dict[str, tuple[float, int]]:
        """Millicores and bytes of each pod, by the cluster's metrics server; empty where it has none."""
        path = f"/apis/metrics.k8s.io/v1beta1/namespaces/{self.namespace}/pods"
        try:
            items = json.loads(self.kubectl("get", "--raw", path))["items"]
        except CommandFailed:
            return {}
        return {
            pod["metadata"]["name"]: (
                sum(quantity(one["usage"]["cpu"]) for one in pod["containers"]) * 1000,
                round(sum(quantity(one["usage"]["memory"]) for one in pod["containers"])),
            )
            for pod in items
        }

    @functools.cached_property
    def nodes(self) -> list[str]:
        """Addresses of the nodes, on each of which is the gateway's port."""
        return [
            address["address"]
            for node in self.get("nodes")["items"]
            for address in node["status"]["addresses"]
            if address["type"] == "InternalIP"
        ]

    @property
    def gateway_url(self) -> str:
        """The gateway from this machine: JSON, gRPC-Web, gRPC."""
        return f"http://{self.nodes[0]}:{self.settings.node_port}"

    @property
    def bootstrap(self) -> str:
        """Kafka's address."""
        return self.backing.bootstrap

    @property
    def agency(self) -> str:
        """The demo agency's id."""
        return str(agencies.demo().id)

    def token(self) -> str:
        """A token for the demo agency with all scopes."""
        return self.token_of(agencies.demo().id)

    def token_of(self, agency: UUID, *, subject: str = "users/developer") -> str:
        """A token for an agency with all scopes."""
        return tokens.issue(self.backing.keys, agency=agency, subject=subject)

    def gateway(self, agency: UUID | None = None, *, patience: float = 0.0) -> gc.Gateway:
        """JSON calls through the gateway; `patience` 0 repeats none."""
        of = agency or agencies.demo().id
        token = self.token_of(of)
        return gc.Gateway(
            base_url=self.gateway_url, token=lambda: token, agency=str(of), patience_seconds=patience
        )

    def owner_url(self, service: str) -> str:
        """A service's database for the owner of its tables."""
        return self.backing.url(service, owner=True)

    def owners(self) -> dict[str, sa.Engine]:
        """Engines of the databases' owners, who see all agencies."""
        return {
            service: sa.create_engine(
                sa.make_url(self.owner_url(service)).set(drivername="postgresql+psycopg"),
                poolclass=sa.NullPool,
            )
            for service in ports.SERVICES
        }

    def restarts(self) -> dict[str, int]:
        """How often containers of our pods were started again, by pod; empty when none was."""
        counted = {
            pod["metadata"]["name"]: sum(
                one["restartCount"] for one in pod["status"].get("containerStatuses", [])
            )
            for pod in self.pods()
        }
        return {name: count for name, count in counted.items() if count}

    def why(self) -> str:
        """What a person looks at first: pods, events, the end of the logs of what is not ready."""
        parts = [
            self.kubectl("get", "pods,jobs,hpa", "-o", "wide"),
            self.kubectl("get", "events", "--sort-by=.lastTimestamp")[-4000:],
        ]
        for pod in self.get("pods")["items"]:
            ready = [one["ready"] for one in pod["status"].get("containerStatuses", [])]
            if not ready or not all(ready):
                name = pod["metadata"]["name"]
                parts.append(
                    self.kubectl("logs", name, "--all-containers", "--tail=30", "--prefix", "--ignore-errors")
                )
        return "\n".join(parts)


def block(address: str) -> dict[str, Any]:
    """One address as a peer of a NetworkPolicy."""
    return {"ipBlock": {"cidr": f"{address}/32"}}


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `base`, as Helm lays values over one another."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def quantity(text: str) -> float:
    """A Kubernetes quantity as a number: 12m, 128Mi, 3n."""
    units = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    unit = text.lstrip("0123456789.")
    return float(text.removesuffix(unit)) * (units[unit] if unit else 1)


def until(what: str, probe: Callable[[], Any], *, seconds: float = PATIENCE) -> Any:
    """Ask until the answer is true, and give it; fails after `seconds` naming what was awaited."""
    return gc.wait_for(what, probe, seconds=seconds)


def names(pods: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of pods, sorted."""
    return sorted(pod["metadata"]["name"] for pod in pods)
