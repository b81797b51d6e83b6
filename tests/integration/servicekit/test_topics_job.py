"""`python -m servicekit topics` on a real broker: creates, reports what differs, changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from typing import Any

import pytest
from kafka.admin import KafkaAdminClient

from servicekit import kafka, topics


def job(broker: Any, *arguments: str, prefix: str) -> subprocess.CompletedProcess[str]:
    """The command as the chart's job runs it."""
    environ = {**os.environ, "RECUPERA_KAFKA": broker.bootstrap, topics.PREFIX_VARIABLE: prefix}
    return subprocess.run(
        [sys.executable, "-m", "servicekit", "topics", *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def prefix() -> str:
    """Names that no other test has."""
    return f"{uuid.uuid4().hex[:8]}."


def test_creates_what_is_missing_once(broker: Any, prefix: str) -> None:
    first = job(broker, "--replication", "1", "--min-insync", "1", prefix=prefix)
    assert first.returncode == 0, first.stderr
    assert sorted(line.removeprefix("created ") for line in first.stdout.splitlines()[:-1]) == sorted(
        topics.catalog().by_name
    )
    assert first.stdout.endswith("topics are as topics.yaml says\n")
    again = job(broker, "--replication", "1", "--min-insync", "1", "--check", prefix=prefix)
    assert (again.returncode, again.stdout) == (0, "topics are as topics.yaml says\n"), again.stderr


def test_reports_what_differs_and_changes_nothing(broker: Any, prefix: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers(broker.bootstrap))
    admin.create_topics(
        {
            f"{prefix}recupera.case.v1": {
                "num_partitions": 24,
                "replication_factor": 1,
                "configs": {"retention.ms": "1000"},
            }
        },
        wait_for_metadata=True,
    )
    admin.close()
    answer = job(broker, "--check", "--replication", "3", "--min-insync", "2", prefix=prefix)
    assert answer.returncode == 1
    assert "differs: recupera.case.v1: retention.ms is 1000, expected 604800000" in answer.stdout
    assert "differs: recupera.case.v1: 1 copies, expected 3" in answer.stdout
    assert "differs: recupera.case.v1: min.insync.replicas is 1, expected 2" in answer.stdout
    assert "differs: recupera.agreement.v1: missing" in answer.stdout


def test_another_number_of_partitions_is_refused(broker: Any, prefix: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers(broker.bootstrap))
    admin.create_topics(
        {f"{prefix}recupera.case.v1": {"num_partitions": 3, "replication_factor": 1}}, wait_for_metadata=True
    )
    admin.close()
    answer = job(broker, prefix=prefix)
    assert answer.returncode == 1
    assert "recupera.case.v1 has 3 partitions, topics.yaml says 24" in answer.stderr


@pytest.mark.parametrize("arguments", [["--replication", "3"], ["--replication", "1", "--min-insync", "2"]])
def test_durability_that_cannot_be_is_refused(broker: Any, prefix: str, arguments: list[str]) -> None:
    answer = job(broker, *arguments, prefix=prefix)
    assert answer.returncode == 1
    assert "expected --" in answer.stderr
