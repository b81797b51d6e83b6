"""Negotiations: what chosen titles owe on a date, what the terms add and forgive, and the plan over the rest (features
S1-25, S1-26, S1-31, S2-37, S3-09, S3-11, S4-03, S5-03, S5-07, S5-09, S5-19; W-01, W-04, W-06, W-09).

    debt + added - forgiven = capital of the plan        (and so for each title, by component)

What the negotiation adds becomes charges of the titles when the agreement is accepted: accretion INTEREST, penalty
PENALTY, charges COSTS, fees FEES, each spread over the titles in proportion to what they owe (that is what a percentage
of their sum means), left-over cents to the oldest. The discount forgives charges first, oldest title first: interest,
penalty, fees, costs, correction, those added included; what is left of it forgives principal, spread in proportion, so
that no title vanishes.
"""

import dataclasses
import datetime
import uuid
from collections.abc import Callable, Mapping, Sequence

from agreement_service.domain import accounts, creditors, limits, plans
from servicekit import errors, money

FORECAST = "FORECAST"
"""The type of a title that is expected, not billed yet (S5-07)."""
ORDER = ("interest", "penalty", "fees", "costs", "correction")
"""In which order a discount forgives charges."""
_NAMES = tuple((component.value.lower(), component) for component in accounts.WATERFALL)


class NothingToAgreeOn(errors.ServiceError):
    """The cases have no open title outside an agreement."""

    status = errors.Status.FAILED_PRECONDITION


class TitlesNotEligible(errors.ServiceError):
    """A chosen title cannot be negotiated: the violations say which and why (S3-09, S5-07, S5-19)."""

    status = errors.Status.FAILED_PRECONDITION


