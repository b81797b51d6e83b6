"""Rights at Kafka follow from topics.yaml."""

from __future__ import annotations

import subprocess
import sys

import yaml

from recupera_local import paths
from servicekit import acls, topics

PAGE = paths.REPO / "docs" / "kafka-rights.md"


def test_a_service_reads_what_it_consumes_and_writes_what_it_produces() -> None:
    rules = {(rule.kind, rule.name): rule.operations for rule in acls.of_service("dialer")}
    assert rules == {
        ("topic", "recupera.case.v1"): ("Read", "DescribeConfigs"),
        ("topic", "recupera.dialer.v1"): ("Write", "DescribeConfigs"),
        ("topic", topics.DEAD_LETTERS): ("Write", "DescribeConfigs"),
        ("group", "recupera.dialer"): ("Read",),
    }


def test_nobody_but_its_producer_writes_a_topic() -> None:
    writers = {
        (rule.name, user)
        for user, rules in acls.all_users().items()
        for rule in rules
        if "Write" in rule.operations and rule.name != topics.DEAD_LETTERS
    }
    expected = {
        (topic.name, topic.producer)
        for topic in topics.catalog().by_name.values()
        if topic.producer != topics.ANY
    }
    assert writers == expected


def test_the_command_prints_what_strimzi_takes() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "servicekit", "acls"], capture_output=True, text=True, timeout=60, check=True
    )
    printed = yaml.safe_load(answer.stdout)
    assert set(printed) == set(acls.all_users())
    assert printed["notify"][-1] == {
        "resource": {"type": "group", "name": "recupera.notify", "patternType": "literal"},
        "operations": ["Read"],
    }


def test_the_page_says_what_the_rules_say() -> None:
    lines = PAGE.read_text().splitlines()
    told = {
        tuple(cell.strip(" `") for cell in line.strip("|").split("|"))
        for line in lines
        if line.startswith("| `")
    }
    assert told == {
        (user, rule.kind, rule.name, ", ".join(rule.operations))
        for user, rules in acls.all_users().items()
        for rule in rules
    }
