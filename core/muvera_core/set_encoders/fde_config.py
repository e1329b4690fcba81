"""The settings of a Fixed Dimensional Encoding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from muvera_core.errors import DimensionMismatchError, InvalidInputError
from muvera_core.validation import shown

# What settings may ask for: an index folder carries them, and a damaged or hostile one shall not take all memory.
# Settings that are of use stay far below: the paper's widest encodings have 20480 dimensions.
MAX_OUTPUT_DIMENSION = 1 << 20
MAX_SIMHASH_PROJECTIONS = 12
# Multiplications per token, which is also the number of elements of the random matrices.
MAX_WORK_PER_TOKEN = 1 << 22
MAX_SEED = (1 << 64) - 1


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


def resolve_fde_config(config: FDEConfig | None, dimension: int) -> FDEConfig:
    """The settings that the user gave, or else the defaults for token vectors of this width.

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
