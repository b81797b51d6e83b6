"""Payment instruments: issued as drafts, registered and cancelled at the bank as journaled acts (architecture §7),
copied, expired. An instrument never changes while it can be paid: cancel, then new.

A kind of instrument is a maker in MAKERS, by currency: it gives what distinguishes it (numbers, codes), everything else
is done here.
"""

import dataclasses
import datetime
import uuid
from collections.abc import Collection, Iterable, Sequence

from agreement_service import providers
from agreement_service.domain import accounts, boleto, collection, instruments
from agreement_service.store import accounts as account_store
from agreement_service.store import collection as collection_store
from agreement_service.store import creditors as creditor_store
from agreement_service.store import instruments as store
from agreement_service.usecases import brazil, euro, facts, makers, moments, owing
from servicekit import db, errors, ids

CLAIMED = 100
ACTS = (("CANCEL_REQUESTED", "CANCELLING"), ("DRAFT", "REGISTERING"))
"""What is due and what it becomes while the bank is asked; cancelled before its copy is registered."""


MAKERS: dict[str, dict[instruments.Kind, makers.Maker]] = {
    "BRL": {instruments.Kind.BOLETO: brazil.slips, instruments.Kind.PIX: brazil.codes},
    "EUR": {instruments.Kind.MULTIBANCO: euro.references, instruments.Kind.SEPA_DD: euro.debits},
}


def issue(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    instalments: Sequence[accounts.Instalment],
    currency: str,
    moment: moments.Moment,
    bank: providers.BankProvider,
    kinds: Collection[instruments.Kind] = (),
) -> None:
    """Draft an instrument of every means that the creditor accepts (`kinds`: of these only; where an agreement says how
    it is paid: of that one) for each instalment, of the next generation, on his account (the provider's where he has
    none). A timer registers them. The accounts are locked."""
    if currency not in MAKERS or not instalments:
        return
    owners = store.owners(tx, agency, [one.agreement_id for one in instalments])
    for means in sorted({owner.means for owner in owners.values()}):
        wanted = [kind for kind in kinds or instruments.Kind if kind.value == means] if means else kinds
        if means and not wanted:
            continue
        debts = [
            instruments.Debt(
                case_id=owners[one.agreement_id].case_id,
                creditor_id=owners[one.agreement_id].creditor_id,
                currency=currency,
                instalment_id=one.instalment_id,
                amount_minor=one.open_minor,
                due_date=one.due_date,
            )
            for one in sorted(instalments, key=lambda one: (one.agreement_id, one.number))
            if owners[one.agreement_id].means == means
        ]
        _draft(tx, agency, debts=debts, kinds=wanted, moment=moment, bank=bank)


