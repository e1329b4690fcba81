"""How long passages should be, how much they should overlap, and whether headings should stand before them.

usage: python tests/benchmarks/passages_by_size.py articles FOLDER [--questions 300]
       python tests/benchmarks/passages_by_size.py docs FOLDER

"articles" takes a collection in BEIR's format whose documents are long, and asks its questions of their passages, by
exact MaxSim. It prints how often the first hit is of the right article, and the MRR of that article.

"docs" takes a folder of Markdown files, such as ``docs/``, and asks ``data/docs_questions.jsonl`` (question, file and
the heading of the section that answers it). It prints how often the first hit is of the right file; how often it has
text of the right section; the MRR of that; and which share of the section is among the first 1,000 tokens of the hits,
which does not depend on the passages' size.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from machine import describe_machine

from muvera_core import MuveraIndex, TextPassage, split_text
from muvera_core.corpus.blocks import find_blocks
from muvera_core.encoders import BundledEncoder
from muvera_core.evaluation.collections import read_beir

QUESTIONS = Path(__file__).with_name("data") / "docs_questions.jsonl"
# What a language model is given of the hits.
CONTEXT_TOKENS = 1_000
N_HITS = 50
Passages = dict[str, list[TextPassage]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["articles", "docs"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--articles", type=int, default=40, help="articles that are indexed (default: 40)")
    parser.add_argument("--questions", type=int, default=300, help="questions about them (default: 300)")
    parser.add_argument(
        "--settings",
        nargs="*",
        default=["64", "128", "192", "256", "384", "512", "0"],
        metavar="TOKENS[/OVERLAP][+h]",
        help="what to measure; +h puts the headings before the text, 0 does not split",
    )
    arguments = parser.parse_args()
    print(describe_machine())
    for line in articles(arguments) if arguments.what == "articles" else docs(arguments):
        print(line, flush=True)


def articles(arguments: argparse.Namespace) -> Iterator[str]:
    collection, chance = read_beir(arguments.folder), random.Random(7)
    texts = dict(zip(collection.ids, collection.texts, strict=True))
    texts = {id: texts[id] for id in chance.sample(collection.ids, min(arguments.articles, len(texts)))}
    right = {query: next(iter(found)) for query, found in collection.relevance.items()}
    asked = sorted(query for query in collection.queries if right[query] in texts)
    asked = chance.sample(asked, min(arguments.questions, len(asked)))
    yield f"{len(texts)} articles, {len(asked)} questions"
    yield f"{'setting':12} passages  tokens  right first   MRR  seconds"
    for setting in arguments.settings:
        started = time.perf_counter()
        split = {id: passages_of(text, setting, "plain") for id, text in texts.items()}
        with indexed(split, setting) as index:
            ranks = []
            for query in asked:
                found = [owner(hit.id) for hit in index.search(collection.queries[query], N_HITS, exact=True)]
                ranks.append(rank_of(right[query], list(dict.fromkeys(found))))
            seconds = time.perf_counter() - started
            yield f"{setting:12} {describe(index, split)} {first(ranks):12.3f} {mrr(ranks):5.3f} {seconds:8.0f}"


def docs(arguments: argparse.Namespace) -> Iterator[str]:
    texts = {path.name: path.read_text() for path in sorted(arguments.folder.glob("*.md"))}
    asked = [json.loads(line) for line in QUESTIONS.read_text().splitlines()]
    sections = [section_of(texts.get(entry["file"], ""), entry["heading"]) for entry in asked]
    yield f"{len(texts)} files, {sum(section is not None for section in sections)} of {len(asked)} questions"
    encoder = BundledEncoder()
    yield f"{'setting':12} passages  tokens  right file first  section first   MRR  share in context"
    for setting in arguments.settings:
        split = {name: passages_of(text, setting, "markdown") for name, text in texts.items()}
        with indexed(split, setting) as index:
            files, ranks, shares = [], [], []
            for entry, section in zip(asked, sections, strict=True):
                if section is None:
                    continue
                hits = index.search(entry["question"], N_HITS, exact=True)
                found = [(owner(hit.id), split[owner(hit.id)][int(hit.id.rpartition("#")[2])]) for hit in hits]
                right = [name == entry["file"] and overlap(passage, section) > 0 for name, passage in found]
                files.append(found[0][0] == entry["file"])
                ranks.append(right.index(True) + 1 if True in right else 0)
                shares.append(share_in_context(encoder, entry["file"], section, found))
            yield (
                f"{setting:12} {describe(index, split)} {np.mean(files):17.3f} {first(ranks):14.3f} {mrr(ranks):5.3f} "
                f"{np.mean(shares):17.3f}"
            )


def passages_of(text: str, setting: str, markup: str) -> list[TextPassage]:
    tokens, _, overlap = setting.removesuffix("+h").partition("/")
    return split_text(text, max_tokens=int(tokens) or None, overlap=int(overlap or 0), markup=markup)  # type: ignore[arg-type]


def indexed(split: Passages, setting: str) -> MuveraIndex:
    ids, texts = [], []
    for name, passages in split.items():
        for i, passage in enumerate(passages):
            ids.append(f"{name}#{i}")
            prefix = f"{passage.heading}\n\n" if setting.endswith("+h") and passage.heading else ""
            texts.append(prefix + passage.text)
    index = MuveraIndex.create(None, BundledEncoder(max_document_tokens=1 << 20), lexical=False)
    index.add(texts, ids)
    return index


def section_of(text: str, heading: str) -> tuple[int, int] | None:
    """Start and end of a section, without the sections below it."""
    starts = [(block.start, block.title) for block in find_blocks(text, "markdown") if block.kind == "heading"]
    ends = [start for start, _ in starts[1:]] + [len(text)]
    return next(((start, end) for (start, title), end in zip(starts, ends, strict=True) if title == heading), None)


def share_in_context(
    encoder: BundledEncoder, file: str, section: tuple[int, int], found: list[tuple[str, TextPassage]]
) -> float:
    """The share of a section's characters that are in the first hits, as many as fit."""
    room, covered = CONTEXT_TOKENS, np.zeros(section[1] - section[0], dtype=bool)
    for name, passage in found:
        spans = encoder.document_spans(passage.text)
        end = passage.end if len(spans) <= room else passage.start + int(spans[max(room, 0), 0])
        if name == file:
            covered[max(0, passage.start - section[0]) : max(0, end - section[0])] = True
        room -= len(spans)
        if room <= 0:
            break
    return float(covered.mean())


def overlap(passage: TextPassage, section: tuple[int, int]) -> int:
    return max(0, min(passage.end, section[1]) - max(passage.start, section[0]))


def owner(id: str) -> str:
    return id.rpartition("#")[0]


def rank_of(wanted: str, found: list[str]) -> int:
    return found.index(wanted) + 1 if wanted in found else 0


def first(ranks: list[int]) -> float:
    return float(np.mean([rank == 1 for rank in ranks]))


def mrr(ranks: list[int]) -> float:
    return float(np.mean([1 / rank if rank else 0 for rank in ranks]))


def describe(index: MuveraIndex, split: Passages) -> str:
    n = sum(map(len, split.values()))
    return f"{n:8} {index.n_tokens / n:7.0f}"


if __name__ == "__main__":
    main()
