"""Creditors' settings, limits, payment conditions, agreement categories on a real PostgreSQL."""

from __future__ import annotations

import dataclasses

import pytest

from agreement_service.domain import creditors
from agreement_service.store import creditors as creditor_store
from agreement_service.usecases import creditors as creditor_cases
from servicekit import errors, ids

SET = creditors.CreditorSettings(
    minimum_down_payment=creditors.Floor(minor=5_000, rate_e4=100_000),
    maximum_instalments=24,
    minimum_instalment=creditors.Floor(minor=3_000),
    charge_interest=True,
    default_interest=False,
    remunerative_interest=True,
    annual_rate_e4=120_000,
    confession_required=True,
    notice_days=5,
    missed_days=2,
    broken_days=20,
    validity_days=7,
    accepted_means=frozenset({"PIX", "BOLETO"}),
    breach_policy=creditors.BreachPolicy.KEEP_NOVATION,
    novation_prefix="ACORDO",
)


def put(agency, new, *, only=(), version=None):
    with agency.tx() as tx:
        creditor_cases.update(
            tx=tx,
            agency=agency.agency,
            creditor_id=agency.creditor_id,
            new=new,
            only=only,
            version=version,
        )


def read(agency):
    with agency.tx() as tx:
        return creditor_store.settings(tx, agency.agency, agency.creditor_id)


@pytest.mark.feature("S1-25", "S1-26", "S1-28", "S1-29")
def test_settings_are_the_house_s_until_set_and_then_as_set(agency):
    assert read(agency) == creditors.DEFAULTS
    put(agency, SET, version=0)
    assert read(agency) == SET
    put(agency, creditors.DEFAULTS, only=["maximum_instalments", "breach_policy"], version=1)
    assert read(agency) == dataclasses.replace(
        SET, maximum_instalments=360, breach_policy=creditors.BreachPolicy.RESTORE_ORIGINALS
    )
    with agency.tx() as tx:
        assert creditor_store.settings(tx, agency.agency, ids.new()) == creditors.DEFAULTS


def test_settings_read_before_somebody_changed_them_are_not_written(agency):
    put(agency, SET, version=0)
    with pytest.raises(errors.VersionMismatch):
        put(agency, creditors.DEFAULTS, version=0)
    put(agency, SET)
    with pytest.raises(errors.VersionMismatch):
        put(agency, creditors.DEFAULTS, version=1)
    assert read(agency) == SET


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("maximum_instalments", 361),
        ("maximum_instalments", 0),
        ("broken_days", 1),
        ("accepted_means", frozenset()),
        ("accepted_means", frozenset({"GOLD"})),
        ("novation_prefix", "a b"),
        ("annual_rate_e4", -1),
    ],
)
def test_wrong_settings_name_the_field(agency, field, value):
    with pytest.raises(errors.InvalidRequest) as refused:
        put(agency, dataclasses.replace(SET, **{field: value}))
    assert [one.field for one in refused.value.fields] == [f"settings.{field}"]
    assert read(agency) == creditors.DEFAULTS


def test_an_unknown_field_in_the_mask_is_refused(agency):
    with pytest.raises(errors.InvalidRequest, match="update_mask"):
        put(agency, SET, only=["name"])
