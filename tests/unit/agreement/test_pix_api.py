"""The Pix API's client against a bank of our own that follows the published schema (standards.md 4.4)."""

import argparse
import dataclasses
import datetime
import ssl

import httpx
import pytest

from agreement_service import __main__ as main
from agreement_service import providers
from agreement_service.domain import cobv, pix
from agreement_service.providers import pix_api
from servicekit import settings
from support import certificates, pix_server

TODAY = datetime.date(2026, 11, 20)
DUE = datetime.date(2026, 12, 10)
TXID = "0192f0c1a2b37c4d8e5f60718293a4b5"
PAYER = providers.Parties(
    debtor_name="João da Silva", debtor_document_type="CPF", debtor_document="39053344705"
)


@pytest.fixture
def server(tmp_path):
    with pix_server.PixServer(tmp_path / "bank", today=TODAY) as made:
        yield made


def access(server, tmp_path, **fields):
    secret = tmp_path / "secret"
    secret.write_text(pix_server.CLIENT_SECRET + "\n")
    certificate, key = server.client
    return pix_api.Access(
        **{
            "url": f"{server.address}/pix/v2/",
            "token_url": f"{server.address}/oauth/token",
            "client_id": pix_server.CLIENT_ID,
            "client_secret_file": secret,
            "certificate_file": certificate,
            "private_key_file": key,
            "ca_file": server.authority.file,
            "key": pix_server.KEY,
            "name": "Recupera Cobrancas",
            "city": "SAO PAULO",
            **fields,
        }
    )


@pytest.fixture
def bank(server, tmp_path):
    made = pix_api.PixApi(access(server, tmp_path))
    yield made
    made.close()


def order(**fields):
    return providers.Order(
        **{
            "kind": "PIX",
            "key": TXID,
            "amount_minor": 12_345,
            "due_date": DUE,
            "today": TODAY,
            "payer": PAYER,
            **fields,
        }
    )


REGISTERED, REJECTED, CANCELLED = (
    providers.Registration.REGISTERED,
    providers.Registration.REJECTED,
    providers.Registration.CANCELLED,
)


@pytest.mark.feature("S2-29")
def test_a_charge_with_a_due_date_names_its_debtor(bank, server):
    assert bank.find(order()) is None
    assert bank.register(order()) is REGISTERED
    assert server.kinds[TXID] == "cobv"
    charge = server.charges[TXID]
    assert charge["calendario"]["dataDeVencimento"] == "2026-12-10"
    assert charge["calendario"]["validadeAposVencimento"] == 30
    assert charge["devedor"] == {"cpf": "39053344705", "nome": "João da Silva"}
    assert charge["valor"] == {"original": "123.45"}
    assert charge["chave"] == pix_server.KEY
    assert bank.find(order()) is REGISTERED
    assert pix.parse(bank.code(order()))["26.25"] == charge["location"]


@pytest.mark.parametrize(
    "fields",
    [
        {"payer": None},
        {"payer": dataclasses.replace(PAYER, debtor_document_type="NIF")},
        {"payer": dataclasses.replace(PAYER, debtor_document="1")},
        {"due_date": TODAY - datetime.timedelta(days=1)},
    ],
)
def test_without_a_debtor_or_after_its_due_date_it_is_an_immediate_charge(bank, server, fields):
    assert bank.register(order(**fields)) is REGISTERED
    assert server.kinds[TXID] == "cob"
    assert server.charges[TXID]["calendario"]["expiracao"] % 86_400 == 0
    assert server.charges[TXID]["calendario"]["expiracao"] >= 30 * 86_400
    assert bank.find(order(**fields)) is REGISTERED
    assert bank.cancel(order(**fields)) is CANCELLED


def test_a_company_is_named_by_its_alphanumeric_document(bank, server):
    company = dataclasses.replace(PAYER, debtor_document_type="CNPJ", debtor_document="12ABC34501DE35")
    assert bank.register(order(payer=company)) is REGISTERED
    assert server.charges[TXID]["devedor"]["cnpj"] == "12ABC34501DE35"


