"""The tables, each column declared business, reference or incidental (with the reason).

Business columns are what two runs of the same work must agree on, whatever was killed, repeated or reordered between;
references are compared through the natural key of the row they point to. DDL is in migrations; a test holds both
together. Amounts are `bigint` minor units of the currency of the row's case, agreement or payment.
"""

from typing import Any

import sqlalchemy as sa

METADATA = sa.MetaData()

UUID = sa.Uuid()
TEXT = sa.Text()
DATE = sa.Date()
BIG = sa.BigInteger()
INT = sa.Integer()
INSTANT = sa.DateTime(timezone=True)

_OWN_ID = "UUID made by this service"
_CASE_ID = "UUID made by the case service"
_IMPORT_ID = "UUID made by the import service"
_COUNTER = "counts writes: how many there are depends on the order of arrival"
_WALL = "instant of the agency's clock when it was handled"
_NUMBERED = "drawn from a counter: depends on who came first, or made from the row's id"


def sql(text: str) -> sa.TextClause:
    """A statement. The agency becomes a sub-query, as in the policies: as a plain value the planner would think that an
    agency it has no statistics of has one row, and take any index that begins with it."""
    return sa.text(text.replace("= :agency", "= (SELECT CAST(:agency AS uuid))"))


def _business(name: str, type_: sa.types.TypeEngine[Any], *, key: bool = False) -> sa.Column[Any]:
    return sa.Column(name, type_, primary_key=key, info={"kind": "business"})


def _incidental(
    name: str, type_: sa.types.TypeEngine[Any], reason: str, *, key: bool = False
) -> sa.Column[Any]:
    return sa.Column(name, type_, primary_key=key, info={"kind": "incidental", "reason": reason})


def _reference(name: str, to: str, *, key: bool = False) -> sa.Column[Any]:
    return sa.Column(name, UUID, primary_key=key, info={"kind": "reference", "to": to})


def _table(name: str, natural_key: list[str], *columns: sa.Column[Any]) -> sa.Table:
    return sa.Table(
        name, METADATA, _business("agency", UUID, key=True), *columns, info={"natural_key": natural_key}
    )


creditors = _table(
    "creditors",
    ["creditor_reference"],
    _incidental("creditor_id", UUID, _CASE_ID, key=True),
    _business("creditor_reference", TEXT),
)

case_accounts = _table(
    "case_accounts",
    ["creditor_id", "contract_reference", "currency"],
    _incidental("case_id", UUID, _CASE_ID, key=True),
    _reference("creditor_id", "creditors"),
    _incidental("debtor_id", UUID, _CASE_ID),
    _business("contract_reference", TEXT),
    _business("currency", TEXT),
    _incidental("partition", INT, "follows from the case's id"),
    _reference("agreement_id", "agreements"),
    _business("epoch", INT),
)

titles = _table(
    "titles",
    ["case_id", "reference"],
    _reference("case_id", "case_accounts", key=True),
    _incidental("id", UUID, _CASE_ID, key=True),
    _business("reference", TEXT),
    _incidental("batch_id", UUID, _IMPORT_ID),
    _business("due_date", DATE),
    _business("payable_until", DATE),
    _business("principal_minor", BIG),
    _business("penalty_rate_e4", INT),
    _business("monthly_rate_e4", INT),
    _business("accrued_through", DATE),
    _business("open_principal_minor", BIG),
    _business("open_penalty_minor", BIG),
    _business("open_interest_minor", BIG),
    _business("charged_penalty_minor", BIG),
    _business("charged_interest_minor", BIG),
    _business("received_minor", BIG),
    _business("waived_minor", BIG),
    _business("withdrawn_minor", BIG),
    _business("written_off_minor", BIG),
    _reference("agreement_id", "agreements"),
    _business("state", TEXT),
    _incidental("version", BIG, _COUNTER),
)

agreements = _table(
    "agreements",
    ["case_id", "number"],
    _incidental("id", UUID, _OWN_ID, key=True),
    _reference("case_id", "case_accounts"),
    _business("number", INT),
    _business("state", TEXT),
    _business("currency", TEXT),
    _business("debt_minor", BIG),
    _business("discount_minor", BIG),
    _business("plan_interest_minor", BIG),
    _business("total_minor", BIG),
    _business("instalments", INT),
    _business("first_due_date", DATE),
    _business("annual_rate_e4", INT),
    _business("down_payment_minor", BIG),
    _business("down_payment_date", DATE),
    _business("propose_date", DATE),
    _business("expire_date", DATE),
    _business("accept_date", DATE),
    _business("end_date", DATE),
    _business("end_reason", TEXT),
    _business("notice_days", INT),
    _business("missed_days", INT),
    _business("broken_days", INT),
    _incidental("created_at", INSTANT, _WALL),
    _incidental("version", BIG, _COUNTER),
)

agreement_cases = _table(
    "agreement_cases",
    ["agreement_id", "case_id"],
    _reference("agreement_id", "agreements", key=True),
    _reference("case_id", "case_accounts", key=True),
    _incidental("partition", INT, "follows from the case's id"),
)

