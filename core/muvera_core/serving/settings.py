"""What a service allows: who may call it, how large a request may be, and how long it may take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from muvera_core.errors import InvalidInputError
from muvera_core.threads import max_threads
from muvera_core.validation import require_count, shown

_COUNTS = ("max_body_bytes", "max_queries", "max_k", "max_candidates", "max_documents")
_TIMES = ("request_timeout", "write_timeout")


@dataclass(frozen=True)
class ServiceSettings:
    """Limits of a service. They hold for each worker process.

    Attributes:
        tokens: bearer tokens, any of which lets a request in. Empty lets everybody in.
        max_body_bytes: bytes of a request's body.
        max_queries: queries of one request.
        max_k: hits for each query, and documents that one request reads.
        max_candidates: candidates that a query may ask to rerank.
        max_documents: documents that one request adds, changes or deletes by id.
        n_threads: reading requests that run at the same time; as many writing ones may run beside them. None takes one
            more than the threads that a call may use, so that there is work while a request is parsed.
        max_waiting: requests that may wait for a place beside those that run. More are refused with status 503.
        request_timeout: seconds from a request's first byte to its answer. Status 504 after that.
        write_timeout: the same for requests that change the index.
        docs: whether to show the OpenAPI page, on /docs.
        docs_need_token: whether /docs and /openapi.json need a token, if there is one.
        metrics_need_token: whether /metrics needs a token, if there is one.

    Raises:
        InvalidInputError: a value cannot be used.
    """

    tokens: Sequence[str] = field(default=(), repr=False)
    max_body_bytes: int = 32 << 20
    max_queries: int = 1000
    max_k: int = 1000
    max_candidates: int = 10_000
    max_documents: int = 10_000
    n_threads: int | None = None
    max_waiting: int = 64
    request_timeout: float = 30.0
    write_timeout: float = 300.0
    docs: bool = True
    docs_need_token: bool = True
    metrics_need_token: bool = True

    def __post_init__(self) -> None:
        _set = object.__setattr__
        _set(self, "tokens", _require_tokens(self.tokens))
        for name in _COUNTS:
            _set(self, name, require_count(name, getattr(self, name)))
        if self.n_threads is not None:
            _set(self, "n_threads", require_count("n_threads", self.n_threads))
        _set(self, "max_waiting", require_count("max_waiting", self.max_waiting, 0))
        for name in _TIMES:
            _set(self, name, _require_seconds(name, getattr(self, name)))

    @property
    def n_places(self) -> int:
        """Number of reading requests that run at the same time in this process."""
        return max_threads() + 1 if self.n_threads is None else self.n_threads


def _require_tokens(tokens: object) -> tuple[str, ...]:
    given = [tokens] if isinstance(tokens, str) else tokens
    if not isinstance(given, Sequence) or not all(map(_is_token, given)):
        # The value is not shown, because it is a secret.
        raise InvalidInputError(
            "a token must have only visible ASCII characters, and at least one: make one with `openssl rand -hex 32`"
        )
    return tuple(given)


def _is_token(value: object) -> bool:
    return isinstance(value, str) and value != "" and all("!" <= character <= "~" for character in value)


def _require_seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise InvalidInputError(f"{name} must be a number of seconds above 0, got {shown(value)}")
    return float(value)
