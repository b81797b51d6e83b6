"""Pix charge with a due date (cobv): what is to be paid on a date (Pix API 2.9.0, standards.md 4.4; W-15).

Values are in hundredths: minor units where the mode is an amount, percent times 100 where it is a percentage (3 % =
300), as the API writes both with two decimals. Percentages are of the original value. Each component is rounded half-up
to the centavo once. A due date that is no business day rolls to the next one, and everything that counts from it
(validity, penalty, interest, discounts) rolls with it. The API leaves the length of a month and a year to the bank:
here 30 and 365 calendar days, 21 and 252 business days.
"""

import dataclasses
import datetime
import enum
from collections.abc import Callable, Sequence
from decimal import Decimal

from servicekit import errors, money

IsBusinessDay = Callable[[datetime.date], bool]

MAX_MINOR = 10**12 - 1
"""9999999999.99: `\\\\d{1,10}\\\\.\\\\d{2}`."""
DEFAULT_VALIDITY_DAYS = 30
MAX_DATED_DISCOUNTS = 3


class PenaltyMode(enum.IntEnum):
    """multa.modalidade."""

    AMOUNT = 1
    PERCENT = 2


class InterestMode(enum.IntEnum):
    """juros.modalidade: 1 to 4 count calendar days, 5 to 8 business days."""

    AMOUNT_A_DAY = 1
    PERCENT_A_DAY = 2
    PERCENT_A_MONTH = 3
    PERCENT_A_YEAR = 4
    AMOUNT_A_BUSINESS_DAY = 5
    PERCENT_A_BUSINESS_DAY = 6
    PERCENT_A_MONTH_OF_BUSINESS_DAYS = 7
    PERCENT_A_YEAR_OF_BUSINESS_DAYS = 8


class AbatementMode(enum.IntEnum):
    """abatimento.modalidade."""

    AMOUNT = 1
    PERCENT = 2


class DiscountMode(enum.IntEnum):
    """desconto.modalidade: 1 and 2 until given dates, 3 to 6 a day of anticipation."""

    AMOUNT_UNTIL = 1
    PERCENT_UNTIL = 2
    AMOUNT_A_DAY = 3
    AMOUNT_A_BUSINESS_DAY = 4
    PERCENT_A_DAY = 5
    PERCENT_A_BUSINESS_DAY = 6


_PERIOD = {
    InterestMode.PERCENT_A_DAY: 1,
    InterestMode.PERCENT_A_MONTH: 30,
    InterestMode.PERCENT_A_YEAR: 365,
    InterestMode.PERCENT_A_BUSINESS_DAY: 1,
    InterestMode.PERCENT_A_MONTH_OF_BUSINESS_DAYS: 21,
    InterestMode.PERCENT_A_YEAR_OF_BUSINESS_DAYS: 252,
}
_DATED = (DiscountMode.AMOUNT_UNTIL, DiscountMode.PERCENT_UNTIL)
_PERCENT_DISCOUNTS = (
    DiscountMode.PERCENT_UNTIL,
    DiscountMode.PERCENT_A_DAY,
    DiscountMode.PERCENT_A_BUSINESS_DAY,
)


class ChargeNotPayable(errors.ServiceError):
    """The charge's validity is over."""

    status = errors.Status.FAILED_PRECONDITION


@dataclasses.dataclass(frozen=True, slots=True)
class Penalty:
    """Once, when paid after the due date."""

    mode: PenaltyMode
    value_e2: int


@dataclasses.dataclass(frozen=True, slots=True)
class Interest:
    """For each day after the due date, simple."""

    mode: InterestMode
    value_e2: int


@dataclasses.dataclass(frozen=True, slots=True)
class Abatement:
    """Taken off whenever it is paid."""

    mode: AbatementMode
    value_e2: int


