"""Exports late-interaction models of sentence-transformers and PyLate to ONNX, and checks the vectors."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from muvera_core.encoders.onnx.config import (
    TOKENIZER_FILE,
    OnnxConfig,
    TaskConfig,
    file_entry,
    write_config,
)
from muvera_core.encoders.onnx.encoder import OnnxEncoder
from muvera_core.encoders.sentence_transformer.encoder import SentenceTransformerEncoder
from muvera_core.encoders.sentence_transformer.inputs import TextInputs, positions_of
from muvera_core.encoders.sentence_transformer.loading import (
    ModelSource,
    folder_of,
    load_model,
    require_sentence_transformers,
)
from muvera_core.encoders.text.layout import Expansion
from muvera_core.encoders.text.naming import unreported
from muvera_core.errors import EncoderError, InvalidInputError, MissingExtraError
from muvera_core.token_embeddings import TokenEmbeddings
from muvera_core.validation import require_path

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder

# The opset that onnxruntime 1.20 and next-plaid read, and that torch's exporter has all operators for.
_OPSET = 17
# Float models whose vectors differ by more are no copies of the original.
_LARGEST_DIFFERENCE = 1e-3
# The mean cosine of an 8-bit model's vectors with the original's. Models lose little; a broken export loses all.
_LOWEST_COSINE = 0.9
_WINDOWED_TOKENS = 1024  # texts in windows are checked up to this document length
_SAMPLES = (
    "An owl hunts at night, and sleeps by day.",
    "what is a colony of ants?",
    "",
    "?! ... (a-b)",
    "naïve café, ﬁnal e\u0301lan — 東京の天気 🦉 שלום",
    "the [SEP], [CLS], [MASK], </s> and <pad> markers",
    "The heron stands still in shallow water until a fish comes near. " * 8,
)
_LONG = "Ants live in colonies of many thousands, in which each has its work; owls live alone. "


@dataclass(frozen=True)
class ExportReport:
    """What was exported.

    Attributes:
        folder: the folder, for ``OnnxEncoder``.
        model_file: the model in it.
        n_bytes: size of all files.
        n_vectors: number of token vectors of sample texts that were compared with the original's.
        largest_difference: largest difference of a component of these.
        lowest_cosine: smallest cosine of two of these.
        fingerprint: of ``OnnxEncoder``.
        is_original: whether it is the fingerprint of ``SentenceTransformerEncoder`` with the same model.
    """

    folder: Path
    model_file: str
    n_bytes: int
    n_vectors: int
    largest_difference: float
    lowest_cosine: float
    fingerprint: str
    is_original: bool


def export_onnx(
    model: str | os.PathLike[str] | MultiVectorEncoder,
    folder: str | os.PathLike[str],
    *,
    int8: bool = False,
    allow_download: bool = False,
    trust_remote_code: bool = False,
    revision: str | None = None,
) -> ExportReport:
    """Make a folder for ``OnnxEncoder`` from a late-interaction model of sentence-transformers or PyLate.

    The folder gets the model with its head, the tokenizer, and the settings: prompts, lengths, expansion, words without
    vectors. The vectors of sample texts are compared with those of the original. If they are not equal, an error is
    raised and nothing is left behind.

    Args:
        model: the model's folder, a loaded ``MultiVectorEncoder`` on the CPU in float32, or, with
            ``allow_download=True``, the name of a model on the hub.
        folder: a folder that does not exist yet, or is empty.
        int8: whether weights are rounded to 7 bits, per channel, and computed with 8-bit activations. The model is then
            a quarter of the size and about twice as fast, and has a fingerprint of its own. 7 bits, because products of
            8 bits overflow on some processors.
        allow_download: whether a name may be looked up and downloaded from the hub.
        trust_remote_code: whether Python code that the model brings may be run.
        revision: the version of a model on the hub.

    Raises:
        MissingExtraError: sentence-transformers, or, for ``int8``, onnx is not installed.
        InvalidInputError: the folder is in use, or the model object is not on the CPU in float32.
        EncoderError: the model cannot be loaded or exported, or the exported one has other vectors.
    """
    require_sentence_transformers()
    if int8:
        _require_onnx()
    target = require_path("folder", folder).resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InvalidInputError(f"{target} exists and is not an empty folder: choose another one for the model")
    loaded, name = _loaded(model, allow_download, trust_remote_code, revision)
    original = SentenceTransformerEncoder(loaded)
    loaded.float()
    config = _config_of(loaded)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise InvalidInputError(f"{target} cannot be made: {error}") from error
    try:
        report = _export(loaded, name, original, config, part, int8)
        _put_in_place(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return replace(report, folder=target)


def _export(
    model: Any, name: str | None, original: SentenceTransformerEncoder, config: OnnxConfig, folder: Path, int8: bool
) -> ExportReport:
    inputs = _export_model(model, folder / config.model_file)
    if int8:
        _quantize(folder / config.model_file, folder / "model_int8.onnx")
        (folder / config.model_file).unlink()
        config = replace(config, model_file="model_int8.onnx", exact_products=True)
    (folder / TOKENIZER_FILE).write_text(_tokenizer_json(model.tokenizer), encoding="utf-8")
    config = replace(
        config,
        dimension=original.dimension,
        files={file.name: file_entry(file) for file in sorted(folder.iterdir())},
    )
    more = {"model_name": name, "uses_token_type_ids": "token_type_ids" in inputs}
    write_config(folder, config, _prefix_ids(model, config), more)
    exported = OnnxEncoder(folder)
    n_vectors, difference, mean, lowest = _compare(original, exported, config)
    if mean < _LOWEST_COSINE if int8 else not difference <= _LARGEST_DIFFERENCE:
        raise EncoderError(
            f"the exported model has other vectors than the original: components differ by up to {difference:.2g}, the "
            f"cosines are {mean:.3f} on average and {lowest:.3f} at least. This model cannot be exported"
        )
    if not int8:
        config = replace(config, fingerprint=original.fingerprint, content=exported.fingerprint)
        write_config(folder, config, _prefix_ids(model, config), more)
        exported = OnnxEncoder(folder)
    return ExportReport(
        folder=folder,
        model_file=config.model_file,
        n_bytes=sum(file.stat().st_size for file in folder.iterdir()),
        n_vectors=n_vectors,
        largest_difference=difference,
        lowest_cosine=lowest,
        fingerprint=exported.fingerprint,
        is_original=exported.fingerprint == original.fingerprint,
    )


def _put_in_place(part: Path, target: Path) -> None:
    try:
        if target.is_mount():  # it cannot be replaced
            for file in part.iterdir():
                shutil.move(file, target / file.name)
            return
        if target.exists():
            target.rmdir()
        part.chmod(0o755)  # mkdtemp makes a folder that others cannot read
        part.rename(target)
    except OSError as error:
        raise InvalidInputError(f"the model cannot be put into {target} ({error}): choose another folder") from error


def _loaded(
    model: str | os.PathLike[str] | MultiVectorEncoder,
    allow_download: bool,
    trust_remote_code: bool,
    revision: str | None,
) -> tuple[Any, str | None]:
    """The model on the CPU, and its name."""
    if isinstance(model, (str, os.PathLike)):
        folder = folder_of(model)
        source = ModelSource(
            name=os.fspath(model) if folder is None else str(folder),
            is_folder=folder is not None,
            device="cpu",
            backend="torch",
            allow_download=allow_download,
            trust_remote_code=trust_remote_code,
            revision=revision,
            model_kwargs={},
        )
        return load_model(source), source.name if folder is None else folder.name
    import torch

    if isinstance(model, torch.nn.Module) and any(
        tensor.device.type != "cpu" or (tensor.is_floating_point() and tensor.dtype != torch.float32)
        for tensor in model.state_dict().values()
    ):
        raise InvalidInputError(
            "a model object must be on the CPU in float32 to be exported: call model.to('cpu').float() first, or save "
            "it and pass the folder"
        )
    return model, None


def _config_of(model: Any) -> OnnxConfig:
    """The settings of a model. Raises EncoderError if an ONNX model of it could not give the same vectors."""
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    document, query = TextInputs(model, "document"), TextInputs(model, "query")
    masks = [module for module in model if isinstance(module, MultiVectorMask)]
    _require_exportable(model, document, query, masks)
    tokenizer, expansion = model.tokenizer, query.transformer.query_expansion
    config = None
    if expansion is not None:
        token = tokenizer.mask_token_id if expansion["token"] is None else None
        if token is None and expansion["token"] is None:
            token = tokenizer.eos_token_id
        if expansion["token"] is not None:
            token = tokenizer.convert_tokens_to_ids(expansion["token"])
        if token is None:
            raise EncoderError(
                "the model expands queries, but its tokenizer has no token for that: set query_expansion"
            )
        config = Expansion(int(token), int(expansion["length"]), bool(expansion["attend"]))
    skiplists = {tuple(mask.skiplist_words) for mask in masks}
    tasks = set().union(*(mask.skiplist_tasks for mask in masks)) if masks else set()
    return OnnxConfig(
        document=TaskConfig(document.prompt or "", length=document.limit, skips="document" in tasks),
        query=TaskConfig(query.prompt or "", length=query.limit, skips="query" in tasks),
        positions=positions_of(query.transformer),
        expansion=config,
        skiplist=next(iter(skiplists)) if skiplists else (),
        pad=int(tokenizer.pad_token_id or 0),
        reads_special_tokens=not getattr(tokenizer, "split_special_tokens", False),
    )


def _require_exportable(model: Any, document: TextInputs, query: TextInputs, masks: list[Any]) -> None:
    reason = None
    if document.transformer is not query.transformer or document.transformer is not model[0]:
        reason = "it has different modules for queries and documents"
    elif not document.has_known_rows or not query.has_known_rows:
        reason = "it merges tokens; use pool_factor of the index instead"
    elif "message" in query.transformer.modality_config or query.transformer.transformer_task == "retrieval":
        reason = "it takes texts through a chat template, or images"
    elif getattr(model.tokenizer, "backend_tokenizer", None) is None:
        reason = "its tokenizer is not one of the tokenizers library"
    elif (model.tokenizer.padding_side, model.tokenizer.truncation_side) != ("right", "right"):
        reason = "it pads or cuts texts on the left"
    elif any(mask.keep_only_token_ids for mask in masks):
        reason = "it keeps the vectors of some tokens only"
    elif len(masks) > 1:
        reason = "it has several modules MultiVectorMask"
    if reason is not None:
        raise EncoderError(f"this model cannot be exported, because {reason}. Use SentenceTransformerEncoder")


def _export_model(model: Any, file: Path) -> list[str]:
    """Write the model with its head. Returns the names of its inputs."""
    import torch
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    class TokenVectors(torch.nn.Module):
        """From ids to unit-length vectors of all tokens."""

        def __init__(self) -> None:
            super().__init__()
            # The mask chooses vectors. Here all are needed.
            self.parts = torch.nn.ModuleList(part for part in model if not isinstance(part, MultiVectorMask))

        def forward(self, *tensors: Any) -> Any:
            features = dict(zip(names, tensors, strict=True)) | {"modality": "text"}
            for part in self.parts:
                features = part(features)
            return torch.nn.functional.normalize(features["token_embeddings"], p=2, dim=-1)

    # Two texts of different lengths, so that the trace includes padding and a batch.
    features = model.preprocess(["ants", "an owl in a tree at night"], prompt=None, task="document")
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in features]
    try:
        with _quiet_export(), torch.no_grad():
            torch.onnx.export(
                TokenVectors().eval(),
                tuple(features[name] for name in names),
                str(file),
                input_names=names,
                output_names=["output"],
                dynamic_axes={name: {0: "batch", 1: "tokens"} for name in (*names, "output")},
                opset_version=_OPSET,
                # torch's newer exporter needs further packages. The vectors are compared below.
                dynamo=False,
            )
    except Exception as error:  # torch raises errors of many types
        raise EncoderError(f"torch cannot export this model: {type(error).__name__}: {error}") from error
    return names


def _quantize(source: Path, target: Path) -> None:
    """Write a model with 7-bit weights, one scale per channel."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    try:
        with _quiet_export():
            quantize_dynamic(source, target, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)
    except Exception as error:  # onnx and onnxruntime raise errors of many types
        raise EncoderError(f"onnxruntime cannot quantize this model: {type(error).__name__}: {error}") from error


