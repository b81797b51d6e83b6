"""Banco do Brasil (001). The agreement's length says how our number is made; with 4 or 6 digits the account stands in
the free field, with 7 or 8 it does not."""

import datetime

from agreement_service.domain.banks import base

_OWN_DIGITS = {4: 7, 6: 5, 7: 10, 8: 9}


def _check(digits: str) -> str:
    """Modulo 11 with weights 9 to 2 from the right; 10 is X."""
    check = base.weigh(digits, (9, 8, 7, 6, 5, 4, 3, 2)) % 11
    return "X" if check == 10 else str(check)


def _largest(account: base.Account) -> int:
    return int("9" * _OWN_DIGITS[len(account.agreement)])


def _number(account: base.Account, number: int, date: datetime.date) -> base.OurNumber:
    digits = f"{account.agreement}{number:0{_OWN_DIGITS[len(account.agreement)]}d}"
    if len(account.agreement) == 7:  # 17 digits, sent and printed without a check digit
        return base.OurNumber(digits=digits, check="", printed=digits)
    check = _check(digits)
    return base.OurNumber(digits=digits, check=check, printed=f"{digits}-{check}")


def _free_field(account: base.Account, number: base.OurNumber) -> str:
    if len(account.agreement) in (7, 8):
        return f"000000{number.digits}{account.wallet}"
    return f"{number.digits}{account.branch}{account.account}{account.wallet}"


def _payee(account: base.Account) -> str:
    return f"{account.branch}-{_check(account.branch)} / {account.account}-{_check(account.account)}"


BANK = base.Bank(
    code="001",
    check_digit="9",
    name="Banco do Brasil",
    fields={"branch": (4,), "account": (8,), "wallet": (2,), "agreement": tuple(_OWN_DIGITS)},
    largest=_largest,
    number=_number,
    free_field=_free_field,
    payee=_payee,
)
