"""An agreement service on a real PostgreSQL, driven through its use cases and its worker's handlers."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import psycopg
import psycopg.rows
import pytest
import sqlalchemy
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from agreement_service import providers, rpc, worker
from agreement_service.domain import limits, plans
from agreement_service.store import accounts as account_store
from agreement_service.store import agreements as agreement_store
from agreement_service.store import payments as payment_store
from agreement_service.usecases import agreements, life, moments, payments, summary, titles
from recupera.agreement.v1 import (
    agreement_service_pb2_grpc,
    approval_service_pb2_grpc,
    instrument_service_pb2_grpc,
    ledger_service_pb2_grpc,
    mandate_service_pb2_grpc,
    offer_service_pb2_grpc,
    remittance_service_pb2_grpc,
    terms_service_pb2_grpc,
)
from recupera.case.v1 import case_facts_pb2
from servicekit import auth, clock, dates, db, ids
from servicekit import rpc as server
from support import databases

FRIDAY = datetime.date(2026, 11, 20)
"""The business date on which most tests start."""


@dataclasses.dataclass(frozen=True)
class Placed:
    """A title as placed."""

    case_id: uuid.UUID
    title_id: uuid.UUID
    reference: str
    due_date: datetime.date
    minor: int


class NoSlices:
    """Tests that need slices give rows themselves."""

    def payments(self, agency: uuid.UUID, batch_id: uuid.UUID, number: int) -> Sequence[dict[str, Any]]:
        """None."""
        return []


class Directory:
    """What `case` would answer: every debtor has a name with an accent."""

    def of(self, agency: uuid.UUID, case_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, providers.Parties]:
        """A debtor a case."""
        return {
            case_id: providers.Parties(
                debtor_name="João Conceição",
                debtor_document_type="CPF",
                debtor_document="39053344705",
                debtor_address="Rua das Laranjeiras, 12",
                debtor_city="São Paulo",
                debtor_region="SP",
                debtor_postal_code="01234567",
                creditor_name="Lojas Andrade S.A.",
                creditor_document="16727230000197",
                creditor_address="Av. Paulista, 1000, São Paulo",
            )
            for case_id in case_ids
        }


class Agency:
    """One agency's money: what tests say and see."""

    def __init__(self, engine: db.Engine, owner_url: str, *, agency: uuid.UUID | None = None) -> None:
        self.engine = engine
        self.owner_url = owner_url
        self.agency = agency or ids.new()
        self.bank: providers.BankProvider = providers.OfflineBank()
        self.parties: providers.PartyDirectory = Directory()
        self.creditor_id = ids.new()
        self.creditor = "CRED-1"
        self._numbers = 0
        self.set_clock(FRIDAY)

    @property
    def wiring(self) -> worker.Wiring:
        return worker.Wiring(
            slices=NoSlices(), parties=self.parties, bank=self.bank, allow_simulated_clock=True
        )

    def tx(self) -> Any:
        """A transaction of the agency."""
        return db.begin(self.engine, agency=self.agency)

    def set_clock(self, date: datetime.date) -> None:
        """A simulated clock that stands at 10:00 in Sao Paulo."""
        instant = datetime.datetime.combine(date, datetime.time(13), datetime.UTC)
        with self.tx() as tx:
            found = tx.execute(
                sqlalchemy.text("SELECT version FROM agency_clock WHERE agency = :agency"),
                {"agency": self.agency},
            ).scalar()
            clock.store(
                tx,
                clock.AgencyClock(
                    agency=self.agency,
                    time_zone="America/Sao_Paulo",
                    simulated=True,
                    base_machine=instant,
                    base_agency=instant,
                    speed=decimal.Decimal(0),
                    business_date=date,
                    version=(found or 0) + 1,
                ),
            )

    def moment(self, tx: db.Transaction) -> moments.Moment:
        """Now."""
        return moments.read(tx, self.agency)

    @property
    def today(self) -> datetime.date:
        """The business date."""
        with self.tx() as tx:
            return self.moment(tx).business_date

    # -- titles ----------------------------------------------------------------------------------------------------

    def fact(
        self,
        rows: Sequence[tuple[datetime.date, int]],
        *,
        case_id: uuid.UUID | None = None,
        debtor_id: uuid.UUID | None = None,
        contract: str | None = None,
        currency: str = "BRL",
        penalty_e4: int | None = 20_000,
        monthly_e4: int | None = 10_000,
        product: str = "",
        natural_person: bool = False,
        batch_id: uuid.UUID | None = None,
        creditor: str | None = None,
        creditor_id: uuid.UUID | None = None,
        references: Sequence[str] | None = None,
        title_ids: Sequence[uuid.UUID] | None = None,
    ) -> tuple[case_facts_pb2.TitlesPlaced, list[Placed]]:
        """A TitlesPlaced of one case; rows are (due date, principal in cents)."""
        case_id = case_id or ids.new()
        debtor_id = debtor_id or ids.new()
        self._numbers += 1
        fact = case_facts_pb2.TitlesPlaced(batch_id=batch_id.bytes if batch_id else b"")
        fact.table_contracts.add(
            creditor_id=(creditor_id or self.creditor_id).bytes,
            creditor_reference=creditor or self.creditor,
            contract_reference=contract or f"CT-{self._numbers}",
            currency=currency,
            product=product,
            natural_person=natural_person,
        )
        fact.table_terms.add(
            penalty_rate_e4=penalty_e4,
            monthly_interest_rate_e4=monthly_e4,
            no_penalty=penalty_e4 is None,
            no_monthly_interest=monthly_e4 is None,
        )
        placed = []
        for place, (due_date, minor) in enumerate(rows):
            reference = references[place] if references else f"T-{self._numbers}-{place}"
            title_id = title_ids[place] if title_ids else ids.new()
            fact.case_ids.append(case_id.bytes)
            fact.title_ids.append(title_id.bytes)
            fact.debtor_ids.append(debtor_id.bytes)
            fact.title_references.append(reference)
            fact.principal_minor.append(minor)
            fact.due_days.append(dates.epoch_days(due_date))
            fact.contract_index.append(0)
            fact.terms_index.append(0)
            placed.append(Placed(case_id, title_id, reference, due_date, minor))
        return fact, placed

    def take(self, *facts: case_facts_pb2.TitlesPlaced) -> None:
        """Apply TitlesPlaced."""
        with self.tx() as tx:
            titles.expect(tx=tx, agency=self.agency)
            titles.place(tx=tx, agency=self.agency, placed=facts, moment=self.moment(tx), bank=self.bank)

    def place(self, *rows: tuple[datetime.date, int], **options: Any) -> list[Placed]:
        """Place titles of one case."""
        fact, placed = self.fact(rows, **options)
        self.take(fact)
        return placed

    def introduce(self, creditor_id: uuid.UUID | None = None) -> uuid.UUID:
        """Make a creditor known without a title of its; the agency's own without one."""
        found = creditor_id or self.creditor_id
        with psycopg.connect(self.owner_url) as connection:
            values = [self.agency, found, self.creditor if creditor_id is None else str(found)]
            connection.execute("INSERT INTO creditors VALUES (%s, %s, %s)", values)
        return found

    def title(self, placed: Placed) -> Any:
        """A title's row."""
        return self.rows("SELECT * FROM titles WHERE id = %s", placed.title_id)[0]

    # -- agreements ------------------------------------------------------------------------------------------------

    def propose(
        self,
        *case_ids: uuid.UUID,
        terms: plans.Terms,
        validity: int = 5,
        broken: int = 10,
        authority: limits.Authority = limits.SYSTEM,
        options: dict[str, Any] | None = None,
        **choice: Any,
    ) -> uuid.UUID:
        """Store a proposal; `choice` is more of the negotiation, `options` more of the proposal."""
        with self.tx() as tx:
            return agreements.propose(
                tx=tx,
                agency=self.agency,
                negotiation=agreements.Negotiation(case_ids=list(case_ids), terms=terms, **choice),
                authority=authority,
                validity_days=validity,
                broken_days=broken,
                moment=self.moment(tx),
                **(options or {}),
            )

    def accept(self, agreement_id: uuid.UUID, version: int | None = None) -> None:
        """The debtor says yes."""
        with self.tx() as tx:
            life.accept(
                tx=tx,
                agency=self.agency,
                agreement_id=agreement_id,
                version=version,
                moment=self.moment(tx),
                bank=self.bank,
            )

    def cancel(self, agreement_id: uuid.UUID) -> None:
        """End it."""
        with self.tx() as tx:
            life.cancel(
                tx=tx,
                agency=self.agency,
                agreement_id=agreement_id,
                reason="test",
                version=None,
                moment=self.moment(tx),
                bank=self.bank,
            )

    def agree(self, *case_ids: uuid.UUID, terms: plans.Terms, **options: Any) -> uuid.UUID:
        """Propose and accept."""
        agreement_id = self.propose(*case_ids, terms=terms, **options)
        self.accept(agreement_id)
        return agreement_id

    def agreement(self, agreement_id: uuid.UUID) -> agreement_store.Record:
        """An agreement's row."""
        with self.tx() as tx:
            return agreement_store.get(tx, self.agency, [agreement_id])[agreement_id]

    def instalments(self, agreement_id: uuid.UUID) -> list[Any]:
        """Its instalments in order."""
        with self.tx() as tx:
            rows = account_store.instalments(tx, self.agency, [agreement_id])[agreement_id]
        return sorted(rows, key=lambda row: row.number)

    def instruments(self, agreement_id: uuid.UUID) -> list[Any]:
        """Its instruments by instalment and kind."""
        return self.rows(
            "SELECT instruments.*, instalments.number FROM instruments JOIN instalments"
            " ON instalments.id = instalment_id WHERE agreement_id = %s ORDER BY number, kind, generation",
            agreement_id,
        )

    # -- payments --------------------------------------------------------------------------------------------------

    def report(self, minor: int, **fields: Any) -> payments.Report:
        """A credit as reported."""
        self._numbers += 1
        return payments.Report(
            **{
                "creditor_reference": self.creditor,
                "account": "main",
                "means": "PIX",
                "bank_reference": f"E2E-{self._numbers:06d}",
                "value_date": self.today,
                "currency": "BRL",
                "caller": "users/1",
                **fields,
            },
            amount_minor=minor,
        )

    def enter(self, *reports: payments.Report) -> payments.Entered:
        """Enter credits."""
        with self.tx() as tx:
            return payments.enter(
                tx=tx, agency=self.agency, reports=reports, moment=self.moment(tx), bank=self.bank
            )

    def pay(self, minor: int, **fields: Any) -> uuid.UUID:
        """Enter one credit; its payment's id."""
        report = self.report(minor, **fields)
        entered = self.enter(report)
        if entered.refused:
            raise entered.refused[0][1]
        return entered.payments[report.identity]

    def payment(self, payment_id: uuid.UUID) -> payment_store.Payment:
        """A payment's row."""
        with self.tx() as tx:
            return payment_store.get(tx, self.agency, [payment_id])[payment_id]

    def allocations(self, payment_id: uuid.UUID) -> list[tuple[str, int]]:
        """Components and amounts of a payment."""
        with self.tx() as tx:
            rows = payment_store.allocations(tx, self.agency, [payment_id]).get(payment_id, [])
        return [(row["component"], row["amount_minor"]) for row in rows]

    def reverse(self, payment_id: uuid.UUID, **options: Any) -> None:
        """The money went back."""
        with self.tx() as tx:
            payments.reverse(
                tx=tx,
                agency=self.agency,
                payment_id=payment_id,
                reason="devolution",
                version=None,
                moment=self.moment(tx),
                bank=self.bank,
                **options,
            )

    # -- days and money --------------------------------------------------------------------------------------------

    def run_day(self, date: datetime.date) -> None:
        """DayOpened in every partition."""
        handler = worker.AgreementWorker()
        handler.engine, handler.wiring = self.engine, self.wiring
        self.set_clock(date)
        for partition in range(24):
            fact = case_facts_pb2.CaseFact(agency=self.agency.bytes)
            fact.day_opened.date.CopyFrom(dates.to_proto(date))
            fact.day_opened.partition = partition
            with self.tx() as tx:
                handler.case_facts(tx, [fact])

    def act(self) -> None:
        """Acts at the bank."""
        worker.act_at_bank(self.engine, self.wiring, self.agency)

    def summary(self, date: datetime.date | None = None) -> summary.Summary:
        """The money identity."""
        with self.tx() as tx:
            today = self.moment(tx).business_date
            return summary.summarize(tx=tx, agency=self.agency, date=date or today, business_date=today)

    def check_money(self) -> summary.Summary:
        """The identity holds today and later, and every balance is the sum of its entries."""
        for days in (0, 1, 40):
            found = self.summary(self.today + datetime.timedelta(days=days))
            for one in found.sums:
                left = one.placed + one.issued + one.charges
                gone = one.received + one.waived + one.written_off + one.withdrawn + one.novated
                assert (left, one.issued) == (one.open + gone, one.novated), one
                cash = one.paid_in - one.reversed - one.refunded
                assert cash == one.received + one.unidentified + one.overpaid, one
        self.check_ledger()
        return self.summary()

    def check_ledger(self) -> None:
        """Titles, instalments, payments and allocations hold what the ledger says."""
        charges = ("correction", "penalty", "interest", "costs", "fees")
        gone = ("received", "waived", "withdrawn", "written_off", "novated")
        sums = {
            f"charged_{one}_minor": f"kind = 'CHARGED' AND component = '{one.upper()}'" for one in charges
        }
        sums |= {f"{one}_minor": f"kind = '{one.upper()}'" for one in gone}
        moved = {f"open_{one}_minor": f"component = '{one.upper()}'" for one in (*charges, "principal")}
        wrong = self.rows(
            f"""
            SELECT titles.id FROM titles LEFT JOIN LATERAL (
                SELECT {
                ", ".join(
                    f"coalesce(sum(amount_minor) FILTER (WHERE {which}), 0) AS {name}"
                    for name, which in sums.items()
                )
            }, {
                ", ".join(
                    f"coalesce(sum(CASE kind WHEN 'CHARGED' THEN amount_minor ELSE -amount_minor END)"
                    f" FILTER (WHERE {which}), 0) AS {name}"
                    for name, which in moved.items()
                )
            }
                FROM postings WHERE postings.title_id = titles.id
            ) AS posted ON true
            WHERE ({", ".join(f"titles.{name}" for name in (*sums, *moved))}) IS DISTINCT FROM
                ({", ".join(f"posted.{name}" for name in (*sums, *moved))} + titles.principal_minor)
            """
        )
        assert not wrong, wrong
        wrong = self.rows(
            """
            SELECT instalments.id FROM instalments LEFT JOIN LATERAL (
                SELECT coalesce(sum(amount_minor) FILTER (WHERE kind = 'CHARGED'), 0) AS charged,
                    coalesce(sum(amount_minor) FILTER (WHERE kind = 'RECEIVED'
                        AND component = 'PLAN_INTEREST'), 0) AS i,
                    coalesce(sum(amount_minor) FILTER (WHERE kind = 'RECEIVED'
                        AND component <> 'PLAN_INTEREST'), 0) AS c
                FROM postings WHERE postings.instalment_id = instalments.id
            ) AS posted ON true
            WHERE (charged_interest_minor, paid_interest_minor, paid_capital_minor) IS DISTINCT FROM (charged, i, c)
            """
        )
        assert not wrong, wrong
        wrong = self.rows(
            """
            SELECT payments.id FROM payments
            WHERE allocated_minor <> (SELECT coalesce(sum(amount_minor), 0) FROM postings
                    WHERE postings.payment_id = payments.id AND kind = 'RECEIVED')
                OR allocated_minor <> (SELECT coalesce(sum(amount_minor), 0) FROM allocations
                    WHERE allocations.payment_id = payments.id)
            """
        )
        assert not wrong, wrong
        wrong = self.rows(
            """
            SELECT agreements.id FROM agreements
            WHERE total_minor <> (SELECT sum(capital_minor + interest_minor) FROM instalments
                WHERE instalments.agreement_id = agreements.id)
            """
        )
        assert not wrong, wrong

    def rows(self, statement: str, *parameters: object) -> list[Any]:
        """What a statement gives, seen by the owner of the tables."""
        with psycopg.connect(self.owner_url, row_factory=psycopg.rows.namedtuple_row) as connection:
            return connection.execute(statement, parameters).fetchall()


