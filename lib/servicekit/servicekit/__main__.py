"""What is of no single service: the topics of topics.yaml at Kafka, rights there, and the keys that sign tokens.

python -m servicekit topics [--replication N --min-insync N] [--check]
python -m servicekit acls
python -m servicekit keys FOLDER [--renew OWNER | --forget KID]
python -m servicekit token FOLDER --agency ID --subject NAME --scope SCOPE [--creditor ID] [--hours N]
"""

import argparse
import datetime
import sys
from pathlib import Path
from uuid import UUID

import yaml

from servicekit import acls, kafka, keys, settings


def main() -> None:
    """Run one command; 1 and a line that says why when it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m servicekit")
    commands = parser.add_subparsers(dest="command", required=True)
    topics = commands.add_parser(
        "topics", help="create missing topics; report those that differ, never change them"
    )
    topics.add_argument("--replication", type=int, help="copies of each partition; default the broker's")
    topics.add_argument("--min-insync", type=int, help="copies that must have a record; default the broker's")
    topics.add_argument("--check", action="store_true", help="create nothing; 1 when anything differs")
    commands.add_parser(
        "acls", help="what each user of Kafka must be allowed, as Strimzi's KafkaUser says it"
    )
    making = commands.add_parser("keys", help="make the keys that are missing in a folder, and its JWKS")
    making.add_argument("folder", type=Path, help="private keys and jwks.json; keep it as a secret")
    change = making.add_mutually_exclusive_group()
    change.add_argument("--renew", metavar="OWNER", help="issuer or a service: a new key, the old stays good")
    change.add_argument("--forget", metavar="KID", help="a key that signs no more: not believed from now on")
    token = commands.add_parser("token", help="print a token signed with the issuer's key")
    token.add_argument("folder", type=Path, help="with the issuer's key")
    token.add_argument("--agency", type=UUID, required=True, help="id of the agency")
    token.add_argument("--subject", required=True, help="who calls, e.g. systems/erp or users/ana")
    token.add_argument("--scope", action="append", required=True, help="e.g. case.read; may be repeated")
    token.add_argument("--creditor", type=UUID, help="bind the token to one creditor")
    token.add_argument("--hours", type=float, default=1.0, help="how long it is good (default: 1)")
    chosen = parser.parse_args()
    match chosen.command:
        case "topics":
            _topics(chosen)
        case "acls":
            _acls()
        case "keys":
            _keys(chosen)
        case "token":
            _token(chosen)


def _topics(chosen: argparse.Namespace) -> None:
    durability = None
    if (chosen.replication is None) != (chosen.min_insync is None):
        sys.exit("expected --replication and --min-insync together")
    if chosen.replication is not None:
        if not 1 <= chosen.min_insync <= chosen.replication:
            sys.exit("expected --min-insync from 1 to --replication")
        durability = kafka.Durability(replication=chosen.replication, min_insync=chosen.min_insync)
    try:
        brokers = settings.load(settings.Brokers)
        if not chosen.check:
            for name in kafka.create_missing(brokers, durability=durability):
                sys.stdout.write(f"created {name}\n")
        lines = kafka.drift(brokers, durability=durability)
    except (ValueError, settings.SettingsError) as error:
        sys.exit(str(error))
    except kafka.Unavailable as error:
        sys.exit(f"Kafka at {brokers.bootstrap}: {error}")
    sys.stdout.write("".join(f"differs: {line}\n" for line in lines) or "topics are as topics.yaml says\n")
    sys.exit(1 if chosen.check and lines else 0)


def _acls() -> None:
    users = {user: [rule.as_strimzi() for rule in rules] for user, rules in acls.all_users().items()}
    yaml.safe_dump(users, sys.stdout, sort_keys=False)


def _keys(chosen: argparse.Namespace) -> None:
    try:
        if chosen.renew:
            old, new = keys.renew(chosen.folder, chosen.renew)
            sys.stdout.write(f"{chosen.renew} signs with {new}; {old} stays good until it is forgotten\n")
        elif chosen.forget:
            sys.stdout.write(f"{chosen.forget} of {keys.forget(chosen.folder, chosen.forget)}: forgotten\n")
        else:
            made = keys.ensure(chosen.folder, keys.services())
            sys.stdout.write(f"made: {', '.join(made) or 'nothing, all are there'}\n")
        for kid, key in keys.published(chosen.folder).items():
            sys.stdout.write(f"{kid} {key['iss']}\n")
    except (keys.KeyUnknown, keys.KeyStillSigns, settings.SettingsError, OSError) as error:
        sys.exit(str(error))


def _token(chosen: argparse.Namespace) -> None:
    try:
        signed = keys.token(
            chosen.folder,
            agency=chosen.agency,
            subject=chosen.subject,
            scopes=chosen.scope,
            creditor=chosen.creditor,
            lifetime=datetime.timedelta(hours=chosen.hours),
        )
    except settings.SettingsError as error:
        sys.exit(str(error))
    sys.stdout.write(f"{signed}\n")


if __name__ == "__main__":
    main()
