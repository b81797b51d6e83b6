"""Late charges on a title (features S1-17, S1-26; W-15, W-16, W-17; standards.md 4.8).

Every charge is base x numerator / denominator, rounded half-up in integers, per title and component, so that whoever
has these three numbers can count it again (R08). Amounts in minor units, rates in percent times 10 000 (2 % = 20000).

- Penalty once, on the open principal when it is first charged (CDC art. 52 §1), or a fixed amount.
- Interest simple, on the open principal: a rate a day, month or year over a day count, or a published series.
- Correction: open principal and open correction, times index number over index number, less themselves. A fall of the
  index leaves the nominal amount as it is; what is posted is not taken back, and a later rise counts from the day to
  which correction is posted.
- Once, when a title is first charged: commission for recovery (DL 58/2013 art. 9), compensation for late payment
  (DL 62/2013 art. 7), fixed expenses, fees on the debt of that day without costs.

A title whose due date is no business day and that is paid on the next one bears no charge; paid later, days count from
the due date itself (Lei 7.089/1985: "desde que seja quitado no primeiro dia útil subsequente"); so do days of grace.
The SQL of store/charges.py is the same; a property test holds both together.
"""

import dataclasses
import datetime
import enum
import uuid
from typing import NamedTuple

from agreement_service.domain import series
from servicekit import money

MONTH_DAYS = 30


class Rule(enum.StrEnum):
    """How the numerator of a charge came about."""

    PENALTY_RATE = "PENALTY_RATE"
    PENALTY_FIXED = "PENALTY_FIXED"
    INTEREST_30 = "INTEREST_30"
    INTEREST_30_360 = "INTEREST_30_360"
    INTEREST_ACTUAL_365 = "INTEREST_ACTUAL_365"
    INTEREST_DAILY = "INTEREST_DAILY"
    INTEREST_SERIES = "INTEREST_SERIES"
    CORRECTION = "CORRECTION"
    COMMISSION = "COMMISSION"
    COMMISSION_MINIMUM = "COMMISSION_MINIMUM"
    COMMISSION_MAXIMUM = "COMMISSION_MAXIMUM"
    COMMISSION_ABOVE = "COMMISSION_ABOVE"
    LATE_PAYMENT = "LATE_PAYMENT"
    EXPENSES = "EXPENSES"
    FEES = "FEES"


def penalty_minor(*, base_minor: int, rate_e4: int) -> int:
    """Penalty on `base_minor`: W-15: 1000.00 at 2 % is 20.00."""
    return money.half_up(base_minor * rate_e4, money.RATE_UNIT)


def interest_minor(*, base_minor: int, monthly_rate_e4: int, days: int) -> int:
    """Simple interest of `days` days: W-15: 1000.00, 45 days at 1 % a month is 15.00."""
    return money.half_up(base_minor * monthly_rate_e4 * days, money.RATE_UNIT * MONTH_DAYS)


def thirty_360(date: datetime.date) -> int:
    """Days since year 0 in years of twelve months of 30 days; a 31st is the 30th (30E/360)."""
    return date.year * 360 + date.month * 30 + min(date.day, 30)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rules:
    """What the terms of a title say where its own rates do not; zero or None: nothing.

    Interest of D days is `base x interest_factor x D / interest_denominator`, or by `interest`, a series.
    """

    terms_id: uuid.UUID | None = None
    source: str = ""
    penalty_rate_e4: int = 0
    penalty_minor: int = 0
    interest_rate_e4: int = 0
    interest_rule: Rule = Rule.INTEREST_30
    interest_factor: int = 0
    interest_denominator: int = money.RATE_UNIT * MONTH_DAYS
    interest: series.Table | None = None
    correction: series.Table | None = None
    commission_rate_e4: int = 0
    commission_minimum_minor: int = 0
    commission_maximum_minor: int = 0
    commission_above_minor: int = 0
    commission_above_rate_e4: int = 0
    late_payment_minor: int = 0
    expenses_minor: int = 0
    fees_rate_e4: int = 0
    grace_days: int = 0


NO_RULES = Rules()


class Charge(NamedTuple):
    """One charge: `amount_minor` is `base_minor x numerator / denominator`, rounded half-up. `component` as in
    accounts.Component; `rate_e4` and `days` to read, zero where a series has them. Interest and correction count from
    `from_date` (exclusive) to `through_date` (inclusive); what falls due once counts from the due date."""

    component: str
    amount_minor: int
    base_minor: int
    numerator: int
    denominator: int
    rule: Rule
    rate_e4: int = 0
    days: int = 0
    from_date: datetime.date | None = None
    through_date: datetime.date | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Accrual:
    """What a title owes on a date beyond what is posted. No charge of zero is in it."""

    charges: tuple[Charge, ...] = ()

    def of(self, component: str) -> int:
        """Sum of a component."""
        return sum(one.amount_minor for one in self.charges if one.component == component)

    @property
    def correction_minor(self) -> int:
        """Monetary correction."""
        return self.of("CORRECTION")

    @property
    def penalty_minor(self) -> int:
        """Penalty."""
        return self.of("PENALTY")

    @property
    def interest_minor(self) -> int:
        """Interest."""
        return self.of("INTEREST")

    @property
    def costs_minor(self) -> int:
        """Commission, compensation, expenses."""
        return self.of("COSTS")

    @property
    def fees_minor(self) -> int:
        """Fees."""
        return self.of("FEES")

    @property
    def total_minor(self) -> int:
        """All of it."""
        return sum(one.amount_minor for one in self.charges)


NONE = Accrual()


