"""Banks whose slips can be issued: a module each, of one shape (standards.md 4.1; feature S5-26)."""

from agreement_service.domain.banks import (
    banco_do_brasil,
    banrisul,
    base,
    bradesco,
    caixa,
    itau,
    santander,
    sicoob,
    sicredi,
)
from agreement_service.domain.banks.base import Account as Account
from agreement_service.domain.banks.base import Bank as Bank
from agreement_service.domain.banks.base import OurNumber as OurNumber
from agreement_service.domain.banks.base import OurNumbersUsedUp as OurNumbersUsedUp
from servicekit import errors

BANKS: dict[str, base.Bank] = {
    module.BANK.code: module.BANK
    for module in (banco_do_brasil, santander, banrisul, caixa, bradesco, itau, sicredi, sicoob)
}


def of(code: str) -> base.Bank:
    """The bank of this code of three digits. Raises InvalidRequest naming those that are known."""
    try:
        return BANKS[code]
    except KeyError:
        known = ", ".join(f"{one.code} {one.name}" for one in BANKS.values())
        raise errors.invalid("bank", f"expected one of {known}") from None
