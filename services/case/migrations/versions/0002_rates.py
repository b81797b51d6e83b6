"""A title without a rate of its own has none: no rate given is not a rate of zero (the creditor's terms decide)."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Let rates be empty. The release before this one goes on writing zero, which stays a rate of zero."""
    op.execute("ALTER TABLE titles ALTER COLUMN penalty_rate_e4 DROP NOT NULL")
    op.execute("ALTER TABLE titles ALTER COLUMN monthly_interest_rate_e4 DROP NOT NULL")
