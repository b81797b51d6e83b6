"""What a negotiation adds and forgives, by component; a proposal's whole terms; saved simulations.

New columns have defaults, so that the release before this one goes on writing: a row of its has no `terms`, and they
are read from the columns it knows.
"""

from alembic import op

from servicekit import migrations

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

OWN = ("principal", "correction", "penalty", "interest", "costs", "fees")
ADDED = ("penalty", "interest", "costs", "fees")
NEW = (
    *(f"{name}_minor" for name in ("correction", "costs", "fees")),
    *(f"added_{name}_minor" for name in ADDED),
    *(f"waived_{name}_minor" for name in ("principal", "correction", "costs", "fees")),
)
DRAFTS = """
    id uuid NOT NULL,
    case_ids uuid[] NOT NULL,
    request bytea NOT NULL,
    save_date date NOT NULL,
    expire_date date NOT NULL CHECK (expire_date >= save_date),
    created_at timestamptz NOT NULL,
    version bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (agency, id)
"""


def upgrade() -> None:
    """Add the columns, the identities over them, and the table of drafts."""
    for column in NEW:
        op.execute(
            f"ALTER TABLE agreement_titles ADD COLUMN {column} bigint NOT NULL DEFAULT 0 CHECK ({column} >= 0)"
        )
    # 0001's: waived BETWEEN 0 AND own, of penalty and of interest.
    for name in ("agreement_titles_check", "agreement_titles_check1"):
        op.execute(f"ALTER TABLE agreement_titles DROP CONSTRAINT {name}")
    for name in OWN:
        most = f"{name}_minor + added_{name}_minor" if name in ADDED else f"{name}_minor"
        op.execute(
            f"ALTER TABLE agreement_titles ADD CONSTRAINT agreement_titles_waived_{name}"
            f" CHECK (waived_{name}_minor BETWEEN 0 AND {most})"
        )
    op.execute(
        """
        ALTER TABLE agreements
            ADD COLUMN added_minor bigint NOT NULL DEFAULT 0 CHECK (added_minor >= 0),
            ADD COLUMN terms jsonb,
            ADD COLUMN note text NOT NULL DEFAULT '',
            ADD COLUMN use_credits boolean NOT NULL DEFAULT false,
            ADD COLUMN settlement_type text NOT NULL DEFAULT 'RENEGOTIATION',
            DROP CONSTRAINT agreements_check,
            ADD CONSTRAINT agreements_total
                CHECK (total_minor = debt_minor + added_minor - discount_minor + plan_interest_minor)
        """
    )
    # Proposals of a range of last days (S5-30).
    op.execute(
        "CREATE INDEX agreements_proposed ON agreements (agency, expire_date) WHERE state = 'PROPOSED'"
    )
    op.execute(f"CREATE TABLE drafts (agency uuid NOT NULL, {DRAFTS})")
    op.execute(migrations.policy_sql("drafts"))
