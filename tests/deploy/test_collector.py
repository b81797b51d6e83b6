"""The collector's configuration: lets through what the registry names and nothing else, masks what is a person's.

That the collector takes it was checked by hand against its components' own schemas: deploy/telemetry/README.md.
"""

import re
import uuid
from typing import Any

import pytest
import yaml

from recupera_local import examples, paths
from support import telemetry

CONFIGURATION: dict[str, Any] = yaml.safe_load(
    (paths.REPO / "deploy" / "telemetry" / "collector.yaml").read_text()
)
REDACTION = CONFIGURATION["processors"]["redaction"]
OF_PODS = {"k8s.namespace.name", "k8s.pod.name", "k8s.node.name"}
"""What the chart adds to the resource (tests/deploy/test_chart_telemetry.py)."""


def masked(value: str) -> bool:
    """Whether some pattern finds something in the value. They are written so that Go and Python read them alike."""
    return any(re.search(pattern, value) for pattern in REDACTION["blocked_values"])


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


@pytest.mark.parametrize("column", ["debtor_document", "phone_1", "email", "guarantor_document"])
def test_what_is_a_persons_is_masked(column: str) -> None:
    values = {row[column] for row in examples.Generator(7, 60).portfolio() if row.get(column)}
    assert len(values) > 2
    for value in values:
        for form in (
            value,
            re.sub(r"\W", "", value) if column != "email" else value.upper(),
            f"of {value}, said",
        ):
            assert masked(form), f"{column}: {form}"


@pytest.mark.parametrize(
    "value",
    [
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
    ],
)
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
    assert CONFIGURATION["exporters"]["otlp"]["endpoint"] == "${env:BACKEND_ENDPOINT}"
    assert CONFIGURATION["exporters"]["otlp"]["tls"]["insecure"] == "${env:BACKEND_INSECURE:-false}"
