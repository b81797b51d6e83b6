"""Santander (033): beneficiary's code (PSK), our number of 12 digits with a check digit modulo 11, wallet."""

import datetime

from agreement_service.domain.banks import base


def _number(account: base.Account, number: int, date: datetime.date) -> base.OurNumber:
    digits = f"{number:012d}"
    check = base.mod11(digits, base.UP_TO_9, ten="0", eleven="0")
    return base.OurNumber(digits=digits, check=check, printed=f"{digits}-{check}")


def _free_field(account: base.Account, number: base.OurNumber) -> str:
    return f"9{account.agreement}{number.digits}{number.check}0{account.wallet}"


BANK = base.Bank(
    code="033",
    check_digit="7",
    name="Santander",
    fields={"branch": (4,), "wallet": (3,), "agreement": (7,)},
    wallets=frozenset({"101", "102", "201"}),
    largest=lambda account: 999_999_999_999,
    number=_number,
    free_field=_free_field,
    payee=lambda account: f"{account.branch} / {account.agreement}",
)
