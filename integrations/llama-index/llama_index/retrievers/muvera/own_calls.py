"""What a ``MuveraVectorStore`` can do beyond LlamaIndex's vector stores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore
from llama_index.retrievers.muvera.async_calls import AsyncVectorStore
from llama_index.retrievers.muvera.cross_encoders import to_cross_encoder
from llama_index.retrievers.muvera.filters import Filters, to_filter
from llama_index.retrievers.muvera.names import one_or_more
from llama_index.retrievers.muvera.nodes import is_plain, metadata_of_image, to_judged_node, to_node, to_scored_node

from muvera_core import IndexCalls
from muvera_core.images import ImageInput
from muvera_core.index import IndexCall, Steps, awaited, steps_of, stepwise
from muvera_core.metadata import normalize_metadata
from muvera_core.search import CrossEncoder
from muvera_core.validation import require_count, require_length


class OwnCalls(AsyncVectorStore):
    """Changes metadata, ranks and counts stored nodes."""

    @stepwise
    def update_metadata(
        self,
        node_ids: str | Sequence[str],
        metadatas: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        replace: bool = False,
    ) -> Steps[int]:
        """Change the metadata of nodes, all or none; after them, that of documents that were not added as nodes.

        A node is encoded again only if the metadata that changes is part of the text that is matched, which it is
        unless its keys are among the node's ``excluded_embed_metadata_keys``. A node that was added by its image is
        never encoded again.

        Args:
            node_ids: one or more ids. Unknown ids are skipped.
            metadatas: one mapping for all nodes, or one for each id.
            replace: replace the present metadata. Otherwise the mapping's keys are added to it, or replaced in it.

        Returns:
            The number of nodes whose metadata changed.

        Raises:
            InvalidInputError: metadata cannot be stored, or lengths differ.
        """
        ids = one_or_more(node_ids)
        each = [metadatas] * len(ids) if isinstance(metadatas, Mapping) else list(metadatas)
        require_length("metadatas", each, len(ids), "node")
        given = {id: normalize_metadata(metadata) for id, metadata in zip(ids, each, strict=True)}
        changed, not_nodes, images = [], {}, {}
        for document in (yield IndexCall(IndexCalls.get, list(given))):
            if is_plain(document):  # its metadata is no part of its text
                not_nodes[document.id] = given[document.id]
                continue
            node = to_node(document)
            metadata = given[node.node_id] if replace else {**node.metadata, **given[node.node_id]}
            node_after = node.model_copy(update={"metadata": metadata})
            if document.image_size is not None:
                images[document.id] = metadata_of_image(node_after)
            elif metadata != node.metadata:
                changed.append(node_after)
        added: list[str] = yield from steps_of(self.add, changed)
        n: int = len(added)
        n += yield IndexCall(IndexCalls.update_metadata, list(images), list(images.values()), replace=True)
        n += yield IndexCall(IndexCalls.update_metadata, list(not_nodes), list(not_nodes.values()), replace=replace)
        return n

    @stepwise
    def add_images(
        self,
        images: Iterable[ImageInput],
        node_ids: Iterable[str] | None = None,
        texts: Iterable[str | None] | None = None,
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
        *,
        batch_size: int = 8,
        force: bool = False,
        show_progress: bool = False,
    ) -> Steps[list[str]]:
        """Encode and add images, such as the pages of a document, all or none. See ``MuveraIndex.add_images``.

        They come back as ``ImageNode``s with the ``image_path`` of their file.

        Args:
            images: each a path, the bytes of an image file, or an image of Pillow. One that cannot be read is skipped,
                with a ``SkippedImageWarning``.
            node_ids: a distinct id for each image. None draws random ids.
            texts: a text for each image, which becomes the node's text. It is not encoded.
            metadatas: a mapping for each image.
            batch_size: images per call of the encoder.
            force: encode every image, also those that the index has.
            show_progress: show a bar on standard error.

        Returns:
            An id for each image, in order, also for those that were skipped.

        Raises:
            InvalidInputError: the index's encoder embeds no images, an item is no image, an id repeats or is empty,
                metadata cannot be stored, or lengths differ.
            MissingExtraError: Pillow is not installed.
        """
        added: list[str] = yield IndexCall(
            IndexCalls.add_images,
            images,
            node_ids,
            texts,
            metadatas,
            batch_size=batch_size,
            force=force,
            show_progress=show_progress,
        )
        return added

    @stepwise
    def rerank(
        self, query_str: str, node_ids: Sequence[str], top_n: int | None = None, *, min_score: float | None = None
    ) -> Steps[list[NodeWithScore]]:
        """Rank stored nodes that another search has found, such as BM25, by exact MaxSim. Nothing is encoded again.

        Args:
            query_str: the query's text.
            node_ids: the nodes' ids. Unknown ids are skipped.
            top_n: number of nodes. None returns all.
            min_score: smallest relevance of a node, from 0 to 1.
        """
        top_n = None if top_n is None else require_count("top_n", top_n)
        hits = yield IndexCall(IndexCalls.rerank, query_str, node_ids, top_n, min_score=min_score)
        return [to_scored_node(hit) for hit in hits]

    @stepwise
    def search_with_cross_encoder(
        self,
        query_str: str,
        cross_encoder: CrossEncoder | BaseNodePostprocessor,
        similarity_top_k: int = 10,
        *,
        n_calls: int = 50,
        n_candidates: int = 1000,
        batch_size: int = 8,
        filters: Filters | None = None,
        node_ids: Sequence[str] | None = None,
    ) -> Steps[list[NodeWithScore]]:
        """The nodes that a cross-encoder ranks highest among many candidates, of which it judges only some.

        The text that it gets is the text that is matched: the node's text and its metadata without the excluded keys.
        See ``MuveraIndex.search_with_cross_encoder``.

        Args:
            query_str: the query's text.
            cross_encoder: a node postprocessor that scores all nodes that it gets, such as
                ``SentenceTransformerRerank`` with a ``top_n`` of ``batch_size`` or more; the ``CrossEncoder`` of
                sentence-transformers; or a function of (query, text) pairs that returns one number for each.
            similarity_top_k: number of nodes.
            n_calls: number of pairs to judge, at most.
            n_candidates: number of candidates to judge or predict, found by late interaction.
            batch_size: number of pairs to judge at a time.
            filters: conditions on metadata.
            node_ids: admits only nodes with these ids.

        Returns:
            The nodes that were judged, each with the cross-encoder's score, highest first; if ``similarity_top_k`` asks
            for more than ``n_calls``, then others with None as score.

        Raises:
            InvalidInputError: a number is below 1, a filter is invalid, ``cross_encoder`` cannot score, or it left
                nodes out.
            EncoderError: the cross-encoder did not return one finite number for each pair.
        """
        hits = yield IndexCall(
            IndexCalls.search_with_cross_encoder,
            query_str,
            to_cross_encoder(cross_encoder),
            require_count("similarity_top_k", similarity_top_k),
            n_calls=n_calls,
            n_candidates=n_candidates,
            batch_size=batch_size,
            filter=to_filter(filters),
            ids=node_ids,
        )
        return [to_judged_node(hit) for hit in hits]

    @stepwise
    def count(self, filters: Filters | None = None) -> Steps[int]:
        """The number of nodes that the filters admit."""
        n: int = yield IndexCall(IndexCalls.count, to_filter(filters))
        return n

    async def aadd_images(
        self,
        images: Iterable[ImageInput],
        node_ids: Iterable[str] | None = None,
        texts: Iterable[str | None] | None = None,
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
        *,
        batch_size: int = 8,
        force: bool = False,
        show_progress: bool = False,
    ) -> list[str]:
        """See ``add_images``."""
        return await awaited(
            self.add_images,
            images,
            node_ids,
            texts,
            metadatas,
            batch_size=batch_size,
            force=force,
            show_progress=show_progress,
        )

    async def aupdate_metadata(
        self,
        node_ids: str | Sequence[str],
        metadatas: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        replace: bool = False,
    ) -> int:
        """See ``update_metadata``."""
        return await awaited(self.update_metadata, node_ids, metadatas, replace=replace)

    async def arerank(
        self, query_str: str, node_ids: Sequence[str], top_n: int | None = None, *, min_score: float | None = None
    ) -> list[NodeWithScore]:
        """See ``rerank``."""
        return await awaited(self.rerank, query_str, node_ids, top_n, min_score=min_score)

    async def asearch_with_cross_encoder(
        self,
        query_str: str,
        cross_encoder: CrossEncoder | BaseNodePostprocessor,
        similarity_top_k: int = 10,
        *,
        n_calls: int = 50,
        n_candidates: int = 1000,
        batch_size: int = 8,
        filters: Filters | None = None,
        node_ids: Sequence[str] | None = None,
    ) -> list[NodeWithScore]:
        """See ``search_with_cross_encoder``."""
        return await awaited(
            self.search_with_cross_encoder,
            query_str,
            cross_encoder,
            similarity_top_k,
            n_calls=n_calls,
            n_candidates=n_candidates,
            batch_size=batch_size,
            filters=filters,
            node_ids=node_ids,
        )

    async def acount(self, filters: Filters | None = None) -> int:
        """See ``count``."""
        return await awaited(self.count, filters)
