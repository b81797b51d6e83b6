"""What a timer asks: which agencies have acts that are due."""

from alembic import op

from servicekit import migrations

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the function. Its condition names no agency: the scope in which it is asked must."""
    due = "EXISTS (SELECT FROM acts WHERE state = 'DUE' AND due_at <= scan.now)"
    migrations.create_scan(op, "agencies_to_act", due)
