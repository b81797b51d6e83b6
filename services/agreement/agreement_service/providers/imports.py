"""Slices of payment files, from the import service."""

import io
import uuid
from collections.abc import Sequence
from typing import Any, Protocol

import polars as pl

from recupera.imports.v1 import imports_service_pb2, imports_service_pb2_grpc
from servicekit import client, names

SLICE_TIMEOUT = 30.0
"""Seconds to fetch a slice of at most 10,000 rows."""


class Slices(Protocol):
    """Where the rows of payment files come from."""

    def payments(self, agency: uuid.UUID, batch_id: uuid.UUID, number: int) -> Sequence[dict[str, Any]]:
        """Rows of a slice, named as recupera.imports.v1.PaymentRow. Raises RemoteUnavailable, RemoteRefused."""
        ...


class ImportSlices:
    """Slices of the import service, fetched over gRPC as Arrow."""

    def __init__(self, channel: client.Channel) -> None:
        self._channel = channel
        self._stub = imports_service_pb2_grpc.ImportServiceStub(channel.grpc)

    def payments(self, agency: uuid.UUID, batch_id: uuid.UUID, number: int) -> Sequence[dict[str, Any]]:
        """Rows of a slice."""
        request = imports_service_pb2.FetchSliceRequest(
            name=names.format("agencies/{agency}/batches/{batch}", agency=agency, batch=batch_id),
            slice=number,
        )
        parts = self._channel.stream(self._stub.FetchSlice, request, agency=agency, timeout=SLICE_TIMEOUT)
        return pl.read_ipc_stream(io.BytesIO(b"".join(part.arrow_ipc for part in parts))).to_dicts()
