"""Loads a ``MultiVectorEncoder`` from a folder: quietly, offline unless asked otherwise, and only if it is trained."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from muvera_core.encoders.hub_code import refuse_hub_kernels
from muvera_core.encoders.json_files import read_json
from muvera_core.encoders.sentence_transformer.folders import (
    COLBERT_AI,
    MODULES,
    SETTINGS,
    architectures,
    is_retriever,
)
from muvera_core.errors import EncoderError, InvalidInputError, MissingExtraError
from muvera_core.validation import require_path, shown

BACKENDS = ("torch", "onnx", "openvino")
DTYPES = ("float32", "float16", "bfloat16")
_INSTALL = "pip install 'muvera-core[sentence-transformers]'"
# What the ONNX and OpenVINO backends of sentence-transformers import.
_BACKEND_PACKAGES = {"onnx": ("optimum.onnxruntime", "optimum-onnx"), "openvino": ("optimum.intel", "optimum-intel")}
# Types of modules that sentence-transformers maps to its own.
_ALIASES = ("pylate.models.Dense.Dense",)
# Values of model_type in that file: sentence-transformers' own, and PyLate's.
_MODEL_TYPES = ("MultiVectorEncoder", "ColBERT")
# Settings that only PyLate writes there.
_PYLATE_SETTINGS = ("query_prefix", "document_prefix", "attend_to_expansion_tokens", "do_query_expansion")
# Loading changes state of the whole process: progress bars, log levels and a method of transformers.
_LOADING = threading.Lock()


@dataclass(frozen=True)
class ModelSource:
    """Where a model is loaded from, and how. The arguments are those of ``SentenceTransformerEncoder``."""

    name: str
    is_folder: bool
    device: str | None
    backend: str
    allow_download: bool
    trust_remote_code: bool
    revision: str | None
    model_kwargs: Mapping[str, Any]


def require_sentence_transformers() -> Any:
    """The class ``MultiVectorEncoder``.

    Raises:
        MissingExtraError: sentence-transformers is not installed, too old, or cannot be imported.
    """
    try:
        version = metadata.version("sentence-transformers")
        if int(version.split(".")[0]) < 6:
            raise MissingExtraError(
                f"SentenceTransformerEncoder needs sentence-transformers 6 or newer, got {version}: {_INSTALL}, in a "
                "separate environment if colbert-ai is installed, because it needs an older transformers"
            )
        with _LOADING, _quiet_warnings():
            from sentence_transformers import MultiVectorEncoder
    except ImportError as error:  # includes PackageNotFoundError
        if isinstance(error, MissingExtraError):
            raise
        raise MissingExtraError(
            f"SentenceTransformerEncoder needs sentence-transformers: {_INSTALL} "
            f"(importing it failed: {type(error).__name__}: {error})"
        ) from error
    return MultiVectorEncoder


def load_model(source: ModelSource) -> Any:
    """The model, with every weight from its files.

    Raises:
        EncoderError: it is no late-interaction model, it is incomplete, or it needs code or files from elsewhere.
        InvalidInputError: the device cannot be used.
        MissingExtraError: a package of the backend is not installed.
    """
    encoder_class = require_sentence_transformers()
    _require_backend(source.backend)
    _require_device(source.device)
    if not source.is_folder and not source.allow_download:
        raise EncoderError(
            f"{source.name!r} is not a folder. SentenceTransformerEncoder loads models from folders: fetch the model "
            "first, e.g. hf download lightonai/GTE-ModernColBERT-v1 --local-dir model, and pass that folder, or pass "
            "allow_download=True to let sentence-transformers download it by its name"
        )
    missing: dict[str, set[str]] = {}
    try:
        inspect_model(source)
        with _LOADING, _quiet(), _collecting_missing_weights(missing):
            model = encoder_class(
                source.name,
                device=source.device,
                backend=source.backend,
                local_files_only=not source.allow_download,
                trust_remote_code=source.trust_remote_code,
                revision=source.revision,
                model_kwargs=dict(source.model_kwargs),
            )
    except EncoderError:
        raise
    except Exception as error:  # sentence-transformers, transformers and torch raise errors of many types
        remedy = "" if source.trust_remote_code else _remedy_for_code(str(error))
        raise EncoderError(
            f"sentence-transformers cannot load {source.name}: {type(error).__name__}: {error}{remedy}"
        ) from error
    _require_complete(source.name, missing)
    return model


def folder_of(model: str | os.PathLike[str]) -> Path | None:
    """The absolute path of a model's folder; None if there is no such folder.

    Raises:
        InvalidInputError: ``model`` cannot be a path.
    """
    require_path("model", model)
    try:
        path = Path(model).expanduser().resolve()
    except (OSError, RuntimeError):  # a cycle of links, or ~ without a home folder
        return None
    return path if path.is_dir() else None


class ModelFiles:
    """The small files of a model, in a folder or on the hub. A file on the hub is downloaded when it is read."""

    def __init__(self, source: ModelSource) -> None:
        self._source = source

    def path(self, name: str) -> Path | None:
        """Where the file is on this machine; None if the model has no such file."""
        if self._source.is_folder:
            path = Path(self._source.name) / name
            return path if path.is_file() else None
        from sentence_transformers.util import load_file_path

        found = load_file_path(self._source.name, name, revision=self._source.revision)
        return None if found is None else Path(found)

    def read(self, name: str, kind: type = dict) -> Any:
        """The content of a JSON file; an empty one if there is no such file. Raises EncoderError for another kind."""
        path = self.path(name)
        return kind() if path is None else read_json(path, "a part of the model's configuration", kind)


def inspect_model(source: ModelSource) -> None:
    """Check that this is a trained late-interaction model that can be loaded without code of its own.

    sentence-transformers would add a random projection to any other model, with a line in the log.

    Raises:
        EncoderError: it is not.
    """
    files = ModelFiles(source)
    names = architectures(files.read("config.json"))
    if not source.trust_remote_code:
        _refuse_code(source.name, files)
    if files.path(MODULES) is None:
        if files.path("config.json") is None:
            cause = "" if source.is_folder else ", or the hub does not have it, or cannot be reached"
            raise EncoderError(
                f"{source.name} has neither {MODULES} nor config.json: it is not a model's folder{cause}"
            )
        # colbert-ai's checkpoints, and retrievers that transformers has itself, such as ColPali.
        if not any(name == COLBERT_AI or is_retriever(name) for name in names):
            raise EncoderError(
                f"{source.name} is not a late-interaction model: it has no {MODULES}, and its config.json names no "
                f"such architecture, got {names or 'none'}. sentence-transformers would give it a random "
                "projection. Use a MultiVectorEncoder, a PyLate model or a ColBERT checkpoint, or train this one first"
            )
        return
    settings = files.read(SETTINGS)
    otherwise = _MODEL_TYPES[0] if COLBERT_AI in names else "SentenceTransformer"
    kind = settings.get("model_type") or otherwise
    if kind not in _MODEL_TYPES and not _is_early_pylate(kind, settings, files):
        raise EncoderError(
            f"{source.name} is a {kind} model, which has one vector per text or a score, not one vector per token. "
            "Use a MultiVectorEncoder or a PyLate model. sentence-transformers can turn this one into such a model, "
            "which must then be trained and saved"
        )
    if not source.trust_remote_code:
        for module in files.read(MODULES, list):
            _refuse_foreign_module(source.name, files, module)


def _is_early_pylate(kind: str, settings: Mapping[str, Any], files: ModelFiles) -> bool:
    """Whether PyLate saved a model before it named its type. Such a model has a projection, and PyLate's settings."""
    modules = files.read(MODULES, list)
    has_projection = any(str(module.get("type")).endswith(".Dense") for module in modules if isinstance(module, dict))
    return kind == "SentenceTransformer" and has_projection and any(name in settings for name in _PYLATE_SETTINGS)


