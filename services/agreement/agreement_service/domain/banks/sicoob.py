"""Sicoob (756): wallet and modality (`101` is wallet 1, modality 01), cooperative, client number, our number of 7
digits with a check digit of its own weights; each slip is parcel 001."""

import datetime

from agreement_service.domain.banks import base


def _number(account: base.Account, number: int, date: datetime.date) -> base.OurNumber:
    digits = f"{number:07d}"
    whole = f"{account.branch}{account.agreement:0>10}{digits}"
    check = base.mod11(whole, (3, 7, 9, 1), ten="0", eleven="0")
    return base.OurNumber(digits=digits, check=check, printed=f"{digits}-{check}")


def _free_field(account: base.Account, number: base.OurNumber) -> str:
    wallet, modality = account.wallet[0], account.wallet[1:]
    return f"{wallet}{account.branch}{modality}{account.agreement}{number.digits}{number.check}001"


BANK = base.Bank(
    code="756",
    check_digit="0",
    name="Sicoob",
    fields={"branch": (4,), "wallet": (3,), "agreement": (7,)},
    wallets=frozenset({"101", "102", "103", "105", "303"}),
    largest=lambda account: 9_999_999,
    number=_number,
    free_field=_free_field,
    payee=lambda account: f"{account.branch} / {account.agreement}",
)
