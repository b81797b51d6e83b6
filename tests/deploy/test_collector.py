"""The collector's configuration: lets through what the registry names and nothing else, masks what is a person's.

Read here, and run by the real collector where there is one (`make collector`): a process that says things by
servicekit.telemetry on one side, a backend that keeps what comes on the other.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from recupera_local import examples, paths, ports, processes
from support import otlp, telemetry, waiting

FILE = paths.REPO / "deploy" / "telemetry" / "collector.yaml"
CONFIGURATION: dict[str, Any] = yaml.safe_load(FILE.read_text())
REDACTION = CONFIGURATION["processors"]["redaction"]
OF_PODS = {"k8s.namespace.name", "k8s.pod.name", "k8s.node.name"}
"""What the chart adds to the resource (tests/deploy/test_chart_telemetry.py)."""

PERSONAL = ("debtor_document", "phone_1", "email", "guarantor_document", "guarantor_phone")
OURS = (
    "recupera.case.v1",
    "recupera.case.v1.CaseService/GetCase",
    "recupera.case.v1.ReserveContactsRequest",
    "RESOURCE_NOT_FOUND",
    "run_cleared_slices",
    "OK",
    "case_worker",
    "0.1.0",
    "EMAIL",
    "2026-11-23",
    *(str(uuid.UUID(int=number * 0x1234_5678_9ABC_DEF0_1357_9BDF)) for number in range(1, 200)),
    "01926a5e-1234-7000-8000-123456789012",
    "12345678-1234-7000-8000-123456789012",
)

PROGRAM = """
import contextlib, json, sys, time, types
from opentelemetry import trace
from servicekit import telemetry

endpoint, told = sys.argv[1], json.load(sys.stdin)
telemetry.setup("case", "worker", types.SimpleNamespace(
    otlp_endpoint=endpoint, listen_host="127.0.0.1", metrics_port=None, ready_file=None, trace_ratio=1.0,
    log_level="INFO"))
with telemetry.span("relay", records=7):
    pass
now = time.time_ns()
slow = trace.get_tracer("recupera").start_span("consume", start_time=now - 1_500_000_000)
slow.end(now)
for value in told:
    with contextlib.suppress(LookupError), telemetry.span("timer", timer=value, customer_name=value):
        raise LookupError(value)
