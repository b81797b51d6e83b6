"""What timers ask: which agencies have work for them, in one round trip."""

from alembic import op

from servicekit import migrations

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SCANS = {
    "agencies_to_dial": """
        EXISTS (
            SELECT FROM campaigns AS one WHERE one.agency = scan.agency AND one.state IN ('RUNNING', 'DRAINING')
        )
        OR EXISTS (
            SELECT FROM calls AS one
            WHERE one.agency = scan.agency AND one.state IN ('QUEUED', 'DIALING', 'CONNECTED')
        )
    """,
}


def upgrade() -> None:
    """Create the functions. The release before this one goes over all agencies, and calls none of them."""
    for name, work in SCANS.items():
        migrations.create_scan(op, name, work)
