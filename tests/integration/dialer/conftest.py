"""A dialer on a real database. Only the case service, which it asks for permission, is a gRPC server in the test."""

import contextlib
import datetime
import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import grpc
import pytest
import sqlalchemy
from google.type import money_pb2
from opentelemetry.metrics import CallbackOptions

from dialer_service import providers, rpc, store, worker
from recupera.case.v1 import case_facts_pb2, case_pb2, case_service_pb2, case_service_pb2_grpc
from recupera.dialer.v1 import dialer_pb2, dialer_service_pb2, dialer_service_pb2_grpc
from servicekit import auth, client, dates, db, delivery, testing
from servicekit import rpc as server
from support import databases

AGENCY = UUID("01890000-0000-7000-8000-000000000001")
OTHER_AGENCY = UUID("01890000-0000-7000-8000-000000000002")
DATE = datetime.date(2026, 3, 2)
NOW = datetime.datetime(2026, 3, 2, 13, 0, tzinfo=datetime.UTC)
_SPACE = UUID("5d2c1a6e-0f6b-4a57-9d0b-3a0b8f6f2f11")


def an_id(*words: object) -> UUID:
    """The same id for the same words."""
    return uuid5(_SPACE, " ".join(str(word) for word in words))


def natural_key(number: int) -> int:
    """64 bits, as the case service makes them, of case `number`."""
    return int.from_bytes(hashlib.sha256(f"case {number}".encode()).digest()[:8])


class CaseService(case_service_pb2_grpc.CaseServiceServicer):
    """Permission: granted, unless the test says otherwise. Notes every request."""

    def __init__(self) -> None:
        self.refusals: dict[UUID, tuple[str, datetime.datetime | None]] = {}
        self.requests: list[list[UUID]] = []
        self.asked: list[UUID] = []
        self.before_answer: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    def ReserveContacts(
        self, request: case_service_pb2.ReserveContactsRequest, context: grpc.ServicerContext
    ) -> case_service_pb2.ReserveContactsResponse:
        with self._lock:
            self.requests.append([UUID(bytes=item.key) for item in request.items])
            self.asked += [UUID(bytes=item.case_id) for item in request.items]
        self.before_answer()
        return case_service_pb2.ReserveContactsResponse(
            answers=[self._answer(item) for item in request.items]
        )

    def _answer(self, item: case_service_pb2.ContactItem) -> case_service_pb2.ContactAnswer:
        assert item.channel == case_pb2.CHANNEL_CALL
        case = UUID(bytes=item.case_id)
        answer = case_service_pb2.ContactAnswer(key=item.key)
        if case in self.refusals:
            rule, retry = self.refusals[case]
            answer.refused.rule = rule
            if retry is not None:
                answer.refused.retry_time.CopyFrom(dates.to_timestamp(retry))
            return answer
        answer.granted.contact_point_id = an_id("contact point", case).bytes
        answer.granted.address = "+5511999990000"
        answer.granted.person_id = item.person_id
        answer.granted.open_principal.currency_code = "BRL"
        return answer


@dataclass(frozen=True)
class Keys:
    """Keys and their files, and tokens."""

    user: auth.Key
    jwks: Path
    dialer: Path

    def token(self, agency: UUID = AGENCY, *scopes: str) -> str:
        """A user's token."""
        return auth.issue(
            self.user, subject="users/tester", agency=agency, scopes=scopes or ("dialer.read", "dialer.write")
        )


@dataclass(frozen=True)
class ServerSettings:
    """What `run_server` reads."""

    jwks_file: Path
    listen_host: str = "127.0.0.1"
    rpc_port: int = 0
    drain_delay: float = 0.0
    otlp_endpoint: str | None = None
    metrics_port: int | None = None
    trace_ratio: float = 1.0
    log_level: str = "WARNING"


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("keys")
    user = auth.generate_key()
    service = auth.generate_key(auth.SERVICE_ISSUER + "dialer")
    auth.write_key(folder / "dialer.json", service)
    auth.write_jwks(folder / "jwks.json", [user, service])
    return Keys(user, folder / "jwks.json", folder / "dialer.json")


