"""Itaú (341): wallet, our number of 8 digits, branch and account, each group with a check digit modulo 10.

Wallets whose check digit leaves out the account (126, 131, 146, 150, 168: sources disagree), or whose free field
carries the creditor's own number (107, 122, 142, 143, 196, 198), are refused."""

import datetime

from agreement_service.domain.banks import base


def _number(account: base.Account, number: int, date: datetime.date) -> base.OurNumber:
    digits = f"{number:08d}"
    check = str(base.mod10(account.branch + account.account + account.wallet + digits))
    return base.OurNumber(digits=digits, check=check, printed=f"{account.wallet}/{digits}-{check}")


def _free_field(account: base.Account, number: base.OurNumber) -> str:
    owner = account.branch + account.account
    return f"{account.wallet}{number.digits}{number.check}{owner}{base.mod10(owner)}000"


def _payee(account: base.Account) -> str:
    return f"{account.branch} / {account.account}-{base.mod10(account.branch + account.account)}"


BANK = base.Bank(
    code="341",
    check_digit="7",
    name="Itaú",
    fields={"branch": (4,), "account": (5,), "wallet": (3,)},
    wallets=frozenset({"108", "109", "110", "121", "175"}),
    largest=lambda account: 99_999_999,
    number=_number,
    free_field=_free_field,
    payee=_payee,
)
