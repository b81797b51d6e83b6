"""What the case service tells: the clock, the business date, cases due a call, states of cases."""

import datetime
import itertools
from collections.abc import Sequence
from uuid import UUID

from dialer_service import domain, store
from servicekit import clock, db


def take_clock(tx: db.Transaction, *, changed: clock.AgencyClock, allow_simulated: bool) -> None:
    """Keep a copy of the agency's clock, if newer. Raises SimulatedClockRefused."""
    clock.store(tx, changed, allow_simulated=allow_simulated)


def open_day(tx: db.Transaction, agency: UUID, *, date: datetime.date) -> None:
    """The business date moves forward to `date`; a date that is over already changes nothing."""
    clock.open_day(tx, agency, date)


def take_case_news(
    tx: db.Transaction, agency: UUID, *, news: Sequence[domain.DueOn | domain.CaseChange]
) -> None:
    """What the case service says of cases, in its order.

    Cases due a call become candidates, unique by (case, date, step), and join the lists of the date's
    campaigns; the fact is newer than what is known of a case's state. Cases in agreement, on hold, resolved
    or returned leave all lists (R26, R27).
    """
    due = [item for part in news if isinstance(part, domain.DueOn) for item in part.due]
    changes = [part for part in news if isinstance(part, domain.CaseChange)]
    store.know_cases(tx, agency, due, also=[change.case_id for change in changes])
    for is_change, run in itertools.groupby(news, key=lambda part: isinstance(part, domain.CaseChange)):
        if is_change:
            _change_cases(tx, agency, [part for part in run if isinstance(part, domain.CaseChange)])
            continue
        for part in run:
            if isinstance(part, domain.DueOn):
                store.add_candidates(tx, agency, part.date, part.due)


def _change_cases(tx: db.Transaction, agency: UUID, changes: Sequence[domain.CaseChange]) -> None:
    """One after the other, as if each had come alone: a state that takes a case off the lists does so even where a
    later one in the same transaction would not.
    """
    versions = dict(store.known_versions(tx, agency, [change.case_id for change in changes]))
    newest: dict[UUID, domain.CaseChange] = {}
    rules: dict[UUID, str] = {}
    for change in changes:
        if change.version > versions.get(change.case_id, change.version):
            versions[change.case_id] = change.version
            newest[change.case_id] = change
            if rule := domain.case_rule(change.state):
                rules.setdefault(change.case_id, rule)
    if newest:
        store.change_cases(tx, agency, newest)
        store.close_cases(tx, agency, rules)