@dataclasses.dataclass(frozen=True, slots=True)
class Discount:
    """Taken off when paid in time: `until` (date, value) for the dated modes, `value_e2` a day for the others."""

    mode: DiscountMode
    value_e2: int = 0
    until: tuple[tuple[datetime.date, int], ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """A charge with a due date; `validity_days` calendar days after it, it can still be paid."""

    original_minor: int
    due_date: datetime.date
    validity_days: int = DEFAULT_VALIDITY_DAYS
    penalty: Penalty | None = None
    interest: Interest | None = None
    abatement: Abatement | None = None
    discount: Discount | None = None

    def check(self) -> list[errors.FieldViolation]:
        """What the API would refuse; empty when nothing is. Fields are named as the API names them."""
        wrong = []

        def refuse(field: str, text: str) -> None:
            wrong.append(errors.FieldViolation(field, text))

        def within(field: str, value: int, *, percent: bool, below: bool = False) -> None:
            limit = 10_000 if percent else self.original_minor
            if not 0 < value <= MAX_MINOR:
                refuse(field, "expected more than zero and at most 9999999999.99")
            elif below and value >= limit:
                refuse(field, "expected less than 100 %" if percent else "expected less than valor.original")

        if not 0 < self.original_minor <= MAX_MINOR:
            refuse("valor.original", "expected 0.01 to 9999999999.99")
        if self.validity_days < 0:
            refuse("calendario.validadeAposVencimento", "expected zero or more days")
        if self.penalty is not None:
            within("valor.multa", self.penalty.value_e2, percent=self.penalty.mode is PenaltyMode.PERCENT)
        if self.interest is not None:
            within("valor.juros", self.interest.value_e2, percent=self.interest.mode in _PERIOD)
        if self.abatement is not None:
            percent = self.abatement.mode is AbatementMode.PERCENT
            within("valor.abatimento", self.abatement.value_e2, percent=percent, below=True)
        if (discount := self.discount) is not None:
            percent = discount.mode in _PERCENT_DISCOUNTS
            if discount.mode in _DATED:
                if discount.value_e2:
                    refuse("valor.desconto.valorPerc", "expected none with fixed dates")
                if not 1 <= len(discount.until) <= MAX_DATED_DISCOUNTS:
                    refuse("valor.desconto.descontoDataFixa", "expected 1 to 3 dates")
                if len({date for date, _ in discount.until}) < len(discount.until):
                    refuse("valor.desconto.descontoDataFixa", "expected each date once")
                for place, (date, value) in enumerate(discount.until):
                    field = f"valor.desconto.descontoDataFixa[{place}]"
                    if date > self.due_date:
                        refuse(f"{field}.data", "expected a date not after the due date")
                    within(f"{field}.valorPerc", value, percent=percent, below=True)
            else:
                if discount.until:
                    refuse("valor.desconto.descontoDataFixa", "expected none for a discount a day")
                within("valor.desconto.valorPerc", discount.value_e2, percent=percent, below=True)
        return wrong


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Payable:
    """What is to be paid on a date: original + penalty + interest - abatement - discount, minor units."""

    original_minor: int
    penalty_minor: int
    interest_minor: int
    abatement_minor: int
    discount_minor: int

    @property
    def total_minor(self) -> int:
        """The amount of the Pix; never below zero (discounts a day may add up to the whole)."""
        plus = self.original_minor + self.penalty_minor + self.interest_minor
        return max(0, plus - self.abatement_minor - self.discount_minor)


def roll(date: datetime.date, is_business_day: IsBusinessDay) -> datetime.date:
    """The date, or the next business day after it."""
    while not is_business_day(date):
        date += datetime.timedelta(days=1)
    return date


def last_day(charge: Charge, is_business_day: IsBusinessDay) -> datetime.date:
    """The last day on which the charge can be paid: the validity counts from the rolled due date, and a last day that
    is no business day rolls too (due 2020-10-20 with 4 days: through Monday 2020-10-26)."""
    due = roll(charge.due_date, is_business_day)
    return roll(due + datetime.timedelta(days=charge.validity_days), is_business_day)


def payable(charge: Charge, date: datetime.date, is_business_day: IsBusinessDay) -> Payable:
    """What is to be paid on `date`. W-15: 100.00, 3 %, 1 % a day, two days late: 105.00.

    Raises ChargeNotPayable after the last day.
    """
    end = last_day(charge, is_business_day)
    if date > end:
        raise ChargeNotPayable("the charge can be paid no more", last_date=end)
    due = roll(charge.due_date, is_business_day)
    late = date > due
    original = charge.original_minor
    return Payable(
        original_minor=original,
        penalty_minor=_once(charge.penalty, original) if late and charge.penalty else 0,
        interest_minor=_interest(charge.interest, original, due, date, is_business_day)
        if late and charge.interest
        else 0,
        abatement_minor=_once(charge.abatement, original) if charge.abatement else 0,
        discount_minor=_discount(charge, due, date, is_business_day) if charge.discount and not late else 0,
    )


def business_days(start: datetime.date, end: datetime.date, is_business_day: IsBusinessDay) -> int:
    """Business days after `start` up to and with `end`."""
    span = range(1, (end - start).days + 1)
    return sum(is_business_day(start + datetime.timedelta(days=day)) for day in span)


def _once(rule: Penalty | Abatement, original_minor: int) -> int:
    return rule.value_e2 if rule.mode == 1 else _percent(original_minor, rule.value_e2, 1, 1)


def _interest(
    rule: Interest,
    original_minor: int,
    due: datetime.date,
    date: datetime.date,
    is_business_day: IsBusinessDay,
) -> int:
    calendar = rule.mode <= InterestMode.PERCENT_A_YEAR
    days = (date - due).days if calendar else business_days(due, date, is_business_day)
    if rule.mode not in _PERIOD:
        return rule.value_e2 * days
    return _percent(original_minor, rule.value_e2, days, _PERIOD[rule.mode])


def _discount(charge: Charge, due: datetime.date, date: datetime.date, is_business_day: IsBusinessDay) -> int:
    rule = charge.discount
    assert rule is not None
    if rule.mode in _DATED:
        value = _dated(rule.until, charge, due, date)
        days = 1
    else:
        calendar = rule.mode in (DiscountMode.AMOUNT_A_DAY, DiscountMode.PERCENT_A_DAY)
        days = (due - date).days if calendar else business_days(date, due, is_business_day)
        value = rule.value_e2
    if rule.mode in _PERCENT_DISCOUNTS:
        return _percent(charge.original_minor, value, days, 1)
    return value * days


def _dated(
    until: Sequence[tuple[datetime.date, int]], charge: Charge, due: datetime.date, date: datetime.date
) -> int:
    """The value of the earliest date that is not over; a date that is the due date rolls with it."""
    for last, value in sorted(until):
        if date <= (due if last == charge.due_date else last):
            return value
    return 0


def _percent(base_minor: int, percent_e2: int, days: int, period: int) -> int:
    amount = Decimal(base_minor) * percent_e2 * days / (Decimal(10_000) * period)
    return int(money.round_half_up(amount, 0))
