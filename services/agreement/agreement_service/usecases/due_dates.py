"""Due dates of chosen titles changed; without permission it waits for approval (S2-32, W-12)."""

import datetime
import uuid
from collections.abc import Sequence

from agreement_service import providers
from agreement_service.domain import accounts, due_dates, limits
from agreement_service.store import accounts as account_store
from agreement_service.store import due_dates as store
from agreement_service.usecases import facts, moments, titles
from agreement_service.usecases import limits as limit_cases
from servicekit import db, errors

MAX_TITLES = 500


class CreditorsDiffer(errors.ServiceError):
    """The titles are of several creditors, who may allow different things: one command for each."""

    status = errors.Status.FAILED_PRECONDITION


def change(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    case_ids: Sequence[uuid.UUID],
    title_ids: Sequence[uuid.UUID],
    due_date: datetime.date,
    reason: str,
    authority: limits.Authority,
    changed_by: str,
    moment: moments.Moment,
) -> tuple[list[accounts.Title], str]:
    """Let titles of these cases be due on another day; the titles as they are now, and their currency.

    Payments from before give back only their cash if they are reversed later. Proposals over the titles have to be made
    again. Raises InvalidRequest, ResourceNotFound, CreditorsDiffer, TitleNotOpen, DueDateUnchanged, ApprovalNeeded.
    """
    today = moment.business_date
    wrong = []
    if not 1 <= len(title_ids) <= MAX_TITLES or len(set(title_ids)) != len(title_ids):
        wrong.append(errors.FieldViolation("titles", f"expected 1 to {MAX_TITLES} titles, each once"))
    if not 1 <= len(case_ids) <= titles.MAX_CASES or len(set(case_ids)) != len(case_ids):
        wrong.append(errors.FieldViolation("case_ids", f"expected 1 to {titles.MAX_CASES} cases, each once"))
    if abs(due_date.year - today.year) > due_dates.MAX_YEARS:
        low, high = today.year - due_dates.MAX_YEARS, today.year + due_dates.MAX_YEARS
        wrong.append(errors.FieldViolation("due_date", f"expected a day of {low} to {high}"))
    if wrong:
        raise errors.InvalidRequest(fields=wrong)
    known = account_store.cases(tx, agency, case_ids)
    if missing := sorted(set(case_ids) - set(known)):
        raise errors.ResourceNotFound("no such case", case=missing[0])
    if len({(case.creditor_id, case.currency) for case in known.values()}) > 1:
        raise CreditorsDiffer("expected cases of one creditor and one currency")
    account_store.lock(tx, agency, case_ids)
    found = {one.title_id: one for one in account_store.titles(tx, agency, case_ids, also=title_ids)}
    if missing := sorted(set(title_ids) - set(found)):
        raise errors.ResourceNotFound("no such title in these cases", title=missing[0])
    case = known[case_ids[0]]
    payable_until = providers.payable_until(due_date, case.currency)
    moved = [found[title_id] for title_id in sorted(title_ids)]
    changes = [due_dates.move(one, due_date=due_date, payable_until=payable_until) for one in moved]
    touched = sorted({one.case_id for one in moved})
    for days in sorted({min(one.days for one in changes), max(one.days for one in changes)}):
        limit_cases.check(
            tx=tx,
            agency=agency,
            authority=authority,
            creditor_id=case.creditor_id,
            kind=limits.Kind.DUE_DATE_CHANGE,
            value=days,
            date=today,
            case_ids=touched,
        )
    store.write(
        tx,
        agency,
        titles=moved,
        changes=changes,
        reason=reason,
        changed_by=changed_by,
        business_date=today,
        now=moment.now,
    )
    account_store.new_epoch(tx, agency, touched)
    facts.titles_changed(tx, moment, [facts.title_row(one) for one in moved])
    return moved, case.currency
