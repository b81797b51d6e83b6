"""docs/telemetry.md has every metric, span and log field that the code defines, and no other. What the services say
when they run is tests/e2e/test_telemetry.py."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from recupera_local import paths
from support import telemetry

KINDS = {"counter": "counter", "gauge": "gauge", "histogram": "histogram"}
FIXED = {"time", "level", "logger", "message", "service", "role", "trace_id", "span_id", "error"}
"""Fields that JsonFormatter writes by itself."""


def calls() -> Iterator[tuple[Path, ast.Call]]:
    """Every call in the code of the services."""
    for folder in ("lib", "services"):
        for path in sorted((paths.REPO / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    yield path, node


def defined() -> dict[str, tuple[str, str]]:
    """Kind and unit of each instrument that the code makes, by name."""
    found: dict[str, tuple[str, str]] = {}
    for path, call in calls():
        match call:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="telemetry"), attr=kind),
                args=[ast.Constant(value=str(name)), ast.Constant(value=str(unit)), *_],
            ) if kind in KINDS:
                assert name not in found, f"{path} makes {name} a second time"
                found[name] = (KINDS[kind], unit)
    return found


def test_each_metric_of_the_code_is_in_the_registry_and_no_other() -> None:
    assert {name: (one.kind, one.unit) for name, one in telemetry.metrics().items()} == defined()


@pytest.mark.parametrize("name", sorted(telemetry.metrics()))
def test_the_name_for_prometheus_follows_from_the_other(name: str) -> None:
    metric = telemetry.metrics()[name]
    units = {"s": "_seconds", "1": ""}
    ending = units.get(metric.unit, "") + ("_total" if metric.kind == "counter" else "")
    assert metric.prometheus == name.replace(".", "_") + ending
    assert metric.unit in units or re.fullmatch(r"\{[a-z]+\}", metric.unit), (
        "a unit that Prometheus' names would show"
    )
    assert metric.meaning


@pytest.mark.parametrize("name", [name for name, one in telemetry.metrics().items() if one.seen != "journey"])
def test_what_no_journey_provokes_has_a_reason_and_a_test_of_its_own(name: str) -> None:
    told = re.fullmatch(r"only .+: (`(tests/[\w/]+\.py)`|definition only)", telemetry.metrics()[name].seen)
    assert told, "expected the reason, and the test"
    if told[2]:
        text = (paths.REPO / told[2]).read_text()
        assert telemetry.metrics()[name].prometheus.removesuffix("_total") in text


def test_each_span_of_the_code_is_in_the_registry_and_no_other() -> None:
    found = set()
    for _, call in calls():
        match call:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="telemetry"), attr="server_span")):
                found.add("package.Service/Method")
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="telemetry"), attr="span"),
                args=[ast.Constant(value=str(name))],
            ):
                found.add(name)
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="telemetry"), attr="span"),
                args=[ast.JoinedStr(values=[ast.Constant(value=str(name)), _])],
            ):
                found.add(f"{name.strip()} message")
    assert {row["span"] for row in telemetry.rows("span")} == found


def test_each_log_field_of_the_code_is_in_the_registry_and_no_other() -> None:
    found = set(FIXED)
    for _, call in calls():
        for keyword in call.keywords:
            if keyword.arg == "extra" and isinstance(keyword.value, ast.Dict):
                found |= {key.value for key in keyword.value.keys if isinstance(key, ast.Constant)}
    assert telemetry.names("field") == found
