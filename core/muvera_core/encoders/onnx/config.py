"""The settings of an ONNX model: onnx_config.json.

Next-plaid's exporter (``pylate-onnx-export``) writes this file beside ``model.onnx`` and ``tokenizer.json``, with
PyLate's settings at its top level. Such folders are read as they are. Our exporter adds an object ``muvera`` with what
the top level cannot say; it wins where both say something.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muvera_core.encoders.json_files import read_json
from muvera_core.encoders.text.layout import Expansion
from muvera_core.errors import EncoderError
from muvera_core.validation import shown

CONFIG_FILE = "onnx_config.json"
TOKENIZER_FILE = "tokenizer.json"
_OWN = "muvera"
_VERSION = 1
# No model has more positions, or more tokens.
_LARGEST_LENGTH, _LARGEST_ID = 2**20, 2**31 - 1
_REMEDY = "correct that file, or export the model again"


@dataclass(frozen=True)
class TaskConfig:
    """How the texts of one task, documents or queries, are read.

    Attributes:
        prompt: text that is put before each text and tokenized with it.
        is_marker: whether the prompt is one token, such as [Q], that is put after the first special token instead.
        marker: the id of that token; None to look it up.
        length: number of tokens that the model encodes at once, prompt and special tokens included; None for no limit.
        skips: whether words of the skip-list have no vectors.
    """

    prompt: str = ""
    is_marker: bool = False
    marker: int | None = None
    length: int | None = None
    skips: bool = False


@dataclass(frozen=True)
class OnnxConfig:
    """Everything that decides the vectors, apart from the model and the tokenizer.

    Attributes:
        document: how documents are read.
        query: how queries are read.
        model_file: name of the model in the folder.
        dimension: width of the model's output; None if the file does not say.
        positions: largest number of tokens that the model can encode at once; None if the file does not say.
        expansion: what fills up queries.
        skiplist: words without vectors. One that is no single token has no effect.
        pad: id that fills up the shorter texts of a batch.
        lowercase: whether texts are lowercased before they are tokenized.
        reads_special_tokens: whether "[SEP]" written in a text is that token.
        normalized: whether the model's vectors have unit length.
        exact_products: whether 8-bit products cannot overflow, whatever the processor.
        files: by name, the number of ``bytes`` and the ``sha256`` of the files that belong together.
        fingerprint: of the encoder that the model was exported from, if it has the same vectors.
        content: the fingerprint that the settings and files had by themselves when they were exported. If they have
            another one now, ``fingerprint`` is not theirs any more.
    """

    document: TaskConfig
    query: TaskConfig
    model_file: str = "model.onnx"
    dimension: int | None = None
    positions: int | None = None
    expansion: Expansion | None = None
    skiplist: tuple[str, ...] = ()
    pad: int = 0
    lowercase: bool = False
    reads_special_tokens: bool = True
    normalized: bool = True
    exact_products: bool = False
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    fingerprint: str | None = None
    content: str | None = None


class _Fields:
    """The entries of a JSON object, checked for their type."""

    def __init__(self, file: Path, content: Any) -> None:
        if not isinstance(content, dict):
            raise EncoderError(f"{file} must hold a JSON object, got {type(content).__name__}: {_REMEDY}")
        self._file, self._content = file, content

    def get(self, name: str, kind: type | tuple[type, ...], default: Any) -> Any:
        value = self._content.get(name)
        if value is None:
            return default
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise EncoderError(f"{name} in {self._file} is {shown(value)}, expected {_name_of(kind)}: {_REMEDY}")
        if isinstance(value, str):
            self._require_unicode(name, value)
        return value

    def _require_unicode(self, name: str, value: str) -> None:
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise EncoderError(f"{name} in {self._file} is {shown(value)}, which is not Unicode text: {_REMEDY}")

    def count(self, name: str) -> int | None:
        """A whole number of at least 1; None if it is not there."""
        value: int | None = self.get(name, int, None)
        return self._within(name, value, 1, _LARGEST_LENGTH)

    def id(self, name: str, default: int | None = None) -> int | None:
        """The id of a token."""
        return self._within(name, self.get(name, int, default), 0, _LARGEST_ID)

    def _within(self, name: str, value: int | None, least: int, most: int) -> int | None:
        if value is not None and not least <= value <= most:
            raise EncoderError(f"{name} in {self._file} is {value}, expected {least} to {most}: {_REMEDY}")
        return value

    def words(self, name: str) -> tuple[str, ...]:
        values = self.get(name, list, [])
        if not all(isinstance(value, str) for value in values):
            raise EncoderError(f"{name} in {self._file} is {shown(values)}, expected a list of strings: {_REMEDY}")
        for value in values:
            self._require_unicode(name, value)
        return tuple(values)

    def object(self, name: str) -> _Fields:
        return _Fields(self._file, self.get(name, dict, {}))

    def has(self, name: str) -> bool:
        return self._content.get(name) is not None


def read_config(folder: Path) -> OnnxConfig:
    """Read onnx_config.json. Raises EncoderError if it is missing, or says something that cannot be."""
    file = folder / CONFIG_FILE
    remedy = "make the folder with muvera export-onnx, or download it again"
    content = read_json(file, "the settings of the model", object, remedy)
    top = _Fields(file, content)
    if top.get("model_type", str, "ColBERT") != "ColBERT":
        raise EncoderError(
            f"{file} is about a model of the type {shown(content['model_type'])}, expected ColBERT, a late-interaction "
            "model: use a folder of such a model"
        )
    own = top.object(_OWN)
    version = own.get("version", int, _VERSION)
    if version > _VERSION:
        raise EncoderError(f"{file} has the version {version}, but this muvera reads up to {_VERSION}: update muvera")
    return _own_config(top, own) if top.has(_OWN) else _published_config(file, top)


def _own_config(top: _Fields, own: _Fields) -> OnnxConfig:
    skip_tasks = own.words("skiplist_tasks")
    expansion = None
    if own.has("expansion"):
        given = own.object("expansion")
        token, length = given.id("token_id"), given.count("length")
        if token is None or length is None:
            raise EncoderError(f"expansion lacks token_id or length in {CONFIG_FILE}: {_REMEDY}")
        expansion = Expansion(token, length, given.get("attend", bool, False))

    def task(name: str) -> TaskConfig:
        given = own.object(name)
        return TaskConfig(given.get("prompt", str, ""), length=given.count("length"), skips=name in skip_tasks)

    return OnnxConfig(
        document=task("document"),
        query=task("query"),
        model_file=own.get("model_file", str, "model.onnx"),
        dimension=top.count("embedding_dim"),
        positions=own.count("positions"),
        expansion=expansion,
        skiplist=top.words("skiplist_words"),
        pad=top.id("pad_token_id", 0) or 0,
        lowercase=top.get("do_lower_case", bool, False),
        reads_special_tokens=own.get("reads_special_tokens", bool, True),
        normalized=own.get("normalized", bool, True),
        exact_products=own.get("exact_products", bool, False),
        files=own.get("files", dict, {}),
        fingerprint=own.get("fingerprint", str, None),
        content=own.get("content", str, None),
    )


def _published_config(file: Path, top: _Fields) -> OnnxConfig:
    """As PyLate does it: a marker's id after the first special token, queries filled up with masks."""
    missing = [name for name in ("query_length", "document_length") if not top.has(name)]
    if missing:
        raise EncoderError(f"{file} lacks {' and '.join(missing)}: {_REMEDY}")
    query_length = top.count("query_length")
    expansion = None
    if top.get("do_query_expansion", bool, True):
        mask = top.id("mask_token_id")
        if mask is None:
            raise EncoderError(f"{file} lacks mask_token_id, which fills up queries: {_REMEDY}")
        expansion = Expansion(mask, query_length or 1, top.get("attend_to_expansion_tokens", bool, False))

    def task(name: str) -> TaskConfig:
        return TaskConfig(
            prompt=top.get(f"{name}_prefix", str, ""),
            is_marker=True,
            marker=top.id(f"{name}_prefix_id"),
            length=top.count(f"{name}_length"),
            skips=name == "document",
        )

    return OnnxConfig(
        document=task("document"),
        query=task("query"),
        dimension=top.count("embedding_dim"),
        expansion=expansion,
        skiplist=top.words("skiplist_words"),
        pad=top.id("pad_token_id", 0) or 0,
        lowercase=top.get("do_lower_case", bool, False),
    )