@pytest.fixture
def database_of_test(database: Callable[..., databases.Database]) -> databases.Database:
    """A fresh database of the service."""
    return database("agreement")


@pytest.fixture
def agency(
    database_of_test: databases.Database, engine: Callable[[databases.Database], db.Engine]
) -> Iterator[Agency]:
    """One agency; the money adds up when its test ends."""
    made = Agency(engine(database_of_test), database_of_test.owner_url)
    yield made
    made.check_money()


STUBS = (
    agreement_service_pb2_grpc.AgreementServiceStub,
    approval_service_pb2_grpc.ApprovalServiceStub,
    instrument_service_pb2_grpc.InstrumentServiceStub,
    ledger_service_pb2_grpc.LedgerServiceStub,
    mandate_service_pb2_grpc.MandateServiceStub,
    offer_service_pb2_grpc.OfferServiceStub,
    remittance_service_pb2_grpc.RemittanceServiceStub,
    terms_service_pb2_grpc.TermsServiceStub,
)
SCOPES = ("agreement.read", "agreement.write")


class ServerSettings:
    """What `run_server` reads."""

    listen_host = "127.0.0.1"
    rpc_port = 0
    drain_delay = 0.0
    otlp_endpoint = None
    metrics_port = None
    trace_ratio = 1.0
    log_level = "WARNING"

    def __init__(self, jwks_file: Path) -> None:
        self.jwks_file = jwks_file