telemetry.counter("recupera.facts.handled", "{fact}", "facts").add(3, {"topic": told[0], "kind": "fact", "who": "x"})
telemetry.histogram("recupera.timer.tick", "s", "ticks").record(0.2, {"timer": told[0]})
telemetry.gauge("recupera.outbox.rows", "{row}", "rows").show([(5, {"topic": told[0], "who": "x"})])
telemetry.shutdown()
"""
"""One trace that is neither failed nor slow, a slow one, one that fails for each value; one metric of each kind."""


def masked(value: str) -> bool:
    """Whether some pattern finds something in the value. They are written so that Go and Python read them alike."""
    if any(re.search(pattern, value) for pattern in REDACTION["allowed_values"]):
        return False
    return any(re.search(pattern, value) for pattern in REDACTION["blocked_values"])


def personal(column: str) -> Iterator[tuple[str, Sequence[str]]]:
    """A column of generated debtors: each value that is not broken on purpose, and the forms it is said in."""
    whole = "@" if column == "email" else r".{9}"
    values = {
        row[column] for row in examples.Generator(7, 400).portfolio() if re.search(whole, row.get(column, ""))
    }
    assert len(values) > 20
    for value in sorted(values):
        bare = value.upper() if column == "email" else re.sub(r"\W", "", value)
        yield value, (value, bare, f"of {value}, said", f"{bare} {bare}")


def test_what_the_registry_names_passes_and_nothing_else() -> None:
    metrics = {label.replace("_", ".") for one in telemetry.metrics().values() for label in one.labels}
    spans = {name for row in telemetry.rows("span") for name in re.findall(r"`([\w.]+)`", row["attributes"])}
    (target,) = [
        row for row in telemetry.rows("prometheus", "labels") if row["prometheus"] == "`target_info`"
    ]
    resource = {label.replace("_", ".") for label in re.findall(r"`(\w+)`", target["labels"])}
    assert set(REDACTION["allowed_keys"]) == metrics | spans | resource | OF_PODS
    assert not REDACTION["allow_all_keys"]
    assert set(REDACTION["ignored_keys"]) <= resource | OF_PODS


@pytest.mark.parametrize("column", PERSONAL)
def test_what_is_a_persons_is_masked(column: str) -> None:
    for _, forms in personal(column):
        for form in forms:
            assert masked(form), f"{column}: {form}"


@pytest.mark.parametrize("value", OURS)
def test_what_is_ours_is_not_masked(value: str) -> None:
    assert not masked(value)


def test_everything_that_goes_out_was_limited_and_redacted() -> None:
    defined: dict[str, set[str]] = {"receivers": set(), "processors": set(), "exporters": set()}
    for name, pipeline in CONFIGURATION["service"]["pipelines"].items():
        assert pipeline["processors"][:2] == ["memory_limiter", "redaction"], name
        assert pipeline["processors"][-1] == "batch"
        for kind, used in defined.items():
            used |= set(pipeline[kind])
    for kind, used in defined.items():
        assert set(CONFIGURATION[kind]) == used, "what is defined is used"
    assert CONFIGURATION["exporters"]["otlp_grpc"]["endpoint"] == "${env:BACKEND_ENDPOINT}"
    assert CONFIGURATION["exporters"]["otlp_grpc"]["tls"]["insecure"] == "${env:BACKEND_INSECURE:-false}"


# ---- the real collector -----------------------------------------------------------------------------------------


@pytest.fixture
def program() -> str:
    """The collector: the one that RECUPERA_OTELCOL names, or that of `make collector`."""
    made = paths.REPO / ".local" / "lib" / "otelcol" / "otelcol"
    found = os.environ.get("RECUPERA_OTELCOL") or (str(made) if made.exists() else None)
    if found is None:
        pytest.skip("there is no OpenTelemetry Collector: run `make collector`")
    return found


def validate(program: str, file: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """What the collector says of a configuration."""
    return subprocess.run(
        [program, "validate", "--config", str(file)],
        env={"PATH": os.environ["PATH"], "BACKEND_ENDPOINT": "backend:4317", **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_collector_takes_it(program: str) -> None:
    answer = validate(program, FILE)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("limit_percentage: 75", "limit_percent: 75", "limit_percent"),
        ("  redaction:\n", "  redacting:\n", "redacting"),
        ("- '\\d{9,}'", "- '(?<!x)\\d{9,}'", "error parsing regexp"),
        ("${env:BACKEND_ENDPOINT}", "${env:BACKEND}", 'requires a non-empty "endpoint"'),
        ("${env:TRACE_PERCENT:-10}", "ten", "sampling_percentage"),
    ],
)
def test_the_collector_refuses_it_when_it_is_broken(
    program: str, tmp_path: Path, right: str, wrong: str, said: str
) -> None:
    assert FILE.read_text().count(right) == 1
    broken = tmp_path / "collector.yaml"
    broken.write_text(FILE.read_text().replace(right, wrong))
    answer = validate(program, broken)
    assert answer.returncode != 0
    assert said in answer.stderr


class Between:
    """A running collector: what it is told by a process, and the backend that it hands it on to."""

    def __init__(self, program: str, folder: Path, *, percent: int) -> None:
        self.backend = otlp.Collector()
        by_name = ports.free(["otlp", "health"])
        self.log = folder / "collector.log"
        self._endpoint = f"http://127.0.0.1:{by_name['otlp']}"
        self._health = f"http://127.0.0.1:{by_name['health']}/"
        self.process = processes.Process(
            name="collector",
            command=[program, "--config", str(FILE)],
            log=self.log,
            environ={
                "PATH": os.environ["PATH"],
                "BACKEND_ENDPOINT": f"127.0.0.1:{self.backend.port}",
                "BACKEND_INSECURE": "true",
                "TRACE_PERCENT": str(percent),
                "LISTEN_HOST": "127.0.0.1",
                "OTLP_PORT": str(by_name["otlp"]),
                "HEALTH_PORT": str(by_name["health"]),
            },
            ready=self.healthy,
        )

    def healthy(self) -> bool:
        """Whether its health endpoint answers, and says that it is well."""
        with contextlib.suppress(OSError), urllib.request.urlopen(self._health, timeout=5) as answer:
            return bool(json.load(answer)["status"] == "Server available")
        return False

    def tell(self, values: Sequence[str | int]) -> None:
        """Run PROGRAM with these values."""
        answer = subprocess.run(
            [sys.executable, "-c", PROGRAM, self._endpoint],
            input=json.dumps(values),
            env={
                **os.environ,
                "OTEL_RESOURCE_ATTRIBUTES": "k8s.pod.name=recupera-case-worker-7d9f123456789-x,host.name=here",
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert answer.returncode == 0, answer.stderr
        assert not answer.stderr

    def names(self) -> list[str]:
        """Of the spans that the backend has."""
        return [span.name for span in self.backend.spans()]

    def complaints(self) -> list[str]:
        """What the collector warns of in its log: deprecated names, data that it could not hand on."""
        return [line for line in self.log.read_text().splitlines() if re.search(r"\t(warn|error)\t", line)]


@contextlib.contextmanager
def between(program: str, folder: Path, *, percent: int) -> Iterator[Between]:
    """A collector that keeps this percentage of the traces that neither failed nor were slow."""
    running = Between(program, folder, percent=percent)
    try:
        running.process.start()
        running.process.wait_ready()
        yield running
    finally:
        running.process.stop()
        running.backend.close()


def attributes(of: Any) -> dict[str, Any]:
    """The attributes of a span, a point or a resource, by name."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in of.attributes}


