"""What all systems get, in a folder that the processes that measure them read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from peers.protocol import Documents, IntArray


@dataclass(frozen=True)
class About:
    """What the inputs are. Results with equal inputs can be put into one table.

    Attributes:
        name: name of the collection.
        n_documents: number of documents.
        n_tokens: number of their tokens.
        dimension: width of a token vector.
        n_queries: number of queries.
        k: number of documents that a query asks for.
        checksum: CRC-32 of the tokens of documents and queries.
    """

    name: str
    n_documents: int
    n_tokens: int
    dimension: int
    n_queries: int
    k: int
    checksum: int


@dataclass(frozen=True, eq=False)
class Inputs:
    """What all systems get, and what their answers are compared with.

    Attributes:
        about: what the inputs are.
        documents: token embeddings of the documents.
        queries: token embeddings of the queries.
        exact: numbers of the ``k`` documents of highest MaxSim for each query, best first, shape (queries, k).
        relevance: for each query, the grades of documents, by their number. Empty if nobody has judged them.
    """

    about: About
    documents: Documents
    queries: Documents
    exact: IntArray
    relevance: list[dict[int, float]]


def save(inputs: Inputs, folder: Path) -> None:
    """Write the inputs to a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (
        ("vectors", inputs.documents.vectors),
        ("offsets", inputs.documents.offsets),
        ("token_ids", inputs.documents.token_ids),
        ("query_vectors", inputs.queries.vectors),
        ("query_offsets", inputs.queries.offsets),
        ("exact", inputs.exact),
    ):
        if array is not None:
            np.save(folder / f"{name}.npy", array)
    (folder / "relevance.json").write_text(json.dumps([list(grades.items()) for grades in inputs.relevance]))
    (folder / "about.json").write_text(json.dumps(asdict(inputs.about)))


def load_documents(folder: Path) -> Documents:
    """The documents, read into memory."""
    ids = folder / "token_ids.npy"
    return Documents(
        np.load(folder / "vectors.npy"), np.load(folder / "offsets.npy"), np.load(ids) if ids.exists() else None
    )


def load_queries(folder: Path) -> Documents:
    """The queries, read into memory."""
    return Documents(np.load(folder / "query_vectors.npy"), np.load(folder / "query_offsets.npy"))


def load_about(folder: Path) -> About:
    """What the inputs are."""
    return About(**json.loads((folder / "about.json").read_text()))


def load_relevance(folder: Path) -> list[dict[int, float]]:
    """For each query, the grades of documents, by their number."""
    return [dict(grades) for grades in json.loads((folder / "relevance.json").read_text())]


def load_exact(folder: Path) -> IntArray:
    """Numbers of the documents of highest MaxSim for each query, shape (queries, k)."""
    exact: IntArray = np.load(folder / "exact.npy")
    return exact
