"""Collections with the bundled encoder's token embeddings, which are encoded once and kept in a folder.

They are kept as an index keeps them: int8 codes and a scale per token. Passages are encoded in an order in which every
smaller collection is the beginning of a larger one, so that a longer run goes on where a shorter one ended.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from muvera_core import TokenEmbeddings
from muvera_core.encoders import BundledEncoder
from muvera_core.evaluation.collections import BeirCollection, read_beir
from muvera_core.storage.token_codec import TokenCodec
from muvera_core.token_embeddings import FloatArray, IntArray, unit_length

_BATCH = 64


@dataclass(frozen=True, eq=False)
class Embedded:
    """A collection with its token embeddings.

    Attributes:
        name: of the collection.
        texts: its passages.
        documents: their token embeddings, as an index would give them back.
        questions: that are asked.
        queries: their token embeddings.
        relevance: for each of them the grades of passages by their number in ``documents``.
    """

    name: str
    texts: list[str]
    documents: TokenEmbeddings
    questions: list[str]
    queries: TokenEmbeddings
    relevance: list[dict[int, float]]


def collection_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser of what ``embed`` takes: the collection, the cache, and how many questions and passages."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a collection in BEIR's form")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(tempfile.gettempdir()) / "muvera-benchmarks",
        help="folder to keep the token embeddings in between runs (default: one among the temporary files)",
    )
    parser.add_argument("--questions", type=int, default=300, help="how many, drawn at random (default: 300)")
    parser.add_argument("--others", type=int, help="of the passages that answer nothing, take so many (default: all)")
    return parser


def begin(description: str | None, k: int, *, narrows: bool = False) -> tuple[Embedded, IntArray, Path | None]:
    """What the command line asks a comparison of encodings to be made with; ``narrows`` allows --components.

    Returns:
        The collection; numbers of the ``k`` documents of highest MaxSim for each query, int64, shape (queries, k); and
        the file to draw to, if any.
    """
    parser = collection_parser(description)
    parser.add_argument("--plot", type=Path)
    if narrows:
        parser.add_argument("--components", type=int, help="simulate a model of narrower vectors: principal components")
    arguments = parser.parse_args()
    collection = embed(arguments.folder, arguments.cache, arguments.questions, others=arguments.others)
    if narrows and arguments.components:
        collection = narrowed(collection, arguments.components)
    return collection, np.stack(exact_top(collection.queries, collection.documents, k)), arguments.plot


def embed(folder: Path, cache: Path, n_questions: int, *, others: int | None = None) -> Embedded:
    """Token embeddings of a collection in BEIR's form, and of some of its questions, drawn at random.

    Args:
        folder: the collection.
        cache: folder for the embeddings.
        n_questions: how many questions to ask.
        others: of the passages that answer nothing, take so many; None takes all.
    """
    collection = read_beir(folder)
    chosen = judged_and_others(collection, others)
    texts = [collection.texts[i] for i in chosen]
    number = {collection.ids[i]: place for place, i in enumerate(chosen)}
    asked = random.Random(1).sample(sorted(collection.queries), min(n_questions, len(collection.queries)))
    questions = [collection.queries[id] for id in asked]
    return Embedded(
        folder.name,
        texts,
        _documents(texts, cache / folder.name),
        questions,
        BundledEncoder().encode_queries(questions),
        [{number[d]: grade for d, grade in collection.relevance[id].items() if d in number} for id in asked],
    )


def judged_and_others(collection: BeirCollection, n_others: int | None) -> list[int]:
    """Numbers of the passages that answer a question, and then of so many others, in a random order."""
    judged = {id for relevant in collection.relevance.values() for id in relevant}
    others = [i for i, id in enumerate(collection.ids) if id not in judged]
    random.Random(0).shuffle(others)
    return [i for i, id in enumerate(collection.ids) if id in judged] + others[:n_others]


def narrowed(embedded: Embedded, n: int) -> Embedded:
    """The collection with the first ``n`` principal components of its tokens, of unit length."""
    vectors = embedded.documents.vectors
    _, components = np.linalg.eigh((vectors.T @ vectors).astype(np.float64))
    first = components[:, -n:].astype(np.float32)
    documents, queries = (
        TokenEmbeddings(unit_length(some.vectors @ first), some.offsets)
        for some in (embedded.documents, embedded.queries)
    )
    return replace(embedded, documents=documents, queries=queries)


def seconds_to_encode(embedded: Embedded, n: int = 512) -> float:
    """What the bundled encoder takes for all passages, by what it takes now for ``n`` of them."""
    some = np.sort(np.random.default_rng(0).permutation(len(embedded.texts))[:n])
    start = time.perf_counter()
    BundledEncoder().encode_documents([embedded.texts[i] for i in some])
    seconds = time.perf_counter() - start
    return seconds * len(embedded.documents.vectors) / int(embedded.documents.lengths[some].sum())


def _documents(texts: list[str], cache: Path) -> TokenEmbeddings:
    """Token embeddings of texts, of which the first ones may have been encoded before."""
    encoder = BundledEncoder()
    codec = TokenCodec("int8", encoder.dimension)
    cache = cache / encoder.fingerprint
    cache.mkdir(parents=True, exist_ok=True)
    rows_path, lengths_path = cache / "rows.bin", cache / "lengths.bin"
    rows_path.touch()
    lengths_path.touch()
    n_done = lengths_path.stat().st_size // 8
    for start in tqdm(range(n_done, len(texts), _BATCH), desc="encoding", disable=n_done >= len(texts)):
        some = encoder.encode_documents(texts[start : start + _BATCH])
        for path, array in ((rows_path, codec.encode(some.vectors)), (lengths_path, some.lengths)):
            with path.open("ab") as file:
                file.write(array.tobytes())
    offsets = np.concatenate([[0], np.cumsum(np.fromfile(lengths_path, dtype=np.int64)[: len(texts)])])
    rows = np.memmap(rows_path, dtype=codec.row_dtype, mode="r")
    vectors = np.empty((offsets[-1], codec.dimension), dtype=np.float32)
    for start in range(0, len(vectors), 65_536):
        vectors[start : start + 65_536] = codec.decode(rows[start : min(len(vectors), start + 65_536)])
    return TokenEmbeddings(vectors, offsets)


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
