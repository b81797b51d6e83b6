"""A message to a person of a case, its states and what is decided about it right before the act.

State machine "Notification" of the shared domain pages, as far as this service goes today: no READ, REPLIED
or CLICKED (e-mail tells none of them reliably). RENDERED is not stored: rendering and the commit of ACTING
are one step.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import uuid
from collections.abc import Collection, Mapping

from notify_service.domain import balances
from servicekit import errors

NO_STEP = uuid.UUID(int=0)
"""Step of a message that a person asked for: no step of a ladder and no instalment stands behind it."""
AGREEMENT_REMINDER = "agreement-reminder"
"""Template of the reminder that belongs to an instalment; the only one that knows `instalment`."""
BACKOFF = (
    datetime.timedelta(minutes=5),
    datetime.timedelta(minutes=30),
    datetime.timedelta(hours=2),
    datetime.timedelta(hours=8),
)
"""Waits on the agency's clock after the first, second, .. transient refusal; the last one repeats."""

UNKNOWN_BALANCE_WAIT = datetime.timedelta(minutes=5)
"""When to ask again about a case whose balance is not known, on the agency's clock."""


class State(enum.StrEnum):
    """States of a message; the names of the proto's enum without prefix."""

    REQUESTED = "REQUESTED"
    SCHEDULED = "SCHEDULED"
    """A guard said to ask again at `due_at` (window closed, cap reached)."""
    SUPPRESSED = "SUPPRESSED"
    ACTING = "ACTING"
    SENT = "SENT"
    DELIVERED = "DELIVERED"
    FAILED_RETRYABLE = "FAILED_RETRYABLE"
    FAILED = "FAILED"
    BOUNCED = "BOUNCED"
    EXPIRED = "EXPIRED"
    UNKNOWN = "UNKNOWN"
    """The process died in the act: it may have gone out, so it is never repeated by itself."""


class Channel(enum.StrEnum):
    """Channels by which this service acts."""

    EMAIL = "EMAIL"
    SMS = "SMS"


class Purpose(enum.StrEnum):
    """Why the person is written to; a promise or agreement in force suppresses COLLECTION only (R27)."""

    COLLECTION = "COLLECTION"
    AGREEMENT_REMINDER = "AGREEMENT_REMINDER"


class Reason(enum.StrEnum):
    """Why a contact point must not be written to; in the order in which one is named as the rule."""

    OPT_OUT = "OPT_OUT"
    COMPLAINT = "COMPLAINT"
    BOUNCED = "BOUNCED"


class Rule(enum.StrEnum):
    """Rules of this service that suppress a message, beside the ones `case` names (R01, R05, ..) and
    `Reason`.
    """

    NOTHING_OWED = "NOTHING_OWED"
    """The balance right before the act is zero, or the instalment is no longer open."""
    NO_PROVIDER = "NO_PROVIDER"
    """No provider is configured for the channel."""
    NO_TEMPLATE = "NO_TEMPLATE"
    """No template of this code for the person's language and the channel, or it does not fit what asked for
    it.
    """
    CREDITOR_IDENTITY = "R07"
    """The creditor's name, address or document is not known: every collection document shows all three (CDC
    art. 42-A).
    """
    EXPIRED = "EXPIRED"
    """It could not be sent within its validity."""


DUE = frozenset({State.REQUESTED, State.SCHEDULED, State.FAILED_RETRYABLE})
"""States from which the act may begin."""

