"""A LlamaIndex retriever over a muvera index."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.constants import DEFAULT_SIMILARITY_TOP_K
from llama_index.core.indices.base import BaseIndex
from llama_index.core.ingestion import run_transformations
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, Document, IndexNode, NodeWithScore, QueryBundle, TransformComponent
from llama_index.core.settings import Settings
from llama_index.core.vector_stores.simple import DEFAULT_VECTOR_STORE
from llama_index.core.vector_stores.types import DEFAULT_PERSIST_DIR
from llama_index.retrievers.muvera.cross_encoders import require_cross_encoder, to_cross_encoder
from llama_index.retrievers.muvera.filters import Filters, require_filters, to_filter
from llama_index.retrievers.muvera.names import Check, choice, optional, refuse_unknown, require_index, require_nodes
from llama_index.retrievers.muvera.nodes import PassageUse, require_passage, to_judged_node, to_scored_node
from llama_index.retrievers.muvera.persistence import open_or_create_persisted, open_persisted
from llama_index.retrievers.muvera.queries import hint_if_empty
from llama_index.retrievers.muvera.vector_store import MuveraVectorStore

from muvera_core import FDEConfig, IndexCalls, MuveraIndex, TokenEncoder
from muvera_core.errors import InvalidInputError, MuveraError
from muvera_core.index import IndexCall, Steps, awaited, stepwise
from muvera_core.lexical import LexicalConfig
from muvera_core.search import CrossEncoder, Fusion, QueryReduction, SearchMode, require_query_reduction
from muvera_core.storage import DEFAULT_PRECISION, TokenPrecision
from muvera_core.validation import require_count, require_share

_CHECKS: dict[str, Check] = {
    "similarity_top_k": require_count,
    "n_candidates": optional(require_count),
    "filters": require_filters,
    "min_score": optional(require_share),
    "mode": choice(SearchMode),
    "lexical_weight": optional(require_share),
    "fusion": choice(Fusion),
    "query_reduction": lambda _, value: require_query_reduction(value),
    "passage": require_passage,
    "cross_encoder": optional(require_cross_encoder),
    "n_calls": optional(require_count),
}
# What has no meaning if a cross-encoder ranks, with the value that says nothing.
_NOT_OF_CROSS_ENCODER = {
    "min_score": None,
    "mode": "late",
    "lexical_weight": None,
    "fusion": "scores",
    "query_reduction": None,
    "passage": None,
}


class MuveraRetriever(BaseRetriever):
    """Finds the nodes of an index that match a query best, by late interaction.

    Each node is returned as it was stored. ``NodeWithScore.score`` is the probability that it is relevant, if the index
    was calibrated (``retriever.index.calibrate()``), or else the normalized score: the mean per query token, clipped to
    [0, 1]. Both can be compared between queries, so a cutoff is meaningful. With a ``cross_encoder`` it is that one's
    score, and None for a node that it did not judge.

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
        index: IndexCalls,
        similarity_top_k: int = DEFAULT_SIMILARITY_TOP_K,
        n_candidates: int | None = None,
        filters: Filters | None = None,
        min_score: float | None = None,
        *,
        mode: SearchMode = "late",
        lexical_weight: float | None = None,
        fusion: Fusion = "scores",
        query_reduction: QueryReduction | None = None,
        passage: PassageUse | None = None,
        cross_encoder: CrossEncoder | BaseNodePostprocessor | None = None,
        n_calls: int | None = None,
        callback_manager: CallbackManager | None = None,
        object_map: dict[str, Any] | None = None,
        objects: list[IndexNode] | None = None,
        verbose: bool = False,
        **kwargs: Any,
    ) -> None:
        """Search an index.

        Args:
            index: the index to search: a ``MuveraIndex``, a ``ShardedMuveraIndex`` or a ``RemoteMuveraIndex``.
            similarity_top_k: number of nodes to return. If fewer match, all of them are returned.
            n_candidates: number of candidates to rerank by exact MaxSim. None leaves it to the index.
            filters: conditions on metadata: ``MetadataFilters``, or a dictionary, which is a filter of muvera_core.
            min_score: smallest relevance of a node, from 0 to 1. Without a calibration a good value depends on the
                encoder.
            mode: what ranks nodes. "late" takes late interaction, "lexical" the words alone (BM25), "hybrid" both.
            lexical_weight: BM25's share in mode "hybrid", from 0 to 1. None lets the index choose.
            fusion: how mode "hybrid" joins the two: by "scores" or by "ranks".
            query_reduction: makes the query shorter for the choice of a shortlist; see ``MuveraIndex.search``.
            passage: what to do with the part of a node's text that matched best. "metadata" puts it into the metadata,
                as "passage", with its place in the text, "passage_start" and "passage_end"; these are neither embedded
                nor given to a language model. "text" also makes it the node's text. Both change the hash by which
                LlamaIndex's fusion of several queries recognizes a node. None leaves nodes as they were stored.
            cross_encoder: ranks the nodes; see ``MuveraVectorStore.search_with_cross_encoder``.
            n_calls: number of nodes that the cross-encoder judges, at most. None takes 50.
            callback_manager: LlamaIndex's; it is told what happens.
            object_map: what the index nodes stand for, by their ``index_id``.
            objects: index nodes with what they stand for. They replace ``object_map``.
            verbose: print what is retrieved from objects.
            **kwargs: refused.

        Raises:
            InvalidInputError: an argument is unknown or invalid. Setting an attribute later raises it, too.
        """
        refuse_unknown("MuveraRetriever", kwargs, MuveraRetriever.__init__)
        super().__init__(callback_manager, object_map, objects, verbose)
        self._index = require_index(index)
        self.similarity_top_k = similarity_top_k
        self.n_candidates = n_candidates
        self.filters = filters
        self.min_score = min_score
        self.mode = mode
        self.lexical_weight = lexical_weight
        self.fusion = fusion
        self.query_reduction = query_reduction
        self.passage = passage
        self.cross_encoder = cross_encoder
        self.n_calls = n_calls

    def __setattr__(self, name: str, value: Any) -> None:
        check = _CHECKS.get(name)
        if check is not None:
            value = check(name, value)
        elif self._is_unknown(name):
            refuse_unknown("MuveraRetriever", [name], *_CHECKS, *(known for known in vars(self) if known[0] != "_"))
        super().__setattr__(name, value)

    def _is_unknown(self, name: str) -> bool:
        if type(self) is not MuveraRetriever or "_index" not in vars(self):
            return False  # a subclass may have more attributes, and LlamaIndex's constructor sets its own
        return not (name.startswith("_") or name in vars(self) or hasattr(MuveraRetriever, name))

    def __reduce__(self) -> NoReturn:
        raise MuveraError(
            "a MuveraRetriever cannot be pickled: it holds an open index. Open the index where you need it, with "
            "MuveraRetriever.from_persist_dir"
        )

    @classmethod
    def from_documents(
        cls,
        documents: Sequence[Document],
        *,
        transformations: Sequence[TransformComponent] | None = None,
        show_progress: bool = False,
        **kwargs: Any,
    ) -> MuveraRetriever:
        """Split documents into nodes and make an index of the nodes.

        Args:
            documents: the documents.
            transformations: turn documents into nodes. None takes those of LlamaIndex's ``Settings``.
            show_progress: show bars on standard error.
            **kwargs: arguments of ``from_nodes``.
        """
        _refuse_unknown(kwargs, MuveraRetriever.from_nodes, MuveraRetriever.from_documents)
        steps = Settings.transformations if transformations is None else transformations
        nodes = run_transformations(list(documents), list(steps), show_progress=show_progress)
        return cls.from_nodes(nodes, show_progress=show_progress, **kwargs)

    @classmethod
    def from_nodes(
        cls,
        nodes: Sequence[BaseNode],
        *,
        persist_dir: str | os.PathLike[str] | None = None,
        encoder: TokenEncoder | None = None,
        fde: FDEConfig | None = None,
        token_precision: TokenPrecision = DEFAULT_PRECISION,
        pool_factor: int = 1,
        keep_tokens: float = 1.0,
        lexical: LexicalConfig | bool = True,
        device: str = "cpu",
        show_progress: bool = False,
        **kwargs: Any,
    ) -> MuveraRetriever:
        """Make an index of these nodes. If that fails, nothing is left of it.

        The retriever follows the object of an ``IndexNode``. The index does not store that object.

        Args:
            nodes: the nodes.
            persist_dir: a folder that does not exist or is empty. None keeps the index in memory.
            encoder: turns text into token vectors. None takes the bundled encoder.
            fde: settings of the FDE that stage one starts with. None takes the defaults.
            token_precision: how token vectors are stored; see ``MuveraIndex.create``.
            pool_factor: about one in ``pool_factor`` tokens is stored; see ``MuveraIndex.create``.
            keep_tokens: the share of a node's tokens that is kept; see ``MuveraIndex.create``.
            lexical: settings of the word index, which lexical and hybrid searches need. True takes the defaults, False
                makes none. Its texts are those that LlamaIndex would embed. ``LexicalConfig(fields=("title",))`` gives
                the words of a metadata field more weight.
            device: the device to search on.
            show_progress: show a bar on standard error.
            **kwargs: arguments of the constructor.

        Raises:
            InvalidInputError: an argument is unknown or invalid, or a node cannot be stored.
            IndexExistsError: the folder is in use. To add to its index, call ``open_or_create``.
        """
        _refuse_unknown(kwargs, MuveraRetriever.from_nodes)
        nodes = require_nodes(nodes)
        objects = [node for node in nodes if isinstance(node, IndexNode) and node.obj is not None]
        kwargs["object_map"] = {node.index_id: node.obj for node in objects} | (kwargs.get("object_map") or {})
        with MuveraIndex.creating(
            persist_dir,
            encoder,
            fde,
            token_precision=token_precision,
            pool_factor=pool_factor,
            keep_tokens=keep_tokens,
            lexical=lexical,
            device=device,
        ) as index:
            retriever = cls(index, **kwargs)
            MuveraVectorStore(index).add(
                [node.model_copy(update={"obj": None}) if isinstance(node, IndexNode) else node for node in nodes],
                show_progress=show_progress,
            )
        return retriever

    @classmethod
    def from_index(cls, index: IndexCalls | BaseIndex[Any], **kwargs: Any) -> MuveraRetriever:
        """Search an index, or the one behind a ``VectorStoreIndex`` over a ``MuveraVectorStore``.

        Raises:
            InvalidInputError: the vector store is of another kind.
        """
        if isinstance(index, IndexCalls):
            return cls(index, **kwargs)
        store = getattr(index, "vector_store", None)
        if not isinstance(store, MuveraVectorStore):
            raise InvalidInputError(
                "expected a MuveraIndex, a ShardedMuveraIndex, a RemoteMuveraIndex or an index over a "
                f"MuveraVectorStore, got a {type(index).__name__} over {type(store).__name__}: index its nodes with "
                "MuveraRetriever.from_nodes"
            )
        # VectorStoreIndex keeps the objects of its index nodes. Its own retriever passes them on in the same way.
        kwargs.setdefault("object_map", getattr(index, "_object_map", None))
        return cls(store.client, **kwargs)

    @classmethod
    def from_persist_dir(
        cls,
        persist_dir: str | os.PathLike[str] = DEFAULT_PERSIST_DIR,
        namespace: str = DEFAULT_VECTOR_STORE,
        encoder: TokenEncoder | None = None,
        read_only: bool = True,
        device: str = "cpu",
        refresh_interval: float | None = 1.0,
        **kwargs: Any,
    ) -> MuveraRetriever:
        """Open an index that is on disk, to search it. See ``MuveraVectorStore.from_persist_dir``.

        By default the index is opened for reading, so any number of processes can open it, such as the workers of a
        web server, beside one that adds documents. What that one adds is found after a second at most.

        Args:
            persist_dir: the folder that was given to ``StorageContext.persist``, or the index's own folder.
            namespace: the store's name in the storage context.
            encoder: the encoder that the index was made with. None takes the bundled encoder.
            read_only: False opens the index for writing, too, which one process at a time can do.
            device: the device to search on.
            refresh_interval: if ``read_only``, the seconds after which a search looks for what the writer has
                committed. None never looks.
            **kwargs: arguments of the constructor.
        """
        _refuse_unknown(kwargs, MuveraRetriever.from_persist_dir)
        index = open_persisted(
            persist_dir,
            namespace=namespace,
            encoder=encoder,
            read_only=read_only,
            device=device,
            refresh_interval=refresh_interval,
        )
        return cls._over(index, kwargs)

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
        **kwargs: Any,
    ) -> MuveraRetriever:
        """Open the index in a folder for writing. Make it if there is none.

        Add nodes with ``MuveraVectorStore(retriever.index)``.

        Args:
            persist_dir: see ``MuveraVectorStore.open_or_create``, also for the other arguments.
            encoder: turns text into token vectors. None takes the bundled encoder.
            fde: settings of the FDE that stage one starts with. None takes the index's own, or the defaults.
            token_precision: how token vectors are stored. None takes the index's own, or "int8".
            pool_factor: about one in ``pool_factor`` tokens is stored. None takes the index's own, or 1.
            keep_tokens: the share of a node's tokens that is kept. None takes the index's own, or 1.
            lexical: settings of the word index. None takes the index's own, or the defaults.
            namespace: the store's name in the storage context.
            device: the device to search on.
            **kwargs: arguments of the constructor.
        """
        _refuse_unknown(kwargs, MuveraRetriever.open_or_create)
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
        return cls._over(index, kwargs)

    @classmethod
    def _over(cls, index: MuveraIndex, kwargs: dict[str, Any]) -> MuveraRetriever:
        """A retriever over an index that was opened for it."""
        try:
            return cls(index, **kwargs)
        except BaseException:
            index.close()
            raise

    @property
    def index(self) -> IndexCalls:
        """The index. Use it to add and delete documents and to close it."""
        return self._index

    @stepwise
    def _retrieve(self, query_bundle: QueryBundle) -> Steps[list[NodeWithScore]]:
        question = "\n".join(query_bundle.embedding_strs) or query_bundle.query_str
        hits = yield self._call(question)
        yield from hint_if_empty(hits)
        if self.cross_encoder is not None:
            return [to_judged_node(hit) for hit in hits]
        return [to_scored_node(hit, self.passage) for hit in hits]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        # The base class would call _retrieve on the event loop and block it.
        return await awaited(self._retrieve, query_bundle)

    def _call(self, question: str) -> IndexCall:
        """The call of the index that finds the nodes."""
        if self.cross_encoder is not None:
            return self._judging_call(question, self.cross_encoder)
        if self.n_calls is not None:
            raise InvalidInputError("n_calls is for a cross_encoder: set the retriever's, or leave n_calls out")
        return IndexCall(
            IndexCalls.search,
            question,
            k=self.similarity_top_k,
            n_candidates=self.n_candidates,
            mode=self.mode,
            lexical_weight=self.lexical_weight,
            fusion=self.fusion,
            filter=to_filter(self.filters),
            min_score=self.min_score,
            with_passages=self.passage is not None,
            query_reduction=self.query_reduction,
        )

    def _judging_call(self, question: str, cross_encoder: CrossEncoder | BaseNodePostprocessor) -> IndexCall:
        for name, value in _NOT_OF_CROSS_ENCODER.items():
            if getattr(self, name) != value:
                raise InvalidInputError(
                    f"{name}={getattr(self, name)!r} has no meaning with a cross_encoder, which ranks by its own "
                    f"scores: leave {name} out"
                )
        numbers: dict[str, Any] = {"n_calls": self.n_calls, "n_candidates": self.n_candidates}
        return IndexCall(
            IndexCalls.search_with_cross_encoder,
            question,
            to_cross_encoder(cross_encoder),
            self.similarity_top_k,
            filter=to_filter(self.filters),
            **{name: value for name, value in numbers.items() if value is not None},
        )


def _refuse_unknown(kwargs: dict[str, Any], *calls: Callable[..., Any]) -> None:
    # Before anything is encoded or opened, although the constructor would refuse them, too.
    refuse_unknown("MuveraRetriever", kwargs, MuveraRetriever.__init__, *calls)
