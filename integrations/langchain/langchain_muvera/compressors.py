"""Exact late-interaction reranking of any retriever's documents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field

from langchain_muvera.documents import with_scores
from muvera_core import TokenEncoder, score_texts
from muvera_core.encoders import BundledEncoder


class MaxSimReranker(BaseDocumentCompressor):
    """Reranks the documents that another retriever found by exact MaxSim, and keeps the best.

    What is returned are copies, best first, with two scores in ``metadata``: ``relevance_score``, in [0, 1] and
    comparable between questions, and ``maxsim_score``, the raw sum of the best match of each query token. Documents
    of equal score stay in their order. One without text matches nothing: its scores are 0.

    Every passage is encoded for every question, some 13 ms for a paragraph with the bundled encoder on two cores:
    rerank tens of passages, not thousands. A ``MuveraVectorStore`` encodes each only once.

    Example:
        .. code-block:: python

            from langchain_classic.retrievers import ContextualCompressionRetriever
            from langchain_muvera import MaxSimReranker

            retriever = ContextualCompressionRetriever(
                base_compressor=MaxSimReranker(top_n=3), base_retriever=store.as_retriever(search_kwargs={"k": 20})
            )
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    encoder: TokenEncoder = Field(default_factory=BundledEncoder)
    """Turns text into token vectors; by default the bundled one."""
    top_n: int | None = Field(default=3, ge=1)
    """How many documents to keep; None keeps all."""
    batch_size: int = Field(default=64, ge=1)
    """Passages per call of the encoder."""

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The ``top_n`` best of the documents, best first, as copies with their scores.

        Raises:
            InvalidInputError: the question is empty.
        """
        texts = [document.page_content for document in documents]
        scores, relevance = score_texts(self.encoder, query, texts, batch_size=self.batch_size)
        best = np.argsort(-scores, kind="stable")[: self.top_n]
        return [with_scores(documents[i], float(scores[i]), float(relevance[i])) for i in best.tolist()]
