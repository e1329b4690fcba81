"""Stage one as LangChain embeddings, for vector stores that hold one vector per text."""

from __future__ import annotations

from langchain_core.embeddings import Embeddings

from langchain_muvera.keywords import refuses_unknown
from muvera_core import FDEConfig, TextEncoder, TokenEncoder


class MuveraEmbeddings(Embeddings):
    """MUVERA encodings (FDEs): one vector per text, with which any LangChain vector store can find candidates.

    Rerank the candidates with a ``MaxSimReranker``, because these vectors alone give only a rough order. Queries and
    documents are encoded differently: never compare the vectors of two documents.

    **Which metric.** By default all vectors have unit length. Then inner product, cosine and Euclidean distance give
    the same order, and the store needs no setting. In all measurements, that order found more than the inner
    product of the plain encodings (see the README). The plain encodings (``normalize=False``) are made for inner
    product: Qdrant's ``Distance.DOT``, FAISS's ``MAX_INNER_PRODUCT``. Another metric ranks them differently, and
    Euclidean distance ranks them badly if the encoding is wide.

    Args:
        encoder: turns text into token vectors. None takes the bundled encoder.
        fde: settings of the FDE. None takes the defaults. Its dimension must be the encoder's. ``center`` cannot be
            set, because there is no corpus to take a mean from.
        normalize: scale vectors to unit length.
        batch_size: texts per call of the encoder.

    Raises:
        InvalidInputError: ``fde`` is for vectors of another width or sets ``center``, or another argument is invalid.

    Example:
        .. code-block:: python

            from langchain_core.vectorstores import InMemoryVectorStore
            from langchain_muvera import MuveraEmbeddings

            store = InMemoryVectorStore(MuveraEmbeddings())
            store.add_texts(["Ants live in colonies.", "Owls hunt at night."])
            store.similarity_search("Which bird is active after dark?", k=1)
    """

    @refuses_unknown
    def __init__(
        self,
        encoder: TokenEncoder | None = None,
        fde: FDEConfig | None = None,
        *,
        normalize: bool = True,
        batch_size: int = 64,
    ) -> None:
        self._text_encoder = TextEncoder(encoder, fde, normalize=normalize, batch_size=batch_size)

    @property
    def encoder(self) -> TokenEncoder:
        """The token encoder."""
        return self._text_encoder.encoder

    @property
    def fde(self) -> FDEConfig:
        """Settings of the FDE."""
        return self._text_encoder.fde

    @property
    def dimension(self) -> int:
        """Width of a vector. Some vector stores must be told."""
        return self._text_encoder.output_dimension

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of documents, to be stored."""
        vectors: list[list[float]] = self._text_encoder.encode_documents(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query, to search with."""
        vector: list[float] = self._text_encoder.encode_queries([text])[0].tolist()
        return vector
