"""The command line with images, and an encoder that embeds them."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("PIL", reason="needs muvera-core[images]")

from click.testing import CliRunner
from patch_encoder import COLORS, PATCH, PatchEncoder
from PIL import Image

from muvera_core.cli import index_command, main, search_commands


def muvera(*arguments: object, status: int = 0) -> Any:
    # Before click 8.2, the two streams were mixed by default.
    apart: dict[str, Any] = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
    result = CliRunner(**apart).invoke(main, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    assert result.exit_code == status, (result.output, result.exception)
    return result


def summary(result: Any) -> str:
    return str(result.stdout.splitlines()[-1].split(" in ")[0])


def save_page(path: Path, color: str) -> None:
    image = Image.new("RGB", (4 * PATCH, 4 * PATCH), "white")
    image.paste(COLORS[color], (PATCH, 2 * PATCH, 2 * PATCH, 3 * PATCH))
    image.save(path)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> PatchEncoder:
    """What --encoder loads."""
    encoder = PatchEncoder()
    for module in (index_command, search_commands):
        monkeypatch.setattr(module, "load_encoder", lambda checkpoint, *_: encoder if checkpoint else None)
    return encoder


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    (folder / "sub").mkdir(parents=True)
    save_page(folder / "red.png", "red")
    save_page(folder / "sub" / "blue.jpg", "blue")
    (folder / "note.txt").write_text("yellow")
    return folder


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "i.muvera"


def test_a_folder_of_images_is_indexed_and_kept_in_step(encoder: PatchEncoder, scans: Path, index: Path) -> None:
    command = ("index", index, scans, "--encoder", "model")
    assert summary(muvera(*command)) == "3 added"
    assert summary(muvera(*command)) == "3 unchanged"
    assert encoder.n_images == 2
    save_page(scans / "red.png", "green")
    (scans / "note.txt").unlink()
    assert summary(muvera(*command)) == "1 replaced, 1 unchanged, 1 deleted"
    (hit,) = map(json.loads, muvera("search", index, "green", "-k", 1, "--json", "--encoder", "m").stdout.splitlines())
    assert (hit["id"], hit["image"], hit["text"]) == ("scans/red.png", str(scans / "red.png"), None)
    assert hit["metadata"]["path"] == "scans/red.png"


def test_hits_show_where_the_image_is_and_what_matched(encoder: PatchEncoder, scans: Path, index: Path) -> None:
    muvera("index", index, scans, "--encoder", "model")
    shown = muvera("search", index, "red", "-k", 1, "--explain", "--encoder", "model").stdout.splitlines()
    assert shown[0].endswith("scans/red.png")
    assert shown[1:] == [f"   {scans / 'red.png'}", "   [red → patch 2,1 1.00]"]
    (hit,) = map(
        json.loads,
        muvera("search", index, "red", "-k", 1, "--explain", "--json", "--encoder", "model").stdout.splitlines(),
    )
    assert [(match["query"], match["document"]) for match in hit["matches"]] == [("red", "patch 2,1")]
    text = muvera("search", index, "yellow", "-k", 1, "--json", "--encoder", "model").stdout
    assert "image" not in json.loads(text)


def test_an_image_by_itself(encoder: PatchEncoder, scans: Path, index: Path) -> None:
    assert summary(muvera("index", index, scans / "red.png", "--encoder", "model")).startswith("1 added")


def test_images_that_cannot_be_used_are_named(encoder: PatchEncoder, scans: Path, index: Path) -> None:
    (scans / "bad.png").write_bytes(b"nothing")
    result = muvera("index", index, scans, "--encoder", "model", "--strict", status=1)
    assert f"{scans / 'bad.png'}: it is not an image" in result.stderr
    assert not index.exists()
    result = muvera("index", index, scans, "--encoder", "model")
    assert f"{scans / 'bad.png'}: it is not an image" in result.stderr
    assert result.stdout.endswith("ignored: 1 damaged .png\n")
    assert summary(result) == "3 added"


def test_an_image_whose_pixels_are_damaged_is_not_counted(encoder: PatchEncoder, scans: Path, index: Path) -> None:
    (scans / "cut.png").write_bytes((scans / "red.png").read_bytes()[:-40])
    result = muvera("index", index, scans, "--encoder", "model")
    assert summary(result) == "3 added"
    assert "Warning: skipped 1 image: 'scans/cut.png'" in result.stderr


def test_an_encoder_of_texts_passes_over_images_in_a_folder_and_refuses_one(scans: Path, index: Path) -> None:
    result = muvera("index", index, scans)
    assert summary(result) == "1 added"
    assert result.stdout.endswith("ignored: 1 .png, 1 .jpg\n")
    refused = muvera("index", index.with_name("other.muvera"), scans / "red.png", "--verbose", status=1).stderr
    assert "there are no files with a text to index (ignored: 1 .png)" in refused
