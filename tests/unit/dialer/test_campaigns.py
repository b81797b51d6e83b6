"""State machine "Dialer campaign", pacing, the abandon cap (R25)."""

import datetime
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialer_service import domain
from servicekit import errors

State = domain.CampaignState
NOW = datetime.datetime(2026, 3, 2, 13, 0, tzinfo=datetime.UTC)
DATE = datetime.date(2026, 3, 2)


def campaign(**fields: object) -> domain.Campaign:
    values: dict[str, object] = {
        "id": uuid.UUID(int=1),
        "display_name": "Monday",
        "date": DATE,
        "script": "",
        "max_attempts": 0,
        "retry_after_seconds": 0,
        "shift_minutes": 0,
        "minutes_per_call": 0,
        "simulation_seed": 7,
        "now": NOW,
    }
    return domain.new_campaign(**(values | fields))  # type: ignore[arg-type]


def test_a_new_campaign_is_a_draft_with_defaults() -> None:
    made = campaign()
    assert (made.state, made.version) == (State.DRAFT, 1)
    assert (made.max_attempts, made.retry_after) == (3, datetime.timedelta(hours=1))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"display_name": "  "}, "campaign.display_name"),
        ({"display_name": "x" * 201}, "campaign.display_name"),
        ({"max_attempts": -1}, "campaign.max_attempts"),
        ({"max_attempts": 11}, "campaign.max_attempts"),
        ({"shift_minutes": 480}, "campaign.minutes_per_call"),
        ({"minutes_per_call": 5}, "campaign.shift_minutes"),
        ({"shift_minutes": 1441, "minutes_per_call": 5}, "campaign.shift_minutes"),
        ({"shift_minutes": 480, "minutes_per_call": -1}, "campaign.minutes_per_call"),
        ({"retry_after_seconds": -1}, "campaign.retry_after_seconds"),
        ({"retry_after_seconds": 7 * 86_400 + 1}, "campaign.retry_after_seconds"),
    ],
)
def test_wrong_fields_are_named(fields: dict[str, object], field: str) -> None:
    with pytest.raises(errors.InvalidRequest) as refused:
        campaign(**fields)
    assert [violation.field for violation in refused.value.fields] == [field]


def test_all_wrong_fields_are_named_at_once() -> None:
    with pytest.raises(errors.InvalidRequest) as refused:
        campaign(display_name="", max_attempts=99, retry_after_seconds=-5)
    assert len(refused.value.fields) == 3


@pytest.mark.parametrize(("attempts", "seconds"), [(1, 1), (10, 7 * 86_400)], ids=["least", "most"])
def test_limits_are_inclusive(attempts: int, seconds: int) -> None:
    made = campaign(max_attempts=attempts, retry_after_seconds=seconds)
    assert (made.max_attempts, made.retry_after.total_seconds()) == (attempts, seconds)


@pytest.mark.feature("S4-06")
@pytest.mark.parametrize(
    ("shift", "minutes", "size"),
    [(480, 5, 96), (480, 7, 68), (4, 5, 0), (5, 5, 1), (1440, 1, 1440), (0, 0, None)],
)
def test_a_list_is_sized_by_shift_and_call_time(shift: int, minutes: int, size: int | None) -> None:
    """W-14: shift minutes ÷ minutes a call."""
    assert campaign(shift_minutes=shift, minutes_per_call=minutes).list_limit == size


def test_starting_a_draft_validates_it_on_the_way() -> None:
    running = campaign().start(business_date=DATE)
    assert (running.state, running.version) == (State.RUNNING, 3)


def test_a_campaign_of_tomorrow_does_not_start_today() -> None:
    with pytest.raises(domain.CampaignDateInFuture):
        campaign(date=DATE + datetime.timedelta(days=1)).start(business_date=DATE)
    assert campaign(date=DATE - datetime.timedelta(days=1)).start(business_date=DATE).state is State.RUNNING


def test_pause_keeps_its_reason_and_going_on_forgets_it() -> None:
    paused = campaign().start(business_date=DATE).move(State.PAUSED, reason="ABANDON_CAP")
    assert paused.pause_reason == "ABANDON_CAP"
    assert paused.start(business_date=DATE).pause_reason == ""
    assert paused.move(State.DRAINING, reason="OPERATOR").pause_reason == ""


_WANTED = {
    (State.DRAFT, State.READY),
    (State.READY, State.RUNNING),
    (State.RUNNING, State.PAUSED),
    (State.PAUSED, State.RUNNING),
    (State.RUNNING, State.DRAINING),
    (State.PAUSED, State.DRAINING),
    (State.DRAINING, State.COMPLETED),
    *(
        (state, State.ABORTED)
        for state in (State.DRAFT, State.READY, State.RUNNING, State.PAUSED, State.DRAINING)
    ),
}


@given(path=st.lists(st.sampled_from(State), max_size=12))
def test_only_the_moves_of_the_state_machine_are_made(path: list[domain.CampaignState]) -> None:
    current = campaign()
    for target in path:
        before = current
        if (before.state, target) in _WANTED:
            current = before.move(target)
            assert (current.state, current.version) == (target, before.version + 1)
        else:
            with pytest.raises(domain.CampaignStateInvalid) as refused:
                before.move(target)
            assert refused.value.metadata == {"state": before.state, "wanted": target}


@given(st.lists(st.sampled_from(State), max_size=12))
def test_what_is_over_stays_over(path: list[domain.CampaignState]) -> None:
    for over in domain.CAMPAIGN_OVER:
        assert domain.CAMPAIGN_MOVES[over] == frozenset()


@given(free=st.integers(0, 10_000))
def test_progressive_pacing_begins_one_call_for_each_free_agent(free: int) -> None:
    assert domain.calls_to_begin(free_agents=free, pacing=domain.Pacing.PROGRESSIVE) == free


@pytest.mark.parametrize(
    ("abandoned", "answers", "over"),
    [(0, 0, False), (50, 50, False), (1, 51, False), (2, 51, True), (3, 100, False), (4, 100, True)],
)
def test_abandon_cap_is_three_percent_of_more_than_fifty_live_answers(
    abandoned: int, answers: int, over: bool
) -> None:
    """R25; beyond-the-manuals.md: the cap acts after > 50 calls."""
    assert domain.abandon_cap_exceeded(abandoned=abandoned, live_answers=answers) is over
