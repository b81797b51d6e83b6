"""The state machine of a case, as data (shared state machine "Case", S1-14).

``TRANSITIONS`` is the whole machine but for holds: a hold wraps the position it found and gives it back. A
hold on all channels puts the case ON_HOLD; a hold on some channels only blocks those and leaves the state
alone.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping

from servicekit import errors


class State(enum.StrEnum):
    """States of a case; names as in recupera.case.v1.Case.State."""

    RECEIVED = "RECEIVED"
    READY = "READY"
    IN_COLLECTION = "IN_COLLECTION"
    IN_AGREEMENT = "IN_AGREEMENT"
    ON_HOLD = "ON_HOLD"
    FIELD = "FIELD"
    LEGAL = "LEGAL"
    RESOLVED_PAID = "RESOLVED_PAID"
    RESOLVED_SETTLED = "RESOLVED_SETTLED"
    RESOLVED_OTHER = "RESOLVED_OTHER"
    RETURNED = "RETURNED"
    TIME_BARRED = "TIME_BARRED"


class SubState(enum.StrEnum):
    """Within IN_COLLECTION; NONE in every other state."""

    NONE = ""
    NEW = "NEW"
    NO_CONTACT = "NO_CONTACT"
    CONTACTED = "CONTACTED"
    CALLBACK = "CALLBACK"
    PTP = "PTP"
    NEGOTIATING = "NEGOTIATING"
    AWAITING_CREDITOR_INFO = "AWAITING_CREDITOR_INFO"


class Event(enum.StrEnum):
    """What moves a case."""

    VALIDATED = "VALIDATED"
    ASSIGNED = "ASSIGNED"
    AGREEMENT_ACTIVATED = "AGREEMENT_ACTIVATED"
    AGREEMENT_BROKEN = "AGREEMENT_BROKEN"
    HOLD_PLACED = "HOLD_PLACED"
    HOLD_RELEASED = "HOLD_RELEASED"
    SENT_TO_FIELD = "SENT_TO_FIELD"
    SENT_TO_LEGAL = "SENT_TO_LEGAL"
    GIVEN_BACK = "GIVEN_BACK"
    PAID_IN_FULL = "PAID_IN_FULL"
    SETTLED = "SETTLED"
    WRITTEN_OFF = "WRITTEN_OFF"
    RECALLED = "RECALLED"
    LIMITATION_REACHED = "LIMITATION_REACHED"
    PAYMENT_REVERSED = "PAYMENT_REVERSED"
    REPLACED = "REPLACED"


TERMINAL = frozenset(
    {State.RESOLVED_PAID, State.RESOLVED_SETTLED, State.RESOLVED_OTHER, State.RETURNED, State.TIME_BARRED}
)
"""Nothing is collected any more; left only by PAYMENT_REVERSED or REPLACED."""

WORKED = frozenset({State.READY, State.IN_COLLECTION, State.IN_AGREEMENT, State.FIELD, State.LEGAL})
"""Open and not on hold."""

NEEDS_NOTHING_OPEN = frozenset({State.RESOLVED_PAID, State.RESOLVED_SETTLED, State.RESOLVED_OTHER})
"""RESOLVED requires that no title is open (shared state machine "Case")."""


def _machine() -> dict[tuple[State, Event], State]:
    machine = {
        (State.RECEIVED, Event.VALIDATED): State.READY,
        (State.RECEIVED, Event.RECALLED): State.RETURNED,
        (State.READY, Event.ASSIGNED): State.IN_COLLECTION,
        (State.IN_COLLECTION, Event.SENT_TO_FIELD): State.FIELD,
        (State.IN_COLLECTION, Event.SENT_TO_LEGAL): State.LEGAL,
        (State.FIELD, Event.GIVEN_BACK): State.IN_COLLECTION,
        (State.LEGAL, Event.GIVEN_BACK): State.IN_COLLECTION,
        (State.FIELD, Event.SENT_TO_LEGAL): State.LEGAL,
        (State.IN_AGREEMENT, Event.AGREEMENT_BROKEN): State.IN_COLLECTION,
        (State.TIME_BARRED, Event.PAID_IN_FULL): State.RESOLVED_PAID,
    }
    for state in WORKED:
        machine[state, Event.PAID_IN_FULL] = State.RESOLVED_PAID
        machine[state, Event.SETTLED] = State.RESOLVED_SETTLED
        machine[state, Event.WRITTEN_OFF] = State.RESOLVED_OTHER
        machine[state, Event.RECALLED] = State.RETURNED
        machine[state, Event.LIMITATION_REACHED] = State.TIME_BARRED
        machine[state, Event.AGREEMENT_ACTIVATED] = State.IN_AGREEMENT
    for state in TERMINAL:
        machine[state, Event.PAYMENT_REVERSED] = State.READY
        machine[state, Event.REPLACED] = State.READY
    return machine


TRANSITIONS: Mapping[tuple[State, Event], State] = _machine()
"""(state, event) -> state. ON_HOLD is not here: ``apply`` moves what the hold remembers."""

BY_HAND = frozenset(
    {
        Event.ASSIGNED,
        Event.SENT_TO_FIELD,
        Event.SENT_TO_LEGAL,
        Event.GIVEN_BACK,
        Event.PAID_IN_FULL,
        Event.SETTLED,
        Event.WRITTEN_OFF,
        Event.RECALLED,
        Event.LIMITATION_REACHED,
        Event.REPLACED,
    }
)
"""Events a person may cause through ChangeCaseState; holds and agreements have their own commands."""


class CaseTransitionRefused(errors.ServiceError):
    """The state machine has no such step from the case's state."""

    status = errors.Status.FAILED_PRECONDITION


