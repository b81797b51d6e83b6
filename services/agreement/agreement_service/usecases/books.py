"""Accounts opened for one transaction: locked, loaded, changed by the rules of domain, written and published.

Lock order of the service: the guard of unidentified payments, then unidentified payments, then cases in id order.
Everything that belongs to a case is written under the case's lock.
"""

import dataclasses
import datetime
import operator
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from agreement_service import providers
from agreement_service.domain import accounts
from agreement_service.store import accounts as account_store
from agreement_service.store import agreements as agreement_store
from agreement_service.store import payments as payment_store
from agreement_service.store import waterfalls as waterfall_store
from agreement_service.usecases import counts, facts, instruments, moments, promises
from servicekit import db

_CLOSED = frozenset(
    {
        accounts.InstalmentState.PAID,
        accounts.InstalmentState.PAID_LATE,
        accounts.InstalmentState.DEFAULTED,
        accounts.InstalmentState.CANCELLED,
    }
)


def _values(kind: type) -> Callable[[Any], object]:
    """What two objects of a dataclass are compared by."""
    return operator.attrgetter(*(field.name for field in dataclasses.fields(kind) if field.compare))


_title, _instalment, _agreement = (
    _values(kind) for kind in (accounts.Title, accounts.Instalment, accounts.Agreement)
)