@pytest.fixture
def case_service() -> CaseService:
    return CaseService()


@pytest.fixture
def case_address(case_service: CaseService, keys: Keys) -> Iterator[str]:
    """Where the case service of the test listens; token, scope and agency are checked as by the real one."""
    name = "recupera.case.v1.CaseService"
    running = server.run_server(
        settings=ServerSettings(keys.jwks),
        add_servicers=lambda to: case_service_pb2_grpc.add_CaseServiceServicer_to_server(case_service, to),
        descriptors=[name],
    )
    yield f"127.0.0.1:{running.port}"
    running.stop()


@dataclass
class Dialer:
    """A dialer: its database, its worker's wiring, its RPCs."""

    engine: sqlalchemy.Engine
    owner: sqlalchemy.Engine
    database: databases.Database
    wiring: worker.Wiring
    stub: dialer_service_pb2_grpc.DialerServiceStub
    keys: Keys
    agency: UUID = AGENCY

    # -- facts of the case service ---------------------------------------------------------------------------------

    def fact(self, **which: Any) -> case_facts_pb2.CaseFact:
        return case_facts_pb2.CaseFact(
            occurred_at=dates.to_timestamp(NOW),
            business_date=dates.to_proto(DATE),
            agency=self.agency.bytes,
            subject=self.agency.bytes,
            **which,
        )

    def deliver(self, *facts: case_facts_pb2.CaseFact, partition: int = 0, **options: Any) -> None:
        testing.deliver(self.engine, worker.DialerWorker, self.wiring, facts, partition=partition, **options)

    def clock_changed(
        self, now: datetime.datetime = NOW, *, version: int = 1, date: datetime.date = DATE
    ) -> case_facts_pb2.CaseFact:
        """A simulated clock that stands still at `now`."""
        changed = case_facts_pb2.ClockChanged(
            time_zone="America/Sao_Paulo",
            simulated=True,
            base_machine=dates.to_timestamp(NOW),
            base_agency=dates.to_timestamp(now),
            speed_thousandths=0,
            business_date=dates.to_proto(date),
            currency="BRL",
        )
        return self.fact(version=version, clock_changed=changed)

    def set_clock(
        self, now: datetime.datetime = NOW, *, version: int = 1, date: datetime.date = DATE
    ) -> None:
        self.deliver(self.clock_changed(now, version=version, date=date))

    def steps_due(
        self,
        numbers: Sequence[int],
        *,
        principals: Sequence[int] | None = None,
        persons: Sequence[int] | None = None,
        channel: Any = case_pb2.CHANNEL_CALL,
        script: str = "first-call",
        date: datetime.date = DATE,
    ) -> case_facts_pb2.CaseFact:
        """Cases by number; each has its own person unless `persons` gives the number of the person."""
        return self.fact(
            steps_due=case_facts_pb2.StepsDue(
                case_ids=[case(number).bytes for number in numbers],
                person_ids=[person(number).bytes for number in persons or numbers],
                step_index=[0 for _ in numbers],
                days_past_due=[30 for _ in numbers],
                open_principal_minor=principals or [100_00 + number for number in numbers],
                natural_keys=[natural_key(number) for number in numbers],
                table_steps=[
                    case_facts_pb2.LadderStep(
                        step_id=an_id("step", script).bytes, level="L1", channel=channel, template=script
                    )
                ],
                date=dates.to_proto(date),
            )
        )

    def cases_changed(
        self, numbers: Sequence[int], state: Any, *, versions: Sequence[int] | None = None
    ) -> case_facts_pb2.CaseFact:
        return self.fact(
            cases_changed=case_facts_pb2.CasesChanged(
                case_ids=[case(number).bytes for number in numbers],
                versions=versions or [1 for _ in numbers],
                states=[state for _ in numbers],
                sub_states=[0 for _ in numbers],
                open_principal_minor=[100_00 for _ in numbers],
            )
        )

    # -- RPCs --------------------------------------------------------------------------------------------------------

    def call(self, method: str, request: Any, *, token: str | None = None) -> Any:
        return getattr(self.stub, method)(
            request,
            timeout=10,
            metadata=(("authorization", f"Bearer {token or self.keys.token(self.agency)}"),),
        )

    def make(self, *, token: str | None = None, **fields: Any) -> dialer_pb2.Campaign:
        """A campaign in DRAFT with seed 7, one try a case, over DATE."""
        values = {"display_name": "Monday", "simulation_seed": 7, "max_attempts": 1, **fields}
        made: dialer_pb2.Campaign = self.call(
            "CreateCampaign",
            dialer_service_pb2.CreateCampaignRequest(
                parent=f"agencies/{self.agency}", campaign=dialer_pb2.Campaign(**values)
            ),
            token=token,
        )
        return made

    def start(self, campaign: dialer_pb2.Campaign) -> dialer_pb2.Campaign:
        started: dialer_pb2.Campaign = self.call(
            "StartCampaign", dialer_service_pb2.StartCampaignRequest(name=campaign.name)
        )
        return started

    def staff(self, campaign: dialer_pb2.Campaign, count: int) -> None:
        """Agents agent-00, agent-01, .. are FREE in the campaign."""
        for number in range(count):
            self.set_agent(number, dialer_pb2.Agent.STATE_FREE, campaign.name)

    def set_agent(self, number: int, state: Any, campaign: str = "") -> dialer_pb2.Agent:
        agent: dialer_pb2.Agent = self.call(
            "SetAgentState",
            dialer_service_pb2.SetAgentStateRequest(
                name=f"agencies/{self.agency}/agents/agent-{number:02d}", state=state, campaign=campaign
            ),
        )
        return agent

    def run(self, numbers: Sequence[int], *, agents: int = 3, **fields: Any) -> dialer_pb2.Campaign:
        """A started campaign over these cases, with agents."""
        self.deliver(self.steps_due(numbers))
        campaign = self.make(**fields)
        self.staff(campaign, agents)
        return self.start(campaign)

    def campaign(self, campaign: dialer_pb2.Campaign) -> dialer_pb2.Campaign:
        """As it is now."""
        found: dialer_pb2.Campaign = self.call(
            "GetCampaign", dialer_service_pb2.GetCampaignRequest(name=campaign.name)
        )
        return found

    def calls(self, **wanted: Any) -> list[dialer_pb2.Call]:
        request = dialer_service_pb2.ListCallsRequest(
            parent=f"agencies/{self.agency}", page_size=1000, **wanted
        )
        return list(self.call("ListCalls", request).calls)

    def connected(self) -> list[dialer_pb2.Call]:
        return self.calls(state=dialer_pb2.Call.STATE_CONNECTED)

    def dispose(self, call: dialer_pb2.Call, disposition: Any = None, **fields: Any) -> dialer_pb2.Call:
        """The disposition given, else one drawn from the call's natural key."""
        disposed: dialer_pb2.Call = self.call("DispositionCall", disposition_of(call, disposition, **fields))
        return disposed

    def until_quiet(self, campaign: dialer_pb2.Campaign) -> dialer_pb2.Campaign:
        """Tick and dispose until nothing is due and no call is live."""
        for _ in range(1000):
            self.tick()
            for call in self.connected():
                self.dispose(call)
            found = self.campaign(campaign)
            if not found.cases_due and not found.calls_live:
                return found
        raise AssertionError(f"never quiet: {found}")

    def drain(self, campaign: dialer_pb2.Campaign) -> dialer_pb2.Campaign:
        drained: dialer_pb2.Campaign = self.call(
            "DrainCampaign", dialer_service_pb2.DrainCampaignRequest(name=campaign.name)
        )
        return drained

    def summary(self, **wanted: Any) -> Any:
        return self.call(
            "SummarizeCalls",
            dialer_service_pb2.SummarizeCallsRequest(parent=f"agencies/{self.agency}", **wanted),
        )

    def settled(self) -> list[str]:
        """The business columns of all rows, and the cases they belong to: their ids are the same in every test."""
        lines = []
        with self.owner.connect() as connection:
            for table in store.METADATA.tables.values():
                kept = [c for c in table.c if c.info["kind"] == "business" or c.name == "case_id"]
                lines += [f"{table.name} {row}" for row in connection.execute(sqlalchemy.select(*kept))]
        return sorted(lines)

    # -- the loop ------------------------------------------------------------------------------------------------------

    def paused_themselves(self) -> dict[str, float]:
        """Campaigns by reason, as the gauge shows them."""
        delivery.instance(worker.DialerWorker, engine=self.engine, wiring=self.wiring).look_at_calls()
        shown = worker._paused._observe(CallbackOptions())
        return {str((one.attributes or {})["reason"]): one.value for one in shown}

    def tick(self) -> None:
        """One tick of the worker's timer, which ends when there is nothing to do however slow the machine is."""
        worker.run_campaigns(self.engine, self.wiring, seconds=120)

    def rows(self, statement: str, **values: Any) -> list[Any]:
        """As the owner: row-level security does not hold."""
        with self.owner.connect() as connection:
            return list(connection.execute(sqlalchemy.text(statement), values).mappings())


