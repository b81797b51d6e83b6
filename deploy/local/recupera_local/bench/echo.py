"""The bare gRPC server beside which GetCase is measured: grpcio, four threads, a method that answers its own bytes.

It stands where the dialer would stand (GetCampaign), so that the gateway does for it all that it does for GetCase:
token, scope, rate, JSON. `python -m recupera_local.bench.echo PORT`.
"""

from __future__ import annotations

import sys
from concurrent import futures

import grpc

THREADS = 4
SERVING = b"\x08\x01"  # grpc.health.v1.HealthCheckResponse(status=SERVING)


class Echo(grpc.GenericRpcHandler):
    """GetCampaign answers what it got (both messages have the name as field 1); health answers SERVING."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """The handler of a path."""
        return {
            "/recupera.dialer.v1.DialerService/GetCampaign": _ECHO,
            "/grpc.health.v1.Health/Check": _HEALTHY,
        }.get(details.method)


def _answer_itself(request: bytes, _context: grpc.ServicerContext) -> bytes:
    return request


def _answer_serving(_request: bytes, _context: grpc.ServicerContext) -> bytes:
    return SERVING


_ECHO: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(_answer_itself)
_HEALTHY: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(_answer_serving)


def main() -> None:
    """Serve until killed."""
    server = grpc.server(futures.ThreadPoolExecutor(THREADS), handlers=[Echo()])
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
