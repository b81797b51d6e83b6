"""A bank that speaks the Pix API 2.9.0: OAuth2 over mutual TLS, charges, problems, and connections that drop.

It follows the published openapi.yaml of bacen/pix-api: patterns of txid and values, required fields, states (only an
active charge can be changed), problem+json with its types. It is ours, so that tests need no bank.
"""

from __future__ import annotations

import base64
import copy
import dataclasses
import datetime
import http.server
import json
import re
import secrets
import ssl
import threading
import urllib.parse
from pathlib import Path
from typing import Any

from agreement_service.domain import pix
from support import certificates

PROBLEMS = "https://pix.bcb.gov.br/api/v2/error"
TXID = re.compile(r"[a-zA-Z0-9]{26,35}")
VALUE = re.compile(r"\d{1,10}\.\d{2}")
SCOPES = {"GET": "read", "PUT": "write", "PATCH": "write"}
REMOVED = "REMOVIDA_PELO_USUARIO_RECEBEDOR"
CLIENT_ID = "recupera"
CLIENT_SECRET = "a secret of the tests"
KEY = "7f1b8f8c-9c1c-4f4e-8f0e-3a1d6b1f2c3d"


@dataclasses.dataclass
class Problem(Exception):
    """An answer as RFC 7807 describes it."""

    status: int
    kind: str
    title: str
    violations: list[dict[str, str]] = dataclasses.field(default_factory=list)


