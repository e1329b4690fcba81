"""Models of sentence-transformers, exported to ONNX: equal vectors, the same fingerprint, clear refusals."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoder_checks import EncoderChecks

pytest.importorskip(
    "sentence_transformers",
    minversion="6",
    reason="needs muvera-core[sentence-transformers], in an environment of its own",
)

import torch
from click.testing import CliRunner
from sentence_transformers import MultiVectorEncoder
from small_models import POSITIONS, quietly, save_all, save_native

from muvera_core import MuveraIndex
from muvera_core.cli import main
from muvera_core.encoders import OnnxEncoder, SentenceTransformerEncoder, export_onnx
from muvera_core.encoders.model_folders import load_encoder
from muvera_core.encoders.onnx import export as exporting
from muvera_core.errors import EncoderError, InvalidInputError, MissingExtraError

# All kinds of small models but one that merges tokens.
KINDS = ["native", "deep-head", "text-prompts", "min-expansion", "not-normalized", "pylate", "stanford"]
TEXTS = [
    "An owl hunts at night.",
    "",
    "?!",
    "naïve café 🦉 東京",
    "the [SEP] and [MASK] markers",
    "ants live in colonies " * 30,
    "owl",
]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder per kind of model, with random weights."""
    found: dict[str, Path] = quietly(save_all, tmp_path_factory.mktemp("models"))
    return found


