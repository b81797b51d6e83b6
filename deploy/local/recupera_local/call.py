"""A call by native gRPC from the command line, with JSON in and out; the contracts come from descriptor.pb.

python -m recupera_local.call HOST:PORT recupera.case.v1.CaseService/GetCase '{"name": ".."}' AUTHORIZATION_FILE
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

from recupera_local import paths


def call(
    *, address: str, method: str, request: str, authorization: str, timeout: float = 10.0
) -> Iterator[str]:
    """The answers as JSON texts. Raises grpc.RpcError, json_format.ParseError, or KeyError on an unknown method."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(paths.DESCRIPTOR.read_bytes()).file:
        pool.Add(file)
    service, _, name = method.partition("/")
    described = pool.FindServiceByName(service).methods_by_name[name]
    question = json_format.Parse(
        request, message_factory.GetMessageClass(described.input_type)(), descriptor_pool=pool
    )
    with grpc.insecure_channel(address) as channel:
        start = channel.unary_stream(
            f"/{service}/{name}",
            request_serializer=type(question).SerializeToString,
            response_deserializer=message_factory.GetMessageClass(described.output_type).FromString,
        )
        for answer in start(question, metadata=[("authorization", authorization)], timeout=timeout):
            yield json_format.MessageToJson(answer, descriptor_pool=pool)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make one call."""
    parser = argparse.ArgumentParser(prog="python -m recupera_local.call", description=main.__doc__)
    parser.add_argument("address", metavar="HOST:PORT")
    parser.add_argument("method", metavar="SERVICE/METHOD")
    parser.add_argument("request", metavar="JSON")
    parser.add_argument("authorization", type=Path, help="a file with the line `authorization: Bearer ..`")
    chosen = parser.parse_args(arguments)
    bearer = chosen.authorization.read_text().partition(":")[2].strip()
    try:
        for answer in call(
            address=chosen.address, method=chosen.method, request=chosen.request, authorization=bearer
        ):
            print(answer)
    except grpc.RpcError as error:
        print(f"{error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    except (json_format.ParseError, KeyError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
