"""Entries of the ledger: what an amount is part of, and what an entry does."""

import dataclasses
import datetime
import enum
import uuid


class Component(enum.StrEnum):
    """What an amount is part of."""

    PRINCIPAL = "PRINCIPAL"
    CORRECTION = "CORRECTION"
    PENALTY = "PENALTY"
    INTEREST = "INTEREST"
    COSTS = "COSTS"
    FEES = "FEES"
    PLAN_INTEREST = "PLAN_INTEREST"


CHARGES = (Component.COSTS, Component.FEES, Component.PENALTY, Component.INTEREST, Component.CORRECTION)
"""What is added to the principal of a title."""
WATERFALL = (*CHARGES, Component.PRINCIPAL)
"""Legal order inside a title: costs, then interest, then capital and what corrects its value (CC BR art. 354, CC PT
art. 785; standards.md 4.8)."""


class Kind(enum.StrEnum):
    """What an entry does. Placement is the title's row itself: its principal is the PLACED amount."""

    CHARGED = "CHARGED"
    RECEIVED = "RECEIVED"
    WAIVED = "WAIVED"
    WITHDRAWN = "WITHDRAWN"
    WRITTEN_OFF = "WRITTEN_OFF"
    NOVATED = "NOVATED"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A posting: `amount_minor` is signed, a contra entry carries the opposite sign.

    INTEREST or CORRECTION that is CHARGED covers `from_date` (exclusive) to `through_date` (inclusive); COSTS or FEES
    with these dates are what the terms charge once. A charge by terms is `base_minor` x `numerator` / `denominator`,
    rounded half-up, by `rule` (charges.Rule); other entries leave these empty. PLAN_INTEREST has no title.
    """

    case_id: uuid.UUID
    title_id: uuid.UUID | None
    instalment_id: uuid.UUID | None
    component: Component
    kind: Kind
    amount_minor: int
    from_date: datetime.date | None = None
    through_date: datetime.date | None = None
    base_minor: int | None = None
    numerator: int | None = None
    denominator: int | None = None
    rule: str = ""

    def contra(self) -> "Entry":
        """The entry that takes this one back."""
        return dataclasses.replace(self, amount_minor=-self.amount_minor)
