"""The ladder (régua): levels by days past due, as data (S2-18, S2-19)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from case_service.domain.contact import Channel
from servicekit import errors

DEFAULT = "default"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A level acts when days past due are within ``from_days``..``to_days`` (both included, negative before
    due) and at least ``minimum_wait_days`` have passed since the last step on the case. The first level
    that fits acts.
    """

    code: str
    display_name: str
    from_days: int
    to_days: int
    minimum_wait_days: int
    channel: Channel
    template: str
    counts: bool = True


DEFAULT_LEVELS: Sequence[Level] = (
    Level(
        code="reminder-1",
        display_name="Lembrete por e-mail",
        from_days=1,
        to_days=4,
        minimum_wait_days=5,
        channel=Channel.EMAIL,
        template="reminder-1",
    ),
    Level(
        code="call-1",
        display_name="Primeira ligação",
        from_days=5,
        to_days=14,
        minimum_wait_days=2,
        channel=Channel.CALL,
        template="call-1",
    ),
    Level(
        code="reminder-2",
        display_name="Segundo lembrete por e-mail",
        from_days=15,
        to_days=29,
        minimum_wait_days=7,
        channel=Channel.EMAIL,
        template="reminder-2",
    ),
    Level(
        code="call-2",
        display_name="Segunda ligação",
        from_days=30,
        to_days=59,
        minimum_wait_days=3,
        channel=Channel.CALL,
        template="call-2",
    ),
    Level(
        code="notice-1",
        display_name="Notificação por e-mail",
        from_days=60,
        to_days=120,
        minimum_wait_days=15,
        channel=Channel.EMAIL,
        template="notice-1",
    ),
    Level(
        code="call-3",
        display_name="Ligação de recuperação",
        from_days=121,
        to_days=9999,
        minimum_wait_days=7,
        channel=Channel.CALL,
        template="call-2",
    ),
)
"""The ladder "default" that every agency begins with."""


class LadderInvalid(errors.ServiceError):
    """Levels that cannot work: the field violations say which."""

    status = errors.Status.INVALID_ARGUMENT


def check(levels: Sequence[Level]) -> None:
    """Raises LadderInvalid: codes unique and not empty, from <= to, waits not negative, at most 50 levels."""
    problems: list[errors.FieldViolation] = []
    if not 1 <= len(levels) <= 50:
        problems.append(errors.FieldViolation("ladder.levels", "expected 1 to 50 levels"))
    seen: set[str] = set()
    for place, level in enumerate(levels):
        path = f"ladder.levels[{place}]"
        if not level.code or len(level.code) > 64 or level.code in seen:
            problems.append(errors.FieldViolation(f"{path}.code", "expected a code that no other level has"))
        seen.add(level.code)
        if not -9999 <= level.from_days <= level.to_days <= 9999:
            problems.append(
                errors.FieldViolation(f"{path}.from_days", "expected -9999 <= from_days <= to_days <= 9999")
            )
        if not 0 <= level.minimum_wait_days <= 9999:
            problems.append(errors.FieldViolation(f"{path}.minimum_wait_days", "expected 0 to 9999"))
        if not level.template or len(level.template) > 64:
            problems.append(errors.FieldViolation(f"{path}.template", "expected a template or script code"))
    if problems:
        raise LadderInvalid("the ladder is invalid", fields=problems)
