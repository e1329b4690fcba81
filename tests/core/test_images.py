"""Page images in an index, with an encoder whose vectors are colours: see ``patch_encoder``."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("PIL", reason="needs muvera-core[images]")

from patch_encoder import COLORS, PATCH, PatchEncoder
from PIL import Image

from muvera_core import Document, MuveraIndex, check_index, repair_index
from muvera_core.encoders import BundledEncoder, ImageEncoder, is_image_encoder
from muvera_core.errors import (
    EncoderError,
    EncoderMismatchError,
    InvalidInputError,
    MissingExtraError,
    ReadOnlyIndexError,
    SkippedImageWarning,
)
from muvera_core.images import ImageRecord, heat_map

SIZE = (5 * PATCH, 6 * PATCH)
WIDTH, HEIGHT = SIZE


def page(color: str, row: int = 0, column: int = 0, size: tuple[int, int] = SIZE) -> Image.Image:
    """A white page with one coloured patch."""
    image = Image.new("RGB", size, "white")
    image.paste(COLORS[color], (column * PATCH, row * PATCH, (column + 1) * PATCH, (row + 1) * PATCH))
    return image


@pytest.fixture
def pages(tmp_path: Path) -> dict[str, Path]:
    """Files of three pages, by the colour of a patch."""
    places = {"red": (5, 4), "green": (2, 1), "blue": (0, 3)}
    files = {color: tmp_path / f"{color}.png" for color in places}
    for color, place in places.items():
        page(color, *place).save(files[color])
    return files


@pytest.fixture
def encoder() -> PatchEncoder:
    return PatchEncoder()


@pytest.fixture
def index(encoder: PatchEncoder, pages: dict[str, Path]) -> Iterator[MuveraIndex]:
    """The pages, in memory, under the names of their colours."""
    with MuveraIndex.create(None, encoder) as index:
        index.add_images(pages.values(), ids=list(pages))
        encoder.n_images = 0
        yield index


def data_of(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def best(index: MuveraIndex, query: str) -> str:
    return index.search(query, k=1)[0].id


# Adding


@pytest.mark.parametrize(
    "give",
    [Path, str, lambda path: path.read_bytes(), lambda path: Image.open(path).copy()],
    ids=["path", "text", "bytes", "PIL"],
)
def test_a_question_finds_the_page_that_shows_it(
    give: Callable[[Path], Any], encoder: PatchEncoder, pages: dict[str, Path]
) -> None:
    with MuveraIndex.create(None, encoder) as index:
        assert index.add_images([give(path) for path in pages.values()], ids=list(pages)) == list(pages)
        assert [best(index, color) for color in pages] == list(pages)


def test_hits_and_documents_say_where_the_image_is(index: MuveraIndex, pages: dict[str, Path]) -> None:
    (hit,) = index.search("red", k=1)
    (document,) = index.get("red")
    for found in (hit, document):
        assert (found.image, found.image_size, found.text) == (str(pages["red"]), SIZE, None)


def test_a_relative_path_becomes_absolute(
    encoder: PatchEncoder, pages: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pages["red"].parent)
    with MuveraIndex.create(None, encoder) as index:
        index.add_images(["red.png"], ids=["a"])
        assert index.get("a")[0].image == str(pages["red"])


def test_an_image_without_a_file_has_a_size_and_no_path(encoder: PatchEncoder) -> None:
    with MuveraIndex.create(None, encoder) as index:
        index.add_images([page("red"), data_of(page("blue"))], ids=["red", "blue"])
        assert [(found.image, found.image_size) for found in index.get(["red", "blue"])] == [(None, SIZE)] * 2


def test_a_document_of_text_has_no_image() -> None:
    assert Document("a", "text") == Document("a", "text", {}, image=None, image_size=None)


def test_a_text_is_stored_and_not_encoded(encoder: PatchEncoder, pages: dict[str, Path]) -> None:
    with MuveraIndex.create(None, encoder) as index:
        index.add_images(
            pages.values(), ids=list(pages), texts=["blue", None, "\ud800"], metadatas=[{"n": 1}, None, {}]
        )
        assert best(index, "blue") == "blue"
        assert [found.text for found in index.get(list(pages))] == ["blue", None, "�"]
        assert [found.id for found in index.search("blue", filter={"n": 1})] == ["red"]


def test_texts_and_images_share_an_index(encoder: PatchEncoder, pages: dict[str, Path]) -> None:
    with MuveraIndex.create(None, encoder) as index:
        index.add(["yellow", "red red"], ids=["text", "other text"])
        index.add_images([pages["blue"]], ids=["page"])
        assert (best(index, "yellow"), best(index, "blue")) == ("text", "page")
        assert index.explain("yellow", "text")[1].document_token == "yellow"
        assert [found.image_size for found in index.get(["text", "page"])] == [None, SIZE]


def test_images_are_read_and_encoded_a_few_at_a_time(encoder: PatchEncoder, pages: dict[str, Path]) -> None:
    with MuveraIndex.create(None, encoder) as index:
        index.add_images(list(pages.values()) * 2, batch_size=4)
        assert encoder.sizes == [4, 2]


def test_an_unread_image_of_pillow_keeps_no_pixels(encoder: PatchEncoder, pages: dict[str, Path]) -> None:
    given = Image.open(pages["red"])
    with given, MuveraIndex.create(None, encoder) as index:
        index.add_images([given], ids=["a"])
        assert given.tile, "its pixels were read"
        assert index.get("a")[0].image == str(pages["red"])


def test_another_page_of_a_file_is_not_mistaken_for_the_first(encoder: PatchEncoder, tmp_path: Path) -> None:
    path = tmp_path / "scan.tif"
    page("red").save(path, save_all=True, append_images=[page("blue")])
    with Image.open(path) as scan, MuveraIndex.create(None, encoder) as index:
        scan.seek(1)
        index.add_images([scan], ids=["a"])
        assert index.explain("blue", "a")[1].similarity > 0.99


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_an_image_is_turned_upright(encoder: PatchEncoder, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    lying = page("red", 4, 0, (HEIGHT, WIDTH))
    options = {"quality": 100, "subsampling": 0} if format == "JPEG" else {"lossless": True} if format == "WEBP" else {}
    with MuveraIndex.create(None, encoder) as index:
        index.add_images([data_of(lying, format, exif=exif, **options)], ids=["a"])
        assert index.get("a")[0].image_size == SIZE
        assert index.explain("red", "a")[1].patch == (0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_once(encoder: PatchEncoder, tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    page("blue", 1, 2).save(tmp_path / "a.png", exif=exif)
    with MuveraIndex.create(None, encoder) as index:
        index.add_images([tmp_path / "a.png"], ids=["a"])
        drawn = index.heat_map("blue", "a", opacity=1)
        assert drawn.size == index.get("a")[0].image_size
        patch = index.explain("blue", "a")[1].patch
        assert patch is not None
        row, column = patch
        assert drawn.getpixel((column * PATCH + 8, row * PATCH + 8)) == (230, 30, 20)


@pytest.mark.parametrize(
    ("image", "color"),
    [
        (Image.new("RGBA", SIZE, (0, 0, 0, 0)), "white"),
        (Image.new("LA", SIZE, (0, 0)), "white"),
        (Image.new("L", SIZE, 255), "white"),
        (Image.new("1", SIZE, 0), "black"),
        (Image.new("CMYK", SIZE, (0, 255, 255, 0)), "red"),
        (page("red").quantize(4), "red"),
        (Image.fromarray(np.full((HEIGHT, WIDTH), 65535, dtype=np.uint16)), "white"),
        (Image.fromarray(np.full((HEIGHT, WIDTH), 300, dtype=np.uint16)), "black"),
        (Image.fromarray(np.full((HEIGHT, WIDTH), 65535, dtype=np.int32)), "white"),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else value,
)
def test_every_mode_becomes_rgb_and_what_is_transparent_white(
    encoder: PatchEncoder, image: Image.Image, color: str
) -> None:
    with MuveraIndex.create(None, encoder) as index:
        index.add_images([image, data_of(image, "TIFF")], ids=["a", "b"])
        for id in ("a", "b"):
            assert index.explain(color, id)[1].similarity > 0.99


# What cannot be read


UNREADABLE = {
    "missing": (None, "there is no such file"),
    "a text": (b"Dear Sir or Madam", "it is not an image"),
    "empty": (b"", "it is not an image"),
    "a PDF": (b"%PDF-1.7 ...", "it is a PDF: convert its pages to images first"),
    "cut": (data_of(page("red"))[:-60], "it is damaged"),
    "noise": (data_of(page("red"), "JPEG")[:300] + b"\0" * 300, "it is (damaged|not an image)"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_cannot_be_read_is_skipped_and_all_others_are_added(
    index: MuveraIndex, pages: dict[str, Path], kind: str
) -> None:
    content, reason = UNREADABLE[kind]
    bad = pages["red"].with_name("bad.png")
    if content is not None:
        bad.write_bytes(content)
    with pytest.warns(SkippedImageWarning, match=f"skipped 1 image: 'green' .*bad.png: {reason}"):
        ids = index.add_images([bad, pages["blue"]], ids=["green", "new"])
    assert ids == ["green", "new"]
    assert len(index) == 4
    assert best(index, "green") == "green", "what was stored under its id is gone"


def test_bytes_that_cannot_be_read_are_named_by_their_id(index: MuveraIndex) -> None:
    with pytest.warns(SkippedImageWarning, match=r"skipped 1 image: 'bytes' \(it is not an image\)"):
        index.add_images([b"nothing"], ids=["bytes"])
    assert "bytes" not in index


def test_a_decompression_bomb_is_skipped(index: MuveraIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.warns(SkippedImageWarning, match="it has too many pixels"):
        index.add_images([data_of(page("yellow"))], ids=["bomb"])
    assert "bomb" not in index


def test_only_unreadable_images_change_nothing(index: MuveraIndex, pages: dict[str, Path]) -> None:
    pages["red"].write_bytes(UNREADABLE["cut"][0] or b"")
    with pytest.warns(SkippedImageWarning):
        index.add_images([pages["red"]], ids=["new"])
    assert len(index) == 3


def test_a_file_that_changes_between_the_two_reads_is_skipped(
    index: MuveraIndex, encoder: PatchEncoder, pages: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = encoder.encode_images

    def encode_and_change(images: Any) -> Any:
        page("yellow").save(pages["blue"])
        return encode(images)

    monkeypatch.setattr(encoder, "encode_images", encode_and_change)
    with pytest.warns(SkippedImageWarning, match=r"skipped 1 image: 'b' .*blue.png: it was changed"):
        index.add_images([pages["red"], pages["blue"]], ids=["a", "b"], batch_size=1)
    assert ("a" in index, "b" in index) == (True, False)


def test_further_pages_of_a_file_are_named(index: MuveraIndex, tmp_path: Path) -> None:
    path = tmp_path / "scan.tif"
    page("yellow").save(path, save_all=True, append_images=[page("blue"), page("blue")])
    with pytest.warns(SkippedImageWarning, match=r"left out.*'scan' \(.*scan.tif: 2 pages after the first\)"):
        index.add_images([path], ids=["scan"])
    assert best(index, "yellow") == "scan"


def test_a_warning_that_is_an_error_leaves_the_index_as_it_is(index: MuveraIndex, pages: dict[str, Path]) -> None:
    pages["red"].write_bytes(UNREADABLE["cut"][0] or b"")  # found only when its pixels are read
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SkippedImageWarning):
            index.add_images([page("yellow"), pages["red"]], ids=["new", "bad"], batch_size=1)
    assert len(index) == 3
    assert best(index, "red") == "red"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": [np.zeros((2, 2, 3))]}, r"images\[0\] must be a path, the bytes of an image file, or a PIL"),
        ({"images": "page.png"}, "images must be a list, got str"),
        ({"images": [""]}, r"images\[0\] must be a path"),
        ({"images": ["a", "b"], "ids": ["a"]}, "ids has length 1, expected 2"),
        ({"images": ["a", "b"], "ids": ["a", "a"]}, "occurs more than once"),
        ({"images": ["a"], "texts": []}, "texts has length 0"),
        ({"images": ["a"], "texts": [3]}, r"texts\[0\] must be a string"),
        ({"images": ["a"], "batch_size": 0}, "batch_size must be at least 1"),
        ({"images": ["a"], "metadatas": [{"a": object()}]}, "metadata"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_read(
    index: MuveraIndex, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        index.add_images(**arguments)
    assert len(index) == 3


def test_an_error_of_the_encoder_leaves_nothing_behind(
    index: MuveraIndex, encoder: PatchEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = encoder.encode_images
    monkeypatch.setattr(encoder, "encode_images", lambda images: encode([*images, *images]))
    with pytest.raises(EncoderError, match="2 texts, expected"):
        index.add_images([page("yellow")], ids=["new"])
    assert len(index) == 3


def refuse_strips(encoder: PatchEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the encoder refuse images that are much wider than high, as some models do."""
    encode = encoder.encode_images

    def encode_images(images: Any) -> Any:
        if any(image.width > 10 * image.height for image in images):
            raise EncoderError("the aspect ratio is too large")
        return encode(images)

    monkeypatch.setattr(encoder, "encode_images", encode_images)