@dataclasses.dataclass(kw_only=True)
class Books:
    """The accounts of some cases. `open_books` makes one; `save` writes and publishes what changed."""

    tx: db.Transaction
    agency: uuid.UUID
    moment: moments.Moment
    bank: providers.BankProvider
    cases: Mapping[uuid.UUID, account_store.CaseAccount]
    loaded: list[accounts.Account]
    account_of: Mapping[uuid.UUID, accounts.Account]
    payments: dict[uuid.UUID, payment_store.Payment] = dataclasses.field(default_factory=dict)
    applied: dict[uuid.UUID, accounts.Payment] = dataclasses.field(default_factory=dict)
    _titles: dict[uuid.UUID, object] = dataclasses.field(default_factory=dict)
    _instalments: dict[uuid.UUID, object] = dataclasses.field(default_factory=dict)
    _agreements: dict[uuid.UUID, object] = dataclasses.field(default_factory=dict)
    _states: dict[uuid.UUID, accounts.AgreementState] = dataclasses.field(default_factory=dict)
    _closed: set[uuid.UUID] = dataclasses.field(default_factory=set)
    _shares: dict[uuid.UUID, dict[uuid.UUID, int]] = dataclasses.field(default_factory=dict)
    _changed: set[uuid.UUID] = dataclasses.field(default_factory=set)

    def remember(self) -> None:
        """Note how everything stands: what differs from it is written by `save`."""
        for account in self.loaded:
            for title in account.titles:
                self._titles[title.title_id] = _title(title)
            for instalment in (*account.instalments, *account.ended):
                self._instalments[instalment.instalment_id] = _instalment(instalment)
                if instalment.state in _CLOSED:
                    self._closed.add(instalment.instalment_id)
            if account.agreement is not None:
                self._agreements[account.agreement.agreement_id] = _agreement(account.agreement)
                self._states[account.agreement.agreement_id] = account.agreement.state
        self._shares = {
            key: shares(one.entries) or {one.case_id: 0}
            for key, one in self.applied.items()
            if one.state in accounts.APPLIED
        }

    def take_up(self, account: accounts.Account, new: Sequence[accounts.Title]) -> None:
        """Titles that a novation made, inserted as they are."""
        account.add(new)
        self._titles |= {one.title_id: _title(one) for one in new}

    def settle(
        self,
        *,
        new: Sequence[payment_store.Payment] = (),
        removed: Sequence[payment_store.Payment] = (),
        becomes: accounts.PaymentState = accounts.PaymentState.REVERSED,
    ) -> None:
        """Apply and take back payments of the present epochs, each on the account of its case; what is taken back
        becomes what `becomes` says."""
        groups: dict[int, tuple[accounts.Account, list[uuid.UUID], list[uuid.UUID]]] = {}
        for place, payments in ((1, new), (2, removed)):
            for one in payments:
                account = self._account(one)
                groups.setdefault(id(account), (account, [], []))[place].append(one.id)  # type: ignore[union-attr]
        touched = {one.id for one in (*new, *removed)}
        others: dict[int, list[accounts.Payment]] = {}
        for key, payment in self.applied.items():
            if key not in touched:
                others.setdefault(id(self._account(self.payments[key])), []).append(payment)
        for account, added, gone in groups.values():
            first = min(self.payments[key].key for key in (*added, *gone))
            for changed in account.settle(
                new=[self.applied[key] for key in added],
                removed=[self.applied[key] for key in gone],
                later=[one for one in others.get(id(account), ()) if one.key > first],
                business_date=self.moment.business_date,
                becomes=becomes,
            ):
                self.note(changed)

    def note(self, changed: accounts.Payment) -> None:
        """Take over what became of a payment."""
        payment = self.payments[changed.payment_id]
        payment.state = changed.state
        payment.allocated_minor, payment.overpaid_minor = changed.allocated_minor, changed.overpaid_minor
        if changed.state in accounts.APPLIED:
            payment.epoch = self.cases[changed.case_id].epoch
        self._changed.add(payment.id)

    def save(self) -> None:
        """Write what changed, set-based, and publish it."""
        tx, agency, moment = self.tx, self.agency, self.moment
        titles = [
            one
            for account in self.loaded
            for one in account.titles
            if _title(one) != self._titles[one.title_id]
        ]
        instalments = [
            one
            for account in self.loaded
            for one in (*account.instalments, *account.ended)
            if _instalment(one) != self._instalments.get(one.instalment_id)
        ]
        moved = {one.agreement_id for one in instalments}
        agreements = [
            account
            for account in self.loaded
            if account.agreement is not None
            and (
                account.agreement.agreement_id in moved
                or _agreement(account.agreement) != self._agreements.get(account.agreement.agreement_id)
            )
        ]
        for title in titles:
            title.version += 1
        for instalment in instalments:
            instalment.version += 1
        for account in agreements:
            assert account.agreement is not None
            account.agreement.version += 1
        payments = [self.payments[key] for key in sorted(self._changed)]
        for payment in payments:
            payment.version += 1
        account_store.write_titles(tx, agency, titles)
        account_store.write_instalments(tx, agency, instalments)
        account_store.write_agreements(
            tx, agency, [account.agreement for account in agreements if account.agreement is not None]
        )
        payment_store.write(
            tx,
            agency,
            payments,
            {key: self.applied[key].entries for key in self._changed},
            business_date=moment.business_date,
        )
        account_store.post(
            tx,
            agency,
            [posting for account in self.loaded for posting in account.postings],
            business_date=moment.business_date,
        )
        self._close_instruments(payments, instalments, titles)
        self._publish(titles, instalments, agreements, payments)
        paid = {payment.case_id for payment in payments if payment.case_id is not None}
        if paid:
            promises.judge(tx, agency, paid, moment=moment)

    def _close_instruments(
        self,
        payments: Sequence[payment_store.Payment],
        instalments: Sequence[accounts.Instalment],
        titles: Sequence[accounts.Title],
    ) -> None:
        used = [
            one.instrument_id
            for one in payments
            if one.instrument_id is not None and one.state in accounts.APPLIED
        ]
        if used:
            instruments.paid(self.tx, self.agency, used, moment=self.moment)
        instruments.close(
            self.tx,
            self.agency,
            instalment_ids=[one.instalment_id for one in instalments if one.state in _CLOSED],
            title_ids=[one.title_id for one in titles],
            moment=self.moment,
        )
        reopened = [
            one for one in instalments if one.state not in _CLOSED and one.instalment_id in self._closed
        ]
        for account in self.loaded if reopened else ():
            mine = [one for one in reopened if one in account.instalments]
            if mine and account.agreement is not None:
                instruments.issue(
                    self.tx,
                    self.agency,
                    instalments=mine,
                    currency=account.agreement.currency,
                    moment=self.moment,
                    bank=self.bank,
                )

    def _publish(
        self,
        titles: Sequence[accounts.Title],
        instalments: Sequence[accounts.Instalment],
        agreements: Sequence[accounts.Account],
        payments: Sequence[payment_store.Payment],
    ) -> None:
        tx, moment = self.tx, self.moment
        facts.titles_changed(tx, moment, [facts.title_row(one) for one in titles if not one.acquirer])
        case_ids: dict[uuid.UUID, Sequence[uuid.UUID]] = {
            account.agreement.agreement_id: account.agreement.case_ids
            for account in self.loaded
            if account.agreement is not None
        }
        over = {one.agreement_id for one in instalments} - case_ids.keys()
        if over:
            records = agreement_store.get(tx, self.agency, over)
            case_ids |= {key: record.case_ids for key, record in records.items()}
        facts.instalments_changed(tx, moment, instalments, case_ids)
        for account in agreements:
            assert account.agreement is not None
            if account.agreement.state is not self._states.get(account.agreement.agreement_id):
                counts.agreements(tx, [account.agreement.state])
            publish_agreement(
                tx,
                moment,
                agreement=account.agreement,
                instalments=account.instalments,
                total_minor=sum(one.amount_minor for one in account.instalments),
            )
        for payment in payments:
            after = shares(self.applied[payment.id].entries)
            before = self._shares.get(payment.id, {})
            facts.payment_changed(tx, moment, payment, {**dict.fromkeys(before, 0), **after})

    def _account(self, payment: payment_store.Payment) -> accounts.Account:
        assert payment.case_id is not None
        return self.account_of[payment.case_id]