def disposition_of(
    call: dialer_pb2.Call, disposition: Any = None, **fields: Any
) -> dialer_service_pb2.DispositionCallRequest:
    """What an agent would say; without `disposition` drawn from the call's natural key."""
    if disposition is None:
        disposition = 1 + call.natural_key % 7
        if disposition == dialer_pb2.Call.DISPOSITION_PROMISE_TO_PAY:
            fields = {
                "promise_date": dates.to_proto(DATE + datetime.timedelta(days=3)),
                "promise_amount": money_pb2.Money(currency_code="BRL", units=10 + call.natural_key % 90),
            }
    return dialer_service_pb2.DispositionCallRequest(name=call.name, disposition=disposition, **fields)


def case(number: int) -> UUID:
    """The id of case `number`; all are of one partition of the test's."""
    return an_id("case", number)


def person(number: int) -> UUID:
    return an_id("person", number)


@pytest.fixture
def another(
    database: Callable[..., databases.Database], case_address: str, keys: Keys
) -> Iterator[Callable[[], Dialer]]:
    """More dialers, each on its own database; all ask the same case service."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(_dialer(database("dialer"), case_address, keys))


@pytest.fixture
def dialer(another: Callable[[], Dialer]) -> Dialer:
    """A dialer whose agency's clock stands at NOW, 10:00 on Monday 2 March 2026 in São Paulo."""
    return another()


@contextlib.contextmanager
def _dialer(made: databases.Database, case_address: str, keys: Keys) -> Iterator[Dialer]:
    engine = db.create_engine(made.url, application_name="test dialer", pool_size=8)
    owner = db.create_engine(made.owner_url, application_name="test owner", pool_size=2)
    channel = client.Channel(case_address, auth.Signer("dialer", keys.dialer))
    wiring = worker.Wiring(
        exchange=providers.SimulatedExchange(),
        permission=providers.CasePermission(channel, timeout=5),
        handling=datetime.timedelta(minutes=15),
        allow_simulated_clock=True,
    )
    servicer = rpc.DialerServicer(engine, promise_max_days=30)
    running = server.run_server(
        settings=ServerSettings(keys.jwks),
        add_servicers=lambda to: rpc.add_to(to, servicer),
        descriptors=rpc.SERVICES,
    )
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as connection:
        stub = dialer_service_pb2_grpc.DialerServiceStub(connection)
        found = Dialer(engine, owner, made, wiring, stub, keys)
        found.set_clock()
        yield found
    running.stop()
    channel.close()
    engine.dispose()
    owner.dispose()
