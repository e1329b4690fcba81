"""Prints the structure of the core, read from its imports, and the code that a search and an add run.

A room is a module or a package directly below ``muvera_core``. An arrow leads from a room to each room that it imports.
A room's floor is the length of the longest chain of arrows below it. Rooms that reach each other form a circle.

    python tools/architecture.py                   rooms, floors, arrows, circles
    python tools/architecture.py --follow          also the files and functions that a search and an add run
    python tools/architecture.py --core FOLDER     of the package ``muvera_core`` in another folder
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

CORE = Path(__file__).resolve().parent.parent / "core"
PACKAGE = "muvera_core"
# Encoders, and what everybody uses; both as they are now and as they were in a flat folder.
BEHIND = {"encoders", "set_encoders", "fde.py", "validation.py", "token_embeddings.py", "batches.py"}
PASSAGES = [f"Passage {i} is about subject {i % 7} and mentions detail {i * i}." for i in range(500)]


def files_of(core: Path) -> dict[str, Path]:
    """The file of each module of the package, by the module's full name."""
    files = {}
    for path in sorted((core / PACKAGE).rglob("*.py")):
        parts = path.relative_to(core).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def imports_of(files: Mapping[str, Path]) -> dict[str, set[str]]:
    """The modules of the package that each module imports, anywhere in its file."""
    return {module: set(_imported(path, files)) for module, path in files.items()}


def _imported(path: Path, files: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module in files:
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield inner if inner in files else node.module or ""
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in files)


def room_of(module: str) -> str:
    """The room that a module is in; the package's own ``__init__`` is in none."""
    return [*module.split("."), ""][1]


def arrows_between(imports: Mapping[str, set[str]], place: Callable[[str], str]) -> dict[str, set[str]]:
    """The places that each place imports, where ``place`` gives a module's place."""
    arrows: dict[str, set[str]] = {place(module): set() for module in imports if place(module)}
    for module, imported in imports.items():
        if place(module):
            arrows[place(module)] |= {place(other) for other in imported if place(other)} - {place(module)}
    return arrows


def circles_in(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of places each of which reaches all others of its group."""

    @cache
    def reached(place: str) -> frozenset[str]:
        seen: set[str] = set()
        ahead = [place]
        while ahead:
            new = arrows[ahead.pop()] - seen
            seen |= new
            ahead += new
        return frozenset(seen)

    groups = {frozenset({place} | {other for other in reached(place) if place in reached(other)}) for place in arrows}
    return sorted(sorted(group) for group in groups if len(group) > 1)


def floors_of(arrows: Mapping[str, set[str]]) -> dict[str, int]:
    """The floor of each place; all places of a circle are on one floor."""
    circle = {place: tuple(group) for group in circles_in(arrows) for place in group}

    @cache
    def floor(group: tuple[str, ...]) -> int:
        below = {circle.get(other, (other,)) for place in group for other in arrows[place]} - {group}
        return 1 + max(map(floor, below), default=0)

    return {place: floor(circle.get(place, (place,))) for place in arrows}


def print_structure(core: Path) -> None:
    """Print rooms by floor, and the numbers of arrows and circles."""
    files = files_of(core)
    imports = imports_of(files)
    arrows = arrows_between(imports, room_of)
    floors = floors_of(arrows)
    by_floor = defaultdict(list)
    for room, floor in floors.items():
        by_floor[floor].append(room)
    n_lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files.values())
    print(f"{len(files)} files, {n_lines} lines")
    print(f"{len(arrows)} rooms on {len(by_floor)} floors, {sum(map(len, arrows.values()))} arrows between rooms")
    print(f"circles of rooms: {circles_in(arrows) or 'none'}")
    print(f"circles of files: {circles_in(arrows_between(imports, str)) or 'none'}")
    for floor in sorted(by_floor, reverse=True):
        print(f"{floor:4}  {', '.join(sorted(by_floor[floor]))}")


def functions_run(core: Path, do: Callable[[], object], last: str = "") -> dict[Path, set[tuple[int, int]]]:
    """Run something and note the first and last line of each function of the package that it calls, by file.

    Args:
        core: the folder of the package.
        do: what to run.
        last: name of the file whose last call ends the path. "" takes the whole path.
    """
    calls: list[CodeType] = []

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(core / PACKAGE)):
            calls.append(frame.f_code)

    sys.setprofile(note)
    try:
        do()
    finally:
        sys.setprofile(None)
    ends = [i for i, code in enumerate(calls, start=1) if Path(code.co_filename).name == last]
    lines: dict[Path, set[tuple[int, int]]] = defaultdict(set)
    for code in calls[: ends[-1] if ends else None]:
        if not code.co_name.startswith("<"):
            end = max((line for _, _, line in code.co_lines() if line), default=code.co_firstlineno)
            lines[Path(code.co_filename)].add((code.co_firstlineno, end))
    return lines


def print_path(core: Path, title: str, lines: Mapping[Path, set[tuple[int, int]]]) -> None:
    """Print the files of a path, longest share first, with the lines of the functions on it and of the whole file.

    Checks of arguments and the encoders, which stand behind protocols, come last: nobody has to read them to follow it.
    """
    shares = {path.relative_to(core / PACKAGE): _n_lines(functions) for path, functions in lines.items()}
    behind = {path for path in shares if path.parts[0] in BEHIND}
    for name, some in ((title, shares.keys() - behind), ("behind protocols, and everybody's words", behind)):
        print(f"{name}: {len(some)} files, {sum(shares[path] for path in some)} lines of functions")
        for path in sorted(some, key=lambda path: -shares[path]):
            whole = len((core / PACKAGE / path).read_text(encoding="utf-8").splitlines())
            print(f"{shares[path]:7} of {whole:4}  {path}")


def _n_lines(functions: set[tuple[int, int]]) -> int:
    return len({line for first, end in functions for line in range(first, end + 1)})


def follow(core: Path) -> None:
    """Run a search and an add, and print the code on their paths."""
    sys.path.insert(0, str(core))
    from muvera_core import MuveraIndex

    with MuveraIndex.create(None) as index:
        index.add(PASSAGES)
        index.search("Which passage mentions detail 49?", 3)
        searched = functions_run(core, lambda: index.search("subject 3", 3), last="cpu.py")
        print_path(core, "a search, up to the scores", searched)
        print_path(core, "an add", functions_run(core, lambda: index.add(["One more passage."])))


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Prints the structure of the core.")
    parser.add_argument("--core", type=Path, default=CORE, help="folder of the package muvera_core")
    parser.add_argument("--follow", action="store_true", help="also print the code that a search and an add run")
    options = parser.parse_args(arguments)
    print_structure(options.core.resolve())
    if options.follow:
        follow(options.core.resolve())


if __name__ == "__main__":
    main()
