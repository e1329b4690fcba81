"""The index over text, with the encoder that ships with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from muvera_core import MuveraIndex, StageClock
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import InvalidInputError, TruncatedTextWarning
from muvera_core.evaluation.collections import BeirCollection
from muvera_core.evaluation.measures import fidelity_at_k


def test_questions_find_the_passages_that_answer_them(nq_index: MuveraIndex, nq_questions: dict[str, str]) -> None:
    hits = {id: nq_index.search(question, k=10) for id, question in nq_questions.items()}
    first = sum(found[0].id == id for id, found in hits.items()) / len(hits)
    among_ten = sum(id in [hit.id for hit in found] for id, found in hits.items()) / len(hits)
    assert first > 0.85
    assert among_ten > 0.95


def test_the_default_settings_find_what_exact_search_finds(nq_index: MuveraIndex, nq_questions: dict[str, str]) -> None:
    """All 300 documents are candidates by default: ask for few to see what stage one is worth."""
    shares = []
    for question in nq_questions.values():
        exact = {hit.id for hit in nq_index.search(question, k=10, exact=True)}
        assert fidelity_at_k([hit.id for hit in nq_index.search(question, k=10)], exact) >= 0.9
        shares.append(fidelity_at_k([hit.id for hit in nq_index.search(question, k=10, n_candidates=50)], exact))
    assert sum(shares) / len(shares) > 0.85


def test_a_batch_gives_what_single_questions_give(nq_index: MuveraIndex, nq_questions: dict[str, str]) -> None:
    questions = list(nq_questions.values())[:8]
    for question, hits in zip(questions, nq_index.search_batch(questions, k=5), strict=True):
        alone = nq_index.search(question, k=5)
        assert [hit.id for hit in hits] == [hit.id for hit in alone]
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in alone])


def test_normalized_scores_are_means_over_query_tokens(nq_index: MuveraIndex, encoder: BundledEncoder) -> None:
    question = "who got the first nobel prize in physics"
    n_tokens = len(encoder.encode_queries([question])[0])
    for hit in nq_index.search(question, k=300):
        assert 0 <= hit.normalized_score <= 1
        assert hit.normalized_score == pytest.approx(hit.score / n_tokens)


def test_explain_adds_up_to_the_score_and_points_into_the_text(nq_index: MuveraIndex) -> None:
    question = "who got the first nobel prize in physics"
    hit = nq_index.search(question, k=1)[0]
    matches = nq_index.explain(question, hit.id)
    assert sum(match.similarity for match in matches) == pytest.approx(hit.score, abs=1e-3)
    assert hit.text is not None
    for match in matches:
        assert question[slice(*match.query_span)] == match.query_token
        assert match.document_span is not None
        assert hit.text[slice(*match.document_span)] == match.document_token
    matched = {match.query_token: (match.document_token or "").lower() for match in matches}
    assert matched["nobel"] == "nobel"
    assert matched["physics"] == "physics"
    assert [match.query_span for match in (matches[0], matches[-1])] == [(0, 0), (len(question), len(question))]


def test_explain_without_text_has_no_spans(encoder: BundledEncoder) -> None:
    with MuveraIndex.create(None, encoder) as index:
        tokens = encoder.encode_documents(["Owls hunt at night."])
        index.add_embeddings(tokens, ids=["owl"])
        index.add_embeddings(tokens, ids=["other"], texts=["not the text that was encoded, which is longer than it"])
        for id in ("owl", "other"):
            matches = index.explain("owls", id)
            assert all(match.document_token is None and match.document_span is None for match in matches)
            assert matches[1].similarity > 0.5


def test_what_has_no_question_cannot_be_explained(nq_index: MuveraIndex) -> None:
    with pytest.raises(InvalidInputError, match="query"):
        nq_index.explain(" ", "nq-0")


def test_an_unknown_document_cannot_be_explained(nq_index: MuveraIndex) -> None:
    with pytest.raises(InvalidInputError, match="there is no document with id 'nowhere'"):
        nq_index.explain("who wrote it", "nowhere")


def test_texts_must_come_in_a_list(nq_index: MuveraIndex) -> None:
    with pytest.raises(InvalidInputError, match=r"texts must be a list, got str: for a single item give \[item\]"):
        nq_index.add("one text")
    with pytest.raises(InvalidInputError, match="queries must be a list"):
        nq_index.search_batch("one question")
    with pytest.raises(InvalidInputError, match="batch_size"):
        nq_index.add(["x"], batch_size=0)


def test_the_clock_sees_the_encoder_too(nq_index: MuveraIndex) -> None:
    clock = StageClock()
    nq_index.search("physics", clock=clock)
    assert list(clock.seconds) == ["encode", "candidates", "rerank", "fetch"]


def test_an_index_on_disk_opens_with_the_bundled_encoder(tmp_path: Path, nq: BeirCollection) -> None:
    with MuveraIndex.create(tmp_path / "index") as index:
        index.add(nq.texts[:20], ids=nq.ids[:20])
        before = index.search("who got the first nobel prize in physics")
    with MuveraIndex.open(tmp_path / "index") as index:
        assert index.search("who got the first nobel prize in physics") == before


def test_adding_in_batches_shows_progress_and_changes_nothing(
    encoder: BundledEncoder, nq: BeirCollection, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for batch_size in (3, 64):
        with MuveraIndex.create(None, encoder) as index:
            index.add(nq.texts[:20], ids=nq.ids[:20], batch_size=batch_size, show_progress=True)
            found.append(index.search("physics", k=20))
    assert found[0] == found[1]
    assert "encoding: 100%" in capsys.readouterr().err


def test_a_long_document_is_found_by_its_end_and_what_is_cut_is_reported() -> None:
    filler = "The committee met on Tuesday and talked about the budget of the coming year. " * 250
    texts = [filler + "Axolotls regrow lost limbs.", filler, "Rabbits eat grass."]
    with MuveraIndex.create(None) as index:
        index.add(texts, ids=["long", "filler", "rabbit"])
        assert index.search("which animal can regrow its limbs", k=1)[0].id == "long"
        matched = [m.document_span for m in index.explain("regrow", "long") if m.query_token]
        assert all(span is not None and texts[0][: span[0]].startswith(filler) for span in matched)
    with (
        MuveraIndex.create(None, BundledEncoder(max_document_tokens=1000)) as index,
        pytest.warns(TruncatedTextWarning, match="limit is 1000"),
    ):
        index.add(texts[:1], ids=["long"])
