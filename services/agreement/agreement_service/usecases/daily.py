"""The daily run of one partition on DayOpened (S1-28): earned plan interest, notices, due, missed, broken, expired."""

import datetime
import uuid

from agreement_service import providers
from agreement_service.domain import accounts
from agreement_service.store import accounts as account_store
from agreement_service.store import daily as store
from agreement_service.store import instruments as instrument_store
from agreement_service.store import promises as promise_store
from agreement_service.usecases import books, facts, instruments, life, moments, promises
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
    expiring = store.expired(tx, agency, partition=partition, date=date)
    moving = store.moving(tx, agency, partition=partition, date=date)
    waiting = promise_store.due_cases(tx, agency, partition=partition, date=date)
    ending = instrument_store.expiring(tx, agency, partition=partition, date=date)
    touched = store.cases(tx, agency, expiring | moving) if expiring or moving else set()
    if touched := {*touched, *waiting, *ending}:
        # all at once: partitions that share an agreement's cases would wait for each other otherwise
        account_store.lock(tx, agency, touched)
    if expiring or moving:
        _expire(tx, agency, store.expire(tx, agency, expiring, date=date), moment=moment)
        _move(tx, agency, moving, date=date, moment=moment, bank=bank)
    if waiting:
        promises.judge(tx, agency, waiting, moment=moment)
    instruments.expire(tx, agency, ending, date=date, moment=moment)
    facts.day_done(tx, moment, date=date, partition=partition)


def _expire(tx: db.Transaction, agency: uuid.UUID, ids: set[uuid.UUID], *, moment: moments.Moment) -> None:
    if not ids:
        return
    rows = account_store.instalments(tx, agency, ids)
    for key, agreement in sorted(account_store.agreements(tx, agency, ids).items()):
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
    ids: set[uuid.UUID],
    *,
    date: datetime.date,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    # under the locks: another partition may have ended some of them meanwhile
    going = store.in_force(tx, agency, ids) if ids else set()
    if not going:
        return
    store.earn(tx, agency, going, date=date)
    moved = store.move(tx, agency, going, date=date)
    broken = store.defaulted(tx, agency, going)
    facts.instalments_moved(tx, moment, [row for row in moved if row.agreement_id not in broken])
    ordered = sorted(broken)
    for first in range(0, len(ordered), BREAKING):
        known = account_store.agreements(tx, agency, ordered[first : first + BREAKING])
        life.end(
            tx=tx,
            agency=agency,
            ending={
                key: accounts.AgreementState.EXPIRED
                if one.state is accounts.AgreementState.AWAITING_DOWN_PAYMENT
                else accounts.AgreementState.BROKEN
                for key, one in known.items()
            },
            case_ids=[case_id for one in known.values() for case_id in one.case_ids],
            date=date,
            moment=moment,
            bank=bank,
        )
