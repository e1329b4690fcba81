"""Fixed Dimensional Encodings (MUVERA): one vector per token set whose inner product approximates MaxSim.

The construction is that of arXiv 2405.19504, section 2.1, with the details of the authors' published C++ code.
Each of ``num_repetitions`` rounds draws random hyperplanes that cut space into 2**num_simhash_projections
partitions. Tokens that fall into the same partition are likely near each other, so

- a query adds up its tokens per partition;
- a document averages them; an empty partition stays zero or borrows the token nearest to it in Hamming distance;

and the inner product of the two, partition by partition, is close to the sum of each query token's best match.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from muvera_core.errors import InvalidInputError
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings, require_dimension
from muvera_core.validation import shown

# What settings may ask for: an index folder carries them, and a damaged or hostile one shall not take all memory.
# Settings that are of use stay far below: the paper's widest encodings have 20480 dimensions.
MAX_OUTPUT_DIMENSION = 1 << 20
MAX_SIMHASH_PROJECTIONS = 12
# Multiplications per token, which is also the number of elements of the random matrices.
MAX_WORK_PER_TOKEN = 1 << 22
MAX_SEED = (1 << 64) - 1
# Bounds the one-hot membership of one document (float32), whatever its length and the number of partitions.
_MEMBERSHIP_ELEMENTS = 1 << 22


class SetEncoder(Protocol):
    """Turns each set of token vectors into one vector; inner products between them stand in for MaxSim."""

    @property
    def output_dimension(self) -> int:
        """Width of the vectors that the encoder returns."""

    @property
    def fingerprint(self) -> str:
        """Changes with anything that changes the vectors."""

    def encode_documents(self, embeddings: TokenEmbeddings) -> FloatArray:
        """One vector per document, float32, shape (documents, output_dimension)."""

    def encode_queries(self, embeddings: TokenEmbeddings) -> FloatArray:
        """One vector per query, float32, shape (queries, output_dimension)."""


# Has an encoder encode documents, wherever that is done.
EncodeDocuments = Callable[[SetEncoder, TokenEmbeddings], FloatArray]


def encode_on_host(encoder: SetEncoder, embeddings: TokenEmbeddings) -> FloatArray:
    """Encode documents with the encoder as it is."""
    return encoder.encode_documents(embeddings)


@dataclass(frozen=True)
class FDEConfig:
    """Settings of a ``FixedDimensionalEncoder``. Names are those of the authors' code.

    The defaults are those that found most of all that were tried with as many dimensions (see docs/benchmarks.md). The
    paper's experiments mostly use 20 repetitions, 5 hyperplanes, width 16 and filled partitions, which is four times as
    wide. ``for_dimension`` has the defaults for token vectors of another width.

    Attributes:
        dimension: width of a token vector.
        num_repetitions: independent rounds; more of them lower the variance.
        num_simhash_projections: hyperplanes per round; 2**this partitions.
        projection_dimension: width to which token values are projected within a partition; None keeps them whole.
        final_projection_dimension: width to which the finished encoding is sketched; None leaves it.
        projection: how values are projected. "dense" is the paper's matrix of ±1/√projection_dimension,
            "count_sketch" the C++ code's: each input dimension goes, with a random sign, to one output dimension.
        fill_empty_partitions: whether a document's empty partition takes the nearest token, as in the paper, or
            stays zero. A query's always stay zero.
        center: subtract the corpus mean token before encoding. Helps models whose vectors crowd in one direction.
        seed: of the random matrices.
    """

    dimension: int = 128
    num_repetitions: int = 5
    num_simhash_projections: int = 2
    projection_dimension: int | None = None
    final_projection_dimension: int | None = None
    projection: Literal["dense", "count_sketch"] = "dense"
    fill_empty_partitions: bool = False
    center: bool = False
    seed: int = 42

    def __post_init__(self) -> None:
        _require_int("dimension", self.dimension, 1)
        _require_int("num_repetitions", self.num_repetitions, 1)
        _require_int("num_simhash_projections", self.num_simhash_projections, 0)
        _require_int("seed", self.seed, 0, MAX_SEED)
        if self.projection_dimension is not None:
            _require_int("projection_dimension", self.projection_dimension, 1)
        if self.final_projection_dimension is not None:
            _require_int("final_projection_dimension", self.final_projection_dimension, 1)
        for name in ("fill_empty_partitions", "center"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidInputError(f"{name} must be True or False, got {shown(getattr(self, name))}")
        if not isinstance(self.projection, str) or self.projection not in ("dense", "count_sketch"):
            raise InvalidInputError(f"projection must be 'dense' or 'count_sketch', got {shown(self.projection)}")
        if self.num_simhash_projections > MAX_SIMHASH_PROJECTIONS:
            raise InvalidInputError(
                f"num_simhash_projections must be at most {MAX_SIMHASH_PROJECTIONS}, which cut space into "
                f"{1 << MAX_SIMHASH_PROJECTIONS} partitions, got {shown(self.num_simhash_projections)}"
            )
        if max(self.sketched_from, self.output_dimension) > MAX_OUTPUT_DIMENSION:
            raise InvalidInputError(
                f"the encoding would have num_repetitions x 2**num_simhash_projections x projection_dimension "
                f"dimensions, or final_projection_dimension, more than {MAX_OUTPUT_DIMENSION}: lower one of them (got "
                f"{', '.join(shown(value) for value in self._widths())})"
            )
        columns = self.num_repetitions * (self.num_simhash_projections + (self.projection_dimension or 0))
        if self.dimension * columns > MAX_WORK_PER_TOKEN:
            raise InvalidInputError(
                f"each token would take dimension x num_repetitions x (num_simhash_projections + projection_dimension) "
                f"multiplications, more than {MAX_WORK_PER_TOKEN}: lower one of them (got dimension "
                f"{shown(self.dimension)}, and {', '.join(shown(value) for value in self._widths())})"
            )

    @classmethod
    def for_dimension(cls, dimension: int) -> FDEConfig:
        """The defaults for token vectors of any width: encodings have about 2560 dimensions, as those of 128-d tokens.

        Wider tokens are projected to 128 dimensions; narrower ones get more repetitions.

        Raises:
            InvalidInputError: ``dimension`` isn't a whole number from 1 on, or too large to compute with.
        """
        config = cls(dimension=dimension)
        if dimension > cls.dimension:
            return replace(config, projection_dimension=cls.dimension)
        return replace(config, num_repetitions=cls.num_repetitions * cls.dimension // dimension)

    def _widths(self) -> tuple[int | None, ...]:
        return (
            self.num_repetitions,
            self.num_simhash_projections,
            self.value_dimension,
            self.final_projection_dimension,
        )

    @property
    def value_dimension(self) -> int:
        """Width of one partition's value."""
        return self.projection_dimension or self.dimension

    @property
    def sketched_from(self) -> int:
        """Width before the final projection: repetitions x partitions x value width."""
        return self.num_repetitions * (1 << self.num_simhash_projections) * self.value_dimension

    @property
    def output_dimension(self) -> int:
        """Width of an encoding."""
        return self.final_projection_dimension or self.sketched_from


