"""A case service on a real database: facts go through its worker's handlers, calls through its server or
its use cases.
"""

import dataclasses
import datetime
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import polars as pl
import pytest
import sqlalchemy as sa

from case_service import rpc, worker
from case_service.domain import contact
from case_service.domain import permission as permissions
from case_service.providers import calendars, slices
from case_service.store import portfolio
from case_service.usecases import agency as agency_usecases
from case_service.usecases import days, permission
from recupera.agreement.v1 import agreement_facts_pb2, agreement_pb2
from recupera.case.v1 import case_service_pb2_grpc
from recupera.imports.v1 import imports_facts_pb2, imports_pb2
from servicekit import auth, clock, dates, db, testing
from servicekit import rpc as server
from support import databases

AGENCY = UUID("01890000-0000-7000-8000-000000000001")
OTHER_AGENCY = UUID("01890000-0000-7000-8000-000000000002")
DATE = datetime.date(2026, 3, 2)
"""A Monday."""
NOW = datetime.datetime(2026, 3, 2, 13, 0, tzinfo=datetime.UTC)
"""10:00 in São Paulo."""
COLUMNS = ["row", *list(portfolio.COLUMNS)[1:]]
_TYPES = {"text": pl.String, "bigint": pl.Int64, "date": pl.Date}
SCHEMA = {name: _TYPES[kind] for name, kind in zip(COLUMNS, portfolio.COLUMNS.values(), strict=True)}


def row(number: int, **changes: Any) -> dict[str, Any]:
    """A good row: debtor, contract and title ``number``, 10 days past due on DATE, BRL 100."""
    return {
        "row": number + 2,
        "creditor_reference": "LUZ",
        "creditor_name": "Luz do Norte S.A.",
        "creditor_document": "16727230000197",
        "creditor_address": "Rua das Flores 1",
        "contract_reference": f"K-{number}",
        "product": "CARD",
        "debtor_document_type": "CPF",
        "debtor_document": f"{number:011d}",
        "debtor_name": f"Conceição Araújo {number}",
        "country": "BR",
        "region": "SP",
        "city": "São Paulo",
        "phone_1": f"+55119{number:08d}",
        "email": f"debtor{number}@example.com",
        "title_reference": f"T-{number}",
        "title_type": "INVOICE",
        "due_date": DATE - datetime.timedelta(days=10),
        "principal_minor": 100_00,
        "currency": "BRL",
        "penalty_rate_e4": 20_000,
        "monthly_interest_rate_e4": 10_000,
    } | changes


def arrow(*rows: Mapping[str, Any]) -> bytes:
    """The rows as the import service sends them."""
    out = io.BytesIO()
    data = [[found.get(name) for name in COLUMNS] for found in rows]
    pl.DataFrame(data, schema=SCHEMA, orient="row").write_ipc_stream(out)
    return out.getvalue()


class Cut:
    """The import service's slices, without the import service."""

    def __init__(self) -> None:
        self.arrow: dict[tuple[UUID, int], bytes] = {}

    def fetch(self, agency: UUID, *, batch_id: UUID, slice_: int, columns: Sequence[str]) -> bytes:
        return slices.csv(self.arrow[batch_id, slice_], columns)


