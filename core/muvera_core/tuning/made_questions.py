"""Questions that are made of documents, each with the document that it was made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from muvera_core.set_encoders import QUERY_TOKENS, drawn_length, part_of_text, run_of_tokens
from muvera_core.token_embeddings import FloatArray, TokenEmbeddings, unit_length
from muvera_core.tuning.corpus import Corpus
from muvera_core.validation import has_visible_text

_MADE_TOGETHER = 64
# The largest share of a short text: a question that is its document is far too easy.
_LARGEST_PART = 0.5
# Shortest and longest run of stored tokens that stands in for a question.
_STORED_TOKENS = (4, 12)
# The cosine between a stored token and the one that stands in for a question's token: about that of a question's tokens
# and the passage's that answers it.
_COSINES = (0.6, 0.9)


@dataclass(frozen=True, eq=False)
class MadeQuestion:
    """A question that was made of a document.

    Attributes:
        tokens: token vectors, float32, shape (tokens, dimension).
        id: id of the document.
        words: the part of its text, with single spaces. None for a run of stored tokens.
    """

    tokens: FloatArray
    id: str
    words: str | None


def make_questions(corpus: Corpus, n: int, seed: int) -> list[MadeQuestion]:
    """``n`` questions: parts of texts or, if there is no encoder or no document has a text, runs of stored tokens."""
    rng = np.random.default_rng(seed)
    drawn = rng.choice(corpus.keys, size=n)
    questions: list[MadeQuestion] = []
    for start in range(0, n, _MADE_TOGETHER):
        keys, which = np.unique(drawn[start : start + _MADE_TOGETHER], return_inverse=True)
        documents = corpus.collection.store.documents(corpus.snapshot, keys)
        tokens = corpus.embeddings(keys)
        parts: list[tuple[str, str]] = []
        for i in which.tolist():
            text = documents[i].text
            if corpus.encoder is not None and text and has_visible_text(text):
                share = min(_LARGEST_PART, drawn_length(QUERY_TOKENS, rng) / len(tokens[i]))
                part = part_of_text(text, share, rng)
                parts.append((documents[i].id, " ".join(part.split())))
        if parts:
            encoded = corpus.encode_queries([words for _, words in parts])
            questions += [MadeQuestion(vectors, id, words) for vectors, (id, words) in zip(encoded, parts, strict=True)]
        else:
            questions += [MadeQuestion(_blurred(tokens, i, rng), documents[i].id, None) for i in which.tolist()]
    with_words = [question for question in questions if question.words is not None]
    return with_words or questions


def _blurred(documents: TokenEmbeddings, i: int, rng: np.random.Generator) -> FloatArray:
    """A run of a document's tokens, each turned towards another token until their cosine is the one that is drawn."""
    run = unit_length(run_of_tokens(documents[i], rng, _STORED_TOKENS))
    others = unit_length(documents.vectors[rng.integers(len(documents.vectors), size=len(run))])
    across = unit_length(others - (others * run).sum(axis=1, keepdims=True) * run)
    cosine = np.float32(rng.uniform(*_COSINES))
    blurred: FloatArray = cosine * run + np.sqrt(1 - cosine**2) * across
    return blurred
