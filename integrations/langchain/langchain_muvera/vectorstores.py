"""A LangChain vector store over a muvera index."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, Self

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from langchain_muvera.embeddings import MuveraEmbeddings
from langchain_muvera.keywords import refuses_unknown
from langchain_muvera.store_changes import StoreChanges, unpack
from langchain_muvera.store_searches import StoreSearches
from muvera_core import FDEConfig, IndexCalls, MuveraIndex, TokenEncoder
from muvera_core.errors import InvalidInputError
from muvera_core.lexical import LexicalConfig
from muvera_core.storage import DEFAULT_PRECISION, TokenPrecision
from muvera_core.validation import require_path


class MuveraVectorStore(StoreChanges, StoreSearches):
    """Stores documents in an index, such as a ``MuveraIndex``, and finds them by late interaction.

    Searches return a ``ScoredDocument`` for each document, with its scores. LangChain's relevance score is its
    ``relevance``: the probability that it is relevant, if the index was calibrated (``store.index.calibrate()``), or
    else the normalized score, the mean per query token, clipped to [0, 1]. Both can be compared between queries, so a
    smallest score is meaningful. Filters are MongoDB-style conditions on metadata:
    ``{"year": {"$gte": 2020}, "author.name": "Ada"}``. Every method has an async version. It awaits an index that is
    asked over a network, and runs in a thread with an index of this process. Unknown keywords are refused. Calls of the
    index that the store lacks are at hand in ``store.index``.

    Args:
        index: holds the documents: a ``MuveraIndex``, a ``ShardedMuveraIndex`` or a ``RemoteMuveraIndex``. Close it
            with ``close`` or a ``with`` statement.

    Example:
        .. code-block:: python

            from langchain_muvera import MuveraVectorStore

            with MuveraVectorStore.open_or_create("birds") as store:
                store.add_texts(["Ants live in colonies.", "Owls hunt at night."], ids=["ant", "owl"])
                store.similarity_search("Which bird is active after dark?", k=1)
    """

    @refuses_unknown
    def __init__(self, index: IndexCalls) -> None:
        if not isinstance(index, IndexCalls):
            raise InvalidInputError(
                f"index must be a MuveraIndex, a ShardedMuveraIndex or a RemoteMuveraIndex, got "
                f"{type(index).__name__}: for a folder use MuveraVectorStore.open_or_create(folder)"
            )
        self.index = index

    # Making, opening and closing

    @classmethod
    @refuses_unknown
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
        token_precision: TokenPrecision = DEFAULT_PRECISION,
        pool_factor: int = 1,
        keep_tokens: float = 1.0,
        lexical: LexicalConfig | bool = True,
        device: str = "cpu",
        batch_size: int = 64,
        show_progress: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Make an index of these texts. If that fails, nothing of it is left.

        Args:
            texts: the passages; see ``add_texts``.
            embedding: None, or ``MuveraEmbeddings``, whose token encoder and FDE settings are used. Other embeddings
                are refused: they give one vector per text, and late interaction needs one per token.
            metadatas: a mapping for each text.
            ids: an id for each text.
            path: a folder that does not exist or is empty. None keeps the index in memory.
            encoder: turns text into token vectors. None takes the bundled encoder.
            fde: settings of the FDE that stage one starts with. None takes the defaults.
            token_precision: how token vectors are stored; see ``MuveraIndex.create``.
            pool_factor: about one in ``pool_factor`` tokens is stored; see ``MuveraIndex.create``.
            keep_tokens: the share of a document's tokens that is kept; see ``MuveraIndex.create``.
            lexical: settings of the word index, which lexical and hybrid searches need. True takes the defaults, False
                makes none.
            device: the device to search on; see ``MuveraIndex.open``.
            batch_size: texts per call of the encoder.
            show_progress: show a bar on standard error.
            **kwargs: refused.

        Raises:
            InvalidInputError: the same cases as for ``add_texts``, or the embedding is of another kind.
            IndexExistsError: the folder is in use. Call ``open_or_create`` and add to that index instead.
        """
        if isinstance(embedding, MuveraEmbeddings):
            encoder, fde = encoder or embedding.encoder, fde or embedding.fde
        elif embedding is not None:
            raise InvalidInputError(
                f"embedding must be None or MuveraEmbeddings, got {type(embedding).__name__}, which gives one vector "
                "per text: pass a token encoder as encoder=, or leave both out for the bundled one"
            )
        with MuveraIndex.creating(
            path,
            encoder,
            fde,
            token_precision=token_precision,
            pool_factor=pool_factor,
            keep_tokens=keep_tokens,
            lexical=lexical,
            device=device,
        ) as index:
            store = cls(index)
            store.add_texts(texts, metadatas, ids=ids, batch_size=batch_size, show_progress=show_progress)
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
        texts, kwargs = unpack("from_documents", cls.from_texts, documents, kwargs)
        return cls.from_texts(texts, embedding, **kwargs)

    @classmethod
    async def afrom_documents(
        cls, documents: list[Document], embedding: Embeddings | None = None, **kwargs: Any
    ) -> Self:
        """See ``from_documents``. Runs in a thread."""
        texts, kwargs = unpack("from_documents", cls.from_texts, documents, kwargs)
        return await cls.afrom_texts(texts, embedding, **kwargs)

    @classmethod
    @refuses_unknown
    def open_or_create(
        cls,
        path: str | os.PathLike[str],
        encoder: TokenEncoder | None = None,
        fde: FDEConfig | None = None,
        *,
        token_precision: TokenPrecision | None = None,
        pool_factor: int | None = None,
        keep_tokens: float | None = None,
        lexical: LexicalConfig | bool | None = None,
        device: str = "cpu",
    ) -> Self:
        """Open the index in a folder for writing. Make it if there is none. See ``MuveraIndex.open_or_create``.

        Args:
            path: the index's folder.
            encoder: turns text into token vectors. None takes the bundled encoder.
            fde: settings of the FDE that stage one starts with. None takes the index's own, or the defaults.
            token_precision: how token vectors are stored. None takes the index's own, or "int8".
            pool_factor: about one in ``pool_factor`` tokens is stored. None takes the index's own, or 1.
            keep_tokens: the share of a document's tokens that is kept. None takes the index's own, or 1.
            lexical: settings of the word index. None takes the index's own, or the defaults.
            device: the device to search on; see ``MuveraIndex.open``.

        Raises:
            InvalidInputError: the index has another setting than the one given.
            IndexFolderError: the folder holds something else, another process writes to it, or files are damaged.
        """
        index = MuveraIndex.open_or_create(
            path,
            encoder,
            fde,
            token_precision=token_precision,
            pool_factor=pool_factor,
            keep_tokens=keep_tokens,
            lexical=lexical,
            device=device,
        )
        return cls(index)

    @classmethod
    @refuses_unknown
    def load(
        cls,
        path: str | os.PathLike[str],
        encoder: TokenEncoder | None = None,
        *,
        read_only: bool = False,
        refresh_interval: float | None = 1.0,
        device: str = "cpu",
    ) -> Self:
        """Open an index that is on disk. See ``MuveraIndex.open``.

        Args:
            path: the index's folder.
            encoder: the encoder that the index was made with. None takes the bundled encoder.
            read_only: refuse changes. Any number of processes can read an index.
            refresh_interval: if ``read_only``, the seconds after which a search looks for what the writer has
                committed. 0 looks every time, None never.
            device: the device to search on.

        Raises:
            NotAnIndexError: the folder holds no index.
            IndexFolderError: the other cases of ``MuveraIndex.open``.
        """
        return cls(
            MuveraIndex.open(path, encoder, read_only=read_only, refresh_interval=refresh_interval, device=device)
        )

    @refuses_unknown
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the documents and settings to a folder.

        If ``path`` is the index's own folder, nothing is done: every change is there already. Another folder must be
        empty or new and gets a copy.

        Raises:
            IndexExistsError: the folder is in use.
        """
        if self.index.path != require_path("path", path):
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
