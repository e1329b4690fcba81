"""Images are read by the client, and encoded at the service."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("PIL", reason="needs muvera-core[images]")

from local_service import running
from patch_encoder import COLORS, PATCH, PatchEncoder
from PIL import Image

from muvera_core import MuveraIndex, RemoteMuveraIndex
from muvera_core.encoders import is_image_encoder
from muvera_core.errors import InvalidInputError, SkippedImageWarning
from muvera_core.serving import create_app


def page(color: str) -> Image.Image:
    image = Image.new("RGB", (3 * PATCH, 2 * PATCH), "white")
    image.paste(COLORS[color], (PATCH, 0, 2 * PATCH, PATCH))
    return image


def png(color: str) -> bytes:
    file = io.BytesIO()
    page(color).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def index() -> Iterator[MuveraIndex]:
    with MuveraIndex.create(None, PatchEncoder()) as index:
        yield index


@pytest.fixture
def remote(index: MuveraIndex) -> Iterator[RemoteMuveraIndex]:
    with running(create_app(index)) as url, RemoteMuveraIndex(url) as remote:
        yield remote


def test_paths_bytes_and_images_of_pillow_are_added(
    index: MuveraIndex, remote: RemoteMuveraIndex, tmp_path: Path
) -> None:
    file = tmp_path / "red.png"
    file.write_bytes(png("red"))
    added = remote.add_images(
        [file, png("green"), page("blue")], ["red", "green", "blue"], ["r", None, "b"], [{"n": 1}] * 3
    )
    assert added == ["red", "green", "blue"]
    for color in added:
        assert remote.search(color, 1)[0].id == color
    red, green, blue = remote.get(added)
    assert (red.text, green.text, blue.text) == ("r", None, "b")
    assert red.image_size == (3 * PATCH, 2 * PATCH)
    assert red.image is None  # it has no place at the service
    assert red.image_digest is not None
    assert red.image_digest.startswith("file-")
    assert index.get(added) == [red, green, blue]


def test_an_image_that_cannot_be_read_is_skipped_with_its_id(remote: RemoteMuveraIndex, tmp_path: Path) -> None:
    images: list[Any] = [tmp_path / "none.png", png("red"), tmp_path, png("blue")]
    with pytest.warns(SkippedImageWarning) as given:
        added = remote.add_images(images, texts=["a", "b", "c", "d"])
    assert len(added) == len(set(added)) == 4
    (warning,) = given
    assert "skipped 2 images" in str(warning.message)
    assert "there is no such file" in str(warning.message)
    assert [document.text for document in remote.get(added)] == ["b", "d"]
    with pytest.warns(SkippedImageWarning, match="not an image"):
        assert remote.add_images([b"text"], ["x"]) == ["x"]
    assert "x" not in remote


def test_maps_and_heat_maps_are_those_of_the_index(
    index: MuveraIndex, remote: RemoteMuveraIndex, tmp_path: Path
) -> None:
    file = tmp_path / "red.png"
    file.write_bytes(png("red"))
    index.add_images([file], ["red"])  # at the service, where the file stays
    assert np.array_equal(remote.similarity_maps("red", "red"), index.similarity_maps("red", "red"), equal_nan=True)
    assert remote.explain("red", "red") == index.explain("red", "red")
    for options in ({}, {"token": 1}, {"opacity": 0.2}, {"image": page("green")}):
        found, local = (each.heat_map("red", "red", **options) for each in (remote, index))
        assert found.mode == "RGB"
        assert found.tobytes() == local.tobytes()
    with pytest.raises(InvalidInputError, match="token must be below"):
        remote.heat_map("red", "red", token=9)
    with pytest.raises(InvalidInputError, match="no such file"):
        remote.heat_map("red", "red", image=tmp_path / "none.png")


def test_the_encoder_encodes_images_at_the_service(index: MuveraIndex, remote: RemoteMuveraIndex) -> None:
    encoder = remote.encoder
    assert is_image_encoder(encoder)
    local = index.encoder
    assert isinstance(local, PatchEncoder)
    assert np.array_equal(encoder.encode_images([page("red")]).vectors, local.encode_images([page("red")]).vectors)
    assert np.array_equal(encoder.image_patches(50, 20), local.image_patches(50, 20))


def test_a_repeated_addition_encodes_nothing(index: MuveraIndex, remote: RemoteMuveraIndex) -> None:
    encoder = index.encoder
    assert isinstance(encoder, PatchEncoder)
    for _ in range(2):
        remote.add_images([png("red")], ["red"])
    assert encoder.n_images == 1
