"""The first day on which the daily run has to look at an agreement again.

A day then reads what moves on it, not every agreement of a partition. Rows that are here begin with "any day": the next
run looks at them all and notes their day. Code that does not know the column leaves it so.
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; the daily run's index has it."""
    op.execute("ALTER TABLE agreement_cases ADD COLUMN next_day date NOT NULL DEFAULT '0001-01-01'")
    op.execute("DROP INDEX agreement_cases_partition")
    op.execute("CREATE INDEX agreement_cases_partition ON agreement_cases (agency, partition, next_day)")
