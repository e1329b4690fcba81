"""What is asked of exact MaxSim, on whichever device, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from muvera_core.directory import Directory
from muvera_core.token_codec import Rows
from muvera_core.token_embeddings import FloatArray, IntArray

# Queries that are compared with all documents together, where nobody waits for one of them.
RANKED_TOGETHER = 32
# Keys by falling MaxSim, ties by rising key, and their scores.
Ranking = tuple[IntArray, FloatArray]
# Gives stored token rows of documents of a state, with their offsets.
ReadRows = Callable[[Directory, IntArray], tuple[Rows, IntArray]]


def ranked(keys: IntArray, scores: FloatArray, k: int | None) -> Ranking:
    """The ``k`` best (all, where None) of documents with these scores."""
    order = np.lexsort((keys, -scores))[:k]
    return keys[order], scores[order]


@dataclass(frozen=True, eq=False)
class Task:
    """A query and the documents to rank for it.

    Attributes:
        query: float32, shape (tokens, dimension).
        directory: the state that the documents are of.
        keys: the documents, int64, ascending. Tasks that share this array are ranked together.
    """

    query: FloatArray
    directory: Directory
    keys: IntArray


def sharing_documents(tasks: Sequence[Task]) -> Iterator[list[Task]]:
    """Runs of consecutive tasks that share their documents."""
    return (list(same) for _, same in groupby(tasks, key=lambda task: id(task.keys)))
