"""The alert rules: each fires on the series it is for and is quiet else, by promtool; each has a runbook whose
commands are real; the chart makes a PrometheusRule of them for any release."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import prometheus_client.parser
import psycopg
import pytest
import yaml

from deploy import test_chart as chart
from recupera_local import helm, paths, ports, promtool
from servicekit import topics
from support import databases, promql, registry, telemetry

FOLDER = chart.CHART / "alerts"
FILES = sorted(FOLDER.glob("*.yaml"))
DOCS = paths.REPO / "docs"
RUNBOOKS = DOCS / "runbooks"
HERE = Path(__file__).parent / "alerts"
SCENARIOS: Sequence[Mapping[str, Any]] = yaml.safe_load((HERE / "scenarios.yaml").read_text())
HEALTHY: Mapping[str, str] = yaml.safe_load((HERE / "healthy.yaml").read_text())
MINUTES = 60
FULL = chart.CHART / "ci" / "full-values.yaml"

Rule = Mapping[str, Any]


def rules(groups: Sequence[Mapping[str, Any]] | None = None) -> Iterator[Rule]:
    """Every rule, of the plain files or of these groups."""
    if groups is None:
        groups = [group for file in FILES for group in yaml.safe_load(file.read_text())["groups"]]
    for group in groups:
        yield from group["rules"]


def alerts(groups: Sequence[Mapping[str, Any]] | None = None) -> list[Rule]:
    """Every alert."""
    return [rule for rule in rules(groups) if "alert" in rule]


def name_of(rule: Rule) -> str:
    """As scenarios call it: alert/severity, or alert/severity/burn."""
    labels = rule["labels"]
    return "/".join([rule["alert"], labels["severity"], *([labels["burn"]] if "burn" in labels else [])])


def runbook(alert: str) -> str:
    """The name of an alert's runbook: RecuperaDayLate -> day-late.md."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", alert.removeprefix("Recupera")).lower() + ".md"


