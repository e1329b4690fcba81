"""Fits an index to its documents: chooses stage one, and learns what scores say about relevance."""

from __future__ import annotations

from muvera_core.tuning.calibrating import calibrate, remove_calibration
from muvera_core.tuning.optimizing import optimize
from muvera_core.tuning.words import choose_lexical_weight

__all__ = ["calibrate", "choose_lexical_weight", "optimize", "remove_calibration"]
