"""What one instrument is to pay on a date: an instalment of an agreement in force, or titles outside one."""

import datetime
import uuid
from collections.abc import Sequence

from agreement_service import providers
from agreement_service.domain import accounts, balances, instruments, proposals
from agreement_service.store import accounts as account_store
from agreement_service.store import instruments as store
from agreement_service.usecases import moments
from servicekit import db, errors


def of_instalment(
    tx: db.Transaction,
    agency: uuid.UUID,
    instalment_id: uuid.UUID,
    *,
    date: datetime.date | None,
    moment: moments.Moment,
) -> instruments.Debt:
    """What is owed on an instalment on a date, its account locked."""
    for agreement_id in account_store.agreements_of_instalments(tx, agency, [instalment_id]):
        agreement = account_store.agreements(tx, agency, [agreement_id])[agreement_id]
        account_store.lock(tx, agency, agreement.case_ids)
        agreement = account_store.agreements(tx, agency, [agreement_id])[agreement_id]
        rows = account_store.instalments(tx, agency, [agreement_id])[agreement_id]
        instalment = next(one for one in rows if one.instalment_id == instalment_id)
        if agreement.state not in accounts.IN_FORCE or not instalment.open_minor:
            raise instruments.InstalmentNotOpen(
                "nothing is to be paid on it",
                agreement_state=agreement.state.value,
                instalment_state=instalment.state.value,
            )
        own = max(instalment.due_date, moment.business_date)
        due_date = (
            _due_date(date or own, agreement.currency, moment) if date or own > instalment.due_date else own
        )
        owner = store.owners(tx, agency, [agreement_id])[agreement_id]
        return instruments.Debt(
            case_id=owner.case_id,
            creditor_id=owner.creditor_id,
            currency=agreement.currency,
            instalment_id=instalment_id,
            amount_minor=balances.explain_instalment(instalment, due_date).total_minor,
            due_date=due_date,
        )
    raise errors.ResourceNotFound("no such instalment", instalment=instalment_id)


def of_titles(
    tx: db.Transaction,
    agency: uuid.UUID,
    case_id: uuid.UUID,
    title_ids: Sequence[uuid.UUID],
    *,
    date: datetime.date | None,
    moment: moments.Moment,
) -> instruments.Debt:
    """What is owed on titles of a case on a date, its account locked."""
    case = account_store.lock(tx, agency, [case_id]).get(case_id)
    if case is None:
        raise errors.ResourceNotFound("no such case", case=case_id)
    due_date = _due_date(date or moment.business_date, case.currency, moment)
    there = {one.title_id: one for one in account_store.titles(tx, agency, [case_id], also=title_ids)}
    parts = []
    for title_id in sorted(title_ids):
        title = there.get(title_id)
        owed = balances.explain_title(title, due_date).total_minor if title is not None else 0
        if (
            title is None
            or title.agreement_id is not None
            or title.title_type == proposals.FORECAST
            or not title.open_minor
            or owed <= 0
        ):
            raise instruments.TitleNotCollectable(
                "expected open titles of the case, outside an agreement, that are no forecast",
                title=title_id,
                state=title.state.value if title is not None else "UNKNOWN",
            )
        parts.append((title_id, owed))
    return instruments.Debt(
        case_id=case_id,
        creditor_id=case.creditor_id,
        currency=case.currency,
        titles=tuple(parts),
        amount_minor=sum(owed for _, owed in parts),
        due_date=due_date,
    )


def _due_date(date: datetime.date, currency: str, moment: moments.Moment) -> datetime.date:
    """The business day on or after a date within the range. Raises InvalidRequest."""
    instruments.check_date(date, today=moment.business_date)
    return providers.payable_until(date, currency)
