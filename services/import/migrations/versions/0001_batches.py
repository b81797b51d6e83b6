"""Batches, their slices, rejected rows and totals, and the work that waits."""

import sqlalchemy as sa
from alembic import op

from servicekit import db, migrations

revision = "0001"
down_revision = None

TABLES = (
    """
    CREATE TABLE batches (
        agency uuid NOT NULL,
        id uuid NOT NULL,
        kind text NOT NULL CHECK (kind IN ('PORTFOLIO', 'PAYMENTS')),
        sha256 bytea NOT NULL CHECK (length(sha256) = 32),
        sequence integer NOT NULL CHECK (sequence > 0),
        state text NOT NULL CHECK (state IN ('RECEIVED', 'REJECTED', 'PARSED', 'VALIDATED', 'AWAITING_APPROVAL',
            'APPLYING', 'APPLIED', 'APPLIED_WITH_ERRORS', 'ROLLING_BACK', 'ROLLED_BACK')),
        file_name text NOT NULL,
        size_bytes bigint NOT NULL CHECK (size_bytes >= 0),
        blob_id uuid NOT NULL,
        creditor uuid,
        expected_rows bigint CHECK (expected_rows > 0),
        expected_total_minor bigint CHECK (expected_total_minor >= 0),
        encoding text NOT NULL,
        delimiter text NOT NULL DEFAULT '',
        columns text[] NOT NULL DEFAULT '{}',
        rows_read bigint NOT NULL DEFAULT 0 CHECK (rows_read >= 0),
        rows_good bigint NOT NULL DEFAULT 0,
        rows_rejected bigint NOT NULL DEFAULT 0,
        rows_applied bigint NOT NULL DEFAULT 0,
        rows_unchanged bigint NOT NULL DEFAULT 0,
        slices integer NOT NULL DEFAULT 0,
        slices_applied integer NOT NULL DEFAULT 0,
        refusal_code text NOT NULL DEFAULT '',
        refusal text NOT NULL DEFAULT '',
        business_date date NOT NULL,
        created_at timestamptz NOT NULL,
        applied_at timestamptz,
        version bigint NOT NULL DEFAULT 1,
        PRIMARY KEY (agency, id),
        UNIQUE (agency, kind, sha256, sequence),
        CHECK (rows_good >= 0 AND rows_good <= rows_read),
        CHECK (rows_rejected >= 0 AND rows_rejected <= rows_read),
        CHECK (rows_applied >= 0 AND rows_unchanged >= 0 AND rows_applied + rows_unchanged <= rows_good),
        CHECK (slices_applied BETWEEN 0 AND slices)
    )
    """,
    # one file is worked once: what was refused or taken back may come again
    """
    CREATE UNIQUE INDEX batches_live ON batches (agency, kind, sha256) WHERE state NOT IN ('REJECTED', 'ROLLED_BACK')
    """,
    """
    CREATE TABLE slices (
        agency uuid NOT NULL,
        batch_id uuid NOT NULL,
        number integer NOT NULL CHECK (number >= 0),
        partition smallint NOT NULL CHECK (partition >= 0),
        rows integer NOT NULL CHECK (rows > 0),
        blob_id uuid NOT NULL,
        state text NOT NULL DEFAULT 'READY' CHECK (state IN ('READY', 'APPLIED')),
        applied integer NOT NULL DEFAULT 0 CHECK (applied >= 0),
        unchanged integer NOT NULL DEFAULT 0 CHECK (unchanged >= 0),
        refused integer NOT NULL DEFAULT 0 CHECK (refused >= 0),
        PRIMARY KEY (agency, batch_id, number),
        FOREIGN KEY (agency, batch_id) REFERENCES batches (agency, id) ON DELETE CASCADE,
        CHECK (applied + unchanged + refused <= rows)
    )
    """,
    """
    CREATE TABLE rejected_rows (
        agency uuid NOT NULL,
        batch_id uuid NOT NULL,
        row_number bigint NOT NULL CHECK (row_number > 0),
        field text NOT NULL,
        code text NOT NULL,
        expected text NOT NULL,
        stage text NOT NULL CHECK (stage IN ('READ', 'APPLY')),
        PRIMARY KEY (agency, batch_id, row_number, field, code),
        FOREIGN KEY (agency, batch_id) REFERENCES batches (agency, id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE reject_counts (
        agency uuid NOT NULL,
        batch_id uuid NOT NULL,
        code text NOT NULL,
        rows bigint NOT NULL CHECK (rows > 0),
        PRIMARY KEY (agency, batch_id, code),
        FOREIGN KEY (agency, batch_id) REFERENCES batches (agency, id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE batch_totals (
        agency uuid NOT NULL,
        batch_id uuid NOT NULL,
        currency text NOT NULL CHECK (currency IN ('BRL', 'EUR')),
        read_minor bigint NOT NULL,
        good_minor bigint NOT NULL CHECK (good_minor >= 0),
        refused_minor bigint NOT NULL DEFAULT 0 CHECK (refused_minor >= 0 AND refused_minor <= good_minor),
        PRIMARY KEY (agency, batch_id, currency),
        FOREIGN KEY (agency, batch_id) REFERENCES batches (agency, id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE batch_work (
        agency uuid NOT NULL,
        id uuid NOT NULL,
        state text NOT NULL CHECK (state IN ('READ_DUE', 'READING', 'ROLLBACK_DUE', 'ROLLING_BACK')),
        step text NOT NULL DEFAULT '' CHECK (step IN ('', 'BEGIN', 'TITLES', 'END', 'ABORT')),
        due_at timestamptz NOT NULL,
        act_key text NOT NULL,
        act_worker uuid,
        PRIMARY KEY (agency, id),
        FOREIGN KEY (agency, id) REFERENCES batches (agency, id) ON DELETE CASCADE
    )
    """,
)


def upgrade() -> None:
    """Create everything."""
    migrations.create_system_tables(op)
    for statement in TABLES:
        op.execute(sa.text(statement))
    for table in ("batches", "slices", "rejected_rows", "reject_counts", "batch_totals", "batch_work"):
        op.execute(sa.text(db.policy_sql(table)))
