"""Answers without a model: quotes the sentences of the passages that match the question best."""

from __future__ import annotations

import re
from collections.abc import Sequence

from muvera_chat.answering.conversation import Quote
from muvera_chat.answering.sources import Source
from muvera_core import TokenEncoder, score_texts

_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+(?![a-z])|(?<=[。！？])\s*|\n\s*\n|\n(?=\s*[-*#|>])")
# Code, headings, and rows of tables are no sentences.
_CODE = re.compile(r"^```.*?(^```|\Z)", re.DOTALL | re.MULTILINE)
_NO_SENTENCE = ("#", "|", "```")
# A number or a single word answers little.
_LEAST_CHARACTERS = 10
_MAX_CHARACTERS = 500
# Each sentence is encoded, which takes some milliseconds. The best passages come first.
_MAX_SENTENCES = 40
_MAX_QUOTES = 3
# Only sources are quoted that are nearly as relevant as the best one.
_SHARE_OF_RELEVANCE = 0.5
# Other sentences are quoted beside the best one if they match nearly as well.
_SHARE_OF_BEST = 0.93


def quote(encoder: TokenEncoder, query: str, sources: Sequence[Source]) -> list[Quote]:
    """The sentences of the sources that match a query best, at most three, in the order of the sources.

    Args:
        encoder: compares the query with each sentence by late interaction.
        query: the question.
        sources: the passages. Images without a text have no sentences.
    """
    least = _SHARE_OF_RELEVANCE * max((source.relevance for source in sources), default=0.0)
    near = [source for source in sources if source.relevance >= least]
    candidates = [Quote(sentence, source.number) for source in near for sentence in sentences_of(source.text)]
    distinct = list({candidate.text: candidate for candidate in reversed(candidates)}.values())[::-1][:_MAX_SENTENCES]
    if not distinct:
        return []
    scores, _ = score_texts(encoder, query, [candidate.text for candidate in distinct])
    ranked = sorted(range(len(distinct)), key=lambda i: -scores[i])
    best = [i for i in ranked[:_MAX_QUOTES] if scores[i] >= _SHARE_OF_BEST * scores[ranked[0]]]
    return [distinct[i] for i in sorted(best)]


def sentences_of(text: str) -> list[str]:
    r"""The sentences of a passage, each on one line. Headings, rows, code and short pieces only if there are no others.

    >>> sentences_of("# Owls\n\nThey hunt at night, e.g. mice and voles. Their ears are keen, too.")
    ['They hunt at night, e.g. mice and voles.', 'Their ears are keen, too.']
    """
    pieces = [" ".join(piece.split())[:_MAX_CHARACTERS] for piece in _SENTENCE_END.split(_CODE.sub("\n\n", text))]
    pieces = [piece for piece in pieces if piece]
    return [
        piece for piece in pieces if len(piece) >= _LEAST_CHARACTERS and not piece.startswith(_NO_SENTENCE)
    ] or pieces
