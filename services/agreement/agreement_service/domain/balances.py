"""Explained balances: how an amount comes about, line by line (R08; feature S1-17)."""

import dataclasses
import datetime
import uuid

from agreement_service.domain import accounts

PLACED = "placed by the creditor"
PENALTY_SOURCE = "contract terms: penalty once, on principal (CDC art. 52 §1)"
INTEREST_SOURCE = "contract terms: simple interest, month of 30 days, pro rata die, on principal"
POSTED_SOURCE = "charged before, when a payment was allocated or an agreement accepted"
RECEIVED_SOURCE = "payments received"
WAIVED_SOURCE = "discount of an agreement"
AGREED_SOURCE = "agreed capital of the instalment"
PLAN_SOURCE = "agreed plan interest of the instalment (Price)"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A part of a balance; the lines sum to the total. `component` is that of accounts.Component, or PAID or WAIVED."""

    component: str
    amount_minor: int
    base_minor: int = 0
    rate_e4: int = 0
    days: int = 0
    source: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """The balance of a title, or of an instalment of an agreement, on a date."""

    title_id: uuid.UUID | None
    agreement_id: uuid.UUID | None
    due_date: datetime.date
    days_past_due: int
    lines: tuple[Line, ...]

    @property
    def total_minor(self) -> int:
        """Sum of the lines."""
        return sum(line.amount_minor for line in self.lines)

    def charges_minor(self) -> int:
        """What of the total is penalty and interest, before payments."""
        return sum(line.amount_minor for line in self.lines if line.component in ("PENALTY", "INTEREST"))


def explain_title(title: accounts.Title, date: datetime.date) -> Explained:
    """The lines of a title: principal as placed, charges posted and accrued to `date`, less what was paid or waived."""
    accrual = title.accrual(date)
    lines = [Line(component="PRINCIPAL", amount_minor=title.principal_minor, source=PLACED)]
    if title.charged_penalty_minor:
        lines.append(
            Line(component="PENALTY", amount_minor=title.charged_penalty_minor, source=POSTED_SOURCE)
        )
    if title.charged_interest_minor:
        lines.append(
            Line(component="INTEREST", amount_minor=title.charged_interest_minor, source=POSTED_SOURCE)
        )
    if accrual.penalty_minor:
        lines.append(
            Line(
                component="PENALTY",
                amount_minor=accrual.penalty_minor,
                base_minor=accrual.base_minor,
                rate_e4=title.penalty_rate_e4,
                days=(date - title.due_date).days,
                source=PENALTY_SOURCE,
            )
        )
    if accrual.interest_minor:
        lines.append(
            Line(
                component="INTEREST",
                amount_minor=accrual.interest_minor,
                base_minor=accrual.base_minor,
                rate_e4=title.monthly_rate_e4,
                days=accrual.interest_days,
                source=INTEREST_SOURCE,
            )
        )
    if title.received_minor:
        lines.append(Line(component="PAID", amount_minor=-title.received_minor, source=RECEIVED_SOURCE))
    if title.waived_minor:
        lines.append(Line(component="WAIVED", amount_minor=-title.waived_minor, source=WAIVED_SOURCE))
    return Explained(
        title_id=title.title_id,
        agreement_id=None,
        due_date=title.due_date,
        days_past_due=max(0, (date - title.due_date).days),
        lines=tuple(lines),
    )


def explain_instalment(instalment: accounts.Instalment, date: datetime.date) -> Explained:
    """The lines of an instalment: capital and plan interest as agreed, less what was paid."""
    lines = [Line(component="PRINCIPAL", amount_minor=instalment.capital_minor, source=AGREED_SOURCE)]
    if instalment.interest_minor:
        lines.append(
            Line(component="PLAN_INTEREST", amount_minor=instalment.interest_minor, source=PLAN_SOURCE)
        )
    if instalment.paid_minor:
        lines.append(Line(component="PAID", amount_minor=-instalment.paid_minor, source=RECEIVED_SOURCE))
    return Explained(
        title_id=None,
        agreement_id=instalment.agreement_id,
        due_date=instalment.due_date,
        days_past_due=max(0, (date - instalment.due_date).days),
        lines=tuple(lines),
    )
