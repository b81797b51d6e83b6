"""The baseline of import and daily run: the same business rows, written by SQL as a careful hand would write it.

COPY of the file into staging, then one INSERT .. SELECT a table, in one session and one transaction a database, as the
service's role under row-level security, on databases made by the services' own migrations: the same policies, keys,
constraints and indexes. No Kafka, no slices, nothing that could be resumed, repeated or reported row by row.
"""

import dataclasses
import datetime
import time
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

import psycopg
from psycopg import sql

from recupera_local import migrate, postgres
from recupera_local import platform as local
from recupera_local.bench import portfolios
from servicekit import migrations

_TYPES = {"due_date": "date", "birth_date": "date", "principal": "numeric", "penalty_rate": "numeric"} | {
    "monthly_interest_rate": "numeric"
}
_STAGING = ", ".join(f"{name} {_TYPES.get(name, 'text')}" for name in portfolios.COLUMNS)
_TYPE_OF = "CASE length({0}) WHEN 11 THEN 'CPF' WHEN 14 THEN 'CNPJ' ELSE 'NIF' END"

CASE_TABLES = {
    "creditors": """
        INSERT INTO creditors (agency, reference, display_name, document, address)
        SELECT DISTINCT ON (creditor_reference) %(agency)s, creditor_reference, creditor_name, creditor_document,
               coalesce(creditor_address, '')
        FROM staging ORDER BY creditor_reference
    """,
    "people": f"""
        INSERT INTO people (agency, document_type, document, display_name, birth_date, country, region, city,
                            postal_code, address, debtor)
        SELECT DISTINCT ON (document_type, document) %(agency)s, document_type, document, name, birth_date, 'BR',
               region, city, '', address, debtor
        FROM (
            SELECT {_TYPE_OF.format("debtor_document")} AS document_type, debtor_document AS document,
                   debtor_name AS name, birth_date, coalesce(region, '') AS region, coalesce(city, '') AS city,
                   coalesce(address, '') AS address, true AS debtor
            FROM staging
            UNION ALL
            SELECT {_TYPE_OF.format("guarantor_document")}, guarantor_document, guarantor_name, NULL, '', '', '', false
            FROM staging WHERE guarantor_document IS NOT NULL
        ) AS named ORDER BY document_type, document, debtor DESC
    """,
    "contact_points": """
        INSERT INTO contact_points (agency, person_id, kind, value, position, provenance)
        SELECT DISTINCT ON (people.id, point.kind, point.value) %(agency)s, people.id, point.kind, point.value,
               point.position, 'PORTFOLIO'
        FROM staging CROSS JOIN LATERAL (
            VALUES (debtor_document, 'PHONE', phone_1, 1), (debtor_document, 'PHONE', phone_2, 2),
                   (debtor_document, 'EMAIL', email, 1), (guarantor_document, 'PHONE', guarantor_phone, 1)
        ) AS point (document, kind, value, position)
        JOIN people ON people.document = point.document
        WHERE point.value IS NOT NULL ORDER BY people.id, point.kind, point.value, point.position
    """,
    "contracts": """
        INSERT INTO contracts (agency, creditor_id, reference, product)
        SELECT DISTINCT ON (creditors.id, contract_reference) %(agency)s, creditors.id, contract_reference,
               coalesce(staging.product, '')
        FROM staging JOIN creditors ON creditors.reference = creditor_reference
        ORDER BY creditors.id, contract_reference
    """,
    "cases": """
        INSERT INTO cases (agency, contract_id, debtor_id, creditor_id, currency, natural_key, state,
                           placed_principal_minor, open_principal_minor, open_titles, oldest_due_date, created_at,
                           updated_at)
        SELECT %(agency)s, contract_id, debtor_id, creditor_id, currency,
               substr(sha256(convert_to(creditor_reference || '|' || contract_reference || '|' || currency, 'UTF8')),
                      1, 8)::bigint,
               'READY', minor, minor, titles, oldest, now(), now()
        FROM (
            SELECT contracts.id AS contract_id, people.id AS debtor_id, creditors.id AS creditor_id, currency,
                   creditor_reference, contract_reference, (sum(principal) * 100)::bigint AS minor,
                   count(*)::integer AS titles, min(due_date) AS oldest
            FROM staging
            JOIN creditors ON creditors.reference = creditor_reference
            JOIN contracts ON contracts.creditor_id = creditors.id AND contracts.reference = contract_reference
            JOIN people ON people.document = debtor_document
            GROUP BY contracts.id, people.id, creditors.id, currency, creditor_reference, contract_reference
        ) AS debt
    """,
    "timeline": """
        INSERT INTO timeline (agency, case_id, at, business_date, actor, kind, code, subject_id)
        SELECT %(agency)s, id, now(), %(date)s, 'import', 'STATE_CHANGED', 'READY', %(batch)s FROM cases
    """,
    "titles": """
        INSERT INTO titles (agency, case_id, contract_id, title_reference, title_type, due_date, principal_minor,
                            open_principal_minor, penalty_rate_e4, monthly_interest_rate_e4, state, batch_id)
        SELECT %(agency)s, cases.id, contracts.id, title_reference, title_type, due_date, (principal * 100)::bigint,
               (principal * 100)::bigint, (penalty_rate * 10000)::bigint, (monthly_interest_rate * 10000)::bigint,
               'OPEN', %(batch)s
        FROM staging
        JOIN creditors ON creditors.reference = creditor_reference
        JOIN contracts ON contracts.creditor_id = creditors.id AND contracts.reference = contract_reference
        JOIN cases ON cases.contract_id = contracts.id
    """,
    "case_guarantors": """
        INSERT INTO case_guarantors (agency, case_id, person_id)
        SELECT DISTINCT %(agency)s, cases.id, people.id
        FROM staging
        JOIN creditors ON creditors.reference = creditor_reference
        JOIN contracts ON contracts.creditor_id = creditors.id AND contracts.reference = contract_reference
        JOIN cases ON cases.contract_id = contracts.id
        JOIN people ON people.document = guarantor_document
    """,
}
"""A statement for each business table of case, in the order of their foreign keys."""

