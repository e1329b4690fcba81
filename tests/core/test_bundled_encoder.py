from __future__ import annotations

import copy
import json
import pickle
import re
import shutil
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from encoder_checks import EncoderChecks

from muvera_core.encoders.packaged import bundled
from muvera_core.encoders.packaged.bundled import BundledEncoder
from muvera_core.errors import EncoderError, InvalidInputError, TruncatedTextWarning

TEXTS = [
    "Goethe wrote Faust in two parts.",
    "",
    "The Rhine rises in the Swiss Alps and flows into the North Sea. " * 60,
    "Water boils at 100 °C.",
]
FILLER = "The committee met on Tuesday and discussed the minutes of the previous meeting at some length. "


@pytest.fixture(scope="module")
def encoder() -> BundledEncoder:
    return BundledEncoder(num_threads=2)


class Labelled(BundledEncoder):
    """An encoder whose constructor takes other arguments."""

    def __init__(self, label: str) -> None:
        super().__init__(max_query_tokens=3)
        self.label = label


def maxsim(query: npt.NDArray[np.float32], document: npt.NDArray[np.float32]) -> float:
    return float((query @ document.T).max(axis=1).sum())


def covered(encoder: BundledEncoder, text: str) -> list[str]:
    return [text[start:end] for start, end in encoder.document_spans(text)]


class TestChecks(EncoderChecks):
    @pytest.fixture
    def limited(self) -> BundledEncoder:
        return BundledEncoder(max_document_tokens=40)


@pytest.mark.parametrize("method", ["encode_documents", "encode_queries"])
def test_every_token_has_one_vector_of_unit_length(encoder: BundledEncoder, method: str) -> None:
    embeddings = getattr(encoder, method)(["A short text.", "and one more"])
    assert embeddings.vectors.shape == (len(["[CLS]", "a", "short", "text", ".", "[SEP]"]) + 5, 128)
    assert embeddings.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings.vectors, axis=1), 1, atol=1e-5)


def test_vectors_do_not_depend_on_the_batch_its_order_or_the_threads(encoder: BundledEncoder) -> None:
    together = encoder.encode_documents(TEXTS)
    reversed_order = encoder.encode_documents(TEXTS[::-1])
    one_thread = BundledEncoder(num_threads=1).encode_documents(TEXTS)
    for i, text in enumerate(TEXTS):
        alone = encoder.encode_documents([text])[0]
        for other in (together[i], reversed_order[len(TEXTS) - 1 - i], one_thread[i]):
            np.testing.assert_array_equal(alone, other)


def test_documents_and_queries_are_encoded_alike(encoder: BundledEncoder) -> None:
    text = "the origin of the Rhine"
    np.testing.assert_array_equal(encoder.encode_documents([text])[0], encoder.encode_queries([text])[0])


def test_an_empty_text_has_two_markers(encoder: BundledEncoder) -> None:
    assert len(encoder.encode_documents([""])[0]) == 2
    assert encoder.document_spans("").tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("Who wrote Faust?", ["Who", "wrote", "Faust", "?"], id="words"),
        pytest.param("unbelievably", ["un", "bel", "ie", "va", "bly"], id="wordpieces"),
        pytest.param("Café à Paris, naïve", ["Café", "à", "Paris", ",", "naïve"], id="accents"),
        pytest.param("cafe\u0301 noir", ["cafe\u0301", "noir"], id="combining accent"),
        pytest.param("so 😀 happy", ["so", "😀", "happy"], id="beyond the basic plane"),
        pytest.param("北京 city", ["北", "京", "city"], id="ideographs"),
        pytest.param("a\u200bb  \n\tc", ["a\u200bb", "c"], id="invisible characters"),
        pytest.param("the [SEP] marker", ["the", "[", "SEP", "]", "marker"], id="a marker written out"),
    ],
)
def test_spans_point_at_the_original_text(encoder: BundledEncoder, text: str, expected: list[str]) -> None:
    assert covered(encoder, text) == ["", *expected, ""]
    assert len(encoder.document_spans(text)) == len(encoder.encode_documents([text])[0])
    np.testing.assert_array_equal(encoder.query_spans(text), encoder.document_spans(text))


