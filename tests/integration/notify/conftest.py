"""Notify on a real database and a real SMTP server (aiosmtpd).

Only `case` and `agreement`, which it asks, are replaced: by gRPC servers in the test, behind the real guard (token,
scope, agency).
"""

import asyncio
import datetime
import email
import email.message
import email.policy
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import grpc
import pytest
import sqlalchemy
from aiosmtpd import controller, smtp

from notify_service import rpc, worker
from notify_service.domain import messages
from notify_service.providers import mail, remote
from notify_service.worker import dispatch
from recupera.agreement.v1 import (
    agreement_facts_pb2,
    agreement_pb2,
    agreement_service_pb2,
    agreement_service_pb2_grpc,
)
from recupera.case.v1 import case_facts_pb2, case_pb2, case_service_pb2, case_service_pb2_grpc
from recupera.notify.v1 import notify_service_pb2_grpc
from recupera_local import ports
from servicekit import acts, auth, client, dates, db, errors, money, testing, topics
from servicekit import rpc as server
from support import databases

AGENCY = UUID("01890000-0000-7000-8000-000000000001")
OTHER_AGENCY = UUID("01890000-0000-7000-8000-000000000002")
DATE = datetime.date(2026, 3, 2)
NOW = datetime.datetime(2026, 3, 2, 13, 0, tzinfo=datetime.UTC)
SENDER = "cobranca@recupera.example"
_SPACE = UUID("5d2c1a6e-0f6b-4a57-9d0b-3a0b8f6f2f12")


def an_id(*words: object) -> UUID:
    """The same id for the same words."""
    return uuid5(_SPACE, " ".join(str(word) for word in words))


def case(number: int) -> UUID:
    return an_id("case", number)


def person(number: int) -> UUID:
    return an_id("person", number)


def address(number: int) -> str:
    return f"debtor-{number}@example.org"


CASES = {case(number): number for number in range(1, 1_001)}


class CaseService(case_service_pb2_grpc.CaseServiceServicer):
    """Permission: granted, unless the test says otherwise; the same key gets the same answer."""

    def __init__(self) -> None:
        self.refusals: dict[UUID, tuple[str, datetime.datetime | None]] = {}
        self.changes: dict[UUID, dict[str, Any]] = {}
        self.now = NOW
        self.validity = datetime.timedelta(seconds=60)
        self.items: list[case_service_pb2.ContactItem] = []
        self.known = set(CASES)
        self.away = False
        self._answers: dict[bytes, case_service_pb2.ContactAnswer] = {}

    def ReserveContacts(
        self, request: case_service_pb2.ReserveContactsRequest, context: grpc.ServicerContext
    ) -> case_service_pb2.ReserveContactsResponse:
        if self.away:
            context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        assert len(request.items) <= 500
        self.items += request.items
        return case_service_pb2.ReserveContactsResponse(
            answers=[self._answer(item) for item in request.items]
        )

    def BatchGetParties(
        self, request: case_service_pb2.BatchGetPartiesRequest, context: grpc.ServicerContext
    ) -> case_service_pb2.BatchGetPartiesResponse:
        return case_service_pb2.BatchGetPartiesResponse(
            parties=[
                case_service_pb2.Parties(case_id=key)
                for key in request.case_ids
                if UUID(bytes=key) in self.known and request.parent == f"agencies/{AGENCY}"
            ]
        )

    def _answer(self, item: case_service_pb2.ContactItem) -> case_service_pb2.ContactAnswer:
        found = UUID(bytes=item.case_id)
        answer = case_service_pb2.ContactAnswer(key=item.key)
        if found in self.refusals:
            rule, retry = self.refusals[found]
            answer.refused.rule = rule
            if retry is not None:
                answer.refused.retry_time.CopyFrom(dates.to_timestamp(retry))
            return answer
        before = self._answers.get(item.key)
        ends = dates.from_timestamp(before.granted.valid_until, "") if before is not None else None
        if before is not None and ends is not None and self.now <= ends:
            return before  # one that ran out is decided anew
        number = CASES[found]
        granted = answer.granted
        granted.contact_point_id = an_id("contact point", number).bytes
        granted.address = address(number)
        granted.person_id = person(number).bytes
        granted.person_name = f"Fulana de Tal {number}"
        granted.language = "pt-BR"
        granted.creditor_name = "Credor Exemplo S.A."
        granted.creditor_address = "Rua das Amostras, 100, São Paulo"
        granted.creditor_document = "16727230000197"
        granted.contract_reference = f"CONTRATO-{number}"
        granted.valid_until.CopyFrom(dates.to_timestamp(self.now + self.validity))
        for name, value in self.changes.get(found, {}).items():
            setattr(granted, name, value)
        self._answers[item.key] = answer
        return answer


