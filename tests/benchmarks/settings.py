"""Settings that several benchmarks use for comparison."""

from __future__ import annotations

from muvera_core import FDEConfig

# The setting of most experiments in the MUVERA paper: 10,240 dimensions.
PUBLISHED_FDE = FDEConfig(
    num_repetitions=20, num_simhash_projections=5, projection_dimension=16, fill_empty_partitions=True
)
