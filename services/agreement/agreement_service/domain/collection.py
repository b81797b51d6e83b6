"""Collection accounts in Brazil: where the money of a creditor's slips and Pix codes goes (S5-26)."""

import dataclasses
import uuid

from stdnum.br import cnpj

from agreement_service.domain import banks, pix
from agreement_service.domain.banks import base
from servicekit import errors

PAYABLE_DAYS = 30
"""Days after an instalment's due date in which the bank still takes its slip; the house's default."""
MAX_PAYABLE_DAYS = 365
MAX_NAME = 140
MAX_KEY = 77
"""Longest Pix key (BCB, Manual de Padrões para Iniciação do Pix)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CollectionAccount(base.Account):
    """An account in Brazil and the means that pay into it; what it cannot take is empty. Accounts in EUR are
    `domain.sepa`'s.

    `beneficiary_name` is a company's name and `beneficiary_document` its CNPJ, printed on slips (the creditor's,
    fetched at the moment of printing, where empty). `id` is None for the account that the provider brings itself
    (development, tests, the demo).
    """

    id: uuid.UUID | None = None
    bank: str = ""
    beneficiary_name: str
    beneficiary_document: str = ""
    payable_days: int = PAYABLE_DAYS
    pix_key: str = ""
    pix_name: str = ""
    pix_city: str = ""

    def check(self) -> list[errors.FieldViolation]:
        """What is wrong with it; empty when nothing is."""
        wrong: list[errors.FieldViolation] = []

        def expect(field: str, right: bool, text: str) -> None:
            if not right:
                wrong.append(errors.FieldViolation(field, text))

        expect(
            "beneficiary_name",
            bool(self.beneficiary_name.strip()) and len(self.beneficiary_name) <= MAX_NAME,
            f"expected 1 to {MAX_NAME} characters",
        )
        expect(
            "beneficiary_document",
            not self.beneficiary_document or bool(cnpj.is_valid(self.beneficiary_document)),
            "expected the CNPJ of a company",
        )
        expect(
            "payable_days", 0 <= self.payable_days <= MAX_PAYABLE_DAYS, f"expected 0 to {MAX_PAYABLE_DAYS}"
        )
        expect("bank", bool(self.bank or self.pix_key), "expected a bank, a Pix key or both")
        if self.bank:
            try:
                wrong += banks.of(self.bank).violations(self)
            except errors.InvalidRequest as error:
                wrong += error.fields
        else:
            for field in ("branch", "account", "wallet", "agreement"):
                expect(field, not getattr(self, field), "expected none without a bank")
        expect(
            "pix_key",
            len(self.pix_key) <= MAX_KEY and self.pix_key.isascii() and self.pix_key.isprintable(),
            f"expected at most {MAX_KEY} printable characters",
        )
        for field, value, length in (
            ("pix_name", self.pix_name, pix.MAX_NAME),
            ("pix_city", self.pix_city, pix.MAX_CITY),
        ):
            if self.pix_key:
                expect(
                    field, 0 < len(pix.plain(value, MAX_NAME)) <= length, f"expected 1 to {length} characters"
                )
            else:
                expect(field, not value, "expected none without a Pix key")
        return wrong
