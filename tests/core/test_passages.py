from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from patch_encoder import PatchEncoder

from muvera_core import Hit, MuveraIndex, Passage, StageClock, TokenEmbeddings
from muvera_core.encoders import BundledEncoder, PrecomputedEmbeddings
from muvera_core.evaluation.collections import BeirCollection
from muvera_core.search.best_window import MAX_CHARACTERS, best_window, whole_passage

OWLS = "Owls hunt at night. Their feathers make no sound."
QUESTION = "Which bird flies without a sound?"


class CountingEncoder(BundledEncoder):
    """Notes which documents it encodes."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.encoded: list[str] = []

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        self.encoded += texts
        return super().encode_documents(texts)


@pytest.fixture(scope="module")
def article(nq: BeirCollection) -> str:
    """Ten passages of an encyclopedia with the owls in their midst: more tokens than one window of the encoder."""
    return "\n".join([*nq.texts[:5], OWLS, *nq.texts[5:10]])


def passage(hits: Sequence[Hit]) -> Passage:
    """The first hit's passage, which must be where it says."""
    found = hits[0].passage
    assert found is not None
    assert hits[0].text is not None
    assert hits[0].text[found.start : found.end] == found.text
    return found


@pytest.mark.parametrize("place", ["memory", "folder"])
def test_the_passage_holds_what_was_asked_for(place: str, article: str, nq: BeirCollection, tmp_path: Path) -> None:
    encoder = CountingEncoder()
    with MuveraIndex.create(None if place == "memory" else tmp_path / "index", encoder) as index:
        index.add([article, nq.texts[20]], ids=["article", "other"])
        encoder.encoded.clear()
        hits = index.search(QUESTION, with_passages=True)
        assert OWLS in passage(hits).text
        assert len(passage(hits).text) <= MAX_CHARACTERS
        assert encoder.encoded == []
        assert index.search_batch([QUESTION] * 2, with_passages=True)[1] == hits
        tokens = encoder.encode_queries([QUESTION])
        assert index.search_embeddings(tokens, with_passages=True)[0].passage == hits[0].passage
        assert [hit.passage for hit in index.search(QUESTION)] == [None, None]


def test_every_place_in_a_long_text_can_be_found(nq: BeirCollection) -> None:
    asked = [(next(iter(relevant)), nq.queries[query]) for query, relevant in list(nq.relevance.items())[:20]]
    texts = dict(zip(nq.ids, nq.texts, strict=True))
    parts = {id: texts[id] for id, _ in asked}
    text = "\n".join(parts.values())
    with MuveraIndex.create(None) as index:
        index.add([text])
        found = [passage(hits) for hits in index.search_batch([question for _, question in asked], with_passages=True)]
    answers = [(text.index(parts[id]), text.index(parts[id]) + len(parts[id])) for id, _ in asked]
    overlaps = [each.start < end and start < each.end for each, (start, end) in zip(found, answers, strict=True)]
    assert sum(overlaps) >= 19


def test_a_short_text_is_its_own_passage(encoder: BundledEncoder) -> None:
    with MuveraIndex.create(None, encoder) as index:
        index.add([f"\n {OWLS} "])
        assert passage(index.search(QUESTION, with_passages=True)) == Passage(OWLS, 2, 2 + len(OWLS))


def test_what_the_encoder_cut_off_is_never_the_passage(article: str) -> None:
    with MuveraIndex.create(None, CountingEncoder(max_document_tokens=40)) as index:
        with pytest.warns(UserWarning, match="max_document_tokens"):
            index.add([article])
        assert passage(index.search(QUESTION, with_passages=True)).start == 0


def test_a_merged_token_has_no_place(encoder: BundledEncoder, article: str) -> None:
    with MuveraIndex.create(None, encoder, pool_factor=2) as index:
        index.add([article, OWLS], ids=["article", "owls"])
        found = {hit.id: hit.passage for hit in index.search(QUESTION, with_passages=True)}
        assert found == {"article": None, "owls": Passage(OWLS, 0, len(OWLS))}


def test_tokens_of_unknown_places_give_no_passage(article: str) -> None:
    tokens = np.eye(4, 128, dtype=np.float32)
    for encoder in (BundledEncoder(), PrecomputedEmbeddings(128, "mine")):
        with MuveraIndex.create(None, encoder) as index:
            index.add_embeddings([tokens] * 3, ids=["a", "b", "c"], texts=[article, OWLS, OWLS])
            index.add_embeddings([tokens], ids=["no text"])
            hits = index.search_embeddings(tokens, with_passages=True)
            assert {hit.id: hit.passage is not None for hit in hits} == {
                "a": False,
                "b": True,
                "c": True,
                "no text": False,
            }


