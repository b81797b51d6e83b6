"""Who calls: JSON Web Tokens signed with Ed25519 (alg EdDSA), verified against one JWKS file (architecture.md
§8).

The file holds the public key of the issuer of people's and creditor systems' tokens and one of each service.
Every key has a `kid` and, as a member of ours, `iss`: a token is only believed when its `iss` is its key's.
So a service's key cannot make a user's token, and the gateway, which accepts the issuer `recupera` alone,
lets no service token in.

Claims: iss, sub, aud="recupera", exp, iat, agency (UUID), scope (separated by spaces), roles (list,
optional), creditor (UUID, optional: the token is bound to one creditor). Token times are the machine's, not
the agency's.
"""

import dataclasses
import datetime
import json
import logging
import os
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from jwt.algorithms import OKPAlgorithm

from servicekit import errors, ids, settings

ALGORITHM = "EdDSA"
AUDIENCE = "recupera"
ISSUER = "recupera"
"""`iss` of the tokens of people and of creditors' systems."""
SERVICE_ISSUER = "recupera/"
"""`iss` of a service's tokens is this and the service's name."""
INTERNAL = "internal"
"""The scope of service tokens; no other token can have it."""
SERVICE_TOKEN_SECONDS = 60
MAX_TOKEN = 8_192
MAX_CACHED = 10_000

_log = logging.getLogger(__name__)


class TokenMissing(errors.ServiceError):
    """The call has no `authorization: Bearer ...`."""

    status = errors.Status.UNAUTHENTICATED


class TokenInvalid(errors.ServiceError):
    """The token is not one of ours: signature, key, issuer, audience or claims."""

    status = errors.Status.UNAUTHENTICATED


class TokenExpired(errors.ServiceError):
    """The token was good and is over: get a new one."""

    status = errors.Status.UNAUTHENTICATED


@dataclasses.dataclass(frozen=True, slots=True)
class Caller:
    """Who a verified token speaks for. `creditor`: everything is limited to it. `service`: the calling
    service's name.
    """

    subject: str
    agency: UUID
    scopes: frozenset[str]
    roles: frozenset[str]
    creditor: UUID | None
    service: str | None


@dataclasses.dataclass(frozen=True)
class Key:
    """A private key and the issuer whose tokens it signs."""

    kid: str
    issuer: str
    private: Ed25519PrivateKey = dataclasses.field(repr=False)

    def public_jwk(self) -> dict[str, Any]:
        """The member of a JWKS that verifies this key's tokens."""
        return {**OKPAlgorithm.to_jwk(self.private.public_key(), as_dict=True), **self._members()}

    def private_jwk(self) -> dict[str, Any]:
        """The content of a key file."""
        return {**OKPAlgorithm.to_jwk(self.private, as_dict=True), **self._members()}

    def _members(self) -> dict[str, str]:
        return {"kid": self.kid, "iss": self.issuer, "alg": ALGORITHM, "use": "sig"}


def generate_key(issuer: str = ISSUER) -> Key:
    """A new key for `ISSUER`, or for a service: `generate_key(SERVICE_ISSUER + "case")`."""
    return Key(kid=str(ids.new()), issuer=issuer, private=Ed25519PrivateKey.generate())


def write_key(path: Path, key: Key) -> None:
    """Write the private key as JWK, readable by the owner only; an old file is replaced in one step."""
    _write(path, key.private_jwk(), 0o600)


def write_jwks(path: Path, keys: Iterable[Key]) -> None:
    """Write the public keys as a JWKS; running verifiers take it up with the next token they do not know."""
    _write(path, {"keys": [key.public_jwk() for key in keys]}, 0o644)


def read_key(path: Path) -> Key:
    """Read a private key written by `write_key`. Raises SettingInvalid naming RECUPERA_SERVICE_KEY_FILE."""
    try:
        jwk = json.loads(path.read_text())
        private = OKPAlgorithm.from_jwk(jwk)
        if not isinstance(private, Ed25519PrivateKey):
            raise TypeError("not a private Ed25519 key")
        return Key(kid=jwk["kid"], issuer=jwk["iss"], private=private)
    except (OSError, ValueError, TypeError, KeyError, jwt.InvalidKeyError) as error:
        raise settings.SettingInvalid(
            f"RECUPERA_SERVICE_KEY_FILE: {path} holds no Ed25519 private JWK with kid and iss"
            f" ({type(error).__name__}): make one with the development command or the identity service",
            "RECUPERA_SERVICE_KEY_FILE",
        ) from None


def read_jwks(path: Path) -> dict[str, tuple[str, Ed25519PublicKey]]:
    """Issuer and public key by `kid`. Raises SettingInvalid naming RECUPERA_JWKS_FILE."""
    try:
        keys: dict[str, tuple[str, Ed25519PublicKey]] = {}
        for jwk in json.loads(path.read_text())["keys"]:
            public = OKPAlgorithm.from_jwk(jwk)
            if not isinstance(public, Ed25519PublicKey):
                raise TypeError("not a public Ed25519 key")
            keys[jwk["kid"]] = (jwk["iss"], public)
    except (OSError, ValueError, TypeError, KeyError, jwt.InvalidKeyError) as error:
        raise settings.SettingInvalid(
            f"RECUPERA_JWKS_FILE: {path} is not a JWKS of public Ed25519 keys with kid and iss"
            f" ({type(error).__name__}): write it again with the development command or identity",
            "RECUPERA_JWKS_FILE",
        ) from None
    return keys


