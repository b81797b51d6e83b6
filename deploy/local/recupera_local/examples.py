"""Makes the files under examples/: a portfolio and the payment files of three later business dates.

`python -m recupera_local.examples [--folder examples] [--debtors 2000] [--seed 20261123]`. Everything is synthetic and
follows from the seed: names by Faker (pt_BR, pt_PT), documents with right check digits, e-mail addresses at
example.com, telephone numbers drawn at random in valid plans. About 2 % of the rows are broken the way real files are.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import random
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path

from faker import Faker

SEED = 20_261_123
FIRST_DAY = date(2026, 11, 23)
"""The demo's first business date, a Monday."""
PAYMENT_DAYS = (date(2026, 11, 25), date(2026, 11, 27), date(2026, 12, 1))

PORTFOLIO_COLUMNS = (
    "creditor_reference", "creditor_name", "creditor_document", "creditor_address",
    "contract_reference", "product", "debtor_document", "debtor_name", "birth_date", "region",
    "city", "address", "phone_1", "phone_2", "email", "guarantor_document", "guarantor_name",
    "guarantor_phone", "title_reference", "title_type", "due_date", "principal", "currency",
    "penalty_rate", "monthly_interest_rate",
)  # fmt: skip
"""Those that a file must have and some of the others: an optional column may be left out."""
PAYMENT_COLUMNS = (
    "creditor_reference", "account", "means", "bank_reference", "value_date", "amount", "currency",
    "txid", "our_number", "title_reference", "contract_reference", "payer_document",
)  # fmt: skip

PLACES = (
    ("SP", "São Paulo", ("11",)), ("SP", "Campinas", ("19",)), ("RJ", "Rio de Janeiro", ("21",)),
    ("MG", "Belo Horizonte", ("31",)), ("RS", "Porto Alegre", ("51",)), ("PR", "Curitiba", ("41",)),
    ("BA", "Salvador", ("71",)), ("PE", "Recife", ("81",)), ("CE", "Fortaleza", ("85",)),
    ("GO", "Goiânia", ("62",)), ("SC", "Florianópolis", ("48",)), ("AM", "Manaus", ("92",)),
)  # fmt: skip
PT_CITIES = ("Lisboa", "Porto", "Braga", "Coimbra", "Faro")
LETTERS = "0123456789ABCDEFGHJKLMNPQRSTUVWXYZ"


@dataclasses.dataclass(frozen=True)
class Creditor:
    """Who hands over debts. `share`: weight among debtors. Terms in percent as the file writes them."""

    reference: str
    name: str
    document: str
    address: str
    currency: str
    product: str
    title_type: str
    penalty: str
    interest: str
    low: int
    high: int
    share: int


def _mod11(characters: str, weights: Sequence[int]) -> str:
    total = sum((ord(character) - 48) * weight for character, weight in zip(characters, weights, strict=True))
    return str((11 - total % 11) % 11 % 10)


def cpf(rng: random.Random) -> str:
    """A CPF with right check digits, 11 digits."""
    base = f"{rng.randrange(10_000_000, 999_999_999):09d}"
    base += _mod11(base, range(10, 1, -1))
    return base + _mod11(base, range(11, 1, -1))


def cnpj(rng: random.Random, *, alphanumeric: bool) -> str:
    """A CNPJ with right check digits, 14 characters; alphanumeric as registered since July 2026."""
    root = "".join(rng.choices(LETTERS if alphanumeric else "0123456789", k=8))
    base = root + "0001"
    weights = [5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2]
    base += _mod11(base, weights)
    return base + _mod11(base, [6, *weights])


def nif(rng: random.Random, *, company: bool) -> str:
    """A Portuguese NIF with right check digit, 9 digits."""
    base = ("5" if company else rng.choice("12")) + f"{rng.randrange(10_000_000):07d}"
    return base + _mod11(base, range(9, 1, -1))


