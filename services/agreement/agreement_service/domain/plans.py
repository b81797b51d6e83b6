"""Plans: how an agreed sum is divided into instalments (features S1-32, S1-33, S2-37, S3-14, S3-15; W-01, W-02, W-06,
W-07, W-14; standards.md 4.9).

What is divided is the debt with accretion, less discounts ("spread"), by one of the methods; penalty, charges and fees
of the negotiation fall whole on instalment 1 ("once", S3-15) and bear no plan interest. Exact integers in minor units,
rounded half-up once per amount; interest is counted per period on the balance, never by days between dates: a date
moved to a business day, or given by hand, leaves the amounts as they are.

Where the cent that does not divide goes: with EQUAL_PRINCIPAL to the earliest rows, one each (largest remainder, as
MK's posting rule prints it: 101.67, 101.67, 101.66, W-06); everywhere else to the last row of the recalculated ones
(W-01, W-02: 333.33, 333.33, 333.34), because there the amount is rounded once and repeated.
"""

import calendar
import dataclasses
import datetime
import enum
import itertools
from collections.abc import Callable, Sequence

from agreement_service.domain import creditors
from servicekit import errors, money

MAX_INSTALMENTS = 360
MAX_ANNUAL_RATE_E4 = 10_000_000
"""1000 % a year: above it is a mistake of units."""
MAX_PERIOD_MONTHS = 12
MAX_PERIOD_DAYS = 365
MAX_CHEQUE_NUMBER = 10**15
CHEQUE = "CHEQUE"
YEAR_MONTHS = 12
YEAR_DAYS = 360
"""Of a period in days, so that 30 days bear what a month bears (30/360)."""


class DiscountTooLarge(errors.ServiceError):
    """The discount leaves nothing to be paid."""

    status = errors.Status.FAILED_PRECONDITION


class DownPaymentTooLarge(errors.ServiceError):
    """The down payment leaves nothing for the instalments."""

    status = errors.Status.FAILED_PRECONDITION


class InstalmentTooSmall(errors.ServiceError):
    """Divided like this, an instalment would pay off less than a cent."""

    status = errors.Status.FAILED_PRECONDITION


class FixedAmountOutOfRange(errors.ServiceError):
    """The agreed amount of the first or last instalment pays off nothing, or leaves nothing to the others."""

    status = errors.Status.FAILED_PRECONDITION


class RowsDoNotAddUp(errors.ServiceError):
    """The edited rows do not sum to the agreement's total (W-07)."""

    status = errors.Status.INVALID_ARGUMENT


class Method(enum.StrEnum):
    """How the spread sum becomes instalments."""

    PRICE = "PRICE"
    """Level amounts with interest on the balance: A = P·i / (1 - (1 + i)^-n)."""
    SAC = "SAC"
    """Equal principal, and interest on the balance: amounts fall."""
    EQUAL_PRINCIPAL = "EQUAL_PRINCIPAL"
    """Equal principal without interest; left-over cents on the earliest rows (W-06)."""
    INTEREST_FREE = "INTEREST_FREE"
    """Level amounts without interest, whatever the creditor's usual rate; the last row takes the residue (W-02)."""


