"""A title: its terms, its balance by component, what accrues on it."""

import dataclasses
import datetime
import enum
import uuid
from collections.abc import Sequence

from agreement_service.domain import charges
from agreement_service.domain.accounts.entries import CHARGES, WATERFALL, Component, Entry, Kind


class TitleState(enum.StrEnum):
    """Stored states; PAST_DUE is OPEN seen after the last day without charges (`title_state_on`)."""

    OPEN = "OPEN"
    PAST_DUE = "PAST_DUE"
    PARTIALLY_PAID = "PARTIALLY_PAID"
    IN_AGREEMENT = "IN_AGREEMENT"
    PAID = "PAID"
    WITHDRAWN = "WITHDRAWN"
    WRITTEN_OFF = "WRITTEN_OFF"
    NOVATED = "NOVATED"


_OPEN = {component: f"open_{component.lower()}_minor" for component in WATERFALL}
_CHARGED = {component: f"charged_{component.lower()}_minor" for component in CHARGES}
_GONE = {kind: f"{kind.lower()}_minor" for kind in Kind if kind is not Kind.CHARGED}


def _add(title: "Title", column: str, amount_minor: int) -> None:
    setattr(title, column, getattr(title, column) + amount_minor)


@dataclasses.dataclass(slots=True, kw_only=True)
class Title:
    """A title's terms and balance, minor units. Changed only through `post`."""

    title_id: uuid.UUID
    case_id: uuid.UUID
    reference: str
    due_date: datetime.date
    payable_until: datetime.date
    principal_minor: int
    penalty_rate_e4: int
    monthly_rate_e4: int
    accrued_through: datetime.date
    open_principal_minor: int
    open_correction_minor: int = 0
    open_penalty_minor: int = 0
    open_interest_minor: int = 0
    open_costs_minor: int = 0
    open_fees_minor: int = 0
    charged_correction_minor: int = 0
    charged_penalty_minor: int = 0
    charged_interest_minor: int = 0
    charged_costs_minor: int = 0
    charged_fees_minor: int = 0
    received_minor: int = 0
    waived_minor: int = 0
    withdrawn_minor: int = 0
    written_off_minor: int = 0
    novated_minor: int = 0
    title_type: str = "OTHER"
    own_penalty: bool = True
    """Whether `penalty_rate_e4` counts, or what `rules` say."""
    own_interest: bool = True
    """Whether `monthly_rate_e4` counts, or what `rules` say."""
    bears_interest: bool = True
    """False where the creditor's settings charge none (S1-26)."""
    corrected_through: datetime.date | None = None
    """Day to which correction is posted; None where none is."""
    once_charged: bool = False
    """Whether what the terms charge once (costs, fees) is posted."""
    terms_id: uuid.UUID | None = None
    rules: charges.Rules = dataclasses.field(default=charges.NO_RULES, compare=False, repr=False)
    """What the row `terms_id` says; loaded with the title."""
    agreement_id: uuid.UUID | None = None
    origin_agreement_id: uuid.UUID | None = None
    acquirer: str = ""
    state: TitleState = TitleState.OPEN
    version: int = 1

    @property
    def open_minor(self) -> int:
        """Open and posted: without what accrues."""
        return (
            self.open_principal_minor
            + self.open_correction_minor
            + self.open_penalty_minor
            + self.open_interest_minor
            + self.open_costs_minor
            + self.open_fees_minor
        )

    def open_of(self, component: Component) -> int:
        """Open and posted of one component."""
        return int(getattr(self, _OPEN[component]))

    def charged_of(self, component: Component) -> int:
        """Posted of one component of the charges, net of contra entries."""
        return int(getattr(self, _CHARGED[component]))

    def accrual(self, date: datetime.date) -> charges.Accrual:
        """Charges not posted yet on `date`; none in an agreement."""
        if self.agreement_id is not None or self.acquirer:
            return charges.NONE
        return charges.accrue(
            charges.Position(
                due_date=self.due_date,
                payable_until=self.payable_until,
                open_principal_minor=self.open_principal_minor,
                debt_minor=self.open_minor - self.open_costs_minor - self.open_fees_minor,
                open_correction_minor=self.open_correction_minor,
                penalty_rate_e4=self.penalty_rate_e4 if self.own_penalty else None,
                monthly_rate_e4=self.monthly_rate_e4 if self.own_interest else None,
                bears_interest=self.bears_interest,
                accrued_through=self.accrued_through,
                corrected_through=self.corrected_through or self.due_date,
                penalty_charged=self.charged_penalty_minor > 0,
                once_charged=self.once_charged,
                rules=self.rules,
            ),
            date,
        )

    def owed(self, date: datetime.date) -> dict[Component, int]:
        """What is open of each component with what accrues to `date`, in paying order; no zeroes."""
        accrual = self.accrual(date)
        parts = {component: self.open_of(component) + accrual.of(component) for component in WATERFALL}
        return {component: amount for component, amount in parts.items() if amount}

    def post(self, entry: Entry) -> None:
        """Apply one entry to the balance."""
        amount = entry.amount_minor
        moves = amount if entry.kind is Kind.CHARGED else -amount
        _add(self, _OPEN[entry.component], moves)
        if entry.kind is not Kind.CHARGED:
            _add(self, _GONE[entry.kind], amount)
            return
        _add(self, _CHARGED[entry.component], amount)
        if entry.through_date is None or entry.from_date is None:
            return
        reached = entry.through_date if amount > 0 else entry.from_date
        if entry.component is Component.INTEREST:
            self.accrued_through = reached
        elif entry.component is Component.CORRECTION:
            self.corrected_through = reached
        else:
            self.once_charged = amount > 0

    def charge(self, date: datetime.date) -> list[Entry]:
        """Post the charges accrued to `date`."""
        entries = []
        for one in self.accrual(date).charges:
            entry = dataclasses.replace(
                self.entry(Component(one.component), Kind.CHARGED, one.amount_minor),
                from_date=one.from_date,
                through_date=one.through_date,
                base_minor=one.base_minor,
                numerator=one.numerator,
                denominator=one.denominator,
                rule=one.rule.value,
            )
            self.post(entry)
            entries.append(entry)
        return entries

    def close(self, kind: Kind, limits: "dict[Component, int] | None" = None) -> list[Entry]:
        """Take what is open (or `limits` of it) out of the balance as `kind`, without cash."""
        entries = []
        for component in WATERFALL:
            amount = self.open_of(component) if limits is None else limits.get(component, 0)
            if amount:
                entries.append(self.entry(component, kind, amount))
                self.post(entries[-1])
        return entries

    def receive(
        self,
        amount_minor: int,
        *,
        order: Sequence[Component] = WATERFALL,
        instalment_id: uuid.UUID | None = None,
    ) -> list[Entry]:
        """Allocate up to `amount_minor` of cash in `order` (domain/accounts/waterfalls.py)."""
        entries = []
        for component in order:
            part = min(amount_minor, self.open_of(component))
            if part > 0:
                entry = dataclasses.replace(
                    self.entry(component, Kind.RECEIVED, part), instalment_id=instalment_id
                )
                self.post(entry)
                entries.append(entry)
                amount_minor -= part
        return entries

    def settle_state(self) -> None:
        """The stored state that follows from the balance."""
        if self.withdrawn_minor and not self.open_minor:
            self.state = TitleState.WITHDRAWN
        elif self.written_off_minor and not self.open_minor:
            self.state = TitleState.WRITTEN_OFF
        elif self.novated_minor and not self.open_minor:
            self.state = TitleState.NOVATED
        elif not self.open_minor:
            self.state = TitleState.PAID
        elif self.agreement_id is not None:
            self.state = TitleState.IN_AGREEMENT
        elif self.received_minor or self.novated_minor:
            self.state = TitleState.PARTIALLY_PAID
        else:
            self.state = TitleState.OPEN

    def entry(self, component: Component, kind: Kind, amount_minor: int) -> Entry:
        """An entry of this title."""
        return Entry(
            case_id=self.case_id,
            title_id=self.title_id,
            instalment_id=None,
            component=component,
            kind=kind,
            amount_minor=amount_minor,
        )


def title_state_on(
    state: TitleState, *, payable_until: datetime.date, business_date: datetime.date
) -> TitleState:
    """The state to show on a business date: OPEN becomes PAST_DUE after the due date, rolled to a business day."""
    return TitleState.PAST_DUE if state is TitleState.OPEN and business_date > payable_until else state