class AgreementService(agreement_service_pb2_grpc.AgreementServiceServicer):
    """Every case owes 103,30: 100,00 of principal and charges, unless the test says otherwise."""

    def __init__(self) -> None:
        self.totals: dict[UUID, int] = {}
        self.unknown: set[UUID] = set()
        self.instalments: dict[UUID, list[tuple[UUID, datetime.date, int]]] = {}
        self.asked: list[tuple[str, datetime.date]] = []
        self.away = False

    def ExplainBalances(
        self, request: agreement_service_pb2.ExplainBalancesRequest, context: grpc.ServicerContext
    ) -> agreement_service_pb2.ExplainBalancesResponse:
        if self.away:
            context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        date = dates.from_proto(request.date, "date")
        if missing := sorted(self.unknown & {UUID(one) for one in request.case_ids}):
            raise errors.ResourceNotFound("no such case", case=missing[0], missing=len(missing))
        self.asked += [(one, date) for one in request.case_ids]
        return agreement_service_pb2.ExplainBalancesResponse(
            balances=[self._balance(request.parent, UUID(one)) for one in request.case_ids]
        )

    def _balance(self, parent: str, found: UUID) -> agreement_service_pb2.CaseBalance:
        balance = agreement_service_pb2.CaseBalance(case_id=str(found))
        if found in self.instalments:
            for agreement, due, minor in self.instalments[found]:
                balance.subjects.append(
                    agreement_pb2.ExplainedBalance(
                        subject=f"{parent}/agreements/{agreement}",
                        due_date=dates.to_proto(due),
                        total=money.to_proto(money.Money(minor, "BRL")),
                    )
                )
            total = sum(minor for _, _, minor in self.instalments[found])
        else:
            total = self.totals.get(found, 103_30)
            if total:
                balance.subjects.append(
                    agreement_pb2.ExplainedBalance(
                        subject=f"{parent}/titles/{an_id('title', found)}",
                        due_date=dates.to_proto(DATE - datetime.timedelta(days=30)),
                        days_past_due=30,
                        total=money.to_proto(money.Money(total, "BRL")),
                        lines=[
                            _line(agreement_pb2.BalanceLine.COMPONENT_PRINCIPAL, total - 3_30),
                            _line(agreement_pb2.BalanceLine.COMPONENT_PENALTY, 2_30),
                            _line(agreement_pb2.BalanceLine.COMPONENT_INTEREST, 1_00),
                        ],
                    )
                )
        balance.total.CopyFrom(money.to_proto(money.Money(total, "BRL")))
        return balance


def _line(component: Any, minor: int) -> agreement_pb2.BalanceLine:
    return agreement_pb2.BalanceLine(
        component=component,
        amount=money.to_proto(money.Money(minor, "BRL")),
        base=money.to_proto(money.Money(100_00, "BRL")),
        rate_e4=20_000,
        days=30,
        source="CDC art. 52 §1",
    )


@dataclass
class Mail:
    """A mail as the server took it."""

    mail_from: str
    to: str
    parsed: email.message.EmailMessage