def _refuse_foreign_module(name: str, files: ModelFiles, module: Any) -> None:
    kind = module.get("type") if isinstance(module, dict) else None
    if not isinstance(kind, str):
        raise EncoderError(f"{MODULES} of {name} must name the type of each module: download the model again")
    if not kind.startswith("sentence_transformers.") and kind not in _ALIASES:
        raise EncoderError(
            f"{name} has a module of the type {kind}, which is not a part of sentence-transformers, so loading it "
            "would run other code. Pass trust_remote_code=True if you trust that code"
        )
    folder = str(module.get("path", ""))
    if ".." in Path(folder).parts or Path(folder).is_absolute():
        raise EncoderError(f"{MODULES} of {name} names a folder outside of the model, {folder!r}: correct that file")
    if kind.endswith(".Dense"):
        activation = str(files.read(f"{folder}/config.json".lstrip("/")).get("activation_function", "torch."))
        if not activation.startswith("torch."):  # sentence-transformers would use Tanh instead
            raise EncoderError(
                f"{name} has the activation function {activation}, which is not a part of torch. Pass "
                "trust_remote_code=True if you trust that code"
            )


def _refuse_code(name: str, files: ModelFiles) -> None:
    config = files.read("config.json")
    for file in ("config.json", "tokenizer_config.json"):
        if files.read(file).get("auto_map") is not None and not _is_known_architecture(config):
            raise EncoderError(
                f"{file} of {name} has an auto_map: the model brings its own Python code. Pass trust_remote_code=True "
                "if you trust that code"
            )
    refuse_hub_kernels(config, f"config.json of {name}")


