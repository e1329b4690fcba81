"""Stand-ins for questions, made of documents: as long as questions are, and about what the documents are about."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from muvera_core.token_embeddings import FloatArray, TokenEmbeddings

QUERY_TOKENS = (8, 24)


def runs_of_tokens(
    documents: TokenEmbeddings | Sequence[FloatArray], n: int, rng: np.random.Generator
) -> list[FloatArray]:
    """``n`` runs of 8 to 24 consecutive tokens, each of a document drawn at random."""
    return [run_of_tokens(documents[i], rng) for i in rng.integers(len(documents), size=n)]


def run_of_tokens(tokens: FloatArray, rng: np.random.Generator) -> FloatArray:
    """8 to 24 consecutive tokens of a document; all where there are fewer."""
    shortest, longest = QUERY_TOKENS
    length = min(len(tokens), int(rng.integers(shortest, longest + 1)))
    start = int(rng.integers(len(tokens) - length + 1))
    return tokens[start : start + length]


def part_of_text(text: str, share: float, rng: np.random.Generator) -> str:
    """About this share of a text, from a random place on; whole words, where words are set apart by spaces."""
    length = min(len(text), max(1, round(share * len(text))))
    start = int(rng.integers(len(text) - length + 1))
    part = text[start : start + length]
    words = part.split()
    # A word that is cut in two isn't one of the text.
    if start > 0 and not text[start - 1].isspace():
        words = words[1:]
    if start + length < len(text) and not text[start + length].isspace():
        words = words[:-1]
    return " ".join(words) or part.strip() or text
