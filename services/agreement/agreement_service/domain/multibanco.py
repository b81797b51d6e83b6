"""Multibanco: entity, reference and amount that a Portuguese debtor types at a cash machine (standards.md 4.6).

The last two digits of the reference bind entity, number and amount (ISO 7064 MOD 97-10, which SIBS states as weights
51, 73, 17, ..): another amount is refused by the machine. Such a reference never expires and can be paid again, so a
second payment is money to give back, not an error.
"""

import dataclasses
import re

from stdnum.iso7064 import mod_97_10

from servicekit import errors, money

MAX_AMOUNT_MINOR = 99_999_999
"""999,999.99 EUR: eight digits of cents."""
NUMBERS = 10_000_000
"""Different numbers (the first seven digits of a reference) of an entity."""


class ReferenceMalformed(errors.ServiceError):
    """Entity, number or amount that make no reference, or a reference whose check digits are wrong."""

    status = errors.Status.INVALID_ARGUMENT


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What is typed: five digits of entity, nine of reference, the amount in cents of EUR."""

    entity: str
    reference: str
    amount_minor: int

    @property
    def key(self) -> str:
        """Entity and reference, 14 digits: by this a payment is found."""
        return self.entity + self.reference

    @property
    def printed(self) -> tuple[tuple[str, str], tuple[str, str], tuple[str, str]]:
        """Labels and values as a debtor reads them: Entidade, Referência in threes, Valor."""
        amount = f"{money.from_minor(self.amount_minor):,.2f}".translate(str.maketrans(",.", ".,"))
        return (
            ("Entidade", self.entity),
            ("Referência", spaced(self.reference)),
            ("Valor", f"{amount} €"),
        )


def check_digits(*, entity: str, number: str, amount_minor: int) -> str:
    """Two digits over entity, the first seven digits of the reference and the amount in eight digits of cents.

    90150, 1231234, 432.11 gives 51. Raises ReferenceMalformed.
    """
    _check(entity, number, amount_minor)
    return str(mod_97_10.calc_check_digits(f"{entity}{number}{amount_minor:08d}"))


def make(*, entity: str, number: int, amount_minor: int) -> Reference:
    """The reference of a number (0 to 9,999,999) for an amount in cents. Raises ReferenceMalformed."""
    if not 0 <= number < NUMBERS:
        raise ReferenceMalformed("expected a number of at most seven digits", limit=NUMBERS - 1)
    digits = f"{number:07d}"
    check = check_digits(entity=entity, number=digits, amount_minor=amount_minor)
    return Reference(entity=entity, reference=digits + check, amount_minor=amount_minor)


def parse(*, entity: str, reference: str, amount_minor: int) -> Reference:
    """A reference as somebody wrote it (spaces allowed), with its check digits verified. Raises ReferenceMalformed."""
    digits = re.sub(r"\s", "", reference)
    if not re.fullmatch(r"[0-9]{9}", digits):
        raise ReferenceMalformed("expected nine digits")
    if check_digits(entity=entity, number=digits[:7], amount_minor=amount_minor) != digits[7:]:
        raise ReferenceMalformed("the check digits do not fit entity, number and amount")
    return Reference(entity=entity, reference=digits, amount_minor=amount_minor)


def spaced(reference: str) -> str:
    """Nine digits in threes: 123 123 451."""
    return " ".join(reference[place : place + 3] for place in range(0, len(reference), 3))


def _check(entity: str, number: str, amount_minor: int) -> None:
    if not re.fullmatch(r"[0-9]{5}", entity):
        raise ReferenceMalformed("expected an entity of five digits")
    if not re.fullmatch(r"[0-9]{7}", number):
        raise ReferenceMalformed("expected a number of seven digits")
    if not 0 < amount_minor <= MAX_AMOUNT_MINOR:
        raise ReferenceMalformed("expected an amount of 0.01 to 999999.99", limit=MAX_AMOUNT_MINOR)
