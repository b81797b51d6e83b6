"""Late charges on a title (features S1-17, S1-26; worked example W-15; standards.md 4.8).

Penalty once, on the open principal when it is first charged (CDC art. 52 §1). Interest simple, a month of 30 days, pro
rata die, on the open principal. Amounts in minor units, rates in percent times 10 000 (2 % = 20000), rounding half-up
to the minor unit per title and component. A title whose due date is no business day and that is paid on the next one
bears no charge; paid later, days count from the due date itself (Lei 7.089/1985: "desde que seja quitado no primeiro
dia útil subsequente").
"""

import dataclasses
import datetime

RATE_UNIT = 1_000_000
"""A rate of 100 % as percent times 10 000."""
MONTH_DAYS = 30


def half_up(numerator: int, denominator: int) -> int:
    """The quotient of two non-negative integers, rounded half-up; exact."""
    return (2 * numerator + denominator) // (2 * denominator)


def penalty_minor(*, base_minor: int, rate_e4: int) -> int:
    """Penalty on `base_minor`: W-15: 1000.00 at 2 % is 20.00."""
    return half_up(base_minor * rate_e4, RATE_UNIT)


def interest_minor(*, base_minor: int, monthly_rate_e4: int, days: int) -> int:
    """Simple interest of `days` days: W-15: 1000.00, 45 days at 1 % a month is 15.00."""
    return half_up(base_minor * monthly_rate_e4 * days, RATE_UNIT * MONTH_DAYS)


@dataclasses.dataclass(frozen=True, slots=True)
class Accrual:
    """What a title owes on a date beyond what is posted: penalty on `base_minor`, interest of `interest_days`."""

    base_minor: int = 0
    penalty_minor: int = 0
    interest_minor: int = 0
    interest_days: int = 0

    @property
    def total_minor(self) -> int:
        """Penalty and interest."""
        return self.penalty_minor + self.interest_minor


NONE = Accrual()


def accrue(
    *,
    open_principal_minor: int,
    penalty_rate_e4: int,
    monthly_rate_e4: int,
    payable_until: datetime.date,
    accrued_through: datetime.date,
    penalty_charged: bool,
    date: datetime.date,
) -> Accrual:
    """Charges of a title that are not posted yet, counted to `date` inclusive.

    `payable_until` is the due date rolled to a business day; `accrued_through` the day to which interest is posted (the
    due date where none is). The SQL of store/summary.py is the same formula; a property test holds them together.
    """
    if date <= payable_until or open_principal_minor == 0:
        return NONE
    days = max(0, (date - accrued_through).days)
    return Accrual(
        base_minor=open_principal_minor,
        penalty_minor=0
        if penalty_charged
        else penalty_minor(base_minor=open_principal_minor, rate_e4=penalty_rate_e4),
        interest_minor=interest_minor(
            base_minor=open_principal_minor, monthly_rate_e4=monthly_rate_e4, days=days
        ),
        interest_days=days,
    )
