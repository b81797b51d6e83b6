"""Limits of what people may offer and change by themselves (S2-08, S2-09; W-12), and whose authority a command has.

A limit is an inclusive range for a kind of value; a value inside passes, one above or below needs approval. Of the
rows that stand for a caller count, in this order: his own (user), those of his roles, those for everybody; within
each, a creditor's row before a general one; of several, the newest that is valid. Of several roles the value has to
fit one. Without any row the house's default of the kind counts.
"""

import dataclasses
import datetime
import enum
import uuid
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from servicekit import money

MAX_VALUE = 10**15


class Unit(enum.StrEnum):
    """What the numbers of a limit are."""

    RATE = "RATE"
    """Percent times 10 000."""
    AMOUNT = "AMOUNT"
    """Minor units of a currency."""
    DAYS = "DAYS"
    """Calendar days."""
    COUNT = "COUNT"


class Kind(enum.StrEnum):
    """What is limited."""

    DISCOUNT_CHARGES = "DISCOUNT_CHARGES"
    """Part of the charges (all but principal) that is forgiven."""
    DISCOUNT_PRINCIPAL = "DISCOUNT_PRINCIPAL"
    """Part of the principal that is forgiven."""
    PENALTY = "PENALTY"
    """Penalty asked in a negotiation, of the debt."""
    INTEREST = "INTEREST"
    """Interest asked in a negotiation, a month."""
    COMMISSION = "COMMISSION"
    """Commission or fees asked, of the debt."""
    EXPENSES = "EXPENSES"
    """Expenses charged to the debtor."""
    INSTALMENTS = "INSTALMENTS"
    """Instalments of a plan."""
    INSTALMENT_AMOUNT = "INSTALMENT_AMOUNT"
    """The smallest instalment of a plan."""
    DOWN_PAYMENT = "DOWN_PAYMENT"
    """Part of what is agreed, without plan interest, that is paid down; one payment of everything needs none."""
    DUE_DATE_CHANGE = "DUE_DATE_CHANGE"
    """Days by which a title's due date moves; earlier is negative (S2-32)."""
    WAIVER = "WAIVER"
    """Amount forgiven outside an agreement."""
    WRITE_OFF = "WRITE_OFF"
    """Amount written off."""
    REFUND = "REFUND"
    """Amount given back."""
    REINSTATE = "REINSTATE"
    """Days since the breach of an agreement that is to live again."""


UNITS: Mapping[Kind, Unit] = {
    Kind.DISCOUNT_CHARGES: Unit.RATE,
    Kind.DISCOUNT_PRINCIPAL: Unit.RATE,
    Kind.PENALTY: Unit.RATE,
    Kind.INTEREST: Unit.RATE,
    Kind.COMMISSION: Unit.RATE,
    Kind.EXPENSES: Unit.AMOUNT,
    Kind.INSTALMENTS: Unit.COUNT,
    Kind.INSTALMENT_AMOUNT: Unit.AMOUNT,
    Kind.DOWN_PAYMENT: Unit.RATE,
    Kind.DUE_DATE_CHANGE: Unit.DAYS,
    Kind.WAIVER: Unit.AMOUNT,
    Kind.WRITE_OFF: Unit.AMOUNT,
    Kind.REFUND: Unit.AMOUNT,
    Kind.REINSTATE: Unit.DAYS,
}


def text(kind: Kind, value: int, currency: str = "") -> str:
    """A value for people, in the unit of its kind: "6.7 %", "1000.00 BRL", "80 days", "4"."""
    match UNITS[kind]:
        case Unit.RATE:
            return f"{Decimal(value).scaleb(-4).normalize():f} %"
        case Unit.AMOUNT:
            return f"{money.from_minor(value)} {currency}"
        case Unit.DAYS:
            return f"{value} days"
        case Unit.COUNT:
            return str(value)


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """Inclusive at both ends; None for no end. In the unit of its kind."""

    minimum: int | None
    maximum: int | None

    def holds(self, value: int) -> bool:
        """Whether `value` passes."""
        return (self.minimum is None or value >= self.minimum) and (
            self.maximum is None or value <= self.maximum
        )

    @property
    def width(self) -> tuple[bool, int]:
        """Orders ranges by how much they allow."""
        if self.minimum is None or self.maximum is None:
            return True, 0
        return False, self.maximum - self.minimum

    def text(self, kind: Kind, currency: str = "") -> str:
        """For people, in the unit of the kind: "0 % to 10 %", "any to 30 days", "nothing"."""
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            return "nothing"
        ends = ("any" if end is None else text(kind, end, currency) for end in (self.minimum, self.maximum))
        return " to ".join(ends)