def test_an_image_has_no_passage() -> None:
    image = pytest.importorskip("PIL.Image")
    with MuveraIndex.create(None, PatchEncoder()) as index:
        index.add_images([image.new("RGB", (32, 32), (255, 0, 0))], ids=["red"])
        assert [hit.passage for hit in index.search("red", with_passages=True)] == [None]


def test_a_query_without_words_has_hits_without_passages(encoder: BundledEncoder) -> None:
    with MuveraIndex.create(None, encoder) as index:
        index.add([OWLS], ids=["owls"])
        assert index.search(" ", with_passages=True) == []
        assert [hit.passage for hit in index.search(" ", ids=["owls"], with_passages=True)] == [None]


def test_the_clock_tells_what_passages_cost(encoder: BundledEncoder) -> None:
    clock = StageClock()
    with MuveraIndex.create(None, encoder) as index:
        index.add([OWLS])
        index.search(QUESTION, with_passages=True, clock=clock)
    assert list(clock.seconds)[-1] == "passages"


# The window itself, with one token per word


def window(text: str, matching: Mapping[str, Sequence[float]], n_query_tokens: int = 1) -> Passage | None:
    """The best window of a text whose words match as ``matching`` says, and else not at all."""
    places: list[tuple[int, int]] = []
    for word in text.split():
        start = text.index(word, places[-1][1] if places else 0)
        places.append((start, start + len(word)))
    nothing = [0.0] * n_query_tokens
    similarities = np.array([matching.get(text[start:end], nothing) for start, end in places], dtype=np.float32)
    return best_window(text, np.array(places, dtype=np.int64), similarities.T)


def filler(n: int) -> str:
    return " ".join(["It says nothing at all about the matter, which is a pity for all."] * n)


def test_a_window_ends_with_sentences() -> None:
    text = f"{filler(20)} Here is the needle, e.g. this one. {filler(20)}"
    found = window(text, {"needle,": [1.0]})
    assert found is not None
    assert "Here is the needle, e.g. this one." in found.text
    assert found.text.startswith(("It says", "Here is"))
    assert found.text.endswith((".", "one."))
    assert MAX_CHARACTERS / 2 < len(found.text) <= MAX_CHARACTERS


def test_a_window_with_both_words_beats_windows_with_one_each() -> None:
    text = f"First alpha. {filler(20)} Then alpha. Then beta. {filler(20)} Last beta."
    found = window(text, {"alpha.": [1.0, 0.0], "beta.": [0.0, 1.0]}, n_query_tokens=2)
    assert found is not None
    assert "Then alpha. Then beta." in found.text


def test_a_query_token_that_matches_everywhere_does_not_move_the_window() -> None:
    text = f"A weak word. {filler(20)} Here is the needle. {filler(20)}"
    everywhere = {word: [0.0, *[0.9] * 6] for word in text.split()}
    matching = everywhere | {"weak": [0.0, *[1.0] * 6], "needle.": [0.5, *[0.9] * 6]}
    found = window(text, matching, n_query_tokens=7)
    assert found is not None
    assert "needle" in found.text


@pytest.mark.parametrize("glue", [" ", ""], ids=["words", "no spaces"])
def test_a_text_without_sentences_is_cut(glue: str) -> None:
    text = glue.join(["word"] * 400)
    spans = np.array([(i * len(f"word{glue}"), i * len(f"word{glue}") + 4) for i in range(400)], dtype=np.int64)
    similarities = np.zeros((1, 400), dtype=np.float32)
    similarities[0, 250] = 1
    found = best_window(text, spans, similarities)
    assert found is not None
    assert found.start <= spans[250, 0] < spans[250, 1] <= found.end
    assert found.text == text[found.start : found.end]
    assert MAX_CHARACTERS / 2 < len(found.text) <= MAX_CHARACTERS


def test_markers_and_places_without_tokens_match_nothing() -> None:
    text = f"{filler(20)} Here is the needle. {filler(20)}"
    needle = text.index("needle")
    spans = np.array([(0, 0), (needle, needle + 6), (3, 5), (len(text), len(text))], dtype=np.int64)
    found = best_window(text, spans, np.array([[1.0, 0.5, 0.1, 1.0]], dtype=np.float32))
    assert found is not None
    assert "needle" in found.text
    assert best_window(text, spans[[0, 3]], np.ones((1, 2), dtype=np.float32)) is None


def test_a_text_is_short_without_the_white_space_around_it() -> None:
    assert whole_passage(" " * 1000 + "x" + "\n" * 1000) == Passage("x", 1000, 1001)
    assert whole_passage("x" * MAX_CHARACTERS) == Passage("x" * MAX_CHARACTERS, 0, MAX_CHARACTERS)
    assert whole_passage("x" * (MAX_CHARACTERS + 1)) is None
