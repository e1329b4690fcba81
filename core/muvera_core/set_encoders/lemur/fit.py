"""Fitting a ``LearnedSetEncoder`` to documents, in NumPy, without gradient descent.

Differences from LEMUR (arXiv 2601.21853):

- Documents are fitted first, then queries. The features that encode a query therefore do not limit a document's
  encoding, and there can be many of them.
- The hidden layer is not trained. Its units are bumps around tokens: each responds to tokens within a certain angle, as
  a maximum of inner products does. 4,096 of them explain as much as 8,192 GELUs in random places.
- The fit also uses tokens of texts as short as queries, since a token's vector depends on its context.
- A document's regression is weighted by how well each anchor can be fitted, and its ridge penalty is the covariance of
  the weights over sample documents (empirical Bayes). This saves half of the anchors, which determine the cost of a
  document.
- Inner-product graphs fail if queries and documents are distributed differently. Three changes prevent this and leave
  the order of scores unchanged: documents are centred; they are mapped by S and queries by 1/S, where S² is the
  covariance of pseudo-queries; and one more coordinate gives all documents the same length, so that the order by inner
  product is the order by distance.
- After S, principal components keep what matters to queries in a fraction of the dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

from muvera_core.set_encoders.lemur.features import best_matches, features, standardized
from muvera_core.set_encoders.lemur.settings import LearnedMatrices, LearnedSetEncoderConfig
from muvera_core.set_encoders.pseudo_queries import runs_of_tokens
from muvera_core.token_embeddings import FloatArray, TokenEmbeddings

# Queries and pseudo-queries to fit to.
_N_QUERIES = 4096
# Most documents to fit to, which bounds memory if they are short.
_MAX_DOCUMENTS = 8192
# Fewest documents to fit to, per dimension: with fewer (long) documents, encodings would overfit to them.
_DOCUMENTS_PER_DIMENSION = 2
# Hidden units that documents are fitted with. More units improve nothing, and the time grows with their cube.
_DOCUMENT_UNITS = 1536
# The share of the tokens that the ridge penalty is chosen with, and the penalties, as shares of the mean eigenvalue.
_HELD_OUT_SHARE = 0.1
_PENALTIES = (1e-5, 1e-4, 1e-3)
_TOKENS_AT_ONCE = 4096
# Share of the mean eigenvalue that is added to all eigenvalues of a matrix before it is inverted.
_RIDGE = 1e-6

_Array64 = npt.NDArray[np.float64]
_Features = Callable[[FloatArray], FloatArray]


def fit_matrices(
    documents: TokenEmbeddings, queries: TokenEmbeddings | None, config: LearnedSetEncoderConfig
) -> LearnedMatrices:
    """Fit the matrices of an encoder to these documents and queries; without queries, to parts of the documents."""
    rng = np.random.default_rng(config.seed)
    sample = _sample_documents(
        documents, config.num_sample_tokens, _DOCUMENTS_PER_DIMENSION * config.output_dimension, rng
    )
    anchors = _sample_rows(documents.vectors, config.num_anchors, rng)
    all_queries = _with_pseudo_queries(queries, sample, rng)
    tokens = np.concatenate([anchors, all_queries.vectors[: config.num_query_tokens]])
    center = tokens.mean(axis=0)
    spread = np.float32(np.sqrt(np.square(tokens - center).sum(axis=1, dtype=np.float64).mean()) or 1.0)
    hidden = _hidden_layer(standardized(tokens, center, spread), config.num_features, rng)

    def features_by(n_units: int) -> _Features:
        units = np.ascontiguousarray(hidden[:, :n_units])
        return lambda tokens: features(standardized(tokens, center, spread), units, config.feature_threshold)

    matches = _matches(sample, tokens)
    means = matches.mean(axis=0)
    matches -= means
    n = len(anchors)
    width = config.output_dimension - 1
    document_features = features_by(max(_DOCUMENT_UNITS, width))
    document_map = _document_map(matches, n, tokens, all_queries, document_features, width)
    encoded = matches[:, :n] @ document_map.T
    return LearnedMatrices(
        center=center,
        spread=np.array(spread),
        hidden=hidden,
        query_map=_query_map(features_by(config.num_features), tokens, _coordinates(encoded, matches)),
        anchors=np.ascontiguousarray(anchors.T),
        anchor_means=means[:n].copy(),
        document_map=document_map,
        length=np.array(np.sqrt(np.square(encoded).sum(axis=1).max()), dtype=np.float32),
    )


def _sample_documents(
    documents: TokenEmbeddings, n_tokens: int, n_documents: int, rng: np.random.Generator
) -> list[FloatArray]:
    """Draw documents until there are at least ``n_documents`` with at least ``n_tokens`` in all, in random order."""
    order = rng.permutation(len(documents))
    n = max(n_documents, int(np.searchsorted(np.cumsum(documents.lengths[order]), n_tokens)) + 1)
    return [documents[i] for i in order[: min(n, _MAX_DOCUMENTS)]]


def _sample_rows(rows: FloatArray, n: int, rng: np.random.Generator) -> FloatArray:
    return rows[rng.choice(len(rows), min(n, len(rows)), replace=False)]


def _with_pseudo_queries(
    queries: TokenEmbeddings | None, documents: Sequence[FloatArray], rng: np.random.Generator
) -> TokenEmbeddings:
    """The given queries, filled up to a fixed number with runs of consecutive tokens of documents."""
    given: Sequence[FloatArray] = [] if queries is None else list(islice(queries, _N_QUERIES))
    return TokenEmbeddings.from_list([*given, *runs_of_tokens(documents, _N_QUERIES - len(given), rng)])


def _hidden_layer(tokens: FloatArray, n: int, rng: np.random.Generator) -> FloatArray:
    """Directions of randomly drawn standardized tokens, of length 1, (d, n)."""
    # With replacement, so that a small corpus gives as many units.
    units = tokens[rng.integers(len(tokens), size=n)]
    lengths = np.linalg.norm(units, axis=1, keepdims=True)
    return np.ascontiguousarray((units / np.where(lengths > 0, lengths, 1)).T)


def _matches(documents: Sequence[FloatArray], tokens: FloatArray) -> FloatArray:
    """Each document's highest inner product with each token, float32, shape (documents, tokens)."""
    matches = np.empty((len(documents), len(tokens)), dtype=np.float32)
    for row, best in zip(matches, best_matches(documents, np.ascontiguousarray(tokens.T)), strict=True):
        row[:] = best
    return matches


