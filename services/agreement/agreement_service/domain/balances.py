"""Explained balances: how an amount comes about, line by line (R08; feature S1-17)."""

import dataclasses
import datetime
import uuid
from collections.abc import Sequence

from agreement_service.domain import accounts, charges, series

PLACED = "placed by the creditor"
POSTED_SOURCE = "charged before, when a payment was allocated or an agreement accepted"
AGREED_SOURCE = "agreed capital of the instalment"
PLAN_SOURCE = "agreed plan interest of the instalment"
RECEIVED_SOURCE = "payments received"
GONE = {
    "received_minor": ("PAID", RECEIVED_SOURCE),
    "waived_minor": ("WAIVED", "discount of an agreement, or charges waived"),
    "withdrawn_minor": ("WITHDRAWN", "taken back by the creditor"),
    "written_off_minor": ("WRITTEN_OFF", "written off"),
    "novated_minor": ("NOVATED", "replaced by the titles of an agreement"),
}
"""What left a title without being open any more: field, component of the line, source."""
OWN_TERMS = "the title's own terms"
RULES = {
    charges.Rule.PENALTY_RATE: "penalty once, on principal (CDC art. 52 §1)",
    charges.Rule.PENALTY_FIXED: "penalty once, fixed amount",
    charges.Rule.INTEREST_30: "simple interest on principal, actual days, months of 30 days, years of 360",
    charges.Rule.INTEREST_30_360: "simple interest on principal, 30E/360",
    charges.Rule.INTEREST_ACTUAL_365: "simple interest on principal, actual days, years of 365",
    charges.Rule.INTEREST_DAILY: "simple interest on principal, rate a day",
    charges.Rule.INTEREST_SERIES: "simple interest on principal, published rates",
    charges.Rule.CORRECTION: "monetary correction of principal, index number over index number less one",
    charges.Rule.COMMISSION: "commission for recovery, once (DL 58/2013 art. 9)",
    charges.Rule.COMMISSION_MINIMUM: "commission for recovery, once, least amount (DL 58/2013 art. 9)",
    charges.Rule.COMMISSION_MAXIMUM: "commission for recovery, once, highest amount (DL 58/2013 art. 9)",
    charges.Rule.COMMISSION_ABOVE: "commission for recovery, once, large instalment (DL 58/2013 art. 9)",
    charges.Rule.LATE_PAYMENT: "compensation for late payment, once (DL 62/2013 art. 7)",
    charges.Rule.EXPENSES: "fixed expenses, once",
    charges.Rule.FEES: "fees, once, on the debt of the day without costs",
}
"""Each amount is base x numerator / denominator, rounded half-up to the cent."""


def source_of(rule: charges.Rule, *, terms: str, code: str = "") -> str:
    """Where a charge comes from: the contract's or house's terms, the rule, and the series with its law."""
    text = f"{terms}: {RULES[rule]}"
    return f"{text}; series {code}, {series.SERIES[code].law}" if code else text


