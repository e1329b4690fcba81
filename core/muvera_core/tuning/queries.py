"""The queries to fit stage one to and to measure it with: the user's, or pseudo-queries made of the documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from muvera_core.set_encoders import QUERY_TOKENS, drawn_length, part_of_text, run_of_tokens
from muvera_core.token_embeddings import FloatArray, IntArray
from muvera_core.tuning.corpus import Corpus

# Number of pseudo-queries to fit the encoding to. More of them gain little.
_PSEUDO_QUERIES = 500
# Pseudo-queries that are drawn and encoded at a time.
_DRAWN_TOGETHER = 64
# If the user gives at least this many queries, half of them are for fitting.
_MIN_TO_SPLIT = 100
# Shortest and longest run of stored tokens that stands in for a query: half a query. A document's token was
# encoded with its context, so it says more than a query's token. For longer runs, stage one finds documents too easily.
_STORED_TOKENS = (4, 12)
# An FDE needs so many times as many candidates for stand-ins as for questions; learned encodings need as many.
_EXCESS = 1.25


@dataclass(frozen=True, eq=False)
class Queries:
    """Queries to measure with.

    Attributes:
        tokens: token vectors of each query.
        made_of: key of the document that each query was made of. It is easy to find, so it does not count. None if
            users asked the queries.
        excess: so many times as many candidates of the index's first encoding are needed for these queries as for
            questions of users.
    """

    tokens: Sequence[FloatArray]
    made_of: IntArray | None = None
    excess: float = 1.0


def queries_to_measure(corpus: Corpus, given: Sequence[FloatArray] | None, n: int) -> Queries:
    """The queries to measure with: the user's, or half of them if there are many, or pseudo-queries.

    Args:
        corpus: the documents.
        given: the user's queries, or None.
        n: number of pseudo-queries if ``given`` is None.
    """
    if given is None:
        return _stand_ins(corpus, n)
    return Queries(given[::2] if len(given) >= _MIN_TO_SPLIT else given)


def _stand_ins(corpus: Corpus, n: int) -> Queries:
    """Pseudo-queries, half of them parts of texts and half runs of stored tokens, if there are texts and an encoder.

    On some collections parts of texts are harder than questions, on others runs of stored tokens are easier. Together
    they come near questions on all that were measured (docs/benchmarks.md).
    """
    n_runs = n if corpus.encoder is None else n // 2
    runs = pseudo_queries(replace(corpus, encoder=None), n_runs, seed=3)
    if n_runs == n:
        return runs
    parts = pseudo_queries(corpus, n - n_runs, seed=1)
    made_of = [each.made_of for each in (parts, runs) if each.made_of is not None]
    return Queries([*parts.tokens, *runs.tokens], np.concatenate(made_of), _EXCESS)


def queries_to_fit(corpus: Corpus, given: Sequence[FloatArray] | None) -> Sequence[FloatArray]:
    """Token vectors of the queries to fit to: pseudo-queries, and half of the user's queries if there are many."""
    examples = pseudo_queries(corpus, _PSEUDO_QUERIES, seed=2).tokens
    return examples if given is None or len(given) < _MIN_TO_SPLIT else [*given[1::2], *examples]


def pseudo_queries(corpus: Corpus, n: int, seed: int) -> Queries:
    """Pseudo-queries: parts of documents' texts or, without an encoder or a text, runs of stored tokens.

    A part of a text that is encoded by itself resembles a query more than stored tokens do: its tokens have little
    context, too. The documents are drawn at random from the whole corpus, so their order does not matter.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.choice(corpus.keys, size=n)
    queries: list[FloatArray] = []
    for start in range(0, n, _DRAWN_TOGETHER):
        keys, which = np.unique(drawn[start : start + _DRAWN_TOGETHER], return_inverse=True)
        documents = corpus.embeddings(keys)
        batch = [run_of_tokens(documents[i], rng, _STORED_TOKENS) for i in which]
        if corpus.encoder is not None:
            texts = corpus.texts(keys)
            parts = {
                place: part_of_text(text, drawn_length(QUERY_TOKENS, rng) / len(documents[i]), rng)
                for place, i in enumerate(which)
                if (text := texts[i])
            }
            for place, tokens in zip(parts, corpus.encode_queries(list(parts.values())), strict=True):
                batch[place] = tokens
        queries += batch
    return Queries(queries, drawn)
