"""A learned set encoder: one short vector per token set, fitted to a corpus, whose inner product approximates MaxSim.

After LEMUR (arXiv 2601.21853). What one query token x adds to a document's MaxSim, ``max_i <x, d_i>``, is a function of
x. With features psi(x) = (gelu(W x + b), 1) that suit the corpus it is nearly linear in them, ``<psi(x), w>``, so

- a document becomes the weights w, found by regression on how well its tokens match some fixed tokens, the *anchors*;
- a query becomes the sum of psi over its tokens;

and the inner product of the two is close to MaxSim. Where this departs from the paper:

- The hidden layer isn't trained. Its units point at tokens of the corpus, which finds about as much and needs no
  gradient descent.
- The regression is weighted by how well each anchor can be fitted, and its ridge penalty is the covariance of the
  weights over sample documents (empirical Bayes). That saves half of the anchors, which are what a document costs.
- Inner-product graphs fail where queries and documents are distributed differently. Three changes that leave every
  score's order as it was prevent it: documents are centred; they are mapped by S and queries by 1/S, S² being the
  covariance of pseudo-queries (runs of consecutive document tokens); and one more coordinate gives all documents the
  same length, so that order by inner product is order by distance.
- After S, principal components keep what matters to queries in a fraction of the dimensions.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from muvera_core.errors import EncoderError, InvalidInputError
from muvera_core.files import write_new
from muvera_core.token_embeddings import FloatArray, IntArray, TokenEmbeddings, require_dimension
from muvera_core.validation import require_count, shown

MAX_SEED = (1 << 64) - 1
# What settings may ask for, since they are read from files.
MAX_SIZE = 1 << 16
MAX_BYTES = 1 << 30
# Tokens of one document that are compared with the anchors at once: bounds memory, and keeps the products in the cache.
_TOKENS_AT_ONCE = 512
# Documents whose matches with the anchors are mapped together: the map is far larger than the caches.
_DOCUMENTS_AT_ONCE = 64
_PSEUDO_QUERIES = 4096
PSEUDO_QUERY_TOKENS = (8, 24)
# Of the largest eigenvalue (or the mean one): what is smaller is noise, and is raised to it.
_EIGENVALUE_FLOOR = 1e-6
_GELU_SLOPE = 1.702  # gelu(x) ≈ x sigmoid(1.702 x): arXiv 1606.08415, section 2

_Array64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LearnedSetEncoderConfig:
    """Settings of a ``LearnedSetEncoder``.

    Attributes:
        dimension: width of a token vector.
        output_dimension: width of an encoding; the last coordinate only evens out the documents' lengths.
        num_features: hidden units. More cost at fitting and per query, nothing per document.
        num_anchors: tokens that each document is compared with; encoding time is proportional to it. A fitted encoder's
            configuration has fewer where the corpus has fewer tokens.
        num_training_tokens: tokens on which the fit is judged; the anchors are the first of them.
        num_sample_tokens: documents are drawn for the fit until they have this many tokens.
        feature_scale: steepness of the hidden units.
        seed: of all draws.
    """

    dimension: int = 128
    output_dimension: int = 256
    num_features: int = 2048
    num_anchors: int = 4096
    num_training_tokens: int = 8192
    num_sample_tokens: int = 400_000
    feature_scale: float = 0.5
    seed: int = 42

    def __post_init__(self) -> None:
        limits = {
            "dimension": (1, MAX_SIZE),
            "output_dimension": (2, MAX_SIZE),
            "num_features": (1, MAX_SIZE),
            "num_anchors": (1, MAX_SIZE),
            "num_training_tokens": (1, MAX_SIZE),
            "num_sample_tokens": (1, 1 << 40),
            "seed": (0, MAX_SEED),
        }
        for name, (minimum, maximum) in limits.items():
            value = getattr(self, name)
            # Exactly int: settings are written to JSON and hashed.
            if type(value) is not int or not minimum <= value <= maximum:
                raise InvalidInputError(
                    f"{name} must be a whole number from {minimum} to {maximum}, got {shown(value)}"
                )
        scale = self.feature_scale
        if type(scale) is not float or not 0 < scale <= 1e3:
            raise InvalidInputError(f"feature_scale must be a float above 0 and at most 1000, got {shown(scale)}")
        if self.num_anchors > self.num_training_tokens:
            raise InvalidInputError(
                f"num_anchors must be at most num_training_tokens, of which they are a part, "
                f"got {self.num_anchors} and {self.num_training_tokens}"
            )
        if self.output_dimension > self.num_features + 2:
            raise InvalidInputError(
                f"output_dimension must be at most num_features + 2, got {self.output_dimension} and "
                f"{self.num_features}: lower it or raise num_features"
            )
        if LearnedMatrices.n_bytes(self) > MAX_BYTES:
            raise InvalidInputError(
                f"the matrices would take {LearnedMatrices.n_bytes(self)} bytes, the limit is {MAX_BYTES}: lower "
                "num_features, num_anchors or output_dimension"
            )


@dataclass(frozen=True, eq=False)
class LearnedMatrices:
    """What a fit found. d token width, m hidden units, n anchors, k = output_dimension - 1. All float32.

    Attributes:
        hidden: directions of the hidden units, (d, m).
        hidden_bias: (m,).
        query_map: from a query's summed features to its encoding, (m + 1, k).
        anchors: (d, n).
        anchor_means: each anchor's mean best match over documents, (n,).
        document_map: from a document's best matches, less those means, to its encoding, (k, n).
        length: that every document's encoding is brought to, ().
    """

    hidden: FloatArray
    hidden_bias: FloatArray
    query_map: FloatArray
    anchors: FloatArray
    anchor_means: FloatArray
    document_map: FloatArray
    length: FloatArray

    @staticmethod
    def shapes(config: LearnedSetEncoderConfig) -> tuple[tuple[int, ...], ...]:
        """Of all matrices, in order."""
        d, k, m, n = config.dimension, config.output_dimension - 1, config.num_features, config.num_anchors
        return (d, m), (m,), (m + 1, k), (d, n), (n,), (k, n), ()

    @classmethod
    def n_bytes(cls, config: LearnedSetEncoderConfig) -> int:
        """Size of all matrices."""
        return 4 * sum(map(math.prod, cls.shapes(config)))

    def check(self, config: LearnedSetEncoderConfig) -> None:
        """Raise InvalidInputError unless the matrices fit ``config`` and are finite."""
        for field, expected in zip(fields(self), self.shapes(config), strict=True):
            matrix = getattr(self, field.name)
            if matrix.shape != expected or matrix.dtype != np.float32 or not np.isfinite(matrix).all():
                raise InvalidInputError(
                    f"{field.name} must be finite float32 of shape {expected}, got {matrix.dtype} of {matrix.shape}"
                )


class LearnedSetEncoder:
    """Encodes token sets with what ``fit`` learned from a corpus. Implements ``SetEncoder``."""

    def __init__(self, config: LearnedSetEncoderConfig, matrices: LearnedMatrices) -> None:
        """Take fitted matrices; see ``fit``.

        Raises:
            InvalidInputError: the matrices don't fit the configuration.
        """
        matrices.check(config)
        # The layout decides which kernel multiplies, and so the last bits.
        matrices = LearnedMatrices(*(np.asarray(getattr(matrices, f.name), order="C") for f in fields(matrices)))
        self.config = config
        self.matrices = matrices

    @classmethod
    def fit(
        cls, embeddings: TokenEmbeddings | Iterable[TokenEmbeddings], config: LearnedSetEncoderConfig | None = None
    ) -> LearnedSetEncoder:
        """Fit an encoder to documents.

        Args:
            embeddings: documents of the corpus, or a sample of at least ``num_sample_tokens`` tokens, which is as good.
                All of it is held in memory.
            config: the settings; where None, the defaults for these documents' width. A corpus with fewer tokens than
                they ask for is used whole.

        Raises:
            InvalidInputError: fewer than two documents, or fewer tokens than ``output_dimension``.
            DimensionMismatchError: the token vectors have another width than the configuration.
        """
        parts = [embeddings] if isinstance(embeddings, TokenEmbeddings) else list(embeddings)
        documents = parts[0] if len(parts) == 1 else TokenEmbeddings.concatenate(parts)
        config = config or LearnedSetEncoderConfig(dimension=documents.dimension)
        require_dimension(documents, config.dimension, "this encoder")
        if len(documents) < 2 or len(documents.vectors) < config.output_dimension:
            raise InvalidInputError(
                f"fitting needs at least 2 documents and output_dimension = {config.output_dimension} tokens, got "
                f"{len(documents)} and {len(documents.vectors)}: add documents or lower output_dimension"
            )
        matrices = _fit(documents, config)
        return cls(replace(config, num_anchors=matrices.anchor_means.size), matrices)

    @property
    def output_dimension(self) -> int:
        """Width of an encoding."""
        return self.config.output_dimension

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the configuration and of the matrices."""
        digest = hashlib.sha256(json.dumps(asdict(self.config), sort_keys=True).encode())
        for field in fields(self.matrices):
            digest.update(np.ascontiguousarray(getattr(self.matrices, field.name)).tobytes())
        return f"learned-{digest.hexdigest()[:32]}"

    def encode_documents(self, embeddings: TokenEmbeddings) -> FloatArray:
        """Encode documents, also ones that weren't there at ``fit``.

        Returns:
            float32, shape (documents, output_dimension), all of (nearly) the same length.

        Raises:
            DimensionMismatchError: the token vectors have another width than the configuration.
        """
        require_dimension(embeddings, self.config.dimension, "this encoder")
        learned = self.matrices
        encodings = np.empty((len(embeddings), self.output_dimension), dtype=np.float32)
        for start in range(0, len(embeddings), _DOCUMENTS_AT_ONCE):
            some = encodings[start : start + _DOCUMENTS_AT_ONCE]
            documents = islice(embeddings, start, start + len(some))
            matches = np.stack(list(_best_matches(documents, learned.anchors)))
            matches -= learned.anchor_means
            np.matmul(matches, learned.document_map.T, out=some[:, :-1])
            # A document added later can be longer than any in the sample; it then stays a little too long.
            missing = float(learned.length) ** 2 - np.einsum("nd,nd->n", some[:, :-1], some[:, :-1])
            some[:, -1] = np.sqrt(np.maximum(0, missing))
        return encodings

    def encode_queries(self, embeddings: TokenEmbeddings) -> FloatArray:
        """Encode queries.

        Returns:
            float32, shape (queries, output_dimension). Not normalised: compare by inner product.

        Raises:
            DimensionMismatchError: the token vectors have another width than the configuration.
        """
        require_dimension(embeddings, self.config.dimension, "this encoder")
        learned = self.matrices
        encodings = np.zeros((len(embeddings), self.output_dimension), dtype=np.float32)
        for encoding, tokens in zip(encodings, embeddings, strict=True):
            encoding[:-1] = _features(tokens, learned.hidden, learned.hidden_bias).sum(axis=0) @ learned.query_map
        return encodings

    def truncated(self, output_dimension: int) -> LearnedSetEncoder:
        """The same encoder with fewer dimensions: of the principal components the first ones.

        Raises:
            InvalidInputError: more dimensions than there are, or fewer than 2.
        """
        if require_count("output_dimension", output_dimension, 2) > self.output_dimension:
            raise InvalidInputError(f"output_dimension must be at most {self.output_dimension}, got {output_dimension}")
        k = output_dimension - 1
        learned = self.matrices
        matrices = replace(learned, query_map=learned.query_map[:, :k], document_map=learned.document_map[:k])
        return LearnedSetEncoder(replace(self.config, output_dimension=output_dimension), matrices)

    def save(self, path: Path) -> None:
        """Write the matrices to ``path``, one after the other; ``config`` says how large they are."""
        matrices = (getattr(self.matrices, field.name) for field in fields(self.matrices))
        content = np.concatenate([matrix.ravel() for matrix in matrices]).astype("<f4")
        write_new(path, content.view(np.uint8).data)

    @classmethod
    def load(cls, path: Path, config: LearnedSetEncoderConfig) -> LearnedSetEncoder:
        """Read what ``save`` wrote.

        Raises:
            EncoderError: the file doesn't fit the configuration.
            OSError: it can't be read.
        """
        shapes = LearnedMatrices.shapes(config)
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        size, expected = path.stat().st_size, LearnedMatrices.n_bytes(config)
        if size != expected:
            raise EncoderError(f"{path} has {size} bytes, expected {expected}: fit and save the encoder anew")
        parts = np.split(np.fromfile(path, dtype="<f4"), ends[:-1])
        try:
            return cls(config, LearnedMatrices(*(part.reshape(s) for part, s in zip(parts, shapes, strict=True))))
        except InvalidInputError as error:
            raise EncoderError(f"{path} is damaged, fit and save the encoder anew: {error}") from error


