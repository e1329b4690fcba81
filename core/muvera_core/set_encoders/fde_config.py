"""The settings of a Fixed Dimensional Encoding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from muvera_core.errors import DimensionMismatchError, InvalidInputError
from muvera_core.validation import shown

# Limits of the settings. They are read from index folders, and a damaged or hostile folder must not use up all memory.
# Useful settings are far below: the paper's widest encodings have 20480 dimensions.
MAX_OUTPUT_DIMENSION = 1 << 20
MAX_SIMHASH_PROJECTIONS = 12
# Multiplications per token, which is also the number of elements of the random matrices.
MAX_WORK_PER_TOKEN = 1 << 22
MAX_SEED = (1 << 64) - 1


@dataclass(frozen=True)
class FDEConfig:
    """Settings of a ``FixedDimensionalEncoder``, with the names of the authors' code.

    Of all settings that were tried with the same number of dimensions, the defaults had the highest recall (see
    docs/benchmarks.md). The paper's experiments mostly use 20 repetitions, 5 hyperplanes, width 16 and filled
    partitions; these encodings are four times as wide. ``for_dimension`` returns the defaults for token vectors of
    another width.

    Attributes:
        dimension: width of a token vector.
        num_repetitions: number of independent rounds; more rounds lower the variance.
        num_simhash_projections: hyperplanes per round. They form 2**num_simhash_projections partitions.
        projection_dimension: width to which token values are projected within a partition; None keeps them whole.
        final_projection_dimension: width to which the finished encoding is sketched; None keeps it whole.
        projection: how values are projected. "dense" is the paper's matrix of ±1/√projection_dimension.
            "count_sketch" is the C++ code's: each input dimension goes, with a random sign, to one output dimension.
        fill_empty_partitions: whether an empty partition of a document takes the nearest token, as in the paper, or
            stays zero. Empty partitions of a query always stay zero.
        center: whether to subtract the corpus's mean token before encoding. This helps with models whose vectors crowd
            in one direction.
        seed: seed of the random matrices.
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
                f"num_simhash_projections must be at most {MAX_SIMHASH_PROJECTIONS} "
                f"({1 << MAX_SIMHASH_PROJECTIONS} partitions), got {shown(self.num_simhash_projections)}"
            )
        if max(self.sketched_from, self.output_dimension) > MAX_OUTPUT_DIMENSION:
            raise InvalidInputError(
                f"the encoding would have more than {MAX_OUTPUT_DIMENSION} dimensions (num_repetitions x "
                "2**num_simhash_projections x projection_dimension, or final_projection_dimension): lower one of them, "
                f"got {', '.join(shown(value) for value in self._widths())}"
            )
        columns = self.num_repetitions * (self.num_simhash_projections + (self.projection_dimension or 0))
        if self.dimension * columns > MAX_WORK_PER_TOKEN:
            raise InvalidInputError(
                f"each token would take more than {MAX_WORK_PER_TOKEN} multiplications (dimension x num_repetitions x "
                "(num_simhash_projections + projection_dimension)): lower one of them, "
                f"got dimension {shown(self.dimension)} and {', '.join(shown(value) for value in self._widths())}"
            )

    @classmethod
    def for_dimension(cls, dimension: int) -> FDEConfig:
        """The defaults for token vectors of any width. Encodings have about 2560 dimensions, as with 128-d tokens.

        Wider tokens are projected to 128 dimensions; narrower tokens get more repetitions.

        Raises:
            InvalidInputError: ``dimension`` is not a whole number of at least 1, or is too large to compute with.
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


def resolve_fde_config(config: FDEConfig | None, dimension: int) -> FDEConfig:
    """The given settings, or the defaults for token vectors of this width if there are none.

    Raises:
        InvalidInputError: ``config`` is not an FDEConfig.
        DimensionMismatchError: ``config`` is for token vectors of another width.
    """
    if config is None:
        return FDEConfig.for_dimension(dimension)
    if not isinstance(config, FDEConfig):
        raise InvalidInputError(f"fde must be an FDEConfig, got {type(config).__name__}")
    if config.dimension != dimension:
        raise DimensionMismatchError(
            f"fde is for {config.dimension}-d token vectors, but the encoder gives {dimension}-d ones: "
            f"use FDEConfig.for_dimension({dimension})"
        )
    return config


def _require_int(name: str, value: object, minimum: int, maximum: int | None = None) -> None:
    # Exactly int: settings are written to JSON and hashed.
    if type(value) is not int or value < minimum or (maximum is not None and value > maximum):
        limits = f"at least {minimum}" + ("" if maximum is None else f" and at most {maximum}")
        raise InvalidInputError(f"{name} must be a whole number of {limits}, got {shown(value)}")
