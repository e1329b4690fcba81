"""OnnxEncoder with a small model whose vectors are known."""

from __future__ import annotations

import json
import pickle
import shutil
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tiny_onnx
from encoder_checks import EncoderChecks
from tiny_onnx import DIMENSION, expected, vocabulary, write_folder

from muvera_core import MuveraIndex
from muvera_core.encoders import OnnxEncoder
from muvera_core.encoders.model_folders import load_encoder
from muvera_core.errors import (
    DeviceError,
    EncoderError,
    EncoderMismatchError,
    InvalidInputError,
    TruncatedTextWarning,
    UnknownTextWarning,
)

IDS = vocabulary()
# As next-plaid's exporter writes it, apart from entries that only describe the model.
PUBLISHED: dict[str, Any] = {
    "model_type": "ColBERT",
    "model_name": "example/tiny",
    "model_class": "BertModel",
    "uses_token_type_ids": False,
    "query_prefix": "[Q] ",
    "document_prefix": "[D] ",
    "query_length": 16,
    "document_length": 40,
    "do_query_expansion": True,
    "attend_to_expansion_tokens": False,
    "skiplist_words": list(string.punctuation),
    "embedding_dim": DIMENSION,
    "mask_token_id": IDS["[MASK]"],
    "pad_token_id": IDS["[PAD]"],
    "query_prefix_id": IDS["[Q] "],
    "document_prefix_id": IDS["[D] "],
    "do_lower_case": False,
}
OWN: dict[str, Any] = {
    "model_type": "ColBERT",
    "embedding_dim": DIMENSION,
    "pad_token_id": IDS["[PAD]"],
    "muvera": {
        "version": 1,
        "query": {"prompt": "query: ", "length": 32},
        "document": {"prompt": "", "length": 32},
    },
}


def ids_of(*words: str) -> list[int]:
    return [IDS[word] for word in words]


def own(**settings: Any) -> dict[str, Any]:
    return {**OWN, "muvera": {**OWN["muvera"], **settings}}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("models") / "published", PUBLISHED)


@pytest.fixture
def copy(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "copy"))


def edit(folder: Path, **settings: Any) -> None:
    file = folder / "onnx_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


class TestPublishedFolder(EncoderChecks):
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return write_folder(tmp_path / "published", {**PUBLISHED, "query_length": 64})

    @pytest.fixture
    def encoder(self, folder: Path) -> OnnxEncoder:
        return OnnxEncoder(folder, num_threads=2)

    @pytest.fixture
    def limited(self, folder: Path) -> OnnxEncoder:
        return OnnxEncoder(folder, max_document_tokens=40)


class TestOwnFolder(TestPublishedFolder):
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return write_folder(tmp_path / "own", own(query={"prompt": "query: ", "length": 64}))


def test_a_document_has_its_marker_and_no_punctuation(published: Path) -> None:
    encoder = OnnxEncoder(published)
    states = expected(ids_of("[CLS]", "[D] ", "owls", ",", "ants", "[SEP]"))
    found = encoder.encode_documents(["Owls, ants"])[0]
    np.testing.assert_allclose(found, states[[0, 1, 2, 4, 5]], atol=1e-6)
    assert encoder.document_spans("Owls, ants").tolist() == [[0, 0], [0, 0], [0, 4], [6, 10], [10, 10]]


@pytest.mark.parametrize("attends", [False, True])
def test_a_query_is_filled_up_with_masks(copy: Path, attends: bool) -> None:
    edit(copy, attend_to_expansion_tokens=attends)
    encoder = OnnxEncoder(copy)
    ids = ids_of("[CLS]", "[Q] ", "owls", ",", "[SEP]")
    masks = [IDS["[MASK]"]] * (16 - len(ids))
    states = expected(ids + masks, None if attends else len(ids))
    np.testing.assert_allclose(encoder.encode_queries(["owls,"])[0], states, atol=1e-6)
    assert encoder.query_spans("owls,").tolist() == [[0, 0], [0, 0], [0, 4], [4, 5], *[[5, 5]] * 12]


def test_queries_are_not_filled_up_if_the_settings_say_so(copy: Path) -> None:
    edit(copy, do_query_expansion=False)
    assert len(OnnxEncoder(copy).encode_queries(["owls"])[0]) == 4


