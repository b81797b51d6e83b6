"""Releases come and go while calls and an import run: none fails, nothing is lost or doubled.

In order: the next release (a migration in each service), back to the first with the newer tables, one whose migration
fails, one that does not start, one whose image is not there.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from cluster import figures, installation, work

from recupera_local import ports

TABLE = "next_release_notes"
"""What the next release's migration of each service makes (images/later.py)."""

pytestmark = pytest.mark.timeout(1500)


def test_upgrade_with_migrations(installed: installation.Installation, tmp_path: Path) -> None:
    assert migrated(installed) == []
    with work.disturbed(installed, tmp_path, "upgrade"):
        took = installed.upgrade(changed={"image": installation.image_values(installed.settings.next_image)})
    figures.note("helm upgrade --wait, each service with a migration", f"{took:.0f} s")
    assert migrated(installed) == list(ports.SERVICES)
    assert images(installed) == {installed.settings.next_image}
    assert not installed.restarts()


def test_back_to_the_release_before(installed: installation.Installation, tmp_path: Path) -> None:
    if images(installed) != {installed.settings.next_image}:
        installed.upgrade(changed={"image": installation.image_values(installed.settings.next_image)})
    with work.disturbed(installed, tmp_path, "rollback"):
        took = installed.rollback()
    figures.note("helm rollback --wait", f"{took:.0f} s")
    assert migrated(installed) == list(ports.SERVICES), "a rollback undoes no migration"
    assert images(installed) == {installed.settings.image}
    assert not installed.restarts()


def test_a_failing_migration_touches_no_pod(installed: installation.Installation, tmp_path: Path) -> None:
    before = at_rest(installed)
    bad = installation.image_values(installed.settings.bad_image)
    failing = pytest.raises(installation.CommandFailed, match="recupera-migrate-agreement")
    with work.disturbed(installed, tmp_path, "bad migration"), failing:
        installed.upgrade(changed={"image": bad})
    assert installation.names(installed.pods()) == before
    assert installed.revisions()[-1]["status"] == "failed"
    installed.upgrade()
    assert installed.revisions()[-1]["status"] == "deployed"


def test_a_release_that_does_not_start_is_taken_back(
    installed: installation.Installation, tmp_path: Path
) -> None:
    with work.disturbed(installed, tmp_path, "broken release"), pytest.raises(installation.CommandFailed):
        installed.upgrade(
            *back(installed),
            changed={"image": installation.image_values(installed.settings.broken_image)},
            timeout="75s",
        )
    assert images(installed) == {installed.settings.image}
    assert "ollback" in installed.revisions()[-1]["description"]


def test_an_image_that_is_not_there_is_taken_back(
    installed: installation.Installation, tmp_path: Path
) -> None:
    before = at_rest(installed)
    missing = installation.image_values(installed.settings.image) | {"tag": "not-there"}
    with work.disturbed(installed, tmp_path, "missing image"), pytest.raises(installation.CommandFailed):
        installed.upgrade(*back(installed), changed={"image": missing}, timeout="30s")
    installation.until(
        "the pods of before, and no others",
        lambda: installation.names(installed.pods()) == before,
        seconds=60,
    )
    assert images(installed) == {installed.settings.image}


def back(installed: installation.Installation) -> list[str]:
    """Helm's flag to go back by itself, which has another name since 4."""
    return ["--atomic"] if installed.settings.helm == "helm3" else ["--rollback-on-failure"]


def at_rest(installed: installation.Installation) -> list[str]:
    """Names of the pods once the release before has no more of its own."""
    seen: list[list[str]] = []

    def same() -> list[str] | None:
        seen.append(installation.names(installed.pods()))
        return seen[-1] if len(seen) > 5 and seen[-1] == seen[-6] else None

    found: list[str] = installation.until("pods that stay the same", same, seconds=120)
    return found


def migrated(installed: installation.Installation) -> list[str]:
    """Services whose database has what the next release's migration makes."""
    return [service for service, engine in installed.owners().items() if sa.inspect(engine).has_table(TABLE)]


def images(installed: installation.Installation) -> set[str]:
    """Images of our own that pods run; the gateway's is another's."""
    return {
        container["image"]
        for pod in installed.pods()
        for container in pod["spec"]["containers"]
        if container["name"] != "envoy"
    }
