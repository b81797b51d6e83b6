"""The tables: every column declared for the fault test, every constraint that holds the rules in the database."""

from uuid import UUID

import pytest
import sqlalchemy

from servicekit import db
from support import digest

from .conftest import AGENCY, OTHER_AGENCY, Notify, case


def test_every_column_is_declared(notify: Notify) -> None:
    assert digest.undeclared("notify", notify.owner) == []


def test_another_agency_reads_and_changes_no_row(notify: Notify) -> None:
    notify.deliver(notify.steps_due([1]))
    notify.tick()
    with db.begin(notify.engine, agency=OTHER_AGENCY) as tx:
        for table in ("messages", "message_evidence", "templates", "suppressions", "case_anchors"):
            assert tx.execute(sqlalchemy.text(f"SELECT count(*) FROM {table}")).scalar() == 0
            assert tx.execute(sqlalchemy.text(f"DELETE FROM {table}")).rowcount == 0
    assert notify.states() == {1: "SENT"}
    with (
        pytest.raises(sqlalchemy.exc.ProgrammingError, match="row-level security"),
        db.begin(notify.engine, agency=OTHER_AGENCY) as tx,
    ):
        tx.execute(
            sqlalchemy.text("INSERT INTO case_anchors VALUES (:agency, :case)"),
            {"agency": AGENCY, "case": case(2)},
        )


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("state = 'SUPPRESSED', rule = ''", "messages_rule"),
        ("state = 'FAILED', rule = 'R05'", "messages_rule"),
        ("state = 'ACTING'", "messages_acted"),
        ("state = 'NONSENSE'", "messages_state_check"),
        ("channel = 'CALL'", "messages_channel_check"),
        ("agreement_id = id", "messages_instalment"),
    ],
)
def test_what_the_database_itself_refuses(notify: Notify, change: str, constraint: str) -> None:
    notify.deliver(notify.steps_due([1]))
    with pytest.raises(sqlalchemy.exc.IntegrityError, match=constraint):
        notify.rows(f"UPDATE messages SET {change}")


def test_the_same_message_cannot_be_stored_twice(notify: Notify) -> None:
    notify.deliver(notify.steps_due([1]))
    with pytest.raises(sqlalchemy.exc.IntegrityError, match="messages_once"):
        notify.rows(
            "INSERT INTO messages (agency, case_id, partition, channel, purpose, template, step_id, occasion, date)"
            " SELECT agency, case_id, partition, channel, purpose, template, step_id, occasion, date FROM messages"
        )
    assert UUID(str(notify.rows("SELECT case_id FROM messages")[0]["case_id"])) == case(1)
