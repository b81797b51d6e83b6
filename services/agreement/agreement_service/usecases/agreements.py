"""Agreements: simulated and proposed (features S1-19, S1-31..34, S2-37, S3-11, S3-14, S3-15, S5-03, S5-06, S5-08,
S5-30; W-01, W-02, W-09); see drafts.py for saved simulations and life.py for the rest."""

import dataclasses
import datetime
import re
import uuid
from collections.abc import Mapping, Sequence

from agreement_service import providers
from agreement_service.domain import accounts, approvals, balances, creditors, novations, plans, proposals
from agreement_service.domain import limits as limit_rules
from agreement_service.store import accounts as account_store
from agreement_service.store import agreements as store
from agreement_service.store import creditors as creditor_store
from agreement_service.store import novations as novation_store
from agreement_service.usecases import books, counts, credits, limits, moments, titles
from servicekit import db, errors, ids

MAX_VALIDITY_DAYS = 365
MAX_BROKEN_DAYS = 365
MAX_NOTE = 500
SETTLEMENT_TYPE = "RENEGOTIATION"
"""How originals are said to be settled without cash where nobody says otherwise (S5-11)."""
_SETTLEMENT_TYPE = re.compile(r"[A-Z][A-Z0-9_]{0,39}")


class CasesDoNotBelongTogether(errors.ServiceError):
    """An agreement is over cases of one debtor, one creditor and one currency."""

    status = errors.Status.FAILED_PRECONDITION


class TitlesInAgreement(errors.ServiceError):
    """A case of the agreement is in another agreement in force: one case, one agreement."""

    status = errors.Status.FAILED_PRECONDITION


class CurrencyNotOfTheCases(errors.ServiceError):
    """The terms are in another currency than the cases."""

    status = errors.Status.INVALID_ARGUMENT


class ProposalNotExpired(errors.ServiceError):
    """Only a proposal whose last day is over is counted again; one that holds is accepted or cancelled."""

    status = errors.Status.FAILED_PRECONDITION


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Negotiation:
    """What is negotiated. `currencies` are those of the amounts given; `charges` are edited by title (S5-09).

    Without `title_ids` all open titles of the cases are meant. `due_matters` False: titles not yet due may be chosen
    alone (they were once, in a proposal that is counted again). `use_credits`: the debtor's overpaid money pays the
    first instalments at acceptance (S5-08).
    """

    case_ids: Sequence[uuid.UUID]
    terms: plans.Terms
    currencies: frozenset[str] = frozenset()
    title_ids: Sequence[uuid.UUID] = ()
    other_parties: bool = False
    include_not_due: bool = False
    due_matters: bool = True
    use_credits: bool = False
    charges: Mapping[uuid.UUID, proposals.Charges] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What a negotiation comes to; minor units of `currency`. `terms` with the creditor's usual rate where they name
    none; `needed` is what goes beyond the caller's limits."""

    currency: str
    creditor_id: uuid.UUID
    settings: creditors.CreditorSettings
    terms: plans.Terms
    subjects: Sequence[balances.Explained]
    priced: proposals.Priced
    needed: Sequence[approvals.ApprovalNeeded]
    available_credit_minor: int
    used_credit_minor: int

    @property
    def minimum_down_payment_minor(self) -> int:
        """The least down payment that the creditor takes (S1-32)."""
        return self.settings.minimum_down_payment.of(
            self.priced.total_minor - self.priced.plan_interest_minor
        )


def simulate(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    negotiation: Negotiation,
    authority: limit_rules.Authority,
    date: datetime.date,
    today: datetime.date,
) -> Simulation:
    """The plan that a negotiation gives over the debt counted to `date`.

    Raises InvalidRequest, ResourceNotFound, CasesDoNotBelongTogether, CurrencyNotOfTheCases, NothingToAgreeOn,
    TitlesNotEligible, OutsideCreditorSettings, and what plans.schedule raises.
    """
    cases = _together(tx, agency, negotiation.case_ids, other_parties=negotiation.other_parties)
    settings = creditor_store.settings(tx, agency, cases[negotiation.case_ids[0]].creditor_id)
    return _count(
        tx,
        agency,
        negotiation=negotiation,
        cases=cases,
        settings=settings,
        authority=authority,
        date=date,
        today=today,
    )


