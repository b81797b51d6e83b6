"""Agents: presence, and what they want after the call in hand."""

import dataclasses
import enum
from uuid import UUID

from servicekit import errors


class AgentState(enum.StrEnum):
    """Presence of an agent."""

    OFFLINE = "OFFLINE"
    FREE = "FREE"
    BUSY = "BUSY"
    WRAP_UP = "WRAP_UP"
    PAUSED = "PAUSED"


class AgentNotSignedIn(errors.ServiceError):
    """The agent is of no campaign: name one to be FREE in."""

    status = errors.Status.FAILED_PRECONDITION


class AgentHasCall(errors.ServiceError):
    """The agent has a call in hand of another campaign: finish it first."""

    status = errors.Status.FAILED_PRECONDITION


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agent:
    """Someone who talks. `next_state` is where the agent goes when the call in hand is done."""

    id: str
    state: AgentState
    campaign_id: UUID | None
    call_id: UUID | None
    next_state: AgentState

    def ask(self, state: AgentState, *, campaign_id: UUID | None) -> "Agent":
        """The agent after asking to be FREE, PAUSED or OFFLINE, of `campaign_id` (None: the one signed in
        to).

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
