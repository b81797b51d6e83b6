"""Agreements: simulated and proposed (features S1-19, S1-31..33; W-01, W-02, W-09); see life.py for the rest."""

import dataclasses
import datetime
import uuid
from collections.abc import Sequence

from agreement_service import providers
from agreement_service.domain import accounts, balances, plans
from agreement_service.store import accounts as account_store
from agreement_service.store import agreements as store
from agreement_service.usecases import books, moments, titles
from servicekit import db, errors, ids

VALIDITY_DAYS = 5
BROKEN_DAYS = 10
MISSED_DAYS = 1
NOTICE_DAYS = 3
MAX_VALIDITY_DAYS = 365
MAX_BROKEN_DAYS = 365


class NothingToAgreeOn(errors.ServiceError):
    """The cases have no open title outside an agreement."""

    status = errors.Status.FAILED_PRECONDITION


class CasesDoNotBelongTogether(errors.ServiceError):
    """An agreement is over cases of one debtor, one creditor and one currency."""

    status = errors.Status.FAILED_PRECONDITION


class TitlesInAgreement(errors.ServiceError):
    """A case of the agreement is in another agreement in force: one case, one agreement."""

    status = errors.Status.FAILED_PRECONDITION


class CurrencyNotOfTheCases(errors.ServiceError):
    """The terms are in another currency than the cases."""

    status = errors.Status.INVALID_ARGUMENT


@dataclasses.dataclass(frozen=True, kw_only=True)
class Simulation:
    """A plan over the open titles of some cases; minor units of `currency`."""

    currency: str
    debt_minor: int
    subjects: list[balances.Explained]
    titles: list[accounts.Title]
    rows: list[plans.Row]

    @property
    def total_minor(self) -> int:
        """Sum of the rows."""
        return sum(row.amount_minor for row in self.rows)

    @property
    def plan_interest_minor(self) -> int:
        """Interest of the plan."""
        return sum(row.interest_minor for row in self.rows)


def simulate(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    case_ids: Sequence[uuid.UUID],
    terms: plans.Terms,
    currencies: frozenset[str],
    date: datetime.date,
    today: datetime.date,
) -> Simulation:
    """The plan that `terms` give over the debt counted to `date`; `currencies` are those named in the terms.

    Raises InvalidRequest, ResourceNotFound, CasesDoNotBelongTogether, NothingToAgreeOn, DiscountAboveCharges,
    DownPaymentTooLarge, InstalmentTooSmall, CurrencyNotOfTheCases.
    """
    cases = _together(tx, agency, case_ids)
    currency = next(iter(cases.values())).currency
    if currencies - {currency}:
        raise CurrencyNotOfTheCases("the cases are in another currency", currency=currency)
    terms.check(today=today)
    owned = [
        one for one in account_store.titles(tx, agency, cases) if one.agreement_id is None and one.open_minor
    ]
    if not owned:
        raise NothingToAgreeOn("no open title is outside an agreement")
    owned.sort(key=lambda one: (one.due_date, one.reference))
    charges = sum(_penalty(one, date) + _interest(one, date) for one in owned)
    plans.check_discount(discount_minor=terms.discount_minor, charges_minor=charges)
    debt = charges + sum(one.open_principal_minor for one in owned)
    return Simulation(
        currency=currency,
        debt_minor=debt,
        subjects=[balances.explain_title(one, date) for one in owned],
        titles=owned,
        rows=plans.schedule(debt_minor=debt, terms=terms),
    )


