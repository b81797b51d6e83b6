"""Tables of the case service.

Every key, unique and foreign key begins with agency; row-level security on every business table (architecture §5).
Why each index is there is said in services/case/README.md, "Indexes".
"""

from alembic import op

from servicekit import migrations

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = {
    "agencies": """
        currency text NOT NULL,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (agency)
    """,
    "creditors": """
        id uuid NOT NULL DEFAULT uuidv7(),
        reference text NOT NULL,
        display_name text NOT NULL,
        document text NOT NULL,
        address text NOT NULL,
        PRIMARY KEY (agency, id),
        UNIQUE (agency, reference)
    """,
    "people": """
        id uuid NOT NULL DEFAULT uuidv7(),
        document_type text NOT NULL,
        document text NOT NULL,
        display_name text NOT NULL,
        birth_date date,
        country text NOT NULL,
        region text NOT NULL,
        city text NOT NULL,
        postal_code text NOT NULL,
        address text NOT NULL,
        debtor boolean NOT NULL,
        PRIMARY KEY (agency, id),
        UNIQUE (agency, document_type, document)
    """,
    "contact_points": """
        id uuid NOT NULL DEFAULT uuidv7(),
        person_id uuid NOT NULL,
        kind text NOT NULL CHECK (kind IN ('PHONE', 'EMAIL')),
        value text NOT NULL,
        position smallint NOT NULL,
        provenance text NOT NULL,
        PRIMARY KEY (agency, id),
        UNIQUE (agency, person_id, kind, value),
        FOREIGN KEY (agency, person_id) REFERENCES people (agency, id)
    """,
    "barred_contacts": """
        kind text NOT NULL,
        value text NOT NULL,
        reason text NOT NULL,
        since timestamptz NOT NULL,
        PRIMARY KEY (agency, kind, value)
    """,
    "contracts": """
        id uuid NOT NULL DEFAULT uuidv7(),
        creditor_id uuid NOT NULL,
        reference text NOT NULL,
        product text NOT NULL,
        PRIMARY KEY (agency, id),
        UNIQUE (agency, creditor_id, reference),
        FOREIGN KEY (agency, creditor_id) REFERENCES creditors (agency, id)
    """,
    "cases": """
        id uuid NOT NULL DEFAULT uuidv7(),
        contract_id uuid NOT NULL,
        debtor_id uuid NOT NULL,
        creditor_id uuid NOT NULL,
        currency text NOT NULL,
        natural_key bigint NOT NULL,
        partition smallint NOT NULL GENERATED ALWAYS AS ((crc32(uuid_send(id)) % 24)::smallint) STORED,
        state text NOT NULL,
        sub_state text NOT NULL DEFAULT '',
        held_state text,
        held_sub_state text NOT NULL DEFAULT '',
        placed_principal_minor bigint NOT NULL CHECK (placed_principal_minor >= 0),
        open_principal_minor bigint NOT NULL CHECK (open_principal_minor >= 0),
        open_titles integer NOT NULL CHECK (open_titles >= 0),
        oldest_due_date date,
        agreements_in_force integer NOT NULL DEFAULT 0 CHECK (agreements_in_force >= 0),
        holds_active integer NOT NULL DEFAULT 0 CHECK (holds_active >= 0),
        promise_until date,
        last_step_date date,
        last_level text NOT NULL DEFAULT '',
        frozen_by uuid,
        version bigint NOT NULL DEFAULT 1,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        PRIMARY KEY (agency, id),
        UNIQUE (agency, debtor_id, contract_id, currency),
        FOREIGN KEY (agency, contract_id) REFERENCES contracts (agency, id),
        FOREIGN KEY (agency, debtor_id) REFERENCES people (agency, id),
        CHECK ((state = 'ON_HOLD') = (held_state IS NOT NULL)),
        CHECK (open_principal_minor <= placed_principal_minor),
        CHECK ((open_titles = 0) = (oldest_due_date IS NULL))
    """,
    "case_guarantors": """
        case_id uuid NOT NULL,
        person_id uuid NOT NULL,
        PRIMARY KEY (agency, case_id, person_id),
        FOREIGN KEY (agency, case_id) REFERENCES cases (agency, id),
        FOREIGN KEY (agency, person_id) REFERENCES people (agency, id)
    """,
    "titles": """
        id uuid NOT NULL DEFAULT uuidv7(),
        case_id uuid NOT NULL,
        contract_id uuid NOT NULL,
        title_reference text NOT NULL,
        title_type text NOT NULL,
        issue_date date,
        due_date date NOT NULL,
        principal_minor bigint NOT NULL CHECK (principal_minor > 0),
        open_principal_minor bigint NOT NULL CHECK (open_principal_minor BETWEEN 0 AND principal_minor),
        penalty_rate_e4 bigint NOT NULL,
        monthly_interest_rate_e4 bigint NOT NULL,
        state text NOT NULL,
        withdrawn boolean NOT NULL DEFAULT false,
        version bigint NOT NULL DEFAULT 0,
        batch_id uuid,
        PRIMARY KEY (agency, id),
        FOREIGN KEY (agency, case_id) REFERENCES cases (agency, id)
    """,
    "timeline": """
        case_id uuid NOT NULL,
        id uuid NOT NULL DEFAULT uuidv7(),
        at timestamptz NOT NULL,
        business_date date NOT NULL,
        actor text NOT NULL,
        kind text NOT NULL,
        code text NOT NULL,
        details jsonb,
        note text NOT NULL DEFAULT '',
        subject_id uuid,
        PRIMARY KEY (agency, case_id, id),
        FOREIGN KEY (agency, case_id) REFERENCES cases (agency, id)
    """,
    "placed_slices": """
        batch_id uuid NOT NULL,
        slice integer NOT NULL,
        applied integer NOT NULL,
        unchanged integer NOT NULL,
        rejects jsonb NOT NULL,
        business_date date NOT NULL,
        mark uuid NOT NULL DEFAULT uuidv7(),
        PRIMARY KEY (agency, batch_id, slice)
    """,
    "holds": """
        id uuid NOT NULL DEFAULT uuidv7(),
        case_id uuid NOT NULL,
        type text NOT NULL,
        state text NOT NULL CHECK (state IN ('ACTIVE', 'RELEASED', 'EXPIRED')),
        channels text[] NOT NULL,
        until date,
        reason text NOT NULL,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (agency, case_id, id),
        FOREIGN KEY (agency, case_id) REFERENCES cases (agency, id)
    """,
    "contacts": """
        act_key uuid NOT NULL,
        case_id uuid NOT NULL,
        id uuid NOT NULL DEFAULT uuidv7(),
        person_id uuid,
        channel text NOT NULL,
        outcome text NOT NULL,
        manual boolean NOT NULL,
        promise_date date,
        promise_amount_minor bigint,
        note text NOT NULL DEFAULT '',
        business_date date NOT NULL,
        at timestamptz NOT NULL,
        version bigint NOT NULL,
        PRIMARY KEY (agency, act_key),
        FOREIGN KEY (agency, case_id) REFERENCES cases (agency, id)
    """,
    "promises": """
        case_id uuid NOT NULL,
        act_key uuid NOT NULL,
        id uuid NOT NULL DEFAULT uuidv7(),
        state text NOT NULL CHECK (state IN ('OPEN', 'KEPT', 'BROKEN', 'REPLACED')),
        made_on date NOT NULL,
        promise_date date NOT NULL CHECK (promise_date >= made_on),
        amount_minor bigint NOT NULL CHECK (amount_minor > 0),
        currency text NOT NULL,
        PRIMARY KEY (agency, case_id, act_key),
        FOREIGN KEY (agency, case_id) REFERENCES cases (agency, id)
    """,
    "reservations": """
        key uuid NOT NULL,
        case_id uuid NOT NULL,
        person_id uuid NOT NULL,
        channel text NOT NULL,
        purpose text NOT NULL,
        state text NOT NULL CHECK (state IN ('OPEN', 'CLOSED', 'REFUSED')),
        counts boolean NOT NULL,
        right_party_call boolean NOT NULL DEFAULT false,
        abandoned boolean NOT NULL DEFAULT false,
        local_date date NOT NULL,
        contact_point_id uuid,
        rule text NOT NULL DEFAULT '',
        explanation text NOT NULL DEFAULT '',
        time_zone text NOT NULL DEFAULT '',
        reserved_at timestamptz NOT NULL,
        valid_until timestamptz,
        version bigint NOT NULL DEFAULT 0,
        PRIMARY KEY (agency, key),
        FOREIGN KEY (agency, case_id) REFERENCES cases (agency, id),
        FOREIGN KEY (agency, person_id) REFERENCES people (agency, id)
    """,
    "contact_rules": """
        code text NOT NULL,
        country text NOT NULL,
        region text NOT NULL,
        channels text[] NOT NULL,
        valid_from date NOT NULL,
        valid_to date,
        parameters jsonb NOT NULL,
        source text NOT NULL,
        PRIMARY KEY (agency, code, country, region, valid_from),
        CHECK (valid_to > valid_from)
    """,
    "ladders": """
        id uuid NOT NULL DEFAULT uuidv7(),
        code text NOT NULL,
        display_name text NOT NULL,
        version bigint NOT NULL DEFAULT 1,
        PRIMARY KEY (agency, id),
        UNIQUE (agency, code)
    """,
    "ladder_levels": """
        ladder_id uuid NOT NULL,
        position smallint NOT NULL,
        id uuid NOT NULL DEFAULT uuidv7(),
        code text NOT NULL,
        display_name text NOT NULL,
        from_days integer NOT NULL,
        to_days integer NOT NULL,
        minimum_wait_days integer NOT NULL,
        channel text NOT NULL,
        template text NOT NULL,
        counts boolean NOT NULL,
        PRIMARY KEY (agency, ladder_id, position),
        UNIQUE (agency, ladder_id, code),
        FOREIGN KEY (agency, ladder_id) REFERENCES ladders (agency, id),
        CHECK (from_days <= to_days),
        CHECK (minimum_wait_days >= 0)
    """,
    "business_days": """
        date date NOT NULL,
        opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (agency, date)
    """,
    "day_slices": """
        date date NOT NULL,
        partition smallint NOT NULL,
        state text NOT NULL CHECK (state IN ('WAITING', 'CLEARED', 'DONE')),
        cases_seen integer NOT NULL DEFAULT 0,
        agenda_items integer NOT NULL DEFAULT 0,
        steps jsonb NOT NULL DEFAULT '{}',
        PRIMARY KEY (agency, date, partition)
    """,
    "agenda": """
        date date NOT NULL,
        case_id uuid NOT NULL,
        reason text NOT NULL,
        level text NOT NULL,
        days_past_due integer NOT NULL,
        state text NOT NULL DEFAULT 'PLANNED' CHECK (state IN ('PLANNED', 'DONE')),
        PRIMARY KEY (agency, date, case_id, reason),
        FOREIGN KEY (agency, case_id) REFERENCES cases (agency, id)
    """,
    "case_agreements": """
        case_id uuid NOT NULL,
        agreement_id uuid NOT NULL,
        state text NOT NULL,
        version bigint NOT NULL,
        PRIMARY KEY (agency, case_id, agreement_id),
        FOREIGN KEY (agency, case_id) REFERENCES cases (agency, id)
    """,
    "case_payments": """
        case_id uuid NOT NULL,
        payment_id uuid NOT NULL,
        state text NOT NULL,
        allocated_minor bigint NOT NULL,
        value_date date,
        version bigint NOT NULL,
        PRIMARY KEY (agency, case_id, payment_id),
        FOREIGN KEY (agency, case_id) REFERENCES cases (agency, id)
    """,
}

