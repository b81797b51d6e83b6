"""The second program: what must be open, counted again from the files, without the platform's code.

It reads the portfolio and payment files itself, takes from the platform only what cannot be known from outside
(which rows were refused, which agreements people made), and goes through the days with its own arithmetic (Decimal,
half-up). The demo compares the result with the platform's to the cent. Slow and plain on purpose: it is read when
the two differ.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import holidays

from recupera_local import gateway_client as gc

CENT = Decimal("0.01")
ORDER = ("penalty", "interest", "principal")
_COUNTRY = {"BRL": "BR", "EUR": "PT"}
_CALENDARS = {currency: holidays.country_holidays(country) for currency, country in _COUNTRY.items()}


@dataclasses.dataclass
class _Title:
    reference: str
    contract: str
    due: date
    currency: str
    penalty_rate: Decimal
    interest_rate: Decimal
    open: dict[str, Decimal]
    accrued_through: date
    penalty_charged: bool = False
    bound: bool = False

    def charge(self, day: date) -> None:
        """Penalty once and simple interest to `day`, unless paid by the first business day after a due date
        that is none."""
        if self.bound or not self.open["principal"] or day <= _business_day(self.due, self.currency):
            return
        if not self.penalty_charged and self.penalty_rate:
            added = _half_up(self.open["principal"] * self.penalty_rate / 100)
            self.open["penalty"] += added
            self.penalty_charged = added > 0
        days = max(0, (day - self.accrued_through).days)
        interest = _half_up(self.open["principal"] * self.interest_rate / 100 / 30 * days)
        if interest:
            self.open["interest"] += interest
            self.accrued_through = day

    def pay(self, amount: Decimal) -> Decimal:
        """Take from `amount` what is open, charges first; answers what is left of it."""
        for component in ORDER:
            part = min(amount, self.open[component])
            self.open[component] -= part
            amount -= part
        return amount

    def total(self) -> Decimal:
        return sum(self.open.values(), Decimal(0))


@dataclasses.dataclass
class _Row:
    due: date
    capital: Decimal
    interest: Decimal
    earned: bool = False
    paid_capital: Decimal = Decimal(0)
    paid_interest: Decimal = Decimal(0)

    def left(self) -> Decimal:
        return self.capital + self.interest - self.paid_capital - self.paid_interest


@dataclasses.dataclass
class _Payment:
    value_date: date
    identity: tuple[str, str, str, str]
    amount: Decimal
    title: str
    left: Decimal
    """What pays no debt: all of it until it is applied, then what is overpaid."""


@dataclasses.dataclass(frozen=True)
class Recounted:
    """Minor units: of each currency `placed`, `paid_in` and `open`; of each creditor and currency what paid debts."""

    currencies: dict[str, dict[str, int]]
    received: dict[tuple[str, str], int]


def recount(
    *,
    portfolio: Path,
    payment_files: Sequence[Path],
    gateway: gc.Gateway,
    as_of: date,
    batches: Sequence[str],
) -> Recounted:
    """All of it as of a date; `batches` are the files' batches in upload order."""
    refused: dict[str, set[int]] = {}
    for name in batches:
        batch = gateway.get(name)
        refused[batch["fileName"]] = {
            int(row["row"]) for row in gateway.pages(f"{name}/rejectedRows", "rejectedRows")
        }
    titles = _titles(_rows(portfolio, refused[portfolio.name]))
    agreements = _agreements(gateway, titles)
    arrivals = [(path, row) for path in payment_files for row in _rows(path, refused[path.name])]
    paid_in, by_case = _payments(arrivals, titles, agreements)
    result: dict[str, dict[str, Decimal]] = {}
    for title in (title for case in titles.values() for title in case):
        currency = result.setdefault(title.currency, _zeros())
        currency["placed"] += title.open["principal"]
    for currency_name, amount in paid_in.items():
        result.setdefault(currency_name, _zeros())["paid_in"] += amount
    received: dict[tuple[str, str], Decimal] = {}
    for case, owned in titles.items():
        currency = result[owned[0].currency]
        paid = by_case.get(case, [])
        currency["open"] += _open_of_case(owned, agreements.get(case, []), paid, as_of)
        for _, payment in paid:
            key = (case[0], case[3])
            received[key] = received.get(key, Decimal(0)) + payment.amount - payment.left
    return Recounted(
        currencies={name: {key: _minor(value) for key, value in one.items()} for name, one in result.items()},
        received={key: _minor(value) for key, value in received.items()},
    )


