"""python -m recupera_check URL: the small journey through a gateway, with the token in RECUPERA_CHECK_TOKEN."""

import argparse
import os
import sys

import recupera_check


def main() -> None:
    """Run it; 1 and the reason when the installation does not do what it must."""
    parser = argparse.ArgumentParser(prog="python -m recupera_check", description=__doc__)
    parser.add_argument("url", help="of the gateway, e.g. http://recupera-gateway")
    chosen = parser.parse_args()
    token = os.environ.get("RECUPERA_CHECK_TOKEN", "").strip()
    if not token:
        sys.exit("RECUPERA_CHECK_TOKEN is not set: a token of an agency kept for checks")
    try:
        recupera_check.Check(
            base_url=chosen.url, token=token, say=lambda line: print(f"ok    {line}", flush=True)
        ).run()
    except recupera_check.CheckFailed as failed:
        sys.exit(f"FAILED {failed}")


if __name__ == "__main__":
    main()
