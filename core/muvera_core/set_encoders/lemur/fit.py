"""Fitting a ``LearnedSetEncoder`` to documents, in NumPy, without gradient descent.

Where this departs from LEMUR (arXiv 2601.21853):

- Documents and queries are fitted one after the other, so that the features by which a query is encoded don't limit
  what a document's vector can say, and can be many.
- The hidden layer isn't trained. Its units are bumps around tokens: they answer to tokens within a certain angle, as a
  maximum of inner products does. 4,096 of these explain as much as twice as many GELUs in random places.
- It is fitted to tokens of texts as short as questions, too, since a token's vector depends on what is beside it.
- A document's regression is weighted by how well each anchor can be fitted, and its ridge penalty is the covariance of
  the weights over sample documents (empirical Bayes). That saves half of the anchors, which are what a document costs.
- Inner-product graphs fail where queries and documents are distributed differently. Three changes that leave every
  score's order as it was prevent it: documents are centred; they are mapped by S and queries by 1/S, S² being the
  covariance of pseudo-queries; and one more coordinate gives all documents the same length, so that order by inner
  product is order by distance.
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

_PSEUDO_QUERIES = 4096
# Documents to fit to, at most: bounds memory where they are short.
_MAX_DOCUMENTS = 8192
# Long documents' tokens would be few documents: with as many dimensions, encodings are fitted to their chance.
_DOCUMENTS_PER_DIMENSION = 2
# Hidden units by which documents are fitted; more find no more, and the time grows with their cube.
_DOCUMENT_UNITS = 1536
# Of the tokens, the share that the ridge penalty is chosen by; and the penalties, as shares of the mean eigenvalue.
_HELD_BACK = 0.1
_PENALTIES = (1e-5, 1e-4, 1e-3)
_TOKENS_AT_ONCE = 4096
# Of the largest eigenvalue (or the mean one): what is smaller is noise, and is raised to it.
_EIGENVALUE_FLOOR = 1e-6

_Array64 = npt.NDArray[np.float64]
_Features = Callable[[FloatArray], FloatArray]


def fit_matrices(
    documents: TokenEmbeddings, queries: TokenEmbeddings | None, config: LearnedSetEncoderConfig
) -> LearnedMatrices:
    """The matrices of an encoder for documents like these, and queries like these or like parts of the documents."""
    rng = np.random.default_rng(config.seed)
    sample = _sample_documents(
        documents, config.num_sample_tokens, _DOCUMENTS_PER_DIMENSION * config.output_dimension, rng
    )
    anchors = _sample_rows(documents.vectors, config.num_anchors, rng)
    asked = _asked(queries, sample, rng)
    tokens = np.concatenate([anchors, asked.vectors[: config.num_query_tokens]])
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
    document_map = _document_map(matches, n, tokens, asked, document_features, width)
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
    documents: TokenEmbeddings, n_tokens: int, n_least: int, rng: np.random.Generator
) -> list[FloatArray]:
    """Documents drawn until they are ``n_least`` and have ``n_tokens``, in the order in which they were drawn."""
    order = rng.permutation(len(documents))
    n = max(n_least, int(np.searchsorted(np.cumsum(documents.lengths[order]), n_tokens)) + 1)
    return [documents[i] for i in order[: min(n, _MAX_DOCUMENTS)]]


def _sample_rows(rows: FloatArray, n: int, rng: np.random.Generator) -> FloatArray:
    return rows[rng.choice(len(rows), min(n, len(rows)), replace=False)]


def _asked(
    queries: TokenEmbeddings | None, documents: Sequence[FloatArray], rng: np.random.Generator
) -> TokenEmbeddings:
    """The given queries and, up to a fixed number, runs of consecutive tokens of documents."""
    given: Sequence[FloatArray] = [] if queries is None else list(islice(queries, _PSEUDO_QUERIES))
    return TokenEmbeddings.from_list([*given, *runs_of_tokens(documents, _PSEUDO_QUERIES - len(given), rng)])


def _hidden_layer(tokens: FloatArray, n: int, rng: np.random.Generator) -> FloatArray:
    """Directions of standardized tokens, of length 1, (d, n)."""
    # With repetition, so that a small corpus too gives as many.
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
    matches: FloatArray, n: int, training: FloatArray, asked: TokenEmbeddings, psi: _Features, width: int
) -> FloatArray:
    """From a document's centred matches with the anchors to its encoding, (width, anchors).

    Args:
        matches: of the sample documents with the training tokens, centred, (documents, training tokens).
        n: how many of the training tokens, the first, are anchors.
        training: the training tokens, (training tokens, d).
        asked: queries, real or not.
        psi: features of tokens.
        width: of the encoding, at most the number of features.
    """
    regression = _regression(psi(training), matches, n)
    sums = np.stack([psi(tokens).sum(axis=0) for tokens in asked])
    # S² = L Lᵀ: documents are mapped by Lᵀ, which differs from S by a rotation only.
    root = np.linalg.cholesky(_raised(np.cov(sums, rowvar=False, dtype=np.float64)))
    weights = matches[:, :n] @ (regression @ root).astype(np.float32)
    _, components = np.linalg.eigh(weights.T @ weights)
    components = components[:, : -width - 1 : -1].astype(np.float64)
    return np.ascontiguousarray((regression @ (root @ components)).T, dtype=np.float32)


def _regression(psi: FloatArray, matches: FloatArray, n: int) -> _Array64:
    """The map from a document's centred matches with the anchors to weights of the features, (n, features).

    The posterior mean of w in y = Psi w + e, where w has the covariance that least squares finds over the sample
    documents when they may use all training tokens, and e the variance per anchor that it leaves.

    Args:
        psi: features of the training tokens, (training tokens, features).
        matches: see ``_document_map``.
        n: see there.
    """
    gram = (psi.T @ psi).astype(np.float64)
    weights = np.linalg.solve(_raised(gram), (psi.T @ matches.T).astype(np.float64)).astype(np.float32)
    noise = np.square(matches[:, :n].T - psi[:n] @ weights).mean(axis=1, dtype=np.float64)
    # A corpus of equal texts leaves none.
    noise = np.maximum(noise, 1e-3 * noise.mean() + _EIGENVALUE_FLOOR * (float(np.square(matches).mean()) or 1.0))
    prior = np.linalg.inv(_raised((weights @ weights.T).astype(np.float64) / weights.shape[1]))
    weighted = psi[:n] / noise[:, None]
    precision = weighted.T @ psi[:n] + prior
    regression: _Array64 = np.linalg.solve(_raised(precision, 1e-12), weighted.T).T
    return regression


def _coordinates(encoded: FloatArray, matches: FloatArray) -> FloatArray:
    """What tokens' encodings should be, given the documents': least squares on how well they match, (tokens, width)."""
    gram = (encoded.T @ encoded).astype(np.float64)
    return np.linalg.solve(_raised(gram, 1e-9), (encoded.T @ matches).astype(np.float64)).T.astype(np.float32)


def _query_map(psi: _Features, tokens: FloatArray, coordinates: FloatArray) -> FloatArray:
    """The linear map from features to coordinates, (features, width), by ridge regression.

    Its penalty is the one that suits the last tokens best, which the regressions are made without.
    """
    n = len(tokens) - max(1, int(_HELD_BACK * len(tokens)))
    held = psi(tokens[n:])
    width = held.shape[1]
    gram, right = np.zeros((width, width), np.float32), np.zeros((width, coordinates.shape[1]), np.float32)
    for start in range(0, n, _TOKENS_AT_ONCE):
        some = psi(tokens[start : min(n, start + _TOKENS_AT_ONCE)])
        gram += some.T @ some
        right += some.T @ coordinates[start : start + len(some)]
    maps = [np.linalg.solve(_raised(gram, penalty), right) for penalty in _PENALTIES]
    left = [float(np.square(coordinates[n:] - held @ map).sum(dtype=np.float64)) for map in maps]
    return maps[int(np.argmin(left))]


def _raised(matrix: npt.NDArray[np.floating], by: float = _EIGENVALUE_FLOOR) -> npt.NDArray[np.floating]:
    """``matrix`` with a part of its mean eigenvalue added to each, so that it can be inverted."""
    raised = matrix.copy()
    raised[np.diag_indices_from(raised)] += by * (float(np.trace(matrix)) / len(matrix) or 1.0)
    return raised
