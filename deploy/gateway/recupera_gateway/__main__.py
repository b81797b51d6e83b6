"""python -m recupera_gateway --out FOLDER: Envoy's configuration and the descriptor set it reads, for a pod's Envoy.

Addresses are those the services use themselves (RECUPERA_CASE_ADDRESS, ..); a service without one is not routed.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

import recupera_gateway


def main() -> None:
    """Write envoy.yaml and descriptor.pb into the folder."""
    parser = argparse.ArgumentParser(prog="python -m recupera_gateway", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder that Envoy reads")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--admin-port", type=int, default=9901, help="on 127.0.0.1: of the pod itself")
    parser.add_argument("--metrics-port", type=int, default=9464, help="GET /stats/prometheus, nothing else")
    parser.add_argument(
        "--kubelet-port", type=int, default=9902, help="GET /started, /ready, and /drain before Envoy ends"
    )
    parser.add_argument("--calls-per-second", type=int, default=5000, help="of each caller (`sub`)")
    parser.add_argument("--burst", type=int, default=10000)
    parser.add_argument(
        "--cors-origin", action="append", default=[], help="regular expression; may be repeated"
    )
    parser.add_argument(
        "--drain-least", type=int, default=5, help="seconds in which load balancers learn of it"
    )
    parser.add_argument("--drain-longest", type=int, default=50, help="seconds that calls in hand may take")
    chosen = parser.parse_args()
    jwks = os.environ.get("RECUPERA_JWKS_FILE", "")
    if not os.access(jwks, os.R_OK):
        sys.exit("RECUPERA_JWKS_FILE: expected a JWKS file with the issuer's public keys")
    ending = "_ADDRESS"
    addresses = {
        name.removeprefix("RECUPERA_").removesuffix(ending).lower(): address
        for name, address in os.environ.items()
        if name.startswith("RECUPERA_") and name.endswith(ending)
    }
    known = {method.cluster for method in recupera_gateway.public_methods()}
    chosen.out.mkdir(parents=True, exist_ok=True)
    descriptor = chosen.out / "descriptor.pb"
    shutil.copyfile(recupera_gateway.DESCRIPTOR, descriptor)
    settings = recupera_gateway.Settings(
        port=chosen.port,
        admin_port=chosen.admin_port,
        address="0.0.0.0",  # noqa: S104 -- a pod's own address
        addresses={name: address for name, address in addresses.items() if name in known},
        jwks=Path(jwks),
        descriptor=descriptor,
        calls_per_second=chosen.calls_per_second,
        burst=chosen.burst,
        cors_origins=chosen.cors_origin,
        health_interval=2,
        pod=recupera_gateway.Pod(
            metrics_port=chosen.metrics_port,
            kubelet_port=chosen.kubelet_port,
            least=chosen.drain_least,
            longest=chosen.drain_longest,
        ),
    )
    (chosen.out / "envoy.yaml").write_text(recupera_gateway.render(settings))
    sys.stdout.write(f"{', '.join(sorted(settings.addresses))}: configuration in {chosen.out}\n")


if __name__ == "__main__":
    main()
