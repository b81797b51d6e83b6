"""Agreements and their instalments: states, and what was paid on a row."""

import dataclasses
import datetime
import enum
import uuid
from collections.abc import Iterable

from agreement_service.domain import creditors
from agreement_service.domain.accounts.entries import Component, Entry, Kind


class AgreementState(enum.StrEnum):
    """States of an agreement that exist in this service (state-machines.md)."""

    PROPOSED = "PROPOSED"
    AWAITING_SIGNATURE = "AWAITING_SIGNATURE"
    AWAITING_DOWN_PAYMENT = "AWAITING_DOWN_PAYMENT"
    ACTIVE = "ACTIVE"
    FULFILLED = "FULFILLED"
    BROKEN = "BROKEN"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


IN_FORCE = frozenset({AgreementState.AWAITING_DOWN_PAYMENT, AgreementState.ACTIVE})


class AgreementKind(enum.StrEnum):
    """What becomes of the titles: bound to the instalments, unchanged with a tolerance date (type A, S3-10), or
    replaced by new ones (type B, S3-11, S5-04)."""

    PLAN = "PLAN"
    UNCHANGED = "UNCHANGED"
    NOVATION = "NOVATION"


class InstalmentState(enum.StrEnum):
    """States of an instalment; NOTIFIED asks for the notice before the due date (S1-28), RENEGOTIATED ones an acquirer
    owes as titles (S5-15)."""

    SCHEDULED = "SCHEDULED"
    NOTIFIED = "NOTIFIED"
    DUE = "DUE"
    PARTIAL = "PARTIAL"
    MISSED = "MISSED"
    PAID = "PAID"
    PAID_LATE = "PAID_LATE"
    DEFAULTED = "DEFAULTED"
    CANCELLED = "CANCELLED"
    RENEGOTIATED = "RENEGOTIATED"


@dataclasses.dataclass(slots=True, kw_only=True)
class Instalment:
    """A row of an agreement and what was paid on it, minor units."""

    instalment_id: uuid.UUID
    agreement_id: uuid.UUID
    number: int
    due_date: datetime.date
    payable_until: datetime.date
    capital_minor: int
    interest_minor: int
    charged_interest_minor: int = 0
    paid_interest_minor: int = 0
    paid_capital_minor: int = 0
    paid_date: datetime.date | None = None
    state: InstalmentState = InstalmentState.SCHEDULED
    version: int = 1

    @property
    def amount_minor(self) -> int:
        """Capital and plan interest."""
        return self.capital_minor + self.interest_minor

    @property
    def paid_minor(self) -> int:
        """Paid so far."""
        return self.paid_interest_minor + self.paid_capital_minor

    @property
    def open_minor(self) -> int:
        """Still to be paid."""
        return self.amount_minor - self.paid_minor

    def entry(self, case_id: uuid.UUID, kind: Kind, amount_minor: int) -> Entry:
        """An entry of plan interest of this instalment."""
        return Entry(
            case_id=case_id,
            title_id=None,
            instalment_id=self.instalment_id,
            component=Component.PLAN_INTEREST,
            kind=kind,
            amount_minor=amount_minor,
        )

    def post(self, entry: Entry) -> None:
        """Apply one entry that names this instalment."""
        if entry.component is not Component.PLAN_INTEREST:
            self.paid_capital_minor += entry.amount_minor
        elif entry.kind is Kind.CHARGED:
            self.charged_interest_minor += entry.amount_minor
        else:
            self.paid_interest_minor += entry.amount_minor
        if self.open_minor:
            self.paid_date = None

    def earn(self, case_id: uuid.UUID) -> list[Entry]:
        """Post the plan interest that is not charged yet."""
        missing = self.interest_minor - self.charged_interest_minor
        if not missing:
            return []
        entry = self.entry(case_id, Kind.CHARGED, missing)
        self.post(entry)
        return [entry]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AgreedTitle:
    """A title as it stands in a proposal, minor units: components counted to its last day, what the negotiation adds to
    them (S3-11), and what is forgiven; never more than both together."""

    title_id: uuid.UUID
    case_id: uuid.UUID
    title_version: int
    principal_minor: int
    correction_minor: int = 0
    penalty_minor: int = 0
    interest_minor: int = 0
    costs_minor: int = 0
    fees_minor: int = 0
    added_penalty_minor: int = 0
    added_interest_minor: int = 0
    added_costs_minor: int = 0
    added_fees_minor: int = 0
    waived_principal_minor: int = 0
    waived_correction_minor: int = 0
    waived_penalty_minor: int = 0
    waived_interest_minor: int = 0
    waived_costs_minor: int = 0
    waived_fees_minor: int = 0

    def added(self) -> dict[Component, int]:
        """What the negotiation adds, by component; without zeros."""
        return _parts(
            (Component.COSTS, self.added_costs_minor),
            (Component.FEES, self.added_fees_minor),
            (Component.PENALTY, self.added_penalty_minor),
            (Component.INTEREST, self.added_interest_minor),
        )

    def waived(self) -> dict[Component, int]:
        """What is forgiven, by component; without zeros."""
        return _parts(
            (Component.COSTS, self.waived_costs_minor),
            (Component.FEES, self.waived_fees_minor),
            (Component.PENALTY, self.waived_penalty_minor),
            (Component.INTEREST, self.waived_interest_minor),
            (Component.CORRECTION, self.waived_correction_minor),
            (Component.PRINCIPAL, self.waived_principal_minor),
        )


