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

    A document's relevance score is the normalized score: the mean per query token, clipped to [0, 1]. It can be
    compared between queries, so a threshold is meaningful. Filters are MongoDB-style conditions on metadata:
    ``{"year": {"$gte": 2020}, "author.name": "Ada"}``. Every method has an async version, which runs in a thread.
    Unknown keywords are refused.

    Args:
        index: holds the documents and encodes them. Close it with ``close`` or a ``with`` statement.

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
            texts: the passages. None of them is empty.
            embedding: None, or ``MuveraEmbeddings``, whose token encoder and FDE settings are used. Other embeddings
                are refused: they give one vector per text, and late interaction needs one per token.
            metadatas: a mapping for each text.
            ids: an id for each text.
            path: a folder that does not exist or is empty. None keeps the index in memory.
            encoder: turns text into token vectors. None takes the bundled encoder.
            fde: settings of the FDE that stage one starts with. None takes the defaults.
            pool_factor: about one in ``pool_factor`` tokens is stored; see ``MuveraIndex.create``.
            **kwargs: see ``add_texts``.

        Raises:
            InvalidInputError: the same cases as for ``add_texts``, or the embedding is of another kind.
            IndexExistsError: the folder is in use. Call ``load`` and add to that index instead.
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
            if store.index.path is not None:  # the folder was empty before, so all files in it are this index's
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
        """See ``from_texts``. Runs in a thread."""
        return await super().afrom_texts(texts, embedding, metadatas, ids=ids, **kwargs)  # type: ignore[arg-type]

    @classmethod
    def from_documents(cls, documents: list[Document], embedding: Embeddings | None = None, **kwargs: Any) -> Self:
        """Make an index of these documents. See ``from_texts``."""
        texts, metadatas, ids = _unpack(documents, kwargs.pop("ids", None))
        return cls.from_texts(texts, embedding, metadatas, ids=ids, **kwargs)

    @classmethod
    async def afrom_documents(
        cls, documents: list[Document], embedding: Embeddings | None = None, **kwargs: Any
    ) -> Self:
        """See ``from_documents``. Runs in a thread."""
        texts, metadatas, ids = _unpack(documents, kwargs.pop("ids", None))
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
        """Open an index that is on disk. See ``MuveraIndex.open``."""
        return cls(MuveraIndex.open(path, encoder, read_only=read_only, device=device))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the documents and settings to a folder.

        If ``path`` is the index's own folder, nothing is done: every change is there already. Another folder must be
        empty or new and gets a copy.

        Raises:
            IndexExistsError: the folder is in use.
        """
        if self.index.path is None or self.index.path != Path(path).absolute():
            self.index.copy_to(path)

    def close(self) -> None:
        """Close the index and release its folder. Documents are safe without it."""
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
        """Encode and add documents, all or none. A document replaces the one with the same id.

        Args:
            texts: the passages. None of them is empty.
            metadatas: a JSON-like mapping for each text.
            ids: a distinct id for each text. A random id is drawn in place of None.
            batch_size: texts per call of the encoder.
            show_progress: show a bar on standard error.
            **kwargs: refused.

        Returns:
            The ids, in order.

        Raises:
            InvalidInputError: a text is empty, an id repeats, JSON cannot hold the metadata, or lengths differ.
        """
        _refuse_unknown("add_texts", kwargs)
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
        """Encode and add documents, all or none. ``ids`` replace the documents' own ids. See ``add_texts``."""
        texts, metadatas, ids = _unpack(documents, kwargs.pop("ids", None))
        return self.add_texts(texts, metadatas, ids=ids, **kwargs)

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents with these ids, in the order of the ids. Unknown ids are skipped."""
        return [to_document(document) for document in self.index.get(list(ids))]

    def delete(self, ids: list[str] | None = None, *, filter: Filter | None = None, **kwargs: Any) -> bool:
        """Delete documents by id, by metadata, or by both. Without arguments, delete **all** documents.

        Deleting everything without arguments is LangChain's rule.

        Args:
            ids: the ids. Unknown ids are skipped.
            filter: conditions on metadata. With ``ids`` too, a document is deleted if it has one of the ids and the
                filter admits it.
            **kwargs: refused.

        Returns:
            Always True.

        Raises:
            InvalidInputError: the filter is invalid.
        """
        _refuse_unknown("delete", kwargs)
        if ids is None and filter is None:
            self.index.clear()
        else:
            self.index.delete(ids, filter=filter)
        return True

    # Searching

    def similarity_search(self, query: str, k: int = 4, filter: Filter | None = None, **kwargs: Any) -> list[Document]:
        """The ``k`` documents that match a query best, best first. See ``similarity_search_with_score``."""
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
        """The ``k`` documents that match a query best, best first, each with its normalized score.

        Args:
            query: the query's text.
            k: number of documents. If fewer match, all of them are returned.
            filter: conditions on metadata.
            score_threshold: smallest normalized score of a returned document.
            n_candidates: number of candidates to rerank by exact MaxSim. None leaves it to the index.
            exact: score every document. This is slow. It is the reference for every other search.
            **kwargs: refused.

        Raises:
            InvalidInputError: the query is empty, ``k`` or ``n_candidates`` is below 1, or the filter is invalid.
        """
        _refuse_unknown("similarity_search", kwargs)
        hits = self.index.search(query, k, n_candidates, filter=filter, exact=exact)
        return [
            (to_document(hit), hit.normalized_score)
            for hit in hits
            if score_threshold is None or hit.normalized_score >= score_threshold
        ]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        """Leaves scores as they are: a relevance score is the normalized score."""
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
        """Documents that match a query well and differ from one another, by maximal marginal relevance.

        Args:
            query: the query's text.
            k: number of documents. If fewer match, all of them are returned.
            fetch_k: number of best documents to choose from. At least ``k`` are taken.
            lambda_mult: from 0, which looks at diversity only, to 1, which looks at relevance only.
            filter: conditions on metadata.
            **kwargs: refused.

        Raises:
            InvalidInputError: the same cases as for ``similarity_search_with_score``, or ``lambda_mult`` is outside
                [0, 1].
        """
        _refuse_unknown("max_marginal_relevance_search", kwargs)
        hits = self.index.search_diverse(query, k, fetch_k=fetch_k, relevance_weight=lambda_mult, filter=filter)
        return [to_document(hit) for hit in hits]

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> NoReturn:
        """Not available: a query is a set of token vectors, not one vector."""
        raise NotImplementedError(_NO_VECTOR)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> NoReturn:
        """Not available: a query is a set of token vectors, not one vector."""
        raise NotImplementedError(_NO_VECTOR)

    @property
    def embeddings(self) -> None:
        """None, because a text has no single vector here. ``index.encoder`` encodes texts."""
        return


_NO_VECTOR = (
    "MuveraVectorStore compares sets of token vectors, so it cannot search by one vector: search by text, or pass the "
    "query's token vectors to store.index.search_embeddings"
)


def _unpack(documents: Iterable[Document], ids: list[str] | None) -> tuple[list[str], list[dict[str, Any]], list[str]]:
    """Texts, metadatas and ids of documents. If ``ids`` is None, the ids are the documents' own or random."""
    documents = list(documents)
    if ids is None:
        ids = [document.id or uuid.uuid4().hex for document in documents]
    texts = [document.page_content for document in documents]
    return texts, [document.metadata for document in documents], ids


def _refuse_unknown(method: str, kwargs: Mapping[str, Any]) -> None:
    if kwargs:
        raise InvalidInputError(
            f"{method} does not know {', '.join(map(repr, kwargs))}: leave it out, or look for a typo"
        )
