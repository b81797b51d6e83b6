"""Accounting to creditors: contracts of commission; statements closed, approved, paid."""

import datetime
import uuid

from agreement_service.domain import remittance
from agreement_service.store import remittance as store
from agreement_service.usecases import facts, moments
from servicekit import db, errors

MAX_BANK_REFERENCE = 140


def add_contract(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    creditor_reference: str,
    contract: remittance.Contract,
    by: str,
    moment: moments.Moment,
) -> store.Agreed:
    """Add a contract of commission.

    Raises InvalidRequest naming each wrong field with its range, ResourceNotFound, CommissionContractExists.
    """
    if wrong := contract.check():
        raise errors.InvalidRequest(
            fields=[errors.FieldViolation(f"contract.{one.field}", one.description) for one in wrong]
        )
    creditor = _creditor(tx, agency, creditor_reference)
    if not store.add_contract(tx, agency, creditor.creditor_id, contract, created_by=by, now=moment.now):
        raise remittance.CommissionContractExists(
            "a contract of this creditor, currency and product begins on this day already",
            currency=contract.currency,
            product=contract.product,
            valid_from=contract.valid_from,
        )
    return store.contract(tx, agency, contract.contract_id)


def close(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    creditor_reference: str,
    currency: str,
    period_end: datetime.date | None,
    by: str,
    moment: moments.Moment,
    slice_size: int = store.SLICE,
) -> list[uuid.UUID]:
    """Close a creditor's period: its statement, or one for each case. Their ids.

    Everything that has settled with a business date before `period_end` (None: the last one that the contract's
    frequency allows) and stands in no statement yet. All in one transaction, in slices of one statement of SQL each: it
    holds the creditor's row, payments go on beside it. Raises ResourceNotFound, InvalidRequest, PeriodClosed,
    CommissionContractMissing.
    """
    creditor = _creditor(tx, agency, creditor_reference, lock=True)
    contracts = store.contracts(tx, agency, creditor.creditor_id, currency)
    closed = store.last_period_end(tx, agency, creditor.creditor_id, currency)
    end = period_end
    if end is None:
        latest = _general(contracts, currency=currency, end=moment.business_date)
        assert latest.frequency is not None
        end = remittance.period_end(latest.frequency, moment.business_date)
    general = _general(contracts, currency=currency, end=end)
    assert general.frequency is not None
    remittance.check_period_end(general.frequency, end, business_date=moment.business_date, closed=closed)
    individual = general.grouping is remittance.Grouping.INDIVIDUAL
    waiting = store.first_waiting(tx, agency, creditor.creditor_id, currency)
    start = closed or min(waiting or end, end - datetime.timedelta(days=1))
    store.open_statements(
        tx, agency, creditor.creditor_id, currency, individual=individual, start=closed, end=end
    )
    reaches = remittance.reaches(contracts)
    after = 0
    while True:
        taken = store.take(
            tx,
            agency,
            creditor.creditor_id,
            currency,
            reaches=reaches,
            individual=individual,
            end=end,
            after=after,
            limit=slice_size,
        )
        if taken.uncovered is not None:
            raise remittance.CommissionContractMissing(
                "no contract of commission covers a settlement of this value date",
                currency=currency,
                value_date=taken.uncovered,
            )
        if taken.settlements < slice_size:
            break
        after = taken.last
    if any(one.success_rate_e4 for one in contracts):
        _add_success_fees(tx, agency, creditor.creditor_id, currency, contracts)
    counted = [
        (
            one,
            remittance.Totals(
                settlements=one.settlements,
                gross_minor=one.gross_minor,
                commission_minor=one.commission_minor,
                success_fee_minor=one.success_fee_minor,
                tax_added_minor=one.tax_added_minor,
                tax_retained_minor=one.tax_retained_minor,
                carried_in_minor=one.carried_in_minor,
                minimum_minor=general.minimum_minor,
            ),
        )
        for one in store.sums(tx, agency, creditor.creditor_id, currency)
        if one.settlements or one.carried_in_minor or (one.for_case_id is None and not individual)
    ]
    store.close(
        tx,
        agency,
        counted,
        start=start,
        end=end,
        minimum_minor=general.minimum_minor,
        by=by,
        now=moment.now,
        individual=individual,
    )
    ids = [one.statement_id for one, _ in counted]
    for statement in store.by_ids(tx, agency, ids):
        facts.statement_changed(tx, moment, statement)
    return ids


