"""Reranks the documents of any retriever by exact MaxSim."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import Field, field_validator

from langchain_muvera.documents import ScoredDocument, with_scores
from langchain_muvera.keywords import StrictModel
from muvera_core import TokenEncoder, score_texts
from muvera_core.encoders import default_encoder, require_encoder


class MaxSimReranker(StrictModel, BaseDocumentCompressor):
    """Reranks documents that another retriever found by exact MaxSim, and keeps the best.

    Returns a ``ScoredDocument`` for each document that is kept, best first, with the same id, text and metadata. It has
    a ``score``, the raw MaxSim sum, and a ``normalized_score``: the mean per query token, clipped to [0, 1], which can
    be compared between queries. Documents with equal scores keep their order. A document without text matches nothing
    and scores 0.

    Every document is encoded again for every query, which takes about 13 ms for a paragraph with the bundled encoder on
    two cores. So rerank tens of documents, not thousands. A ``MuveraVectorStore`` encodes each document only once.

    Example:
        .. code-block:: python

            from langchain_classic.retrievers import ContextualCompressionRetriever
            from langchain_muvera import MaxSimReranker

            retriever = ContextualCompressionRetriever(
                base_compressor=MaxSimReranker(top_n=3), base_retriever=store.as_retriever(search_kwargs={"k": 20})
            )
    """

    encoder: TokenEncoder = Field(default_factory=default_encoder)
    """Turns text into token vectors. None takes the bundled encoder, which is the default."""
    top_n: int | None = Field(default=3, ge=1)
    """Number of documents to keep. None keeps all."""
    batch_size: int = Field(default=64, ge=1)
    """Texts per call of the encoder."""

    @field_validator("encoder", mode="before")
    @classmethod
    def _default(cls, encoder: object) -> TokenEncoder:
        return default_encoder() if encoder is None else require_encoder(encoder)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[ScoredDocument]:
        """The ``top_n`` best documents with their scores, best first. The documents passed in are left as they are."""
        texts = [document.page_content for document in documents]
        scores, normalized_scores = score_texts(self.encoder, query, texts, batch_size=self.batch_size)
        best = np.argsort(-scores, kind="stable")[: self.top_n]
        return [with_scores(documents[i], float(scores[i]), float(normalized_scores[i])) for i in best.tolist()]
