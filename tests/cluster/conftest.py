"""One installation for the whole run; its first test to ask installs it. What each variable is: installation.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster import figures, installation

ORDER = (
    "test_install",
    "test_upgrade",
    "test_scale",
    "test_network",
    "test_security",
    "test_faults",
    "test_keda",
)
"""Faults come late: what they kill is counted as restarted from then on."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One installation goes through all, in this order."""
    items.sort(key=lambda item: ORDER.index(item.path.stem) if item.path.stem in ORDER else -1)


@pytest.fixture(scope="session")
def settings() -> installation.Settings:
    """What the suite was told; ends the run where something is missing."""
    try:
        return installation.Settings.read()
    except installation.SettingMissing as error:
        pytest.exit(str(error), returncode=2)


@pytest.fixture(scope="session")
def prepared(
    settings: installation.Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[installation.Installation]:
    """Servers, namespace and Secrets; the chart is not installed yet."""
    made = installation.Installation(settings, tmp_path_factory.mktemp("cluster"))
    try:
        made.prepare()
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="session")
def installed(prepared: installation.Installation) -> installation.Installation:
    """The release, installed, its gateway answering. Who changes it brings it back."""
    prepared.install()
    return prepared


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The figures, for docs/operations.md."""
    if figures.NOTED:
        terminalreporter.section("figures")
    for what, value in figures.NOTED.items():
        terminalreporter.write_line(f"{what}: {value}")
