"""Sicredi (748): our number carries the year and starts again with it; the cooperative's post is the agreement field of
the account (2 digits), the beneficiary's code the account (5)."""

import datetime

from agreement_service.domain.banks import base

_PER_BYTE = 99_999


def _check(digits: str) -> str:
    return base.mod11(digits, base.UP_TO_9, ten="0", eleven="0")


def _number(account: base.Account, number: int, date: datetime.date) -> base.OurNumber:
    byte, running = divmod(number - 1, _PER_BYTE)
    digits = f"{date:%y}{byte + 2}{running + 1:05d}"  # byte 1 is the bank's own, 2 to 9 the beneficiary's
    check = _check(f"{account.branch}{account.agreement}{account.account}{digits}")
    return base.OurNumber(digits=digits, check=check, printed=f"{digits[:2]}/{digits[2:]}-{check}")


def _free_field(account: base.Account, number: base.OurNumber) -> str:
    owner = f"{account.branch}{account.agreement}{account.account}"
    field = f"{account.wallet}1{number.digits}{number.check}{owner}10"
    return field + _check(field)


BANK = base.Bank(
    code="748",
    check_digit="X",
    name="Sicredi",
    fields={"branch": (4,), "account": (5,), "wallet": (1,), "agreement": (2,)},
    wallets=frozenset({"1", "3"}),
    largest=lambda account: 8 * _PER_BYTE,
    number=_number,
    free_field=_free_field,
    payee=lambda account: f"{account.branch}.{account.agreement}.{account.account}",
    series=lambda date: f"{date:%y}",
)