def approve(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    statement_id: uuid.UUID,
    version: int | None,
    by: str,
    moment: moments.Moment,
) -> None:
    """A second person agrees with a closed statement.

    Raises ResourceNotFound, VersionMismatch, StatementNotClosed, ApproverClosedIt.
    """
    statement = _locked(tx, agency, statement_id, version)
    if statement.state is not remittance.StatementState.CLOSED:
        raise remittance.StatementNotClosed(
            "only a closed statement can be approved", state=statement.state.value
        )
    if statement.closed_by == by:
        raise remittance.ApproverClosedIt("a statement is approved by someone else than who closed it")
    store.approve(tx, agency, statement_id, by=by, now=moment.now)
    _publish(tx, agency, statement_id, moment)


def mark_paid(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    statement_id: uuid.UUID,
    bank_reference: str,
    date: datetime.date | None,
    version: int | None,
    moment: moments.Moment,
) -> None:
    """The money of an approved statement went to the creditor.

    Raises InvalidRequest, ResourceNotFound, VersionMismatch, StatementNotApproved, NothingToPay.
    """
    if not bank_reference.strip() or len(bank_reference) > MAX_BANK_REFERENCE or "\0" in bank_reference:
        raise errors.invalid("bank_reference", f"expected 1 to {MAX_BANK_REFERENCE} characters")
    statement = _locked(tx, agency, statement_id, version)
    if statement.state is not remittance.StatementState.APPROVED:
        raise remittance.StatementNotApproved(
            "only an approved statement can be paid", state=statement.state.value
        )
    if not statement.remitted_minor:
        raise remittance.NothingToPay(
            "the statement pays nothing over", carried_out_minor=statement.carried_out_minor
        )
    assert statement.period_end is not None
    paid = date or moment.business_date
    if not statement.period_end <= paid <= moment.business_date:
        raise errors.invalid(
            "pay_date", f"expected {statement.period_end} to {moment.business_date}, the business date"
        )
    store.pay(tx, agency, statement_id, date=paid, reference=bank_reference)
    _publish(tx, agency, statement_id, moment)


def view(
    *, tx: db.Transaction, agency: uuid.UUID, statement_id: uuid.UUID, creditor: uuid.UUID | None
) -> store.Statement:
    """A statement, of the creditor where one is given. Raises ResourceNotFound."""
    found = store.get(tx, agency, statement_id, creditor=creditor)
    if found is None:
        raise errors.ResourceNotFound("no such statement", statement=statement_id)
    return found


def view_closed(
    *, tx: db.Transaction, agency: uuid.UUID, statement_id: uuid.UUID, creditor: uuid.UUID | None
) -> store.Statement:
    """A statement that has lines and never changes. Raises ResourceNotFound, StatementOpen."""
    found = view(tx=tx, agency=agency, statement_id=statement_id, creditor=creditor)
    if found.state is remittance.StatementState.OPEN:
        raise remittance.StatementOpen("the statement still collects: close it first", statement=statement_id)
    return found


def _add_success_fees(
    tx: db.Transaction,
    agency: uuid.UUID,
    creditor_id: uuid.UUID,
    currency: str,
    contracts: list[remittance.Contract],
) -> None:
    by_id = {one.contract_id: one for one in contracts}
    found = []
    for one in store.resolutions(tx, agency, creditor_id, currency):
        fee = remittance.success_fee(
            by_id[one.contract_id],
            resolved=one.resolved,
            received_minor=one.received_minor,
            before=one.before,
        )
        if fee is not None:
            found.append((one, fee))
    store.add_fees(tx, agency, found)


def _general(
    contracts: list[remittance.Contract], *, currency: str, end: datetime.date
) -> remittance.Contract:
    """The contract that says when and how the creditor is paid over: that of the period's last day."""
    day = end - datetime.timedelta(days=1)
    found = remittance.contract_on(
        remittance.reaches([one for one in contracts if not one.product]), product="", date=day
    )
    if found is None:
        raise remittance.CommissionContractMissing(
            "no contract of commission says how this creditor is paid over", currency=currency, date=day
        )
    return found


def _creditor(tx: db.Transaction, agency: uuid.UUID, reference: str, *, lock: bool = False) -> store.Creditor:
    found = store.creditor(tx, agency, reference, lock=lock)
    if found is None:
        raise errors.ResourceNotFound("no such creditor", field="creditor_reference")
    return found


def _locked(
    tx: db.Transaction, agency: uuid.UUID, statement_id: uuid.UUID, version: int | None
) -> store.Statement:
    store.lock(tx, agency, [statement_id])
    found = store.get(tx, agency, statement_id)
    if found is None:
        raise errors.ResourceNotFound("no such statement", statement=statement_id)
    if version is not None and found.version != version:
        raise errors.VersionMismatch("the statement changed since it was read", etag=found.version)
    return found


def _publish(tx: db.Transaction, agency: uuid.UUID, statement_id: uuid.UUID, moment: moments.Moment) -> None:
    changed = store.get(tx, agency, statement_id)
    assert changed is not None
    facts.statement_changed(tx, moment, changed)
