"""The life of agreements: kinds, novations and their lineage, acceptance, signed confessions, endings, promises to pay.

Columns have defaults that say what the release before this one knows: a plan over titles that stay.
"""

from alembic import op

from servicekit import migrations

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

AGREEMENT_STATES = (
    "'PROPOSED', 'AWAITING_SIGNATURE', 'AWAITING_DOWN_PAYMENT', 'ACTIVE'"
    ", 'FULFILLED', 'BROKEN', 'CANCELLED', 'EXPIRED'"
)
INSTALMENT_STATES = (
    "'SCHEDULED', 'NOTIFIED', 'DUE', 'PARTIAL', 'MISSED', 'PAID', 'PAID_LATE'"
    ", 'DEFAULTED', 'CANCELLED', 'RENEGOTIATED'"
)
COMPONENTS = "'PRINCIPAL', 'CORRECTION', 'PENALTY', 'INTEREST', 'COSTS', 'FEES', 'PLAN_INTEREST'"
TABLES = {
    "title_lineage": """
        agreement_id uuid NOT NULL,
        case_id uuid NOT NULL,
        title_id uuid NOT NULL,
        parent_case_id uuid NOT NULL,
        parent_id uuid NOT NULL,
        PRIMARY KEY (agency, title_id, parent_id),
        FOREIGN KEY (agency, agreement_id) REFERENCES agreements (agency, id),
        FOREIGN KEY (agency, case_id, title_id) REFERENCES titles (agency, case_id, id),
        FOREIGN KEY (agency, parent_case_id, parent_id) REFERENCES titles (agency, case_id, id)
    """,
    "ending_entries": f"""
        agreement_id uuid NOT NULL,
        place integer NOT NULL,
        case_id uuid NOT NULL,
        title_id uuid,
        instalment_id uuid,
        component text NOT NULL CHECK (component IN ({COMPONENTS})),
        kind text NOT NULL CHECK (kind IN ('CHARGED', 'WAIVED', 'NOVATED')),
        amount_minor bigint NOT NULL CHECK (amount_minor <> 0),
        PRIMARY KEY (agency, agreement_id, place),
        FOREIGN KEY (agency, agreement_id) REFERENCES agreements (agency, id),
        FOREIGN KEY (agency, case_id, title_id) REFERENCES titles (agency, case_id, id),
        FOREIGN KEY (agency, instalment_id) REFERENCES instalments (agency, id)
    """,
    "signed_documents": """
        agreement_id uuid NOT NULL,
        blob_id uuid NOT NULL,
        content_type text NOT NULL CHECK (content_type IN ('application/pdf', 'image/png', 'image/jpeg')),
        size_bytes bigint NOT NULL CHECK (size_bytes > 0),
        sha256 bytea NOT NULL CHECK (octet_length(sha256) = 32),
        uploaded_at timestamptz NOT NULL,
        expire_at timestamptz NOT NULL,
        erased boolean NOT NULL DEFAULT false,
        erase_reason text NOT NULL DEFAULT '',
        PRIMARY KEY (agency, agreement_id),
        FOREIGN KEY (agency, agreement_id) REFERENCES agreements (agency, id)
    """,
    "promises": """
        case_id uuid NOT NULL,
        contact_id uuid NOT NULL,
        state text NOT NULL CHECK (state IN ('PENDING', 'KEPT', 'BROKEN', 'REPLACED')),
        made_at timestamptz NOT NULL,
        made_date date NOT NULL,
        promise_date date NOT NULL,
        tolerance_date date NOT NULL CHECK (tolerance_date >= promise_date),
        amount_minor bigint NOT NULL CHECK (amount_minor > 0),
        paid_minor bigint NOT NULL DEFAULT 0 CHECK (paid_minor >= 0),
        currency text NOT NULL,
        version bigint NOT NULL,
        PRIMARY KEY (agency, case_id, contact_id),
        FOREIGN KEY (agency, case_id) REFERENCES case_accounts (agency, case_id)
    """,
}
INDEXES = (
    # Descendants of a title: lineage is walked both ways.
    "CREATE INDEX title_lineage_parent ON title_lineage (agency, parent_id)",
    # Originals of a novation, titles of a statement: few titles have one.
    "CREATE INDEX titles_origin ON titles (agency, origin_agreement_id) WHERE origin_agreement_id IS NOT NULL",
    # The daily run takes one partition at a time.
    "CREATE INDEX agreement_cases_partition ON agreement_cases (agency, partition)",
    # What the daily run may break; promises that still wait are few.
    "CREATE INDEX promises_pending ON promises (agency, tolerance_date) WHERE state = 'PENDING'",
)


def upgrade() -> None:
    """Add the columns, tables and states."""
    op.execute(
        """
        ALTER TABLE agreements
            ADD COLUMN kind text NOT NULL DEFAULT 'PLAN' CHECK (kind IN ('PLAN', 'UNCHANGED', 'NOVATION')),
            ADD COLUMN tolerance_date date,
            ADD COLUMN breach_policy text NOT NULL DEFAULT 'RESTORE_ORIGINALS'
                CHECK (breach_policy IN ('RESTORE_ORIGINALS', 'KEEP_NOVATION')),
            ADD COLUMN novation_prefix text NOT NULL DEFAULT '',
            ADD COLUMN acquirer text NOT NULL DEFAULT '',
            ADD COLUMN contact_person_id uuid,
            ADD COLUMN responsible text NOT NULL DEFAULT '',
            ADD COLUMN confession_required boolean NOT NULL DEFAULT false,
            ADD COLUMN accept_channel text NOT NULL DEFAULT ''
                CHECK (accept_channel IN ('', 'DEBTOR_SIGNED', 'PHONE', 'CREDITOR', 'PORTAL')),
            ADD COLUMN accepted_by text NOT NULL DEFAULT '',
            ADD COLUMN grace_date date,
            ADD COLUMN reinstate_reason text NOT NULL DEFAULT '',
            ADD CONSTRAINT agreements_tolerance CHECK ((kind = 'UNCHANGED') = (tolerance_date IS NOT NULL)),
            ADD CONSTRAINT agreements_acquirer CHECK (acquirer = '' OR kind = 'NOVATION'),
            DROP CONSTRAINT agreements_state_check
        """
    )
    op.execute(
        f"ALTER TABLE agreements ADD CONSTRAINT agreements_state_check CHECK (state IN ({AGREEMENT_STATES}))"
    )
    op.execute("ALTER TABLE instalments DROP CONSTRAINT instalments_state_check")
    op.execute(
        f"ALTER TABLE instalments ADD CONSTRAINT instalments_state_check CHECK (state IN ({INSTALMENT_STATES}))"
    )
    op.execute("ALTER TABLE agreement_cases ADD COLUMN end_epoch integer")
    op.execute("ALTER TABLE agreement_titles ADD COLUMN novated boolean NOT NULL DEFAULT false")
    op.execute(
        """
        ALTER TABLE titles ADD COLUMN origin_agreement_id uuid, ADD COLUMN acquirer text NOT NULL DEFAULT '',
            ADD CONSTRAINT titles_origin_key FOREIGN KEY (agency, origin_agreement_id)
                REFERENCES agreements (agency, id),
            ADD CONSTRAINT titles_acquirer CHECK (acquirer = '' OR origin_agreement_id IS NOT NULL)
        """
    )
    for name, body in TABLES.items():
        op.execute(f"CREATE TABLE {name} (agency uuid NOT NULL, {body})")
        op.execute(migrations.policy_sql(name))
    for statement in INDEXES:
        op.execute(statement)
