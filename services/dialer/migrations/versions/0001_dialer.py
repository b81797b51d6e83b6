"""Case copies, call candidates, campaigns with their lists, agents, calls."""

import sqlalchemy as sa
from alembic import op

from servicekit import migrations

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TABLES = (
    """
    CREATE TABLE case_anchors (
        agency uuid NOT NULL,
        case_id uuid NOT NULL,
        natural_key bigint NOT NULL,
        state text NOT NULL,
        version bigint NOT NULL,
        PRIMARY KEY (agency, case_id)
    )
    """,
    """
    CREATE TABLE candidates (
        agency uuid NOT NULL,
        id uuid NOT NULL DEFAULT uuidv7(),
        case_id uuid NOT NULL,
        person_id uuid,
        date date NOT NULL,
        step_id uuid NOT NULL,
        level text NOT NULL,
        script text NOT NULL,
        days_past_due integer NOT NULL,
        open_principal_minor bigint NOT NULL,
        state text NOT NULL CHECK (state IN ('OPEN', 'DONE', 'CLOSED')),
        rule text NOT NULL CHECK ((rule <> '') = (state = 'CLOSED')),
        PRIMARY KEY (agency, id),
        UNIQUE (agency, case_id, date, step_id),
        FOREIGN KEY (agency, case_id) REFERENCES case_anchors (agency, case_id)
    )
    """,
    "CREATE INDEX candidates_by_date ON candidates (agency, date, script)",
    "CREATE INDEX candidates_open_by_person ON candidates (agency, person_id, date) WHERE state = 'OPEN'",
    """
    CREATE TABLE campaigns (
        agency uuid NOT NULL,
        id uuid NOT NULL,
        display_name text NOT NULL,
        state text NOT NULL
            CHECK (state IN ('DRAFT', 'READY', 'RUNNING', 'PAUSED', 'DRAINING', 'COMPLETED', 'ABORTED')),
        pacing text NOT NULL CHECK (pacing IN ('PROGRESSIVE')),
        date date NOT NULL,
        script text NOT NULL,
        max_attempts integer NOT NULL CHECK (max_attempts > 0),
        retry_after interval NOT NULL CHECK (retry_after > interval '0'),
        shift_minutes integer NOT NULL CHECK (shift_minutes >= 0),
        minutes_per_call integer NOT NULL CHECK (minutes_per_call >= 0),
        simulation_seed bigint NOT NULL,
        pause_reason text NOT NULL CHECK (pause_reason = '' OR state = 'PAUSED'),
        calls_made bigint NOT NULL CHECK (calls_made >= 0),
        live_answers bigint NOT NULL CHECK (live_answers BETWEEN 0 AND calls_made),
        abandoned_calls bigint NOT NULL CHECK (abandoned_calls BETWEEN 0 AND live_answers),
        create_time timestamptz NOT NULL,
        version bigint NOT NULL,
        PRIMARY KEY (agency, id)
    )
    """,
    "CREATE INDEX campaigns_by_date ON campaigns (agency, date)",
    "CREATE INDEX campaigns_worked ON campaigns (agency) WHERE state IN ('RUNNING', 'DRAINING')",
    """
    CREATE TABLE campaign_entries (
        agency uuid NOT NULL,
        campaign_id uuid NOT NULL,
        case_id uuid NOT NULL,
        candidate_id uuid NOT NULL,
        person_id uuid,
        natural_key bigint NOT NULL,
        open_principal_minor bigint NOT NULL,
        state text NOT NULL CHECK (state IN ('OPEN', 'CALLING', 'DONE', 'EXHAUSTED', 'CLOSED')),
        attempts integer NOT NULL CHECK (attempts >= 0),
        not_before timestamptz NOT NULL,
        rule text NOT NULL,
        PRIMARY KEY (agency, campaign_id, case_id),
        FOREIGN KEY (agency, campaign_id) REFERENCES campaigns (agency, id),
        FOREIGN KEY (agency, candidate_id) REFERENCES candidates (agency, id)
    )
    """,
    """
    CREATE INDEX campaign_entries_next
        ON campaign_entries (agency, campaign_id, open_principal_minor DESC, natural_key, case_id)
            WHERE state = 'OPEN'
    """,
    """
    CREATE INDEX campaign_entries_open_by_person ON campaign_entries (agency, campaign_id, person_id)
        WHERE state = 'OPEN'
    """,
    "CREATE INDEX campaign_entries_open_by_case ON campaign_entries (agency, case_id) WHERE state = 'OPEN'",
    """
    CREATE TABLE agents (
        agency uuid NOT NULL,
        id text NOT NULL,
        state text NOT NULL CHECK (state IN ('OFFLINE', 'FREE', 'BUSY', 'WRAP_UP', 'PAUSED')),
        campaign_id uuid,
        call_id uuid,
        next_state text NOT NULL CHECK (next_state IN ('OFFLINE', 'FREE', 'PAUSED')),
        since timestamptz NOT NULL,
        PRIMARY KEY (agency, id),
        UNIQUE (agency, call_id),
        FOREIGN KEY (agency, campaign_id) REFERENCES campaigns (agency, id),
        CHECK ((campaign_id IS NULL) = (state = 'OFFLINE')),
        CHECK ((call_id IS NOT NULL) = (state IN ('BUSY', 'WRAP_UP')))
    )
    """,
    "CREATE INDEX agents_by_campaign ON agents (agency, campaign_id, state)",
    """
    CREATE TABLE calls (
        agency uuid NOT NULL,
        id uuid NOT NULL DEFAULT uuidv7(),
        campaign_id uuid NOT NULL,
        case_id uuid NOT NULL,
        date date NOT NULL,
        attempt integer NOT NULL CHECK (attempt > 0),
        natural_key bigint NOT NULL,
        state text NOT NULL CHECK (state IN ('QUEUED', 'BLOCKED', 'DIALING', 'CONNECTED', 'WRAP_UP',
            'DISPOSITIONED',
            'BUSY', 'NO_ANSWER', 'INVALID_NUMBER', 'MACHINE', 'FAILED', 'ABANDONED', 'UNKNOWN')),
        agent_id text NOT NULL,
        person_id uuid,
        contact_point_id uuid,
        currency text NOT NULL,
        outside_key text NOT NULL,
        rule text NOT NULL,
        disposition text,
        promise_date date,
        promise_amount_minor bigint CHECK (promise_amount_minor > 0),
        start_time timestamptz,
        end_time timestamptz,
        version bigint NOT NULL,
        PRIMARY KEY (agency, id),
        UNIQUE (agency, case_id, date, attempt),
        FOREIGN KEY (agency, case_id) REFERENCES case_anchors (agency, case_id),
        FOREIGN KEY (agency, campaign_id) REFERENCES campaigns (agency, id),
        FOREIGN KEY (agency, agent_id) REFERENCES agents (agency, id),
        CHECK ((disposition IS NOT NULL) = (state = 'DISPOSITIONED')),
        CHECK ((promise_date IS NOT NULL) = (disposition IS NOT NULL AND disposition = 'PROMISE_TO_PAY')),
        CHECK ((promise_date IS NULL) = (promise_amount_minor IS NULL)),
        CHECK (state <> 'DIALING' OR outside_key <> '')
    )
    """,
    # Never more calls on the line than agents (R25), never two for one case: held by the database itself.
    """
    CREATE UNIQUE INDEX calls_one_an_agent ON calls (agency, agent_id)
        WHERE state IN ('QUEUED', 'DIALING', 'CONNECTED')
    """,
    """
    CREATE UNIQUE INDEX calls_one_a_case ON calls (agency, case_id)
        WHERE state IN ('QUEUED', 'DIALING', 'CONNECTED', 'WRAP_UP')
    """,
    """
    CREATE INDEX calls_live ON calls (agency, campaign_id, state)
        WHERE state IN ('QUEUED', 'DIALING', 'CONNECTED', 'WRAP_UP')
    """,
    """
    CREATE INDEX calls_live_by_person ON calls (agency, person_id)
        WHERE state IN ('QUEUED', 'DIALING', 'CONNECTED', 'WRAP_UP')
    """,
    "CREATE INDEX calls_by_campaign ON calls (agency, campaign_id, id)",
    "CREATE INDEX calls_by_date ON calls (agency, date)",
)
_SCOPED = ("case_anchors", "candidates", "campaigns", "campaign_entries", "agents", "calls")


def upgrade() -> None:
    """Make the tables, each with its row-level security."""
    migrations.create_system_tables(op)
    for statement in _TABLES:
        op.execute(sa.text(statement))
    for table in _SCOPED:
        op.execute(sa.text(migrations.policy_sql(table)))
