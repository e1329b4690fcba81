"""Maintenance of an index that needs none of its encoder: no text is encoded."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from muvera_core.collection import Writer, open_collection
from muvera_core.index import accelerator_of
from muvera_core.stage_one import Tuning
from muvera_core.tuning import optimize


def compact_index(folder: Path, *, show_progress: bool) -> int:
    """See ``MuveraIndex.compact``."""
    with closing(open_collection(folder.absolute(), show_progress=show_progress)) as collection:
        return Writer(collection).compact()


def optimize_index(
    folder: Path, target_recall: float, *, k: int, n_queries: int, show_progress: bool, device: str
) -> Tuning:
    """See ``MuveraIndex.optimize``. Runs of the documents' stored tokens stand in for queries."""
    gpu = accelerator_of(device)
    with closing(open_collection(folder.absolute(), show_progress=show_progress, accelerator=gpu)) as collection:
        return optimize(
            collection,
            Writer(collection),
            None,
            None,
            target_recall=target_recall,
            k=k,
            n_queries=n_queries,
            show_progress=show_progress,
        )