def run(*arguments: object) -> str:
    """promtool; what it says."""
    answer = subprocess.run(
        [str(promtool.binary()), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


# ---- what fires, and what does not -------------------------------------------------------------------------------


def own(series: str) -> str:
    """A series with the release's namespace, unless it says another."""
    return (
        series
        if 'namespace="' in series.replace("exported_namespace", "")
        else series.replace("{", '{namespace="recupera", ')
    )


def promtool_test(scenario: Mapping[str, Any]) -> Mapping[str, Any]:
    """A scenario as promtool reads it: after so many minutes these alerts fire, and no other."""
    minutes = scenario.get("minutes", MINUTES)
    files = [FOLDER / name for name in scenario["files"]] if "files" in scenario else FILES
    text = "".join(file.read_text() for file in files)
    gone = tuple(scenario.get("without", ()))
    series = {
        name: values
        for name, values in HEALTHY.items()
        if name.partition("{")[0] in text and not (gone and name.startswith(gone))
    }
    series |= scenario.get("series", {})
    expected = []
    for minute, firing in scenario["fires"].items():
        parts = [name.split("/") for name in firing]
        samples = [
            ", ".join(
                f'{label}="{value}"'
                for label, value in zip(("alertname", "severity", "burn"), part, strict=False)
            )
            for part in parts
        ]
        expected.append(
            {
                "expr": 'group by (alertname, severity, burn) (ALERTS{alertstate="firing"})',
                "eval_time": f"{minute}m",
                "exp_samples": [{"labels": f"{{{labels}}}", "value": 1} for labels in samples],
            }
        )
    return {
        "rule_files": [str(file) for file in files],
        "evaluation_interval": "1m",
        "tests": [
            {
                "name": scenario["what"],
                "interval": "1m",
                "input_series": [
                    {"series": own(name), "values": re.sub(r"xN\b", f"x{minutes}", values)}
                    for name, values in series.items()
                ],
                "promql_expr_test": expected,
            }
        ],
    }


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario["what"])
def test_exactly_these_alerts_fire(scenario: Mapping[str, Any], tmp_path: Path) -> None:
    written = tmp_path / "test.yaml"
    written.write_text(yaml.safe_dump(promtool_test(scenario)))
    run("test", "rules", written)


def test_every_alert_is_seen_to_fire_and_to_be_quiet() -> None:
    fired = {name for scenario in SCENARIOS for firing in scenario["fires"].values() for name in firing}
    assert fired == {name_of(rule) for rule in alerts()}
    well = next(scenario for scenario in SCENARIOS if "series" not in scenario and "without" not in scenario)
    assert not any(well["fires"].values())


def test_every_series_that_rules_read_is_in_the_scenarios() -> None:
    """Else a rule would be quiet because it reads nothing."""
    shown = {name.partition("{")[0] for name in HEALTHY}
    shown |= {name.partition("{")[0] for scenario in SCENARIOS for name in scenario.get("series", {})}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert {metric for rule in rules() for metric, _ in promql.selectors(rule["expr"])} <= shown | recorded


# ---- the rules themselves ----------------------------------------------------------------------------------------


def test_promtool_takes_them() -> None:
    run("check", "rules", *FILES)


@pytest.mark.parametrize("rule", list(rules()), ids=lambda rule: rule.get("record") or name_of(rule))
def test_a_rule_reads_what_is_registered_and_only_of_its_release(rule: Rule) -> None:
    answer = promql.labels(promql.parse(rule["expr"]), registry.labels) | set(rule.get("labels", {}))
    for metric, matchers in promql.selectors(rule["expr"]):
        assert "recupera" in (matchers.get("namespace"), matchers.get("exported_namespace")), metric
    if "alert" in rule:
        told = rule["annotations"]
        assert set(told) == {"summary", "description", "runbook_url"}
        assert set(re.findall(r"\$labels\.(\w+)", str(told))) <= answer
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert told["runbook_url"] == f"docs/runbooks/{runbook(rule['alert'])}"


BEGIN = """
import importlib, sys, types
import prometheus_client
from servicekit import host, telemetry
for service in sys.argv[1:]:
    importlib.import_module(f"{service}_service.worker")
telemetry.setup("all", "worker", types.SimpleNamespace(
    listen_host="127.0.0.1", metrics_port=0, ready_file=None, otlp_endpoint=None, trace_ratio=1.0, log_level="INFO"))
for worker in host.Worker.__subclasses__():
    host.begin_counters(worker)
print(prometheus_client.generate_latest().decode())
"""
"""What the workers of these services show before anything happened."""
NOT_KNOWN = {"recupera_relay_failures_total"}
"""Counters whose values nobody can list: a reason that is any exception."""


def test_counters_that_rules_read_show_0_before_the_first_event() -> None:
    """Else increase() would not see it."""
    answer = subprocess.run(
        [sys.executable, "-c", BEGIN, *ports.SERVICES],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    shown: dict[str, list[Mapping[str, str]]] = {}
    for family in prometheus_client.parser.text_string_to_metric_families(answer.stdout):
        for sample in family.samples:
            if family.type == "counter" and family.name.startswith("recupera_"):
                assert sample.value == 0
                shown.setdefault(sample.name, []).append(sample.labels)
    counters = {one.prometheus: one for one in telemetry.metrics().values() if one.kind == "counter"}
    read: set[str] = set()
    for rule in rules():
        for metric, matchers in promql.selectors(rule["expr"]):
            if metric not in counters:
                continue
            read.add(metric)
            for label in counters[metric].labels.keys() & matchers.keys() if metric in shown else ():
                values = {series[label] for series in shown[metric]}
                assert set(matchers[label].split("|")) <= values, f"{metric} {label}"
    assert shown.keys() == read - NOT_KNOWN
    assert read >= NOT_KNOWN
    catalog = topics.catalog().by_name.values()
    assert {series["topic"] for series in shown["recupera_facts_skipped_total"]} == {
        topic.name for topic in catalog if topic.consumers
    }
    assert {"open_days", "send_due"} <= {series["timer"] for series in shown["recupera_timer_failures_total"]}


def test_a_consumer_has_as_many_partitions_as_the_rule_says() -> None:
    catalog = yaml.safe_load((paths.REPO / "deploy" / "topics.yaml").read_text())
    consumed = [topic for topic in catalog["topics"] if topic["consumers"]]
    assert {topic.get("partitions", catalog["defaults"]["partitions"]) for topic in consumed} == {24}
    rule = next(rule for rule in alerts() if rule["alert"] == "RecuperaConsumerStopped")
    assert rule["expr"].endswith("< 24")


def test_limits_are_those_of_the_values() -> None:
    values = yaml.safe_load((chart.CHART / "values.yaml").read_text())["monitoring"]["rules"]["limits"]
    written = {
        rule["record"].removeprefix("recupera:limit:"): rule["expr"]
        for rule in rules()
        if rule.get("record", "").startswith("recupera:limit:")
    }
    snake = {re.sub(r"(?=[A-Z])", "_", name).lower(): f"vector({value})" for name, value in values.items()}
    assert written == snake
    page = (DOCS / "slo.md").read_text()
    for promise, value in values.items():
        if f"`{promise}`" in page:
            assert re.search(rf"\| {100 * value:g} % \| `{promise}` \|", page), promise


# ---- runbooks ----------------------------------------------------------------------------------------------------

PAGES = sorted(RUNBOOKS.glob("*.md"))
SECTIONS = ["Meaning", "Impact", "First commands", "Fix", "Over when"]
WORDS = {"SERVICE": "case", "PRODUCER": "agreement", "PID": "1"}
"""What a page leaves open, for the tests."""


def blocks(page: Path, language: str) -> list[str]:
    """The code of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def code(page: Path) -> str:
    """Every command of a page: its blocks, and what is in backticks."""
    text = page.read_text()
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))
    found = "\n".join([*blocks(page, "sh"), *inline])
    for word, meant in WORDS.items():
        found = re.sub(rf"\b{word}\b", meant, found)
    return found


def test_there_is_a_runbook_for_each_alert_and_no_other() -> None:
    names = {rule["alert"]: runbook(rule["alert"]) for rule in alerts()}
    assert {page.name for page in PAGES} == {*names.values(), "README.md"}
    listed = re.findall(
        r"^\| \[(\w+)\]\(([-a-z]+\.md)\) \|", (RUNBOOKS / "README.md").read_text(), re.MULTILINE
    )
    assert dict(listed) == names
    for alert, page in names.items():
        text = (RUNBOOKS / page).read_text()
        assert text.startswith(f"# {alert}\n")
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS, page


@pytest.mark.parametrize("page", [*PAGES, DOCS / "slo.md"], ids=lambda page: page.stem)
def test_links_and_queries_of_a_page_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link
    for block in blocks(page, "promql"):
        for query in block.splitlines():
            promql.labels(promql.parse(query), registry.labels)


def test_commands_name_what_the_chart_makes() -> None:
    objects = made("recupera", "recupera")
    kinds = {"Deployment": "deploy"}
    named = {(kinds.get(one["kind"], one["kind"].lower()), one["metadata"]["name"]) for one in objects}
    components = {one["metadata"]["labels"]["app.kubernetes.io/component"] for one in objects}
    for page in PAGES:
        commands = code(page)
        for kind, name in re.findall(r"\b(deploy|job|networkpolicy)[/ ](recupera-[-a-z]+)", commands):
            assert (kind, name) in named, f"{page.name}: {kind}/{name}"
        for component in re.findall(r"io/component=([-a-z]+)", commands):
            assert component in components, f"{page.name}: {component}"
        for service in re.findall(r"\b(?:at|db) ([a-z]+) ", commands):
            assert service in ports.SERVICES, f"{page.name}: {service}"


@functools.cache
def options(service: str, command: str) -> str:
    """The help of an operator's command."""
    arguments = [sys.executable, "-m", f"{service}_service", command, "--help"]
    answer = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_operators_commands_exist() -> None:
    for page in PAGES:
        for service, command, rest in re.findall(r"\bat ([a-z]+) ([-a-z]+)([^`|\n]*)", code(page)):
            for option in re.findall(r"--[a-z]+", rest):
                assert option in options(service, command), f"{page.name}: {command} {option}"
            assert options(service, command)


def test_statements_suit_the_tables(database: Callable[..., databases.Database]) -> None:
    statements = {
        found
        for page in PAGES
        if page.name != "README.md"
        for found in re.findall(r'\bdb ([a-z]+) "([^"]+)"', code(page))
    }
    assert len(statements) > 20
    for service in ports.SERVICES:
        with psycopg.connect(database(service).owner_url, autocommit=True) as connection:
            for asked, statement in sorted(statements):
                if asked == service:
                    connection.execute(f"EXPLAIN {statement}")  # type: ignore[call-overload]


# ---- the chart ---------------------------------------------------------------------------------------------------


@functools.cache
def made(
    release: str, namespace: str, *arguments: str, values: Path = FULL, program: str = "helm4"
) -> tuple[chart.Object, ...]:
    """The objects of a release."""
    command = [
        str(helm.binary(program)),
        "template",
        release,
        str(chart.CHART),
        "-n",
        namespace,
        "-f",
        str(values),
    ]
    answer = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 0, answer.stderr
    return tuple(one for one in yaml.safe_load_all(answer.stdout) if one)


def groups_of(
    release: str = "r", namespace: str = "n", *, also: str = "", **of: Any
) -> list[Mapping[str, Any]]:
    """Groups of the PrometheusRule, with monitoring and these values."""
    found = made(
        release, namespace, "--set", ",".join(["monitoring.enabled=true", *filter(None, [also])]), **of
    )
    return [group for one in found if one["kind"] == "PrometheusRule" for group in one["spec"]["groups"]]


def test_without_monitoring_there_are_no_rules() -> None:
    assert not chart.objects("PrometheusRule")
    assert not chart.objects("PrometheusRule", "--set=monitoring.enabled=true,monitoring.rules.enabled=false")


@pytest.mark.parametrize("program", chart.HELMS)
def test_the_files_are_what_the_chart_makes_of_them(program: str) -> None:
    groups = groups_of("recupera", "recupera", values=chart.MINIMAL, program=program)

    def comparable(found: Iterator[Rule]) -> list[str]:
        return sorted(json.dumps(rule, sort_keys=True) for rule in found)

    assert comparable(rules(groups)) == comparable(rules())


def test_another_release_has_its_own_rules(tmp_path: Path) -> None:
    groups = groups_of("blue", "money")
    written = tmp_path / "rules.yaml"
    written.write_text(yaml.safe_dump({"groups": groups}))
    run("check", "rules", written)
    for rule in rules(groups):
        for metric, matchers in promql.selectors(rule["expr"]):
            assert "money" in (matchers.get("namespace"), matchers.get("exported_namespace")), metric
        assert '"recupera' not in rule["expr"]
        assert "recupera-" not in str(rule)
    assert 'deployment=~"blue-.+"' in str(groups)


def test_values_of_the_rules_do_what_they_say() -> None:
    groups = groups_of()
    assert "RecuperaCallsRateLimited" not in {rule["alert"] for rule in alerts(groups)}
    assert len({rule["alert"] for rule in alerts(groups)}) == len({rule["alert"] for rule in alerts()}) - 1
    for rule in alerts(groups):
        assert rule["labels"]["team"] == "collections"
        assert rule["annotations"]["runbook_url"].startswith("https://docs.example/recupera/docs/runbooks/")
    assert {rule["labels"]["severity"] for rule in alerts(groups)} == {"page", "ticket"}
    written = {rule["record"]: rule["expr"] for rule in rules(groups) if "record" in rule}
    assert written["recupera:limit:gateway_availability"] == "vector(0.9995)"
    assert float(written["recupera:limit:lag_records"][7:-1]) == 2_000_000
    assert written["recupera:limit:gateway_fast"] == "vector(0.99)"


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ("monitoring.rules.disabled={RecuperaNoSuchThing}", "disabled"),
        ("monitoring.rules.limits.gatewayAvailability=99.9", "gatewayAvailability"),
        ("monitoring.rules.limits.lagRecord=1", "lagRecord"),
        ("monitoring.rules.severities.info=info", "info"),
        ("monitoring.rules.alertLabels.severity=page", "severity"),
        ("monitoring.rules.runbooks=docs", "runbooks"),
    ],
)
def test_a_wrong_value_is_refused(wrong: str, place: str) -> None:
    answer = chart.template(chart.MINIMAL, "--set", f"monitoring.enabled=true,{wrong}")
    assert answer.returncode == 1
    assert place in answer.stderr


def test_every_alert_can_be_named_as_not_wanted() -> None:
    names = sorted({rule["alert"] for rule in alerts()})
    groups = groups_of(also=f"monitoring.rules.disabled={{{','.join(names)}}}")
    assert list(rules(groups))
    assert not alerts(groups)