def _creditors(rng: random.Random) -> tuple[Creditor, ...]:
    def br(
        reference: str, name: str, address: str, product: str, kind: str, low: int, high: int, share: int
    ) -> Creditor:
        return Creditor(
            reference, name, cnpj(rng, alphanumeric=reference == "NOVAFIN"), address, "BRL", product, kind,
            "2", "1", low, high, share,
        )  # fmt: skip

    return (
        br("LUZNORTE", "Luz do Norte S.A.", "Av. Brasil 100, SP", "Energia", "INVOICE", 60_00, 900_00, 30),
        br("COLEGIO1", "Colégio Março Ltda.", "Rua A 45, Campinas", "Escola", "INSTALMENT", 400_00, 2_400_00, 22),
        br("MOVEISBR", "Móveis Brasil Ltda.", "Rua B 810, Curitiba", "Crediário", "INSTALMENT", 120_00, 1_500_00, 25),
        br("NOVAFIN", "Nova Financeira S.A.", "Av. Paulista 2000, SP", "Crédito", "LOAN", 300_00, 6_000_00, 17),
        Creditor(
            "AGUASPT", "Águas do Litoral S.A.", nif(rng, company=True), "Rua C 12, Porto", "EUR",
            "Água", "INVOICE", "0", "0,33", 20_00, 350_00, 6,
        ),
    )  # fmt: skip


def _money(minor: int, rng: random.Random | None = None) -> str:
    """1.234,50, the dots left out in most rows, as files of several systems put together look."""
    whole, cents = divmod(minor, 100)
    text = f"{whole:,}".replace(",", ".") if rng is None or rng.random() < 0.3 else str(whole)
    return f"{text},{cents:02d}"


def _day(value: date, rng: random.Random) -> str:
    return value.isoformat() if rng.random() < 0.5 else f"{value:%d/%m/%Y}"


def _days_late(rng: random.Random) -> int:
    """-5 to 400 days past due on the first business date, most of them early."""
    band = rng.choices(
        ((-5, 0), (1, 15), (16, 45), (46, 90), (91, 180), (181, 400)), (6, 24, 26, 18, 14, 12)
    )[0]
    return rng.randint(*band)


def _phone_br(rng: random.Random, codes: Sequence[str]) -> str:
    number = f"9{rng.randrange(60_000_000, 99_999_999)}"
    code = rng.choice(list(codes))
    return rng.choice((f"({code}) {number[:5]}-{number[5:]}", f"+55{code}{number}", f"{code}{number}"))


def _ascii(text: str) -> str:
    plain = text.lower().translate(str.maketrans("áàâãéêíóôõúüçñ", "aaaaeeiooouucn"))
    return "".join(character if character.isalnum() and character.isascii() else "." for character in plain)


