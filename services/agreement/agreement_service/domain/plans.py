"""Plans: Price amortisation with opening and closing balances (features S1-32, S1-33; W-01, W-02; standards.md 4.9)."""

import calendar
import dataclasses
import datetime
from decimal import Context, Decimal, localcontext

from servicekit import errors, money

MAX_INSTALMENTS = 360
MAX_ANNUAL_RATE_E4 = 10_000_000
"""1000 % a year: above it is a mistake of units."""


class DiscountAboveCharges(errors.ServiceError):
    """The discount forgives penalty and interest only, never principal (R28 asks a second pair of eyes for that)."""

    status = errors.Status.FAILED_PRECONDITION


class DownPaymentTooLarge(errors.ServiceError):
    """The down payment leaves nothing for the instalments."""

    status = errors.Status.FAILED_PRECONDITION


class InstalmentTooSmall(errors.ServiceError):
    """Divided like this, an instalment would pay off less than a cent."""

    status = errors.Status.FAILED_PRECONDITION


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is agreed; amounts in minor units, `annual_rate_e4` nominal, percent times 10 000, a month is a twelfth."""

    instalments: int
    first_due_date: datetime.date
    annual_rate_e4: int = 0
    down_payment_minor: int = 0
    down_payment_date: datetime.date | None = None
    discount_minor: int = 0

    def check(self, *, today: datetime.date) -> None:
        """Raise InvalidRequest naming each wrong field."""
        wrong: list[errors.FieldViolation] = []

        def refuse(field: str, expected: str) -> None:
            wrong.append(errors.FieldViolation(f"terms.{field}", expected))

        if not 1 <= self.instalments <= MAX_INSTALMENTS:
            refuse("instalments", f"expected 1 to {MAX_INSTALMENTS}")
        if not 0 <= self.annual_rate_e4 <= MAX_ANNUAL_RATE_E4:
            refuse("annual_rate_e4", f"expected 0 to {MAX_ANNUAL_RATE_E4}")
        if self.down_payment_minor < 0:
            refuse("down_payment", "expected zero or more")
        if self.discount_minor < 0:
            refuse("discount", "expected zero or more")
        if self.first_due_date < today:
            refuse("first_due_date", f"expected {today} or later")
        if self.down_payment_minor > 0:
            if self.down_payment_date is None:
                refuse("down_payment_date", "expected a date beside a down payment")
            elif not today <= self.down_payment_date <= self.first_due_date:
                refuse("down_payment_date", f"expected {today} to the first due date")
        elif self.down_payment_date is not None:
            refuse("down_payment_date", "expected none without a down payment")
        if self.instalments >= 1 and self.first_due_date.year + self.instalments // 12 >= datetime.MAXYEAR:
            refuse("first_due_date", "the plan would pass the year 9999")
        if wrong:
            raise errors.InvalidRequest(fields=wrong)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of a plan; number 0 is the down payment. amount = capital + interest; closing = opening - capital."""

    number: int
    due_date: datetime.date
    capital_minor: int
    interest_minor: int
    opening_minor: int

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
    return datetime.date(year, month + 1, min(first.day, calendar.monthrange(year, month + 1)[1]))


def level_amount_minor(*, capital_minor: int, annual_rate_e4: int, instalments: int) -> int:
    """A = P·i / (1 - (1 + i)^-n), rounded half-up once; P / n without a rate."""
    if annual_rate_e4 == 0:
        return (2 * capital_minor + instalments) // (2 * instalments)
    with localcontext(Context(prec=60)):
        rate = Decimal(annual_rate_e4) / Decimal(12_000_000)
        amount = money.from_minor(capital_minor) * rate / (1 - (1 + rate) ** -instalments)
        return money.to_minor(amount)


def schedule(*, debt_minor: int, terms: Terms) -> list[Row]:
    """The rows of a plan over `debt_minor` less the discount. The last row takes the residue.

    Raises DownPaymentTooLarge, InstalmentTooSmall. The discount is checked by whoever knows the charges.
    """
    balance = debt_minor - terms.discount_minor
    rows: list[Row] = []
    if terms.down_payment_minor:
        if terms.down_payment_minor >= balance:
            raise DownPaymentTooLarge(
                "the down payment leaves nothing for the instalments",
                down_payment_minor=terms.down_payment_minor,
                debt_minor=balance,
            )
        assert terms.down_payment_date is not None
        rows.append(
            Row(
                number=0,
                due_date=terms.down_payment_date,
                capital_minor=terms.down_payment_minor,
                interest_minor=0,
                opening_minor=balance,
            )
        )
        balance -= terms.down_payment_minor
    amount = level_amount_minor(
        capital_minor=balance, annual_rate_e4=terms.annual_rate_e4, instalments=terms.instalments
    )
    for number in range(1, terms.instalments + 1):
        interest = (2 * balance * terms.annual_rate_e4 + 12_000_000) // 24_000_000
        capital = balance if number == terms.instalments else amount - interest
        if not 0 < capital <= balance:
            raise InstalmentTooSmall(
                "an instalment would pay off less than a cent: agree on fewer instalments",
                instalments=terms.instalments,
                amount_minor=amount,
            )
        rows.append(
            Row(
                number=number,
                due_date=add_months(terms.first_due_date, number - 1),
                capital_minor=capital,
                interest_minor=interest,
                opening_minor=balance,
            )
        )
        balance -= capital
    return rows


def check_discount(*, discount_minor: int, charges_minor: int) -> None:
    """Raises DiscountAboveCharges."""
    if discount_minor > charges_minor:
        raise DiscountAboveCharges(
            "the discount forgives penalty and interest, not principal",
            discount_minor=discount_minor,
            allowed_max_minor=charges_minor,
        )
