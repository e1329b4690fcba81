"""Writes the documents of a plan in batches, each of which is durable before the next one begins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from muvera_core.corpus import SourceDocument
from muvera_core.index import IndexCalls
from muvera_core.sync.known import Known, text_of
from muvera_core.token_embeddings import FloatArray

# Most documents, and characters, that are written together. An interruption costs one such batch at most. The limit on
# characters bounds the memory that encoding takes.
_WRITTEN_TOGETHER = 64
_CHARACTERS_TOGETHER = 1 << 20
_IMAGES_TOGETHER = 8


class DocumentWriter:
    """Writes documents. Tokens of a text that the index has under another id are taken from there.

    Args:
        index: the index.
        known: says which texts it has.

    Attributes:
        n_reused: documents whose tokens were taken from others.
    """

    def __init__(self, index: IndexCalls, known: Known) -> None:
        self.n_reused = 0
        self._index, self._donors = index, known.donors
        # Stored tokens are the encoder's only if nothing was merged or dropped.
        self._may_reuse = index.pool_factor == 1 and index.keep_tokens == 1

    def write(self, documents: Iterable[SourceDocument]) -> Iterator[list[SourceDocument]]:
        """Add documents, in batches. Yields the documents of each batch once they are saved."""
        for batch in _batches(documents):
            yield self._add(batch) if batch[0].text is not None else self._add_images(batch)

    def _add(self, documents: list[SourceDocument]) -> list[SourceDocument]:
        embeddings = self._reusable(documents) if self._may_reuse else {}
        reused = [document for document in documents if document.id in embeddings]
        others = [document for document in documents if document.id not in embeddings]
        if reused:
            self._index.add_embeddings([embeddings[each.id] for each in reused], *_columns(reused))
            self.n_reused += len(reused)
        if others:
            ids, texts, metadatas = _columns(others)
            self._index.add(texts, ids, metadatas)
        return documents

    def _reusable(self, documents: Sequence[SourceDocument]) -> dict[str, FloatArray]:
        """Token vectors by id, of those documents whose text another document of the index has now."""
        donors: dict[str, str] = {}
        for document in documents:
            donor = self._donors.get(text_of(document.text, None))
            if donor is not None and donor != document.id:
                donors[document.id] = donor
        wanted = sorted(set(donors.values()))
        # An earlier batch may have replaced the donor.
        texts = {found.id: found.text for found in self._index.get(wanted)} if wanted else {}
        same = {each.id: donors[each.id] for each in documents if each.text == texts.get(donors.get(each.id, ""))}
        embeddings = self._index.get_embeddings(sorted(set(same.values()))) if same else {}
        return {id: embeddings[donor] for id, donor in same.items() if donor in embeddings}

    def _add_images(self, documents: list[SourceDocument]) -> list[SourceDocument]:
        """Add images. Some of them may turn out to be damaged."""
        ids, metadatas = [document.id for document in documents], [document.metadata for document in documents]
        self._index.add_images([document.file.path for document in documents], ids, metadatas=metadatas)
        digests = {found.id: found.image_digest for found in self._index.get(ids)}
        return [document for document in documents if document.image_digest == digests.get(document.id)]


def _columns(documents: Sequence[SourceDocument]) -> tuple[list[str], list[str], list[dict[str, object]]]:
    return (
        [document.id for document in documents],
        [document.text or "" for document in documents],
        [document.metadata for document in documents],
    )


def _batches(documents: Iterable[SourceDocument]) -> Iterator[list[SourceDocument]]:
    batch: list[SourceDocument] = []
    n_characters = 0
    for document in documents:
        length = len(document.text or "")
        if batch and not _fits(batch, document, n_characters + length):
            yield batch
            batch, n_characters = [], 0
        batch.append(document)
        n_characters += length
    if batch:
        yield batch


def _fits(batch: Sequence[SourceDocument], document: SourceDocument, n_characters: int) -> bool:
    """Whether a document can be written together with a batch: both are texts, or both are images."""
    if document.text is None:
        return batch[0].text is None and len(batch) < _IMAGES_TOGETHER
    return batch[0].text is not None and len(batch) < _WRITTEN_TOGETHER and n_characters <= _CHARACTERS_TOGETHER
