"""Campaigns: state machine, pacing, the cap on abandoned calls (state-machines.md, R25)."""

import dataclasses
import datetime
import enum
from collections.abc import Mapping
from uuid import UUID

from servicekit import errors

MAX_ATTEMPTS = 10
"""Tries of a case that one campaign may ask for; R05 allows less a day whatever the campaign says."""


DEFAULT_ATTEMPTS = 3


DEFAULT_RETRY = datetime.timedelta(hours=1)


MAX_RETRY = datetime.timedelta(days=7)


MAX_DISPLAY_NAME = 200


MAX_SHIFT_MINUTES = 24 * 60


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


class PauseReason(enum.StrEnum):
    """Why a campaign is PAUSED."""

    OPERATOR = "OPERATOR"
    ABANDON_CAP = "ABANDON_CAP"
    """By itself: more abandoned calls than R25 allows."""
    EXCHANGE_UNAVAILABLE = "EXCHANGE_UNAVAILABLE"
    """By itself: the exchange takes no calls."""


PAUSED_ITSELF = (PauseReason.ABANDON_CAP, PauseReason.EXCHANGE_UNAVAILABLE)


class Pacing(enum.StrEnum):
    """How many calls are begun. Progressive: one for each free agent, so none is ever abandoned for want
    of one.
    """

    PROGRESSIVE = "PROGRESSIVE"


class CampaignStateInvalid(errors.ServiceError):
    """The campaign cannot go from its state to the one asked for."""

    status = errors.Status.FAILED_PRECONDITION


class CampaignDateInFuture(errors.ServiceError):
    """The campaign's date is after the business date: nothing is due yet."""

    status = errors.Status.FAILED_PRECONDITION


class CampaignNotStaffable(errors.ServiceError):
    """Agents cannot sign in to a campaign that is over or draining."""

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
    shift_minutes: int
    minutes_per_call: int
    simulation_seed: int
    pause_reason: str
    calls_made: int
    live_answers: int
    abandoned_calls: int
    create_time: datetime.datetime
    version: int

    @property
    def list_limit(self) -> int | None:
        """How many cases the list takes; None: all."""
        if not self.minutes_per_call:
            return None
        return list_size(shift_minutes=self.shift_minutes, minutes_per_call=self.minutes_per_call)

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
        """DRAFT (validated: READY) or PAUSED to RUNNING. Raises CampaignDateInFuture,
        CampaignStateInvalid.
        """
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
    shift_minutes: int,
    minutes_per_call: int,
    simulation_seed: int,
    now: datetime.datetime,
) -> Campaign:
    """A campaign in DRAFT; 0 tries or seconds take the default. Raises InvalidRequest naming every wrong
    field.
    """
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
    for field, minutes in (("shift_minutes", shift_minutes), ("minutes_per_call", minutes_per_call)):
        if not 0 <= minutes <= MAX_SHIFT_MINUTES or (minutes == 0) != (
            shift_minutes == minutes_per_call == 0
        ):
            wrong.append(
                errors.FieldViolation(
                    f"campaign.{field}", f"expected 1 to {MAX_SHIFT_MINUTES}, both of shift and call or none"
                )
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
        shift_minutes=shift_minutes,
        minutes_per_call=minutes_per_call,
        simulation_seed=simulation_seed,
        pause_reason="",
        calls_made=0,
        live_answers=0,
        abandoned_calls=0,
        create_time=now,
        version=1,
    )


def list_size(*, shift_minutes: int, minutes_per_call: int) -> int:
    """Cases on a call list: shift minutes ÷ minutes a call, whole calls only (S4-06, W-14)."""
    return shift_minutes // minutes_per_call


def calls_to_begin(*, free_agents: int, pacing: Pacing) -> int:
    """How many calls a tick begins. Progressive: one for each free agent, never more (R25: none is
    abandoned).
    """
    match pacing:
        case Pacing.PROGRESSIVE:
            return free_agents


def abandon_cap_exceeded(*, abandoned: int, live_answers: int) -> bool:
    """R25: more than 3 % of the live answers abandoned, once there are more than 50 of them. The campaign
    pauses.
    """
    return live_answers > ABANDON_CAP_FROM and abandoned * 100 > live_answers * ABANDON_CAP_PERCENT


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
