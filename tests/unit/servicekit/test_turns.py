"""Agencies of a timer, each in its turn."""

import types
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from servicekit import errors, host

A, B, C = (uuid.UUID(int=number) for number in range(1, 4))


class Away(errors.ServiceError):
    """A neighbour that will be back."""

    status = errors.Status.UNAVAILABLE
    transient = True


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The process's seconds, in a timer's tick."""
    seconds = [1000.0]
    monkeypatch.setattr(host, "time", types.SimpleNamespace(monotonic=lambda: seconds[0]))
    monkeypatch.setattr(host, "_rests", {})
    host._in_hand.timer = "act"
    yield seconds
    del host._in_hand.timer


def work(seen: list[uuid.UUID], **failing: BaseException) -> Callable[[uuid.UUID], Any]:
    """Notes its agencies; fails at `a`, `b`, `c` as told."""
    found = {{"a": A, "b": B, "c": C}[name]: error for name, error in failing.items()}

    def note(agency: uuid.UUID) -> None:
        seen.append(agency)
        if agency in found:
            raise found[agency]

    return note


def test_one_that_fails_keeps_no_other_waiting_and_the_tick_fails() -> None:
    seen: list[uuid.UUID] = []
    with pytest.raises(ZeroDivisionError):
        host.each([A, B, C], work(seen, a=ZeroDivisionError(), b=ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        host.each([A, B, C], work(seen, a=ZeroDivisionError()))
    assert seen == [A, B, C] * 2, "outside a timer nobody rests"


@pytest.mark.parametrize(
    ("error", "rests"),
    [(ZeroDivisionError(), [1.0, 2.0, 5.0, 15.0, 60.0, 60.0]), (Away("told to"), [1.0, 2.0, 5.0, 5.0])],
)
def test_one_that_fails_rests_and_longer_each_time(
    now: list[float], error: Exception, rests: list[float]
) -> None:
    for rest in rests:
        seen: list[uuid.UUID] = []
        with pytest.raises(type(error)):
            host.each([A, B], work(seen, a=error))
        now[0] += rest - 0.01
        host.each([A, B], work(seen, a=error))
        assert seen == [A, B, B]
        now[0] += 0.01
    host.each([A, B], work([]))
    with pytest.raises(type(error)):
        host.each([A, B], work([], a=error))
    now[0] += 1.0
    seen = []
    host.each([A, B], work(seen))
    assert seen == [A, B], "after a success the first rest is short again"


def test_another_timer_does_not_know_of_it(now: list[float]) -> None:
    with pytest.raises(ZeroDivisionError):
        host.each([A], work([], a=ZeroDivisionError()))
    host._in_hand.timer = "collect"
    seen: list[uuid.UUID] = []
    host.each([A], work(seen))
    assert seen == [A]


def test_a_database_that_is_away_ends_the_tick(now: list[float]) -> None:
    seen: list[uuid.UUID] = []
    with pytest.raises(psycopg.OperationalError):
        host.each([A, B, C], work(seen, b=psycopg.OperationalError("away")))
    assert seen == [A, B]


def test_a_process_that_ends_begins_no_other_agency(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[uuid.UUID] = []
    monkeypatch.setattr(host, "draining", lambda: bool(seen))
    host.each([A, B, C], work(seen))
    assert seen == [A]