def posted_source(rule: str) -> str:
    """Where a posted charge comes from; `rule` "" where none is known."""
    return f"{POSTED_SOURCE}: {RULES[charges.Rule(rule)]}" if rule else POSTED_SOURCE


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A part of a balance; the lines sum to the total. `component` is that of accounts.Component, or one of `GONE`.

    A charge is `base_minor` x `numerator` / `denominator`, rounded half-up; the other lines have no numerator. Interest
    and correction count from `from_date` (exclusive) to `through_date` (inclusive).
    """

    component: str
    amount_minor: int
    base_minor: int = 0
    rate_e4: int = 0
    days: int = 0
    source: str
    rule: str = ""
    numerator: int = 0
    denominator: int = 0
    from_date: datetime.date | None = None
    through_date: datetime.date | None = None
    series: str = ""
    terms_id: uuid.UUID | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """The balance of a title, or of an instalment of an agreement, on a date."""

    title_id: uuid.UUID | None
    agreement_id: uuid.UUID | None
    due_date: datetime.date
    days_past_due: int
    lines: tuple[Line, ...]

    @property
    def total_minor(self) -> int:
        """Sum of the lines."""
        return sum(line.amount_minor for line in self.lines)

    def charges_minor(self) -> int:
        """What of the total is charges, before payments."""
        return sum(line.amount_minor for line in self.lines if line.component in accounts.CHARGES)


def explain_title(
    title: accounts.Title, date: datetime.date, posted: Sequence[accounts.Entry] = ()
) -> Explained:
    """The lines of a title: principal as placed, charges posted and accrued to `date`, less what left it.

    `posted` are its CHARGED entries, net of contra entries; without them what is posted is one line a component.
    """
    lines = [Line(component="PRINCIPAL", amount_minor=title.principal_minor, source=PLACED)]
    if posted:
        lines += [_posted(entry) for entry in posted]
    else:
        lines += [
            Line(component=component.value, amount_minor=amount, source=POSTED_SOURCE)
            for component in accounts.CHARGES
            if (amount := title.charged_of(component))
        ]
    lines += [_accrued(title, one) for one in title.accrual(date).charges]
    lines += [
        Line(component=component, amount_minor=-amount, source=source)
        for field, (component, source) in GONE.items()
        if (amount := getattr(title, field))
    ]
    return Explained(
        title_id=title.title_id,
        agreement_id=None,
        due_date=title.due_date,
        days_past_due=max(0, (date - title.due_date).days),
        lines=tuple(lines),
    )


def _accrued(title: accounts.Title, one: charges.Charge) -> Line:
    own = (one.component == "PENALTY" and title.own_penalty) or (
        one.component == "INTEREST" and title.own_interest
    )
    code = ""
    if one.rule is charges.Rule.INTEREST_SERIES and title.rules.interest is not None:
        code = title.rules.interest.code
    elif one.rule is charges.Rule.CORRECTION and title.rules.correction is not None:
        code = title.rules.correction.code
    return Line(
        component=one.component,
        amount_minor=one.amount_minor,
        base_minor=one.base_minor,
        rate_e4=one.rate_e4,
        days=one.days,
        source=source_of(one.rule, terms=OWN_TERMS if own else title.rules.source, code=code),
        rule=one.rule.value,
        numerator=one.numerator,
        denominator=one.denominator,
        from_date=one.from_date,
        through_date=one.through_date,
        series=code,
        terms_id=None if own else title.rules.terms_id,
    )


def _posted(entry: accounts.Entry) -> Line:
    if not entry.rule:
        return Line(component=entry.component.value, amount_minor=entry.amount_minor, source=POSTED_SOURCE)
    assert entry.base_minor is not None
    assert entry.numerator is not None
    assert entry.denominator is not None
    days = 0
    if entry.from_date is not None and entry.through_date is not None:
        days = (entry.through_date - entry.from_date).days
    return Line(
        component=entry.component.value,
        amount_minor=entry.amount_minor,
        base_minor=entry.base_minor,
        days=days,
        source=posted_source(entry.rule),
        rule=entry.rule,
        numerator=entry.numerator,
        denominator=entry.denominator,
        from_date=entry.from_date,
        through_date=entry.through_date,
    )


def explain_instalment(instalment: accounts.Instalment, date: datetime.date) -> Explained:
    """The lines of an instalment: capital and plan interest as agreed, less what was paid."""
    lines = [Line(component="PRINCIPAL", amount_minor=instalment.capital_minor, source=AGREED_SOURCE)]
    if instalment.interest_minor:
        lines.append(
            Line(component="PLAN_INTEREST", amount_minor=instalment.interest_minor, source=PLAN_SOURCE)
        )
    if instalment.paid_minor:
        lines.append(Line(component="PAID", amount_minor=-instalment.paid_minor, source=RECEIVED_SOURCE))
    return Explained(
        title_id=None,
        agreement_id=instalment.agreement_id,
        due_date=instalment.due_date,
        days_past_due=max(0, (date - instalment.due_date).days),
        lines=tuple(lines),
    )
