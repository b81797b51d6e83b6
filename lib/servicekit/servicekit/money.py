"""Money: integer minor units with an ISO 4217 currency; Decimal inside formulas; half-up rounding; never
float.

BRL and EUR, both of two decimal places. Half-up is away from zero on a tie, on both sides: 0.005 -> 0.01,
-0.005 -> -0.01 (standards.md, worked-examples.md: "half-up to 2").
"""

import dataclasses
import decimal
import math
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

from google.type import money_pb2

from servicekit import errors

PLACES = 2
MINOR_PER_UNIT = 100
NANOS_PER_MINOR = 10_000_000
CURRENCIES = frozenset({"BRL", "EUR"})
MAX_MINOR = 2**63 - 1
"""Amounts are bigint columns."""

_CONTEXT = decimal.Context(prec=200, rounding=decimal.ROUND_HALF_UP)


class CurrencyMismatch(ValueError):
    """Amounts of two currencies were added or compared: a mistake in the program, never of the caller."""


@dataclasses.dataclass(frozen=True, slots=True)
class Money:
    """`minor` is in cents of `currency` (BRL centavos, EUR cents) and may be negative. Ordered within one
    currency.
    """

    minor: int
    currency: str

    def __post_init__(self) -> None:
        if self.currency not in CURRENCIES:
            raise ValueError(f"unknown currency {self.currency!r}")

    def __add__(self, other: "Money") -> "Money":
        return Money(self.minor + self._same(other), self.currency)

    def __sub__(self, other: "Money") -> "Money":
        return Money(self.minor - self._same(other), self.currency)

    def __neg__(self) -> "Money":
        return Money(-self.minor, self.currency)

    def __lt__(self, other: "Money") -> bool:
        return self.minor < self._same(other)

    def __le__(self, other: "Money") -> bool:
        return self.minor <= self._same(other)

    def __gt__(self, other: "Money") -> bool:
        return self.minor > self._same(other)

    def __ge__(self, other: "Money") -> bool:
        return self.minor >= self._same(other)

    def __bool__(self) -> bool:
        return self.minor != 0

    def __str__(self) -> str:
        """`BRL 1234.50`: for logs and errors; people are shown amounts through babel."""
        return f"{self.currency} {from_minor(self.minor)}"

    def _same(self, other: "Money") -> int:
        if self.currency != other.currency:
            raise CurrencyMismatch(f"{self.currency} and {other.currency}")
        return other.minor


RATE_UNIT = 1_000_000
"""A rate of 100 % as percent times 10 000."""


def half_up(numerator: int, denominator: int) -> int:
    """The quotient of two non-negative integers, rounded half-up; exact."""
    return (2 * numerator + denominator) // (2 * denominator)


def round_half_up(value: Decimal, places: int = PLACES) -> Decimal:
    """`value` rounded to `places` decimals, a tie away from zero. Exact for any length of `value` up to 200
    digits.
    """
    return value.quantize(Decimal(1).scaleb(-places), context=_CONTEXT)


def to_minor(value: Decimal) -> int:
    """Units to minor units, rounded half-up: Decimal("10.005") -> 1001."""
    return int(round_half_up(value, PLACES).scaleb(PLACES, context=_CONTEXT))


def from_minor(minor: int) -> Decimal:
    """Minor units to units with two decimals: 1001 -> Decimal("10.01")."""
    return Decimal(minor).scaleb(-PLACES, context=_CONTEXT)


def to_proto(value: Money) -> money_pb2.Money:
    """google.type.Money: units and nanos, both of the amount's sign."""
    units, cents = divmod(abs(value.minor), MINOR_PER_UNIT)
    sign = -1 if value.minor < 0 else 1
    return money_pb2.Money(
        currency_code=value.currency, units=sign * units, nanos=sign * cents * NANOS_PER_MINOR
    )


def from_proto(message: money_pb2.Money, field: str) -> Money:
    """Read `message`, found at path `field` of a request.

    Raises InvalidRequest on an unknown currency, nanos out of range, of another sign than units, or finer
    than a cent, and on an amount that does not fit 64 bits of minor units.
    """
    if message.currency_code not in CURRENCIES:
        raise errors.invalid(f"{field}.currency_code", f"expected one of {', '.join(sorted(CURRENCIES))}")
    units, nanos = message.units, message.nanos
    if not -1_000_000_000 < nanos < 1_000_000_000 or (units > 0 > nanos) or (units < 0 < nanos):
        raise errors.invalid(f"{field}.nanos", "expected -999999999 to 999999999, of the same sign as units")
    if nanos % NANOS_PER_MINOR:
        raise errors.invalid(f"{field}.nanos", "expected whole cents (a multiple of 10000000)")
    minor = units * MINOR_PER_UNIT + nanos // NANOS_PER_MINOR
    if abs(minor) > MAX_MINOR:
        raise errors.invalid(f"{field}.units", "the amount is too large")
    return Money(minor, message.currency_code)


def allocate(total_minor: int, weights: Sequence[int | Decimal]) -> list[int]:
    """Split `total_minor` in proportion to `weights` (>= 0) by largest remainder; the parts sum exactly.

    Each part is its exact share rounded down or up to a minor unit; leftover units go to the largest
    remainders, on a tie to the earlier weight. A negative total gives the negated parts. Raises ValueError
    without weights, on a negative one, and when all are zero while the total is not.
    """
    if total_minor < 0:
        return [-part for part in allocate(-total_minor, weights)]
    if any(weight < 0 for weight in weights):
        raise ValueError("a weight is negative")
    shares = [weight for weight in weights if isinstance(weight, int)]
    if len(shares) < len(weights):
        exact = [Fraction(weight) for weight in weights]
        unit = math.lcm(*(share.denominator for share in exact))
        shares = [int(share * unit) for share in exact]
    whole = sum(shares)
    if whole == 0:
        if total_minor or not shares:
            raise ValueError("nothing to allocate to: all weights are zero")
        return [0] * len(shares)
    parts: list[int] = []
    remainders: list[int] = []
    for share in shares:
        part, remainder = divmod(share * total_minor, whole)
        parts.append(part)
        remainders.append(remainder)
    left = total_minor - sum(parts)
    for index in sorted(range(len(parts)), key=lambda at: (-remainders[at], at))[:left]:
        parts[index] += 1
    return parts
