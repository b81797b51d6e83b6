"""Pix instruments as charges at a bank over the Pix API: acts journaled here, charges there, one of each."""

import datetime
from typing import Any

import pytest

from agreement_service.domain import pix, plans
from agreement_service.providers import pix_api
from support import pix_server

FRIDAY = datetime.date(2026, 11, 20)


@pytest.fixture
def server(tmp_path):
    with pix_server.PixServer(tmp_path / "bank", today=FRIDAY) as made:
        yield made


@pytest.fixture
def agency(agency: Any, server: pix_server.PixServer, tmp_path: Any) -> Any:
    """The agency, with that bank."""
    secret = tmp_path / "secret"
    secret.write_text(pix_server.CLIENT_SECRET)
    certificate, key = server.client
    agency.bank = pix_api.PixApi(
        pix_api.Access(
            url=f"{server.address}/pix/v2",
            token_url=f"{server.address}/oauth/token",
            client_id=pix_server.CLIENT_ID,
            client_secret_file=secret,
            certificate_file=certificate,
            private_key_file=key,
            ca_file=server.authority.file,
            key=pix_server.KEY,
            name="Recupera Cobrancas",
            city="SAO PAULO",
        )
    )
    yield agency
    agency.bank.close()


def agree(agency: Any) -> Any:
    (placed,) = agency.place((datetime.date(2026, 10, 6), 100_000))
    return agency.agree(
        placed.case_id,
        terms=plans.Terms(instalments=2, first_due_date=datetime.date(2026, 12, 10), annual_rate_e4=0),
    )


def charges(agency: Any, agreement: Any) -> list[Any]:
    return [one for one in agency.instruments(agreement) if one.kind == "PIX"]


def test_a_pix_instrument_is_a_charge_whose_code_the_bank_gives(agency, server):
    agreement = agree(agency)
    drafts = charges(agency, agreement)
    assert [(one.state, one.br_code, len(one.txid)) for one in drafts] == [("DRAFT", "", 32)] * 2
    agency.act()
    for one in charges(agency, agreement):
        assert one.state == "REGISTERED"
        found = server.charges[one.txid]
        assert found["devedor"] == {"cpf": "39053344705", "nome": "João Conceição"}
        assert found["calendario"]["dataDeVencimento"] == one.due_date.isoformat()
        assert pix.parse(one.br_code)["26.25"] == found["location"]
    assert {one.state for one in agency.instruments(agreement)} == {"REGISTERED"}


def test_a_connection_cut_after_the_bank_committed_is_looked_up_not_repeated(agency, server):
    agreement = agree(agency)
    server.drop_next = True
    with pytest.raises(pix_api.PixUnavailable):
        agency.act()
    states = sorted(one.state for one in charges(agency, agreement))
    assert "REGISTERING" in states
    agency.act()
    assert [one.state for one in charges(agency, agreement)] == ["REGISTERED"] * 2
    assert all(one.br_code for one in charges(agency, agreement))
    assert sorted(path.rsplit("/", 1)[-1] for _, path in server.writes()) == sorted(server.charges)
    assert [one["revisao"] for one in server.charges.values()] == [0, 0]


def test_a_bank_that_is_away_is_asked_again(agency, server):
    agreement = agree(agency)
    server.fail_next = [503]
    with pytest.raises(pix_api.PixUnavailable):
        agency.act()
    assert "REGISTERING" in {one.state for one in charges(agency, agreement)}
    agency.act()
    assert [one.state for one in charges(agency, agreement)] == ["REGISTERED"] * 2


def test_a_payment_by_txid_and_the_charges_of_what_is_cancelled(agency, server):
    agreement = agree(agency)
    agency.act()
    first, second = charges(agency, agreement)
    server.pay(first.txid)
    payment = agency.pay(first.amount_minor, txid=first.txid)
    assert agency.payment(payment).instrument_id == first.id
    agency.cancel(agreement)
    agency.act()
    assert server.charges[second.txid]["status"] == pix_server.REMOVED
    assert server.charges[first.txid]["status"] == "CONCLUIDA"
    assert [one.state for one in charges(agency, agreement)] == ["PAID", "CANCELLED"]


def test_a_removal_whose_answer_is_lost_is_looked_up(agency, server):
    agreement = agree(agency)
    agency.act()
    agency.cancel(agreement)
    server.drop_next = True
    with pytest.raises(pix_api.PixUnavailable):
        agency.act()
    agency.act()
    assert {one.state for one in charges(agency, agreement)} == {"CANCELLED"}
    removals = [path for method, path in server.writes() if method == "PATCH"]
    assert len(removals) == len(set(removals)) == 2


def test_what_the_bank_refuses_is_rejected(agency, server):
    agreement = agree(agency)
    server.today = datetime.date(2026, 12, 20)  # the bank's day is past the first due date
    agency.act()
    assert sorted(one.state for one in charges(agency, agreement)) == ["REGISTERED", "REJECTED"]
