"""A bank that registers Pix charges over the Pix API 2.9.0 (bacen/pix-api, openapi.yaml; standards.md 4.4).

OAuth2 client credentials over mutual TLS; charges are named by our own txid, fixed before the act: one that was begun
and not answered is looked up, never repeated. A charge with a due date is a cobv, which names the debtor; one whose
debtor has no CPF or CNPJ, or whose due date is over, is a cob. Slips stay with the offline bank.
"""

import base64
import dataclasses
import datetime
import logging
import re
import ssl
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from agreement_service.domain import cobv, pix
from agreement_service.providers import bank, parties

SCOPES = "cob.write cob.read cobv.write cobv.read"
TIMEOUT = httpx.Timeout(10.0, connect=5.0)
TOKEN_MARGIN = 30.0
"""Seconds before its end at which a token is no longer used."""
REMOVED = "REMOVIDA_PELO_USUARIO_RECEBEDOR"
MAX_TEXT = 140
_STATES = {
    "ATIVA": bank.Registration.REGISTERED,
    "CONCLUIDA": bank.Registration.REGISTERED,
    REMOVED: bank.Registration.CANCELLED,
    "REMOVIDA_PELO_PSP": bank.Registration.CANCELLED,
}

logger = logging.getLogger("recupera.agreement.pix")


class PixUnavailable(bank.BankUnavailable):
    """No answer, an answer of 429 or 5xx, or one that is not of the API: what became of the act is not known."""


class PixAccessDenied(bank.BankUnavailable):
    """The bank refuses our client, certificate or scope: nothing was done, nothing is wrong with the charge."""


class PixRefused(Exception):
    """An answer of 4xx as the API describes errors (RFC 7807): `kind` is the last part of its type, e.g.
    CobVOperacaoInvalida; `violations` the properties that are wrong, without their values."""

    def __init__(self, status: int, kind: str, violations: tuple[str, ...]) -> None:
        super().__init__(f"{status} {kind} {', '.join(violations)}".strip())
        self.status = status
        self.kind = kind
        self.violations = violations


class PixNotFound(PixRefused):
    """The bank knows no charge of that txid."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How the bank is reached: addresses, client, secret and certificates by file; the key that receives, its holder's
    name and city for the BR Code."""

    url: str
    token_url: str
    client_id: str
    client_secret_file: Path
    certificate_file: Path
    private_key_file: Path
    ca_file: Path
    key: str
    name: str
    city: str


