"""Calls: state machine, outcomes, dispositions, promises to pay (state-machines.md, S1-09)."""

import dataclasses
import datetime
import enum
from collections.abc import Mapping
from uuid import UUID

from servicekit import errors, money


class CallState(enum.StrEnum):
    """State machine "Call", without the steps that only a real line shows (RINGING, WAITING_AGENT,
    VOICEMAIL).
    """

    QUEUED = "QUEUED"
    BLOCKED = "BLOCKED"
    DIALING = "DIALING"
    CONNECTED = "CONNECTED"
    WRAP_UP = "WRAP_UP"
    DISPOSITIONED = "DISPOSITIONED"
    BUSY = "BUSY"
    NO_ANSWER = "NO_ANSWER"
    INVALID_NUMBER = "INVALID_NUMBER"
    MACHINE = "MACHINE"
    FAILED = "FAILED"
    ABANDONED = "ABANDONED"
    UNKNOWN = "UNKNOWN"


class Disposition(enum.StrEnum):
    """What the agent found (S1-09, S4-14, S4-16)."""

    PROMISE_TO_PAY = "PROMISE_TO_PAY"
    REFUSAL = "REFUSAL"
    CALLBACK = "CALLBACK"
    WRONG_PERSON = "WRONG_PERSON"
    ALREADY_PAID = "ALREADY_PAID"
    DISPUTE = "DISPUTE"
    NEGOTIATING = "NEGOTIATING"

    @property
    def right_party(self) -> bool:
        """A person, and the right one, was spoken to."""
        return self is not Disposition.WRONG_PERSON


class Outcome(enum.StrEnum):
    """What the exchange says of a call. UNKNOWN: it cannot tell, the call is never repeated by itself."""

    ANSWER = "ANSWER"
    NO_ANSWER = "NO_ANSWER"
    BUSY = "BUSY"
    INVALID = "INVALID"
    MACHINE = "MACHINE"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"


class CallStateInvalid(errors.ServiceError):
    """The call cannot go from its state to another: a mistake in the program, never of the caller."""


class CallNotConnected(errors.ServiceError):
    """Only a call in which somebody was reached can be given a disposition."""

    status = errors.Status.FAILED_PRECONDITION


class CallAlreadyDispositioned(errors.ServiceError):
    """The call has its disposition."""

    status = errors.Status.FAILED_PRECONDITION


CALL_ENDINGS = frozenset(
    {
        CallState.BUSY,
        CallState.NO_ANSWER,
        CallState.INVALID_NUMBER,
        CallState.MACHINE,
        CallState.FAILED,
        CallState.ABANDONED,
        CallState.UNKNOWN,
    }
)
"""Where dialling ends without somebody on the line."""


CALL_MOVES: Mapping[CallState, frozenset[CallState]] = {
    CallState.QUEUED: frozenset({CallState.DIALING, CallState.BLOCKED}),
    CallState.DIALING: CALL_ENDINGS | {CallState.CONNECTED, CallState.QUEUED},
    CallState.CONNECTED: frozenset({CallState.WRAP_UP}),
    CallState.WRAP_UP: frozenset({CallState.DISPOSITIONED}),
    CallState.BLOCKED: frozenset(),
    CallState.DISPOSITIONED: frozenset(),
    **{state: frozenset() for state in CALL_ENDINGS},
}
"""DIALING -> QUEUED: the exchange never heard of the call, so permission is asked again before it is
dialled.
"""


CALL_LIVE = frozenset({CallState.QUEUED, CallState.DIALING, CallState.CONNECTED, CallState.WRAP_UP})
"""Somebody still has to do something with the call."""


_ENDS: Mapping[Outcome, CallState] = {
    Outcome.NO_ANSWER: CallState.NO_ANSWER,
    Outcome.BUSY: CallState.BUSY,
    Outcome.INVALID: CallState.INVALID_NUMBER,
    Outcome.MACHINE: CallState.MACHINE,
    Outcome.FAILED: CallState.FAILED,
    Outcome.UNKNOWN: CallState.UNKNOWN,
}