class MailServer:
    """aiosmtpd; what it answers to RCPT and after the text can be said by address, each answer in turn."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []
        self.at_rcpt: dict[str, list[str]] = {}
        self.at_text: dict[str, list[str]] = {}
        self.text_taken = threading.Event()
        self.hold_text = threading.Event()
        self.connections = 0
        self._controller: controller.Controller | None = None
        self.port = ports.free_ports(1)[0]

    def start(self) -> None:
        made = controller.Controller(self, hostname="127.0.0.1", port=self.port, server_hostname="mx.example")
        made.start()
        self._controller = made

    def stop(self) -> None:
        if self._controller is not None:
            self._controller.stop(no_assert=True)
            self._controller = None

    async def handle_EHLO(
        self, smtp_server: smtp.SMTP, session: Any, envelope: Any, hostname: str, responses: list[str]
    ) -> list[str]:
        self.connections += 1
        session.host_name = hostname
        return responses

    async def handle_RCPT(
        self, smtp_server: smtp.SMTP, session: Any, envelope: Any, recipient: str, options: list[str]
    ) -> str:
        answers = self.at_rcpt.get(recipient, [])
        answer = answers.pop(0) if answers else "250 OK"
        if answer.startswith("250"):
            envelope.rcpt_tos.append(recipient)
        if answer == "HANG UP":
            smtp_server.transport.close()
        return answer

    async def handle_DATA(self, smtp_server: smtp.SMTP, session: Any, envelope: Any) -> str:
        answers = self.at_text.get(envelope.rcpt_tos[0], [])
        answer = answers.pop(0) if answers else "250 OK"
        if answer[0] in "2H":
            parsed = email.message_from_bytes(envelope.content, policy=email.policy.default)
            assert isinstance(parsed, email.message.EmailMessage)
            self.mails.append(Mail(envelope.mail_from, envelope.rcpt_tos[0], parsed))
        if answer == "HANG UP":
            smtp_server.transport.close()
        if answer == "HOLD":
            self.text_taken.set()
            while not self.hold_text.is_set():
                await asyncio.sleep(0.01)
            return "250 OK"
        return answer

    def to(self, number: int) -> list[Mail]:
        return [one for one in self.mails if one.to == address(number)]


@dataclass(frozen=True)
class Keys:
    """Keys and their files, and tokens."""

    user: auth.Key
    jwks: Path
    notify: Path

    def token(self, agency: UUID = AGENCY, *scopes: str) -> str:
        return auth.issue(
            self.user,
            subject="users/tester",
            agency=agency,
            scopes=scopes or ("notify.read", "notify.write", "notify.admin"),
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
    service = auth.generate_key(auth.SERVICE_ISSUER + "notify")
    auth.write_key(folder / "notify.json", service)
    auth.write_jwks(folder / "jwks.json", [user, service])
    return Keys(user, folder / "jwks.json", folder / "notify.json")


@pytest.fixture
def case_service() -> CaseService:
    return CaseService()


@pytest.fixture
def agreement_service() -> AgreementService:
    return AgreementService()


@pytest.fixture
def neighbours(case_service: CaseService, agreement_service: AgreementService, keys: Keys) -> Iterator[str]:
    """Address of both neighbours."""

    def add(target: grpc.Server) -> None:
        case_service_pb2_grpc.add_CaseServiceServicer_to_server(case_service, target)
        agreement_service_pb2_grpc.add_AgreementServiceServicer_to_server(agreement_service, target)

    running = server.run_server(
        settings=ServerSettings(keys.jwks),
        add_servicers=add,
        descriptors=["recupera.case.v1.CaseService", "recupera.agreement.v1.AgreementService"],
    )
    yield f"127.0.0.1:{running.port}"
    running.stop()


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    made = MailServer()
    made.start()
    yield made
    made.hold_text.set()
    made.stop()


@dataclass
class Notify:
    """Notify: its database, its worker's wiring, its RPCs."""

    engine: sqlalchemy.Engine
    owner: sqlalchemy.Engine
    database: databases.Database
    wiring: worker.Wiring
    stub: notify_service_pb2_grpc.NotifyServiceStub
    keys: Keys
    make_dispatcher: Callable[..., dispatch.Dispatcher]
    agency: UUID = AGENCY
    _steps: int = field(default=0)

    # -- facts ---------------------------------------------------------------------------------------------------------

    def case_fact(self, **which: Any) -> case_facts_pb2.CaseFact:
        return case_facts_pb2.CaseFact(
            occurred_at=dates.to_timestamp(NOW),
            business_date=dates.to_proto(DATE),
            agency=self.agency.bytes,
            subject=self.agency.bytes,
            **which,
        )

    def deliver(self, *facts: Any, partition: int = 0, **options: Any) -> None:
        testing.deliver(self.engine, worker.NotifyWorker, self.wiring, facts, partition=partition, **options)

    def set_clock(
        self, now: datetime.datetime = NOW, *, version: int = 1, date: datetime.date = DATE
    ) -> None:
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
        self.deliver(self.case_fact(version=version, clock_changed=changed))

    def steps_due(
        self,
        numbers: Sequence[int],
        *,
        channel: Any = case_pb2.CHANNEL_EMAIL,
        template: str = "reminder-1",
        level: str = "L1",
        date: datetime.date = DATE,
    ) -> case_facts_pb2.CaseFact:
        return self.case_fact(
            steps_due=case_facts_pb2.StepsDue(
                case_ids=[case(number).bytes for number in numbers],
                person_ids=[person(number).bytes for number in numbers],
                step_index=[0 for _ in numbers],
                days_past_due=[30 for _ in numbers],
                open_principal_minor=[100_00 for _ in numbers],
                natural_keys=list(numbers),
                table_steps=[
                    case_facts_pb2.LadderStep(
                        step_id=an_id("step", level).bytes, level=level, channel=channel, template=template
                    )
                ],
                date=dates.to_proto(date),
            )
        )

    def instalments_changed(
        self,
        rows: Sequence[tuple[int, int, datetime.date]],
        state: Any = agreement_pb2.Instalment.STATE_NOTIFIED,
    ) -> agreement_facts_pb2.AgreementFact:
        """(case, instalment number, due date)"""
        return agreement_facts_pb2.AgreementFact(
            occurred_at=dates.to_timestamp(NOW),
            business_date=dates.to_proto(DATE),
            agency=self.agency.bytes,
            instalments_changed=agreement_facts_pb2.InstalmentsChanged(
                case_ids=[case(number).bytes for number, _, _ in rows],
                agreement_ids=[an_id("agreement", number).bytes for number, _, _ in rows],
                instalment_ids=[an_id("instalment", number, which).bytes for number, which, _ in rows],
                numbers=[which for _, which, _ in rows],
                states=[state for _ in rows],
                due_days=[dates.epoch_days(due) for _, _, due in rows],
                open_minor=[50_00 for _ in rows],
            ),
        )

    def published(self, kind: str) -> list[Any]:
        """What waits in the outbox."""
        return [getattr(found.fact, kind) for found in testing.published(self.engine, kind=kind)]

    def told(self) -> list[tuple[str, int, bool, str]]:
        """(state, case, attempted, rule) of every row of every MessagesChanged, in order."""
        from recupera.notify.v1 import notify_pb2

        return [
            (
                notify_pb2.Message.State.Name(body.states[place]).removeprefix("STATE_"),
                CASES[UUID(bytes=body.case_ids[place])],
                body.attempted[place],
                body.rules[place],
            )
            for body in self.published("messages_changed")
            for place in range(len(body.case_ids))
        ]

    # -- RPCs ----------------------------------------------------------------------------------------------------------

    def call(self, method: str, request: Any, *, token: str | None = None) -> Any:
        return getattr(self.stub, method)(
            request,
            timeout=10,
            metadata=(("authorization", f"Bearer {token or self.keys.token(self.agency)}"),),
        )

    # -- sending -------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """One tick of the worker's timer, whatever rest it was taking."""
        dispatcher = self.wiring.dispatcher
        dispatcher._rests.clear()
        dispatcher.tick()

    def states(self) -> dict[int, str]:
        """State by case (one message a case)."""
        return {
            CASES[row["case_id"]]: row["state"] for row in self.rows("SELECT case_id, state FROM messages")
        }

    def rows(self, statement: str, **values: Any) -> list[Any]:
        """As the owner: row-level security does not hold."""
        with self.owner.begin() as connection:
            found = connection.execute(sqlalchemy.text(statement), values)
            return list(found.mappings()) if found.returns_rows else []


