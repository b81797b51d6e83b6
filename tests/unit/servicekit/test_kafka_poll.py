"""What kafka-python raises from a poll now and then, when a broker dies at the wrong moment, ends no worker.

No server can be made to die at that moment at will; tests/cluster/test_faults.py sees it happen.
"""

from typing import Any

import kafka.errors as driver_errors
import pytest

from servicekit import kafka


class Driver:
    """kafka-python's consumer, as far as `poll` goes."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def poll(self, **_: Any) -> None:
        raise self._error


def consumer(error: Exception) -> kafka.Consumer:
    made = kafka.Consumer.__new__(kafka.Consumer)
    made._consumer = Driver(error)
    made._noted = kafka._Noted()
    return made


@pytest.mark.parametrize("error", [driver_errors.KafkaConnectionError, driver_errors.NodeNotReadyError])
def test_what_passes_is_waited_for(error: type[Exception]) -> None:
    assert consumer(error()).poll(1) == {}


def test_what_does_not_pass_is_told() -> None:
    with pytest.raises(kafka.NotAdmitted):
        consumer(driver_errors.SaslAuthenticationFailedError()).poll(1)