class Api:
    """Calls with a token, of whichever of the service's gRPC services has the method."""

    def __init__(self, stubs: Sequence[Any], token: Callable[..., str], agency: Any) -> None:
        self.stubs = stubs
        self.token = token
        self.agency = agency
        self.name = f"agencies/{agency.agency}"

    def __call__(self, method: str, request: Any, *, scopes: Any = SCOPES, **claims: Any) -> Any:
        metadata = (("authorization", f"Bearer {self.token(scopes, **claims)}"),)
        stub = next(one for one in self.stubs if hasattr(one, method))
        return getattr(stub, method)(request, timeout=10, metadata=metadata)

    def refused(self, method: str, request: Any, **options: Any) -> tuple[str, str]:
        """Code and reason of a refusal."""
        with pytest.raises(grpc.RpcError) as caught:
            self(method, request, **options)
        info = error_details_pb2.ErrorInfo()
        status = rpc_status.from_call(caught.value)
        assert any(detail.Unpack(info) for detail in status.details)
        return caught.value.code().name, info.reason


@pytest.fixture
def api(agency: Agency, tmp_path: Path) -> Iterator[Api]:
    """The service's gRPC, with tokens."""
    key = auth.generate_key()
    service = auth.generate_key(auth.SERVICE_ISSUER + "import")
    auth.write_key(tmp_path / "import.json", service)
    auth.write_jwks(tmp_path / "jwks.json", [key, service])
    signer = auth.Signer("import", tmp_path / "import.json")

    def token(scopes: Any, **claims: Any) -> str:
        if scopes == "internal":
            return signer.token(agency.agency)
        subject = claims.pop("subject", "users/1")
        return auth.issue(
            key, subject=subject, agency=claims.pop("agency", agency.agency), scopes=scopes, **claims
        )

    running = server.run_server(
        settings=ServerSettings(tmp_path / "jwks.json"),
        add_servicers=lambda to: rpc.add_to(to, agency.engine, agency.bank, agency.parties),
        descriptors=rpc.SERVICES,
    )
    channel = grpc.insecure_channel(f"127.0.0.1:{running.port}")
    yield Api([stub(channel) for stub in STUBS], token, agency)
    channel.close()
    running.stop()
