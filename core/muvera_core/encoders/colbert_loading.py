"""Loads a checked folder with colbert-ai: quietly, offline, and without the C++ extension that it compiles."""

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

from muvera_core.encoders.colbert_checkpoint import CheckpointFolder
from muvera_core.errors import EncoderError, InvalidInputError, MissingExtraError
from muvera_core.validation import shown

if TYPE_CHECKING:
    import torch

_INSTALL = "pip install 'muvera-core[colbert]'"
# Loading changes things that the whole process shares: warning filters, stdout and a class attribute.
_LOADING = threading.Lock()


def require_colbert() -> None:
    """Import colbert-ai.

    Raises:
        MissingExtraError: it, transformers or torch isn't installed or can't be imported.
        EncoderError: transformers is too new for colbert-ai.
    """
    try:
        version = metadata.version("transformers")
        # colbert-ai 0.2.22 lacks what transformers 5 expects of a model class (all_tied_weights_keys).
        if int(version.split(".")[0]) >= 5:
            raise EncoderError(
                f"colbert-ai doesn't work with transformers {version}: it needs transformers>=4.57,<5. Run {_INSTALL}, "
                "in an environment of its own if something else here needs transformers 5"
            )
        with _LOADING, _quiet():
            import colbert.modeling.checkpoint  # noqa: F401
    except ImportError as error:  # PackageNotFoundError is one, too
        raise MissingExtraError(
            f"ColBERTEncoder needs colbert-ai with transformers and torch: {_INSTALL} "
            f"(importing them failed: {type(error).__name__}: {error})"
        ) from error


def resolve_device(device: str | None) -> torch.device:
    """The device asked for, or CUDA where there is one. Raises InvalidInputError for one that can't be used."""
    import torch

    try:
        wanted = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, TypeError) as error:
        raise InvalidInputError(f"device must be 'cpu', 'cuda' or 'cuda:N', got {shown(device)}") from error
    if wanted.type not in ("cpu", "cuda"):
        raise InvalidInputError(f"device must be 'cpu', 'cuda' or 'cuda:N': colbert-ai knows no {wanted.type!r}")
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise InvalidInputError(
            f"device {device!r} was asked for, but torch {torch.__version__} sees {torch.cuda.device_count()} CUDA "
            "devices; leave device out to use what there is"
        )
    return wanted


def load_checkpoint(folder: CheckpointFolder, device: torch.device, lengths: Mapping[str, int]) -> Any:
    """A colbert-ai ``Checkpoint`` on ``device``, whose every weight came from the folder.

    Args:
        folder: a folder that passed ``inspect_checkpoint``.
        device: CPU or CUDA.
        lengths: doc_maxlen and query_maxlen, where they shall differ from the folder's.

    Raises:
        EncoderError: colbert-ai can't load the folder, or would draw missing weights at random.
    """
    import torch
    from colbert.infra.config import ColBERTConfig
    from colbert.modeling.checkpoint import Checkpoint
    from colbert.modeling.hf_colbert import class_factory

    path = str(folder.path)
    try:
        with _LOADING, _quiet(), _without_extension():
            # colbert-ai swallows an error of this call and turns to bert-base-uncased from the hub instead.
            class_factory(path)
            # The settings may name the model they were trained from, which would be looked up on the hub.
            config = ColBERTConfig(checkpoint=path, model_name=path, **lengths)
            if folder.settings_file is not None:
                own, _ = ColBERTConfig.from_path(str(folder.settings_file))
                config = ColBERTConfig.from_existing(own, config)
            checkpoint: Any = Checkpoint(path, colbert_config=config, verbose=0)
    except Exception as error:  # colbert-ai and transformers raise every kind
        raise EncoderError(f"colbert-ai can't load {path}: {type(error).__name__}: {error}") from error
    # transformers draws weights that it doesn't find. The pooler is no part of a token's vector.
    needed = (name for name in checkpoint.model.state_dict() if ".pooler." not in name)
    drawn = [name for name in needed if name not in folder.weight_names]
    if drawn:
        raise EncoderError(
            f"{folder.weights} lacks {len(drawn)} of the tensors that the model needs, such as {drawn[0]}: "
            "it isn't a ColBERT checkpoint as colbert-ai saves it"
        )
    _prepare_tokenizer(checkpoint.raw_tokenizer, path)
    if not hasattr(checkpoint, "skiplist"):  # colbert-ai sets it only where mask_punctuation is on, and reads it always
        checkpoint.skiplist = {}
    on_cuda = device.type == "cuda"
    # colbert-ai always picks CUDA where there is one, and halves documents then.
    checkpoint.model.to(device)
    checkpoint.use_gpu = on_cuda
    # The same autocast as colbert-ai's, which warns at each call that its spelling is deprecated or CUDA missing.
    autocast = (lambda: torch.autocast("cuda")) if on_cuda else contextlib.nullcontext
    checkpoint.amp_manager = SimpleNamespace(context=autocast)
    return checkpoint


def position_limit(checkpoint: Any) -> int:
    """How many tokens, markers included, the model can take at once."""
    limit = int(checkpoint.bert.config.max_position_embeddings)
    table = getattr(checkpoint.bert.embeddings, "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    # RoBERTa and its kin count positions from behind the padding's.
    return limit if padding is None else limit - padding - 1


def _prepare_tokenizer(tokenizer: Any, path: str) -> None:
    """Switch truncation and padding off, and check that the tokenizer frames a text as colbert-ai supposes."""
    if not getattr(tokenizer, "is_fast", False):
        raise EncoderError(f"{path} has no fast tokenizer, which spans need: save one as tokenizer.json beside it")
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
    """Keep what colbert-ai and its dependencies tell their own authors from users who turn warnings into errors."""
    # GitPython, which colbert-ai imports, refuses to be imported where there is no git program.
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
    """Let colbert-ai believe that its C++ extension is loaded.

    On a CPU it compiles one at load, which needs a compiler and half a minute; only its own search uses it. The
    mark is taken away again, so that such a search in the same process still compiles what it needs.
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
