"""Processes die anywhere in the loop; what is settled is what an undisturbed run settles."""

import collections
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy

from dialer_service import domain, providers, usecases
from recupera.dialer.v1 import dialer_pb2
from servicekit import errors, testing
from support import waiting

from . import dialling_child
from .conftest import AGENCY, OTHER_AGENCY, CaseService, Dialer, Keys

Campaign = dialer_pb2.Campaign
NUMBERS = range(25)


@contextmanager
def child(
    dialer: Dialer, case_address: str, keys: Keys, acts: Path, **options: object
) -> Iterator[subprocess.Popen[str]]:
    """A process that runs the dialer's loops."""
    given = {
        "database_url": dialer.database.url,
        "case_address": case_address,
        "key_file": str(keys.dialer),
        "acts": str(acts),
        **options,
    }
    process = subprocess.Popen(
        [sys.executable, dialling_child.__file__, json.dumps(given)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()


def remembering(dialer: Dialer, acts: Path) -> Dialer:
    """The dialer with the exchange of the child: it knows what was dialled before the crash, and nothing else."""
    exchange = dialling_child.Exchange(acts, dialling_child.Killer(None))
    return dataclasses.replace(dialer, wiring=dataclasses.replace(dialer.wiring, exchange=exchange))


def over(dialer: Dialer) -> None:
    """The lease of the dead process is over."""
    with dialer.owner.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE leases SET expires_at = clock_timestamp()"))


@pytest.fixture
def undisturbed(another: Callable[[], Dialer]) -> list[str]:
    """What an undisturbed run settles."""
    dialer = another()
    campaign = dialer.run(NUMBERS, agents=3, max_attempts=2)
    dialer.until_quiet(campaign)
    return dialer.settled()


@pytest.mark.parametrize(
    ("place", "count", "memory"),
    [
        ("asking", 2, True),
        ("asked", 2, True),
        ("committed", 1, True),
        ("committed", 5, True),
        ("dialled", 4, True),
        ("asked", 1, False),
        ("committed", 4, False),
        ("dialled", 1, False),
    ],
)
def test_kill_9_and_go_on(
    dialer: Dialer,
    undisturbed: list[str],
    case_address: str,
    case_service: CaseService,
    keys: Keys,
    tmp_path: Path,
    place: str,
    count: int,
    memory: bool,
) -> None:
    """`memory`: whether the exchange knows what it was asked to dial, as a real one does, or answers for any key."""
    acts = tmp_path / "acts"
    campaign = dialer.run(NUMBERS, agents=3, max_attempts=2)
    case_service.requests.clear()
    with child(dialer, case_address, keys, acts, stop_at=[place, count]) as process:
        assert process.wait(timeout=30) == -9
    left = {call.state for call in dialer.calls()} & {
        dialer_pb2.Call.STATE_QUEUED,
        dialer_pb2.Call.STATE_DIALING,
    }
    assert left, "the process died with calls in the air"
    dialer.tick()
    assert {call.state for call in dialer.calls()} & left, "the lease still protects them"
    over(dialer)
    again = remembering(dialer, acts) if memory else dialer
    assert again.until_quiet(campaign).cases_due == 0
    assert again.settled() == undisturbed
    dialled = (
        collections.Counter(line.split()[1] for line in acts.read_text().splitlines())
        if acts.exists()
        else {}
    )
    assert all(times == 1 for times in dialled.values()), "at most one act a key"
    if memory:
        made = {call.outside_key for call in dialer.calls() if call.outside_key}
        assert set(dialled) == made, "every call was dialled"


def test_two_workers_one_lease_and_the_other_takes_over(
    dialer: Dialer, undisturbed: list[str], case_address: str, keys: Keys, tmp_path: Path
) -> None:
    acts = tmp_path / "acts"

    def pids() -> set[str]:
        return {line.split()[0] for line in acts.read_text().splitlines()} if acts.exists() else set()

    campaign = dialer.run(NUMBERS, agents=1, max_attempts=2)
    with (
        child(dialer, case_address, keys, acts, lease_seconds=6) as one,
        child(dialer, case_address, keys, acts, lease_seconds=6) as other,
    ):
        waiting.until(dialer.connected, what="a connected call")
        for _ in range(3):
            before = dialer.campaign(campaign).live_answers
            for call in dialer.connected():
                dialer.dispose(call)
            waiting.until(lambda: dialer.campaign(campaign).live_answers > before, what="the next answer")  # noqa: B023
        assert len(pids()) == 1, "only the holder of the lease dials"
        holder, idle = (one, other) if str(one.pid) in pids() else (other, one)
        holder.kill()
        holder.wait()

        def quiet() -> bool:
            for call in dialer.connected():
                dialer.dispose(call)
            found = dialer.campaign(campaign)
            return not found.cases_due and not found.calls_live

        waiting.until(quiet, timeout=60, what="the other worker to finish")
        assert pids() == {str(holder.pid), str(idle.pid)}
    # agent-01 and agent-02 are known to the undisturbed run
    assert [line for line in dialer.settled() if not line.startswith("agents ")] == [
        line for line in undisturbed if not line.startswith("agents ")
    ]
    keys_dialled = [line.split()[1] for line in acts.read_text().splitlines()]
    assert len(keys_dialled) == len(set(keys_dialled))


def test_permission_away_leaves_calls_queued_and_they_go_on_with_their_key(
    dialer: Dialer, case_service: CaseService
) -> None:
    class Away:
        def reserve(self, *_: object) -> list[domain.Answer]:
            raise errors.RemoteUnavailable("away")

    campaign = dialer.run(range(10), agents=2)
    deaf = dataclasses.replace(dialer, wiring=dataclasses.replace(dialer.wiring, permission=Away()))
    for _ in range(3):
        with pytest.raises(errors.RemoteUnavailable):
            deaf.tick()
    queued = dialer.calls()
    assert [call.state for call in queued] == [dialer_pb2.Call.STATE_QUEUED] * 2
    assert testing.published(dialer.engine, kind="call_ended") == []
    dialer.until_quiet(campaign)
    names = {call.name.rpartition("/")[2] for call in queued}
    assert {str(key) for key in case_service.requests[0]} == names


def test_an_exchange_away_pauses_the_campaign_and_nothing_is_dialled_twice(
    dialer: Dialer, tmp_path: Path
) -> None:
    acts = tmp_path / "acts"
    inner = dialling_child.Exchange(acts, dialling_child.Killer(None))

    class Away:
        def __init__(self) -> None:
            self.away = False
            self.left = 4

        def originate(self, key: str, number: str) -> domain.Outcome | None:
            self.left -= 1
            if self.left == 0:
                inner.originate(key, number)  # dialled, but the answer is lost
                self.away = True
            if self.away:
                raise providers.ExchangeUnavailable("away")
            return inner.originate(key, number)

        def ask(self, key: str) -> domain.Outcome | None:
            if self.away:
                raise providers.ExchangeUnavailable("away")
            return inner.ask(key)

    exchange = Away()
    again = dataclasses.replace(dialer, wiring=dataclasses.replace(dialer.wiring, exchange=exchange))
    campaign = again.run(NUMBERS, agents=3)
    again.tick()
    paused = again.campaign(campaign)
    assert (paused.state, paused.pause_reason) == (Campaign.STATE_PAUSED, "EXCHANGE_UNAVAILABLE")
    assert again.paused_themselves() == {"ABANDON_CAP": 0, "EXCHANGE_UNAVAILABLE": 1}
    with pytest.raises(providers.ExchangeUnavailable):
        again.tick()
    exchange.away, exchange.left = False, 1_000
    again.tick()
    assert not again.calls(state=dialer_pb2.Call.STATE_DIALING)
    again.start(campaign)
    assert again.paused_themselves() == {"ABANDON_CAP": 0, "EXCHANGE_UNAVAILABLE": 0}
    again.until_quiet(campaign)
    dialled = [line.split()[1] for line in acts.read_text().splitlines()]
    assert len(dialled) == len(set(dialled)) == 25


def test_a_line_that_rings_is_asked_again(dialer: Dialer) -> None:
    class Ringing(providers.SimulatedExchange):
        def __init__(self) -> None:
            self.rings: collections.Counter[str] = collections.Counter()

        def originate(self, key: str, number: str) -> domain.Outcome | None:
            return None

        def ask(self, key: str) -> domain.Outcome | None:
            self.rings[key] += 1
            return super().ask(key) if self.rings[key] == 3 else None

    again = dataclasses.replace(dialer, wiring=dataclasses.replace(dialer.wiring, exchange=Ringing()))
    campaign = again.run(range(10), agents=4)
    again.tick()
    assert len(again.calls(state=dialer_pb2.Call.STATE_DIALING)) == 4
    assert again.until_quiet(campaign).calls_made == 10


def test_an_exchange_that_cannot_tell_leaves_the_call_unknown_and_never_repeats_it(dialer: Dialer) -> None:
    class Forgetful(providers.SimulatedExchange):
        def originate(self, key: str, number: str) -> domain.Outcome | None:
            return domain.Outcome.UNKNOWN

    again = dataclasses.replace(dialer, wiring=dataclasses.replace(dialer.wiring, exchange=Forgetful()))
    campaign = again.run(range(5), agents=2, max_attempts=3)
    assert again.until_quiet(campaign).cases_left == 0
    assert again.summary().by_state == {"UNKNOWN": 5}


def test_a_campaign_that_fails_does_not_keep_the_others_from_their_turn(dialer: Dialer) -> None:
    class Strict(providers.SimulatedExchange):
        def originate(self, key: str, number: str) -> domain.Outcome | None:
            if ".13." in key:
                raise RuntimeError("a bug in a driver")
            return super().originate(key, number)

    again = dataclasses.replace(dialer, wiring=dataclasses.replace(dialer.wiring, exchange=Strict()))
    again.deliver(again.steps_due([1, 2], script="a"), again.steps_due([3, 4], script="b"))
    bad, good = again.make(script="a", simulation_seed=13), again.make(script="b")
    again.set_agent(1, dialer_pb2.Agent.STATE_FREE, bad.name)
    again.set_agent(2, dialer_pb2.Agent.STATE_FREE, good.name)
    again.start(bad)
    again.start(good)
    with pytest.raises(RuntimeError):
        again.tick()
    assert again.campaign(good).calls_made > 0


def test_an_agency_that_fails_does_not_keep_the_others_from_their_turn(
    dialer: Dialer, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = dataclasses.replace(dialer, agency=OTHER_AGENCY)
    other.set_clock()
    first, second = dialer.run(range(2), agents=1), other.run(range(2), agents=1)
    worked = usecases.worked_campaigns

    def wrong(tx: object, agency: object) -> object:
        if agency == AGENCY:
            raise RuntimeError("a mistake of ours")
        return worked(tx, agency)  # type: ignore[arg-type]  # passed through

    with monkeypatch.context() as patched:
        patched.setattr(usecases, "worked_campaigns", wrong)
        with pytest.raises(RuntimeError):
            dialer.tick()
    assert dialer.campaign(first).calls_made == 0
    assert other.campaign(second).calls_made > 0
    dialer.tick()
    assert dialer.campaign(first).calls_made > 0
