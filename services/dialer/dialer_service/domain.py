"""Rules of calls, campaigns and agents (state-machines.md "Dialer campaign" and "Call", guard-rails R05, R25, R26).

Pure: no clock, no I/O. `now` is the agency's instant (aware), `business_date` the agency's business date.
"""

import dataclasses
import datetime
import enum
from collections.abc import Mapping, Sequence
from uuid import UUID

from servicekit import errors, money

MAX_ATTEMPTS = 10
"""Tries of a case that one campaign may ask for; R05 allows less a day whatever the campaign says."""
DEFAULT_ATTEMPTS = 3
DEFAULT_RETRY = datetime.timedelta(hours=1)
MAX_RETRY = datetime.timedelta(days=7)
MAX_DISPLAY_NAME = 200
ABANDON_CAP_PERCENT = 3
"""R25: abandoned calls are at most 3 % of the live answers of a campaign."""
ABANDON_CAP_FROM = 50
"""The cap acts once a campaign has more live answers than this; below, one call is already more than 3 %
(beyond-the-manuals.md, VICIdial: after > 50 calls)."""


class CampaignState(enum.StrEnum):
    """State machine "Dialer campaign"."""

    DRAFT = "DRAFT"
    READY = "READY"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    DRAINING = "DRAINING"
    COMPLETED = "COMPLETED"
    ABORTED = "ABORTED"


class Pacing(enum.StrEnum):
    """How many calls are begun. Progressive: one for each free agent, so none is ever abandoned for want of one."""

    PROGRESSIVE = "PROGRESSIVE"


class AgentState(enum.StrEnum):
    """Presence of an agent."""

    OFFLINE = "OFFLINE"
    FREE = "FREE"
    BUSY = "BUSY"
    WRAP_UP = "WRAP_UP"
    PAUSED = "PAUSED"


class CallState(enum.StrEnum):
    """State machine "Call", without the steps that only a real line shows (RINGING, WAITING_AGENT, VOICEMAIL)."""

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


class EntryState(enum.StrEnum):
    """A case on a campaign's list: OPEN (due at `not_before`), CALLING, DONE (spoken to), EXHAUSTED (no tries left), CLOSED (rule)."""

    OPEN = "OPEN"
    CALLING = "CALLING"
    DONE = "DONE"
    EXHAUSTED = "EXHAUSTED"
    CLOSED = "CLOSED"


class CandidateState(enum.StrEnum):
    """A case due a call on a date: OPEN, DONE (spoken to), CLOSED (rule)."""

    OPEN = "OPEN"
    DONE = "DONE"
    CLOSED = "CLOSED"


class Outcome(enum.StrEnum):
    """What the exchange says of a call. UNKNOWN: it cannot tell, the call is never repeated by itself."""

    ANSWER = "ANSWER"
    NO_ANSWER = "NO_ANSWER"
    BUSY = "BUSY"
    INVALID = "INVALID"
    MACHINE = "MACHINE"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"


class CampaignStateInvalid(errors.ServiceError):
    """The campaign cannot go from its state to the one asked for."""

    status = errors.Status.FAILED_PRECONDITION


class CampaignDateInFuture(errors.ServiceError):
    """The campaign's date is after the business date: nothing is due yet."""

    status = errors.Status.FAILED_PRECONDITION


class CampaignNotStaffable(errors.ServiceError):
    """Agents cannot sign in to a campaign that is over or draining."""

    status = errors.Status.FAILED_PRECONDITION


class AgentNotSignedIn(errors.ServiceError):
    """The agent is of no campaign: name one to be FREE in."""

    status = errors.Status.FAILED_PRECONDITION


class AgentHasCall(errors.ServiceError):
    """The agent has a call in hand of another campaign: finish it first."""

    status = errors.Status.FAILED_PRECONDITION


class CallStateInvalid(errors.ServiceError):
    """The call cannot go from its state to another: a mistake in the program, never of the caller."""


class CallNotConnected(errors.ServiceError):
    """Only a call in which somebody was reached can be given a disposition."""

    status = errors.Status.FAILED_PRECONDITION


class CallAlreadyDispositioned(errors.ServiceError):
    """The call has its disposition."""

    status = errors.Status.FAILED_PRECONDITION


