"""How the texts of one ``add`` reach the encoder: equal ones once, similar lengths together, all of them or none."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from muvera_core import MuveraIndex, TokenEmbeddings
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import EncoderError, TruncatedTextWarning
from muvera_core.token_embeddings import IntArray

OWL, ANT, HERON = "Owls hunt at night.", "Ants live in colonies.", "Herons stand still in shallow water."
LONG = "Glaciers carve valleys, and rivers fill them with gravel and sand. " * 40


class Recording:
    """The real encoder, which notes the texts of each call, and fails at one if it is told to."""

    def __init__(self, encoder: BundledEncoder) -> None:
        self._encoder, self.calls = encoder, list[list[str]]()
        self.fails_at: tuple[str, BaseException] | None = None
        self.dimension, self.fingerprint = encoder.dimension, encoder.fingerprint
        self.encode_queries = encoder.encode_queries
        self.document_spans, self.query_spans = encoder.document_spans, encoder.query_spans

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        self.calls.append(list(texts))
        if self.fails_at and self.fails_at[0] in texts:
            raise self.fails_at[1]
        return self._encoder.encode_documents(texts)

    @property
    def texts(self) -> list[str]:
        return [text for call in self.calls for text in call]


@pytest.fixture
def recording(encoder: BundledEncoder) -> Recording:
    return Recording(encoder)


def tokens(index: MuveraIndex, ids: Sequence[str]) -> list[np.ndarray]:
    found = index.get_embeddings(ids)
    return [found[id] for id in ids]


def numbered(n: int) -> list[str]:
    """Texts of mixed lengths."""
    return [f"Station {i} " + "measures rain and wind " * (i * 7 % 11) for i in range(n)]


def test_equal_texts_of_a_call_are_encoded_once(recording: Recording) -> None:
    texts = [OWL, ANT, OWL, HERON, OWL, ANT]
    with MuveraIndex.create(None, recording) as index:
        ids = index.add(texts, metadatas=[{"place": i} for i in range(6)], batch_size=2)
        assert sorted(recording.texts) == sorted([OWL, ANT, HERON])
        assert [document.text for document in index.get(ids)] == texts
        assert [document.metadata for document in index.get(ids)] == [{"place": i} for i in range(6)]
        for text, found in zip(texts, tokens(index, ids), strict=True):
            np.testing.assert_array_equal(found, tokens(index, ids)[texts.index(text)])
        assert {hit.id for hit in index.search("birds that are active at night", k=3)} == {ids[0], ids[2], ids[4]}
        index.delete(ids[0])
        assert {hit.id for hit in index.search("birds that are active at night", k=2)} == {ids[2], ids[4]}


def test_copies_of_a_text_are_stored_in_batches_too(recording: Recording) -> None:
    with MuveraIndex.create(None, recording) as index:
        ids = index.add([OWL] * 25 + [ANT] * 3, batch_size=4)
        assert sorted(recording.texts) == sorted([OWL, ANT])
        assert len(index) == 28
        assert [document.text for document in index.get(ids)] == [OWL] * 25 + [ANT] * 3


def test_texts_of_similar_length_share_a_call(recording: Recording) -> None:
    texts = numbered(40)
    with MuveraIndex.create(None, recording) as index:
        index.add(texts, batch_size=4)
    assert sorted(recording.texts) == sorted(texts)
    assert [len(text) for text in recording.texts] == sorted(map(len, texts))
    assert {len(call) for call in recording.calls} == {4}


def test_many_documents_are_not_encoded_in_the_order_of_all_lengths(recording: Recording) -> None:
    """A graph gets documents of every length from the start: texts are sorted 16 batches at a time."""
    texts = [*numbered(16), *numbered(32)[16:]]
    with MuveraIndex.create(None, recording) as index:
        index.add(texts, batch_size=1)
    assert sorted(recording.texts[:16]) == sorted(texts[:16])
    assert sorted(recording.texts[16:]) == sorted(texts[16:])


def test_one_call_stores_what_a_call_for_each_text_stores(encoder: BundledEncoder) -> None:
    texts = [*numbered(9), LONG, OWL, OWL, LONG[:500], *numbered(4)]
    ids = [f"d{i}" for i in range(len(texts))]
    with MuveraIndex.create(None, encoder) as together, MuveraIndex.create(None, encoder) as singly:
        together.add(texts, ids)
        for text, id in zip(texts, ids, strict=True):
            singly.add([text], [id])
        for here, there in zip(tokens(together, ids), tokens(singly, ids), strict=True):
            np.testing.assert_array_equal(here, there)
        for question in ("what carves valleys?", "what does station 3 measure?"):
            found, expected = (
                {hit.id: hit.score for hit in index.search(question, k=len(ids))} for index in (together, singly)
            )
            assert found == pytest.approx(expected)


@pytest.mark.parametrize("error", [EncoderError("no answer"), KeyboardInterrupt()], ids=["error", "interruption"])
def test_an_add_that_fails_in_the_middle_leaves_the_old_state(
    error: BaseException, recording: Recording, tmp_path: Path
) -> None:
    with MuveraIndex.create(tmp_path / "index", recording) as index:
        index.add([OWL, ANT], ["owl", "ant"])
        before = [(hit.id, hit.score) for hit in index.search("night", k=9)]
        texts = numbered(20)
        recording.calls.clear()
        recording.fails_at = (sorted(texts, key=len)[10], error)
        with pytest.raises(type(error)):
            index.add([*texts, HERON], [*(f"d{i}" for i in range(20)), "owl"], batch_size=3)
        assert 1 < len(recording.calls) < 7
        assert len(index) == 2
        assert [(hit.id, hit.score) for hit in index.search("night", k=9)] == before
        recording.fails_at = None
        index.add(texts, batch_size=3)
        assert len(index) == 22
    with MuveraIndex.open(tmp_path / "index", recording) as index:
        assert index.get(["owl"])[0].text == OWL
        assert len(index) == 22


def test_a_warning_names_the_first_document_with_the_text(recording: Recording) -> None:
    recording._encoder = BundledEncoder(max_document_tokens=20)
    with MuveraIndex.create(None, recording) as index, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        index.add([OWL, LONG, HERON, LONG], ["owl", "ice", "heron", "copy"])
    assert [each.category for each in caught] == [TruncatedTextWarning]
    assert re.match("document 'ice' is too long", str(caught[0].message))


def test_a_text_that_the_index_has_is_not_encoded_for_its_copies_only(recording: Recording) -> None:
    with MuveraIndex.create(None, recording) as index:
        index.add([OWL], ["owl"])
        index.add([OWL, OWL, ANT], ["owl", "other", "ant"])
        assert sorted(recording.calls[1]) == sorted([OWL, ANT])
        assert len(index) == 3


def test_the_bar_counts_every_document(encoder: BundledEncoder, capfd: pytest.CaptureFixture[str]) -> None:
    with MuveraIndex.create(None, encoder) as index:
        index.add([OWL, ANT, OWL, OWL], show_progress=True, batch_size=2)
    assert "4/4" in capfd.readouterr().err


def test_pieces_of_any_length_keep_their_places(encoder: BundledEncoder) -> None:
    texts = [LONG, OWL, *numbered(7), "", LONG[:900]]
    together = encoder.encode_documents(texts)
    for i, text in enumerate(texts):
        alone: TokenEmbeddings = encoder.encode_documents([text])
        np.testing.assert_array_equal(together[i], alone[0])
        spans: IntArray = encoder.document_spans(text)
        assert len(spans) == len(together[i])
