"""Collecting in euro: creditors' accounts, SEPA mandates, direct debits and the files they are asked for in."""

from alembic import op

from servicekit import migrations

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TABLES = {
    "euro_accounts": """
        creditor_id uuid NOT NULL,
        holder_name text NOT NULL,
        iban text NOT NULL,
        bic text NOT NULL DEFAULT '',
        scheme_identifier text NOT NULL DEFAULT '',
        pre_notice_days integer NOT NULL CHECK (pre_notice_days BETWEEN 1 AND 14),
        multibanco_entity text NOT NULL DEFAULT '' CHECK (multibanco_entity ~ '^([0-9]{5})?$'),
        version bigint NOT NULL DEFAULT 1,
        PRIMARY KEY (agency, creditor_id),
        FOREIGN KEY (agency, creditor_id) REFERENCES creditors (agency, creditor_id)
    """,
    "mandates": """
        id uuid NOT NULL,
        creditor_id uuid NOT NULL,
        debtor_id uuid NOT NULL,
        case_id uuid NOT NULL,
        reference text NOT NULL CHECK (length(reference) BETWEEN 1 AND 35),
        signature_date date NOT NULL,
        scheme text NOT NULL CHECK (scheme IN ('CORE', 'B2B')),
        one_off boolean NOT NULL,
        iban text NOT NULL,
        state text NOT NULL CHECK (state IN ('ACTIVE', 'SUSPENDED', 'USED', 'LAPSED', 'CANCELLED')),
        reason_code text NOT NULL DEFAULT '',
        last_collection_date date,
        created_at timestamptz NOT NULL,
        version bigint NOT NULL DEFAULT 1,
        PRIMARY KEY (agency, id),
        UNIQUE (agency, creditor_id, reference),
        FOREIGN KEY (agency, case_id) REFERENCES case_accounts (agency, case_id),
        FOREIGN KEY (agency, creditor_id) REFERENCES creditors (agency, creditor_id)
    """,
    "collection_files": """
        id uuid NOT NULL,
        creditor_id uuid NOT NULL,
        number bigint NOT NULL CHECK (number > 0),
        due_through date NOT NULL,
        create_date date NOT NULL,
        transactions integer NOT NULL CHECK (transactions > 0),
        total_minor bigint NOT NULL CHECK (total_minor > 0),
        state text NOT NULL CHECK (state IN ('DRAFT', 'WRITING', 'READY')),
        blob_id uuid,
        sha256 bytea NOT NULL DEFAULT '',
        created_at timestamptz NOT NULL,
        due_at timestamptz NOT NULL,
        act_key text NOT NULL,
        act_worker uuid,
        PRIMARY KEY (agency, id),
        UNIQUE (agency, creditor_id, number),
        FOREIGN KEY (agency, creditor_id) REFERENCES creditors (agency, creditor_id),
        CHECK ((state = 'READY') = (blob_id IS NOT NULL))
    """,
    # One row an instrument of kind SEPA_DD: it is in one file, or in none, and never in a second.
    "direct_debits": """
        instrument_id uuid NOT NULL,
        mandate_id uuid NOT NULL,
        notice_date date NOT NULL,
        state text NOT NULL CHECK (state IN ('DUE', 'ASKED', 'RETURNED', 'DROPPED')),
        file_id uuid,
        amount_minor bigint NOT NULL DEFAULT 0 CHECK (amount_minor >= 0),
        sequence text NOT NULL DEFAULT '' CHECK (sequence IN ('', 'FRST', 'RCUR', 'OOFF', 'FNAL')),
        collection_date date,
        reason_code text NOT NULL DEFAULT '',
        return_date date,
        PRIMARY KEY (agency, instrument_id),
        FOREIGN KEY (agency, instrument_id) REFERENCES instruments (agency, id) DEFERRABLE INITIALLY DEFERRED,
        FOREIGN KEY (agency, mandate_id) REFERENCES mandates (agency, id),
        FOREIGN KEY (agency, file_id) REFERENCES collection_files (agency, id),
        CHECK ((state IN ('ASKED', 'RETURNED')) = (file_id IS NOT NULL)),
        CHECK ((file_id IS NOT NULL) = (sequence <> '')),
        CHECK ((file_id IS NOT NULL) = (amount_minor > 0)),
        CHECK ((file_id IS NOT NULL) = (collection_date IS NOT NULL)),
        CHECK ((state = 'RETURNED') = (reason_code <> '')),
        CHECK ((state = 'RETURNED') = (return_date IS NOT NULL))
    """,
}

STATEMENTS = (
    # One mandate at a time to collect on for a debtor and creditor.
    "CREATE UNIQUE INDEX mandates_active ON mandates (agency, creditor_id, debtor_id)"
    " WHERE state IN ('ACTIVE', 'SUSPENDED')",
    # What a mandate still collects, and has collected.
    "CREATE INDEX direct_debits_mandate ON direct_debits (agency, mandate_id)",
    # What is in a file.
    "CREATE INDEX direct_debits_file ON direct_debits (agency, file_id) WHERE file_id IS NOT NULL",
    # A payment that names a reference without its entity.
    "CREATE INDEX instruments_multibanco ON instruments (agency, ltrim(right(our_number, 9), '0'))"
    " WHERE kind = 'MULTIBANCO'",
    # Files to write.
    "CREATE INDEX collection_files_acts ON collection_files (agency, due_at) WHERE state IN ('DRAFT', 'WRITING')",
    "ALTER TABLE instruments DROP CONSTRAINT IF EXISTS instruments_kind_check",
    "ALTER TABLE instruments ADD CONSTRAINT instruments_kind_check"
    " CHECK (kind IN ('BOLETO', 'PIX', 'MULTIBANCO', 'SEPA_DD'))",
)


def upgrade() -> None:
    """Create them."""
    for name, body in TABLES.items():
        op.execute(f"CREATE TABLE {name} (agency uuid NOT NULL, {body})")
        op.execute(migrations.policy_sql(name))
    for statement in STATEMENTS:
        op.execute(statement)
