"""Payment conditions and their options, and the negotiation that an option stands for (S4-02..05, S4-16; W-14)."""

import dataclasses
import datetime
import uuid
from collections.abc import Mapping, Sequence

from agreement_service.domain import accounts, creditors, plans, proposals
from servicekit import errors, money

MAX_DAYS = 36_500
MAX_INTERVAL = 365
MAX_DESCRIPTION = 200
MAX_OPTIONS = 100
MAX_MINOR = 10**15


class EntryTooSmall(errors.ServiceError):
    """The entry is below the option's least one (W-14)."""

    status = errors.Status.FAILED_PRECONDITION


class EntryNotOfTheOption(errors.ServiceError):
    """The option has no entry: choose one with an entry (S4-04)."""

    status = errors.Status.FAILED_PRECONDITION


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A way to pay. Rates in percent times 10 000; `interval_days` between due dates; instalments after the entry."""

    id: uuid.UUID
    number: int
    instalments: int
    interval_days: int
    interest_discount_e4: int = 0
    debt_discount_e4: int = 0
    with_entry: bool = False
    minimum_entry_e4: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A payment condition. Minor units of `currency`, days are calendar days, rates in percent times 10 000.

    `creditor_id` None: of all creditors. None for an end that is open, and for a rate: the titles' own charges.
    """

    id: uuid.UUID
    creditor_id: uuid.UUID | None
    description: str
    active: bool
    is_default: bool
    currency: str
    value_from_minor: int = 0
    value_to_minor: int | None = None
    delay_from: int = 0
    delay_to: int | None = None
    days_to_first: int = 0
    means_filter: tuple[str, ...] = ()
    charge_means: str = ""
    interest_e4: int | None = None
    penalty_e4: int | None = None
    options: tuple[Option, ...] = ()
    version: int = 1

    def check(self) -> Sequence[errors.FieldViolation]:
        """What is wrong with it, option by option (W-14); empty when nothing is."""
        wrong: list[errors.FieldViolation] = []

        def refuse(field: str, expected: str) -> None:
            wrong.append(errors.FieldViolation(field, expected))

        def within(field: str, value: int | None, low: int, high: int) -> None:
            if value is not None and not low <= value <= high:
                refuse(field, f"expected {low} to {high}")

        if not 1 <= len(self.description) <= MAX_DESCRIPTION or not self.description.isprintable():
            refuse("description", f"expected 1 to {MAX_DESCRIPTION} printable characters")
        if self.currency not in money.CURRENCIES:
            refuse("currency", f"expected {' or '.join(sorted(money.CURRENCIES))}")
        if self.is_default and not self.active:
            refuse("is_default", "expected an active condition")
        within("value_from", self.value_from_minor, 0, MAX_MINOR)
        within("value_to", self.value_to_minor, self.value_from_minor, MAX_MINOR)
        within("delay_from", self.delay_from, 0, MAX_DAYS)
        within("delay_to", self.delay_to, self.delay_from, MAX_DAYS)
        within("days_to_first", self.days_to_first, 0, MAX_INTERVAL)
        within("interest_rate_e4", self.interest_e4, 0, plans.MAX_ANNUAL_RATE_E4)
        within("penalty_rate_e4", self.penalty_e4, 0, money.RATE_UNIT)
        known = ", ".join(sorted(creditors.MEANS))
        if set(self.means_filter) - creditors.MEANS or len(set(self.means_filter)) < len(self.means_filter):
            refuse("means_filter", f"expected some of {known}, each once")
        if self.charge_means not in creditors.MEANS:
            refuse("charge_means", f"expected one of {known}")
        if not 1 <= len(self.options) <= MAX_OPTIONS:
            refuse("options", f"expected 1 to {MAX_OPTIONS}")
        numbers = [one.number for one in self.options]
        for place, one in enumerate(self.options):
            at = f"options[{place}]"
            within(f"{at}.number", one.number, 1, 1_000)
            if numbers.index(one.number) != place:
                refuse(f"{at}.number", "expected each number once")
            within(f"{at}.instalments", one.instalments, 1, plans.MAX_INSTALMENTS)
            if one.instalments == 1:
                within(f"{at}.interval_days", one.interval_days, 0, 0)
                if one.with_entry:
                    refuse(f"{at}.with_entry", "expected none with one instalment")
            else:
                within(f"{at}.interval_days", one.interval_days, 1, MAX_INTERVAL)
            within(f"{at}.interest_discount_e4", one.interest_discount_e4, 0, money.RATE_UNIT)
            within(f"{at}.debt_discount_e4", one.debt_discount_e4, 0, money.RATE_UNIT - 1)
            within(
                f"{at}.minimum_entry_e4",
                one.minimum_entry_e4,
                1 if one.with_entry else 0,
                money.RATE_UNIT - 1 if one.with_entry else 0,
            )
        return wrong

    def option(self, number: int) -> Option | None:
        """The option of a number."""
        return next((one for one in self.options if one.number == number), None)

    def fits(self, *, creditor_id: uuid.UUID, currency: str, delay: int) -> bool:
        """Whether it is offered for a debt that is `delay` days past due; an inactive one never is (W-14)."""
        return (
            self.active
            and self.creditor_id in (None, creditor_id)
            and self.currency == currency
            and self.delay_from <= delay
            and (self.delay_to is None or delay <= self.delay_to)
        )

    def value_fits(self, debt_minor: int) -> bool:
        """Whether the debt lies in the range for which it is meant."""
        return self.value_from_minor <= debt_minor and (
            self.value_to_minor is None or debt_minor <= self.value_to_minor
        )


