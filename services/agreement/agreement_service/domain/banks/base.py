"""What a bank's module says: lengths of an account's fields, our number with its check digit, the free field."""

import dataclasses
import datetime
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence

from servicekit import errors


class OurNumbersUsedUp(errors.ServiceError):
    """The account has no number left for another slip: the bank gives a new agreement or wallet."""

    status = errors.Status.RESOURCE_EXHAUSTED


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What identifies the payee at a bank, digits only and with leading zeros. `wallet` is the carteira (with the
    modality where the bank has one), `agreement` the convênio or the beneficiary's code; what a bank does not use is
    empty."""

    bank: str
    branch: str = ""
    account: str = ""
    wallet: str = ""
    agreement: str = ""

    @property
    def series_key(self) -> str:
        """Names the account among all that number slips."""
        parts = (self.bank, self.branch, self.account, self.wallet)
        return "/".join((*parts, self.agreement) if self.agreement else parts)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OurNumber:
    """Nosso número: `digits` is the key by which the bank knows the slip, `check` its check digits (a letter at some
    banks), `printed` how the bank wants it on paper."""

    digits: str
    check: str
    printed: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bank:
    """A bank's rules. `fields` names the account's fields that it uses with the lengths they may have; `wallets` those
    it takes (empty: any); `largest` is the last running number of an account; `series` what starts the numbering again
    (a year); `payee` the "Agência / Código do beneficiário" as printed."""

    code: str
    check_digit: str
    name: str
    fields: Mapping[str, Collection[int]]
    wallets: frozenset[str] = frozenset()
    largest: Callable[[Account], int]
    number: Callable[[Account, int, datetime.date], OurNumber]
    free_field: Callable[[Account, OurNumber], str]
    payee: Callable[[Account], str]
    series: Callable[[datetime.date], str] = lambda date: ""

    def violations(self, account: Account) -> list[errors.FieldViolation]:
        """What is wrong with an account's fields; empty when nothing is."""
        wrong = []
        for field in ("branch", "account", "wallet", "agreement"):
            value: str = getattr(account, field)
            lengths = sorted(self.fields.get(field, ()))
            if not lengths:
                if value:
                    wrong.append(errors.FieldViolation(field, f"{self.name} does not use it: leave it empty"))
            elif not value.isascii() or not value.isdigit() or len(value) not in lengths:
                allowed = " or ".join(map(str, lengths))
                wrong.append(errors.FieldViolation(field, f"expected {allowed} digits for {self.name}"))
            elif field == "wallet" and self.wallets and value not in self.wallets:
                allowed = ", ".join(sorted(self.wallets))
                wrong.append(errors.FieldViolation(field, f"expected one of {allowed} for {self.name}"))
        return wrong

    def our_number(self, account: Account, number: int, date: datetime.date) -> OurNumber:
        """The slip of running number `number` (from 1), issued on `date`. Raises InvalidRequest, OurNumbersUsedUp."""
        if wrong := self.violations(account):
            raise errors.InvalidRequest(fields=wrong)
        largest = self.largest(account)
        if not 0 < number <= largest:
            raise OurNumbersUsedUp("the account's numbers are used up", number=number, maximum=largest)
        return self.number(account, number, date)


def weigh(digits: str, weights: Sequence[int]) -> int:
    """Sum of the digits from the right times the weights, over and over."""
    return sum(
        int(digit) * weight for digit, weight in zip(reversed(digits), itertools.cycle(weights), strict=False)
    )


UP_TO_9 = (2, 3, 4, 5, 6, 7, 8, 9)
UP_TO_7 = (2, 3, 4, 5, 6, 7)


def mod11(digits: str, weights: Sequence[int], *, ten: str, eleven: str) -> str:
    """11 less the remainder of the weighed sum by 11; `ten` and `eleven` are what the bank writes for those."""
    check = 11 - weigh(digits, weights) % 11
    return {10: ten, 11: eleven}.get(check) or str(check)


def mod10(digits: str) -> int:
    """Check digit modulo 10: weights 2, 1 from the right, digit sum, 10 counts as 0."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        product = int(digit) * (2 - place % 2)
        total += product - 9 if product > 9 else product
    return -total % 10