_OUT = """
    COPY (
        SELECT cases.id, titles.id, debtor_id, cases.creditor_id, creditors.reference, contracts.reference, currency,
               title_reference, principal_minor, due_date, penalty_rate_e4, monthly_interest_rate_e4
        FROM titles JOIN cases ON cases.id = titles.case_id JOIN contracts ON contracts.id = titles.contract_id
        JOIN creditors ON creditors.id = cases.creditor_id
    ) TO STDOUT
"""
_AGREEMENT_STAGING = """
    case_id uuid, title_id uuid, debtor_id uuid, creditor_id uuid, creditor_reference text, contract_reference text,
    currency text, title_reference text, principal_minor bigint, due_date date, penalty_rate_e4 bigint,
    monthly_rate_e4 bigint
"""
AGREEMENT_TABLES = {
    "creditors": """
        INSERT INTO creditors (agency, creditor_id, creditor_reference)
        SELECT DISTINCT %(agency)s, creditor_id, creditor_reference FROM staging
    """,
    "case_accounts": """
        INSERT INTO case_accounts (agency, case_id, creditor_id, debtor_id, contract_reference, currency, partition)
        SELECT DISTINCT ON (case_id) %(agency)s, case_id, creditor_id, debtor_id, contract_reference, currency,
               crc32(uuid_send(case_id)) %% 24
        FROM staging ORDER BY case_id
    """,
    "titles": """
        INSERT INTO titles (agency, case_id, id, reference, batch_id, due_date, payable_until, principal_minor,
                            penalty_rate_e4, monthly_rate_e4, accrued_through, open_principal_minor)
        SELECT %(agency)s, case_id, title_id, title_reference, %(batch)s, due_date,
               due_date + CASE extract(isodow FROM due_date) WHEN 6 THEN 2 WHEN 7 THEN 1 ELSE 0 END, principal_minor,
               penalty_rate_e4, monthly_rate_e4, due_date, principal_minor
        FROM staging
    """,
}
"""A statement for each business table of agreement."""