_OUTCOMES = frozenset({State.SENT, State.FAILED_RETRYABLE, State.FAILED, State.BOUNCED})
_REPORTED = frozenset({State.DELIVERED, State.BOUNCED, State.FAILED})
_BEFORE = frozenset({State.SCHEDULED, State.SUPPRESSED, State.ACTING, State.EXPIRED})
TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.REQUESTED: _BEFORE,
    State.SCHEDULED: _BEFORE,
    State.FAILED_RETRYABLE: _BEFORE,
    # back to where it was: the connection went away before the text was given
    State.ACTING: _OUTCOMES | DUE | {State.UNKNOWN},
    # the process that was taken for dead knows the outcome after all, or a report tells
    State.UNKNOWN: _OUTCOMES | DUE | _REPORTED,
    State.SENT: _REPORTED,
    State.DELIVERED: frozenset({State.BOUNCED, State.FAILED}),
    State.SUPPRESSED: frozenset(),
    State.FAILED: frozenset(),
    State.BOUNCED: frozenset(),
    State.EXPIRED: frozenset(),
}
ATTEMPTED: Mapping[State, bool] = {
    state: state in {State.ACTING, State.SENT, State.DELIVERED, State.BOUNCED, State.FAILED, State.UNKNOWN}
    for state in State
}
"""Whether the state means that the contact counts: false where nothing reached the person's mail server."""


class MessageNotSent(errors.ServiceError):
    """A delivery report about a message that never left."""

    status = errors.Status.FAILED_PRECONDITION


class ReportTooLate(errors.ServiceError):
    """A delivery report that does not fit the state, e.g. delivered after bounced."""

    status = errors.Status.FAILED_PRECONDITION


@dataclasses.dataclass(frozen=True, kw_only=True)
class NewMessage:
    """What asks for a message. Unique: (agency, case, step, template, date)."""

    case_id: uuid.UUID
    person_id: uuid.UUID | None
    """None: the case's holder at the act."""
    channel: Channel
    purpose: Purpose
    template: str
    step_id: uuid.UUID
    occasion: str
    date: datetime.date
    agreement_id: uuid.UUID | None = None
    instalment_number: int | None = None
    instalment_due_date: datetime.date | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Message:
    """A stored message, as far as the act needs it."""

    id: uuid.UUID
    case_id: uuid.UUID
    person_id: uuid.UUID | None
    channel: Channel
    purpose: Purpose
    template: str
    date: datetime.date
    state: State
    attempts: int
    """Transient refusals of the other side so far."""
    agreement_id: uuid.UUID | None
    instalment_number: int | None
    instalment_due_date: datetime.date | None
    failure: str = ""
    """Code of the last transient refusal."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grant:
    """Permission to contact, with what may be told to whom. Held in memory for the act only: it is personal
    data.
    """

    contact_point_id: uuid.UUID
    address: str = dataclasses.field(repr=False)
    person_id: uuid.UUID
    person_name: str = dataclasses.field(repr=False)
    language: str
    creditor_name: str = dataclasses.field(repr=False)
    creditor_address: str = dataclasses.field(repr=False)
    creditor_document: str = dataclasses.field(repr=False)
    contract_reference: str
    product: str
    guarantor: bool
    valid_until: datetime.datetime


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refusal:
    """The rule that refuses; `retry_at` None: never for this act."""

    rule: str
    retry_at: datetime.datetime | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Act:
    """Go on: these amounts, to this contact point."""

    grant: Grant
    balance: balances.CaseBalance
    instalment: balances.Subject | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suppress:
    """Do not send, ever, because of this rule."""

    rule: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Defer:
    """Ask again at this instant of the agency's clock."""

    until: datetime.datetime


@dataclasses.dataclass(frozen=True, kw_only=True)
class Renew:
    """The reservation ran out before the act began: ask again, under the same key; nothing is written."""


Decision = Act | Suppress | Defer | Renew


def expired(*, date: datetime.date, business_date: datetime.date, validity_days: int) -> bool:
    """True where a message of `date` is too old to be sent on `business_date`: more than `validity_days`
    after it.
    """
    return business_date > date + datetime.timedelta(days=validity_days)


