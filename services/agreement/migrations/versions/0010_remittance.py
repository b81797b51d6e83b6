"""Accounting to creditors: commission contracts, statements with their lines, and what waits for the next one.

A settlement is a RECEIVED posting. A trigger puts each into `settlements_waiting`, whoever posts it; closing a
statement moves it from there into `statement_lines`, where it can stand only once. Closed statements and lines never
change.
"""

from alembic import op

from servicekit import migrations

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TABLES = {
    "commission_contracts": """
        id uuid NOT NULL,
        creditor_id uuid NOT NULL,
        currency text NOT NULL CHECK (currency IN ('BRL', 'EUR')),
        product text NOT NULL DEFAULT '',
        valid_from date NOT NULL,
        fixed_minor bigint NOT NULL DEFAULT 0 CHECK (fixed_minor >= 0),
        fixed_per text CHECK (fixed_per IN ('PAYMENT', 'SETTLEMENT')),
        success_rate_e4 integer NOT NULL DEFAULT 0 CHECK (success_rate_e4 BETWEEN 0 AND 1000000),
        tax text CHECK (tax IN ('ISS', 'VAT')),
        tax_rate_e4 integer NOT NULL DEFAULT 0 CHECK (tax_rate_e4 BETWEEN 0 AND 1000000),
        tax_retained boolean NOT NULL DEFAULT false,
        minimum_minor bigint NOT NULL DEFAULT 0 CHECK (minimum_minor >= 0),
        frequency text CHECK (frequency IN ('DAY', 'WEEK', 'MONTH')),
        grouping text CHECK (grouping IN ('GROUPED', 'INDIVIDUAL')),
        created_by text NOT NULL,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (agency, id),
        UNIQUE (agency, creditor_id, currency, product, valid_from),
        FOREIGN KEY (agency, creditor_id) REFERENCES creditors (agency, creditor_id),
        CHECK ((fixed_minor > 0) = (fixed_per IS NOT NULL)),
        CHECK ((tax_rate_e4 > 0) = (tax IS NOT NULL)),
        CHECK (tax IS NOT NULL OR NOT tax_retained),
        CHECK ((product = '') = (frequency IS NOT NULL)),
        CHECK ((product = '') = (grouping IS NOT NULL)),
        CHECK (product = '' OR minimum_minor = 0)
    """,
    "commission_bands": """
        contract_id uuid NOT NULL,
        from_day integer NOT NULL CHECK (from_day >= 0),
        principal_rate_e4 integer NOT NULL CHECK (principal_rate_e4 BETWEEN 0 AND 1000000),
        charges_rate_e4 integer NOT NULL CHECK (charges_rate_e4 BETWEEN 0 AND 1000000),
        costs_rate_e4 integer NOT NULL CHECK (costs_rate_e4 BETWEEN 0 AND 1000000),
        PRIMARY KEY (agency, contract_id, from_day),
        FOREIGN KEY (agency, contract_id) REFERENCES commission_contracts (agency, id)
    """,
    "statements": """
        id uuid NOT NULL,
        creditor_id uuid NOT NULL,
        currency text NOT NULL CHECK (currency IN ('BRL', 'EUR')),
        for_case_id uuid,
        number integer NOT NULL CHECK (number > 0),
        state text NOT NULL CHECK (state IN ('OPEN', 'CLOSED', 'APPROVED', 'PAID')),
        period_start date,
        period_end date,
        settlements bigint NOT NULL DEFAULT 0 CHECK (settlements >= 0),
        gross_minor bigint NOT NULL DEFAULT 0,
        commission_minor bigint NOT NULL DEFAULT 0,
        success_fee_minor bigint NOT NULL DEFAULT 0,
        tax_added_minor bigint NOT NULL DEFAULT 0,
        tax_retained_minor bigint NOT NULL DEFAULT 0,
        carried_in_minor bigint NOT NULL DEFAULT 0,
        net_minor bigint NOT NULL DEFAULT 0,
        minimum_minor bigint NOT NULL DEFAULT 0 CHECK (minimum_minor >= 0),
        remitted_minor bigint NOT NULL DEFAULT 0 CHECK (remitted_minor >= 0),
        carried_out_minor bigint NOT NULL DEFAULT 0,
        closed_by text NOT NULL DEFAULT '',
        closed_at timestamptz,
        approved_by text NOT NULL DEFAULT '',
        approved_at timestamptz,
        pay_date date,
        bank_reference text NOT NULL DEFAULT '',
        version bigint NOT NULL DEFAULT 1,
        PRIMARY KEY (agency, id),
        UNIQUE NULLS NOT DISTINCT (agency, creditor_id, currency, for_case_id, number),
        FOREIGN KEY (agency, creditor_id) REFERENCES creditors (agency, creditor_id),
        FOREIGN KEY (agency, for_case_id) REFERENCES case_accounts (agency, case_id),
        CONSTRAINT statements_net CHECK (state = 'OPEN' OR net_minor = gross_minor - commission_minor
            - success_fee_minor - tax_added_minor + tax_retained_minor + carried_in_minor),
        CONSTRAINT statements_remitted CHECK (state = 'OPEN' OR remitted_minor = CASE
            WHEN net_minor > 0 AND net_minor >= minimum_minor THEN net_minor ELSE 0 END),
        CONSTRAINT statements_carried CHECK (carried_out_minor = net_minor - remitted_minor),
        CHECK ((state = 'OPEN') = (period_end IS NULL)),
        CHECK (period_end IS NULL OR period_start < period_end),
        CHECK ((state = 'OPEN') = (closed_by = '') AND (state = 'OPEN') = (closed_at IS NULL)),
        CHECK ((state IN ('APPROVED', 'PAID')) = (approved_by <> '')
            AND (state IN ('APPROVED', 'PAID')) = (approved_at IS NOT NULL)),
        CONSTRAINT statements_two_people CHECK (approved_by = '' OR approved_by <> closed_by),
        CHECK ((state = 'PAID') = (pay_date IS NOT NULL) AND (state = 'PAID') = (bank_reference <> ''))
    """,
    "statement_lines": """
        posting_id bigint NOT NULL,
        statement_id uuid NOT NULL,
        contract_id uuid NOT NULL,
        days_past_due integer NOT NULL CHECK (days_past_due >= 0),
        rate_e4 integer NOT NULL,
        amount_minor bigint NOT NULL,
        percentage_minor bigint NOT NULL,
        fixed_minor bigint NOT NULL,
        tax_added_minor bigint NOT NULL,
        tax_retained_minor bigint NOT NULL,
        PRIMARY KEY (agency, posting_id)
    """,
    "statement_fees": """
        statement_id uuid NOT NULL,
        case_id uuid NOT NULL,
        contract_id uuid NOT NULL,
        rate_e4 integer NOT NULL,
        base_minor bigint NOT NULL,
        fee_minor bigint NOT NULL,
        tax_added_minor bigint NOT NULL,
        tax_retained_minor bigint NOT NULL,
        PRIMARY KEY (agency, case_id, statement_id),
        FOREIGN KEY (agency, case_id) REFERENCES case_accounts (agency, case_id),
        FOREIGN KEY (agency, statement_id) REFERENCES statements (agency, id),
        FOREIGN KEY (agency, contract_id) REFERENCES commission_contracts (agency, id)
    """,
    "settlements_waiting": """
        creditor_id uuid NOT NULL,
        currency text NOT NULL,
        posting_id bigint NOT NULL,
        case_id uuid NOT NULL,
        payment_id uuid NOT NULL,
        title_id uuid,
        instalment_id uuid,
        agreement_id uuid,
        component text NOT NULL,
        business_date date NOT NULL,
        value_date date NOT NULL,
        amount_minor bigint NOT NULL,
        PRIMARY KEY (agency, creditor_id, currency, posting_id)
    """,
}