def _document_map(
    matches: FloatArray, n: int, training: FloatArray, queries: TokenEmbeddings, psi: _Features, width: int
) -> FloatArray:
    """The map from a document's centred matches with the anchors to its encoding, (width, anchors).

    Args:
        matches: the sample documents' centred matches with the training tokens, (documents, training tokens).
        n: number of anchors, which are the first training tokens.
        training: the training tokens, (training tokens, d).
        queries: queries or pseudo-queries.
        psi: computes the features of tokens.
        width: width of the encoding, at most the number of features.
    """
    regression = _regression(psi(training), matches, n)
    sums = np.stack([psi(tokens).sum(axis=0) for tokens in queries])
    # S² = L Lᵀ. Documents are mapped by Lᵀ, which differs from S only by a rotation.
    root = np.linalg.cholesky(_regularized(np.cov(sums, rowvar=False, dtype=np.float64)))
    weights = matches[:, :n] @ (regression @ root).astype(np.float32)
    _, components = np.linalg.eigh(weights.T @ weights)
    components = components[:, : -width - 1 : -1].astype(np.float64)
    return np.ascontiguousarray((regression @ (root @ components)).T, dtype=np.float32)


def _regression(psi: FloatArray, matches: FloatArray, n: int) -> _Array64:
    """The map from a document's centred matches with the anchors to weights of the features, (n, features).

    It gives the posterior mean of w in y = Psi w + e. The covariance of w is estimated from least-squares fits of the
    sample documents to all training tokens; the variance of e at each anchor is the residual of these fits.

    Args:
        psi: features of the training tokens, (training tokens, features).
        matches: see ``_document_map``.
        n: see ``_document_map``.
    """
    gram = (psi.T @ psi).astype(np.float64)
    weights = np.linalg.solve(_regularized(gram), (psi.T @ matches.T).astype(np.float64)).astype(np.float32)
    noise = np.square(matches[:, :n].T - psi[:n] @ weights).mean(axis=1, dtype=np.float64)
    # If all texts of a corpus are equal, there is no residual.
    noise = np.maximum(noise, 1e-3 * noise.mean() + _RIDGE * (float(np.square(matches).mean()) or 1.0))
    prior = np.linalg.inv(_regularized((weights @ weights.T).astype(np.float64) / weights.shape[1]))
    weighted = psi[:n] / noise[:, None]
    precision = weighted.T @ psi[:n] + prior
    regression: _Array64 = np.linalg.solve(_regularized(precision, 1e-12), weighted.T).T
    return regression


def _coordinates(encoded: FloatArray, matches: FloatArray) -> FloatArray:
    """The target encodings of tokens: a least-squares fit of their matches with the documents, (tokens, width)."""
    gram = (encoded.T @ encoded).astype(np.float64)
    return np.linalg.solve(_regularized(gram, 1e-9), (encoded.T @ matches).astype(np.float64)).T.astype(np.float32)


def _query_map(psi: _Features, tokens: FloatArray, coordinates: FloatArray) -> FloatArray:
    """The linear map from features to coordinates, (features, width), by ridge regression.

    The last tokens are held out. The penalty with the smallest error on them is chosen.
    """
    n = len(tokens) - max(1, int(_HELD_OUT_SHARE * len(tokens)))
    held_out = psi(tokens[n:])
    width = held_out.shape[1]
    gram, right = np.zeros((width, width), np.float32), np.zeros((width, coordinates.shape[1]), np.float32)
    for start in range(0, n, _TOKENS_AT_ONCE):
        batch = psi(tokens[start : min(n, start + _TOKENS_AT_ONCE)])
        gram += batch.T @ batch
        right += batch.T @ coordinates[start : start + len(batch)]
    maps = [np.linalg.solve(_regularized(gram, penalty), right) for penalty in _PENALTIES]
    errors = [float(np.square(coordinates[n:] - held_out @ map).sum(dtype=np.float64)) for map in maps]
    return maps[int(np.argmin(errors))]


def _regularized(matrix: npt.NDArray[np.floating], ridge: float = _RIDGE) -> npt.NDArray[np.floating]:
    """Add a share of the mean eigenvalue to all eigenvalues of ``matrix``, so that it can be inverted."""
    result = matrix.copy()
    result[np.diag_indices_from(result)] += ridge * (float(np.trace(matrix)) / len(matrix) or 1.0)
    return result
