"""An index of what waits, oldest first: how long the oldest has waited is asked every few seconds."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the index beside what goes on; one that a killed migration left unfinished is made anew."""
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS messages_waiting")
        op.execute(
            "CREATE INDEX CONCURRENTLY messages_waiting ON messages (agency, (coalesce(due_at, created_at)))"
            " WHERE state IN ('REQUESTED', 'SCHEDULED', 'FAILED_RETRYABLE')"
        )
