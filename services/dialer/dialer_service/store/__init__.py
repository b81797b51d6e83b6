"""All SQL of the dialer: the tables in `tables`, then one module for each thing that is stored.

The agency is the first argument after the transaction, and a condition of every statement; row-level security
is the second wall.
"""

from dialer_service.store.agents import (
    agents_page,
    agents_there,
    free_agents,
    free_from_calls,
    lock_agent,
    save_agent,
    wrap_up_agents,
)
from dialer_service.store.calls import (
    Settled,
    begin_calls,
    call,
    calls_by_id,
    calls_in,
    calls_on_line,
    calls_page,
    drop_calls,
    entry_attempts,
    lock_calls,
    overdue_calls,
    save_calls,
    settle_entries,
    unknown,
)
from dialer_service.store.campaigns import (
    add_campaign,
    campaign,
    campaigns_page,
    count_calls,
    counts,
    paused_campaigns,
    save_campaign,
    worked_campaigns,
)
from dialer_service.store.cases import change_cases, know_cases, known_versions, lock_cases
from dialer_service.store.lists import (
    add_candidates,
    candidates_done,
    close_cases,
    list_campaign,
    other_cases,
)
from dialer_service.store.overview import ready, summary
from dialer_service.store.tables import METADATA

__all__ = [
    "METADATA",
    "Settled",
    "add_campaign",
    "add_candidates",
    "agents_page",
    "agents_there",
    "begin_calls",
    "call",
    "calls_by_id",
    "calls_in",
    "calls_on_line",
    "calls_page",
    "campaign",
    "campaigns_page",
    "candidates_done",
    "change_cases",
    "close_cases",
    "count_calls",
    "counts",
    "drop_calls",
    "entry_attempts",
    "free_agents",
    "free_from_calls",
    "know_cases",
    "known_versions",
    "list_campaign",
    "lock_agent",
    "lock_calls",
    "lock_cases",
    "other_cases",
    "overdue_calls",
    "paused_campaigns",
    "ready",
    "save_agent",
    "save_calls",
    "save_campaign",
    "settle_entries",
    "summary",
    "unknown",
    "worked_campaigns",
    "wrap_up_agents",
]