def publish_agreement(
    tx: db.Transaction,
    moment: moments.Moment,
    *,
    agreement: accounts.Agreement,
    instalments: Sequence[accounts.Instalment],
    total_minor: int,
) -> None:
    """Publish an agreement as it stands."""
    going_on = agreement.state in accounts.IN_FORCE
    facts.agreement_changed(
        tx,
        moment,
        agreement_id=agreement.agreement_id,
        case_ids=agreement.case_ids,
        state=agreement.state,
        version=agreement.version,
        total_minor=total_minor,
        currency=agreement.currency,
        instalments=len(instalments),
        next_due_date=facts.next_due_date(instalments) if going_on else None,
    )


def open_books(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    case_ids: Iterable[uuid.UUID],
    moment: moments.Moment,
    bank: providers.BankProvider,
    new: Sequence[payment_store.Payment] = (),
    removed: Sequence[payment_store.Payment] = (),
    titles_too: Iterable[uuid.UUID] = (),
    whole_epoch: bool = False,
    locked: Mapping[uuid.UUID, account_store.CaseAccount] | None = None,
) -> Books:
    """Lock and load the accounts of these cases, with what `new` and `removed` payments need to be settled, and the
    titles named, also where nothing is open of them.

    `removed` are of the present epoch of their case. `whole_epoch`: with all payments of the cases' present epochs.
    `locked`: what the caller's own lock of these cases gave.
    """
    cases = account_store.lock(tx, agency, case_ids) if locked is None else locked
    if whole_epoch:
        later = payment_store.later(tx, agency, cases, since=datetime.date.min)
    else:
        later = _later(tx, agency, cases, new=new, removed=removed)
    records = {one.id: one for one in (*later, *removed)}
    entries = payment_store.entries(tx, agency, records)
    applied = {key: applied_payment(one, entries.get(key, [])) for key, one in records.items()}
    for one in new:
        records[one.id] = one
        applied[one.id] = applied_payment(one, [])
    agreement_ids = {case.agreement_id for case in cases.values() if case.agreement_id is not None}
    agreements = account_store.agreements(tx, agency, agreement_ids) if agreement_ids else {}
    instalments = account_store.instalments(tx, agency, agreement_ids) if agreement_ids else {}
    agreed = account_store.agreed(tx, agency, agreement_ids) if agreement_ids else {}
    originals = _originals(tx, agency, agreements)
    also = {
        *titles_too,
        *(entry.title_id for one in applied.values() for entry in one.entries if entry.title_id is not None),
        *(one.title_id for one in records.values() if one.title_id is not None),
        *(title_id for one in records.values() for title_id in one.chosen_title_ids),
        *(item.title_id for items in (*agreed.values(), *originals.values()) for item in items),
    }
    orders = waterfall_store.of(tx, agency, {case.creditor_id for case in cases.values()}) if records else {}
    titles: dict[uuid.UUID, list[accounts.Title]] = {}
    for title in account_store.titles(tx, agency, cases, also=also):
        titles.setdefault(title.case_id, []).append(title)
    made: list[accounts.Account] = []
    account_of: dict[uuid.UUID, accounts.Account] = {}
    groups: dict[uuid.UUID, list[uuid.UUID]] = {}
    for case in cases.values():
        groups.setdefault(case.agreement_id or case.case_id, []).append(case.case_id)
    for key, members in groups.items():
        account = accounts.Account(
            titles=[title for case_id in members for title in titles.get(case_id, [])],
            agreement=agreements.get(key),
            instalments=instalments.get(key, []),
            agreed=agreed.get(key, []),
            originals=originals.get(key, []),
            waterfalls=orders.get(cases[members[0]].creditor_id, accounts.Waterfalls()),
        )
        made.append(account)
        account_of |= dict.fromkeys(members, account)
    books = Books(
        tx=tx,
        agency=agency,
        moment=moment,
        bank=bank,
        cases=cases,
        loaded=made,
        account_of=account_of,
        payments=records,
        applied=applied,
    )
    books.remember()
    return books


