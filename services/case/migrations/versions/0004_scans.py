"""What timers ask: which agencies have work for them, in one round trip."""

from alembic import op

from servicekit import migrations

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SCANS = {
    "agencies_to_run": """
        EXISTS (
            SELECT FROM day_slices AS slice
            WHERE slice.agency = scan.agency AND slice.state = 'CLEARED'
              AND EXISTS (
                  SELECT FROM business_days AS day WHERE day.agency = scan.agency AND day.date = slice.date
              )
        )
    """,
}


def upgrade() -> None:
    """Create the functions. The release before this one goes over all agencies, and calls none of them."""
    for name, work in SCANS.items():
        migrations.create_scan(op, name, work)
