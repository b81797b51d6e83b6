"""Collection accounts: where the money of a creditor's slips, Pix codes, references and direct debits goes (S5-26)."""

import dataclasses
import re
import uuid

from stdnum import iban as ibans
from stdnum.eu import at_02

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
    """An account at a bank and the means that pay into it; what it cannot take is empty.

    `beneficiary_name` is a company's name, printed on slips with the creditor's document, which is fetched at the
    moment of printing. `id` is None for the account that the provider brings itself (development, tests, the demo).
    """

    id: uuid.UUID | None = None
    bank: str = ""
    beneficiary_name: str
    payable_days: int = PAYABLE_DAYS
    pix_key: str = ""
    pix_name: str = ""
    pix_city: str = ""
    multibanco_entity: str = ""
    sepa_creditor_id: str = ""
    iban: str = ""

    def check(self, *, currency: str) -> list[errors.FieldViolation]:
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
            "payable_days", 0 <= self.payable_days <= MAX_PAYABLE_DAYS, f"expected 0 to {MAX_PAYABLE_DAYS}"
        )
        brazilian, european = ("bank", "pix_key"), ("multibanco_entity", "iban", "sepa_creditor_id")
        own, foreign = (brazilian, european) if currency == "BRL" else (european, brazilian)
        for field in foreign:
            expect(field, not getattr(self, field), f"expected none for an account in {currency}")
        expect(own[0], any(getattr(self, field) for field in own), f"expected one of {', '.join(own)}")
        if self.bank:
            try:
                wrong += banks.of(self.bank).violations(self)
            except errors.InvalidRequest as error:
                wrong += error.fields
        else:
            for field in ("branch", "account", "wallet", "agreement"):
                expect(field, not getattr(self, field), "expected none without a bank")
        if self.pix_key:
            expect(
                "pix_key",
                len(self.pix_key) <= MAX_KEY and self.pix_key.isascii() and self.pix_key.isprintable(),
                f"expected at most {MAX_KEY} printable characters",
            )
            for field, value, length in (
                ("pix_name", self.pix_name, pix.MAX_NAME),
                ("pix_city", self.pix_city, pix.MAX_CITY),
            ):
                expect(
                    field, bool(pix.plain(value, length)), f"expected 1 to {length} letters without accents"
                )
        if self.multibanco_entity:
            expect(
                "multibanco_entity",
                bool(re.fullmatch(r"[0-9]{5}", self.multibanco_entity)),
                "expected 5 digits",
            )
        if self.iban:
            expect("iban", bool(ibans.is_valid(self.iban)), "expected a valid IBAN")
        if self.sepa_creditor_id:
            expect(
                "sepa_creditor_id", bool(at_02.is_valid(self.sepa_creditor_id)), "expected a valid identifier"
            )
            expect("iban", bool(self.iban), "expected the account that is credited")
        return wrong