def _parts(*amounts: tuple[Component, int]) -> dict[Component, int]:
    return {component: amount for component, amount in amounts if amount}


@dataclasses.dataclass(slots=True, kw_only=True)
class Agreement:
    """An agreement's rules and state. Its plan interest is kept with `case_id`, the first of its cases.

    Through `grace_date` it is not broken (a reinstatement). `breach_policy` says what a breach does to a novation.
    """

    agreement_id: uuid.UUID
    case_id: uuid.UUID
    case_ids: tuple[uuid.UUID, ...]
    state: AgreementState
    currency: str
    expire_date: datetime.date
    notice_days: int
    missed_days: int
    broken_days: int
    kind: AgreementKind = AgreementKind.PLAN
    breach_policy: creditors.BreachPolicy = creditors.BreachPolicy.RESTORE_ORIGINALS
    acquirer: str = ""
    grace_date: datetime.date | None = None
    end_date: datetime.date | None = None
    version: int = 1


def instalment_state(
    instalment: Instalment, *, agreement: Agreement, business_date: datetime.date
) -> InstalmentState:
    """The state of an instalment of an agreement in force on a business date (S1-28: timers).

    `notice_days` before the due date it is NOTIFIED. Late counts from the due date, once the next business day is over:
    `missed_days` late it is MISSED, `broken_days` late and after the grace of a reinstatement DEFAULTED, which breaks
    the agreement. store/daily.py has the same in SQL; a test holds them together.
    """
    if not instalment.open_minor:
        late = instalment.paid_date is not None and instalment.paid_date > instalment.payable_until
        return InstalmentState.PAID_LATE if late else InstalmentState.PAID
    if business_date > instalment.payable_until:
        days = (business_date - instalment.due_date).days
        spared = agreement.grace_date is not None and business_date <= agreement.grace_date
        if days >= agreement.broken_days and not spared:
            return InstalmentState.DEFAULTED
        if days >= agreement.missed_days:
            return InstalmentState.MISSED
    if instalment.paid_minor:
        return InstalmentState.PARTIAL
    if business_date >= instalment.due_date:
        return InstalmentState.DUE
    notified = business_date >= instalment.due_date - datetime.timedelta(days=agreement.notice_days)
    return InstalmentState.NOTIFIED if notified else InstalmentState.SCHEDULED


class Honour(enum.StrEnum):
    """How an accepted agreement is honoured (S2-39)."""

    ON_TIME = "ON_TIME"
    LATE = "LATE"
    PAST_TOLERANCE = "PAST_TOLERANCE"
    BROKEN = "BROKEN"
    FULFILLED = "FULFILLED"


def honour(
    state: AgreementState,
    rows: Iterable[Instalment],
    *,
    broken_days: int,
    grace_date: datetime.date | None,
    business_date: datetime.date,
) -> Honour | None:
    """How an agreement is honoured on a business date; None for proposals and what ended without a breach.

    PAST_TOLERANCE from `broken_days` after an unpaid due date (of type A the day after the tolerance date, W-07),
    although the breach itself waits for the next business day where that due date is none (Lei 7.089).
    """
    if state is AgreementState.FULFILLED:
        return Honour.FULFILLED
    if state is AgreementState.BROKEN:
        return Honour.BROKEN
    if state not in IN_FORCE:
        return None
    unpaid = [one for one in rows if one.open_minor]
    late = max(((business_date - one.due_date).days for one in unpaid), default=0)
    if late >= broken_days and (grace_date is None or business_date > grace_date):
        return Honour.PAST_TOLERANCE
    if any(business_date > one.payable_until for one in unpaid):
        return Honour.LATE
    return Honour.ON_TIME