def issue_for_instalment(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    instalment_id: uuid.UUID,
    kinds: Collection[instruments.Kind],
    date: datetime.date | None,
    account_id: uuid.UUID | None = None,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> list[uuid.UUID]:
    """Draft instruments for an unpaid instalment of an agreement in force; their ids. `kinds` empty: all accepted.

    Raises ResourceNotFound, InvalidRequest, InstalmentNotOpen, InstrumentPayable, MeansNotAccepted,
    AmountAboveInstrument, CollectionAccountNotUsable.
    """
    debt = owing.of_instalment(tx, agency, instalment_id, date=date, moment=moment)
    known = store.of_instalments(tx, agency, [instalment_id]).get(instalment_id, [])
    return _issue_one(
        tx, agency, debt, kinds=kinds, known=known, account_id=account_id, moment=moment, bank=bank
    )


def issue_for_titles(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    case_id: uuid.UUID,
    title_ids: Sequence[uuid.UUID],
    kinds: Collection[instruments.Kind],
    date: datetime.date | None,
    account_id: uuid.UUID | None = None,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> list[uuid.UUID]:
    """Draft instruments for titles outside an agreement, with what is owed on `date` (S2-29, S2-31); their ids.

    Raises ResourceNotFound, InvalidRequest, TitleNotCollectable, InstrumentPayable, MeansNotAccepted,
    AmountAboveInstrument, CollectionAccountNotUsable.
    """
    if not 1 <= len(title_ids) <= instruments.MAX_TITLES or len(set(title_ids)) != len(title_ids):
        raise errors.invalid("titles", f"expected 1 to {instruments.MAX_TITLES} titles, each once")
    debt = owing.of_titles(tx, agency, case_id, title_ids, date=date, moment=moment)
    known = _of_titles(tx, agency, title_ids)
    return _issue_one(
        tx, agency, debt, kinds=kinds, known=known, account_id=account_id, moment=moment, bank=bank
    )


def cancel(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    instrument_id: uuid.UUID,
    version: int | None,
    moment: moments.Moment,
) -> None:
    """Make an instrument unusable: at once while it is a draft, otherwise at the bank.

    Raises ResourceNotFound, VersionMismatch, InstrumentNotPayable.
    """
    found = _locked(tx, agency, instrument_id, version=version)
    if found.state not in instruments.LIVE or found.unwanted:
        raise instruments.InstrumentNotPayable("the instrument cannot be paid any more", state=found.state)
    _publish(tx, moment, store.close(tx, agency, [instrument_id], now=moment.now))


def reissue(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    instrument_id: uuid.UUID,
    date: datetime.date | None,
    version: int | None,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> uuid.UUID:
    """Second copy (2a via): the next of its kind with what is owed on `date`; its id. The old one is cancelled first,
    and the new one is registered when the bank has said so.

    Raises ResourceNotFound, VersionMismatch, InvalidRequest, InstrumentPaid, InstrumentReplaced, InstalmentNotOpen,
    TitleNotCollectable, MeansNotAccepted, AmountAboveInstrument.
    """
    found = _locked(tx, agency, instrument_id, version=version)
    if found.state == instruments.State.PAID:
        raise instruments.InstrumentPaid("the instrument was paid", instrument=instrument_id)
    parts = store.titles_of(tx, agency, [instrument_id]).get(instrument_id, [])
    title_ids = [title_id for title_id, _ in parts]
    if found.instalment_id is not None:
        debt = owing.of_instalment(tx, agency, found.instalment_id, date=date, moment=moment)
        siblings = store.of_instalments(tx, agency, [found.instalment_id])[found.instalment_id]
        later = [one for one in siblings if one.kind == found.kind and one.generation > found.generation]
    else:
        debt = owing.of_titles(tx, agency, found.case_id, title_ids, date=date, moment=moment)
        later = [
            one
            for one in _of_titles(tx, agency, title_ids)
            if one.kind == found.kind and one.id != instrument_id and one.state in instruments.LIVE
        ]
    if later:
        raise instruments.InstrumentReplaced("a later one took its place", instrument=later[-1].id)
    _publish(tx, moment, store.close(tx, agency, [instrument_id], now=moment.now))
    kind = instruments.Kind(found.kind)
    made = _draft(
        tx,
        agency,
        debts=[debt],
        kinds=[kind],
        moment=moment,
        bank=bank,
    )
    return _drafted(made, debt, [kind])[0]


def paid(
    tx: db.Transaction, agency: uuid.UUID, instrument_ids: Iterable[uuid.UUID], *, moment: moments.Moment
) -> None:
    """These were used. The accounts are locked."""
    changed = store.pay(tx, agency, instrument_ids)
    store.release(tx, agency, changed, now=moment.now)
    _publish(tx, moment, changed)


def close(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    instalment_ids: Collection[uuid.UUID],
    title_ids: Collection[uuid.UUID],
    moment: moments.Moment,
) -> None:
    """Nothing is to be paid any more on these instalments; what is owed on these titles is another amount now, or
    another agreement's. The accounts are locked."""
    changed = []
    if instalment_ids:
        changed += store.close_instalments(tx, agency, instalment_ids, now=moment.now)
    if title_ids:
        stale = store.of_titles(tx, agency, title_ids, states=instruments.LIVE)
        if stale:
            changed += store.close(tx, agency, [one.id for one in stale], now=moment.now)
    _publish(tx, moment, changed)


def withdraw(
    tx: db.Transaction, agency: uuid.UUID, instrument_ids: Collection[uuid.UUID], *, moment: moments.Moment
) -> None:
    """These are of no use any more. The accounts are locked."""
    if instrument_ids:
        _publish(tx, moment, store.close(tx, agency, instrument_ids, now=moment.now))


def expire(
    tx: db.Transaction,
    agency: uuid.UUID,
    case_ids: Collection[uuid.UUID],
    *,
    date: datetime.date,
    moment: moments.Moment,
) -> None:
    """End what can be paid no more on `date` of cases that are locked; again it changes nothing. A part of the day."""
    if case_ids:
        _publish(tx, moment, store.expire(tx, agency, case_ids, date=date))


def claim(
    tx: db.Transaction, agency: uuid.UUID, *, due: str, acting: str, moment: moments.Moment
) -> list[tuple[store.Instrument, bool]]:
    """Instruments to act on now: those whose act is due, and (True) those whose act was begun and never finished."""
    left = store.abandoned(tx, agency, acting=acting)
    fresh = store.claim(tx, agency, due=due, acting=acting, now=moment.now, limit=CLAIMED)
    return [(one, True) for one in left] + [(one, False) for one in fresh]


def payers_wanted(
    bank: providers.BankProvider, claimed: Iterable[store.Instrument], acting: str
) -> list[uuid.UUID]:
    """Cases whose parties the bank has to be told when it registers their charges."""
    if not bank.pix_charges or acting != "REGISTERING":
        return []
    return sorted({one.case_id for one in claimed if one.kind == instruments.Kind.PIX.value})


def act(
    *,
    bank: providers.BankProvider,
    instrument: store.Instrument,
    acting: str,
    begun: bool,
    today: datetime.date,
    payer: providers.Parties | None = None,
) -> tuple[providers.Registration, str]:
    """Ask the bank, outside any transaction: how it sees the instrument, and the code it gave a charge (empty where the
    instrument has its own). A begun act is looked up first by its key. Raises BankUnavailable."""
    order = providers.Order(
        kind=instrument.kind,
        key=instrument.act_key,
        amount_minor=instrument.amount_minor,
        due_date=instrument.due_date,
        today=today,
        payer=payer,
    )
    registering = acting == "REGISTERING"
    wanted = providers.Registration.REGISTERED if registering else providers.Registration.CANCELLED
    found = bank.find(order) if begun else None
    if found is not wanted and found is not providers.Registration.REJECTED:
        found = bank.register(order) if registering else bank.cancel(order)
    assert found is not None
    code = bank.code(order) if registering and found is wanted else ""
    return found, code


def finish(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    acting: str,
    outcomes: Sequence[tuple[store.Instrument, providers.Registration, str]],
    moment: moments.Moment,
) -> None:
    """Write what the bank answered, and the codes it gave."""
    if outcomes:
        db.lock_anchors(
            tx, account_store.ANCHORS, agency, sorted({instrument.case_id for instrument, _, _ in outcomes})
        )
        answers = {instrument.id: (outcome.value, code) for instrument, outcome, code in outcomes}
        _publish(tx, moment, store.outcomes(tx, agency, answers, acting=acting, now=moment.now))


def _issue_one(
    tx: db.Transaction,
    agency: uuid.UUID,
    debt: instruments.Debt,
    *,
    kinds: Collection[instruments.Kind],
    known: Sequence[store.Instrument],
    account_id: uuid.UUID | None,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> list[uuid.UUID]:
    payable = {one.kind: one for one in known if one.state in instruments.LIVE and not one.unwanted}
    wanted = kinds or [kind for kind in MAKERS.get(debt.currency, {}) if kind.value not in payable]
    for kind in wanted:
        if kind.value in payable:
            raise instruments.InstrumentPayable(
                "cancel it or reissue it", instrument=payable[kind.value].id, kind=kind.value
            )
    if payable and not wanted:
        one = next(iter(payable.values()))
        raise instruments.InstrumentPayable("every means has one", instrument=one.id, kind=one.kind)
    account = _chosen(tx, agency, account_id, debt) if account_id is not None else None
    made = _draft(tx, agency, debts=[debt], kinds=wanted, account=account, moment=moment, bank=bank)
    return _drafted(made, debt, kinds)


def _chosen(
    tx: db.Transaction, agency: uuid.UUID, account_id: uuid.UUID, debt: instruments.Debt
) -> collection.CollectionAccount:
    """The account chosen for a debt. Raises ResourceNotFound, CollectionAccountNotUsable."""
    record = collection_store.find(tx, agency, account_id)
    if record is None:
        raise errors.ResourceNotFound("no such collection account", collection_account=account_id)
    if not record.active or record.creditor_id not in (None, debt.creditor_id):
        raise instruments.CollectionAccountNotUsable(
            "expected an active account of the creditor or of the house", collection_account=account_id
        )
    return record.account


def _drafted(
    made: Sequence[store.Instrument], debt: instruments.Debt, kinds: Collection[instruments.Kind]
) -> list[uuid.UUID]:
    """Ids of what was made. Raises where a kind asked for, or all, could not be made."""
    missing = [kind.value for kind in kinds if kind.value not in {one.kind for one in made}]
    if debt.amount_minor > boleto.MAX_AMOUNT_MINOR and instruments.Kind.BOLETO.value in missing:
        raise instruments.AmountAboveInstrument(
            "a slip cannot say so much",
            amount_minor=debt.amount_minor,
            maximum_minor=boleto.MAX_AMOUNT_MINOR,
        )
    if missing or not made:
        raise instruments.MeansNotAccepted(
            "the creditor does not accept it, or has no account that takes it",
            kinds=",".join(missing),
            currency=debt.currency,
        )
    return [one.id for one in made]


def _draft(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    debts: Sequence[instruments.Debt],
    kinds: Collection[instruments.Kind] = (),
    account: collection.CollectionAccount | None = None,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> list[store.Instrument]:
    """Draft what the creditors accept for debts of one currency, of the kinds asked for (none: all), on `account` or
    the creditors' own. The cases are locked."""
    earlier = _Earlier(tx, agency, debts)
    made: list[store.Instrument] = []
    titles: dict[uuid.UUID, tuple[tuple[uuid.UUID, int], ...]] = {}
    for creditor_id in sorted({debt.creditor_id for debt in debts}):
        own = [debt for debt in debts if debt.creditor_id == creditor_id]
        accepted = creditor_store.settings(tx, agency, creditor_id).accepted_means
        desk = makers.Desk(
            tx=tx,
            agency=agency,
            moment=moment,
            creditor_id=creditor_id,
            account=account or collection_store.default(tx, agency, creditor_id) or bank.account,
            bank=bank,
        )
        for kind, maker in MAKERS.get(own[0].currency, {}).items():
            if kind.value not in accepted or (kinds and kind not in kinds):
                continue
            new_ids = [ids.new() for _ in own]
            for debt, key, fields in zip(own, new_ids, maker(desk, own, new_ids), strict=True):
                if fields is not None:
                    waits_for = earlier.waits_for(debt, kind)
                    generation = earlier.next_generation(debt, kind)
                    made.append(_instrument(desk, debt, kind, key, fields, generation, waits_for))
                    titles[key] = debt.titles
    store.add(tx, agency, made, titles)
    _publish(tx, moment, made)
    return made


class _Earlier:
    """Earlier instruments of some debts: counts generations, and says what is not unusable yet."""

    def __init__(self, tx: db.Transaction, agency: uuid.UUID, debts: Sequence[instruments.Debt]) -> None:
        instalments = [debt.instalment_id for debt in debts if debt.instalment_id is not None]
        cases = [debt.case_id for debt in debts if debt.instalment_id is None]
        title_ids = [title_id for debt in debts for title_id, _ in debt.titles]
        self._found: dict[tuple[uuid.UUID, uuid.UUID | None, str], list[store.Instrument]] = {}
        for group in store.of_instalments(tx, agency, instalments).values():
            for one in group:
                self._found.setdefault(one.subject, []).append(one)
        for one in store.loose(tx, agency, cases) if cases else ():
            self._found.setdefault(one.subject, []).append(one)
        self._same_titles = {one.id for one in _of_titles(tx, agency, title_ids)}

    def next_generation(self, debt: instruments.Debt, kind: instruments.Kind) -> int:
        """Of the instalment, or of all loose titles of the case."""
        found = self._found.get((debt.case_id, debt.instalment_id, kind.value), ())
        return 1 + max((one.generation for one in found), default=0)

    def waits_for(self, debt: instruments.Debt, kind: instruments.Kind) -> uuid.UUID | None:
        """The one of the same kind for the same debt that the bank may still take. Raises InstrumentPayable where they
        are several."""
        found = [
            one
            for one in self._found.get((debt.case_id, debt.instalment_id, kind.value), ())
            if (one.state in instruments.CLOSING or (one.unwanted and one.state in instruments.LIVE))
            and (debt.instalment_id is not None or one.id in self._same_titles)
        ]
        if len(found) > 1:
            raise instruments.InstrumentPayable(
                "several are being cancelled: ask again when they are",
                instrument=found[0].id,
                kind=kind.value,
            )
        return found[0].id if found else None


def _of_titles(
    tx: db.Transaction, agency: uuid.UUID, title_ids: Sequence[uuid.UUID]
) -> list[store.Instrument]:
    """Instruments of loose titles that the bank takes, or may take."""
    if not title_ids:
        return []
    return store.of_titles(tx, agency, title_ids, states=instruments.LIVE | instruments.CLOSING)


def _instrument(
    desk: makers.Desk,
    debt: instruments.Debt,
    kind: instruments.Kind,
    key: uuid.UUID,
    fields: makers.Fields,
    generation: int,
    waits_for: uuid.UUID | None,
) -> store.Instrument:
    ends = debt.due_date
    if debt.instalment_id is not None:
        ends += datetime.timedelta(days=desk.account.payable_days)
    return store.Instrument(
        id=key,
        case_id=debt.case_id,
        instalment_id=debt.instalment_id,
        account_id=desk.account.id,
        kind=kind.value,
        generation=generation,
        state=instruments.State.DRAFT.value,
        currency=debt.currency,
        amount_minor=debt.amount_minor,
        issue_date=desk.moment.business_date,
        due_date=debt.due_date,
        payable_until=None if kind in instruments.ENDLESS else providers.payable_until(ends, debt.currency),
        due_at=store.NEVER if waits_for is not None else desk.moment.now,
        waits_for_id=waits_for,
        **dataclasses.asdict(fields),
    )


def _locked(
    tx: db.Transaction, agency: uuid.UUID, instrument_id: uuid.UUID, *, version: int | None
) -> store.Instrument:
    found = store.find(tx, agency, instrument_id)
    if found is None:
        raise errors.ResourceNotFound("no such instrument", instrument=instrument_id)
    account_store.lock(tx, agency, [found.case_id])
    found = store.find(tx, agency, instrument_id)
    assert found is not None
    if version is not None and found.version != version:
        raise errors.VersionMismatch("the instrument changed since it was read", etag=found.version)
    return found


def _publish(tx: db.Transaction, moment: moments.Moment, changed: Sequence[store.Instrument]) -> None:
    if changed:
        facts.instruments_changed(tx, moment, changed)
