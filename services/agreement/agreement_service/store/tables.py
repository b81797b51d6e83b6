"""The tables, each column declared business, reference or incidental (with the reason).

Business columns are what two runs of the same work must agree on, whatever was killed, repeated or reordered between;
references are compared through the natural key of the row they point to. DDL is in migrations; a test holds both
together. Amounts are `bigint` minor units of the currency of the row's case, agreement or payment.
"""

import uuid
from collections.abc import Callable, Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

METADATA = sa.MetaData()

UUID = sa.Uuid()
TEXT = sa.Text()
DATE = sa.Date()
BIG = sa.BigInteger()
INT = sa.Integer()
BOOL = sa.Boolean()
BYTES = sa.LargeBinary()
TEXTS = sa.ARRAY(sa.Text())
UUIDS = sa.ARRAY(sa.Uuid())
BIGS = sa.ARRAY(sa.BigInteger())
JSON = postgresql.JSONB()
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


def array(values: Iterable[object]) -> str:
    """A PostgreSQL array of numbers, dates, UUIDs, booleans or words of this service (no quotes or backslashes), None
    as NULL; the statement casts it. For many values: a list would be turned into the same text value by value by the
    driver, four times as slowly."""
    return "{" + ",".join([_ELEMENTS.get(type(one), str)(one) for one in values]) + "}"


def rows(found: sa.CursorResult[Any]) -> list[dict[str, Any]]:
    """Rows by column name, as dictionaries: a third of the cost of `mappings()` where every row is opened."""
    names = tuple(found.keys())
    return [dict(zip(names, row, strict=True)) for row in found.all()]


_ELEMENTS: dict[type, Callable[[Any], str]] = {
    uuid.UUID: lambda one: one.hex,
    type(None): lambda one: "NULL",
    str: lambda one: f'"{one}"',
}


def business(name: str, type_: sa.types.TypeEngine[Any], *, key: bool = False) -> sa.Column[Any]:
    """A column that two runs of the same work must agree on."""
    return sa.Column(name, type_, primary_key=key, info={"kind": "business"})


def incidental(
    name: str, type_: sa.types.TypeEngine[Any], reason: str, *, key: bool = False
) -> sa.Column[Any]:
    """A column that may differ between runs, and why."""
    return sa.Column(name, type_, primary_key=key, info={"kind": "incidental", "reason": reason})


def reference(name: str, to: str, *, key: bool = False) -> sa.Column[Any]:
    """A column that points to a row of another table."""
    return sa.Column(name, UUID, primary_key=key, info={"kind": "reference", "to": to})


def table(name: str, natural_key: list[str], *columns: sa.Column[Any]) -> sa.Table:
    """A table of one agency's rows, found across runs by its natural key."""
    return sa.Table(
        name, METADATA, business("agency", UUID, key=True), *columns, info={"natural_key": natural_key}
    )


creditors = table(
    "creditors",
    ["creditor_reference"],
    incidental("creditor_id", UUID, _CASE_ID, key=True),
    business("creditor_reference", TEXT),
)

case_accounts = table(
    "case_accounts",
    ["creditor_id", "contract_reference", "currency"],
    incidental("case_id", UUID, _CASE_ID, key=True),
    reference("creditor_id", "creditors"),
    incidental("debtor_id", UUID, _CASE_ID),
    business("contract_reference", TEXT),
    business("currency", TEXT),
    incidental("partition", INT, "follows from the case's id"),
    reference("agreement_id", "agreements"),
    business("epoch", INT),
    business("product", TEXT),
    business("consumer", BOOL),
)

