"""Nothing lost, nothing twice: the journey on a platform that is killed comes to the same as the undisturbed one.

300 titles and 12 kills here (every worker, every server, the broker, PostgreSQL), messages delivered twice,
a rebalance;
`make soak` takes any number and any seed.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from fault import runs


@pytest.mark.timeout(1500)
def test_the_journey_comes_to_the_same_under_faults(tmp_path: Path) -> None:
    outcome = runs.compare(work_dir=tmp_path, titles=300, faults=12, seed=20261123, say=print)
    assert not outcome.difference, outcome.difference
    assert not outcome.doubled_messages
    assert not outcome.lost_messages
    assert outcome.unknown_messages <= outcome.messages_in_flight_at_most
    assert not outcome.undeclared
