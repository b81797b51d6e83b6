"""What the agent says of a call."""

import datetime
from uuid import UUID

from dialer_service import domain, store
from dialer_service.usecases import telling
from servicekit import db, money


def disposition_call(
    tx: db.Transaction,
    agency: UUID,
    *,
    call_id: UUID,
    disposition: domain.Disposition,
    promise_date: datetime.date | None,
    promise_amount: money.Money | None,
    max_promise_days: int,
    now: datetime.datetime,
    business_date: datetime.date,
) -> domain.Call:
    """The agent says how a connected call went, and is free again (S1-09, S4-14, S4-16).

    The person's other cases of the date leave the lists: the right person was spoken to (R05), or the number is wrong
    (R26).
    Raises ResourceNotFound, CallNotConnected, CallAlreadyDispositioned, InvalidRequest.
    """
    seen = store.call(tx, agency, call_id)
    others = store.other_cases(tx, agency, [seen], date=seen.date)
    store.lock_cases(tx, agency, [seen.case_id, *others])
    call = store.call(tx, agency, call_id, lock=True)
    changed = call.dispose(
        disposition,
        promise_date=promise_date,
        promise_amount=promise_amount,
        business_date=business_date,
        max_promise_days=max_promise_days,
        now=now,
    )
    store.save_calls(tx, agency, [(changed, call.version)])
    rule = domain.RULE_REACHED if disposition.right_party else domain.RULE_WRONG_NUMBER
    store.close_cases(tx, agency, dict.fromkeys(others, rule), date=call.date)
    store.free_from_calls(tx, agency, [call.id], now=now)
    telling.tell_call(tx, agency, changed, now=now, business_date=business_date)
    return changed
