"""Development keys, made once, and tokens signed with them: `make token`, `python -m recupera_local.tokens --help`.

The folder holds the issuer's key, one key a service, and jwks.json with the public half of all, which Envoy and every
service read. The identity service will issue tokens later; nothing else changes then.
"""

import argparse
import datetime
import sys
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from recupera_local import agencies, paths, ports
from servicekit import auth
from servicekit import keys as kit_keys

ALL_SCOPES = tuple(f"{service}.{right}" for service in ports.SERVICES for right in ("read", "write", "admin"))


def folder() -> Path:
    """Where the keys of `make run` are."""
    return paths.local() / "keys"


def jwks_file(keys: Path) -> Path:
    """The public keys."""
    return keys / kit_keys.JWKS


def key_file(keys: Path, owner: str) -> Path:
    """The private key of the issuer ("issuer") or of a service ("case")."""
    return kit_keys.file_of(keys, owner)


def ensure(keys: Path) -> None:
    """Make the keys that are missing, and the JWKS of all."""
    kit_keys.ensure(keys, ports.SERVICES)


def issue(
    keys: Path,
    *,
    agency: UUID,
    subject: str = "users/developer",
    scopes: Sequence[str] = ALL_SCOPES,
    roles: Sequence[str] = (),
    creditor: UUID | None = None,
    lifetime: datetime.timedelta = datetime.timedelta(hours=12),
) -> str:
    """A token as the identity service would issue it."""
    return auth.issue(
        auth.read_key(key_file(keys, "issuer")),
        subject=subject,
        agency=agency,
        scopes=scopes,
        roles=roles,
        creditor=creditor,
        lifetime=lifetime,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a token for calls to the local platform."""
    known = agencies.all_agencies()
    parser = argparse.ArgumentParser(prog="python -m recupera_local.tokens", description=main.__doc__)
    parser.add_argument(
        "--agency", default="demo", help=f"one of {', '.join(known)}, or an id (default: demo)"
    )
    parser.add_argument("--subject", default="users/developer", help="who is calling")
    parser.add_argument("--scope", action="append", help="e.g. case.read; may be repeated (default: all)")
    parser.add_argument("--creditor", type=UUID, help="bind the token to one creditor")
    parser.add_argument("--hours", type=float, default=12, help="how long it is good (default: 12)")
    chosen = parser.parse_args(arguments)
    ensure(folder())
    token = issue(
        folder(),
        agency=known[chosen.agency].id if chosen.agency in known else UUID(chosen.agency),
        subject=chosen.subject,
        scopes=chosen.scope or ALL_SCOPES,
        creditor=chosen.creditor,
        lifetime=datetime.timedelta(hours=chosen.hours),
    )
    print(token)
    return 0


if __name__ == "__main__":
    sys.exit(main())