def test_a_marker_without_its_id_is_looked_up(published: Path, copy: Path) -> None:
    edit(copy, query_prefix_id=None, document_prefix_id=None)
    for method in ("encode_documents", "encode_queries"):
        vectors = [getattr(OnnxEncoder(folder), method)(["an owl"]).vectors for folder in (published, copy)]
        np.testing.assert_array_equal(*vectors)


def test_a_long_query_is_cut_with_its_last_token_kept(published: Path) -> None:
    encoder = OnnxEncoder(published)
    text = "owl " * 12 + "ants hunt fish"
    with pytest.warns(TruncatedTextWarning, match=r"the question is too long: .* 52 to 62 .* raise query_length"):
        found = encoder.encode_queries([text])[0]
    ids = ids_of("[CLS]", "[Q] ", *["owl"] * 12, "ants", "[SEP]")
    np.testing.assert_allclose(found, expected(ids), atol=1e-6)


def test_a_prompt_is_tokenized_with_the_text(tmp_path: Path) -> None:
    encoder = OnnxEncoder(write_folder(tmp_path / "model", own()))
    ids = [*ids_of("[CLS]", "q", "##u", "##e", "##r", "##y", ":", "owls", "[SEP]")]
    np.testing.assert_allclose(encoder.encode_queries(["owls"])[0], expected(ids), atol=1e-6)
    assert encoder.query_spans("owls").tolist() == [*[[0, 0]] * 7, [0, 4], [4, 4]]


def test_windows_are_parts_of_the_text(published: Path) -> None:
    encoder = OnnxEncoder(published)
    words = (["owl", "ants", "fish", "water"] * 20)[:70]
    text = " ".join(words)
    spans = encoder.document_spans(text).tolist()
    assert [text[start:end] for start, end in spans if start < end] == words
    assert [span for span in spans if span[0] == span[1]] == [[0, 0], [0, 0], [len(text), len(text)]]
    first = expected(ids_of("[CLS]", "[D] ", *words[:37], "[SEP]"))
    np.testing.assert_allclose(encoder.encode_documents([text])[0][:20], first[:20], atol=1e-6)


def test_tokens_that_are_written_out_count_as_the_settings_say(tmp_path: Path) -> None:
    reads = OnnxEncoder(write_folder(tmp_path / "reads", own()))
    does_not = OnnxEncoder(write_folder(tmp_path / "does-not", own(reads_special_tokens=False)))
    assert len(reads.encode_documents(["[SEP]"])[0]) == 3
    assert len(does_not.encode_documents(["[SEP]"])[0]) == 2 + len("[SEP]")


def test_texts_are_lowercased_if_the_settings_say_so(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", {**OWN, "do_lower_case": True})
    content = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(content | {"normalizer": None}))
    np.testing.assert_allclose(
        OnnxEncoder(folder).encode_documents(["OWL"])[0], expected(ids_of("[CLS]", "owl", "[SEP]")), atol=1e-6
    )


def test_unknown_text_is_reported(published: Path) -> None:
    with pytest.warns(UnknownTextWarning, match="takes them all for the same unknown word"):
        OnnxEncoder(published).encode_documents(["東京の天気"])


def test_lengths_and_dimension_can_be_chosen(published: Path) -> None:
    encoder = OnnxEncoder(published, query_length=8, document_length=12, truncate_dim=4)
    assert encoder.encode_queries(["owls"]).vectors.shape == (8, 4)
    states = expected(ids_of("[CLS]", "[D] ", "owls", "[SEP]"))[:, :4]
    wanted = states / np.linalg.norm(states, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode_documents(["owls"]).vectors, wanted, atol=1e-6)
    assert encoder.settings["query_length"] == 8
    assert encoder.settings["truncate_dim"] == 4
    assert encoder.fingerprint != OnnxEncoder(published).fingerprint


