"""One platform, two agencies that had a day on it; made once, when the first test asks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from support import calls, two_agencies, whole


@dataclasses.dataclass(frozen=True)
class Two:
    """`ours` makes the calls, `other` is who must not be touched."""

    ours: two_agencies.Agency
    other: two_agencies.Agency


@pytest.fixture(scope="session")
def two(whole: whole.Whole, tmp_path_factory: pytest.TempPathFactory) -> Two:
    """Both agencies with the same portfolio."""
    folder = tmp_path_factory.mktemp("portfolios")
    return Two(two_agencies.worked(whole, "demo", folder), two_agencies.worked(whole, "lisboa", folder))


@pytest.fixture(scope="session")
def gateway(whole: whole.Whole) -> Iterator[calls.Client]:
    """Calls to the gateway over the three protocols."""
    made = calls.Client(whole.url)
    yield made
    made.close()
