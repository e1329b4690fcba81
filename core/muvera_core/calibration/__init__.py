"""Turns the scores of one query into the probability that each document is relevant, so that one threshold fits all.

Raw MaxSim grows with the query's length, and its mean per token says different things for different questions. A
``Calibration`` reads three features from the best scores of the query itself (see ``features.py``) and maps them by
logistic regression. The idea that the map depends on the query is from the Cosine Adapter (arXiv 2408.04887).
"""

from __future__ import annotations

from muvera_core.calibration.calibration import Calibration
from muvera_core.calibration.features import N_LEADING
from muvera_core.calibration.fitting import fit_calibration
from muvera_core.calibration.rankings import JudgedRanking
from muvera_core.calibration.report import CalibrationReport, measure

__all__ = ["N_LEADING", "Calibration", "CalibrationReport", "JudgedRanking", "fit_calibration", "measure"]