@dataclass(frozen=True, eq=False)
class FDEMatrices:
    """The random draws behind an encoder. R repetitions, d token width, k hyperplanes, p projected width.

    Attributes:
        simhash: hyperplanes, float32 (R, d, k); the first is the most significant bit.
        projection: inner projections, float32 (R, d, p); None where values are kept whole.
        sketch_index: output dimension that each dimension goes to in the final projection, int64 (width before it,).
        sketch_sign: its sign there, ±1, float32.
    """

    simhash: FloatArray
    projection: FloatArray | None = None
    sketch_index: IntArray | None = None
    sketch_sign: FloatArray | None = None

    @classmethod
    def draw(cls, config: FDEConfig) -> FDEMatrices:
        """Draw all matrices from ``config.seed``."""
        rng = np.random.default_rng(config.seed)
        shape = (config.num_repetitions, config.dimension)
        simhash = rng.standard_normal((*shape, config.num_simhash_projections), dtype=np.float32)
        projection = sketch_index = sketch_sign = None
        if config.projection_dimension is not None:
            if config.projection == "dense":
                projection = _random_signs(rng, (*shape, config.projection_dimension))
                projection /= np.float32(np.sqrt(config.projection_dimension))
            else:
                projection = np.zeros((*shape, config.projection_dimension), dtype=np.float32)
                column = rng.integers(config.projection_dimension, size=(*shape, 1))
                np.put_along_axis(projection, column, _random_signs(rng, column.shape), axis=2)
        if config.final_projection_dimension is not None:
            sketch_index = rng.integers(config.final_projection_dimension, size=config.sketched_from)
            sketch_sign = _random_signs(rng, sketch_index.shape)
        return cls(simhash, projection, sketch_index, sketch_sign)

    def check(self, config: FDEConfig) -> None:
        """Raise InvalidInputError unless every matrix has the shape that ``config`` asks for."""
        shape = (config.num_repetitions, config.dimension)
        projected, sketched = config.projection_dimension, config.final_projection_dimension
        sketch_shape = (config.sketched_from,) if sketched else None
        for name, matrix, expected in (
            ("simhash", self.simhash, (*shape, config.num_simhash_projections)),
            ("projection", self.projection, (*shape, projected) if projected else None),
            ("sketch_index", self.sketch_index, sketch_shape),
            ("sketch_sign", self.sketch_sign, sketch_shape),
        ):
            got = None if matrix is None else getattr(matrix, "shape", type(matrix).__name__)
            if got != expected:
                raise InvalidInputError(f"{name} has shape {got}, but the configuration needs {expected}")
        index = self.sketch_index
        if index is not None and sketched is not None and not ((index >= 0) & (index < sketched)).all():
            raise InvalidInputError(f"sketch_index must lie in [0, {sketched})")