def _is_known_architecture(config: Mapping[str, Any]) -> bool:
    """Whether transformers has the model's class itself and so does not need the code that an auto_map names."""
    from transformers import CONFIG_MAPPING

    return config.get("model_type") in CONFIG_MAPPING


def _require_backend(backend: str) -> None:
    if backend not in _BACKEND_PACKAGES:
        return
    module, package = _BACKEND_PACKAGES[backend]
    try:
        __import__(module)
    except ImportError as error:
        raise MissingExtraError(
            f"backend {backend!r} needs {package}, in a version that works with the installed transformers: "
            f"pip install {package} (importing {module} failed: {error}). OnnxEncoder runs ONNX models without it"
        ) from error


def _require_device(device: str | None) -> None:
    if device is None:
        return
    import torch

    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InvalidInputError(f"device must be 'cpu', 'cuda', 'cuda:N' or 'mps', got {shown(device)}") from error
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise InvalidInputError(
            f"device {device!r} is not available: torch {torch.__version__} finds {torch.cuda.device_count()} CUDA "
            "device(s). Leave device out to use the default"
        )


def _remedy_for_code(message: str) -> str:
    if "trust_remote_code" not in message:
        return ""
    return ". SentenceTransformerEncoder takes trust_remote_code=True, which runs the model's own code"


def _require_complete(name: str, missing: Mapping[str, set[str]]) -> None:
    # The pooler of a text model makes one vector of all tokens. No token vector depends on it.
    needed = sorted(key for keys in missing.values() for key in keys if not key.startswith("pooler."))
    if needed:
        raise EncoderError(
            f"the files of {name} lack {len(needed)} of the tensors that the model needs, such as {needed[0]}, and "
            "transformers would draw them at random: download the model again"
        )


@contextlib.contextmanager
def _collecting_missing_weights(missing: dict[str, set[str]]) -> Iterator[None]:
    """Note which weights transformers did not find in the files. By default it only logs them."""
    from transformers import PreTrainedModel

    original = PreTrainedModel.__dict__["from_pretrained"]

    def from_pretrained(cls: type, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("output_loading_info"):
            return original.__get__(None, cls)(*args, **kwargs)
        model, info = original.__get__(None, cls)(*args, output_loading_info=True, **kwargs)
        missing.setdefault(cls.__name__, set()).update(info["missing_keys"])
        return model

    PreTrainedModel.from_pretrained = classmethod(from_pretrained)
    try:
        yield
    finally:
        PreTrainedModel.from_pretrained = original


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress progress bars, deprecation warnings, and what transformers logs about a model's files."""
    from transformers.utils import logging as transformers_logging

    def is_error(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR

    had_bars = transformers_logging.is_progress_bar_enabled()
    # The first reports missing weights, which are errors here; the second, that it reads PyLate's early format.
    loggers = [logging.getLogger(name) for name in ("transformers.modeling_utils", "sentence_transformers.base.model")]
    transformers_logging.disable_progress_bar()
    for logger in loggers:
        logger.addFilter(is_error)  # not a higher level, at which transformers would log more
    try:
        with _quiet_warnings():
            yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_error)
        if had_bars:
            transformers_logging.enable_progress_bar()


@contextlib.contextmanager
def _quiet_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        yield
