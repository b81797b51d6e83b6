"""The daily run of one partition on DayOpened (S1-28): earned plan interest, notices, due, missed, broken, expired."""

import datetime
import uuid
from collections.abc import Mapping

from agreement_service import providers
from agreement_service.domain import accounts
from agreement_service.store import accounts as account_store
from agreement_service.store import daily as store
from agreement_service.store import instruments as instrument_store
from agreement_service.store import promises as promise_store
from agreement_service.usecases import books, counts, facts, instruments, life, moments, promises
from servicekit import db

BREAKING = 500
"""Agreements that are broken at once: what is held in memory."""


def run(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    date: datetime.date,
    partition: int,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """Do for `date` what time alone changes, for agreements with a case in `partition`; then say that the day is done.

    An agreement over cases of several partitions is done by the first of them. Doing it again changes nothing.
    """
    expired, going, over, own = store.touched(tx, agency, partition=partition, date=date)
    waiting = promise_store.due_cases(tx, agency, partition=partition, date=date)
    ending = instrument_store.expiring(tx, agency, partition=partition, date=date)
    # a lock takes the cases that an agreement in force binds; a proposal binds none, nor what is over
    loose = store.cases(tx, agency, expired | over) if expired or over else set()
    touched = {*own, *loose, *waiting, *ending}
    # all at once: partitions that share an agreement's cases would wait for each other otherwise
    locked = account_store.lock(tx, agency, touched) if touched else {}
    if expired:
        _expire(tx, agency, store.expire(tx, agency, expired, date=date), moment=moment)
    if going:
        _move(tx, agency, going, locked, date=date, moment=moment, bank=bank)
    if over:
        store.looked_at(tx, agency, over, date=date)
    if waiting:
        promises.judge(tx, agency, waiting, moment=moment)
    instruments.expire(tx, agency, ending, date=date, moment=moment)
    facts.day_done(tx, moment, date=date, partition=partition)


def _expire(tx: db.Transaction, agency: uuid.UUID, ids: set[uuid.UUID], *, moment: moments.Moment) -> None:
    rows = account_store.instalments(tx, agency, ids)
    for key, agreement in sorted(account_store.agreements(tx, agency, ids).items()):
        counts.agreements(tx, [agreement.state])
        books.publish_agreement(
            tx,
            moment,
            agreement=agreement,
            instalments=rows[key],
            total_minor=sum(one.amount_minor for one in rows[key]),
        )


def _move(
    tx: db.Transaction,
    agency: uuid.UUID,
    going: set[uuid.UUID],
    locked: Mapping[uuid.UUID, account_store.CaseAccount],
    *,
    date: datetime.date,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    moved = store.move(tx, agency, going, date=date)
    facts.instalments_moved(tx, moment, moved)
    broken = {row.agreement_id for row in moved if row.state == accounts.InstalmentState.DEFAULTED}
    if staying := going - broken:
        store.looked_at(tx, agency, staying, date=date)
    groups: dict[uuid.UUID, list[account_store.CaseAccount]] = {}
    for case in locked.values():
        if case.agreement_id in broken:
            groups.setdefault(case.agreement_id, []).append(case)
    ordered = sorted(groups)
    for first in range(0, len(ordered), BREAKING):
        part = [case for key in ordered[first : first + BREAKING] for case in groups[key]]
        life.breach(
            tx=tx,
            agency=agency,
            locked={case.case_id: case for case in part},
            date=date,
            moment=moment,
            bank=bank,
        )
