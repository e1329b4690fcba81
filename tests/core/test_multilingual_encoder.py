from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from counting_tokenizer import CountingTokenizer
from encoder_checks import EncoderChecks

from muvera_core import MuveraIndex
from muvera_core.encoders import MultilingualEncoder
from muvera_core.encoders.packaged import multilingual
from muvera_core.encoders.packaged.fingerprints import MULTILINGUAL_DIMENSIONS
from muvera_core.encoders.text.tokenizing import LimitedTokenizer, longest_reading
from muvera_core.errors import (
    EncoderError,
    EncoderMismatchError,
    InvalidInputError,
    MissingExtraError,
    UnknownTextWarning,
)

FOLDER = pytest.importorskip("muvera_multilingual", reason="needs muvera-core[multilingual]").FOLDER

OWLS = {
    "en": "Owls hunt at night and eat mice.",
    "de": "Eulen jagen in der Nacht und fressen Mäuse.",
    "zh": "猫头鹰在夜间捕猎，以老鼠为食。",
    "ar": "تصطاد البوم ليلا وتأكل الفئران.",
    "ru": "Совы охотятся ночью и едят мышей.",
    "ko": "올빼미는 밤에 사냥하고 쥐를 먹는다.",
}
BREAD = {
    "en": "Rye bread keeps for longer than white bread.",
    "de": "Roggenbrot hält länger als Weißbrot.",
    "zh": "黑麦面包比白面包保存得更久。",
    "ar": "يدوم خبز الجاودار أطول من الخبز الأبيض.",
    "ru": "Ржаной хлеб хранится дольше белого.",
    "ko": "호밀빵은 흰 빵보다 오래 간다.",
}
QUESTIONS = {
    "en": "What do owls eat?",
    "de": "Was fressen Eulen?",
    "zh": "猫头鹰吃什么？",
    "ar": "ماذا تأكل البومة في الليل؟",
    "ru": "Чем питаются совы?",
    "ko": "올빼미는 무엇을 먹나요?",
}


@pytest.fixture(scope="module")
def encoder() -> MultilingualEncoder:
    return MultilingualEncoder()


@pytest.fixture(scope="module")
def limited() -> MultilingualEncoder:
    return MultilingualEncoder(max_document_tokens=40)


class TestMultilingualEncoder(EncoderChecks):
    """The fixtures above."""


def covered(encoder: MultilingualEncoder, text: str) -> list[str]:
    return [text[start:end] for start, end in encoder.document_spans(text)]


@pytest.fixture(scope="module")
def passages(encoder: MultilingualEncoder) -> Iterator[MuveraIndex]:
    with MuveraIndex.create(None, encoder) as index:
        for topic, texts in (("owl", OWLS), ("bread", BREAD)):
            metadatas = [{"language": language} for language in texts]
            index.add(list(texts.values()), [f"{topic}-{language}" for language in texts], metadatas)
        yield index


@pytest.mark.parametrize("asked", QUESTIONS)
@pytest.mark.parametrize("written", OWLS)
def test_a_question_finds_the_passage_in_every_language(passages: MuveraIndex, asked: str, written: str) -> None:
    best = passages.search(QUESTIONS[asked], k=1, filter={"language": written})
    assert [hit.id for hit in best] == [f"owl-{written}"]


def test_texts_in_other_scripts_are_not_reported(encoder: MultilingualEncoder) -> None:
    encoder.encode_documents([*OWLS.values(), "สุนัขวิ่งเล่นในสวน", "שלום עולם", "ბუ ღამით ნადირობს"])
    encoder.encode_queries(list(QUESTIONS.values()))  # a warning would fail the test


def test_what_no_vocabulary_knows_matches_itself_only() -> None:
    made = MultilingualEncoder()
    with pytest.warns(UnknownTextWarning, match="100% of .* use an encoder that was made for it"):
        cuneiform = made.encode_documents(["𒀀𒁁", "𒂗𒈗"])
    assert covered(made, "𒀀𒁁") == ["𒀀", "𒁁"]
    first, second = cuneiform
    assert abs(first @ second.T).max() < 0.4
    assert (first @ first.T).max(axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("Wer schrieb Faust?", ["Wer", "schrieb", "Faust", "?"], id="words"),
        pytest.param("猫头鹰吃老鼠。", ["猫", "头", "鹰", "吃", "老鼠", "。"], id="no spaces"),
        pytest.param("ﬁne  Ｆｕｌｌ ①", ["ﬁne", "Ｆｕｌｌ", "①"], id="replaced characters"),
        pytest.param("cafe\u0301 noir", ["cafe\u0301", "noir"], id="combining accent"),
        pytest.param("\u1100\u116e \u304b\u3099", ["\u1100\u116e", "\u304b\u3099"], id="Hangul and kana in parts"),
        pytest.param("a\u200bb  \n\tc ", ["a", "b", "c"], id="invisible characters"),
        pytest.param("🦉 hoots", ["🦉", "ho", "ots"], id="beyond the basic plane"),
        pytest.param("</s><mask>", ["</", "s", "><", "mas", "k", ">"], id="markers written out"),
    ],
)
def test_spans_point_at_the_original_text(encoder: MultilingualEncoder, text: str, expected: list[str]) -> None:
    assert covered(encoder, text) == ["", *expected, ""]


def test_spelling_variants_of_one_character_are_encoded_alike(encoder: MultilingualEncoder) -> None:
    for one, other in (
        ("schön", "scho\u0308n"),
        ("がく", "か\u3099く"),
        ("한국", "\u1112\u1161\u11ab\u1100\u116e\u11a8"),
    ):
        np.testing.assert_array_equal(encoder.encode_queries([one])[0], encoder.encode_queries([other])[0])
    # The sign of a double consonant and the vowel sign, as people write them and as NFC puts them.
    written, sorted_marks = "مدرّسة \u0644\u0651\u064e", "مدرّسة \u0644\u064e\u0651"
    np.testing.assert_array_equal(encoder.encode_queries([written])[0], encoder.encode_queries([sorted_marks])[0])


