"""Waiting for a condition, never for a time."""

import time
from collections.abc import Callable


def until(condition: Callable[[], object], *, timeout: float = 20.0, what: str = "") -> None:
    """Return once `condition()` is true; fails the test after `timeout` seconds, saying `what` was awaited."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout} seconds: {what or condition}")
        time.sleep(0.02)
