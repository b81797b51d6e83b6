"""What timers ask: which agencies have work for them, in one round trip."""

from alembic import op

from servicekit import migrations

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

SCANS = {
    "agencies_to_send": """
        EXISTS (
            SELECT FROM messages AS one
            WHERE one.agency = scan.agency AND one.state IN ('REQUESTED', 'SCHEDULED', 'FAILED_RETRYABLE')
              AND (one.due_at IS NULL OR one.due_at <= scan.now)
        )
        OR EXISTS (SELECT FROM messages AS one WHERE one.agency = scan.agency AND one.state = 'ACTING')
    """,
}


def upgrade() -> None:
    """Create the functions. The release before this one goes over all agencies, and calls none of them."""
    for name, work in SCANS.items():
        migrations.create_scan(op, name, work)
