"""Caixa Econômica Federal (104), SIGCB: beneficiary's code of 6 digits, our number of 17 of which the wallet is the
first two (1 registered or 2 not, 4 issued by the beneficiary); check digits modulo 11."""

import datetime

from agreement_service.domain.banks import base


def _check(digits: str) -> str:
    return base.mod11(digits, base.UP_TO_9, ten="0", eleven="0")


def _number(account: base.Account, number: int, date: datetime.date) -> base.OurNumber:
    digits = f"{account.wallet}{number:015d}"
    check = _check(digits)
    return base.OurNumber(digits=digits, check=check, printed=f"{digits}-{check}")


def _free_field(account: base.Account, number: base.OurNumber) -> str:
    kind, issuer, own = number.digits[0], number.digits[1], number.digits[2:]
    field = f"{account.agreement}{_check(account.agreement)}{own[:3]}{kind}{own[3:6]}{issuer}{own[6:]}"
    return field + _check(field)


BANK = base.Bank(
    code="104",
    check_digit="0",
    name="Caixa",
    fields={"branch": (4,), "wallet": (2,), "agreement": (6,)},
    wallets=frozenset({"14", "24"}),
    largest=lambda account: 999_999_999_999_999,
    number=_number,
    free_field=_free_field,
    payee=lambda account: f"{account.branch} / {account.agreement}-{_check(account.agreement)}",
)