def test_through_the_collector(program: str, tmp_path: Path) -> None:
    # not all of them: the services drop spans that wait behind 2,048 others
    said = {
        form: value
        for column in PERSONAL
        for value, forms in itertools.islice(personal(column), 60)
        for form in forms
    }
    numbers = [52998224725, 351912345678]
    with between(program, tmp_path, percent=0) as running:
        running.tell(["ana@example.com", *said, *numbers, *OURS])
        failed = 1 + len(said) + len(numbers) + len(OURS)
        # the decision waits 10 seconds, the batch 5
        waiting.until(
            lambda: len(running.names()) > failed and len(running.backend.metrics()) >= 3,
            timeout=60,
            what="spans and metrics at the backend",
        )
        running.process.stop()  # all that waits in it is decided and sent now
        spans, metrics, resources = (
            running.backend.spans(),
            running.backend.metrics(),
            running.backend.resources(),
        )
        sent = "\n".join(map(str, running.backend.requests()))
        assert not running.complaints()

    # failed and slow traces are kept, the one that is neither is not
    assert sorted({span.name for span in spans}) == ["consume", "timer"]
    assert [span.name for span in spans].count("timer") == failed

    # what the registry does not name is taken off, what is a person's is masked, what is ours is left
    timers = [attributes(span) for span in spans if span.name == "timer"]
    assert {frozenset(one) for one in timers} == {frozenset({"timer", "error.type"})}
    values = [str(one["timer"]) for one in timers]
    assert not set(said) & set(values)
    for value in {"ana@example.com", *said.values(), *map(str, numbers)}:
        assert value not in sent
    assert sorted(value for value in values if "****" not in value) == sorted(OURS)
    assert all({"service.name", "service.instance.id", "k8s.pod.name"} <= set(one) for one in resources)
    assert {one["k8s.pod.name"] for one in resources} == {"recupera-case-worker-7d9f123456789-x"}
    assert not {key for one in resources for key in one} - set(REDACTION["allowed_keys"])

    # metrics come, of each kind, with what the registry names
    handled, ticks, rows = (
        metrics["recupera.facts.handled"].sum.data_points[0],
        metrics["recupera.timer.tick"].histogram.data_points[0],
        metrics["recupera.outbox.rows"].gauge.data_points[0],
    )
    assert (handled.as_int, attributes(handled)) == (3, {"topic": "****", "kind": "fact"})
    assert (ticks.count, attributes(ticks)) == (1, {"timer": "****"})
    assert (rows.as_int, attributes(rows)) == (5, {"topic": "****"})


def test_the_rest_is_kept_by_its_percentage_and_nothing_is_lost_when_the_collector_stops(
    program: str, tmp_path: Path
) -> None:
    with between(program, tmp_path, percent=100) as running:
        running.tell(["run"])
        running.process.stop()
        spans = {span.name: attributes(span) for span in running.backend.spans()}
        assert spans == {
            "consume": {},
            "relay": {"records": 7},
            "timer": {"timer": "run", "error.type": "LookupError"},
        }
        assert "recupera.facts.handled" in running.backend.metrics()
        assert not running.complaints()
