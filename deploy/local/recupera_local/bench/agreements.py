"""Section `agreements`: the daily run over 100,000 agreements beside hand-written SQL writing the same rows.

Each agreement has six monthly instalments with plan interest; the first is due between ten days before the day and
nineteen after it, the same number on each. So on the day a thirtieth are notified, a thirtieth due and their interest
earned, a thirtieth missed, and a thirtieth broken: titles back, interest moved to them, instalments closed. Ours are
the 24 partitions of one DayOpened one after the other, each a transaction, with every fact in the outbox. By hand it
is one transaction: the same rows of the same tables with the same numbers of facts (ids as their content), by
somebody who knows that each agreement has one title and that nothing was paid. It is rolled back, twice, before ours,
and what that leaves behind is vacuumed away.
"""

import datetime
import time
from collections.abc import Mapping

import sqlalchemy as sa

from agreement_service import providers
from agreement_service.usecases import daily, moments
from recupera_local.bench import figures, money, scenes
from servicekit import clock, db

AGREEMENTS = 100_000
PARTITIONS = 24
GOAL = 3.0
SLICE_SECONDS = 10.0

_FILL = (
    """
    INSERT INTO creditors (agency, creditor_id, creditor_reference)
    VALUES (:agency, '0b9e0c55-0000-7000-8000-00000000be7f', 'BENCH')
    """,
    """
    INSERT INTO case_accounts (agency, case_id, creditor_id, debtor_id, contract_reference, currency, partition)
    SELECT CAST(:agency AS uuid), made.id, '0b9e0c55-0000-7000-8000-00000000be7f', made.id, 'B-' || made.number, 'BRL',
        crc32(uuid_send(made.id)) % 24
    FROM (SELECT number, uuidv7() AS id FROM generate_series(1, :count) AS number) AS made
    """,
    """
    INSERT INTO agreements (agency, id, case_id, number, state, currency, debt_minor, discount_minor,
        plan_interest_minor, total_minor, instalments, first_due_date, annual_rate_e4, down_payment_minor,
        propose_date, expire_date, accept_date, notice_days, missed_days, broken_days, created_at)
    SELECT agency, uuidv7(), case_id, 1, 'ACTIVE', 'BRL', 60000, 0, 600, 60600, 6,
        CAST(:day AS date) - 10 + CAST(row_number() OVER (ORDER BY case_id) % 30 AS int), 120000, 0,
        CAST(:day AS date) - 40, CAST(:day AS date) - 35, CAST(:day AS date) - 40, 3, 1, 10, now()
    FROM case_accounts
    """,
    """
    UPDATE case_accounts SET agreement_id = agreements.id, epoch = 1
    FROM agreements WHERE agreements.case_id = case_accounts.case_id
    """,
    """
    INSERT INTO titles (agency, case_id, id, reference, due_date, payable_until, principal_minor, penalty_rate_e4,
        monthly_rate_e4, accrued_through, open_principal_minor, agreement_id, state)
    SELECT agency, case_id, uuidv7(), contract_reference, CAST(:day AS date) - 90, CAST(:day AS date) - 90, 60000,
        20000, 10000, CAST(:day AS date) - 35, 60000, agreement_id, 'IN_AGREEMENT'
    FROM case_accounts
    """,
    """
    INSERT INTO agreement_cases (agency, agreement_id, case_id, partition)
    SELECT agency, agreement_id, case_id, partition FROM case_accounts
    """,
    """
    INSERT INTO agreement_titles (agency, agreement_id, case_id, title_id, title_version, principal_minor,
        penalty_minor, interest_minor, waived_penalty_minor, waived_interest_minor)
    SELECT agency, agreement_id, case_id, id, 1, 60000, 0, 0, 0, 0 FROM titles
    """,
    """
    INSERT INTO instalments (agency, agreement_id, id, number, due_date, payable_until, capital_minor, interest_minor,
        state)
    SELECT agency, id, uuidv7(), k, first_due_date + 30 * (k - 1), first_due_date + 30 * (k - 1), 10000, 100,
        'SCHEDULED'
    FROM agreements, generate_series(1, 6) AS k
    """,
)
_TABLES = (
    "case_accounts",
    "agreements",
    "titles",
    "agreement_cases",
    "agreement_titles",
    "instalments",
    "postings",
    "ending_entries",
    "outbox",
)
_BY_HAND = (
    """
    WITH due AS (
        UPDATE instalments SET charged_interest_minor = interest_minor, version = version + 1
        WHERE due_date = :day AND charged_interest_minor = 0
        RETURNING agency, id, agreement_id
    )
    INSERT INTO postings (agency, case_id, instalment_id, component, kind, amount_minor, currency, business_date,
        value_date, agreement_id)
    SELECT due.agency, agreements.case_id, due.id, 'PLAN_INTEREST', 'CHARGED', 100, 'BRL', CAST(:day AS date),
        CAST(:day AS date), due.agreement_id
    FROM due JOIN agreements ON agreements.agency = due.agency AND agreements.id = due.agreement_id
    """,
    """
    UPDATE instalments SET version = version + 1, state = CASE :day - due_date
        WHEN -3 THEN 'NOTIFIED' WHEN 0 THEN 'DUE' WHEN 1 THEN 'MISSED' ELSE 'DEFAULTED' END
    WHERE due_date IN (CAST(:day AS date) + 3, CAST(:day AS date), CAST(:day AS date) - 1, CAST(:day AS date) - 10)
    """,
    """
    CREATE TEMPORARY TABLE broken ON COMMIT DROP AS
    SELECT instalments.agency, instalments.agreement_id, instalments.id, titles.case_id, titles.id AS title_id
    FROM instalments JOIN titles ON titles.agency = instalments.agency
        AND titles.agreement_id = instalments.agreement_id
    WHERE instalments.state = 'DEFAULTED'
    """,
    """
    UPDATE instalments SET version = version + 1, charged_interest_minor = 0,
        state = CASE state WHEN 'DEFAULTED' THEN state ELSE 'CANCELLED' END
    FROM broken WHERE instalments.agency = broken.agency AND instalments.agreement_id = broken.agreement_id
    """,
    """
    UPDATE titles SET open_interest_minor = 100, charged_interest_minor = 100, agreement_id = NULL, state = 'OPEN',
        accrued_through = :day, corrected_through = :day, version = version + 1
    FROM broken WHERE titles.agency = broken.agency AND titles.case_id = broken.case_id
        AND titles.id = broken.title_id
    """,
    """
    UPDATE agreements SET state = 'BROKEN', end_date = :day, version = version + 1
    FROM broken WHERE agreements.agency = broken.agency AND agreements.id = broken.agreement_id
    """,
    """
    UPDATE case_accounts SET agreement_id = NULL, epoch = epoch + 1
    FROM broken WHERE case_accounts.agency = broken.agency AND case_accounts.case_id = broken.case_id
    """,
    """
    UPDATE agreement_cases SET end_epoch = 2
    FROM broken WHERE agreement_cases.agency = broken.agency AND agreement_cases.agreement_id = broken.agreement_id
    """,
    """
    INSERT INTO postings (agency, case_id, instalment_id, title_id, component, kind, amount_minor, currency,
        business_date, value_date, agreement_id)
    SELECT agency, case_id, CASE WHEN side = 1 THEN id END, CASE WHEN side = 2 THEN title_id END,
        CASE WHEN side = 1 THEN 'PLAN_INTEREST' ELSE 'INTEREST' END, 'CHARGED',
        CASE WHEN side = 1 THEN -100 ELSE 100 END, 'BRL', CAST(:day AS date), CAST(:day AS date), agreement_id
    FROM broken, generate_series(1, 2) AS side
    """,
    """
    INSERT INTO ending_entries (agency, agreement_id, place, case_id, instalment_id, title_id, component, kind,
        amount_minor)
    SELECT agency, agreement_id, side, case_id, CASE WHEN side = 1 THEN id END, CASE WHEN side = 2 THEN title_id END,
        CASE WHEN side = 1 THEN 'PLAN_INTEREST' ELSE 'INTEREST' END, 'CHARGED',
        CASE WHEN side = 1 THEN -100 ELSE 100 END
    FROM broken, generate_series(1, 2) AS side
    """,
    """
    WITH told AS (
        SELECT agreement_cases.partition, instalments.id AS a, instalments.agreement_id AS b, 'instalments' AS fact,
            (row_number() OVER (PARTITION BY agreement_cases.partition) - 1) / 500 AS chunk
        FROM instalments JOIN agreement_cases ON agreement_cases.agency = instalments.agency
            AND agreement_cases.agreement_id = instalments.agreement_id
        WHERE instalments.due_date IN (CAST(:day AS date) + 3, CAST(:day AS date), CAST(:day AS date) - 1)
            OR instalments.agreement_id IN (SELECT agreement_id FROM broken)
        UNION ALL
        SELECT agreement_cases.partition, broken.title_id, broken.case_id, 'titles',
            (row_number() OVER (PARTITION BY agreement_cases.partition) - 1) / 500
        FROM broken JOIN agreement_cases ON agreement_cases.agency = broken.agency
            AND agreement_cases.agreement_id = broken.agreement_id
        UNION ALL
        SELECT agreement_cases.partition, broken.agreement_id, broken.case_id, 'agreements',
            row_number() OVER (PARTITION BY agreement_cases.partition)
        FROM broken JOIN agreement_cases ON agreement_cases.agency = broken.agency
            AND agreement_cases.agreement_id = broken.agreement_id
    )
    INSERT INTO outbox (topic, partition, key, value, fact_id, fact_type, occurred_at, traceparent)
    SELECT 'recupera.agreement.v1', partition, '', string_agg(uuid_send(a) || uuid_send(b), ''), uuidv7(), fact, now(),
        ''
    FROM told GROUP BY partition, fact, chunk
    """,
)
_WRITTEN = """
    SELECT (SELECT count(*) FROM instalments WHERE version > 1) AS instalments,
        (SELECT count(*) FROM titles WHERE version > 1) AS titles,
        (SELECT count(*) FROM agreements WHERE state = 'BROKEN') AS broken,
        (SELECT count(*) FROM postings) AS postings, (SELECT sum(amount_minor) FROM postings) AS amount,
        (SELECT count(*) FROM ending_entries) AS entries,
        (SELECT string_agg(concat_ws(' ', state, of_them), ', ' ORDER BY state) FROM (
            SELECT state, count(*) AS of_them FROM instalments GROUP BY state) AS counted) AS states
"""


