"""Late-interaction retrieval: MUVERA encodings find candidates, exact MaxSim ranks them."""

from __future__ import annotations

from importlib.metadata import version

from muvera_core.calibration import Calibration, CalibrationReport
from muvera_core.corpus import Reading, TextPassage, split_text
from muvera_core.encoders import ImageEncoder, TokenEncoder
from muvera_core.errors import MuveraError
from muvera_core.evaluation import Evaluation
from muvera_core.hits import Document, Hit, Passage, TokenMatch
from muvera_core.index import IndexCalls, MuveraIndex, call_async
from muvera_core.maintenance import IndexReport, RepairReport, check_index, repair_index
from muvera_core.maxsim import maxsim
from muvera_core.remote import RemoteMuveraIndex
from muvera_core.search import QueryReduction, SearchPlan, StageClock
from muvera_core.set_encoders import (
    FDEConfig,
    FixedDimensionalEncoder,
    LearnedSetEncoder,
    LearnedSetEncoderConfig,
    SetEncoder,
)
from muvera_core.stage_one import Tuning
from muvera_core.standalone import TextEncoder, score_texts
from muvera_core.sync import SyncProgress, SyncReport, sync_files
from muvera_core.token_embeddings import TokenEmbeddings

__version__ = version("muvera-core")

__all__ = [
    "Calibration",
    "CalibrationReport",
    "Document",
    "Evaluation",
    "FDEConfig",
    "FixedDimensionalEncoder",
    "Hit",
    "ImageEncoder",
    "IndexCalls",
    "IndexReport",
    "LearnedSetEncoder",
    "LearnedSetEncoderConfig",
    "MuveraError",
    "MuveraIndex",
    "Passage",
    "QueryReduction",
    "Reading",
    "RemoteMuveraIndex",
    "RepairReport",
    "SearchPlan",
    "SetEncoder",
    "StageClock",
    "SyncProgress",
    "SyncReport",
    "TextEncoder",
    "TextPassage",
    "TokenEmbeddings",
    "TokenEncoder",
    "TokenMatch",
    "Tuning",
    "call_async",
    "check_index",
    "maxsim",
    "repair_index",
    "score_texts",
    "split_text",
    "sync_files",
]