def _zeros() -> dict[str, Decimal]:
    return {"placed": Decimal(0), "paid_in": Decimal(0), "open": Decimal(0)}


CaseKey = tuple[str, str, str, str]
"""Creditor, debtor's document, contract, currency."""


def _titles(rows: list[dict[str, str]]) -> dict[CaseKey, list[_Title]]:
    cases: dict[CaseKey, list[_Title]] = {}
    for row in rows:
        currency = (row.get("currency") or "BRL").upper()
        document = re.sub(r"[^0-9A-Za-z]", "", row["debtor_document"]).upper()
        case = (row["creditor_reference"], document, row["contract_reference"], currency)
        cases.setdefault(case, []).append(
            _Title(
                reference=row["title_reference"],
                contract=row["contract_reference"],
                due=_date(row["due_date"]),
                currency=currency,
                penalty_rate=_number(row.get("penalty_rate") or "0"),
                interest_rate=_number(row.get("monthly_interest_rate") or "0"),
                open={
                    "penalty": Decimal(0),
                    "interest": Decimal(0),
                    "principal": _number(row["principal"]),
                },
                accrued_through=_date(row["due_date"]),
            )
        )
    for owned in cases.values():
        owned.sort(key=lambda title: (title.due, title.reference))
    return cases


def _agreements(
    gateway: gc.Gateway, titles: dict[CaseKey, list[_Title]]
) -> dict[CaseKey, list[dict[str, Any]]]:
    """Accepted agreements of each case, oldest first."""
    found: dict[CaseKey, list[dict[str, Any]]] = {}
    by_reference: dict[tuple[str, str], list[CaseKey]] = {}
    for case in titles:
        by_reference.setdefault((case[0], case[2]), []).append(case)
    for agreement in gateway.pages("agreements", "agreements"):
        if "acceptDate" not in agreement:
            continue
        (case_id,) = agreement["caseIds"]
        sheet = gateway.get(f"cases/{case_id}")
        candidates = by_reference[(sheet["creditorReference"], sheet["contractReference"])]
        currency = agreement["total"]["currencyCode"]
        (case,) = [candidate for candidate in candidates if candidate[3] == currency]
        found.setdefault(case, []).append(agreement)
    for made in found.values():
        made.sort(key=lambda agreement: gc.date_of(agreement["acceptDate"]))
    return found


