"""Accounting to creditors (repasse, prestação de contas): what the agency earns on settlements and what is paid over.

A *settlement* is a posting of kind RECEIVED; a contra entry is a negative one. Each stands in exactly one statement.

- **Contract**: by the payment's value date, the product's own contract before the general one; among those the one that
  began last. A value date before the first one is covered by none, and the statement cannot be closed.
- **Age**: days from the title's due date to the value date, at least 0. Plan interest has no title: it is as old as the
  oldest title of its agreement. A title made by a novation is as old as the oldest one it replaced.
- **Percentage**: the band of the age, the rate of the component's group, half-up to the cent on each line.
- **Fixed amount**: once for each payment (or each title that a payment settles), on the line that begins it.
- **Taken back**: a negative line gives back by the contract, age and rate that the settlement was counted with; the
  line that brings a payment (on a case) to zero gives back everything that is left of it, so the centavo is restored
  whatever was rounded on the way.
- **Tax** (ISS, IVA): on what was taken on each line, half-up. Added: the creditor pays it to the agency. Retained: the
  creditor keeps it back and pays it to the state for the agency.
- **Success fee**: of what was received on a case's titles, when nothing of the case is open any more; taken back when
  something is again.
- **Carried**: a net below the minimum, or below zero, is not paid over but carried to the next statement.
"""

import bisect
import dataclasses
import datetime
import enum
import uuid
from collections.abc import Iterable, Sequence
from decimal import Decimal

from servicekit import errors, money

money.RATE_UNIT = 1_000_000
"""100 % as percent times 10 000."""
MAX_MINOR = 10**15
MAX_BANDS = 50
MAX_DAY = 36_500
MAX_PRODUCT = 60
ISS_RANGE = (20_000, 50_000)
"""2 % to 5 %: Lei Complementar 116/2003 arts. 8-A and 8."""
VAT_RANGE = (1, 300_000)


class Frequency(enum.StrEnum):
    """When a period may end."""

    DAY = "DAY"
    WEEK = "WEEK"
    MONTH = "MONTH"


class Grouping(enum.StrEnum):
    """One statement a period, or one a period and case."""

    GROUPED = "GROUPED"
    INDIVIDUAL = "INDIVIDUAL"


class FixedPer(enum.StrEnum):
    """What a fixed amount is taken for, once."""

    PAYMENT = "PAYMENT"
    SETTLEMENT = "SETTLEMENT"


class Tax(enum.StrEnum):
    """Tax on services by country: Brazil's ISS, Portugal's IVA."""

    ISS = "ISS"
    VAT = "VAT"


class StatementState(enum.StrEnum):
    """OPEN collects; CLOSED is counted and never changes; APPROVED by a second person; PAID with a bank reference."""

    OPEN = "OPEN"
    CLOSED = "CLOSED"
    APPROVED = "APPROVED"
    PAID = "PAID"


class CommissionContractExists(errors.ServiceError):
    """The creditor has a contract for this currency and product from this day on already."""

    status = errors.Status.ALREADY_EXISTS


class CommissionContractMissing(errors.ServiceError):
    """No contract says what is earned on a settlement of this value date, or how the creditor is paid over."""

    status = errors.Status.FAILED_PRECONDITION


class PeriodClosed(errors.ServiceError):
    """The period was closed before."""

    status = errors.Status.FAILED_PRECONDITION


class StatementNotClosed(errors.ServiceError):
    """Only a closed statement that nobody has approved can be approved."""

    status = errors.Status.FAILED_PRECONDITION


class StatementNotApproved(errors.ServiceError):
    """Only an approved statement can be paid."""

    status = errors.Status.FAILED_PRECONDITION


class StatementOpen(errors.ServiceError):
    """The statement still collects: it has no lines yet."""

    status = errors.Status.FAILED_PRECONDITION


class ApproverClosedIt(errors.ServiceError):
    """A statement is approved by someone else than who closed it."""

    status = errors.Status.PERMISSION_DENIED


