"""Reads what belongs to an ONNX model: the sizes of its files, and its tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, normalizers

from muvera_core.errors import EncoderError

# What to do about a damaged file, unless an encoder says otherwise.
REMEDY = "export or download the model again"


def require_files(folder: Path, files: Mapping[str, Mapping[str, Any]], remedy: str) -> None:
    """Check the sizes of files.

    Args:
        folder: where they are.
        files: by name, the number of ``bytes``.
        remedy: what to do about a damaged file.

    Raises:
        EncoderError: a file is missing or has another size.
    """
    for name, file in files.items():
        try:
            # Only the size: hashing a model at every start is slow, and most damage is a file cut short.
            size = (folder / name).stat().st_size
        except OSError as error:
            raise EncoderError(f"{folder / name} cannot be read ({error}): {remedy}") from error
        if size != file["bytes"]:
            raise EncoderError(f"{folder / name} has {size} bytes, expected {file['bytes']}: {remedy}")


def load_tokenizer(
    file: Path, *, reads_special_tokens: bool, lowercase: bool = False, remedy: str = REMEDY
) -> Tokenizer:
    """Load tokenizer.json, without truncation and padding.

    Args:
        file: tokenizer.json.
        reads_special_tokens: whether "[SEP]" written in a text is that token. If not, it is text.
        lowercase: whether texts are lowercased first, whatever the file says.
        remedy: what to do about a damaged file.

    Raises:
        EncoderError: the file is missing or damaged.
    """
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises bare Exception
        raise EncoderError(f"{file}, the tokenizer, cannot be read ({error}): {remedy}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if lowercase:
        own = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
    tokenizer.encode_special_tokens = not reads_special_tokens
    return tokenizer


def special_tokens_around(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids of the tokens that the tokenizer puts before and after a text, such as [CLS] and [SEP]."""
    alone = tokenizer.encode("a", add_special_tokens=False).ids
    ids = tokenizer.encode("a", add_special_tokens=True).ids
    n = len(ids) - len(alone)
    before = next((start for start in range(n + 1) if ids[start : start + len(alone)] == alone), n)
    return tuple(ids[:before]), tuple(ids[before + len(alone) :])


def unknown_token(tokenizer: Tokenizer) -> int | None:
    """The id of the token of unknown words; None if the tokenizer has none, because it can read every byte."""
    names = (getattr(tokenizer.model, "unk_token", None), "[UNK]", "<unk>")
    ids = (tokenizer.token_to_id(name) for name in names if isinstance(name, str))
    found: int | None = next((id for id in ids if id is not None), None)
    return found
