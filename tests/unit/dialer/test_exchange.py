"""The simulated exchange: a pure function of seed, natural key of the case, date and attempt."""

import collections
import datetime
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialer_service import domain, providers

DATE = datetime.date(2026, 3, 2)
KNOWN = [
    domain.Outcome.NO_ANSWER,
    domain.Outcome.ANSWER,
    domain.Outcome.NO_ANSWER,
    domain.Outcome.NO_ANSWER,
    domain.Outcome.ANSWER,
    domain.Outcome.ANSWER,
    domain.Outcome.MACHINE,
    domain.Outcome.BUSY,
]


def key(
    *, call: int = 1, seed: int = 7, natural: int = 1, date: datetime.date = DATE, attempt: int = 1
) -> str:
    return domain.outside_key(
        call_id=uuid.UUID(int=call), seed=seed, natural_key=natural, date=date, attempt=attempt
    )


@given(
    seed=st.integers(-(2**63), 2**63 - 1),
    natural=st.integers(0, 2**64 - 1),
    date=st.dates(),
    attempt=st.integers(1, 1000),
    calls=st.tuples(st.integers(0, 2**128 - 1), st.integers(0, 2**128 - 1)),
)
def test_a_restart_changes_nothing(
    seed: int, natural: int, date: datetime.date, attempt: int, calls: tuple[int, int]
) -> None:
    """Another process, another call id, another number: the same outcome; and asking says what dialling said."""
    first, second = (key(call=call, seed=seed, natural=natural, date=date, attempt=attempt) for call in calls)
    outcome = providers.SimulatedExchange().originate(first, "+5511999990000")
    assert providers.SimulatedExchange().originate(second, "+351910000000") == outcome
    assert providers.SimulatedExchange().ask(first) == providers.SimulatedExchange().ask(second) == outcome


def test_known_draws() -> None:
    """Outcomes are part of what a seed promises: recorded demos stay as they are."""
    exchange = providers.SimulatedExchange()
    drawn = [exchange.ask(key(natural=number)) for number in range(8)]
    assert drawn == KNOWN


def test_outcomes_come_in_their_shares() -> None:
    exchange = providers.SimulatedExchange()
    count = 20_000
    seen = collections.Counter(exchange.ask(key(natural=number * 7919)) for number in range(count))
    assert sum(providers.SHARES.values()) == 100
    for outcome, share in providers.SHARES.items():
        assert seen[outcome] / count * 100 == pytest.approx(share, abs=1.5)


@pytest.mark.parametrize("change", [{"seed": 8}, {"date": DATE + datetime.timedelta(days=1)}, {"attempt": 2}])
def test_seed_date_and_attempt_each_change_the_draw(change: dict[str, object]) -> None:
    exchange = providers.SimulatedExchange()
    same = sum(
        exchange.ask(key(natural=number)) == exchange.ask(key(natural=number, **change))  # type: ignore[arg-type]
        for number in range(2_000)
    )
    # drawn independently, two outcomes agree with probability 0.35² + 0.30² + 0.20² + 0.10² + 0.05² = 0.265
    assert same / 2_000 == pytest.approx(0.265, abs=0.04)