class NothingToPay(errors.ServiceError):
    """The statement pays nothing over: its balance is carried."""

    status = errors.Status.FAILED_PRECONDITION


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Rates in percent times 10 000 from a day past due to the day before the next band's (S2-08 commission limits)."""

    from_day: int
    principal_rate_e4: int = 0
    charges_rate_e4: int = 0
    costs_rate_e4: int = 0

    def rate_e4(self, component: str) -> int:
        """Principal; costs and fees; everything else (correction, penalty, interest, plan interest) is charges."""
        match component:
            case "PRINCIPAL":
                return self.principal_rate_e4
            case "COSTS" | "FEES":
                return self.costs_rate_e4
            case _:
                return self.charges_rate_e4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What is earned on a creditor's settlements of a currency from `valid_from` on; of `product`, or empty: of all
    that have none of their own. Minor units. Frequency, grouping and minimum stand where `product` is empty."""

    contract_id: uuid.UUID
    currency: str
    product: str = ""
    valid_from: datetime.date
    bands: tuple[Band, ...]
    fixed_minor: int = 0
    fixed_per: FixedPer | None = None
    success_rate_e4: int = 0
    tax: Tax | None = None
    tax_rate_e4: int = 0
    tax_retained: bool = False
    minimum_minor: int = 0
    frequency: Frequency | None = None
    grouping: Grouping | None = None

    def check(self) -> Sequence[errors.FieldViolation]:
        """What is wrong with it, each with the allowed range; empty when nothing is."""
        wrong: list[errors.FieldViolation] = []

        def within(field: str, value: int, low: int, high: int) -> None:
            if not low <= value <= high:
                wrong.append(errors.FieldViolation(field, f"expected {low} to {high}"))

        def both(field: str, given: bool, other: bool, text: str) -> None:
            if given != other:
                wrong.append(errors.FieldViolation(field, text))

        if self.currency not in money.CURRENCIES:
            wrong.append(errors.FieldViolation("currency", "expected BRL or EUR"))
        if len(self.product) > MAX_PRODUCT or "\0" in self.product:
            wrong.append(errors.FieldViolation("product", f"expected at most {MAX_PRODUCT} characters"))
        if not 1 <= len(self.bands) <= MAX_BANDS:
            wrong.append(errors.FieldViolation("bands", f"expected 1 to {MAX_BANDS} bands"))
        for place, band in enumerate(self.bands):
            if place == 0 and band.from_day != 0:
                wrong.append(errors.FieldViolation("bands[0].from_day", "expected 0: bands cover every day"))
            elif place:
                within(f"bands[{place}].from_day", band.from_day, self.bands[place - 1].from_day + 1, MAX_DAY)
            for group in ("principal", "charges", "costs"):
                field = f"{group}_rate_e4"
                within(f"bands[{place}].{field}", getattr(band, field), 0, money.RATE_UNIT)
        within("fixed_amount", self.fixed_minor, 0, MAX_MINOR)
        both(
            "fixed_per",
            self.fixed_per is not None,
            self.fixed_minor != 0,
            "expected with a fixed amount, and only then",
        )
        within("success_rate_e4", self.success_rate_e4, 0, money.RATE_UNIT)
        both("tax_rate_e4", self.tax is not None, self.tax_rate_e4 != 0, "expected with a tax, and only then")
        if self.tax is None and self.tax_retained:
            wrong.append(errors.FieldViolation("tax_retained", "expected with a tax only"))
        if self.tax is not None:
            wanted = Tax.ISS if self.currency == "BRL" else Tax.VAT
            if self.tax is not wanted:
                wrong.append(errors.FieldViolation("tax", f"expected {wanted.value} in {self.currency}"))
            within("tax_rate_e4", self.tax_rate_e4, *(ISS_RANGE if self.tax is Tax.ISS else VAT_RANGE))
        within("minimum_amount", self.minimum_minor, 0, MAX_MINOR if not self.product else 0)
        for field in ("frequency", "grouping"):
            both(
                field,
                getattr(self, field) is not None,
                not self.product,
                "expected without a product, and only then",
            )
        return wrong

    def band(self, days: int) -> Band:
        """The band of an age in days (0 or more)."""
        return self.bands[bisect.bisect_right([band.from_day for band in self.bands], days) - 1]

    def percentage(self, amount_minor: int, *, component: str, days: int) -> int:
        """What is taken of a settlement, minor units, half-up to the cent, of the amount's sign."""
        return share(amount_minor, self.band(days).rate_e4(component))

    def tax_of(self, taken_minor: int) -> tuple[int, int]:
        """Tax on what was taken: (added, retained), one of them zero; minor units, half-up."""
        amount = share(taken_minor, self.tax_rate_e4)
        return (0, amount) if self.tax_retained else (amount, 0)


