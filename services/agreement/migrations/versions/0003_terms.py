"""Terms of charges as dated data, published series, and what a title and a charge need of them.

New columns have defaults that mean what was before: a title's rates are its own, no terms apply.
"""

from alembic import op

from servicekit import migrations

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = {
    "series": """
        code text NOT NULL,
        kind text NOT NULL CHECK (kind IN ('INDEX', 'MONTHLY_RATE', 'ANNUAL_RATE')),
        denominator bigint NOT NULL CHECK (denominator > 0),
        first_day date NOT NULL,
        last_day date NOT NULL CHECK (last_day >= first_day),
        version bigint NOT NULL DEFAULT 1,
        PRIMARY KEY (agency, code)
    """,
    "series_values": """
        code text NOT NULL,
        period date NOT NULL,
        value_e6 bigint NOT NULL,
        source text NOT NULL,
        imported_at timestamptz NOT NULL,
        PRIMARY KEY (agency, code, period),
        FOREIGN KEY (agency, code) REFERENCES series (agency, code)
    """,
    "series_days": """
        code text NOT NULL,
        first_day date NOT NULL,
        cumulative numeric NOT NULL,
        per_day numeric NOT NULL,
        PRIMARY KEY (agency, code, first_day),
        FOREIGN KEY (agency, code) REFERENCES series (agency, code)
    """,
    "series_replaced": """
        code text NOT NULL,
        period date NOT NULL,
        replaced_at timestamptz NOT NULL,
        value_e6 bigint NOT NULL,
        source text NOT NULL,
        PRIMARY KEY (agency, code, period, replaced_at),
        FOREIGN KEY (agency, code) REFERENCES series (agency, code)
    """,
    "charge_terms": """
        id uuid NOT NULL,
        creditor_id uuid,
        product text NOT NULL DEFAULT '',
        title_id uuid,
        currency text NOT NULL,
        consumer boolean NOT NULL,
        valid_from date NOT NULL,
        revision integer NOT NULL CHECK (revision > 0),
        penalty_rate_e4 integer NOT NULL CHECK (penalty_rate_e4 >= 0),
        penalty_minor bigint NOT NULL CHECK (penalty_minor >= 0),
        interest_rate_e4 integer NOT NULL CHECK (interest_rate_e4 >= 0),
        surcharge_e4 integer NOT NULL CHECK (surcharge_e4 >= 0),
        interest_unit text NOT NULL CHECK (interest_unit IN ('DAY', 'MONTH', 'YEAR')),
        day_count text NOT NULL CHECK (day_count IN ('THIRTY_DAY_MONTH', 'THIRTY_360', 'ACTUAL_365')),
        interest_factor bigint NOT NULL CHECK (interest_factor >= 0),
        interest_denominator bigint NOT NULL CHECK (interest_denominator > 0),
        interest_series text NOT NULL DEFAULT '',
        correction_series text NOT NULL DEFAULT '',
        commission_rate_e4 integer NOT NULL CHECK (commission_rate_e4 >= 0),
        commission_minimum_minor bigint NOT NULL CHECK (commission_minimum_minor >= 0),
        commission_maximum_minor bigint NOT NULL CHECK (commission_maximum_minor >= commission_minimum_minor),
        commission_above_minor bigint NOT NULL CHECK (commission_above_minor >= 0),
        commission_above_rate_e4 integer NOT NULL CHECK (commission_above_rate_e4 >= 0),
        late_payment_minor bigint NOT NULL CHECK (late_payment_minor >= 0),
        expenses_minor bigint NOT NULL CHECK (expenses_minor >= 0),
        fees_rate_e4 integer NOT NULL CHECK (fees_rate_e4 >= 0),
        grace_days integer NOT NULL CHECK (grace_days >= 0),
        source text NOT NULL,
        set_by text NOT NULL,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (agency, id),
        UNIQUE NULLS NOT DISTINCT
            (agency, currency, consumer, creditor_id, product, title_id, valid_from, revision),
        CHECK (penalty_rate_e4 = 0 OR penalty_minor = 0),
        CHECK (interest_series = '' OR interest_factor = 0),
        CHECK (title_id IS NULL OR creditor_id IS NOT NULL),
        CHECK (product = '' OR creditor_id IS NOT NULL)
    """,
    "title_term_changes": """
        title_id uuid NOT NULL,
        case_id uuid NOT NULL,
        number integer NOT NULL CHECK (number > 0),
        business_date date NOT NULL,
        penalty_rate_e4 integer,
        monthly_rate_e4 integer,
        old_penalty_rate_e4 integer,
        old_monthly_rate_e4 integer,
        reason text NOT NULL,
        changed_by text NOT NULL,
        changed_at timestamptz NOT NULL,
        PRIMARY KEY (agency, title_id, number),
        FOREIGN KEY (agency, case_id, title_id) REFERENCES titles (agency, case_id, id)
    """,
    "charge_changes": """
        title_id uuid NOT NULL,
        case_id uuid NOT NULL,
        number integer NOT NULL CHECK (number > 0),
        business_date date NOT NULL,
        kind text NOT NULL CHECK (kind IN ('CHARGED', 'WAIVED')),
        component text NOT NULL CHECK (component IN ('COSTS', 'FEES', 'PENALTY', 'INTEREST', 'CORRECTION')),
        amount_minor bigint NOT NULL CHECK (amount_minor > 0),
        reason text NOT NULL,
        changed_by text NOT NULL,
        changed_at timestamptz NOT NULL,
        PRIMARY KEY (agency, title_id, number),
        FOREIGN KEY (agency, case_id, title_id) REFERENCES titles (agency, case_id, id)
    """,
}

COLUMNS = (
    "ALTER TABLE case_accounts ADD COLUMN product text NOT NULL DEFAULT '',"
    " ADD COLUMN consumer boolean NOT NULL DEFAULT false",
    "ALTER TABLE titles ADD COLUMN title_type text NOT NULL DEFAULT 'OTHER',"
    " ADD COLUMN terms_id uuid,"
    " ADD COLUMN own_penalty boolean NOT NULL DEFAULT true,"
    " ADD COLUMN own_interest boolean NOT NULL DEFAULT true,"
    " ADD COLUMN bears_interest boolean NOT NULL DEFAULT true,"
    " ADD COLUMN corrected_through date,"
    " ADD COLUMN once_charged boolean NOT NULL DEFAULT false",
    "ALTER TABLE titles ADD CONSTRAINT titles_terms FOREIGN KEY (agency, terms_id)"
    " REFERENCES charge_terms (agency, id)",
    "ALTER TABLE postings ADD COLUMN base_minor bigint, ADD COLUMN numerator bigint,"
    " ADD COLUMN denominator bigint, ADD COLUMN rule text NOT NULL DEFAULT ''",
)

INDEXES = (
    # A title named by its id alone (its resource name).
    "CREATE INDEX titles_id ON titles (agency, id)",
    # The charges posted on a title, to be explained.
    "CREATE INDEX postings_charged ON postings (agency, case_id, title_id) WHERE kind = 'CHARGED'",
)


def upgrade() -> None:
    """Create the tables, then the columns that point to them."""
    for name, body in TABLES.items():
        op.execute(f"CREATE TABLE {name} (agency uuid NOT NULL, {body})")
        op.execute(migrations.policy_sql(name))
    for statement in (*COLUMNS, *INDEXES):
        op.execute(statement)
