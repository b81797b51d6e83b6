"""What a platform has come to, apart from what differs by chance: the business rows of all services, comparable.

Each column is declared in its service's store.py: ``info={"kind": "business"}``; ``{"kind": "incidental",
"reason": ..}``; or ``{"kind": "reference", "to": "cases"}`` (``"case.cases"`` for another service's table), which is
replaced by the natural key of the row it points to. Each table names its natural key: ``info={"natural_key":
["creditor", "contract_reference"]}``, of business and reference columns; ``info={"digest": False, "reason": ..}``
leaves a table out.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa

SERVICES = ("case", "agreement", "dialer", "notify", "import")
SYSTEM_TABLES = frozenset(
    {
        "alembic_version",
        "outbox",
        "inbox",
        "consumer_offsets",
        "parked",
        "paused",
        "leases",
        "workers",
        "request_log",
        "blobs",
        "blob_chunks",
        "agency_clock",
    }
)

Row = Mapping[str, Any]


def metadata(service: str) -> sa.MetaData:
    """The tables of a service as its store declares them."""
    found = importlib.import_module(f"{service}_service.store").METADATA
    assert isinstance(found, sa.MetaData)
    return found


def undeclared(service: str, engine: sa.Engine) -> list[str]:
    """Columns of the real database that store.py does not declare, or declares without a kind or a reason."""
    wrong = []
    declared = metadata(service).tables
    inspector = sa.inspect(engine)
    for name in inspector.get_table_names():
        if name in SYSTEM_TABLES:
            continue
        table = declared.get(name)
        if table is None:
            wrong.append(f"{service}.{name}: not in store.METADATA")
            continue
        if table.info.get("digest") is False:
            if not table.info.get("reason"):
                wrong.append(f"{service}.{name}: left out of the digest without a reason")
            continue
        if not table.info.get("natural_key"):
            wrong.append(f"{service}.{name}: no natural key")
        for column in inspector.get_columns(name):
            found = table.columns.get(column["name"])
            if found is None:
                wrong.append(f"{service}.{name}.{column['name']}: not in store.py")
                continue
            kind = found.info.get("kind")
            if kind not in ("business", "incidental", "reference"):
                wrong.append(f"{service}.{name}.{column['name']}: kind {kind!r}")
            elif kind == "incidental" and not found.info.get("reason"):
                wrong.append(f"{service}.{name}.{column['name']}: incidental without a reason")
            elif kind == "reference" and not found.info.get("to"):
                wrong.append(f"{service}.{name}.{column['name']}: a reference to nothing")
    return wrong


class State:
    """All business rows of a platform; `owners` are engines of the databases' owners (no row-level
    security), by service.

    `same` names values that count as another one: {"UNKNOWN": "SENT"} where acts outside are compared apart.
    """

    def __init__(self, owners: Mapping[str, sa.Engine], *, same: Mapping[str, str] | None = None) -> None:
        self._same = dict(same or {})
        self._rows: dict[str, list[Row]] = {}
        self._by_id: dict[str, dict[Any, Row]] = {}
        self._tables: dict[str, sa.Table] = {}
        for service, engine in owners.items():
            for table in metadata(service).tables.values():
                if table.info.get("digest") is False:
                    continue
                name = f"{service}.{table.name}"
                self._tables[name] = table
                with engine.connect() as connection:
                    rows = [dict(row) for row in connection.execute(sa.select(table)).mappings()]
                self._rows[name] = rows
                key = _key_column(table)
                if key is not None:
                    self._by_id[name] = {row[key]: row for row in rows}

    def lines(self) -> list[str]:
        """One line a row: table, natural key, business columns; sorted."""
        return sorted(self._lines())

    def digest(self) -> str:
        """SHA-256 over the lines."""
        return hashlib.sha256("\n".join(self.lines()).encode()).hexdigest()

    def _lines(self) -> Iterator[str]:
        for name, rows in self._rows.items():
            table = self._tables[name]
            kept = [c for c in table.columns if c.info.get("kind") != "incidental"]
            for row in rows:
                values = "; ".join(f"{c.name}={self._value(name, c, row[c.name])}" for c in kept)
                yield f"{name}: {values}"

    def _value(self, name: str, column: sa.Column[Any], value: Any) -> str:
        if value is None or column.info["kind"] != "reference":
            text = _text(value)
            return self._same.get(text, text)
        if isinstance(value, list):
            return "[" + ", ".join(sorted(self._natural(self._target(name, column), v) for v in value)) + "]"
        return self._natural(self._target(name, column), value)

    def _target(self, name: str, column: sa.Column[Any]) -> str:
        to = str(column.info["to"])
        return to if "." in to else f"{name.split('.')[0]}.{to}"

    @functools.cache  # noqa: B019 -- a State lives as long as one comparison
    def _natural(self, name: str, key: uuid.UUID) -> str:
        row = self._by_id[name].get(key)
        if row is None:
            return f"<no {name}>"
        table = self._tables[name]
        return (
            "("
            + ", ".join(
                self._value(name, table.columns[part], row[part]) for part in table.info["natural_key"]
            )
            + ")"
        )


def differences(one: State, other: State, *, most: int = 40) -> str:
    """What stands in one and not in the other, for a person; empty when both are the same."""
    left, right = one.lines(), other.lines()
    missing, extra = _minus(left, right), _minus(right, left)
    if not missing and not extra:
        return ""
    shown = [f"- {line}" for line in missing[:most]] + [f"+ {line}" for line in extra[:most]]
    return f"{len(missing)} rows are gone or different, {len(extra)} are new or different:\n" + "\n".join(
        sorted(shown, key=lambda line: line[2:])
    )


def _minus(left: list[str], right: list[str]) -> list[str]:
    counts: dict[str, int] = {}
    for line in right:
        counts[line] = counts.get(line, 0) + 1
    found = []
    for line in left:
        if counts.get(line, 0):
            counts[line] -= 1
        else:
            found.append(line)
    return found


def _key_column(table: sa.Table) -> str | None:
    """The column that other tables point to: `id`, or the one key column besides agency."""
    if "id" in table.columns:
        return "id"
    keys = [column.name for column in table.primary_key.columns if column.name != "agency"]
    return keys[0] if len(keys) == 1 else None


def _text(value: Any) -> str:
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_text(v)}" for k, v in sorted(value.items())) + "}"
    return str(value)
