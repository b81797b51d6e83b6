"""Section `remittance`: a creditor's period of 100,000 settlements closed, beside the same rows by one bare aggregate
plus insert.

Ours is the use case behind CloseStatement on the service's own role: settlements leave the queue, contracts and bands
are found, lines are written under row-level security with foreign keys and checks, summed, the statement closed and
told. By hand: the lines into a table of the same columns and keys (no policy, trigger, foreign key), then their sums.
"""

import dataclasses
import datetime
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from agreement_service.domain import remittance
from agreement_service.usecases import moments
from agreement_service.usecases import remittance as cases
from recupera_local import paths, ports, postgres
from recupera_local.bench import figures, scenes
from servicekit import db, ids, migrations

SETTLEMENTS = 100_000
GOAL = 3.0
ROUNDS = 3
DAY = datetime.date(2026, 11, 23)
AGENCY = ids.new()
CREDITOR = "BENCH"
_FILL = (
    "INSERT INTO creditors (agency, creditor_id, creditor_reference) VALUES (%(agency)s, %(creditor)s, 'BENCH')"
    " ON CONFLICT DO NOTHING",
    """
    INSERT INTO agency_clock (agency, time_zone, simulated, speed, business_date, version)
    VALUES (%(agency)s, 'America/Sao_Paulo', false, 1, %(day)s, 1)
    ON CONFLICT (agency) DO UPDATE SET business_date = %(day)s
    """,
    """
    CREATE TEMPORARY TABLE filled ON COMMIT DROP AS
    SELECT number, uuidv7() AS case_id, uuidv7() AS title_id, uuidv7() AS payment_id
    FROM generate_series(1, %(payments)s) AS number
    """,
    """
    INSERT INTO case_accounts (agency, case_id, creditor_id, debtor_id, contract_reference, currency, partition)
    SELECT %(agency)s, case_id, %(creditor)s, uuidv7(), 'CT-' || number, 'BRL', number %% 24 FROM filled
    """,
    """
    INSERT INTO titles (agency, case_id, id, reference, due_date, payable_until, principal_minor, penalty_rate_e4,
        monthly_rate_e4, accrued_through, open_principal_minor)
    SELECT %(agency)s, case_id, title_id, 'T-' || number, %(day)s - number %% 400, %(day)s - number %% 400, 1000000,
        20000, 10000, %(day)s - number %% 400, 1000000 FROM filled
    """,
    """
    INSERT INTO payments (agency, id, creditor_reference, account, means, bank_reference, value_date, amount_minor,
        currency, state, allocated_minor, case_id, created_at)
    SELECT %(agency)s, payment_id, 'BENCH', 'main', 'PIX', 'E' || %(round)s || '-' || number, %(day)s - 1,
        30000 + number, 'BRL', 'ALLOCATED', 30000 + number, case_id, now() FROM filled
    """,
    """
    INSERT INTO postings (agency, case_id, title_id, component, kind, amount_minor, currency, business_date, value_date,
        payment_id)
    SELECT %(agency)s, case_id, title_id, part.component, 'RECEIVED', part.amount, 'BRL', %(day)s - 1, %(day)s - 1,
        payment_id
    FROM filled CROSS JOIN LATERAL (VALUES ('INTEREST', 10000), ('PRINCIPAL', 20000 + number))
        AS part (component, amount)
    ORDER BY number, part.component
    """,
)
_BANDS = tuple(
    remittance.Band(
        from_day=day, principal_rate_e4=rate, charges_rate_e4=rate + 30_000, costs_rate_e4=500_000
    )
    for day, rate in ((0, 80_000), (31, 120_000), (91, 180_000), (181, 250_000))
)
_BARE = (
    "CREATE TABLE IF NOT EXISTS bare_lines (agency uuid, posting_id bigint, statement_id uuid, contract_id uuid,"
    " days_past_due int, rate_e4 int, amount_minor bigint, percentage_minor bigint, fixed_minor bigint,"
    " tax_added_minor bigint, tax_retained_minor bigint, PRIMARY KEY (agency, posting_id))",
    "CREATE INDEX IF NOT EXISTS bare_lines_statement ON bare_lines (agency, statement_id, posting_id)",
    "CREATE TABLE IF NOT EXISTS bare_statements (id uuid PRIMARY KEY, settlements bigint, gross bigint,"
    " commission bigint, tax bigint)",
)
_BARE_LINES = """
    INSERT INTO bare_lines
    SELECT agency, id, %(statement)s, %(contract)s, days, rate, amount_minor, percentage, 0,
        CAST(round(percentage * 0.05) AS bigint), 0
    FROM (
        SELECT *, CAST(round(CAST(amount_minor AS numeric) * rate * 0.000001) AS bigint) AS percentage
        FROM (
            SELECT *, CASE WHEN days < 31 THEN 80000 WHEN days < 91 THEN 120000 WHEN days < 181 THEN 180000
                ELSE 250000 END + CASE component WHEN 'PRINCIPAL' THEN 0 ELSE 30000 END AS rate
            FROM (
                SELECT postings.agency, postings.id, postings.amount_minor, postings.component,
                    greatest(0, postings.value_date - titles.due_date) AS days
                FROM postings JOIN titles ON titles.agency = postings.agency AND titles.case_id = postings.case_id
                    AND titles.id = postings.title_id
                WHERE postings.agency = %(agency)s AND postings.kind = 'RECEIVED' AND postings.business_date < %(day)s
                    AND NOT EXISTS (SELECT 1 FROM bare_lines
                        WHERE bare_lines.agency = postings.agency AND bare_lines.posting_id = postings.id)
            ) AS aged
        ) AS rated
    ) AS counted ORDER BY id
"""
_BARE_SUMS = """
    INSERT INTO bare_statements
    SELECT %(statement)s, count(*), sum(amount_minor), sum(percentage_minor), sum(tax_added_minor) FROM bare_lines
    WHERE agency = %(agency)s AND statement_id = %(statement)s
    RETURNING settlements, gross, commission, tax
"""