@dataclasses.dataclass
class House:
    """A case service of one agency."""

    engine: db.Engine
    owner: sa.Engine
    database: databases.Database
    cut: Cut
    agency: UUID = AGENCY

    @property
    def wiring(self) -> worker.Wiring:
        return worker.Wiring(slices=self.cut, late_slice_minutes=10)

    def of(self, agency: UUID) -> "House":
        """The same service, another agency."""
        return dataclasses.replace(self, agency=agency)

    # -- time ----------------------------------------------------------------------------------------------------

    def set_clock(
        self, now: datetime.datetime = NOW, zone: str = "America/Sao_Paulo", currency: str = "BRL"
    ) -> None:
        """A simulated clock that stands still at ``now``."""
        with db.begin(self.engine, agency=self.agency) as tx:
            agency_usecases.set_clock(
                tx,
                self.agency,
                time_zone=zone,
                simulated=True,
                now=now,
                speed_thousandths=0,
                currency=currency,
                allow_simulated=True,
                machine_now=clock.machine_now(),
            )

    def open_day(self, date: datetime.date = DATE) -> None:
        with db.begin(self.engine, agency=self.agency) as tx:
            days.run_day(tx, self.agency, date=date)

    def run_day(self, date: datetime.date = DATE, partitions: Sequence[int] = range(24)) -> None:
        """Open the date and let the agreement service be done with it."""
        self.open_day(date)
        self.day_done(date, partitions)

    def day_done(self, date: datetime.date = DATE, partitions: Sequence[int] = range(24)) -> None:
        for partition in partitions:
            fact = self.agreement_fact(date=date)
            fact.day_done.date.CopyFrom(dates.to_proto(date))
            fact.day_done.partition = partition
            self.deliver(fact, partition=partition)

    # -- facts in ------------------------------------------------------------------------------------------------

    def deliver(self, *facts: Any, partition: int | None = None, allow_parked: bool = False) -> None:
        testing.deliver(
            self.engine, worker.CaseWorker, self.wiring, facts, partition=partition, allow_parked=allow_parked
        )

    def place(self, *rows: Mapping[str, Any], batch: UUID | None = None, slice_: int = 0) -> UUID:
        """A slice of a portfolio; returns the batch."""
        batch = batch or uuid4()
        self.cut.arrow[batch, slice_] = arrow(*rows)
        self.deliver(self.slice_ready(batch, slice_), partition=slice_ % 24)
        return batch

    def slice_ready(self, batch: UUID, slice_: int = 0) -> imports_facts_pb2.ImportFact:
        fact = imports_facts_pb2.ImportFact(agency=self.agency.bytes, subject=batch.bytes)
        fact.slice_ready.batch_id = batch.bytes
        fact.slice_ready.slice = slice_
        fact.slice_ready.kind = imports_pb2.BATCH_KIND_PORTFOLIO
        return fact

    def agreement_fact(
        self, *, version: int = 1, date: datetime.date = DATE, now: datetime.datetime = NOW
    ) -> agreement_facts_pb2.AgreementFact:
        return agreement_facts_pb2.AgreementFact(
            agency=self.agency.bytes,
            subject=self.agency.bytes,
            version=version,
            occurred_at=dates.to_timestamp(now),
            business_date=dates.to_proto(date),
        )

    def titles_changed(
        self, *changes: tuple[str, int], version: int = 1, state: str = "PARTIALLY_PAID", **given: Any
    ) -> None:
        """(title reference, open principal now), one case a fact."""
        for reference, open_minor in changes:
            case_id, title_id = self.one(
                "SELECT case_id, id FROM titles WHERE agency = :agency AND title_reference = :reference"
                " ORDER BY withdrawn LIMIT 1",
                reference=reference,
            )
            fact = self.agreement_fact(version=version, date=given.get("date", DATE))
            changed = fact.titles_changed
            changed.case_ids.append(case_id.bytes)
            changed.title_ids.append(title_id.bytes)
            changed.versions.append(version)
            changed.states.append(agreement_pb2.Title.State.Value(f"STATE_{state}"))
            changed.open_principal_minor.append(open_minor)
            if "due_date" in given:
                changed.due_days.append(dates.epoch_days(given["due_date"]))
            self.deliver(
                fact, partition=self.partition(case_id), allow_parked=given.get("allow_parked", False)
            )

    def agreement_changed(
        self, case_id: UUID, state: str, *, version: int, agreement: UUID, **given: Any
    ) -> None:
        fact = self.agreement_fact(version=version, date=given.get("date", DATE))
        fact.agreement_changed.case_id = case_id.bytes
        fact.agreement_changed.agreement_id = agreement.bytes
        fact.agreement_changed.state = agreement_pb2.Agreement.State.Value(f"STATE_{state}")
        self.deliver(fact, partition=self.partition(case_id))

    # -- looking -------------------------------------------------------------------------------------------------

    def rows(self, statement: str, **params: Any) -> list[Any]:
        """Rows as the service's role sees them in this agency."""
        found: list[Any] = db.read(
            self.engine,
            agency=self.agency,
            statement=sa.text(statement),
            params={"agency": self.agency} | params,
        )
        return found

    def one(self, statement: str, **params: Any) -> Any:
        (found,) = self.rows(statement, **params)
        return found

    def case(self, number: int = 0) -> Any:
        """The case of contract ``number``, as GetCase reads it."""
        return self.one(
            "SELECT cases.* FROM cases JOIN contracts ON contracts.agency = cases.agency"
            " AND contracts.id = cases.contract_id"
            " WHERE cases.agency = :agency AND contracts.reference = :reference",
            reference=f"K-{number}",
        )

    def timeline(self, case_id: UUID) -> list[tuple[str, str]]:
        return [
            (found.kind, found.code)
            for found in self.rows(
                "SELECT kind, code FROM timeline WHERE agency = :agency AND case_id = :case_id ORDER BY id",
                case_id=case_id,
            )
        ]

    def partition(self, case_id: UUID) -> int:
        return int(self.one("SELECT crc32(uuid_send(CAST(:id AS uuid))) % 24 AS p", id=case_id).p)

    def take(self, kind: str | None = None) -> list[Any]:
        """What was published since the last look."""
        found = [published.fact for published in testing.take(self.engine)]
        return found if kind is None else [fact for fact in found if fact.WhichOneof("fact") == kind]

    def digest(self) -> list[tuple[Any, ...]]:
        """Every row of every table that the daily run may write."""
        found = []
        for table in ("cases", "agenda", "timeline", "promises", "holds", "day_slices", "outbox"):
            found += [(table, *row) for row in self.rows(f"SELECT * FROM {table} ORDER BY 1, 2, 3, 4")]
        return found

    def reserve(self, *items: permission.Item) -> list[permission.Answer]:
        with db.begin(self.engine, agency=self.agency) as tx:
            return permission.reserve(tx, self.agency, items=items, holidays=calendars.is_holiday)