def decide(
    *,
    message: Message,
    answer: Grant | Refusal,
    balance: balances.CaseBalance | None,
    suppressed: Collection[Reason],
    now: datetime.datetime,
) -> Decision:
    """What to do with a due message, given the answers asked right before (guard-rails R01..R27, R07, R08).

    `balance` None: `agreement` does not know the case (yet): no answer, no message; asked again later.
    `suppressed`: this service's own reasons against the contact point granted. `now` is the agency's.
    """
    if isinstance(answer, Refusal):
        return Suppress(rule=answer.rule) if answer.retry_at is None else Defer(until=answer.retry_at)
    for reason in Reason:
        if reason in suppressed:
            return Suppress(rule=reason.value)
    if balance is None:
        return Defer(until=now + UNKNOWN_BALANCE_WAIT)
    if balance.total.minor <= 0:
        return Suppress(rule=Rule.NOTHING_OWED)
    instalment = None
    if message.agreement_id is not None:
        instalment = balance.instalment(
            agreement_id=message.agreement_id, due_date=message.instalment_due_date
        )
        if instalment is None or instalment.total.minor <= 0:
            return Suppress(rule=Rule.NOTHING_OWED)
    if not (
        answer.creditor_name.strip() and answer.creditor_address.strip() and answer.creditor_document.strip()
    ):
        return Suppress(rule=Rule.CREDITOR_IDENTITY)
    if answer.valid_until < now:
        return Renew()
    return Act(grant=answer, balance=balance, instalment=instalment)


class Verdict(enum.StrEnum):
    """What the other side said in the act."""

    ACCEPTED = "ACCEPTED"
    TRANSIENT = "TRANSIENT"
    """4xx: it may be tried again later."""
    PERMANENT = "PERMANENT"
    """5xx that is not about the address."""
    NO_SUCH_ADDRESS = "NO_SUCH_ADDRESS"
    AWAY = "AWAY"
    """The other side went away before the text was given: nothing was sent."""
    UNKNOWN = "UNKNOWN"
    """The other side went away with the text in its hands."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settlement:
    """The state an act leads to."""

    state: State
    attempts: int
    failure: str
    due_at: datetime.datetime | None = None
    """Set for FAILED_RETRYABLE."""


def settle(
    *, message: Message, verdict: Verdict, code: str, now: datetime.datetime, attempts_max: int
) -> Settlement:
    """The state after the act. A transient refusal counts as an attempt; the `attempts_max`-th one is final
    (FAILED).

    AWAY gives back the state in which the message was claimed, uncounted, due at once. `code`: e.g. SMTP_450.
    """
    match verdict:
        case Verdict.ACCEPTED:
            return Settlement(state=State.SENT, attempts=message.attempts + 1, failure="")
        case Verdict.NO_SUCH_ADDRESS:
            return Settlement(state=State.BOUNCED, attempts=message.attempts + 1, failure=code)
        case Verdict.PERMANENT:
            return Settlement(state=State.FAILED, attempts=message.attempts + 1, failure=code)
        case Verdict.UNKNOWN:
            return Settlement(state=State.UNKNOWN, attempts=message.attempts + 1, failure=code)
        case Verdict.AWAY:
            return Settlement(state=message.state, attempts=message.attempts, failure=message.failure)
    attempts = message.attempts + 1
    if attempts >= attempts_max:
        return Settlement(state=State.FAILED, attempts=attempts, failure=code)
    return Settlement(
        state=State.FAILED_RETRYABLE, attempts=attempts, failure=code, due_at=now + backoff(attempts)
    )


def backoff(attempts: int) -> datetime.timedelta:
    """Wait after the `attempts`-th transient refusal (1 or more), on the agency's clock."""
    return BACKOFF[min(attempts, len(BACKOFF)) - 1]


def reported(current: State, outcome: State) -> bool:
    """Whether a delivery report changes the message: False where it says again what is known.

    Raises MessageNotSent, ReportTooLate.
    """
    if current is outcome:
        return False
    if current in DUE or current in {State.ACTING, State.SUPPRESSED, State.EXPIRED}:
        raise MessageNotSent("the message was not sent", state=current.value)
    if outcome not in TRANSITIONS[current]:
        raise ReportTooLate(
            "the report does not fit the message's state", state=current.value, reported=outcome.value
        )
    return True