def issue(
    key: Key,
    *,
    subject: str,
    agency: UUID,
    scopes: Sequence[str],
    roles: Sequence[str] = (),
    creditor: UUID | None = None,
    lifetime: datetime.timedelta = datetime.timedelta(hours=1),
    now: float | None = None,
) -> str:
    """A signed token. `now` is seconds since the epoch on the machine's clock, default: at this moment."""
    issued = int(time.time() if now is None else now)
    claims: dict[str, Any] = {
        "iss": key.issuer,
        "sub": subject,
        "aud": AUDIENCE,
        "iat": issued,
        "exp": issued + int(lifetime.total_seconds()),
        "agency": str(agency),
        "scope": " ".join(scopes),
        "roles": list(roles),
    }
    if creditor is not None:
        claims["creditor"] = str(creditor)
    return jwt.encode(claims, key.private, algorithm=ALGORITHM, headers={"kid": key.kid})


class Signer:
    """Makes the short tokens with which a service calls others: one agency each, scope `internal`, 60
    seconds.
    """

    def __init__(self, service: str, key_file: Path) -> None:
        self._key = read_key(key_file)
        if self._key.issuer != SERVICE_ISSUER + service:
            raise settings.SettingInvalid(
                f"RECUPERA_SERVICE_KEY_FILE: {key_file} is the key of {self._key.issuer!r}, not of"
                f" {SERVICE_ISSUER + service!r}: give the service its own key",
                "RECUPERA_SERVICE_KEY_FILE",
            )
        self._subject = f"services/{service}"
        self._tokens: dict[UUID, tuple[str, float]] = {}

    def token(self, agency: UUID) -> str:
        """A token for `agency` that is good for at least 30 seconds more."""
        now = time.time()
        found = self._tokens.get(agency)
        if found is not None and found[1] > now:
            return found[0]
        lifetime = datetime.timedelta(seconds=SERVICE_TOKEN_SECONDS)
        token = issue(
            self._key, subject=self._subject, agency=agency, scopes=[INTERNAL], lifetime=lifetime, now=now
        )
        if len(self._tokens) >= MAX_CACHED:
            self._tokens.clear()
        self._tokens[agency] = (token, now + SERVICE_TOKEN_SECONDS / 2)
        return token


class Verifier:
    """Turns tokens into Callers. A verified token is remembered until it expires or the JWKS file changes.
    Thread safe.
    """

    def __init__(self, jwks_file: Path) -> None:
        self._file = jwks_file
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Caller, float]] = {}
        self._stamp = self._stat()
        self._keys = self._load()

    def verify(self, token: str) -> Caller:
        """The caller that the token (without `Bearer `) speaks for. Raises TokenExpired, TokenInvalid."""
        found = self._known.get(token)
        if found is not None and found[1] > time.time():
            return found[0]
        return self._verify(token)

    def _verify(self, token: str) -> Caller:
        self._refresh()
        self._known.pop(token, None)
        if len(token) > MAX_TOKEN:
            raise TokenInvalid("the token is too long")
        known, keys = self._known, self._keys
        try:
            key = keys.get(jwt.get_unverified_header(token).get("kid", ""))
            if key is None:
                raise TokenInvalid("the token is signed with a key that is not known here")
            issuer, public = key
            claims = jwt.decode(
                token,
                public,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=issuer,
                options={"require": ["iss", "sub", "aud", "exp", "iat"], "verify_iat": False},
            )
            caller = _caller(claims, issuer)
        except jwt.ExpiredSignatureError:
            raise TokenExpired("the token has expired: get a new one") from None
        except jwt.InvalidTokenError as error:
            raise TokenInvalid(f"the token is not valid: {type(error).__name__}") from None
        except (KeyError, ValueError, TypeError, AttributeError):
            raise TokenInvalid("a claim of the token is missing or malformed") from None
        if len(known) >= MAX_CACHED:
            known.clear()
        known[token] = (caller, float(claims["exp"]))
        return caller

    def _refresh(self) -> None:
        stamp = self._stat()
        if stamp == self._stamp:
            return
        with self._lock:
            if stamp == self._stamp:
                return
            try:
                self._keys = self._load()
                self._known = {}
            except settings.SettingInvalid as error:
                _log.error(
                    "the JWKS file changed and cannot be read; the old keys stay",
                    extra={"problem": str(error)},
                )
            self._stamp = stamp

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._file)  # noqa: PTH116 -- on the path of every new token
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _load(self) -> dict[str, tuple[str, Ed25519PublicKey]]:
        return read_jwks(self._file)


def _caller(claims: dict[str, Any], issuer: str) -> Caller:
    service = issuer.removeprefix(SERVICE_ISSUER) if issuer.startswith(SERVICE_ISSUER) else None
    scopes = frozenset(claims["scope"].split())
    if INTERNAL in scopes and service is None:
        raise ValueError("the scope `internal` is for services' keys")
    if service is not None and scopes != {INTERNAL}:
        raise ValueError("a service's key signs the scope `internal` and nothing else")
    creditor = claims.get("creditor")
    return Caller(
        subject=claims["sub"],
        agency=UUID(claims["agency"]),
        scopes=scopes,
        roles=frozenset(str(role) for role in claims.get("roles") or ()),
        creditor=UUID(creditor) if creditor is not None else None,
        service=service,
    )


def _write(path: Path, content: dict[str, Any], mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file, indent=2)
    scratch.replace(path)
