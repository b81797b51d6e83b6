"""Banrisul (041): beneficiary's code, our number of 8 digits; two check digits (modulo 10, then 11) both for our number
and for the free field."""

import datetime

from agreement_service.domain.banks import base


def _checks(digits: str) -> str:
    """The double digit: modulo 10 over the digits, modulo 11 (weights 2 to 7) over both; where that leaves 1, the first
    is raised by one and the second counted again."""
    first = base.mod10(digits)
    rest = base.weigh(f"{digits}{first}", base.UP_TO_7) % 11
    if rest == 1:
        first = (first + 1) % 10
        rest = base.weigh(f"{digits}{first}", base.UP_TO_7) % 11
    return f"{first}{11 - rest if rest else 0}"


def _number(account: base.Account, number: int, date: datetime.date) -> base.OurNumber:
    digits = f"{number:08d}"
    check = _checks(digits)
    return base.OurNumber(digits=digits, check=check, printed=f"{digits}-{check}")


def _free_field(account: base.Account, number: base.OurNumber) -> str:
    field = f"{account.wallet}1{account.branch}{account.agreement}{number.digits}40"
    return field + _checks(field)


BANK = base.Bank(
    code="041",
    check_digit="8",
    name="Banrisul",
    fields={"branch": (4,), "wallet": (1,), "agreement": (7,)},
    wallets=frozenset({"1", "2"}),
    largest=lambda account: 99_999_999,
    number=_number,
    free_field=_free_field,
    payee=lambda account: f"{account.branch} / {account.agreement}",
)