def test_an_image_that_the_model_refuses_is_skipped_and_all_others_are_added(
    index: MuveraIndex, encoder: PatchEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_strips(encoder, monkeypatch)
    strip = Image.new("RGB", (800, 20))
    images = [page("yellow"), strip, page("black"), strip]
    with pytest.warns(SkippedImageWarning, match=r"skipped 2 images: 'b' \(the aspect ratio .*'d'"):
        assert index.add_images(images, ids=["a", "b", "c", "d"], batch_size=3) == ["a", "b", "c", "d"]
    assert {document.id for document in index.get(["a", "b", "c", "d"])} == {"a", "c"}
    with pytest.raises(EncoderError, match=r"no image could be encoded: 'e' \(the aspect ratio"):
        index.add_images([strip, strip], ids=["e", "f"])
    assert len(index) == 5


@pytest.mark.parametrize("size", [(0, 10), (10, 0)])
def test_an_image_without_pixels_is_skipped(index: MuveraIndex, size: tuple[int, int]) -> None:
    with pytest.warns(SkippedImageWarning, match=r"'empty' \(it has no pixels"):
        index.add_images([Image.new("RGB", (20, 20)).crop((0, 0, *size))], ids=["empty"])
    assert len(index) == 3
    assert best(index, "red") == "red"


def test_an_encoder_of_texts_alone_is_named_with_what_to_do() -> None:
    with (
        MuveraIndex.create(None) as index,
        pytest.raises(InvalidInputError, match=r"BundledEncoder, embeds no images: .*SentenceTransformerEncoder"),
    ):
        index.add_images([page("red")])


def test_without_pillow_the_extra_is_named(index: MuveraIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'muvera-core\[images\]'"):
        index.add_images([b""])


def test_an_index_that_is_open_for_reading_refuses_images(
    encoder: PatchEncoder, pages: dict[str, Path], tmp_path: Path
) -> None:
    MuveraIndex.create(tmp_path / "i", encoder).close()
    with MuveraIndex.open(tmp_path / "i", encoder, read_only=True) as index, pytest.raises(ReadOnlyIndexError):
        index.add_images(pages.values())


# Adding again


def test_the_same_image_is_not_encoded_again(index: MuveraIndex, encoder: PatchEncoder, pages: dict[str, Path]) -> None:
    index.add_images(pages.values(), ids=list(pages))
    assert encoder.n_images == 0
    index.add_images(pages.values(), ids=list(pages), metadatas=[{"page": n} for n in range(3)])
    assert encoder.n_images == 0
    assert [found.metadata for found in index.get(list(pages))] == [{"page": n} for n in range(3)]
    index.add_images(pages.values(), ids=list(pages), texts=["a", "b", "c"])
    assert encoder.n_images == 0
    assert [found.text for found in index.get(list(pages))] == ["a", "b", "c"]
    assert [best(index, color) for color in pages] == list(pages)
    index.add_images(pages.values(), ids=list(pages), force=True)
    assert encoder.n_images == 3


def test_a_moved_image_gets_its_new_path_and_is_not_encoded_again(
    index: MuveraIndex, encoder: PatchEncoder, pages: dict[str, Path]
) -> None:
    moved = pages["red"].rename(pages["red"].with_name("moved.png"))
    index.add_images([moved], ids=["red"])
    assert index.get("red")[0].image == str(moved)
    assert encoder.n_images == 0


def test_a_changed_image_is_encoded_again(index: MuveraIndex, encoder: PatchEncoder, pages: dict[str, Path]) -> None:
    page("yellow").save(pages["red"])
    index.add_images(pages.values(), ids=list(pages))
    assert encoder.n_images == 1
    assert best(index, "yellow") == "red"


def test_the_same_pixels_are_not_encoded_again(index: MuveraIndex, encoder: PatchEncoder) -> None:
    index.add_images([page("yellow")], ids=["a"])
    index.add_images([page("yellow").convert("RGBA")], ids=["a"])
    assert encoder.n_images == 1
    index.add_images([page("black")], ids=["a"])
    assert encoder.n_images == 2


def test_a_text_and_an_image_replace_each_other(index: MuveraIndex, pages: dict[str, Path]) -> None:
    index.add_images([pages["red"]], ids=["a"], texts=["yellow"])
    index.add(["yellow"], ids=["a"])
    assert (best(index, "yellow"), index.get("a")[0].image_size) == ("a", None)
    index.add_images([pages["red"]], ids=["a"], texts=["yellow"])
    assert index.get("a")[0].image_size == SIZE
    assert best(index, "yellow") != "a" or index.explain("yellow", "a")[1].similarity < 0.9


# Explaining


@pytest.mark.parametrize("pool_factor", [1, 3])
def test_explain_names_the_patch(pool_factor: int, encoder: PatchEncoder, pages: dict[str, Path]) -> None:
    with MuveraIndex.create(None, encoder, pool_factor=pool_factor) as index:
        index.add_images(pages.values(), ids=list(pages))
        marker, word = index.explain("red", "red")
        assert (marker.patch, marker.document_token, marker.document_span) == (None, None, None)
        assert (word.patch, word.query_token) == ((5, 4), "red")
        assert (word.document_token, word.document_span) == (None, None)
        (hit,) = index.search("red", k=1)
        assert hit.score == pytest.approx(marker.similarity + word.similarity, abs=1e-5)


def test_a_pooled_page_that_was_changed_or_lost_has_no_patches(encoder: PatchEncoder, pages: dict[str, Path]) -> None:
    with MuveraIndex.create(None, encoder, pool_factor=3) as index:
        index.add_images([*pages.values(), page("yellow")], ids=[*pages, "pixels"])
        page("yellow").save(pages["red"])
        pages["blue"].unlink()
        for id in ("red", "blue", "pixels"):
            assert [match.patch for match in index.explain("red", id)] == [None, None]
            with pytest.raises(InvalidInputError, match="cannot be read again"):
                index.similarity_maps("red", id)
        assert index.explain("green", "green")[1].patch == (2, 1)


def test_without_pooling_the_file_is_not_needed(index: MuveraIndex, pages: dict[str, Path]) -> None:
    pages["red"].unlink()
    assert index.explain("red", "red")[1].patch == (5, 4)
    assert index.similarity_maps("red", "red").shape == (2, 6, 5)
    with pytest.raises(InvalidInputError, match=r"cannot be read again \(.*red.png: there is no such file\)"):
        index.heat_map("red", "red")
    assert index.heat_map("red", "red", image=page("red", 5, 4)).size == SIZE


@pytest.mark.parametrize("pool_factor", [1, 3])
def test_similarity_maps_hold_the_similarity_of_each_patch(
    pool_factor: int, encoder: PatchEncoder, pages: dict[str, Path]
) -> None:
    with MuveraIndex.create(None, encoder, pool_factor=pool_factor) as index:
        index.add_images(pages.values(), ids=list(pages))
        maps = index.similarity_maps("red green", "green")
        query = encoder.encode_queries(["red green"]).vectors
        with Image.open(pages["green"]) as image:
            patches = encoder.encode_images([image.convert("RGB")]).vectors[1:]
        np.testing.assert_allclose(maps, (query @ patches.T).reshape(3, 6, 5), atol=0.02)
        assert np.unravel_index(maps[2].argmax(), maps[2].shape) == (2, 1)


def test_the_heat_map_is_red_where_the_query_matches(index: MuveraIndex, pages: dict[str, Path]) -> None:
    drawn = index.heat_map("green", "green", opacity=1)
    middle = PATCH // 2
    assert (drawn.size, drawn.mode) == (SIZE, "RGB")
    assert drawn.getpixel((PATCH + middle, 2 * PATCH + middle)) == (230, 30, 20)
    assert drawn.getpixel((middle, middle)) == (255, 255, 255)
    with Image.open(pages["green"]) as original:
        assert original.getpixel((PATCH + middle, 2 * PATCH + middle)) == (0, 255, 0), "the file was changed"


def test_the_heat_map_of_one_token_shares_its_colours_with_the_others(index: MuveraIndex) -> None:
    strong, weak = (index.heat_map("green red", "green", token=token, opacity=1) for token in (1, 2))
    place = (PATCH + 1, 2 * PATCH + 1)
    assert strong.getpixel(place) == (230, 30, 20)
    assert weak.getpixel(place) != (230, 30, 20)
    with pytest.raises(InvalidInputError, match="token must be below 3, the number of query tokens, got 3"):
        index.heat_map("green red", "green", token=3)


def test_a_text_has_no_maps(index: MuveraIndex) -> None:
    index.add(["red"], ids=["text"])
    with pytest.raises(InvalidInputError, match="was not added as an image"):
        index.similarity_maps("red", "text")
    with pytest.raises(InvalidInputError, match="there is no document with id 'nobody'"):
        index.heat_map("red", "nobody")


@pytest.mark.parametrize(
    ("grid", "options"),
    [
        ([1, 2], {}),
        (np.zeros((0, 3)), {}),
        ([["a"]], {}),
        ([[np.inf]], {}),
        ([[1.0]], {"value_range": (2, 1)}),
        ([[1.0]], {"value_range": "ab"}),
        ([[1.0]], {"opacity": 2}),
    ],
)
def test_a_wrong_grid_is_refused(grid: Any, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        heat_map(page("red"), grid, **options)


def test_a_patch_without_a_value_stays_clear() -> None:
    white = Image.new("RGB", (2, 1), "white")
    drawn = heat_map(white, [[np.nan, 1.0]], value_range=(0, 1), opacity=1)
    assert [drawn.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (230, 30, 20)]
    assert heat_map(white, [[np.nan, np.nan]]).tobytes() == white.tobytes()


# Other calls


@pytest.mark.parametrize("token_precision", ["int8", "float16"])
@pytest.mark.parametrize("pool_factor", [1, 4])
def test_pooling_and_precision_apply_to_images(
    encoder: PatchEncoder, pages: dict[str, Path], token_precision: Any, pool_factor: int
) -> None:
    with MuveraIndex.create(None, encoder, token_precision=token_precision, pool_factor=pool_factor) as index:
        index.add_images(pages.values(), ids=list(pages))
        assert index.n_tokens == {1: 3 * 31, 4: 3 * 8}[pool_factor]
        assert [best(index, color) for color in pages] == list(pages)


def test_the_other_searches_work_on_images(index: MuveraIndex, encoder: PatchEncoder) -> None:
    assert index.search_embeddings(encoder.encode_queries(["red"]), k=1)[0].id == "red"
    assert [hit.id for hit in index.rerank("blue", ["red", "blue"])] == ["blue", "red"]
    assert {hit.id for hit in index.search_diverse("blue red", k=3)} == {"red", "green", "blue"}
    assert all(hit.image_size == SIZE for hit in index.search("", ids=["red", "blue"]))
    assert index.evaluate(["red", "blue"], [["red"], ["blue"]], k=1).fidelity == 1


def test_new_metadata_keep_the_image(index: MuveraIndex, pages: dict[str, Path]) -> None:
    index.update_metadata("red", {"shelf": 3})
    (found,) = index.get("red")
    assert (found.image, found.image_size, found.metadata) == (str(pages["red"]), SIZE, {"shelf": 3})
    assert index.explain("red", "red")[1].patch == (5, 4)


def test_images_survive_closing_copying_and_a_check(
    encoder: PatchEncoder, pages: dict[str, Path], tmp_path: Path
) -> None:
    with MuveraIndex.create(tmp_path / "i", encoder) as index:
        index.add_images(pages.values(), ids=list(pages), texts=["text", None, None])
        index.copy_to(tmp_path / "copy")
    for folder in ("i", "copy"):
        assert check_index(tmp_path / folder).ok
        with MuveraIndex.open(tmp_path / folder, encoder, read_only=True) as index:
            documents = {found.id: (found.image, found.image_size, found.text) for found in index.iterate()}
        assert documents == {
            color: (str(path), SIZE, "text" if color == "red" else None) for color, path in pages.items()
        }


def lose_tokens(folder: Path) -> None:
    path = folder / "tokens-0.bin"
    path.write_bytes(bytes(len(path.read_bytes())))


def test_a_repair_encodes_lost_pages_again_from_their_files(
    encoder: PatchEncoder, pages: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "i"
    with MuveraIndex.create(folder, encoder) as index:
        index.add(["yellow"], ids=["text"])
        index.add_images([*pages.values(), page("black")], ids=[*pages, "pixels"], texts=["red", None, None, "black"])
    lose_tokens(folder)
    page("yellow").save(pages["green"])  # not the same any more
    with pytest.raises(EncoderMismatchError, match="the tokens of 5 documents are lost"):
        repair_index(folder)
    report = repair_index(folder, encoder)
    assert (report.reencoded, report.lost) == (("text", "red", "blue"), ("green", "pixels"))
    with MuveraIndex.open(folder, encoder) as index:
        assert [best(index, color) for color in ("red", "blue", "yellow")] == ["red", "blue", "text"]
        assert (index.get("red")[0].image, index.get("red")[0].text) == (str(pages["red"]), "red")
    assert report.quarantine is not None
    left = json.loads((report.quarantine / "lost.json").read_text())["documents"]
    assert [(each["id"], each["image"]["path"]) for each in left] == [("green", str(pages["green"])), ("pixels", None)]


def test_a_damaged_image_record_is_found_and_the_others_are_kept(
    encoder: PatchEncoder, pages: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "i"
    with MuveraIndex.create(folder, encoder) as index:
        index.add_images(pages.values(), ids=list(pages))
    db = sqlite3.connect(folder / "documents.sqlite")
    db.execute("UPDATE documents SET image = replace(image, 'blue', 'bleu') WHERE id = 'blue'")
    db.commit()
    db.close()
    assert not check_index(folder).ok
    report = repair_index(folder, encoder)
    assert (report.n_documents, len(report.lost)) == (2, 1)
    assert check_index(folder).ok


def test_an_index_and_its_pages_can_be_moved(encoder: PatchEncoder, pages: dict[str, Path], tmp_path: Path) -> None:
    old = tmp_path / "project"
    (old / "pages").mkdir(parents=True)
    shutil.copy(pages["red"], old / "pages")
    with MuveraIndex.create(old / "i", encoder, pool_factor=3) as index:
        index.add_images([old / "pages" / "red.png"], ids=["red"])
    moved = old.rename(tmp_path / "moved")
    with MuveraIndex.open(moved / "i", encoder) as index:
        assert index.explain("red", "red")[1].patch is None
        encoder.n_images = 0
        index.add_images([moved / "pages" / "red.png"], ids=["red"])
        assert encoder.n_images == 0
        assert index.explain("red", "red")[1].patch == (5, 4)


# The parts


def test_what_an_image_encoder_is(encoder: PatchEncoder) -> None:
    class TextsOnly(PatchEncoder):
        embeds_images = False

    assert isinstance(encoder, ImageEncoder)
    assert [is_image_encoder(each) for each in (encoder, BundledEncoder(), TextsOnly(), None)] == [
        True,
        False,
        False,
        False,
    ]


def test_patches_of_a_wrong_shape_are_refused(index: MuveraIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PatchEncoder, "image_patches", lambda *_: np.zeros(31))
    with pytest.raises(EncoderError, match=r"image_patches .* expected integers of shape \(tokens, 2\)"):
        index.explain("red", "red")


def test_an_image_record_is_stored_as_ascii() -> None:
    record = ImageRecord("/p\udcffage ü.png", 3, 4, "file-0")
    assert record.as_text().isascii()
    assert ImageRecord.from_text(record.as_text()) == record


@pytest.mark.parametrize("text", ["[]", "{}", "1", "{", '{"path": 1, "width": 1, "height": 1, "digest": ""}', None])
def test_something_else_is_no_image_record(text: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        ImageRecord.from_text(text)
