"""A TokenEncoder for late-interaction models in ONNX format, without PyTorch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from muvera_core.encoders.onnx.config import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    OnnxConfig,
    TaskConfig,
    file_entry,
    read_config,
)
from muvera_core.encoders.onnx.engine import OnnxEngine
from muvera_core.encoders.onnx.external import external_files
from muvera_core.encoders.onnx.folder import REMEDY, load_tokenizer, unknown_token
from muvera_core.encoders.onnx.inputs import TaskInputs
from muvera_core.encoders.onnx.session import OnnxModel, require_device
from muvera_core.encoders.text.layout import Piece, span_array
from muvera_core.encoders.text.naming import require_unicode_texts
from muvera_core.encoders.text.reports import TextReports
from muvera_core.encoders.text.text_windows import TEXT_WINDOWS_VERSION
from muvera_core.encoders.text.tokenizing import Wordpieces
from muvera_core.encoders.text.windows import OVERLAP_SHARE
from muvera_core.errors import EncoderError, InvalidInputError
from muvera_core.token_embeddings import IntArray, TokenEmbeddings
from muvera_core.validation import require_count, require_path, require_text, shown

# Attributes that a copy makes anew.
_LOADED = ("_engine", "_documents", "_queries", "_reports")


class OnnxEncoder:
    """Token vectors of a late-interaction model in ONNX format, without PyTorch.

    The folder holds a model, ``tokenizer.json`` and ``onnx_config.json``. ``muvera export-onnx`` makes one of any text
    model of sentence-transformers or PyLate. Folders that next-plaid's exporter made load as well.

    Prompts and markers, query expansion, lengths and words without vectors are as the settings say. A document that is
    longer than the model's document length is encoded in overlapping windows, each with its own prompt and markers; of
    the markers, those before the first window's text and those after the last one's are kept. Tokens beyond
    ``max_document_tokens`` are left out with a ``TruncatedTextWarning``. A query that is longer than the query length
    is cut with the same warning. If the vocabulary lacks a third of a text, an ``UnknownTextWarning`` says so, once
    for documents and once for queries.

    Nothing is downloaded, no code of the folder is run, and no file outside of it is read. Encoding is thread-safe. On
    the CPU a text's vectors do not depend on the other texts of a call, bit by bit. Encoders can be pickled and
    copied: the copy loads the folder again, and raises EncoderError if its content has changed.

    Args:
        folder: the model's folder.
        device: "cpu", "cuda" or "cuda:N", or the name of another execution provider of onnxruntime. A GPU needs a build
            of onnxruntime for it, such as onnxruntime-gpu.
        num_threads: number of texts, or windows of texts, that are encoded at the same time; by default one per
            available core, and one on a GPU.
        batch_size: number of texts, or windows, that the model encodes together; by default 1 on the CPU, else 32.
        document_length: tokens of a document's window, prompt and markers included; by default the model's own.
        query_length: tokens of a query, prompt, markers and expansion included; by default the model's own.
        max_document_tokens: largest number of tokens of a document to encode.
        truncate_dim: keep the first so many dimensions of each vector, for models that were trained for it.
        model_file: name of the model in the folder, such as "model_int8.onnx"; by default as the settings say.

    Raises:
        InvalidInputError: an argument is invalid.
        DeviceError: onnxruntime cannot use the device.
        EncoderError: a file of the folder is missing, damaged, or says something that cannot be.

    Example:
        >>> encoder = OnnxEncoder("GTE-ModernColBERT-v1-onnx")  # doctest: +SKIP
        >>> encoder.encode_queries(["who wrote Faust?"]).vectors.shape  # doctest: +SKIP
        (32, 128)
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        device: str = "cpu",
        num_threads: int | None = None,
        batch_size: int | None = None,
        document_length: int | None = None,
        query_length: int | None = None,
        max_document_tokens: int = 16_384,
        truncate_dim: int | None = None,
        model_file: str | None = None,
    ) -> None:
        self._folder = require_path("folder", folder)
        self._device = require_device(device)
        counts = {
            "num_threads": num_threads,
            "batch_size": batch_size,
            "document_length": document_length,
            "query_length": query_length,
            "truncate_dim": truncate_dim,
        }
        self._counts = {name: None if n is None else require_count(name, n) for name, n in counts.items()}
        self.max_document_tokens = require_count("max_document_tokens", max_document_tokens)
        self._model_file = None if model_file is None else require_text("model_file", model_file)
        self._load()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _LOADED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._load()
        if self._fingerprint != state["_fingerprint"]:
            raise EncoderError(
                f"{self._folder} no longer has the content that it had when the encoder was pickled: make a new "
                "encoder of that folder, or restore its files"
            )

    @property
    def dimension(self) -> int:
        """Width of a token vector."""
        return self._engine.dimension

    @property
    def fingerprint(self) -> str:
        """Hash of the model, the tokenizer and the settings. It does not depend on the folder's path or the device.

        A float model that ``muvera export-onnx`` made has the fingerprint of the model that it was made of, as long as
        nothing is changed: an index can be made with one and opened with the other.
        """
        return self._fingerprint

    @property
    def settings(self) -> dict[str, Any]:
        """The folder's name, its content, and the lengths and limits, as the constructor takes them."""
        return {
            "folder": self._folder.name,
            "content": self._fingerprint,
            "document_length": self._documents.limit,
            "query_length": self._queries.limit,
            "max_document_tokens": self.max_document_tokens,
            "truncate_dim": self._counts["truncate_dim"],
            "model_file": self._model_file,
        }

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Token vectors of passages, in order. Words on the model's skip-list, such as punctuation, have none.

        Raises:
            InvalidInputError: ``texts`` is not a sequence of valid strings.
            EncoderError: the model fails.
        """
        found = self._documents.first_tokens(require_unicode_texts(texts), self.max_document_tokens)
        self._reports.documents(found, self.max_document_tokens)
        return self._encode([self._documents.windows(wordpieces) for wordpieces in found])

    def encode_queries(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Token vectors of queries, in order, with those of the tokens by which the model expands queries.

        Raises:
            InvalidInputError: ``texts`` is not a sequence of valid strings.
            EncoderError: the model fails.
        """
        cut = [self._queries.cut(wordpieces) for wordpieces in self._query_tokens(texts)]
        self._reports.queries([wordpieces for wordpieces, _ in cut], self._queries.room(self.max_document_tokens))
        return self._encode([[piece] for _, piece in cut])

    def document_spans(self, text: str) -> IntArray:
        """Start and end character of each token of ``encode_documents([text])``, int64, shape (tokens, 2).

        Prompt and markers have start == end.
        """
        found = self._documents.first_tokens(require_unicode_texts([text]), self.max_document_tokens)[0]
        return span_array(self._documents.windows(found))

    def query_spans(self, text: str) -> IntArray:
        """The same for ``encode_queries([text])``. A token that expands the query is at the end of the text."""
        return span_array([self._queries.cut(self._query_tokens([text])[0])[1]])

    def _query_tokens(self, texts: Sequence[str]) -> list[Wordpieces]:
        return self._queries.first_tokens(require_unicode_texts(texts), self._queries.room(self.max_document_tokens))

    def _encode(self, texts: Sequence[Sequence[Piece]]) -> TokenEmbeddings:
        for i, pieces in enumerate(texts):
            if not any(piece.keep for piece in pieces):
                raise EncoderError(
                    f"the model gives no vector for text {i + 1} of this call: its tokenizer adds no special tokens, "
                    "and the text has no other token that gets a vector. Leave such texts out"
                )
        return self._engine.encode_pieces(texts)

    def _load(self) -> None:
        if not self._folder.is_dir():
            raise EncoderError(
                f"{self._folder} is not a folder: OnnxEncoder needs the folder of a model in ONNX format, as muvera "
                "export-onnx makes it. It never downloads"
            )
        given = read_config(self._folder)
        config = self._configured(given)
        tokenizer = load_tokenizer(
            self._folder / TOKENIZER_FILE,
            reads_special_tokens=config.reads_special_tokens,
            lowercase=config.lowercase,
        )
        contents = self._checked_files(config)
        model = OnnxModel(
            self._folder / config.model_file,
            device=self._device,
            pad=config.pad,
            exact_products=config.exact_products,
        )
        self._engine = self._made_engine(config, model)
        unknown = unknown_token(tokenizer)
        ids = (tokenizer.token_to_id(word) for word in config.skiplist)
        skipped = {id for id in ids if id is not None}
        document, query = _resolved(config.document, tokenizer), _resolved(config.query, tokenizer)
        self._documents = TaskInputs(tokenizer, unknown, document, skipped, None, "document")
        self._queries = TaskInputs(tokenizer, unknown, query, skipped, config.expansion, "query")
        self._reports = TextReports(
            "Split it into passages, or raise max_document_tokens",
            "Shorten it, or raise query_length, if the model was trained for that",
            unknown_matches="takes them all for the same unknown word",
        )
        content = self._content_hash(config, contents)
        self._fingerprint = given.fingerprint if given.fingerprint and given.content == content else content

    def _configured(self, config: OnnxConfig) -> OnnxConfig:
        """The settings with the arguments of the constructor in their place."""
        name = self._model_file or config.model_file
        if Path(name).name != name or name in ("", ".", ".."):
            raise EncoderError(
                f"the model must be a file in {self._folder}, got the name {name!r}: correct model_file, or "
                f"{CONFIG_FILE}"
            )
        lengths = {task: self._counts[f"{task}_length"] for task in ("document", "query")}
        for task, length in lengths.items():
            if length is not None and config.positions is not None and length > config.positions:
                raise InvalidInputError(
                    f"{task}_length must be at most {config.positions}, the positions of this model, got {length}"
                )
        document, query, expansion = config.document, config.query, config.expansion
        if lengths["document"] is not None:
            document = replace(document, length=lengths["document"])
        if lengths["query"] is not None:
            if expansion is not None and expansion.length == query.length:
                expansion = replace(expansion, length=lengths["query"])
            elif expansion is not None and lengths["query"] < expansion.length:
                raise InvalidInputError(
                    f"query_length must be at least {expansion.length}, to which this model expands queries, got "
                    f"{lengths['query']}"
                )
            query = replace(query, length=lengths["query"])
        longest = max(document.length or 0, query.length or 0, expansion.length if expansion else 0)
        if config.positions is not None and longest > config.positions:
            raise EncoderError(
                f"{CONFIG_FILE} in {self._folder} has a length of {longest}, but the model has {config.positions} "
                f"positions: {REMEDY}"
            )
        return replace(config, model_file=name, document=document, query=query, expansion=expansion)

    def _checked_files(self, config: OnnxConfig) -> dict[str, str]:
        """The SHA-256 of each file. Raises EncoderError if one is missing or differs from what the settings say."""
        external = external_files(self._folder / config.model_file, REMEDY)
        contents = {}
        for name in (config.model_file, TOKENIZER_FILE, *external):
            file = self._folder / name
            try:
                entry = file_entry(file)
            except OSError as error:
                raise EncoderError(f"{file} cannot be read ({error}): {REMEDY}") from error
            expected = config.files.get(name, entry)
            if entry != expected:
                raise EncoderError(
                    f"{file} is not the file that {CONFIG_FILE} describes: it has {entry['bytes']} bytes and "
                    f"the SHA-256 {entry['sha256'][:12]}…, expected {shown(expected)}: {REMEDY}"
                )
            contents[name] = entry["sha256"]
        return contents

    def _made_engine(self, config: OnnxConfig, model: OnnxModel) -> OnnxEngine:
        width = model.width
        if config.dimension is not None and width != config.dimension:
            raise EncoderError(
                f"{self._folder / config.model_file} gives {width}-d vectors, but embedding_dim in {CONFIG_FILE} is "
                f"{config.dimension}: {REMEDY}"
            )
        narrow = self._counts["truncate_dim"]
        if narrow is not None and narrow > width:
            raise InvalidInputError(f"truncate_dim must be at most {width}, the dimensions of this model, got {narrow}")
        return OnnxEngine.on(
            self._device,
            model,
            narrow or width,
            normalizes=not config.normalized,
            num_threads=self._counts["num_threads"],
            batch_size=self._counts["batch_size"],
        )

    def _content_hash(self, config: OnnxConfig, contents: dict[str, str]) -> str:
        described = {
            name: value
            for name, value in asdict(config).items()
            if name not in ("model_file", "files", "fingerprint", "content")
        }
        described |= {
            # Without names: a file can be renamed.
            "files": [contents[config.model_file], contents[TOKENIZER_FILE]],
            "external": sorted(set(contents.values()) - {contents[config.model_file], contents[TOKENIZER_FILE]}),
            "truncate_dim": self._counts["truncate_dim"],
            "windows": [TEXT_WINDOWS_VERSION, OVERLAP_SHARE],
        }
        return f"onnx:{hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()}"


def _resolved(task: TaskConfig, tokenizer: Any) -> TaskConfig:
    """With the id of the marker. A prompt that is no token of the vocabulary is written in front of the text."""
    if not task.is_marker or task.marker is not None or not task.prompt:
        return task
    return replace(task, marker=tokenizer.token_to_id(task.prompt))
