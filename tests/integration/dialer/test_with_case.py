"""The dialer against the real case service: a portfolio becomes call candidates, calls become contacts and promises."""

import collections
import datetime
from collections.abc import Callable, Iterator, Sequence
from uuid import UUID

import grpc
import pytest
from google.type import money_pb2

from case_service import rpc as case_rpc
from case_service import worker as case_worker
from case_service.providers import calendars
from case_service.providers import slices as case_slices
from dialer_service import worker
from recupera.agreement.v1 import agreement_facts_pb2
from recupera.case.v1 import case_pb2, case_service_pb2, case_service_pb2_grpc
from recupera.dialer.v1 import dialer_pb2
from recupera.imports.v1 import imports_facts_pb2, imports_pb2
from servicekit import dates, db, ids, testing
from servicekit import rpc as server
from support import portfolio

from .conftest import AGENCY, DATE, NOW, Dialer, Keys, ServerSettings

CASE_COUNT = 40
LATE = 10
"""Days past due of every title: within the default ladder's first call."""


class Cut:
    """Slices as the import service cuts them, without the import service."""

    def __init__(self, arrow: Sequence[bytes]) -> None:
        self._arrow = arrow

    def fetch(self, agency: UUID, *, batch_id: UUID, slice_: int, columns: Sequence[str]) -> bytes:
        return case_slices.csv(self._arrow[slice_], columns)


def cpf(nine: str) -> str:
    """Nine digits with their two check digits."""
    for weights in (range(10, 1, -1), range(11, 1, -1)):
        remainder = sum(int(digit) * weight for digit, weight in zip(nine, weights, strict=True)) % 11
        nine += str(0 if remainder < 2 else 11 - remainder)
    return nine


def rows() -> list[dict[str, str]]:
    """Cases of as many debtors, every fourth of the debtor before."""
    made = []
    for number in range(CASE_COUNT):
        debtor = f"{400_000_000 + number - (number % 4 == 3)}"
        made.append(
            {
                **portfolio.PORTFOLIO,
                "contract_reference": f"K-{number}",
                "title_reference": f"T-{number}",
                "debtor_document": cpf(debtor),
                "phone_1": f"+55119{81_000_000 + int(debtor) % 1000:08d}",
                "principal": f"{100 + number},00",
                "due_date": (DATE - datetime.timedelta(days=LATE)).isoformat(),
            }
        )
    return made


@pytest.fixture
def case_engine(engine: Callable[[str], db.Engine]) -> db.Engine:
    return engine("case")


@pytest.fixture
def case_address(case_engine: db.Engine, keys: Keys) -> Iterator[str]:
    """The real one instead of the test's."""
    servicer = case_rpc.CaseServicer(case_engine, holidays=calendars.is_holiday, allow_simulated_clock=True)
    running = server.run_server(
        settings=ServerSettings(keys.jwks),
        add_servicers=lambda to: case_rpc.add_to(to, servicer),
        descriptors=case_rpc.SERVICES,
    )
    yield f"127.0.0.1:{running.port}"
    running.stop()


def test_from_the_portfolio_to_the_promise(
    dialer: Dialer, case_engine: db.Engine, case_address: str, keys: Keys
) -> None:
    read = portfolio.read(portfolio.content(rows()), business_date=DATE, agency=AGENCY)
    assert read.rejects == []
    wiring = case_worker.Wiring(slices=Cut([one.arrow for one in read.slices]), late_slice_minutes=60)
    services = [
        testing.Service(case_engine, case_worker.CaseWorker, wiring),
        testing.Service(dialer.engine, worker.DialerWorker, dialer.wiring),
    ]
    connection = grpc.insecure_channel(case_address)
    stub = case_service_pb2_grpc.CaseServiceStub(connection)
    token = keys.token(AGENCY, "case.read", "case.admin")

    def ask(method: str, request: object) -> object:
        call = getattr(stub, method)
        return call(request, timeout=20, metadata=(("authorization", f"Bearer {token}"),))

    here = f"agencies/{AGENCY}"
    ask(
        "SetClock",
        case_service_pb2.SetClockRequest(
            name=f"{here}/clock",
            time_zone="America/Sao_Paulo",
            simulated=True,
            now=dates.to_timestamp(NOW),
            currency="BRL",
        ),
    )
    batch = ids.new()
    ready = [
        imports_facts_pb2.ImportFact(
            agency=AGENCY.bytes,
            subject=batch.bytes,
            slice_ready=imports_facts_pb2.SliceReady(
                batch_id=batch.bytes,
                slice=number,
                kind=imports_pb2.BATCH_KIND_PORTFOLIO,
                rows=one.rows,
                slices=len(read.slices),
            ),
        )
        for number, one in enumerate(read.slices)
    ]
    testing.deliver(case_engine, case_worker.CaseWorker, wiring, ready)
    ask("RunDay", case_service_pb2.RunDayRequest(parent=here, date=dates.to_proto(DATE)))
    testing.drain(services)
    for partition in range(24):
        done = agreement_facts_pb2.AgreementFact(
            agency=AGENCY.bytes,
            subject=AGENCY.bytes,
            day_done=agreement_facts_pb2.DayDone(date=dates.to_proto(DATE), partition=partition),
        )
        testing.deliver(case_engine, case_worker.CaseWorker, wiring, [done], partition=partition)
    testing.drain(services)

    campaign = dialer.make()
    assert campaign.list_size == CASE_COUNT
    dialer.staff(campaign, 4)
    dialer.start(campaign)
    promised: dict[str, money_pb2.Money] = {}
    while True:
        dialer.tick()
        testing.drain(services)
        found = dialer.campaign(campaign)
        if not found.cases_due and not found.calls_live:
            break
        for call in dialer.connected():
            amount = money_pb2.Money(currency_code="BRL", units=50)
            dialer.dispose(
                call,
                dialer_pb2.Call.DISPOSITION_PROMISE_TO_PAY,
                promise_date=dates.to_proto(DATE + datetime.timedelta(days=3)),
                promise_amount=amount,
            )
            promised[call.case_id] = amount
    testing.drain(services)
    assert promised
    assert found.cases_left == 0
    calls = dialer.calls()
    states = collections.Counter(dialer_pb2.Call.State.Name(call.state) for call in calls)
    closed = dialer.rows("SELECT rule FROM campaign_entries WHERE state = 'CLOSED'")
    assert {row["rule"] for row in closed} == {"R05"}, "the second case of a debtor who was spoken to"
    assert len(calls) + len(closed) == CASE_COUNT
    assert states["STATE_BLOCKED"] == 0, [call.rule for call in calls if call.rule]

    summary = ask("SummarizeCases", case_service_pb2.SummarizeCasesRequest(parent=here))
    assert isinstance(summary, case_service_pb2.SummarizeCasesResponse)
    assert (summary.promises, summary.contacts, summary.parked) == (len(promised), len(calls), 0)
    for call in calls:
        timeline = ask(
            "ListTimeline", case_service_pb2.ListTimelineRequest(parent=f"{here}/cases/{call.case_id}")
        )
        assert isinstance(timeline, case_service_pb2.ListTimelineResponse)
        assert timeline.entries
        case = ask("GetCase", case_service_pb2.GetCaseRequest(name=f"{here}/cases/{call.case_id}"))
        assert isinstance(case, case_pb2.Case)
        if call.case_id in promised:
            assert case.sub_state == case_pb2.Case.SUB_STATE_PTP
        else:
            assert case.sub_state == case_pb2.Case.SUB_STATE_NO_CONTACT
    connection.close()
