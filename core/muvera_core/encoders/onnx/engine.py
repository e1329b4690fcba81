"""Encodes texts with an ONNX model: tokenizes, lays out, runs the model on several cores, keeps the vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from muvera_core.encoders.onnx.session import OnnxModel, is_cpu
from muvera_core.encoders.text.layout import Piece, TextFormat, span_array
from muvera_core.encoders.text.naming import require_unicode_texts
from muvera_core.encoders.text.prefixes import InsertedPrefix, PrefixedText
from muvera_core.threads import max_threads
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings, unit_length

# On a GPU, pieces are encoded together. On the CPU one piece per core is faster.
_GPU_BATCH_SIZE = 32


@dataclass(frozen=True)
class TextKind:
    """How documents, or queries, are read.

    Attributes:
        tokenizer: gives the wordpieces and the prefix.
        format: how these become inputs of the model.
        limit: number of wordpieces that are encoded; with ``format.unknown`` "characters", each character of an
            unknown word counts as one.
    """

    tokenizer: InsertedPrefix
    format: TextFormat
    limit: int

    def read(self, texts: Sequence[str]) -> list[PrefixedText]:
        """The wordpieces of texts. Raises InvalidInputError if a text is not a str, or no valid Unicode."""
        return self.tokenizer(require_unicode_texts(texts), self.limit)

    def pieces(self, text: PrefixedText) -> list[Piece]:
        """The inputs of the model for a text."""
        return self.format.pieces(text.wordpieces, text.prefix)

    def spans(self, text: str) -> IntArray:
        """Start and end character of each vector of a text, int64, shape (vectors, 2)."""
        return span_array(self.pieces(self.read([text])[0]))


@dataclass(frozen=True)
class OnnxEngine:
    """A model, and how its vectors are computed.

    Attributes:
        model: the model.
        dimension: width of the vectors. If the model's are wider, their first components are taken.
        normalizes: whether vectors have to be scaled to length 1.
        num_threads: inputs that are computed at the same time; None for ``max_threads``.
        batch_size: pieces in one input. In a batch of one, a text's vectors do not depend on others, bit by bit.
    """

    model: OnnxModel
    dimension: int
    normalizes: bool = False
    num_threads: int | None = None
    batch_size: int = 1

    @classmethod
    def on(
        cls,
        device: str,
        model: OnnxModel,
        dimension: int,
        *,
        normalizes: bool = False,
        num_threads: int | None = None,
        batch_size: int | None = None,
    ) -> OnnxEngine:
        """An engine with the number of threads and the size of batches that suit the model's device.

        Args:
            device: the model's device, as it was named.
            model: see the attributes.
            dimension: see the attributes.
            normalizes: see the attributes.
            num_threads: by default ``max_threads`` on the CPU, else 1.
            batch_size: by default 1 on the CPU, else 32. It is 1 for a model that takes one text at a time.
        """
        on_cpu = is_cpu(device)
        size = batch_size or (1 if on_cpu else _GPU_BATCH_SIZE)
        return cls(
            model,
            dimension,
            normalizes,
            num_threads or (None if on_cpu else 1),
            size if model.takes_batches else 1,
        )

    def encode(self, kind: TextKind, texts: Sequence[PrefixedText]) -> TokenEmbeddings:
        """The vectors of texts, in order."""
        return self.encode_pieces([kind.pieces(text) for text in texts])

    def encode_pieces(self, texts: Sequence[Sequence[Piece]]) -> TokenEmbeddings:
        """The vectors of texts, each of which is one input of the model or several."""
        jobs: list[tuple[Piece, slice]] = []
        offsets = [0]
        stop = 0
        for pieces in texts:
            for piece in pieces:
                start, stop = stop, stop + len(piece.spans)
                jobs.append((piece, slice(start, stop)))
            offsets.append(stop)
        vectors = np.empty((stop, self.dimension), dtype=np.float32)

        def run(batch: Sequence[tuple[Piece, slice]]) -> None:
            for (_, rows), found in zip(batch, self._vectors([piece for piece, _ in batch]), strict=True):
                vectors[rows] = found

        batches = list(self._batches(jobs))
        n_threads = min(self.num_threads or max_threads(), len(batches))
        if n_threads <= 1:
            for batch in batches:
                run(batch)
        else:
            # onnxruntime releases the GIL. One window per thread keeps the cores busier than several threads per
            # window.
            with ThreadPoolExecutor(n_threads) as pool:
                for _ in pool.map(run, batches):
                    pass
        return TokenEmbeddings(vectors, np.array(offsets))

    def _batches(self, jobs: Sequence[tuple[Piece, slice]]) -> Iterator[Sequence[tuple[Piece, slice]]]:
        # Pieces of similar length share a batch, so that little padding is computed. The longest come first, so that no
        # thread begins one when the others are about to end.
        ordered = sorted(jobs, key=lambda job: -len(job[0].ids))
        for start in range(0, len(ordered), self.batch_size):
            yield ordered[start : start + self.batch_size]

    def _vectors(self, pieces: Sequence[Piece]) -> list[FloatArray]:
        asked = [piece for piece in pieces if piece.needs_the_model]
        states = iter(self.model.states(asked) if asked else [])
        return [
            piece.vectors(self._scaled(next(states)) if piece.needs_the_model else None, self.dimension)
            for piece in pieces
        ]

    def _scaled(self, states: FloatArray) -> FloatArray:
        is_wider = states.shape[1] > self.dimension
        narrow = states[:, : self.dimension] if is_wider else states
        return unit_length(narrow) if self.normalizes or is_wider else narrow
