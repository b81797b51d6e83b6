"""The ledger has two sides, and payments the states they lacked.

Every posting names the account it debits and the one it credits, both generated from its kind and component: writers of
the release before go on as they are. Placement and cash get postings too, those of rows that are there already are made
here. Waterfalls, refunds and write-offs as dated rows.
"""

from alembic import op

from servicekit import migrations

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLES = {
    "waterfalls": """
        creditor_id uuid NOT NULL,
        valid_from date NOT NULL,
        components text[] NOT NULL CHECK (cardinality(components) = 6),
        set_by text NOT NULL,
        PRIMARY KEY (agency, creditor_id, valid_from)
    """,
    "refunds": """
        payment_id uuid NOT NULL,
        number integer NOT NULL CHECK (number > 0),
        amount_minor bigint NOT NULL CHECK (amount_minor > 0),
        refund_date date NOT NULL,
        reason text NOT NULL,
        refunded_by text NOT NULL,
        PRIMARY KEY (agency, payment_id, number),
        FOREIGN KEY (agency, payment_id) REFERENCES payments (agency, id)
    """,
    "write_offs": """
        case_id uuid NOT NULL,
        title_id uuid NOT NULL,
        number integer NOT NULL CHECK (number > 0),
        type text NOT NULL
            CHECK (type IN ('LOSS', 'PAID_TO_CREDITOR', 'COURTESY', 'TIME_BARRED', 'WRONG_TITLE', 'OTHER')),
        reason text NOT NULL,
        amount_minor bigint NOT NULL CHECK (amount_minor > 0),
        write_off_date date NOT NULL,
        written_off_by text NOT NULL,
        undo_date date,
        undo_reason text NOT NULL DEFAULT '',
        PRIMARY KEY (agency, title_id, number),
        FOREIGN KEY (agency, case_id, title_id) REFERENCES titles (agency, case_id, id)
    """,
}

KINDS = ("CHARGED", "RECEIVED", "WAIVED", "WITHDRAWN", "WRITTEN_OFF", "NOVATED", "PLACED", "ISSUED")
CASH_KINDS = ("PAID_IN", "OVERPAID", "CREDITED", "REFUNDED", "REVERSED")
COMPONENTS = ("PRINCIPAL", "CORRECTION", "PENALTY", "INTEREST", "COSTS", "FEES", "PLAN_INTEREST", "CASH")
# What the amount of a posting is debited to and credited from; a negative one goes the other way (domain/ledger.py).
DEBIT = """CASE
    WHEN kind IN ('PLACED', 'ISSUED', 'CHARGED') THEN 'RECEIVABLE:' || component
    WHEN kind IN ('RECEIVED', 'OVERPAID', 'REVERSED') THEN 'CLEARING'
    WHEN kind IN ('WAIVED', 'WITHDRAWN', 'WRITTEN_OFF', 'NOVATED') THEN kind
    WHEN kind = 'PAID_IN' THEN 'BANK'
    WHEN kind IN ('CREDITED', 'REFUNDED') THEN 'OVERPAID' END"""
CREDIT = """CASE
    WHEN kind = 'PLACED' THEN 'PLACED'
    WHEN kind = 'ISSUED' THEN 'NOVATED'
    WHEN kind = 'CHARGED' THEN 'CHARGES:' || component
    WHEN kind IN ('RECEIVED', 'WAIVED', 'WITHDRAWN', 'WRITTEN_OFF', 'NOVATED') THEN 'RECEIVABLE:' || component
    WHEN kind IN ('PAID_IN', 'CREDITED') THEN 'CLEARING'
    WHEN kind = 'OVERPAID' THEN 'OVERPAID'
    WHEN kind IN ('REFUNDED', 'REVERSED') THEN 'BANK' END"""

