"""Titles: placed, explained, listed, taken back."""

import dataclasses
import datetime
import uuid
from collections.abc import Iterable, Sequence

from agreement_service import providers
from agreement_service.domain import accounts, balances, novations, terms
from agreement_service.store import accounts as account_store
from agreement_service.store import agreements as agreement_store
from agreement_service.store import novations as novation_store
from agreement_service.store import payments as payment_store
from agreement_service.store import placement
from agreement_service.usecases import books, facts, moments
from agreement_service.usecases import payments as payment_cases
from recupera.case.v1 import case_facts_pb2
from servicekit import dates, db, errors

MAX_CASES = 500


class BatchInUse(errors.ServiceError):
    """Something was done with titles of the batch: it cannot be rolled back any more."""

    status = errors.Status.FAILED_PRECONDITION


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaseBalance:
    """What a case owes on a date; minor units of `currency`."""

    case_id: uuid.UUID
    currency: str
    subjects: list[balances.Explained]

    @property
    def total_minor(self) -> int:
        """Sum over the subjects."""
        return sum(subject.total_minor for subject in self.subjects)


def expect(*, tx: db.Transaction, agency: uuid.UUID) -> None:
    """Titles are placed later in this transaction: keep out payments that find nothing, before any row is locked."""
    payment_store.guard_unidentified(tx, agency, shared=True)


