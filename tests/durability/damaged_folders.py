"""A small index with some of everything, ways to damage its folder, and a fixed set of questions to ask it."""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from muvera_core import FDEConfig, MuveraIndex, TokenEmbeddings
from muvera_core.errors import CorruptIndexError, EncoderMismatchError, NotAnIndexError, UnsupportedFormatError
from muvera_core.stage_one import stage_one

D = 16
FDE = FDEConfig(dimension=D, num_repetitions=4, num_simhash_projections=2, projection_dimension=4)
KINDS = ("flat", "hnsw")
N_DOCUMENTS = 24
WORDS = re.findall(r"\w+", "ant bee cat dog elk fox gnu hen ibis jay koi lynx mole newt owl pig quail rat seal tern")
QUESTIONS = ("owl and rat", "a fox", "quail seal tern ant")
FILTERS: tuple[dict[str, Any], ...] = (
    {"n": {"$lt": 12}},
    {"tags": "even"},
    {"author.name": "Ada"},
    {"year": {"$gte": 2000.5}, "draft": False},
    {"note": None},
    {"title": {"$like": "%ö%"}},
    {"$or": [{"n": 3}, {"tags": ["odd", "third"]}]},
    {"missing": {"$exists": False}},
)
AT_OPEN = (CorruptIndexError, NotAnIndexError, UnsupportedFormatError, EncoderMismatchError)
WAYS = ("bit", "noise", "zeros", "cut", "tail", "delete", "other", "older")
CORRUPT = "CorruptIndexError"


class WordEncoder:
    """One vector per word, from nothing but the word's letters."""

    dimension = D
    fingerprint = "words-16"

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        return TokenEmbeddings.from_list([[_vector(word) for word in text.split()] for text in texts], D)

    encode_queries = encode_documents

    def document_spans(self, text: str) -> np.ndarray:
        return np.array([match.span() for match in re.finditer(r"\S+", text)], dtype=np.int64)

    query_spans = document_spans