class Differs(RuntimeError):
    """The daily run wrote something else than hand-written SQL."""


def run(scene: scenes.Scene) -> list[figures.Figure]:
    """By hand twice, rolled back, then ours on the same rows; the mean by hand counts."""
    count = AGREEMENTS // 20 if scene.quick else AGREEMENTS
    with money.database(scene, "agreements") as engine:
        _fill(engine, count)
        scene.say(f"{count:,} agreements stand")
        _days(engine, money.TODAY - datetime.timedelta(days=1))
        _forget(engine)
        by_hand: list[float] = []
        expected: Mapping[str, object] = {}
        for _ in range(2):
            seconds, expected = _by_hand(engine)
            by_hand.append(seconds)
            _analyze(engine)
            scene.say(f"by hand: {seconds:.1f} s")
        slices = _days(engine, money.TODAY)
        with db.begin(engine, agency=money.AGENCY) as tx:
            written = dict(tx.execute(sa.text(_WRITTEN)).mappings().one())
        if written != expected:
            raise Differs(f"the day wrote {written}, by hand: {expected}")
        scene.say(f"ours: {sum(slices):.1f} s, longest slice {max(slices):.2f} s; {written}")
        if max(slices) > SLICE_SECONDS:
            raise Differs(f"a slice took {max(slices):.1f} s, more than {SLICE_SECONDS:.0f}")
    return [
        figures.Figure(
            name=f"daily run: {count:,} agreements",
            unit="s",
            ours=sum(slices),
            baseline=sum(by_hand) / len(by_hand),
            goal=GOAL,
        )
    ]