@dataclasses.dataclass(frozen=True, slots=True)
class Reach:
    """From when to when (not included; None: without end) a contract counts for a product; empty: for all others."""

    product: str
    valid_from: datetime.date
    valid_to: datetime.date | None
    contract: Contract


def reaches(contracts: Iterable[Contract]) -> list[Reach]:
    """Contracts of one creditor and currency, cut so that at most one counts for a product and a value date."""
    ordered = sorted(contracts, key=lambda one: one.valid_from)
    general = [one for one in ordered if not one.product]
    found = _line("", general)
    for product in sorted({one.product for one in ordered if one.product}):
        own = [one for one in ordered if one.product == product]
        before = [one for one in general if one.valid_from < own[0].valid_from]
        found += _line(product, [*before, *own])
    return found


def _line(product: str, contracts: Sequence[Contract]) -> list[Reach]:
    ends = [one.valid_from for one in contracts[1:]]
    return [
        Reach(product, one.valid_from, end, one)
        for one, end in zip(contracts, [*ends, None][: len(contracts)], strict=True)
    ]


def contract_on(found: Sequence[Reach], *, product: str, date: datetime.date) -> Contract | None:
    """The contract that counts for a product's settlement of a value date."""
    own = product if any(one.product == product for one in found) else ""
    for one in found:
        if one.product == own and one.valid_from <= date and (one.valid_to is None or date < one.valid_to):
            return one.contract
    return None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """A posting of kind RECEIVED. `unit` is the title, or the instalment whose plan interest it is."""

    posting_id: int
    payment_id: uuid.UUID
    case_id: uuid.UUID
    unit: uuid.UUID
    component: str
    product: str
    amount_minor: int
    value_date: datetime.date
    days_past_due: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A settlement in a statement, with what was taken of it. Minor units; all negative where it was taken back."""

    settlement: Settlement
    contract: Contract
    days_past_due: int
    rate_e4: int
    percentage_minor: int
    fixed_minor: int
    tax_added_minor: int
    tax_retained_minor: int


def count(
    settlements: Iterable[Settlement], found: Sequence[Reach], *, before: Sequence[Line] = ()
) -> list[Line]:
    """The lines of settlements, in the order of the ledger, after the lines that stand in earlier statements.

    The rule in its plainest form; store/remittance.py counts the same in one statement for a slice, and a property test
    holds both together. Raises CommissionContractMissing.
    """
    lines = sorted(before, key=lambda line: line.settlement.posting_id)
    start = len(lines)
    for one in sorted(settlements, key=lambda one: one.posting_id):
        payment = [
            line
            for line in lines
            if (line.settlement.payment_id, line.settlement.case_id) == (one.payment_id, one.case_id)
        ]
        contract, days = contract_on(found, product=one.product, date=one.value_date), one.days_past_due
        given = [
            line
            for line in payment
            if (line.settlement.unit, line.settlement.component) == (one.unit, one.component)
        ]
        if one.amount_minor < 0 and given:
            contract, days = given[-1].contract, given[-1].days_past_due
        if contract is None:
            raise CommissionContractMissing("no contract covers this value date", value_date=one.value_date)
        percentage = contract.percentage(one.amount_minor, component=one.component, days=days)
        held = sum(
            line.settlement.amount_minor
            for line in payment
            if contract.fixed_per is not FixedPer.SETTLEMENT or line.settlement.unit == one.unit
        )
        begins, ends = held <= 0 < held + one.amount_minor, held + one.amount_minor <= 0 < held
        fixed = contract.fixed_minor * (begins - ends)
        added, retained = contract.tax_of(percentage + fixed)
        if sum(line.settlement.amount_minor for line in payment) + one.amount_minor == 0:
            percentage = -sum(line.percentage_minor for line in payment)
            fixed = -sum(line.fixed_minor for line in payment)
            added = -sum(line.tax_added_minor for line in payment)
            retained = -sum(line.tax_retained_minor for line in payment)
        lines.append(
            Line(
                settlement=one,
                contract=contract,
                days_past_due=days,
                rate_e4=contract.band(days).rate_e4(one.component),
                percentage_minor=percentage,
                fixed_minor=fixed,
                tax_added_minor=added,
                tax_retained_minor=retained,
            )
        )
    return lines[start:]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums of a statement in minor units of its currency; a CHECK in the database holds the last three."""

    settlements: int = 0
    gross_minor: int = 0
    commission_minor: int = 0
    success_fee_minor: int = 0
    tax_added_minor: int = 0
    tax_retained_minor: int = 0
    carried_in_minor: int = 0
    minimum_minor: int = 0

    @property
    def net_minor(self) -> int:
        """What is the creditor's, with what was carried; may be negative."""
        return (
            self.gross_minor
            - self.commission_minor
            - self.success_fee_minor
            - self.tax_added_minor
            + self.tax_retained_minor
            + self.carried_in_minor
        )

    @property
    def remitted_minor(self) -> int:
        """What is paid over: the net, or nothing where that is not above zero or less than the minimum."""
        return self.net_minor if self.net_minor > 0 and self.net_minor >= self.minimum_minor else 0

    @property
    def carried_out_minor(self) -> int:
        """What the next statement begins with."""
        return self.net_minor - self.remitted_minor