def _compare(
    original: SentenceTransformerEncoder, exported: OnnxEncoder, config: OnnxConfig
) -> tuple[int, float, float, float]:
    """Number of vectors of sample texts, their largest difference, and their mean and lowest cosine.

    Raises:
        EncoderError: a text has other tokens.
    """
    documents = list(_SAMPLES)
    limit = config.document.length
    if limit is not None and limit <= _WINDOWED_TOKENS:
        # More tokens than the limit, whatever the tokenizer: a word has at least one.
        documents.append(_LONG * (2 + 2 * limit // len(_LONG.split())))
    differences, cosines = [], []
    with unreported(), _quiet_export():
        for texts, kind in ((documents, "document"), (list(_SAMPLES), "query")):
            encode = "encode_documents" if kind == "document" else "encode_queries"
            wanted: TokenEmbeddings = getattr(original, encode)(texts)
            found: TokenEmbeddings = getattr(exported, encode)(texts)
            for i, text in enumerate(texts):
                spans = [getattr(encoder, f"{kind}_spans")(text).tolist() for encoder in (original, exported)]
                if wanted[i].shape != found[i].shape or spans[0] != spans[1]:
                    raise EncoderError(
                        f"the exported model has {len(found[i])} vectors for the {kind} {text[:40]!r}, the original "
                        f"{len(wanted[i])}, or vectors of other tokens. This model cannot be exported"
                    )
            differences.append(np.abs(wanted.vectors - found.vectors).max())
            cosines.append((wanted.vectors * found.vectors).sum(axis=1))
    together = np.concatenate(cosines)
    return len(together), float(max(differences)), float(together.mean()), float(together.min())


def _tokenizer_json(tokenizer: Any) -> str:
    from tokenizers import Tokenizer

    copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    # Every call of transformers sets these two.
    copy.no_truncation()
    copy.no_padding()
    content: str = copy.to_str()
    return content


def _prefix_ids(model: Any, config: OnnxConfig) -> dict[str, int | None]:
    """The ids of prompts that are one token. Only such models are known to next-plaid."""
    ids: dict[str, int | None] = {}
    for name, task in (("query", config.query), ("document", config.document)):
        tokens = model.tokenizer(task.prompt, add_special_tokens=False)["input_ids"] if task.prompt else []
        ids[f"{name}_prefix_id"] = int(tokens[0]) if len(tokens) == 1 else None
    return ids


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"an 8-bit model is made with onnx: pip install 'muvera-core[export]' (importing onnx failed: {error})"
        ) from error


@contextlib.contextmanager
def _quiet_export() -> Iterator[None]:
    """Suppress what torch and onnxruntime say about their own parts. What counts is that the vectors are equal."""
    from transformers.utils import logging as transformers_logging

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
        transformers_logging.set_verbosity(verbosity)
