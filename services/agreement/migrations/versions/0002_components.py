"""Titles hold correction, costs and fees beside penalty and interest, and can leave circulation by novation.

New columns default to zero: the release before this one goes on writing the columns it knows, and the identity holds.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

OPEN_AND_CHARGED = ("correction", "costs", "fees")


def upgrade() -> None:
    """Add the components, the novated column, and the identity over all of them."""
    columns = [f"{side}_{name}_minor" for name in OPEN_AND_CHARGED for side in ("open", "charged")]
    for column in (*columns, "novated_minor"):
        op.execute(f"ALTER TABLE titles ADD COLUMN {column} bigint NOT NULL DEFAULT 0 CHECK ({column} >= 0)")
    op.execute("ALTER TABLE titles DROP CONSTRAINT titles_balance")
    op.execute(
        """
        ALTER TABLE titles ADD CONSTRAINT titles_balance CHECK (
            principal_minor + charged_correction_minor + charged_penalty_minor + charged_interest_minor
            + charged_costs_minor + charged_fees_minor
            = open_principal_minor + open_correction_minor + open_penalty_minor + open_interest_minor
            + open_costs_minor + open_fees_minor
            + received_minor + waived_minor + withdrawn_minor + written_off_minor + novated_minor
        )
        """
    )
    op.execute("ALTER TABLE titles DROP CONSTRAINT titles_state_check")
    op.execute(
        """
        ALTER TABLE titles ADD CONSTRAINT titles_state_check CHECK (state IN
            ('OPEN', 'PARTIALLY_PAID', 'IN_AGREEMENT', 'PAID', 'WITHDRAWN', 'WRITTEN_OFF', 'NOVATED'))
        """
    )
    components = "'PRINCIPAL', 'CORRECTION', 'PENALTY', 'INTEREST', 'COSTS', 'FEES', 'PLAN_INTEREST'"
    for table in ("postings", "allocations"):
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_component_check")
        op.execute(
            f"ALTER TABLE {table} ADD CONSTRAINT {table}_component_check CHECK (component IN ({components}))"
        )
    op.execute("ALTER TABLE postings DROP CONSTRAINT postings_kind_check")
    op.execute(
        """
        ALTER TABLE postings ADD CONSTRAINT postings_kind_check CHECK (kind IN
            ('CHARGED', 'RECEIVED', 'WAIVED', 'WITHDRAWN', 'WRITTEN_OFF', 'NOVATED'))
        """
    )