_LEVEL = """
    (SELECT {0} FROM ladder_levels WHERE %(date)s - cases.oldest_due_date BETWEEN from_days AND to_days
     ORDER BY position LIMIT 1)
"""
DAY = (
    "INSERT INTO business_days (agency, date) VALUES (%(agency)s, %(date)s)",
    """
    INSERT INTO day_slices (agency, date, partition, state)
    SELECT %(agency)s, %(date)s, partition, 'DONE' FROM generate_series(0, 23) AS partition
    """,
    f"""
    UPDATE cases SET state = 'IN_COLLECTION', sub_state = 'NEW', last_level = coalesce(level.code, last_level),
           last_step_date = CASE WHEN level.code IS NULL THEN last_step_date ELSE %(date)s END, version = version + 1,
           updated_at = now()
    FROM (SELECT id, {_LEVEL.format("code")} AS code FROM cases) AS level
    WHERE cases.agency = %(agency)s AND level.id = cases.id AND cases.state = 'READY'
    """,
    """
    INSERT INTO timeline (agency, case_id, at, business_date, actor, kind, code)
    SELECT %(agency)s, id, now(), %(date)s, 'system', 'STATE_CHANGED', 'IN_COLLECTION' FROM cases
    """,
    f"""
    INSERT INTO agenda (agency, date, case_id, reason, level, days_past_due)
    SELECT %(agency)s, %(date)s, id, 'LADDER', last_level, %(date)s - oldest_due_date FROM cases
    WHERE last_step_date = %(date)s AND {_LEVEL.format("channel")} = 'CALL'
    """,
)
"""The first business day of new cases: they enter collection, steps become due, calls are on the agenda."""


DAY_WRITTEN = """
    SELECT concat_ws(' ', 'cases', state, sub_state, last_level, last_step_date, version), count(*)
    FROM cases GROUP BY 1
    UNION ALL SELECT concat_ws(' ', 'timeline', kind, code), count(*) FROM timeline GROUP BY 1
    UNION ALL SELECT concat_ws(' ', 'agenda', date, reason, level), count(*) FROM agenda GROUP BY 1
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seconds:
    """What writing took. `copy`: the bare COPY of the file into staging, part of `case`."""

    copy: float
    case: float
    agreement: float

    @property
    def total(self) -> float:
        """Both databases, one after the other."""
        return self.case + self.agreement


class Databases:
    """A database of case and one of agreement on a platform's PostgreSQL, made by their migrations, empty."""

    def __init__(self, server: postgres.Postgres, *, agency: UUID, date: datetime.date, batch: UUID) -> None:
        self._server = server
        self._params = {"agency": agency, "date": date, "batch": batch}

    def create(self) -> None:
        """Make them anew."""
        with self._server.administrator() as connection:
            for service in ("case", "agreement"):
                name = sql.Identifier(_name(service))
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
                postgres.create_database(connection, _name(service), owner=f"recupera_{service}_owner")
        for service in ("case", "agreement"):
            migrations.upgrade(
                self._server.url(_name(service), f"recupera_{service}_owner"), migrate.folder(service)
            )

    def drop(self) -> None:
        """Away with them, and write out what they left in memory, so that what comes next does not pay for it."""
        with self._server.administrator() as connection:
            for part in ("case", "agreement", "day"):
                connection.execute(
                    sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(_name(part)))
                )
            connection.execute("CHECKPOINT")

    def url(self, service: str) -> str:
        """For the service's role."""
        return self._server.url(_name(service), f"recupera_{service}")

    def fill(self, portfolio: Path) -> Seconds:
        """Write the rows of a portfolio file into both."""
        return fill(self.url("case"), self.url("agreement"), portfolio, self._params)

    def fill_platform(self, platform: local.Platform, portfolio: Path) -> None:
        """Write the same rows into the platform's own databases, and its ladder into ours; statistics for all."""
        fill(platform.url("case"), platform.url("agreement"), portfolio, self._params)
        ours = self._server.url(_name("case"))
        for table in ("ladders", "ladder_levels"):
            rows = sql.SQL("COPY {} TO STDOUT").format(sql.Identifier(table))
            into = sql.SQL("COPY {} FROM STDIN").format(sql.Identifier(table))
            with (
                psycopg.connect(platform.owner_url("case")) as source,
                psycopg.connect(ours) as target,
                source.cursor().copy(rows) as out,
                target.cursor().copy(into) as copy,
            ):
                for block in out:
                    copy.write(block)
        for database in (_name("case"), _name("agreement"), "recupera_case", "recupera_agreement"):
            with psycopg.connect(self._server.url(database), autocommit=True) as connection:
                connection.execute("VACUUM ANALYZE")

    def run_day(self) -> float:
        """Write the rows of the first business day into a copy of the database of case; seconds."""
        name, copy = sql.Identifier(_name("case")), sql.Identifier(_name("day"))
        with self._server.administrator() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(copy))
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(copy, name))
        with _session(self._server.url(_name("day"), "recupera_case"), self._params) as session:
            started = time.perf_counter()
            for statement in DAY:
                session.execute(statement.encode(), self._params)
            session.commit()
            return time.perf_counter() - started

    def day_written(self, url: str | None = None) -> Mapping[str, int]:
        """What the day left: cases by state and level, lines, agenda items. In the copy, or where `url` says."""
        with psycopg.connect(url or self._server.url(_name("day"))) as connection:
            rows = connection.execute(DAY_WRITTEN).fetchall()
        return {str(what): int(str(number)) for what, number in rows}

    def counts(self) -> Mapping[str, int]:
        """Rows of each business table that `fill` writes."""
        urls = {service: self._server.url(_name(service)) for service in ("case", "agreement")}
        return counts(urls)


