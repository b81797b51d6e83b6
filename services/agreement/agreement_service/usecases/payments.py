"""Payments: reported, entered exactly once, confirmed, matched, allocated, taken back."""

import dataclasses
import datetime
import uuid
from collections.abc import Collection, Mapping, Sequence

from agreement_service import providers
from agreement_service.domain import accounts
from agreement_service.domain import payments as rules
from agreement_service.store import accounts as account_store
from agreement_service.store import credits as credit_store
from agreement_service.store import instruments as instrument_store
from agreement_service.store import instruments as instrument_store
from agreement_service.store import payments as store
from agreement_service.usecases import books, facts, moments
from servicekit import blobs, db, errors, ids

MANY = 100
"""Reports that are worth having the statements planned anew."""
Chosen = tuple[tuple[uuid.UUID, int], ...]
"""Titles and the most that each gets, minor units."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A credit as somebody reports it; `amount_minor` in `currency`. `batch_id` and `row`, or `caller`, say who.

    `unconfirmed`: a collector says so, the bank did not yet. `case_id` and `chosen`, by hand: whose titles take it,
    and which of them first.
    """

    creditor_reference: str
    account: str
    means: str
    bank_reference: str
    value_date: datetime.date
    amount_minor: int
    currency: str
    txid: str = ""
    our_number: str = ""
    title_reference: str = ""
    contract_reference: str = ""
    batch_id: uuid.UUID | None = None
    row: int | None = None
    caller: str = ""
    unconfirmed: bool = False
    case_id: uuid.UUID | None = None
    chosen: Chosen = ()

    @property
    def identity(self) -> rules.Identity:
        """What identifies the credit."""
        return self.creditor_reference, self.account, self.means, self.bank_reference

    @property
    def references(self) -> rules.References:
        """What it says about what it pays."""
        return rules.References(
            creditor_reference=self.creditor_reference,
            currency=self.currency,
            txid=self.txid,
            our_number=self.our_number,
            title_reference=self.title_reference,
            contract_reference=self.contract_reference,
        )

    def check(self) -> list[errors.FieldViolation]:
        """What is wrong with it."""
        return [
            *rules.check_report(
                creditor_reference=self.creditor_reference,
                account=self.account,
                means=self.means,
                bank_reference=self.bank_reference,
                amount_minor=self.amount_minor,
                currency=self.currency,
            ),
            *rules.check_chosen(self.chosen, amount_minor=self.amount_minor),
        ]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entered:
    """What became of reports: payments entered now, reports of payments known before, refused ones (index, error)."""

    applied: int
    unchanged: int
    refused: list[tuple[int, errors.ServiceError]]
    payments: Mapping[rules.Identity, uuid.UUID]


