"""The import service on a real database, with a real gRPC server, and a worker whose timers the test calls."""

from __future__ import annotations

import dataclasses
import datetime
import uuid
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import pytest
import sqlalchemy as sa

from import_service import domain, rpc, settings, worker
from recupera.agreement.v1 import agreement_facts_pb2
from recupera.case.v1 import case_facts_pb2
from recupera.imports.v1 import imports_pb2, imports_service_pb2, imports_service_pb2_grpc
from servicekit import auth, clock, db, delivery, ids, testing
from servicekit import rpc as server
from servicekit import settings as settings_module

AGENCY = uuid.UUID("01890000-0000-7000-8000-000000000001")
OTHER = uuid.UUID("01890000-0000-7000-8000-000000000002")
BUSINESS_DATE = datetime.date(2026, 11, 23)
NOW = datetime.datetime(2026, 11, 23, 13, 0, tzinfo=datetime.UTC)


@dataclasses.dataclass
class FakeRemote:
    """Stands for case and agreement: notes the calls, refuses or fails where the test says so."""

    calls: list[tuple[uuid.UUID, domain.RollbackStep]] = dataclasses.field(default_factory=list)
    errors: dict[domain.RollbackStep, list[Exception]] = dataclasses.field(default_factory=dict)
    references: dict[uuid.UUID, str] = dataclasses.field(default_factory=dict)

    def creditor_reference(self, agency: uuid.UUID, creditor: uuid.UUID) -> str | None:
        return self.references.get(creditor)

    def roll_back(self, agency: uuid.UUID, batch_id: uuid.UUID, step: domain.RollbackStep) -> None:
        self.calls.append((batch_id, step))
        if self.errors.get(step):
            raise self.errors[step].pop(0)


