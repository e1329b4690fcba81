"""The command ``muvera import``, which takes over documents from other systems."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import click

from muvera_core.cli.group import Failure, Interrupted, say
from muvera_core.cli.options import ENCODER, ENCODER_DEVICE, INDEX, load_encoder, progress_bar, require_text_encoder
from muvera_core.errors import NotAnIndexError
from muvera_core.imports import (
    FORMATS,
    BadRecord,
    Imported,
    ImportReport,
    SourceFormat,
    find_source,
    import_documents,
    read_source,
)
from muvera_core.index import MuveraIndex
from muvera_core.validation import counted

# Most bad records that are listed.
_REPORTED = 20


@click.command("import")
@INDEX
@click.argument("path", metavar="SOURCE", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--from",
    "format",
    type=click.Choice(FORMATS),
    help="What wrote SOURCE. It is recognized by its files if this is left out.",
)
@click.option("--collection", metavar="NAME", help="Chroma's collection, if there are several.")
@click.option("--dry-run", is_flag=True, help="Read everything, say what would be done, and write nothing.")
@click.option("--strict", is_flag=True, help="Write nothing if there is a record that cannot be used.")
@ENCODER
@ENCODER_DEVICE
def import_(
    folder: Path,
    path: Path,
    format: SourceFormat | None,
    collection: str | None,
    dry_run: bool,
    strict: bool,
    checkpoint: Path | None,
    encoder_device: str | None,
) -> None:
    """Take over the documents of another system into INDEX, which is made if there is none.

    SOURCE is the folder of a RAGatouille index, of a Chroma database, or of a storage of LlamaIndex (also of its
    ColbertIndex), or a JSON file of LangChain documents. Texts, ids and metadata are taken over, and texts are encoded
    anew. None of these programs is needed, and nothing is unpickled.

    For example: muvera import notes.muvera chroma/ --collection notes --dry-run

    What INDEX has already is skipped, so an interrupted import can be started again. Records that cannot be used are
    listed and left out.
    """
    started = time.perf_counter()
    source = find_source(path, format)
    click.echo(f"{source.path}: {source.format}")
    if strict:
        _require_good(read_source(source.path, source.format, collection))
    records = read_source(source.path, source.format, collection)
    with ExitStack() as stack:
        index = _open(folder, checkpoint, encoder_device, create=not dry_run)
        if index is not None:
            stack.enter_context(index)
        bar = stack.enter_context(progress_bar(desc="reading" if dry_run else "importing", unit="doc"))
        try:
            report = import_documents(index, records, dry_run=dry_run, on_progress=bar.update)
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted: {folder} keeps what was imported; run the same command again to continue"
            ) from None
    _list_bad(report.bad)
    _say_result(folder, report, dry_run, time.perf_counter() - started)


def _open(folder: Path, checkpoint: Path | None, encoder_device: str | None, *, create: bool) -> MuveraIndex | None:
    """The index, for writing if ``create``. None if there is none and none is to be made."""
    encoder = load_encoder(checkpoint, folder, encoder_device)
    try:
        require_text_encoder(folder)
    except NotAnIndexError:
        return MuveraIndex.create(folder, encoder) if create else None
    return MuveraIndex.open(folder, encoder, read_only=not create, show_progress=sys.stderr.isatty())


def _require_good(records: Iterable[Imported]) -> None:
    report = import_documents(None, records, dry_run=True)
    if report.bad:
        _list_bad(report.bad)
        raise Failure(
            f"{counted(len(report.bad), 'record')} cannot be used, and nothing was changed: correct the source, or "
            "leave out --strict"
        )


def _list_bad(bad: list[BadRecord]) -> None:
    for record in bad[:_REPORTED]:
        say(str(record))
    if len(bad) > _REPORTED:
        say(f"… and {len(bad) - _REPORTED} more")


def _say_result(folder: Path, report: ImportReport, dry_run: bool, seconds: float) -> None:
    if dry_run:
        click.echo(f"dry run, nothing was written: {report}")
        return
    click.echo(f"{report} in {seconds:.1f} s")
    if report.n_added + report.n_replaced + report.n_unchanged:
        click.echo(f'ask it: muvera search {folder} "your question"')
