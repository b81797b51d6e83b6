"""What may be offered, and by whom: creditors' settings, limits, approvals, payment conditions, categories."""

from alembic import op

from servicekit import migrations

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = {
    # No foreign key to creditors: settings may be made before a creditor's first title is placed.
    "creditor_settings": """
        creditor_id uuid NOT NULL,
        minimum_down_payment_minor bigint NOT NULL CHECK (minimum_down_payment_minor >= 0),
        minimum_down_payment_e4 integer NOT NULL CHECK (minimum_down_payment_e4 BETWEEN 0 AND 1000000),
        maximum_instalments integer NOT NULL CHECK (maximum_instalments BETWEEN 1 AND 360),
        minimum_instalment_minor bigint NOT NULL CHECK (minimum_instalment_minor >= 0),
        minimum_instalment_e4 integer NOT NULL CHECK (minimum_instalment_e4 BETWEEN 0 AND 1000000),
        charge_interest boolean NOT NULL,
        default_interest boolean NOT NULL,
        remunerative_interest boolean NOT NULL,
        annual_rate_e4 integer NOT NULL CHECK (annual_rate_e4 >= 0),
        confession_required boolean NOT NULL,
        notice_days integer NOT NULL CHECK (notice_days >= 0),
        missed_days integer NOT NULL CHECK (missed_days > 0),
        broken_days integer NOT NULL CHECK (broken_days >= missed_days),
        validity_days integer NOT NULL CHECK (validity_days > 0),
        accepted_means text[] NOT NULL CHECK (cardinality(accepted_means) > 0),
        breach_policy text NOT NULL CHECK (breach_policy IN ('RESTORE_ORIGINALS', 'KEEP_NOVATION')),
        novation_prefix text NOT NULL CHECK (novation_prefix <> ''),
        version bigint NOT NULL DEFAULT 1,
        PRIMARY KEY (agency, creditor_id)
    """,
    "offer_limits": """
        id uuid NOT NULL,
        creditor_id uuid,
        role text NOT NULL DEFAULT '',
        subject text NOT NULL DEFAULT '',
        kind text NOT NULL,
        minimum bigint,
        maximum bigint CHECK (maximum >= minimum),
        currency text NOT NULL DEFAULT '',
        valid_from date NOT NULL,
        set_by text NOT NULL,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (agency, id),
        UNIQUE NULLS NOT DISTINCT (agency, kind, creditor_id, role, subject, currency, valid_from),
        CHECK (role = '' OR subject = '')
    """,
    "approvals": """
        id uuid NOT NULL,
        method text NOT NULL,
        command bytea NOT NULL,
        request_hash bytea NOT NULL,
        request_id text NOT NULL,
        requester text NOT NULL,
        rule text NOT NULL,
        allowed text NOT NULL,
        asked text NOT NULL,
        creditor_id uuid,
        value bigint,
        currency text NOT NULL DEFAULT '',
        case_ids uuid[] NOT NULL,
        state text NOT NULL CHECK (state IN ('PENDING', 'APPROVED', 'REJECTED', 'EXPIRED', 'WITHDRAWN')),
        request_date date NOT NULL,
        expire_date date NOT NULL CHECK (expire_date >= request_date),
        created_at timestamptz NOT NULL,
        decided_by text NOT NULL DEFAULT '',
        decided_at timestamptz,
        reason text NOT NULL DEFAULT '',
        result text NOT NULL DEFAULT '',
        version bigint NOT NULL DEFAULT 1,
        PRIMARY KEY (agency, id),
        CHECK ((state IN ('APPROVED', 'REJECTED', 'WITHDRAWN')) = (decided_at IS NOT NULL)),
        CHECK (state <> 'APPROVED' OR decided_by <> requester),
        CHECK ((creditor_id IS NULL) = (value IS NULL))
    """,
    "due_date_changes": """
        title_id uuid NOT NULL,
        case_id uuid NOT NULL,
        number integer NOT NULL CHECK (number > 0),
        old_due_date date NOT NULL,
        new_due_date date NOT NULL CHECK (new_due_date <> old_due_date),
        business_date date NOT NULL,
        reason text NOT NULL,
        changed_by text NOT NULL,
        changed_at timestamptz NOT NULL,
        PRIMARY KEY (agency, title_id, number),
        FOREIGN KEY (agency, case_id, title_id) REFERENCES titles (agency, case_id, id)
    """,
    "payment_conditions": """
        id uuid NOT NULL,
        creditor_id uuid,
        description text NOT NULL CHECK (description <> ''),
        active boolean NOT NULL,
        is_default boolean NOT NULL,
        currency text NOT NULL,
        value_from_minor bigint NOT NULL CHECK (value_from_minor >= 0),
        value_to_minor bigint CHECK (value_to_minor >= value_from_minor),
        delay_from integer NOT NULL CHECK (delay_from >= 0),
        delay_to integer CHECK (delay_to >= delay_from),
        days_to_first integer NOT NULL CHECK (days_to_first >= 0),
        means_filter text[] NOT NULL,
        charge_means text NOT NULL,
        interest_e4 integer CHECK (interest_e4 >= 0),
        penalty_e4 integer CHECK (penalty_e4 >= 0),
        created_at timestamptz NOT NULL,
        version bigint NOT NULL DEFAULT 1,
        PRIMARY KEY (agency, id),
        UNIQUE NULLS NOT DISTINCT (agency, creditor_id, currency, description)
    """,
    "payment_condition_options": """
        id uuid NOT NULL,
        condition_id uuid NOT NULL,
        number integer NOT NULL CHECK (number > 0),
        instalments integer NOT NULL CHECK (instalments BETWEEN 1 AND 360),
        interval_days integer NOT NULL CHECK (interval_days >= 0),
        interest_discount_e4 integer NOT NULL CHECK (interest_discount_e4 BETWEEN 0 AND 1000000),
        debt_discount_e4 integer NOT NULL CHECK (debt_discount_e4 BETWEEN 0 AND 1000000),
        with_entry boolean NOT NULL,
        minimum_entry_e4 integer NOT NULL CHECK (minimum_entry_e4 BETWEEN 0 AND 999999),
        PRIMARY KEY (agency, id),
        UNIQUE (agency, condition_id, number),
        FOREIGN KEY (agency, condition_id) REFERENCES payment_conditions (agency, id),
        CHECK ((instalments = 1) = (interval_days = 0)),
        CHECK (with_entry = (minimum_entry_e4 > 0)),
        CHECK (instalments > 1 OR NOT with_entry)
    """,
    "agreement_categories": """
        id uuid NOT NULL,
        title text NOT NULL CHECK (title <> ''),
        active boolean NOT NULL,
        created_at timestamptz NOT NULL,
        version bigint NOT NULL DEFAULT 1,
        PRIMARY KEY (agency, id),
        UNIQUE (agency, title)
    """,
    # Beside the agreement, not in it: what chose its terms and how it is counted in reports.
    "agreement_offers": """
        agreement_id uuid NOT NULL,
        category_id uuid,
        condition_id uuid,
        option_number integer,
        PRIMARY KEY (agency, agreement_id),
        FOREIGN KEY (agency, agreement_id) REFERENCES agreements (agency, id),
        FOREIGN KEY (agency, category_id) REFERENCES agreement_categories (agency, id),
        FOREIGN KEY (agency, condition_id) REFERENCES payment_conditions (agency, id),
        CHECK (category_id IS NOT NULL OR condition_id IS NOT NULL),
        CHECK ((condition_id IS NULL) = (option_number IS NULL))
    """,
}

INDEXES = (
    # A command said again waits on the request it made: by request_id, or by its body while it is undecided.
    "CREATE UNIQUE INDEX approvals_request_id ON approvals (agency, requester, method, request_id)"
    " WHERE request_id <> ''",
    "CREATE UNIQUE INDEX approvals_pending_body ON approvals (agency, requester, method, request_hash)"
    " WHERE request_id = '' AND state = 'PENDING'",
    # The queue of whoever decides.
    "CREATE INDEX approvals_pending ON approvals (agency, id) WHERE state = 'PENDING'",
    # One default condition a creditor and currency.
    "CREATE UNIQUE INDEX payment_conditions_default ON payment_conditions (agency, creditor_id, currency)"
    " NULLS NOT DISTINCT WHERE is_default",
)


def upgrade() -> None:
    """Create them."""
    for name, body in TABLES.items():
        op.execute(f"CREATE TABLE {name} (agency uuid NOT NULL, {body})")
        op.execute(migrations.policy_sql(name))
    for statement in INDEXES:
        op.execute(statement)