def _payments(
    arrivals: list[tuple[Path, dict[str, str]]],
    titles: dict[CaseKey, list[_Title]],
    agreements: dict[CaseKey, list[dict[str, Any]]],
) -> tuple[dict[str, Decimal], dict[CaseKey, list[tuple[Path, _Payment]]]]:
    """Each credit once, by what identifies it; and to which case it goes, in order of arrival."""
    by_title: dict[tuple[str, str], set[CaseKey]] = {}
    by_contract: dict[tuple[str, str], set[CaseKey]] = {}
    for case, owned in titles.items():
        by_contract.setdefault((case[0], case[2]), set()).add(case)
        for title in owned:
            by_title.setdefault((case[0], title.reference), set()).add(case)
    by_instrument: dict[str, CaseKey] = {}
    for case, made in agreements.items():
        for agreement in made:
            for instalment in agreement.get("instalments", []):
                for instrument in instalment.get("instruments", []):
                    for key in ("txid", "ourNumber", "endToEndId"):
                        if instrument.get(key):
                            by_instrument[instrument[key]] = case
                    if instrument.get("reference"):
                        by_instrument[f"{instrument['entity']} {instrument['reference']}"] = case
    paid_in: dict[str, Decimal] = {}
    by_case: dict[CaseKey, list[tuple[Path, _Payment]]] = {}
    known: set[tuple[str, str, str, str]] = set()
    for path, row in arrivals:
        identity = (row["creditor_reference"], row["account"], row["means"].upper(), row["bank_reference"])
        if identity in known:
            continue
        known.add(identity)
        currency = (row.get("currency") or "BRL").upper()
        amount = _number(row["amount"])
        paid_in[currency] = paid_in.get(currency, Decimal(0)) + amount
        payment = _Payment(
            value_date=_date(row["value_date"]),
            identity=identity,
            amount=amount,
            title=row.get("title_reference") or "",
            left=amount,
        )
        creditor = row["creditor_reference"]
        instrument = by_instrument.get(row.get("txid") or "") or by_instrument.get(
            row.get("our_number") or ""
        )
        if instrument is not None:
            matches = {instrument}
        elif payment.title:
            matches = by_title.get((creditor, payment.title), set())
            if row.get("contract_reference"):
                matches = {case for case in matches if case[2] == row["contract_reference"]}
        else:
            matches = by_contract.get((creditor, row.get("contract_reference") or ""), set())
        matches = {case for case in matches if case[3] == currency}
        if len(matches) == 1:
            by_case.setdefault(matches.pop(), []).append((path, payment))
    return paid_in, by_case


def _open_of_case(
    titles: list[_Title], agreements: list[dict[str, Any]], payments: list[tuple[Path, _Payment]], as_of: date
) -> Decimal:
    """Go through the epochs of a case: between them agreements begin and end, within one payments apply by
    value date."""
    waiting = [payment for _, payment in payments]
    arrived = {payment.identity: _arrival(path, payment) for path, payment in payments}
    rows: list[_Row] = []
    for agreement in agreements:
        begins = gc.date_of(agreement["acceptDate"])
        rows = _epoch(titles, [], waiting, arrived, until=begins)
        counted_to = gc.date_of(agreement["expireDate"])
        for title in titles:
            if title.open["principal"]:
                title.charge(counted_to)
                title.bound = True
        forgiven = _forgive(titles, _amount(agreement.get("discount")))
        rows = [
            _Row(
                due=gc.date_of(instalment["dueDate"]),
                capital=_amount(instalment["capital"]),
                interest=_amount(instalment.get("interest")),
            )
            for instalment in sorted(agreement["instalments"], key=lambda i: int(i.get("number", 0)))
        ]
        ends = gc.date_of(agreement["endDate"]) if "endDate" in agreement else None
        if ends is None:
            rows = _epoch(titles, rows, waiting, arrived, until=None)
            _earn(rows, as_of)
            if not any(row.left() for row in rows):
                for title in titles:
                    title.bound = False
            continue
        rows = _epoch(titles, rows, waiting, arrived, until=ends)
        _earn(rows, ends)
        _come_back(titles, rows, forgiven, ends)
        rows = []
    if not any(title.bound for title in titles):
        _epoch(titles, [], waiting, arrived, until=None)
    total = Decimal(0)
    for title in titles:
        title.charge(as_of)
        total += title.total()
    return total + sum((row.interest - row.paid_interest for row in rows if row.earned), Decimal(0))


def _epoch(
    titles: list[_Title],
    rows: list[_Row],
    waiting: list[_Payment],
    arrived: dict[tuple[str, str, str, str], date],
    *,
    until: date | None,
) -> list[_Row]:
    """Apply what arrived before the day `until` (agreements begin and end before a day's payments are read)."""
    now = [payment for payment in waiting if until is None or arrived[payment.identity] < until]
    for payment in sorted(now, key=lambda p: (p.value_date, p.identity)):
        waiting.remove(payment)
        left = payment.amount
        for title in titles:
            if title.reference == payment.title and not title.bound and title.total():
                title.charge(payment.value_date)
                left = title.pay(left)
        for row in rows:
            if left and row.left():
                left = _pay_row(row, titles, left)
        for title in titles:
            if left and not title.bound and title.total():
                title.charge(payment.value_date)
                left = title.pay(left)
        payment.left = left
    return rows