def write_config(folder: Path, config: OnnxConfig, ids: Mapping[str, int | None], more: Mapping[str, Any]) -> None:
    """Write onnx_config.json.

    Args:
        folder: where to.
        config: the settings. Tasks must have prompts, not markers.
        ids: ids of the tokens that the prompts consist of, ``query_prefix_id`` and ``document_prefix_id``, if each is
            one token: next-plaid needs them.
        more: further entries of the top level, such as ``model_name``.
    """
    tasks = {"query": config.query, "document": config.document}
    expansion = config.expansion
    own = {
        "version": _VERSION,
        "model_file": config.model_file,
        **{name: {"prompt": task.prompt, "length": task.length} for name, task in tasks.items()},
        "positions": config.positions,
        "expansion": expansion
        and {"token_id": expansion.token, "length": expansion.length, "attend": expansion.attended},
        "skiplist_tasks": [name for name, task in tasks.items() if task.skips],
        "reads_special_tokens": config.reads_special_tokens,
        "normalized": config.normalized,
        "exact_products": config.exact_products,
        "files": {name: dict(file) for name, file in config.files.items()},
        "fingerprint": config.fingerprint,
        "content": config.content,
    }
    content = {
        "model_type": "ColBERT",
        **more,
        **{f"{name}_prefix": task.prompt for name, task in tasks.items()},
        **ids,
        "query_length": config.query.length,
        "document_length": config.document.length,
        "do_query_expansion": expansion is not None,
        "attend_to_expansion_tokens": bool(expansion and expansion.attended),
        "mask_token_id": expansion and expansion.token,
        "pad_token_id": config.pad,
        "skiplist_words": list(config.skiplist),
        "embedding_dim": config.dimension,
        "do_lower_case": config.lowercase,
        _OWN: own,
    }
    # Next-plaid takes its defaults for what is missing, and fails at null.
    content = {name: value for name, value in content.items() if value is not None}
    (folder / CONFIG_FILE).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def file_entry(file: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file."""
    with file.open("rb") as stream:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def _name_of(kind: type | tuple[type, ...]) -> str:
    names = {int: "a whole number", str: "a string", bool: "true or false", list: "a list", dict: "an object"}
    return names[kind] if isinstance(kind, type) else " or ".join(names[each] for each in kind)
