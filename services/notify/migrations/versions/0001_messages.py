"""Messages, their evidence, templates, suppressions and the anchors of cases."""

import sqlalchemy as sa
from alembic import op

from servicekit import db, migrations

revision = "0001"
down_revision = None

TABLES = (
    """
    CREATE TABLE case_anchors (
        agency uuid NOT NULL,
        case_id uuid NOT NULL,
        PRIMARY KEY (agency, case_id)
    )
    """,
    """
    CREATE TABLE messages (
        agency uuid NOT NULL,
        id uuid NOT NULL DEFAULT uuidv7(),
        case_id uuid NOT NULL,
        partition smallint NOT NULL,
        person_id uuid,
        contact_point_id uuid,
        channel text NOT NULL CHECK (channel IN ('EMAIL', 'SMS')),
        purpose text NOT NULL CHECK (purpose IN ('COLLECTION', 'AGREEMENT_REMINDER')),
        template text NOT NULL,
        template_version integer CHECK (template_version > 0),
        language text CHECK (language IN ('pt-BR', 'pt-PT')),
        step_id uuid NOT NULL,
        occasion text NOT NULL,
        date date NOT NULL,
        agreement_id uuid,
        instalment_number integer,
        instalment_due_date date,
        state text NOT NULL DEFAULT 'REQUESTED' CHECK (state IN (
            'REQUESTED', 'SCHEDULED', 'SUPPRESSED', 'ACTING', 'SENT', 'DELIVERED', 'FAILED_RETRYABLE',
            'FAILED', 'BOUNCED', 'EXPIRED', 'UNKNOWN')),
        rule text NOT NULL DEFAULT '',
        failure text NOT NULL DEFAULT '',
        attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
        due_at timestamptz,
        act_key text,
        act_worker uuid,
        created_at timestamptz NOT NULL DEFAULT now(),
        sent_at timestamptz,
        version bigint NOT NULL DEFAULT 1,
        PRIMARY KEY (agency, id),
        CONSTRAINT messages_once UNIQUE (agency, case_id, step_id, template, date),
        FOREIGN KEY (agency, case_id) REFERENCES case_anchors (agency, case_id),
        CONSTRAINT messages_rule CHECK ((rule <> '') = (state = 'SUPPRESSED')),
        CONSTRAINT messages_acted CHECK (
            state NOT IN ('ACTING', 'SENT', 'DELIVERED', 'BOUNCED', 'UNKNOWN')
            OR (act_key IS NOT NULL AND contact_point_id IS NOT NULL AND template_version IS NOT NULL)),
        CONSTRAINT messages_instalment CHECK (
            (agreement_id IS NULL) = (instalment_number IS NULL)
            AND (agreement_id IS NULL) = (instalment_due_date IS NULL))
    )
    """,
    """
    CREATE INDEX messages_due ON messages (agency, partition, case_id, id) INCLUDE (due_at)
        WHERE state IN ('REQUESTED', 'SCHEDULED', 'FAILED_RETRYABLE')
    """,
    "CREATE INDEX messages_acting ON messages (agency, act_worker) WHERE state = 'ACTING'",
    "CREATE INDEX messages_by_date ON messages (agency, date)",
    """
    CREATE TABLE message_evidence (
        agency uuid NOT NULL,
        message_id uuid NOT NULL,
        attempt integer NOT NULL CHECK (attempt > 0),
        total_minor bigint NOT NULL CHECK (total_minor > 0),
        currency text NOT NULL CHECK (currency IN ('BRL', 'EUR')),
        balance jsonb NOT NULL,
        text_sha256 bytea NOT NULL CHECK (length(text_sha256) = 32),
        text_blob uuid NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (agency, message_id, attempt),
        FOREIGN KEY (agency, message_id) REFERENCES messages (agency, id)
    )
    """,
    """
    CREATE TABLE templates (
        agency uuid NOT NULL,
        code text NOT NULL,
        language text NOT NULL CHECK (language IN ('pt-BR', 'pt-PT')),
        version integer NOT NULL CHECK (version > 0),
        channel text NOT NULL CHECK (channel IN ('EMAIL', 'SMS')),
        subject text NOT NULL,
        body text NOT NULL CHECK (body <> ''),
        created_at timestamptz NOT NULL,
        PRIMARY KEY (agency, code, language, version)
    )
    """,
    """
    CREATE TABLE suppressions (
        agency uuid NOT NULL,
        id uuid NOT NULL DEFAULT uuidv7(),
        contact_point_id uuid NOT NULL,
        reason text NOT NULL CHECK (reason IN ('BOUNCED', 'OPT_OUT', 'COMPLAINT')),
        message_id uuid NOT NULL,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (agency, id),
        CONSTRAINT suppressions_once UNIQUE (agency, contact_point_id, reason),
        FOREIGN KEY (agency, message_id) REFERENCES messages (agency, id)
    )
    """,
)
WITH_POLICY = ("case_anchors", "messages", "message_evidence", "templates", "suppressions")


def upgrade() -> None:
    """Create everything."""
    migrations.create_system_tables(op)
    for statement in TABLES:
        op.execute(sa.text(statement))
    for table in WITH_POLICY:
        op.execute(sa.text(db.policy_sql(table)))
