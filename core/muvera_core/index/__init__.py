"""The index that users hold. It checks arguments, encodes texts, and leaves the work to the rooms below.

text → token encoder → token embeddings → store, and from there → set encoder → stage one
query → token encoder → set encoder → stage one's candidates → exact MaxSim over their stored tokens → hits

Follow ``WritingCalls.add`` and ``SearchingCalls.search`` to see how a passage and a query flow through every stage.
``collection`` keeps the documents, ``search`` searches.
"""

from __future__ import annotations

from muvera_core.index.calls import IndexCalls, call_async
from muvera_core.index.collection_engine import CollectionEngine, to_document
from muvera_core.index.engine import Engine, Judged, page_place
from muvera_core.index.muvera_index import MuveraIndex
from muvera_core.index.parts import accelerator_of
from muvera_core.index.steps import IndexCall, Steps, awaited, perform, perform_async, steps_of, stepwise

__all__ = [
    "CollectionEngine",
    "Engine",
    "IndexCall",
    "IndexCalls",
    "Judged",
    "MuveraIndex",
    "Steps",
    "accelerator_of",
    "awaited",
    "call_async",
    "page_place",
    "perform",
    "perform_async",
    "steps_of",
    "stepwise",
    "to_document",
]