PAYMENT_COLUMNS = (
    "refunded_minor bigint NOT NULL DEFAULT 0 CHECK (refunded_minor >= 0)",
    "credited_minor bigint NOT NULL DEFAULT 0 CHECK (credited_minor >= 0)",
    "reverse_kind text NOT NULL DEFAULT '' CHECK (reverse_kind IN ('', 'BOUNCED_CHEQUE', 'PIX_RETURN', 'MED',"
    " 'SDD_RETURN', 'CHARGEBACK', 'OTHER'))",
    "by_hand boolean NOT NULL DEFAULT false",
    "origin_payment_id uuid",
    "chosen_title_ids uuid[] NOT NULL DEFAULT '{}'",
    "chosen_minor bigint[] NOT NULL DEFAULT '{}'",
    "proof_blob_id uuid",
    "proof_type text NOT NULL DEFAULT ''",
)
APPLIED = "('ALLOCATED', 'OVERPAID', 'REFUNDED')"
PAYMENT_CHECKS = {
    "payments_state_check": "CHECK (state IN ('REPORTED', 'NEW_UNCONFIRMED', 'UNIDENTIFIED', 'ALLOCATED', 'OVERPAID',"
    " 'REFUNDED', 'REVERSED', 'ANNULLED'))",
    "payments_balance": f"""CHECK (allocated_minor + overpaid_minor
        = CASE WHEN state IN {APPLIED} THEN amount_minor - refunded_minor - credited_minor ELSE 0 END)""",
    "payments_spent": "CHECK (refunded_minor + credited_minor <= amount_minor"
    f" AND (refunded_minor + credited_minor = 0 OR state IN {APPLIED} OR state = 'REVERSED'))",
    "payments_refunded": "CHECK (state <> 'REFUNDED' OR"
    " (allocated_minor = 0 AND overpaid_minor = 0 AND refunded_minor > 0))",
    "payments_taken_back": "CHECK ((state IN ('REVERSED', 'ANNULLED')) = (reverse_date IS NOT NULL))",
    "payments_case": f"CHECK (state NOT IN {APPLIED} OR case_id IS NOT NULL)",
    "payments_chosen": "CHECK (cardinality(chosen_title_ids) = cardinality(chosen_minor))",
    "payments_origin": "FOREIGN KEY (agency, origin_payment_id) REFERENCES payments (agency, id)",
}
INDEXES = (
    # Statement of a case.
    "CREATE INDEX postings_case ON postings (agency, case_id, id)",
    # Credits of a debtor; credits that were made of a payment.
    "CREATE INDEX payments_overpaid ON payments (agency, case_id) WHERE overpaid_minor > 0",
    "CREATE INDEX payments_origin_index ON payments (agency, origin_payment_id) WHERE origin_payment_id IS NOT NULL",
)
# The day on which what is there was placed or came in is not known any more: the agency's business date stands for it.
TODAY = """coalesce((SELECT business_date FROM agency_clock WHERE agency_clock.agency = old.agency), current_date)"""
BACKFILL = (
    f"""
    INSERT INTO postings (agency, case_id, component, kind, amount_minor, currency, business_date, value_date)
    SELECT old.agency, old.case_id, 'PRINCIPAL', 'PLACED', old.amount, case_accounts.currency, {TODAY}, {TODAY}
    FROM (SELECT agency, case_id, sum(principal_minor) AS amount FROM titles GROUP BY agency, case_id) AS old
        JOIN case_accounts ON case_accounts.agency = old.agency AND case_accounts.case_id = old.case_id
    ORDER BY old.agency, old.case_id
    """,
    f"""
    INSERT INTO postings (agency, case_id, component, kind, amount_minor, currency, business_date, value_date,
        payment_id)
    SELECT old.agency, old.case_id, 'CASH', entry.kind, entry.amount, old.currency, {TODAY}, old.value_date, old.id
    FROM payments AS old CROSS JOIN LATERAL (VALUES
        ('PAID_IN', old.amount_minor), ('OVERPAID', old.overpaid_minor),
        ('REVERSED', CASE old.state WHEN 'REVERSED' THEN old.amount_minor ELSE 0 END)) AS entry (kind, amount)
    WHERE entry.amount <> 0 ORDER BY old.agency, old.id
    """,
)


def upgrade() -> None:
    """Add everything."""
    for name, body in TABLES.items():
        op.execute(f"CREATE TABLE {name} (agency uuid NOT NULL, {body})")
        op.execute(migrations.policy_sql(name))
    op.execute(f"ALTER TABLE payments {', '.join(f'ADD COLUMN {column}' for column in PAYMENT_COLUMNS)}")
    for old in ("payments_state_check", "payments_balance", "payments_check2", "payments_check3"):
        op.execute(f"ALTER TABLE payments DROP CONSTRAINT {old}")
    for name, check in PAYMENT_CHECKS.items():
        op.execute(f"ALTER TABLE payments ADD CONSTRAINT {name} {check}")
    op.execute("ALTER TABLE postings ALTER COLUMN case_id DROP NOT NULL")
    for old in ("postings_component_check", "postings_kind_check", "postings_check", "postings_check2"):
        op.execute(f"ALTER TABLE postings DROP CONSTRAINT {old}")
    kinds, cash = ", ".join(map(repr, KINDS)), ", ".join(map(repr, CASH_KINDS))
    op.execute(
        f"""
        ALTER TABLE postings
            ADD COLUMN debit text GENERATED ALWAYS AS
                (CASE WHEN amount_minor > 0 THEN {DEBIT} ELSE {CREDIT} END) STORED,
            ADD COLUMN credit text GENERATED ALWAYS AS
                (CASE WHEN amount_minor > 0 THEN {CREDIT} ELSE {DEBIT} END) STORED,
            ADD CONSTRAINT postings_two_sides
                CHECK (debit IS NOT NULL AND credit IS NOT NULL AND debit <> credit),
            ADD CONSTRAINT postings_kind_check CHECK (kind IN ({kinds}, {cash})),
            ADD CONSTRAINT postings_component_check CHECK (component IN ({", ".join(map(repr, COMPONENTS))})),
            ADD CONSTRAINT postings_cash CHECK ((kind IN ({cash})) = (component = 'CASH')),
            ADD CONSTRAINT postings_subject CHECK (CASE
                WHEN component = 'CASH' THEN title_id IS NULL AND payment_id IS NOT NULL
                WHEN kind IN ('PLACED', 'ISSUED') THEN
                    title_id IS NULL AND case_id IS NOT NULL AND component = 'PRINCIPAL'
                ELSE case_id IS NOT NULL AND (component = 'PLAN_INTEREST') = (title_id IS NULL) END),
            ADD CONSTRAINT postings_principal CHECK (component <> 'PRINCIPAL' OR kind <> 'CHARGED')
        """
    )
    for statement in (*INDEXES, *BACKFILL):
        op.execute(statement)
