"""An account: the titles, instalments and payments between which money flows."""

import dataclasses
import datetime
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence

from agreement_service.domain.accounts.entries import Component, Entry, Kind
from agreement_service.domain.accounts.instalments import (
    IN_FORCE,
    AgreedTitle,
    Agreement,
    AgreementState,
    Instalment,
    InstalmentState,
    instalment_state,
)
from agreement_service.domain.accounts.payments import Payment, PaymentState, Posting
from agreement_service.domain.accounts.titles import Title
from agreement_service.domain.accounts.waterfalls import LEGAL, Waterfalls


@dataclasses.dataclass(kw_only=True)
class Account:
    """The titles, instalments and payments between which money flows. Titles and instalments in paying order."""

    titles: list[Title]
    waterfalls: Waterfalls = LEGAL
    """The creditor's."""
    agreement: Agreement | None = None
    instalments: list[Instalment] = dataclasses.field(default_factory=list)
    agreed: list[AgreedTitle] = dataclasses.field(default_factory=list)
    originals: list[AgreedTitle] = dataclasses.field(default_factory=list)
    """As `agreed`: titles that left circulation when the agreement, a novation, was accepted."""
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

    def add(self, titles: Iterable[Title]) -> None:
        """Take up titles that a novation made."""
        self.titles += titles
        self.titles.sort(key=lambda title: (title.due_date, title.reference, title.case_id))
        self._titles |= {title.title_id: title for title in self.titles}

    def post(self, entries: Iterable[Entry]) -> None:
        """Apply entries to the titles and instalments that they name; the caller records them."""
        for entry in entries:
            if entry.title_id is not None:
                self._titles[entry.title_id].post(entry)
            if entry.instalment_id is not None:
                self._instalments[entry.instalment_id].post(entry)

    def settle(
        self,
        *,
        new: Sequence[Payment] = (),
        removed: Sequence[Payment] = (),
        later: Sequence[Payment] = (),
        business_date: datetime.date,
        becomes: PaymentState = PaymentState.REVERSED,
    ) -> list[Payment]:
        """Apply `new` payments and take `removed` ones back, which makes them what `becomes` says; `later` are all
        applied ones of this epoch with a key above the least of those. Returns the payments that changed."""
        if self.agreement is not None and self.agreement.state is AgreementState.FULFILLED:
            for item in self.agreed:
                self.title(item.title_id).agreement_id = self.agreement.agreement_id
        before = {payment.payment_id: list(payment.entries) for payment in later}
        for payment in sorted([*later, *removed], key=lambda one: one.key, reverse=True):
            self.post(entry.contra() for entry in reversed(payment.entries))
        changed = list(removed)
        for payment in removed:
            self._record(payment, [entry.contra() for entry in reversed(payment.entries)])
            self._take_back(payment, becomes)
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
        """Bind the agreed titles: post their charges as agreed and what the negotiation adds, waive the discount, stop
        their accrual.

        The caller has checked that the titles are unchanged since the proposal.
        """
        self.agreement, self.agreed = agreement, list(agreed)
        self.instalments = sorted(instalments, key=lambda instalment: instalment.number)
        self._instalments |= {one.instalment_id: one for one in self.instalments}
        for item in agreed:
            title = self.title(item.title_id)
            entries = title.charge(agreement.expire_date)
            title.agreement_id = agreement.agreement_id
            for component, amount in item.added().items():
                entries.append(title.entry(component, Kind.CHARGED, amount))
                title.post(entries[-1])
            self._record_agreement(entries + title.close(Kind.WAIVED, item.waived()), business_date)
        awaits = self.instalments[0].number == 0
        agreement.state = AgreementState.AWAITING_DOWN_PAYMENT if awaits else AgreementState.ACTIVE
        self._earn(business_date)
        self._settle_states(business_date)

    def end(self, *, state: AgreementState, date: datetime.date) -> None:
        """End the agreement unfulfilled as `state` on `date`; its titles come back less what was paid.

        What it forgave is owed again; what it added disappears as far as it is not paid.
        """
        agreement = self.agreement
        assert agreement is not None
        for item in self.agreed:
            title = self.title(item.title_id)
            back = [
                title.entry(component, Kind.WAIVED, -amount) for component, amount in item.waived().items()
            ]
            self.post(back)
            gone = [
                title.entry(component, Kind.CHARGED, -unpaid)
                for component, amount in item.added().items()
                if (unpaid := min(amount, title.open_of(component)))
            ]
            self.post(gone)
            self._record_agreement(back + gone, date)
        bound = [title for title in self.titles if title.agreement_id == agreement.agreement_id]
        oldest = next((title for title in bound if title.open_minor), bound[0])
        for instalment in self.instalments:
            unpaid = instalment.charged_interest_minor - instalment.paid_interest_minor
            if unpaid:
                moved = [
                    instalment.entry(agreement.case_id, Kind.CHARGED, -unpaid),
                    oldest.entry(Component.INTEREST, Kind.CHARGED, unpaid),
                ]
                self.post(moved)
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
        becomes: PaymentState = PaymentState.REVERSED,
    ) -> None:
        """Take back a payment of an earlier epoch: only its cash, nothing is counted again.

        Of an agreement that is over, plan interest it had paid becomes interest of its oldest title (`oldest`, by
        instalment). Where the account's own agreement goes on (the epoch ended for another reason), its instalments are
        open again, and a fulfilled one is active again. A withdrawn title gives what comes back to the creditor at
        once. `in_force` are the agreements that go on.
        """
        entries: list[Entry] = []
        living = self.agreement.agreement_id if self.agreement is not None else None
        if self.agreement is not None and self.agreement.state is AgreementState.FULFILLED:
            for item in self.agreed:
                self.title(item.title_id).agreement_id = living
        for entry in reversed(payment.entries):
            if entry.kind is not Kind.RECEIVED:
                continue
            entries.append(entry.contra())
            if entry.component is Component.PLAN_INTEREST:
                assert entry.instalment_id is not None
                instalment = self._instalments[entry.instalment_id]
                if instalment.agreement_id == living:
                    continue
                title = self.title(oldest[entry.instalment_id])
                entries.append(instalment.entry(entry.case_id, Kind.CHARGED, -entry.amount_minor))
                entries.append(title.entry(Component.INTEREST, Kind.CHARGED, entry.amount_minor))
        self.post(entries)
        self._record(payment, entries)
        for instalment in self.ended:
            if instalment.open_minor:
                instalment.state = InstalmentState.CANCELLED
        for title in self.titles:
            if title.withdrawn_minor:
                self.postings += [Posting(entry, date) for entry in title.close(Kind.WITHDRAWN)]
            going_on = (
                title.agreement_id is None or title.agreement_id == living or title.agreement_id in in_force
            )
            if title.open_minor and not going_on:
                self._release(title, date)
        self._settle_states(date)
        self._take_back(payment, becomes)

    def withdraw(self, title_ids: Iterable[uuid.UUID], *, date: datetime.date) -> None:
        """Take titles back to the creditor: what is open of them becomes withdrawn. Not in an agreement any more."""
        for title_id in title_ids:
            title = self.title(title_id)
            self.postings += [Posting(entry, date) for entry in title.close(Kind.WITHDRAWN)]
            title.settle_state()

    def write_off(self, title_ids: Iterable[uuid.UUID], *, date: datetime.date) -> None:
        """Settle titles without cash (S5-25): what is open of them becomes written off. Not in an agreement; what
        accrues on them is not posted, and is gone with the principal."""
        for title_id in title_ids:
            title = self.title(title_id)
            self.postings += [Posting(entry, date) for entry in title.close(Kind.WRITTEN_OFF)]
            title.settle_state()

    def undo_write_off(self, entries: Iterable[Entry], *, date: datetime.date) -> None:
        """Take write-offs back by contra entries: the titles owe again what they owed, and charges accrue on it as if
        nothing had happened."""
        for entry in entries:
            contra = entry.contra()
            self.post([contra])
            self.postings.append(Posting(contra, date))
        for title in self.titles:
            title.settle_state()

    @staticmethod
    def _take_back(payment: Payment, becomes: PaymentState) -> None:
        payment.entries, payment.state = [], becomes
        payment.allocated_minor = payment.overpaid_minor = 0

    def _apply(self, payment: Payment) -> None:
        entries: list[Entry] = []
        usable = left = payment.amount_minor - payment.refunded_minor - payment.credited_minor
        named = [(payment.title_id, left)] if payment.title_id is not None else []
        acquirers = False
        for title_id, most in (*payment.chosen, *named):
            chosen = self._titles.get(title_id)
            acquirers |= chosen is not None and bool(chosen.acquirer)
            if chosen is not None and chosen.agreement_id is None:
                part = min(most, left)
                left += self._pay_title(chosen, part, payment.key.value_date, entries) - part
        debtors = (
            [] if acquirers else self.titles
        )  # what an acquirer pays for his title pays no debt of the debtor's
        if (
            debtors
            and self.agreement is not None
            and self.agreement.state in (*IN_FORCE, AgreementState.FULFILLED)
        ):
            for instalment in self.instalments:
                left = self._pay_instalment(instalment, left, payment.key.value_date, entries)
        for title in debtors:
            if title.agreement_id is None and not title.acquirer:
                left = self._pay_title(title, left, payment.key.value_date, entries)
        payment.entries = _merged(entries) if payment.chosen else entries
        payment.allocated_minor = usable - left
        payment.overpaid_minor = left
        payment.settle_state()

    def _pay_title(self, title: Title, left: int, date: datetime.date, entries: list[Entry]) -> int:
        if not left or not title.open_minor or title.withdrawn_minor:
            return left
        entries += title.charge(date)
        received = title.receive(left, order=self.waterfalls.on(date))
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
                order = self.waterfalls.on(date)
                for entry in title.receive(capital, order=order, instalment_id=instalment.instalment_id):
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
        title.corrected_through = max(title.corrected_through or title.due_date, date)
        title.settle_state()

    def _record(self, payment: Payment, entries: Iterable[Entry]) -> None:
        for entry in entries:
            instalment = self._instalments[entry.instalment_id] if entry.instalment_id is not None else None
            agreement_id = instalment.agreement_id if instalment is not None else None
            self.postings.append(Posting(entry, payment.key.value_date, payment.payment_id, agreement_id))

    def _record_agreement(self, entries: Iterable[Entry], date: datetime.date) -> None:
        assert self.agreement is not None
        self.postings += [Posting(entry, date, None, self.agreement.agreement_id) for entry in entries]


def _merged(entries: Sequence[Entry]) -> list[Entry]:
    """One entry a title, instalment, component and kind: a chosen title may get its share and more of the rest."""
    sums: dict[Entry, int] = {}
    for entry in entries:
        key = dataclasses.replace(entry, amount_minor=0)
        sums[key] = sums.get(key, 0) + entry.amount_minor
    return [dataclasses.replace(key, amount_minor=amount) for key, amount in sums.items()]