CAMPAIGN_MOVES: Mapping[CampaignState, frozenset[CampaignState]] = {
    CampaignState.DRAFT: frozenset({CampaignState.READY, CampaignState.ABORTED}),
    CampaignState.READY: frozenset({CampaignState.RUNNING, CampaignState.ABORTED}),
    CampaignState.RUNNING: frozenset({CampaignState.PAUSED, CampaignState.DRAINING, CampaignState.ABORTED}),
    CampaignState.PAUSED: frozenset({CampaignState.RUNNING, CampaignState.DRAINING, CampaignState.ABORTED}),
    CampaignState.DRAINING: frozenset({CampaignState.COMPLETED, CampaignState.ABORTED}),
    CampaignState.COMPLETED: frozenset(),
    CampaignState.ABORTED: frozenset(),
}
CAMPAIGN_OVER = frozenset({CampaignState.COMPLETED, CampaignState.ABORTED})

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
"""DIALING -> QUEUED: the exchange never heard of the call, so permission is asked again before it is dialled."""
CALL_LIVE = frozenset({CallState.QUEUED, CallState.DIALING, CallState.CONNECTED, CallState.WRAP_UP})
"""Somebody still has to do something with the call."""
CALL_ON_LINE = frozenset({CallState.QUEUED, CallState.DIALING, CallState.CONNECTED})
"""The call holds its agent; a campaign drains until none is left."""

