"""docs/telemetry.md as its tests read it: rows of its tables, and what a label may say."""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence

from recupera_local import paths
from servicekit import topics

KINDS = {
    "method": r"(recupera|grpc)\.[\w.]+\.v\d(alpha)?\.\w+/\w+|grpc\.[\w.]+/\w+",
    "message": r"recupera\.[\w.]+\.v\d\.\w+|upload",
    "status": r"[A-Z_]+",
    "reason": r"[A-Z0-9_]*",
    "fact": r"[a-z_]+",
    "timer": r"[a-z_]+",
    "rule": r"[A-Z0-9_]+",
    "exception": r"[A-Za-z]+",
    "currency": r"[A-Z]{3}",
    "*": r"\*",
}
"""What the sets in italics hold, as far as a pattern says; topics are those of topics.yaml."""


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric of the services: its names, kind and unit, the values each label may have, and when it is seen."""

    prometheus: str
    otel: str
    kind: str
    unit: str
    labels: Mapping[str, re.Pattern[str]]
    meaning: str
    seen: str


@functools.cache
def tables() -> Sequence[Sequence[Mapping[str, str]]]:
    """The tables of the page, each row by its columns."""
    found: list[list[dict[str, str]]] = []
    columns: list[str] = []
    for line in (paths.REPO / "docs" / "telemetry.md").read_text().splitlines():
        if not line.startswith("|"):
            columns = []
            continue
        cells = [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]
        if not columns:
            columns = cells
            found.append([])
        elif set(cells[0]) != {"-"}:
            found[-1].append(dict(zip(columns, cells, strict=True)))
    return found


def rows(*columns: str) -> list[Mapping[str, str]]:
    """The rows of all tables that have these columns."""
    return [row for table in tables() for row in table if set(columns) <= set(row)]


@functools.cache
def metrics() -> Mapping[str, Metric]:
    """The metrics that the services define, by their OpenTelemetry name."""
    found = {}
    for row in rows("prometheus", "otel"):
        found[row["otel"]] = Metric(
            prometheus=row["prometheus"].strip("`"),
            otel=row["otel"],
            kind=row["kind"],
            unit=row["unit"],
            labels={
                part.split("`")[1]: _pattern(part.split("`")[2])
                for part in row["labels"].split(";")
                if part.strip()
            },
            meaning=row["meaning, where emitted"],
            seen=row["seen"],
        )
    return found


def names(column: str, *columns: str) -> set[str]:
    """What stands in backticks in a column of the tables that have these columns."""
    return {name for row in rows(column, *columns) for name in re.findall(r"`([\w.]+)`", row[column])}


def _pattern(values: str) -> re.Pattern[str]:
    parts = []
    for value in re.split(r",\s*", values.strip()):
        name = value if value == "*" else value.strip("*")
        if name == "topic":
            parts += [re.escape(topic) for topic in topics.catalog().by_name]
        elif value.startswith("*"):
            parts.append(KINDS[name])
        else:
            parts.append(re.escape(value))
    return re.compile("|".join(f"(?:{part})" for part in parts))
