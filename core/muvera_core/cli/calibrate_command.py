"""The command ``muvera calibrate``, which turns scores into probabilities of relevance."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Literal

import click

from muvera_core.calibration import CalibrationReport
from muvera_core.cli.options import (
    AS_JSON,
    DEVICE,
    ENCODER,
    ENCODER_DEVICE,
    INDEX,
    QUESTIONS_FILE,
    load_encoder,
    require_text_encoder,
    require_words,
    takes_text,
)
from muvera_core.collection import Writer, open_collection
from muvera_core.errors import InvalidInputError
from muvera_core.evaluation import read_queries
from muvera_core.index import MuveraIndex, accelerator_of
from muvera_core.tuning import calibrate as calibrate_collection
from muvera_core.tuning import remove_calibration

_PARTS = 300


@click.command()
@INDEX
@click.option(
    "--questions",
    type=QUESTIONS_FILE,
    metavar="FILE",
    help="Questions like those that users ask (.jsonl, .gz or not), with --relevant. Without, parts of the documents "
    "stand in for questions.",
)
@click.option(
    "--relevant",
    type=QUESTIONS_FILE,
    metavar="QRELS",
    help="File that names all relevant documents of each question, in the format of BEIR's qrels.tsv (.gz or not). A "
    "score of 0 on its only lines says that the index has no answer.",
)
@click.option(
    "--mode",
    type=click.Choice(["late", "hybrid"]),
    default="late",
    show_default=True,
    help="Mode of search to calibrate. Mode hybrid needs --questions; until it is calibrated, it uses what was learned "
    "for late.",
)
@click.option(
    "--n-queries",
    type=click.IntRange(min=1),
    show_default=str(_PARTS),
    metavar="N",
    help="Number of parts of documents that stand in for questions.",
)
@click.option("--remove", is_flag=True, help="Forget what was learned: relevance is the normalized score again.")
@AS_JSON
@DEVICE
@ENCODER
@ENCODER_DEVICE
def calibrate(
    folder: Path,
    questions: Path | None,
    relevant: Path | None,
    mode: Literal["late", "hybrid"],
    n_queries: int | None,
    remove: bool,
    as_json: bool,
    device: str,
    checkpoint: Path | None,
    encoder_device: str | None,
) -> None:
    """Learn what scores say about relevance, so that one --min-score fits all questions.

    `muvera search` then prints the probability that a document is relevant. Prints how well that went on questions that
    were held out. For example:

    muvera calibrate notes.muvera

    muvera search notes.muvera "what did we decide?" --min-score 0.5
    """
    if remove:
        _remove(folder, {"--questions": questions, "--relevant": relevant, "--n-queries": n_queries}, as_json)
        return
    if mode == "hybrid" and questions is None:
        raise InvalidInputError("--mode hybrid is calibrated by judged questions: give --questions and --relevant")
    if (questions is None) != (relevant is None):
        raise InvalidInputError("--questions and --relevant belong together: give both, or neither")
    n, progress = _PARTS if n_queries is None else n_queries, sys.stderr.isatty()
    if questions is None and checkpoint is None and not takes_text(folder):
        report = _calibrate_without_encoder(folder, n, progress, device)
    else:
        require_text_encoder(folder)
        queries, grades = (None, None) if questions is None else read_queries(questions, relevant, with_unanswered=True)
        with MuveraIndex.open(
            folder, load_encoder(checkpoint, folder, encoder_device), show_progress=progress, device=device
        ) as index:
            if mode == "hybrid":
                require_words(index, "--mode hybrid")
            report = index.calibrate(queries, grades, mode=mode, n_queries=n, show_progress=progress)
    click.echo(json.dumps(report.as_json()) if as_json else str(report))


def _remove(folder: Path, others: Mapping[str, object], as_json: bool) -> None:
    given = [name for name, value in others.items() if value is not None]
    if given:
        raise InvalidInputError(f"--remove learns nothing: leave out {' and '.join(given)}")
    with closing(open_collection(folder.absolute(), show_progress=sys.stderr.isatty())) as collection:
        removed = remove_calibration(collection, Writer(collection))
    said = "the calibration was removed" if removed else "the index is not calibrated"
    click.echo(json.dumps({"removed": removed}) if as_json else said)


def _calibrate_without_encoder(folder: Path, n_queries: int, show_progress: bool, device: str) -> CalibrationReport:
    """``MuveraIndex.calibrate`` for an index whose token vectors were made elsewhere: it encodes no text."""
    accelerator = accelerator_of(device)
    with closing(
        open_collection(folder.absolute(), show_progress=show_progress, accelerator=accelerator)
    ) as collection:
        return calibrate_collection(
            collection, Writer(collection), None, [], n_queries=n_queries, show_progress=show_progress
        )
