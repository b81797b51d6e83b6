"""The life of an agreement: accepted, signed, ended, reinstated (S1-19, S1-27, S1-28, S3-10..12, S5-04; W-09)."""

import datetime
import uuid
from collections.abc import Callable, Mapping, Sequence

from agreement_service import providers
from agreement_service.domain import accounts, confessions, limits, novations
from agreement_service.store import accounts as account_store
from agreement_service.store import agreements as store
from agreement_service.store import ledger as ledger_store
from agreement_service.store import novations as novation_store
from agreement_service.usecases import (
    agreements,
    books,
    counts,
    credits,
    facts,
    instruments,
    moments,
    promises,
)
from agreement_service.usecases import limits as limit_cases
from servicekit import blobs, db, errors, ids

CONFESSION_DAYS = 3_650
"""Days for which a signed confession is kept: the longest limitation of a debt, ten years (CC BR 205)."""
MAX_GRACE_DAYS = 365
MAX_NAME = 120
ACCEPTABLE = frozenset({accounts.AgreementState.PROPOSED, accounts.AgreementState.AWAITING_SIGNATURE})


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


class SignatureNotAwaited(errors.ServiceError):
    """The agreement does not await a signed confession."""

    status = errors.Status.FAILED_PRECONDITION


class NoSignedDocument(errors.ServiceError):
    """No signed confession was uploaded for the agreement."""

    status = errors.Status.NOT_FOUND


class SignedDocumentErased(errors.ServiceError):
    """The content of the signed confession was erased, or its retention is over."""

    status = errors.Status.FAILED_PRECONDITION


class AgreementNotBroken(errors.ServiceError):
    """Only a broken agreement can be reinstated."""

    status = errors.Status.FAILED_PRECONDITION


def accept(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    agreement_id: uuid.UUID,
    version: int | None,
    moment: moments.Moment,
    bank: providers.BankProvider,
    channel: str = "PHONE",
    accepted_by: str = "",
) -> None:
    """The debtor says yes, by `channel`: the agreement comes into force, or awaits the signed confession that the
    creditor requires (S1-27). Its titles stay free until then, and are looked at again.

    In force, titles are bound or replaced by its kind, charges posted as agreed, instruments drafted. Validated on the
    titles as they are now. Raises ResourceNotFound, VersionMismatch, InvalidRequest, AgreementNotProposed,
    ProposalExpired, TitlesInAgreement, TitlesChangedSinceProposal.
    """
    if len(accepted_by) > MAX_NAME or not accepted_by.isprintable():
        raise errors.invalid("accepted_by", f"expected at most {MAX_NAME} printable characters")
    agreement = _locked(tx, agency, agreement_id, version)
    _check_valid(agreement, moment)
    if agreement.state is not accounts.AgreementState.PROPOSED:
        raise AgreementNotProposed("the agreement is not a proposal", state=agreement.state.value)
    novation_store.set_accepted(tx, agency, agreement_id, channel=channel, accepted_by=accepted_by)
    if novation_store.details(tx, agency, [agreement_id])[agreement_id].confession_required:
        _check_unchanged(tx, agency, agreement)
        agreement.state = accounts.AgreementState.AWAITING_SIGNATURE
        _write(tx, agency, agreement, moment)
    else:
        _come_into_force(tx, agency, agreement, moment=moment, bank=bank)