@dataclasses.dataclass(slots=True, kw_only=True)
class Position:
    """What of a title decides about its charges.

    `penalty_rate_e4` and `monthly_rate_e4` are the title's own rates, None where it has none and its terms count.
    `payable_until` is the due date rolled to a business day; `accrued_through` and `corrected_through` the days to
    which interest and correction are posted (the due date where none is). `debt_minor` is open principal, correction,
    penalty and interest.
    """

    due_date: datetime.date
    payable_until: datetime.date
    open_principal_minor: int
    debt_minor: int
    open_correction_minor: int = 0
    penalty_rate_e4: int | None = 0
    monthly_rate_e4: int | None = 0
    bears_interest: bool = True
    accrued_through: datetime.date
    corrected_through: datetime.date
    penalty_charged: bool = False
    once_charged: bool = False
    rules: Rules = NO_RULES


def accrue(position: Position, date: datetime.date) -> Accrual:
    """Charges of a title that are not posted yet, counted to `date` inclusive."""
    rules = position.rules
    principal = position.open_principal_minor
    if principal == 0 or date <= position.payable_until:
        return NONE
    if rules.grace_days and (date - position.payable_until).days <= rules.grace_days:
        return NONE
    found = []
    if rules.correction is not None and (correction := _correction(position, rules.correction, date)):
        found.append(correction)
    if not position.penalty_charged and (penalty := _penalty(position)):
        found.append(penalty)
    if position.bears_interest and (interest := _interest(position, date)):
        found.append(interest)
    if rules.terms_id is not None and not position.once_charged:
        debt = position.debt_minor + sum(one.amount_minor for one in found)
        found += [
            one._replace(from_date=position.due_date, through_date=date)
            for one in (_commission(rules, principal), *_fixed(rules), _fees(rules, debt))
            if one is not None and one.amount_minor
        ]
    return Accrual(tuple(found))


def _charge(
    component: str, base: int, numerator: int, denominator: int, rule: Rule, rate_e4: int = 0
) -> Charge:
    amount = money.half_up(base * numerator, denominator)
    return Charge(component, amount, base, numerator, denominator, rule, rate_e4)


def _correction(position: Position, table: series.Table, date: datetime.date) -> Charge | None:
    before, now = table.at(position.corrected_through), table.at(date)
    if now <= before:
        return None
    base = position.open_principal_minor + position.open_correction_minor
    found = _charge("CORRECTION", base, now - before, before, Rule.CORRECTION)
    if not found.amount_minor:
        return None
    through = max(table.covered(date), position.corrected_through)
    return found._replace(
        from_date=position.corrected_through,
        through_date=through,
        days=(through - position.corrected_through).days,
    )


def _penalty(position: Position) -> Charge | None:
    rules, base = position.rules, position.open_principal_minor
    own = position.penalty_rate_e4
    if own is None and rules.penalty_minor:
        return Charge("PENALTY", rules.penalty_minor, rules.penalty_minor, 1, 1, Rule.PENALTY_FIXED)
    rate = rules.penalty_rate_e4 if own is None else own
    found = _charge("PENALTY", base, rate, money.RATE_UNIT, Rule.PENALTY_RATE, rate)
    return found if found.amount_minor else None


def _interest(position: Position, date: datetime.date) -> Charge | None:
    rules, base = position.rules, position.open_principal_minor
    since = position.accrued_through
    days = max(0, (date - since).days)
    own = position.monthly_rate_e4
    through = date
    rate, numerator = 0, 0
    if own is not None:
        rule, rate, numerator, denominator = Rule.INTEREST_30, own, own * days, money.RATE_UNIT * MONTH_DAYS
    elif rules.interest is not None:
        through = max(rules.interest.covered(date), since)
        days = (through - since).days
        rule, denominator = Rule.INTEREST_SERIES, rules.interest.denominator
        numerator = max(0, rules.interest.at(date) - rules.interest.at(since))
    else:
        rule, rate, denominator = rules.interest_rule, rules.interest_rate_e4, rules.interest_denominator
        if rule is Rule.INTEREST_30_360:
            days = max(0, thirty_360(date) - thirty_360(since))
        numerator = rules.interest_factor * days
    amount = money.half_up(base * numerator, denominator)
    if not amount:
        return None
    return Charge("INTEREST", amount, base, numerator, denominator, rule, rate, days, since, through)


def _commission(rules: Rules, base: int) -> Charge | None:
    if not rules.commission_rate_e4:
        return None
    if rules.commission_above_minor and base > rules.commission_above_minor:
        rate = rules.commission_above_rate_e4
        return _charge("COSTS", base, rate, money.RATE_UNIT, Rule.COMMISSION_ABOVE, rate)
    rate = rules.commission_rate_e4
    found = _charge("COSTS", base, rate, money.RATE_UNIT, Rule.COMMISSION, rate)
    least, most = rules.commission_minimum_minor, rules.commission_maximum_minor
    if found.amount_minor < least:
        return Charge("COSTS", least, least, 1, 1, Rule.COMMISSION_MINIMUM)
    if found.amount_minor > most:
        return Charge("COSTS", most, most, 1, 1, Rule.COMMISSION_MAXIMUM)
    return found


def _fixed(rules: Rules) -> list[Charge]:
    return [
        Charge("COSTS", amount, amount, 1, 1, rule)
        for amount, rule in (
            (rules.late_payment_minor, Rule.LATE_PAYMENT),
            (rules.expenses_minor, Rule.EXPENSES),
        )
        if amount
    ]


def _fees(rules: Rules, debt: int) -> Charge:
    return _charge("FEES", debt, rules.fees_rate_e4, money.RATE_UNIT, Rule.FEES, rules.fees_rate_e4)
