"""The tables, each column declared as store/tables.py says."""

import sqlalchemy as sa

from agreement_service.store import tables

_OWN_ID = "UUID made by this service"
_WALL = "instant of the agency's clock when it was handled"

tables.table(
    "commission_contracts",
    ["creditor_id", "currency", "product", "valid_from"],
    tables.incidental("id", tables.UUID, _OWN_ID, key=True),
    tables.reference("creditor_id", "creditors"),
    tables.business("currency", tables.TEXT),
    tables.business("product", tables.TEXT),
    tables.business("valid_from", tables.DATE),
    tables.business("fixed_minor", tables.BIG),
    tables.business("fixed_per", tables.TEXT),
    tables.business("success_rate_e4", tables.INT),
    tables.business("tax", tables.TEXT),
    tables.business("tax_rate_e4", tables.INT),
    tables.business("tax_retained", tables.BOOL),
    tables.business("minimum_minor", tables.BIG),
    tables.business("frequency", tables.TEXT),
    tables.business("grouping", tables.TEXT),
    tables.business("created_by", tables.TEXT),
    tables.incidental("created_at", tables.INSTANT, _WALL),
)
tables.table(
    "commission_bands",
    ["contract_id", "from_day"],
    tables.reference("contract_id", "commission_contracts", key=True),
    tables.business("from_day", tables.INT, key=True),
    tables.business("principal_rate_e4", tables.INT),
    tables.business("charges_rate_e4", tables.INT),
    tables.business("costs_rate_e4", tables.INT),
)
_MINOR = (
    "gross_minor",
    "commission_minor",
    "success_fee_minor",
    "tax_added_minor",
    "tax_retained_minor",
    "carried_in_minor",
    "net_minor",
    "minimum_minor",
    "remitted_minor",
    "carried_out_minor",
)
tables.table(
    "statements",
    ["creditor_id", "currency", "for_case_id", "number"],
    tables.incidental("id", tables.UUID, _OWN_ID, key=True),
    tables.reference("creditor_id", "creditors"),
    tables.business("currency", tables.TEXT),
    tables.reference("for_case_id", "case_accounts"),
    tables.business("number", tables.INT),
    tables.business("state", tables.TEXT),
    tables.business("period_start", tables.DATE),
    tables.business("period_end", tables.DATE),
    tables.incidental(
        "settlements", tables.BIG, "contra entries depend on the order in which payments arrived"
    ),
    *(tables.business(name, tables.BIG) for name in _MINOR),
    tables.business("closed_by", tables.TEXT),
    tables.incidental("closed_at", tables.INSTANT, _WALL),
    tables.business("approved_by", tables.TEXT),
    tables.incidental("approved_at", tables.INSTANT, _WALL),
    tables.business("pay_date", tables.DATE),
    tables.business("bank_reference", tables.TEXT),
    tables.incidental(
        "version", tables.BIG, "counts writes: how many there are depends on the order of arrival"
    ),
)
sa.Table(
    "statement_lines",
    tables.METADATA,
    sa.Column("agency", tables.UUID, primary_key=True),
    sa.Column("posting_id", tables.BIG, primary_key=True),
    sa.Column("statement_id", tables.UUID),
    sa.Column("contract_id", tables.UUID),
    sa.Column("days_past_due", tables.INT),
    sa.Column("rate_e4", tables.INT),
    sa.Column("amount_minor", tables.BIG),
    sa.Column("percentage_minor", tables.BIG),
    sa.Column("fixed_minor", tables.BIG),
    sa.Column("tax_added_minor", tables.BIG),
    sa.Column("tax_retained_minor", tables.BIG),
    info={"digest": False, "reason": "a line for each posting, and postings are left out: see there"},
)
tables.table(
    "statement_fees",
    ["statement_id", "case_id"],
    tables.reference("statement_id", "statements", key=True),
    tables.reference("case_id", "case_accounts", key=True),
    tables.reference("contract_id", "commission_contracts"),
    tables.business("rate_e4", tables.INT),
    tables.business("base_minor", tables.BIG),
    tables.business("fee_minor", tables.BIG),
    tables.business("tax_added_minor", tables.BIG),
    tables.business("tax_retained_minor", tables.BIG),
)
sa.Table(
    "settlements_waiting",
    tables.METADATA,
    sa.Column("agency", tables.UUID, primary_key=True),
    sa.Column("creditor_id", tables.UUID, primary_key=True),
    sa.Column("currency", tables.TEXT, primary_key=True),
    sa.Column("posting_id", tables.BIG, primary_key=True),
    sa.Column("case_id", tables.UUID),
    sa.Column("payment_id", tables.UUID),
    sa.Column("title_id", tables.UUID),
    sa.Column("instalment_id", tables.UUID),
    sa.Column("agreement_id", tables.UUID),
    sa.Column("component", tables.TEXT),
    sa.Column("business_date", tables.DATE),
    sa.Column("value_date", tables.DATE),
    sa.Column("amount_minor", tables.BIG),
    info={"digest": False, "reason": "a queue of postings, and postings are left out: see there"},
)