def _pay_row(row: _Row, titles: list[_Title], left: Decimal) -> Decimal:
    row.earned = True
    interest = min(left, row.interest - row.paid_interest)
    row.paid_interest += interest
    capital = min(left - interest, row.capital - row.paid_capital)
    row.paid_capital += capital
    rest = capital
    for title in titles:
        if title.bound:
            rest = title.pay(rest)
    return left - interest - capital


def _earn(rows: list[_Row], day: date) -> None:
    for row in rows:
        row.earned = row.earned or row.due <= day


def _forgive(titles: list[_Title], discount: Decimal) -> list[tuple[_Title, str, Decimal]]:
    """Take the discount off interest and penalty; answers where."""
    taken = []
    for component in ("interest", "penalty"):
        for title in titles:
            if title.bound:
                part = min(discount, title.open[component])
                if part:
                    title.open[component] -= part
                    discount -= part
                    taken.append((title, component, part))
    return taken


def _come_back(
    titles: list[_Title], rows: list[_Row], forgiven: list[tuple[_Title, str, Decimal]], day: date
) -> None:
    """The agreement ended unfulfilled: the discount comes back, earned plan interest becomes interest of the
    oldest title."""
    for title, component, amount in forgiven:
        title.open[component] += amount
    bound = [title for title in titles if title.bound]
    oldest = next((title for title in bound if title.total()), bound[0])
    for row in rows:
        if row.earned:
            oldest.open["interest"] += row.interest - row.paid_interest
    for title in bound:
        title.bound = False
        title.accrued_through = max(title.accrued_through, day)


def _arrival(path: Path, payment: _Payment) -> date:
    """The business date on which a file was read stands in its name; a file of another name is read last."""
    match = re.search(r"(\d{4}-\d{2}-\d{2})", path.name)
    return date.fromisoformat(match[1]) if match else date.max


def _rows(path: Path, refused: set[int]) -> list[dict[str, str]]:
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252")
    delimiter = ";" if text.split("\n", 1)[0].count(";") else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    return [
        {key: (value or "").strip() for key, value in row.items() if key is not None}
        for number, row in enumerate(reader, start=2)
        if number not in refused and any(row.values())
    ]


def _number(text: str) -> Decimal:
    """Decimal comma or point, with or without separators of thousands: the last of the two is the decimal one."""
    text = text.replace(" ", "")
    comma = text.rfind(",") > text.rfind(".")
    text = text.replace(".", "").replace(",", ".") if comma else text.replace(",", "")
    return Decimal(text)


def date_of(text: str) -> date | None:
    """A date as YYYY-MM-DD or DD/MM/YYYY; None when it is neither."""
    for layout in ("%Y-%m-%d", "%d/%m/%Y"):
        try:
            return datetime.strptime(text.strip(), layout).date()  # noqa: DTZ007 -- a date has no zone
        except ValueError:
            continue
    return None


def _date(text: str) -> date:
    found = date_of(text)
    assert found is not None, f"the platform took a row whose date is {text!r}"
    return found


def _business_day(day: date, currency: str) -> date:
    while day.weekday() >= 5 or day in _CALENDARS[currency]:
        day += timedelta(days=1)
    return day


def _half_up(value: Decimal) -> Decimal:
    return value.quantize(CENT, ROUND_HALF_UP)


def _minor(value: Decimal) -> int:
    return int(value * 100)


def _amount(value: dict[str, Any] | None) -> Decimal:
    return Decimal(gc.minor_of(value)) / 100
