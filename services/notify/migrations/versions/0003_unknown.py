"""An index of the few messages that are UNKNOWN: they are counted every few seconds."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the index beside what goes on; one that a killed migration left unfinished is made anew."""
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS messages_unknown")
        op.execute(
            "CREATE INDEX CONCURRENTLY messages_unknown ON messages (agency, date) WHERE state = 'UNKNOWN'"
        )
