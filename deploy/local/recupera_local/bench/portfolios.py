"""Big portfolio files in seconds: layout portfolio-v1, every row good, all of it following from a seed.

Drawn column by column (numpy, Polars) instead of row by row as recupera_local.examples does: a million titles in a few
seconds. Synthetic: documents with right check digits, e-mail addresses at example.com, numbers drawn at random.
"""

import random
from pathlib import Path

import numpy as np
import polars as pl

from recupera_local import examples

FIRST_DAY = examples.FIRST_DAY
COLUMNS = (
    "creditor_reference", "creditor_name", "creditor_document", "creditor_address", "contract_reference", "product",
    "debtor_document", "debtor_name", "birth_date", "region", "city", "address", "phone_1", "phone_2", "email",
    "guarantor_document", "guarantor_name", "guarantor_phone", "title_reference", "title_type", "due_date", "principal",
    "currency", "penalty_rate", "monthly_interest_rate",
)  # fmt: skip
TITLES_OF_A_CASE = ((1, 2, 3, 4, 6), (0.24, 0.32, 0.25, 0.14, 0.05))
"""How many titles a case has, and how often: 2.5 on average, as in examples/portfolio.csv."""
NAMES = (
    "Ana", "Bruno", "Carla", "Daniel", "Elisa", "Fábio", "Gabriela", "Hugo", "Inês", "João", "Karina", "Luís",
    "Mariana", "Nuno", "Olívia", "Paulo", "Raquel", "Sérgio", "Tânia", "Vítor",
)  # fmt: skip
FAMILIES = (
    "Almeida", "Barbosa", "Cardoso", "Duarte", "Esteves", "Ferreira", "Gonçalves", "Henriques", "Machado", "Nogueira",
    "Oliveira", "Pereira", "Queiroz", "Ribeiro", "Santos", "Teixeira", "Vieira",
)  # fmt: skip
_PRIME = 618_970_019
_CPF_BASES = 899_999_963  # a prime: multiplying modulo it gives every debtor another document


def write(file: Path, *, titles: int, seed: int, titles_of_a_case: int | None = None) -> int:
    """Write a file of exactly `titles` rows; the number of its cases. `titles_of_a_case` fixes what is drawn."""
    frame, cases = draw(titles=titles, seed=seed, titles_of_a_case=titles_of_a_case)
    file.parent.mkdir(parents=True, exist_ok=True)
    frame.write_csv(file, separator=";", line_terminator="\n", quote_style="necessary")
    return cases


def draw(*, titles: int, seed: int, titles_of_a_case: int | None = None) -> tuple[pl.DataFrame, int]:
    """The rows as text, columns as COLUMNS, and the number of cases."""
    rng = np.random.default_rng(seed)
    sizes, shares = TITLES_OF_A_CASE
    if titles_of_a_case is None:
        drawn = rng.choice(np.array(sizes), p=shares, size=titles)
    else:
        drawn = np.full(titles, titles_of_a_case)
    cases = int(np.searchsorted(np.cumsum(drawn), titles)) + 1
    of_case = drawn[:cases]
    of_case[-1] -= of_case.sum() - titles
    debtors = _debtors(rng, cases, seed)
    case = np.repeat(np.arange(cases), of_case)
    number = np.arange(titles) - np.repeat(np.cumsum(of_case) - of_case, of_case)
    late = rng.integers(-5, 400, size=cases)[case] - 30 * number
    due = np.datetime64(FIRST_DAY, "D") - np.maximum(late, -5).astype("timedelta64[D]")
    minor = rng.integers(60_00, 2_400_00, size=titles)
    rows = pl.DataFrame({"case": case, "number": number, "due": due.astype("datetime64[ms]"), "minor": minor})
    rows = rows.join(debtors, on="case", how="left", maintain_order="left").with_columns(
        title_reference=pl.format("{}-{}", pl.col("contract_reference"), pl.col("number") + 1),
        due_date=pl.col("due").dt.strftime("%Y-%m-%d"),
        principal=pl.format(
            "{}.{}", pl.col("minor") // 100, (pl.col("minor") % 100).cast(pl.String).str.zfill(2)
        ),
    )
    return rows.select(COLUMNS), cases


