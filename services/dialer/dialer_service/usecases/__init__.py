"""What the dialer does, one function a thing. Each takes a transaction and never commits."""

from dialer_service.usecases.campaigns import (
    create_campaign,
    move_campaign,
    pause_for,
    set_agent_state,
    start_campaign,
)
from dialer_service.usecases.dispositions import (
    disposition_call,
)
from dialer_service.usecases.loop import (
    advance,
    dialling_calls,
    permit,
    worked_campaigns,
)
from dialer_service.usecases.news import (
    open_day,
    take_case_news,
    take_clock,
)
from dialer_service.usecases.reading import (
    count,
    get_call,
    get_campaign,
    list_agents,
    list_calls,
    list_campaigns,
    summarize,
)
from dialer_service.usecases.telling import (
    republish,
)

__all__ = [
    "advance",
    "count",
    "create_campaign",
    "dialling_calls",
    "disposition_call",
    "get_call",
    "get_campaign",
    "list_agents",
    "list_calls",
    "list_campaigns",
    "move_campaign",
    "open_day",
    "pause_for",
    "permit",
    "republish",
    "set_agent_state",
    "start_campaign",
    "summarize",
    "take_case_news",
    "take_clock",
    "worked_campaigns",
]
