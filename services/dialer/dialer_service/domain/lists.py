"""Cases due a call, call lists, and permission to call (R05, R25, R26, R27)."""

import dataclasses
import datetime
import enum
from collections.abc import Sequence
from uuid import UUID

from dialer_service.domain import calls


class EntryState(enum.StrEnum):
    """A case on a campaign's list: OPEN (due at `not_before`), CALLING, DONE (spoken to), EXHAUSTED (no
    tries left), CLOSED (rule).
    """

    OPEN = "OPEN"
    CALLING = "CALLING"
    DONE = "DONE"
    EXHAUSTED = "EXHAUSTED"
    CLOSED = "CLOSED"


_CASE_NOT_CALLED = frozenset(
    {
        "IN_AGREEMENT",
        "ON_HOLD",
        "RESOLVED_PAID",
        "RESOLVED_SETTLED",
        "RESOLVED_OTHER",
        "RETURNED",
        "TIME_BARRED",
    }
)


RULE_REACHED = "R05"
"""At most one answered right-party call a day and person: the person's other cases wait for another day."""


RULE_WRONG_NUMBER = "R26"
"""A wrong number is removed system-wide, which takes a moment: the person's other cases wait for another day."""


RULE_UNKNOWN = "UNKNOWN"
"""The exchange cannot tell what became of the call: it is never repeated by itself (architecture.md §7)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Due:
    """What a fact says is due: the case's call on `date`, of a ladder step. `open_principal_minor` orders
    the list.
    """

    case_id: UUID
    person_id: UUID | None
    natural_key: int
    step_id: UUID
    level: str
    script: str
    days_past_due: int
    open_principal_minor: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class DueOn:
    """Cases due a call on a date."""

    date: datetime.date
    due: Sequence[Due]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaseChange:
    """The case service's word on a case."""

    case_id: UUID
    version: int
    state: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Granted:
    """Permission to contact, for one call, now. `number` is E.164; it is used and forgotten: never stored,
    never logged.
    """

    key: UUID
    contact_point_id: UUID | None
    person_id: UUID | None
    currency: str
    number: str = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refused:
    """The rule that refuses the call; ask again at `retry_time`, or never for this date."""

    key: UUID
    rule: str
    retry_time: datetime.datetime | None


Answer = Granted | Refused


def case_rule(case_state: str) -> str:
    """The rule that takes a case in this state off the list; empty where it may be called.

    A case in agreement, on hold, resolved, returned or time-barred is not called (R26, R27).
    """
    return f"CASE_{case_state}" if case_state in _CASE_NOT_CALLED else ""


def entry_after(
    state: calls.CallState, *, attempts: int, max_attempts: int, case_state: str
) -> tuple[EntryState, str]:
    """(state, rule) of a list entry after a call that reached nobody, or was answered: whether the case is
    tried again.
    """
    match state:
        case calls.CallState.CONNECTED:
            return EntryState.DONE, ""
        case calls.CallState.ABANDONED:
            return EntryState.CLOSED, calls.RULE_ABANDONED
        case calls.CallState.UNKNOWN:
            return EntryState.CLOSED, RULE_UNKNOWN
    if rule := case_rule(case_state):
        return EntryState.CLOSED, rule
    if attempts >= max_attempts:
        return EntryState.EXHAUSTED, ""
    return EntryState.OPEN, ""