def test_documents_and_questions_have_prefixes_of_their_own(encoder: MultilingualEncoder) -> None:
    document, query = encoder.encode_documents(["owls"])[0], encoder.encode_queries(["owls"])[0]
    assert document.shape == query.shape
    assert abs(document - query).max() > 0.01


def test_text_without_spaces_is_read_as_far_as_the_limit_needs() -> None:
    sentences = ["猫头鹰在夜间捕猎", "法国的首都是巴黎", "黑麦面包比白面包保存得更久", "大学生在图书馆里学习"]
    order = np.random.default_rng(0).integers(0, len(sentences), 30_000)
    text = "，".join(sentences[i] for i in order)
    whole, limited = MultilingualEncoder(max_document_tokens=10**6), MultilingualEncoder(max_document_tokens=300)
    kept = [span for span in limited.document_spans(text).tolist() if span[0] < span[1]]
    assert len(kept) > 250
    assert kept == [span for span in whole.document_spans(text[:5_000]).tolist() if span[0] < span[1]][: len(kept)]


def test_the_work_for_text_without_spaces_depends_on_the_limit() -> None:
    tokenizer = CountingTokenizer(FOLDER / "tokenizer.json")
    [found] = LimitedTokenizer(tokenizer, None, splits_unknown=True)(["猫头鹰在夜间捕猎" * 30_000], 300)
    assert len(found.ids) == 300
    assert tokenizer.n_read < 2 * longest_reading(300)


def test_a_text_that_fits_the_model_is_one_window(encoder: MultilingualEncoder) -> None:
    n_around = len(["<s>", "passage", ":", "</s>"])
    whole = encoder.encode_documents(["red " * (512 - n_around)])[0]
    assert len(whole) == 512 - n_around + 2
    assert len(encoder.encode_documents(["red " * (513 - n_around)])[0]) > 513 - n_around + 2


@pytest.mark.parametrize("dimension", MULTILINGUAL_DIMENSIONS[1:])
def test_a_narrower_encoder_has_the_first_directions(
    encoder: MultilingualEncoder, dimension: int, tmp_path: Path
) -> None:
    narrow = MultilingualEncoder(dimension=dimension)
    assert (narrow.dimension, narrow.settings["dimension"]) == (dimension, dimension)
    text = OWLS["ko"]
    vectors = encoder.encode_documents([text])[0][:, :dimension]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(narrow.encode_documents([text])[0], vectors, atol=1e-6)
    folder = tmp_path / "index"
    MuveraIndex.create(folder, encoder).close()
    with pytest.raises(EncoderMismatchError):
        MuveraIndex.open(folder, narrow)


@pytest.mark.parametrize("dimension", MULTILINGUAL_DIMENSIONS)
def test_an_index_opens_without_naming_the_encoder(dimension: int, tmp_path: Path) -> None:
    with MuveraIndex.create(tmp_path / "index", MultilingualEncoder(dimension=dimension)) as index:
        index.add([OWLS["zh"], BREAD["zh"]], ids=["owl", "bread"])
    with MuveraIndex.open(tmp_path / "index") as index:
        assert type(index.encoder) is MultilingualEncoder
        assert index.search(QUESTIONS["zh"], k=1)[0].id == "owl"


def test_another_dimension_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"dimension must be .*, got 100"):
        MultilingualEncoder(dimension=100)


@pytest.mark.parametrize("argument", ["num_threads", "max_document_tokens", "max_query_tokens"])
def test_limits_below_one_are_refused(argument: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{argument} must be at least 1, got 0"):
        MultilingualEncoder(**{argument: 0})  # type: ignore[arg-type]


def test_limits_and_threads_leave_the_fingerprint_as_it_is(encoder: MultilingualEncoder) -> None:
    other = MultilingualEncoder(num_threads=1, max_document_tokens=100, max_query_tokens=10)
    assert other.fingerprint == encoder.fingerprint


def test_pinned_similarities(encoder: MultilingualEncoder) -> None:
    # Values of the shipped model. The tolerance leaves room for other processors and onnxruntime versions.
    first, last = (encoder.encode_documents([OWLS[language]])[0] for language in ("en", "zh"))
    best = (first @ last.T).max(axis=1)
    np.testing.assert_allclose(best[:4], [0.681, 0.538, 0.569, 0.526], atol=0.01)


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "muvera_multilingual", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'muvera-core\[multilingual\]'"):
        MultilingualEncoder()


def remove_the_settings(folder: Path) -> None:
    (folder / "encoder.json").unlink()


def cut_the_model_short(folder: Path) -> None:
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:-100])


def overwrite_the_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_bytes(b" " * (folder / "tokenizer.json").stat().st_size)


@pytest.mark.parametrize("damage", [remove_the_settings, cut_the_model_short, overwrite_the_tokenizer])
def test_damaged_files_are_reported(
    damage: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "files"
    shutil.copytree(multilingual.find_folder(), folder)
    damage(folder)
    monkeypatch.setattr(multilingual, "find_folder", lambda: folder)
    with pytest.raises(EncoderError, match="reinstall muvera-multilingual"):
        MultilingualEncoder()


def test_the_settings_describe_the_files_that_ship() -> None:
    folder = multilingual.find_folder()
    settings = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    assert settings["files"].keys() == {"model.onnx", "tokenizer.json"}
    for name, file in settings["files"].items():
        assert (folder / name).stat().st_size == file["bytes"]
