"""What an index must answer, given the documents that it must hold."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from crash_workload import ENCODER, FDE, GROUPS, D, Doc, FloatArray, Model, add, exact_tokens

from muvera_core import MuveraIndex, check_index, repair_index
from muvera_core.errors import NotAnIndexError

N_QUERIES = 3
N_CANDIDATES = 5
# Float32 sums over 8 dimensions and 6 tokens; another document's tokens change a score by tenths.
TOLERANCE = 1e-3
PROBE = Doc("probe", "added after the crash", {"group": "probe"}, np.eye(2, D, dtype=np.float32))


@lru_cache
def queries() -> list[FloatArray]:
    rng = np.random.default_rng(4)
    return [exact_tokens(rng) for _ in range(N_QUERIES)]


def late_interaction(query: FloatArray, doc: Doc) -> float:
    return float((query @ doc.tokens.T).max(axis=1).sum())


def differences(index: MuveraIndex, model: Model) -> str | None:
    """How an open index differs from the documents that it should hold; None where it doesn't."""
    found = [(doc.id, doc.text, doc.metadata) for doc in index.find()]
    expected = [(doc.id, doc.text, doc.metadata) for doc in model.values()]
    if found != expected:
        return f"holds {_short(found)}, expected {_short(expected)}"
    if len(index) != len(model) or any(id not in index for id in model):
        return f"len() or `in` disagree with find(): {len(index)}, expected {len(model)}"
    for group in GROUPS:
        members = [doc.id for doc in model.values() if doc.metadata["group"] == group]
        if [doc.id for doc in index.find({"group": group})] != members:
            return f"the filter on {group!r} finds something else than {members}"
    for number, query in enumerate(queries()):
        scores = {id: late_interaction(query, doc) for id, doc in model.items()}
        exact = {hit.id: hit.score for hit in index.search_embeddings(query, k=len(model) + 1, exact=True)}
        if exact.keys() != scores.keys():
            return f"exact search {number} finds {sorted(exact)}, expected {sorted(scores)}"
        wrong = {id: (exact[id], scores[id]) for id in scores if abs(exact[id] - scores[id]) > TOLERANCE}
        if wrong:
            return f"exact search {number} has other scores (got, expected): {wrong}"
        hits = index.search_embeddings(query, k=N_CANDIDATES, n_candidates=N_CANDIDATES)
        if len(hits) != min(N_CANDIDATES, len(model)):
            return f"search {number} finds {len(hits)} of {len(model)} documents"
        if any(hit.id not in scores or abs(hit.score - scores[hit.id]) > TOLERANCE for hit in hits):
            return f"search {number} has other scores: {[(hit.id, hit.score) for hit in hits]}"
    return None


def which(index: MuveraIndex, models: list[Model]) -> tuple[Model | None, str]:
    """Which of the models an open index holds, and if it is none, why."""
    reasons = []
    for model in models:
        reason = differences(index, model)
        if reason is None:
            return model, ""
        reasons.append(reason)
    return None, "; or ".join(dict.fromkeys(reasons))


def check_state(folder: Path, before: Model | None, after: Model, *, n_whole: int | None = None) -> list[str]:
    """Open a recovered folder and use it.

    Args:
        folder: the index folder.
        before: the documents after the last acknowledged operation; None where not even ``create`` was.
        after: those after the operation in flight.
        n_whole: that is a repair: so many documents were whole before it; it is to be run again.

    Returns:
        What was wrong.
    """
    try:
        problem = _check_repair(folder, n_whole) if n_whole is not None else None
        problem = problem or _check_state(folder, before, after)
        return [problem] if problem else []
    except Exception as error:
        return [described(error)]


def described(error: Exception) -> str:
    """An error with the place where it came up."""
    innermost = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} ({error}) at {Path(innermost.filename).name}:{innermost.lineno}"


def extend(index: MuveraIndex, model: Model) -> Model:
    """Add one more document; gives what must be there now."""
    add(index, [PROBE])
    return {**model, PROBE.id: PROBE}


def _check_repair(folder: Path, n_whole: int) -> str | None:
    left = check_index(folder)
    if left.n_documents < n_whole:
        return f"{left.n_documents} documents are whole, before the repair {n_whole} were: {left}"
    repair_index(folder, ENCODER)
    repaired = check_index(folder)
    return None if repaired.ok else f"after a second repair: {repaired}"


def _check_state(folder: Path, before: Model | None, after: Model) -> str | None:
    try:
        index = MuveraIndex.open(folder, ENCODER)
    except NotAnIndexError:
        if before is not None:
            raise
        index = MuveraIndex.create(folder, ENCODER, FDE)
    with index:
        model, reason = which(index, [after] if before is None else [before, after])
        if model is None:
            return reason
        extended = extend(index, model)
        reason = differences(index, extended) or ""
        if reason:
            return f"after one more add: {reason}"
    with MuveraIndex.open(folder, ENCODER) as index:
        reason = differences(index, extended) or ""
        if reason:
            return f"after one more add and reopening: {reason}"
    problems = check_index(folder).problems  # also compares the word index with the texts
    return f"after one more add, the check finds {problems}" if problems else None


def _short(documents: Sequence[tuple[str, str | None, dict[str, Any]]]) -> str:
    return "[" + ", ".join(f"{id}@{metadata.get('operation')}" for id, _, metadata in documents) + "]"