class PixServer:
    """The bank. `today` is its date; `requests` what it was asked, as (method, path); `drop_next` cuts the connection
    after the next write is committed; `fail_next` statuses are answered instead of the next requests; it says
    nothing while it is not `awake`; without `code_given` answers have no pixCopiaECola."""

    def __init__(self, folder: Path, *, today: datetime.date, token_lifetime: int = 3600) -> None:
        self.today = today
        self.token_lifetime = token_lifetime
        self.authority = certificates.Authority(folder)
        client = self.authority.sign("client", "127.0.0.1")
        self.client = (client.certificate, client.key)
        self.charges: dict[str, dict[str, Any]] = {}
        self.kinds: dict[str, str] = {}
        self.tokens: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        self.drop_next = False
        self.fail_next: list[int] = []
        self.code_given = True
        self.lock = threading.Lock()
        self.awake = threading.Event()
        self.awake.set()
        server = self.authority.sign("server", "127.0.0.1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(server.certificate, server.key)
        context.load_verify_locations(self.authority.file)
        context.verify_mode = ssl.CERT_REQUIRED
        bank = self

        class Handler(_Handler):
            pix = bank

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> PixServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def address(self) -> str:
        return f"https://127.0.0.1:{self._server.server_address[1]}"

    def writes(self) -> list[tuple[str, str]]:
        """What it was asked to write."""
        return [one for one in self.requests if one[0] in ("PUT", "PATCH")]

    def pay(self, txid: str) -> None:
        """Somebody paid the charge."""
        with self.lock:
            self.charges[txid]["status"] = "CONCLUIDA"

    def revoke_tokens(self) -> None:
        """Tokens given so far are worth nothing."""
        with self.lock:
            self.tokens.clear()

    # -- what the API says -----------------------------------------------------------------------------------------

    def token(self, authorization: str, form: dict[str, list[str]]) -> dict[str, Any]:
        expected = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        if authorization != f"Basic {expected}" or form.get("grant_type") != ["client_credentials"]:
            raise Problem(401, "AcessoNegado", "client credentials are wrong")
        scope = form.get("scope", [""])[0]
        token = secrets.token_urlsafe(24)
        self.tokens.add(token)
        return {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": self.token_lifetime,
            "scope": scope,
        }

    def put(self, kind: str, txid: str, body: Any) -> tuple[int, dict[str, Any]]:
        name = "CobV" if kind == "cobv" else "Cob"
        if not TXID.fullmatch(txid):
            raise self._invalid(name, "txid", "expected 26 to 35 letters and digits")
        known = self.charges.get(txid)
        if known is not None and (known["status"] != "ATIVA" or self.kinds[txid] != kind):
            raise self._invalid(name, "txid", "the charge exists and is not active")
        self._check(kind, name, body, whole=True)
        charge = copy.deepcopy(body)
        location = f"pix.example.com/qr/v2/{kind}/{txid}"
        charge |= {
            "txid": txid,
            "revisao": known["revisao"] + 1 if known else 0,
            "status": "ATIVA",
            "location": location,
            "loc": {"id": len(self.charges) + 1, "location": location, "tipoCob": kind},
        }
        charge["calendario"] = {"criacao": f"{self.today}T12:00:00Z", **charge["calendario"]}
        if kind == "cobv":
            charge["calendario"].setdefault("validadeAposVencimento", 30)
            charge["recebedor"] = {"cnpj": "16727230000197", "nome": "Recupera"}
        else:
            charge["calendario"].setdefault("expiracao", 86_400)
        if self.code_given:
            charge["pixCopiaECola"] = pix.dynamic_code(location=location, name="Banco", city="BRASILIA")
        self.charges[txid], self.kinds[txid] = charge, kind
        return 201 if known is None else 200, charge

    def patch(self, kind: str, txid: str, body: Any) -> tuple[int, dict[str, Any]]:
        name = "CobV" if kind == "cobv" else "Cob"
        charge = self._find(kind, txid)
        if charge["status"] != "ATIVA":
            raise self._invalid(name, "status", "the charge is not active")
        if not isinstance(body, dict):
            raise self._invalid(name, "body", "expected an object")
        if "status" in body:
            if body["status"] != REMOVED:
                raise self._invalid(name, "status", f"expected {REMOVED}")
            if len(body) > 1:
                raise self._invalid(name, "status", "a removal changes nothing else")
        else:
            self._check(kind, name, body, whole=False)
        charge.update(body)
        charge["revisao"] += 1
        return 200, charge

    def get(self, kind: str, txid: str) -> tuple[int, dict[str, Any]]:
        return 200, self._find(kind, txid)

    def _find(self, kind: str, txid: str) -> dict[str, Any]:
        if txid not in self.charges or self.kinds[txid] != kind:
            raise Problem(
                404, "CobVNaoEncontrada" if kind == "cobv" else "CobNaoEncontrado", "no such charge"
            )
        return self.charges[txid]

    def _check(self, kind: str, name: str, body: Any, *, whole: bool) -> None:
        if not isinstance(body, dict):
            raise self._invalid(name, "body", "expected an object")
        required = {"calendario", "valor", "chave"} | ({"devedor"} if kind == "cobv" else set())
        if whole and (missing := sorted(required - set(body))):
            raise self._invalid(name, missing[0], "is required")
        if "chave" in body and body["chave"] != KEY:
            raise self._invalid(name, "chave", "is of somebody else's account")
        if len(body.get("solicitacaoPagador", "")) > 140:
            raise self._invalid(name, "solicitacaoPagador", "expected at most 140 characters")
        if "valor" in body:
            original = body["valor"].get("original")
            if not isinstance(original, str) or not VALUE.fullmatch(original) or not float(original):
                raise self._invalid(name, "valor.original", "expected an amount above zero")
            for part in ("multa", "juros", "abatimento"):
                rule = body["valor"].get(part)
                if rule is not None and not VALUE.fullmatch(str(rule.get("valorPerc"))):
                    raise self._invalid(name, f"valor.{part}", "expected modalidade and valorPerc")
        if "devedor" in body:
            self._check_debtor(name, body["devedor"])
        if "calendario" in body:
            self._check_calendar(kind, name, body["calendario"])

    def _check_debtor(self, name: str, debtor: Any) -> None:
        documents = [one for one in ("cpf", "cnpj") if one in debtor]
        if len(documents) != 1 or not 1 <= len(debtor.get("nome", "")) <= 200:
            raise self._invalid(name, "devedor", "expected nome and one of cpf and cnpj")
        pattern = r"\d{11}" if documents == ["cpf"] else r"[0-9A-Z]{14}"
        if not re.fullmatch(pattern, debtor[documents[0]]):
            raise self._invalid(name, f"devedor.{documents[0]}", f"expected {pattern}")

    def _check_calendar(self, kind: str, name: str, calendar: Any) -> None:
        if kind == "cob":
            if not isinstance(calendar.get("expiracao", 1), int) or calendar.get("expiracao", 1) <= 0:
                raise self._invalid(name, "calendario.expiracao", "expected more than zero seconds")
            return
        try:
            due = datetime.date.fromisoformat(calendar["dataDeVencimento"])
        except (KeyError, TypeError, ValueError):
            raise self._invalid(name, "calendario.dataDeVencimento", "expected a date") from None
        if due < self.today:
            raise self._invalid(name, "calendario.dataDeVencimento", "is before the charge is made")
        if calendar.get("validadeAposVencimento", 0) < 0:
            raise self._invalid(name, "calendario.validadeAposVencimento", "expected zero or more")

    def _invalid(self, name: str, field: str, reason: str) -> Problem:
        violation = {"razao": reason, "propriedade": field}
        return Problem(400, f"{name}OperacaoInvalida", "the request is invalid", [violation])


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was not let in, or went away: tests look at what the client saw."""


class _Handler(http.server.BaseHTTPRequestHandler):
    pix: PixServer
    protocol_version = "HTTP/1.1"
    timeout = 20

    def do_POST(self) -> None:
        form = urllib.parse.parse_qs(self._body().decode())
        self._answer(lambda: (200, self.pix.token(self.headers.get("Authorization", ""), form)))

    def do_GET(self) -> None:
        self._charge(lambda kind, txid, _: self.pix.get(kind, txid))

    def do_PUT(self) -> None:
        self._charge(self.pix.put)

    def do_PATCH(self) -> None:
        self._charge(self.pix.patch)

    def _charge(self, act: Any) -> None:
        raw = self._body()

        def run() -> tuple[int, dict[str, Any]]:
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if token not in self.pix.tokens:
                raise Problem(401, "AcessoNegado", "the token is not valid")
            found = re.fullmatch(r"/pix/v2/(cob|cobv)/([^/]+)", self.path)
            if found is None:
                raise Problem(404, "NaoEncontrado", "no such address")
            try:
                body = json.loads(raw) if raw else None
            except ValueError:
                raise Problem(400, "RequisicaoInvalida", "expected JSON") from None
            return act(found[1], found[2], body)

        self._answer(run, drop=self.command in ("PUT", "PATCH"))

    def _answer(self, run: Any, *, drop: bool = False) -> None:
        self.pix.awake.wait(10)
        with self.pix.lock:
            self.pix.requests.append((self.command, self.path))
            if self.pix.fail_next and not self.path.startswith("/oauth"):
                status, body = self.pix.fail_next.pop(0), {"detail": "on purpose"}
            else:
                try:
                    status, body = run()
                except Problem as problem:
                    status = problem.status
                    body = {
                        "type": f"{PROBLEMS}/{problem.kind}",
                        "title": problem.title,
                        "status": problem.status,
                        "detail": problem.title,
                        "violacoes": problem.violations,
                    }
            cut = drop and self.pix.drop_next and status < 300
            if cut:
                self.pix.drop_next = False
            data = json.dumps(body).encode()
        if cut:
            self.close_connection = True
            self.connection.close()
            return
        self.send_response(status)
        kind = "application/json" if status < 400 else "application/problem+json"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""
