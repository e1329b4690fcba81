from __future__ import annotations

import math
from typing import Any

import pytest

from muvera_core.errors import InvalidInputError
from muvera_core.serving import ServiceSettings


def test_one_token_or_several() -> None:
    assert ServiceSettings(tokens="secret-1").tokens == ("secret-1",)
    assert ServiceSettings(tokens=["secret-1", "secret-2"]).tokens == ("secret-1", "secret-2")
    assert ServiceSettings().tokens == ()


@pytest.mark.parametrize("tokens", ["", "two words", "tab\t", "café", ["good", ""], [None], 7, b"bytes"])
def test_a_token_that_no_header_can_hold_is_refused_and_not_shown(tokens: Any) -> None:
    with pytest.raises(InvalidInputError, match="visible ASCII") as error:
        ServiceSettings(tokens=tokens)
    assert "two words" not in str(error.value)


def test_tokens_are_not_in_the_repr() -> None:
    assert "secret" not in repr(ServiceSettings(tokens="secret"))


@pytest.mark.parametrize("name", ["max_body_bytes", "max_queries", "max_k", "max_candidates", "max_documents"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "10", None, True])
def test_limits_are_counts(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=name):
        ServiceSettings(**{name: value})


@pytest.mark.parametrize("name", ["request_timeout", "write_timeout"])
@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, "10", None, True])
def test_no_request_may_take_for_ever(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=name):
        ServiceSettings(**{name: value})


def test_nobody_needs_to_be_allowed_to_wait() -> None:
    assert ServiceSettings(max_waiting=0).max_waiting == 0
    with pytest.raises(InvalidInputError, match="max_waiting"):
        ServiceSettings(max_waiting=-1)


def test_places_are_those_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ServiceSettings()
    monkeypatch.setenv("MUVERA_NUM_THREADS", "3")
    assert settings.n_places == 4
    assert ServiceSettings(n_threads=7).n_places == 7
    with pytest.raises(InvalidInputError, match="n_threads"):
        ServiceSettings(n_threads=0)
