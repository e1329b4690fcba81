"""The commands that search an index, measure how well it finds, and optimize it."""

from __future__ import annotations

import json
import math
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import click

from muvera_core.cli.group import say
from muvera_core.cli.options import (
    AS_JSON,
    DEVICE,
    ENCODER,
    ENCODER_DEVICE,
    INDEX,
    LEXICAL_WEIGHT,
    MODE,
    N_CANDIDATES,
    QUESTIONS_FILE,
    json_object,
    load_encoder,
    require_text_encoder,
    require_words,
    takes_text,
    text,
)
from muvera_core.cli.output import hit_as_json, hit_as_text, matched_words, tuning_as_text
from muvera_core.collection import Writer, open_collection
from muvera_core.errors import InvalidInputError
from muvera_core.evaluation import read_queries
from muvera_core.index import MuveraIndex, accelerator_of
from muvera_core.search import Fusion, SearchMode
from muvera_core.stage_one import Tuning
from muvera_core.tuning import optimize as optimize_collection
from muvera_core.validation import has_visible_text


@click.command()
@INDEX
@click.argument("query", callback=text)
@click.option("-k", type=click.IntRange(min=1), default=5, show_default=True, metavar="N", help="Number of hits.")
@click.option(
    "--filter",
    callback=json_object,
    metavar="JSON",
    help='Search only documents whose metadata match, for example \'{"year": {"$gte": 2020}}\'.',
)
@click.option(
    "--min-score",
    type=click.FloatRange(0, 1),
    metavar="SCORE",
    help="Leave out hits with a lower relevance, which is the score that is printed.",
)
@MODE
@LEXICAL_WEIGHT
@click.option(
    "--fusion",
    type=click.Choice(get_args(Fusion)),
    default="scores",
    show_default=True,
    help="How mode hybrid joins the two: by both scores, or by both ranks (reciprocal rank fusion).",
)
@N_CANDIDATES
@click.option("--exact", is_flag=True, help="Score every document by exact MaxSim: slow, but misses nothing.")
@click.option("--passages", is_flag=True, help="Print the part of each text that matched best, not its beginning.")
@click.option("--explain", is_flag=True, help="List the words that late interaction matched best, in every mode.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per hit and line.")
@DEVICE
@ENCODER
@ENCODER_DEVICE
def search(
    folder: Path,
    query: str,
    k: int,
    filter: dict[str, Any] | None,
    min_score: float | None,
    mode: SearchMode,
    lexical_weight: float | None,
    fusion: Fusion,
    n_candidates: int | None,
    exact: bool,
    passages: bool,
    explain: bool,
    as_json: bool,
    device: str,
    checkpoint: Path | None,
    encoder_device: str | None,
) -> None:
    """Print the documents of INDEX that match QUERY best.

    The score that is printed is the hit's relevance, from 0 to 1: the probability that the document is relevant, if
    `muvera calibrate` was run for this index and mode; or else the normalized score, which is the mean per query token.
    In mode lexical that is the share of the highest score that is possible. For example:

    muvera search notes.muvera "error ERR-4012 at login" --mode hybrid --passages
    """
    require_text_encoder(folder)
    progress = sys.stderr.isatty()
    encoder = load_encoder(checkpoint, folder, encoder_device)
    with MuveraIndex.open(folder, encoder, read_only=True, show_progress=progress, device=device) as index:
        if mode != "late":
            require_words(index, f"--mode {mode}")
        hits = index.search(
            query,
            k,
            n_candidates,
            mode=mode,
            lexical_weight=lexical_weight,
            fusion=fusion,
            filter=filter,
            min_score=min_score,
            exact=exact,
            with_passages=passages,
        )
        can_explain = explain and has_visible_text(query)
        for rank, hit in enumerate(hits, start=1):
            matches = matched_words(query, hit, index.explain(query, hit.id)) if can_explain else None
            line = (
                hit_as_json(rank, hit, matches, with_passage=passages) if as_json else hit_as_text(rank, hit, matches)
            )
            click.echo(line)
        if not hits:
            say(_why_nothing(query, len(index), filter, min_score, mode))


def _why_nothing(
    query: str, n_documents: int, filter: dict[str, Any] | None, min_score: float | None, mode: SearchMode
) -> str:
    """Why a search has no hits."""
    if not n_documents:
        return "the index has no documents"
    if not filter and not has_visible_text(query):
        return "the query is empty, so nothing matches it"
    limits = ["matches the filter"] * bool(filter) + [f"reaches a score of {min_score}"] * (min_score is not None)
    if mode == "lexical" and not limits:
        return "no document has a word of the query"
    return f"no document {' and '.join(limits)}"


