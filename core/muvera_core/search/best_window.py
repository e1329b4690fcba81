"""The part of a text that matches a query best: a window MaxSim over runs of whole sentences.

For each query token only the best similarity inside a window counts, as in MaxSim. A query token that matches
everywhere alike, such as a marker, says nothing about the place, so tokens are weighted by how much they tell sentences
apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from muvera_core.hits import Passage
from muvera_core.token_embeddings import FloatArray, IntArray

# Most characters of a passage: about 80 words, or 100 tokens. A longer text is cut at sentences and lines.
MAX_CHARACTERS = 500
# The end of a sentence or of a line. A full stop before a small letter is one of an abbreviation.
_SENTENCE_END = re.compile(r"[.!?…؟۔।][\"'”’)\]]*\s++(?![a-z])|[。！？]\s*|\n\s*")
# The share of the window's mean sentence. It moves a window that holds the best match to the sentences around it that
# match, too. docs/benchmarks.md has the measurements.
_SHARE_OF_MEAN = 0.1


def whole_passage(text: str) -> Passage | None:
    """The whole text, without white space around it, if it is short enough for a passage; otherwise None."""
    passage = _stripped(text, 0, len(text))
    return passage if passage.end - passage.start <= MAX_CHARACTERS else None


def best_window(text: str, spans: IntArray, similarities: FloatArray) -> Passage | None:
    """The run of whole sentences of at most ``MAX_CHARACTERS`` that matches best. A longer sentence is cut at words.

    Args:
        text: the text.
        spans: start and end character of each of the text's tokens, int64, shape (tokens, 2). Tokens with start == end,
            which are markers, count nowhere. A part of the text without tokens, such as the end that an encoder cut
            off, matches nothing.
        similarities: of each query token with each of these tokens, float32, shape (query tokens, tokens).

    Returns:
        The passage, without white space around it. None if no token has a place in the text.
    """
    placed = np.flatnonzero(spans[:, 1] > spans[:, 0])
    if not len(placed):
        return None
    starts = np.array(list(sentence_starts(text)), dtype=np.int64)
    ends = np.append(starts[1:], len(text))
    sentences = _best_per_sentence(similarities[:, placed], spans[placed, 0], starts)
    # The last sentence of the widest window from each sentence on. A wider window never matches less.
    stops = np.searchsorted(ends, starts + MAX_CHARACTERS, side="right")
    first, stop = _best_run(sentences, stops, ends - starts)
    return _stripped(text, int(starts[first]), int(ends[stop - 1]))


def _best_per_sentence(similarities: FloatArray, places: IntArray, starts: IntArray) -> FloatArray:
    """The best similarity of each query token in each sentence, shape (query tokens, sentences).

    Where a sentence has no token, it is the lowest similarity of all.
    """
    owners = np.searchsorted(starts, places, side="right") - 1
    order = np.argsort(owners, kind="stable")
    firsts = np.flatnonzero(np.diff(owners[order], prepend=-1))
    best: FloatArray = np.full((len(similarities), len(starts)), similarities.min(initial=0), dtype=np.float32)
    best[:, owners[order[firsts]]] = np.maximum.reduceat(similarities[:, order], firsts, axis=1)
    return best


def _best_run(sentences: FloatArray, stops: IntArray, lengths: IntArray) -> tuple[int, int]:
    """First and last-plus-one sentence of the best window; window ``i`` is the sentences ``i:stops[i]``."""
    n = len(stops)
    weights = (sentences.max(axis=1) - sentences.mean(axis=1)) ** 2
    windows = sentences.copy()
    places = np.arange(n)
    for step in range(1, int((stops - places).max())):
        within = np.flatnonzero(places + step < stops)
        windows[:, within] = np.maximum(windows[:, within], sentences[:, within + step])
    ends_of_sums = np.append(0, np.cumsum((weights @ sentences) * lengths))
    ends_of_lengths = np.append(0, np.cumsum(lengths))
    means = (ends_of_sums[stops] - ends_of_sums[:n]) / (ends_of_lengths[stops] - ends_of_lengths[:n])
    first = int((weights @ windows + _SHARE_OF_MEAN * means).argmax())
    return first, int(stops[first])


def sentence_starts(text: str) -> Iterator[int]:
    """Where each sentence begins. One of more than ``MAX_CHARACTERS`` begins anew between words, or within a word."""
    start = len(text) - len(text.lstrip())
    for end in [*(match.end() for match in _SENTENCE_END.finditer(text, start)), len(text)]:
        if end == start:
            continue  # the text ends with the sentence before
        yield start
        while end - start > MAX_CHARACTERS:
            space = text.rfind(" ", start + 1, start + MAX_CHARACTERS)
            start = start + MAX_CHARACTERS if space < 0 else space + 1
            yield start
        start = end


def _stripped(text: str, start: int, end: int) -> Passage:
    part = text[start:end]
    start += len(part) - len(part.lstrip())
    return Passage(part.strip(), start, start + len(part.strip()))
