"""Stage one as a LlamaIndex embedding model, for vector stores that hold one vector per text."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.retrievers.muvera.names import Check, assign, fixed, own_errors, refuse_unknown
from llama_index.retrievers.muvera.travel import reduced, require_fingerprint

from muvera_core import FDEConfig, TextEncoder, TokenEncoder
from muvera_core.encoders import default_encoder, require_encoder
from muvera_core.validation import require_mapping

_MADE_FROM = "encoder= and fde="
_FIXED = fixed("make another MuveraEmbedding")
_CHECKS: dict[str, Check] = {"model_name": _FIXED, "normalize": _FIXED, "fde": _FIXED}


class MuveraEmbedding(BaseEmbedding):
    """MUVERA encodings (FDEs): one vector per text, with which any LlamaIndex vector store can find candidates.

    Rerank the candidates with a ``MaxSimRerank``, because these vectors alone give only a rough order. Queries and
    documents are encoded differently: never compare the vectors of two documents. That rules out semantic splitters
    and the vector store's own MMR.

    A pickle and ``to_dict`` hold the settings, so an ``IngestionPipeline`` can give the work to other processes. A
    pickle holds the encoder, too; ``to_dict`` holds its fingerprint only.

    **Which metric.** By default all vectors have unit length. Then inner product, cosine and Euclidean distance give
    the same order, and the store needs no setting. ``SimpleVectorStore`` and most others compare by cosine. The plain
    encodings (``normalize=False``) are made for inner product: set the store to it.

    Examples:
        ```python
        from llama_index.core import Document, VectorStoreIndex
        from llama_index.retrievers.muvera import MaxSimRerank, MuveraEmbedding

        index = VectorStoreIndex.from_documents([Document(text="Owls hunt at night.")], embed_model=MuveraEmbedding())
        retriever = index.as_retriever(similarity_top_k=100)
        query = "Which bird is active after dark?"
        MaxSimRerank(top_n=5).postprocess_nodes(retriever.retrieve(query), query_str=query)
        ```
    """

    model_config = ConfigDict(validate_assignment=True)
    normalize: bool = Field(default=True, description="Whether vectors are scaled to unit length.")
    fde: FDEConfig = Field(description="Settings of the FDE.")
    _text_encoder: TextEncoder = PrivateAttr()

    def __init__(
        self,
        encoder: TokenEncoder | None = None,
        fde: FDEConfig | Mapping[str, Any] | None = None,
        *,
        normalize: bool = True,
        **kwargs: Any,
    ) -> None:
        """Encode with a token encoder and an FDE.

        Args:
            encoder: turns text into token vectors. None takes the bundled encoder.
            fde: settings of the FDE. None takes the defaults. Its dimension must be the encoder's. ``center`` cannot
                be set, because there is no corpus to take a mean from. A dictionary comes from ``to_dict``.
            normalize: scale vectors to unit length.
            **kwargs: arguments of LlamaIndex's ``BaseEmbedding``, such as ``embed_batch_size``.

        Raises:
            InvalidInputError: ``fde`` is for vectors of another width or sets ``center``, or another argument is
                unknown or invalid.
        """
        refuse_unknown("MuveraEmbedding", kwargs, MuveraEmbedding.__init__, *type(self).model_fields)
        with own_errors("MuveraEmbedding"):
            expected = kwargs.get("model_name")
            made_with = str(expected).partition("/")[0]
            encoder = default_encoder(made_with) if encoder is None else require_encoder(encoder)
            if expected is not None and not str(expected).startswith(f"{encoder.fingerprint}/"):
                require_fingerprint("model_name", expected, encoder.fingerprint, _MADE_FROM)
            text_encoder = TextEncoder(encoder, _fde_config(fde), normalize=normalize)
            require_fingerprint("model_name", expected, text_encoder.fingerprint, _MADE_FROM)
            # A LlamaIndex pipeline caches results by the model's fields, so the name must differ between settings.
            own = {"normalize": normalize, "fde": text_encoder.fde, "model_name": text_encoder.fingerprint}
            super().__init__(**{**kwargs, **own})
        self._text_encoder = text_encoder

    @classmethod
    def class_name(cls) -> str:
        """The name of the class in LlamaIndex."""
        return "MuveraEmbedding"

    def __setattr__(self, name: str, value: Any) -> None:
        assign(self, name, value, _CHECKS, super().__setattr__)

    def __reduce__(self) -> tuple[Any, ...]:
        return reduced(self, self._text_encoder.encoder)

    @property
    def dimension(self) -> int:
        """Width of a vector. Some vector stores must be told."""
        return self._text_encoder.output_dimension

    def _get_query_embedding(self, query: str) -> list[float]:
        embedding: list[float] = self._text_encoder.encode_queries([query])[0].tolist()
        return embedding

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        embeddings: list[list[float]] = self._text_encoder.encode_documents(texts).tolist()
        return embeddings

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)


def _fde_config(fde: FDEConfig | Mapping[str, Any] | None) -> FDEConfig | None:
    if fde is None or isinstance(fde, FDEConfig):
        return fde
    settings = require_mapping("fde", fde)
    refuse_unknown("FDEConfig", settings, FDEConfig)
    return FDEConfig(**settings)
