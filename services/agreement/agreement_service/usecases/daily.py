"""The daily run of one partition on DayOpened (S1-28): earned plan interest, notices, due, missed, broken, expired."""

import datetime
import uuid

from agreement_service import providers
from agreement_service.domain import accounts
from agreement_service.store import accounts as account_store
from agreement_service.store import daily as store
from agreement_service.usecases import books, facts, life, moments
from servicekit import db


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
    known = account_store.agreements(tx, agency, expiring | moving) if expiring or moving else {}
    if known:
        account_store.lock(tx, agency, {case_id for one in known.values() for case_id in one.case_ids})
        _expire(tx, agency, store.expire(tx, agency, expiring, date=date), moment=moment)
        _move(tx, agency, moving, date=date, moment=moment, bank=bank)
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
    going = {
        key
        for key, one in (account_store.agreements(tx, agency, ids).items() if ids else ())
        if one.state in accounts.IN_FORCE
    }
    if not going:
        return
    store.earn(tx, agency, going, date=date)
    changed = store.move(tx, agency, going, date=date)
    broken = store.defaulted(tx, agency, going)
    known = account_store.agreements(tx, agency, going)
    rows = account_store.instalments(tx, agency, going)
    facts.instalments_changed(
        tx,
        moment,
        [one for key in going - broken for one in rows[key] if one.instalment_id in changed],
        {key: one.case_ids for key, one in known.items()},
    )
    if broken:
        life.end(
            tx=tx,
            agency=agency,
            ending={
                key: accounts.AgreementState.EXPIRED
                if known[key].state is accounts.AgreementState.AWAITING_DOWN_PAYMENT
                else accounts.AgreementState.BROKEN
                for key in broken
            },
            case_ids=[case_id for key in broken for case_id in known[key].case_ids],
            date=date,
            moment=moment,
            bank=bank,
        )
