"""The arguments and options that several commands share, and what the commands do with them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, get_args

import click
from tqdm import tqdm

from muvera_core.encoders import TokenEncoder, is_precomputed, named_encoder
from muvera_core.errors import InvalidInputError, MuveraError
from muvera_core.index import MuveraIndex
from muvera_core.search import SearchMode
from muvera_core.storage import read_encoder

INDEX = click.argument("folder", metavar="INDEX", type=click.Path(path_type=Path))
ENCODER = click.option(
    "--encoder",
    "checkpoint",
    type=click.Path(path_type=Path),
    metavar="MODEL",
    help="The encoder, if the index is not made with the bundled one: 'multilingual', or the folder of a model of "
    "sentence-transformers, PyLate or ColBERT, or in ONNX format.",
)
ENCODER_DEVICE = click.option(
    "--encoder-device",
    metavar="NAME",
    show_default="the encoder's own",
    help="Device that the encoder computes on: cpu, cuda or cuda:N, or another that it knows.",
)
DEVICE = click.option(
    "--device",
    default="cpu",
    show_default=True,
    metavar="NAME",
    help="Device to search on: cpu, cuda, cuda:N or auto.",
)
N_CANDIDATES = click.option(
    "--n-candidates",
    type=click.IntRange(min=1),
    metavar="N",
    show_default="chosen by the index",
    help="Number of candidates to rerank by exact MaxSim. More candidates find more and take longer.",
)
MODE = click.option(
    "--mode",
    type=click.Choice(get_args(SearchMode)),
    default="late",
    show_default=True,
    help="What ranks documents: exact MaxSim (late), BM25 (lexical), or both (hybrid). `muvera words` says what the "
    "words are.",
)
LEXICAL_WEIGHT = click.option(
    "--lexical-weight",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    show_default="chosen by the index or for each question",
    help="BM25's share in mode hybrid.",
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
QUESTIONS_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def text(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """A text argument. Bytes that the locale cannot decode arrive as halves of surrogate pairs and are replaced."""
    return os.fsencode(value).decode("utf-8", "replace")


def json_object(ctx: click.Context, param: click.Parameter, value: str | None) -> dict[str, Any] | None:
    """An argument that is a JSON object."""
    if value is None:
        return None
    try:
        content = json.loads(text(ctx, param, value))
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f'it is not JSON ({error}); an example is {{"year": {{"$gte": 2020}}}}') from None
    if not isinstance(content, dict):
        raise click.BadParameter("it must be a JSON object")
    return content


def bundled_encoder(dimension: int, device: str | None) -> TokenEncoder:
    """The bundled encoder in a dimension, on a device."""
    from muvera_core.encoders import BundledEncoder

    return BundledEncoder(dimension=dimension, device=device or "cpu")


def load_encoder(checkpoint: Path | None, index: Path, device: str | None) -> TokenEncoder | None:
    """The encoder of a name or a model's folder. None stands for the one that the index takes if none is given.

    Args:
        checkpoint: "bundled", "multilingual", or the model's folder. A folder of such a name needs its absolute path.
        index: the folder of the index that the encoder is for. It may be missing or damaged.
        device: the device that the encoder computes on. None takes its own default.
    """
    if checkpoint is None and device is None:
        return None
    try:
        fingerprint = read_encoder(index.absolute())
    except MuveraError:
        fingerprint = None
    return named_encoder(checkpoint, fingerprint, device)


def takes_text(folder: Path) -> bool:
    """Whether texts can be encoded for the index, which then does not hold token vectors that were made elsewhere."""
    return not is_precomputed(read_encoder(folder.absolute()))


def require_text_encoder(folder: Path) -> None:
    """Raise InvalidInputError unless the index takes texts."""
    if not takes_text(folder):
        encoder = read_encoder(folder.absolute())
        raise InvalidInputError(
            f"{folder} holds token vectors that were made elsewhere ({encoder}), so no text can be encoded for it: "
            "use add_embeddings and search_embeddings of muvera_core.MuveraIndex in Python"
        )


def require_words(index: MuveraIndex, option: str) -> None:
    """Raise InvalidInputError unless the index has a word index, which an option needs."""
    if index.lexical is None:
        raise InvalidInputError(f"{index.path} has no word index, which {option} needs: `muvera words INDEX` makes one")


def progress_bar(**settings: Any) -> Any:
    """A progress bar on standard error, if that is a terminal."""
    return tqdm(disable=None, leave=False, dynamic_ncols=True, **settings)
