"""The call that builds an index from files."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from tqdm import tqdm

from muvera_core.corpus import SourceFile, Unusable, find_files, home_of
from muvera_core.distributed.actors import EncoderSource
from muvera_core.distributed.building.blocks import block_size
from muvera_core.distributed.building.duplicates import find_duplicates
from muvera_core.distributed.building.ray_data import (
    choose_encoders,
    index_units,
    look_through,
    plan_files,
    require_gpus,
    require_ray_data,
)
from muvera_core.distributed.building.stages import duplicates_in, require_same
from muvera_core.distributed.building.tally import BuildReport, Tally
from muvera_core.distributed.building.units import SUFFIXES, Unit, is_text, plan_texts
from muvera_core.encoders import TokenEncoder
from muvera_core.errors import InvalidInputError
from muvera_core.index import IndexCalls
from muvera_core.validation import require_choice, require_count, require_paths, shown

OnError = Literal["skip", "raise"]
# Most problems that an error lists.
_REPORTED = 20


def build(
    index: IndexCalls,
    sources: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    batch_size: int = 64,
    n_encoders: int | None = None,
    num_gpus_per_encoder: float = 0,
    encoder: EncoderSource = None,
    show_progress: bool = False,
    on_error: OnError = "skip",
) -> BuildReport:
    """Add the documents of files to an index, with the workers of a Ray cluster.

    A folder is searched for text and Markdown files, JSON lines (``.jsonl``, ``.jsonl.gz``) and Parquet files. Ids and
    metadata are those of ``muvera index``: a text file is one document with its path as id, below the folder that holds
    the index or else absolute; a line of
    JSON is one with the fields ``text`` and perhaps ``id``, ``title`` and ``metadata``; other fields are metadata, too.
    A row of a Parquet file is what a line of JSON is, with columns in place of fields.

    What the index has already, with the same text and metadata, is not encoded again. So a build that was interrupted
    goes on where it stopped if it is started again, and one of changed files encodes what has changed. Documents that
    are no longer in the files stay.

    Args:
        index: an open index whose handle can be pickled, such as a ``ShardedMuveraIndex``.
        sources: files and folders, at paths that every machine of the cluster can read. They must not change meanwhile.
        batch_size: texts per call of the encoder. Four such batches at most are a block, which is all that a worker
            holds, and is written together.
        n_encoders: workers that encode. None takes as many as there are free GPUs or processors.
        num_gpus_per_encoder: GPUs that each of them gets. Fractions share a GPU.
        encoder: the index's encoder, or a function that makes it in each worker. None takes the encoder of ``index``.
        show_progress: show a bar on standard error.
        on_error: "skip" leaves out files and lines that cannot be used and reports them. "raise" raises
            InvalidInputError before anything is written. Empty texts are always left out.

    Returns:
        What was done. If two documents have the same id, the first one counts, and the other one is skipped.

    Raises:
        InvalidInputError: a source is missing or of an unknown type, there are no files, the cluster has too few GPUs,
            or ``on_error`` is "raise" and something cannot be used.
        EncoderMismatchError: the index was made with another encoder.
        EncoderError: the encoder returned something unusable.
        ServiceError: a shard did not answer in time, or the cluster ended the build. Call ``build`` again to continue.
        PartialWriteError: some shards could not write. Call ``build`` again to continue.
        MissingExtraError: Ray Data is not installed.
    """
    started = time.perf_counter()
    require_ray_data()
    batch_size = require_count("batch_size", batch_size)
    on_error = require_choice("on_error", on_error, get_args(OnError))
    n_encoders = None if n_encoders is None else require_count("n_encoders", n_encoders)
    gpus = _require_share_of_gpus(num_gpus_per_encoder)
    if isinstance(encoder, TokenEncoder) and not isinstance(encoder, type):
        require_same(encoder, index)
    require_gpus(n_encoders, gpus)
    tally = Tally()
    units = _plan(_find(require_paths("sources", sources), index.path), tally)
    units = _look(units, tally, show_progress=show_progress)
    if on_error == "raise":
        _require_no_problems(tally, units)
    with tqdm(total=tally.n_read, desc="indexing", unit="doc", disable=not show_progress) as bar:
        if tally.n_read:
            n_blocks = math.ceil(tally.n_read / block_size(batch_size))
            encoders = choose_encoders(n_encoders, gpus, n_blocks)
            for part in index_units(units, encoders, index, encoder, batch_size):
                tally.add(part)
                bar.update(part.n_done + part.n_skipped)
    return tally.report(time.perf_counter() - started)


def _find(paths: Sequence[Path], index_folder: Path | None) -> list[SourceFile | Unusable]:
    home = home_of(index_folder)
    files = list(find_files(paths, SUFFIXES, index_folder, home=home))
    if not files:
        raise InvalidInputError(f"{', '.join(map(str, paths))}: there are no files that end in {', '.join(SUFFIXES)}")
    return files


def _plan(files: Iterable[SourceFile | Unusable], tally: Tally) -> list[Unit]:
    """The units of files: those of text files, then those of others, each in the order of the files."""
    found: list[SourceFile] = []
    for file in files:
        if isinstance(file, Unusable):
            tally.skip(file)
        else:
            found.append(file)
    units = plan_texts([file for file in found if is_text(file)])
    for planned in plan_files([file for file in found if not is_text(file)]):
        if isinstance(planned, Unusable):
            tally.skip(planned)
        else:
            units += planned
    return units


def _look(units: Sequence[Unit], tally: Tally, *, show_progress: bool) -> list[Unit]:
    """The units, with the places of their duplicates. The tally counts what cannot be used."""
    digests = [b""] * len(units)
    tallies = [Tally()] * len(units)
    with tqdm(desc="reading", unit="doc", disable=not show_progress) as bar:
        for number, found, part in look_through(units) if units else ():
            digests[number], tallies[number] = found, part
            bar.update(part.n_read)
    for part in tallies:
        tally.add(part)
    duplicates = find_duplicates(digests)
    return [replace(unit, duplicates=places) for unit, places in zip(units, duplicates, strict=True)]


def _require_no_problems(tally: Tally, units: Sequence[Unit]) -> None:
    """Raise InvalidInputError if something of the sources cannot be used, or ids repeat."""
    n = tally.n_bad + sum(len(unit.duplicates) for unit in units)
    if not n:
        return
    repeated = (str(entry) for unit in units if unit.duplicates for entry in duplicates_in(unit))
    listed = [*tally.bad, *islice(repeated, _REPORTED)][:_REPORTED]
    raise InvalidInputError(
        f"{n} {'file or line' if n == 1 else 'files or lines'} cannot be used, and nothing was changed: correct them, "
        "or skip them with on_error='skip'\n" + "\n".join([*listed, *["…"] * (n > len(listed))])
    )


def _require_share_of_gpus(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer)) or not value >= 0:
        raise InvalidInputError(f"num_gpus_per_encoder must be a number of at least 0, got {shown(value)}")
    return float(value)