def _fit(documents: TokenEmbeddings, config: LearnedSetEncoderConfig) -> LearnedMatrices:
    rng = np.random.default_rng(config.seed)
    sample = _sample_documents(documents, config.num_sample_tokens, rng)
    training = _sample_rows(documents.vectors, config.num_training_tokens, rng)
    # All is fitted to tokens of about unit length, whatever theirs is.
    unit = np.float32(np.sqrt(np.einsum("td,td->", training, training, dtype=np.float64) / len(training)) or 1.0)
    sample = TokenEmbeddings(sample.vectors / unit, sample.offsets)
    training /= unit
    n = min(config.num_anchors, len(training))
    hidden, hidden_bias = _hidden_layer(_sample_rows(documents.vectors, MAX_SIZE, rng) / unit, config, rng)

    matches = np.empty((len(sample), len(training)), dtype=np.float32)
    for row, best in zip(matches, _best_matches(sample, np.ascontiguousarray(training.T)), strict=True):
        row[:] = best
    means = matches.mean(axis=0)
    matches -= means
    regression = _regression(_features(training, hidden, hidden_bias), matches, n)

    queries = _pseudo_queries(sample, hidden, hidden_bias, rng)
    # S² = L Lᵀ: documents are mapped by Lᵀ and queries by 1/L, which differ from S and 1/S by a rotation only.
    root = np.linalg.cholesky(_raised(np.cov(queries, rowvar=False, dtype=np.float64)))
    weights = matches[:, :n] @ (regression @ root).astype(np.float32)
    _, components = np.linalg.eigh(weights.T @ weights)
    components = components[:, : -config.output_dimension : -1].astype(np.float64)
    document_map = np.ascontiguousarray((regression @ (root @ components)).T, dtype=np.float32)
    encoded = matches[:, :n] @ document_map.T
    return LearnedMatrices(
        hidden=hidden / unit,
        hidden_bias=hidden_bias,
        query_map=(np.linalg.solve(root.T, components) * float(unit) ** 2).astype(np.float32),
        anchors=np.ascontiguousarray(training[:n].T) / unit,
        anchor_means=means[:n].copy(),
        document_map=document_map,
        length=np.array(np.sqrt((encoded * encoded).sum(axis=1).max()), dtype=np.float32),
    )