class OutsideCreditorSettings(errors.ServiceError):
    """The plan is not one that the creditor allows (S1-25, S1-26)."""

    status = errors.Status.FAILED_PRECONDITION


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Charges:
    """Penalty and interest that a title is to have in the negotiation, minor units; None leaves it (S5-09)."""

    penalty_minor: int | None = None
    interest_minor: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """What a negotiation comes to, minor units. `agreed` in the order of the titles."""

    date: datetime.date
    debt_minor: int
    added: plans.Added
    edited_minor: int
    """Added by hand to penalty and interest of titles (S5-09)."""
    forgiven_charges_minor: int
    forgiven_principal_minor: int
    charges_minor: int
    """Of the debt and of what is added, what is not principal."""
    principal_minor: int
    agreed: Sequence[accounts.AgreedTitle]
    rows: Sequence[plans.Row]

    @property
    def added_minor(self) -> int:
        """All that is added to the debt."""
        return self.added.total_minor + self.edited_minor

    @property
    def discount_minor(self) -> int:
        """All that is forgiven."""
        return self.forgiven_charges_minor + self.forgiven_principal_minor

    @property
    def plan_interest_minor(self) -> int:
        """Interest of the plan."""
        return sum(row.interest_minor for row in self.rows)

    @property
    def total_minor(self) -> int:
        """Sum of the rows."""
        return sum(row.amount_minor for row in self.rows)

    @property
    def forgiven_e4(self) -> int:
        """W-04: what of the debt is not to be paid, percent times 10 000; never negative."""
        return plans.forgiven_e4(debt_minor=self.debt_minor, agreed_minor=self.total_minor)

    def asked(self, terms: plans.Terms) -> Sequence[tuple[limits.Kind, int]]:
        """What somebody needs authority for (S2-08): kinds and values, of what is added or forgiven those that are
        something. Percentages are rounded against whoever asks."""
        found = [
            (limits.Kind.DISCOUNT_CHARGES, _part(self.forgiven_charges_minor, self.charges_minor)),
            (limits.Kind.DISCOUNT_PRINCIPAL, _part(self.forgiven_principal_minor, self.principal_minor)),
            (limits.Kind.PENALTY, terms.penalty_rate_e4),
            (limits.Kind.INTEREST, -(-terms.annual_rate_e4 // plans.YEAR_MONTHS)),
            (limits.Kind.COMMISSION, _part(self.added.fees_minor, self.debt_minor)),
            (limits.Kind.EXPENSES, self.added.charges_minor),
        ]
        plan = [
            (limits.Kind.INSTALMENTS, terms.instalments),
            (limits.Kind.INSTALMENT_AMOUNT, min(row.amount_minor for row in self.rows if row.number)),
        ]
        if terms.instalments > 1:
            agreed = self.total_minor - self.plan_interest_minor
            plan.append((limits.Kind.DOWN_PAYMENT, terms.down_payment_minor * money.RATE_UNIT // agreed))
        return [*plan, *(one for one in found if one[1])]


def choose(
    titles: Sequence[accounts.Title],
    *,
    title_ids: Sequence[uuid.UUID],
    include_not_due: bool,
    business_date: datetime.date | None,
) -> list[accounts.Title]:
    """The titles to negotiate, oldest first: those of `title_ids`, or all that are open, outside an agreement and no
    forecast.

    A chosen title that is not yet past due on `business_date` is taken only with `include_not_due`, and beside one that
    is (S5-19); without a date due dates do not matter. Raises NothingToAgreeOn, TitlesNotEligible.
    """
    by_id = {title.title_id: title for title in titles}
    if not title_ids:
        chosen = [title for title in titles if _why_not(title, None) is None]
        if not chosen:
            raise NothingToAgreeOn("no open title is outside an agreement")
    else:
        latest = None if include_not_due else business_date
        wrong = [
            errors.FieldViolation(f"title_ids[{place}]", why)
            for place, title_id in enumerate(title_ids)
            if (why := _why_not(by_id.get(title_id), latest)) is not None
        ]
        if len(set(title_ids)) != len(title_ids):
            wrong.append(errors.FieldViolation("title_ids", "expected each title once"))
        if wrong:
            raise TitlesNotEligible("titles cannot be negotiated", fields=wrong)
        chosen = [by_id[title_id] for title_id in title_ids]
        if business_date is not None and all(title.payable_until >= business_date for title in chosen):
            raise TitlesNotEligible(
                "titles not yet due are negotiated beside one that is past due",
                fields=[errors.FieldViolation("title_ids", "expected at least one title past due")],
            )
    return sorted(chosen, key=lambda title: (title.due_date, title.reference, title.case_id))


def price(
    *,
    titles: Sequence[accounts.Title],
    terms: plans.Terms,
    date: datetime.date,
    charges: Mapping[uuid.UUID, Charges] | None = None,
    business_day: Callable[[datetime.date], datetime.date] | None = None,
) -> Priced:
    """The negotiation of `titles` (oldest first), their charges counted to `date`.

    `charges` are edited by title. Raises as plans.schedule.
    """
    sheets = [_Sheet(title, date) for title in titles]
    for sheet in sheets if charges else ():
        assert charges is not None
        if (edit := charges.get(sheet.title.title_id)) is not None:
            sheet.edit(edit)
    debt = sum(sheet.debt for sheet in sheets)
    edited = sum(sheet.added_total for sheet in sheets)
    base = sum(sheet.weight for sheet in sheets)
    extra = plans.added(debt_minor=base, terms=terms)
    rows = plans.schedule(debt_minor=base, terms=terms, business_day=business_day)
    weights = [sheet.weight for sheet in sheets]
    for component, amount in (
        ("interest", extra.accretion_minor),
        ("penalty", extra.penalty_minor),
        ("costs", extra.charges_minor),
        ("fees", extra.fees_minor),
    ):
        if amount:
            for sheet, part in zip(sheets, money.allocate(amount, weights), strict=True):
                sheet.added[component] = sheet.added.get(component, 0) + part
    left = extra.discount_minor
    for component in ORDER if left else ():
        for sheet in sheets:
            part = min(left, sheet.left(component))
            if part:
                sheet.waived[component] = sheet.waived.get(component, 0) + part
                left -= part
    if left:
        for sheet, part in zip(
            sheets, money.allocate(left, [sheet.own["principal"] for sheet in sheets]), strict=True
        ):
            if part:
                sheet.waived["principal"] = part
    principal = sum(sheet.own["principal"] for sheet in sheets)
    return Priced(
        date=date,
        debt_minor=debt,
        added=extra,
        edited_minor=edited,
        forgiven_charges_minor=sum(sheet.waived_total for sheet in sheets) - left,
        forgiven_principal_minor=left,
        charges_minor=debt - principal + edited + extra.total_minor,
        principal_minor=principal,
        agreed=[sheet.agreed() for sheet in sheets],
        rows=rows,
    )


def check_creditor(settings: creditors.CreditorSettings, *, terms: plans.Terms, priced: Priced) -> None:
    """The creditor's rules (S1-25, S1-26); floors in percent are of what is agreed without plan interest.

    One payment of everything needs no down payment. Raises OutsideCreditorSettings naming every rule that is not kept.
    """
    agreed = priced.total_minor - priced.plan_interest_minor
    wrong = []
    if terms.instalments > settings.maximum_instalments:
        wrong.append(
            errors.FieldViolation("terms.instalments", f"expected 1 to {settings.maximum_instalments}")
        )
    least = settings.minimum_down_payment.of(agreed)
    if terms.down_payment_minor < least and (terms.instalments > 1 or terms.down_payment_minor):
        wrong.append(
            errors.FieldViolation("terms.down_payment", f"expected {money.from_minor(least)} or more")
        )
    least = settings.minimum_instalment.of(agreed)
    smallest = min(row.amount_minor for row in priced.rows if row.number)
    if smallest < least:
        wrong.append(
            errors.FieldViolation(
                "terms.instalments",
                f"expected instalments of {money.from_minor(least)} or more,"
                f" the smallest is {money.from_minor(smallest)}",
            )
        )
    if terms.annual_rate_e4 and not (settings.charge_interest and settings.remunerative_interest):
        wrong.append(
            errors.FieldViolation(
                "terms.annual_rate_e4", "expected 0: the creditor asks no interest of plans"
            )
        )
    if terms.means and terms.means not in settings.accepted_means:
        accepted = ", ".join(sorted(settings.accepted_means))
        wrong.append(errors.FieldViolation("terms.means", f"expected one of {accepted}"))
    if wrong:
        raise OutsideCreditorSettings("the creditor does not allow this plan", fields=wrong)


def with_defaults(settings: creditors.CreditorSettings, terms: plans.Terms) -> plans.Terms:
    """The terms with the creditor's usual rate where they name none and the method bears interest."""
    usual = settings.annual_rate_e4 if settings.charge_interest and settings.remunerative_interest else 0
    if not usual or terms.annual_rate_e4 or terms.method in plans.WITHOUT_INTEREST:
        return terms
    return dataclasses.replace(terms, annual_rate_e4=usual)


class _Sheet:
    """One title while a negotiation is counted: what it owes, what is added and forgiven, by component."""

    __slots__ = ("added", "debt", "own", "title", "waived", "weight")

    def __init__(self, title: accounts.Title, date: datetime.date) -> None:
        owed = title.owed(date)
        self.title = title
        self.own = {name: owed.get(component, 0) for name, component in _NAMES}
        self.added: dict[str, int] = {}
        self.waived: dict[str, int] = {}
        self.weight = self.debt = sum(owed.values())

    @property
    def added_total(self) -> int:
        return sum(self.added.values())

    @property
    def waived_total(self) -> int:
        return sum(self.waived.values())

    def left(self, component: str) -> int:
        return self.own[component] + self.added.get(component, 0) - self.waived.get(component, 0)

    def edit(self, edit: Charges) -> None:
        for component, wanted in (("penalty", edit.penalty_minor), ("interest", edit.interest_minor)):
            if wanted is None:
                continue
            change = wanted - self.left(component)
            side = self.added if change > 0 else self.waived
            if change:
                side[component] = side.get(component, 0) + abs(change)
            self.weight += change

    def agreed(self) -> accounts.AgreedTitle:
        own, added, waived = self.own, self.added, self.waived
        return accounts.AgreedTitle(
            title_id=self.title.title_id,
            case_id=self.title.case_id,
            title_version=self.title.version,
            **{f"{name}_minor": amount for name, amount in own.items()},
            **{f"added_{name}_minor": amount for name, amount in added.items()},
            **{f"waived_{name}_minor": amount for name, amount in waived.items()},
        )


def _why_not(title: accounts.Title | None, due_before: datetime.date | None) -> str | None:
    """Why a title cannot be negotiated; None when it can."""
    if title is None:
        return "expected a title of the cases"
    if title.agreement_id is not None:
        return "expected a title outside an agreement"
    if title.title_type == FORECAST:
        return "expected a title that is billed, not a forecast"
    if not title.open_minor:
        return f"expected an open title, not one that is {title.state.value}"
    if due_before is not None and title.payable_until >= due_before:
        return "expected a title past due, or include_not_due"
    return None


def _part(amount: int, whole: int) -> int:
    """`amount` of `whole` in percent times 10 000, rounded up: a limit may not be passed by rounding."""
    return -(-amount * money.RATE_UNIT // whole) if whole else 0
