"""Tables of the agreement service.

Every key, unique and foreign key begins with agency; row-level security on every business table (architecture §5).
The identity of a title's balance, of an instalment and of a payment are CHECKs; the ledger only grows.
"""

from alembic import op

from servicekit import migrations

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = {
    "creditors": """
        creditor_id uuid NOT NULL,
        creditor_reference text NOT NULL,
        PRIMARY KEY (agency, creditor_id),
        UNIQUE (agency, creditor_reference)
    """,
    "case_accounts": """
        case_id uuid NOT NULL,
        creditor_id uuid NOT NULL,
        debtor_id uuid NOT NULL,
        contract_reference text NOT NULL,
        currency text NOT NULL,
        partition smallint NOT NULL,
        agreement_id uuid,
        epoch integer NOT NULL DEFAULT 0,
        PRIMARY KEY (agency, case_id),
        FOREIGN KEY (agency, creditor_id) REFERENCES creditors (agency, creditor_id)
    """,
    "titles": """
        case_id uuid NOT NULL,
        id uuid NOT NULL,
        reference text NOT NULL,
        batch_id uuid,
        due_date date NOT NULL,
        payable_until date NOT NULL CHECK (payable_until >= due_date),
        principal_minor bigint NOT NULL CHECK (principal_minor > 0),
        penalty_rate_e4 integer NOT NULL CHECK (penalty_rate_e4 >= 0),
        monthly_rate_e4 integer NOT NULL CHECK (monthly_rate_e4 >= 0),
        accrued_through date NOT NULL,
        open_principal_minor bigint NOT NULL CHECK (open_principal_minor >= 0),
        open_penalty_minor bigint NOT NULL DEFAULT 0 CHECK (open_penalty_minor >= 0),
        open_interest_minor bigint NOT NULL DEFAULT 0 CHECK (open_interest_minor >= 0),
        charged_penalty_minor bigint NOT NULL DEFAULT 0 CHECK (charged_penalty_minor >= 0),
        charged_interest_minor bigint NOT NULL DEFAULT 0 CHECK (charged_interest_minor >= 0),
        received_minor bigint NOT NULL DEFAULT 0 CHECK (received_minor >= 0),
        waived_minor bigint NOT NULL DEFAULT 0 CHECK (waived_minor >= 0),
        withdrawn_minor bigint NOT NULL DEFAULT 0 CHECK (withdrawn_minor >= 0),
        written_off_minor bigint NOT NULL DEFAULT 0 CHECK (written_off_minor >= 0),
        agreement_id uuid,
        state text NOT NULL DEFAULT 'OPEN'
            CHECK (state IN ('OPEN', 'PARTIALLY_PAID', 'IN_AGREEMENT', 'PAID', 'WITHDRAWN', 'WRITTEN_OFF')),
        version bigint NOT NULL DEFAULT 1,
        PRIMARY KEY (agency, case_id, id),
        FOREIGN KEY (agency, case_id) REFERENCES case_accounts (agency, case_id),
        CONSTRAINT titles_balance CHECK (
            principal_minor + charged_penalty_minor + charged_interest_minor
            = open_principal_minor + open_penalty_minor + open_interest_minor
            + received_minor + waived_minor + withdrawn_minor + written_off_minor
        )
    """,
    "agreements": """
        id uuid NOT NULL,
        case_id uuid NOT NULL,
        number integer NOT NULL CHECK (number > 0),
        state text NOT NULL CHECK (state IN
            ('PROPOSED', 'AWAITING_DOWN_PAYMENT', 'ACTIVE', 'FULFILLED', 'BROKEN', 'CANCELLED', 'EXPIRED')),
        currency text NOT NULL,
        debt_minor bigint NOT NULL CHECK (debt_minor > 0),
        discount_minor bigint NOT NULL CHECK (discount_minor >= 0),
        plan_interest_minor bigint NOT NULL CHECK (plan_interest_minor >= 0),
        total_minor bigint NOT NULL CHECK (total_minor = debt_minor - discount_minor + plan_interest_minor),
        instalments integer NOT NULL CHECK (instalments > 0),
        first_due_date date NOT NULL,
        annual_rate_e4 integer NOT NULL CHECK (annual_rate_e4 >= 0),
        down_payment_minor bigint NOT NULL CHECK (down_payment_minor >= 0),
        down_payment_date date,
        propose_date date NOT NULL,
        expire_date date NOT NULL CHECK (expire_date >= propose_date),
        accept_date date,
        end_date date,
        end_reason text NOT NULL DEFAULT '',
        notice_days integer NOT NULL CHECK (notice_days >= 0),
        missed_days integer NOT NULL CHECK (missed_days > 0),
        broken_days integer NOT NULL CHECK (broken_days >= missed_days),
        created_at timestamptz NOT NULL,
        version bigint NOT NULL DEFAULT 1,
        PRIMARY KEY (agency, id),
        UNIQUE (agency, case_id, number),
        FOREIGN KEY (agency, case_id) REFERENCES case_accounts (agency, case_id),
        CHECK ((down_payment_minor > 0) = (down_payment_date IS NOT NULL))
    """,
    "agreement_cases": """
        agreement_id uuid NOT NULL,
        case_id uuid NOT NULL,
        partition smallint NOT NULL,
        PRIMARY KEY (agency, agreement_id, case_id),
        FOREIGN KEY (agency, agreement_id) REFERENCES agreements (agency, id),
        FOREIGN KEY (agency, case_id) REFERENCES case_accounts (agency, case_id)
    """,
    "agreement_titles": """
        agreement_id uuid NOT NULL,
        case_id uuid NOT NULL,
        title_id uuid NOT NULL,
        title_version bigint NOT NULL,
        principal_minor bigint NOT NULL CHECK (principal_minor >= 0),
        penalty_minor bigint NOT NULL CHECK (penalty_minor >= 0),
        interest_minor bigint NOT NULL CHECK (interest_minor >= 0),
        waived_penalty_minor bigint NOT NULL CHECK (waived_penalty_minor BETWEEN 0 AND penalty_minor),
        waived_interest_minor bigint NOT NULL CHECK (waived_interest_minor BETWEEN 0 AND interest_minor),
        PRIMARY KEY (agency, agreement_id, title_id),
        FOREIGN KEY (agency, agreement_id) REFERENCES agreements (agency, id),
        FOREIGN KEY (agency, case_id, title_id) REFERENCES titles (agency, case_id, id)
    """,
    "instalments": """
        id uuid NOT NULL,
        agreement_id uuid NOT NULL,
        number integer NOT NULL CHECK (number >= 0),
        due_date date NOT NULL,
        payable_until date NOT NULL CHECK (payable_until >= due_date),
        capital_minor bigint NOT NULL CHECK (capital_minor > 0),
        interest_minor bigint NOT NULL CHECK (interest_minor >= 0),
        charged_interest_minor bigint NOT NULL DEFAULT 0,
        paid_interest_minor bigint NOT NULL DEFAULT 0,
        paid_capital_minor bigint NOT NULL DEFAULT 0,
        paid_date date,
        state text NOT NULL CHECK (state IN
            ('SCHEDULED', 'NOTIFIED', 'DUE', 'PARTIAL', 'MISSED', 'PAID', 'PAID_LATE', 'DEFAULTED', 'CANCELLED')),
        version bigint NOT NULL DEFAULT 1,
        PRIMARY KEY (agency, id),
        UNIQUE (agency, agreement_id, number),
        FOREIGN KEY (agency, agreement_id) REFERENCES agreements (agency, id),
        CHECK (paid_interest_minor BETWEEN 0 AND charged_interest_minor),
        CHECK (charged_interest_minor <= interest_minor),
        CHECK (paid_capital_minor BETWEEN 0 AND capital_minor)
    """,
    "instruments": """
        id uuid NOT NULL,
        instalment_id uuid NOT NULL,
        kind text NOT NULL CHECK (kind IN ('BOLETO', 'PIX')),
        generation integer NOT NULL CHECK (generation > 0),
        state text NOT NULL CHECK (state IN ('DRAFT', 'REGISTERING', 'REGISTERED', 'REJECTED', 'PAID', 'EXPIRED',
            'CANCEL_REQUESTED', 'CANCELLING', 'CANCELLED')),
        amount_minor bigint NOT NULL CHECK (amount_minor > 0),
        due_date date NOT NULL,
        our_number text NOT NULL DEFAULT '',
        barcode text NOT NULL DEFAULT '',
        txid text NOT NULL DEFAULT '',
        br_code text NOT NULL DEFAULT '',
        due_at timestamptz NOT NULL,
        act_key text NOT NULL,
        act_worker uuid,
        version bigint NOT NULL DEFAULT 1,
        PRIMARY KEY (agency, id),
        UNIQUE (agency, instalment_id, kind, generation),
        FOREIGN KEY (agency, instalment_id) REFERENCES instalments (agency, id)
    """,
    "slip_numbers": """
        account text NOT NULL,
        last_number bigint NOT NULL,
        PRIMARY KEY (agency, account)
    """,
    "payments": """
        id uuid NOT NULL,
        creditor_reference text NOT NULL,
        account text NOT NULL,
        means text NOT NULL,
        bank_reference text NOT NULL,
        value_date date NOT NULL,
        amount_minor bigint NOT NULL CHECK (amount_minor > 0),
        currency text NOT NULL,
        txid text NOT NULL DEFAULT '',
        our_number text NOT NULL DEFAULT '',
        title_reference text NOT NULL DEFAULT '',
        contract_reference text NOT NULL DEFAULT '',
        state text NOT NULL CHECK (state IN ('UNIDENTIFIED', 'ALLOCATED', 'OVERPAID', 'REVERSED')),
        allocated_minor bigint NOT NULL DEFAULT 0 CHECK (allocated_minor >= 0),
        overpaid_minor bigint NOT NULL DEFAULT 0 CHECK (overpaid_minor >= 0),
        case_id uuid,
        title_id uuid,
        instrument_id uuid,
        epoch integer NOT NULL DEFAULT 0,
        reverse_date date,
        reverse_reason text NOT NULL DEFAULT '',
        created_at timestamptz NOT NULL,
        version bigint NOT NULL DEFAULT 1,
        PRIMARY KEY (agency, id),
        UNIQUE (agency, creditor_reference, account, means, bank_reference),
        FOREIGN KEY (agency, case_id) REFERENCES case_accounts (agency, case_id),
        FOREIGN KEY (agency, case_id, title_id) REFERENCES titles (agency, case_id, id),
        FOREIGN KEY (agency, instrument_id) REFERENCES instruments (agency, id),
        CONSTRAINT payments_balance CHECK (
            allocated_minor + overpaid_minor = CASE WHEN state IN ('ALLOCATED', 'OVERPAID') THEN amount_minor ELSE 0 END
        ),
        CHECK (state <> 'OVERPAID' OR allocated_minor = 0),
        CHECK (state <> 'ALLOCATED' OR allocated_minor > 0),
        CHECK ((state = 'REVERSED') = (reverse_date IS NOT NULL)),
        CHECK (state NOT IN ('ALLOCATED', 'OVERPAID') OR case_id IS NOT NULL),
        CHECK (state <> 'UNIDENTIFIED' OR case_id IS NULL)
    """,
    "payment_sources": """
        payment_id uuid NOT NULL,
        kind text NOT NULL CHECK (kind IN ('FILE', 'RPC')),
        batch_id uuid,
        row bigint,
        caller text NOT NULL DEFAULT '',
        UNIQUE NULLS NOT DISTINCT (agency, payment_id, kind, batch_id, row, caller),
        FOREIGN KEY (agency, payment_id) REFERENCES payments (agency, id)
    """,
    "allocations": """
        payment_id uuid NOT NULL,
        case_id uuid NOT NULL,
        title_id uuid,
        instalment_id uuid,
        component text NOT NULL CHECK (component IN ('PRINCIPAL', 'PENALTY', 'INTEREST', 'PLAN_INTEREST')),
        amount_minor bigint NOT NULL CHECK (amount_minor > 0),
        UNIQUE NULLS NOT DISTINCT (agency, payment_id, title_id, instalment_id, component),
        FOREIGN KEY (agency, payment_id) REFERENCES payments (agency, id),
        FOREIGN KEY (agency, case_id, title_id) REFERENCES titles (agency, case_id, id),
        FOREIGN KEY (agency, instalment_id) REFERENCES instalments (agency, id),
        CHECK ((component = 'PLAN_INTEREST') = (title_id IS NULL))
    """,
    "postings": """
        id bigint GENERATED ALWAYS AS IDENTITY,
        case_id uuid NOT NULL,
        title_id uuid,
        instalment_id uuid,
        component text NOT NULL CHECK (component IN ('PRINCIPAL', 'PENALTY', 'INTEREST', 'PLAN_INTEREST')),
        kind text NOT NULL CHECK (kind IN ('CHARGED', 'RECEIVED', 'WAIVED', 'WITHDRAWN', 'WRITTEN_OFF')),
        amount_minor bigint NOT NULL CHECK (amount_minor <> 0),
        currency text NOT NULL,
        business_date date NOT NULL,
        value_date date NOT NULL,
        from_date date,
        through_date date,
        payment_id uuid,
        agreement_id uuid,
        PRIMARY KEY (agency, id),
        FOREIGN KEY (agency, case_id, title_id) REFERENCES titles (agency, case_id, id),
        FOREIGN KEY (agency, instalment_id) REFERENCES instalments (agency, id),
        FOREIGN KEY (agency, payment_id) REFERENCES payments (agency, id),
        FOREIGN KEY (agency, agreement_id) REFERENCES agreements (agency, id),
        CHECK ((component = 'PLAN_INTEREST') = (title_id IS NULL)),
        CHECK (component <> 'PLAN_INTEREST' OR instalment_id IS NOT NULL),
        CHECK (component <> 'PRINCIPAL' OR kind <> 'CHARGED')
    """,
}

