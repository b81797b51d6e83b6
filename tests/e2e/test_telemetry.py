"""What the running services say after a day of two agencies is in docs/telemetry.md, and what is there is said."""

from __future__ import annotations

import functools
import itertools
import json
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import prometheus_client.parser
import pytest

from recupera_local import ports
from servicekit import topics
from support import otlp, telemetry, waiting, whole

from .conftest import Two

PROCESSES = [f"{service}.{role}" for service, role in itertools.product(ports.SERVICES, ("serve", "worker"))]
SCOPE = {"otel_scope_name", "otel_scope_version", "otel_scope_schema_url"}
GAUGES = [one for one in telemetry.metrics().values() if one.kind == "gauge" and one.seen == "journey"]
SPANS = {row["span"]: set(re.findall(r"`([\w.]+)`", row["attributes"])) for row in telemetry.rows("span")}
"""Attributes of each span."""


def scraped(whole: whole.Whole, process: str) -> list[Any]:
    """The families that a process shows Prometheus."""
    url = f"http://127.0.0.1:{whole.parts.ports[f'{process}.metrics']}/metrics"
    with urllib.request.urlopen(url) as answer:
        return list(prometheus_client.parser.text_string_to_metric_families(answer.read().decode()))


@pytest.fixture(scope="module")
def families(two: Two, whole: whole.Whole) -> dict[str, list[Any]]:
    """What each process shows, once the gauges were looked up after the day."""

    def found() -> dict[str, list[Any]]:
        return {process: scraped(whole, process) for process in PROCESSES}

    def shown() -> set[str]:
        return {family.name for of_process in found().values() for family in of_process if family.samples}

    wanted = {one.prometheus for one in GAUGES}
    waiting.until(lambda: wanted <= shown(), timeout=90, what=f"gauges: {sorted(wanted - shown())}")
    return found()


@pytest.fixture(scope="module")
def collector(two: Two, whole: whole.Whole) -> otlp.Collector:
    """What was pushed; the SDK pushes metrics once a minute."""
    assert whole.collector is not None, "a platform that stood before pushes nothing: run without it"
    pushed = whole.collector
    waiting.until(
        lambda: len(names_of(pushed)) == len(PROCESSES), timeout=120, what="metrics of each process"
    )
    return pushed


def names_of(collector: otlp.Collector) -> set[tuple[str, str]]:
    """Service and role of the processes that sent something."""
    return {(told["service.name"], told["recupera.role"]) for told in collector.resources()}


def test_each_series_is_in_the_registry_with_its_labels_and_values(families: dict[str, list[Any]]) -> None:
    known = {one.prometheus.removesuffix("_total"): one for one in telemetry.metrics().values()}
    others = {
        name.removesuffix("_total"): set(re.findall(r"`(\w+)`", row["labels"]))
        for row in telemetry.rows("prometheus", "labels")
        if "otel" not in row
        for name in re.findall(r"`(\w+)`", row["prometheus"])
    }
    wrong = []
    for process, of_process in families.items():
        for family in of_process:
            for sample in family.samples:
                labels = {name: value for name, value in sample.labels.items() if name not in SCOPE | {"le"}}
                name = family.name
                if metric := known.get(name):
                    assert family.type == metric.kind
                    wrong += [
                        f"{process} {name} {label}={value!r}"
                        for label, value in labels.items()
                        if label not in metric.labels or not metric.labels[label].fullmatch(value)
                    ]
                elif family.name not in others:
                    wrong.append(f"{process} {family.name} is not in docs/telemetry.md")
                else:
                    wrong += [
                        f"{process} {family.name} {label}" for label in labels.keys() - others[family.name]
                    ]
    assert not wrong, sorted(set(wrong))


def test_each_metric_of_the_registry_is_shown(families: dict[str, list[Any]]) -> None:
    shown = {
        family.name
        for of_process in families.values()
        for family in of_process
        if any(family.type != "counter" or sample.value > 0 for sample in family.samples)
    }
    silent = [
        one.prometheus
        for one in telemetry.metrics().values()
        if one.seen == "journey" and one.prometheus.removesuffix("_total") not in shown
    ]
    assert not silent


def test_gauges_tell_what_the_day_left(families: dict[str, list[Any]], whole: whole.Whole) -> None:
    def total(name: str) -> float:
        shown = [family for process in PROCESSES for family in scraped(whole, process) if family.name == name]
        return float(sum(sample.value for family in shown for sample in family.samples))

    read = sum(topic.partitions * len(topic.consumers) for topic in topics.catalog().by_name.values())
    assert total("recupera_consumer_partitions") == read
    waiting.until(lambda: total("recupera_consumer_lag") == 0, timeout=90, what="nothing left to apply")
    waiting.until(lambda: total("recupera_case_day_slices_open") == 0, timeout=90, what="every slice done")


