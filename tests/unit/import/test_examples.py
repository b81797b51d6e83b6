"""The committed examples: the generator gives them again, byte for byte, and they hold what they should."""

from __future__ import annotations

import collections
import datetime
import re
from pathlib import Path

import pytest

from import_service import domain
from recupera_local import examples, paths
from support import portfolio

FOLDER = paths.REPO / "examples"
pytestmark = pytest.mark.feature("S2-41")


def test_the_generator_gives_the_committed_files(tmp_path: Path) -> None:
    for path in examples.make(tmp_path):
        assert path.read_bytes() == (FOLDER / path.name).read_bytes(), path.name
        assert path.stat().st_size < 1_000_000


def test_the_portfolio() -> None:
    found = portfolio.read((FOLDER / "portfolio.csv").read_bytes())
    assert found.rows_read > 4_400
    assert 0.015 < found.rows_rejected / found.rows_read < 0.025
    assert found.good["debtor_document"].n_unique() > 1_900
    late = [(examples.FIRST_DAY - due).days for due in found.good["due_date"]]
    assert min(late) >= -5
    assert max(late) <= 400
    codes = collections.Counter(code for _, _, code in found.rejects)
    assert set(codes) == {
        "DOCUMENT_CHECK_DIGIT", "IMPOSSIBLE_DATE", "AMOUNT_NOT_POSITIVE", "MISSING", "UNKNOWN_CURRENCY",
        "AMOUNT_FORMAT", "FORMULA", "DUPLICATE_IN_FILE", "EMAIL_FORMAT", "PHONE_INVALID",
    }  # fmt: skip
    assert set(found.good["currency"]) == {"BRL", "EUR"}
    assert set(found.good["debtor_document_type"]) == {"CPF", "CNPJ", "NIF"}
    assert any(re.search("[A-Z]", document) for document in found.good["debtor_document"])
    assert all(email is None or email.endswith("@example.com") for email in found.good["email"])
    assert found.good["guarantor_document"].null_count() < found.good.height


@pytest.mark.parametrize("day", examples.PAYMENT_DAYS)
def test_the_payments(day: datetime.date) -> None:
    content = (FOLDER / f"payments-{day}.csv").read_bytes()
    found = portfolio.read(content, kind=domain.Kind.PAYMENTS, business_date=day)
    assert found.good.height > 90
    assert found.rows_rejected == 5
    titles = set(portfolio.read((FOLDER / "portfolio.csv").read_bytes()).good["title_reference"])
    unknown = [title for title in found.good["title_reference"] if title not in titles]
    assert 0 < len(unknown) < 10
