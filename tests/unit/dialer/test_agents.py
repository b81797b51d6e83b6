"""Agents: presence."""

import dataclasses
import uuid

import pytest

from dialer_service import domain

State = domain.AgentState
HERE, THERE = uuid.UUID(int=1), uuid.UUID(int=2)
OFFLINE = domain.Agent(id="ana", state=State.OFFLINE, campaign_id=None, call_id=None, next_state=State.FREE)
BUSY = dataclasses.replace(OFFLINE, state=State.BUSY, campaign_id=HERE, call_id=uuid.UUID(int=9))


def test_signing_in_pausing_and_out() -> None:
    free = OFFLINE.ask(State.FREE, campaign_id=HERE)
    assert (free.state, free.campaign_id) == (State.FREE, HERE)
    paused = free.ask(State.PAUSED, campaign_id=None)
    assert (paused.state, paused.campaign_id) == (State.PAUSED, HERE)
    assert paused.ask(State.FREE, campaign_id=THERE).campaign_id == THERE
    out = paused.ask(State.OFFLINE, campaign_id=None)
    assert (out.state, out.campaign_id) == (State.OFFLINE, None)


@pytest.mark.parametrize("state", [State.FREE, State.PAUSED])
def test_an_agent_of_no_campaign_names_one(state: domain.AgentState) -> None:
    with pytest.raises(domain.AgentNotSignedIn):
        OFFLINE.ask(state, campaign_id=None)


@pytest.mark.parametrize("state", [State.FREE, State.PAUSED, State.OFFLINE])
def test_with_a_call_on_the_line_the_wish_waits(state: domain.AgentState) -> None:
    asked = BUSY.ask(state, campaign_id=None)
    assert (asked.state, asked.call_id, asked.next_state) == (State.BUSY, BUSY.call_id, state)
    assert BUSY.ask(state, campaign_id=HERE) == asked


def test_no_other_campaign_with_a_call_on_the_line() -> None:
    with pytest.raises(domain.AgentHasCall):
        BUSY.ask(State.FREE, campaign_id=THERE)


def test_from_wrap_up_the_call_is_left_without_disposition() -> None:
    wrapping = dataclasses.replace(BUSY, state=State.WRAP_UP)
    left = wrapping.ask(State.FREE, campaign_id=None)
    assert (left.state, left.call_id, left.campaign_id) == (State.FREE, None, HERE)