INDEXES = (
    # One reference a contract, but for titles that were taken back. Predicate on a column of its own: a change of
    # state stays a heap-only update.
    "CREATE UNIQUE INDEX titles_natural ON titles (agency, contract_id, title_reference) WHERE NOT withdrawn",
    # ListTitles pages by it; the oldest open title of a case is its first row that is open.
    "CREATE INDEX titles_by_case ON titles (agency, case_id, due_date, id)",
    # Batches are v7 ids and rows lie in the order they came: a few pages of summary find a batch's titles.
    "CREATE INDEX titles_by_batch ON titles USING brin (batch_id) WITH (pages_per_range = 32)",
    # The daily run takes one partition at a time.
    "CREATE INDEX cases_by_partition ON cases (agency, partition)",
    # Caps of a person and of a case.
    "CREATE INDEX reservations_by_person ON reservations (agency, person_id, local_date)",
    "CREATE INDEX reservations_by_case ON reservations (agency, case_id, local_date)",
    # ListAgenda: most days past due first.
    "CREATE INDEX agenda_by_days ON agenda (agency, date, days_past_due, case_id, reason)",
    # Promises that are due or broken today; open ones are few.
    "CREATE INDEX promises_open ON promises (agency, promise_date) WHERE state = 'OPEN'",
    "CREATE INDEX holds_to_expire ON holds (agency, until) WHERE state = 'ACTIVE' AND until IS NOT NULL",
    # Slices whose due and breach run is over but whose date was not open yet.
    "CREATE INDEX day_slices_open ON day_slices (agency, date) WHERE state <> 'DONE'",
    # ListCases by part of a debtor's name; used by find_debtors alone, a policy would hide it from the planner.
    "CREATE INDEX people_by_name ON people USING gin (lower(display_name) gin_trgm_ops) WHERE debtor",
)

# The daily run rewrites a row of every case it works: room on the page keeps these updates off the indexes.
STORAGE = ("ALTER TABLE cases SET (fillfactor = 75)",)

# Runs as the owner, whom no policy binds: the agency is its first argument, and the only scope there is.
# Returns ids only.
FIND_DEBTORS = r"""
CREATE FUNCTION find_debtors(in_agency uuid, in_part text) RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT id FROM public.people
    WHERE agency = in_agency AND debtor
      AND lower(display_name)
          LIKE '%' || replace(replace(replace(lower(in_part), '\', '\\'), '%', '\%'), '_', '\_') || '%'
$$
"""


def upgrade() -> None:
    migrations.create_system_tables(op)
    op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    for table, columns in TABLES.items():
        op.execute(f"CREATE TABLE {table} (agency uuid NOT NULL, {columns})")
        op.execute(migrations.policy_sql(table))
    for statement in (*INDEXES, *STORAGE):
        op.execute(statement)
    op.execute(FIND_DEBTORS)
    op.execute("REVOKE ALL ON FUNCTION find_debtors FROM PUBLIC")