def test_a_long_text_has_one_vector_for_every_wordpiece(encoder: BundledEncoder) -> None:
    words = ["red", "green", "blue", "black", "white", "grey", "pink"] * 130
    text = " ".join(words)
    spans = encoder.document_spans(text)
    assert len(spans) == len(encoder.encode_documents([text])[0])
    assert [text[start:end] for start, end in spans if end > start] == words
    markers = [i for i, (start, end) in enumerate(spans) if start == end]
    assert len(markers) >= 4, "a text of 910 wordpieces needs more than one window, each with two markers"
    assert all(left <= right for (left, _), (right, _) in pairwise(spans.tolist()))


def test_a_text_that_fits_the_model_is_one_window(encoder: BundledEncoder) -> None:
    assert len(encoder.encode_documents(["red " * 510])[0]) == 510 + 2
    assert len(encoder.encode_documents(["red " * 511])[0]) > 511 + 2


def test_a_needle_at_the_end_of_a_long_text_is_matched(encoder: BundledEncoder) -> None:
    hay = FILLER * 190
    assert len(hay.split()) > 3000
    needle = "The password of the observatory is heliotrope."
    question = "What is the password of the observatory?"
    query = encoder.encode_queries([question])[0]
    with_needle, without = encoder.encode_documents([hay + needle, hay])
    assert maxsim(query, with_needle) > maxsim(query, without) + 2
    asked = [question[start:end] for start, end in encoder.query_spans(question)]
    for word in ("password", "observatory"):
        matched = (with_needle @ query[asked.index(word)]).argmax()
        start, end = encoder.document_spans(hay + needle)[matched]
        assert start >= len(hay)
        assert (hay + needle)[start:end] == word


def test_what_is_left_out_is_reported() -> None:
    encoder = BundledEncoder(max_document_tokens=300, max_query_tokens=4)
    message = r"text 2 of this call \('word .*…'\) is too long: its characters 1499 to 2000 \(25% of it\) are left out"
    with pytest.warns(TruncatedTextWarning, match=message + ".* limit is 300 tokens. .* raise max_document_tokens"):
        embeddings = encoder.encode_documents(["short", "word " * 400])
    kept = encoder.encode_documents(["word " * 300])
    np.testing.assert_array_equal(embeddings[1], kept[0])
    with pytest.warns(TruncatedTextWarning, match="the question is too long: .* 18 to 27 .* max_query_tokens"):
        encoder.encode_queries(["one two three four five six"])
    assert len(encoder.query_spans("one two three four five six")) == 6


def test_a_text_at_the_limit_is_encoded_silently() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BundledEncoder(max_query_tokens=4).encode_queries(["one two three four"])


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))])  # noqa: S301
def test_a_copy_encodes_alike_and_keeps_its_class(copied: Callable[[BundledEncoder], BundledEncoder]) -> None:
    made = Labelled("mine")
    again = copied(made)
    assert type(again) is Labelled
    assert again.label == "mine"
    assert again.settings == made.settings
    assert made.settings == {"max_document_tokens": 16_384, "max_query_tokens": 3, "dimension": 128}
    assert len(again.query_spans("one two three")) == 5
    np.testing.assert_array_equal(again.encode_documents(TEXTS[:1])[0], made.encode_documents(TEXTS[:1])[0])


def test_pinned_similarities(encoder: BundledEncoder) -> None:
    # Values of the shipped model. The tolerance leaves room for other processors and onnxruntime versions. The largest
    # difference that was measured is .035: onnxruntime 1.20 on an AMD EPYC with AVX2 and without VNNI.
    text = "The cat sat on the mat while a dog slept."
    cls, the, cat, sat, _, _, mat, _, _, dog, slept, _, sep = encoder.encode_documents([text])[0]
    similarities = [cat @ dog, cat @ mat, sat @ slept, cls @ sep, the @ cat]
    np.testing.assert_allclose(similarities, [0.607, 0.326, 0.517, 0.340, 0.458], atol=0.05)


def test_a_passage_that_answers_scores_above_one_that_does_not(encoder: BundledEncoder) -> None:
    query = encoder.encode_queries(["Where does the Rhine rise?"])[0]
    answer, other = encoder.encode_documents(["The Rhine begins in the Swiss Alps.", "Faust is a play by Goethe."])
    assert maxsim(query, answer) > maxsim(query, other) + 1