@click.command()
@INDEX
@click.argument("questions", type=QUESTIONS_FILE)
@click.option(
    "--relevant",
    type=QUESTIONS_FILE,
    metavar="QRELS",
    help="File that names the relevant documents of each question, in the format of BEIR's qrels.tsv, gzipped (.gz) "
    "or not. Adds nDCG, MRR, hit rate, precision, recall and MAP to the measures.",
)
@click.option("-k", type=click.IntRange(min=1), default=10, show_default=True, metavar="N", help="Number of hits.")
@N_CANDIDATES
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw fidelity against time to FILE, such as curve.svg.",
)
@MODE
@LEXICAL_WEIGHT
@AS_JSON
@DEVICE
@ENCODER
@ENCODER_DEVICE
def evaluate(
    folder: Path,
    questions: Path,
    relevant: Path | None,
    k: int,
    n_candidates: int | None,
    plot: Path | None,
    mode: SearchMode,
    lexical_weight: float | None,
    as_json: bool,
    device: str,
    checkpoint: Path | None,
    encoder_device: str | None,
) -> None:
    """Measure what searches of INDEX find, and how long they take.

    QUESTIONS is a file with one question per line: plain text (.txt), or {"_id": ..., "text": ...} (.jsonl), gzipped
    (.gz) or not. Fidelity is the share of the best documents by exact MaxSim that a search finds.
    """
    queries, grades = read_queries(questions, relevant)
    require_text_encoder(folder)
    progress = sys.stderr.isatty()
    encoder = load_encoder(checkpoint, folder, encoder_device)
    with MuveraIndex.open(folder, encoder, read_only=True, show_progress=progress, device=device) as index:
        if mode != "late":
            require_words(index, f"--mode {mode}")
        measured = index.evaluate(
            queries,
            grades,
            k=k,
            n_candidates=n_candidates,
            mode=mode,
            lexical_weight=lexical_weight,
            show_progress=progress,
        )
    click.echo(json.dumps(measured.as_json()) if as_json else str(measured))
    if plot is not None:
        measured.plot(plot)


@click.command()
@INDEX
@click.option(
    "--target-recall",
    type=click.FloatRange(0, 1),
    default=0.95,
    show_default=True,
    metavar="SHARE",
    help="Share of the best documents by exact MaxSim that a search should find.",
)
@click.option(
    "--questions",
    type=QUESTIONS_FILE,
    metavar="FILE",
    help="Example questions, like those that users ask, one per line (.txt or .jsonl, .gz or not).",
)
@click.option(
    "--relevant",
    type=QUESTIONS_FILE,
    metavar="QRELS",
    help="File that names the relevant documents of the --questions, in the format of BEIR's qrels.tsv (.gz or not). "
    "BM25's share in mode hybrid is then chosen, too. Questions without a relevant document are left out.",
)
@click.option("-k", type=click.IntRange(min=1), default=10, show_default=True, metavar="N", help="Number of hits.")
@click.option(
    "--n-queries",
    type=click.IntRange(min=1),
    default=400,
    show_default=True,
    metavar="N",
    help="Without --questions: number of queries to make from the documents' own words.",
)
@click.option(
    "--max-bytes-per-token",
    type=click.IntRange(min=1),
    metavar="N",
    help="Rewrite tokens that take more bytes than N in a coarser precision, such as 4bit. The index is smaller and "
    "finds a little less. This cannot be undone.",
)
@DEVICE
@ENCODER
@ENCODER_DEVICE
def optimize(
    folder: Path,
    target_recall: float,
    questions: Path | None,
    relevant: Path | None,
    k: int,
    n_queries: int,
    max_bytes_per_token: int | None,
    device: str,
    checkpoint: Path | None,
    encoder_device: str | None,
) -> None:
    """Make searches of INDEX faster.

    Learns encodings from the documents, tries several, and keeps the fastest one that reaches the target recall.
    """
    progress = sys.stderr.isatty()
    if questions is None and relevant is not None:
        raise InvalidInputError("--relevant names the documents that answer questions: give --questions, too")
    queries, grades = (None, None) if questions is None else read_queries(questions, relevant)
    if queries is None and checkpoint is None and not takes_text(folder):
        tuning = _optimize_without_encoder(folder, target_recall, k, n_queries, max_bytes_per_token, progress, device)
    else:
        require_text_encoder(folder)
        with MuveraIndex.open(
            folder, load_encoder(checkpoint, folder, encoder_device), show_progress=progress, device=device
        ) as index:
            if grades is not None:
                require_words(index, "--relevant")
            tuning = index.optimize(
                target_recall,
                queries,
                grades,
                k=k,
                n_queries=n_queries,
                max_bytes_per_token=max_bytes_per_token,
                show_progress=progress,
            )
    click.echo(tuning_as_text(tuning))
    if tuning.measured.get("recall", 1.0) < target_recall:  # not measured if nothing was to be gained
        say(f"no setting reaches a recall of {target_recall}: the one that comes nearest was kept")
    elif tuning.measured.get("milliseconds", 0) > 0.9 * tuning.measured.get("milliseconds_untuned", math.inf):
        say("searches take about as long as before: optimizing gains little here")


def _optimize_without_encoder(
    folder: Path,
    target_recall: float,
    k: int,
    n_queries: int,
    max_bytes_per_token: int | None,
    show_progress: bool,
    device: str,
) -> Tuning:
    """``MuveraIndex.optimize`` for an index whose token vectors were made elsewhere: it encodes no text."""
    accelerator = accelerator_of(device)
    with closing(
        open_collection(folder.absolute(), show_progress=show_progress, accelerator=accelerator)
    ) as collection:
        return optimize_collection(
            collection,
            Writer(collection),
            None,
            None,
            target_recall=target_recall,
            k=k,
            n_queries=n_queries,
            show_progress=show_progress,
            max_bytes_per_token=max_bytes_per_token,
        )
