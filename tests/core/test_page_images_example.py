"""The example of page images, with an encoder that needs no model. tests/models runs it with a model."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("PIL", reason="needs muvera-core[images]")

from patch_encoder import PatchEncoder
from PIL import Image

from muvera_core import encoders

EXAMPLE = Path(__file__).parents[2] / "examples" / "recipes" / "page_images.py"


def load_example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example, with a patch encoder in place of the class that loads a model's folder."""
    monkeypatch.setattr(encoders, "SentenceTransformerEncoder", lambda folder: PatchEncoder(), raising=False)
    module = ModuleType("page_images")
    exec(compile(EXAMPLE.read_text(encoding="utf-8"), EXAMPLE, "exec"), module.__dict__)
    return module


def test_it_draws_pages_and_finds_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = load_example(monkeypatch)
    arguments = ["model", "--question", "white", "--heat-map", str(tmp_path / "map.png")]
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *arguments])
    example.main()
    printed = capsys.readouterr().out
    assert printed.startswith("3 pages, ")
    assert "'white': row " in printed
    with Image.open(tmp_path / "map.png") as drawn:
        assert drawn.size == (620, 800)


def test_it_takes_pages_and_keeps_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = load_example(monkeypatch)
    for color in ("red", "blue"):
        Image.new("RGB", (64, 64), color).save(tmp_path / f"{color}.png")
    pages = [str(tmp_path / f"{color}.png") for color in ("red", "blue")]
    monkeypatch.setattr(
        sys, "argv", [str(EXAMPLE), "model", *pages, "--question", "blue", "--index", str(tmp_path / "i")]
    )
    example.main()
    example.main()
    printed = capsys.readouterr().out
    assert printed.count(f"1.00 blue.png: {tmp_path / 'blue.png'}") == 2
    assert printed.count("2 pages, ") == 2