class PixApi:
    """A bank reached over the Pix API. Every call is idempotent by the txid. Raises BankUnavailable."""

    pix_charges = True

    def __init__(self, access: Access) -> None:
        self._access = access
        self._slips = bank.OfflineBank()
        self._secret = access.client_secret_file.read_text().strip()
        context = ssl.create_default_context(cafile=str(access.ca_file))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(access.certificate_file, access.private_key_file)
        self._client = httpx.Client(verify=context, timeout=TIMEOUT, follow_redirects=False)
        self._lock = threading.Lock()
        self._token = ""
        self._token_until = 0.0
        self.account = dataclasses.replace(
            self._slips.account, pix_key=access.key, pix_name=access.name, pix_city=access.city
        )

    @property
    def multibanco_entity(self) -> str:
        """None: the bank is a Brazilian one."""
        return ""

    def register(self, order: bank.Order) -> bank.Registration:
        """Create the charge of a Pix instrument; REJECTED where the bank refuses it."""
        if order.kind != "PIX":
            return self._slips.register(order)
        try:
            kind, body = self._body(order)
            answer = self._call("PUT", f"/{kind}/{order.key}", body)
        except PixRefused as error:
            return self._rejected(error, "register")
        return self._state(answer, order)

    def cancel(self, order: bank.Order) -> bank.Registration:
        """Remove the charge; CANCELLED also where the bank never had it, REJECTED where it is paid."""
        if order.kind != "PIX":
            return self._slips.cancel(order)
        found = self._find(order.key)
        if found is None:
            return bank.Registration.CANCELLED
        kind, charge = found
        if _STATES.get(str(charge.get("status"))) is bank.Registration.CANCELLED:
            return bank.Registration.CANCELLED
        try:
            answer = self._call("PATCH", f"/{kind}/{order.key}", {"status": REMOVED})
        except PixNotFound:
            return bank.Registration.CANCELLED
        except PixRefused as error:
            return self._rejected(error, "cancel")
        return self._state(answer, order)

    def find(self, order: bank.Order) -> bank.Registration | None:
        """What the bank knows of a charge; None where it never heard of it."""
        if order.kind != "PIX":
            return self._slips.find(order)
        found = self._find(order.key)
        return None if found is None else self._state(found[1], order)

    def code(self, order: bank.Order) -> str:
        """The BR Code of a registered charge: as the bank gives it, or made of the location it gives."""
        if order.kind != "PIX":
            return ""
        found = self._find(order.key)
        if found is None:
            raise PixUnavailable("the bank has lost a charge it registered")
        charge = found[1]
        location = charge.get("location") or (charge.get("loc") or {}).get("location") or ""
        text = charge.get("pixCopiaECola") or ""
        try:
            if not text:
                text = pix.dynamic_code(
                    location=str(location), name=self._access.name, city=self._access.city
                )
            fields = pix.parse(str(text))
        except pix.BrCodeMalformed as error:
            raise PixUnavailable("the bank gave a BR Code that no payer could read") from error
        if "26.25" not in fields:
            raise PixUnavailable("the bank gave a BR Code without an address")
        return str(text)

    def close(self) -> None:
        """Give back connections."""
        self._client.close()

    def _body(self, order: bank.Order) -> tuple[str, dict[str, Any]]:
        debtor = _debtor(order.payer)
        common = {"chave": self._access.key, "solicitacaoPagador": "Parcela de acordo"[:MAX_TEXT]}
        if debtor is None or order.due_date < order.today:
            until = max(order.due_date, order.today) + datetime.timedelta(days=cobv.DEFAULT_VALIDITY_DAYS)
            body: dict[str, Any] = {
                "calendario": {"expiracao": (until - order.today).days * 86_400},
                "valor": {"original": value(order.amount_minor)},
                **common,
            }
            if debtor is not None:
                body["devedor"] = debtor
            return "cob", body
        charge = cobv.Charge(original_minor=order.amount_minor, due_date=order.due_date)
        return "cobv", {**charge_body(charge), "devedor": debtor, **common}

    def _find(self, txid: str) -> tuple[str, Mapping[str, Any]] | None:
        for kind in ("cobv", "cob"):
            try:
                return kind, self._call("GET", f"/{kind}/{txid}")
            except PixNotFound:
                continue
            except PixRefused as error:
                raise PixUnavailable(f"the bank refuses to look up a charge: {error}") from error
        return None

    def _state(self, answer: Mapping[str, Any], order: bank.Order) -> bank.Registration:
        amount = (answer.get("valor") or {}).get("original")
        status = _STATES.get(str(answer.get("status")))
        if answer.get("txid") != order.key or amount != value(order.amount_minor) or status is None:
            raise PixUnavailable("the bank answers with another charge than the one asked for")
        return status

    def _rejected(self, error: PixRefused, act: str) -> bank.Registration:
        logger.warning("the bank refused a charge", extra={"act": act, "refusal": str(error)})
        return bank.Registration.REJECTED

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        answer = self._send(method, path, body, self._bearer())
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            answer = self._send(method, path, body, self._bearer(instead_of=answer.request))
        return self._read(answer)

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None, bearer: str) -> httpx.Response:
        try:
            return self._client.request(
                method,
                self._access.url.rstrip("/") + path,
                json=body,
                headers={"Authorization": f"Bearer {bearer}"},
            )
        except httpx.HTTPError as error:
            # the text of the error is left out: it may quote the address with its txid
            raise PixUnavailable(f"no answer from the bank: {type(error).__name__}") from None

    def _read(self, answer: httpx.Response) -> Mapping[str, Any]:
        if answer.status_code in (httpx.codes.OK, httpx.codes.CREATED):
            return _object(answer)
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise PixAccessDenied(f"the bank answers {answer.status_code}")
        if answer.status_code == httpx.codes.TOO_MANY_REQUESTS or not 400 <= answer.status_code < 500:
            raise PixUnavailable(f"the bank answers {answer.status_code}")
        problem = _object(answer)
        kind = str(problem.get("type", "")).rsplit("/", 1)[-1]
        wrong = tuple(
            str(one.get("propriedade", "")) for one in problem.get("violacoes") or () if isinstance(one, dict)
        )
        if answer.status_code != httpx.codes.NOT_FOUND:
            raise PixRefused(answer.status_code, kind, wrong)
        if not re.match(r"CobV?NaoEncontrad", kind):  # an address that is none of the API's
            raise PixUnavailable("the bank answers 404 without saying that it knows no such charge")
        raise PixNotFound(answer.status_code, kind, wrong)

    def _bearer(self, instead_of: httpx.Request | None = None) -> str:
        """The token in hand, or a new one: where it ends, or the bank refused the one that `instead_of` carried."""
        with self._lock:
            stale = instead_of is not None and instead_of.headers["Authorization"] == f"Bearer {self._token}"
            if stale or time.monotonic() >= self._token_until:
                self._token, lifetime = self._fetch_token()
                self._token_until = time.monotonic() + max(0.0, lifetime - TOKEN_MARGIN)
            return self._token

    def _fetch_token(self) -> tuple[str, float]:
        credentials = base64.b64encode(f"{self._access.client_id}:{self._secret}".encode()).decode()
        try:
            answer = self._client.post(
                self._access.token_url,
                data={"grant_type": "client_credentials", "scope": SCOPES},
                headers={"Authorization": f"Basic {credentials}"},
            )
        except httpx.HTTPError as error:
            raise PixUnavailable(f"no token from the bank: {type(error).__name__}") from None
        if 400 <= answer.status_code < 500 and answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
            raise PixAccessDenied(f"the bank answers {answer.status_code} to our client")
        if answer.status_code != httpx.codes.OK:
            raise PixUnavailable(f"the bank answers {answer.status_code} to our client")
        found = _object(answer)
        token, lifetime = found.get("access_token"), found.get("expires_in")
        if not isinstance(token, str) or not isinstance(lifetime, int) or not token:
            raise PixUnavailable("the bank gives no token")
        return token, float(lifetime)


