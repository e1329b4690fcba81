"""Collections with token embeddings of the bundled encoder, which are computed once and cached in a folder.

They are stored as in an index: int8 codes and a scale per token. The order of the passages makes every smaller
selection the beginning of a larger one, so that a longer run continues where a shorter one ended.
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
        name: name of the collection.
        texts: its passages.
        documents: token embeddings of the passages, rounded as in an index.
        query_texts: the queries.
        queries: token embeddings of the queries.
        relevance: for each query, the grades of passages, by their number in ``documents``.
    """

    name: str
    texts: list[str]
    documents: TokenEmbeddings
    query_texts: list[str]
    queries: TokenEmbeddings
    relevance: list[dict[int, float]]


def collection_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser of the arguments of ``embed``: the collection, the cache, and the numbers of queries and passages."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a collection in BEIR's format")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(tempfile.gettempdir()) / "muvera-benchmarks",
        help="folder that caches the token embeddings (default: a folder among the temporary files)",
    )
    parser.add_argument("--questions", type=int, default=300, help="number of queries, drawn at random (default: 300)")
    parser.add_argument("--others", type=int, help="number of unjudged passages to include (default: all)")
    return parser


def begin(description: str | None, k: int, *, narrows: bool = False) -> tuple[Embedded, IntArray, Path | None]:
    """Read the command line of a comparison of encodings. With ``narrows``, it accepts --components.

    Returns:
        The collection; the numbers of the ``k`` documents of highest MaxSim for each query, int64, shape (queries, k);
        and the file to draw to, or None.
    """
    parser = collection_parser(description)
    parser.add_argument("--plot", type=Path)
    if narrows:
        parser.add_argument(
            "--components", type=int, help="simulate a model with narrower vectors, by this many principal components"
        )
    arguments = parser.parse_args()
    collection = embed(arguments.folder, arguments.cache, arguments.questions, others=arguments.others)
    if narrows and arguments.components:
        collection = narrowed(collection, arguments.components)
    return collection, np.stack(exact_top(collection.queries, collection.documents, k)), arguments.plot


def embed(folder: Path, cache: Path, n_queries: int, *, others: int | None = None) -> Embedded:
    """Token embeddings of a collection in BEIR's format, and of some of its queries, drawn at random.

    Args:
        folder: the collection.
        cache: folder for the embeddings.
        n_queries: number of queries.
        others: number of unjudged passages to include; None includes all.
    """
    collection = read_beir(folder)
    chosen = judged_and_others(collection, others)
    texts = [collection.texts[i] for i in chosen]
    number = {collection.ids[i]: place for place, i in enumerate(chosen)}
    asked = random.Random(1).sample(sorted(collection.queries), min(n_queries, len(collection.queries)))
    query_texts = [collection.queries[id] for id in asked]
    return Embedded(
        folder.name,
        texts,
        encoded_documents(texts, cache / folder.name),
        query_texts,
        BundledEncoder().encode_queries(query_texts),
        [{number[d]: grade for d, grade in collection.relevance[id].items() if d in number} for id in asked],
    )


def judged_and_others(collection: BeirCollection, n_others: int | None) -> list[int]:
    """Numbers of the passages that are relevant to a query, followed by ``n_others`` of the others in random order."""
    judged = {id for relevant in collection.relevance.values() for id in relevant}
    others = [i for i, id in enumerate(collection.ids) if id not in judged]
    random.Random(0).shuffle(others)
    return [i for i, id in enumerate(collection.ids) if id in judged] + others[:n_others]


def narrowed(embedded: Embedded, n: int) -> Embedded:
    """The collection with its tokens reduced to their first ``n`` principal components, of unit length."""
    vectors = embedded.documents.vectors
    _, components = np.linalg.eigh((vectors.T @ vectors).astype(np.float64))
    first = components[:, -n:].astype(np.float32)
    documents, queries = (
        TokenEmbeddings(unit_length(some.vectors @ first), some.offsets)
        for some in (embedded.documents, embedded.queries)
    )
    return replace(embedded, documents=documents, queries=queries)


def seconds_to_encode(embedded: Embedded, n: int = 512) -> float:
    """Estimate of the seconds that encoding all passages takes, from the time for ``n`` of them."""
    some = np.sort(np.random.default_rng(0).permutation(len(embedded.texts))[:n])
    start = time.perf_counter()
    BundledEncoder().encode_documents([embedded.texts[i] for i in some])
    seconds = time.perf_counter() - start
    return seconds * len(embedded.documents.vectors) / int(embedded.documents.lengths[some].sum())


def encoded_documents(texts: list[str], cache: Path) -> TokenEmbeddings:
    """Token embeddings of texts. Those in the cache are not encoded again."""
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
        for path, array in ((rows_path, codec.encode(some.vectors, some.offsets)), (lengths_path, some.lengths)):
            with path.open("ab") as file:
                file.write(array.tobytes())
    offsets = np.concatenate([[0], np.cumsum(np.fromfile(lengths_path, dtype=np.int64)[: len(texts)])])
    rows = np.memmap(rows_path, dtype=codec.row_dtype, mode="r")
    vectors = np.empty((offsets[-1], codec.dimension), dtype=np.float32)
    for start in range(0, len(vectors), 65_536):
        part = rows[start : min(len(vectors), start + 65_536)]
        vectors[start : start + 65_536] = codec.decode(part, np.array([0, len(part)]))
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
