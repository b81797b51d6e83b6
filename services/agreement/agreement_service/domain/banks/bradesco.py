"""Bradesco (237): branch, wallet, our number of 11 digits, account. Check digits modulo 11, weights 2 to 7, 10 is P."""

import datetime

from agreement_service.domain.banks import base


def _check(digits: str) -> str:
    return base.mod11(digits, base.UP_TO_7, ten="P", eleven="0")


def _number(account: base.Account, number: int, date: datetime.date) -> base.OurNumber:
    digits = f"{number:011d}"
    check = _check(account.wallet + digits)
    return base.OurNumber(digits=digits, check=check, printed=f"{account.wallet}/{digits}-{check}")


def _free_field(account: base.Account, number: base.OurNumber) -> str:
    return f"{account.branch}{account.wallet}{number.digits}{account.account}0"


def _payee(account: base.Account) -> str:
    return f"{account.branch}-{_check(account.branch)} / {account.account}-{_check(account.account)}"


BANK = base.Bank(
    code="237",
    check_digit="2",
    name="Bradesco",
    fields={"branch": (4,), "account": (7,), "wallet": (2,)},
    largest=lambda account: 99_999_999_999,
    number=_number,
    free_field=_free_field,
    payee=_payee,
)