def value(minor: int) -> str:
    """Centavos as the API writes amounts: `\\\\d{1,10}\\\\.\\\\d{2}`; percent times 100 alike."""
    return f"{minor // 100}.{minor % 100:02d}"


def charge_body(charge: cobv.Charge) -> dict[str, Any]:
    """`calendario` and `valor` of a cobv. Raises PixRefused naming what the API would refuse."""
    if wrong := charge.check():
        raise PixRefused(400, "CobVOperacaoInvalida", tuple(one.field for one in wrong))
    amounts: dict[str, Any] = {"original": value(charge.original_minor)}
    for name, rule in (
        ("multa", charge.penalty),
        ("juros", charge.interest),
        ("abatimento", charge.abatement),
    ):
        if rule is not None:
            amounts[name] = {"modalidade": int(rule.mode), "valorPerc": value(rule.value_e2)}
    if (discount := charge.discount) is not None:
        amounts["desconto"] = {"modalidade": int(discount.mode)}
        if discount.until:
            amounts["desconto"]["descontoDataFixa"] = [
                {"data": date.isoformat(), "valorPerc": value(one)} for date, one in discount.until
            ]
        else:
            amounts["desconto"]["valorPerc"] = value(discount.value_e2)
    return {
        "calendario": {
            "dataDeVencimento": charge.due_date.isoformat(),
            "validadeAposVencimento": charge.validity_days,
        },
        "valor": amounts,
    }


def _debtor(payer: parties.Parties | None) -> dict[str, str] | None:
    """Name and document, as much as a cobv asks for; None where it could not be named."""
    if payer is None or not payer.debtor_name.strip():
        return None
    name = payer.debtor_name.strip()[:200]
    if payer.debtor_document_type == "CPF" and re.fullmatch(r"[0-9]{11}", payer.debtor_document):
        return {"cpf": payer.debtor_document, "nome": name}
    if payer.debtor_document_type == "CNPJ" and re.fullmatch(r"[0-9A-Z]{14}", payer.debtor_document):
        return {"cnpj": payer.debtor_document, "nome": name}
    return None


def _object(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise PixUnavailable(f"the bank answers {answer.status_code} with something that is not of the API")
    return found
