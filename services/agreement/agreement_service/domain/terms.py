"""Terms of charges as dated data (R08, R09, R21; S1-17, S1-26; standards.md 4.8), and what the law allows in them.

Of the rows that stand for a title (its currency, its debtor a natural person or not, valid from its due date or before)
the most specific counts: the title's, its product's, its creditor's, the house's; of these the latest, then the last
set. A title's own rates, from its file or edited, go before all of them.
"""

import dataclasses
import datetime
import enum
import uuid
from collections.abc import Mapping, Sequence

from agreement_service.domain import charges, series
from servicekit import errors, money

MAX_MINOR = 10**12
MAX_GRACE_DAYS = 90
MAX_TEXT = 300


class Unit(enum.StrEnum):
    """What an interest rate is for."""

    DAY = "DAY"
    MONTH = "MONTH"
    YEAR = "YEAR"


class DayCount(enum.StrEnum):
    """How days become parts of a month or year. THIRTY_DAY_MONTH: actual days, months of 30, years of 360."""

    THIRTY_DAY_MONTH = "THIRTY_DAY_MONTH"
    THIRTY_360 = "THIRTY_360"
    ACTUAL_365 = "ACTUAL_365"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """Limits of a law from a day on. Rates in percent times 10 000, amounts in minor units."""

    valid_from: datetime.date
    source: str
    values: Mapping[str, int]


CONSUMER_BR = (
    Law(
        valid_from=datetime.date(1996, 8, 2),
        source="CDC art. 52 §1 (Lei 9.298/1996)",
        values={"penalty_rate_e4": 20_000},
    ),
)
"""Penalty of a consumer in Brazil."""
BANK_CREDIT_PT = (
    Law(
        valid_from=datetime.date(2013, 9, 4),
        source="DL 58/2013 art. 8, 9",
        values={
            "surcharge_e4": 30_000,
            "commission_rate_e4": 40_000,
            "commission_minimum_minor": 1_200,
            "commission_maximum_minor": 15_000,
            "commission_above_minor": 5_000_000,
            "commission_above_rate_e4": 5_000,
        },
    ),
)
"""Surcharge for default and commission for recovery on an instalment of bank credit (W-17). The amounts may be indexed
yearly: the next figures are one more row."""
LATE_PAYMENT_PT = (
    Law(
        valid_from=datetime.date(2013, 7, 1),
        source="DL 62/2013 art. 7",
        values={"late_payment_minor": 4_000},
    ),
)
"""Least compensation for a late payment between companies."""


def law_on(laws: Sequence[Law], date: datetime.date) -> Law:
    """What is in force on a date; before the first, the first."""
    return max(
        (one for one in laws if one.valid_from <= date), key=lambda one: one.valid_from, default=laws[0]
    )


