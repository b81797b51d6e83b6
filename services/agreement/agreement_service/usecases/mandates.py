"""SEPA mandates and what comes back of their collections; creditors' accounts in EUR (standards.md 4.7)."""

import dataclasses
import datetime
import re
import uuid

from agreement_service import providers
from agreement_service.domain import accounts, sepa
from agreement_service.domain import instruments as instrument_rules
from agreement_service.domain import payments as payment_rules
from agreement_service.store import accounts as account_store
from agreement_service.store import mandates as store
from agreement_service.usecases import euro, existing, instruments, moments, payments
from servicekit import db, errors, ids


class MandateNotInEuro(errors.ServiceError):
    """Direct debits are in EUR; the case is in another currency."""

    status = errors.Status.FAILED_PRECONDITION


class EuroAccountMissing(errors.ServiceError):
    """The creditor has no account with a SEPA creditor identifier: UpdateEuroAccount first."""

    status = errors.Status.FAILED_PRECONDITION


class MandateKnown(errors.ServiceError):
    """The reference is taken with this creditor, or the debtor has an active mandate with it already."""

    status = errors.Status.ALREADY_EXISTS


class MandateAlreadyLapsed(errors.ServiceError):
    """The mandate was signed more than 36 months ago and never used: a new one has to be signed."""

    status = errors.Status.FAILED_PRECONDITION


class MandateOver(errors.ServiceError):
    """The mandate is ended already."""

    status = errors.Status.FAILED_PRECONDITION


class DirectDebitNotAsked(errors.ServiceError):
    """Only a direct debit that is in a collection file, and did not come back before, can come back."""

    status = errors.Status.FAILED_PRECONDITION


def set_euro_account(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    creditor_id: uuid.UUID,
    new: store.EuroAccount,
    version: int | None,
) -> None:
    """Set where a creditor's money in EUR goes; instruments issued from now on follow.

    Raises ResourceNotFound before the creditor's first title is placed, InvalidRequest, IbanInvalid and
    CreditorIdentifierInvalid naming the field, VersionMismatch.
    """
    existing.creditor(tx, agency, creditor_id)
    known = store.euro_account(tx, agency, creditor_id)
    there = known.version if known is not None else 0
    if version is not None and version != there:
        raise errors.VersionMismatch("the account changed since it was read", etag=there)
    if not new.holder_name or sepa.latin(new.holder_name) != new.holder_name:
        raise errors.invalid(
            "euro_account.holder_name", f"expected 1 to {sepa.MAX_NAME} characters of the SEPA set"
        )
    if not 1 <= new.pre_notice_days <= sepa.PRE_NOTICE_DAYS:
        raise errors.invalid("euro_account.pre_notice_days", f"expected 1 to {sepa.PRE_NOTICE_DAYS}")
    if not re.fullmatch(r"([0-9]{5})?", new.multibanco_entity):
        raise errors.invalid("euro_account.multibanco_entity", "expected five digits")
    checked = dataclasses.replace(
        new,
        iban=sepa.iban(new.iban, "euro_account.iban"),
        bic=sepa.bic(new.bic, "euro_account.bic") if new.bic else "",
        scheme_identifier=sepa.creditor_identifier(new.scheme_identifier, "euro_account.scheme_identifier")
        if new.scheme_identifier
        else "",
        version=there,
    )
    if not store.put_euro_account(tx, agency, creditor_id, checked):
        raise errors.VersionMismatch("the account is being changed by somebody else", etag=there)


