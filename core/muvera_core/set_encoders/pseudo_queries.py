"""Pseudo-queries made from documents: as long as real queries, and on the documents' subjects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from muvera_core.token_embeddings import FloatArray, TokenEmbeddings

# Shortest and longest pseudo-query, in tokens.
QUERY_TOKENS = (8, 24)


def runs_of_tokens(
    documents: TokenEmbeddings | Sequence[FloatArray], n: int, rng: np.random.Generator
) -> list[FloatArray]:
    """``n`` runs of 8 to 24 consecutive tokens, each from a document drawn at random."""
    return [run_of_tokens(documents[i], rng) for i in rng.integers(len(documents), size=n)]


def run_of_tokens(tokens: FloatArray, rng: np.random.Generator, lengths: tuple[int, int] = QUERY_TOKENS) -> FloatArray:
    """Consecutive tokens of a document, drawn at random: as many as ``lengths`` allows, or all if there are fewer."""
    length = min(len(tokens), drawn_length(lengths, rng))
    start = int(rng.integers(len(tokens) - length + 1))
    return tokens[start : start + length]


def drawn_length(lengths: tuple[int, int], rng: np.random.Generator) -> int:
    """A random number from the shortest length to the longest."""
    shortest, longest = lengths
    return int(rng.integers(shortest, longest + 1))


def part_of_text(text: str, share: float, rng: np.random.Generator) -> str:
    """About this share of a text, from a random position. It has whole words if spaces separate the words."""
    length = min(len(text), max(1, round(share * len(text))))
    start = int(rng.integers(len(text) - length + 1))
    part = text[start : start + length]
    words = part.split()
    # Leave out a word that was cut.
    if start > 0 and not text[start - 1].isspace():
        words = words[1:]
    if start + length < len(text) and not text[start + length].isspace():
        words = words[:-1]
    return " ".join(words) or part.strip() or text
