"""Grafana's dashboards as the chart renders them: valid by Grafana's own types, asking for series that there are."""

from __future__ import annotations

import copy
import functools
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.models import units

from deploy import test_alerts as alerts
from deploy import test_chart as chart
from support import grafana, promql, registry

SOURCES = sorted(path.stem for path in (chart.CHART / "dashboards").glob("*.yaml"))
UNITS = {value for name, value in vars(units).items() if name[0].isupper() and isinstance(value, str)}
COLOURS = {"green", "yellow", "orange", "red", "blue", "transparent"}
VARIABLES = {"$__rate_interval": "5m", "$__interval": "1h", "$__range": "24h"}

Json = dict[str, Any]


@functools.cache
def rendered(*arguments: str, program: str = "helm4") -> Mapping[str, Json]:
    """The ConfigMaps, by the name of their dashboard."""
    found = [
        one
        for one in chart.rendered(chart.MINIMAL, *arguments, program=program)
        if one["kind"] == "ConfigMap"
    ]
    return {
        name.removesuffix(".json"): one for one in found for name in one["data"] if name.endswith(".json")
    }


@functools.cache
def dashboard(name: str) -> Json:
    """A dashboard as Grafana reads it."""
    text = rendered("--set", "monitoring.dashboards.enabled=true")[name]["data"][f"{name}.json"]
    return dict(json.loads(text))


def panels(name: str) -> list[Json]:
    """Its panels, without the titles of rows."""
    return [panel for panel in dashboard(name)["panels"] if panel["type"] != "row"]


EVERY = [
    pytest.param(name, panel, id=f"{name}: {panel['title']}")
    for name in SOURCES
    for panel in yaml.safe_load((chart.CHART / "dashboards" / f"{name}.yaml").read_text())["rows"]
    for panel in panel["panels"]
]
"""Each panel as it is written."""


