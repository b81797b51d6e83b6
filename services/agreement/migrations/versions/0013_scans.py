"""What timers ask: which agencies have work for them, in one round trip."""

from alembic import op

from servicekit import migrations

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

SCANS = {
    "agencies_to_ask_bank": """
        EXISTS (
            SELECT FROM instruments AS one
            WHERE one.agency = scan.agency
              AND one.state IN ('DRAFT', 'REGISTERING', 'CANCEL_REQUESTED', 'CANCELLING')
              AND (one.due_at <= scan.now OR one.state IN ('REGISTERING', 'CANCELLING'))
        )
    """,
    "agencies_to_collect": """
        EXISTS (
            SELECT FROM collection_files AS one
            WHERE one.agency = scan.agency AND one.state IN ('DRAFT', 'WRITING')
              AND (one.due_at <= scan.now OR one.state = 'WRITING')
        )
    """,
}


def upgrade() -> None:
    """Create the functions. The release before this one goes over all agencies, and calls none of them."""
    for name, work in SCANS.items():
        migrations.create_scan(op, name, work)
