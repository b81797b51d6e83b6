"""Grafana's dashboards on a real Prometheus that reads the platform after a day of two agencies: each query answers."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from e2e.conftest import Two

import recupera_check
from deploy import test_dashboards as dashboards
from recupera_local import ports, processes, promtool
from support import promql, registry, waiting, whole

ALERTS = dashboards.chart.CHART / "alerts"
OF_CLUSTER = ("kube_", "container_")
OF_PROMETHEUS = ("up", "ALERTS")
OFTEN = {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "2s"}


class Prometheus:
    """A Prometheus that reads a platform's processes as a ServiceMonitor would have it do."""

    def __init__(self, platform: whole.Whole, folder: Path) -> None:
        (port,) = ports.free_ports(1)
        rules = [str(shutil.copy(file, folder)) for file in sorted(ALERTS.glob("*.yaml"))]
        configuration = {
            "global": OFTEN,
            "rule_files": rules,
            "scrape_configs": list(self._jobs(platform.parts.ports)),
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
        self.process = processes.Process(
            name="prometheus",
            command=[
                str(promtool.binary("prometheus")),
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            log=folder / "prometheus.log",
            environ={"PATH": os.environ["PATH"]},
            ready=self._is_ready,
        )

    def _is_ready(self) -> bool:
        try:
            return self._http.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    @staticmethod
    def _jobs(table: ports.Ports) -> Iterator[Mapping[str, Any]]:
        places = {f"{s}-{r}": f"{s}.{r}.metrics" for s in ports.SERVICES for r in ("serve", "worker")}
        for component, name in {**places, "gateway": "gateway.admin"}.items():
            found = {"namespace": "recupera", "pod": f"recupera-{component}-0", "component": component}
            yield {
                "job_name": component,
                "metrics_path": "/stats/prometheus" if component == "gateway" else "/metrics",
                "static_configs": [{"targets": [f"127.0.0.1:{table[name]}"], "labels": found}],
            }

    def ask(self, query: str) -> list[Mapping[str, Any]]:
        """The series of the answer."""
        answer = self._http.get("/api/v1/query", params={"query": query}).json()
        assert answer["status"] == "success", f"{query}: {answer}"
        found: list[Mapping[str, Any]] = answer["data"]["result"]
        return found


@pytest.fixture(scope="module")
def prometheus(
    whole: whole.Whole, two: Two, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """One that has watched the small journey of `helm test`, after the day of the two agencies."""
    made = Prometheus(whole, tmp_path_factory.mktemp("prometheus"))
    made.process.start()
    try:
        made.process.wait_ready()
        waiting.until(lambda: len(made.ask("up == 1")) == 11, timeout=60, what="all processes answer")
        recupera_check.Check(base_url=whole.url, token=whole.token(uuid.uuid4()), say=print).run()
        sent = "sum(recupera:facts_batches:rate5m) > 0 and sum(recupera:gateway_calls:rate5m) > 0"
        waiting.until(lambda: made.ask(sent), timeout=60, what="calls and facts of the journey")
        yield made
    finally:
        made.process.kill()


def may_be_empty(expression: str) -> bool:
    """Whether a query asks for something that this day does not bring about: Kubernetes' series, alerts, calls that
    failed, and what docs/telemetry.md says is only seen when something goes wrong."""
    if 'rpc_status!="OK"' in expression:
        return True
    asked = {name for name, _ in promql.selectors(expression)} - set(OF_PROMETHEUS)
    return not asked or any(name.startswith(OF_CLUSTER) or not registry.ordinary(name) for name in asked)


@pytest.mark.parametrize("name", dashboards.SOURCES)
def test_every_query_of_a_dashboard_answers(prometheus: Prometheus, name: str) -> None:
    here = {"namespace": "recupera", "component": ".+"}
    asked = [
        (title, dashboards.plain(name, expression, here)) for title, expression in dashboards.queries(name)
    ]

    def silent() -> list[str]:
        return [
            f"{title}: {query}"
            for title, query in asked
            if not prometheus.ask(query) and not may_be_empty(query)
        ]

    left: list[str] = []

    def answered() -> bool:
        left[:] = silent()
        return not left

    with contextlib.suppress(AssertionError):
        waiting.until(answered, timeout=60)
    assert not left, "\n".join(left)
