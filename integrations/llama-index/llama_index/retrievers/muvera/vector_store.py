"""A LlamaIndex vector store over a muvera index."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NoReturn

from fsspec import AbstractFileSystem  # type: ignore[import-untyped]
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]
from llama_index.core.bridge.pydantic import ConfigDict, PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.simple import DEFAULT_VECTOR_STORE
from llama_index.core.vector_stores.types import (
    DEFAULT_PERSIST_DIR,
    VectorStoreQuery,
    VectorStoreQueryResult,
)
from llama_index.retrievers.muvera.filters import Filters, say_nothing, to_filter
from llama_index.retrievers.muvera.names import (
    Check,
    assign,
    fixed,
    one_or_more,
    own_errors,
    refuse_unknown,
    require_index,
    require_nodes,
)
from llama_index.retrievers.muvera.nodes import REF_DOC_ID_FIELD, is_plain, to_found_node, to_node, to_record
from llama_index.retrievers.muvera.own_calls import OwnCalls
from llama_index.retrievers.muvera.persistence import open_or_create_persisted, open_persisted, write_pointer
from llama_index.retrievers.muvera.queries import answer, hint_if_empty

from muvera_core import FDEConfig, IndexCalls, TokenEncoder
from muvera_core.encoders import is_image_encoder
from muvera_core.errors import InvalidInputError, MuveraError
from muvera_core.index import IndexCall, Steps, stepwise
from muvera_core.lexical import LexicalConfig
from muvera_core.storage import TokenPrecision

_DELETE_NODES = {
    name: f"call delete_nodes({meant}=…)"
    for name, meant in {"filter": "filters", "filters": "filters", "where": "filters", "node_ids": "node_ids"}.items()
}
_CHECKS: dict[str, Check] = {"stores_text": fixed("the index stores texts")}


class MuveraVectorStore(OwnCalls):
    """Stores nodes in an index, such as a ``MuveraIndex``, and finds them by late interaction.

    A node's similarity is the probability that it is relevant, if the index was calibrated
    (``store.client.calibrate()``), or else the normalized score: the mean per query token, clipped to [0, 1]. Both can
    be compared between queries, so a cutoff is meaningful. Every method has an async version. It awaits an index that
    is asked over a network, and runs in a thread with an index of this process.

    The index makes its own token vectors and ignores the embeddings of nodes and queries. Pass ``NoEmbedding()``
    wherever LlamaIndex asks for an ``embed_model``.

    Every change is on disk when the call returns. ``persist`` only writes where the index is.

    Examples:
        ```python
        from llama_index.core import Document, StorageContext, VectorStoreIndex
        from llama_index.retrievers.muvera import MuveraVectorStore, NoEmbedding
        from muvera_core import MuveraIndex

        store = MuveraVectorStore(MuveraIndex.create("birds.muvera"))
        index = VectorStoreIndex.from_documents(
            [Document(text="Owls hunt at night.")],
            storage_context=StorageContext.from_defaults(vector_store=store),
            embed_model=NoEmbedding(),
        )
        index.as_retriever().retrieve("Which bird is active after dark?")
        ```
    """

    model_config = ConfigDict(validate_assignment=True)
    stores_text: bool = True
    is_embedding_query: bool = False
    _index: IndexCalls = PrivateAttr()

    def __init__(self, index: IndexCalls, is_embedding_query: bool = False, **kwargs: Any) -> None:
        """Store nodes in ``index``. The caller closes it.

        Args:
            index: a ``MuveraIndex``, a ``ShardedMuveraIndex`` or a ``RemoteMuveraIndex``.
            is_embedding_query: let LlamaIndex embed each query. Only parts of it that ask with a vector alone need
                that, such as a ``DocumentSummaryIndex``; see ``query``.
            **kwargs: refused.

        Raises:
            InvalidInputError: ``index`` is something else, or another argument is given.
        """
        refuse_unknown("MuveraVectorStore", kwargs, MuveraVectorStore.__init__)
        with own_errors("MuveraVectorStore"):
            super().__init__(stores_text=True, is_embedding_query=is_embedding_query)
        self._index = require_index(index)

    @classmethod
    def class_name(cls) -> str:
        """The name of the class in LlamaIndex."""
        return "MuveraVectorStore"

    @classmethod
    def from_persist_dir(
        cls,
        persist_dir: str | os.PathLike[str] = DEFAULT_PERSIST_DIR,
        namespace: str = DEFAULT_VECTOR_STORE,
        encoder: TokenEncoder | None = None,
        read_only: bool = False,
        device: str = "cpu",
        refresh_interval: float | None = 1.0,
    ) -> MuveraVectorStore:
        """Open an index that is on disk. See ``MuveraIndex.open``.

        Args:
            persist_dir: the folder that was given to ``StorageContext.persist``, or the index's own folder.
            namespace: the store's name in the storage context.
            encoder: the encoder that the index was made with. None takes the bundled encoder.
            read_only: refuse changes. Any number of processes can read an index.
            device: the device to search on.
            refresh_interval: if ``read_only``, the seconds after which a call looks for what the writer has committed.
                None never looks.

        Raises:
            NotAnIndexError: the folder holds no index, or points to one outside the folder.
            CorruptIndexError: files are missing or damaged.
            IndexFolderError: the same cases as for ``MuveraIndex.open``.
        """
        index = open_persisted(
            persist_dir,
            namespace=namespace,
            encoder=encoder,
            read_only=read_only,
            device=device,
            refresh_interval=refresh_interval,
        )
        return cls(index)

    @classmethod
    def open_or_create(
        cls,
        persist_dir: str | os.PathLike[str],
        encoder: TokenEncoder | None = None,
        fde: FDEConfig | None = None,
        *,
        token_precision: TokenPrecision | None = None,
        pool_factor: int | None = None,
        keep_tokens: float | None = None,
        lexical: LexicalConfig | bool | None = None,
        namespace: str = DEFAULT_VECTOR_STORE,
        device: str = "cpu",
    ) -> MuveraVectorStore:
        """Open the index in a folder for writing. Make it if there is none. See ``MuveraIndex.open_or_create``.

        Args:
            persist_dir: the index's own folder, or a folder that was given to ``StorageContext.persist``.
            encoder: turns text into token vectors. None takes the bundled encoder.
            fde: settings of the FDE that stage one starts with. None takes the index's own, or the defaults.
            token_precision: how token vectors are stored. None takes the index's own, or "int8".
            pool_factor: about one in ``pool_factor`` tokens is stored. None takes the index's own, or 1.
            keep_tokens: the share of a node's tokens that is kept. None takes the index's own, or 1.
            lexical: settings of the word index. None takes the index's own, or the defaults.
            namespace: the store's name in the storage context.
            device: the device to search on.

        Raises:
            InvalidInputError: the index has another setting than the one given.
            IndexExistsError: the folder holds something else.
            IndexFolderError: the same cases as for ``from_persist_dir``.
        """
        index = open_or_create_persisted(
            persist_dir,
            namespace=namespace,
            encoder=encoder,
            fde=fde,
            token_precision=token_precision,
            pool_factor=pool_factor,
            keep_tokens=keep_tokens,
            lexical=lexical,
            device=device,
        )
        return cls(index)

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> NoReturn:
        """Not available: a dictionary cannot hold an index."""
        raise InvalidInputError(
            "a MuveraVectorStore cannot be made from a dictionary, which does not hold its index: open the index with "
            "MuveraVectorStore.from_persist_dir"
        )

    def __setattr__(self, name: str, value: Any) -> None:
        assign(self, name, value, _CHECKS, super().__setattr__)

    def __reduce__(self) -> NoReturn:
        raise MuveraError(
            "a MuveraVectorStore cannot be pickled: it holds an open index. Open the index where you need it, with "
            "MuveraVectorStore.from_persist_dir"
        )

    @property
    def index(self) -> IndexCalls:
        """The index."""
        return self._index

    @property
    def client(self) -> IndexCalls:
        """The index, by LlamaIndex's name for what a store asks."""
        return self._index

    @stepwise
    def add(
        self,
        nodes: Sequence[BaseNode],
        show_progress: bool = False,
        batch_size: int = 64,
        image_batch_size: int = 8,
        **kwargs: Any,
    ) -> Steps[list[str]]:
        """Encode and add nodes, all or none. A node replaces the one with the same id.

        If the index's encoder embeds images, an ``ImageNode`` or another node with an image is added by its image; see
        ``MuveraIndex.add_images``. Such nodes are added before the others, in a step of its own. The index keeps their
        ``image_path``, but no image data. An image that cannot be read is skipped, with a ``SkippedImageWarning``.

        A node without a visible character, in its text or the metadata to match, is not stored, with a
        ``SkippedTextWarning``. A node that is stored already, and is unchanged, is not encoded again.

        Args:
            nodes: the nodes.
            show_progress: show a bar on standard error.
            batch_size: texts per call of the encoder.
            image_batch_size: images per call of the encoder.
            **kwargs: refused.

        Returns:
            The id of each node, in order, also of those that were not stored.

        Raises:
            InvalidInputError: JSON cannot hold a node, its metadata uses the reserved key, an argument is unknown, or
                only the URL of a node's image is known.
        """
        refuse_unknown("add", kwargs, MuveraVectorStore.add)
        nodes = require_nodes(nodes)
        embeds_images = is_image_encoder(self._index.encoder)
        # Of several nodes with one id, the last is stored.
        latest = {node.node_id: node for node in nodes}.values()
        records = [to_record(node, embeds_images=embeds_images) for node in latest]
        texts = [record for record in records if record.image is None]
        images = [record for record in records if record.image is not None]
        if images:
            yield IndexCall(
                IndexCalls.add_images,
                [record.image for record in images if record.image is not None],
                ids=[record.id for record in images],
                texts=[record.text or None for record in images],
                metadatas=[record.metadata for record in images],
                batch_size=image_batch_size,
                show_progress=show_progress,
            )
        yield IndexCall(
            IndexCalls.add,
            [record.text for record in texts],
            ids=[record.id for record in texts],
            metadatas=[record.metadata for record in texts],
            batch_size=batch_size,
            show_progress=show_progress,
        )
        return [node.node_id for node in nodes]

    @stepwise
    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> Steps[None]:
        """Delete all nodes of a document. A node without a source counts as a document.

        Args:
            ref_doc_id: the document's id. An unknown id is skipped.
            **delete_kwargs: refused.
        """
        refuse_unknown("delete", delete_kwargs, MuveraVectorStore.delete, aliases=_DELETE_NODES)
        yield IndexCall(IndexCalls.delete, filter={REF_DOC_ID_FIELD: ref_doc_id})
        of_that_id = yield IndexCall(IndexCalls.get, [ref_doc_id])
        if any(is_plain(document) for document in of_that_id):
            yield IndexCall(IndexCalls.delete, [ref_doc_id])

    @stepwise
    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: Filters | None = None, **delete_kwargs: Any
    ) -> Steps[None]:
        """Delete nodes by id, by metadata, or by both.

        Args:
            node_ids: the ids. Unknown ids are skipped.
            filters: conditions on metadata. With ``node_ids`` too, a node is deleted if it has one of the ids and the
                filters admit it.
            **delete_kwargs: refused.

        Raises:
            InvalidInputError: neither argument is given, or a filter is invalid. ``clear`` deletes everything.
        """
        refuse_unknown("delete_nodes", delete_kwargs, MuveraVectorStore.delete_nodes)
        if node_ids is None and (filters is None or say_nothing(filters)):
            raise InvalidInputError("delete_nodes needs node_ids or filters; to delete every node call clear()")
        yield IndexCall(IndexCalls.delete, node_ids, filter=to_filter(filters))

    @stepwise
    def get_nodes(self, node_ids: list[str] | None = None, filters: Filters | None = None) -> Steps[list[BaseNode]]:
        """The nodes that have one of these ids and that the filters admit.

        Args:
            node_ids: the ids. Unknown ids are skipped. None admits every id.
            filters: conditions on metadata. None admits every node.

        Returns:
            The nodes in the order of the ids, or, without ids, in the order in which they were added.
        """
        condition = to_filter(filters)
        if node_ids is None:
            found = yield IndexCall(IndexCalls.find, condition)
            return [to_node(document) for document in found]
        wanted = yield IndexCall(IndexCalls.get, list(dict.fromkeys(one_or_more(node_ids))))
        if condition is not None:
            found = yield IndexCall(IndexCalls.find, condition)
            matching = {document.id for document in found}
            wanted = [document for document in wanted if document.id in matching]
        return [to_node(document) for document in wanted]

    @stepwise
    def clear(self) -> Steps[None]:
        """Delete all nodes."""
        yield IndexCall(IndexCalls.clear)

    @stepwise
    def query(self, query: VectorStoreQuery, **kwargs: Any) -> Steps[VectorStoreQueryResult]:
        """The nodes that match a query best, best first, each with its relevance. See ``MuveraIndex.search``.

        A query with ``query_embedding`` only is answered from stage one alone, which gives a rough order: the vector
        must come from a ``MuveraEmbedding`` with the index's encoder and FDE settings, and the index must not be
        optimized. Its similarities are cosines, which cannot be compared with those of other queries. With
        ``query_str``, the vector is ignored.

        Args:
            query: its ``query_str`` is searched for. ``mode`` is DEFAULT (late interaction), HYBRID (late interaction
                and BM25), TEXT_SEARCH or SPARSE (BM25 alone), or MMR (maximal marginal relevance). In HYBRID, ``alpha``
                goes from 0, which looks at words only, to 1, which looks at late interaction only; None lets the index
                choose. ``hybrid_top_k`` is the number of nodes there, in place of ``similarity_top_k``. In MMR,
                ``mmr_threshold`` goes from 0, which looks at diversity only, to 1, which looks at relevance only.
                ``filters`` can be a dictionary, too. ``sparse_top_k`` is refused.
            **kwargs: ``min_score``, the smallest relevance of a node. ``passage``, but in MMR; see ``MuveraRetriever``.
                In the default and hybrid modes ``n_candidates``, ``exact`` and ``query_reduction``. In HYBRID
                ``fusion``, and ``lexical_weight``, which is 1 - alpha. In MMR ``mmr_threshold``; ``mmr_prefetch_k``,
                the number of best nodes to choose from; ``method``, "mmr" or "coverage"; ``n_neighbors``, and ``mode``,
                "late", "hybrid" or "lexical". See ``MuveraIndex.search`` and ``MuveraIndex.search_diverse``.

        Raises:
            InvalidInputError: the query has neither text nor a usable vector, the mode is not supported, or another
                argument is invalid or unknown.
        """
        hits = yield from answer(query, kwargs)
        yield from hint_if_empty(hits)
        return VectorStoreQueryResult(
            nodes=[to_found_node(hit, kwargs.get("passage")) for hit in hits],
            similarities=[hit.relevance for hit in hits],
            ids=[hit.id for hit in hits],
        )

    def persist(self, persist_path: str, fs: AbstractFileSystem | None = None) -> None:
        """Write small files that say where the index is, in the folder of ``persist_path``.

        The documents are on disk already. An index in memory is copied to that folder first. Load the folder with
        ``from_persist_dir``. ``StorageContext.from_defaults(persist_dir=…)`` alone would look for LlamaIndex's own
        vector store, so one of the files makes it fail, with a message that says what to do.

        Raises:
            InvalidInputError: ``fs`` is not the local file system.
        """
        if fs is not None and not isinstance(fs, LocalFileSystem):
            raise InvalidInputError(f"an index needs a local disk, got {type(fs).__name__}: leave fs out")
        write_pointer(self._index, persist_path)