_ENDS: Mapping[Outcome, CallState] = {
    Outcome.NO_ANSWER: CallState.NO_ANSWER,
    Outcome.BUSY: CallState.BUSY,
    Outcome.INVALID: CallState.INVALID_NUMBER,
    Outcome.MACHINE: CallState.MACHINE,
    Outcome.FAILED: CallState.FAILED,
    Outcome.UNKNOWN: CallState.UNKNOWN,
}

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
RULE_ABANDONED = "R25"
"""No further call after an abandoned one (72 hours in the UK; here: that date)."""
RULE_UNKNOWN = "UNKNOWN"
"""The exchange cannot tell what became of the call: it is never repeated by itself (architecture.md §7)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Campaign:
    """A run of calls over the cases due a call on `date` (of the ladder step's `script`; empty: of any)."""

    id: UUID
    display_name: str
    state: CampaignState
    pacing: Pacing
    date: datetime.date
    script: str
    max_attempts: int
    retry_after: datetime.timedelta
    simulation_seed: int
    pause_reason: str
    calls_made: int
    live_answers: int
    abandoned_calls: int
    create_time: datetime.datetime
    version: int

    def move(self, target: CampaignState, *, reason: str = "") -> "Campaign":
        """The campaign in its next state; `reason` is why it pauses. Raises CampaignStateInvalid."""
        if target not in CAMPAIGN_MOVES[self.state]:
            raise CampaignStateInvalid(
                f"a campaign in {self.state} cannot become {target}", state=self.state, wanted=target
            )
        return dataclasses.replace(
            self,
            state=target,
            pause_reason=reason if target is CampaignState.PAUSED else "",
            version=self.version + 1,
        )

    def start(self, *, business_date: datetime.date) -> "Campaign":
        """DRAFT (validated: READY) or PAUSED to RUNNING. Raises CampaignDateInFuture, CampaignStateInvalid."""
        if self.date > business_date:
            raise CampaignDateInFuture(
                "nothing is due on the campaign's date yet", date=self.date, business_date=business_date
            )
        ready = self.move(CampaignState.READY) if self.state is CampaignState.DRAFT else self
        return ready.move(CampaignState.RUNNING)


def new_campaign(
    *,
    id: UUID,
    display_name: str,
    date: datetime.date,
    script: str,
    max_attempts: int,
    retry_after_seconds: int,
    simulation_seed: int,
    now: datetime.datetime,
) -> Campaign:
    """A campaign in DRAFT; 0 tries or seconds take the default. Raises InvalidRequest naming every wrong field."""
    wrong: list[errors.FieldViolation] = []
    if not display_name.strip() or len(display_name) > MAX_DISPLAY_NAME:
        wrong.append(
            errors.FieldViolation("campaign.display_name", f"expected 1 to {MAX_DISPLAY_NAME} characters")
        )
    if not 0 <= max_attempts <= MAX_ATTEMPTS:
        wrong.append(
            errors.FieldViolation("campaign.max_attempts", f"expected 0 (default) to {MAX_ATTEMPTS}")
        )
    longest = int(MAX_RETRY.total_seconds())
    if not 0 <= retry_after_seconds <= longest:
        wrong.append(
            errors.FieldViolation("campaign.retry_after_seconds", f"expected 0 (default) to {longest}")
        )
    if wrong:
        raise errors.InvalidRequest(fields=wrong)
    return Campaign(
        id=id,
        display_name=display_name.strip(),
        state=CampaignState.DRAFT,
        pacing=Pacing.PROGRESSIVE,
        date=date,
        script=script,
        max_attempts=max_attempts or DEFAULT_ATTEMPTS,
        retry_after=datetime.timedelta(seconds=retry_after_seconds) if retry_after_seconds else DEFAULT_RETRY,
        simulation_seed=simulation_seed,
        pause_reason="",
        calls_made=0,
        live_answers=0,
        abandoned_calls=0,
        create_time=now,
        version=1,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agent:
    """Someone who talks. `next_state` is where the agent goes when the call in hand is done."""

    id: str
    state: AgentState
    campaign_id: UUID | None
    call_id: UUID | None
    next_state: AgentState

    def ask(self, state: AgentState, *, campaign_id: UUID | None) -> "Agent":
        """The agent after asking to be FREE, PAUSED or OFFLINE, of `campaign_id` (None: the one signed in to).

        With a call on the line the wish waits for its end; from WRAP_UP it leaves the call undispositioned.
        Raises AgentHasCall, AgentNotSignedIn.
        """
        campaign = campaign_id or self.campaign_id
        if self.state is AgentState.BUSY:
            if campaign_id is not None and campaign_id != self.campaign_id:
                raise AgentHasCall("the agent has a call in hand of another campaign", agent=self.id)
            return dataclasses.replace(self, next_state=state)
        if state is AgentState.OFFLINE:
            campaign = None
        elif campaign is None:
            raise AgentNotSignedIn("name the campaign to sign in to", agent=self.id)
        return dataclasses.replace(
            self, state=state, campaign_id=campaign, call_id=None, next_state=AgentState.FREE
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """A call to the person of a case. Its natural key is (case, date, attempt). The number dialled is nowhere in it."""

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
        """The call after the exchange told its outcome: answered with the agent there is CONNECTED, without is ABANDONED."""
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
        """The call with the agent's disposition. Raises CallNotConnected, CallAlreadyDispositioned, InvalidRequest.

        PROMISE_TO_PAY takes a date from the business date to `max_promise_days` later and an amount above zero in the
        case's currency; any other disposition takes neither.
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Due:
    """What a fact says is due: the case's call on `date`, of a ladder step. `open_principal_minor` orders the list."""

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
    """Permission to contact, for one call, now. `number` is E.164; it is used and forgotten: never stored, never logged."""

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """What a campaign's list and calls come to at an instant."""

    list_size: int = 0
    cases_left: int = 0
    cases_due: int = 0
    calls_live: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """Counts of calls and of what is left to do."""

    by_state: Mapping[str, int]
    by_disposition: Mapping[str, int]
    candidates: int
    cases_due: int
    calls_live: int
    outbox: int
    parked: int


def case_rule(case_state: str) -> str:
    """The rule that takes a case in this state off the list; empty where it may be called.

    A case in agreement, on hold, resolved, returned or time-barred is not called (R26, R27).
    """
    return f"CASE_{case_state}" if case_state in _CASE_NOT_CALLED else ""


def outside_key(*, call_id: UUID, seed: int, natural_key: int, date: datetime.date, attempt: int) -> str:
    """The call's key at the exchange: unique by the call's id; the rest is what a simulated exchange draws from."""
    return f"{call_id.hex}.{seed}.{natural_key:016x}.{date:%Y%m%d}.{attempt}"


def entry_after(
    state: CallState, *, attempts: int, max_attempts: int, case_state: str
) -> tuple[EntryState, str]:
    """(state, rule) of a list entry after a call that reached nobody, or was answered: whether the case is tried again."""
    match state:
        case CallState.CONNECTED:
            return EntryState.DONE, ""
        case CallState.ABANDONED:
            return EntryState.CLOSED, RULE_ABANDONED
        case CallState.UNKNOWN:
            return EntryState.CLOSED, RULE_UNKNOWN
    if rule := case_rule(case_state):
        return EntryState.CLOSED, rule
    if attempts >= max_attempts:
        return EntryState.EXHAUSTED, ""
    return EntryState.OPEN, ""


def calls_to_begin(*, free_agents: int, pacing: Pacing) -> int:
    """How many calls a tick begins. Progressive: one for each free agent, never more (R25: none is abandoned)."""
    match pacing:
        case Pacing.PROGRESSIVE:
            return free_agents


def abandon_cap_exceeded(*, abandoned: int, live_answers: int) -> bool:
    """R25: more than 3 % of the live answers abandoned, once there are more than 50 of them. The campaign pauses."""
    return live_answers > ABANDON_CAP_FROM and abandoned * 100 > live_answers * ABANDON_CAP_PERCENT
