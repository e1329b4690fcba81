"""A TokenEncoder for any late-interaction model of sentence-transformers 6, in its format, PyLate's or colbert-ai's."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from muvera_core.encoders.sentence_transformer.fingerprint import content_hash
from muvera_core.encoders.sentence_transformer.images import embeds_images, patches_of, require_images
from muvera_core.encoders.sentence_transformer.inputs import (
    Rows,
    Task,
    TextInputs,
    positions_of,
    transformer_of,
)
from muvera_core.encoders.sentence_transformer.loading import (
    BACKENDS,
    DTYPES,
    ModelSource,
    folder_of,
    load_model,
    require_sentence_transformers,
)
from muvera_core.encoders.sentence_transformer.vectors import (
    MOST_IMAGES_ON_GPU,
    MOST_ON_GPU,
    as_embeddings,
    finished,
    joined,
)
from muvera_core.encoders.text.naming import require_unicode_texts
from muvera_core.encoders.text.reports import TextReports
from muvera_core.encoders.text.text_windows import TEXT_WINDOWS_VERSION, TextWindow
from muvera_core.encoders.text.tokenizing import Wordpieces
from muvera_core.encoders.text.windows import OVERLAP_SHARE
from muvera_core.encoders.torch_forks import allow_forks
from muvera_core.errors import EncoderError, InvalidInputError
from muvera_core.token_embeddings import IntArray, TokenEmbeddings
from muvera_core.validation import require_count, shown

if TYPE_CHECKING:
    from PIL.Image import Image
    from sentence_transformers import MultiVectorEncoder

    from muvera_core.encoders.sentence_transformer.vectors import Vectors

# One lock per model object, because transformers' tokenizers are not thread-safe. Encoders of one object share it.
_LOCKS: WeakKeyDictionary[Any, Lock] = WeakKeyDictionary()
_LOCKS_GUARD = Lock()


def _forget_locks() -> None:
    """Another thread of the parent process can have held them when it forked."""
    global _LOCKS, _LOCKS_GUARD
    _LOCKS, _LOCKS_GUARD = WeakKeyDictionary(), Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)


class SentenceTransformerEncoder:
    """Token vectors of a ``MultiVectorEncoder`` of sentence-transformers, equal to those that it computes itself.

    Models in sentence-transformers' own format, PyLate's and colbert-ai's load, and ColPali and its relatives. What the
    model's configuration says counts: prompts and markers, query expansion, document length, tokens without vectors,
    projection heads of any depth. A text within the model's length gets the vectors of ``encode_document`` or
    ``encode_query``, on the CPU in float32 bit by bit. Four things differ:

    - A document that is longer than the model's document length is encoded in overlapping windows, each with its own
      prompt and markers; the model would cut it. Each token's vector is taken from one window. Of the markers, those
      before the first window's text and those after the last one's are kept. Tokens beyond ``max_document_tokens`` are
      left out with a ``TruncatedTextWarning``.
    - The model cuts a query that is longer than its query length. A ``TruncatedTextWarning`` says so.
    - Vectors have unit length, whether or not the model normalizes them.
    - A text of which the model keeps no token, such as an empty one without markers, has the vectors of a space.

    If the vocabulary lacks a third of a text, an ``UnknownTextWarning`` says so, once for documents and once for
    queries.

    A folder is loaded without network access. Code that a model brings is run only with ``trust_remote_code=True``. A
    model that is not a late-interaction model is refused; sentence-transformers would give it a random projection.

    Encoding is thread-safe; calls of several threads wait for one another, and each uses all cores. In a forked process
    a model on the CPU works with one thread, and one on a GPU raises EncoderError. Encoders of a folder can be pickled:
    the copy loads the same folder again, and raises EncoderError if its content has changed.

    Args:
        model: the model's folder, or a ``MultiVectorEncoder`` object, which must not be changed afterwards; or, with
            ``allow_download=True``, the name of a model on the Hugging Face hub.
        device: "cpu", "cuda", "cuda:N" or another device of PyTorch; by default a GPU if there is one.
        backend: "torch", "onnx" or "openvino", which need further packages; see sentence-transformers' documentation.
        batch_size: number of texts, or windows of texts, that the model encodes together.
        dtype: "float32", "float16" or "bfloat16"; by default as the weights were saved. With half precision, vectors
            differ by about 1e-3 (float16) or 1e-2 (bfloat16).
        document_length: tokens of a document's window, prompt and markers included; by default the model's own.
        query_length: tokens of a query, prompt, markers and expansion included; by default the model's own.
        max_document_tokens: largest number of tokens of a document to encode.
        truncate_dim: keep the first so many dimensions of each vector, for models that were trained for it.
        allow_download: whether a name may be looked up and downloaded from the hub.
        trust_remote_code: whether Python code that the model brings may be run.
        revision: the version of a model on the hub.
        model_kwargs: further arguments for transformers' model class, such as ``attn_implementation``.

    Raises:
        MissingExtraError: sentence-transformers 6, or a package that the backend needs, is not installed.
        InvalidInputError: an argument is invalid, or cannot be used with a model object.
        EncoderError: the model cannot be loaded, is incomplete, or is not a late-interaction model.

    Example:
        >>> encoder = SentenceTransformerEncoder("GTE-ModernColBERT-v1")  # doctest: +SKIP
        >>> encoder.encode_queries(["who wrote Faust?"]).vectors.shape  # doctest: +SKIP
        (32, 128)
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | MultiVectorEncoder,
        *,
        device: str | None = None,
        backend: str = "torch",
        batch_size: int = 32,
        dtype: str | None = None,
        document_length: int | None = None,
        query_length: int | None = None,
        max_document_tokens: int = 16384,
        truncate_dim: int | None = None,
        allow_download: bool = False,
        trust_remote_code: bool = False,
        revision: str | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.batch_size = require_count("batch_size", batch_size)
        self.max_document_tokens = require_count("max_document_tokens", max_document_tokens)
        for name, value in (
            ("document_length", document_length),
            ("query_length", query_length),
            ("truncate_dim", truncate_dim),
        ):
            if value is not None:
                require_count(name, value)
        if backend not in BACKENDS:
            raise InvalidInputError(f"backend must be one of {', '.join(BACKENDS)}, got {shown(backend)}")
        if dtype is not None and dtype not in DTYPES:
            raise InvalidInputError(f"dtype must be one of {', '.join(DTYPES)}, got {shown(dtype)}")
        self._truncate_dim = truncate_dim
        self._source: ModelSource | None = None
        self._lengths = {"document_length": document_length, "query_length": query_length}
        self._dtype = dtype
        for name in ("dtype", "torch_dtype"):
            if name in (model_kwargs or {}):  # the fingerprint is of the weights as they are in the files
                raise InvalidInputError(f"model_kwargs must not have {name!r}: use the argument dtype")
        if isinstance(model, (str, os.PathLike)):
            folder = folder_of(model)
            if folder is not None and revision is not None:
                raise InvalidInputError(f"revision is for a model on the hub, but {folder} is a folder: leave it out")
            self._source = ModelSource(
                name=os.fspath(model) if folder is None else str(folder),
                is_folder=folder is not None,
                device=device,
                backend=backend,
                allow_download=allow_download,
                trust_remote_code=trust_remote_code,
                revision=revision,
                model_kwargs=dict(model_kwargs or {}),
            )
            self._load()
            return
        given = {
            "device": device,
            "backend": None if backend == "torch" else backend,
            "dtype": dtype,
            "allow_download": allow_download or None,
            "trust_remote_code": trust_remote_code or None,
            "revision": revision,
            "model_kwargs": model_kwargs,
            **self._lengths,
        }
        unusable = [name for name, value in given.items() if value is not None]
        if unusable:
            raise InvalidInputError(
                f"{', '.join(unusable)} can only be given with a model's folder: configure the model object instead"
            )
        self._use(_require_model(model))

    def __getstate__(self) -> dict[str, Any]:
        if self._source is None:
            raise EncoderError(
                "an encoder that was made of a model object cannot be pickled: save the model with "
                "model.save_pretrained(folder) and make the encoder of that folder"
            )
        names = ("batch_size", "max_document_tokens", "_truncate_dim", "_source", "_lengths", "_dtype", "_fingerprint")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._load()
        if self._fingerprint != state["_fingerprint"]:
            raise EncoderError(
                f"{state['_source'].name} no longer has the content that it had when the encoder was pickled: make a "
                "new encoder of it, or restore its files"
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> SentenceTransformerEncoder:
        # The model never changes, so that the copy can share it.
        return copy.copy(self)

    def __copy__(self) -> SentenceTransformerEncoder:
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    @property
    def dimension(self) -> int:
        """Width of a token vector."""
        return self._dimension

    @property
    def fingerprint(self) -> str:
        """Hash of the weights, the tokenizer and the settings.

        It does not depend on the folder's path, the device or the batch size, nor on ``dtype``.
        """
        return self._fingerprint

    @property
    def settings(self) -> dict[str, Any]:
        """The model by name and content, and the lengths and limits, as the constructor takes them."""
        return {
            "model": None if self._source is None else Path(self._source.name).name,
            "content": self._fingerprint,
            "document_length": self._documents.limit,
            "query_length": self._queries.limit,
            "max_document_tokens": self.max_document_tokens,
            "truncate_dim": self._truncate_dim,
        }

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Token vectors of passages, in order. Tokens on the model's skip-list, such as punctuation, have none.

        The vectors of a model on CUDA also stay there, for an index that is open on the same GPU. They take its memory
        as long as the result is in use.

        Raises:
            InvalidInputError: ``texts`` is not a sequence of valid strings.
            EncoderError: the model fails, or has no vector for a text.
        """
        pieces = self._documents.tokenizer.pieces(require_unicode_texts(texts), self.max_document_tokens)
        self._reports.documents(pieces, self.max_document_tokens)
        windows = [self._documents.windows(found) for found in pieces]
        whole = [i for i, found in enumerate(windows) if len(found) == 1 and self._documents.has_tokens(pieces[i])]
        stays = self._is_on_cuda and sum(len(found.ids) for found in pieces) <= MOST_ON_GPU
        vectors: dict[int, Vectors] = {}
        encoded = self._encode([pieces[i].text[: pieces[i].end] for i in whole], self._documents, stays=stays)
        vectors.update(zip(whole, encoded, strict=True))
        cut = [i for i, found in enumerate(windows) if len(found) > 1]
        parts = [pieces[i].text[window.start : window.stop] for i in cut for window in windows[i]]
        rows = iter(self._encode(parts, self._documents, stays=stays))
        for i in cut:
            vectors[i] = joined([self._kept(pieces[i].text, window, next(rows)) for window in windows[i]])
        return self._embeddings([vectors.get(i) for i in range(len(pieces))], self._documents, stays=stays)

    def encode_queries(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Token vectors of queries, in order, with those of the tokens by which the model expands queries.

        Raises:
            InvalidInputError: ``texts`` is not a sequence of valid strings.
            EncoderError: the model fails.
        """
        pieces = self._query_pieces(require_unicode_texts(texts))
        self._reports.queries(pieces, self._queries.room(self.max_document_tokens))
        given = [i for i, found in enumerate(pieces) if self._queries.has_tokens(found)]
        vectors: list[Vectors | None] = [None] * len(pieces)
        encoded = self._encode([self._queries.as_given(pieces[i]) for i in given], self._queries)
        for i, rows in zip(given, encoded, strict=True):
            vectors[i] = rows
        return self._embeddings(vectors, self._queries)

    def document_spans(self, text: str) -> IntArray:
        """Start and end character of each token of ``encode_documents([text])``, int64, shape (tokens, 2).

        Markers and prompt have start == end. So have all vectors of a model that merges tokens of documents.
        """
        pieces = self._documents.tokenizer.pieces(require_unicode_texts([text]), self.max_document_tokens)[0]
        if not self._documents.has_tokens(pieces):
            return self._spans_of_all(np.empty((0, 2), dtype=np.int64), self._documents)
        if not self._documents.has_known_rows:
            windows = self._documents.windows(pieces)
            parts = self._encode([pieces.text[window.start : window.stop] for window in windows], self._documents)
            return np.repeat([(w.start, w.start) for w in windows], [len(part) for part in parts], axis=0)
        spans = []
        for window in self._documents.windows(pieces):
            rows = self._rows(pieces.text[window.start : window.stop], self._documents)
            spans.append(rows.spans[rows.kept(window)] + window.start)
        return self._spans_of_all(np.concatenate(spans), self._documents)

    def query_spans(self, text: str) -> IntArray:
        """The same for ``encode_queries([text])``. A token that expands the query is at the end of the text."""
        pieces = self._query_pieces(require_unicode_texts([text]))[0]
        if not self._queries.has_tokens(pieces):
            return self._spans_of_all(np.empty((0, 2), dtype=np.int64), self._queries)
        given = self._queries.as_given(pieces)
        if not self._queries.has_known_rows:
            return np.zeros((len(self._encode([given], self._queries)[0]), 2), dtype=np.int64)
        return self._spans_of_all(self._rows(given, self._queries).spans, self._queries)

    @property
    def embeds_images(self) -> bool:
        """Whether ``encode_images`` works: whether the model takes images."""
        return embeds_images(self._model)

    def encode_images(self, images: Sequence[Image]) -> TokenEmbeddings:
        """Token vectors of images as documents, in order: those of ``encode_document``. Questions about them are text.

        The vectors of a model on CUDA also stay there; see ``encode_documents``.

        Args:
            images: images of Pillow, for instance one per page.

        Raises:
            InvalidInputError: the model takes no images, or ``images`` is not a sequence of Pillow's images.
            EncoderError: the model fails.
        """
        self._require_images()
        given = require_images(images)
        stays = self._is_on_cuda and len(given) <= MOST_IMAGES_ON_GPU
        vectors = self._call(self._model.encode_document, given, stays=stays) if given else []
        return as_embeddings([finished(rows, self._dimension) for rows in vectors], self._dimension)

    def image_patches(self, width: int, height: int) -> IntArray:
        """Where the tokens of an image are in it.

        The patches make a grid that covers the image. A model that sees an image in tiles and once as a whole, such as
        ColModernVBERT, has tokens for parts of the whole, too. They have the place of the middle of their part.

        Args:
            width: width of the image in pixels.
            height: its height.

        Returns:
            int64, shape (tokens, 2): row and column, from 0, of the patch of each token of ``encode_images`` of an
            image of that size; (-1, -1) for a token of the text that the model puts around images.

        Raises:
            InvalidInputError: the model takes no images.
            EncoderError: the model merges tokens, or the grid of its image processor is not known.
        """
        self._require_images()
        size = require_count("width", width), require_count("height", height)
        if not self._documents.has_known_rows:
            raise EncoderError("this model merges tokens of documents, so the places of its vectors are not known")
        if size not in self._patches:
            with _lock_of(self._model):
                self._patches[size] = patches_of(self._model, self._documents, *size)
        return self._patches[size].copy()

    def _require_images(self) -> None:
        if not self.embeds_images:
            raise InvalidInputError(
                "this model does not embed images: use a model with vision, such as ColPali or ColQwen2"
            )

    def _load(self) -> None:
        assert self._source is not None
        model = load_model(self._source)
        tasks: tuple[Task, Task] = ("document", "query")
        for task in tasks:
            length = self._lengths[f"{task}_length"]
            if length is not None:
                set_length(model, task, length)
        folder = Path(self._source.name) if self._source.is_folder else None
        self._use(model, folder)
        if self._dtype is not None:
            import torch

            if self._source.backend != "torch":
                raise InvalidInputError(f"dtype can only be given with the backend torch, got {self._source.backend}")
            # Only now: the fingerprint is of the weights as they are in the files.
            model.to(getattr(torch, self._dtype))

    def _use(self, model: Any, folder: Path | None = None) -> None:
        allow_forks()
        self._model = model
        self._patches: dict[tuple[int, int], IntArray] = {}
        self._documents = TextInputs(model, "document")
        self._queries = TextInputs(model, "query", self._documents)
        self._reports = TextReports(
            "Split it into passages, or raise max_document_tokens",
            "Shorten it, or raise query_length, if the model was trained for that",
            unknown_matches="takes them all for the same unknown word",
        )
        model_dimension = int(self._run(["a"], self._queries)[0].shape[1])
        if self._truncate_dim is not None and self._truncate_dim > model_dimension:
            raise InvalidInputError(
                f"truncate_dim must be at most {model_dimension}, the dimensions of this model, "
                f"got {self._truncate_dim}"
            )
        self._dimension = self._truncate_dim or model_dimension
        settings = {
            "truncate_dim": self._truncate_dim,
            "limits": [self._documents.limit, self._queries.limit],
            "windows": [TEXT_WINDOWS_VERSION, OVERLAP_SHARE],
        }
        self._fingerprint = content_hash(model, folder, settings)

    def _query_pieces(self, texts: Sequence[str]) -> list[Wordpieces]:
        found = self._queries.tokenizer.pieces(texts, self._queries.room(self.max_document_tokens))
        return [self._queries.as_cut(pieces) for pieces in found]

    @property
    def _is_on_cuda(self) -> bool:
        backend = "torch" if self._source is None else self._source.backend
        return backend == "torch" and self._model.device.type == "cuda"

    def _encode(self, texts: Sequence[str], inputs: TextInputs, *, stays: bool = False) -> list[Vectors]:
        """The unit-length vectors of each text, float32, shape (tokens, dimension).

        Args:
            texts: the texts.
            inputs: their task.
            stays: give tensors, which stay on the model's device.
        """
        return [finished(found, self._dimension) for found in self._run(texts, inputs, stays=stays)] if texts else []

    def _run(self, texts: Sequence[str], inputs: TextInputs, *, stays: bool = False) -> list[Vectors]:
        encode = self._model.encode_query if inputs.task == "query" else self._model.encode_document
        return self._call(encode, [inputs.model_input(text) for text in texts], stays=stays)

    def _call(self, encode: Any, items: list[Any], *, stays: bool = False) -> list[Vectors]:
        try:
            with _lock_of(self._model):
                vectors: list[Vectors] = encode(
                    items, batch_size=self.batch_size, show_progress_bar=False, convert_to_numpy=not stays
                )
        except Exception as error:  # the model's own code can raise anything, such as a lack of memory on the GPU
            raise EncoderError(f"the model failed to encode: {type(error).__name__}: {error}") from error
        return vectors

    def _rows(self, text: str, inputs: TextInputs) -> Rows:
        with _lock_of(self._model):
            return inputs.rows(text)

    def _kept(self, text: str, window: TextWindow, vectors: Vectors) -> Vectors:
        if not self._documents.has_known_rows:
            return vectors
        rows = self._rows(text[window.start : window.stop], self._documents)
        if len(rows.spans) != len(vectors):
            raise EncoderError(
                f"the model gave {len(vectors)} vectors for {len(rows.spans)} tokens, so a text longer than "
                f"{self._documents.limit} tokens cannot be put together: split such texts into passages"
            )
        return vectors[rows.kept(window)]

    def _embeddings(
        self, vectors: Sequence[Vectors | None], inputs: TextInputs, *, stays: bool = False
    ) -> TokenEmbeddings:
        found = [
            self._in_place_of_none(inputs, stays=stays) if rows is None or not len(rows) else rows for rows in vectors
        ]
        return as_embeddings(found, self._dimension)

    def _spans_of_all(self, spans: IntArray, inputs: TextInputs) -> IntArray:
        return spans if len(spans) else np.zeros((len(self._in_place_of_none(inputs)), 2), dtype=np.int64)

    def _in_place_of_none(self, inputs: TextInputs, *, stays: bool = False) -> Vectors:
        """The vectors of a space, for a text of which the model keeps no token."""
        vectors = self._encode([" "], inputs, stays=stays)[0]
        if not len(vectors):
            raise EncoderError(
                f"the model gives no vector for a {inputs.task}: its MultiVectorMask leaves out every token. A model "
                "that keeps only the patches of images has no vectors of text"
            )
        return vectors


def set_length(model: Any, task: Task, length: int) -> None:
    """Set the document or query length of a model. Raises InvalidInputError if the model cannot have it."""
    transformer = transformer_of(model, task)
    longest = positions_of(transformer)
    if longest is not None and length > longest:
        raise InvalidInputError(f"{task}_length must be at most {longest}, the positions of this model, got {length}")
    expansion = transformer.query_expansion
    if task == "document":
        transformer.document_length = length
    elif expansion is None:
        transformer.query_length = length
    elif expansion["strategy"] == "fixed":
        transformer.query_length = None
        transformer.query_expansion = {**expansion, "length": length}
    elif length < expansion["length"]:
        raise InvalidInputError(
            f"query_length must be at least {expansion['length']}, to which this model expands queries, got {length}"
        )
    else:
        transformer.query_length = length


def _require_model(model: object) -> Any:
    encoder_class = require_sentence_transformers()
    if not isinstance(model, encoder_class):
        raise InvalidInputError(
            "model must be the path of a folder or a MultiVectorEncoder of sentence-transformers, got "
            f"{type(model).__module__}.{type(model).__qualname__}"
        )
    return model


def _lock_of(model: Any) -> Lock:
    with _LOCKS_GUARD:
        return _LOCKS.setdefault(model, Lock())