def totals(lines: Sequence[Line], *, carried_in_minor: int = 0, minimum_minor: int = 0) -> Totals:
    """A statement of these lines, without success fees."""
    return Totals(
        settlements=len(lines),
        gross_minor=sum(line.settlement.amount_minor for line in lines),
        commission_minor=sum(line.percentage_minor + line.fixed_minor for line in lines),
        tax_added_minor=sum(line.tax_added_minor for line in lines),
        tax_retained_minor=sum(line.tax_retained_minor for line in lines),
        carried_in_minor=carried_in_minor,
        minimum_minor=minimum_minor,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fee:
    """A success fee in a statement, minor units; negative where one is given back."""

    rate_e4: int
    base_minor: int
    fee_minor: int
    tax_added_minor: int
    tax_retained_minor: int


def success_fee(contract: Contract, *, resolved: bool, received_minor: int, before: Fee | None) -> Fee | None:
    """What a case's success fee changes by now; None: nothing.

    `received_minor` on the case's titles; `before` sums the fees of earlier statements, with the rate they were taken
    at, which stays while the case stays resolved.
    """
    held = before or Fee(rate_e4=0, base_minor=0, fee_minor=0, tax_added_minor=0, tax_retained_minor=0)
    rate = held.rate_e4 if held.fee_minor else contract.success_rate_e4
    wanted = share(received_minor, rate) if resolved else 0
    if wanted == held.fee_minor:
        return None
    added, retained = contract.tax_of(wanted)
    return Fee(
        rate_e4=rate,
        base_minor=received_minor,
        fee_minor=wanted - held.fee_minor,
        tax_added_minor=added - held.tax_added_minor,
        tax_retained_minor=retained - held.tax_retained_minor,
    )


def share(amount_minor: int, rate_e4: int) -> int:
    """`rate_e4` (percent times 10 000) of an amount, minor units, half-up away from zero: 0.5 is 1, -0.5 is -1."""
    return int(money.round_half_up(Decimal(amount_minor) * rate_e4 / money.RATE_UNIT, 0))


def period_end(frequency: Frequency, date: datetime.date) -> datetime.date:
    """The last day, not after `date`, that may be the day after a period: itself, a Monday, the first of a month."""
    match frequency:
        case Frequency.DAY:
            return date
        case Frequency.WEEK:
            return date - datetime.timedelta(days=date.weekday())
        case Frequency.MONTH:
            return date.replace(day=1)


def check_period_end(
    frequency: Frequency, end: datetime.date, *, business_date: datetime.date, closed: datetime.date | None
) -> None:
    """Raise InvalidRequest for an end that lies ahead or that the frequency does not know, PeriodClosed for one that is
    not after the end of the statement before (`closed`)."""
    if end > business_date:
        raise errors.invalid("period_end", f"expected at most the business date, {business_date}")
    if (last := period_end(frequency, end)) != end:
        raise errors.invalid(
            "period_end",
            {
                Frequency.WEEK: f"expected a Monday (the contract's frequency is WEEK), e.g. {last}",
                Frequency.MONTH: f"expected the first of a month (the contract's frequency is MONTH), e.g. {last}",
                Frequency.DAY: "",
            }[frequency],
        )
    if closed is not None and end <= closed:
        raise PeriodClosed(
            "the period was closed before", field="period_end", after=closed, at_most=business_date
        )
