"""docs/telemetry.md as data, with what the alert rules record: which series there are, and the labels of each."""

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from recupera_local import paths
from support import promql

SCRAPED = frozenset({"namespace", "pod", "container", "component", "instance", "job"})
"""What the ServiceMonitor adds to each series of ours and of the gateway."""
OF_CLUSTER = {
    "kube_pod_": frozenset({"namespace", "pod", "container"}),
    "container_": frozenset({"namespace", "pod", "container"}),
    "kube_": frozenset({"namespace"}),
    "certmanager_": frozenset({"namespace", "exported_namespace"}),
}
"""What those of Kubernetes have besides the labels that are written beside them; by the first that fits."""
OF_A_CODE = re.compile(r"envoy_cluster_grpc_\d+")
"""Counters of the gateway that begin when their code is seen."""


@dataclasses.dataclass(frozen=True)
class Series:
    """A line of the registry: the labels that it may have, and whether an ordinary day has it."""

    labels: frozenset[str]
    ordinary: bool = True


@functools.cache
def metrics() -> Mapping[str, Series]:
    """By the name that Prometheus has; a histogram without the endings of its parts."""
    found = {"up": Series(SCRAPED)}
    columns: list[str] = []
    for line in (paths.REPO / "docs" / "telemetry.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            columns = []
        elif not columns:
            columns = [cell.lower() for cell in cells]
        elif {"prometheus", "labels"} <= set(columns):
            row = dict(zip(columns, cells, strict=True))
            own = frozenset(re.findall(r"`(\w+)`", row["labels"]))
            for name in re.findall(r"`(\w+)`", row["prometheus"]):
                others = (more for start, more in OF_CLUSTER.items() if name.startswith(start))
                ordinary = row.get("seen", "journey").startswith("journey") and not OF_A_CODE.fullmatch(name)
                found[name] = Series(own | next(others, SCRAPED), ordinary)
    return found


@functools.cache
def labels(metric: str) -> frozenset[str]:
    """Labels that a series may have. Raises ValueError for one that is nowhere registered."""
    if metric == "ALERTS":
        return frozenset({"alertname", "alertstate"}).union(
            *(_answer(rule) for rule in _rules() if "alert" in rule)
        )
    if ":" in metric:
        rules = [rule for rule in _rules() if rule.get("record") == metric]
        if rules:
            return frozenset[str]().union(*(_answer(rule) for rule in rules))
    found = _found(metric)
    return found.labels | ({"le"} if metric.endswith("_bucket") else set())


def ordinary(metric: str) -> bool:
    """Whether a series is there on a day on which nothing goes wrong."""
    return ":" in metric or _found(metric).ordinary


def _found(metric: str) -> Series:
    for part in ("", "_sum", "_count", "_bucket"):
        if metric.endswith(part) and (name := metric.removesuffix(part)) in metrics():
            return metrics()[name]
    raise ValueError(f"{metric} is not in docs/telemetry.md")


def _answer(rule: Mapping[str, Any]) -> frozenset[str]:
    return promql.labels(promql.parse(rule["expr"]), labels) | frozenset(rule.get("labels", {}))


@functools.cache
def _rules() -> tuple[Mapping[str, Any], ...]:
    def read() -> Iterator[Mapping[str, Any]]:
        for file in sorted((paths.REPO / "deploy" / "helm" / "recupera" / "alerts").glob("*.yaml")):
            for group in yaml.safe_load(file.read_text())["groups"]:
                yield from group["rules"]

    return tuple(read())
