"""Chooses stage one for the documents of an index: which encoding, how many candidates, which graph."""

from __future__ import annotations

from muvera_core.tuning.optimizing import optimize

__all__ = ["optimize"]
