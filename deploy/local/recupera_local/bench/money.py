"""An agreement database on a PostgreSQL of its own, and titles in it, for sections that measure money."""

import datetime
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal

import psycopg

from agreement_service import providers
from agreement_service.usecases import moments, titles
from recupera.case.v1 import case_facts_pb2
from recupera_local import migrate, ports, postgres, processes
from recupera_local.bench import scenes
from servicekit import clock, commands, dates, db, ids, migrations

AGENCY = uuid.UUID("0b9e0c55-0000-7000-8000-00000000be7e")
TODAY = datetime.date(2026, 11, 20)
CREDITOR = "BENCH"
CREDITOR_ID = uuid.UUID("0b9e0c55-0000-7000-8000-00000000be7f")


@contextmanager
def database(scene: scenes.Scene, name: str) -> Iterator[db.Engine]:
    """A migrated database of the agreement service, with the agency's clock at TODAY."""
    commands.settle_collector()  # as the processes of the service have it
    with scene.folder(name) as folder:
        server = postgres.Postgres(
            folder=folder / "postgres", port=ports.free()["postgres"], log=folder / "postgres.log"
        )
        server.start()
        try:
            server.create_service_databases(["agreement"])
            owner = server.url("recupera_agreement", "recupera_agreement_owner")
            migrations.upgrade(owner, migrate.folder("agreement"))
            _let_maintain(owner)
            engine = db.create_engine(
                server.url("recupera_agreement", "recupera_agreement"), application_name="bench"
            )
            _start_clock(engine)
            yield engine
            engine.dispose()
        finally:
            processes.stop_all([server.process])


def _let_maintain(owner: str) -> None:
    """Let the service's role ANALYZE and VACUUM: it is refused with no more than a warning where it may not."""
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute("GRANT MAINTAIN ON ALL TABLES IN SCHEMA public TO recupera_agreement")


def _start_clock(engine: db.Engine) -> None:
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


def place(
    engine: db.Engine, cases: Sequence[str], *, titles_of_a_case: int, minor: int, first_due: datetime.date
) -> None:
    """Titles of these cases (contract references), due a day after each other; `<contract>-<number>` from 0."""
    fact = case_facts_pb2.TitlesPlaced()
    fact.table_terms.add(penalty_rate_e4=20_000, monthly_interest_rate_e4=10_000)
    for place_of, contract in enumerate(cases):
        case_id, debtor_id = ids.new(), ids.new()
        fact.table_contracts.add(
            creditor_id=CREDITOR_ID.bytes,
            creditor_reference=CREDITOR,
            contract_reference=contract,
            currency="BRL",
        )
        for number in range(titles_of_a_case):
            fact.case_ids.append(case_id.bytes)
            fact.title_ids.append(ids.new().bytes)
            fact.debtor_ids.append(debtor_id.bytes)
            fact.title_references.append(f"{contract}-{number}")
            fact.principal_minor.append(minor)
            fact.due_days.append(dates.epoch_days(first_due + datetime.timedelta(days=number)))
            fact.contract_index.append(place_of)
            fact.terms_index.append(0)
    with db.begin(engine, agency=AGENCY) as tx:
        titles.expect(tx=tx, agency=AGENCY)
        titles.place(
            tx=tx,
            agency=AGENCY,
            placed=[fact],
            moment=moments.read(tx, AGENCY),
            bank=providers.OfflineBank(),
        )
