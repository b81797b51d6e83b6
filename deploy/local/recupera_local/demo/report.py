"""The demo's report: the figures as data, checked from outside, and the same for a person."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from recupera_local import gateway_client as gc
from recupera_local import recount
from recupera_local.demo import accounting, journey

MONEY = ("placed", "charges", "open", "received", "waived", "written_off", "withdrawn")
STATEMENT = ("gross", "commission", "tax", "remitted")
CASH = ("paid_in", "reversed", "refunded", "received", "unidentified", "overpaid")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that must hold, with both sides as text."""

    name: str
    ours: str
    theirs: str

    @property
    def holds(self) -> bool:
        return self.ours == self.theirs


def collect(*, gateway: gc.Gateway, done: journey.Journey) -> dict[str, Any]:
    """Everything the platform says about the journey; amounts are decimal strings, one set a currency."""
    batches = [gateway.get(name) for name in dict.fromkeys(done.batches)]
    cases = gateway.get("cases:summarize")
    money = gateway.get("money:summarize")
    return {
        "business_date": gc.date_of(money["date"]).isoformat(),
        "rows": _rows(b for b in batches if b["kind"] == "BATCH_KIND_PORTFOLIO"),
        "payment_rows": _rows(b for b in batches if b["kind"] == "BATCH_KIND_PAYMENTS"),
        "cases": {"open": int(cases.get("open", 0)), "by_state": _ints(cases.get("byState", {}))},
        "messages": _ints(gateway.get("messages:summarize").get("byState", {})),
        "calls": _calls(gateway.get("calls:summarize")),
        "agreements": _ints(money.get("agreementsByState", {})),
        "payments": {
            "matched": int(money.get("paymentsMatched", 0)),
            "unidentified": int(money.get("paymentsUnidentified", 0)),
        },
        "money": {c["currency"]: _amounts(c, MONEY) for c in money.get("currencies", [])},
        "cash": {c["currency"]: _amounts(c, CASH) for c in money.get("currencies", [])},
    }


def add_accounting(
    report: dict[str, Any], *, done: journey.Journey, statements: Sequence[accounting.Statement]
) -> None:
    """What creditors are told, and how long everything took; amounts as decimal strings."""
    report["statements"] = [
        {
            "creditor": one.creditor,
            "currency": one.currency,
            "settlements": one.settlements,
            **{name: gc.decimal_text(getattr(one, name)) for name in STATEMENT},
        }
        for one in statements
    ]
    report["stages"] = {
        name: {"seconds": round(stage.seconds, 2), "items": stage.items}
        for name, stage in done.stages.items()
    }


def check(report: Mapping[str, Any], recounted: recount.Recounted) -> list[Check]:
    """The two identities of the report, and its figures against those of the second program."""
    checks = []
    for currency, amounts in sorted(report["money"].items()):
        money = {name: _minor(text) for name, text in amounts.items()}
        cash = {name: _minor(text) for name, text in report["cash"][currency].items()}
        out = sum(money[name] for name in ("open", "received", "waived", "written_off", "withdrawn"))
        checks.append(
            _check(
                f"{currency} placed + charges = open + received + waived + written off + withdrawn",
                money["placed"] + money["charges"],
                out,
            )
        )
        checks.append(
            _check(
                f"{currency} paid in - reversed - refunded = received + unidentified + overpaid",
                cash["paid_in"] - cash["reversed"] - cash["refunded"],
                cash["received"] + cash["unidentified"] + cash["overpaid"],
            )
        )
        checks.append(_check(f"{currency} received is the same in both", money["received"], cash["received"]))
        second = recounted.currencies.get(currency, {})
        checks.append(
            _check(f"{currency} placed = sum of the good rows", money["placed"], second.get("placed", 0))
        )
        checks.append(
            _check(
                f"{currency} paid in = sum of the good payment rows",
                cash["paid_in"],
                second.get("paid_in", 0),
            )
        )
        checks.append(_check(f"{currency} open, counted a second time", money["open"], second.get("open", 0)))
        checks += _statements(report, currency, recounted)
    return checks


def _statements(report: Mapping[str, Any], currency: str, recounted: recount.Recounted) -> list[Check]:
    """Statements against the ledger, and against what the files paid: in one line when every creditor's holds."""
    told = {
        one["creditor"]: _minor(one["gross"]) for one in report["statements"] if one["currency"] == currency
    }
    counted = {
        creditor: amount for (creditor, of), amount in recounted.received.items() if of == currency and amount
    }
    gross = sum(told.values())
    wrong = [key for key in sorted({*told, *counted}) if told.get(key, 0) != counted.get(key, 0)]
    return [
        _check(f"{currency} statements = received", gross, _minor(report["cash"][currency]["received"])),
        *(
            _check(
                f"{currency} statement of {key}, counted a second time", told.get(key, 0), counted.get(key, 0)
            )
            for key in wrong
        ),
        *(
            []
            if wrong
            else [
                _check(
                    f"{currency} statements, creditor by creditor, counted a second time",
                    gross,
                    sum(counted.values()),
                )
            ]
        ),
    ]


