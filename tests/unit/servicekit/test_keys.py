"""The keys that sign tokens: made, renewed without a refused call, forgotten; by function and by command."""

import json
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from recupera_local import ports
from servicekit import auth, keys

AGENCY = uuid.UUID("01980000-0000-7000-8000-000000000001")


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "servicekit", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_makes_what_the_two_secrets_hold(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    done = command("keys", str(folder))
    assert done.returncode == 0, done.stderr
    assert {file.name for file in folder.iterdir()} == {
        "issuer.json",
        "jwks.json",
        *(f"{service}.json" for service in ports.SERVICES),
    }
    assert folder.stat().st_mode & 0o077 == 0
    verifier = auth.Verifier(folder / keys.JWKS)
    for service in ports.SERVICES:
        signer = auth.Signer(service, keys.file_of(folder, service))
        assert verifier.verify(signer.token(AGENCY)).service == service
    assert "private" not in (folder / keys.JWKS).read_text()
    assert all("d" not in key for key in json.loads((folder / keys.JWKS).read_text())["keys"])

    made = {file.name: file.read_bytes() for file in folder.iterdir()}
    again = command("keys", str(folder))
    assert "nothing, all are there" in again.stdout
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == made


def test_the_command_prints_a_token_of_one_agency(tmp_path: Path) -> None:
    keys.ensure(tmp_path, ports.SERVICES)
    creditor = uuid.uuid4()
    asked = ["--agency", str(AGENCY), "--subject", "systems/erp", "--creditor", str(creditor)]
    done = command("token", str(tmp_path), *asked, "--scope", "case.read", "--scope", "import.write")
    assert done.returncode == 0, done.stderr
    caller = auth.Verifier(tmp_path / keys.JWKS).verify(done.stdout.strip())
    assert (caller.agency, caller.subject, caller.creditor) == (AGENCY, "systems/erp", creditor)
    assert caller.scopes == {"case.read", "import.write"}


def test_without_the_issuers_key_there_is_no_token(tmp_path: Path) -> None:
    done = command("token", str(tmp_path), "--agency", str(AGENCY), "--subject", "x", "--scope", "case.read")
    assert done.returncode == 1
    assert "issuer.json" in done.stderr


def test_a_renewed_key_and_the_one_before_are_good_until_that_is_forgotten(tmp_path: Path) -> None:
    keys.ensure(tmp_path, ports.SERVICES)
    verifier = auth.Verifier(tmp_path / keys.JWKS)
    before = auth.Signer("case", keys.file_of(tmp_path, "case")).token(AGENCY)
    old, new = keys.renew(tmp_path, "case")
    after = auth.Signer("case", keys.file_of(tmp_path, "case")).token(AGENCY)
    assert verifier.verify(before).service == verifier.verify(after).service == "case"

    with pytest.raises(keys.KeyStillSigns):
        keys.forget(tmp_path, new)
    assert keys.forget(tmp_path, old) == "recupera/case"
    newest = auth.Signer("case", keys.file_of(tmp_path, "case")).token(uuid.uuid4())
    assert verifier.verify(newest).service == "case"  # the first new token makes it read the file again
    with pytest.raises(auth.TokenInvalid):
        verifier.verify(before)
    assert set(keys.published(tmp_path)) == {
        auth.read_key(keys.file_of(tmp_path, owner)).kid for owner in (keys.ISSUER, *ports.SERVICES)
    }


def test_the_command_says_which_key_it_does_not_know(tmp_path: Path) -> None:
    keys.ensure(tmp_path, ports.SERVICES)
    for wrong in (("--renew", "nobody"), ("--forget", "unknown-kid")):
        done = command("keys", str(tmp_path), *wrong)
        assert done.returncode == 1
        assert wrong[1] in done.stderr


def test_the_issuer_is_renewed_like_a_service(tmp_path: Path) -> None:
    keys.ensure(tmp_path, ports.SERVICES)
    done = command("keys", str(tmp_path), "--renew", "issuer")
    assert done.returncode == 0, done.stderr
    issuers = [key["iss"] for key in keys.published(tmp_path).values()]
    assert issuers.count(auth.ISSUER) == 2
