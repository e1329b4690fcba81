"""The command ``muvera index``, which builds an index from files and updates it."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from muvera_core.cli.group import Interrupted, say
from muvera_core.cli.index_opening import NewIndex, opened_or_made
from muvera_core.cli.options import (
    AS_JSON,
    ENCODER,
    ENCODER_DEVICE,
    INDEX,
    load_encoder,
    progress_bar,
)
from muvera_core.cli.reading_options import ReadingOptions, reading_as_text, reading_options
from muvera_core.cli.word_options import WordOptions, word_options
from muvera_core.corpus import Reading, Unusable
from muvera_core.encoders import BUNDLED_DIMENSION, LEAST_KEPT, MAX_POOL_FACTOR
from muvera_core.errors import InvalidInputError
from muvera_core.lexical import Tokenizer
from muvera_core.storage import PRECISIONS, TokenPrecision
from muvera_core.sync import SyncProgress, SyncReport, count_ignored, recall_reading, sync_files
from muvera_core.validation import counted

# So many files and lines that were left out are listed without --verbose.
_LISTED = 10


@click.command()
@INDEX
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@reading_options
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
@click.option("--keep-missing", is_flag=True, help="Keep documents whose files are gone.")
@click.option(
    "--allow-empty",
    is_flag=True,
    help="Delete documents also if a PATH is gone, or has lost most of its files. Without, that is an error, because a "
    "disk may not be mounted.",
)
@click.option("--strict", is_flag=True, help="Stop if a file or line cannot be used, before anything is changed.")
@click.option("-v", "--verbose", is_flag=True, help="List every file that is ignored, and why.")
@AS_JSON
@ENCODER
@ENCODER_DEVICE
def index(
    folder: Path,
    paths: Sequence[Path],
    max_tokens: int | None,
    overlap: int | None,
    no_split: bool,
    encoding: str | None,
    pool_factor: int | None,
    keep_tokens: float | None,
    token_precision: TokenPrecision | None,
    dimension: int | None,
    tokenizer: Tokenizer | None,
    language: str | None,
    search_fields: tuple[str, ...],
    no_words: bool,
    keep_missing: bool,
    allow_empty: bool,
    strict: bool,
    verbose: bool,
    as_json: bool,
    checkpoint: Path | None,
    encoder_device: str | None,
) -> None:
    """Create INDEX from files, or update it to match them.

    PATHs are files, or folders that are searched for files. Texts are split into passages. Files with records, such as
    JSON lines, give one document or more per record: {"text": ..., "id": ..., "title": ..., "metadata": {...}}, of
    which only text is required. With an --encoder that embeds images, each image file is one document. In folders,
    hidden files and links are skipped.

    Run the command again after files have changed: it adds, replaces and deletes what differs, and reads files as the
    last time. What is saved stays, so an interrupted run can be started again.
    """
    asked = ReadingOptions(max_tokens, overlap, no_split, encoding)
    if dimension is not None and checkpoint is not None and str(checkpoint) != "bundled":
        raise InvalidInputError("--dimension is for the bundled encoder: leave out --dimension or --encoder")
    words = WordOptions(tokenizer, language, search_fields)
    if no_words and words.given:
        raise InvalidInputError(f"--no-words makes no word index: leave out {' and '.join(words.given)}")
    settings = NewIndex(pool_factor, keep_tokens, token_precision, dimension, encoder_device)
    with opened_or_made(folder, load_encoder(checkpoint, folder, encoder_device), settings, words, no_words) as (
        opened,
        is_new,
    ):
        before = recall_reading(opened)
        reading = asked.change(before or Reading())
        if before not in (None, reading):
            say(f"reading files anew: {reading_as_text(reading)}, before {reading_as_text(before or reading)}")
        with _progress(folder) as show:
            report = sync_files(
                opened,
                list(paths),
                reading=reading,
                delete_missing=not keep_missing,
                allow_empty=allow_empty,
                skip_unusable=not strict,
                on_progress=show,
            )
        n = len(opened)
    _list_ignored(report.ignored, verbose)
    click.echo(json.dumps(_as_json(report, n)) if as_json else str(report))
    if is_new and sys.stderr.isatty():
        say(f'Ask it: muvera search {shlex.quote(str(folder))} "your question"')


@contextmanager
def _progress(folder: Path) -> Iterator[Callable[[SyncProgress], None]]:
    """Shows progress, and says after Ctrl-C what is saved."""
    units = {"reading": "file", "indexing": "doc"}
    bars: dict[str, Any] = {}
    n_saved = 0

    def show(progress: SyncProgress) -> None:
        nonlocal n_saved
        if progress.stage not in bars:
            for bar in bars.values():
                bar.close()
            bars[progress.stage] = progress_bar(
                desc=progress.stage, unit=units[progress.stage], total=progress.total, initial=progress.done
            )
        bar = bars[progress.stage]
        bar.update(progress.done - bar.n)
        n_saved = progress.done if progress.stage == "indexing" else 0

    try:
        yield show
    except KeyboardInterrupt:
        kept = f"{folder} keeps {counted(n_saved, 'written document')}"
        raise Interrupted(f"interrupted: {kept}; run the same command again to continue") from None
    finally:
        for bar in bars.values():
            bar.close()


def _list_ignored(ignored: Sequence[Unusable], verbose: bool) -> None:
    """List what was left out: all of it, or what is wrong with files of known types if that is not much."""
    wrong = ignored if verbose else [entry for entry in ignored if not entry.kind.startswith("unknown type")]
    for entry in wrong if verbose else wrong[:_LISTED]:
        say(str(entry))
    if not verbose and len(wrong) > _LISTED:
        say(f"… and {len(wrong) - _LISTED} more; --verbose lists all")


def _as_json(report: SyncReport, n_documents: int) -> dict[str, object]:
    return {
        "documents": n_documents,
        "files": report.n_files,
        "added": report.added,
        "replaced": report.replaced,
        "unchanged": report.unchanged,
        "deleted": report.deleted,
        "reused": report.reused,
        "ignored": count_ignored(report.ignored),
        "reading": report.reading.to_json(),
        "seconds": round(report.seconds, 3),
    }
