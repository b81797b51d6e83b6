"""Section `simulation`: negotiations simulated a second in one process, ten titles and twelve instalments each.

First the rules alone (charges of each title counted, what is added and forgiven, the rows), no database near; then the
whole use case on a real PostgreSQL, of which the processor time outside of running statements counts. Each simulation
has another due date, so that nothing can be kept from the one before.
"""

import datetime
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from agreement_service import providers
from agreement_service.domain import accounts, limits, plans, proposals
from agreement_service.usecases import agreements, moments, titles
from recupera.case.v1 import case_facts_pb2
from recupera_local import migrate, ports, postgres, processes
from recupera_local.bench import figures, scenes
from servicekit import clock, dates, db, ids, migrations

PER_SECOND = 2_000
TITLES = 10
INSTALMENTS = 12
SIMULATIONS = 20_000
THROUGH_THE_USE_CASE = 1_000
ROUNDS = 3
TODAY = datetime.date(2026, 11, 20)
DUE = datetime.date(2026, 10, 6)
DATES = 300
AGENCY = uuid.UUID("0b9e0c55-0000-7000-8000-00000000be7d")


def simulation(scene: scenes.Scene) -> list[figures.Figure]:
    """The best of three rounds counts: what else the machine does is no part of it."""
    count = SIMULATIONS // 20 if scene.quick else SIMULATIONS
    rules = max(_rules(count) for _ in range(ROUNDS))
    scene.say(f"the rules alone: {rules:,.0f} a second")
    count = THROUGH_THE_USE_CASE // 10 if scene.quick else THROUGH_THE_USE_CASE
    with _database(scene) as engine:
        case_id = _place(engine)
        used = max(_use_case(engine, case_id, count) for _ in range(ROUNDS))
    scene.say(f"the use case, the database's share left out: {used:,.0f} a second")
    return [
        figures.Figure(name=name, unit="/s", ours=ours, baseline=PER_SECOND, goal=goal, at_most=False)
        for name, ours, goal in (
            (f"simulations of {TITLES} titles in {INSTALMENTS} rows", rules, 1.0),
            ("the same through the use case, without the database's share", used, None),
        )
    ]


def _terms(number: int) -> plans.Terms:
    return plans.Terms(
        instalments=INSTALMENTS,
        first_due_date=TODAY + datetime.timedelta(days=1 + number % DATES),
        annual_rate_e4=120_000,
        discount_rate_e4=20_000,
        fees_minor=5_000,
    )


def _rules(count: int) -> float:
    owed = [
        accounts.Title(
            title_id=uuid.UUID(int=number),
            case_id=uuid.UUID(int=1),
            reference=f"T-{number}",
            due_date=DUE + datetime.timedelta(days=number),
            payable_until=DUE + datetime.timedelta(days=number),
            principal_minor=100_000 + number,
            penalty_rate_e4=20_000,
            monthly_rate_e4=10_000,
            accrued_through=DUE + datetime.timedelta(days=number),
            open_principal_minor=100_000 + number,
        )
        for number in range(TITLES)
    ]
    started = time.process_time()
    for number in range(count):
        proposals.price(titles=owed, terms=_terms(number), date=TODAY + datetime.timedelta(days=5))
    return count / (time.process_time() - started)


class _Watched(db.Transaction):
    """A transaction that notes the processor time its statements take in this process."""

    spent = 0.0

    def execute(self, statement: sa.Executable, params: db.Params = None) -> sa.CursorResult[Any]:
        started = time.process_time()
        try:
            return super().execute(statement, params)
        finally:
            self.spent += time.process_time() - started


def _use_case(engine: db.Engine, case_id: uuid.UUID, count: int) -> float:
    with db.begin(engine, agency=AGENCY) as tx:
        watched = _Watched(tx.connection, AGENCY)
        started = time.process_time()
        for number in range(count):
            agreements.simulate(
                tx=watched,
                agency=AGENCY,
                negotiation=agreements.Negotiation(case_ids=[case_id], terms=_terms(number)),
                authority=limits.SYSTEM,
                date=TODAY + datetime.timedelta(days=5),
                today=TODAY,
            )
        return count / (time.process_time() - started - watched.spent)


@contextmanager
def _database(scene: scenes.Scene) -> Iterator[db.Engine]:
    """An agreement database of its own, on a PostgreSQL of its own."""
    with scene.folder("simulation") as folder:
        server = postgres.Postgres(
            folder=folder / "postgres", port=ports.free()["postgres"], log=folder / "postgres.log"
        )
        server.start()
        try:
            server.create_service_databases(["agreement"])
            owner = server.url("recupera_agreement", "recupera_agreement_owner")
            migrations.upgrade(owner, migrate.folder("agreement"))
            engine = db.create_engine(
                server.url("recupera_agreement", "recupera_agreement"), application_name="bench"
            )
            yield engine
            engine.dispose()
        finally:
            processes.stop_all([server.process])


def _place(engine: db.Engine) -> uuid.UUID:
    """Titles of one case, as the case service tells of them."""
    case_id = ids.new()
    fact = case_facts_pb2.TitlesPlaced()
    fact.table_contracts.add(
        creditor_id=ids.new().bytes,
        creditor_reference="BENCH",
        contract_reference="BENCH-1",
        currency="BRL",
    )
    fact.table_terms.add(penalty_rate_e4=20_000, monthly_interest_rate_e4=10_000)
    debtor_id = ids.new()
    for number in range(TITLES):
        fact.case_ids.append(case_id.bytes)
        fact.title_ids.append(ids.new().bytes)
        fact.debtor_ids.append(debtor_id.bytes)
        fact.title_references.append(f"T-{number}")
        fact.principal_minor.append(100_000 + number)
        fact.due_days.append(dates.epoch_days(DUE + datetime.timedelta(days=number)))
        fact.contract_index.append(0)
        fact.terms_index.append(0)
    instant = datetime.datetime.combine(TODAY, datetime.time(13), datetime.UTC)
    with db.begin(engine, agency=AGENCY) as tx:
        clock.store(
            tx,
            clock.AgencyClock(
                agency=AGENCY,
                time_zone="America/Sao_Paulo",
                simulated=True,
                base_machine=instant,
                base_agency=instant,
                speed=Decimal(0),
                business_date=TODAY,
                version=1,
            ),
        )
        titles.expect(tx=tx, agency=AGENCY)
        titles.place(
            tx=tx,
            agency=AGENCY,
            placed=[fact],
            moment=moments.read(tx, AGENCY),
            bank=providers.OfflineBank(),
        )
    return case_id
