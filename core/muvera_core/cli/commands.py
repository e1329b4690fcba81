"""The command ``muvera``: what people do with an index, without writing Python."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from tqdm import tqdm

from muvera_core.cli.corpus_files import (
    LINES_SUFFIXES,
    TEXT_SUFFIXES,
    SourceDocument,
    SourceFile,
    Unusable,
    as_root,
    find_files,
    read_documents,
)
from muvera_core.cli.corpus_sync import Comparison, compare, find_missing, write
from muvera_core.cli.group import CommandGroup, Failure, Interrupted, say
from muvera_core.cli.output import hit_as_json, hit_as_text, info_as_text, matched_words, size_as_text, tuning_as_text
from muvera_core.cli.passages import Splitting
from muvera_core.cli.upkeep import compact_index, optimize_index
from muvera_core.encoders import MAX_POOL_FACTOR, TokenEncoder, is_precomputed
from muvera_core.errors import InvalidInputError, NotAnIndexError
from muvera_core.evaluation import read_questions
from muvera_core.index import MuveraIndex
from muvera_core.maintenance import check_index, read_info, repair_index
from muvera_core.storage import read_encoder

_REPORTED = 20
_T = TypeVar("_T")


def _text(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Text of the command line, which arrives with halves of surrogate pairs where the locale can't decode it."""
    return os.fsencode(value).decode("utf-8", "replace")


def _json_object(ctx: click.Context, param: click.Parameter, value: str | None) -> dict[str, Any] | None:
    """A JSON object on the command line."""
    if value is None:
        return None
    try:
        content = json.loads(_text(ctx, param, value))
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f'it is not JSON ({error}); an example is {{"year": {{"$gte": 2020}}}}') from None
    if not isinstance(content, dict):
        raise click.BadParameter("it must be a JSON object")
    return content


_INDEX = click.argument("folder", metavar="INDEX", type=click.Path(path_type=Path))
_ENCODER = click.option(
    "--encoder",
    "checkpoint",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="A ColBERT checkpoint, for an index that isn't of the bundled encoder.",
)
_DEVICE = click.option(
    "--device", default="cpu", show_default=True, metavar="NAME", help="What compares: cpu, cuda, cuda:N or auto."
)
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="muvera-core", prog_name="muvera")
def main() -> None:
    """Late-interaction search: index text, ask questions, look after the index."""


@main.command("index")
@_INDEX
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
    help="Store about one token in N, merging tokens that are alike: smaller, faster, finds a little less. Of a new "
    "INDEX only.",
)
@click.option("--delete-missing", is_flag=True, help="Delete documents that came from these PATHs and are gone there.")
@click.option("--skip-bad", is_flag=True, help="Leave out files and lines that can't be used, instead of stopping.")
@_ENCODER
def index_command(
    folder: Path,
    paths: Sequence[Path],
    split: str | None,
    max_words: int | None,
    pool_factor: int | None,
    delete_missing: bool,
    skip_bad: bool,
    checkpoint: Path | None,
) -> None:
    """Make INDEX from files, or bring it in line with them.

    PATHs are files, or folders that are searched for them: .txt and .md hold a document each, .jsonl and .jsonl.gz one
    in every line ({"text": ..., "id": ..., "title": ..., "metadata": {...}}; only text is needed). In folders, hidden
    files and links are passed over.

    Run it again after files have changed: documents that are there unchanged cost nothing, changed ones are replaced.
    Documents are safe as soon as the bar counts them, so an interrupted run can simply be started again.
    """
    started = time.perf_counter()
    splitting = Splitting(split == "paragraphs", max_words)
    index = _open_for_writing(folder, checkpoint, pool_factor)
    n_added = n_replaced = n_deleted = 0
    try:
        files = _files(paths, folder, optional=delete_missing)
        with _bar(desc="reading", unit="doc") as bar:
            found = compare(index, _counted(_documents(files, splitting), bar))
        _report_unusable(found, skip_bad)
        if index is None:
            index = MuveraIndex.create(folder, _encoder(checkpoint), pool_factor=pool_factor or 1)
        wanted = found.new | found.changed
        with _bar(desc="indexing", unit="doc", total=len(wanted)) as bar:
            for ids in write(index, _documents(files, splitting), wanted):
                n_added += sum(id in found.new for id in ids)
                n_replaced += sum(id in found.changed for id in ids)
                bar.update(len(ids))
        if delete_missing and (missing := find_missing(index, map(as_root, paths), found)):
            n_deleted = index.delete(missing)
    except KeyboardInterrupt:
        kept = f"the {n_added + n_replaced} documents that were written stay in {folder}"
        raise Interrupted(f"interrupted: {kept}; run the same command again to go on") from None
    finally:
        if index is not None:
            index.close()
    seconds = time.perf_counter() - started
    written = n_added + n_replaced
    click.echo(
        f"{n_added} added, {n_replaced} replaced, {found.n_unchanged} unchanged, {n_deleted} deleted"
        + (f", {len(found.unusable)} left out" if found.unusable else "")
        + f" in {seconds:.1f} s"
        + (f" ({written / seconds:.0f} documents/s)" if written else "")
    )