def _fill(engine: db.Engine, count: int) -> None:
    with db.begin(engine, agency=money.AGENCY) as tx:
        for statement in _FILL:
            tx.execute(sa.text(statement), {"agency": money.AGENCY, "count": count, "day": money.TODAY})
    _analyze(engine)


def _analyze(engine: db.Engine) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in _TABLES:
            connection.execute(sa.text(f"VACUUM ANALYZE {table}"))


def _forget(engine: db.Engine) -> None:
    """After the day before: everything stands as if it had been written once."""
    with db.begin(engine, agency=money.AGENCY) as tx:
        tx.execute(sa.text("UPDATE instalments SET version = 1 WHERE version > 1"))
        tx.execute(sa.text("DELETE FROM outbox"))
    _analyze(engine)


def _by_hand(engine: db.Engine) -> tuple[float, Mapping[str, object]]:
    started = time.perf_counter()
    with engine.connect() as connection, connection.begin() as transaction:
        connection.execute(
            sa.text("SELECT set_config('app.agency', :agency, true)"), {"agency": str(money.AGENCY)}
        )
        for statement in _BY_HAND:
            connection.execute(sa.text(statement), {"day": money.TODAY})
        seconds = time.perf_counter() - started
        written = dict(connection.execute(sa.text(_WRITTEN)).mappings().one())
        transaction.rollback()
    return seconds, written


def _days(engine: db.Engine, date: datetime.date) -> list[float]:
    with db.begin(engine, agency=money.AGENCY) as tx:
        clock.open_day(tx, money.AGENCY, date)
    seconds = []
    for partition in range(PARTITIONS):
        started = time.perf_counter()
        with db.begin(engine, agency=money.AGENCY) as tx:
            daily.run(
                tx=tx,
                agency=money.AGENCY,
                date=date,
                partition=partition,
                moment=moments.read(tx, money.AGENCY),
                bank=providers.OfflineBank(),
            )
        seconds.append(time.perf_counter() - started)
    return seconds
