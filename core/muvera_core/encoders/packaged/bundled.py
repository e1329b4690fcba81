"""The encoder that ships with muvera: all-MiniLM-L6-v2 trained for MaxSim, up to 128 dimensions, int8, on the CPU."""

from __future__ import annotations

from pathlib import Path

from muvera_core.encoders.packaged.encoder import PackagedEncoder
from muvera_core.encoders.packaged.fingerprints import BUNDLED, BUNDLED_DIMENSION
from muvera_core.encoders.packaged.model import PackagedModel, load_packaged_model
from muvera_core.encoders.text.reports import TextReports
from muvera_core.errors import InvalidInputError
from muvera_core.validation import require_count

ASSETS = Path(__file__).parents[1] / "assets"


class BundledEncoder(PackagedEncoder):
    """Token embeddings of English text, with nothing to download and no PyTorch.

    A text of up to 510 wordpieces is encoded whole, a longer one in overlapping windows of 254. Each window is
    encoded on its own, so a text's vectors never depend on the other texts of the call. The [CLS] vector at the start
    of every window and the [SEP] vector at its end are kept: they stand for the window as a whole.

    The vocabulary lacks most characters of other scripts, and emoji. A word with such a character gets one vector per
    character, made from the characters alone, so that it matches the same characters and nothing else. A longer
    English "word", such as 200 characters of base64, gets one vector. A window in which nothing is known has no [CLS]
    and [SEP], because they would match those of every other such window. If a third of a text is unknown, an
    UnknownTextWarning says so, once for documents and once for queries.

    Encoders can be pickled and copied: the copy loads the model's files again.

    Args:
        num_threads: number of windows that are encoded at the same time; by default one per available core.
        max_document_tokens: number of wordpieces, and characters of unknown words, of a document that are encoded.
            The rest is left out with a TruncatedTextWarning.
        max_query_tokens: the same for a query.
        dimension: width of a token vector, from 1 to 128. The first directions of the model are kept, and the vectors
            are scaled to unit length again. With 64, an index takes half the space and reranks faster, and finds
            slightly less.

    Raises:
        InvalidInputError: an argument is below 1, or the dimension above 128.
        EncoderError: the model files are missing or damaged.

    Example:
        >>> encoder = BundledEncoder()
        >>> encoder.encode_queries(["who wrote Faust?"]).vectors.shape
        (6, 128)
    """

    fingerprints = BUNDLED

    def __init__(
        self,
        num_threads: int | None = None,
        max_document_tokens: int = 16_384,
        max_query_tokens: int = 512,
        dimension: int = BUNDLED_DIMENSION,
    ) -> None:
        if require_count("dimension", dimension) > BUNDLED_DIMENSION:
            raise InvalidInputError(f"dimension must be at most {BUNDLED_DIMENSION}, got {dimension}")
        super().__init__(num_threads, max_document_tokens, max_query_tokens, dimension)

    def load_model(self) -> PackagedModel:
        """Load the files that are in this package."""
        return load_packaged_model(ASSETS, "muvera-core")

    def make_reports(self, document_remedy: str, query_remedy: str) -> TextReports:
        """Warnings that name the multilingual encoder."""
        return TextReports(document_remedy, query_remedy, reads_latin_only=True)
