"""What timers ask: which agencies have work for them, in one round trip."""

from alembic import op

from servicekit import migrations

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SCANS = {
    "agencies_to_read": """
        EXISTS (
            SELECT FROM batch_work AS one WHERE one.agency = scan.agency AND one.state IN ('READ_DUE', 'READING')
        )
    """,
    "agencies_to_roll_back": """
        EXISTS (
            SELECT FROM batch_work AS one
            WHERE one.agency = scan.agency AND one.state IN ('ROLLBACK_DUE', 'ROLLING_BACK')
        )
    """,
}


def upgrade() -> None:
    """Create the functions. The release before this one goes over all agencies, and calls none of them."""
    for name, work in SCANS.items():
        migrations.create_scan(op, name, work)