def test_a_length_that_the_model_cannot_have_is_refused(tmp_path: Path) -> None:
    expansion = {"token_id": IDS["[MASK]"], "length": 12}
    folder = write_folder(tmp_path / "model", own(positions=64, expansion=expansion))
    assert len(OnnxEncoder(folder, query_length=64).encode_queries(["owl"])[0]) == 12
    for arguments, message in (
        ({"document_length": 65}, "document_length must be at most 64"),
        ({"query_length": 65}, "query_length must be at most 64"),
        ({"query_length": 11}, "query_length must be at least 12, to which this model expands"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            OnnxEncoder(folder, **arguments)  # type: ignore[arg-type]


def test_threads_and_batches_change_no_vectors(published: Path) -> None:
    texts = ["An owl", "Ants live in colonies. " * 20, "", "fish " * 7]
    alone = OnnxEncoder(published, num_threads=1).encode_documents(texts).vectors
    np.testing.assert_array_equal(OnnxEncoder(published, num_threads=3).encode_documents(texts).vectors, alone)
    batches = OnnxEncoder(published, batch_size=3).encode_documents(texts).vectors
    np.testing.assert_allclose(batches, alone, atol=1e-6)


def test_the_fingerprint_is_of_the_content(published: Path, copy: Path) -> None:
    original = OnnxEncoder(published).fingerprint
    assert original.startswith("onnx:")
    assert OnnxEncoder(copy, num_threads=1, batch_size=2).fingerprint == original
    (copy / "model.onnx").rename(copy / "renamed.onnx")
    assert OnnxEncoder(copy, model_file="renamed.onnx").fingerprint == original
    edit(copy, model_name="example/other")
    assert OnnxEncoder(copy, model_file="renamed.onnx").fingerprint == original
    edit(copy, attend_to_expansion_tokens=True)
    assert OnnxEncoder(copy, model_file="renamed.onnx").fingerprint != original


def test_other_weights_have_another_fingerprint(published: Path, copy: Path) -> None:
    model = bytearray((copy / "model.onnx").read_bytes())
    place = model.index(tiny_onnx.table().tobytes())
    model[place : place + 4] = np.float32(0.25).tobytes()
    (copy / "model.onnx").write_bytes(model)
    assert OnnxEncoder(copy).fingerprint != OnnxEncoder(published).fingerprint


def with_files(folder: Path, fingerprint: str) -> None:
    from muvera_core.encoders.onnx.config import file_entry

    files = {name: file_entry(folder / name) for name in ("model.onnx", "tokenizer.json")}
    file = folder / "onnx_config.json"
    file.write_text(json.dumps(own(files=files)))
    content = OnnxEncoder(folder).fingerprint
    file.write_text(json.dumps(own(files=files, fingerprint=fingerprint, content=content)))


def test_an_exported_model_opens_an_index_of_the_original(copy: Path, tmp_path: Path) -> None:
    with_files(copy, "the original")
    encoder = OnnxEncoder(copy)
    assert encoder.fingerprint == "the original"
    with MuveraIndex.create(tmp_path / "index", encoder) as index:
        index.add(["An owl hunts at night."])
    for changed in (
        OnnxEncoder(copy, document_length=20),
        OnnxEncoder(copy, query_length=20),
        OnnxEncoder(copy, truncate_dim=8),
    ):
        assert changed.fingerprint.startswith("onnx:")
        with pytest.raises(EncoderMismatchError):
            MuveraIndex.open(tmp_path / "index", changed)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(skiplist_words=["owl"]),
        lambda content: content["muvera"].update(skiplist_tasks=["query"]),
        lambda content: content["muvera"]["query"].update(prompt="ant "),
        lambda content: content["muvera"].pop("expansion", None) or content["muvera"].update(normalized=False),
        lambda content: content["muvera"].pop("content"),
    ],
)
def test_edited_settings_lose_the_fingerprint_of_the_original(copy: Path, change: Callable[[Any], None]) -> None:
    with_files(copy, "the original")
    file = copy / "onnx_config.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    assert OnnxEncoder(copy).fingerprint.startswith("onnx:")


def test_another_model_loses_the_fingerprint_of_the_original(copy: Path) -> None:
    with_files(copy, "the original")
    file = copy / "onnx_config.json"
    content = json.loads(file.read_text())
    del content["muvera"]["files"]
    file.write_text(json.dumps(content))
    assert OnnxEncoder(copy).fingerprint == "the original"
    tokenizer = copy / "tokenizer.json"
    tokenizer.write_bytes(tokenizer.read_bytes().replace(b"owl", b"owi"))
    assert OnnxEncoder(copy).fingerprint.startswith("onnx:")


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_exchanged_files_are_refused(copy: Path, name: str) -> None:
    with_files(copy, "the original")
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content.replace(b"owl", b"owi") if name == "tokenizer.json" else content[:-1] + b"x")
    with pytest.raises(EncoderError, match=rf"{name} is not the file that onnx_config.json describes: .* again"):
        OnnxEncoder(copy)


