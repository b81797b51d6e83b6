"""What an operator has paused: topics and timers of this service's worker."""

from alembic import op

from servicekit import migrations

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table. The release before this one does not read it, and pauses nothing."""
    migrations.create_paused(op)
