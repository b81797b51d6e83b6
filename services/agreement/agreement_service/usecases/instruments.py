"""Instruments of instalments: issued as drafts, registered and cancelled at the bank as journaled acts (§7)."""

import datetime
import uuid
from collections.abc import Sequence

from agreement_service import providers
from agreement_service.domain import accounts, banks, boleto, pix
from agreement_service.store import instruments as store
from agreement_service.usecases import euro, moments
from servicekit import db, ids

BOLETO = "BOLETO"
PIX = "PIX"
CLAIMED = 100
ACTS = (("DRAFT", "REGISTERING"), ("CANCEL_REQUESTED", "CANCELLING"))


def issue(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    instalments: Sequence[accounts.Instalment],
    currency: str,
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """Draft a boleto and a Pix code for each instalment, of the next generation; a timer registers them. In EUR a
    Multibanco reference and a direct debit (euro.py)."""
    if not instalments:
        return
    if currency == "EUR":
        euro.issue(tx, agency, instalments=instalments, moment=moment, bank=bank)
        return
    account = bank.account
    known = store.of_instalments(tx, agency, [one.instalment_id for one in instalments])
    ordered = sorted(instalments, key=lambda one: (one.agreement_id, one.number))
    numbers = store.numbers(
        tx,
        agency,
        account=account.series_key,
        count=len(ordered),
    )
    new = []
    for one, number in zip(ordered, numbers, strict=True):
        generation = 1 + max((old.generation for old in known.get(one.instalment_id, ())), default=0)
        if one.amount_minor <= boleto.MAX_AMOUNT_MINOR:
            new.append(
                _boleto(
                    account,
                    one,
                    number=number,
                    generation=generation,
                    now=moment.now,
                    today=moment.business_date,
                )
            )
        new.append(_pix(account, one, generation=generation, now=moment.now))
    store.add(tx, agency, new)


def _boleto(
    account: providers.CollectionAccount,
    instalment: accounts.Instalment,
    *,
    number: int,
    generation: int,
    now: datetime.datetime,
    today: datetime.date,
) -> store.Instrument:
    bank = banks.of(account.bank)
    ours = bank.our_number(account, number, today)
    slip = boleto.Slip(
        bank=account.bank,
        due_date=instalment.due_date,
        amount_minor=instalment.amount_minor,
        free_field=bank.free_field(account, ours),
    )
    return store.Instrument(
        id=ids.new(),
        instalment_id=instalment.instalment_id,
        kind=BOLETO,
        generation=generation,
        state="DRAFT",
        amount_minor=instalment.amount_minor,
        due_date=instalment.due_date,
        our_number=ours.digits,
        barcode=boleto.barcode(slip),
        due_at=now,
        act_key=ours.digits,
    )


def _pix(
    account: providers.CollectionAccount,
    instalment: accounts.Instalment,
    *,
    generation: int,
    now: datetime.datetime,
) -> store.Instrument:
    instrument_id = ids.new()
    txid = pix.txid_of(instrument_id)
    return store.Instrument(
        id=instrument_id,
        instalment_id=instalment.instalment_id,
        kind=PIX,
        generation=generation,
        state="DRAFT",
        amount_minor=instalment.amount_minor,
        due_date=instalment.due_date,
        txid=txid,
        br_code=pix.static_code(
            key=account.pix_key,
            name=account.pix_name,
            city=account.pix_city,
            amount_minor=instalment.amount_minor,
            txid=txid,
        ),
        due_at=now,
        act_key=txid,
    )


def claim(
    tx: db.Transaction, agency: uuid.UUID, *, due: str, acting: str, moment: moments.Moment
) -> list[tuple[store.Instrument, bool]]:
    """Instruments to act on now: those whose act is due, and (True) those whose act was begun and never finished."""
    left = store.abandoned(tx, agency, acting=acting)
    fresh = store.claim(tx, agency, due=due, acting=acting, now=moment.now, limit=CLAIMED)
    return [(one, True) for one in left] + [(one, False) for one in fresh]


def act(
    *, bank: providers.BankProvider, instrument: store.Instrument, acting: str, begun: bool
) -> providers.Registration:
    """Ask the bank, outside any transaction. A begun act is looked up first by its key. Raises BankUnavailable."""
    order = providers.Order(
        kind=instrument.kind,
        key=instrument.act_key,
        amount_minor=instrument.amount_minor,
        due_date=instrument.due_date,
    )
    wanted = (
        providers.Registration.REGISTERED if acting == "REGISTERING" else providers.Registration.CANCELLED
    )
    if begun:
        found = bank.find(order)
        if found is wanted or found is providers.Registration.REJECTED:
            return found
    return bank.register(order) if wanted is providers.Registration.REGISTERED else bank.cancel(order)


def finish(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    instrument_id: uuid.UUID,
    acting: str,
    outcome: providers.Registration,
    moment: moments.Moment,
) -> None:
    """Write what the bank answered."""
    store.outcome(tx, agency, instrument_id, acting=acting, outcome=outcome.value, now=moment.now)
