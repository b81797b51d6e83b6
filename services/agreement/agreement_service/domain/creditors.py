"""What a creditor allows in agreements (features S1-25..29), with the house's defaults where it says nothing."""

import dataclasses
import enum
from collections.abc import Sequence

from servicekit import errors, money

MEANS = frozenset({"BOLETO", "PIX", "TRANSFER", "MULTIBANCO", "SEPA_DD", "CARD", "CHEQUE", "CASH"})


class BreachPolicy(enum.StrEnum):
    """What becomes of a novation when its agreement is broken (S5-04)."""

    RESTORE_ORIGINALS = "RESTORE_ORIGINALS"
    KEEP_NOVATION = "KEEP_NOVATION"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """A least amount: minor units, or percent times 10 000 of what it is measured against; zero for none. When both are
    given, the greater counts."""

    minor: int = 0
    rate_e4: int = 0

    def of(self, base_minor: int) -> int:
        """The least amount for a base, minor units, a part of a cent rounded up (a floor may not be undercut)."""
        return max(self.minor, -(-base_minor * self.rate_e4 // money.RATE_UNIT))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CreditorSettings:
    """One creditor's settings. Rates in percent times 10 000; days are calendar days."""

    minimum_down_payment: Floor = Floor()
    maximum_instalments: int = 360
    minimum_instalment: Floor = Floor()
    charge_interest: bool = True
    default_interest: bool = True
    remunerative_interest: bool = True
    annual_rate_e4: int = 0
    confession_required: bool = False
    notice_days: int = 3
    missed_days: int = 1
    broken_days: int = 10
    validity_days: int = 5
    accepted_means: frozenset[str] = MEANS
    breach_policy: BreachPolicy = BreachPolicy.RESTORE_ORIGINALS
    novation_prefix: str = "REN"

    def check(self) -> Sequence[errors.FieldViolation]:
        """What is wrong with it; empty when nothing is."""
        wrong = []

        def within(field: str, value: int, low: int, high: int) -> None:
            if not low <= value <= high:
                wrong.append(errors.FieldViolation(field, f"expected {low} to {high}"))

        for field in ("minimum_down_payment", "minimum_instalment"):
            floor: Floor = getattr(self, field)
            within(f"{field}.minor", floor.minor, 0, 10**15)
            within(f"{field}.rate_e4", floor.rate_e4, 0, money.RATE_UNIT)
        within("maximum_instalments", self.maximum_instalments, 1, 360)
        within("annual_rate_e4", self.annual_rate_e4, 0, 10_000_000)
        within("notice_days", self.notice_days, 0, 365)
        within("missed_days", self.missed_days, 1, 365)
        within("broken_days", self.broken_days, self.missed_days, 365)
        within("validity_days", self.validity_days, 1, 365)
        if not self.accepted_means or self.accepted_means - MEANS:
            wrong.append(
                errors.FieldViolation("accepted_means", f"expected some of {', '.join(sorted(MEANS))}")
            )
        if not self.novation_prefix.isalnum() or not self.novation_prefix.isascii():
            wrong.append(errors.FieldViolation("novation_prefix", "expected letters and digits"))
        elif len(self.novation_prefix) > 10:
            wrong.append(errors.FieldViolation("novation_prefix", "expected at most 10 characters"))
        return wrong


DEFAULTS = CreditorSettings()