def delay(titles: Sequence[accounts.Title], *, today: datetime.date) -> int:
    """Days past due of the oldest of the titles; 0 when none is."""
    return max([0, *((today - title.due_date).days for title in titles)])


def charges(
    condition: Condition,
    option: Option,
    titles: Sequence[accounts.Title],
    *,
    date: datetime.date,
) -> Mapping[uuid.UUID, proposals.Charges]:
    """Penalty and interest of each title in the negotiation, counted to `date`; titles that keep theirs are left out.

    The condition's percentages of the open principal stand in place of what the title owes, never above it (R09);
    the option's discount comes off the interest. Each rounded half-up once.
    """
    found = {}
    for title in titles:
        owed = title.owed(date)
        own_interest = owed.get(accounts.Component.INTEREST, 0)
        own_penalty = owed.get(accounts.Component.PENALTY, 0)
        interest, penalty = own_interest, own_penalty
        if condition.interest_e4 is not None:
            asked = money.half_up(title.open_principal_minor * condition.interest_e4, money.RATE_UNIT)
            interest = min(own_interest, asked)
        if condition.penalty_e4 is not None:
            asked = money.half_up(title.open_principal_minor * condition.penalty_e4, money.RATE_UNIT)
            penalty = min(own_penalty, asked)
        interest -= money.half_up(interest * option.interest_discount_e4, money.RATE_UNIT)
        if (interest, penalty) != (own_interest, own_penalty):
            found[title.title_id] = proposals.Charges(penalty_minor=penalty, interest_minor=interest)
    return found


def terms(condition: Condition, option: Option, *, today: datetime.date, entry_minor: int = 0) -> plans.Terms:
    """The plan that an option stands for, offered `today`: no plan interest, periods in days, the entry first."""
    first = today + datetime.timedelta(days=condition.days_to_first)
    return plans.Terms(
        method=plans.Method.INTEREST_FREE,
        instalments=option.instalments,
        period_days=option.interval_days,
        first_due_date=first + datetime.timedelta(days=option.interval_days if entry_minor else 0),
        down_payment_minor=entry_minor,
        down_payment_date=first if entry_minor else None,
        discount_rate_e4=option.debt_discount_e4,
        means=condition.charge_means,
    )


def entry(option: Option, *, total_minor: int, creditor_minimum_minor: int, given_minor: int | None) -> int:
    """The entry of an option over `total_minor`: what is given, else the least one; a part of a cent rounded up.

    Raises EntryNotOfTheOption, EntryTooSmall.
    """
    if not option.with_entry:
        if given_minor:
            raise EntryNotOfTheOption("the option has no entry", option=option.number)
        return 0
    least = max(-(-total_minor * option.minimum_entry_e4 // money.RATE_UNIT), creditor_minimum_minor)
    if given_minor is None:
        return least
    if given_minor < least:
        raise EntryTooSmall(
            "the entry is below the least one", entry_minor=given_minor, allowed_min_minor=least
        )
    return given_minor