WITHOUT_INTEREST = frozenset({Method.EQUAL_PRINCIPAL, Method.INTEREST_FREE})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EditedRow:
    """An instalment as somebody wrote it (S3-14): number is its place, from 1."""

    due_date: datetime.date
    amount_minor: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is agreed; amounts in minor units, rates in percent times 10 000, `annual_rate_e4` nominal.

    A period is `period_months` or `period_days`; neither: a month. The rates of accretion, penalty and discount are of
    the sum of the chosen titles (S3-11). `first_amount_minor` and `last_amount_minor` (0: as the others) are whole
    amounts of instalment 1 and n: a different first amount, a balloon; the others are recalculated. `due_dates` are
    dates given one by one, `rows` dates and amounts.
    """

    instalments: int
    first_due_date: datetime.date
    annual_rate_e4: int = 0
    down_payment_minor: int = 0
    down_payment_date: datetime.date | None = None
    discount_minor: int = 0
    method: Method = Method.PRICE
    period_months: int = 0
    period_days: int = 0
    business_days: bool = False
    first_amount_minor: int = 0
    last_amount_minor: int = 0
    due_dates: tuple[datetime.date, ...] = ()
    rows: tuple[EditedRow, ...] = ()
    accretion_rate_e4: int = 0
    penalty_rate_e4: int = 0
    discount_rate_e4: int = 0
    charges_minor: int = 0
    fees_minor: int = 0
    first_cheque_number: int = 0
    """Of instalment 1, where they are paid by cheques; each next one has the next number (S5-12)."""
    means: str = ""
    """What the instalments are paid with, one of creditors.MEANS; empty: whatever the creditor accepts (S2-37)."""

    def check(self, *, today: datetime.date) -> None:
        """Raise InvalidRequest naming each wrong field and its allowed range."""
        wrong: list[errors.FieldViolation] = []

        def refuse(field: str, expected: str) -> None:
            wrong.append(errors.FieldViolation(f"terms.{field}", expected))

        def within(field: str, low: int, high: int) -> None:
            if not low <= getattr(self, field) <= high:
                refuse(field, f"expected {low} to {high}")

        within("instalments", 1, MAX_INSTALMENTS)
        within("annual_rate_e4", 0, MAX_ANNUAL_RATE_E4)
        if self.method in WITHOUT_INTEREST and self.annual_rate_e4 > 0:
            refuse("annual_rate_e4", f"expected 0: {self.method} bears no interest")
        within("period_months", 0, MAX_PERIOD_MONTHS)
        within("period_days", 0, MAX_PERIOD_DAYS)
        if self.period_months and self.period_days:
            refuse("period_days", "expected 0 beside a period in months")
        if self.instalments == 1:
            for field in ("period_months", "period_days"):
                if getattr(self, field) > 0:
                    refuse(field, "expected 0 with one instalment")
        for field in ("accretion_rate_e4", "penalty_rate_e4", "discount_rate_e4"):
            within(field, 0, money.RATE_UNIT)
        within("first_cheque_number", 0, MAX_CHEQUE_NUMBER)
        if self.means and self.means not in creditors.MEANS:
            refuse("means", f"expected one of {', '.join(sorted(creditors.MEANS))}")
        if self.first_cheque_number > 0 and self.means not in ("", CHEQUE):
            refuse("first_cheque_number", f"expected 0 beside {self.means}")
        for field in ("down_payment", "discount", "charges", "fees", "first_amount", "last_amount"):
            if getattr(self, f"{field}_minor") < 0:
                refuse(field, "expected zero or more")
        fixed = [field for field in ("first_amount", "last_amount") if getattr(self, f"{field}_minor") > 0]
        if fixed and self.instalments <= len(fixed):
            refuse(fixed[-1], f"expected none with fewer than {len(fixed) + 1} instalments")
        self._check_dates(refuse, today)
        if wrong:
            raise errors.InvalidRequest(fields=wrong)

    def _check_dates(self, refuse: Callable[[str, str], None], today: datetime.date) -> None:
        if self.first_due_date < today:
            refuse("first_due_date", f"expected {today} or later")
        if self.down_payment_minor > 0:
            if self.down_payment_date is None:
                refuse("down_payment_date", "expected a date beside a down payment")
            elif not today <= self.down_payment_date <= self.first_due_date:
                refuse("down_payment_date", f"expected {today} to the first due date")
        elif self.down_payment_date is not None:
            refuse("down_payment_date", "expected none without a down payment")
        months = max(self.instalments - 1, 0) * (self.period_months or (0 if self.period_days else 1))
        days = max(self.instalments - 1, 0) * self.period_days
        if self.first_due_date.year + months // 12 + days // 365 + 1 >= datetime.MAXYEAR:
            refuse("first_due_date", "the plan would pass the year 9999")
        if self.rows and self.due_dates:
            refuse("due_dates", "expected none beside edited rows, which have dates of their own")
        for field, given in (("due_dates", self.due_dates), ("rows", [row.due_date for row in self.rows])):
            if not given:
                continue
            if len(given) != self.instalments:
                refuse(field, f"expected {self.instalments}, one for each instalment, not {len(given)}")
            if given[0] != self.first_due_date:
                refuse(field, f"expected the first to be the first due date, {self.first_due_date}")
            for place, (one, other) in enumerate(itertools.pairwise(given), start=1):
                if other <= one:
                    at = f"{field}[{place}]" if field == "due_dates" else f"{field}[{place}].due_date"
                    refuse(at, f"expected a date after {one}")
        for place, row in enumerate(self.rows):
            if row.amount_minor <= 0:
                refuse(f"rows[{place}].amount", "expected more than zero")

    @property
    def period_rate(self) -> tuple[int, int]:
        """Interest of a period, as numerator and denominator: a month is a twelfth of a year, a day a 360th."""
        if self.period_days:
            return self.annual_rate_e4 * self.period_days, money.RATE_UNIT * YEAR_DAYS
        return self.annual_rate_e4 * (self.period_months or 1), money.RATE_UNIT * YEAR_MONTHS


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What a negotiation adds to a debt and takes off it (S3-11, S4-03), minor units."""

    accretion_minor: int
    penalty_minor: int
    charges_minor: int
    fees_minor: int
    discount_minor: int

    @property
    def once_minor(self) -> int:
        """What falls whole on instalment 1 (S3-15)."""
        return self.penalty_minor + self.charges_minor + self.fees_minor

    @property
    def total_minor(self) -> int:
        """All that is added, before the discount."""
        return self.accretion_minor + self.once_minor


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of a plan; number 0 is the down payment. amount = capital + interest; closing = opening - capital.

    `once_minor` is the part of the capital that falls on this row alone (S3-15).
    """

    number: int
    due_date: datetime.date
    capital_minor: int
    interest_minor: int
    opening_minor: int
    once_minor: int = 0

    @property
    def amount_minor(self) -> int:
        """What is to be paid on the due date."""
        return self.capital_minor + self.interest_minor

    @property
    def closing_minor(self) -> int:
        """Capital still owed after the row (W-01 prints the opening on the down payment's row: we give both)."""
        return self.opening_minor - self.capital_minor


def add_months(first: datetime.date, months: int) -> datetime.date:
    """The same day `months` later, the month's last day where it has no such day; always counted from `first`."""
    year, month = divmod(first.year * 12 + first.month - 1 + months, 12)
    day = first.day
    if day > 28:
        day = min(day, calendar.monthrange(year, month + 1)[1])
    return datetime.date(year, month + 1, day)


def added(*, debt_minor: int, terms: Terms) -> Added:
    """What the terms add to a debt and take off it; each percentage of the debt, rounded half-up once."""
    return Added(
        accretion_minor=money.half_up(debt_minor * terms.accretion_rate_e4, money.RATE_UNIT),
        penalty_minor=money.half_up(debt_minor * terms.penalty_rate_e4, money.RATE_UNIT),
        charges_minor=terms.charges_minor,
        fees_minor=terms.fees_minor,
        discount_minor=terms.discount_minor
        + money.half_up(debt_minor * terms.discount_rate_e4, money.RATE_UNIT),
    )


def level_amount_minor(
    *, capital_minor: int, annual_rate_e4: int, instalments: int, left_minor: int = 0, period: int = 1
) -> int:
    """A = P·i / (1 - (1 + i)^-n), rounded half-up once; P / n without a rate. Periods of `period` months.

    With `left_minor`, the amount that leaves so much of the capital owed after the last of them.
    """
    return _level(
        capital_minor, left_minor, instalments, annual_rate_e4 * period, money.RATE_UNIT * YEAR_MONTHS
    )


def schedule(
    *,
    debt_minor: int,
    terms: Terms,
    business_day: Callable[[datetime.date], datetime.date] | None = None,
) -> list[Row]:
    """The rows of a plan over `debt_minor`: Σ capital = debt + added - discount, by construction.

    `business_day` moves a date to the next business day; used where the terms ask for it. Raises DiscountTooLarge,
    DownPaymentTooLarge, InstalmentTooSmall, FixedAmountOutOfRange, RowsDoNotAddUp. Who may forgive how much is checked
    by whoever knows the charges.
    """
    extra = added(debt_minor=debt_minor, terms=terms)
    once = extra.once_minor
    balance = debt_minor + extra.accretion_minor - extra.discount_minor
    if balance <= 0:
        raise DiscountTooLarge(
            "the discount leaves nothing to be paid",
            fields=[_at_most("discount", debt_minor + extra.accretion_minor - 1)],
            discount_minor=extra.discount_minor,
            allowed_max_minor=debt_minor + extra.accretion_minor - 1,
        )
    rows: list[Row] = []
    if terms.down_payment_minor:
        if terms.down_payment_minor >= balance:
            raise DownPaymentTooLarge(
                "the down payment leaves nothing for the instalments",
                fields=[_at_most("down_payment", balance - 1)],
                down_payment_minor=terms.down_payment_minor,
                debt_minor=balance,
                allowed_max_minor=balance - 1,
            )
        assert terms.down_payment_date is not None
        rows.append(
            Row(
                number=0,
                due_date=terms.down_payment_date,
                capital_minor=terms.down_payment_minor,
                interest_minor=0,
                opening_minor=balance + once,
            )
        )
        balance -= terms.down_payment_minor
    parts = _divide(balance, once, terms)
    if terms.rows:
        parts = _edit(balance, once, terms, parts)
    dates = due_dates(terms, business_day)
    opening = balance + once
    for number, ((capital, interest), due_date) in enumerate(zip(parts, dates, strict=True), start=1):
        rows.append(
            Row(
                number=number,
                due_date=due_date,
                capital_minor=capital,
                interest_minor=interest,
                opening_minor=opening,
                once_minor=once if number == 1 else 0,
            )
        )
        opening -= capital
    return rows


def due_dates(
    terms: Terms, business_day: Callable[[datetime.date], datetime.date] | None = None
) -> Sequence[datetime.date]:
    """The due dates of the instalments; those given one by one are taken as they are."""
    if terms.rows:
        return [row.due_date for row in terms.rows]
    if terms.due_dates:
        return terms.due_dates
    first = terms.first_due_date
    if terms.period_days:
        step = terms.period_days
        dates = [first + datetime.timedelta(days=step * place) for place in range(terms.instalments)]
    else:
        step = terms.period_months or 1
        dates = [add_months(first, step * place) for place in range(terms.instalments)]
    if terms.business_days and business_day is not None:
        return [business_day(date) for date in dates]
    return dates


def forgiven_e4(*, debt_minor: int, agreed_minor: int) -> int:
    """What of the debt is forgiven, percent times 10 000: max(0, 1 - agreed / debt), half-up (W-04)."""
    return money.half_up(max(0, debt_minor - agreed_minor) * money.RATE_UNIT, debt_minor)


def _level(capital: int, left: int, count: int, rate: int, unit: int) -> int:
    """The level amount that brings `capital` to `left` in `count` periods of rate/unit, as one exact fraction."""
    if rate == 0:
        return money.half_up(capital - left, count)
    grown, base = (unit + rate) ** count, unit**count
    return money.half_up((capital * grown - left * base) * rate, unit * (grown - base))


def _divide(balance: int, once: int, terms: Terms) -> list[tuple[int, int]]:
    """Capital and interest of each instalment; `once` is in the capital of the first."""
    rate, unit = terms.period_rate
    count, left = terms.instalments, 0
    parts: list[tuple[int, int]] = []
    if terms.last_amount_minor:
        count -= 1
        left = money.half_up(terms.last_amount_minor * unit, unit + rate)
        most = balance - count
        if not 0 < left <= most:
            raise _fixed("last_amount", terms.last_amount_minor, 1, most + money.half_up(most * rate, unit))
    if terms.first_amount_minor:
        count -= 1
        interest = money.half_up(balance * rate, unit)
        capital = terms.first_amount_minor - once - interest
        most = balance - left - count
        if not 0 < capital <= most:
            least = once + interest
            raise _fixed("first_amount", terms.first_amount_minor, least + 1, least + most)
        parts.append((capital + once, interest))
        balance -= capital
        once = 0
    for capital, interest in _recalculated(balance, left, count, rate, unit, terms.method):
        if capital <= 0:
            raise InstalmentTooSmall(
                "an instalment would pay off less than a cent: agree on fewer instalments",
                fields=[
                    errors.FieldViolation(
                        "terms.instalments", f"expected fewer than {terms.instalments} for this sum"
                    )
                ],
                instalments=terms.instalments,
                amount_minor=capital + interest,
            )
        parts.append((capital + once, interest))
        once = 0
    if terms.last_amount_minor:
        parts.append((left, terms.last_amount_minor - left))
    return parts


def _recalculated(
    balance: int, left: int, count: int, rate: int, unit: int, method: Method
) -> list[tuple[int, int]]:
    """Capital and interest of `count` rows that bring `balance` to `left`."""
    if method is Method.EQUAL_PRINCIPAL:
        part, cents = divmod(balance - left, count)
        return [(part + 1, 0)] * cents + [(part, 0)] * (count - cents)
    parts = []
    if method is Method.SAC:
        level, equal = 0, money.half_up(balance - left, count)
    else:
        level, equal = _level(balance, left, count, rate, unit), 0
    double, twice = 2 * rate, 2 * unit
    for _ in range(count - 1):
        interest = (double * balance + unit) // twice
        capital = equal or level - interest
        parts.append((capital, interest))
        balance -= capital
    parts.append((balance - left, (double * max(balance, 0) + unit) // twice))
    return parts


def _edit(balance: int, once: int, terms: Terms, parts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Capital and interest of rows as edited. Their sum, and the plan's interest as a whole, stay as calculated.

    Interest goes to the rows as it arises on their balances; rows written as they were calculated are split as they
    were.
    """
    amounts = [row.amount_minor for row in terms.rows]
    total = sum(capital + interest for capital, interest in parts)
    if sum(amounts) != total:
        difference = sum(amounts) - total
        raise RowsDoNotAddUp(
            "the rows do not sum to the agreement's total",
            fields=[
                errors.FieldViolation(
                    "terms.rows",
                    f"expected a sum of {money.from_minor(total)}, not {money.from_minor(sum(amounts))}:"
                    f" difference {money.from_minor(difference)}",
                )
            ],
            difference_minor=difference,
            total_minor=total,
        )
    rate, unit = terms.period_rate
    arising, first = [], once
    for amount in amounts:
        arising.append(money.half_up(max(balance, 0) * rate, unit))
        balance -= amount - arising[-1] - first
        first = 0
    interest = sum(one for _, one in parts)
    weights: Sequence[int] = arising if any(arising) else amounts
    split = money.allocate(interest, weights)
    for place, (amount, one) in enumerate(zip(amounts, split, strict=True)):
        if one >= amount:
            raise InstalmentTooSmall(
                "a row must pay off at least a cent beside its interest",
                fields=[
                    errors.FieldViolation(
                        f"terms.rows[{place}].amount", f"expected more than {money.from_minor(one)}"
                    )
                ],
            )
    return [(amount - one, one) for amount, one in zip(amounts, split, strict=True)]


def _at_most(field: str, minor: int) -> errors.FieldViolation:
    return errors.FieldViolation(f"terms.{field}", f"expected at most {money.from_minor(minor)}")


def _fixed(field: str, amount: int, low: int, high: int) -> FixedAmountOutOfRange:
    return FixedAmountOutOfRange(
        "the amount must pay off something and leave something to the other instalments",
        fields=[
            errors.FieldViolation(
                f"terms.{field}", f"expected {money.from_minor(low)} to {money.from_minor(high)}"
            )
        ],
        amount_minor=amount,
        allowed_min_minor=low,
        allowed_max_minor=high,
    )