EVERYTHING = Range(None, None)
NOTHING = Range(1, 0)

HOUSE: Mapping[Kind, Range] = {
    Kind.DISCOUNT_CHARGES: Range(0, 1_000_000),
    Kind.DISCOUNT_PRINCIPAL: Range(0, 0),
    Kind.PENALTY: Range(0, None),
    Kind.INTEREST: Range(0, None),
    Kind.COMMISSION: Range(0, None),
    Kind.EXPENSES: Range(0, None),
    Kind.INSTALMENTS: Range(1, 360),
    Kind.INSTALMENT_AMOUNT: Range(0, None),
    Kind.DOWN_PAYMENT: Range(0, None),
    Kind.DUE_DATE_CHANGE: NOTHING,
    Kind.WAIVER: NOTHING,
    Kind.WRITE_OFF: NOTHING,
    Kind.REFUND: NOTHING,
    Kind.REINSTATE: NOTHING,
}
"""What anybody may do alone where no row says otherwise. What takes principal away, moves a due date, pays out or
brings an agreement back needs a second person (R28); legal caps on penalty and interest are refusals of their own
(R09)."""
APPROVERS = frozenset({"supervisor", "manager"})
"""Roles that approve anything where no row says otherwise."""


@dataclasses.dataclass(frozen=True, slots=True)
class Authority:
    """On whose authority a command runs: the caller's, or, where an approved command runs, the approver's.

    `deciding` is only set by the execution of an approved command: then house defaults are those of approvers.
    """

    subject: str
    roles: frozenset[str]
    deciding: bool = False
    system: bool = False

    @property
    def approver(self) -> bool:
        """Whether he decides, and holds a role that approves by the house's default."""
        return self.deciding and not self.roles.isdisjoint(APPROVERS)


SYSTEM = Authority(subject="system", roles=frozenset(), system=True)
"""Workers and files: what arrives there was decided elsewhere; no limit holds for it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A row. `creditor_id` None: of all creditors. Of `role` and `subject` at most one is given; none: everybody.
    `currency` for amounts only."""

    id: uuid.UUID
    creditor_id: uuid.UUID | None
    role: str
    subject: str
    kind: Kind
    minimum: int | None
    maximum: int | None
    currency: str
    valid_from: datetime.date

    @property
    def range(self) -> Range:
        """What it allows."""
        return Range(self.minimum, self.maximum)


def allowed(
    rows: Iterable[Limit],
    *,
    authority: Authority,
    kind: Kind,
    creditor_id: uuid.UUID,
    date: datetime.date,
    currency: str = "",
) -> Sequence[Range]:
    """The ranges of which one has to hold the value, the widest first; never empty.

    `rows` may be of other kinds, people, creditors, currencies and dates: only what stands for this is looked at.
    `currency` is that of the value where the kind's unit is an amount.
    """
    if authority.system:
        return [EVERYTHING]
    mine = [
        row
        for row in rows
        if row.kind is kind
        and row.valid_from <= date
        and row.creditor_id in (None, creditor_id)
        and row.currency == (currency if UNITS[kind] is Unit.AMOUNT else "")
    ]

    def newest(found: Iterable[Limit]) -> list[Range]:
        best = max(found, key=lambda row: (row.creditor_id is not None, row.valid_from), default=None)
        return [] if best is None else [best.range]

    if own := newest(row for row in mine if row.subject == authority.subject and row.subject):
        return own
    ranges = []
    for role in sorted(authority.roles):
        if of_role := newest(row for row in mine if row.role == role):
            ranges += of_role
        elif authority.deciding and role in APPROVERS:
            ranges.append(EVERYTHING)
    ranges = ranges or newest(row for row in mine if not row.role and not row.subject) or [HOUSE[kind]]
    return sorted(ranges, key=lambda one: one.width, reverse=True)
