"""SentenceTransformerEncoder with models that embed page images: their own vectors, and where the patches are."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip(
    "sentence_transformers",
    minversion="6",
    reason="needs muvera-core[sentence-transformers], in an environment of its own",
)
pytest.importorskip("PIL", reason="needs muvera-core[images]")

from models_on_gpu import gpu as gpu  # a fixture
from models_on_gpu import on_gpu
from PIL import Image
from sentence_transformers import MultiVectorEncoder
from small_models import quietly
from small_vision_models import SAVERS, save_modernvbert

from muvera_core.encoders import SentenceTransformerEncoder
from muvera_core.errors import EncoderError, InvalidInputError

KINDS = list(SAVERS)
# Sizes that the models of these tests cut into patches without scaling, and the size of a patch.
UNSCALED = {"colqwen2": (40, 64), "colpali": (32, 32), "modernvbert": (96, 64)}
PATCH = 8
GRIDS = {"colqwen2": (8, 5), "colpali": (4, 4), "modernvbert": (8, 12)}


@pytest.fixture(scope="session")
def vision_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("vision")
    return {kind: quietly(save, folder / kind) for kind, save in SAVERS.items()}


@pytest.fixture(scope="session")
def vision_encoders(vision_folders: dict[str, Path]) -> dict[str, SentenceTransformerEncoder]:
    return {kind: SentenceTransformerEncoder(folder, device="cpu") for kind, folder in vision_folders.items()}


@pytest.fixture(scope="session")
def vision_models(vision_folders: dict[str, Path]) -> dict[str, MultiVectorEncoder]:
    return {
        kind: quietly(MultiVectorEncoder, str(folder), device="cpu", local_files_only=True)
        for kind, folder in vision_folders.items()
    }


def page(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


PAGES = [page(40, 64), page(100, 50), page(32, 32), page(8, 8), page(33, 91), page(60, 40).convert("L")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("images", [PAGES, PAGES[:1], PAGES[1:2]], ids=["several", "one", "another"])
def test_vectors_of_images_are_bit_by_bit_those_of_the_model(
    kind: str,
    images: list[Image.Image],
    vision_encoders: dict[str, SentenceTransformerEncoder],
    vision_models: dict[str, MultiVectorEncoder],
) -> None:
    expected = vision_models[kind].encode_document(images, convert_to_numpy=True)
    ours = vision_encoders[kind].encode_images(images)
    assert ours.dimension == vision_encoders[kind].dimension
    for rows, theirs in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(rows, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_of_images_stay_on_the_gpu_and_the_host_has_the_same(
    kind: str, gpu: str, vision_folders: dict[str, Path], vision_encoders: dict[str, SentenceTransformerEncoder]
) -> None:
    encoder = SentenceTransformerEncoder(vision_folders[kind], device=gpu)
    found, expected = encoder.encode_images(PAGES), vision_encoders[kind].encode_images(PAGES)
    np.testing.assert_array_equal(on_gpu(found), found.vectors)
    assert found.offsets.tolist() == expected.offsets.tolist()
    np.testing.assert_allclose(found.vectors, expected.vectors, atol=1e-5)
    assert encoder.encode_images([page(8, 8)] * 129).on_gpu is None


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_of_questions_are_bit_by_bit_those_of_the_model(
    kind: str, vision_encoders: dict[str, SentenceTransformerEncoder], vision_models: dict[str, MultiVectorEncoder]
) -> None:
    questions = ["what does the owl hunt", "", "naïve 🦉?", "fish"]
    encoder = vision_encoders[kind]
    expected = vision_models[kind].encode_query(questions, convert_to_numpy=True)
    for question, rows, theirs in zip(questions, encoder.encode_queries(questions), expected, strict=True):
        np.testing.assert_array_equal(rows, theirs)
        assert len(encoder.query_spans(question)) == len(rows)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "text", ["https://example.org/owl.png", "owl.jpg", "/etc/owl.mp4", "data:image/png;base64,AAAA"]
)
def test_a_text_that_names_an_image_stays_text(
    kind: str, text: str, vision_encoders: dict[str, SentenceTransformerEncoder]
) -> None:
    encoder = vision_encoders[kind]
    spans = encoder.query_spans(text)
    assert len(spans) == len(encoder.encode_queries([text])[0])
    assert "".join(text[start:end] for start, end in spans) == text
    assert len(encoder.document_spans(text)) == len(encoder.encode_documents([text])[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("image", PAGES, ids=lambda image: "x".join(map(str, image.size)))
def test_each_vector_of_an_image_has_a_place(
    kind: str, image: Image.Image, vision_encoders: dict[str, SentenceTransformerEncoder]
) -> None:
    encoder = vision_encoders[kind]
    places = encoder.image_patches(*image.size)
    assert places.dtype == np.int64
    assert places.shape == (len(encoder.encode_images([image])[0]), 2)
    patches = places[places[:, 0] >= 0]
    assert ((places >= 0).all(axis=1) | (places == -1).all(axis=1)).all()
    rows, columns = patches.max(axis=0) + 1
    assert len(np.unique(patches, axis=0)) == rows * columns


@pytest.mark.parametrize("kind", KINDS)
def test_the_vector_at_a_place_is_that_of_its_pixels(
    kind: str, vision_encoders: dict[str, SentenceTransformerEncoder]
) -> None:
    """Where the pixels of a patch change, its vector changes most of all vectors of patches."""
    encoder = vision_encoders[kind]
    width, height = UNSCALED[kind]
    places = encoder.image_patches(width, height)
    # The view of the whole, if there is one, comes after the patches of the tiles.
    n_rows, n_columns = GRIDS[kind]
    patches = np.flatnonzero(places[:, 0] >= 0)[: n_rows * n_columns]
    assert sorted(map(tuple, places[patches].tolist())) == [(r, c) for r in range(n_rows) for c in range(n_columns)]
    before = encoder.encode_images([grey(width, height)])[0]
    for row, column in [(0, 0), (1, 3), (n_rows - 1, 0), (n_rows // 2, n_columns - 1)]:
        image = np.asarray(grey(width, height)).copy()
        image[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] = [255, 0, 0]
        after = encoder.encode_images([Image.fromarray(image)])[0]
        changes = np.linalg.norm(after - before, axis=1)[patches]
        assert tuple(places[patches[changes.argmax()]]) == (row, column)


def grey(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (128, 128, 128))


def test_a_view_of_the_whole_page_lies_on_the_grid_of_its_tiles(
    vision_encoders: dict[str, SentenceTransformerEncoder],
) -> None:
    places = vision_encoders["modernvbert"].image_patches(96, 64)
    view = places[places[:, 0] >= 0][-16:]
    assert view.tolist() == [[row, column] for row in (1, 3, 5, 7) for column in (1, 4, 7, 10)]


def test_a_model_that_keeps_only_patches(tmp_path: Path) -> None:
    folder = quietly(save_modernvbert, tmp_path, keep_only_patches=True)
    encoder = SentenceTransformerEncoder(folder, device="cpu")
    places = encoder.image_patches(96, 64)
    assert (places >= 0).all()
    assert len(places) == len(encoder.encode_images([page(96, 64)])[0]) == 8 * 12 + 16
    assert len(encoder.encode_queries(["owl"])[0]) > 3
    with pytest.raises(EncoderError, match=r"gives no vector for a document: .* keeps only the patches of images"):
        encoder.encode_documents(["owl"])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (page(8, 8), "images must be a list of PIL images, got Image"),
        ([page(8, 8), "page.png"], r"images\[1\] must be a PIL image, got str: use PIL.Image.open"),
        ([np.zeros((8, 8, 3))], r"images\[0\] must be a PIL image, got ndarray"),
    ],
)
def test_what_is_no_image_is_refused(
    images: Any, message: str, vision_encoders: dict[str, SentenceTransformerEncoder]
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        vision_encoders["colpali"].encode_images(images)


def test_no_images_give_no_vectors(vision_encoders: dict[str, SentenceTransformerEncoder]) -> None:
    encoder = vision_encoders["colpali"]
    assert (len(encoder.encode_images([])), encoder.encode_images([]).dimension) == (0, encoder.dimension)
    assert encoder.embeds_images
    with pytest.raises(InvalidInputError, match="width must be at least 1"):
        encoder.image_patches(0, 8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_object_has_the_fingerprint_of_its_folder(
    kind: str, vision_encoders: dict[str, SentenceTransformerEncoder], vision_models: dict[str, MultiVectorEncoder]
) -> None:
    assert SentenceTransformerEncoder(vision_models[kind]).fingerprint == vision_encoders[kind].fingerprint


def test_other_settings_of_the_image_processor_change_the_fingerprint(
    vision_folders: dict[str, Path], vision_encoders: dict[str, SentenceTransformerEncoder], tmp_path: Path
) -> None:
    model = quietly(MultiVectorEncoder, str(vision_folders["colqwen2"]), device="cpu", local_files_only=True)
    model.processor.image_processor.size = {"shortest_edge": 64, "longest_edge": 64 * 20}
    assert SentenceTransformerEncoder(model).fingerprint != vision_encoders["colqwen2"].fingerprint


def test_long_documents_of_a_chat_model_are_encoded_whole(
    vision_encoders: dict[str, SentenceTransformerEncoder],
) -> None:
    encoder, text = vision_encoders["modernvbert"], "owl heron ant water night " * 200
    spans = encoder.document_spans(text)
    assert len(spans) == len(encoder.encode_documents([text])[0]) > 1024
    words = [(start, end) for start, end in spans.tolist() if start < end]
    assert all(left[0] <= right[0] for left, right in pairwise(words))
    assert "".join(text[start:end] for start, end in words).split() == text.split()
