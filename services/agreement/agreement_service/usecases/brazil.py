"""Instruments in BRL: slips of the account's bank, Pix codes (standards.md 4.1, 4.4)."""

import uuid
from collections.abc import Sequence

from agreement_service.domain import banks, boleto, instruments, pix
from agreement_service.store import instruments as store
from agreement_service.usecases import makers


def slips(
    desk: makers.Desk, debts: Sequence[instruments.Debt], new_ids: Sequence[uuid.UUID]
) -> Sequence[makers.Fields | None]:
    """A slip for each debt that fits one, numbered on the account."""
    account, date = desk.account, desk.moment.business_date
    fitting = [debt.amount_minor <= boleto.MAX_AMOUNT_MINOR for debt in debts]
    if not account.bank or not any(fitting):
        return [None] * len(debts)
    bank = banks.of(account.bank)
    series = bank.series(date)
    key = f"{account.series_key}/{series}" if series else account.series_key
    numbers = iter(store.numbers(desk.tx, desk.agency, account=key, count=sum(fitting)))
    made: list[makers.Fields | None] = []
    for debt, fits in zip(debts, fitting, strict=True):
        if not fits:
            made.append(None)
            continue
        ours = bank.our_number(account, next(numbers), date)
        slip = boleto.Slip(
            bank=account.bank,
            due_date=debt.due_date,
            amount_minor=debt.amount_minor,
            free_field=bank.free_field(account, ours),
        )
        made.append(
            makers.Fields(
                act_key=ours.digits,
                our_number=ours.digits,
                our_number_printed=ours.printed,
                barcode=boleto.barcode(slip),
            )
        )
    return made


def codes(
    desk: makers.Desk, debts: Sequence[instruments.Debt], new_ids: Sequence[uuid.UUID]
) -> Sequence[makers.Fields | None]:
    """A static BR Code for each debt; where the bank has charges, the txid of one, whose code it gives when it is
    registered."""
    account = desk.account
    if desk.bank.pix_charges:
        txids = [pix.charge_txid_of(key) for key in new_ids]
        return [makers.Fields(act_key=txid, txid=txid) for txid in txids]
    if not account.pix_key:
        return [None] * len(debts)
    made = []
    for debt, key in zip(debts, new_ids, strict=True):
        txid = pix.txid_of(key)
        code = pix.static_code(
            key=account.pix_key,
            name=account.pix_name,
            city=account.pix_city,
            amount_minor=debt.amount_minor,
            txid=txid,
        )
        made.append(makers.Fields(act_key=txid, txid=txid, br_code=code))
    return made