def create(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    case_id: uuid.UUID,
    reference: str,
    signature_date: datetime.date,
    scheme: sepa.Scheme,
    one_off: bool,
    iban: str,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> uuid.UUID:
    """Store a mandate that the debtor of a case signed; unpaid instalments of the case's agreement in force get direct
    debits under it. It takes the place of one that is suspended or has lapsed.

    Raises ResourceNotFound, MandateNotInEuro, EuroAccountMissing, MeansNotAccepted, IbanInvalid,
    MandateReferenceInvalid, InvalidRequest, MandateAlreadyLapsed, MandateKnown.
    """
    today = moment.business_date
    checked, account_number = sepa.mandate_reference(reference), sepa.iban(iban)
    if signature_date > today:
        raise errors.invalid("signature_date", f"expected a day up to {today}")
    if today > sepa.lapses_after(signature_date, None):
        raise MandateAlreadyLapsed(
            "the mandate was signed more than 36 months ago",
            lapse_date=sepa.lapses_after(signature_date, None),
        )
    cases = account_store.lock(tx, agency, [case_id])
    if case_id not in cases:
        raise errors.ResourceNotFound("no such case", case=case_id)
    case = cases[case_id]
    if case.currency != "EUR":
        raise MandateNotInEuro("direct debits are in EUR", currency=case.currency)
    if not euro.accepts_debits(tx, agency, case.creditor_id):
        raise instrument_rules.MeansNotAccepted(
            "the creditor does not accept direct debits", means=instrument_rules.Kind.SEPA_DD.value
        )
    account = store.euro_account(tx, agency, case.creditor_id)
    if account is None or not account.scheme_identifier:
        raise EuroAccountMissing("the creditor has no SEPA creditor identifier", creditor=case.creditor_id)
    _replace(tx, agency, case, moment=moment)
    mandate = store.Mandate(
        id=ids.new(),
        creditor_id=case.creditor_id,
        debtor_id=case.debtor_id,
        case_id=case_id,
        reference=checked,
        signature_date=signature_date,
        scheme=scheme,
        one_off=one_off,
        iban=account_number,
        state=sepa.MandateState.ACTIVE,
        created_at=moment.now,
    )
    if not store.add(tx, agency, mandate):
        raise MandateKnown("the reference is taken with this creditor, or a mandate is being made")
    if case.agreement_id is not None:
        instruments.issue(
            tx,
            agency,
            instalments=_unpaid(tx, agency, case.agreement_id),
            currency=case.currency,
            moment=moment,
            bank=bank,
            kinds=[instrument_rules.Kind.SEPA_DD],
        )
    return mandate.id


def cancel(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    mandate_id: uuid.UUID,
    version: int | None,
    moment: moments.Moment,
) -> None:
    """The debtor withdraws a mandate: what is not in a file yet is not collected.

    Raises ResourceNotFound, VersionMismatch, MandateOver.
    """
    mandate = _lock(tx, agency, mandate_id)
    if version is not None and version != mandate.version:
        raise errors.VersionMismatch("the mandate changed since it was read", etag=mandate.version)
    if mandate.state not in (sepa.MandateState.ACTIVE, sepa.MandateState.SUSPENDED):
        raise MandateOver("the mandate is ended", state=mandate.state.value)
    mandate.state = sepa.MandateState.CANCELLED
    store.write(tx, agency, mandate)
    instruments.withdraw(tx, agency, store.drop(tx, agency, mandate_id), moment=moment)


def come_back(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    end_to_end_id: str,
    reason_code: str,
    return_date: datetime.date | None,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """An R-transaction: the payment made with it is reversed (contra entries), the code decides about the mandate and
    whether the instalment gets another direct debit.

    Raises ReturnCodeUnknown, ResourceNotFound, DirectDebitNotAsked, InvalidRequest.
    """
    reason = sepa.return_reason(reason_code)
    day = return_date or moment.business_date
    seen = store.by_end_to_end_id(tx, agency, end_to_end_id)
    if seen is None:
        raise errors.ResourceNotFound("no such direct debit")
    mandate = _lock(tx, agency, seen.mandate_id, case_id=seen.case_id)
    debit = store.by_end_to_end_id(tx, agency, end_to_end_id)
    assert debit is not None
    if debit.state != "ASKED":
        raise DirectDebitNotAsked("the direct debit cannot come back", state=debit.state)
    if day > moment.business_date:
        raise errors.invalid("return_date", f"expected a day up to {moment.business_date}")
    store.come_back(tx, agency, debit.instrument_id, reason_code=reason_code, return_date=day)
    after = sepa.state_after(mandate.state, sepa.Sequence(debit.sequence), reason)
    if after is sepa.MandateState.ACTIVE and after is not mandate.state:
        newer = store.current(tx, agency, creditor_id=mandate.creditor_id, debtor_id=mandate.debtor_id)
        after = mandate.state if newer is not None else after  # the newer one collects what comes back
    if after is not mandate.state:
        mandate.state, mandate.reason_code = after, reason_code
        store.write(tx, agency, mandate)
    if after is not sepa.MandateState.ACTIVE and after is not sepa.MandateState.USED:
        instruments.withdraw(tx, agency, store.drop(tx, agency, mandate.id), moment=moment)
    paid = store.payment_of(tx, agency, debit.instrument_id)
    if paid is not None:
        payment_id, means = paid
        by_debit = means == instrument_rules.Kind.SEPA_DD.value
        payments.reverse(
            tx=tx,
            agency=agency,
            payment_id=payment_id,
            reason=reason_code,
            version=None,
            moment=moment,
            bank=bank,
            kind=payment_rules.ReversalKind.SDD_RETURN if by_debit else payment_rules.ReversalKind.OTHER,
        )
        return
    instruments.withdraw(tx, agency, [debit.instrument_id], moment=moment)
    case = account_store.cases(tx, agency, [debit.case_id])[debit.case_id]
    if case.agreement_id == debit.agreement_id:
        instruments.issue(
            tx,
            agency,
            instalments=[
                one
                for one in _unpaid(tx, agency, debit.agreement_id)
                if one.instalment_id == debit.instalment_id
            ],
            currency=case.currency,
            moment=moment,
            bank=bank,
            kinds=[instrument_rules.Kind.SEPA_DD],
        )


def _replace(
    tx: db.Transaction, agency: uuid.UUID, case: account_store.CaseAccount, *, moment: moments.Moment
) -> None:
    """End a mandate that cannot be collected on. Raises MandateKnown where there is one that can."""
    old = store.current(tx, agency, creditor_id=case.creditor_id, debtor_id=case.debtor_id)
    if old is None:
        return
    lapsed = old.state_on(moment.business_date) is sepa.MandateState.LAPSED
    if old.state is sepa.MandateState.ACTIVE and not lapsed:
        raise MandateKnown("the debtor has an active mandate with this creditor", mandate=old.id)
    old.state = sepa.MandateState.LAPSED if lapsed else sepa.MandateState.CANCELLED
    store.write(tx, agency, old)
    instruments.withdraw(tx, agency, store.drop(tx, agency, old.id), moment=moment)


def _unpaid(tx: db.Transaction, agency: uuid.UUID, agreement_id: uuid.UUID) -> list[accounts.Instalment]:
    """Instalments of an agreement in force on which something is open."""
    found = account_store.agreements(tx, agency, [agreement_id])[agreement_id]
    if found.state not in accounts.IN_FORCE:
        return []
    rows = account_store.instalments(tx, agency, [agreement_id])[agreement_id]
    return [one for one in rows if one.open_minor > 0]


def _lock(
    tx: db.Transaction, agency: uuid.UUID, mandate_id: uuid.UUID, *, case_id: uuid.UUID | None = None
) -> store.Mandate:
    """A mandate locked behind its case's account (and that of the case which it collects for)."""
    seen = store.get(tx, agency, [mandate_id]).get(mandate_id)
    if seen is None:
        raise errors.ResourceNotFound("no such mandate", mandate=mandate_id)
    account_store.lock(tx, agency, [seen.case_id, *([case_id] if case_id is not None else [])])
    return store.get(tx, agency, [mandate_id], lock=True)[mandate_id]
