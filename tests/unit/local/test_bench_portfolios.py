"""The bench's portfolio files: every row good, whatever the size, and the same for the same seed."""

from pathlib import Path

import polars as pl
import pytest
import stdnum.br.cnpj
import stdnum.br.cpf

from import_service import domain
from recupera_local.bench import handmade, portfolios


@pytest.fixture(scope="module")
def drawn() -> tuple[pl.DataFrame, int]:
    return portfolios.draw(titles=5_000, seed=7)


def test_it_has_the_titles_asked_for_and_about_two_and_a_half_a_case(drawn: tuple[pl.DataFrame, int]) -> None:
    frame, cases = drawn
    assert frame.height == 5_000
    assert frame.select("contract_reference").n_unique() == cases
    assert 2.3 < frame.height / cases < 2.7
    assert frame.select("contract_reference", "title_reference").n_unique() == 5_000


def test_columns_are_those_of_the_layout_and_of_the_baselines_staging(
    drawn: tuple[pl.DataFrame, int],
) -> None:
    layout = {column.name for column in domain.LAYOUTS[domain.Kind.PORTFOLIO]}
    assert tuple(drawn[0].columns) == portfolios.COLUMNS
    assert set(portfolios.COLUMNS) <= layout
    assert {column.name for column in domain.LAYOUTS[domain.Kind.PORTFOLIO] if column.required} <= set(
        portfolios.COLUMNS
    )
    assert {"case", "agreement"} == {name.split(".")[0] for name in handmade.tables()}


def test_documents_have_right_check_digits_and_each_debtor_its_own(drawn: tuple[pl.DataFrame, int]) -> None:
    frame, cases = drawn
    documents = frame["debtor_document"].unique()
    assert len(documents) == cases
    people = [document for document in documents if len(document) == 11]
    companies = [document for document in documents if len(document) == 14]
    assert all(stdnum.br.cpf.is_valid(document) for document in people)
    assert all(stdnum.br.cnpj.is_valid(document) for document in companies)
    assert 0.04 < len(companies) / cases < 0.14
    guarantors = frame["guarantor_document"].drop_nulls().unique()
    assert all(stdnum.br.cpf.is_valid(document) for document in guarantors)
    assert not set(guarantors) & set(documents)


def test_a_million_documents_are_different_and_none_repeats_one_digit() -> None:
    documents = portfolios.documents(pl.int_range(1_000_000, eager=True).to_numpy(), 3)
    assert documents.n_unique() == 1_000_000
    repeated = [str(digit) * 11 for digit in range(10)]
    assert not documents.is_in(repeated).any()


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        portfolios.write(tmp_path / name, titles=300, seed=seed)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_the_number_of_titles_of_a_case_can_be_fixed() -> None:
    frame, cases = portfolios.draw(titles=400, seed=1, titles_of_a_case=1)
    assert (frame.height, cases) == (400, 400)