titles = table(
    "titles",
    ["case_id", "reference"],
    reference("case_id", "case_accounts", key=True),
    incidental("id", UUID, _CASE_ID, key=True),
    business("reference", TEXT),
    incidental("batch_id", UUID, _IMPORT_ID),
    business("due_date", DATE),
    business("payable_until", DATE),
    business("principal_minor", BIG),
    business("penalty_rate_e4", INT),
    business("monthly_rate_e4", INT),
    business("accrued_through", DATE),
    business("open_principal_minor", BIG),
    business("open_correction_minor", BIG),
    business("open_penalty_minor", BIG),
    business("open_interest_minor", BIG),
    business("open_costs_minor", BIG),
    business("open_fees_minor", BIG),
    business("charged_correction_minor", BIG),
    business("charged_penalty_minor", BIG),
    business("charged_interest_minor", BIG),
    business("charged_costs_minor", BIG),
    business("charged_fees_minor", BIG),
    business("received_minor", BIG),
    business("waived_minor", BIG),
    business("withdrawn_minor", BIG),
    business("written_off_minor", BIG),
    business("novated_minor", BIG),
    business("title_type", TEXT),
    reference("terms_id", "charge_terms"),
    business("own_penalty", BOOL),
    business("own_interest", BOOL),
    business("bears_interest", BOOL),
    business("corrected_through", DATE),
    business("once_charged", BOOL),
    reference("agreement_id", "agreements"),
    reference("origin_agreement_id", "agreements"),
    business("acquirer", TEXT),
    business("state", TEXT),
    incidental("version", BIG, _COUNTER),
)

agreements = table(
    "agreements",
    ["case_id", "number"],
    incidental("id", UUID, _OWN_ID, key=True),
    reference("case_id", "case_accounts"),
    business("number", INT),
    business("state", TEXT),
    business("currency", TEXT),
    business("debt_minor", BIG),
    business("discount_minor", BIG),
    business("plan_interest_minor", BIG),
    business("total_minor", BIG),
    business("instalments", INT),
    business("first_due_date", DATE),
    business("annual_rate_e4", INT),
    business("down_payment_minor", BIG),
    business("down_payment_date", DATE),
    business("propose_date", DATE),
    business("expire_date", DATE),
    business("accept_date", DATE),
    business("end_date", DATE),
    business("end_reason", TEXT),
    business("notice_days", INT),
    business("missed_days", INT),
    business("broken_days", INT),
    business("kind", TEXT),
    business("tolerance_date", DATE),
    business("breach_policy", TEXT),
    business("novation_prefix", TEXT),
    business("acquirer", TEXT),
    incidental("contact_person_id", UUID, _CASE_ID),
    business("responsible", TEXT),
    business("confession_required", BOOL),
    business("accept_channel", TEXT),
    business("accepted_by", TEXT),
    business("grace_date", DATE),
    business("reinstate_reason", TEXT),
    business("added_minor", BIG),
    business("terms", JSON),
    business("note", TEXT),
    business("settlement_type", TEXT),
    business("use_credits", BOOL),
    incidental("created_at", INSTANT, _WALL),
    incidental("version", BIG, _COUNTER),
)

agreement_cases = table(
    "agreement_cases",
    ["agreement_id", "case_id"],
    reference("agreement_id", "agreements", key=True),
    reference("case_id", "case_accounts", key=True),
    incidental("partition", INT, "follows from the case's id"),
    business("end_epoch", INT),
    incidental("next_day", DATE, "when the daily run looks again: any day until it has looked"),
)

agreement_titles = table(
    "agreement_titles",
    ["agreement_id", "title_id"],
    reference("agreement_id", "agreements", key=True),
    reference("case_id", "case_accounts"),
    reference("title_id", "titles", key=True),
    incidental("title_version", BIG, _COUNTER),
    business("principal_minor", BIG),
    business("correction_minor", BIG),
    business("penalty_minor", BIG),
    business("interest_minor", BIG),
    business("costs_minor", BIG),
    business("fees_minor", BIG),
    business("added_penalty_minor", BIG),
    business("added_interest_minor", BIG),
    business("added_costs_minor", BIG),
    business("added_fees_minor", BIG),
    business("waived_principal_minor", BIG),
    business("waived_correction_minor", BIG),
    business("waived_penalty_minor", BIG),
    business("waived_interest_minor", BIG),
    business("waived_costs_minor", BIG),
    business("waived_fees_minor", BIG),
    business("novated", BOOL),
)

instalments = table(
    "instalments",
    ["agreement_id", "number"],
    incidental("id", UUID, _OWN_ID, key=True),
    reference("agreement_id", "agreements"),
    business("number", INT),
    business("due_date", DATE),
    business("payable_until", DATE),
    business("capital_minor", BIG),
    business("interest_minor", BIG),
    business("charged_interest_minor", BIG),
    business("paid_interest_minor", BIG),
    business("paid_capital_minor", BIG),
    business("paid_date", DATE),
    business("state", TEXT),
    incidental("version", BIG, _COUNTER),
)