def test_a_code_is_made_of_the_location_where_the_bank_gives_none(bank, server):
    server.code_given = False
    bank.register(order())
    found = pix.parse(bank.code(order()))
    assert found["26.25"] == f"pix.example.com/qr/v2/cobv/{TXID}"
    assert found["01"] == "12"
    assert found["59"] == "Recupera Cobrancas"


def test_removing_a_charge(bank, server):
    bank.register(order())
    assert bank.cancel(order()) is CANCELLED
    assert server.charges[TXID]["status"] == pix_server.REMOVED
    assert bank.find(order()) is CANCELLED
    writes = len(server.writes())
    assert bank.cancel(order()) is CANCELLED
    assert len(server.writes()) == writes
    assert bank.register(order()) is REJECTED  # only an active charge is changed


def test_removing_what_the_bank_never_had(bank):
    assert bank.cancel(order()) is CANCELLED


def test_a_paid_charge_is_not_removed(bank, server):
    bank.register(order())
    server.pay(TXID)
    assert bank.find(order()) is REGISTERED
    assert bank.cancel(order()) is REJECTED
    assert server.charges[TXID]["status"] == "CONCLUIDA"


@pytest.mark.parametrize("amount", [0, 10**12])
def test_a_value_that_the_api_refuses_is_rejected_without_asking(bank, server, amount):
    assert bank.register(order(amount_minor=amount)) is REJECTED
    assert server.writes() == []


def test_what_the_bank_refuses_is_rejected(bank, server):
    server.today = DUE + datetime.timedelta(days=1)
    assert bank.register(order()) is REJECTED
    assert server.charges == {}


@pytest.mark.parametrize("txid", ["short", "x" * 36, "0192f0c1-a2b3-7c4d-8e5f-60718293a4b5"])
def test_a_txid_that_is_none_is_rejected(bank, txid):
    assert bank.register(order(key=txid)) is REJECTED


def test_the_token_is_kept_until_its_end(bank, server):
    for _ in range(3):
        bank.find(order())
    assert [path for method, path in server.requests if method == "POST"] == ["/oauth/token"]


def test_an_ended_token_is_fetched_anew(server, tmp_path):
    server.token_lifetime = 1  # less than the margin: each request asks for its own
    bank = pix_api.PixApi(access(server, tmp_path))
    bank.find(order())
    assert sum(method == "POST" for method, _ in server.requests) == 2
    bank.close()


def test_a_refused_token_is_fetched_once_more(bank, server):
    bank.find(order())
    server.revoke_tokens()
    assert bank.register(order()) is REGISTERED
    assert sum(method == "POST" for method, _ in server.requests) == 2


def test_a_token_refused_twice_is_no_refusal_of_the_charge(bank, server):
    server.fail_next = [401, 401]
    with pytest.raises(pix_api.PixAccessDenied):
        bank.register(order())
    assert server.charges == {}


def test_wrong_client_credentials(server, tmp_path):
    bank = pix_api.PixApi(access(server, tmp_path, client_id="somebody"))
    with pytest.raises(pix_api.PixAccessDenied):
        bank.register(order())
    bank.close()


def test_a_certificate_of_another_authority_is_not_let_in(server, tmp_path):
    stranger = certificates.Authority(tmp_path / "stranger", "stranger")
    signed = stranger.sign("client", "127.0.0.1")
    bank = pix_api.PixApi(
        access(server, tmp_path, certificate_file=signed.certificate, private_key_file=signed.key)
    )
    with pytest.raises(pix_api.PixUnavailable):
        bank.register(order())
    bank.close()
    bank = pix_api.PixApi(access(server, tmp_path, ca_file=stranger.file))
    with pytest.raises(pix_api.PixUnavailable):
        bank.register(order())
    bank.close()
    assert server.requests == []


def test_a_key_that_is_not_the_certificates_fails_at_start(server, tmp_path):
    key = server.authority.sign("other", "127.0.0.1").key
    with pytest.raises(ssl.SSLError):
        pix_api.PixApi(access(server, tmp_path, private_key_file=key))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_bank_in_trouble_leaves_the_act_open(bank, server, status):
    server.fail_next = [status]
    with pytest.raises(providers.BankUnavailable):
        bank.register(order())
    assert bank.find(order()) is None
    assert bank.register(order()) is REGISTERED


