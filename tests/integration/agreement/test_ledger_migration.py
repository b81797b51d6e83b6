"""Money that was there before the ledger had two sides is in it afterwards, to the cent."""

import datetime

import psycopg

from agreement_service.usecases import ledger
from recupera_local import paths
from servicekit import db, ids, migrations

AGENCY, CREDITOR, CASE, DEBTOR, TITLE = (ids.new() for _ in range(5))
DAY = datetime.date(2026, 11, 20)
FOLDER = str(paths.REPO / "services" / "agreement" / "migrations")


def test_what_stood_before_is_posted_by_the_migration(database, engine):
    fresh = database("agreement", migrated=False)
    migrations.upgrade(fresh.owner_url, FOLDER, revision="0006")
    payments = {
        "ALLOCATED": (10_000, 9_000, 1_000, CASE, None),
        "UNIDENTIFIED": (500, 0, 0, None, None),
        "REVERSED": (700, 0, 0, CASE, DAY),
    }
    with psycopg.connect(fresh.owner_url) as connection:
        connection.execute("INSERT INTO creditors VALUES (%s, %s, 'CRED-1')", (AGENCY, CREDITOR))
        connection.execute(
            "INSERT INTO case_accounts (agency, case_id, creditor_id, debtor_id, contract_reference, currency,"
            " partition) VALUES (%s, %s, %s, %s, 'CT-1', 'BRL', 0)",
            (AGENCY, CASE, CREDITOR, DEBTOR),
        )
        connection.execute(
            "INSERT INTO titles (agency, case_id, id, reference, due_date, payable_until, principal_minor,"
            " penalty_rate_e4, monthly_rate_e4, accrued_through, open_principal_minor, received_minor, state)"
            " VALUES (%s, %s, %s, 'T-1', %s, %s, 50000, 0, 0, %s, 41000, 9000, 'PARTIALLY_PAID')",
            (AGENCY, CASE, TITLE, DAY, DAY, DAY),
        )
        for number, (state, (amount, allocated, overpaid, case_id, reversed_on)) in enumerate(
            payments.items()
        ):
            payment = ids.new()
            connection.execute(
                "INSERT INTO payments (agency, id, creditor_reference, account, means, bank_reference, value_date,"
                " amount_minor, currency, state, allocated_minor, overpaid_minor, case_id, reverse_date, created_at)"
                " VALUES (%s, %s, 'CRED-1', 'main', 'PIX', %s, %s, %s, 'BRL', %s, %s, %s, %s, %s, now())",
                (AGENCY, payment, str(number), DAY, amount, state, allocated, overpaid, case_id, reversed_on),
            )
            if allocated:
                connection.execute(
                    "INSERT INTO postings (agency, case_id, title_id, component, kind, amount_minor, currency,"
                    " business_date, value_date, payment_id)"
                    " VALUES (%s, %s, %s, 'PRINCIPAL', 'RECEIVED', %s, 'BRL', %s, %s, %s)",
                    (AGENCY, CASE, TITLE, allocated, DAY, DAY, payment),
                )
    migrations.upgrade(fresh.owner_url, FOLDER)
    with db.begin(engine(fresh), agency=AGENCY) as tx:
        found = {one.account: one.balance_minor for one in ledger.trial_balance(tx=tx, agency=AGENCY)}
    assert found == {
        "BANK": 10_500,
        "CLEARING": -500,
        "OVERPAID": -1_000,
        "PLACED": -50_000,
        "RECEIVABLE:PRINCIPAL": 41_000,
    }