class FixedDimensionalEncoder:
    """Encodes token sets as ``FDEConfig`` says. Implements ``SetEncoder``.

    Texts are encoded one after the other, each with its own matrix product, so an encoding's bits depend on
    nothing but the text: neither on the batch nor on its place in it.

    Attributes:
        config: the settings.
        matrices: the random draws.
        mean: that is subtracted from tokens, float32, shape (d,); None where nothing is.
        transform: all hyperplanes, then all projections, side by side, float32, shape (d, R * k + R * p).
    """

    def __init__(
        self, config: FDEConfig, *, matrices: FDEMatrices | None = None, mean: npt.ArrayLike | None = None
    ) -> None:
        """Draw the random matrices, or take them.

        Args:
            config: the settings.
            matrices: draws to use in place of those from ``config.seed``, to reproduce another implementation.
            mean: the corpus's mean token vector, shape (dimension,); needed where ``config.center`` is set.

        Raises:
            InvalidInputError: matrices or mean don't fit the configuration.
        """
        if not isinstance(config, FDEConfig):
            raise InvalidInputError(f"config must be an FDEConfig, got {type(config).__name__}")
        if matrices is not None and not isinstance(matrices, FDEMatrices):
            raise InvalidInputError(f"matrices must be FDEMatrices, got {type(matrices).__name__}")
        self.config = config
        self.matrices = matrices or FDEMatrices.draw(config)
        self.matrices.check(config)
        self.mean = None if mean is None else _mean_vector(mean)
        got, expected = None if self.mean is None else self.mean.shape, (config.dimension,) if config.center else None
        if got != expected:
            raise InvalidInputError(f"mean has shape {got}, but with center={config.center} it must have {expected}")
        cells = np.arange(1 << config.num_simhash_projections)
        self._cells = cells
        # Partition p of the encoding holds the tokens whose bits are the Gray code of p.
        self._bits_of_partition = cells ^ (cells >> 1)
        self._bit_weights = 1 << np.arange(config.num_simhash_projections - 1, -1, -1)
        # One product gives every round's hyperplane sides and projected values: columns (simhash | projection).
        blocks = [self.matrices.simhash] + ([] if self.matrices.projection is None else [self.matrices.projection])
        self.transform = np.concatenate(
            [np.asarray(m, dtype=np.float32).transpose(1, 0, 2).reshape(config.dimension, -1) for m in blocks], axis=1
        )

    @property
    def output_dimension(self) -> int:
        """Width of an encoding."""
        return self.config.output_dimension

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the configuration and of the matrices themselves, since NumPy may change what a seed draws."""
        digest = hashlib.sha256(json.dumps(asdict(self.config), sort_keys=True).encode())
        for array in (self.transform, self.matrices.sketch_index, self.matrices.sketch_sign, self.mean):
            if array is not None:
                digest.update(np.ascontiguousarray(array).tobytes())
        return f"fde-{digest.hexdigest()[:32]}"

    def encode_documents(self, embeddings: TokenEmbeddings) -> FloatArray:
        """Encode documents: per partition the mean of its tokens.

        Returns:
            float32, shape (documents, output_dimension). Not normalised: compare by inner product.

        Raises:
            DimensionMismatchError: the token vectors have another width than the configuration.
        """
        return self._encode(embeddings, self._document_values)

    def encode_queries(self, embeddings: TokenEmbeddings) -> FloatArray:
        """Encode queries: per partition the sum of its tokens; empty partitions stay zero.

        Returns:
            float32, shape (queries, output_dimension). Not normalised: compare by inner product.

        Raises:
            DimensionMismatchError: the token vectors have another width than the configuration.
        """
        return self._encode(embeddings, self._query_values)

    def _encode(self, embeddings: TokenEmbeddings, aggregate: _Aggregate) -> FloatArray:
        require_dimension(embeddings, self.config.dimension, "this encoder")
        encodings = np.empty((len(embeddings), self.output_dimension), dtype=np.float32)
        for i, tokens in enumerate(embeddings):
            encodings[i] = self._sketch(self._encode_set(tokens, aggregate).reshape(-1))
        return encodings

    def _encode_set(self, tokens: FloatArray, aggregate: _Aggregate) -> FloatArray:
        """Encode one token set, shape (repetitions, partitions, value width), before the final projection."""
        config = self.config
        if self.mean is not None:
            tokens = tokens - self.mean
        rounds, n = config.num_repetitions, len(tokens)
        product = tokens @ self.transform
        n_hash_columns = rounds * config.num_simhash_projections
        sides = product[:, :n_hash_columns].reshape(n, rounds, config.num_simhash_projections) > 0
        # Contiguous, since the layout decides which kernel multiplies, and so the last bits.
        cell_of_token = np.ascontiguousarray((sides @ self._bit_weights).T)
        if config.projection_dimension is None:
            values = np.broadcast_to(tokens, (rounds, n, config.dimension))
        else:
            values = product[:, n_hash_columns:].reshape(n, rounds, -1).transpose(1, 0, 2)

        encoding = np.empty((rounds, len(self._cells), config.value_dimension), dtype=np.float32)
        step = max(1, _MEMBERSHIP_ELEMENTS // (len(self._cells) * n))
        for start in range(0, rounds, step):
            some = slice(start, start + step)
            membership = cell_of_token[some, None, :] == self._cells[None, :, None]
            encoding[some] = aggregate(membership, values[some])[:, self._bits_of_partition]
        return encoding

    def _query_values(self, membership: npt.NDArray[np.bool_], values: FloatArray) -> FloatArray:
        """Sum of values per cell: membership (rounds, cells, tokens), values (rounds, tokens, width)."""
        sums: FloatArray = np.matmul(membership.astype(np.float32), values)
        return sums

    def _document_values(self, membership: npt.NDArray[np.bool_], values: FloatArray) -> FloatArray:
        """Mean of values per cell; an empty cell takes the value of the token nearest in Hamming distance."""
        counts = membership.sum(axis=2)
        means = self._query_values(membership, values)
        means /= np.maximum(counts, 1)[:, :, None]
        if self.config.fill_empty_partitions:
            rounds, cells = np.nonzero(counts == 0)
            means[rounds, cells] = values[rounds, self._nearest_token(membership, counts)[rounds, cells]]
        return means

    def _nearest_token(self, membership: npt.NDArray[np.bool_], counts: npt.NDArray[np.int_]) -> IntArray:
        """First token among those at the least Hamming distance from each cell, shape (rounds, cells).

        Hamming distance is a sum over bits, so it can be relaxed one bit at a time. What is relaxed is
        ``distance x tokens + first token``, whose order is (distance, token index).
        """
        n, n_bits = membership.shape[2], self.config.num_simhash_projections
        unreached = n * (n_bits + 1)
        nearest = np.where(counts > 0, membership.argmax(axis=2), unreached)
        for bit in range(n_bits):
            nearest = np.minimum(nearest, nearest[:, self._cells ^ (1 << bit)] + n)
        first: IntArray = nearest % n
        return first

    def _sketch(self, encoding: FloatArray) -> FloatArray:
        index, sign = self.matrices.sketch_index, self.matrices.sketch_sign
        if index is None or sign is None:
            return encoding
        return np.bincount(index, weights=encoding * sign, minlength=self.output_dimension).astype(np.float32)


def unit_length(vectors: FloatArray) -> FloatArray:
    """Rows scaled to length 1, float32; a row of zeros stays as it is."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: FloatArray = (vectors / np.where(norms > 0, norms, 1)).astype(np.float32, copy=False)
    return scaled


class _Aggregate(Protocol):
    def __call__(self, membership: npt.NDArray[np.bool_], values: FloatArray) -> FloatArray: ...


def _random_signs(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    return rng.integers(2, size=shape).astype(np.float32) * 2 - 1


def _mean_vector(mean: npt.ArrayLike) -> FloatArray:
    """A mean token, held to what is asked of tokens."""
    try:
        one_row: Any = [mean]
        rows = TokenEmbeddings.from_list([one_row])
    except InvalidInputError as error:
        raise InvalidInputError(f"mean must be one token vector: {error}") from None
    vector: FloatArray = rows.vectors[0]
    return vector


def _require_int(name: str, value: object, minimum: int, maximum: int | None = None) -> None:
    # Exactly int: settings are written to JSON and hashed.
    if type(value) is not int or value < minimum or (maximum is not None and value > maximum):
        limits = f"at least {minimum}" + ("" if maximum is None else f" and at most {maximum}")
        raise InvalidInputError(f"{name} must be a whole number of {limits}, got {shown(value)}")
