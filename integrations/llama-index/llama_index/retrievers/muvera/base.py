"""A LlamaIndex retriever over a muvera index."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.constants import DEFAULT_SIMILARITY_TOP_K
from llama_index.core.indices.base import BaseIndex
from llama_index.core.ingestion import run_transformations
from llama_index.core.schema import BaseNode, Document, IndexNode, NodeWithScore, QueryBundle, TransformComponent
from llama_index.core.settings import Settings
from llama_index.core.vector_stores.types import MetadataFilters
from llama_index.retrievers.muvera.filters import to_filter
from llama_index.retrievers.muvera.nodes import to_scored_node
from llama_index.retrievers.muvera.persistence import open_persisted
from llama_index.retrievers.muvera.vector_store import MuveraVectorStore

from muvera_core import MuveraIndex, TokenEncoder
from muvera_core.errors import InvalidInputError


class MuveraRetriever(BaseRetriever):
    """Finds the nodes of a ``MuveraIndex`` that match a query best, by late interaction.

    Each node is returned as it was stored. ``NodeWithScore.score`` is the normalized score: the mean per query token,
    clipped to [0, 1]. It can be compared between queries, so a cutoff is meaningful. ``metadata["maxsim_score"]`` is
    the score, the raw MaxSim sum. It is hidden from language models and embedding models.

    Several ``custom_embedding_strs`` in a ``QueryBundle`` are joined: MaxSim is a sum over query tokens, so each string
    counts.

    Examples:
        ```python
        from llama_index.core import Document
        from llama_index.retrievers.muvera import MuveraRetriever

        retriever = MuveraRetriever.from_documents(
            [Document(text="Ants live in colonies."), Document(text="Owls hunt at night.")], similarity_top_k=1
        )
        retriever.retrieve("Which bird is active after dark?")
        ```
    """

    def __init__(
        self,
        index: MuveraIndex,
        similarity_top_k: int = DEFAULT_SIMILARITY_TOP_K,
        n_candidates: int | None = None,
        filters: MetadataFilters | None = None,
        **kwargs: Any,
    ) -> None:
        """Search an index.

        Args:
            index: the index to search.
            similarity_top_k: number of nodes to return. If fewer match, all of them are returned.
            n_candidates: number of candidates to rerank by exact MaxSim. None leaves it to the index.
            filters: conditions on metadata.
            **kwargs: arguments of LlamaIndex's ``BaseRetriever``: callback_manager, object_map, objects, verbose.
        """
        self._index = index
        self.similarity_top_k = similarity_top_k
        self.n_candidates = n_candidates
        self.filters = filters
        super().__init__(**kwargs)

    @classmethod
    def from_documents(
        cls,
        documents: Sequence[Document],
        *,
        persist_dir: str | os.PathLike[str] | None = None,
        encoder: TokenEncoder | None = None,
        transformations: Sequence[TransformComponent] | None = None,
        show_progress: bool = False,
        **kwargs: Any,
    ) -> MuveraRetriever:
        """Split documents into nodes and make an index of the nodes.

        Args:
            documents: the documents.
            persist_dir: a folder that does not exist or is empty. None keeps the index in memory.
            encoder: turns text into token vectors. None takes the bundled encoder.
            transformations: turn documents into nodes. None takes those of LlamaIndex's ``Settings``.
            show_progress: show bars on standard error.
            **kwargs: arguments of the constructor.
        """
        steps = Settings.transformations if transformations is None else transformations
        nodes = run_transformations(list(documents), list(steps), show_progress=show_progress)
        return cls.from_nodes(nodes, persist_dir=persist_dir, encoder=encoder, show_progress=show_progress, **kwargs)

    @classmethod
    def from_nodes(
        cls,
        nodes: Sequence[BaseNode],
        *,
        persist_dir: str | os.PathLike[str] | None = None,
        encoder: TokenEncoder | None = None,
        show_progress: bool = False,
        **kwargs: Any,
    ) -> MuveraRetriever:
        """Make an index of these nodes.

        The retriever follows the object of an ``IndexNode``. The index does not store that object.

        Args:
            nodes: the nodes.
            persist_dir: a folder that does not exist or is empty. None keeps the index in memory.
            encoder: turns text into token vectors. None takes the bundled encoder.
            show_progress: show a bar on standard error.
            **kwargs: arguments of the constructor.
        """
        objects = [node for node in nodes if isinstance(node, IndexNode) and node.obj is not None]
        kwargs["object_map"] = {node.index_id: node.obj for node in objects} | (kwargs.get("object_map") or {})
        index = MuveraIndex.create(persist_dir, encoder)
        try:
            MuveraVectorStore(index).add(
                [node.model_copy(update={"obj": None}) if isinstance(node, IndexNode) else node for node in nodes],
                show_progress=show_progress,
            )
            return cls(index, **kwargs)
        except BaseException:
            index.close()
            raise

    @classmethod
    def from_index(cls, index: MuveraIndex | BaseIndex[Any], **kwargs: Any) -> MuveraRetriever:
        """Search a ``MuveraIndex``, or the one behind a ``VectorStoreIndex`` over a ``MuveraVectorStore``.

        Raises:
            InvalidInputError: the vector store is of another kind.
        """
        if isinstance(index, MuveraIndex):
            return cls(index, **kwargs)
        store = getattr(index, "vector_store", None)
        if not isinstance(store, MuveraVectorStore):
            raise InvalidInputError(
                f"expected a MuveraIndex or an index over a MuveraVectorStore, got a {type(index).__name__} over "
                f"{type(store).__name__}: index its nodes with MuveraRetriever.from_nodes"
            )
        # VectorStoreIndex keeps the objects of its index nodes. Its own retriever passes them on in the same way.
        kwargs.setdefault("object_map", getattr(index, "_object_map", None))
        return cls(store.client, **kwargs)

    @classmethod
    def from_persist_dir(
        cls,
        persist_dir: str | os.PathLike[str],
        *,
        encoder: TokenEncoder | None = None,
        device: str = "cpu",
        **kwargs: Any,
    ) -> MuveraRetriever:
        """Open an index that is on disk. See ``MuveraVectorStore.from_persist_dir``."""
        return cls(open_persisted(persist_dir, encoder=encoder, device=device), **kwargs)

    @property
    def index(self) -> MuveraIndex:
        """The index. Use it to add and delete documents and to close it."""
        return self._index

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = self._index.search(
            "\n".join(query_bundle.embedding_strs) or query_bundle.query_str,
            k=self.similarity_top_k,
            n_candidates=self.n_candidates,
            filter=to_filter(self.filters),
        )
        return [to_scored_node(hit) for hit in hits]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        # The base class would call _retrieve on the event loop and block it.
        return await asyncio.to_thread(self._retrieve, query_bundle)
