"""The encoder for text in other languages: token states of multilingual-e5-small, 4 bits, on the CPU."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from muvera_core.encoders.layout import TextFormat
from muvera_core.encoders.multilingual_fingerprint import MULTILINGUAL_DIMENSIONS, multilingual_fingerprint
from muvera_core.encoders.onnx.engine import OnnxEngine, TextKind
from muvera_core.encoders.onnx.folder import load_tokenizer, require_files, special_tokens_around
from muvera_core.encoders.onnx.session import OnnxModel
from muvera_core.encoders.prefixes import InsertedPrefix
from muvera_core.encoders.reports import TextReports
from muvera_core.encoders.tokenizing import LimitedTokenizer
from muvera_core.errors import EncoderError, InvalidInputError, MissingExtraError
from muvera_core.token_embeddings import IntArray, TokenEmbeddings
from muvera_core.validation import require_count

_REMEDY = "reinstall muvera-multilingual"
# Attributes that a copy makes anew.
_LOADED = ("_engine", "_documents", "_queries", "_reports", "_fingerprint")
# The mark of a word's start. As a token of its own it has no characters.
_WORD_START = "▁"


class MultilingualEncoder:
    """Token embeddings of text in about 100 languages, with nothing to download and no PyTorch.

    Questions find passages in other languages, too. The model is multilingual-e5-small, whose token vectors are
    compared by MaxSim as they are. Its files come with the package muvera-multilingual.

    A text of up to 508 wordpieces is encoded whole, a longer one in overlapping windows of 252. Each window is encoded
    on its own, so a text's vectors never depend on the other texts of the call. The vectors of the markers at the start
    and the end of every window are kept. The model was trained with "query: " and "passage: " in front of texts, so
    texts are encoded with them, but these words have no vectors.

    A word with a character that the vocabulary lacks gets one vector per character, made from the characters alone, so
    that it matches the same characters and nothing else. If a third of a text is unknown, an UnknownTextWarning says
    so, once for documents and once for queries.

    Encoders can be pickled and copied: the copy loads the model's files again.

    Args:
        num_threads: number of windows that are encoded at the same time; by default one per available core.
        max_document_tokens: number of wordpieces, and characters of unknown words, of a document that are encoded.
            The rest is left out with a TruncatedTextWarning.
        max_query_tokens: the same for a query.
        dimension: width of a token vector: 384, or 256 for two thirds of the space.

    Raises:
        MissingExtraError: the package muvera-multilingual is not installed.
        InvalidInputError: an argument is below 1, or the dimension is another one.
        EncoderError: the model files are missing or damaged.
    """

    def __init__(
        self,
        num_threads: int | None = None,
        max_document_tokens: int = 16_384,
        max_query_tokens: int = 512,
        *,
        dimension: int = MULTILINGUAL_DIMENSIONS[0],
    ) -> None:
        self._num_threads = None if num_threads is None else require_count("num_threads", num_threads)
        self._max_document_tokens = require_count("max_document_tokens", max_document_tokens)
        self._max_query_tokens = require_count("max_query_tokens", max_query_tokens)
        self._dimension = require_count("dimension", dimension)
        if self._dimension not in MULTILINGUAL_DIMENSIONS:
            known = " or ".join(map(str, MULTILINGUAL_DIMENSIONS))
            raise InvalidInputError(f"dimension must be {known}, got {dimension}")
        self._load()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _LOADED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._load()

    @property
    def dimension(self) -> int:
        """Width of a token vector."""
        return self._dimension

    @property
    def fingerprint(self) -> str:
        """Identifies the model files, the windows, the dimension, and how the vectors of unknown words are made.

        The token limits are not part of it: they change no vector.
        """
        return self._fingerprint

    @property
    def settings(self) -> dict[str, Any]:
        """The dimension and the token limits, as the constructor takes them."""
        return {
            "dimension": self._dimension,
            "max_document_tokens": self._max_document_tokens,
            "max_query_tokens": self._max_query_tokens,
        }

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Token vectors of passages, in order.

        Raises:
            InvalidInputError: a text is not a str, or holds half of a surrogate pair.
        """
        read = self._documents.read(texts)
        self._reports.documents([text.wordpieces for text in read], self._max_document_tokens)
        return self._engine.encode(self._documents, read)

    def encode_queries(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Token vectors of queries, in order. Prefix and limit differ from those of ``encode_documents``.

        Raises:
            InvalidInputError: a text is not a str, or holds half of a surrogate pair.
        """
        read = self._queries.read(texts)
        self._reports.queries([text.wordpieces for text in read], self._max_query_tokens)
        return self._engine.encode(self._queries, read)

    def document_spans(self, text: str) -> IntArray:
        """Start and end character of each token of ``encode_documents([text])``, int64, shape (tokens, 2)."""
        return self._documents.spans(text)

    def query_spans(self, text: str) -> IntArray:
        """Start and end character of each token of ``encode_queries([text])``, int64, shape (tokens, 2)."""
        return self._queries.spans(text)

    def _load(self) -> None:
        folder = find_folder()
        try:
            settings = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
            require_files(folder, settings["files"], _REMEDY)
            tokenizer = load_tokenizer(folder / "tokenizer.json", reads_special_tokens=False)
            before, after = special_tokens_around(tokenizer)
            layout = TextFormat(
                before=before,
                after=after,
                whole=settings["positions"],
                window=settings["window_tokens"],
                overlap=settings["window_overlap"],
                kept_specials="windows",
                keeps_prefix=False,
                skipped=frozenset([tokenizer.token_to_id(_WORD_START)]),
                unknown="characters",
            )
            limited = LimitedTokenizer(tokenizer, settings["unknown_id"], splits_unknown=True)
            self._documents, self._queries = (
                TextKind(
                    InsertedPrefix(limited, tokenizer.encode(settings[prefix], add_special_tokens=False).ids),
                    layout,
                    limit,
                )
                for prefix, limit in (
                    ("document_prefix", self._max_document_tokens),
                    ("query_prefix", self._max_query_tokens),
                )
            )
            self._engine = OnnxEngine(OnnxModel(folder / "model.onnx"), self._dimension, num_threads=self._num_threads)
            self._fingerprint = multilingual_fingerprint(settings, self._dimension)
        except Exception as error:  # whatever the files hold, the remedy is the same
            if isinstance(error, EncoderError) and _REMEDY in str(error):
                raise
            raise EncoderError(f"the multilingual encoder in {folder} cannot be loaded ({error}): {_REMEDY}") from error
        self._reports = TextReports(
            "Split it into passages, or raise max_document_tokens",
            "Shorten it, or raise max_query_tokens",
            unread_remedy="use an encoder that was made for it",
        )


def find_folder() -> Path:
    """The folder of the model's files. Raises MissingExtraError if their package is not installed."""
    try:
        from muvera_multilingual import FOLDER
    except ImportError as error:
        raise MissingExtraError(
            "MultilingualEncoder needs the package muvera-multilingual: pip install 'muvera-core[multilingual]'"
        ) from error
    return FOLDER
