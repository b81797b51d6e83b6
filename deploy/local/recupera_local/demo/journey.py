"""One portfolio travels the whole way: what creditors, collectors and debtors do, through the gateway.

The demo drives it on a quiet platform, the fault tests on one that is being killed. What people decide is
drawn from each
case's natural key, so that the same files give the same journey everywhere.
"""

from __future__ import annotations

import csv
import dataclasses
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from recupera_local import gateway_client as gc

T = TypeVar("T")

TIME_ZONE = "America/Sao_Paulo"
# 10:00 in Sao Paulo: inside the calling window of every Brazilian state (R01, R02) and of Portugal (R16).
HOUR_UTC = 13
BROKEN_DAYS = 2
ANNUAL_RATE_E4 = 120_000
PAYMENT_COLUMNS = (
    "creditor_reference",
    "account",
    "means",
    "bank_reference",
    "value_date",
    "amount",
    "currency",
    "txid",
    "our_number",
    "title_reference",
    "contract_reference",
    "payer_document",
)
_SETTLED_BATCH = frozenset({"STATE_APPLIED", "STATE_APPLIED_WITH_ERRORS"})
_STOPPED_BATCH = frozenset({"STATE_REJECTED", "STATE_ROLLED_BACK"})
_NAMESPACE = uuid.UUID("6d1d4ad5-1f4b-5a43-9d0e-3f0b6a6f6f10")


class JourneyFailed(Exception):
    """The journey cannot go on; the message says what the platform answered."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is worked: a portfolio file, payment files by the business date on which they arrive, and the
    business dates."""

    portfolio: Path
    payments: Mapping[date, Sequence[Path]]
    days: Sequence[date]
    agents: int = 8
    by_instrument: bool = True
    """Debtors pay by Pix or boleto; False: they name the contract, so that the files of two runs are the same."""
    simulation_seed: int = 20261123


@dataclasses.dataclass(kw_only=True)
class Stage:
    """Time and number of items of one kind of work, summed over the days."""

    seconds: float = 0.0
    items: int = 0


