"""What `helm test` runs (deploy/check), on the platform that stands here."""

from __future__ import annotations

import uuid

import pytest

import recupera_check
from support import whole


def test_the_journey_goes_the_whole_way_each_time(whole: whole.Whole) -> None:
    token = whole.token(uuid.uuid4())
    for _ in range(2):
        said: list[str] = []
        recupera_check.Check(base_url=whole.url, token=token, say=said.append).run()
        assert said[-1] == "the books balance"
        assert len(said) == 5


def test_an_installation_that_refuses_is_told(whole: whole.Whole) -> None:
    token = whole.token(uuid.uuid4(), scopes=("case.read", "case.write"))
    with pytest.raises(recupera_check.Refused, match="PERMISSION_MISSING"):
        recupera_check.Check(base_url=whole.url, token=token, say=lambda line: None).run()


def test_a_token_without_an_agency_is_told() -> None:
    with pytest.raises(recupera_check.CheckFailed, match="agency"):
        recupera_check.Check(base_url="http://127.0.0.1:9", token="x", say=lambda line: None)
