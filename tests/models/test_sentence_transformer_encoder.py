"""SentenceTransformerEncoder: the vectors of sentence-transformers' own models, of every kind that it reads."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoder_checks import EncoderChecks
from make_colbert_checkpoint import DOCUMENTS, FOLDER, QUESTIONS, VECTORS

pytest.importorskip(
    "sentence_transformers",
    minversion="6",
    reason="needs muvera-core[sentence-transformers], in an environment of its own",
)

from models_on_gpu import gpu as gpu  # a fixture
from models_on_gpu import on_gpu
from safetensors.torch import load_file, save_file
from sentence_transformers import MultiVectorEncoder, SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from small_models import HIDDEN, POSITIONS, QUERY_LENGTH, native_model, quietly, save_all, unusual_models, write_json

from muvera_core import MuveraIndex
from muvera_core.encoders import SentenceTransformerEncoder, load_encoder
from muvera_core.encoders.sentence_transformer.vectors import finished
from muvera_core.errors import (
    EncoderError,
    EncoderMismatchError,
    InvalidInputError,
    MissingExtraError,
    TruncatedTextWarning,
    UnknownTextWarning,
)

KINDS = ["native", "deep-head", "text-prompts", "min-expansion", "pylate", "stanford"]
TEXTS = [
    "The owl, at night, hunts mice.",
    "",
    "...",
    "héron naïve, cafe\u0301 日本語",
    "🦉🦉 owl",
    "[SEP] [D] [Q] [unused1] [MASK] x",
    "  spaced   out\t\n",
    "ants live in colonies",
]
LONG = "the owl hunts at night, and herons stand still in shallow water. " * 12

pytestmark = [
    pytest.mark.filterwarnings("ignore::muvera_core.errors.TruncatedTextWarning"),
    pytest.mark.filterwarnings("ignore::muvera_core.errors.UnknownTextWarning"),
]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder per kind of model, with random weights."""
    found: dict[str, Path] = quietly(save_all, tmp_path_factory.mktemp("models"))
    return found


@pytest.fixture(scope="session")
def library_models(folders: dict[str, Path]) -> dict[str, MultiVectorEncoder]:
    """The same models, loaded by sentence-transformers itself."""
    return {
        kind: quietly(MultiVectorEncoder, str(folder), device="cpu", local_files_only=True)
        for kind, folder in folders.items()
    }


@pytest.fixture(scope="session")
def encoders(folders: dict[str, Path]) -> dict[str, SentenceTransformerEncoder]:
    return {kind: SentenceTransformerEncoder(folder, device="cpu") for kind, folder in folders.items()}


