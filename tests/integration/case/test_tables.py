"""The database as it is: columns declared, row-level security on, one big case, one round trip."""

import datetime
import zlib
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa

from case_service.store import cases, tables
from servicekit import db
from support import digest

from .conftest import DATE, House, row


def test_every_column_is_declared(house: House) -> None:
    assert digest.undeclared("case", house.owner) == []


def test_without_a_scope_no_row_is_seen(house: House) -> None:
    house.place(row(0, guarantor_document_type="CPF", guarantor_document="99999999999", guarantor_name="A"))
    house.run_day()
    with house.owner.connect() as owner:
        for table in tables.METADATA.tables:
            everything = owner.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one()
            for scope in (None, uuid4()):
                (seen,) = db.read(
                    house.engine, agency=scope, statement=sa.text(f"SELECT count(*) AS n FROM {table}")
                )
                assert seen.n == 0, table
            if table in ("cases", "titles", "people", "timeline", "contact_rules", "day_slices"):
                assert everything > 0
        secured = owner.execute(
            sa.text("SELECT relname FROM pg_class WHERE relrowsecurity AND relkind = 'r' ORDER BY relname")
        ).scalars()
        assert set(tables.METADATA.tables) <= set(secured)


def test_a_row_of_another_agency_cannot_be_written(house: House) -> None:
    house.place(row(0))
    with pytest.raises(sa.exc.ProgrammingError) as refusal, db.begin(house.engine, agency=uuid4()) as tx:
        tx.execute(
            sa.text(
                "INSERT INTO creditors (agency, reference, display_name, document, address) VALUES (:a, '', '', '', '')"
            ),
            {"a": house.agency},
        )
    assert isinstance(refusal.value.orig, psycopg.errors.InsufficientPrivilege)
    with db.begin(house.engine, agency=uuid4()) as tx:
        assert tx.execute(sa.text("UPDATE cases SET version = 9")).rowcount == 0


def test_the_search_by_name_is_bound_to_its_first_argument(house: House) -> None:
    house.place(row(0))
    search = sa.text("SELECT count(*) AS n FROM find_debtors(:agency, 'conceição')")
    for scope, agency, found in ((house.agency, house.agency, 1), (house.agency, uuid4(), 0)):
        (seen,) = db.read(house.engine, agency=scope, statement=search, params={"agency": agency})
        assert seen.n == found


def test_the_partition_is_the_topics(house: House) -> None:
    house.place(*(row(number) for number in range(50)))
    for case in house.rows("SELECT id, partition FROM cases"):
        assert case.partition == zlib.crc32(case.id.bytes) % tables.PARTITIONS


def test_a_case_is_read_in_one_round_trip_by_its_keys(house: House) -> None:
    house.place(*(row(number) for number in range(300)))
    with house.owner.begin() as owner:
        owner.execute(sa.text("ANALYZE"))
    params = {"agency": house.agency, "id": house.case(7).id, "creditor": None}
    plan = sa.text("EXPLAIN (FORMAT JSON) " + cases.GET.text)
    (found,) = db.read(house.engine, agency=house.agency, statement=plan, params=params)

    def scans(node: dict[str, Any]) -> list[str]:
        return [node["Node Type"]] * ("Relation Name" in node and node["Relation Name"] == "cases") + [
            kind for child in node.get("Plans", ()) for kind in scans(child)
        ]

    assert scans(found[0][0]["Plan"]) == ["Index Scan"]


def test_one_case_of_100_000_titles(house: House) -> None:
    shared = {"contract_reference": "K-0", "debtor_document": f"{0:011d}"}
    day = datetime.timedelta(days=1)
    house.place(*(row(number, **shared, due_date=DATE - number % 700 * day) for number in range(100_000)))
    case = house.case()
    assert (case.open_titles, case.open_principal_minor) == (100_000, 10_000_000_00)
    chunks = [fact.titles_placed for fact in house.take("titles_placed")]
    assert sum(len(chunk.case_ids) for chunk in chunks) == 100_000
    assert max(len(chunk.case_ids) for chunk in chunks) == 500
    house.titles_changed(("T-699", 0), state="PAID")
    assert house.case().open_titles == 99_999
    assert house.case().oldest_due_date == DATE - 699 * day
    after: tuple[Any, Any] = (None, None)
    for _ in range(2):
        page = house.rows(
            cases.TITLES.text,
            case_id=case.id,
            creditor=None,
            after_due=after[0],
            after_id=after[1],
            limit=1000,
        )
        assert len(page) == 1000
        after = (page[-1].due_date, page[-1].id)
    assert after[0] == DATE - 685 * day