INDEXES = (
    # One statement collects for a creditor and currency (and case).
    "CREATE UNIQUE INDEX statements_open ON statements (agency, creditor_id, currency, for_case_id)"
    " NULLS NOT DISTINCT WHERE state = 'OPEN'",
    # Lines of a statement in order; its fees.
    "CREATE INDEX statement_lines_statement ON statement_lines (agency, statement_id, posting_id)",
    "CREATE INDEX statement_fees_statement ON statement_fees (agency, statement_id, case_id)",
    # What a payment did and has not been remitted.
    "CREATE INDEX settlements_waiting_payment ON settlements_waiting (agency, payment_id)",
)

_WAITING = """
    INSERT INTO settlements_waiting
        (agency, creditor_id, currency, posting_id, case_id, payment_id, title_id, instalment_id, agreement_id,
        component, business_date, value_date, amount_minor)
    SELECT posted.agency, account.creditor_id, posted.currency, posted.id, posted.case_id, posted.payment_id,
        posted.title_id, posted.instalment_id, posted.agreement_id, posted.component, posted.business_date,
        posted.value_date, posted.amount_minor
    FROM {posted} AS posted CROSS JOIN LATERAL (
        SELECT creditor_id FROM case_accounts
        WHERE case_accounts.agency = posted.agency AND case_accounts.case_id = posted.case_id OFFSET 0
    ) AS account
    WHERE posted.kind = 'RECEIVED'
"""

