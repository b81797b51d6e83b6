"""Published series: price indices and interest rates by month or semester (standards.md 4.8).

A series is kept as published (percent with six decimals) and as days: for a date the sum of "rate x days" from its
first day, over one denominator, so that the interest of any stretch of days is two look-ups and exact; an index as
index numbers, so that a correction is one fraction. Nothing is counted beyond the last day that a series covers: an
unpublished value is no ground for a charge, and what it brings is counted when it is published.

- `INDEX` (IPCA, IGP-M, Selic as correction): variation of a month in percent, takes effect with the first day of the
  month after it. The first month's index number is `INDEX_UNIT`; each next one is rounded half-up.
- `MONTHLY_RATE` (LEGAL_BR: Lei 14.905/2024, CC art. 406, Resolução CMN 5.171/2024): simple accumulation, inside a month
  in proportion to its calendar days. The law is in force since 2024-08-30: no day before that bears it.
- `ANNUAL_RATE` (PT_COMMERCIAL: CCom art. 102 §3; PT_COMMERCIAL_62: §5, DL 62/2013): a rate a year for each semester,
  actual days over 365.
"""

import bisect
import dataclasses
import datetime
import enum
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

from servicekit import money

PERCENT = 100_000_000
"""A rate of 100 % as percent times 1 000 000."""
INDEX_UNIT = 10**12
MONTH_LENGTHS = 377_580
"""Least common multiple of 28, 29, 30 and 31."""
YEAR_DAYS = 365


class Kind(enum.StrEnum):
    """What the values of a series are."""

    INDEX = "INDEX"
    MONTHLY_RATE = "MONTHLY_RATE"
    ANNUAL_RATE = "ANNUAL_RATE"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """What is known of a series before any value: its kind, currency, and the first day that it may be counted on."""

    code: str
    kind: Kind
    currency: str
    law: str
    begins: datetime.date | None = None
    shipped: tuple[tuple[datetime.date, int, str], ...] = ()
    """Values that come with the release: first day, percent times 1 000 000, source."""


_AVISO_822 = "Aviso n.º 822/2026 (DGTF)"
SERIES: Mapping[str, Definition] = {
    one.code: one
    for one in (
        Definition(code="IPCA", kind=Kind.INDEX, currency="BRL", law="CC art. 389 (IPCA, IBGE)"),
        Definition(code="IGPM", kind=Kind.INDEX, currency="BRL", law="contract (IGP-M, FGV)"),
        Definition(code="SELIC", kind=Kind.INDEX, currency="BRL", law="contract (Selic, BCB)"),
        Definition(
            code="LEGAL_BR",
            kind=Kind.MONTHLY_RATE,
            currency="BRL",
            law="CC art. 406, Lei 14.905/2024, Resolução CMN 5.171/2024",
            begins=datetime.date(2024, 8, 30),
        ),
        Definition(
            code="PT_COMMERCIAL",
            kind=Kind.ANNUAL_RATE,
            currency="EUR",
            law="CCom art. 102 §3",
            shipped=((datetime.date(2026, 1, 1), 9_150_000, _AVISO_822),),
        ),
        Definition(
            code="PT_COMMERCIAL_62",
            kind=Kind.ANNUAL_RATE,
            currency="EUR",
            law="CCom art. 102 §5, DL 62/2013",
            shipped=((datetime.date(2026, 1, 1), 10_150_000, _AVISO_822),),
        ),
    )
}


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """From `first_day` on: what had come together before it, and what each day adds (an index: nothing)."""

    first_day: datetime.date
    cumulative: int
    per_day: int


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """The days of a series. `at` is what had come together by the end of a day; store/terms.py has the same in SQL."""

    code: str
    kind: Kind
    denominator: int
    first_day: datetime.date
    last_day: datetime.date
    rows: tuple[Row, ...]

    def covered(self, date: datetime.date) -> datetime.date:
        """The date itself, or the last covered day before it."""
        return min(date, self.last_day)

    def at(self, date: datetime.date) -> int:
        """Rate times days up to and with `date` over `denominator`, or the index number of `date`."""
        day = self.covered(date)
        row = self.rows[bisect.bisect_right(self.rows, day, key=lambda one: one.first_day) - 1]
        return row.cumulative + row.per_day * ((day - row.first_day).days + 1)


def month_after(month: datetime.date) -> datetime.date:
    """First day of the month after a first day."""
    return (month.replace(day=28) + datetime.timedelta(days=4)).replace(day=1)


def period_after(kind: Kind, period: datetime.date) -> datetime.date:
    """First day of the month, or semester, after one."""
    if kind is not Kind.ANNUAL_RATE:
        return month_after(period)
    return datetime.date(period.year, 7, 1) if period.month == 1 else datetime.date(period.year + 1, 1, 1)


def table(definition: Definition, values: Sequence[tuple[datetime.date, int]]) -> Table:
    """The days of a series from its values (first day of the period, percent times 1 000 000), which follow each other
    without a gap; at least one."""
    start = datetime.date.min
    first = max(values[0][0], definition.begins or start)
    after = period_after(definition.kind, values[-1][0])
    if definition.kind is Kind.INDEX:
        number = INDEX_UNIT
        rows = [Row(start, number, 0)]
        for period, value in values:
            number = money.half_up(number * (PERCENT + value), PERCENT)
            rows.append(Row(period_after(definition.kind, period), number, 0))
        last = month_after(after) - datetime.timedelta(days=1)
        return Table(definition.code, definition.kind, INDEX_UNIT, first, last, tuple(rows))
    total = 0
    rows = [Row(start, 0, 0)]
    for period, value in values:
        following = period_after(definition.kind, period)
        day = max(period, definition.begins or period)
        if definition.kind is Kind.MONTHLY_RATE:
            per_day = value * (MONTH_LENGTHS // (following - period).days)
        else:
            per_day = value
        rows.append(Row(day, total, per_day))
        total += per_day * (following - day).days
    unit = MONTH_LENGTHS if definition.kind is Kind.MONTHLY_RATE else YEAR_DAYS
    last = after - datetime.timedelta(days=1)
    return Table(definition.code, definition.kind, PERCENT * unit, first, last, tuple(rows))


def legal_rate_e6(*, selic_factor: Decimal, ipca15_factor: Decimal) -> int:
    """The Brazilian legal rate of a month, percent times 1 000 000, from the factors of the month before.

    TL = (Selic factor / IPCA-15 factor - 1) x 100, six decimals, half-even (ABNT NBR 5891); negative is zero (CC art.
    406 §3, Resolução CMN 5.171/2024 art. 2).
    """
    with localcontext() as context:
        context.prec = 50
        rate = (selic_factor / ipca15_factor - 1) * 100
        return max(0, int(rate.quantize(Decimal("0.000001"), ROUND_HALF_EVEN).scaleb(6)))
