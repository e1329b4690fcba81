"""Parsers for the blocks that are not code: outputs, and configurations of other programs."""

from __future__ import annotations

import configparser
import json
import re
import tomllib
from collections.abc import Callable

import yaml
from markdown_pages import Block


def _json(block: Block) -> None:
    for line in block.code.strip().splitlines() if block.code.lstrip()[0] not in "[{" else [block.code]:
        json.loads(line)


def _yaml(block: Block) -> None:
    assert yaml.safe_load(block.code) is not None, block.place


def _ini(block: Block) -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read_string(block.code)
    assert parser.sections(), block.place


def _toml(block: Block) -> None:
    assert tomllib.loads(block.code), block.place


def _braces(block: Block) -> None:
    """Nginx and Caddy: blocks in braces, which are balanced."""
    depth = 0
    for brace in re.findall(r"(?<!\S)[{}](?!\S)", block.code):
        depth += 1 if brace == "{" else -1
        assert depth >= 0, f"{block.place}: a brace is closed that was not opened"
    assert depth == 0, f"{block.place}: {depth} braces are not closed"


def _dockerfile(block: Block) -> None:
    known = {"FROM", "RUN", "VOLUME", "EXPOSE", "ENTRYPOINT", "COPY", "ENV", "USER", "WORKDIR", "CMD"}
    for line in block.code.strip().splitlines():
        assert line.split()[0] in known, f"{block.place}: {line!r}"


def _text(block: Block) -> None:
    assert block.code.strip(), f"{block.place}: an empty block"


PARSERS: dict[str, Callable[[Block], None]] = {
    "caddyfile": _braces,
    "dockerfile": _dockerfile,
    "ini": _ini,
    "json": _json,
    "nginx": _braces,
    "text": _text,
    "toml": _toml,
    "yaml": _yaml,
}