def _originals(
    tx: db.Transaction, agency: uuid.UUID, agreements: Mapping[uuid.UUID, accounts.Agreement]
) -> dict[uuid.UUID, list[accounts.AgreedTitle]]:
    made = [key for key, one in agreements.items() if one.kind is accounts.AgreementKind.NOVATION]
    return account_store.agreed(tx, agency, made, novated=True) if made else {}


def applied_payment(payment: payment_store.Payment, entries: list[accounts.Entry]) -> accounts.Payment:
    """A payment as the rules see it."""
    assert payment.case_id is not None
    return accounts.Payment(
        payment_id=payment.id,
        case_id=payment.case_id,
        title_id=payment.title_id,
        key=payment.key,
        amount_minor=payment.amount_minor,
        state=payment.state,
        allocated_minor=payment.allocated_minor,
        overpaid_minor=payment.overpaid_minor,
        refunded_minor=payment.refunded_minor,
        credited_minor=payment.credited_minor,
        chosen=payment.chosen,
        entries=entries,
        version=payment.version,
    )


def _later(
    tx: db.Transaction,
    agency: uuid.UUID,
    cases: Mapping[uuid.UUID, account_store.CaseAccount],
    *,
    new: Sequence[payment_store.Payment],
    removed: Sequence[payment_store.Payment],
) -> list[payment_store.Payment]:
    dates: list[datetime.date] = [one.value_date for one in (*new, *removed)]
    if not dates:
        return []
    gone = {one.id for one in removed}
    return [one for one in payment_store.later(tx, agency, cases, since=min(dates)) if one.id not in gone]


def shares(entries: Iterable[accounts.Entry]) -> dict[uuid.UUID, int]:
    """What a payment brought each case."""
    found: dict[uuid.UUID, int] = {}
    for entry in entries:
        if entry.kind is accounts.Kind.RECEIVED:
            found[entry.case_id] = found.get(entry.case_id, 0) + entry.amount_minor
    return found