class Generator:
    """Draws one portfolio; `rows` are dictionaries of text as the file has them."""

    def __init__(self, seed: int, debtors: int) -> None:
        self.rng = random.Random(seed)
        self.debtors = debtors
        self.br, self.pt = Faker("pt_BR"), Faker("pt_PT")
        self.br.seed_instance(seed)
        self.pt.seed_instance(seed)
        self.creditors = _creditors(self.rng)
        self.rows: list[dict[str, str]] = []
        self.minor: dict[int, int] = {}
        self._good: list[tuple[dict[str, str], int]] = []

    def portfolio(self) -> list[dict[str, str]]:
        """All rows, broken ones among them."""
        for number in range(1, self.debtors + 1):
            self._debtor(number)
        self._break()
        return self.rows

    def _debtor(self, number: int) -> None:
        rng = self.rng
        creditor = rng.choices(self.creditors, [one.share for one in self.creditors])[0]
        person = self._person(number, creditor)
        for contract in range(1, 2 + (rng.random() < 0.06)):
            titles = rng.choices((1, 2, 3, 4, 6), (24, 32, 25, 14, 5))[0]
            late = max(_days_late(rng), 30 * (titles - 1) - 5 if rng.random() < 0.6 else -5)
            principal = rng.randrange(creditor.low, creditor.high)
            for title in range(titles):
                days = late - 30 * title
                if days < -5:
                    break
                self._title(creditor, person, number, contract, title, days, principal)

    def _person(self, number: int, creditor: Creditor) -> dict[str, str]:
        rng = self.rng
        if creditor.currency == "EUR":
            name, document, kind = self.pt.name(), nif(rng, company=False), "NIF"
            phone = f"9{rng.choice('1236')}{rng.randrange(10_000_000):07d}"
            place = {
                "region": "", "city": rng.choice(PT_CITIES), "address": "",
                "phone_1": rng.choice((phone, f"+351 {phone}")), "phone_2": "",
            }  # fmt: skip
        else:
            company = rng.random() < 0.09
            if company:
                name, document, kind = self.br.company(), cnpj(rng, alphanumeric=rng.random() < 0.4), "CNPJ"
            else:
                name, document, kind = self.br.name(), cpf(rng), "CPF"
            region, city, codes = rng.choice(PLACES)
            place = {
                "region": region, "city": city, "address": self.br.street_address() if rng.random() < 0.2 else "",
                "phone_1": _phone_br(rng, codes) if rng.random() < 0.92 else "",
                "phone_2": _phone_br(rng, codes) if rng.random() < 0.1 else "",
            }  # fmt: skip
        birth = date(1950, 1, 1) + timedelta(days=rng.randrange(55 * 365))
        person = {
            "debtor_document": _punctuated(document, kind) if rng.random() < 0.3 else document,
            "debtor_name": name,
            "birth_date": "" if kind == "CNPJ" or rng.random() < 0.7 else _day(birth, rng),
            **place,
            "email": f"{_ascii(name.split()[0])}{number}@example.com" if rng.random() < 0.8 else "",
        }
        if kind == "CPF" and rng.random() < 0.06:
            other = self.br.name()
            person |= {
                "guarantor_document": cpf(rng),
                "guarantor_name": other,
                "guarantor_phone": _phone_br(rng, ("11", "21", "31")),
            }
        return person

    def _title(
        self,
        creditor: Creditor,
        person: dict[str, str],
        number: int,
        contract: int,
        title: int,
        days: int,
        principal: int,
    ) -> None:
        rng = self.rng
        due = FIRST_DAY - timedelta(days=days)
        minor = principal if creditor.title_type != "INVOICE" else rng.randrange(creditor.low, creditor.high)
        index = len(self.rows)
        self.minor[index] = minor
        self.rows.append(
            {
                "creditor_reference": creditor.reference,
                "creditor_name": creditor.name,
                "creditor_document": creditor.document,
                "creditor_address": creditor.address,
                "contract_reference": f"{creditor.reference[:3]}{number:05d}-{contract}",
                "product": creditor.product,
                **person,
                "title_reference": f"{number:05d}-{contract}{title + 1:02d}",
                "title_type": creditor.title_type,
                "due_date": _day(due, rng),
                "principal": _money(minor, rng),
                "currency": creditor.currency,
                "penalty_rate": creditor.penalty,
                "monthly_interest_rate": creditor.interest,
            }
        )

    def _break(self) -> None:
        """About two rows of a hundred, each kind in turn; a broken row keeps its place."""
        rng = self.rng
        chosen = sorted(rng.sample(range(1, len(self.rows)), len(self.rows) // 50))
        copies: dict[int, dict[str, str]] = {}
        for turn, index in enumerate(chosen):
            kind = BREAKS[turn % len(BREAKS)]
            if kind is None:
                # two rows further down, so that the first one is good and this one is the duplicate
                copies[min(index + 2, len(self.rows))] = dict(self.rows[index])
            else:
                kind(self.rows[index])
                self.minor.pop(index)
        self._good = [(self.rows[index], minor) for index, minor in sorted(self.minor.items())]
        found: list[dict[str, str]] = []
        for index, row in enumerate(self.rows):
            if index in copies:
                found.append(copies.pop(index))
            found.append(row)
        self.rows = [*found, *copies.values()]

    def good(self) -> list[tuple[dict[str, str], int]]:
        """Rows as the import takes them, with their amounts in minor units."""
        return self._good


def _set(name: str, change: Callable[[str], str]) -> Callable[[dict[str, str]], None]:
    def broken(row: dict[str, str]) -> None:
        row[name] = change(row.get(name, ""))

    return broken


def _wrong_digit(document: str) -> str:
    return document[:-1] + str((int(document[-1]) + 1) % 10)


BREAKS: tuple[Callable[[dict[str, str]], None] | None, ...] = (
    _set("debtor_document", _wrong_digit),
    _set("due_date", lambda _: "31/02/2026"),
    _set("principal", lambda text: "-" + text),
    _set("title_reference", lambda _: ""),
    _set("currency", lambda _: "XYZ"),
    _set("principal", lambda text: text.replace(",", ",,") + "x"),
    _set("debtor_name", lambda text: f'=HYPERLINK("http://example.com","{text}")'),
    None,  # the same title again
    _set("email", lambda text: text.replace("@", " at ") or "sem email"),
    _set("phone_1", lambda _: "123"),
    _set("contract_reference", lambda _: ""),
    _set("due_date", lambda _: "2026-13-05"),
)


def _punctuated(document: str, kind: str) -> str:
    if kind == "CPF":
        return f"{document[:3]}.{document[3:6]}.{document[6:9]}-{document[9:]}"
    if kind == "CNPJ":
        return f"{document[:2]}.{document[2:5]}.{document[5:8]}/{document[8:12]}-{document[12:]}"
    return document


def payments(generator: Generator) -> dict[date, list[dict[str, str]]]:
    """Payment rows by business date: whole and partial payments of titles that are due, some overpaid, some that name
    nothing known, one credit told twice, a few broken rows."""
    rng = generator.rng
    known = [(row, minor) for row, minor in generator.good() if _due(row) <= FIRST_DAY]
    rng.shuffle(known)
    whole = min(90, len(known) // len(PAYMENT_DAYS) - 6)
    made: dict[date, list[dict[str, str]]] = {}
    at = 0
    for day_number, day in enumerate(PAYMENT_DAYS):
        rows = []
        for number in range(1, whole + 1):
            row, minor = known[at]
            at += 1
            draw = rng.random()
            part = 100 if draw < 0.62 else rng.randint(20, 80) if draw < 0.86 else rng.randint(103, 130)
            rows.append(_payment(rng, day, number, row, minor * part // 100))
        for number in range(whole + 1, whole + 7):  # nobody knows what they are for
            row, minor = known[at]
            at += 1
            stray = _payment(rng, day, number, row, minor)
            stray |= {"title_reference": "", "contract_reference": "", "payer_document": ""}
            if number % 2:
                stray["title_reference"] = f"DESCONHECIDO-{number}"
            rows.append(stray)
        if day_number == 0:
            rows.append(dict(rows[3]))  # the same credit twice in one file
        else:
            rows.append(dict(made[PAYMENT_DAYS[day_number - 1]][7]))  # and in the next day's file again
        broken = [dict(row) for row in rows[10:15]]
        for index, (row, change) in enumerate(zip(broken, PAYMENT_BREAKS, strict=True)):
            row["bank_reference"] += f"X{index}"
            change(row)
        rows[40:40] = broken
        made[day] = rows
    return made


PAYMENT_BREAKS: tuple[Callable[[dict[str, str]], None], ...] = (
    _set("amount", lambda text: "-" + text),
    _set("value_date", lambda _: "2026-11-31"),
    _set("currency", lambda _: "REAL"),
    _set("bank_reference", lambda _: ""),
    _set("amount", lambda _: "R$ 1O0,00"),
)


def _due(row: dict[str, str]) -> date:
    text = row["due_date"]
    return date.fromisoformat(text) if "-" in text else date(int(text[6:]), int(text[3:5]), int(text[:2]))


def _payment(rng: random.Random, day: date, number: int, row: dict[str, str], minor: int) -> dict[str, str]:
    euro = row["currency"] == "EUR"
    means = (
        rng.choice(("TRANSFER", "MULTIBANCO"))
        if euro
        else rng.choices(("PIX", "BOLETO", "TRANSFER"), (6, 3, 1))[0]
    )
    document = "".join(character for character in row["debtor_document"] if character.isalnum())
    return {
        "creditor_reference": row["creditor_reference"],
        "account": "PT-0001-000123456" if euro else "001-4321-0012345",
        "means": means,
        "bank_reference": f"E{rng.randrange(10**8):08d}{day:%Y%m%d}{number:04d}",
        "value_date": _day(day, rng),
        "amount": _money(minor),
        "currency": row["currency"],
        "txid": "",
        "our_number": "",
        "title_reference": row["title_reference"],
        "contract_reference": row["contract_reference"],
        "payer_document": document if rng.random() < 0.8 else "",
    }


def write(path: Path, columns: Sequence[str], rows: Sequence[dict[str, str]]) -> None:
    """UTF-8, `;`, line ends of one byte: the same bytes on every machine."""
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, columns, restval="", delimiter=";", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def make(folder: Path, *, debtors: int = 2_000, seed: int = SEED) -> list[Path]:
    """Write the files; returns their paths, the portfolio first."""
    generator = Generator(seed, debtors)
    portfolio = folder / "portfolio.csv"
    write(portfolio, PORTFOLIO_COLUMNS, generator.portfolio())
    paths = [portfolio]
    for day, rows in payments(generator).items():
        paths.append(folder / f"payments-{day}.csv")
        write(paths[-1], PAYMENT_COLUMNS, rows)
    return paths


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("examples"))
    parser.add_argument("--debtors", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for path in make(given.folder, debtors=given.debtors, seed=given.seed):
        lines = path.read_bytes().count(b"\n")
        print(f"{path}: {lines - 1} rows, {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
