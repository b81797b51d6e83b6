"""A token is believed only when its key's issuer made it, for us, and in time."""

import base64
import dataclasses
import datetime
import json
import stat
import time
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest

from servicekit import auth, settings
from support import echo, waiting

AGENCY = UUID("01890000-0000-7000-8000-000000000001")


@pytest.fixture
def keys(tmp_path: Path) -> echo.Keys:
    """Keys of the issuer and two services."""
    return echo.Keys(tmp_path)


@pytest.fixture
def verifier(keys: echo.Keys) -> auth.Verifier:
    """Reads their JWKS."""
    return auth.Verifier(keys.jwks_file)


def test_a_persons_token(keys: echo.Keys, verifier: auth.Verifier) -> None:
    creditor = uuid4()
    token = auth.issue(
        keys.issuer,
        subject="users/1",
        agency=AGENCY,
        scopes=["case.read", "case.write"],
        roles=["collector"],
        creditor=creditor,
    )
    who = verifier.verify(token)
    assert who == auth.Caller(
        subject="users/1",
        agency=AGENCY,
        scopes=frozenset({"case.read", "case.write"}),
        roles=frozenset({"collector"}),
        creditor=creditor,
        service=None,
    )
    assert verifier.verify(token) is who, "a verified token is not verified again"


def test_a_services_token(keys: echo.Keys, verifier: auth.Verifier) -> None:
    signer = keys.signer("other")
    who = verifier.verify(signer.token(AGENCY))
    assert (who.service, who.scopes, who.agency, who.subject) == (
        "other",
        {"internal"},
        AGENCY,
        "services/other",
    )
    assert signer.token(AGENCY) == signer.token(AGENCY)
    assert verifier.verify(signer.token(uuid4())).agency != AGENCY
    claims = jwt.decode(signer.token(AGENCY), options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 60


def test_expired_now_and_expired_while_remembered(keys: echo.Keys, verifier: auth.Verifier) -> None:
    with pytest.raises(auth.TokenExpired):
        verifier.verify(keys.token(AGENCY, now=time.time() - 3_601))
    token = keys.token(AGENCY, lifetime=datetime.timedelta(seconds=2))
    assert verifier.verify(token).agency == AGENCY

    def expired() -> bool:
        try:
            verifier.verify(token)
        except auth.TokenExpired:
            return True
        return False

    waiting.until(expired, what="the remembered token to expire")


def _resigned(keys: echo.Keys, key: auth.Key | None = None, kid: str | None = None, **changes: Any) -> str:
    signing = key or keys.issuer
    claims = jwt.decode(keys.token(AGENCY), options={"verify_signature": False}) | changes
    claims = {name: value for name, value in claims.items() if value is not ...}
    return jwt.encode(claims, signing.private, algorithm="EdDSA", headers={"kid": kid or signing.kid})


def test_what_is_not_believed(keys: echo.Keys, verifier: auth.Verifier) -> None:
    stranger = auth.generate_key()
    service = keys.services["other"]
    good = keys.token(AGENCY)
    header, payload, signature = good.split(".")
    none = (
        base64.urlsafe_b64encode(b'{"alg":"none","kid":"' + keys.issuer.kid.encode() + b'"}')
        .decode()
        .rstrip("=")
    )
    public = json.dumps(keys.issuer.public_jwk()).encode()
    bad = {
        "empty": "",
        "garbage": "abc",
        "dots": "a.b.c",
        "not ascii": "ção.ção.ção",
        "long": "a" * 10_000,
        "unsigned": f"{none}.{payload}.",
        "tampered": f"{header}.{payload}.{'A' * len(signature)}",
        "hmac with the public key": jwt.encode(
            {"sub": "x"}, base64.b64encode(public).decode() * 2, "HS256", headers={"kid": keys.issuer.kid}
        ),
        "stranger": _resigned(keys, stranger),
        "stranger with our kid": _resigned(keys, stranger, kid=keys.issuer.kid),
        "kid is no text": jwt.encode({"sub": "x"}, stranger.private, "EdDSA", headers={"kid": "\0"}),
        "audience": _resigned(keys, aud="other"),
        "no audience": _resigned(keys, aud=...),
        "issuer": _resigned(keys, iss="else"),
        "no expiry": _resigned(keys, exp=...),
        "no subject": _resigned(keys, sub=...),
        "agency": _resigned(keys, agency="x"),
        "agency is no text": _resigned(keys, agency=7),
        "no agency": _resigned(keys, agency=...),
        "scope is no text": _resigned(keys, scope=["a"]),
        "no scope": _resigned(keys, scope=...),
        "roles": _resigned(keys, roles=7),
        "creditor": _resigned(keys, creditor="x"),
        "creditor empty": _resigned(keys, creditor=""),
        "a person's token with the services' scope": _resigned(keys, scope="case.read internal"),
        "a service's key for a person's token": _resigned(keys, service, iss=auth.ISSUER),
        "a service with more than its scope": _resigned(
            keys, service, iss=service.issuer, scope="internal case.admin"
        ),
        "a service without its scope": _resigned(keys, service, iss=service.issuer, scope="case.admin"),
        "a service in another's name": _resigned(
            keys, service, iss=auth.SERVICE_ISSUER + "case", scope="internal"
        ),
    }
    believed = []
    for what, token in bad.items():
        try:
            verifier.verify(token)
        except auth.TokenInvalid:
            continue
        believed.append(what)
    assert believed == []
    assert verifier.verify(good)


def test_keys_change_while_running(
    keys: echo.Keys, verifier: auth.Verifier, caplog: pytest.LogCaptureFixture
) -> None:
    old = keys.token(AGENCY)
    verifier.verify(old)
    keys.issuer = auth.generate_key()
    keys.publish()
    verifier.verify(keys.token(AGENCY))
    with pytest.raises(auth.TokenInvalid):
        verifier.verify(old)
    keys.jwks_file.write_text("{")
    verifier.verify(keys.token(uuid4()))
    assert "the old keys stay" in caplog.text
    keys.jwks_file.unlink()
    verifier.verify(keys.token(uuid4()))


def test_key_files(keys: echo.Keys, tmp_path: Path) -> None:
    path = keys.key_file("echo")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    read = auth.read_key(path)
    assert (read.kid, read.issuer) == (keys.services["echo"].kid, "recupera/echo")
    assert "private" not in repr(read)
    assert "d" not in keys.issuer.public_jwk()
    with pytest.raises(settings.SettingInvalid, match="is the key of 'recupera/echo'"):
        auth.Signer("case", path)
    bad = tmp_path / "bad.json"
    for content in (
        "",
        "{}",
        "[]",
        json.dumps(keys.issuer.public_jwk()),
        json.dumps({**keys.issuer.private_jwk(), "kty": "RSA"}),
    ):
        bad.write_text(content)
        with pytest.raises(settings.SettingInvalid, match="RECUPERA_SERVICE_KEY_FILE"):
            auth.read_key(bad)
        with pytest.raises(settings.SettingInvalid, match="RECUPERA_JWKS_FILE"):
            auth.Verifier(bad)


def test_the_memory_of_tokens_is_limited(keys: echo.Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "MAX_CACHED", 3)
    verifier, signer = auth.Verifier(keys.jwks_file), keys.signer()
    for _ in range(10):
        agency = uuid4()
        assert verifier.verify(signer.token(agency)).agency == agency
    assert len(verifier._known) <= 3
    assert len(signer._tokens) <= 3


def test_callers_are_values(keys: echo.Keys, verifier: auth.Verifier) -> None:
    who = verifier.verify(keys.token(AGENCY))
    assert dataclasses.replace(who, subject="x") != who