def _count(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    negotiation: Negotiation,
    cases: Mapping[uuid.UUID, account_store.CaseAccount],
    settings: creditors.CreditorSettings,
    authority: limit_rules.Authority,
    date: datetime.date,
    today: datetime.date,
) -> Simulation:
    first = cases[negotiation.case_ids[0]]
    if negotiation.currencies - {first.currency}:
        raise CurrencyNotOfTheCases(
            "the cases are in another currency",
            fields=[errors.FieldViolation("terms", f"expected every amount in {first.currency}")],
            currency=first.currency,
        )
    terms = proposals.with_defaults(settings, negotiation.terms)
    terms.check(today=today)
    chosen = proposals.choose(
        [
            one
            for one in account_store.titles(tx, agency, cases, also=negotiation.title_ids)
            if not one.acquirer
        ],
        title_ids=negotiation.title_ids,
        include_not_due=negotiation.include_not_due,
        business_date=today if negotiation.due_matters else None,
    )
    _check_chosen(negotiation, chosen)
    priced = proposals.price(
        titles=chosen,
        terms=terms,
        date=date,
        charges=negotiation.charges,
        business_day=lambda day: providers.payable_until(day, first.currency),
    )
    proposals.check_creditor(settings, terms=terms, priced=priced)
    needed = limits.missing(
        tx=tx,
        agency=agency,
        authority=authority,
        creditor_id=first.creditor_id,
        asked=priced.asked(terms),
        date=today,
        currency=first.currency,
        case_ids=negotiation.case_ids,
    )
    available = sum(
        one.overpaid_minor
        for one in credits.available(tx=tx, agency=agency, case_id=min(negotiation.case_ids))
    )
    return Simulation(
        currency=first.currency,
        creditor_id=first.creditor_id,
        settings=settings,
        terms=terms,
        subjects=[balances.explain_title(one, date) for one in chosen],
        priced=priced,
        needed=needed,
        available_credit_minor=available,
        used_credit_minor=min(available, priced.total_minor) if negotiation.use_credits else 0,
    )


def propose(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    negotiation: Negotiation,
    authority: limit_rules.Authority,
    validity_days: int,
    broken_days: int,
    moment: moments.Moment,
    expire_date: datetime.date | None = None,
    note: str = "",
    settlement_type: str = "",
    nature: novations.Nature = novations.PLAN,
) -> uuid.UUID:
    """Store a proposal over the chosen titles, its debt counted to its last day (W-09); its id.

    Titles that stay unchanged (type A) are counted to their tolerance date, which is the last day and the only due
    date; the day after it unpaid breaks it (S3-10, W-07).

    `validity_days` after today, `broken_days` late that break it; 0 takes the creditor's, or `expire_date` where it is
    given. Raises as `simulate`, TitlesInAgreement, and ApprovalNeeded for what goes beyond the limits of `authority`.
    """
    wrong = []
    if not 0 <= validity_days <= MAX_VALIDITY_DAYS:
        wrong.append(errors.FieldViolation("validity_days", f"expected 0 to {MAX_VALIDITY_DAYS}"))
    if not 0 <= broken_days <= MAX_BROKEN_DAYS:
        wrong.append(errors.FieldViolation("broken_days", f"expected 0 to {MAX_BROKEN_DAYS}"))
    if len(note) > MAX_NOTE or "\0" in note:
        wrong.append(errors.FieldViolation("note", f"expected at most {MAX_NOTE} characters"))
    if settlement_type and not _SETTLEMENT_TYPE.fullmatch(settlement_type):
        wrong.append(
            errors.FieldViolation("settlement_type", "expected at most 40 of capitals, digits and underscore")
        )
    wrong += nature.check(today=moment.business_date)
    wrong += nature.check_terms(negotiation.terms)
    if wrong:
        raise errors.InvalidRequest(fields=wrong)
    case_ids = negotiation.case_ids
    together = _together(tx, agency, case_ids, other_parties=negotiation.other_parties)
    cases = account_store.lock(tx, agency, case_ids)
    check_free(tx, agency, [cases[case_id] for case_id in case_ids])
    today = moment.business_date
    settings = creditor_store.settings(tx, agency, together[case_ids[0]].creditor_id)
    if validity_days or expire_date is None:
        expire_date = today + datetime.timedelta(days=validity_days or settings.validity_days)
    broken_days, missed_days = broken_days or settings.broken_days, settings.missed_days
    if nature.tolerance_date is not None:
        expire_date, broken_days, missed_days = nature.tolerance_date, 1, 1
    if broken_days < missed_days:
        raise errors.invalid("broken_days", f"expected {missed_days} to {MAX_BROKEN_DAYS}")
    simulation = _count(
        tx,
        agency,
        negotiation=negotiation,
        cases=together,
        settings=settings,
        authority=authority,
        date=expire_date,
        today=today,
    )
    if simulation.needed:
        raise simulation.needed[0]
    priced, terms = simulation.priced, simulation.terms
    lead = min(case_ids)
    record = store.Record(
        id=ids.new(),
        case_id=lead,
        case_ids=tuple(sorted(set(case_ids))),
        number=store.next_number(tx, agency, lead),
        state=accounts.AgreementState.PROPOSED,
        currency=simulation.currency,
        debt_minor=priced.debt_minor,
        added_minor=priced.added_minor,
        discount_minor=priced.discount_minor,
        plan_interest_minor=priced.plan_interest_minor,
        total_minor=priced.total_minor,
        instalments=terms.instalments,
        first_due_date=terms.first_due_date,
        annual_rate_e4=terms.annual_rate_e4,
        down_payment_minor=terms.down_payment_minor,
        down_payment_date=terms.down_payment_date,
        terms=terms,
        note=note,
        settlement_type=settlement_type or SETTLEMENT_TYPE,
        use_credits=negotiation.use_credits,
        propose_date=today,
        expire_date=expire_date,
        notice_days=settings.notice_days,
        missed_days=missed_days,
        broken_days=broken_days,
        created_at=moment.now,
    )
    store.propose(tx, agency, record, priced.agreed)
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
        for row in priced.rows
    ]
    store.add_instalments(tx, agency, record.id, rows)
    novation_store.set_nature(tx, agency, record.id, nature, settings)
    counts.agreements(tx, [record.state])
    books.publish_agreement(
        tx,
        moment,
        agreement=account_store.agreements(tx, agency, [record.id])[record.id],
        instalments=rows,
        total_minor=record.total_minor,
    )
    return record.id


