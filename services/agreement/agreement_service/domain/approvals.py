"""Approval requests (R28, S2-08): states, and the error by which a use case asks for one.

A command that passes its caller's limits is refused with `ApprovalNeeded`; whoever runs commands stores it as it came,
and runs it again, once, under the authority of the person who approves it.
"""

import dataclasses
import datetime
import enum
import uuid
from collections.abc import Sequence

from servicekit import errors

VALID_DAYS = 7
"""Calendar days that a request waits after the business date on which it was made."""


class State(enum.StrEnum):
    """Shared state machine "Task / approval"."""

    PENDING = "PENDING"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"
    WITHDRAWN = "WITHDRAWN"


TRANSITIONS = {
    State.PENDING: frozenset({State.APPROVED, State.REJECTED, State.EXPIRED, State.WITHDRAWN}),
    State.APPROVED: frozenset[State](),
    State.REJECTED: frozenset[State](),
    State.EXPIRED: frozenset[State](),
    State.WITHDRAWN: frozenset[State](),
}
"""What may follow each state."""


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """A value that was held against a limit: of whose creditor, in the unit of the rule's kind."""

    creditor_id: uuid.UUID
    value: int
    currency: str


class ApprovalNeeded(errors.ServiceError):
    """The command goes beyond its caller's limits: somebody with the authority has to approve it.

    `rule` names what was met (a kind of limit, or a rule of the command's own in the same spelling), `limit` what is
    allowed and `asked` what the command asks for, both as short texts of numbers and units; `case_ids` the cases it
    is about, as far as known. None of it may hold personal data: it goes into facts, answers and logs.
    `measured` where it was a limit: what was held against it, so that an approver's own limit can be.
    """

    status = errors.Status.FAILED_PRECONDITION

    def __init__(
        self,
        *,
        rule: str,
        limit: str,
        asked: str,
        case_ids: Sequence[uuid.UUID] = (),
        measured: Measured | None = None,
    ) -> None:
        super().__init__(
            f"{rule}: {asked} asked, {limit} allowed: needs approval", rule=rule, limit=limit, asked=asked
        )
        self.rule = rule
        self.limit = limit
        self.asked = asked
        self.case_ids = tuple(sorted(set(case_ids)))
        self.measured = measured


def state_on(stored: State, *, expire_date: datetime.date, business_date: datetime.date) -> State:
    """The state on a business date: a request still pending after its last day is expired."""
    if stored is State.PENDING and business_date > expire_date:
        return State.EXPIRED
    return stored