def test_limits_and_threads_leave_the_fingerprint_as_it_is(encoder: BundledEncoder) -> None:
    other = BundledEncoder(num_threads=1, max_document_tokens=100, max_query_tokens=10)
    assert other.fingerprint == encoder.fingerprint


def test_a_narrow_encoder_gives_the_first_directions(encoder: BundledEncoder) -> None:
    narrow = BundledEncoder(dimension=64)
    assert narrow.dimension == 64
    texts = [*TEXTS, "the café in 北京 is open 😀"]
    for method, some in (("encode_documents", texts), ("encode_queries", texts[-2:])):
        whole, cut = getattr(encoder, method)(some), getattr(narrow, method)(some)
        expected = whole.vectors[:, :64] / np.linalg.norm(whole.vectors[:, :64], axis=1, keepdims=True)
        np.testing.assert_allclose(cut.vectors, expected, atol=1e-6)
        np.testing.assert_array_equal(cut.offsets, whole.offsets)
    np.testing.assert_array_equal(narrow.document_spans(texts[-1]), encoder.document_spans(texts[-1]))


def test_a_narrow_encoder_is_another_encoder(encoder: BundledEncoder) -> None:
    narrow = BundledEncoder(dimension=64)
    assert narrow.fingerprint == f"{encoder.fingerprint}-d64"
    assert BundledEncoder(dimension=128).fingerprint == encoder.fingerprint
    assert narrow.settings["dimension"] == 64
    again = pickle.loads(pickle.dumps(narrow))  # noqa: S301
    assert (again.dimension, again.fingerprint) == (64, narrow.fingerprint)


@pytest.mark.parametrize("dimension", [1, 127])
def test_every_dimension_up_to_128_gives_unit_vectors(dimension: int) -> None:
    vectors = BundledEncoder(dimension=dimension).encode_documents(["Water boils at 100 °C. 北京"]).vectors
    assert vectors.shape[1] == dimension
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("dimension", "message"),
    [
        (0, "dimension must be at least 1, got 0"),
        (129, "dimension must be at most 128, got 129"),
        (64.0, "dimension must be a whole number, got 64.0"),
        (True, "dimension must be a whole number, got True"),
    ],
)
def test_other_dimensions_are_refused(dimension: int, message: str) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(message)):
        BundledEncoder(dimension=dimension)


@pytest.mark.parametrize("argument", ["num_threads", "max_document_tokens", "max_query_tokens"])
def test_limits_below_one_are_refused(argument: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{argument} must be at least 1, got 0"):
        BundledEncoder(**{argument: 0})  # type: ignore[arg-type]


def remove_the_settings(folder: Path) -> None:
    (folder / "encoder.json").unlink()


def break_the_settings(folder: Path) -> None:
    (folder / "encoder.json").write_text("{}")


def remove_the_model(folder: Path) -> None:
    (folder / "model.onnx").unlink()


def cut_the_model_short(folder: Path) -> None:
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:-100])


def overwrite_the_model(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(bytes((folder / "model.onnx").stat().st_size))


def overwrite_the_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_bytes(b" " * (folder / "tokenizer.json").stat().st_size)


@pytest.mark.parametrize(
    "damage",
    [
        remove_the_settings,
        break_the_settings,
        remove_the_model,
        cut_the_model_short,
        overwrite_the_model,
        overwrite_the_tokenizer,
    ],
)
def test_damaged_files_are_reported(
    damage: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "assets"
    shutil.copytree(bundled.ASSETS, folder)
    damage(folder)
    monkeypatch.setattr(bundled, "ASSETS", folder)
    with pytest.raises(EncoderError, match="reinstall muvera-core"):
        BundledEncoder()


def test_the_settings_describe_the_files_that_ship() -> None:
    settings = json.loads((bundled.ASSETS / "encoder.json").read_text(encoding="utf-8"))
    assert settings["files"].keys() == {"model.onnx", "tokenizer.json"}
    for name, file in settings["files"].items():
        assert (bundled.ASSETS / name).stat().st_size == file["bytes"]
