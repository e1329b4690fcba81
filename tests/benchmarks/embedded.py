"""Collections with the bundled encoder's token embeddings, which are encoded once and kept in a folder.

They are kept as an index keeps them: int8 codes and a scale per token.
"""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from muvera_core import TokenEmbeddings
from muvera_core.encoders import BundledEncoder
from muvera_core.evaluation import BeirCollection, read_beir
from muvera_core.token_codec import TokenCodec
from muvera_core.token_embeddings import FloatArray

_BATCH = 256


@dataclass(frozen=True, eq=False)
class Embedded:
    """A collection with its token embeddings.

    Attributes:
        name: of the collection.
        documents: its passages, as an index would give them back.
        queries: the questions that are asked.
        relevance: for each of them the grades of passages by their number in ``documents``.
        encoding_seconds: what encoding the passages took.
    """

    name: str
    documents: TokenEmbeddings
    queries: TokenEmbeddings
    relevance: list[dict[int, float]]
    encoding_seconds: float


def embed(folder: Path, cache: Path, n_questions: int, *, others: int | None = None) -> Embedded:
    """Token embeddings of a collection in BEIR's form, and of some of its questions, drawn at random.

    Args:
        folder: the collection.
        cache: folder for the embeddings.
        n_questions: how many questions to ask.
        others: of the passages that answer nothing, take so many; None takes all.
    """
    collection = read_beir(folder)
    rows, offsets, seconds = _rows(collection, cache / folder.name)
    codec = TokenCodec("int8", int(rows.dtype["codes"].shape[0]))
    chosen = judged_and_others(collection, others)
    lengths = np.diff(offsets)[chosen]
    vectors = np.empty((int(lengths.sum()), codec.dimension), dtype=np.float32)
    ends = np.cumsum(lengths)
    for i, end, length in zip(chosen, ends, lengths, strict=True):
        vectors[end - length : end] = codec.decode(rows[offsets[i] : offsets[i + 1]])
    number = {collection.ids[i]: place for place, i in enumerate(chosen)}
    asked = random.Random(1).sample(sorted(collection.queries), min(n_questions, len(collection.queries)))
    return Embedded(
        folder.name,
        TokenEmbeddings(vectors, np.concatenate([[0], ends])),
        BundledEncoder().encode_queries([collection.queries[id] for id in asked]),
        [{number[d]: grade for d, grade in collection.relevance[id].items() if d in number} for id in asked],
        seconds * len(vectors) / len(rows),
    )


def judged_and_others(collection: BeirCollection, n_others: int | None) -> list[int]:
    """Numbers of the passages that answer a question, and of so many others, drawn at random, in order."""
    judged = {id for relevant in collection.relevance.values() for id in relevant}
    others = [id for id in collection.ids if id not in judged]
    random.Random(0).shuffle(others)
    keep = judged | set(others[:n_others])
    return [i for i, id in enumerate(collection.ids) if id in keep]


def _rows(collection: BeirCollection, cache: Path) -> tuple[npt.NDArray[np.void], npt.NDArray[np.int64], float]:
    """Token rows of all passages, where each passage starts, and the seconds that encoding took."""
    encoder = BundledEncoder()
    codec = TokenCodec("int8", encoder.dimension)
    description = cache / "description.json"
    if not description.exists():
        cache.mkdir(parents=True, exist_ok=True)
        lengths: list[int] = []
        seconds = 0.0
        with (cache / "rows.bin").open("wb") as file:
            for start in tqdm(range(0, len(collection.texts), _BATCH), desc="encoding"):
                began = time.perf_counter()
                some = encoder.encode_documents(collection.texts[start : start + _BATCH])
                seconds += time.perf_counter() - began
                file.write(codec.encode(some.vectors).tobytes())
                lengths += some.lengths.tolist()
        np.save(cache / "offsets.npy", np.concatenate([[0], np.cumsum(lengths)]))
        description.write_text(json.dumps({"encoder": encoder.fingerprint, "seconds": seconds}))
    described = json.loads(description.read_text())
    if described["encoder"] != encoder.fingerprint:
        raise SystemExit(f"{cache} is of another encoder: remove it")
    rows = np.memmap(cache / "rows.bin", dtype=codec.row_dtype, mode="r")
    return rows, np.load(cache / "offsets.npy"), float(described["seconds"])


def exact_top(queries: TokenEmbeddings, documents: TokenEmbeddings, k: int) -> list[npt.NDArray[np.int64]]:
    """Numbers of the ``k`` documents of highest MaxSim for each query, best first, ties to the lowest number."""
    scores = np.empty((len(queries), len(documents)), dtype=np.float32)
    bounds = np.searchsorted(documents.offsets, np.arange(0, len(documents.vectors), 65_536))
    for low, high in zip(bounds, [*bounds[1:], len(documents)], strict=True):
        if low == high:
            continue
        start, end = documents.offsets[low], documents.offsets[high]
        transposed = np.ascontiguousarray(documents.vectors[start:end].T)
        for row, query in zip(scores, queries, strict=True):
            best: FloatArray = np.maximum.reduceat(query @ transposed, documents.offsets[low:high] - start, axis=1)
            row[low:high] = best.sum(axis=0)
    return [np.argsort(-row, kind="stable")[:k] for row in scores]