@main.command()
@_INDEX
@click.argument("query", callback=_text)
@click.option("-k", type=click.IntRange(min=1), default=5, show_default=True, metavar="N", help="How many hits.")
@click.option("--filter", callback=_json_object, metavar="JSON", help="Admit only documents whose metadata fit.")
@click.option("--n-candidates", type=click.IntRange(min=1), metavar="N", help="How many documents to rerank.")
@click.option("--exact", is_flag=True, help="Score every document: slow, and misses nothing.")
@click.option("--explain", is_flag=True, help="List the words that matched best.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object in a line for each hit.")
@_DEVICE
@_ENCODER
def search(
    folder: Path,
    query: str,
    k: int,
    filter: dict[str, Any] | None,
    n_candidates: int | None,
    exact: bool,
    explain: bool,
    as_json: bool,
    device: str,
    checkpoint: Path | None,
) -> None:
    """Print the documents of INDEX that match QUERY best.

    The score is the mean over the question's tokens, from 0 to 1.
    """
    _require_text_encoder(folder)
    shown = sys.stderr.isatty()
    with MuveraIndex.open(folder, _encoder(checkpoint), read_only=True, show_progress=shown, device=device) as index:
        hits = index.search(query, k, n_candidates, filter=filter, exact=exact)
        for rank, hit in enumerate(hits, start=1):
            matches = matched_words(query, hit, index.explain(query, hit.id)) if explain else None
            click.echo(hit_as_json(rank, hit, matches) if as_json else hit_as_text(rank, hit, matches))
        if not hits:
            say("no document fits the filter" if len(index) else "the index has no documents")


_QUESTIONS = click.Path(exists=True, dir_okay=False, path_type=Path)


@main.command()
@_INDEX
@click.argument("questions", type=_QUESTIONS)
@click.option("--relevant", type=_QUESTIONS, metavar="QRELS", help="Which documents answer them: BEIR's qrels.tsv.")
@click.option("-k", type=click.IntRange(min=1), default=10, show_default=True, metavar="N", help="How many hits.")
@click.option("--n-candidates", type=click.IntRange(min=1), metavar="N", help="How many documents to rerank.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Draw recall and time.")
@_AS_JSON
@_DEVICE
@_ENCODER
def evaluate(
    folder: Path,
    questions: Path,
    relevant: Path | None,
    k: int,
    n_candidates: int | None,
    plot: Path | None,
    as_json: bool,
    device: str,
    checkpoint: Path | None,
) -> None:
    """Measure what searches of INDEX find, and how long they take.

    QUESTIONS holds a question in each line: as text (.txt), or as {"_id": ..., "text": ...} (.jsonl). Exact MaxSim over
    all documents is the yardstick.
    """
    asked, grades = read_questions(questions, relevant)
    _require_text_encoder(folder)
    shown = sys.stderr.isatty()
    with MuveraIndex.open(folder, _encoder(checkpoint), read_only=True, show_progress=shown, device=device) as index:
        found = index.evaluate(asked, grades, k=k, n_candidates=n_candidates, show_progress=shown)
    click.echo(json.dumps(found.as_json()) if as_json else str(found))
    if plot is not None:
        found.plot(plot)


@main.command()
@_INDEX
@click.option(
    "--target-recall",
    type=click.FloatRange(0, 1),
    default=0.95,
    show_default=True,
    metavar="SHARE",
    help="Of what exact MaxSim would find, how much a search is to find.",
)
@click.option("--questions", type=_QUESTIONS, metavar="FILE", help="Questions as are asked, .txt or .jsonl.")
@click.option("-k", type=click.IntRange(min=1), default=10, show_default=True, metavar="N", help="How many hits.")
@click.option(
    "--n-queries",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    metavar="N",
    help="How many runs of the documents' own words to ask, where there is no FILE.",
)
@_DEVICE
@_ENCODER
def optimize(
    folder: Path,
    target_recall: float,
    questions: Path | None,
    k: int,
    n_queries: int,
    device: str,
    checkpoint: Path | None,
) -> None:
    """Learn from the documents of INDEX how to find them in less time.

    Tries several encodings, and keeps the fastest that finds enough.
    """
    shown = sys.stderr.isatty()
    if questions is None:
        tuning = optimize_index(folder, target_recall, k=k, n_queries=n_queries, show_progress=shown, device=device)
    else:
        asked, _ = read_questions(questions)
        _require_text_encoder(folder)
        with MuveraIndex.open(folder, _encoder(checkpoint), show_progress=shown, device=device) as index:
            tuning = index.optimize(target_recall, asked, k=k, n_queries=n_queries, show_progress=shown)
    click.echo(tuning_as_text(tuning))
    if tuning.measured["recall"] < target_recall:
        say(f"no choice finds {target_recall} of what exact MaxSim finds; this one comes nearest")