def fill(case_url: str, agreement_url: str, portfolio: Path, params: Mapping[str, object]) -> Seconds:
    """Write the rows of a portfolio file into a database of case and one of agreement, given as service roles.
    `params`: agency, date, batch."""
    copied, placed = fill_case(case_url, portfolio, params)
    started = time.perf_counter()
    with _session(case_url, params) as case, _session(agreement_url, params) as agreement:
        agreement.execute(f"CREATE TEMPORARY TABLE staging ({_AGREEMENT_STAGING})")
        with case.cursor().copy(_OUT) as out, agreement.cursor().copy("COPY staging FROM STDIN") as into:
            for block in out:
                into.write(block)
        agreement.execute("ANALYZE staging")
        for statement in AGREEMENT_TABLES.values():
            agreement.execute(statement, params)
        agreement.commit()
    return Seconds(copy=copied, case=placed, agreement=time.perf_counter() - started)


def fill_case(url: str, portfolio: Path, params: Mapping[str, object]) -> tuple[float, float]:
    """Case's part of `fill`; seconds of the bare COPY, and of all."""
    started = time.perf_counter()
    with _session(url, params) as case:
        case.execute(f"CREATE TEMPORARY TABLE staging ({_STAGING})")
        _copy(case, "COPY staging FROM STDIN (FORMAT csv, DELIMITER ';', HEADER)", portfolio)
        copied = time.perf_counter() - started
        case.execute("ANALYZE staging")
        for statement in CASE_TABLES.values():
            case.execute(statement, params)
        case.commit()
    return copied, time.perf_counter() - started


def tables() -> list[str]:
    """The business tables that `fill` writes, as "<service>.<table>"."""
    return [f"case.{table}" for table in CASE_TABLES] + [f"agreement.{table}" for table in AGREEMENT_TABLES]


def counts(urls: Mapping[str, str]) -> Mapping[str, int]:
    """Rows of each table that `fill` writes, asked as its owner, by "<service>.<table>"."""
    found = {}
    for name in tables():
        service, table = name.split(".")
        with psycopg.connect(urls[service]) as connection:
            row = connection.execute(
                sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
            ).fetchone()
        assert row is not None
        found[name] = int(str(row[0]))
    return found


def _session(url: str, params: Mapping[str, object]) -> psycopg.Connection[tuple[object, ...]]:
    """A session that reads tables as a whole, scoped to the agency for its first transaction.

    Tables filled in the same transaction have no statistics: without the setting the planner takes them for tiny and
    looks rows up one by one (20,000 titles: 27 s instead of 2).
    """
    connection = psycopg.connect(url)
    connection.execute("SET work_mem = '256MB'")
    connection.execute("SET enable_nestloop = off")
    connection.execute("SET idle_in_transaction_session_timeout = 0")
    connection.commit()
    connection.execute("SELECT set_config('app.agency', %(agency)s::text, true)", params)
    return connection


def _copy(connection: psycopg.Connection[tuple[object, ...]], statement: str, file: Path) -> None:
    with file.open("rb") as data, connection.cursor().copy(statement) as copy:
        while block := data.read(1 << 20):
            copy.write(block)


def _name(part: str) -> str:
    return f"bench_{part}"