def queries(name: str) -> Iterator[tuple[str, str]]:
    """Title and expression of everything that is asked of Prometheus."""
    found = dashboard(name)
    for panel in panels(name):
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for annotation in found["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]
    for variable in found["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert asked, variable
            yield variable["name"], f"count by ({asked[2]}) ({asked[1]})"


def plain(name: str, expression: str, values: Mapping[str, str] | None = None) -> str:
    """The expression as Prometheus gets it: with values in place of Grafana's variables."""
    own = {
        f"${one['name']}": (values or {}).get(one["name"], "x")
        for one in dashboard(name)["templating"]["list"]
    }
    for variable, value in sorted({**own, **VARIABLES}.items(), key=lambda pair: -len(pair[0])):
        expression = expression.replace(variable, value)
    assert not re.search(r"\$(?!\d)", expression), f"a variable that nobody has: {expression}"
    return expression


def test_there_are_none_unless_asked_for() -> None:
    assert not rendered()
    given = rendered("--set", "monitoring.dashboards.enabled=true,monitoring.dashboards.folder=Collections")
    assert sorted(given) == SOURCES
    assert {"platform", "service", "kafka", "collections"} <= set(given)
    for name, one in given.items():
        assert one["metadata"]["name"] == f"r-dashboard-{name}"
        assert one["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert one["metadata"]["annotations"] == {"grafana_folder": "Collections"}
        assert "annotations" not in rendered("--set", "monitoring.dashboards.enabled=true")[name]["metadata"]
    other = rendered("--set", "monitoring.dashboards.enabled=true,monitoring.dashboards.labels.team=a")
    assert {one["metadata"]["labels"]["team"] for one in other.values()} == {"a"}


def test_both_versions_of_helm_make_the_same() -> None:
    arguments = ("--set", "monitoring.dashboards.enabled=true")
    assert rendered(*arguments, program="helm3") == rendered(*arguments)


@pytest.mark.parametrize("name", SOURCES)
def test_a_dashboard_is_valid_by_grafanas_own_types(name: str) -> None:
    assert not grafana.complaints(dashboard(name))


@pytest.mark.parametrize(
    "breaking",
    [
        lambda d: d.update(nonsense=1),
        lambda d: d.update(title=1),
        lambda d: d["panels"][1]["gridPos"].update(w="4"),
        lambda d: d["panels"][1]["options"].update(colorMode="pink"),
        lambda d: d["panels"][1]["fieldConfig"]["defaults"].update(units="s"),
        lambda d: d["panels"][1]["targets"][0].update(expression="up"),
        lambda d: d["panels"][-1]["transformations"][0].update(name="merge"),
        lambda d: d["templating"]["list"][0].update(type="choice"),
    ],
)
def test_what_grafana_does_not_know_is_seen(breaking: Any) -> None:
    broken = copy.deepcopy(dashboard("platform"))
    breaking(broken)
    assert len(grafana.complaints(broken)) == 1


@pytest.mark.parametrize("name", SOURCES)
def test_every_query_asks_for_what_is_registered(name: str) -> None:
    wrong = []
    for title, expression in queries(name):
        try:
            tree = promql.parse(plain(name, expression))
            promql.labels(tree, registry.labels)
        except ValueError as error:
            wrong.append(f"{title}: {error}")
        asked = promql.selectors(plain(name, expression))
        wrong += [
            f"{title}: not of one namespace: {one}"
            for one, by in asked
            if not {"namespace", "service_namespace"} & set(by)
        ]
    assert not wrong, wrong


@pytest.mark.parametrize("name", SOURCES)
def test_legends_and_columns_show_labels_that_are_there(name: str) -> None:
    for panel in panels(name):
        there = frozenset[str]()
        for target in panel["targets"]:
            answer = promql.labels(promql.parse(plain(name, target["expr"])), registry.labels)
            there |= answer
            if panel["type"] == "table":
                continue
            shown = promql.placeholders(target["legendFormat"])
            assert shown <= answer, panel["title"]
            if panel["type"] != "stat" or answer - {"namespace"}:
                assert shown == answer - {"namespace"}, f"{panel['title']}: series that look alike"
        if panel["type"] == "table":
            fields = panel["transformations"][-2]["options"]["include"]["names"]
            values = {f"Value #{target['refId']}" for target in panel["targets"]} | {"Value"}
            assert set(fields) <= there | values, panel["title"]


@pytest.mark.parametrize("name", SOURCES)
def test_a_panel_of_what_is_rare_says_that_there_is_none(name: str) -> None:
    for panel in panels(name):
        if panel["type"] == "stat":
            continue  # a first look must know "none" from "not known": its query says 0
        asked = [
            metric
            for target in panel["targets"]
            for metric, _ in promql.selectors(plain(name, target["expr"]))
        ]
        if not any(metric != "ALERTS" and registry.ordinary(metric) for metric in asked):
            assert "noValue" in panel["fieldConfig"]["defaults"], panel["title"]


PODS = """
kube_deployment_spec_replicas{deployment="r-case-serve"} 3
kube_deployment_status_replicas_ready{deployment="r-case-serve"} 2
kube_deployment_spec_replicas{deployment="r-gateway"} 2
kube_deployment_status_replicas_ready{deployment="r-gateway"} 2
kube_deployment_spec_replicas{deployment="somebody-elses"} 9
kube_deployment_status_replicas_ready{deployment="somebody-elses"} 0
kube_pod_container_status_restarts_total{pod="r-case-serve-7d-x1",container="serve",uid="1"} 0
kube_pod_container_resource_limits{pod="r-case-serve-7d-x1",container="serve",resource="memory",uid="1"} 400
kube_pod_container_resource_limits{pod="r-case-serve-7d-x2",container="serve",resource="memory",uid="2"} 400
kube_pod_container_resource_limits{pod="r-gateway-5f-y1",container="envoy",resource="memory",uid="3"} 200
kube_pod_container_resource_requests{pod="r-case-serve-7d-x1",container="serve",resource="cpu",uid="1"} 0.05
container_memory_working_set_bytes{pod="r-case-serve-7d-x1",container="serve",id="a"} 100
container_memory_working_set_bytes{pod="r-case-serve-7d-x2",container="serve",id="b"} 360
container_memory_working_set_bytes{pod="r-case-serve-7d-x2",container="",id="c"} 999
container_memory_working_set_bytes{pod="r-gateway-5f-y1",container="envoy",id="d"} 50
container_cpu_usage_seconds_total{pod="r-case-serve-7d-x1",container="serve",id="a",cpu="total"} 0
up{pod="r-case-serve-7d-x1",container="serve",component="case-serve"} 1
up{pod="r-case-serve-7d-x2",container="serve",component="case-serve"} 1
up{pod="r-gateway-5f-y1",container="envoy",component="gateway"} 0
kube_pod_container_status_last_terminated_reason{pod="r-case-serve-7d-x1",container="serve",reason="OOMKilled"} 1
kube_horizontalpodautoscaler_status_desired_replicas{horizontalpodautoscaler="r-case-serve"} 2
kube_horizontalpodautoscaler_spec_max_replicas{horizontalpodautoscaler="r-case-serve"} 8
"""
"""What kube-state-metrics, the kubelet and Prometheus say of two servers and a gateway; counters grow by 6 a minute."""

SEEN = [
    ("platform", "Pods not ready", 0, {"{}": 1}),
    ("platform", "Processes not measured", 0, {"{}": 1}),
    ("platform", "Components", 0, {"case-serve": 2, "gateway": 2}),
    ("platform", "Components", 1, {"case-serve": 3, "gateway": 2}),
    ("platform", "Components", 2, {"case-serve": 360}),
    ("platform", "Components", 3, {"case-serve": 0.9, "gateway": 0.25}),
    ("platform", "Components", 4, {"case-serve": 0.1}),
    ("platform", "Memory of the limit, fullest pod", 0, {"case-serve": 0.9, "gateway": 0.25}),
    (
        "platform",
        "Autoscalers, share of their maximum",
        0,
        {'{horizontalpodautoscaler="r-case-serve"}': 0.25},
    ),
    (
        "platform",
        "Why containers ended last",
        0,
        {'{pod="r-case-serve-7d-x1", container="serve", reason="OOMKilled"}': 1},
    ),
    ("service", "Processes", 0, {"{}": 2}),
    ("service", "Memory of the limit, fullest pod", 0, {"{}": 0.9}),
    ("service", "Memory by pod", 0, {'{pod="r-case-serve-7d-x1"}': 100, '{pod="r-case-serve-7d-x2"}': 360}),
    ("service", "Memory by pod", 1, {"{}": 400}),
    ("service", "CPU by pod", 0, {'{pod="r-case-serve-7d-x1"}': 0.1}),
    ("service", "CPU by pod", 1, {"{}": 0.05}),
]


def test_what_kubernetes_says_of_pods_is_found_by_component(tmp_path: Path) -> None:
    given = [line.rpartition(" ") for line in PODS.strip().splitlines()]
    series = [
        {
            "series": name.replace("{", '{namespace="n",'),
            "values": f"{value}+6x120" if name.partition("{")[0].endswith("_total") else f"{value}x120",
        }
        for name, _, value in given
    ]
    expected = []
    for name, title, index, answers in SEEN:
        (panel,) = [panel for panel in panels(name) if panel["title"] == title]
        here = {"namespace": "n", "component": "case-.+"}
        samples = [
            {"labels": labels if labels.startswith("{") else f'{{component="{labels}"}}', "value": value}
            for labels, value in answers.items()
        ]
        query = plain(name, panel["targets"][index]["expr"], here)
        expected.append({"expr": query, "eval_time": "100m", "exp_samples": samples})
    scenario = {"interval": "1m", "input_series": series, "promql_expr_test": expected}
    file = tmp_path / "pods.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [], "tests": [scenario]}))
    alerts.run("test", "rules", file)


@pytest.mark.parametrize(("name", "panel"), EVERY)
def test_a_panel_says_what_it_shows(name: str, panel: Json) -> None:
    assert panel["title"]
    assert len(panel["description"]) > 30, "what is seen, and what it means"
    assert panel["unit"] in UNITS
    assert panel.get("type", "lines") in {"lines", "bars", "stat", "table", "bargauge"}
    assert panel.get("type") == "table" or all(one.get("legend") for one in panel.get("queries", [panel]))
    assert panel.get("type") != "bars" or "every" in panel
    for steps in [
        panel.get("steps", ["green"]),
        *(c["steps"] for c in panel.get("columns", []) if "steps" in c),
    ]:
        assert set(steps[::2]) <= COLOURS
        bounds = steps[1::2]
        assert bounds == sorted(bounds)


@pytest.mark.parametrize("name", SOURCES)
def test_the_first_row_answers_whether_it_is_well(name: str) -> None:
    source = yaml.safe_load((chart.CHART / "dashboards" / f"{name}.yaml").read_text())
    first = source["rows"][0]
    assert first["title"] == "Is it well?"
    stats = [panel for panel in first["panels"] if panel.get("type") == "stat"]
    assert len(stats) >= 6
    for panel in stats:
        assert len(panel["steps"]) >= 3, f"{panel['title']} has one colour only"


@pytest.mark.parametrize("name", SOURCES)
def test_panels_lie_beside_each_other(name: str) -> None:
    found = dashboard(name)["panels"]
    assert len({panel["id"] for panel in found}) == len(found)
    places = [panel["gridPos"] for panel in found]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below


def test_links_lead_to_a_dashboard_of_ours() -> None:
    uids = {dashboard(name)["uid"]: name for name in SOURCES}
    assert len(uids) == len(SOURCES)
    links = [
        link["url"]
        for name in SOURCES
        for panel in panels(name)
        for link in panel["fieldConfig"]["defaults"].get("links", [])
    ]
    assert links
    for url in links:
        place = re.match(r"/d/([\w-]+)\?(.+)", url)
        assert place, url
        variables = {f"var-{one['name']}" for one in dashboard(uids[place[1]])["templating"]["list"]}
        assert {part.partition("=")[0] for part in place[2].split("&")} <= variables
    for name in SOURCES:
        for link in dashboard(name)["links"]:
            assert all(set(link["tags"]) <= set(dashboard(other)["tags"]) for other in SOURCES)
