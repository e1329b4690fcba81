"""LEMUR as its authors describe it (arXiv 2601.21853), for comparison. Needs PyTorch.

A network with one hidden layer learns how well tokens match sample documents. The hidden layer gives the features of a
token. A document is encoded as the output weights that fit its matches by least squares, and a query as the sum of its
tokens' features. The score is their inner product.
"""

from __future__ import annotations

import numpy as np
import torch

from muvera_core import TokenEmbeddings
from muvera_core.set_encoders.lemur.features import best_matches
from muvera_core.token_embeddings import FloatArray

SAMPLE_DOCUMENTS = 2048
TRAINING_TOKENS = 16_384
REGRESSION_TOKENS = 4_096
EPOCHS = 40
BATCH = 512
LEARNING_RATE = 3e-3


class PublishedLemur:
    """Features from a trained hidden layer of ``width`` units, and the least-squares solution for document weights."""

    def __init__(self, documents: TokenEmbeddings, width: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        which = rng.choice(len(documents), min(SAMPLE_DOCUMENTS, len(documents)), replace=False)
        some = TokenEmbeddings.from_list([documents[i] for i in which])
        rows = rng.choice(len(documents.vectors), min(TRAINING_TOKENS, len(documents.vectors)), replace=False)
        tokens = documents.vectors[rows]
        targets = np.stack([best.copy() for best in best_matches(some, np.ascontiguousarray(tokens.T))]).T
        targets = (targets - targets.mean()) / targets.std()
        self.hidden = torch.nn.Sequential(torch.nn.Linear(documents.dimension, width), torch.nn.GELU())
        output = torch.nn.Linear(width, targets.shape[1])
        optimizer = torch.optim.Adam([*self.hidden.parameters(), *output.parameters()], LEARNING_RATE)
        x, y = torch.from_numpy(tokens), torch.from_numpy(targets.astype(np.float32))
        steps = EPOCHS * len(x) // BATCH
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
        for _ in range(steps):
            batch = torch.randint(len(x), (BATCH,))
            loss = torch.nn.functional.mse_loss(output(self.hidden(x[batch])), y[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        self.anchors = np.ascontiguousarray(tokens[:REGRESSION_TOKENS].T)
        features = self._features(tokens[:REGRESSION_TOKENS]).astype(np.float64)
        gram = features.T @ features
        gram[np.diag_indices_from(gram)] += 1e-6 * np.trace(gram) / len(gram)
        self.least_squares = np.linalg.solve(gram, features.T).astype(np.float32)

    def encode_documents(self, documents: TokenEmbeddings) -> FloatArray:
        return np.stack([self.least_squares @ best for best in best_matches(documents, self.anchors)])

    def encode_queries(self, queries: TokenEmbeddings) -> FloatArray:
        return np.stack([self._features(tokens).sum(axis=0) for tokens in queries])

    def _features(self, tokens: FloatArray) -> FloatArray:
        with torch.no_grad():
            features: FloatArray = self.hidden(torch.from_numpy(tokens)).numpy()
        return features
