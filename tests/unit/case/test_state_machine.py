"""The case's state machine: data, properties, refusals."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from case_service.domain import cases
from case_service.domain.cases import Event, Position, State, SubState
from recupera.case.v1 import case_pb2

pytestmark = pytest.mark.feature("S1-14")

EVENTS = st.lists(st.sampled_from(list(Event)), max_size=30)
START = Position(state=State.RECEIVED)


def walk(events: list[Event]) -> list[Position]:
    """Every position on the way; steps that the machine refuses are left out."""
    found = [START]
    for event in events:
        try:
            found.append(cases.apply(found[-1], event))
        except cases.CaseTransitionRefused:
            continue
    return found


@given(EVENTS)
def test_a_sub_state_belongs_to_collection_only(events: list[Event]) -> None:
    for position in walk(events):
        assert (position.sub_state is not SubState.NONE) == (position.state is State.IN_COLLECTION)
        assert (position.held_state is not None) == (position.state is State.ON_HOLD)
        assert position.held_state is not State.ON_HOLD
        assert position.held_state not in cases.TERMINAL


@given(EVENTS)
def test_a_hold_gives_back_what_it_found(events: list[Event]) -> None:
    position = walk(events)[-1]
    if position.state is State.ON_HOLD or position.state in cases.TERMINAL:
        return
    held = cases.apply(position, Event.HOLD_PLACED)
    assert cases.apply(held, Event.HOLD_RELEASED) == position


@given(EVENTS)
def test_what_is_over_is_left_by_reversal_or_replacement_only(events: list[Event]) -> None:
    for state in cases.TERMINAL:
        for event in Event:
            if event in (Event.PAYMENT_REVERSED, Event.REPLACED):
                assert cases.apply(Position(state=state), event).state is State.READY
            elif (state, event) != (State.TIME_BARRED, Event.PAID_IN_FULL):
                with pytest.raises(cases.CaseTransitionRefused):
                    cases.apply(Position(state=state), event)


@given(EVENTS, st.integers(0, 2), st.booleans())
def test_settling_rests_after_one_step(events: list[Event], open_titles: int, agreement: bool) -> None:
    position = walk(events)[-1]
    step = cases.settle(position, open_titles=open_titles, agreement_in_force=agreement)
    if step is None:
        return
    again = cases.settle(step[1], open_titles=open_titles, agreement_in_force=agreement)
    assert again is None or again[1] == step[1]


def test_every_state_can_be_reached_and_has_its_name_on_the_wire() -> None:
    reached = {State.RECEIVED, State.ON_HOLD}
    for _ in cases.TRANSITIONS:
        reached |= {target for (state, _event), target in cases.TRANSITIONS.items() if state in reached}
    assert reached == set(State)
    assert {f"STATE_{state}" for state in State} | {"STATE_UNSPECIFIED"} == set(case_pb2.Case.State.keys())
    named = {f"SUB_STATE_{sub or 'UNSPECIFIED'}" for sub in SubState}
    assert named == set(case_pb2.Case.SubState.keys())


def test_money_moves_a_case_on_hold_out_of_it_only_when_it_is_over() -> None:
    held = cases.apply(Position(state=State.IN_COLLECTION, sub_state=SubState.PTP), Event.HOLD_PLACED)
    agreed = cases.apply(held, Event.AGREEMENT_ACTIVATED)
    assert (agreed.state, agreed.held_state) == (State.ON_HOLD, State.IN_AGREEMENT)
    assert cases.apply(agreed, Event.PAID_IN_FULL) == Position(state=State.RESOLVED_PAID)


@pytest.mark.parametrize(
    ("state", "open_titles", "agreement", "becomes"),
    [
        (State.IN_COLLECTION, 1, True, State.IN_AGREEMENT),
        (State.IN_AGREEMENT, 1, True, None),
        (State.IN_AGREEMENT, 0, True, None),
        (State.IN_AGREEMENT, 1, False, State.IN_COLLECTION),
        (State.IN_AGREEMENT, 0, False, State.RESOLVED_PAID),
        (State.IN_COLLECTION, 0, False, State.RESOLVED_PAID),
        (State.RESOLVED_PAID, 0, False, None),
        (State.RESOLVED_PAID, 1, False, State.READY),
        (State.RETURNED, 1, False, None),
        (State.READY, 1, False, None),
    ],
)
def test_settle(state: State, open_titles: int, agreement: bool, becomes: State | None) -> None:
    sub_state = SubState.NEW if state is State.IN_COLLECTION else SubState.NONE
    position = Position(state=state, sub_state=sub_state)
    step = cases.settle(position, open_titles=open_titles, agreement_in_force=agreement)
    assert (step[1].state if step else None) is becomes


def by_hand(position: Position, target: State, **given_: object) -> Position:
    found = {
        "sub_state": SubState.NONE,
        "open_titles": 1,
        "agreement_in_force": False,
        "persi": False,
    } | given_
    return cases.by_hand(position, target=target, **found)[1]  # type: ignore[arg-type]


def test_by_hand() -> None:
    collected = Position(state=State.IN_COLLECTION, sub_state=SubState.CONTACTED)
    assert by_hand(collected, State.LEGAL).state is State.LEGAL
    assert by_hand(Position(state=State.LEGAL), State.IN_COLLECTION).sub_state is SubState.CONTACTED
    moved = by_hand(collected, State.IN_COLLECTION, sub_state=SubState.NEGOTIATING)
    assert moved == dataclasses.replace(collected, sub_state=SubState.NEGOTIATING)
    assert by_hand(collected, State.RESOLVED_OTHER, open_titles=0).state is State.RESOLVED_OTHER


@pytest.mark.parametrize(
    ("position", "target", "given_", "refusal"),
    [
        (
            Position(state=State.IN_COLLECTION, sub_state=SubState.NEW),
            State.RESOLVED_PAID,
            {},
            cases.CaseStillOpen,
        ),
        (
            Position(state=State.IN_COLLECTION, sub_state=SubState.NEW),
            State.LEGAL,
            {"persi": True},
            cases.CaseUnderPersi,
        ),
        (
            Position(state=State.IN_AGREEMENT),
            State.RETURNED,
            {"agreement_in_force": True},
            cases.CaseInAgreement,
        ),
        (Position(state=State.IN_AGREEMENT), State.IN_COLLECTION, {}, cases.CaseTransitionRefused),
        (Position(state=State.READY), State.READY, {}, cases.CaseTransitionRefused),
        (Position(state=State.READY), State.IN_AGREEMENT, {}, cases.CaseTransitionRefused),
        (
            Position(state=State.IN_COLLECTION, sub_state=SubState.CONTACTED),
            State.IN_COLLECTION,
            {"sub_state": SubState.NEW},
            cases.CaseTransitionRefused,
        ),
    ],
)
def test_by_hand_refuses(
    position: Position, target: State, given_: dict[str, object], refusal: type[Exception]
) -> None:
    with pytest.raises(refusal):
        by_hand(position, target, **given_)
