"""An index and the encoder that it takes by itself: in its dimension, and of another version."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from muvera_core import MuveraIndex, check_index, repair_index
from muvera_core.encoders import BUNDLED_DIMENSION, BundledEncoder, PrecomputedEmbeddings, default_encoder
from muvera_core.errors import EncoderMismatchError
from muvera_core.storage import manifest

TEXTS = ["Owls hunt at night.", "Ants live in colonies.", "Herons stand still in shallow water."]
EARLIER = "bundled-minilm-95cdcaf4b234-9114256b104c-p512-w256-o64-u1"


@pytest.fixture(scope="module")
def narrow() -> BundledEncoder:
    return BundledEncoder(dimension=64)


@pytest.fixture
def folder(tmp_path: Path, narrow: BundledEncoder) -> Path:
    with MuveraIndex.create(tmp_path / "index", narrow) as index:
        index.add(TEXTS, ids=["owl", "ant", "heron"])
    return tmp_path / "index"


def note_encoder(folder: Path, fingerprint: str) -> None:
    path = folder / "manifest.json"
    content = {**json.loads(path.read_text()), "encoder": fingerprint}
    path.write_text(json.dumps({**content, "checksum": manifest._checksum(content)}))


@pytest.mark.parametrize("open_index", [MuveraIndex.open, MuveraIndex.open_or_create])
def test_opened_without_an_encoder_an_index_keeps_its_dimension(open_index: object, folder: Path) -> None:
    assert callable(open_index)
    with open_index(folder) as index:
        assert index.encoder.dimension == 64
        index.add(["Storks nest on chimneys."], ids=["stork"])
        assert index.search("Which bird is active after dark?", k=1)[0].id == "owl"
        assert {tokens.shape[1] for tokens in index.get_embeddings(["owl", "stork"]).values()} == {64}


def test_a_narrow_index_takes_half_the_space(folder: Path, tmp_path: Path, encoder: BundledEncoder) -> None:
    with MuveraIndex.create(tmp_path / "wide", encoder) as wide:
        wide.add(TEXTS)
        n_tokens = wide.n_tokens
    # A row has one byte per dimension, and a scale.
    narrow_row, wide_row = (
        sum(file.stat().st_size for file in each.glob("tokens*")) / n_tokens for each in (folder, tmp_path / "wide")
    )
    assert wide_row - narrow_row == 64
    assert wide_row - 128 < 8


def test_the_other_dimension_is_refused_with_the_remedy(
    folder: Path, tmp_path: Path, encoder: BundledEncoder, narrow: BundledEncoder
) -> None:
    with pytest.raises(EncoderMismatchError, match=r"in 64 dimensions, got 128: pass BundledEncoder\(dimension=64\)"):
        MuveraIndex.open(folder, encoder)
    MuveraIndex.create(tmp_path / "wide").close()
    with pytest.raises(EncoderMismatchError, match=r"in 128 dimensions, got 64: pass BundledEncoder\(dimension=128\)"):
        MuveraIndex.open(tmp_path / "wide", narrow)


@pytest.mark.parametrize("made_with", [EARLIER, f"{EARLIER}-d64"])
@pytest.mark.parametrize("given", [None, 128])
def test_an_index_of_another_version_is_refused_with_the_remedy(
    made_with: str, given: int | None, folder: Path
) -> None:
    note_encoder(folder, made_with)
    encoder = None if given is None else BundledEncoder(dimension=given)
    with pytest.raises(EncoderMismatchError) as caught:
        MuveraIndex.open(folder, encoder)
    message = str(caught.value)
    assert f"was made with the bundled encoder of another version of muvera-core, '{made_with}'" in message
    assert "index the texts again in a new folder, or install the version that made the index" in message


def test_another_kind_of_encoder_is_refused_as_before(folder: Path) -> None:
    with pytest.raises(EncoderMismatchError, match=r"made with encoder 'bundled-.*-d64', got 'precomputed-.*pass the"):
        MuveraIndex.open(folder, PrecomputedEmbeddings(64, "other"))


def test_repair_encodes_in_the_dimension_of_the_index(folder: Path, narrow: BundledEncoder) -> None:
    (tokens,) = folder.glob("tokens*")
    content = bytearray(tokens.read_bytes())
    content[100] ^= 1
    tokens.write_bytes(content)
    assert not check_index(folder).ok
    assert repair_index(folder).reencoded == ("owl",)
    with MuveraIndex.open(folder) as index:
        expected = narrow.encode_documents(TEXTS[:1])[0]
        np.testing.assert_allclose(index.get_embeddings("owl")["owl"], expected, atol=0.01)


@pytest.mark.parametrize(
    ("made_with", "dimension"),
    [
        (None, 128),
        ("precomputed-model-64-d64", 128),
        ("bundled-x-u1-d32", 32),
        ("bundled-x-u1-d4096", 128),
        ("bundled-x-u1-d0", 128),
        ("bundled-x-u1", 128),
    ],
)
def test_the_default_encoder_reads_the_dimension_from_the_fingerprint(made_with: str | None, dimension: int) -> None:
    assert default_encoder(made_with).dimension == dimension
    assert BUNDLED_DIMENSION == 128
