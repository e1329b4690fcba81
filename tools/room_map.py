"""Prints the map of the core's rooms that CONTRIBUTING.md shows: each room's layer, and what happens in it.

    python tools/room_map.py            print it
    python tools/room_map.py --write    put it into CONTRIBUTING.md

The layers are those of tests/test_architecture.py, which holds the code to them. What happens in a room is the first
sentence of its docstring.
"""

from __future__ import annotations

import argparse
import ast
import re

from architecture import CORE, PACKAGE
from set_home import REPOSITORY

CONTRIBUTING = REPOSITORY / "CONTRIBUTING.md"
BEGIN, END = "<!-- rooms: made by tools/room_map.py -->", "<!-- end of rooms -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the map into CONTRIBUTING.md")
    if parser.parse_args().write:
        text = CONTRIBUTING.read_text(encoding="utf-8")
        CONTRIBUTING.write_text(with_map(text), encoding="utf-8")
    else:
        print(room_map())


def with_map(text: str) -> str:
    """A text with the present map between its two marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"CONTRIBUTING.md has lost the lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n{room_map()}\n{END}{after}"


def room_map() -> str:
    """A table of Markdown, from the highest layer to the lowest."""
    lines = ["| layer | room | what happens in it |", "|---|---|---|"]
    for number, rooms in reversed(list(enumerate(layers(), start=1))):
        lines += [f"| {number} | `{room}` | {first_sentence(room)} |" for room in rooms]
    return "\n".join(lines)


def layers() -> list[tuple[str, ...]]:
    """The layers that the architecture's tests allow, from the lowest to the highest."""
    tree = ast.parse((REPOSITORY / "tests" / "test_architecture.py").read_text(encoding="utf-8"))
    values = [
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LAYERS"
    ]
    return list(ast.literal_eval(values[0]))


def first_sentence(room: str) -> str:
    """What a room's docstring says first, up to a full stop."""
    folder = CORE / PACKAGE / room
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    found = re.match(r".*?\.(?=\s|$)", docstring.replace("\n", " "))
    return found[0].replace("``", "`") if found else ""


if __name__ == "__main__":
    main()
