"""Payments: reported, entered exactly once, confirmed, matched, allocated, taken back."""

from agreement_service.usecases.payments.entering import (
    Entered,
    confirm,
    enter,
    proof_of,
    record,
    report_proof,
)
from agreement_service.usecases.payments.matching import (
    Target,
    apply,
    check_case,
    match_by_hand,
    match_waiting,
)
from agreement_service.usecases.payments.reports import Chosen, Report
from agreement_service.usecases.payments.reversals import annul, reverse, unmatch, write_spent

__all__ = [
    "Chosen",
    "Entered",
    "Report",
    "Target",
    "annul",
    "apply",
    "check_case",
    "confirm",
    "enter",
    "match_by_hand",
    "match_waiting",
    "proof_of",
    "record",
    "report_proof",
    "reverse",
    "unmatch",
    "write_spent",
]