def _debtors(rng: np.random.Generator, count: int, seed: int) -> pl.DataFrame:
    """A debtor with one contract a row."""
    index = np.arange(count)
    creditors = _creditors(seed)
    which = rng.choice(len(creditors), p=creditors["share"].to_numpy(), size=count)
    place = rng.integers(len(examples.PLACES), size=count)
    area = np.array([int(codes[0]) for _, _, codes in examples.PLACES])[place]
    born = np.datetime64("1950-01-01", "D") + rng.integers(55 * 365, size=count).astype("timedelta64[D]")
    drawn = pl.DataFrame(
        {
            "case": index,
            "creditor": which,
            "debtor_document": documents(index, seed),
            "first": rng.integers(len(NAMES), size=count),
            "family": rng.integers(len(FAMILIES), size=count),
            "born": born.astype("datetime64[ms]"),
            "place": place,
            "area": area,
            "phone": rng.integers(60_000_000, 100_000_000, size=count),
            "second": rng.integers(60_000_000, 100_000_000, size=count),
            "other": documents(index + 500_000_000, seed, companies=0.0),
            "draw": rng.random(count),
        }
    )
    names = pl.DataFrame({"first": range(len(NAMES)), "first_name": NAMES})
    families = pl.DataFrame({"family": range(len(FAMILIES)), "family_name": FAMILIES})
    places = pl.DataFrame(
        {
            "place": range(len(examples.PLACES)),
            "region": [region for region, _, _ in examples.PLACES],
            "city": [city for _, city, _ in examples.PLACES],
        }
    )
    keyed = {"case": pl.Int64}
    made = drawn.cast(keyed)  # type: ignore[arg-type]
    for name, words in (("first", names), ("family", families), ("place", places), ("creditor", creditors)):
        made = made.join(words.cast({name: pl.Int64}), on=name, how="left", maintain_order="left")
    person = pl.col("debtor_document").str.len_bytes() == 11
    guaranteed = person & (pl.col("draw") < 0.06)
    return made.with_columns(
        contract_reference=pl.format("{}{}", pl.col("prefix"), pl.col("case").cast(pl.String).str.zfill(7)),
        debtor_name=pl.format("{} {}", "first_name", "family_name"),
        birth_date=pl.when(person & (pl.col("draw") > 0.7)).then(pl.col("born").dt.strftime("%Y-%m-%d")),
        address=pl.when(pl.col("draw") < 0.2).then(
            pl.format("Rua {} {}", "family_name", pl.col("case") % 900 + 1)
        ),
        phone_1=pl.when(pl.col("draw") < 0.92).then(pl.format("+55{}9{}", "area", "phone")),
        phone_2=pl.when(pl.col("draw") < 0.10).then(pl.format("+55{}9{}", "area", "second")),
        email=pl.when(pl.col("draw") > 0.2).then(pl.format("debtor{}@example.com", "case")),
        guarantor_document=pl.when(guaranteed).then("other"),
        guarantor_name=pl.when(guaranteed).then(pl.format("Fiador {}", "family_name")),
        guarantor_phone=pl.when(guaranteed).then(pl.format("+55119{}", "second")),
    )


def _creditors(seed: int) -> pl.DataFrame:
    rng = random.Random(seed)
    return pl.DataFrame(
        [
            {
                "creditor": number,
                "creditor_reference": reference,
                "creditor_name": name,
                "creditor_document": examples.cnpj(rng, alphanumeric=number == 3),
                "creditor_address": "Av. Brasil 100, São Paulo",
                "prefix": reference[:3],
                "product": product,
                "title_type": kind,
                "currency": "BRL",
                "penalty_rate": "2",
                "monthly_interest_rate": "1",
                "share": share,
            }
            for number, (reference, name, product, kind, share) in enumerate(
                (
                    ("LUZNORTE", "Luz do Norte S.A.", "Energia", "INVOICE", 0.3),
                    ("COLEGIO1", "Colégio Março Ltda.", "Escola", "INSTALMENT", 0.25),
                    ("MOVEISBR", "Móveis Brasil Ltda.", "Crediário", "INSTALMENT", 0.25),
                    ("NOVAFIN", "Nova Financeira S.A.", "Crédito", "LOAN", 0.2),
                )
            )
        ]
    )


def documents(index: np.ndarray, seed: int, *, companies: float = 0.09) -> pl.Series:
    """A document for each index, different for different indices: CPF, or CNPJ for a share of them."""
    base = 100_000_000 + (index * _PRIME + seed) % _CPF_BASES
    repeated = (
        base % 111_111_111 == 0
    )  # one digit repeated is never issued; the last numbers are not drawn otherwise
    base = np.where(repeated, 999_999_963 + base // 111_111_111, base)
    cpf = _with_check_digits(base, 9, (tuple(range(10, 1, -1)), tuple(range(11, 1, -1))))
    root = (base % 100_000_000) * 10_000 + 1
    weights = (5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2)
    cnpj = _with_check_digits(root, 12, (weights, (6, *weights)))
    company = base < 100_000_000 + int(
        companies * _CPF_BASES
    )  # below 200,000,000 the last eight digits differ
    return (
        pl.DataFrame({"company": company, "cpf": cpf, "cnpj": cnpj})
        .select(
            pl.when("company")
            .then(pl.col("cnpj").cast(pl.String).str.zfill(14))
            .otherwise(pl.col("cpf").cast(pl.String).str.zfill(11))
        )
        .to_series()
    )


def _with_check_digits(base: np.ndarray, digits: int, weights: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """The numbers with two check digits modulo 11 appended (standards.md 4.5)."""
    for extra, row in enumerate(weights):
        total = np.zeros(len(base), dtype=np.int64)
        for place, weight in enumerate(row):
            total += base // 10 ** (digits + extra - 1 - place) % 10 * weight
        base = base * 10 + (11 - total % 11) % 11 % 10
    return base
