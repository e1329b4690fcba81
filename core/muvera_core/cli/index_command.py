"""The command ``muvera index``, which builds an index from files and updates it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from muvera_core.cli.corpus_sync import Comparison, compare, find_missing, write
from muvera_core.cli.group import Failure, Interrupted, say
from muvera_core.cli.options import ENCODER, INDEX, bundled_encoder, load_encoder, progress_bar, require_text_encoder
from muvera_core.cli.word_options import WordOptions, word_options, words_as_text
from muvera_core.corpus import (
    IMAGE_SUFFIXES,
    LINES_SUFFIXES,
    TEXT_SUFFIXES,
    SourceDocument,
    SourceFile,
    Splitting,
    Unusable,
    as_root,
    find_files,
    read_documents,
)
from muvera_core.encoders import BUNDLED_DIMENSION, LEAST_KEPT, MAX_POOL_FACTOR, TokenEncoder, is_image_encoder
from muvera_core.errors import InvalidInputError, NotAnIndexError
from muvera_core.index import MuveraIndex
from muvera_core.lexical import LexicalConfig, Tokenizer
from muvera_core.storage import DEFAULT_PRECISION, PRECISIONS, TokenCodec, TokenPrecision
from muvera_core.validation import counted

# Most unusable files and lines that an error lists.
_REPORTED = 20
_T = TypeVar("_T")


@click.command()
@INDEX
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--split", type=click.Choice(["paragraphs"]), help="Split text files into passages at blank lines.")
@click.option(
    "--max-words",
    type=click.IntRange(min=1),
    metavar="N",
    help="Split text files into passages of at most N words, at blank lines and ends of sentences.",
)
@click.option(
    "--pool-factor",
    type=click.IntRange(1, MAX_POOL_FACTOR),
    metavar="N",
    help="Store about one token vector in N, by merging similar ones. The index is smaller and faster, and finds a "
    "little less. Only for a new INDEX.",
)
@click.option(
    "--keep-tokens",
    type=click.FloatRange(LEAST_KEPT, 1),
    metavar="SHARE",
    help="Share of a document's tokens to keep, before any are merged. Dropped are those that others can stand in for. "
    "Only for a new INDEX.",
)
@click.option(
    "--token-precision",
    type=click.Choice(PRECISIONS),
    help="How token vectors are stored. Fewer bits make the index smaller, and it finds a little less. Only for a new "
    "INDEX; `muvera optimize --max-bytes-per-token` changes it later.",
)
@click.option(
    "--dimension",
    type=click.IntRange(1, BUNDLED_DIMENSION),
    metavar="N",
    help=f"Width of a token vector of the bundled encoder, up to {BUNDLED_DIMENSION}. With 64, the index is half as "
    "large and faster, and finds slightly less. Only for a new INDEX.",
)
@word_options
@click.option(
    "--no-words",
    is_flag=True,
    help="Make no word index, so that INDEX is searched in mode late only. `muvera words` makes or changes it later.",
)
@click.option(
    "--delete-missing", is_flag=True, help="Delete documents that were read from these PATHs and are no longer there."
)
@click.option("--skip-bad", is_flag=True, help="Skip files and lines that cannot be used, instead of stopping.")
@ENCODER
def index(
    folder: Path,
    paths: Sequence[Path],
    split: str | None,
    max_words: int | None,
    pool_factor: int | None,
    keep_tokens: float | None,
    token_precision: TokenPrecision | None,
    dimension: int | None,
    tokenizer: Tokenizer | None,
    language: str | None,
    search_fields: tuple[str, ...],
    no_words: bool,
    delete_missing: bool,
    skip_bad: bool,
    checkpoint: Path | None,
) -> None:
    """Create INDEX from files, or update it to match them.

    PATHs are files, or folders that are searched for files. Each .txt or .md file is one document. Each line of a
    .jsonl or .jsonl.gz file is one document: {"text": ..., "id": ..., "title": ..., "metadata": {...}}, of which only
    text is required. With an --encoder that embeds images, each image file is one document. In folders, hidden files
    and links are skipped.

    Run the command again after files have changed. Unchanged documents are skipped, and changed ones are replaced. A
    document is saved as soon as the progress bar counts it, so an interrupted run can be started again.
    """
    started = time.perf_counter()
    splitting = Splitting(split == "paragraphs", max_words)
    if dimension is not None and checkpoint is not None and str(checkpoint) != "bundled":
        raise InvalidInputError("--dimension is for the bundled encoder: leave out --dimension or --encoder")
    words = WordOptions(tokenizer, language, search_fields)
    if no_words and words.given:
        raise InvalidInputError(f"--no-words makes no word index: leave out {' and '.join(words.given)}")
    encoder = load_encoder(checkpoint, folder)
    index = _open_for_writing(folder, encoder, pool_factor, keep_tokens, token_precision, dimension)
    if index is not None:
        _require_same_words(index, folder, words, no_words)
    n_added = n_replaced = n_deleted = 0
    try:
        files = _find_files(paths, folder, may_be_none=delete_missing, with_images=is_image_encoder(encoder))
        with progress_bar(desc="reading", unit="doc") as bar:
            found = compare(index, _counted(_read_documents(files, splitting), bar))
        _report_unusable(found, skip_bad)
        if index is None:
            if dimension is not None:
                encoder = bundled_encoder(dimension)
            index = MuveraIndex.create(
                folder,
                encoder,
                token_precision=token_precision or DEFAULT_PRECISION,
                pool_factor=pool_factor or 1,
                keep_tokens=keep_tokens or 1.0,
                lexical=False if no_words else words.change(LexicalConfig()),
            )
        wanted = found.new | found.changed
        with progress_bar(desc="indexing", unit="doc", total=len(wanted)) as bar:
            for ids in write(index, _read_documents(files, splitting), wanted):
                n_added += sum(id in found.new for id in ids)
                n_replaced += sum(id in found.changed for id in ids)
                bar.update(len(ids))
        if delete_missing and (missing := find_missing(index, map(as_root, paths), found)):
            n_deleted = index.delete(missing)
    except KeyboardInterrupt:
        kept = f"{folder} keeps {counted(n_added + n_replaced, 'written document')}"
        raise Interrupted(f"interrupted: {kept}; run the same command again to continue") from None
    finally:
        if index is not None:
            index.close()
    seconds = time.perf_counter() - started
    written = n_added + n_replaced
    click.echo(
        f"{n_added} added, {n_replaced} replaced, {found.n_unchanged} unchanged, {n_deleted} deleted"
        + (f", {len(found.unusable)} skipped" if found.unusable else "")
        + f" in {seconds:.1f} s"
        + (f" ({written / seconds:.0f} documents/s)" if written else "")
    )


def _open_for_writing(
    folder: Path,
    encoder: TokenEncoder | None,
    pool_factor: int | None,
    keep_tokens: float | None,
    token_precision: TokenPrecision | None,
    dimension: int | None,
) -> MuveraIndex | None:
    """Open the index. Returns None if there is none yet."""
    try:
        require_text_encoder(folder)
    except NotAnIndexError:
        return None
    index = MuveraIndex.open(folder, encoder, show_progress=sys.stderr.isatty())
    codec = TokenCodec(index.token_precision, index.encoder.dimension)
    if token_precision is not None and codec.may_replace(token_precision):
        token_precision = None  # the index was narrowed
    for option, made_with, given in (
        ("--pool-factor", index.pool_factor, pool_factor),
        ("--keep-tokens", index.keep_tokens, keep_tokens),
        ("--token-precision", index.token_precision, token_precision),
        ("--dimension", index.encoder.dimension, dimension),
    ):
        if given not in (None, made_with):
            index.close()
            raise InvalidInputError(
                f"{folder} was made with {option} {made_with}, which cannot be changed, got {given}: "
                "leave the option out, or make another index"
            )
    return index


def _require_same_words(index: MuveraIndex, folder: Path, words: WordOptions, no_words: bool) -> None:
    """Raise InvalidInputError, and close the index, unless its word index is as it was asked for."""
    has, given = index.lexical, words.given
    if no_words:
        given = {} if has is None else {"--no-words": ("", None)}
    differing = [
        option for option, (name, value) in given.items() if has is None or no_words or getattr(has, name) != value
    ]
    if differing:
        index.close()
        raise InvalidInputError(
            f"{folder} has other words ({words_as_text(has)}) than {' and '.join(differing)} asks for: leave that out, "
            "or change the words with `muvera words` first"
        )


def _find_files(
    paths: Sequence[Path], folder: Path, *, may_be_none: bool, with_images: bool
) -> list[SourceFile | Unusable]:
    suffixes = TEXT_SUFFIXES + LINES_SUFFIXES + (IMAGE_SUFFIXES if with_images else ())
    advice = "to index images, give the model that embeds them with --encoder"
    files = list(find_files(paths, suffixes, folder.absolute(), image_advice=advice))
    if not files and not may_be_none:
        raise InvalidInputError(f"{', '.join(map(str, paths))}: there are no files that end in {', '.join(suffixes)}")
    return files


def _read_documents(
    files: Iterable[SourceFile | Unusable], splitting: Splitting
) -> Iterator[SourceDocument | Unusable]:
    for file in files:
        if isinstance(file, Unusable):
            yield file
        else:
            yield from read_documents(file, splitting)


def _report_unusable(found: Comparison, skip: bool) -> None:
    """Print what cannot be used. Ends the program if it may not be skipped. What is blank is always skipped."""
    bad = [entry for entry in found.unusable if not entry.is_blank]
    reported = found.unusable if skip or not bad else bad[:_REPORTED]
    for entry in reported:
        say(str(entry))
    if bad and not skip:
        n, others = len(bad), len(bad) - len(reported)
        raise Failure(
            (f"… and {others} more. " if others else "")
            + f"{n} {'file or line' if n == 1 else 'files or lines'} cannot be used, and nothing was changed: correct "
            "the files named above, or skip them with --skip-bad"
        )


def _counted(items: Iterable[_T], bar: Any) -> Iterator[_T]:
    for item in items:
        bar.update()
        yield item
