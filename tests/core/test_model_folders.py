"""load_encoder without the packages that a model needs. tests/models has the rest."""

from __future__ import annotations

import importlib.util
import json
from importlib import metadata
from pathlib import Path

import pytest
from make_colbert_checkpoint import FOLDER

from muvera_core.encoders import SentenceTransformerEncoder, load_encoder
from muvera_core.errors import EncoderError, InvalidInputError, MissingExtraError


def has_sentence_transformers() -> bool:
    try:
        return int(metadata.version("sentence-transformers").split(".")[0]) >= 6
    except metadata.PackageNotFoundError:
        return False


needs_absence = pytest.mark.skipif(has_sentence_transformers(), reason="is about what happens without the extra")
has_colbert = importlib.util.find_spec("colbert") is not None


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    (tmp_path / "modules.json").write_text("[]")
    return tmp_path


@needs_absence
def test_a_model_of_sentence_transformers_needs_its_extra(model_folder: Path) -> None:
    for make in (load_encoder, SentenceTransformerEncoder):
        with pytest.raises(MissingExtraError, match=r"pip install 'muvera-core\[sentence-transformers\]'"):
            make(model_folder)


@needs_absence
def test_so_does_a_retriever_of_transformers(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["ColPaliForRetrieval"]}))
    with pytest.raises(MissingExtraError, match=r"muvera-core\[sentence-transformers\]"):
        load_encoder(tmp_path)


@needs_absence
def test_an_index_of_the_other_encoder_of_a_checkpoint_needs_that_encoder() -> None:
    with pytest.raises(MissingExtraError, match=r"SentenceTransformerEncoder needs .*\[sentence-transformers\]'"):
        load_encoder(FOLDER, "sentence-transformers:0123")


@needs_absence
def test_a_colbert_checkpoint_runs_with_colbert_ai_or_names_both_extras() -> None:
    if has_colbert:
        assert load_encoder(FOLDER).fingerprint.startswith("colbert-ai:")
    else:
        with pytest.raises(MissingExtraError, match=r"muvera-core\[colbert\]' or .*\[sentence-transformers\]'"):
            load_encoder(FOLDER)


@pytest.mark.parametrize("fingerprint", [None, "colbert-ai:0123"])
def test_what_is_no_folder_is_refused(tmp_path: Path, fingerprint: str | None) -> None:
    with pytest.raises(EncoderError, match="nowhere is not a folder: name the folder of a model"):
        load_encoder(tmp_path / "nowhere", fingerprint)
    with pytest.raises(InvalidInputError):
        load_encoder(7)  # type: ignore[arg-type]


def test_a_damaged_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(EncoderError, match=r"config\.json, .* cannot be read"):
        load_encoder(tmp_path)