@pytest.fixture
def copied(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the native model, to change."""
    return Path(shutil.copytree(folders["native"], tmp_path / "copied"))


class Checks(EncoderChecks):
    kind: str

    @pytest.fixture
    def encoder(self, encoders: dict[str, SentenceTransformerEncoder]) -> SentenceTransformerEncoder:
        return encoders[self.kind]

    @pytest.fixture
    def limited(self, folders: dict[str, Path]) -> SentenceTransformerEncoder:
        return SentenceTransformerEncoder(folders[self.kind], device="cpu", max_document_tokens=40)


class TestNative(Checks):
    kind = "native"


class TestDeepHead(Checks):
    kind = "deep-head"


class TestPyLate(Checks):
    kind = "pylate"


class TestStanford(Checks):
    kind = "stanford"


# The vectors


@pytest.mark.parametrize("kind", [*KINDS, "pooling"])
@pytest.mark.parametrize("task", ["document", "query"])
@pytest.mark.parametrize("texts", [TEXTS, TEXTS[::-1], *([text] for text in TEXTS)])
def test_vectors_are_bit_by_bit_those_of_the_model(
    kind: str,
    task: str,
    texts: list[str],
    encoders: dict[str, SentenceTransformerEncoder],
    library_models: dict[str, MultiVectorEncoder],
) -> None:
    encode = encoders[kind].encode_documents if task == "document" else encoders[kind].encode_queries
    expected = getattr(library_models[kind], f"encode_{task}")(texts, convert_to_numpy=True)
    ours = encode(texts)
    assert len(ours) == len(expected)
    for rows, theirs in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(rows, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_object_gives_what_its_folder_gives(
    kind: str, encoders: dict[str, SentenceTransformerEncoder], library_models: dict[str, MultiVectorEncoder]
) -> None:
    encoder = SentenceTransformerEncoder(library_models[kind])
    assert encoder.fingerprint == encoders[kind].fingerprint
    assert encoder.dimension == encoders[kind].dimension
    for text in [*TEXTS, LONG]:
        np.testing.assert_array_equal(
            encoder.encode_documents([text]).vectors, encoders[kind].encode_documents([text]).vectors
        )


def test_a_model_that_does_not_normalize_gets_unit_vectors(
    encoders: dict[str, SentenceTransformerEncoder], library_models: dict[str, MultiVectorEncoder]
) -> None:
    expected = library_models["not-normalized"].encode_document(TEXTS, convert_to_numpy=True)
    for rows, theirs in zip(encoders["not-normalized"].encode_documents(TEXTS), expected, strict=True):
        assert np.abs(np.linalg.norm(theirs, axis=1) - 1).min() > 0.1
        np.testing.assert_allclose(rows, theirs / np.linalg.norm(theirs, axis=1, keepdims=True), atol=1e-6)


def test_pylate_models_that_do_not_name_their_type_are_the_same(
    folders: dict[str, Path], encoders: dict[str, SentenceTransformerEncoder], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folders["pylate"], tmp_path / "early"))
    settings = json.loads((folder / "config_sentence_transformers.json").read_text())
    assert settings.pop("model_type") == "ColBERT"
    write_json(folder / "config_sentence_transformers.json", settings)
    encoder, expected = SentenceTransformerEncoder(folder, device="cpu"), encoders["pylate"]
    assert encoder.fingerprint == expected.fingerprint
    for text in [*TEXTS, LONG]:
        np.testing.assert_array_equal(
            encoder.encode_documents([text]).vectors, expected.encode_documents([text]).vectors
        )
        np.testing.assert_array_equal(encoder.encode_queries([text]).vectors, expected.encode_queries([text]).vectors)
    (folder / "1_Dense" / "model.safetensors").unlink()
    write_json(folder / "modules.json", json.loads((folder / "modules.json").read_text())[:1])
    with pytest.raises(EncoderError, match="is a SentenceTransformer model, which has one vector per text"):
        SentenceTransformerEncoder(folder, device="cpu")


def test_a_colbert_checkpoint_has_the_vectors_of_colbert_ai() -> None:
    encoder = SentenceTransformerEncoder(FOLDER, device="cpu")
    assert encoder.settings["document_length"] == 32
    with np.load(VECTORS) as expected:
        documents, queries = encoder.encode_documents(DOCUMENTS), encoder.encode_queries(QUESTIONS)
        np.testing.assert_array_equal(documents.offsets, expected["document_offsets"])
        np.testing.assert_array_equal(queries.offsets, expected["query_offsets"])
        np.testing.assert_allclose(documents.vectors, expected["documents"], atol=1e-5)
        np.testing.assert_allclose(queries.vectors, expected["queries"], atol=1e-5)


def test_dimensions_can_be_truncated(folders: dict[str, Path], encoders: dict[str, SentenceTransformerEncoder]) -> None:
    encoder = SentenceTransformerEncoder(folders["native"], device="cpu", truncate_dim=8)
    whole = encoders["native"].encode_documents(TEXTS).vectors[:, :8]
    assert encoder.dimension == 8
    np.testing.assert_allclose(
        encoder.encode_documents(TEXTS).vectors, whole / np.linalg.norm(whole, axis=1, keepdims=True), atol=1e-6
    )
    assert encoder.fingerprint != encoders["native"].fingerprint
    with pytest.raises(InvalidInputError, match="truncate_dim must be at most 16, the dimensions of this model, got"):
        SentenceTransformerEncoder(folders["native"], device="cpu", truncate_dim=17)


@pytest.mark.parametrize(("dtype", "atol"), [("bfloat16", 0.05), ("float16", 0.01), ("float32", 0)])
def test_half_precision_changes_only_roundings(
    dtype: str, atol: float, folders: dict[str, Path], encoders: dict[str, SentenceTransformerEncoder]
) -> None:
    encoder = SentenceTransformerEncoder(folders["deep-head"], device="cpu", dtype=dtype)
    expected = encoders["deep-head"].encode_documents(TEXTS).vectors
    found = encoder.encode_documents(TEXTS).vectors
    np.testing.assert_allclose(found, expected, atol=atol)
    assert (found == expected).all() == (dtype == "float32")
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert encoder.fingerprint == encoders["deep-head"].fingerprint


def test_other_batches_change_only_roundings(
    folders: dict[str, Path], encoders: dict[str, SentenceTransformerEncoder]
) -> None:
    encoder = SentenceTransformerEncoder(folders["native"], device="cpu", batch_size=3)
    np.testing.assert_allclose(
        encoder.encode_documents(TEXTS).vectors, encoders["native"].encode_documents(TEXTS).vectors, atol=1e-6
    )
    assert encoder.fingerprint == encoders["native"].fingerprint


UNUSUAL = ["router", "decoder", "xlm-roberta", "bytes", "no-mask"]


@pytest.mark.parametrize("kind", [*KINDS, "pooling"])
def test_vectors_stay_on_the_gpu_and_the_host_has_the_same(
    kind: str, gpu: str, folders: dict[str, Path], encoders: dict[str, SentenceTransformerEncoder]
) -> None:
    texts = [*TEXTS, *([] if kind == "pooling" else [LONG])]
    found = SentenceTransformerEncoder(folders[kind], device=gpu).encode_documents(texts)
    np.testing.assert_array_equal(on_gpu(found), found.vectors)
    expected = encoders[kind].encode_documents(texts)
    assert found.offsets.tolist() == expected.offsets.tolist()
    np.testing.assert_allclose(found.vectors, expected.vectors, atol=1e-5)


def test_tensors_are_cut_and_scaled_as_arrays_are(gpu: str, folders: dict[str, Path]) -> None:
    import torch

    found = SentenceTransformerEncoder(folders["native"], device=gpu, truncate_dim=4).encode_documents(TEXTS)
    assert found.dimension == 4
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-6)
    rows = np.array([[3, 4, 9], [0.6, 0.8, 9], [0, 0, 9], [np.inf, 1, 9]], dtype=np.float32)
    tensor: Any = finished(torch.from_numpy(rows).to(gpu), 2)
    np.testing.assert_allclose(tensor.cpu().numpy(), finished(rows, 2), rtol=1e-6)


def test_vectors_of_half_precision_stay_as_float32(gpu: str, folders: dict[str, Path]) -> None:
    found = SentenceTransformerEncoder(folders["native"], device=gpu, dtype="bfloat16").encode_documents(TEXTS)
    assert on_gpu(found).dtype == np.float32
    np.testing.assert_array_equal(on_gpu(found), found.vectors)


def test_large_calls_do_not_fill_the_gpu(gpu: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muvera_core.encoders.sentence_transformer.encoder.MOST_ON_GPU", 20)
    encoder = SentenceTransformerEncoder(folders["native"], device=gpu)
    assert encoder.encode_documents(TEXTS[:1]).on_gpu is not None
    assert encoder.encode_documents(TEXTS * 3).on_gpu is None


def test_a_lack_of_memory_on_the_gpu_is_an_error_of_the_encoder(
    gpu: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def fails(tensors: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    encoder = SentenceTransformerEncoder(folders["native"], device=gpu)
    monkeypatch.setattr("muvera_core.encoders.sentence_transformer.vectors.joined", fails)
    with pytest.raises(EncoderError, match="cannot be copied from its device: CUDA out of memory"):
        encoder.encode_documents(TEXTS)


def test_an_index_on_the_same_gpu_has_the_encodings_of_the_host(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    pytest.importorskip("cupy", reason="CuPy is not installed")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no GPU")
    encoder = SentenceTransformerEncoder(folders["native"], device="cuda")

    def encodings() -> np.ndarray:
        with MuveraIndex.create(None, encoder, device="cuda") as index:
            index.add([*TEXTS[3:], LONG], ids=list("abcdef"))
            candidates = index.engine.collection.stage_one.candidates
            return candidates.vectors(candidates.keys())

    from_gpu = encodings()
    monkeypatch.setattr(SentenceTransformerEncoder, "_is_on_cuda", False)
    np.testing.assert_allclose(from_gpu, encodings(), atol=1e-4)


def test_questions_and_no_texts_are_on_the_host(gpu: str, folders: dict[str, Path]) -> None:
    encoder = SentenceTransformerEncoder(folders["native"], device=gpu)
    assert encoder.encode_queries(TEXTS).on_gpu is None
    assert encoder.encode_documents([]).on_gpu is None
    assert len(encoder.encode_documents([])) == 0


@pytest.fixture(scope="session")
def unusual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, MultiVectorEncoder]:
    found: dict[str, MultiVectorEncoder] = quietly(unusual_models, tmp_path_factory.mktemp("unusual"))
    return found


@pytest.mark.parametrize("kind", UNUSUAL)
def test_models_that_are_built_in_other_ways(kind: str, unusual: dict[str, MultiVectorEncoder], tmp_path: Path) -> None:
    model = unusual[kind]
    encoder = SentenceTransformerEncoder(model)
    for encode, encode_alike, spans in (
        (encoder.encode_documents, model.encode_document, encoder.document_spans),
        (encoder.encode_queries, model.encode_query, encoder.query_spans),
    ):
        texts = [text for text in TEXTS if text]
        for text, ours, theirs in zip(texts, encode(texts), encode_alike(texts, convert_to_numpy=True), strict=True):
            if kind == "no-mask":  # nothing normalizes
                theirs = theirs / np.linalg.norm(theirs, axis=1, keepdims=True)
                np.testing.assert_allclose(ours, theirs, atol=1e-6)
            elif len(theirs):
                np.testing.assert_array_equal(ours, theirs)
            assert len(spans(text)) == len(ours) >= 1
        for text in (LONG, "", "owlheronant" * 40):
            assert len(spans(text)) == len(encode([text])[0]) >= 1
    covered = {LONG[start:end].strip() for start, end in encoder.document_spans(LONG)}
    assert covered >= ({"o", "w", "l"} if kind == "bytes" else {"owl", "night", "water"})
    quietly(model.save_pretrained, str(tmp_path / "saved"), create_model_card=False)
    assert SentenceTransformerEncoder(tmp_path / "saved", device="cpu").fingerprint == encoder.fingerprint


def test_both_backbones_of_a_router_are_part_of_the_fingerprint(unusual: dict[str, MultiVectorEncoder]) -> None:
    model = deepcopy(unusual["router"])
    before = SentenceTransformerEncoder(model).fingerprint
    model[0].sub_modules["document"][0].document_length = 29
    changed = SentenceTransformerEncoder(model).fingerprint
    assert changed != before
    model[0].sub_modules["query"][0].model.encoder.layer[0].output.dense.bias.data += 1
    assert SentenceTransformerEncoder(model).fingerprint not in (before, changed)


# Long texts


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", [LONG, "🦉日本語 owl herons " * 14, "owlheronant" * 40, "a, " * 200])
def test_windows_cover_a_long_document_once(
    kind: str, text: str, encoders: dict[str, SentenceTransformerEncoder]
) -> None:
    encoder = encoders[kind]
    spans = encoder.document_spans(text)
    assert len(spans) == len(encoder.encode_documents([text]).vectors)
    of_words = spans[spans[:, 0] < spans[:, 1]]
    assert (np.diff(of_words[:, 0]) >= 0).all()
    covered = np.zeros(len(text), bool)
    for start, end in of_words:
        covered[start:end] = True
    assert all(covered[i] for i, character in enumerate(text) if character.isalnum())


def test_a_window_is_what_the_model_makes_of_its_part_of_the_text(
    encoders: dict[str, SentenceTransformerEncoder], library_models: dict[str, MultiVectorEncoder]
) -> None:
    encoder, text = encoders["native"], "owl heron ant water night day light hunt live still deep tree lake "
    text = text * 6
    ours, spans = encoder.encode_documents([text])[0], encoder.document_spans(text)
    first = library_models["native"].encode_document([text], convert_to_numpy=True)[0]
    # Window one: [CLS], the marker and 37 words, of which 33 are kept; the model cuts the document after them.
    n = next(i for i, (mine, theirs) in enumerate(zip(ours, first, strict=False)) if np.abs(mine - theirs).max() > 1e-5)
    assert 30 <= n < len(first)
    words = [text[start:end] for start, end in spans]
    assert words[:2] == ["", ""]
    assert words[-1] == ""
    assert " ".join(words[2:-1]) == text.strip()


def test_the_limit_is_exact(
    encoders: dict[str, SentenceTransformerEncoder], library_models: dict[str, MultiVectorEncoder]
) -> None:
    for kind in KINDS:
        encoder, model = encoders[kind], library_models[kind]
        limit = encoder.settings["document_length"]
        fits = next(
            text for n in range(limit, 0, -1) if len(ids(model, text := " ".join(["owl"] * n), "document")) < limit
        )
        fits += " owl"
        assert len(ids(model, fits, "document")) == limit
        np.testing.assert_array_equal(
            encoder.encode_documents([fits]).vectors, model.encode_document([fits], convert_to_numpy=True)[0]
        )
        # One word more, and there are two windows: more vectors than the model gives.
        longer = encoder.encode_documents([fits + " owl"]).vectors
        assert len(longer) == len(model.encode_document([fits + " owl"], convert_to_numpy=True)[0]) + 1


def ids(model: MultiVectorEncoder, text: str, task: str) -> list[int]:
    found: list[int] = model.preprocess([text], prompt=model.prompts[task], task=task)["input_ids"][0].tolist()
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("default::muvera_core.errors.TruncatedTextWarning")
def test_a_warning_says_where_the_model_cuts_a_query(
    kind: str, encoders: dict[str, SentenceTransformerEncoder], library_models: dict[str, MultiVectorEncoder]
) -> None:
    encoder, model = encoders[kind], library_models[kind]
    with pytest.warns(TruncatedTextWarning, match="the question is too long: its characters") as caught:
        ours = encoder.encode_queries([LONG]).vectors
    np.testing.assert_array_equal(ours, model.encode_query([LONG], convert_to_numpy=True)[0])
    end = int(str(caught[0].message).split(" its characters ")[1].split()[0])
    assert end == encoder.query_spans(LONG)[:, 1].max()
    assert "query_length" in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode_queries([LONG[:end]])


def test_lengths_can_be_set(folders: dict[str, Path], encoders: dict[str, SentenceTransformerEncoder]) -> None:
    encoder = SentenceTransformerEncoder(folders["native"], device="cpu", document_length=60, query_length=20)
    assert encoder.settings["document_length"] == 60
    assert len(encoder.encode_queries(["owl"])[0]) == 20
    assert len(encoder.encode_documents(["owl " * 57])[0]) == 60
    assert encoder.fingerprint != encoders["native"].fingerprint
    same = SentenceTransformerEncoder(folders["native"], device="cpu", document_length=40, query_length=QUERY_LENGTH)
    assert same.fingerprint == encoders["native"].fingerprint
    longer = SentenceTransformerEncoder(folders["text-prompts"], device="cpu", query_length=50)
    assert len(longer.encode_queries(["owl " * 60])[0]) == 50


@pytest.mark.parametrize(
    ("kind", "lengths", "message"),
    [
        ("native", {"document_length": POSITIONS + 1}, f"document_length must be at most {POSITIONS}, the positions"),
        ("native", {"query_length": POSITIONS + 1}, f"query_length must be at most {POSITIONS}, the positions"),
        ("min-expansion", {"query_length": 8}, "query_length must be at least 12, to which this model expands"),
        ("native", {"document_length": 0}, "document_length must be at least 1"),
    ],
)
def test_lengths_that_the_model_cannot_have_are_refused(
    kind: str, lengths: dict[str, Any], message: str, folders: dict[str, Path]
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        SentenceTransformerEncoder(folders[kind], device="cpu", **lengths)


def test_a_length_without_room_for_text_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(EncoderError, match="markers of a document have 3 tokens, but the model encodes 3 tokens"):
        SentenceTransformerEncoder(folders["native"], device="cpu", document_length=3)


# Spans


@pytest.mark.parametrize("kind", [*KINDS, "pooling"])
@pytest.mark.parametrize("text", [*TEXTS, LONG])
def test_each_vector_has_one_span(kind: str, text: str, encoders: dict[str, SentenceTransformerEncoder]) -> None:
    encoder = encoders[kind]
    assert len(encoder.document_spans(text)) == len(encoder.encode_documents([text])[0])
    assert len(encoder.query_spans(text)) == len(encoder.encode_queries([text])[0])


def test_spans_name_the_words(encoders: dict[str, SentenceTransformerEncoder]) -> None:
    text = "The owl, at night"
    words = {
        kind: [[text[start:end] for start, end in spans(text)] for spans in (e.document_spans, e.query_spans)]
        for kind, e in encoders.items()
    }
    masks = [""] * QUERY_LENGTH
    assert words["native"][0] == ["", "", "The", "owl", "at", "night", ""]
    assert words["native"][1] == ["", "", "The", "owl", ",", "at", "night", *masks][:QUERY_LENGTH]
    assert words["pylate"] == words["stanford"] == words["native"]
    # The prompt "passage: " has seven tokens, of which the last joins the text's first space in other texts.
    assert words["text-prompts"][0][-6:] == ["e", " owl", ",", " at", " night", ""]
    assert "".join(words["text-prompts"][0]) == text
    assert "".join(words["text-prompts"][1]) == text
    assert set(words["pooling"][0]) == {""}
    assert words["pooling"][1] == words["native"][1]


def test_markers_written_in_a_text_are_what_the_model_takes_them_for(
    encoders: dict[str, SentenceTransformerEncoder],
) -> None:
    text = "owl [SEP] heron"
    assert [text[start:end] for start, end in encoders["native"].document_spans(text)] == [
        "",
        "",
        "owl",
        "[SEP]",
        "heron",
        "",
    ]


# Warnings


@pytest.mark.filterwarnings("default::muvera_core.errors.UnknownTextWarning")
def test_unknown_text_is_reported_once(folders: dict[str, Path]) -> None:
    encoder = SentenceTransformerEncoder(folders["native"], device="cpu")
    with pytest.warns(UnknownTextWarning, match="cannot read 100% of the characters of text 1 .* same unknown word"):
        encoder.encode_documents(["日本語"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode_documents(["日本語"])
    with pytest.warns(UnknownTextWarning, match="of the question"):
        encoder.encode_queries(["日本語"])


# What is loaded


def test_moving_a_folder_does_not_lock_an_index_and_exchanging_its_weights_does(
    folders: dict[str, Path], copied: Path, tmp_path: Path
) -> None:
    index_folder = tmp_path / "index"
    with MuveraIndex.create(index_folder, SentenceTransformerEncoder(folders["native"], device="cpu")) as index:
        index.add(["the owl hunts at night", "ants live in colonies"], ids=["owl", "ant"])
    moved = copied.rename(tmp_path / "moved")
    with MuveraIndex.open(index_folder, SentenceTransformerEncoder(moved, device="cpu")) as index:
        assert index.search("the owl hunts at night", k=1)[0].id == "owl"
    weights = load_file(moved / "model.safetensors")
    weights["encoder.layer.1.output.dense.bias"][3] += 1e-3
    save_file(weights, moved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderMismatchError):
        MuveraIndex.open(index_folder, SentenceTransformerEncoder(moved, device="cpu"))


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config_sentence_transformers.json", {"prompts": {"query": "[unused0] ", "document": "[unused0] "}}),
        ("sentence_bert_config.json", {"document_length": 41}),
        ("sentence_bert_config.json", {"query_expansion": None}),
        ("config.json", {"num_attention_heads": 4}),
        ("config.json", {"hidden_act": "relu"}),
        ("1_Dense/config.json", {"activation_function": "torch.nn.modules.activation.Tanh"}),
        ("2_MultiVectorMask/config.json", {"skiplist_words": []}),
        ("tokenizer_config.json", {"model_max_length": 50, "truncation_side": "left"}),
    ],
)
def test_whatever_changes_vectors_changes_the_fingerprint(
    file: str, change: dict[str, Any], copied: Path, encoders: dict[str, SentenceTransformerEncoder]
) -> None:
    before = SentenceTransformerEncoder(copied, device="cpu").fingerprint
    assert before == encoders["native"].fingerprint
    content = json.loads((copied / file).read_text())
    write_json(copied / file, content | change)
    assert SentenceTransformerEncoder(copied, device="cpu").fingerprint != before


def test_another_tokenizer_changes_the_fingerprint(
    copied: Path, encoders: dict[str, SentenceTransformerEncoder]
) -> None:
    content = json.loads((copied / "tokenizer.json").read_text())
    content["normalizer"]["lowercase"] = False
    write_json(copied / "tokenizer.json", content)
    assert SentenceTransformerEncoder(copied, device="cpu").fingerprint != encoders["native"].fingerprint


def test_what_is_incidental_does_not_change_the_fingerprint(
    copied: Path, encoders: dict[str, SentenceTransformerEncoder]
) -> None:
    (copied / "README.md").write_text("a model card")
    config = json.loads((copied / "config.json").read_text())
    write_json(copied / "config.json", config | {"transformers_version": "5.0.0", "_name_or_path": "elsewhere"})
    assert SentenceTransformerEncoder(copied, device="cpu", batch_size=7).fingerprint == encoders["native"].fingerprint


def test_a_pooler_that_the_files_lack_does_not_matter(
    copied: Path, encoders: dict[str, SentenceTransformerEncoder]
) -> None:
    weights = load_file(copied / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("pooler.")}
    assert len(kept) == len(weights) - 2
    save_file(kept, copied / "model.safetensors", metadata={"format": "pt"})
    encoder = SentenceTransformerEncoder(copied, device="cpu")
    assert encoder.fingerprint == encoders["native"].fingerprint
    np.testing.assert_array_equal(
        encoder.encode_documents(TEXTS).vectors, encoders["native"].encode_documents(TEXTS).vectors
    )


def test_missing_weights_are_refused(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        EncoderError, match=r"lack 1 of the tensors .* such as encoder\.layer\.1\.output\.dense\.weight"
    ):
        SentenceTransformerEncoder(copied, device="cpu")


def test_a_head_without_weights_is_refused(copied: Path) -> None:
    (copied / "1_Dense" / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match="sentence-transformers cannot load"):
        SentenceTransformerEncoder(copied, device="cpu")


def test_a_plain_language_model_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(EncoderError, match=r"is not a late-interaction model: it has no modules\.json"):
        SentenceTransformerEncoder(folders["native"].parent / "bert", device="cpu")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"has neither modules\.json nor config\.json: it is not a model's folder$"):
        SentenceTransformerEncoder(tmp_path, device="cpu")


def test_a_single_vector_model_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    transformer = Transformer(str(folders["native"].parent / "bert"))
    model = SentenceTransformer(modules=[transformer, Pooling(HIDDEN), Normalize()], device="cpu")
    model.save_pretrained(str(tmp_path), create_model_card=False)
    with pytest.raises(EncoderError, match="is a SentenceTransformer model, which has one vector per text"):
        SentenceTransformerEncoder(tmp_path, device="cpu")
    with pytest.raises(InvalidInputError, match="model must be the path of a folder or a MultiVectorEncoder"):
        SentenceTransformerEncoder(model)


def test_code_of_others_is_refused(copied: Path) -> None:
    modules = json.loads((copied / "modules.json").read_text())
    write_json(copied / "modules.json", [*modules, {"idx": 9, "name": "9", "path": "9", "type": "os.path.Evil"}])
    with pytest.raises(EncoderError, match=r"a module of the type os\.path\.Evil, which is not a part of sentence-tr"):
        SentenceTransformerEncoder(copied, device="cpu")
    write_json(copied / "modules.json", modules)
    head = json.loads((copied / "1_Dense" / "config.json").read_text())
    write_json(copied / "1_Dense" / "config.json", head | {"activation_function": "os.system"})
    with pytest.raises(EncoderError, match=r"has the activation function os\.system, which is not a part of torch"):
        SentenceTransformerEncoder(copied, device="cpu")


def test_code_in_the_folder_runs_only_if_it_is_trusted(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    config |= {"model_type": "owl", "auto_map": {"AutoConfig": "owl.OwlConfig", "AutoModel": "owl.OwlModel"}}
    write_json(copied / "config.json", config)
    (copied / "owl.py").write_text("raise SystemExit('code of the model ran')")
    with pytest.raises(EncoderError, match=r"brings its own Python code\. Pass trust_remote_code=True"):
        SentenceTransformerEncoder(copied, device="cpu")
    with pytest.raises(SystemExit, match="code of the model ran"):
        SentenceTransformerEncoder(copied, device="cpu", trust_remote_code=True)


@pytest.mark.parametrize("name", ["lightonai/GTE-ModernColBERT-v1", "no such folder", "/no/such/folder"])
def test_names_are_not_looked_up_unless_the_user_says_so(name: str) -> None:
    with pytest.raises(EncoderError, match=r"is not a folder.*allow_download=True"):
        SentenceTransformerEncoder(name)


def test_a_folder_that_is_damaged_is_refused(copied: Path) -> None:
    (copied / "modules.json").write_text("[")
    with pytest.raises(EncoderError, match=r"modules\.json, .* cannot be read"):
        SentenceTransformerEncoder(copied, device="cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "cuda:9"}, "device 'cuda:9' is not available"),
        ({"device": "abacus"}, "device must be 'cpu', 'cuda', 'cuda:N' or 'mps', got"),
        ({"dtype": "float64"}, "dtype must be one of float32, float16, bfloat16, got"),
        ({"backend": "jax"}, "backend must be one of torch, onnx, openvino, got"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"revision": "main"}, "revision is for a model on the hub, but .* is a folder: leave it out"),
        (
            {"model_kwargs": {"torch_dtype": "float16"}},
            "model_kwargs must not have 'torch_dtype': use the argument dtype",
        ),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str, folders: dict[str, Path]) -> None:
    with pytest.raises(InvalidInputError, match=message):
        SentenceTransformerEncoder(folders["native"], **arguments)


def test_a_model_object_is_configured_by_the_user(library_models: dict[str, MultiVectorEncoder]) -> None:
    with pytest.raises(InvalidInputError, match="device, backend, document_length can only be given with a model's fo"):
        SentenceTransformerEncoder(library_models["native"], device="cpu", backend="onnx", document_length=30)
    with pytest.raises(InvalidInputError, match="allow_download, trust_remote_code can only be given with"):
        SentenceTransformerEncoder(library_models["native"], allow_download=True, trust_remote_code=True)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_a_backend_that_is_not_installed_is_named(backend: str, folders: dict[str, Path]) -> None:
    package = {"onnx": "optimum.onnxruntime", "openvino": "optimum.intel"}[backend]
    try:
        __import__(package)
    except ImportError:
        with pytest.raises(MissingExtraError, match=f"backend '{backend}' needs optimum-"):
            SentenceTransformerEncoder(folders["native"], backend=backend)
    else:
        pytest.skip(f"{package} is installed")


# Copies, threads, processes


def test_a_copy_of_a_model_object(library_models: dict[str, MultiVectorEncoder]) -> None:
    encoder = SentenceTransformerEncoder(library_models["native"])
    with pytest.raises(EncoderError, match=r"cannot be pickled: save the model with model\.save_pretrained"):
        pickle.dumps(encoder)
    twin = deepcopy(encoder)
    np.testing.assert_array_equal(twin.encode_queries(TEXTS).vectors, encoder.encode_queries(TEXTS).vectors)


def test_a_pickle_notices_other_weights(copied: Path) -> None:
    encoder = SentenceTransformerEncoder(copied, device="cpu")
    pickled = pickle.dumps(encoder)
    weights = load_file(copied / "1_Dense" / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, copied / "1_Dense" / "model.safetensors")
    with pytest.raises(EncoderError, match="no longer has the content that it had when the encoder was pickled"):
        pickle.loads(pickled)  # noqa: S301


def test_threads_that_encode_documents_and_queries_do_not_mix_their_lengths(
    encoders: dict[str, SentenceTransformerEncoder],
) -> None:
    encoder, text = encoders["native"], "owl heron " * 17
    documents, queries = encoder.encode_documents([text]).vectors, encoder.encode_queries([text]).vectors

    def encode(i: int) -> bool:
        if i % 2:
            return np.array_equal(encoder.encode_documents([text]).vectors, documents)
        return np.array_equal(encoder.encode_queries([text]).vectors, queries)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(encode, range(64)))


def test_importing_the_core_does_not_import_torch() -> None:
    slow = {"torch", "transformers", "sentence_transformers"}
    code = f"import sys, muvera_core, muvera_core.encoders; assert not {slow} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))


def test_loading_says_nothing(folders: dict[str, Path]) -> None:
    code = (
        "import sys, warnings; warnings.simplefilter('error')\n"
        "from muvera_core.encoders import SentenceTransformerEncoder\n"
        "for folder in sys.argv[1:]: SentenceTransformerEncoder(folder, device='cpu').encode_documents(['owl'])"
    )
    chosen = [str(folders[kind]) for kind in ("native", "pylate", "stanford", "deep-head")]
    done = subprocess.run([sys.executable, "-c", code, *chosen], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_model_that_was_never_saved_can_be_used(folders: dict[str, Path], tmp_path: Path) -> None:
    model = quietly(native_model, folders["native"].parent / "bert")
    encoder = SentenceTransformerEncoder(model)
    quietly(model.save_pretrained, str(tmp_path / "saved"), create_model_card=False)
    assert SentenceTransformerEncoder(tmp_path / "saved", device="cpu").fingerprint == encoder.fingerprint


def test_a_text_model_embeds_no_images(encoders: dict[str, SentenceTransformerEncoder]) -> None:
    assert not encoders["native"].embeds_images
    with pytest.raises(InvalidInputError, match="this model does not embed images"):
        encoders["native"].encode_images([])


# The command line


@pytest.mark.parametrize("kind", ["native", "pylate", "stanford"])
def test_a_folder_is_opened_with_this_encoder(kind: str, folders: dict[str, Path]) -> None:
    encoder = load_encoder(folders[kind])
    assert isinstance(encoder, SentenceTransformerEncoder)
    assert isinstance(load_encoder(folders[kind], encoder.fingerprint), SentenceTransformerEncoder)


def test_an_index_that_colbert_ai_made_needs_colbert_ai(folders: dict[str, Path]) -> None:
    with pytest.raises((MissingExtraError, EncoderError), match=r"muvera-core\[colbert\]"):
        load_encoder(folders["stanford"], "colbert-ai:0123")


def test_the_command_line_takes_a_model(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("The owl hunts at night.")
    model = str(folders["native"])
    for arguments in (["index", "i", "notes.txt"], ["search", "i", "what hunts at night", "--explain"]):
        command = [sys.executable, "-m", "muvera_core.cli", *arguments, "--encoder", model]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert "The owl hunts at night." in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("kind", ["native", "pylate"])
def test_the_example_runs(kind: str, folders: dict[str, Path]) -> None:
    example = Path(__file__).parents[2] / "examples" / "recipes" / "sentence_transformers_model.py"
    command = [sys.executable, "-W", "error", str(example), str(folders[kind]), "--question", "Owls hunt at night."]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "16 dimensions, {'document_length': 40, 'query_length': 32}"
    assert " owl: Owls hunt at night." in lines[2]
    assert any(line.startswith("  'hunt' matches 'hunt' (") for line in lines)


# Names on the hub


def test_a_name_on_the_hub_is_loaded_if_the_user_says_so(
    folders: dict[str, Path], encoders: dict[str, SentenceTransformerEncoder], tmp_path: Path
) -> None:
    """The hub's cache stands for the hub: without network, huggingface_hub answers from it."""
    repository = tmp_path / "models--owls--native"
    version = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(folders["native"], repository / "snapshots" / version)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(version)
    plain = tmp_path / "models--owls--plain"
    shutil.copytree(folders["native"].parent / "bert", plain / "snapshots" / version)
    (plain / "refs").mkdir()
    (plain / "refs" / "main").write_text(version)
    code = (
        "from muvera_core.encoders import SentenceTransformerEncoder\n"
        "from muvera_core.errors import EncoderError\n"
        "print(SentenceTransformerEncoder('owls/native', device='cpu', allow_download=True).fingerprint)\n"
        "for name in ('owls/plain', 'owls/absent'):\n"
        "    try: SentenceTransformerEncoder(name, device='cpu', allow_download=True)\n"
        "    except EncoderError as error: print(error)\n"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    loaded, refused, absent = done.stdout.strip().split("\n", 2)
    assert loaded == encoders["native"].fingerprint
    assert refused.startswith("owls/plain is not a late-interaction model: it has no modules.json")
    assert absent.startswith("owls/absent has neither modules.json nor config.json: it is not a model's folder, or the")
