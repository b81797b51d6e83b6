"""python -m servicekit topics [--replication N --min-insync N] [--check]: the topics of topics.yaml at Kafka."""

import argparse
import sys

from servicekit import kafka, settings


def main() -> None:
    """Create what is missing and report what differs; 1 when a topic cannot be used as it is."""
    parser = argparse.ArgumentParser(prog="python -m servicekit")
    commands = parser.add_subparsers(dest="command", required=True)
    topics = commands.add_parser(
        "topics", help="create missing topics; report those that differ, never change them"
    )
    topics.add_argument("--replication", type=int, help="copies of each partition; default the broker's")
    topics.add_argument("--min-insync", type=int, help="copies that must have a record; default the broker's")
    topics.add_argument("--check", action="store_true", help="create nothing; 1 when anything differs")
    chosen = parser.parse_args()
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


if __name__ == "__main__":
    main()