def recalculate(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    agreement_id: uuid.UUID,
    terms: plans.Terms | None,
    currencies: frozenset[str],
    validity_days: int,
    version: int | None,
    authority: limit_rules.Authority,
    moment: moments.Moment,
) -> uuid.UUID:
    """An expired proposal again, over the same titles on today's debt; the new one's id (S5-30, W-09).

    `terms` None: those it had. Charges that were edited by hand are counted anew. Raises ResourceNotFound,
    VersionMismatch, ProposalNotExpired, and as `propose`.
    """
    record = store.get(tx, agency, [agreement_id]).get(agreement_id)
    if record is None:
        raise errors.ResourceNotFound("no such agreement", agreement=agreement_id)
    if version is not None and record.version != version:
        raise errors.VersionMismatch("the agreement changed since it was read", etag=record.version)
    over = record.state is accounts.AgreementState.PROPOSED and moment.business_date > record.expire_date
    if record.state is not accounts.AgreementState.EXPIRED and not over:
        raise ProposalNotExpired(
            "the proposal is not expired", state=record.state.value, expire_date=record.expire_date
        )
    agreed = account_store.agreed(tx, agency, [agreement_id], novated=True).get(agreement_id)
    if agreed is None:
        agreed = account_store.agreed(tx, agency, [agreement_id])[agreement_id]
    return propose(
        tx=tx,
        agency=agency,
        negotiation=Negotiation(
            case_ids=record.case_ids,
            terms=record.terms if terms is None else terms,
            currencies=currencies,
            title_ids=[item.title_id for item in agreed],
            other_parties=True,
            include_not_due=True,
            due_matters=False,
            use_credits=record.use_credits,
        ),
        authority=authority,
        validity_days=validity_days,
        broken_days=record.broken_days,
        moment=moment,
        note=record.note,
        settlement_type=record.settlement_type,
        nature=novation_store.details(tx, agency, [agreement_id])[agreement_id].nature,
    )


def _check_chosen(negotiation: Negotiation, chosen: Sequence[accounts.Title]) -> None:
    """Every case of a choice by title has a title in it; only chosen titles have charges edited."""
    with_title = {title.case_id for title in chosen}
    known = {title.title_id for title in chosen}
    wrong = []
    if negotiation.title_ids:
        wrong = [
            errors.FieldViolation(f"case_ids[{place}]", "expected a case of a chosen title")
            for place, case_id in enumerate(negotiation.case_ids)
            if case_id not in with_title
        ]
    wrong += [
        errors.FieldViolation(f"title_charges[{place}].title_id", "expected a title that is negotiated")
        for place, title_id in enumerate(negotiation.charges)
        if title_id not in known
    ]
    if wrong:
        raise errors.InvalidRequest(fields=wrong)


def _together(
    tx: db.Transaction, agency: uuid.UUID, case_ids: Sequence[uuid.UUID], *, other_parties: bool
) -> dict[uuid.UUID, account_store.CaseAccount]:
    if not 1 <= len(case_ids) <= titles.MAX_CASES or len(set(case_ids)) != len(case_ids):
        raise errors.invalid("case_ids", f"expected 1 to {titles.MAX_CASES} cases, each once")
    cases = account_store.cases(tx, agency, case_ids)
    if missing := sorted(set(case_ids) - set(cases)):
        raise errors.ResourceNotFound("no such case", case=missing[0])
    if len({(case.creditor_id, case.currency) for case in cases.values()}) > 1:
        raise CasesDoNotBelongTogether("expected cases of one creditor and one currency")
    if not other_parties and len({case.debtor_id for case in cases.values()}) > 1:
        raise CasesDoNotBelongTogether("expected cases of one debtor, or other_parties")
    return cases


def check_free(tx: db.Transaction, agency: uuid.UUID, cases: Sequence[account_store.CaseAccount]) -> None:
    """Raises TitlesInAgreement where one of the cases is in an agreement in force."""
    bound = {case.agreement_id for case in cases if case.agreement_id is not None}
    for key, agreement in account_store.agreements(tx, agency, bound).items() if bound else ():
        if agreement.state in accounts.IN_FORCE:
            raise TitlesInAgreement("a case is in an agreement in force", agreement=key)