@pytest.fixture(scope="session")
def exported(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The exported folder of each kind of model."""
    folder = tmp_path_factory.mktemp("exported")
    return {kind: quietly(export_onnx, folders[kind], folder / kind).folder for kind in KINDS}


class TestExported(EncoderChecks):
    @pytest.fixture
    def encoder(self, exported: dict[str, Path]) -> OnnxEncoder:
        return OnnxEncoder(exported["native"])

    @pytest.fixture
    def limited(self, exported: dict[str, Path]) -> OnnxEncoder:
        return OnnxEncoder(exported["native"], max_document_tokens=40)


@pytest.mark.filterwarnings("ignore::muvera_core.errors.TruncatedTextWarning")
@pytest.mark.filterwarnings("ignore::muvera_core.errors.UnknownTextWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_each_vector_is_the_original_s(kind: str, folders: dict[str, Path], exported: dict[str, Path]) -> None:
    original, encoder = SentenceTransformerEncoder(folders[kind], device="cpu"), OnnxEncoder(exported[kind])
    for wanted, found in (
        (original.encode_documents(TEXTS), encoder.encode_documents(TEXTS)),
        (original.encode_queries(TEXTS), encoder.encode_queries(TEXTS)),
    ):
        np.testing.assert_array_equal(found.offsets, wanted.offsets)
        np.testing.assert_allclose(found.vectors, wanted.vectors, atol=2e-6)
    for text in TEXTS:
        np.testing.assert_array_equal(encoder.document_spans(text), original.document_spans(text))
        np.testing.assert_array_equal(encoder.query_spans(text), original.query_spans(text))


@pytest.mark.parametrize("kind", KINDS)
def test_both_open_the_same_index(kind: str, folders: dict[str, Path], exported: dict[str, Path]) -> None:
    original = SentenceTransformerEncoder(folders[kind], device="cpu")
    assert OnnxEncoder(exported[kind]).fingerprint == original.fingerprint


def test_an_index_of_the_original_is_searched_without_it(
    folders: dict[str, Path], exported: dict[str, Path], tmp_path: Path
) -> None:
    texts = ["An owl hunts at night.", "Ants live in colonies.", "owls and ants " * 40]
    with MuveraIndex.create(tmp_path / "index", SentenceTransformerEncoder(folders["pylate"], device="cpu")) as index:
        index.add(texts, ids=["owl", "ant", "long"])
        wanted = [(hit.id, hit.score) for hit in index.search("which owl hunts?", k=3)]
    with MuveraIndex.open(tmp_path / "index", OnnxEncoder(exported["pylate"])) as index:
        found = [(hit.id, hit.score) for hit in index.search("which owl hunts?", k=3)]
        assert index.explain("which owl hunts?", "long")
    assert [id for id, _ in found] == [id for id, _ in wanted]
    np.testing.assert_allclose([score for _, score in found], [score for _, score in wanted], atol=1e-4)


def test_the_settings_are_also_those_that_next_plaid_reads(exported: dict[str, Path]) -> None:
    config = json.loads((exported["pylate"] / "onnx_config.json").read_text())
    tokenizer = json.loads((exported["pylate"] / "tokenizer.json").read_text())
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    assert (config["query_prefix"], config["query_prefix_id"]) == ("[Q] ", ids["[Q] "])
    assert (config["document_prefix"], config["document_prefix_id"]) == ("[D] ", ids["[D] "])
    assert (config["query_length"], config["document_length"], config["embedding_dim"]) == (32, 40, 16)
    assert config["do_query_expansion"] is True
    assert None not in config.values()
    assert config["muvera"]["positions"] == POSITIONS
    assert config["mask_token_id"] == ids["[MASK]"]
    # Without our own entry, the folder has the same vectors: they are PyLate's.
    plain = {name: value for name, value in config.items() if name != "muvera"}
    other = exported["pylate"].parent / "plain"
    other.mkdir()
    for name in ("model.onnx", "tokenizer.json"):
        (other / name).write_bytes((exported["pylate"] / name).read_bytes())
    (other / "onnx_config.json").write_text(json.dumps(plain))
    short = ["An owl hunts at night.", "", "ants"]
    for method in ("encode_documents", "encode_queries"):
        vectors = [getattr(OnnxEncoder(folder), method)(short).vectors for folder in (exported["pylate"], other)]
        np.testing.assert_array_equal(*vectors)


def test_rounded_weights_are_smaller_and_have_a_fingerprint_of_their_own(
    folders: dict[str, Path], exported: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("onnx", reason="needs muvera-core[export]")
    report = quietly(export_onnx, folders["native"], tmp_path / "int8", int8=True)
    assert sorted(file.name for file in report.folder.iterdir()) == [
        "model_int8.onnx",
        "onnx_config.json",
        "tokenizer.json",
    ]
    assert not report.is_original
    assert 1e-5 < report.largest_difference < 0.1
    assert report.lowest_cosine > 0.99
    encoder = OnnxEncoder(report.folder)
    assert encoder.fingerprint == report.fingerprint != OnnxEncoder(exported["native"]).fingerprint
    assert (report.folder / "model_int8.onnx").stat().st_size < (exported["native"] / "model.onnx").stat().st_size


def test_weights_are_rounded_to_seven_bits(folders: dict[str, Path], tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="needs muvera-core[export]")
    report = quietly(export_onnx, folders["native"], tmp_path / "int8", int8=True)
    model = onnx.load(report.folder / "model_int8.onnx")
    products = {node.input[1] for node in model.graph.node if node.op_type == "MatMulInteger"}
    assert products
    weights = [onnx.numpy_helper.to_array(w) for w in model.graph.initializer if w.name in products]
    assert len(weights) >= 2 * 6  # two layers of six matrices
    assert all(weight.dtype == np.int8 and np.abs(weight.astype(int)).max() <= 64 for weight in weights)


def test_a_loaded_model_is_exported(folders: dict[str, Path], tmp_path: Path) -> None:
    model = quietly(MultiVectorEncoder, str(folders["native"]), device="cpu", local_files_only=True)
    report = quietly(export_onnx, model, tmp_path / "model")
    assert report.is_original
    assert report.n_vectors > 300
    assert report.largest_difference < 1e-5
    assert OnnxEncoder(report.folder).fingerprint == report.fingerprint


def test_weights_in_half_precision_are_exported_in_full(folders: dict[str, Path], tmp_path: Path) -> None:
    model = quietly(MultiVectorEncoder, str(folders["native"]), device="cpu").half()
    quietly(model.save_pretrained, str(tmp_path / "half"), create_model_card=False)
    report = quietly(export_onnx, tmp_path / "half", tmp_path / "model")
    original = quietly(SentenceTransformerEncoder, tmp_path / "half", device="cpu", dtype="float32")
    assert report.fingerprint == original.fingerprint
    found = OnnxEncoder(report.folder).encode_queries(["an owl"])
    np.testing.assert_allclose(found.vectors, original.encode_queries(["an owl"]).vectors, atol=2e-6)
    with pytest.raises(InvalidInputError, match="must be on the CPU in float32"):
        export_onnx(model, tmp_path / "other")


def test_a_model_that_merges_tokens_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="cannot be exported, because it merges tokens"):
        quietly(export_onnx, folders["pooling"], tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_pads_on_the_left_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    model = quietly(MultiVectorEncoder, str(folders["native"]), device="cpu")
    model.tokenizer.padding_side = "left"
    with pytest.raises(EncoderError, match="because it pads or cuts texts on the left"):
        quietly(export_onnx, model, tmp_path / "model")


def test_an_export_with_other_vectors_leaves_nothing(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_model = exporting._export_model

    def export_another(model: Any, file: Path) -> list[str]:
        """Export the model with one weight changed, and change it back."""
        head = model[1].linear.weight
        with torch.no_grad():
            head[0] *= 2
            names = export_model(model, file)
            head[0] /= 2
        return names

    monkeypatch.setattr(exporting, "_export_model", export_another)
    with pytest.raises(EncoderError, match="the exported model has other vectors than the original: components differ"):
        quietly(export_onnx, folders["native"], tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_left_alone(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for target in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(InvalidInputError, match="exists and is not an empty folder"):
            export_onnx(folders["native"], target)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_name_is_never_looked_up_without_being_asked(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="'example/some-model' is not a folder"):
        export_onnx("example/some-model", tmp_path / "model")


def test_without_onnx_the_extra_is_named(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"muvera-core\[export\]"):
        export_onnx(folders["native"], tmp_path / "model", int8=True)


def test_the_command_line_exports_and_uses_a_model(folders: dict[str, Path], tmp_path: Path) -> None:
    save_native(tmp_path / "model", folders["native"].parent / "bert", skiplist_words=[])
    (tmp_path / "owl.txt").write_text("An owl hunts at night.")
    model, index = str(tmp_path / "onnx"), str(tmp_path / "index")

    def run(*arguments: str) -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        return str(result.output)

    said = run("export-onnx", str(tmp_path / "model"), model)
    assert "components differ from the original's by at most" in said
    assert "opens the same indexes as the original" in said
    run("index", index, str(tmp_path / "owl.txt"), "--encoder", model)
    assert "owl.txt" in run("search", index, "who hunts at night?", "--encoder", model)
    assert isinstance(load_encoder(model), OnnxEncoder)


def test_the_command_line_says_what_is_wrong(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["export-onnx", "example/some-model", str(tmp_path / "model")])
    assert result.exit_code != 0
    assert "is not a folder" in result.output
    assert "--allow-download" in result.output
