"""The core's rooms import only rooms of lower layers, and only what their ``__init__.py`` exports."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

# From the lowest layer to the highest. A room imports rooms of lower layers only.
LAYERS = (
    ("device_rows", "errors", "hits"),
    ("native", "threads", "token_embeddings"),
    ("batches", "files", "validation"),
    ("images", "metadata"),
    ("calibration", "encoders", "filters", "lexical", "maxsim", "set_encoders"),
    ("corpus", "stage_one", "standalone"),
    ("storage",),
    ("maintenance",),
    ("collection",),
    ("search",),
    ("cuda", "evaluation"),
    ("tuning",),
    ("index",),
    ("distributed", "imports", "sync", "wire"),
    ("remote",),
    ("serving",),
    ("cli",),
)
# This module is imported only when a user asks for a GPU, because CuPy is slow to import.
PRIVATE_MODULES = {"muvera_core.cuda.accelerator"}


def load_tool() -> ModuleType:
    path = Path(__file__).resolve().parent.parent / "tools" / "architecture.py"
    spec = importlib.util.spec_from_file_location("architecture", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["architecture"] = module
    spec.loader.exec_module(module)
    return module


architecture = load_tool()
FILES: dict[str, Path] = architecture.files_of(architecture.CORE)
IMPORTS: dict[str, set[str]] = architecture.imports_of(FILES)
ARROWS: dict[str, set[str]] = architecture.arrows_between(IMPORTS, architecture.room_of)


def test_every_room_has_a_layer() -> None:
    assert sorted(room for layer in LAYERS for room in layer) == sorted(ARROWS)


@pytest.mark.parametrize("room", sorted(ARROWS))
def test_a_room_imports_lower_layers_only(room: str) -> None:
    layer = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}
    assert [other for other in sorted(ARROWS[room]) if layer[other] >= layer[room]] == []


def test_no_files_import_each_other_in_a_circle() -> None:
    assert architecture.circles_in(architecture.arrows_between(IMPORTS, str)) == []


def test_rooms_are_entered_through_their_init() -> None:
    inner = {
        f"{module} imports {other}"
        for module, imported in IMPORTS.items()
        for other in imported - PRIVATE_MODULES
        if architecture.room_of(other) not in ("", architecture.room_of(module)) and other.count(".") > 1
    }
    assert inner == set()


@pytest.mark.parametrize("room", sorted(room for room in ARROWS if FILES[f"muvera_core.{room}"].name == "__init__.py"))
def test_every_room_says_what_happens_in_it(room: str) -> None:
    assert FILES[f"muvera_core.{room}"].read_text().startswith('"""')


def test_circles_and_floors_are_found() -> None:
    arrows = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}
    assert architecture.circles_in(arrows) == [["b", "c"]]
    assert architecture.floors_of(arrows) == {"d": 1, "c": 2, "b": 2, "a": 3}
