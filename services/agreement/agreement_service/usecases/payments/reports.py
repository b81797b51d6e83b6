"""What somebody says of a credit."""

import dataclasses
import datetime
import uuid

from agreement_service.domain import payments as rules
from servicekit import errors

Chosen = tuple[tuple[uuid.UUID, int], ...]
"""Titles and the most that each gets, minor units."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A credit as somebody reports it; `amount_minor` in `currency`. `batch_id` and `row`, or `caller`, say who.

    `unconfirmed`: a collector says so, the bank did not yet. `case_id` and `chosen`, by hand: whose titles take it,
    and which of them first.
    """

    creditor_reference: str
    account: str
    means: str
    bank_reference: str
    value_date: datetime.date
    amount_minor: int
    currency: str
    txid: str = ""
    our_number: str = ""
    title_reference: str = ""
    contract_reference: str = ""
    batch_id: uuid.UUID | None = None
    row: int | None = None
    caller: str = ""
    unconfirmed: bool = False
    case_id: uuid.UUID | None = None
    chosen: Chosen = ()

    @property
    def identity(self) -> rules.Identity:
        """What identifies the credit."""
        return self.creditor_reference, self.account, self.means, self.bank_reference

    @property
    def references(self) -> rules.References:
        """What it says about what it pays."""
        return rules.References(
            creditor_reference=self.creditor_reference,
            currency=self.currency,
            txid=self.txid,
            our_number=self.our_number,
            title_reference=self.title_reference,
            contract_reference=self.contract_reference,
        )

    def check(self) -> list[errors.FieldViolation]:
        """What is wrong with it."""
        return [
            *rules.check_report(
                creditor_reference=self.creditor_reference,
                account=self.account,
                means=self.means,
                bank_reference=self.bank_reference,
                amount_minor=self.amount_minor,
                currency=self.currency,
            ),
            *rules.check_chosen(self.chosen, amount_minor=self.amount_minor),
        ]