def sign(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    agreement_id: uuid.UUID,
    content: bytes,
    version: int | None,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """The signed confession of the debt is here: keep it, and bring the agreement that awaits it into force.

    Raises InvalidRequest (type, size), SignatureNotAwaited, and what `accept` raises.
    """
    content_type = confessions.content_type(content)
    agreement = _locked(tx, agency, agreement_id, version)
    _check_valid(agreement, moment)
    if agreement.state is not accounts.AgreementState.AWAITING_SIGNATURE:
        raise SignatureNotAwaited("the agreement awaits no signature", state=agreement.state.value)
    blob = blobs.create(
        tx,
        agency=agency,
        kind="confession",
        retention_days=CONFESSION_DAYS,
        chunks=[content],
        now=moment.now,
    )
    novation_store.add_document(
        tx,
        agency,
        agreement_id,
        novation_store.SignedDocument(
            blob_id=blob.id,
            content_type=content_type,
            size_bytes=blob.size,
            sha256=blob.sha256,
            uploaded_at=moment.now,
            expire_at=moment.now + datetime.timedelta(days=CONFESSION_DAYS),
        ),
    )
    _come_into_force(tx, agency, agreement, moment=moment, bank=bank)


def signed_document(
    *, tx: db.Transaction, agency: uuid.UUID, agreement_id: uuid.UUID, now: datetime.datetime
) -> novation_store.SignedDocument:
    """The signed confession whose content is still there. Raises NoSignedDocument, SignedDocumentErased."""
    found = novation_store.documents(tx, agency, [agreement_id]).get(agreement_id)
    if found is None:
        raise NoSignedDocument("no signed confession was uploaded", agreement=agreement_id)
    if found.erased or now >= found.expire_at:
        raise SignedDocumentErased("the content of the signed confession was erased", agreement=agreement_id)
    return found


def erase_document(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    agreement_id: uuid.UUID,
    reason: str,
    version: int | None,
    moment: moments.Moment,
) -> None:
    """Erase the content of a signed confession; its size and hash stay as evidence that it was there.

    Raises ResourceNotFound, VersionMismatch, NoSignedDocument, SignedDocumentErased.
    """
    _locked(tx, agency, agreement_id, version)
    found = signed_document(tx=tx, agency=agency, agreement_id=agreement_id, now=moment.now)
    blobs.erase(tx, found.blob_id)
    novation_store.erase_document(tx, agency, agreement_id, reason=reason)


def reinstate(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    agreement_id: uuid.UUID,
    grace_date: datetime.date | None,
    reason: str,
    version: int | None,
    authority: limits.Authority,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """A broken agreement is in force again: its end is undone, payments made since are its own, states are those of
    today. Nothing breaks it again through `grace_date` (None: its broken days from today).

    Raises ResourceNotFound, VersionMismatch, AgreementNotBroken, InvalidRequest, ApprovalNeeded (REINSTATE, days since
    the breach), TitlesInAgreement, TitlesChangedSinceTheEnd.
    """
    agreement = _locked(tx, agency, agreement_id, version)
    if agreement.state is not accounts.AgreementState.BROKEN or agreement.end_date is None:
        raise AgreementNotBroken("the agreement is not broken", state=agreement.state.value)
    today = moment.business_date
    grace = grace_date or today + datetime.timedelta(days=agreement.broken_days)
    if not 0 < (grace - today).days <= MAX_GRACE_DAYS:
        first, last = (today + datetime.timedelta(days=days) for days in (1, MAX_GRACE_DAYS))
        raise errors.invalid("grace_date", f"expected {first} to {last}")
    cases = account_store.cases(tx, agency, agreement.case_ids)
    limit_cases.check(
        tx=tx,
        agency=agency,
        authority=authority,
        creditor_id=cases[agreement.case_id].creditor_id,
        kind=limits.Kind.REINSTATE,
        value=(today - agreement.end_date).days,
        date=today,
        case_ids=agreement.case_ids,
    )
    agreements.check_free(tx, agency, list(cases.values()))
    if not novation_store.free_since_the_end(tx, agency, agreement_id):
        raise novations.TitlesChangedSinceTheEnd(
            "titles of the agreement were settled otherwise since it ended"
        )
    ended = novation_store.ending(tx, agency, agreement_id)
    novation_store.rebind(tx, agency, agreement_id, case_ids=agreement.case_ids, reason=reason)
    opened = books.open_books(
        tx, agency, case_ids=agreement.case_ids, moment=moment, bank=bank, whole_epoch=True
    )
    account = opened.account_of[agreement.case_id]
    for changed in novations.reinstate(
        account,
        ended=ended,
        payments=list(opened.applied.values()),
        grace_date=grace,
        business_date=today,
    ):
        opened.note(changed)
    opened.save()


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
    if agreement.state in ACCEPTABLE:
        agreement.state, agreement.end_date = accounts.AgreementState.CANCELLED, moment.business_date
        _write(tx, agency, agreement, moment)
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
    """End agreements in force, each as the state given and by its kind; many at a time."""
    opened = books.open_books(tx, agency, case_ids=case_ids, moment=moment, bank=bank)
    _end(opened, lambda agreement: ending.get(agreement.agreement_id), date=date)


def breach(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    locked: Mapping[uuid.UUID, account_store.CaseAccount],
    date: datetime.date,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """End every agreement in force of these cases, which the caller has locked with all that are bound with them: what
    waits for its down payment expires, the rest is broken."""
    opened = books.open_books(tx, agency, case_ids=locked, locked=locked, moment=moment, bank=bank)
    _end(
        opened,
        lambda agreement: (
            accounts.AgreementState.EXPIRED
            if agreement.state is accounts.AgreementState.AWAITING_DOWN_PAYMENT
            else accounts.AgreementState.BROKEN
        ),
        date=date,
    )


def _end(
    opened: books.Books,
    becomes: Callable[[accounts.Agreement], accounts.AgreementState | None],
    *,
    date: datetime.date,
) -> None:
    tx, agency = opened.tx, opened.agency
    released: list[uuid.UUID] = []
    endings: dict[uuid.UUID, list[accounts.Entry]] = {}
    for account in opened.loaded:
        agreement = account.agreement
        if agreement is None or agreement.state not in accounts.IN_FORCE:
            continue
        state = becomes(agreement)
        if state is not None:
            endings[agreement.agreement_id] = novations.end(account, state=state, date=date)
            released += agreement.case_ids
    opened.save()
    account_store.bind(tx, agency, released, None)
    novation_store.save_endings(tx, agency, endings)


def _check_valid(agreement: accounts.Agreement, moment: moments.Moment) -> None:
    if agreement.state is accounts.AgreementState.EXPIRED or (
        agreement.state in ACCEPTABLE and moment.business_date > agreement.expire_date
    ):
        raise ProposalExpired("the proposal's last day is over", expire_date=agreement.expire_date)


def _check_unchanged(
    tx: db.Transaction, agency: uuid.UUID, agreement: accounts.Agreement
) -> tuple[dict[uuid.UUID, account_store.CaseAccount], list[accounts.AgreedTitle], list[accounts.Title]]:
    """The cases are free and the titles as they were when the debt was counted; cases, agreed titles, titles."""
    cases = account_store.cases(tx, agency, agreement.case_ids)
    agreements.check_free(tx, agency, list(cases.values()))
    agreed = account_store.agreed(tx, agency, [agreement.agreement_id])[agreement.agreement_id]
    owned = account_store.titles(tx, agency, cases, also=[item.title_id for item in agreed])
    by_id = {title.title_id: title for title in owned}
    changed = [item for item in agreed if by_id[item.title_id].version != item.title_version]
    if changed:
        raise TitlesChangedSinceProposal(
            "titles changed since the proposal: propose again",
            titles=len(changed),
            title=changed[0].title_id,
        )
    return cases, agreed, owned


def _come_into_force(
    tx: db.Transaction,
    agency: uuid.UUID,
    agreement: accounts.Agreement,
    *,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    with_credits = store.uses_credits(tx, agency, agreement.agreement_id)
    cases, agreed, owned = _check_unchanged(tx, agency, agreement)
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
    key, today = agreement.agreement_id, moment.business_date
    rows = account_store.instalments(tx, agency, [key])[key]
    account.accept(agreement=agreement, agreed=agreed, instalments=rows, business_date=today)
    if agreement.kind is accounts.AgreementKind.NOVATION:
        _novate(opened, account, contract=cases[agreement.case_id].contract_reference)
    opened.save()
    store.set_accept_date(tx, agency, key, today)
    _leave_fulfilled(tx, agency, cases)
    account_store.bind(tx, agency, agreement.case_ids, None if agreement.acquirer else key)
    promises.replace(tx, agency, agreement.case_ids, moment=moment)
    if not agreement.acquirer:
        instruments.issue(
            tx,
            agency,
            instalments=account.instalments,
            currency=agreement.currency,
            moment=moment,
            bank=bank,
        )
        if with_credits:
            _use_credits(tx, agency, agreement, account.instalments, moment=moment, bank=bank)


def _use_credits(
    tx: db.Transaction,
    agency: uuid.UUID,
    agreement: accounts.Agreement,
    instalments: Sequence[accounts.Instalment],
    *,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """The debtor's overpaid money pays the first instalments, as far as it goes, where it was agreed (S5-08)."""
    left = sum(one.open_minor for one in instalments)
    for credit in credits.available(tx=tx, agency=agency, case_id=agreement.case_id):
        amount = min(credit.overpaid_minor, left)
        if amount:
            credits.apply_credit(
                tx=tx,
                agency=agency,
                payment_id=credit.payment_id,
                case_id=agreement.case_id,
                amount=(amount, agreement.currency),
                version=None,
                moment=moment,
                bank=bank,
            )
        left -= amount


def _novate(opened: books.Books, account: accounts.Account, *, contract: str) -> None:
    agreement = account.agreement
    assert agreement is not None
    tx, agency, key = opened.tx, opened.agency, agreement.agreement_id
    details = novation_store.details(tx, agency, [key])[key]
    numbers = [one.number for one in account.instalments]
    new = novations.new_titles(
        account=account,
        agreement=agreement,
        named=novations.references(
            prefix=details.prefix, contract=contract, number=details.number, instalments=numbers
        ),
        title_ids={number: ids.new() for number in numbers},
    )
    originals = [item.title_id for item in account.agreed]
    novation_store.add_titles(
        tx,
        agency,
        agreement_id=key,
        acquirer=agreement.acquirer,
        parent=novations.oldest(account),
        new=new,
    )
    ledger_store.issue(
        tx,
        agency,
        case_id=agreement.case_id,
        agreement_id=key,
        amount_minor=sum(one.principal_minor for one in new),
        business_date=opened.moment.business_date,
    )
    facts.titles_novated(tx, opened.moment, novation_store.made(tx, agency, [key]).get(key, []), originals)
    opened.take_up(account, new)
    novations.novate(account, new=new, date=opened.moment.business_date)


def _write(
    tx: db.Transaction, agency: uuid.UUID, agreement: accounts.Agreement, moment: moments.Moment
) -> None:
    """Write and publish an agreement that is not in force and came into another state."""
    counts.agreements(tx, [agreement.state])
    agreement.version += 1
    account_store.write_agreements(tx, agency, [agreement])
    rows = account_store.instalments(tx, agency, [agreement.agreement_id])[agreement.agreement_id]
    books.publish_agreement(
        tx,
        moment,
        agreement=agreement,
        instalments=rows,
        total_minor=sum(one.amount_minor for one in rows),
    )


def _leave_fulfilled(
    tx: db.Transaction, agency: uuid.UUID, cases: dict[uuid.UUID, account_store.CaseAccount]
) -> None:
    """Cases that were together in a fulfilled agreement with one of these go their own way from now on."""
    if all(case.agreement_id is None for case in cases.values()):
        return
    others = set(account_store.lock(tx, agency, cases)) - set(cases)
    if others:
        account_store.bind(tx, agency, others, None)


def _locked(
    tx: db.Transaction, agency: uuid.UUID, agreement_id: uuid.UUID, version: int | None
) -> accounts.Agreement:
    agreement = account_store.agreements(tx, agency, [agreement_id]).get(agreement_id)
    if agreement is None:
        raise errors.ResourceNotFound("no such agreement", agreement=agreement_id)
    with_credits: list[uuid.UUID] = []
    if store.uses_credits(tx, agency, agreement_id):
        found = credits.available(tx=tx, agency=agency, case_id=agreement.case_id)
        with_credits = [credit.case_id for credit in found]
    account_store.lock(tx, agency, [*agreement.case_ids, *with_credits])
    agreement = account_store.agreements(tx, agency, [agreement_id])[agreement_id]
    if version is not None and agreement.version != version:
        raise errors.VersionMismatch("the agreement changed since it was read", etag=agreement.version)
    return agreement