def test_a_pickled_encoder_needs_the_same_content(copy: Path) -> None:
    pickled = pickle.dumps(OnnxEncoder(copy, max_document_tokens=5))
    assert pickle.loads(pickled).max_document_tokens == 5  # noqa: S301
    edit(copy, query_length=20)
    with pytest.raises(EncoderError, match="no longer has the content"):
        pickle.loads(pickled)  # noqa: S301


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def overwrite(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).write_bytes(content)].clear()


def cut_short(folder: Path) -> None:
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:-200])


def say(**settings: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder, **settings)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(remove("onnx_config.json"), r"onnx_config.json, .* export-onnx", id="no settings"),
        pytest.param(overwrite("onnx_config.json", b"{"), r"onnx_config.json, .* cannot be read", id="no JSON"),
        pytest.param(overwrite("onnx_config.json", b"[]"), "must hold a JSON object, got list", id="a list"),
        pytest.param(remove("model.onnx"), r"model.onnx .* again", id="no model"),
        pytest.param(overwrite("model.onnx", b""), r"model.onnx .* again", id="empty model"),
        pytest.param(overwrite("model.onnx", b"no model"), r"model.onnx .* again", id="no ONNX"),
        pytest.param(cut_short, r"model.onnx .* again", id="cut short"),
        pytest.param(remove("tokenizer.json"), r"tokenizer.json.* again", id="no tokenizer"),
        pytest.param(overwrite("tokenizer.json", b"{}"), r"tokenizer.json.* again", id="no tokenizer inside"),
        pytest.param(say(query_length="16"), "query_length in .* is '16', expected a whole number", id="a string"),
        pytest.param(say(query_length=True), "query_length in .* is True, expected a whole number", id="a bool"),
        pytest.param(say(query_length=0), "query_length in .* is 0, expected 1 to", id="zero"),
        pytest.param(say(query_length=10**30), "query_length in .* expected 1 to", id="too large"),
        pytest.param(say(mask_token_id=-1), "mask_token_id in .* is -1, expected 0 to", id="a negative id"),
        pytest.param(say(pad_token_id=10**30), "pad_token_id in .* expected 0 to", id="no id"),
        pytest.param(say(skiplist_words=["\ud800"]), "skiplist_words in .* not Unicode", id="a surrogate for a word"),
        pytest.param(say(query_prefix="\ud800"), "query_prefix in .* not Unicode", id="a surrogate"),
        pytest.param(say(query_length=3), "raise query_length", id="no room"),
        pytest.param(say(document_length=None), "lacks document_length", id="no length"),
        pytest.param(say(mask_token_id=None), "lacks mask_token_id", id="no mask"),
        pytest.param(say(skiplist_words=[1]), "skiplist_words in .* a list of strings", id="numbers for words"),
        pytest.param(say(embedding_dim=32), "gives 16-d vectors, but embedding_dim .* is 32", id="other dimension"),
        pytest.param(say(model_type="CrossEncoder"), "the type 'CrossEncoder', expected ColBERT", id="other type"),
        pytest.param(say(muvera={"version": 2}), "version 2, .* up to 1: update muvera", id="newer"),
        pytest.param(say(muvera={"model_file": "../model.onnx"}), "must be a file in", id="other folder"),
        pytest.param(say(muvera={"expansion": {}}), "expansion lacks token_id or length", id="no expansion"),
    ],
)
def test_a_damaged_folder_is_refused(copy: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(copy)
    with pytest.raises(EncoderError, match=message):
        OnnxEncoder(copy)


def test_what_is_no_folder_is_refused(tmp_path: Path, published: Path) -> None:
    for path in (tmp_path / "missing", published / "model.onnx", "example/some-model"):
        with pytest.raises(EncoderError, match=r"is not a folder: .* It never downloads"):
            OnnxEncoder(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_threads": 0}, "num_threads must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"document_length": 0}, "document_length must be at least 1"),
        ({"max_document_tokens": 0}, "max_document_tokens must be at least 1"),
        ({"truncate_dim": 17}, "truncate_dim must be at most 16"),
        ({"device": "gpu"}, "device must be 'cpu', 'cuda'"),
        ({"device": None}, "device must be 'cpu', 'cuda'"),
    ],
)
def test_bad_arguments_are_refused(published: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        OnnxEncoder(published, **arguments)


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this onnxruntime is built for CUDA"
)
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "NoSuchExecutionProvider"])
def test_a_device_that_onnxruntime_lacks_is_refused(published: Path, device: str) -> None:
    with pytest.raises(DeviceError, match=r"needs onnxruntime's .*, but this build has only .*CPUExecutionProvider"):
        OnnxEncoder(published, device=device)


@pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(), reason="this onnxruntime has no CUDA"
)
def test_a_gpu_computes_the_same(published: Path) -> None:
    texts = ["An owl", "Ants live in colonies. " * 20, ""]
    on_cpu, on_gpu = (OnnxEncoder(published, device=device).encode_documents(texts) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(on_gpu.vectors, on_cpu.vectors, atol=1e-3)


def test_the_command_line_opens_such_folders(published: Path) -> None:
    assert isinstance(load_encoder(published), OnnxEncoder)


def test_a_folder_of_both_formats_opens_as_the_index_needs_it(copy: Path) -> None:
    (copy / "modules.json").write_text("[]")
    assert isinstance(load_encoder(copy, OnnxEncoder(copy).fingerprint), OnnxEncoder)


class TestModelsOfOtherShapes:
    """Models that are made here with the package onnx."""

    @pytest.fixture(autouse=True)
    def _needs_onnx(self) -> None:
        pytest.importorskip("onnx", reason="needs muvera-core[export]")

    def test_the_model_of_the_tests_is_up_to_date(self) -> None:
        assert tiny_onnx.model().SerializeToString() == (tiny_onnx.DATA / "model.onnx").read_bytes()

    @pytest.mark.parametrize(
        "shape",
        [
            {"inputs": ("input_ids",)},
            {"inputs": ("input_ids", "attention_mask", "token_type_ids")},
            {"output": "float16"},
            {"flat": True},
        ],
        ids=str,
    )
    def test_inputs_and_outputs_are_found_by_name_and_shape(self, tmp_path: Path, shape: dict[str, Any]) -> None:
        folder = write_folder(tmp_path / "model", own(), tiny_onnx.model(**shape))
        encoder = OnnxEncoder(folder, batch_size=2)
        texts = ["owls", "an ant and an owl"]
        wanted = [ids_of("[CLS]", *text.split(), "[SEP]") for text in ("owls", "a ##n a ##n ##t")][:1]
        np.testing.assert_allclose(encoder.encode_documents(texts)[0], expected(wanted[0]), atol=2e-3)
        assert encoder.encode_documents(texts).vectors.dtype == np.float32

    def test_other_inputs_are_refused(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path / "model", own(), tiny_onnx.model(("input_ids", "pixel_values")))
        with pytest.raises(EncoderError, match=r"has an input 'pixel_values' .* expected only input_ids"):
            OnnxEncoder(folder)

    @pytest.mark.parametrize("place", ["../secret.bin", "absolute", "link.bin"])
    def test_files_outside_of_the_folder_are_not_read(self, tmp_path: Path, place: str) -> None:
        from onnx import external_data_helper

        secret = tmp_path / "secret.bin"
        secret.write_bytes(tiny_onnx.table().tobytes())
        model = tiny_onnx.model()
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "table")
        external_data_helper.set_external_data(tensor, str(secret) if place == "absolute" else place)
        tensor.ClearField("raw_data")
        folder = write_folder(tmp_path / "model", own(), model)
        (folder / "link.bin").symlink_to(secret)
        with pytest.raises(EncoderError, match="which is not in its folder, so it is not read"):
            OnnxEncoder(folder)

    def test_weights_beside_the_model_are_read_and_count(self, tmp_path: Path) -> None:
        from onnx import external_data_helper

        model = tiny_onnx.model()
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "table")
        external_data_helper.set_external_data(tensor, "model.onnx.data")
        tensor.ClearField("raw_data")
        folder = write_folder(tmp_path / "model", own(), model)
        (folder / "model.onnx.data").write_bytes(tiny_onnx.table().tobytes())
        encoder = OnnxEncoder(folder)
        states = expected(ids_of("[CLS]", "owl", "[SEP]"))
        np.testing.assert_allclose(encoder.encode_documents(["owl"])[0], states, atol=1e-6)
        (folder / "model.onnx.data").write_bytes((2 * tiny_onnx.table()).tobytes())
        assert OnnxEncoder(folder).fingerprint != encoder.fingerprint

    def test_operators_of_others_are_refused(self, tmp_path: Path) -> None:
        model = tiny_onnx.model()
        model.graph.node[0].domain = "example.com"
        model.opset_import.add(domain="example.com", version=1)
        with pytest.raises(EncoderError, match="onnxruntime cannot load"):
            OnnxEncoder(write_folder(tmp_path / "model", own(), model))