def printed(report: Mapping[str, Any], checks: Sequence[Check]) -> str:
    """The report for a person."""
    lines = ["", f"What happened, as of {report['business_date']}", ""]
    for title, key in (("Portfolio", "rows"), ("Payments", "payment_rows")):
        rows = report[key]
        share = f"{rows['rejected'] / rows['read']:.1%}" if rows["read"] else "-"
        lines.append(
            f"  {title + ' rows':<18}{rows['read']:>9,} read {rows['applied']:>9,} applied "
            f"{rows['rejected']:>7,} rejected ({share})"
        )
        for code, count in sorted(rows["by_code"].items(), key=lambda item: -item[1]):
            lines.append(f"  {'':<18}{count:>9,} {code.lower().replace('_', ' ')}")
    lines.append("")
    lines.append(
        f"  {'Cases':<18}{sum(report['cases']['by_state'].values()):>9,} of which {report['cases']['open']:,} open"
    )
    lines += _table(report["cases"]["by_state"])
    for title, key in (("Messages", "messages"), ("Calls", "calls"), ("Agreements", "agreements")):
        lines.append(f"  {title:<18}{sum(report[key].values()):>9,}")
        lines += _table(report[key])
    payments = report["payments"]
    lines.append(
        f"  {'Payments':<18}{payments['matched'] + payments['unidentified']:>9,} of which "
        f"{payments['matched']:,} matched, {payments['unidentified']:,} unidentified"
    )
    for title, key, names in (("Money", "money", MONEY), ("Cash", "cash", CASH)):
        currencies = sorted(report[key])
        lines.append("")
        lines.append(f"  {title:<18}" + "".join(f"{currency:>18}" for currency in currencies))
        for name in names:
            amounts = "".join(f"{_grouped(report[key][currency][name]):>18}" for currency in currencies)
            lines.append(f"    {name.replace('_', ' '):<16}{amounts}")
    heading = "".join(f"{name:>16}" for name in ("received", "commission", "tax", "paid over"))
    lines += ["", f"  {'Creditors':<18}{heading}"]
    for one in report["statements"]:
        amounts = "".join(f"{_grouped(one[name]):>16}" for name in STATEMENT)
        lines.append(f"    {one['creditor']:<12}{one['currency']:<4}{amounts}")
    lines += ["", f"  {'Stage':<24}{'seconds':>9}{'items':>10}{'a second':>10}"]
    for name, stage in report["stages"].items():
        rate = f"{stage['items'] / stage['seconds']:,.0f}" if stage["seconds"] else "-"
        lines.append(f"    {name:<22}{stage['seconds']:>9.1f}{stage['items']:>10,}{rate:>10}")
    lines += ["", "  Checked"]
    for item in checks:
        if item.holds:
            lines.append(f"    ok    {item.name}: {_grouped(item.ours)}")
        else:
            lines.append(f"    WRONG {item.name}: {_grouped(item.ours)} against {_grouped(item.theirs)}")
    return "\n".join(lines)


def _rows(batches: Any) -> dict[str, Any]:
    total: dict[str, Any] = {"read": 0, "applied": 0, "rejected": 0, "unchanged": 0, "by_code": {}}
    for batch in batches:
        total["read"] += int(batch.get("rowsRead", 0))
        total["applied"] += int(batch.get("rowsApplied", 0))
        total["rejected"] += int(batch.get("rowsRejected", 0))
        total["unchanged"] += int(batch.get("rowsUnchanged", 0))
        for entry in batch.get("rejectsByCode", []):
            total["by_code"][entry["code"]] = total["by_code"].get(entry["code"], 0) + int(entry["rows"])
    return total


def _calls(summary: Mapping[str, Any]) -> dict[str, int]:
    """Dispositions of the calls that reached somebody, line results of the others."""
    by_state = _ints(summary.get("byState", {}))
    by_state.pop("DISPOSITIONED", None)
    return {**_ints(summary.get("byDisposition", {})), **by_state}


def _ints(counts: Mapping[str, Any]) -> dict[str, int]:
    return {name: int(count) for name, count in sorted(counts.items()) if int(count)}


def _amounts(currency: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    camel = {
        name: name.split("_")[0] + "".join(p.capitalize() for p in name.split("_")[1:]) for name in names
    }
    return {name: gc.decimal_text(gc.minor_of(currency.get(camel[name]))) for name in names}


def _check(name: str, ours: int, theirs: int) -> Check:
    return Check(name=name, ours=gc.decimal_text(ours), theirs=gc.decimal_text(theirs))


def _minor(text: str) -> int:
    return int(text.replace(".", ""))


def _grouped(text: str) -> str:
    whole, _, cents = text.partition(".")
    return f"{int(whole):,}.{cents}" if whole not in ("-0",) else text


def _table(counts: Mapping[str, int]) -> list[str]:
    return [
        f"  {'':<18}{count:>9,} {name.lower().replace('_', ' ')}"
        for name, count in sorted(counts.items(), key=lambda item: -item[1])
    ]
