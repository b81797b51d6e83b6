"""Section `replay`: a payment of the earliest date arrives at a case with 500 payments, beside entering those 500.

The baseline is the first pass at its fastest: all 500 in one transaction, set-based. The late one takes all of them
back, applies them again, and writes what that changed: contra entries and new ones, allocations, facts.
"""

import datetime
import time

import sqlalchemy as sa

from agreement_service import providers
from agreement_service.usecases import moments, payments
from recupera_local.bench import figures, money, scenes
from servicekit import db

PAYMENTS = 500
TITLES = 24
ROUNDS = 5
GOAL = 3.0
FIRST_DUE = datetime.date(2025, 1, 6)
FIRST_PAID = datetime.date(2025, 3, 3)


def run(scene: scenes.Scene) -> list[figures.Figure]:
    """The mean of some cases, after one that warms up."""
    count = PAYMENTS // 10 if scene.quick else PAYMENTS
    first: list[float] = []
    again: list[float] = []
    with money.database(scene, "replay") as engine:
        for number in range(ROUNDS + 1):
            contract = f"REPLAY-{number}"
            money.place(engine, [contract], titles_of_a_case=TITLES, minor=1_000_000, first_due=FIRST_DUE)
            first.append(_enter(engine, [_report(contract, at) for at in range(1, count + 1)]))
            again.append(_enter(engine, [_report(contract, 0)]))
            scene.say(f"{count} payments: {first[-1]:.3f} s; one before them all: {again[-1]:.3f} s")
            _all_changed(engine, contract, count)
    return [
        figures.Figure(
            name=f"replay: a payment before {count} others, beside entering those",
            unit="s",
            ours=sum(again[1:]) / ROUNDS,
            baseline=sum(first[1:]) / ROUNDS,
            goal=GOAL,
        )
    ]


def _report(contract: str, at: int) -> payments.Report:
    return payments.Report(
        creditor_reference=money.CREDITOR,
        account="main",
        means="PIX",
        bank_reference=f"{contract}-{at:06d}",
        value_date=FIRST_PAID + datetime.timedelta(days=at),
        amount_minor=12_345 + at,
        currency="BRL",
        contract_reference=contract,
        caller="bench",
    )


def _enter(engine: db.Engine, reports: list[payments.Report]) -> float:
    started = time.perf_counter()
    with db.begin(engine, agency=money.AGENCY) as tx:
        entered = payments.enter(
            tx=tx,
            agency=money.AGENCY,
            reports=reports,
            moment=moments.read(tx, money.AGENCY),
            bank=providers.OfflineBank(),
        )
    if entered.applied != len(reports):
        raise RuntimeError(f"{entered.applied} of {len(reports)} payments entered")
    return time.perf_counter() - started


def _all_changed(engine: db.Engine, contract: str, count: int) -> None:
    with db.begin(engine, agency=money.AGENCY) as tx:
        changed = tx.execute(
            sa.text(
                "SELECT count(*) FROM payments WHERE agency = :agency AND contract_reference = :contract"
                " AND state = 'ALLOCATED' AND version > 2"
            ),
            {"agency": money.AGENCY, "contract": contract},
        ).scalar_one()
    if changed < count // 2:
        raise RuntimeError(f"only {changed} of {count} payments were counted again differently")