@cache
def _vector(word: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
    vector = np.random.default_rng(seed).standard_normal(D).astype(np.float32)
    return vector / np.linalg.norm(vector)


ENCODER = WordEncoder()


def use(kind: str) -> None:
    """Let stage one be of this kind from here on, in this process."""
    stage_one.FLAT_LIMIT = 10 if kind == "hnsw" else 10_000


def make(folder: Path, kind: str, seed: int = 0) -> Path:
    """An index in ``folder / "index"`` and an older state of it in ``folder / "older"``, both closed."""
    use(kind)
    rng = random.Random(seed)
    path = folder / "index"

    def add(index: MuveraIndex, numbers: Sequence[int]) -> None:
        texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 12))) for _ in numbers]
        index.add(texts, ids=[f"d{n}" for n in numbers], metadatas=[_metadata(n) for n in numbers])

    with MuveraIndex.create(path, ENCODER, FDE) as index:
        add(index, range(N_DOCUMENTS // 2))
    shutil.copytree(path, folder / "older")
    with MuveraIndex.open(path, ENCODER) as index:
        add(index, range(N_DOCUMENTS // 2 - 3, N_DOCUMENTS + 2))  # three of them replace older ones
        index.delete(["d1", f"d{N_DOCUMENTS + 1}"])
    return path


def _metadata(n: int) -> dict[str, Any]:
    return {
        "n": n,
        "year": 1990 + n / 2,
        "draft": n % 3 == 0,
        "tags": ["even" if n % 2 == 0 else "odd", *(["third"] if n % 3 == 0 else [])],
        "author": {"name": "Ada" if n % 5 else "Bob", "born": None},
        "title": f"T{n} schön" if n % 4 else "",
        **({"note": "x" * n} if n % 7 else {}),
    }


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def damage(folder: Path, name: str, way: str, rng: random.Random, other: Path, older: Path) -> str:
    """Damage one file, at a random place. Returns what was done; "" where it left the file as it was."""
    path = folder / name
    before = path.read_bytes()
    content = bytearray(before)
    place = rng.randrange(len(content)) if content else 0
    where = f"at {place} of {len(content)}"
    match way:
        case "bit" if content:
            content[place] ^= 1 << rng.randrange(8)
        case "noise" | "zeros" if content:
            n = min(rng.randint(1, 512), len(content) - place)
            content[place : place + n] = rng.randbytes(n) if way == "noise" else bytes(n)
            where += f", {n} bytes"
        case "cut":
            del content[place:]
        case "tail":
            content += rng.randbytes(rng.randint(1, 5000))
        case "delete":
            path.unlink()
            return "deleted"
        case "other" | "older":
            source = (other if way == "other" else older) / name
            if not source.exists():
                return ""
            content = bytearray(source.read_bytes())
    path.write_bytes(content)
    return where if bytes(content) != before else ""


def ask(index: MuveraIndex, *, briefly: bool = False) -> dict[str, Any]:
    """The answers to the fixed questions, or CORRUPT in place of those that are refused for damage."""
    answers: dict[str, Any] = {}
    for name, call in (*_calls(index), *(() if briefly else _calls_by_id(index))):
        try:
            answers[name] = json.loads(json.dumps(call()))
        except CorruptIndexError:
            answers[name] = CORRUPT
    return answers


def _calls(index: MuveraIndex) -> Iterator[tuple[str, Callable[[], Any]]]:
    yield "len", lambda: len(index)
    yield "all", lambda: [_shown(document) for document in index.find()]
    yield "in", lambda: ["d0" in index, "d1" in index, "nobody" in index]
    for i, filter in enumerate(FILTERS):
        yield f"find {i}", partial(_found, index, filter)
        yield f"filtered {i}", partial(_hits, index, QUESTIONS[0], filter=filter)
        yield f"filtered candidates {i}", partial(_hits, index, QUESTIONS[1], k=5, n_candidates=5, filter=filter)
    for question in QUESTIONS:
        yield f"exact {question}", partial(_hits, index, question, k=100, exact=True)
        yield f"default {question}", partial(_hits, index, question)
        yield f"candidates {question}", partial(_hits, index, question, k=5, n_candidates=5)
        yield f"diverse {question}", partial(_diverse, index, question)


def _calls_by_id(index: MuveraIndex) -> Iterator[tuple[str, Callable[[], Any]]]:
    for n in range(N_DOCUMENTS + 2):
        yield f"get d{n}", partial(_got, index, f"d{n}")
        yield f"explain d{n}", partial(_explained, index, f"d{n}")


def _got(index: MuveraIndex, id: str) -> Any:
    return [_shown(document) for document in index.get(id)]


def _explained(index: MuveraIndex, id: str) -> Any:
    matches = index.explain(QUESTIONS[0], id) if id in index else []
    return [(match.query_token, match.document_token, match.similarity) for match in matches]


def _found(index: MuveraIndex, filter: dict[str, Any]) -> Any:
    return [document.id for document in index.find(filter)]


def _hits(index: MuveraIndex, question: str, **options: Any) -> Any:
    return [_shown_hit(hit) for hit in index.search(question, **options)]


def _diverse(index: MuveraIndex, question: str) -> Any:
    return [_shown_hit(hit) for hit in index.search_diverse(question, k=5)]


def _shown(document: Any) -> Any:
    return [document.id, document.text, document.metadata]


def _shown_hit(hit: Any) -> Any:
    return [hit.id, round(hit.score, 4), hit.text, hit.metadata]


def answers(folder: Path, *, read_only: bool, briefly: bool = False) -> dict[str, Any] | str:
    """``ask`` an index that is opened for it, or the name of the error that opening it raised."""
    try:
        index = MuveraIndex.open(folder, ENCODER, read_only=read_only)
    except AT_OPEN as error:
        return type(error).__name__
    with index:
        return ask(index, briefly=briefly)


def wrong(found: dict[str, Any] | str, *right: dict[str, Any] | str) -> list[str]:
    """The answers that are neither refused nor those of one of the states that are right."""
    if isinstance(found, str):
        return []
    differences = [
        [name for name, answer in found.items() if answer != CORRUPT and answer != state[name]]
        for state in right
        if isinstance(state, dict)
    ]
    return min(differences, key=len)