instruments = table(
    "instruments",
    ["case_id", "instalment_id", "kind", "generation"],
    incidental("id", UUID, _OWN_ID, key=True),
    reference("case_id", "case_accounts"),
    reference("instalment_id", "instalments"),
    reference("account_id", "collection_accounts"),
    business("kind", TEXT),
    business("generation", INT),
    business("state", TEXT),
    business("currency", TEXT),
    business("amount_minor", BIG),
    business("issue_date", DATE),
    business("due_date", DATE),
    business("payable_until", DATE),
    incidental("our_number", TEXT, _NUMBERED),
    incidental("our_number_printed", TEXT, _NUMBERED),
    incidental("barcode", TEXT, _NUMBERED),
    incidental("txid", TEXT, _NUMBERED),
    incidental("br_code", TEXT, _NUMBERED),
    incidental("due_at", INSTANT, _WALL),
    incidental("act_key", TEXT, _NUMBERED),
    incidental("act_worker", UUID, "process that acted"),
    incidental("waits_for_id", UUID, "the one before it, where the bank had not cancelled that one yet"),
    incidental("unwanted", BOOL, "set only where it was closed while the bank was being asked"),
    incidental("version", BIG, _COUNTER),
)

slip_numbers = sa.Table(
    "slip_numbers",
    METADATA,
    sa.Column("agency", UUID, primary_key=True),
    sa.Column("account", TEXT, primary_key=True),
    sa.Column("last_number", BIG),
    info={"digest": False, "reason": "a counter: numbers given to transactions that rolled back are gone"},
)

payments = table(
    "payments",
    ["creditor_reference", "account", "means", "bank_reference"],
    incidental("id", UUID, _OWN_ID, key=True),
    business("creditor_reference", TEXT),
    business("account", TEXT),
    business("means", TEXT),
    business("bank_reference", TEXT),
    business("value_date", DATE),
    business("amount_minor", BIG),
    business("currency", TEXT),
    incidental("txid", TEXT, "names an instrument by its own number"),
    incidental("our_number", TEXT, "names an instrument by its own number"),
    business("title_reference", TEXT),
    business("contract_reference", TEXT),
    business("state", TEXT),
    business("allocated_minor", BIG),
    business("overpaid_minor", BIG),
    reference("case_id", "case_accounts"),
    reference("title_id", "titles"),
    reference("instrument_id", "instruments"),
    business("epoch", INT),
    business("reverse_date", DATE),
    business("reverse_reason", TEXT),
    business("refunded_minor", BIG),
    business("credited_minor", BIG),
    business("reverse_kind", TEXT),
    business("by_hand", BOOL),
    reference("origin_payment_id", "payments"),
    sa.Column("chosen_title_ids", UUIDS, info={"kind": "reference", "to": "titles"}),
    business("chosen_minor", BIGS),
    incidental("proof_blob_id", UUID, _OWN_ID),
    business("proof_type", TEXT),
    incidental("created_at", INSTANT, _WALL),
    incidental("version", BIG, _COUNTER),
)

payment_sources = table(
    "payment_sources",
    ["payment_id", "kind", "row", "caller"],
    reference("payment_id", "payments", key=True),
    business("kind", TEXT, key=True),
    incidental("batch_id", UUID, _IMPORT_ID, key=True),
    business("row", BIG, key=True),
    business("caller", TEXT, key=True),
)

allocations = table(
    "allocations",
    ["payment_id", "title_id", "instalment_id", "component"],
    reference("payment_id", "payments", key=True),
    reference("case_id", "case_accounts"),
    reference("title_id", "titles", key=True),
    reference("instalment_id", "instalments", key=True),
    business("component", TEXT, key=True),
    business("amount_minor", BIG),
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
    sa.Column("base_minor", BIG),
    sa.Column("numerator", BIG),
    sa.Column("denominator", BIG),
    sa.Column("rule", TEXT),
    sa.Column("payment_id", UUID),
    sa.Column("agreement_id", UUID),
    sa.Column("debit", TEXT),
    sa.Column("credit", TEXT),
    info={
        "digest": False,
        "reason": "history: a payment that arrives late takes later ones back and applies them again, so entries and "
        "contra entries depend on the order of arrival; their sums are business columns of titles, instalments and "
        "allocations, and a test holds both together",
    },
)