class Journey:
    """Drives the plan; `settle(day)` waits until all facts of the day are applied; `say` prints progress."""

    def __init__(
        self,
        *,
        gateway: gc.Gateway,
        plan: Plan,
        work_dir: Path,
        say: Callable[[str], None],
        settle: Callable[[], None] | None = None,
        patience: float = 300.0,
    ) -> None:
        self.gateway = gateway
        self.plan = plan
        self.work_dir = work_dir
        self.say = say
        self.settle = settle or self._wait_until_reconciled
        self.patience = patience
        self.stages: dict[str, Stage] = {}
        self.batches: list[str] = []
        self.payment_files: list[Path] = []
        self._cases: dict[str, dict[str, Any]] = {}

    # -- the way -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        first = self.plan.days[0]
        self.set_clock(first)
        self.place_portfolio()
        for day in self.plan.days:
            self.work_day(day)
        self.settle()

    def place_portfolio(self) -> None:
        batch = self.upload(self.plan.portfolio, "PORTFOLIO")
        with self.stage("cases and balances") as stage:
            applied = int(batch.get("rowsApplied", 0))
            gc.wait_for(
                f"{applied} titles at the agreement service",
                lambda: where_known(lambda: int(self._money().get("titles", 0)) >= applied),
                seconds=self.patience,
            )
            self.settle()
            stage.items = int(self._cases_summary().get("cases", 0))
        self.say(f"  {stage.items} cases stand, {applied} titles carry a balance")

    def work_day(self, day: date) -> None:
        self.set_clock(day)
        steps = self.run_day(day)
        self.send_messages(day, steps)
        negotiating = self.make_calls(day, steps)
        self.make_agreements(day, negotiating)
        self.take_payments(day)
        self.settle()

    def set_clock(self, day: date) -> None:
        now = datetime(day.year, day.month, day.day, HOUR_UTC, tzinfo=UTC)
        self.gateway.post(
            "clock:set",
            {
                "timeZone": TIME_ZONE,
                "simulated": True,
                "now": now.isoformat().replace("+00:00", "Z"),
                "speedThousandths": "0",
                "currency": "BRL",
                "requestId": self.request_id("clock", day),
            },
        )

    def upload(self, path: Path, kind: str) -> dict[str, Any]:
        """Upload a file and follow it until its rows are applied."""
        with self.stage(f"import {kind.lower()}") as stage:
            try:
                name = gc.wait_for(
                    f"{path.name} uploaded",
                    lambda: where_known(lambda: self._upload(path, kind)),
                    seconds=self.patience,
                )
            except gc.CallRefused as refused:
                known = next(
                    (d["metadata"]["batch"] for d in refused.details if "batch" in d.get("metadata", {})), ""
                )
                if refused.reason != "DUPLICATE_FILE" or known not in self.batches_known():
                    raise
                name = known
            self.batches.append(name)

            def settled() -> dict[str, Any] | None:
                now = self.gateway.get(name)
                if now["state"] in _STOPPED_BATCH:
                    raise JourneyFailed(
                        f"{path.name} was refused: {now.get('refusalCode')}: {now.get('refusal')}"
                    )
                if now["state"] == "STATE_AWAITING_APPROVAL":
                    self.say(f"  {path.name} waits for approval ({now.get('refusal')}): approved")
                    self.gateway.post(f"{name}:approve", {"requestId": self.request_id("approve", path.name)})
                return now if now["state"] in _SETTLED_BATCH else None

            batch = gc.wait_for(f"{path.name} applied", settled, seconds=self.patience)
            stage.items += int(batch.get("rowsRead", 0))
        self.say(
            f"  {path.name}: {batch.get('rowsRead', 0)} rows read, {batch.get('rowsApplied', 0)} applied, "
            f"{batch.get('rowsRejected', 0)} rejected, {batch.get('rowsUnchanged', 0)} known already"
        )
        return batch

    def _upload(self, path: Path, kind: str) -> str:
        """The batch's name."""
        request_id = self.request_id("upload", path.name)
        return str(self.gateway.upload(path=path, kind=kind, requestId=request_id)["name"])

    def batches_known(self) -> set[str]:
        return {batch["name"] for batch in self.gateway.pages("batches", "batches")}

    def run_day(self, day: date) -> dict[str, int]:
        with self.stage("ladder") as stage:
            body = {"date": gc.date_json(day), "requestId": self.request_id("day", day)}
            self.gateway.post("businessDays:run", body)

            def done() -> dict[str, Any] | None:
                answer = self.gateway.get(f"businessDays/{day.isoformat()}")
                return answer if answer["state"] == "STATE_DONE" else None

            business_day = gc.wait_for(f"the day {day}", done, seconds=self.patience)
            stage.items += int(business_day.get("casesSeen", 0))
        steps = {k: int(v) for k, v in business_day.get("stepsByChannel", {}).items()}
        said = ", ".join(
            f"{n} {channel.removeprefix('CHANNEL_').lower()}" for channel, n in sorted(steps.items())
        )
        self.say(
            f"{day:%a %Y-%m-%d}  {business_day.get('casesSeen', 0)} cases seen; due: {said or 'nothing'}"
        )
        return steps

    def send_messages(self, day: date, steps: Mapping[str, int]) -> None:
        expected = steps.get("CHANNEL_EMAIL", 0) + steps.get("CHANNEL_SMS", 0)
        query = _date_query(day)
        with self.stage("messages") as stage:

            def done() -> dict[str, Any] | None:
                answer = self.gateway.get("messages:summarize", **query)
                ready = int(answer.get("messages", 0)) >= expected and not int(answer.get("due", 0))
                return answer if ready else None

            summary = gc.wait_for(f"{expected} messages of {day}", done, seconds=self.patience)
            stage.items += int(summary.get("messages", 0))
        if summary.get("byState"):
            self.say("  messages: " + _counts(summary["byState"]))

    def make_calls(self, day: date, steps: Mapping[str, int]) -> list[dict[str, Any]]:
        """A campaign over the cases due a call; answers the calls that ended in a negotiation."""
        expected = steps.get("CHANNEL_CALL", 0)
        negotiating: list[dict[str, Any]] = []
        if not expected:
            return negotiating
        query = _date_query(day)
        with self.stage("calls") as stage:
            gc.wait_for(
                f"{expected} call candidates of {day}",
                lambda: int(self.gateway.get("calls:summarize", **query).get("candidates", 0)) >= expected,
                seconds=self.patience,
            )
            campaign = self.gateway.post(
                "campaigns",
                {
                    "campaign": {
                        "displayName": f"Ladder {day}",
                        "pacing": "PACING_PROGRESSIVE",
                        "date": gc.date_json(day),
                        "maxAttempts": 1,
                        "retryAfterSeconds": 3600,
                        "simulationSeed": str(self.plan.simulation_seed),
                    },
                    "requestId": self.request_id("campaign", day),
                },
            )["name"]
            for number in range(self.plan.agents):
                self._set_agent(number, "STATE_FREE", campaign, day)
            self.gateway.post(f"{campaign}:start", {"requestId": self.request_id("start", day)})
            end = time.monotonic() + self.patience
            while True:
                connected = list(
                    self.gateway.pages("calls", "calls", state="STATE_CONNECTED", campaign=campaign)
                )
                negotiating += [
                    call for call in connected if self._disposition(call, day) == "DISPOSITION_NEGOTIATING"
                ]
                if connected:
                    end = time.monotonic() + self.patience
                    continue
                answer = self.gateway.get(campaign)
                if not int(answer.get("casesDue", 0)) and not int(answer.get("callsLive", 0)):
                    break
                if time.monotonic() > end:
                    raise gc.WaitedTooLong(f"the campaign of {day} stands still: {answer}")
                time.sleep(0.05)
            for number in range(self.plan.agents):
                self._set_agent(number, "STATE_OFFLINE", "", day)
            self.gateway.post(f"{campaign}:drain", {"requestId": self.request_id("drain", day)})
            gc.wait_for(
                f"the campaign of {day} completed",
                lambda: self.gateway.get(campaign)["state"] == "STATE_COMPLETED",
                seconds=self.patience,
            )
            summary = self.gateway.get("calls:summarize", **query)
            stage.items += int(summary.get("calls", 0))
        self.say("  calls: " + _counts(summary.get("byState", {})))
        if summary.get("byDisposition"):
            self.say("  people said: " + _counts(summary["byDisposition"]))
        return negotiating

    def make_agreements(self, day: date, calls: Sequence[dict[str, Any]]) -> None:
        if not calls:
            return
        with self.stage("agreements") as stage:
            made = 0
            for call in sorted(calls, key=lambda c: int(c["naturalKey"])):
                made += self._agree(call["caseId"], int(call["naturalKey"]), day)
            stage.items += made
        self.say(f"  agreements made: {made}")

    def take_payments(self, day: date) -> None:
        files = list(self.plan.payments.get(day, ()))
        own = self._pay_instalments(day)
        if own is not None:
            files.append(own)
        for path in files:
            self.payment_files.append(path)
            self.upload(path, "PAYMENTS")

    # -- what people decide ----------------------------------------------------------------------------------------

    def _disposition(self, call: dict[str, Any], day: date) -> str:
        key = int(call["naturalKey"])
        draw = key % 100
        body: dict[str, Any] = {"requestId": self.request_id("disposition", call["name"])}
        if draw < 35:
            disposition = "DISPOSITION_PROMISE_TO_PAY"
            case = self._case(call["caseId"])
            body["promiseDate"] = gc.date_json(_weekday_after(day, 3))
            body["promiseAmount"] = case["openPrincipal"]
        elif draw < 60:
            disposition = "DISPOSITION_NEGOTIATING"
        elif draw < 75:
            disposition = "DISPOSITION_REFUSAL"
        elif draw < 85:
            disposition = "DISPOSITION_CALLBACK"
        elif draw < 90:
            disposition = "DISPOSITION_WRONG_PERSON"
        elif draw < 95:
            disposition = "DISPOSITION_ALREADY_PAID"
        else:
            disposition = "DISPOSITION_DISPUTE"
        self.gateway.post(f"{call['name']}:disposition", {"disposition": disposition, **body})
        return disposition

    def _agree(self, case_id: str, key: int, day: date) -> int:
        instalments = 1 + key // 100 % 4
        terms: dict[str, Any] = {
            "instalments": instalments,
            "firstDueDate": gc.date_json(_weekday_after(day, 1)),
            "annualRateE4": str(ANNUAL_RATE_E4),
        }
        simulation = self.gateway.post("agreements:simulate", {"caseIds": [case_id], "terms": terms})
        lines = [line for balance in simulation.get("balances", []) for line in balance.get("lines", [])]
        untouched = not {line["component"] for line in lines} & {"COMPONENT_PAID", "COMPONENT_WAIVED"}
        charges = sum(
            gc.minor_of(line["amount"])
            for line in lines
            if untouched and line["component"] in ("COMPONENT_PENALTY", "COMPONENT_INTEREST")
        )
        if key // 400 % 3 == 0 and charges >= 2:
            terms["discount"] = gc.money_json(charges // 2, simulation["debt"]["currencyCode"])
        proposal = self.gateway.post(
            "agreements",
            {
                "caseIds": [case_id],
                "terms": terms,
                "validityDays": 1,
                "brokenDays": BROKEN_DAYS,
                "requestId": self.request_id("propose", case_id, day),
            },
        )
        self.gateway.post(
            f"{proposal['name']}:accept", {"requestId": self.request_id("accept", case_id, day)}
        )
        return 1

    def _pay_instalments(self, day: date) -> Path | None:
        """The bank's file of what debtors paid today on their agreements: six in ten keep their word."""
        rows = []
        for agreement in self.gateway.pages("agreements", "agreements", state="STATE_ACTIVE"):
            case = self._case(agreement["caseIds"][0])
            key = _text_key(case["creditorReference"], case["contractReference"])
            for instalment in agreement.get("instalments", []):
                if gc.date_of(instalment["dueDate"]) != day or key % 10 >= 6:
                    continue
                instruments = {i["kind"]: i for i in instalment.get("instruments", [])}
                slip, pix = instruments.get("KIND_BOLETO"), instruments.get("KIND_PIX")
                row = {
                    "creditor_reference": case["creditorReference"],
                    "account": "agency-main",
                    "means": "TRANSFER",
                    "bank_reference": f"{day:%Y%m%d}-{key % 10**10:010d}-{instalment['number']}",
                    "value_date": day.isoformat(),
                    "amount": gc.decimal_text(gc.minor_of(instalment["amount"])),
                    "currency": instalment["amount"]["currencyCode"],
                }
                if not self.plan.by_instrument:
                    row |= {"contract_reference": case["contractReference"]}
                elif slip is not None and key % 7 == 0:
                    row |= {"means": "BOLETO", "our_number": slip["ourNumber"]}
                elif pix is not None:
                    row |= {"means": "PIX", "txid": pix["txid"]}
                elif (reference := instruments.get("KIND_MULTIBANCO")) is not None:
                    row |= {
                        "means": "MULTIBANCO",
                        "our_number": f"{reference['entity']} {reference['reference']}",
                    }
                else:
                    row |= {"contract_reference": case["contractReference"]}
                rows.append(row)
        if not rows:
            return None
        path = self.work_dir / f"instalments-{day}.csv"
        with path.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, PAYMENT_COLUMNS, restval="", delimiter=";")
            writer.writeheader()
            writer.writerows(sorted(rows, key=lambda r: str(r["bank_reference"])))
        return path

    # -- help --------------------------------------------------------------------------------------------------------

    def _set_agent(self, number: int, state: str, campaign: str, day: date) -> None:
        self.gateway.post(
            f"agents/agent-{number:02d}:setState",
            {
                "state": state,
                "campaign": campaign,
                "requestId": self.request_id("agent", number, state, day),
            },
        )

    def _case(self, case_id: str) -> dict[str, Any]:
        return self.gateway.get(f"cases/{case_id}")

    def _money(self) -> dict[str, Any]:
        return self.gateway.get("money:summarize")

    def _cases_summary(self) -> dict[str, Any]:
        return self.gateway.get("cases:summarize")

    def _wait_until_reconciled(self) -> None:
        """Quiet as it can be seen from outside: nothing waits to leave, and both services state the same
        open principal."""

        def reconciled() -> bool:
            cases, money = self._cases_summary(), self._money()
            messages, calls = self.gateway.get("messages:summarize"), self.gateway.get("calls:summarize")
            summaries = (cases, money, messages, calls)
            if parked := sum(int(summary.get("parked", 0)) for summary in summaries):
                raise JourneyFailed(f"{parked} facts were refused and wait in a service's table `parked`")
            waiting = sum(int(summary.get("outbox", 0)) for summary in summaries)
            return (
                not waiting
                and not int(messages.get("due", 0))
                and not int(money.get("actsDue", 0))
                and _by_currency(cases.get("openPrincipal", []))
                == {
                    currency["currency"]: gc.minor_of(currency.get("openPrincipal"))
                    for currency in money.get("currencies", [])
                }
            )

        gc.wait_for(
            "all services agreed on what is open", lambda: where_known(reconciled), seconds=self.patience
        )

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Time and items of a kind of work, added to what there is of it."""
        stage = self.stages.setdefault(name, Stage())
        started = time.monotonic()
        try:
            yield stage
        finally:
            stage.seconds += time.monotonic() - started

    def request_id(self, *parts: object) -> str:
        """The same for the same command: said again after a failure it is done once."""
        return str(uuid.uuid5(_NAMESPACE, "/".join(str(part) for part in parts)))


def where_known(call: Callable[[], T]) -> T | None:
    """What `call` answers; None while the agency's clock, set a moment ago, is on its way to who is asked."""
    try:
        return call()
    except gc.CallRefused as refused:
        if refused.reason != "AGENCY_CLOCK_UNKNOWN":
            raise
        return None


def weekdays_from(first: date, count: int) -> list[date]:
    """`count` weekdays, the first being `first` or the next Monday."""
    days: list[date] = []
    day = first
    while len(days) < count:
        if day.weekday() < 5:
            days.append(day)
        day += timedelta(days=1)
    return days


def _weekday_after(day: date, days: int) -> date:
    return weekdays_from(day + timedelta(days=days), 1)[0]


def _text_key(*parts: str) -> int:
    return uuid.uuid5(_NAMESPACE, "|".join(parts)).int


def _date_query(day: date) -> dict[str, int]:
    return {"date.year": day.year, "date.month": day.month, "date.day": day.day}


def _counts(counts: Mapping[str, Any]) -> str:
    named = sorted(((int(n), name) for name, n in counts.items() if int(n)), reverse=True)
    return ", ".join(f"{n} {name.lower().replace('_', ' ')}" for n, name in named)


def _by_currency(amounts: Sequence[dict[str, Any]]) -> dict[str, int]:
    return {amount["currencyCode"]: gc.minor_of(amount) for amount in amounts}
