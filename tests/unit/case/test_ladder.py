"""Levels of the ladder as data (S2-18)."""

import dataclasses

import pytest

from case_service.domain import ladder
from case_service.domain.contact import Channel

pytestmark = pytest.mark.feature("S2-18")


def test_the_default_ladder_covers_every_day_once() -> None:
    ladder.check(ladder.DEFAULT_LEVELS)
    days = [day for level in ladder.DEFAULT_LEVELS for day in range(level.from_days, level.to_days + 1)]
    assert days == list(range(1, 10_000))
    assert [level.channel for level in ladder.DEFAULT_LEVELS] == [Channel.EMAIL, Channel.CALL] * 3
    assert [level.code for level in ladder.DEFAULT_LEVELS][:2] == ["reminder-1", "call-1"]
    assert all(level.minimum_wait_days > 0 for level in ladder.DEFAULT_LEVELS)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"code": ""}, "ladder.levels[0].code"),
        ({"code": "call-1"}, "ladder.levels[1].code"),
        ({"from_days": 5, "to_days": 4}, "ladder.levels[0].from_days"),
        ({"to_days": 10_000}, "ladder.levels[0].from_days"),
        ({"minimum_wait_days": -1}, "ladder.levels[0].minimum_wait_days"),
        ({"template": ""}, "ladder.levels[0].template"),
    ],
)
def test_bad_levels_are_named(change: dict[str, object], field: str) -> None:
    levels = [dataclasses.replace(ladder.DEFAULT_LEVELS[0], **change), *ladder.DEFAULT_LEVELS[1:]]  # type: ignore[arg-type]
    with pytest.raises(ladder.LadderInvalid) as refusal:
        ladder.check(levels)
    assert [violation.field for violation in refusal.value.fields] == [field]


def test_a_ladder_has_levels() -> None:
    with pytest.raises(ladder.LadderInvalid):
        ladder.check([])
