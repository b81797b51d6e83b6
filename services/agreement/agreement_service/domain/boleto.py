"""Boleto: barcode of 44 digits and typeable line (linha digitável) of 47 (standards.md 4.1, 4.2; S2-29, S5-26).

Amounts in centavos of BRL. FEBRABAN's layout; the free field (campo livre) is the bank's own: `domain.banks`.
"""

import dataclasses
import datetime
import re

from agreement_service.domain.banks import base
from servicekit import errors

FACTOR_BASE = datetime.date(1997, 10, 7)
WINDOW_BACK = datetime.timedelta(days=3000)
WINDOW_AHEAD = datetime.timedelta(days=5500)
MAX_AMOUNT_MINOR = 9_999_999_999
"""Ten digits of centavos."""


class SlipMalformed(errors.ServiceError):
    """Digits that are no barcode or typeable line: wrong length, character, check digit."""

    status = errors.Status.INVALID_ARGUMENT


class SlipOfCollection(errors.ServiceError):
    """A collection-tax slip (arrecadação: line of 48 digits or barcode of 44 beginning with 8): recognised, refused."""

    status = errors.Status.INVALID_ARGUMENT


class SlipDateOutOfWindow(errors.ServiceError):
    """The due-date factor gives no date within the banks' window (3000 days back, 5500 ahead)."""

    status = errors.Status.INVALID_ARGUMENT


def mod11(digits: str) -> int:
    """Check digit of a barcode: weights 2 to 9 from the right; 0, 10 and 11 become 1."""
    total = sum(int(digit) * (2 + place % 8) for place, digit in enumerate(reversed(digits)))
    check = 11 - total % 11
    return 1 if check in (0, 10, 11) else check


def due_factor(date: datetime.date) -> str:
    """Fator de vencimento, four digits: 2025-02-22 starts again at 1000 (standards.md 4.2)."""
    days = (date - FACTOR_BASE).days
    if days < 1000:
        raise SlipDateOutOfWindow("a slip's due date is 2000-07-03 or later", date=date)
    return str(days if days <= 9999 else (days - 10_000) % 9000 + 1000)


def date_of_factor(factor: str, *, today: datetime.date) -> datetime.date | None:
    """The due date inside the banks' window around `today`; None for 0000. Raises SlipDateOutOfWindow."""
    if factor == "0000":
        return None
    value = int(factor)
    earliest, latest = today - WINDOW_BACK, today + WINDOW_AHEAD
    if value >= 1000:
        cycle = -(-((earliest - FACTOR_BASE).days - value) // 9000)
        date = FACTOR_BASE + datetime.timedelta(days=value + 9000 * max(cycle, 0))
        if earliest <= date <= latest:
            return date
    raise SlipDateOutOfWindow(
        "the due-date factor gives no date in the banks' window", factor=factor, today=today
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Slip:
    """What a barcode says. `due_date` None: no due date; `amount_minor` 0: open amount."""

    bank: str
    due_date: datetime.date | None
    amount_minor: int
    free_field: str


def barcode(slip: Slip) -> str:
    """The 44 digits of a slip. Raises SlipMalformed, SlipDateOutOfWindow."""
    if not re.fullmatch(r"[0-9]{3}", slip.bank) or not re.fullmatch(r"[0-9]{25}", slip.free_field):
        raise SlipMalformed("expected a bank of 3 digits and a free field of 25")
    if not 0 <= slip.amount_minor <= MAX_AMOUNT_MINOR:
        raise SlipMalformed("the amount does not fit a slip", maximum_minor=MAX_AMOUNT_MINOR)
    factor = due_factor(slip.due_date) if slip.due_date is not None else "0000"
    head, tail = f"{slip.bank}9", f"{factor}{slip.amount_minor:010d}{slip.free_field}"
    return f"{head}{mod11(head + tail)}{tail}"


def typeable_line(code: str) -> str:
    """The line as printed: `AAAAA.AAAAA BBBBB.BBBBBB CCCCC.CCCCCC D FFFFVVVVVVVVVV`. Raises SlipMalformed."""
    code = check_barcode(code)
    first, second, third = code[:4] + code[19:24], code[24:34], code[34:44]
    first, second, third = (field + str(base.mod10(field)) for field in (first, second, third))
    return f"{first[:5]}.{first[5:]} {second[:5]}.{second[5:]} {third[:5]}.{third[5:]} {code[4]} {code[5:19]}"


def check_barcode(code: str) -> str:
    """The 44 digits, once they are right. Raises SlipMalformed, SlipOfCollection."""
    if re.fullmatch(r"8[0-9]{43}", code):
        raise SlipOfCollection("a collection-tax slip cannot be used here")
    if not re.fullmatch(r"[0-9]{44}", code):
        raise SlipMalformed("expected 44 digits", characters=len(code))
    if code[3] != "9":
        raise SlipMalformed("expected currency 9 (BRL)")
    if int(code[4]) != mod11(code[:4] + code[5:]):
        raise SlipMalformed("the barcode's check digit is wrong", block="4")
    return code


def barcode_of_line(line: str) -> str:
    """The 44 digits behind a typeable line, printed or bare; all four check digits are verified.

    Raises SlipMalformed (its `block` is the wrong one: 1 to 3, or 4 for the barcode's own), SlipOfCollection.
    """
    digits = re.sub(r"[ .\-]", "", line)
    if re.fullmatch(r"8[0-9]{47}", digits):
        raise SlipOfCollection("a collection-tax slip cannot be used here")
    if not re.fullmatch(r"[0-9]{47}", digits):
        raise SlipMalformed("expected 47 digits", characters=len(digits))
    first, second, third = digits[:10], digits[10:21], digits[21:32]
    for number, field in enumerate((first, second, third), 1):
        if int(field[-1]) != base.mod10(field[:-1]):
            raise SlipMalformed(f"the check digit of block {number} is wrong", block=str(number))
    return check_barcode(first[:4] + digits[32:] + first[4:9] + second[:-1] + third[:-1])


def decode(code: str, *, today: datetime.date) -> Slip:
    """What a barcode says, seen from `today`. Raises SlipMalformed, SlipOfCollection, SlipDateOutOfWindow."""
    code = check_barcode(code)
    return Slip(
        bank=code[:3],
        due_date=date_of_factor(code[5:9], today=today),
        amount_minor=int(code[9:19]),
        free_field=code[19:],
    )


_WIDE = ("00110", "10001", "01001", "11000", "00101", "10100", "01100", "00011", "10010", "01010")
"""Which of a digit's five elements are wide (interleaved 2 of 5, ISO/IEC 16390)."""


def bars(code: str) -> list[int]:
    """Widths of bars and spaces of a barcode, a bar first, in narrow elements: 1 or 3. 44 digits are 405 elements long,
    which at 103 mm makes a narrow one of 0.254 mm. Raises SlipMalformed."""
    code = check_barcode(code)
    widths = [1, 1, 1, 1]
    for first, second in zip(code[::2], code[1::2], strict=True):
        for bar, space in zip(_WIDE[int(first)], _WIDE[int(second)], strict=True):
            widths += [3 if bar == "1" else 1, 3 if space == "1" else 1]
    return [*widths, 3, 1, 1]
