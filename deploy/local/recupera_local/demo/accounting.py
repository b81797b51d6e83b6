"""After the days: what creditors are told and paid over, and some papers as debtors and creditors get them.

Through the gateway only. One person closes the statements, another approves them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from recupera_local import gateway_client as gc
from recupera_local.demo import journey

CONTRACTS: dict[str, dict[str, Any]] = {
    "BRL": {"tax": "TAX_ISS", "taxRateE4": "50000"},
    "EUR": {"tax": "TAX_VAT", "taxRateE4": "230000"},
}
"""ISS of Sao Paulo, IVA of mainland Portugal."""
BANDS = [
    {"principalRateE4": "80000", "chargesRateE4": "100000", "costsRateE4": "0"},
    {"fromDay": 91, "principalRateE4": "150000", "chargesRateE4": "200000", "costsRateE4": "0"},
]
"""8 % of principal and 10 % of charges; of what is more than 90 days late 15 % and 20 %."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statement:
    """What a creditor is told of one currency; minor units."""

    name: str
    creditor: str
    currency: str
    gross: int
    commission: int
    tax: int
    remitted: int
    settlements: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accounting:
    """Statements of every creditor that was paid something: closed by `closer`, approved by `approver`, on the business
    day after the last one, so that nothing of the journey is left for a later one."""

    done: journey.Journey
    closer: gc.Gateway
    approver: gc.Gateway

    def run(self) -> list[Statement]:
        with self.done.stage("statements") as stage:
            self._next_day()
            found = [self._account(*key) for key in sorted(self._paid())]
            stage.items = sum(one.settlements for one in found)
        return found

    def _next_day(self) -> None:
        day = journey.weekdays_from(self.done.plan.days[-1] + timedelta(days=1), 1)[0]
        self.done.set_clock(day)
        self.done.run_day(day)
        gc.wait_for(
            f"the day {day} everywhere",
            lambda: gc.date_of(self.closer.get("money:summarize")["date"]) == day,
            seconds=self.done.patience,
        )

    def _paid(self) -> set[tuple[str, str]]:
        """Creditors and currencies with money that paid a debt."""
        return {
            (one["creditorReference"], one["allocated"]["currencyCode"])
            for one in self.closer.pages("payments", "payments")
            if gc.minor_of(one.get("allocated"))
        }

    def _account(self, creditor: str, currency: str) -> Statement:
        of = {"creditorReference": creditor, "currency": currency}
        contract = {
            **of,
            **CONTRACTS[currency],
            # in force for the oldest payment that a file may bring
            "validFrom": gc.date_json(date(2000, 1, 1)),
            "bands": BANDS,
            "frequency": "FREQUENCY_DAY",
            "grouping": "GROUPING_GROUPED",
        }
        self.closer.post(
            "commissionContracts", contract, requestId=self.done.request_id("contract", creditor, currency)
        )
        answer = self.closer.post(
            "statements:close", {**of, "requestId": self.done.request_id("close", creditor, currency)}
        )
        (closed,) = answer["statements"]
        approved = self.approver.post(
            f"{closed['name']}:approve",
            {"etag": closed["etag"], "requestId": self.done.request_id("approve", closed["name"])},
        )
        return Statement(
            name=approved["name"],
            creditor=creditor,
            currency=currency,
            gross=gc.minor_of(approved["gross"]),
            commission=gc.minor_of(approved.get("commission")),
            tax=gc.minor_of(approved.get("taxAdded")),
            remitted=gc.minor_of(approved.get("remitted")),
            settlements=int(approved.get("settlements", 0)),
        )


def papers(*, gateway: gc.Gateway, statements: Sequence[Statement], folder: Path) -> dict[str, Path]:
    """Write one paper of each kind that there is, by what it is."""
    found: dict[str, Path] = {}

    def write(what: str, name: str, content: bytes) -> None:
        found[what] = folder / name
        found[what].write_bytes(content)

    for what, kind, form, name in (
        ("a slip", "KIND_BOLETO", "PDF", "boleto.pdf"),
        ("a Pix code", "KIND_PIX", "SVG", "pix.svg"),
    ):
        instrument = next((one for one in _payable(gateway) if one["kind"] == kind), None)
        if instrument is not None:
            write(what, name, gateway.download(f"{instrument['name']}:render", format=f"FORMAT_{form}"))
    agreement = next(iter(gateway.pages("agreements", "agreements", state="STATE_ACTIVE")), None)
    if agreement is not None:
        minute = gateway.post(f"{agreement['name']}/minutes")
        write("a minute", "minute.pdf", gateway.download(f"{minute['name']}:download"))
    if statements:
        longest = max(statements, key=lambda one: one.settlements)
        for form in ("PDF", "XLSX"):
            write(
                f"a statement ({form})",
                f"statement.{form.lower()}",
                gateway.download(f"{longest.name}:export", format=f"FORMAT_{form}"),
            )
    return found


def _payable(gateway: gc.Gateway) -> Iterator[dict[str, Any]]:
    yield from gateway.pages("instruments", "instruments", state="STATE_REGISTERED")
