"""python -m servicekit keys: the keys that sign tokens, as the two Secrets of the chart want them.

A folder holds `issuer.json` (private, of the tokens of people and of creditors' systems), one private key a service
and `jwks.json` with the public half of all. Verifiers know a key by its id, so an old and a new key of one owner are
good side by side: that is how a key is replaced without a refused call (docs/installation/README.md, "Keys").
"""

import datetime
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from servicekit import auth, topics

ISSUER = "issuer"
"""The name of the issuer's key; a service's key has the service's name."""
JWKS = "jwks.json"


class KeyUnknown(Exception):
    """No key has this name, or this id."""


class KeyStillSigns(Exception):
    """A key that signs new tokens cannot be forgotten: renew it first."""


def file_of(folder: Path, owner: str) -> Path:
    """The private key of the issuer or of a service."""
    return folder / f"{owner}.json"


def services() -> tuple[str, ...]:
    """Those that publish, which are all."""
    producers = {topic.producer for topic in topics.catalog().by_name.values()}
    return tuple(sorted(producers - {topics.ANY}))


def ensure(folder: Path, of: Iterable[str]) -> list[str]:
    """Make the keys that are missing, of the issuer and of these services, and `jwks.json`; owners of new keys.

    Keys that `jwks.json` has beside them stay in it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    owners = [ISSUER, *of]
    made = [owner for owner in owners if not file_of(folder, owner).exists()]
    for owner in made:
        auth.write_key(file_of(folder, owner), auth.generate_key(_issuer(owner)))
    _publish(folder, [auth.read_key(file_of(folder, owner)).public_jwk() for owner in owners])
    return made


def renew(folder: Path, owner: str) -> tuple[str, str]:
    """Give the issuer or a service a new key; ids of the old one, which stays good, and of the new one."""
    if not file_of(folder, owner).exists():
        raise KeyUnknown(f"{owner}: there is no {file_of(folder, owner)}")
    old, new = auth.read_key(file_of(folder, owner)), auth.generate_key(_issuer(owner))
    _publish(folder, [old.public_jwk(), new.public_jwk()])  # first: no moment in which a signer is unknown
    auth.write_key(file_of(folder, owner), new)
    return old.kid, new.kid


def forget(folder: Path, kid: str) -> str:
    """Take a key out of `jwks.json`, so that nothing signed with it is believed; whose it was.

    Raises KeyUnknown, KeyStillSigns.
    """
    keys = published(folder)
    if kid not in keys:
        raise KeyUnknown(f"{kid}: not in {folder / JWKS}")
    issuer = str(keys[kid]["iss"])
    signs = file_of(folder, ISSUER if issuer == auth.ISSUER else issuer.removeprefix(auth.SERVICE_ISSUER))
    if signs.exists() and auth.read_key(signs).kid == kid:
        raise KeyStillSigns(f"{kid}: {signs} signs with it; renew it first")
    _write(folder, [key for other, key in keys.items() if other != kid])
    return issuer


def published(folder: Path) -> dict[str, Mapping[str, Any]]:
    """What is in `jwks.json`, by key id."""
    file = folder / JWKS
    if not file.exists():
        return {}
    return {str(key["kid"]): key for key in json.loads(file.read_text())["keys"]}


def token(
    folder: Path,
    *,
    agency: UUID,
    subject: str,
    scopes: Sequence[str],
    lifetime: datetime.timedelta,
    creditor: UUID | None = None,
) -> str:
    """A token signed with the issuer's key. Raises SettingInvalid when there is none."""
    return auth.issue(
        auth.read_key(file_of(folder, ISSUER)),
        agency=agency,
        subject=subject,
        scopes=scopes,
        creditor=creditor,
        lifetime=lifetime,
    )


def _issuer(owner: str) -> str:
    return auth.ISSUER if owner == ISSUER else auth.SERVICE_ISSUER + owner


def _publish(folder: Path, keys: Iterable[Mapping[str, Any]]) -> None:
    together = published(folder) | {str(key["kid"]): key for key in keys}
    _write(folder, together.values())


def _write(folder: Path, keys: Iterable[Mapping[str, Any]]) -> None:
    scratch = folder / f".{JWKS}.{os.getpid()}"
    scratch.write_text(json.dumps({"keys": list(keys)}, indent=2))
    scratch.replace(folder / JWKS)