def place(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    placed: Sequence[case_facts_pb2.TitlesPlaced],
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """Take over placed titles and give them the payments that waited for them. The same titles again change nothing.

    The transaction began with `expect`.
    """
    titles, contracts = _columns(placed, date=moment.business_date)
    waiting = payment_store.lock_unidentified(
        tx,
        agency,
        creditors=sorted(set(contracts.creditor_references)),
        titles=titles.references,
        contracts=contracts.contract_references,
    )
    inserted = placement.place(
        tx,
        agency,
        contracts=contracts,
        titles=titles,
        partitions=facts.partitions(),
        business_date=moment.business_date,
    )
    if inserted < len(titles.title_ids):
        placement.revive(tx, agency, titles=titles, business_date=moment.business_date)
    if waiting:
        payment_cases.match_waiting(tx=tx, agency=agency, waiting=waiting, moment=moment, bank=bank)


def _columns(
    placed: Sequence[case_facts_pb2.TitlesPlaced], *, date: datetime.date
) -> tuple[placement.Titles, placement.Contracts]:
    """The columns of several chunks as one, contracts once each."""
    titles, contracts = placement.Titles(), placement.Contracts()
    index: dict[tuple[bytes, str, str, str, str, bool], int] = {}
    for part in placed:
        places, currencies = [], []
        for contract in part.table_contracts:
            key = (
                contract.creditor_id,
                contract.creditor_reference,
                contract.contract_reference,
                contract.currency,
                contract.product,
                contract.natural_person,
            )
            if key not in index:
                index[key] = len(index)
                contracts.creditor_ids.append(contract.creditor_id)
                contracts.creditor_references.append(contract.creditor_reference)
                contracts.contract_references.append(contract.contract_reference)
                contracts.currencies.append(contract.currency)
                contracts.products.append(contract.product)
                contracts.consumers.append(contract.natural_person)
                contracts.penalty_caps.append(
                    terms.penalty_cap_e4(
                        currency=contract.currency, consumer=contract.natural_person, date=date
                    )
                )
            places.append(index[key])
            currencies.append(contract.currency)
        rates = list(part.table_terms)
        days = list(part.due_days)
        payable: dict[tuple[int, str], int] = {}
        for day, contract_index in zip(days, part.contract_index, strict=True):
            due = (day, currencies[contract_index])
            if due not in payable:
                payable[due] = dates.epoch_days(
                    providers.payable_until(dates.from_epoch_days(day), currencies[contract_index])
                )
            titles.payable_days.append(payable[due])
            titles.contracts.append(places[contract_index])
        titles.case_ids.extend(part.case_ids)
        titles.title_ids.extend(part.title_ids)
        titles.debtor_ids.extend(part.debtor_ids)
        titles.references.extend(part.title_references)
        titles.principals.extend(part.principal_minor)
        titles.due_days.extend(days)
        for name, values in (
            ("penalty_rates", [one.penalty_rate_e4 for one in rates]),
            ("monthly_rates", [one.monthly_interest_rate_e4 for one in rates]),
            ("own_penalties", [not one.no_penalty for one in rates]),
            ("own_interests", [not one.no_monthly_interest for one in rates]),
        ):
            getattr(titles, name).extend([values[place] for place in part.terms_index])
        types = list(part.table_types)
        titles.types.extend([types[place] for place in part.type_index] or ["OTHER"] * len(days))
        titles.batch_ids.extend([part.batch_id] * len(days))
    return titles, contracts


def explain(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    case_ids: Sequence[uuid.UUID],
    date: datetime.date,
    creditor: uuid.UUID | None = None,
) -> list[CaseBalance]:
    """What these cases owe on a date, line by line: titles not in an agreement, then unpaid instalments (R08).

    Balances as they stand, charges counted to `date`. Raises ResourceNotFound naming the cases that are not known.
    """
    cases = _known(tx, agency, case_ids, creditor=creditor)
    titles: dict[uuid.UUID, list[accounts.Title]] = {}
    for title in account_store.titles(tx, agency, cases):
        titles.setdefault(title.case_id, []).append(title)
    posted = account_store.posted_charges(tx, agency, [one for owned in titles.values() for one in owned])
    agreement_ids = {case.agreement_id for case in cases.values() if case.agreement_id is not None}
    agreements = account_store.agreements(tx, agency, agreement_ids) if agreement_ids else {}
    instalments = account_store.instalments(tx, agency, agreement_ids) if agreement_ids else {}
    found = []
    for case_id in dict.fromkeys(case_ids):
        case = cases[case_id]
        owned = sorted(titles.get(case_id, []), key=lambda one: (one.due_date, one.reference))
        subjects = [
            balances.explain_title(one, date, posted.get(one.title_id, ()))
            for one in owned
            if one.agreement_id is None and one.open_minor and not one.acquirer
        ]
        agreement = agreements.get(case.agreement_id) if case.agreement_id is not None else None
        if agreement is not None and agreement.state in accounts.IN_FORCE:
            rows = sorted(instalments[agreement.agreement_id], key=lambda one: one.number)
            subjects += [balances.explain_instalment(one, date) for one in rows if one.open_minor]
        found.append(CaseBalance(case_id=case_id, currency=case.currency, subjects=subjects))
    return found


def lineage(
    *, tx: db.Transaction, agency: uuid.UUID, title_id: uuid.UUID, creditor: uuid.UUID | None
) -> tuple[list[placement.Listed], list[placement.Listed]]:
    """Ancestors and descendants of a title by novation, all generations, oldest due date first (S5-02).

    Raises ResourceNotFound, also for a title of another creditor than the caller's.
    """
    if not placement.listed(tx, agency, [title_id], creditor=creditor):
        raise errors.ResourceNotFound("no such title", title=title_id)
    up, down = novation_store.relatives(tx, agency, title_id)
    return (
        placement.listed(tx, agency, up, creditor=creditor),
        placement.listed(tx, agency, down, creditor=creditor),
    )


def _known(
    tx: db.Transaction,
    agency: uuid.UUID,
    case_ids: Iterable[uuid.UUID],
    *,
    creditor: uuid.UUID | None,
) -> dict[uuid.UUID, account_store.CaseAccount]:
    wanted = set(case_ids)
    cases = account_store.cases(tx, agency, wanted, creditor=creditor)
    if missing := sorted(wanted - set(cases)):
        raise errors.ResourceNotFound("no such case", case=missing[0], missing=len(missing))
    return cases


def withdraw(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    withdrawn: Sequence[tuple[uuid.UUID, uuid.UUID]],
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> int:
    """Take titles (case, title) back to the creditor; an agreement over any of them is cancelled first. How many were
    open. Titles nobody knows, and those that hold nothing, are passed over."""
    wanted = {title_id for _, title_id in withdrawn}
    opened = books.open_books(
        tx, agency, case_ids={case_id for case_id, _ in withdrawn}, moment=moment, bank=bank
    )
    count = 0
    touched: set[uuid.UUID] = set()
    ended: dict[uuid.UUID, uuid.UUID] = {}
    endings: dict[uuid.UUID, list[accounts.Entry]] = {}
    for account in opened.loaded:
        mine = [one for one in account.titles if one.title_id in wanted and one.open_minor]
        if not mine:
            continue
        agreement = account.agreement
        bound = {one.agreement_id for one in mine}
        if agreement is not None and agreement.state in accounts.IN_FORCE and agreement.agreement_id in bound:
            endings[agreement.agreement_id] = novations.end(
                account, state=accounts.AgreementState.CANCELLED, date=moment.business_date
            )
            # of a novation that ended the originals are open again
            mine = [one for one in account.titles if one.title_id in wanted and one.open_minor]
            ended |= dict.fromkeys(agreement.case_ids, agreement.agreement_id)
        account.withdraw([one.title_id for one in mine], date=moment.business_date)
        touched |= {one.case_id for one in mine}
        count += len(mine)
    opened.save()
    if others := touched - set(ended):
        account_store.new_epoch(tx, agency, others)
    if ended:
        account_store.bind(tx, agency, ended, None)
        novation_store.save_endings(tx, agency, endings)
        for agreement_id in set(ended.values()):
            agreement_store.set_end_reason(tx, agency, agreement_id, "titles withdrawn by the creditor")
    return count


def roll_back(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    batch_id: uuid.UUID,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> int:
    """Withdraw all titles of a batch, or refuse when anything was done with one of them. How many were withdrawn.

    Raises BatchInUse. A batch that is withdrawn already, or brought nothing, gives 0.
    """
    rows = placement.of_batch(tx, agency, batch_id)
    account_store.lock(tx, agency, {row.case_id for row in rows})
    rows = placement.of_batch(tx, agency, batch_id)
    used = [row for row in rows if row.state not in ("OPEN", "WITHDRAWN") or row.proposed]
    if used:
        raise BatchInUse(
            "titles of the batch were paid, agreed on or proposed since", titles=len(used), batch=batch_id
        )
    going = [(row.case_id, row.id) for row in rows if row.state == "OPEN"]
    if not going:
        return 0
    return withdraw(tx=tx, agency=agency, withdrawn=going, moment=moment, bank=bank)