def test_a_bank_that_says_nothing_is_not_waited_for_long(server, tmp_path, monkeypatch):
    monkeypatch.setattr(pix_api, "TIMEOUT", httpx.Timeout(0.3))
    bank = pix_api.PixApi(access(server, tmp_path))
    server.awake.clear()
    with pytest.raises(pix_api.PixUnavailable):
        bank.register(order())
    server.awake.set()
    bank.close()


def test_no_bank_at_all(server, tmp_path):
    bank = pix_api.PixApi(access(server, tmp_path, token_url="https://127.0.0.1:9/oauth/token"))
    with pytest.raises(pix_api.PixUnavailable):
        bank.find(order())
    bank.close()


def test_an_address_that_is_none_of_the_apis_is_not_taken_for_an_unknown_charge(server, tmp_path):
    bank = pix_api.PixApi(access(server, tmp_path, url=f"{server.address}/elsewhere"))
    with pytest.raises(pix_api.PixUnavailable):
        bank.cancel(order())
    bank.close()


def test_a_connection_cut_after_the_commit_leaves_one_charge(bank, server):
    server.drop_next = True
    with pytest.raises(pix_api.PixUnavailable):
        bank.register(order())
    assert server.charges[TXID]["revisao"] == 0
    assert bank.find(order()) is REGISTERED
    assert len(server.writes()) == 1


def test_an_answer_about_another_charge_is_not_believed(bank, server):
    bank.register(order())
    with pytest.raises(pix_api.PixUnavailable):
        bank.find(order(amount_minor=1))


def test_slips_stay_with_the_offline_bank(bank, server):
    slip = order(kind="BOLETO", key="00000001")
    assert bank.register(slip) is REGISTERED
    assert bank.cancel(slip) is CANCELLED
    assert bank.find(slip) is None
    assert bank.code(slip) == ""
    assert server.requests == []


def test_every_rule_of_a_charge_is_written_as_the_api_says():
    made = cobv.Charge(
        original_minor=10_000,
        due_date=DUE,
        penalty=cobv.Penalty(cobv.PenaltyMode.PERCENT, 200),
        interest=cobv.Interest(cobv.InterestMode.PERCENT_A_MONTH, 100),
        abatement=cobv.Abatement(cobv.AbatementMode.AMOUNT, 50),
        discount=cobv.Discount(cobv.DiscountMode.PERCENT_UNTIL, until=((TODAY, 1_000),)),
    )
    assert pix_api.charge_body(made)["valor"] == {
        "original": "100.00",
        "multa": {"modalidade": 2, "valorPerc": "2.00"},
        "juros": {"modalidade": 3, "valorPerc": "1.00"},
        "abatimento": {"modalidade": 1, "valorPerc": "0.50"},
        "desconto": {
            "modalidade": 2,
            "descontoDataFixa": [{"data": "2026-11-20", "valorPerc": "10.00"}],
        },
    }


def test_nothing_of_the_debtor_is_shown_in_errors(bank, server):
    server.drop_next = True
    with pytest.raises(pix_api.PixUnavailable) as error:
        bank.register(order())
    assert "Silva" not in repr(error.value) + repr(order())
    assert TXID not in str(error.value)


def test_the_provider_is_chosen_by_settings_which_name_what_is_missing(server, tmp_path, monkeypatch):
    here = dataclasses.asdict(access(server, tmp_path))
    chosen = argparse.Namespace(bank_provider="pix-api")
    for name in list(here):
        monkeypatch.delenv(f"RECUPERA_PIX_{name.upper()}", raising=False)
    with pytest.raises(settings.SettingMissing, match="RECUPERA_PIX_CLIENT_SECRET_FILE"):
        main.bank_of(chosen)
    for name, value in here.items():
        monkeypatch.setenv(f"RECUPERA_PIX_{name.upper()}", str(value))
    made = main.bank_of(chosen)
    assert made.register(order()) is REGISTERED
    made.close()
    assert isinstance(main.bank_of(argparse.Namespace(bank_provider="offline")), providers.OfflineBank)
