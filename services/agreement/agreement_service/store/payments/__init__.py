"""Payments: entered once, matched, loaded with what they did, written back; set-based."""

from agreement_service.store.payments.matching import (
    guard_unidentified,
    lock_unidentified,
    match,
)
from agreement_service.store.payments.reading import (
    allocations,
    by_identity,
    entries,
    find,
    get,
    later,
    page,
    sources,
)
from agreement_service.store.payments.rows import (
    EVERYTHING,
    Filter,
    Match,
    Payment,
    Source,
)
from agreement_service.store.payments.writing import (
    add_sources,
    confirm,
    confirm_as,
    insert,
    plan_anew,
    write,
)

__all__ = [
    "EVERYTHING",
    "Filter",
    "Match",
    "Payment",
    "Source",
    "add_sources",
    "allocations",
    "by_identity",
    "confirm",
    "confirm_as",
    "entries",
    "find",
    "get",
    "guard_unidentified",
    "insert",
    "later",
    "lock_unidentified",
    "match",
    "page",
    "plan_anew",
    "sources",
    "write",
]
