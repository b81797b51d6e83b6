"""Tables of the ledger, the small service with which servicekit is tested."""

from alembic import op

from servicekit import migrations

revision = "0001"
down_revision = None


def upgrade() -> None:
    migrations.create_system_tables(op)
    op.execute(
        """
        CREATE TABLE applied (
            place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            agency uuid NOT NULL,
            case_id uuid NOT NULL,
            number bigint NOT NULL,
            pid integer NOT NULL,
            transaction bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint
        )
        """
    )
    op.execute(
        """
        CREATE TABLE limits (
            agency uuid NOT NULL,
            case_id uuid NOT NULL,
            number bigint NOT NULL,
            UNIQUE (agency, case_id, number) DEFERRABLE INITIALLY DEFERRED
        )
        """
    )
    op.execute(
        "CREATE TABLE case_anchors (agency uuid NOT NULL, case_id uuid NOT NULL, PRIMARY KEY (agency, case_id))"
    )
    op.execute(
        """
        CREATE TABLE acts (
            id uuid PRIMARY KEY,
            agency uuid NOT NULL,
            state text NOT NULL,
            due_at timestamptz NOT NULL,
            act_key text NOT NULL,
            act_worker uuid,
            note text
        )
        """
    )
    for table in ("applied", "limits", "case_anchors", "acts"):
        op.execute(migrations.policy_sql(table))
    # what the handler is told to do; no policy, so that any test may write it
    op.execute("CREATE TABLE knobs (name text PRIMARY KEY, value text NOT NULL)")