@pytest.fixture
def notify(
    database: Callable[..., databases.Database], neighbours: str, mail_server: MailServer, keys: Keys
) -> Iterator[Notify]:
    """Notify whose agency's clock stands at NOW, 10:00 on Monday 2 March 2026 in São Paulo."""
    made = database("notify")
    engine = db.create_engine(made.url, application_name="test notify")
    owner = db.create_engine(made.owner_url, application_name="test owner", pool_size=1)
    channel = client.Channel(neighbours, auth.Signer("notify", keys.notify))
    contacts = remote.CaseClient(channel)

    def make_dispatcher(**limits: int) -> dispatch.Dispatcher:
        return dispatch.Dispatcher(
            engine=engine,
            contacts=contacts,
            balances=remote.AgreementClient(channel),
            providers={
                messages.Channel.EMAIL: mail.Mailer(host="127.0.0.1", port=mail_server.port, sender=SENDER)
            },
            limits=dispatch.Limits(**limits),
        )

    acts.beat(engine, "test")
    wiring = worker.Wiring(dispatcher=make_dispatcher(), allow_simulated_clock=True)
    servicer = rpc.NotifyServicer(engine, contacts=contacts)
    running = server.run_server(
        settings=ServerSettings(keys.jwks),
        add_servicers=lambda to: rpc.add_to(to, servicer),
        descriptors=rpc.SERVICES,
    )
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as connection:
        stub = notify_service_pb2_grpc.NotifyServiceStub(connection)
        found = Notify(engine, owner, made, wiring, stub, keys, make_dispatcher)
        found.set_clock()
        yield found
    running.stop()
    channel.close()
    engine.dispose()
    owner.dispose()


def partition_of(number: int) -> int:
    return topics.partition_of(case(number), 24)