class ChargeAboveLegalLimit(errors.InvalidRequest):
    """A charge is above what the law allows (R09, R21)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose titles terms are for. `creditor_id` None: the house's; `product` "": any; `title_id`: this one."""

    creditor_id: uuid.UUID | None = None
    product: str = ""
    title_id: uuid.UUID | None = None
    currency: str
    consumer: bool
    valid_from: datetime.date


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is charged; zero or "" for nothing. Rates in percent times 10 000, amounts in minor units of the scope's
    currency. `recovery_commission`: that of DL 58/2013 as in force on the scope's first day."""

    penalty_rate_e4: int = 0
    penalty_minor: int = 0
    interest_rate_e4: int = 0
    surcharge_e4: int = 0
    interest_unit: Unit = Unit.MONTH
    day_count: DayCount = DayCount.THIRTY_DAY_MONTH
    interest_series: str = ""
    correction_series: str = ""
    recovery_commission: bool = False
    late_payment_minor: int = 0
    expenses_minor: int = 0
    fees_rate_e4: int = 0
    grace_days: int = 0
    source: str = ""

    def check(self, scope: Scope) -> None:
        """Raises InvalidRequest for what cannot be, ChargeAboveLegalLimit for what may not be."""
        wrong = [*self._ranges(scope), *self._combinations(scope)]
        if wrong:
            raise errors.InvalidRequest(fields=wrong)
        if above := list(self._above(scope)):
            raise ChargeAboveLegalLimit("above what the law allows", fields=above)

    def commission_values(self, scope: Scope) -> Mapping[str, int]:
        """Rate and limits of the commission; zeroes without."""
        values = law_on(BANK_CREDIT_PT, scope.valid_from).values
        return {
            name: values[name] if self.recovery_commission else 0 for name in values if name != "surcharge_e4"
        }

    @property
    def interest_factor(self) -> int:
        """Numerator of a day's interest."""
        rate = self.interest_rate_e4 + self.surcharge_e4
        return (
            12 * rate if self.interest_unit is Unit.MONTH and self.day_count is DayCount.ACTUAL_365 else rate
        )

    @property
    def interest_denominator(self) -> int:
        """Its denominator."""
        if self.interest_unit is Unit.DAY:
            return money.RATE_UNIT
        if self.day_count is DayCount.ACTUAL_365:
            return money.RATE_UNIT * series.YEAR_DAYS
        return money.RATE_UNIT * (charges.MONTH_DAYS if self.interest_unit is Unit.MONTH else 360)

    def _ranges(self, scope: Scope) -> list[errors.FieldViolation]:
        wrong = []

        def within(field: str, low: int, high: int) -> None:
            if not low <= getattr(self, field) <= high:
                wrong.append(errors.FieldViolation(f"charge_terms.{field}", f"expected {low} to {high}"))

        for field in ("penalty_rate_e4", "interest_rate_e4", "surcharge_e4", "fees_rate_e4"):
            within(field, 0, money.RATE_UNIT)
        for field in ("penalty_minor", "late_payment_minor", "expenses_minor"):
            within(field, 0, MAX_MINOR)
        within("grace_days", 0, MAX_GRACE_DAYS)
        if not 1 <= len(self.source) <= MAX_TEXT or "\0" in self.source:
            wrong.append(
                errors.FieldViolation(
                    "charge_terms.source", f"expected the contract or law, at most {MAX_TEXT} characters"
                )
            )
        for field, kinds in (
            ("interest_series", (series.Kind.MONTHLY_RATE, series.Kind.ANNUAL_RATE)),
            ("correction_series", (series.Kind.INDEX,)),
        ):
            known = [
                one.code
                for one in series.SERIES.values()
                if one.kind in kinds and one.currency == scope.currency
            ]
            if getattr(self, field) and getattr(self, field) not in known:
                wrong.append(
                    errors.FieldViolation(
                        f"charge_terms.{field}", f"expected one of {', '.join(known) or 'none'}"
                    )
                )
        return wrong

    def _combinations(self, scope: Scope) -> list[errors.FieldViolation]:
        wrong = []
        if self.penalty_rate_e4 and self.penalty_minor:
            wrong.append(
                errors.FieldViolation("charge_terms.penalty_minor", "expected a rate or an amount, not both")
            )
        if self.interest_series and (self.interest_rate_e4 or self.surcharge_e4):
            wrong.append(errors.FieldViolation("charge_terms.interest_rate_e4", "expected 0 beside a series"))
        if self.surcharge_e4 and self.interest_unit is not Unit.YEAR:
            wrong.append(
                errors.FieldViolation("charge_terms.surcharge_e4", "expected a rate a year beside it")
            )
        if scope.currency != "EUR":
            wrong += [
                errors.FieldViolation(f"charge_terms.{field}", "expected in EUR only")
                for field in ("surcharge_e4", "recovery_commission", "late_payment_minor")
                if getattr(self, field)
            ]
        return wrong

    def _above(self, scope: Scope) -> list[errors.FieldViolation]:
        def above(field: str, limit: int, law: Law) -> errors.FieldViolation:
            return errors.FieldViolation(f"charge_terms.{field}", f"expected at most {limit}: {law.source}")

        found = []
        if scope.consumer and scope.currency == "BRL":
            law = law_on(CONSUMER_BR, scope.valid_from)
            if self.penalty_rate_e4 > law.values["penalty_rate_e4"]:
                found.append(above("penalty_rate_e4", law.values["penalty_rate_e4"], law))
            if self.penalty_minor:
                found.append(above("penalty_minor", 0, law))
        law = law_on(BANK_CREDIT_PT, scope.valid_from)
        if self.surcharge_e4 > law.values["surcharge_e4"]:
            found.append(above("surcharge_e4", law.values["surcharge_e4"], law))
        if self.surcharge_e4 or self.recovery_commission:
            found += [
                above(field, 0, law)
                for field in ("penalty_rate_e4", "penalty_minor", "late_payment_minor", "fees_rate_e4")
                if getattr(self, field)
            ]
        if scope.consumer:
            law = law_on(LATE_PAYMENT_PT, scope.valid_from)
            if self.late_payment_minor:
                found.append(above("late_payment_minor", 0, law))
            if self.interest_series.startswith("PT_COMMERCIAL"):
                found.append(
                    errors.FieldViolation(
                        "charge_terms.interest_series", f"expected a rate for natural persons: {law.source}"
                    )
                )
        return found


def penalty_cap_e4(*, currency: str, consumer: bool, date: datetime.date) -> int | None:
    """The highest penalty rate that a title may bear; None without one (R09)."""
    if not consumer or currency != "BRL":
        return None
    return law_on(CONSUMER_BR, date).values["penalty_rate_e4"]


def interest_rule(unit: Unit, day_count: DayCount) -> charges.Rule:
    """The rule that a rate is counted by."""
    if unit is Unit.DAY:
        return (
            charges.Rule.INTEREST_30_360 if day_count is DayCount.THIRTY_360 else charges.Rule.INTEREST_DAILY
        )
    return {
        DayCount.THIRTY_DAY_MONTH: charges.Rule.INTEREST_30,
        DayCount.THIRTY_360: charges.Rule.INTEREST_30_360,
        DayCount.ACTUAL_365: charges.Rule.INTEREST_ACTUAL_365,
    }[day_count]
