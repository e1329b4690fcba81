"""Stage one of a search: finds the documents whose vector has the highest inner product with the query's vector."""

from __future__ import annotations

from muvera_core.stage_one.candidates import Candidates
from muvera_core.stage_one.flat import FlatCandidates
from muvera_core.stage_one.graph_parameters import DEFAULT_GRAPH, GraphParameters
from muvera_core.stage_one.hnsw import HnswCandidates
from muvera_core.stage_one.learned_weights import load_weights, remove_other_weights, save_weights
from muvera_core.stage_one.saved import (
    DESCRIPTION_NAME,
    load_candidates,
    read_description,
    remove_unnamed_files,
    save_stage_one,
)
from muvera_core.stage_one.settings import Tuning
from muvera_core.stage_one.stage_one import FLAT_LIMIT, StageOne, default_candidates
from muvera_core.stage_one.view import StageOneView

__all__ = [
    "DEFAULT_GRAPH",
    "DESCRIPTION_NAME",
    "FLAT_LIMIT",
    "Candidates",
    "FlatCandidates",
    "GraphParameters",
    "HnswCandidates",
    "StageOne",
    "StageOneView",
    "Tuning",
    "default_candidates",
    "load_candidates",
    "load_weights",
    "read_description",
    "remove_other_weights",
    "remove_unnamed_files",
    "save_stage_one",
    "save_weights",
]