def item(
    case_id: UUID,
    *,
    key: UUID | None = None,
    channel: contact.Channel = contact.Channel.CALL,
    person_id: UUID | None = None,
    purpose: permissions.Purpose = permissions.Purpose.COLLECTION,
) -> permission.Item:
    return permission.Item(
        key=key or uuid4(), case_id=case_id, person_id=person_id, channel=channel, purpose=purpose
    )


@pytest.fixture
def house(
    database: Callable[[str], databases.Database], engine: Callable[[databases.Database], db.Engine]
) -> Iterator[House]:
    """A case service whose agency has a clock."""
    found = database("case")
    owner = sa.create_engine(sa.make_url(found.owner_url).set(drivername="postgresql+psycopg"))
    made = House(engine(found), owner, found, Cut())
    made.set_clock()
    yield made
    owner.dispose()


@dataclasses.dataclass(frozen=True)
class ServerSettings:
    """What ``run_server`` reads."""

    jwks_file: Path
    listen_host: str = "127.0.0.1"
    rpc_port: int = 0
    drain_delay: float = 0.0
    otlp_endpoint: str | None = None
    metrics_port: int | None = None
    trace_ratio: float = 1.0
    log_level: str = "WARNING"


@dataclasses.dataclass(frozen=True)
class Api:
    """The server of a house, and callers."""

    stub: case_service_pb2_grpc.CaseServiceStub
    user: auth.Key
    service: auth.Signer

    def __call__(
        self,
        method: str,
        request: Any,
        *,
        agency: UUID = AGENCY,
        scopes: Sequence[str] = ("case.read", "case.write", "case.admin"),
        creditor: UUID | None = None,
    ) -> Any:
        """Call as a person; as another service with scopes ("internal",)."""
        if list(scopes) == ["internal"]:
            token = self.service.token(agency)
        else:
            token = auth.issue(
                self.user, subject="users/tester", agency=agency, scopes=scopes, creditor=creditor
            )
        metadata = [("authorization", f"Bearer {token}")]
        return getattr(self.stub, method)(request, timeout=10, metadata=metadata)


@pytest.fixture
def api(house: House, tmp_path: Path) -> Iterator[Api]:
    """The gRPC server over the house's database."""
    user, service = auth.generate_key(), auth.generate_key(auth.SERVICE_ISSUER + "notify")
    auth.write_key(tmp_path / "notify.json", service)
    auth.write_jwks(tmp_path / "jwks.json", [user, service])
    servicer = rpc.CaseServicer(house.engine, holidays=calendars.is_holiday, allow_simulated_clock=True)
    running = server.run_server(
        settings=ServerSettings(tmp_path / "jwks.json"),
        add_servicers=lambda to: rpc.add_to(to, servicer),
        descriptors=rpc.SERVICES,
    )
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        yield Api(
            case_service_pb2_grpc.CaseServiceStub(channel),
            user,
            auth.Signer("notify", tmp_path / "notify.json"),
        )
    running.stop()