def enter(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    reports: Sequence[Report],
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> Entered:
    """Enter credits, set-based: a credit that is known gets one more source, a new one is matched and allocated.

    A payment that only the debtor or a collector had reported is confirmed by the report: what the bank says of it
    counts. Reports that differ from what is known (PaymentDiffers), of annulled payments (PaymentAnnulled) or malformed
    (InvalidRequest) are refused one by one.
    """
    if len(reports) >= MANY:
        store.plan_anew(tx)
    refused: list[tuple[int, errors.ServiceError]] = []
    good: list[tuple[int, Report]] = []
    for index, report in enumerate(reports):
        if wrong := report.check():
            refused.append((index, errors.InvalidRequest(fields=wrong)))
        else:
            good.append((index, report))
    first: dict[rules.Identity, Report] = {}
    for _, report in good:
        first.setdefault(report.identity, report)
    matches = _matches(tx, agency, first)
    if any(matches[key] is None and not one.unconfirmed for key, one in first.items()):
        store.guard_unidentified(tx, agency, shared=False)
        matches = _matches(tx, agency, first)
    new = {identity: _payment(report, moment) for identity, report in first.items()}
    inserted = store.insert(
        tx, agency, list(new.values()), now=moment.now, business_date=moment.business_date
    )
    known = store.by_identity(tx, agency, [key for key, one in new.items() if one.id not in inserted])
    sources, unchanged, again = [], 0, set(inserted)
    said: dict[uuid.UUID, Report] = {}
    found = {**new, **known}
    for index, report in good:
        payment = found[report.identity]
        if payment.state is accounts.PaymentState.ANNULLED:
            refused.append((index, rules.PaymentAnnulled("the payment was annulled", payment=payment.id)))
            continue
        confirms = payment.state in accounts.UNCONFIRMED and not report.unconfirmed
        if payment.currency != report.currency or (
            payment.amount_minor != report.amount_minor and not confirms
        ):
            refused.append((index, _differs(payment)))
            continue
        if confirms:
            said.setdefault(payment.id, report)
        sources.append(
            store.Source(payment.id, batch_id=report.batch_id, row=report.row, caller=report.caller)
        )
        if payment.id in again:
            again.remove(payment.id)
        else:
            unchanged += 1
    store.add_sources(tx, agency, sources)
    fresh = [one for one in new.values() if one.id in inserted]
    waiting = [
        one.id
        for one in known.values()
        if one.id in said
        or (one.state is accounts.PaymentState.UNIDENTIFIED and matches[one.identity] is not None)
    ]
    # a second report may say what the first one did not: then the payment is identified by it
    late = []
    for one in store.get(tx, agency, waiting, lock=True).values():
        if one.state in accounts.UNCONFIRMED and one.id in said:
            _take_over(one, said[one.id])
            late.append(one)
        elif one.state is accounts.PaymentState.UNIDENTIFIED and not one.by_hand:
            late.append(one)
    store.confirm(tx, agency, [one for one in late if one.id in said])
    # what the bank does not say, who reported it may have said
    told = [one for one in late if one.id in said and matches[one.identity] is None and _own(one) is None]
    for one, match in zip(told, store.match(tx, agency, [_references(one) for one in told]), strict=True):
        matches[one.identity] = match
    coming = [one for one in fresh if one.state is accounts.PaymentState.UNIDENTIFIED]
    found_now = {
        one.id: match
        for one in (*coming, *late)
        if (match := (_own(one) if one.chosen else None) or matches[one.identity] or _own(one)) is not None
    }
    apply(
        tx,
        agency,
        [one for one in (*coming, *late) if one.id in found_now],
        found_now,
        moment=moment,
        bank=bank,
    )
    for one in fresh:
        if one.id not in found_now:
            facts.payment_changed(tx, moment, one, {})
    _wait(tx, agency, [one for one in late if one.id in said and one.id not in found_now], moment=moment)
    return Entered(
        applied=len(inserted),
        unchanged=unchanged,
        refused=sorted(refused, key=lambda one: one[0]),
        payments={identity: one.id for identity, one in found.items()},
    )


def record(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    report: Report,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> uuid.UUID:
    """Enter one credit by hand; its payment's id.

    Raises what `enter` refuses with, and, where it names a case, ResourceNotFound, CurrencyDiffers, CreditorDiffers,
    TitleNotOfCase.
    """
    if report.case_id is not None:
        check_case(
            tx,
            agency,
            report.case_id,
            currency=report.currency,
            creditor_reference=report.creditor_reference,
            title_ids=[title_id for title_id, _ in report.chosen],
        )
    elif report.chosen:
        raise errors.invalid("case_id", "expected the case of the titles in allocations")
    entered = enter(tx=tx, agency=agency, reports=[report], moment=moment, bank=bank)
    if entered.refused:
        raise entered.refused[0][1]
    return entered.payments[report.identity]


def report_proof(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    case_id: uuid.UUID,
    account: str,
    means: str,
    bank_reference: str,
    value_date: datetime.date,
    amount_minor: int,
    currency: str,
    caller: str,
    proof: bytes,
    proof_type: str,
    moment: moments.Moment,
) -> uuid.UUID:
    """A debtor says that he paid (S1-20): the payment waits, REPORTED, for the bank; no money moves. Its id.

    With the bank's own reference (the end-to-end id of a Pix) and account the bank's report confirms it by itself;
    otherwise ConfirmPayment. A proof is kept five years (CC BR art. 206 §5). Raises InvalidRequest, ResourceNotFound,
    CurrencyDiffers, PaymentDiffers (that credit is known already).
    """
    if len(proof) > rules.MAX_PROOF:
        raise errors.invalid("proof", f"expected at most {rules.MAX_PROOF} bytes")
    if proof and proof_type not in rules.PROOF_TYPES:
        raise errors.invalid("proof_type", f"expected one of {', '.join(sorted(rules.PROOF_TYPES))}")
    case = account_store.cases(tx, agency, [case_id]).get(case_id)
    if case is None:
        raise errors.ResourceNotFound("no such case", case=case_id)
    payment_id = ids.new()
    payment = store.Payment(
        id=payment_id,
        creditor_reference=case.creditor_reference,
        account=account or rules.REPORTED,
        means=means,
        bank_reference=bank_reference or str(payment_id),
        value_date=value_date,
        amount_minor=amount_minor,
        currency=currency,
        txid="",
        our_number="",
        title_reference="",
        contract_reference="",
        state=accounts.PaymentState.REPORTED,
        case_id=case_id,
        created_at=moment.now,
    )
    if wrong := rules.check_report(
        creditor_reference=payment.creditor_reference,
        account=payment.account,
        means=means,
        bank_reference=payment.bank_reference,
        amount_minor=amount_minor,
        currency=currency,
    ):
        raise errors.InvalidRequest(fields=wrong)
    if currency != case.currency:
        raise rules.CurrencyDiffers(
            "the payment is in another currency than the case", payment=currency, case=case.currency
        )
    if proof:
        kept = blobs.create(
            tx,
            agency=agency,
            kind="payment-proof",
            retention_days=rules.PROOF_DAYS,
            chunks=[proof],
            now=moment.now,
        )
        payment.proof_blob_id, payment.proof_type = kept.id, proof_type
    if not store.insert(tx, agency, [payment], now=moment.now, business_date=moment.business_date):
        raise _differs(store.by_identity(tx, agency, [payment.identity])[payment.identity])
    store.add_sources(tx, agency, [store.Source(payment_id, caller=caller)])
    facts.payment_changed(tx, moment, payment, {})
    return payment_id


def proof_of(*, tx: db.Transaction, agency: uuid.UUID, payment_id: uuid.UUID) -> tuple[str, uuid.UUID]:
    """The type and the blob of a payment's proof. Raises ResourceNotFound."""
    payment = _get(tx, agency, payment_id)
    if payment.proof_blob_id is None:
        raise errors.ResourceNotFound("the payment has no proof", payment=payment_id)
    return payment.proof_type, payment.proof_blob_id


def confirm(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    payment_id: uuid.UUID,
    account: str,
    means: str,
    bank_reference: str,
    value_date: datetime.date | None,
    amount: tuple[int, str] | None,
    version: int | None,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """The money is there: a reported, unconfirmed or annulled payment counts from now on, matched and allocated.

    What is given (not empty, not None; `amount` in minor units of a currency) takes the place of what was reported.
    Raises ResourceNotFound, VersionMismatch,
    PaymentNotUnconfirmed, InvalidRequest, PaymentDiffers (that credit is known as another payment: annul this one).
    """
    seen = _get(tx, agency, payment_id)
    match = _own(seen) or store.match(tx, agency, [_references(seen)])[0]
    if match is None:
        store.guard_unidentified(tx, agency, shared=False)
        match = store.match(tx, agency, [_references(seen)])[0]
    payment = store.get(tx, agency, [payment_id], lock=True)[payment_id]
    _check_version(payment.version, version)
    if payment.state not in accounts.UNCONFIRMED and payment.state is not accounts.PaymentState.ANNULLED:
        raise rules.PaymentNotUnconfirmed("the payment is confirmed", state=payment.state.value)
    if payment.origin_payment_id is not None:
        raise rules.PaymentIsCredit("apply the credit again", origin=payment.origin_payment_id)
    before = payment.identity
    payment.account, payment.means = account or payment.account, means or payment.means
    payment.bank_reference = bank_reference or payment.bank_reference
    payment.value_date = value_date or payment.value_date
    if amount is not None:
        payment.amount_minor = amount[0]
        if amount[1] != payment.currency:
            raise rules.CurrencyDiffers("the payment is in another currency", payment=payment.currency)
    wrong = rules.check_report(
        creditor_reference=payment.creditor_reference,
        account=payment.account,
        means=payment.means,
        bank_reference=payment.bank_reference,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
    )
    if wrong:
        raise errors.InvalidRequest(fields=wrong)
    if payment.identity != before and (known := store.by_identity(tx, agency, [payment.identity])):
        raise _differs(known[payment.identity])
    store.confirm(tx, agency, [payment])
    payment.reverse_date, payment.reverse_reason = None, ""
    if match is None:
        _wait(tx, agency, [payment], moment=moment)
    else:
        apply(tx, agency, [payment], {payment.id: match}, moment=moment, bank=bank)


def match_waiting(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    waiting: Sequence[store.Payment],
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """Titles arrived: match locked unidentified payments again."""
    matches = store.match(tx, agency, [_references(one) for one in waiting])
    found = {one.id: match for one, match in zip(waiting, matches, strict=True) if match is not None}
    apply(tx, agency, [one for one in waiting if one.id in found], found, moment=moment, bank=bank)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a payment is given to by hand: a case (with a title of it, or several with amounts), an instalment's
    agreement, or references of the payment's creditor."""

    case_id: uuid.UUID | None = None
    title_id: uuid.UUID | None = None
    chosen: Chosen = ()
    instalment_id: uuid.UUID | None = None
    title_reference: str = ""
    contract_reference: str = ""


def match_by_hand(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    payment_id: uuid.UUID,
    target: Target,
    version: int | None,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """Give an unidentified payment to a case of the same creditor and currency.

    Raises InvalidRequest, ResourceNotFound, VersionMismatch, PaymentNotUnidentified, CurrencyDiffers, CreditorDiffers,
    TitleNotOfCase, PaymentTargetUnclear.
    """
    payment = store.get(tx, agency, [payment_id], lock=True).get(payment_id)
    if payment is None:
        raise errors.ResourceNotFound("no such payment", payment=payment_id)
    _check_version(payment.version, version)
    if payment.state is not accounts.PaymentState.UNIDENTIFIED:
        raise rules.PaymentNotUnidentified("the payment is not unidentified", state=payment.state.value)
    match = _target(tx, agency, payment, target)
    check_case(
        tx,
        agency,
        match.case_id,
        currency=payment.currency,
        creditor_reference=payment.creditor_reference,
        title_ids=[
            *(title_id for title_id, _ in target.chosen),
            *([match.title_id] if match.title_id is not None else []),
        ],
    )
    if wrong := rules.check_chosen(target.chosen, amount_minor=payment.amount_minor):
        raise errors.InvalidRequest(fields=wrong)
    payment.chosen_title_ids = [title_id for title_id, _ in target.chosen]
    payment.chosen_minor = [minor for _, minor in target.chosen]
    apply(tx, agency, [payment], {payment.id: match}, moment=moment, bank=bank)


def _target(tx: db.Transaction, agency: uuid.UUID, payment: store.Payment, target: Target) -> store.Match:
    ways = [
        target.case_id is not None,
        target.instalment_id is not None,
        bool(target.title_reference or target.contract_reference),
    ]
    if sum(ways) != 1:
        raise errors.invalid("case_id", "expected one of case_id, instalment_id, and references")
    if target.case_id is None and (target.title_id is not None or target.chosen):
        raise errors.invalid("case_id", "expected the case of the titles")
    if target.case_id is not None:
        return store.Match(target.case_id, target.title_id, None)
    if target.instalment_id is not None:
        found = account_store.agreements_of_instalments(tx, agency, [target.instalment_id])
        if not found:
            raise errors.ResourceNotFound("no such instalment", instalment=target.instalment_id)
        (agreement,) = account_store.agreements(tx, agency, found).values()
        return store.Match(agreement.case_id, None, None)
    references = rules.References(
        creditor_reference=payment.creditor_reference,
        currency=payment.currency,
        txid="",
        our_number="",
        title_reference=target.title_reference,
        contract_reference=target.contract_reference,
    )
    match = store.match(tx, agency, [references])[0]
    if match is None:
        raise rules.PaymentTargetUnclear("expected references of one title or contract of the creditor")
    return match


def reverse(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    payment_id: uuid.UUID,
    reason: str,
    version: int | None,
    moment: moments.Moment,
    bank: providers.BankProvider,
    kind: rules.ReversalKind = rules.ReversalKind.OTHER,
) -> None:
    """The bank took the money back: contra entries take back all that the payment did; later payments apply anew.

    A payment from before an agreement began or ended gives back its cash only (domain/accounts). Credits that were made
    of it are annulled first; what was refunded of it is not taken a second time. Raises ResourceNotFound,
    VersionMismatch, PaymentAlreadyReversed, PaymentAnnulled, PaymentNotConfirmed, PaymentIsCredit, InvalidRequest (a
    kind that is not one of the payment's means).
    """
    taken = _lock(tx, agency, payment_id, version)
    payment = taken.payment
    if payment.state in accounts.UNCONFIRMED:
        raise rules.PaymentNotConfirmed("the payment is not confirmed", state=payment.state.value)
    if payment.origin_payment_id is not None:
        raise rules.PaymentIsCredit("annul the credit instead", origin=payment.origin_payment_id)
    rules.check_reversal(kind, payment.means)
    for credit_id in taken.credits:
        credit = store.get(tx, agency, [credit_id])[credit_id]
        credit.reverse_date, credit.reverse_reason = (
            moment.business_date,
            "the payment it was made of went back",
        )
        _take_back(tx, agency, credit, accounts.PaymentState.ANNULLED, moment=moment, bank=bank)
        _give_back(tx, agency, credit, moment=moment)
    payment = store.get(tx, agency, [payment_id])[payment_id]
    payment.reverse_date, payment.reverse_reason = moment.business_date, reason
    payment.reverse_kind = kind.value
    _take_back(tx, agency, payment, accounts.PaymentState.REVERSED, moment=moment, bank=bank)


def annul(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    payment_id: uuid.UUID,
    reason: str,
    version: int | None,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """The payment was entered by mistake, or a credit is not wanted: contra entries, never deletion (S1-18).

    Of a credit the payment it was made of has the money again. Raises ResourceNotFound, VersionMismatch, PaymentSpent,
    PaymentAlreadyReversed, PaymentAnnulled.
    """
    payment = _lock(tx, agency, payment_id, version).payment
    _check_unspent(payment)
    payment.reverse_date, payment.reverse_reason = moment.business_date, reason
    _take_back(tx, agency, payment, accounts.PaymentState.ANNULLED, moment=moment, bank=bank)
    _give_back(tx, agency, payment, moment=moment)


def unmatch(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    payment_id: uuid.UUID,
    version: int | None,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """The payment was matched by mistake: it is unidentified again, and from now on matched by hand only.

    Raises ResourceNotFound, VersionMismatch, PaymentNotMatched, PaymentSpent, PaymentIsCredit, PaymentAlreadyReversed,
    PaymentAnnulled.
    """
    payment = _lock(tx, agency, payment_id, version).payment
    if payment.state not in accounts.APPLIED:
        raise rules.PaymentNotMatched("the payment is not matched", state=payment.state.value)
    if payment.origin_payment_id is not None:
        raise rules.PaymentIsCredit("annul the credit instead", origin=payment.origin_payment_id)
    _check_unspent(payment)
    payment.by_hand = True
    _take_back(tx, agency, payment, accounts.PaymentState.UNIDENTIFIED, moment=moment, bank=bank)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Locked:
    payment: store.Payment
    credits: Sequence[uuid.UUID]


def _lock(tx: db.Transaction, agency: uuid.UUID, payment_id: uuid.UUID, version: int | None) -> _Locked:
    """Lock all cases that taking this payment back can touch, then it, the credits made of it, its origin."""
    seen = _get(tx, agency, payment_id)
    made = credit_store.made_of(tx, agency, payment_id)
    family = store.get(tx, agency, [*made, *([seen.origin_payment_id] if seen.origin_payment_id else [])])
    cases = _cases_of(tx, agency, [seen, *family.values()])
    if cases:
        account_store.lock(tx, agency, cases)
    payment = store.get(tx, agency, [payment_id, *family], lock=True)[payment_id]
    if seen.case_id != payment.case_id or made != credit_store.made_of(tx, agency, payment_id):
        raise errors.VersionMismatch("the payment changed meanwhile", etag=payment.version)
    _check_version(payment.version, version)
    if payment.state is accounts.PaymentState.REVERSED:
        raise rules.PaymentAlreadyReversed("the payment was reversed before", date=payment.reverse_date)
    if payment.state is accounts.PaymentState.ANNULLED:
        raise rules.PaymentAnnulled("the payment was annulled before", date=payment.reverse_date)
    return _Locked(payment=payment, credits=made)


def _check_unspent(payment: store.Payment) -> None:
    if payment.refunded_minor or payment.credited_minor:
        raise rules.PaymentSpent(
            "part of the payment was refunded or credited",
            refunded_minor=payment.refunded_minor,
            credited_minor=payment.credited_minor,
        )


def _take_back(
    tx: db.Transaction,
    agency: uuid.UUID,
    payment: store.Payment,
    becomes: accounts.PaymentState,
    *,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """Take everything back that a payment did; its cases are locked."""
    case_id = payment.case_id
    if payment.state not in accounts.APPLIED:
        payment.state = becomes
        payment.version += 1
        store.write(tx, agency, [payment], {}, business_date=moment.business_date)
        facts.payment_changed(tx, moment, payment, {})
        return
    assert case_id is not None
    cases = account_store.lock(tx, agency, _cases_of(tx, agency, [payment]))
    if payment.epoch == cases[case_id].epoch:
        opened = books.open_books(tx, agency, case_ids=cases, moment=moment, bank=bank, removed=[payment])
        opened.settle(removed=[payment], becomes=becomes)
    else:
        opened = _behind(tx, agency, payment, cases, becomes, moment=moment, bank=bank)
    if becomes is accounts.PaymentState.UNIDENTIFIED:
        payment.case_id = payment.title_id = payment.instrument_id = None
        payment.chosen_title_ids, payment.chosen_minor = [], []
    opened.save()


def _give_back(
    tx: db.Transaction, agency: uuid.UUID, credit: store.Payment, *, moment: moments.Moment
) -> None:
    """A credit was annulled: the payment it was made of has overpaid that much again."""
    if credit.origin_payment_id is None:
        return
    origin = store.get(tx, agency, [credit.origin_payment_id])[credit.origin_payment_id]
    origin.credited_minor -= credit.amount_minor
    origin.overpaid_minor += credit.amount_minor
    write_spent(tx, agency, origin, moment=moment)


def write_spent(
    tx: db.Transaction, agency: uuid.UUID, payment: store.Payment, *, moment: moments.Moment
) -> None:
    """Write and publish a payment of whose overpaid money something was refunded or credited, or came back."""
    payment.state = accounts.applied_state(
        allocated_minor=payment.allocated_minor,
        overpaid_minor=payment.overpaid_minor,
        refunded_minor=payment.refunded_minor,
    )
    payment.version += 1
    entries = store.entries(tx, agency, [payment.id])
    store.write(tx, agency, [payment], entries, business_date=moment.business_date)
    facts.payment_changed(tx, moment, payment, books.shares(entries.get(payment.id, [])))


def _cases_of(tx: db.Transaction, agency: uuid.UUID, payments: Collection[store.Payment]) -> set[uuid.UUID]:
    """The cases that taking payments back can touch."""
    made = store.entries(tx, agency, [payment.id for payment in payments])
    entries = [entry for of_one in made.values() for entry in of_one]
    instalment_ids = {entry.instalment_id for entry in entries if entry.instalment_id is not None}
    agreement_ids = account_store.agreements_of_instalments(tx, agency, instalment_ids)
    agreed = account_store.agreed(tx, agency, agreement_ids)
    found = {entry.case_id for entry in entries} | {
        item.case_id for items in agreed.values() for item in items
    }
    return found | {payment.case_id for payment in payments if payment.case_id is not None}


def _behind(
    tx: db.Transaction,
    agency: uuid.UUID,
    payment: store.Payment,
    cases: Mapping[uuid.UUID, account_store.CaseAccount],
    becomes: accounts.PaymentState,
    *,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> books.Books:
    entries = store.entries(tx, agency, [payment.id]).get(payment.id, [])
    instalment_ids = {entry.instalment_id for entry in entries if entry.instalment_id is not None}
    over = account_store.agreements_of_instalments(tx, agency, instalment_ids)
    instalments = account_store.instalments(tx, agency, over)
    agreed = account_store.agreed(tx, agency, over)
    also = {entry.title_id for entry in entries if entry.title_id is not None} | {
        item.title_id for items in agreed.values() for item in items
    }
    account = accounts.Account(
        titles=account_store.titles(tx, agency, cases, also=also),
        ended=[one for rows in instalments.values() for one in rows],
    )
    by_id = {title.title_id: title for title in account.titles}
    oldest: dict[uuid.UUID, uuid.UUID] = {}
    for agreement_id, rows in instalments.items():
        first = min(
            (by_id[item.title_id] for item in agreed[agreement_id]),
            key=lambda title: (title.due_date, title.reference),
        )
        oldest |= {row.instalment_id: first.title_id for row in rows}
    applied = books.applied_payment(payment, entries)
    opened = books.Books(
        tx=tx,
        agency=agency,
        moment=moment,
        bank=bank,
        cases=cases,
        loaded=[account],
        account_of=dict.fromkeys(cases, account),
        payments={payment.id: payment},
        applied={payment.id: applied},
    )
    opened.remember()
    current = account_store.agreements(
        tx, agency, {case.agreement_id for case in cases.values() if case.agreement_id is not None}
    )
    account.reverse_behind(
        applied,
        oldest=oldest,
        in_force=[key for key, one in current.items() if one.state in accounts.IN_FORCE],
        date=moment.business_date,
        becomes=becomes,
    )
    opened.note(applied)
    return opened


def apply(
    tx: db.Transaction,
    agency: uuid.UUID,
    payments: Sequence[store.Payment],
    matches: Mapping[uuid.UUID, store.Match],
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """Give payments to what they were matched with, and allocate them."""
    if not payments:
        return
    for one in payments:
        match = matches[one.id]
        one.case_id, one.title_id, one.instrument_id = match.case_id, match.title_id, match.instrument_id
    used = [one for one in payments if one.instrument_id is not None and not one.chosen_title_ids]
    keys = {one.instrument_id for one in used if one.instrument_id is not None}
    shares = instrument_store.titles_of(tx, agency, keys) if keys else {}
    for one in used:
        if one.instrument_id in shares:
            one.chosen_title_ids = [title_id for title_id, _ in shares[one.instrument_id]]
            one.chosen_minor = [minor for _, minor in shares[one.instrument_id]]
    used = [one.instrument_id for one in payments if one.instrument_id is not None]
    parts = instrument_store.titles_of(tx, agency, used) if used else {}
    for one in payments:
        if one.instrument_id in parts and not one.chosen_title_ids:
            one.chosen_title_ids = [title_id for title_id, _ in parts[one.instrument_id]]
            one.chosen_minor = [minor for _, minor in parts[one.instrument_id]]
    opened = books.open_books(
        tx,
        agency,
        case_ids={matches[one.id].case_id for one in payments},
        moment=moment,
        bank=bank,
        new=payments,
    )
    opened.settle(new=payments)
    opened.save()


def _wait(
    tx: db.Transaction, agency: uuid.UUID, payments: Sequence[store.Payment], *, moment: moments.Moment
) -> None:
    """Confirmed payments that find nothing to pay wait as unidentified."""
    for one in payments:
        one.state, one.case_id, one.title_id = accounts.PaymentState.UNIDENTIFIED, None, None
        one.version += 1
    store.write(tx, agency, payments, {}, business_date=moment.business_date)
    for one in payments:
        facts.payment_changed(tx, moment, one, {})


def _matches(
    tx: db.Transaction, agency: uuid.UUID, reports: Mapping[rules.Identity, Report]
) -> dict[rules.Identity, store.Match | None]:
    found = store.match(tx, agency, [one.references for one in reports.values()])
    return {
        identity: store.Match(report.case_id, None, None) if report.case_id is not None else match
        for (identity, report), match in zip(reports.items(), found, strict=True)
    }


def _own(payment: store.Payment) -> store.Match | None:
    """What an unconfirmed payment was said to pay."""
    if payment.case_id is None:
        return None
    return store.Match(payment.case_id, payment.title_id, None)


def check_case(
    tx: db.Transaction,
    agency: uuid.UUID,
    case_id: uuid.UUID,
    *,
    currency: str,
    creditor_reference: str,
    title_ids: Sequence[uuid.UUID],
) -> None:
    """Raise where money of this creditor and currency cannot be given to a case, or to these titles of it."""
    case = account_store.cases(tx, agency, [case_id]).get(case_id)
    if case is None:
        raise errors.ResourceNotFound("no such case", case=case_id)
    if case.currency != currency:
        raise rules.CurrencyDiffers(
            "the payment is in another currency than the case", payment=currency, case=case.currency
        )
    if case.creditor_reference != creditor_reference:
        raise rules.CreditorDiffers("the payment was made to another creditor than the case's")
    if title_ids:
        owned = {one.title_id for one in account_store.titles(tx, agency, [case_id], also=title_ids)}
        if missing := sorted(set(title_ids) - owned):
            raise rules.TitleNotOfCase("a chosen title is not one of the case", title=missing[0])


def _payment(report: Report, moment: moments.Moment) -> store.Payment:
    waits = report.unconfirmed
    return store.Payment(
        id=ids.new(),
        creditor_reference=report.creditor_reference,
        account=report.account,
        means=report.means,
        bank_reference=report.bank_reference,
        value_date=report.value_date,
        amount_minor=report.amount_minor,
        currency=report.currency,
        txid=report.txid,
        our_number=report.our_number,
        title_reference=report.title_reference,
        contract_reference=report.contract_reference,
        state=accounts.PaymentState.NEW_UNCONFIRMED if waits else accounts.PaymentState.UNIDENTIFIED,
        case_id=report.case_id if waits else None,
        chosen_title_ids=[title_id for title_id, _ in report.chosen],
        chosen_minor=[minor for _, minor in report.chosen],
        created_at=moment.now,
    )


def _take_over(payment: store.Payment, report: Report) -> None:
    """What the bank says of a payment takes the place of what was said before; where it says nothing that stays."""
    payment.value_date, payment.amount_minor = report.value_date, report.amount_minor
    payment.txid = report.txid or payment.txid
    payment.our_number = report.our_number or payment.our_number
    payment.title_reference = report.title_reference or payment.title_reference
    payment.contract_reference = report.contract_reference or payment.contract_reference


def _references(payment: store.Payment) -> rules.References:
    return rules.References(
        creditor_reference=payment.creditor_reference,
        currency=payment.currency,
        txid=payment.txid,
        our_number=payment.our_number,
        title_reference=payment.title_reference,
        contract_reference=payment.contract_reference,
    )


def _get(tx: db.Transaction, agency: uuid.UUID, payment_id: uuid.UUID) -> store.Payment:
    payment = store.get(tx, agency, [payment_id]).get(payment_id)
    if payment is None:
        raise errors.ResourceNotFound("no such payment", payment=payment_id)
    return payment


def _differs(payment: store.Payment) -> rules.PaymentDiffers:
    return rules.PaymentDiffers(
        "this credit is known with another amount or currency",
        payment=payment.id,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
    )


def _check_version(found: int, wanted: int | None) -> None:
    if wanted is not None and found != wanted:
        raise errors.VersionMismatch("the payment changed since it was read", etag=found)