def _sample_documents(documents: TokenEmbeddings, n_tokens: int, rng: np.random.Generator) -> TokenEmbeddings:
    """Documents drawn until they have ``n_tokens``, in the order in which they were given."""
    order = rng.permutation(len(documents))
    n = max(2, int(np.searchsorted(np.cumsum(documents.lengths[order]), n_tokens)) + 1)
    return TokenEmbeddings.from_list([documents[i] for i in np.sort(order[:n])])


def _sample_rows(rows: FloatArray, n: int, rng: np.random.Generator) -> FloatArray:
    return rows[rng.choice(len(rows), min(n, len(rows)), replace=False)]


def _hidden_layer(
    tokens: FloatArray, config: LearnedSetEncoderConfig, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Hidden units that point from the mean token at tokens of the corpus, (d, m), and their biases, (m,)."""
    mean = tokens.mean(axis=0)
    # With repetition, so that a small corpus too gives as many; the biases tell them apart.
    directions = tokens[rng.integers(len(tokens), size=config.num_features)] - mean
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    steepness = config.feature_scale * np.sqrt(config.dimension)
    hidden = np.ascontiguousarray((directions / np.where(lengths > 0, lengths, 1) * steepness).T, dtype=np.float32)
    bias = config.feature_scale * rng.standard_normal(config.num_features) - mean @ hidden
    return hidden, bias.astype(np.float32)


def _features(tokens: FloatArray, hidden: FloatArray, bias: FloatArray) -> FloatArray:
    """Features psi of each token, float32, shape (tokens, hidden units + 1)."""
    features = np.ones((len(tokens), len(bias) + 1), dtype=np.float32)
    before = tokens @ hidden
    before += bias
    with np.errstate(over="ignore"):  # exp(large) is infinity, and its reciprocal the 0 that is meant
        np.divide(before, 1 + np.exp(-_GELU_SLOPE * before), out=features[:, :-1])
    return features


def _best_matches(documents: Iterable[FloatArray], anchors: FloatArray) -> Iterator[FloatArray]:
    """For each document, its highest inner product with each of the anchors (d, n): float32, shape (n,)."""
    products = np.empty((_TOKENS_AT_ONCE, anchors.shape[1]), dtype=np.float32)
    for tokens in documents:
        best = np.full(anchors.shape[1], -np.inf, dtype=np.float32)
        for start in range(0, len(tokens), _TOKENS_AT_ONCE):
            some = tokens[start : start + _TOKENS_AT_ONCE]
            np.maximum(best, np.matmul(some, anchors, out=products[: len(some)]).max(axis=0), out=best)
        yield best


def _regression(features: FloatArray, matches: FloatArray, n: int) -> _Array64:
    """The map from a document's centred matches with the first ``n`` training tokens to its weights, (n, m + 1).

    The posterior mean of w in y = Psi w + e, where w has the covariance that least squares finds over the sample
    documents when they may use all training tokens, and e the variance per anchor that it leaves.

    Args:
        features: of the training tokens, (training tokens, m + 1).
        matches: of the sample documents with them, centred, (documents, training tokens).
        n: how many of the training tokens are anchors.
    """
    gram = (features.T @ features).astype(np.float64)
    weights = np.linalg.solve(_raised(gram), (features.T @ matches.T).astype(np.float64)).astype(np.float32)
    noise = np.square(matches[:, :n].T - features[:n] @ weights).mean(axis=1, dtype=np.float64)
    # A corpus of equal texts leaves none.
    noise = np.maximum(noise, 1e-3 * noise.mean() + _EIGENVALUE_FLOOR * (float(np.square(matches).mean()) or 1.0))
    prior = np.linalg.inv(_raised((weights @ weights.T).astype(np.float64) / weights.shape[1]))
    weighted = features[:n] / noise[:, None]
    precision = weighted.T @ features[:n] + prior
    regression: _Array64 = np.linalg.solve(_raised(precision, 1e-12), weighted.T).T
    return regression


def _raised(matrix: _Array64, by: float = _EIGENVALUE_FLOOR) -> _Array64:
    """``matrix`` with a part of its mean eigenvalue added to each, so that it can be inverted."""
    raised = matrix.copy()
    raised[np.diag_indices_from(raised)] += by * (float(np.trace(matrix)) / len(matrix) or 1.0)
    return raised


def _pseudo_queries(
    documents: TokenEmbeddings, hidden: FloatArray, bias: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Summed features of runs of consecutive tokens, float32, shape (pseudo-queries, m + 1)."""
    shortest, longest = PSEUDO_QUERY_TOKENS
    which: IntArray = rng.integers(len(documents), size=_PSEUDO_QUERIES)
    lengths = np.minimum(rng.integers(shortest, longest + 1, size=_PSEUDO_QUERIES), documents.lengths[which])
    starts = documents.offsets[which] + rng.integers(documents.lengths[which] - lengths + 1)
    sums = np.empty((_PSEUDO_QUERIES, len(bias) + 1), dtype=np.float32)
    for row, start, length in zip(sums, starts, lengths, strict=True):
        _features(documents.vectors[start : start + length], hidden, bias).sum(axis=0, out=row)
    return sums
