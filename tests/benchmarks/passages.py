"""How often a hit's passage is the part of a long text that answers the question, and what it costs.

usage: python tests/benchmarks/passages.py FOLDER [--documents 16] [--passages 30] [--questions 2]

Joins passages of a collection in BEIR's format to long documents, those of one title if enough passages have it, with
one space between them, so that nothing shows where a passage ends. A question is asked of the document that holds its
relevant passage. Prints, for the passage of the hit and for simpler choices from the same sentences: how often it
overlaps the relevant passage, is mostly in it and is wholly in it, its characters, and its share that is relevant. Then
the time per hit. With --times, prints only the time, for the collection's own documents.
"""

from __future__ import annotations

import argparse
import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from machine import describe_machine

from muvera_core import MuveraIndex, Passage, StageClock
from muvera_core.encoders import BundledEncoder
from muvera_core.evaluation.collections import BeirCollection, read_beir
from muvera_core.search.best_window import MAX_CHARACTERS, sentence_starts

_WORD = re.compile(r"\w+")


@dataclass
class LongDocument:
    """A text, and its questions with the place of the relevant passage."""

    text: str = ""
    asked: list[tuple[str, int, int]] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=int, default=16, help="number of long documents (default: 16)")
    parser.add_argument("--passages", type=int, default=30, help="passages in each (default: 30)")
    parser.add_argument("--questions", type=int, default=2, help="most questions for each passage (default: 2)")
    parser.add_argument("--times", action="store_true", help="only the time, for the collection's own documents")
    arguments = parser.parse_args()
    collection, chance = read_beir(arguments.folder), random.Random(7)
    print(describe_machine())
    if arguments.times:
        time_own_documents(collection, arguments.folder.name, arguments.documents)
        return
    documents = long_documents(collection, arguments, chance)
    n_questions = sum(len(document.asked) for document in documents)
    mean_length = np.mean([len(document.text) for document in documents])
    print(
        f"{arguments.folder.name}: {len(documents)} documents of {mean_length:.0f} characters, {n_questions} questions"
    )

    outcomes: dict[str, list[tuple[float, ...]]] = {}
    clock, n_hits = StageClock(), 0
    with MuveraIndex.create(None, BundledEncoder()) as index:
        index.add([document.text for document in documents], [str(i) for i in range(len(documents))])
        for i, document in enumerate(documents):
            for question, start, end in document.asked:
                (hit,) = index.search(question, 1, ids=[str(i)], with_passages=True, clock=clock)
                n_hits += 1
                assert hit.passage is not None
                choices = {"passage of the hit": (hit.passage.start, hit.passage.end)}
                choices |= simpler_choices(question, document.text, chance)
                for name, (first, last) in choices.items():
                    common = max(0, min(last, end) - max(first, start))
                    share = common / (last - first)
                    outcomes.setdefault(name, []).append((common > 0, share > 0.5, share == 1, last - first, share))
    print(f"{'':30} overlaps  mostly in  wholly in  characters  relevant")
    for name, rows in outcomes.items():
        overlaps, mostly, wholly, characters, share = np.array(rows, dtype=float).mean(axis=0)
        print(f"{name:30} {overlaps:8.3f} {mostly:10.3f} {wholly:10.3f} {characters:11.0f} {share:9.3f}")
    print(f"time per hit: {clock.seconds['passages'] / n_hits * 1000:.1f} ms")


def long_documents(
    collection: BeirCollection, arguments: argparse.Namespace, chance: random.Random
) -> list[LongDocument]:
    """Passages of one title, or else at random, joined to long documents with questions."""
    asked: dict[str, list[str]] = {}
    for query, relevant in collection.relevance.items():
        asked.setdefault(next(iter(relevant)), []).append(collection.queries[query])
    documents = []
    for group in groups(collection, arguments.passages, chance)[: arguments.documents]:
        document = LongDocument()
        for i in group:
            passage = without_title(collection.texts[i], collection.titles[i])
            start = len(document.text) + bool(document.text)
            document.text += " " * bool(document.text) + passage
            questions = asked.get(collection.ids[i], [])
            for question in chance.sample(questions, min(arguments.questions, len(questions))):
                document.asked.append((question, start, start + len(passage)))
        documents.append(document)
    return documents


def groups(collection: BeirCollection, n: int, chance: random.Random) -> list[list[int]]:
    """Numbers of the passages of each long document."""
    by_title: dict[str, list[int]] = {}
    for i, title in enumerate(collection.titles):
        by_title.setdefault(title, []).append(i)
    of_one_title = [some[:n] for title, some in sorted(by_title.items()) if title and len(some) >= n]
    if of_one_title:
        chance.shuffle(of_one_title)
        return of_one_title
    numbers = list(range(len(collection.ids)))
    chance.shuffle(numbers)
    return [numbers[start : start + n] for start in range(0, len(numbers) - n, n)]


def without_title(text: str, title: str) -> str:
    """The text of a passage without the title before it."""
    return text[len(title) + 1 :] if title and text.startswith(f"{title} ") else text


def simpler_choices(question: str, text: str, chance: random.Random) -> dict[str, tuple[int, int]]:
    """Start and end of what is chosen without token vectors: by rare words in common, the first, and any."""
    starts = list(sentence_starts(text))
    ends = [*starts[1:], len(text)]
    words = [set(_WORD.findall(text[start:end].lower())) for start, end in zip(starts, ends, strict=True)]
    n, asked = len(words), set(_WORD.findall(question.lower()))
    frequency = {word: sum(word in some for some in words) for word in asked}
    weight = {word: math.log(1 + (n - f + 0.5) / (f + 0.5)) for word, f in frequency.items()}

    def overlap(first: int, stop: int) -> float:
        return sum(weight[word] for word in asked & set().union(*words[first:stop]))

    windows = list(widest_windows(starts, ends))
    sentence = max(range(n), key=lambda i: overlap(i, i + 1))
    window = max(windows, key=lambda window: overlap(*window))
    chosen = {
        "sentence by words in common": (sentence, sentence + 1),
        "window by words in common": window,
        "first window": windows[0],
        "random window": chance.choice(windows),
    }
    return {name: (starts[first], ends[stop - 1]) for name, (first, stop) in chosen.items()}


def widest_windows(starts: list[int], ends: list[int]) -> Iterator[tuple[int, int]]:
    """The widest window from each sentence on."""
    for i, start in enumerate(starts):
        yield i, max(i + 1, int(np.searchsorted(ends, start + MAX_CHARACTERS, side="right")))


def time_own_documents(collection: BeirCollection, name: str, n: int) -> None:
    """Print the time per hit, and what of it is tokenizing, for some documents of a collection."""
    texts = collection.texts[:n]
    clock = StageClock()
    encoder = BundledEncoder()
    with MuveraIndex.create(None, encoder) as index:
        index.add(texts, show_progress=True)
        questions = list(collection.queries.values())[:20]
        found: list[Passage | None] = []
        for question in questions:
            found += [hit.passage for hit in index.search(question, 5, with_passages=True, clock=clock)]
        for text in texts:
            with clock.stage("tokenizing"):
                encoder.document_spans(text)
    print(f"{name}: {len(texts)} documents of {np.mean([len(text) for text in texts]):.0f} characters")
    print(f"time per hit: {clock.seconds['passages'] / len(found) * 1000:.1f} ms")
    print(f"tokenizing a document: {clock.seconds['tokenizing'] / len(texts) * 1000:.1f} ms")


if __name__ == "__main__":
    main()
