"""Titles, instalments and payments of one account, and the ledger entries that move them (features S1-17..19, S1-28).

An `Account` is what money can flow between: the titles of one case, or of all cases of the agreement in force. Every
change of a balance is an `Entry`, a posting of the ledger; entries are only ever added, taking back is an entry with
the opposite sign. What a title or an instalment holds is the sum of its entries:

    principal + charged = open + received + waived + withdrawn + written off        (per title; a CHECK in the database)

Rules, each simple and exact:
- Charges are posted when money is allocated to a title or an agreement over it is accepted, and accrue on the fly
  until then. `accrued_through` moves only together with posted interest.
- A payment counts charges to its value date. Allocation: the title it names first, then instalments of the agreement
  in force (oldest due first), then the other titles (oldest due first); inside a title penalty, interest, principal
  (CC art. 354); inside an instalment plan interest, then the agreed titles' components, oldest title first. What is
  left is kept as overpaid.
- Payments apply in the order (value date, identity). One that arrives late, or is reversed, takes later ones of the
  same epoch back and applies them again, so the result does not depend on the order of arrival. An epoch ends when an
  agreement begins or ends; what lies behind it is not counted again.
- A title in an agreement bears no charges. Charges are posted at acceptance as agreed: counted to the proposal's last
  day.
- When an agreement ends unfulfilled: the discount comes back entirely; plan interest that was earned and not paid
  becomes interest of the oldest open title; unearned plan interest disappears; charges go on from the day it ended (or
  from the proposal's last day, to which they are counted already, if that is later).
"""

import dataclasses
import datetime
import enum
import functools
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence

from agreement_service.domain import charges


class Component(enum.StrEnum):
    """What an amount is part of."""

    PRINCIPAL = "PRINCIPAL"
    PENALTY = "PENALTY"
    INTEREST = "INTEREST"
    PLAN_INTEREST = "PLAN_INTEREST"


WATERFALL = (Component.PENALTY, Component.INTEREST, Component.PRINCIPAL)
"""Order inside a title: CC art. 354, charges before capital (standards.md 4.8)."""


class Kind(enum.StrEnum):
    """What an entry does. Placement is the title's row itself: its principal is the PLACED amount."""

    CHARGED = "CHARGED"
    RECEIVED = "RECEIVED"
    WAIVED = "WAIVED"
    WITHDRAWN = "WITHDRAWN"
    WRITTEN_OFF = "WRITTEN_OFF"


class TitleState(enum.StrEnum):
    """Stored states; PAST_DUE is OPEN seen after the last day without charges (`title_state_on`)."""

    OPEN = "OPEN"
    PAST_DUE = "PAST_DUE"
    PARTIALLY_PAID = "PARTIALLY_PAID"
    IN_AGREEMENT = "IN_AGREEMENT"
    PAID = "PAID"
    WITHDRAWN = "WITHDRAWN"
    WRITTEN_OFF = "WRITTEN_OFF"


class AgreementState(enum.StrEnum):
    """States of an agreement that exist in this service (state-machines.md)."""

    PROPOSED = "PROPOSED"
    AWAITING_DOWN_PAYMENT = "AWAITING_DOWN_PAYMENT"
    ACTIVE = "ACTIVE"
    FULFILLED = "FULFILLED"
    BROKEN = "BROKEN"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


IN_FORCE = frozenset({AgreementState.AWAITING_DOWN_PAYMENT, AgreementState.ACTIVE})


class InstalmentState(enum.StrEnum):
    """States of an instalment; NOTIFIED asks for the notice before the due date (S1-28)."""

    SCHEDULED = "SCHEDULED"
    NOTIFIED = "NOTIFIED"
    DUE = "DUE"
    PARTIAL = "PARTIAL"
    MISSED = "MISSED"
    PAID = "PAID"
    PAID_LATE = "PAID_LATE"
    DEFAULTED = "DEFAULTED"
    CANCELLED = "CANCELLED"