agreement_titles = _table(
    "agreement_titles",
    ["agreement_id", "title_id"],
    _reference("agreement_id", "agreements", key=True),
    _reference("case_id", "case_accounts"),
    _reference("title_id", "titles", key=True),
    _incidental("title_version", BIG, _COUNTER),
    _business("principal_minor", BIG),
    _business("penalty_minor", BIG),
    _business("interest_minor", BIG),
    _business("waived_penalty_minor", BIG),
    _business("waived_interest_minor", BIG),
)

instalments = _table(
    "instalments",
    ["agreement_id", "number"],
    _incidental("id", UUID, _OWN_ID, key=True),
    _reference("agreement_id", "agreements"),
    _business("number", INT),
    _business("due_date", DATE),
    _business("payable_until", DATE),
    _business("capital_minor", BIG),
    _business("interest_minor", BIG),
    _business("charged_interest_minor", BIG),
    _business("paid_interest_minor", BIG),
    _business("paid_capital_minor", BIG),
    _business("paid_date", DATE),
    _business("state", TEXT),
    _incidental("version", BIG, _COUNTER),
)

instruments = _table(
    "instruments",
    ["instalment_id", "kind", "generation"],
    _incidental("id", UUID, _OWN_ID, key=True),
    _reference("instalment_id", "instalments"),
    _business("kind", TEXT),
    _business("generation", INT),
    _business("state", TEXT),
    _business("amount_minor", BIG),
    _business("due_date", DATE),
    _incidental("our_number", TEXT, _NUMBERED),
    _incidental("barcode", TEXT, _NUMBERED),
    _incidental("txid", TEXT, _NUMBERED),
    _incidental("br_code", TEXT, _NUMBERED),
    _incidental("due_at", INSTANT, _WALL),
    _incidental("act_key", TEXT, _NUMBERED),
    _incidental("act_worker", UUID, "process that acted"),
    _incidental("version", BIG, _COUNTER),
)

slip_numbers = sa.Table(
    "slip_numbers",
    METADATA,
    sa.Column("agency", UUID, primary_key=True),
    sa.Column("account", TEXT, primary_key=True),
    sa.Column("last_number", BIG),
    info={"digest": False, "reason": "a counter: numbers given to transactions that rolled back are gone"},
)

payments = _table(
    "payments",
    ["creditor_reference", "account", "means", "bank_reference"],
    _incidental("id", UUID, _OWN_ID, key=True),
    _business("creditor_reference", TEXT),
    _business("account", TEXT),
    _business("means", TEXT),
    _business("bank_reference", TEXT),
    _business("value_date", DATE),
    _business("amount_minor", BIG),
    _business("currency", TEXT),
    _incidental("txid", TEXT, "names an instrument by its own number"),
    _incidental("our_number", TEXT, "names an instrument by its own number"),
    _business("title_reference", TEXT),
    _business("contract_reference", TEXT),
    _business("state", TEXT),
    _business("allocated_minor", BIG),
    _business("overpaid_minor", BIG),
    _reference("case_id", "case_accounts"),
    _reference("title_id", "titles"),
    _reference("instrument_id", "instruments"),
    _business("epoch", INT),
    _business("reverse_date", DATE),
    _business("reverse_reason", TEXT),
    _incidental("created_at", INSTANT, _WALL),
    _incidental("version", BIG, _COUNTER),
)

payment_sources = _table(
    "payment_sources",
    ["payment_id", "kind", "row", "caller"],
    _reference("payment_id", "payments", key=True),
    _business("kind", TEXT, key=True),
    _incidental("batch_id", UUID, _IMPORT_ID, key=True),
    _business("row", BIG, key=True),
    _business("caller", TEXT, key=True),
)

allocations = _table(
    "allocations",
    ["payment_id", "title_id", "instalment_id", "component"],
    _reference("payment_id", "payments", key=True),
    _reference("case_id", "case_accounts"),
    _reference("title_id", "titles", key=True),
    _reference("instalment_id", "instalments", key=True),
    _business("component", TEXT, key=True),
    _business("amount_minor", BIG),
)

postings = sa.Table(
    "postings",
    METADATA,
    sa.Column("agency", UUID, primary_key=True),
    sa.Column("id", BIG, primary_key=True),
    sa.Column("case_id", UUID),
    sa.Column("title_id", UUID),
    sa.Column("instalment_id", UUID),
    sa.Column("component", TEXT),
    sa.Column("kind", TEXT),
    sa.Column("amount_minor", BIG),
    sa.Column("currency", TEXT),
    sa.Column("business_date", DATE),
    sa.Column("value_date", DATE),
    sa.Column("from_date", DATE),
    sa.Column("through_date", DATE),
    sa.Column("payment_id", UUID),
    sa.Column("agreement_id", UUID),
    info={
        "digest": False,
        "reason": "history: a payment that arrives late takes later ones back and applies them again, so entries and "
        "contra entries depend on the order of arrival; their sums are business columns of titles, instalments and "
        "allocations, and a test holds both together",
    },
)