def propose(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    case_ids: Sequence[uuid.UUID],
    terms: plans.Terms,
    currencies: frozenset[str],
    validity_days: int,
    broken_days: int,
    moment: moments.Moment,
) -> uuid.UUID:
    """Store a proposal over all open titles of the cases, its debt counted to its last day (W-09); its id.

    `validity_days` after today, `broken_days` late that break it; 0 takes the house's. Raises as `simulate`, and
    TitlesInAgreement.
    """
    wrong = []
    if not 0 <= validity_days <= MAX_VALIDITY_DAYS:
        wrong.append(errors.FieldViolation("validity_days", f"expected 0 to {MAX_VALIDITY_DAYS}"))
    if not 0 <= broken_days <= MAX_BROKEN_DAYS:
        wrong.append(errors.FieldViolation("broken_days", f"expected 0 to {MAX_BROKEN_DAYS}"))
    if wrong:
        raise errors.InvalidRequest(fields=wrong)
    _together(tx, agency, case_ids)
    cases = account_store.lock(tx, agency, case_ids)
    check_free(tx, agency, [cases[case_id] for case_id in case_ids])
    today = moment.business_date
    expire_date = today + datetime.timedelta(days=validity_days or VALIDITY_DAYS)
    simulation = simulate(
        tx=tx,
        agency=agency,
        case_ids=case_ids,
        terms=terms,
        currencies=currencies,
        date=expire_date,
        today=today,
    )
    lead = min(case_ids)
    record = store.Record(
        id=ids.new(),
        case_id=lead,
        case_ids=tuple(sorted(set(case_ids))),
        number=store.next_number(tx, agency, lead),
        state=accounts.AgreementState.PROPOSED,
        currency=simulation.currency,
        debt_minor=simulation.debt_minor,
        discount_minor=terms.discount_minor,
        plan_interest_minor=simulation.plan_interest_minor,
        total_minor=simulation.total_minor,
        instalments=terms.instalments,
        first_due_date=terms.first_due_date,
        annual_rate_e4=terms.annual_rate_e4,
        down_payment_minor=terms.down_payment_minor,
        down_payment_date=terms.down_payment_date,
        propose_date=today,
        expire_date=expire_date,
        notice_days=NOTICE_DAYS,
        missed_days=MISSED_DAYS,
        broken_days=broken_days or BROKEN_DAYS,
        created_at=moment.now,
    )
    agreed = _agreed(simulation.titles, discount_minor=terms.discount_minor, date=expire_date)
    store.propose(tx, agency, record, agreed)
    rows = [
        accounts.Instalment(
            instalment_id=ids.new(),
            agreement_id=record.id,
            number=row.number,
            due_date=row.due_date,
            payable_until=providers.payable_until(row.due_date, simulation.currency),
            capital_minor=row.capital_minor,
            interest_minor=row.interest_minor,
        )
        for row in simulation.rows
    ]
    store.add_instalments(tx, agency, record.id, rows)
    books.publish_agreement(
        tx,
        moment,
        agreement=account_store.agreements(tx, agency, [record.id])[record.id],
        instalments=rows,
        total_minor=record.total_minor,
    )
    return record.id


def _together(
    tx: db.Transaction, agency: uuid.UUID, case_ids: Sequence[uuid.UUID]
) -> dict[uuid.UUID, account_store.CaseAccount]:
    if not 1 <= len(case_ids) <= titles.MAX_CASES or len(set(case_ids)) != len(case_ids):
        raise errors.invalid("case_ids", f"expected 1 to {titles.MAX_CASES} cases, each once")
    cases = account_store.cases(tx, agency, case_ids)
    if missing := sorted(set(case_ids) - set(cases)):
        raise errors.ResourceNotFound("no such case", case=missing[0])
    if len({(case.creditor_id, case.debtor_id, case.currency) for case in cases.values()}) > 1:
        raise CasesDoNotBelongTogether("expected cases of one debtor, one creditor and one currency")
    return cases


def check_free(tx: db.Transaction, agency: uuid.UUID, cases: Sequence[account_store.CaseAccount]) -> None:
    """Raises TitlesInAgreement where one of the cases is in an agreement in force."""
    bound = {case.agreement_id for case in cases if case.agreement_id is not None}
    for key, agreement in account_store.agreements(tx, agency, bound).items() if bound else ():
        if agreement.state in accounts.IN_FORCE:
            raise TitlesInAgreement("a case is in an agreement in force", agreement=key)


def _penalty(title: accounts.Title, date: datetime.date) -> int:
    return title.open_penalty_minor + title.accrual(date).penalty_minor


def _interest(title: accounts.Title, date: datetime.date) -> int:
    return title.open_interest_minor + title.accrual(date).interest_minor


def _agreed(
    owned: Sequence[accounts.Title], *, discount_minor: int, date: datetime.date
) -> list[accounts.AgreedTitle]:
    """The titles as agreed, oldest first; the discount forgives their interest first, then their penalty."""
    penalties = [_penalty(one, date) for one in owned]
    interests = [_interest(one, date) for one in owned]
    waived_interests, left = _forgive(interests, discount_minor)
    waived_penalties, _ = _forgive(penalties, left)
    return [
        accounts.AgreedTitle(
            title_id=one.title_id,
            case_id=one.case_id,
            title_version=one.version,
            principal_minor=one.open_principal_minor,
            penalty_minor=penalties[place],
            interest_minor=interests[place],
            waived_penalty_minor=waived_penalties[place],
            waived_interest_minor=waived_interests[place],
        )
        for place, one in enumerate(owned)
    ]


def _forgive(amounts: Sequence[int], discount_minor: int) -> tuple[list[int], int]:
    """What of each amount is forgiven, one after the other, and what of the discount is left."""
    parts = []
    for amount in amounts:
        parts.append(min(amount, discount_minor))
        discount_minor -= parts[-1]
    return parts, discount_minor