class PaymentState(enum.StrEnum):
    """States of a payment. OVERPAID: nothing was left to pay, all of it is kept as overpaid."""

    UNIDENTIFIED = "UNIDENTIFIED"
    ALLOCATED = "ALLOCATED"
    OVERPAID = "OVERPAID"
    REVERSED = "REVERSED"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A posting: `amount_minor` is signed, a contra entry carries the opposite sign.

    INTEREST that is CHARGED covers `from_date` (exclusive) to `through_date` (inclusive). PLAN_INTEREST has no title.
    """

    case_id: uuid.UUID
    title_id: uuid.UUID | None
    instalment_id: uuid.UUID | None
    component: Component
    kind: Kind
    amount_minor: int
    from_date: datetime.date | None = None
    through_date: datetime.date | None = None

    def contra(self) -> "Entry":
        """The entry that takes this one back."""
        return dataclasses.replace(self, amount_minor=-self.amount_minor)


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
    open_penalty_minor: int = 0
    open_interest_minor: int = 0
    charged_penalty_minor: int = 0
    charged_interest_minor: int = 0
    received_minor: int = 0
    waived_minor: int = 0
    withdrawn_minor: int = 0
    written_off_minor: int = 0
    agreement_id: uuid.UUID | None = None
    state: TitleState = TitleState.OPEN
    version: int = 1

    @property
    def open_minor(self) -> int:
        """Open and posted: without what accrues."""
        return self.open_principal_minor + self.open_penalty_minor + self.open_interest_minor

    def open_of(self, component: Component) -> int:
        """Open and posted of one component."""
        match component:
            case Component.PENALTY:
                return self.open_penalty_minor
            case Component.INTEREST:
                return self.open_interest_minor
            case _:
                return self.open_principal_minor

    def accrual(self, date: datetime.date) -> charges.Accrual:
        """Charges not posted yet on `date`; none in an agreement."""
        if self.agreement_id is not None:
            return charges.NONE
        return charges.accrue(
            open_principal_minor=self.open_principal_minor,
            penalty_rate_e4=self.penalty_rate_e4,
            monthly_rate_e4=self.monthly_rate_e4,
            payable_until=self.payable_until,
            accrued_through=self.accrued_through,
            penalty_charged=self.charged_penalty_minor > 0,
            date=date,
        )

    def post(self, entry: Entry) -> None:
        """Apply one entry to the balance."""
        amount = entry.amount_minor
        moves = amount if entry.kind is Kind.CHARGED else -amount
        match entry.component:
            case Component.PENALTY:
                self.open_penalty_minor += moves
            case Component.INTEREST:
                self.open_interest_minor += moves
            case _:
                self.open_principal_minor += moves
        match entry.kind:
            case Kind.CHARGED if entry.component is Component.PENALTY:
                self.charged_penalty_minor += amount
            case Kind.CHARGED:
                self.charged_interest_minor += amount
                if entry.through_date is not None and entry.from_date is not None:
                    self.accrued_through = entry.through_date if amount > 0 else entry.from_date
            case Kind.RECEIVED:
                self.received_minor += amount
            case Kind.WAIVED:
                self.waived_minor += amount
            case Kind.WITHDRAWN:
                self.withdrawn_minor += amount
            case Kind.WRITTEN_OFF:
                self.written_off_minor += amount

    def charge(self, date: datetime.date) -> list[Entry]:
        """Post the charges accrued to `date`."""
        accrual = self.accrual(date)
        entries = []
        if accrual.penalty_minor:
            entries.append(self._entry(Component.PENALTY, Kind.CHARGED, accrual.penalty_minor))
        if accrual.interest_minor:
            entries.append(
                dataclasses.replace(
                    self._entry(Component.INTEREST, Kind.CHARGED, accrual.interest_minor),
                    from_date=self.accrued_through,
                    through_date=date,
                )
            )
        for entry in entries:
            self.post(entry)
        return entries

    def close(self, kind: Kind, limits: "dict[Component, int] | None" = None) -> list[Entry]:
        """Take what is open (or `limits` of it) out of the balance as `kind`, without cash."""
        entries = []
        for component in WATERFALL:
            amount = self.open_of(component) if limits is None else limits.get(component, 0)
            if amount:
                entries.append(self._entry(component, kind, amount))
                self.post(entries[-1])
        return entries

    def receive(self, amount_minor: int, *, instalment_id: uuid.UUID | None = None) -> list[Entry]:
        """Allocate up to `amount_minor` of cash in waterfall order."""
        entries = []
        for component in WATERFALL:
            part = min(amount_minor, self.open_of(component))
            if part > 0:
                entry = dataclasses.replace(
                    self._entry(component, Kind.RECEIVED, part), instalment_id=instalment_id
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
        elif not self.open_minor:
            self.state = TitleState.PAID
        elif self.agreement_id is not None:
            self.state = TitleState.IN_AGREEMENT
        elif self.received_minor:
            self.state = TitleState.PARTIALLY_PAID
        else:
            self.state = TitleState.OPEN

    def _entry(self, component: Component, kind: Kind, amount_minor: int) -> Entry:
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
    """A title as it stands in a proposal: components counted to its last day, and what is forgiven of them."""

    title_id: uuid.UUID
    case_id: uuid.UUID
    title_version: int
    principal_minor: int
    penalty_minor: int
    interest_minor: int
    waived_penalty_minor: int
    waived_interest_minor: int


@dataclasses.dataclass(slots=True, kw_only=True)
class Agreement:
    """An agreement's rules and state. Its plan interest is kept with `case_id`, the first of its cases."""

    agreement_id: uuid.UUID
    case_id: uuid.UUID
    case_ids: tuple[uuid.UUID, ...]
    state: AgreementState
    currency: str
    expire_date: datetime.date
    notice_days: int
    missed_days: int
    broken_days: int
    end_date: datetime.date | None = None
    version: int = 1