INDEXES = (
    # The account of an agreement; few cases have one.
    "CREATE INDEX case_accounts_agreement ON case_accounts (agency, agreement_id) WHERE agreement_id IS NOT NULL",
    # A payment that names a title.
    "CREATE INDEX titles_reference ON titles (agency, reference)",
    # A payment that names a contract; proposals and reads of one creditor.
    "CREATE INDEX case_accounts_contract ON case_accounts (agency, contract_reference)",
    # Proposals of a case; the daily run of a partition.
    "CREATE INDEX agreement_cases_case ON agreement_cases (agency, case_id)",
    "CREATE INDEX agreements_live ON agreements (agency, state)"
    " WHERE state IN ('PROPOSED', 'AWAITING_DOWN_PAYMENT', 'ACTIVE')",
    # A payment that names an instrument; the act timers.
    "CREATE INDEX instruments_txid ON instruments (agency, txid) WHERE txid <> ''",
    "CREATE UNIQUE INDEX instruments_our_number ON instruments (agency, our_number) WHERE our_number <> ''",
    "CREATE INDEX instruments_acts ON instruments (agency, due_at)"
    " WHERE state IN ('DRAFT', 'REGISTERING', 'CANCEL_REQUESTED', 'CANCELLING')",
    # What waits for its title; what replays with a late or reversed payment.
    "CREATE INDEX payments_unidentified ON payments (agency, creditor_reference) WHERE state = 'UNIDENTIFIED'",
    "CREATE INDEX payments_case ON payments (agency, case_id, value_date) WHERE case_id IS NOT NULL",
    "CREATE INDEX postings_payment ON postings (agency, payment_id) WHERE payment_id IS NOT NULL",
)

APPEND_ONLY = (
    """
    CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'postings are only added, never changed' USING ERRCODE = 'restrict_violation'; END $$
    """,
    """
    CREATE TRIGGER postings_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON postings
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """,
)


def upgrade() -> None:
    """Create everything."""
    migrations.create_system_tables(op)
    for name, body in TABLES.items():
        op.execute(f"CREATE TABLE {name} (agency uuid NOT NULL, {body})")
        op.execute(migrations.policy_sql(name))
    for statement in (*INDEXES, *APPEND_ONLY):
        op.execute(statement)