@main.command()
@_INDEX
@_AS_JSON
def info(folder: Path, as_json: bool) -> None:
    """Print what INDEX holds, its settings and the sizes of its files."""
    found = read_info(folder)
    click.echo(json.dumps(found.as_json(), ensure_ascii=False) if as_json else info_as_text(found))


@main.command()
@_INDEX
@click.pass_context
def check(ctx: click.Context, folder: Path) -> None:
    """Read everything in INDEX and list what is damaged. The exit status is 1 where something is."""
    report = check_index(folder)
    click.echo(str(report))
    ctx.exit(0 if report.ok else 1)


@main.command()
@_INDEX
@_ENCODER
def repair(folder: Path, checkpoint: Path | None) -> None:
    """Make a damaged INDEX whole again.

    What is lost is set aside in a folder inside it.
    """
    click.echo(str(repair_index(folder, _encoder(checkpoint))))


@main.command()
@_INDEX
def compact(folder: Path) -> None:
    """Give back the disk space of deleted documents."""
    click.echo(f"{size_as_text(max(0, compact_index(folder, show_progress=sys.stderr.isatty())))} given back")


def _encoder(checkpoint: Path | None) -> TokenEncoder | None:
    """The encoder of a checkpoint; None, for the bundled one, where none is given."""
    if checkpoint is None:
        return None
    from muvera_core.encoders import ColBERTEncoder

    return ColBERTEncoder(checkpoint)


def _require_text_encoder(folder: Path) -> None:
    encoder = read_encoder(folder.absolute())
    if is_precomputed(encoder):
        raise InvalidInputError(
            f"{folder} holds token vectors that were made elsewhere ({encoder}), so no text "
            "can be encoded for it here: use add_embeddings and search_embeddings of muvera_core.MuveraIndex in Python"
        )


def _open_for_writing(folder: Path, checkpoint: Path | None, pool_factor: int | None) -> MuveraIndex | None:
    """The index; None where there is none yet and one can be made."""
    try:
        _require_text_encoder(folder)
    except NotAnIndexError:
        return None
    index = MuveraIndex.open(folder, _encoder(checkpoint), show_progress=sys.stderr.isatty())
    if pool_factor not in (None, index.pool_factor):
        index.close()
        raise InvalidInputError(
            f"{folder} was made with --pool-factor {index.pool_factor}, which can't be changed, got {pool_factor}: "
            "leave the option out, or make another index"
        )
    return index


# What index does


def _files(paths: Sequence[Path], folder: Path, *, optional: bool) -> list[SourceFile | Unusable]:
    files = list(find_files(paths, leave_out=folder.absolute()))
    if not files and not optional:
        raise InvalidInputError(
            f"{', '.join(map(str, paths))}: there are no files that end in {', '.join(TEXT_SUFFIXES + LINES_SUFFIXES)}"
        )
    return files


def _documents(files: Iterable[SourceFile | Unusable], splitting: Splitting) -> Iterator[SourceDocument | Unusable]:
    for file in files:
        if isinstance(file, Unusable):
            yield file
        else:
            yield from read_documents(file, splitting)


def _report_unusable(found: Comparison, skip: bool) -> None:
    shown = found.unusable if skip else found.unusable[:_REPORTED]
    for entry in shown:
        say(str(entry))
    if found.unusable and not skip:
        n, others = len(found.unusable), len(found.unusable) - len(shown)
        raise Failure(
            (f"… and {others} more. " if others else "")
            + f"{n} {'file or line' if n == 1 else 'files or lines'} can't be used and nothing was changed: mend what "
            "is named above, or leave it out with --skip-bad"
        )


def _bar(**settings: Any) -> Any:
    """A progress bar on standard error, where that is a terminal."""
    return tqdm(disable=None, leave=False, dynamic_ncols=True, **settings)


def _counted(items: Iterable[_T], bar: Any) -> Iterator[_T]:
    for item in items:
        bar.update()
        yield item