def instalment_state(
    instalment: Instalment, *, agreement: Agreement, business_date: datetime.date
) -> InstalmentState:
    """The state of an instalment of an agreement in force on a business date (S1-28: timers).

    `notice_days` before the due date it is NOTIFIED. Late counts from the due date, once the next business day is over:
    `missed_days` late it is MISSED, `broken_days` late DEFAULTED, which breaks the agreement. store/daily.py has the
    same in SQL; a test holds them together.
    """
    if not instalment.open_minor:
        late = instalment.paid_date is not None and instalment.paid_date > instalment.payable_until
        return InstalmentState.PAID_LATE if late else InstalmentState.PAID
    if business_date > instalment.payable_until:
        days = (business_date - instalment.due_date).days
        if days >= agreement.broken_days:
            return InstalmentState.DEFAULTED
        if days >= agreement.missed_days:
            return InstalmentState.MISSED
    if instalment.paid_minor:
        return InstalmentState.PARTIAL
    if business_date >= instalment.due_date:
        return InstalmentState.DUE
    notified = business_date >= instalment.due_date - datetime.timedelta(days=agreement.notice_days)
    return InstalmentState.NOTIFIED if notified else InstalmentState.SCHEDULED


@functools.total_ordering
@dataclasses.dataclass(frozen=True, slots=True)
class PaymentKey:
    """The order in which payments apply: value date, then what identifies the credit."""

    value_date: datetime.date
    identity: tuple[str, str, str, str]

    def __lt__(self, other: "PaymentKey") -> bool:
        return (self.value_date, self.identity) < (other.value_date, other.identity)


@dataclasses.dataclass(slots=True, kw_only=True)
class Payment:
    """A payment given to a case, and the entries it made (net of contra entries, in the order they were made)."""

    payment_id: uuid.UUID
    case_id: uuid.UUID
    title_id: uuid.UUID | None
    key: PaymentKey
    amount_minor: int
    state: PaymentState = PaymentState.UNIDENTIFIED
    allocated_minor: int = 0
    overpaid_minor: int = 0
    entries: list[Entry] = dataclasses.field(default_factory=list)
    version: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Posting:
    """An entry with what caused it."""

    entry: Entry
    value_date: datetime.date
    payment_id: uuid.UUID | None = None
    agreement_id: uuid.UUID | None = None