class CaseStillOpen(errors.ServiceError):
    """A case is resolved only when none of its titles is open."""

    status = errors.Status.FAILED_PRECONDITION


class CaseUnderPersi(errors.ServiceError):
    """No lawsuit while PERSI runs (R18, DL 227/2012 art. 18)."""

    status = errors.Status.FAILED_PRECONDITION


class CaseInAgreement(errors.ServiceError):
    """An agreement in force covers the case: cancel it at the agreement service first."""

    status = errors.Status.FAILED_PRECONDITION


class CaseFrozen(errors.ServiceError):
    """The batch that brought the case is being taken back."""

    status = errors.Status.FAILED_PRECONDITION


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a case stands. ``held`` is the position that a hold on all channels will give back."""

    state: State
    sub_state: SubState = SubState.NONE
    held_state: State | None = None
    held_sub_state: SubState = SubState.NONE

    def __post_init__(self) -> None:
        if (self.held_state is not None) != (self.state is State.ON_HOLD):
            raise ValueError("ON_HOLD and only ON_HOLD remembers a position")


def apply(position: Position, event: Event) -> Position:
    """The position after ``event``. On hold, the remembered position moves, and the hold stays unless the
    case is over.

    Entering IN_COLLECTION from READY begins with sub-state NEW, from anywhere else with CONTACTED. Raises
    CaseTransitionRefused.
    """
    if event is Event.HOLD_PLACED:
        if position.state is State.ON_HOLD:
            return position
        if position.state in TERMINAL:
            raise _refused(position.state, event)
        return Position(state=State.ON_HOLD, held_state=position.state, held_sub_state=position.sub_state)
    if event is Event.HOLD_RELEASED:
        if position.held_state is None:
            raise _refused(position.state, event)
        return Position(state=position.held_state, sub_state=position.held_sub_state)
    if position.held_state is not None:
        moved = apply(Position(state=position.held_state, sub_state=position.held_sub_state), event)
        if moved.state in TERMINAL:
            return moved
        return Position(state=State.ON_HOLD, held_state=moved.state, held_sub_state=moved.sub_state)
    target = TRANSITIONS.get((position.state, event))
    if target is None:
        raise _refused(position.state, event)
    sub_state = SubState.NONE
    if target is State.IN_COLLECTION:
        sub_state = SubState.NEW if position.state is State.READY else SubState.CONTACTED
    return Position(state=target, sub_state=sub_state)


def _refused(state: State, event: Event) -> CaseTransitionRefused:
    return CaseTransitionRefused(f"a case in {state} has no step for {event}", state=state, event=event)


def by_hand(
    position: Position,
    *,
    target: State,
    sub_state: SubState,
    open_titles: int,
    agreement_in_force: bool,
    persi: bool,
) -> tuple[Event | None, Position]:
    """The step that a person asks for: to state ``target``, or to another sub-state of IN_COLLECTION.

    Raises CaseTransitionRefused, CaseStillOpen, CaseInAgreement, CaseUnderPersi.
    """
    if target is position.state:
        if target is not State.IN_COLLECTION or sub_state in (
            SubState.NONE,
            SubState.NEW,
            position.sub_state,
        ):
            raise CaseTransitionRefused(f"the case is {position.state} already", state=position.state)
        return None, dataclasses.replace(position, sub_state=sub_state)
    event = next(
        (
            step
            for (state, step), found in TRANSITIONS.items()
            if state is position.state and found is target and step in BY_HAND
        ),
        None,
    )
    if event is None:
        raise CaseTransitionRefused(
            f"a case in {position.state} is not moved to {target} by hand",
            state=position.state,
            target=target,
        )
    if target in NEEDS_NOTHING_OPEN and open_titles:
        raise CaseStillOpen("titles of the case are open", open_titles=open_titles)
    if target is not State.RESOLVED_PAID and agreement_in_force and position.state is State.IN_AGREEMENT:
        raise CaseInAgreement("an agreement is in force")
    if target is State.LEGAL and persi:
        raise CaseUnderPersi("PERSI runs")
    moved = apply(position, event)
    if moved.state is State.IN_COLLECTION and sub_state is not SubState.NONE:
        moved = dataclasses.replace(moved, sub_state=sub_state)
    return event, moved


def settle(
    position: Position, *, open_titles: int, agreement_in_force: bool
) -> tuple[Event, Position] | None:
    """The step that money and agreements cause, if any: called after every fact of the agreement service.

    In agreement while one is in force; paid when nothing is open and none is in force; open again when a
    reversal opened a title (PAYMENT_REVERSED -> READY).
    """
    effective = position.held_state or position.state
    event: Event | None = None
    if agreement_in_force:
        if effective in WORKED and effective is not State.IN_AGREEMENT:
            event = Event.AGREEMENT_ACTIVATED
    elif open_titles == 0:
        if effective in WORKED or effective is State.TIME_BARRED:
            event = Event.PAID_IN_FULL
    elif effective is State.IN_AGREEMENT:
        event = Event.AGREEMENT_BROKEN
    elif effective in (State.RESOLVED_PAID, State.RESOLVED_SETTLED):
        event = Event.PAYMENT_REVERSED
    return None if event is None else (event, apply(position, event))
