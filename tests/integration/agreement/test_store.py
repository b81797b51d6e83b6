"""What store.py declares is what the database has."""

import sqlalchemy

from support import digest


def test_every_column_is_declared_with_its_kind(agency, database_of_test):
    owner = sqlalchemy.create_engine(
        sqlalchemy.make_url(database_of_test.owner_url).set(drivername="postgresql+psycopg")
    )
    try:
        assert digest.undeclared("agreement", owner) == []
        declared = digest.metadata("agreement").tables
        inspector = sqlalchemy.inspect(owner)
        for name, table in declared.items():
            there = {column["name"] for column in inspector.get_columns(name)}
            assert there == {column.name for column in table.columns}, name
    finally:
        owner.dispose()


def test_every_table_has_its_policy(agency, database_of_test):
    rows = agency.rows(
        "SELECT relname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attname = 'agency'"
        " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND NOT relrowsecurity"
    )
    assert {row.relname for row in rows} <= {"agency_clock", "parked", "blobs"}