@dataclasses.dataclass(kw_only=True)
class Account:
    """The titles, instalments and payments between which money flows. Titles and instalments in paying order."""

    titles: list[Title]
    agreement: Agreement | None = None
    instalments: list[Instalment] = dataclasses.field(default_factory=list)
    agreed: list[AgreedTitle] = dataclasses.field(default_factory=list)
    ended: list[Instalment] = dataclasses.field(default_factory=list)
    """Instalments of agreements that are over: a payment behind an epoch may have paid them."""
    postings: list[Posting] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.titles.sort(key=lambda title: (title.due_date, title.reference, title.case_id))
        self.instalments.sort(key=lambda instalment: instalment.number)
        self._titles = {title.title_id: title for title in self.titles}
        self._instalments = {one.instalment_id: one for one in (*self.ended, *self.instalments)}

    def title(self, title_id: uuid.UUID) -> Title:
        """The title of this id."""
        return self._titles[title_id]

    def settle(
        self,
        *,
        new: Sequence[Payment] = (),
        removed: Sequence[Payment] = (),
        later: Sequence[Payment] = (),
        business_date: datetime.date,
    ) -> list[Payment]:
        """Apply `new` payments and take `removed` ones back; `later` are all applied ones of this epoch with a key
        above the least of those. Returns the payments that changed."""
        if self.agreement is not None and self.agreement.state is AgreementState.FULFILLED:
            for item in self.agreed:
                self.title(item.title_id).agreement_id = self.agreement.agreement_id
        before = {payment.payment_id: list(payment.entries) for payment in later}
        for payment in sorted([*later, *removed], key=lambda one: one.key, reverse=True):
            self._post_all(entry.contra() for entry in reversed(payment.entries))
        changed = list(removed)
        for payment in removed:
            self._record(payment, [entry.contra() for entry in reversed(payment.entries)])
            payment.entries, payment.state = [], PaymentState.REVERSED
            payment.allocated_minor = payment.overpaid_minor = 0
        again = {payment.payment_id for payment in later}
        for payment in sorted([*later, *new], key=lambda one: one.key):
            self._apply(payment)
            if payment.payment_id not in again:
                self._record(payment, payment.entries)
            elif payment.entries != before[payment.payment_id]:
                self._record(payment, [entry.contra() for entry in reversed(before[payment.payment_id])])
                self._record(payment, payment.entries)
            else:
                continue
            changed.append(payment)
        self._earn(business_date)
        self._settle_states(business_date)
        return changed

    def accept(
        self,
        *,
        agreement: Agreement,
        agreed: Sequence[AgreedTitle],
        instalments: Sequence[Instalment],
        business_date: datetime.date,
    ) -> None:
        """Bind the agreed titles: post their charges as agreed, waive the discount, stop their accrual.

        The caller has checked that the titles are unchanged since the proposal.
        """
        self.agreement, self.agreed = agreement, list(agreed)
        self.instalments = sorted(instalments, key=lambda instalment: instalment.number)
        self._instalments |= {one.instalment_id: one for one in self.instalments}
        for item in agreed:
            title = self.title(item.title_id)
            entries = title.charge(agreement.expire_date)
            title.agreement_id = agreement.agreement_id
            limits = {
                Component.PENALTY: item.waived_penalty_minor,
                Component.INTEREST: item.waived_interest_minor,
            }
            self._record_agreement(entries + title.close(Kind.WAIVED, limits), business_date)
        awaits = self.instalments[0].number == 0
        agreement.state = AgreementState.AWAITING_DOWN_PAYMENT if awaits else AgreementState.ACTIVE
        self._earn(business_date)
        self._settle_states(business_date)

    def end(self, *, state: AgreementState, date: datetime.date) -> None:
        """End the agreement unfulfilled as `state` on `date`; its titles come back less what was paid."""
        agreement = self.agreement
        assert agreement is not None
        for item in self.agreed:
            title = self.title(item.title_id)
            back = [
                title._entry(component, Kind.WAIVED, -amount)
                for component, amount in (
                    (Component.PENALTY, item.waived_penalty_minor),
                    (Component.INTEREST, item.waived_interest_minor),
                )
                if amount
            ]
            self._post_all(back)
            self._record_agreement(back, date)
        bound = [title for title in self.titles if title.agreement_id == agreement.agreement_id]
        oldest = next((title for title in bound if title.open_minor), bound[0])
        for instalment in self.instalments:
            unpaid = instalment.charged_interest_minor - instalment.paid_interest_minor
            if unpaid:
                moved = [
                    instalment.entry(agreement.case_id, Kind.CHARGED, -unpaid),
                    oldest._entry(Component.INTEREST, Kind.CHARGED, unpaid),
                ]
                self._post_all(moved)
                self._record_agreement(moved, date)
            if instalment.open_minor:
                settled = instalment_state(instalment, agreement=agreement, business_date=date)
                defaulted = settled is InstalmentState.DEFAULTED and state is not AgreementState.CANCELLED
                instalment.state = InstalmentState.DEFAULTED if defaulted else InstalmentState.CANCELLED
        for title in self.titles:
            if title.agreement_id == agreement.agreement_id:
                self._release(title, date)
        agreement.state, agreement.end_date = state, date

    def reverse_behind(
        self,
        payment: Payment,
        *,
        oldest: Mapping[uuid.UUID, uuid.UUID],
        in_force: Collection[uuid.UUID],
        date: datetime.date,
    ) -> None:
        """Take back a payment of an earlier epoch: only its cash, nothing is counted again.

        Plan interest it had paid becomes interest of the oldest title of that agreement (`oldest`, by instalment): the
        agreement is over. A withdrawn title gives what comes back to the creditor at once. `in_force` are the
        agreements that go on.
        """
        entries: list[Entry] = []
        for entry in reversed(payment.entries):
            if entry.kind is not Kind.RECEIVED:
                continue
            entries.append(entry.contra())
            if entry.component is Component.PLAN_INTEREST:
                assert entry.instalment_id is not None
                title = self.title(oldest[entry.instalment_id])
                instalment = self._instalments[entry.instalment_id]
                entries.append(instalment.entry(entry.case_id, Kind.CHARGED, -entry.amount_minor))
                entries.append(title._entry(Component.INTEREST, Kind.CHARGED, entry.amount_minor))
        self._post_all(entries)
        self._record(payment, entries)
        for instalment in self.ended:
            if instalment.open_minor:
                instalment.state = InstalmentState.CANCELLED
        for title in self.titles:
            if title.withdrawn_minor:
                self.postings += [Posting(entry, date) for entry in title.close(Kind.WITHDRAWN)]
            if title.open_minor and title.agreement_id is not None and title.agreement_id not in in_force:
                self._release(title, date)
            title.settle_state()
        payment.entries, payment.state = [], PaymentState.REVERSED
        payment.allocated_minor = payment.overpaid_minor = 0

    def withdraw(self, title_ids: Iterable[uuid.UUID], *, date: datetime.date) -> None:
        """Take titles back to the creditor: what is open of them becomes withdrawn. Not in an agreement any more."""
        for title_id in title_ids:
            title = self.title(title_id)
            self.postings += [Posting(entry, date) for entry in title.close(Kind.WITHDRAWN)]
            title.settle_state()

    def _apply(self, payment: Payment) -> None:
        entries: list[Entry] = []
        left = payment.amount_minor
        chosen = self._titles.get(payment.title_id) if payment.title_id is not None else None
        if chosen is not None and chosen.agreement_id is None:
            left = self._pay_title(chosen, left, payment.key.value_date, entries)
        if self.agreement is not None and self.agreement.state in (*IN_FORCE, AgreementState.FULFILLED):
            for instalment in self.instalments:
                left = self._pay_instalment(instalment, left, payment.key.value_date, entries)
        for title in self.titles:
            if title.agreement_id is None:
                left = self._pay_title(title, left, payment.key.value_date, entries)
        payment.entries = entries
        payment.allocated_minor = payment.amount_minor - left
        payment.overpaid_minor = left
        payment.state = PaymentState.ALLOCATED if payment.allocated_minor else PaymentState.OVERPAID

    def _pay_title(self, title: Title, left: int, date: datetime.date, entries: list[Entry]) -> int:
        if not left or not title.open_minor or title.withdrawn_minor:
            return left
        entries += title.charge(date)
        received = title.receive(left)
        entries += received
        return left - sum(entry.amount_minor for entry in received)

    def _pay_instalment(
        self, instalment: Instalment, left: int, date: datetime.date, entries: list[Entry]
    ) -> int:
        if not left or not instalment.open_minor:
            return left
        agreement = self.agreement
        assert agreement is not None
        entries += instalment.earn(agreement.case_id)
        interest = min(left, instalment.interest_minor - instalment.paid_interest_minor)
        if interest:
            entry = instalment.entry(agreement.case_id, Kind.RECEIVED, interest)
            instalment.post(entry)
            entries.append(entry)
        capital = min(left - interest, instalment.capital_minor - instalment.paid_capital_minor)
        left -= interest + capital
        for title in self.titles:
            if capital and title.agreement_id == agreement.agreement_id:
                for entry in title.receive(capital, instalment_id=instalment.instalment_id):
                    instalment.post(entry)
                    entries.append(entry)
                    capital -= entry.amount_minor
        assert capital == 0, "the agreed titles hold at least the capital of the plan"
        if not instalment.open_minor:
            instalment.paid_date = date
        return left

    def _earn(self, date: datetime.date) -> None:
        """Plan interest is earned when the instalment's due date is reached, or when it is paid before."""
        if self.agreement is None or self.agreement.state not in (*IN_FORCE, AgreementState.FULFILLED):
            return
        for instalment in self.instalments:
            if instalment.due_date <= date:
                self._record_agreement(instalment.earn(self.agreement.case_id), date)

    def _settle_states(self, date: datetime.date) -> None:
        agreement = self.agreement
        if agreement is not None and agreement.state in (*IN_FORCE, AgreementState.FULFILLED):
            for instalment in self.instalments:
                instalment.state = instalment_state(instalment, agreement=agreement, business_date=date)
                if instalment.state is InstalmentState.DEFAULTED:
                    instalment.state = InstalmentState.MISSED  # the daily run breaks agreements, nobody else
            if not any(instalment.open_minor for instalment in self.instalments):
                agreement.state = AgreementState.FULFILLED
                for title in self.titles:
                    if title.agreement_id == agreement.agreement_id and title.open_minor:
                        self._release(
                            title, date
                        )  # holds more than was agreed: an older payment was reversed
            elif agreement.state is AgreementState.FULFILLED or not self.instalments[0].open_minor:
                agreement.state = AgreementState.ACTIVE
        for title in self.titles:
            title.settle_state()

    @staticmethod
    def _release(title: Title, date: datetime.date) -> None:
        title.agreement_id = None
        title.accrued_through = max(title.accrued_through, date)
        title.settle_state()

    def _post_all(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if entry.title_id is not None:
                self._titles[entry.title_id].post(entry)
            if entry.instalment_id is not None:
                self._instalments[entry.instalment_id].post(entry)

    def _record(self, payment: Payment, entries: Iterable[Entry]) -> None:
        for entry in entries:
            instalment = self._instalments[entry.instalment_id] if entry.instalment_id is not None else None
            agreement_id = instalment.agreement_id if instalment is not None else None
            self.postings.append(Posting(entry, payment.key.value_date, payment.payment_id, agreement_id))

    def _record_agreement(self, entries: Iterable[Entry], date: datetime.date) -> None:
        assert self.agreement is not None
        self.postings += [Posting(entry, date, None, self.agreement.agreement_id) for entry in entries]
