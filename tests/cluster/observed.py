"""A real Prometheus that reads the pods' metrics and holds the chart's alert rules against them.

It runs on this machine and reaches pods through the API server (`kubectl proxy`), so nothing has to be installed in the
cluster. Which pods there are, and what kube-state-metrics would say of them and of Deployments, comes from
`StateOfKubernetes`, which asks the API server for what the rules need: the one stand-in here.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml
from cluster import installation

from recupera_local import helm, ports, processes, promtool

SCRAPE = "4s"


class Prometheus:
    """What it knows."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=10)

    def alerts(self) -> dict[str, dict[str, str]]:
        """Labels of each alert whose condition is true, by its name: pending (not for long enough yet) or firing."""
        found = self._http.get("/api/v1/alerts").json()["data"]["alerts"]
        return {one["labels"]["alertname"]: one["labels"] for one in found}

    def value(self, query: str) -> float | None:
        """The only series of an expression; None where there is none."""
        answer = self._http.get("/api/v1/query", params={"query": query}).json()["data"]["result"]
        return float(answer[0]["value"][1]) if answer else None

    def await_alert(self, name: str, *, seconds: float = 90.0) -> dict[str, str]:
        """Until the condition of an alert is true; its labels."""
        found: dict[str, str] = installation.until(
            f"the condition of {name}", lambda: self.alerts().get(name), seconds=seconds
        )
        return found

    def await_quiet(self, name: str, *, seconds: float = 90.0) -> None:
        """Until the condition of an alert is not true any more."""
        installation.until(f"the end of {name}", lambda: name not in self.alerts(), seconds=seconds)

    def await_components(self) -> None:
        """Until pods of every component answered."""
        query = 'count(count by (component) (up{component!=""} == 1))'
        installation.until("metrics of all components", lambda: self.value(query) == 11, seconds=90)


@contextlib.contextmanager
def running(installed: installation.Installation, folder: Path) -> Iterator[Prometheus]:
    """A Prometheus with the installation's rules that knows nothing of before; ends with the block."""
    folder.mkdir(parents=True)
    api, own = ports.free_ports(2)
    state = StateOfKubernetes(installed, api=api)
    children = [_proxy(folder, api), _server(installed, folder, own=own, state=state.port)]
    try:
        for child in children:
            child.start()
            child.wait_ready()
        prometheus = Prometheus(f"http://127.0.0.1:{own}")
        prometheus.await_components()
        yield prometheus
    finally:
        for child in reversed(children):
            child.kill()
        state.close()


def _proxy(folder: Path, port: int) -> processes.Process:
    """The API server on this machine, without credentials."""
    environ = {name: value for name, value in os.environ.items() if name in ("PATH", "KUBECONFIG", "HOME")}
    return processes.Process(
        name="kubectl proxy",
        command=[str(helm.binary("kubectl")), "proxy", f"--port={port}"],
        log=folder / "proxy.log",
        environ=environ,
        ready=lambda: processes.listening(port),
    )


def _server(installed: installation.Installation, folder: Path, *, own: int, state: int) -> processes.Process:
    rule = installed.get("prometheusrule", installation.RELEASE)
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": rule["spec"]["groups"]}))
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(_configuration(state=state)))
    return processes.Process(
        name="prometheus",
        command=[
            str(promtool.binary("prometheus")),
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{own}",
        ],
        log=folder / "prometheus.log",
        environ={"PATH": os.environ["PATH"]},
        ready=lambda: _answers(f"http://127.0.0.1:{own}/-/ready"),
    )


def _configuration(*, state: int) -> dict[str, Any]:
    """Debian's Prometheus is built without its Kubernetes discovery: pods are told by StateOfKubernetes too."""
    here = f"127.0.0.1:{state}"
    discovery = {"url": f"http://{here}/pods", "refresh_interval": SCRAPE}
    return {
        "global": {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE, "evaluation_interval": SCRAPE},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [
            {"job_name": "pods", "http_sd_configs": [discovery]},
            {"job_name": "state", "honor_labels": True, "static_configs": [{"targets": [here]}]},
        ],
    }


class StateOfKubernetes:
    """Of the API server, reached at port `api`: `/pods` for Prometheus' discovery, with the labels that the chart's
    ServiceMonitor gives; `/metrics`: what the rules on Deployments and containers need of kube-state-metrics' series.
    """

    def __init__(self, installed: installation.Installation, *, api: int) -> None:
        outer = self
        self._installed = installed
        self._api = api

        class Page(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                try:
                    kind, text = outer.answer(self.path)
                except httpx.HTTPError as error:  # the API server is busy, or the proxy has ended
                    self.send_error(503, type(error).__name__)
                    return
                self.send_response(200)
                self.send_header("content-type", kind)
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # whoever asked has given up waiting
                    self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, name="state", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> tuple[str, str]:
        """Content type and text of a page."""
        if path == "/pods":
            return "application/json", json.dumps(list(self.pods()))
        return "text/plain; version=0.0.4", "".join(f"{line}\n" for line in self.lines())

    def pods(self) -> Iterator[dict[str, Any]]:
        """Each port `metrics` of the release's pods, by way of the API server."""
        for pod in self._get("api/v1", "pods"):
            labels, name = pod["metadata"]["labels"], pod["metadata"]["name"]
            if labels.get("app.kubernetes.io/instance") != installation.RELEASE:
                continue
            component = labels["app.kubernetes.io/component"]
            path = "stats/prometheus" if component == "gateway" else "metrics"
            for container in pod["spec"]["containers"]:
                for port in container.get("ports", ()):
                    if port.get("name") != "metrics" or pod["status"]["phase"] != "Running":
                        continue
                    place = (
                        f"/api/v1/namespaces/{self._installed.namespace}/pods/{name}:{port['containerPort']}"
                    )
                    told = {"namespace": self._installed.namespace, "pod": name, "component": component}
                    yield {
                        "targets": [f"127.0.0.1:{self._api}"],
                        "labels": {**told, "__metrics_path__": f"{place}/proxy/{path}"},
                    }

    def _get(self, group: str, kind: str) -> list[dict[str, Any]]:
        url = f"http://127.0.0.1:{self._api}/{group}/namespaces/{self._installed.namespace}/{kind}"
        items: list[dict[str, Any]] = httpx.get(url, timeout=10).json()["items"]
        return items

    def lines(self) -> Iterator[str]:
        """Series in Prometheus' text format."""
        for one in self._get("apis/apps/v1", "deployments"):
            labels = {"deployment": one["metadata"]["name"]}
            yield self._line("deployment_spec_replicas", labels, one["spec"]["replicas"])
            available = one["status"].get("availableReplicas", 0)
            yield self._line("deployment_status_replicas_available", labels, available)
        for one in self._get("api/v1", "pods"):
            for container in one["status"].get("containerStatuses", ()):
                labels = {"pod": one["metadata"]["name"], "container": container["name"]}
                yield self._line("pod_container_status_restarts_total", labels, container["restartCount"])
                if ended := container["lastState"].get("terminated"):
                    reason = {**labels, "reason": ended["reason"]}
                    yield self._line("pod_container_status_last_terminated_reason", reason, 1)

    def _line(self, name: str, labels: dict[str, str], value: int) -> str:
        told = {"namespace": self._installed.namespace, **labels}
        return f"kube_{name}{{{','.join(f'{key}={json.dumps(text)}' for key, text in told.items())}}} {value}"


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.TransportError:
        return False
