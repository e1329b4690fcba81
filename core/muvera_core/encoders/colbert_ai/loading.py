"""Loads a checked folder with colbert-ai: quietly, offline, and without compiling colbert-ai's C++ extension."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from importlib import metadata
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from muvera_core.encoders.colbert_ai.checkpoint import CheckpointFolder
from muvera_core.errors import EncoderError, InvalidInputError, MissingExtraError
from muvera_core.validation import shown

if TYPE_CHECKING:
    import torch

_INSTALL = "pip install 'muvera-core[colbert]'"
# Loading changes state of the whole process: warning filters, stdout and a class attribute.
_LOADING = threading.Lock()


def require_colbert() -> None:
    """Import colbert-ai.

    Raises:
        MissingExtraError: colbert-ai, transformers or torch is not installed or cannot be imported.
        EncoderError: transformers is too new for colbert-ai.
    """
    try:
        version = metadata.version("transformers")
        # colbert-ai 0.2.22 lacks what transformers 5 expects of a model class (all_tied_weights_keys).
        if int(version.split(".")[0]) >= 5:
            raise EncoderError(
                f"colbert-ai does not work with transformers {version}: it needs transformers>=4.57,<5. "
                f"Run {_INSTALL}, in a separate environment if another package needs transformers 5"
            )
        with _LOADING, _quiet():
            import colbert.modeling.checkpoint  # noqa: F401
    except ImportError as error:  # includes PackageNotFoundError
        raise MissingExtraError(
            f"ColBERTEncoder needs colbert-ai with transformers and torch: {_INSTALL} "
            f"(importing them failed: {type(error).__name__}: {error})"
        ) from error


def resolve_device(device: str | None) -> torch.device:
    """The given device; by default CUDA if it is available. Raises InvalidInputError if the device cannot be used."""
    import torch

    try:
        wanted = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, TypeError) as error:
        raise InvalidInputError(f"device must be 'cpu', 'cuda' or 'cuda:N', got {shown(device)}") from error
    if wanted.type not in ("cpu", "cuda"):
        raise InvalidInputError(f"device must be 'cpu', 'cuda' or 'cuda:N', got {shown(device)}")
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise InvalidInputError(
            f"device {device!r} is not available: torch {torch.__version__} finds {torch.cuda.device_count()} CUDA "
            "device(s). Leave device out to use the default"
        )
    return wanted


def load_checkpoint(folder: CheckpointFolder, device: torch.device, lengths: Mapping[str, int]) -> Any:
    """Load a colbert-ai ``Checkpoint`` onto ``device``, with every weight from the folder.

    Args:
        folder: a folder that passed ``inspect_checkpoint``.
        device: CPU or CUDA.
        lengths: doc_maxlen and query_maxlen, if they are to differ from the folder's.

    Raises:
        EncoderError: colbert-ai cannot load the folder, or weights are missing.
    """
    import torch
    from colbert.infra.config import ColBERTConfig
    from colbert.modeling.checkpoint import Checkpoint
    from colbert.modeling.hf_colbert import class_factory

    path = str(folder.path)
    try:
        with _LOADING, _quiet(), _without_extension():
            # Raise the error of this call here: colbert-ai would ignore it and load bert-base-uncased from the hub.
            class_factory(path)
            # The settings may name the base model of the training, which colbert-ai would look up on the hub.
            config = ColBERTConfig(checkpoint=path, model_name=path, **lengths)
            if folder.settings_file is not None:
                own, _ = ColBERTConfig.from_path(str(folder.settings_file))
                config = ColBERTConfig.from_existing(own, config)
            checkpoint: Any = Checkpoint(path, colbert_config=config, verbose=0)
    except Exception as error:  # colbert-ai and transformers raise errors of many types
        raise EncoderError(f"colbert-ai cannot load {path}: {type(error).__name__}: {error}") from error
    # transformers draws missing weights at random. The pooler does not affect token vectors.
    needed = (name for name in checkpoint.model.state_dict() if ".pooler." not in name)
    missing = [name for name in needed if name not in folder.weight_names]
    if missing:
        raise EncoderError(
            f"{folder.weights} lacks {len(missing)} of the tensors that the model needs, such as {missing[0]}: "
            "use a ColBERT checkpoint that colbert-ai saved"
        )
    _prepare_tokenizer(checkpoint.raw_tokenizer, path)
    if not hasattr(checkpoint, "skiplist"):  # colbert-ai always reads it, but sets it only if mask_punctuation is on
        checkpoint.skiplist = {}
    on_cuda = device.type == "cuda"
    # colbert-ai uses CUDA whenever it is available, and then returns documents in half precision.
    checkpoint.model.to(device)
    checkpoint.use_gpu = on_cuda
    # The same autocast as colbert-ai's, which warns at each call that its API is deprecated or that CUDA is missing.
    autocast = (lambda: torch.autocast("cuda")) if on_cuda else contextlib.nullcontext
    checkpoint.amp_manager = SimpleNamespace(context=autocast)
    return checkpoint


def position_limit(checkpoint: Any) -> int:
    """The number of tokens, markers included, that the model can encode at once."""
    limit = int(checkpoint.bert.config.max_position_embeddings)
    table = getattr(checkpoint.bert.embeddings, "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    # RoBERTa and related models count positions from the one after the padding's.
    return limit if padding is None else limit - padding - 1


def _prepare_tokenizer(tokenizer: Any, path: str) -> None:
    """Switch off truncation and padding. Check that the tokenizer adds the markers that colbert-ai expects."""
    if not getattr(tokenizer, "is_fast", False):
        raise EncoderError(f"{path} has no fast tokenizer, which spans need: save one there as tokenizer.json")
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    frame = tokenizer.backend_tokenizer.encode("").ids
    special = {name: getattr(tokenizer, f"{name}_token_id") for name in ("cls", "sep", "mask", "pad")}
    if None in special.values() or frame != [special["cls"], special["sep"]]:
        raise EncoderError(
            f"the tokenizer of {path} must put [CLS] before and [SEP] after a text and have [MASK] and [PAD]; "
            f"got the ids {special}, and {frame} for an empty text"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the output and the deprecation warnings of colbert-ai, since users may turn warnings into errors."""
    # colbert-ai imports GitPython, which cannot be imported without the git program.
    unset = "GIT_PYTHON_REFRESH" not in os.environ
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
                warnings.simplefilter("ignore", category)
            warnings.filterwarnings("ignore", r"torch\.cuda\.amp\.GradScaler is enabled", UserWarning)
            yield
    finally:
        if unset:
            del os.environ["GIT_PYTHON_REFRESH"]


@contextlib.contextmanager
def _without_extension() -> Iterator[None]:
    """Make colbert-ai believe that its C++ extension is loaded.

    On a CPU, loading compiles the extension, which needs a compiler and half a minute; only colbert-ai's own search
    uses it. The attribute is removed afterwards, so that such a search in the same process still compiles it.
    """
    from colbert.modeling.colbert import ColBERT

    if hasattr(ColBERT, "loaded_extensions"):
        yield
        return
    ColBERT.loaded_extensions = True
    try:
        yield
    finally:
        del ColBERT.loaded_extensions
