"""Values `telemetry` of the chart: what is pushed to a collector, from whom, and the way that is open for it."""

import copy
import functools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import test_chart as chart

ON = ("--set", "telemetry.otlpEndpoint=http://collector.observability.svc:4317")


def environment(container: Any) -> dict[str, Any]:
    """Variables of a container by name: the value, or where it is from."""
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


def services(*arguments: str) -> dict[str, dict[str, Any]]:
    """Variables of each process of ours."""
    return {
        name: environment(one["spec"]["template"]["spec"]["containers"][0])
        for name, one in chart.objects("Deployment", *arguments).items()
        if name != "r-gateway"
    }


@functools.cache
def ways_to(port: int, *arguments: str) -> dict[str, Any]:
    """The peers that each policy lets out to a port; None: any."""
    return {
        name: rule.get("to")
        for name, policy in chart.objects("NetworkPolicy", *arguments).items()
        for rule in policy["spec"].get("egress", [])
        if {"port": port} in rule["ports"]
    }


def test_nothing_is_pushed_unless_it_is_asked_for() -> None:
    for name, variables in services().items():
        assert (
            not {"RECUPERA_OTLP_ENDPOINT", "RECUPERA_TRACE_RATIO", "OTEL_RESOURCE_ATTRIBUTES"}
            & variables.keys()
        ), name
    assert not ways_to(4317)


def test_every_service_pushes_and_says_which_pod_it_is() -> None:
    found = services(*ON)
    assert len(found) == 10
    for name, variables in found.items():
        assert variables["RECUPERA_OTLP_ENDPOINT"] == "http://collector.observability.svc:4317", name
        assert variables["RECUPERA_TRACE_RATIO"] == "0.1"
        assert variables["POD_NAME"] == {"fieldRef": {"fieldPath": "metadata.name"}}
        told = dict(part.split("=") for part in variables["OTEL_RESOURCE_ATTRIBUTES"].split(","))
        assert told == {
            "k8s.namespace.name": "n",
            "k8s.pod.name": "$(POD_NAME)",
            "k8s.node.name": "$(NODE_NAME)",
        }
        names = list(variables)
        assert names.index("POD_NAME") < names.index("OTEL_RESOURCE_ATTRIBUTES"), "else it is not filled in"


def test_the_ratio_is_what_the_value_says() -> None:
    for variables in services(*ON, "--set", "telemetry.traceRatio=1").values():
        assert variables["RECUPERA_TRACE_RATIO"] == "1"


def test_only_services_reach_the_collector_and_on_its_port() -> None:
    names = {f"r-{service}-{role}" for service in chart.ports.SERVICES for role in ("serve", "worker")}
    assert ways_to(4317, *ON) == dict.fromkeys(names)
    other = ("--set", "telemetry.otlpEndpoint=https://collector.example:14317")
    assert ways_to(14317, *other).keys() == names
    assert not ways_to(4317, *other)


def test_the_collector_may_be_named_as_a_peer(tmp_path: Path) -> None:
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "observability"}}}
    values = copy.deepcopy(yaml.safe_load(chart.MINIMAL.read_text()))
    values |= {
        "telemetry": {"otlpEndpoint": "http://collector.observability.svc:4317"},
        "networkPolicy": {**values.get("networkPolicy", {}), "otlp": {"to": [peer]}},
    }
    path = tmp_path / "values.yaml"
    path.write_text(json.dumps(values))
    policy = chart.objects("NetworkPolicy", values=path)["r-case-worker"]
    assert {"ports": [{"port": 4317}], "to": [peer]} in policy["spec"]["egress"]


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("telemetry.otlpEndpoint=collector:4317", "otlpEndpoint"),
        ("telemetry.otlpEndpoint=http://collector", "otlpEndpoint"),
        ("telemetry.otlpEndpoint=http://collector:4317/v1/traces", "otlpEndpoint"),
        ("telemetry.traceRatio=2", "traceRatio"),
        ("telemetry.endpoint=http://collector:4317", "endpoint"),
        ("networkPolicy.otlp.ports={4317}", "ports"),
    ],
)
def test_wrong_values_are_refused_with_their_place(value: str, place: str) -> None:
    for program in chart.HELMS:
        answer = chart.template(chart.MINIMAL, "--set", value, program=program)
        assert answer.returncode != 0
        assert place in answer.stderr
