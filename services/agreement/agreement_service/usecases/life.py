"""The life of an agreement: accepted, cancelled, ended (features S1-19, S1-28, S1-33; W-09)."""

import datetime
import uuid
from collections.abc import Sequence

from agreement_service import providers
from agreement_service.domain import accounts
from agreement_service.store import accounts as account_store
from agreement_service.store import agreements as store
from agreement_service.usecases import agreements, books, instruments, moments
from servicekit import db, errors


class TitlesChangedSinceProposal(errors.ServiceError):
    """A title was paid, withdrawn or otherwise changed since the proposal was counted: propose again."""

    status = errors.Status.FAILED_PRECONDITION


class ProposalExpired(errors.ServiceError):
    """The last day of the proposal is over: it must be counted again (W-09)."""

    status = errors.Status.FAILED_PRECONDITION


class AgreementNotProposed(errors.ServiceError):
    """Only a proposal can be accepted."""

    status = errors.Status.FAILED_PRECONDITION


class AgreementOver(errors.ServiceError):
    """The agreement is fulfilled, broken, cancelled or expired."""

    status = errors.Status.FAILED_PRECONDITION


def accept(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    agreement_id: uuid.UUID,
    version: int | None,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """The debtor says yes: titles are bound, charges posted as agreed, instruments drafted.

    Validated on the titles as they are now. Raises ResourceNotFound, VersionMismatch, AgreementNotProposed,
    ProposalExpired, TitlesInAgreement, TitlesChangedSinceProposal.
    """
    agreement = _locked(tx, agency, agreement_id, version)
    if agreement.state is accounts.AgreementState.EXPIRED or (
        agreement.state is accounts.AgreementState.PROPOSED and moment.business_date > agreement.expire_date
    ):
        raise ProposalExpired("the proposal's last day is over", expire_date=agreement.expire_date)
    if agreement.state is not accounts.AgreementState.PROPOSED:
        raise AgreementNotProposed("the agreement is not a proposal", state=agreement.state.value)
    cases = account_store.cases(tx, agency, agreement.case_ids)
    agreements.check_free(tx, agency, list(cases.values()))
    agreed = account_store.agreed(tx, agency, [agreement_id])[agreement_id]
    owned = account_store.titles(tx, agency, cases, also=[item.title_id for item in agreed])
    by_id = {title.title_id: title for title in owned}
    changed = [item for item in agreed if by_id[item.title_id].version != item.title_version]
    if changed:
        raise TitlesChangedSinceProposal(
            "titles changed since the proposal: propose again",
            titles=len(changed),
            title=changed[0].title_id,
        )
    account = accounts.Account(titles=owned)
    opened = books.Books(
        tx=tx,
        agency=agency,
        moment=moment,
        bank=bank,
        cases=cases,
        loaded=[account],
        account_of=dict.fromkeys(cases, account),
    )
    opened.remember()
    rows = account_store.instalments(tx, agency, [agreement_id])[agreement_id]
    account.accept(agreement=agreement, agreed=agreed, instalments=rows, business_date=moment.business_date)
    opened.save()
    store.set_accept_date(tx, agency, agreement_id, moment.business_date)
    _leave_fulfilled(tx, agency, cases)
    account_store.bind(tx, agency, agreement.case_ids, agreement_id)
    instruments.issue(
        tx, agency, instalments=account.instalments, currency=agreement.currency, moment=moment, bank=bank
    )


def cancel(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    agreement_id: uuid.UUID,
    reason: str,
    version: int | None,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """End a proposal or an agreement in force; its titles come back less what was paid.

    Raises ResourceNotFound, VersionMismatch, AgreementOver.
    """
    agreement = _locked(tx, agency, agreement_id, version)
    if agreement.state is accounts.AgreementState.PROPOSED:
        agreement.state, agreement.end_date = accounts.AgreementState.CANCELLED, moment.business_date
        agreement.version += 1
        account_store.write_agreements(tx, agency, [agreement])
        rows = account_store.instalments(tx, agency, [agreement_id])[agreement_id]
        books.publish_agreement(
            tx,
            moment,
            agreement=agreement,
            instalments=rows,
            total_minor=sum(one.amount_minor for one in rows),
        )
    elif agreement.state in accounts.IN_FORCE:
        end(
            tx=tx,
            agency=agency,
            ending={agreement_id: accounts.AgreementState.CANCELLED},
            case_ids=agreement.case_ids,
            date=moment.business_date,
            moment=moment,
            bank=bank,
        )
    else:
        raise AgreementOver("the agreement is over", state=agreement.state.value)
    store.set_end_reason(tx, agency, agreement_id, reason)


def end(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    ending: dict[uuid.UUID, accounts.AgreementState],
    case_ids: Sequence[uuid.UUID],
    date: datetime.date,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """End agreements in force, each as the state given; many at a time."""
    opened = books.open_books(tx, agency, case_ids=case_ids, moment=moment, bank=bank)
    released: list[uuid.UUID] = []
    for account in opened.loaded:
        agreement = account.agreement
        if (
            agreement is not None
            and agreement.agreement_id in ending
            and agreement.state in accounts.IN_FORCE
        ):
            account.end(state=ending[agreement.agreement_id], date=date)
            released += agreement.case_ids
    opened.save()
    account_store.bind(tx, agency, released, None)


def _leave_fulfilled(
    tx: db.Transaction, agency: uuid.UUID, cases: dict[uuid.UUID, account_store.CaseAccount]
) -> None:
    """Cases that were together in a fulfilled agreement with one of these go their own way from now on."""
    others = set(account_store.lock(tx, agency, cases)) - set(cases)
    if others:
        account_store.bind(tx, agency, others, None)


def _locked(
    tx: db.Transaction, agency: uuid.UUID, agreement_id: uuid.UUID, version: int | None
) -> accounts.Agreement:
    agreement = account_store.agreements(tx, agency, [agreement_id]).get(agreement_id)
    if agreement is None:
        raise errors.ResourceNotFound("no such agreement", agreement=agreement_id)
    account_store.lock(tx, agency, agreement.case_ids)
    agreement = account_store.agreements(tx, agency, [agreement_id])[agreement_id]
    if version is not None and agreement.version != version:
        raise errors.VersionMismatch("the agreement changed since it was read", etag=agreement.version)
    return agreement
