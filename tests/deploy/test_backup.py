"""docs/backup.md: its statements run on real databases, on the tables they are meant for, past row-level security."""

from __future__ import annotations

import re
from collections.abc import Callable

import psycopg
import pytest

from recupera_local import paths
from support import databases

PAGE = (paths.REPO / "docs" / "backup.md").read_text()
COPIES = {
    "case": {"titles", "contacts", "reservations", "case_agreements", "case_payments"},
    "agreement": {"agency_clock"},
    "dialer": {"agency_clock", "case_anchors"},
    "notify": {"agency_clock"},
    "import": {"agency_clock"},
}
"""Tables whose version is another service's: raised, its facts would be ignored."""
NOT_STATED = {
    "case": {"ladders"},
    "agreement": {
        "agreement_categories",
        "collection_accounts",
        "creditor_settings",
        "drafts",
        "euro_accounts",
        "mandates",
        "minute_templates",
        "payment_conditions",
        "series",
    },
    "notify": {"messages", "templates"},
    "import": {"batches"},
}
"""Tables whose version no fact states, or no reader compares."""


def statements(service: str) -> list[str]:
    """What the page says for a service's database."""
    found = re.findall(rf"^-- {service}\b.*\n((?:UPDATE .*;\n)+)", PAGE, re.MULTILINE)
    return [line for block in found for line in block.splitlines()]


@pytest.mark.parametrize("service", ["case", "agreement", "dialer", "notify"])
def test_the_statements_run_as_the_owner_and_reach_every_agency(
    service: str, database: Callable[..., databases.Database]
) -> None:
    lines = statements(service)
    assert lines
    tables = {line.split()[1] for line in lines}
    assert not tables & COPIES.get(service, set())
    with psycopg.connect(database(service).owner_url) as connection:
        for line in lines:
            connection.execute(line.encode())
        row = connection.execute(
            "SELECT count(*), bool_or(relforcerowsecurity), bool_and(pg_has_role(relowner, 'USAGE'))"
            " FROM pg_class WHERE relname = ANY (%s) AND relnamespace = 'public'::regnamespace",
            [list(tables)],
        ).fetchone()
    assert row == (len(tables), False, True)


@pytest.mark.parametrize("service", ["case", "agreement", "dialer", "notify", "import"])
def test_every_version_is_raised_or_there_is_a_reason_not_to(
    service: str, database: Callable[..., databases.Database]
) -> None:
    with psycopg.connect(database(service).owner_url) as connection:
        rows = connection.execute(
            "SELECT table_name FROM information_schema.columns"
            " WHERE table_schema = 'public' AND column_name = 'version'"
        ).fetchall()
    counted = {str(name) for (name,) in rows}
    raised = {line.split()[1] for line in statements(service) if "version + 1000000" in line}
    assert counted == raised | COPIES.get(service, set()) | NOT_STATED.get(service, set())
