"""Development keys and tokens."""

from pathlib import Path

import pytest

from recupera_local import agencies, ports, tokens
from servicekit import auth


def test_a_token_is_believed_by_the_services(tmp_path: Path) -> None:
    tokens.ensure(tmp_path)
    verifier = auth.Verifier(tokens.jwks_file(tmp_path))
    caller = verifier.verify(tokens.issue(tmp_path, agency=agencies.demo().id, scopes=["case.read"]))
    assert caller.agency == agencies.demo().id
    assert caller.scopes == {"case.read"}
    assert caller.service is None


def test_keys_are_made_once_and_are_private(tmp_path: Path) -> None:
    tokens.ensure(tmp_path)
    token = tokens.issue(tmp_path, agency=agencies.demo().id)
    tokens.ensure(tmp_path)
    assert auth.Verifier(tokens.jwks_file(tmp_path)).verify(token)
    for owner in ("issuer", *ports.SERVICES):
        assert tokens.key_file(tmp_path, owner).stat().st_mode & 0o077 == 0


def test_every_service_has_a_key_of_its_own(tmp_path: Path) -> None:
    tokens.ensure(tmp_path)
    verifier = auth.Verifier(tokens.jwks_file(tmp_path))
    for service in ports.SERVICES:
        signer = auth.Signer(service, tokens.key_file(tmp_path, service))
        assert verifier.verify(signer.token(agencies.demo().id)).service == service


def test_command_prints_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECUPERA_LOCAL_DIR", str(tmp_path))
    assert tokens.main(["--agency", "lisboa", "--scope", "case.read", "--scope", "notify.read"]) == 0
    verifier = auth.Verifier(tokens.jwks_file(tokens.folder()))
    caller = verifier.verify(capsys.readouterr().out.strip())
    assert caller.agency == agencies.all_agencies()["lisboa"].id
    assert caller.scopes == {"case.read", "notify.read"}
