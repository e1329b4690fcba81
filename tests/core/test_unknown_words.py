"""Words that the bundled encoder's vocabulary lacks match the same characters, and nothing else."""

from __future__ import annotations

import unicodedata
import warnings

import numpy as np
import pytest

from muvera_core import FDEConfig, MuveraIndex, TextEncoder, score_texts
from muvera_core.encoders import BundledEncoder
from muvera_core.encoders.text.unknown_words import UnknownWord
from muvera_core.errors import UnknownTextWarning

DOG = "สุนัขวิ่งเล่น"  # Thai: the dog runs and plays
RAIN = "ฝนตกหนัก"  # Thai: it rains heavily
CROW = "까마귀 닭고기"  # Korean: crow, chicken
BARK = "ውሻ ይሮጣል"  # Amharic: the dog runs
BASE64 = "QmFzZTY0" * 20


@pytest.fixture
def silent(encoder: BundledEncoder) -> BundledEncoder:
    """An encoder that has already warned of unknown text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownTextWarning)
        encoder.encode_documents([DOG])
        encoder.encode_queries([DOG])
    return encoder


def texts_at(encoder: BundledEncoder, text: str) -> list[str]:
    return [text[start:end] for start, end in encoder.document_spans(text)]


@pytest.mark.parametrize(
    ("query", "same", "other"),
    [
        pytest.param("สุนัข", DOG, RAIN, id="Thai"),
        pytest.param("까마귀", CROW, "맑다", id="Korean"),
        pytest.param("🦜", "🦜🦜", "🦚🦚", id="emoji"),
        pytest.param("ｐａｒｒｏｔ", "ｐａｒｒｏｔ", "ｄｅｅｒ", id="full width"),
        pytest.param(BASE64, f"key {BASE64}", f"key {BASE64[::-1]}", id="long ASCII word"),
        pytest.param("𝒜𝓁𝓅𝒽𝒶?", "𝒜𝓁𝓅𝒽𝒶", "𝒪𝓂𝑒𝑔", id="with punctuation"),
    ],
)
def test_unknown_words_match_only_the_same_characters(
    silent: BundledEncoder, query: str, same: str, other: str
) -> None:
    _, (to_same, to_other) = score_texts(silent, query, [same, other])
    assert to_same > 0.7
    assert to_other < 0.4


def test_markers_of_unknown_texts_do_not_match(silent: BundledEncoder) -> None:
    assert texts_at(silent, "🦜 🦚!") == ["🦜", "🦚", "!"]
    assert texts_at(silent, "🦜 sings") == ["", "🦜", "sings", ""]
    assert texts_at(silent, "!?") == ["", "!", "?", ""]


def test_a_character_keeps_its_marks(silent: BundledEncoder) -> None:
    assert texts_at(silent, "สุนัขวิ่ง") == ["สุ", "นั", "ข", "วิ่", "ง"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_composed_and_decomposed_characters_are_equal(silent: BundledEncoder, form: str) -> None:
    word = unicodedata.normalize(form, "까마귀")  # type: ignore[arg-type]
    assert len(silent.encode_documents([word])[0]) == 3
    np.testing.assert_array_equal(silent.encode_documents([word])[0], silent.encode_documents(["까마귀"])[0])


def test_case_and_invisible_characters_make_no_difference() -> None:
    capitals, small, joined = (UnknownWord.read(word, 0, len(word), 99) for word in ("ⰀⰁ", "ⰰⰱ", "ⰰ\u200dⰱ"))
    assert capitals.parts == small.parts == joined.parts


def test_an_ideograph_is_nearest_to_itself_after_the_same_character() -> None:
    words = [UnknownWord.read(text, 1, 2, 99) for text in ("大蒜", "野蒜", " 蒜")]
    after_it, after_another, alone = (word.vectors(128)[0] for word in words)
    assert after_it @ UnknownWord.read("吃大蒜", 2, 3, 99).vectors(128)[0] > 0.99
    assert 0.4 < after_it @ after_another < 0.8
    assert 0.4 < after_it @ alone < 0.8


def test_vectors_are_the_same_on_every_machine() -> None:
    vectors = UnknownWord.read(RAIN, 0, len(RAIN), 99).vectors(128)
    assert vectors.shape == (7, 128)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert np.sign(vectors[0, :16]).tolist() == [0, 0, 0, 1, 1, 0, 0, 1, 0, 0, -1, 0, 1, 1, 0, 1]


def test_texts_without_unknown_words_keep_their_vectors(encoder: BundledEncoder) -> None:
    known, mixed = encoder.encode_documents(["a red pear", "a red pear 🦜"])
    np.testing.assert_array_equal(encoder.encode_documents(["a red pear"])[0], known)
    # The model still sees one [UNK] in the place of the word, so its neighbours have their usual context.
    assert (np.sum(mixed[1:4] * known[1:4], axis=1) > 0.8).all()


@pytest.mark.parametrize("words", [40, 600])
def test_limits_count_characters_of_unknown_words(words: int) -> None:
    encoder = BundledEncoder(max_document_tokens=100)
    text = f"{BARK} " * words
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        embeddings = encoder.encode_documents([text])
    assert embeddings.lengths.tolist() == [100]
    spans = encoder.document_spans(text)
    assert len(spans) == 100
    assert "".join(text[start:end] for start, end in spans) == (BARK.replace(" ", "") * words)[:100]


@pytest.mark.parametrize("pool_factor", [1, 2])
def test_an_index_finds_and_explains_unknown_words(silent: BundledEncoder, pool_factor: int) -> None:
    if pool_factor > 1:
        pytest.importorskip("scipy")
    texts = [f"{DOG} is Thai", RAIN, CROW, "Parrots talk."]
    with MuveraIndex.create(None, silent, pool_factor=pool_factor) as index:
        index.add(texts, ids=["dog", "rain", "crow", "parrots"])
        for query, id in (("ฝนตก", "rain"), ("สุนัข", "dog"), ("까마귀", "crow")):
            hits = index.search(query, k=4)
            assert hits[0].id == id
            assert hits[0].score > 1.5 * hits[1].score
            matches = index.explain(query, id)
            assert "".join(match.query_token for match in matches) == query
            if pool_factor == 1:
                assert [match.document_token for match in matches] == [match.query_token for match in matches]


def test_vectors_for_other_databases_tell_unknown_texts_apart(silent: BundledEncoder) -> None:
    encoder = TextEncoder(silent, FDEConfig())
    similarities = encoder.encode_documents([DOG, RAIN, CROW]) @ encoder.encode_queries([RAIN, CROW]).T
    assert similarities.argmax(axis=0).tolist() == [1, 2]


# Warnings


def test_unknown_text_is_reported_once_for_documents_and_once_for_queries() -> None:
    encoder = BundledEncoder()
    message = (
        rf"100% of .* text 2 of this call \('{RAIN}'\) .* MultilingualEncoder\(\) .* 'muvera-core\[multilingual\]'"
    )
    with pytest.warns(UnknownTextWarning, match=message) as caught:
        encoder.encode_documents(["It rains.", RAIN, DOG])
    with pytest.warns(UnknownTextWarning, match="the question") as again:
        encoder.encode_queries([RAIN])
    assert len(caught) == len(again) == 1
    assert caught[0].filename == __file__
    encoder.encode_documents([DOG])  # a warning would fail the test
    encoder.encode_queries([DOG])


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("أين تقع عاصمة فرنسا؟", id="Arabic"),
        pytest.param("Где находится столица Франции?", id="Russian"),
        pytest.param("法国的首都在哪里？", id="Chinese"),
        pytest.param("Ποια είναι η πρωτεύουσα της Γαλλίας;", id="Greek"),
        pytest.param("이 문장은 Python에 대한 것입니다.", id="Korean with an English name"),
    ],
)
def test_scripts_whose_letters_the_vocabulary_has_are_reported_as_well(text: str) -> None:
    with MuveraIndex.create(None, BundledEncoder()) as index:
        with pytest.warns(
            UnknownTextWarning, match="of the characters of document 'a' .* MultilingualEncoder"
        ) as added:
            index.add([text, text], ids=["a", "b"])
        with pytest.warns(UnknownTextWarning, match="of the characters of the question") as asked:
            index.search(text)
        assert [warning.filename for warning in (*added, *asked)] == [__file__] * 2
        index.add([f"{text} {text}"])  # a warning would fail the test
        index.search(text)


@pytest.mark.parametrize(
    "text",
    [
        "Wo liegt die Hauptstadt von Österreich?",
        "Gdzie leży stolica Łotwy, a gdzie Słowacji?",
        "Thủ đô của Việt Nam ở đâu?",
        "The angles α, β and γ of a triangle",
        "Tokyo (東京) is the capital of Japan.",
    ],
)
def test_texts_in_latin_script_are_not_reported(text: str) -> None:
    encoder = BundledEncoder()
    encoder.encode_documents([text])
    encoder.encode_queries([text])


@pytest.mark.parametrize("text", ["A parrot 🦜 talks a lot 🦜", "Tom 🦜", "🦜", "naïve café, 100 °C"])
def test_a_few_unknown_characters_are_not_reported(text: str) -> None:
    BundledEncoder().encode_documents([text])


def test_a_warning_that_is_an_error_is_raised_each_time(encoder: BundledEncoder) -> None:
    strict = BundledEncoder()
    with MuveraIndex.create(None, strict) as index:
        for _ in range(2):
            with pytest.raises(UnknownTextWarning):
                index.add(["A parrot talks.", RAIN], batch_size=1)
        assert len(index) == 0
        index.add(["A parrot talks."])
        assert [hit.text for hit in index.search("parrot")] == ["A parrot talks."]
