"""Pseudo-queries made from documents: as long as real queries, and on the documents' subjects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from muvera_core.token_embeddings import FloatArray, TokenEmbeddings

# Shortest and longest pseudo-query, in tokens.
QUERY_TOKENS = (8, 24)
# Longer runs of characters without a space are no words. They may be cut anywhere.
_LONGEST_WORD = 30


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
    end = start + length
    part = text[start:end]
    if any(map(str.isspace, part)):
        # Complete the words that were cut. Without them, a short part would say nothing: "and even", "important tool".
        start -= _word_length(text[max(0, start - _LONGEST_WORD) : start][::-1])
        end += _word_length(text[end : end + _LONGEST_WORD])
        part = text[start:end]
    return " ".join(part.split()) or text


def _word_length(characters: str) -> int:
    """Number of characters before the first space. 0 if there are too many for a word."""
    n = next((i for i, character in enumerate(characters) if character.isspace()), len(characters))
    return n if n < _LONGEST_WORD else 0