class Differs(RuntimeError):
    """The statement does not say what the bare aggregate says, so their times cannot be compared."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Server:
    owner_url: str
    engine: db.Engine


def run(scene: scenes.Scene) -> list[figures.Figure]:
    """Three rounds, each over settlements of its own, both ways; the medians count."""
    settlements = SETTLEMENTS // 10 if scene.quick else SETTLEMENTS
    ours, bare = [], []
    with _server(scene) as server:
        creditor, contract = ids.new(), ids.new()
        for number in range(ROUNDS):
            day = DAY + datetime.timedelta(days=number)
            _fill(server, creditor, day=day, payments=settlements // 2, number=number)
            if not number:
                _agree(server, contract)
            by_hand, expected = _by_hand(server, contract, day)
            taken, found = _close(server, day)
            if found != expected:
                raise Differs(f"the statement says {found}, by hand: {expected}")
            ours.append(taken)
            bare.append(by_hand)
            scene.say(f"{settlements:,} settlements: {taken:.2f} s, by hand {by_hand:.2f} s")
    middle = ROUNDS // 2
    return [
        figures.Figure(
            name=f"remittance: {settlements:,} settlements",
            unit="s",
            ours=sorted(ours)[middle],
            baseline=sorted(bare)[middle],
            goal=GOAL,
        )
    ]


@contextmanager
def _server(scene: scenes.Scene) -> Iterator[_Server]:
    with scene.folder("remittance") as folder:
        port = ports.free()["postgres"]
        made = postgres.Postgres(folder=folder / "postgres", port=port, log=folder / "postgres.log")
        made.start()
        try:
            made.create_service_databases(["agreement"])
            owner_url = made.url("recupera_agreement", "recupera_agreement_owner")
            migrations.upgrade(owner_url, str(paths.REPO / "services" / "agreement" / "migrations"))
            engine = db.create_engine(
                made.url("recupera_agreement", "recupera_agreement"), application_name="bench"
            )
            yield _Server(owner_url=owner_url, engine=engine)
            engine.dispose()
        finally:
            made.process.stop()


def _fill(server: _Server, creditor: uuid.UUID, *, day: datetime.date, payments: int, number: int) -> None:
    values = {
        "agency": AGENCY,
        "creditor": creditor,
        "day": day,
        "payments": payments,
        "round": number,
    }
    with psycopg.connect(server.owner_url) as connection:
        for statement in _FILL:
            connection.execute(statement, values)
    with psycopg.connect(server.owner_url, autocommit=True) as connection:
        for statement in _BARE:
            connection.execute(statement)
        connection.execute("VACUUM ANALYZE")


def _agree(server: _Server, contract_id: uuid.UUID) -> None:
    with db.begin(server.engine, agency=AGENCY) as tx:
        cases.add_contract(
            tx=tx,
            agency=AGENCY,
            creditor_reference=CREDITOR,
            contract=remittance.Contract(
                contract_id=contract_id,
                currency="BRL",
                valid_from=datetime.date(2020, 1, 1),
                bands=_BANDS,
                tax=remittance.Tax.ISS,
                tax_rate_e4=50_000,
                frequency=remittance.Frequency.DAY,
                grouping=remittance.Grouping.GROUPED,
            ),
            by="bench",
            moment=moments.read(tx, AGENCY),
        )


def _by_hand(server: _Server, contract_id: uuid.UUID, day: datetime.date) -> tuple[float, tuple[int, ...]]:
    values = {"agency": AGENCY, "day": day, "statement": ids.new(), "contract": contract_id}
    started = time.perf_counter()
    with psycopg.connect(server.owner_url) as connection:
        connection.execute(_BARE_LINES, values)
        row = connection.execute(_BARE_SUMS, values).fetchone()
    assert row is not None
    return time.perf_counter() - started, tuple(int(value) for value in row)


def _close(server: _Server, day: datetime.date) -> tuple[float, tuple[int, ...]]:
    started = time.perf_counter()
    with db.begin(server.engine, agency=AGENCY) as tx:
        (made,) = cases.close(
            tx=tx,
            agency=AGENCY,
            creditor_reference=CREDITOR,
            currency="BRL",
            period_end=day,
            by="bench",
            moment=moments.read(tx, AGENCY),
        )
    taken = time.perf_counter() - started
    with db.begin(server.engine, agency=AGENCY) as tx:
        found = cases.view(tx=tx, agency=AGENCY, statement_id=made, creditor=None)
    return taken, (found.settlements, found.gross_minor, found.commission_minor, found.tax_added_minor)
