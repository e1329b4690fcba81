"""Stage one as plain vectors, for vector stores that know nothing of token embeddings."""

from __future__ import annotations

from langchain_core.embeddings import Embeddings

from muvera_core import FDEConfig, TextEncoder, TokenEncoder


class MuveraEmbeddings(Embeddings):
    """MUVERA encodings (FDEs): one vector per text, so that any LangChain vector store can find candidates.

    Give the candidates to a ``MaxSimReranker``: alone, the order of these vectors is a rough one. Documents and
    questions are encoded differently, so don't compare documents with one another.

    **Which metric.** The plain encodings (``normalize=False``) are made for inner product: Qdrant's ``Distance.DOT``,
    FAISS's ``MAX_INNER_PRODUCT``. Under another metric they rank differently, and under Euclidean distance badly with
    wide settings. By default all vectors are of unit length, so that inner product, cosine and Euclidean distance
    give one and the same order: nothing has to be set in the store. That order is the plain encodings' cosine, and it
    found more than their inner product wherever it was measured (see the README).

    Args:
        encoder: turns text into token vectors; None takes the bundled one.
        fde: settings of the encoding; None takes the defaults. Its dimension must be the encoder's, and ``center``
            can't be set, since there is no corpus to take a mean from.
        normalize: scale vectors to unit length.
        batch_size: texts per call of the encoder.

    Raises:
        InvalidInputError: an argument can't be used.

    Example:
        .. code-block:: python

            from langchain_core.vectorstores import InMemoryVectorStore
            from langchain_muvera import MuveraEmbeddings

            store = InMemoryVectorStore(MuveraEmbeddings())
            store.add_texts(["Ants live in colonies.", "Owls hunt at night."])
            store.similarity_search("Which bird is active after dark?", k=1)
    """

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
        """Settings of the encoding."""
        return self._text_encoder.fde

    @property
    def dimension(self) -> int:
        """Width of a vector, which some stores want to know before the first."""
        return self._text_encoder.output_dimension

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector per passage, to be stored."""
        vectors: list[list[float]] = self._text_encoder.encode_documents(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question, to search with."""
        vector: list[float] = self._text_encoder.encode_queries([text])[0].tolist()
        return vector
