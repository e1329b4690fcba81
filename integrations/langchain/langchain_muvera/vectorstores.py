"""A LangChain vector store over a muvera index."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from langchain_muvera.documents import to_document
from langchain_muvera.embeddings import MuveraEmbeddings
from muvera_core import FDEConfig, MuveraIndex, TokenEncoder
from muvera_core.errors import InvalidInputError

Filter = Mapping[str, Any]


class MuveraVectorStore(VectorStore):
    """Stores documents in a ``MuveraIndex`` and finds them by late interaction.

    Scores are the mean similarity of the question's tokens to their best matches, in [0, 1]: higher is better, and
    they can be compared between questions, so a threshold means something. Filters are MongoDB-style conditions on
    metadata: ``{"year": {"$gte": 2020}, "author.name": "Ada"}``. Every method has an async twin that runs in a
    thread. Keywords that a method doesn't know are refused.

    Args:
        index: holds the documents and encodes them. Whoever opened it closes it, here with ``close`` or ``with``.

    Example:
        .. code-block:: python

            from langchain_muvera import MuveraVectorStore

            with MuveraVectorStore.from_texts(["Ants live in colonies.", "Owls hunt at night."], path="birds") as store:
                store.similarity_search("Which bird is active after dark?", k=1)

            store = MuveraVectorStore.load("birds")
    """

    def __init__(self, index: MuveraIndex) -> None:
        if not isinstance(index, MuveraIndex):
            raise InvalidInputError(
                f"index must be a MuveraIndex, got {type(index).__name__}: make one with MuveraIndex.create(folder)"
            )
        self.index = index

    # Making, opening and closing

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        path: str | os.PathLike[str] | None = None,
        encoder: TokenEncoder | None = None,
        fde: FDEConfig | None = None,
        pool_factor: int = 1,
        **kwargs: Any,
    ) -> Self:
        """Make an index of these texts.

        Args:
            texts: the passages.
            embedding: None, or ``MuveraEmbeddings``, whose token encoder and stage-one settings are then used. Other
                embeddings give one vector per text, which late interaction can't use: they are refused.
            metadatas: one for each.
            ids: one for each.
            path: a folder that doesn't exist or is empty; None keeps the index in memory.
            encoder: turns text into token vectors; None takes the bundled one.
            fde: settings of stage one; None takes the defaults.
            pool_factor: store about one token in so many; see ``MuveraIndex.create``.
            **kwargs: see ``add_texts``.

        Raises:
            InvalidInputError: another kind of embedding, or as ``add_texts``.
            IndexExistsError: the folder is in use; ``load`` it and add to it instead.
        """
        if isinstance(embedding, MuveraEmbeddings):
            encoder, fde = encoder or embedding.encoder, fde or embedding.fde
        elif embedding is not None:
            raise InvalidInputError(
                f"embedding must be None or MuveraEmbeddings, got {type(embedding).__name__}, which gives one vector "
                "per text: pass a token encoder as encoder=, or leave both out for the bundled one"
            )
        store = cls(MuveraIndex.create(path, encoder, fde, pool_factor=pool_factor))
        try:
            store.add_texts(texts, metadatas, ids=ids, **kwargs)
        except BaseException:
            store.close()
            if store.index.path is not None:  # it was empty before, so what is in it now comes from here
                for file in store.index.path.iterdir():
                    file.unlink()
            raise
        return store

    @classmethod
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """The same as ``from_texts``, in a thread."""
        return await super().afrom_texts(texts, embedding, metadatas, ids=ids, **kwargs)  # type: ignore[arg-type]

    @classmethod
    def from_documents(cls, documents: list[Document], embedding: Embeddings | None = None, **kwargs: Any) -> Self:
        """Make an index of these documents. See ``from_texts``."""
        texts, metadatas, ids = _parts(documents, kwargs.pop("ids", None))
        return cls.from_texts(texts, embedding, metadatas, ids=ids, **kwargs)

    @classmethod
    async def afrom_documents(
        cls, documents: list[Document], embedding: Embeddings | None = None, **kwargs: Any
    ) -> Self:
        """The same as ``from_documents``, in a thread."""
        texts, metadatas, ids = _parts(documents, kwargs.pop("ids", None))
        return await cls.afrom_texts(texts, embedding, metadatas, ids=ids, **kwargs)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        encoder: TokenEncoder | None = None,
        *,
        read_only: bool = False,
        device: str = "cpu",
    ) -> Self:
        """Open the index in a folder. See ``MuveraIndex.open``."""
        return cls(MuveraIndex.open(path, encoder, read_only=read_only, device=device))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Make sure that the documents are in this folder.

        A store that was made or loaded with a folder keeps every change there at once, so for that folder there is
        nothing to do. Into another, empty one, documents and settings are copied.

        Raises:
            IndexExistsError: the folder is in use by something else.
        """
        if self.index.path is None or self.index.path != Path(path).absolute():
            self.index.copy_to(path)

    def close(self) -> None:
        """Close the index and let go of its folder. Documents are safe without it."""
        self.index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Adding, reading and deleting

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        batch_size: int = 64,
        show_progress: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """Encode and add texts, all or none. One whose id is known replaces the document that had it.

        Args:
            texts: the passages, none of them empty.
            metadatas: one for each; anything that JSON can hold.
            ids: one for each, distinct; random ones where it is, or an item is, None.
            batch_size: texts per call of the encoder.
            show_progress: show a bar on standard error.
            **kwargs: refused.

        Returns:
            The ids, in order.

        Raises:
            InvalidInputError: an empty text, ids that repeat, metadata that JSON can't hold, lengths that differ.
        """
        _refuse("add_texts", kwargs)
        if ids is not None:
            ids = [uuid.uuid4().hex if id is None else id for id in ids]
        return self.index.add(
            texts if isinstance(texts, str) else list(texts),
            ids,
            metadatas,
            batch_size=batch_size,
            show_progress=show_progress,
        )

    def add_documents(self, documents: list[Document], **kwargs: Any) -> list[str]:
        """Encode and add documents, all or none. ``ids`` beat the documents' own. See ``add_texts``."""
        texts, metadatas, ids = _parts(documents, kwargs.pop("ids", None))
        return self.add_texts(texts, metadatas, ids=ids, **kwargs)

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents with these ids, in their order; ids that aren't there are passed over."""
        return [to_document(document) for document in self.index.get(list(ids))]

    def delete(self, ids: list[str] | None = None, *, filter: Filter | None = None, **kwargs: Any) -> bool:
        """Delete documents by id, by metadata, or those for which both hold; with neither, **all** of them.

        Ids that aren't there are passed over. That nothing given means everything is LangChain's rule.

        Returns:
            True: what was to be deleted isn't there any more.
        """
        _refuse("delete", kwargs)
        if ids is None and filter is None:
            self.index.clear()
        else:
            self.index.delete(ids, filter=filter)
        return True

    # Searching

    def similarity_search(self, query: str, k: int = 4, filter: Filter | None = None, **kwargs: Any) -> list[Document]:
        """The ``k`` documents that match best, best first. Keywords as for ``similarity_search_with_score``."""
        return [document for document, _ in self.similarity_search_with_score(query, k, filter, **kwargs)]

    def similarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        filter: Filter | None = None,
        *,
        score_threshold: float | None = None,
        n_candidates: int | None = None,
        exact: bool = False,
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """The ``k`` documents that match best, best first, each with its score in [0, 1]; higher is better.

        Args:
            query: the question.
            k: how many; all of them where fewer satisfy the filter.
            filter: conditions on metadata.
            score_threshold: leave out documents that score less.
            n_candidates: how many documents to rerank by exact MaxSim; None leaves it to the index.
            exact: score every document: slow, the yardstick.
            **kwargs: refused.

        Raises:
            InvalidInputError: an empty question, k below 1, a filter that can't be used.
        """
        _refuse("similarity_search", kwargs)
        hits = self.index.search(query, k, n_candidates, filter=filter, exact=exact)
        return [
            (to_document(hit), hit.normalized_score)
            for hit in hits
            if score_threshold is None or hit.normalized_score >= score_threshold
        ]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        """Scores are relevance scores as they are."""
        return lambda score: score

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """``k`` of the ``fetch_k`` best documents that match the question and differ from each other.

        Args:
            query: the question.
            k: how many; all of them where fewer satisfy the filter.
            fetch_k: how many to choose from, at least ``k``.
            lambda_mult: 1 weighs only the match, 0 only the difference.
            filter: conditions on metadata.
            **kwargs: refused.
        """
        _refuse("max_marginal_relevance_search", kwargs)
        hits = self.index.search_diverse(query, k, fetch_k=fetch_k, relevance_weight=lambda_mult, filter=filter)
        return [to_document(hit) for hit in hits]

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> NoReturn:
        """Not available: a question is a set of token vectors, not one vector."""
        raise NotImplementedError(_NO_VECTOR)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> NoReturn:
        """Not available: a question is a set of token vectors, not one vector."""
        raise NotImplementedError(_NO_VECTOR)

    @property
    def embeddings(self) -> None:
        """None: no single vector stands for a text here. What encodes is ``index.encoder``."""
        return


_NO_VECTOR = (
    "MuveraVectorStore compares sets of token vectors, so it can't search by one vector: search by text, or give a "
    "question's token vectors to store.index.search_embeddings"
)


def _parts(
    documents: Iterable[Document], ids: list[str] | None
) -> tuple[list[str], list[dict[str, Any]], list[str] | None]:
    """Texts, metadatas and ids of documents; the ids are the documents' own where None are given."""
    documents = list(documents)
    own = [document.id or uuid.uuid4().hex for document in documents]
    texts = [document.page_content for document in documents]
    return texts, [document.metadata for document in documents], own if ids is None else ids


def _refuse(method: str, kwargs: Mapping[str, Any]) -> None:
    if kwargs:
        raise InvalidInputError(
            f"{method} doesn't know {', '.join(map(repr, kwargs))}: leave it out, or look for a typo"
        )