def test_a_process_says_what_it_is(families: dict[str, list[Any]], collector: otlp.Collector) -> None:
    for process, of_process in families.items():
        service, role = process.split(".")
        (told,) = [
            sample for family in of_process if family.name == "target_info" for sample in family.samples
        ]
        assert told.labels["service_name"] == f"recupera-{service}"
        assert told.labels["recupera_role"] == role
        assert re.fullmatch(r"\d+\.\d+\.\d+.*", told.labels["service_version"])
    assert all(told["service.version"] for told in collector.resources())


def test_the_same_metrics_are_pushed(collector: otlp.Collector) -> None:
    waiting.until(
        lambda: (
            {name for name, one in telemetry.metrics().items() if one.seen == "journey"}
            <= collector.metrics().keys()
        ),
        timeout=120,
        what="every metric",
    )
    assert collector.metrics().keys() <= telemetry.metrics().keys()
    kinds = {"counter": "sum", "gauge": "gauge", "histogram": "histogram"}
    for name, metric in collector.metrics().items():
        known = telemetry.metrics()[name]
        assert (metric.WhichOneof("data"), metric.unit) == (kinds[known.kind], known.unit), name


def row_of(name: str) -> str:
    """The span of the registry that a span's name is one of."""
    if re.fullmatch(r"[\w.]+/\w+", name):
        return "package.Service/Method"
    return "call message" if name.startswith("call ") else name


def test_each_span_is_in_the_registry_with_its_attributes(collector: otlp.Collector) -> None:
    spans = collector.spans()
    wrong = {
        f"{span.name} {attribute.key}"
        for span in spans
        for attribute in span.attributes
        if attribute.key not in SPANS.get(row_of(span.name), ())
    }
    assert not wrong
    seen: dict[str, set[str]] = {}
    for span in spans:
        seen.setdefault(row_of(span.name), set()).update(attribute.key for attribute in span.attributes)
    expected = {row["span"]: SPANS[row["span"]] for row in telemetry.rows("span") if row["seen"] == "journey"}
    assert seen.keys() == expected.keys()
    for name, attributes in expected.items():
        assert attributes - seen[name] <= {"error.type"}, f"{name}: only what fails may be missing"
    calls = [span for span in spans if row_of(span.name) == "package.Service/Method"]
    assert {span.kind for span in calls} == {2}, "those that answer are of kind server"
    assert any("error.type" in {attribute.key for attribute in span.attributes} for span in calls)


def test_a_trace_goes_on_through_calls_and_facts(collector: otlp.Collector) -> None:
    """One trace holds a call and what a worker did with the fact that it published."""
    by_trace: dict[bytes, set[str]] = {}
    for span in collector.spans():
        by_trace.setdefault(span.trace_id, set()).add(row_of(span.name))
    assert any({"package.Service/Method", "consume"} <= names for names in by_trace.values())


def lines(whole: whole.Whole) -> Iterator[dict[str, Any]]:
    """The log lines of the services, but for one that is being written."""
    for process in PROCESSES:
        for line in (whole.state_dir / "log" / f"{process}.log").read_bytes().split(b"\n")[:-1]:
            yield json.loads(line)


def test_each_log_field_is_in_the_registry(two: Two, whole: whole.Whole) -> None:
    known = telemetry.names("field")
    fields = functools.reduce(set.union, (set(line) for line in lines(whole)), set[str]())
    assert fields <= known, fields - known
    assert {"time", "level", "logger", "message", "service", "role", "trace_id", "span_id"} <= fields


def test_the_gateway_has_the_metrics_of_the_registry(two: Two, whole: whole.Whole) -> None:
    port = whole.parts.ports["gateway.admin"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats/prometheus") as answer:
        shown = {
            family.name: family
            for family in prometheus_client.parser.text_string_to_metric_families(answer.read().decode())
        }
    for row in telemetry.rows("prometheus", "labels"):
        for name in re.findall(r"`(envoy_\w+)`", row["prometheus"]):
            if re.search(r"_grpc_\d+$", name):
                continue  # is there once the code was seen
            family = shown.get(name) or shown.get(name.removesuffix("_total"))
            assert family is not None, name
            assert family.type == row["kind"], name
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            assert labels == set(re.findall(r"`(\w+)`", row["labels"])), name
