"""Opens the index that a command brings in step with files, or makes it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from muvera_core.cli.options import bundled_encoder, require_text_encoder
from muvera_core.cli.word_options import WordOptions, words_as_text
from muvera_core.collection import remove_new_index
from muvera_core.encoders import TokenEncoder
from muvera_core.errors import InvalidInputError, MuveraError, NotAnIndexError
from muvera_core.index import MuveraIndex
from muvera_core.lexical import LexicalConfig
from muvera_core.storage import DEFAULT_PRECISION, TokenCodec, TokenPrecision


@dataclass(frozen=True)
class NewIndex:
    """Settings that an index is made with. None stands for an option that was left out."""

    pool_factor: int | None
    keep_tokens: float | None
    token_precision: TokenPrecision | None
    dimension: int | None
    encoder_device: str | None


@contextmanager
def opened_or_made(
    folder: Path, encoder: TokenEncoder | None, settings: NewIndex, words: WordOptions, no_words: bool
) -> Iterator[tuple[MuveraIndex, bool]]:
    """The index, and whether it is new. A new one is removed if an error leaves it empty."""
    opened = _open_for_writing(folder, encoder, settings)
    if opened is not None:
        with opened:
            _require_same_words(opened, folder, words, no_words)
            yield opened, False
        return
    existed = folder.exists()
    if settings.dimension is not None:
        encoder = bundled_encoder(settings.dimension, settings.encoder_device)
    made = MuveraIndex.create(
        folder,
        encoder,
        token_precision=settings.token_precision or DEFAULT_PRECISION,
        pool_factor=settings.pool_factor or 1,
        keep_tokens=settings.keep_tokens or 1.0,
        lexical=False if no_words else words.change(LexicalConfig()),
    )
    try:
        yield made, True
    except (MuveraError, click.ClickException):
        is_empty = len(made) == 0
        made.close()
        if is_empty:
            remove_new_index(folder, with_folder=not existed)
        raise
    finally:
        made.close()


def _open_for_writing(folder: Path, encoder: TokenEncoder | None, settings: NewIndex) -> MuveraIndex | None:
    """Open the index. Returns None if there is none yet."""
    try:
        require_text_encoder(folder)
    except NotAnIndexError:
        return None
    index = MuveraIndex.open(folder, encoder, show_progress=sys.stderr.isatty())
    codec, token_precision = TokenCodec(index.token_precision, index.encoder.dimension), settings.token_precision
    if token_precision is not None and codec.may_replace(token_precision):
        token_precision = None  # the index was narrowed
    for option, made_with, given in (
        ("--pool-factor", index.pool_factor, settings.pool_factor),
        ("--keep-tokens", index.keep_tokens, settings.keep_tokens),
        ("--token-precision", index.token_precision, token_precision),
        ("--dimension", index.encoder.dimension, settings.dimension),
    ):
        if given not in (None, made_with):
            index.close()
            raise InvalidInputError(
                f"{folder} was made with {option} {made_with}, which cannot be changed, got {given}: "
                "leave the option out, or make another index"
            )
    return index


def _require_same_words(index: MuveraIndex, folder: Path, words: WordOptions, no_words: bool) -> None:
    """Raise InvalidInputError unless the word index is as it was asked for."""
    has, given = index.lexical, words.given
    if no_words:
        given = {} if has is None else {"--no-words": ("", None)}
    differing = [
        option for option, (name, value) in given.items() if has is None or no_words or getattr(has, name) != value
    ]
    if differing:
        raise InvalidInputError(
            f"{folder} has other words ({words_as_text(has)}) than {' and '.join(differing)} asks for: leave that out, "
            "or change the words with `muvera words` first"
        )