# A session keeps the plans of its functions: one that was made when tables were empty would scan them for every row.
TRIGGERS = (
    f"""
    CREATE FUNCTION settlements_wait() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS
    $$ BEGIN {_WAITING.format(posted="posted")}; RETURN NULL; END $$
    """,
    """
    CREATE TRIGGER postings_settle AFTER INSERT ON postings REFERENCING NEW TABLE AS posted
    FOR EACH STATEMENT EXECUTE FUNCTION settlements_wait()
    """,
    """
    CREATE FUNCTION refuse_statement_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE EXCEPTION '% is only added to, never changed', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
    END $$
    """,
    """
    CREATE TRIGGER statement_lines_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON statement_lines
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_statement_change()
    """,
    """
    CREATE TRIGGER statement_fees_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON statement_fees
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_statement_change()
    """,
    """
    CREATE TRIGGER commission_contracts_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON commission_contracts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_statement_change()
    """,
    """
    CREATE TRIGGER commission_bands_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON commission_bands
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_statement_change()
    """,
    # Set-wise in place of three foreign keys a row, whose targets are never deleted; it asks for more: the statement is
    # open, the line says what the ledger says.
    """
    CREATE FUNCTION lines_are_settlements() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$ BEGIN
        IF EXISTS (SELECT 1 FROM (SELECT DISTINCT agency, statement_id FROM added) AS one LEFT JOIN statements
                ON statements.agency = one.agency AND statements.id = one.statement_id
            WHERE statements.state IS DISTINCT FROM 'OPEN') THEN
            RAISE EXCEPTION 'only an open statement gets lines' USING ERRCODE = 'restrict_violation';
        END IF;
        IF EXISTS (SELECT 1 FROM (SELECT DISTINCT agency, contract_id FROM added) AS one
                LEFT JOIN commission_contracts AS contracts
                ON contracts.agency = one.agency AND contracts.id = one.contract_id WHERE contracts.id IS NULL) THEN
            RAISE EXCEPTION 'a line has a contract' USING ERRCODE = 'foreign_key_violation';
        END IF;
        IF EXISTS (SELECT 1 FROM added LEFT JOIN LATERAL (
                SELECT amount_minor FROM postings WHERE postings.agency = added.agency
                    AND postings.id = added.posting_id AND postings.kind = 'RECEIVED' OFFSET 0) AS posting ON true
            WHERE posting.amount_minor IS DISTINCT FROM added.amount_minor) THEN
            RAISE EXCEPTION 'a line is a settlement of the ledger' USING ERRCODE = 'foreign_key_violation';
        END IF;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER statement_lines_settle AFTER INSERT ON statement_lines REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION lines_are_settlements()
    """,
    """
    CREATE FUNCTION fees_of_open_statements() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$ BEGIN
        IF EXISTS (SELECT 1 FROM added JOIN statements
                ON statements.agency = added.agency AND statements.id = added.statement_id
            WHERE statements.state <> 'OPEN') THEN
            RAISE EXCEPTION 'only an open statement gets fees' USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER statement_fees_open AFTER INSERT ON statement_fees REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION fees_of_open_statements()
    """,
    """
    CREATE FUNCTION statement_moves() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
    DECLARE lines record; fees record;
    BEGIN
        IF (OLD.state, NEW.state) NOT IN (('OPEN', 'CLOSED'), ('CLOSED', 'APPROVED'), ('APPROVED', 'PAID')) THEN
            RAISE EXCEPTION 'a statement goes from open to closed, approved, paid' USING ERRCODE = 'restrict_violation';
        END IF;
        IF OLD.state = 'OPEN' THEN
            SELECT count(*) AS number, coalesce(sum(amount_minor), 0) AS gross,
                coalesce(sum(percentage_minor + fixed_minor), 0) AS commission,
                coalesce(sum(tax_added_minor), 0) AS added, coalesce(sum(tax_retained_minor), 0) AS retained
            INTO lines FROM statement_lines WHERE agency = NEW.agency AND statement_id = NEW.id;
            SELECT coalesce(sum(fee_minor), 0) AS fee, coalesce(sum(tax_added_minor), 0) AS added,
                coalesce(sum(tax_retained_minor), 0) AS retained
            INTO fees FROM statement_fees WHERE agency = NEW.agency AND statement_id = NEW.id;
            IF (NEW.settlements, NEW.gross_minor, NEW.commission_minor, NEW.success_fee_minor, NEW.tax_added_minor,
                    NEW.tax_retained_minor, NEW.carried_in_minor)
                IS DISTINCT FROM (lines.number, lines.gross, lines.commission, fees.fee, lines.added + fees.added,
                    lines.retained + fees.retained, OLD.carried_in_minor) THEN
                RAISE EXCEPTION 'the totals of a statement are the sums of its lines'
                    USING ERRCODE = 'restrict_violation';
            END IF;
        ELSIF (NEW.settlements, NEW.gross_minor, NEW.commission_minor, NEW.success_fee_minor, NEW.tax_added_minor,
                NEW.tax_retained_minor, NEW.carried_in_minor, NEW.net_minor, NEW.minimum_minor, NEW.remitted_minor,
                NEW.period_start, NEW.period_end, NEW.closed_by, NEW.closed_at)
            IS DISTINCT FROM (OLD.settlements, OLD.gross_minor, OLD.commission_minor, OLD.success_fee_minor,
                OLD.tax_added_minor, OLD.tax_retained_minor, OLD.carried_in_minor, OLD.net_minor, OLD.minimum_minor,
                OLD.remitted_minor, OLD.period_start, OLD.period_end, OLD.closed_by, OLD.closed_at) THEN
            RAISE EXCEPTION 'a closed statement never changes' USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER statements_move BEFORE UPDATE ON statements FOR EACH ROW EXECUTE FUNCTION statement_moves()
    """,
    """
    CREATE TRIGGER statements_kept BEFORE DELETE OR TRUNCATE ON statements
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_statement_change()
    """,
)


def upgrade() -> None:
    """Create everything; what was settled before waits for its creditor's first statement."""
    for name, body in TABLES.items():
        op.execute(f"CREATE TABLE {name} (agency uuid NOT NULL, {body})")
        op.execute(migrations.policy_sql(name))
    for statement in (*INDEXES, *TRIGGERS):
        op.execute(statement)
    op.execute(_WAITING.format(posted="postings"))
