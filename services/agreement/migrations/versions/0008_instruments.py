"""Instruments of their own: for loose titles, with an account behind them, an end and second copies; the minute."""

from alembic import op

from servicekit import migrations

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TABLES = {
    # No foreign key to creditors: accounts may be made before a creditor's first title is placed.
    "collection_accounts": """
        id uuid NOT NULL,
        creditor_id uuid,
        description text NOT NULL CHECK (description <> ''),
        bank text NOT NULL CHECK (bank ~ '^([0-9]{3})?$'),
        branch text NOT NULL,
        account text NOT NULL,
        wallet text NOT NULL,
        agreement text NOT NULL,
        beneficiary_name text NOT NULL CHECK (beneficiary_name <> ''),
        beneficiary_document text NOT NULL,
        payable_days integer NOT NULL CHECK (payable_days BETWEEN 0 AND 365),
        pix_key text NOT NULL,
        pix_name text NOT NULL,
        pix_city text NOT NULL,
        active boolean NOT NULL,
        is_default boolean NOT NULL,
        created_at timestamptz NOT NULL,
        version bigint NOT NULL DEFAULT 1,
        PRIMARY KEY (agency, id),
        UNIQUE NULLS NOT DISTINCT (agency, creditor_id, description),
        CHECK (bank <> '' OR pix_key <> ''),
        CHECK (active OR NOT is_default)
    """,
    "instrument_titles": """
        instrument_id uuid NOT NULL,
        case_id uuid NOT NULL,
        title_id uuid NOT NULL,
        amount_minor bigint NOT NULL CHECK (amount_minor > 0),
        PRIMARY KEY (agency, instrument_id, title_id),
        FOREIGN KEY (agency, instrument_id) REFERENCES instruments (agency, id),
        FOREIGN KEY (agency, case_id, title_id) REFERENCES titles (agency, case_id, id)
    """,
    "minute_templates": """
        id uuid NOT NULL,
        creditor_id uuid,
        language text NOT NULL CHECK (language IN ('pt-BR', 'pt-PT')),
        text text NOT NULL CHECK (text <> ''),
        version bigint NOT NULL DEFAULT 1,
        PRIMARY KEY (agency, id),
        UNIQUE NULLS NOT DISTINCT (agency, creditor_id, language)
    """,
    "minutes": """
        id uuid NOT NULL,
        agreement_id uuid NOT NULL,
        language text NOT NULL CHECK (language IN ('pt-BR', 'pt-PT')),
        blob_id uuid NOT NULL,
        sha256 bytea NOT NULL CHECK (length(sha256) = 32),
        size integer NOT NULL CHECK (size > 0),
        created_at timestamptz NOT NULL,
        PRIMARY KEY (agency, id),
        UNIQUE (agency, agreement_id, language, sha256),
        FOREIGN KEY (agency, agreement_id) REFERENCES agreements (agency, id)
    """,
}

INSTRUMENTS = (
    """
    ALTER TABLE instruments ALTER COLUMN instalment_id DROP NOT NULL,
        ADD COLUMN case_id uuid,
        ADD COLUMN account_id uuid,
        ADD COLUMN currency text NOT NULL DEFAULT 'BRL',
        ADD COLUMN issue_date date,
        ADD COLUMN payable_until date,
        ADD COLUMN our_number_printed text NOT NULL DEFAULT '',
        ADD COLUMN waits_for_id uuid,
        ADD COLUMN unwanted boolean NOT NULL DEFAULT false
    """,
    """
    UPDATE instruments SET case_id = agreements.case_id,
        issue_date = coalesce(agreements.accept_date, agreements.propose_date)
    FROM instalments JOIN agreements
        ON agreements.agency = instalments.agency AND agreements.id = instalments.agreement_id
    WHERE instalments.agency = instruments.agency AND instalments.id = instruments.instalment_id
    """,
    # Processes of the release before insert without the case while this one is being rolled out.
    """
    CREATE FUNCTION instruments_fill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        SELECT agreements.case_id, coalesce(agreements.accept_date, agreements.propose_date)
        INTO NEW.case_id, NEW.issue_date
        FROM instalments JOIN agreements
            ON agreements.agency = instalments.agency AND agreements.id = instalments.agreement_id
        WHERE instalments.agency = NEW.agency AND instalments.id = NEW.instalment_id;
        RETURN NEW;
    END $$
    """,
    "CREATE TRIGGER instruments_fill BEFORE INSERT ON instruments"
    " FOR EACH ROW WHEN (NEW.case_id IS NULL) EXECUTE FUNCTION instruments_fill()",
    """
    ALTER TABLE instruments ALTER COLUMN case_id SET NOT NULL, ALTER COLUMN issue_date SET NOT NULL,
        ADD FOREIGN KEY (agency, case_id) REFERENCES case_accounts (agency, case_id),
        ADD FOREIGN KEY (agency, account_id) REFERENCES collection_accounts (agency, id)
    """,
    # Each account numbers its own slips: our number alone names a slip only within its account.
    "DROP INDEX instruments_our_number",
    "CREATE UNIQUE INDEX instruments_our_number ON instruments (agency, our_number, account_id) NULLS NOT DISTINCT"
    " WHERE our_number <> ''",
    # A payment names it without the zeros before it.
    "CREATE INDEX instruments_our_number_plain ON instruments (agency, ltrim(our_number, '0')) WHERE our_number <> ''",
    # Of loose titles: a case's kinds are counted one by one.
    "CREATE UNIQUE INDEX instruments_loose ON instruments (agency, case_id, kind, generation)"
    " WHERE instalment_id IS NULL",
    # Instruments of a case.
    "CREATE INDEX instruments_case ON instruments (agency, case_id)",
    # What the day ends.
    "CREATE INDEX instruments_expiring ON instruments (agency, payable_until) WHERE state = 'REGISTERED'",
)

INDEXES = (
    # One account that is issued on.
    "CREATE UNIQUE INDEX collection_accounts_default ON collection_accounts (agency, creditor_id) NULLS NOT DISTINCT"
    " WHERE is_default",
    # Instruments that a change of a title makes wrong.
    "CREATE INDEX instrument_titles_title ON instrument_titles (agency, title_id)",
)


def upgrade() -> None:
    """Create them."""
    for name, body in TABLES.items():
        op.execute(f"CREATE TABLE {name} (agency uuid NOT NULL, {body})")
        op.execute(migrations.policy_sql(name))
    for statement in (*INSTRUMENTS, *INDEXES):
        op.execute(statement)
