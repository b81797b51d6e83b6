"""One service's database is put back to what it was days ago.

What it lost comes again from the topics, and the others, who know it already, change nothing.
"""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from fault import harness, runs

from recupera_local import examples, ports
from recupera_local import platform as local
from recupera_local.demo import journey
from support import digest

SERVICE = "agreement"
DATABASE = f"recupera_{SERVICE}"
COPY = f"{DATABASE}_days_ago"


@pytest.mark.timeout(900)
def test_a_restored_older_database_catches_up_from_the_topics(tmp_path: Path) -> None:
    portfolio, *_ = examples.make(tmp_path, debtors=60, seed=7)
    days = journey.weekdays_from(runs.FIRST_DAY, 3)
    plan = journey.Plan(portfolio=portfolio, payments={}, days=days)
    platform = local.Platform(state_dir=tmp_path / "state", ports=ports.free())
    try:
        platform.start()
        driven = harness.Harness(platform=platform, plan=plan, work_dir=tmp_path / "work", say=print)
        way = driven.journey
        way.set_clock(days[0])
        driven.settle()
        _while_stopped(platform, f"CREATE DATABASE {COPY} TEMPLATE {DATABASE} OWNER {DATABASE}_owner")

        way.place_portfolio()
        for day in days[:2]:
            way.set_clock(day)
            way.send_messages(day, way.run_day(day))
        driven.settle()
        before = digest.State(driven.owners())

        _while_stopped(
            platform, f"DROP DATABASE {DATABASE} (FORCE)", f"ALTER DATABASE {COPY} RENAME TO {DATABASE}"
        )
        driven.settle()
        assert not digest.differences(before, digest.State(driven.owners()))

        way.set_clock(days[2])
        way.send_messages(days[2], way.run_day(days[2]))
        driven.settle()
    finally:
        platform.stop()


def _while_stopped(platform: local.Platform, *statements: str) -> None:
    """Run statements as superuser while the service's processes are dead."""
    for role in ("serve", "worker"):
        platform.kill(f"{SERVICE}.{role}")
    with psycopg.connect(platform.administrator_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [DATABASE]
        )
        for statement in statements:
            connection.execute(statement.encode())
    for role in ("serve", "worker"):
        platform.start_process(f"{SERVICE}.{role}")