RULE_ABANDONED = "R25"
"""No further call after an abandoned one (72 hours in the UK; here: that date)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """A call to the person of a case. Its natural key is (case, date, attempt). The number dialled is
    nowhere in it.
    """

    id: UUID
    campaign_id: UUID
    case_id: UUID
    date: datetime.date
    attempt: int
    natural_key: int
    state: CallState
    agent_id: str
    person_id: UUID | None = None
    contact_point_id: UUID | None = None
    currency: str = ""
    outside_key: str = ""
    rule: str = ""
    disposition: Disposition | None = None
    promise_date: datetime.date | None = None
    promise_amount_minor: int | None = None
    start_time: datetime.datetime | None = None
    end_time: datetime.datetime | None = None
    version: int = 1

    def move(self, target: CallState) -> "Call":
        """The call in its next state. Raises CallStateInvalid."""
        if target not in CALL_MOVES[self.state]:
            raise CallStateInvalid(
                f"a call in {self.state} cannot become {target}", state=self.state, wanted=target
            )
        return dataclasses.replace(self, state=target, version=self.version + 1)

    def block(self, rule: str, *, now: datetime.datetime) -> "Call":
        """Refused for good by `rule`: nothing is dialled."""
        return dataclasses.replace(self.move(CallState.BLOCKED), rule=rule, end_time=now)

    def dial(
        self,
        *,
        seed: int,
        person_id: UUID | None,
        contact_point_id: UUID | None,
        currency: str,
        now: datetime.datetime,
    ) -> "Call":
        """Granted: the call as it is committed before the exchange is asked to dial."""
        return dataclasses.replace(
            self.move(CallState.DIALING),
            person_id=person_id or self.person_id,
            contact_point_id=contact_point_id,
            currency=currency,
            outside_key=outside_key(
                call_id=self.id, seed=seed, natural_key=self.natural_key, date=self.date, attempt=self.attempt
            ),
            start_time=now,
        )

    def requeue(self) -> "Call":
        """The exchange never heard of the call: permission is asked again, with the same key."""
        return dataclasses.replace(self.move(CallState.QUEUED), start_time=None)

    def end(self, outcome: Outcome, *, agent_there: bool, now: datetime.datetime) -> "Call":
        """The call after the exchange told its outcome: answered with the agent there is CONNECTED,
        without is ABANDONED.
        """
        if outcome is Outcome.ANSWER:
            if agent_there:
                return self.move(CallState.CONNECTED)
            return dataclasses.replace(self.move(CallState.ABANDONED), rule=RULE_ABANDONED, end_time=now)
        return dataclasses.replace(self.move(_ENDS[outcome]), end_time=now)

    def overdue(self) -> "Call":
        """No disposition in time: the call waits for it in WRAP_UP, where lists show it."""
        return self.move(CallState.WRAP_UP)

    def dispose(
        self,
        disposition: Disposition,
        *,
        promise_date: datetime.date | None,
        promise_amount: money.Money | None,
        business_date: datetime.date,
        max_promise_days: int,
        now: datetime.datetime,
    ) -> "Call":
        """The call with the agent's disposition. Raises CallNotConnected, CallAlreadyDispositioned,
        InvalidRequest.

        PROMISE_TO_PAY takes a date from the business date to `max_promise_days` later and an amount above
        zero in the case's currency; any other disposition takes neither.
        """
        if self.state is CallState.DISPOSITIONED:
            raise CallAlreadyDispositioned(
                "the call has its disposition", call=self.id, disposition=self.disposition
            )
        if self.state not in (CallState.CONNECTED, CallState.WRAP_UP):
            raise CallNotConnected("nobody was reached in this call", call=self.id, state=self.state)
        _check_promise(
            disposition,
            promise_date,
            promise_amount,
            currency=self.currency,
            business_date=business_date,
            max_promise_days=max_promise_days,
        )
        wrapped = self if self.state is CallState.WRAP_UP else self.move(CallState.WRAP_UP)
        return dataclasses.replace(
            wrapped.move(CallState.DISPOSITIONED),
            disposition=disposition,
            promise_date=promise_date,
            promise_amount_minor=promise_amount.minor if promise_amount is not None else None,
            currency=promise_amount.currency if promise_amount is not None else self.currency,
            end_time=now,
        )


def _check_promise(
    disposition: Disposition,
    promise_date: datetime.date | None,
    promise_amount: money.Money | None,
    *,
    currency: str,
    business_date: datetime.date,
    max_promise_days: int,
) -> None:
    wrong: list[errors.FieldViolation] = []
    if disposition is not Disposition.PROMISE_TO_PAY:
        for field, value in (("promise_date", promise_date), ("promise_amount", promise_amount)):
            if value is not None:
                wrong.append(errors.FieldViolation(field, "expected only with PROMISE_TO_PAY"))
    else:
        latest = business_date + datetime.timedelta(days=max_promise_days)
        if promise_date is None or not business_date <= promise_date <= latest:
            wrong.append(
                errors.FieldViolation(
                    "promise_date", f"expected {business_date} to {latest}, the day of payment"
                )
            )
        if promise_amount is None or promise_amount.minor <= 0:
            wrong.append(errors.FieldViolation("promise_amount", "expected more than zero"))
        elif currency and promise_amount.currency != currency:
            wrong.append(errors.FieldViolation("promise_amount.currency_code", f"expected {currency}"))
    if wrong:
        raise errors.InvalidRequest(fields=wrong)


def outside_key(*, call_id: UUID, seed: int, natural_key: int, date: datetime.date, attempt: int) -> str:
    """The call's key at the exchange: unique by the call's id; the rest is what a simulated exchange draws
    from.
    """
    return f"{call_id.hex}.{seed}.{natural_key:016x}.{date:%Y%m%d}.{attempt}"