class Site:
    """What a test works with."""

    def __init__(self, engine: sa.Engine, folder: Path, *, max_file_bytes: int = 64 * 1024 * 1024) -> None:
        self.engine = engine
        self.remote = FakeRemote()
        self.wiring = worker.Wiring(
            remote=self.remote,
            allow_simulated_clock=True,
            max_error_percent=Decimal(5),
            slice_retention_days=30,
        )
        self.worker = self.new_worker()
        key, service_key = auth.generate_key(), auth.generate_key(auth.SERVICE_ISSUER + "case")
        self._key = key
        auth.write_jwks(folder / "jwks.json", [key, service_key])
        auth.write_key(folder / "case.json", service_key)
        self._signer = auth.Signer("case", folder / "case.json")
        found = settings.Settings(
            database_url="unused",
            kafka=settings_module.Brokers(bootstrap="unused"),
            rpc_port=0,
            jwks_file=folder / "jwks.json",
            service_key_file=folder / "case.json",
            case_address="unused",
            agreement_address="unused",
            max_file_bytes=max_file_bytes,
            drain_delay=0,
        )
        servicer = rpc.ImportServicer(engine=engine, settings=found)
        self.server = server.run_server(
            settings=found,
            add_servicers=lambda target: imports_service_pb2_grpc.add_ImportServiceServicer_to_server(
                servicer, target
            ),
            descriptors=["recupera.imports.v1.ImportService"],
        )
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.server.port}")
        self.stub = imports_service_pb2_grpc.ImportServiceStub(self.channel)

    def new_worker(self) -> Any:
        """A worker as a process that was started again would have it."""
        return delivery.instance(worker.ImportWorker, engine=self.engine, wiring=self.wiring)

    def token(
        self, agency: uuid.UUID = AGENCY, *, creditor: uuid.UUID | None = None, internal: bool = False
    ) -> Any:
        """Call metadata."""
        if internal:
            return (("authorization", f"Bearer {self._signer.token(agency)}"),)
        text = auth.issue(
            self._key,
            subject="tester",
            agency=agency,
            scopes=["import.read", "import.write"],
            creditor=creditor,
            lifetime=datetime.timedelta(minutes=5),
        )
        return (("authorization", f"Bearer {text}"),)

    def call(self, method: Any, request: Any, **kwargs: Any) -> Any:
        """A call with a deadline and a token."""
        return method(request, timeout=30, metadata=self.token(**kwargs))

    def upload(
        self,
        content: bytes,
        *,
        kind: int = imports_pb2.BATCH_KIND_PORTFOLIO,
        agency: uuid.UUID = AGENCY,
        creditor: uuid.UUID | None = None,
        pieces: int = 100_000,
        **header: Any,
    ) -> imports_pb2.Batch:
        """Upload over gRPC."""

        def requests() -> Iterator[imports_service_pb2.UploadBatchRequest]:
            yield imports_service_pb2.UploadBatchRequest(
                header=imports_service_pb2.UploadHeader(
                    parent=f"agencies/{agency}", kind=kind, file_name="file.csv", **header
                )
            )
            for start in range(0, len(content), pieces):
                yield imports_service_pb2.UploadBatchRequest(content=content[start : start + pieces])

        return self.stub.UploadBatch(requests(), timeout=60, metadata=self.token(agency, creditor=creditor))

    def get(self, name: str, agency: uuid.UUID = AGENCY) -> imports_pb2.Batch:
        """GetBatch."""
        return self.call(self.stub.GetBatch, imports_service_pb2.GetBatchRequest(name=name), agency=agency)

    def read(self, content: bytes, **kwargs: Any) -> imports_pb2.Batch:
        """Upload a file and let the worker read it."""
        name = self.upload(content, **kwargs).name
        self.worker.read_files()
        return self.get(name, kwargs.get("agency", AGENCY))

    def rejects(self, name: str) -> list[tuple[int, str, str]]:
        """(row, field, code) of all rejected rows, by small pages."""
        found: list[tuple[int, str, str]] = []
        token = ""
        while True:
            page = self.call(
                self.stub.ListRejectedRows,
                imports_service_pb2.ListRejectedRowsRequest(parent=name, page_size=3, page_token=token),
            )
            found += [(one.row, one.field, one.code) for one in page.rejected_rows]
            token = page.next_page_token
            if not token:
                return found

    def download(self, name: str) -> bytes:
        """The reject file."""
        request = imports_service_pb2.DownloadRejectsRequest(name=name)
        return b"".join(piece.data for piece in self.call(self.stub.DownloadRejects, request))

    def slice(self, name: str, number: int) -> bytes:
        """FetchSlice, as case calls it."""
        request = imports_service_pb2.FetchSliceRequest(name=name, slice=number)
        answers = self.stub.FetchSlice(request, timeout=30, metadata=self.token(internal=True))
        return b"".join(answer.arrow_ipc for answer in answers)

    def ready_slices(self) -> list[tuple[int, Any]]:
        """(partition, SliceReady) that were published."""
        return [
            (one.partition, one.fact.slice_ready)
            for one in testing.published(self.engine, kind="slice_ready")
        ]

    def states(self) -> list[str]:
        """States that were published, in order."""
        return [
            imports_pb2.Batch.State.Name(one.fact.batch_changed.state).removeprefix("STATE_")
            for one in testing.published(self.engine, kind="batch_changed")
        ]

    def applied(
        self,
        name: str,
        number: int,
        *,
        applied: int,
        unchanged: int = 0,
        rejects: Sequence[tuple[int, str, str]] = (),
        payments: bool = False,
        fact_id: bytes = b"",
    ) -> None:
        """Deliver SliceApplied, from case or (payments) from agreement."""
        module: Any = agreement_facts_pb2 if payments else case_facts_pb2
        fact = (agreement_facts_pb2.AgreementFact if payments else case_facts_pb2.CaseFact)(
            fact_id=fact_id or ids.new().bytes,
            agency=AGENCY.bytes,
            subject=uuid.UUID(name.rpartition("/")[2]).bytes,
            slice_applied=module.SliceApplied(
                batch_id=uuid.UUID(name.rpartition("/")[2]).bytes,
                slice=number,
                applied=applied,
                unchanged=unchanged,
                rejects=[
                    module.RowReject(row=row, field=field, code=code, expected="what was expected")
                    for row, field, code in rejects
                ],
            ),
        )
        testing.deliver(self.engine, worker.ImportWorker, self.wiring, [fact])

    def apply_all(self, name: str, *, payments: bool = False) -> imports_pb2.Batch:
        """Let every published slice of the batch be applied whole."""
        batch_id = uuid.UUID(name.rpartition("/")[2]).bytes
        for _, ready in self.ready_slices():
            if ready.batch_id == batch_id:
                self.applied(name, ready.slice, applied=ready.rows, payments=payments)
        return self.get(name)


@pytest.fixture
def make_site(engine: Callable[[str], sa.Engine], tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Make a site with both agencies' clocks at the first business date."""
    made: list[Site] = []

    def make(**kwargs: Any) -> Site:
        target = engine("import")
        for agency in (AGENCY, OTHER):
            with db.begin(target, agency=agency) as tx:
                clock.store(
                    tx,
                    clock.AgencyClock(
                        agency=agency,
                        time_zone="America/Sao_Paulo",
                        simulated=True,
                        base_machine=NOW,
                        base_agency=NOW,
                        speed=Decimal(0),
                        business_date=BUSINESS_DATE,
                        version=1,
                    ),
                )
        made.append(Site(target, tmp_path, **kwargs))
        return made[-1]

    yield make
    for site in made:
        site.channel.close()
        site.server.stop()


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    """One site."""
    return make_site()
